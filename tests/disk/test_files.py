"""Disk: nothing half-written, content hashes, stamps without local paths."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import (
    atomic_file,
    atomic_folder,
    hash_file,
    hash_folder,
    read_json,
    read_table,
    refuse_other,
    write_json,
)
from fairdiff_lib.disk.places import PROJECT_ROOT, Places, record
from fairdiff_lib.disk.stamps import make_stamp, publish_table
from fairdiff_lib.run.cli import main
from fairdiff_lib.settings.errors import InputError


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk_leaves_the_old_file_or_none(tmp_path: Path, existed: bool) -> None:
    path = tmp_path / "table.csv"
    if existed:
        path.write_text("old")
    with pytest.raises(InputError, match=r"table.csv: disk full"), atomic_file(path) as part:
        part.write_text("half")
        raise full_disk()
    assert [p.name for p in tmp_path.iterdir()] == (["table.csv"] if existed else [])
    assert not existed or path.read_text() == "old"


@pytest.mark.parametrize("existed", [True, False])
def test_a_full_disk_leaves_the_old_folder_or_none(tmp_path: Path, existed: bool) -> None:
    path = tmp_path / "run"
    if existed:
        path.mkdir()
        (path / "old").touch()
    with pytest.raises(InputError, match="disk full"), atomic_folder(path) as part:
        (part / "new").touch()
        raise full_disk()
    assert [p.name for p in tmp_path.iterdir()] == (["run"] if existed else [])
    assert not existed or [p.name for p in path.iterdir()] == ["old"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_folder(tmp_path / "run") as part:
            (part / name).touch()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_place_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(InputError, match="cannot be written") as caught:
        write_json(tmp_path / "taken" / "x.json", {})
    assert "\n" not in str(caught.value)


def test_a_hash_follows_names_and_bytes_not_place_or_order(tmp_path: Path) -> None:
    for place, order in (("a", ["x", "y"]), ("b", ["y", "x"])):
        (tmp_path / place).mkdir()
        for name in order:
            (tmp_path / place / name).write_text(name * 3)
    same = hash_folder(tmp_path / "a")
    assert same == hash_folder(tmp_path / "b")
    (tmp_path / "b" / "x").write_text("xxX")
    assert same != hash_folder(tmp_path / "b")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "z")
    assert same != hash_folder(tmp_path / "a")


def test_a_table_and_its_stamp_stand_together(tmp_path: Path) -> None:
    settings = load_settings("smoke")
    given = {"preset": "smoke", "data_root": "somewhere", "seed": 3}
    stamp = make_stamp(settings, "abc", given)
    frame = pd.DataFrame({"level": ["Asian", "Black"], "value": [0.1, np.nan]})
    publish_table(frame, tmp_path / "tab_gates.csv", stamp)
    pd.testing.assert_frame_equal(read_table(tmp_path / "tab_gates.csv", ("value",)), frame)
    kept = json.loads((tmp_path / "tab_gates.json").read_text())
    assert set(kept) == {
        "parameters",
        "settings",
        "data_hash",
        "simulated",
        "versions",
        "hardware",
        "commit",
        "dirty",
        "files",
    }
    assert kept["files"] == {"tab_gates.csv": hash_file(tmp_path / "tab_gates.csv")}
    assert kept["parameters"] == {"preset": "smoke", "seed": 3}  # no folder of this machine
    assert kept["simulated"] is True and kept["data_hash"] == "abc"
    assert str(PROJECT_ROOT) not in json.dumps(kept)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "missing; expected a CSV"),
        ("", "not readable as CSV"),
        ("a,b\n1,2\n", "lacks the column.*value; has a, b"),
    ],
)
def test_bad_tables_are_one_clear_line(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tab.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_table(path, ("value",))
    assert "\n" not in str(caught.value) and "tab.csv" in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [(None, "missing"), ("{", "not readable as JSON")])
def test_bad_json_is_one_clear_line(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_json(path)


def test_a_run_folder_depends_on_what_the_run_depends_on() -> None:
    plain = load_settings("smoke")
    here = Places(plain)
    audit = Places(replace(plain, audit=replace(plain.audit, bootstrap=7)))
    assert audit.run("none", 0) == here.run("none", 0)
    window = Places(replace(plain, mitigation=replace(plain.mitigation, time_window=2)))
    assert window.run("fairdiffusion", 0) != here.run("fairdiffusion", 0)
    assert window.run("none", 0) == here.run("none", 0)  # the baseline has no window
    sampler = Places(replace(plain, generation=replace(plain.generation, steps=2)))
    assert sampler.run("none", 0) == here.run("none", 0)
    assert sampler.generated("none", 0) != here.generated("none", 0)
    other = Places(load_settings("smoke", "ham10000"), data_root="elsewhere")
    assert other.base != Places(load_settings("smoke", "ham10000")).base


def test_recorded_scalars_are_plain(tmp_path: Path) -> None:
    layout = Places(load_settings("smoke"), runs_root=str(tmp_path))
    record(layout, "05", {"n": np.int64(3), "kid": np.float64("nan"), "gate": True})
    kept = read_json(layout.records / "05.json")
    assert kept == {"n": 3, "kid": None, "gate": True}


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    refuse_other(taken, "html")  # isn't there yet
    taken.mkdir()
    refuse_other(taken, need="simulated.json")  # empty
    (taken / "html").touch()
    refuse_other(taken, "html", "source")
    for known, need in ((("source",), ""), ((), "simulated.json")):
        with pytest.raises(InputError, match="taken: holds html, which would be lost"):
            refuse_other(taken, *known, need=need)
    refuse_other(taken, need="html")
    with pytest.raises(InputError, match="a file; expected a new or empty folder"):
        refuse_other(taken / "html")


@pytest.mark.parametrize("command", ["simulate", "verify", "book"])
def test_no_command_empties_a_folder_of_others(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("years of work")
    assert main([command, "--output", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "holds mine.txt, which would be lost" in said and said.count("\n") == 1
    assert (tmp_path / "mine.txt").read_text() == "years of work"
