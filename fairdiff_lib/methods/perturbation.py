"""Fair Bayesian Perturbation, as released and corrected, and the released control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fairdiff_lib.methods.base import Mitigation, register
from fairdiff_lib.methods.groups import (
    Attributes,
    RunningMeans,
    balanced_rows,
    group_means,
    loss_gap,
    positions,
    summed_gap,
)
from fairdiff_lib.methods.optimiser import SigmaPath
from fairdiff_lib.model.loss import denoising_losses_at, generator_for
from fairdiff_lib.model.pipeline import mean_latents
from fairdiff_lib.settings.methods import CORRECTED
from fairdiff_lib.settings.options import MitigationConfig

# -- weights ---------------------------------------------------------------------------------


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
    return sigma[positions(levels, sizes)]


def clamp_with_unit_mean(weights: Tensor, scales: Tensor) -> Tensor:
    """``max(w, 0)`` divided by its expectation, so that E[w] = 1 for every sigma (P3 corrected).

    With s_i^2 = sum_a sigma_a^2, ``E max(0, 1 + s z) = Phi(1/s) + s phi(1/s)``. Weights are float64
    [N], scales [N, A].
    """
    spread = scales.square().sum(dim=1).sqrt().clamp_min(1e-12)
    level = 1.0 / spread
    density = torch.exp(-0.5 * level.square()) / math.sqrt(2.0 * math.pi)
    mean = torch.special.ndtr(level) + spread * density
    clamped: Tensor = weights.clamp_min(0.0) / mean
    return clamped


def multipliers(sigma: Tensor, levels: Tensor, sizes: list[int], range_: float) -> Tensor:
    """Unnormalised mean weights ``prod_a range^(2 sigma[a, level_a(i)] - 1)``, float64 [N] (P2)."""
    powers = (2.0 * sample_scales(sigma, levels, sizes) - 1.0).sum(dim=1)
    return torch.exp(math.log(range_) * powers)


# -- perturbations ---------------------------------------------------------------------------


@register("random")
class RandomPerturbation(Mitigation):
    """The released control: ``w = 1 + sum_a eps_a``, sigma = 1 everywhere and no optimiser."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sigma = torch.full((sum(self.sizes),), 1.0, dtype=torch.float64)
        self._draws = (-1, 0)  # step, number of draws made in it

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        """The noise is fresh per sample and attribute."""
        noise = self.noise(levels, step)
        weights = perturbation_weights(self.sigma, noise, levels, self.sizes)
        if self.config.clamp == CORRECTED:
            weights = clamp_with_unit_mean(weights, sample_scales(self.sigma, levels, self.sizes))
        return weights

    def noise(self, levels: Tensor, step: int) -> Tensor:
        """Standard normal float64 [N, A], new for each micro-batch of a step."""
        count = self._draws[1] + 1 if self._draws[0] == step else 0
        self._draws = (step, count)
        generator = generator_for(self.seed, "perturbation", step, count)
        return torch.randn(levels.shape, generator=generator, dtype=torch.float64)

    def scales(self) -> Tensor:
        return self.sigma


@register(*(f"fairdiffusion{kind}" for kind in ("", "_as_released", "_corrected", "_noise")))
class FairBayesianPerturbation(RandomPerturbation):
    """Fair Bayesian Perturbation (Luo et al. 2025); ``MitigationConfig`` explains its options."""

    path_class: type[SigmaPath] = SigmaPath
    kept = ("path", "running")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        own = self.config
        self.path = self.path_class(
            sum(self.sizes), own, self.seed, self.steps_per_epoch, self.rank
        )
        self.sigma = self.path.sigma
        self.running = RunningMeans(
            self.attributes, own.timestep_bins, decay=1.0 - 1.0 / own.time_window
        )
        self.held_out: HeldOut | None = None
        self.train_levels: Tensor | None = None

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        """Keep the training split's composition and, for held_out, some validation rows."""
        self.train_levels = torch.as_tensor(cohort.split("train").codes())
        if self.config.objective == "held_out":
            self.held_out = HeldOut(pipeline, cohort, self.attributes, self.config, self.seed)

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        """Without noise where sigma sets the mean (P2)."""
        if self.config.reweighting == "noise":
            return super().weights(losses, levels, step)
        if self.train_levels is None:
            raise RuntimeError("reweighting=mean needs prepare(pipeline, cohort) first")
        own = (self.sizes, self.config.mean_range)
        mean = multipliers(self.sigma, self.train_levels, *own).mean()
        return multipliers(self.sigma, levels, *own) / mean

    def observe(
        self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
    ) -> dict[str, float]:
        """Fits the optimiser when its window is full."""
        if self.config.objective == "running_bins":
            self.running.add(losses, levels, timesteps)
        measure = {"running_bins": self._running_gap, "held_out": self._held_out_gap}.get(
            self.config.objective
        )
        score = loss_gap(losses, levels, self.attributes, self.config.missing_group)
        self.path.agree = self.agree
        seen = self.path.advance(score, step, measure)
        self.sigma = self.path.sigma
        return seen

    def _running_gap(self) -> float:
        return summed_gap(self.running.means(), self.config.missing_group)

    def _held_out_gap(self) -> float:
        if self.held_out is None:
            raise RuntimeError("objective=held_out needs prepare(pipeline, cohort) first")
        return self.held_out.gap(self.config.missing_group)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.sigma = self.path.sigma


class HeldOut:
    """The loss gap on validation rows at fixed timesteps and noise (P6 and P8 corrected).

    The pipeline's U-Net is measured as it is when :meth:`gap` is called. The rows are drawn from
    the validation split alone, rare levels first; the seed chooses them and their noise.
    """

    def __init__(
        self,
        pipeline: Any,
        cohort: Any,
        attributes: Attributes,
        config: MitigationConfig,
        seed: int,
    ) -> None:
        val = cohort.split("val")
        sizes = [len(names) for names in attributes.values()]
        codes = torch.as_tensor(val.codes())
        self.rows = balanced_rows(codes, sizes, config.held_out_rows, seed).numpy()
        size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        self.names = val.take(self.rows).table["image"].tolist()
        self.prompts = val.take(self.rows).table["prompt"].tolist()
        self.levels = codes[self.rows]
        self.latents = mean_latents(pipeline, val.load_images(size, self.rows))
        self.pipeline, self.attributes, self.seed = pipeline, attributes, seed
        self.timesteps = config.held_out_timesteps

    def losses(self) -> Tensor:
        """Mean loss of each row over the timesteps, float64 [n]."""
        return denoising_losses_at(
            self.pipeline, self.latents, self.prompts, self.names, self.timesteps, self.seed
        ).mean(dim=1)

    def gap(self, missing_group: str) -> float:
        """``- sum_a (max_level - min_level)`` of the group means, larger is fairer."""
        return summed_gap(group_means(self.losses(), self.levels, self.attributes), missing_group)
