"""Image quality: gates first, then KID, FID, Inception Score, MiFID, precision/recall.

A gate asks, before any fairness table, whether the generator shows what was asked, and whether we
can tell. It returns one row with a grade and with what it bears on: prompts on what classifiers of
these images can say (C3), realism on of which images the tables speak. None of them voids a
comparison of two groups or of two methods, and a perfect generator passes all.
Every metric is a function of feature arrays and of the rows that a group selects. KID is the
primary one (unbiased at any n); the others are shown where they can be estimated and say so
where they cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    OVERALL,
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    combine,
    difference,
    group_units,
)
from fairdiff_lib.audit.estimators import mean_of_rows
from fairdiff_lib.audit.fid import BLOCKS, UNITS_PER_FEATURE, estimable, fid, fid_as_released, mifid
from fairdiff_lib.audit.kid import Kernel, as_features, kid, real_floor, squared_distances
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import with_interval

FLOOR_SPLITS = 100  # random halves of the reals
NEIGHBOURS = 5  # of the manifolds of precision, recall, density and coverage
COLUMNS = ("attribute", "level", "metric", "features", "n", "value", "low", "high", "note")
SHUFFLES = 5  # permutations that the shuffled control is averaged over
PASSED, UNSURE, FAILED = "passed", "open", "failed"  # grades of a gate
SCOPE, PROMPTED = "scope", "C3"  # what a gate bears on
GATE_COLUMNS = (
    "gate", "n", "value", "threshold", "comparison", "passed", "grade", "bears_on", "note",
)  # fmt: skip
Row = dict[str, Any]


# -- gates -----------------------------------------------------------------------------------


class Ruler(Protocol):
    """What the gates need of a quantity that pictures show and that a prompt asks for, in words."""

    @property
    def name(self) -> str: ...
    @property
    def gate(self) -> str: ...
    @property
    def low(self) -> str: ...
    @property
    def high(self) -> str: ...
    @property
    def nothing(self) -> str: ...


def reconstruction_r2(measured: ArrayLike, truth: ArrayLike) -> float:
    """Coefficient of determination of a measurement [N] against the truth (the identity line).

    An image in which nothing could be measured (NaN) counts as a prediction of the mean, so it
    lowers the value instead of leaving it.
    """
    wanted = np.asarray(truth, dtype=np.float64)
    got = np.where(np.isfinite(measured), measured, wanted.mean())
    spread = np.sum((wanted - wanted.mean()) ** 2)
    return float(1 - np.sum((got - wanted) ** 2) / spread) if spread > 0 else float("nan")


def prompt_auc(measured: ArrayLike, abnormal: ArrayLike) -> float:
    """Probability that an image [N] asked to be abnormal measures higher than a normal one.

    A pair with an image in which nothing could be measured (NaN) counts one half.
    """
    values, asked = np.asarray(measured, dtype=np.float64), np.asarray(abnormal, dtype=bool)
    if asked.all() or not asked.any():
        return float("nan")
    seen = np.isfinite(values)
    both = float(seen[asked].mean() * seen[~asked].mean())  # share of pairs with two values
    if both == 0:
        return 0.5
    high, low = values[seen & asked], np.sort(values[seen & ~asked])
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(both * below.mean() / (2 * len(low)) + (1 - both) / 2)


def gate_reconstruction(ruler: Ruler, measured: ArrayLike, truth: ArrayLike, least: float) -> Row:
    """The ruler's quantity on the VAE's reconstructions against the simulator's truth."""
    lost = int(np.sum(~np.isfinite(np.asarray(measured, dtype=np.float64))))
    value = reconstruction_r2(measured, truth)
    note = f"R^2 of the {ruler.name} after the VAE; {ruler.nothing} in {lost}"
    return _gate("vae_reconstruction", np.size(truth), value, least, ">=", note)


def gate_prompt(ruler: Ruler, measured: ArrayLike, high: ArrayLike, least: float) -> Row:
    """The ruler's quantity on generated images, prompts for its high against its low level."""
    lost = int(np.sum(~np.isfinite(np.asarray(measured, dtype=np.float64))))
    value = prompt_auc(measured, high)
    note = (
        f"AUC of the measured {ruler.name}, {ruler.high} against {ruler.low}; "
        f"{ruler.nothing} in {lost}"
    )
    return _gate(ruler.gate, np.size(high), value, least, ">=", note)


def within_condition(estimates: list[Estimate], groups: Groups, condition: str) -> Estimate:
    """Mean over a condition's levels of the KID within each level that can be estimated."""
    cells = [
        estimate
        for (name, _), estimate in zip(groups.keys, estimates, strict=True)
        if name == condition and np.isfinite(estimate.value)
    ]
    if not cells:
        raise InputError(f"gates: no level of {condition!r} has enough subjects for a KID")
    return combine(cells, [1 / len(cells)] * len(cells))


def shuffled_kid(
    kernel: Kernel, real: Floats, generated: Floats, groups: Groups, condition: str, seed: int = 0
) -> Estimate:
    """Within-condition KID with the prompts shuffled: generated images change places.

    Averaged over ``SHUFFLES`` permutations. Each image's influence is booked on the unit it
    was made for, so the difference from the unshuffled KID knows what the two share.
    """
    rng, found = np.random.default_rng(seed), []
    for _ in range(SHUFFLES):
        order = rng.permutation(len(groups.unit))
        estimates = kid(kernel, real, generated[order], groups, source=groups.unit[order])
        found.append(within_condition(estimates, groups, condition))
    return combine(found, [1 / SHUFFLES] * SHUFFLES)


