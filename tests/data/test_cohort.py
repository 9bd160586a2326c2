"""Readers and cohorts: subjects stay in one split, codings agree, bad input is one clear line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.data.cohort import refuse_crossing
from fairdiff_lib.data.ham10000 import AGE_LEVELS, DX
from fairdiff_lib.data.reading import SPLITS, split_subjects
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.study import Study

SHARED = Path(os.environ.get("FAIRDIFF_SHARED", Path(__file__).parents[3] / "shared"))


def write_jpeg(path: Path, shade: int = 90) -> None:
    """A 40 x 30 picture: ``shade`` in the central square, white beside it."""
    pixels = np.full((30, 40, 3), 255, np.uint8)
    pixels[:, 5:35] = shade
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


# --- small datasets in the original layouts ---


@pytest.fixture(scope="session")
def ham_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 lesions, every third with two images, in the flat layout."""
    root = tmp_path_factory.mktemp("ham")
    rows = []
    for lesion in range(40):
        for view in range(2 if lesion % 3 == 0 else 1):
            rows.append(
                {
                    "lesion_id": f"HAM_{lesion:07d}",
                    "image_id": f"ISIC_{lesion:04d}{view}",
                    "dx": DX[lesion % 7],
                    "dx_type": "histo",
                    "age": ("35.0", "60.0", "70.0", "45.0")[lesion % 4],
                    "sex": ("female", "male", "male")[lesion % 3],
                    "localization": "back",
                }
            )
            write_jpeg(root / f"ISIC_{lesion:04d}{view}.jpg", 60 + lesion)
    pd.DataFrame(rows).to_csv(root / "HAM10000_metadata.csv", index=False)
    return root


@pytest.fixture
def ham(ham_source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ham_source, tmp_path / "ham10000"))


@pytest.fixture(scope="session")
def fundus_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 subjects with every level in training, in the layout with train, val and test."""
    root = tmp_path_factory.mktemp("fairgenmed")
    rows = []
    for n in range(24):
        split = ("train", "train", "val", "test")[n // 6]
        race, male, hispanic, glaucoma = n % 3, n % 2, int(n % 4 == 0), int(n % 5 < 2)
        rows.append(
            {
                "use": {"train": "training", "val": "validation", "test": "test"}[split],
                "filename": f"data_{n:05d}.npz",
                "age": 50 + n,
                "gender": ("female", "male")[male],
                "race": ("asian", "black", "white")[race],
                "ethnicity": ("non-hispanic", "hispanic")[hispanic],
                "glaucoma": ("no", "yes")[glaucoma],
                "md": -n / 2,
                "md_severity": ("normal", "mild", "moderate", "severe")[n % 4],
                "cdr_status": ("normal", "borderline", "abnormal")[n % 3],
                "near_vision_refraction_stage": ("negative", "neutral", "positive")[n // 2 % 3],
            }
        )
        write_jpeg(root / split / f"slo_fundus_{n:05d}.jpg", 60 + n)
        write_archive(
            root / split / f"data_{n:05d}.npz",
            race=race,
            male=male,
            hispanic=hispanic,
            glaucoma=glaucoma,
        )
    pd.DataFrame(rows).to_csv(root / "data_summary.csv", index=False)
    return root


def write_archive(path: Path, **labels: object) -> None:
    np.savez(path, slo_fundus=np.zeros((4, 4, 3), np.uint8), **labels)  # type: ignore[arg-type]


@pytest.fixture
def fundus(fundus_source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fundus_source, tmp_path / "fairgenmed"))


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    """Change a CSV as text cells, in place."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    changed = change(frame)
    (frame if changed is None else changed).to_csv(path, index=False)


def put(column: str, row: int, value: str) -> Callable[[Path], None]:
    """A change that sets one cell of the dataset's CSV."""

    def change(root: Path) -> None:
        (path,) = root.glob("*.csv")
        edit(path, lambda frame: frame.assign(**{column: _replaced(frame[column], row, value)}))

    return change


def _replaced(cells: pd.Series[str], row: int, value: str) -> list[str]:
    values = cells.tolist()
    values[row] = value
    return values


