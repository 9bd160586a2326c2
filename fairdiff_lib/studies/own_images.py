"""Audit your own generator: two CSV files in, the audit card and its tables out.

The generator's images are compared with real ones, overall and by group, in a feature space that
no label has shaped. See ``own_tables`` for what the CSV files hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, Estimator, audit
from fairdiff_lib.audit.estimate import Estimate, Floats, Groups, Ints, group_units
from fairdiff_lib.audit.kid import (
    as_features,
    kid,
    kid_unpaired,
    real_floor,
    shares,
    standardised_kid,
)
from fairdiff_lib.audit.shrinkage import crossed, intersection_rows
from fairdiff_lib.disk.files import atomic_folder, write_json, write_table
from fairdiff_lib.disk.places import is_simulated
from fairdiff_lib.disk.stamps import make_provenance
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.cards import ENDPOINT, Facts, with_floor, write_card
from fairdiff_lib.show.words import about_small_levels, one_at_a_time
from fairdiff_lib.studies.own_features import DEFAULT_FEATURES, LABEL_FREE, Measured, measure
from fairdiff_lib.studies.own_tables import OwnImages, OwnSet, read_own

SMALLEST_SHARE = 0.2  # smallest difference of interest, x the overall KID
FLOOR_SPLITS = 100
STAMP = "stamp.json"


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
        attribute, level, low, high: KID between two halves of the reals.
    facts : Facts
        The card's words.
    stamp : dict
        What the numbers depend on.
    groups, generated_groups : Groups
        Of the rows of both tables: for ``fairness.audit`` with metrics of one's own.
    real_features, generated_features : float64 [N, D], [P, D]
        In units of their spread.
    """

    images: OwnImages
    audit: Audit
    standardised: Audit | None
    intersections: pd.DataFrame
    floor: pd.DataFrame
    facts: Facts
    stamp: dict[str, Any]
    groups: Groups
    generated_groups: Groups
    real_features: Floats
    generated_features: Floats

    @property
    def by_group(self) -> pd.DataFrame:
        """``Audit.by_group`` with the floor beside it."""
        return with_floor(self.audit.by_group, self.floor)


def audit_own(
    real: Path | str,
    generated: Path | str,
    attributes: Sequence[str],
    *,
    condition: str = "",
    train: Path | str = "",
    features: str = DEFAULT_FEATURES,
    revision: str = "",
    unit: str = "subject",
    image_size: int = 0,
    confidence: float = 0.95,
    secondary_below: int = 80,
) -> OwnAudit:
    """Compare a generator's images with real ones, overall and by group.

    Parameters
    ----------
    real, generated, attributes, condition, train, unit
        As in :func:`own_tables.read_own`.
    features : str
        ``texture`` or ``random-conv`` (need no download and no label), ``encoder`` (a classifier
        of the condition, trained on ``train``), ``inception``, a hub id or a folder of a
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
        One line naming file, line and what was expected.
    """
    images = read_own(real, generated, attributes, condition, train, unit)
    measured = measure(images, features, revision, image_size)
    groups, made = (
        group_units(own.table, images.levels, unit) for own in (images.real, images.generated)
    )
    common: dict[str, Any] = {
        "confidence": confidence, "secondary_below": secondary_below, "features": measured.name
    }  # fmt: skip
    estimator = _estimator(measured, images, made)
    found = audit(estimator, groups, images.attributes, metric="kid", **common)
    found = found.with_smallest_effect(SMALLEST_SHARE * found.overall.value)
    standard = None
    if images.conditions and images.paired:
        standard = audit(
            _standardised(measured, images, made), groups, images.attributes,
            metric="kid_standardised", **common,
        )  # fmt: skip
    floor = _floors(measured, groups)
    parameters = {
        "attributes": list(attributes), "condition": condition, "features": measured.name,
        "revision": revision, "unit": unit, "image_size": measured.size,
        "confidence": confidence, "secondary_below": secondary_below,
    }  # fmt: skip
    return OwnAudit(
        images,
        found,
        standard,
        _intersections(measured, images, common),
        floor,
        _facts(images, measured, found, standard, floor),
        _stamp(images, parameters),
        groups,
        made,
        measured.real,
        measured.generated,
    )


def write_audit(result: OwnAudit, folder: Path | str, *, force: bool = False) -> Path:
    """Write card, tables and stamp as a whole folder, or nothing.

    Parameters
    ----------
    result : OwnAudit
    folder : path
    force : bool
        Replace an earlier audit; any other folder that holds something is refused anyway.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    refuse_taken(folder, force)
    with atomic_folder(folder) as place:
        write_card(result.audit, result.facts, place, result.stamp)
        write_table(result.by_group, place / "by_group.csv")
        write_table(result.audit.contrasts, place / "contrasts.csv")
        write_table(result.audit.summary, place / "summary.csv")
        if result.standardised is not None:
            table = result.standardised.contrasts
            write_table(table, place / "contrasts_standardised.csv")
        if not result.intersections.empty:
            write_table(result.intersections, place / "intersections.csv")
        write_json(place / STAMP, result.stamp)
    return folder


def refuse_taken(folder: Path | str, force: bool) -> None:
    """Raise for a folder that an audit must not replace: call it before the work, too."""
    folder = Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / STAMP).is_file() or not (folder / "card.html").is_file():
        raise InputError(f"{folder}: holds something other than an audit; expected a new folder")
    if not force:
        raise InputError(f"{folder}: holds an earlier audit; give another folder, or --force")


# -- numbers ---------------------------------------------------------------------------------


def _estimator(measured: Measured, images: OwnImages, made: Groups) -> Estimator:
    """KID by unit where the sets have the same units, else of two separate samples."""
    x, y = measured.real, measured.generated
    if images.paired:  # the same sorted names: a unit has the same number in both tables
        return partial(kid, measured.kernel, x, y, generated_unit=made.unit)
    return partial(kid_unpaired, measured.kernel, x, y, generated_groups=made)


def _standardised(measured: Measured, images: OwnImages, made: Groups) -> Estimator:
    """KID of every group at the case mix of all reals."""
    strata = group_units(images.real.table, images.conditions, images.unit)

    def estimate(groups: Groups) -> list[Estimate]:
        return standardised_kid(
            measured.kernel, measured.real, measured.generated, groups, strata, shares(strata),
            generated_unit=made.unit,
        )  # fmt: skip

    return estimate


def _floors(measured: Measured, groups: Groups) -> pd.DataFrame:
    """Noise between two halves of each group's reals: 95% of splits lie from low to high."""
    rows = []
    for key, member in zip(groups.keys, groups.members.T, strict=True):
        splits = real_floor(measured.kernel, measured.real, groups.unit, member, FLOOR_SPLITS)
        band = np.quantile(splits, [0.025, 0.975]) if len(splits) else (np.nan, np.nan)
        rows.append((*key, float(band[0]), float(band[1])))
    return pd.DataFrame(rows, columns=["attribute", "level", "low", "high"])


