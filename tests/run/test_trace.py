"""A chain from the data to a table: what was changed is found, what isn't here is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.stamps import (
    BROKEN,
    OK,
    UNVERIFIABLE,
    git,
    hashes_of,
    make_stamp,
    publish_table,
    read_stamp,
)
from fairdiff_lib.run.cli import main
from fairdiff_lib.run.verify import broken, commit_link, stamp_links, trace
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.verdict.protocol import content_hash
from fairdiff_lib.study import folder_mark

DATA, OTHER = "d" * 64, "e" * 64


@pytest.fixture
def places(tmp_path: Path) -> Places:
    roots = {"runs_root": str(tmp_path / "runs"), "figures_root": str(tmp_path / "figures")}
    return Places(load_settings("smoke"), **roots)


@pytest.fixture
def table(places: Places) -> Path:
    """Data <- cohort <- run <- images <- table, as a study leaves them; all is as committed."""
    given = {"preset": "smoke", "dataset": places.settings.dataset}
    stamp = make_stamp(places.settings, DATA, given) | {"commit": git("rev-parse", "HEAD")}
    stamp["dirty"] = False
    places.data.mkdir(parents=True)
    (places.data / "one.npz").write_text("patient")
    write_json(places.cohort / "cohort.json", {"data_hash": DATA, "mark": folder_mark(places.data)})
    cohort, run = places.cohort / "cohort.csv", places.run("none", 0) / "run.json"
    cohort.write_text("image\none\n")
    write_json(run, {"stamp": stamp, "rests_on": hashes_of(places, [cohort])})
    images = places.generated("none", 0) / "test" / "manifest.csv"
    images.parent.mkdir(parents=True)
    images.write_text("image\nfirst\n")
    (images.parent / "first.png").write_text("picture")
    write_json(places.figures / "protocol.json", {
        "protocol": {"metric": "kid"}, "sha256": content_hash({"metric": "kid"}), "data_hash": DATA,
    })  # fmt: skip
    below = hashes_of(places, [run, images, cohort])
    path = places.figures / "tab_gates.csv"
    return publish_table(pd.DataFrame({"value": [1]}), path, {**stamp, "rests_on": below})


def states(path: Path, places: Places) -> dict[str, str]:
    return {link.name.rsplit("/", 1)[-1]: link.state for link in trace(path, places.runs_root)}


def test_a_whole_chain_is_right_from_the_data_to_the_table(table: Path, places: Places) -> None:
    found = states(table, places)
    wanted = {"data", "cohort.csv", "run.json", "manifest.csv", "test images", "tab_gates.csv"}
    assert set(found) >= wanted | {"protocol", "stamp"}
    assert set(found.values()) == {OK}


def rewrite(path: Path, change: Mapping[str, Any]) -> None:
    write_json(path, {**read_json(path), **change})


@pytest.mark.parametrize(
    ("which", "named"),
    [
        ("cohort.csv", "cohort.csv"),
        ("run.json", "run.json"),
        ("manifest.csv", "manifest.csv"),
        ("tab_gates.csv", "tab_gates.csv"),
        ("protocol.json", "protocol"),
    ],
)
def test_an_edit_anywhere_is_found(which: str, named: str, table: Path, places: Places) -> None:
    (path,) = table.parents[3].rglob(which)
    if path.suffix == ".json":
        rewrite(path, {"protocol": {"metric": "fid"}})
    else:
        path.write_text(path.read_text() + "more\n")
    assert [name for name, state in states(table, places).items() if state == BROKEN] == [named]


def test_lost_pictures_and_other_data_are_found(table: Path, places: Places) -> None:
    (picture,) = places.runs.rglob("first.png")
    picture.unlink()
    assert states(table, places)["test images"] == BROKEN
    rewrite(places.cohort / "cohort.json", {"data_hash": OTHER})
    assert states(table, places)["cohort.csv"] in (BROKEN, OK)
    details = [link.detail for link in broken(trace(table, places.runs_root))]
    assert any(f"of data {OTHER[:16]}" in detail for detail in details)


def test_a_part_with_a_protocol_of_its_own_is_held_to_that_one(table: Path, places: Places) -> None:
    """As the study of patients on whom nothing was planted, below the one that has the plant."""
    stamp = {**read_stamp(table.with_suffix(".json")), "data_hash": OTHER, "rests_on": {}}
    own = publish_table(pd.DataFrame({"value": [2]}), places.figures / "part" / "tab01.csv", stamp)
    assert states(own, places)["protocol"] == BROKEN  # the study's, of other data
    declared = read_json(places.figures / "protocol.json")
    write_json(own.with_name("protocol.json"), {**declared, "data_hash": OTHER})
    assert states(own, places)["protocol"] == OK


def test_what_cannot_be_checked_is_not_called_right(table: Path, places: Places) -> None:
    found = {link.state for link in trace(table, "no/such/runs") if "runs/" in link.name}
    assert found == {UNVERIFIABLE}
    (places.data / "one.npz").write_text("touched")
    assert any("touched since" in link.detail for link in trace(table, places.runs_root))
    rewrite(table.with_suffix(".json"), {"rests_on": {}})
    (chain,) = [link for link in trace(table, places.runs_root) if link.name == "chain"]
    assert chain.state == UNVERIFIABLE and "run the study again" in chain.detail


def test_a_file_without_its_stamp_and_a_missing_one(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing; expected a table or figure"):
        trace(tmp_path / "no.csv")
    table.with_suffix(".json").unlink()
    (link,) = trace(table)
    assert link.state == BROKEN and "tab_gates.json" in link.detail


@pytest.mark.parametrize(
    ("stamp", "words"),
    [
        ({"commit": None, "dirty": None}, "expected the 40 digits"),
        ({"commit": "0" * 40, "dirty": True}, "differed from its commit"),
        ({"commit": "0" * 40, "dirty": False}, "0000000000"),
    ],
)
def test_a_commit_that_did_not_make_it(stamp: dict[str, Any], words: str) -> None:
    link = commit_link("x", stamp)
    assert link.state in (BROKEN, UNVERIFIABLE) and words in link.detail


def test_the_command_prints_the_chain_and_names_what_is_broken(
    table: Path, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", str(table), "--runs-root", places.runs_root]) == 0
    assert "cohort.csv" in capsys.readouterr().out
    table.write_text("edited")
    assert main(["trace", str(table), "--runs-root", places.runs_root]) == 1
    assert "tab_gates.csv" in capsys.readouterr().err


def test_no_committed_stamp_is_broken() -> None:
    assert not broken(stamp_links(PROJECT_ROOT / "figures"))
