"""What is trained: three objectives, the base of a data set, and every method's run from it.

:func:`train` finds a finished run again, goes on with a killed one, and makes what is missing.
"""

from __future__ import annotations

import math
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fairdiff_lib.disk import files
from fairdiff_lib.disk.files import read_json, read_table
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.stamps import hashes_of, make_stamp
from fairdiff_lib.methods.base import Mitigation, make_method
from fairdiff_lib.model import device
from fairdiff_lib.model import pipeline as model
from fairdiff_lib.model.lite import Perceptual
from fairdiff_lib.model.loss import denoising_loss, generator_for, snr_weights, training_scheduler
from fairdiff_lib.model.sample import PIPELINES
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import METHODS, source_runs
from fairdiff_lib.settings.options import LoopConfig, as_dict
from fairdiff_lib.study import Study
from fairdiff_lib.train import loop as loops
from fairdiff_lib.train.loop import HISTORY_COLUMNS, FitResult, fit

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

BASE = "base"  # no method: what all of them start from
READ_AT_ONCE = 512  # images in memory on their way through the VAE: 0.4 GB at 512 px
SAMPLE = 2048  # images whose latents say how to normalise them
SHIPPED_EVERY = 50  # steps between the losses that a shipped base keeps
SEALED = (".safetensors", ".csv")
KL_WEIGHT = 1e-4  # of the divergence, in nats a number of the image
COSTS = {
    "seconds": "seconds in all",
    "seconds_per_step": "seconds a step",
    "optimiser_share": "share of it in the method's optimiser",
    "images_seen": "images seen",
    "peak_memory_gib": "most memory, GiB",
}


class Run(NamedTuple):
    """A finished run."""

    history: pd.DataFrame  # dataset, method, seed, stage, step, quantity, attribute, level, value
    facts: dict[str, Any]  # run.json: what it was, what it cost, the losses of its first steps

    def last_losses(self) -> pd.DataFrame:
        """Mean loss over the last tenth of each stage's steps, overall and by level."""
        own = self.history[self.history["quantity"] == "loss"]
        late = own["step"] > 0.9 * own.groupby("stage")["step"].transform("max")
        keys = ["stage", "attribute", "level"]
        means = own[late].groupby(keys, sort=False)["value"].mean().reset_index()
        return means.replace({"attribute": {"": "overall"}, "level": {"": "all"}})

    def costs(self) -> pd.DataFrame:
        """Time and memory: what, value."""
        values = [self.facts[name] for name in COSTS]
        return pd.DataFrame({"what": COSTS.values(), "value": values})

    def scalars(self) -> dict[str, Any]:
        """The first and last loss of the last stage, and the costs."""
        whole = self.history[(self.history["quantity"] == "loss") & (self.history["level"] == "")]
        values = whole.loc[whole["stage"] == whole["stage"].iloc[-1], "value"]
        losses = {"first_loss": float(values.iloc[0]), "last_loss": float(values.iloc[-1])}
        return losses | {name: self.facts[name] for name in COSTS}


def train(study: Study, method: str, seed: int) -> Run:
    """Train the base, or fine-tune it by a method, unless that is done.

    Parameters
    ----------
    study : Study
    method : str
        ``base``, or a method that starts from it. The base is made where it is missing.
    seed : int
        Of order, noise and timesteps, the same for every method; of the base too, where each
        seed has its own.

    Raises
    ------
    InputError
        An unknown method, or one that reads runs which are not finished.
    """
    refuse_unknown("method", method, (*METHODS, BASE))
    sections = ("training",) if study.settings.model.pretrained else ("vae", "base", "training")
    for section in sections:  # before the first of them is trained
        device.check_loop(getattr(study.settings, section), section)
    base = study.places.base_of(seed)
    folder = base if method == BASE else study.places.run(method, seed)
    for place in dict.fromkeys((study.places.base, base, folder)):
        if _is_finished(place, study):
            continue
        # an arm of the ablation may be a run of the study: two jobs, one folder. Processes that
        # train together are one job
        together = device.processes().num_processes > 1
        lock = files.locked(place.with_name(f"{place.name}.lock"))
        with nullcontext() if together else lock:
            if _is_finished(place, study):
                continue
            if place == study.places.base:
                train_base(study)
            elif place == base:
                train_own_base(study, seed)
            else:
                train_method(study, method, seed)
    history = read_history([folder]).assign(dataset=study.settings.dataset)
    return Run(history, read_json(folder / "run.json"))


