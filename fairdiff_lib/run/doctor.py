"""``fairdiff doctor``: does a run fit here, and how long will it take? Nothing is trained.

Sizes come from a dry calculation, the machine's speed from a second of matrix
products. ``benchmarks/results`` has what was predicted and measured for SD 2.1.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from fairdiff_lib.disk.files import read_table
from fairdiff_lib.model import device
from fairdiff_lib.model.pipeline import assembled, build_pipeline, build_tokenizer
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import LoopConfig, MachineConfig, ModelConfig
from fairdiff_lib.study import Study
from fairdiff_lib.train.loop import share_of

UNREAD = 10_000  # images that real data are taken for before they are read: FairGenMed's
# share of the speed of large products that a whole step reaches: measured for the quick preset's
# step on a CPU (0.88) and usual on GPUs, where much time goes into reading and writing memory
EFFICIENCY = {"cpu": 0.85, "cuda": 0.4}
SPARING = MachineConfig(gradient_checkpointing=True, average_on_cpu=True)
PNG = 0.5  # bytes of a PNG file for each byte of pixels, of photographs


@dataclass(frozen=True)
class Finding:
    """One thing that a run needs, and what there is of it."""

    what: str
    needed: float
    there: float | None  # None: nothing to compare it with
    unit: str
    note: str = ""

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.there is None or self.needed <= self.there

    def __str__(self) -> str:
        there = "" if self.there is None else f" of {self.there:.3g} {self.unit}"
        mark = "" if self.fits else "  DOES NOT FIT"
        note = f" ({self.note})" if self.note else ""
        needed = f"{self.needed:.1f}" if self.unit in ("GiB", "GB") else f"{self.needed:,.3g}"
        needed = f"{self.needed:,.0f}" if self.needed >= 100 else needed
        return f"{self.what}: {needed} {self.unit}{there}{note}{mark}"


def examine(
    study: Study, processes: int = 1, memory: float = 0.0, tflops: float = 0.0
) -> list[Finding]:
    """What the study's runs need: memory of each process, disk, hours.

    ``processes`` train one run together, a GPU each. ``memory`` are GiB of a GPU elsewhere, and
    ``tflops`` 10^12 operations a second of its large products; 0 means this machine's. Refused are
    a batch that so many processes can't share, and a model of unknown size.
    """
    own = study.settings
    dry, gpu = measure(own.model), device.has_gpu() or memory > 0
    images, note = _images(study)
    precisions = {own.training.mixed_precision, own.generation.mixed_precision, "no"}
    given = tflops * 1e12 * EFFICIENCY["cuda"]
    speeds: dict[str, float] = {name: given or speed(name) for name in precisions}
    there = memory or _memory()
    share = share_of(own.training, processes)
    parts = dry.training(own.training, own.machine, share, gpu)
    guided, half = own.generation.guidance > 1, own.generation.mixed_precision != "no"
    said = ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if size >= 0.05)
    drawn = dry.sampling(own.generation.batch, guided, half)
    runs = study.places.runs
    place = next(one for one in (runs, *runs.parents) if one.exists())  # or where it will be
    several = f"{len(own.runs)} runs one after the other"
    several += "" if tflops else ", at this machine's speed now"
    trained = training_hours(own.training, own.machine, dry, speeds) * len(own.runs) / processes
    drawing = _drawing_hours(study, dry, images, speeds) / processes
    return [
        Finding("training, each process", sum(parts.values()), there, "GiB", said),
        Finding("images, each process", drawn, there, "GiB"),
        Finding("cohort", images, None, "images", note),
        Finding("disk", disk(study, dry, images), shutil.disk_usage(place).free / 1e9, "GB"),
        Finding("training", trained, None, "hours", several),
        Finding("drawing", drawing, None, "hours", several),
    ]


def advice(study: Study, processes: int, memory: float) -> str:
    """What would make the training fit, or that nothing here does."""
    own = study.settings
    dry, gpu = measure(own.model), device.has_gpu() or memory > 0
    small = replace(own.training, micro_batch=1, optimiser="adamw8bit")
    needed = sum(dry.training(small, SPARING, share_of(small, processes), gpu).values())
    options = (
        "machine.gradient_checkpointing=true machine.average_on_cpu=true training.micro_batch=1 "
        "training.optimiser=adamw8bit"
    )
    if needed <= (memory or _memory()):
        return f"it fits with --set {' --set '.join(options.split())}: {needed:.1f} GiB"
    return f"even with {options} it needs {needed:.1f} GiB; expected a larger machine"


def training_hours(
    loop: LoopConfig, machine: MachineConfig, dry: Dry, speeds: dict[str, float]
) -> float:
    """Hours of one run on one process; a step's backward pass costs two forward ones."""
    passes = 4 if machine.gradient_checkpointing else 3
    work = loop.steps * loop.batch * passes * dry.forward
    return work / speeds[loop.mixed_precision] / 3600


