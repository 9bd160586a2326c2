"""What the measured mechanism says, in words made from its numbers, whichever way they fall."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fairdiff_lib.show.style import METHODS

ALARM = 0.05  # of p, for words alone: tables print the number


def label_of(method: str) -> str:
    """A method's display name; an ablation's arm is called as it is."""
    return METHODS[method].label if method in METHODS else method


def _values(table: pd.DataFrame, quantity: str, method: str | None = None) -> pd.DataFrame:
    own = table[table["quantity"] == quantity]
    return own if method is None else own[own["method"] == method]


def _mean(table: pd.DataFrame, quantity: str, method: str) -> float:
    """Over seeds."""
    return float(_values(table, quantity, method)["value"].mean())


def _methods_of(table: pd.DataFrame, quantity: str) -> list[str]:
    return list(dict.fromkeys(_values(table, quantity)["method"]))


def about_surrogate(table: pd.DataFrame) -> str:
    """Whether sigma predicts the scores of windows that the surrogate hasn't seen."""
    methods = _methods_of(table, "surrogate_p")
    if not methods:
        return "No run has a surrogate to judge: it takes scores in at least two windows."
    lines = []
    for method in methods:
        p = _values(table, "surrogate_p", method)["value"]
        r2, chance = (_mean(table, f"surrogate_r2{end}", method) for end in ("", "_shuffled"))
        beats = int((p <= ALARM).sum())
        words = (
            "no more than sigmas that belong to other scores do"
            if beats == 0
            else f"more than shuffled scores allow in {beats} of {len(p)} run(s)"
        )
        lines.append(
            f"- {label_of(method)}: R^2 of left-out windows {r2:.3f}, with shuffled scores "
            f"{chance:.3f} (smallest p {p.min():.2f}): sigma tells of the score {words}."
        )
    return "\n".join(lines)


def about_weights(table: pd.DataFrame) -> str:
    """Negative weights, and the levels whose mean weight is not 1."""
    lines = []
    for method in _methods_of(table, "weight"):
        own = _values(table, "weight", method)
        off = own[(own["low"] > 1.0) | (own["high"] < 1.0)]
        far = own.iloc[int((own["value"] - 1.0).abs().argmax())]
        text = (
            f"- {label_of(method)}: mean weight furthest from 1 is {far['value']:.2f} "
            f"({far['level']}, {far['low']:.2f} to {far['high']:.2f}); {len(off)} of {len(own)} "
            "intervals leave 1 out"
        )
        if len(_values(table, "negative_weights", method)):
            text += f"; {_mean(table, 'negative_weights', method):.1%} of weights are negative"
        if len(_values(table, "negative_weights_theory", method)):
            theory = _mean(table, "negative_weights_theory", method)
            text += f", {theory:.1%} by the Gaussian formula"
        lines.append(text + ".")
    return "\n".join(lines) or "Every weight of every run is 1."


def about_steps(table: pd.DataFrame) -> str:
    """Clipping, and how far an update reaches beside the baseline's."""
    lines = []
    for method in _methods_of(table, "clip_factor"):
        spans, factor = (_mean(table, name, method) for name in ("clipped_spans", "clip_factor"))
        text = (
            f"- {label_of(method)}: clipping occurs in {spans:.0%} of the logged spans and leaves "
            f"{factor:.3f} of the gradient on average"
        )
        ratios = _values(table, "drift_ratio", method)
        if len(ratios):
            ratio = float(ratios["value"].mean())
            text += (
                f"; the expected part of an update is {abs(ratio - 1):.1%} "
                f"{'shorter' if ratio < 1 else 'longer'} than the baseline's"
            )
        lines.append(text + ".")
    return "\n".join(lines) or "No run has logged gradient norms."


