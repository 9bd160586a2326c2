"""CheXpert, simulated: patients, their frontal chest films, and an effusion's height read back.

The knobs are those of fundus photographs, over race and sex. An effusion has a known height and
nearly the same frequency in every group; an uncertain label (-1) stands for a small one, or for
none. A few certain labels are not what the film shows, so that no classifier can be perfect.

Lengths are fractions of the image height; ``x`` grows to the picture's right (the patient's left),
``y`` downwards, both from the middle of the chest. Densities add up and are exposed: more density
is whiter. The picture is a cartoon made for a measurable effusion; it is no model of X-rays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy import ndimage

from fairdiff_lib.data.chexpert import FINDINGS, WITH, WITHOUT, WORKBOOK
from fairdiff_lib.data.cohort import Ruler
from fairdiff_lib.settings.options import Population, options
from fairdiff_lib.sim.drawing import (
    SIDE,
    Bytes,
    Floats,
    Plane,
    Points,
    between,
    camera,
    choose,
    clipped,
    factors,
    grid,
    normals,
    photograph,
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

_VALID_EVERY = 40  # every so many-th patient is in valid.csv; any of them may be sampled

_PREVALENCE = {"Asian": 0.42, "Black": 0.38, "White": 0.40}  # of an effusion, near the real one
_UNCERTAIN = 0.04  # share of patients whose label is -1, as in the real set
_TWO_STUDIES = 0.20  # share of patients with a second study
_HEIGHT = (0.09, 0.40)  # of an effusion, fractions of the image height
_SMALL = (0.03, 0.08)  # of one that is uncertain
_RACE_WORDS = {
    "Asian": ("Asian", "Asian, non-Hispanic"),
    "Black": ("Black or African American", "Black, non-Hispanic"),
    "White": ("White", "White, non-Hispanic"),
}


@options
class ChestPopulation(Population):
    """CheXpert: frontal chest films in the public release's layout. Its reader splits."""

    noise: ClassVar[str] = "noise and blur of the film"
    landscape: ClassVar[bool] = False
    most: ClassVar[Mapping[str, int]] = {"patients": 99_999}  # patient names have 5 digits
    levels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "asian": ("race", "Asian"),
        "black": ("race", "Black"),
        "female": ("sex", "Female"),
    }
    patients: int = 1640  # 60/10/30 by the reader; the study samples 10,000
    image_height: int = 192  # pixels; the small release has 320 at the shorter side
    image_width: int = 192  # pixels
    # round numbers near the real shares among the three levels
    share_asian: float = 0.15  # fraction of patients
    share_black: float = 0.18  # more than the real set has, so that the level can be judged
    share_female: float = 0.42  # fraction of patients
    share_contradicted: float = 0.05  # of certain labels of an effusion, not what the film shows
    heterogeneity_asian: float = 1.0  # x the spread of appearance; 1 = as varied as White
    heterogeneity_black: float = 1.0  # as above
    difficulty_asian: float = 1.0  # x the noise and blur of the film
    difficulty_black: float = 3.0  # as above; 1 = nothing planted
    difficulty_female: float = 1.0  # as above, against Male
    seed: int = 20250413  # of the simulated patients, not of any training


@dataclass(frozen=True)
class Patient:
    """A simulated patient: labels, and the film of each study."""

    number: int
    race: str
    sex: str
    age: int  # years
    race_word: str  # as the workbook has it
    label: str  # of Pleural Effusion, as train.csv has it
    difficulty: float  # x noise and blur
    heterogeneity: float  # x spread of appearance
    films: tuple[Film, ...]

    @property
    def name(self) -> str:
        """As in the release."""
        return f"patient{self.number:05d}"

    @property
    def folder(self) -> str:
        """Part of the release."""
        return "train" if self.number % _VALID_EVERY else "valid"

    def path(self, study: int) -> str:
        """Path of a study's frontal view below the release's folder."""
        return f"{self.folder}/{self.name}/study{study}/view1_frontal.jpg"


