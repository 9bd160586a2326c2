"""Simulates dermatoscopy in HAM10000's layout, with a planted and known disparity.

The knobs are those of the first simulator, over sex and age. Asymmetry, border and second colour
follow the diagnosis, and the diagnosis has nearly the same distribution in every group: malignant
lesions are somewhat commoner in older patients. A few lesions look like the other kind, so that no
classifier can be perfect.
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

from fairdiff_lib.disk.files import atomic_folder, write_json
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import as_dict
from fairdiff_lib.settings.populations import Knobs, Population
from fairdiff_lib.sim.lesions import Lesion, render
from fairdiff_lib.sim.planting import (
    between,
    check_fields,
    choose,
    clipped,
    factors,
    spread,
    write_each,
)

METADATA = "HAM10000_metadata.csv"
_MOST = {"lesions": 300_000}  # image names have 7 digits, and a lesion up to 3 images
_FIRST_IMAGE = 9_000_001  # the real archive's numbers are far below

_MALIGNANT = ("akiec", "bcc", "mel")
_SHARES = {  # of the diagnoses, round numbers: rare ones are commoner than in the real set
    True: {"mel": 0.50, "bcc": 0.30, "akiec": 0.20},
    False: {"nv": 0.68, "bkl": 0.20, "df": 0.06, "vasc": 0.06},
}
_PREVALENCE = {"under 60": 0.30, "60 or older": 0.36}  # of malignant lesions
_IMAGES = (0.70, 0.25, 0.05)  # share of lesions with one, two and three pictures

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
_NOISE = 0.014  # standard deviation, share of full scale, at difficulty 1
_DEFOCUS = 0.0035  # standard deviation of the blur, fraction of the height, at difficulty 1
_SITES = (
    "back",
    "lower extremity",
    "trunk",
    "upper extremity",
    "abdomen",
    "face",
    "chest",
    "neck",
    "scalp",
)
_DX_TYPE = ("histo", "follow_up", "consensus", "confocal")


@dataclass(frozen=True)
class SkinPopulation(Population):
    """HAM10000: dermatoscopic photographs, one to three of each lesion. Its reader splits."""

    difficulty: ClassVar[str] = "camera noise and blur"
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

    @property
    def counts(self) -> dict[str, int]:
        """Lesions by the field that sets them."""
        return {"lesions": self.lesions}

    @property
    def knobs(self) -> Knobs:
        """Difficulty and heterogeneity of every level that has a knob."""
        return {
            ("sex", "Male"): (self.difficulty_male, self.heterogeneity_male),
            ("age", "60 or older"): (self.difficulty_older, self.heterogeneity_older),
        }


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


def check_dermatoscopy(config: SkinPopulation) -> None:
    """Refuse settings that can't be simulated, naming the field."""
    check_fields(config, _MOST)
    if config.image_width < config.image_height:
        raise InputError(
            f"simulator.image_width={config.image_width}: expected at least the height, "
            f"{config.image_height}"
        )


def simulate_dermatoscopy(config: SkinPopulation, root: Path) -> None:
    """Write simulated lesions in HAM10000's layout; a larger set begins with the same lesions.

    Parameters
    ----------
    config : SkinPopulation
    root : Path
        Becomes a folder with ``HAM10000_metadata.csv``; ``HAM10000_images_part_1`` and
        ``HAM10000_images_part_2`` holding ``ISIC_XXXXXXX.jpg``; ``truth.csv``; and
        ``simulated.json`` with the settings. Appears whole or not at all.

    Raises
    ------
    InputError
        A setting that can't be simulated, or a full disk.
    """
    check_dermatoscopy(config)
    cases = [draw_case(config, index) for index in range(config.lesions)]
    with atomic_folder(root) as folder:
        for part in (1, 2):
            (folder / _part(part)).mkdir()
        write_each(_write_case, cases, folder, config.image_height, config.image_width)
        rows = [row for case in cases for row in _metadata_rows(case)]
        pd.DataFrame(rows).to_csv(folder / METADATA, index=False)
        truth = [row for case in cases for row in _truth_rows(case)]
        pd.DataFrame(truth).to_csv(folder / "truth.csv", index=False)
        note = {"simulated": True, "dataset": "ham10000_simulated", "simulator": as_dict(config)}
        write_json(folder / "simulated.json", note)


def variegation_cut() -> float:
    """Share of the second colour halfway between the benign ranges and the malignant ones."""
    low = max(ends[1] for dx, ends in _VARIEGATION.items() if dx not in _MALIGNANT)
    return (low + min(_VARIEGATION[dx][0] for dx in _MALIGNANT)) / 2


# --- who the patients are ---


