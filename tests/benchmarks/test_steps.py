"""The usual way's step is a training step: its loss is the library's on the same draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import steps
from benchmarks.steps import Problem, Usual, compare_steps
from fairdiff_lib.model.loss import denoising_loss, training_scheduler
from fairdiff_lib.model.pipeline import build_pipeline, conditioning, to_model
from fairdiff_lib.settings.options import ModelConfig

SMALL = ModelConfig(
    image_size=32,
    vae_channels=(8, 16, 16),
    unet_channels=(16, 32),
    unet_attention=(False, True),
    text_width=16,
    text_layers=1,
)
COLUMNS = {
    *("what", "precision", "against", "seconds", "other_seconds", "ratio", "ratio_low"),
    *("ratio_high", "repeats"),
}


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    for row, image in enumerate(images):
        steps.Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{row}.png")
    prompts = [f"a {word} eye" for word in ("red", "green", "blue") * 4]
    levels = np.stack([np.arange(12) % 2, np.arange(12) % 3], axis=1)
    attributes = {"sex": ("Female", "Male"), "race": ("A", "B", "C")}
    pipeline = build_pipeline(SMALL, prompts, seed=0)
    return Problem(pipeline, images, prompts, levels, attributes, tmp_path)


def test_its_loss_is_the_librarys_on_the_same_draws(problem: Problem) -> None:
    usual = Usual(problem, 4, None)
    before = [p.detach().clone() for p in usual.unet.parameters()]
    torch.manual_seed(3)
    found = usual.step()
    assert not all(map(torch.equal, before, usual.unet.parameters()))

    rng = np.random.default_rng(0)  # the same rows, flips and draws again
    rows = rng.integers(12, size=4)
    flipped = [
        problem.images[r][:, :, ::-1] if rng.random() < 0.5 else problem.images[r] for r in rows
    ]
    torch.manual_seed(3)
    vae = problem.pipeline.vae
    with torch.no_grad():
        latents = vae.encode(to_model(np.stack(flipped))).latent_dist.sample()
        latents = latents * vae.config.scaling_factor
        noise, times = torch.randn_like(latents), torch.randint(0, 1000, (4,))
        module, text, index = conditioning(problem.pipeline, problem.prompts)
        own = (latents, noise, times, text[index[torch.as_tensor(rows)]])
        loss = denoising_loss(module, training_scheduler(problem.pipeline), *own)
    assert found == pytest.approx(float(loss.mean()), rel=1e-4)


@pytest.mark.parametrize("pair", steps.PAIRS)
def test_both_sides_take_as_many_steps(
    problem: Problem, pair: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    step = Usual.step
    monkeypatch.setattr(Usual, "step", lambda own: (taken.append(1), step(own))[1])
    row = compare_steps(problem, pair, steps=2, batch=4)
    assert len(taken) == 2 + steps.WARM and set(row) == COLUMNS
    assert row["ratio"] == pytest.approx(row["other_seconds"] / row["seconds"])
    assert row["ratio_low"] <= row["ratio_high"] and row["seconds"] > 0
