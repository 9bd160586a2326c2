"""The index lists what exists, and the notebooks' short tables say what the histories hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairdiff_lib import report
from fairdiff_lib.cohorts import spec_for
from fairdiff_lib.config import InputError, SimulatorConfig, load_settings
from fairdiff_lib.store import Layout, read_json, write_json, write_table

SIMULATED = "fairgenmed_simulated"


def test_the_index_links_files_and_notebooks_that_exist(tmp_path: Path) -> None:
    layout = Layout(load_settings("smoke", SIMULATED), figures_root=str(tmp_path))
    with pytest.raises(InputError, match="no table or figure yet"):
        report.collect_index(layout)
    stamp = {"commit": "0123456789abcdef", "dirty": False}
    frame = pd.DataFrame({"value": [1]})
    write_table(frame, layout.figures / "tab02.csv", stamp)
    write_table(frame, layout.figures_all / "tab14.csv", stamp)
    write_json(layout.figures / "fig03.json", stamp)
    (layout.figures / "fig03.png").write_bytes(b"png")
    write_json(layout.figures / "card.json", stamp)
    (layout.figures / "card.html").write_text("page")
    index = report.collect_index(layout)
    assert list(index["id"]) == ["tab02", "card", "fig03", "tab14"]
    for row in index.itertuples():
        assert (layout.executed / str(row.file)).resolve().is_file()
    links = report.as_links(index)
    assert "[tab14](../../all/tab14.csv)" in links and "[09_verdict.ipynb]" in links


def test_a_file_that_spans_datasets_keeps_the_stamps_of_the_rows_it_keeps(tmp_path: Path) -> None:
    places = {
        name: Layout(load_settings("smoke", name), figures_root=str(tmp_path))
        for name in (SIMULATED, "ham10000")
    }

    def write(dataset: str, kept: list[str], commit: str, dirty: bool | None) -> dict[str, Any]:
        stamp = {"commit": commit, "dirty": dirty, "simulated": dataset == SIMULATED}
        table = pd.DataFrame({"dataset": kept})
        report.write_spanning(table, "tab14", places[dataset], stamp)
        found: dict[str, Any] = read_json(places[dataset].figures_all / "tab14.json")
        return found

    first = write(SIMULATED, [SIMULATED], "a", True)
    assert first["simulated"] is True and list(first["datasets"]) == [SIMULATED]
    both = write("ham10000", [SIMULATED, "ham10000"], "b", False)
    assert {name: own["commit"] for name, own in both["datasets"].items()} == {
        SIMULATED: "a",
        "ham10000": "b",
    }
    assert (both["commit"], both["dirty"], both["simulated"]) == ("b", True, True)
    row = report.collect_index(places["ham10000"]).iloc[0]
    assert row["commit"] == "b" and row["dirty"]
    alone = write("ham10000", ["ham10000"], "c", None)
    assert list(alone["datasets"]) == ["ham10000"]
    assert alone["dirty"] is None and alone["simulated"] is False


def test_every_listed_notebook_is_there() -> None:
    sources = Path(__file__).parents[1] / "notebooks"
    missing = {nb for _, nb in report.CONTENTS.values() if not (sources / f"{nb}.ipynb").is_file()}
    assert not missing


def history() -> pd.DataFrame:
    rows = [
        ("training", step, "loss", attribute, level, float(step))
        for step in range(1, 21)
        for attribute, level in (("", ""), ("sex", "Female"))
    ]
    rows += [("training", 20, "seconds", "", "", 99.0)]
    columns = ["stage", "step", "quantity", "attribute", "level", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_last_losses_are_of_the_last_tenth() -> None:
    table = report.last_losses(history())
    assert table["value"].tolist() == [19.5, 19.5]  # steps 19 and 20
    assert table["level"].tolist() == ["all", "Female"]


def test_training_scalars_take_the_first_and_the_last_loss() -> None:
    run = dict.fromkeys(report.COSTS, 1.0)
    scalars = report.training_scalars(history(), run)
    assert (scalars["first_loss"], scalars["last_loss"]) == (1.0, 20.0)
    assert scalars["seconds"] == 1.0


def test_tables_of_different_data_are_not_mixed(tmp_path: Path) -> None:
    layout = Layout(load_settings("smoke", SIMULATED), figures_root=str(tmp_path))
    for name, version in (("tab02", "a" * 64), ("tab04", "a" * 64), ("tab05", "b" * 64)):
        write_json(layout.figures / f"{name}.json", {"data_hash": version})
    assert report.data_version(layout, ("tab02", "tab04")) == "a" * 64
    with pytest.raises(InputError, match=r"tables of different data .tab02 aaaaaaaaaa, tab05 bbb"):
        report.data_version(layout, ("tab02", "tab05"))


def test_what_was_planted_is_named_by_level() -> None:
    plain = SimulatorConfig(difficulty_black=1.0)
    assert report.planted(plain) == {}
    both = SimulatorConfig(difficulty_black=3.0, heterogeneity_black=2.0, difficulty_hispanic=0.5)
    assert report.planted(both) == {
        ("race", "Black"): "camera noise x 3 and spread of appearance x 2",
        ("ethnicity", "Hispanic"): "camera noise x 0.5",
    }
    spec = spec_for(SIMULATED)
    assert all(level in spec.levels(name) for name, level in report.planted(both))
