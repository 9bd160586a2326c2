"""Pages of the book that are written from tables and stamps: claims, verdicts, tables, figures.

Each function returns MyST Markdown. Links are relative to the page's own place.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import pandas as pd

from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.files import read_table
from fairdiff_lib.run.links import parts_of
from fairdiff_lib.run.shelf import Item, Part, questions, verdicts
from fairdiff_lib.settings.notebooks import NOTEBOOKS
from fairdiff_lib.show import style as looks
from fairdiff_lib.show import tables
from fairdiff_lib.show.front import table as show_table

ROWS = 30  # of a table on its page; the CSV has all
PLAIN = "Simulated data: nothing here is about patients."
SHOWN_FIRST = (
    *("dataset", "claim", "method", "statement", "verdict", "reason", "quote", "limits"),
    *("preset", "doc", "study", "cited"),
)


def link(text: str, doc: str, here: str) -> str:
    """A Markdown link from page ``here`` to page ``doc``, both without suffix, from the root."""
    way = os.path.relpath(doc, PurePosixPath(here).parent.as_posix())
    suffix = ".ipynb" if "/executed/" in doc else ".md"
    return f"[{escape(text)}]({way}{suffix})"


def escape(text: object) -> str:
    """Text in which Markdown sees nothing to act on."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", " ".join(str(text).split()))


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the theme lets it scroll sideways."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def toctree(docs: Mapping[str, str], caption: str = "", hidden: bool = False) -> str:
    """A table of contents; page from the root -> its title there, empty for its own."""
    options = [f":caption: {caption}"] * bool(caption) + [":hidden:"] * hidden
    entries = [f"{title} </{doc}>" if title else f"/{doc}" for doc, title in docs.items()]
    return "\n".join(["```{toctree}", ":maxdepth: 1", *options, "", *entries, "```"])


# -- the page of a table or figure -----------------------------------------------------------


def item_page(item: Item, part: Part) -> str:
    """A table or picture, the files to take away, and its stamp.

    Reached from its study, its notebooks and the claims; the sidebar would grow too long.
    """
    lines = ["---", "orphan: true", "---", "", f"# {escape(item.title)}", ""]
    lines += [f"{link(part.title, f'{part.place}/index', item.doc)}", ""]
    if item.stamp.get("simulated"):
        lines += [f"```{{note}}\n{PLAIN}\n```", ""]
    made = [link(doc.rsplit("/", 1)[-1], doc, item.doc) for doc in item.copies]
    if made:
        lines += [f"From the notebook {', '.join(made)}.", ""]
    lines += [_shown(item), "", _downloads(item), "", *_stamp_lines(item)]
    return "\n".join(lines) + "\n"


def _shown(item: Item) -> str:
    if not item.is_table:
        picture = next((file for file in item.files if file.suffix == ".png"), item.files[0])
        if picture.suffix == ".html":
            return f"[{escape(item.content or item.short)}]({picture.name})"
        return f"![{escape(item.content or item.short)}]({picture.name})"
    table = read_table(item.files[0], dtype={"seeds": str})
    few = len(table) <= ROWS
    words = f"{len(table):,} rows" if few else f"The first {ROWS} of {len(table):,} rows"
    table, alike = tables.without_alike(as_shown(table))
    if alike:
        words += "; in all of them " + ", ".join(f"{name} {escape(v)}" for name, v in alike.items())
    page = show_table(table).data
    box = f'<div class="book-scroll">{page}</div>'
    return f"{words}.\n\n```{{raw}} html\n{box}\n```"


def as_shown(table: pd.DataFrame) -> pd.DataFrame:
    """Missing text as nothing, rather than as a missing number; text safe in HTML."""
    text = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    plain = {name: [html.escape(x) if isinstance(x, str) else x for x in
                    table[name].astype(object).where(table[name].notna(), "")]
             for name in text}  # fmt: skip
    return table.assign(**plain)


def _downloads(item: Item) -> str:
    files = [file.name for file in item.files] + [f"{item.name}.json"]
    return "Files: " + ", ".join(f"[{name}]({name})" for name in files) + "."


