"""What the matrix (13), the sweep (15) and the generations (18) consist of: plain data.

Nothing here is trained or drawn, and no network library is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import BASELINE
from fairdiff_lib.settings.options import GenerationConfig, MatrixConfig, Settings

REAL = "real"


# -- arms of the matrix ----------------------------------------------------------------------


@dataclass(frozen=True)
class MatrixArm:
    """What a classifier is trained on."""

    real: bool  # a share of the real training subjects' images
    # as many generated images as training images: "" none, "train" of the training prompts,
    # "balanced" of prompts with every level of an attribute equally often
    made: str = ""
    # generated ones alone for half of the steps, then real ones alone; otherwise all together,
    # each image equally likely
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
    """A classifier of the matrix."""

    arm: str  # key of ARMS
    share: float  # of the real training subjects, in (0, 1]; 0 for an arm without real images
    seed: int  # of the classifier and of the draw of subjects

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


def folder_of(places: Places, run: MatrixRun, attribute: str) -> Path:
    """Folder of a run; ``attribute`` is the one that balanced images are balanced over."""
    spec, label = run.spec, run.arm
    if spec.made == "balanced":
        label += f"-{attribute}"
    if spec.real:
        label += f"-share{run.share:g}"
    generator = generator_seed(places.settings, run.seed) if spec.made else None
    return places.matrix_run(label, run.seed, generator)


def _check_method(part: str, method: str, settings: Settings) -> None:
    if method not in settings.methods:
        raise InputError(
            f"{part}.method={method}: expected one of methods={','.join(settings.methods)}"
        )


def check_arms(settings: Settings) -> None:
    """Refuse a matrix that these settings cannot make, naming the field."""
    own = settings.matrix
    _check_method("matrix", own.method, settings)
    if own.balance:
        names = tuple(a.name for a in dataset_of(settings.dataset).spec().attributes)
        refuse_unknown("attribute in matrix.balance", own.balance, names)
    loop = settings.classifier(own.classifier).loop
    if loop.steps < 2:
        raise InputError(
            f"{own.classifier}.loop.steps={loop.steps}: expected at least 2, one before and one "
            "after pretraining"
        )


# -- generations -----------------------------------------------------------------------------

MIXED = "mixed"  # trained on real images and on the last generation's
LOOP_ARMS = (MIXED, REAL)


def check_loop(settings: Settings) -> None:
    """Refuse generations of a model that the study does not train."""
    if BASELINE not in settings.methods:
        raise InputError(
            f"study loop: methods={','.join(settings.methods)}; expected {BASELINE} among them"
        )


# -- cells of the sweep ----------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Cell:
    """A guidance scale and a number of denoising steps."""

    guidance: float
    steps: int

    @property
    def name(self) -> str:
        """As a table or message calls it."""
        return f"guidance {self.guidance:g}, {self.steps} steps"

    def of(self, generation: GenerationConfig) -> GenerationConfig:
        """Generation settings with this cell's guidance and steps, all else kept."""
        return replace(generation, guidance=self.guidance, steps=self.steps)


def cells_of(settings: Settings) -> list[Cell]:
    """Every cell, by guidance and steps."""
    own = settings.sweep
    return sorted(Cell(guidance, steps) for guidance in own.guidances for steps in own.steps)


def own_cell(settings: Settings) -> Cell:
    """The cell of the study's own generation, which the others are compared with."""
    return Cell(settings.generation.guidance, settings.generation.steps)


def check_cells(settings: Settings) -> None:
    """Refuse a sweep that these settings cannot make, naming the field."""
    own = settings.sweep
    _check_method("sweep", own.method, settings)
    if own_cell(settings) not in cells_of(settings):
        raise InputError(
            f"sweep: the study's own cell ({own_cell(settings).name}) is missing; expected it "
            "among sweep.guidances and sweep.steps"
        )
