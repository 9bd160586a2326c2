"""Probes of a checkpoint: planted causes of the batch gap are named; what gradients mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.methods.controls import FixedSigma
from fairdiff_lib.model.loss import training_scheduler
from fairdiff_lib.model.pipeline import build_pipeline, conditioning
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import MitigationConfig
from fairdiff_lib.studies.mechanism import gradients as probes
from fairdiff_lib.train.runs import DenoisingObjective

ATTRIBUTES = {"race": ("Asian", "Black"), "sex": ("Female", "Male")}
ROWS = 60


def levels() -> Tensor:
    """Unequal groups, so that a batch's composition matters."""
    generator = torch.Generator().manual_seed(0)
    race = torch.rand(ROWS, generator=generator) < 0.8
    sex = torch.rand(ROWS, generator=generator) < 0.3 + 0.4 * race
    return torch.stack([race, sex], dim=1).long()


@dataclass
class Planted:
    """Losses that are what the timestep, or the group, says."""

    of_timestep: float
    of_group: float
    codes: Tensor
    module: nn.Module = field(default_factory=lambda: nn.Linear(1, 1))
    timesteps: Tensor | None = None

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        self.timesteps = torch.randint(1000, (len(rows),), generator=generator)
        noise = 0.01 * torch.randn(len(rows), generator=generator)
        group = self.codes[rows].double() @ torch.tensor([1.0, 0.7], dtype=torch.float64)
        return self.of_timestep * (self.timesteps / 1000).square() + self.of_group * group + noise


def explained(of_timestep: float, of_group: float) -> pd.DataFrame:
    objective = cast(DenoisingObjective, Planted(of_timestep, of_group, levels()))
    sizes = probes.ProbeSizes(batches=80)
    names = [str(row) for row in range(ROWS)]
    probe = probes.Probe(objective, names, levels(), ATTRIBUTES, 16, sizes)
    return pd.DataFrame(probes.gap_rows(probe)).set_index("quantity")


def test_a_gap_of_timesteps_is_explained_by_them() -> None:
    rows = explained(1.0, 0.0)
    assert rows.loc["explained_timesteps", "value"] > 0.9
    assert not rows.loc["explained_groups", "value"] > 0.2
    assert rows.loc["gap_pooled", "value"] < rows.loc["gap_mean", "value"] / 3
    assert rows.loc["gap_from_timesteps", "value"] == pytest.approx(
        rows.loc["gap_mean", "value"], rel=0.05
    )


def test_a_gap_of_groups_is_explained_by_them() -> None:
    rows = explained(0.0, 1.0)
    assert rows.loc["explained_groups", "value"] > 0.9
    assert not rows.loc["explained_timesteps", "value"] > 0.2
    assert rows.loc["explained_both", "low"] > 0.8


def test_a_squared_correlation_has_an_interval_that_can_hold_zero() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    value, low, high = probes.squared_correlation(a, b)
    assert low == 0.0 and value < high < 0.1
    assert probes.squared_correlation(a, 2 * a + 0.1 * b)[1] > 0.9
    assert np.isnan(probes.squared_correlation(a, np.ones(200))).all()


# -- gradients -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def probe() -> probes.Probe:
    """An untrained network of the smoke preset on random latents."""
    prompts = [f"image of patient {row % 3}" for row in range(ROWS)]
    pipeline: Any = build_pipeline(load_settings("smoke").model, prompts, seed=0)
    module, text, prompt = conditioning(pipeline, prompts)
    size = pipeline.unet.config.sample_size
    mean = torch.randn(ROWS, 4, size, size, generator=torch.Generator().manual_seed(0))
    scheduler = training_scheduler(pipeline)
    objective = DenoisingObjective(module, scheduler, mean, 0.1 * mean.abs(), 1.0, text, prompt)
    sizes = probes.ProbeSizes(batches=8, folds=2, bins=4, rows_per_level=4, timesteps=(500,),
                              gradient_batches=2)  # fmt: skip
    names = [str(row) for row in range(ROWS)]
    return probes.Probe(objective, names, levels(), ATTRIBUTES, 8, sizes)


def held(value: float, **options: Any) -> FixedSigma:
    made = FixedSigma(MitigationConfig(**options), ATTRIBUTES, 0)
    made.train_levels = levels()
    return made.hold(torch.full((4,), value))


def test_what_a_perturbation_leaves_of_the_gradient(probe: probes.Probe) -> None:
    arms = {"still": held(0.0), "loud": held(1.0), "mean": held(0.5, reweighting="mean")}
    probe.objective.module.train()
    found = probe.measure("made_simulated", "base", arms)
    whole = found.rows[found.rows["attribute"] == ""]
    rows = whole.set_index(["method", "quantity"])["value"].to_dict()
    for arm in ("still", "mean"):  # sigma 0.5 of the mean's range is a multiplier of 1
        assert rows[arm, "perturbed_cosine"] == pytest.approx(1.0, abs=1e-5)
        assert rows[arm, "perturbed_norm"] == pytest.approx(1.0, abs=1e-5)
    assert rows["loud", "perturbed_cosine"] < 0.999
    assert (found.rows["dataset"] == "made_simulated").all()
    assert probe.objective.module.training, "left as it was"
    assert all(p.grad is None for p in probe.objective.module.parameters())
    again = probe.measure("made_simulated", "base", arms)
    pd.testing.assert_frame_equal(again.rows, found.rows)


def test_cosines_are_symmetric_and_of_other_rows(probe: probes.Probe) -> None:
    table = probes.cosine_table(probes.level_gradients(probe))
    square = table.pivot_table(
        index=["attribute", "level"], columns=["other_attribute", "other_level"], values="value"
    ).to_numpy()
    assert square.shape == (5, 5)
    np.testing.assert_allclose(square, square.T, atol=1e-7)
    assert np.abs(square).max() < 1.0, "a level with itself is over other rows, not 1"


def test_a_model_too_large_is_left_out_not_killed(probe: probes.Probe) -> None:
    small = probes.ProbeSizes(memory_gib=1e-6)
    own = probes.Probe(probe.objective, probe.names, probe.levels, ATTRIBUTES, 8, small)
    assert probes.level_gradients(own) == {}
    assert probes.cosine_table({}).empty


def test_a_fixed_sigma_stays_and_has_one_value_per_level() -> None:
    made = held(0.3)
    made.observe(torch.rand(8), levels()[:8], 29)
    assert made.scales().tolist() == pytest.approx([0.3] * 4)
    with pytest.raises(InputError, match="sigma has 3 value"):
        made.hold(torch.ones(3))
