"""Disk: nothing half-written, content hashes, stamps without local paths."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fairdiff_lib.disk.files import (
    atomic_file,
    atomic_folder,
    check_replaceable,
    files_below,
    hash_folder,
    read_json,
    read_table,
    refuse_other,
    write_json,
)
from fairdiff_lib.run.cli import main
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.study import folder_mark


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


@pytest.mark.parametrize("command", ["simulate", "verify"])
def test_no_command_empties_a_folder_of_others(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("years of work")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place, words in ((tmp_path, "holds"), (tmp_path / "loop", "a link to nothing")):
        assert main([command, "--output", str(place)]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    assert (tmp_path / "mine.txt").read_text() == "years of work"


def test_a_folder_that_cannot_be_replaced_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"file: a file; expected a new or empty folder"):
            check_replaceable(place)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="the folder that you are in"):
        check_replaceable(Path())
    denied = str(tmp_path / "theirs")
    may = os.access
    monkeypatch.setattr(os, "access", lambda place, *_, **__: str(place) != denied and may("/", 0))
    Path(denied).mkdir()
    for place in (Path(denied), Path(denied) / "new"):
        with pytest.raises(InputError, match="cannot be written"):
            check_replaceable(place)
    check_replaceable(tmp_path / "new")


BAD_PLACES: dict[str, str] = {
    "loop": "a link to nothing",
    "gone": "a link to nothing",
    "x" * 250: "too long a name for a folder",
    "new/" + "x" * 250: "too long a name for a folder",
    ".": "the folder that you are in",
    "..": "the folder that you are in",
    "here": "the folder that you are in",  # a link to it
}


@pytest.mark.parametrize("name", BAD_PLACES)
def test_a_place_that_can_not_be_is_refused_before_the_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "here").symlink_to(inside)
    monkeypatch.chdir(inside)
    with pytest.raises(InputError, match=BAD_PLACES[name]):
        check_replaceable(Path(name) if name.startswith(".") else tmp_path / name)


def test_a_disk_without_space_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Full)
    with pytest.raises(InputError, match="disk full; free some space"):
        check_replaceable(tmp_path / "new")


class Full:
    """What ``shutil.disk_usage`` says of a full disk."""

    free = 1000


def test_a_folder_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "out"
    with (
        pytest.raises(InputError, match="cannot be written"),
        atomic_folder(place, replace=False) as folder,
    ):
        (folder / "mine").touch()
        place.mkdir()
        (place / "theirs").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in place.iterdir()] == ["theirs"]


def test_an_interrupted_replacement_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    place.mkdir()
    (place / "old").touch()
    rename, moved = Path.rename, []

    def stopped(path: Path, target: Path) -> Path:
        if len(moved) == 1:  # Ctrl-C when the old one is out of the way
            moved.append(path)
            raise KeyboardInterrupt
        moved.append(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt), atomic_folder(place):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in place.iterdir()] == ["old"]


def test_files_below_a_link_belong_to_the_folder(tmp_path: Path) -> None:
    """Data often lie on another disk: a change of them must be seen."""
    root, disk = tmp_path / "data", tmp_path / "disk"
    (root / "inner").mkdir(parents=True)
    disk.mkdir()
    (root / "images").symlink_to(disk)
    (root / "inner" / "up").symlink_to(root)  # a loop
    (root / "nowhere").symlink_to(tmp_path / "gone")
    (disk / "a.png").write_text("one")
    names = [path.relative_to(root).as_posix() for path in files_below(root)]
    assert names == ["nowhere", "images/a.png"]
    before = folder_mark(root), hash_folder(root)
    (disk / "a.png").write_text("other")
    assert folder_mark(root) != before[0] and hash_folder(root) != before[1]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    scratch, link = tmp_path / "scratch", tmp_path / "results"
    scratch.mkdir()
    link.symlink_to(scratch)
    with atomic_folder(link) as folder:
        (folder / "card.html").write_text("x")
    assert link.is_symlink() and (scratch / "card.html").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "scratch"]
