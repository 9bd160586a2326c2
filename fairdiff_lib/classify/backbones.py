"""Classifiers from transformers: EfficientNet and ViT, from scratch or from pretrained weights.

Each is a backbone of the library's own configuration, pooled to features, and a linear head per
condition, as ``networks.ResidualNetwork``. Stochastic depth ("drop path") is the one part that
these backbones lack: see ``networks.DropPath``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    EfficientNetConfig,
    EfficientNetModel,
    ViTConfig,
    ViTModel,
)

from fairdiff_lib.classify.networks import DropPath, ResidualNetwork
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ClassifierConfig

Heads = Sequence[tuple[str, int]]  # condition and its number of levels
MOMENTUM = 0.1  # share of a new batch in the statistics that predictions use
TOP_CHANNELS = 1280  # of EfficientNet-B0's last convolution


# -- drop path -------------------------------------------------------------------------------


def _put_drop_paths(backbone: nn.Module, rate: float) -> None:
    """Put drop paths, growing linearly with depth to ``rate``, at the end of residual branches."""
    if isinstance(backbone, ViTModel):
        blocks = list(backbone.layers)
        rates = torch.linspace(0, rate, len(blocks)).tolist()
        for block, own in zip(blocks, rates, strict=True):
            block.dropout = DropPath(own, 2)  # ends attention, then the multi-layer perceptron
        return
    finals = [block.projection for block in backbone.encoder.blocks]  # type: ignore[union-attr]
    rates = torch.linspace(0, rate, len(finals)).tolist()
    for final, own in zip(finals, rates, strict=True):
        final.dropout = DropPath(own if final.apply_dropout else 0.0, 1)


# -- backbones -------------------------------------------------------------------------------


def _scratch_config(config: ClassifierConfig) -> ViTConfig | EfficientNetConfig:
    """The library's configuration at the sizes of ours."""
    if config.architecture == "vit":
        return ViTConfig(
            image_size=config.input_size,
            patch_size=config.patch,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
        )
    width = config.width_coefficient
    return EfficientNetConfig(
        image_size=config.input_size,
        width_coefficient=width,
        depth_coefficient=config.depth_coefficient,
        hidden_dim=max(8, int(TOP_CHANNELS * width + 4) // 8 * 8),  # as the library rounds
    )


def _from_config(own: ViTConfig | EfficientNetConfig) -> nn.Module:
    """A backbone with fresh weights."""
    if isinstance(own, ViTConfig):
        transformer: nn.Module = ViTModel(own, add_pooling_layer=False)
        return transformer
    backbone: nn.Module = EfficientNetModel(own)
    for part in backbone.modules():
        # the library draws scales of normalisation around 0, where hardly any signal comes through
        if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
            part.reset_parameters()
    return backbone


def load_pretrained(what: str, source: str, revision: str, field: str) -> tuple[Any, nn.Module]:
    """Image processor (PIL: torchvision isn't needed) and model, or one clear line.

    Parameters
    ----------
    what : str
        Begins the line, as "features" or "classifier".
    source : str
        Local folder (wins where both exist), or hub id.
    revision : str
        Commit of the hub id: required there, never guessed.
    field : str
        The setting that a revision belongs in.

    Raises
    ------
    InputError
        No revision for a hub id, weights that are not to be had, or incomplete ones.
    """
    local = Path(source).is_dir()
    if not local and not revision:
        raise InputError(
            f"{what} {source!r}: no such folder, and as a hub id it needs a revision "
            f"({field}: the commit to take)"
        )
    at = None if local else revision
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # the fall-back to PIL
            processor = AutoImageProcessor.from_pretrained(source, revision=at, backend="pil")
            model, report = AutoModel.from_pretrained(
                source, revision=at, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{what} {source!r}: cannot be loaded ({reason})") from error
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(
            f"{what} {source!r}: {len(missing)} tensors are missing from its weights, "
            f"as {missing[0]}; expected a whole model"
        )
    return processor, model


def _check_kind(config: ClassifierConfig) -> None:
    """Refuse a folder or hub id of another architecture before its weights are read."""
    source = config.pretrained
    local = Path(source).is_dir()
    if not local and not config.revision:
        return  # refused with its reason by load_pretrained
    try:
        kind = AutoConfig.from_pretrained(source, revision=None if local else config.revision)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"classifier {source!r}: cannot be loaded ({reason})") from error
    if kind.model_type != config.architecture:
        raise InputError(
            f"classifier {source!r}: weights of another architecture; model_type is "
            f"{kind.model_type!r}, expected {config.architecture!r}"
        )


# -- the network -----------------------------------------------------------------------------


class TransformersNetwork(nn.Module):
    """A backbone, its features averaged over space, a linear head per condition.

    Parameters
    ----------
    config : ClassifierConfig
    heads : sequence of (str, int)
        Condition and its number of levels.
    stored : mapping, optional
        ``backbone_notes`` of a saved network, so that no pretrained weights are asked for.
    """

    def __init__(
        self, config: ClassifierConfig, heads: Heads, stored: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.input_size = config.input_size
        mean, std = [0.5] * 3, [0.5] * 3  # of pixels in [0, 1]; these leave [-1, 1] as it is
        if stored is not None:
            kind = ViTConfig if config.architecture == "vit" else EfficientNetConfig
            self.backbone = _from_config(kind(**stored))
        elif config.pretrained:
            _check_kind(config)
            field = f"{config.architecture}.revision"
            given = load_pretrained("classifier", config.pretrained, config.revision, field)
            mean, std, self.backbone = given[0].image_mean, given[0].image_std, given[1]
        else:
            self.backbone = _from_config(_scratch_config(config))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        _put_drop_paths(self.backbone, config.drop_path)
        for part in self.backbone.modules():
            if isinstance(part, nn.BatchNorm2d):  # the library's 0.99 would keep the last batch
                part.momentum = MOMENTUM
        own: Any = self.backbone.config
        self.tokens = config.architecture == "vit"
        if self.tokens:
            self.backbone.pooler = None  # type: ignore[assignment]  # it would get no gradient
        self.width = int(own.hidden_size if self.tokens else own.hidden_dim)
        self.names = tuple(name for name, _ in heads)
        self.heads = nn.ModuleList(nn.Linear(self.width, count) for _, count in heads)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def backbone_notes(self) -> dict[str, Any]:
        """What the backbone is built from, plain data."""
        own: Any = self.backbone.config
        return dict(own.to_diff_dict())

    def features(self, pixels: Tensor) -> Tensor:  # [B, 3, H, W] in [-1, 1] => [B, width]
        side = self.input_size
        if pixels.shape[-2:] != (side, side):
            pixels = functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        seen = ((pixels + 1) / 2 - self.mean) / self.std  # type: ignore[operator]
        if self.tokens:
            hidden: Tensor = self.backbone(seen, interpolate_pos_encoding=True).last_hidden_state
            return hidden[:, 1:].mean(dim=1)  # of the patches
        maps: Tensor = self.backbone(seen).last_hidden_state
        return maps.mean(dim=(2, 3))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:  # [B, 3, H, W] => name: [B, levels]
        h = self.features(pixels)
        return {name: head(h) for name, head in zip(self.names, self.heads, strict=True)}


def build_network(
    config: ClassifierConfig, heads: Heads, stored: Mapping[str, Any] | None = None
) -> nn.Module:
    """The network that a configuration names, with fresh or pretrained weights."""
    if config.architecture == "residual":
        return ResidualNetwork(config, heads)
    return TransformersNetwork(config, heads, stored)


# -- layer-wise learning rates ---------------------------------------------------------------


def parameter_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameters by depth, each group with its share of the learning rate.

    The embeddings of a transformer are layer 0 and its heads layer L + 1; layer k learns at
    ``decay ** (L + 1 - k)`` times the rate (Clark et al. 2020).

    Parameters
    ----------
    module : Module
    decay : float
        In (0, 1]; 1 = one group with the full rate.
    """
    if decay == 1:
        return [{"params": list(module.parameters())}]
    backbone: Any = module.backbone
    last = len(backbone.layers) + 1
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        groups.setdefault(_depth(name, last), []).append(parameter)
    return [
        {"params": own, "rate_share": decay ** (last - depth)}
        for depth, own in sorted(groups.items())
    ]


def _depth(name: str, last: int) -> int:
    """Layer of a parameter: 0 embeddings, 1 to L blocks, ``last`` all that follows."""
    if name.startswith("backbone.embeddings."):
        return 0
    if name.startswith("backbone.layers."):
        return int(name.split(".")[2]) + 1
    return last