def simulate_chexpert(config: ChestPopulation, root: Path) -> None:
    """Write simulated films in CheXpert's layout; a larger set begins with the same patients.

    ``root`` becomes a folder with ``train.csv``, ``valid.csv`` and ``CHEXPERT DEMO.xlsx``;
    ``{train,valid}/patientXXXXX/studyN/view1_frontal.jpg``; ``truth.csv``; ``simulated.json``.
    """
    patients = [draw_patient(config, index) for index in range(config.patients)]
    truth = [
        truth_row(p, film, image=f"{p.name}_study{n}_view1_frontal", label=p.label)
        for p in patients
        for n, film in enumerate(p.films, start=1)
    ]
    with simulated_folder(root, config, truth) as folder:
        write_each(_write_patient, patients, folder, config.image_height, config.image_width)
        for part in ("train", "valid"):
            rows = [row for p in patients if p.folder == part for row in _label_rows(p)]
            pd.DataFrame(rows, columns=_COLUMNS).to_csv(folder / f"{part}.csv", index=False)
        people = pd.DataFrame([_demographics(patient) for patient in patients])
        people.to_excel(folder / WORKBOOK, index=False, engine="openpyxl")


# --- who the patients are ---


def draw_patient(config: ChestPopulation, index: int) -> Patient:
    """The patient at a position, from 0 (names count from 1); by seed and position alone."""
    place = spread(index)
    # the same draws whatever the knobs, so that a knob changes what it names and nothing else
    uniform = np.random.default_rng([config.seed, index]).random(10).tolist()
    shares = {"Asian": config.share_asian, "Black": config.share_black, "White": 1.0}
    race = choose(place[0], shares)
    sex = "Female" if place[1] < config.share_female else "Male"
    uncertain = uniform[0] < _UNCERTAIN
    ill = place[3] < _PREVALENCE[race]
    contradicted = not uncertain and uniform[7] < config.share_contradicted
    fluid = ill != contradicted  # what the film shows
    height = between(uniform[1], _SMALL if uncertain else _HEIGHT) if fluid else 0.0
    knobs = factors(config, {"race": race, "sex": sex})
    right_sided = uniform[2] < 0.55
    own, seeds = [config.seed, index, 0], [[config.seed, index, n] for n in (1, 2)]
    films = [
        _draw_film(own, seed, sex, height, right_sided, knobs)
        for seed in seeds[: 2 if uniform[3] < _TWO_STUDIES else 1]
    ]
    return Patient(
        number=index + 1,
        race=race,
        sex=sex,
        age=int(between(uniform[4], (20, 91))),
        race_word=_RACE_WORDS[race][int(uniform[5] * 2)],
        label="-1.0" if uncertain else "1.0" if ill else "0.0" if uniform[6] < 0.3 else "",
        difficulty=knobs[0],
        heterogeneity=knobs[1],
        films=tuple(films),
    )


def _draw_film(
    anatomy: list[int], seed: list[int], sex: str, effusion: float, right_sided: bool,
    knobs: tuple[float, float],
) -> Film:  # fmt: skip
    """Body (the same in every study) and exposure: their spread scales by the second knob."""
    own, film = np.random.default_rng(anatomy), np.random.default_rng(seed)
    body = (knobs[1] * normals(own, 6)).tolist()
    normal = normals(film, 10)
    z = (knobs[1] * normal).tolist()
    noise, defocus = camera(normal[:2], knobs[0])
    uniform = film.random(6).tolist()
    seeds = [int(own.integers(2**31)), *film.integers(2**31, size=2).tolist()]
    return Film(
        effusion=effusion,
        right_sided=right_sided,
        x=clipped(0.012 * z[2], -0.04, 0.04),
        y=clipped(0.02 + 0.015 * z[3], -0.03, 0.06),
        scale=clipped((1.0 if sex == "Male" else 0.96) + 0.03 * body[0], 0.85, 1.1),
        turn=0.008 * z[4],
        breadth=clipped(1.0 + 0.03 * body[1], 0.88, 1.1),
        heart=clipped(0.155 + 0.018 * body[2], 0.115, 0.215),
        haze=clipped(0.03 + 0.025 * body[3], 0.0, 0.12),
        ribs=clipped(0.075 + 0.015 * body[4], 0.03, 0.12),
        breast=0.0 if sex == "Male" else clipped(0.09 + 0.03 * body[5], 0.0, 0.18),
        pacemaker=uniform[0] < 0.08,
        tube=uniform[1] < 0.10,
        line=uniform[2] < 0.18,
        leads=uniform[3] < 0.22,
        gain=clipped(1.08 + 0.06 * z[5], 0.85, 1.3),
        gamma=clipped(1.0 + 0.07 * z[6], 0.75, 1.3),
        tilt=(0.08 * z[7], 0.08 * z[8]),
        collimation=0.03 * max(0.0, uniform[4] - 0.7) / 0.3,
        noise=noise,
        defocus=defocus,
        anatomy_seed=seeds[0],
        device_seed=seeds[1],
        noise_seed=seeds[2],
    )


