"""What can be chosen: frozen settings that check themselves, a unit and a reason beside each field.

A preset is a table of values for :class:`Settings`; nothing else in the library decides a size, a
rate or a seed. A value that a setting can't have is refused in one line, where it is given.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, dataclass_transform

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from fairdiff_lib.settings.errors import InputError

T = TypeVar("T")


def _parts(value: Any) -> Any:
    """``"0,1"``, as a command line gives it, in its parts."""
    return (value.split(",") if value else []) if isinstance(value, str) else value


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"={','.join(map(str, values))}: each may be named once")
    return values


Several = Annotated[tuple[T, ...], BeforeValidator(_parts)]
Distinct = Annotated[
    tuple[T, ...], Field(min_length=1), AfterValidator(_each_once), BeforeValidator(_parts)
]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Inner = Annotated[float, Field(gt=0, lt=1)]
Factor = Annotated[float, Field(ge=1)]
Kept = Annotated[float, Field(gt=0, le=1)]
Switch = Literal["as_released", "corrected"]
Architecture = Literal["residual", "efficientnet", "vit", "lite0"]
REAL = "real"  # the source of a downstream classifier's images that no method has made
CLASSIFIERS: tuple[Architecture, ...] = typing.get_args(Architecture)

# dataclasses rather than BaseModel: ``dataclasses.replace`` checks what it copies
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def options(cls: type[T]) -> type[T]:
    """A frozen group of settings that refuses unknown names and values out of bounds."""
    made: Any = dataclass(frozen=True, config=_STRICT)(cls)
    plain = made.__init__

    def checked(self: Any, *values: Any, **named: Any) -> None:
        try:
            plain(self, *values, **named)
        except ValidationError as error:
            raise explained(error, made) from None

    made.__init__ = checked
    group: type[T] = made
    return group


CAMERA = {"camera": ("camera", "B")}  # that a group may be named by, as by the end of a knob


@options
class PlantConfig:
    """Fewer and worse training images of one group, for a generator that serves it worse.

    Everybody's validation and test images stay as they were drawn.
    """

    # camera: B of two cameras, A and B, that patients were photographed by, as by lot, and that
    # prompts name; or the end of a knob's name, as black; empty: nobody, and no cameras
    on: str = ""
    kept: Kept = 1.0  # fraction of the group's training images that were collected
    mislabelled: Share = 0.0  # of these, those that show another patient of the group
    height: Whole = 0  # pixels, of all of these; 0 = as everybody's


@options
class Population:
    """How much a simulator draws, and which disparity it plants: a class per family, in room sim.

    A field's first word says what it is, and no knob touches what another one names: ``share_``
    (a group's size), ``heterogeneity_`` (how varied it looks), ``difficulty_`` (how noisy its
    images are). ``plant`` leaves all of these alone, and worsens what a generator learns from.
    """

    most: ClassVar[Mapping[str, int]] = {}  # field that counts who is drawn -> its largest value
    levels: ClassVar[Mapping[str, tuple[str, str]]] = {}  # end of a knob's name -> attribute, level
    noise: ClassVar[str] = "camera noise"  # what a difficulty multiplies, in words
    landscape: ClassVar[bool] = True  # pictures are at least as wide as high
    plant: PlantConfig = Field(default_factory=PlantConfig)
    seed: int = 0  # of whom is drawn, not of any training; each family has its own

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        for name, count in self.counts.items():
            if not 1 <= count <= self.most[name]:
                raise ValueError(f"{name}={count}: expected at least 1, at most {self.most[name]}")
        values = as_dict(self)
        for name, value in values.items():
            if name.startswith("share_") and not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: expected a fraction from 0 to 1")
            if name.startswith(("difficulty_", "heterogeneity_")) and not value > 0:
                raise ValueError(f"{name}={value}: expected a positive factor")
            if name.endswith(("_height", "_width")) and value < 32:
                raise ValueError(f"{name}={value}: expected at least 32 pixels")
            height = values.get(name.replace("_width", "_height"), 0)
            if name.endswith("_width") and self.landscape and value < height:
                raise ValueError(f"{name}={value}: expected at least the height, {height}")
        races = [f"share_{w}" for w, (attribute, _) in self.levels.items() if attribute == "race"]
        if sum(values[name] for name in races) > 1:
            total = f"{sum(values[name] for name in races):g}"
            raise ValueError(f"{' + '.join(races)} = {total}: expected at most 1")
        if self.plant.on not in ("", *CAMERA, *self.levels):
            known = ", ".join([*CAMERA, *self.levels])
            raise ValueError(f"plant.on={self.plant.on}: expected nothing or one of {known}")
        if not self.plant.on and self.plant != PlantConfig():
            raise ValueError("plant.on=: expected a group, as camera, where something is planted")
        return self

    @property
    def served_worse(self) -> tuple[str, str] | None:
        """Attribute and level of the group that the plant is on; None without one."""
        return {**CAMERA, **self.levels}.get(self.plant.on)

    @property
    def has_cameras(self) -> bool:
        """Whether patients were photographed by camera A or B."""
        return self.plant.on in CAMERA

    @property
    def counts(self) -> dict[str, int]:
        """How many are drawn, by the field that says so."""
        return {name: getattr(self, name) for name in self.most}

    @property
    def knobs(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Difficulty and heterogeneity of every (attribute, level) that has a knob."""
        return {
            level: (
                getattr(self, f"difficulty_{word}", 1.0),
                getattr(self, f"heterogeneity_{word}", 1.0),
            )
            for word, level in self.levels.items()
        }


