"""Reads from a dermatoscopic picture alone how much of the lesion has a second colour.

The lesion is what differs from the skin at the picture's edge. Inside it, brown and red are far
from grey; grey, white and blue patches are not. The share of the lesion's inside beyond the
middle between the two is the variegation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from fairdiff_lib.data.cohort import square

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SIDE = 64  # pixels that every picture is reduced to
_SKIN_FROM = 0.44  # of the side, from the middle: pixels beyond are skin
_LESION_TO = 0.50  # of the side, from the middle: pixels beyond are no lesion
_LEAST_HUE = 0.035  # distance from the skin in shares of red, green and blue
_LEAST_CONTRAST = 0.25  # distance from the skin in full scales, where the hue is the same
_MOST_AREA = 0.6  # of the picture; more is no lesion on skin
_LEAST_PIXELS = 30  # inside the lesion's border; fewer is no lesion
_BORDER = 2  # pixels, where lesion and skin mix
_BODY = 85  # percentile of the inside's colour that stands for brown or red
_GREY = -0.02  # colour, red less blue over their sum, of grey and blue patches


def measure_variegation(images: npt.NDArray[np.uint8]) -> Floats:
    """Share of the lesion's area that shows grey, white or blue.

    Parameters
    ----------
    images : uint8 [n, 3, height, width]
        Dermatoscopic pictures with the lesion near the middle; the central square is used, at
        64 x 64 pixels.

    Returns
    -------
    float64 [n]
        0 to 1; NaN where no lesion is found.
    """
    return np.array([_one(image) for image in images], dtype=np.float64)


def _one(image: npt.NDArray[np.uint8]) -> float:
    picture = square(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), SIDE)
    planes = np.moveaxis(np.asarray(picture, dtype=np.float64) / 255, 2, 0)
    lesion = _lesion(ndimage.gaussian_filter(planes, (0, 1.3, 1.3)))
    inside = ndimage.binary_erosion(lesion, iterations=_BORDER)
    if inside.sum() < _LEAST_PIXELS or lesion.mean() > _MOST_AREA:
        return float("nan")
    smooth = ndimage.gaussian_filter(planes, (0, 0.8, 0.8))
    colour = ((smooth[0] - smooth[2]) / np.maximum(smooth.sum(axis=0), 0.05))[inside]
    reach = float(np.percentile(colour, _BODY)) - _GREY
    if reach <= 0:  # no brown or red at all
        return float("nan")
    # 1 at grey's side of the middle, 0 at the body's, with a slope for pixels that mix both
    return float(np.clip(1.5 - 2 * (colour - _GREY) / reach, 0, 1).mean())


def _lesion(planes: Floats) -> Mask:
    """Pixels [side, side] of the largest thing that isn't skin; planes are [3, side, side]."""
    reach = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    middle = np.hypot(reach[:, None], reach[None, :])
    hue = planes / np.maximum(planes.sum(axis=0), 0.05)
    far = []
    for values in (hue, planes):
        skin = np.median(values[:, middle > _SKIN_FROM], axis=1)
        far.append(np.sqrt(np.square(values - skin[:, None, None]).sum(axis=0)))
    other = ((far[0] > _LEAST_HUE) | (far[1] > _LEAST_CONTRAST)) & (middle < _LESION_TO)
    other = ndimage.binary_closing(ndimage.binary_opening(other), iterations=3)
    parts, count = ndimage.label(ndimage.binary_fill_holes(other))
    if not count:
        return np.zeros_like(other)
    sizes = np.bincount(parts.ravel())[1:]
    largest: Mask = parts == 1 + int(sizes.argmax())
    return largest
