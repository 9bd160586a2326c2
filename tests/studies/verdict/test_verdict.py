"""From made features to T14: what is planted is found, and what is not is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.blur import blur_curves, equivalent_blur
from fairdiff_lib.audit.decide import DIFFERENT, LARGER, NO_LARGER, UNDECIDED
from fairdiff_lib.audit.estimate import OVERALL, Estimate, Floats, Groups, group_units
from fairdiff_lib.audit.kid import fit_kernel, kid
from fairdiff_lib.show.words import about_control, about_planted, about_quotes, verdict_matrix
from fairdiff_lib.sim.chest import ChestPopulation
from fairdiff_lib.sim.fundus import FundusPopulation
from fairdiff_lib.studies.verdict.effects import (
    ALARM,
    FOUND,
    MISSED,
    PLANTED,
    QUIET,
    Values,
    classifier_rows,
    control_rows,
    effect_rows,
    planted,
    with_planted,
)
from fairdiff_lib.studies.verdict.protocol import (
    AUC,
    BLUR,
    DISPARITY,
    EQUITY,
    KID,
    QUALITY,
    Planned,
    Protocol,
    with_power,
)
from fairdiff_lib.studies.verdict.table import (
    AGAINST,
    FOR,
    OPEN,
    Setting,
    claim_table,
)
from fairdiff_lib.studies.verdict.table import (
    test_table as outcomes,
)

LEVELS = {"sex": ("Female", "Male")}
N = 240  # test subjects, two fifths of them male
TOWARDS = np.array([1.0, 0, 0, 0, 0, 0])  # where blur moves features
RUNS = 3


def rule(error: float = 0.02, runs: int = RUNS) -> Protocol:
    """Every test of one contrast, with a standard error that is expected of it."""
    sizes: dict[str, float] = {BLUR: 0.1, KID: 0.01, AUC: 0.02}
    tests = []
    for claim, part, endpoint in (
        *((c, p, e) for e in (BLUR, KID) for c, p in
          (("C1", DISPARITY), ("C2", QUALITY), ("C2", EQUITY))),
        ("C3", QUALITY, AUC), ("C3", EQUITY, AUC),
    ):  # fmt: skip
        where = (*OVERALL, "") if part == QUALITY else ("sex", "Male", "Female")
        x = sizes[endpoint]
        tests.append(Planned(claim, part, endpoint, *where, 96, x, error * x / 0.1, 200.0))
    return Protocol(dataset="ham10000", seeds=tuple(range(runs)), features="lite0",
                    condition="malignant", smallest_kid=0.01,
                    tests=with_power(tests, runs))  # fmt: skip


def people() -> Groups:
    table = pd.DataFrame({"subject": [f"s{i:03d}" for i in range(N)],
                          "sex": np.where(np.arange(N) % 5 < 2, "Male", "Female")})  # fmt: skip
    return group_units(table, LEVELS)


def seen(groups: Groups, kids: list[Estimate], curves: Any) -> dict[str, Any]:
    named = {BLUR: equivalent_blur(kids, curves), KID: kids}
    return {name: dict(zip(groups.keys, own, strict=True)) for name, own in named.items()}


def images(levels: Mapping[str, Mapping[str, float]], runs: int = RUNS) -> dict[str, Values]:
    """Estimates of generators whose images are as unlike as reals blurred by so many pixels.

    ``levels``: method to pixels by sex.
    """
    rng, groups = np.random.default_rng(0), people()
    train, real = (rng.normal(size=(n, 6)) for n in (600, N))
    kernel = fit_kernel(train)
    curves = blur_curves(kernel, real, lambda s: real + s * TOWARDS, groups)
    male = groups.column("sex", "Male")
    found: dict[str, dict[tuple[str, int], Any]] = {BLUR: {}, KID: {}}
    for seed in range(runs):
        fresh = rng.normal(size=(N, 6))  # methods of one run share their noise
        for method, own in levels.items():
            pixels = np.where(male, own["Male"], own["Female"]) + 0.01 * rng.normal()
            made = fresh + pixels[:, None] * TOWARDS if own["Male"] < 50 else np.full((N, 6), 9.0)
            for name, values in seen(groups, kid(kernel, real, made, groups), curves).items():
                found[name][method, seed] = values
    return dict(found)


def equal(base: float = 0.7, method: float = 0.7) -> dict[str, dict[str, float]]:
    return {"none": {"Female": base, "Male": base},
            "fairdiffusion": {"Female": method, "Male": method}}  # fmt: skip


def control(endpoint: str = BLUR, value: float = 0.3) -> pd.DataFrame:
    return control_rows(endpoint, {PLANTED: (Estimate(value, np.array([0.05]), 90, 100.0), 90)},
                        "drawn at random", rule())  # fmt: skip


def judge(values: Mapping[str, Values], own: Protocol | None = None, *, found: bool = True,
          complete: bool = True, **setting: Any) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Claims and tests."""
    own = own or rule()
    bases = {run: str(run[1]) if complete else "one" for part in values.values() for run in part}
    effects = [effect_rows(values, own, bases), control(value=0.3 if found else 0.0)]
    given = Setting(**{"dataset": "ham10000", "model": "a small model", **setting, "rule": own})
    tests = outcomes(pd.concat(effects, ignore_index=True), given)
    return claim_table(tests, given), tests


