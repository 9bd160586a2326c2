"""ChestX-ray14 and ODIR-5K in their own layouts: split by patient, labels read as they mean."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.data.cohort import OTHER_FINDING, Cohort, flow_table, split_table
from fairdiff_lib.data.odir import LEVELS
from fairdiff_lib.data.reading import OUTSIDE
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.settings.errors import InputError

NIH, ODIR = dataset_of("nih_chestxray14"), dataset_of("odir5k")


def picture(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (24, 24), shade % 250).save(path)


# -- ChestX-ray14 ----------------------------------------------------------------------------


def write_nih(root: Path, folder: str = "images", table: str = "Data_Entry_2017_v2020.csv") -> Path:
    """80 patients, every third with two films, every fourth with pneumonia, every tenth neither."""
    rows = []
    for n in range(80):
        labels = (
            "Infiltration|Mass"
            if n % 10 == 9
            else "Edema|Pneumonia"
            if n % 4 == 0
            else "No Finding"
        )
        for film in range(2 if n % 3 == 0 else 1):
            name = f"{n:08d}_{film:03d}.png"
            cells = [name, labels, film, n, 30 + n % 45, "MF"[n // 2 % 2], ("PA", "AP")[n // 4 % 2]]
            rows.append([*cells, 2500, 2048, 0.17, 0.17])
            picture(root / folder.format(1 + n % 12) / name, n)
    head = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
            "Patient Gender", "View Position", "OriginalImage[Width", "Height]",
            "OriginalImagePixelSpacing[x", "y]"]  # fmt: skip
    pd.DataFrame(rows, columns=head).to_csv(root / table, index=False)
    return root


def test_nih_is_read_and_split_by_patient(tmp_path: Path) -> None:
    cohort = NIH.read(write_nih(tmp_path))
    kept = cohort.included().table
    assert kept.groupby("subject")["split"].nunique().max() == 1
    assert set(kept["split"]) == {"train", "val", "test"}
    gone = cohort.table[cohort.table["excluded"] != ""]
    assert set(gone["excluded"]) == {"another finding"} and set(gone["split"]) == {OUTSIDE}
    assert split_table(cohort)["subjects_in_another_split"].sum() == 0
    row = kept.set_index("image").loc["00000004_000"]
    assert (row["subject"], row["age"], row["sex"]) == ("patient00004", "under 60", "Male")
    assert row["prompt"] == (
        "Chest radiograph, AP view, of a Male patient under 60 years: pneumonia"
    )
    other = load_settings("smoke", "nih_chestxray14", {"reading.split_seed": "1"})
    again = NIH.read(tmp_path, split_seed=other.reading.split_seed).table
    assert not again["split"].equals(cohort.table["split"])


def test_nih_folders_and_the_older_table_are_the_same_films(tmp_path: Path) -> None:
    whole = NIH.read(write_nih(tmp_path / "a")).table
    parts = write_nih(tmp_path / "b", "images_{:03d}/images", "Data_Entry_2017.csv")
    frame = pd.read_csv(parts / "Data_Entry_2017.csv", dtype=str)
    frame["Patient Age"] = [f"{int(age):03d}Y" for age in frame["Patient Age"]]
    frame.loc[0, "Patient Age"] = "411"  # as the first release has it: nobody knows
    frame.to_csv(parts / "Data_Entry_2017.csv", index=False)
    table = NIH.read(parts).table
    assert table["path"].iloc[0] == "images_001/images/00000000_000.png"
    assert table.loc[1:, "age"].equals(whole.loc[1:, "age"])
    assert table.loc[0, "excluded"] == "age unknown" and whole.loc[0, "excluded"] == ""


def test_a_patient_who_grows_old_between_films_has_no_age_level(tmp_path: Path) -> None:
    frame = pd.read_csv(write_nih(tmp_path) / "Data_Entry_2017_v2020.csv", dtype=str)
    frame.loc[1, "Patient Age"] = "75"  # the second film of patient 0
    frame.to_csv(tmp_path / "Data_Entry_2017_v2020.csv", index=False)
    flow = flow_table(NIH.read(tmp_path)).set_index(["step", "attribute"])["subjects"]
    assert flow["left: age differs within the subject", "overall"] == 1


def test_nih_says_what_it_does_not_understand(tmp_path: Path) -> None:
    path = write_nih(tmp_path) / "Data_Entry_2017_v2020.csv"
    frame = pd.read_csv(path, dtype=str)
    for column, cell, said in (
        ("Finding Labels", "Pnemonia", "line 2, column 'Finding Labels': 'Pnemonia'"),
        ("Patient ID", "x1", "line 2, column 'Patient ID': 'x1'"),
        ("View Position", "LL", "line 2, column 'View Position': unknown code 'LL'"),
        ("Image Index", "00000001_000.png", "column 'Image Index': duplicate"),
    ):
        frame.assign(**{column: [cell, *frame[column][1:]]}).to_csv(path, index=False)
        with pytest.raises(InputError, match=said):
            NIH.read(tmp_path)
    frame.to_csv(path, index=False)
    (tmp_path / "images" / "00000001_000.png").unlink()
    with pytest.raises(InputError, match=r"1 of .* expected files are missing"):
        NIH.read(tmp_path)


def test_the_findings_are_conditions_on_request() -> None:
    assert len(NIH.spec("findings").conditions) == 15  # the 14 and the view
    assert [c.name for c in NIH.spec("findings").prompted] == ["pneumonia", "view"]


# -- ODIR-5K ---------------------------------------------------------------------------------

WORDS = (
    ("normal fundus", "normal fundus"),
    ("moderate non proliferative retinopathy", "normal fundus\uff0clens dust"),
    ("glaucoma", "glaucoma"),
    ("lens dust\uff0ccataract", "hypertensive retinopathy"),
    ("pathological myopia", "suspected glaucoma"),
    ("cataract\uff0cglaucoma", "severe proliferative diabetic retinopathy"),
)


def patients() -> pd.DataFrame:
    rows = []
    for n in range(120):
        left, right = WORDS[n % 6]
        row = {
            "ID": n,
            "Patient Age": 1 if n == 7 else 40 + n % 40,
            "Patient Sex": ("Female", "Male")[n // 6 % 2],
        }
        row |= {"Left-Fundus": f"{n}_left.jpg", "Right-Fundus": f"{n}_right.jpg"}
        rows.append({**row, "Left-Diagnostic Keywords": left, "Right-Diagnostic Keywords": right})
    return pd.DataFrame(rows).assign(**{"Normal ": 0, "Diabetes": 1})


def write_odir(root: Path, folder: str) -> Path:
    for n in range(120):
        for side in ("left", "right"):
            picture(root / folder / f"{n}_{side}.jpg", n)
    return root


def test_an_eye_is_what_its_own_keywords_say(tmp_path: Path) -> None:
    patients().to_csv(write_odir(tmp_path, "preprocessed_images") / "full_df.csv", index=False)
    (tmp_path / "preprocessed_images" / "0_left.jpg").unlink()
    cohort = ODIR.read(tmp_path)
    table = cohort.table.set_index("image")
    assert table.loc["1_left", "diagnosis"] == "retinopathy"
    assert table.loc["1_right", "diagnosis"] == "normal fundus"
    reasons = table["excluded"]
    assert reasons["0_left"] == "no photograph" and reasons["0_right"] == ""
    assert reasons["3_right"] == "another diagnosis" and reasons["3_left"] == ""
    assert reasons["4_right"] == "diagnosis only suspected"
    assert reasons["5_left"] == "several of the diagnoses"
    assert reasons["7_left"] == reasons["7_right"] == "age unknown"  # 1 is a placeholder
    kept = cohort.included().table
    assert kept.groupby("subject")["split"].nunique().max() == 1
    assert set(kept["diagnosis"]) == set(LEVELS)
    prompts = kept[kept["diagnosis"] == "retinopathy"].set_index("age")["prompt"]["under 60"]
    assert prompts.str.endswith("patient under 60 years: diabetic retinopathy").all()


def test_the_workbook_and_the_table_that_repeats_patients_say_the_same(tmp_path: Path) -> None:
    one = write_odir(tmp_path / "kaggle", "preprocessed_images")
    pd.concat([patients(), patients()]).sort_values("ID").to_csv(one / "full_df.csv", index=False)
    two = write_odir(tmp_path / "challenge", "Training Images")
    patients().to_excel(two / "ODIR-5K_Training_Annotations(Updated)_V2.xlsx", index=False)
    found = [ODIR.read(root).table for root in (one, two)]
    assert found[0].drop(columns="path").equals(found[1].drop(columns="path"))
    both = pd.concat([patients(), patients().assign(**{"Patient Age": 50})])
    both.to_csv(one / "full_df.csv", index=False)
    with pytest.raises(InputError, match="is there twice with different cells"):
        ODIR.read(one)


def test_missing_parts_of_odir_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no full_df\.csv and no workbook of ODIR-5K"):
        ODIR.read(tmp_path)
    patients().to_csv(tmp_path / "full_df.csv", index=False)
    with pytest.raises(InputError, match=r"none of the photographs of full_df\.csv"):
        ODIR.read(tmp_path)


# -- the unit of the audit -------------------------------------------------------------------


def check_one_finding_each(cohort: Cohort, several: set[str]) -> None:
    """Of test subjects who show ``several`` findings the images of one stay, as a hash draws."""
    names = [condition.name for condition in cohort.spec.prompted]
    gone = cohort.table[cohort.table["excluded"] == OTHER_FINDING]
    kept = cohort.included().split("test").table
    group_units(kept, cohort.all_levels)  # refuses a subject in two levels
    assert len(gone) and set(gone["subject"]) == several & set(kept["subject"])
    for subject, own in gone.groupby("subject"):
        stay = kept[kept["subject"] == subject]
        of_all = [*own["image"], *stay["image"]]
        drawn = min(of_all, key=lambda name: hashlib.sha256(name.encode()).digest())
        assert drawn in set(stay["image"])
        assert not (stay[names].iloc[0] == own[names]).all(axis=1).any()
    flow = flow_table(cohort)
    images = flow[flow["attribute"] == "overall"].set_index("step")["images"]
    assert images[f"image left out: {OTHER_FINDING}"] == len(gone)
    assert images["in the data"] == images.drop("in the data").sum() == len(cohort)
    train = cohort.included().split("train").table
    assert (train[train["subject"].isin(several)].groupby("subject").size() == 2).all()


def test_a_patient_of_the_test_set_counts_for_the_finding_of_one_eye(tmp_path: Path) -> None:
    patients().to_csv(write_odir(tmp_path, "preprocessed_images") / "full_df.csv", index=False)
    check_one_finding_each(ODIR.read(tmp_path), {str(n) for n in range(120) if n % 6 == 1})


def test_a_patient_of_the_test_set_counts_for_one_view(tmp_path: Path) -> None:
    frame = pd.read_csv(write_nih(tmp_path) / "Data_Entry_2017_v2020.csv", dtype=str)
    second = frame["Follow-up #"] == "1"
    turned = frame["View Position"].map({"PA": "AP", "AP": "PA"})
    frame["View Position"] = frame["View Position"].mask(second, turned)
    frame.to_csv(tmp_path / "Data_Entry_2017_v2020.csv", index=False)
    several = {f"patient{n:05d}" for n in range(0, 80, 3)}
    check_one_finding_each(NIH.read(tmp_path), several)


# -- the reduced copies ----------------------------------------------------------------------


def test_the_real_films_and_eyes_are_read_as_described(shared: Path) -> None:
    films = NIH.read(shared / "data" / "nih_chestxray14")
    assert (films.table["pneumonia"] == "pneumonia").sum() >= 450
    eyes = ODIR.read(shared / "data" / "odir5k")
    assert eyes.table["subject"].nunique() == 3022
    assert (eyes.table["split"] != OUTSIDE).sum() > 4400
    for cohort in (films.included(), eyes.included()):
        table = cohort.table
        assert table.groupby("subject")["split"].nunique().max() == 1
        group_units(cohort.split("test").table, cohort.all_levels)  # one finding each
        shares = table.groupby("split")["subject"].nunique() / table["subject"].nunique()
        assert np.allclose(shares[["train", "val", "test"]], (0.7, 0.1, 0.2), atol=0.02)
        assert cohort.load_images(64, [0, 1]).std() > 10