# --- files ---

_COLUMNS = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]


def _write_patient(patient: Patient, folder: Path, height: int, width: int) -> None:
    for study, film in enumerate(patient.films, start=1):
        path = folder / patient.path(study)
        path.parent.mkdir(parents=True)
        Image.fromarray(render(film, height, width)).save(path, quality=92)


def _label_rows(patient: Patient) -> list[dict[str, object]]:
    """Rows of ``train.csv`` or ``valid.csv``, in the published columns."""
    return [
        {
            "Path": f"CheXpert-v1.0-small/{patient.path(study)}",
            "Sex": patient.sex,
            "Age": patient.age,
            "Frontal/Lateral": "Frontal",
            "AP/PA": "AP" if film.devices else "PA",
            "No Finding": "1.0" if patient.label in ("", "0.0") and not film.devices else "",
            "Pleural Effusion": patient.label,
            "Support Devices": "1.0" if film.devices else "",
        }
        for study, film in enumerate(patient.films, start=1)
    ]


def _demographics(patient: Patient) -> dict[str, object]:
    """Row of the workbook, in the published columns."""
    return {
        "PATIENT": patient.name,
        "GENDER": patient.sex,
        "AGE_AT_CXR": patient.age,
        "PRIMARY_RACE": patient.race_word,
        "ETHNICITY": "Non-Hispanic/Non-Latino",
    }


# --- the picture of a chest ---

APEX = -0.37  # y of the lungs' tops
WALL = 0.375  # x of the inner chest wall at the lungs' bases
ANGLE = 0.285  # y of the costophrenic angles
DOME = 0.115  # height of the right half of the diaphragm above its angle
LEFT_LOWER = 0.02  # by which the left half of the diaphragm is lower in the middle
SPINE = 0.058  # half width of spine and great vessels
_TISSUE, _LUNG, _FLUID = 0.60, 0.17, 0.74  # densities


@dataclass(frozen=True)
class Film:
    """Everything that decides a picture; lengths are fractions of the image height."""

    effusion: float  # height of the fluid at the chest wall above the costophrenic angle; 0 is none
    right_sided: bool  # fluid on the patient's right, the picture's left
    x: float  # centre of the chest
    y: float
    scale: float  # of the chest, against the usual one
    turn: float  # radians
    breadth: float  # of the chest, against the usual one
    heart: float  # half width
    haze: float  # density added to the lungs
    ribs: float  # their density
    breast: float  # density of the shadows; 0 is none
    pacemaker: bool  # with its wire
    tube: bool  # tracheal
    line: bool  # central venous
    leads: bool  # electrode wires
    gain: float  # exposure
    gamma: float  # exposure
    tilt: tuple[float, float]  # slope of the exposure (x, y)
    collimation: float  # width of the dark border at either side
    noise: float  # standard deviation, share of full scale
    defocus: float  # standard deviation of the blur
    anatomy_seed: int
    device_seed: int
    noise_seed: int

    @property
    def devices(self) -> bool:
        return self.pacemaker or self.tube or self.line or self.leads


def render(film: Film, height: int, width: int) -> Bytes:
    """The film of a patient, by its arguments alone: uint8 [height, width], grey levels."""
    grid_x, grid_y = grid(height, width)
    right, down = turned(grid_x - film.x, grid_y - film.y, film.turn)
    x = (right / (film.scale * film.breadth)).astype(np.float32)
    y = (down / film.scale).astype(np.float32)
    body = _body(x, y)
    lung = _lungs(x, y)
    fluid = _fluid(film, x, y)
    air = lung * (1 - fluid)
    density = np.float32(_TISSUE) * body + _abdomen(x, y)
    density = density + air * (np.float32(_LUNG + film.haze) - density)
    density += np.float32(_FLUID - _TISSUE) * fluid * lung
    density += _markings(film, height, width) * air
    density += _ribs(film, x, y) * (0.35 + 0.65 * air) * body
    density = np.maximum(density, _mediastinum(film, x, y) * body)
    density += film.breast * _breasts(x, y)
    density += 0.11 * _bones(film, height, width)
    density += 0.45 * _devices(film, height, width)
    return _expose(film, density, grid_x, grid_y)


