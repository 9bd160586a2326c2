"""Reader of FairGenMed: data_summary.csv, and per subject an npz and a fundus jpg."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from fairdiff_lib.data.cohort import Attribute, CohortSpec, Condition
from fairdiff_lib.data.reading import (
    NOT_KNOWN,
    UNKNOWN,
    Source,
    decode,
    line_of,
    read_one_of,
    refuse_duplicates,
    refuse_missing,
    token,
)
from fairdiff_lib.settings.errors import InputError, refuse_unknown

_RACE = {
    "asian": "Asian",
    "black": "Black",
    "white": "White",
    "black or african american": "Black",
    "white or caucasian": "White",
    "0": "Asian",
    "1": "Black",
    "2": "White",
}
_SEX = {"female": "Female", "male": "Male", "0": "Female", "1": "Male"}
_ETHNICITY = {
    "non-hispanic": "Non-Hispanic",
    "hispanic": "Hispanic",
    "0": "Non-Hispanic",
    "1": "Hispanic",
}
_GLAUCOMA = {"no": "non-glaucoma", "yes": "glaucoma", "0": "non-glaucoma", "1": "glaucoma"}
# no integer coding of the next three is documented, so numbers (but -1) are refused
_MD = {name: name for name in ("normal", "mild", "moderate", "severe")}
_CDR = {name: name for name in ("normal", "borderline", "abnormal")}
_REFRACTION = {
    "negative": "negative",
    "neutral": "neutral",
    "positive": "positive",
    "myopia": "negative",  # a myopic eye has a negative spherical equivalent
    "emmetropia": "neutral",
    "hyperopia": "positive",
}
_REFRACTION_COLUMNS = ("near_vision_refraction_stage", "se_status")
_USE = {"training": "train", "train": "train", "validation": "val", "val": "val", "test": "test"}
_SPLIT_FOLDERS = {
    "train": ("train", "Dataset/Training", "Dataset/train", "Training"),
    "val": ("val", "Dataset/Validation", "Dataset/val", "Validation"),
    "test": ("test", "Dataset/Test", "Dataset/test", "Test"),
}
# level column -> (CSV column, npz key, coding); the npz has no key for the last two
_LABELS = {
    "race": ("race", "race", _RACE),
    "sex": ("gender", "male", _SEX),
    "ethnicity": ("ethnicity", "hispanic", _ETHNICITY),
    "glaucoma": ("glaucoma", "glaucoma", _GLAUCOMA),
}


SPEC = CohortSpec(
    name="fairgenmed",
    attributes=(
        Attribute("race", ("Asian", "Black", "White")),
        Attribute("sex", ("Female", "Male")),
        Attribute("ethnicity", ("Non-Hispanic", "Hispanic")),
    ),
    conditions=(
        Condition("glaucoma", ("non-glaucoma", "glaucoma")),
        Condition("md_severity", ("normal", "mild", "moderate", "severe")),
        Condition("cdr_status", ("normal", "borderline", "abnormal")),
        Condition("se_status", ("negative", "neutral", "positive")),
    ),
    template=(
        "SLO fundus image of a {race} {sex} {ethnicity} patient with the following conditions: "
        "{glaucoma}, {md_severity}, {cdr_status} cup-disc ratio, {se_status}"
    ),
    phrases={
        "md_severity": {
            "normal": "normal vision",
            "mild": "mild vision loss",
            "moderate": "moderate vision loss",
            "severe": "severe vision loss",
        }
    },
    split_rule="as shipped: column 'use' of data_summary.csv; one image per subject",
    modality="SLO fundus photographs",
    primary_condition="glaucoma",
)


def read_fairgenmed(root: Path, coding: str, split_seed: int) -> Source:
    """FairGenMed as its authors ship it; the split is the one in the CSV.

    From a folder with ``data_summary.csv`` (or ``ReadMe/data_summary.csv``) and the split folders
    ``train``, ``val``, ``test`` or ``Dataset/Training`` and so on. A label is read from the CSV
    and, where the npz holds it too, compared with it; unknown in either source is unknown.
    """
    refuse_unknown("coding", coding, ("default",))
    named = [root / "ReadMe" / "data_summary.csv", root / "data_summary.csv"]
    needed = ("use", "filename", "gender", "race", "ethnicity", "glaucoma", "md_severity")
    path, frame = read_one_of(named, (*needed, "cdr_status"))
    refraction = next((name for name in _REFRACTION_COLUMNS if name in frame.columns), None)
    if refraction is None:
        names = " or ".join(map(repr, _REFRACTION_COLUMNS))
        raise InputError(f"{path}: no column {names}; found {', '.join(frame.columns)}")
    splits = _uses(frame, path)
    refuse_duplicates(frame["filename"].tolist(), path, "filename")
    numbers = [_number(name, path, row) for row, name in enumerate(frame["filename"])]
    folders = {split: _split_folder(root, split) for split in dict.fromkeys(splits)}
    levels = {
        name: decode(frame[column].tolist(), codes, path, column)
        for name, (column, _, codes) in _LABELS.items()
    }
    levels["md_severity"] = decode(frame["md_severity"].tolist(), _MD, path, "md_severity")
    levels["cdr_status"] = decode(frame["cdr_status"].tolist(), _CDR, path, "cdr_status")
    levels["se_status"] = decode(frame[refraction].tolist(), _REFRACTION, path, refraction)
    archives = [f"{folders[s]}/data_{n}.npz" for s, n in zip(splits, numbers, strict=True)]
    labels_hash = _compare_archives(root, archives, levels, path)
    table = pd.DataFrame(
        {
            "subject": [f"data_{number}" for number in numbers],
            "image": [f"slo_fundus_{number}" for number in numbers],
            "path": [
                f"{folders[s]}/slo_fundus_{n}.jpg" for s, n in zip(splits, numbers, strict=True)
            ],
            "split": splits,
            **levels,
        }
    )
    return Source(table, labels_hash)


def _split_folder(root: Path, split: str) -> str:
    """Relative name of a split's folder, under any of the namings, but one alone."""
    found = [name for name in _SPLIT_FOLDERS[split] if (root / name).is_dir()]
    if len({os.path.realpath(root / name).casefold() for name in found}) > 1:
        raise InputError(f"{root}: {' and '.join(found)} are both there; expected one of them")
    if not found:
        names = " or ".join(_SPLIT_FOLDERS[split][:2])
        raise InputError(f"{root}: no folder for the {split} split; expected {names}")
    return found[0]


