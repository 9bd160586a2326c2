"""FairGenMed, simulated: subjects, their fundus photographs, and the cup-disc ratio read back.

Three knobs are separate. Group size: the shares. Heterogeneity: the spread of appearance (pigment,
exposure, disc, vessels), which by itself disadvantages nobody. Difficulty: the camera's noise and
defocus. Clinical conditions have the same joint distribution in every group, but for a mild
difference in the prevalence of glaucoma.

Lengths are fractions of the image height. ``x`` grows towards the temporal side (mirrored in right
eyes), ``y`` downwards, both from the disc centre. The picture is a cartoon of the anatomy, made for
measurable disc, cup and defects; it is no model of any camera.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw
from scipy import ndimage

from fairdiff_lib.data.cohort import Ruler
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Population, Settings, options
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
    covered,
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
    truth_row,
    write_each,
)

# folder -> (word in the CSV, first file number); numbers don't depend on the sizes
_SPLITS = {"train": ("training", 1), "val": ("validation", 70_001), "test": ("test", 80_001)}

_GLAUCOMA_PREVALENCE = {"Asian": 0.46, "Black": 0.54, "White": 0.48}
_CDR_GIVEN = {
    "no": {"normal": 0.75, "borderline": 0.20, "abnormal": 0.05},
    "yes": {"normal": 0.15, "borderline": 0.30, "abnormal": 0.55},
}
_MD_GIVEN = {
    "no": {"normal": 0.70, "mild": 0.22, "moderate": 0.06, "severe": 0.02},
    "yes": {"normal": 0.20, "mild": 0.30, "moderate": 0.25, "severe": 0.25},
}
_REFRACTION = {"negative": 0.40, "neutral": 0.25, "positive": 0.35}
_CDR_RANGE = {"normal": (0.25, 0.42), "borderline": (0.50, 0.60), "abnormal": (0.68, 0.88)}
_MD_RANGE = {  # mean deviation, dB
    "normal": (-1.5, 1.0),
    "mild": (-6.0, -3.0),
    "moderate": (-12.0, -8.0),
    "severe": (-24.0, -15.0),
}
_LOSS_RANGE = {  # visible damage, 0 to 1
    "normal": (0.0, 0.06),
    "mild": (0.26, 0.38),
    "moderate": (0.52, 0.66),
    "severe": (0.82, 1.0),
}
_MELANIN = {"Asian": 0.48, "Black": 0.74, "White": 0.26}  # mean, 0 to 1
_DISC_RADIUS = {"Asian": 0.190, "Black": 0.198, "White": 0.186}  # mean, fractions of the height
_LANGUAGES = ("english", "spanish", "other")
_MARITAL = ("married", "single", "divorced", "widowed", "separated")


@options
class FundusPopulation(Population):
    """FairGenMed: fundus photographs. The prefixes train, val and test say who is where."""

    # file names have 5 digits
    most: ClassVar[Mapping[str, int]] = {"train": 70_000, "val": 10_000, "test": 19_999}
    levels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "asian": ("race", "Asian"),
        "black": ("race", "Black"),
        "hispanic": ("ethnicity", "Hispanic"),
    }
    train: int = 1000  # subjects; the real set has 6,000
    val: int = 160  # subjects; the real set has 1,000
    test: int = 480  # subjects; the real set has 3,000
    fundus_height: int = 192  # pixels; the real scanner writes 512
    fundus_width: int = 249  # pixels; the real scanner writes 664
    # race shares follow the sister test set of 1,004 subjects (78 Asian, 132 Black)
    share_asian: float = 0.08  # fraction of subjects
    share_black: float = 0.13  # fraction of subjects
    share_hispanic: float = 0.04  # fraction of subjects
    heterogeneity_black: float = 1.0  # x the spread of appearance; 1 = as varied as White
    heterogeneity_asian: float = 1.0  # as above
    difficulty_black: float = 3.0  # x the camera noise; 1 = nothing planted
    difficulty_asian: float = 1.0  # as above
    difficulty_hispanic: float = 1.0  # as above
    seed: int = 20250411  # of the simulated subjects, not of any training


@dataclass(frozen=True)
class Subject:
    """A simulated person: file number, split, level names, and the eye to draw."""

    number: int
    split: str
    race: str
    sex: str
    ethnicity: str
    glaucoma: str
    md_severity: str
    cdr_status: str
    refraction: str
    age: float  # years
    md: float  # mean deviation of the visual field, dB
    marital: int  # -1 = unknown
    language: int
    difficulty: float  # x camera noise
    heterogeneity: float  # x spread of appearance
    eye: Eye

    @property
    def name(self) -> str:
        """Number as in the file names."""
        return f"{self.number:05d}"


def fundus_config(settings: Settings) -> FundusPopulation:
    """The simulator's settings of a study of simulated fundus photographs; others are refused."""
    if not isinstance(settings.simulator, FundusPopulation):
        raise InputError(f"dataset {settings.dataset!r}: expected fairgenmed_simulated")
    return settings.simulator