def _intersections(
    measured: Measured, images: OwnImages, common: Mapping[str, Any]
) -> pd.DataFrame:
    """KID of every crossing of the attributes, raw and shrunk towards their mean."""
    if len(images.attributes) < 2:
        return pd.DataFrame()
    (real, crossing), (generated, _) = (
        crossed(own.table, images.attributes) for own in (images.real, images.generated)
    )
    groups, made = (group_units(table, crossing, images.unit) for table in (real, generated))
    found = audit(_estimator(measured, images, made), groups, crossing, metric="kid", **common)
    return intersection_rows(found, next(iter(crossing)))


# -- words and stamp -------------------------------------------------------------------------


def _counts(own: OwnSet, unit: str) -> str:
    return f"{own.csv.name}: {len(own):,} images of {own.table[unit].nunique():,} {unit}s"


def _facts(
    images: OwnImages,
    measured: Measured,
    found: Audit,
    standard: Audit | None,
    floor: pd.DataFrame,
) -> Facts:
    simulated = " (simulated images)" if is_simulated(images.real.csv.stem) else ""
    compared = [
        ("Real images", _counts(images.real, images.unit)),
        ("Generated images", _counts(images.generated, images.unit)),
        ("Features", f"{measured.name}, from images reduced to {measured.size} pixels"),
    ]
    shared = images.real.table[images.unit].nunique()
    how = f"paired, the same {shared:,} {images.unit}s in both" if images.paired else "unpaired"
    compared.insert(2, ("Comparison", how))
    if images.train is not None:
        compared.insert(2, ("Training images", _counts(images.train, images.unit)))
    below = found.design.secondary_below
    condition = next(iter(images.conditions), "")
    return Facts(
        title=f"Is this generator equally good for every group?{simulated}",
        compared=compared,
        endpoint=ENDPOINT.format(below=below, unit=images.unit),
        caveats=_caveats(images, measured, found, condition, standard is not None),
        unit=images.unit,
        floor=floor,
        standardised=None if standard is None else standard.contrasts,
        mix=condition,
    )


def _caveats(
    images: OwnImages, measured: Measured, found: Audit, condition: str, standardised: bool
) -> list[str]:
    """What limits this audit, the most important first."""
    unit = images.unit
    said = ["Exploratory: no protocol was registered before these images were compared."]
    if not condition:
        said.append("Case mix: not standardised; a group with harder cases looks worse.")
    elif not standardised:
        said.append(
            f"Case mix: not standardised for {condition}; that takes the same {unit}s in both sets."
        )
    if len(images.attributes) > 1:
        said.append(one_at_a_time("intersections.csv"))
    if not images.paired:
        said.append(f"Unpaired: the sets share no {unit}, which makes intervals wider.")
    if measured.name in LABEL_FREE:
        said.append(
            f"Features: {measured.name} sees {LABEL_FREE[measured.name]}. Repeat with features of "
            "your field (--features)."
        )
    if images.train is None:
        said.append(
            "Feature scale and kernel bandwidth were fixed on the real images compared here, as no "
            "training images were given."
        )
    small = about_small_levels(
        found.by_group, list(images.attributes), found.design.secondary_below
    )
    if small:
        said.append(small)
    if images.left_out:
        said.append(f"{images.left_out}.")
    return said


def _stamp(images: OwnImages, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, content of the inputs, versions, hardware, commit. Names no folder."""
    sets = {"real": images.real, "generated": images.generated}
    if images.train is not None:
        sets["train"] = images.train
    content = {name: {"file": own.csv.name, "sha256": own.content} for name, own in sets.items()}
    joined = "\n".join(own.content for own in sets.values())
    return {
        "parameters": dict(parameters),
        "content": content,
        "data_hash": hashlib.sha256(joined.encode()).hexdigest(),
        "simulated": is_simulated(images.real.csv.stem),
        **make_provenance(),
    }


# -- metrics of one's own --------------------------------------------------------------------


def statistic(values: Floats, summary: Callable[[Floats], Any]) -> Callable[[Ints], float]:
    """A function of image row indices for ``fairness.rows_metric``: a summary of a value per image.

    Parameters
    ----------
    values : float64 [N]
        In the order of the CSV's rows.
    summary : callable
        Of the values of the chosen rows; a smooth one, as a standard deviation: the jackknife
        behind its interval is wrong for a median.

    Raises
    ------
    InputError
        A value that is not finite.
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