def _drawing_hours(study: Study, dry: Dry, images: int, speeds: dict[str, float]) -> float:
    own = study.settings.generation
    each = own.steps * dry.forward * (2 if own.guidance > 1 else 1) + dry.decode
    encoding = images * dry.encode  # once, for the base's latents
    drawing = len(study.settings.runs) * images * each / speeds[own.mixed_precision]
    return (drawing + encoding / speeds["no"]) / 3600


def disk(study: Study, dry: Dry, images: int) -> float:
    """GB that the study's folder grows to, the two checkpoints of a run in progress included."""
    own = study.settings
    whole = 4 * (dry.unet + dry.vae + dry.text)
    latent = 2 * 4 * dry.latent  # mean and deviation
    moments = 2 if own.training.optimiser == "adamw8bit" else 8
    checkpoint = (4 + moments + (4 if own.training.ema_decay else 0)) * dry.unet
    drawn = images * 3 * own.model.image_size**2 * PNG
    runs = len(own.runs) * (2 * 4 * dry.unet + drawn)  # VAE and text encoder are the base's files
    return (whole + images * latent + runs + 2 * checkpoint) / 1e9


def _images(study: Study) -> tuple[int, str]:
    """How many images the cohort has, and how one knows."""
    kept = study.places.cohort / "cohort.csv"
    if kept.is_file():
        return len(read_table(kept)), "read"
    if study.settings.simulator is not None:
        return sum(study.settings.simulator.counts.values()), "that will be drawn"
    return UNREAD, "not read yet; a guess"


def _memory() -> float:
    """GiB of the GPU, or those that the machine has left."""
    if device.has_gpu():
        return float(torch.cuda.mem_get_info()[0]) / GIB
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError("this machine doesn't say its memory; expected --memory GIB") from error
    left = next(line for line in lines if line.startswith("MemAvailable"))
    return int(left.split()[1]) / 2**20


def speed(precision: str) -> float:
    """Operations a second of this process that a training step reaches, from large products."""
    place = torch.device("cuda" if device.has_gpu() else "cpu")
    side = 8192 if device.has_gpu() else 1024
    kind: Any = device.DTYPES.get(precision, torch.float32)
    if precision == "fp16" and not device.has_gpu():
        kind = torch.bfloat16
    a = torch.ones(side, side, device=place, dtype=kind)
    b = a @ a  # the first one is slower
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < 0.5:
        b = a @ a
        done += 1
        if place.type == "cuda":
            torch.cuda.synchronize()
    assert b.shape == a.shape
    rate = done * 2 * side**3 / (time.perf_counter() - started)
    return rate * EFFICIENCY[place.type]


# -- a dry calculation -----------------------------------------------------------------------
# What a network will take, from its shapes alone: on the meta device, where a tensor is a shape,
# no weight is allocated. A pass over it counts the products, and what autograd would keep. SD
# 2.1's architecture is here from its published configurations (unet, vae, text_encoder,
# scheduler), without its weights; benchmarks fill it with random ones.

BLOCKS = (ResnetBlock2D, BasicTransformerBlock)  # what gradient checkpointing computes again
GIB = 2**30
RUNTIME = 0.8  # GiB of a process before its first network: Python, torch, diffusers


