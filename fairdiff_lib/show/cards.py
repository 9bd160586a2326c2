"""The audit card: one page that says what was compared, what was found, and what limits it.

The same words and numbers as HTML (self-contained, for a phone and for one printed page) and as
PNG (drawn by matplotlib). A card names files, never the folders of a machine.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import fairdiff_lib
from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.disk.files import atomic_file
from fairdiff_lib.show.figures.panels import ROW, dot_rows, dots_foot, draw_dots, narrow_dots
from fairdiff_lib.show.style import MUTED, STYLE, WIDTH, name_of, wrap

SHOWN = 8  # contrasts on the card; all of them are in its table on disk
PHONE = 4.3  # inches: width of the HTML's figure, so that its words can be read on a phone
MARGIN = 0.35  # inches around the PNG's page
LEADING = 1.35  # line height, x the size of the letters
LETTER = 0.56  # mean width of a letter, x its size
BAR = "#0072b2"  # beside the finding
ENDPOINT = (
    "the differences in KID between each level and the attribute's largest level, p adjusted over "
    "all levels of at least {below} {unit}s by the largest |t|"
)


@dataclass(frozen=True)
class Facts:
    """What a card says besides the audit's own numbers.

    Attributes
    ----------
    title : str
        The question, with the word "simulated" where the images are.
    compared : sequence of (str, str)
        Name and content of each line on what was compared: counts, sources, features.
    endpoint : str
        The primary endpoint, in words.
    caveats : sequence of str
    unit : str
        What n counts.
    floor : DataFrame, optional
        attribute, level, low, high: the noise between two halves of the reals.
    standardised : DataFrame, optional
        Contrasts at a common case mix, in the audit's contrast columns.
    mix : str
        The condition that they are standardised for.
    table : str
        The file that holds all contrasts.
    standing : str
        Stands before the finding: what limits it most.
    """

    title: str
    compared: Sequence[tuple[str, str]]
    endpoint: str
    caveats: Sequence[str]
    unit: str = "subject"
    floor: pd.DataFrame | None = None
    standardised: pd.DataFrame | None = None
    mix: str = ""
    table: str = "contrasts.csv"
    standing: str = ""


@dataclass(frozen=True)
class _Content:
    """All words of a card, the same for HTML and PNG."""

    title: str
    finding: str
    compared: Sequence[tuple[str, str]]
    dots: pd.DataFrame
    foot: str
    header: list[str]
    rows: list[list[str]]
    more: str
    caveats: Sequence[str]
    stamp: str


def write_card(
    audit: Audit, facts: Facts, folder: Path | str, stamp: Mapping[str, Any], name: str = "card"
) -> tuple[Path, Path]:
    """Write ``card.html`` and ``card.png`` into a folder.

    Parameters
    ----------
    audit : Audit
    facts : Facts
    folder : path
    stamp : mapping
        From ``store.make_stamp``, or with its keys data_hash, versions, commit and dirty.
    name : str
        Of both files, without suffix.

    Returns
    -------
    tuple of Path
        The HTML and the PNG.
    """
    folder = Path(folder)
    page, picture = folder / f"{name}.html", folder / f"{name}.png"
    with atomic_file(page) as temporary:
        temporary.write_text(render_html(audit, facts, stamp), encoding="utf-8")
    with atomic_file(picture) as temporary, matplotlib.rc_context(STYLE):
        render_page(audit, facts, stamp).savefig(temporary, format="png", dpi=150)
    return page, picture


# -- the words -------------------------------------------------------------------------------


def finding(audit: Audit) -> str:
    """The result in words: what differs, or how large a difference could have been missed."""
    table = audit.contrasts
    tested = table[np.isfinite(table["p_adjusted"])]
    if tested.empty:
        return "No comparison could be made: too few groups are large enough."
    clear = tested[tested["p_adjusted"] < 1 - audit.design.confidence].sort_values("p")
    said = [_difference(audit, row) for _, row in clear.head(3).iterrows()]
    if len(clear) > 3:
        said.append(f"{len(clear) - 3} more differences are in the table.")
    if len(clear) < len(tested):
        said.append(_missed(audit, tested.drop(clear.index), "other " if len(clear) else ""))
    return " ".join(said)


def _metric(audit: Audit) -> str:
    return audit.metric.split("_")[0].upper() if audit.metric.startswith("kid") else audit.metric


def _difference(audit: Audit, row: pd.Series[Any]) -> str:
    """One difference that was found, from the side of the worse level."""
    worse = (row["value"] > 0) == (audit.design.better == "low")
    names = [str(row["level"]), str(row["reference"])]
    first, second = names if worse else reversed(names)
    size = row.copy()
    if row["value"] < 0:
        size["value"], size["low"], size["high"] = -row["value"], -row["high"], -row["low"]
    small = min(row["n"], row["n_reference"])
    thin = "" if row["role"] == "primary" else f" (a small group, n={int(small)})"
    side = "higher" if audit.design.better == "low" else "lower"
    return (
        f"{name_of(str(row['attribute']))}: worse for {first} than for {second}{thin}, {side} "
        f"{_metric(audit)} by {interval(size)}, adjusted p {p_text(float(row['p_adjusted']))}."
    )


def _missed(audit: Audit, rest: pd.DataFrame, other: str) -> str:
    """What "no difference seen" leaves possible; equivalence only where a test says so."""
    metric = _metric(audit)
    count = f"{len(rest)} {other}comparison{'s' if len(rest) > 1 else ''}"
    if (rest["p_equivalence"] < 1 - audit.design.confidence).all():
        margin = rest["smallest_effect"].max()
        return f"In {count}, levels are equal to within {margin:.2g} {metric} (equivalence test)."
    references = zip(rest["attribute"], rest["reference"], strict=True)
    known = [audit.estimates[key].interval(audit.design.confidence)[0] > 0 for key in references]
    reach = f"one of up to {rest['mde'].max():.2g} {metric}"
    if audit.design.better == "low" and all(known):  # a ratio to what may be 0 says nothing
        reach = f"a {metric} of up to {rest['mde_ratio'].max():.2g} times the reference's"
    return f"In {count} no difference was seen, but {reach} could have been missed."


def with_floor(by_group: pd.DataFrame, floor: pd.DataFrame | None) -> pd.DataFrame:
    """``by_group`` with the floor of each level beside it, as floor_low and floor_high."""
    if floor is None:
        return by_group
    bands = floor.rename(columns={"low": "floor_low", "high": "floor_high"})
    keys = ["attribute", "level"]
    return by_group.merge(bands[[*keys, "floor_low", "floor_high"]], on=keys, how="left")


def stamp_line(stamp: Mapping[str, Any]) -> str:
    """Versions, commit and data hash in one line."""
    commit = stamp["commit"]
    state = f"commit {commit[:10]}" if commit else "no commit"
    changed = ", changed since" if stamp["dirty"] else ""
    used = ("python", "torch", "numpy", "pandas")
    versions = ", ".join(f"{name} {stamp['versions'][name]}" for name in used)
    own = f"fairdiff {fairdiff_lib.__version__}, {state}{changed}"
    return f"{own}; {versions}; data {stamp['data_hash'][:16]}"


def interval(row: pd.Series[Any]) -> str:
    """Value with its interval, as a reader says it."""
    value, low, high = (float(row[key]) for key in ("value", "low", "high"))
    if not np.isfinite(value):
        return "not estimable"
    if not np.isfinite(low):
        return f"{value:.3g} (no interval)"
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def p_text(p: float) -> str:
    """A p-value in few digits."""
    if not np.isfinite(p):
        return "none"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def shown_contrasts(
    contrasts: pd.DataFrame, standardised: pd.DataFrame | None = None
) -> list[list[str]]:
    """The contrasts to show, the clearest first: names, difference, adjusted p, standardised."""
    order = contrasts.sort_values(["p_adjusted", "p"], kind="stable", na_position="last")
    keys = ["attribute", "level", "reference"]
    at_mix = None if standardised is None else standardised.set_index(keys)
    rows = []
    for _, row in order.head(SHOWN).iterrows():
        name = f"{name_of(row['attribute'])}: {row['level']} minus {row['reference']}"
        shown = [name, interval(row), p_text(float(row["p_adjusted"]))]
        if at_mix is not None:
            key = tuple(row[k] for k in keys)
            shown.append(interval(at_mix.loc[key]) if key in at_mix.index else "not estimable")
        rows.append(shown)
    return rows


def _content(audit: Audit, facts: Facts, stamp: Mapping[str, Any]) -> _Content:
    dots = with_floor(audit.by_group, facts.floor)
    percent = f"{audit.design.confidence:.0%} interval"
    header = ["Difference between levels", f"{_metric(audit)} ({percent})", "adjusted p"]
    if facts.standardised is not None:
        header.append(f"at equal {facts.mix} mix")
    hidden = len(audit.contrasts) - SHOWN
    return _Content(
        facts.title,
        f"{facts.standing}{finding(audit)}",
        [*facts.compared, ("Primary endpoint", facts.endpoint)],
        dots,
        dots_foot(dots, facts.unit, audit.design.confidence),
        header,
        shown_contrasts(audit.contrasts, facts.standardised),
        f"{hidden} more in {facts.table}." if hidden > 0 else "",
        facts.caveats,
        stamp_line(stamp),
    )


# -- HTML ------------------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ c.title }}</title>
<style>
@page { size: A4; margin: 12mm }
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 46rem;
  margin: 0 auto; padding: 1rem }
h1 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .7rem }
h2 { font-size: 1rem; margin: 1.1rem 0 .35rem }
.finding { border-left: 5px solid {{ bar }}; background: #f1f6fa; padding: .6rem .8rem; margin: 0 }
dl { display: grid; grid-template-columns: 9.5rem 1fr; gap: .15rem .8rem; margin: 0 }
dt { color: #555 } dd { margin: 0; overflow-wrap: anywhere }
img { display: block; width: 100%; max-width: 34rem; height: auto }
table { border-collapse: collapse; width: 100%; font-size: .92em }
@media (max-width: 30rem) { table { font-size: .8em } }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem .25rem 0;
  border-bottom: 1px solid #ddd }
th { font-weight: 600 } ul { margin: 0; padding-left: 1.2rem }
ul + .small { margin-top: .8rem }
.small { font-size: .82em; color: #444; margin: .3rem 0 0; overflow-wrap: anywhere }
@media (max-width: 30rem) {
  dl { grid-template-columns: 1fr } dd { margin-bottom: .35rem }
  td { overflow-wrap: anywhere }
}
@media print {
  body { font-size: 9.5pt; line-height: 1.3; padding: 0; max-width: none }
  h1 { font-size: 14pt } h2 { margin-top: .6rem } img { max-height: 95mm; width: auto }
  .finding { -webkit-print-color-adjust: exact; print-color-adjust: exact }
}
</style>
</head>
<body>
<h1>{{ c.title }}</h1>
<p class="finding">{{ c.finding }}</p>
<h2>What was compared</h2>
<dl>{% for name, text in c.compared %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
<h2>By group</h2>
<img src="data:image/png;base64,{{ picture }}" alt="Dot plot. {{ c.finding }}">
<p class="small">{{ c.foot }}</p>
<h2>Differences</h2>
<table><thead><tr>{% for cell in c.header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in c.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% if c.more %}<p class="small">{{ c.more }}</p>{% endif %}
<h2>Read with care</h2>
<ul>{% for caveat in c.caveats %}<li>{{ caveat }}</li>{% endfor %}</ul>
<p class="small">{{ c.stamp }}</p>
</body>
</html>
"""


