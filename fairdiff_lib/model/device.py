"""The machine under a network: its device, its precision and memory, and the processes beside it.

Nothing here changes what is computed but for rounding; what a run is stands in its other settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import LoopConfig, MachineConfig

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# what the first process does alone while the others wait, at most: a large cohort's hashes, the
# latents of all training images. Ten minutes, NCCL's own limit, are too few
PATIENCE = timedelta(hours=6)


def has_gpu() -> bool:
    """Whether this machine has an accelerator that networks are computed on."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """Where this process computes: its own GPU, or the CPU."""
    found: torch.device = processes().device
    return found


@contextmanager
def resident(module: Any) -> Iterator[torch.device]:
    """A network on this process' device for as long as it is needed, then where it was."""
    before = module.device
    place = device() if has_gpu() else before
    module.to(place)
    try:
        yield place
    finally:
        module.to(before)


# -- precision -------------------------------------------------------------------------------


def check_loop(loop: LoopConfig, section: str = "") -> None:
    """Refuse, before the work, what this machine can't train with; ``section`` is its name."""
    prefix = f"{section}." if section else ""
    check_precision(loop.mixed_precision, prefix)
    if loop.optimiser == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise InputError(
            f"{prefix}optimiser=adamw8bit: needs bitsandbytes, which is not installed; first "
            "pip install -c constraints.txt -e '.[gpu]', or expected adamw"
        )


def check_precision(precision: str, prefix: str = "") -> None:
    """Refuse half precision where no GPU is; ``prefix`` begins the setting's name."""
    if precision == "fp16" and not has_gpu():
        raise InputError(
            f"{prefix}mixed_precision=fp16: needs a GPU, and this machine has none; "
            "expected bf16 or no"
        )


def carried_out(precision: str) -> str:
    """The precision that this machine computes in when it is asked for one: no, fp16 or bf16.

    A processor without bf16 would only imitate it, slowly: it computes in float32. torch's own
    check is content with AVX-512 of any age, so on x86 the instruction itself is asked for.
    """
    if precision != "bf16" or has_gpu():
        return precision
    found = torch.cpu.get_capabilities()
    if found["architecture"] == "x86_64":
        there = found["avx512_bf16"] or found["amx_bf16"]
    else:
        there = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if there else "no"


def autocast(precision: str) -> AbstractContextManager[Any]:
    """Compute in :func:`carried_out` where that is safe, as in training; ``no`` is float32."""
    kind, own = "cuda" if has_gpu() else "cpu", carried_out(precision)
    return torch.autocast(kind, DTYPES.get(own), enabled=own != "no")


def arrange(module: nn.Module, machine: MachineConfig, precision: str = "no") -> nn.Module:
    """A module on this process' device, laid out as the settings say; the same module.

    Of diffusers' networks inside it, memory and attention are arranged too. Its passes are in a
    precision: no, fp16 or bf16.
    """
    from diffusers import ModelMixin  # seconds: only where something is trained or drawn
    from diffusers.models.attention_processor import AttnProcessor

    if has_gpu() and machine.tf32:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    module.to(device())
    for part in (one for one in module.modules() if isinstance(one, ModelMixin)):
        own: Any = part
        if machine.gradient_checkpointing:
            own.enable_gradient_checkpointing()
        lay_out(own, machine.channels_last)
        # torch 2.13: the backward pass of the CPU's fused attention takes 134 ms in bf16 where
        # the plain products take 4 to 8
        if (
            carried_out(precision) == "bf16"
            and not has_gpu()
            and hasattr(own, "set_attn_processor")
        ):
            own.set_attn_processor(AttnProcessor())
    if machine.compile:
        module.compile()
    return module


def lay_out(module: nn.Module, wanted: bool = False) -> None:
    """Lay convolutions' weights out with channels last where that is wanted or always faster.

    It is on a processor that computes in float32 whatever it is asked for: small images are drawn
    in a fifth less time, and a training step takes a tenth less; the same numbers but for rounding.
    """
    last = wanted or carried_out("bf16") == "no"
    module.to(memory_format=torch.channels_last if last else torch.contiguous_format)  # type: ignore[call-overload]


def accelerator(precision: str) -> Accelerator:
    """Accelerate's view of this process, also where an earlier run had another precision."""
    check_precision(precision)
    precision = carried_out(precision)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # it holds one precision per process; processes stay
    processes()  # with our patience
    # gradients lie in the buckets that are sent: one copy of them less
    buckets = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    return Accelerator(mixed_precision=precision, cpu=not has_gpu(), kwargs_handlers=[buckets])


def optimiser_of(groups: Any, loop: LoopConfig) -> torch.optim.Optimizer:
    """AdamW of parameters, or of groups of them; its state in 8 bits where the loop says so."""
    check_loop(loop)
    shared: dict[str, Any] = {
        "lr": loop.learning_rate,
        "betas": (loop.betas[0], loop.betas[1]),
        "weight_decay": loop.weight_decay,
    }
    if loop.optimiser == "adamw8bit":
        import bitsandbytes  # seconds, and only where it is asked for

        made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(groups, **shared)
        return made
    # small modules spend a tenth of a step in the one that isn't fused
    return torch.optim.AdamW(groups, **shared, fused=True)


# -- several processes -----------------------------------------------------------------------


def processes() -> PartialState:
    """How many processes work together (num_processes), and which this is (process_index)."""
    return PartialState(cpu=not has_gpu(), timeout=PATIENCE)


@contextmanager
def first_only() -> Iterator[bool]:
    """Whether this is the first process; the others wait until it has left the block."""
    yield bool(processes().is_main_process)
    processes().wait_for_everyone()


def leave() -> None:
    """End of a process' last training: without it, several processes abort now and then."""
    if processes().num_processes > 1:
        Accelerator(cpu=not has_gpu()).end_training()


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Compute on so many threads, whatever the job has: sums are rounded by their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Writer:
    """Writes what is given to it, one after the other; beside the work where that would wait.

    On a GPU, and where other processes go on, a copy in this machine's memory is written by a
    thread. A single process on a CPU would only need twice the memory: it writes at once.
    """

    def __init__(self) -> None:
        self.beside = has_gpu() or processes().num_processes > 1
        self.pool = ThreadPoolExecutor(1)
        self.last: Future[None] | None = None

    def write(self, work: Callable[[Any], None], tensors: Any) -> None:
        """``work(tensors)``, with nested dicts and lists of tensors as they are now."""
        self.wait()
        if self.beside:
            self.last = self.pool.submit(work, _copied(tensors))
        else:
            work(tensors)

    def wait(self) -> None:
        """Until all is written; an error of it is raised here."""
        last, self.last = self.last, None
        if last is not None:
            last.result()


def _copied(tree: Any) -> Any:
    """Nested dicts, lists and tuples with copies of their tensors on the CPU."""
    if isinstance(tree, Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return type(tree)(map(_copied, tree)) if isinstance(tree, (list, tuple)) else tree
