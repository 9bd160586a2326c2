"""The one training loop, on accelerate.

A step reads top-down: rows of the batch, losses per sample, weights, backward, clip, step, average.
Which rows, which noise and which timesteps a step sees is a function of (seed, step) alone, so a
run can be resumed exactly, and methods with the same seed see the same draws.

Several processes train the same run: a step's batch is cut into equal parts, and the weights are
those of one process but for rounding; ``python -m fairdiff_lib.train`` has the commands.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import atomic_folder, read_json, read_table, write_json, write_table
from fairdiff_lib.methods.base import Mitigation
from fairdiff_lib.methods.groups import group_means, level_sums
from fairdiff_lib.model.device import Writer, accelerator, arrange, check_loop, optimiser_of
from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import LoopConfig, MachineConfig, as_dict

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

HISTORY_COLUMNS = ("step", "quantity", "attribute", "level", "value")
FIRST_STEPS = 5  # whose losses are kept one by one


class Objective(Protocol):
    """A module, and the unreduced loss of some rows of the training data.

    An objective may keep the ``timesteps`` that it drew for all rows, and offer
    ``parameter_groups()``, each with a ``rate_share`` of the learning rate (1 without).
    """

    module: nn.Module

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        """Loss of each row in ``rows[part]``, float [n], with gradient.

        Draws are made for all ``rows`` and then cut, so they depend neither on the number of
        processes nor on accumulation. ``module`` is the objective's, wrapped for several ones.
        """


@dataclass
class FitResult:
    """What a run leaves: tidy history, averaged weights, cost."""

    history: pd.DataFrame  # HISTORY_COLUMNS
    average: EMAModel | None
    first_losses: list[float]  # of the first steps, unweighted batch means
    seconds: float  # of the loop, all sessions of a resumed run together
    optimiser_seconds: float  # of the method's own optimiser
    measure_seconds: float  # of its measurements on held-out rows
    processes: int


def batch_rows(
    count: int, batch: int, seed: int, step: int, sampling: np.ndarray | None = None
) -> Tensor:  # int64 [batch]
    """Rows of a step's global batch, of ``count`` training rows.

    ``sampling``, float [count], are weights for drawing with replacement; without them the steps
    walk through one random permutation of the rows after another.
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


def share_of(loop: LoopConfig, processes: int) -> int:
    """Images that one of several processes takes through the network at once."""
    own = loop.batch // processes
    share = min(loop.micro_batch, own) if loop.micro_batch else own
    if not share or loop.batch % (share * processes):
        raise InputError(
            f"batch={loop.batch}: can't be shared by {processes} processes in equal passes of at "
            f"most {loop.micro_batch or loop.batch} images each (micro_batch={loop.micro_batch})"
        )
    return share


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
    count: int,  # training rows
    seed: int,  # of order, noise and timesteps
    folder: Path | None = None,
    levels: np.ndarray | None = None,  # int64 [count, A]; with a method
    method: Mitigation | None = None,
    sampling: Callable[[], np.ndarray | None] | None = None,  # of a step, see batch_rows
    after_step: Callable[[int, nn.Module], None] | None = None,  # told how many are done
    identity: Mapping[str, Any] | None = None,  # what else a checkpoint must agree on
    machine: MachineConfig | None = None,  # how the module lies on it
    label: str = "training",  # of the progress bar
) -> FitResult:
    """Optimise an objective's module in place.

    Without a folder for checkpoints a killed run starts again. The last step leaves none: whoever
    asked for the weights keeps them.
    """
    agreed = {
        "loop": as_dict(loop),
        "count": count,
        "seed": seed,
        "method": method.name if method else None,
        "mitigation": as_dict(method.config) if method else None,
        **(identity or {}),
    }
    run = _Run(objective, loop, method, folder, agreed, machine or MachineConfig())
    codes = torch.as_tensor(levels) if levels is not None else None
    start = run.resume()
    bar = tqdm(total=loop.steps, initial=start, desc=label, disable=None, mininterval=2.0)
    try:
        for step in range(start, loop.steps):
            run.tick()
            rows = batch_rows(count, loop.batch, seed, step, sampling() if sampling else None)
            own = codes[rows] if codes is not None else None
            losses, weights = run.backward(rows, own, seed, step)
            run.update(step)
            run.log(step, losses, weights, own)
            bar.update()
            if after_step is not None:
                after_step(step + 1, objective.module)
            if (step + 1) % loop.checkpoint_every == 0 and step + 1 < loop.steps:
                run.save(step + 1)
    finally:
        bar.close()
        run.writer.wait()
    run.tick()
    objective.module.eval()
    return FitResult(
        run.history(), run.average, run.first_losses, **run.cost, processes=run.processes
    )