def _stamp_lines(item: Item) -> Iterator[str]:
    yield "## Stamp"
    yield ""
    for part in parts_of(item.stamp):
        rows = [["commit", _commit(part)]]
        if "data_hash" in part:
            rows.append(["data", f"`{part['data_hash']}`"])
        given = part.get("parameters", {})
        rows += [[escape(name), f"`{value!r}`"] for name, value in sorted(given.items())]
        rows += [[escape(name), escape(value)] for name, value in part["versions"].items()]
        rows.append(["processor", escape(part["hardware"]["cpu"])])
        yield grid(["what", "value"], rows)
        yield ""


def _commit(stamp: Mapping[str, object]) -> str:
    dirty = " (the code differed from it)" if stamp.get("dirty") else ""
    return f"`{stamp.get('commit') or 'none'}`{dirty}"


# -- a study's page --------------------------------------------------------------------------


def part_page(part: Part) -> str:
    """Notebooks, tables and figures of one place."""
    here = f"{part.place}/index"
    lines = [f"# {escape(part.title)}", ""]
    if part.simulated:
        lines += [f"```{{note}}\n{PLAIN}\n```", ""]
    if part.notebooks:
        titles = {doc: _told_apart(doc, copy.title) for doc, copy in part.notebooks.items()}
        lines += ["## Notebooks", "", toctree(titles), ""]
    for title, of_tables in (("Tables", True), ("Figures", False)):
        own = [item for item in part.items if item.is_table == of_tables]
        if own:
            rows = [[link(item.short, item.doc, here), escape(item.content)] for item in own]
            lines += [f"## {title}", "", grid(["id", "what it holds"], rows), ""]
    return "\n".join(lines)


def _told_apart(doc: str, title: str) -> str:
    """A notebook's title, with what its copy ran for where there is one per method and seed."""
    name = doc.rsplit("/", 1)[-1]
    run = next((name[len(source) + 1 :] for source in ("03_train", "04_generate")
                if name.startswith(source)), "")  # fmt: skip
    return f"{title} ({run.replace('_', ' ')})" if run else title


# -- claims and verdicts ---------------------------------------------------------------------


def claims_page(parts: Sequence[Part]) -> str:
    """Claim -> table -> figure -> notebook: by claim, then what else was asked."""
    found = verdicts(parts)
    titles = {doc: copy.title for part in parts for doc, copy in part.notebooks.items()}
    claims = _cited(found)
    lines = ["# Claims and where to look", ""]
    lines += [f"The reasons for each verdict are on the page {link('Verdict', 'verdict', '')}.", ""]
    for claim, rows in claims.groupby("claim", sort=True):
        lines += [f"## {claim}: {escape(rows['statement'].iloc[0])}", ""]
        lines += [f"- {escape(_study(row.dataset, row.preset))}: **{escape(row.verdict)}**"
                  for row in rows.itertuples()]  # fmt: skip
        chosen = {row.dataset: _notebooks_of(str(claim), str(row.dataset))
                  for row in rows.itertuples()}  # fmt: skip
        rows_of = [
            row
            for part in parts
            if chosen.get(part.dataset)
            for row in _rows(part, chosen.get(part.dataset, ()), titles)
        ]
        lines += ["", grid(["study", "notebook", "tables", "figures"], rows_of), ""]
    rows_of = [row for name in questions(parts) if not _claims_of(name)
               for part in parts for row in _rows(part, [name], titles)]  # fmt: skip
    lines += ["## What else was asked", ""]
    return "\n".join([*lines, grid(["study", "notebook", "tables", "figures"], rows_of), ""])


def _study(dataset: object, preset: object) -> str:
    return f"{looks.dataset_name(str(dataset))}, preset {preset}"


def _notebooks_of(claim: str, dataset: str) -> list[str]:
    """Notebooks that bear on a claim; C4 is about data other than FairGenMed."""
    if claim == "C4":
        other = dataset_of(dataset).elsewhere
        return [name for name in NOTEBOOKS if other and _claims_of(name)]
    return [name for name in NOTEBOOKS if claim in _claims_of(name)]


def _claims_of(name: str) -> tuple[str, ...]:
    return NOTEBOOKS[name].claims if name in NOTEBOOKS else ()


