"""What the readers of original layouts share: cells decoded, files found, refusals.

A reader turns a folder as its authors ship it into one row per image: it translates codings into
level names, applies the split rule, and refuses what it does not understand. What the levels are
for is said by the spec on the same page.
"""

from __future__ import annotations

import codecs
import csv
import filecmp
import hashlib
import re
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fairdiff_lib.disk.files import is_file, read_table
from fairdiff_lib.settings.errors import InputError

UNKNOWN = "unknown"  # the level of a value that the source marks as not known
SPLITS = ("train", "val", "test")
OUTSIDE = ""  # split of a row that was never to be in one; its image is not asked for
NOT_GIVEN = ("", "unknown", "nan", "na", "n/a", "#n/a", "<na>", "nat", "null")
NOT_KNOWN = (*NOT_GIVEN, "-1", "none")  # tokens, lower case


@dataclass(frozen=True)
class Source:
    """What a reader returns."""

    # columns subject, image, path (relative to the root), split, and one per attribute and
    # condition, holding level names or "unknown"; excluded, where there is one: the reason why the
    # reader leaves a row out (with the split OUTSIDE where it was never to be in one)
    table: pd.DataFrame
    labels_hash: str  # SHA-256 of the label files' content (hexadecimal)


# -- cells -----------------------------------------------------------------------------------


def token(value: object) -> str:
    """``value`` as lower-case text; whole numbers without their decimals (``1.0`` -> ``1``)."""
    text = str(value).strip().lower()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def read_text_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Table of text cells without blanks around them, refused unless it has rows and ``columns``.

    Commas, semicolons or tabs between cells, as spreadsheets and archives hand tables out: the
    header says which. One of ``columns`` that is named twice is refused.
    """
    names, separator, encoding = _header(path)
    frame = read_table(path, sep=separator, dtype=str, keep_default_na=False, encoding=encoding)
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{path}: rows have more cells than the header; expected as many")
    if len(names) == len(frame.columns):  # pandas calls a second "sex" sex.1, and "" Unnamed: 0
        frame.columns = pd.Index(
            [
                own if own and own not in names[:k] else name
                for k, (own, name) in enumerate(zip(names, frame, strict=True))
            ]
        )
    for name in columns:
        if names.count(name) > 1:
            raise InputError(f"{path}: column {name!r} stands there twice; expected it once")
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        has = ", ".join(map(str, frame.columns))
        raise InputError(f"{path}: lacks the column(s) {', '.join(missing)}; has {has}")
    if frame.empty:
        raise InputError(f"{path}: no rows under the header; expected one per image")
    stripped: pd.DataFrame = frame.apply(lambda cells: cells.fillna("").str.strip())
    return stripped


def read_one_of(paths: Sequence[Path], columns: Sequence[str]) -> tuple[Path, pd.DataFrame]:
    """The first table of several names that is there; a second that says otherwise is refused."""
    there = [path for path in paths if is_file(path)] or [paths[0]]
    first, *others = (read_text_csv(path, columns) for path in there)
    for path, other in zip(there[1:], others, strict=True):
        if not other[list(columns)].equals(first[list(columns)]):
            raise InputError(f"{there[0]} and {path} differ; expected one of them")
    return there[0], first


def _header(path: Path) -> tuple[list[str], str, str]:
    """Names of a CSV's columns without blanks around them, its separator and its encoding."""
    # utf-8-sig: spreadsheets put a byte-order mark before the first column's name
    encoding, names, separator = "utf-8-sig", list[str](), ","
    with suppress(OSError, UnicodeError, csv.Error):
        with path.open("rb") as binary:
            if binary.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                encoding = "utf-16"
        with path.open(encoding=encoding, newline="") as stream:
            first = next((line for line in stream if line.strip()), "")
            separator = max(",;\t", key=first.count)
            names = [cell.strip() for cell in next(csv.reader([first], delimiter=separator), [])]
    return names, separator, encoding