def claim(found: pd.DataFrame, name: str, part: str) -> pd.Series:
    rows = found[(found["claim"] == name) & (found["part"] == part)]
    assert len(rows) == 1
    return rows.iloc[0]


# -- images ----------------------------------------------------------------------------------


def test_a_planted_disparity_is_found_and_an_equal_change_is_no_change() -> None:
    worse = {"none": {"Female": 0.6, "Male": 1.1}, "fairdiffusion": {"Female": 0.6, "Male": 1.1}}
    claims, tests = judge(images(worse))
    row = claim(claims, "C1", DISPARITY)
    assert (row["outcome"], row["bearing"], row["verdict"]) == (LARGER, FOR, "larger than 0.1 px")
    assert row["value"] == pytest.approx(0.5, abs=0.15) and row["low"] > 0.1
    assert (row["runs"], row["n"]) == (RUNS, 96)
    for name, part in (("C2", QUALITY), ("C2", EQUITY)):
        own = claim(claims, name, part)
        assert (own["outcome"], own["bearing"]) == (NO_LARGER, AGAINST), own["quote"]
        assert "could have narrowed" not in own["quote"]
    assert set(tests["endpoint"]) == {BLUR, KID}


def test_a_method_that_had_no_gap_to_narrow_is_not_refuted() -> None:
    claims, tests = judge(images(equal()))
    row = claim(claims, "C2", EQUITY)
    assert (row["outcome"], row["bearing"]) == (NO_LARGER, OPEN)
    assert row["quote"].endswith("was seen that it could have narrowed.")
    assert claim(claims, "C2", QUALITY)["bearing"] == AGAINST  # that one could have helped
    told = tests[tests["quote"].str.contains("could have narrowed")]
    assert set(told["part"]) == {EQUITY}


def test_equal_groups_are_told_to_differ_by_no_more_than_x() -> None:
    claims, _ = judge(images(equal()), rule(error=0.02))
    row = claim(claims, "C1", DISPARITY)
    assert row["outcome"] in (NO_LARGER, UNDECIDED) and row["low"] <= 0 <= row["high"]
    wide = replace(rule(), tests=tuple(replace(t, smallest=0.5) for t in rule().tests))
    sure, _ = judge(images(equal()), wide)
    assert claim(sure, "C1", DISPARITY)["outcome"] == NO_LARGER
    unsure, _ = judge(images(equal()), wide, found=False)
    assert claim(unsure, "C1", DISPARITY)["outcome"] == UNDECIDED  # the control was not found


