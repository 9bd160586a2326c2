"""Simulates a FairGenMed cohort in its original layout, with a planted and known disparity.

Three knobs are separate. Group size: the shares. Heterogeneity: the spread of
appearance (pigment, exposure, disc, vessels), which by itself disadvantages nobody.
Difficulty: the camera's noise and defocus. Clinical conditions have the same joint
distribution in every group, but for a mild difference in the prevalence of glaucoma.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fairdiff_lib.disk.files import atomic_folder, write_json
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings, as_dict
from fairdiff_lib.settings.populations import Knobs, Population
from fairdiff_lib.sim.fundus import Eye, render
from fairdiff_lib.sim.planting import (
    between,
    check_fields,
    choose,
    factors,
    spread,
    write_each,
)

# folder -> (word in the CSV, first file number); numbers don't depend on the sizes
_SPLITS = {"train": ("training", 1), "val": ("validation", 70_001), "test": ("test", 80_001)}
_MOST = {"train": 70_000, "val": 10_000, "test": 19_999}  # subjects, as file names have 5 digits

_GLAUCOMA_PREVALENCE = {"Asian": 0.46, "Black": 0.54, "White": 0.48}
_CDR_LEVELS = ("normal", "borderline", "abnormal")
_CDR_GIVEN = {"no": (0.75, 0.20, 0.05), "yes": (0.15, 0.30, 0.55)}
_MD_LEVELS = ("normal", "mild", "moderate", "severe")
_MD_GIVEN = {"no": (0.70, 0.22, 0.06, 0.02), "yes": (0.20, 0.30, 0.25, 0.25)}
_REFRACTION_LEVELS = ("negative", "neutral", "positive")
_REFRACTION = (0.40, 0.25, 0.35)
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
_NOISE = 0.014  # standard deviation, share of full scale, at difficulty 1
_DEFOCUS = 0.0035  # standard deviation of the blur, fraction of the height, at difficulty 1
_LANGUAGES = ("english", "spanish", "other")
_MARITAL = ("married", "single", "divorced", "widowed", "separated")


@dataclass(frozen=True)
class FundusPopulation(Population):
    """FairGenMed: fundus photographs. The prefixes train, val and test say who is where."""

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

    @property
    def counts(self) -> dict[str, int]:
        """Subjects by the field that sets them."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def knobs(self) -> Knobs:
        """Difficulty and heterogeneity of every level that has a knob."""
        return {
            ("race", "Asian"): (self.difficulty_asian, self.heterogeneity_asian),
            ("race", "Black"): (self.difficulty_black, self.heterogeneity_black),
            ("ethnicity", "Hispanic"): (self.difficulty_hispanic, 1.0),
        }


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


def check_simulator(config: FundusPopulation) -> None:
    """Refuse settings that can't be simulated, naming the field."""
    check_fields(config, _MOST)
    if config.share_asian + config.share_black > 1:
        raise InputError(
            f"simulator.share_asian + share_black = {config.share_asian + config.share_black:g}: "
            "expected at most 1"
        )
    if config.fundus_width < config.fundus_height:
        raise InputError(
            f"simulator.fundus_width={config.fundus_width}: expected at least the height, "
            f"{config.fundus_height}"
        )


def fundus_config(settings: Settings) -> FundusPopulation:
    """The simulator's settings of a study of simulated fundus photographs; others are refused."""
    if not isinstance(settings.simulator, FundusPopulation):
        raise InputError(f"dataset {settings.dataset!r}: expected fairgenmed_simulated")
    return settings.simulator


def simulate_fairgenmed(config: FundusPopulation, root: Path) -> None:
    """Write a simulated cohort in FairGenMed's layout; a larger one begins with the same subjects.

    Parameters
    ----------
    config : FundusPopulation
    root : Path
        Becomes a folder with ``data_summary.csv``; ``train``, ``val``, ``test`` holding
        ``data_XXXXX.npz`` and ``slo_fundus_XXXXX.jpg``; ``truth.csv``; and
        ``simulated.json`` with the settings. Appears whole or not at all.

    Raises
    ------
    InputError
        A setting that can't be simulated, or a full disk.
    """
    check_simulator(config)
    subjects = [
        draw_subject(config, split, index)
        for split in _SPLITS
        for index in range(getattr(config, split))
    ]
    with atomic_folder(root) as folder:
        for split in _SPLITS:
            (folder / split).mkdir()
        write_each(_write_subject, subjects, folder, config.fundus_height, config.fundus_width)
        pd.DataFrame([_summary_row(s) for s in subjects]).to_csv(
            folder / "data_summary.csv", index=False
        )
        pd.DataFrame([_truth_row(s) for s in subjects]).to_csv(folder / "truth.csv", index=False)
        note = {"simulated": True, "dataset": "fairgenmed_simulated", "simulator": as_dict(config)}
        write_json(folder / "simulated.json", note)


