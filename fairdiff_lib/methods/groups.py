"""What a batch says about groups: means, gaps, running means, counts. Float64 throughout.

Levels of all attributes, one attribute after another, are G positions of a vector; a row has a
level of each of the A attributes, int64 [N, A].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.settings.errors import InputError

Attributes = Mapping[str, tuple[str, ...]]  # attribute name -> level names, in the cohort's order


def positions(levels: Tensor, sizes: list[int]) -> Tensor:
    """Position of each row's levels in a vector over all G levels, int64 [N, A]."""
    starts = torch.tensor([0, *np.cumsum(sizes)[:-1]])
    return levels + starts


def by_attribute(values: Tensor, sizes: list[int]) -> list[Tensor]:
    """A vector over all G levels cut into one per attribute."""
    return list(torch.split(values, sizes))


def level_sums(values: Tensor, levels: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Sum of values [N] and number of rows per level, float64 [G] each."""
    where = positions(levels, sizes)
    sums, counts = torch.zeros(2, sum(sizes), dtype=torch.float64)
    for column in range(len(sizes)):
        sums.index_add_(0, where[:, column], values.double())
        counts.index_add_(0, where[:, column], torch.ones(len(values), dtype=torch.float64))
    return sums, counts


def level_counts(levels: Tensor, sizes: list[int]) -> Tensor:
    """Number of rows per level, float64 [G]."""
    return level_sums(torch.zeros(len(levels)), levels, sizes)[1]


def group_means(losses: Tensor, levels: Tensor, attributes: Attributes) -> list[Tensor]:
    """Mean loss of each level, per attribute.

    Losses float [N], level indices int64 [N, A] => A float64 [number of levels], NaN where empty.
    """
    sizes = [len(names) for names in attributes.values()]
    sums, counts = level_sums(losses, levels, sizes)
    return by_attribute(sums / counts, sizes)


def summed_gap(means: list[Tensor], missing_group: str = "as_released") -> float:
    """``- sum_a (max_level - min_level)`` of group means, larger is fairer.

    An attribute with an absent level (NaN) contributes 0 as released (P1: the best value there
    is); corrected it is left out and the others stand for it, NaN if there is none.
    """
    gaps = [float(m.max() - m.min()) for m in means]
    seen = [gap for gap in gaps if gap == gap]
    if missing_group == "as_released":
        return -sum(seen)
    return -len(gaps) * sum(seen) / len(seen) if seen else float("nan")


def loss_gap(
    losses: Tensor, levels: Tensor, attributes: Attributes, missing_group: str = "as_released"
) -> float:
    """:func:`summed_gap` of a batch's :func:`group_means`."""
    return summed_gap(group_means(losses, levels, attributes), missing_group)


class RunningMeans:
    """Running mean loss of each level, in equal bins of the timestep and then over the bins.

    A batch's group means compare samples at different random timesteps, whose losses differ by
    far more than groups do (P6). Within a bin they are comparable, so a level's mean is the mean
    over those bins in which every level of its attribute was seen.

    ``decay`` is what a step keeps of the past, in [0, 1]; 1 = the plain mean. ``timesteps`` is the
    length of the noise schedule.
    """

    def __init__(
        self, attributes: Attributes, bins: int, decay: float = 1.0, timesteps: int = 1000
    ) -> None:
        self.sizes = [len(names) for names in attributes.values()]
        self.bins, self.decay, self.timesteps = bins, decay, timesteps
        self.sums, self.counts = torch.zeros(2, bins, sum(self.sizes), dtype=torch.float64)

    def add(self, losses: Tensor, levels: Tensor, timesteps: Tensor | None) -> None:
        """A batch: float [N], int64 [N, A], int64 [N] (None: all in the first bin)."""
        self.sums *= self.decay
        self.counts *= self.decay
        steps = torch.zeros(len(losses)) if timesteps is None else timesteps
        bins = (steps * self.bins // self.timesteps).long()
        for bin_ in sorted(set(bins.tolist())):
            own = bins == bin_
            sums, counts = level_sums(losses[own], levels[own], self.sizes)
            self.sums[bin_] += sums
            self.counts[bin_] += counts

    def means(self) -> list[Tensor]:
        """Mean of each level per attribute, float64; NaN where an attribute was never complete."""
        found = []
        for sums, counts in zip(
            torch.split(self.sums, self.sizes, dim=1),
            torch.split(self.counts, self.sizes, dim=1),
            strict=True,
        ):
            complete = (counts > 0).all(dim=1)
            found.append((sums[complete] / counts[complete]).mean(dim=0))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts, JSON-ready."""
        return {"sums": self.sums.tolist(), "counts": self.counts.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = torch.tensor(state["sums"], dtype=torch.float64)
        self.counts = torch.tensor(state["counts"], dtype=torch.float64)


def inverse_frequency(levels: Tensor, sizes: list[int]) -> Tensor:
    """Weight of each row, ``mean_a N / (K_a n_{a, level_a(i)})`` with K_a levels, float64 [N].

    Its mean over the rows is 1, and so is its mean within a level of one attribute alone.
    """
    counts = level_counts(levels, sizes)
    if not bool((counts > 0).all()):
        raise InputError(
            f"training rows per level {counts.int().tolist()}: expected at least one of each"
        )
    of_level = len(levels) / (torch.repeat_interleave(torch.tensor(sizes), torch.tensor(sizes)))
    return (of_level / counts)[positions(levels, sizes)].mean(dim=1)


def raked(levels: Tensor, sizes: list[int], rounds: int = 200) -> Tensor:
    """Row weights that give every level of every attribute the same share, float64 [N], mean 1.

    Iterative proportional fitting (Deming and Stephan 1940): each attribute in turn is scaled to
    equal shares, until all hold at once.
    """
    where = positions(levels, sizes)
    weights = inverse_frequency(levels, sizes)
    for _ in range(rounds):
        for column, size in enumerate(sizes):
            own = torch.zeros(sum(sizes), dtype=torch.float64)
            own.index_add_(0, where[:, column], weights)
            weights = weights * (weights.sum() / size / own)[where[:, column]]
    return weights / weights.mean()


def balanced_rows(levels: Tensor, sizes: list[int], count: int, seed: int) -> Tensor:
    """Up to ``count`` distinct rows, the levels taking turns so that rare ones are all there.

    Returns int64 [min(count, N)], ascending; the seed is that of the order within a level.
    """
    order = torch.randperm(len(levels), generator=generator_for(seed, "rows"))
    where = positions(levels, sizes)
    queues = [[r for r in order.tolist() if g in where[r]] for g in range(sum(sizes))]
    chosen: set[int] = set()
    while len(chosen) < min(count, len(levels)):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < count:
                chosen.add(queue.pop(0))
    return torch.tensor(sorted(chosen))
