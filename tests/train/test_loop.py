"""The training loop: resumed runs, accumulation and methods give the weights they should."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fairdiff_lib.methods.base import Mitigation, make_method
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import LoopConfig, MachineConfig, MitigationConfig
from fairdiff_lib.train.loop import HISTORY_COLUMNS, batch_rows, fit, learning_rate, share_of
from fairdiff_lib.train.runs import AutoencoderObjective

ATTRIBUTES = {"race": ("Asian", "Black", "White"), "sex": ("Female", "Male")}
LOOP = LoopConfig(steps=12, batch=8, warmup=2, checkpoint_every=4, log_every=1, ema_decay=0.9)
COUNT = 30


@dataclass
class Regression:
    """``(w . x + noise - y)^2`` per row: a module with a known loss, noisy like the real one."""

    module: nn.Module
    inputs: Tensor
    targets: Tensor

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        noise = 0.1 * torch.randn(len(rows), generator=generator)[part]
        own = rows[part]
        prediction: Tensor = module(self.inputs[own]).squeeze(1) + noise
        return (prediction - self.targets[own]).square()


def problem() -> Regression:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(COUNT, 5, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    return Regression(module, inputs, inputs.sum(dim=1))


def levels() -> np.ndarray:
    return np.stack([np.arange(COUNT) % 3, np.arange(COUNT) % 2], axis=1)


def method(name: str, window: int = 5) -> Mitigation:
    return make_method(name, MitigationConfig(time_window=window), ATTRIBUTES, 1, COUNT // 8)


def weights_of(objective: Regression) -> Tensor:
    return torch.cat([p.detach().flatten() for p in objective.module.parameters()])


def train(name: str = "none", loop: LoopConfig = LOOP, **options: object) -> Regression:
    objective = problem()
    fit(
        objective,
        loop,
        count=COUNT,
        seed=1,
        levels=levels(),
        method=method(name),
        **options,  # type: ignore[arg-type]
    )
    return objective


class Killed(Exception):
    """Stands for a kill: nothing runs after it."""


@pytest.mark.parametrize("name", ["none", "random", "fairdiffusion"])
@pytest.mark.parametrize("died_after", [3, 4, 6, 11])
def test_a_killed_run_resumed_ends_with_the_same_weights(
    name: str, died_after: int, tmp_path: Path
) -> None:
    def die(step: int, _: nn.Module) -> None:
        if step == died_after:
            raise Killed

    with pytest.raises(Killed):
        train(name, folder=tmp_path, after_step=die)
    names = [p.name for p in tmp_path.iterdir()]
    assert len(names) <= 1 and all(n.startswith("checkpoint-") for n in names)
    resumed, whole = problem(), problem()
    results = [
        fit(o, LOOP, count=COUNT, seed=1, levels=levels(), method=method(name), folder=f)
        for o, f in ((resumed, tmp_path), (whole, None))
    ]
    assert torch.equal(weights_of(resumed), weights_of(whole))
    for pair in zip(results[0].average.shadow_params, results[1].average.shadow_params):  # type: ignore[union-attr]  # noqa: B905
        assert torch.equal(*pair)
    kept = [r.history[r.history.quantity != "seconds"].reset_index(drop=True) for r in results]
    pd.testing.assert_frame_equal(*kept)


def test_a_finished_run_leaves_no_checkpoint_of_its_last_step(tmp_path: Path) -> None:
    """Whoever asked for it keeps the weights; the checkpoint would be deleted at once."""
    train(folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000008"]


def test_accumulation_is_the_same_update() -> None:
    whole = train()
    parts = train(loop=replace(LOOP, micro_batch=2))
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=1e-4, atol=1e-6)
    other = train(loop=replace(LOOP, learning_rate=2e-4))
    assert not torch.allclose(weights_of(other), weights_of(whole), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("batch", "micro", "world", "share"),
    [(8, 0, 1, 8), (8, 0, 2, 4), (8, 2, 2, 2), (8, 4, 2, 4), (8, 8, 4, 2), (8, 1, 2, 1)],
)
def test_a_micro_batch_is_what_one_process_takes_at_once(
    batch: int, micro: int, world: int, share: int
) -> None:
    assert share_of(replace(LOOP, batch=batch, micro_batch=micro), world) == share


@pytest.mark.parametrize(("batch", "micro", "world"), [(8, 0, 3), (12, 4, 2), (2, 0, 4)])
def test_a_batch_that_can_not_be_shared_is_refused(batch: int, micro: int, world: int) -> None:
    with pytest.raises(InputError, match=f"^batch={batch}: can't be shared by {world} processes"):
        share_of(replace(LOOP, batch=batch, micro_batch=micro), world)


def test_a_checkpoint_lacks_the_frozen_parts_and_resumes_all_the_same(tmp_path: Path) -> None:
    def frozen() -> Regression:
        objective = problem()
        first: nn.Module = objective.module.get_submodule("0")
        first.requires_grad_(False)
        return objective

    def die(step: int, _: nn.Module) -> None:
        if step == 6:
            raise Killed

    whole, resumed = frozen(), frozen()
    result = fit(whole, LOOP, count=COUNT, seed=1)
    with pytest.raises(Killed):
        fit(frozen(), LOOP, count=COUNT, seed=1, folder=tmp_path, after_step=die)
    kept = load_file(next(tmp_path.iterdir()) / "module.safetensors")
    assert sorted(kept) == ["2.bias", "2.weight"]
    fit(resumed, LOOP, count=COUNT, seed=1, folder=tmp_path)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert result.average is not None and len(result.average.shadow_params) == 2
    with pytest.raises(InputError, match=r"only one of both has 0\.bias"):
        fit(problem(), LOOP, count=COUNT, seed=1, folder=tmp_path)


def test_an_average_that_waits_elsewhere_is_the_same() -> None:
    shadows = []
    for away in (False, True):
        machine = MachineConfig(average_on_cpu=away)
        shadows.append(fit(problem(), LOOP, count=COUNT, seed=1, machine=machine).average)
    for one, other in zip(*(s.shadow_params for s in shadows if s), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(shadows[0].shadow_params[0], next(problem().module.parameters()))  # type: ignore[union-attr]


def tensors_in(tree: Any) -> list[Tensor]:
    """Every tensor of nested dicts and lists."""
    if isinstance(tree, Tensor):
        return [tree]
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return [one for part in inside for one in tensors_in(part)]


def test_a_run_with_eight_bits_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    loop = replace(LOOP, optimiser="adamw8bit", learning_rate=1e-2)

    def wide() -> Regression:
        objective = problem()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # from 4,096 weights on, their state has 8 bits
            objective.module = nn.Sequential(nn.Linear(5, 1000), nn.Tanh(), nn.Linear(1000, 1))
        return objective

    def die(step: int, _: nn.Module) -> None:
        if step == 6:
            raise Killed

    whole, resumed = wide(), wide()
    fit(whole, loop, count=COUNT, seed=1)
    with pytest.raises(Killed):
        fit(wide(), loop, count=COUNT, seed=1, folder=tmp_path, after_step=die)
    state = torch.load(next(tmp_path.iterdir()) / "optimiser.pt", weights_only=True)
    assert any(v.dtype == torch.uint8 and v.numel() == 5000 for v in tensors_in(state["optimiser"]))
    fit(resumed, loop, count=COUNT, seed=1, folder=tmp_path)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert not torch.equal(weights_of(whole), weights_of(wide()))


def test_same_seed_same_weights_other_seed_others() -> None:
    assert torch.equal(weights_of(train()), weights_of(train()))
    other = problem()
    fit(other, LOOP, count=COUNT, seed=2)
    assert not torch.equal(weights_of(other), weights_of(train()))


def test_methods_differ_only_by_their_weights() -> None:
    """With sigma 0 throughout, the perturbation is the baseline exactly."""
    objective = problem()
    still = method("random")
    still.sigma = torch.zeros(5, dtype=torch.float64)  # type: ignore[attr-defined]
    fit(objective, LOOP, count=COUNT, seed=1, levels=levels(), method=still)
    assert torch.equal(weights_of(objective), weights_of(train("none")))
    assert not torch.equal(weights_of(train("random")), weights_of(train("none")))


def test_history_is_tidy_and_its_level_means_average_to_the_loss() -> None:
    result = fit(
        problem(), LOOP, count=COUNT, seed=1, levels=levels(), method=method("fairdiffusion")
    )
    history = result.history
    assert list(history.columns) == list(HISTORY_COLUMNS)
    assert set(history.quantity) == {
        *("loss", "objective", "seconds", "acquisition", "sigma", "weight", "negative_weights"),
        *("gradient_norm", "clip_factor", "second_moment", "score"),
    }
    assert history[history.quantity == "acquisition"].step.tolist() == [5, 10]
    step = history[(history.step == 3) & (history.quantity == "loss")]
    rows = batch_rows(COUNT, LOOP.batch, 1, 2).numpy()
    share = np.bincount(levels()[rows, 0], minlength=3) / LOOP.batch
    by_level = step[step.attribute == "race"].value.to_numpy()
    overall = float(step[step.attribute == ""].value.iloc[0])
    assert float(np.nansum(share * by_level)) == pytest.approx(overall, rel=1e-5)
    assert result.optimiser_seconds > 0.0


def test_training_lowers_the_loss() -> None:
    loop = replace(LOOP, steps=300, learning_rate=1e-2)
    history = fit(problem(), loop, count=COUNT, seed=1).history
    loss = history[history.quantity == "loss"].value.to_numpy()
    assert loss[-20:].mean() < 0.2 * loss[:5].mean()


def test_each_epoch_sees_each_row_once() -> None:
    seen = torch.cat([batch_rows(10, 4, 0, step) for step in range(5)])
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:20].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:20].tolist()


def test_sampling_weights_are_followed() -> None:
    weights = np.array([0.0, 1.0, 3.0])
    rows = torch.cat([batch_rows(3, 100, 0, step, weights) for step in range(20)])
    share = torch.bincount(rows, minlength=3) / len(rows)
    np.testing.assert_allclose(share.numpy(), [0.0, 0.25, 0.75], atol=0.04)


def test_learning_rate_warms_up_and_anneals() -> None:
    loop = LoopConfig(steps=100, warmup=10, learning_rate=1.0, schedule="cosine")
    rates = [learning_rate(loop, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.01
    flat = replace(loop, schedule="constant")
    assert learning_rate(flat, 99) == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loop": replace(LOOP, learning_rate=0.5)}, "learning_rate is 0.0001 there, 0.5 here"),
        ({"mitigation": "random"}, "method is 'none' there, 'random' here"),
        ({"seed": 5}, "seed is 1 there, 5 here"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    train(folder=tmp_path)
    before = (next(tmp_path.iterdir()) / "run.json").read_bytes()
    loop = change.get("loop", LOOP)
    assert isinstance(loop, LoopConfig)
    with pytest.raises(InputError, match=words) as caught:
        fit(
            problem(),
            loop,
            count=COUNT,
            seed=int(str(change.get("seed", 1))),
            levels=levels(),
            method=method(str(change.get("mitigation", "none"))),
            folder=tmp_path,
        )
    assert "\n" not in str(caught.value)
    assert (next(tmp_path.iterdir()) / "run.json").read_bytes() == before


def test_checkpoints_hold_no_pickled_code(tmp_path: Path) -> None:
    train("fairdiffusion", folder=tmp_path)
    newest = next(tmp_path.iterdir())
    torch.load(newest / "optimiser.pt", weights_only=True)
    assert json.loads((newest / "run.json").read_text())["step"] == 8


class FixedOffset(nn.Module):
    """Stands in for an autoencoder: adds a colour, has no divergence."""

    def __init__(self, offset: tuple[float, float, float]) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset)[:, None, None])

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return pixels + self.offset, torch.zeros(len(pixels))


def test_the_autoencoders_loss_is_the_error_and_what_a_frozen_eye_sees_of_it() -> None:
    images = np.random.default_rng(0).integers(0, 200, (4, 3, 32, 32), dtype=np.uint8)
    module, rows = FixedOffset((0.1, 0.2, 0.3)), torch.arange(4)
    losses = []
    for weight in (0.0, 0.5, 1.0):
        objective = AutoencoderObjective(module, images, (1, 8, 8), weight)
        generator = torch.Generator().manual_seed(0)
        losses.append(objective.loss(module, rows, slice(0, 4), generator))
    torch.testing.assert_close(losses[0], torch.full((4,), 0.2))
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0])
    assert bool((losses[1] > losses[0] + 1e-3).all())


def test_the_autoencoder_sees_pictures_turned_over_by_chance() -> None:
    images = np.zeros((64, 3, 4, 4), dtype=np.uint8)
    images[:, :, 0, 0] = 255  # a corner
    seen: list[Tensor] = []
    module = FixedOffset((0.0, 0.0, 0.0))
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    objective = AutoencoderObjective(module, images, (1, 1, 1))
    objective.loss(module, torch.arange(64), slice(0, 64), torch.Generator().manual_seed(0))
    corners = [int((seen[0][:, 0, y, x] > 0).sum()) for y in (0, 3) for x in (0, 3)]
    assert sum(corners) == 64 and min(corners) > 6