@options
class ReadingConfig:
    """How a dataset's labels are read, where that is a choice."""

    # D3 and D4: which of the codings that the dataset's entry names. HAM10000: medfair (bcc is
    # benign, older begins above 60). CheXpert's uncertain labels: zeros (negative; the default, as
    # released), ones (positive), drop (left out).
    coding: str = "default"
    split_seed: Whole = 0  # of the splits that we draw: HAM10000, CheXpert's public release


@options
class ModelConfig:
    """The Stable Diffusion pipeline: from a folder or hub id, or from scratch."""

    pretrained: str = ""  # hub id or local folder; empty = from scratch at the sizes below
    revision: str = ""  # commit of the hub id; required with a hub id, never guessed
    image_size: Count = 64  # pixels, square; the paper uses 512
    vae_channels: Several[Count] = (24, 48, 64)  # a level each; halves size between levels
    latent_channels: Count = 4  # as Stable Diffusion
    unet_channels: Several[Count] = (64, 96, 128)  # a level each
    unet_attention: Several[bool] = (False, True, True)  # cross-attention at that level
    text_width: Count = 64  # features of a token; 1,024 in SD 2.1
    text_layers: Count = 2  # 23 in SD 2.1
    prediction_type: Literal["v_prediction", "epsilon"] = "v_prediction"  # SD 2.1; SD 2.1-base
    vae_perceptual: NotNegative = 0.5  # of the distance in lite0's first stages, beside L1's 1

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.unet_channels) != len(self.unet_attention):
            raise ValueError("unet_channels and unet_attention need the same length")
        return self


@options
class LoopConfig:
    """One optimisation run: VAE, base U-Net, fine-tuning or classifier."""

    steps: Count = 1000  # optimiser steps
    batch: Count = 32  # images per optimiser step, over all processes
    # images per forward pass of each process (not of all of them together); a process whose share
    # of the batch is smaller takes that; 0 = its whole share, no accumulation
    micro_batch: Whole = 0
    learning_rate: NotNegative = 1e-4  # peak
    warmup: Whole = 20  # steps of linear warm-up, then constant or cosine
    schedule: Literal["constant", "cosine"] = "constant"  # constant: as released
    weight_decay: NotNegative = 1e-2  # AdamW, as released
    clip_norm: Positive = 1.0  # maximum gradient norm, as released
    ema_decay: Decay = 0.999  # 0 = no average kept; the released code keeps 0.9999 over 100k steps
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint_every: Count = 200  # steps between resumable checkpoints
    log_every: Count = 10  # steps between rows of the history
    prompt_dropout: Share = 0.0  # fraction of prompts emptied; what guidance needs from scratch
    snr_gamma: NotNegative = 0.0  # min-SNR weights of timesteps' losses, 5 in their paper; 0 = none
    betas: Annotated[Several[Decay], Field(min_length=2, max_length=2)] = (0.9, 0.999)  # AdamW's
    # adamw8bit: bitsandbytes'; its two moments take 2 bytes a weight in place of 8
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"

    @model_validator(mode="after")
    def _whole_passes(self) -> Self:
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(
                f"micro_batch={self.micro_batch}: expected a divisor of batch={self.batch}"
            )
        return self


@options
class MachineConfig:
    """How networks lie on a machine: time and memory, and results but for their rounding.

    No folder's name depends on it, and a run may be continued with another choice.
    """

    gradient_checkpointing: bool = False  # activations are computed again in the backward pass
    average_on_cpu: bool = False  # the average of weights waits in main memory: 4 bytes a weight
    tf32: bool = True  # products of float32 with 10 bits of mantissa, on GPUs that have them
    channels_last: bool = False  # layout of convolutions' weights that tensor cores like
    compile: bool = False  # torch.compile: minutes before the first step, then fewer of them