@dataclass(frozen=True)
class Dry:
    """Sizes of a pipeline's networks, and of a pass over one image's latents."""

    unet: int  # parameters
    vae: int
    text: int
    forward: float  # floating-point operations of the U-Net for one image
    encode: float  # of the VAE's encoder
    decode: float  # of its decoder
    kept: (
        int  # elements that the U-Net keeps of one image for the backward pass, its attention fused
    )
    scores: int  # elements of all attention matrices, which plain attention keeps besides
    largest_scores: int  # of its largest one
    inputs: int  # elements of its blocks' inputs
    largest: int  # elements that its largest block keeps
    outside: int  # elements that are kept outside of its blocks
    latent: int  # elements of one image's latents
    image_size: int  # pixels

    def activations(self, machine: MachineConfig, plain: bool = False) -> int:
        """Elements of one image that are there at once in the backward pass.

        ``plain``: attention is computed matrix by matrix, as in 16 bits on a CPU.
        """
        if machine.gradient_checkpointing:
            # the plain products of the backward pass have a matrix and its gradient at once
            return self.outside + self.inputs + self.largest + 2 * plain * self.largest_scores
        return self.kept + plain * self.scores

    def training(
        self, loop: LoopConfig, machine: MachineConfig, share: int, gpu: bool
    ) -> dict[str, float]:
        """GiB that a process needs while it trains the U-Net, by what they are for.

        ``share`` images at once. Main memory, other than a GPU's, holds the frozen networks too.
        """
        half = loop.mixed_precision != "no"
        away = machine.average_on_cpu and gpu
        moments = 2 + 2 / 64 if loop.optimiser == "adamw8bit" else 8  # and a scale per 256
        found = {
            "weights": 4.0 * self.unet,
            "gradients": 4.0 * self.unet,
            "optimiser": moments * self.unet,
            "average": 4.0 * self.unet if loop.ema_decay and not away else 0.0,
            "weights in 16 bits": 2.0 * self.unet if half else 0.0,
            "activations": (2.0 if half else 4.0)
            * share
            * self.activations(machine, plain=half and not gpu),
            "frozen networks": 0.0 if gpu else 4.0 * (self.vae + self.text),
            "runtime": RUNTIME * GIB,
        }
        return {name: size / GIB for name, size in found.items()}

    def sampling(self, batch: int, guided: bool, half: bool) -> float:
        """GiB that a process needs to draw a batch: all networks, and a decoder's pass."""
        weights = 4.0 * (self.unet + self.vae + self.text) + (2.0 * self.unet if half else 0.0)
        pass_over = 4.0 * self.largest * batch * (2 if guided else 1)
        alone = 1 if self.image_size > 128 else batch  # see model.sample
        # its last levels: a few maps of full size with as many channels as it begins with
        decoding = 4.0 * alone * self.image_size**2 * 1024
        return (weights + max(pass_over, decoding)) / GIB + RUNTIME


def parts_of(config: ModelConfig) -> tuple[Any, ...]:
    """U-Net, VAE and text encoder, on ``meta``; a hub's model of unknown size is refused."""
    name = config.pretrained
    if not name:
        made = build_pipeline(config, ["a"], seed=0)  # small, as all that is trained from nothing
        return tuple(part.to("meta") for part in (made.unet, made.vae, made.text_encoder))
    if Path(name).is_dir():
        with torch.device("meta"):
            unet, vae = (
                kind.from_config(kind.load_config(Path(name) / part))
                for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL))
            )
            return unet, vae, CLIPTextModel(CLIPTextConfig.from_pretrained(name + "/text_encoder"))
    if "stable-diffusion-2" in name:
        return build_parts()
    raise InputError(
        f"model.pretrained={name}: its size is not known here; expected a local folder or "
        "Stable Diffusion 2"
    )


def measure(config: ModelConfig) -> Dry:
    """Sizes and a pass of a configured pipeline, at its image size."""
    unet, vae, text = parts_of(config)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side = config.image_size // factor
    latents = torch.empty(1, unet.config.in_channels, side, side, device="meta")
    told = torch.empty(1, 77, unet.config.cross_attention_dim, device="meta")
    step = torch.zeros(1, dtype=torch.int64, device="meta")
    pixels = torch.empty(1, 3, config.image_size, config.image_size, device="meta")
    inside, inputs, scores = _kept(unet.train(), latents, step, told)
    blocks = {name: size for name, size in inside.items() if name}
    with torch.no_grad():
        return Dry(
            unet=_size(unet),
            vae=_size(vae),
            text=_size(text),
            forward=_flops(lambda: unet(latents, step, told)),
            encode=_flops(lambda: vae.encode(pixels)),
            decode=_flops(lambda: vae.decode(latents)),
            kept=sum(inside.values()),
            scores=sum(scores),
            largest_scores=max(scores, default=0),
            inputs=inputs,
            largest=max(blocks.values(), default=0),
            outside=inside[""],
            latent=latents.numel(),
            image_size=config.image_size,
        )


