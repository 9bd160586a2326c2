"""What a simulator is told: the part that every family shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

Knobs = dict[tuple[str, str], tuple[float, float]]  # (attribute, level): difficulty, heterogeneity


@dataclass(frozen=True)
class Population:
    """How much a simulator draws, and which disparity it plants: a class per family, in room sim.

    A field's first word says what it is, and no knob touches what another one names: ``share_``
    (a group's size), ``heterogeneity_`` (how varied it looks), ``difficulty_`` (how noisy its
    images are).
    """

    difficulty: ClassVar[str] = "camera noise"  # what a difficulty multiplies, in words

    @property
    def counts(self) -> dict[str, int]:
        """How many are drawn, by the field that says so."""
        return {}

    @property
    def knobs(self) -> Knobs:
        """Difficulty and heterogeneity of every level that has a knob."""
        return {}
