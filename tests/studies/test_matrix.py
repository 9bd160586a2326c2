"""The downstream matrix: nested shares, real balance, equal steps, what pretraining hands over."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fairdiff_lib.classify import runs
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import write_table
from fairdiff_lib.run.cli import main
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show import words_studies as sentences_matrix
from fairdiff_lib.show.figures import matrix as figures_matrix
from fairdiff_lib.show.front import Nothing
from fairdiff_lib.studies import matrix as matrix_study
from fairdiff_lib.studies import plans
from fairdiff_lib.studies.matrix import Matrix, share_rows
from fairdiff_lib.studies.plans import ARMS, MatrixRun, folder_of, matrix_runs
from fairdiff_lib.study import Study

OVERRIDES = {"methods": "none", "classifiers": "efficientnet", "matrix.balance": "sex"}


def train_of(study: Study) -> Cohort:
    return study.cohort.included().split("train")


def write_images(folder: Path, names: list[str], images: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{name}.png")
    write_table(pd.DataFrame({"image": names}), folder / "manifest.csv")


class Drawer:
    """Stands in for ``sample.generate``: draws the training row that a name ends in."""

    def __init__(self, train: Cohort) -> None:
        self.images = dict(zip(train.table["image"], train.load_images(32), strict=True))
        self.asked: list[str] = []  # prompts

    def __call__(
        self, study: Any, names: list[str], prompts: list[str], method: str, seed: int, split: str
    ) -> int:
        self.asked = prompts
        images = [self.images[name.split("-", 1)[1]] for name in names]
        write_images(study.places.generated(method, seed) / split, names, images)
        return len(names)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A smoke study whose method "generated" the real images, each a little darker."""
    changed = " ".join(f"{key}={value}" for key, value in OVERRIDES.items())
    made = Study.open("smoke", overrides=changed, runs_root=str(tmp_path_factory.mktemp("runs")))
    for split in ("train", "test"):
        part = made.cohort.included().split(split)
        dark = (part.load_images(32) * 0.9).astype(np.uint8)
        write_images(made.places.generated("none", 0) / split, part.table["image"].tolist(), dark)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix_study, "generate", Drawer(train_of(made)))
        yield made


@pytest.fixture(scope="module")
def result(study: Study) -> matrix_study.MatrixResult:
    """Every run of the matrix, fitted."""
    return matrix_study.measure_matrix(study)


def matrix_of(study: Study, **changes: Any) -> Matrix:
    """The study's matrix with other settings of it."""
    own = dataclasses.replace(study.settings.matrix, **changes)
    return Matrix(study.with_settings(dataclasses.replace(study.settings, matrix=own)))


# -- what is drawn ---------------------------------------------------------------------------


def test_a_smaller_share_lies_within_the_larger_and_keeps_the_prevalence(study: Study) -> None:
    train, primary = train_of(study), study.cohort.spec.primary_condition
    for seed in (0, 1):
        half, most, whole = (set(share_rows(train, share, seed)) for share in (0.5, 0.8, 1.0))
        assert half < most < whole == set(range(len(train)))
    prevalence = (train.table[primary] == "glaucoma").mean()
    drawn = train.table.iloc[share_rows(train, 0.5, 0)]
    assert abs((drawn[primary] == "glaucoma").mean() - prevalence) < 1 / len(drawn)
    assert set(share_rows(train, 0.5, 0)) != set(share_rows(train, 0.5, 1))


def test_a_share_takes_all_images_of_a_subject_or_none(study: Study) -> None:
    table = train_of(study).table.copy()
    table["subject"] = [f"s{row // 3}" for row in range(len(table))]  # three images each
    primary = study.cohort.spec.primary_condition
    table[primary] = table.groupby("subject")[primary].transform("first")
    train = dataclasses.replace(train_of(study), table=table)
    counts = table.iloc[share_rows(train, 0.5, 0)]["subject"].value_counts()
    assert set(counts) == {3} and 0.4 < len(counts) / table["subject"].nunique() < 0.6


