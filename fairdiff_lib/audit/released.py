"""What the released code does where it misleads, for comparison only: never a default.

Each function carries ``as_released`` in its name and in the name of its metric, stands beside
a corrected form, and says what is wrong with it. The per-group Frechet distance as released is
in ``quality``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from fairdiff_lib.audit.contrasts import one_against_rest
from fairdiff_lib.audit.estimate import Bools, Floats, Ints
from fairdiff_lib.settings.errors import InputError

Images = NDArray[np.uint8]

BEST_TEST_EPOCH = "auc_best_test_epoch_as_released"
GAIN = "auc_gain_by_best_test_epoch_as_released"
BEST_NOTE = "as released: the best of all looks at the test images, so too high"
MISMATCHED = "auc_mismatched_as_released"
LOST = "auc_lost_by_mismatch_as_released"
MISMATCH_NOTE = "as released: test images turned against the generated ones, squashed, stretched"
LOST_NOTE = "matched minus mismatched: what the other preparation costs"
GAIN_NOTE = "above the step that validation chose: what choosing on the test images adds"


# -- E2: truth and prediction swapped --------------------------------------------------------


def dpd_as_released(truth: Ints, predicted: Ints, codes: Ints, classes: int) -> float:
    """DPD as released: of several classes truth and prediction swap, and it is the gap in the
    labels' prevalence, whatever is predicted (fault E2).
    """
    called = predicted if classes == 2 else truth
    everyone = np.ones(len(codes), dtype=bool)
    each = [_spread(called == k, codes, everyone) for k in one_against_rest(classes)]
    return float(np.mean(each))


def eod_as_released(truth: Ints, predicted: Ints, codes: Ints, classes: int) -> float:
    """What the released code calls EOD: with more than two classes, truth and prediction swap.

    It then is a gap in the probability of the truth given the prediction (fault E2). As fairlearn
    has it, a group without a case has a rate of 0.
    """
    asked, called = (truth, predicted) if classes == 2 else (predicted, truth)
    each = [
        max(_spread(called == k, codes, among) for among in (asked == k, asked != k))
        for k in one_against_rest(classes)
    ]
    return float(np.mean(each))


def _spread(event: Bools, codes: Ints, among: Bools) -> float:
    """Largest minus smallest rate of an event over the groups; 0 for a group with nobody."""
    groups = [event[among & (codes == group)] for group in np.unique(codes)]
    return float(np.ptp([own.mean() if len(own) else 0.0 for own in groups]))


# -- E3: a t-test over bootstrap replicates --------------------------------------------------


def replicate_t_test_as_released(
    function: Callable[[Ints], float], first: Ints, second: Ints, replicates: int, seed: int = 0
) -> tuple[float, float]:
    """Paired t-test over bootstrap replicates of two groups' rows, drawn independently (fault E3).

    The replicates are no observations: their mean difference is that of the sample, and the
    standard error is that of the *number of replicates*, so that p falls below any level once there
    are enough of them, on the same subjects. Rows are drawn, not subjects. Returns the mean
    difference over replicates (first minus second), and p.
    """
    if replicates < 2:
        raise InputError(f"replicates={replicates}: a t-test needs at least 2")
    rng, both = np.random.default_rng(seed), (first, second)
    values = np.array([[function(rng.choice(rows, size=len(rows))) for rows in both]
                       for _ in range(replicates)])  # fmt: skip
    return float(np.mean(values[:, 0] - values[:, 1])), float(stats.ttest_rel(*values.T).pvalue)


# -- E4: the epoch that is best on the test images -------------------------------------------


def best_test_epoch_as_released(watched: pd.DataFrame) -> pd.DataFrame:
    """AUC of the training step with the best AUC on the *test* images (fault E4).

    ``watched``: step, condition, metric, n, value, selected (true at the step that validation
    chose, or InputError). Per condition the AUC of the best step and how far it lies above the AUC
    of the selected one. NaN where a class is missing.
    """
    rows: list[dict[str, Any]] = []
    for condition, own in watched[watched["metric"] == "auc"].groupby("condition", sort=False):
        chosen = own.loc[own["selected"].astype(bool), "value"]
        if len(chosen) != 1:
            raise InputError(f"watched looks of {condition}: expected one at the selected step")
        best = own["value"].max()
        values = {BEST_TEST_EPOCH: (best, BEST_NOTE), GAIN: (best - chosen.iloc[0], GAIN_NOTE)}
        rows += [
            {"condition": condition, "metric": name, "value": float(value), "note": note}
            for name, (value, note) in values.items()
        ]
    return pd.DataFrame(rows, columns=["condition", "metric", "value", "note"])


# -- E6: other preparations of generated and of real images -----------------------------------


def turned_as_released(images: Images, quarters: int = -1) -> Images:
    """Images [N, 3, S, S] turned clockwise, as the generator's training images are (E6)."""
    return np.ascontiguousarray(np.rot90(images, quarters, axes=(2, 3)))


def stretched_as_released(images: Images) -> Images:
    """Each image [N, 3, S, S] stretched to the full range of grey, as one of the two sides is (E6).

    Which side is not at hand; here the real images, as their files hold other ranges. An image of
    one grey becomes black.
    """
    low = images.min(axis=(1, 2, 3), keepdims=True).astype(np.float32)
    reach = images.max(axis=(1, 2, 3), keepdims=True) - low
    return np.asarray(np.rint((images - low) / np.maximum(reach, 1) * 255), np.uint8)


# -- E7: ten splits of any sample ------------------------------------------------------------


def inception_score_as_released(probabilities: Floats, splits: int = 10) -> float:
    """Inception Score of [N, K] over ten splits: at most n / 10, whatever the images (E7)."""
    if len(probabilities) < splits:
        raise InputError(f"{len(probabilities)} images: expected at least {splits}, one a split")
    order = np.random.default_rng(0).permutation(len(probabilities))
    parts = np.array_split(np.clip(probabilities[order], 1e-12, None), splits)
    gains = [np.sum(p * np.log(p / p.mean(axis=0)), axis=1).mean() for p in parts]
    return float(np.mean(np.exp(gains)))
