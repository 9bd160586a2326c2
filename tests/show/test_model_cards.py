"""Cards can be read back by huggingface_hub, begin with use and limits, and change no data."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from huggingface_hub import DatasetCard, ModelCard

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.files import write_json
from fairdiff_lib.disk.places import CARD, Places
from fairdiff_lib.disk.stamps import make_stamp
from fairdiff_lib.show import cards
from fairdiff_lib.study import Study, folder_mark

SIMULATED = "fairgenmed_simulated"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a card asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def toy(tmp_path: Path, dataset: str) -> Study:
    """A study below tmp_path of five subjects: three train, the rarest level once."""
    settings = load_settings("smoke", dataset)
    layout = Places(settings, runs_root=str(tmp_path / "runs"), figures_root=str(tmp_path / "f"))
    spec = dataset_of(dataset).spec(settings.reading.coding)
    named = (*spec.attributes, *spec.conditions)
    rows: dict[str, Any] = {one.name: [one.levels[0]] * 4 + [one.levels[-1]] for one in named}
    rows |= {"subject": list("abcde"), "split": ["train", "train", "val", "test", "train"]}
    rows |= {"excluded": "", "prompt": "a photograph"}
    study = Study(settings, layout)
    study.__dict__["cohort"] = Cohort(spec, pd.DataFrame(rows), tmp_path, "d" * 64)
    return study


def finished(study: Study, method: str, seed: int) -> Path:
    base = method == "base"
    folder = study.places.base if base else study.places.run(method, seed)
    stamp = make_stamp(study.settings, "d" * 64, {"method": method, "seed": seed})
    run = {"method": method, "seed": seed, "seconds": 12.5, "images_seen": 640, "stamp": stamp}
    write_json(folder / "run.json", run)
    return folder


@pytest.mark.parametrize("dataset", [SIMULATED, "ham10000"])
@pytest.mark.parametrize("method", ["base", "fairdiffusion"])
def test_a_model_card_says_what_the_run_knows(tmp_path: Path, dataset: str, method: str) -> None:
    study = toy(tmp_path, dataset)
    folder = finished(study, method, 3)
    said = cards.publish_model_card(study, method, 3)
    card, data = ModelCard.load(folder / CARD), ModelCard.load(folder / CARD).data
    simulated = dataset == SIMULATED
    assert (data.library_name, data.pipeline_tag) == ("diffusers", "text-to-image")
    assert data.datasets == [dataset] and ("simulated" in data.tags) is simulated
    assert data.license == ("apache-2.0" if simulated else "other")
    assert data.base_model == (f"{dataset}-base" if method != "base" else None)
    text = card.text
    places = [text.index(f"## {title}") for title in
              ("Intended use", "Limits", "How it was trained", "How to load it")]  # fmt: skip
    assert places == sorted(places) and "Not for clinical use" in text
    assert ("Simulated data" in text) is simulated
    assert ("Fair Bayesian Perturbation" in text) is (method == "fairdiffusion")
    assert ("| mitigation.time_window |" in text) is (method == "fairdiffusion")
    first = study.cohort.spec.attributes[0]
    assert f"| {first.name} | {first.levels[0]} | 2 |" in text  # training subjects, not all
    assert f"| {first.name} | {first.levels[-1]} | 1 |" in text
    for row in ("| seconds | 12.5 |", "| images seen | 640 |", f"| data hash | {'d' * 64} |"):
        assert row in text
    name = "model_base.md" if method == "base" else "model_fairdiffusion_seed3.md"
    copy = study.places.figures / "cards" / name
    assert f"(../cards/{name})" in said and copy.read_bytes() == (folder / CARD).read_bytes()


def test_a_card_of_the_run_is_kept_and_the_same_run_gives_the_same_card(tmp_path: Path) -> None:
    study = toy(tmp_path, SIMULATED)
    folder = finished(study, "none", 0)
    first = cards.write_model_card(study, folder, "none").read_bytes()
    assert cards.write_model_card(study, folder, "none").read_bytes() == first
    (folder / CARD).write_text("of an earlier training of this run")
    cards.publish_model_card(study, "none", 0)
    assert (folder / CARD).read_bytes() == first


@pytest.mark.parametrize("dataset", [SIMULATED, "ham10000_simulated", "chexpert_simulated"])
def test_a_dataset_card_is_the_datasheet_and_is_no_data(tmp_path: Path, dataset: str) -> None:
    study = toy(tmp_path, dataset)
    (study.places.data / "train").mkdir(parents=True)
    (study.places.data / "labels.csv").write_text("a")
    mark = folder_mark(study.places.data)
    cards.publish_data_card(study)
    assert folder_mark(study.places.data) == mark
    (study.places.data / "train" / CARD).write_text("in a split it would be data")
    assert folder_mark(study.places.data) != mark
    card = DatasetCard.load(study.places.data / CARD)
    assert "simulated" in card.data.tags and card.data.license == "apache-2.0"
    titles = [line for line in card.text.splitlines() if line.startswith("## ")]
    assert titles[:3] == ["## Intended use", *(f"## {title}" for title in cards.FIRST)]
    sheet = (Path(__file__).parents[2] / "data" / "cards" / f"{dataset}.md").read_text()
    for section in sheet.split("\n## ")[1:]:
        assert section.strip() in card.text  # nothing of the datasheet is lost
    first = study.cohort.spec.attributes[0]
    assert f"| {first.name} | {first.levels[0]} | 2 | 1 | 1 |" in card.text


def test_real_data_get_no_card(tmp_path: Path) -> None:
    study = toy(tmp_path, "ham10000")
    said = cards.publish_data_card(study)
    assert "none is written" in said and not study.places.figures.exists()