def simulate_fairgenmed(config: FundusPopulation, root: Path) -> None:
    """Write a simulated cohort in FairGenMed's layout; a larger one begins with the same subjects.

    ``root`` becomes a folder with ``data_summary.csv``; ``train``, ``val``, ``test`` holding
    ``data_XXXXX.npz`` and ``slo_fundus_XXXXX.jpg``; ``truth.csv``; ``simulated.json``.
    """
    places = [(split, index) for split in _SPLITS for index in range(config.counts[split])]
    subjects = [draw_subject(config, *place) for place in places]
    truth = []
    for one in subjects:
        names = {"filename": f"data_{one.name}.npz", "image": f"slo_fundus_{one.name}"}
        truth.append(truth_row(one, one.eye, **names, split=one.split))
    with simulated_folder(root, config, truth) as folder:
        for split in _SPLITS:
            (folder / split).mkdir()
        write_each(_write_subject, subjects, folder, config.fundus_height, config.fundus_width)
        rows = pd.DataFrame([_summary_row(s) for s in subjects])
        rows.to_csv(folder / "data_summary.csv", index=False)


# --- who the subjects are ---


def draw_subject(config: FundusPopulation, split: str, index: int) -> Subject:
    """The subject at a position of a split, from 0; depends on seed, split and position alone."""
    place = spread(index)
    number = _SPLITS[split][1] + index
    # the same draws whatever the knobs, so that a knob changes what it names and nothing else
    uniform = np.random.default_rng([config.seed, number]).random(12).tolist()
    shares = {"Asian": config.share_asian, "Black": config.share_black, "White": 1.0}
    race = choose(place[0], shares)
    ethnicity = "Hispanic" if place[1] < config.share_hispanic else "Non-Hispanic"
    glaucoma = "yes" if uniform[0] < _GLAUCOMA_PREVALENCE[race] else "no"
    cdr = choose(uniform[1], _CDR_GIVEN[glaucoma])
    severity = choose(uniform[2], _MD_GIVEN[glaucoma])
    refraction = choose(uniform[3], _REFRACTION)
    knobs = factors(config, {"race": race, "ethnicity": ethnicity})
    margin = between(uniform[9], (0.6, 1.0))
    eye = _draw_eye(
        [config.seed, number, 1],
        race,
        ratio=between(uniform[8], _CDR_RANGE[cdr]),
        loss=between(uniform[5], _LOSS_RANGE[severity][::-1]),
        crescent=margin if refraction == "negative" else 0.0,
        ring=margin if refraction == "positive" else 0.0,
        knobs=knobs,
    )
    return Subject(
        number=number,
        split=split,
        race=race,
        sex="Female" if place[2] < 0.57 else "Male",
        ethnicity=ethnicity,
        glaucoma=glaucoma,
        md_severity=severity,
        cdr_status=cdr,
        refraction=refraction,
        age=round(between(uniform[4], (25, 80)) + (8 if glaucoma == "yes" else 0), 1),
        md=round(between(uniform[5], _MD_RANGE[severity]), 2),
        marital=int(uniform[6] * 51) // 10 if uniform[6] < 0.98 else -1,
        language=0 if uniform[7] < 0.9 else 1 if uniform[7] < 0.95 else 2,
        difficulty=knobs[0],
        heterogeneity=knobs[1],
        eye=eye,
    )


