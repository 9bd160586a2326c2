"""Reader of CheXpert: the public release with its demographics workbook, or the sampled lists.

The release (``train.csv``, ``valid.csv``, ``CHEXPERT DEMO.xlsx``) is sampled here; the lists that
FairDiffusion used (``chexpert_sample_train_6000.csv`` and so on) are taken as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from fairdiff_lib.data.cohort import Attribute, CohortSpec, Condition
from fairdiff_lib.data.reading import (
    OUTSIDE,
    UNKNOWN,
    Source,
    decode,
    line_of,
    read_text_csv,
    read_workbook,
    refuse_duplicates,
)
from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.settings.errors import InputError, refuse_unknown

WITHOUT, WITH = "non Pleural Effusion", "Pleural Effusion"  # as the published prompt says it
# D4: what an uncertain label (-1) is read as; "zeros", the default, is as released
UNCERTAIN = {"default": "0", "zeros": "0", "ones": "1", "drop": "-1"}
SAMPLE = {"train": 6000, "val": 1000, "test": 3000}  # patients, as published

FINDINGS = (  # columns of the labels, in the release's order
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity"),
    *("Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
    *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
)
DRAWN = ("Pleural Effusion", "Support Devices")  # what simulated films show
# finding -> its condition's name, and its levels: absent, present
NAMES = {f: "effusion" if f == WITH else f.lower().replace(" ", "_") for f in FINDINGS}
LEVELS = {f: (f"non {f}", f) for f in FINDINGS} | {"No Finding": ("Some Finding", "No Finding")}
WORKBOOK = "CHEXPERT DEMO.xlsx"
LISTS = {
    "train": "chexpert_sample_train_6000.csv",
    "val": "chexpert_sample_val_1000.csv",
    "test": "chexpert_sample_test_3000.csv",
}
_LIST_FOLDER = "Chexpert_sample_512"
_SEX = {"female": "Female", "male": "Male"}
_VIEW = {"frontal": "frontal", "lateral": "lateral"}
# of what stands before a comma, as in "White, non-Hispanic"; other races are none of the study's
_RACE = {
    "asian": "Asian",
    "asian - historical conv": "Asian",
    "black": "Black",
    "black or african american": "Black",
    "white": "White",
    "white or caucasian": "White",
}
_RELEASED = re.compile(r"(?:[^/]+/)*(patient\d+)/(study\d+)/(view\d+_(?:frontal|lateral))\.jpg")
_LISTED = re.compile(r"(patient\d+)_(study\d+)_(view\d+)(_frontal|_lateral)?\.jpg")
# field -> names that it may have in a sampled list, and its place (from 0) where it has none
_FIELDS: dict[str, tuple[tuple[str, ...], int]] = {
    "sex": (("sex", "gender"), 3),
    "race": (("race", "primary_race"), 5),
    **{f: ((f.lower(), f.lower().replace(" ", "_")), 9 + k) for k, f in enumerate(FINDINGS)},
    "file": (("filename", "file_name", "file name", "image", "image_name"), 24),
}


def spec_chexpert(findings: Sequence[str] = FINDINGS) -> CohortSpec:
    """CheXpert with some of its findings as conditions; the prompt names the effusion alone."""
    own = (WITH, *(finding for finding in findings if finding != WITH))
    return CohortSpec(
        name="chexpert",
        attributes=(
            Attribute("race", ("Asian", "Black", "White")),
            Attribute("sex", ("Female", "Male")),
        ),
        conditions=tuple(Condition(NAMES[finding], LEVELS[finding]) for finding in own),
        template="Chest Radiography image of a {sex} {race} patient diagnosed with {effusion}",
        phrases={},
        split_rule=(
            "6,000/1,000/3,000 patients (or 60/10/30%) with one frontal image each, in proportion "
            "to race, sex and effusion, in the order of a seeded hash; or the sampled lists as "
            "supplied"
        ),
        modality="frontal chest radiographs",
        primary_condition=NAMES[WITH],
    )


def read_chexpert(root: Path, coding: str, split_seed: int) -> Source:
    """CheXpert (Irvin et al., arXiv 1901.07031), frontal views only.

    From a folder with ``train.csv``, ``valid.csv`` and ``CHEXPERT DEMO.xlsx``; or with the three
    sampled lists, which win where both are there, and ``Chexpert_sample_512``.

    Of the public release, one frontal image of each patient whose race (Asian, Black or White),
    sex and labels are known; of these patients 6,000, 1,000 and 3,000 (or 60, 10 and 30 percent
    where there are fewer), in proportion to race, sex and effusion. A blank label is a negative
    one; an uncertain one by the coding: ``"zeros"`` (negative; the ``"default"``), ``"ones"``
    (positive) or ``"drop"`` (the image is left out). Of the lists, too, one image of each patient.
    """
    refuse_unknown("coding", coding, tuple(UNCERTAIN))
    if any((root / name).is_file() for name in LISTS.values()):
        return _read_lists(root, coding)
    if not (root / "train.csv").is_file():
        raise InputError(
            f"{root}: no train.csv; expected CheXpert's public release or {LISTS['train']}"
        )
    return _read_release(root, coding, split_seed)


def _findings(
    frame: pd.DataFrame, columns: Mapping[str, str], coding: str, path: Path
) -> dict[str, list[str]]:
    """Levels of all findings by condition's name; ``columns`` says where each of them stands."""
    found = {}
    for finding in FINDINGS:
        absent, present = LEVELS[finding]
        codes = {"1": present, "0": absent, "": absent, "-1": UNKNOWN}
        codes["-1"] = codes[UNCERTAIN[coding]]
        column = columns[finding]
        found[NAMES[finding]] = decode(frame[column].tolist(), codes, path, column)
    return found


