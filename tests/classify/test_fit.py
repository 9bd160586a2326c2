"""Classifiers: what is learnt, what is chosen, what is refused, what a file gives back."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from fairdiff_lib.audit.classifiers import UNKNOWN
from fairdiff_lib.classify import networks
from fairdiff_lib.classify.fit import (
    Classifier,
    fit_classifier,
)
from fairdiff_lib.classify.networks import (
    ClassificationObjective,
    ResidualNetwork,
    augment,
    multitask_loss,
)
from fairdiff_lib.classify.predictions import (
    LOOK_COLUMNS,
    condition_auc,
    predictions_table,
    youden_threshold,
)
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ClassifierConfig, LoopConfig

SIDE = 16
HEADS = {"stripe": ("none", "wide"), "colour": ("red", "green", "blue")}  # not in sorted order
LOOP = LoopConfig(
    steps=60, batch=32, learning_rate=1e-2, warmup=5, schedule="cosine", ema_decay=0.0
)
CONFIG = ClassifierConfig(channels=(8, 16), feature_width=12, loop=LOOP, evaluate_every=20)


def make_data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright stripe at any height (or none), in one of three colours."""
    draw = np.random.default_rng(seed)
    labels = np.stack([draw.integers(0, 2, count), draw.integers(0, 3, count)], axis=1)
    images = draw.integers(60, 120, (count, 3, SIDE, SIDE))
    for image, (stripe, colour) in zip(images, labels, strict=True):
        image[colour] += 60
        if stripe:
            top = draw.integers(0, SIDE - 3)
            image[:, top : top + 3] += 70
    return images.astype(np.uint8), labels.astype(np.int64)


TRAIN, VAL, TEST = make_data(160, 1), make_data(60, 2), make_data(80, 3)


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    return fit_classifier(*TRAIN, HEADS, *VAL, CONFIG, seed=0)


def short(**changes: object) -> ClassifierConfig:
    """A few steps: nothing is learnt."""
    loop = dataclasses.replace(LOOP, steps=4, checkpoint_every=1)
    return dataclasses.replace(CONFIG, **{"loop": loop, "evaluate_every": 2} | changes)


# -- what is learnt --------------------------------------------------------------------------


def accuracies(net: Classifier) -> list[float]:
    """Balanced accuracy of each condition on the test images."""
    found = net.predict(TEST[0]).values()
    pairs = zip(TEST[1].T, found, strict=True)
    return [balanced_accuracy_score(column, own.argmax(axis=1)) for column, own in pairs]


def test_learns_both_conditions(fitted: Classifier) -> None:
    assert min(accuracies(fitted)) > 0.85


def test_shuffled_labels_teach_nothing() -> None:
    images, labels = TRAIN
    wrong = np.random.default_rng(0).permutation(labels)
    net = fit_classifier(images, wrong, HEADS, *VAL, CONFIG, seed=0)
    assert max(accuracies(net)) < 0.7


def test_same_seed_same_network_other_seed_another() -> None:
    first, again, other = (
        fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=seed).features(TEST[0])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2


def test_fitting_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0)
    torch.testing.assert_close(torch.rand(3), expected)


def fit_until_killed(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """The short fit, killed after its third step."""
    select = networks.Selection.__call__

    def die(self: networks.Selection, step: int, module: torch.nn.Module) -> None:
        select(self, step, module)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(networks.Selection, "__call__", die)
        fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0, **options)


def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0)
    select = networks.Selection.__call__
    fit_until_killed(monkeypatch, folder=tmp_path)
    seen: list[int] = []

    def watch(self: networks.Selection, step: int, module: torch.nn.Module) -> None:
        seen.append(step)
        select(self, step, module)

    monkeypatch.setattr(networks.Selection, "__call__", watch)
    resumed = fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0, folder=tmp_path)
    assert seen == [3, 4]  # it went on after the last whole checkpoint
    assert resumed.curve == whole.curve
    assert resumed.selected_step == whole.selected_step
    np.testing.assert_array_equal(resumed.features(TEST[0]), whole.features(TEST[0]))


# -- what is only watched --------------------------------------------------------------------


def test_watching_the_test_images_changes_no_weight_and_no_choice() -> None:
    plain = fit_classifier(*TRAIN, HEADS, *VAL, CONFIG, seed=0)
    watched = fit_classifier(*TRAIN, HEADS, *VAL, CONFIG, seed=0, watch=TEST)
    for name, value in plain.module.state_dict().items():
        torch.testing.assert_close(watched.module.state_dict()[name], value, rtol=0, atol=0)
    assert (watched.curve, watched.selected_step) == (plain.curve, plain.selected_step)
    assert watched.thresholds == plain.thresholds
    assert len(plain.watched) == 0