def _is_finished(folder: Path, study: Study) -> bool:
    path = folder / "run.json"
    return path.is_file() and read_json(path)["stamp"]["data_hash"] == study.cohort.data_hash


# -- objectives ------------------------------------------------------------------------------


class Reconstruction(nn.Module):
    """An AutoencoderKL's training pass as one forward call, as distributed training needs it."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction [N, 3, H, W] and KL divergence [N] of pixels [N, 3, H, W] in [-1, 1]."""
        vae: Any = self.vae
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * noise
        return vae.decode(latents).sample, posterior.kl()


@dataclass
class AutoencoderObjective:
    """``|e| + perceptual_weight P + KL_WEIGHT KL``, per sample, of an image turned over by chance.

    ``e`` is the error, averaged over the image; ``P`` the distance in a frozen network's first
    stages. An L1 loss alone would trade vessels and hair for their mean.
    """

    module: nn.Module  # Reconstruction
    images: np.ndarray  # uint8 [N, 3, H, W]
    latent_shape: tuple[int, int, int]  # C, h, w
    perceptual_weight: float = 0.0

    def __post_init__(self) -> None:
        self.perceptual = Perceptual() if self.perceptual_weight else None

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        device = next(module.parameters()).device
        pixels = model.to_model(self.images[rows[part].numpy()]).to(device)
        noise = torch.randn((len(rows), *self.latent_shape), generator=generator)[part]
        turned = torch.rand((len(rows), 2), generator=generator)[part].to(device) < 0.5
        for axis in (0, 1):  # from left to right, and upside down
            own = turned[:, axis].view(-1, 1, 1, 1)
            pixels = torch.where(own, pixels.flip(3 - axis), pixels)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        output, kl = module(pixels, noise.to(device))
        error: Tensor = output.float() - pixels
        total: Tensor = error.abs().flatten(1).mean(dim=1)
        if self.perceptual is not None:
            apart: Tensor = self.perceptual.to(device)(output, pixels)
            total = total + self.perceptual_weight * apart
        divergence: Tensor = kl.float() / pixels[0].numel()
        return total + KL_WEIGHT * divergence


class TextToLatent(nn.Module):
    """U-Net and text encoder as one module, for training both from scratch."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Any:
        """``encoder_hidden_states`` are token ids int64 [N, L] here."""
        unique: Any = torch.unique  # untyped in torch
        distinct, index = unique(encoder_hidden_states, dim=0, return_inverse=True)
        text = self.text_encoder(distinct)[0][index]
        return self.unet(noisy, timesteps, encoder_hidden_states=text)


class Inputs(NamedTuple):
    """What the denoising loss of some rows is computed from, besides the network."""

    latents: Tensor  # float32 [N, C, h, w], drawn from the VAE's posterior, scaled
    noise: Tensor  # float32 [N, C, h, w], standard normal
    timesteps: Tensor  # int64 [N], of 0 to 999
    text: Tensor  # [N, ...], what the network takes for each row's prompt


@dataclass
class DenoisingObjective:
    """The denoising loss on cached latents; ``text`` are prompt features, or token ids."""

    module: nn.Module  # as pipeline.conditioning gives it, or TextToLatent with token ids
    scheduler: Any  # DDPMScheduler
    mean: Tensor  # float32 [N, C, h, w], posterior of the unscaled latents
    std: Tensor  # float32 [N, C, h, w]
    scaling: float  # the VAE's scaling_factor
    text: Tensor  # what the module takes for each prompt, [P, ...]; row 0 is the empty prompt
    prompt: Tensor  # int64 [N], row of ``text``
    prompt_dropout: float = 0.0  # fraction of samples that see the empty prompt
    snr_gamma: float = 0.0  # of snr_weights; 0 = all timesteps alike, as released
    timesteps: Tensor | None = None  # int64 [rows], of the last pass; set by draw

    def draw(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Inputs:
        """Inputs of ``rows[part]``, drawn for all ``rows``, on the module's device."""
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
        return Inputs(*(x.to(device) for x in (latents, noise, self.timesteps[part], text)))

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        inputs = self.draw(module, rows, part, generator)
        loss = denoising_loss(module, self.scheduler, *inputs)
        if not self.snr_gamma:
            return loss
        return loss * snr_weights(self.scheduler, inputs.timesteps, self.snr_gamma)