@options
class MitigationConfig:
    """Fair Bayesian Perturbation as released, its named departures P1-P10, and rivals' numbers."""

    time_window: Count = 30  # steps between two fits of the optimiser, as released
    exploitation_rate: Share = 0.95  # sigma <- rate * sigma + (1 - rate) * U(0,1), as released
    ucb_beta: NotNegative = 0.1  # of the upper confidence bound, as released
    restarts: Count = 5  # of the acquisition optimiser, as released
    raw_samples: Count = 20  # initial points of it, as released
    sigma_initial: float = 1.0  # as released
    sigma_low: float = 0.0  # lower bound, as released
    sigma_high: float = 1.0  # upper bound, as released

    # P1. as_released: an attribute with an absent level adds a gap of 0, the best score there is.
    # corrected: it is left out, and the others stand for it.
    missing_group: Switch = "as_released"
    # P3. as_released: weights may be negative. corrected: w >= 0, rescaled so that E[w] = 1 again
    # (a bare clamp has E[w] > 1 and so reweights by sigma).
    clamp: Switch = "as_released"
    # P4. as_released: sigma drifts towards uniform noise after each step, so that a window's choice
    # keeps half its weight on average. corrected: it stays as chosen.
    drift: Switch = "as_released"
    # P9. as_released: the window's count restarts each epoch. corrected: over the whole run. The
    # default departs: the released epochs are longer than the window, ours are not.
    window_count: Switch = "corrected"

    # P2. noise (as released): E[w] = 1 for every sigma, so the expected gradient reweights nothing.
    # mean (corrected): sigma is a multiplier per level, mean 1 over the training split.
    reweighting: Literal["noise", "mean"] = "noise"
    # P2, mean: a level's multiplier lies in [1 / range, range]
    mean_range: Annotated[float, Field(gt=1)] = 2.0
    # P5. corrected: one optimiser, the same sigma on every process. as_released: each process runs
    # its own. The default departs: a run must not depend on how many processes share its batch.
    ranks: Switch = "corrected"
    # P6 and P8. batch_gap (as released): the gap of the forward pass whose weights sigma sets, at
    # random timesteps. running_bins: running group means at fixed timestep bins, when the window
    # ends. held_out (corrected): the gap on validation rows at fixed timesteps and noise, when the
    # window ends: sigma is scored by what it did.
    objective: Literal["batch_gap", "running_bins", "held_out"] = "batch_gap"
    timestep_bins: Count = 10  # running_bins: equal parts of the noise schedule
    held_out_rows: Count = 96  # held_out: validation rows, rare levels first
    held_out_timesteps: Several[Whole] = (100, 300, 500, 700, 900)  # held_out
    # inferred (as released): the Gaussian process fits its noise. known: fixed to half the mean
    # square of successive differences of the scores, since 30 points in 7 dimensions can pass for
    # noise or for signal.
    noise_model: Literal["inferred", "known"] = "inferred"
    # window (as released): what a window showed is forgotten after it. all: kept.
    history: Literal["window", "all"] = "window"
    # one score per window: space-filling choices before the first fit
    initial_points: Count = 5

    dro_rate: Positive = 0.01  # GroupDRO's step on the log weights, as Sagawa et al. 2020
    fis_weight: Share = 0.5  # FIS' c: 0 = by sample, 1 = by group; as released
    fis_temperature: Positive = 1.0  # FIS' T, as released
    febs_gamma: Positive = 1.0  # FEBS' exponent, as released
    sampling_floor: Share = 0.5  # adaptive sampling: share that stays as in the data
    adapter_rate: Positive = 10.0  # x the learning rate, where the U-Net's own weights rest
    lora_rank: Count = 4  # r of FairLoRA
    lora_alpha: float = 8.0  # numerator of FairLoRA's scale alpha / r
    lora_own: Share = 0.7  # share of a level's own scales, as FairFedMed
    auxiliary_weight: NotNegative = 0.1  # of the heads on demographic tokens

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.sigma_low, self.sigma_high
        if not low < high:
            raise ValueError(f"sigma_low={low} must be below sigma_high={high}")
        if not low <= self.sigma_initial <= high:
            raise ValueError(
                f"sigma_initial={self.sigma_initial}: expected a value from "
                f"sigma_low={low} to sigma_high={high}"
            )
        if self.objective != "batch_gap" and self.history == "window":
            raise ValueError(
                f"objective={self.objective} gives one score per window, and history=window "
                "forgets it; expected history=all"
            )
        return self


