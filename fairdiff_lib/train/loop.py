"""The one training loop, on accelerate.

A step reads top-down: rows of the batch, losses per sample, weights, backward, clip, step, average.
Which rows, which noise and which timesteps a step sees is a function of (seed, step) alone, so a
run can be resumed exactly, and methods with the same seed see the same draws.

Several processes train the same run: a step's batch is cut into equal parts, and the weights are
those of one process but for rounding; see ``distributed`` for the commands.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import atomic_folder, read_json, read_table, write_json, write_table
from fairdiff_lib.methods.base import Mitigation
from fairdiff_lib.methods.groups import group_means, level_sums
from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import LoopConfig, as_dict, without_later

HISTORY_COLUMNS = ("step", "quantity", "attribute", "level", "value")
FIRST_STEPS = 5  # whose losses are kept one by one


class Objective(Protocol):
    """Something to optimise: a module, and the unreduced loss of some rows of the training data."""

    module: nn.Module

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        """Loss of each row in ``rows[part]``, float [n], with gradient.

        Random draws are made for all ``rows`` and then cut to ``part``, so they depend neither on
        the number of processes nor on gradient accumulation. ``module`` is the objective's own,
        wrapped for distributed training. An objective may keep the ``timesteps`` that it drew for
        all ``rows``, and offer ``parameter_groups()``: the optimiser's groups, each with its
        ``rate_share`` of the learning rate (1 without).
        """
        ...


@dataclass
class FitResult:
    """What a run leaves: tidy history, averaged weights, cost."""

    history: pd.DataFrame  # HISTORY_COLUMNS
    average: EMAModel | None
    seconds: float  # of the loop, all sessions of a resumed run together
    optimiser_seconds: float  # of the mitigation's own optimiser
    measure_seconds: float  # of its measurements on held-out rows
    processes: int
    first_losses: list[float]  # of the first steps, unweighted batch means


# -- the loop --------------------------------------------------------------------------------


def batch_rows(
    count: int, batch: int, seed: int, step: int, sampling: np.ndarray | None = None
) -> Tensor:
    """Rows of a step's global batch.

    Parameters
    ----------
    count : int
        Training rows.
    batch : int
        Rows per step.
    seed, step : int
    sampling : float [count], optional
        Sampling weights, with replacement; without them the steps walk through one random
        permutation of the rows after another.

    Returns
    -------
    int64 [batch]
    """
    if sampling is not None:
        weights = torch.as_tensor(sampling, dtype=torch.float64)
        generator = generator_for(seed, "sampling", step)
        return torch.multinomial(weights, batch, replacement=True, generator=generator)
    place = torch.arange(step * batch, (step + 1) * batch)
    rows = torch.empty(batch, dtype=torch.int64)
    for epoch in sorted(set((place // count).tolist())):
        order = torch.randperm(count, generator=generator_for(seed, "order", epoch))
        here = place // count == epoch
        rows[here] = order[place[here] % count]
    return rows


def learning_rate(loop: LoopConfig, step: int) -> float:
    """Learning rate of a step: linear warm-up, then constant or cosine to zero."""
    if step < loop.warmup:
        return loop.learning_rate * (step + 1) / loop.warmup
    if loop.schedule == "constant":
        return loop.learning_rate
    done = (step - loop.warmup) / max(1, loop.steps - loop.warmup)
    return loop.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def fit(
    objective: Objective,
    loop: LoopConfig,
    *,
    count: int,
    seed: int,
    folder: Path | None = None,
    levels: np.ndarray | None = None,
    mitigation: Mitigation | None = None,
    sampling: Callable[[], np.ndarray | None] | None = None,
    after_step: Callable[[int, nn.Module], None] | None = None,
    identity: Mapping[str, Any] | None = None,
    label: str = "training",
) -> FitResult:
    """Optimise an objective's module in place.

    Parameters
    ----------
    objective : Objective
    loop : LoopConfig
    count : int
        Training rows.
    seed : int
        Of order, noise and timesteps.
    folder : path, optional
        Of resumable checkpoints; without it a killed run starts again.
    levels : int64 [count, A], optional
        Level index of each training row per attribute; with ``mitigation``.
    mitigation : Mitigation, optional
    sampling : callable, optional
        Gives a step's sampling weights, float [count] or None; see :func:`batch_rows`.
    after_step : callable, optional
        Called with the number of finished steps and the module.
    identity : mapping, optional
        What else a checkpoint must agree on to be continued, as the data's hash.
    label : str
        Of the progress bar.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError
        A checkpoint in ``folder`` is of another configuration.
    """
    accelerator = Accelerator(mixed_precision=loop.mixed_precision, cpu=not has_gpu())
    objective.module.train().to(accelerator.device)
    groups = getattr(objective, "parameter_groups", None)
    optimiser = torch.optim.AdamW(
        groups() if groups else objective.module.parameters(),
        lr=loop.learning_rate,
        betas=(loop.betas[0], loop.betas[1]),
        weight_decay=loop.weight_decay,
        fused=True,  # small modules spend a tenth of a step in the plain one
    )
    module, optimiser = accelerator.prepare(objective.module, optimiser)
    average = _make_average(objective.module, loop)
    if mitigation is not None and accelerator.num_processes > 1:
        mitigation.agree = _of_first_process
    run = _Run(objective.module, optimiser, average, mitigation, accelerator, folder)
    start = run.resume(_identity(loop, count, seed, mitigation, identity))
    codes = torch.as_tensor(levels) if levels is not None else None
    bar = tqdm(total=loop.steps, initial=start, desc=label, disable=None, mininterval=2.0)
    for step in range(start, loop.steps):
        run.tick()
        rows = batch_rows(count, loop.batch, seed, step, sampling() if sampling else None)
        batch_levels = codes[rows] if codes is not None else None
        for group in optimiser.param_groups:
            factor = mitigation.learning_rate_factor(step) if mitigation else 1.0
            group["lr"] = learning_rate(loop, step) * factor * group.get("rate_share", 1.0)
        losses, weights = _backward(
            objective, module, accelerator, loop, rows, batch_levels, mitigation, seed, step
        )
        if loop.clip_norm:
            norm = accelerator.clip_grad_norm_(module.parameters(), loop.clip_norm)
            run.note_norm(norm, loop.clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        if average is not None:
            average.step(objective.module.parameters())
        timesteps = getattr(objective, "timesteps", None)
        run.log(step, loop, losses, weights, batch_levels, timesteps)
        bar.update()
        if after_step is not None:
            after_step(step + 1, objective.module)
        if (step + 1) % loop.checkpoint_every == 0 and step + 1 < loop.steps:
            run.save(step + 1)
    bar.close()
    run.tick()
    objective.module.eval()
    return FitResult(
        run.history(),
        average,
        run.seconds,
        run.optimiser_seconds,
        run.measure_seconds,
        accelerator.num_processes,
        run.first_losses,
    )


def _of_first_process(values: list[float]) -> list[float]:
    shared: list[Any] = [values]
    broadcast_object_list(shared)
    first: list[float] = shared[0]
    return first


def has_gpu() -> bool:
    return torch.cuda.is_available()


def _make_average(module: nn.Module, loop: LoopConfig) -> EMAModel | None:
    if not loop.ema_decay:
        return None
    return EMAModel(module.parameters(), decay=loop.ema_decay)


def _backward(
    objective: Objective,
    module: nn.Module,
    accelerator: Accelerator,
    loop: LoopConfig,
    rows: Tensor,
    levels: Tensor | None,
    mitigation: Mitigation | None,
    seed: int,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Accumulate the gradient of the weighted mean loss over the global batch.

    Returns
    -------
    losses : float32 [batch]
        Unweighted, of all processes, on the CPU.
    weights : float64 [batch]
    """
    micro = loop.micro_batch or loop.batch
    world, rank = accelerator.num_processes, accelerator.process_index
    if micro % world:
        raise InputError(f"a micro batch of {micro} can't be shared by {world} processes")
    share = micro // world
    seen, used = [], []
    for first in range(0, loop.batch, micro):
        part = slice(first + rank * share, first + (rank + 1) * share)
        last = first + micro >= loop.batch
        with nullcontext() if last else accelerator.no_sync(module):
            with accelerator.autocast():
                loss = objective.loss(module, rows, part, generator_for(seed, "draws", step))
            gathered = accelerator.gather(loss.detach()).float().cpu()
            weights = torch.ones(micro, dtype=torch.float64)
            if mitigation is not None and levels is not None:
                weights = mitigation.weights(gathered, levels[first : first + micro], step)
                own = weights[rank * share : (rank + 1) * share]
                loss = loss * own.to(loss.device, loss.dtype)
            # distributed training averages gradients over processes; this makes it a batch mean
            accelerator.backward(loss.sum() * world / loop.batch)
        seen.append(gathered)
        used.append(weights)
    return torch.cat(seen), torch.cat(used)


