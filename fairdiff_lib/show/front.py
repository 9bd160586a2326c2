"""What a notebook shows, by name: a figure, a table, a sentence, a function's own text."""

from __future__ import annotations

import ast
import hashlib
import html
import importlib
import inspect
import io
import pkgutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import matplotlib
import pandas as pd
from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from fairdiff_lib.datasets import contents
from fairdiff_lib.disk.files import read_json, read_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.tables import in_cell, means_only, told_apart
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import NOT_ESTIMABLE, head_of, short_name
from fairdiff_lib.settings.notebooks import JOBS, NOTEBOOKS
from fairdiff_lib.show.style import STYLE, dataset_name

if TYPE_CHECKING:
    from fairdiff_lib.study import Study

F = TypeVar("F", bound=Callable[..., Any])
ROWS = 30  # of a table in a notebook; the CSV has all
WIDE = 840  # pixels that a figure takes
LONGEST = 48  # letters of a level's name in a figure; tables have all


@dataclass(frozen=True)
class Drawing:
    """A registered figure."""

    draw: Callable[..., Figure]
    kept: bool  # written beside the tables, or only shown


FIGURES: dict[str, Drawing] = {}
SENTENCES: dict[str, Callable[..., str]] = {}


class Nothing(InputError):
    """There is nothing to draw: the reader is told so, and no file is written."""


def figure(name: str, *, kept: bool = True) -> Callable[[F], F]:
    """Register a function that draws, in the page's style, for ``fig(study, name, ...)``."""

    def register(draw: F) -> F:
        _once("figure", name, FIGURES)
        styled = matplotlib.rc_context(STYLE)(draw)
        FIGURES[name] = Drawing(styled, kept)
        return styled

    return register


def sentence(name: str) -> Callable[[F], F]:
    """Register a function that returns Markdown; ``say(name, ...)`` shows it."""

    def register(words: F) -> F:
        _once("sentence", name, SENTENCES)
        SENTENCES[name] = words
        return words

    return register


def _once(kind: str, name: str, known: Mapping[str, Any]) -> None:
    if name in known:
        raise ValueError(f"{kind} {name!r} is registered twice")


