r"""Tables as LaTeX, from their CSV: for a paper that needs booktabs and longtable, and no more.

Levels are rows, a value and its interval share a cell, and methods (or metrics) stand side by
side where they are few. What is the same in every row is said once, in the caption.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fairdiff_lib.disk.files import atomic_file, hash_file, read_table
from fairdiff_lib.show import style as looks
from fairdiff_lib.show import tables

ROWS = 200  # of a table; the CSV has all
SHORT = 45  # lines that fit one page, as a float; more become a longtable
WIDE = 115  # letters of \scriptsize in a line of a page
LONG = 36  # letters of a text; a longer one is set in lines
SIDE_BY_SIDE = ("method", "metric")  # the first that fits becomes columns
LABELS = (
    *("claim", "study", "cited", "verdict", "unit"),  # of T14
    *("method", "attribute", "level", "reference", "condition_level", "gate"),
    *("n", "n_reference"),
)
AFTER = (
    "smallest_effect",
    *("comparison", "threshold", "passed", "p", "p_adjusted", "p_holm", "mde", "mde_ratio"),
    "role",
    "training_seeds",
)
VERDICT = (  # of T14, whose sentences need a page, not a cell
    *("dataset", "claim", "study", "cited", "verdict", "unit", "value", "low", "high"),
    *("smallest_effect", "mde", "p_holm", "n", "seeds"),
)
ESSENTIAL = (  # what is shown of a table that is too long; the CSV has the other metrics
    *("kid", "fid", "inception_score", "accuracy", "auc", "dpd", "eod", "psd_mean", "psd_max"),
    *("es_fid", "es_kid", "es_accuracy", "es_auc", "fid_psd_mean", "fid_psd_max"),
)
LEFT_OUT = ("low_new", "high_new", "protocol")
HEADS = {
    "smallest_effect": "smallest effect",
    "n_reference": "n of reference",
    "p_adjusted": "adjusted p",
    "p_holm": "p (Holm)",
    "mde": "detectable effect",
    "mde_ratio": "detectable ratio",
    "detectable": "smallest effect detectable",
    "excludes_zero": "interval excludes 0",
    "seconds": "time (s)",
    "seconds_per_step": "time per step (s)",
    "seconds_per_proposal": "time per proposal (s)",
    "peak_memory_gib": "peak memory (GiB)",
}
NAMED = (
    "attribute",
    "metric",
    "condition",
    "gate",
    "quantity",
    "outcome",
)  # columns whose values have display names
NONE = "--"  # not estimable
SPECIAL = {
    **{letter: f"\\{letter}" for letter in "{}$&#%_"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}


def write_latex(path: Path, stamp: Mapping[str, Any], content: str) -> Path:
    """Write a table's ``.tex`` beside its CSV, whose hash its first line names.

    Parameters
    ----------
    path : Path
        The CSV, as written.
    stamp : mapping
        Its stamp, from ``store.make_stamp`` or ``report.spanning_stamp``.
    content : str
        What the table holds, in words.

    Raises
    ------
    InputError
        The CSV is missing or unreadable.
    """
    table = read_table(path, dtype={"seeds": str, "seed": str})
    keep: tuple[str, ...] = ("dataset", "condition")
    told: tuple[str, ...] = ("value", "low", "high")
    limits: list[str] = []
    if "quote" in table:
        limits = [text for text in dict.fromkeys(table.get("limits", ())) if isinstance(text, str)]
        one = "cited" not in table or table["cited"].all()
        names = [name for name in VERDICT if name != "cited" or not one]
        table = table[names].rename(columns={"seeds": "training_seeds"})
        keep, told = (*VERDICT, "training_seeds"), (*told, "study", "verdict")
    short = tables.brief(table, keep)
    if "metric" in short and len(short) > ROWS:
        short = short[short["metric"].isin(ESSENTIAL)]
    short = short.drop(columns=[name for name in LEFT_OUT if name in short])
    varied, alike = tables.without_alike(short, told)
    cells, panels = _laid_out(_as_text(varied))
    said = [*_title(path, stamp, content), *_reading(cells, alike, stamp), *map(escape, limits)]
    if table.empty:
        said.append("The table has no row.")
    if len(cells) > ROWS or len(short) < len(table):
        said.append(escape(f"{path.name} has all {len(table):,} rows."))
    if len(cells) > ROWS:
        said.append(f"Only the first {ROWS} lines are shown.")
    cells = cells.head(ROWS)
    lines = [*_origin(path, stamp), *_typeset(cells, panels, " ".join(said), _label(path, stamp))]
    target = path.with_suffix(".tex")
    with atomic_file(target) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


# -- words -----------------------------------------------------------------------------------


def escape(text: object) -> str:
    """Text in which LaTeX sees nothing to act on; minus signs and powers of ten are set as such."""
    plain = "".join(SPECIAL.get(letter, letter) for letter in " ".join(str(text).split()))
    plain = re.sub(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-]\d+)", lambda m: _power(m[1], m[2]), plain)
    plain = plain.replace("$>$=", r"$\geq$").replace("$<$=", r"$\leq$")
    return re.sub(r"(?<![\w.$^{])-(?=\d)", "$-$", plain)


def _power(number: str, exponent: str) -> str:
    return rf"${number}\times10^{{{int(exponent)}}}$"


def interval(value: float, low: float, high: float) -> str:
    """As "0.031 (0.024 to 0.037)", all with the same decimals; a dash for what is missing."""
    if not math.isfinite(value):
        return NONE
    if not (math.isfinite(low) and math.isfinite(high)):
        return looks.rounded(value)
    largest = max(abs(number) for number in (value, low, high))
    if not 1e-4 <= largest < 1000:
        return f"{value:.3g} ({low:.3g} to {high:.3g})"
    decimals = 2 - math.floor(math.log10(largest))
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(value, low, high, d=decimals)


def _word(column: str, value: Any) -> str:
    """A cell's text: display names, rounded numbers, a dash for a missing number."""
    if pd.isna(value):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return looks.rounded(value)
    if column in ("method", "baseline") and value in looks.METHODS:
        return looks.METHODS[value].label
    if column == "dataset":
        return looks.dataset_name(value)
    return looks.name_of(value).replace("\n", " ") if column in NAMED else str(value)


