"""Beforehand: X in KID, and the power of every test, from real training images alone.

Half of a sample of training subjects stands for the real side; the other half, blurred as much as a
generator is expected to, for a generator. What these estimates vary by, per subject, and the test
split's own sizes give the standard errors to be expected of subjects. How far *runs* differ nobody
knows beforehand: for that, the protocol says how much they may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fairdiff_lib.audit.blur import blur_curves, blur_images, equivalent_blur
from fairdiff_lib.audit.estimate import OVERALL, Estimate, Floats, Groups, Ints, group_units
from fairdiff_lib.audit.kid import kid_unpaired
from fairdiff_lib.classify.features import Images, Space
from fairdiff_lib.classify.runs import study_extractors
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.verdict.protocol import (
    AUC,
    BLUR,
    DISPARITY,
    EQUITY,
    KID,
    QUALITY,
    Planned,
    Protocol,
    with_power,
)
from fairdiff_lib.study import Study

MOST = 80  # training subjects of each level
EXPECTED_AUC = 0.8  # of a classifier of generated images
SHARED = 0.5  # correlation of the AUCs of two methods' classifiers on the same patients
Key = tuple[str, str]


def space_of(study: Study, train: Images) -> Space:
    """The study's feature space, fixed on all real training images; it sees no test image."""
    own = study_extractors(study)[0]
    return Space.fit(own, study.places.features / "cache", train, train[:1])


@dataclass(frozen=True)
class Spread:
    """Variance of an endpoint per subject of a group: in all, and of the generated images alone."""

    all: float
    made: float

    @classmethod
    def of(cls, one: Estimate, real: int) -> Spread:
        """Of an estimate whose first ``real`` influence values are the real side's."""
        parts = one.n * one.influence**2
        return cls(float(parts.sum()), float(parts[real:].sum()))


def halves(table: pd.DataFrame, cohort: Cohort, seed: int = 0) -> tuple[Ints, Ints]:
    """Rows of at most ``MOST`` subjects of each level, an image each; in two halves alike."""
    names = list(cohort.attribute_levels)
    first = table.assign(row=np.arange(len(table))).drop_duplicates("subject")
    first = first.sample(frac=1, random_state=seed)
    taken = [own.head(MOST) for name in names for _, own in first.groupby(name, sort=True)]
    chosen = pd.concat(taken).drop_duplicates("subject")
    chosen = chosen.sort_values([*names, "row"], kind="stable")
    rows = chosen["row"].to_numpy(dtype=np.int64)
    return rows[::2], rows[1::2]


def spreads(
    study: Study, space: Space, images: Images, table: pd.DataFrame, expected: float, step: float
) -> tuple[dict[str, dict[Key, Spread]], float, int]:
    """Spread by endpoint and group, what a blur wider by ``step`` makes in KID, subjects."""
    cohort = study.cohort
    real, made = halves(table, cohort)
    levels = cohort.attribute_levels
    groups, others = (group_units(table.iloc[rows], levels) for rows in (real, made))
    x, own = space.of(images[real]), images[real]
    widths = (0.0, expected / 2, expected, expected + step, 2 * (expected + step))
    curves = blur_curves(space.kernel, x, lambda s: space.of(blur_images(own, s)), groups, widths)
    y = space.of(blur_images(images[made], expected))
    kids = kid_unpaired(space.kernel, x, y, groups, others)
    blurs = equivalent_blur(kids, curves)
    wider = curves.known[3][0].value - curves.known[2][0].value
    units = len(groups.members)
    found = {
        name: dict(_spreads(estimates, groups, units))
        for name, estimates in ((BLUR, blurs), (KID, kids))
    }
    if not wider > 0 or OVERALL not in found[BLUR]:
        raise InputError(
            f"{cohort.root}: {len(real)} training subjects show no blur of {expected + step:g} "
            "pixels; expected more subjects, or audit.expected_blur as of this image size"
        )
    return found, float(wider), units + len(others.members)