def _size(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


def _flops(work: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


class _Fused(torch.autograd.Function):
    """Attention by its shapes, as fused kernels keep it; ``meta`` has the plain one alone."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        made = torch.empty_like(query)
        context.save_for_backward(query, key, value, made)
        return made


@contextmanager
def _fused() -> Iterator[list[int]]:
    """Attention as :class:`_Fused`; the elements that each one's matrix would have."""
    own, scores = functional.scaled_dot_product_attention, list[int]()

    def counted(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        scores.append(query.shape[:-1].numel() * key.shape[-2])
        made: Tensor = _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return made

    functional.scaled_dot_product_attention = counted
    try:
        yield scores
    finally:
        functional.scaled_dot_product_attention = own


def _kept(unet: nn.Module, *given: Tensor) -> tuple[Counter[str], int, list[int]]:
    """Elements that each block keeps for the backward pass ("" = outside), and of their inputs.

    Then those of each attention matrix, which aren't counted among them.
    """
    known: Any = {p.untyped_storage()._cdata for p in unet.parameters()}
    found: Counter[str] = Counter()
    within, inputs, alive = [""], 0, []

    def keep(tensor: Tensor) -> Tensor:
        storage: Any = tensor.untyped_storage()
        if storage._cdata not in known:  # counted once, however many operations need it
            known.add(storage._cdata)
            alive.append(storage)  # or another one would get its number
            found[within[-1]] += tensor.numel()
        return tensor

    def enter(name: str) -> Any:
        def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            nonlocal inputs
            inputs += arguments[0].numel()
            within.append(name)

        return note

    hooks = []
    for name, block in unet.named_modules():
        if isinstance(block, BLOCKS):
            hooks.append(block.register_forward_pre_hook(enter(name)))
            hooks.append(block.register_forward_hook(lambda *_: (within.pop(), None)[1]))
    with _fused() as scores, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        unet(*given)
    for hook in hooks:
        hook.remove()
    return found, inputs, scores


UNET: dict[str, Any] = {
    "sample_size": 64,  # 512 px, the size that the paper trains at; SD 2.1's own is 96
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),  # heads, of 64 channels each
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
TEXT: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build_parts(width: float = 1.0, place: str = "meta") -> tuple[Any, Any, Any]:
    """U-Net, VAE and text encoder; on ``meta`` they have shapes alone, on ``cpu`` random weights.

    ``width`` multiplies the U-Net's channels and heads: 1 is SD 2.1's 866 million weights, 0.5 has
    223 million; a small one, as 0.1, makes the other two small as well, for trying things.
    """
    channels = tuple(32 * max(1, round(width * c / 32)) for c in UNET["block_out_channels"])
    heads = tuple(c // (64 if width >= 1 else 32) for c in channels)
    unet = {**UNET, "block_out_channels": channels, "attention_head_dim": heads}
    vae, text = dict(VAE), dict(TEXT)
    if width < 0.5:
        vae |= {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1}
        text |= {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
        text |= {"num_attention_heads": 2, "projection_dim": 64}
        unet |= {"cross_attention_dim": 64, "sample_size": 8}
        vae["sample_size"] = 64
    with torch.device(place) if place != "cpu" else nullcontext():
        parts = (
            UNet2DConditionModel(**unet),
            AutoencoderKL(**vae),
            CLIPTextModel(CLIPTextConfig(**text, bos_token_id=0, eos_token_id=1, pad_token_id=1)),
        )
    return parts[0].eval(), parts[1].eval(), parts[2].eval()


def build_random(prompts: list[str], width: float = 1.0, seed: int = 0) -> Any:
    """A pipeline of this size with random weights; it has the prompts' own small vocabulary."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, vae, text = build_parts(width, "cpu")
    tokenizer = build_tokenizer(prompts)
    tokenizer.model_max_length = TEXT["max_position_embeddings"]
    text.config.update({"bos_token_id": tokenizer.bos_token_id})
    text.config.update({"eos_token_id": tokenizer.eos_token_id})
    return assembled(tokenizer, vae, unet, text, DDIMScheduler(**SCHEDULER))