# -- the base --------------------------------------------------------------------------------


def train_base(study: Study) -> Path:
    """Build or load the pipeline that every method starts from, once per data set; its folder.

    From scratch, VAE, text encoder and U-Net are trained on the training split. Writes
    ``pipeline/``, ``latents.safetensors``, ``history.csv`` and last ``run.json``.
    """
    started = time.perf_counter()
    train, config, folder = _train_rows(study), study.settings.model, study.places.base
    prompts, images, histories = train.table["prompt"].tolist(), None, []
    if config.pretrained:
        pipeline = model.load_pipeline(config.pretrained, config.revision)
        model.set_image_size(pipeline, config.image_size)
    else:
        images = train.load_images(config.image_size)
        pipeline = model.build_pipeline(config, study.cohort.spec.every_prompt(), seed=0)
        histories.append(_fit_autoencoder(study, pipeline, images))
        model.normalise_latents(pipeline.vae, images[:SAMPLE])
    mean, std = _latents(study, pipeline.vae, images)
    if not config.pretrained:
        histories.append(_fit_base_unet(study, pipeline, prompts, mean, std, 0))
    history = pd.concat(histories or [_history_of(config.pretrained)])
    _keep_base(study, pipeline, history, 0, started)
    return folder


def train_own_base(study: Study, seed: int) -> Path:
    """Train text encoder and U-Net of a seed's own base from scratch; its folder.

    The autoencoder and its latents are those of ``places.base``, which must be finished.
    """
    started = time.perf_counter()
    config, shared = study.settings.model, load_base(study, 0)
    pipeline = model.build_pipeline(config, study.cohort.spec.every_prompt(), seed)
    pipeline.register_modules(vae=shared.vae)
    latents = load_file(study.places.base / "latents.safetensors")
    prompts = _train_rows(study).table["prompt"].tolist()
    history = _fit_base_unet(study, pipeline, prompts, latents["mean"], latents["std"], seed)
    _keep_base(study, pipeline, history, seed, started)
    return study.places.base_of(seed)


def _keep_base(
    study: Study, pipeline: Any, history: pd.DataFrame, seed: int, started: float
) -> None:
    folder = study.places.base_of(seed)
    like = study.places.base / PIPELINES["ema"] if seed else None
    with device.first_only() as first:
        if first:
            model.save_pipeline(pipeline, folder / PIPELINES["ema"], like)
            files.write_table(history, folder / "history.csv")
            _finish(study, folder, BASE, seed, started)


def _history_of(pretrained: str) -> pd.DataFrame:
    """Losses of a base that was trained elsewhere, where they were kept; else one that is NaN."""
    folder = PROJECT_ROOT / pretrained
    if (folder / "history.csv").is_file():
        return _read_history(folder)
    row = dict(zip(HISTORY_COLUMNS, (0, "loss", "", "", float("nan")), strict=True))
    return pd.DataFrame([{**row, "stage": BASE}])


def ship_base(study: Study) -> Path:
    """Copy a finished base to where studies look for it, in half precision, with its losses."""
    folder, history = study.places.pretrained, _read_history(study.places.base)
    pipeline = model.load_pipeline(study.places.base / PIPELINES["ema"])
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        part.half()
    model.save_pipeline(pipeline, folder)
    losses = history[history["quantity"] == "loss"]
    last = losses.groupby("stage")["step"].transform("max")
    kept = (losses["step"] % SHIPPED_EVERY == 0) | (losses["step"] == last)
    files.write_table(losses[kept], folder / "history.csv")
    return folder


def seal_base(study: Study, gates: pd.DataFrame, command: str) -> None:
    """Put the gates of a shipped base beside it, and a stamp: its cost, its files, its command."""
    folder, history = study.places.pretrained, _read_history(study.places.base)
    files.write_table(gates, folder / "gates.csv")
    clocks = history[history["quantity"] == "seconds"].groupby("stage")["value"].max()
    trained = {f"seconds_{stage}": round(float(spent)) for stage, spent in clocks.items()}
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in SEALED]
    hashes = {path.relative_to(folder).as_posix(): files.hash_file(path) for path in found}
    stamp = make_stamp(study.settings, study.cohort.data_hash, {"command": command})
    files.write_json(folder / "stamp.json", {**stamp, "training": trained, "files": hashes})


