"""Every training method by name: what it chooses, how it is shown, what it is compared with.

Plain data, no network. The class that carries a method out registers itself in room ``methods``.
Two methods may share a class and differ by their options, and a run's folder depends on nothing
that the run does not use, so methods stand side by side in one study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.options import MitigationConfig, Settings

AS_RELEASED, CORRECTED = "as_released", "corrected"
BASELINE, FAIR = "none", "fairdiffusion"
NEUTRAL = "#777777"  # colour of a method that names none
Role = Literal["core", "control", "rival", "option"]


@dataclass(frozen=True)
class Method:
    uses: tuple[str, ...] = ()  # fields of MitigationConfig that it reads; others as by default
    options: Mapping[str, Any] = field(default_factory=dict)  # fields that it fixes
    sources: tuple[str, ...] = ()  # methods whose finished runs it reads, so that it uses theirs
    other_seed: bool = False  # it reads the source's run of the next seed, not of its own
    label: str = ""  # how tables and figures show it; else its own name
    colour: str = NEUTRAL
    marker: str = "o"
    # in the ablation. Core: tested, with all seeds; others are described. Control: the method with
    # a part taken away. Rival: another way to the same end. Option: one departure.
    role: Role = "rival"
    against: tuple[str, ...] = (BASELINE,)  # whom the ablation compares it with, paired by seed
    scored_windows: bool = False  # a window is one score: the ablation gives it more, shorter ones


PERTURBATION = (
    "time_window", "exploitation_rate", "ucb_beta", "restarts", "raw_samples",
    "sigma_initial", "sigma_low", "sigma_high", "missing_group", "clamp", "drift", "window_count",
    "reweighting", "mean_range", "ranks", "objective", "timestep_bins", "held_out_rows",
    "held_out_timesteps", "noise_model", "history", "initial_points",
)  # fmt: skip
P_AS_RELEASED: Mapping[str, Any] = MappingProxyType(
    dict.fromkeys(("missing_group", "clamp", "drift", "window_count", "ranks"), AS_RELEASED)
    | {"reweighting": "noise", "objective": "batch_gap"}
    | {"noise_model": "inferred", "history": "window"}
)
P_CORRECTED: Mapping[str, Any] = MappingProxyType(
    dict.fromkeys(("missing_group", "clamp", "drift", "window_count", "ranks"), CORRECTED)
    | {"reweighting": "mean", "objective": "held_out", "noise_model": "known", "history": "all"}
    | {"ucb_beta": 1.0}  # the released 0.1 hardly explores: it repeats its first good guess
)
_BOTH = (BASELINE, FAIR)

# relatives share a hue and differ by marker; colour-blind safe, after Okabe and Ito
METHODS: dict[str, Method] = {
    # core: what the ablation tests
    "none": Method(
        label="Stable Diffusion", colour="#0072b2", marker="o", role="core", against=(),
    ),
    "fairdiffusion": Method(
        uses=PERTURBATION,
        label="FairDiffusion", colour="#d55e00", marker="D",
        role="core", against=(BASELINE, "random_sigma", "shuffled_y"),
    ),
    "random_sigma": Method(
        uses=("time_window", "clamp"), sources=(FAIR,),
        label="random sigma, dose-matched", colour="#00664a", marker="<", role="core",
    ),
    "shuffled_y": Method(
        uses=PERTURBATION,
        label="shuffled scores", colour="#8c8c8c", marker="X", role="core",
    ),
    "fairdiffusion_corrected": Method(
        uses=PERTURBATION, options=P_CORRECTED,
        label="FairDiffusion, corrected", colour="#cc79a7", marker="P",
        role="core", against=(BASELINE, "shuffled_y_corrected", FAIR), scored_windows=True,
    ),
    "shuffled_y_corrected": Method(
        uses=PERTURBATION, options=P_CORRECTED,
        label="corrected, shuffled scores", colour="#5f5f5f", marker="X",
        role="core", scored_windows=True,
    ),
    # controls: what is left when the Bayesian part is taken away
    "none_matched_lr": Method(
        sources=_BOTH,
        label="matched learning rate", colour="#5b9bc8", marker="o", role="control", against=_BOTH,
    ),
    "group_blind_noise": Method(
        sources=(FAIR,),
        label="group-blind noise", colour="#7cc9ae", marker="^", role="control", against=_BOTH,
    ),
    "constant_sigma": Method(
        uses=("clamp",), sources=(FAIR,),
        label="constant sigma, same dose", colour="#2f6b58", marker="v", role="control",
        against=_BOTH,
    ),
    "random": Method(
        uses=("clamp",),
        label="random perturbation", colour="#009e73", marker="^", role="control", against=_BOTH,
    ),
    "replay": Method(
        uses=("clamp",), sources=(FAIR,), other_seed=True,
        label="replayed sigmas", colour="#b3b3b3", marker=">", role="control", against=_BOTH,
    ),
    # rivals: other ways to the same end
    "inverse_frequency": Method(
        label="inverse frequency", colour="#e69f00", marker="s"
    ),
    "group_balanced": Method(
        label="group-balanced sampling", colour="#b37b00", marker="s"
    ),
    "group_dro": Method(
        uses=("dro_rate",), label="GroupDRO", colour="#f0c75e", marker="v"
    ),
    "fis": Method(
        uses=("fis_weight", "fis_temperature"),
        label="FIS", colour="#c9b800", marker="h",
    ),
    "febs": Method(
        uses=("febs_gamma", "time_window"),
        label="FEBS", colour="#8f8300", marker="h",
    ),
    "adaptive_sampling": Method(
        uses=("time_window", "timestep_bins", "sampling_floor"),
        label="adaptive sampling", colour="#805800", marker="d",
    ),
    "demographic_tokens": Method(
        uses=("auxiliary_weight",),
        label="demographic tokens", colour="#6a51a3", marker="*",
    ),
    "fair_lora": Method(
        uses=("adapter_rate", "lora_rank", "lora_alpha", "lora_own"),
        label="FairLoRA", colour="#9e8cc9", marker="*",
    ),
    # departures
    "fairdiffusion_as_released": Method(
        uses=PERTURBATION, options=P_AS_RELEASED,
        label="FairDiffusion, all as released", colour="#a04600", marker="D",
        role="option", against=_BOTH,
    ),
    # every correction but P2: E[w] = 1 still
    "fairdiffusion_noise": Method(
        uses=PERTURBATION, options={**P_CORRECTED, "reweighting": "noise"},
        label="corrected, but noise only", colour="#a35f87", marker="p",
        role="option", against=_BOTH, scored_windows=True,
    ),
}  # fmt: skip


def fields_of(method: str) -> tuple[str, ...]:
    """Fields of :class:`MitigationConfig` that a method depends on, its sources' included."""
    entry = METHODS[method]
    names = [*entry.uses, *(name for source in entry.sources for name in METHODS[source].uses)]
    return tuple(dict.fromkeys(names))