def _draw_eye(
    seed: list[int], race: str, ratio: float, loss: float, crescent: float, ring: float,
    knobs: tuple[float, float],
) -> Eye:  # fmt: skip
    """Appearance around the conditions: its spread is scaled by the second knob, heterogeneity."""
    rng = np.random.default_rng(seed)
    normal = normals(rng, 16)
    seeds = rng.integers(2**31, size=3).tolist()
    left_eye = bool(rng.random() < 0.5)
    z = (knobs[1] * normal).tolist()  # of what may vary more in a varied group
    room = 0.10 * (1 - ratio)  # disc radii that the cup's centre may lie off the disc's
    shift = [room * float(np.tanh(n)) for n in normal[:2]]
    noise, defocus = camera(normal[2:4], knobs[0])
    return Eye(
        cup_disc_ratio=ratio,
        disc_x=0.5 + 0.010 * z[4],
        disc_y=0.5 + 0.013 * z[5],
        disc_radius=clipped(_DISC_RADIUS[race] + 0.005 * z[6], 0.175, 0.21),
        disc_aspect=clipped(1.05 + 0.03 * z[7], 0.95, 1.2),
        cup_shift=(shift[0], shift[1]),
        left_eye=left_eye,
        loss=loss,
        crescent=crescent,
        ring=ring,
        melanin=clipped(_MELANIN[race] + 0.09 * z[8], 0.0, 1.0),
        gain=clipped(1 + 0.05 * z[9], 0.7, 1.2),
        tint=(1 + 0.015 * z[10], 1 + 0.025 * z[11], 1 + 0.03 * z[12]),
        tilt=(0.12 * z[13], 0.12 * z[14]),
        tortuosity=clipped(0.13 + 0.03 * z[15], 0.03, 0.30),
        noise=noise,
        defocus=defocus,
        vessel_seed=seeds[0],
        texture_seed=seeds[1],
        noise_seed=seeds[2],
    )


# --- files ---


def _write_subject(subject: Subject, folder: Path, height: int, width: int) -> None:
    """The jpg, and the npz with its labels and the 200 x 200 picture."""
    picture = Image.fromarray(render(subject.eye, height, width))
    place = folder / subject.split
    picture.save(place / f"slo_fundus_{subject.name}.jpg", quality=92)
    small = picture.resize((200, 200), Image.Resampling.BICUBIC)
    np.savez(
        place / f"data_{subject.name}.npz",
        glaucoma=np.int64(subject.glaucoma == "yes"),
        slo_fundus=np.asarray(small),
        oct_bscans=np.zeros((0, 200, 200), np.uint8),  # none is simulated
        race=np.int64(("Asian", "Black", "White").index(subject.race)),
        male=np.int64(subject.sex == "Male"),
        hispanic=np.int64(subject.ethnicity == "Hispanic"),
        maritalstatus=np.int64(subject.marital),
        language=np.int64(subject.language),
    )


def _summary_row(subject: Subject) -> dict[str, object]:
    return {
        "use": _SPLITS[subject.split][0],
        "filename": f"data_{subject.name}.npz",
        "age": subject.age,
        "gender": subject.sex.lower(),
        "race": subject.race.lower(),
        "ethnicity": subject.ethnicity.lower(),
        "language": _LANGUAGES[subject.language],
        "maritalstatus": "unknown" if subject.marital < 0 else _MARITAL[subject.marital],
        "glaucoma": subject.glaucoma,
        "md": subject.md,
        "md_severity": subject.md_severity,
        "cdr_status": subject.cdr_status,
        "rnflt_status": {"normal": "high", "mild": "medium"}.get(subject.md_severity, "low"),
        "near_vision_refraction_stage": subject.refraction,
    }


# --- the picture of an eye ---

FUNDUS_LIGHT: Colour = (0.64, 0.35, 0.22)  # melanin 0
FUNDUS_DARK: Colour = (0.36, 0.225, 0.165)  # melanin 1
RIM: Colour = (0.83, 0.56, 0.37)
CUP: Colour = (1.0, 0.91, 0.72)
FIELD_RADIUS = 0.555  # of the round field; the corners of the central square stay dark
EDGE = 0.010  # width of the disc's border