def gate_below(
    name: str, own: Estimate, control: Estimate, what: str, confidence: float, bears_on: str
) -> Row:
    """KID clearly below a control's: upper limit of the paired difference below zero.

    Open where the interval holds 0: these images can't tell.
    """
    gap = difference(own, control)
    low, high = gap.interval(confidence)
    shown = with_interval(gap.value, low, high)
    note = (
        f"upper limit of the difference of within-condition KID from {what}: "
        f"{own.value:.4g} - {control.value:.4g} = {shown}"
    )
    row = _gate(name, own.n, high, 0.0, "<", note, bears_on)
    return row | {"grade": UNSURE if row["grade"] == FAILED and low <= 0 else row["grade"]}


def _gate(
    gate: str,
    n: int,
    value: float,
    threshold: float,
    comparison: str,
    note: str,
    bears_on: str = PROMPTED,
) -> Row:
    passed = bool(value >= threshold if comparison == ">=" else value < threshold)  # NaN fails
    grade = PASSED if passed else FAILED
    cells = (
        gate,
        int(n),
        float(value),
        float(threshold),
        comparison,
        passed,
        grade,
        bears_on,
        note,
    )
    return dict(zip(GATE_COLUMNS, cells, strict=True))


def gates(
    kernel: Kernel,
    real: ArrayLike,
    generated: ArrayLike,
    blurred: ArrayLike,
    table: pd.DataFrame,
    condition: tuple[str, tuple[str, ...]],
    *,
    labels: Mapping[str, Any],
    reconstruction: tuple[Ruler, ArrayLike, ArrayLike] | None = None,
    prompt: tuple[Ruler, ArrayLike, ArrayLike] | None = None,
    least_r2: float = 0.6,
    least_auc: float = 0.8,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """All gates of one generator.

    Parameters
    ----------
    real, generated, blurred : [N, D]
        Features of the test images, of the images generated for their prompts, and of the
        test images after a Gaussian blur.
    table : DataFrame [N]
        A row per image: subject and a column with the condition's level names.
    condition : (name, level names)
        The cohort's primary condition.
    reconstruction : (ruler, measured [R], truth [R]), optional
        The ruler's quantity on VAE reconstructions and the simulator's; simulated data only.
    prompt : (ruler, measured [P], asked to be high: bool [P]), optional
        The same on images generated for prompts at its low and high level; simulated only.

    Returns
    -------
    DataFrame
        The labels, then ``COLUMNS``.
    """
    name, levels = condition
    groups = group_units(table, {name: levels})
    x = as_features(real, "real features", len(table))
    y = as_features(generated, "generated features", len(table))
    z = as_features(blurred, "features of blurred reals", len(table))
    rows = []
    if reconstruction is not None:
        rows.append(gate_reconstruction(*reconstruction, least_r2))
    if prompt is not None:
        rows.append(gate_prompt(*prompt, least_auc))
    own = kid(kernel, x, y, groups)
    mean = within_condition(own, groups, name)
    shuffled = shuffled_kid(kernel, x, y, groups, name)
    blur = within_condition(kid(kernel, x, z, groups), groups, name)
    for name, control, what, bears_on in (
        ("below_shuffled_prompts", shuffled, "shuffled prompts", PROMPTED),
        ("below_blurred_reals", blur, "blurred reals", SCOPE),
    ):
        rows.append(gate_below(name, mean, control, what, confidence, bears_on))
    return pd.DataFrame([{**labels, **row} for row in rows])[[*labels, *GATE_COLUMNS]]


# -- every metric ----------------------------------------------------------------------------


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

    A corrected FID or MiFID that not even all subjects allow has one row, with its reason.

    Of features [N, D] of the test images and of the images generated for their prompts; ``table``
    has their subject and a column of level names per attribute or condition of ``levels``.
    ``labels`` are the first columns. ``train``, features [T, D] and table [T], is for MiFID;
    ``probabilities`` [N, K] of the generated images for the Inception Score; ``known`` the KID by
    (attribute, level), where it was computed before.
    """
    groups = group_units(table, levels)
    x = as_features(real, "real features", len(table))
    y = as_features(generated, "generated features", len(table))
    seen = None if train is None else (_training(train, x.shape[1]), train[1])
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
            found.append(_mifid_row(seen[0][_images_of(seen[1], key)], y[chosen]))
        if scores is not None:
            value = inception_score(scores[chosen]) if chosen.any() else float("nan")
            found.append(_row("inception_score", value, note="biased at small n: no comparison"))
        found += _manifold_rows(x, y, groups, member, confidence)
        named = {"attribute": key[0], "level": key[1], "features": features, "n": member.sum()}
        rows += [{**labels, **named, **row} for row in found]
    whole = [row["metric"] for row in rows[: len(rows) // len(groups.keys)]
             if row["metric"] in ("fid", "mifid") and not np.isfinite(row["value"])]  # fmt: skip
    told = [row for row in rows if row["attribute"] == OVERALL[0] or row["metric"] not in whole]
    return pd.DataFrame(told)[[*labels, *COLUMNS]]


def _row(
    metric: str, value: float, low: float = float("nan"), high: float = float("nan"), note: str = ""
) -> Row:
    return {"metric": metric, "value": value, "low": low, "high": high, "note": note}


def _training(train: tuple[ArrayLike, pd.DataFrame], width: int) -> Floats:
    """Features of training images."""
    features = as_features(train[0], "training features", len(train[1]))
    if features.shape[1] != width:
        raise InputError(f"training features: {features.shape[1]} columns; expected {width}")
    return features


def _images_of(table: pd.DataFrame, key: tuple[str, str]) -> Bools:
    """Rows of a level: images, as a subject may learn by two that show two findings."""
    if key == OVERALL:
        return np.ones(len(table), dtype=bool)
    return np.asarray(table[key[0]] == key[1], dtype=bool)


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
