"""Fair Bayesian Perturbation: equal to the released code where it should be, and what it means."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairdiff_lib.methods.base import make_method
from fairdiff_lib.methods.groups import balanced_rows, group_means, loss_gap
from fairdiff_lib.methods.perturbation import (
    FairBayesianPerturbation,
    clamp_with_unit_mean,
    multipliers,
    perturbation_weights,
    sample_scales,
)
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import config_of
from fairdiff_lib.settings.options import MitigationConfig

ATTRIBUTES = {
    "race": ("Asian", "Black", "White"),
    "sex": ("Female", "Male"),
    "ethnicity": ("Non-Hispanic", "Hispanic"),
}
SIZES = [3, 2, 2]


def oracle_cases(shared: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((shared / "oracles/perturbation.json").read_text())
    return cases


def test_equal_to_the_released_code(shared: Path) -> None:
    cases = oracle_cases(shared)
    assert len(cases) == 2
    for case in cases:
        levels = torch.tensor(case["attributes"])
        loss = torch.tensor(case["loss"], dtype=torch.float64)
        sigma = torch.tensor(case["sigma"], dtype=torch.float64)
        noise = torch.tensor(case["eps"], dtype=torch.float64)
        weights = perturbation_weights(sigma, noise, levels, case["levels"])
        expected = case["expected"]
        np.testing.assert_allclose(weights.numpy(), expected["weights"], rtol=0, atol=1e-9)
        assert float((weights * loss).mean()) == pytest.approx(expected["weighted_loss"], abs=1e-9)
        objective = loss_gap(loss, levels, ATTRIBUTES)
        assert objective == pytest.approx(expected["objective_as_released"], abs=1e-9)


def test_an_absent_group_is_the_best_score_as_released_and_left_out_corrected() -> None:
    losses = torch.tensor([1.0, 3.0, 1.0, 1.5])
    complete = torch.tensor([[0, 0, 0], [1, 0, 1], [2, 1, 0], [2, 1, 1]])
    lacking = complete.clone()
    lacking[:, 0] = 2  # only White
    assert loss_gap(losses, lacking, ATTRIBUTES) > loss_gap(losses, complete, ATTRIBUTES)
    sex_gap, ethnicity_gap = 2.0 - 1.25, 2.25 - 1.0
    corrected = loss_gap(losses, lacking, ATTRIBUTES, "corrected")
    assert corrected == pytest.approx(-3 * (sex_gap + ethnicity_gap) / 2)


def test_group_means_are_nan_where_nobody_is() -> None:
    means = group_means(torch.tensor([1.0, 2.0]), torch.tensor([[0, 1, 0], [0, 1, 0]]), ATTRIBUTES)
    assert means[0][0] == 1.5
    assert math.isnan(means[0][1]) and math.isnan(means[1][0])


def test_zero_noise_is_the_baseline_exactly() -> None:
    levels = torch.tensor([[0, 1, 0], [2, 0, 1]])
    zero = torch.zeros(7, dtype=torch.float64)
    assert perturbation_weights(zero, torch.randn(2, 3).double(), levels, SIZES).tolist() == [1, 1]
    baseline = make_method("none", MitigationConfig(), ATTRIBUTES, 0, 10)
    assert baseline.weights(torch.rand(2), levels, 0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("scale", [0.3, 0.7, 1.0])
def test_expected_weight_is_one_released_and_clamped(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    n = 400_000
    levels = torch.zeros(n, 3, dtype=torch.int64)
    sigma = torch.full((7,), scale, dtype=torch.float64)
    noise = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    weights = perturbation_weights(sigma, noise, levels, SIZES)
    clamped = clamp_with_unit_mean(weights, sample_scales(sigma, levels, SIZES))
    assert float(weights.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(clamped.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(clamped.min()) >= 0.0
    if scale == 1.0:  # without the correction the clamp reweights: E max(w, 0) is above 1
        assert float(weights.clamp_min(0).mean()) > 1.2
        assert float((weights < 0).double().mean()) == pytest.approx(0.28, abs=0.01)  # P3


def run_steps(method: FairBayesianPerturbation, steps: range) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    acquisitions = []
    for step in steps:
        losses = torch.rand(16, generator=generator)
        levels = torch.stack([torch.arange(16) % size for size in SIZES], dim=1)
        method.weights(losses, levels, step)
        acquisitions.append(method.observe(losses, levels, step).get("acquisition", math.nan))
    return acquisitions


def fair(**options: Any) -> FairBayesianPerturbation:
    config = replace(MitigationConfig(time_window=5), **options)
    made = make_method("fairdiffusion", config, ATTRIBUTES, 3, 4)
    assert isinstance(made, FairBayesianPerturbation)
    return made


def test_optimiser_runs_once_per_window_and_stays_in_bounds() -> None:
    method = fair(drift="corrected", sigma_initial=0.5)
    seen = run_steps(method, range(10))
    assert [step for step, value in enumerate(seen) if math.isfinite(value)] == [4, 9]
    assert float(method.sigma.min()) >= 0.0 and float(method.sigma.max()) <= 1.0
    assert method.sigma.tolist() != [0.5] * 7


def test_a_window_counted_within_short_epochs_never_optimises() -> None:
    method = fair(window_count="as_released", drift="corrected")  # epochs of 4 steps, window 5
    assert not any(math.isfinite(value) for value in run_steps(method, range(20)))
    assert method.sigma.tolist() == [1.0] * 7


def test_drift_forgets_as_released() -> None:
    """After 30 drifts a sigma keeps 0.95^30 = 21% of itself; the rest is uniform noise."""
    finals = []
    for start in (0.0, 1.0):
        path = fair(time_window=10_000).path
        path.sigma = torch.full((7,), start, dtype=torch.float64)
        for step in range(30):
            path.drift(step)
        finals.append(path.sigma)
    kept = finals[1] - finals[0]
    np.testing.assert_allclose(kept.numpy(), 0.95**30, atol=1e-12)


def test_state_continues_exactly() -> None:
    whole, first, second = fair(), fair(), fair()
    run_steps(whole, range(12))
    run_steps(first, range(7))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        losses = torch.rand(16, generator=generator)
        levels = torch.stack([torch.arange(16) % size for size in SIZES], dim=1)
        if step >= 7:
            second.observe(losses, levels, step)
    assert second.sigma.tolist() == whole.sigma.tolist()


@pytest.mark.parametrize(
    ("name", "attributes", "words"),
    [
        ("fairdifusion", ATTRIBUTES, "known: adaptive_sampling, .*fairdiffusion, .*none, "),
        ("random", {"sex": ("Female",)}, "at least two"),
    ],
)
def test_bad_input_is_one_clear_line(name: str, attributes: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make_method(name, MitigationConfig(), attributes, 0, 10)
    assert "\n" not in str(caught.value)


def test_another_methods_state_is_refused() -> None:
    with pytest.raises(InputError, match=r"'none'.*'fairdiffusion'"):
        fair().load_state_dict({"name": "none"})


# -- options ---------------------------------------------------------------------------------


def train_levels() -> torch.Tensor:
    """A split of 200 rows with rare levels, [N, A]."""
    row = torch.arange(200)
    return torch.stack([(row % 11).clamp(max=2), row % 2, (row % 23 == 0).long()], dim=1)


class Rows:
    """A cohort that is nothing but its training codes."""

    def split(self, name: str) -> Rows:
        assert name == "train"
        return self

    def codes(self) -> np.ndarray:
        return train_levels().numpy()


def test_mean_weights_have_mean_one_over_the_split_and_follow_sigma() -> None:
    """P2 corrected: a larger sigma is a larger expected weight; released, it is none."""
    method = fair(reweighting="mean")
    method.prepare(None, Rows())
    levels = train_levels()
    equal = method.weights(torch.zeros(200), levels, 0)
    method.sigma = torch.full((7,), 0.3, dtype=torch.float64)
    np.testing.assert_allclose(method.weights(torch.zeros(200), levels, 0).numpy(), 1.0)
    method.sigma = torch.tensor([1.0, 0.5, 0.2, 0.5, 0.5, 0.0, 1.0], dtype=torch.float64)
    weights = method.weights(torch.zeros(200), levels, 0)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert float(equal.mean()) == pytest.approx(1.0)
    hispanic = levels[:, 2] == 1
    assert float(weights[hispanic].mean()) > 3 * float(weights[~hispanic].mean())
    ratio = multipliers(method.sigma, torch.tensor([[0, 0, 0], [1, 0, 0]]), SIZES, 2.0)
    assert float(ratio[0] / ratio[1]) == pytest.approx(2.0)  # sigma 1 against 0.5: one doubling


def test_noise_weights_leave_every_group_at_one_on_average() -> None:
    method = fair(drift="corrected")
    method.path.sigma = method.sigma = torch.tensor([1.0, 0, 0, 0.5, 0.5, 0, 1]).double()
    levels = train_levels()
    mean = torch.stack([method.weights(torch.zeros(200), levels, s) for s in range(4000)]).mean(0)
    for level in (0, 1):
        assert float(mean[levels[:, 2] == level].mean()) == pytest.approx(1.0, abs=0.02)


def test_running_bins_see_the_group_where_the_batch_gap_sees_the_timestep() -> None:
    """P6: losses that depend on t alone have no gap at fixed bins; a batch's own is large."""
    generator = torch.Generator().manual_seed(0)
    method = fair(objective="running_bins", history="all", time_window=60, timestep_bins=10)
    batch_gaps = []
    for step in range(59):
        levels = train_levels()[torch.randperm(200, generator=generator)[:32]]
        timesteps = torch.randint(1000, (32,), generator=generator)
        losses = (timesteps // 100).double() / 10
        batch_gaps.append(method.observe(losses, levels, step, timesteps)["objective"])
    assert float(np.mean(batch_gaps)) < -0.2
    assert method._running_gap() == pytest.approx(0.0, abs=1e-9)
    method.running.add(losses + (levels[:, 1] == 1), levels, timesteps)
    assert method._running_gap() < -0.001


def test_corrected_asks_for_every_correction() -> None:
    own = config_of("fairdiffusion_corrected", MitigationConfig())
    options = ("missing_group", "clamp", "drift", "window_count", "ranks")
    assert {getattr(own, name) for name in options} == {"corrected"}
    assert (own.reweighting, own.objective, own.history) == ("mean", "held_out", "all")
    released = config_of("fairdiffusion_as_released", own)
    assert {getattr(released, name) for name in options} == {"as_released"}
    assert (released.reweighting, released.objective) == ("noise", "batch_gap")


def test_held_out_rows_hold_the_rare_levels() -> None:
    levels = train_levels()
    rows = balanced_rows(levels, SIZES, 40, seed=0)
    assert len(rows) == 40 == len(set(rows.tolist()))
    rare = (levels[:, 2] == 1).sum()  # 9 of 200: chance would choose two
    assert int(rare) == 9 and int((levels[rows][:, 2] == 1).sum()) >= 5
    assert len(balanced_rows(levels, SIZES, 999, seed=0)) == 200
    assert rows.tolist() != balanced_rows(levels, SIZES, 40, seed=1).tolist()
