"""Dose and response: the design tells levels apart, planted effects come back, cells are kept."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from fairdiff_lib.disk.files import write_json
from fairdiff_lib.model.pipeline import build_pipeline, save_pipeline
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies import mechanism as dose
from fairdiff_lib.study import Study

ATTRIBUTES = {"race": ("Asian", "Black", "White"), "sex": ("Female", "Male")}


@pytest.mark.parametrize("factors", range(1, 12))
def test_a_design_is_balanced_and_orthogonal(factors: int) -> None:
    found = dose.design(factors)
    assert set(found.ravel()) == {-1, 1}
    assert (found.sum(axis=0) == 0).all()
    np.testing.assert_array_equal(found.T @ found, len(found) * np.eye(factors))


def test_seven_levels_take_eight_points_and_four_are_clear_of_pairs() -> None:
    assert dose.design(7).shape == (8, 7)
    four = dose.design(4)
    assert len(four) == 8
    for a, b, c in itertools.permutations(range(4), 3):  # resolution IV
        assert abs(int((four[:, a] * four[:, b] * four[:, c]).sum())) < 8


def cells_of(effect: dict[str, float], noise: float = 0.0) -> pd.DataFrame:
    """Cells whose losses are what the effects say, plus a shift per seed."""
    own = dose.Dose(low=0.1, high=0.9, seeds=(0, 1), reweightings=("mean",))
    rng, rows = np.random.default_rng(0), []
    names = [(a, level) for a, levels in ATTRIBUTES.items() for level in levels]
    sigma = dose.sigmas(own, ATTRIBUTES).numpy()
    for cell in dose.cells(own, ATTRIBUTES):
        high = sigma[cell.point] > 0.5
        losses = [1 + cell.seed + effect.get(name[1], 0.0) * up + noise * rng.normal()
                  for name, up in zip(names, high, strict=True)]  # fmt: skip
        gap = max(losses) - min(losses)
        head = {**dataclasses.asdict(cell), "steps": 30}
        rows.append({**head, "attribute": "overall", "level": "all", "n": 9,
                     "sigma": 0.5, "loss": float(np.mean(losses)), "gap": gap})  # fmt: skip
        for name, s, loss in zip(names, sigma[cell.point], losses, strict=True):
            rows.append({**head, "attribute": name[0], "level": name[1], "n": 3, "sigma": s,
                         "loss": loss})  # fmt: skip
    return pd.DataFrame(rows, columns=list(dose.CELL_COLUMNS))


def test_a_planted_effect_comes_back_and_seeds_are_a_block() -> None:
    table = dose.effects(cells_of({"Black": -0.2}, noise=0.01), "made_simulated")
    assert tuple(table.columns) == dose.EFFECT_COLUMNS
    own = table[table["outcome"] == "own_loss"].set_index("level")
    assert own.loc["Black", "value"] == pytest.approx(-0.2, abs=0.02)
    assert own.loc["Black", "high"] < 0, "the shift of 1 between seeds is no noise"
    assert own.drop("Black")["value"].abs().max() < 0.02
    overall = table[table["outcome"] == "overall_loss"].set_index("level")
    assert overall.loc["Black", "value"] == pytest.approx(-0.2 / 5, abs=0.02)
    gap = table[table["outcome"] == "gap"].set_index("level")
    assert gap.loc["Black", "low"] > 0, "one level alone gets better: the gap widens"


def test_as_many_coefficients_as_cells_have_no_interval() -> None:
    cells = cells_of({})
    few = cells[(cells["seed"] == 0) & (cells["point"] < 6)]
    table = dose.effects(few, "made_simulated")
    assert table["low"].isna().all()
    assert table["note"].str.contains("no interval").all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"low": 0.9, "high": 0.1}, r"low=0\.9"),
        ({"steps": 0}, r"steps=0"),
        ({"seeds": ()}, "seeds=: expected at least 1"),
        ({"reweightings": ("none",)}, "unknown reweightings 'none'; known: mean, noise"),
    ],
)
def test_a_wrong_dose_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dose.Dose(**wrong)  # type: ignore[arg-type]


def test_cells_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.open("smoke", runs_root=str(tmp_path / "runs"))
    settings, layout, cohort = study.settings, study.places, study.cohort
    train = cohort.included().split("train")
    pipeline = build_pipeline(settings.model, train.table["prompt"].tolist(), seed=0)
    save_pipeline(pipeline, layout.base / "pipeline")
    size = pipeline.unet.config.sample_size
    latents = torch.randn(len(train), 4, size, size, generator=torch.Generator().manual_seed(0))
    save_file({"mean": latents, "std": 0.1 * latents.abs()}, layout.base / "latents.safetensors")
    write_json(layout.base / "run.json", {"stamp": {"data_hash": cohort.data_hash}})
    small = dose.Dose(steps=2, seeds=(0,), reweightings=("mean",), held_out_rows=6,
                      held_out_timesteps=(500,))  # fmt: skip
    table = dose.run_cells(study, small)
    assert len(table) == 8 * (7 + 1)
    overall = table[table["attribute"] == "overall"]
    assert overall["loss"].nunique() == 8, "each design point trains to other weights"
    assert (overall["gap"] > 0).all()
    monkeypatch.setattr(dose, "fit", None)  # calling it would raise
    again = dose.run_cells(study, small)
    pd.testing.assert_frame_equal(again, table)
    # another amount of training is other cells
    with pytest.raises(TypeError):
        dose.run_cells(study, dataclasses.replace(small, steps=3))