def _head(column: str) -> str:
    return HEADS.get(column, column.replace("_", " "))


# -- layout ----------------------------------------------------------------------------------


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Every cell in words; value, low and high in one, which comes after n."""
    text = [name for name in _names(table) if not pd.api.types.is_numeric_dtype(table[name])]
    table = table.assign(**{name: table[name].astype(object).fillna("") for name in text})
    cells = {name: [_word(name, value) for value in table[name]] for name in _names(table)}
    if "value" in cells:
        ends = [table.get(name, pd.Series(math.nan, table.index)) for name in ("low", "high")]
        cells["value"] = [interval(*row) for row in zip(table["value"], *ends, strict=True)]
    return pd.DataFrame({k: v for k, v in cells.items() if k not in ("low", "high")}, dtype=object)


def _names(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table]


def _laid_out(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Columns in the order of reading, and those of them that head panels of rows.

    A table without a column ``value`` stays as it is.
    """
    if "value" not in cells:
        return cells, []
    after = [name for name in AFTER if name in cells]
    panels = [name for name in _names(cells) if name not in (*LABELS, "value", *after)]
    values = ["value"]
    for side in SIDE_BY_SIDE if not after else ():
        wide = _beside(cells, side) if side in cells and cells[side].nunique() > 1 else None
        if wide is not None and _width(wide.drop(columns=panels, errors="ignore")) <= WIDE:
            values = list(dict.fromkeys(cells[side]))
            cells, panels = wide, [name for name in panels if name != side]
            break
    labels = [name for name in LABELS if name in cells]
    cells = cells[[*panels, *labels, *values, *after]]
    if panels and len(cells):  # rows of one panel together, in the order of their first
        cells = pd.concat([own for _, own in cells.groupby(panels, sort=False)])
    return cells, panels


