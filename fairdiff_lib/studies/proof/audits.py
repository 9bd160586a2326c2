"""The proof of the audit: thousands of simulated audits whose true answer is known.

A *situation* draws what an auditor gets to see. A *judge* is a procedure: it says whether it
alarms, and its interval. A *cell* is a judge in a situation, and how often which error may occur
there. All cells of a situation see the same audits. Every audit has its own seed, made from the
proof's seed, the situation's name and the audit's number; so its result depends neither on the
number of processes nor on where a run was interrupted.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config
from scipy import stats
from tqdm.auto import tqdm

from fairdiff_lib.audit.audit import Audit, Estimator, audit, kid_metric, mean_audit
from fairdiff_lib.audit.blur import blur_curves, blur_metric
from fairdiff_lib.audit.classifiers import es_by_chance, es_estimate
from fairdiff_lib.audit.contrasts import pairs_with_largest
from fairdiff_lib.audit.decide import DIFFERENT, LARGER, NO_LARGER, UNDECIDED, all_of, decide
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    difference,
    group_units,
)
from fairdiff_lib.audit.fid import frechet_distance
from fairdiff_lib.audit.kid import Kernel, shares, standardised_kid
from fairdiff_lib.audit.realism import near_copies
from fairdiff_lib.audit.released import replicate_t_test_as_released
from fairdiff_lib.audit.seeds import audit_over_runs
from fairdiff_lib.disk.files import read_table, write_table
from fairdiff_lib.settings.errors import InputError

LEVEL = 0.05  # of every test
BLOCK = 100  # audits between two files: what a kill can cost
NEVER = 10**9  # subjects: no contrast is primary, so that none pays for the family's Monte Carlo
PAIRWISE: Levels = {"group": ("small", "large")}
OURS = "audit"  # the procedure that has to keep its promises; all others stand beside it


# -- what an auditor sees ----------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """A test set and the images generated for it."""

    real: Floats  # float64 [N, D]
    generated: Floats
    groups: Groups
    attributes: Levels = field(default_factory=lambda: PAIRWISE)
    strata: Groups | None = None  # by the condition that a KID is standardised to
    runs: tuple[Floats, ...] = ()  # what complete runs generated, where there are several
    rivals: tuple[Floats, ...] = ()  # what a second method generated in the same runs
    blurred: Callable[[float], Floats] | None = None  # features of the reals after a blur

    @property
    def small(self) -> Bools:
        """Rows of the smaller of two groups."""
        return self.groups.column("group", "small")[self.groups.unit]


@dataclass(frozen=True)
class Values:
    """A test set with a metric that needs no images, as classifier scores."""

    estimator: Estimator  # as of ``audit.auc_metric``
    metric: str
    better: str
    groups: Groups
    attributes: Levels = field(default_factory=lambda: PAIRWISE)


Seen = Pictures | Values
Scene = Callable[[np.random.Generator], Seen]


class Law(Protocol):
    """Where a group's images come from."""

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Real and generated features of ``n`` images.  # [n, D], [n, D]"""
        ...


@dataclass(frozen=True)
class TwoGroups:
    """Two groups of given sizes."""

    # of the small and the large group; a single one for both makes them exchangeable
    laws: tuple[Law, ...]
    sizes: tuple[int, int]  # subjects of the small and the large group

    def __call__(self, rng: np.random.Generator) -> Pictures:
        shared = len(self.laws) == 1
        counts = (sum(self.sizes),) if shared else self.sizes
        drawn = [law.draw(rng, n) for law, n in zip(self.laws, counts, strict=True)]
        real, generated = (np.concatenate(part) for part in zip(*drawn, strict=True))
        return Pictures(real, generated, two_groups(self.sizes))


@lru_cache
def two_groups(sizes: tuple[int, int]) -> Groups:
    """Two groups with a row per subject, the small one first."""
    level = np.repeat(PAIRWISE["group"], sizes)
    table = pd.DataFrame({"subject": np.arange(sum(sizes)), "group": level})
    return group_units(table, PAIRWISE)


# -- procedures --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What a procedure says about one simulated audit; NaN where it has no such number."""

    alarm: bool
    low: float = np.nan
    high: float = np.nan
    value: float = np.nan
    said: str = ""  # an outcome, as of ``audit.decide``

    @classmethod
    def of(cls, one: Estimate, margin: float = np.nan) -> Finding:
        """From an estimate: alarm if its interval lies beside 0; equivalent within a margin?"""
        low, high = one.interval(1 - LEVEL)
        equal = margin > 0 and one.p_equivalence(margin) < LEVEL
        return cls(low > 0 or high < 0, low, high, one.value, NO_LARGER if equal else "")