@options
class GenerationConfig:
    """Sampling from a pipeline."""

    steps: Count = 10  # denoising steps; released: 75 with the model's default scheduler
    guidance: NotNegative = 2.0  # classifier-free guidance; released: 7.5 for SD 2.1
    scheduler: Literal["dpmsolver++", "ddim", "ddpm"] = "dpmsolver++"
    batch: Count = 128  # images per pass; does not change an image
    seed: Whole = 0  # of the initial noise, combined with the row's name
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"  # of the network's passes
    # P7. raw (as released): the U-Net as the last step left it. The default departs: an average
    # is kept to be used, and a short run's last step is noisy.
    weights: Literal["ema", "raw"] = "ema"


@options
class ClassifierConfig:
    """A multi-task classifier: an architecture by name, its sizes, and how it is trained.

    The residual network also is the reader of findings; EfficientNet and ViT are built from the
    configurations of transformers. A field that an architecture has no use for is left alone.
    """

    # residual: a stage each, halving the size
    channels: Annotated[Several[Count], Field(min_length=1)] = (16, 32, 64)
    feature_width: Count = 64  # residual: penultimate features
    loop: LoopConfig = Field(
        default_factory=lambda: LoopConfig(
            steps=400, batch=64, learning_rate=2e-3, schedule="cosine", ema_decay=0.0
        )
    )
    evaluate_every: Count = 50  # steps between two looks at the validation images

    architecture: Architecture = "residual"
    pretrained: str = ""  # hub id or folder of a transformers model; empty = from scratch
    revision: str = ""  # commit of the hub id; required with a hub id, never guessed
    input_size: Count = 64  # pixels that images are brought to; residual: as they come
    patch: Count = 8  # vit: pixels of a patch's side
    width: Count = 96  # vit: features of a token
    layers: Count = 4  # vit
    heads: Count = 4  # vit: of attention
    width_coefficient: Positive = 0.5  # efficientnet: x the channels of B0
    depth_coefficient: Positive = 0.5  # efficientnet: x the blocks of B0
    drop_path: Decay = 0.0  # chance that the last residual branch is left out for a sample
    layer_decay: Kept = 1.0  # vit: x the learning rate for each layer further from the head
    epochs: Whole = 0  # passes over the training images; 0 = loop.steps decides
    # E4. test_as_released: the step with the best mean AUC on the test images is kept.
    selection: Literal["validation", "test_as_released"] = "validation"
    # E6. mismatched_as_released: generated images are turned by -90 degrees, real ones squashed to
    # a square and stretched to the full range of grey.
    preparation: Literal["matched", "mismatched_as_released"] = "matched"

    @model_validator(mode="after")
    def _fits_its_architecture(self) -> Self:
        if self.loop.ema_decay:
            raise ValueError(
                f"loop.ema_decay={self.loop.ema_decay}: expected 0; validation selects a "
                "classifier's step, and no average is kept"
            )
        if self.architecture != "vit" and self.layer_decay != 1:
            raise ValueError(f"layer_decay={self.layer_decay}: expected 1; only a vit has layers")
        if self.architecture in ("residual", "lite0") and (self.drop_path or self.pretrained):
            start = "from scratch" if self.architecture == "residual" else "from its own weights"
            raise ValueError(
                f"drop_path={self.drop_path}, pretrained={self.pretrained!r}: expected 0 and none; "
                f"a {self.architecture} network is trained {start}, without them"
            )
        if self.architecture == "vit" and not self.pretrained:
            for name, part in (("input_size", "patch"), ("width", "heads")):
                if getattr(self, name) % getattr(self, part):
                    raise ValueError(
                        f"{name}={getattr(self, name)}: expected a multiple of "
                        f"{part}={getattr(self, part)}"
                    )
        return self

    @property
    def name(self) -> str:
        """What tables call this configuration; no field, so that no digest depends on it."""
        faults = [x for x in (self.selection, self.preparation) if x.endswith("as_released")]
        return ", ".join([self._own_name, *faults])

    @property
    def _own_name(self) -> str:
        if self.architecture == "residual":
            return "residual"
        if self.architecture == "lite0":
            return f"lite0-{self.input_size}px from ImageNet"
        if self.pretrained:
            return f"{self.architecture} from {Path(self.pretrained).name}"
        if self.architecture == "vit":
            return f"vit-{self.layers}x{self.width}-p{self.patch} from scratch"
        w, d = self.width_coefficient, self.depth_coefficient
        return f"efficientnet-w{w:g}-d{d:g} from scratch"


