"""An executed notebook, read: its title, parameters, the stamp that it printed, its errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.files import read_json
from fairdiff_lib.settings.errors import InputError

INJECTED = "injected-parameters"  # papermill's tag of the cell that overrides the defaults


@dataclass(frozen=True)
class Executed:
    """What an executed copy says of itself.

    Attributes
    ----------
    path : Path
    title : str
        Its first heading.
    parameters : dict
        Defaults and what was given.
    stamp : dict
        As its last cells printed it: parameters, data_hash, versions, commit, dirty; empty
        where none was printed.
    text : tuple of str
        Kind and source of each cell, but for the injected parameters: what the source had.
    errors : tuple of str
        Of cells that raised.
    """

    path: Path
    title: str
    parameters: dict[str, Any]
    stamp: dict[str, Any]
    text: tuple[str, ...]
    errors: tuple[str, ...]


def read_executed(path: Path) -> Executed:
    """Read an executed copy.

    Raises
    ------
    InputError
        It is missing, or no notebook.
    """
    cells = cells_of(path, read_json(path))
    parameters: dict[str, Any] = {}
    for cell in cells:
        if {"parameters", INJECTED} & set(_tags(cell)):
            parameters |= _assigned(joined(cell["source"]))
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    errors = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
    return Executed(
        path, title_of(cells), parameters, _printed_stamp(outputs), text_of(cells), tuple(errors)
    )


def cells_of(path: Path | str, notebook: Any) -> list[dict[str, Any]]:
    """Cells of a notebook that was read as JSON.

    Raises
    ------
    InputError
        It has none.
    """
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise InputError(f"{path}: no notebook of version 4 (no cells)")
    return cells


def text_of(cells: list[dict[str, Any]]) -> tuple[str, ...]:
    """Kind and source of each cell that a source notebook has too."""
    own = [cell for cell in cells if INJECTED not in _tags(cell)]
    return tuple(f"{cell['cell_type']}\n{joined(cell['source'])}" for cell in own)


def title_of(cells: list[dict[str, Any]]) -> str:
    """The first heading, without its mark; empty without one."""
    for cell in cells:
        for line in joined(cell["source"]).splitlines() if cell["cell_type"] == "markdown" else ():
            if line.startswith("# "):
                return line.removeprefix("# ").strip()
    return ""


def joined(text: str | list[str]) -> str:
    """A cell's or an output's text; the format allows a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def _tags(cell: Mapping[str, Any]) -> list[str]:
    tags: list[str] = cell.get("metadata", {}).get("tags", [])
    return tags


def _assigned(source: str) -> dict[str, Any]:
    """Names and plain values that a parameters cell assigns."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def _printed_stamp(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """The last plain output that is a stamp."""
    for text in reversed(list(_plain(outputs))):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, dict) and {"data_hash", "commit"} <= set(value):
            return value
    return {}


def _plain(outputs: list[dict[str, Any]]) -> Iterator[str]:
    for output in outputs:
        if "text/plain" in output.get("data", {}):
            yield joined(output["data"]["text/plain"])