def about_gap(table: pd.DataFrame) -> str:
    """What the batch gap is made of, at the checkpoint."""
    own = table.drop_duplicates("quantity").set_index("quantity")
    if "explained_timesteps" not in own.index:
        return "The batch gap was not measured."
    value, low, high = (own[side].astype(np.float64) for side in ("value", "low", "high"))

    def share(name: str) -> str:
        key = f"explained_{name}"
        if not np.isfinite(value[key]):
            return "not estimable"
        return f"{value[key]:.0%} ({low[key]:.0%} to {high[key]:.0%})"

    gap, pooled, alone = (value[key] for key in ("gap_mean", "gap_pooled", "gap_from_timesteps"))
    first, second = (value[f"explained_{name}"] for name in ("timesteps", "groups"))
    ahead = "timesteps" if first > second else "groups"
    return (
        f"A batch's gap is {gap:.3f} on average; the same samples pooled have a gap of "
        f"{pooled:.3f}, and timesteps alone, which know no group, make one of {alone:.3f}. Of its "
        f"variance over batches, the draw of timesteps explains {share('timesteps')}, group "
        f"effects {share('groups')}, both {share('both')}, levels absent from the batch "
        f"{share('absent')}: the score follows the {ahead} more."
    )


def about_gradients(table: pd.DataFrame, cosines: pd.DataFrame) -> str:
    """Whether levels pull apart, and what the perturbation leaves of a batch's gradient."""
    lines = []
    if len(cosines):
        apart, pairs = pulling_apart(cosines)
        same = (cosines["attribute"] == cosines["other_attribute"]) & (
            cosines["level"] == cosines["other_level"]
        )
        own = cosines.loc[same, "value"]
        lines.append(
            f"- Over other rows, a gradient agrees with itself by {own.min():.2f} (least) to "
            f"{own.max():.2f} (most): that is all that these rows' noise lets a cosine show. Of "
            f"{pairs} pairs of levels, {apart} agree less with each other than both do with "
            "themselves."
        )
    for method in _methods_of(table, "perturbed_cosine"):
        angle, length = (_mean(table, f"perturbed_{n}", method) for n in ("cosine", "norm"))
        lines.append(
            f"- {label_of(method)}, at its mean sigma: the weighted gradient of a batch has cosine "
            f"{angle:.2f} with the plain one and {length:.2f} times its length."
        )
    return "\n".join(lines) or "No gradient was measured: the model is too large for this probe."


def pulling_apart(cosines: pd.DataFrame) -> tuple[int, int]:
    """Pairs of one attribute's levels whose cosine is below both own ones, and number of pairs."""
    keys = ("attribute", "level", "other_attribute", "other_level")
    columns = [cosines[name].astype(str) for name in keys]
    value = dict(zip(zip(*columns, strict=True), cosines["value"], strict=True))
    places = list(dict.fromkeys((a, b) for a, b, _, _ in value))
    pairs = [(p, q) for i, p in enumerate(places) for q in places[i + 1 :] if p[0] == q[0]]
    apart = [value[(*p, *q)] < min(value[(*p, *p)], value[(*q, *q)]) for p, q in pairs]
    return sum(apart), len(pairs)


def about_dose(effects: pd.DataFrame) -> str:
    """What more sigma for a level does to its own held-out loss, and to the gap."""
    lines = []
    for reweighting, part in effects.groupby("reweighting", sort=False):
        own = part[part["outcome"] == "own_loss"]
        if not bool(np.isfinite(own["low"]).any()):
            lines.append(f"- {reweighting}: too few cells for intervals.")
            continue
        helped, hurt = int((own["high"] < 0).sum()), int((own["low"] > 0).sum())
        gap = part[part["outcome"] == "gap"]
        moved = gap[(gap["low"] > 0) | (gap["high"] < 0)]
        names = ", ".join(f"{row.level} ({row.value:+.4f})" for row in moved.itertuples())
        lines.append(
            f"- {reweighting}: from low to high sigma, a level's own held-out loss changes by "
            f"{own['value'].mean():+.4f} on average; it falls for {helped} and rises for {hurt} of "
            f"{len(own)} levels beyond their intervals. The gap moves with {len(moved)} of "
            f"{len(gap)} levels' sigma{': ' + names if names else ''}."
        )
    return "\n".join(lines)
