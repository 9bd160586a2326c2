"""The one training loop, on accelerate, and the three things it optimises here.

A step reads top-down: rows of the batch, losses per sample, weights, backward, clip, step, average.
Which rows, which noise and which timesteps a step sees is a function of (seed, step) alone, so a
run can be resumed exactly, and methods with the same seed see the same draws.
"""

from __future__ import annotations

import dataclasses
import math
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from fairdiff_lib import diffusion
from fairdiff_lib.config import InputError, LoopConfig, Settings, as_dict
from fairdiff_lib.perturbation import (
    Mitigation,
    generator_for,
    group_means,
    make_mitigation,
)
from fairdiff_lib.store import (
    Layout,
    atomic_file,
    atomic_folder,
    make_stamp,
    read_json,
    read_table,
    write_json,
    write_table,
)

HISTORY_COLUMNS = ("step", "quantity", "attribute", "level", "value")


class Objective(Protocol):
    """Something to optimise: a module, and the unreduced loss of some rows of the training data."""

    module: nn.Module

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        """Loss of each row in ``rows[part]``, float [n], with gradient.

        Random draws are made for all ``rows`` and then cut to ``part``, so they depend neither on
        the number of processes nor on gradient accumulation. ``module`` is the objective's own,
        wrapped for distributed training.
        """
        ...


@dataclass
class FitResult:
    """What a run leaves: tidy history, averaged weights, cost."""

    history: pd.DataFrame  # HISTORY_COLUMNS
    average: EMAModel | None
    seconds: float  # of the loop, all sessions of a resumed run together
    optimiser_seconds: float  # of the mitigation's own optimiser


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
    sampling: np.ndarray | None = None,
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
    sampling : float [count], optional
        See :func:`batch_rows`.
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
    accelerator = Accelerator(mixed_precision=loop.mixed_precision, cpu=not _has_gpu())
    objective.module.train().to(accelerator.device)
    optimiser = torch.optim.AdamW(
        objective.module.parameters(),
        lr=loop.learning_rate,
        weight_decay=loop.weight_decay,
        fused=True,  # small modules spend a tenth of a step in the plain one
    )
    module, optimiser = accelerator.prepare(objective.module, optimiser)
    average = _make_average(objective.module, loop)
    run = _Run(objective.module, optimiser, average, mitigation, accelerator, folder)
    start = run.resume(_identity(loop, count, seed, mitigation, identity))
    codes = torch.as_tensor(levels) if levels is not None else None
    bar = tqdm(total=loop.steps, initial=start, desc=label, disable=None, mininterval=2.0)
    for step in range(start, loop.steps):
        run.tick()
        rows = batch_rows(count, loop.batch, seed, step, sampling)
        batch_levels = codes[rows] if codes is not None else None
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(loop, step)
        losses = _backward(
            objective, module, accelerator, loop, rows, batch_levels, mitigation, seed, step
        )
        if loop.clip_norm:
            accelerator.clip_grad_norm_(module.parameters(), loop.clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        if average is not None:
            average.step(objective.module.parameters())
        run.log(step, loop, losses, batch_levels)
        bar.update()
        if after_step is not None:
            after_step(step + 1, objective.module)
        if (step + 1) % loop.checkpoint_every == 0 or step + 1 == loop.steps:
            run.save(step + 1)
    bar.close()
    run.tick()
    objective.module.eval()
    return FitResult(run.history(), average, run.seconds, run.optimiser_seconds)


def _has_gpu() -> bool:
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
) -> Tensor:
    """Accumulate the gradient of the weighted mean loss over the global batch.

    Returns
    -------
    float32 [batch]
        Unweighted losses of all processes, on the CPU.
    """
    micro = loop.micro_batch or loop.batch
    world, rank = accelerator.num_processes, accelerator.process_index
    if micro % world:
        raise InputError(f"a micro batch of {micro} can't be shared by {world} processes")
    share = micro // world
    seen = []
    for first in range(0, loop.batch, micro):
        part = slice(first + rank * share, first + (rank + 1) * share)
        last = first + micro >= loop.batch
        with nullcontext() if last else accelerator.no_sync(module):
            with accelerator.autocast():
                loss = objective.loss(module, rows, part, generator_for(seed, "draws", step))
            gathered = accelerator.gather(loss.detach()).float().cpu()
            if mitigation is not None and levels is not None:
                weights = mitigation.weights(gathered, levels[first : first + micro], step)
                own = weights[rank * share : (rank + 1) * share]
                loss = loss * own.to(loss.device, loss.dtype)
            # distributed training averages gradients over processes; this makes it a batch mean
            accelerator.backward(loss.sum() * world / loop.batch)
        seen.append(gathered)
    return torch.cat(seen)