# --- specs ---


def test_prompts_are_the_published_ones() -> None:
    row = {
        "race": "Black",
        "sex": "Female",
        "ethnicity": "Non-Hispanic",
        "glaucoma": "glaucoma",
        "md_severity": "mild",
        "cdr_status": "abnormal",
        "se_status": "negative",
    }
    assert dataset_of("fairgenmed_simulated").spec().prompt(row) == (
        "SLO fundus image of a Black Female Non-Hispanic patient with the following conditions: "
        "glaucoma, mild vision loss, abnormal cup-disc ratio, negative"
    )
    spec = dataset_of("ham10000").spec()
    lesion = {"sex": "Male", "age": "60 or older", "malignant": "benign", "dx": "nv"}
    assert spec.prompt(lesion) == (
        "Dermoscopic image of a Male Age equal 60 or older patient "
        "with the following diagnostic category: benign"
    )
    assert "Age under 60" in spec.prompt({**lesion, "age": "under 60"})


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"dataset 'chest'.*fairgenmed.*ham10000"):
        dataset_of("chest").spec()
    with pytest.raises(InputError, match=r"coding 'medfair'.*default"):
        dataset_of("fairgenmed").spec("medfair")
    with pytest.raises(InputError, match=r"'colour'.*race"):
        dataset_of("fairgenmed").spec().levels("colour")


# --- HAM10000 ---


def test_ham_lesions_never_cross_splits(ham: Path) -> None:
    cohort = dataset_of("ham10000").read(ham)
    assert cohort.table["subject"].duplicated().any()  # else the test shows nothing
    assert (cohort.table.groupby("subject")["split"].nunique() == 1).all()
    assert set(cohort.table["split"]) == set(SPLITS)


def test_ham_split_depends_on_lesions_and_seed_alone(ham: Path) -> None:
    def splits(seed: int) -> dict[str, str]:
        table = dataset_of("ham10000").read(ham, split_seed=seed).table
        return dict(zip(table["image"], table["split"], strict=True))

    first = splits(0)
    edit(ham / "HAM10000_metadata.csv", lambda frame: frame.iloc[::-1])
    assert splits(0) == first
    assert splits(1) != first


def test_split_is_stratified_by_diagnosis() -> None:
    lesions = [str(n) for n in range(1100)]
    dx = ["nv"] * 1000 + ["df"] * 100
    table = pd.DataFrame({"dx": dx, "split": split_subjects(lesions, dx, 3)})
    counts = table.groupby(["dx", "split"]).size()
    assert [counts["df", split] for split in SPLITS] == [70, 10, 20]
    assert [counts["nv", split] for split in SPLITS] == [700, 100, 200]


@pytest.mark.parametrize(
    "folders", [("images",), ("HAM10000_images_part_1", "HAM10000_images_part_2")]
)
def test_ham_layouts_give_the_same_cohort(ham: Path, folders: tuple[str, ...]) -> None:
    flat = dataset_of("ham10000").read(ham)
    images = flat.load_images(8)
    for index, picture in enumerate(sorted(ham.glob("*.jpg"))):
        place = ham / folders[index % len(folders)]
        place.mkdir(exist_ok=True)
        picture.rename(place / picture.name)
    moved = dataset_of("ham10000").read(ham)
    assert moved.table.drop(columns="path").equals(flat.table.drop(columns="path"))
    assert np.array_equal(moved.load_images(8), images)


def test_codings_differ_on_bcc_and_on_age_sixty(ham: Path) -> None:
    default = dataset_of("ham10000").read(ham)
    medfair = dataset_of("ham10000").read(ham, coding="medfair")
    changed = default.table["malignant"] != medfair.table["malignant"]
    assert set(default.table["dx"][changed]) == {"bcc"}
    assert set(default.table["malignant"][changed]) == {"malignant"}
    sixty = pd.read_csv(ham / "HAM10000_metadata.csv")["age"] == 60
    assert set(default.table["age"][sixty]) == {"60 or older"}
    assert set(medfair.table["age"][sixty]) == {"60 or under"}
    assert default.table["age"][~sixty].str.contains("older").sum() == (
        medfair.table["age"][~sixty].str.contains("over").sum()
    )