# -- the public release ----------------------------------------------------------------------


def _read_release(root: Path, coding: str, seed: int) -> Source:
    """Rows of both label files with the workbook's race, sampled by patient.

    Patients who are in no split stay in the table, an image each, with the reason.
    """
    races, workbook_hash = read_races(root / WORKBOOK)
    both = [root / name for name in ("train.csv", "valid.csv")]
    table = pd.concat([_release_rows(path, coding) for path in both], ignore_index=True)
    table["race"] = table["subject"].map(races).fillna(UNKNOWN)
    frontal = table["excluded"] == ""
    table.loc[frontal & ~table["subject"].isin(races), "excluded"] = f"not in {WORKBOOK}"
    usable = frontal & (table[["sex", "race", *NAMES.values()]] != UNKNOWN).all(axis=1)
    if not usable.any():
        raise InputError(
            f"{root}: no frontal image of a patient with a known race, sex and labels; expected "
            f"patients of {both[0].name} in {WORKBOOK} as Asian, Black or White"
        )
    patients = _one_image(table[usable], seed)
    chosen = sample_patients(patients, seed)
    others = _one_image(table[frontal & ~table["subject"].isin(patients["subject"])], seed)
    lateral = _one_image(table[~table["subject"].isin(table.loc[frontal, "subject"])], seed)
    spare = patients[~patients["subject"].isin(chosen["subject"])].assign(excluded="not sampled")
    left = [part.assign(split=OUTSIDE) for part in (others, lateral, spare)]
    hashes = [*map(hash_file, both), workbook_hash]
    whole = pd.concat([chosen, *left], ignore_index=True)
    return Source(whole, hashlib.sha256("\n".join(hashes).encode()).hexdigest())


