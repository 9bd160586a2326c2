"""11: audit your own generator. Two CSV files of images in, the audit and its tables out.

``read_own`` refuses all that could be wrong with them, in one line that names file and line, before
any picture is measured. ``audit_own`` measures features that no label has shaped, and calls
the study's own ``audit_images``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from fairdiff_lib.audit.audit import Audit, crossed, intersection_rows
from fairdiff_lib.audit.estimate import MIN_UNITS, Floats, Groups, Ints, group_units
from fairdiff_lib.audit.fid import fid_against_n
from fairdiff_lib.audit.kid import Kernel, as_features, fit_kernel, real_floor
from fairdiff_lib.audit.quality import FLOOR_SPLITS
from fairdiff_lib.audit.realism import near_copies
from fairdiff_lib.classify.features import (
    BATCH,
    SPREAD_FLOOR,
    Extractor,
    Features,
    Scale,
    make_extractor,
)
from fairdiff_lib.classify.fit import Classifier, fit_classifier
from fairdiff_lib.data.cohort import load_image
from fairdiff_lib.data.reading import (
    is_deep,
    line_of,
    read_text_csv,
    refuse_duplicates,
    refuse_respelt,
)
from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import (
    atomic_folder,
    check_replaceable,
    hash_file,
    write_json,
    write_table,
)
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.stamps import make_provenance
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.sim.shapes import write_example
from fairdiff_lib.studies.quality import audit_images, described, groups_of

PATH = "path"  # the column that names the image, from the CSV's own folder
NOT_GIVEN = ("", "unknown", "nan", "na", "n/a")  # lower case; "none" may be a level of its own
LEAST_SIDE = 32  # pixels; smaller pictures hold too little to compare
MOST_LEVELS = 20  # of an attribute; more is a number that was not put into groups
DEFAULT_FEATURES = "texture"
SEEN = {  # of features that need no label and no download
    "texture": "colour, blur and noise at four scales, not anatomy",
    "random-conv": "colour and coarse texture, hardly blur, and no anatomy",
}
BUILT_IN = {"random-conv": "random"}  # what a user calls it: what ``features`` calls it
MOST_PIXELS = {"texture": 128, "random-conv": 128, "encoder": 64}  # size where none is given
MOST_PIXELS_ELSE = 256  # of pretrained features, which enlarge to their own size
VALIDATION = 5  # one in so many training subjects chooses the encoder's step
SMALLEST_SHARE = 0.2  # smallest difference of interest, x the overall KID
CARD, STAMP = "card.html", "stamp.json"


# -- two CSV files in --------------------------------------------------------------------------


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


def csv_files(real: str, generated: str, example: Path) -> tuple[Path, Path]:
    """The two files that are named, relative ones below the project; of none, a drawn example's."""
    if bool(real) != bool(generated):
        named, other = ("real", "generated") if real else ("generated", "real")
        raise InputError(f"{named}_csv is given without {other}_csv; expected both, or neither")
    if not real:
        return write_example(example)
    return PROJECT_ROOT / real, PROJECT_ROOT / generated


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
    _refuse_small(kept, names, unit)
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


def _refuse_small(sets: Sequence[OwnSet], names: Sequence[str], unit: str) -> None:
    """Raise if no attribute has two levels with enough units for a comparison."""
    best: tuple[int, str, str] = (-1, "", "")
    for name in names:
        counts = [own.table.groupby(name)[unit].nunique() for own in sets]
        smaller = pd.concat(counts, axis=1).fillna(0).min(axis=1).sort_values(ascending=False)
        best = max(best, (int(smaller.iloc[1]), name, str(smaller.index[1])))
    if best[0] < MIN_UNITS:
        raise InputError(
            f"{sets[0].csv}: no attribute has two levels of at least {MIN_UNITS} {unit}s in both "
            f"sets; nearest is {best[1]}, whose second largest level {best[2]!r} has {best[0]}"
        )


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


# -- features ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Features in units of their spread, and the kernel on them."""

    real: Floats  # [N, D]
    generated: Floats  # [P, D]
    kernel: Kernel
    name: str
    size: int  # pixels
    sees: str = ""  # in words, where it is known
    hardly_vary: str = ""  # which features do, in words


