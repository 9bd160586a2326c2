"""The one sentence that a reader may quote of a verdict, and what its dataset can't tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairdiff_lib.audit.gates import failed_words
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.verdict.findings import ABLATION, INCONCLUSIVE, NOT_TESTABLE, POWER


@dataclass(frozen=True)
class Facts:
    """What every quote of a run must carry.

    Attributes
    ----------
    model : str
        The generator's kind and size: from :func:`model_words`.
    failed : sequence of str
        Gates that failed, a line each.
    before : bool
        What is tested was declared before there was anything to look at.
    confidence : float
        Of the intervals.
    least_seeds : int
        That a comparison of methods needs.
    """

    model: str
    failed: Sequence[str]
    before: bool
    confidence: float
    least_seeds: int


def model_words(settings: Settings) -> str:
    """The generator's kind and size, in words."""
    own = settings.model
    if own.pretrained:
        return f"{Path(own.pretrained).name} at {own.image_size} px"
    return f"a small model trained from scratch at {own.image_size} px"


def quote(row: Mapping[str, Any], facts: Facts) -> str:
    """One sentence that stands by itself.

    Parameters
    ----------
    row : mapping
        Of T14: dataset, claim, study, statement, verdict, reason, p_holm and an ``Effect``'s.
    facts : Facts
    """
    claim, place = f"{row['claim']} ({row['statement']})", dataset_of(row["dataset"]).phrase
    if row["verdict"] == NOT_TESTABLE:
        return f"{claim} is not testable on {place}: {row['reason']}."
    caveats = "; ".join(_caveats(row, facts))
    because = f"; {caveats}" if caveats else ""
    if not np.isfinite(row["value"]):
        return f"On {place}, {claim} is {row['verdict']}: {row['reason']}{because}."
    caveats = "; ".join([*_decides(row, facts), *_caveats(row, facts)])
    because = f"; {caveats}" if caveats else ""
    entry = dataset_of(row["dataset"])
    units, simulated = entry.unit, "simulated " if entry.simulated else ""
    return (
        f"On {place}, with {facts.model}, the {row['endpoint']} was {_numbers(row, facts)} "
        f"({row['n']:,} {simulated}test {units}, {_seeds(row)}{_p(row['p_holm'])}){_sizes(row)}: "
        f"{claim} is {row['verdict']}{because}."
    )


def _numbers(row: Mapping[str, Any], facts: Facts) -> str:
    text = f"{row['value']:+.2g}"
    if not np.isfinite(row["low"]):
        return f"{text} without an interval"
    return f"{text} ({facts.confidence:.0%} interval {row['low']:+.2g} to {row['high']:+.2g})"


def _seeds(row: Mapping[str, Any]) -> str:
    if row["seeds"] == 1:
        return "one training seed"
    if row["unit"] == "KID":  # C1: over subjects, of the mean of the models
        return f"mean of {row['seeds']} training seeds"
    of = " of the ablation study" if row["study"] == ABLATION else ""
    return f"{row['seeds']} paired training seeds{of}"


def _p(adjusted: float) -> str:
    if not np.isfinite(adjusted):
        return ", no test"
    return ", adjusted p < 0.001" if adjusted < 0.001 else f", adjusted p {adjusted:.2g}"


def _sizes(row: Mapping[str, Any]) -> str:
    """Smallest effect of interest, and the detectable one."""
    smallest, mde = row["smallest_effect"], row["mde"]
    parts = ["no smallest effect of interest was declared"]
    if np.isfinite(smallest):
        squared = row["unit"].startswith("squared ")
        plain = f", {smallest**0.5:.2g} unsquared," if squared else ""
        parts = [f"{smallest:.2g}{plain} is of interest"]
    if np.isfinite(mde):
        parts.append(f"{mde:.2g} would have been found with {POWER:.0%} power")
    return f", where {' and '.join(parts)}"


def _decides(row: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    """What the interval says beside a verdict of inconclusive."""
    if row["claim"] == "C4":
        yield "C4 needs both C2 and C3, and this is the one that decides"
    smallest, mde = row["smallest_effect"], row["mde"]
    found = np.isfinite(row["p_holm"]) and row["p_holm"] < 1 - facts.confidence
    if row["verdict"] != INCONCLUSIVE or found or not np.isfinite(smallest):
        return
    if np.isfinite(row["low"]) and max(-row["low"], row["high"]) < smallest:
        yield "a change as large as is of interest is excluded" + (
            ", for which the claim has no verdict" if row["claim"] != "C1" else ""
        )
    elif np.isfinite(mde) and mde > smallest:
        yield f"it would have had to be {mde / smallest:.2g} times what is of interest to be found"


def _caveats(row: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    for line in facts.failed:
        gate = re.match(r"gate (\w+) failed", line)
        yield failed_words(gate.group(1)) if gate else line
    seeds = row["seeds"]
    if row["claim"] != "C1" and seeds is not None and seeds < facts.least_seeds:
        yield f"comparing methods needs at least {facts.least_seeds} seeds"
    if not facts.before:
        yield "exploratory, as the protocol was written after test images existed"
    if dataset_of(row["dataset"]).simulated:
        yield "simulated, so it tells of the audit and the mechanism, not of patients"
