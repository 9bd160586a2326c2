"""Arms of the downstream matrix: which images a classifier is trained on, and in which order.

Plain data, and the draws behind it: a share of the real subjects, prompts with every level of an
attribute equally often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.options import MatrixConfig, Settings

Ints = NDArray[np.int64]
REAL = "real"
LEAST_SUBJECTS = 50  # training subjects of a level that images may be balanced over


@dataclass(frozen=True)
class MatrixArm:
    """What a classifier is trained on.

    Attributes
    ----------
    real : bool
        A share of the real training subjects' images.
    made : str
        Generated images: "" none, "train" for the training prompts, "balanced" for prompts with
        every level of an attribute equally often. As many as there are training images.
    first : bool
        The generated ones alone for half of the steps, then the real ones alone; otherwise all
        together, each image equally likely.
    """

    real: bool
    made: str = ""
    first: bool = False


ARMS: dict[str, MatrixArm] = {
    REAL: MatrixArm(True),
    "synthetic": MatrixArm(False, "train"),
    "balanced_synthetic": MatrixArm(False, "balanced"),
    "real_and_synthetic": MatrixArm(True, "train"),
    "real_and_balanced": MatrixArm(True, "balanced"),
    "pretrain_then_real": MatrixArm(True, "train", first=True),
}


@dataclass(frozen=True)
class MatrixRun:
    """A classifier of the matrix.

    Attributes
    ----------
    arm : str
        Key of :data:`ARMS`.
    share : float
        Of the real training subjects, in (0, 1]; 0 for an arm without real images.
    seed : int
        Of the classifier and of the draw of subjects.
    """

    arm: str
    share: float
    seed: int

    def __post_init__(self) -> None:
        refuse_unknown("arm of the matrix", self.arm, tuple(ARMS))
        if ARMS[self.arm].real and not 0.0 < self.share <= 1.0:
            raise InputError(f"arm {self.arm}, share {self.share}: expected above 0, at most 1")
        if not ARMS[self.arm].real and self.share != 0.0:
            raise InputError(
                f"arm {self.arm}, share {self.share}: expected 0; it has no real image"
            )

    @property
    def spec(self) -> MatrixArm:
        """What the arm is."""
        return ARMS[self.arm]


def shares_of(settings: MatrixConfig, arm: str) -> tuple[float, ...]:
    """Shares of real data of an arm, smallest first; 0 alone for one without real data."""
    refuse_unknown("arm of the matrix", arm, tuple(ARMS))
    return tuple(sorted(settings.shares)) if ARMS[arm].real else (0.0,)


def matrix_runs(settings: MatrixConfig) -> list[MatrixRun]:
    """Every run of the matrix."""
    return [
        MatrixRun(arm, share, seed)
        for arm in ARMS
        for share in shares_of(settings, arm)
        for seed in settings.seeds
    ]


def generator_seed(settings: Settings, seed: int) -> int:
    """Training seed of the generator whose images a run of the matrix sees.

    There may be fewer generators than classifiers; they are then shared in turn.
    """
    place = settings.matrix.seeds.index(seed)
    return settings.seeds[place % len(settings.seeds)]


def folder_of(layout: Places, run: MatrixRun, attribute: str) -> Path:
    """Folder of a run; ``attribute`` is the one that balanced images are balanced over."""
    spec, label = run.spec, run.arm
    if spec.made == "balanced":
        label += f"-{attribute}"
    if spec.real:
        label += f"-share{run.share:g}"
    generator = generator_seed(layout.settings, run.seed) if spec.made else None
    return layout.matrix_run(label, run.seed, generator)


def check_arms(settings: Settings) -> None:
    """Refuse a matrix that these settings cannot make, naming the field."""
    own = settings.matrix
    if own.method not in settings.methods:
        raise InputError(
            f"matrix.method={own.method}: expected one of methods={','.join(settings.methods)}"
        )
    if own.balance:
        names = tuple(a.name for a in dataset_of(settings.dataset).spec().attributes)
        refuse_unknown("attribute in matrix.balance", own.balance, names)
    loop = settings.classifier(own.classifier).loop
    if loop.steps < 2:
        raise InputError(
            f"{own.classifier}.loop.steps={loop.steps}: expected at least 2, one before and one "
            "after pretraining"
        )


# -- what is drawn ---------------------------------------------------------------------------


def balanced_over(settings: Settings, train: Cohort) -> str:
    """The attribute that images are balanced over; decided by the training split alone.

    As set, or the one whose largest level has the most times as many subjects as its smallest;
    of those, where there are any, whose every level has ``LEAST_SUBJECTS``: a few prompts drawn
    again and again are no group.
    """
    if settings.matrix.balance:
        return settings.matrix.balance
    subjects = train.table.drop_duplicates("subject")
    counts = {
        one.name: subjects[one.name].value_counts().reindex(list(one.levels)).fillna(0)
        for one in train.spec.attributes
    }
    large = {name: own for name, own in counts.items() if own.min() >= LEAST_SUBJECTS}
    counts = large or counts
    return max(counts, key=lambda name: float(counts[name].max() / max(counts[name].min(), 1)))


def share_rows(train: Cohort, share: float, seed: int) -> Ints:
    """Rows of a share of the subjects, drawn within each level of the primary condition.

    The subjects of a level are put in one random order; a share takes its first, so that the
    smaller of two shares of one seed lies within the larger.

    Parameters
    ----------
    train : Cohort
        The training split, included rows only.
    share : float
        In (0, 1].
    seed : int

    Returns
    -------
    int64 [n]
        Sorted; every image of a chosen subject. All rows at a share of 1.

    Raises
    ------
    InputError
        A level of a prompted condition that no chosen subject has: the share, condition, level.
    """
    table, primary = train.table, train.spec.primary_condition
    subjects = table.drop_duplicates("subject").sort_values("subject")
    chosen: set[str] = set()
    for code, level in enumerate(train.spec.levels(primary)):
        own = subjects.loc[subjects[primary] == level, "subject"].to_numpy()
        order = np.random.default_rng((seed, code)).permutation(len(own))
        chosen |= set(own[order[: math.floor(share * len(own) + 0.5)]])
    rows = np.flatnonzero(table["subject"].isin(chosen).to_numpy()).astype(np.int64)
    _refuse_missing(train, rows, share, seed)
    return rows


def _refuse_missing(train: Cohort, rows: Ints, share: float, seed: int) -> None:
    part = train.table.iloc[rows]
    for condition in train.spec.prompted:
        missing = [x for x in condition.levels if not (part[condition.name] == x).any()]
        if missing:
            raise InputError(
                f"matrix: a share of {share:g} of the real subjects (seed {seed}) has no "
                f"{condition.name} {', '.join(missing)}; expected at least one subject of every "
                "level, give larger matrix.shares"
            )


def check_shares(settings: Settings, train: Cohort) -> None:
    """Refuse, before anything is fitted, shares that leave a level without a subject."""
    for seed in settings.matrix.seeds:
        for share in sorted(settings.matrix.shares):
            share_rows(train, share, seed)


def balanced_part(train: Cohort, attribute: str, seed: int) -> Cohort:
    """Training rows drawn with replacement so that every level of an attribute is equally often.

    Within a level every row is equally likely: the prevalence of conditions stays what it is.
    As many rows as there are in training; levels differ by one at most.

    Parameters
    ----------
    train : Cohort
        The training split, included rows only.
    attribute : str
    seed : int
        Of the generator whose images it will be.

    Returns
    -------
    Cohort
        A row per image to be made; ``image`` is its own name, unique, which holds the drawn
        row's.

    Raises
    ------
    InputError
        A level without a training row.
    """
    refuse_unknown("attribute", attribute, tuple(a.name for a in train.spec.attributes))
    levels = train.spec.levels(attribute)
    generator = np.random.default_rng((seed, len(train)))
    parts: list[Ints] = []
    for code, level in enumerate(levels):
        own = np.flatnonzero((train.table[attribute] == level).to_numpy())
        if not len(own):
            raise InputError(
                f"{train.root}: no training row with {attribute} {level!r}; expected at least one "
                "to balance over"
            )
        wanted = len(train) // len(levels) + (code < len(train) % len(levels))
        parts.append(generator.choice(own, wanted).astype(np.int64))
    drawn = train.take(np.concatenate(parts))
    names = [f"{k:06d}-{name}" for k, name in enumerate(drawn.table["image"])]
    return Cohort(drawn.spec, drawn.table.assign(image=names), drawn.root, drawn.data_hash)


def half_steps(steps: int) -> tuple[int, int]:
    """Steps on generated images, then on real ones, of an arm that has one after the other."""
    return steps // 2, steps - steps // 2
