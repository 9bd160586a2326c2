"""HAM10000, simulated: lesions, their dermatoscopic photographs, and the second colour read back.

The knobs are those of the first simulator, over sex and age. Asymmetry, border and second colour
follow the diagnosis, and the diagnosis has nearly the same distribution in every group: malignant
lesions are somewhat commoner in older patients. A few lesions look like the other kind, so that no
classifier can be perfect.

Lengths are fractions of the image height; ``x`` grows to the right, ``y`` downwards, both from the
lesion's centre. The picture is a cartoon made for a measurable area, asymmetry and second colour;
it is no model of any dermatoscope.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy import ndimage

from fairdiff_lib.data.cohort import Ruler
from fairdiff_lib.settings.options import Population, options
from fairdiff_lib.sim.drawing import (
    SIDE,
    Bytes,
    Colour,
    Floats,
    Picture,
    Plane,
    Points,
    between,
    camera,
    choose,
    clipped,
    darken,
    factors,
    grid,
    mix,
    normals,
    photograph,
    pigmented,
    ramp,
    reduced,
    simulated_folder,
    smooth_noise,
    spread,
    strokes,
    truth_row,
    turned,
    write_each,
)

METADATA = "HAM10000_metadata.csv"
_FIRST_IMAGE = 9_000_001  # the real archive's numbers are far below

_MALIGNANT = ("akiec", "bcc", "mel")
_SHARES = {  # of the diagnoses, round numbers: rare ones are commoner than in the real set
    True: {"mel": 0.50, "bcc": 0.30, "akiec": 0.20},
    False: {"nv": 0.68, "bkl": 0.20, "df": 0.06, "vasc": 0.06},
}
_PREVALENCE = {"under 60": 0.30, "60 or older": 0.36}  # of malignant lesions
_IMAGES = {"1": 0.70, "2": 0.25, "3": 0.05}  # of a lesion: share of lesions

# share of the lesion's area that has lost its brown or red; no benign range meets a malignant one
_VARIEGATION = {
    "akiec": (0.25, 0.45),
    "bcc": (0.25, 0.50),
    "mel": (0.30, 0.60),
    "bkl": (0.05, 0.14),
    "df": (0.06, 0.14),
    "nv": (0.0, 0.06),
    "vasc": (0.0, 0.06),
}
_ASYMMETRY = {"mel": (0.55, 1.0), "bcc": (0.35, 0.8), "akiec": (0.35, 0.8), "bkl": (0.1, 0.4)}
_IRREGULARITY = {"mel": (0.10, 0.17), "bcc": (0.07, 0.14), "akiec": (0.08, 0.15)}
_NETWORK = {"mel": (0.4, 0.9), "nv": (0.35, 0.9), "df": (0.3, 0.6)}
_EDGE = {"nv": 0.05, "mel": 0.03, "bkl": 0.018, "vasc": 0.018, "df": 0.06}
_SITES = (
    *("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face", "chest", "neck"),
    "scalp",
)
_DX_TYPE = ("histo", "follow_up", "consensus", "confocal")


@options
class SkinPopulation(Population):
    """HAM10000: dermatoscopic photographs, one to three of each lesion. Its reader splits."""

    noise: ClassVar[str] = "camera noise and blur"
    # image names have 7 digits, and a lesion up to 3 images
    most: ClassVar[Mapping[str, int]] = {"lesions": 300_000}
    levels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "male": ("sex", "Male"),
        "older": ("age", "60 or older"),
    }
    lesions: int = 1800  # 70/10/20 by the reader; the real set has 7,470
    image_height: int = 192  # pixels; the real photographs have 450
    image_width: int = 256  # pixels; the real photographs have 600
    share_male: float = 0.54  # fraction of lesions, as in the real set
    share_older: float = 0.36  # fraction of lesions of patients of 60 or older
    share_contradicted: float = 0.05  # of lesions, looking like the other of benign and malignant
    heterogeneity_male: float = 1.0  # x the spread of appearance; 1 = as varied as Female
    heterogeneity_older: float = 1.0  # as above, against under 60
    difficulty_male: float = 1.0  # x the camera noise and blur
    difficulty_older: float = 3.0  # as above; 1 = nothing planted
    seed: int = 20250412  # of the simulated lesions, not of any training


@dataclass(frozen=True)
class LesionCase:
    """A simulated lesion of a patient: labels, and a picture each time it was photographed."""

    number: int
    dx: str  # as labelled; its pictures may look like another
    sex: str
    age: int  # years, in steps of 5
    site: str
    dx_type: str
    difficulty: float  # x camera noise
    heterogeneity: float  # x spread of appearance
    views: tuple[Lesion, ...]

    @property
    def name(self) -> str:
        """As in the column lesion_id."""
        return f"HAM_{self.number:07d}"

    @property
    def images(self) -> tuple[str, ...]:
        """Image names; they don't depend on how many other lesions there are."""
        first = _FIRST_IMAGE + 3 * self.number
        return tuple(f"ISIC_{first + k:07d}" for k in range(len(self.views)))