def render_html(audit: Audit, facts: Facts, stamp: Mapping[str, Any]) -> str:
    """The card as one HTML file that needs no other."""
    content = _content(audit, facts, stamp)
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        narrow_dots(content.dots, PHONE).savefig(stream, format="png", dpi=220)
    picture = base64.b64encode(stream.getvalue()).decode("ascii")
    frame = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return frame.render(c=content, picture=picture, bar=BAR)


# -- PNG -------------------------------------------------------------------------------------


def render_page(audit: Audit, facts: Facts, stamp: Mapping[str, Any]) -> Figure:
    """The card as one page, as tall as its content."""
    content = _content(audit, facts, stamp)
    height = _draw(Figure(figsize=(WIDTH, 1)), content)  # once to measure, once to keep
    figure = Figure(figsize=(WIDTH, height))
    with matplotlib.rc_context(STYLE):
        _draw(figure, content)
    return figure


def _draw(figure: Figure, content: _Content) -> float:
    """Write the blocks from the top down; the height in inches that they take."""
    y = _write(figure, MARGIN, content.title, 13, weight="bold")
    y = _write(figure, y + 0.08, content.finding, 9.5, box="#f1f6fa")
    y = _heading(figure, y, "What was compared")
    for name, text in content.compared:
        _write(figure, y, name, 7.5, color=MUTED)
        y = _write(figure, y, text, 7.5, left=1.35)
    y = _heading(figure, y, "By group")
    y = _panel(figure, y, content.dots)
    y = _write(figure, y, content.foot, 6.5, color="#444444")
    y = _heading(figure, y, "Differences")
    y = _grid(figure, y, content)
    y = _heading(figure, y, "Read with care")
    for caveat in content.caveats:
        _write(figure, y, "\N{BULLET}", 7.5)
        y = _write(figure, y, caveat, 7.5, left=0.12)
    y = _write(figure, y + 0.1, content.stamp, 6, color=MUTED)
    return y + MARGIN / 2


