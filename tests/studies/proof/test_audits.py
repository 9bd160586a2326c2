"""The proof's design is what it says, and a reduced proof can fail."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.audit.kid import Kernel, kid
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.places import Places
from fairdiff_lib.run.cli import main
from fairdiff_lib.run.graph import STUDIES
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.show.figures import studies as pictures
from fairdiff_lib.show.words_studies import about_audit, about_fid_bias
from fairdiff_lib.sim.fundus import draw_subject
from fairdiff_lib.studies.proof import audits, feature_cells, images, known
from fairdiff_lib.studies.proof.audits import (
    COLUMNS,
    SURE,
    Cell,
    Finding,
    OurAudit,
    TwoGroups,
    by_situation,
    count,
    judged,
    most,
    simulate,
)
from fairdiff_lib.studies.proof.known import VARIETY, Planted, fid_bias

SEED = 11  # not the proof's own
SMALL = ProofConfig(simulations=300, dear_simulations=100, power_simulations=60,
                    naive_simulations=40, width=16, reference=150, sizes=(40,), naive_sizes=(40,),
                    family_sizes=(40, 60), ratios=(1.5, 3.0), permutations=39)  # fmt: skip


@pytest.fixture(scope="module")
def design() -> Planted:
    return Planted.of(SMALL)


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return feature_cells(SMALL)


def chosen(cells: list[Cell], what: str, null: str = "unequal", ratio: float = 1.0) -> list[Cell]:
    """Cells of one situation."""
    wanted = (what, null, ratio)
    return [
        cell
        for cell in cells
        for at in [cell.situation]
        if (at.what, at.null, at.planted_ratio) == wanted
    ]


# -- why not FID -------------------------------------------------------------------------------


def test_plain_fid_falls_to_one_limit_from_two_heights() -> None:
    """Equal population FID: at few images the varied group looks worse, at many both are right."""
    rows, limit = fid_bias(SMALL, sizes=(40, 4000), draws=4)
    means = rows.groupby(["n", "level"])["value"].mean().unstack("level")[list(VARIETY.values())]
    varied, uniform = means.loc[40]
    assert varied > 1.2 * uniform > 1.2 * limit
    np.testing.assert_allclose(means.loc[4000], limit, rtol=0.05)
    spread = rows[rows["n"] == 4000].groupby("level")["value"].nunique()
    assert set(spread) == {4}, "each draw has images of its own"
    said = about_fid_bias(rows, limit)
    assert f"is {limit:.3g}." in said and f"{varied:.3g} for the {VARIETY['small']}" in said
    title = str(pictures.fig_fid_bias(rows, limit).get_suptitle())
    assert "simulated" in title


# -- the truth ---------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["small", "middle", "large"])
def test_closed_form_kid_is_what_samples_show(design: Planted, group: str) -> None:
    """KID of 40 x 500 draws: within 4 standard errors of the planted 0.04, which are small."""
    law, rng = design.law(group), np.random.default_rng(0)
    groups = group_units(pd.DataFrame({"subject": np.arange(500)}), {})
    found = [kid(design.kernel, *law.draw(rng, 500), groups)[0].value for _ in range(40)]
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert error < 0.02 * SMALL.kid
    assert abs(np.mean(found) - SMALL.kid) < 4 * error


def test_closed_form_fid_of_a_shift_and_of_a_scale() -> None:
    real = known.Gaussian(np.zeros(3), known.rotation(3, 0) * np.array([1.0, 2.0, 3.0]))
    shifted = known.Pair(real, real.shifted(np.array([1.0, -2.0, 0.0])))
    assert known.population_fid(shifted) == pytest.approx(5.0)
    halved = known.Pair(real, real.scaled(0.5))
    assert known.population_fid(halved) == pytest.approx(0.25 * 14)


def test_the_unequal_null_has_one_truth_and_unequal_reals(design: Planted) -> None:
    small, large = (design.law(group).pair for group in ("small", "large"))
    for pair in (small, large):
        assert known.population_kid(design.kernel, pair) == pytest.approx(SMALL.kid, rel=1e-9)
    of_fid = [known.population_fid(design.law_of_fid(g).pair) for g in ("small", "large")]
    assert of_fid[0] == pytest.approx(of_fid[1], rel=1e-9)
    between_reals = known.population_kid(design.kernel, known.Pair(small.real, large.real))
    assert between_reals > 0.5 * SMALL.kid
    ratio = np.trace(small.real.root @ small.real.root.T) / SMALL.width
    assert ratio > 1.3  # more varied


def test_a_truth_out_of_reach_is_refused(design: Planted) -> None:
    with pytest.raises(InputError, match=r"planted distance 5: expected above 0 and below"):
        known.group_pair(
            "large", design.law("large").pair.real, 5.0,
            partial(known.population_kid, design.kernel),
        )  # fmt: skip


def test_strata_have_the_planted_kid_at_common_shares_only(design: Planted) -> None:
    pairs = [law.pair for law in design.strata("small", (0.7, 0.3))]
    assert known.mixture_kid(design.kernel, pairs, (0.7, 0.3)) == pytest.approx(SMALL.kid, rel=1e-9)
    assert known.mixture_kid(design.kernel, pairs, (0.4, 0.6)) > 1.2 * SMALL.kid


# -- a reduced proof ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("null", ["exchangeable", "unequal"])
def test_the_audit_keeps_its_promise_and_the_fid_tests_do_not(
    cells: list[Cell], null: str, tmp_path: Path
) -> None:
    parts = chosen(cells, "two groups", null) + chosen(cells, "two groups of one FID", null)
    table = simulate(parts, tmp_path, SEED, processes=1)
    assert list(table.columns) == list(COLUMNS)
    assert judged(parts, table)["passed"].all()
    rates = table.set_index("procedure")["alarm"]
    allowed = stats.binom.ppf([0.0005, 0.9995], SMALL.simulations, audits.LEVEL)
    assert allowed[0] <= rates["audit"] * SMALL.simulations <= allowed[1]
    assert rates["released_t_test"] > 0.5
    for name in ("fid_permutation", "fid_equal_n_permutation"):
        assert rates[name] > 0.5 if null == "unequal" else rates[name] < 0.2


@pytest.mark.slow
def test_an_audit_that_ignores_half_its_variance_would_be_caught(
    cells: list[Cell], tmp_path: Path
) -> None:
    """The proof has teeth: intervals that are too short by 30% fail its limits."""
    (cell,) = (c for c in chosen(cells, "two groups") if c.procedure == audits.OURS)
    cell = dataclasses.replace(cell, simulations=1000)
    simulate([cell], tmp_path, SEED, processes=1)
    found = audits.findings([cell], tmp_path)
    middle, reach = (found["low"] + found["high"]) / 2, 0.7 * (found["high"] - found["low"]) / 2
    short = found.assign(low=middle - reach, high=middle + reach)
    short = short.assign(alarm=(short["low"] > 0) | (short["high"] < 0))
    verdict = judged([cell], pd.DataFrame([count(cell, short)]))
    assert not verdict.set_index("check")["passed"]["alarm"].all()
    assert "Fails" in about_audit(verdict)


def test_a_planted_disparity_is_found(cells: list[Cell], tmp_path: Path) -> None:
    parts = [cell for ratio in (1.5, 3.0) for cell in chosen(cells, "two groups", "none", ratio)]
    rates = simulate(parts, tmp_path, SEED, processes=1)["alarm"]
    assert rates.iloc[0] < rates.iloc[1]
    assert rates.iloc[1] > 0.9
    assert parts[1].situation.truth == pytest.approx(2 * SMALL.kid)


@pytest.mark.slow
def test_case_mix_is_an_alarm_for_the_plain_kid_only(cells: list[Cell], tmp_path: Path) -> None:
    """Equal KID at common shares of the ill: the plain KID counts them."""
    rates = simulate(chosen(cells, "case mix"), tmp_path, SEED, processes=1)["alarm"]
    assert rates.iloc[0] < 0.12
    assert rates.iloc[1] > rates.iloc[0] + 0.2


@pytest.mark.slow
def test_results_depend_neither_on_processes_nor_on_a_kill(
    cells: list[Cell], tmp_path: Path
) -> None:
    (cell,) = chosen(cells, "auc")
    cell = dataclasses.replace(cell, simulations=250)
    whole = simulate([cell], tmp_path / "a", SEED, processes=1)
    killed = tmp_path / "b"
    simulate([dataclasses.replace(cell, simulations=100)], killed, SEED, processes=1)
    first = next(killed.rglob("000000.csv"))
    before = first.stat().st_mtime_ns
    resumed = simulate([cell], killed, SEED, processes=2)
    pd.testing.assert_frame_equal(whole, resumed)
    assert first.stat().st_mtime_ns == before


def test_every_situation_has_its_own_name_and_every_row_its_own_key() -> None:
    for config in (ProofConfig(), load_settings("smoke").proof):
        found = feature_cells(config)
        for own in by_situation(found):
            assert len({id(cell.situation) for cell in own}) == 1
        keys = {tuple(cell.key.values()) for cell in found}
        assert len(keys) == len(found)


# -- what a situation holds --------------------------------------------------------------------


def test_runs_scatter_about_the_planted_kid(design: Planted) -> None:
    kids = [known.population_kid(design.kernel, law.pair) for law in design.laws_of_runs("small")]
    assert np.mean(kids) == pytest.approx(SMALL.kid, rel=1e-9)
    assert np.std(kids) == pytest.approx(SMALL.run_spread * SMALL.kid, rel=1e-9)


def test_other_errors_cost_what_one_blur_costs(design: Planted) -> None:
    for group in ("small", "large"):
        soft, other = (design.law_of_blur(group, itself).pair for itself in (True, False))
        distances = [known.population_kid(design.kernel, pair) for pair in (soft, other)]
        assert distances[0] == pytest.approx(distances[1], rel=1e-9)
    noise = np.random.default_rng(0).standard_normal((20_000, SMALL.width))
    real = design.law("small").pair.real
    drawn = known.faded(real.draw(noise), 0.9)
    np.testing.assert_allclose(drawn, known.blurred(real, 0.9).draw(noise), atol=1e-12)


def test_copies_are_refused_and_a_few_are_not(cells: list[Cell]) -> None:
    rng = np.random.default_rng(0)
    for what, given in (("many copies", False), ("few copies", True)):
        cell = next(c for c in chosen(cells, what) if c.procedure == audits.OURS)
        found = cell.judge(cell.scene(rng), rng)
        assert np.isfinite(found.low) == given
        assert given or not found.alarm


def test_a_verdict_is_right_where_much_is_planted(cells: list[Cell]) -> None:
    (cell,) = chosen(cells, "verdict", "none", 2.0)
    found = [cell.judge(cell.scene(np.random.default_rng(k)), None) for k in range(20)]
    said = [one.said for one in found]
    assert "no_larger" not in said
    assert sum(one.alarm for one in found) == sum(s in ("larger", "different") for s in said) > 10


def test_groups_of_a_scene_are_those_of_its_rows(cells: list[Cell]) -> None:
    scene = chosen(cells, "several images")[0].scene
    seen = scene(np.random.default_rng(1))
    assert len(seen.real) == len(seen.groups.unit) > seen.groups.sizes()[0]
    assert seen.groups.sizes().tolist() == [190, 40, 150]
    mixed = chosen(cells, "case mix")[0].scene(np.random.default_rng(1))
    assert mixed.strata.sizes().tolist()[0] == 190
    ill = mixed.strata.column("case", "ill")
    assert ill[mixed.groups.column("group", "small")].mean() == pytest.approx(0.7)
    np.testing.assert_array_equal(mixed.groups.unit, mixed.strata.unit)


# -- naive tests -------------------------------------------------------------------------------


def test_a_permutation_that_stops_early_answers_as_a_whole_one() -> None:
    rng = np.random.default_rng(3)
    small = np.arange(30) < 10
    for trial in range(40):
        values = rng.standard_normal(30) + 0.5 * small

        def gap(own: np.ndarray, values: np.ndarray = values) -> float:
            return abs(float(values[own].mean() - values[~own].mean()))

        early = audits.permutation_alarm(gap, small, np.random.default_rng(trial), 39)
        whole = np.random.default_rng(trial)
        larger = sum(gap(whole.permutation(small)) >= gap(small) for _ in range(39))
        assert early == ((larger + 1) / 40 <= audits.LEVEL)


def test_pairs_without_self_pairs_are_the_unbiased_kid() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 24, 4))
    kernel = Kernel(2.0)
    groups = group_units(pd.DataFrame({"subject": np.arange(24)}), {})
    expected = kid(kernel, x, y, groups)[0].value
    matrix = audits.pair_matrix(kernel, x, y)
    assert audits._kid(matrix, np.ones(24)) == pytest.approx(expected, abs=1e-12)
    assert audits._kid(matrix, np.repeat([2.0, 0.0], 12)) > expected  # drawn twice: self-pairs


# -- pools -------------------------------------------------------------------------------------


def test_audits_of_an_oracle_pool_average_to_its_truth() -> None:
    rng = np.random.default_rng(0)
    real, wrong = rng.standard_normal((2, 200, 3))
    law = images.OracleLaw(real, wrong + 1.5, 0.6)
    kernel, everyone = Kernel(2.0), np.ones((200, 1), dtype=bool)
    truth = 0.36 * images.mean_pairs(kernel, law.real, law.wrong, everyone)[0, 0]
    groups = group_units(pd.DataFrame({"subject": np.arange(20)}), {})
    found = [kid(kernel, *law.draw(rng, 20), groups)[0].value for _ in range(4000)]
    error = np.std(found) / np.sqrt(len(found))
    assert error < 0.05 * truth
    assert abs(np.mean(found) - truth) < 4 * error


def test_strata_of_a_pool_are_mixed_to_equal_kid() -> None:
    rng = np.random.default_rng(1)
    code = np.repeat([0, 1, 2], [80, 60, 70])
    real = rng.standard_normal((210, 3)) + code[:, None]
    generated = real[rng.permutation(210)] * np.array([0.5, 1.2, 0.8])[code][:, None]
    kernel, member = Kernel(2.0), code[:, None] == np.arange(3)
    pairs = images.mean_pairs(kernel, real, generated, member)
    low, middle, high = (int(k) for k in np.argsort(np.diag(pairs)))
    share = images.mixing_share(pairs, low, high, pairs[middle, middle])
    assert 0 < share < 1
    rows = tuple(np.flatnonzero(code == k) for k in (low, high))
    law = images.PoolLaw(real, generated, rows, (1 - share, share))
    groups = group_units(pd.DataFrame({"subject": np.arange(30)}), {})
    found = [kid(kernel, *law.draw(rng, 30), groups)[0].value for _ in range(4000)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - pairs[middle, middle]) < 4 * error < 0.1 * pairs[middle, middle]


def test_a_pool_is_made_once_and_grows(tmp_path: Path) -> None:
    asked: list[int] = []

    def maker(numbers: range) -> dict[str, np.ndarray]:
        asked.append(numbers.start)
        return {"real": np.array(numbers, dtype=float)[:, None]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audits, "workers", lambda: 1)
        first = images.fill_pool(tmp_path, maker, 300, "test")["real"]
        again = images.fill_pool(tmp_path, maker, 600, "test")["real"]
    assert asked == [0, 250, 500]
    assert len(first) == 300 and len(again) == 600
    np.testing.assert_array_equal(again[:300], first)


def test_prompts_of_fresh_subjects_are_those_of_the_cohort() -> None:
    settings = load_settings("smoke")
    spec = dataset_of(settings.dataset).spec()
    config = images.fresh(settings)
    assert config.seed != settings.simulator.seed
    for number in range(20):
        row = images.prompt_row(spec, draw_subject(config, "train", number))
        assert all(row[field.name] in field.levels for field in spec.fields)
        assert row[spec.primary_condition] in spec.prompt(row)


# -- report ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "checks"), [(4000, 100), (600, 20), (100, 1)])
def test_a_perfect_procedure_passes_all_checks_with_the_promised_probability(
    n: int, checks: int
) -> None:
    limit = most(0.05, n, checks)
    passing = stats.binom.cdf(round(limit * n), n, 0.05) ** checks
    stricter = stats.binom.cdf(round(limit * n) - 1, n, 0.05) ** checks
    assert stricter < SURE <= passing
    if n == 4000:
        assert 0.06 < limit < 0.065
    assert most(0.0, n, checks) == 0


def test_each_promise_is_judged_by_its_own_count(cells: list[Cell]) -> None:
    cell = next(c for c in chosen(cells, "two groups") if c.procedure == audits.OURS)
    worse = [0.01] * 30 + [-0.01] * 60 + [-0.03] * 10  # lower limits: 30% above the truth
    found = pd.DataFrame({"low": worse, "said": "", "value": 0.0}).assign(
        high=lambda f: f["low"] + 0.02, alarm=lambda f: (f["low"] > 0) | (f["high"] < 0)
    )
    row = count(cell, found)
    assert (row["alarm"], row["above"], row["below"]) == (0.4, 0.3, 0.1)
    checks = judged([cell], pd.DataFrame([row])).set_index(["situation", "check"])
    assert len(checks) == 4  # its three promises, and the layer's pooled alarms
    assert checks.loc[("two groups", "below"), "promised"] == 0.025
    assert not checks["passed"].any()


def test_a_family_is_judged_by_its_adjusted_p(design: Planted) -> None:
    scene = TwoGroups(design.laws("unequal"), (40, 150))
    seen = scene(np.random.default_rng(0))
    family = OurAudit(design.kernel, family=True)(seen, np.random.default_rng(1))
    assert isinstance(family, Finding)
    assert np.isnan(family.low)
    table = OurAudit(design.kernel, family=True).audit(seen, 1).contrasts
    assert table["role"].tolist() == ["primary"]


def test_only_the_quick_preset_writes_the_committed_table() -> None:
    quick, smoke = (Places(load_settings(name)).calibration for name in ("quick", "smoke"))
    assert quick.parts[-2:] == ("figures", "calibration")
    assert smoke.parts[-3:] == ("figures", "smoke", "calibration")


def test_more_simulations_keep_the_pools() -> None:
    plain = load_settings("smoke")
    more = dataclasses.replace(plain, proof=dataclasses.replace(plain.proof, simulations=99))
    assert Places(more).pools == Places(plain).pools
    assert Places(more).trained_pool == Places(plain).trained_pool
    assert Places(more).proof != Places(plain).proof


# -- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--study", "walk"], f"unknown study 'walk'; known: {', '.join(sorted(STUDIES))}"),
        (["--study", "proof", "--dataset", "ham10000"], "expected fairgenmed_simulated"),
    ],
)
def test_a_study_that_cannot_be_is_refused(
    options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *options]) == 2
    said = capsys.readouterr()
    assert line in said.err and said.err.count("\n") == 1 and said.out == ""


def test_the_proof_needs_a_cohort_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs-root", str(tmp_path / "runs"), "--figures-root", str(tmp_path / "figures")]
    assert main(["run", "--study", "proof", "--preset", "smoke", "--dry-run", *places]) == 0
    said = capsys.readouterr().out
    for job in ("01_cohorts", "10_proof"):
        assert job in said
    assert "03_train" not in said and "04_generate" not in said
    assert not (tmp_path / "figures").exists()