def test_a_coding_and_a_split_are_settings_with_folders_of_their_own(
    ham: Path, tmp_path: Path
) -> None:
    folders = set()
    for change in ({}, {"reading.coding": "medfair"}, {"reading.split_seed": "1"}):
        settings = load_settings("smoke", "ham10000", change)
        layout = Places(settings, str(ham), str(tmp_path / "runs"), str(tmp_path / "figures"))
        folders |= {layout.cohort, layout.base}
        first, again = (Study(settings, layout).cohort for _ in range(2))  # the second from disk
        assert first.table.equals(again.table)
        assert again.spec.levels("age") == AGE_LEVELS[settings.reading.coding]
        assert (again.included().codes() >= 0).all()
    assert len(folders) == 6
    with pytest.raises(InputError, match="fairgenmed comes with its splits"):
        load_settings("smoke", "fairgenmed", {"reading.split_seed": "1"})
    with pytest.raises(InputError, match="coding=x: ham10000 has no such coding"):
        load_settings("smoke", "ham10000", {"reading.coding": "x"})


def test_unknown_is_kept_and_excluded_with_its_reason(ham: Path) -> None:
    put("sex", 0, "unknown")(ham)
    put("age", 1, "")(ham)
    cohort = dataset_of("ham10000").read(ham)
    assert cohort.table["excluded"].tolist()[:3] == ["sex unknown", "age unknown", ""]
    assert cohort.table["sex"][0] == "unknown"
    assert cohort.table["prompt"][0] == ""
    kept = cohort.included()
    assert len(kept) == len(cohort) - 2
    assert kept.codes().shape == (len(kept), 2)
    with pytest.raises(InputError, match=r"ISIC_00000.*sex is 'unknown'.*Female, Male"):
        cohort.codes()


def test_codes_follow_the_spec(ham: Path) -> None:
    cohort = dataset_of("ham10000").read(ham)
    names = [field.name for field in cohort.spec.conditions]
    dx = cohort.condition_codes()[:, names.index("dx")]
    assert [DX[code] for code in dx] == cohort.table["dx"].tolist()
    assert cohort.take([]).codes().shape == (0, 2)


def test_images_are_the_central_square(ham: Path) -> None:
    cohort = dataset_of("ham10000").read(ham)
    images = cohort.load_images(10, rows=[3, 0])
    assert images.shape == (2, 3, 10, 10) and images.dtype == np.uint8
    assert images.max() < 200  # the white margins are gone
    assert np.array_equal(images[1], cohort.load_images(10)[0])


def test_hash_follows_content_not_place(ham: Path, tmp_path: Path) -> None:
    before = dataset_of("ham10000").read(ham).data_hash
    copy = Path(shutil.copytree(ham, tmp_path / "elsewhere"))
    assert dataset_of("ham10000").read(copy).data_hash == before
    write_jpeg(copy / "ISIC_00000.jpg", 200)
    assert dataset_of("ham10000").read(copy).data_hash != before
    assert dataset_of("ham10000").read(ham).table["sex"][2] == "Male"
    put("sex", 2, "female")(ham)
    assert dataset_of("ham10000").read(ham).data_hash != before


@pytest.mark.skipif(
    not (SHARED / "data" / "ham10000").is_dir(), reason="needs ../shared/data/ham10000"
)
def test_real_ham10000_reads_whole() -> None:
    cohort = dataset_of("ham10000").read(SHARED / "data" / "ham10000")
    assert len(cohort) == 8995
    assert (cohort.table.groupby("subject")["split"].nunique() == 1).all()
    assert len(cohort.included()) == 8932  # 63 rows lack sex, age or both
    lesions = cohort.table.drop_duplicates("subject")["split"].value_counts(normalize=True)
    assert lesions["train"] == pytest.approx(0.7, abs=0.002)
    assert lesions["test"] == pytest.approx(0.2, abs=0.002)


