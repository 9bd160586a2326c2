"""The simulator: its layout reads back as its truth, each knob changes what it names alone."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from fairdiff_lib.data.cohort import Cohort, square
from fairdiff_lib.data.reading import read_truth
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.sim import fundus
from fairdiff_lib.sim.fundus import (
    Eye,
    FundusPopulation,
    Subject,
    draw_subject,
    measure_cup_disc_ratio,
    render,
    simulate_fairgenmed,
)

SMALL = FundusPopulation(train=60, val=24, test=24, fundus_height=64, fundus_width=83)
CAMERA = {"noise", "defocus"}
# what heterogeneity may spread; conditions, camera and seeds are not among them
APPEARANCE = {
    "disc_x",
    "disc_y",
    "disc_radius",
    "disc_aspect",
    "melanin",
    "gain",
    "tint",
    "tilt",
    "tortuosity",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "data"
    simulate_fairgenmed(SMALL, path)
    return path


@pytest.fixture(scope="module")
def cohort(root: Path) -> Cohort:
    return dataset_of("fairgenmed_simulated").read(root)


def train(config: FundusPopulation, count: int) -> list[Subject]:
    return [draw_subject(config, "train", index) for index in range(count)]


def changed(a: Eye, b: Eye) -> set[str]:
    """Names of the fields in which two eyes differ."""
    return {f.name for f in dataclasses.fields(Eye) if getattr(a, f.name) != getattr(b, f.name)}


# --- files ---


def test_what_is_written_reads_back_as_drawn(cohort: Cohort) -> None:
    subjects = [
        draw_subject(SMALL, split, index)
        for split, count in (("train", 60), ("val", 24), ("test", 24))
        for index in range(count)
    ]
    for column in ("split", "race", "sex", "ethnicity", "md_severity", "cdr_status"):
        assert cohort.table[column].tolist() == [getattr(s, column) for s in subjects]
    assert cohort.table["se_status"].tolist() == [s.refraction for s in subjects]
    glaucoma = [{"yes": "glaucoma", "no": "non-glaucoma"}[s.glaucoma] for s in subjects]
    assert cohort.table["glaucoma"].tolist() == glaucoma
    assert (cohort.table["excluded"] == "").all()


def test_truth_belongs_to_the_image(cohort: Cohort, root: Path) -> None:
    truth = read_truth(root)
    assert truth.index.is_unique
    rows = truth.loc[cohort.table["image"]]
    bounds = {"normal": (0.25, 0.42), "borderline": (0.50, 0.60), "abnormal": (0.68, 0.88)}
    for ratio, status in zip(rows["cup_disc_ratio"], cohort.table["cdr_status"], strict=True):
        low, high = bounds[status]
        assert low <= ratio <= high
    assert rows["vessel_seed"].is_unique
    # drawn again from truth.csv alone, the picture is the one in the folder
    first = rows.iloc[0]
    subject = draw_subject(SMALL, "train", 0)
    assert first["disc_radius"] == subject.eye.disc_radius
    with Image.open(root / cohort.table["path"][0]) as stored:
        difference = np.asarray(stored, float) - render(subject.eye, 64, 83)
    assert np.abs(difference).mean() < 6  # JPEG's own error; another eye differs by over 20


def test_subjects_never_cross_splits(cohort: Cohort) -> None:
    assert cohort.table["subject"].is_unique
    names = [set(cohort.split(name).table["subject"]) for name in ("train", "val", "test")]
    assert sum(map(len, names)) == len(set.union(*names)) == len(cohort)


def test_archive_has_the_published_keys(root: Path) -> None:
    with np.load(root / "train" / "data_00001.npz", allow_pickle=False) as archive:
        assert archive["slo_fundus"].shape == (200, 200, 3)
        assert archive["oct_bscans"].shape == (0, 200, 200)
        assert {"race", "male", "hispanic", "maritalstatus", "language"} < set(archive.files)
    note = json.loads((root / "simulated.json").read_text())
    assert note["simulated"] is True
    assert note["simulator"]["difficulty_black"] == SMALL.difficulty_black


def test_a_larger_cohort_begins_with_the_same_bytes(
    root: Path, cohort: Cohort, tmp_path: Path
) -> None:
    larger = dataclasses.replace(SMALL, train=63, val=25)
    simulate_fairgenmed(larger, tmp_path / "larger")
    for path in cohort.table["path"]:
        assert (tmp_path / "larger" / path).read_bytes() == (root / path).read_bytes()


def test_another_seed_gives_other_eyes_in_the_same_groups() -> None:
    for a, b in zip(train(SMALL, 20), train(dataclasses.replace(SMALL, seed=1), 20), strict=True):
        assert (a.race, a.sex, a.ethnicity) == (b.race, b.sex, b.ethnicity)
        assert {"vessel_seed", "cup_disc_ratio", "disc_x"} <= changed(a.eye, b.eye)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no space")])
def test_a_stopped_simulation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    written: list[Subject] = []

    def fail_on_third(subject: Subject, folder: Path, height: int, width: int) -> None:
        written.append(subject)
        (folder / subject.name).write_text("half a dataset")
        if len(written) == 3:
            raise failure

    monkeypatch.setattr(fundus, "_write_subject", fail_on_third)
    expected = InputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        simulate_fairgenmed(SMALL, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
    if expected is InputError:
        assert "disk full" in str(caught.value) and "\n" not in str(caught.value)


# --- groups and knobs ---


@pytest.mark.parametrize(("split", "count"), [("train", 96), ("val", 24), ("test", 480)])
def test_group_sizes_follow_the_shares_in_every_split(split: str, count: int) -> None:
    subjects = [draw_subject(FundusPopulation(), split, index) for index in range(count)]
    races = Counter(s.race for s in subjects)
    assert races["Asian"] == pytest.approx(0.08 * count, abs=2)
    assert races["Black"] == pytest.approx(0.13 * count, abs=2)
    hispanic = sum(s.ethnicity == "Hispanic" for s in subjects)
    assert hispanic == pytest.approx(0.04 * count, abs=1.5) and hispanic >= 1


def test_size_knob_changes_the_shares_alone() -> None:
    many = dataclasses.replace(FundusPopulation(), share_black=0.4)
    pairs = list(zip(train(FundusPopulation(), 300), train(many, 300), strict=True))
    assert sum(b.race == "Black" for _, b in pairs) == pytest.approx(120, abs=3)
    for before, after in pairs:
        if before.race == after.race:
            assert before == after


def test_difficulty_knob_changes_the_camera_of_its_group_alone() -> None:
    easy = dataclasses.replace(FundusPopulation(), difficulty_black=1.0)
    hard = dataclasses.replace(easy, difficulty_black=3.0)
    for before, after in zip(train(easy, 200), train(hard, 200), strict=True):
        assert changed(before.eye, after.eye) == (CAMERA if before.race == "Black" else set())
        if before.race == "Black":
            assert after.eye.noise == pytest.approx(3 * before.eye.noise)


def test_difficulties_of_several_groups_multiply() -> None:
    config = dataclasses.replace(
        FundusPopulation(), share_hispanic=0.5, difficulty_black=3.0, difficulty_hispanic=2.0
    )
    found = {(s.race, s.ethnicity): s.difficulty for s in train(config, 200)}
    assert found["Black", "Hispanic"] == 6.0
    assert found["Black", "Non-Hispanic"] == 3.0
    assert found["White", "Hispanic"] == 2.0
    assert found["White", "Non-Hispanic"] == 1.0


def test_heterogeneity_knob_spreads_appearance_alone() -> None:
    config = dataclasses.replace(FundusPopulation(), share_black=0.5)
    varied = dataclasses.replace(config, heterogeneity_black=2.0)
    pairs = list(zip(train(config, 400), train(varied, 400), strict=True))
    for before, after in pairs:
        difference = changed(before.eye, after.eye)
        assert difference <= (APPEARANCE if before.race == "Black" else set())
    black = [(b.eye.gain, a.eye.gain) for b, a in pairs if b.race == "Black"]
    spread = np.std(black, axis=0)
    assert spread[1] == pytest.approx(2 * spread[0], rel=0.05)


def test_conditions_are_distributed_alike_in_every_group() -> None:
    config = dataclasses.replace(FundusPopulation(), share_asian=0.33, share_black=0.33)
    table = pd.DataFrame([dataclasses.asdict(s) for s in train(config, 2000)])
    glaucoma = table[table["glaucoma"] == "yes"]
    for column, level in (("cdr_status", "abnormal"), ("md_severity", "severe")):
        shares = (glaucoma[column] == level).groupby(glaucoma["race"]).mean()
        error = math.sqrt(0.25 / glaucoma["race"].value_counts().min())  # largest possible
        assert shares.max() - shares.min() < 4 * error
    abnormal = (table["cdr_status"] == "abnormal").groupby(table["glaucoma"]).mean()
    assert abnormal["yes"] > abnormal["no"] + 0.3  # conditions go together


def test_pigment_and_disc_size_vary_with_group() -> None:
    config = dataclasses.replace(FundusPopulation(), share_black=0.5)
    table = pd.DataFrame(
        [(s.race, s.eye.melanin, s.eye.disc_radius) for s in train(config, 300)],
        columns=["race", "melanin", "disc_radius"],
    )
    means = table.groupby("race").mean()
    assert means["melanin"]["Black"] > means["melanin"]["White"] + 0.3
    assert means["disc_radius"]["Black"] > means["disc_radius"]["White"] + 0.005


BAD_SETTINGS: dict[str, tuple[dict[str, float], str]] = {
    "share above 1": ({"share_asian": 1.5}, "share_asian"),
    "shares above 1": ({"share_asian": 0.6, "share_black": 0.6}, "share_asian + share_black"),
    "no difficulty": ({"difficulty_black": 0.0}, "difficulty_black"),
    "negative spread": ({"heterogeneity_asian": -1.0}, "heterogeneity_asian"),
    "no subject": ({"val": 0}, "val"),
    "too many subjects": ({"test": 30_000}, "test"),
    "tiny picture": ({"fundus_height": 8}, "fundus_height"),
    "upright picture": ({"fundus_width": 120}, "fundus_width"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_population_that_cannot_be_drawn_cannot_be_made(case: str) -> None:
    fields, word = BAD_SETTINGS[case]
    with pytest.raises(InputError) as caught:
        dataclasses.replace(FundusPopulation(), **fields)  # type: ignore[arg-type]
    assert word in str(caught.value) and "\n" not in str(caught.value)


# --- pictures ---


def pictures(eyes: list[Eye], size: int = 64) -> npt.NDArray[np.uint8]:
    """Eyes as the models see them.  # -> uint8 [n, 3, size, size]"""
    drawn = [square(Image.fromarray(render(eye, 256, 332)), size) for eye in eyes]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in drawn])