def test_a_method_that_helps_is_seen_to() -> None:
    claims, _ = judge(images(equal(0.9, 0.5)))
    row = claim(claims, "C2", QUALITY)
    assert (row["outcome"], row["bearing"]) == (LARGER, FOR) and row["value"] < 0
    assert "FairDiffusion's images are closer to real ones" in row["quote"]
    fairer = {"none": {"Female": 0.6, "Male": 1.1}, "fairdiffusion": {"Female": 0.6, "Male": 0.6}}
    own = claim(judge(images(fairer))[0], "C2", EQUITY)
    assert (own["outcome"], own["bearing"]) == (LARGER, FOR) and own["value"] < 0
    turned = {"none": fairer["none"], "fairdiffusion": {"Female": 0.6, "Male": 1.6}}
    assert claim(judge(images(turned))[0], "C2", EQUITY)["bearing"] == AGAINST


def test_a_perfect_generator_is_judged_like_any_other() -> None:
    claims, _ = judge(images(equal(0.0, 0.0)))
    assert claim(claims, "C2", QUALITY)["outcome"] == NO_LARGER
    assert claim(claims, "C1", DISPARITY)["outcome"] in (NO_LARGER, UNDECIDED)


def test_a_collapsed_generator_is_never_equal() -> None:
    claims, _ = judge(images({"none": {"Female": 99, "Male": 99}}))
    row = claim(claims, "C1", DISPARITY)
    assert row["outcome"] == UNDECIDED and np.isnan(row["value"])
    assert "could not be estimated" in row["quote"]


def test_scope_says_what_the_runs_leave_out() -> None:
    complete, _ = judge(images(equal()))
    assert "new runs (3 complete ones" in complete["quote"].iloc[0]
    shared, _ = judge(images(equal()), complete=False)
    assert "another base is left out" in shared["quote"].iloc[0]
    assert claim(shared, "C2", QUALITY)["bearing"] == OPEN  # of a method: complete runs
    one, _ = judge(images(equal(), 1), rule(runs=1))
    assert "another training is left out" in one["quote"].iloc[0]
    assert "exploratory" in judge(images(equal()), before=False)[0]["quote"].iloc[0]


def test_variance_between_runs_widens_what_patients_alone_would_give() -> None:
    values = images(equal())
    shaken = {
        BLUR: {
            run: {key: replace(e, value=e.value + 2 * run[1] * (key == ("sex", "Male")))
                  for key, e in own.items()}
            for run, own in values[BLUR].items()
        }
    }  # fmt: skip
    calm, rough = (effect_rows(v, rule(), None).iloc[0] for v in (values, shaken))
    assert calm["claim"] == "C1" and rough["of_runs"] > 10 * calm["of_runs"]
    assert rough["high"] - rough["low"] > 2 * (calm["high"] - calm["low"])


def test_what_was_declared_untestable_stays_so() -> None:
    claims, tests = judge(images(equal()), rule(error=0.1))
    row = claim(claims, "C1", DISPARITY)
    assert row["outcome"] == UNDECIDED and not row["testable"]
    assert row["verdict"].startswith("undecided, as declared beforehand; it would need about n = ")
    declared = {test.key: test.n_needed for test in rule(error=0.1).tests}
    key = ("claim", "part", "endpoint", "attribute", "level")  # not what its interval suggests
    assert row["n_needed"] == pytest.approx(declared[tuple(row[name] for name in key)])
    assert row["n_needed"] > 500 and tests["runs_needed"].isna().all()
    assert tests["verdict"].str.contains("declared untestable").all()
    assert f": {row['verdict']}. " in row["quote"]
    assert row["not_to_say"] == "There is no difference."


@pytest.mark.parametrize(("levels", "words"), [
    (("benign", "malignant"), "telling malignant from benign"),
    (("normal", "cataract", "myopia"), "telling normal, cataract and myopia apart"),
    ((), "glaucoma"),
])  # fmt: skip
def test_a_quote_says_what_an_auc_is_for(levels: tuple[str, ...], words: str) -> None:
    assert (
        Setting("odir5k", replace(rule(), condition="glaucoma"), levels=levels).told_apart == words
    )