def _beside(cells: pd.DataFrame, side: str) -> pd.DataFrame | None:
    """A column per value of ``side``; None where a row would have a hole or two values."""
    keys = [name for name in _names(cells) if name not in (side, "n", "value")]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for row in cells.to_dict("records"):
        own = rows.setdefault(tuple(row[key] for key in keys), {key: row[key] for key in keys})
        if "n" in row:
            counts = [*own.get("n", "").split(" or "), row["n"]]
            own["n"] = " or ".join(dict.fromkeys(count for count in counts if count))
        own[row[side]] = row["value"]
    complete = len(rows) * cells[side].nunique() == len(cells)
    wide = pd.DataFrame(list(rows.values()), dtype=object)
    return wide if complete and not wide.isna().to_numpy().any() else None


def _letters(cells: pd.DataFrame) -> dict[str, int]:
    """The longest text of each column; a head is set a word per line where that helps."""
    return {name: max(map(len, (*_head(name).split(), *cells[name]))) for name in _names(cells)}


def _width(cells: pd.DataFrame) -> int:
    return sum(size + 2 for size in _letters(cells).values())


# -- LaTeX -----------------------------------------------------------------------------------


def _typeset(cells: pd.DataFrame, panels: list[str], caption: str, label: str) -> Iterator[str]:
    body = list(_body(cells, panels))
    shown = cells.drop(columns=panels)
    size = r"\scriptsize" if _width(shown) <= WIDE else r"\tiny"
    head = " & ".join(map(_stacked, _names(shown))) + r" \\"
    ruled = [r"\toprule", head, r"\midrule"]
    titled = rf"\caption{{{caption}}}\label{{{label}}}"
    yield rf"\begingroup{size}\setlength{{\tabcolsep}}{{3pt}}"
    yield r"\setlength{\LTcapwidth}{\linewidth}"
    if len(body) <= SHORT:
        yield from (r"\begin{table}[htbp]", rf"\centering{size}", titled)
        yield from (rf"\begin{{tabular}}{{{_columns(shown)}}}", *ruled, *body)
        yield from (r"\bottomrule", r"\end{tabular}", r"\end{table}")
    else:
        yield from (rf"\begin{{longtable}}{{{_columns(shown)}}}", titled + r"\\")
        yield from (*ruled, r"\endfirsthead", *ruled, r"\endhead", r"\bottomrule", r"\endfoot")
        yield from (*body, r"\end{longtable}")
    yield r"\endgroup"


def _stacked(name: str) -> str:
    words = [escape(word) for word in _head(name).split()]
    stacked = r"\\".join(words)
    return words[0] if len(words) == 1 else rf"\shortstack{{{stacked}}}"


def _columns(cells: pd.DataFrame) -> str:
    """Numbers to the right, text to the left; long text shares what short columns leave."""
    letters = _letters(cells)
    long = {name: size**0.5 for name, size in letters.items() if size > LONG}
    room = 0.92 - sum(size + 2 for name, size in letters.items() if name not in long) / WIDE
    kinds = []
    for name in cells:
        if name in long:
            share = max(room, 0.3) * long[name] / sum(long.values())
            kinds.append(rf"p{{{share:.2f}\linewidth}}")
        else:
            kinds.append("r" if all(map(_is_number, cells[name])) else "l")
    return "".join(kinds)


def _is_number(text: str) -> bool:
    return text == NONE or re.match(r"-?\d[\d.,e+-]*( \(|$)", text) is not None


