"""The optimiser on known surfaces: simulated loss gaps whose best sigma is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from fairdiff_lib.audit.seeds import t_interval
from fairdiff_lib.methods.optimiser import SigmaPath
from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.settings.methods import CORRECTED, P_AS_RELEASED, P_CORRECTED
from fairdiff_lib.settings.options import MitigationConfig

FRESH = 1000  # first seed of the surfaces that are measured; the tests' are below


class SimulatedGap:
    """A simulated loss gap with a known best sigma, which training approaches with a delay.

    ``surface(sigma) = sum_j c_j (sigma_j - o_j)^2`` with weights c (sum 1) and optimum o drawn
    from the seed; the gap moves to the surface's value by ``rate`` of the difference per step.

    Parameters
    ----------
    size : int
        Dimensions.
    seed : int
    rate : float
        Per step, in (0, 1].
    """

    def __init__(self, size: int, seed: int, rate: float = 0.15) -> None:
        generator = generator_for(seed, "surface")
        self.best = torch.rand(size, generator=generator, dtype=torch.float64)
        weights = torch.rand(size, generator=generator, dtype=torch.float64) + 0.2
        self.weights = weights / weights.sum()
        self.rate, self.gap = rate, self.surface(torch.full_like(self.best, 0.5))

    def surface(self, sigma: Tensor) -> float:
        """Gap that a constant sigma leads to; 0 at the best one."""
        return float((self.weights * (sigma - self.best).square()).sum())

    def train(self, sigma: Tensor) -> None:
        """One step with a sigma."""
        self.gap += self.rate * (self.surface(sigma) - self.gap)


STRATEGIES = ("corrected", "as_released", "random_search", "constant")


def optimiser_benchmark(
    seeds: Sequence[int],
    windows: int = 30,
    *,
    strategies: Sequence[str] = STRATEGIES,
    config: MitigationConfig | None = None,
    size: int = 7,
    batch_noise: float = 0.1,
    held_out_noise: float = 0.01,
    rate: float = 0.15,
) -> pd.DataFrame:
    """Regret of strategies on :class:`SimulatedGap`; everything here is simulated.

    ``corrected`` and ``as_released`` are :class:`SigmaPath` with all options at those values. The
    released form sees, at each step, the gap before its sigma has acted, with the noise of a
    batch; ``corrected`` and ``random_search`` see the gap when the window ends, with the noise of
    a held-out measurement. ``constant`` keeps the middle of the bounds, the best guess without
    data.

    Parameters
    ----------
    seeds : sequence of int
        One surface each, the same for every strategy.
    windows : int
    strategies : sequence of str
    config : MitigationConfig, optional
        Bounds, window and optimiser settings.
    size : int
        Dimensions.
    batch_noise, held_out_noise : float
        Standard deviations, in units of the gap (its range is about 0 to 0.4).
    rate : float
        See :class:`SimulatedGap`.

    Returns
    -------
    DataFrame
        strategy, seed, window (from 1), quantity, regret. ``used``: of the sigma in each window;
        ``recommended``: of what the strategy would keep after the last one. That is the posterior
        mean's best (corrected), the best-scored (random search), or the one in use.
    """
    base = config or MitigationConfig()
    rows = []
    for seed in seeds:
        for strategy in strategies:
            world = SimulatedGap(size, seed, rate)
            noise = generator_for(seed, "noise", strategy)
            player = _player(strategy, base, size, seed)
            for window in range(windows):
                used = _play_window(player, world, window, noise, batch_noise, held_out_noise)
                rows.append((strategy, seed, window + 1, "used", used))
            best = world.surface(player.recommend())
            rows.append((strategy, seed, windows, "recommended", best))
    return pd.DataFrame(rows, columns=["strategy", "seed", "window", "quantity", "regret"])


def regret_table(benchmark: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Mean regret of every strategy over surfaces, and its paired difference from the others.

    Parameters
    ----------
    benchmark : DataFrame
        From :func:`optimiser_benchmark`.
    confidence : float

    Returns
    -------
    DataFrame
        strategy, baseline (empty for a strategy's own mean), quantity (``used`` over all windows,
        ``used_late`` over the last fifth, ``recommended``), n (surfaces), value, low, high, p:
        t over surfaces, a surface each. Below 0 a strategy is better than its baseline.
    """
    last = int(benchmark["window"].max())
    used = benchmark[benchmark["quantity"] == "used"]
    kinds = {
        "used": used,
        "used_late": used[used["window"] > 0.8 * last],
        "recommended": benchmark[benchmark["quantity"] == "recommended"],
    }
    rows = []
    for quantity, own in kinds.items():
        wide = own.groupby(["seed", "strategy"])["regret"].mean().unstack("strategy")
        for strategy in wide.columns:
            rows.append({"strategy": strategy, "baseline": "", "quantity": quantity}
                        | _mean_of(wide[strategy], confidence))  # fmt: skip
            for other in (name for name in wide.columns if name != strategy):
                gap = _mean_of(wide[strategy] - wide[other], confidence)
                rows.append({"strategy": strategy, "baseline": other, "quantity": quantity} | gap)
    table = pd.DataFrame(rows)
    return table.assign(p=table["p"].where(table["baseline"] != ""))