# -- anatomy ---------------------------------------------------------------------------------


def _body(x: Plane, y: Plane) -> Plane:
    """Neck, shoulders and trunk: 1 inside."""
    shoulder = -0.47 + 0.62 * np.clip(np.abs(x) - 0.13, 0, None) ** 1.35
    trunk = np.minimum(y - shoulder, 0.47 + 0.10 * np.clip(-y, 0, None) - np.abs(x))
    neck = 0.11 - np.abs(x)
    return ramp(np.maximum(trunk, neck), 0.03)


def diaphragm(x: Plane) -> Plane:
    """y of the lungs' lower border: a dome in each half, lowest at the chest wall."""
    across = (np.abs(x) - 0.15) / (WALL - 0.15)
    lower = LEFT_LOWER * (x > 0) * np.clip(1 - across, 0, 1)
    border: Plane = ANGLE - DOME * np.clip(1 - across * np.abs(across), 0, 1) + lower
    return border.astype(np.float32)


def _lungs(x: Plane, y: Plane) -> Plane:
    """Both lung fields: 1 inside."""
    far = np.abs(x)
    height = np.clip((ANGLE - y) / (ANGLE - APEX), 0, 1)  # 0 at the base, 1 at the apex
    wall = WALL - 0.14 * height**2.2
    top = APEX + 3.0 * (far - 0.14) ** 2
    inside = np.minimum(wall - far, far - 0.045)
    inside = np.minimum(inside, np.minimum(y - top, diaphragm(x) - y))
    return ramp(inside.astype(np.float32), 0.018)


def _abdomen(x: Plane, y: Plane) -> Plane:
    """Added density below the diaphragm, with air in the stomach on the patient's left."""
    below = ramp(y - diaphragm(x), 0.02) * ramp(0.47 - np.abs(x), 0.02)
    bubble = ramp(1 - np.hypot((x - 0.19) / 0.075, (y - 0.275) / 0.038), 0.5)
    return 0.15 * below - 0.22 * bubble * below


def _mediastinum(film: Film, x: Plane, y: Plane) -> Plane:
    """Spine, great vessels, trachea and heart, as densities."""
    # widest where the great vessels leave the heart
    vessels = 0.016 * np.exp(-np.square((y + 0.06) / 0.10)) + 0.03 * np.clip(y, 0, None)
    spine = 0.69 * ramp(SPINE + vessels - np.abs(x), 0.04)
    spine -= 0.16 * np.exp(-np.square(x / 0.017)) * ramp(-0.13 - y, 0.06)  # air in the trachea
    discs = 0.012 * np.cos(2 * math.pi * y / 0.055)
    spine = spine + discs * (np.abs(x) < SPINE)
    knob = 0.66 * ramp(0.042 - np.hypot(x - 0.052, (y + 0.14) / 1.25), 0.035)
    # the apex of the heart points down to the patient's left
    heart_x = (x - 0.04 - 0.30 * np.clip(y - 0.10, -0.15, 0.1)) / film.heart
    heart = 0.72 * ramp(1 - np.hypot(heart_x, (y - 0.11) / 0.165), 0.20)
    return np.asarray(np.maximum(np.maximum(spine, knob), heart), dtype=np.float32)


def _ribs(film: Film, x: Plane, y: Plane) -> Plane:
    """Posterior ribs, nearly level, and fainter anterior ones that slope to the middle."""
    far = np.abs(x)
    back = (y - 0.55 * np.square(far) + 0.10 * far) / 0.074
    front = (y + 0.35 * far) / 0.092 + 0.3
    bands = np.clip(np.cos(2 * math.pi * back) - 0.1, 0, None)
    bands = bands + 0.45 * np.clip(np.cos(2 * math.pi * front) - 0.35, 0, None) * (far > 0.12)
    seen = ramp(0.43 - far, 0.05) * ramp(far - 0.03, 0.03)
    return np.asarray(film.ribs * bands * seen, dtype=np.float32)


