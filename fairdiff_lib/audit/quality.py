"""Image quality: features -> statistics -> KID, FID, Inception Score, MiFID, precision/recall.

Every metric is a function of feature arrays and of the rows that a group selects. KID is the
primary one (unbiased at any n); the others are shown where they can be estimated and say so
where they cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    group_units,
)
from fairdiff_lib.audit.estimators import mean_of_rows
from fairdiff_lib.audit.fid import BLOCKS, UNITS_PER_FEATURE, estimable, fid, fid_as_released, mifid
from fairdiff_lib.audit.kid import Kernel, as_features, kid, real_floor, squared_distances
from fairdiff_lib.settings.errors import InputError

FLOOR_SPLITS = 100  # random halves of the reals
NEIGHBOURS = 5  # of the manifolds of precision, recall, density and coverage
COLUMNS = ("attribute", "level", "metric", "features", "n", "value", "low", "high", "note")
Row = dict[str, Any]


def inception_score(probabilities: Floats) -> float:
    """Inception Score exp(mean KL(p || mean p)) in one split, from class probabilities [N, K].

    The released code uses ten splits at any n, which caps the score at n / 10.
    """
    logits = np.log(np.clip(probabilities, 1e-12, None))
    p, log_p = special.softmax(logits, axis=1), special.log_softmax(logits, axis=1)
    return float(np.exp(np.sum(p * (log_p - np.log(p.mean(axis=0))), axis=1).mean()))


def manifold_scores(real: Floats, generated: Floats) -> dict[str, Floats]:
    """Per-image precision, recall (Kynkaanniemi 2019), density and coverage (Naeem 2020).

    A ball around each image reaches to its ``NEIGHBOURS``-th neighbour among its own kind.
    Precision and density per generated image [P], recall and coverage per real image [N]; the mean
    of each is the score.
    """
    cross = squared_distances(real, generated)  # [N, P]
    reach = {}
    for name, own in (("real", real), ("generated", generated)):
        within = squared_distances(own, own)
        np.fill_diagonal(within, np.inf)  # an image is not its own neighbour
        reach[name] = np.partition(within, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
    inside = cross <= reach["real"][:, None]
    return {
        "precision": inside.any(axis=0).astype(np.float64),
        "recall": (cross <= reach["generated"][None, :]).any(axis=1).astype(np.float64),
        "density": inside.sum(axis=0) / NEIGHBOURS,
        "coverage": inside.any(axis=1).astype(np.float64),
    }


def quality_table(
    real: ArrayLike,
    generated: ArrayLike,
    table: pd.DataFrame,
    levels: Levels,
    kernel: Kernel,
    *,
    features: str,
    labels: Mapping[str, Any],
    train: tuple[ArrayLike, pd.DataFrame] | None = None,
    probabilities: ArrayLike | None = None,
    confidence: float = 0.95,
    known: Mapping[tuple[str, str], Estimate] | None = None,
) -> pd.DataFrame:
    """Every metric, overall and by level, with n (units); NaN with the reason in ``note``.

    Parameters
    ----------
    real, generated : [N, D]
        Features of the test images and of the images generated for their prompts.
    table : DataFrame [N]
        A row per image: subject and a column of level names per key of ``levels``.
    levels : mapping
        Attributes and conditions to their level names, in the order to be shown.
    kernel : Kernel
        From :func:`kid.fit_kernel` on training reals.
    labels : mapping
        First columns of the table, as {"dataset": ..., "method": ..., "seed": ...}.
    train : (features [T, D], table [T]), optional
        Training reals for MiFID.
    probabilities : [N, K], optional
        Class probabilities of the generated images for the Inception Score.
    known : mapping of (attribute, level) to Estimate, optional
        The KID of these groups, where it was computed before.
    """
    groups = group_units(table, levels)
    x = as_features(real, "real features", len(table))
    y = as_features(generated, "generated features", len(table))
    seen = None if train is None else _training(train, levels, x.shape[1])
    scores = None if probabilities is None else as_features(probabilities, "probabilities", len(x))
    rows: list[Row] = []
    if known is None:
        known = dict(zip(groups.keys, kid(kernel, x, y, groups), strict=True))
    for m, key in enumerate(groups.keys):
        estimate = known[key]
        member = groups.members[:, m]
        chosen = member[groups.unit]
        found = [_row("kid", estimate.value, *estimate.interval(confidence), estimate.note)]
        found.append(_floor_row(real_floor(kernel, x, groups.unit, member, FLOOR_SPLITS)))
        found += _frechet_rows(x[chosen], y[chosen], groups.unit[chosen], confidence)
        if seen is not None:
            found.append(_mifid_row(seen[0][seen[1].column(*key)[seen[1].unit]], y[chosen]))
        if scores is not None:
            value = inception_score(scores[chosen]) if chosen.any() else float("nan")
            found.append(_row("inception_score", value, note="biased at small n: no comparison"))
        found += _manifold_rows(x, y, groups, member, confidence)
        named = {"attribute": key[0], "level": key[1], "features": features, "n": member.sum()}
        rows += [{**labels, **named, **row} for row in found]
    return pd.DataFrame(rows)[[*labels, *COLUMNS]]


def _row(
    metric: str, value: float, low: float = float("nan"), high: float = float("nan"), note: str = ""
) -> Row:
    return {"metric": metric, "value": value, "low": low, "high": high, "note": note}


def _training(
    train: tuple[ArrayLike, pd.DataFrame], levels: Levels, width: int
) -> tuple[Floats, Groups]:
    """Training features with their groups."""
    features = as_features(train[0], "training features", len(train[1]))
    if features.shape[1] != width:
        raise InputError(f"training features: {features.shape[1]} columns; expected {width}")
    return features, group_units(train[1], levels)


def _floor_row(splits: Floats) -> Row:
    """Noise band of the KID between halves of the reals."""
    if len(splits) == 0:
        note = f"not estimable: fewer than {2 * MIN_UNITS} subjects"
        return _row("kid_floor", float("nan"), note=note)
    low, high = np.quantile(splits, [0.025, 0.975])
    note = "two halves of the reals, n/2 each: low to high holds 95% of splits; never subtracted"
    return _row("kid_floor", float(splits.mean()), float(low), float(high), note)


def _frechet_rows(x: Floats, y: Floats, unit: Ints, confidence: float) -> list[Row]:
    """FID corrected where it can be estimated, and as the released code reports it."""
    n = len(np.unique(unit))
    value, error = fid(x, y, unit)
    reach = float(stats.t.ppf((1 + confidence) / 2, BLOCKS - 1)) * error
    wanted = UNITS_PER_FEATURE * x.shape[1]
    note = (
        ""
        if estimable(x.shape[1], n)
        else f"not estimable: needs {wanted} subjects (3 per feature)"
    )
    released = fid_as_released(x, y) if len(x) > 1 else float("nan")
    warned = "as released, at the group's own n: biased by n and spread; no comparison of levels"
    return [
        _row("fid", value, value - reach, value + reach, note),
        _row("fid_as_released", released, note=warned),
    ]


def _mifid_row(seen: Floats, y: Floats) -> Row:
    """MiFID against training reals, under FID's condition on n."""
    wanted = UNITS_PER_FEATURE * y.shape[1]
    if min(len(seen), len(y)) < wanted:
        note = f"not estimable: needs {wanted} images (3 per feature)"
        return _row("mifid", float("nan"), note=note)
    value = mifid(seen, y)
    note = "against training reals; biased by n: no comparison of levels"
    return _row("mifid", value, note=note if np.isfinite(value) else "not estimable: zero features")


def _manifold_rows(
    x: Floats, y: Floats, groups: Groups, member: Bools, confidence: float
) -> list[Row]:
    """Precision, recall, density, coverage; intervals hold for the given reference images."""
    chosen = member[groups.unit]
    names = ("precision", "recall", "density", "coverage")
    if member.sum() < MIN_UNITS:
        note = f"not estimable: fewer than {MIN_UNITS} subjects"
        return [_row(name, float("nan"), note=note) for name in names]
    rows = []
    scores = manifold_scores(x[chosen], y[chosen])
    for name in names:
        values = np.full(len(x), np.nan)
        values[chosen] = scores[name]
        mean = mean_of_rows(values, groups.unit, member, bounded=name != "density")
        note = "; ".join(p for p in (mean.note, "depends on n: no comparison of levels") if p)
        rows.append(_row(name, mean.value, *mean.interval(confidence), note))
    return rows
