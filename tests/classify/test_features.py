"""Extractors and their cache: shapes, independence of batches, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from fairdiff_lib.classify import features
from fairdiff_lib.classify.features import (
    EncoderExtractor,
    InceptionExtractor,
    RandomConvExtractor,
    Scale,
    TransformersExtractor,
    extract,
    hash_images,
    make_extractor,
)
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.networks import ResidualNetwork
from fairdiff_lib.model import lite
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ClassifierConfig

CONFIG = ClassifierConfig(channels=(8, 16), feature_width=12)
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), dtype=np.uint8)


def make_classifier(seed: int = 0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = ResidualNetwork(CONFIG, {"stripe": ("none", "wide")})
    return Classifier(module, CONFIG, {"stripe": ("none", "wide")})


def save_vision_model(folder: Path, kind: str) -> Path:
    """A tiny backbone with its image processor, as from_pretrained finds it."""
    from transformers import (
        BitImageProcessor,
        Dinov2Config,
        Dinov2Model,
        ResNetConfig,
        ResNetModel,
        ViTConfig,
        ViTModel,
    )

    size = {"height": 16, "width": 16}
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    if kind == "dinov2":
        model = Dinov2Model(Dinov2Config(**small))
    elif kind == "vit":
        model = ViTModel(ViTConfig(intermediate_size=16, **small), add_pooling_layer=False)
    else:
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        model = ResNetModel(config)
    processor = BitImageProcessor(size=size, do_center_crop=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class Counting:
    """Mean colour, counting its calls."""

    name, identity, width = "counting", "counting-1", 3

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(len(images))
        return images.mean(axis=(2, 3), dtype=np.float32)


# -- extractors ------------------------------------------------------------------------------


def test_encoder_gives_the_classifiers_stage_means() -> None:
    net = make_classifier()
    found = extract(EncoderExtractor(net), IMAGES, batch=4)
    np.testing.assert_allclose(found, net.stage_means(IMAGES), rtol=0, atol=1e-5)
    assert found.shape == (9, sum(CONFIG.channels))
    assert EncoderExtractor(net).width == sum(CONFIG.channels)


def test_encoders_of_other_weights_have_another_identity() -> None:
    one, same, other = (EncoderExtractor(make_classifier(seed)) for seed in (0, 0, 1))
    assert one.identity == same.identity
    assert one.identity != other.identity
    assert one.name == other.name == "encoder"


def test_random_features_depend_on_their_seed_alone() -> None:
    first = extract(RandomConvExtractor(), IMAGES)
    torch.manual_seed(99)
    np.testing.assert_array_equal(extract(RandomConvExtractor(), IMAGES), first)
    assert np.abs(extract(RandomConvExtractor(seed=1), IMAGES) - first).max() > 0.1
    assert first.shape == (9, 64)
    assert first.std(axis=0).min() > 0  # no feature is constant


def test_random_features_tell_blurred_from_sharp() -> None:
    draw = np.random.default_rng(1)
    sharp = draw.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    smooth = np.repeat(np.repeat(sharp[:, :, ::4, ::4], 4, axis=2), 4, axis=3)
    known_sharp, new_sharp, known_smooth, new_smooth = (
        extract(RandomConvExtractor(), x)
        for x in (sharp[:20], sharp[20:], smooth[:20], smooth[20:])
    )
    means = np.stack([known_sharp.mean(axis=0), known_smooth.mean(axis=0)])
    for new, own in ((new_sharp, 0), (new_smooth, 1)):
        nearest = np.linalg.norm(new[:, None] - means, axis=2).argmin(axis=1)
        assert (nearest == own).mean() > 0.8


@pytest.mark.parametrize("width", [0, 12])
def test_random_width_is_checked(width: int) -> None:
    with pytest.raises(InputError, match="multiple of 8"):
        RandomConvExtractor(width=width)


@pytest.mark.parametrize("make", [RandomConvExtractor, lambda: EncoderExtractor(make_classifier())])
def test_batch_size_and_order_do_not_matter(make) -> None:
    extractor = make()
    whole = extract(extractor, IMAGES)
    np.testing.assert_allclose(extract(extractor, IMAGES, batch=2), whole, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        extract(extractor, np.ascontiguousarray(IMAGES[::-1]))[::-1], whole, rtol=0, atol=1e-5
    )


# -- transformers ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dinov2", "vit", "resnet"])
def test_transformers_backbone_from_a_folder(tmp_path: Path, kind: str) -> None:
    folder = save_vision_model(tmp_path / kind, kind)
    extractor = make_extractor(str(folder))
    assert extractor.name == kind  # the folder's own name: no path of this machine in a table
    assert extractor.width == 16
    whole = extract(extractor, IMAGES)
    assert whole.shape == (9, 16)
    np.testing.assert_allclose(extract(extractor, IMAGES, batch=4), whole, rtol=0, atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3


def test_class_token_is_what_is_read(tmp_path: Path) -> None:
    extractor = TransformersExtractor(str(save_vision_model(tmp_path / "d", "dinov2")))
    hidden = torch.arange(2 * 5 * 16, dtype=torch.float32).reshape(2, 5, 16)
    assert torch.equal(extractor._pool(hidden), hidden[:, 0])
    extractor.class_token = False
    torch.testing.assert_close(extractor._pool(hidden), hidden.mean(dim=1))


def test_processing_is_the_processors_own(tmp_path: Path) -> None:
    extractor = TransformersExtractor(str(save_vision_model(tmp_path / "d", "dinov2")))
    grey = np.full((1, 3, 16, 16), 128, np.uint8)
    mean, std = extractor.processor.image_mean, extractor.processor.image_std
    expected = (128 / 255 - np.array(mean)) / np.array(std)
    seen: list[torch.Tensor] = []
    extractor.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    extractor(grey)
    np.testing.assert_allclose(seen[0][0, :, 3, 3].numpy(), expected, atol=1e-5)


def test_a_hub_id_needs_a_revision() -> None:
    with pytest.raises(InputError, match="needs a revision"):
        make_extractor("owner/model")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def fail(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", fail)
    with pytest.raises(InputError, match="'owner/model': cannot be loaded") as caught:
        make_extractor("owner/model", "0" * 40)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        make_extractor(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_vision_model(tmp_path / "d", "dinov2")
    weights = load_file(folder / "model.safetensors")
    first = sorted(weights)[0]
    del weights[first]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="1 tensors are missing"):
        make_extractor(str(folder))


# -- EfficientNet-lite0, frozen --------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Smooth pictures with grain, uint8 [24, 3, 48, 48]."""
    draw = np.random.default_rng(0)
    coarse = torch.from_numpy(draw.uniform(40, 215, (24, 3, 6, 6)))
    smooth = torch.nn.functional.interpolate(coarse, (48, 48), mode="bilinear").numpy()
    return np.clip(smooth + draw.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("name", "width"), [("lite0", 816), ("lite0-penultimate", 1280)])
