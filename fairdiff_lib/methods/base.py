"""What a training method may do, and the classes by the methods that they carry out.

A method turns the unreduced losses of a batch into weights; the training loop multiplies and
averages. It always sees the gathered batch and draws from generators seeded by (seed, step), so
what it returns is the same on every process, unless a named option says otherwise (P5).

A new method is one class, registered by name, and one entry in ``settings.methods.METHODS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fairdiff_lib.methods.groups import Attributes, loss_gap
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import METHODS, config_of
from fairdiff_lib.settings.options import MitigationConfig

CLASSES: dict[str, type[Mitigation]] = {}
Kind = TypeVar("Kind", bound="type[Mitigation]")


def register(*methods: str) -> Callable[[Kind], Kind]:
    """Class decorator: these methods of ``settings.methods.METHODS`` are of this class."""

    def keep(kind: Kind) -> Kind:
        CLASSES.update(dict.fromkeys(methods, kind))
        return kind

    return keep


@register("none")
class Mitigation:
    """A training method; this one changes nothing."""

    name = "none"
    kept: tuple[str, ...] = ()  # attributes in a checkpoint: tensors, lists, or with a state_dict

    def __init__(
        self,
        config: MitigationConfig,  # as the method sees it; see settings.methods.config_of
        attributes: Attributes,
        seed: int,  # of the method's own draws
        steps_per_epoch: int = 1,  # optimiser steps in one pass over the training split
        rank: int = 0,  # number of this process
    ) -> None:
        for attribute, names in attributes.items():
            if len(names) < 2:
                raise InputError(
                    f"attribute {attribute!r} has the one level {list(names)}; a method that "
                    "compares groups needs at least two"
                )
        self.config = config
        self.attributes = dict(attributes)
        self.sizes = [len(names) for names in attributes.values()]
        self.seed, self.rank = seed, rank
        self.steps_per_epoch = max(1, steps_per_epoch)
        self.agree: Callable[[list[float]], list[float]] = list  # the first process' values

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        """Change the pipeline, or look at training and validation rows, before training.

        An ``adapter`` set on the pipeline is trained and saved with it. No method sees test rows.
        """

    def read_sources(self, runs: Mapping[str, pd.DataFrame]) -> None:
        """Histories of the finished runs that the entry in METHODS names as sources, by method."""

    def sampling_weights(self, cohort: Any) -> np.ndarray | None:
        """Weight of each training row for a step, float64 [N]; None = each row once per epoch."""
        return None

    def learning_rate_factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied by."""
        return 1.0

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        """Loss weights of a gathered (micro-)batch, float64 [N], in a step (from 0 over the run).

        From its losses, float [N], detached and of all processes, and levels, int64 [N, A].
        """
        return torch.ones(len(losses), dtype=torch.float64)

    def observe(
        self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
    ) -> dict[str, float]:
        """See the unweighted losses of the whole batch after its update; scalars for the history.

        Those are ``objective``, ``score``, ``acquisition``, and the seconds that the method's own
        optimiser and measurements took. ``timesteps``, int64 [N], where the objective has them.
        """
        return {"objective": loss_gap(losses, levels, self.attributes)}

    def scales(self) -> Tensor | None:
        """Current sigma per level, float64 [G], or None where there is none."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint; JSON-ready, floats kept exactly."""
        return {"name": self.name} | {name: _plain(getattr(self, name)) for name in self.kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; InputError if it is another method's."""
        if state.get("name") != self.name:
            raise InputError(
                f"checkpoint is of method {state.get('name')!r}, this run is {self.name!r}"
            )
        for name in self.kept:
            own = getattr(self, name)
            if hasattr(own, "load_state_dict"):
                own.load_state_dict(state[name])
            else:
                tensor = isinstance(own, Tensor)
                kept = torch.tensor(state[name], dtype=torch.float64) if tensor else state[name]
                setattr(self, name, kept)


def _plain(value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return value.state_dict()
    return value.tolist() if isinstance(value, Tensor) else list(value)


def make_method(
    name: str,
    config: MitigationConfig,
    attributes: Attributes,
    seed: int,
    steps_per_epoch: int,
    rank: int = 0,
) -> Mitigation:
    """A method by name, with its own options and without those that it doesn't read."""
    refuse_unknown("method", name, METHODS)
    if name not in CLASSES:
        raise InputError(
            f"method {name!r} has an entry in METHODS but no class; expected @register({name!r}) "
            "above one, in a module that is imported"
        )
    method = CLASSES[name](config_of(name, config), attributes, seed, steps_per_epoch, rank)
    method.name = name
    return method
