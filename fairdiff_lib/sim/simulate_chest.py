"""Simulates frontal chest films in the layout of CheXpert's release, with a planted disparity.

The knobs are those of the first simulator, over race and sex. An effusion has a known height and
nearly the same frequency in every group; an uncertain label (-1) stands for a small one, or for
none. A few certain labels are not what the film shows, so that no classifier can be perfect.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from PIL import Image

from fairdiff_lib.data.chexpert import FINDINGS, WORKBOOK
from fairdiff_lib.disk.files import atomic_folder, write_json
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import as_dict
from fairdiff_lib.settings.populations import Knobs, Population
from fairdiff_lib.sim.chest import Film, render
from fairdiff_lib.sim.planting import (
    between,
    check_fields,
    choose,
    clipped,
    factors,
    spread,
    write_each,
)

_MOST = {"patients": 99_999}  # patient names have 5 digits
_VALID_EVERY = 40  # every so many-th patient is in valid.csv; any of them may be sampled

_PREVALENCE = {"Asian": 0.42, "Black": 0.38, "White": 0.40}  # of an effusion, near the real one
_UNCERTAIN = 0.04  # share of patients whose label is -1, as in the real set
_TWO_STUDIES = 0.20  # share of patients with a second study
_HEIGHT = (0.09, 0.40)  # of an effusion, fractions of the image height
_SMALL = (0.03, 0.08)  # of one that is uncertain
_NOISE = 0.014  # standard deviation, share of full scale, at difficulty 1
_DEFOCUS = 0.0035  # standard deviation of the blur, fraction of the height, at difficulty 1
_RACE_WORDS = {
    "Asian": ("Asian", "Asian, non-Hispanic"),
    "Black": ("Black or African American", "Black, non-Hispanic"),
    "White": ("White", "White, non-Hispanic"),
}


@dataclass(frozen=True)
class ChestPopulation(Population):
    """CheXpert: frontal chest films in the public release's layout. Its reader splits."""

    difficulty: ClassVar[str] = "noise and blur of the film"
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

    @property
    def counts(self) -> dict[str, int]:
        """Patients by the field that sets them."""
        return {"patients": self.patients}

    @property
    def knobs(self) -> Knobs:
        """Difficulty and heterogeneity of every level that has a knob."""
        return {
            ("race", "Asian"): (self.difficulty_asian, self.heterogeneity_asian),
            ("race", "Black"): (self.difficulty_black, self.heterogeneity_black),
            ("sex", "Female"): (self.difficulty_female, 1.0),
        }


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


def check_chest(config: ChestPopulation) -> None:
    """Refuse settings that can't be simulated, naming the field."""
    check_fields(config, _MOST)
    if config.share_asian + config.share_black > 1:
        raise InputError(
            f"simulator.share_asian + share_black = {config.share_asian + config.share_black:g}: "
            "expected at most 1"
        )


def simulate_chest(config: ChestPopulation, root: Path) -> None:
    """Write simulated films in CheXpert's layout; a larger set begins with the same patients.

    Parameters
    ----------
    config : ChestPopulation
    root : Path
        Becomes a folder with ``train.csv``, ``valid.csv`` and ``CHEXPERT DEMO.xlsx``;
        ``{train,valid}/patientXXXXX/studyN/view1_frontal.jpg``; ``truth.csv``; and
        ``simulated.json`` with the settings. Appears whole or not at all.

    Raises
    ------
    InputError
        A setting that can't be simulated, or a full disk.
    """
    check_chest(config)
    patients = [draw_patient(config, index) for index in range(config.patients)]
    with atomic_folder(root) as folder:
        write_each(_write_patient, patients, folder, config.image_height, config.image_width)
        for part in ("train", "valid"):
            rows = [row for p in patients if p.folder == part for row in _label_rows(p)]
            pd.DataFrame(rows, columns=_COLUMNS).to_csv(folder / f"{part}.csv", index=False)
        people = pd.DataFrame([_demographics(patient) for patient in patients])
        people.to_excel(folder / WORKBOOK, index=False, engine="openpyxl")
        truth = [row for patient in patients for row in _truth_rows(patient)]
        pd.DataFrame(truth).to_csv(folder / "truth.csv", index=False)
        note = {"simulated": True, "dataset": "chexpert_simulated", "simulator": as_dict(config)}
        write_json(folder / "simulated.json", note)