# --- FairGenMed ---


def test_fairgenmed_reads_levels_and_split(fundus: Path) -> None:
    cohort = dataset_of("fairgenmed").read(fundus)
    assert cohort.table["split"].value_counts().to_dict() == {"train": 12, "val": 6, "test": 6}
    assert cohort.table["race"].tolist()[:3] == ["Asian", "Black", "White"]
    assert cohort.table["subject"].is_unique and cohort.table["image"].is_unique
    assert cohort.codes()[4].tolist() == [1, 0, 1]
    assert cohort.condition_codes()[4].tolist() == [0, 0, 1, 2]
    assert cohort.split("val").table["path"][0] == "val/slo_fundus_00012.jpg"


def test_both_folder_namings_give_the_same_cohort(fundus: Path) -> None:
    plain = dataset_of("fairgenmed").read(fundus)
    (fundus / "Dataset").mkdir()
    (fundus / "ReadMe").mkdir()
    for old, new in (("train", "Training"), ("val", "Validation"), ("test", "Test")):
        (fundus / old).rename(fundus / "Dataset" / new)
    (fundus / "data_summary.csv").rename(fundus / "ReadMe" / "data_summary.csv")
    moved = dataset_of("fairgenmed").read(fundus)
    assert moved.table.drop(columns="path").equals(plain.table.drop(columns="path"))
    assert moved.table["path"][0] == "Dataset/Training/slo_fundus_00000.jpg"


def test_both_refraction_columns_are_read(fundus: Path) -> None:
    plain = dataset_of("fairgenmed").read(fundus)
    old = {"near_vision_refraction_stage": "se_status"}
    edit(fundus / "data_summary.csv", lambda frame: frame.rename(columns=old))
    assert dataset_of("fairgenmed").read(fundus).table.equals(plain.table)


def test_integer_and_long_string_codings_agree(fundus: Path) -> None:
    plain = dataset_of("fairgenmed").read(fundus)
    codes = {
        "race": {"asian": "0", "black": "1", "white": "2"},
        "gender": {"female": "0", "male": "1.0"},
        "ethnicity": {"non-hispanic": "0", "hispanic": "1"},
        "glaucoma": {"no": "0", "yes": "1"},
    }
    edit(fundus / "data_summary.csv", lambda frame: frame.replace(codes))
    long_names = {"Asian": "Asian", "Black": "Black or African American"}
    for row in plain.table.to_dict("records"):
        write_archive(
            (fundus / row["path"]).with_name(f"{row['subject']}.npz"),
            race=long_names.get(row["race"], "White or Caucasian"),
            male=float(row["sex"] == "Male"),
            hispanic=int(row["ethnicity"] == "Hispanic"),
            glaucoma=np.array([row["glaucoma"] == "glaucoma"], np.int8),
        )
    assert dataset_of("fairgenmed").read(fundus).table.equals(plain.table)


def test_minus_one_is_unknown_in_either_source(fundus: Path) -> None:
    put("race", 4, "-1")(fundus)
    write_archive(fundus / "train/data_00007.npz", race=1, male=1, hispanic=-1, glaucoma=0)
    put("md_severity", 9, "-1")(fundus)
    table = dataset_of("fairgenmed").read(fundus).table
    assert table["race"][4] == "unknown"
    reasons = table["excluded"][table["excluded"] != ""].to_dict()
    assert reasons == {4: "race unknown", 7: "ethnicity unknown", 9: "md_severity unknown"}


def test_a_subject_may_not_be_in_two_splits() -> None:
    table = pd.DataFrame({"subject": ["a", "b", "a"], "split": ["train", "test", "val"]})
    with pytest.raises(InputError, match="subject 'a' is in train and in val"):
        refuse_crossing(table, Path("root"))


# --- bad input: (what goes wrong, words the one line must hold) ---


def cut(name: str) -> Callable[[Path], None]:
    """A change that halves a file."""

    def change(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])

    return change


