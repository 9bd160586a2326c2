"""Frechet distance (FID): the number, its correction, its resamples, its growth as n falls.

The trace term needs no covariance matrix: with X and Y the centred features of n and m images,
tr((S T)^(1/2)) is the nuclear norm of X Y' / sqrt((n - 1) (m - 1)), a matrix of images by
images, or of features by features once X and Y are replaced by their triangular factors.

The plain value is biased by n and by the spread of the group. Leaving out one block of units
at a time removes what is proportional to 1/n; that much is claimed only where there are
``UNITS_PER_FEATURE`` units per feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fairdiff_lib.audit.estimate import Floats, Ints
from fairdiff_lib.audit.estimators import multiplicities
from fairdiff_lib.settings.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = 20  # of units, for the jackknife
UNITS_PER_FEATURE = 3  # FID needs that many subjects per feature, or its covariance is noise
FAR = 0.1  # mean distance to training images from which nothing was memorised: torchmetrics' value
AT_ONCE = 2**22  # entries of covariance matrices that are worked on together


def fid_as_released(real: Floats, generated: Floats) -> float:
    """Frechet distance at the group's own n, as torchmetrics has it: biased by n and covariance.

    Of features as given, whatever their spread.
    """
    return frechet_distance(real, generated)


def mifid(train_real: Floats, generated: Floats) -> float:
    """Memorisation-informed FID against *training* reals, as torchmetrics has it.

    The distance over the mean distance, 1 - |cosine|, of each training image to the nearest
    generated one, which counts as 1 from ``FAR`` on. The released code compares with test images,
    which a generator cannot have memorised. NaN where one side has zero features only.
    """
    if not train_real.any() or not generated.any():
        return float("nan")
    sides = _tensors(train_real, generated)
    distance = _distance_of_gaussians([s.mean(0) for s in sides], [s.T.cov() for s in sides])
    seen, made = (side[side.sum(1) != 0] for side in sides)
    seen, made = (side / side.norm(dim=1, keepdim=True) for side in (seen, made))
    near = float((1 - (seen @ made.T).abs()).min(dim=1).values.mean())
    return distance / ((near if near < FAR else 1.0) + 1e-14) if distance > 1e-8 else 0.0


def _tensors(*arrays: Floats) -> list[Tensor]:
    import torch  # late: the one place of this room that needs it

    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def _distance_of_gaussians(means: Sequence[Tensor], covariances: Sequence[Tensor]) -> float:
    """|m - m'|^2 + tr(S) + tr(S') - 2 sum sqrt(eigenvalues of S S')."""
    import torch

    shift = (means[0] - means[1]).square().sum()
    traces = covariances[0].trace() + covariances[1].trace()
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return float(shift + traces - 2 * roots)


def frechet_distance(real: Floats, generated: Floats) -> float:
    """|mean difference|^2 + tr(S + T - 2 (S T)^(1/2)) of features [N, D] and [P, D]."""
    x, y = real - real.mean(axis=0), generated - generated.mean(axis=0)
    n, p = len(x) - 1, len(y) - 1
    cross = np.linalg.svd(_short(x) @ _short(y).T, compute_uv=False).sum() / np.sqrt(n * p)
    shift = np.sum((real.mean(axis=0) - generated.mean(axis=0)) ** 2)
    return float(shift + np.sum(x**2) / n + np.sum(y**2) / p - 2 * cross)


def _short(x: Floats) -> Floats:
    """x, or its triangular factor where that has fewer rows: x'x is the same."""
    return x if len(x) <= x.shape[1] else np.asarray(np.linalg.qr(x, mode="r"))


# -- corrected -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Moments:
    """Sums over the images of each of several sets: how many, of features, of their products."""

    size: Tensor  # [B]
    first: Tensor  # [B, D]
    second: Tensor  # [B, D, D]

    def total(self) -> _Moments:
        return _Moments(self.size.sum(0, True), self.first.sum(0, True), self.second.sum(0, True))

    def without(self, other: _Moments, sets: slice) -> _Moments:
        """Of these less some sets of ``other`` each."""
        return _Moments(
            self.size - other.size[sets],
            self.first - other.first[sets],
            self.second - other.second[sets],
        )

    def mean(self) -> Tensor:  # [B, D]
        return self.first / self.size[:, None]

    def covariance(self) -> Tensor:  # [B, D, D]
        outer = self.first[:, :, None] * self.mean()[:, None, :]
        return (self.second - outer) / (self.size - 1)[:, None, None]


def _moments(sets: Sequence[Tensor], often: Sequence[Tensor]) -> _Moments:
    """Of sets of images [N_b, D] that count so often each [N_b]."""
    import torch

    weighted = [images * count[:, None] for images, count in zip(sets, often, strict=True)]
    return _Moments(
        torch.stack([count.sum() for count in often]),
        torch.stack([images.sum(0) for images in weighted]),
        torch.stack([a.T @ b for a, b in zip(sets, weighted, strict=True)]),
    )


def _distances(real: _Moments, generated: _Moments) -> Floats:  # [B]
    """Frechet distances from moments; with S = L L', the trace term is tr((L' T L)^(1/2))."""
    import torch

    first, second = real.covariance(), generated.covariance()
    root, failed = torch.linalg.cholesky_ex(first)
    if failed.any():  # a feature without spread, or one that others determine
        values, vectors = torch.linalg.eigh(first)
        root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    inner = torch.linalg.eigvalsh(root.mT @ second @ root).clamp(min=0).sqrt().sum(1)
    traces = (first + second).diagonal(dim1=1, dim2=2).sum(1)
    shift = ((real.mean() - generated.mean()) ** 2).sum(1)
    return np.asarray((shift + traces - 2 * inner).numpy())


@dataclass(frozen=True)
class _Blocks:
    """Both sides' images, dealt into blocks of whole units."""

    rows: list[Ints]  # of each block
    real: list[Tensor]  # [N_b, D]
    generated: list[Tensor]

    def moments(self, counts: Floats) -> tuple[_Moments, _Moments]:
        """Of each block on both sides, images counted so often each [N]."""
        often = _tensors(*(counts[rows] for rows in self.rows))
        return _moments(self.real, often), _moments(self.generated, often)

    def distance(self, counts: Floats) -> float:
        real, generated = self.moments(counts)
        return float(_distances(real.total(), generated.total())[0])

    def left_out(self, counts: Floats) -> Floats:  # [1 + BLOCKS]
        """Distance of all images, then without one block each."""
        real, generated = self.moments(counts)
        first, second = real.total(), generated.total()
        found = [_distances(first, second)]
        at_once = max(1, AT_ONCE // real.first.shape[1] ** 2)
        for start in range(0, BLOCKS, at_once):
            sets = slice(start, start + at_once)
            found.append(_distances(first.without(real, sets), second.without(generated, sets)))
        return np.concatenate(found)


def _deal(real: Floats, generated: Floats, unit: Ints) -> _Blocks:
    """Units (never single images) at random in blocks, of features less their common mean."""
    names, owner = np.unique(unit, return_inverse=True)
    block = (np.random.default_rng(0).permutation(len(names)) % BLOCKS)[owner]
    rows = [np.flatnonzero(block == b) for b in range(BLOCKS)]
    centre = (real.mean(axis=0) + generated.mean(axis=0)) / 2
    x, y = _tensors(real - centre, generated - centre)
    return _Blocks(rows, [x[part] for part in rows], [y[part] for part in rows])


def estimable(features: int, units: int) -> bool:
    """Whether there are enough units for a corrected FID."""
    return units >= UNITS_PER_FEATURE * features


def fid(real: Floats, generated: Floats, unit: Ints) -> tuple[float, float]:
    """Block-jackknife-corrected FID and its standard error; NaN below ``UNITS_PER_FEATURE``."""
    if not estimable(real.shape[1], len(np.unique(unit))):
        return float("nan"), float("nan")
    found = _deal(real, generated, unit).left_out(np.ones(len(unit)))
    error = np.sqrt((BLOCKS - 1) * np.var(found[1:]))
    return _corrected(found), float(error)


def _corrected(found: Floats) -> float:
    """Jackknife value from the distance of all images and those without one block each."""
    return float(BLOCKS * found[0] - (BLOCKS - 1) * found[1:].mean())


# -- resampled -------------------------------------------------------------------------------


def fid_resamples(
    real: Floats,
    generated: Floats,
    unit: Ints,
    resamples: int = 1000,
    seed: int = 0,
    corrected: bool = True,
) -> Floats:
    """FID of cluster-bootstrap resamples [R]; NaN where the corrected one is not estimable.

    Corrected: every resample goes through its own block jackknife, all copies of a unit in one
    block. Copies then never vouch for each other, and the resamples lie around the corrected FID of
    all images. Plain ones (what released tests are made of) count every copy as a further image:
    they lie above the plain FID by about as much again as that lies above the truth.
    """
    if corrected and not estimable(real.shape[1], len(np.unique(unit))):
        return np.full(resamples, np.nan)
    drawn = multiplicities(unit, resamples, seed)
    if not corrected and len(unit) < real.shape[1]:
        return _each(_from_gram(real, generated), drawn)
    blocks = _deal(real, generated, unit)
    if not corrected:
        return _each(blocks.distance, drawn)
    return _each(lambda counts: _corrected(blocks.left_out(counts)), drawn)


def _each(statistic: Callable[[Floats], float], drawn: Floats) -> Floats:  # [R, N] => [R]
    """Statistic of every resample, several at a time on one thread each.

    Matrices of a hundred rows gain nothing from more threads and lose much to waiting.
    """
    import torch
    from tqdm.auto import tqdm

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(statistic, drawn)
            bar = tqdm(found, desc="resamples of FID", total=len(drawn), disable=None, leave=False)
            return np.array(list(bar))
    finally:
        torch.set_num_threads(threads)


def _from_gram(real: Floats, generated: Floats) -> Callable[[Floats], float]:
    """Plain FID of images counted so often each, where they are fewer than features.

    A resample reweights the cross-Gram matrix; its nuclear norm comes from the eigenvalues of M M',
    at a third of the cost of a singular value decomposition.
    """
    import torch

    centre = (real.mean(axis=0) + generated.mean(axis=0)) / 2
    x, y = real - centre, generated - centre
    own, cross = x @ x.T + y @ y.T, x @ y.T

    def distance(counts: Floats) -> float:
        kept = np.flatnonzero(counts)
        often, n = counts[kept], counts.sum()
        p, inner, m = often / n, own[np.ix_(kept, kept)], cross[np.ix_(kept, kept)]
        means = float(p @ inner @ p)  # |mean of x|^2 + |mean of y|^2
        between = float(p @ m @ p)
        spread = float(often @ np.diag(inner) - n * means) / (n - 1)
        m = m - (p @ m)[None, :] - (m @ p)[:, None] + between
        m *= np.sqrt(often)[:, None] * np.sqrt(often)[None, :] / (n - 1)
        (root,) = _tensors(m)
        squares = torch.linalg.eigvalsh(root @ root.T).clamp(min=0)
        return float(means - 2 * between + spread - 2 * squares.sqrt().sum())

    return distance


# -- against n -------------------------------------------------------------------------------


def fid_against_n(
    real: Floats, generated: Floats, sizes: Sequence[int], seed: int = 0, draws: int = 1
) -> pd.DataFrame:
    """Plain FID of random subsets of ``sizes`` images a side, the smaller within the larger."""
    most = min(len(real), len(generated))
    for n in sizes:
        if not 2 <= n <= most:
            raise InputError(f"FID against n: size {n}; expected 2 to {most}")
    rng, rows = np.random.default_rng(seed), []
    for draw in range(draws):
        first, second = rng.permutation(len(real)), rng.permutation(len(generated))
        rows += [(n, draw, frechet_distance(real[first[:n]], generated[second[:n]])) for n in sizes]
    return pd.DataFrame(rows, columns=["n", "draw", "value"])