def test_lite0_is_the_same_on_any_number_of_threads_and_in_any_batch(
    name: str, width: int, pictures: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    extractor = make_extractor(name)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(extractor(pictures))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (24, width) and extractor.width == width
    alone = np.concatenate([extractor(pictures[k : k + 1]) for k in range(3)])
    np.testing.assert_allclose(alone, found[0][:3], rtol=1e-3, atol=1e-4)
    assert capfd.readouterr().out == ""  # the packages print where they load


def test_lite0_sees_blur_the_more_the_stronger_it_is(pictures: np.ndarray, tmp_path: Path) -> None:
    space = features.Space.fit(make_extractor("lite0"), tmp_path, pictures, pictures)
    real, images = space.test, [Image.fromarray(x.transpose(1, 2, 0)) for x in pictures]
    away = []
    for reach in (0, 1, 2):
        blurred = [np.asarray(x.filter(ImageFilter.GaussianBlur(reach))) for x in images]
        made = space.of(np.stack(blurred).transpose(0, 3, 1, 2))
        away.append(float(np.abs(made - real).mean()))
    assert away[0] == 0 and 0.1 < away[1] < away[2]
    assert space.scale.spread.min() >= features.SPREAD_FLOOR * 0.9 * np.median(space.scale.spread)


def test_a_generators_half_precision_does_not_reach_the_instrument(pictures: np.ndarray) -> None:
    extractor = make_extractor("lite0")
    with torch.autocast("cpu", torch.bfloat16):
        inside = extract(extractor, pictures)
    np.testing.assert_array_equal(inside, extract(extractor, pictures))


def test_lite0_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "WEIGHTS", "0" * 64)
    features._lite.cache_clear()
    with pytest.raises(InputError, match=r"SHA-256 579344248a93; expected 000000000000") as caught:
        make_extractor("lite0")
    assert "\n" not in str(caught.value)


