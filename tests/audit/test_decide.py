"""Four outcomes: each is said where it holds, seldom where it doesn't, and what is open says n."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower

from fairdiff_lib.audit.decide import (
    DIFFERENT,
    LARGER,
    NO_LARGER,
    UNDECIDED,
    Outcome,
    all_of,
    decide,
    plan_size,
    power,
)
from fairdiff_lib.audit.estimate import OVERALL, Estimate, difference
from fairdiff_lib.audit.estimators import mean_of_rows
from fairdiff_lib.settings.errors import InputError


def seen(value: float, error: float, n: int = 100) -> Estimate:
    """A difference with its standard error."""
    return Estimate(value, np.array([error]), n, 1000.0)


@pytest.mark.parametrize(
    ("value", "error", "outcome"),
    [
        (0.5, 0.1, LARGER),
        (-0.5, 0.1, LARGER),
        (0.25, 0.1, DIFFERENT),
        (0.0, 0.05, NO_LARGER),
        (0.05, 0.01, NO_LARGER),  # seen, but smaller than X
        (0.1, 0.2, UNDECIDED),
        (float("nan"), 0.1, UNDECIDED),
    ],
)
def test_outcome_is_where_the_interval_lies(value: float, error: float, outcome: str) -> None:
    found = decide(seen(value, error), 0.2, 100)
    assert found.name == outcome
    assert np.isnan(found.n) == (outcome != UNDECIDED)


def test_words_name_x_and_what_is_needed() -> None:
    assert decide(seen(0.5, 0.1), 0.2, 100, unit=" px").words.startswith("larger than 0.2 px: 0.5")
    assert "no difference larger than 0.2" in decide(seen(0.05, 0.01), 0.2, 100).words
    assert "though one is seen" in decide(seen(0.05, 0.01), 0.2, 100).words
    assert "size open" in decide(seen(0.25, 0.1), 0.2, 100).words
    assert "would need about n = " in decide(seen(0.1, 0.2), 0.2, 100).words
    with pytest.raises(InputError, match="expected more than 0"):
        decide(seen(0.1, 0.2), 0.0, 100)


def test_the_n_that_is_asked_for_decides() -> None:
    """With that n, "no difference" is said with a power of 80%, and 2 X is found."""
    open_ = decide(seen(0.1, 0.2), 0.2, 100)
    then = power(0.2 * np.sqrt(100 / open_.n), 1000.0, 0.2)
    assert then.nothing == pytest.approx(0.8, abs=0.01)
    assert then.twice > 0.78
    assert not power(0.2, 1000.0, 0.2).testable and power(0.06, 1000.0, 0.2).testable


def test_more_subjects_do_not_help_where_runs_vary() -> None:
    of_runs = 0.15**2
    found = decide(seen(0.1, 0.2), 0.2, 100, runs=(3, of_runs))
    assert np.isinf(found.n) and np.isinf(found.runs)
    assert "neither more subjects nor more runs" in found.words
    quiet = decide(seen(0.1, 0.16), 0.2, 100, runs=(3, 0.155**2))
    assert np.isinf(quiet.n) and 3 < quiet.runs < 50
    assert f"R = {quiet.runs:.0f} runs" in quiet.words


def test_without_a_positive_control_nothing_is_no_difference() -> None:
    found = decide(seen(0.0, 0.05), 0.2, 100, control_found=False)
    assert found.name == UNDECIDED and "planted" in found.words


def test_a_claim_about_several_contrasts_needs_all_of_them() -> None:
    fine, open_, worse = (Outcome(name, name) for name in (NO_LARGER, UNDECIDED, LARGER))
    assert all_of({"a": fine, "b": fine}).name == NO_LARGER
    assert all_of({"a": fine, "b": open_}).name == UNDECIDED
    assert all_of({"a": fine, "b": open_, "c": worse}).words == "c: larger"
    with pytest.raises(InputError):
        all_of({})


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "wrong"), [(0.0, (LARGER, DIFFERENT)), (0.2, (NO_LARGER,))])
def test_wrong_outcomes_are_rare(truth: float, wrong: tuple[str, ...]) -> None:
    """At 0, at most 5% are "different"; at X, at most 5% "no difference larger" and 2.5% larger."""
    rng, counts, runs = np.random.default_rng(0), dict.fromkeys(
        (LARGER, DIFFERENT, NO_LARGER, UNDECIDED), 0
    ), 3000  # fmt: skip
    for _ in range(runs):
        unit = np.arange(160)
        values = rng.normal(size=160) + np.where(unit < 60, truth * 2, 0.0)
        groups = [mean_of_rows(values / 2, unit, own) for own in (unit < 60, unit >= 60)]
        counts[decide(difference(*groups), 0.2, 60).name] += 1
    share = {name: count / runs for name, count in counts.items()}
    assert sum(share[name] for name in wrong) <= 0.06, share
    if truth == 0.2:
        assert share[LARGER] <= 0.035, share


# -- beforehand ------------------------------------------------------------------------------

LEVELS = {"race": ("Black", "White"), "sex": ("Female", "Male")}


def pilot(n: int = 200) -> dict[tuple[str, str], Estimate]:
    rng, unit = np.random.default_rng(1), np.arange(n)
    values = rng.normal(size=n)
    values = (values - values.mean()) / values.std(ddof=1)
    who = {OVERALL: unit >= 0, ("race", "Black"): unit < 40, ("race", "White"): unit >= 40,
           ("sex", "Female"): unit % 2 == 0, ("sex", "Male"): unit % 2 == 1}  # fmt: skip
    return {key: mean_of_rows(values, unit, own) for key, own in who.items()}


def test_power_is_that_of_the_t_test() -> None:
    found = pilot()
    sex = plan_size(found, LEVELS, 0.4).set_index("level").loc["Male"]
    spread = np.sqrt(sum(found["sex", s].standard_error ** 2 * 100 for s in ("Female", "Male")) / 2)
    exact = TTestIndPower().power(0.4 / spread, 100, 0.05)
    assert sex["power"] == pytest.approx(exact, abs=0.01)
    wanted = TTestIndPower().solve_power(0.4 / spread, power=0.8, alpha=0.05)
    assert sex["n_needed"] == pytest.approx(wanted, rel=0.03)
    assert sex["reference"] == "Female"


def test_the_next_images_should_be_of_the_small_group() -> None:
    table = plan_size(pilot(), LEVELS, 0.3)
    race = table[table["attribute"] == "race"].set_index("level")
    assert race.loc["Black", "helps_most"] and not race.loc["White", "helps_most"]
    assert race.loc["Black", "next_100"] > 0.3 > 0.1 > race.loc["White", "next_100"] > 0
    assert np.isnan(race.loc["White", "power"])  # the reference is compared with nobody
    more = plan_size(pilot(), LEVELS, 0.3, {("race", "Black"): 140}).set_index("level")
    gained = 1 - more.loc["Black", "detectable"] / race.loc["Black", "detectable"]
    assert gained == pytest.approx(race.loc["Black", "next_100"], abs=0.02)
    with pytest.raises(InputError, match="effect"):
        plan_size(pilot(), LEVELS, 0.0)
