"""The guidance x steps sweep: shared noise, one path with 04, resumed where it was killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import Audit, audit, kid_metric
from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.audit.kid import fit_kernel
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.files import write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model import sample as sampling
from fairdiff_lib.model.pipeline import build_pipeline, save_pipeline
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.run.graph import GraphRun as Graph
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import SweepConfig
from fairdiff_lib.show import words as sentences_privacy
from fairdiff_lib.show.figures import matrix as figures_sweep
from fairdiff_lib.studies import sweep
from fairdiff_lib.studies.plans import Cell, cells_of, check_cells, own_cell
from fairdiff_lib.study import Study

SPEC = dataset_of("ham10000").spec()
LEVELS = {a.name: a.levels for a in SPEC.attributes}
SMALL = SweepConfig(guidances=(1.0, 2.0), steps=(2, 3), images=12)
SETTINGS = replace(load_settings("smoke", "ham10000_simulated"), sweep=SMALL)


def cohort(n: int, older: int = 4) -> Cohort:
    """A test split with a few older patients."""
    rows = {
        "subject": [f"s{i:03d}" for i in range(n)],
        "image": [f"i{i:03d}" for i in range(n)],
        "split": ["test"] * n,
        "sex": [LEVELS["sex"][i % 2] for i in range(n)],
        "age": [LEVELS["age"][int(i < older)] for i in range(n)],
        "malignant": [SPEC.levels("malignant")[i % 2] for i in range(n)],
        "dx": ["nv"] * n,
        "excluded": [""] * n,
    }
    table = pd.DataFrame(rows)
    table["prompt"] = [SPEC.prompt(row) for row in table.astype(str).to_dict("records")]  # type: ignore[arg-type]
    return Cohort(SPEC, table, Path(), "hash")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, study_of: Any) -> Study:
    """A finished run of an untrained model."""
    found = study_of(SETTINGS, cohort(6), runs_root=str(tmp_path_factory.mktemp("runs")))
    place = found.places
    made = build_pipeline(SETTINGS.model, cohort(4).table["prompt"].tolist(), seed=0)
    save_pipeline(made, place.run("none", 0) / "pipeline")
    write_json(place.run("none", 0) / "run.json", {})
    return found


def test_the_own_cell_is_the_studys_own_generation(study: Study) -> None:
    whole = cohort(6)
    names, prompts = whole.table["image"].tolist(), whole.table["prompt"].tolist()
    sampling.generate(study, names, prompts, "none", 0, "test")
    default = load_generated(study.places.generated("none", 0), "test")
    some = whole.take([1, 3, 4])
    again = sweep.make_cell(study, some, own_cell(SETTINGS))
    assert np.abs(default[[1, 3, 4]].astype(int) - again).max() <= 1  # rounding of another batch
    other = sweep.make_cell(study, some, Cell(1.0, 2))
    assert np.abs(other.astype(int) - again).max() > 5
    # the sweep has not shortened the list of the study's own images
    assert len(load_generated(study.places.generated("none", 0), "test")) == 6


class Sampler:
    """Stands for the sampler: a picture that its seed, guidance and steps decide; may be killed."""

    def __init__(self, killed_after: int = 99) -> None:
        self.calls: list[tuple[float, int, tuple[int, ...]]] = []
        self.left = killed_after

    def __call__(
        self, pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], **own: Any
    ) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.calls.append((own["guidance"], own["steps"], tuple(seeds)))
        mark = int(10 * own["guidance"] + own["steps"])
        return np.stack([np.full((3, 8, 8), (s + mark) % 251, np.uint8) for s in seeds])


def make_all(study: Study, rows: Cohort) -> dict[Cell, Any]:
    return {cell: sweep.make_cell(study, rows, cell) for cell in cells_of(study.settings)}


def test_every_cell_starts_from_the_same_noise_and_a_killed_sweep_goes_on(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, generation=replace(SETTINGS.generation, batch=4, seed=7))
    own, rows = study.with_settings(settings), cohort(10)
    sampler = Sampler(killed_after=5)
    monkeypatch.setattr(sampling, "load_run", lambda *a: None)
    monkeypatch.setattr(sampling, "sample", sampler)
    with pytest.raises(KeyboardInterrupt):
        make_all(own, rows)  # of 3 batches a cell: one cell and two batches are there
    assert len(sampler.calls) == 5
    sampler.left = 99
    made = make_all(own, rows)
    assert len(sampler.calls) == 4 * 3, "a batch was drawn twice"
    seeds: dict[tuple[float, int], list[int]] = {}
    for guidance, steps, drawn in sampler.calls:
        seeds.setdefault((guidance, steps), []).extend(drawn)
    first = next(iter(seeds.values()))
    assert len(seeds) == 4 and len(set(first)) == 10
    assert all(drawn == first for drawn in seeds.values())
    assert {cell: len(images) for cell, images in made.items()} == dict.fromkeys(made, 10)
    monkeypatch.setattr(sampling, "sample", Sampler(killed_after=0))
    for cell, images in make_all(own, rows).items():  # nothing is left to draw
        np.testing.assert_array_equal(images, made[cell])


def test_the_prompts_keep_every_level_and_are_always_the_same(study_of: Any) -> None:
    whole = cohort(200, older=8)
    rows = sweep.sweep_rows(study_of(SETTINGS, whole), 12)
    assert len(rows) == len(set(rows)) == 12
    chosen = whole.take(rows).table
    assert all(set(chosen[name]) == set(levels) for name, levels in LEVELS.items())
    assert (chosen["age"] == LEVELS["age"][1]).sum() >= 3
    np.testing.assert_array_equal(rows, sweep.sweep_rows(study_of(SETTINGS, whole), 12))


# -- tables ----------------------------------------------------------------------------------


def planted() -> dict[Cell, list[Audit]]:
    """Older patients' images get worse with guidance 1; the others' never change."""
    rng = np.random.default_rng(0)
    table = cohort(300, older=100).table
    old = (table["age"] == LEVELS["age"][1]).to_numpy()[:, None]
    real, noise = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    kernel, groups = fit_kernel(real), group_units(table, LEVELS)
    return {
        cell: [
            audit(
                kid_metric(kernel, real, noise + 1.5 * old * (cell.guidance == 1.0)),
                groups,
                LEVELS,
                metric="kid",
                role="exploratory",
                features="lite0",
            )
        ]
        for cell in cells_of(SETTINGS)
    }


def test_a_level_that_a_setting_hurts_is_found_and_only_that_one() -> None:
    audits = planted()
    made = sweep.as_tables(SETTINGS, audits, [])
    result = sweep.SweepResult(cohort(6), (), {}, audits, own_cell(SETTINGS), *made, [])
    assert len(result.table) == 4 * 5 and len(result.changes) == 3 * 5
    rows = result.changes.set_index(["guidance", "steps", "level"])
    young, old = LEVELS["age"]
    assert rows.loc[(1.0, 3, old), "low"] > 0.1 and rows.loc[(1.0, 3, old), "p"] < 1e-4
    for key in ((1.0, 3, young), (2.0, 2, old)):  # steps change nothing here
        assert rows.loc[key, "value"] == pytest.approx(0, abs=1e-12)
    gaps = result.contrasts[result.contrasts["guidance"] == 1.0]
    found = gaps[gaps["p_adjusted"] < 0.01]
    assert set(found[found["role"] == "exploratory"]["level"]) == {old}
    said = sentences_privacy.about_cells(result.changes, "lite0")
    assert "Guidance 1, 3 steps: worse" in said and "worse" in said
    assert old in sentences_privacy.about_level_gaps(result.contrasts)
    fig = figures_sweep.fig_sweep(result.table, guidance=2.0, steps=3, features="lite0")
    words = [text.get_text() for text in fig.findobj() if hasattr(text, "get_text")]
    assert any("HAM10000, simulated" in word for word in words)
    with pytest.raises(InputError, match="no KID at guidance 9, 1 steps"):
        figures_sweep.fig_sweep(result.table, guidance=9.0, steps=1, features="lite0")
    scalars = result.scalars()
    assert scalars["cells"] == 4 and scalars["images"] == 300


# -- settings --------------------------------------------------------------------------------


def test_every_presets_own_cell_is_in_its_grid() -> None:
    for preset in ("smoke", "quick", "reference", "paper"):
        check_cells(load_settings(preset))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("sweep.guidances", "0.5,2", "sweep.guidances=0.5: expected at least 1"),
        ("sweep.steps", "0", "sweep.steps=0: expected at least 1"),
        ("sweep.steps", "", "sweep.steps=: expected at least 1 of them"),
        ("sweep.steps", "5,5", "each may be named once"),
        ("sweep.images", "3", "sweep.images=3: expected at least 10"),
        ("sweep.method", "magic", "unknown sweep.method 'magic'"),
        ("privacy.draws", "0", "privacy.draws=0: expected at least 1"),
        ("privacy.false_positives", "0.7", "false_positives=0.7: expected a value below 0.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_settings("smoke", overrides={field: value})


def test_a_sweep_that_cannot_be_made_stops_before_anything_starts() -> None:
    with pytest.raises(InputError, match=r"own cell \(guidance 3, 3 steps\) is missing"):
        Graph("smoke", overrides="generation.guidance=3", names=("sweep",)).check()
    with pytest.raises(InputError, match=r"sweep\.method=random: expected one of methods="):
        Graph("smoke", overrides="sweep.method=random", names=("sweep",)).check()
    Graph("smoke", overrides="generation.guidance=3").check()  # the study itself may


def test_the_new_settings_move_no_folder() -> None:
    usual, other = (
        Places(load_settings("quick", overrides=own))
        for own in ({}, {"sweep.images": 20, "sweep.steps": "10", "privacy.draws": 2})
    )
    for name in ("data", "cohort", "base", "records", "features", "matrix", "proof", "pools"):
        assert getattr(usual, name) == getattr(other, name)
    assert usual.generated("none", 0) == other.generated("none", 0)