def measure(images: OwnImages, features: str, revision: str, image_size: int) -> Measured:
    """Features of all images; scale and bandwidth from the training reals, else from the reals."""
    size, smallest = image_size, images.smallest_side
    if size == 0:
        size = min(smallest, MOST_PIXELS.get(features, MOST_PIXELS_ELSE))
    if not LEAST_SIDE <= size <= smallest:
        raise InputError(
            f"image size {size}: expected {LEAST_SIDE} to {smallest} pixels, the shortest side "
            "of any image"
        )
    classifier = _fit_encoder(images, size) if features == "encoder" else None
    extractor = make_extractor(BUILT_IN.get(features, features), revision, classifier)
    real, generated = (
        extract_files(extractor, own, size) for own in (images.real, images.generated)
    )
    base = real if images.train is None else extract_files(extractor, images.train, size)
    scale = Scale.fit(base, SPREAD_FLOOR)
    kernel = fit_kernel(scale(base))
    name = features if features in BUILT_IN else extractor.name
    sees, hardly = SEEN.get(name, ""), scale.caveat()
    return Measured(scale(real), scale(generated), kernel, name, size, sees, hardly)


def extract_files(extractor: Extractor, own: OwnSet, size: int, batch: int = BATCH) -> Features:
    """Features of image files, decoded in batches, so that memory stays bounded.  # [N, D]"""
    found = []
    with tqdm(total=len(own), desc=f"features of {own.csv.name}", disable=None) as bar:
        for start in range(0, len(own), batch):
            files = own.files[start : start + batch]
            found.append(extractor(np.stack([load_image(file, size) for file in files])))
            bar.update(len(files))
    features = np.concatenate(found)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise InputError(
            f"{own.csv}: features {extractor.name!r} are not finite for {bad.sum()} of {len(own)} "
            f"images, first {own.files[int(bad.argmax())].name}"
        )
    return features


def _fit_encoder(images: OwnImages, size: int) -> Classifier:
    """A small classifier of the condition, from the training reals alone."""
    if images.train is None or not images.conditions:
        raise InputError(
            "features 'encoder': expected --train with real images and --condition, which it "
            "learns to tell apart"
        )
    heads = images.conditions
    ((name, levels),) = heads.items()
    codes = (
        pd.Index(levels).get_indexer(pd.Index(images.train.table[name]))[:, None].astype(np.int64)
    )
    if (codes < 0).any():
        bad = images.train.table[name].iloc[int((codes < 0).argmax())]
        raise InputError(
            f"{images.train.csv}: {name} {bad!r} is not in {images.real.csv}, which has "
            f"{', '.join(levels)}"
        )
    loaded = tqdm(images.train.files, desc="training images", disable=None)
    pixels = np.stack([load_image(file, size) for file in loaded])
    digests = [hashlib.sha256(u.encode()).digest()[0] for u in images.train.table[images.unit]]
    val = np.array(digests) % VALIDATION == 0
    if not val.any() or val.all():
        raise InputError(f"{images.train.csv}: too few {images.unit}s to train an encoder on")
    return fit_classifier(
        pixels[~val], codes[~val], heads, pixels[val], codes[val],
        load_settings("quick").encoder, seed=0,
    )  # fmt: skip