def _body(cells: pd.DataFrame, panels: list[str]) -> Iterator[str]:
    """A line per row; where a panel begins, a line that says what its rows share."""
    shown = cells.drop(columns=panels)
    before: list[str] = []
    for heads, row in zip(cells[panels].to_numpy(), shown.to_numpy(), strict=True):
        if list(heads) != before:
            if before:
                yield r"\addlinespace"
            before = list(heads)
            said = "; ".join(_named(*pair) for pair in zip(panels, before, strict=True) if pair[1])
            yield rf"\multicolumn{{{shown.shape[1]}}}{{l}}{{\rlap{{\emph{{{said}}}}}}} \\"
        yield " & ".join(escape(cell) for cell in row) + r" \\"


def _named(column: str, value: str) -> str:
    """A metric's name alone; of other columns, what it is the value of."""
    return escape(value if column == "metric" else f"{_head(column)} {value}")


# -- what stands around it -------------------------------------------------------------------


def _parts(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Stamps by dataset: of one, or of all that a table spans."""
    own = stamp.get("parameters", {}).get("dataset", "")
    return dict(stamp.get("datasets", {own: stamp}))


def _preset(stamp: Mapping[str, Any]) -> str:
    """Of one dataset, or of all where they agree."""
    found = {part.get("parameters", {}).get("preset", "") for part in _parts(stamp).values()}
    return str(found.pop()) if len(found) == 1 else ""


def _origin(path: Path, stamp: Mapping[str, Any]) -> list[str]:
    data = sorted({str(part.get("data_hash", "none")) for part in _parts(stamp).values()})
    return [
        f"% made from {path.name}, sha256 {hash_file(path)}",
        f"% commit {stamp.get('commit') or 'none'}; data {', '.join(data)}",
        r"% needs \usepackage{booktabs,longtable}",
    ]


def origin_of(path: Path) -> str:
    """SHA-256 of the CSV that a ``.tex`` says it was made from; empty where it says none."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    found = re.fullmatch(r"% made from \S+, sha256 ([0-9a-f]{64})", first)
    return found[1] if found else ""


def _label(path: Path, stamp: Mapping[str, Any]) -> str:
    given = stamp.get("parameters", {})
    names = [_preset(stamp), given.get("dataset", ""), path.parent.name, path.stem]
    return "tab:" + "-".join(dict.fromkeys(name.replace("_", "-") for name in names if name))


def _title(path: Path, stamp: Mapping[str, Any], content: str) -> Iterator[str]:
    """Id and title, dataset and preset."""
    yield escape(f"{looks.short_name(path.stem)}: {content}.")
    where = [looks.dataset_name(name) for name in _parts(stamp) if name]
    preset = _preset(stamp)
    where += [f"preset {preset}"] if preset else []
    if where:
        yield escape(f"{', '.join(where)}.")
    if stamp.get("simulated"):
        yield "Simulated data: nothing here is about patients; real images are simulated patients'."


def _reading(
    cells: pd.DataFrame, alike: Mapping[str, Any], stamp: Mapping[str, Any]
) -> Iterator[str]:
    """What is the same in all rows, and how to read a cell."""
    told = [
        f"training {'seeds' if ',' in str(value) else 'seed'} {value}"
        if name == "seeds"
        else f"{_head(name)} {_word(name, value)}"
        for name, value in alike.items()
        if name != "dataset" and value != "not estimable"
    ]
    if told:
        yield escape(f"In all rows: {'; '.join(told)}.")
    text = [cell for column in cells for cell in cells[column]]
    if any(re.search(r"\d \(.* to .*\)$", cell) for cell in text):
        parts = [part.get("settings", {}).get("audit", {}) for part in _parts(stamp).values()]
        levels = {f"{100 * part['confidence']:g}% " for part in parts if "confidence" in part}
        kind = f"{levels.pop() if len(levels) == 1 else ''}interval"
        yield escape(f"In parentheses: the {kind}, unless the CSV's note says otherwise.")
    if NONE in text:
        yield f"{NONE}: not estimable."