def simulate_ham10000(config: SkinPopulation, root: Path) -> None:
    """Write simulated lesions in HAM10000's layout; a larger set begins with the same lesions.

    ``root`` becomes a folder with ``HAM10000_metadata.csv``; ``HAM10000_images_part_1`` and ``_2``
    holding ``ISIC_XXXXXXX.jpg``; ``truth.csv``; ``simulated.json``.
    """
    cases = [draw_case(config, index) for index in range(config.lesions)]
    truth = [
        truth_row(case, view, lesion_id=case.name, image=image)
        for case in cases
        for image, view in zip(case.images, case.views, strict=True)
    ]
    with simulated_folder(root, config, truth) as folder:
        for part in (1, 2):
            (folder / _part(part)).mkdir()
        write_each(_write_case, cases, folder, config.image_height, config.image_width)
        rows = [row for case in cases for row in _metadata_rows(case)]
        pd.DataFrame(rows).to_csv(folder / METADATA, index=False)


# --- who the patients are ---


def draw_case(config: SkinPopulation, index: int) -> LesionCase:
    """The lesion at a position, from 0; by seed and position alone."""
    place = spread(index)
    # the same draws whatever the knobs, so that a knob changes what it names and nothing else
    uniform = np.random.default_rng([config.seed, index]).random(12).tolist()
    sex = "Male" if place[0] < config.share_male else "Female"
    age = "60 or older" if place[1] < config.share_older else "under 60"
    malignant = place[2] < _PREVALENCE[age]
    dx = choose(place[3], _SHARES[malignant])
    knobs = factors(config, {"sex": sex, "age": age})
    contradicted = uniform[9] < config.share_contradicted
    looks = choose(uniform[10], _SHARES[not malignant]) if contradicted else dx
    lesion = _draw_lesion([config.seed, index, 1], looks, uniform, knobs[1])
    count = int(choose(uniform[4], _IMAGES))
    views = [_draw_view(lesion, [config.seed, index, 2, k], *knobs) for k in range(count)]
    years = (60, 90) if age == "60 or older" else (20, 60)
    return LesionCase(
        number=index,
        dx=dx,
        sex=sex,
        age=5 * int(between(uniform[5], years) // 5),
        site=_SITES[int(uniform[6] * len(_SITES))],
        dx_type="histo" if malignant else _DX_TYPE[int(uniform[7] * len(_DX_TYPE))],
        difficulty=knobs[0],
        heterogeneity=knobs[1],
        views=tuple(views),
    )


def _draw_lesion(seed: list[int], dx: str, uniform: list[float], heterogeneity: float) -> Lesion:
    """A lesion and its skin; what isn't clinical spreads by ``heterogeneity``."""
    rng = np.random.default_rng(seed)
    normal = normals(rng, 8)
    seeds = rng.integers(2**31, size=2).tolist()
    z = (heterogeneity * normal).tolist()
    large = 0.03 if dx in _MALIGNANT else 0.0
    return Lesion(
        dx=dx,
        radius=clipped(0.23 + large + 0.035 * z[0], 0.13, 0.34),
        aspect=clipped(1.22 + 0.12 * z[1], 1.0, 1.8),
        angle=math.pi * uniform[8],
        irregularity=between(uniform[1], _IRREGULARITY.get(dx, (0.02, 0.06))),
        asymmetry=between(uniform[2], _ASYMMETRY.get(dx, (0.0, 0.2))),
        variegation=between(uniform[0], _VARIEGATION[dx]),
        network=between(uniform[3], _NETWORK.get(dx, (0.0, 0.0))),
        shade=clipped(1 + 0.09 * z[2], 0.7, 1.3),
        edge=_EDGE.get(dx, 0.035),
        melanin=clipped(0.22 + 0.13 * z[3], 0.0, 0.9),
        rosiness=0.03 * z[4],
        shape_seed=seeds[0],
        texture_seed=seeds[1],
    )


def _draw_view(lesion: Lesion, seed: list[int], difficulty: float, heterogeneity: float) -> Lesion:
    """One photograph: the lesion is turned and shifted, light, hairs and camera are its own."""
    rng = np.random.default_rng(seed)
    normal = normals(rng, 12)
    uniform = rng.random(4).tolist()
    seeds = rng.integers(2**31, size=2).tolist()
    z = (heterogeneity * normal).tolist()
    noise, defocus = camera(normal[:2], difficulty)
    hairy = uniform[0] < 0.45
    return dataclasses.replace(
        lesion,
        x=clipped(0.025 * z[2], -0.08, 0.08),
        y=clipped(0.025 * z[3], -0.08, 0.08),
        radius=lesion.radius * clipped(1 + 0.04 * z[4], 0.85, 1.15),
        angle=lesion.angle + 2 * math.pi * uniform[1],
        hairs=1 + int(uniform[2] * 14) if hairy else 0,
        vignette=between(uniform[3], (0.10, 0.45)),
        gain=clipped(1 + 0.05 * z[5], 0.7, 1.15),
        tint=(1 + 0.012 * z[6], 1 + 0.02 * z[7], 1 + 0.025 * z[8]),
        tilt=(0.08 * z[9], 0.08 * z[10]),
        noise=noise,
        defocus=defocus,
        hair_seed=seeds[0],
        noise_seed=seeds[1],
    )


# --- files ---


def _part(number: int) -> str:
    return f"HAM10000_images_part_{number}"


def _write_case(case: LesionCase, folder: Path, height: int, width: int) -> None:
    """The lesion's pictures, in the part that its number falls into."""
    place = folder / _part(1 + case.number % 2)
    for name, view in zip(case.images, case.views, strict=True):
        Image.fromarray(render(view, height, width)).save(place / f"{name}.jpg", quality=92)


def _metadata_rows(case: LesionCase) -> list[dict[str, object]]:
    """Rows of the metadata file, in the published columns."""
    return [
        {
            "lesion_id": case.name,
            "image_id": image,
            "dx": case.dx,
            "dx_type": case.dx_type,
            "age": f"{case.age:.1f}",
            "sex": case.sex.lower(),
            "localization": case.site,
        }
        for image in case.images
    ]


# --- the picture of a lesion ---

SKIN_LIGHT: Colour = (0.93, 0.76, 0.70)  # melanin 0
SKIN_DARK: Colour = (0.52, 0.35, 0.26)  # melanin 1
_WAVES = 7  # of the border

# dx -> colour of the body, and of its second colour (grey or blue: the brown or red is lost)
_BODY: dict[str, Colour] = {
    "akiec": (0.74, 0.42, 0.38),
    "bcc": (0.80, 0.48, 0.47),
    "bkl": (0.62, 0.42, 0.27),
    "df": (0.72, 0.50, 0.38),
    "mel": (0.36, 0.22, 0.15),
    "nv": (0.52, 0.32, 0.19),
    "vasc": (0.62, 0.13, 0.19),
}
_SECOND: dict[str, Colour] = {
    "akiec": (0.82, 0.80, 0.78),  # scale
    "bcc": (0.42, 0.44, 0.50),  # blue-grey nests
    "bkl": (0.55, 0.55, 0.56),
    "df": (0.86, 0.82, 0.80),  # white centre
    "mel": (0.44, 0.46, 0.52),  # blue-white veil
    "nv": (0.45, 0.44, 0.45),
    "vasc": (0.35, 0.33, 0.42),
}
_DOTS: dict[str, tuple[int, tuple[float, float], Colour, float]] = {  # as of :func:`_dots`
    "vasc": (16, (0.16, 0.26), (0.42, 0.05, 0.12), 0.75),
    "bkl": (14, (0.035, 0.06), (0.93, 0.86, 0.68), 0.9),
    "akiec": (20, (0.03, 0.05), (0.58, 0.16, 0.20), 0.7),
    "mel": (12, (0.04, 0.08), (0.10, 0.07, 0.07), 0.8),
}


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """Everything that decides a picture; lengths are fractions of the image height."""

    dx: str  # diagnosis, as in HAM10000
    x: float = 0.0  # centre, from the middle of the picture
    y: float = 0.0
    radius: float  # of the circle of equal area
    aspect: float  # longer over shorter diameter
    angle: float  # direction of the longer one, radians
    irregularity: float  # amplitude of the border's waves, share of the radius
    asymmetry: float  # 0 to 1: how far pigment and structure lie to one side
    variegation: float  # share of the lesion's area that has its second colour
    network: float  # strength of the pigment network, 0 to 1
    shade: float  # factor of the body's brightness
    edge: float  # width of the border
    melanin: float  # of the skin, 0 to 1
    rosiness: float  # of the skin; positive is redder
    # of the picture, as the rest but for two seeds
    hairs: int = 0
    hair_width: float = 0.006
    vignette: float = 0.0  # light lost in the picture's corners, share
    gain: float = 1.0  # exposure
    tint: Colour = (1.0, 1.0, 1.0)  # colour balance
    tilt: tuple[float, float] = (0.0, 0.0)  # slope of the light (x, y)
    noise: float = 0.0  # standard deviation, share of full scale
    defocus: float = 0.0  # standard deviation of the blur
    shape_seed: int  # of the lesion: the same in all of its pictures
    texture_seed: int  # as shape_seed
    hair_seed: int = 0
    noise_seed: int = 0


@dataclass(frozen=True)
class _Frame:
    """Where each pixel lies in the lesion; planes are float32 [height, width]."""

    u: Plane  # along the longer diameter, in radii of the border in that direction
    v: Plane  # across it
    depth: Plane  # radii inside the border; negative outside
    body: Plane  # 0 outside, 1 inside, with a soft border


def render(lesion: Lesion, height: int, width: int) -> Bytes:
    """The photograph of a lesion, the same for the same arguments: uint8 [height, width, 3]."""
    grid_x, grid_y = grid(height, width)
    image = _skin(lesion, height, width)
    frame = _frame(lesion, grid_x, grid_y)
    _body(image, lesion, frame)
    _structures(image, lesion, frame)
    _second_colour(image, lesion, frame)
    _features(image, lesion, frame)
    _hairs(image, lesion)
    return _camera(image, lesion, grid_x, grid_y)


def _skin(lesion: Lesion, height: int, width: int) -> Picture:
    """Skin with faint mottling and fine furrows."""
    rng = np.random.default_rng(lesion.hair_seed)
    light = 1 + 0.022 * smooth_noise(rng, 4, height, width)
    light += 0.014 * smooth_noise(rng, 40, height, width)
    blush = 0.02 * smooth_noise(rng, 6, height, width) + np.float32(lesion.rosiness)
    image = pigmented(light, SKIN_LIGHT, SKIN_DARK, lesion.melanin)
    image[1] *= 1 - blush
    image[2] *= 1 - 0.8 * blush
    return image


def _frame(lesion: Lesion, x: Plane, y: Plane) -> _Frame:
    """The lesion's own coordinates: an ellipse whose border carries a few waves."""
    rng = np.random.default_rng(lesion.shape_seed)
    stretch = math.sqrt(lesion.aspect)
    along, across = turned(x - lesion.x, y - lesion.y, lesion.angle)
    u = (along / (stretch * lesion.radius)).astype(np.float32)
    v = (across * (stretch / lesion.radius)).astype(np.float32)
    theta = np.linspace(-math.pi, math.pi, 361)
    waves, total = np.zeros_like(theta), 0.0
    for order in range(2, 2 + _WAVES):
        size, phase = rng.standard_normal() / order, rng.uniform(0, 2 * math.pi)
        waves += size * np.cos(order * theta + phase)
        total += size * size / 2
    # mean square 1, so that ``irregularity`` is the border's standard deviation
    around = np.maximum(1 + lesion.irregularity / math.sqrt(total) * waves, 0.45)
    around /= math.sqrt(1 + lesion.irregularity**2)
    border = np.interp(np.arctan2(v, u), theta, around).astype(np.float32)
    depth: Plane = border - np.hypot(u, v)
    body = ramp(depth * np.float32(lesion.radius), lesion.edge)
    return _Frame(u / border, v / border, depth, body)


def _body(image: Picture, lesion: Lesion, frame: _Frame) -> None:
    """Pigment over the skin, with clouds; asymmetry shifts it to one side."""
    rng = np.random.default_rng(lesion.texture_seed)
    clouds = smooth_noise(rng, 6, *frame.u.shape)
    body = _BODY[lesion.dx]
    # dark skin darkens what lies in it, but less
    shade = lesion.shade * (1 - 0.25 * lesion.melanin)
    colour = (body[0] * shade, body[1] * shade, body[2] * shade)
    side = np.float32(0.30 * lesion.asymmetry) * np.clip(frame.u, -1, 1)
    strength = np.clip(0.88 + 0.08 * clouds + side, 0.25, 1.0)
    mix(image, colour, frame.body * strength)
    # blotches of darker pigment make the brown of irregular lesions uneven
    blotch = ramp(clouds + np.float32(0.9 * lesion.asymmetry) * frame.u - 0.7, 0.7)
    darken(image, (0.30, 0.36, 0.40), np.float32(lesion.asymmetry) * blotch * frame.body)


def _structures(image: Picture, lesion: Lesion, frame: _Frame) -> None:
    """Pigment network: brown meshes, wider and fading towards the border."""
    if not lesion.network:
        return
    rng = np.random.default_rng([lesion.texture_seed, 1])
    height, width = frame.u.shape
    warp = 0.035 * smooth_noise(rng, 7, height, width)
    # two families of lines that a slow noise bends, as cells between ridges
    pitch = rng.uniform(0.046, 0.058)
    mesh = np.zeros_like(frame.u)
    for turn in (0.0, math.pi / 3, 2 * math.pi / 3):
        along = math.cos(turn) * frame.u + math.sin(turn) * frame.v
        phase = 2 * math.pi / pitch * (np.float32(lesion.radius) * along + warp)
        mesh = np.maximum(mesh, np.cos(phase))
    lines = ramp(mesh - 0.72, 0.5)
    fade = np.clip(frame.depth / 0.35, 0, 1)
    if lesion.dx == "df":  # its delicate network is at the periphery
        fade = fade * np.clip(1.3 - 1.6 * frame.depth, 0, 1)
    side = np.clip(1 + lesion.asymmetry * frame.v, 0.1, 1.6)
    darken(image, (0.32, 0.40, 0.44), np.float32(0.8 * lesion.network) * lines * fade * side)


def _second_colour(image: Picture, lesion: Lesion, frame: _Frame) -> None:
    """Grey, white or blue patches over exactly the stated share of the lesion's area."""
    inside = frame.depth > 0
    if lesion.variegation <= 0 or not inside.any():
        return
    rng = np.random.default_rng([lesion.texture_seed, 2])
    field = smooth_noise(rng, 7, *frame.u.shape)
    side = 1.2 * lesion.asymmetry * (0.8 * frame.u + 0.6 * frame.v)
    # the scar of a dermatofibroma is in the middle
    field = 3 * frame.depth if lesion.dx == "df" else (field + side).astype(np.float32)
    cut = np.quantile(field[inside], 1 - lesion.variegation)
    patch = ramp(field - np.float32(cut), 0.6) * frame.body
    grain = np.clip(0.86 + 0.07 * smooth_noise(rng, 24, *frame.u.shape), 0.6, 1)
    mix(image, _SECOND[lesion.dx], patch * grain)


def _features(image: Picture, lesion: Lesion, frame: _Frame) -> None:
    """What a diagnosis has of its own: vessels, lacunae, cysts, globules."""
    rng = np.random.default_rng([lesion.texture_seed, 3])
    if lesion.dx == "bcc":
        lines, thick = _branches(rng, lesion)
        darken(image, (0.25, 0.62, 0.58), 0.9 * strokes(lines, thick, *frame.u.shape))
    elif lesion.dx in _DOTS:
        _dots(image, lesion, frame, rng, *_DOTS[lesion.dx])
    elif rng.random() < 0.5:
        _dots(image, lesion, frame, rng, 14, (0.04, 0.06), (0.28, 0.16, 0.10), 0.6)


def _dots(
    image: Picture, lesion: Lesion, frame: _Frame, rng: np.random.Generator, count: int,
    sizes: tuple[float, float], colour: Colour, strength: float,
) -> None:  # fmt: skip
    """Round spots inside the lesion; sizes in radii of the lesion."""
    height, width = frame.u.shape
    turn = rng.uniform(0, 2 * math.pi, count)
    far = np.sqrt(rng.uniform(0, 0.6, count)) * lesion.radius
    centre = np.stack([lesion.x + far * np.cos(turn), lesion.y + far * np.sin(turn)], axis=1)
    radius = rng.uniform(*sizes, count) * lesion.radius
    x, y = grid(height, width)
    for (at_x, at_y), size in zip(centre.tolist(), radius.tolist(), strict=True):
        reach = (size + 0.02) * height
        row, column = (at_y + 0.5) * height, at_x * height + width / 2
        rows = slice(max(0, int(row - reach)), int(row + reach) + 2)
        columns = slice(max(0, int(column - reach)), int(column + reach) + 2)
        gap = np.hypot(x[rows, columns] - at_x, y[rows, columns] - at_y)
        share = strength * ramp(np.float32(size) - gap, 0.012) * frame.body[rows, columns]
        mix(image[:, rows, columns], colour, share)


def _branches(rng: np.random.Generator, lesion: Lesion) -> tuple[list[Points], list[float]]:
    """Arborising vessels: stems that run inwards over the lesion, and their branches."""
    lines: list[Points] = []
    thickness: list[float] = []
    centre = np.array([lesion.x, lesion.y])
    for stem in range(5):
        begin = rng.uniform(0, 2 * math.pi)
        start = centre + 0.95 * lesion.radius * np.array([math.cos(begin), math.sin(begin)])
        heading = begin + math.pi + rng.uniform(-0.7, 0.7)
        path = _wander(rng, start, heading, lesion.radius * rng.uniform(0.8, 1.3))
        lines.append(path)
        thickness.append(0.011 - 0.001 * stem)
        for at in (5, 9):
            side = heading + rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 1.0)
            lines.append(_wander(rng, path[at], side, lesion.radius * rng.uniform(0.3, 0.6)))
            thickness.append(0.006)
    return lines, thickness


