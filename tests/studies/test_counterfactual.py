"""One word of the prompt changed: whose images are asked for, and what is read from them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import exploratory_audits, mean_metric
from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.model import sample as sampling
from fairdiff_lib.show.figures.evidence import fig_counterfactual
from fairdiff_lib.show.words_studies import about_counterfactual, about_flips
from fairdiff_lib.studies import counterfactual as cf

SPEC = dataset_of("ham10000").spec()
LEVELS = {a.name: a.levels for a in SPEC.attributes}
SETTINGS = load_settings("smoke", "ham10000_simulated")


def cohort(n: int) -> Cohort:
    rows = {
        "subject": [f"s{i:03d}" for i in range(n)],
        "image": [f"i{i:03d}" for i in range(n)],
        "split": ["test"] * n,
        "sex": [LEVELS["sex"][i % 2] for i in range(n)],
        "age": [LEVELS["age"][i // 2 % 2] for i in range(n)],
        "malignant": [SPEC.levels("malignant")[i % 3 % 2] for i in range(n)],
        "dx": ["nv"] * n,
        "excluded": [""] * n,
    }
    table = pd.DataFrame(rows)
    table["prompt"] = [SPEC.prompt(row) for row in table.to_dict("records")]  # type: ignore[arg-type]
    return Cohort(SPEC, table, Path(), "hash")


def test_only_the_one_word_changes_and_only_for_patients_of_other_levels() -> None:
    whole, first = cohort(12), LEVELS["sex"][0]
    asked = cf.swapped(whole, "sex", first)
    before = whole.table.set_index("image").loc[asked.table["image"]]
    assert len(asked) == 6 and set(asked.table["sex"]) == {LEVELS["sex"][1]}
    for own, row in zip(asked.table["prompt"], before.to_dict("records"), strict=True):
        assert own == SPEC.prompt({**row, "sex": first}) != row["prompt"]  # type: ignore[dict-item]


def test_a_changed_word_starts_from_the_images_own_noise(
    study_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, whole, drawn = study_of(SETTINGS, cohort(8), runs_root=str(tmp_path)), cohort(8), {}

    def sampler(pipeline: Any, prompts: Any, seeds: Any, **own: Any) -> np.ndarray:
        drawn.update(zip(seeds, prompts, strict=True))
        return np.zeros((len(seeds), 3, 8, 8), np.uint8)

    monkeypatch.setattr(sampling, "load_run", lambda *a: None)
    monkeypatch.setattr(sampling, "sample", sampler)
    sampling.generate(study, *map(list, (whole.table["image"], whole.table["prompt"])), "none", 0,
                      "test")  # fmt: skip
    first = dict(drawn)
    asked = cf.swapped(whole, "age", LEVELS["age"][1])
    assert len(cf.draw(study, asked, "none", 0, "age-1")) == 4
    changed = {seed for seed, prompt in drawn.items() if first[seed] != prompt}
    assert set(drawn) == set(first) and len(changed) == 4
    listed = sampling.load_generated(study.places.generated("none", 0), "test")
    assert len(listed) == 8  # the study's own list is not shortened


class Reader:
    """Reads "malignant" from the brightness of an image."""

    def predict(self, images: Any) -> dict[str, np.ndarray]:
        p = images.mean(axis=(1, 2, 3)) / 255
        return {"malignant": np.stack([1 - p, p], axis=1)}


SPACE: Any = SimpleNamespace(of=lambda images: images.reshape(len(images), -1).astype(float))
READER: Any = Reader()


def test_what_moves_is_measured_in_distances_between_patients_and_in_blur() -> None:
    whole, rng = cohort(6), np.random.default_rng(0)
    images = rng.integers(90, 110, (6, 3, 8, 8)).astype(np.uint8)
    drawn = cf.as_they_are(SPACE, READER, images)
    flat = SPACE.of(images)
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(flat) for b in flat[:i]]
    assert drawn.typical == pytest.approx(np.mean(gaps))
    asked = cf.swapped(whole, "sex", LEVELS["sex"][0])
    rows = [int(name[1:]) for name in asked.table["image"]]
    same = cf.moves(drawn, whole, asked, images[rows], SPACE, READER)
    assert not same.moved.any() and not same.blur.any() and not same.flips["malignant"].any()
    lighter = cf.moves(drawn, whole, asked, images[rows] + np.uint8(60), SPACE, READER)
    np.testing.assert_allclose(lighter.moved, 60 * np.sqrt(192) / drawn.typical)
    np.testing.assert_allclose(lighter.reads["malignant"], 60 / 255)
    assert lighter.flips["malignant"].all() and (lighter.blur == cf.SIGMAS[-1]).all()
    blurred = cf.blur_images(images[rows], 1.0)
    soft = cf.moves(drawn, whole, asked, blurred, SPACE, READER)
    np.testing.assert_allclose(soft.blur, 1.0, atol=1e-9)


def test_no_flip_among_n_patients_has_an_exact_interval() -> None:
    whole = cohort(40)
    groups = group_units(whole.table, {"sex": LEVELS["sex"]})
    flips = {cf.FLIPS: mean_metric(np.zeros(40), True)}
    one = exploratory_audits(flips, groups, {"sex": LEVELS["sex"]}, (cf.FLIPS,))[cf.FLIPS]
    rows = cf.rows_of(one)
    assert (rows["low"] == 0).all()
    np.testing.assert_allclose(rows["high"], 1 - 0.025 ** (1 / rows["n"]))


def test_the_figure_and_the_words_hold_every_level_and_the_noise_beside() -> None:
    rows = [
        ("none", "0", changed, condition, attribute, level, metric, 40, 0.1, 0.05, 0.2)
        for changed in ("noise", "sex")
        for condition, metric in (("all", "moved"), ("all", "moved_blur"),
                                  ("malignant", "finding_flips"), ("malignant", "readout_change"))
        for attribute, level in (("overall", "all"), *(("sex", x) for x in LEVELS["sex"]))
    ]  # fmt: skip
    columns = ["method", "seeds", "changed", "condition", "attribute", "level", "metric", "n"]
    table = pd.DataFrame(rows, columns=[*columns, "value", "low", "high"])
    table = table.assign(dataset="ham10000_simulated", n_seeds=1, sd=np.nan)
    words = [x.get_text() for x in fig_counterfactual(table, condition="malignant").findobj()
             if hasattr(x, "get_text")]  # fmt: skip
    assert all(any(level in word for word in words) for level in LEVELS["sex"])
    said = about_counterfactual(table, "malignant")
    assert "another noise" in said and "another sex" in said
    assert said.count("Malignant is read otherwise in 10% of images (5% to 20%).") == 2
    assert LEVELS["sex"][0] in about_flips(table, "malignant")