def _breasts(x: Plane, y: Plane) -> Plane:
    """Soft shadows over the lower outer lungs."""
    return ramp(1 - np.hypot((np.abs(x) - 0.235) / 0.145, (y - 0.13) / 0.155), 0.5)


def _fluid(film: Film, x: Plane, y: Plane) -> Plane:
    """Effusion: 1 below a level that rises to the chest wall in a meniscus."""
    if film.effusion <= 0:
        return np.zeros_like(x)
    side = x < 0 if film.right_sided else x > 0
    return ramp(y - fluid_level(x, film.effusion), 0.03) * side


def fluid_level(x: Plane, height: float) -> Plane:
    """y of a fluid's surface that stands at ``height`` above the angle at the chest wall."""
    across = np.clip((np.abs(x) - SPINE) / (WALL - SPINE), 0, 1)
    return np.asarray(ANGLE - height * (0.72 + 0.28 * across**2), dtype=np.float32)


def _placed(film: Film, points: Points) -> Points:
    """Points of the chest's coordinates in the picture's."""
    cos, sin = math.cos(film.turn), math.sin(film.turn)
    own = points * (film.scale * film.breadth, film.scale)
    x, y = cos * own[:, 0] - sin * own[:, 1], sin * own[:, 0] + cos * own[:, 1]
    return np.asarray(np.stack([x, y], axis=1) + np.array([film.x, film.y]))


def _markings(film: Film, height: int, width: int) -> Plane:
    """Vessels that spread from each hilum, and the lungs' fine texture."""
    rng = np.random.default_rng(film.anatomy_seed)
    lines: list[Points] = []
    thickness: list[float] = []
    s = np.linspace(0, 1, 8)[:, None]
    for side in (-1, 1):
        for heading in np.linspace(-1.25, 1.35, 9):
            angle = heading + rng.normal(0, 0.1)
            bow = rng.normal(0, 0.05) * np.sin(math.pi * s)
            ahead = np.array([side * math.cos(angle), math.sin(angle)])
            across = np.array([-ahead[1], ahead[0]])
            start = np.array([side * 0.075, -0.02 + 0.03 * heading])
            path = start + rng.uniform(0.14, 0.24) * s * ahead + bow * across
            lines += [_placed(film, path), _placed(film, path[:4])]
            thickness += [0.006, 0.014]
    texture = 0.014 * smooth_noise(rng, 14, height, width)
    return 0.16 * strokes(lines, thickness, height, width) + texture


def _bones(film: Film, height: int, width: int) -> Plane:
    """Clavicles."""
    s = np.linspace(0, 1, 10)
    lines = []
    for side in (-1, 1):
        bow = 0.018 * np.sin(2 * math.pi * s)
        points = np.stack([side * (0.035 + 0.33 * s), -0.295 - 0.075 * s + bow], axis=1)
        lines.append(_placed(film, points))
    return strokes(lines, [0.026, 0.026], height, width)


# -- devices and exposure --------------------------------------------------------------------


def _devices(film: Film, height: int, width: int) -> Plane:
    """Metal and plastic, and the marker of the patient's side that every film has."""
    rng = np.random.default_rng(film.device_seed)
    shift = rng.normal(0, 0.012, 2)
    # the marker stays where it is on the plate: an L beside the patient's left shoulder
    corner = np.array([0.40, -0.40]) + 0.5 * shift
    lines: list[Points] = [corner + np.array([[0, -0.03], [0, 0.02], [0.028, 0.02]])]
    thickness = [0.010]
    if film.pacemaker:
        box = np.array([[0.22, -0.27], [0.28, -0.25]]) + shift
        wire = np.array([[0.22, -0.25], [0.10, -0.30], [0.02, -0.20], [0.0, 0.0], [0.07, 0.16]])
        lines += [_placed(film, box), _placed(film, _curve(wire + shift))]
        thickness += [0.075, 0.008]
    if film.tube:
        lines.append(_placed(film, np.array([[0.008, -0.5], [0.002, -0.30], [0.0, -0.16]])))
        thickness.append(0.016)
    if film.line:
        path = np.array([[-0.16, -0.42], [-0.10, -0.30], [-0.045, -0.20], [-0.04, -0.02]])
        lines.append(_placed(film, _curve(path + shift)))
        thickness.append(0.009)
    if film.leads:
        for at in ((-0.24, -0.17), (0.26, -0.13), (0.24, 0.20)):
            pad = np.array(at) + rng.normal(0, 0.03, 2)
            way = pad + np.array([[0, 0], [0.03, 0.09], [-0.02, 0.22], [0.06, 0.40]])
            way[1:] += rng.normal(0, 0.025, (3, 2))
            dot = pad + np.array([[-0.008, 0], [0.008, 0]])
            lines += [_placed(film, dot), _placed(film, _curve(way))]
            thickness += [0.026, 0.005]
    return strokes(lines, thickness, height, width)