def test_what_was_watched_is_the_auc_of_every_look() -> None:
    net = fit_classifier(*TRAIN, HEADS, *VAL, CONFIG, seed=0, watch=TEST)
    looks = net.watched
    assert list(looks.columns) == list(LOOK_COLUMNS)
    assert looks.groupby("condition")["step"].apply(list).to_dict() == {
        name: [20, 40, 60] for name in HEADS
    }
    at_end = looks[looks["selected"]].set_index("condition")
    assert at_end["step"].unique().tolist() == [net.selected_step]
    expected = condition_auc(net.predict(TEST[0]), TEST[1], HEADS).set_index("condition")
    for name in HEADS:
        assert at_end.loc[name, "value"] == pytest.approx(expected.loc[name, "value"], abs=1e-12)
    score = net.predict(TEST[0])["stripe"][:, 1]
    assert expected.loc["stripe", "value"] == pytest.approx(roc_auc_score(TEST[1][:, 0], score))
    assert at_end.loc["stripe", "value"] > looks.set_index("step").loc[20, "value"].min() - 1e-12


def test_a_resumed_fit_still_knows_what_was_watched_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0, watch=TEST)
    fit_until_killed(monkeypatch, folder=tmp_path, watch=TEST)
    resumed = fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0, folder=tmp_path, watch=TEST)
    pd.testing.assert_frame_equal(resumed.watched, whole.watched)
    other = fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0, folder=tmp_path, watch=VAL)
    assert set(other.watched["step"]) == {4}  # the last step alone is done again, and looked at


def test_a_class_that_the_watched_images_lack_is_a_visible_nan() -> None:
    labels = TEST[1].copy()
    labels[:, 0] = 1
    looks = fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0, watch=(TEST[0], labels)).watched
    values = looks.set_index("condition")["value"]
    assert values["stripe"].isna().all()
    assert values["colour"].notna().all()


def test_watched_labels_must_fit_the_images() -> None:
    with pytest.raises(InputError, match="watched labels: shape"):
        fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0, watch=(TEST[0], TEST[1][:5]))


def test_a_classifier_names_its_configuration(fitted: Classifier) -> None:
    assert fitted.config.name == CONFIG.name == "residual"
    assert "name" not in dataclasses.asdict(CONFIG)  # or finished runs would change their digest


# -- what is chosen --------------------------------------------------------------------------


