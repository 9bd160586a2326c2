"""How groups are compared elsewhere: tests that alarm where there is no disparity.

Each stands beside the audit in the proof and is used nowhere else. ``small`` marks the rows
of the smaller group; the rest are the other group.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fairdiff_lib.audit.estimate import Bools, Floats, Ints
from fairdiff_lib.audit.fid import frechet_distance
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.audit.released import replicate_t_test_as_released

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
