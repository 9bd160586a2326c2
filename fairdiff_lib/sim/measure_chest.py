"""Reads the height of a pleural effusion from a chest film alone, by comparing its two sides.

Along each chest wall the lung is dark and what lies below it, diaphragm or fluid, is bright. How
much higher that step is on one side than on the other says how high fluid stands there: by the
shape of the diaphragm and of the fluid's surface in ``chest``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from fairdiff_lib.data.cohort import square
from fairdiff_lib.sim.chest import diaphragm, fluid_level

Floats = npt.NDArray[np.float64]

SIDE = 64  # pixels that every picture is reduced to
_COLUMNS = (0.30, 0.36)  # distance from the chest's middle, of the side: where a lung is read
_ROWS = (0.22, 0.90)  # of the side: below the clavicles, above the picture's end
_SHIFT = 3  # pixels by which the chest's middle may lie off the picture's
_LEAST_STEP = 12.0  # grey levels of 255 from lung to what is below; fewer is no chest
_LEAST_RISE = 0.02  # of the side; a turned patient's two sides differ by up to this without fluid
_HEIGHTS = np.linspace(0, 0.6, 121)  # that a step is compared with


def measure_effusion(images: npt.NDArray[np.uint8]) -> Floats:
    """Height of fluid at the chest wall above the costophrenic angle.

    Parameters
    ----------
    images : uint8 [n, 3, height, width]
        Frontal films with the chest near the middle and fluid on one side at most; the central
        square is used, at 64 x 64 pixels.

    Returns
    -------
    float64 [n]
        Fraction of the image height, from 0; NaN where no lung ends in something brighter.
    """
    return np.array([_one(image) for image in images], dtype=np.float64)


def _one(image: npt.NDArray[np.uint8]) -> float:
    picture = square(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), SIDE)
    grey = ndimage.gaussian_filter(np.asarray(picture, dtype=np.float64).mean(axis=2), 0.8)
    middle = SIDE / 2 - 0.5 + _off_centre(grey)
    right, left = (_level(_profile(grey, middle, side)) for side in (-1, 1))
    usual, steps = _steps()
    rise = abs(left - right - usual)
    return 0.0 if rise < _LEAST_RISE else float(np.interp(rise, steps, _HEIGHTS))


@lru_cache(maxsize=1)
def _steps() -> tuple[float, Floats]:
    """Level of the left side below the right without fluid; and the step for each height."""
    x = np.linspace(*_COLUMNS, 40, dtype=np.float32)
    floor = diaphragm(x)
    steps = [float(np.mean(floor - np.minimum(floor, fluid_level(x, h)))) for h in _HEIGHTS]
    # the smallest heights lie below these columns: their step is none, and so is their reading
    return float(np.mean(floor - diaphragm(-x))), np.maximum.accumulate(steps)


def _off_centre(grey: Floats) -> float:
    """Pixels by which the bright middle of the upper chest lies off the picture's middle."""
    rows = grey[round(0.25 * SIDE) : round(0.55 * SIDE)].mean(axis=0)
    scores = []
    for shift in range(-_SHIFT, _SHIFT + 1):
        reach = np.arange(4, 22)
        middle = SIDE // 2 + shift
        scores.append(-np.abs(rows[middle + reach] - rows[middle - 1 - reach]).sum())
    return float(np.argmax(scores) - _SHIFT)


def _profile(grey: Floats, middle: float, side: int) -> Floats:
    """Mean grey level of each row between the columns of a side."""
    ends = sorted(middle + side * share * SIDE for share in _COLUMNS)
    return np.asarray(grey[:, round(ends[0]) : round(ends[1]) + 1].mean(axis=1))


def _level(profile: Floats) -> float:
    """Row, as a share of the side, at which a lung ends; NaN where there is none."""
    first, last = (round(share * SIDE) for share in _ROWS)
    rows = profile[first:last]
    lung = float(np.quantile(rows, 0.10))
    below = float(np.quantile(rows[len(rows) // 2 :], 0.80))
    if below - lung < _LEAST_STEP:
        return float("nan")
    dark = np.flatnonzero(rows < (lung + below) / 2)
    if not len(dark) or dark[-1] + 1 >= len(rows):
        return float("nan")
    at = int(dark[-1])
    share = ((lung + below) / 2 - rows[at]) / max(rows[at + 1] - rows[at], 1e-9)
    return float(first + at + share) / SIDE
