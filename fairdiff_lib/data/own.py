"""A user's own images: a CSV of real ones and one of generated ones.

``read_own`` refuses all that could be wrong with them, in one line that names file and line, before
any picture is measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from fairdiff_lib.data.reading import (
    is_deep,
    line_of,
    read_text_csv,
    refuse_duplicates,
    refuse_respelt,
)
from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.settings.errors import InputError

PATH = "path"  # the column that names the image, from the CSV's own folder
NOT_GIVEN = ("", "unknown", "nan", "na", "n/a")  # lower case; "none" may be a level of its own
LEAST_SIDE = 32  # pixels; smaller pictures hold too little to compare
MOST_LEVELS = 20  # of an attribute; more is a number that was not put into groups


@dataclass(frozen=True)
class OwnSet:
    """The images that one CSV lists.

    Attributes
    ----------
    csv : Path
    table : DataFrame [N]
        The CSV's columns as text, without the rows that were left out. Index 0 to N - 1.
    files : list of Path, length N
        Where each image is.
    sides : list of int, length N
        Shorter side of each image, in pixels.
    content : str
        SHA-256 of the CSV and of its images.
    """

    csv: Path
    table: pd.DataFrame
    files: list[Path]
    sides: list[int]
    content: str

    def __len__(self) -> int:
        return len(self.table)

    def take(self, kept: Sequence[bool]) -> OwnSet:
        """The rows that a mask keeps."""
        rows = [row for row, yes in enumerate(kept) if yes]
        table = self.table.iloc[rows].reset_index(drop=True)
        files, sides = [self.files[row] for row in rows], [self.sides[row] for row in rows]
        return OwnSet(self.csv, table, files, sides, self.content)


@dataclass(frozen=True)
class OwnImages:
    """Real and generated images that agree with each other.

    Attributes
    ----------
    real, generated : OwnSet
    train : OwnSet or None
        Real images of other subjects, on which features and kernel are fixed.
    attributes, conditions : dict of str to tuple of str
        Name to level names, sorted; at most one condition.
    unit : str
        The column that names the independent unit.
    paired : bool
        Both sets have the same units; otherwise they share none.
    left_out : str
        What was left out and why, in words; empty where nothing was.
    """

    real: OwnSet
    generated: OwnSet
    train: OwnSet | None
    attributes: dict[str, tuple[str, ...]]
    conditions: dict[str, tuple[str, ...]]
    unit: str
    paired: bool
    left_out: str

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """Attributes, then the condition."""
        return {**self.attributes, **self.conditions}

    @property
    def simulated(self) -> bool:
        """Whether the name of the real images' CSV says so."""
        return self.real.csv.stem.endswith("_simulated")

    @property
    def smallest_side(self) -> int:
        """Pixels of the shortest side of any image."""
        train = [] if self.train is None else self.train.sides
        return min([*self.real.sides, *self.generated.sides, *train])


def read_own(
    real: Path | str,
    generated: Path | str,
    attributes: str | Sequence[str],
    condition: str = "",
    train: Path | str = "",
    unit: str = "subject",
) -> OwnImages:
    """Read and check the CSV files of an audit.

    A subject with an attribute or condition that is not given (``NOT_GIVEN``) is left out, with
    all of its images in both sets, and counted.

    Parameters
    ----------
    real, generated : path
        Columns ``path`` (absolute, or from the CSV's folder), ``unit``, the attributes and the
        condition, one row per image.
    attributes : str or sequence of str
        As ``"sex, age"`` or ``["sex", "age"]``.
    condition : str
        Clinical condition for case-mix standardisation; empty = none.
    train : path
        As ``real``, with other subjects; needs only ``path`` and ``unit``, and the condition
        where there is one. Empty = none.
    unit : str

    Raises
    ------
    InputError
        One line naming file, line and what was expected.
    """
    if isinstance(attributes, str):
        attributes = [name.strip() for name in attributes.split(",")]
    fields = _fields(attributes, condition, unit)
    sets = [read_set(path, unit, fields) for path in (real, generated)]
    _refuse_shared_files(*sets)
    unknown = {u for own in sets for u in _unknown_units(own, unit, fields)}
    kept = [own.take([u not in unknown for u in own.table[unit]]) for own in sets]
    for own in kept:
        if not len(own):
            raise InputError(f"{own.csv}: no {unit} has a known {' and '.join(fields)}")
    for name in fields:
        said = [level for own in kept for level in own.table[name]]
        refuse_respelt(said, f"{kept[0].csv}, {kept[1].csv.name}: {name}")
    _refuse_two_levels(kept, unit, fields)
    levels = {name: _levels(kept[0], kept[1], name) for name in fields}
    own_train = _read_train(train, unit, condition, kept[0]) if str(train) else None
    names = [name for name in fields if name != condition]
    return OwnImages(
        kept[0],
        kept[1],
        own_train,
        {name: levels[name] for name in names},
        {condition: levels[condition]} if condition else {},
        unit,
        _paired(kept[0], kept[1], unit),
        f"{len(unknown)} {unit}s left out: {' or '.join(fields)} unknown" if unknown else "",
    )


