"""What a training method may choose, and every method by name: plain data, no network.

:class:`MitigationConfig` holds the released values of Fair Bayesian Perturbation, the named
departures P1-P10, and the rivals' own numbers. :data:`METHODS` says which class a method is made
of, which fields it reads and which it fixes, so that methods can stand side by side in one study
and a run's folder depends on nothing that the run does not use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

AS_RELEASED, CORRECTED = "as_released", "corrected"


def later(default: Any, *known: str) -> Any:
    """A field that came after runs were finished: at its default it leaves their digests alone."""
    return field(default=default, metadata={"later": True, "known": known})


def option(default: str, *known: str) -> Any:
    """A field with a few named values."""
    return field(default=default, metadata={"known": known})


@dataclass(frozen=True)
class MitigationConfig:
    """Fair Bayesian Perturbation: the released settings, and the named departures from them."""

    time_window: int = 30  # steps between two fits of the optimiser, as released
    exploitation_rate: float = 0.95  # sigma <- rate * sigma + (1 - rate) * U(0,1), as released
    ucb_beta: float = 0.1  # of the upper confidence bound, as released
    restarts: int = 5  # of the acquisition optimiser, as released
    raw_samples: int = 20  # initial points of it, as released
    sigma_initial: float = 1.0  # as released
    sigma_low: float = 0.0  # lower bound, as released
    sigma_high: float = 1.0  # upper bound, as released

    # P1. as_released: an attribute with an absent level adds a gap of 0, the best score there is.
    # corrected: it is left out, and the others stand for it.
    missing_group: str = option(AS_RELEASED, AS_RELEASED, CORRECTED)
    # P3. as_released: weights may be negative. corrected: w >= 0, rescaled so that E[w] = 1 again
    # (a bare clamp has E[w] > 1 and so reweights by sigma).
    clamp: str = option(AS_RELEASED, AS_RELEASED, CORRECTED)
    # P4. as_released: sigma drifts towards uniform noise after each step, so that a window's choice
    # keeps half its weight on average. corrected: it stays as chosen.
    drift: str = option(AS_RELEASED, AS_RELEASED, CORRECTED)
    # P9. as_released: the window's count restarts each epoch. corrected: over the whole run. The
    # default departs: the released epochs are longer than the window, ours are not.
    window_count: str = option(CORRECTED, AS_RELEASED, CORRECTED)

    # P2. noise (as released): E[w] = 1 for every sigma, so the expected gradient reweights nothing.
    # mean (corrected): sigma is a multiplier per level, mean 1 over the training split.
    reweighting: str = later("noise", "noise", "mean")
    mean_range: float = later(2.0)  # P2, mean: a level's multiplier lies in [1 / range, range]
    # P5. corrected: one optimiser, the same sigma on every process. as_released: each process runs
    # its own. The default departs: a run must not depend on how many processes share its batch.
    ranks: str = later(CORRECTED, AS_RELEASED, CORRECTED)
    # P6 and P8. batch_gap (as released): the gap of the forward pass whose weights sigma sets, at
    # random timesteps. running_bins: running group means at fixed timestep bins, when the window
    # ends. held_out (corrected): the gap on validation rows at fixed timesteps and noise, when the
    # window ends: sigma is scored by what it did.
    objective: str = later("batch_gap", "batch_gap", "running_bins", "held_out")
    timestep_bins: int = later(10)  # running_bins: equal parts of the noise schedule
    held_out_rows: int = later(96)  # held_out: validation rows, rare levels first
    held_out_timesteps: tuple[int, ...] = later((100, 300, 500, 700, 900))  # held_out
    # inferred (as released): the Gaussian process fits its noise. known: fixed to half the mean
    # square of successive differences of the scores, since 30 points in 7 dimensions can pass for
    # noise or for signal.
    noise_model: str = later("inferred", "inferred", "known")
    # window (as released): what a window showed is forgotten after it. all: kept.
    history: str = later("window", "window", "all")
    # one score per window: space-filling choices before the first fit
    initial_points: int = later(5)

    dro_rate: float = later(0.01)  # GroupDRO's step on the log weights, as Sagawa et al. 2020
    fis_weight: float = later(0.5)  # FIS' c: 0 = by sample, 1 = by group; as released
    fis_temperature: float = later(1.0)  # FIS' T, as released
    febs_gamma: float = later(1.0)  # FEBS' exponent, as released
    sampling_floor: float = later(0.5)  # adaptive sampling: share that stays as in the data
    adapter_rate: float = later(10.0)  # x the learning rate, where the U-Net's own weights rest
    lora_rank: int = later(4)  # r of FairLoRA
    lora_alpha: float = later(8.0)  # numerator of FairLoRA's scale alpha / r
    lora_own: float = later(0.7)  # share of a level's own scales, as FairFedMed
    auxiliary_weight: float = later(0.1)  # of the heads on demographic tokens


@dataclass(frozen=True)
class Method:
    """A method: the class that it is made of, and what distinguishes it from others of that class.

    Attributes
    ----------
    implementation : str
        ``module.Class`` within this library, a ``mitigation.Mitigation``.
    uses : tuple of str
        Fields of :class:`MitigationConfig` that it reads; it sees the others at their defaults.
    options : mapping
        Fields that it fixes, whatever the settings say.
    sources : tuple of str
        Methods whose finished runs it reads; its folder depends on what they depend on.
    other_seed : bool
        It reads the source's run of the next seed, not of its own.
    """

    implementation: str
    uses: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    other_seed: bool = False


def _perturbation_fields() -> tuple[str, ...]:
    names = [f.name for f in dataclasses.fields(MitigationConfig)]
    return tuple(names[: names.index("initial_points") + 1])


FAIR = _perturbation_fields()
P_AS_RELEASED: Mapping[str, Any] = MappingProxyType(
    {
        "missing_group": AS_RELEASED,
        "clamp": AS_RELEASED,
        "drift": AS_RELEASED,
        "window_count": AS_RELEASED,
        "reweighting": "noise",
        "ranks": AS_RELEASED,
        "objective": "batch_gap",
        "noise_model": "inferred",
        "history": "window",
    }
)
P_CORRECTED: Mapping[str, Any] = MappingProxyType(
    {
        "missing_group": CORRECTED,
        "clamp": CORRECTED,
        "drift": CORRECTED,
        "window_count": CORRECTED,
        "reweighting": "mean",
        "ranks": CORRECTED,
        "objective": "held_out",
        "noise_model": "known",
        "history": "all",
        "ucb_beta": 1.0,  # the released 0.1 hardly explores: it repeats its first good guess
    }
)
_FAIRDIFFUSION = "perturbation.FairBayesianPerturbation"
_SHUFFLED = "controls.ShuffledScores"

METHODS: dict[str, Method] = {
    "none": Method("base.Mitigation"),
    "random": Method("perturbation.RandomPerturbation", uses=("clamp",)),
    "fairdiffusion": Method(_FAIRDIFFUSION, uses=FAIR),
    "fairdiffusion_as_released": Method(_FAIRDIFFUSION, uses=FAIR, options=P_AS_RELEASED),
    "fairdiffusion_corrected": Method(_FAIRDIFFUSION, uses=FAIR, options=P_CORRECTED),
    # every correction but P2: E[w] = 1 still
    "fairdiffusion_noise": Method(
        _FAIRDIFFUSION, uses=FAIR, options={**P_CORRECTED, "reweighting": "noise"}
    ),
    # controls: what is left when the Bayesian part is taken away
    "none_matched_lr": Method("controls.MatchedLearningRate", sources=("none", "fairdiffusion")),
    "group_blind_noise": Method("controls.GroupBlindNoise", sources=("fairdiffusion",)),
    "random_sigma": Method(
        "controls.RandomSigma", uses=("time_window", "clamp"), sources=("fairdiffusion",)
    ),
    "shuffled_y": Method(_SHUFFLED, uses=FAIR),
    "shuffled_y_corrected": Method(_SHUFFLED, uses=FAIR, options=P_CORRECTED),
    "replay": Method(
        "controls.ReplayedSigma", uses=("clamp",), sources=("fairdiffusion",), other_seed=True
    ),
    # rivals
    "inverse_frequency": Method("rivals.InverseFrequency"),
    "group_balanced": Method("rivals.GroupBalanced"),
    "group_dro": Method("rivals.GroupDRO", uses=("dro_rate",)),
    "fis": Method("rivals.FairIdentityScaling", uses=("fis_weight", "fis_temperature")),
    "febs": Method("rivals.FairErrorBoundScaling", uses=("febs_gamma", "time_window")),
    "adaptive_sampling": Method(
        "rivals.AdaptiveSampling", uses=("time_window", "timestep_bins", "sampling_floor")
    ),
    "demographic_tokens": Method("rivals.DemographicTokens", uses=("auxiliary_weight",)),
    "fair_lora": Method(
        "rivals.FairLora", uses=("adapter_rate", "lora_rank", "lora_alpha", "lora_own")
    ),
}


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
