"""A data set and a training method from outside the library: one entry each, nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fairdiff_lib.data.cohort import cohort_table, flow_table
from fairdiff_lib.datasets import contents, dataset_of, load_settings
from fairdiff_lib.methods import base
from fairdiff_lib.methods.base import Mitigation, register
from fairdiff_lib.model.sample import generate_run
from fairdiff_lib.run.jobs import Jobs
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS, NEUTRAL, Method
from fairdiff_lib.show.cards import card, write_model_card
from fairdiff_lib.show.front import fig
from fairdiff_lib.show.style import dataset_name, limits, look_of
from fairdiff_lib.studies.downstream import measure_downstream
from fairdiff_lib.studies.quality import collect_quality, publish_quality
from fairdiff_lib.studies.verdict.protocol import check_protocol, write_protocol
from fairdiff_lib.study import Study
from fairdiff_lib.train import train


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


# -- a method --------------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry, for as long as a test runs."""
    monkeypatch.setattr(base, "CLASSES", dict(base.CLASSES))
    monkeypatch.setitem(METHODS, "toy", Method())


@pytest.fixture
def toy(known: None) -> type[Mitigation]:
    """The first attribute's first level counts twice, from the second step on."""

    @register("toy")
    class Toy(Mitigation):
        kept = ("factors",)

        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            self.factors = torch.ones(self.sizes[0], dtype=torch.float64)

        def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
            return self.factors[levels[:, 0]]

        def observe(
            self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
        ) -> dict[str, float]:
            self.factors[0] = 2.0
            return super().observe(losses, levels, step, timesteps)

    return Toy


def test_it_is_trained_and_found_again(toy: type[Mitigation], tmp_path: Path) -> None:
    study = Study.open("smoke", runs_root=str(tmp_path / "runs"))
    run = train(study, "toy", 0)
    assert run.facts["method"] == "toy" and (study.places.run("toy", 0) / "pipeline").is_dir()
    own = run.history[(run.history["quantity"] == "weight") & run.history["value"].notna()]
    first, others = study.cohort.spec.attributes[0].levels[0], own["attribute"] == "race"
    late = own[others & (own["step"] > 1)].groupby("level")["value"].mean()
    assert late[first] == 2.0 and set(late.drop(first)) == {1.0}
    assert set(own[own["step"] == 1]["value"]) == {1.0}
    card = write_model_card(study, study.places.run("toy", 0), "toy")
    assert "toy" in card.read_text(encoding="utf-8")
    assert (look_of("toy").label, look_of("toy").colour) == ("toy", NEUTRAL)
    again = train(study, "toy", 0)
    assert again.facts == run.facts
    plain = train(study, "none", 0)
    assert plain.facts["first_losses"][:2] == run.facts["first_losses"][:2]  # weights act after it
    assert plain.facts["first_losses"][2] != run.facts["first_losses"][2]


def test_what_it_keeps_outlives_a_kill(toy: type[Mitigation]) -> None:
    settings = Study.open("smoke").settings.mitigation
    attributes = {"race": ("Asian", "Black"), "sex": ("Female", "Male")}
    one, other = (base.make_method("toy", settings, attributes, 0, 1) for _ in range(2))
    one.observe(torch.ones(2), torch.zeros(2, 2, dtype=torch.int64), 0)
    other.load_state_dict(one.state_dict())
    assert other.factors.tolist() == [2.0, 1.0]  # type: ignore[attr-defined]


def test_an_entry_without_a_class_is_named(known: None) -> None:
    with pytest.raises(InputError, match=r"'toy' has an entry .* no class; expected @register"):
        base.make_method("toy", Study.open("smoke").settings.mitigation, {}, 0, 1)


# -- both ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_both_together_from_the_cohort_to_their_cards(
    toy: type[Mitigation], toy_dataset: Path, tmp_path: Path
) -> None:
    roots = {"runs_root": str(tmp_path / "runs"), "figures_root": str(tmp_path / "figures")}
    changed = "methods=none,toy seeds=0"
    study = Study.open("smoke", "toy", changed, data_root=str(toy_dataset), **roots)
    for method in ("base", "none", "toy"):
        train(study, method, 0)
    write_protocol(study)  # before there is a test image
    made = [generate_run(study, *run) for run in study.settings.runs]
    assert all(table["images"].tolist() == [20, 80] for table in made)
    study.require("protocol", "base", "images")

    registered = check_protocol(study)
    result = collect_quality(study, registered.rule)
    names = {path.name for path in publish_quality(study, result)}
    assert "tab_toy_quality.csv" in names
    assert set(result.contrasts["attribute"]) == {"site", "hand"}
    assert {"none", "toy"} <= set(result.contrasts["method"])
    rows = [("kid", ["site", "hand"]), ("equivalent_blur", ["mark"])]
    fig(study, "fig03", result.main(registered.rule.features), rows=rows)
    downstream = measure_downstream(study, registered.rule)
    assert "tab_toy_downstream" in downstream.tables

    card(study, "audit", result, registered)
    page = (study.places.figures / "card.html").read_text(encoding="utf-8")
    assert "Toy hands" in page and "Hands of nobody." in page
    card(study, "model", "toy", 0)
    said = (study.places.figures / "cards" / "model_toy_seed0.md").read_text(encoding="utf-8")
    assert "Toy hands: toy, seed 0" in said and "Hands of nobody." in said
    jobs = {job.name for job in Jobs(study).notebooks}
    assert {"03_train_toy_seed0", "04_generate_toy_seed0", "05_quality"} <= jobs
