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
from fairdiff_lib.show import model_cards as hub_cards
from fairdiff_lib.study import folder_mark

SIMULATED = "fairgenmed_simulated"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a card asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def study(tmp_path: Path, dataset: str) -> tuple[Any, Places, Cohort]:
    """Settings, a layout below tmp_path, and five subjects: three train, the rarest level once."""
    settings = load_settings("smoke", dataset)
    layout = Places(settings, runs_root=str(tmp_path / "runs"), figures_root=str(tmp_path / "f"))
    spec = dataset_of(dataset).spec(settings.reading.coding)
    named = (*spec.attributes, *spec.conditions)
    rows: dict[str, Any] = {one.name: [one.levels[0]] * 4 + [one.levels[-1]] for one in named}
    rows |= {"subject": list("abcde"), "split": ["train", "train", "val", "test", "train"]}
    rows |= {"excluded": "", "prompt": "a photograph"}
    return settings, layout, Cohort(spec, pd.DataFrame(rows), tmp_path, "d" * 64)


def finished(settings: Any, layout: Places, method: str, seed: int) -> Path:
    folder = layout.base if method == "base" else layout.run(method, seed)
    stamp = make_stamp(settings, "d" * 64, {"method": method, "seed": seed})
    run = {"method": method, "seed": seed, "seconds": 12.5, "images_seen": 640, "stamp": stamp}
    write_json(folder / "run.json", run)
    return folder


@pytest.mark.parametrize("dataset", [SIMULATED, "ham10000"])
@pytest.mark.parametrize("method", ["base", "fairdiffusion"])
def test_a_model_card_says_what_the_run_knows(tmp_path: Path, dataset: str, method: str) -> None:
    settings, layout, cohort = study(tmp_path, dataset)
    folder = finished(settings, layout, method, 3)
    said = hub_cards.publish_model_card(settings, layout, cohort, method, 3)
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
    first = cohort.spec.attributes[0]
    assert f"| {first.name} | {first.levels[0]} | 2 |" in text  # training subjects, not all
    assert f"| {first.name} | {first.levels[-1]} | 1 |" in text
    for row in ("| seconds | 12.5 |", "| images seen | 640 |", f"| data hash | {'d' * 64} |"):
        assert row in text
    name = "model_base.md" if method == "base" else "model_fairdiffusion_seed3.md"
    copy = layout.figures / "cards" / name
    assert f"(../cards/{name})" in said and copy.read_bytes() == (folder / CARD).read_bytes()


def test_a_card_of_the_run_is_kept_and_the_same_run_gives_the_same_card(tmp_path: Path) -> None:
    settings, layout, cohort = study(tmp_path, SIMULATED)
    folder = finished(settings, layout, "none", 0)
    first = hub_cards.write_model_card(folder, settings, cohort, "none").read_bytes()
    assert hub_cards.write_model_card(folder, settings, cohort, "none").read_bytes() == first
    (folder / CARD).write_text("of an earlier training of this run")
    hub_cards.publish_model_card(settings, layout, cohort, "none", 0)
    assert (folder / CARD).read_bytes() == first


@pytest.mark.parametrize("dataset", [SIMULATED, "ham10000_simulated", "chexpert_simulated"])
def test_a_dataset_card_is_the_datasheet_and_is_no_data(tmp_path: Path, dataset: str) -> None:
    settings, layout, cohort = study(tmp_path, dataset)
    (layout.data / "train").mkdir(parents=True)
    (layout.data / "labels.csv").write_text("a")
    mark = folder_mark(layout.data)
    stamp = make_stamp(settings, cohort.data_hash)
    hub_cards.publish_dataset_card(settings, layout, cohort, stamp)
    assert folder_mark(layout.data) == mark
    (layout.data / "train" / CARD).write_text("in a split it would be data")
    assert folder_mark(layout.data) != mark
    card = DatasetCard.load(layout.data / CARD)
    assert "simulated" in card.data.tags and card.data.license == "apache-2.0"
    titles = [line for line in card.text.splitlines() if line.startswith("## ")]
    assert titles[:3] == ["## Intended use", *(f"## {title}" for title in hub_cards.FIRST)]
    sheet = (Path(__file__).parents[2] / "data" / "cards" / f"{dataset}.md").read_text()
    for section in sheet.split("\n## ")[1:]:
        assert section.strip() in card.text  # nothing of the datasheet is lost
    first = cohort.spec.attributes[0]
    assert f"| {first.name} | {first.levels[0]} | 2 | 1 | 1 |" in card.text


def test_real_data_get_no_card(tmp_path: Path) -> None:
    settings, layout, cohort = study(tmp_path, "ham10000")
    said = hub_cards.publish_dataset_card(settings, layout, cohort, {})
    assert "none is written" in said and not layout.figures.exists()
