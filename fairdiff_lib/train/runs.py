"""What is trained: three objectives, the base of a dataset, and every method's run from it."""

from __future__ import annotations

import dataclasses
import math
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fairdiff_lib.disk.files import atomic_file, read_json, read_table, write_json, write_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import make_stamp
from fairdiff_lib.methods.base import Mitigation, make_mitigation
from fairdiff_lib.model import pipeline as diffusion
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS, source_runs
from fairdiff_lib.settings.options import LoopConfig, Settings, as_dict
from fairdiff_lib.show.model_cards import write_model_card
from fairdiff_lib.train.loop import (
    HISTORY_COLUMNS,
    FitResult,
    first_only,
    fit,
    has_gpu,
    process_rank,
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
    """``|e| + e^2 + kl_weight KL``, per sample, of the weighted error ``e``.

    ``e = g + chroma_weight (d - g)``, where ``d = x' - x`` and ``g`` is its mean over red, green
    and blue. At 1 it is the plain error. A small autoencoder that sees few steps learns brightness
    first: colour varies less, and a lesion's grey patches are lost without the weight.
    """

    module: nn.Module  # Reconstruction
    images: np.ndarray  # uint8 [N, 3, H, W]
    latent_shape: tuple[int, int, int]  # C, h, w
    kl_weight: float = 1e-6  # as Stable Diffusion's VAE
    chroma_weight: float = 1.0

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        """See :class:`Objective`."""
        device = next(module.parameters()).device
        pixels = diffusion.to_model(self.images[rows[part].numpy()]).to(device)
        noise = torch.randn((len(rows), *self.latent_shape), generator=generator)[part]
        output, kl = module(pixels, noise.to(device))
        error: Tensor = output - pixels
        if self.chroma_weight != 1.0:
            grey = error.mean(dim=1, keepdim=True)
            error = grey + self.chroma_weight * (error - grey)
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

    module: nn.Module  # as diffusion.conditioning gives it, or TextToLatent with token ids
    scheduler: Any  # DDPMScheduler
    mean: Tensor  # float32 [N, C, h, w], posterior of the unscaled latents
    std: Tensor  # float32 [N, C, h, w]
    scaling: float  # the VAE's scaling_factor
    text: Tensor  # what the module takes for each prompt, [P, ...]; row 0 is the empty prompt
    prompt: Tensor  # int64 [N], row of ``text``
    prompt_dropout: float = 0.0  # fraction of samples that see the empty prompt
    timesteps: Tensor | None = None  # int64 [rows], of the last pass; set by loss

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        """See :class:`Objective`."""
        shape = (len(rows), *self.mean.shape[1:])
        posterior = torch.randn(shape, generator=generator)[part]
        noise = torch.randn(shape, generator=generator)[part]
        steps = self.scheduler.config.num_train_timesteps
        self.timesteps = torch.randint(steps, (len(rows),), generator=generator)
        dropped = torch.rand(len(rows), generator=generator)[part] < self.prompt_dropout
        own = rows[part]
        latents = (self.mean[own] + self.std[own] * posterior) * self.scaling
        text = self.text[torch.where(dropped, 0, self.prompt[own])]
        device = next(module.parameters()).device
        own_steps = self.timesteps[part]
        batch = (part.to(device) for part in (latents, noise, own_steps, text))
        return diffusion.denoising_loss(module, self.scheduler, *batch)


# -- the study's runs ------------------------------------------------------------------------


def train_base(settings: Settings, layout: Places, cohort: Any) -> Path:
    """Build or load the pipeline that every method starts from, once per dataset.

    From scratch, VAE, text encoder and U-Net are trained on the training split. Writes
    ``pipeline/``, ``latents.safetensors``, ``history.csv`` and last ``run.json`` under
    ``layout.base``.

    Parameters
    ----------
    settings : Settings
    layout : Places
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
    history = pd.concat(histories) if histories else pd.DataFrame(columns=["stage"])
    with first_only() as first:
        if first:
            diffusion.save_pipeline(pipeline, folder / "pipeline")
            with atomic_file(folder / "latents.safetensors") as temporary:
                save_file({"mean": mean.contiguous(), "std": std.contiguous()}, temporary)
            write_table(history, folder / "history.csv")
            _finish(folder, settings, layout, cohort, "base", 0, time.perf_counter() - started)
            write_model_card(folder, settings, cohort, "base")
    return folder / "run.json"


def _fit_autoencoder(
    pipeline: Any, settings: Settings, images: np.ndarray, data_hash: str, folder: Path
) -> pd.DataFrame:
    unet = pipeline.unet.config
    shape = (unet.in_channels, unet.sample_size, unet.sample_size)
    module = Reconstruction(pipeline.vae)
    result = fit(
        AutoencoderObjective(module, images, shape, chroma_weight=settings.model.vae_chroma_weight),
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


def train_method(settings: Settings, layout: Places, cohort: Any, method: str, seed: int) -> Path:
    """Fine-tune the base's U-Net by a method; VAE and text encoder stay frozen.

    Writes ``pipeline/`` (the averaged weights), ``pipeline_raw/`` (the last step's, P7),
    ``history.csv`` and last ``run.json`` under ``layout.run(method, seed)``.

    Parameters
    ----------
    settings, layout, cohort
        As for :func:`train_base`, which must have run.
    method : str
        Key of ``METHODS``; the runs that it reads must be finished.
    seed : int
        Of order, noise and timesteps; the same for every method.

    Returns
    -------
    Path
        Of run.json.
    """
    started = time.perf_counter()
    kept = cohort.included()
    train = kept.split("train")
    pipeline = load_base(layout, cohort.data_hash)
    loop, folder = settings.training, layout.run(method, seed)
    mitigation = _prepared(settings, layout, kept, pipeline, method, seed)
    objective = method_objective(layout, pipeline, train, loop.prompt_dropout)
    result = fit(
        objective,
        loop,
        count=len(train),
        seed=seed,
        folder=folder / "work",
        levels=train.codes(),
        mitigation=mitigation,
        sampling=lambda: mitigation.sampling_weights(train),
        identity={"data_hash": cohort.data_hash, "model": as_dict(settings.model)},
        label=f"{method}, seed {seed}",
    )
    pipeline.to("cpu")
    with first_only() as first:
        if first:
            for stale in folder.glob("generated-*"):  # images of an earlier training of this run
                shutil.rmtree(stale)
            diffusion.save_pipeline(pipeline, folder / diffusion.PIPELINES["raw"])
            _use_average(result.average, objective.module.to("cpu"))
            diffusion.save_pipeline(pipeline, folder / diffusion.PIPELINES["ema"])
            write_table(result.history.assign(stage="training"), folder / "history.csv")
            seconds = time.perf_counter() - started
            _finish(folder, settings, layout, cohort, method, seed, seconds, result)
            write_model_card(folder, settings, cohort, method)
    return folder / "run.json"


def method_objective(
    layout: Places, pipeline: Any, train: Any, prompt_dropout: float = 0.0
) -> DenoisingObjective:
    """What a method minimises, on the base's cached latents of the training rows.

    Parameters
    ----------
    layout : Places
        Whose base the pipeline is, or was fine-tuned from: they share the VAE.
    pipeline : StableDiffusionPipeline
    train : Cohort
        The included training rows, all of them.
    prompt_dropout : float
        Share of prompts emptied.
    """
    cached = load_file(layout.base / "latents.safetensors")
    module, text, prompt = diffusion.conditioning(pipeline, train.table["prompt"].tolist())
    return DenoisingObjective(
        module,
        diffusion.training_scheduler(pipeline),
        cached["mean"],
        cached["std"],
        pipeline.vae.config.scaling_factor,
        text,
        prompt,
        prompt_dropout,
    )


def _prepared(
    settings: Settings, layout: Places, kept: Any, pipeline: Any, method: str, seed: int
) -> Mitigation:
    """The run's method, after it has seen its sources, the pipeline, and the rows it may see."""
    attributes = {a.name: a.levels for a in kept.spec.attributes}
    steps_per_epoch = math.ceil(len(kept.split("train")) / settings.training.batch)
    rank = process_rank()
    mitigation = make_mitigation(
        method, settings.mitigation, attributes, seed, steps_per_epoch, rank
    )
    mitigation.read_sources(_source_histories(settings, layout, method, seed))
    # no method sees a test row, not even by mistake
    mitigation.prepare(pipeline, kept.take((kept.table["split"] != "test").to_numpy(dtype=bool)))
    return mitigation


def _source_histories(
    settings: Settings, layout: Places, method: str, seed: int
) -> dict[str, pd.DataFrame]:
    """Histories of the finished runs that a method reads, by method.

    Raises
    ------
    InputError
        One of them isn't finished, or the method needs another seed and there is none.
    """
    runs = source_runs(method, seed, settings.seeds)
    if METHODS[method].sources and not runs:
        raise InputError(
            f"method {method} reads a run of another seed; seeds={seed} is the only one, expected "
            "at least two"
        )
    histories = {}
    for source, other in runs:
        folder = layout.run(source, other)
        if not (folder / "run.json").is_file():
            raise InputError(
                f"{folder}: method {method} reads the finished run of {source}, seed {other}; "
                "train that first"
            )
        histories[source] = read_table(folder / "history.csv", HISTORY_COLUMNS)
    return histories


def load_base(layout: Places, data_hash: str) -> Any:
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
    layout: Places,
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
    gpu = torch.cuda.max_memory_allocated() / 2**30 if has_gpu() else None
    share = result.optimiser_seconds / max(result.seconds, 1e-9) if result else 0.0
    measured = result.measure_seconds / max(result.seconds, 1e-9) if result else 0.0
    write_json(
        folder / "run.json",
        {
            "method": method,
            "seed": seed,
            "seconds": round(seconds, 1),
            "loop_seconds": round(result.seconds, 1) if result else None,
            "seconds_per_step": round(result.seconds / loop.steps, 4) if result else None,
            "optimiser_share": round(share, 5),
            "measure_share": round(measured, 5),
            "processes": result.processes if result else None,
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
