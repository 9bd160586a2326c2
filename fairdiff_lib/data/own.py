"""A user's own images: a CSV of real ones and one of generated ones.

``read_own`` refuses all that could be wrong with them, in one line that names file and line, before
any picture is measured.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from fairdiff_lib.data.pictures import (
    FileGap,
    Seen,
    file_gaps,
    file_table,
    look_at_all,
    refuse_faults,
)
from fairdiff_lib.data.reading import (
    NOT_GIVEN,
    line_of,
    read_text_csv,
    refuse_duplicates,
    refuse_respelt,
)
from fairdiff_lib.disk.files import atomic_folder, hash_file, is_file, write_table
from fairdiff_lib.settings.errors import InputError

PATH = "path"  # the column that names the image, from the CSV's own folder
TAKEN = ("overall",)  # what tables call all images
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
    rows : list of int, length N
        Which row of the CSV lists it, from 0.
    seen : list of Seen, length N
        What each image's file says.
    content : str
        SHA-256 of the CSV and of the images.
    """

    csv: Path
    table: pd.DataFrame
    files: list[Path]
    rows: list[int]
    seen: list[Seen]
    content: str

    def __len__(self) -> int:
        return len(self.table)

    def take(self, kept: Sequence[bool]) -> OwnSet:
        """The rows that a mask keeps."""
        at = [row for row, yes in enumerate(kept) if yes]
        return replace(
            self,
            table=self.table.iloc[at].reset_index(drop=True),
            files=[self.files[row] for row in at],
            rows=[self.rows[row] for row in at],
            seen=[self.seen[row] for row in at if self.seen],
        )


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
    flow : DataFrame
        set, step ("in the file", "left: " with the reason, "used"), units, images.
    """

    real: OwnSet
    generated: OwnSet
    train: OwnSet | None
    attributes: dict[str, tuple[str, ...]]
    conditions: dict[str, tuple[str, ...]]
    unit: str
    paired: bool
    flow: pd.DataFrame

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """Attributes, then the condition."""
        return {**self.attributes, **self.conditions}

    @property
    def file_gaps(self) -> dict[str, list[FileGap]]:
        """What of the files goes with a group, of each set, and with the set itself ("both")."""
        sets = {"real": self.real, "generated": self.generated}
        tables = {name: own.table.join(file_table(own.seen)) for name, own in sets.items()}
        found = {name: file_gaps(table, self.attributes) for name, table in tables.items()}
        both = pd.concat([table.assign(set=name) for name, table in tables.items()])
        return {**found, "both": file_gaps(both.reset_index(drop=True), {"set": tuple(sets)})}

    @property
    def simulated(self) -> bool:
        """Whether the name of the real images' CSV says so."""
        return self.real.csv.stem.endswith("_simulated")

    @property
    def smallest_side(self) -> int:
        """Pixels of the shortest side of any image."""
        sets = (self.real, self.generated, self.train)
        return min(one.side for own in sets if own is not None for one in own.seen)


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
        attributes = attributes.split(",")
    attributes = [str(name).strip() for name in attributes]
    fields = _fields(attributes, condition, unit)
    sets = {"real": _listed(real, unit, fields), "generated": _listed(generated, unit, fields)}
    if str(train):
        sets["train"] = _listed(train, unit, [condition] if condition else [])
    where = ", ".join(str(own.csv) for own in sets.values())
    for name in (unit, *fields):
        said = [own.table[name] for own in sets.values() if name in own.table]
        refuse_respelt(pd.concat(said).tolist(), f"{where}: {name}")
    kept, flow = _known(sets, unit, fields, condition)
    sides = (kept["real"], kept["generated"])
    _refuse_two_levels(sides, unit, fields)
    levels = {name: _levels(*sides, name) for name in fields}
    crossings = [", ".join(own) for own in product(*(levels[x] for x in fields if x != condition))]
    for crossing in crossings if len(set(crossings)) < len(crossings) else ():
        if crossings.count(crossing) > 1:
            raise InputError(
                f"{where}: {crossing!r} may be two crossings of {', '.join(fields)}; expected "
                "levels without commas"
            )
    paired = _paired(*sides, unit)
    if str(train):
        _refuse_audited(kept["train"], sides, unit)
    seen = {name: _looked_at(own) for name, own in kept.items()}
    _refuse_shared(seen["generated"], seen["real"])
    for name in ("real", "generated") if str(train) else ():
        _refuse_shared(seen["train"], seen[name])
    return OwnImages(
        seen["real"],
        seen["generated"],
        seen.get("train"),
        {name: levels[name] for name in fields if name != condition},
        {condition: levels[condition]} if condition else {},
        unit,
        paired,
        flow,
    )


