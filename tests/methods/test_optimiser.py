"""The optimiser: proven on surfaces whose optimum is known, and alive on odd windows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from benchmarks.optimiser import SimulatedGap, optimiser_benchmark, regret_table
from fairdiff_lib.datasets import load_settings
from fairdiff_lib.methods.optimiser import SigmaPath, fit_process, next_sigma, successive_noise
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import P_CORRECTED
from fairdiff_lib.settings.options import MitigationConfig

CONFIG = MitigationConfig()
CORRECTED = replace(CONFIG, **P_CORRECTED)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- known surfaces --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def regret() -> pd.DataFrame:
    """Eight surfaces, 15 windows of 5 steps that act almost at once."""
    config = replace(CONFIG, time_window=5, restarts=2, raw_samples=10)
    strategies = ("corrected", "random_search", "constant")
    return optimiser_benchmark(range(8), 15, strategies=strategies, config=config, rate=0.8)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["random_search", "constant"])
def test_corrected_beats_random_search_and_constant_sigma(other: str, regret: pd.DataFrame) -> None:
    """Paired over surfaces, in the regret of what each would keep after the last window."""
    last = regret[regret["quantity"] == "recommended"].pivot(
        index="seed", columns="strategy", values="regret"
    )
    assert len(last) == 8
    assert last["corrected"].mean() < last[other].mean() / 1.5, last
    assert stats.ttest_rel(last["corrected"], last[other], alternative="less").pvalue < 0.05


@pytest.mark.slow
def test_the_regret_table_pairs_strategies_by_surface(regret: pd.DataFrame) -> None:
    table = regret_table(regret).set_index(["strategy", "baseline", "quantity"])
    wide = regret[regret["quantity"] == "recommended"].pivot(
        index="seed", columns="strategy", values="regret"
    )
    gap = wide["corrected"] - wide["constant"]
    row = table.loc[("corrected", "constant", "recommended")]
    assert (row["n"], row["value"]) == (8, pytest.approx(gap.mean()))
    assert row["p"] == pytest.approx(stats.ttest_rel(wide["corrected"], wide["constant"]).pvalue)
    assert row["high"] < 0 and np.isnan(table.loc[("corrected", "", "recommended"), "p"])


@pytest.mark.slow
def test_what_corrected_uses_improves_and_constant_does_not(regret: pd.DataFrame) -> None:
    used = regret[regret["quantity"] == "used"]
    means = used.groupby(["strategy", "window"])["regret"].mean().unstack("strategy")
    assert means["constant"].nunique() == 1
    assert means["corrected"].iloc[-5:].mean() < 0.7 * means["corrected"].iloc[1:5].mean()
    assert means["random_search"].iloc[-5:].mean() > means["constant"].mean()


def test_the_surface_is_zero_at_its_best_and_training_approaches_it() -> None:
    world = SimulatedGap(7, seed=3, rate=0.5)
    assert world.surface(world.best) == 0.0
    before = world.gap
    for _ in range(30):
        world.train(world.best)
    assert world.gap < 1e-6 * before


def test_a_benchmark_is_tidy_and_repeats() -> None:
    config = replace(CONFIG, time_window=4, initial_points=2)
    tables = [optimiser_benchmark([1], 3, config=config) for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)
    assert list(tables[0].columns) == ["strategy", "seed", "window", "quantity", "regret"]
    assert len(tables[0]) == 4 * (3 + 1)
    assert (tables[0]["regret"] >= 0).all()


# -- one step --------------------------------------------------------------------------------


def test_the_surrogate_finds_the_better_half_of_a_known_surface() -> None:
    """On y = -sum(sigma), told without noise, the candidate beats the best of the window."""
    tried = draw(30, 7)
    best, value = next_sigma(tried, -tried.sum(dim=1), CONFIG, seed=0)
    assert best is not None and math.isfinite(value) and best.dtype == torch.float64
    assert float(best.sum()) < float(tried.sum(dim=1).min())


WINDOWS = {
    "constant": (draw(6, 7), torch.zeros(6)),
    "duplicates": (draw(1, 7).repeat(6, 1), draw(6)),
    "duplicates of a constant": (torch.full((6, 7), 0.5), torch.ones(6)),
    "two samples": (draw(2, 7), draw(2)),
    "huge": (draw(6, 7), 1e12 * draw(6)),
}


@pytest.mark.parametrize("noise_model", ["inferred", "known"])
@pytest.mark.parametrize("case", sorted(WINDOWS))
def test_odd_windows_survive(case: str, noise_model: str) -> None:
    tried, scores = WINDOWS[case]
    config = replace(CONFIG, noise_model=noise_model)
    sigma, _ = next_sigma(tried.double(), scores.double(), config, seed=0)
    assert sigma is None or bool(((sigma >= 0) & (sigma <= 1)).all())


def test_scores_that_are_no_numbers_are_left_out() -> None:
    tried = draw(12, 7)
    scores = -tried.sum(dim=1)
    spoilt = torch.cat([scores, torch.tensor([math.nan, math.inf], dtype=torch.float64)])
    more = torch.cat([tried, draw(2, 7, seed=1)])
    clean, dirty = next_sigma(tried, scores, CONFIG, 0)[0], next_sigma(more, spoilt, CONFIG, 0)[0]
    assert clean is not None and dirty is not None and torch.equal(clean, dirty)
    for n in (0, 1):
        assert next_sigma(tried[:n], scores[:n], CONFIG, 0)[0] is None
    assert next_sigma(tried, torch.full((12,), math.nan).double(), CONFIG, 0)[0] is None


def test_single_precision_is_raised_to_double() -> None:
    tried = draw(12, 7)
    process = fit_process(tried, -tried.sum(dim=1))
    assert all(p.dtype == torch.float64 for p in process.parameters())
    sigma, _ = next_sigma(tried.float(), -tried.float().sum(dim=1), CONFIG, 0)
    assert sigma is not None and sigma.dtype == torch.float64


def test_known_noise_is_that_of_successive_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    trend = torch.linspace(0, 5, 4000, dtype=torch.float64)  # its own variance is 2
    noise = 0.3 * torch.randn(4000, generator=generator, dtype=torch.float64)
    assert successive_noise(trend + noise) == pytest.approx(0.09, rel=0.1)
    assert successive_noise(torch.ones(5, dtype=torch.float64)) > 0.0


def test_the_random_state_and_the_threads_are_left_alone() -> None:
    torch.manual_seed(5)
    wanted, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    next_sigma(draw(6, 7), draw(6), CONFIG, 0)
    assert torch.equal(torch.rand(3), wanted) and torch.get_num_threads() == threads


# -- the loop around it ----------------------------------------------------------------------


def test_a_window_of_one_step_forgets_as_released() -> None:
    path = SigmaPath(7, replace(CONFIG, time_window=1, drift="corrected"), 0)
    for step in range(3):
        path.advance(-1.0, step)
    assert path.sigma.tolist() == [1.0] * 7  # one pair says nothing


def test_corrected_scores_a_sigma_by_what_came_after_it() -> None:
    """P8: the pair is (sigma of the window, score when it ended)."""
    config = replace(CORRECTED, time_window=3, initial_points=3, sigma_initial=0.5)
    path, asked = SigmaPath(7, config, 0), []

    def measure() -> float:
        asked.append(path.sigma.tolist())
        return -float(len(asked))

    for step in range(9):
        seen = path.advance(0.123, step, measure)
        assert ("acquisition" in seen) == (step % 3 == 2)
    assert path.tried == [pytest.approx(sigma, abs=1e-12) for sigma in asked]
    assert path.scores == [-1.0, -2.0, -3.0]
    assert asked[0] == [0.5] * 7 and asked[1] != asked[0] and asked[2] != asked[1]


def test_as_released_pairs_each_step_with_the_sigma_in_use() -> None:
    path, used = SigmaPath(7, replace(CONFIG, time_window=99), 0), []
    for step in range(4):
        used.append(path.sigma.tolist())
        path.advance(float(step), step)
    assert path.tried == used and path.scores == [0.0, 1.0, 2.0, 3.0]


def test_history_is_kept_or_cleared() -> None:
    for history, kept in (("window", 0), ("all", 6)):
        path = SigmaPath(7, replace(CONFIG, time_window=3, history=history), 0)
        for step in range(6):
            path.advance(float(draw(1, seed=step)), step)
        assert len(path.scores) == kept


def test_ranks_differ_as_released_only() -> None:
    for ranks, same in (("corrected", True), ("as_released", False)):
        config = replace(CONFIG, time_window=3, ranks=ranks)
        paths = [SigmaPath(7, config, 0, rank=rank) for rank in (0, 1)]
        for step in range(6):
            for path in paths:
                path.advance(float(draw(1, seed=step)), step)
        assert torch.equal(paths[0].sigma, paths[1].sigma) is same


def test_a_path_continues_exactly() -> None:
    config = replace(CORRECTED, time_window=2, initial_points=2)
    whole, first, second = (SigmaPath(7, config, 4) for _ in range(3))

    def go(path: SigmaPath, steps: range) -> None:
        for step in steps:
            path.advance(0.0, step, lambda step=step: float(draw(1, seed=step)))  # type: ignore[misc]

    go(whole, range(9))
    go(first, range(5))
    second.load_state_dict(first.state_dict())
    go(second, range(5, 9))
    assert second.sigma.tolist() == whole.sigma.tolist()
    np.testing.assert_array_equal(second.tried, whole.tried)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sigma_low": 1.0, "sigma_high": 0.0}, "sigma_low=1.0 must be below sigma_high=0.0"),
        ({"objective": "held_out"}, "expected history=all"),
        ({"objective": "best"}, "known: batch_gap, held_out, running_bins"),
        ({"reweighting": "median"}, "known: mean, noise"),
        ({"noise_model": "none"}, "known: inferred, known"),
        ({"sigma_initial": 2.0}, "sigma_initial=2.0: expected a value from"),
        ({"time_window": 0}, "time_window=0: expected at least 1"),
        ({"exploitation_rate": 1.5}, "exploitation_rate=1.5: expected at most 1"),
        ({"mean_range": 1.0}, "above 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        replace(CONFIG, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"methods": "none,fairdifusion"}, "unknown method 'fairdifusion'; known: .*fairdiffusion"),
        ({"methods": "none,febs", "mitigation.time_window": 99}, "longer than the run"),
        ({"generation.weights": "best"}, "known: ema, raw"),
        ({"methods": "none,none_matched_lr"}, "methods lacks fairdiffusion"),
        ({"methods": "fairdiffusion,replay"}, "seeds=0, expected at least two"),
    ],
)
def test_studies_that_cannot_be_are_refused(overrides: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_settings("smoke", overrides=overrides)
    assert "\n" not in str(caught.value)