def _fields(attributes: Sequence[str], condition: str, unit: str) -> list[str]:
    """Attributes and condition; each may be named once and none is the path or the unit."""
    fields = [*attributes, condition] if condition else list(attributes)
    if not attributes or not all(attributes):
        raise InputError("attributes: expected one or more column names, as sex,age_group")
    for name in fields:
        if name in (PATH, unit) or fields.count(name) > 1:
            raise InputError(
                f"attribute or condition {name!r}: expected a column of its own, named once, "
                f"other than {PATH} and {unit}"
            )
    return fields


def read_set(path: Path | str, unit: str, fields: Sequence[str]) -> OwnSet:
    """One CSV with its images looked at: there, pictures, of 8 bits, large enough, each once."""
    path = Path(path)
    table = read_text_csv(path, list(dict.fromkeys([PATH, unit, *fields])))
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path}: rows have more cells than the header; expected as many")
    table = table.apply(lambda cells: cells.fillna("").str.strip())
    for position, cell in enumerate(table[unit]):
        if not cell:
            raise InputError(f"{path}, line {line_of(position)}: blank {unit!r}")
    refuse_duplicates(table[PATH].tolist(), path, PATH)
    files = [path.parent / cell for cell in table[PATH]]  # an absolute path stays what it is
    missing = [p for p, file in enumerate(files) if not file.is_file()]
    _refuse_images(path, table, missing, "are missing")
    sides, hashes = _look_at(path, table, files)
    content = hashlib.sha256("\n".join([hash_file(path), *hashes]).encode()).hexdigest()
    return OwnSet(path, table, files, sides, content)


def _refuse_images(
    path: Path, table: pd.DataFrame, positions: Sequence[int], what: str, expected: str = ""
) -> None:
    """Raise if any image is bad, with the count, and line and name of the first three."""
    if positions:
        first = [f"{table[PATH].iloc[p]} (line {line_of(p)})" for p in positions[:3]]
        raise InputError(
            f"{path}: {len(positions)} of {len(table)} images {what}{expected}, as "
            f"{', '.join(first)}"
        )


def _look_at(path: Path, table: pd.DataFrame, files: Sequence[Path]) -> tuple[list[int], list[str]]:
    """Shorter side and content hash of every image, from its header and its bytes."""
    sides, hashes = [], []
    broken, deep = [], []
    for position, file in enumerate(tqdm(files, desc=f"look at {path.name}", disable=None)):
        try:
            with Image.open(file) as picture:
                sides.append(min(picture.size))
                if is_deep(picture):
                    deep.append(position)
            hashes.append(hash_file(file))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            broken.append(position)
            sides.append(LEAST_SIDE)
    small = [p for p, side in enumerate(sides) if side < LEAST_SIDE]
    _refuse_images(path, table, broken, "are not readable as pictures")
    _refuse_images(path, table, deep, "have more than 8 bits", "; expected 8 bits per channel")
    wanted = f"; expected at least {LEAST_SIDE} pixels on each side"
    _refuse_images(path, table, small, "are too small", wanted)
    return sides, hashes