def _wander(rng: np.random.Generator, start: Points, heading: float, length: float) -> Points:
    """Points [14, 2] of a winding line."""
    headings = heading + np.cumsum(rng.normal(0, 0.28, 14))
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * length / 14
    return np.asarray(start + np.cumsum(steps, axis=0))


def _hairs(image: Picture, lesion: Lesion) -> None:
    """Dark hairs that cross the picture in bows."""
    if not lesion.hairs:
        return
    rng = np.random.default_rng([lesion.hair_seed, 1])
    height, width = image.shape[1:]
    lean = rng.uniform(0, math.pi)
    s = np.linspace(-0.5, 0.5, 16)[:, None]
    lines, thick = [], []
    for _ in range(lesion.hairs):
        heading = lean + rng.normal(0, 0.35)
        ahead = np.array([math.cos(heading), math.sin(heading)])
        across = np.array([-ahead[1], ahead[0]])
        middle = rng.uniform(-0.5, 0.5, 2) * (width / height, 1)
        length, bow = rng.uniform(0.5, 1.3), rng.normal(0, 0.25)
        lines.append(middle + length * s * ahead + bow * (s**2) * across)
        thick.append(lesion.hair_width * rng.uniform(0.7, 1.2))
    darken(image, (0.68, 0.72, 0.72), strokes(lines, thick, height, width))


