"""A classifier's parts: networks, drop path, augmentation, loss per sample, selection.

Four architectures: a small residual network, EfficientNet and ViT from transformers' own
configurations, from scratch or from pretrained weights, and EfficientNet-lite0 from ImageNet's.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers as hf  # its parts are loaded when they are named
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from fairdiff_lib.classify.predictions import Images, Labels, Levels
from fairdiff_lib.disk.files import atomic_file
from fairdiff_lib.model.lite import load_lite0
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ClassifierConfig

SELECTION_BATCH = 256  # validation images per pass
SHIFT = 0.06  # largest augmenting shift, fraction of the image's side
MOMENTUM = 0.1  # share of a new batch in the statistics that predictions use
TOP_CHANNELS = 1280  # of EfficientNet-B0's last convolution


# -- the network -----------------------------------------------------------------------------


def _norm(channels: int) -> nn.GroupNorm:
    """Per-sample normalisation, so that a prediction can't depend on the batch around it."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016), with GroupNorm."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
        self.first_norm = _norm(outward)
        self.second = nn.Conv2d(outward, outward, 3, 1, 1, bias=False)
        self.second_norm = _norm(outward)
        same = inward == outward and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inward, outward, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, inward, H, W] => [B, outward, H/stride, W/stride]
        h = functional.relu(self.first_norm(self.first(x)))
        out: Tensor = functional.relu(self.second_norm(self.second(h)) + self.shortcut(x))
        return out


class _Headed(nn.Module):
    """Features of an image, and a linear head on them for each condition."""

    def put_heads(self, width: int, levels: Levels) -> None:
        self.names = tuple(levels)
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in levels.values())

    def features(self, pixels: Tensor) -> Tensor:  # [B, 3, H, W] in [-1, 1] => [B, width]
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:  # [B, 3, H, W] => name: [B, levels]
        h = self.features(pixels)
        return {name: head(h) for name, head in zip(self.names, self.heads, strict=True)}


