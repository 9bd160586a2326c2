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

from fairdiff_lib.config import InputError, MitigationConfig
from fairdiff_lib.perturbation import (
    METHODS,
    FairBayesianPerturbation,
    clamp_with_unit_mean,
    group_means,
    loss_gap,
    make_mitigation,
    next_sigma,
    perturbation_weights,
    sample_scales,
)

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
    baseline = make_mitigation("none", MitigationConfig(), ATTRIBUTES, 0, 10)
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
    made = make_mitigation("fairdiffusion", config, ATTRIBUTES, 3, 4)
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
        method = fair(time_window=10_000)
        method.sigma = torch.full((7,), start, dtype=torch.float64)
        for step in range(30):
            method._drift(step)
        finals.append(method.sigma)
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


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_answers_the_interface(name: str) -> None:
    method = make_mitigation(name, MitigationConfig(time_window=3), ATTRIBUTES, 0, 10)
    losses = torch.rand(12)
    levels = torch.stack([torch.arange(12) % size for size in SIZES], dim=1)
    weights = method.weights(losses, levels, 0)
    assert weights.shape == (12,) and bool(weights.isfinite().all())
    again = make_mitigation(name, MitigationConfig(time_window=3), ATTRIBUTES, 0, 10)
    assert again.weights(losses, levels, 0).tolist() == weights.tolist()  # same on every process
    assert method.observe(losses, levels, 0)["objective"] <= 0.0
    json.dumps(method.state_dict())


def test_surrogate_finds_the_better_half_of_a_known_surface() -> None:
    """On y = -sum(sigma), told without noise, the candidate beats the mean of the window."""
    generator = torch.Generator().manual_seed(0)
    tried = torch.rand(30, 7, generator=generator, dtype=torch.float64)
    best, value = next_sigma(tried, -tried.sum(dim=1), MitigationConfig(), seed=0)
    assert best is not None and math.isfinite(value)
    assert float(best.sum()) < float(tried.sum(dim=1).min())


def test_constant_and_duplicated_windows_survive() -> None:
    tried = torch.full((6, 7), 0.5, dtype=torch.float64)
    sigma, _ = next_sigma(tried, torch.zeros(6, dtype=torch.float64), MitigationConfig(), seed=0)
    assert sigma is None or bool(((sigma >= 0) & (sigma <= 1)).all())


@pytest.mark.parametrize(
    ("name", "attributes", "words"),
    [
        ("fairdifusion", ATTRIBUTES, "known: fairdiffusion, none, random"),
        ("random", {"sex": ("Female",)}, "at least two"),
    ],
)
def test_bad_input_is_one_clear_line(name: str, attributes: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make_mitigation(name, MitigationConfig(), attributes, 0, 10)
    assert "\n" not in str(caught.value)


def test_another_methods_state_is_refused() -> None:
    with pytest.raises(InputError, match=r"'none'.*'fairdiffusion'"):
        fair().load_state_dict({"name": "none"})
