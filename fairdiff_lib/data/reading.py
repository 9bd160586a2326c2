"""What the readers of original layouts share: cells decoded, pictures opened, refusals, hashes.

A reader turns a folder as its authors ship it into one row per image: it translates codings into
level names, applies the split rule, and refuses what it does not understand. What the levels are
for is said by the spec on the same page.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image, ImageOps

from fairdiff_lib.disk.files import hash_folder, read_table
from fairdiff_lib.settings.errors import InputError

UNKNOWN = "unknown"  # the level of a value that the source marks as not known
SPLITS = ("train", "val", "test")
OUTSIDE = ""  # split of a row that was never to be in one; its image is not asked for
NOT_KNOWN = ("", "-1", "unknown", "nan", "na", "n/a", "none")  # tokens, lower case
_PNG_END = b"IEND\xaeB`\x82"


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

    Commas or, as some archives hand tables out, tabs between cells: the header says which.
    """
    separator = ","
    if path.is_file():
        with path.open("rb") as stream:
            header = stream.readline()
        separator = "\t" if header.count(b"\t") > header.count(b",") else ","
    # utf-8-sig: spreadsheets put a byte-order mark before the first column's name
    frame = read_table(
        path, columns, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
    )
    if frame.empty:
        raise InputError(f"{path}: no rows under the header; expected one per image")
    stripped: pd.DataFrame = frame.apply(lambda cells: cells.str.strip())
    return stripped


def read_workbook(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """First sheet of an Excel workbook as text cells, as :func:`read_text_csv`."""
    if not path.is_file():
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


def refuse_respelt(levels: Sequence[str], where: str) -> None:
    """Raise for two levels that differ in nothing but case or blanks: one group, spelt twice."""
    first: dict[str, str] = {}
    for level in levels:
        other = first.setdefault(" ".join(level.split()).casefold(), level)
        if other != level:
            raise InputError(
                f"{where} has {other!r} and {level!r}, which differ in case or blanks alone; "
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


# -- pictures --------------------------------------------------------------------------------


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture has more than 8 bits per channel, of which Pillow would drop some."""
    # a 16-bit colour PNG says mode RGB, but its decoder says RGB;16B
    return picture.mode.startswith(("I", "F")) or ";16" in repr(getattr(picture, "tile", ""))


def open_picture(path: Path) -> Image.Image:
    """A picture as a viewer shows it, in RGB.

    It is turned as its EXIF tag says, and laid on black where it is transparent: whatever colour
    is hidden under an alpha of 0 is not seen. More than 8 bits per channel are refused.
    """
    try:
        with Image.open(path) as file:
            if is_deep(file):
                raise InputError(f"{path}: more than 8 bits per channel; expected 8")
            with suppress(SyntaxError, TypeError, struct.error):  # a tag that nobody can read
                ImageOps.exif_transpose(file, in_place=True)
            if not file.has_transparency_data:
                return file.convert("RGB")
            seen = file.convert("RGBA")
            ground = Image.new("RGBA", seen.size, "black")
            return Image.alpha_composite(ground, seen).convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: image not found") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: truncated or not an image ({error})") from None


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
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        names = ", ".join(missing[:3])
        raise InputError(
            f"{root}: {len(missing)} of {len(paths)} expected files are missing (first: {names})"
        )


def is_whole(path: Path) -> bool:
    """Whether a file is a complete picture: by its start and end markers, else by decoding it."""
    with path.open("rb") as stream:
        start, size = stream.read(8), stream.seek(0, os.SEEK_END)
        stream.seek(max(size - 8, 0))
        end = stream.read()
    if start[:2] == b"\xff\xd8" and end[-2:] == b"\xff\xd9":
        return True
    if start == b"\x89PNG\r\n\x1a\n" and end == _PNG_END:
        return True
    try:  # some writers append bytes after the end marker
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def hash_images(root: Path, paths: Sequence[str], *, check: bool) -> str:
    """Content hash of images (64 hexadecimal digits), relative to ``root``.

    With ``check``, missing and truncated ones are refused; without it, missing ones are left out.
    """
    if not check:
        return hash_folder(root, [path for path in paths if (root / path).is_file()])
    refuse_missing(root, paths)
    broken = [path for path in paths if not is_whole(root / path)]
    if broken:
        raise InputError(
            f"{root}: {len(broken)} of {len(paths)} images are truncated or not pictures "
            f"(first: {', '.join(broken[:3])})"
        )
    return hash_folder(root, paths)


def read_truth(root: Path) -> pd.DataFrame:
    """True parameters of a simulated cohort, one row per image, indexed by image name."""
    truth = read_table(Path(root) / "truth.csv", ("image", "difficulty", "heterogeneity"))
    return truth.set_index("image")