@pytest.fixture(scope="module")
def sample() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Pictures of 64 test subjects and their true ratios."""
    eyes = [draw_subject(FundusPopulation(), "test", index).eye for index in range(64)]
    return pictures(eyes), np.array([eye.cup_disc_ratio for eye in eyes])


def r_squared(measured: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> float:
    """Share of the truth's variance that is measured without any calibration."""
    return float(1 - np.square(measured - truth).sum() / np.square(truth - truth.mean()).sum())


def test_ratio_is_read_from_the_picture(
    sample: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]],
) -> None:
    images, truth = sample
    assert r_squared(measure_cup_disc_ratio(images), truth) > 0.95


def test_ratio_is_read_from_a_blurred_picture(
    sample: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]],
) -> None:
    images, truth = sample
    blurred = ndimage.gaussian_filter(images.astype(np.float64), (0, 0, 1.5, 1.5))
    measured = measure_cup_disc_ratio(blurred.round().astype(np.uint8))
    assert r_squared(measured, truth) > 0.75


def test_measuring_depends_on_the_picture_alone(
    sample: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sample[0]
    together = measure_cup_disc_ratio(images)
    order = np.random.default_rng(0).permutation(len(images))[:40]
    monkeypatch.setattr(fundus, "_CHUNK", 9)
    assert np.array_equal(measure_cup_disc_ratio(images[order]), together[order])


def test_no_disc_is_nan() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 3, 64, 64)).astype(np.uint8)
    blank = np.full((1, 3, 64, 64), 120, np.uint8)
    assert np.isnan(measure_cup_disc_ratio(np.concatenate([noise, blank]))).all()
    assert measure_cup_disc_ratio(noise[:0]).shape == (0,)