def drop(column: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (path,) = root.glob("*.csv")
        edit(path, lambda frame: frame.drop(columns=column))

    return change


def repeat_first(root: Path) -> None:
    (path,) = root.glob("*.csv")
    edit(path, lambda frame: pd.concat([frame, frame.head(1)]))


def first_in_two_splits(root: Path) -> None:
    edit(
        root / "data_summary.csv",
        lambda frame: pd.concat([frame, frame.head(1).assign(use="test")]),
    )


def empty_csv(root: Path) -> None:
    (path,) = root.glob("*.csv")
    path.write_text("")


def header_only(root: Path) -> None:
    (path,) = root.glob("*.csv")
    edit(path, lambda frame: frame.head(0))


def binary_csv(root: Path) -> None:
    (path,) = root.glob("*.csv")
    path.write_bytes(b"\xff\xfe\x00\x9d" * 20)


def remove_csv(root: Path) -> None:
    (path,) = root.glob("*.csv")
    path.unlink()


HAM_CASES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no csv": (remove_csv, ("HAM10000_metadata.csv",)),
    "empty csv": (empty_csv, ("HAM10000_metadata.csv",)),
    "header only": (header_only, ("no rows",)),
    "not text": (binary_csv, ("HAM10000_metadata.csv",)),
    "no dx column": (drop("dx"), ("HAM10000_metadata.csv", "dx")),
    "unknown dx": (put("dx", 2, "wart"), ("line 4", "'dx'", "'wart'", "akiec")),
    "unknown sex": (put("sex", 2, "f"), ("line 4", "'sex'", "'f'", "female, male")),
    "age in words": (put("age", 7, "old"), ("line 9", "'age'", "'old'", "years")),
    "age out of range": (put("age", 7, "-4"), ("line 9", "'age'", "'-4'")),
    "image twice": (repeat_first, ("duplicate 'ISIC_00000'", "line 2")),
    "blank image": (put("image_id", 3, ""), ("line 5", "blank 'image_id'")),
    "two diagnoses": (put("dx", 1, "nv"), ("line 3", "HAM_0000000", "one per lesion")),
    "blank lesion": (put("lesion_id", 1, " "), ("line 3", "blank 'lesion_id'")),
    "missing image": (
        lambda root: (root / "ISIC_00120.jpg").unlink(),
        ("1 of 54", "ISIC_00120.jpg"),
    ),
    "truncated image": (cut("ISIC_00120.jpg"), ("1 of 54", "ISIC_00120.jpg", "truncated")),
    "not an image": (
        lambda root: (root / "ISIC_00120.jpg").write_text("<html>not found</html>"),
        ("ISIC_00120.jpg",),
    ),
    "level without a lesion": (
        lambda root: edit(
            root / "HAM10000_metadata.csv", lambda frame: frame[frame["dx"] != "vasc"]
        ),
        ("training", "dx 'vasc'"),
    ),
    "split without a row": (
        lambda root: edit(root / "HAM10000_metadata.csv", lambda frame: frame.head(3)),
        ("the val split",),
    ),
}


def pickled(root: Path) -> None:
    write_archive(
        root / "train/data_00003.npz",
        race=np.array([{"race": 0}], dtype=object),
        male=1,
        hispanic=0,
        glaucoma=0,
    )


def archive(**labels: object) -> Callable[[Path], None]:
    """A change that rewrites subject 3 (Asian, male, non-Hispanic, no glaucoma)."""
    return lambda root: write_archive(root / "train/data_00003.npz", **labels)


