"""Sentences on the ablation study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.settings.names import method_name, with_interval
from fairdiff_lib.show.front import sentence

PRIMARY, DISPARITY = "primary", "kid_disparity"
ALPHA = 0.05  # of an adjusted p, for words alone: tables print the number
ENDPOINTS = {
    "kid": "image quality (KID)",
    DISPARITY: "the disparity between groups (squared KID difference)",
}


def _pair(row: Mapping[Any, Any]) -> str:
    return f"{method_name(row['method'])} against {method_name(row['baseline'])}"


def about_comparison(row: Mapping[Any, Any]) -> str:
    """One declared comparison: what was decided, then its size, its test, what it could miss."""
    size = with_interval(row["value"], row["low"], row["high"])
    said = f"**{_pair(row)}**, {ENDPOINTS[row['metric']]}: "
    if not np.isfinite(row["p_adjusted"]):
        return f"{said}too few seeds for a test. The change is {size}"
    if row["p_adjusted"] < ALPHA:
        worse = "better" if row["value"] < 0 else "worse"
        return f"{said}{worse}. The change is {size}, adjusted p {row['p_adjusted']:.2g}"
    if row["p_equivalence"] < ALPHA:
        share = abs(row["value"]) / row["smallest_effect"]
        return (
            f"{said}no change as large as what matters. The change is {share:.0%} of the smallest "
            f"one of interest: {size}"
        )
    return (
        f"{said}undecided. The change is {size}; one of {row['mde']:.2g} would have been found in "
        "four of five studies"
    )


@sentence("declared")
def about_declared(methods: pd.DataFrame) -> str:
    """The declared comparisons, a line each."""
    rows = methods[methods["role"] == PRIMARY]
    return "\n".join(f"- {about_comparison(row)}." for row in rows.to_dict("records"))


@sentence("bayesian_part")
def about_bayes(methods: pd.DataFrame, arm: str, shuffled: str) -> str:
    """Does what the optimiser is told matter?"""
    rows = methods[(methods["role"] == PRIMARY) & (methods["method"] == arm)]
    rows = rows[rows["baseline"] == shuffled]
    name = f"- **{method_name(arm)} against itself with shuffled scores.**"
    if rows.empty or not np.isfinite(rows["p_adjusted"]).any():
        return f"{name} Too few seeds for a test."
    found = rows[rows["p_adjusted"] < ALPHA]
    if len(found):
        better = "better" if (found["value"] < 0).all() else "different, not better in all,"
        ends = ", ".join(ENDPOINTS[name] for name in found["metric"])
        return f"{name} It is {better} in {ends}: the Bayesian part does something."
    equal = rows[rows["p_equivalence"] < ALPHA]
    if len(equal) == len(rows):
        return (
            f"{name} Whatever the optimiser is told, the images are as good and as equal: the "
            "Bayesian part does nothing as large as what matters, in both endpoints."
        )
    ends = ", ".join(ENDPOINTS[name] for name in equal["metric"])
    part = f"equivalent in {ends}, undecided in the rest" if len(equal) else "undecided"
    return f"{name} It is {part}. No test says that the Bayesian part matters."


@sentence("noise_dose")
def about_dose(doses: pd.DataFrame, cells: pd.DataFrame) -> str:
    """How far the noise's variance alone tells what a setting does; a description."""
    if cells.empty:
        return "Other windows and drift rates were not run on this data set."
    own = doses[doses["metric"] == "kid"]
    inside = own[own["method"].isin(set(cells["method"]))]
    lines = ["Described, not tested."]
    for label, part in (("the settings of T12", inside), ("all arms of pure noise", own)):
        r = np.corrcoef(part["noise_variance"], part["value"])[0, 1]
        lines.append(
            f"Over the {len(part)} runs of {label}, the variance of the weights explains "
            f"{100 * r * r:.0f}% of the variation of the change in KID (correlation {r:+.2f})."
        )
    return " ".join(lines)


@sentence("cost")
def about_cost(cost: pd.DataFrame, large_step_seconds: float) -> str:
    """The optimiser's share, here and where steps are slow."""
    names = ["optimiser_share", "measure_share", "seconds_per_proposal", "share_at_large_step"]
    fair = cost[cost["proposals"] > 0].groupby("method")[names].mean()
    if "fairdiffusion" not in fair.index:
        return "No arm has an optimiser."
    own, most = fair.loc["fairdiffusion"], fair.max()
    top = method_name(str(fair["optimiser_share"].idxmax()))
    return (
        f"The optimiser takes {own['optimiser_share']:.1%} of FairDiffusion's training time. The "
        f"most that it takes in any arm is {most['optimiser_share']:.1%} ({top}). Measuring gaps "
        f"on held-out patients takes up to {most['measure_share']:.1%} more. A proposal takes "
        f"{own['seconds_per_proposal']:.2f} s whatever the network's size. At an assumed "
        f"{large_step_seconds:g} s a step of Stable Diffusion 2.1, the optimiser's share would be "
        f"{own['share_at_large_step']:.2%}."
    )


@sentence("c2")
def about_c2(c2: pd.DataFrame) -> str:
    """The verdicts, a line each."""
    return "\n".join(
        f"- **{method_name(str(row.method))}: {row.verdict}** ({row.seeds} seeds). {row.reason}."
        for row in c2.itertuples()
    )
