"""What a claim's endpoint showed: a number with its interval, and what it decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fairdiff_lib.audit.seeds import t_interval
from fairdiff_lib.studies.verdict.protocol import Protocol

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"

MAIN, ABLATION = "main", "ablation"  # studies that a verdict rests on
POWER = 0.8  # with which the minimum detectable effect would be found
_NAN = float("nan")


@dataclass(frozen=True)
class Effect:
    """The number that a verdict rests on; NaN and None where there is none.

    Attributes
    ----------
    endpoint, unit : str
        What was measured, and in what.
    value, low, high : float
        With its interval at the protocol's confidence.
    smallest_effect : float
        Smallest effect of interest, declared beforehand.
    mde : float
        Minimum detectable effect, with 80% power.
    n : int or None
        Test subjects that it rests on.
    seeds : int or None
        Training seeds that it rests on.
    """

    endpoint: str = ""
    unit: str = ""
    value: float = _NAN
    low: float = _NAN
    high: float = _NAN
    smallest_effect: float = _NAN
    mde: float = _NAN
    n: int | None = None
    seeds: int | None = None

    @property
    def row(self) -> dict[str, Any]:
        """Its fields, as columns of T14."""
        return asdict(self)


@dataclass(frozen=True)
class Finding:
    """What a claim's endpoint showed, before the claims are corrected for each other.

    Attributes
    ----------
    p : float
        Of the primary endpoint; NaN where it has no test.
    if_clear, otherwise : str
        The verdict if p survives Holm's correction, and if it doesn't.
    reason : str
    effect : Effect
    """

    p: float
    if_clear: str
    otherwise: str
    reason: str
    effect: Effect = field(default_factory=Effect)

    @classmethod
    def fixed(cls, verdict: str, reason: str, effect: Effect | None = None) -> Finding:
        """A verdict that no p can change."""
        return cls(_NAN, verdict, verdict, reason, effect or Effect())


def few(seeds: Sequence[str], rule: Protocol, effect: Effect | None = None) -> Finding:
    """Too few seeds decide nothing; their mean is shown, no detectable size is read from them."""
    reason = (
        f"{len(seeds)} training seed(s) of both methods; "
        f"a comparison of methods needs at least {rule.least_seeds}"
    )
    shown = replace(effect or Effect(), mde=_NAN, seeds=len(seeds))
    return Finding.fixed(INCONCLUSIVE, reason, shown)


@dataclass(frozen=True)
class Change:
    """A paired change over seeds."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float  # with 80% power

    @classmethod
    def of(cls, values: ArrayLike, confidence: float) -> Change:
        """From one value per seed; a spread of zero has no p."""
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        mean, sd, low, high = t_interval(known, confidence)
        if not sd > 0:
            return cls(mean, low, high, _NAN, _NAN)
        error, df = sd / len(known) ** 0.5, len(known) - 1
        reach = stats.t.ppf((1 + confidence) / 2, df) + stats.t.ppf(POWER, df)
        p = float(2 * stats.t.sf(abs(mean) / error, df))
        return cls(mean, low, high, p, float(reach * error))

    def effect(self, endpoint: str, unit: str, n: int, seeds: int, smallest: float) -> Effect:
        """This change as the number of a verdict; the last as in :class:`Effect`."""
        numbers = (self.mean, self.low, self.high, smallest, self.detectable)
        return Effect(endpoint, unit, *numbers, n, seeds)

    def __str__(self) -> str:
        return (
            f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g}; detectable {self.detectable:.2g})"
        )


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's adjusted p (1979) of those that are numbers; NaN for the others."""
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(raw), np.nan)
    known = np.isfinite(raw)
    if known.any():
        adjusted[known] = multipletests(raw[known], method="holm")[1]
    return adjusted