def _efficientnet() -> ClassifierConfig:
    """EfficientNet from scratch: under a minute on one core for a thousand images at 64 px."""
    loop = LoopConfig(steps=200, batch=64, learning_rate=4e-3, schedule="cosine", ema_decay=0.0)
    return ClassifierConfig(
        loop=loop, evaluate_every=40, architecture="efficientnet",
        width_coefficient=0.25, depth_coefficient=0.3,
    )  # fmt: skip


def _vit() -> ClassifierConfig:
    """ViT from scratch, as quick; eight-pixel patches, as a cup is hardly wider."""
    loop = LoopConfig(
        steps=300, batch=64, learning_rate=1.5e-3, warmup=30, schedule="cosine", ema_decay=0.0
    )
    return ClassifierConfig(loop=loop, architecture="vit", width=64, layers=3)


def _lite0() -> ClassifierConfig:
    """EfficientNet-lite0 from its ImageNet weights, all of it fine-tuned: minutes of one core."""
    loop = LoopConfig(steps=120, batch=32, learning_rate=5e-4, schedule="cosine", ema_decay=0.0)
    return ClassifierConfig(loop=loop, evaluate_every=40, architecture="lite0", input_size=96)


@options
class AuditConfig:
    """Metrics, intervals and gates."""

    # the feature space of every distance between images: "lite0" (frozen: EfficientNet-lite0), a
    # transformers hub id or folder, "texture", "random", "encoder" (the reader's, trained here)
    features: str = "lite0"
    features_revision: str = ""  # commit of that hub id
    sensitivity: str = "lite0-penultimate"  # a second feature space; named as above, or empty
    sensitivity_revision: str = ""  # commit of that hub id
    loss_timesteps: Several[Whole] = (200, 500, 800)  # of 1,000; empty = no denoising loss
    confidence: Inner = 0.95  # of every interval
    bootstrap: Count = 400  # replicates for metrics without a closed form
    secondary_below: Whole = 80  # subjects; smaller levels are shown, not tested as primary
    smallest_blur: Positive = 0.1  # pixels of equivalent blur: the smallest difference of interest
    smallest_auc: Positive = 0.02  # the same of an AUC
    expected_blur: Positive = (
        0.7  # pixels: equivalent blur of a generator, for the power beforehand
    )
    gate_vae_r2: float = 0.6  # least R^2 of the cup-disc ratio on VAE reconstructions
    gate_prompt_auc: Share = 0.8  # least AUC, normal against abnormal cup-disc prompts

    @property
    def sizes(self) -> dict[str, Any]:
        """What every audit by group is told."""
        return {"confidence": self.confidence, "secondary_below": self.secondary_below}


@options
class ProofConfig:
    """Simulated audits of known truth, which the audit itself is judged by.

    Fixed before the proof is run. Sizes are FairGenMed's: its sister test set has 36, 78 and 132
    subjects in its smaller groups. Limits are computed from the number of audits: of 500, a cell
    may err in about 9% where 5% are promised. At these sizes the proof costs about 13 minutes of
    one core, most of it in proportion to the audits; 4,000, an hour and a half, bring limits of 6%.
    """

    layers: Several[str] = ("F", "I")  # and T, which trains a generator
    simulations: Count = 500  # audits per cell
    dear_simulations: Count = 500  # of several runs, and of families with their Monte Carlo
    power_simulations: Count = 500  # audits per cell with a planted disparity
    naive_simulations: Count = 100  # audits per cell of a naive test, which costs more
    sizes: Several[Count] = (36, 132)  # subjects of the smaller group
    naive_sizes: Several[Count] = (36, 132)  # of them, those that dearer procedures are shown at
    family_sizes: Several[Count] = (78, 132)  # subjects of the two smaller of three levels
    reference: Count = 300  # subjects of the largest group
    width: Count = 64  # features
    kid: Positive = 0.04  # of every group of features under a null
    image_kid: Positive = 0.02  # of both groups of images: the worst loss of spread costs 0.0375
    ratios: Several[Positive] = (1.1, 1.25, 1.5, 2.0, 3.0)  # planted KID ratios
    smallest: Positive = 0.5  # x that KID: the smallest difference that matters to a verdict
    pixels: Positive = 1.7  # planted equivalent blur, between two widths of its curve
    pairing: Share = 0.5  # correlation of an image with the one generated for its prompt
    alike: Share = 0.5  # correlation of a subject's images, where it has several
    runs: Count = 5  # complete runs, where there are several
    run_spread: Share = 0.3  # standard deviation between them, x the KID
    permutations: Count = 99  # of a naive permutation test
    replicates: Count = 50  # of the released t-test; its alarms grow with them
    bootstrap: Count = 200  # replicates of the naive KID bootstrap
    pool: Count = 1500  # images of a group's law, in the layers with images
    seed: Whole = 20250618  # of everything


