"""The denoising loss of each sample, and the draws that it is measured at.

Nothing here averages over a batch: a method is a weight per sample, and needs the losses as they
are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fairdiff_lib.model.pipeline import BATCH, conditioning
from fairdiff_lib.settings.errors import InputError

if TYPE_CHECKING:
    from diffusers import DDPMScheduler

# l_i = mean_{c,h,w} (target_i - unet(sqrt(abar_t) z_i + sqrt(1 - abar_t) e_i, t_i, text_i))^2


def denoising_loss(
    unet: Any, scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor
) -> Tensor:  # [N]
    """Squared denoising error of each sample, float32 [N], unreduced over the batch.

    Latents (scaled) and noise (standard normal) are float32 [N, C, h, w], timesteps int64 [N]; text
    is what the network takes for prompts. An adapter's own loss adds to the gradient alone.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    target = denoising_target(scheduler, latents, noise, timesteps)
    output = unet(noisy, timesteps, encoder_hidden_states=text)
    error: Tensor = output.sample.float() - target.float()
    loss = error.square().flatten(1).mean(dim=1)
    auxiliary: Tensor | None = getattr(output, "auxiliary", None)
    return loss if auxiliary is None else loss + (auxiliary - auxiliary.detach())


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


def snr_weights(scheduler: Any, timesteps: Tensor, gamma: float) -> Tensor:
    """Weight of a sample's loss by its timestep, float32 [N]; 1 on average over the schedule.

    ``min(SNR, gamma)`` of the error in the clean sample (Hang et al. 2023), brought to what the
    network predicts: divided by SNR for the noise, by SNR + 1 for v.
    """
    alphas = scheduler.alphas_cumprod
    snr = alphas / (1.0 - alphas)
    divisor = {"epsilon": snr, "v_prediction": snr + 1.0, "sample": torch.ones_like(snr)}
    weights = snr.clamp(max=gamma) / divisor[scheduler.config.prediction_type]
    found: Tensor = (weights / weights.mean())[timesteps.cpu()]
    return found.to(timesteps.device)


def training_scheduler(pipeline: Any) -> DDPMScheduler:
    """The pipeline's noise schedule, for training; its prediction_type is honoured."""
    from diffusers import DDPMScheduler

    scheduler: DDPMScheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    return scheduler


# -- draws that belong to a name ---------------------------------------------------------------


def seed_for(seed: int, *names: object) -> int:
    """63-bit seed that depends on a seed and names alone: no other row, batch or process."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *names: object) -> torch.Generator:
    """Fresh CPU generator of :func:`seed_for`."""
    return torch.Generator("cpu").manual_seed(seed_for(seed, *names))


def row_noise(latents: Tensor, seed: int, name: str) -> Tensor:
    """Standard normal float32 [C, h, w] of a named row."""
    return torch.randn(latents.shape[1:], generator=generator_for(seed, name))


def loss_at(
    module: nn.Module,
    scheduler: Any,
    latents: Tensor,
    text: Tensor,
    names: Sequence[str],
    timestep: int,
    seed: int,
) -> Tensor:  # [N]
    """:func:`denoising_loss` of named rows at one timestep and their own noise, with gradient."""
    device = next(module.parameters()).device
    noise = torch.stack([row_noise(latents, seed, f"{name}/{timestep}") for name in names])
    steps = torch.full((len(noise),), timestep)
    own = (part.to(device) for part in (latents, noise, steps, text))
    return denoising_loss(module, scheduler, *own)


@torch.no_grad()
def denoising_losses_at(
    pipeline: Any,
    latents: Tensor,
    prompts: Sequence[str],
    names: Sequence[str],
    timesteps: Sequence[int],
    seed: int,
    batch: int = BATCH,
) -> Tensor:  # [N, T]
    """Denoising loss of each row at fixed timesteps, with noise that belongs to the row, float64.

    The noise depends on seed, name and timestep alone, so rows can be compared between checkpoints.
    Latents, float32 [N, C, h, w], are scaled, as of ``pipeline.mean_latents``.
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