def test_the_step_with_least_validation_loss_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, 2.0])
    kept: dict[float, dict[str, torch.Tensor]] = {}

    def scripted(module: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
        assert images is VAL[0]  # never the training or the test images
        loss = next(losses)
        kept[loss] = {k: v.clone() for k, v in module.state_dict().items()}
        return loss

    monkeypatch.setattr(networks, "mean_loss", scripted)
    loop = dataclasses.replace(LOOP, steps=5)
    net = fit_classifier(*TRAIN, HEADS, *VAL, short(loop=loop), seed=0)
    assert net.selected_step == 4
    assert net.curve == {2: 3.0, 4: 1.0, 5: 2.0}  # every second step, and the last
    for name, value in net.module.state_dict().items():
        torch.testing.assert_close(value, kept[1.0][name], rtol=0, atol=0)


def test_the_curve_is_the_loss_of_the_selected_weights(fitted: Classifier) -> None:
    loss = networks.mean_loss(fitted.module, *VAL)
    assert loss == pytest.approx(min(fitted.curve.values()), abs=1e-6)
    assert fitted.curve[fitted.selected_step] == min(fitted.curve.values())


def test_thresholds_are_of_binary_conditions_and_from_validation(fitted: Classifier) -> None:
    assert list(fitted.thresholds) == ["stripe"]
    score = fitted.predict(VAL[0])["stripe"][:, 1]
    assert fitted.thresholds["stripe"] == youden_threshold(VAL[1][:, 0] == 1, score)


def test_youden_threshold_by_hand_and_by_search() -> None:
    truth = np.array([False, False, True, False, True, True])
    score = np.array([0.1, 0.2, 0.4, 0.6, 0.7, 0.9])
    # above 0.3: 3/3 - 1/3; above 0.65: 2/3 - 0: equally good, 0.65 is nearer to 0.5
    assert youden_threshold(truth, score) == pytest.approx(0.65)
    draw = np.random.default_rng(0)
    truth = draw.random(200) < 0.3
    score = np.round(draw.random(200) + 0.3 * truth, 2)  # with ties

    def youden(cut: float) -> float:
        return float((score[truth] >= cut).mean() - (score[~truth] >= cut).mean())

    best = max(youden(cut) for cut in np.unique(score))
    assert youden(youden_threshold(truth, score)) == pytest.approx(best, abs=1e-12)


def test_a_threshold_that_validation_cannot_give_is_a_visible_nan(tmp_path: Path) -> None:
    labels = VAL[1].copy()
    labels[:, 0] = 1
    net = fit_classifier(*TRAIN, HEADS, VAL[0], labels, short(), seed=0)
    assert math.isnan(net.thresholds["stripe"])
    net.save(tmp_path / "net")
    assert math.isnan(Classifier.load(tmp_path / "net").thresholds["stripe"])


# -- loss and augmentation -------------------------------------------------------------------


def test_loss_is_a_sum_of_cross_entropies_and_skips_the_unknown() -> None:
    logits = {"a": torch.tensor([[0.0, 0.0], [0.0, 0.0]]), "b": torch.zeros(2, 4)}
    labels = torch.tensor([[1, 2], [-1, 0]])
    expected = torch.tensor([math.log(2) + math.log(4), math.log(4)])
    torch.testing.assert_close(multitask_loss(logits, labels), expected)


def test_loss_of_a_part_is_that_part_of_the_whole() -> None:
    torch.manual_seed(0)
    net = ResidualNetwork(CONFIG, HEADS)
    objective = ClassificationObjective(net, *TRAIN)
    rows = torch.arange(10)
    whole, part = (
        objective.loss(net, rows, cut, torch.Generator().manual_seed(3))
        for cut in (slice(0, 10), slice(4, 7))
    )
    assert whole.shape == (10,)
    torch.testing.assert_close(part, whole[4:7])


def test_augmentation_moves_and_mirrors_by_what_it_is_told() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    still = augment(images, torch.tensor([False, False]), torch.zeros(2, 2, dtype=torch.int64))
    assert torch.equal(still, images)
    moved = augment(images, torch.tensor([True, False]), torch.tensor([[0, 0], [1, -2]]))
    assert torch.equal(moved[0], images[0].flip(-1))
    assert torch.equal(moved[1, :, 1:, :2], images[1, :, :-1, 2:])  # one down, two left
    assert torch.equal(moved[1, :, 0], moved[1, :, 1])  # the edge is repeated


# -- prediction ------------------------------------------------------------------------------


def test_batch_size_does_not_change_a_prediction(fitted: Classifier) -> None:
    whole, single = fitted.predict(TEST[0]), fitted.predict(TEST[0], batch=7)
    for name, values in whole.items():
        np.testing.assert_allclose(single[name], values, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        fitted.features(TEST[0], batch=1), fitted.features(TEST[0]), rtol=0, atol=1e-5
    )


def test_an_image_is_predicted_without_its_neighbours(fitted: Classifier) -> None:
    mixed = np.concatenate([TEST[0][:1], np.full((9, 3, SIDE, SIDE), 255, np.uint8)])
    for name, values in fitted.predict(mixed).items():
        np.testing.assert_allclose(values[0], fitted.predict(TEST[0])[name][0], rtol=0, atol=1e-5)


def test_probabilities_are_float64_and_sum_to_one(fitted: Classifier) -> None:
    found = fitted.predict(TEST[0])
    assert list(found) == list(HEADS)
    for name, values in found.items():
        assert values.dtype == np.float64
        assert values.shape == (80, len(HEADS[name]))
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-12)
    features = fitted.features(TEST[0])
    assert features.shape == (80, CONFIG.feature_width)
    assert features.dtype == np.float32


def test_no_images_give_no_rows(fitted: Classifier) -> None:
    none = np.empty((0, 3, SIDE, SIDE), np.uint8)
    assert fitted.predict(none)["colour"].shape == (0, 3)
    assert fitted.features(none).shape == (0, CONFIG.feature_width)


# -- files -----------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same_classifier(fitted: Classifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "net")
    found = Classifier.load(tmp_path / "net", CONFIG, HEADS)
    assert list(found.levels.items()) == list(HEADS.items())  # order, too
    assert found.config == CONFIG
    assert found.thresholds == fitted.thresholds
    assert (found.selected_step, found.curve) == (fitted.selected_step, fitted.curve)
    for name, values in found.predict(TEST[0]).items():
        np.testing.assert_allclose(values, fitted.predict(TEST[0])[name], rtol=0, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net"]


@pytest.mark.parametrize(
    ("config", "heads", "message"),
    [
        (dataclasses.replace(CONFIG, channels=(8, 24)), HEADS, "channels"),
        (dataclasses.replace(CONFIG, feature_width=13), HEADS, "feature_width"),
        (CONFIG, HEADS | {"colour": (*HEADS["colour"], "grey")}, "conditions"),
        (CONFIG, dict(reversed(HEADS.items())), "conditions"),
    ],
)
def test_another_architecture_is_refused(
    fitted: Classifier, tmp_path: Path, config: ClassifierConfig, heads: dict, message: str
) -> None:
    fitted.save(tmp_path / "net")
    with pytest.raises(InputError, match=rf"config\.json: {message} is .*; expected") as caught:
        Classifier.load(tmp_path / "net", config, heads)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused_with_one_line(fitted: Classifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "net")
    weights, notes = tmp_path / "net" / "model.safetensors", tmp_path / "net" / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"model\.safetensors: not readable"):
        Classifier.load(tmp_path / "net")
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: missing"):
        Classifier.load(tmp_path / "net")
    weights.write_bytes(whole)
    content = json.loads(notes.read_text())
    content["config"]["feature_width"] = 5
    notes.write_text(json.dumps(content))
    with pytest.raises(InputError, match="weights of another architecture"):
        Classifier.load(tmp_path / "net")
    del content["levels"]
    notes.write_text(json.dumps(content))
    with pytest.raises(InputError, match="not a classifier's"):
        Classifier.load(tmp_path / "net")
    with pytest.raises(InputError, match="missing"):
        Classifier.load(tmp_path / "absent")


