"""One source, three copies: student notebooks, instructor notebooks, the learner's handout.

In ``notebooks/workshop`` a cell's tag says whom it is for: ``student`` (the blank), ``solution``,
``wrong`` (what the tests answer to see each misconception's own message), ``instructor``. A cell
without one of these is everybody's.
"""

from __future__ import annotations

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
TAGS = ("student", "solution", "wrong", "instructor")
KEPT = {  # copy -> tags that it keeps, besides untagged cells
    "student": ("student",),
    "instructor": ("solution", "instructor"),
    "right": ("solution",),
    "wrong": ("wrong",),
}
BUILT = ("student", "instructor")
MARK = "workshop.json"  # by which a folder is known, and a learner's answers
HANDOUT, SLIDES, PICTURES = "handout.md", "slides.md", "pictures"
HANDED = (MARK, HANDOUT, SLIDES, PICTURES, *BUILT)


def sources() -> list[Path]:
    """The exercises, in their order."""
    return sorted(SOURCES.glob("*.ipynb"))


def copy_of(notebook: dict[str, Any], kind: str) -> dict[str, Any]:
    """The copy of a notebook for students, instructors, or a test's right or wrong answers."""
    cells = []
    for cell in notebook["cells"]:
        tags = cell.get("metadata", {}).get("tags", [])
        whose = [tag for tag in tags if tag in TAGS]
        if whose and not set(whose) & set(KEPT[kind]):
            continue
        left = [tag for tag in tags if tag not in TAGS]
        metadata = {**cell.get("metadata", {}), "tags": left}
        if not left:
            del metadata["tags"]
        cells.append({**cell, "metadata": metadata})
    return {**notebook, "cells": cells}


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
        (place / PICTURES).mkdir()
        for path in sorted((PAGES / PICTURES).glob("*.png")):
            shutil.copyfile(path, place / PICTURES / path.name)
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
