"""Can a group be read from an image? A linear probe of features, on real and generated images.

A generator that exaggerates what it takes for a group's looks is easier to read than reality;
one that draws everybody alike can't be read. The probe also sees what goes through the
conditions that are more frequent in a group: it says that a group can be told, not by what.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairdiff_lib.audit.contrasts import GROUP_COLUMNS
from fairdiff_lib.audit.estimate import Bools, Estimate, Floats, Ints, difference
from fairdiff_lib.audit.estimators import auc, macro_auc
from fairdiff_lib.audit.kid import as_features
from fairdiff_lib.settings.errors import InputError

PROBE = "probe_auc"
STRENGTH = 1.0  # inverse of the ridge penalty on standardised features, scikit-learn's own
Key = tuple[str, str]


def probe_scores(
    train: Floats, codes: Ints, test: Floats, attribute: str, levels: Sequence[str]
) -> Floats:
    """Probability of every level for test images, by a logistic regression of features.

    Features are standardised on the training images, levels weigh alike whatever their size.

    Parameters
    ----------
    train : float [T, D]
    codes : int64 [T]
        Level index of every training image.
    test : float [N, D]
    attribute : str
    levels : sequence of str

    Returns
    -------
    float64 [N, K]

    Raises
    ------
    InputError
        A level without a training image, features of other shape or not finite.
    """
    x = as_features(train, "features of training images", len(codes))
    y = as_features(test, "features of test images")
    missing = [name for k, name in enumerate(levels) if not (codes == k).any()]
    if missing:
        raise InputError(
            f"probe of {attribute}: no training image of {', '.join(missing)}; "
            "expected at least one of every level"
        )
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"probe of {attribute}: {y.shape[1]} features of test images; expected {x.shape[1]}"
        )
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(x, codes)
        except ConvergenceWarning as error:
            raise InputError(f"probe of {attribute}: the regression did not converge") from error
    return np.asarray(model.predict_proba(y), dtype=np.float64)


def probe_estimates(
    scores: Floats, codes: Ints, unit: Ints, attribute: str, levels: Sequence[str]
) -> dict[Key, Estimate]:
    """AUC of a probe: macro ("all"), and of every level against the rest where there are several.

    Parameters
    ----------
    scores : float64 [N, K]
        From :func:`probe_scores`.
    codes, unit : int64 [N]
        Level and subject of every test image.
    attribute, levels
        Names.
    """
    everyone: Bools = np.ones(int(unit.max()) + 1 if len(unit) else 0, dtype=bool)
    found = {(attribute, "all"): macro_auc(codes, scores, unit, everyone)}
    for k, level in enumerate(levels if len(levels) > 2 else ()):  # of two, both are the same
        found[attribute, level] = auc(codes == k, scores[:, k], unit, everyone)
    return found


def probe_rows(
    found: dict[Key, Estimate],
    beside: dict[Key, Estimate] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Rows of a probe, in ``equity.GROUP_COLUMNS``: ``probe_auc``, 0.5 where nothing can be read.

    Parameters
    ----------
    found : dict
        From :func:`probe_estimates`.
    beside : dict, optional
        The same of real images and the same test subjects: adds ``probe_auc_change``, found
        minus beside, paired.
    confidence : float
    """
    named = [(PROBE, found)]
    if beside is not None:
        gaps = {key: difference(own, beside[key]) for key, own in found.items()}
        named.append((f"{PROBE}_change", gaps))
    rows = [
        (*key, metric, one.n, one.value, *one.interval(confidence), one.note)
        for metric, estimates in named
        for key, one in estimates.items()
    ]
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))
