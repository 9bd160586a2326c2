"""EfficientNet and ViT: that they learn, what their options do, and which weights are refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from transformers import EfficientNetConfig, EfficientNetModel, ViTConfig, ViTImageProcessor
from transformers import ViTModel as LibraryViT

from fairdiff_lib.classify.fit import Classifier, fit_classifier, with_steps
from fairdiff_lib.classify.networks import (
    ClassificationObjective,
    DropPath,
    TransformersNetwork,
    build_network,
    parameter_groups,
)
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ClassifierConfig, LoopConfig
from fairdiff_lib.train.loop import fit

SIDE = 16
HEADS = {"colour": ("red", "green", "blue"), "bright": ("no", "yes")}
LOOP = LoopConfig(
    steps=50, batch=32, learning_rate=4e-3, warmup=5, schedule="cosine", ema_decay=0.0
)
VIT = ClassifierConfig(
    loop=LOOP, evaluate_every=25, architecture="vit", input_size=16, patch=4, width=24, layers=2,
    heads=2,
)  # fmt: skip
EFFICIENTNET = ClassifierConfig(
    loop=LOOP, evaluate_every=25, architecture="efficientnet", input_size=32,
    width_coefficient=0.1, depth_coefficient=0.1,
)  # fmt: skip
EVERY = pytest.mark.parametrize("config", [VIT, EFFICIENTNET], ids=["vit", "efficientnet"])


def make_data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise in one of three colours, half of it brighter."""
    draw = np.random.default_rng(seed)
    labels = np.stack([draw.integers(0, 3, count), draw.integers(0, 2, count)], axis=1)
    images = draw.integers(40, 100, (count, 3, SIDE, SIDE))
    for image, (colour, bright) in zip(images, labels, strict=True):
        image[colour] += 60
        image += 60 * bright
    return images.astype(np.uint8), labels.astype(np.int64)


TRAIN, VAL, TEST = make_data(160, 1), make_data(60, 2), make_data(80, 3)


def brief(config: ClassifierConfig, **changes: object) -> ClassifierConfig:
    """A few steps: nothing is learnt."""
    loop = dataclasses.replace(LOOP, steps=3, checkpoint_every=1)
    return dataclasses.replace(config, **{"loop": loop, "evaluate_every": 1} | changes)


# -- what is learnt and kept -----------------------------------------------------------------


@EVERY
def test_learns_both_conditions_at_once(config: ClassifierConfig) -> None:
    net = fit_classifier(*TRAIN, HEADS, *VAL, config, seed=0)
    for column, scores in zip(TEST[1].T, net.predict(TEST[0]).values(), strict=True):
        assert balanced_accuracy_score(column, scores.argmax(axis=1)) > 0.9


@EVERY
def test_saved_and_loaded_predicts_the_same_and_resumes(
    config: ClassifierConfig, tmp_path: Path
) -> None:
    own = brief(config, drop_path=0.3)
    net = fit_classifier(*TRAIN, HEADS, *VAL, own, seed=0, folder=tmp_path / "work")
    net.save(tmp_path / "net")
    again = Classifier.load(tmp_path / "net", own, HEADS)
    for name, values in net.predict(TEST[0]).items():
        np.testing.assert_allclose(again.predict(TEST[0])[name], values, atol=1e-6)
    assert again.config == net.config
    other = dataclasses.replace(own, input_size=own.input_size * 2)
    with pytest.raises(InputError, match=r"config\.json: input_size is .*; expected"):
        Classifier.load(tmp_path / "net", other, HEADS)
    with pytest.raises(InputError, match=r"config\.json: architecture is .*; expected residual"):
        Classifier.load(tmp_path / "net", ClassifierConfig(), HEADS)


LITE0 = ClassifierConfig(
    loop=dataclasses.replace(LOOP, steps=40, batch=16, learning_rate=1e-3), evaluate_every=10,
    architecture="lite0", input_size=32,
)  # fmt: skip