def _camera(image: Picture, lesion: Lesion, x: Plane, y: Plane) -> Bytes:
    """Uneven light, dark corners, colour balance, blur and noise."""
    half = max(float(x.max()), 0.5)
    from_middle = (x * x + y * y) / np.float32(half * half + 0.25)
    light = 1 - np.float32(lesion.vignette) * from_middle**2
    light = light + lesion.tilt[0] * x + lesion.tilt[1] * y
    for plane, strength in zip(image, lesion.tint, strict=True):
        plane *= light * (lesion.gain * strength)
    return photograph(image, defocus=lesion.defocus, noise=lesion.noise, seed=lesion.noise_seed)


# --- the ruler: the lesion is what differs from the skin at the picture's edge; brown and red
# inside it are far from grey, and grey, white and blue patches are not

Mask = npt.NDArray[np.bool_]

_SKIN_FROM = 0.44  # of the side, from the middle: pixels beyond are skin
_LESION_TO = 0.50  # of the side, from the middle: pixels beyond are no lesion
_LEAST_HUE = 0.035  # distance from the skin in shares of red, green and blue
_LEAST_CONTRAST = 0.25  # distance from the skin in full scales, where the hue is the same
_MOST_AREA = 0.6  # of the picture; more is no lesion on skin
_LEAST_PIXELS = 30  # inside the lesion's border; fewer is no lesion
_BORDER = 2  # pixels, where lesion and skin mix
_BODY_COLOUR = 85  # percentile of the inside's colour that stands for brown or red
_GREY = -0.02  # colour, red less blue over their sum, of grey and blue patches