def _rows(part: Part, names: Sequence[str], titles: Mapping[str, str]) -> Iterator[list[str]]:
    """A row per executed copy that made something, or one for a notebook that only tells.

    A notebook that ran for every method and seed is named by its first copy.
    """
    items = [item for item in part.items if item.notebook in names]
    listed = [doc for doc in part.notebooks if doc.rsplit("/", 1)[-1].startswith(tuple(names))]
    made = sorted({doc for item in items for doc in item.copies})
    for doc in made or listed[:1]:
        own = [item for item in items if doc in item.copies]
        yield [escape(part.title), link(titles[doc], doc, ""), *_links(own)]
    rest = [item for item in items if not item.copies]
    if rest:
        yield [escape(part.title), "", *_links(rest)]


def _links(items: Sequence[Item]) -> list[str]:
    """Links to tables, and to figures: the numbered ones first."""
    ordered = sorted(items, key=lambda item: ("_" in item.name, item.name))
    return [
        ", ".join(link(item.short, item.doc, "") for item in ordered if item.is_table == tables)
        for tables in (True, False)
    ]


def verdict_page(parts: Sequence[Part]) -> str:
    """Every verdict of every study, in full."""
    found, ablation = verdicts(parts), verdicts(parts, "tab_c2")
    lines = ["# Verdict", "", "By the rule that was fixed before the runs (the protocol).", ""]
    lines += [verdict_grid(found), "", *_in_full(found, "T14", "")]
    return "\n".join([*lines, *_in_full(ablation, "C2", "The ablation study: ")]) + "\n"


def _cited(found: pd.DataFrame) -> pd.DataFrame:
    """One row per claim, data set and preset: of two studies, the one to cite."""
    claims = found[found["claim"].str.fullmatch(r"C\d+")]
    return claims[claims["cited"] != "False"] if "cited" in claims else claims


def _in_full(found: pd.DataFrame, table: str, head: str) -> Iterator[str]:
    """A section per study, with its verdicts and the table that they are from."""
    studies = dict.fromkeys(zip(found["dataset"], found["preset"], strict=True))
    for dataset, preset in studies:
        rows = found[(found["dataset"] == dataset) & (found["preset"] == preset)]
        yield f"## {escape(head + _study(dataset, preset))}\n"
        yield f"From {link(table, str(rows['doc'].iloc[0]), 'verdict')}.\n"
        if "limits" in rows and rows["limits"].iloc[0]:
            yield f"{escape(rows['limits'].iloc[0])}\n"
        for row in rows.to_dict("records"):
            yield from _verdict_lines({str(name): str(value) for name, value in row.items()})


def verdict_grid(found: pd.DataFrame) -> str:
    """Claims by studies, the cited verdict in each cell."""
    claims = _cited(found)
    studies = list(dict.fromkeys(zip(claims["dataset"], claims["preset"], strict=True)))
    head = ["claim", *(f"{escape(looks.dataset_name(d))}, {escape(p)}" for d, p in studies)]
    rows = []
    for claim, own in claims.groupby("claim", sort=True):
        said = {(row.dataset, row.preset): str(row.verdict) for row in own.itertuples()}
        cells = [f"**{escape(said[study])}**" if study in said else "" for study in studies]
        rows.append([f"**{claim}** {escape(own['statement'].iloc[0])}", *cells])
    return grid(head, rows)


def _verdict_lines(row: Mapping[str, str]) -> Iterator[str]:
    """A list's entry: the verdict and the claim, the reason, and the other columns."""
    name = f"{row['claim']} {row['method']}" if row.get("method") else row["claim"]
    if row.get("cited") == "False":
        name += f" ({row['study']} study, not the one to cite)"
    yield f"- **{escape(name)}: {escape(row['verdict'])}.** {escape(row['statement'])}."
    more = [
        f"{escape(key.replace('_', ' '))} {escape(_brief(key, value))}"
        for key, value in row.items()
        if value and key not in SHOWN_FIRST
    ]
    quote = f"> {escape(row['quote'])}" if row.get("quote") else ""
    for text in (quote, escape(row.get("reason", "")), "; ".join(more)):
        if text:
            yield f"\n  {text}"
    yield ""


def _brief(name: str, text: str) -> str:
    """A real number with three digits, a hash's first ten; other text as it is."""
    if name == "protocol":
        return text[:10]
    return f"{float(text):.3g}" if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text) else text
