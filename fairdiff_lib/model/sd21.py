"""Stable Diffusion 2.1's architecture from its published configurations, without its weights.

What the paper preset trains, for everything that has to know its size: the dry calculation before a
run, and the benchmarks, which fill it with random weights. As in the repositories
``stable-diffusion-2-1`` (unet, vae, text_encoder, scheduler).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from fairdiff_lib.model.pipeline import build_tokenizer

UNET: dict[str, Any] = {
    "sample_size": 64,  # 512 px, the size that the paper trains at; SD 2.1's own is 96
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),  # heads, of 64 channels each
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
TEXT: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build_parts(width: float = 1.0, place: str = "meta") -> tuple[Any, Any, Any]:
    """U-Net, VAE and text encoder; on ``meta`` they have shapes alone, on ``cpu`` random weights.

    ``width`` multiplies the U-Net's channels and heads: 1 is SD 2.1's 866 million weights, 0.5 has
    223 million; a small one, as 0.1, makes the other two small as well, for trying things.
    """
    channels = tuple(32 * max(1, round(width * c / 32)) for c in UNET["block_out_channels"])
    heads = tuple(c // (64 if width >= 1 else 32) for c in channels)
    unet = {**UNET, "block_out_channels": channels, "attention_head_dim": heads}
    vae, text = dict(VAE), dict(TEXT)
    if width < 0.5:
        vae |= {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1}
        text |= {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
        text |= {"num_attention_heads": 2, "projection_dim": 64}
        unet |= {"cross_attention_dim": 64, "sample_size": 8}
        vae["sample_size"] = 64
    with torch.device(place) if place != "cpu" else nullcontext():
        parts = UNet2DConditionModel(**unet), AutoencoderKL(**vae), CLIPTextModel(_text(text))
    return parts[0].eval(), parts[1].eval(), parts[2].eval()


def _text(config: dict[str, Any]) -> CLIPTextConfig:
    return CLIPTextConfig(**config, bos_token_id=0, eos_token_id=1, pad_token_id=1)


def build_random(prompts: list[str], width: float = 1.0, seed: int = 0) -> Any:
    """A pipeline of this size with random weights; it has the prompts' own small vocabulary."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, vae, text = build_parts(width, "cpu")
    tokenizer = build_tokenizer(prompts)
    tokenizer.model_max_length = TEXT["max_position_embeddings"]
    text.config.update({"bos_token_id": tokenizer.bos_token_id})
    text.config.update({"eos_token_id": tokenizer.eos_token_id})
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