def _known(
    sets: Mapping[str, OwnSet], unit: str, fields: Sequence[str], condition: str
) -> tuple[dict[str, OwnSet], pd.DataFrame]:
    """The sets without units of which a row lacks a level, and who left each of them, and why."""
    reasons: dict[str, str] = {}
    for own in (sets["real"], sets["generated"]):
        reasons |= _unknown_units(own, unit, fields)
    kept, rows = {}, []
    for name, own in sets.items():
        left = reasons if name != "train" else {}
        if name == "train" and condition:
            left = _unknown_units(own, unit, [condition])
        why = own.table[unit].map(lambda u, left=left: left.get(u, ""))
        kept[name] = own.take((why == "").tolist())
        if not len(kept[name]):
            raise InputError(f"{own.csv}: no {unit} has a known {' and '.join(fields)}")
        gone = {f"left: {reason}": own.table[why == reason] for reason in sorted(set(why) - {""})}
        for step, part in {"in the file": own.table, **gone, "used": kept[name].table}.items():
            rows.append((name, step, part[unit].nunique(), len(part)))
    return kept, pd.DataFrame(rows, columns=["set", "step", "units", "images"])


def _fields(attributes: Sequence[str], condition: str, unit: str) -> list[str]:
    """Attributes and condition; each may be named once and none is the path or the unit."""
    fields = [*attributes, condition] if condition else list(attributes)
    if not attributes or not all(attributes):
        raise InputError("attributes: expected one or more column names, as sex,age_group")
    for name in fields:
        if name in (PATH, unit, *TAKEN) or fields.count(name) > 1:
            raise InputError(
                f"attribute or condition {name!r}: expected a column of its own, named once, "
                f"other than {', '.join((PATH, unit, *TAKEN))}"
            )
    return fields


def read_set(path: Path | str, unit: str, fields: Sequence[str]) -> OwnSet:
    """One CSV with its images looked at: there, pictures, of 8 bits, large enough, each once."""
    return _looked_at(_listed(path, unit, fields))


def _listed(path: Path | str, unit: str, fields: Sequence[str]) -> OwnSet:
    """What a CSV lists, each file once; the files are not opened."""
    path = Path(path)
    table = read_text_csv(path, list(dict.fromkeys([PATH, unit, *fields])))
    for position, cell in enumerate(table[unit]):
        if not cell:
            raise InputError(f"{path}, line {line_of(position)}: blank {unit!r}")
    refuse_duplicates(table[PATH].tolist(), path, PATH)
    files = [path.parent / cell for cell in table[PATH]]  # an absolute path stays what it is
    real = [os.path.realpath(file) for file in files]  # also as ./name, or by a link
    refuse_duplicates(real, path, PATH)
    return OwnSet(path, table, files, table.index.tolist(), [], "")


def _looked_at(own: OwnSet) -> OwnSet:
    """The set with what its files say; one that is no sound picture is refused."""
    pairs = zip(own.table[PATH], own.rows, strict=True)
    names = [f"{cell} (line {line_of(row)})" for cell, row in pairs]
    there = [Seen(fault="" if is_file(file) else "are missing") for file in own.files]
    refuse_faults(own.csv, names, there)
    seen = look_at_all(own.files, f"look at {own.csv.name}", LEAST_SIDE)
    refuse_faults(own.csv, names, seen)
    content = "\n".join([hash_file(own.csv), *(one.sha256 for one in seen)])
    return replace(own, seen=seen, content=hashlib.sha256(content.encode()).hexdigest())


def _refuse_shared(one: OwnSet, other: OwnSet) -> None:
    """Raise for a picture in both sets, byte for byte: none is a generated copy of itself."""
    places = {seen.sha256: row for row, seen in enumerate(other.seen)}
    for row, seen in enumerate(one.seen):
        first = places.get(seen.sha256)
        if first is not None:
            name = other.files[first].name
            same = "" if name == one.files[row].name else f", there named {name}"
            raise InputError(
                f"{one.csv}, line {line_of(one.rows[row])}: {one.files[row].name} is also on line "
                f"{line_of(other.rows[first])} of {other.csv}{same}, byte for byte; expected "
                "other images"
            )