def test_lite0_starts_from_imagenet_learns_all_of_itself_and_keeps_its_statistics(
    tmp_path: Path,
) -> None:
    before = build_network(LITE0, HEADS).state_dict()
    net = fit_classifier(*TRAIN, HEADS, *VAL, LITE0, seed=0)
    for column, scores in zip(TEST[1].T, net.predict(TEST[0]).values(), strict=True):
        assert balanced_accuracy_score(column, scores.argmax(axis=1)) > 0.8
    after = net.module.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"trunk._conv_stem.weight", "trunk._conv_head.weight"} <= moved
    assert not any("running" in name for name in moved)
    net.save(tmp_path)
    again = Classifier.load(tmp_path, LITE0, HEADS).predict(TEST[0])
    np.testing.assert_allclose(again["colour"], net.predict(TEST[0])["colour"], atol=1e-6)
    with pytest.raises(InputError, match="a lite0 network is trained from its own weights"):
        dataclasses.replace(LITE0, pretrained="owner/model")


def test_the_row_of_a_table_names_what_ran() -> None:
    assert LITE0.name == "lite0-32px from ImageNet"
    assert VIT.name == "vit-2x24-p4 from scratch"
    assert EFFICIENTNET.name == "efficientnet-w0.1-d0.1 from scratch"
    assert dataclasses.replace(VIT, pretrained="owner/vit-b").name == "vit from vit-b"
    assert dataclasses.replace(VIT, selection="test_as_released").name.endswith("test_as_released")


def test_epochs_are_passes_over_the_training_images() -> None:
    config = dataclasses.replace(VIT, epochs=3)
    assert with_steps(config, 100).loop.steps == 10  # 3 x 100 images, 32 a step
    assert with_steps(VIT, 100) is VIT