def _release_rows(path: Path, coding: str) -> pd.DataFrame:
    """Images of a label file: subject, image, path, sex, findings, and why one can't be used."""
    frame = read_text_csv(path, ("Path", "Sex", "Frontal/Lateral", *FINDINGS))
    refuse_duplicates(frame["Path"].tolist(), path, "Path")
    parts = _matches(frame["Path"].tolist(), _RELEASED, path, "Path", "patientN/studyN/viewN")
    views = decode(frame["Frontal/Lateral"].tolist(), _VIEW, path, "Frontal/Lateral")
    table = pd.DataFrame(
        {
            "subject": [_patient(part[1]) for part in parts],
            "image": ["_".join(part.groups()) for part in parts],
            "path": [_below(path.parent, part[0]) for part in parts],
            "sex": decode(frame["Sex"].tolist(), _SEX, path, "Sex"),
            **_findings(frame, {f: f for f in FINDINGS}, coding, path),
        }
    )
    return table.assign(excluded=["" if v == "frontal" else "no frontal image" for v in views])


def _matches(
    cells: Sequence[str], pattern: re.Pattern[str], path: Path, column: str, expected: str
) -> list[re.Match[str]]:
    """Match of each whole cell; a cell of another form is refused by line and column."""
    found = []
    for position, cell in enumerate(cells):
        match = pattern.fullmatch(cell.strip())
        if match is None:
            raise InputError(
                f"{path}, line {line_of(position)}, column {column!r}: {cell!r}; "
                f"expected an image as {expected}.jpg"
            )
        found.append(match)
    return found


def _below(root: Path, name: str) -> str:
    """A listed path relative to ``root``, which may be the release's folder or the one above."""
    first, _, rest = name.partition("/")
    return name if first in ("train", "valid") or (root / first).is_dir() else rest


def read_races(path: Path) -> tuple[dict[str, str], str]:
    """Race of each patient in the demographics workbook, and a hash of what was read.

    A patient listed with two races has none that is known. The hash is of the cells: the bytes
    of a workbook hold the time at which it was saved.
    """
    if not path.is_file():
        raise InputError(f"{path}: missing; expected the demographics of CheXpert's patients")
    frame = read_workbook(path, ("PATIENT", "PRIMARY_RACE"))
    pairs = list(zip(frame["PATIENT"], frame["PRIMARY_RACE"], strict=True))
    races: dict[str, str] = {}
    for patient, cell in pairs:
        race, patient = _race(cell), _patient(patient)
        races[patient] = race if races.get(patient, race) == race else UNKNOWN
    return races, hashlib.sha256(repr(pairs).encode()).hexdigest()


def _patient(cell: str) -> str:
    """A patient's name in one spelling, as ``patient00001``; another word as it is."""
    number = re.fullmatch(r"(?:patient)?\s*0*(\d+)(?:\.0)?", cell.strip().lower())
    return f"patient{int(number[1]):05d}" if number else cell


def _race(cell: str) -> str:
    """Level of a race as the workbook words it; any that the study has no level for is unknown."""
    return _RACE.get(cell.partition(",")[0].strip().lower(), UNKNOWN)


