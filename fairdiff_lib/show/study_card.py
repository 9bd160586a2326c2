"""The study's own audit card: the primary endpoint on one page, with all that limits it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.estimate import OVERALL
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.stamps import write_stamp
from fairdiff_lib.show.cards import ENDPOINT, Facts, write_card
from fairdiff_lib.show.style import dataset_name, limits, look_of, name_of
from fairdiff_lib.show.words import about_small_levels, extremes, one_at_a_time
from fairdiff_lib.studies.quality import QualityResult
from fairdiff_lib.studies.verdict.protocol import Protocol, Registered


def shown_method(result: QualityResult, rule: Protocol) -> str:
    """The baseline, or the study's first method where it has no baseline."""
    methods = [method for method, _ in result.audits]
    return rule.baseline if rule.baseline in methods else methods[0]


def shown_audit(result: QualityResult, rule: Protocol, metric: str = "kid") -> Audit:
    """The shown method's mean over seeds, overall and by attribute level.

    Conditions and intersections, which the same audit estimates, are left to their tables.
    """
    own = result.audits[shown_method(result, rule), ",".join(map(str, rule.seeds))]
    found = next(one for one in own if one.metric == metric)  # the primary feature space is first
    kept = {
        key: estimate
        for key, estimate in found.estimates.items()
        if key == OVERALL or key[0] in found.attributes
    }
    return replace(found, estimates=kept)


def study_facts(result: QualityResult, cohort: Cohort, protocol: Registered) -> Facts:
    """What the card says besides the numbers of :func:`shown_audit`.

    Parameters
    ----------
    result : QualityResult
        From ``auditing.collect_quality``.
    cohort : Cohort
    protocol : Registered
        From ``protocol.check_protocol``.
    """
    rule, found = protocol.rule, shown_audit(result, protocol.rule)
    label = look_of(shown_method(result, rule)).label
    floors = result.encoder[result.encoder["metric"] == "kid_floor"]
    return Facts(
        title=f"Is {label} equally good for every group? {dataset_name(rule.dataset)}",
        compared=list(_compared(found, label, cohort, protocol)),
        endpoint=_endpoint(found, rule),
        caveats=list(_caveats(result, found, protocol)),
        floor=floors[floors["features"] == rule.features],
        standardised=shown_audit(result, rule, "kid_standardised").contrasts,
        mix=name_of(rule.condition).lower(),
        table="tab_contrasts.csv",
        standing=_standing(result, protocol),
    )


def write_study_card(
    result: QualityResult,
    cohort: Cohort,
    protocol: Registered,
    folder: Path,
    stamp: Mapping[str, Any],
) -> tuple[Path, Path]:
    """Write ``card.html``, ``card.png`` and the stamp ``card.json``; returns the first two."""
    audit = shown_audit(result, protocol.rule)
    page, picture = write_card(audit, study_facts(result, cohort, protocol), folder, stamp)
    write_stamp(stamp, page, picture)
    return page, picture


# -- the words -------------------------------------------------------------------------------


def _standing(result: QualityResult, protocol: Registered) -> str:
    """What the finding is worth, before it is said; empty where nothing is against it."""
    method = shown_method(result, protocol.rule)
    failed = tables.failed_gates(result.gates[result.gates["method"] == method])
    said = ["exploratory"] * (not protocol.before) + ["a check failed"] * bool(failed)
    return f"{' and '.join(said)}: ".capitalize() if said else ""


def _compared(
    found: Audit, label: str, cohort: Cohort, protocol: Registered
) -> Iterator[tuple[str, str]]:
    """Name and content of each line on what was compared."""
    rule, n = protocol.rule, found.overall.n
    images = len(cohort.included().split("test").table)
    seeds = ", ".join(map(str, rule.seeds))
    models = f"{len(rule.seeds)} trained models (seeds {seeds}); KID is their mean"
    if len(rule.seeds) == 1:
        models = f"one trained model (seed {seeds})"
    source = ", a classifier of this study's conditions," if rule.features == "encoder" else ""
    when = "before any test image was" if protocol.before else "AFTER test images were"
    who = "simulated subjects" if dataset_of(rule.dataset).simulated else "subjects"
    yield "Real images", f"{images:,} test images of {n:,} {who}"
    yield "Generated images", f"{label}, one for each test image's prompt; {models}"
    yield "Comparison", "paired by subject; each group's images against its own real ones"
    yield "Features", f"{rule.features}{source} with scale and kernel from real training images"
    yield "Protocol", f"{rule.digest}, written {when} generated"


def _endpoint(found: Audit, rule: Protocol) -> str:
    """The primary endpoint, and what difference is of interest."""
    said = ENDPOINT.format(below=found.design.secondary_below, unit="subject")
    size = found.design.smallest_effect
    if not np.isfinite(size):
        return said
    return f"{said}; of interest from {size:.2g}, {rule.smallest_effect:.0%} of the overall KID"


def _caveats(result: QualityResult, found: Audit, protocol: Registered) -> Iterator[str]:
    """What limits the audit, the most important first."""
    rule, method = protocol.rule, shown_method(result, protocol.rule)
    if dataset_of(rule.dataset).simulated:
        yield "The images are simulated: nothing here is about patients."
    elif limits(rule.dataset):
        yield limits(rule.dataset)
    for line in tables.failed_gates(result.gates[result.gates["method"] == method]):
        yield f"{line[0].upper()}{line[1:]}: the numbers above may not mean what they say."
    if method != rule.baseline:
        yield "The study has no baseline, so nothing was declared: all is exploratory."
    if not protocol.before:
        yield "The protocol was written after test images existed: read as exploratory."
    models = "this one model" if len(rule.seeds) == 1 else f"these {len(rule.seeds)} models"
    yield f"Intervals hold for {models} on new subjects, not for training anew."
    read = _encoder_accuracy(result.encoder, found.attributes, rule)
    if read:
        yield (
            f"The encoder's own accuracy on real images ({name_of(rule.condition).lower()}): "
            f"{read} (see tab_encoder.csv). Where it reads a group worse, KID is measured less "
            "well; in which direction that errs is not known."
        )
    small = about_small_levels(found.by_group, list(found.attributes), rule.secondary_below)
    if small:
        yield small
    if len(found.attributes) > 1:
        yield one_at_a_time("tab_intersections.csv")
    mix = name_of(rule.condition).lower()
    yield f"Differences at equal {mix} mix, and in {rule.sensitivity} features, are exploratory."


def _encoder_accuracy(encoder: pd.DataFrame, attributes: Iterable[str], rule: Protocol) -> str:
    """The range of the primary condition's accuracy over each attribute's levels."""
    own = encoder[(encoder["metric"] == "encoder_accuracy") & np.isfinite(encoder["value"])]
    own = own[own["condition"] == rule.condition]
    said = []
    for name in attributes:
        levels = own[own["attribute"] == name]
        if len(levels) > 1:
            low, high = extremes(levels)
            said.append(
                f"{name} {low['value']:.2f} ({low['level']}) to "
                f"{high['value']:.2f} ({high['level']})"
            )
    return "; ".join(said)
