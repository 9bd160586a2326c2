"""From images and losses to the privacy tables: which side is which, and what is drawn."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fairdiff_lib.audit.audit import contrast_table, labelled
from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.audit.memory import ADVANTAGE, ALARMED, AUC, FOUND, NEARER, Pool
from fairdiff_lib.audit.seeds import summarise_seeds
from fairdiff_lib.classify.features import RandomConvExtractor, Scale, Space, extract
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show import words as sentences_privacy
from fairdiff_lib.show.figures import matrix as figures_privacy
from fairdiff_lib.studies import privacy as privacy_study

SPEC = dataset_of("ham10000").spec()
LEVELS = {a.name: a.levels for a in SPEC.attributes}
YOUNG, OLD = LEVELS["age"]
SETTINGS = load_settings("smoke", "ham10000_simulated")
SIZES = {"train": 162, "val": 42, "test": 120}
N = sum(SIZES.values())


def cohort() -> Cohort:
    split = np.repeat(list(SIZES), list(SIZES.values()))
    at = np.arange(N)
    table = pd.DataFrame(
        {
            "subject": [f"s{i:03d}" for i in at],
            "image": [f"i{i:03d}" for i in at],
            "split": split,
            "sex": [LEVELS["sex"][i % 2] for i in at],
            "age": [OLD if i % 3 == 0 else YOUNG for i in at],
            "malignant": "benign",
            "dx": "nv",
            "prompt": "p",
            "excluded": "",
        }
    )
    return Cohort(SPEC, table, Path(), "hash")


@pytest.fixture(scope="module")
def known(
    tmp_path_factory: pytest.TempPathFactory, study_of: Any
) -> tuple[privacy_study.Known, np.ndarray]:
    """The real side, and its images: plain noise of random colour."""
    rng = np.random.default_rng(0)
    colour = rng.integers(40, 215, (N, 3, 1, 1))
    images = (colour + rng.integers(-40, 40, (N, 3, 16, 16))).astype(np.uint8)
    whole, names = cohort(), list(LEVELS)
    extractor, cache = RandomConvExtractor(width=8), tmp_path_factory.mktemp("cache")
    features = extract(extractor, images).astype(np.float64)
    scale = Scale.fit(features[: SIZES["train"]].astype(np.float32))
    features = scale(features.astype(np.float32))
    member = (whole.table["split"] == "train").to_numpy()
    strata = np.array(privacy_study.strata_of(whole.table, names), dtype=object)
    subjects = whole.table["subject"].to_numpy()
    pools = [Pool(features[own], subjects[own], strata[own]) for own in (member, ~member)]
    space = Space(extractor, cache, scale, Kernel(1.0), features[member], features[-120:])
    test = whole.split("test").table
    found = privacy_study.Known(
        study_of(SETTINGS, whole),
        whole,
        ((space, pools[0], pools[1]),),
        torch.zeros(N, 4, 2, 2),
        group_units(test, LEVELS),
        group_units(whole.table, LEVELS),
    )
    return found, images


def test_copies_of_training_images_are_caught_in_their_level(known: Any) -> None:
    rng = np.random.default_rng(1)
    own, images = known
    fresh = (
        rng.integers(40, 215, (120, 3, 1, 1)) + rng.integers(-40, 40, (120, 3, 16, 16))
    ).astype(np.uint8)
    old = (own.cohort.split("test").table["age"] == OLD).to_numpy()
    trained = own.cohort.split("train").table
    copied = np.flatnonzero(trained["age"] == OLD)
    fresh[old] = images[rng.choice(copied, old.sum())]
    one = privacy_study.nearest_audits(own, [own.spaces[0][0].of(fresh)])[0]
    assert (one.metric, one.features) == (NEARER, "random")
    rows = one.by_group.set_index("level")
    assert rows.loc[OLD, "value"] > 0.8 and rows.loc[OLD, "low"] > 0.5
    assert rows.loc[YOUNG, "low"] < 0.5 < rows.loc[YOUNG, "high"]


def test_real_test_images_are_the_control(known: Any) -> None:
    """At a half; off it where the features themselves tell training from held-out."""
    own, _ = known
    space, train, held = own.spaces[0]
    low, high = privacy_study.nearest_audits(own, [space.test])[0].overall.interval()
    assert low < 0.5 < high
    names = [str(name) for name in train.names]
    moved = Pool(train.features + 3.0, names, [str(x) for x in train.strata])
    told = dataclasses.replace(own, spaces=((space, moved, held),))
    assert privacy_study.nearest_audits(told, [space.test])[0].overall.interval()[1] < 0.5


def losses(lower: np.ndarray) -> Any:
    """Stands for the model: denoises the chosen rows better."""
    rng = np.random.default_rng(2)

    def found(pipeline: Any, latents: Any, prompts: Any, names: Any, steps: Any, seed: int) -> Any:
        assert len(names) == len(prompts) == N and seed == 0
        noise = rng.normal(scale=0.01, size=(N, len(steps)))
        return torch.from_numpy(1.0 - 0.015 * lower[:, None] + noise)

    return found


def attack(known: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A model that remembers older training patients."""
    own, _ = known
    table = own.cohort.table
    lower = ((table["split"] == "train") & (table["age"] == OLD)).to_numpy(dtype=float)
    monkeypatch.setattr(privacy_study, "load_run", lambda *a: None)
    monkeypatch.setattr(privacy_study, "denoising_losses_at", losses(lower))
    return privacy_study.attack(own, privacy_study.attacker(own, "none", 0))


