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
from fairdiff_lib.audit.kid import Kernel, kid, standardised_kid
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.places import Places
from fairdiff_lib.run.cli import main
from fairdiff_lib.run.graph import STUDIES
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.show.figures import studies as pictures
from fairdiff_lib.show.words_studies import about_audit, about_fid_bias
from fairdiff_lib.sim.fundus import draw_subject
from fairdiff_lib.studies.proof import audits, images, known, meets_criteria
from fairdiff_lib.studies.proof.audits import (
    COLUMNS,
    Cell,
    Finding,
    OurAudit,
    TwoGroups,
    count,
    simulate,
)
from fairdiff_lib.studies.proof.known import CASE, VARIETY, Planted, feature_cells, fid_bias

SEED = 11  # not the proof's own
SMALL = ProofConfig(simulations=300, naive_simulations=40, width=16, reference=150, sizes=(40,),
                    naive_sizes=(40,), permutations=39, other_simulations=150)  # fmt: skip


@pytest.fixture(scope="module")
def design() -> Planted:
    return Planted.of(SMALL)


@pytest.fixture(scope="module")
def cells() -> dict[str, Cell]:
    return {cell.name: cell for cell in feature_cells(SMALL)}


def chosen(cells: dict[str, Cell], *names: str) -> list[Cell]:
    return [cells[name] for name in names]


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
    cells: dict[str, Cell], null: str, tmp_path: Path
) -> None:
    names = ["audit-kid", "fid_permutation-fid", "fid_equal_n_permutation-fid",
             "released_t_test-fid"]  # fmt: skip
    parts = chosen(cells, *(f"F-{name}-{null}-n40-x1" for name in names))
    table = simulate(parts, tmp_path, SEED, processes=1).set_index("procedure")
    assert list(table.reset_index()[list(COLUMNS)].columns) == list(COLUMNS)
    allowed = stats.binom.ppf([0.0005, 0.9995], SMALL.simulations, audits.LEVEL)
    alarms = table.loc["audit", "alarm_rate"] * SMALL.simulations
    assert allowed[0] <= alarms <= allowed[1]
    assert abs(table.loc["audit", "coverage"] - 0.95) < 0.04
    assert table.loc["released_t_test", "alarm_rate"] > 0.5
    for name in ("fid_permutation", "fid_equal_n_permutation"):
        rate = table.loc[name, "alarm_rate"]
        assert rate > 0.5 if null == "unequal" else rate < 0.2


@pytest.mark.slow
def test_an_audit_that_ignores_half_its_variance_would_be_caught(
    cells: dict[str, Cell], tmp_path: Path
) -> None:
    """The proof has teeth: intervals that are too short by 30% fail its bounds."""
    (cell,) = chosen(cells, "F-audit-kid-unequal-n40-x1")
    simulate([cell], tmp_path, SEED, processes=1)
    found = pd.concat([pd.read_csv(p) for p in sorted(tmp_path.rglob("*.csv"))])
    middle, reach = (found["low"] + found["high"]) / 2, 0.7 * (found["high"] - found["low"]) / 2
    short = found.assign(low=middle - reach, high=middle + reach)
    short = short.assign(alarm=(short["low"] > 0) | (short["high"] < 0))
    row = count(cell, short)
    verdict = meets_criteria(pd.DataFrame([row]))
    assert not verdict["passed"].iloc[0]
    assert "Fails" in about_audit(verdict)


def test_a_planted_disparity_is_found(cells: dict[str, Cell], tmp_path: Path) -> None:
    names = [f"F-audit-kid-none-n40-x{ratio:g}" for ratio in (1.5, 3.0)]
    parts = [dataclasses.replace(c, simulations=60) for c in chosen(cells, *names)]
    rates = simulate(parts, tmp_path, SEED, processes=1)["alarm_rate"]
    assert rates.iloc[0] < rates.iloc[1]
    assert rates.iloc[1] > 0.9
    assert parts[1].truth == pytest.approx(2 * SMALL.kid)


@pytest.mark.slow
def test_case_mix_is_an_alarm_for_the_plain_kid_only(
    cells: dict[str, Cell], tmp_path: Path
) -> None:
    """Equal KID at common shares, many ill in one group: the plain KID counts them."""
    names = [f"F-{name}-kid_standardised-unequal-n78-x1" for name in ("audit", "kid_crude")]
    rates = simulate(chosen(cells, *names), tmp_path, SEED, processes=1)["alarm_rate"]
    assert rates.iloc[0] < 0.12
    assert rates.iloc[1] > rates.iloc[0] + 0.2


