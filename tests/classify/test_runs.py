"""The study's classifiers on disk: what is kept, what faults E4 and E6 do, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.audit.classifiers import PREDICTION_COLUMNS, classification_table
from fairdiff_lib.audit.released import stretched_as_released, turned_as_released
from fairdiff_lib.classify import runs
from fairdiff_lib.classify.predictions import check_predictions
from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import read_json, read_table, write_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.downstream import paired_changes
from fairdiff_lib.study import Study

RUN = ("none", 0, "vit")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A smoke study whose method "generated" the real training images."""
    made = Study.open("smoke", runs_root=str(tmp_path_factory.mktemp("runs")))
    train, folder = (
        made.cohort.included().split("train"),
        made.places.generated("none", 0) / "train",
    )
    folder.mkdir(parents=True)
    for name, image in zip(train.table["image"], train.load_images(32), strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{name}.png")
    write_table(train.table[["image"]], folder / "manifest.csv")
    return made


def read(study: Study, *run: Any) -> runs.Run:
    return runs.read_run(study, *(run or RUN))


def test_every_metric_can_be_computed_again_without_a_network(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(study)
    assert tuple(first.test.columns) == tuple(first.validation.columns) == PREDICTION_COLUMNS
    monkeypatch.setattr(runs, "fit_classifier", None)  # a second fit would fail
    again = read(study)
    for split, kept, found in (
        ("test", first.test, again.test),
        ("val", first.validation, again.validation),
    ):
        pd.testing.assert_frame_equal(found, kept)
        assert set(found["image"]) == set(study.cohort.included().split(split).table["image"])
    run = read_json(study.places.classifier(*RUN) / "run.json")
    assert run["classifier"] == study.settings.vit.name and run["seconds"] > 0


def test_the_table_holds_what_both_faults_claim_beside_the_corrected(study: Study) -> None:
    attributes = study.cohort.attribute_levels
    run = read(study)
    assert run.mismatched is not None
    assert list(run.mismatched["image"]) == list(run.test["image"])
    table = classification_table(
        run.test,
        study.cohort.included().split("test").table,
        attributes,
        labels={},
        watched=run.watched,
        mismatched=run.mismatched,
        bootstrap=20,
    )
    whole = table[(table["condition"] == "glaucoma") & (table["attribute"] == "overall")]
    value = whole.set_index("metric")["value"]
    lost = value["auc"] - value["auc_mismatched_as_released"]
    assert value["auc_lost_by_mismatch_as_released"] == pytest.approx(lost, abs=1e-12)
    best = value["auc"] + value["auc_gain_by_best_test_epoch_as_released"]
    assert value["auc_best_test_epoch_as_released"] == pytest.approx(best, abs=1e-9) and best >= 0
    metrics = {
        *("accuracy", "es_accuracy", "auc", "es_auc", "dpd", "eod", "dpd_as_released"),
        *("eod_as_released", "psd_mean", "psd_max", "auc_mismatched_as_released"),
    }
    assert metrics <= set(table["metric"])


def test_real_images_have_no_mismatch(study: Study) -> None:
    assert read(study, "real", 0, "vit").mismatched is None


def test_as_released_the_step_is_that_of_the_best_test_look(study: Study) -> None:
    """E4 as a switch: a run of its own."""
    vit = dataclasses.replace(study.settings.vit, selection="test_as_released", evaluate_every=2)
    own = study.with_settings(dataclasses.replace(study.settings, vit=vit))
    folder = own.places.classifier(*RUN)
    assert folder != study.places.classifier(*RUN)
    means = read(own).watched.groupby("step")["value"].mean()
    assert means.idxmax() == read_json(folder / "run.json")["selected_step"]
    assert means.nunique() > 1


def test_as_released_generated_images_lie_on_their_side(study: Study) -> None:
    """E6 as a switch: what is trained on and what is tested on."""
    part = study.cohort.included().split("train")
    plain = runs.training_images(study, part, "none", 0, "matched")
    turned = runs.training_images(study, part, "none", 0, "mismatched_as_released")
    np.testing.assert_array_equal(turned[:, :, 0], plain[:, :, ::-1, 0])  # left edge, now on top
    real = runs.real_images(part, 32, "mismatched_as_released")
    assert (real.min(axis=(1, 2, 3)) == 0).all() and (real.max(axis=(1, 2, 3)) == 255).all()
    squashed = part.load_images(32, squash=True)
    assert np.abs(squashed.astype(int) - plain).mean() > 1  # 83 x 64 pixels, not their middle
    np.testing.assert_array_equal(real, stretched_as_released(squashed))
    np.testing.assert_array_equal(turned_as_released(turned, 1), plain)


# -- bad input -------------------------------------------------------------------------------


def test_missing_generated_images_are_counted_and_named(study: Study) -> None:
    folder = study.places.generated("none", 0) / "train"
    names = study.cohort.included().split("train").table["image"].tolist()
    for name in names[:4]:
        (folder / f"{name}.png").rename(folder / f"{name}.away")
    try:
        shown = ", ".join(names[:3])
        message = rf"4 of {len(names)} generated images missing \({shown}, \.\.\.\)"
        with pytest.raises(InputError, match=message) as caught:
            read(study, "none", 0, "efficientnet")
        assert "\n" not in str(caught.value)
        assert not study.places.classifier("none", 0, "efficientnet").exists()
    finally:
        for name in names[:4]:
            (folder / f"{name}.away").rename(folder / f"{name}.png")


def test_images_that_were_never_asked_for_are_missing_too(study: Study) -> None:
    manifest = study.places.generated("none", 0) / "train" / "manifest.csv"
    whole = read_table(manifest, dtype=str)
    write_table(whole.iloc[1:], manifest)
    try:
        with pytest.raises(InputError, match=rf"1 of {len(whole)} generated images missing"):
            read(study, "none", 0, "efficientnet")
    finally:
        write_table(whole, manifest)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_a_split_lacks_is_named(study: Study, split: str) -> None:
    table = study.cohort.table
    gone = (table["split"] == split) & (table["md_severity"] == "severe")
    cohort = dataclasses.replace(study.cohort, table=table[~gone].reset_index(drop=True))
    with pytest.raises(InputError, match=f"the {split} split has no md_severity severe") as caught:
        runs.check_splits(cohort, cohort.condition_levels)
    assert "\n" not in str(caught.value)


def test_a_label_that_the_spec_does_not_know_is_named_with_its_row(study: Study) -> None:
    path = study.places.classifier(*RUN) / "predictions.csv"
    levels = study.cohort.condition_levels
    found = read(study).test
    for column, value in (("truth", "hyperopia"), ("level", "odd"), ("condition", "myopia")):
        strange = found.copy()
        strange.loc[6, column] = value
        with pytest.raises(InputError, match=rf"row 7: {column} '{value}'; expected one of") as e:
            check_predictions(path, strange, levels)
        assert "\n" not in str(e.value)


def test_equal_scores_have_an_auc_of_one_half_without_an_interval(study: Study) -> None:
    predictions = read(study).test
    predictions["probability"] = 1 / predictions.groupby("condition")["level"].transform("nunique")
    test = study.cohort.included().split("test").table
    own = study.cohort.attribute_levels
    table = classification_table(predictions, test, own, labels={}, bootstrap=5)
    row = table[(table["condition"] == "glaucoma") & (table["attribute"] == "overall")]
    auc = row.set_index("metric").loc["auc"]
    assert auc["value"] == 0.5 and np.isnan(auc["low"]) and "all scores equal" in auc["note"]


def test_every_source_is_read_by_every_classifier() -> None:
    settings: Settings = load_settings("quick")
    found = settings.fits
    assert len(found) == 3 * 2 and len(set(found)) == 6
    assert {name for *_, name in found} == {"efficientnet", "vit"}
    assert Path(Places(settings).classifier(*found[0])) != Places(settings).classifier(*found[-1])


def test_changes_of_a_method_are_paired_by_seed_and_exact(study: Study) -> None:
    """Predictions that differ between methods only: a change of nothing, and one of everything."""
    test = study.cohort.included().split("test").table

    def predictions(source: str, seed: int) -> pd.DataFrame:
        rows = []
        for condition, levels in study.cohort.condition_levels.items():
            noise = np.random.default_rng(seed).uniform(size=(len(test), len(levels)))
            truth = test[condition].to_numpy()
            hits = np.array([[name == level for level in levels] for name in truth])
            scores = noise + 5 * hits * (source == "fairdiffusion")
            scores /= scores.sum(axis=1, keepdims=True)
            for k, level in enumerate(levels):
                own = {"condition": condition, "truth": truth, "level": level}
                named = test[["image", "subject"]].assign(**own, probability=scores[:, k])
                rows.append(named)
        return pd.concat(rows).sort_values(["condition", "image"], ignore_index=True)

    none = pd.DataFrame()
    each = [(source, seed) for source in ("real", "none", "fairdiffusion") for seed in (0, 1)]
    made = [runs.Run("", *one, "vit", predictions(*one), none, {}, none, None) for one in each]
    changes = paired_changes(study, made)
    assert list(changes.columns[:3]) == ["dataset", "classifier", "condition"]
    whole = changes[(changes["condition"] == "glaucoma") & (changes["attribute"] == "overall")]
    auc = whole[whole["metric"] == "auc"].set_index(["method", "baseline"])
    assert set(auc.index) == {
        ("fairdiffusion", "none"),
        ("none", "real"),
        ("fairdiffusion", "real"),
    }
    assert auc.loc[("none", "real"), "value"] == 0  # the same predictions
    assert auc.loc[("fairdiffusion", "none"), "value"] > 0.3  # all right against chance
    assert auc.loc[("fairdiffusion", "none"), "seeds"] == "0,1"
    assert changes["p"].isna().all()  # two seeds are too few
    scaled = changes[changes["metric"] == "es_auc"]
    assert set(scaled["attribute"]) == set(study.cohort.attribute_levels)
    assert set(scaled["level"]) == {"all"}