def _write(
    figure: Figure,
    y: float,
    text: str,
    size: float,
    *,
    left: float = 0.0,
    right: float = WIDTH - 2 * MARGIN,
    weight: str = "normal",
    color: str = "#1a1a1a",
    box: str = "",
) -> float:
    """Text ``y`` inches below the top, from ``left`` to ``right`` inches; where the next starts."""
    room = 0.08 if box else 0.0
    letter = LETTER * size / 72 * (1.1 if weight == "bold" else 1.0)
    lines = wrap(text, int((right - left - 2 * room) / letter))
    height = (lines.count("\n") + 1) * size * LEADING / 72 + 2 * room
    total = figure.get_figheight()
    if box:
        for edge, width, shade in ((0.0, right, box), (-0.06, 0.05, BAR)):
            place = ((MARGIN + edge) / WIDTH, 1 - (y + height) / total)
            figure.add_artist(
                Rectangle(place, width / WIDTH, height / total, transform=figure.transFigure,
                          color=shade, lw=0, zorder=-1)
            )  # fmt: skip
    figure.text(
        (MARGIN + left + room) / WIDTH, 1 - (y + room) / total, lines,
        fontsize=size, fontweight=weight, color=color, va="top", linespacing=1.15,
    )  # fmt: skip
    return y + height


