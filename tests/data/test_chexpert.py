"""CheXpert's reader: patients are sampled and stay in one split, bad input is one clear line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.data import chexpert
from fairdiff_lib.data.chexpert import (
    FINDINGS,
    LISTS,
    WITH,
    WITHOUT,
    WORKBOOK,
    read_races,
    sample_patients,
)
from fairdiff_lib.data.cohort import flow_table
from fairdiff_lib.data.reading import OUTSIDE
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.places import Places
from fairdiff_lib.run.cli import main
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.study import Study

RACES = (
    "White, non-Hispanic",
    "Asian",
    "Black or African American",
    "White",
    "Asian, non-Hispanic",
    "Black, non-Hispanic",
    "Other",
)
EFFUSION = ("1.0", "0.0", "", "-1.0", "1.0")


def write_jpeg(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 20, 3), shade, np.uint8)).save(path)


def release_row(patient: int, study: int, view: str, folder: str) -> dict[str, str]:
    """A row of train.csv or valid.csv as the public release has it."""
    return {
        "Path": f"CheXpert-v1.0-small/{folder}/patient{patient:05d}/study{study}/{view}.jpg",
        "Sex": ("Female", "Male")[patient % 2],
        "Age": str(40 + patient % 40),
        "Frontal/Lateral": "Lateral" if "lateral" in view else "Frontal",
        "AP/PA": "" if "lateral" in view else "AP",
        **{name: ("1.0", "", "0.0")[(patient + k) % 3] for k, name in enumerate(FINDINGS)},
        "Pleural Effusion": EFFUSION[(patient // 7 + study) % 5],
    }


@pytest.fixture(scope="session")
def release_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 patients, every fifth with two studies and every fourth with a lateral view."""
    root = tmp_path_factory.mktemp("chexpert")
    rows: dict[str, list[dict[str, str]]] = {"train": [], "valid": []}
    for patient in range(1, 141):
        folder = "valid" if patient > 130 else "train"
        rows[folder].append(release_row(patient, 1, "view1_frontal", folder))
        if patient % 5 == 0:
            rows[folder].append(release_row(patient, 2, "view1_frontal", folder))
        if patient % 4 == 0:
            rows[folder].append(release_row(patient, 1, "view2_lateral", folder))
    for folder, found in rows.items():
        pd.DataFrame(found).to_csv(root / f"{folder}.csv", index=False)
        for number, row in enumerate(found):
            write_jpeg(root / row["Path"].partition("/")[2], 40 + number)
    patients = range(1, 139)  # two are in no workbook
    frame = pd.DataFrame(
        {
            "PATIENT": [f"patient{n:05d}" for n in patients],
            "GENDER": [("Female", "Male")[n % 2] for n in patients],
            "AGE_AT_CXR": [40 + n % 40 for n in patients],
            "PRIMARY_RACE": [RACES[n % 7] for n in patients],
            "ETHNICITY": "Non-Hispanic/Non-Latino",
        }
    )
    frame.to_excel(root / WORKBOOK, index=False)
    return root


@pytest.fixture
def release(release_source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release_source, tmp_path / "chexpert"))


