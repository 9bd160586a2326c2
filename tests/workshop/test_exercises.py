"""Every exercise with right and with wrong answers; what students get."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import papermill
import pytest

from fairdiff_lib.workshop.build import copy_of, read_notebook, sources, write_notebook
from fairdiff_lib.workshop.questions import QUESTIONS

NAMES = [path.stem for path in sources()]
SAID = re.compile(r"^(Right\.|Not yet\.|First predict|Put your answer|Write your prediction)")


def source(name: str) -> dict[str, Any]:
    return read_notebook(next(path for path in sources() if path.stem == name))


def said(notebook: Any) -> list[str]:
    """What the checks said, cell by cell."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = " ".join("".join(output.get("text", "")).split())
            if output.get("name") == "stdout" and SAID.match(text):
                found.append(text)
    return found


def run(name: str, kind: str, folder: Path) -> list[str]:
    path, done = folder / f"{name}.ipynb", folder / "done.ipynb"
    write_notebook(path, copy_of(source(name), kind))
    executed = papermill.execute_notebook(path, done, cwd=folder, kernel_name="python3")
    return said(executed)


def checks(name: str, kind: str) -> int:
    cells = copy_of(source(name), kind)["cells"]
    return sum("check(" in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_right_answers_pass(name: str, tmp_path: Path) -> None:
    found = run(name, "right", tmp_path)
    assert len(found) == checks(name, "right")
    assert [text for text in found if not text.startswith("Right.")] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_wrong_answers_are_told_what_is_wrong(name: str, tmp_path: Path) -> None:
    found = run(name, "wrong", tmp_path)
    assert len(found) == checks(name, "wrong")
    assert [text for text in found if not text.startswith("Not yet.")] == []
    assert len(set(found)) == len(found), "two mistakes get the same message"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_student_copy_runs_from_top_to_bottom_without_answers(name: str, tmp_path: Path) -> None:
    found = run(name, "student", tmp_path)
    assert not any(text.startswith(("Right.", "Not yet.")) for text in found)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_copy_holds_no_solution(name: str) -> None:
    whole, copy = source(name), copy_of(source(name), "student")
    kept = {"".join(cell["source"]) for cell in copy["cells"]}
    for cell in whole["cells"]:
        tags = cell["metadata"].get("tags", [])
        if {"solution", "wrong", "instructor"} & set(tags):
            same = "".join(cell["source"]) in kept
            blank = any("".join(c["source"]) == "".join(cell["source"])
                        and "student" in c["metadata"].get("tags", [])
                        for c in whole["cells"])  # fmt: skip
            assert not same or blank  # a cell that asks nothing may be the same for all
    text = "".join("".join(cell["source"]) for cell in copy["cells"])
    assert "Instructor" not in text
    for cell in copy["cells"]:
        words = "".join(cell["source"])
        if cell["cell_type"] == "code" and re.search(r"(check|predict)\(", words):
            assert "..." in words, words
    assert all(not cell["metadata"].get("tags") for cell in copy["cells"])


def test_every_question_is_asked_once_in_the_notebooks_and_has_its_answers() -> None:
    for kind in ("student", "right", "wrong"):
        asked: list[str] = []
        for name in NAMES:
            cells = copy_of(source(name), kind)["cells"]
            text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
            asked += dict.fromkeys(re.findall(r'check\("(\w+)"', text))
        assert sorted(asked) == sorted(QUESTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_predicted_has_its_letters_in_the_text(name: str) -> None:
    cells = copy_of(source(name), "student")["cells"]
    text, last = "", {}
    for cell in cells:
        words = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = words
        for question in re.findall(r'(?:check|predict)\("(\w+)"', words):
            last.setdefault(question, text)
    for question, words in last.items():
        for letter in QUESTIONS[question].choices:
            assert f"({letter})" in words, (question, letter)


@pytest.mark.parametrize("name", NAMES)
def test_a_source_is_clean_and_short(name: str) -> None:
    """Studies have 30 cells and a parameters cell. An exercise's source holds three copies at
    once, so the 30 are asked of the copy that a learner reads (a page more for the one with
    instructions and answers); and what a learner changes is the blanks: it has no parameters.
    """
    notebook = source(name)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len(copy_of(notebook, "student")["cells"]) <= 30
    assert len(copy_of(notebook, "instructor")["cells"]) <= 31
    assert not any("parameters" in c["metadata"].get("tags", []) for c in notebook["cells"])
    assert any("student" in c["metadata"].get("tags", []) for c in notebook["cells"])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            words = "".join(cell["source"])
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            assert len(words.splitlines()) <= 10
            assert not re.search(r"^\s*(def|class|while) |lambda", words, re.M)
