"""What the simulators share: who fills which place, files and truth; planes of pixels, a camera.

Lengths are fractions of the image height. Pictures are float32 [3, height, width], 0 to 1,
until the camera makes bytes of them. Nothing here knows what is drawn.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image, ImageDraw, ImageFilter
from tqdm.auto import tqdm

from fairdiff_lib.data.cohort import square
from fairdiff_lib.disk.files import atomic_folder, write_json
from fairdiff_lib.settings.options import Population, as_dict

Plane = npt.NDArray[np.float32]  # [height, width]
Picture = npt.NDArray[np.float32]  # [3, height, width], 0 to 1
Points = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]  # [height, width, 3]
Colour = tuple[float, float, float]  # linear share of full scale: red, green, blue
Floats = npt.NDArray[np.float64]

SIDE = 64  # pixels that a ruler reduces every picture to
NOISE_BY_CHANNEL: Colour = (1.0, 0.9, 0.8)
_NOISE = 0.014  # standard deviation, share of full scale, at difficulty 1
_DEFOCUS = 0.0035  # standard deviation of the blur, fraction of the height, at difficulty 1
T = TypeVar("T")

_WORTH_PROCESSES = 200  # subjects; starting processes takes as long as drawing some of them
# irrational steps, and the position at which the first level begins
_STEPS = ((math.sqrt(5) - 1) / 2, math.sqrt(2) - 1, math.sqrt(3) - 1, math.sqrt(7) - 2)
_FIRST = (5, 12, 3, 8)


def spread(index: int) -> list[float]:
    """Four numbers in [0, 1), each filling the interval evenly as ``index`` grows.

    Rotations by irrational numbers: every prefix has its groups in proportion, to within 3
    subjects up to 6,000, so a small group is never missing by chance and a larger cohort keeps
    the subjects of a smaller one. Who fills a place is random; the places are not.
    """
    return [((index - k) * step) % 1.0 for step, k in zip(_STEPS, _FIRST, strict=True)]


def choose(uniform: float, shares: Mapping[str, float]) -> str:
    """Level at a quantile of a discrete distribution; the last has what the others leave."""
    bounds = np.cumsum(list(shares.values())).tolist()
    levels = (level for level, bound in zip(shares, bounds, strict=True) if uniform < bound)
    return next(levels, list(shares)[-1])


def between(uniform: float, bounds: tuple[float, float]) -> float:
    """A uniform number of [0, 1) carried to an interval."""
    return bounds[0] + uniform * (bounds[1] - bounds[0])


def clipped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def factors(config: Population, levels: dict[str, str]) -> tuple[float, float]:
    """Difficulty and heterogeneity of a subject: over its levels, the product of each."""
    own = [config.knobs.get(item, (1.0, 1.0)) for item in levels.items()]
    return math.prod(d for d, _ in own), math.prod(h for _, h in own)


def normals(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """What appearance varies by: standard normal, without the rare extremes."""
    return np.clip(rng.standard_normal(count), -2.5, 2.5)


def camera(normal: npt.NDArray[np.float64], difficulty: float) -> tuple[float, float]:
    """Noise and defocus of a photograph, each around ``difficulty`` times the usual one."""
    noise, blur = (difficulty * math.exp(0.12 * n) for n in normal.tolist())
    return _NOISE * noise, _DEFOCUS * blur


def write_each(write: Callable[..., None], subjects: Sequence[T], *rest: Any) -> None:
    """Call ``write(subject, *rest)`` for each, by as many processes as OMP_NUM_THREADS says."""
    workers = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    if len(subjects) < _WORTH_PROCESSES:
        workers = 1
    jobs = (delayed(write)(subject, *rest) for subject in subjects)
    done = Parallel(n_jobs=workers, return_as="generator")(jobs)
    for _ in tqdm(done, total=len(subjects), desc="simulate", disable=None):
        pass


@contextmanager
def simulated_folder(
    root: Path, config: Population, truth: Sequence[dict[str, object]]
) -> Iterator[Path]:
    """A folder to fill; with truth.csv and simulated.json it appears whole or not at all."""
    with atomic_folder(root) as folder:
        yield folder
        pd.DataFrame(truth).to_csv(folder / "truth.csv", index=False)
        write_json(folder / "simulated.json", {"simulated": True, "simulator": as_dict(config)})


def truth_row(subject: Any, drawn: Any, **own: object) -> dict[str, object]:
    """Row of truth.csv: names, what was drawn (a pair as _x, _y; a colour by channel), knobs."""
    values = dataclasses.asdict(drawn)
    for name in [name for name, value in values.items() if isinstance(value, tuple)]:
        parts = values.pop(name)
        ends = ("x", "y") if len(parts) == 2 else ("red", "green", "blue")
        values |= {f"{name}_{end}": part for end, part in zip(ends, parts, strict=True)}
    knobs = {"difficulty": subject.difficulty, "heterogeneity": subject.heterogeneity}
    return {**own, **values, **knobs}


def planted_table(config: Population | None) -> pd.DataFrame:
    """The simulator's settings in words, one per row; no row without one."""
    values = as_dict(config) if config is not None else {}
    plant, noise = values.pop("plant", {}), getattr(config, "noise", "")
    if config is not None and config.served_worse:
        whose = "training images of {}: {}".format(": ".join(config.served_worse), "{}")
        values |= {whose.format(name): value for name, value in plant.items() if name != "on"}
    kinds = {"difficulty": f"{noise}, times", "heterogeneity": "variety, times", "share": "share"}
    names = []
    for name in values:
        kind, _, word = name.partition("_")
        level = config.levels.get(word) if config is not None else None
        names.append(f"{level[1]}: {kinds[kind]}" if level and kind in kinds else name)
    return pd.DataFrame({"setting": names, "value": list(values.values())}, dtype=object)