@pytest.mark.parametrize("attribute", ["race", "sex", "ethnicity"])
def test_balanced_prompts_have_every_level_equally_often(study: Study, attribute: str) -> None:
    train = train_of(study)
    drawn = matrix_study.balanced_part(train, attribute, 0)
    counts = drawn.table[attribute].value_counts()
    assert len(drawn) == len(train) and counts.max() - counts.min() <= 1
    assert counts.min() > 0 and drawn.table["image"].is_unique
    before = train.table[attribute].value_counts()
    if attribute != "sex":
        assert before.max() > 3 * before.min(), "nothing to balance"
    level = before.index[0]  # conditions within a level as they are
    shares = [
        (part.table.loc[part.table[attribute] == level, "glaucoma"] == "glaucoma").mean()
        for part in (train, drawn)
    ]
    assert abs(shares[0] - shares[1]) < 0.25


def test_what_is_balanced_over_is_decided_by_the_training_split(study: Study) -> None:
    free = load_settings("smoke", overrides={"matrix.balance": ""})
    assert matrix_study.balanced_over(study.settings, train_of(study)) == "sex"
    subjects = train_of(study).table
    ratios = {
        name: subjects[name].value_counts().max() / subjects[name].value_counts().min()
        for name in study.cohort.attribute_levels
    }
    assert matrix_study.balanced_over(free, train_of(study)) == max(ratios, key=lambda x: ratios[x])


def test_generators_are_shared_where_there_are_fewer_of_them() -> None:
    settings = load_settings("smoke", overrides={"matrix.seeds": "3,5,9", "seeds": "0,1"})
    assert [plans.generator_seed(settings, seed) for seed in (3, 5, 9)] == [0, 1, 0]
    note = matrix_study.generator_note(settings)
    assert note.startswith("2 generators (Stable Diffusion) behind 3 ")


def test_folders_tell_apart_what_a_run_depends_on(study: Study) -> None:
    places, every = study.places, plans.matrix_runs(study.settings.matrix)
    assert len({folder_of(places, run, "sex") for run in every}) == len(every) == 4 * 2 + 2
    run = MatrixRun("real_and_balanced", 0.5, 0)
    assert folder_of(places, run, "race") != folder_of(places, run, "sex")
    # other shares and seeds of the matrix leave a run, and the main study's records, where they are
    wider = load_settings("smoke", overrides=OVERRIDES | {"matrix.shares": "0.2,0.5,1"})
    other = dataclasses.replace(places, settings=wider)
    assert folder_of(other, run, "sex") == folder_of(places, run, "sex")
    assert other.records == places.records and other.matrix != places.matrix


# -- what is fitted --------------------------------------------------------------------------


def test_every_run_has_equally_many_steps_of_equal_size(
    study: Study, result: matrix_study.MatrixResult
) -> None:
    loop = study.settings.efficientnet.loop
    assert set(result.cost["steps"]) == {loop.steps} and set(result.cost["batch"]) == {loop.batch}
    assert set(result.cost["arm"]) == set(ARMS)
    summary = matrix_study.cost_summary(result.cost).set_index(["arm", "share"])
    assert summary.loc[("real", 0.5), "real_images"] == pytest.approx(48, abs=1)
    assert summary.loc[("real_and_synthetic", 1.0), "real_shown"] == 0.5
    assert summary.loc[("pretrain_then_real", 0.5), "real_shown"] == 0.5
    assert summary.loc[("synthetic", 0.0), "real_shown"] == 0
    uneven = result.cost.copy()
    uneven.loc[3, "steps"] += 1
    with pytest.raises(InputError, match=r"took 13 steps of 16 images; expected 12 of 16"):
        matrix_study.refuse_unequal(uneven)


