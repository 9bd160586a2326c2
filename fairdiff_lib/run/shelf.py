"""What there is to read: tables, figures and executed notebooks below ``figures``, by study."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from fairdiff_lib.datasets import contents
from fairdiff_lib.disk.files import read_json, read_table
from fairdiff_lib.run.executed import Executed, read_executed
from fairdiff_lib.run.links import parts_of, stamp_path, stamped_files
from fairdiff_lib.run.notebook import all_notebooks
from fairdiff_lib.run.trace import executed_copies
from fairdiff_lib.settings.names import short_name
from fairdiff_lib.show import style as looks


@dataclass(frozen=True)
class Item:
    """A table, figure or card, with its stamp.

    Attributes
    ----------
    files : tuple of Path
        Of one name: a table's CSV; a figure's PNG and PDF; a card's HTML and PNG.
    doc : str
        Its page in the book: where it lies below ``figures``, without suffix.
    stamp : dict
    copies : tuple of str
        Pages of the executed notebooks that made it.
    """

    files: tuple[Path, ...]
    doc: str
    stamp: dict[str, Any]
    copies: tuple[str, ...]

    @property
    def name(self) -> str:
        """As ``tab02``."""
        return self.doc.rsplit("/", 1)[-1]

    @property
    def is_table(self) -> bool:
        """Whether it is a table rather than a picture."""
        return self.files[0].suffix == ".csv"

    @property
    def short(self) -> str:
        """As T2 or F3; other names without what they begin with."""
        return short_name(self.name)

    @property
    def content(self) -> str:
        """What it holds, as the study's index says it."""
        return contents().get(self.name, ("", ""))[0]

    @property
    def title(self) -> str:
        """Heading of its page."""
        return f"{self.short}: {self.content}" if self.content else self.short

    @property
    def notebook(self) -> str:
        """Name of the notebook that makes it; empty for one that a command made."""
        return contents().get(self.name, ("", ""))[1]


@dataclass(frozen=True)
class Part:
    """A folder of the book: what one study left in one place.

    Attributes
    ----------
    place : str
        Below ``figures``, as ``quick/fairgenmed_simulated/ablation``.
    items : tuple of Item
    notebooks : dict
        Page -> executed notebook.
    """

    place: str
    items: tuple[Item, ...]
    notebooks: dict[str, Executed]

    @property
    def dataset(self) -> str:
        """The dataset's name; empty where several are spanned."""
        return self._setting("dataset")

    @property
    def preset(self) -> str:
        """The preset's name."""
        return self._setting("preset")

    def _setting(self, name: str) -> str:
        stamps = [part for item in self.items for part in parts_of(item.stamp)]
        own = [stamp.get("parameters", {}) for stamp in stamps]
        own += [copy.parameters for copy in self.notebooks.values()]
        values = {str(given[name]) for given in own if name in given}
        return values.pop() if len(values) == 1 else ""

    @property
    def title(self) -> str:
        """As "HAM10000, preset reference: ablation"."""
        leaf = self.place.rsplit("/", 1)[-1]
        spans = any("datasets" in item.stamp for item in self.items)
        whose = "All data sets" if spans or not self.dataset else looks.dataset_name(self.dataset)
        head = f"{whose}, preset {self.preset}" if self.preset else whose
        return head if leaf in (self.dataset, "all") else f"{head}: {leaf.replace('_', ' ')}"

    @property
    def simulated(self) -> bool:
        """Whether anything here rests on simulated data."""
        return any(item.stamp.get("simulated") for item in self.items)


def read_shelf(figures: Path) -> list[Part]:
    """All parts below a figures folder: the studies of one data set first.

    Parameters
    ----------
    figures : Path

    Returns
    -------
    list of Part
        Files without a stamp are not part of the book.
    """
    items = _read_items(figures)
    copies = sorted(figures.rglob("executed/*.ipynb"))
    places = {item.doc.rsplit("/", 1)[0] for item in items}
    places |= {copy.parent.parent.relative_to(figures).as_posix() for copy in copies}
    parts = []
    for place in sorted(places):
        own = tuple(item for item in items if item.doc.rsplit("/", 1)[0] == place)
        read = {
            copy.relative_to(figures).with_suffix("").as_posix(): read_executed(copy)
            for copy in copies
            if copy.parent.parent == figures / place
        }
        parts.append(Part(place, own, read))
    return sorted(
        parts, key=lambda part: (not part.place.endswith(part.dataset or "/"), part.place)
    )


def _read_items(figures: Path) -> list[Item]:
    def stem(path: Path) -> str:
        return path.relative_to(figures).with_suffix("").as_posix()

    items = []
    for doc, group in groupby(sorted(stamped_files(figures), key=stem), key=stem):
        files = sorted(group)  # .csv before .png, .html before .png
        if stamp_path(files[0]).is_file():
            pdf = files[0].with_suffix(".pdf")
            copies = [
                copy.relative_to(figures.resolve()).with_suffix("").as_posix()
                for copy in executed_copies(files[0])
            ]
            whole = (*files, pdf) if pdf.is_file() else tuple(files)
            items.append(Item(whole, doc, read_json(stamp_path(files[0])), tuple(copies)))
    return items


def questions(parts: Iterable[Part]) -> dict[str, str]:
    """Notebook's name -> the question in its title, from the executed copies; in their order."""
    known = sorted(all_notebooks())
    found = {}
    for part in parts:
        for doc, copy in part.notebooks.items():
            stem = doc.rsplit("/", 1)[-1]
            name = max((name for name in known if stem.startswith(name)), key=len, default=stem)
            found[name] = re.sub(r"^\d+ ", "", copy.title)
    return dict(sorted(found.items()))


def verdicts(parts: Iterable[Part], name: str = "tab14") -> pd.DataFrame:
    """Rows of every T14 (or of another table of claims), with preset and page; may be empty."""
    tables = []
    for part in parts:
        for item in part.items:
            if item.name == name:
                table = read_table(item.files[0], ("dataset", "claim", "verdict"), dtype=str)
                preset = part.preset or part.place.split("/")[0]
                tables.append(table.fillna("").assign(preset=preset, doc=item.doc))
    if not tables:
        return pd.DataFrame(columns=["dataset", "claim", "statement", "verdict", "preset", "doc"])
    return pd.concat(tables, ignore_index=True).fillna("")
