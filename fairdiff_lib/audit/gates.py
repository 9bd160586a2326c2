"""Gates before any fairness table: does the generator show what was asked, and can we tell?

Each gate is a pure function of arrays that returns one row; a gate that fails is printed and
the tables below it say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fairdiff_lib.audit.estimate import (
    OVERALL,
    Bools,
    Estimate,
    Floats,
    Groups,
    combine,
    difference,
    group_units,
)
from fairdiff_lib.audit.kid import Kernel, as_features, kid, real_floor
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import with_interval

SHUFFLES = 5  # permutations that the shuffled control is averaged over
COLUMNS = ("gate", "n", "value", "threshold", "comparison", "passed", "note")
Row = dict[str, Any]


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
    return _row("vae_reconstruction", np.size(truth), value, least, ">=", value >= least, note)


def gate_prompt(ruler: Ruler, measured: ArrayLike, high: ArrayLike, least: float) -> Row:
    """The ruler's quantity on generated images, prompts for its high against its low level."""
    lost = int(np.sum(~np.isfinite(np.asarray(measured, dtype=np.float64))))
    value = prompt_auc(measured, high)
    note = (
        f"AUC of the measured {ruler.name}, {ruler.high} against {ruler.low}; "
        f"{ruler.nothing} in {lost}"
    )
    return _row(ruler.gate, np.size(high), value, least, ">=", value >= least, note)


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


def gate_below(name: str, own: Estimate, control: Estimate, what: str, confidence: float) -> Row:
    """KID clearly below a control's: upper limit of the paired difference below zero."""
    gap = difference(own, control)
    low, high = gap.interval(confidence)
    shown = with_interval(gap.value, low, high)
    note = (
        f"upper limit of the difference of within-condition KID from {what}: "
        f"{own.value:.4g} - {control.value:.4g} = {shown}"
    )
    return _row(name, own.n, high, 0.0, "<", high < 0, note)


def gate_floor(overall: Estimate, splits: Floats, confidence: float) -> Row:
    """KID above what halves of the reals reach among themselves.

    Were the generator as good as real, its KID would vary less than the halves do (they have
    half its n), so the upper end of their band is a conservative limit.
    """
    ceiling = float(np.quantile(splits, (1 + confidence) / 2)) if len(splits) else float("nan")
    shown = with_interval(overall.value, *overall.interval(confidence))
    note = f"KID {shown} against the upper end of the real-real floor"
    passed = overall.value > ceiling
    return _row("above_real_floor", overall.n, overall.value, ceiling, ">", passed, note)


def _row(
    gate: str,
    n: int,
    value: float,
    threshold: float,
    comparison: str,
    passed: bool | np.bool_,
    note: str,
) -> Row:
    numbers = int(n), float(value), float(threshold)
    cells = (gate, *numbers, comparison, bool(passed), note)  # NaN compares as failed
    return dict(zip(COLUMNS, cells, strict=True))


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
    for name, control, what in (
        ("below_shuffled_prompts", shuffled, "shuffled prompts"),
        ("below_blurred_reals", blur, "blurred reals"),
    ):
        rows.append(gate_below(name, mean, control, what, confidence))
    everyone: Bools = groups.column(*OVERALL)
    splits = real_floor(kernel, x, groups.unit, everyone)
    rows.append(gate_floor(own[0], splits, confidence))
    return pd.DataFrame([{**labels, **row} for row in rows])[[*labels, *COLUMNS]]