def test_all_real_images_give_the_classifier_of_07(
    study: Study, result: matrix_study.MatrixResult
) -> None:
    """One path: the same images, seed and steps are the same probabilities."""
    known = runs.read_run(study, "real", 0, "efficientnet")
    found = result.predictions[MatrixRun("real", 1.0, 0)]
    pd.testing.assert_frame_equal(found, known.test)


def test_finetuning_starts_from_the_weights_of_pretraining(study: Study) -> None:
    """With a learning rate of almost nothing, what comes out is what pretraining left."""
    loop = dataclasses.replace(study.settings.efficientnet.loop, learning_rate=1e-12)
    still = dataclasses.replace(study.settings.efficientnet, loop=loop)
    images, labels = train_of(study).load_images(32)[:32], train_of(study).condition_codes()[:32]
    levels, held = study.cohort.condition_levels, matrix_of(study).held

    def fit(seed: int, initial: Classifier | None, name: str) -> Classifier:
        folder = Path(study.places.records) / name
        return runs.fit_on(images, labels, levels, held, still, seed, folder, initial)

    first = fit(0, None, "a")
    kept = {name: value.clone() for name, value in first.module.state_dict().items()}
    second, fresh = fit(5, first, "b"), fit(5, None, "c")
    weights = [name for name, _ in first.module.named_parameters()]
    for name in weights:
        torch.testing.assert_close(second.module.state_dict()[name], kept[name])
        torch.testing.assert_close(first.module.state_dict()[name], kept[name])
    assert any(not torch.equal(fresh.module.state_dict()[n], kept[n]) for n in weights)
    wide = dataclasses.replace(still, width_coefficient=0.3)
    with pytest.raises(InputError, match=r"initial classifier: width_coefficient is 0.25; expec"):
        runs.fit_on(images, labels, levels, held, wide, 0, Path("x"), first)


def test_the_pretrained_arm_hands_its_weights_over(
    study: Study, result: matrix_study.MatrixResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, bool]] = []
    real_fit = matrix_study.fit_on

    def spy(images: Any, labels: Any, levels: Any, held: Any, config: Any, *rest: Any) -> Any:
        seen.append((len(images), config.loop.steps, rest[2] is not None))
        return real_fit(images, labels, levels, held, config, *rest)

    monkeypatch.setattr(matrix_study, "fit_on", spy)
    matrix = matrix_of(study, shares=(0.7, 1.0))
    matrix.predictions(MatrixRun("pretrain_then_real", 0.7, 0))
    count = len(share_rows(train_of(study), 0.7, 0))
    assert seen == [(len(train_of(study)), 6, False), (count, 6, True)]