Judge = Callable[[Seen, np.random.Generator], Finding]
Maker = Callable[[Any, Any, dict[str, Any]], Audit]  # of what is seen, kernel, options of `audit`


def of_values(seen: Values, _: None, own: dict[str, Any]) -> Audit:
    """Audit of a metric that needs no images."""
    own = own | {"metric": seen.metric, "better": seen.better}
    return audit(seen.estimator, seen.groups, seen.attributes, **own)


def of_kid(seen: Pictures, kernel: Kernel, own: dict[str, Any]) -> Audit:
    """Audit by KID."""
    metric = kid_metric(kernel, seen.real, seen.generated)
    return audit(metric, seen.groups, seen.attributes, metric="kid", **own)


def of_kid_on_plain_scale(seen: Pictures, kernel: Kernel, own: dict[str, Any]) -> Audit:
    """The same with t-intervals."""
    one = of_kid(seen, kernel, own)
    return replace(one, estimates={k: replace(e, rooted=False) for k, e in one.estimates.items()})


def of_common_mix(seen: Pictures, kernel: Kernel, own: dict[str, Any]) -> Audit:
    """Audit by KID, standardised to the pooled shares of the strata."""
    assert seen.strata is not None
    estimator = partial(standardised_kid, kernel, seen.real, seen.generated, strata=seen.strata,
                        weights=shares(seen.strata))  # fmt: skip
    return audit(estimator, seen.groups, seen.attributes, metric="kid_standardised", **own)


def of_blur(seen: Pictures, kernel: Kernel, own: dict[str, Any]) -> Audit:
    """Audit by equivalent blur."""
    assert seen.blurred is not None
    curves = blur_curves(kernel, seen.real, seen.blurred, seen.groups)
    metric = blur_metric(kernel, seen.real, seen.generated, curves)
    return audit(metric, seen.groups, seen.attributes, metric="equivalent_blur", **own)


def of_runs(
    seen: Pictures, kernel: Kernel, own: dict[str, Any], mean: Any = audit_over_runs
) -> Audit:
    """Audit of the mean over complete runs."""
    found: Audit = mean([of_kid(replace(seen, generated=y), kernel, own) for y in seen.runs])
    return found


of_patients = partial(of_runs, mean=mean_audit)  # as if another run would give the same


def of_originals(seen: Pictures, kernel: Kernel, own: dict[str, Any]) -> Audit:
    """Audit by KID, refused where generated images are near-identical."""
    copies = near_copies(seen.generated, seen.real, seen.groups.unit)
    return copies.guard(of_kid(seen, kernel, own), seen.groups)


@dataclass(frozen=True)
class OurAudit:
    """The study's own audit."""

    kernel: Kernel | None = None  # of the KID; not needed for :class:`Values`
    make: Maker = of_kid
    # judge all contrasts by the p adjusted for their number, instead of one by its own p
    family: bool = False
    margin: float = np.nan  # of the test of equivalence

    def __call__(self, seen: Seen, rng: np.random.Generator) -> Finding:
        one = self.audit(seen, int(rng.integers(2**31)))
        if self.family:
            return Finding(bool((one.contrasts["p_adjusted"] < LEVEL).any()))
        small, large = (one.estimates["group", level] for level in PAIRWISE["group"])
        return Finding.of(difference(small, large), self.margin)

    def audit(self, seen: Seen, seed: int) -> Audit:
        """The audit, by the functions that the study calls."""
        own: Any = {"secondary_below": MIN_UNITS if self.family else NEVER, "seed": seed}
        return self.make(seen, self.kernel, own)


@dataclass(frozen=True)
class Rule:
    """The verdict on "all levels are equally good", end to end."""

    kernel: Kernel
    smallest: float  # X

    def __call__(self, seen: Seen, rng: np.random.Generator) -> Finding:
        one = OurAudit(self.kernel).audit(seen, 0)
        pairs = pairs_with_largest(one.estimates, one.attributes)
        outcome = all_of(
            {
                f"{key[1]} minus {reference[1]}": decide(
                    difference(one.estimates[key], one.estimates[reference]),
                    self.smallest, one.estimates[key].n, family=len(pairs),
                )
                for key, reference in pairs
            }
        )  # fmt: skip
        return Finding(outcome.name in (LARGER, DIFFERENT), said=outcome.name)


@dataclass(frozen=True)
class EquityScaled:
    """Equity-scaled AUC: as usual, or less what chance alone gives where levels are equal."""

    of_chance: bool = True

    def __call__(self, seen: Seen, rng: np.random.Generator) -> Finding:
        one = OurAudit(make=of_values).audit(seen, 0)
        found = es_estimate(one, "group")
        if self.of_chance:
            return Finding(False, value=found.value - es_by_chance(one, "group"))
        return replace(Finding.of(found), alarm=False)