@pytest.fixture(scope="session")
def lists_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sampled lists: 25 columns, of which the study's are known by their place."""
    root = tmp_path_factory.mktemp("lists")
    for start, (_, name) in zip((0, 100, 200), LISTS.items(), strict=True):
        rows = []
        for n in range(start, start + 24):
            file = f"patient{n:05d}_study1_view1.jpg"
            cells = [str(n), "x", "40", ("Female", "Male")[n % 2], "AP"]
            cells += [("Asian", "Black", "White")[n % 3], "Non-Hispanic", "", ""]
            cells += [("1.0", "", "0.0")[(n // 2 + k) % 3] for k in range(14)]
            cells += ["", file]
            cells[19] = EFFUSION[n % 5]
            rows.append(cells)
            write_jpeg(root / "Chexpert_sample_512" / file, n % 200 + 20)
        frame = pd.DataFrame(rows, columns=[f"c{k}" for k in range(25)])
        frame.to_csv(root / name, index=False)
    return root


@pytest.fixture
def lists(lists_source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lists_source, tmp_path / "lists"))


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change a table of text cells in place, CSV or workbook."""
    if path.suffix == ".xlsx":
        change(pd.read_excel(path, dtype=str)).to_excel(path, index=False)
    else:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        change(frame).to_csv(path, index=False)


def put(name: str, column: str, row: int, value: str) -> Callable[[Path], None]:
    """A change that sets one cell."""

    def change(root: Path) -> None:
        def cell(frame: pd.DataFrame) -> pd.DataFrame:
            frame.loc[row, column] = value
            return frame

        edit(root / name, cell)

    return change


# --- the public release ---


def test_prompt_is_the_published_one() -> None:
    row = {"race": "Asian", "sex": "Female", "effusion": WITHOUT}
    assert dataset_of("chexpert_simulated").spec().prompt(row) == (
        "Chest Radiography image of a Female Asian patient diagnosed with non Pleural Effusion"
    )


def test_release_gives_one_frontal_image_per_patient(release: Path) -> None:
    cohort = dataset_of("chexpert").read(release)
    table = cohort.included().table
    # of 138 patients with a race, every seventh is of a race without a level
    assert len(table) == 138 - 138 // 7
    assert table["subject"].is_unique
    assert table["image"].str.endswith("frontal").all()
    number = table["subject"].str.removeprefix("patient").astype(int)
    assert table["sex"].tolist() == [("Female", "Male")[n % 2] for n in number]
    assert table["race"].tolist() == [RACES[n % 7].split(",")[0].split()[0] for n in number]
    study = table["image"].str.extract(r"study(\d)")[0].astype(int)
    found = [EFFUSION[(n // 7 + s) % 5] == "1.0" for n, s in zip(number, study, strict=True)]
    assert table["effusion"].tolist() == [WITH if ill else WITHOUT for ill in found]
    assert (study == 2).any()  # a patient's image is not always the first


def test_who_left_is_counted_with_the_reason(release: Path) -> None:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        only_lateral = frame["Path"].str.contains("patient00003/")
        frame.loc[only_lateral, "Frontal/Lateral"] = "Lateral"
        return frame

    edit(release / "train.csv", change)
    (release / "train" / "patient00006" / "study1" / "view1_frontal.jpg").unlink()  # not asked for
    cohort = dataset_of("chexpert").read(release)
    flow = flow_table(cohort)
    overall = flow[flow["attribute"] == "overall"].set_index("step")["subjects"].to_dict()
    assert overall == {
        "in the data": 140,
        "left: race unknown": 138 // 7,
        "left: not in CHEXPERT DEMO.xlsx": 2,
        "left: no frontal image": 1,
        "in the study": 138 - 138 // 7 - 1,
    }
    for step, part in flow.groupby("step"):
        for attribute, own in part.groupby("attribute"):
            assert own["subjects"].sum() == overall[str(step)], (step, attribute)
    assert set(cohort.table.loc[cohort.table["excluded"] != "", "split"]) == {OUTSIDE}


def test_a_patient_is_found_whatever_blanks_the_workbook_has(release: Path) -> None:
    before = dataset_of("chexpert").read(release)

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame["PATIENT"] = [f" {p}" if n % 3 else f"{p} " for n, p in enumerate(frame["PATIENT"])]
        return frame

    edit(release / WORKBOOK, change)
    after = dataset_of("chexpert").read(release)
    assert after.table.equals(before.table) and after.data_hash == before.data_hash
    for spelt in ("Patient{}", "PATIENT {:05d}", "{}", "{}.0"):
        edit(release / WORKBOOK, lambda frame, spelt=spelt: frame.assign(
            PATIENT=[spelt.format(n + 1) for n in range(len(frame))]))  # fmt: skip
        assert dataset_of("chexpert").read(release).table.equals(before.table)


def test_splits_have_the_published_proportions_and_every_stratum(release: Path) -> None:
    table = dataset_of("chexpert").read(release).included().table
    sizes = table["split"].value_counts()
    assert sizes.to_dict() == {"train": 71, "val": 12, "test": 36}
    strata = table.groupby(["race", "sex", "effusion"])["split"].value_counts().unstack()
    share = strata["train"] / strata.sum(axis=1)
    assert (strata["train"] - 0.6 * strata.sum(axis=1)).abs().max() <= 1, share


def test_a_large_release_gives_the_published_numbers() -> None:
    rng = np.random.default_rng(0)
    n = 15_000
    table = pd.DataFrame(
        {
            "subject": [f"patient{k:05d}" for k in range(n)],
            "race": rng.choice(["Asian", "Black", "White"], n, p=[0.1, 0.05, 0.85]),
            "sex": rng.choice(["Female", "Male"], n),
            "effusion": rng.choice([WITH, WITHOUT], n),
        }
    )
    chosen = sample_patients(table, 3)
    assert chosen["split"].value_counts().to_dict() == {"train": 6000, "test": 3000, "val": 1000}
    before = table.groupby(["race", "sex", "effusion"]).size() / n
    for split, size in chosen["split"].value_counts().items():
        own = chosen[chosen["split"] == split].groupby(["race", "sex", "effusion"]).size()
        assert (own - size * before).abs().max() <= 1.5
    other = sample_patients(table.sample(frac=1, random_state=1), 3)
    assert set(map(tuple, other[["subject", "split"]].to_numpy())) == set(
        map(tuple, chosen[["subject", "split"]].to_numpy())
    )
    assert set(sample_patients(table, 4)["subject"]) != set(chosen["subject"])


def test_uncertain_labels_follow_the_policy(release: Path) -> None:
    zeros, ones, drop = (
        dataset_of("chexpert")
        .read(release, coding=coding)
        .included()
        .table.set_index("image")["effusion"]
        for coding in ("zeros", "ones", "drop")
    )
    default = dataset_of("chexpert").read(release).included().table.set_index("image")["effusion"]
    assert default.equals(zeros)
    changed = zeros.index[zeros != ones.reindex(zeros.index)]
    assert len(changed) > 10 and (zeros[changed] == WITHOUT).all() and (ones[changed] == WITH).all()
    assert not set(changed) & set(drop.index)
    with pytest.raises(InputError, match="unknown coding 'maybe'; known: default, drop, ones"):
        dataset_of("chexpert").read(release, coding="maybe")


def test_all_findings_are_conditions_and_the_prompt_names_one(release: Path) -> None:
    spec, table = dataset_of("chexpert").spec(), dataset_of("chexpert").read(release).table
    assert len(spec.conditions) == 14 and spec.conditions[0].name == spec.primary_condition
    assert [condition.name for condition in spec.prompted] == ["effusion"]
    number = table["subject"].str.removeprefix("patient").astype(int)
    for k, finding in enumerate(FINDINGS):
        if finding != WITH:
            there = [level == finding for level in table[chexpert.NAMES[finding]]]
            assert there == [(n + k) % 3 == 0 for n in number]


def test_an_uncertain_finding_of_any_kind_is_dropped_with_its_image(release: Path) -> None:
    put("train.csv", "Fracture", 6, "-1.0")(release)  # of patient 5's first study, and only it
    kept = {coding: set(dataset_of("chexpert").read(release, coding=coding).table["image"])
            for coding in ("ones", "drop")}  # fmt: skip
    row = pd.read_csv(release / "train.csv").loc[6, "Path"]
    image = "_".join(row.removesuffix(".jpg").split("/")[2:])
    assert image in kept["ones"] and image not in kept["drop"]


def test_the_policy_is_a_setting_and_moves_the_folders_of_its_dataset_alone(
    release: Path, tmp_path: Path
) -> None:
    usual = load_settings("smoke", "chexpert")
    ones = load_settings("smoke", "chexpert", {"reading.coding": "ones"})
    layouts = [Places(s, str(release), str(tmp_path), str(tmp_path)) for s in (usual, ones)]
    assert layouts[0].cohort != layouts[1].cohort and layouts[0].base != layouts[1].base
    share = [
        (Study(s, one).cohort.table["effusion"] == WITH).mean()
        for s, one in zip((usual, ones), layouts, strict=True)
    ]
    assert share[1] > share[0] + 0.1
    for dataset, known in (("fairgenmed", "default"), ("ham10000", "default, medfair")):
        with pytest.raises(InputError, match=f"{dataset} has no such coding; expected {known}$"):
            load_settings("smoke", dataset, {"reading.coding": "ones"})


def test_release_may_lie_below_its_own_name(release: Path, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    for path in release.glob("*.*"):
        shutil.copy(path, above)
    shutil.move(release, above / "CheXpert-v1.0-small")
    assert len(dataset_of("chexpert").read(above).included()) == 119


def test_workbook_words_and_contradictions(tmp_path: Path) -> None:
    path = tmp_path / WORKBOOK
    words = [
        "Asian - Historical Conv",
        "Pacific Islander, non-Hispanic",
        "White, Hispanic",
        "White",
    ]
    frame = pd.DataFrame({"PATIENT": ["a", "b", "c", "c"], "PRIMARY_RACE": words})
    frame.to_excel(path, index=False)
    races, before = read_races(path)
    assert races == {"a": "Asian", "b": "unknown", "c": "White"}
    path.unlink()
    frame.to_excel(path, index=False)  # saved at another time
    assert read_races(path)[1] == before
    frame.assign(PRIMARY_RACE=[*words[:3], "Black"]).to_excel(path, index=False)
    races, after = read_races(path)
    assert races["c"] == "unknown" and after != before


# --- the sampled lists ---


def test_lists_are_read_by_place_and_by_name(lists: Path) -> None:
    by_place = dataset_of("chexpert").read(lists)
    assert by_place.table["split"].value_counts().tolist() == [24, 24, 24]
    number = by_place.table["subject"].str.removeprefix("patient").astype(int)
    assert by_place.table["race"].tolist() == [("Asian", "Black", "White")[n % 3] for n in number]
    expected = [WITH if EFFUSION[n % 5] == "1.0" else WITHOUT for n in number]
    assert by_place.table["effusion"].tolist() == expected
    names = {"c3": "Sex", "c5": "PRIMARY_RACE", "c24": "file_name"}
    names |= {f"c{9 + k}": finding for k, finding in enumerate(FINDINGS)}
    for name in LISTS.values():
        # shuffled, so that only the names can tell
        edit(lists / name, lambda f: f.rename(columns=names)[sorted(names.values())])
    assert dataset_of("chexpert").read(lists).table.equals(by_place.table)


def test_lists_leave_lateral_views_out(lists: Path) -> None:
    name = LISTS["test"]
    file = "patient00223_study1_view1_lateral.jpg"
    put(name, "c24", 23, file)(lists)
    assert len(dataset_of("chexpert").read(lists)) == 71


def test_of_several_listed_films_of_a_patient_one_is_taken(lists: Path) -> None:
    name, known = LISTS["train"], dataset_of("chexpert").read(lists).table
    row = int(np.flatnonzero(known["subject"] == "patient00003")[0])
    put(name, "c24", 4, "patient00003_study2_view1.jpg")(lists)  # of patient 4 before
    put(name, "c19", 4, "1.0" if known["effusion"][row] == WITHOUT else "0.0")(lists)
    shutil.copy(lists / "Chexpert_sample_512/patient00004_study1_view1.jpg",
                lists / "Chexpert_sample_512/patient00003_study2_view1.jpg")  # fmt: skip
    table = dataset_of("chexpert").read(lists).table
    assert len(table) == 71 and not table["subject"].duplicated().any()
    put(name, "c5", 3, "Other")(lists)  # a film that can't be used gives way to one that can
    kept = dataset_of("chexpert").read(lists).table.set_index("subject").loc["patient00003"]
    assert kept["image"] == "patient00003_study2_view1"


# --- bad input ---


def drop_column(name: str, column: str) -> Callable[[Path], None]:
    return lambda root: edit(root / name, lambda frame: frame.drop(columns=column))


def remove_images(root: Path) -> None:
    for path in sorted((root / "train").glob("*/study1/view1_frontal.jpg"))[:20]:
        path.unlink()


def no_race(root: Path) -> None:
    edit(root / WORKBOOK, lambda frame: frame.assign(PRIMARY_RACE="2"))


RELEASE_CASES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no train.csv": (lambda root: (root / "train.csv").unlink(), ("no train.csv",)),
    "no valid.csv": (lambda root: (root / "valid.csv").unlink(), ("valid.csv: missing",)),
    "other columns": (
        drop_column("train.csv", "Frontal/Lateral"),
        ("train.csv", "Frontal/Lateral"),
    ),
    "no effusion column": (drop_column("valid.csv", WITH), ("valid.csv", WITH)),
    "no column of a finding": (drop_column("train.csv", "Edema"), ("train.csv", "Edema")),
    "unknown label": (put("train.csv", WITH, 2, "2"), ("line 4", WITH, "'2'", "1, 0")),
    "unknown sex": (put("train.csv", "Sex", 2, "x"), ("line 4", "'Sex'", "'x'", "female, male")),
    "odd path": (put("train.csv", "Path", 2, "a/b.png"), ("line 4", "'Path'", "'a/b.png'")),
    "image twice": (
        lambda root: edit(root / "train.csv", lambda f: pd.concat([f, f.head(1)])),
        ("train.csv", "duplicate", "first on line 2"),
    ),
    "no workbook": (lambda root: (root / WORKBOOK).unlink(), (f"{WORKBOOK}: missing",)),
    "no workbook's bytes": (
        lambda root: (root / WORKBOOK).write_text("PATIENT,PRIMARY_RACE\n"),
        (WORKBOOK, "not readable as an Excel workbook"),
    ),
    "workbook without patients": (
        drop_column(WORKBOOK, "PATIENT"),
        (WORKBOOK, "no column 'PATIENT'", "found GENDER, AGE_AT_CXR, PRIMARY_RACE"),
    ),
    "races in numbers": (no_race, ("no frontal image", WORKBOOK, "Asian, Black or White")),
    "absent images": (remove_images, ("of 119 expected files are missing", "train/patient000")),
    "truncated image": (
        lambda root: [path.write_bytes(b"\xff\xd8") for path in root.glob("valid/*/*/*.jpg")],
        ("truncated or not pictures", "valid/patient"),
    ),
}
LIST_CASES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "two splits": (
        put(LISTS["test"], "c24", 4, "patient00003_study2_view1.jpg"),
        (LISTS["test"], "line 6", "'patient00003'", LISTS["train"]),
    ),
    "a list is absent": (
        lambda root: (root / LISTS["val"]).unlink(),
        (f"{LISTS['val']}: missing",),
    ),
    "few columns": (drop_column(LISTS["val"], "c24"), (LISTS["val"], "'filename'", "24 columns")),
    "another finding in its place": (
        lambda root: edit(
            root / LISTS["val"],
            lambda f: f.rename(columns={f"c{9 + k}": x for k, x in enumerate(FINDINGS) if k}).drop(
                columns="c9"
            ),
        ),
        (LISTS["val"], "no column 'no finding', and column 9", repr(FINDINGS[1])),
    ),
    "shifted columns": (
        lambda root: edit(root / LISTS["val"], lambda f: f[["c0", *f.columns]]),
        (LISTS["val"], "line 2", "'c23'"),
    ),
    "no header": (
        lambda root: edit(root / LISTS["val"], lambda f: f.rename(columns={"c3": "Female"})),
        (LISTS["val"], "line 1", "column names"),
    ),
    "races in numbers": (
        lambda root: edit(root / LISTS["train"], lambda f: f.assign(c5="0")),
        (LISTS["train"], "'c5'", "'0'", "Asian, Black or White"),
    ),
    "odd file": (put(LISTS["val"], "c24", 0, "a.jpg"), (LISTS["val"], "line 2", "'a.jpg'")),
    "file twice": (
        put(LISTS["val"], "c24", 1, "patient00100_study1_view1.jpg"),
        ("duplicate", "line 3", "line 2"),
    ),
    "absent images": (
        lambda root: shutil.rmtree(root / "Chexpert_sample_512"),
        ("72 of 72", "Chexpert_sample_512/patient00000_study1_view1.jpg"),
    ),
}


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        dataset_of("chexpert").read(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("case", RELEASE_CASES)
def test_bad_release_is_one_clear_line(release: Path, case: str) -> None:
    change, words = RELEASE_CASES[case]
    change(release)
    line = refusal(release)
    assert all(word in line for word in words), line


@pytest.mark.parametrize("case", LIST_CASES)
def test_bad_lists_are_one_clear_line(lists: Path, case: str) -> None:
    change, words = LIST_CASES[case]
    change(lists)
    line = refusal(lists)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        ("release", "other columns"),
        ("release", "workbook without patients"),
        ("release", "absent images"),
        ("lists", "two splits"),
    ],
)
def test_the_command_line_says_it_in_one_line_and_leaves_nothing(
    kind: str,
    case: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root: Path = request.getfixturevalue(kind)
    change, words = (RELEASE_CASES if kind == "release" else LIST_CASES)[case]
    change(root)
    places = {"runs_root": tmp_path / "runs", "figures_root": tmp_path / "figures"}
    command = ["notebook", "01", "--preset", "smoke", "--dataset", "chexpert"]
    command += ["--data-root", str(root), "--output", str(tmp_path / "copy.ipynb")]
    command += [word for name, place in places.items() for word in ("-p", name, str(place))]
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0] == "fairdiff: [chexpert] 01_cohorts: started"
    assert lines[1].startswith("fairdiff: 01_cohorts: ")
    assert all(word in lines[1] for word in words), lines[1]
    assert not any(place.exists() for place in places.values())


def test_every_published_name_of_a_level_is_in_the_spec() -> None:
    spec = dataset_of("chexpert").spec()
    assert {*chexpert._RACE.values()} == set(spec.levels("race"))
    assert spec.levels("effusion") == (WITHOUT, WITH)
