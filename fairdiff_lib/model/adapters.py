"""Parameters beside a U-Net that need to know each sample's groups, in training and generation.

A pipeline with an adapter has it as its attribute ``adapter`` and in its folder as ``adapter/``.
The groups of a sample are looked up by its whole prompt in a table that is saved with the weights;
nothing is searched for in a prompt's words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.settings.errors import InputError, refuse_unknown

# prompt -> prompt as encoded, level of each attribute
Prompts = Mapping[str, tuple[str, list[int]]]
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")  # of an attention block


class Adapter(nn.Module):
    """One that does nothing, for every prompt of a data set; ``sizes``: levels per attribute."""

    def __init__(self, prompts: Prompts, sizes: list[int], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.prompts, self.sizes, self.options = dict(prompts), list(sizes), dict(options)

    def look_up(self, prompts: Sequence[str]) -> tuple[list[str], Tensor]:
        """Prompts as encoded, and level codes int64 [N, A]; -1 throughout for the empty prompt."""
        known: Prompts = {"": ("", [-1] * len(self.sizes)), **self.prompts}
        for prompt in prompts:
            if prompt not in known:
                raise InputError(
                    f"prompt {prompt!r}: this model knows the groups of its dataset's "
                    f"{len(self.prompts)} prompts only, as {next(iter(self.prompts))!r}"
                )
        return [known[p][0] for p in prompts], torch.tensor([known[p][1] for p in prompts])

    def attach(self, unet: nn.Module) -> None:
        """Become part of a U-Net's forward pass."""

    def select(self, codes: Tensor) -> None:
        """The levels int64 [B, A] of the next forward pass' samples."""

    def text(self, features: Tensor, codes: Tensor) -> Tensor:
        """What the U-Net's cross-attention sees: [N, L, D] and int64 [N, A] => [N, L', D]."""
        return features

    def auxiliary(self, codes: Tensor) -> Tensor | None:
        """A loss of the adapter's own for each sample, float [N]."""
        return None


class TokenAdapter(Adapter):
    """Demographic tokens: a token per attribute and per pair of attributes, each with a head.

    The attributes' tokens are embeddings of their levels; a pair's token is a two-layer network
    of its two attributes' tokens. A linear head on each token must tell the levels it stands for
    (cross-entropy), so that tokens keep apart. The unconditional pass sees tokens of their own.

    Options: width (D of the cross-attention), auxiliary_weight.
    """

    def __init__(self, prompts: Prompts, sizes: list[int], options: Mapping[str, Any]) -> None:
        super().__init__(prompts, sizes, options)
        width, count = int(options["width"]), len(sizes)
        self.pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
        self.levels = nn.Embedding(sum(sizes) + count, width)
        self.compose = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in self.pairs
        )
        told = [(a,) for a in range(count)] + self.pairs  # attributes that each token stands for
        self.told = [(token, a) for token, own in enumerate(told) for a in own]
        self.heads = nn.ModuleList(nn.Linear(width, sizes[a]) for _, a in self.told)

    def tokens(self, codes: Tensor) -> Tensor:
        """Extra tokens of each sample, float [N, A + A (A - 1) / 2, D]."""
        # the table has an "unknown" (-1) after each attribute's levels
        ends = torch.tensor(self.sizes, device=codes.device)
        starts = (ends + 1).cumsum(0) - (ends + 1)
        single = self.levels(torch.where(codes < 0, ends, codes) + starts)
        both = [
            compose(torch.cat([single[:, a], single[:, b]], dim=1))
            for (a, b), compose in zip(self.pairs, self.compose, strict=True)
        ]
        return torch.cat([single, *(token[:, None] for token in both)], dim=1)

    def text(self, features: Tensor, codes: Tensor) -> Tensor:
        return torch.cat([features, self.tokens(codes).to(features.dtype)], dim=1)

    def auxiliary(self, codes: Tensor) -> Tensor:
        """Weighted mean cross-entropy of the heads, float [N]; 0 for the empty prompt."""
        tokens = self.tokens(codes)
        losses = [
            cross_entropy(head(tokens[:, token]), codes[:, a], ignore_index=-1, reduction="none")
            for (token, a), head in zip(self.told, self.heads, strict=True)
        ]
        return float(self.options["auxiliary_weight"]) * torch.stack(losses).mean(dim=0)