def measure_variegation(images: npt.NDArray[np.uint8]) -> Floats:
    """Share of the lesion's area that shows grey, white or blue, 0 to 1; NaN without a lesion.

    Of dermatoscopic pictures, uint8 [n, 3, height, width], with the lesion near the middle: their
    central square at 64 x 64 pixels is measured.
    """
    return np.array([_measure_one(image) for image in images], dtype=np.float64)


def _measure_one(image: npt.NDArray[np.uint8]) -> float:
    planes = np.moveaxis(np.asarray(reduced(image), dtype=np.float64) / 255, 2, 0)
    lesion = _lesion(ndimage.gaussian_filter(planes, (0, 1.3, 1.3)))
    inside = ndimage.binary_erosion(lesion, iterations=_BORDER)
    if inside.sum() < _LEAST_PIXELS or lesion.mean() > _MOST_AREA:
        return float("nan")
    smooth = ndimage.gaussian_filter(planes, (0, 0.8, 0.8))
    colour = ((smooth[0] - smooth[2]) / np.maximum(smooth.sum(axis=0), 0.05))[inside]
    reach = float(np.percentile(colour, _BODY_COLOUR)) - _GREY
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
    return np.asarray(parts == 1 + int(np.bincount(parts.ravel())[1:].argmax()))


_MOST_BENIGN = max(ends[1] for dx, ends in _VARIEGATION.items() if dx not in _MALIGNANT)
_LEAST_MALIGNANT = min(_VARIEGATION[dx][0] for dx in _MALIGNANT)
RULER = Ruler(
    name="second colour's share of the lesion",
    column="variegation",
    key="second_colour",
    mean="second_colour_share",
    condition="malignant",
    low="benign",
    high="malignant",
    cuts=((_MOST_BENIGN + _LEAST_MALIGNANT) / 2,),  # halfway between the ranges
    nothing="no lesion found",
    measure=measure_variegation,
)