def test_damage_darkens_and_ratio_moves_nothing_but_the_cup() -> None:
    eye = dataclasses.replace(
        draw_subject(FundusPopulation(), "train", 0).eye, loss=0.0, crescent=0.0, ring=0.0
    )
    healthy = render(eye, 128, 166).astype(float)
    damaged = render(dataclasses.replace(eye, loss=1.0), 128, 166).astype(float)
    assert damaged.mean() < 0.9 * healthy.mean()
    cupped = render(dataclasses.replace(eye, cup_disc_ratio=0.85), 128, 166).astype(float)
    differs = np.abs(cupped - healthy).max(axis=2) > 24
    rows, columns = np.nonzero(differs)
    reach = np.hypot(rows / 128 - eye.disc_y, (columns / 166 - eye.disc_x) * 166 / 128)
    assert differs.any() and reach.max() < 1.15 * eye.disc_radius


def test_a_mirrored_eye_is_the_mirrored_picture() -> None:
    eye = dataclasses.replace(
        draw_subject(FundusPopulation(), "train", 0).eye,
        disc_x=0.5,
        noise=0.0,
        crescent=1.0,
        tilt=(0.0, 0.0),
        cup_shift=(0.0, 0.0),
        left_eye=True,
    )
    # the choroid's texture is not mirrored: compare blurred pictures
    left = ndimage.gaussian_filter(render(eye, 128, 166).astype(float), (3, 3, 0))
    right = render(dataclasses.replace(eye, left_eye=False), 128, 166).astype(float)
    mirrored = ndimage.gaussian_filter(right[:, ::-1], (3, 3, 0))
    assert np.abs(left - mirrored).mean() < 0.4 * np.abs(left - mirrored[:, ::-1]).mean()