def read_workbook(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """First sheet of an Excel workbook as text cells, as :func:`read_text_csv`."""
    if not is_file(path):
        raise InputError(f"{path}: missing; expected an Excel workbook")
    try:
        frame = pd.read_excel(path, dtype=str, keep_default_na=False, engine="openpyxl")
    except (zipfile.BadZipFile, ValueError, KeyError, OSError):
        raise InputError(f"{path}: not readable as an Excel workbook") from None
    for column in columns:
        if column not in frame.columns:
            found = ", ".join(map(str, frame.columns)) or "none"
            raise InputError(f"{path}: no column {column!r}; found {found}")
    stripped: pd.DataFrame = frame.apply(lambda cells: cells.str.strip())
    return stripped


def line_of(position: int) -> int:
    """Line of a CSV file that holds the row at ``position`` (the header is line 1)."""
    return position + 2


def decode(cells: Sequence[str], coding: Mapping[str, str], path: Path, column: str) -> list[str]:
    """Level names of text cells; a code outside ``coding`` is refused by line and column."""
    tokens = [token(cell) for cell in cells]
    for position, code in enumerate(tokens):
        if code not in coding and code not in NOT_KNOWN:
            raise InputError(
                f"{path}, line {line_of(position)}, column {column!r}: "
                f"unknown code {cells[position]!r}; expected one of {', '.join(coding)}"
            )
    return [coding.get(code, UNKNOWN) for code in tokens]


def ages(
    cells: Sequence[str], levels: tuple[str, str], path: Path, column: str, *,
    turns: float = 60, above: bool = False, placeholders: Sequence[float] = (),
) -> list[str]:  # fmt: skip
    """Age in years -> level name (younger, older); blank is unknown, no number is refused.

    The older level begins at ``turns`` years, or ``above`` them; ``placeholders`` stand for none.
    """
    younger, older = levels
    found = []
    for position, cell in enumerate(cells):
        if token(cell) in NOT_KNOWN:
            found.append(UNKNOWN)
            continue
        try:
            age = float(cell)
        except ValueError:
            age = float("nan")
        if not 0 <= age <= 120:
            raise InputError(
                f"{path}, line {line_of(position)}, column {column!r}: {cell!r}; "
                "expected years from 0 to 120"
            )
        is_older = age > turns or (age == turns and not above)
        found.append(UNKNOWN if age in placeholders else older if is_older else younger)
    return found


def refuse_duplicates(cells: Sequence[str], path: Path, column: str) -> None:
    """Raise for a blank or repeated identifier, naming both lines."""
    first: dict[str, int] = {}
    for position, cell in enumerate(cells):
        if not cell.strip():
            raise InputError(f"{path}, line {line_of(position)}: blank {column!r}")
        if cell in first:
            raise InputError(
                f"{path}, line {line_of(position)}, column {column!r}: duplicate {cell!r}, "
                f"first on line {line_of(first[cell])}; expected each once"
            )
        first[cell] = position


def _as_typed(text: str) -> str:
    """A text in the characters of a keyboard, where one doesn't see the difference."""
    like = {"Cf": "", "Pd": "-", "Pi": "'", "Pf": "'"}  # Unicode's kinds: invisible, dashes, quotes
    plain = unicodedata.normalize("NFKC", text.replace("\u2212", "-"))
    return "".join(like.get(unicodedata.category(mark), mark) for mark in plain)


def refuse_respelt(levels: Sequence[str], where: str) -> None:
    """Raise for two names of one thing, as Male and male, 1 and 1.0, or two codings of one accent.

    They differ in case, blanks, decimals of a whole number, or in what one doesn't see: Unicode's
    forms, kinds of dashes and quotation marks, characters without a width.
    """
    first: dict[str, str] = {}
    for level in dict.fromkeys(levels):
        plain = " ".join(_as_typed(level).split()).casefold()
        number = re.fullmatch(r"(-?)0*(\d+)(\.0*)?", plain)
        other = first.setdefault(number[1] + number[2] if number else plain, level)
        if other != level:
            raise InputError(
                f"{where} has {other!r} and {level!r}, which are one name spelt twice; "
                "expected one spelling"
            )


def split_subjects(subjects: Sequence[str], strata: Sequence[str], seed: int) -> list[str]:
    """70/10/20 split by subject within each stratum, in the order of a seeded hash: a row's."""
    groups: dict[str, set[str]] = {}
    for subject, level in zip(subjects, strata, strict=True):
        groups.setdefault(level, set()).add(subject)
    chosen: dict[str, str] = {}
    for members in groups.values():
        order = sorted(members, key=lambda m: hashlib.sha256(f"{seed}:{m}".encode()).digest())
        for position, subject in enumerate(order):
            fraction = (position + 0.5) / len(order)
            chosen[subject] = "train" if fraction < 0.7 else "val" if fraction < 0.8 else "test"
    return [chosen[subject] for subject in subjects]


# -- files -----------------------------------------------------------------------------------


def find_images(root: Path, names: Sequence[str], folders: str) -> dict[str, str]:
    """File name -> path relative to ``root``, for the names that are there.

    A name may be in two folders, as in some archives, but not with two contents. ``folders`` is a
    pattern of those below ``root`` that may hold images, whatever their case; so may ``root``.
    """
    pattern, asked = re.compile(folders, re.IGNORECASE), {name.lower(): name for name in names}
    below = sorted(f for depth in ("*", "*/*") for f in root.glob(depth) if f.is_dir())
    places = [root, *(f for f in below if pattern.fullmatch(f.relative_to(root).as_posix()))]
    found: dict[str, Path] = {}
    for file in (file for folder in places for file in sorted(folder.iterdir())):
        name = asked.get(file.name.lower())
        if name is None:
            continue
        other = found.setdefault(name, file)
        if other != file and not filecmp.cmp(other, file, shallow=False):
            raise InputError(
                f"{root}: {other.relative_to(root)} and {file.relative_to(root)} are different "
                "pictures of one name; expected each image once"
            )
    return {name: file.relative_to(root).as_posix() for name, file in found.items()}


def refuse_missing(root: Path, paths: Sequence[str]) -> None:
    """Raise if a relative path has no file, with the count and the first names."""
    missing = [path for path in paths if not is_file(root / path)]
    if missing:
        names = ", ".join(missing[:3])
        raise InputError(
            f"{root}: {len(missing)} of {len(paths)} expected files are missing (first: {names})"
        )


def read_truth(root: Path) -> pd.DataFrame:
    """True parameters of a simulated cohort, one row per image, indexed by image name."""
    truth = read_table(Path(root) / "truth.csv", ("image", "difficulty", "heterogeneity"))
    return truth.set_index("image")
