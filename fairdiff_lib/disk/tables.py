"""Tables: their columns on disk, their form for a reader and as LaTeX, and what a failed gate adds.

T1 to T14 become LaTeX from their CSV: booktabs and longtable by pandas, escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from fairdiff_lib.disk.files import atomic_file, hash_file, read_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.names import (
    NOT_ESTIMABLE,
    classifier_name,
    head_of,
    level_name,
    method_name,
    name_of,
    number,
    rounded,
    short_name,
    space_title,
)

DOWNSTREAM_COLUMNS = (
    *("dataset", "method", "seeds", "classifier", "condition", "attribute", "level", "metric"),
    *("features", "n", "value", "low", "high", "note"),
)


def as_written(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the column names of every file; of classifiers with an empty ``features``."""
    if "seed" in table.columns:
        table = table.rename(columns={"seed": "seeds"}).astype({"seeds": str})
    if "source" not in table.columns:
        return table
    table = table.rename(columns={"source": "method"}).assign(features="")
    further = [name for name in table.columns if name not in DOWNSTREAM_COLUMNS]
    return table[[*DOWNSTREAM_COLUMNS, *further]]


def as_read(table: pd.DataFrame) -> pd.DataFrame:
    """Undo :func:`as_written`: the names that are used in memory."""
    if "classifier" in table.columns:
        return table.rename(columns={"method": "source"}).drop(columns="features")
    if "n_seeds" not in table.columns:
        return table.rename(columns={"seeds": "seed"})
    return table


def pick(table: pd.DataFrame, attributes: Iterable[str], column: str = "attribute") -> pd.DataFrame:
    """Rows of the named attributes (or of another column's values), in their order."""
    return table[table[column].isin(list(attributes))].reset_index(drop=True)


# -- as readers see them ---------------------------------------------------------------------

FIRST = ("level", "value", "low", "high", "n")
IN_FILE_ONLY = ("note", "sd", "n_seeds", "study", "p_new", "low_new", "high_new", "protocol")
NAMED = ("attribute", "metric", "endpoint", "condition", "gate", "quantity", "outcome", "setting")


def means_only(table: pd.DataFrame, keep: Iterable[str] = ()) -> pd.DataFrame:
    """Means over seeds where there are some, without notes and the like (but those to keep)."""
    if "n_seeds" in table and (table["n_seeds"] > 1).any():
        table = table[table["n_seeds"] > 1]
    left_out = [name for name in IN_FILE_ONLY if name in table and name not in keep]
    return table.drop(columns=left_out).reset_index(drop=True)


def told_apart(
    table: pd.DataFrame, keep: Iterable[str] = (), datasets: Callable[[str], str] = str
) -> tuple[pd.DataFrame, list[str]]:
    """Cells in words, level, value, low, high and n first; and what all rows share, in words.

    Columns to ``keep`` stay though all rows agree.
    """
    words = pd.DataFrame({str(key): _in_words(str(key), table[key], datasets) for key in table})
    if {"attribute", "level"} <= set(table):
        pairs = zip(table["attribute"].astype(str), table["level"].astype(str), strict=True)
        words["level"] = [level_name(*pair) for pair in pairs]
        words = words.drop(columns="attribute")
    alike: list[str] = []
    if len(words) > 1:
        for key in [str(k) for k in words if words[k].nunique(dropna=False) == 1]:
            value = words[key].iloc[0]
            if key in keep and not (key in ("low", "high") and pd.isna(value)):
                continue
            words = words.drop(columns=key)
            if not pd.isna(value) and value != "":
                alike.append(f"{head_of(key)} {in_cell(value)}")
    first = [key for key in FIRST if key in words] if {"level", "low"} & set(words) else []
    return words[[*first, *(key for key in words if key not in first)]], alike


def in_cell(value: Any, digits: int = 3) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return rounded(value, digits) if isinstance(value, float) else f"{value}"


def _in_words(column: str, cells: pd.Series[Any], datasets: Callable[[str], str]) -> pd.Series[Any]:
    """Names as readers see them; text that a CSV lost is empty, not missing."""
    if pd.api.types.is_numeric_dtype(cells):
        return cells
    plain = cells.astype(object).where(cells.notna(), "")
    named: dict[str, Callable[[str], str]] = {
        "dataset": datasets,
        "classifier": classifier_name,
        **dict.fromkeys(("method", "baseline", "source", "arm", "tested_on"), method_name),
        **dict.fromkeys(NAMED, name_of),
        "features": space_title,
        "comparison": lambda sign: WANTED.get(sign, sign),
    }
    if column not in named:
        return plain
    name = named[column]
    return plain.map(lambda value: name(value) if isinstance(value, str) and value else value)