class _Run:
    """State of a run: module, optimiser, average, history, time; and how it is kept."""

    def __init__(
        self,
        objective: Objective,
        loop: LoopConfig,
        method: Mitigation | None,
        folder: Path | None,
        identity: Mapping[str, Any],
        machine: MachineConfig,
    ) -> None:
        from diffusers.training_utils import EMAModel  # seconds

        check_loop(loop)
        self.objective, self.loop, self.method = objective, loop, method
        self.folder, self.identity = folder, dict(identity)
        self.accelerator = accelerator(loop.mixed_precision)
        self.processes: int = self.accelerator.num_processes
        plain = arrange(objective.module.train(), machine, loop.mixed_precision)
        groups = getattr(objective, "parameter_groups", None)
        optimiser = optimiser_of(groups() if groups else list(plain.parameters()), loop)
        self.module, self.optimiser = self.accelerator.prepare(plain, optimiser)
        # the average is of what is trained; the rest stays as it is
        self.trained = [p for p in plain.parameters() if p.requires_grad]
        self.home = torch.device("cpu") if machine.average_on_cpu else self.accelerator.device
        decay = loop.ema_decay
        self.average = EMAModel(self.trained, decay=decay) if decay else None
        if self.average is not None:
            self.average.to(self.home)
        self.writer = Writer()
        if method is not None and self.processes > 1:
            method.agree = _of_first_process
        self.rows: list[tuple[Any, ...]] = []
        self.pending: dict[str, list[float]] = {}  # per quantity, since the last row
        self.first_losses: list[float] = []
        self.cost = {"seconds": 0.0, "optimiser_seconds": 0.0, "measure_seconds": 0.0}
        self.clock = time.perf_counter()

    def tick(self) -> None:
        now = time.perf_counter()
        self.cost["seconds"] += now - self.clock
        self.clock = now

    # -- a step ------------------------------------------------------------------------------

    def backward(
        self, rows: Tensor, levels: Tensor | None, seed: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """Accumulate the gradient of ``1/N sum_i w_i l_i`` over the global batch of N.

        Returns the unweighted losses of all processes, float32 [N] on the CPU, and the weights,
        float64 [N].
        """
        world, rank = self.processes, self.accelerator.process_index
        share = share_of(self.loop, world)
        micro = share * world
        done = []
        for first in range(0, self.loop.batch, micro):
            part = slice(first + rank * share, first + (rank + 1) * share)
            last = first + micro >= self.loop.batch
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                with self.accelerator.autocast():
                    draws = generator_for(seed, "draws", step)
                    loss = self.objective.loss(self.module, rows, part, draws)
                gathered = self.accelerator.gather(loss.detach()).float().cpu()
                weights = torch.ones(micro, dtype=torch.float64)
                if self.method is not None and levels is not None:
                    weights = self.method.weights(gathered, levels[first : first + micro], step)
                    own = weights[rank * share : (rank + 1) * share]
                    loss = loss * own.to(loss.device, loss.dtype)
                # distributed training averages gradients over processes; this makes it a batch mean
                self.accelerator.backward(loss.sum() * world / self.loop.batch)
            done.append((gathered, weights))
        losses, used = zip(*done, strict=True)
        return torch.cat(losses), torch.cat(used)

    def update(self, step: int) -> None:
        """Clip the gradient, move the weights, and their average."""
        factor = self.method.learning_rate_factor(step) if self.method else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.loop, step) * factor * group.get("rate_share", 1.0)
        if self.loop.clip_norm:
            limit = self.loop.clip_norm
            norm = float(self.accelerator.clip_grad_norm_(self.module.parameters(), limit))
            self.note("gradient_norm", norm)
            self.note("clip_factor", min(1.0, limit / max(norm, 1e-12)))
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.average is not None:
            away = [p.detach().to(self.home).requires_grad_() for p in self.trained]
            self.average.step(away)

    # -- the history -------------------------------------------------------------------------

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=list(HISTORY_COLUMNS))

    def note(self, quantity: str, value: float) -> None:
        self.pending.setdefault(quantity, []).append(value)

    def log(self, step: int, losses: Tensor, weights: Tensor, levels: Tensor | None) -> None:
        """Let the method see the batch; add rows to the history each ``log_every`` steps.

        Sigma gets a row per level for every step, so that another run can replay it, and so does
        each score that the optimiser was given, so that its surrogate can be fitted again.
        """
        done, seen = step + 1, dict[str, float]()
        self.note("loss", float(losses.mean()))
        if step < FIRST_STEPS:
            self.first_losses.append(float(losses.mean()))
        sigma = self.method.scales() if self.method else None
        if sigma is not None:  # the one that set this step's weights
            self._log_sigma(done, sigma)
            self.note("negative_weights", float((weights < 0).double().mean()))
        if self.method is not None and levels is not None:
            timesteps = getattr(self.objective, "timesteps", None)
            seen = self.method.observe(losses, levels, step, timesteps)
        for clock in ("optimiser_seconds", "measure_seconds"):
            self.cost[clock] += seen.pop(clock, 0.0)
        for quantity in ("score", "acquisition"):
            if quantity in seen:
                self._add(done, quantity, seen[quantity])
        now = done % self.loop.log_every == 0 or done == self.loop.steps
        if "objective" in seen and (now or "acquisition" in seen):
            self._add(done, "objective", seen["objective"])
        if not now:
            return
        self.tick()
        for quantity, values in self.pending.items():
            self._add(done, quantity, float(np.mean(values)))
        self.pending = {}
        self._add(done, "second_moment", adam_scale(self.optimiser))
        self._add(done, "seconds", round(self.cost["seconds"], 3))
        if self.method is not None and levels is not None:
            means = group_means(losses, levels, self.method.attributes)
            self._add_levels(done, "loss", torch.cat(means))
            sums, counts = level_sums(weights, levels, self.method.sizes)
            self._add_levels(done, "weight", sums / counts)  # NaN where nobody is

    def _add(self, done: int, quantity: str, value: float) -> None:
        self.rows.append((done, quantity, "", "", value))

    def _add_levels(self, done: int, quantity: str, values: Tensor) -> None:
        """A row per level; ``values`` float [G]."""
        assert self.method is not None
        names = [(a, level) for a, own in self.method.attributes.items() for level in own]
        for name, value in zip(names, values.tolist(), strict=True):
            self.rows.append((done, quantity, *name, value))

    def _log_sigma(self, done: int, sigma: Tensor) -> None:
        """Sigma of this process, and how far the processes are apart (P5)."""
        self._add_levels(done, "sigma", sigma)
        if self.processes > 1:
            every = torch.tensor(gather_object([sigma.tolist()]), dtype=torch.float64)
            spread = (every.max(dim=0).values - every.min(dim=0).values).max()
            self._add(done, "sigma_spread", float(spread))

    # -- checkpoints: one folder per step, renamed into place, the older one removed after -----
    # Not accelerate's save_state: that pickles random states, which no draw here depends on, and
    # binds a run to its number of processes.

    def save(self, step: int) -> None:
        """Every process takes part: each may have a method of its own (P5)."""
        if self.folder is None:
            return
        states = [self.method.state_dict() if self.method else None]
        states = gather_object(states) if self.processes > 1 else states
        if not self.accelerator.is_main_process:
            return
        self.tick()
        scaler, module = self.accelerator.scaler, self.objective.module
        tensors = {
            "module": {name: module.state_dict()[name] for name in kept_names(module)},
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        notes = {
            "step": step,
            "identity": self.identity,
            "method": states,
            "pending": {name: list(values) for name, values in self.pending.items()},
            "first_losses": list(self.first_losses),
            "cost": dict(self.cost),
        }
        place, history = self.folder / f"checkpoint-{step:06d}", self.history()
        self.writer.write(lambda now: _write(place, now, history, notes), tensors)

    def resume(self) -> int:
        """Load the newest checkpoint, if there is one; the number of finished steps."""
        found = sorted(self.folder.glob("checkpoint-*")) if self.folder else []
        if not found:
            return 0
        newest = found[-1]
        run = read_json(newest / "run.json")
        refuse_other_run(newest, run["identity"], self.identity)
        module, own = self.objective.module, load_file(newest / "module.safetensors")
        expected = kept_names(module)
        if sorted(own) != sorted(expected):
            name = sorted(set(own) ^ set(expected))[0]
            raise InputError(f"{newest}: checkpoint of another module; only one of both has {name}")
        module.load_state_dict(own, strict=False)  # what it lacks is frozen
        state = torch.load(
            newest / "optimiser.pt", weights_only=True, map_location="cpu", mmap=True
        )
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self.average.to(self.home)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.method is not None:
            states, rank = run["method"], self.accelerator.process_index
            self.method.load_state_dict(states[rank if rank < len(states) else 0])
        history = read_table(newest / "history.csv", HISTORY_COLUMNS, keep_default_na=False)
        history["value"] = pd.to_numeric(history["value"], errors="coerce")
        self.rows = list(history.itertuples(index=False, name=None))
        self.pending, self.first_losses = run["pending"], run["first_losses"]
        self.cost = run["cost"]
        return int(run["step"])


def kept_names(module: nn.Module) -> list[str]:
    """What a checkpoint keeps of a module's state: all but frozen weights, which never change."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    return [name for name in module.state_dict() if name not in frozen]


def _write(place: Path, tensors: Any, history: pd.DataFrame, notes: Mapping[str, Any]) -> None:
    """A checkpoint, renamed into place; the older one is removed after."""
    with atomic_folder(place) as temporary:
        own = {name: tensor.contiguous().cpu() for name, tensor in tensors.pop("module").items()}
        save_file(own, temporary / "module.safetensors")
        torch.save(tensors, temporary / "optimiser.pt")
        write_table(history, temporary / "history.csv")
        write_json(temporary / "run.json", notes)
    for old in sorted(place.parent.glob("checkpoint-*"))[:-1]:
        shutil.rmtree(old)


def adam_scale(optimiser: Any) -> float:
    """Mean of ``sqrt(v / (1 - beta2^t))``, what Adam divides a step by; NaN before the first.

    NaN as well where its state has 8 bits, which aren't read for this.
    """
    total, count = 0.0, 0
    for group in optimiser.param_groups:
        beta = group["betas"][1]
        for parameter in group["params"]:
            state = optimiser.state.get(parameter, {})
            if "exp_avg_sq" in state:
                correction = 1.0 - beta ** float(state["step"])
                root = (state["exp_avg_sq"] / correction).sqrt()
                total, count = total + float(root.sum()), count + root.numel()
    return total / count if count else float("nan")


def refuse_other_run(place: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise InputError unless a checkpoint is of this very run, naming what differs first."""
    for key in sorted(set(found) | set(expected)):
        a, b = found.get(key), expected.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            refuse_other_run(place, a, b)
        elif a != b:
            raise InputError(
                f"{place}: checkpoint of another configuration: {key} is {a!r} there, {b!r} here"
            )


# -- several processes -----------------------------------------------------------------------


def _of_first_process(values: list[float]) -> list[float]:
    shared: list[Any] = [values]
    broadcast_object_list(shared)
    first: list[float] = shared[0]
    return first