def _one_image(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A row per patient: of several frontal images, the first in the order of a seeded hash."""
    order = [_rank(seed, path) for path in table["path"]]
    first = table.assign(rank=order).sort_values("rank").drop_duplicates("subject")
    return first.drop(columns="rank").sort_values("subject").reset_index(drop=True)


def sample_patients(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The published sizes, drawn by patient (a row) within race, sex and label; column ``split``.

    Each stratum's patients are put in the order of a seeded hash and spread evenly over 0 to 1;
    the patients with the smallest places are taken, so that every split has the strata in
    proportion to within a patient each.
    """
    ranked = table.assign(rank=[_rank(seed, name) for name in table["subject"]])
    strata = ranked.sort_values("rank").groupby(["race", "sex", "effusion"])["rank"]
    place = (strata.cumcount() + 0.5) / strata.transform("size")
    order = ranked.assign(place=place).sort_values(["place", "rank"]).index
    whole, sizes = sum(SAMPLE.values()), SAMPLE
    if len(table) < whole:  # in the same proportion
        train, val = (round(len(table) * SAMPLE[split] / whole) for split in ("train", "val"))
        sizes = {"train": train, "val": val, "test": len(table) - train - val}
    splits = [split for split, size in sizes.items() for _ in range(size)]
    chosen = table.loc[order[: len(splits)]].assign(split=splits)
    return chosen.sort_index().reset_index(drop=True)


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


# -- the sampled lists -----------------------------------------------------------------------


def _read_lists(root: Path, coding: str) -> Source:
    """The three lists; a patient in two of them is refused, of several films one is taken."""
    parts: list[pd.DataFrame] = []
    first: dict[str, str] = {}
    for split, name in LISTS.items():
        part = _list_rows(root / name, coding).assign(split=split)
        for patient, line in zip(part["subject"], part["line"], strict=True):
            if first.setdefault(patient, split) != split:
                raise InputError(
                    f"{root / name}, line {line}: patient {patient!r} is in "
                    f"{LISTS[first[patient]]} too; a patient belongs to one split"
                )
        parts.append(_one_film(part.drop(columns="line")))
    hashes = "\n".join(hash_file(root / name) for name in LISTS.values())
    return Source(pd.concat(parts, ignore_index=True), hashlib.sha256(hashes.encode()).hexdigest())


def _one_film(table: pd.DataFrame) -> pd.DataFrame:
    """A row per patient, as of the release: a usable one where there is any, by a seeded hash."""
    usable = (table[["sex", "race", *NAMES.values()]] != UNKNOWN).all(axis=1)
    order = table.assign(unusable=~usable, rank=[_rank(0, path) for path in table["path"]])
    first = order.sort_values(["unusable", "rank"]).drop_duplicates("subject").index
    return table.loc[first.sort_values()]


def _list_rows(path: Path, coding: str) -> pd.DataFrame:
    """Frontal images of a sampled list: subject, image, path, sex, race, findings, line."""
    frame = read_text_csv(path, ())
    if any(str(name).strip().lower() in _SEX for name in frame.columns):
        raise InputError(f"{path}, line 1: a patient's row; expected a line of column names")
    columns = {field: _column(frame, field, path) for field in _FIELDS}
    files = frame[columns["file"]].tolist()
    refuse_duplicates(files, path, columns["file"])
    parts = _matches(files, _LISTED, path, columns["file"], "patientN_studyN_viewN")
    levels = {
        "sex": decode(frame[columns["sex"]].tolist(), _SEX, path, columns["sex"]),
        "race": [_race(cell) for cell in frame[columns["race"]]],
        **_findings(frame, columns, coding, path),
    }
    if set(levels["race"]) == {UNKNOWN}:
        raise InputError(
            f"{path}, column {columns['race']!r}: {frame[columns['race']].iloc[0]!r} and so on; "
            "expected Asian, Black or White in some row"
        )
    table = pd.DataFrame(
        {
            "subject": [part[1] for part in parts],
            "image": [part[0].removesuffix(".jpg") for part in parts],
            "path": [f"{_LIST_FOLDER}/{part[0]}" for part in parts],
            **levels,
            "line": [line_of(position) for position in range(len(parts))],
        }
    )
    return table[[part[4] != "_lateral" for part in parts]]


def _column(frame: pd.DataFrame, field: str, path: Path) -> str:
    """Name of a field's column: by one of its names, else by its place."""
    names, place = _FIELDS[field]
    for column in frame.columns:
        if str(column).strip().lower() in names:
            return str(column)
    if place >= len(frame.columns):
        raise InputError(
            f"{path}: no column {names[0]!r} and only {len(frame.columns)} columns; expected it "
            f"by name or as column {place} (from 0)"
        )
    found = str(frame.columns[place])
    for other, (known, _) in _FIELDS.items():
        if other != field and found.strip().lower() in known:
            raise InputError(
                f"{path}: no column {names[0]!r}, and column {place} (from 0), where it is "
                f"expected, is {found!r}"
            )
    return found
