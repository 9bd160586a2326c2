"""Every simulated family: how it is written, and what can be measured on its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fairdiff_lib.data.chexpert import WITH, WITHOUT
from fairdiff_lib.disk.places import is_simulated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.settings.populations import ChestConfig, DermatoscopyConfig, SimulatorConfig
from fairdiff_lib.sim.measure import measure_cup_disc_ratio
from fairdiff_lib.sim.measure_chest import measure_effusion
from fairdiff_lib.sim.measure_skin import measure_variegation
from fairdiff_lib.sim.planting import read_truth
from fairdiff_lib.sim.simulate import cup_disc_cuts, simulate_fairgenmed
from fairdiff_lib.sim.simulate_chest import effusion_cut, simulate_chest
from fairdiff_lib.sim.simulate_skin import simulate_dermatoscopy, variegation_cut

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
    key : str
        Begins the names of its gate and metrics, as "cup_disc" in "cup_disc_agreement".
    mean : str
        Metric that is its mean over images, as "cup_disc_ratio".
    condition, low, high : str
        A prompted condition, and the two levels that the gate compares: images asked to be at
        ``high`` should measure higher.
    cuts : tuple of float
        Values between the condition's neighbouring levels, in their order.
    nothing : str
        What NaN says, as "no disc found".
    measure : callable
        uint8 [n, 3, H, W] -> float64 [n], NaN where nothing could be measured.
    """

    name: str
    column: str
    key: str
    mean: str
    condition: str
    low: str
    high: str
    cuts: tuple[float, ...]
    nothing: str
    measure: Callable[[npt.NDArray[np.uint8]], Floats]

    @property
    def gate(self) -> str:
        """Name of the gate that compares prompts."""
        return f"prompt_{self.key}"

    def truth(self, root: Path, images: list[str]) -> Floats:
        """What was drawn in the named images of a simulated dataset.  # [n]"""
        return read_truth(root).loc[images, self.column].to_numpy(dtype=np.float64)


_RULERS = {
    "fairgenmed_simulated": Ruler(
        name="cup-disc ratio",
        column="cup_disc_ratio",
        key="cup_disc",
        mean="cup_disc_ratio",
        condition="cdr_status",
        low="normal",
        high="abnormal",
        cuts=cup_disc_cuts(),
        nothing="no disc found",
        measure=measure_cup_disc_ratio,
    ),
    "ham10000_simulated": Ruler(
        name="second colour's share of the lesion",
        column="variegation",
        key="second_colour",
        mean="second_colour_share",
        condition="malignant",
        low="benign",
        high="malignant",
        cuts=(variegation_cut(),),
        nothing="no lesion found",
        measure=measure_variegation,
    ),
    "chexpert_simulated": Ruler(
        name="height of the effusion",
        column="effusion",
        key="effusion",
        mean="effusion_height",
        condition="effusion",
        low=WITHOUT,
        high=WITH,
        cuts=(effusion_cut(),),
        nothing="no lungs found",
        measure=measure_effusion,
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