def _mean_of(values: pd.Series[float], confidence: float) -> dict[str, float]:
    """Mean, its t-interval, and the p of a mean of zero."""
    mean, _, low, high = t_interval(np.asarray(values, dtype=np.float64), confidence)
    p = float(stats.ttest_1samp(values, 0.0).pvalue) if len(values) > 1 else float("nan")
    return {"n": len(values), "value": mean, "low": low, "high": high, "p": p}


def _player(strategy: str, base: MitigationConfig, size: int, seed: int) -> SigmaPath:
    if strategy == "as_released":
        # P9 apart: the released epochs are longer than the window
        config = replace(base, **dict(P_AS_RELEASED) | {"window_count": CORRECTED})
        return _Released(size, config, seed)
    kinds: dict[str, type[SigmaPath]] = {
        "corrected": SigmaPath,
        "random_search": _RandomSearch,
        "constant": _Constant,
    }
    middle = (base.sigma_low + base.sigma_high) / 2
    return kinds[strategy](size, replace(base, **dict(P_CORRECTED), sigma_initial=middle), seed)


def _play_window(
    player: SigmaPath,
    world: SimulatedGap,
    window: int,
    generator: torch.Generator,
    batch_noise: float,
    held_out_noise: float,
) -> float:
    """Train for one window; the mean regret of the sigmas in it."""

    def seen(noise: float) -> float:
        return -world.gap + noise * float(torch.randn(1, generator=generator))

    def measure() -> float:
        return seen(held_out_noise)

    length, regret = player.config.time_window, 0.0
    at_end = player.config.objective != "batch_gap"
    for step in range(window * length, (window + 1) * length):
        score = seen(batch_noise)  # of the same forward pass: before the update (P8)
        world.train(player.sigma)
        regret += world.surface(player.sigma) / length
        player.advance(score, step, measure if at_end else None)
    return regret


class _Released(SigmaPath):
    """Forgets each window, so that it can recommend only what it has."""

    def recommend(self) -> Tensor:
        return self.sigma


class _RandomSearch(SigmaPath):
    """Uniform sigma in each window."""

    def _first_guess(self, number: int) -> Tensor:
        return self.uniform("search", number)

    def propose(self, step: int) -> tuple[Tensor | None, float]:
        return self.uniform("search", len(self.scores)), float("nan")

    def recommend(self) -> Tensor:
        best = max(range(len(self.scores)), key=self.scores.__getitem__)
        return torch.tensor(self.tried[best], dtype=torch.float64)


class _Constant(SigmaPath):
    """The first sigma throughout."""

    def _first_guess(self, number: int) -> Tensor:
        return self.sigma

    def propose(self, step: int) -> tuple[Tensor | None, float]:
        return self.sigma, float("nan")

    def recommend(self) -> Tensor:
        return self.sigma


def regret_of(surfaces: int, windows: int) -> pd.DataFrame:
    """Regret of the optimiser's two forms on simulated surfaces that no test uses."""
    seeds = tqdm(range(FRESH, FRESH + surfaces), desc="surfaces", disable=None)
    return regret_table(pd.concat([optimiser_benchmark([seed], windows) for seed in seeds]))