def test_both_lite_spaces_cost_one_pass(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces = [make_extractor(name) for name in features.LITE]
    wanted, passes = [one(pictures) for one in spaces], []
    run = features.LiteExtractor.__call__

    def counted(own: features.LiteExtractor, images: np.ndarray) -> np.ndarray:
        passes.append(len(images))
        return run(own, images)

    monkeypatch.setattr(features.LiteExtractor, "__call__", counted)
    found = [extract(one, pictures, cache=tmp_path) for one in spaces]
    assert passes == [24] and len(list(tmp_path.iterdir())) == 1
    for own, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(own, other)


# -- by name ---------------------------------------------------------------------------------


def test_extractors_by_name() -> None:
    net = make_classifier()
    assert make_extractor("encoder", classifier=lambda: net).name == "encoder"
    assert make_extractor("random").name == "random"
    with pytest.raises(InputError, match="needs a fitted classifier"):
        make_extractor("encoder")
    with pytest.raises(InputError, match=r"known: lite0, lite0-penultimate, texture, random"):
        make_extractor("dino")


def test_inception_without_its_package_or_weights_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchmetrics.image import fid

    for error in (ModuleNotFoundError("not installed"), OSError("no route\nto host")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(fid, "NoTrainInceptionV3", fail)
        with pytest.raises(InputError, match="'inception': needs torch-fidelity") as caught:
            make_extractor("inception")
        assert "\n" not in str(caught.value)


def test_inception_is_fed_bytes_and_read_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.image import fid

    class Fake(torch.nn.Module):
        def __init__(self, name: str, wanted: list[str], weights: str | None) -> None:
            super().__init__()
            assert wanted == ["2048"]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype == torch.uint8
            return x.float().mean(dim=(1, 2, 3))[:, None].expand(-1, 2048)

    monkeypatch.setattr(fid, "NoTrainInceptionV3", Fake)
    found = extract(InceptionExtractor(), IMAGES)
    assert found.shape == (9, 2048)
    np.testing.assert_allclose(found[:, 5], IMAGES.mean(axis=(1, 2, 3)), rtol=1e-5)


# -- cache -----------------------------------------------------------------------------------


def test_cached_features_are_read_back_and_not_made_again(tmp_path: Path) -> None:
    extractor = Counting()
    first = extract(extractor, IMAGES, batch=4, cache=tmp_path)
    assert extractor.seen == [4, 4, 1]
    np.testing.assert_array_equal(extract(extractor, IMAGES, cache=tmp_path), first)
    assert extractor.seen == [4, 4, 1]
    assert [p.name for p in tmp_path.iterdir()] == [f"counting-1-{hash_images(IMAGES)}.npy"]


def test_other_images_or_weights_are_not_served_from_the_cache(tmp_path: Path) -> None:
    extractor = Counting()
    extract(extractor, IMAGES, cache=tmp_path)
    changed = IMAGES.copy()
    changed[3, 0, 0, 0] ^= 1
    extract(extractor, changed, cache=tmp_path)
    assert extractor.seen == [9, 9]
    one, other = (EncoderExtractor(make_classifier(seed)) for seed in (0, 1))
    first = extract(one, IMAGES, cache=tmp_path)
    assert np.abs(extract(other, IMAGES, cache=tmp_path) - first).max() > 1e-3


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    first = extract(RandomConvExtractor(), IMAGES, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    for damage in (file.read_bytes()[:60], file.read_bytes()[:200], b""):
        file.write_bytes(damage)
        np.testing.assert_array_equal(extract(RandomConvExtractor(), IMAGES, cache=tmp_path), first)
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), first)


def test_a_failed_extraction_leaves_no_file(tmp_path: Path) -> None:
    class Broken(Counting):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            found = super().__call__(images)
            found[-1] = np.nan
            return found

    with pytest.raises(InputError, match=r"not finite for 1 of 9 images, first at row 8"):
        extract(Broken(), IMAGES, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "images", [IMAGES.astype(np.float32), IMAGES[0], IMAGES.transpose(0, 2, 3, 1)]
)
def test_other_arrays_are_refused(images: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected uint8"):
        extract(Counting(), images)


def test_no_images_give_no_rows() -> None:
    assert extract(Counting(), IMAGES[:0]).shape == (0, 3)


def test_hash_is_of_shape_and_content() -> None:
    assert hash_images(IMAGES) == hash_images(IMAGES.copy())
    assert hash_images(IMAGES) != hash_images(IMAGES.reshape(9, 3, 8, 32))
    assert features.hash_images(IMAGES) != hash_images(IMAGES[::-1])


def test_a_scale_makes_every_feature_count_and_leaves_constants_alone() -> None:
    generator = np.random.default_rng(0)
    spread = np.array([0.5, 1.0, 100.0, 0.0])
    train = (5.0 + spread * generator.standard_normal((500, 4))).astype(np.float32)
    scale = Scale.fit(train)
    scaled = scale(train)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(scaled.std(axis=0), [1.0, 1.0, 1.0, 0.0], atol=1e-3)
    moved = scale(train[:3] + 1)[:, 3] - scaled[:3, 3]  # a constant that moves is seen
    np.testing.assert_allclose(moved, 20, rtol=0.1)  # of the floor, 1 / 20 of the median


def test_a_feature_that_hardly_varies_does_not_drown_the_others() -> None:
    train = np.random.default_rng(1).standard_normal((500, 4)).astype(np.float32)
    train[:, 3] = 0
    speck = train.copy()
    speck[0, 3] = 1e-4  # the only difference between the two
    scales = [Scale.fit(own) for own in (train, speck)]
    grain = train + np.array([0, 0, 0, 0.01], dtype=np.float32)
    np.testing.assert_allclose(scales[0](grain), scales[1](grain), atol=1e-3)
    assert abs(scales[1](grain)[:, 3]).max() < 0.5  # 0.01 against a floor of 0.05
    assert scales[0].below == scales[1].below == (3,)
    assert "1 of 4 features" in scales[1].caveat() and "numbers 3" in scales[1].caveat()
    assert Scale.fit(train[:, :3]).caveat() == ""
