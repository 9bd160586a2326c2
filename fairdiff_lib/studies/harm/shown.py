"""Does an image show what was asked? Read back by a classifier, and measured where it can be.

The classifier was trained on real images and reads generated ones; what it reads is compared
with the prompt. It errs on real images too, so those stand beside, and the difference between
the two is what the generator did.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, Estimator, audit, differences, mean_metric, rows_metric
from fairdiff_lib.audit.classifiers import Scored, classification_audits
from fairdiff_lib.audit.contrasts import EXPLORATORY
from fairdiff_lib.audit.estimate import Floats, Groups, Ints, Levels
from fairdiff_lib.audit.gates import prompt_auc, reconstruction_r2
from fairdiff_lib.data.cohort import Ruler
from fairdiff_lib.settings.errors import InputError

AGREEMENT = "agreement"  # the reader's accuracy, with the prompt as the truth
CHANGE = "_change"


def reading_audits(
    data: Scored,
    attributes: Levels,
    confidence: float = 0.95,
    secondary_below: int = 80,
    bootstrap: int = 400,
) -> dict[str, Audit]:
    """Agreement and AUC of what a classifier reads with what was asked, of one condition.

    Parameters
    ----------
    data : Scored
        Its truth is the prompted level.
    attributes, confidence, secondary_below, bootstrap
        As for ``classification.classification_audits``.
    """
    found = classification_audits(
        data,
        attributes,
        confidence,
        secondary_below,
        names=("accuracy", "auc"),
        bootstrap=bootstrap,
    )
    return {AGREEMENT: named(found["accuracy"], AGREEMENT), "auc": found["auc"]}


def named(one: Audit, metric: str) -> Audit:
    """The audit under another name of its metric."""
    return Audit(metric, one.estimates, one.design, one.features)


def change(generated: Audit, real: Audit) -> Audit:
    """Generated minus real, by group, on the same subjects: what the generator lost or added.

    Its contrasts are differences of differences: does one group's prompt get lost more than
    another's? Above 0, generated images show the condition more plainly than real ones do.
    """
    return Audit(
        f"{generated.metric}{CHANGE}",
        differences(generated, real),
        generated.design,
        generated.features,
    )


# -- a quantity measured from the image ------------------------------------------------------


def ruler_audits(
    measured: Floats,
    truth: Floats,
    groups: Groups,
    attributes: Levels,
    confidence: float = 0.95,
    secondary_below: int = 80,
) -> dict[str, Audit]:
    """Is the measurement itself to be believed, and equally for all? Against the simulator's truth.

    Parameters
    ----------
    measured, truth : float64 [N]
        A ruler's quantity on real (simulated) images; NaN where nothing could be measured.

    Returns
    -------
    dict
        ruler_r2 (about the line of identity; an image without a measurement counts as the
        mean), ruler_bias (mean of measured minus true), ruler_lost (share without one).
    """
    lost = np.isnan(measured)
    metrics: dict[str, tuple[Estimator, str]] = {
        "ruler_r2": (
            rows_metric(lambda rows: reconstruction_r2(measured[rows], truth[rows])),
            "high",
        ),
        "ruler_bias": (mean_metric(measured - truth), "low"),
        "ruler_lost": (mean_metric(lost.astype(np.float64), bounded=True), "low"),
    }
    return _audits(metrics, groups, attributes, confidence, secondary_below)


def measured_audits(
    ruler: Ruler,
    measured: Floats,
    asked: Ints,
    groups: Groups,
    attributes: Levels,
    confidence: float = 0.95,
    secondary_below: int = 80,
) -> dict[str, Audit]:
    """A ruler's quantity against the prompted level.

    Parameters
    ----------
    ruler : Ruler
    measured : float64 [N]
        NaN where nothing could be measured.
    asked : int64 [N]
        Prompted level of the ruler's condition, from the smallest values to the largest.
    groups, attributes, confidence, secondary_below
        As for ``fairness.audit``.

    Returns
    -------
    dict
        With the ruler's key, as in cup_disc_auc: ``_auc`` (the largest level against the
        smallest, as the gate has it), ``_agreement`` (share that measures as the level that was
        asked for; without a measurement: doesn't), ``_lost``; and the mean under the ruler's
        name for it, as cup_disc_ratio.
    """
    _check_levels(ruler, asked)
    lost, level = np.isnan(measured), np.digitize(measured, ruler.cuts)
    shows = ((level == asked) & ~lost).astype(np.float64)
    ends = np.isin(asked, (0, len(ruler.cuts)))

    def largest_against_smallest(rows: Ints) -> float:
        chosen = rows[ends[rows]]
        return prompt_auc(measured[chosen], asked[chosen] > 0)

    metrics: dict[str, tuple[Estimator, str]] = {
        f"{ruler.key}_auc": (rows_metric(largest_against_smallest), "high"),
        f"{ruler.key}_agreement": (mean_metric(shows, bounded=True), "high"),
        f"{ruler.key}_lost": (mean_metric(lost.astype(np.float64), bounded=True), "low"),
        ruler.mean: (mean_metric(measured), "low"),
    }
    return _audits(metrics, groups, attributes, confidence, secondary_below)


def _check_levels(ruler: Ruler, asked: Ints) -> None:
    cuts = ruler.cuts
    if list(cuts) != sorted(set(cuts)):
        raise InputError(f"{ruler.name}: cuts {list(cuts)}; expected them to rise")
    if len(asked) and not 0 <= asked.min() <= asked.max() <= len(cuts):
        raise InputError(
            f"{ruler.name}: prompted levels {asked.min()} to {asked.max()}; "
            f"expected 0 to {len(cuts)} for {len(cuts)} cut(s)"
        )


def _audits(
    metrics: Mapping[str, tuple[Estimator, str]],
    groups: Groups,
    attributes: Levels,
    confidence: float,
    secondary_below: int,
) -> dict[str, Audit]:
    return {
        name: audit(
            estimator,
            groups,
            attributes,
            metric=name,
            better=better,
            confidence=confidence,
            secondary_below=secondary_below,
            role=EXPLORATORY,
        )
        for name, (estimator, better) in metrics.items()
    }


def by_group(audits: Mapping[str, Audit]) -> pd.DataFrame:
    """Rows of several audits below each other, in ``equity.GROUP_COLUMNS``."""
    return pd.concat([one.by_group for one in audits.values()], ignore_index=True)
