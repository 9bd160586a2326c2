"""Notebook 00: what was run, and where every table and figure of a study lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fairdiff_lib.datasets import contents
from fairdiff_lib.disk.files import read_json
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import short_name
from fairdiff_lib.settings.notebooks import NOTEBOOKS
from fairdiff_lib.show.front import sentence

if TYPE_CHECKING:
    from fairdiff_lib.study import Study

KINDS = {"tab": "csv", "fig": "png"}  # the rest are cards: html


def runs_table(study: Study) -> pd.DataFrame:
    """Every run of the study: method, seed, and what it cost."""
    places, runs = study.places, study.settings.runs
    folders = [places.base, *(places.run(method, seed) for method, seed in runs)]
    columns = ["method", "seed", "seconds", "seconds_per_step", "peak_memory_gib"]
    made = [read_json(folder / "run.json") for folder in folders]
    return pd.DataFrame([{name: run[name] for name in columns} for run in made])


def collect_index(study: Study) -> pd.DataFrame:
    """Every table, figure and card that exists: id, title, file, notebook, commit, dirty.

    Files and notebooks are named relative to ``places.executed``, where the index is read.
    Of a file that spans data sets, the commit is its last run's; dirty if any of its runs was.

    Raises
    ------
    InputError
        There is none yet.
    """
    rows = []
    for name, (title, notebook) in contents().items():
        file = f"{name}.{KINDS.get(name[:3], 'html')}"
        for folder, way in _places(study):
            if (folder / file).is_file():
                stamp = read_json(folder / f"{name}.json")
                rows.append(
                    {
                        "id": name,
                        "title": title,
                        "file": f"{way}/{file}",
                        "notebook": notebook,
                        "commit": (stamp["commit"] or "none")[:10],
                        "dirty": bool(stamp["dirty"]),
                    }
                )
    if not rows:
        raise InputError(f"{study.places.figures}: no table or figure yet; run the study first")
    return pd.DataFrame(rows)


def _places(study: Study) -> list[tuple[Path, str]]:
    return [(study.places.figures, ".."), (study.places.figures_all, "../../all")]


@sentence("index")
def about_index(index: pd.DataFrame) -> str:
    """A list per notebook: its question, and links to what it made."""
    parts = []
    for name, entry in NOTEBOOKS.items():
        own = index[index["notebook"] == name].astype(str)
        if own.empty:
            continue
        files = [
            f"- [{short_name(str(row.id))}]({row.file}): {row.title}" for row in own.itertuples()
        ]
        way = "../ablation/executed/" if entry.study == "ablation" else ""
        head = f"**[{name[:2]} {entry.question}]({way}{name}.ipynb)**"
        parts.append("\n".join([head, "", *files]))
    return "\n\n".join(parts)


@sentence("missing")
def about_missing(index: pd.DataFrame) -> str:
    """Notebooks that have made nothing here, and the study that would run them."""
    made = set(index["notebook"])
    lines = [
        f"- {name[:2]} {entry.question} (`fairdiff run --study {entry.study}`)"
        for name, entry in NOTEBOOKS.items()
        if entry.study and (entry.tables or entry.figures or entry.of_dataset) and name not in made
    ]
    if not lines:
        return "Every notebook with tables or figures has been run."
    return "\n".join(["Not run here, each with the command that runs it:", "", *lines])


@sentence("state")
def about_state(index: pd.DataFrame) -> str:
    """Which code the files were made with."""
    commits = sorted(set(index["commit"]))
    text = f"The {len(index)} files were made with "
    text += f"commit {commits[0]}." if len(commits) == 1 else f"{len(commits)} different commits."
    changed = [short_name(name) for name in index.loc[index["dirty"], "id"]]
    if changed:
        text += f" The code differed from its commit for {len(changed)} of them."
    return text
