"""T1 to T14 as LaTeX, from their CSV: booktabs and longtable by pandas, escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from fairdiff_lib.disk.files import atomic_file, hash_file, read_table
from fairdiff_lib.disk.tables import means_only, told_apart
from fairdiff_lib.settings.names import NOT_ESTIMABLE, head_of, number, rounded, short_name

ROWS = 200  # of a table; the CSV has all
SIDE_BY_SIDE = 4  # methods that a page has room for
ESSENTIAL = (  # what is shown of a table that is too long; the CSV has the other metrics
    *("kid", "fid", "inception_score", "accuracy", "auc", "dpd", "eod", "psd_mean", "psd_max"),
    *("es_fid", "es_kid", "es_accuracy", "es_auc", "fid_psd_mean", "fid_psd_max"),
)
SENTENCES = ("quote", "reason", "statement", "endpoint", "limits", "declaration", "training_seeds")
SPECIAL = {**{x: f"\\{x}" for x in "{}$&#%_"}, "\\": r"\textbackslash{}"}
SPECIAL |= {"^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


def has_latex(name: str) -> bool:
    """Whether a table is one of T1 to T14."""
    return re.fullmatch(r"tab(0[1-9]|1[0-4])", name) is not None


def write_latex(
    path: Path, stamp: Mapping[str, Any], title: str, datasets: Callable[[str], str] = str
) -> Path:
    """Write a table's ``.tex`` beside its CSV, whose hash its first line names.

    Parameters
    ----------
    path : Path
        The CSV, as written.
    stamp : mapping
        Its stamp, of one data set or of several.
    title : str
        What the table holds, in words.
    datasets : callable
        From a data set's name to how readers see it.

    Raises
    ------
    InputError
        The CSV is missing or unreadable.
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


def origin_of(path: Path) -> str:
    """SHA-256 of the CSV that a ``.tex`` says it was made from; empty where it says none."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    found = re.fullmatch(r"% made from \S+, sha256 ([0-9a-f]{64})", first)
    return found[1] if found else ""


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
