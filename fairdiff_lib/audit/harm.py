"""Calibration and harm by group: may the probabilities be believed, and who is missed or alarmed?

The estimators are those of ``reliability`` and ``operating``; here they become audits of one
condition, and tidy rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, audit
from fairdiff_lib.audit.classifiers import LOW_IS_BETTER, Scored, classification_audits
from fairdiff_lib.audit.contrasts import EXPLORATORY
from fairdiff_lib.audit.equity import GROUP_COLUMNS
from fairdiff_lib.audit.estimate import Levels
from fairdiff_lib.audit.operating import AT_EQUAL, Thresholds, equal_sensitivity_metrics
from fairdiff_lib.audit.worst import worst_rows

BELIEVED = ("brier", "ece", "calibration_slope", "calibration_intercept")
SEEN = "auc"  # stands beside, as what is not seen can't be said well
HARMED = ("fnr", f"false_positive_rate{AT_EQUAL}")
MEANS = ("brier", *HARMED)  # means over subjects, whose gap by chance is known
CAN_BE_WORST = (*LOW_IS_BETTER, HARMED[1])  # slope and intercept have a best value in between


def harm_audits(
    test: Scored,
    thresholds: Thresholds | None,
    attributes: Levels,
    *,
    confidence: float = 0.95,
    secondary_below: int = 80,
    bootstrap: int = 400,
    seed: int = 0,
) -> dict[str, Audit]:
    """Audits of calibration and harm of one condition, by metric; all exploratory.

    Parameters
    ----------
    test : Scored
        Predicted at the validation set's threshold, which the false-negative rate rests on.
    thresholds : mapping, optional
        From ``operating.group_thresholds``, of the same classifier; None with several classes.
    attributes, confidence, secondary_below
        As for ``fairness.audit``.
    bootstrap, seed : int
        Replicates (of subjects) behind the intervals of ece, and of auc for several classes.

    Returns
    -------
    dict
        auc, brier, ece; with two classes also calibration_slope, calibration_intercept and fnr;
        with thresholds also the two rates of ``operating.equal_sensitivity_metrics``.
    """
    found = classification_audits(
        test,
        attributes,
        confidence,
        secondary_below,
        names=(SEEN, *BELIEVED, *HARMED),
        bootstrap=bootstrap,
        seed=seed,
    )
    rates = equal_sensitivity_metrics(test, thresholds) if thresholds else {}
    for name, estimator in rates.items():
        found[name] = audit(
            estimator,
            test.groups,
            attributes,
            metric=name,
            better="low" if name in CAN_BE_WORST else "high",
            confidence=confidence,
            secondary_below=secondary_below,
            role=EXPLORATORY,
        )
    return found


def harm_table(audits: Mapping[str, Audit], thresholds: Thresholds | None = None) -> pd.DataFrame:
    """Every metric by group, its gap, and its worst level.

    Parameters
    ----------
    audits : mapping
        From :func:`harm_audits`.
    thresholds : mapping, optional
        From ``operating.group_thresholds``: rows of metric ``threshold_at_equal_sensitivity``,
        whose n counts the validation subjects with the condition.

    Returns
    -------
    DataFrame
        ``equity.GROUP_COLUMNS``.
    """
    parts = []
    for name, one in audits.items():
        parts.append(one.by_group)
        if name in CAN_BE_WORST:
            parts.append(worst_rows(one, by_chance=name in MEANS))
    if thresholds:
        parts.append(_threshold_rows(thresholds))
    return pd.concat(parts, ignore_index=True)[list(GROUP_COLUMNS)]


def _threshold_rows(thresholds: Thresholds) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "attribute": attribute,
            "level": level,
            "metric": f"threshold{AT_EQUAL}",
            "n": one.n,
            "value": one.value,
            "low": np.nan,
            "high": np.nan,
            "note": f"not estimable: {one.note}" if one.note else "chosen on validation",
        }
        for (attribute, level), one in thresholds.items()
    ]
    return pd.DataFrame(rows)
