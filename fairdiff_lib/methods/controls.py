"""Controls: what is left of Fair Bayesian Perturbation when one part of it is taken away.

Each answers one question. The Bayesian part matters only if the method beats ``shuffled_y``, which
is the same but for what the optimiser is told; the choice of groups matters only if it beats
``group_blind_noise``; perturbing at all matters only if it beats ``none_matched_lr``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fairdiff_lib.methods.base import Mitigation, register
from fairdiff_lib.methods.groups import level_counts
from fairdiff_lib.methods.optimiser import SigmaPath
from fairdiff_lib.methods.perturbation import FairBayesianPerturbation, RandomPerturbation
from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.settings.errors import InputError


@register("none_matched_lr")
class MatchedLearningRate(Mitigation):
    """The baseline at the learning rate that the perturbation amounts to.

    Weights with E[w] = 1 leave the expected gradient alone, but Adam divides by the root of a
    second moment that Var(w) inflates, and clipping shrinks longer gradients (P2). The part of an
    update that is no noise, the drift, is therefore smaller by the mean over the logged steps of
    :func:`drift_ratio`, measured in the finished runs of the same seed. The learning rate is
    multiplied by it (and with it AdamW's decay).
    """

    ratio = float("nan")

    def read_sources(self, runs: Mapping[str, pd.DataFrame]) -> None:
        ratios = drift_ratio(runs["fairdiffusion"], runs["none"], ("fairdiffusion", "none"))
        self.ratio = float(ratios.mean())

    def learning_rate_factor(self, step: int) -> float:
        return self.ratio


def drift_ratio(
    history: pd.DataFrame, baseline: pd.DataFrame, names: tuple[str, str] = ("run", "baseline")
) -> pd.Series[float]:
    """``[(c_t / s_t) of a run] / [(c_t / s_t) of its baseline]``, by step that both have logged.

    c_t is the factor that clipping leaves of the gradient, s_t the mean over the parameters of
    Adam's ``sqrt(v / (1 - beta2^t))``. The histories are of two runs of the same seed; ``names``
    are for messages.
    """
    ratios = (_reach(history, names[0]) / _reach(baseline, names[1])).dropna()
    if ratios.empty:
        raise InputError(f"the runs of {names[0]} and {names[1]} share no logged step")
    return ratios


def _reach(history: pd.DataFrame, name: str) -> pd.Series[float]:
    """Clip factor over Adam's scale, by step."""
    whole = history[history["attribute"].fillna("") == ""]
    table = whole.pivot_table(index="step", columns="quantity", values="value")
    if "second_moment" not in table:
        raise InputError(
            f"run of {name}: its history has no second_moment; remove the run and train it again"
        )
    reach: pd.Series[float] = table.get("clip_factor", 1.0) / table["second_moment"]
    return reach


class FixedSigma(FairBayesianPerturbation):
    """A perturbation whose sigma is given and stays: a dose, for measurements.

    No optimiser is asked, whatever ``config.objective`` says; ``config.reweighting`` and
    ``config.clamp`` say what sigma does.
    """

    name = "fixed_sigma"

    def hold(self, sigma: Tensor) -> FixedSigma:
        """Use this sigma from now on, float64 [G]; returns itself."""
        if sigma.shape != (sum(self.sizes),):
            raise InputError(
                f"sigma has {sigma.numel()} value(s); expected {sum(self.sizes)}, one per level"
            )
        self.sigma = sigma.double()
        return self

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        """Keep the training split's composition; nothing is held out."""
        self.train_levels = torch.as_tensor(cohort.split("train").codes())

    def observe(
        self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
    ) -> dict[str, float]:
        return Mitigation.observe(self, losses, levels, step, timesteps)


class PathFollower(RandomPerturbation):
    """A perturbation whose sigma is made from the path of a finished run of FairDiffusion."""

    followed: Tensor  # float64 [steps, G]

    def read_sources(self, runs: Mapping[str, pd.DataFrame]) -> None:
        """Keep the source's sigma of every step."""
        if self.config.reweighting != "noise":
            raise InputError(
                f"method {self.name}: a control of noise; its source has "
                f"mitigation.reweighting={self.config.reweighting}, expected noise"
            )
        self.followed = sigma_path(runs["fairdiffusion"], self.attributes)

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        self.sigma = self.sigma_at(step)
        return super().weights(losses, levels, step)

    def sigma_at(self, step: int) -> Tensor:
        """Sigma of a step, float64 [G]."""
        if step >= len(self.followed):
            raise InputError(
                f"method {self.name}: its source ran for {len(self.followed)} steps; expected "
                f"more than {step}"
            )
        return self.followed[step]


def sigma_path(history: pd.DataFrame, attributes: Mapping[str, tuple[str, ...]]) -> Tensor:
    """Sigma of every step of a run, float64 [steps, G], from its history."""
    own = history[history["quantity"] == "sigma"]
    table = own.pivot_table(index="step", columns=["attribute", "level"], values="value")
    wanted = [(name, level) for name, levels in attributes.items() for level in levels]
    missing = [pair for pair in wanted if pair not in table.columns]
    if missing or table.index.tolist() != list(range(1, len(table) + 1)):
        what = f"{missing[0][0]} {missing[0][1]!r}" if missing else "every step"
        raise InputError(
            f"a run's history has no sigma of {what}; remove that run and train it again"
        )
    return torch.tensor(table[wanted].to_numpy(dtype=np.float64))


@register("replay")
class ReplayedSigma(PathFollower):
    """The sigmas of another seed's run: a path as real as the method's own, but of other data."""


@register("constant_sigma")
class ConstantSigma(PathFollower):
    """Each level's sigma stays as it is all along: no optimiser, no path, the same dose.

    Its square is the mean square of that level's sigma over the whole paired run, so that the
    weights have the same variance on average.
    """

    def sigma_at(self, step: int) -> Tensor:
        return self.followed.square().mean(dim=0).sqrt()


@register("random_sigma")
class RandomSigma(PathFollower):
    """Dose-matched random sigma: no optimiser, no drift, as much noise.

    In each window every level's sigma is drawn anew from the beta distribution that has the mean
    and the variance of that level's sigma over the whole paired run. (The released control,
    ``random``, keeps sigma at 1, where the method's own sits near 0.5: P10.)
    """

    shapes: tuple[np.ndarray, np.ndarray]  # alpha and beta of each level's distribution, [G]

    def read_sources(self, runs: Mapping[str, pd.DataFrame]) -> None:
        """Match the distributions to the source's path, by moments."""
        super().read_sources(runs)
        low, high = self.config.sigma_low, self.config.sigma_high
        path = ((self.followed - low) / (high - low)).clamp(1e-6, 1 - 1e-6).numpy()
        mean = path.mean(axis=0)
        size = mean * (1 - mean) / np.maximum(path.var(axis=0), 1e-9) - 1.0
        self.shapes = mean * size, (1 - mean) * size

    def sigma_at(self, step: int) -> Tensor:
        """One draw per window, float64 [G]."""
        low, high = self.config.sigma_low, self.config.sigma_high
        seed = generator_for(self.seed, "random sigma", step // self.config.time_window)
        drawn = np.random.default_rng(seed.initial_seed()).beta(*self.shapes)
        return torch.tensor(low + (high - low) * drawn)


@register("group_blind_noise")
class GroupBlindNoise(PathFollower):
    """Noise of the paired run's variance in each step, the same for every group.

    ``w_i = 1 + sum_a s_t eps_a`` with ``A s_t^2`` the mean over levels, weighted by their share of
    the training split, of the paired run's ``sum_a sigma_a^2`` at that step.
    """

    shares: Tensor  # float64 [G], of the training rows; sums to A

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        """Keep the levels' shares of the training split."""
        levels = torch.as_tensor(cohort.split("train").codes())
        self.shares = level_counts(levels, self.sizes) / len(levels)

    def sigma_at(self, step: int) -> Tensor:
        """The same value for all levels, float64 [G]."""
        variance = (self.shares * super().sigma_at(step).square()).sum()
        return torch.full_like(self.sigma, float((variance / len(self.sizes)).sqrt()))


class _ShuffledPath(SigmaPath):
    """A path whose optimiser is told each score with another's sigma."""

    def told(self, step: int) -> list[float]:
        generator = generator_for(self.seed, "shuffle", step)
        order = torch.randperm(len(self.scores), generator=generator)
        return [self.scores[row] for row in order.tolist()]


@register("shuffled_y", "shuffled_y_corrected")
class ShuffledScores(FairBayesianPerturbation):
    """The method itself, its optimiser fed the window's scores in random order.

    Bounds, windows, drift and the distribution of the scores are the method's; only the link
    between a sigma and its score is gone.
    """

    path_class = _ShuffledPath