def _train_rows(study: Study) -> Any:
    return study.cohort.included().split("train")


def _latents(study: Study, vae: Any, images: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Posterior of the training images, float32 [N, C, h, w] each, encoded by the first process.

    ``latents.safetensors`` keeps it. Without images, they are read a part at a time.
    """
    train, path = _train_rows(study), study.places.base / "latents.safetensors"
    with device.first_only() as first:
        if first:
            parts = []
            for start in range(0, len(train), READ_AT_ONCE):
                rows = np.arange(start, min(start + READ_AT_ONCE, len(train)))
                size = study.settings.model.image_size
                own = images[rows] if images is not None else train.load_images(size, rows)
                parts.append(model.encode_images(vae, own))
            mean, std = (torch.cat(side) for side in zip(*parts, strict=True))
            with files.atomic_file(path) as temporary:
                save_file({"mean": mean.contiguous(), "std": std.contiguous()}, temporary)
    found = load_file(path)
    return found["mean"], found["std"]


def _fit_autoencoder(study: Study, pipeline: Any, images: np.ndarray) -> pd.DataFrame:
    unet, weight = pipeline.unet.config, study.settings.model.vae_perceptual
    shape = (unet.in_channels, unet.sample_size, unet.sample_size)
    objective = AutoencoderObjective(Reconstruction(pipeline.vae), images, shape, weight)
    history = _fit_base(study, "vae", objective, study.settings.vae, len(images), "VAE")
    device.lay_out(pipeline.vae)  # as it is when it is loaded
    return history


def _fit_base_unet(
    study: Study, pipeline: Any, prompts: list[str], mean: Tensor, std: Tensor, seed: int
) -> pd.DataFrame:
    distinct, rows = model.distinct_prompts(prompts)
    loop = study.settings.base
    objective = DenoisingObjective(
        TextToLatent(pipeline.unet, pipeline.text_encoder),
        training_scheduler(pipeline),
        mean,
        std,
        pipeline.vae.config.scaling_factor,
        model.tokenize(pipeline.tokenizer, distinct),
        rows,
        loop.prompt_dropout,
        loop.snr_gamma,
    )
    return _fit_base(study, BASE, objective, loop, len(prompts), "base U-Net", seed)


def _fit_base(
    study: Study, stage: str, objective: Any, loop: LoopConfig, count: int, label: str,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    work = study.places.base_of(seed) / "work" / stage
    result = _fit(study, work, objective, loop, count=count, seed=seed, label=label)
    _use_average(result.average, objective.module)
    return result.history.assign(stage=stage)


def _fit(study: Study, work: Path, objective: Any, loop: LoopConfig, **own: Any) -> FitResult:
    """:func:`loop.fit`, continued only on the same data and model."""
    identity = {"data_hash": study.cohort.data_hash, "model": as_dict(study.settings.model)}
    machine = study.settings.machine
    return fit(objective, loop, folder=work, identity=identity, machine=machine, **own)


def _use_average(average: EMAModel | None, module: nn.Module) -> None:
    if average is not None:
        average.copy_to(p for p in module.parameters() if p.requires_grad)


def load_base(study: Study, seed: int) -> Any:
    """The base of a seed's runs; InputError if there is none, or it was trained on other data."""
    folder, own = study.places.base_of(seed), study.cohort.data_hash
    found = read_json(folder / "run.json")["stamp"]["data_hash"]
    if found != own:
        raise InputError(
            f"{folder}: trained on data {found[:12]}, this cohort is {own[:12]}; remove the "
            "folder or choose another runs_root"
        )
    return model.load_pipeline(folder / "pipeline")


# -- a method --------------------------------------------------------------------------------


class Batch(NamedTuple):
    """What one step sees."""

    rows: Tensor  # int64 [N], of the included training rows
    levels: Tensor  # int64 [N, A], level of each attribute
    inputs: Inputs


@dataclass
class Start:
    """Where a method's run begins: the base, the method as it is prepared, and what it will see."""

    study: Study
    seed: int
    pipeline: Any  # StableDiffusionPipeline
    method: Mitigation
    objective: (
        DenoisingObjective  # its module is trained: the U-Net, with an adapter if there is one
    )

    @property
    def module(self) -> nn.Module:
        """What is trained, where there is a GPU on it."""
        return self.objective.module.train().to(device.device())

    def loss(self, inputs: Inputs) -> Tensor:
        """:func:`denoising_loss` of a batch, float32 [N], with gradient."""
        return denoising_loss(self.objective.module, self.objective.scheduler, *inputs)

    def update(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Move the module at this step's learning rate; then gradients of zero."""
        rate = loops.learning_rate(self.study.settings.training, step)
        for group in optimiser.param_groups:
            group["lr"] = rate * self.method.learning_rate_factor(step)
        optimiser.step()
        optimiser.zero_grad()

    def batches(self, steps: int) -> Iterator[Batch]:
        """What the first steps see, each drawn when it begins; their first micro-batch alone."""
        train, loop = _train_rows(self.study), self.study.settings.training
        part, codes = slice(0, loop.micro_batch or loop.batch), torch.as_tensor(train.codes())
        for step in range(steps):
            sampling = self.method.sampling_weights(train)
            rows = loops.batch_rows(len(train), loop.batch, self.seed, step, sampling)
            draws = generator_for(self.seed, "draws", step)
            inputs = self.objective.draw(self.module, rows, part, draws)
            yield Batch(rows[part], codes[rows[part]], inputs)


def start(study: Study, method: str, seed: int) -> Start:
    """Load the base and prepare the method, as :func:`train` does before the first step.

    InputError if the base, or a run that the method reads, isn't finished.
    """
    kept, pipeline = study.cohort.included(), load_base(study, seed)
    attributes = {a.name: a.levels for a in kept.spec.attributes}
    epoch = math.ceil(len(_train_rows(study)) / study.settings.training.batch)
    rank = device.processes().process_index
    made = make_method(method, study.settings.mitigation, attributes, seed, epoch, rank)
    made.read_sources(source_histories(study, method, seed))
    # no method sees a test row, not even by mistake
    made.prepare(pipeline, kept.take((kept.table["split"] != "test").to_numpy(dtype=bool)))
    return Start(study, seed, pipeline, made, method_objective(study, pipeline))


def train_method(study: Study, method: str, seed: int) -> Path:
    """Fine-tune the base's U-Net by a method; VAE and text encoder stay frozen. Its folder.

    The base and the runs that the method reads must be finished. Writes ``pipeline/`` (the
    averaged weights), ``pipeline_raw/`` (the last step's, P7), ``history.csv`` and last
    ``run.json``.
    """
    started = time.perf_counter()
    train, folder = _train_rows(study), study.places.run(method, seed)
    begun = start(study, method, seed)
    result = _fit(
        study,
        folder / "work",
        begun.objective,
        study.settings.training,
        count=len(train),
        seed=seed,
        levels=train.codes(),
        method=begun.method,
        sampling=lambda: begun.method.sampling_weights(train),
        label=f"{method}, seed {seed}",
    )
    pipeline = begun.pipeline.to("cpu")
    with device.first_only() as first:
        if first:
            for stale in folder.glob("generated-*"):  # images of an earlier training of this run
                shutil.rmtree(stale)
            base = study.places.base_of(seed) / PIPELINES["ema"]
            model.save_pipeline(pipeline, folder / PIPELINES["raw"], like=base)
            _use_average(result.average, begun.objective.module.to("cpu"))
            model.save_pipeline(pipeline, folder / PIPELINES["ema"], like=base)
            files.write_table(result.history.assign(stage="training"), folder / "history.csv")
            _finish(study, folder, method, seed, started, result)
    return folder


def method_objective(study: Study, pipeline: Any) -> DenoisingObjective:
    """What a method minimises, on the base's cached latents of the included training rows.

    The pipeline is a base of the study, or fine-tuned from one: they share the VAE.
    """
    cached = load_file(study.places.base / "latents.safetensors")
    prompts = _train_rows(study).table["prompt"].tolist()
    module, text, prompt = model.conditioning(pipeline, prompts)
    scaling = pipeline.vae.config.scaling_factor
    known = module, training_scheduler(pipeline), cached["mean"], cached["std"], scaling
    loop = study.settings.training
    return DenoisingObjective(*known, text, prompt, loop.prompt_dropout, loop.snr_gamma)


def source_histories(study: Study, method: str, seed: int) -> dict[str, pd.DataFrame]:
    """Histories of the runs that a method reads, by method; InputError if one isn't finished."""
    runs = source_runs(method, seed, study.settings.seeds)
    if METHODS[method].sources and not runs:
        raise InputError(
            f"method {method} reads a run of another seed; seeds={seed} is the only one, expected "
            "at least two"
        )
    histories = {}
    for source, other in runs:
        folder = study.places.run(source, other)
        if not (folder / "run.json").is_file():
            raise InputError(
                f"{folder}: method {method} reads the finished run of {source}, seed {other}; "
                "train that first"
            )
        histories[source] = _read_history(folder)
    return histories


# -- what a run leaves -----------------------------------------------------------------------


def _below(study: Study, method: str, seed: int) -> list[Path]:
    """What a run starts from: the cohort's table, and other runs' notes."""
    places = study.places
    base = places.base_of(seed)
    if method == BASE:
        shared = [] if base == places.base else [places.base / "run.json"]  # its autoencoder
        return [places.cohort / "cohort.csv", *shared]
    sources = source_runs(method, seed, study.settings.seeds)
    return [folder / "run.json" for folder in (base, *(places.run(*s) for s in sources))]


def _finish(
    study: Study,
    folder: Path,
    method: str,
    seed: int,
    started: float,
    result: FitResult | None = None,
) -> None:
    """Write run.json, which marks a finished run, and drop its checkpoints."""
    settings, unit = study.settings, 2**30 if sys.platform == "darwin" else 2**20  # bytes, KiB
    loop = settings.base if method == BASE else settings.training
    loaded = _weights_of(settings.model.pretrained) if method == BASE else None
    spent = max(result.seconds, 1e-9) if result else 0.0
    facts = {
        "method": method,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "loop_seconds": round(result.seconds, 1) if result else None,
        "seconds_per_step": round(result.seconds / loop.steps, 4) if result else None,
        "optimiser_share": round(result.optimiser_seconds / spent, 5) if result else 0.0,
        "measure_share": round(result.measure_seconds / spent, 5) if result else 0.0,
        "processes": result.processes if result else None,
        "precision": device.carried_out(loop.mixed_precision) if result else None,
        "images_seen": 0 if loaded else loop.steps * loop.batch,
        "loaded": loaded,
        "first_losses": result.first_losses if result else None,
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2),
        "peak_gpu_memory_gib": (
            torch.cuda.max_memory_allocated() / 2**30 if device.has_gpu() else None
        ),
        "stamp": make_stamp(settings, study.cohort.data_hash, {"method": method, "seed": seed}),
        "rests_on": hashes_of(study.places, _below(study, method, seed)),
    }
    files.write_json(folder / "run.json", facts)
    shutil.rmtree(folder / "work", ignore_errors=True)


def _weights_of(pretrained: str) -> dict[str, str] | None:
    """A model that was trained elsewhere, and the SHA-256 of each of its files of weights here."""
    folder = PROJECT_ROOT / pretrained
    if not pretrained:
        return None
    found = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    hashes = {path.relative_to(folder).as_posix(): files.hash_file(path) for path in found}
    return {"model": pretrained, **hashes}


def read_history(folders: Sequence[Path]) -> pd.DataFrame:
    """Histories of finished runs, as ``places.run(method, seed)``, as one tidy table.

    method, seed, stage, step, quantity, attribute, level, value.
    """
    parts = []
    for folder in folders:
        run = read_json(folder / "run.json")
        parts.append(_read_history(folder).assign(method=run["method"], seed=run["seed"]))
    return pd.concat(parts, ignore_index=True)[["method", "seed", "stage", *HISTORY_COLUMNS]]


def _read_history(folder: Path) -> pd.DataFrame:
    names = {"attribute": str, "level": str}  # of the base's, which has none, pandas makes numbers
    table = read_table(folder / "history.csv", HISTORY_COLUMNS, dtype=names)
    return table.fillna(dict.fromkeys(names, ""))
