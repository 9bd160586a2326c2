"""Predicted probabilities as tidy tables, and thresholds: no network is needed for a metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fairdiff_lib.audit.classifiers import UNKNOWN
from fairdiff_lib.disk.files import read_table, write_table
from fairdiff_lib.settings.errors import InputError

LOOK_COLUMNS = ("step", "condition", "metric", "n", "value", "selected")

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Probabilities = dict[str, NDArray[np.float64]]
Levels = dict[str, tuple[str, ...]]  # condition to its level names, as the labels' columns


def check_images(what: str, images: Images) -> None:
    """Refuse anything but uint8 [N, 3, H, W] with one line."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(
            f"{what}: {images.dtype} of shape {images.shape}; expected uint8 [N, 3, H, W]"
        )


def check_labels(what: str, images: Images, labels: Labels, levels: Levels) -> None:
    """Refuse labels that don't fit the images or the conditions, naming the condition."""
    check_images(f"{what} images", images)
    expected = (len(images), len(levels))
    if labels.shape != expected or not len(images):
        raise InputError(
            f"{what} labels: shape {labels.shape}; expected {expected} (images, conditions), "
            "and at least one image"
        )
    for column, (name, names) in zip(labels.T, levels.items(), strict=True):
        if column.min() < -1 or column.max() >= len(names):
            raise InputError(
                f"{what} labels of {name}: values {column.min()} to {column.max()}; "
                f"expected -1 (not known) to {len(names) - 1} ({', '.join(names)})"
            )
        if (column < 0).all():
            raise InputError(f"{what} labels of {name}: none is known")


def check_every_level(labels: Labels, levels: Levels) -> None:
    """Refuse training labels in which a level of a condition never occurs, naming both."""
    for column, (condition, names) in zip(labels.T, levels.items(), strict=True):
        missing = [name for code, name in enumerate(names) if not (column == code).any()]
        if missing:
            raise InputError(
                f"training labels of {condition}: no image with {', '.join(missing)}; "
                "expected at least one of every level"
            )


def youden_threshold(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Threshold with the largest sensitivity + specificity - 1 (Youden 1950).

    Of truth and score [N], the probability of the positive level, which is called at or above it.
    Midway between two scores; the one nearest 0.5 where several are best. NaN where only one of
    the two levels is present.
    """
    if truth.all() or not truth.any():
        return math.nan
    values, index = np.unique(score, return_inverse=True)
    if len(values) == 1:
        return float(values[0])
    cuts = (values[1:] + values[:-1]) / 2
    positive = np.bincount(index[truth], minlength=len(values)) / truth.sum()
    negative = np.bincount(index[~truth], minlength=len(values)) / (~truth).sum()
    excess = np.cumsum(negative - positive)[:-1]  # J of calling positive above each cut
    best = cuts[excess >= excess.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def predictions_table(
    probabilities: Probabilities, levels: Levels, images: Sequence[str], subjects: Sequence[Any],
    truth: Labels,
) -> pd.DataFrame:  # fmt: skip
    """Tidy predictions, ``PREDICTION_COLUMNS``: a row per image, condition and level.

    Of probabilities by condition, float64 [N, K]; unique names of the images, the key to join
    attributes by; and level indices, int64 [N, C], of which -1 becomes ``UNKNOWN``.
    """
    counts = {"images": len(images), "subjects": len(subjects), "truth": len(truth)}
    counts |= {f"probabilities of {name}": len(probabilities[name]) for name in levels}
    if len(set(counts.values())) > 1:
        raise InputError(f"predictions: lengths differ; {counts}")
    twice = pd.Index(images)[pd.Index(images).duplicated()]
    if len(twice):
        raise InputError(f"predictions: image {twice[0]!r} occurs twice; expected unique names")
    frames = []
    for column, (condition, names) in zip(truth.T, levels.items(), strict=True):
        own = np.array([*names, UNKNOWN], dtype=object)[column]  # -1 picks the last
        values = {
            "image": np.repeat(np.asarray(images, dtype=object), len(names)),
            "subject": np.repeat(np.asarray(subjects, dtype=object), len(names)),
            "condition": condition,
            "truth": np.repeat(own, len(names)),
            "level": np.tile(np.array(names, dtype=object), len(truth)),
            "probability": probabilities[condition].ravel(),
        }
        frames.append(pd.DataFrame(values))
    return pd.concat(frames, ignore_index=True)


def check_predictions(where: Path | str, found: pd.DataFrame, levels: Levels) -> None:
    """Refuse saved predictions with a condition, level or truth that the spec doesn't know."""
    _refuse_strange(where, found, "condition", tuple(levels))
    for condition, names in levels.items():
        own = found[found["condition"] == condition]
        _refuse_strange(where, own, "level", names)
        _refuse_strange(where, own, "truth", (*names, UNKNOWN))


def _refuse_strange(
    where: Path | str, part: pd.DataFrame, column: str, known: Sequence[str]
) -> None:
    """Name the first row (as the file counts them, after its header) with another value."""
    strange = part[~part[column].isin(known)]
    if len(strange):
        raise InputError(
            f"{where}: row {int(strange.index[0]) + 1}: {column} {strange[column].iloc[0]!r}; "
            f"expected one of {', '.join(known)}"
        )


def condition_auc(probabilities: Probabilities, labels: Labels, levels: Levels) -> pd.DataFrame:
    """Macro one-against-rest AUC per condition over images (two levels: of the second).

    Of probabilities [N, K] by condition and labels [N, C] in the order of ``levels``, rows of -1
    left out. Returns condition, metric ("auc"), n (images), value (NaN where a level is absent).
    """
    rows = []
    for column, (condition, names) in zip(labels.T, levels.items(), strict=True):
        known, value = column >= 0, math.nan
        codes, scores = column[known], probabilities[condition][known]
        if len(np.unique(codes)) == len(names):
            chosen = [1] if len(names) == 2 else range(len(names))
            value = float(np.mean([roc_auc_score(codes == k, scores[:, k]) for k in chosen]))
        rows.append({"condition": condition, "metric": "auc", "n": len(codes), "value": value})
    return pd.DataFrame(rows)


class Watch:
    """Records the AUC of given images whenever it is called with a network; decides nothing.

    ``predict`` takes a network to its probabilities and leaves it as it was; ``path`` keeps the
    looks, so that a fit that was killed goes on with those before.
    """

    def __init__(
        self, predict: Callable[[Any], Probabilities], labels: Labels, levels: Levels,
        path: Path | None = None,
    ) -> None:  # fmt: skip
        self.predict, self.labels, self.levels, self.path = predict, labels, levels, path
        self.looks: dict[int, pd.DataFrame] = {}  # step: condition, metric, n, value, step
        if path is not None and path.is_file():
            found = read_table(path, LOOK_COLUMNS[:-1])
            self.looks = {int(own["step"].iloc[0]): own for _, own in found.groupby("step")}

    def __call__(self, step: int, network: Any) -> None:
        found = condition_auc(self.predict(network), self.labels, self.levels)
        self.looks[step] = found.assign(step=step)
        if self.path is not None:
            write_table(pd.concat(self.looks.values()), self.path)

    def table(self, selected: int) -> pd.DataFrame:
        """All looks by step in ``LOOK_COLUMNS``; none without a look at the ``selected`` one."""
        if selected not in self.looks:
            return pd.DataFrame(columns=list(LOOK_COLUMNS))
        found = pd.concat([self.looks[step] for step in sorted(self.looks)], ignore_index=True)
        return found.assign(selected=found["step"] == selected)[list(LOOK_COLUMNS)]