def _entry(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """Import all that registers itself, then look the name up."""
    from fairdiff_lib import show
    from fairdiff_lib.show import figures

    for room in (figures, show):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    if name not in known:
        raise InputError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")
    return known[name]


def fig(
    study: Study, name: str, *content: Any, kept: bool | None = None, **options: Any
) -> Image | Markdown:
    """Draw a figure, write it into the study's figures with its stamp, and show it.

    Parameters
    ----------
    study : Study
    name : str
        As ``fig03``.
    *content, **options
        Of the function that draws it (``show_source`` prints it).
    kept : bool, optional
        False: only shown, not written. As the figure is registered without.

    Returns
    -------
    Image
        Its alternative text is the figure's title. Where there is nothing to draw: a line that
        says so, and no file.

    Raises
    ------
    InputError
        No figure of that name, or a table that it can't be drawn from.
    """
    entry: Drawing = _entry("figure", name, FIGURES)
    given = [shortened(one) if isinstance(one, pd.DataFrame) else one for one in content]
    try:
        page = entry.draw(*given, **options)
    except Nothing as nothing:
        return Markdown(f"Not drawn: {nothing}")  # type: ignore[no-untyped-call]
    title = " ".join(page.get_suptitle().split())
    with matplotlib.rc_context(STYLE):
        if entry.kept if kept is None else kept:
            path = study.publish(name, page)
            return Image(filename=str(path), width=WIDE, alt=title)  # type: ignore[no-untyped-call]
        stream = io.BytesIO()
        page.savefig(stream, format="png", dpi=150)
    return Image(stream.getvalue(), width=WIDE, alt=title)  # type: ignore[no-untyped-call]


def shortened(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose levels' names fit beside an axis; those that would then be alike stay whole."""
    found = table.copy(deep=False)
    for column in {"level", "reference"} & set(table.columns):
        names = {x: x for x in table[column].unique() if isinstance(x, str)}
        short = {x: f"{x[: LONGEST - 1].rstrip()}\u2026" for x in names if len(x) > LONGEST}
        if len({**names, **short}) == len(set({**names, **short}.values())):
            found[column] = table[column].replace(short)
    return found


def say(name: str, *content: Any, **options: Any) -> Markdown:
    """The sentence of that name, written from the tables that it is given."""
    words = _entry("sentence", name, SENTENCES)
    said = words(*content, **options).replace("$", r"\$")  # a level's name may have dollars
    return Markdown(said)  # type: ignore[no-untyped-call]


def ready(study: Study, job: str, source: str = "runs") -> None:
    """Ask at once for what a notebook starts from.

    Parameters
    ----------
    study : Study
    job : str
        The notebook's name, as ``12_harm``.
    source : str
        ``committed``: where something is missing, show the committed tables and figures instead,
        and end the notebook there (as a success, for papermill too).

    Raises
    ------
    InputError
        What is missing, and the command that makes it; committed results that there are none of.
    """
    if source not in ("runs", "committed"):
        raise InputError(f"source={source!r}: expected runs or committed")
    try:
        study.require(*study.waits_for(job))
    except InputError as missing:
        shown = list(_committed(study, job)) if source == "committed" else []
        if not shown:
            raise
        said = f"**Committed results, of earlier runs.** The rest of this page needs {missing}."
        display(Markdown(said), *shown)  # type: ignore[no-untyped-call]
        raise SystemExit(0) from None


def _committed(study: Study, job: str) -> Iterator[HTML | Image]:
    """A notebook's tables, then its figures, as they lie in the project's ``figures``."""
    entry, places = JOBS[job], replace(study.places, figures_root=Places.figures_root)
    own = getattr(study.entry, entry.of_dataset or "none", ())
    folder, titles = getattr(places, entry.place), contents()
    paths = [folder / name for name in (*own, *entry.titles)]
    for path in (path.with_suffix(".csv") for path in paths):
        if path.is_file():
            yield table(read_table(path), f"{titles[path.stem][0]} ({path.stem}.csv)")
    for path in (path.with_suffix(".png") for path in paths):
        if path.is_file() and path.stem in entry.titles:
            alt = titles[path.stem][0]
            yield Image(filename=str(path), width=WIDE, alt=alt)  # type: ignore[no-untyped-call]


def show_source(function: Callable[..., Any]) -> HTML:
    """A library function's own text, with the docstring's first paragraph: what runs."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    first = ast.parse("\n".join(lines)).body[0].body[0]  # type: ignore[attr-defined]
    said = (inspect.getdoc(function) or "").split("\n\n")[0].splitlines()
    if said:
        indent = " " * first.col_offset
        said = [f'"""{said[0]}', *said[1:]]
        said[-1] += '"""'
        lines[first.lineno - 1 : first.end_lineno] = [f"{indent}{line}".rstrip() for line in said]
    # with its own style: nbconvert's page sets an output's code in letters of unlike width
    code = html.escape("\n".join(lines))
    shown = f'<pre style="font-family: monospace">{code}</pre>'
    return HTML(shown)  # type: ignore[no-untyped-call]


# -- tables ----------------------------------------------------------------------------------


PLAIN = "tex2jax_ignore mathjax_ignore"  # "$25,000" is no formula


def table(
    frame: pd.DataFrame,
    caption: str = "",
    *,
    name: str = "",
    keep: Iterable[str] = (),
    digits: int = 3,
) -> HTML:
    """A table for a reader: level, value, low, high and n first, at most 30 rows, names in words.

    Parameters
    ----------
    frame : DataFrame
        Where it has means over seeds, these alone. Columns in which all rows agree are told in the
        caption instead; notes and the like are in the file only.
    caption : str
    name : str
        The id of the table as it was published, as ``tab02``: a line links the whole CSV.
    keep : iterable of str
        Columns that stay though all rows agree.
    digits : int
        Significant digits.

    Returns
    -------
    HTML
        The same bytes for the same table.
    """
    means = means_only(frame, keep)
    shown, alike = told_apart(means, {"value", "low", "high", *keep}, dataset_name)
    shown = shown.head(ROWS)
    said = [f"<b>{html.escape(caption.rstrip('.'))}.</b>"] if caption else []
    said += [html.escape(f"In all rows: {'; '.join(alike)}.")] if alike else []
    above = (
        f'<p class="{PLAIN}">{" ".join(said)}</p>' if said else ""
    )  # no caption: it would be broken to fit
    mark = hashlib.sha256(f"{caption}{name}{frame.to_csv()}".encode()).hexdigest()[:8]
    styled = Styler(shown, uuid=mark, cell_ids=False, precision=digits).hide(axis="index")
    for key in map(str, shown):  # a missing value is said once: its interval and test stay blank
        none = "" if key in ("low", "high") or key.startswith("p_") else NOT_ESTIMABLE
        styled = styled.format(
            lambda cell: in_cell(cell, digits), subset=[key], na_rep=none, escape="html"
        )
    words = [at for at, key in enumerate(shown) if not pd.api.types.is_numeric_dtype(shown[key])]
    left: Any = [{"selector": f".col{at}", "props": "text-align: left"} for at in words]
    # Jupyter makes all columns of one width, and a file's name runs into the next one
    widths: Any = [{"selector": "", "props": "table-layout: auto"}]
    styled = styled.set_table_styles(widths + left)
    styled = styled.set_table_attributes(f'class="{PLAIN}"')
    styled = styled.relabel_index([html.escape(head_of(str(key))) for key in shown], axis="columns")
    return HTML(f"{above}{styled.to_html()}{_where(len(means), name)}")  # type: ignore[no-untyped-call]


def _where(rows: int, name: str) -> str:
    """A line on where all rows are; of a short table that is no file, none."""
    link = f'<a href="../{name}.csv">{name}.csv</a>' if name else ""
    if rows > ROWS:
        whole = f"; all are in {link}" if link else ""
        return f"<p>The first {ROWS} of {rows:,} rows{whole}.</p>"
    return f"<p>The whole table: {link}.</p>" if link else ""


KINDS = {"tab": "csv", "fig": "png"}  # the rest are cards: html


def runs_table(study: Study) -> pd.DataFrame:
    """Every run of the study: method, seed, and what it cost."""
    places = study.places
    folders = [
        *map(places.base_of, study.settings.bases),
        *(places.run(*run) for run in study.settings.runs),
    ]
    columns = ["method", "seed", "seconds", "seconds_per_step", "peak_memory_gib"]
    return pd.DataFrame([read_json(folder / "run.json") for folder in folders])[columns]


def collect_index(study: Study) -> pd.DataFrame:
    """Every table, figure and card that exists: id, title, file, notebook, commit, dirty.

    Files and notebooks are named relative to ``places.executed``, where the index is read. Of a
    file that spans data sets, the commit is its last run's; dirty if any of its runs was.
    """
    rows, places = [], study.places
    for name, (title, notebook) in contents().items():
        file = f"{name}.{KINDS.get(name[:3], 'html')}"
        for folder, way in ((places.figures, ".."), (places.figures_all, "../../all")):
            if (folder / file).is_file():
                stamp = read_json(folder / f"{name}.json")
                commit, dirty = (stamp["commit"] or "none")[:10], bool(stamp["dirty"])
                rows.append((name, title, f"{way}/{file}", notebook, commit, dirty))
    if not rows:
        raise InputError(f"{places.figures}: no table or figure yet; run the study first")
    columns = ["id", "title", "file", "notebook", "commit", "dirty"]
    return pd.DataFrame(rows, columns=columns)


@sentence("index")
def about_index(index: pd.DataFrame) -> str:
    """A list per notebook: its question, and links to what it made."""
    parts = []
    for name, entry in NOTEBOOKS.items():
        own = index[index["notebook"] == name].astype(str)
        if own.empty:
            continue
        kinds = {"tab_": " (table)", "fig_": " (figure)"}  # T1 and F1 say so themselves
        files = [
            f"- [{short_name(x['id'])}]({x['file']}){kinds.get(x['id'][:4], '')}: {x['title']}"
            for x in own.to_dict("records")
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


@sentence("stamp")
def about_stamp(stamp: Mapping[str, Any]) -> str:
    """What a notebook's numbers depend on, in a line."""
    changed = ", which the code differed from" * bool(stamp["dirty"])
    versions = ", ".join(f"{name} {number}" for name, number in stamp["versions"].items())
    files = stamp.get("content", {}).values()  # of anybody's own images, else one of all the data
    data = " and ".join(x[:10] for x in [file["sha256"] for file in files] or [stamp["data_hash"]])
    commit = (stamp["commit"] or "none")[:10]
    return f"Made with commit {commit}{changed}, from data {data}. Versions: {versions}."


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