def _uses(frame: pd.DataFrame, path: Path) -> list[str]:
    """Split of each row; a subject listed under two splits is refused."""
    first: dict[str, str] = {}
    splits = decode(frame["use"].tolist(), _USE, path, "use")
    for position, (name, split) in enumerate(zip(frame["filename"], splits, strict=True)):
        if split == UNKNOWN:
            raise InputError(f"{path}, line {line_of(position)}: blank 'use'; expected a split")
        if first.setdefault(name, split) != split:
            raise InputError(
                f"{path}, line {line_of(position)}: subject {name!r} is in {first[name]} and "
                f"in {split}; a subject belongs to one split"
            )
    return splits


def _number(filename: str, path: Path, row: int) -> str:
    """``"00017"`` of ``"data_00017.npz"``."""
    stem = filename.removesuffix(".npz")
    prefix, _, number = stem.partition("_")
    if prefix != "data" or not number.isdigit():
        raise InputError(
            f"{path}, line {line_of(row)}, column 'filename': {filename!r}; expected data_XXXXX.npz"
        )
    return number


def read_archive(path: Path, keys: Sequence[str]) -> dict[str, str]:
    """Scalars of an npz as text tokens; a broken, pickled or incomplete file is refused."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            held = {key: np.asarray(archive[key]) for key in keys if key in archive.files}
    except ValueError:
        raise InputError(
            f"{path}: not an npz of plain arrays (pickled objects are refused)"
        ) from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, AttributeError):
        raise InputError(f"{path}: truncated or not an npz archive") from None
    for key in keys:
        if key not in held:
            raise InputError(f"{path}: no key {key!r}; expected {', '.join(keys)}")
        if held[key].size != 1:
            raise InputError(f"{path}, key {key!r}: {held[key].size} values; expected one")
    return {key: token(value.reshape(-1)[0]) for key, value in held.items()}


def _compare_archives(
    root: Path, archives: Sequence[str], levels: dict[str, list[str]], path: Path
) -> str:
    """Check ``levels`` against the npz files (in place: unknown there is unknown); hash both."""
    refuse_missing(root, archives)
    total = hashlib.sha256(path.read_bytes())
    keys = tuple(key for _, key, _ in _LABELS.values())
    for row, name in enumerate(tqdm(archives, desc="read labels", disable=None, leave=False)):
        held = read_archive(root / name, keys)
        total.update(f"{name}\0{held}\n".encode())
        for level, (column, key, codes) in _LABELS.items():
            code = held[key]
            if code not in codes and code not in NOT_KNOWN:
                raise InputError(
                    f"{root / name}, key {key!r}: unknown code {code!r}; "
                    f"expected one of {', '.join(codes)}"
                )
            stated, other = levels[level][row], codes.get(code, UNKNOWN)
            if UNKNOWN in (stated, other):
                levels[level][row] = UNKNOWN
            elif stated != other:
                raise InputError(
                    f"{root / name}: {key} says {other!r}, but {path.name}, "
                    f"line {line_of(row)}, column {column!r} says {stated!r}"
                )
    return total.hexdigest()
