"""One source, three copies: student notebooks, instructor notebooks, the learner's handout.

In ``notebooks/workshop`` a cell's tag says whom it is for: ``student`` (the blank), ``solution``,
``wrong`` (what the tests answer to see each misconception's own message), ``instructor``. A cell
without one of these is everybody's. One tagged ``shows:NAME`` has the picture NAME as its output in
the instructor's copy, before anything was run.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.files import atomic_folder, hash_file, read_json, refuse_other, write_json
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.settings.errors import InputError

SOURCES = PROJECT_ROOT / "notebooks" / "workshop"
PAGES = PROJECT_ROOT / "docs" / "workshop"
PICTURES = PAGES / "pictures"
TAGS = ("student", "solution", "wrong", "instructor")
KEPT = {  # copy -> tags that it keeps, besides untagged cells
    "student": ("student",),
    "instructor": ("solution", "instructor"),
    "right": ("solution",),
    "wrong": ("wrong",),
}
BUILT = ("student", "instructor")
SHOWS = "shows:"
MARK = "workshop.json"  # by which a folder is known, and a learner's answers
HANDOUT, SLIDES = "handout.md", "slides.md"
HANDED = (MARK, HANDOUT, SLIDES, PICTURES.name, *BUILT)


def sources() -> list[Path]:
    """The exercises, in their order."""
    return sorted(SOURCES.glob("*.ipynb"))


def copy_of(notebook: dict[str, Any], kind: str) -> dict[str, Any]:
    """The copy of a notebook for students, instructors, or a test's right or wrong answers."""
    cells = []
    for cell in notebook["cells"]:
        if not _is_kept(cell, kind):
            continue
        tags = cell["metadata"].get("tags", [])
        metadata = {key: value for key, value in cell["metadata"].items() if key != "tags"}
        shows = [tag.removeprefix(SHOWS) for tag in tags if tag.startswith(SHOWS)]
        if kind == "instructor" and shows:
            cell = {**cell, "outputs": [_picture(name) for name in shows]}
        cells.append({**cell, "metadata": metadata})
    return {**notebook, "cells": cells}


def shown_cells(notebook: dict[str, Any], kind: str) -> Iterator[tuple[int, str]]:
    """Places in a copy of the cells that show a picture, and the pictures' names."""
    kept = [cell for cell in notebook["cells"] if _is_kept(cell, kind)]
    for place, cell in enumerate(kept):
        for tag in cell["metadata"].get("tags", []):
            if tag.startswith(SHOWS):
                yield place, tag.removeprefix(SHOWS)


def _is_kept(cell: dict[str, Any], kind: str) -> bool:
    whose = set(TAGS) & set(cell["metadata"].get("tags", []))
    return not whose or bool(whose & set(KEPT[kind]))


def _picture(name: str) -> dict[str, Any]:
    """A committed picture as a cell's output."""
    path = PICTURES / f"{name}.png"
    alt = read_json(path.with_suffix(".json"))["parameters"]["alt"]
    data = {"image/png": base64.b64encode(path.read_bytes()).decode(), "text/plain": [alt]}
    metadata = {"image/png": {"alt": alt, "width": 760}}
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def build(folder: Path | str, force: bool = False) -> Path:
    """Write both copies, the handout and the slides into a new folder, or an earlier build's.

    One that holds something else, or a learner's answers (unless ``force``), is refused.
    """
    folder = Path(folder)
    refuse_other(folder.absolute(), *HANDED, need=MARK)
    answered = list(_answered(folder))
    if answered and not force:
        raise InputError(
            f"{folder}: {answered[0]} was worked on; give another folder, or --force to lose it"
        )
    with atomic_folder(folder) as place:
        for kind in BUILT:
            (place / kind).mkdir()
            for path in sources():
                write_notebook(place / kind / path.name, copy_of(read_notebook(path), kind))
        (place / HANDOUT).write_text(handout(), encoding="utf-8")
        shutil.copyfile(PAGES / SLIDES, place / SLIDES)
        shutil.copytree(PICTURES, place / PICTURES.name)
        hashes = {path.name: hash_file(path) for path in sorted((place / "student").iterdir())}
        write_json(place / MARK, {"student": hashes})
    return folder


def _answered(folder: Path) -> Iterator[str]:
    """Notebooks among the student copies that are not as the build wrote them."""
    known = read_json(folder / MARK)["student"] if (folder / MARK).is_file() else {}
    for path in sorted((folder / "student").glob("*.ipynb")):
        if known.get(path.name) != hash_file(path):
            yield f"student/{path.name}"


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook as plain JSON."""
    found: dict[str, Any] = read_json(path)
    return found


def write_notebook(path: Path, notebook: dict[str, Any]) -> None:
    """A notebook as Jupyter writes it."""
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# -- the handout ---------------------------------------------------------------------------------


def handout() -> str:
    """What a learner has on paper: questions with room to write, glossary, exit questions."""
    lines = ["# Is this generator fair, and would you have noticed?", "",
             "Write your predictions down before you run anything. A wrong guess costs nothing.",
             ""]  # fmt: skip
    for path in sources():
        lines += _questions(read_notebook(path)["cells"])
    for page in ("glossary.md", "exit_questions.md"):
        text = (PAGES / page).read_text(encoding="utf-8").partition("\n## Answers")[0]
        lines += [text.strip().replace("# ", "## ", 1), ""]
    return "\n".join(lines)


def _questions(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The title and the predictions of one exercise."""
    own = [cell for cell in cells if not cell.get("metadata", {}).get("tags")]
    texts = ["".join(cell["source"]) for cell in own if cell["cell_type"] == "markdown"]
    lines = [f"## {texts[0].splitlines()[0].lstrip('# ')}", ""]
    for text in texts:
        _, asked, after = text.partition("## Predict")
        if asked:
            lines += [after.partition("\n")[2].strip(), ""]
            lines += ["Your prediction: ______  After the run: ______", ""]
        elif "xplain\n" in text:
            lines += ["In one sentence: " + "_" * 60, ""]
    return lines