FUNDUS_CASES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no csv": (remove_csv, ("data_summary.csv",)),
    "no gender column": (drop("gender"), ("data_summary.csv", "gender")),
    "no refraction column": (
        drop("near_vision_refraction_stage"),
        ("near_vision_refraction_stage", "se_status"),
    ),
    "unknown race": (put("race", 3, "martian"), ("line 5", "'race'", "'martian'", "asian")),
    "unknown ethnicity": (put("ethnicity", 3, "2"), ("line 5", "'ethnicity'", "'2'")),
    "unknown severity": (put("md_severity", 3, "2"), ("line 5", "'md_severity'", "moderate")),
    "unknown refraction": (
        put("near_vision_refraction_stage", 3, "plus"),
        ("line 5", "'near_vision_refraction_stage'", "'plus'", "positive"),
    ),
    "unknown use": (put("use", 3, "holdout"), ("line 5", "'use'", "'holdout'")),
    "blank use": (put("use", 3, ""), ("line 5", "blank 'use'")),
    "odd file name": (put("filename", 3, "eye3.npz"), ("line 5", "'eye3.npz'", "data_XXXXX")),
    "subject twice": (repeat_first, ("duplicate 'data_00000.npz'", "line 2")),
    "subject in two splits": (first_in_two_splits, ("data_00000", "in train and in test")),
    "no folder of a split": (
        lambda root: shutil.rmtree(root / "val"),
        ("val", "Dataset/Validation"),
    ),
    "missing npz": (lambda root: (root / "train/data_00003.npz").unlink(), ("data_00003.npz",)),
    "truncated npz": (cut("train/data_00003.npz"), ("data_00003.npz", "truncated")),
    "empty npz": (
        lambda root: (root / "train/data_00003.npz").write_bytes(b""),
        ("data_00003.npz", "truncated"),
    ),
    "pickled npz": (pickled, ("data_00003.npz", "pickled")),
    "npz without a key": (
        archive(race=0, male=1, glaucoma=0),
        ("data_00003.npz", "no key 'hispanic'"),
    ),
    "npz with an array": (
        archive(race=[0, 1], male=1, hispanic=0, glaucoma=0),
        ("'race'", "2 values"),
    ),
    "npz with an unknown code": (
        archive(race=7, male=1, hispanic=0, glaucoma=0),
        ("data_00003.npz", "'race'", "'7'"),
    ),
    "sources disagree on race": (
        archive(race=2, male=1, hispanic=0, glaucoma=0),
        ("data_00003.npz", "'White'", "line 5", "'Asian'"),
    ),
    "sources disagree on glaucoma": (
        archive(race=0, male=1, hispanic=0, glaucoma=1),
        ("data_00003.npz", "line 5", "'non-glaucoma'"),
    ),
    "missing jpg": (
        lambda root: (root / "test/slo_fundus_00020.jpg").unlink(),
        ("1 of 24", "test/slo_fundus_00020.jpg"),
    ),
    "truncated jpg": (cut("test/slo_fundus_00020.jpg"), ("test/slo_fundus_00020.jpg", "truncated")),
    "level without a training subject": (
        lambda root: edit(
            root / "data_summary.csv",
            lambda frame: frame[(frame["race"] != "asian") | (frame["use"] != "training")],
        ),
        ("training", "race 'Asian'"),
    ),
}


def refusal(dataset: str, root: Path) -> str:
    """The line that reading ``root`` is refused with."""
    with pytest.raises(InputError) as caught:
        dataset_of(dataset).read(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("case", HAM_CASES)
def test_bad_ham10000_is_one_clear_line(ham: Path, case: str) -> None:
    change, words = HAM_CASES[case]
    change(ham)
    line = refusal("ham10000", ham)
    assert all(word in line for word in words), line


@pytest.mark.parametrize("case", FUNDUS_CASES)
def test_bad_fairgenmed_is_one_clear_line(fundus: Path, case: str) -> None:
    change, words = FUNDUS_CASES[case]
    change(fundus)
    line = refusal("fairgenmed", fundus)
    assert all(word in line for word in words), line


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert "nowhere: folder not found" in refusal("ham10000", tmp_path / "nowhere")


def test_unchecked_images_are_refused_when_read(ham: Path) -> None:
    cut("ISIC_00000.jpg")(ham)
    cohort = dataset_of("ham10000").read(ham, check_images=False)
    with pytest.raises(InputError, match=r"ISIC_00000\.jpg: truncated"):
        cohort.load_images(8)


def test_bytes_after_the_end_marker_do_no_harm(ham: Path) -> None:
    picture = ham / "ISIC_00000.jpg"
    picture.write_bytes(picture.read_bytes() + b"\0\0")
    assert len(dataset_of("ham10000").read(ham)) == 54