class ResidualNetwork(_Headed):
    """Stem, a block per stage, mean and maximum over space, features, a linear head per condition.

    The mean carries how much of something an image shows, the maximum whether it shows it
    anywhere: with the mean alone a small local sign is drowned by the easier conditions. The stem
    and every stage halve the side. (A first stage that keeps it costs twice the time for the same
    validation loss on HAM10000 at 64 pixels.)
    """

    def __init__(self, config: ClassifierConfig, levels: Levels) -> None:
        super().__init__()
        widths = (config.channels[0], *config.channels)
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)
        self.stem_norm = _norm(widths[0])
        self.stages = nn.Sequential(*[BasicBlock(a, b, 2) for a, b in pairwise(widths)])
        self.project = nn.Linear(2 * widths[-1], config.feature_width)
        self.put_heads(config.feature_width, levels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 20% faster

    def features(self, pixels: Tensor) -> Tensor:  # [B, 3, H, W] in [-1, 1] => [B, feature_width]
        h = self.stages(functional.relu(self.stem_norm(self.stem(pixels))))
        pooled = torch.cat([h.mean(dim=(2, 3)), h.amax(dim=(2, 3))], dim=1)
        return functional.silu(self.project(pooled))  # smooth: no feature dies to a constant

    def stage_means(self, pixels: Tensor) -> Tensor:  # [B, 3, H, W] => [B, sum of channels]
        """Mean over space of every stage's maps: fine texture first, what it means last."""
        h = functional.relu(self.stem_norm(self.stem(pixels)))
        means = []
        for stage in self.stages:
            h = stage(h)
            means.append(h.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


def to_pixels(images: Tensor) -> Tensor:  # uint8 [B, 3, H, W] => float32 in [-1, 1]
    """Scale bytes for the network."""
    pixels = images.to(torch.float32).div_(127.5).sub_(1)
    return pixels.contiguous(memory_format=torch.channels_last)


# -- drop path -------------------------------------------------------------------------------


class DropPath(nn.Module):
    """Leaves a residual branch out for single samples of a training batch (Huang et al. 2016).

    A branch that stays is divided by the chance of staying (1 - ``rate``), so that its mean is the
    same. Which samples lose it is drawn beforehand for all rows of a step, so that a resumed run,
    another micro batch or more processes see the same; ``uses`` times per forward pass.
    """

    def __init__(self, rate: float, uses: int) -> None:
        super().__init__()
        self.rate, self.uses = rate, uses
        self.waiting: list[Tensor] = []  # of each use to come, bool [b]

    def draw(self, count: int, part: slice, generator: torch.Generator) -> None:
        """Decide for ``part`` of a step's ``count`` rows."""
        chance = torch.rand(self.uses, count, generator=generator)
        self.waiting = list((chance >= self.rate)[:, part])

    def forward(self, branch: Tensor) -> Tensor:  # [b, ...] => the same
        if not self.training or not self.rate:
            return branch
        stays = self.waiting.pop(0).to(branch.device, branch.dtype) / (1 - self.rate)
        return branch * stays.view(-1, *[1] * (branch.ndim - 1))


# -- backbones from transformers -------------------------------------------------------------


def _put_drop_paths(backbone: nn.Module, rate: float) -> None:
    """Put drop paths, growing linearly with depth to ``rate``, at the end of residual branches."""
    if isinstance(backbone, hf.ViTModel):
        blocks = list(backbone.layers)
        rates = torch.linspace(0, rate, len(blocks)).tolist()
        for block, own in zip(blocks, rates, strict=True):
            block.dropout = DropPath(own, 2)  # ends attention, then the multi-layer perceptron
        return
    finals = [block.projection for block in backbone.encoder.blocks]  # type: ignore[union-attr]
    rates = torch.linspace(0, rate, len(finals)).tolist()
    for final, own in zip(finals, rates, strict=True):
        final.dropout = DropPath(own if final.apply_dropout else 0.0, 1)


def _scratch_config(
    config: ClassifierConfig,
) -> hf.ViTConfig | hf.EfficientNetConfig:
    """The library's configuration at the sizes of ours."""
    if config.architecture == "vit":
        return hf.ViTConfig(
            image_size=config.input_size, patch_size=config.patch, hidden_size=config.width,
            num_hidden_layers=config.layers, num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
        )  # fmt: skip
    width = config.width_coefficient
    return hf.EfficientNetConfig(
        image_size=config.input_size,
        width_coefficient=width,
        depth_coefficient=config.depth_coefficient,
        hidden_dim=max(8, int(TOP_CHANNELS * width + 4) // 8 * 8),  # as the library rounds
    )


def _from_config(own: hf.ViTConfig | hf.EfficientNetConfig) -> nn.Module:
    backbone: nn.Module
    if isinstance(own, hf.ViTConfig):
        backbone = hf.ViTModel(own, add_pooling_layer=False)
        return backbone
    backbone = hf.EfficientNetModel(own)
    for part in backbone.modules():
        # the library draws scales of normalisation around 0, where hardly any signal comes through
        if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
            part.reset_parameters()
    return backbone


def load_pretrained(what: str, source: str, revision: str, field: str) -> tuple[Any, nn.Module]:
    """Image processor (PIL: torchvision isn't needed) and model, or one clear line.

    ``what`` begins the line; ``source`` is a local folder (wins where both exist) or a hub id. Its
    ``revision`` (a commit) is required there, never guessed; ``field`` is the setting for it.
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
            processor = hf.AutoImageProcessor.from_pretrained(source, revision=at, backend="pil")
            model, report = hf.AutoModel.from_pretrained(
                source, revision=at, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _not_loaded(what, source, error) from error
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise InputError(
            f"{what} {source!r}: {len(missing)} tensors are missing from its weights, "
            f"as {missing[0]}; expected a whole model"
        )
    return processor, model


def _not_loaded(what: str, source: str, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(f"{what} {source!r}: cannot be loaded ({reason})")


def _check_kind(config: ClassifierConfig) -> None:
    """Refuse a folder or hub id of another architecture before its weights are read."""
    source = config.pretrained
    local = Path(source).is_dir()
    if not local and not config.revision:
        return  # refused with its reason by load_pretrained
    try:
        kind = hf.AutoConfig.from_pretrained(source, revision=None if local else config.revision)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded("classifier", source, error) from error
    if kind.model_type != config.architecture:
        raise InputError(
            f"classifier {source!r}: weights of another architecture; model_type is "
            f"{kind.model_type!r}, expected {config.architecture!r}"
        )


class TransformersNetwork(_Headed):
    """A backbone (of ``stored`` notes, where saved), features averaged over space, linear heads."""

    def __init__(
        self, config: ClassifierConfig, levels: Levels, stored: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.input_size = config.input_size
        mean, std = [0.5] * 3, [0.5] * 3  # of pixels in [0, 1]; these leave [-1, 1] as it is
        if stored is not None:
            kind = hf.ViTConfig if config.architecture == "vit" else hf.EfficientNetConfig
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
        self.put_heads(self.width, levels)
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


class LiteNetwork(_Headed):
    """EfficientNet-lite0 from its ImageNet weights, fine-tuned, with linear heads.

    Its normalisation keeps ImageNet's running means: batches of a small cohort would spoil them.
    """

    def __init__(self, config: ClassifierConfig, levels: Levels) -> None:
        super().__init__()
        self.input_size = config.input_size
        self.trunk, _ = load_lite0(config.input_size)
        self.trunk._fc = nn.Identity()  # ImageNet's head would get no gradient
        self.trunk.requires_grad_(True)
        self.put_heads(TOP_CHANNELS, levels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> LiteNetwork:
        super().train(mode)
        self.trunk.eval()
        return self

    def features(self, pixels: Tensor) -> Tensor:  # [B, 3, H, W] in [-1, 1] => [B, TOP_CHANNELS]
        side = self.input_size
        if pixels.shape[-2:] != (side, side):
            pixels = functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        seen = (127.5 * pixels + 0.5) / 128  # of bytes, (x - 127) / 128: see model/lite.py
        maps: Tensor = self.trunk.extract_features(seen)
        return maps.mean(dim=(2, 3))


def build_network(
    config: ClassifierConfig, levels: Levels, stored: Mapping[str, Any] | None = None
) -> nn.Module:
    """The network that a configuration names, with fresh or pretrained weights."""
    if config.architecture == "residual":
        return ResidualNetwork(config, levels)
    if config.architecture == "lite0":
        return LiteNetwork(config, levels)
    return TransformersNetwork(config, levels, stored)


# -- layer-wise learning rates ---------------------------------------------------------------


def parameter_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameters by depth, each group with its share of the learning rate.

    The embeddings of a transformer are layer 0 and its heads layer L + 1; layer k learns at
    ``decay ** (L + 1 - k)`` times the rate (Clark et al. 2020); decay 1: one group, the full rate.
    """
    if decay == 1:
        return [{"params": list(module.parameters())}]
    backbone: Any = module.backbone
    last = len(backbone.layers) + 1
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        depth = 0 if name.startswith("backbone.embeddings.") else last
        if name.startswith("backbone.layers."):
            depth = int(name.split(".")[2]) + 1
        groups.setdefault(depth, []).append(parameter)
    return [
        {"params": own, "rate_share": decay ** (last - depth)}
        for depth, own in sorted(groups.items())
    ]


# -- the objective ---------------------------------------------------------------------------


def multitask_loss(logits: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Sum over conditions of the cross-entropy, per sample [B]; a label of -1 adds nothing."""
    parts = [
        functional.cross_entropy(values.float(), labels[:, i], ignore_index=-1, reduction="none")
        for i, values in enumerate(logits.values())
    ]
    return torch.stack(parts).sum(dim=0)


def augment(images: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
    """Mirror [B] left to right and shift [B, 2] pixels (down, right), repeating the edge."""
    count, channels, height, width = images.shape
    y = (torch.arange(height) - shift[:, :1]).clamp(0, height - 1)  # [B, H]
    x = (torch.arange(width) - shift[:, 1:]).clamp(0, width - 1)  # [B, W]
    x = torch.where(flip[:, None], x.flip(1), x)
    sample = torch.arange(count)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    return images[sample, channel, y[:, None, :, None], x[:, None, None, :]]


@dataclass
class ClassificationObjective:
    """What ``loop.fit`` optimises: images [N, 3, H, W] and labels [N, C] in memory, one network."""

    module: nn.Module
    images: Images
    labels: Labels
    decay: float = 1.0

    def parameter_groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self.module, self.decay)

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:  # rows int64 [B] => [b]
        """Unreduced loss of ``rows[part]`` under an augmentation drawn for all rows."""
        reach = max(1, round(SHIFT * self.images.shape[-1]))
        flip = torch.rand(len(rows), generator=generator) < 0.5
        shift = torch.randint(-reach, reach + 1, (len(rows), 2), generator=generator)
        for own in module.modules():  # a network without drop paths leaves the generator alone
            if isinstance(own, DropPath) and own.rate:
                own.draw(len(rows), part, generator)
        chosen, place = rows[part].numpy(), device_of(module)
        images = torch.from_numpy(self.images[chosen])
        seen = augment(images, flip[part], shift[part]).to(place)
        labels = torch.from_numpy(self.labels[chosen]).to(place)
        return multitask_loss(module(to_pixels(seen)), labels)


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


# -- selection -------------------------------------------------------------------------------


class Selection:
    """Keeps the weights with the least validation loss (or ``score``), in a file to resume from."""

    def __init__(
        self, config: ClassifierConfig, images: Images, labels: Labels, path: Path | None, key: str,
        score: Callable[[nn.Module], float] | None = None,
    ) -> None:  # fmt: skip
        self.every, self.steps = config.evaluate_every, config.loop.steps
        self.score = score
        self.images, self.labels = images, labels
        self.path, self.key = path, key
        self.curve: dict[int, float] = {}  # step: mean loss, nats, or the score
        self.best: dict[str, Tensor] | None = None
        self.best_step = 0
        if path is not None and path.is_file():
            self._resume(path)

    def _resume(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as stored:
                notes = stored.metadata() or {}
        except SafetensorError as error:
            raise InputError(f"{path}: not readable ({error}); delete its folder") from error
        if notes.get("key") == self.key:  # same data and settings; others are overwritten
            self.best = load_file(path)
            self.best_step = int(notes["step"])
            self.curve = {int(k): float(v) for k, v in json.loads(notes["curve"]).items()}

    def __call__(self, step: int, module: nn.Module) -> None:
        if step % self.every and step != self.steps:
            return
        network = getattr(module, "module", module)  # bare, where several processes wrap it
        score = self.score or (lambda own: mean_loss(own, self.images, self.labels))
        self.curve[step] = score(network)
        best = self.curve.get(self.best_step, math.inf)
        if self.curve[step] < best:  # never true of a loss that isn't a number
            self.best_step = step
            self.best = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
        if self.path is not None and self.best is not None:
            notes = {"key": self.key, "step": str(self.best_step), "curve": json.dumps(self.curve)}
            with atomic_file(self.path) as temporary:
                save_file(contiguous(self.best), temporary, metadata=notes)


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors stores plain layouts only."""
    return {name: value.contiguous() for name, value in state.items()}


def mean_loss(module: nn.Module, images: Images, labels: Labels) -> float:
    """Mean over images of the multi-task loss, without augmentation."""
    total, place = 0.0, device_of(module)
    training = module.training
    module.eval()
    with torch.inference_mode():
        for start in range(0, len(images), SELECTION_BATCH):
            part = slice(start, start + SELECTION_BATCH)
            pixels = to_pixels(torch.tensor(images[part], device=place))
            wanted = torch.tensor(labels[part], device=place)
            total += float(multitask_loss(module(pixels), wanted).double().sum())
    module.train(training)
    return total / len(images)
