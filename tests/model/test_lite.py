"""What the frozen network sees between two pictures."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from fairdiff_lib.audit.blur import blur_images
from fairdiff_lib.model import lite
from fairdiff_lib.model.lite import Perceptual
from fairdiff_lib.model.pipeline import to_model


def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    return blur_images(rng.integers(0, 255, (3, 3, 64, 64), dtype=np.uint8), 0.6)


def test_blur_is_seen_the_more_the_stronger_and_a_picture_is_itself() -> None:
    real, seen = pictures(), Perceptual()
    blurs = [to_model(blur_images(real, sigma)) for sigma in (0.5, 1.0, 2.0)]
    with torch.no_grad():
        same, *found = [seen(made, to_model(real)) for made in (to_model(real), *blurs)]
    assert same.shape == (3,) and float(same.abs().max()) == 0
    assert all(bool((b > 1.2 * a).all()) for a, b in pairwise(found))


def test_its_gradient_leads_back_to_the_picture() -> None:
    real, seen = to_model(pictures()), Perceptual()
    made = to_model(blur_images(pictures(), 1.0)).requires_grad_()
    before = seen(made, real)
    before.sum().backward()
    assert made.grad is not None and not any(p.requires_grad for p in seen.parameters())
    with torch.no_grad():
        after = seen(made - 1e-2 * made.grad / made.grad.abs().mean(), real)
    assert bool((after < before).all())


@pytest.mark.parametrize("side", [64, 97])  # even ones are padded more at their end
def test_the_folded_network_computes_the_same(side: int) -> None:
    pixels = torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(0))
    plain, _ = lite.load_lite0(side)
    folded, _ = lite.load_lite0(side)
    lite.fold(folded)
    assert not any(isinstance(one, nn.BatchNorm2d) for one in folded.modules())
    with torch.no_grad():
        wanted, found = plain.extract_features(pixels), folded.extract_features(pixels)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
