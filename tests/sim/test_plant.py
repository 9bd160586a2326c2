"""Planted fidelity: training images of one group get fewer and worse, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.data.reading import read_truth
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import PlantConfig, Population
from fairdiff_lib.sim.chest import ChestPopulation
from fairdiff_lib.sim.fundus import FundusPopulation
from fairdiff_lib.sim.skin import SkinPopulation
from fairdiff_lib.studies.harm import dark_lines, sharpness
from fairdiff_lib.studies.planted import PLANTED, WITHOUT, findable, rates
from fairdiff_lib.studies.verdict.effects import (
    ALARM,
    FOUND,
    NOT_JUDGED,
    QUIET,
    planted,
    tally,
    with_planted,
)
from fairdiff_lib.study import Study

PLANT = PlantConfig("camera", kept=0.5, mislabelled=0.4, height=8)
POPULATIONS: dict[str, Population] = {
    "fairgenmed_simulated": FundusPopulation(
        train=80, val=12, test=30, fundus_height=48, fundus_width=62
    ),
    "ham10000_simulated": SkinPopulation(lesions=160, image_height=48, image_width=64),
    "chexpert_simulated": ChestPopulation(patients=120, image_height=48, image_width=48),
}


@pytest.mark.parametrize("dataset", POPULATIONS)
def test_only_training_images_of_camera_b_are_fewer_and_worse(dataset: str, tmp_path: Path) -> None:
    entry, plain = dataset_of(dataset), POPULATIONS[dataset]
    cohorts = {}
    for name, own in (("plain", plain), ("planted", replace(plain, plant=PLANT))):
        entry.draw(own, tmp_path / name)
        cohorts[name] = entry.read(tmp_path / name, population=own)
    before, after = (cohorts[name].table.set_index("image") for name in cohorts)
    train = after["split"].eq("train") & (before["excluded"] == "")
    group = train & after["camera"].eq("B")
    same = [(tmp_path / "plain" / path).read_bytes() == (tmp_path / "planted" / path).read_bytes()
            for path in after["path"]]  # fmt: skip
    assert not after.loc[~np.array(same), "split"].isin(["val", "test"]).any()
    assert (after.loc[~np.array(same), "camera"] == "B").all()
    left_out = after["excluded"].str.startswith("not collected")
    assert left_out[group].mean() == pytest.approx(0.5, abs=0.2)
    assert not left_out[~group].any()
    kept = group & ~left_out
    assert not np.array(same)[kept].any()  # all are coarse

    truth = read_truth(tmp_path / "planted")
    moved = truth.index[truth["picture"] != truth.index]
    assert set(moved) <= set(after.index[kept])
    assert len(moved) / kept.sum() == pytest.approx(0.4, abs=0.25)
    image = moved[0]  # shows, coarsely, whom the truth says
    shown = np.asarray(Image.open(tmp_path / "planted" / after.loc[image, "path"]).convert("RGB"))
    other = before.loc[truth.loc[image, "picture"], "path"]
    small = Image.open(tmp_path / "plain" / other).convert("RGB")
    coarse = small.resize((round(8 * small.width / small.height), 8), Image.Resampling.BICUBIC)
    wanted = np.asarray(coarse.resize(small.size, Image.Resampling.BICUBIC), float)
    assert np.abs(shown - wanted).mean() < 6  # grey levels, of JPEG

    lots = after.drop_duplicates("subject")["camera"].eq("B")
    assert 0.3 < lots.mean() < 0.7
    assert after.groupby("subject")["camera"].nunique().max() == 1
    prompts = after.loc[after["excluded"] == "", ["camera", "prompt"]]
    assert all(prompt.startswith(f"{camera}: ") for camera, prompt in prompts.to_numpy())
    labels = [c for c in before.columns if c in (*entry.spec().levels(
        entry.spec().attributes[0].name), *[f.name for f in entry.spec().fields])]  # fmt: skip
    assert before[labels].equals(after[labels])


def test_a_plant_on_a_level_of_the_population_names_no_camera(tmp_path: Path) -> None:
    own = replace(POPULATIONS["fairgenmed_simulated"], plant=replace(PLANT, on="black"))
    entry = dataset_of("fairgenmed_simulated")
    entry.draw(own, tmp_path / "data")
    table = entry.read(tmp_path / "data", population=own).table
    assert "camera" not in table
    left_out = table["excluded"].str.startswith("not collected")
    assert left_out.any()
    assert set(table.loc[left_out, "race"]) == {"Black"}
    assert set(table.loc[left_out, "split"]) == {"train"}


def test_a_study_reads_its_cameras_again(tmp_path: Path) -> None:
    overrides = "simulator.plant.on=camera simulator.train=40 simulator.val=12 simulator.test=12"
    roots = {"runs_root": str(tmp_path)}
    first = Study.open("smoke", overrides=overrides, **roots).cohort
    again = Study.open("smoke", overrides=overrides, **roots).cohort
    assert again.spec == first.spec
    assert again.attribute_levels["camera"] == ("A", "B")
    assert again.table["camera"].tolist() == first.table["camera"].tolist()


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"simulator.plant.on": "blue"}, "plant.on=blue: expected nothing or one of camera"),
        ({"simulator.plant.height": "9"}, "plant.on=: expected a group"),
        ({"simulator.plant.kept": "0"}, "simulator.plant.kept=0"),
        ({"simulator.plant.on": "camera", "reading.split_seed": "1"}, "reading.split_seed=1, "),
        (
            {"simulator.plant.on": "camera", "reading.coding": "drop"},
            "reading.coding=drop: expected",
        ),
    ],
)
def test_a_plant_that_makes_no_sense_is_refused(overrides: dict[str, str], word: str) -> None:
    with pytest.raises(InputError, match=word):
        load_settings("smoke", "chexpert_simulated", overrides)


def test_truth_of_a_picture_falls_with_its_detail() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 3, 32, 32)).astype(np.uint8)
    images[1] = 128
    assert sharpness(images)[0] > 20 > sharpness(images)[1] == 0
    images[1, :, 10:12] = 90  # a line of 2 pixels, 38 grey levels deep
    assert dark_lines(images[1:]) == pytest.approx(38 * 2 / 32)


def test_planted_fidelity_is_what_the_claim_is_judged_by() -> None:
    own = FundusPopulation(difficulty_black=3.0, plant=PLANT)
    assert planted(own)["camera", "B"] == (
        "a generator that saw 50% of its training images, 40% of them with another's labels, "
        "in 8 pixels of height"
    )
    names = ["attribute", "level", "reference", "low", "high"]
    rows = [("camera", "B", "A", 0.1, 0.2), ("race", "Black", "White", -0.1, 0.1),
            ("sex", "Male", "Female", 0.1, 0.2), ("race", "Asian", "White", -0.1, 0.2)]  # fmt: skip
    table = with_planted(pd.DataFrame(rows, columns=names), own)
    assert tally(table) == "1 of 1 planted differences found, 1 false alarm in 2"
    found = table["as_planted"].tolist()
    assert found == [FOUND, NOT_JUDGED, ALARM, QUIET]  # noise is no plant of the generator's
    turned = pd.DataFrame([("camera", "A", "B", -0.2, -0.1), ("camera", "A", "B", 0.1, 0.2)],
                          columns=names)  # fmt: skip
    both = with_planted(turned, own)["as_planted"].tolist()
    assert both == [FOUND, "found in the wrong direction"]
    nothing = replace(own, difficulty_black=1.0, plant=PlantConfig("camera"))
    assert with_planted(turned, nothing)["as_planted"].tolist() == [ALARM, ALARM]


def test_rates_count_runs_and_know_which_side_is_worse() -> None:
    names = ["arm", "seed", "metric", "attribute", "level", "reference", "low", "high"]
    blur = "equivalent_blur"
    rows = [(PLANTED, 1, blur, "camera", "B", "A", 0.1, 0.2),
            (PLANTED, 2, blur, "camera", "A", "B", -0.2, -0.1),
            (PLANTED, 3, blur, "camera", "A", "B", 0.1, 0.2),  # the wrong one
            (PLANTED, 4, blur, "camera", "B", "A", -0.1, 0.2),
            (WITHOUT, 1, blur, "camera", "B", "A", -0.2, -0.1),
            (WITHOUT, 2, blur, "camera", "B", "A", -0.2, 0.1)]  # fmt: skip
    found = rates(pd.DataFrame(rows, columns=names), ("camera", "B")).set_index("arm")
    assert found["found"].to_dict() == {PLANTED: 2, WITHOUT: 1}
    assert found["runs"].to_dict() == {PLANTED: 4, WITHOUT: 2}
    assert not found["kept"].any()
    # Clopper and Pearson: 2 of 4
    assert found.loc[PLANTED, "low"] == pytest.approx(0.0676, abs=1e-4)
    assert found.loc[PLANTED, "high"] == pytest.approx(0.9324, abs=1e-4)
    table = pd.DataFrame(rows, columns=names)
    # of half widths 0.05 and 0.15: 0.1 (1 + 0.8416 / 1.9600)
    assert findable(table, ("camera", "B")) == pytest.approx(0.14294, abs=1e-4)