def test_a_killed_study_goes_on_without_fitting_twice(
    study: Study, result: matrix_study.MatrixResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder is lost: its run alone is fitted again, to the same numbers."""
    run = MatrixRun("synthetic", 0.0, 0)
    before, lost = matrix_of(study).predictions(run), folder_of(study.places, run, "sex")
    (lost / "run.json").unlink()
    fitted: list[Path] = []
    real_write = matrix_study.write_fit

    def spy(folder: Path, *rest: Any, **notes: Any) -> None:
        fitted.append(folder)
        real_write(folder, *rest, **notes)

    monkeypatch.setattr(matrix_study, "write_fit", spy)
    matrix = matrix_of(study)
    after = {run: matrix.predictions(run) for run in matrix_runs(study.settings.matrix)}
    assert fitted == [lost]
    pd.testing.assert_frame_equal(after[run], before)


def test_one_job_makes_all_shares_of_an_arm(
    study: Study, result: matrix_study.MatrixResult
) -> None:
    made = matrix_study.make_runs(study, "real", 0)
    assert [run["share"] for run in made] == [0.5, 1.0]
    with pytest.raises(InputError, match="unknown arm of the matrix 'fake'"):
        matrix_study.make_runs(study, "fake", 0)


# -- tables, pictures, sentences -------------------------------------------------------------


def test_the_tables_hold_every_arm_and_its_change(result: matrix_study.MatrixResult) -> None:
    table, changes = result.table, result.changes
    assert set(table["metric"]) == set(matrix_study.METRICS)
    assert set(table.loc[table["method"] == "real", "share"]) == {0.5, 1.0}
    assert set(table.loc[table["method"] == "synthetic", "share"]) == {0.0}
    assert set(changes["metric"]) == {"auc", "accuracy", "es_auc", "es_accuracy"}
    assert set(changes["method"]) == set(ARMS) - {"real"}
    assert (changes.loc[changes["method"] == "synthetic", "baseline_share"] == 1).all()
    assert table["note"].str.contains("one generator").all()

    def value(frame: pd.DataFrame, arm: str, share: float) -> float:
        own = frame[(frame["method"] == arm) & (frame["share"] == share)]
        own = own[(own["condition"] == "glaucoma") & (own["attribute"] == "overall")]
        return float(own.loc[own["metric"] == "auc", "value"].iloc[0])

    for arm, share, base in (("real_and_synthetic", 0.5, 0.5), ("synthetic", 0.0, 1.0)):
        expected = value(table, arm, share) - value(table, "real", base)
        assert value(changes, arm, share) == pytest.approx(expected, abs=1e-12)


def test_trained_on_a_tested_on_b(result: matrix_study.MatrixResult) -> None:
    table = result.transfer
    own = table[(table["condition"] == "glaucoma") & (table["attribute"] == "overall")]
    pairs = own[own["metric"] == "auc"].set_index(["method", "tested_on"])["value"]
    assert len(pairs) == 4
    known = result.table[(result.table["method"] == "real") & (result.table["share"] == 1)]
    known = known[(known["condition"] == "glaucoma") & (known["attribute"] == "overall")]
    auc = known.loc[known["metric"] == "auc", "value"].iloc[0]
    assert pairs["real", "real"] == pytest.approx(auc, abs=1e-9)
    both = own[own["metric"] == matrix_study.BOTH_WAYS]
    assert list(zip(both["method"], both["tested_on"], strict=True)) == [("real", "none")]
    mean = (pairs["real", "none"] + pairs["none", "real"]) / 2
    assert both["value"].iloc[0] == pytest.approx(mean, abs=1e-12)
    said = sentences_matrix.about_transfer(table, "glaucoma")
    assert f"real ones {pairs['none', 'real']:.3f}" in said


def test_the_picture_shows_every_arm_and_says_simulated(result: matrix_study.MatrixResult) -> None:
    fig = figures_matrix.fig_matrix(result.table, condition="glaucoma", attribute="sex")
    assert [ax.get_title(loc="left").split(" (")[0] for ax in fig.axes] == ["All", "Female", "Male"]
    assert "simulated" in fig.get_suptitle()
    flat = [line for line in fig.axes[0].lines if line.get_linestyle() == ":"]
    assert len(flat) == 2  # arms without real images
    with pytest.raises(Nothing, match="no AUC of 'glaucoma' by 'age'"):
        figures_matrix.fig_matrix(result.table, condition="glaucoma", attribute="age")
    assert "50% of the subjects" in sentences_matrix.about_learning(result.table, "glaucoma")
    assert "With one seed" in sentences_matrix.about_arms(result.changes, "glaucoma")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.05, "higher"), (-0.05, -0.01, "lower"), (-0.01, 0.05, "no difference seen")],
)
def test_a_sentence_follows_the_interval_for_new_patients(
    result: matrix_study.MatrixResult, low: float, high: float, word: str
) -> None:
    planted = result.changes.assign(
        value=(low + high) / 2, low_new=low, high_new=high, n_seeds=3, low=0.01, high=0.02
    )
    said = sentences_matrix.about_arms(planted, "glaucoma").splitlines()[2]
    assert said.count(word) == said.count("(") > 0
    by_level = sentences_matrix.about_balance(planted, "glaucoma", "sex")
    assert by_level.splitlines()[0].startswith("- Female (n = ") and word in by_level


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ({"matrix.shares": "0.1,1.5,1"}, r"matrix\.shares=1\.5: expected at most 1"),
        ({"matrix.shares": "0,1"}, r"matrix\.shares=0: expected a value above 0"),
        ({"matrix.shares": "0.5"}, r"matrix\.shares=0\.5: expected 1 among them"),
        ({"matrix.shares": "1,1"}, r"matrix\.shares=1\.0,1\.0: each may be named once"),
        ({"matrix.seeds": "0,-1"}, r"matrix\.seeds=-1: expected at least 0"),
        ({"matrix.classifier": "resnet"}, "unknown matrix.classifier 'resnet'; known: efficient"),
        ({"matrix.method": "magic"}, "unknown matrix.method 'magic'"),
    ],
)
def test_settings_that_cannot_be(override: dict[str, str], line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        load_settings("smoke", overrides=override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("matrix.method=fis", r"matrix\.method=fis: expected one of methods=none,fairdiffusion"),
        ("matrix.balance=age", "unknown attribute in matrix.balance 'age'; known: ethnicity, race"),
        ("efficientnet.loop.steps=1", r"efficientnet\.loop\.steps=1: expected at least 2"),
    ],
)
def test_a_matrix_that_cannot_be_made_stops_before_anything_starts(
    override: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--study", "matrix", "--preset", "smoke", "--set", override, "--dry-run"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.search(line, said) and said.count("\n") == 1


def test_a_run_that_cannot_be_is_refused() -> None:
    for arm, share, line in (
        ("fake", 1.0, "unknown arm of the matrix 'fake'; known: balanced_synthetic"),
        ("real", 0.0, r"arm real, share 0.0: expected above 0, at most 1"),
        ("real", 1.01, r"share 1.01: expected above 0, at most 1"),
        ("synthetic", 0.5, r"arm synthetic, share 0.5: expected 0; it has no real image"),
    ):
        with pytest.raises(InputError, match=line):
            MatrixRun(arm, share, 0)


def test_a_share_without_a_subject_of_a_class_is_named_before_any_fit(study: Study) -> None:
    line = r"a share of 0.02 of the real subjects \(seed 0\) has no \w+ .*; expected at least"
    with pytest.raises(InputError, match=line) as caught:
        matrix_of(study, shares=(0.02, 1.0))
    assert "\n" not in str(caught.value)
    levels = [level for c in study.cohort.spec.prompted for level in c.levels]
    assert any(level in str(caught.value) for level in levels)


def test_missing_generated_images_are_counted_and_named(study: Study) -> None:
    folder = study.places.generated("none", 0) / "train"
    names = train_of(study).table["image"].tolist()[:5]
    for name in names:
        (folder / f"{name}.png").rename(folder / f"{name}.away")
    line = rf"5 of 96 generated images missing \({names[0]}, {names[1]}, {names[2]}, \.\.\.\)"
    try:
        with pytest.raises(InputError, match=line):
            matrix_of(study).generated_part(MatrixRun("synthetic", 0.0, 0))
    finally:
        for name in names:
            (folder / f"{name}.away").rename(folder / f"{name}.png")


def test_balanced_images_are_asked_for_with_the_prompts_of_their_rows(study: Study) -> None:
    images, labels = matrix_of(study).generated_part(MatrixRun("balanced_synthetic", 0.0, 0))
    asked = matrix_study.generate.asked  # type: ignore[attr-defined]
    assert len(images) == len(labels) == len(asked) == len(train_of(study))
    female = [" Female " in prompt for prompt in asked]
    assert sum(female) == len(asked) / 2
    sick = [": glaucoma," in prompt for prompt in asked]
    column = list(study.cohort.condition_levels).index("glaucoma")
    np.testing.assert_array_equal(labels[:, column], sick)
