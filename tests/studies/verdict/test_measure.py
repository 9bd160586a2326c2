"""The positive control is found, and only where it was planted; tests read their own audits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from fairdiff_lib.audit.audit import audit, kid_metric
from fairdiff_lib.audit.blur import equivalent_blur
from fairdiff_lib.audit.estimate import OVERALL, Groups, group_units
from fairdiff_lib.audit.kid import kid_unpaired
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.files import write_json
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.model.pipeline import load_pipeline, reconstruct, to_images, to_model
from fairdiff_lib.studies.verdict import measure
from fairdiff_lib.studies.verdict.effects import PLANTED, UNTOUCHED, controls_found
from fairdiff_lib.studies.verdict.measure import bases_of, control, random_group, share_for
from fairdiff_lib.studies.verdict.pilot import halves, space_of
from fairdiff_lib.studies.verdict.protocol import BLUR, KID, Planned, Protocol
from fairdiff_lib.study import Study

DATASET, SIDE = "ham10000", 16
SPEC = dataset_of(DATASET).spec()
TEST = Planned("C1", "disparity", BLUR, "sex", "Male", "Female", 30, 0.2, 0.05, 58.0,
               power_nothing=0.9, power_twice=0.9)  # fmt: skip
SMALLER = Planned("C1", "disparity", BLUR, "age", "60 or older", "below 60", 12, 0.1, 0.2, 22.0)
RULE = Protocol(dataset=DATASET, seeds=(0,), features="texture", smallest_blur=0.2,
                tests=(TEST, SMALLER))  # fmt: skip  # 30 pictures of grain say little of 0.1


class Plain(nn.Module):
    """An autoencoder whose latents are the pixels: what is lost is what was taken away."""

    device, dtype = torch.device("cpu"), torch.float32

    def encode(self, pixels: Tensor) -> Any:
        return SimpleNamespace(
            latent_dist=SimpleNamespace(mean=pixels, std=torch.zeros_like(pixels))
        )

    def decode(self, latents: Tensor) -> Any:
        return SimpleNamespace(sample=latents)


def grain(count: int, seed: int) -> np.ndarray:
    """Pictures of noise of some strength, uint8 [N, 3, H, W]."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(25, 60, (count, 1, 1, 1))
    drawn = 128 + spread * rng.normal(size=(count, 3, SIDE, SIDE))
    return np.clip(drawn, 0, 255).astype(np.uint8)


@pytest.fixture
def study(tmp_path: Path, study_of: Callable[..., Study]) -> Study:
    """240 pictures of grain: 120 to train with, 120 to test."""
    names = [f"i{k:03d}" for k in range(240)]
    young, old = SPEC.levels("age")
    table = pd.DataFrame({
        "subject": names, "image": names, "path": [f"{x}.png" for x in names],
        "split": np.repeat(["train", "test"], 120), "sex": ["Female", "Male"] * 120,
        "age": [young, young, old] * 80, "malignant": "benign", "dx": "nv", "prompt": "p",
        "excluded": "",
    })  # fmt: skip
    for name, picture in zip(names, grain(240, 0), strict=True):
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / f"{name}.png")
    given = {"audit.features": "texture", "model.image_size": SIDE, "seeds": (0, 1)}
    roots = {"runs_root": str(tmp_path / "runs"), "figures_root": str(tmp_path / "f")}
    settings = load_settings("smoke", DATASET, given)
    return study_of(settings, Cohort(SPEC, table, tmp_path, "hash"), **roots)


def space_and_unit(study: Study) -> tuple[Any, np.ndarray]:
    kept, size = study.cohort.included(), study.settings.model.image_size
    space = space_of(study, kept.split("train").load_images(size))
    return space, group_units(kept.split("test").table, kept.attribute_levels).unit