@dataclass(frozen=True)
class Eye:
    """Everything that decides a picture; lengths are fractions of the image height."""

    cup_disc_ratio: float  # square root of cup area over disc area, 0 to 1
    disc_x: float  # centre, fractions of the image's width
    disc_y: float  # and of its height
    disc_radius: float  # of the circle of equal area
    disc_aspect: float  # vertical over horizontal diameter
    cup_shift: tuple[float, float]  # of the cup's centre (x, y), in disc radii
    left_eye: bool  # temporal is right in the picture of a left eye
    loss: float  # of visual field, 0 to 1: nerve-fibre defects, lost sheen, mottling
    crescent: float  # myopic atrophy beside the disc, with tessellation, 0 to 1
    ring: float  # dark hyperopic margin, 0 to 1
    melanin: float  # 0 to 1
    gain: float  # exposure
    tint: Colour  # colour balance
    tilt: tuple[float, float]  # slope of the light (x, y)
    tortuosity: float  # radians by which a vessel's heading wanders
    noise: float  # standard deviation, share of full scale
    defocus: float  # standard deviation of the blur
    vessel_seed: int
    texture_seed: int
    noise_seed: int


def render(eye: Eye, height: int, width: int) -> Bytes:
    """The photograph of an eye, the same for the same arguments: uint8 [height, width, 3]."""
    grid_x, grid_y = grid(height, width)
    side = 1 if eye.left_eye else -1
    x = (grid_x - (eye.disc_x - 0.5) * width / height) * side
    y = grid_y - (eye.disc_y - 0.5)
    radius = np.hypot(x, y)
    angle = np.arctan2(-y, x)  # 0 = temporal, pi / 2 = up
    image = _background(eye, height, width)
    _nerve_fibres(image, eye, radius, angle)
    rows, columns = _window(eye, height, width)
    _margin(image[:, rows, columns], eye, x[rows, columns], y[rows, columns])
    _disc(image[:, rows, columns], eye, x[rows, columns], y[rows, columns])
    _vessels(image, eye, radius)
    return _camera(image, eye, grid_x, grid_y)


def _background(eye: Eye, height: int, width: int) -> Picture:
    """Pigmented fundus with choroidal texture, tessellation and loss mottling."""
    rng = np.random.default_rng(eye.texture_seed)
    clouds = smooth_noise(rng, 5, height, width)
    blotches = smooth_noise(rng, 14, height, width)
    light = 1 + 0.04 * clouds + 0.02 * smooth_noise(rng, 48, height, width)
    # ridges of smooth noise look like choroidal vessels between dark islands
    ridges = np.exp(-2.5 * np.abs(blotches + 0.4 * clouds))
    light += (0.09 * eye.crescent + 0.02) * (2.5 * ridges - 1)
    light *= 1 - 0.26 * eye.loss * np.clip(blotches + 0.5, 0, 1.6)
    image = pigmented(light, FUNDUS_LIGHT, FUNDUS_DARK, eye.melanin)
    # lost tissue also loses colour
    image += np.float32(0.35 * eye.loss) * (image.mean(axis=0) - image)
    return image


def _nerve_fibres(image: Picture, eye: Eye, radius: Plane, angle: Plane) -> None:
    """Arcuate sheen above and below the disc, and the dark wedges where fibres are lost."""
    rng = np.random.default_rng([eye.texture_seed, 1])
    outside = np.clip(radius - eye.disc_radius, 0, None)
    reach = np.clip(outside / 0.04, 0, 1)
    # bundles bend towards the temporal side as they leave the disc
    bent = np.abs(angle) + 0.9 * outside
    streaks = 0.75 + 0.25 * np.sin(46 * bent + 6 * radius)
    sheen = np.exp(-np.square((bent - 1.45) / 0.60) - outside / 0.30) * streaks * reach
    for plane, strength in zip(image, (0.8, 1.0, 0.75), strict=True):
        plane += 0.13 * (1 - 0.9 * eye.loss) * strength * sheen
    wedges = np.zeros_like(radius)
    for rank, up in enumerate((True, False, True)):
        wander = rng.standard_normal(2).tolist()
        # the first wedge opens with mild loss, the others as it grows
        depth = min(max((eye.loss - (0.10, 0.40, 0.70)[rank]) / 0.22, 0.0), 1.0)
        centre = (1.15, 1.20, 2.05)[rank] + 0.14 * wander[0]
        spread = (0.15 + 0.20 * eye.loss) * (1 + 0.15 * wander[1])
        if depth:
            half = angle > 0 if up else angle < 0
            shape = np.exp(-np.square(np.square((bent - centre) / spread))) * half
            np.maximum(wedges, depth * shape, out=wedges)
    darken(image, (0.46, 0.52, 0.50), wedges * reach)