def config_of(method: str, config: MitigationConfig) -> MitigationConfig:
    """The configuration as a method sees it: its own options, the rest at their defaults."""
    chosen = {name: getattr(config, name) for name in fields_of(method)}
    return MitigationConfig(**chosen | dict(METHODS[method].options))


def source_runs(method: str, seed: int, seeds: tuple[int, ...]) -> list[tuple[str, int]]:
    """(method, seed) of the runs that must be finished before a run of this method starts.

    A method that replays another seed's path takes the next one in ``seeds``, after the last
    the first; with one seed there is none, and the list is empty.
    """
    entry = METHODS[method]
    if entry.other_seed:
        others = [other for other in seeds if other != seed]
        later_ones = [other for other in others if other > seed]
        return [(source, min(later_ones or others)) for source in entry.sources if others]
    return [(source, seed) for source in entry.sources]


def check_methods(settings: Settings) -> None:
    """Refuse methods that do not exist, or that these settings leave nothing to do."""
    for kind in ("matrix", "sweep"):
        refuse_unknown(f"{kind}.method", getattr(settings, kind).method, METHODS)
    for method in settings.methods:
        refuse_unknown("method", method, METHODS)
        _check_method(method, settings)


def _check_method(method: str, settings: Settings) -> None:
    try:
        own = config_of(method, settings.mitigation)
    except InputError as error:
        raise InputError(f"method {method}: mitigation.{error}") from None
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
