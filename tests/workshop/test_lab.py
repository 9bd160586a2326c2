"""What the exercises compute without torch is what the library computes with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fairdiff_lib.classify.features import TextureExtractor
from fairdiff_lib.data.own import write_example
from fairdiff_lib.methods.perturbation import perturbation_weights
from fairdiff_lib.studies.own import audit_own
from fairdiff_lib.workshop import data, lab

HEAVY = ("torch", "diffusers", "transformers", "snakemake", "sklearn", "botorch", "papermill")


def test_the_weights_are_the_method_s() -> None:
    rng = np.random.default_rng(0)
    sizes = [2, 3]
    levels = np.stack([rng.integers(0, k, 50) for k in sizes], axis=1)
    noise, sigma = rng.standard_normal((50, 2)), rng.random(5)
    theirs = perturbation_weights(*map(torch.tensor, (sigma, noise, levels)), sizes)
    assert np.allclose(
        lab.weights(sigma, levels + np.array([0, 2]), noise), theirs.numpy(), atol=1e-12
    )


def test_the_texture_is_the_extractor_s() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    theirs = TextureExtractor()(images.transpose(0, 3, 1, 2))
    assert np.allclose(lab.texture(images), theirs, atol=1e-5)


@pytest.mark.slow
def test_the_audit_of_pictures_says_what_fairdiff_audit_says(tmp_path: Path) -> None:
    files = write_example(tmp_path / "example", blur=0.2)
    ours = lab.audit_pictures(tmp_path / "example").contrasts
    theirs = audit_own(*files, ["palette", "camera"], features="texture").audit.contrasts
    both = ours.merge(theirs, on=["attribute", "level"])
    assert len(both) == 2
    assert np.allclose(both["value_x"], both["value_y"], rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("group", ["A", "B"])
@pytest.mark.parametrize("threshold", [-0.5, 0.9])
def test_patients_follow_the_law(group: str, threshold: float) -> None:
    people = lab.patients((50_000, 50_000))
    row = lab.harm_per_thousand(people, threshold).loc[group]
    error = 4 * np.sqrt(0.25 / 15_000)
    assert abs(row["missed_share"] - lab.missed_law(threshold, group)) < error
    assert abs(row["alarmed"] / 1000 - 0.7 * lab.alarmed_law(threshold, group)) < error


@pytest.mark.parametrize("mean", [1.0, 3.0, 9.0])
def test_a_mean_weight_moves_the_end_and_noise_does_not(mean: float) -> None:
    for sigma in ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        end = lab.train_toy(sigma, (1.0, mean))[2000:].mean()
        assert end == pytest.approx(2 * mean / (9 + mean), abs=0.02)


def test_the_strata_turn_round() -> None:
    table = data.strata()
    crude = table.groupby("camera")["error"].mean()
    within = table.groupby(["condition", "camera"])["error"].mean().unstack()
    assert crude["B"] > crude["A"]
    assert (within["B"] < within["A"]).all()
    assert table.groupby("camera").size().tolist() == [200, 200]


def test_the_committed_table_of_strata_is_what_the_command_makes() -> None:
    pd.testing.assert_frame_equal(data.make_strata(), data.strata())


def test_committed_data_are_small_and_stamped_simulated() -> None:
    from fairdiff_lib.disk.files import hash_file, read_json

    files = sorted(data.FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files if path.suffix != ".json") < 300_000
    stamped = {}
    for path in files:
        if path.suffix == ".json":
            stamp = read_json(path)
            assert stamp["simulated"] is True
            assert stamp["commit"]
            stamped |= stamp["files"]
    for path in files:
        if path.suffix != ".json":
            assert stamped[path.name] == hash_file(path)


@pytest.mark.slow
def test_exercise_1_starts_without_torch() -> None:
    """And without anything that the lean environment lacks."""
    code = "import sys; from fairdiff_lib.workshop import check, pictures; "
    code += "from fairdiff_lib.studies.proof import OurAudit, fid_bias; "
    code += "from fairdiff_lib.workshop.lab import audits, world; "
    code += "from fairdiff_lib.workshop import questions; "
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