@options
class AblationConfig:
    """Arms of the ablation study, and how often each is trained: fixed before any is measured."""

    seeds: Several[Whole] = (0, 1, 2, 3, 4, 5, 6, 7)  # of the core arms, which are tested
    other_seeds: Several[Whole] = (0, 1, 2)  # of the others, which are described
    roles: Several[str] = ("core", "control", "rival", "window", "option")
    also: Several[str] = ()  # arms of other roles that are made besides, by name
    windows: Several[Count] = (10, 60)  # steps: T12's cells beside the released 30
    rates: Several[Share] = (0.8, 1.0)  # of the drift: T12's cells beside the released 0.95
    scored_window: Count = 10  # steps, where a window is one score: 24 of them in 240 steps
    held_out_rows: Count = 48  # validation rows behind such a score, rare levels first
    held_out_timesteps: Several[Whole] = (200, 500, 800)  # of 1,000
    large_step_seconds: Positive = 1.0  # assumed, not measured: a step of SD 2.1, 32 images, 512 px


@options
class MatrixConfig:
    """The downstream matrix: what real, generated and mixed training images make of a classifier.

    Every run has the same number of optimiser steps, whatever it is trained on.
    """

    classifier: Architecture = "efficientnet"
    method: str = "none"  # whose images are used; one of the study's methods
    shares: Distinct[Kept] = (0.1, 0.3, 1.0)  # of the real training subjects; with 1
    seeds: Distinct[Whole] = (0, 1, 2)  # of the classifier and of the draw of subjects
    balance: str = ""  # attribute whose levels balanced images have equally often; empty = the
    # one whose largest training level outnumbers its smallest the most

    @model_validator(mode="after")
    def _whole_set_too(self) -> Self:
        if 1.0 not in self.shares:
            raise ValueError(
                f"shares={','.join(map(str, self.shares))}: expected 1 among them, which all "
                "others are compared with"
            )
        return self


@options
class PrivacyConfig:
    """Are training images memorised? Nearest real image, and membership inference."""

    draws: Count = 20  # of as many training as held-out subjects, averaged
    # of membership inference, where its true positives are read
    false_positives: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    seed: Whole = 0  # of the draws and of the bootstrap


@options
class SweepConfig:
    """Guidance x sampler steps, from the same prompts and the same initial noise in every cell.

    The study's own generation must be one of the cells: the others are compared with it.
    """

    guidances: Distinct[Factor] = (1.0, 2.0, 4.0)  # classifier-free guidance scales; 1 = none
    steps: Distinct[Count] = (5, 10, 20)  # denoising steps
    # test prompts, levels taking turns so that rare ones are all there
    images: Annotated[int, Field(ge=10)] = 240
    method: str = "none"  # whose first seed's model is sampled; one of the study's methods


def _short() -> LoopConfig:
    """A fine-tuning of 15 seconds on one core, in which a U-Net learns which camera is which."""
    return LoopConfig(steps=60, batch=16, learning_rate=1e-3, ema_decay=0.9, mixed_precision="bf16")


@options
class PlantedConfig:
    """Generators with a planted fidelity gap and without: how often does the audit say so?

    Fixed before they are run. 20 runs of each take about 25 minutes of one core.
    """

    runs: Count = 20  # with the plant, and as many without
    first: Whole = 1000  # seed of the first run's patients and training; the next counts on
    patients: Kept = 0.15  # of as many as the study has
    plant: PlantConfig = Field(
        default_factory=lambda: PlantConfig("camera", kept=0.5, mislabelled=0.25, height=24)
    )
    training: LoopConfig = Field(default_factory=_short)


@options
class CounterfactualConfig:
    """The same noise and conditions, and one group's word of the prompt changed."""

    # test prompts of every run, levels taking turns so that rare ones are all there
    images: Annotated[int, Field(ge=10)] = 240


@options
class StressConfig:
    """How the audit bears group labels that are wrong: fixed before any of it is run."""

    shares: Distinct[Inner] = (0.05, 0.1, 0.2)  # of the labels
    simulations: Count = 500  # audits of features per cell: an interval of 4 points about 5%
    draws: Count = 100  # the same of real images against blurred copies
    sizes: Annotated[Several[Count], Field(min_length=2, max_length=2)] = (132, 300)  # subjects
    ratio: Factor = 1.5  # planted between the groups' KIDs, in features
    # pixels: blur of everybody's real images, and how much more of one group's
    blur: Positive = 0.7
    planted: Positive = 0.2
    seed: Whole = 0