def _spreads(estimates: list[Estimate], groups: Groups, real: int) -> Iterator[tuple[Key, Spread]]:
    for key, one in zip(groups.keys, estimates, strict=True):
        if np.isfinite(one.value) and one.standard_error > 0:
            yield key, Spread.of(one, real)


def planned(study: Study, rule: Protocol) -> Protocol:
    """The protocol with X in KID and every test, each with its power.

    Raises
    ------
    InputError
        Training images that show no blur.
    """
    kept = study.cohort.included()
    train = kept.split("train")
    images = train.load_images(study.settings.model.image_size)
    space = space_of(study, images)
    found, wider, count = spreads(
        study, space, images, train.table, rule.expected_blur, rule.smallest_blur
    )
    rule = replace(rule, smallest_kid=wider, pilot=count)
    test = kept.split("test").table
    tests = [*image_tests(rule, found, test["subject"].nunique()), *classifier_tests(rule, test)]
    runs = len(rule.seeds)
    return replace(rule, tests=with_power(tests, runs))


def image_tests(
    rule: Protocol, found: Mapping[str, Mapping[Key, Spread]], subjects: int
) -> Iterator[Planned]:
    """C1 and C2, each in equivalent blur and in KID.

    Two methods on the same patients: the real side cancels, the generated ones vary by themselves.
    A level too small for a spread of its own has that of all.
    """
    for endpoint, by_group in found.items():
        x, whole = rule.smallest(endpoint), by_group[OVERALL]
        error = (2 * whole.made / subjects) ** 0.5
        yield Planned("C2", QUALITY, endpoint, *OVERALL, "", subjects, x, error, subjects - 1.0)
        for one in rule.contrasts:
            sizes = np.array([one.n, one.n_reference])
            pair = [by_group.get((one.attribute, level), whole)
                    for level in (one.level, one.reference)]  # fmt: skip
            where = (endpoint, one.attribute, one.level, one.reference, int(sizes.min()), x)
            yield Planned("C1", DISPARITY, *where, *_welch([s.all for s in pair], sizes))
            yield Planned("C2", EQUITY, *where, *_welch([2 * s.made for s in pair], sizes))


def classifier_tests(rule: Protocol, test: pd.DataFrame) -> Iterator[Planned]:
    """C3: AUC of the primary condition, as from Hanley and McNeil (1982) at ``EXPECTED_AUC``."""
    units = test.drop_duplicates("subject")
    first = str(units[rule.condition].value_counts().index[0])  # the commonest against the rest
    ill = units[rule.condition] != first

    def variance(member: pd.Series[bool]) -> float:
        cases, others = int((ill & member).sum()), int((~ill & member).sum())
        if min(cases, others) < 2:
            return float("inf")
        a = EXPECTED_AUC
        one, two = a / (2 - a), 2 * a**2 / (1 + a)
        spread = a * (1 - a) + (cases - 1) * (one - a**2) + (others - 1) * (two - a**2)
        return 2 * (1 - SHARED) * spread / (cases * others)

    everyone = pd.Series(True, index=units.index)
    x, n = rule.smallest(AUC), len(units)
    yield Planned("C3", QUALITY, AUC, *OVERALL, "", n, x, variance(everyone) ** 0.5, n - 1.0)
    for one in rule.contrasts:
        sizes = np.array([one.n, one.n_reference])
        own = [variance(units[one.attribute] == level) for level in (one.level, one.reference)]
        where = (one.attribute, one.level, one.reference, int(sizes.min()), x)
        yield Planned("C3", EQUITY, AUC, *where, *_welch(np.array(own) * sizes, sizes))


def _welch(spread: list[float] | Floats, sizes: Ints) -> tuple[float, float]:
    """Standard error and degrees of freedom of a difference, from spreads per subject."""
    parts = np.asarray(spread, dtype=np.float64) / np.maximum(sizes, 1)
    if not np.isfinite(parts).all() or sizes.min() < 2:
        return float("inf"), 1.0
    return float(np.sqrt(parts.sum())), float(parts.sum() ** 2 / np.sum(parts**2 / (sizes - 1)))
