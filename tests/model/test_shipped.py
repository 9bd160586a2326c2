"""The bases that the project comes with: whole, small, and of their data sets' words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fairdiff_lib.data.cohort import Ruler
from fairdiff_lib.datasets import DATASETS, SMALL, load_settings
from fairdiff_lib.disk.files import hash_file, read_json, read_table
from fairdiff_lib.disk.places import CARD, PROJECT_ROOT
from fairdiff_lib.model.pipeline import encode_images, load_pipeline, reconstruct
from fairdiff_lib.model.sample import sample
from fairdiff_lib.sim.fundus import FundusPopulation, draw_subject
from fairdiff_lib.studies.proof.images import photograph

SHIPPED = sorted((PROJECT_ROOT / "data" / "pretrained").iterdir())
LARGEST = 15 * 2**20  # bytes of a folder


@pytest.fixture(params=SHIPPED, ids=lambda folder: str(folder.name))
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_a_shipped_base_is_the_one_of_its_stamp(folder: Path) -> None:
    stamp = read_json(folder / "stamp.json")
    weights = sorted(folder.rglob("*.safetensors"))
    assert len(weights) == 3
    for path in weights:
        assert stamp["files"][path.relative_to(folder).as_posix()] == hash_file(path)
    assert stamp["dirty"] is False and stamp["simulated"] is True
    assert stamp["settings"]["dataset"] == folder.name
    assert stamp["parameters"]["command"] in (folder / CARD).read_text("utf-8")


def test_its_patients_are_no_studys_and_its_recipe_is_todays(folder: Path) -> None:
    own, now = read_json(folder / "stamp.json")["settings"], load_settings("base", folder.name)
    for preset in ("smoke", "quick", "reference", "paper"):
        study: Any = load_settings(preset, folder.name).simulator
        assert study.seed != own["simulator"]["seed"]
    assert own["model"]["vae_channels"] == list(now.model.vae_channels)
    for loop in ("vae", "base"):
        assert own[loop]["steps"] == getattr(now, loop).steps


def test_it_is_small_and_in_half_precision(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < LARGEST
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as opened:
            kinds = {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        assert kinds == {"F16"}


def test_all_its_gates_are_passed(folder: Path) -> None:
    gates = read_table(folder / "gates.csv", ("gate", "value", "passed"))
    assert {"reconstruction_blur", "generated_blur", "below_shuffled_prompts"} < set(gates["gate"])
    assert bool(gates["passed"].all())


def test_small_presets_start_from_it_and_it_knows_every_prompt(folder: Path) -> None:
    for preset in SMALL:
        assert PROJECT_ROOT / load_settings(preset, folder.name).model.pretrained == folder
    assert load_settings("quick", folder.name, {"model.pretrained": ""}).model.pretrained == ""
    pipeline = load_pipeline(folder)
    tokenizer, width = pipeline.tokenizer, pipeline.tokenizer.model_max_length
    for spec in DATASETS[folder.name].specs.values():
        asked = spec.every_prompt()
        for word in {w for prompt in asked for w in re.findall(r"[a-z]+|\d+", prompt.lower())}:
            assert len(tokenizer(word)["input_ids"]) <= 4, word  # a number may be two pieces
        assert max(len(ids) for ids in tokenizer(asked)["input_ids"]) <= width


def test_fundi_keep_their_discs_and_prompts_are_heard() -> None:
    """On patients whom nothing was trained or measured on."""
    pipeline = load_pipeline(PROJECT_ROOT / "data" / "pretrained" / "fairgenmed_simulated")
    population = FundusPopulation(train=1, val=1, test=40, seed=11)
    people = [draw_subject(population, "test", k) for k in range(40)]
    real = np.stack([photograph(person, population, 64) for person in people])
    ruler: Ruler | None = DATASETS["fairgenmed_simulated"].ruler
    assert ruler is not None
    before, after = ruler.measure(real), ruler.measure(reconstruct(pipeline.vae, real))
    assert np.corrcoef(before, after)[0, 1] > 0.98
    mean, std = encode_images(pipeline.vae, real)
    spread = (mean.var(dim=(0, 2, 3)) + std.square().mean(dim=(0, 2, 3))).sqrt()
    torch.testing.assert_close(spread, torch.ones(4), atol=0.15, rtol=0)
    assert pipeline.vae.config.scaling_factor == 1.0
    spec = DATASETS["fairgenmed_simulated"].spec()
    row = {field.name: field.levels[0] for field in spec.fields}
    prompts = [spec.prompt(row | {ruler.condition: level}) for level in (ruler.low, ruler.high)]
    made = sample(pipeline, [p for p in prompts for _ in range(6)], [*range(6), *range(6)],
                  steps=6, guidance=1.0)  # fmt: skip
    low, high = ruler.measure(made[:6]), ruler.measure(made[6:])
    assert low.max() < high.min()