def _curve(points: Points) -> Points:
    """A smooth line through points: their polynomial over the distance walked."""
    steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    fine = np.linspace(0, steps[-1], 24)
    order = min(3, len(points) - 1)
    fits = [np.polyval(np.polyfit(steps, column, order), fine) for column in points.T]
    return np.stack(fits, axis=1)


def _expose(film: Film, density: Plane, x: Plane, y: Plane) -> Bytes:
    """Exposure, collimation, blur and noise."""
    light = film.gain * (1 + film.tilt[0] * x + film.tilt[1] * y)
    grey = np.clip(light * density, 0.015, 1) ** film.gamma
    edge = np.float32(x.max()) - np.abs(x)
    grey = grey * ramp(edge - np.float32(film.collimation), 0.006)
    picture = np.repeat(grey[None].astype(np.float32), 3, axis=0)
    taken = photograph(picture, defocus=film.defocus, noise=film.noise, seed=film.noise_seed)
    return np.ascontiguousarray(taken[:, :, 0])


# --- the ruler: along each chest wall the lung is dark and what lies below it, diaphragm or fluid,
# is bright; how much higher that step is on one side than on the other says how high fluid stands

_READ_AT = (0.30, 0.36)  # distance from the chest's middle, of the side: where a lung is read
_READ_ROWS = (0.22, 0.90)  # of the side: below the clavicles, above the picture's end
_SHIFT = 3  # pixels by which the chest's middle may lie off the picture's
_LEAST_STEP = 12.0  # grey levels of 255 from lung to what is below; fewer is no chest
_LEAST_RISE = 0.02  # of the side; a turned patient's two sides differ by up to this without fluid
_HEIGHTS = np.linspace(0, 0.6, 121)  # that a step is compared with


def measure_effusion(images: npt.NDArray[np.uint8]) -> Floats:
    """Height of fluid at the chest wall above the costophrenic angle, as a share of the picture's.

    Of frontal films, uint8 [n, 3, height, width], with the chest near the middle and fluid on one
    side at most: their central square at 64 x 64 pixels is measured. NaN where no lung ends in
    something brighter.
    """
    return np.array([_measure_one(image) for image in images], dtype=np.float64)


def _measure_one(image: npt.NDArray[np.uint8]) -> float:
    grey = ndimage.gaussian_filter(np.asarray(reduced(image), dtype=np.float64).mean(axis=2), 0.8)
    middle = SIDE / 2 - 0.5 + _off_centre(grey)
    right, left = (_level(_profile(grey, middle, side)) for side in (-1, 1))
    usual, steps = _steps()
    rise = abs(left - right - usual)
    return 0.0 if rise < _LEAST_RISE else float(np.interp(rise, steps, _HEIGHTS))


@lru_cache(maxsize=1)
def _steps() -> tuple[float, Floats]:
    """Level of the left side below the right without fluid; and the step for each height."""
    x = np.linspace(*_READ_AT, 40, dtype=np.float32)
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
    ends = sorted(middle + side * share * SIDE for share in _READ_AT)
    return np.asarray(grey[:, round(ends[0]) : round(ends[1]) + 1].mean(axis=1))


def _level(profile: Floats) -> float:
    """Row, as a share of the side, at which a lung ends; NaN where there is none."""
    first, last = (round(share * SIDE) for share in _READ_ROWS)
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


RULER = Ruler(
    name="height of the effusion",
    column="effusion",
    key="effusion",
    mean="effusion_height",
    condition="effusion",
    low=WITHOUT,
    high=WITH,
    cuts=(_HEIGHT[0] / 2,),  # halfway between none and the least whose label is positive
    nothing="no lungs found",
    measure=measure_effusion,
)
