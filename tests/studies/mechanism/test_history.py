"""The mechanism from histories: planted surfaces are found, noise is not, shares are exact."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fairdiff_lib.disk.files import write_json, write_table
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import MitigationConfig, as_dict
from fairdiff_lib.studies.mechanism import history as mechanism
from fairdiff_lib.train.loop import HISTORY_COLUMNS

ATTRIBUTES = {"race": ("Asian", "Black"), "sex": ("Female", "Male")}
PLACES = [(a, level) for a, levels in ATTRIBUTES.items() for level in levels]
LEVELS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def planted(noise: float, slope: float, n: int = 48, windows: int = 6) -> mechanism.Told:
    """Scores that rise with the first level's sigma, if anything does."""
    generator = torch.Generator().manual_seed(0)
    sigma = torch.rand(n, 4, generator=generator, dtype=torch.float64)
    rest = noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return mechanism.Told(sigma, slope * sigma[:, 0] + rest, torch.arange(n) * windows // n)


def test_a_planted_surface_is_found_and_noise_is_not() -> None:
    surface = mechanism.fit_quality(planted(0.05, 1.0), shuffles=4)
    assert surface is not None
    assert surface.r2 > 0.9 and max(surface.shuffled) < 0.5
    assert surface.p == pytest.approx(1 / 5)
    nothing = mechanism.fit_quality(planted(1.0, 0.0), shuffles=4)
    assert nothing is not None
    assert nothing.r2 < 0.2 and nothing.p > 0.2
    assert (nothing.scores, nothing.windows) == (48, 6)


def test_nothing_is_judged_where_nothing_can_be() -> None:
    pairs = planted(1.0, 0.0)
    assert mechanism.fit_quality(pairs.only(0)) is None, "one window"
    flat = mechanism.Told(pairs.sigma, torch.zeros(48).double(), pairs.window)
    assert mechanism.fit_quality(flat) is None, "constant scores"
    with pytest.raises(InputError, match=r"window 9: no score; known: \[0, 1"):
        pairs.only(9)


def test_left_out_windows_are_predicted_as_by_conditioning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The closed form against the plain conditional mean of a Gaussian, block by block."""
    pairs = planted(0.3, 1.0, n=20, windows=4)
    seen = {}
    plain = mechanism._prior

    def spy(process: object) -> tuple[torch.Tensor, torch.Tensor]:
        seen["prior"] = plain(process)
        seen["y"] = process.train_targets.detach()  # type: ignore[attr-defined]
        return seen["prior"]

    monkeypatch.setattr(mechanism, "_prior", spy)
    r2 = mechanism.window_r2(pairs.sigma, pairs.scores, pairs.window)
    (covariance, centred), y = seen["prior"], seen["y"]
    error = total = 0.0
    for window in range(4):
        own = pairs.window == window
        across, inside = covariance[own][:, ~own], covariance[~own][:, ~own]
        guess = across @ torch.linalg.solve(inside, centred[~own])
        error += float((centred[own] - guess).square().sum())
        total += float((y[own] - y[~own].mean()).square().sum())
    assert r2 == pytest.approx(1 - error / total, abs=1e-9)


def test_slices_rise_where_the_surface_does() -> None:
    table = mechanism.slices(planted(0.05, 1.0), ATTRIBUTES, points=5)
    assert tuple(table.columns) == mechanism.SLICE_COLUMNS
    rise = table.groupby("level", sort=False)["mean"].agg(lambda v: v.iloc[-1] - v.iloc[0])
    assert rise["Asian"] == pytest.approx(1.0, abs=0.2)
    assert rise.drop("Asian").abs().max() < 0.2
    assert (table["low"] < table["mean"]).all() and (table["mean"] < table["high"]).all()


# -- histories -------------------------------------------------------------------------------


def sigma_rows(steps: int, value: float = 1.0) -> list[tuple[object, ...]]:
    return [(s, "sigma", *p, value * s / steps) for s in range(1, steps + 1) for p in PLACES]


def history(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))


def test_scores_of_steps_belong_to_the_window_that_they_end() -> None:
    rows = sigma_rows(6) + [(s, "score", "", "", -float(s)) for s in range(1, 6)]
    rows += [(6, "score", "", "", math.nan), (3, "acquisition", "", "", 0.0),
             (6, "acquisition", "", "", math.nan)]  # fmt: skip
    pairs = mechanism.told(history(rows), ATTRIBUTES)
    assert pairs is not None
    assert pairs.window.tolist() == [0, 0, 0, 1, 1], "a score of NaN was never used"
    assert pairs.sigma[:, 0].tolist() == pytest.approx([s / 6 for s in range(1, 6)])


def test_a_score_per_window_belongs_to_its_mean_sigma() -> None:
    rows = sigma_rows(6)
    for end in (3, 6):
        rows += [(end, "score", "", "", -0.1), (end, "acquisition", "", "", math.nan)]
    pairs = mechanism.told(history(rows), ATTRIBUTES)
    assert pairs is not None
    assert pairs.window.tolist() == [0, 1]
    assert pairs.sigma[:, 0].tolist() == pytest.approx([2 / 6, 5 / 6])
    assert mechanism.told(history(sigma_rows(3)), ATTRIBUTES) is None


def test_share_of_negative_weights_is_the_gaussians() -> None:
    two = {"a": ("x", "y"), "b": ("x", "y"), "c": ("x", "y")}
    path = torch.tensor([[1.0] * 6, [0.5] * 6, [0.0] * 6], dtype=torch.float64)
    share = mechanism.negative_share(path, np.zeros((5, 3), dtype=np.int64), two)
    assert share[0] == pytest.approx(0.2819, abs=1e-4), "Phi(-1 / sqrt 3): P3's 28%"
    assert share[1] == pytest.approx(0.1241, abs=1e-4)
    assert share[2] == 0.0
    mixed = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    rows = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert mechanism.negative_share(mixed, rows, two)[0] == pytest.approx(0.1587 / 4, abs=1e-4)


def saved(
    folder: Path, method: str, rows: list[tuple[object, ...]], seed: int = 0, steps: int = 30
) -> Path:
    stamp = {"settings": {"mitigation": as_dict(MitigationConfig()), "training": {"steps": steps}}}
    write_table(history(rows).assign(stage="training"), folder / "history.csv")
    write_json(folder / "run.json", {"method": method, "seed": seed, "stamp": stamp})
    return folder


def logged(moment: float, weight: float = 1.0) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for step, factor in ((10, 1.0), (20, 0.95), (30, 0.5)):
        rows += [(step, "clip_factor", "", "", factor), (step, "second_moment", "", "", moment)]
        rows += [(step, "weight", *place, weight + step / 1e4) for place in PLACES]
        if weight == 1.0:
            rows = [(*r[:4], 1.0) if r[1] == "weight" else r for r in rows]
    return rows


def measured(*named: tuple[str, Path]) -> pd.DataFrame:
    runs = [mechanism.read_run(*one) for one in named]
    return mechanism.history_table(runs, ATTRIBUTES, LEVELS, "made_simulated", shuffles=2)


def test_rows_that_do_not_apply_are_absent(tmp_path: Path) -> None:
    table = measured(("none", saved(tmp_path / "none", "none", logged(1.0))))
    assert tuple(table.columns) == mechanism.COLUMNS
    assert set(table["quantity"]) == {"clipped_spans", "clipped_steps", "clip_factor"}
    rival = measured(("group_dro", saved(tmp_path / "dro", "group_dro", logged(1.0, 1.5))))
    assert "weight" in set(rival["quantity"])
    assert not rival["quantity"].str.startswith(("negative", "surrogate", "drift")).any()


def test_clipped_steps_lie_between_what_spans_allow(tmp_path: Path) -> None:
    """Factors 1, 0.95 and 0.5 over ten steps each: at least 0 + 1 + 5, at most 0 + 10 + 10."""
    table = measured(("none", saved(tmp_path / "none", "none", logged(1.0))))
    rows = table.set_index("quantity")
    assert rows.loc["clipped_spans", "value"] == pytest.approx(2 / 3)
    assert rows.loc["clipped_steps", ["low", "high"]].tolist() == pytest.approx([6 / 30, 20 / 30])
    assert math.isnan(rows.loc["clipped_steps", "value"])
    assert rows.loc["clip_factor", "value"] == pytest.approx((1 + 0.95 + 0.5) / 3)


def test_an_arm_keeps_its_label_and_its_own_baseline(tmp_path: Path) -> None:
    full = logged(2.0, 0.9) + sigma_rows(30, 0.8)
    full += [(s, "score", "", "", -0.1 * (s % 7)) for s in range(1, 31)]
    full += [(s, "acquisition", "", "", 0.0) for s in (10, 20, 30)]
    full += [(s, "negative_weights", "", "", 0.2) for s in (10, 20, 30)]
    arm = ("beta 1", saved(tmp_path / "arm", "fairdiffusion", full))
    none = ("none", saved(tmp_path / "none", "none", logged(1.0)))
    longer = ("none, longer", saved(tmp_path / "other", "none", logged(8.0), steps=60))
    table = measured(longer, arm, none)
    own = table[table["method"] == "beta 1"].set_index("quantity")
    assert own.loc["drift_ratio", "value"] == pytest.approx(0.5), "the run of the same settings"
    assert own.loc["weight", "value"].tolist() == pytest.approx([0.902] * 4)
    assert own.loc["negative_weights", "value"] == pytest.approx(0.2)
    assert 0.0 < own.loc["negative_weights_theory", "value"] < 0.15
    assert {"surrogate_r2", "surrogate_r2_shuffled", "surrogate_p"} <= set(own.index)
    assert "drift_ratio" not in set(measured(longer, arm)["quantity"])


def test_a_run_that_is_not_finished_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.json: missing"):
        mechanism.read_run("none", tmp_path)