def draw_case(config: SkinPopulation, index: int) -> LesionCase:
    """The lesion at a position; depends on seed and position alone.

    Parameters
    ----------
    config : SkinPopulation
    index : int
        From 0.
    """
    place = spread(index)
    # the same draws whatever the knobs, so that a knob changes what it names and nothing else
    uniform = np.random.default_rng([config.seed, index]).random(12).tolist()
    sex = "Male" if place[0] < config.share_male else "Female"
    age = "60 or older" if place[1] < config.share_older else "under 60"
    malignant = place[2] < _PREVALENCE[age]
    shares = _SHARES[malignant]
    dx = choose(place[3], tuple(shares), tuple(shares.values()))
    difficulty, heterogeneity = factors(config, {"sex": sex, "age": age})
    looks = dx
    if uniform[9] < config.share_contradicted:
        looks = choose(
            uniform[10], tuple(_SHARES[not malignant]), tuple(_SHARES[not malignant].values())
        )
    lesion = _draw_lesion([config.seed, index, 1], looks, uniform, heterogeneity)
    count = 1 + int(choose(uniform[4], ("0", "1", "2"), _IMAGES))
    views = [
        _draw_view(lesion, [config.seed, index, 2, k], difficulty, heterogeneity)
        for k in range(count)
    ]
    years = (60, 90) if age == "60 or older" else (20, 60)
    return LesionCase(
        number=index,
        dx=dx,
        sex=sex,
        age=5 * int(between(uniform[5], years) // 5),
        site=_SITES[int(uniform[6] * len(_SITES))],
        dx_type="histo" if malignant else _DX_TYPE[int(uniform[7] * len(_DX_TYPE))],
        difficulty=difficulty,
        heterogeneity=heterogeneity,
        views=tuple(views),
    )


def _draw_lesion(seed: list[int], dx: str, uniform: list[float], heterogeneity: float) -> Lesion:
    """A lesion and its skin; what isn't clinical spreads by ``heterogeneity``."""
    rng = np.random.default_rng(seed)
    normal = np.clip(rng.standard_normal(8), -2.5, 2.5)
    seeds = rng.integers(2**31, size=2).tolist()
    z = (heterogeneity * normal).tolist()
    large = 0.03 if dx in _MALIGNANT else 0.0
    return Lesion(
        dx=dx,
        x=0.0,
        y=0.0,
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
        hairs=0,
        hair_width=0.0,
        vignette=0.0,
        gain=1.0,
        tint=(1.0, 1.0, 1.0),
        tilt=(0.0, 0.0),
        noise=0.0,
        defocus=0.0,
        shape_seed=seeds[0],
        texture_seed=seeds[1],
        hair_seed=0,
        noise_seed=0,
    )


def _draw_view(lesion: Lesion, seed: list[int], difficulty: float, heterogeneity: float) -> Lesion:
    """One photograph: the lesion is turned and shifted, light, hairs and camera are its own."""
    rng = np.random.default_rng(seed)
    normal = np.clip(rng.standard_normal(12), -2.5, 2.5)
    uniform = rng.random(4).tolist()
    seeds = rng.integers(2**31, size=2).tolist()
    z = (heterogeneity * normal).tolist()
    camera = [difficulty * math.exp(0.12 * n) for n in normal[:2].tolist()]
    hairy = uniform[0] < 0.45
    return dataclasses.replace(
        lesion,
        x=clipped(0.025 * z[2], -0.08, 0.08),
        y=clipped(0.025 * z[3], -0.08, 0.08),
        radius=lesion.radius * clipped(1 + 0.04 * z[4], 0.85, 1.15),
        angle=lesion.angle + 2 * math.pi * uniform[1],
        hairs=1 + int(uniform[2] * 14) if hairy else 0,
        hair_width=0.006,
        vignette=between(uniform[3], (0.10, 0.45)),
        gain=clipped(1 + 0.05 * z[5], 0.7, 1.15),
        tint=(1 + 0.012 * z[6], 1 + 0.02 * z[7], 1 + 0.025 * z[8]),
        tilt=(0.08 * z[9], 0.08 * z[10]),
        noise=_NOISE * camera[0],
        defocus=_DEFOCUS * camera[1],
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


def _truth_rows(case: LesionCase) -> list[dict[str, object]]:
    """Rows of ``truth.csv``, one per picture."""
    rows: list[dict[str, object]] = []
    for image, view in zip(case.images, case.views, strict=True):
        values = dataclasses.asdict(view)
        values["tint_red"], values["tint_green"], values["tint_blue"] = values.pop("tint")
        values["tilt_x"], values["tilt_y"] = values.pop("tilt")
        own = {"lesion_id": case.name, "image": image, **values}
        rows.append({**own, "difficulty": case.difficulty, "heterogeneity": case.heterogeneity})
    return rows