# -- the audit ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnAudit:
    """What the audit of a user's images found.

    Attributes
    ----------
    images : OwnImages
    audit : Audit
        KID by attribute level and, as description, by level of the condition.
    standardised : Audit or None
        The same at a common case mix, where there is a condition and the subjects match.
    intersections : DataFrame
        KID of every crossing of the attributes, raw and shrunken: see
        ``shrinkage.intersection_rows``; empty with one attribute.
    floor : DataFrame
        attribute, level, low, high: KID between two halves of the reals; 95% of splits.
    stamp : dict
        What the numbers depend on.
    groups, generated_groups : Groups
        Of the rows of both tables: for ``audit.audit`` with metrics of one's own.
    measured : Measured
        Features of both, and the kernel.
    copies : str
        Which generated images are nearly identical, in a sentence; empty where none are.
    """

    images: OwnImages
    audit: Audit
    standardised: Audit | None
    intersections: pd.DataFrame
    floor: pd.DataFrame
    stamp: dict[str, Any]
    groups: Groups
    generated_groups: Groups
    measured: Measured
    copies: str

    @property
    def by_group(self) -> pd.DataFrame:
        """``Audit.by_group`` with the floor beside it, as floor_low and floor_high."""
        bands = self.floor.rename(columns={"low": "floor_low", "high": "floor_high"})
        return self.audit.by_group.merge(bands, on=["attribute", "level"], how="left")

    @property
    def one_to_one(self) -> bool:
        """Whether every unit has one real and one generated image."""
        sizes = {len(self.images.real), len(self.images.generated), len(self.groups.members)}
        return self.images.paired and len(sizes) == 1

    def one_row_each(self, attribute: str, level: str) -> tuple[Floats, Floats]:
        """Features of a group, real and generated: the first image of each unit, [M, D] both.

        Of separate samples, as many rows as the smaller one has units.
        """
        found = []
        for features, groups in zip(
            (self.measured.real, self.measured.generated),
            (self.groups, self.generated_groups),
            strict=True,
        ):
            first = np.unique(groups.unit, return_index=True)[1]
            found.append(features[first[groups.column(attribute, level)]])
        rows = min(map(len, found))
        return found[0][:rows], found[1][:rows]


def audit_own(
    real: Path | str,
    generated: Path | str,
    attributes: str | Sequence[str],
    condition: str = "",
    train: Path | str = "",
    unit: str = "subject",
    **measuring: Any,
) -> OwnAudit:
    """Audit a generator from two CSV files: :func:`read_own`, then :func:`audit_read`."""
    return audit_read(read_own(real, generated, attributes, condition, train, unit), **measuring)


def audit_read(
    images: OwnImages,
    *,
    features: str = DEFAULT_FEATURES,
    revision: str = "",
    image_size: int = 0,
    confidence: float = 0.95,
    secondary_below: int = 80,
) -> OwnAudit:
    """Compare a generator's images with real ones, overall and by group.

    Parameters
    ----------
    images : OwnImages
        From :func:`read_own`.
    features : str
        ``texture`` or ``random-conv`` (need no download and no label), ``encoder`` (a classifier
        of the condition, trained on the training images), ``inception``, a hub id or a folder of a
        transformers model.
    revision : str
        Commit of a hub id.
    image_size : int
        Pixels that all images are reduced to; 0 = the shortest side of any, at most 128 (64 for
        ``encoder``, 256 for pretrained features).
    confidence : float
        Of each interval.
    secondary_below : int
        Units; smaller levels are shown, but not in the family of primary contrasts.

    Raises
    ------
    InputError
        Features that don't exist, a size that no image has, an image that can't be measured.
    """
    measured = measure(images, features, revision, image_size)
    sets = [own.table for own in (images.real, images.generated)]
    crossing: dict[str, list[str]] = {}
    if len(images.attributes) > 1:
        (real, crossing), (made, _) = (crossed(table, images.attributes) for table in sets)
        sets = [real, made]
    levels = {**images.levels, **crossing}
    groups, generated = (group_units(table, levels, images.unit) for table in sets)
    strata = None
    if images.conditions:
        strata = group_units(images.real.table, images.conditions, images.unit)
    found, *rest = audit_images(
        measured.real,
        measured.generated,
        groups,
        measured.kernel,
        images.attributes,
        made=generated,
        paired=images.paired,
        strata=strata,
        features=measured.name,
        confidence=confidence,
        secondary_below=secondary_below,
    )
    copies = near_copies(measured.generated, measured.real, groups.unit)
    found, *rest = (copies.guard(one, generated) for one in (found, *rest))
    found = found.with_smallest_effect(SMALLEST_SHARE * found.overall.value)
    parameters = {
        "attributes": list(images.attributes), "condition": "".join(images.conditions),
        "features": measured.name, "revision": revision, "unit": images.unit,
        "image_size": measured.size, "confidence": confidence, "secondary_below": secondary_below,
    }  # fmt: skip
    rows = [intersection_rows(found, name) for name in crossing]
    groups, generated = (groups_of(own, images.levels) for own in (groups, generated))
    return OwnAudit(
        images,
        described(found, images.levels),
        rest[0] if rest else None,
        pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(),
        _floors(measured, groups),
        _stamp(images, parameters),
        groups,
        generated,
        measured,
        copies.caveat([file.name for file in images.generated.files]),
    )