class LoraAdapter(Adapter):
    """``y = W x + (alpha / r) B diag(s) A x`` on the projections of every attention block.

    A and B are shared; s, float [r], is the sample's own: the mean over its attributes of
    ``own s_level + (1 - own) / (K - 1) sum of the other levels' s``; the plain mean over levels
    for the unconditional pass. B starts at 0, so the start is the U-Net itself.

    Options: rank, alpha, own, and layers: name -> [out, in].
    """

    def __init__(self, prompts: Prompts, sizes: list[int], options: Mapping[str, Any]) -> None:
        super().__init__(prompts, sizes, options)
        rank = int(options["rank"])
        self.scale = float(options["alpha"]) / rank
        self.down, self.up, self.scales = (nn.ParameterDict() for _ in range(3))
        for name, (wide_out, wide_in) in options["layers"].items():
            key = name.replace(".", "/")  # a parameter's name may hold no dot
            self.down[key] = nn.Parameter(torch.randn(rank, wide_in) / math.sqrt(wide_in))
            self.up[key] = nn.Parameter(torch.zeros(wide_out, rank))
            self.scales[key] = nn.Parameter(torch.ones(sum(sizes), rank))
        self.mix = torch.empty(0)

    def attach(self, unet: nn.Module) -> None:
        """Hook onto the U-Net's layers; its own parameters keep their names and are frozen."""
        unet.requires_grad_(False)
        for name in self.options["layers"]:
            unet.get_submodule(name).register_forward_hook(self._hook(name.replace(".", "/")))

    def _hook(self, key: str) -> Any:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            own = (self.mix.to(output.device) @ self.scales[key])[:, None]  # [B, 1, r]
            low = (inputs[0] @ self.down[key].T.to(inputs[0].dtype)) * own.to(inputs[0].dtype)
            high: Tensor = low @ self.up[key].T.to(low.dtype)
            return output + self.scale * high

        return add

    def select(self, codes: Tensor) -> None:
        """Keep the share of each level's scales, float [B, G]."""
        parts = []
        for column, size in enumerate(self.sizes):
            share = float(self.options["own"])
            table = torch.full((size + 1, size), (1.0 - share) / (size - 1))
            table[range(size), range(size)] = share
            table[size] = 1.0 / size
            parts.append(table.to(codes.device)[codes[:, column]])  # -1 is the last row
        self.mix = torch.cat(parts, dim=1) / len(self.sizes)


KINDS: dict[str, type[Adapter]] = {"tokens": TokenAdapter, "lora": LoraAdapter}


def attention_layers(unet: nn.Module) -> dict[str, list[int]]:
    """Name and [out, in] of every linear projection of a U-Net's attention blocks."""
    return {
        name: [module.out_features, module.in_features]
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(PROJECTIONS) and ".attn" in name
    }


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write ``adapter.json`` and ``adapter.safetensors``."""
    kinds = {cls: kind for kind, cls in KINDS.items()}
    folder.mkdir(parents=True)
    tensors = {k: v.contiguous().cpu() for k, v in adapter.state_dict().items()}
    save_file(tensors, folder / "adapter.safetensors")
    about = {"prompts": adapter.prompts, "sizes": adapter.sizes, "options": adapter.options}
    write_json(folder / "adapter.json", {"kind": kinds[type(adapter)], **about})


def load_adapter(folder: Path, unet: nn.Module) -> Adapter:
    """Adapter of :func:`save_adapter`, attached to a U-Net."""
    about = read_json(folder / "adapter.json")
    refuse_unknown(f"{folder}: kind of adapter", about["kind"], KINDS)
    adapter = KINDS[about["kind"]](about["prompts"], about["sizes"], about["options"])
    if not (folder / "adapter.safetensors").is_file():
        raise InputError(
            f"{folder / 'adapter.safetensors'}: missing; expected the adapter's weights"
        )
    adapter.load_state_dict(load_file(folder / "adapter.safetensors"))
    adapter.attach(unet)
    return adapter.eval()


class Adapted(NamedTuple):
    sample: Tensor  # [N, C, h, w]
    auxiliary: Tensor | None  # [N]


class AdaptedUNet(nn.Module):
    """A U-Net and the adapter attached to it as one module, for training both and for measuring.

    ``features``, float32 [P, L, D], are those of the prompts as encoded.
    """

    def __init__(self, unet: nn.Module, adapter: Adapter, features: Tensor) -> None:
        super().__init__()
        self.unet, self.adapter = unet, adapter
        self.register_buffer("features", features, persistent=False)

    def forward(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Adapted:
        """``encoder_hidden_states`` are int64 [N, 1 + A] here: row of the features, levels."""
        row, codes = encoder_hidden_states[:, 0], encoder_hidden_states[:, 1:]
        adapter: Any = self.adapter
        features: Any = self.features
        adapter.select(codes)
        text = adapter.text(features[row], codes)
        predicted = self.unet(noisy, timesteps, encoder_hidden_states=text).sample
        return Adapted(predicted, adapter.auxiliary(codes))
