"""The proof of the audit: thousands of simulated audits whose true answer is known.

A *cell* is a procedure in a situation. A *scene* draws what an auditor gets to see: the images'
features, and a table. A *judge* is the procedure: it says whether it alarms, and its interval.
Every audit has its own seed, made from the proof's seed, the cell's name and its number; so
its result depends neither on the number of processes nor on where a run was interrupted.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from fairdiff_lib.audit.audit import Audit, Estimator, audit, kid_audit
from fairdiff_lib.audit.estimate import MIN_UNITS, Bools, Floats, Ints, Levels, group_units
from fairdiff_lib.audit.fid import frechet_distance
from fairdiff_lib.audit.kid import Kernel, shares, standardised_kid
from fairdiff_lib.audit.released import replicate_t_test_as_released
from fairdiff_lib.disk.files import read_table, write_table

COLUMNS = (
    "procedure", "layer", "metric", "null", "n_min", "planted_ratio", "simulations",
    "alarm_rate", "coverage", "mc_error",
)  # fmt: skip
BLOCK = 100  # audits between two files: what a kill can cost
NEVER = 10**9  # subjects: no contrast is primary, so that none pays for the family's Monte Carlo
PAIRWISE = {"group": ("small", "large")}


# -- what an auditor sees ----------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """A test set and the images generated for it."""

    real: Floats  # float64 [N, D]
    generated: Floats
    table: pd.DataFrame  # [N]; subject, and a column of level names per attribute
    attributes: Levels

    @property
    def small(self) -> Bools:
        """Rows of the smaller of two groups."""
        return (self.table["group"] == "small").to_numpy(dtype=bool)


@dataclass(frozen=True)
class Values:
    """A test set with a metric that needs no images, as classifier scores."""

    estimator: Estimator  # as of ``audit.auc_metric``
    metric: str
    better: str
    table: pd.DataFrame  # as in :class:`Pictures`
    attributes: Levels


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
        return Pictures(real, generated, two_groups(self.sizes), PAIRWISE)


def two_groups(sizes: tuple[int, int]) -> pd.DataFrame:
    """Table of two groups with a row per subject, the small one first."""
    return pd.DataFrame(
        {"subject": np.arange(sum(sizes)), "group": np.repeat(["small", "large"], sizes)}
    )


# -- procedures --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What a procedure says about one simulated audit; NaN where it has no interval."""

    alarm: bool
    low: float = np.nan
    high: float = np.nan


Judge = Callable[[Seen, np.random.Generator], Finding]


@dataclass(frozen=True)
class OurAudit:
    """The study's own audit."""

    kernel: Kernel | None = None  # of the KID; not needed for :class:`Values`
    # judge all contrasts by the p adjusted for their number, instead of one by its own p
    family: bool = False
    # condition to its levels, where the KID is standardised to common shares of them
    strata: Levels = field(default_factory=dict)

    def __call__(self, seen: Seen, rng: np.random.Generator) -> Finding:
        table = self.audit(seen, int(rng.integers(2**31))).contrasts
        if self.family:
            return Finding(bool((table["p_adjusted"] < LEVEL).any()))
        (row,) = table.to_dict("records")
        return Finding(row["p"] < LEVEL, row["low"], row["high"])

    def audit(self, seen: Seen, seed: int) -> Audit:
        """The audit, by the functions that the study calls."""
        own: Any = {"secondary_below": MIN_UNITS if self.family else NEVER, "seed": seed}
        groups = group_units(seen.table, seen.attributes)
        if isinstance(seen, Values):
            return audit(
                seen.estimator, groups, seen.attributes,
                metric=seen.metric, better=seen.better, **own,
            )  # fmt: skip
        assert self.kernel is not None
        if self.strata:
            strata = group_units(seen.table, self.strata)
            estimator = partial(
                standardised_kid, self.kernel, seen.real, seen.generated,
                strata=strata, weights=shares(strata),
            )  # fmt: skip
            return audit(estimator, groups, seen.attributes, metric="kid_standardised", **own)
        images = (seen.real, seen.generated, seen.table, seen.attributes)
        return kid_audit(self.kernel, *images, **own)


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
class Cell:
    """One row of the proof."""

    procedure: str  # ``audit`` is ours
    layer: str  # F: features of known law; I: simulated images; T: a trained generator
    metric: str
    null: str  # ``exchangeable``, ``unequal``, or ``none`` where a disparity is planted
    n_min: int  # subjects of the smallest group
    planted_ratio: float  # true value of the small group over that of the large one; 1 under a null
    simulations: int
    truth: float  # the contrast, small minus large
    scene: Scene
    judge: Judge

    @property
    def name(self) -> str:
        """Tells it from all other cells."""
        parts = (self.layer, self.procedure, self.metric, self.null, f"n{self.n_min}")
        return "-".join((*parts, f"x{self.planted_ratio:g}"))

    def simulate(self, seed: int, number: int) -> Finding:
        """One audit; ``number`` counts from 0."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), number])
        return self.judge(self.scene(rng), rng)


def _path(folder: Path, cell: Cell, start: int) -> Path:
    return folder / cell.name / f"{start:06d}.csv"


def _blocks(cell: Cell) -> list[range]:
    """Numbers of the audits of each file."""
    return [
        range(start, min(start + BLOCK, cell.simulations))
        for start in range(0, cell.simulations, BLOCK)
    ]


def _simulate_block(cell: Cell, numbers: range, folder: Path, seed: int) -> None:
    found = [cell.simulate(seed, number) for number in numbers]
    frame = pd.DataFrame(found).assign(number=list(numbers))
    write_table(frame, _path(folder, cell, numbers.start))


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


def simulate(cells: Sequence[Cell], folder: Path, seed: int, processes: int = 0) -> pd.DataFrame:
    """Simulate what is missing of every cell (a file per block of audits), and count.

    A row per cell, in :data:`COLUMNS`; ``processes`` 0 = :func:`workers`.
    """
    missing = [
        (cell, numbers)
        for cell in cells
        for numbers in _blocks(cell)
        if not _path(folder, cell, numbers.start).is_file()
    ]
    jobs = (delayed(_simulate_block)(cell, numbers, folder, seed) for cell, numbers in missing)
    side_by_side(jobs, len(missing), "simulated audits", processes)
    return pd.DataFrame([count(cell, findings(cell, folder)) for cell in cells])[list(COLUMNS)]


def findings(cell: Cell, folder: Path) -> pd.DataFrame:
    """Every audit of a cell: alarm, low, high, number."""
    parts = [read_table(_path(folder, cell, block.start)) for block in _blocks(cell)]
    return pd.concat(parts, ignore_index=True)


def count(cell: Cell, found: pd.DataFrame) -> dict[str, object]:
    """The cell's row: how often it alarms, how often its interval holds the truth.

    ``mc_error`` is the standard error of the alarm rate over simulations, at least that of half
    an alarm.
    """
    n, rate = len(found), float(found["alarm"].mean())
    low, high = (found[side].to_numpy(dtype=np.float64) for side in ("low", "high"))
    held = (low <= cell.truth) & (cell.truth <= high)
    covered = float(held.mean()) if np.isfinite(low).any() else float("nan")
    row = {name: getattr(cell, name) for name in COLUMNS[:6]}
    error = float(np.sqrt(max(rate * (1 - rate), 0.25 / n) / n))
    return {**row, "simulations": n, "alarm_rate": rate, "coverage": covered, "mc_error": error}


LEVEL = 0.05  # of every test


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
