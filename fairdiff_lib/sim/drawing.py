"""What the drawers of simulated pictures share: planes of pixels, soft edges, noise, a camera.

Lengths are fractions of the image height. Pictures are float32 [3, height, width], 0 to 1,
until the camera makes bytes of them. Nothing here knows what is drawn.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from fairdiff_lib.data.cohort import square

Plane = npt.NDArray[np.float32]  # [height, width]
Picture = npt.NDArray[np.float32]  # [3, height, width], 0 to 1
Points = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]  # [height, width, 3]
Colour = tuple[float, float, float]  # linear share of full scale: red, green, blue

Floats = npt.NDArray[np.float64]

SIDE = 64  # pixels that a ruler reduces every picture to
NOISE_BY_CHANNEL: Colour = (1.0, 0.9, 0.8)


@lru_cache(maxsize=4)
def grid(height: int, width: int) -> tuple[Plane, Plane]:
    """Pixel centres from the middle of the image, in fractions of the height."""
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / height
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / height
    x_plane, y_plane = np.meshgrid(x, y)
    return x_plane.astype(np.float32), y_plane.astype(np.float32)


def ramp(distance: npt.NDArray[np.floating[Any]], width: float) -> Plane:
    """0 to 1 over a border of ``width``, 1 where ``distance`` is positive."""
    return np.asarray(np.clip(distance / width + 0.5, 0, 1), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, cells: int, height: int, width: int) -> Plane:
    """Noise with ``cells`` independent values per image height, about unit variance."""
    shape = (cells, max(2, round(cells * width / height)))
    small = Image.fromarray(rng.standard_normal(shape, dtype=np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def mix(image: Picture, colour: Colour, share: Plane) -> None:
    """Move each channel towards ``colour`` by ``share``, in place."""
    for plane, value in zip(image, colour, strict=True):
        plane += share * (np.float32(value) - plane)


def darken(image: Picture, colour: Colour, share: Plane) -> None:
    """Multiply each channel by 1 - ``colour`` * ``share``, in place."""
    for plane, value in zip(image, colour, strict=True):
        plane *= 1 - np.float32(value) * share


def strokes(lines: list[Points], thickness: list[float], height: int, width: int) -> Plane:
    """Share of each pixel that lines of points (x, y from the middle) cover, 0 to 1."""
    rows = max(2, -(-512 // height)) * height  # drawn at 512 rows at least, then averaged down
    canvas = Image.new("L", (round(rows * width / height), rows))
    draw = ImageDraw.Draw(canvas)
    middle = np.array([canvas.width / 2, rows / 2])
    for line, thick in zip(lines, thickness, strict=True):
        points = (line * rows + middle).ravel().tolist()
        draw.line(points, fill=255, width=max(1, round(thick * rows)), joint="curve")
    small = canvas.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def photograph(
    image: Picture, *, defocus: float, noise: float, seed: int, field: Plane | None = None
) -> Bytes:
    """Blur, then noise that grows with brightness.

    Parameters
    ----------
    image : float32 [3, height, width]
        Lit as the camera sees it.
    defocus : float
        Standard deviation of the blur, fraction of the height.
    noise : float
        Standard deviation at full brightness, share of full scale.
    seed : int
        Of the noise.
    field : float32 [height, width], optional
        Where there is a picture (1) and where the camera sees nothing (0).
    """
    height, width = image.shape[1:]
    sharp = Image.fromarray(as_bytes(image))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(defocus * height)))
    image = blurred.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    rng = np.random.default_rng(seed)
    # speckle as coarse as 1/64 of the height survives the reduction to 64 pixels
    speckle = smooth_noise(rng, 64, height, width)
    fine = rng.standard_normal((height, width), dtype=np.float32)
    seen = np.float32(1) if field is None else field
    grain = seen * (0.5 + image[1]) * noise * (speckle + 0.6 * fine)
    for plane, strength in zip(image, NOISE_BY_CHANNEL, strict=True):
        plane += strength * grain
    return as_bytes(image)


def as_bytes(image: Picture) -> Bytes:
    """[3, height, width] in [0, 1] -> uint8 [height, width, 3]."""
    levels = np.clip(image * 255 + 0.5, 0, 255)
    return np.stack([plane.astype(np.uint8) for plane in levels], axis=2)


def reduced(image: npt.NDArray[np.uint8]) -> Image.Image:
    """Central square of a picture [3, height, width] at ``SIDE`` pixels, as rulers look at it."""
    return square(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), SIDE)
