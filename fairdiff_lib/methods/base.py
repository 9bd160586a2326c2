"""The interface that every training method fits, and methods by name.

A method turns the unreduced losses of a batch into weights; the training loop multiplies and
averages. It always sees the gathered batch and draws from generators seeded by (seed, step), so
what it returns is the same on every process, unless a named option says otherwise (P5).

A new method is one class, with what it changes, and one line in ``methods.METHODS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fairdiff_lib.methods.groups import Attributes, loss_gap
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import METHODS, config_of
from fairdiff_lib.settings.options import MitigationConfig


class Mitigation:
    """A training method; this one, ``none``, changes nothing.

    Parameters
    ----------
    config : MitigationConfig
        As the method sees it; see ``methods.config_of``.
    attributes : mapping
        Attribute name to level names.
    seed : int
        Of the method's own draws.
    steps_per_epoch : int
        Optimiser steps in one pass over the training split.
    rank : int
        Of this process.

    Attributes
    ----------
    agree : callable
        Floats of the first process, on every process; set by the training loop.
    """

    name = "none"

    def __init__(
        self,
        config: MitigationConfig,
        attributes: Attributes,
        seed: int,
        steps_per_epoch: int = 1,
        rank: int = 0,
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
        self.agree: Callable[[list[float]], list[float]] = list

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        """Change the pipeline, or look at training and validation rows, before training.

        Parameters
        ----------
        pipeline : StableDiffusionPipeline
            The one that is trained; an ``adapter`` set on it is trained and saved with it.
        cohort : Cohort
            Included rows of the splits "train" and "val"; no method sees test rows.
        """

    def read_sources(self, runs: Mapping[str, pd.DataFrame]) -> None:
        """Histories of the finished runs that ``methods.METHODS`` names as sources, by method."""

    def sampling_weights(self, cohort: Any) -> np.ndarray | None:
        """Sampling weight of each training row, float64 [N]; None = each row once per epoch.

        Asked before every step, so that a method may change its mind.
        """
        return None

    def learning_rate_factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied by."""
        return 1.0

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        """Loss weights of a gathered (micro-)batch.

        Parameters
        ----------
        losses : float [N]
            Detached, over all processes.
        levels : int64 [N, A]
        step : int
            Optimiser step, from 0 over the whole run.

        Returns
        -------
        float64 [N]
        """
        return torch.ones(len(losses), dtype=torch.float64)

    def observe(
        self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
    ) -> dict[str, float]:
        """See the unweighted losses of the whole batch after its update.

        Parameters
        ----------
        losses, levels, step
            As for :meth:`weights`.
        timesteps : int64 [N], optional
            Of the diffusion, where the objective has them.

        Returns
        -------
        dict
            Scalars for the history: ``objective``, ``acquisition``, and the seconds that the
            method's own optimiser and measurements took.
        """
        return {"objective": loss_gap(losses, levels, self.attributes)}

    def scales(self) -> Tensor | None:
        """Current sigma per level, float64 [G], or None where there is none."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint; JSON-ready."""
        return {"name": self.name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises
        ------
        InputError
            The checkpoint is another method's.
        """
        if state.get("name") != self.name:
            raise InputError(
                f"checkpoint is of method {state.get('name')!r}, this run is {self.name!r}"
            )


def make_mitigation(
    name: str,
    config: MitigationConfig,
    attributes: Attributes,
    seed: int,
    steps_per_epoch: int,
    rank: int = 0,
) -> Mitigation:
    """A method by name, with its own options and without those that it doesn't read.

    Raises
    ------
    InputError
        The method does not exist, or an attribute has fewer than two levels.
    """
    refuse_unknown("method", name, METHODS)
    module, kind = METHODS[name].implementation.split(".")
    made = getattr(importlib.import_module(f"fairdiff_lib.methods.{module}"), kind)
    mitigation: Mitigation = made(config_of(name, config), attributes, seed, steps_per_epoch, rank)
    mitigation.name = name
    return mitigation