# -- checks ----------------------------------------------------------------------------------


def gates(**failed: str) -> pd.DataFrame:
    rows = [{"method": "none", "seed": 0, "gate": gate, "bears_on": bears_on,
             "grade": failed.get(gate, "passed")}
            for gate, bears_on in (("asked", "C3"), ("real", "scope"))]  # fmt: skip
    return pd.DataFrame(rows)


def scores(gain: float) -> dict[tuple[str, int], list[Any]]:
    """Audits of AUC whose method is better by ``gain``."""
    from fairdiff_lib.audit.audit import Audit
    from fairdiff_lib.audit.contrasts import Design

    groups, rng, found = people(), np.random.default_rng(1), {}
    for method, seed in ((m, s) for s in range(RUNS) for m in ("none", "fairdiffusion")):
        noise: Floats = 0.0005 * rng.normal(size=N)
        own = {
            key: Estimate(0.75 + gain * (method != "none"), noise * member, int(member.sum()),
                          200.0, bounded=True)
            for key, member in zip(groups.keys, groups.members.T, strict=True)
        }  # fmt: skip
        found[method, seed] = [Audit("auc", own, Design(LEVELS, better="high"))]
    return found


def downstream(gain: float, **setting: Any) -> pd.DataFrame:
    rows = classifier_rows(scores(gain), rule(), {("none", s): str(s) for s in range(RUNS)})
    given = Setting("ham10000", rule(), model="a small model", **setting)
    return claim_table(outcomes(rows, given), given)


def test_checks_of_prompts_limit_c3_and_those_of_realism_the_words() -> None:
    assert claim(downstream(0.1), "C3", QUALITY)["bearing"] == FOR
    same = claim(downstream(0.0), "C3", QUALITY)
    assert (same["outcome"], same["bearing"]) == (NO_LARGER, AGAINST)
    limited = claim(downstream(0.0, gates=gates(asked="open")), "C3", QUALITY)
    assert limited["outcome"] == UNDECIDED and "don't all show what was asked" in limited["quote"]
    assert claim(downstream(0.1, gates=gates(asked="failed")), "C3", QUALITY)["outcome"] == LARGER
    claims, _ = judge(images(equal(0.9, 0.5)), gates=gates(real="failed", asked="failed"))
    row = claim(claims, "C2", QUALITY)
    assert row["outcome"] == LARGER and "fail a check of realism" in row["quote"]
    assert "fail a check" not in judge(images(equal()), gates=gates())[0]["quote"].iloc[0]


def test_c4_needs_every_part_of_c2_and_c3_elsewhere() -> None:
    values = images(equal())
    bases = {run: str(run[1]) for run in values[BLUR]}
    effects = [effect_rows(values, rule(), bases), control(), classifier_rows(scores(0.0), rule(),
                                                                              bases)]  # fmt: skip
    both = pd.concat(effects, ignore_index=True)

    def last(dataset: str) -> pd.Series:
        given = Setting(dataset, replace(rule(), dataset=dataset), model="m")
        return claim_table(outcomes(both, given), given).iloc[-1]

    row = last("ham10000")
    assert (row["claim"], row["bearing"]) == ("C4", AGAINST) and row["verdict"].startswith("C2 q")
    assert "of the 4 claims for FairDiffusion" in row["quote"] and "; C" not in row["quote"]
    assert last("fairgenmed")["claim"] == last("ham10000_simulated")["claim"] == "C3"


# -- what readers see ------------------------------------------------------------------------


