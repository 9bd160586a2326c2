"""Reads the cup-disc ratio from a fundus picture alone.

Two concentric steps of brightness, background to rim and rim to cup, are fitted to
ring quantiles around the disc. Their edges may be blurred; the blur is fitted too.
The square root of cup area over disc area is then the ratio of the two radii.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from fairdiff_lib.data.cohort import square

Floats = npt.NDArray[np.float64]
Centres = npt.NDArray[np.int64]

SIDE = 64  # pixels that every picture is reduced to
RINGS = 21  # rings of 1 pixel around the disc centre that are looked at
_DISC_RINGS = 16  # of them, those that may hold the disc
_SEARCH = 12  # pixels from the middle within which the disc centre is sought
# red shows the disc alone (vessels and a crescent are faint in it); green and blue show the cup
_MIXTURES = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
# quantile of a ring that stands for it: in red below a crescent, else above the vessels
_QUANTILES = (0.55, 0.75)
_LEAST_STEP = 4.0  # grey levels of 255; a fainter rim or cup counts as none
_LEAST_EXPLAINED = 0.75  # share of the rings' variance; less is no disc
_CHUNK = 64  # pictures at once, for memory


@dataclass(frozen=True)
class _Models:
    """Candidate discs: radii [m] of disc and cup, and their least-squares solutions.

    ``basis`` [m, k, rings] is orthonormal under the ring weights; ``solve``
    [m, 2, rings] gives the steps background to rim and rim to cup.
    """

    disc: Floats
    cup: Floats
    basis: Floats
    solve: Floats


@lru_cache(maxsize=1)
def _ring_pixels() -> tuple[Centres, ...]:
    """Flat indices of the pixels of each ring in a square of 2 RINGS + 1 pixels."""
    reach = np.arange(-RINGS, RINGS + 1)
    ring = np.rint(np.hypot(reach[:, None], reach[None, :])).astype(np.int64).ravel()
    return tuple(np.flatnonzero(ring == index) for index in range(RINGS))


def _weights() -> Floats:
    """Square root of the weight [rings] of each ring: its pixels, up to 12 of them."""
    weights: Floats = np.sqrt(np.minimum([len(pixels) for pixels in _ring_pixels()], 12.0))
    return weights


def _step(radius: float, blur: float) -> Floats:
    """Ring means [rings] of a blurred disc of 1 on 0; radius and blur in pixels."""
    fine = 4  # sub-pixels per pixel
    axis = np.arange(-RINGS * fine, RINGS * fine + 1) / fine
    disc = (np.hypot(axis[:, None], axis[None, :]) <= radius).astype(np.float64)
    # a pixel averages over its own area: 0.3 pixels of blur at least
    soft = ndimage.gaussian_filter(disc, math.hypot(blur, 0.3) * fine, truncate=3)
    means: Floats = _means(soft[None, ::fine, ::fine])[0]
    return means


@lru_cache(maxsize=4)
def _models(spacing: float, blurs: tuple[float, ...]) -> _Models:
    """All discs of 8 to 15.5 pixels radius with cups of 0.12 to 0.97 of it, ``spacing`` apart."""
    weights = _weights()
    slope = np.clip(np.arange(RINGS) / 10 - 1, 0, None)  # light falls off outside the disc
    flat = np.ones(RINGS)
    found: list[tuple[float, float, Floats, Floats]] = []
    radii = np.arange(1.5, 15.6, spacing).tolist()
    for blur in blurs:
        steps = {radius: _step(radius, blur) for radius in radii}
        for disc in (radius for radius in radii if radius >= 8):
            for cup in (r for r in radii if 0.12 * disc <= r <= 0.97 * disc):
                design = np.stack([steps[disc], steps[cup], flat, slope], axis=1)
                q, r = np.linalg.qr(design * weights[:, None])
                found.append((disc, cup, q.T, np.linalg.solve(r, q.T)[:2]))
    disc_radii, cups, bases, solutions = zip(*found, strict=True)
    return _Models(np.array(disc_radii), np.array(cups), np.stack(bases), np.stack(solutions))


def _patches(grey: Floats, centres: Centres) -> Floats:
    """Squares [n, p, p] cut out of pictures around centres [n, 2]; edges are repeated."""
    reach = np.arange(-RINGS, RINGS + 1)
    rows = np.clip(centres[:, :1] + reach, 0, SIDE - 1)
    columns = np.clip(centres[:, 1:] + reach, 0, SIDE - 1)
    patches: Floats = grey[
        np.arange(len(grey))[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return patches


def _means(patches: Floats) -> Floats:
    """Ring means [n, rings] of squares [n, p, p]."""
    flat = patches.reshape(len(patches), -1)
    means: Floats = np.stack([flat[:, pixels].mean(axis=1) for pixels in _ring_pixels()], axis=1)
    return means


def _quantiles(patches: Floats, quantile: float) -> Floats:
    """Quantile of each ring [n, rings] of squares [n, p, p]."""
    flat = patches.reshape(len(patches), -1)
    values = []
    for pixels in _ring_pixels():
        rank = round(quantile * (len(pixels) - 1))
        values.append(np.partition(flat[:, pixels], rank, axis=1)[:, rank])
    return np.stack(values, axis=1)


def _profiles(planes: Floats, centres: Centres) -> Floats:
    """Ring summaries [2, n, rings] of both mixtures around centres [n, 2]."""
    pairs = zip(planes, _QUANTILES, strict=True)
    return np.stack([_quantiles(_patches(plane, centres), q) for plane, q in pairs])


def _fit(profiles: Floats, models: _Models) -> tuple[Floats, Centres]:
    """Least unexplained share of the variance [n] and the model that leaves it [n].

    ``profiles`` is [2, n, rings]: red, and green with blue. Both get the same radii.
    """
    weights = _weights()
    m, k, rings = models.basis.shape
    unexplained = np.zeros((profiles.shape[1], m))
    for channel, profile in enumerate(profiles):
        y = (profile - profile.mean(axis=1, keepdims=True)) * weights  # [n, rings]
        total = np.maximum(np.square(y).sum(axis=1), 1e-9)
        explained = np.square(y @ models.basis.reshape(m * k, rings).T)
        unexplained += 1 - explained.reshape(-1, m, k).sum(axis=2) / total[:, None]
        steps = (y @ models.solve.reshape(m * 2, rings).T).reshape(-1, m, 2)
        # the disc must be brighter than the fundus in red, the cup than the rim in green and blue
        unexplained[steps[:, :, channel] < _LEAST_STEP] = np.inf
    best: Centres = unexplained.argmin(axis=1)
    return unexplained[np.arange(len(best)), best] / len(profiles), best


def _planes(images: npt.NDArray[np.uint8]) -> Floats:
    """Central squares [2, n, side, side] in the two mixtures of the channels, 0 to 255."""
    planes = np.empty((len(_MIXTURES), len(images), SIDE, SIDE))
    for index, image in enumerate(images):
        picture = square(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), SIDE)
        planes[:, index] = np.moveaxis(np.asarray(picture) @ _MIXTURES.T, 2, 0)
    return planes


def _scatter(patches: Floats) -> Floats:
    """Share of the variance [n] within rings: least around the centre of a round thing."""
    flat = patches.reshape(len(patches), -1)
    rings = [flat[:, pixels] for pixels in _ring_pixels()[:_DISC_RINGS]]
    within = sum(ring.var(axis=1) * ring.shape[1] for ring in rings)
    everything = np.concatenate(rings, axis=1)
    share: Floats = within / np.maximum(everything.var(axis=1) * everything.shape[1], 1e-9)
    return share


def _centres(planes: Floats) -> Centres:
    """Row and column [n, 2] of the disc: the brightest place at the scale of a disc, refined."""
    smooth = ndimage.gaussian_filter(planes[0], (0, 5, 5))
    low, high = SIDE // 2 - _SEARCH, SIDE // 2 + _SEARCH
    inner = smooth[:, low:high, low:high].reshape(len(smooth), -1)
    centres: Centres = np.stack(np.divmod(inner.argmax(axis=1), high - low), axis=1) + low
    for stride in (3, 1):
        shifts = stride * np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
        scores = [
            sum(_scatter(_patches(plane, centres + shift)) for plane in planes) for shift in shifts
        ]
        centres = centres + shifts[np.stack(scores).argmin(axis=0)]
    return centres


def measure_cup_disc_ratio(images: npt.NDArray[np.uint8]) -> Floats:
    """Cup-disc ratio (root of the area ratio) that pictures show.

    Parameters
    ----------
    images : uint8 [n, 3, height, width]
        Fundus pictures with the disc near the middle; the central square is used,
        at 64 x 64 pixels.

    Returns
    -------
    float64 [n]
        0.12 to 0.97; NaN where no disc with a brighter cup is found.
    """
    ratios = np.full(len(images), np.nan)
    fine = _models(0.25, (0.3, 1.0, 1.7, 2.5))
    for start in range(0, len(images), _CHUNK):
        planes = _planes(images[start : start + _CHUNK])
        left, best = _fit(_profiles(planes, _centres(planes)), fine)
        found = left < 1 - _LEAST_EXPLAINED
        ratios[start : start + _CHUNK][found] = (fine.cup / fine.disc)[best[found]]
    return ratios
