"""Precision, memory, processes: what a machine can't do is refused; what it can changes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from fairdiff_lib.model import device, pipeline
from fairdiff_lib.model.pipeline import build_pipeline, encode_images
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


@pytest.fixture
def unet() -> Any:
    return build_pipeline(SMALL, ["a photograph"], seed=0).unet


def gradient(unet: Any, precision: str = "no") -> torch.Tensor:
    """Of a fixed loss, all parameters in one."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 8, 16, generator=generator)
    unet.train().zero_grad()
    with device.autocast(precision):
        out = unet(noisy, torch.tensor([10, 500]), encoder_hidden_states=text).sample
    out.float().square().mean().backward()
    return torch.cat([p.grad.flatten() for p in unet.parameters()])


def test_half_precision_without_a_gpu_is_one_line() -> None:
    loop = LoopConfig(mixed_precision="fp16")
    with pytest.raises(InputError, match=r"^training\.mixed_precision=fp16: needs a GPU") as caught:
        device.check_loop(loop, "training")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="mixed_precision=fp16: needs a GPU"):
        device.accelerator("fp16")
    device.check_loop(replace(loop, mixed_precision="bf16"))


def test_an_optimiser_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^training.optimiser=adamw8bit: .*\.\[gpu\]") as caught:
        device.check_loop(LoopConfig(optimiser="adamw8bit"), "training")
    assert "\n" not in str(caught.value)


def test_eight_bits_hold_adams_state() -> None:
    """Its first step is Adam's: the learning rate against the gradient's sign."""
    pytest.importorskip("bitsandbytes")
    weight = nn.Parameter(torch.ones(128, 64))  # smaller ones keep 32 bits
    weight.grad = torch.where(torch.arange(64) % 2 == 0, 0.5, -0.5).expand(128, 64).clone()
    loop = LoopConfig(optimiser="adamw8bit", learning_rate=0.1, weight_decay=0.0)
    optimiser = device.optimiser_of([weight], loop)
    optimiser.step()
    moments = [v for k, v in optimiser.state[weight].items() if k in ("state1", "state2")]
    assert [m.dtype for m in moments] == [torch.uint8, torch.uint8]
    expected = 1.0 - 0.1 * weight.grad.sign()
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=2e-3)


def test_two_precisions_in_one_process() -> None:
    for precision in ("no", "bf16", "no"):
        made = device.accelerator(precision)
        own = device.carried_out(precision)
        assert made.mixed_precision == own
        with made.autocast():
            half = torch.ones(2, 2) @ torch.ones(2, 2)
        assert half.dtype == (torch.bfloat16 if own == "bf16" else torch.float32)


def test_a_processor_without_bf16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, unet: Any
) -> None:
    """AVX-512 alone is not enough: torch would widen every number and narrow it again."""
    before = unet.attn_processors
    for there, own in (({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
                       ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
                       ({"avx512_bf16": False, "amx_bf16": False}, "no")):  # fmt: skip
        found = {"architecture": "x86_64", "avx512_bw": True, **there}
        monkeypatch.setattr(torch.cpu, "get_capabilities", found.copy)
        assert [device.carried_out(one) for one in ("no", "fp16", "bf16")] == ["no", "fp16", own]
    assert device.accelerator("bf16").mixed_precision == "no"
    with device.autocast("bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    device.arrange(unet, MachineConfig(), "bf16")  # whose fused attention is the faster then
    assert {type(one) for one in unet.attn_processors.values()} == {
        type(one) for one in before.values()
    }


def test_recomputed_activations_give_the_same_gradient(unet: Any) -> None:
    device.arrange(unet, MachineConfig())  # the same layout, which rounds in its own way
    plain = gradient(unet)
    device.arrange(unet, MachineConfig(gradient_checkpointing=True))
    assert unet.is_gradient_checkpointing
    assert torch.equal(gradient(unet), plain)


def test_the_layout_changes_a_gradient_by_its_rounding_alone(unet: Any) -> None:
    plain = gradient(unet)
    device.arrange(unet, MachineConfig(channels_last=True))
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gradient(unet), plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_a_processor_without_bf16_lays_weights_out_as_it_computes_faster(
    unet: Any, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {**torch.cpu.get_capabilities(), "architecture": "x86_64"}
    there |= {"avx512_bf16": half, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", there.copy)
    device.arrange(unet, MachineConfig())
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last) is not half


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_a_compiled_network_gives_the_gradient_of_the_plain_one(unet: Any) -> None:
    plain = gradient(unet)
    device.arrange(unet, MachineConfig(compile=True))
    torch.testing.assert_close(gradient(unet), plain, rtol=1e-3, atol=1e-6)


def test_bf16_on_a_cpu_takes_the_plain_attention_and_is_close(
    unet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gradient(unet)
    there = {**torch.cpu.get_capabilities(), "architecture": "x86_64", "avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", there.copy)  # imitated where it is not
    device.arrange(unet, MachineConfig(), "bf16")
    assert {type(own) for own in unet.attn_processors.values()} == {AttnProcessor}
    half = gradient(unet, "bf16")
    assert float((half - plain).norm() / plain.norm()) < 0.05
    assert not torch.equal(half, plain)


@pytest.mark.parametrize(("pixels", "large"), [(1 << 18, [4, 1]), (1 << 16, [1] * 5)])
def test_images_are_encoded_in_batches_that_fit(
    pixels: int, large: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is as many pixels, whatever the images' size; latents don't depend on it."""
    for budget in ("PIXELS", "CACHED"):  # of a GPU, of a processor
        monkeypatch.setattr(pipeline, budget, pixels)
    vae, seen = build_pipeline(SMALL, ["a"], seed=0).vae, []
    encode = vae.encode

    def counted(pixels: torch.Tensor) -> Any:
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(vae, "encode", counted)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 256, 256), dtype=np.uint8)
    mean, _ = encode_images(vae, images)
    assert seen == large and mean.shape == (5, 4, 64, 64)
    torch.testing.assert_close(mean[4:], encode_images(vae, images[4:])[0])
    seen.clear()
    encode_images(vae, images[:, :, :32, :32].repeat(20, axis=0))
    assert seen == [64, 36]


# -- writing beside the work --------------------------------------------------------------------


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[device.Writer]:
    made = device.Writer()
    made.beside = True  # as on a GPU
    yield made
    made.wait()


def test_what_is_written_beside_is_what_was_there_when_it_was_asked_for(
    writer: device.Writer, tmp_path: Path
) -> None:
    value, go = torch.zeros(3), threading.Event()
    kept: list[Any] = []

    def work(tree: Any) -> None:
        assert go.wait(10)
        kept.append(tree)

    writer.write(work, {"a": [value, 1], "b": None})
    value += 1.0  # the training goes on
    go.set()
    writer.wait()
    assert kept[0]["b"] is None and kept[0]["a"][1] == 1
    assert torch.equal(kept[0]["a"][0], torch.zeros(3))


def test_one_is_written_after_the_other_and_an_error_is_not_lost(writer: device.Writer) -> None:
    order: list[int] = []

    def slow(number: int) -> None:
        time.sleep(0.05 if number == 0 else 0.0)
        order.append(number)

    for number in range(3):
        writer.write(slow, number)
    writer.wait()
    assert order == [0, 1, 2]

    def fail(_: Any) -> None:
        raise OSError("disk full")

    writer.write(fail, None)
    with pytest.raises(OSError, match="disk full"):
        writer.wait()