def _identity(
    loop: LoopConfig,
    count: int,
    seed: int,
    mitigation: Mitigation | None,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What two sessions of one run must agree on."""
    own = {
        "loop": as_dict(loop),
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
        self.pending: list[float] = []
        self.seconds = 0.0
        self.optimiser_seconds = 0.0
        self.clock = time.perf_counter()
        self.identity: dict[str, Any] = {}

    def tick(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self.clock
        self.clock = now

    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=list(HISTORY_COLUMNS))

    def log(self, step: int, loop: LoopConfig, losses: Tensor, levels: Tensor | None) -> None:
        """Let the mitigation see the batch; add rows to the history each ``log_every`` steps."""
        self.pending.append(float(losses.mean()))
        sigma = self.mitigation.scales() if self.mitigation else None
        used = sigma.clone() if sigma is not None else None  # the one that set this step's weights
        seen: dict[str, float] = {}
        if self.mitigation is not None and levels is not None:
            seen = self.mitigation.observe(losses, levels, step)
        self.optimiser_seconds += seen.pop("optimiser_seconds", 0.0)
        done, everything = step + 1, ""
        if "acquisition" in seen:
            self.rows.append((done, "acquisition", everything, everything, seen["acquisition"]))
        if done % loop.log_every and done != loop.steps:
            return
        self.tick()
        self.rows.append((done, "loss", everything, everything, float(np.mean(self.pending))))
        self.pending = []
        self.rows.append((done, "seconds", everything, everything, round(self.seconds, 3)))
        if "objective" in seen:
            self.rows.append((done, "objective", everything, everything, seen["objective"]))
        if self.mitigation is not None and levels is not None:
            self._log_levels(done, losses, levels, used)

    def _log_levels(self, done: int, losses: Tensor, levels: Tensor, sigma: Tensor | None) -> None:
        assert self.mitigation is not None
        attributes = self.mitigation.attributes
        position = 0
        means = group_means(losses, levels, attributes)
        for (attribute, names), values in zip(attributes.items(), means, strict=True):
            for name, value in zip(names, values.tolist(), strict=True):
                self.rows.append((done, "loss", attribute, name, value))
                if sigma is not None:
                    self.rows.append((done, "sigma", attribute, name, float(sigma[position])))
                position += 1

    # checkpoints: one folder per step, renamed into place, the older one removed after

    def save(self, step: int) -> None:
        if self.folder is None or not self.accelerator.is_main_process:
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
            write_table(self.history(), temporary / "history.csv", None)
            write_json(
                temporary / "run.json",
                {
                    "step": step,
                    "identity": self.identity,
                    "mitigation": self.mitigation.state_dict() if self.mitigation else None,
                    "pending": self.pending,
                    "seconds": self.seconds,
                    "optimiser_seconds": self.optimiser_seconds,
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
        refuse_other(newest, run["identity"], self.identity)
        self.module.load_state_dict(load_file(newest / "module.safetensors"))
        state = torch.load(newest / "optimiser.pt", weights_only=True, map_location="cpu")
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self.average.to(self.accelerator.device)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.mitigation is not None:
            self.mitigation.load_state_dict(run["mitigation"])
        history = read_table(newest / "history.csv", HISTORY_COLUMNS, keep_default_na=False)
        history["value"] = pd.to_numeric(history["value"], errors="coerce")
        self.rows = list(history.itertuples(index=False, name=None))
        self.pending = list(run["pending"])
        self.seconds, self.optimiser_seconds = run["seconds"], run["optimiser_seconds"]
        return int(run["step"])


def refuse_other(place: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise unless a checkpoint's identity equals the run's, naming the first field that differs.

    Raises
    ------
    InputError
    """
    for key in sorted(set(found) | set(expected)):
        a, b = found.get(key), expected.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            refuse_other(place, a, b)
        elif a != b:
            raise InputError(
                f"{place}: checkpoint of another configuration: {key} is {a!r} there, {b!r} here"
            )


# -- objectives ------------------------------------------------------------------------------


class Reconstruction(nn.Module):
    """An AutoencoderKL's training pass as one forward call, as distributed training needs it."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction [N, 3, H, W] and KL divergence [N] of pixels [N, 3, H, W] in [-1, 1]."""
        vae: Any = self.vae
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * noise
        return vae.decode(latents).sample, posterior.kl()


@dataclass
class AutoencoderObjective:
    """``|x - x'| + (x - x')^2 + kl_weight KL``, per sample."""

    module: nn.Module  # Reconstruction
    images: np.ndarray  # uint8 [N, 3, H, W]
    latent_shape: tuple[int, int, int]  # C, h, w
    kl_weight: float = 1e-6  # as Stable Diffusion's VAE

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        """See :class:`Objective`."""
        device = next(module.parameters()).device
        pixels = diffusion.to_model(self.images[rows[part].numpy()]).to(device)
        noise = torch.randn((len(rows), *self.latent_shape), generator=generator)[part]
        output, kl = module(pixels, noise.to(device))
        error: Tensor = output - pixels
        per_image: Tensor = (error.abs() + error.square()).flatten(1).mean(dim=1)
        total: Tensor = per_image + self.kl_weight * kl
        return total


class TextToLatent(nn.Module):
    """U-Net and text encoder as one module, for training both from scratch."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Any:
        """``encoder_hidden_states`` are token ids int64 [N, L] here."""
        ids = encoder_hidden_states
        unique: Any = torch.unique  # untyped in torch
        distinct, index = unique(ids, dim=0, return_inverse=True)
        text = self.text_encoder(distinct)[0][index]
        return self.unet(noisy, timesteps, encoder_hidden_states=text)


@dataclass
class DenoisingObjective:
    """The denoising loss on cached latents; ``text`` are prompt features, or token ids."""

    module: nn.Module  # UNet2DConditionModel, or TextToLatent with token ids
    scheduler: Any  # DDPMScheduler
    mean: Tensor  # float32 [N, C, h, w], posterior of the unscaled latents
    std: Tensor  # float32 [N, C, h, w]
    scaling: float  # the VAE's scaling_factor
    text: Tensor  # [P, L, D] float32 or [P, L] int64; row 0 is the empty prompt
    prompt: Tensor  # int64 [N], row of ``text``
    prompt_dropout: float = 0.0  # fraction of samples that see the empty prompt

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        """See :class:`Objective`."""
        shape = (len(rows), *self.mean.shape[1:])
        posterior = torch.randn(shape, generator=generator)[part]
        noise = torch.randn(shape, generator=generator)[part]
        steps = self.scheduler.config.num_train_timesteps
        timesteps = torch.randint(steps, (len(rows),), generator=generator)[part]
        dropped = torch.rand(len(rows), generator=generator)[part] < self.prompt_dropout
        own = rows[part]
        latents = (self.mean[own] + self.std[own] * posterior) * self.scaling
        text = self.text[torch.where(dropped, 0, self.prompt[own])]
        device = next(module.parameters()).device
        batch = (part.to(device) for part in (latents, noise, timesteps, text))
        return diffusion.denoising_loss(module, self.scheduler, *batch)


# -- the study's runs ------------------------------------------------------------------------


def train_base(settings: Settings, layout: Layout, cohort: Any) -> Path:
    """Build or load the pipeline that every method starts from, once per dataset.

    From scratch, VAE, text encoder and U-Net are trained on the training split. Writes
    ``pipeline/``, ``latents.safetensors``, ``history.csv`` and last ``run.json`` under
    ``layout.base``.

    Parameters
    ----------
    settings : Settings
    layout : Layout
    cohort : Cohort
        With all splits; only "train" is used.

    Returns
    -------
    Path
        Of run.json.
    """
    started = time.perf_counter()
    train = cohort.included().split("train")
    config, folder = settings.model, layout.base
    images = train.load_images(config.image_size)
    histories = []
    if config.pretrained:
        pipeline = diffusion.load_pipeline(config.pretrained, config.revision)
        diffusion.set_image_size(pipeline, config.image_size)
    else:
        pipeline = diffusion.build_pipeline(config, train.table["prompt"].tolist(), seed=0)
        histories.append(_fit_autoencoder(pipeline, settings, images, cohort.data_hash, folder))
    mean, std = diffusion.encode_images(pipeline.vae, images)
    if not config.pretrained:
        spread = float((mean.var() + std.square().mean()).sqrt())  # of a drawn latent
        scaling = round(1.0 / spread, 6)
        pipeline.vae.register_to_config(scaling_factor=scaling)
        latents = (mean, std)
        histories.append(
            _fit_base_unet(pipeline, settings, train, latents, cohort.data_hash, folder)
        )
    diffusion.save_pipeline(pipeline, folder / "pipeline")
    with atomic_file(folder / "latents.safetensors") as temporary:
        save_file({"mean": mean.contiguous(), "std": std.contiguous()}, temporary)
    history = pd.concat(histories) if histories else pd.DataFrame(columns=["stage"])
    write_table(history, folder / "history.csv", None)
    return _finish(folder, settings, layout, cohort, "base", 0, time.perf_counter() - started)


def _fit_autoencoder(
    pipeline: Any, settings: Settings, images: np.ndarray, data_hash: str, folder: Path
) -> pd.DataFrame:
    unet = pipeline.unet.config
    shape = (unet.in_channels, unet.sample_size, unet.sample_size)
    module = Reconstruction(pipeline.vae)
    result = fit(
        AutoencoderObjective(module, images, shape),
        settings.vae,
        count=len(images),
        seed=0,
        folder=folder / "work" / "vae",
        identity={"data_hash": data_hash, "model": as_dict(settings.model)},
        label="VAE",
    )
    _use_average(result.average, module)
    return result.history.assign(stage="vae")


def _fit_base_unet(
    pipeline: Any,
    settings: Settings,
    train: Any,
    latents: tuple[Tensor, Tensor],
    data_hash: str,
    folder: Path,
) -> pd.DataFrame:
    prompts = train.table["prompt"].tolist()
    distinct = ["", *sorted(set(prompts))]
    position = {prompt: row for row, prompt in enumerate(distinct)}
    module = TextToLatent(pipeline.unet, pipeline.text_encoder)
    objective = DenoisingObjective(
        module,
        diffusion.training_scheduler(pipeline),
        *latents,
        pipeline.vae.config.scaling_factor,
        diffusion.tokenize(pipeline.tokenizer, distinct),
        torch.tensor([position[prompt] for prompt in prompts]),
        settings.base.prompt_dropout,
    )
    result = fit(
        objective,
        settings.base,
        count=len(prompts),
        seed=0,
        folder=folder / "work" / "unet",
        identity={"data_hash": data_hash, "model": as_dict(settings.model)},
        label="base U-Net",
    )
    _use_average(result.average, module)
    return result.history.assign(stage="base")


def _use_average(average: EMAModel | None, module: nn.Module) -> None:
    if average is not None:
        average.copy_to(module.parameters())


def train_method(settings: Settings, layout: Layout, cohort: Any, method: str, seed: int) -> Path:
    """Fine-tune the base's U-Net by a method; VAE and text encoder stay frozen.

    Writes ``pipeline/`` (the averaged weights), ``history.csv`` and last ``run.json`` under
    ``layout.run(method, seed)``.

    Parameters
    ----------
    settings, layout, cohort
        As for :func:`train_base`, which must have run.
    method : str
        Key of :data:`fairdiff_lib.perturbation.METHODS`.
    seed : int
        Of order, noise and timesteps; the same for every method.

    Returns
    -------
    Path
        Of run.json.
    """
    started = time.perf_counter()
    train = cohort.included().split("train")
    pipeline = load_base(layout, cohort.data_hash)
    attributes = {a.name: a.levels for a in cohort.spec.attributes}
    loop, folder = settings.training, layout.run(method, seed)
    for stale in folder.glob("generated-*"):  # images of an earlier training of this run
        shutil.rmtree(stale)
    mitigation = make_mitigation(
        method, settings.mitigation, attributes, seed, math.ceil(len(train) / loop.batch)
    )
    mitigation.prepare(pipeline, train)
    cached = load_file(layout.base / "latents.safetensors")
    text, prompt = diffusion.embed_prompts(pipeline, train.table["prompt"].tolist())
    objective = DenoisingObjective(
        pipeline.unet,
        diffusion.training_scheduler(pipeline),
        cached["mean"],
        cached["std"],
        pipeline.vae.config.scaling_factor,
        text,
        prompt,
        loop.prompt_dropout,
    )
    result = fit(
        objective,
        loop,
        count=len(train),
        seed=seed,
        folder=folder / "work",
        levels=train.codes(),
        mitigation=mitigation,
        sampling=mitigation.sampling_weights(train),
        identity={"data_hash": cohort.data_hash, "model": as_dict(settings.model)},
        label=f"{method}, seed {seed}",
    )
    _use_average(result.average, pipeline.unet)
    pipeline.to("cpu")
    diffusion.save_pipeline(pipeline, folder / "pipeline")
    write_table(result.history.assign(stage="training"), folder / "history.csv", None)
    seconds = time.perf_counter() - started
    return _finish(folder, settings, layout, cohort, method, seed, seconds, result)


def load_base(layout: Layout, data_hash: str) -> Any:
    """The base pipeline, refused if it was trained on other data.

    Raises
    ------
    InputError
        There is none, or it was trained on data with another hash.
    """
    run = read_json(layout.base / "run.json")
    if run["stamp"]["data_hash"] != data_hash:
        raise InputError(
            f"{layout.base}: trained on data {run['stamp']['data_hash'][:12]}, this cohort is "
            f"{data_hash[:12]}; remove the folder or choose another runs_root"
        )
    return diffusion.load_pipeline(layout.base / "pipeline")


def _finish(
    folder: Path,
    settings: Settings,
    layout: Layout,
    cohort: Any,
    method: str,
    seed: int,
    seconds: float,
    result: FitResult | None = None,
) -> Path:
    """Write run.json, which marks a finished run, and drop its checkpoints."""
    loop = settings.base if method == "base" else settings.training
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on macOS, KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    gpu = torch.cuda.max_memory_allocated() / 2**30 if _has_gpu() else None
    share = result.optimiser_seconds / max(result.seconds, 1e-9) if result else 0.0
    write_json(
        folder / "run.json",
        {
            "method": method,
            "seed": seed,
            "seconds": round(seconds, 1),
            "loop_seconds": round(result.seconds, 1) if result else None,
            "seconds_per_step": round(result.seconds / loop.steps, 4) if result else None,
            "optimiser_share": round(share, 5),
            "images_seen": loop.steps * loop.batch,
            "peak_memory_gib": round(peak, 2),
            "peak_gpu_memory_gib": gpu,
            "stamp": make_stamp(settings, cohort.data_hash, {"method": method, "seed": seed}),
        },
    )
    shutil.rmtree(folder / "work", ignore_errors=True)
    return folder / "run.json"


def read_history(folders: Sequence[Path]) -> pd.DataFrame:
    """Histories of finished runs in one tidy table, with method and seed.

    Parameters
    ----------
    folders : sequence of path
        As ``layout.run(method, seed)``.

    Returns
    -------
    DataFrame
        method, seed, stage, step, quantity, attribute, level, value.
    """
    parts = []
    for folder in folders:
        run = read_json(folder / "run.json")
        table = read_table(folder / "history.csv", HISTORY_COLUMNS)
        parts.append(table.assign(method=run["method"], seed=run["seed"]))
    history = pd.concat(parts, ignore_index=True).fillna({"attribute": "", "level": ""})
    return history[["method", "seed", "stage", *HISTORY_COLUMNS]]


def with_steps(loop: LoopConfig, steps: int) -> LoopConfig:
    """The same loop with another number of steps, for benchmarks."""
    return dataclasses.replace(loop, steps=steps)
