"""Mitigation methods behind one interface; Fair Bayesian Perturbation as released.

A method turns the unreduced losses of a batch into weights; the training loop multiplies and
averages. What a method returns is the same on every process, because it always sees the gathered
batch and draws from generators seeded by (seed, step).
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairdiff_lib.config import InputError, MitigationConfig, refuse_unknown

Attributes = Mapping[str, tuple[str, ...]]  # attribute name -> level names, in the cohort's order


def generator_for(seed: int, *names: object) -> torch.Generator:
    """Fresh CPU generator whose state depends on the seed and the names alone."""
    text = "/".join(str(part) for part in (seed, *names))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator("cpu").manual_seed(number)


def group_means(losses: Tensor, levels: Tensor, attributes: Attributes) -> list[Tensor]:
    """Mean loss of each level, per attribute.

    Parameters
    ----------
    losses : float [N]
    levels : int64 [N, A]
        Level index per attribute.
    attributes : mapping
        A names with their levels.

    Returns
    -------
    list of A float64 tensors, [number of levels]
        NaN where no sample has the level.
    """
    means = []
    for column, names in enumerate(attributes.values()):
        sums = torch.zeros(len(names), dtype=torch.float64)
        counts = torch.zeros(len(names), dtype=torch.float64)
        sums.index_add_(0, levels[:, column], losses.double())
        counts.index_add_(0, levels[:, column], torch.ones(len(losses), dtype=torch.float64))
        means.append(sums / counts)
    return means


def perturbation_weights(sigma: Tensor, noise: Tensor, levels: Tensor, sizes: list[int]) -> Tensor:
    """Weights of Fair Bayesian Perturbation, ``w_i = 1 + sum_a sigma[a, level_a(i)] eps[i, a]``.

    Parameters
    ----------
    sigma : float64 [G]
        Noise scale per level; the attributes' levels one after another.
    noise : float64 [N, A]
        Standard normal.
    levels : int64 [N, A]
    sizes : list of A int
        Number of levels per attribute.

    Returns
    -------
    float64 [N]

    Notes
    -----
    Luo et al. 2025; the released code does not clamp (P3).
    """
    return 1.0 + (sample_scales(sigma, levels, sizes) * noise).sum(dim=1)


def sample_scales(sigma: Tensor, levels: Tensor, sizes: list[int]) -> Tensor:
    """Noise scale of each sample and attribute, float64 [N, A]."""
    starts = torch.tensor([0, *np.cumsum(sizes)[:-1]])
    return sigma[levels + starts]


def clamp_with_unit_mean(weights: Tensor, scales: Tensor) -> Tensor:
    """``max(w, 0)`` divided by its expectation, so that E[w] = 1 for every sigma (P3 corrected).

    With s_i^2 = sum_a sigma_a^2, ``E max(0, 1 + s z) = Phi(1/s) + s phi(1/s)``.

    Parameters
    ----------
    weights : float64 [N]
    scales : float64 [N, A]

    Returns
    -------
    float64 [N]
    """
    spread = scales.square().sum(dim=1).sqrt().clamp_min(1e-12)
    level = 1.0 / spread
    density = torch.exp(-0.5 * level.square()) / math.sqrt(2.0 * math.pi)
    mean = torch.special.ndtr(level) + spread * density
    clamped: Tensor = weights.clamp_min(0.0) / mean
    return clamped


def loss_gap(
    losses: Tensor, levels: Tensor, attributes: Attributes, missing_group: str = "as_released"
) -> float:
    """Objective ``y = - sum_a (max_level - min_level)`` of the group-mean losses.

    Parameters
    ----------
    losses, levels, attributes
        As in :func:`group_means`.
    missing_group : str
        What an attribute with an absent level contributes: 0 ("as_released", P1: the best value
        there is), or the mean of the attributes that have all levels ("corrected").

    Returns
    -------
    float
        NaN if corrected and every attribute lacks a level.
    """
    gaps = [float(m.max() - m.min()) for m in group_means(losses, levels, attributes)]
    seen = [gap for gap in gaps if gap == gap]
    if missing_group == "as_released":
        return -sum(seen)
    return -len(gaps) * sum(seen) / len(seen) if seen else float("nan")


class Mitigation:
    """A training method; this one, ``none``, changes nothing.

    Parameters
    ----------
    config : MitigationConfig
    attributes : mapping
        Attribute name to level names.
    seed : int
        Of the method's own draws.
    steps_per_epoch : int
        Optimiser steps in one pass over the training split.
    """

    name = "none"

    def __init__(
        self, config: MitigationConfig, attributes: Attributes, seed: int, steps_per_epoch: int = 1
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
        self.seed = seed
        self.steps_per_epoch = max(1, steps_per_epoch)

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        """Change the pipeline or look at the training cohort before training; nothing here."""

    def sampling_weights(self, cohort: Any) -> np.ndarray | None:
        """Sampling weight of each training row, float64 [N]; None = each row once per epoch."""
        return None

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

    def observe(self, losses: Tensor, levels: Tensor, step: int) -> dict[str, float]:
        """See the unweighted losses of the whole batch after its update.

        Returns
        -------
        dict
            Scalars for the history, as ``objective`` or ``acquisition``.
        """
        return {"objective": loss_gap(losses, levels, self.attributes)}

    def scales(self) -> Tensor | None:
        """Current noise scale per level, float64 [G], or None where there is none."""
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


class RandomPerturbation(Mitigation):
    """The released control: ``w = 1 + sum_a eps_a``, sigma = 1 everywhere and no optimiser."""

    name = "random"

    def __init__(
        self, config: MitigationConfig, attributes: Attributes, seed: int, steps_per_epoch: int = 1
    ) -> None:
        super().__init__(config, attributes, seed, steps_per_epoch)
        self.sigma = torch.full((sum(self.sizes),), 1.0, dtype=torch.float64)
        self._draws = (-1, 0)  # step, number of draws made in it

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        """See :meth:`Mitigation.weights`; the noise is fresh per sample and attribute."""
        count = self._draws[1] + 1 if self._draws[0] == step else 0
        self._draws = (step, count)
        generator = generator_for(self.seed, "perturbation", step, count)
        noise = torch.randn(levels.shape, generator=generator, dtype=torch.float64)
        weights = perturbation_weights(self.sigma, noise, levels, self.sizes)
        if self.config.clamp == "corrected":
            weights = clamp_with_unit_mean(weights, sample_scales(self.sigma, levels, self.sizes))
        return weights

    def scales(self) -> Tensor:
        """Current noise scale per level, float64 [G]."""
        return self.sigma


class FairBayesianPerturbation(RandomPerturbation):
    """Fair Bayesian Perturbation (Luo et al. 2025) as released, with named departures.

    Each step stores (sigma, y); each ``time_window`` steps a Gaussian process is fitted to the
    window and sigma becomes the maximiser of its upper confidence bound; after every step sigma
    drifts towards uniform noise.
    """

    name = "fairdiffusion"

    def __init__(
        self, config: MitigationConfig, attributes: Attributes, seed: int, steps_per_epoch: int = 1
    ) -> None:
        super().__init__(config, attributes, seed, steps_per_epoch)
        self.sigma = torch.full_like(self.sigma, config.sigma_initial)
        self.tried: list[list[float]] = []
        self.scores: list[float] = []
        self._drift(-1)  # once before the first use, as released

    def observe(self, losses: Tensor, levels: Tensor, step: int) -> dict[str, float]:
        """See :meth:`Mitigation.observe`; fits the optimiser when its window is full."""
        score = loss_gap(losses, levels, self.attributes, self.config.missing_group)
        seen = {"objective": score}
        if np.isfinite(score):
            self.tried.append(self.sigma.tolist())
            self.scores.append(score)
        count = step if self.config.window_count == "corrected" else step % self.steps_per_epoch
        if (count + 1) % self.config.time_window == 0:
            seen |= self._choose(step)
            self.tried, self.scores = [], []
        self._drift(step)
        return seen

    def _choose(self, step: int) -> dict[str, float]:
        """Set sigma to the optimiser's candidate; an unusable window leaves it as it is."""
        started = time.perf_counter()
        if len(self.scores) < 2:
            return {"optimiser_seconds": 0.0, "acquisition": float("nan")}
        seed = int(torch.randint(2**31, (1,), generator=generator_for(self.seed, "botorch", step)))
        candidate, value = next_sigma(
            torch.tensor(self.tried, dtype=torch.float64),
            torch.tensor(self.scores, dtype=torch.float64),
            self.config,
            seed,
        )
        if candidate is not None:
            self.sigma = candidate
        return {"optimiser_seconds": time.perf_counter() - started, "acquisition": value}

    def _drift(self, step: int) -> None:
        """``sigma <- rate sigma + (1 - rate) U(low, high)`` (P4)."""
        if self.config.drift == "corrected":
            return
        low, high = self.config.sigma_low, self.config.sigma_high
        generator = generator_for(self.seed, "drift", step)
        uniform = torch.rand(len(self.sigma), generator=generator, dtype=torch.float64)
        rate = self.config.exploitation_rate
        self.sigma = rate * self.sigma + (1.0 - rate) * (low + (high - low) * uniform)

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint; JSON-ready, floats kept exactly."""
        state = {"sigma": self.sigma.tolist(), "tried": self.tried, "scores": self.scores}
        return super().state_dict() | state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Mitigation.load_state_dict`."""
        super().load_state_dict(state)
        self.sigma = torch.tensor(state["sigma"], dtype=torch.float64)
        self.tried, self.scores = list(state["tried"]), list(state["scores"])


