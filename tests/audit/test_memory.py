"""Memorisation by group: what copies is caught where it copies, what draws afresh is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import Audit, audit
from fairdiff_lib.audit.estimate import Groups, difference, group_units
from fairdiff_lib.audit.memory import (
    ADVANTAGE,
    ALARMED,
    AUC,
    CONTRASTED,
    FOUND,
    NEARER,
    Pool,
    Scores,
    matched_draws,
    membership_audits,
    nearer_metric,
    rate_limits,
)
from fairdiff_lib.settings.errors import InputError

LEVELS = {"race": ("Black", "White")}
DRAWS = 4


def sides(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Race of n subjects, one in six Black, and a fine condition of each, 0 to 11."""
    race = np.where(np.arange(n) % 6 == 0, "Black", "White").astype(object)
    return race, rng.integers(0, 12, n)


def looks(rng: np.random.Generator, race: np.ndarray, condition: np.ndarray) -> np.ndarray:
    """Features that race and condition shape: float64 [n, 4]."""
    return rng.normal(size=(len(race), 4)) + np.stack(
        [2.0 * (race == "Black"), condition / 2.0, condition % 3, condition % 2], axis=1
    )


def named(side: str, n: int) -> list[str]:
    return [f"{side}{i:04d}" for i in range(n)]


def set_up(seed: int, copies: str = "", sizes: tuple[int, int] = (300, 180)) -> Audit:
    """A generator asked for the held-out subjects' race and condition; it may copy a level."""
    rng = np.random.default_rng(seed)
    (race, condition), (other, asked) = (sides(rng, n) for n in sizes)
    train, held = looks(rng, race, condition), looks(rng, other, asked)
    made = looks(rng, other, asked)
    for row in np.flatnonzero(other == copies):
        made[row] = train[rng.choice(np.flatnonzero(race == copies))]
    names = named("h", sizes[1])
    estimator = nearer_metric(
        made, names, Pool(train, named("t", sizes[0]), race), Pool(held, names, other), DRAWS
    )
    groups = group_units(pd.DataFrame({"subject": names, "race": other}), LEVELS)
    return audit(estimator, groups, LEVELS, metric=NEARER, role="exploratory")


def test_nothing_remembered_is_a_half_and_the_interval_says_so() -> None:
    """200 audits: the mean is a half, and 95% intervals hold it in 90% to 99% of them."""
    audits = [set_up(seed) for seed in range(200)]
    for key in (("overall", "all"), ("race", "Black")):
        found = [one.estimates[key] for one in audits]
        assert np.mean([one.value for one in found]) == pytest.approx(0.5, abs=0.02)
        held = [low <= 0.5 <= high for low, high in (one.interval() for one in found)]
        assert 0.90 <= np.mean(held) <= 0.99
    gaps = [
        difference(one.estimates["race", "Black"], one.estimates["race", "White"]) for one in audits
    ]
    assert np.mean([gap.p_value() < 0.05 for gap in gaps]) <= 0.09


def test_the_prompts_own_subject_would_pull_to_the_held_out() -> None:
    """Without leaving it out, a generator that remembers nothing looks better than a half."""
    rng = np.random.default_rng(0)
    values = []
    for mine in (True, False):
        own = []
        for _ in range(20):
            asked = rng.normal(size=(120, 3)) * 5  # what the prompt says
            held, train = (
                x + rng.normal(size=(120, 3)) for x in (asked, rng.normal(size=(120, 3)) * 5)
            )
            made = asked + rng.normal(size=(120, 3))
            names = named("h", 120)
            one = nearer_metric(
                made,
                names if mine else named("x", 120),
                Pool(train, named("t", 120), ["all"] * 120),
                Pool(held, names, ["all"] * 120),
                1,
            )
            groups = group_units(pd.DataFrame({"subject": names}), {})
            own.append(one(groups)[0].value)
        values.append(np.mean(own))
    assert values[0] == pytest.approx(0.5, abs=0.03)
    assert values[1] < 0.3


def test_copies_are_caught_in_the_level_that_is_copied_and_only_there() -> None:
    one = set_up(1, copies="Black")
    rows = one.by_group.set_index("level")
    assert rows.loc["Black", "value"] > 0.7  # a draw holds 30 of 50 Black training subjects
    assert rows.loc["Black", "low"] > 0.5
    assert rows.loc["White", "low"] < 0.5 < rows.loc["White", "high"]
    gap = one.contrasts.iloc[0]
    assert (gap["level"], gap["reference"]) == ("Black", "White")
    assert gap["value"] > 0.2 and gap["p"] < 0.01
    whole = set_up(1, copies="Black", sizes=(180, 180))  # every training subject is in every draw
    # all but those whose own prompt's partner is the one that was copied
    assert whole.estimates["race", "Black"].value > 0.9
    assert whole.estimates["race", "Black"].interval()[0] > 0.6


def test_copies_of_the_held_out_fall_below_a_half() -> None:
    rng = np.random.default_rng(0)
    race, condition = sides(rng, 200)
    train, held = looks(rng, race, condition), looks(rng, race, condition)
    pools = Pool(train, named("t", 200), race), Pool(held, named("h", 200), race)
    made = held[rng.permutation(200)]
    groups = group_units(pd.DataFrame({"subject": named("p", 200)}), {})
    found = nearer_metric(made, named("p", 200), *pools, DRAWS)(groups)[0]
    assert found.value == 0.0 and found.interval()[1] < 0.2