@dataclass(frozen=True)
class NaiveTest:
    """How groups are compared elsewhere: a test that alarms where there is no disparity."""

    # ``fid_permutation``, ``fid_equal_n_permutation``, ``kid_raw_permutation``,
    # ``kid_equal_n_permutation``, ``released_t_test`` or ``kid_bootstrap_self_pairs``
    name: str
    repeats: int  # permutations or replicates
    kernel: Kernel | None = None  # of a KID

    def __call__(self, seen: Seen, rng: np.random.Generator) -> Finding:
        assert isinstance(seen, Pictures)
        x, y, small = seen.real, seen.generated, seen.small
        if self.name == "released_t_test":
            seed = int(rng.integers(2**31))
            return Finding(fid_t_test(x, y, small, self.repeats, seed)[1] < LEVEL)
        if "equal_n" in self.name:
            rows = equal_rows(small, rng)
            x, y, small = x[rows], y[rows], small[rows]
        if self.kernel is None:
            gap = fid_gap(x, y)
            return Finding(permutation_alarm(gap, small, rng, self.repeats))
        pairs = pair_matrix(self.kernel, x, y)
        if self.name == "kid_bootstrap_self_pairs":
            low, high = kid_bootstrap(pairs, small, rng, self.repeats)
            return Finding(not low <= 0 <= high, low, high)
        gap = kid_gap(pairs)
        return Finding(permutation_alarm(gap, small, rng, self.repeats))


# -- cells -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """What is audited, and its truth."""

    layer: str  # F: features of known law; I: simulated images; T: a trained generator
    what: str  # tells it from the layer's other ones
    null: str  # ``exchangeable``, ``unequal``, or ``none`` where a disparity is planted
    n_min: int  # subjects of the smallest group
    scene: Scene
    truth: float = 0.0  # of what is estimated; mostly the contrast, small minus large
    planted_ratio: float = 1.0  # true value of the small group over that of the large one

    @property
    def name(self) -> str:
        """Tells it from all others."""
        parts = (self.layer, self.what, self.null, f"n{self.n_min}", f"x{self.planted_ratio:g}")
        return "-".join(parts).replace(" ", "_")


@dataclass(frozen=True)
class Cell:
    """One row of the proof."""

    situation: Situation
    procedure: str
    metric: str
    judge: Judge
    simulations: int
    may: Mapping[str, float] = field(default_factory=dict)  # event: how often it may occur

    @property
    def scene(self) -> Scene:
        """What draws the audits."""
        return self.situation.scene

    @property
    def key(self) -> dict[str, Any]:
        """First columns of its row."""
        own, at = {"procedure": self.procedure}, self.situation
        own |= {"layer": at.layer, "metric": self.metric, "situation": at.what, "null": at.null}
        return own | {"n_min": at.n_min, "planted_ratio": at.planted_ratio}


def _simulate_block(cells: Sequence[Cell], numbers: range, path: Path, seed: int) -> None:
    """The audits of some numbers, each seen by all cells of one situation."""
    situation, rows = cells[0].situation, []
    for number in numbers:
        start = [seed, zlib.crc32(situation.name.encode()), number]
        seen = situation.scene(np.random.default_rng(start))
        for at, cell in enumerate(cells):
            if number < cell.simulations:
                found = cell.judge(seen, np.random.default_rng([*start, at + 1]))
                named = {"procedure": cell.procedure, "metric": cell.metric, "number": number}
                rows.append(named | vars(found))
    write_table(pd.DataFrame(rows), path)


def workers() -> int:
    """Processes side by side: as many as the job was given threads."""
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def side_by_side(jobs: Iterable[Any], total: int, title: str, processes: int = 0) -> None:
    """Run delayed calls in processes of one thread each; ``processes`` as in :func:`simulate`.

    A job's own OMP_NUM_THREADS would give each process that many threads, which then wait for
    each other: on two cores that made audits ten times slower.
    """
    with parallel_config("loky", n_jobs=processes or workers(), inner_max_num_threads=1):
        done = Parallel(return_as="generator_unordered")(jobs)
        for _ in tqdm(done, total=total, desc=title, disable=None):
            pass