def _window(eye: Eye, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that hold the disc and its margin."""
    reach = 1.65 * eye.disc_radius * height
    middle_y, middle_x = eye.disc_y * height, eye.disc_x * width
    rows = slice(max(0, int(middle_y - reach)), int(middle_y + reach) + 1)
    return rows, slice(max(0, int(middle_x - reach)), int(middle_x + reach) + 1)


def _elliptic(eye: Eye, x: Plane, y: Plane) -> Plane:
    """Radius in which the disc's border is a circle of ``disc_radius``."""
    stretch = math.sqrt(eye.disc_aspect)
    rho: Plane = np.hypot(x * stretch, y / stretch)
    return rho


def _margin(image: Picture, eye: Eye, x: Plane, y: Plane) -> None:
    """Pale temporal crescent of myopia, or the dark ring of hyperopia, around the disc."""
    rho = _elliptic(eye, x, y)
    toward: Plane = np.clip((x / np.maximum(rho, 1e-4) + 0.1) / 1.1, 0, 1)
    outer: Plane = np.float32(eye.disc_radius) * (1 + np.float32(0.50 * eye.crescent) * toward)
    crescent = 0.85 * min(1.0, 3 * eye.crescent) * ramp(outer - rho, 0.012)
    # sclera shines through: paler than the fundus, but less red than the rim
    mix(image, (0.67, 0.53, 0.39), crescent * (toward > 0))
    ring = np.exp(-(((rho - 1.10 * eye.disc_radius) / (0.10 * eye.disc_radius)) ** 2))
    darken(image, (0.34, 0.40, 0.36), eye.ring * ring)


def _disc(image: Picture, eye: Eye, x: Plane, y: Plane) -> None:
    """Neuroretinal rim and the brighter cup inside it."""
    rho = _elliptic(eye, x, y)
    shade = 1 - 0.10 * eye.melanin
    rim = (RIM[0] * shade, RIM[1] * shade, RIM[2] * shade)
    mix(image, rim, ramp(eye.disc_radius - rho, EDGE))
    shift_x, shift_y = (s * eye.disc_radius for s in eye.cup_shift)
    cup = _elliptic(eye, x - shift_x, y - shift_y)
    mix(image, CUP, 0.97 * ramp(eye.cup_disc_ratio * eye.disc_radius - cup, 1.4 * EDGE))


# --- vessels: tapering polygons along curves that branch ---

_PIECES = 36  # of a vessel's path
# four arcades: heading in radians (counter-clockwise from temporal), bend, length
_HEADINGS = np.array([1.45, -1.45, 2.15, -2.15])
_BENDS = np.array([-0.95, 0.95, 0.55, -0.55])
_LENGTHS = np.array([1.0, 1.0, 0.75, 0.75])


@dataclass(frozen=True)
class _Vessels:
    """n vessels of one generation: first points [n, 2]; heading, bend, length, thickness [n]."""

    start: Points
    heading: Points
    bend: Points
    length: Points
    thickness: Points

    def paths(self, rng: np.random.Generator, tortuosity: float) -> tuple[Points, Points, Points]:
        """Points [n, p, 2], headings [n, p] and thickness [n, p] along wandering paths."""
        n = len(self.heading)
        s = np.linspace(0, 1, _PIECES) * self.length[:, None]  # [n, p]
        phase = rng.uniform(0, 2 * np.pi, (2, n, 1))
        pitch = rng.uniform(0.10, 0.24, (2, n, 1))
        wander = (np.sin(2 * np.pi * s / pitch + phase) - np.sin(phase)).sum(axis=0)
        heading = self.heading[:, None] + tortuosity * wander
        heading += self.bend[:, None] * (1 - np.exp(-s / 0.40))
        step = (self.length / _PIECES)[:, None, None]
        points = np.cumsum(np.stack([np.cos(heading), -np.sin(heading)], axis=2) * step, axis=1)
        thickness = self.thickness[:, None] * np.linspace(1.0, 0.45, _PIECES)
        return self.start[:, None] + points, heading, thickness


def _offspring(
    rng: np.random.Generator, count: int, parents: _Vessels, paths: tuple[Points, Points, Points]
) -> _Vessels:
    """``count`` branches of each parent, leaving to alternate sides."""
    points, heading, thickness = paths
    n = len(heading)
    place = np.linspace(0.30, 0.85, count) + rng.uniform(-0.06, 0.06, (n, count))
    which, at = np.repeat(np.arange(n), count), (place * _PIECES).astype(int).ravel()
    sides = rng.choice((-1.0, 1.0), (n, 1)) * (-1.0) ** np.arange(count)
    side = sides.ravel()
    rest = parents.length[which] * (1 - place.ravel())
    return _Vessels(
        start=points[which, at],
        heading=heading[which, at] + side * rng.uniform(0.45, 0.85, n * count),
        bend=-0.35 * side,
        length=rest * rng.uniform(0.6, 1.0, n * count) + 0.08,
        thickness=thickness[which, at] * rng.uniform(0.50, 0.70, n * count),
    )


def _tree(rng: np.random.Generator, eye: Eye, vein: bool) -> list[Points]:
    """Outlines [2 p, 2] of the arteries or the veins, relative to the disc centre."""
    up = np.sign(_HEADINGS)
    begin = np.stack([np.full(4, -0.16 if vein else -0.08), -0.10 * up], axis=1)
    vessels = _Vessels(
        start=eye.disc_radius * begin,
        heading=_HEADINGS + (0.22 if vein else -0.10) * up + 0.10 * rng.standard_normal(4),
        bend=_BENDS * rng.uniform(0.8, 1.25, 4),
        length=_LENGTHS,
        thickness=(0.0265 if vein else 0.0195) * rng.uniform(0.9, 1.1, 4),
    )
    outlines: list[Points] = []
    for count in (4, 2, 0):
        paths = vessels.paths(rng, eye.tortuosity)
        points, heading, thickness = paths
        normal = np.stack([np.sin(heading), np.cos(heading)], axis=2) * thickness[..., None] / 2
        outlines.extend(np.concatenate([points + normal, (points - normal)[:, ::-1]], axis=1))
        if count:
            vessels = _offspring(rng, count, vessels, paths)
    return outlines


def _coverage(outlines: list[Points], eye: Eye, height: int, width: int) -> Plane:
    """Share of each pixel that the outlines cover."""

    def paint(draw: ImageDraw.ImageDraw, rows: int, columns: int) -> None:
        scale = np.array([rows if eye.left_eye else -rows, rows])
        centre = np.array([eye.disc_x * columns, eye.disc_y * rows])
        for outline in outlines:
            draw.polygon((outline * scale + centre).ravel().tolist(), fill=255)

    return covered(height, width, paint)


def _vessels(image: Picture, eye: Eye, radius: Plane) -> None:
    """Veins, then arteries over them; paler on the disc, where no pigment lies behind them."""
    rng = np.random.default_rng(eye.vessel_seed)
    strength = 1 - 0.60 * ramp(eye.disc_radius - radius, 0.03)
    for vein, colour in ((True, (0.42, 0.58, 0.50)), (False, (0.20, 0.48, 0.46))):
        darken(image, colour, strength * _coverage(_tree(rng, eye, vein), eye, *radius.shape))


# --- camera ---


def _camera(image: Picture, eye: Eye, x: Plane, y: Plane) -> Bytes:
    """Illumination, round field, defocus, noise."""
    from_middle: Plane = x * x + y * y
    light = 1.04 - 0.95 * from_middle + eye.tilt[0] * x + eye.tilt[1] * y
    field = ramp(np.float32(FIELD_RADIUS) - np.sqrt(from_middle), 0.012)
    light *= field
    for plane, strength in zip(image, eye.tint, strict=True):
        plane *= light * (eye.gain * strength)
    return photograph(image, defocus=eye.defocus, noise=eye.noise, seed=eye.noise_seed, field=field)


# --- the ruler: two concentric steps of brightness, background to rim and rim to cup, fitted to
# ring quantiles around the disc; their edges may be blurred, and the blur is fitted too

Centres = npt.NDArray[np.int64]

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
    """Candidate discs and their least-squares solutions."""

    disc: Floats  # [m], radii
    cup: Floats  # [m]
    basis: Floats  # [m, k, rings], orthonormal under the ring weights
    solve: Floats  # [m, 2, rings]: gives the steps background to rim and rim to cup


@lru_cache(maxsize=1)
def _ring_pixels() -> tuple[Centres, ...]:
    """Flat indices of the pixels of each ring in a square of 2 RINGS + 1 pixels."""
    reach = np.arange(-RINGS, RINGS + 1)
    ring = np.rint(np.hypot(reach[:, None], reach[None, :])).astype(np.int64).ravel()
    return tuple(np.flatnonzero(ring == index) for index in range(RINGS))


def _weights() -> Floats:
    """Square root of the weight [rings] of each ring: its pixels, up to 12 of them."""
    return np.asarray(np.sqrt(np.minimum([len(pixels) for pixels in _ring_pixels()], 12.0)))


def _step(radius: float, blur: float) -> Floats:
    """Ring means [rings] of a blurred disc of 1 on 0; radius and blur in pixels."""
    fine = 4  # sub-pixels per pixel
    axis = np.arange(-RINGS * fine, RINGS * fine + 1) / fine
    disc = (np.hypot(axis[:, None], axis[None, :]) <= radius).astype(np.float64)
    # a pixel averages over its own area: 0.3 pixels of blur at least
    soft = ndimage.gaussian_filter(disc, math.hypot(blur, 0.3) * fine, truncate=3)
    return np.asarray(_means(soft[None, ::fine, ::fine])[0])


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
    image = np.arange(len(grey))[:, None, None]
    return np.asarray(grey[image, rows[:, :, None], columns[:, None, :]])


def _means(patches: Floats) -> Floats:
    """Ring means [n, rings] of squares [n, p, p]."""
    flat = patches.reshape(len(patches), -1)
    return np.stack([flat[:, pixels].mean(axis=1) for pixels in _ring_pixels()], axis=1)


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
        planes[:, index] = np.moveaxis(np.asarray(reduced(image)) @ _MIXTURES.T, 2, 0)
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
    """Cup-disc ratio (root of the area ratio), 0.12 to 0.97; NaN without a disc and brighter cup.

    Of fundus pictures, uint8 [n, 3, height, width], with the disc near the middle: their central
    square at 64 x 64 pixels is measured.
    """
    ratios = np.full(len(images), np.nan)
    fine = _models(0.25, (0.3, 1.0, 1.7, 2.5))
    for start in range(0, len(images), _CHUNK):
        planes = _planes(images[start : start + _CHUNK])
        left, best = _fit(_profiles(planes, _centres(planes)), fine)
        found = left < 1 - _LEAST_EXPLAINED
        ratios[start : start + _CHUNK][found] = (fine.cup / fine.disc)[best[found]]
    return ratios


RULER = Ruler(
    name="cup-disc ratio",
    column="cup_disc_ratio",
    key="cup_disc",
    mean="cup_disc_ratio",
    condition="cdr_status",
    low="normal",
    high="abnormal",
    # halfway between the ranges of neighbouring levels
    cuts=tuple((low[1] + high[0]) / 2 for low, high in pairwise(_CDR_RANGE.values())),
    nothing="no disc found",
    measure=measure_cup_disc_ratio,
)