# -- bad input -------------------------------------------------------------------------------


def without(code: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    keep = TRAIN[1][:, column] != code
    return TRAIN[0][keep], TRAIN[1][keep]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (without(2, 1), "training labels of colour: no image with blue"),
        (without(0, 0), "training labels of stripe: no image with none"),
        ((TRAIN[0], TRAIN[1][:, :1]), "training labels: shape"),
        ((TRAIN[0][:9], TRAIN[1]), "training labels: shape"),
        ((TRAIN[0][:0], TRAIN[1][:0]), "at least one image"),
        ((TRAIN[0].astype(np.float32), TRAIN[1]), "expected uint8"),
        ((TRAIN[0][:, :1], TRAIN[1]), "expected uint8"),
        ((TRAIN[0], TRAIN[1] + 1), "training labels of stripe: values 1 to 2"),
        ((TRAIN[0], TRAIN[1] * 0 - 1), "training labels of stripe: none is known"),
        ((TRAIN[0][..., :8], TRAIN[1]), "validation images: shape"),
    ],
)
def test_unusable_training_data_is_refused(
    data: tuple[np.ndarray, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fit_classifier(*data, HEADS, *VAL, short(), seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": ()}, "channels"),
        ({"feature_width": 0}, "feature_width"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"loop": dataclasses.replace(LOOP, ema_decay=0.9)}, "ema_decay"),
    ],
)
def test_unusable_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_classifier(*TRAIN, HEADS, *VAL, short(**change), seed=0)


def test_a_fit_that_diverges_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "mean_loss", lambda *_: math.nan)
    with pytest.raises(InputError, match=r"never finite|not finite"):
        fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0)


def test_checkpoints_of_other_data_are_refused(tmp_path: Path) -> None:
    fit_classifier(*TRAIN, HEADS, *VAL, short(), seed=0, folder=tmp_path)
    with pytest.raises(InputError, match="another configuration"):
        fit_classifier(TRAIN[0] // 2, TRAIN[1], HEADS, *VAL, short(), seed=0, folder=tmp_path)


# -- tables ----------------------------------------------------------------------------------


def test_predictions_survive_csv_and_give_back_the_arrays(fitted: Classifier) -> None:
    probabilities = fitted.predict(TEST[0])
    names = [f"picture {i}.jpg" for i in range(80)]
    truth = TEST[1].copy()
    truth[5, 1] = -1
    table = predictions_table(probabilities, HEADS, names, [f"s{i}" for i in range(80)], truth)
    assert list(table) == ["image", "subject", "condition", "truth", "level", "probability"]
    assert len(table) == 80 * (2 + 3)
    found = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    pd.testing.assert_frame_equal(found, table, check_dtype=False, rtol=0, atol=0)
    colour = found[found["condition"] == "colour"]
    wide = colour.pivot(index="image", columns="level", values="probability")
    np.testing.assert_array_equal(wide.loc[names, list(HEADS["colour"])], probabilities["colour"])
    own = colour.drop_duplicates("image").set_index("image")["truth"]
    assert own[names[5]] == UNKNOWN
    assert own[names[6]] == HEADS["colour"][truth[6, 1]]


def test_predictions_that_do_not_fit_together_are_refused(fitted: Classifier) -> None:
    probabilities = fitted.predict(TEST[0])
    names = [str(i) for i in range(80)]
    with pytest.raises(InputError, match="lengths differ"):
        predictions_table(probabilities, HEADS, names[1:], names, TEST[1])
    with pytest.raises(InputError, match="'0' occurs twice"):
        predictions_table(probabilities, HEADS, ["0", "0", *names[2:]], names, TEST[1])