@options
class RetrainingConfig:
    """Generations of a model, each trained on images of the one before."""

    generations: Count = 3
    share: Share = 0.5  # of the training subjects whose images are the last generation's


@options
class Settings:
    """Everything that a study depends on."""

    preset: str
    dataset: str
    seeds: Distinct[Whole] = (0,)
    methods: Distinct[str] = ("none", "fairdiffusion")
    # each seed trains a base of its own, so that a run is complete (base, fine-tuning, sampling);
    # the autoencoder is that of seed 0. Else the seeds are fine-tunings of one base
    base_per_seed: bool = False
    simulator: Population | None = None  # of the dataset's own family; None for real images
    model: ModelConfig = Field(default_factory=ModelConfig)
    vae: LoopConfig = Field(default_factory=LoopConfig)
    base: LoopConfig = Field(default_factory=LoopConfig)
    training: LoopConfig = Field(default_factory=LoopConfig)
    machine: MachineConfig = Field(default_factory=MachineConfig)
    mitigation: MitigationConfig = Field(default_factory=MitigationConfig)
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    reader: ClassifierConfig = Field(default_factory=ClassifierConfig)  # of findings in images
    classifiers: Distinct[Architecture] = ("efficientnet", "vit")  # downstream, of the next four
    residual: ClassifierConfig = Field(default_factory=ClassifierConfig)
    efficientnet: ClassifierConfig = Field(default_factory=_efficientnet)
    vit: ClassifierConfig = Field(default_factory=_vit)
    lite0: ClassifierConfig = Field(default_factory=_lite0)
    audit: AuditConfig = Field(default_factory=AuditConfig)
    proof: ProofConfig = Field(default_factory=ProofConfig)
    ablation: AblationConfig = Field(default_factory=AblationConfig)
    matrix: MatrixConfig = Field(default_factory=MatrixConfig)
    reading: ReadingConfig = Field(default_factory=ReadingConfig)
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig)
    sweep: SweepConfig = Field(default_factory=SweepConfig)
    counterfactual: CounterfactualConfig = Field(default_factory=CounterfactualConfig)
    stress: StressConfig = Field(default_factory=StressConfig)
    retraining: RetrainingConfig = Field(default_factory=RetrainingConfig)
    planted: PlantedConfig = Field(default_factory=PlantedConfig)

    @model_validator(mode="after")
    def _architectures_in_place(self) -> Self:
        for name, wanted in (("reader", "residual"), *((name, name) for name in CLASSIFIERS)):
            found = getattr(self, name).architecture
            if found != wanted:
                raise ValueError(f"{name}.architecture={found}: expected {wanted}")
        return self

    @model_validator(mode="after")
    def _bases_are_trained(self) -> Self:
        if self.base_per_seed and self.model.pretrained:
            raise ValueError(
                f"base_per_seed=true: model.pretrained={self.model.pretrained} is one base that "
                "all seeds share; expected model.pretrained empty, so that bases are trained"
            )
        return self

    @property
    def bases(self) -> tuple[int, ...]:
        """Seeds of the bases: 0 alone, whose autoencoder all share, or with those of the runs."""
        return tuple(dict.fromkeys((0, *self.seeds))) if self.base_per_seed else (0,)

    @property
    def simulated(self) -> bool:
        """Whether the patients are drawn by a simulator."""
        return self.simulator is not None

    @property
    def model_words(self) -> str:
        """The generator's kind and size, in words."""
        own, name = self.model, Path(self.model.pretrained).name
        if not name:
            return f"a small model trained from scratch at {own.image_size} px"
        shipped = name == self.dataset  # our own bases carry their data set's name
        return f"{'a small shipped base' if shipped else name} at {own.image_size} px"

    @property
    def runs(self) -> list[tuple[str, int]]:
        return [(method, seed) for method in self.methods for seed in self.seeds]

    @property
    def fits(self) -> list[tuple[str, int, str]]:
        """Every (source, seed, classifier): classifiers in turn, real images before methods'."""
        sources = [(REAL, seed) for seed in self.seeds] + self.runs
        return [(*one, name) for name in self.classifiers for one in sources]

    def classifier(self, name: str) -> ClassifierConfig:
        """Settings of a downstream classifier, one of :data:`CLASSIFIERS`."""
        if name not in CLASSIFIERS:
            raise InputError(f"unknown classifier {name!r}; known: {', '.join(CLASSIFIERS)}")
        config: ClassifierConfig = getattr(self, name)
        return config

    @cached_property
    def _plain(self) -> dict[str, Any]:
        """``as_dict``, once: a graph asks for thousands of digests. To be read, not changed."""
        return as_dict(self)

    def digest(self, *sections: str) -> str:
        """First 10 hex digits of the SHA-256 of the named fields (of all without a name)."""
        values = self._plain
        chosen = {name: values[name] for name in sections} if sections else values
        text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def changed(self, *tables: Mapping[str, Any]) -> Settings:
        """A copy with values of these tables, as ``{"training.steps": "20"}``; the later wins."""
        values = as_dict(self)
        for table in tables:
            merge(values, table)
        return build(values, type(self.simulator) if self.simulator else None)