def test_a_lower_loss_of_members_is_what_gives_them_away(
    known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = attack(known, monkeypatch)
    auc = found[AUC].by_group.set_index("level")
    assert auc.loc[OLD, "low"] > 0.9
    assert auc.loc[YOUNG, "low"] < 0.5 < auc.loc[YOUNG, "high"]
    assert found[FOUND].estimates["age", OLD].value > 0.3


def test_the_picture_and_the_sentences_come_from_the_tables(
    known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = known
    audits = [
        *privacy_study.nearest_audits(own, [np.roll(own.spaces[0][0].test, 1, axis=0)]),
        *attack(known, monkeypatch).values(),
    ]
    labels = {"dataset": SETTINGS.dataset, "method": "none", "seed": 0}
    rows = [labelled(one.by_group.assign(features=one.features), labels) for one in audits]
    table = summarise_seeds(pd.concat(rows, ignore_index=True))
    fig = figures_privacy.fig_privacy(table, false_positives=0.01)
    words = [text.get_text() for text in fig.findobj() if hasattr(text, "get_text")]
    assert any("HAM10000, simulated" in word for word in words)
    assert any("Members found" in word for word in words)
    near = table["metric"] == NEARER
    wide = table[near].assign(features="lite0-penultimate")  # the longest title of a panel
    both = pd.concat([table[~near], table[near].assign(features="lite0"), wide])
    page = figures_privacy.fig_privacy(both, false_positives=0.01)
    page.draw_without_rendering()
    boxes = [ax._left_title.get_window_extent() for ax in page.axes]
    assert len(boxes) == 4 and "last-layer" in page.axes[1].get_title("left")
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    # each image is a copy of another prompt's held-out subject
    assert "less than a half" in sentences_privacy.about_nearest(table)
    assert f"highest AUC is that of {OLD}" in sentences_privacy.about_members(table, 0.01)
    named = [({**labels, "seeds": "0"}, one) for one in audits if one.metric == AUC]
    said = sentences_privacy.about_level_gaps(contrast_table(named))
    assert said.startswith("1 of 2") and OLD in said
    with pytest.raises(InputError, match="no rows of 'nearer_to_training'"):
        figures_privacy.fig_privacy(table[table["metric"] != NEARER], false_positives=0.01)


def test_every_run_and_the_control_are_in_the_tables(
    known: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, study_of: Any
) -> None:
    own, images = known
    settings = dataclasses.replace(SETTINGS, seeds=(0, 1), methods=("none",))
    monkeypatch.setattr(privacy_study, "read_known", lambda *a: own)
    monkeypatch.setattr(privacy_study, "load_generated", lambda *a: images[-120:])
    monkeypatch.setattr(privacy_study, "load_run", lambda *a: None)
    monkeypatch.setattr(privacy_study, "denoising_losses_at", losses(np.zeros(N)))
    study = study_of(settings, own.cohort, figures_root=str(tmp_path))
    result = privacy_study.measure_privacy(study)
    assert result.scores.member.sum() == SIZES["train"] and len(result.made) == SIZES["test"]
    assert len(result.scalars()) == (result.table["attribute"] == "overall").sum()
    near = result.table[result.table["metric"] == NEARER]
    assert set(near["method"]) == {"real", "none"} and set(near["seeds"]) == {"0,1", "0", "1"}
    assert near[["low", "high"]].stack().between(0, 1).all()
    assert set(result.table["metric"]) == {NEARER, AUC, FOUND, ALARMED, ADVANTAGE}
    assert set(result.contrasts["metric"]) == set(privacy_study.CONTRASTED)
    assert set(result.contrasts["seeds"]) == {"0,1"}
    auc = result.table[result.table["metric"] == AUC].set_index(["level", "seeds"])
    auc = auc[auc["method"] == "none"]
    width = (auc["high"] - auc["low"])["all"]
    # of two seeds a t-interval would reach 9 standard deviations; subjects are as many as in one
    assert 0.5 * width["0"] < width["0,1"] < 1.05 * width["0"]
    mean = auc.loc[("all", "0,1")]
    assert mean["low"] < 0.5 < mean["high"]  # nothing tells members here
    assert "over subjects, of the mean" in mean["note"]
    assert result.table["note"].str.contains("checks of notebook 05 were not run").all()


def test_sizes_count_subjects_and_pairs() -> None:
    sizes = privacy_study.reference_sizes(cohort()).set_index("level")
    assert list(sizes.loc["all"]) == ["overall", 162, 162, 162, 120]
    assert sizes.loc[OLD, "training"] == 54 and sizes.loc[OLD, "pairs"] == 54


def test_without_a_timestep_there_is_no_attack(study_of: Any) -> None:
    settings = load_settings("smoke", overrides={"audit.loss_timesteps": ""})
    with pytest.raises(InputError, match="loss_timesteps is empty"):
        privacy_study.read_known(study_of(settings, cohort()))