def by_situation(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that see the same audits."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.situation.name, []).append(cell)
    return list(found.values())


def _blocks(cells: Sequence[Cell], folder: Path) -> list[tuple[range, Path]]:
    """Numbers of the audits of each file of a situation."""
    total, place = max(cell.simulations for cell in cells), folder / cells[0].situation.name
    return [
        (range(start, min(start + BLOCK, total)), place / f"{start:06d}.csv")
        for start in range(0, total, BLOCK)
    ]


def simulate(cells: Sequence[Cell], folder: Path, seed: int, processes: int = 0) -> pd.DataFrame:
    """Simulate what is missing of every situation (a file per block of audits), and count.

    A row per cell, in :data:`COLUMNS`; ``processes`` 0 = :func:`workers`.
    """
    missing = [
        (own, numbers, path)
        for own in by_situation(cells)
        for numbers, path in _blocks(own, folder)
        if not path.is_file()
    ]
    missing.sort(key=lambda one: one[1].start)  # a killed run has about as much of every situation
    jobs = (delayed(_simulate_block)(*one, seed) for one in missing)
    side_by_side(jobs, len(missing), "simulated audits", processes)
    rows = []
    for own in by_situation(cells):
        found = findings(own, folder)
        rows += [count(cell, of_cell(cell, found)) for cell in own]
    return pd.DataFrame(rows)[list(COLUMNS)]


def findings(cells: Sequence[Cell], folder: Path) -> pd.DataFrame:
    """Every audit of one situation by every procedure: procedure, metric, number, a finding."""
    parts = [read_table(path, dtype={"said": str}) for _, path in _blocks(cells, folder)]
    return pd.concat(parts, ignore_index=True).fillna({"said": ""})


def of_cell(cell: Cell, found: pd.DataFrame) -> pd.DataFrame:
    """A cell's audits of its situation's."""
    own = (found["procedure"] == cell.procedure) & (found["metric"] == cell.metric)
    return found[own]


# -- what happened how often -------------------------------------------------------------------

EVENTS = (  # columns of the table, as shares of the audits
    "alarm",  # the groups are called different
    "above",  # the interval lies above the truth: the small group is made out worse (of a KID)
    "below",
    "missed",  # either
    "given",  # there is an interval
    LARGER, DIFFERENT, NO_LARGER, UNDECIDED,  # outcomes
    "seen",  # either of the first two
)  # fmt: skip
COLUMNS = (
    "procedure", "layer", "metric", "situation", "null", "n_min", "planted_ratio", "simulations",
    *EVENTS, "truth", "mean", "mc_error",
)  # fmt: skip


def count(cell: Cell, found: pd.DataFrame) -> dict[str, Any]:
    """The cell's row: how often what happened; NaN what its procedure does not say.

    ``mc_error``: the standard error of the alarm rate over simulations, at least that of half an
    alarm; of the mean where the value itself is judged.
    """
    n, truth = len(found), cell.situation.truth
    low, high, said = found["low"], found["high"], found["said"]
    rates = {"alarm": found["alarm"].mean()}
    if low.notna().any() or "given" in cell.may:
        above, below = low > truth, high < truth
        rates |= {"above": above.mean(), "below": below.mean(), "missed": (above | below).mean()}
        rates["given"] = low.notna().mean()
    if (said != "").any() or {LARGER, NO_LARGER, "seen"} & set(cell.may):
        rates |= {name: (said == name).mean() for name in EVENTS[5:9]}
        rates["seen"] = said.isin([LARGER, DIFFERENT]).mean()
    error = np.sqrt(max(rates["alarm"] * (1 - rates["alarm"]), 0.25 / n) / n)
    if "off" in cell.may:
        error = found["value"].std() / np.sqrt(n)
    empty = dict.fromkeys(COLUMNS, np.nan)
    own = {"simulations": n, "truth": truth, "mean": found["value"].mean(), "mc_error": error}
    return empty | cell.key | {name: float(rate) for name, rate in rates.items()} | own


# -- what was promised -------------------------------------------------------------------------

SURE = 0.99  # probability that a perfect procedure passes all checks
CHECKS = ("check", "rate", "promised", "limit", "passed")
POOLED = "all of the layer"


def most(promised: float, n: int, checks: int) -> float:
    """Highest rate of ``n`` audits that one of so many checks lets pass.

    A procedure whose errors are exactly as frequent as promised passes all checks together with
    probability ``SURE``, were they independent (and with more where they are not).
    """
    return float(stats.binom.ppf(SURE ** (1 / checks), n, promised) / n)


def judged(cells: Sequence[Cell], table: pd.DataFrame) -> pd.DataFrame:
    """Every promise of the audit, and whether it is kept: the table's key, then :data:`CHECKS`.

    Beside the cells, the alarms of the KID where groups are equally good, over all of a layer.
    Check "off" is about the mean: how far it is from the truth.
    """
    rows: list[dict[Any, Any]] = []
    for cell, row in zip(cells, table.to_dict("records"), strict=True):
        rows += [row | {"check": name, "promised": rate} for name, rate in cell.may.items()]
    plain = table[(table["procedure"] == OURS) & (table["metric"] == "kid")]
    for layer, own in plain[plain["null"] != "none"].groupby("layer"):
        n = int(own["simulations"].sum())
        pooled: dict[Any, Any] = {"procedure": OURS, "layer": layer, "metric": "kid"}
        pooled |= {"situation": POOLED}
        pooled |= {"null": "", "n_min": int(own["n_min"].min()), "simulations": n, "check": "alarm"}
        alarms = float((own["alarm"] * own["simulations"]).sum() / n)
        rows.append(pooled | {"planted_ratio": 1.0, "promised": LEVEL, "alarm": alarms})
    if not rows:
        raise InputError("proof: no cell promises anything")
    for row in rows:
        name, n = row["check"], row["simulations"]
        if name == "off":
            reach = float(stats.norm.ppf(SURE ** (1 / len(rows)))) * row["mc_error"]
            row |= {"rate": abs(row["mean"] - row["truth"]), "limit": row["promised"] + reach}
        else:
            row["rate"], row["limit"] = row[name], most(row["promised"], n, len(rows))
        row["passed"] = row["rate"] <= row["limit"] + 1e-12
    return pd.DataFrame(rows)[[*COLUMNS[:8], *CHECKS]]


# -- how groups are compared elsewhere ---------------------------------------------------------


def permutation_alarm(
    gap: Callable[[Bools], float], small: Bools, rng: np.random.Generator, permutations: int
) -> bool:
    """Whether labels that are shuffled give so large a gap in less than 5% of cases.

    Stops as soon as that is settled (Besag and Clifford 1991): the answer is that of all
    ``permutations``.
    """
    observed = gap(small)
    room = int(np.floor(LEVEL * (permutations + 1))) - 1  # as large ones that an alarm may have
    for _ in range(permutations):
        room -= gap(rng.permutation(small)) >= observed
        if room < 0:
            return False
    return True


def fid_gap(real: Floats, generated: Floats) -> Callable[[Bools], float]:
    """|FID of one group - FID of the other|, each at its own n."""

    def gap(small: Bools) -> float:
        both = [frechet_distance(real[own], generated[own]) for own in (small, ~small)]
        return abs(both[0] - both[1])

    return gap


def equal_rows(small: Bools, rng: np.random.Generator) -> Ints:
    """All rows of the smaller group and as many of the other."""
    first, second = np.flatnonzero(small), np.flatnonzero(~small)
    return np.concatenate([first, rng.choice(second, len(first), replace=False)])


def fid_t_test(
    real: Floats, generated: Floats, small: Bools, replicates: int, seed: int
) -> tuple[float, float]:
    """The released t-test over bootstrap replicates of each group's FID: mean difference and p."""
    return replicate_t_test_as_released(
        lambda rows: frechet_distance(real[rows], generated[rows]),
        np.flatnonzero(small),
        np.flatnonzero(~small),
        replicates,
        seed,
    )


def pair_matrix(kernel: Kernel, real: Floats, generated: Floats) -> Floats:
    """h(i, j) of all pairs of rows, i = j included.  # [N, N]"""
    cross = kernel(real, generated)
    return kernel(real, real) + kernel(generated, generated) - cross - cross.T


def kid_gap(pairs: Floats) -> Callable[[Bools], float]:
    """|KID of one group - KID of the other|, each unbiased."""

    def gap(small: Bools) -> float:
        return abs(_kid(pairs, small.astype(float)) - _kid(pairs, (~small).astype(float)))

    return gap


def _kid(pairs: Floats, weight: Floats) -> float:
    """Mean of h over pairs of the rows drawn, where ``weight`` says how often each was.

    A row that was drawn twice is paired with itself, as in a plain bootstrap.
    """
    n = weight.sum()
    return float((weight @ pairs @ weight - weight @ np.diag(pairs)) / (n * (n - 1)))


def kid_bootstrap(
    pairs: Floats, small: Bools, rng: np.random.Generator, replicates: int
) -> tuple[float, float]:
    """95% percentile interval of the contrast, from a bootstrap that counts self-pairs."""
    gaps = np.zeros(replicates)
    for sign, own in ((1, small), (-1, ~small)):
        rows = np.flatnonzero(own)
        block = pairs[np.ix_(rows, rows)]
        drawn = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), replicates)
        gaps += sign * np.array([_kid(block, weight) for weight in drawn.astype(float)])
    low, high = np.quantile(gaps, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)