def as_dict(settings: Any) -> dict[str, Any]:
    """Plain JSON-ready form of a group of settings (tuples become lists)."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return values


def parse_overrides(text: str) -> dict[str, str]:
    """Read ``"training.steps=20 seeds=0,1"`` into a table of overrides."""
    pairs: dict[str, str] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"override {part!r}: expected name=value, as training.steps=20")
        pairs[name] = value
    return pairs


def merge(values: dict[str, Any], table: Mapping[str, Any]) -> None:
    """Put a table of values, nested or by dotted names, over nested values."""
    for name, value in table.items():
        head, _, rest = name.partition(".")
        if rest or isinstance(value, Mapping):
            if not isinstance(values.get(head), dict):
                if head in values:
                    raise InputError(
                        f"setting {head!r} is a single value; it has no field "
                        f"{rest or next(iter(value), '')!r}"
                    )
                values[head] = {}
            merge(values[head], {rest: value} if rest else value)
        else:
            values[head] = value


def build(values: Mapping[str, Any], simulator: type[Population] | None = None) -> Settings:
    """Settings from nested values, checked once; ``simulator`` is the class of that group."""
    try:
        own = values.get("simulator")
        if simulator is not None:
            try:
                own = TypeAdapter(simulator).validate_python(own)
            except ValidationError as error:
                raise explained(error, simulator, "simulator.") from None
        made: Settings = TypeAdapter(Settings).validate_python({**values, "simulator": own})
    except ValidationError as error:
        raise explained(error, Settings) from None
    return made


# -- errors in one line ----------------------------------------------------------------------

_WANTED = {  # by pydantic's name of the error
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "a value above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "a value below {lt:g}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "finite_number": "a finite number",
}


def explained(error: ValidationError, root: type, within: str = "") -> InputError:
    """What pydantic found first, in one line: the dotted field, what was given, what was expected.

    ``root`` is the group that was checked; ``within`` begins every name, as ``"simulator."``.
    """
    found = error.errors()[0]
    names = [f.name for f in dataclasses.fields(root)]
    place = [names[part] if k == 0 and isinstance(part, int) else part
             for k, part in enumerate(found["loc"])]  # fmt: skip
    path = [part for part in place if isinstance(part, str)]
    name, kind, given = within + ".".join(path), found["type"], found["input"]
    if kind == "value_error":  # our own words, which begin with the field or with "=value"
        text = str(found["ctx"]["error"])
        dot = "." if path and not text.startswith("=") else ""
        return InputError(f"{name}{dot}{text}" if path else f"{within}{text}")
    if kind == "unexpected_keyword_argument":
        known = ", ".join(sorted(_fields_at(root, path[:-1])))
        return InputError(f"unknown setting {name!r}; known: {known}")
    if kind in ("dataclass_type", "dataclass_exact_type"):
        known = ", ".join(sorted(_fields_at(root, path)))
        return InputError(f"setting {name!r} is a group; name one of its fields: {known}")
    if kind == "literal_error":
        known = ", ".join(sorted(re.findall("'([^']*)'", found["ctx"]["expected"])))
        return InputError(f"unknown {name} {given!r}; known: {known}")
    wanted = _WANTED.get(kind, found["msg"].removeprefix("Input should be "))
    said = wanted.format(**found.get("ctx", {}))
    shown = ",".join(map(str, given)) if isinstance(given, (list, tuple)) else given
    return InputError(f"{name}={shown}: expected {said}")


def _fields_at(root: type, path: list[str]) -> list[str]:
    """Names of the fields of the group at a dotted place."""
    kind: Any = root
    for name in path:
        kind = typing.get_type_hints(kind).get(name)
        kind = next((k for k in typing.get_args(kind) if k is not type(None)), kind)
    return [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
