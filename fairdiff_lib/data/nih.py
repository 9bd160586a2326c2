"""NIH ChestX-ray14: spec and reader of the release of the NIH Clinical Center.

One label file and 112,120 films of 30,805 patients, all together or in ``images_001`` to ``_012``.
Its labels were read from reports by a program. The view goes with the finding and with sex (who
is too ill to stand is filmed from the front), so the prompt names it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from fairdiff_lib.data.cohort import Attribute, CohortSpec, Condition
from fairdiff_lib.data.reading import (
    OUTSIDE,
    Source,
    ages,
    decode,
    find_images,
    line_of,
    read_text_csv,
    refuse_duplicates,
    split_subjects,
)
from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.settings.errors import InputError

FINDINGS = (  # as the label file spells them
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema"),
    *("Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening"),
    *("Pneumonia", "Pneumothorax"),
)
NONE, PNEUMONIA = "no finding", "pneumonia"
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_AGES = ("under 60", "60 or older")
_OTHER = tuple(finding for finding in FINDINGS if finding != "Pneumonia")


def _name(finding: str) -> str:
    return finding.lower()


def spec_nih(coding: str) -> CohortSpec:
    """``default``: pneumonia against no finding. ``findings``: every film, its 14 findings too."""
    every = coding == "findings"
    absent = "without pneumonia" if every else NONE
    others = [Condition(_name(f), (f"non {f}", f)) for f in _OTHER if every]
    return CohortSpec(
        name="nih_chestxray14",
        attributes=(Attribute("sex", ("Female", "Male")), Attribute("age", _AGES)),
        conditions=(
            Condition("pneumonia", (absent, PNEUMONIA)),
            Condition("view", ("PA", "AP")),
            *others,
        ),
        template="Chest radiograph, {view} view, of a {sex} patient {age}: {pneumonia}",
        phrases={"age": {_AGES[0]: "under 60 years", _AGES[1]: "of 60 years or older"}},
        split_rule="70/10/20 by patient within pneumonia or not, in the order of a seeded hash",
        modality="frontal chest radiographs",
        primary_condition="pneumonia",
    )


def read_nih(root: Path, coding: str, split_seed: int) -> Source:
    """ChestX-ray14 (Wang et al., CVPR 2017), split by patient.

    From a folder with ``Data_Entry_2017_v2020.csv`` (or ``Data_Entry_2017.csv``) and the films:
    beside it, in ``images``, or in ``images_001`` to ``images_012`` (or their ``images``). A film
    with other findings but no pneumonia is left out, unless the coding is ``findings``.
    """
    path = next((root / name for name in TABLES if (root / name).is_file()), root / TABLES[0])
    columns = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender")
    frame = read_text_csv(path, (*columns, "View Position"))
    refuse_duplicates(frame["Image Index"].tolist(), path, "Image Index")
    found = [_findings(cell, path, n) for n, cell in enumerate(frame["Finding Labels"])]
    subjects = [f"patient{int(number):05d}" for number in _numbers(frame["Patient ID"], path)]
    ill = {s for s, own in zip(subjects, found, strict=True) if "Pneumonia" in own}
    splits = split_subjects(subjects, [str(s in ill) for s in subjects], split_seed)
    every = coding == "findings"
    absent, present = spec_nih(coding).levels("pneumonia")
    left = ["" if every or not own or "Pneumonia" in own else "another finding" for own in found]
    places = find_images(root, frame["Image Index"].tolist(), r"images(_\d+)?(/images)?")
    table = pd.DataFrame(
        {
            "subject": subjects,
            "image": frame["Image Index"].str.removesuffix(".png"),
            "path": [places.get(name, name) for name in frame["Image Index"]],
            "split": [OUTSIDE if why else own for own, why in zip(splits, left, strict=True)],
            "sex": decode(frame["Patient Gender"].tolist(), {"f": "Female", "m": "Male"}, path,
                          "Patient Gender"),
            "age": ages(_years(frame["Patient Age"]), _AGES, path, "Patient Age"),
            "pneumonia": [present if "Pneumonia" in own else absent for own in found],
            "view": decode(frame["View Position"].tolist(), {"pa": "PA", "ap": "AP"}, path,
                           "View Position"),
            "excluded": left,
        }
    )  # fmt: skip
    if every:
        for f in _OTHER:
            table[_name(f)] = [f if f in own else f"non {f}" for own in found]
    return Source(table, hash_file(path))


def _findings(cell: str, path: Path, row: int) -> frozenset[str]:
    """Findings of a film; none for ``No Finding``."""
    own = frozenset(cell.split("|"))
    if own == {"No Finding"}:
        return frozenset()
    if not own <= set(FINDINGS):
        raise InputError(
            f"{path}, line {line_of(row)}, column 'Finding Labels': {cell!r}; expected "
            f"'No Finding' or some of {', '.join(FINDINGS)}, with | between them"
        )
    return own


def _numbers(cells: pd.Series[str], path: Path) -> list[str]:
    for row, cell in enumerate(cells):
        if not cell.isdigit():
            raise InputError(f"{path}, line {line_of(row)}, column 'Patient ID': {cell!r}")
    return cells.tolist()


def _years(cells: pd.Series[str]) -> list[str]:
    """Ages in years, as ``058Y`` too; the first release has a few above 120, which nobody knows."""
    found = []
    for cell in cells:
        match = re.fullmatch(r"(\d+)([YMD]?)", cell)
        years = cell if match is None else match[1] if match[2] in ("", "Y") else "0"
        found.append("" if match and int(years) > 120 else years)
    return found
