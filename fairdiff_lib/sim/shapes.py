"""A small example with a known answer: coloured shapes of a "generator" that blurs one group."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from fairdiff_lib.disk.files import atomic_folder, write_table

SIDE = 64  # pixels
SUBJECTS = 240  # each with one real and one generated picture
LEVELS = {"palette": ("cool", "warm"), "camera": ("A", "B"), "shape": ("disc", "square")}
PLANTED = ("palette", "cool")  # the group whose generated pictures are blurred
BLUR = 0.5  # pixels, standard deviation
NAMES = ("real_simulated", "generated_simulated")
_FILL = {"cool": (60, 110, 190), "warm": (200, 110, 60)}
_GROUND = (128, 128, 128)


def write_example(
    folder: Path | str, seed: int = 0, blur: float = BLUR, planted: tuple[str, str] = PLANTED
) -> tuple[Path, Path]:
    """Write real_simulated.csv, generated_simulated.csv and their pictures; both CSV files.

    Columns: path, subject, palette, camera (attributes), shape (a condition), and score: how much
    a simple reader takes the picture for a square. ``palette`` carries the planted disparity,
    unless another (attribute, level) is ``planted``: its generated pictures are blurred by ``blur``
    pixels. ``camera`` is a label that changes no picture. All crossings are equally large. The
    folder is made or replaced as a whole.
    """
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    subjects = pd.DataFrame({"subject": [f"S{number:03d}" for number in range(SUBJECTS)]})
    crossings = list(product(*LEVELS.values()))
    subjects[list(LEVELS)] = [crossings[number % len(crossings)] for number in range(SUBJECTS)]
    with atomic_folder(folder) as place:
        for name in NAMES:
            (place / name).mkdir()
            rows = []
            for row in subjects.to_dict("records"):
                picture = _draw(rng, row["palette"], row["shape"])
                if name == NAMES[1] and row[planted[0]] == planted[1]:
                    picture = picture.filter(ImageFilter.GaussianBlur(blur))
                path = f"{name}/{row['subject']}.png"
                picture.save(place / path)
                rows.append({"path": path, **row, "score": _square_score(picture)})
            write_table(pd.DataFrame(rows), place / f"{name}.csv")
    return folder / f"{NAMES[0]}.csv", folder / f"{NAMES[1]}.csv"


def _draw(rng: np.random.Generator, palette: str, shape: str) -> Image.Image:
    """One picture: a shape of varied size and place on a noisy ground."""
    picture = Image.new("RGB", (SIDE, SIDE), _GROUND)
    reach = rng.uniform(11, 19)
    x, y = SIDE / 2 + rng.uniform(-6, 6, 2)
    pen = ImageDraw.Draw(picture)
    fill = tuple(int(c + rng.normal(0, 12)) for c in _FILL[palette])
    box = (x - reach, y - reach, x + reach, y + reach)
    (pen.ellipse if shape == "disc" else pen.rectangle)(box, fill=fill)
    noisy = np.asarray(picture) + rng.normal(0, 14, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _square_score(picture: Image.Image) -> float:
    """Share of its bounding box that the shape fills: about 0.79 for a disc, 1 for a square."""
    pixels = np.asarray(picture, dtype=np.float64)
    coloured = np.abs(pixels[:, :, 0] - pixels[:, :, 2]) > 40
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    if not len(rows):
        return 0.5
    box = coloured[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return round(float(box.mean()), 4)
