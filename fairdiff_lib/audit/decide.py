"""From an interval to one of four outcomes, and from a pilot to how many subjects it takes.

X is the smallest difference that matters, on the signed scale of the difference itself, fixed
before any image is seen. An outcome is read from where the interval lies against 0 and X; where it
decides nothing, the outcome says how many subjects (or runs) would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from fairdiff_lib.audit.contrasts import pairs_with_largest
from fairdiff_lib.audit.estimate import OVERALL, Estimate, Levels
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import rounded, with_interval

LARGER, DIFFERENT, NO_LARGER, UNDECIDED = "larger", "different", "no_larger", "undecided"
LEAST_POWER = 0.8  # below it a claim is declared untestable beforehand
NEXT = 100  # further subjects, of one level
Key = tuple[str, str]


@dataclass(frozen=True)
class Outcome:
    """What an interval says about a difference.

    Attributes
    ----------
    name : str
        ``LARGER`` than X, ``DIFFERENT`` with its size open, ``NO_LARGER`` than X, ``UNDECIDED``.
    words : str
    n, runs : float
        Subjects of the smaller group (with the other group growing alike), or runs, that would
        decide; infinite where no number of these does. NaN where it is decided.
    """

    name: str
    words: str
    n: float = float("nan")
    runs: float = float("nan")


@dataclass(frozen=True)
class Effect:
    """A signed difference, and all that :func:`outcome` reads of it: a row of a table.

    Attributes
    ----------
    value, error, df : float
        NaN where it can't be estimated; ``note`` then says why.
    low, high : float
        At the confidence of the family.
    inner_low, inner_high : float
        At 2 x confidence - 1: of two one-sided tests against X.
    n : int
        Subjects of the smaller group.
    runs : int
        Complete runs behind it; ``of_runs`` is the part of its variance that is theirs.
    """

    value: float
    error: float
    df: float
    low: float
    high: float
    inner_low: float
    inner_high: float
    n: int
    runs: int = 1
    of_runs: float = 0.0
    note: str = ""

    @classmethod
    def of(
        cls,
        gap: Estimate,
        n: int,
        runs: tuple[int, float] = (1, 0.0),
        confidence: float = 0.95,
        family: int = 1,
    ) -> Effect:
        """Of an estimate; "different" holds over a ``family`` of so many contrasts (Bonferroni).

        "No difference larger than X" needs no correction where all contrasts of a claim must pass.
        """
        ends = (*gap.interval(1 - (1 - confidence) / family), *gap.interval(2 * confidence - 1))
        return cls(gap.value, gap.standard_error, gap.df, *ends, n, *runs, gap.note)


def decide(
    gap: Estimate,
    smallest: float,
    n: int,
    *,
    confidence: float = 0.95,
    family: int = 1,
    unit: str = "",
    runs: tuple[int, float] = (1, 0.0),
    control_found: bool = True,
) -> Outcome:
    """:func:`outcome` of an estimate, as :meth:`Effect.of` reads it."""
    own = Effect.of(gap, n, runs, confidence, family)
    return outcome(own, smallest, confidence=confidence, unit=unit, control_found=control_found)


def outcome(
    effect: Effect,
    smallest: float,
    *,
    confidence: float = 0.95,
    unit: str = "",
    control_found: bool = True,
) -> Outcome:
    """The rule: one of four outcomes of a difference; a limit may be infinite ("at least ...").

    Parameters
    ----------
    effect : Effect
    smallest : float
        X > 0, in the difference's own unit.
    unit : str
        Of the difference, in words: " px of blur".
    control_found : bool
        Whether a planted difference was found in the same way; else nothing is "no difference".

    Raises
    ------
    InputError
        X that isn't positive.
    """
    if not smallest > 0:
        raise InputError(f"smallest difference of interest: {smallest}; expected more than 0")
    low, high, size = effect.low, effect.high, f"{rounded(smallest)}{unit}"
    if not 0 < effect.error < np.inf or np.isnan([effect.value, low, high]).any():
        return Outcome(UNDECIDED, f"undecided: {effect.note or 'no interval'}", np.inf, np.inf)
    shown = f"{with_interval(effect.value, low, high)}{unit}"
    inside = -smallest < effect.inner_low and effect.inner_high < smallest
    if low > smallest or high < -smallest:
        return Outcome(LARGER, f"larger than {size}: {shown}")
    if inside and control_found:
        also = "" if low <= 0 <= high else ", though one is seen"
        return Outcome(NO_LARGER, f"no difference larger than {size}{also}: {shown}")
    if low > 0 or high < 0:
        return Outcome(DIFFERENT, f"different, size open (larger than {size} or not): {shown}")
    if inside:
        words = f"undecided: a planted difference was not found in this way; {shown}"
        return Outcome(UNDECIDED, words, np.inf, np.inf)
    wanted = (smallest / _reach(effect.df, confidence)) ** 2  # variance at which either is found
    more_n, more_runs = _needed(effect, wanted)
    parts = [f"n = {more_n:,.0f} in the smaller group"] * bool(np.isfinite(more_n))
    parts += [f"R = {more_runs:,.0f} runs"] * bool(effect.of_runs > 0 and np.isfinite(more_runs))
    needs = "; would need about " + " or ".join(parts) if parts else ""
    both = "; neither more subjects nor more runs alone decide" if not parts else ""
    return Outcome(UNDECIDED, f"undecided{needs}{both}: {shown}", more_n, more_runs)


def _reach(df: float, confidence: float) -> float:
    """X over the standard error at which X is excluded with ``LEAST_POWER`` where nothing differs.

    That also finds a difference of 2 X to be larger than X with about the same power.
    """
    return float(stats.t.ppf(confidence, df) + stats.t.ppf((1 + LEAST_POWER) / 2, df))


def _needed(effect: Effect, wanted: float) -> tuple[float, float]:
    """Subjects at these runs, and runs with these subjects, for a variance of ``wanted``."""
    n, count, of_runs = effect.n, effect.runs, effect.of_runs
    of_subjects = max(effect.error**2 - of_runs, 0.0)
    more_n = n * of_subjects / (wanted - of_runs) if wanted > of_runs else np.inf
    more_runs = count * of_runs / (wanted - of_subjects) if wanted > of_subjects else np.inf
    return float(np.ceil(max(more_n, n))), float(np.ceil(max(more_runs, count)))


def all_of(outcomes: Mapping[str, Outcome]) -> Outcome:
    """The outcome of a claim about several contrasts (intersection-union).

    "No difference larger than X" only if every contrast says so; else the strongest sign of one.
    """
    for name in (LARGER, DIFFERENT, UNDECIDED, NO_LARGER):
        own = {what: one for what, one in outcomes.items() if one.name == name}
        if own:
            words = "; ".join(f"{what}: {one.words}" for what, one in own.items())
            n, runs = (max(getattr(one, field) for one in own.values()) for field in ("n", "runs"))
            return Outcome(name, words, n, runs)
    raise InputError("outcome of several contrasts: there is none")


# -- beforehand ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Power:
    """How probable a decision is, were the true difference 0 or 2 X."""

    nothing: float  # of "no difference larger than X" where there is none
    twice: float  # of "larger than X" where it is 2 X

    @property
    def testable(self) -> bool:
        """Whether both reach ``LEAST_POWER``."""
        return min(self.nothing, self.twice) >= LEAST_POWER


def power(
    error: float, df: float, smallest: float, confidence: float = 0.95, family: int = 1
) -> Power:
    """Power of :func:`outcome` at a standard error that is known."""
    if not error > 0:
        return Power(0.0, 0.0)
    ratio = smallest / error
    nothing = 2 * stats.t.cdf(ratio - stats.t.ppf(confidence, df), df) - 1
    twice = stats.t.sf(stats.t.ppf(1 - (1 - confidence) / family / 2, df) - ratio, df)
    return Power(max(0.0, float(nothing)), float(twice))


def size_for(error: float, n: int, df: float, smallest: float, family: int = 1) -> float:
    """Subjects of the smaller group, both growing alike, with which both powers are enough."""
    if not 0 < error < np.inf:
        return float("inf")
    low, high = 1e-3, 1e6  # times as many
    for _ in range(60):
        times = float(np.sqrt(low * high))
        enough = power(error / times**0.5, max(df * times, 1.0), smallest, family=family).testable
        low, high = (low, times) if enough else (times, high)
    return float(np.ceil(n * high))


def spread_for(error: float, df: float, smallest: float, runs: int, family: int = 1) -> float:
    """Largest standard deviation between runs that still leaves enough power; NaN for one run."""
    if runs < 2 or not power(error, df, smallest, family=family).testable:
        return float("nan")
    low, high = 0.0, 10 * smallest
    for _ in range(50):
        middle = (low + high) / 2
        parts = np.array([middle**2 / runs, error**2])
        freedom = parts.sum() ** 2 / (parts[0] ** 2 / (runs - 1) + parts[1] ** 2 / df)
        enough = power(float(np.sqrt(parts.sum())), freedom, smallest, family=family).testable
        low, high = (middle, high) if enough else (low, middle)
    return low


def plan_size(
    pilot: Mapping[Key, Estimate],
    attributes: Levels,
    effect: float,
    sizes: Mapping[Key, int] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """What an audit with groups of these sizes could find, and how large they should be.

    Parameters
    ----------
    pilot : mapping
        Estimates by group of a pilot audit (any metric), whose variances fall with 1/n.
    attributes : mapping
        Attribute to levels; contrasts are with the largest.
    effect : float
        Difference to be found with ``LEAST_POWER``, in the metric's unit.
    sizes : mapping, optional
        Planned subjects of each group; those of the pilot without one.

    Returns
    -------
    DataFrame
        attribute, level, reference, n, n_reference, effect, power (of a two-sided test of 0),
        detectable (with ``LEAST_POWER``), n_needed (of the level, both growing alike), next_100:
        share by which ``NEXT`` more subjects of the level narrow the attribute's contrasts (root
        mean square), helps_most.
    """
    if not 0 < effect < np.inf:
        raise InputError(f"effect to plan for: {effect}; expected a finite one, more than 0")
    planned = {key: (sizes or {}).get(key, one.n) for key, one in pilot.items()}
    small = {key: n for key, n in planned.items() if n < 2 and key != OVERALL}
    if small:
        raise InputError(f"size of {next(iter(small))}: {min(small.values())}; expected 2 or more")
    spread = {key: one.standard_error**2 * one.n for key, one in pilot.items()}
    sized = {key: replace(one, n=planned[key]) for key, one in pilot.items()}
    pairs = [
        (key, reference)
        for key, reference in pairs_with_largest(sized, attributes)
        if spread[key] > 0 and spread[reference] > 0
    ]
    rows = []
    for key, reference in pairs:
        parts = np.array([spread[key] / planned[key], spread[reference] / planned[reference]])
        dfs = np.array([planned[key] - 1, planned[reference] - 1])
        df, error = parts.sum() ** 2 / np.sum(parts**2 / dfs), float(np.sqrt(parts.sum()))
        reach, away = stats.t.ppf((1 + confidence) / 2, df), effect / error
        detectable = float(reach + stats.t.ppf(LEAST_POWER, df)) * error
        found = float(stats.t.sf(reach - away, df) + stats.t.cdf(-reach - away, df))
        wanted = int(np.ceil(planned[key] * (detectable / effect) ** 2))
        rows.append((key[0], key[1], reference[1], planned[key], planned[reference], effect, found,
                     detectable, wanted))  # fmt: skip
    columns = ["attribute", "level", "reference", "n", "n_reference", "effect", "power",
               "detectable", "n_needed"]  # fmt: skip
    return _with_next(pd.DataFrame(rows, columns=columns), pairs, spread, planned)


def _with_next(
    table: pd.DataFrame,
    pairs: Sequence[tuple[Key, Key]],
    spread: Mapping[Key, float],
    planned: Mapping[Key, int],
) -> pd.DataFrame:
    """What ``NEXT`` more subjects of each level would narrow; a row for references as well."""
    rows = []
    for name in dict.fromkeys(key[0] for key, _ in pairs):
        own = [pair for pair in pairs if pair[0][0] == name]

        def width(more: Key | None, own: Sequence[tuple[Key, Key]] = tuple(own)) -> float:
            sizes = {k: planned[k] + NEXT * (k == more) for pair in own for k in pair}
            return float(np.sqrt(np.mean([sum(spread[k] / sizes[k] for k in p) for p in own])))

        levels = list(dict.fromkeys([*(key for key, _ in own), own[0][1]]))
        gains = {key: 1 - width(key) / width(None) for key in levels}
        best = max(gains, key=lambda key: gains[key])
        rows += [(name, k[1], gains[k], k == best) for k in levels]
    gained = pd.DataFrame(rows, columns=["attribute", "level", f"next_{NEXT}", "helps_most"])
    keys = zip(gained["attribute"], gained["level"], strict=True)
    sizes = [planned[str(name), str(level)] for name, level in keys]
    whole = gained.assign(n=sizes).merge(table, on=["attribute", "level", "n"], how="left")
    return whole[[*table.columns, f"next_{NEXT}", "helps_most"]]
