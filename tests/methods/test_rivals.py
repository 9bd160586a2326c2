"""Every method of the registry in the one loop, and what controls and rivals mean."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.methods import controls, groups, rivals
from fairdiff_lib.methods.base import Mitigation, make_method
from fairdiff_lib.methods.perturbation import FairBayesianPerturbation
from fairdiff_lib.model.loss import denoising_losses_at
from fairdiff_lib.model.pipeline import build_pipeline, load_pipeline, save_pipeline
from fairdiff_lib.model.sample import sample
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS, NEUTRAL, config_of
from fairdiff_lib.settings.options import MitigationConfig
from fairdiff_lib.study import Study
from fairdiff_lib.train import loop
from fairdiff_lib.train import runs as training

DATASET = "fairgenmed_simulated"
ATTRIBUTES = {
    "race": ("Asian", "Black", "White"),
    "sex": ("Female", "Male"),
    "ethnicity": ("Non-Hispanic", "Hispanic"),
}
SIZES = [3, 2, 2]
STEPS = 3


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A cohort and an untrained base: what matters here is that methods reach the weights."""
    plain = load_settings("smoke", DATASET)
    short = dataclasses.replace(plain.training, steps=STEPS, batch=8, warmup=0, checkpoint_every=2)
    own = dataclasses.replace(plain.mitigation, time_window=2, held_out_rows=8)
    settings = dataclasses.replace(plain, training=short, mitigation=own, seeds=(0, 1))
    made = Study(settings, Places(settings, runs_root=str(tmp_path_factory.mktemp("rivals"))))
    train, base = made.cohort.included().split("train"), made.places.base
    pipeline = build_pipeline(settings.model, train.table["prompt"].tolist(), seed=0)
    save_pipeline(pipeline, base / "pipeline")
    generator = torch.Generator().manual_seed(0)
    size = pipeline.unet.config.sample_size
    latents = torch.randn(len(train), 4, size, size, generator=generator)
    save_file({"mean": latents, "std": 0.1 * latents.abs()}, base / "latents.safetensors")
    write_json(base / "run.json", {"stamp": {"data_hash": made.cohort.data_hash}})
    for method, seed in (("none", 0), ("fairdiffusion", 0), ("fairdiffusion", 1)):
        training.train_method(made, method, seed)
    return made


def weights_of(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted((folder / "pipeline_raw").rglob("*.safetensors")):
        if path.parent.name in ("unet", "adapter"):
            found |= {f"{path.parent.name}/{k}": v for k, v in load_file(path).items()}
    return found


class Killed(Exception):
    """Stands for a kill: nothing runs after it."""


def _few_fast(names: Iterable[str]) -> list[Any]:
    """A baseline, the method and one with an adapter by default, the others as slow ones."""
    fast = ("none", "fairdiffusion", "fair_lora")
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in sorted(names)]