def test_predictions_rest_on_many_batches_of_training() -> None:
    """The library's own momentum would keep the statistics of the last batch alone."""
    net = build_network(EFFICIENTNET, HEADS)
    momenta = {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert momenta == {0.1}


# -- drop path -------------------------------------------------------------------------------


def test_drop_path_leaves_whole_samples_out_and_keeps_the_mean() -> None:
    own = DropPath(0.25, uses=1)
    ones = torch.ones(4000, 2, 3)
    own.draw(4000, slice(0, 4000), torch.Generator().manual_seed(0))
    found = own(ones)
    assert sorted(found.unique().tolist()) == pytest.approx([0, 1 / 0.75])
    assert (found.flatten(1).std(dim=1) == 0).all()  # a sample is whole, or gone
    assert float(found.mean()) == pytest.approx(1, abs=0.04)  # 4.4 standard errors
    assert own.eval()(ones) is ones


def test_deeper_branches_are_dropped_more_often() -> None:
    net = TransformersNetwork(dataclasses.replace(VIT, layers=3, drop_path=0.2), HEADS)
    rates = [one.rate for one in net.modules() if isinstance(one, DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_loss_of_a_part_is_that_part_of_the_whole_with_drop_path() -> None:
    """Micro batches and processes see the draws of one process."""
    net = build_network(dataclasses.replace(VIT, drop_path=0.5), HEADS).train()
    objective = ClassificationObjective(net, *TRAIN)
    whole, part, undrawn = (
        objective.loss(net, torch.arange(10), cut, torch.Generator().manual_seed(seed))
        for cut, seed in ((slice(0, 10), 3), (slice(4, 7), 3), (slice(0, 10), 4))
    )
    torch.testing.assert_close(part, whole[4:7])
    assert (whole - undrawn).abs().max() > 1e-3


# -- learning rates by layer -----------------------------------------------------------------


def test_every_parameter_has_the_share_of_its_depth() -> None:
    net = build_network(VIT, HEADS)
    groups = parameter_groups(net, 0.5)
    shares = {id(p): own["rate_share"] for own in groups for p in own["params"]}
    assert len(shares) == sum(len(own["params"]) for own in groups) == len(list(net.parameters()))
    backbone = net.backbone
    assert shares[id(backbone.embeddings.cls_token)] == 0.5**3  # two layers below the head
    assert shares[id(backbone.layers[0].mlp.fc1.weight)] == 0.5**2
    assert shares[id(backbone.layers[1].mlp.fc1.weight)] == 0.5
    assert shares[id(backbone.layernorm.weight)] == shares[id(net.heads[0].weight)] == 1


def test_the_loop_moves_each_layer_by_its_share() -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    net = build_network(VIT, HEADS)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    loop = LoopConfig(
        steps=1, batch=32, learning_rate=1e-3, warmup=0, weight_decay=0.0, ema_decay=0.0
    )
    objective = ClassificationObjective(net, *TRAIN, 0.1)
    fit(objective, loop, count=160, seed=0)
    moved = {
        name: float((p.detach() - before[name]).abs().max()) for name, p in net.named_parameters()
    }
    assert moved["heads.0.bias"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["backbone.layers.1.mlp.fc2.bias"] == pytest.approx(1e-4, rel=1e-2)
    assert moved["backbone.embeddings.cls_token"] == pytest.approx(1e-6, rel=0.1)


# -- pretrained weights ----------------------------------------------------------------------


def save_vit(folder: Path) -> LibraryViT:
    own = ViTConfig(
        image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    model = LibraryViT(own)
    model.save_pretrained(folder)
    processor = ViTImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    processor.save_pretrained(folder)
    return model


def test_weights_of_a_folder_are_taken_and_needed_no_more_once_saved(tmp_path: Path) -> None:
    given = save_vit(tmp_path / "weights")
    config = brief(VIT, pretrained=str(tmp_path / "weights"))
    net = build_network(config, HEADS)
    torch.testing.assert_close(
        net.backbone.layers[0].mlp.fc1.weight, given.layers[0].mlp.fc1.weight
    )
    assert net.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    fitted = fit_classifier(*TRAIN, HEADS, *VAL, config, seed=0)
    fitted.save(tmp_path / "net")
    shutil.rmtree(tmp_path / "weights")
    again = Classifier.load(tmp_path / "net", config, HEADS)
    for name, values in fitted.predict(TEST[0]).items():
        np.testing.assert_allclose(again.predict(TEST[0])[name], values, atol=1e-6)


def test_weights_of_another_architecture_are_refused_with_one_line(tmp_path: Path) -> None:
    small = EfficientNetConfig(width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128)
    EfficientNetModel(small).save_pretrained(tmp_path)
    message = r"weights of another architecture; model_type is 'efficientnet', expected 'vit'"
    with pytest.raises(InputError, match=message) as caught:
        build_network(dataclasses.replace(VIT, pretrained=str(tmp_path)), HEADS)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_hub_id_needs_a_commit_and_a_folder_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs a revision \(vit\.revision"):
        build_network(dataclasses.replace(VIT, pretrained="owner/vit"), HEADS)
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        build_network(dataclasses.replace(VIT, pretrained=str(tmp_path)), HEADS)
    assert "\n" not in str(caught.value)


# -- settings that cannot be -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (VIT, {"patch": 5}, "input_size=16: expected a multiple of patch=5"),
        (VIT, {"heads": 5}, "width=24: expected a multiple of heads=5"),
        (VIT, {"architecture": "resnet"}, "known: efficientnet, lite0, residual, vit"),
        (VIT, {"drop_path": 1.0}, "drop_path=1.0"),
        (EFFICIENTNET, {"layer_decay": 0.5}, "only a vit has layers"),
        (EFFICIENTNET, {"width_coefficient": 0.0}, "expected a value above 0"),
        (ClassifierConfig(loop=LOOP), {"pretrained": "folder"}, "trained from scratch"),
        (VIT, {"selection": "test"}, "known: test_as_released, validation"),
        (VIT, {"selection": "test_as_released"}, "needs test images to watch"),
    ],
)
def test_unusable_settings_are_refused(
    config: ClassifierConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fit_classifier(*TRAIN, HEADS, *VAL, dataclasses.replace(config, **changes), seed=0)
    assert "\n" not in str(caught.value)