def test_a_worse_autoencoder_takes_away_what_half_the_resolution_lacks() -> None:
    images = grain(70, 1)  # more than a batch
    pixels = to_model(images)
    half = functional.interpolate(functional.avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear")
    assert np.array_equal(measure.through_worse(Plain(), images, 0.0), images)
    for share in (0.25, 1.0):
        wanted = to_images((1 - share) * pixels + share * half)
        found = measure.through_worse(Plain(), images, share)
        assert np.abs(found.astype(int) - wanted).max() <= 1  # where a half is rounded
    assert found.std() < 0.6 * images.std()


def test_a_random_group_is_of_units_and_the_others_are_the_rest() -> None:
    unit = np.repeat(np.arange(20), 2)
    groups = random_group(unit, 8, seed=3)
    chosen, others = groups.column("group", PLANTED), groups.column("group", UNTOUCHED)
    assert (int(chosen.sum()), int(others.sum())) == (8, 12) and not (chosen & others).any()
    assert np.array_equal(chosen, random_group(unit, 8, seed=3).column("group", PLANTED))
    assert not np.array_equal(chosen, random_group(unit, 8, seed=4).column("group", PLANTED))


def test_what_is_planted_is_the_least_that_makes_twice_x(study: Study) -> None:
    space, _ = space_and_unit(study)
    share = share_for(study, space, Plain(), RULE)
    assert 0 < share < 1 and (share * measure.STEPS).is_integer()
    train = study.cohort.included().split("train")
    real, made = (train.load_images(SIDE, rows) for rows in halves(train.table, study.cohort))
    one, other = (Groups(np.arange(len(x)), (OVERALL,), np.ones((len(x), 1), dtype=bool))
                  for x in (real, made))  # fmt: skip
    known = measure.curves_of(space, real, one)

    def blur(own: float) -> float:
        y = space.of(measure.through_worse(Plain(), made, own))
        kids = kid_unpaired(space.kernel, space.of(real), y, one, other)
        return equivalent_blur(kids, known)[0].value

    plain = blur(0.0)
    assert blur(share - 1 / measure.STEPS) - plain < 2 * RULE.smallest_blur <= blur(share) - plain
    far = Protocol(features="texture", smallest_blur=3.0)
    assert share_for(study, space, Plain(), far) == 1.0  # nothing makes so much


def test_the_control_is_found_and_nothing_where_nothing_was_planted(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, unit = space_and_unit(study)
    found = control(study, space, Plain(), grain(120, 2), unit, RULE)
    rows = found.set_index(["endpoint", "part"])
    assert set(controls_found(found)) == {BLUR, KID}
    for endpoint in (BLUR, KID):
        low, high = rows.loc[(endpoint, UNTOUCHED), ["low", "high"]]
        assert low < 0 < high
        # as many as the smallest group that a testable claim rests on
        assert rows.loc[(endpoint, PLANTED), "n"] == 30
    monkeypatch.setattr(measure, "share_for", lambda *_: 0.0)
    none = control(study, space, Plain(), grain(120, 2), unit, RULE)
    assert list(controls_found(none)) == []


def test_runs_are_told_apart_by_what_they_started_from(study: Study) -> None:
    write = {("none", 0): "a", ("none", 1): "b", ("fairdiffusion", 0): "a"}
    for run in study.settings.runs:
        rests = {"runs/ham10000/cohort-1/cohort.csv": "c"}
        if run in write:
            name = "base" if write[run] == "a" else "base-seed1"
            rests |= {f"runs/ham10000/{name}-0123456789/run.json": write[run]}
        write_json(study.places.run(*run) / "run.json", {"rests_on": rests})
    assert bases_of(study) == {**write, ("fairdiffusion", 1): ""}


def test_planned_tests_read_their_own_endpoint_and_feature_space(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1's difference is that of the audit in the protocol's space; the control stands beside."""
    for run in study.settings.runs:
        write_json(study.places.run(*run) / "run.json", {})
    monkeypatch.setattr(measure, "load_generated", lambda *_: grain(120, 2))
    space, unit = space_and_unit(study)
    test = study.cohort.included().split("test")
    levels = {"sex": study.cohort.attribute_levels["sex"]}
    groups, x = group_units(test.table, levels), space.of(test.load_images(SIDE))
    own, other = (
        audit(kid_metric(space.kernel, x, space.of(made)), groups, levels, metric=KID,
              features=features)
        for made, features in ((grain(120, 2), "texture"), (grain(120, 3) // 2, "elsewhere"))
    )  # fmt: skip
    planned = Planned("C1", "disparity", KID, "sex", "Male", "Female", 60, 0.01, 0.01, 118.0)
    rule = Protocol(dataset=DATASET, seeds=(0,), features="texture", tests=(TEST, planned))
    rows = measure.image_effects(study, space, Plain(), unit, {("none", 0): [own, other]}, rule)
    c1 = rows[rows["claim"] == "C1"].set_index("endpoint")
    gap = own.estimates["sex", "Male"].value - own.estimates["sex", "Female"].value
    assert c1.loc[KID, "value"] == pytest.approx(gap)
    assert c1.loc[KID, "seeds"] == "0" and c1.loc[KID, "runs"] == 1
    assert np.isnan(c1.loc[BLUR, "value"])  # no such audit
    assert (rows["claim"] == "control").sum() == 4


@pytest.mark.slow
def test_the_control_is_found_through_a_trained_autoencoder(tmp_path: Path) -> None:
    """Simulated fundus photographs, the shipped autoencoder, the features that measure."""
    changes = ("model.image_size=64 simulator.train=160 simulator.test=120 simulator.val=8 "
               "simulator.fundus_height=96 simulator.fundus_width=124")  # fmt: skip
    study = Study.open("smoke", "fairgenmed_simulated", changes, runs_root=str(tmp_path))
    vae = load_pipeline(PROJECT_ROOT / "data" / "pretrained" / "fairgenmed_simulated").vae
    space, unit = space_and_unit(study)
    reals = study.cohort.included().split("test").load_images(64)
    found = control(study, space, vae, reconstruct(vae, reals), unit, RULE)
    rows = found.set_index(["endpoint", "part"])
    assert set(controls_found(found)) == {BLUR, KID}
    assert 0.1 < rows.loc[(BLUR, PLANTED), "value"] < 1
    for endpoint in (BLUR, KID):
        low, high = rows.loc[(endpoint, UNTOUCHED), ["low", "high"]]
        assert low < 0 < high
