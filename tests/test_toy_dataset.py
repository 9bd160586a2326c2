"""A data set that the library does not know is one entry in the registry, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairdiff_lib.data.counts import cohort_table, flow_table
from fairdiff_lib.datasets import contents, dataset_of, load_settings
from fairdiff_lib.run.jobs import Jobs
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.style import dataset_name, limits
from fairdiff_lib.study import Study


@pytest.fixture
def study(toy_dataset: Path, tmp_path: Path) -> Study:
    roots = {"runs_root": str(tmp_path / "runs"), "figures_root": str(tmp_path / "figures")}
    return Study.open("smoke", "toy", data_root=str(toy_dataset), **roots)


def test_its_settings_are_the_preset_s(toy_dataset: Path) -> None:
    settings = load_settings("smoke", "toy", {"training.steps": "12"})
    assert settings.dataset == "toy" and settings.training.steps == 12 and not settings.simulated
    assert settings.model == load_settings("smoke", "ham10000").model
    with pytest.raises(InputError, match="toy is not simulated"):
        load_settings("smoke", "toy", {"simulator.seed": "1"})
    with pytest.raises(InputError, match="toy has no such coding; expected default"):
        load_settings("smoke", "toy", {"reading.coding": "ones"})


def test_its_cohort_is_read_found_again_and_prompted(study: Study) -> None:
    cohort = study.cohort
    assert len(cohort.included()) == 120
    row = cohort.table.iloc[3]
    assert row["prompt"] == "Picture of a left hand from the south: dotted"
    again = Study(study.settings, study.places).cohort
    assert again.table.equals(cohort.table) and again.data_hash == cohort.data_hash
    assert cohort.attribute_levels == {"site": ("North", "South"), "hand": ("left", "right")}
    assert set(cohort_table(cohort, "toy")["attribute"]) == {"overall", "site", "hand"}
    assert flow_table(cohort)["step"].unique().tolist() == ["in the data", "in the study"]


def test_its_images_show_what_their_labels_say(study: Study) -> None:
    test = study.cohort.included().split("test")
    images = test.load_images(study.settings.model.image_size)
    middle = images[:, :, 12:20, 12:20].mean(axis=(1, 2, 3))
    dotted = test.condition_codes()[:, 0] == 1
    assert middle[dotted].min() > middle[~dotted].max() + 100
    rows, names = study.cohort.group_examples()
    assert names == ["North", "South", "left", "right"] and len(np.unique(rows)) == 4


def test_tables_names_and_limits_are_found_by_all_who_ask(toy_dataset: Path) -> None:
    assert contents()["tab_toy_quality"] == ("quality by site, hand and mark", "05_quality")
    assert contents()["tab_toy_downstream"][1] == "07_downstream"
    assert (dataset_name("toy"), limits("toy")) == ("Toy hands", "Hands of nobody.")
    assert dataset_of("toy").phrase == "Toy hands"


def test_corrected_data_run_the_cohort_again_and_nothing_else_does(
    toy_dataset: Path, study: Study
) -> None:
    def changes(opened: Study) -> dict[str, list[str]]:
        own = Jobs(opened)
        return {job.name: own.changes(job) for job in own.notebooks}

    before = changes(study)
    assert changes(Study(study.settings, study.places)) == before
    table = toy_dataset / "hands.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:-1], lines[-1].replace("left", "right")]) + "\n")
    after = changes(study)
    assert {name for name in after if after[name] != before[name]} == {"01_cohorts"}
