"""What the readers of original dataset layouts share: decoding of cells, refusals, hashes.

A reader (one module per dataset) turns a folder as its authors ship it into one row
per image: it translates codings into level names, applies the split rule, and refuses
what it does not understand. What the levels are for is decided in ``cohorts``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from fairdiff_lib.disk.files import hash_folder, read_table
from fairdiff_lib.settings.errors import InputError

UNKNOWN = "unknown"  # the level of a value that the source marks as not known
SPLITS = ("train", "val", "test")
NOT_KNOWN = ("", "-1", "unknown", "nan", "na", "n/a", "none")  # tokens, lower case


@dataclass(frozen=True)
class Source:
    """What a reader returns.

    Attributes
    ----------
    table : DataFrame
        Columns subject, image, path (relative to the root), split, and one per
        attribute and condition, holding level names or ``"unknown"``.
    labels_hash : str
        SHA-256 of the label files' content (hexadecimal).
    """

    table: pd.DataFrame
    labels_hash: str


def token(value: object) -> str:
    """``value`` as lower-case text; whole numbers without their decimals (``1.0`` -> ``1``)."""
    text = str(value).strip().lower()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def read_text_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """CSV as text cells (blank stays blank), refused unless it has rows and ``columns``."""
    # utf-8-sig: spreadsheets put a byte-order mark before the first column's name
    frame = read_table(path, columns, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if frame.empty:
        raise InputError(f"{path}: no rows under the header; expected one per image")
    return frame


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


def refuse_missing(root: Path, paths: Sequence[str]) -> None:
    """Raise if a relative path has no file, with the count and the first names."""
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        names = ", ".join(missing[:3])
        raise InputError(
            f"{root}: {len(missing)} of {len(paths)} expected files are missing (first: {names})"
        )


def jpeg_is_whole(path: Path) -> bool:
    """Whether a file is a complete JPEG: by its start and end markers, else by decoding it."""
    with path.open("rb") as stream:
        start, size = stream.read(2), stream.seek(0, os.SEEK_END)
        stream.seek(max(size - 2, 0))
        end = stream.read()
    if start != b"\xff\xd8":
        return False
    if end == b"\xff\xd9":
        return True
    try:  # some writers append bytes after the end marker
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def hash_images(root: Path, paths: Sequence[str], *, check: bool) -> str:
    """Content hash of images; with ``check``, missing and truncated ones are refused.

    Parameters
    ----------
    root : Path
    paths : sequence of str
        Image files, relative to ``root``.
    check : bool
        Without it, missing files are left out of the hash.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    if not check:
        return hash_folder(root, [path for path in paths if (root / path).is_file()])
    refuse_missing(root, paths)
    broken = [path for path in paths if not jpeg_is_whole(root / path)]
    if broken:
        raise InputError(
            f"{root}: {len(broken)} of {len(paths)} images are truncated or not JPEG "
            f"(first: {', '.join(broken[:3])})"
        )
    return hash_folder(root, paths)


def read_truth(root: Path) -> pd.DataFrame:
    """True parameters of a simulated cohort, one row per image, indexed by image name.

    Returns
    -------
    DataFrame
        difficulty, heterogeneity, noise, defocus and all that was drawn; see data/cards.
    """
    truth = read_table(Path(root) / "truth.csv", ("image", "difficulty", "heterogeneity"))
    return truth.set_index("image")