def _heading(figure: Figure, y: float, text: str) -> float:
    return _write(figure, y + 0.1, text, 9, weight="bold") + 0.02


def _panel(figure: Figure, y: float, dots: pd.DataFrame) -> float:
    """The dot plot between the page's margins."""
    rows = dot_rows(dots)
    longest = max(len(text) for text, _ in rows)
    left, height = MARGIN + min(0.3 + 0.065 * longest, 2.5), ROW * len(rows)
    total = figure.get_figheight()
    place = (left / WIDTH, 1 - (y + height) / total, (WIDTH - left - 0.85) / WIDTH, height / total)
    draw_dots(figure.add_axes(place), dots)
    return y + height + 0.42


def _grid(figure: Figure, y: float, content: _Content) -> float:
    """The contrasts as columns of text."""
    end = WIDTH - 2 * MARGIN
    edges = (0.0, 2.2, 3.85, 4.55, end) if len(content.header) > 3 else (0.0, 3.2, 5.2, end)
    for row, weight in [(content.header, "bold"), *((row, "normal") for row in content.rows)]:
        ends = [
            _write(figure, y, cell, 7, left=left, right=right - 0.05, weight=weight)
            for cell, (left, right) in zip(row, pairwise(edges), strict=True)
        ]
        y = max(ends)
    return _write(figure, y, content.more, 6.5, color=MUTED) if content.more else y
