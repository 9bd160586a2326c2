"""Recorded runs, and the tables over them: planted changes are found, nothing else is."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.contrasts import Design
from fairdiff_lib.audit.estimate import Estimate
from fairdiff_lib.datasets import load_settings
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.show.figures.studies import fig07, fig_methods
from fairdiff_lib.show.front import Nothing
from fairdiff_lib.show.words_studies import about_bayes, about_comparison, about_declared
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.studies.ablation.compare import (
    cell_table,
    cost_table,
    method_table,
    over_seeds,
    smallest_effects,
    with_gates,
)
from fairdiff_lib.studies.ablation.runs import RecordedRun, read_run, refuse_mixed, write_run

SUBJECTS, KID = 200, 0.04
DESIGN = Design({"sex": ("Female", "Male")}, role="exploratory")


def an_audit(kid: float, gap: float, rng: np.random.Generator, features: str) -> Audit:
    """Sex differs by ``gap``; influence values of a realistic size."""
    influence = rng.normal(0, 0.002 / SUBJECTS**0.5, SUBJECTS)
    half = np.arange(SUBJECTS) < SUBJECTS // 2
    found = {
        ("overall", "all"): Estimate(kid, influence, SUBJECTS, SUBJECTS - 1),
        ("sex", "Female"): Estimate(kid - gap / 2, influence * half, 100, 99, "a note"),
        ("sex", "Male"): Estimate(kid + gap / 2, influence * ~half, 100, 99),
    }
    return Audit("kid", found, DESIGN, features)


def a_run(arm: str, seed: int, kid: float, gap: float, share: float = 0.04) -> RecordedRun:
    rng = np.random.default_rng([seed, 7])
    noise = np.random.default_rng(zlib.crc32(f"{arm} {seed}".encode())).normal(0, 2e-5, 2)
    audits = [an_audit(kid + noise[0], gap + noise[1], rng, "lite0")]
    cost = {"seconds": 60.0, "loop_seconds": 50.0, "seconds_per_step": 0.2,
            "optimiser_share": share, "measure_share": 0.0, "images_seen": 7680,
            "peak_memory_gib": 1.0, "proposals": 8, "noise_variance": 0.8}  # fmt: skip
    gates = [{"gate": "vae", "method": arm, "seed": seed, "value": 0.9, "passed": True}]
    identity = {"data_hash": "d", "base": "b", "features": "e", "audit": "a", "run": arm}
    return RecordedRun(arm, seed, identity, audits, cost, gates, {"commit": "c"})


@pytest.fixture
def settings() -> Settings:
    found = load_settings("quick", "fairgenmed_simulated", {"ablation.roles": "core,window"})
    arms.check_arms(found)
    return found


@pytest.fixture
def runs(settings: Settings) -> dict[tuple[str, int], RecordedRun]:
    """Corrected halves the gap of 0.03; everything else changes nothing; seeds differ a lot."""
    found = {}
    for arm, seed in arms.runs_of(settings):
        gap = 0.015 if arm.name == "fairdiffusion_corrected" else 0.03
        found[arm.name, seed] = a_run(arm.name, seed, KID + 0.005 * seed, gap)
    return found


def row(table: pd.DataFrame, **wanted: object) -> pd.Series:
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1, wanted
    return table.iloc[0]


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = a_run("fairdiffusion window=10", 3, KID, 0.01)
    path = write_run(tmp_path / "a.json", run, simulated=True)
    back = read_run(path)
    assert (back.key, back.identity, back.cost, back.gates) == (
        run.key, run.identity, run.cost, run.gates
    )  # fmt: skip
    for key, own in run.audits[0].estimates.items():
        other = back.audits[0].estimates[key]
        assert (other.n, other.df, other.note) == (own.n, own.df, own.note)
        assert other.value == pytest.approx(own.value, rel=1e-12)
        assert other.interval() == pytest.approx(own.interval(), rel=1e-5)
    assert back.audits[0].contrasts["p"].to_numpy() == pytest.approx(
        run.audits[0].contrasts["p"].to_numpy(), rel=1e-4
    )


def test_a_broken_recording_names_the_file(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a.json", a_run("none", 0, KID, 0.0), simulated=True)
    path.with_suffix(".npz").unlink()
    with pytest.raises(InputError, match=r"a\.npz: missing"):
        read_run(path)
    np.savez(path.with_suffix(".npz"), **{"kid lite0": np.zeros((2, SUBJECTS))})
    with pytest.raises(InputError, match="expected 3 rows of 'kid lite0'"):
        read_run(path)


def test_runs_in_other_features_dont_compare(tmp_path: Path) -> None:
    one, other = a_run("none", 0, KID, 0.0), a_run("none", 1, KID, 0.0)
    refuse_mixed([one, other], tmp_path)
    changed = replace(other, identity={**other.identity, "features": "another"})
    with pytest.raises(InputError, match="different features don't compare: none seed 0 has e, "):
        refuse_mixed([one, changed], tmp_path)


def test_a_planted_change_is_found_and_nothing_else(
    settings: Settings, runs: dict[tuple[str, int], RecordedRun]
) -> None:
    table = method_table(settings, runs, 0.2)
    own = table[table["role"] == "primary"]
    found = own[own["p_adjusted"] < 0.05]
    assert set(found["method"]) == {"fairdiffusion_corrected"}
    assert set(found["metric"]) == {"kid_disparity"} and (found["value"] < 0).all()
    assert set(found["baseline"]) == {"none", "shuffled_y_corrected", "fairdiffusion"}
    change = row(own, method="fairdiffusion_corrected", baseline="none", metric="kid_disparity")
    assert change["value"] == pytest.approx(0.015**2 - 0.03**2, rel=0.02)
    same = row(own, method="fairdiffusion", baseline="shuffled_y", metric="kid")
    assert same["p_equivalence"] < 1e-6 and same["mde"] < same["smallest_effect"]
    assert same["low"] < 0 < same["high"]
    assert same["high"] - same["low"] < 2e-4, "seeds are paired: what they share cancels"


def test_few_seeds_are_described_without_p(
    settings: Settings, runs: dict[tuple[str, int], RecordedRun]
) -> None:
    table = method_table(settings, runs, 0.2)
    cells = table[table["method"].str.contains("window=")]
    assert len(cells) and cells[["p", "p_adjusted", "p_equivalence", "mde"]].isna().all(axis=None)
    overall = cells[(cells["attribute"] == "overall") & (cells["baseline"] != "")]
    assert np.isfinite(overall["low"]).all()
    t12 = cell_table(settings, runs, 0.2)
    assert set(t12["seeds"]) == {"0,1,2"} and t12["p"].isna().all()
    pairs = t12[["time_window", "exploitation_rate"]].drop_duplicates()
    assert len(pairs) == 5 and t12["noise_variance"].to_numpy() == pytest.approx(0.8)


def test_the_smallest_effect_is_of_kid_in_the_first_space_alone(
    runs: dict[tuple[str, int], RecordedRun],
) -> None:
    expected = {("kid", "lite0"): 0.2, ("kid_disparity", "lite0"): pytest.approx(0.04)}
    assert smallest_effects(runs, 0.2) == expected


def test_seeds_without_an_effect_alarm_at_their_level() -> None:
    rng = np.random.default_rng(3)
    p = [over_seeds(rng.normal(size=8).tolist()).p_value() for _ in range(4000)]
    assert 0.04 < np.mean(np.array(p) < 0.05) < 0.06
    assert np.isnan(over_seeds([0.1, 0.2, 0.3, 0.4]).p_value())


def test_cost_projects_the_optimiser_to_slow_steps(
    settings: Settings, runs: dict[tuple[str, int], RecordedRun]
) -> None:
    table = cost_table(settings, runs)
    one = row(table, method="fairdiffusion", seed=0)
    assert one["seconds_per_proposal"] == pytest.approx(0.04 * 50 / 8)
    window = settings.mitigation.time_window * settings.ablation.large_step_seconds
    assert one["share_at_large_step"] == pytest.approx(0.25 / (0.25 + window))


def test_a_failed_check_stands_in_the_rows_of_its_arm_alone() -> None:
    table = pd.DataFrame({"method": ["none", "febs", "fis", "fis"],
                          "baseline": ["", "none", "none", "febs"], "note": ""})  # fmt: skip
    gates = pd.DataFrame([
        {"gate": "vae", "method": arm, "seed": 0, "value": value, "passed": value > 0.6,
         "comparison": ">=", "threshold": 0.6}
        for arm, value in (("none", 0.9), ("febs", 0.5), ("fis", 0.9))
    ])  # fmt: skip
    noted = with_gates(table, gates)["note"]
    assert noted.str.contains("found 0.5").tolist() == [False, True, False, True]


def test_sentences_say_which_way_it_fell(
    settings: Settings, runs: dict[tuple[str, int], RecordedRun]
) -> None:
    table = method_table(settings, runs, 0.2)
    assert "the Bayesian part does something" in about_bayes(
        table, "fairdiffusion_corrected", "shuffled_y_corrected"
    )
    assert "in both endpoints" in about_bayes(table, "fairdiffusion", "shuffled_y")
    few = method_table(settings, {key: run for key, run in runs.items() if key[1] < 3}, 0.2)
    said = about_bayes(few, "fairdiffusion", "shuffled_y")
    assert "in image quality (KID)" in said and "too few seeds for a test" in said
    assert "Too few seeds" in about_bayes(
        few.assign(smallest_effect=1e-6), "fairdiffusion", "shuffled_y"
    )
    first = row(table, method="fairdiffusion", baseline="none", metric="kid", attribute="overall")
    wide = {**first.to_dict(), "p_equivalence": 0.5}
    assert "undecided" in about_comparison(wide) and "four of five" in about_comparison(wide)
    assert "no change as large as what matters" in about_comparison(first.to_dict())
    untested = {**first.to_dict(), "p_adjusted": np.nan}
    assert "no change as large as what matters (0.2)" in about_comparison(untested)
    assert "what matters" not in about_comparison({**untested, "high_new": 0.3})
    told = about_declared(few).splitlines()
    assert "Too few seeds" in told[0] and "for these patients alone" in told[2]


def test_figures_show_every_arm_with_its_seeds(
    settings: Settings, runs: dict[tuple[str, int], RecordedRun]
) -> None:
    from fairdiff_lib.studies.ablation.compare import dose_table

    table, roles = (
        method_table(settings, runs, 0.2),
        {a.name: a.role for a in arms.arms_of(settings)},
    )
    page = fig_methods(table, roles, ["gate vae failed"])
    axes = page.get_axes()
    labels = [text.get_text() for text in axes[0].get_yticklabels()]
    assert "FairDiffusion, corrected" in labels and "Window and drift rate" in labels
    assert sum(text.get_text() == "8" for text in axes[-1].texts) == 5
    assert "simulated" in page.get_suptitle() and "Caution" in page.get_supxlabel()
    assert "Core arms (declared)" in labels and "nothing is tested" not in page.get_supxlabel()
    untested = fig_methods(table.assign(p=np.nan), roles).get_supxlabel()
    assert "Of fewer than 5 seeds nothing is tested" in " ".join(untested.split())
    cells = fig07(cell_table(settings, runs, 0.2), dose_table(settings, runs))
    assert [t.get_text() for t in cells.get_axes()[0].get_yticklabels()].count(
        "window 30, rate 0.95"
    ) == 1
    with pytest.raises(Nothing):
        fig07(table.head(0), dose_table(settings, runs))
