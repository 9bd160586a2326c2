"""Generations: whose images are replaced, what each starts from, and that a killed one goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairdiff_lib.disk.files import read_json
from fairdiff_lib.model.sample import generate_run
from fairdiff_lib.run.graph import GraphRun
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.figures.evidence import fig_loop
from fairdiff_lib.show.words_studies import about_generations
from fairdiff_lib.studies import retraining
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import train


@pytest.fixture(scope="module")
def study(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("loop")
    roots = {"data_root": str(toy_dataset), "runs_root": f"{root}/r", "figures_root": f"{root}/f"}
    found = Study.open("smoke", "toy", "methods=none generation.steps=2", **roots)
    train(found, "none", 0)
    generate_run(found, "none", 0)
    return found


@pytest.mark.slow
def test_half_the_training_patients_get_the_last_generations_images(study: Study) -> None:
    made = retraining.make_generations(study, "mixed", 0)
    assert len(made) == 2
    own = [retraining.of_generation(study, "mixed", 0, k) for k in range(3)]
    tables = [one.cohort.included().table for one in own]
    for table in tables[1:]:
        moved = table["path"] != tables[0]["path"]
        train_rows = table["split"] == "train"
        subjects = table.loc[train_rows, "subject"].nunique()
        assert table.loc[moved, "subject"].nunique() == round(subjects / 2)
        assert train_rows[moved].all()
        np.testing.assert_array_equal(table["prompt"], tables[0]["prompt"])
    assert set(tables[1].loc[tables[1]["path"] != tables[0]["path"], "image"]) != set(
        tables[2].loc[tables[2]["path"] != tables[0]["path"], "image"]
    )  # other patients in each generation
    starts = [one.settings.model.pretrained for one in own]
    assert [Path(x).parent for x in starts[1:]] == [one.places.run("none", 0) for one in own[:2]]
    hashes = {one.cohort.data_hash for one in own}
    assert len(hashes) == 3
    run = own[2].places.run("none", 0) / "run.json"
    assert read_json(run)["stamp"]["data_hash"] == own[2].cohort.data_hash
    before = run.stat().st_mtime_ns
    assert retraining.make_generations(study, "mixed", 0) == made  # nothing is left to do
    assert run.stat().st_mtime_ns == before

    found = retraining.measure_retraining(study)
    first = [found.images[arm, 0] for arm in ("mixed", "real")]
    np.testing.assert_array_equal(*first)
    assert not np.array_equal(found.images["mixed", 1], found.images["real", 1])
    overall = found.table[found.table["attribute"] == "overall"]
    assert len(overall) == 2 * 3 * 2  # arms, generations, metrics
    assert set(found.changes["generation"]) == {1, 2}
    assert fig_loop(found.table).axes and "generation 2" in about_generations(found.table)


def test_a_loop_without_the_baseline_is_refused_before_anything_starts() -> None:
    with pytest.raises(InputError, match="expected none among them"):
        GraphRun("smoke", overrides="methods=fairdiffusion", names=("loop",)).check()