@pytest.mark.slow
def test_results_depend_neither_on_processes_nor_on_a_kill(
    cells: dict[str, Cell], tmp_path: Path
) -> None:
    (cell,) = chosen(cells, "F-audit-auc-unequal-n40-x1")
    cell = dataclasses.replace(cell, simulations=250)
    whole = simulate([cell], tmp_path / "a", SEED, processes=1)
    killed = tmp_path / "b"
    simulate([dataclasses.replace(cell, simulations=100)], killed, SEED, processes=1)
    first = next(killed.rglob("000000.csv"))
    before = first.stat().st_mtime_ns
    resumed = simulate([cell], killed, SEED, processes=2)
    pd.testing.assert_frame_equal(whole, resumed)
    assert first.stat().st_mtime_ns == before


def test_every_cell_has_its_own_name_and_every_row_its_own_key() -> None:
    for config in (ProofConfig(), load_settings("smoke").proof):
        found = feature_cells(config)
        assert len({cell.name for cell in found}) == len(found)
        keys = {(c.procedure, c.layer, c.metric, c.null, c.n_min, c.planted_ratio) for c in found}
        assert len(keys) == len(found)
        null = [c for c in found if c.procedure == "audit" and c.metric == "kid"]
        for name in ("exchangeable", "unequal"):
            total = sum(c.simulations for c in null if c.null == name)
            assert total >= 4000 or config != ProofConfig()


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


def test_subsamples_of_an_oracle_pool_average_to_its_truth() -> None:
    rng = np.random.default_rng(0)
    real, wrong = rng.standard_normal((2, 200, 3))
    law = images.OracleLaw(real, wrong + 1.5, 0.6)
    kernel = Kernel(2.0)
    truth = 0.36 * images.pool_kid(kernel, law.real, law.wrong).value
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
    whole, each, pairs = images.stratum_kids(kernel, real, generated, member)
    shares = np.bincount(code) / 210
    assert [e.n for e in each] == [80, 60, 70]
    without_self_pairs = shares @ pairs @ shares * 210 - shares @ np.diag(pairs)
    assert without_self_pairs / 209 == pytest.approx(whole.value, rel=1e-9)
    low, middle, high = (int(k) for k in np.argsort(np.diag(pairs)))
    share = images.mixing_share(pairs, low, high, pairs[middle, middle])
    names = ("a", "b", "c")
    table = pd.DataFrame({"subject": np.arange(210), "stratum": np.array(names)[code]})
    (mixed,) = standardised_kid(
        kernel, real, generated, group_units(table, {}), group_units(table, {"stratum": names}),
        {names[low]: 1 - share, names[high]: share},
    )  # fmt: skip
    assert 0 < share < 1
    assert mixed.value == pytest.approx(pairs[middle, middle], rel=1e-9)


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


def test_criteria_are_looser_for_few_subjects_and_absent_without_interval() -> None:
    cell = {"procedure": "audit", "layer": "F", "metric": "kid", "null": "unequal", "n_min": 36,
            "planted_ratio": 1.0, "simulations": 2000, "alarm_rate": 0.06, "coverage": 0.93,
            "mc_error": 0.005}  # fmt: skip
    rows = [cell, cell | {"n_min": 300}, cell | {"coverage": float("nan")},
            cell | {"alarm_rate": 0.0605}, cell | {"procedure": "fid_permutation"}]  # fmt: skip
    found = meets_criteria(pd.DataFrame(rows))
    assert found["passed"].tolist() == [True, False, True, False]


def test_a_family_is_judged_by_its_adjusted_p(design: Planted) -> None:
    scene = TwoGroups(design.laws("unequal"), (40, 150))
    seen = scene(np.random.default_rng(0))
    family = OurAudit(design.kernel, family=True)(seen, np.random.default_rng(1))
    assert isinstance(family, Finding)
    assert np.isnan(family.low)
    table = OurAudit(design.kernel, family=True).audit(seen, 1).contrasts
    assert table["role"].tolist() == ["primary"]
    strata = OurAudit(design.kernel, strata=CASE)
    assert strata.strata == CASE


def test_only_the_quick_preset_writes_the_committed_table() -> None:
    quick, smoke = (Places(load_settings(name)).calibration for name in ("quick", "smoke"))
    assert quick.parts[-2:] == ("figures", "calibration")
    assert smoke.parts[-3:] == ("figures", "smoke", "calibration")


def test_more_simulations_keep_the_pools() -> None:
    plain = load_settings("smoke")
    more = dataclasses.replace(plain, proof=dataclasses.replace(plain.proof, simulations=99))
    assert Places(more).pools == Places(plain).pools
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


def test_the_proof_needs_one_trained_generator_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs-root", str(tmp_path / "runs"), "--figures-root", str(tmp_path / "figures")]
    assert main(["run", "--study", "proof", "--preset", "smoke", "--dry-run", *places]) == 0
    said = capsys.readouterr().out
    for job in ("01_cohorts", "03_train_base", "03_train_none_seed0", "10_proof"):
        assert job in said
    assert "fairdiffusion" not in said and "04_generate" not in said and "5 jobs" in said
    assert not (tmp_path / "figures").exists()
