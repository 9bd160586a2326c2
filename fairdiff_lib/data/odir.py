"""ODIR-5K: spec and reader of the challenge's workbook, or of Kaggle's copy of it.

Colour fundus photographs of both eyes, from many cameras. The 0/1 columns are about the patient,
so an eye's diagnosis is read from its own keywords.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pandas as pd

from fairdiff_lib.data.cohort import Attribute, CohortSpec, Condition
from fairdiff_lib.data.reading import (
    OUTSIDE,
    UNKNOWN,
    Source,
    ages,
    decode,
    find_images,
    line_of,
    read_text_csv,
    read_workbook,
    split_subjects,
)
from fairdiff_lib.settings.errors import InputError

LEVELS = ("normal fundus", "retinopathy", "glaucoma", "cataract", "pathological myopia")
TABLES = ("full_df.csv", "data.xlsx", "ODIR-5K/data.xlsx")
_AGES = ("under 60", "60 or older")
_PLACEHOLDER = 1  # year: stands for no age
# keyword -> level; any other is another diagnosis, and the eye is left out
_DIABETIC = re.compile(r"(.*non ?proliferative |.*proliferative diabetic |diabetic )retinopathy")
_NOTHING = ("lens dust",)  # says nothing of the eye
_FOLDERS = r"preprocessed_images|images|(ODIR-5K/)?(ODIR-5K_Training_Dataset|Training Images)"

SPEC = CohortSpec(
    name="odir5k",
    attributes=(Attribute("sex", ("Female", "Male")), Attribute("age", _AGES)),
    conditions=(Condition("diagnosis", LEVELS),),
    template="Colour fundus photograph of a {sex} patient {age}: {diagnosis}",
    phrases={
        "age": {_AGES[0]: "under 60 years", _AGES[1]: "of 60 years or older"},
        "diagnosis": {"retinopathy": "diabetic retinopathy"},
    },
    split_rule="70/10/20 by patient within normal or not, in the order of a seeded hash",
    modality="colour fundus photographs",
    primary_condition="diagnosis",
)


def read_odir(root: Path, coding: str, split_seed: int) -> Source:
    """ODIR-5K (2019 challenge on Ocular Disease Intelligent Recognition), an eye a row.

    From a folder with Kaggle's ``full_df.csv``, or the challenge's workbook (``data.xlsx`` or
    ``ODIR-5K_Training_Annotations*.xlsx``), and the photographs in ``preprocessed_images``,
    ``Training Images`` or beside it. Left out are eyes without a photograph, with another diagnosis
    or several of those that are studied, and with one that is only suspected; patients whose age is
    a placeholder are unknown.
    """
    path = _table(root)
    sides = ("Left", "Right")
    columns = [
        *("ID", "Patient Age", "Patient Sex"),
        *(f"{side}-Fundus" for side in sides),
        *(f"{side}-Diagnostic Keywords" for side in sides),
    ]
    read = read_workbook if path.suffix == ".xlsx" else read_text_csv
    frame = read(path, columns)[columns]
    labels = hashlib.sha256(repr(frame.to_numpy().tolist()).encode()).hexdigest()
    line = {patient: line_of(n) for n, patient in enumerate(frame["ID"])}
    patients = frame.drop_duplicates()  # Kaggle repeats a patient for each eye
    twice = patients["ID"][patients["ID"].duplicated()]
    if len(twice):
        raise InputError(
            f"{path}, line {line[twice.iloc[0]]}: patient {twice.iloc[0]!r} is there twice with "
            "different cells; expected one age, sex and diagnosis of each eye"
        )
    sex = decode(patients["Patient Sex"].tolist(), {"female": "Female", "male": "Male"}, path,
                 "Patient Sex")  # fmt: skip
    age = ages(patients["Patient Age"].tolist(), _AGES, path, "Patient Age",
               placeholders=(_PLACEHOLDER,))  # fmt: skip
    people = pd.DataFrame({"subject": patients["ID"], "sex": sex, "age": age})
    eyes = pd.concat([people.assign(file=patients[f"{side}-Fundus"],
                                    words=patients[f"{side}-Diagnostic Keywords"])
                      for side in sides])  # fmt: skip
    eyes = eyes.sort_index(kind="stable").reset_index(drop=True)
    read_as = [_diagnosis(words) for words in eyes["words"]]
    places = find_images(root, eyes["file"].tolist(), _FOLDERS)
    if not places:
        raise InputError(f"{root}: none of the photographs of {path.name}; expected "
                         "preprocessed_images or Training Images there")  # fmt: skip
    left = [
        "no photograph" if name not in places else why
        for name, (_, why) in zip(eyes["file"], read_as, strict=True)
    ]
    sound = set(eyes["subject"]) - {
        subject for subject, (level, _) in zip(eyes["subject"], read_as, strict=True)
        if level != LEVELS[0]
    }  # fmt: skip
    strata = [str(subject in sound) for subject in eyes["subject"]]
    splits = split_subjects(eyes["subject"].tolist(), strata, split_seed)
    table = eyes[["subject", "sex", "age"]].assign(
        image=[name.rpartition(".")[0] for name in eyes["file"]],
        path=[places.get(name, name) for name in eyes["file"]],
        split=[OUTSIDE if why else own for own, why in zip(splits, left, strict=True)],
        diagnosis=[level for level, _ in read_as],
        excluded=left,
    )
    return Source(table, labels)


def _table(root: Path) -> Path:
    """The label file, under any of its names."""
    named = [root / name for name in TABLES]
    named += sorted(root.glob("ODIR-5K_Training_Annotations*.xlsx"))
    found = [path for path in named if path.is_file()]
    if not found:
        raise InputError(f"{root}: no {TABLES[0]} and no workbook of ODIR-5K; expected one of them")
    return found[0]


def _diagnosis(words: str) -> tuple[str, str]:
    """Level of an eye's keywords, and the reason if it has none."""
    keywords = [w.strip().lower() for w in re.split("[,\uff0c]", words)]
    keywords = [w for w in keywords if w and w not in _NOTHING]
    if any(w.startswith(("suspected", "suspicious")) for w in keywords):
        return UNKNOWN, "diagnosis only suspected"
    levels = {
        w if w in LEVELS else "retinopathy" if _DIABETIC.fullmatch(w) else "" for w in keywords
    }
    if len(levels) == 1 and "" not in levels:
        return levels.pop(), ""
    several = len(levels - {""}) > 1
    return UNKNOWN, "several of the diagnoses" if several else "another diagnosis"
