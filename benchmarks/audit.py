"""What the audit's two costly steps take.

All features are simulated. Every task runs in a process of its own, so that its peak of memory
is its own; naive recomputation that would take hours is timed on a few resamples, and said so.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from fairdiff_lib.audit.estimate import MIN_UNITS, Floats, Groups, Ints, group_units
from fairdiff_lib.audit.estimators import multiplicities
from fairdiff_lib.audit.fid import BLOCKS, UNITS_PER_FEATURE, fid_resamples
from fairdiff_lib.audit.kid import Kernel, fit_kernel, kid
from fairdiff_lib.settings.errors import InputError

ROWS_AT_ONCE = 1000  # of the naive kernel matrices
SHARES = {
    "race": {"asian": 0.1, "black": 0.2, "white": 0.7},
    "sex": {"female": 0.5, "male": 0.5},
    "age": {"younger": 0.5, "older": 0.5},
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How large the tasks are; the defaults are those that the project promises times for."""

    images: int = 10_000  # of the KID audit, real and as many generated
    features: int = 2048  # of the KID audit and the plain FID
    levels: int = 7  # that FID is resampled for
    subjects: int = 500  # of each level
    fid_features: tuple[int, ...] = (64, 128)  # of the corrected FID: estimable at 500 subjects
    resamples: int = 1000
    checked: int = 3  # resamples of the first level that are recomputed naively

    def __post_init__(self) -> None:
        if self.images < MIN_UNITS:
            raise InputError(f"benchmark: images={self.images}; expected {MIN_UNITS} or more")
        if self.features < 2:
            raise InputError(f"benchmark: features={self.features}; expected 2 or more")
        if self.resamples < 1:
            raise InputError(f"benchmark: resamples={self.resamples}; expected 1 or more")
        if max(self.fid_features) * UNITS_PER_FEATURE > self.subjects:
            raise InputError(
                f"benchmark: a corrected FID of {max(self.fid_features)} features needs "
                f"{max(self.fid_features) * UNITS_PER_FEATURE} subjects; there are {self.subjects}"
            )


def run_benchmarks(sizes: Sizes) -> pd.DataFrame:
    """All tasks, one after the other.

    Returns
    -------
    DataFrame
        task, size, seconds, cpu_seconds (of all threads; what counts on a busy machine),
        naive_seconds, naive (how that was found), peak_mib (of the whole process, its inputs and
        libraries included), difference (the largest one, relative).
    """
    tasks = [partial(bench_kid, sizes)]
    tasks += [partial(bench_fid, sizes, width, True) for width in sizes.fid_features]
    tasks += [partial(bench_fid, sizes, sizes.features, False)]
    return pd.DataFrame([_alone(task) for task in tqdm(tasks, desc="benchmarks", disable=None)])


def _alone(task: Callable[[], Row]) -> Row:
    """Result of a task in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task).result()


def _timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall-clock seconds and processor seconds."""
    started, used = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - started, time.process_time() - used


def _peak_mib() -> float:
    """Largest memory of this process so far."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def simulated_features(images: int, features: int, seed: int) -> tuple[Floats, Floats]:
    """Correlated features of two close laws, each [N, D]."""
    rng = np.random.default_rng(seed)
    rank = min(64, features)
    mix = rng.normal(size=(rank, features)) / rank**0.5
    sides = []
    for spread in (1.0, 1.2):
        side = spread * rng.normal(size=(images, rank)) @ mix
        side += 0.3 * rng.standard_normal(size=(images, features), dtype=np.float32)
        sides.append(side)
    return sides[0], sides[1]


# -- KID -------------------------------------------------------------------------------------


def simulated_groups(images: int, seed: int) -> Groups:
    """Three attributes and all their intersections: 36 groups of one image per subject."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {name: rng.choice(list(of), images, p=list(of.values())) for name, of in SHARES.items()}
    )
    for size in (2, 3):
        for names in combinations(SHARES, size):
            table[" x ".join(names)] = table[list(names)].agg(" ".join, axis=1)
    levels = {name: sorted(table[name].unique()) for name in table.columns}
    return group_units(table.assign(subject=np.arange(images)), levels)