def cup_disc_cuts() -> tuple[float, ...]:
    """Ratios halfway between the ranges of neighbouring levels: normal, borderline, abnormal."""
    ranges = [_CDR_RANGE[level] for level in _CDR_LEVELS]
    return tuple((low[1] + high[0]) / 2 for low, high in pairwise(ranges))


# --- who the subjects are ---


def draw_subject(config: FundusPopulation, split: str, index: int) -> Subject:
    """The subject at a position of a split; depends on seed, split and position alone.

    Parameters
    ----------
    config : FundusPopulation
    split : str
        ``train``, ``val`` or ``test``.
    index : int
        From 0.
    """
    place = spread(index)
    number = _SPLITS[split][1] + index
    # the same draws whatever the knobs, so that a knob changes what it names and nothing else
    uniform = np.random.default_rng([config.seed, number]).random(12).tolist()
    share_white = 1 - config.share_asian - config.share_black
    race = choose(
        place[0],
        ("Asian", "Black", "White"),
        (config.share_asian, config.share_black, share_white),
    )
    ethnicity = "Hispanic" if place[1] < config.share_hispanic else "Non-Hispanic"
    glaucoma = "yes" if uniform[0] < _GLAUCOMA_PREVALENCE[race] else "no"
    cdr = choose(uniform[1], _CDR_LEVELS, _CDR_GIVEN[glaucoma])
    severity = choose(uniform[2], _MD_LEVELS, _MD_GIVEN[glaucoma])
    refraction = choose(uniform[3], _REFRACTION_LEVELS, _REFRACTION)
    difficulty, heterogeneity = factors(config, {"race": race, "ethnicity": ethnicity})
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
        difficulty=difficulty,
        heterogeneity=heterogeneity,
        eye=_draw_eye(
            [config.seed, number, 1],
            race=race,
            ratio=between(uniform[8], _CDR_RANGE[cdr]),
            loss=between(uniform[5], _LOSS_RANGE[severity][::-1]),
            crescent=between(uniform[9], (0.6, 1.0)) if refraction == "negative" else 0.0,
            ring=between(uniform[9], (0.6, 1.0)) if refraction == "positive" else 0.0,
            heterogeneity=heterogeneity,
            difficulty=difficulty,
        ),
    )


def _draw_eye(
    seed: list[int],
    *,
    race: str,
    ratio: float,
    loss: float,
    crescent: float,
    ring: float,
    heterogeneity: float,
    difficulty: float,
) -> Eye:
    """Appearance around the conditions: its spread is scaled by ``heterogeneity``."""
    rng = np.random.default_rng(seed)
    normal = np.clip(rng.standard_normal(16), -2.5, 2.5)
    seeds = rng.integers(2**31, size=3).tolist()
    left_eye = bool(rng.random() < 0.5)
    z = (heterogeneity * normal).tolist()  # of what may vary more in a varied group
    room = 0.10 * (1 - ratio)  # disc radii that the cup's centre may lie off the disc's
    shift = [room * float(np.tanh(n)) for n in normal[:2]]
    camera = [difficulty * math.exp(0.12 * n) for n in normal[2:4].tolist()]
    return Eye(
        cup_disc_ratio=ratio,
        disc_x=0.5 + 0.010 * z[4],
        disc_y=0.5 + 0.013 * z[5],
        disc_radius=min(max(_DISC_RADIUS[race] + 0.005 * z[6], 0.175), 0.21),
        disc_aspect=min(max(1.05 + 0.03 * z[7], 0.95), 1.2),
        cup_shift=(shift[0], shift[1]),
        left_eye=left_eye,
        loss=loss,
        crescent=crescent,
        ring=ring,
        melanin=min(max(_MELANIN[race] + 0.09 * z[8], 0.0), 1.0),
        gain=min(max(1 + 0.05 * z[9], 0.7), 1.2),
        tint=(1 + 0.015 * z[10], 1 + 0.025 * z[11], 1 + 0.03 * z[12]),
        tilt=(0.12 * z[13], 0.12 * z[14]),
        tortuosity=min(max(0.13 + 0.03 * z[15], 0.03), 0.30),
        noise=_NOISE * camera[0],
        defocus=_DEFOCUS * camera[1],
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
    """Row of ``data_summary.csv``."""
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


def _truth_row(subject: Subject) -> dict[str, object]:
    """Row of ``truth.csv``."""
    eye = dataclasses.asdict(subject.eye)
    eye["cup_shift_x"], eye["cup_shift_y"] = eye.pop("cup_shift")
    eye["tint_red"], eye["tint_green"], eye["tint_blue"] = eye.pop("tint")
    eye["tilt_x"], eye["tilt_y"] = eye.pop("tilt")
    return {
        "filename": f"data_{subject.name}.npz",
        "image": f"slo_fundus_{subject.name}",
        "split": subject.split,
        **eye,
        "difficulty": subject.difficulty,
        "heterogeneity": subject.heterogeneity,
    }