def _refuse_shared_files(real: OwnSet, generated: OwnSet) -> None:
    """Raise for a file that both sets list: an image is no generated copy of itself."""
    places = {file.resolve(): p for p, file in enumerate(real.files)}
    for position, file in enumerate(generated.files):
        if file.resolve() in places:
            raise InputError(
                f"{generated.csv}, line {line_of(position)}: {file.name} is also on line "
                f"{line_of(places[file.resolve()])} of {real.csv}; expected other images"
            )


def _unknown_units(own: OwnSet, unit: str, fields: Sequence[str]) -> set[str]:
    """Units of which a row lacks an attribute or the condition."""
    unknown = own.table[list(fields)].apply(lambda cells: cells.str.lower().isin(NOT_GIVEN))
    return set(own.table.loc[unknown.any(axis=1), unit])


def _refuse_two_levels(sets: Sequence[OwnSet], unit: str, fields: Sequence[str]) -> None:
    """Raise for a unit with two levels of a field, within a file or across the two."""
    for name in fields:
        first: dict[str, tuple[str, Path]] = {}
        for own in sets:
            for u, level in zip(own.table[unit], own.table[name], strict=True):
                known, where = first.setdefault(u, (level, own.csv))
                if known != level:
                    raise InputError(
                        f"{own.csv}: {unit} {u!r} has {name} {level!r} here and {known!r} "
                        f"in {where}; expected one level"
                    )


def _levels(real: OwnSet, generated: OwnSet, name: str) -> tuple[str, ...]:
    """Levels of a field in the real images; at least two, and all that the generated have."""
    known = sorted(set(real.table[name]))
    if len(known) < 2:
        raise InputError(f"{real.csv}: {name} has one level, {known[0]!r}; expected two or more")
    if len(known) > MOST_LEVELS:
        raise InputError(
            f"{real.csv}: {name} has {len(known)} levels; expected at most {MOST_LEVELS} "
            "(put a number into groups first)"
        )
    for position, level in enumerate(generated.table[name]):
        if level not in known:
            raise InputError(
                f"{generated.csv}: {name} {level!r} ({generated.table[PATH].iloc[position]}) "
                f"is not in {real.csv}, which has {', '.join(known)}"
            )
    return tuple(known)


def _paired(real: OwnSet, generated: OwnSet, unit: str) -> bool:
    """Whether the sets have the same units (True) or none in common (False)."""
    first, second = set(real.table[unit]), set(generated.table[unit])
    if not first & second:
        return False
    for own, other, theirs in ((generated, real, first), (real, generated, second)):
        for u in own.table[unit]:
            if u not in theirs:
                raise InputError(
                    f"{own.csv}: {unit} {u!r} is not in {other.csv}, but {len(first & second)} "
                    f"others are in both; expected all {unit}s in both files, or none"
                )
    return True


def _read_train(path: Path | str, unit: str, condition: str, real: OwnSet) -> OwnSet:
    """Training reals; a subject that is also audited is refused."""
    train = read_set(path, unit, [condition] if condition else [])
    audited = set(real.table[unit])
    for u in train.table[unit]:
        if u in audited:
            raise InputError(f"{train.csv}: {unit} {u!r} is also in {real.csv}; expected others")
    if condition:
        train = train.take([c.lower() not in NOT_GIVEN for c in train.table[condition]])
    return train


def numbers(own: OwnSet, column: str) -> npt.NDArray[np.float64]:
    """A column of numbers of a CSV, as the scores of a classifier.  # float64 [N]"""
    if column not in own.table.columns:
        known = ", ".join(own.table.columns)
        raise InputError(f"{own.csv}: lacks the column {column}; has {known}")
    values = pd.to_numeric(own.table[column], errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        raise InputError(
            f"{own.csv}: {column} of {own.files[row].name} is {own.table[column].iloc[row]!r}; "
            "expected a finite number"
        )
    return values
