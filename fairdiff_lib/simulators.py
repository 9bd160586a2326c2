"""Every simulated family: how it is written, and what can be measured on its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fairdiff_lib.chexpert import WITH, WITHOUT
from fairdiff_lib.config import InputError, Settings
from fairdiff_lib.measure import measure_cup_disc_ratio
from fairdiff_lib.measure_chest import measure_effusion
from fairdiff_lib.measure_skin import measure_variegation
from fairdiff_lib.planting import read_truth
from fairdiff_lib.populations import ChestConfig, DermatoscopyConfig, SimulatorConfig
from fairdiff_lib.simulate import simulate_fairgenmed
from fairdiff_lib.simulate_chest import simulate_chest
from fairdiff_lib.simulate_skin import simulate_dermatoscopy
from fairdiff_lib.store import is_simulated

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ruler:
    """A quantity that pictures of a family show, and that a prompt asks for.

    Attributes
    ----------
    name : str
        In words, as "cup-disc ratio".
    column : str
        Of truth.csv: what was drawn.
    gate : str
        Name of the gate that compares prompts.
    condition, low, high : str
        A prompted condition, and the two levels that the gate compares: images asked to be at
        ``high`` should measure higher.
    nothing : str
        What NaN says, as "no disc found".
    measure : callable
        uint8 [n, 3, H, W] -> float64 [n], NaN where nothing could be measured.
    """

    name: str
    column: str
    gate: str
    condition: str
    low: str
    high: str
    nothing: str
    measure: Callable[[npt.NDArray[np.uint8]], Floats]

    def truth(self, root: Path, images: list[str]) -> Floats:
        """What was drawn in the named images of a simulated dataset.  # [n]"""
        return read_truth(root).loc[images, self.column].to_numpy(dtype=np.float64)


_RULERS = {
    "fairgenmed_simulated": Ruler(
        "cup-disc ratio",
        "cup_disc_ratio",
        "prompt_cup_disc",
        "cdr_status",
        "normal",
        "abnormal",
        "no disc found",
        measure_cup_disc_ratio,
    ),
    "ham10000_simulated": Ruler(
        "second colour's share of the lesion",
        "variegation",
        "prompt_second_colour",
        "malignant",
        "benign",
        "malignant",
        "no lesion found",
        measure_variegation,
    ),
    "chexpert_simulated": Ruler(
        "height of the effusion",
        "effusion",
        "prompt_effusion",
        "effusion",
        WITHOUT,
        WITH,
        "no lungs found",
        measure_effusion,
    ),
}


def ruler_for(dataset: str) -> Ruler | None:
    """The ruler of a simulated dataset; None for a real one, whose truth nobody knows."""
    return _RULERS[dataset] if is_simulated(dataset) else None


def simulate(settings: Settings, root: Path) -> None:
    """Write the simulated dataset of a study; see the simulator of its family.

    Raises
    ------
    InputError
        A real dataset, settings that can't be simulated, or a full disk.
    """
    if not is_simulated(settings.dataset):
        raise InputError(
            f"dataset {settings.dataset!r} is not simulated; expected one of {', '.join(_RULERS)}"
        )
    config = settings.simulator
    if isinstance(config, SimulatorConfig):
        simulate_fairgenmed(config, root)
    elif isinstance(config, DermatoscopyConfig):
        simulate_dermatoscopy(config, root)
    elif isinstance(config, ChestConfig):
        simulate_chest(config, root)