def _floors(measured: Measured, groups: Groups) -> pd.DataFrame:
    """Noise between two halves of each group's reals: 95% of splits lie from low to high."""
    rows = []
    for key, member in zip(groups.keys, groups.members.T, strict=True):
        splits = real_floor(measured.kernel, measured.real, groups.unit, member, FLOOR_SPLITS)
        band = np.quantile(splits, [0.025, 0.975]) if len(splits) else (np.nan, np.nan)
        rows.append((*key, float(band[0]), float(band[1])))
    return pd.DataFrame(rows, columns=["attribute", "level", "low", "high"])


def write_audit(result: OwnAudit, folder: Path | str, page: str, *, force: bool = False) -> Path:
    """Write card (``page``, HTML), tables and stamp as a whole folder, or nothing; the folder.

    ``force`` replaces an earlier audit; any other folder that holds something is refused anyway.
    """
    folder = Path(folder)
    refuse_taken(folder, force)
    todo = {"by_group": result.by_group, "contrasts": result.audit.contrasts}
    todo["summary"] = result.audit.summary
    if result.standardised is not None:
        todo["contrasts_standardised"] = result.standardised.contrasts
    if not result.intersections.empty:
        todo["intersections"] = result.intersections
    with atomic_folder(folder) as place:
        (place / CARD).write_text(page, encoding="utf-8")
        for name, table in todo.items():
            write_table(table, place / f"{name}.csv")
        write_json(place / STAMP, result.stamp)
    return folder


def refuse_taken(folder: Path | str, force: bool) -> None:
    """Raise for a folder that an audit must not replace: call it before the work, too."""
    folder = Path(folder)
    check_replaceable(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / STAMP).is_file() or not (folder / CARD).is_file():
        raise InputError(f"{folder}: holds something other than an audit; expected a new folder")
    if not force:
        raise InputError(f"{folder}: holds an earlier audit; give another folder, or --force")


def _stamp(images: OwnImages, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, content of the inputs, versions, hardware, commit. Names no folder."""
    sets = {"real": images.real, "generated": images.generated}
    if images.train is not None:
        sets["train"] = images.train
    joined = "\n".join(own.content for own in sets.values())
    return {
        "parameters": dict(parameters),
        "content": {k: {"file": own.csv.name, "sha256": own.content} for k, own in sets.items()},
        "data_hash": hashlib.sha256(joined.encode()).hexdigest(),
        "simulated": images.simulated,
        **make_provenance(),
    }


def fid_of_halves(result: OwnAudit, draws: int = 5) -> pd.DataFrame:
    """FID between two random halves of the real images, whose truth is 0: n, draw, value.

    Of a quarter, half and all of each.
    """
    units = len(result.groups.members)
    half = (np.random.default_rng(0).permutation(units) < units // 2)[result.groups.unit]
    first, second = result.measured.real[half], result.measured.real[~half]
    n = min(len(first), len(second))
    return fid_against_n(first, second, [n // 4, n // 2, n], draws=draws)


# -- metrics of one's own --------------------------------------------------------------------


def statistic(values: Floats, summary: Callable[[Floats], Any]) -> Callable[[Ints], float]:
    """A function of row indices for ``rows_metric``: a summary of a value [N] per image.

    A smooth summary, as a standard deviation: the jackknife behind its interval is wrong for a
    median.
    """
    known = as_features(np.asarray(values, dtype=np.float64)[:, None], "values")[:, 0]
    return lambda rows: float(summary(known[rows]))


def numbers(own: OwnSet, column: str) -> Floats:
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
