"""Stable Diffusion from diffusers' own parts: built, loaded and saved; images and prompts encoded.

Images are uint8 ``[N, 3, H, W]`` at the edges and float32 in [-1, 1] inside.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import atomic_folder
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.model.adapters import AdaptedUNet, Adapter, load_adapter, save_adapter
from fairdiff_lib.model.device import has_gpu, lay_out, resident
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ModelConfig

if TYPE_CHECKING:  # imported where they are used: it takes seconds, and few notebooks train
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTokenizer

BATCH = 64  # images through the VAE, or rows through the U-Net, at once, where they are small
# pixels through the VAE at once: those of 64 images at 64 px or of one at 512, which takes SD 2.1's
# encoder 0.63 GiB. Fewer at once, because a GPU is filled by one such image
PIXELS = BATCH * 64 * 64
CACHED = PIXELS // 4  # of a processor, whose cache holds no more: a quarter of the time less
WORD_END = "</w>"  # CLIP's mark of a word's last piece


# -- building and loading --------------------------------------------------------------------


def build_tokenizer(prompts: Sequence[str]) -> CLIPTokenizer:
    """CLIP tokenizer whose byte-pair vocabulary is learnt from these prompts.

    Every word of them is one token; other words fall into pieces. Its length is that of the
    longest prompt, rounded up to a multiple of 8.
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
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
    longest = max(len(ids) for ids in tokenizer(sorted(set(prompts)))["input_ids"])
    tokenizer.model_max_length = 8 * ((longest + 7) // 8)
    return tokenizer


def build_pipeline(config: ModelConfig, prompts: Sequence[str], seed: int) -> Any:
    """Untrained StableDiffusionPipeline at the configured size: float32, CPU, evaluation mode.

    The prompts fix the vocabulary, the seed the initial weights.
    """
    from diffusers import DPMSolverMultistepScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

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
    return assembled(tokenizer, vae, unet, text, scheduler)


def assembled(tokenizer: Any, vae: Any, unet: Any, text: Any, scheduler: Any) -> Any:
    """A StableDiffusionPipeline of these parts, in evaluation mode, which shows no bars."""
    from diffusers import StableDiffusionPipeline

    parts = {"vae": vae.eval(), "unet": unet.eval(), "text_encoder": text.eval()}
    parts |= dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
    pipeline = StableDiffusionPipeline(
        tokenizer=tokenizer, scheduler=scheduler, requires_safety_checker=False, **parts
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _build_vae(config: ModelConfig) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    levels = len(config.vae_channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.vae_channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=_groups(config.vae_channels),
        mid_block_add_attention=False,  # costs more than it gives where an image has few places
        sample_size=config.image_size,
    )
    # start with a posterior of std exp(-3), not 1: else the decoder first sees only noise
    torch.nn.init.constant_(vae.quant_conv.bias[config.latent_channels :], -6.0)
    return vae


def _build_unet(config: ModelConfig) -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel

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
    """Groups of the group normalisation: a power of 2 that divides every width, at most SD's 32.

    At least 3 channels each: one would be instance normalisation, which erases an image's colour.
    """
    divisors = (g for g in (32, 16, 8, 4, 2) if not any(c % g for c in channels))
    return next((g for g in divisors if min(channels) >= 3 * g), 1)


def load_pipeline(name: str | Path, revision: str = "") -> Any:
    """A Stable Diffusion pipeline from a local folder, or the hub at a revision (then required).

    float32, on the CPU, evaluation mode; with its ``adapter`` where the folder has one.
    """
    import diffusers
    import transformers

    for library in (diffusers, transformers):  # loading takes a second; bars would fill notebooks
        library.utils.logging.disable_progress_bar()
    place = PROJECT_ROOT / name  # a relative folder is below the project
    local = place.is_dir()
    if not local and not revision:
        raise InputError(
            f"model {str(name)!r}: no such folder, and a hub id needs model.revision (a commit)"
        )
    try:
        loaded = diffusers.StableDiffusionPipeline.from_pretrained(
            place if local else name,
            revision=revision or None,
            dtype=torch.float32,  # shipped ones are kept in half precision
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            local_files_only=local,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model {str(name)!r}: not loadable as a pipeline ({reason})") from error
    loaded.set_progress_bar_config(disable=True)
    for part in (loaded.unet, loaded.vae):  # here, so that a step by hand rounds as training does
        lay_out(part)
    if local and (place / "adapter").is_dir():
        loaded.adapter = load_adapter(place / "adapter", loaded.unet)
    return loaded


def adapter_of(pipeline: Any) -> Adapter | None:
    """The pipeline's adapter, or None where its U-Net is all there is."""
    found: Adapter | None = getattr(pipeline, "adapter", None)
    return found


def set_image_size(pipeline: Any, size: int) -> None:
    """Make ``size`` the pipeline's own image size (SD 2.1 is fine-tuned at 512, not its 768 px)."""
    step = pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
    if size % step:
        raise InputError(f"model.image_size={size}: this model needs a multiple of {step} pixels")
    pipeline.unet.register_to_config(sample_size=size // pipeline.vae_scale_factor)


def save_pipeline(pipeline: Any, folder: Path, like: Path | None = None) -> None:
    """Write the standard pipeline folder, safetensors only, atomically.

    Weights that are those of another such folder, ``like``, become one file on the disk: a
    fine-tuned SD 2.1 needs 1.7 GB less for its VAE and text encoder, and stays a whole folder.
    """
    with atomic_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        adapter = adapter_of(pipeline)
        if adapter is not None:
            save_adapter(adapter, temporary / "adapter")
        for path in sorted(temporary.rglob("*.json")):  # a model goes to others: no place of ours
            kept = json.loads(path.read_text())
            if isinstance(kept, dict) and kept.pop("_name_or_path", None):
                path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
        for path in sorted(temporary.rglob("*.safetensors")) if like else ():
            other = Path(like or "") / path.relative_to(temporary)
            if other.is_file() and filecmp.cmp(path, other, shallow=False):
                with suppress(OSError):  # another disk, or one without links: two files then
                    link = path.with_suffix(".link")
                    link.hardlink_to(other)
                    link.replace(path)


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
def encode_images(vae: Any, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Posterior of the latents, so that training can draw from it without the encoder.

    uint8 [N, 3, H, W] => mean and standard deviation, float32 [N, C, h, w], before scaling.
    """
    means, stds = [], []
    with resident(vae) as place:
        for part in _parts(images, "encoding"):
            posterior = vae.encode(part.to(place, vae.dtype)).latent_dist
            means.append(posterior.mean.float().cpu())
            stds.append(posterior.std.float().cpu())
    return torch.cat(means), torch.cat(stds)


def at_once(pixels: int) -> int:
    """How many images of so many pixels go through the VAE together."""
    return min(BATCH, max(1, (PIXELS if has_gpu() else CACHED) // pixels))


def _parts(images: np.ndarray, label: str) -> Iterator[Tensor]:
    """uint8 [N, 3, H, W] => float32 in [-1, 1], as many at once as fit."""
    batch = at_once(images.shape[-1] * images.shape[-2])
    starts = range(0, len(images), batch)
    for start in tqdm(starts, label, disable=None, leave=False, delay=5.0):
        yield to_model(images[start : start + batch])


def mean_latents(pipeline: Any, images: np.ndarray) -> Tensor:
    """Scaled posterior means of uint8 images, float32 [N, C, h, w]."""
    scaling: float = pipeline.vae.config.scaling_factor
    return encode_images(pipeline.vae, images)[0] * scaling


@torch.no_grad()
def normalise_latents(vae: Any, images: np.ndarray) -> None:
    """Bring the latent channels of images to mean 0 and variance 1, within the autoencoder.

    The 1x1 convolutions on both sides of the latents take the shift and the scale up: images come
    out as before, and whoever loads the pipeline needs no more than a scaling factor of 1.
    """
    mean, std = encode_images(vae, images)
    shift = mean.mean(dim=(0, 2, 3))
    spread = (mean.var(dim=(0, 2, 3)) + std.square().mean(dim=(0, 2, 3))).sqrt()  # of a drawn one
    into, out, channels = vae.quant_conv, vae.post_quant_conv, len(shift)
    out.bias += (out.weight * shift.view(1, -1, 1, 1)).sum(dim=(1, 2, 3))
    out.weight *= spread.view(1, -1, 1, 1)
    into.bias[:channels] -= shift
    into.bias[:channels] /= spread
    into.weight[:channels] /= spread.view(-1, 1, 1, 1)
    into.bias[channels:] -= 2.0 * spread.log()  # of the log variances
    vae.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def reconstruct(vae: Any, images: np.ndarray) -> np.ndarray:
    """Images after the VAE's encoder (posterior mean) and decoder, uint8 [N, 3, H, W]."""
    done = []
    with resident(vae) as place:
        for part in _parts(images, "encoding and decoding"):
            latents = vae.encode(part.to(place, vae.dtype)).latent_dist.mode()
            done.append(to_images(vae.decode(latents).sample))
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


def distinct_prompts(prompts: Sequence[str]) -> tuple[list[str], Tensor]:
    """The empty prompt and each other once, sorted; and each given one's row there, int64 [N]."""
    distinct = ["", *sorted(set(prompts) - {""})]
    position = {prompt: row for row, prompt in enumerate(distinct)}
    return distinct, torch.tensor([position[prompt] for prompt in prompts])


@torch.no_grad()
def embed_prompts(pipeline: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Text features float32 [P, L, D] of the distinct prompts, and each one's row in them [N].

    Row 0 is the empty prompt's.
    """
    distinct, rows = distinct_prompts(prompts)
    parts = []
    with resident(pipeline.text_encoder) as place:
        for start in range(0, len(distinct), 256):
            ids = tokenize(pipeline.tokenizer, distinct[start : start + 256])
            parts.append(pipeline.text_encoder(ids.to(place))[0].float().cpu())
    return torch.cat(parts), rows


def conditioning(pipeline: Any, prompts: Sequence[str]) -> tuple[nn.Module, Tensor, Tensor]:
    """The module to train or measure (U-Net, or it and its adapter as one), and how it is told.

    That is its text for each distinct prompt, float32 [P, L, D] or int64 [P, 1 + A], of which row 0
    is the empty one's; and the row of each prompt given, int64 [N].
    """
    adapter = adapter_of(pipeline)
    if adapter is None:
        return pipeline.unet, *embed_prompts(pipeline, prompts)
    distinct, rows = distinct_prompts(prompts)
    shown, codes = adapter.look_up(distinct)
    features, row = embed_prompts(pipeline, shown)
    text = torch.cat([row[:, None], codes], dim=1)
    return AdaptedUNet(pipeline.unet, adapter, features), text, rows