def _unknown_units(own: OwnSet, unit: str, fields: Sequence[str]) -> dict[str, str]:
    """Units of which a row lacks an attribute or the condition, and which it is."""
    found: dict[str, str] = {}
    for name in reversed(fields):
        unknown = own.table[name].str.lower().isin(NOT_GIVEN)
        found |= dict.fromkeys(own.table.loc[unknown, unit], f"{name} unknown")
    return found


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


def _refuse_audited(train: OwnSet, audited: Sequence[OwnSet], unit: str) -> None:
    """Raise for a subject of the training reals that is audited too."""
    for own in audited:
        for u in sorted(set(own.table[unit]) & set(train.table[unit])):
            raise InputError(f"{train.csv}: {unit} {u!r} is also in {own.csv}; expected others")


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


# -- an example with a known answer ----------------------------------------------------------

PICTURE = 64  # pixels
SUBJECTS = 240  # each with one real and one generated picture
LEVELS = {"palette": ("cool", "warm"), "camera": ("A", "B"), "shape": ("disc", "square")}
PLANTED = ("palette", "cool")  # the group whose generated pictures are blurred
BLUR = 0.5  # pixels, standard deviation
NAMES = ("real_simulated", "generated_simulated")
_FILL = {"cool": (60, 110, 190), "warm": (200, 110, 60)}
_GROUND = (128, 128, 128)


def write_example(
    folder: Path | str, seed: int = 0, blur: float = BLUR, planted: tuple[str, str] = PLANTED
) -> tuple[Path, Path]:
    """Write real_simulated.csv, generated_simulated.csv and their pictures; both CSV files.

    Columns: path, subject, palette, camera (attributes), shape (a condition), and score: how much
    a simple reader takes the picture for a square. ``palette`` carries the planted disparity,
    unless another (attribute, level) is ``planted``: its generated pictures are blurred by ``blur``
    pixels. ``camera`` is a label that changes no picture. All crossings are equally large. The
    folder is made or replaced as a whole.
    """
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    subjects = pd.DataFrame({"subject": [f"S{number:03d}" for number in range(SUBJECTS)]})
    crossings = list(product(*LEVELS.values()))
    subjects[list(LEVELS)] = [crossings[number % len(crossings)] for number in range(SUBJECTS)]
    with atomic_folder(folder) as place:
        for name in NAMES:
            (place / name).mkdir()
            rows = []
            for row in subjects.to_dict("records"):
                picture = _draw(rng, row["palette"], row["shape"])
                if name == NAMES[1] and row[planted[0]] == planted[1]:
                    picture = picture.filter(ImageFilter.GaussianBlur(blur))
                path = f"{name}/{row['subject']}.png"
                picture.save(place / path)
                rows.append({"path": path, **row, "score": _square_score(picture)})
            write_table(pd.DataFrame(rows), place / f"{name}.csv")
    return folder / f"{NAMES[0]}.csv", folder / f"{NAMES[1]}.csv"


def _draw(rng: np.random.Generator, palette: str, shape: str) -> Image.Image:
    """One picture: a shape of varied size and place on a noisy ground."""
    picture = Image.new("RGB", (PICTURE, PICTURE), _GROUND)
    reach = rng.uniform(11, 19)
    x, y = PICTURE / 2 + rng.uniform(-6, 6, 2)
    pen = ImageDraw.Draw(picture)
    fill = tuple(int(c + rng.normal(0, 12)) for c in _FILL[palette])
    box = (x - reach, y - reach, x + reach, y + reach)
    (pen.ellipse if shape == "disc" else pen.rectangle)(box, fill=fill)
    noisy = np.asarray(picture) + rng.normal(0, 14, (PICTURE, PICTURE, 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _square_score(picture: Image.Image) -> float:
    """Share of its bounding box that the shape fills: about 0.79 for a disc, 1 for a square."""
    pixels = np.asarray(picture, dtype=np.float64)
    coloured = np.abs(pixels[:, :, 0] - pixels[:, :, 2]) > 40
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    if not len(rows):
        return 0.5
    box = coloured[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return round(float(box.mean()), 4)