# -- gates ------------------------------------------------------------------------------------

MOST_NAMED = 6  # runs in a line; of more, the range
WANTED = {">=": "at least", ">": "above", "<": "below", "<=": "at most"}


def failed_gates(gates: pd.DataFrame) -> list[str]:
    """One line for each gate that failed, with its threshold and the failing runs' values."""
    failed = gates[~gates["passed"].astype(bool)]
    lines = []
    for gate, own in failed.groupby("gate", sort=False):
        values = ", ".join(
            f"{r.value:.3g} ({method_name(str(r.method))}, seed {r.seed})" for r in own.itertuples()
        )
        if len(own) > MOST_NAMED:
            runs = int((gates["gate"] == gate).sum())
            values = f"{own['value'].min():.3g} to {own['value'].max():.3g} in {len(own)} of {runs}"
            values += " runs"
        wanted = f"{WANTED[own['comparison'].iloc[0]]} {own['threshold'].iloc[0]:.3g}"
        lines.append(f'check failed: "{name_of(str(gate))}", wanted {wanted}, found {values}')
    return lines


GATE_COLUMNS = ("dataset", "gate", "passed", "method", "seeds", "value", "comparison", "threshold")


def gate_notes(places: Places) -> list[str]:
    """Lines for the gates that failed, from tab_gates.csv; says so if there is none."""
    path = places.figures / "tab_gates.csv"
    if not path.is_file():
        return ["the checks of notebook 05 were not run"]
    return failed_gates(as_read(read_table(path, GATE_COLUMNS, dtype={"seeds": str})))