def test_draws_take_as_many_of_both_sides_from_every_stratum_by_subject() -> None:
    rng = np.random.default_rng(0)
    train = Pool(rng.normal(size=(40, 2)), named("t", 20) * 2, ["a"] * 20 + ["a"] * 20)
    held = Pool(rng.normal(size=(30, 2)), named("h", 30), ["a"] * 12 + ["b"] * 18)
    for first, second in matched_draws(train, held, 3, 0):
        assert len(first) == len(set(first)) == len(second) == 12
        assert set(held.strata[second]) == {"a"}
    made = rng.normal(size=(5, 2))
    pixel = ((made[:, None] - train.features[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(
        train.distances(made), np.minimum(pixel[:, :20], pixel[:, 20:]), atol=1e-12
    )
    with pytest.raises(InputError, match="'t0000': two strata"):
        Pool(rng.normal(size=(2, 2)), ["t0000", "t0000"], ["a", "b"])
    few = Pool(rng.normal(size=(4, 2)), named("h", 4), ["a"] * 4)
    with pytest.raises(InputError, match="4 pairs of a training and a held-out subject"):
        nearer_metric(made, named("x", 5), train, few)


# -- membership inference --------------------------------------------------------------------


def attacked(known: str, seed: int = 0, others: int = 600, shift: float = 0.0) -> dict[str, Audit]:
    """800 members; those of one level are known better; White images may be easier for all."""
    rng = np.random.default_rng(seed)
    n = 800 + others
    member = np.arange(n) < 800
    race = rng.choice(["Black", "White"], n, p=[0.25, 0.75])
    score = rng.normal(size=n) + 2.5 * (member & (race == known)) + shift * (race == "White")
    table = pd.DataFrame({"subject": named("s", n), "race": race})
    groups: Groups = group_units(table, LEVELS)
    return membership_audits(Scores(score, member, groups), LEVELS, bootstrap=200)


def test_membership_is_shown_in_the_level_that_is_memorised_and_only_there() -> None:
    found = attacked("Black")
    auc = found[AUC].by_group.set_index("level")
    assert auc.loc["Black", "low"] > 0.9
    assert auc.loc["White", "low"] < 0.5 < auc.loc["White", "high"]
    tpr = found[FOUND].by_group.set_index("level")
    assert tpr.loc["Black", "low"] > 0.4 and tpr.loc["White", "high"] < 0.05
    assert tpr.loc["all", "value"] == pytest.approx(0.25 * tpr.loc["Black", "value"], abs=0.05)
    assert "by chance: 0.01" in tpr.loc["all", "note"]
    advantage = found[ADVANTAGE].by_group.set_index("level")
    assert advantage.loc["Black", "low"] > 0.3 > advantage.loc["White", "high"]
    for name in CONTRASTED:
        gap = found[name].contrasts.iloc[0]
        assert gap["role"] == "exploratory"
        if np.isfinite(gap["p"]):
            assert gap["value"] > 0.3 and gap["p"] < 1e-4
    assert found[AUC].contrasts["p"].iloc[0] < 1e-6


def test_without_memory_one_in_a_hundred_is_found_by_chance() -> None:
    """Over repeats; single ones hold chance in their intervals nearly always."""
    runs = [attacked("nobody", seed, others=300) for seed in range(20)]
    rate = [one[FOUND].overall for one in runs]
    assert np.mean([one.value for one in rate]) == pytest.approx(0.01, abs=0.004)
    assert np.mean([one.interval()[0] <= 0.01 <= one.interval()[1] for one in rate]) >= 0.85
    auc = [one[AUC].overall for one in runs]
    assert np.mean([one.interval()[0] <= 0.5 <= one.interval()[1] for one in auc]) >= 0.85


def test_an_easier_level_is_not_called_memorised() -> None:
    """Its true and false positives both rise: the advantage and the AUC do not."""
    found = attacked("nobody", shift=1.5)
    white = {name: one.estimates["race", "White"] for name, one in found.items()}
    black = {name: one.estimates["race", "Black"] for name, one in found.items()}
    assert white[ALARMED].value > black[ALARMED].value
    low, high = white[ADVANTAGE].interval()
    assert low < 0 < high
    assert white[AUC].value == pytest.approx(0.5, abs=0.05)


def test_few_non_members_cannot_resolve_one_in_a_hundred() -> None:
    found = attacked("Black", others=60)
    assert "can't be resolved" in found[FOUND].by_group["note"].iloc[0]
    assert "can't be resolved" not in attacked("Black")[FOUND].by_group["note"].iloc[0]


def test_a_rate_of_zero_has_an_interval() -> None:
    low, high = rate_limits(0.0, 40, 0.0)
    assert low == 0.0 and high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert rate_limits(0.1, 100, 0.1 * 0.9 / 50)[1] > rate_limits(0.1, 100, 0.0)[1]


def test_scores_that_cannot_be_are_refused() -> None:
    groups = group_units(pd.DataFrame({"subject": named("s", 40)}), {})
    member = np.arange(40) < 20
    with pytest.raises(InputError, match="row 3 is not finite"):
        Scores(np.where(np.arange(40) == 3, np.nan, 0.0), member, groups)
    with pytest.raises(InputError, match="10 non-member subjects"):
        Scores(np.zeros(40), np.arange(40) < 35, groups)
    twice = group_units(pd.DataFrame({"subject": named("s", 30) + named("s", 10)}), {})
    with pytest.raises(InputError, match="members and non-members"):
        Scores(np.zeros(40), member, twice)
