"""Reader of HAM10000: one metadata file and ``<image_id>.jpg``, flat or in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fairdiff_lib.data.cohort import Attribute, CohortSpec, Condition
from fairdiff_lib.data.reading import (
    UNKNOWN,
    Source,
    ages,
    decode,
    find_images,
    line_of,
    read_one_of,
    refuse_duplicates,
    split_subjects,
)
from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.settings.errors import InputError, refuse_unknown

DX = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_MALIGNANT = {"default": ("akiec", "bcc", "mel"), "medfair": ("akiec", "mel")}
AGE_LEVELS = {"default": ("under 60", "60 or older"), "medfair": ("60 or under", "over 60")}
_FOLDERS = "images|ham10000_images_part_[12]"


def spec_ham10000(coding: str) -> CohortSpec:
    """HAM10000 under a coding; the prompt's words for age are the released ones in both."""
    younger, older = AGE_LEVELS[coding]
    return CohortSpec(
        name="ham10000",
        attributes=(Attribute("sex", ("Female", "Male")), Attribute("age", (younger, older))),
        conditions=(Condition("malignant", ("benign", "malignant")), Condition("dx", DX)),
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

    From a folder with the metadata file (``.csv``, or as Dataverse names it); images beside it, in
    ``images`` or in the two parts. Malignant is akiec, bcc, mel, and the age level turns at 60;
    under the coding ``medfair`` bcc is benign and the upper age level starts above 60.
    """
    refuse_unknown("coding", coding, tuple(_MALIGNANT))
    # the second and the third are its names on Dataverse, whose table has tabs
    named = [root / f"HAM10000_metadata{end}" for end in (".csv", ".tab", "")]
    path, frame = read_one_of(named, ("lesion_id", "image_id", "dx", "age", "sex"))
    refuse_duplicates(frame["image_id"].tolist(), path, "image_id")
    dx = decode(frame["dx"].tolist(), {name: name for name in DX}, path, "dx")
    _refuse_two_diagnoses(frame["lesion_id"].tolist(), dx, path)
    splits = split_subjects(frame["lesion_id"].tolist(), dx, split_seed)
    found = find_images(root, [f"{name}.jpg" for name in frame["image_id"]], _FOLDERS)
    levels = {
        "sex": decode(frame["sex"].tolist(), {"female": "Female", "male": "Male"}, path, "sex"),
        "age": ages(
            frame["age"].tolist(), AGE_LEVELS[coding], path, "age", above=coding == "medfair"
        ),
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
            "path": [found.get(f"{name}.jpg", f"{name}.jpg") for name in frame["image_id"]],
            "split": splits,
            **levels,
        }
    )
    return Source(table, hash_file(path))


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