def with_notes(table: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    """The table with the notes added to every row's own note."""
    if not notes:
        return table
    text = "; ".join(notes)
    joined = [f"{own}; {text}" if own else text for own in table["note"].fillna("")]
    return table.assign(note=joined)


# -- LaTeX ------------------------------------------------------------------------------------

ROWS = 200  # of a table; the CSV has all
SIDE_BY_SIDE = 4  # methods that a page has room for
ESSENTIAL = (  # what is shown of a table that is too long; the CSV has the other metrics
    *("kid", "fid", "inception_score", "accuracy", "auc", "dpd", "eod", "psd_mean", "psd_max"),
    *("es_fid", "es_kid", "es_accuracy", "es_auc", "fid_psd_mean", "fid_psd_max"),
)
SENTENCES = ("quote", "not_to_say", "statement", "limits", "training_seeds")
SPECIAL = {**{x: f"\\{x}" for x in "{}$&#%_"}, "\\": r"\textbackslash{}"}
SPECIAL |= {"^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


def has_latex(name: str) -> bool:
    """Whether a table is one of T1 to T14."""
    return re.fullmatch(r"tab(0[1-9]|1[0-4])", name) is not None


def has_pdf(name: str) -> bool:
    """Whether a figure is one of F1 to F7, or a main one."""
    return re.fullmatch(r"fig0[1-7]|main\d", name) is not None


def write_latex(
    path: Path, stamp: Mapping[str, Any], title: str, datasets: Callable[[str], str] = str
) -> Path:
    """Write a table's ``.tex`` beside its CSV, whose hash its first line names.

    ``stamp`` is the CSV's, of one data set or of several, ``title`` what the table holds, in words;
    ``datasets`` leads from a data set's name to how readers see it.
    """
    whole = read_table(path, dtype={"seeds": str, "seed": str})
    short = means_only(whole).drop(columns=[x for x in SENTENCES if x in whole])
    if "metric" in short and len(short) > ROWS:
        short = short[short["metric"].isin(ESSENTIAL)]
    told, alike = told_apart(short.reset_index(drop=True), {"value", "low", "high"}, datasets)
    cells = _side_by_side(_as_text(told))
    said = [f"{short_name(path.stem)}: {title}", ", ".join(_where(stamp, datasets))]
    said += [f"In all rows: {'; '.join(alike)}"] if alike else []
    said += list(_limits(whole, cells, stamp, path.name))
    body = _typeset(cells.head(ROWS), ". ".join(x.rstrip(".") for x in said if x), path, stamp)
    target = path.with_suffix(".tex")
    with atomic_file(target) as temporary:
        temporary.write_text(f"{_origin(path, stamp)}\n{body}", encoding="utf-8")
    return target


def escape(text: object) -> str:
    """Text in which LaTeX sees nothing to act on."""
    return "".join(SPECIAL.get(letter, letter) for letter in " ".join(str(text).split()))


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Value, low and high in one cell; the rest in words."""
    if "value" in table:
        rows = table.reindex(columns=["value", "low", "high"]).to_dict("records")
        table = table.assign(value=[number({str(k): v for k, v in row.items()}) for row in rows])
    table = table.drop(columns=[name for name in ("low", "high") if name in table])
    return table.map(lambda x: rounded(x) if isinstance(x, float) and x == x else x).astype(object)


def _side_by_side(cells: pd.DataFrame) -> pd.DataFrame:
    """A column per method where there are few and no row would have a hole."""
    if not {"method", "value"} <= set(cells):
        return cells
    methods = list(dict.fromkeys(cells["method"]))
    keys = [name for name in cells if name not in ("method", "value")]
    rows = cells[keys].drop_duplicates() if keys else cells.head(1)
    if not keys or len(methods) > SIDE_BY_SIDE or len(rows) * len(methods) != len(cells):
        return cells
    wide = cells.set_index([*keys, "method"])["value"]
    if wide.index.has_duplicates:
        return cells
    return wide.unstack("method", sort=False).reset_index()[[*keys, *methods]]


def _parts(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Stamps by data set: of one, or of all that a table spans."""
    own = stamp.get("parameters", {}).get("dataset", "")
    return dict(stamp.get("datasets", {own: stamp}))


def _where(stamp: Mapping[str, Any], datasets: Callable[[str], str]) -> list[str]:
    """The data sets, and the preset where they agree on it."""
    presets = {part.get("parameters", {}).get("preset", "") for part in _parts(stamp).values()}
    named = [f"preset {preset}" for preset in presets if preset and len(presets) == 1]
    return [*(datasets(name) for name in _parts(stamp) if name), *named]


def _limits(
    whole: pd.DataFrame, cells: pd.DataFrame, stamp: Mapping[str, Any], file: str
) -> Iterator[str]:
    """What a reader has to know beside the numbers."""
    if "limits" in whole:
        yield from (text for text in dict.fromkeys(whole["limits"]) if isinstance(text, str))
    parts = [part.get("settings", {}).get("audit", {}) for part in _parts(stamp).values()]
    levels = {f"{100 * part['confidence']:g}% " for part in parts if "confidence" in part}
    if "low" in whole and whole["low"].notna().any():
        kind = levels.pop() if len(levels) == 1 else ""
        yield f"In parentheses: the {kind}interval, unless the note in the file says otherwise"
    if stamp.get("simulated"):
        yield "Simulated data: nothing here is about patients; real images are simulated patients'"
    if len(cells) > ROWS:
        yield f"Only the first {ROWS} lines are shown"
    if len(cells) > ROWS or len(cells) < len(whole):
        yield f"{file} has all {len(whole):,} rows"
    if whole.empty:
        yield "The table has no row"


def _typeset(cells: pd.DataFrame, caption: str, path: Path, stamp: Mapping[str, Any]) -> str:
    given = stamp.get("parameters", {})
    place = [given.get("preset", ""), given.get("dataset", ""), path.parent.name, path.stem]
    label = "-".join(dict.fromkeys(name.replace("_", "-") for name in place if name))
    styled = Styler(cells).hide(axis="index").format(escape, na_rep=NOT_ESTIMABLE)
    styled = styled.relabel_index([escape(head_of(str(name))) for name in cells], axis="columns")
    text: str = styled.to_latex(
        hrules=True, environment="longtable", caption=f"{escape(caption)}.", label=f"tab:{label}",
        column_format="l" * max(len(cells.columns), 1),
    )  # fmt: skip
    return f"\\begingroup\\scriptsize\\setlength{{\\LTcapwidth}}{{\\linewidth}}\n{text}\\endgroup\n"


def _origin(path: Path, stamp: Mapping[str, Any]) -> str:
    data = sorted({str(part.get("data_hash", "none")) for part in _parts(stamp).values()})
    return (
        f"% made from {path.name}, sha256 {hash_file(path)}\n"
        f"% commit {stamp.get('commit') or 'none'}; data {', '.join(data)}\n"
        r"% needs \usepackage{booktabs,longtable}"
    )