@pytest.mark.parametrize("name", _few_fast(METHODS))
def test_every_method_trains_and_a_killed_run_ends_the_same(
    name: str, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.train_method(study, name, 0)
    kept, run = weights_of(whole), read_json(whole / "run.json")
    assert run["method"] == name and run["images_seen"] == STEPS * 8
    base = {f"unet/{k}": v for k, v in load_file(_unet(study.places.base)).items()}
    moved = [not torch.equal(value, base.get(key, value[:0])) for key, value in kept.items()]
    assert any(moved), "nothing was trained"
    history = pd.read_csv(whole / "history.csv").drop(columns="stage")
    whole.rename(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "learning_rate", _die_at(STEPS - 1, loop.learning_rate))
        training.train_method(study, name, 0)
    assert not (whole / "run.json").exists()
    again = weights_of(training.train_method(study, name, 0))
    assert again.keys() == kept.keys()
    for key, value in kept.items():
        assert torch.equal(again[key], value), key
    resumed = pd.read_csv(whole / "history.csv").drop(columns="stage")
    timed = [h[h["quantity"] != "seconds"].reset_index(drop=True) for h in (history, resumed)]
    pd.testing.assert_frame_equal(*timed)


def _unet(folder: Path) -> Path:
    return folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"


def _die_at(step: int, real: Any) -> Any:
    def rate(loop: Any, now: int) -> float:
        if now == step:
            raise Killed
        value: float = real(loop, now)
        return value

    return rate


def made(name: str, **options: Any) -> Mitigation:
    config = dataclasses.replace(MitigationConfig(time_window=3), **options)
    return make_method(name, config, ATTRIBUTES, 0, 10)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_refuses_another_ones_state(name: str) -> None:
    method = made(name)
    state = json.loads(json.dumps(method.state_dict()))
    method.load_state_dict(state)
    assert json.loads(json.dumps(method.state_dict())) == state
    other = "random" if name != "random" else "none"
    with pytest.raises(InputError, match=f"'{name}'.*'{other}'") as caught:
        made(other).load_state_dict(state)
    assert "\n" not in str(caught.value)


def test_a_method_sees_only_the_fields_that_it_declares() -> None:
    """What makes a run folder's digest sound: undeclared fields are at their defaults."""
    odd = MitigationConfig(time_window=7, febs_gamma=3.0, drift="corrected")
    assert config_of("none", odd) == MitigationConfig()
    assert config_of("febs", odd) == MitigationConfig(time_window=7, febs_gamma=3.0)
    assert config_of("fairdiffusion_as_released", odd).drift == "as_released"


def test_folders_of_methods_depend_on_what_they_use(study: Study) -> None:
    def folders(**change: Any) -> dict[str, str]:
        own = dataclasses.replace(study.settings.mitigation, **change)
        layout = Places(dataclasses.replace(study.settings, mitigation=own))
        return {name: layout.run(name, 0).name for name in METHODS}

    plain, gamma = folders(), folders(febs_gamma=2.0)
    assert {name for name in METHODS if plain[name] != gamma[name]} == {"febs"}
    drift = folders(drift="corrected")
    changed = {name for name in METHODS if plain[name] != drift[name]}
    assert "fairdiffusion" in changed and "random_sigma" in changed  # its source changes
    assert changed.isdisjoint({"none", "random", "fairdiffusion_corrected", "fis"})


def test_held_out_rows_are_of_the_validation_split(study: Study) -> None:
    """No method is handed a test row, and the corrected objective looks at validation rows."""
    begun = training.start(study, "fairdiffusion_corrected", 0)
    pipeline, seen = begun.pipeline, begun.method
    assert isinstance(seen, FairBayesianPerturbation) and seen.held_out is not None
    val = study.cohort.included().split("val").table
    assert set(seen.held_out.names) <= set(val["image"]) and len(seen.held_out.names) == 8
    before = seen.held_out.gap("corrected")
    assert before < 0.0 and seen.held_out.gap("corrected") == before
    with torch.no_grad():
        pipeline.unet.conv_out.bias += 0.5
    assert seen.held_out.gap("corrected") != before  # measured as the U-Net is now


# -- controls --------------------------------------------------------------------------------


def history_of(path: Tensor, scale: float = 1.0) -> pd.DataFrame:
    """A run's history: sigma at every step, and what Adam divided by."""
    names = [(a, level) for a, levels in ATTRIBUTES.items() for level in levels]
    rows = [
        (step + 1, "sigma", *name, value)
        for step, sigma in enumerate(path.tolist())
        for name, value in zip(names, sigma, strict=True)
    ]
    for step in range(len(path)):
        rows += [(step + 1, "second_moment", "", "", scale), (step + 1, "clip_factor", "", "", 0.8)]
    return pd.DataFrame(rows, columns=list(loop.HISTORY_COLUMNS))


def levels_of(n: int) -> Tensor:
    return torch.stack([torch.arange(n) % size for size in SIZES], dim=1)


def test_the_matched_rate_is_what_adam_and_clipping_leave() -> None:
    method = made("none_matched_lr")
    path = torch.full((5, 7), 0.5, dtype=torch.float64)
    method.read_sources({"none": history_of(path), "fairdiffusion": history_of(path, scale=1.25)})
    assert method.learning_rate_factor(3) == pytest.approx(0.8)
    assert method.weights(torch.rand(4), levels_of(4), 0).tolist() == [1.0] * 4


def test_adam_scale_is_the_root_of_the_second_moment() -> None:
    """Constant gradients g: v / (1 - beta^t) = g^2 at every step."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.AdamW([parameter], lr=1e-3)
    assert np.isnan(loop.adam_scale(optimiser))
    for _ in range(4):
        parameter.grad = torch.tensor([1.0, -2.0, 3.0])
        optimiser.step()
    assert loop.adam_scale(optimiser) == pytest.approx(2.0)


def test_replayed_sigmas_are_the_runs_own() -> None:
    method = made("replay")
    path = torch.rand(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method.read_sources({"fairdiffusion": history_of(path)})
    for step in range(4):
        method.weights(torch.rand(6), levels_of(6), step)
        found = method.scales()
        assert found is not None and torch.equal(found, path[step])
    with pytest.raises(InputError, match="ran for 4 steps"):
        method.weights(torch.rand(6), levels_of(6), 4)


def test_a_constant_sigma_has_the_dose_of_the_path() -> None:
    method = made("constant_sigma")
    path = torch.rand(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method.read_sources({"fairdiffusion": history_of(path)})
    for step in (0, 17):
        method.weights(torch.rand(6), levels_of(6), step)
        found = method.scales()
        assert found is not None
        torch.testing.assert_close(found.square(), path.square().mean(dim=0))


def test_random_sigma_has_the_dose_of_the_path_and_forgets_each_window() -> None:
    method = made("random_sigma")
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(7, generator=generator, dtype=torch.float64) * 0.5 + 0.25
    path = (base + 0.1 * torch.randn(300, 7, generator=generator).double()).clamp(0, 1)
    method.read_sources({"fairdiffusion": history_of(path)})
    assert isinstance(method, controls.RandomSigma)
    drawn = torch.stack([method.sigma_at(step) for step in range(6000)])  # 2,000 windows
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[2], drawn[3])
    torch.testing.assert_close(drawn.mean(dim=0), path.mean(dim=0), rtol=0, atol=0.01)
    torch.testing.assert_close(drawn.std(dim=0), path.std(dim=0), rtol=0.08, atol=0)


def test_group_blind_noise_has_the_variance_but_not_the_groups(study: Study) -> None:
    method = made("group_blind_noise")
    path = torch.tensor([[1.0, 0.2, 0.2, 0.9, 0.1, 0.3, 0.8]], dtype=torch.float64)
    method.read_sources({"fairdiffusion": history_of(path.repeat(2, 1))})
    kept = study.cohort.included()
    method.prepare(None, kept)
    levels = torch.as_tensor(kept.split("train").codes())
    wanted = path[0][groups.positions(levels, SIZES)].square().sum(dim=1).mean()
    many = levels_of(60).repeat(4000, 1)
    found = method.weights(torch.zeros(len(many)), many, 1)
    assert float(found.var()) == pytest.approx(float(wanted), rel=0.02)
    by_race = torch.stack([found[many[:, 0] == g].var() for g in range(3)])
    assert float(by_race.max() / by_race.min()) < 1.05  # the path's own: a ratio above 2


def test_shuffled_scores_keep_the_scores_and_lose_the_link() -> None:
    method = made("shuffled_y")
    assert isinstance(method, controls.ShuffledScores)
    method.path.scores = [float(k) for k in range(20)]
    told = method.path.told(3)
    assert sorted(told) == method.path.scores and told != method.path.scores
    assert told == method.path.told(3) and told != method.path.told(4)


@pytest.mark.parametrize("name", ["none_matched_lr", "replay"])
def test_a_missing_source_is_named(name: str, study: Study, tmp_path: Path) -> None:
    places = dataclasses.replace(study.places, runs_root=str(tmp_path))
    with pytest.raises(InputError, match=f"method {name} reads the finished run of") as caught:
        training.source_histories(Study(study.settings, places), name, 0)
    assert "\n" not in str(caught.value)


def test_a_replay_needs_another_seed(study: Study) -> None:
    alone = dataclasses.replace(study.settings, seeds=(0,))
    with pytest.raises(InputError, match="at least two"):
        training.source_histories(study.with_settings(alone), "replay", 0)


# -- rivals ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def train_levels(study: Study) -> Tensor:
    return torch.as_tensor(study.cohort.included().split("train").codes())


def test_inverse_frequency_gives_each_level_of_one_attribute_the_same_say(study: Study) -> None:
    method = make_method(
        "inverse_frequency", MitigationConfig(), {"race": ATTRIBUTES["race"]}, 0, 1
    )
    levels = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2])[:, None]

    class One:
        def split(self, _: str) -> One:
            return self

        def codes(self) -> np.ndarray:
            return levels.numpy()

    method.prepare(None, One())
    weights = method.weights(torch.zeros(8), levels, 0)
    sums, _ = groups.level_sums(weights, levels, [3])
    np.testing.assert_allclose(sums.numpy(), 8 / 3)


def test_inverse_frequency_keeps_the_mean_over_the_split(
    study: Study, train_levels: Tensor
) -> None:
    method = made("inverse_frequency")
    method.prepare(None, study.cohort.included())
    weights = method.weights(torch.zeros(len(train_levels)), train_levels, 0)
    assert float(weights.mean()) == pytest.approx(1.0)
    rare = train_levels[:, 2] == 1
    assert float(weights[rare].mean()) > 2 * float(weights[~rare].mean())


def test_raking_balances_every_attribute_at_once(train_levels: Tensor) -> None:
    weights = groups.raked(train_levels, SIZES)
    sums, _ = groups.level_sums(weights, train_levels, SIZES)
    shares = (sums / len(train_levels)).split(SIZES)
    for share in shares:
        np.testing.assert_allclose(share.numpy(), 1 / len(share), rtol=1e-6)
    plain = groups.level_counts(train_levels, SIZES) / len(train_levels)
    assert float(plain[-1]) < 0.2  # what was balanced


def test_group_dro_follows_the_worst_group() -> None:
    method = made("group_dro", dro_rate=0.5)
    levels = levels_of(12)
    losses = torch.where(levels[:, 0] == 1, 2.0, 1.0)
    before = method.weights(losses, levels, 0)
    np.testing.assert_allclose(before.numpy(), 1.0)  # equal groups, equal q
    for step in range(20):
        method.observe(losses, levels, step)
    after = method.weights(losses, levels, 20)
    assert float(after[levels[:, 0] == 1].mean()) > 1.5
    assert float(after.mean()) == pytest.approx(1.0)
    absent = levels.clone()
    absent[:, 0] = 0
    method.observe(losses, absent, 21)
    assert bool(method.weights(losses, levels, 22).isfinite().all())


@pytest.mark.parametrize(("shift", "cost"), [(0.0, 0.0), (1.0, 0.5), (3.0, 4.5)])
def test_transport_of_a_shift_is_half_its_square(shift: float, cost: float) -> None:
    sample = torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert rivals.transport_cost(sample, sample + shift) == pytest.approx(cost, abs=1e-12)
    twice = sample.repeat(2) + shift  # the same distribution, another size
    assert rivals.transport_cost(sample, twice) == pytest.approx(cost, abs=1e-12)


def test_fis_is_its_formula_and_raises_the_odd_group() -> None:
    losses = torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0, 3.0])
    levels = torch.tensor([[0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 1, 0], [2, 0, 0], [2, 1, 1]])
    alone = made("fis", fis_weight=0.0).weights(losses, levels, 0)
    np.testing.assert_allclose(alone.numpy(), (torch.softmax(losses.double(), 0) * 6).numpy())
    group = made("fis", fis_weight=1.0).weights(losses, levels, 0)
    assert float(group[levels[:, 0] == 2].mean()) > float(group[levels[:, 0] != 2].mean())
    assert float(group.mean()) == pytest.approx(1.0)


def test_febs_divides_by_the_error_bound() -> None:
    method = made("febs", febs_gamma=2.0)
    levels = levels_of(12)
    losses = torch.where(levels[:, 0] == 1, 2.0, 1.0)
    assert method.weights(losses, levels, 0).tolist() == [1.0] * 12  # nothing seen yet
    method.observe(losses, levels, 0)
    weights = method.weights(losses, levels, 1)
    ratio = float(weights[levels[:, 0] == 1][0] / weights[levels[:, 0] == 0][0])
    assert ratio == pytest.approx(np.tanh(1.0) / np.tanh(0.25), rel=1e-6)


def test_adaptive_sampling_goes_where_the_curve_is_steep(study: Study) -> None:
    method = made("adaptive_sampling", time_window=1, timestep_bins=1, sampling_floor=0.2)
    train = study.cohort.included().split("train")
    codes = torch.as_tensor(train.codes())
    assert method.sampling_weights(train) is None
    levels = levels_of(60)
    for step in range(6):
        falling = (step + 1.0) ** -0.5  # Black improves, the others don't
        losses = torch.where(levels[:, 0] == 1, falling, 0.5)
        method.observe(losses, levels, step)
    weights = method.sampling_weights(train)
    assert weights is not None and weights.min() >= 0.2
    share = weights[codes[:, 0] == 1].sum() / weights.sum()
    plain = float((codes[:, 0] == 1).double().mean())
    assert share > plain + 0.15


# -- adapters --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["demographic_tokens", "fair_lora"])
def adapted(request: pytest.FixtureRequest, study: Study) -> Iterator[tuple[Any, str, Study]]:
    """A pipeline with an adapter whose groups differ, as after training."""
    pipeline = training.load_base(study, 0)
    method = made(request.param)
    method.prepare(pipeline, study.cohort.included())
    strength = {"demographic_tokens": 5.0, "fair_lora": 0.3}[request.param]  # far from the start
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in pipeline.adapter.parameters():
            parameter += strength * torch.randn_like(parameter)
    yield pipeline, request.param, study


def prompts_of(study: Study) -> tuple[str, str]:
    spec = study.cohort.spec
    row = {field.name: field.levels[0] for field in spec.fields}
    return spec.prompt(row), spec.prompt(row | {"race": "Black"})


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_samples_group_reaches_the_image_and_survives_saving(
    adapted: tuple[Any, str, Study], guidance: float, tmp_path: Path
) -> None:
    pipeline, _, study = adapted
    asked, seeds = [*prompts_of(study), prompts_of(study)[0]], [5, 5, 6]

    def draw(used: Any, rows: slice) -> np.ndarray:
        return sample(used, asked[rows], seeds[rows], steps=2, guidance=guidance).astype(int)

    images = draw(pipeline, slice(None))
    assert np.abs(images[0] - images[1]).max() > 2  # only the group differs
    alone = np.concatenate([draw(pipeline, slice(row, row + 1)) for row in range(3)])
    assert np.abs(alone - images).max() <= 1  # neighbours' groups don't leak
    save_pipeline(pipeline, tmp_path / "model")
    again = load_pipeline(tmp_path / "model")
    assert np.abs(draw(again, slice(None)) - images).max() <= 1


def test_held_out_losses_know_the_group(adapted: tuple[Any, str, Study]) -> None:
    pipeline, _, study = adapted
    size = pipeline.unet.config.sample_size
    latents = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(0)).repeat(
        2, 1, 1, 1
    )
    found = denoising_losses_at(pipeline, latents, prompts_of(study), ["same", "same"], (300,), 0)
    assert abs(float(found[0] - found[1])) > 1e-4


def test_an_unknown_prompt_is_refused(adapted: tuple[Any, str, Study]) -> None:
    pipeline, _, _ = adapted
    with pytest.raises(InputError, match="its dataset's") as caught:
        sample(pipeline, ["a cat"], [0], steps=1, guidance=1.0)
    assert "\n" not in str(caught.value)


def test_attributes_leave_the_prompt_of_demographic_tokens(study: Study) -> None:
    table = rivals.all_prompts(study.cohort.spec, neutral=True)
    train = study.cohort.included().split("train")
    assert set(train.table["prompt"]) <= set(table)
    for shown, _ in table.values():
        assert not any(level in shown for levels in ATTRIBUTES.values() for level in levels)
    codes = [table[prompt][1] for prompt in train.table["prompt"]]
    np.testing.assert_array_equal(codes, train.codes())


def test_fair_lora_starts_at_the_base_and_rests_its_weights(study: Study) -> None:
    pipeline = training.load_base(study, 0)
    plain = training.load_base(study, 0)
    made("fair_lora").prepare(pipeline, study.cohort.included())
    pair = [
        sample(p, prompts_of(study), [1, 2], steps=2, guidance=2.0).astype(int)
        for p in (pipeline, plain)
    ]
    assert np.abs(pair[0] - pair[1]).max() <= 1
    trained = load_file(_unet(training.train_method(study, "fair_lora", 0)))
    assert all(torch.equal(trained[k], v) for k, v in load_file(_unet(study.places.base)).items())


def test_a_tokens_heads_can_be_learnt_without_touching_the_loss() -> None:
    """The auxiliary loss adds to the gradient, not to the value that the audit reads."""
    from fairdiff_lib.model.adapters import TokenAdapter

    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapter = TokenAdapter({}, SIZES, {"width": 8, "auxiliary_weight": 1.0})
    codes = levels_of(12)
    optimiser = torch.optim.Adam(adapter.parameters(), lr=0.05)
    first = float(adapter.auxiliary(codes).detach().mean())
    for _ in range(60):
        loss = adapter.auxiliary(codes).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(adapter.auxiliary(codes).detach().mean()) < 0.1 * first
    nobody = torch.full((2, 3), -1)
    assert adapter.auxiliary(nobody).tolist() == [0.0, 0.0]
    assert adapter.tokens(nobody).shape == (2, 6, 8)


def test_every_method_has_a_look_of_its_own() -> None:
    from fairdiff_lib.show import style as looks

    shown = [looks.look_of(name) for name in METHODS]
    assert len({look.label for look in shown}) == len(METHODS)
    named = [(look.colour, look.marker) for look in shown if look.colour != NEUTRAL]
    assert len(set(named)) == len(named)
