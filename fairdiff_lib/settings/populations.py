"""What a simulator is told: the part that every family shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Population:
    """How much a simulator draws, and which disparity it plants: a class per family, in room sim.

    A field's first word says what it is, and no knob touches what another one names: ``share_``
    (a group's size), ``heterogeneity_`` (how varied it looks), ``difficulty_`` (how noisy its
    images are).
    """

    most: ClassVar[Mapping[str, int]] = {}  # field that counts who is drawn -> its largest value
    levels: ClassVar[Mapping[str, tuple[str, str]]] = {}  # end of a knob's name -> attribute, level
    noise: ClassVar[str] = "camera noise"  # what a difficulty multiplies, in words
    landscape: ClassVar[bool] = True  # pictures are at least as wide as high

    @property
    def counts(self) -> dict[str, int]:
        """How many are drawn, by the field that says so."""
        return {name: getattr(self, name) for name in self.most}

    @property
    def knobs(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Difficulty and heterogeneity of every (attribute, level) that has a knob."""
        return {
            level: (
                getattr(self, f"difficulty_{word}", 1.0),
                getattr(self, f"heterogeneity_{word}", 1.0),
            )
            for word, level in self.levels.items()
        }