def naive_kid(kernel: Kernel, real: Floats, generated: Floats) -> tuple[float, Floats]:
    """KID of one image per subject and its influence values [N], from the definition."""
    n = len(real)
    sums = np.empty(n)
    for start in range(0, n, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        x, y = real[rows], generated[rows]
        h = kernel(x, real) + kernel(y, generated) - kernel(x, generated) - kernel(y, real)
        h[np.arange(len(x)), np.arange(start, start + len(x))] = 0
        sums[rows] = h.sum(axis=1)
    means = sums / (n - 1)
    value = float(means.mean())
    return value, 2 * np.sqrt((n - 1) / n) / (n - 2) * (means - value)


def bench_kid(sizes: Sizes) -> Row:
    """The KID of all groups, against each group from its own kernel matrices."""
    real, generated = simulated_features(sizes.images, sizes.features, seed=0)
    groups = simulated_groups(sizes.images, seed=1)
    kernel = fit_kernel(real[:1000])
    found, seconds, used = _timed(lambda: kid(kernel, real, generated, groups))
    peak = _peak_mib()
    naive_seconds, worst = 0.0, 0.0
    for estimate, member in zip(found, tqdm(groups.members.T, disable=None), strict=True):
        if estimate.n < MIN_UNITS:
            continue
        rows = np.flatnonzero(member[groups.unit])
        (value, influence), taken, _ = _timed(
            partial(naive_kid, kernel, real[rows], generated[rows])
        )
        naive_seconds += taken
        scale = max(abs(value), float(np.sqrt(np.sum(influence**2))))
        worst = max(worst, abs(estimate.value - value) / scale)
        apart = np.abs(estimate.influence[groups.unit[rows]] - influence).max()
        worst = max(worst, float(apart / np.abs(influence).max()))
    return {
        "task": "KID audit",
        "size": f"{sizes.images} x {sizes.features}, {len(found)} groups",
        "seconds": seconds,
        "cpu_seconds": used,
        "naive_seconds": naive_seconds,
        "naive": "measured",
        "peak_mib": peak,
        "difference": worst,
    }


# -- FID -------------------------------------------------------------------------------------


def naive_frechet(real: Floats, generated: Floats) -> float:
    """Frechet distance from covariance matrices and a square root by eigenvectors."""
    first, second = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (real, generated))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    shift = np.sum((real.mean(axis=0) - generated.mean(axis=0)) ** 2)
    return float(shift + np.trace(first) + np.trace(second) - 2 * cross)


def block_jackknife(statistic: Callable[[Ints], float], unit: Ints) -> tuple[float, float]:
    """Corrected value and standard error, each block's units left out by hand."""
    names, owner = np.unique(unit, return_inverse=True)
    block = (np.random.default_rng(0).permutation(len(names)) % BLOCKS)[owner]
    full = statistic(np.arange(len(unit)))
    left = np.array([statistic(np.flatnonzero(block != b)) for b in range(BLOCKS)])
    error = np.sqrt((BLOCKS - 1) / BLOCKS * np.sum((left - left.mean()) ** 2))
    return float(BLOCKS * full - (BLOCKS - 1) * left.mean()), float(error)


def naive_resample(real: Floats, generated: Floats, counts: Floats, corrected: bool) -> float:
    """FID of one resample, its images repeated, every block left out in turn."""
    repeats = counts.astype(np.int64)

    def distance(rows: Ints) -> float:
        often = np.repeat(rows, repeats[rows])
        return naive_frechet(real[often], generated[often])

    every = np.arange(len(real))
    return block_jackknife(distance, every)[0] if corrected else distance(every)


def bench_fid(sizes: Sizes, features: int, corrected: bool) -> Row:
    """Resampled FID of all levels, against a few resamples of the first one."""
    sides = [simulated_features(sizes.subjects, features, seed) for seed in range(sizes.levels)]
    unit = np.arange(sizes.subjects)

    def resample_all() -> list[Floats]:
        return [fid_resamples(*side, unit, sizes.resamples, corrected=corrected) for side in sides]

    found, seconds, used = _timed(resample_all)
    peak = _peak_mib()
    counts = multiplicities(unit, sizes.resamples)[: sizes.checked]
    naive, taken, _ = _timed(
        lambda: [naive_resample(*sides[0], often, corrected) for often in counts]
    )
    total = sizes.levels * sizes.resamples
    return {
        "task": "corrected FID" if corrected else "plain FID",
        "size": f"{sizes.levels} levels of {sizes.subjects} x {features}, "
        f"{sizes.resamples} resamples",
        "seconds": seconds,
        "cpu_seconds": used,
        "naive_seconds": taken / len(counts) * total,
        "naive": f"extrapolated from {len(counts)} of {total} resamples",
        "peak_mib": peak,
        "difference": float(np.max(np.abs(found[0][: len(counts)] / np.array(naive) - 1))),
    }
