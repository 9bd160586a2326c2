"""Reader of HAM10000: one metadata file and ``<image_id>.jpg``, flat or in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fairdiff_lib.data.cohort import Attribute, CohortSpec, Condition
from fairdiff_lib.data.reading import (
    NOT_KNOWN,
    UNKNOWN,
    Source,
    decode,
    line_of,
    read_text_csv,
    refuse_duplicates,
    token,
)
from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.settings.errors import InputError, refuse_unknown

DX = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_MALIGNANT = {"default": ("akiec", "bcc", "mel"), "medfair": ("akiec", "mel")}
AGE_LEVELS = {
    "default": ("under 60", "60 or older"),
    "medfair": ("60 or under", "over 60"),
}
_FOLDERS = ("images", "ham10000_images_part_1", "ham10000_images_part_2")  # lower case


def spec_ham10000(coding: str) -> CohortSpec:
    """HAM10000 under a coding; the prompt's words for age are the released ones in both."""
    younger, older = AGE_LEVELS[coding]
    return CohortSpec(
        name="ham10000",
        attributes=(
            Attribute("sex", ("Female", "Male")),
            Attribute("age", (younger, older)),
        ),
        conditions=(
            Condition("malignant", ("benign", "malignant")),
            Condition("dx", DX),
        ),
        template=(
            "Dermoscopic image of a {sex} {age} patient with the following diagnostic category: "
            "{malignant}"
        ),
        phrases={"age": {younger: "Age under 60", older: "Age equal 60 or older"}},
        split_rule="70/10/20 by lesion_id within dx, in the order of a seeded hash",
        modality="dermatoscopic photographs",
        primary_condition="malignant",
    )


def read_ham10000(root: Path, coding: str, split_seed: int) -> Source:
    """HAM10000 as published (Tschandl et al., doi:10.7910/DVN/DBW86T), split by lesion.

    Parameters
    ----------
    root : Path
        Folder with the metadata file; images beside it, in ``images`` or in the two parts.
    coding : str
        ``"default"``: malignant is akiec, bcc, mel, and the age level turns at 60.
        ``"medfair"``: bcc is benign and the upper age level starts above 60.
    split_seed : int
        Another seed, another 70/10/20 split of the lesions.
    """
    refuse_unknown("coding", coding, tuple(_MALIGNANT))
    path = root / "HAM10000_metadata.csv"
    if not path.is_file() and (root / "HAM10000_metadata").is_file():
        path = root / "HAM10000_metadata"  # its name on Dataverse
    frame = read_text_csv(path, ("lesion_id", "image_id", "dx", "age", "sex"))
    refuse_duplicates(frame["image_id"].tolist(), path, "image_id")
    dx = decode(frame["dx"].tolist(), {name: name for name in DX}, path, "dx")
    _refuse_two_diagnoses(frame["lesion_id"].tolist(), dx, path)
    splits = split_lesions(frame["lesion_id"].tolist(), dx, split_seed)
    found = _images(root)
    levels = {
        "sex": decode(frame["sex"].tolist(), {"female": "Female", "male": "Male"}, path, "sex"),
        "age": _age_levels(frame["age"].tolist(), coding, path),
        "malignant": [
            UNKNOWN if d == UNKNOWN else "malignant" if d in _MALIGNANT[coding] else "benign"
            for d in dx
        ],
        "dx": dx,
    }
    table = pd.DataFrame(
        {
            "subject": frame["lesion_id"],
            "image": frame["image_id"],
            "path": [found.get(name, f"{name}.jpg") for name in frame["image_id"]],
            "split": splits,
            **levels,
        }
    )
    return Source(table, hash_file(path))


def split_lesions(lesions: Sequence[str], dx: Sequence[str], seed: int) -> list[str]:
    """70/10/20 split by lesion within each diagnosis, in the order of a seeded hash.

    Returns
    -------
    list of str
        ``train``, ``val`` or ``test`` per row; the same for every row of a lesion.
    """
    groups: dict[str, set[str]] = {}
    for lesion, level in zip(lesions, dx, strict=True):
        groups.setdefault(level, set()).add(lesion)
    chosen: dict[str, str] = {}
    for members in groups.values():
        order = sorted(members, key=lambda m: hashlib.sha256(f"{seed}:{m}".encode()).digest())
        for position, lesion in enumerate(order):
            fraction = (position + 0.5) / len(order)
            chosen[lesion] = "train" if fraction < 0.7 else "val" if fraction < 0.8 else "test"
    return [chosen[lesion] for lesion in lesions]


def _refuse_two_diagnoses(lesions: Sequence[str], dx: Sequence[str], path: Path) -> None:
    """A lesion has one diagnosis; the stratified split relies on it."""
    first: dict[str, str] = {}
    for position, (lesion, level) in enumerate(zip(lesions, dx, strict=True)):
        if not lesion.strip():
            raise InputError(f"{path}, line {line_of(position)}: blank 'lesion_id'")
        if first.setdefault(lesion, level) != level:
            raise InputError(
                f"{path}, line {line_of(position)}: lesion {lesion!r} has dx {level!r} "
                f"and before it {first[lesion]!r}; expected one per lesion"
            )


def _age_levels(cells: Sequence[str], coding: str, path: Path) -> list[str]:
    """Age in years -> level name; blank is unknown, anything but a number is refused."""
    younger, older = AGE_LEVELS[coding]
    levels = []
    for position, cell in enumerate(cells):
        if token(cell) in NOT_KNOWN:
            levels.append(UNKNOWN)
            continue
        try:
            age = float(cell)
        except ValueError:
            age = float("nan")
        if not 0 <= age <= 120:
            raise InputError(
                f"{path}, line {line_of(position)}, column 'age': {cell!r}; "
                "expected years from 0 to 120"
            )
        levels.append(older if age > 60 or (age == 60 and coding == "default") else younger)
    return levels


def _images(root: Path) -> dict[str, str]:
    """Image name -> relative path, over the root and the image folders it may have."""
    folders = [f for f in sorted(root.iterdir()) if f.is_dir() and f.name.lower() in _FOLDERS]
    return {
        file.stem: file.relative_to(root).as_posix()
        for folder in [root, *folders]
        for file in folder.iterdir()
        if file.suffix.lower() == ".jpg"
    }
