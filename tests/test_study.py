"""A study's cohort: found again while nothing changed; examples by group, gallery prompts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import Dataset, dataset_of, load_settings
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import check
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.sim.drawing import planted_table
from fairdiff_lib.sim.fundus import FundusPopulation
from fairdiff_lib.studies.quality import ruler_table
from fairdiff_lib.study import Study

SIMULATED = "fairgenmed_simulated"


def small_settings() -> Settings:
    """Sixty simulated subjects at 32 pixels."""
    config = FundusPopulation(train=60, val=20, test=40, fundus_height=32, fundus_width=42)
    return dataclasses.replace(load_settings("smoke", SIMULATED), simulator=config)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Places, Cohort]:
    settings = small_settings()
    layout = Places(settings, runs_root=str(tmp_path_factory.mktemp("runs")))
    return settings, layout, Study(settings, layout).cohort


def test_the_cohort_is_found_again_and_read_anew_after_a_change(
    study: tuple[Settings, Places, Cohort], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, layout, first = study
    calls: list[Path] = []
    real = Dataset.read

    def counted(entry: Dataset, root: Path, **own: Any) -> Cohort:
        calls.append(root)
        return real(entry, root, **own)

    monkeypatch.setattr(Dataset, "read", counted)
    again = Study(settings, layout).cohort
    assert not calls
    assert again.data_hash == first.data_hash
    assert again.table.equals(first.table)
    os.utime(layout.data / "data_summary.csv", (1, 1))
    assert len(Study(settings, layout).cohort) == len(first)
    assert len(calls) == 1


def test_missing_real_data_are_named(tmp_path: Path) -> None:
    settings = load_settings("smoke", "ham10000")
    layout = Places(settings, data_root=str(tmp_path / "none"), runs_root=str(tmp_path))
    with pytest.raises(InputError, match="none: folder not found; put ham10000 there"):
        _ = Study(settings, layout).cohort


def test_examples_are_different_patients_of_the_level_they_stand_for(
    study: tuple[Settings, Places, Cohort],
) -> None:
    _, _, cohort = study
    rows, names = cohort.group_examples()
    table = cohort.included().split("test").table
    assert names == [level for a in cohort.spec.attributes for level in a.levels]
    homes = [a.name for a in cohort.spec.attributes for _ in a.levels]
    for row, name, attribute in zip(rows, names, homes, strict=True):
        assert table[attribute].iloc[row] == name
    assert len(set(rows.tolist())) == len(rows)


def test_gallery_changes_only_what_the_prompt_mentions(
    study: tuple[Settings, Places, Cohort],
) -> None:
    _, _, cohort = study
    rows = cohort.gallery_rows()
    assert len(rows) == sum(len(c.levels) for c in cohort.spec.conditions)
    profile = cohort.usual_profile()
    prompts = [cohort.spec.prompt(profile | {name: level}) for name, level in rows]
    assert len(set(prompts)) == len(rows) - (len(cohort.spec.conditions) - 1)  # the usual one
    ham = Cohort(dataset_of("ham10000").spec(), cohort.table, Path(), "")
    assert ham.gallery_rows() == [("malignant", "benign"), ("malignant", "malignant")]


def test_the_ruler_is_tried_on_simulated_data_only(study: tuple[Settings, Places, Cohort]) -> None:
    settings, places, cohort = study
    row = ruler_table(Study(settings, places)).iloc[0]
    assert row["images"] == 40 and np.isfinite(row["value"])
    real = load_settings("smoke", "fairgenmed")
    other = Study(real, places)
    other.__dict__["cohort"] = cohort  # the folder of the real ones is not there
    assert np.isnan(ruler_table(other)["value"].iloc[0])
    planted = planted_table(settings.simulator).set_index("setting")["value"]
    assert planted["Black: camera noise, times"] == settings.simulator.difficulty_black
    assert planted_table(real.simulator).empty and len(planted) > 5


# -- what a notebook needs, and what its results rest on -------------------------------------


def opened(tmp_path: Path, **own: Any) -> Study:
    return Study.open(
        "smoke",
        SIMULATED,
        "audit.bootstrap=7",
        runs_root=str(tmp_path / "runs"),
        figures_root=str(tmp_path / "figures"),
        **own,
    )


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ("base", r"the model that every method starts from: runs/.*/run.json is missing"),
        ("runs", "a trained model: .*none-seed0"),
        ("images", "generated images"),
        ("protocol", "protocol.json is missing"),
        ("08_ablations", "08_ablations.json is missing; .*--study ablation"),
    ],
)
def test_what_is_missing_is_said_at_once_with_the_command_that_makes_it(
    need: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        opened(tmp_path).require(need)
    said = str(caught.value)
    assert f"`fairdiff run --preset smoke --dataset {SIMULATED}" in said and "\n" not in said
    assert f"--runs-root {tmp_path / 'runs'}" in said and "--set audit.bootstrap=7`" in said


def test_every_notebook_asks_for_what_its_job_waits_for(tmp_path: Path) -> None:
    study = opened(tmp_path)
    assert study.waits_for("05_quality") == ["protocol", "images"]
    assert study.waits_for("06_perturbation") == ["runs"]
    assert study.waits_for("09_verdict") == ["protocol", "05_quality", "07_downstream"]
    assert study.waits_for("10_proof") == ["01_cohorts"]


def test_what_is_there_is_not_asked_for(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for method, seed in study.settings.runs:
        write_json(study.places.run(method, seed) / "run.json", {})
    study.require("runs")
    study.record("05_quality", n=1)
    study.require("runs", "05_quality")


def test_a_notebook_of_one_run_asks_for_that_run_alone(tmp_path: Path) -> None:
    study = opened(tmp_path, method="fairdiffusion", seed=0)
    with pytest.raises(InputError, match=r"a trained model: .*fairdiffusion-seed0"):
        study.require("runs")
    write_json(study.places.run("fairdiffusion", 0) / "run.json", {})
    study.require("runs")
    with pytest.raises(InputError, match="none-seed0"):
        opened(tmp_path).require("runs")


def test_a_published_figure_names_the_runs_that_it_rests_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "stamp", {})
    study = opened(tmp_path)
    for method, seed in study.settings.runs:
        write_json(study.places.run(method, seed) / "run.json", {"method": method})
        (study.places.generated(method, seed) / "test").mkdir(parents=True)
        (study.places.generated(method, seed) / "test" / "manifest.csv").touch()
    table = study.publish("tab_gates", pd.DataFrame({"value": [1.0]}))
    named = read_json(table.with_suffix(".json"))["rests_on"]
    assert sorted(name.rsplit("/", 1)[-1] for name in named) == [
        *["manifest.csv"] * 2,
        *["run.json"] * 2,
    ]
    figure = study.publish("fig_cards", Figure(), rests_on=[table.with_suffix(".json")])
    assert {link.state for link in check(figure, study.places.roots)} == {"ok"}
    write_json(study.places.run("none", 0) / "run.json", {"method": "another"})
    assert "BROKEN" in {link.state for link in check(figure, study.places.roots)}


def test_a_caption_names_the_data_set_as_readers_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = {"parameters": {"preset": "smoke", "dataset": SIMULATED}, "simulated": True}
    monkeypatch.setattr(Study, "stamp", stamp)
    table = opened(tmp_path).publish("tab01", pd.DataFrame({"value": [1.0]}))
    caption = table.with_suffix(".tex").read_text(encoding="utf-8").split(r"\caption{")[1]
    assert "FairGenMed, simulated, preset smoke" in caption and SIMULATED not in caption


def test_overrides_come_as_a_text_or_a_list() -> None:
    """As a command line has them, or papermill's -f from YAML."""
    for overrides in ("training.steps=7 seeds=0,1", ["training.steps=7", "seeds=0,1"]):
        settings = Study.open("smoke", overrides=overrides).settings
        assert settings.training.steps == 7 and tuple(settings.seeds) == (0, 1)
    assert Study.open("smoke", overrides=[]).settings == Study.open("smoke").settings