def test_a_quote_stands_by_itself_and_names_what_does_not_follow() -> None:
    claims, _ = judge(images(equal()))
    for row in claims.to_dict("records"):
        assert row["quote"].startswith("On ") and row["quote"].endswith(".")
        assert row["not_to_say"].startswith(("There is no difference", "The group is", "The diff"))
        assert "\n" not in row["quote"] and "neither race nor skin tone" in row["limits"]
    said = about_quotes(claims)
    assert "**C2 quality:" in said
    grid = verdict_matrix(claims)
    assert list(grid["claim"]) == ["C1 disparity", "C2 equity", "C2 quality"]
    assert grid.loc[0, "HAM10000"] == claims.iloc[0]["verdict"]
    assert "is found in equivalent blur, in pixels: 0.3" in about_control(control())
    assert "is not found" in about_control(control(value=0.0))


# -- planted against measured ----------------------------------------------------------------


def contrast(level: str, low: float, high: float, attribute: str = "race") -> dict[str, Any]:
    reference = "White" if attribute == "race" else "Female"
    return {"claim": "C1", "part": DISPARITY, "endpoint": BLUR, "attribute": attribute,
            "level": level, "reference": reference, "low": low, "high": high}  # fmt: skip


def test_what_was_planted_is_found_missed_or_a_false_alarm() -> None:
    rows = pd.DataFrame([contrast("Black", 0.1, 0.3), contrast("Asian", -0.1, 0.1)])
    found = with_planted(rows, FundusPopulation(difficulty_black=3.0))
    assert list(found["planted"]) == ["camera noise x 3", "nothing"]
    assert list(found["as_planted"]) == [FOUND, QUIET]
    assert "drawn with camera noise x 3: found in equivalent blur, in pixels." in about_planted(
        found
    )
    other = with_planted(rows, FundusPopulation(difficulty_black=1.0, difficulty_asian=2.0))
    assert list(other["as_planted"]) == [ALARM, MISSED]
    wrong = with_planted(rows.assign(low=-0.3, high=-0.1), FundusPopulation(difficulty_black=3.0))
    assert wrong["as_planted"].iloc[0] == "found in the wrong direction"
    female = pd.DataFrame([contrast("Male", -0.3, -0.1, "sex")])  # the reference is the worse one
    assert with_planted(female, ChestPopulation(difficulty_female=2.0))["as_planted"][0] == FOUND


def test_simulated_data_get_a_verdict_about_what_was_planted() -> None:
    worse = {"none": {"Female": 0.6, "Male": 1.1}}
    there = ChestPopulation(difficulty_female=0.5, difficulty_black=1.0)  # men's are worse
    setting = {"dataset": "ham10000_simulated", "population": there}
    claims, tests = judge(images(worse), **setting)
    row = claim(claims, "C1", DISPARITY)
    assert row["verdict"] == "1 of 1 planted differences found"
    assert row["statement"].startswith("What was planted") and row["bearing"] == OPEN
    assert "The patients are simulated" in row["quote"]
    assert set(tests.loc[tests["claim"] == "C1", "as_planted"]) == {FOUND}
    quiet = {**setting, "population": ChestPopulation(difficulty_black=1.0)}
    assert "false alarm" in claim(judge(images(worse), **quiet)[0], "C1", DISPARITY)["verdict"]
    assert claim(judge(images(equal()), **quiet)[0], "C1", DISPARITY)["verdict"] == (
        "no false alarm in 1"
    )


def test_what_was_planted_is_named_by_level() -> None:
    assert planted(FundusPopulation(difficulty_black=1.0)) == {}
    both = FundusPopulation(difficulty_black=3.0, heterogeneity_black=2.0, difficulty_hispanic=0.5)
    assert planted(both) == {
        ("race", "Black"): "camera noise x 3 and spread of appearance x 2",
        ("ethnicity", "Hispanic"): "camera noise x 0.5",
    }
    assert planted(ChestPopulation()) == {("race", "Black"): "noise and blur of the film x 3"}


def test_different_with_its_size_open_is_an_outcome_of_its_own() -> None:
    values = images({"none": {"Female": 0.6, "Male": 1.1}})
    big = replace(rule(), tests=tuple(replace(t, smallest=0.45) for t in rule().tests))
    assert claim(judge(values, big)[0], "C1", DISPARITY)["outcome"] == DIFFERENT