def next_sigma(
    tried: Tensor, scores: Tensor, config: MitigationConfig, seed: int
) -> tuple[Tensor | None, float]:
    """One step of Bayesian optimisation with botorch, as released.

    SingleTaskGP, upper confidence bound, one candidate.

    Parameters
    ----------
    tried : float64 [n, G]
        Sigmas of the window.
    scores : float64 [n]
        Their objective; larger is better.
    config : MitigationConfig
        Bounds, beta, restarts, raw samples.
    seed : int
        Of the acquisition optimiser's start points.

    Returns
    -------
    sigma : float64 [G] or None
        None where the process could not be fitted.
    value : float
        Acquisition at sigma, in the units of the objective; NaN with None.
    """
    from botorch.acquisition import UpperConfidenceBound
    from botorch.exceptions import BotorchError, BotorchWarning
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from linear_operator.utils.errors import NotPSDError

    bounds = torch.tensor([[config.sigma_low], [config.sigma_high]], dtype=torch.float64)
    bounds = bounds.repeat(1, tried.shape[1])
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # constant or duplicated windows make botorch and scipy warn; both are expected here
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        torch.manual_seed(seed)
        try:
            process = SingleTaskGP(tried, scores[:, None])
            fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
            candidate, value = optimize_acqf(
                UpperConfidenceBound(process, beta=config.ucb_beta),
                bounds=bounds,
                q=1,
                num_restarts=config.restarts,
                raw_samples=config.raw_samples,
            )
        except (BotorchError, NotPSDError, ValueError):
            return None, float("nan")
    return candidate[0].detach(), float(value)


METHODS: dict[str, type[Mitigation]] = {
    cls.name: cls for cls in (Mitigation, RandomPerturbation, FairBayesianPerturbation)
}


def make_mitigation(
    name: str, config: MitigationConfig, attributes: Attributes, seed: int, steps_per_epoch: int
) -> Mitigation:
    """A method by name.

    Raises
    ------
    InputError
        The method does not exist, or an attribute has fewer than two levels.
    """
    refuse_unknown("method", name, METHODS)
    return METHODS[name](config, attributes, seed, steps_per_epoch)
