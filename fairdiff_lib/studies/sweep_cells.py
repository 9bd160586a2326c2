"""The cells of the guidance x steps sweep: what they are, without making one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import GenerationConfig, Settings


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
    if own.method not in settings.methods:
        raise InputError(
            f"sweep.method={own.method}: expected one of methods={','.join(settings.methods)}"
        )
    if own_cell(settings) not in cells_of(settings):
        raise InputError(
            f"sweep: the study's own cell ({own_cell(settings).name}) is missing; expected it "
            "among sweep.guidances and sweep.steps"
        )
