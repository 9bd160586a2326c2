"""One source, three copies; what a learner wrote is never lost."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.workshop.__main__ import main
from fairdiff_lib.workshop.build import (
    BUILT,
    PICTURES,
    build,
    copy_of,
    read_notebook,
    shown_cells,
    sources,
)
from fairdiff_lib.workshop.data import NUMBER, fill_pages


def test_a_build_has_both_copies_and_the_handout_and_is_built_again(tmp_path: Path) -> None:
    folder = build(tmp_path / "w")
    for kind in ("student", "instructor"):
        assert [p.name for p in sorted((folder / kind).iterdir())] == [p.name for p in sources()]
    paper = (folder / "handout.md").read_text()
    for number in range(7):
        assert f"\n## {number} " in paper
    assert paper.count("Your prediction:") == 10
    assert "## Answers" not in paper
    assert "Solution" not in paper
    assert build(folder) == folder  # nothing was worked on


def test_an_instructor_copy_has_solutions_and_what_to_say(tmp_path: Path) -> None:
    folder = build(tmp_path / "w")
    for path in sorted((folder / "instructor").iterdir()):
        text = path.read_text()
        for word in ("**Instructor.**", "minutes", "To hear before going on", "Expected picture"):
            assert word in text, (path.name, word)


def test_an_instructor_copy_shows_the_expected_pictures_and_a_student_copy_none() -> None:
    for path in sources():
        notebook = read_notebook(path)
        copies = {kind: copy_of(notebook, kind)["cells"] for kind in BUILT}
        shown = [x for cell in copies["instructor"] for x in cell.get("outputs", [])]
        names = [name for _, name in shown_cells(notebook, "instructor")]
        assert len(shown) == len(names) >= 1, path.name
        for name, output in zip(names, shown, strict=True):
            committed = (PICTURES / f"{name}.png").read_bytes()
            assert base64.b64decode(output["data"]["image/png"]) == committed
            assert output["metadata"]["image/png"]["alt"]
        assert not any(cell.get("outputs") for cell in copies["student"])


def test_answers_are_not_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build(tmp_path / "w")
    path = folder / "student" / "0_look.ipynb"
    notebook = read_notebook(path)
    notebook["cells"][0]["source"] = ["mine"]
    path.write_text(json.dumps(notebook))
    assert main(["build", str(folder)]) == 2
    assert "student/0_look.ipynb was worked on" in capsys.readouterr().err
    assert "mine" in path.read_text()
    assert main(["build", str(folder), "--force"]) == 0
    assert "mine" not in path.read_text()


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match=r"holds thesis\.txt"):
        build(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_the_machine_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "Ready" in capsys.readouterr().out


def test_pictures_are_stamped() -> None:
    from fairdiff_lib.disk.files import hash_file, read_json

    for path in sorted(PICTURES.glob("*.png")):
        stamp = read_json(path.with_suffix(".json"))
        assert stamp["simulated"] is True
        assert stamp["files"] == {path.name: hash_file(path)}


@pytest.mark.slow
def test_the_pages_quote_what_the_data_say(tmp_path: Path) -> None:
    """A number in a page is written by the command; changed data leave no old number behind."""
    pages = PICTURES.parent
    for path in pages.glob("*.md"):
        shutil.copyfile(path, tmp_path / path.name)
    assert fill_pages(tmp_path) == []
    lay = tmp_path / "lay.md"
    text = lay.read_text()
    assert len(NUMBER.findall(text)) == 3
    lay.write_text(NUMBER.sub(r"<!-- \1 -->7 of 9<!-- -->", text))
    assert fill_pages(tmp_path) == [lay]
    assert lay.read_text() == text


def test_the_guide_has_the_lean_environment_and_the_glossary_twenty_words() -> None:
    root = PICTURES.parents[2]
    rows = (PICTURES.parent / "glossary.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in rows) - 1 == 20
    lean = (root / ".binder" / "requirements.txt").read_text().split()
    assert not {"torch", "diffusers", "snakemake"} & set(lean)
    project = (root / "pyproject.toml").read_text()
    for name in lean[lean.index("../constraints.txt") + 1 :]:
        assert f'"{name}"' in project