def effusion_cut() -> float:
    """Height halfway between none and the least effusion whose label is positive."""
    return _HEIGHT[0] / 2


# --- who the patients are ---


def draw_patient(config: ChestPopulation, index: int) -> Patient:
    """The patient at a position; depends on seed and position alone.

    Parameters
    ----------
    config : ChestPopulation
    index : int
        From 0; names count from 1.
    """
    place = spread(index)
    # the same draws whatever the knobs, so that a knob changes what it names and nothing else
    uniform = np.random.default_rng([config.seed, index]).random(10).tolist()
    white = 1 - config.share_asian - config.share_black
    race = choose(
        place[0], ("Asian", "Black", "White"), (config.share_asian, config.share_black, white)
    )
    sex = "Female" if place[1] < config.share_female else "Male"
    uncertain = uniform[0] < _UNCERTAIN
    ill = place[3] < _PREVALENCE[race]
    contradicted = not uncertain and uniform[7] < config.share_contradicted
    fluid = ill != contradicted  # what the film shows
    height = between(uniform[1], _SMALL if uncertain else _HEIGHT) if fluid else 0.0
    difficulty, heterogeneity = factors(config, {"race": race, "sex": sex})
    films = [
        _draw_film(
            [config.seed, index, study],
            anatomy=[config.seed, index, 0],
            sex=sex,
            effusion=height,
            right_sided=uniform[2] < 0.55,
            heterogeneity=heterogeneity,
            difficulty=difficulty,
        )
        for study in range(1, 3 if uniform[3] < _TWO_STUDIES else 2)
    ]
    return Patient(
        number=index + 1,
        race=race,
        sex=sex,
        age=int(between(uniform[4], (20, 91))),
        race_word=_RACE_WORDS[race][int(uniform[5] * 2)],
        label="-1.0" if uncertain else "1.0" if ill else "0.0" if uniform[6] < 0.3 else "",
        difficulty=difficulty,
        heterogeneity=heterogeneity,
        films=tuple(films),
    )


def _draw_film(
    seed: list[int],
    *,
    anatomy: list[int],
    sex: str,
    effusion: float,
    right_sided: bool,
    heterogeneity: float,
    difficulty: float,
) -> Film:
    """Body (the same in every study) and exposure: their spread scales by ``heterogeneity``."""
    own, film = np.random.default_rng(anatomy), np.random.default_rng(seed)
    body = (heterogeneity * np.clip(own.standard_normal(6), -2.5, 2.5)).tolist()
    normal = np.clip(film.standard_normal(10), -2.5, 2.5)
    z = (heterogeneity * normal).tolist()
    camera = [difficulty * math.exp(0.12 * n) for n in normal[:2].tolist()]
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
        noise=_NOISE * camera[0],
        defocus=_DEFOCUS * camera[1],
        anatomy_seed=seeds[0],
        device_seed=seeds[1],
        noise_seed=seeds[2],
    )


# --- files ---

_COLUMNS = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]


def _write_patient(patient: Patient, folder: Path, height: int, width: int) -> None:
    """The films of a patient."""
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


def _truth_rows(patient: Patient) -> list[dict[str, object]]:
    """Rows of ``truth.csv``, one per film, under the reader's image names."""
    rows: list[dict[str, object]] = []
    for study, film in enumerate(patient.films, start=1):
        values = dataclasses.asdict(film)
        values["tilt_x"], values["tilt_y"] = values.pop("tilt")
        own = {"image": f"{patient.name}_study{study}_view1_frontal", "label": patient.label}
        extra = {"difficulty": patient.difficulty, "heterogeneity": patient.heterogeneity}
        rows.append({**own, **values, **extra})
    return rows