def _identity(
    loop: LoopConfig,
    count: int,
    seed: int,
    mitigation: Mitigation | None,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What two sessions of one run must agree on."""
    kept = without_later(loop)  # so that a run from before a field existed goes on
    own = {
        "loop": {name: value for name, value in as_dict(loop).items() if name in kept},
        "count": count,
        "seed": seed,
        "method": mitigation.name if mitigation else None,
        "mitigation": as_dict(mitigation.config) if mitigation else None,
    }
    return own | dict(extra or {})


@dataclass
class _Run:
    """State of a run beyond the module: checkpoints, history, time."""

    module: nn.Module
    optimiser: Any
    average: EMAModel | None
    mitigation: Mitigation | None
    accelerator: Accelerator
    folder: Path | None

    def __post_init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.pending: dict[str, list[float]] = {}  # per quantity, since the last row
        self.first_losses: list[float] = []
        self.seconds = 0.0
        self.optimiser_seconds = 0.0
        self.measure_seconds = 0.0
        self.clock = time.perf_counter()
        self.identity: dict[str, Any] = {}

    def tick(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self.clock
        self.clock = now

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=list(HISTORY_COLUMNS))

    def note(self, quantity: str, value: float) -> None:
        self.pending.setdefault(quantity, []).append(value)

    def note_norm(self, norm: Any, limit: float) -> None:
        """Gradient norm before clipping, and what clipping left of it."""
        length = float(norm)
        self.note("gradient_norm", length)
        self.note("clip_factor", min(1.0, limit / max(length, 1e-12)))

    def log(
        self,
        step: int,
        loop: LoopConfig,
        losses: Tensor,
        weights: Tensor,
        levels: Tensor | None,
        timesteps: Tensor | None,
    ) -> None:
        """Let the mitigation see the batch; add rows to the history each ``log_every`` steps.

        Sigma gets a row per level for every step, so that another run can replay it, and so does
        each score that the optimiser was given, so that its surrogate can be fitted again.
        """
        self.note("loss", float(losses.mean()))
        if step < FIRST_STEPS:
            self.first_losses.append(self.pending["loss"][-1])
        sigma = self.mitigation.scales() if self.mitigation else None
        if sigma is not None:  # the one that set this step's weights
            self._log_sigma(step + 1, sigma)
            self.note("negative_weights", float((weights < 0).double().mean()))
        seen: dict[str, float] = {}
        if self.mitigation is not None and levels is not None:
            seen = self.mitigation.observe(losses, levels, step, timesteps)
        self.optimiser_seconds += seen.pop("optimiser_seconds", 0.0)
        self.measure_seconds += seen.pop("measure_seconds", 0.0)
        done = step + 1
        for quantity in ("score", "acquisition"):
            if quantity in seen:
                self._add(done, quantity, seen[quantity])
        if done % loop.log_every and done != loop.steps and "acquisition" not in seen:
            return
        if "objective" in seen:
            self._add(done, "objective", seen["objective"])
        if done % loop.log_every and done != loop.steps:
            return
        self.tick()
        for quantity, values in self.pending.items():
            self._add(done, quantity, float(np.mean(values)))
        self.pending = {}
        self._add(done, "second_moment", adam_scale(self.optimiser))
        self._add(done, "seconds", round(self.seconds, 3))
        if self.mitigation is not None and levels is not None:
            means = group_means(losses, levels, self.mitigation.attributes)
            self._add_levels(done, "loss", torch.cat(means))
            self._add_levels(done, "weight", _level_means(weights, levels, self.mitigation.sizes))

    def _add(self, done: int, quantity: str, value: float) -> None:
        self.rows.append((done, quantity, "", "", value))

    def _add_levels(self, done: int, quantity: str, values: Tensor) -> None:
        """A row per level; ``values`` float [G]."""
        assert self.mitigation is not None
        names = [(a, level) for a, own in self.mitigation.attributes.items() for level in own]
        for name, value in zip(names, values.tolist(), strict=True):
            self.rows.append((done, quantity, *name, value))

    def _log_sigma(self, done: int, sigma: Tensor) -> None:
        """Sigma of this process, and how far the processes are apart (P5)."""
        self._add_levels(done, "sigma", sigma)
        if self.accelerator.num_processes > 1:
            every = torch.tensor(gather_object([sigma.tolist()]), dtype=torch.float64)
            spread = (every.max(dim=0).values - every.min(dim=0).values).max()
            self._add(done, "sigma_spread", float(spread))

    # checkpoints: one folder per step, renamed into place, the older one removed after

    def save(self, step: int) -> None:
        """Every process takes part: each may have a mitigation of its own (P5)."""
        if self.folder is None:
            return
        own = self.mitigation.state_dict() if self.mitigation else None
        states = gather_object([own]) if self.accelerator.num_processes > 1 else [own]
        if not self.accelerator.is_main_process:
            return
        self.tick()
        with atomic_folder(self.folder / f"checkpoint-{step:06d}") as temporary:
            weights = {k: v.contiguous().cpu() for k, v in self.module.state_dict().items()}
            save_file(weights, temporary / "module.safetensors")
            scaler = self.accelerator.scaler
            state = {
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            torch.save(state, temporary / "optimiser.pt")
            write_table(self.history(), temporary / "history.csv")
            write_json(
                temporary / "run.json",
                {
                    "step": step,
                    "identity": self.identity,
                    "mitigation": states,
                    "pending": self.pending,
                    "first_losses": self.first_losses,
                    "seconds": self.seconds,
                    "optimiser_seconds": self.optimiser_seconds,
                    "measure_seconds": self.measure_seconds,
                },
            )
        for old in sorted(self.folder.glob("checkpoint-*"))[:-1]:
            shutil.rmtree(old)

    def resume(self, identity: Mapping[str, Any]) -> int:
        """Load the newest checkpoint, if there is one; the number of finished steps."""
        self.identity = dict(identity)
        found = sorted(self.folder.glob("checkpoint-*")) if self.folder else []
        if not found:
            return 0
        newest = found[-1]
        run = read_json(newest / "run.json")
        refuse_other_run(newest, run["identity"], self.identity)
        self.module.load_state_dict(load_file(newest / "module.safetensors"))
        state = torch.load(newest / "optimiser.pt", weights_only=True, map_location="cpu")
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self.average.to(self.accelerator.device)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.mitigation is not None:
            states, rank = run["mitigation"], self.accelerator.process_index
            self.mitigation.load_state_dict(states[rank if rank < len(states) else 0])
        history = read_table(newest / "history.csv", HISTORY_COLUMNS, keep_default_na=False)
        history["value"] = pd.to_numeric(history["value"], errors="coerce")
        self.rows = list(history.itertuples(index=False, name=None))
        self.pending, self.first_losses = dict(run["pending"]), list(run["first_losses"])
        self.seconds, self.optimiser_seconds = run["seconds"], run["optimiser_seconds"]
        self.measure_seconds = run["measure_seconds"]
        return int(run["step"])


def _level_means(values: Tensor, levels: Tensor, sizes: list[int]) -> Tensor:
    """Mean of a batch's values per level, float64 [G]; NaN where nobody is."""
    sums, counts = level_sums(values, levels, sizes)
    return sums / counts


def adam_scale(optimiser: Any) -> float:
    """Mean over the parameters of ``sqrt(v / (1 - beta2^t))``, what Adam divides a step by.

    NaN before the first step.
    """
    total, count = 0.0, 0
    for group in optimiser.param_groups:
        beta = group["betas"][1]
        for parameter in group["params"]:
            state = optimiser.state.get(parameter)
            if state:
                correction = 1.0 - beta ** float(state["step"])
                root = (state["exp_avg_sq"] / correction).sqrt()
                total, count = total + float(root.sum()), count + root.numel()
    return total / count if count else float("nan")


def refuse_other_run(place: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise unless a checkpoint's identity equals the run's, naming the first field that differs.

    Raises
    ------
    InputError
    """
    for key in sorted(set(found) | set(expected)):
        a, b = found.get(key), expected.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            refuse_other_run(place, a, b)
        elif a != b:
            raise InputError(
                f"{place}: checkpoint of another configuration: {key} is {a!r} there, {b!r} here"
            )


# -- several processes -----------------------------------------------------------------------


@contextmanager
def first_only() -> Iterator[bool]:
    """Whether this is the first process; the others wait until it has left the block."""
    state = PartialState(cpu=not has_gpu())
    yield bool(state.is_main_process)
    state.wait_for_everyone()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process do a block before the others; they find what it wrote."""
    with PartialState(cpu=not has_gpu()).main_process_first():
        yield


def process_rank() -> int:
    """Of this process, from 0; the first is the one that writes and prints."""
    return int(PartialState(cpu=not has_gpu()).process_index)


def process_count() -> int:
    """How many processes train together."""
    return int(PartialState(cpu=not has_gpu()).num_processes)


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Compute on so many threads, whatever the job has: sums are rounded by their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def leave() -> None:
    """End of a process' last training: without it, several processes abort now and then."""
    if PartialState(cpu=not has_gpu()).num_processes > 1:
        Accelerator(cpu=not has_gpu()).end_training()