# -- pictures -----------------------------------------------------------------------------------


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


def turned(x: Plane, y: Plane, angle: float) -> tuple[Plane, Plane]:
    """Coordinates along axes that are turned by so many radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def pigmented(light: Plane, bright: Colour, dark: Colour, melanin: float) -> Picture:
    """A lit surface whose colour lies between two, by its melanin."""
    image = np.empty((3, *light.shape), dtype=np.float32)
    for plane, most, least in zip(image, bright, dark, strict=True):
        np.multiply(light, np.float32(most + (least - most) * melanin), out=plane)
    return image


def mix(image: Picture, colour: Colour, share: Plane) -> None:
    """Move each channel towards ``colour`` by ``share``, in place."""
    for plane, value in zip(image, colour, strict=True):
        plane += share * (np.float32(value) - plane)


def darken(image: Picture, colour: Colour, share: Plane) -> None:
    """Multiply each channel by 1 - ``colour`` * ``share``, in place."""
    for plane, value in zip(image, colour, strict=True):
        plane *= 1 - np.float32(value) * share


def covered(
    height: int, width: int, paint: Callable[[ImageDraw.ImageDraw, int, int], None]
) -> Plane:
    """Share of each pixel that is painted, 0 to 1; ``paint(draw, rows, columns)`` draws it."""
    rows = max(2, -(-512 // height)) * height  # drawn at 512 rows at least, then averaged down
    canvas = Image.new("L", (round(rows * width / height), rows))
    paint(ImageDraw.Draw(canvas), rows, canvas.width)
    small = canvas.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def strokes(lines: list[Points], thickness: list[float], height: int, width: int) -> Plane:
    """Share of each pixel that lines of points (x, y from the middle) cover, 0 to 1."""

    def paint(draw: ImageDraw.ImageDraw, rows: int, columns: int) -> None:
        for line, thick in zip(lines, thickness, strict=True):
            points = (line * rows + np.array([columns / 2, rows / 2])).ravel().tolist()
            draw.line(points, fill=255, width=max(1, round(thick * rows)), joint="curve")

    return covered(height, width, paint)


def photograph(
    image: Picture, *, defocus: float, noise: float, seed: int, field: Plane | None = None
) -> Bytes:
    """Blur (by ``defocus``), then noise that grows with brightness, of a picture that is lit.

    ``field`` is 1 where there is a picture, and 0 where the camera sees nothing.
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
