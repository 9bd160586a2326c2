"""Gates pass for a generator that does what it is asked, and fail for one that does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit import quality
from fairdiff_lib.audit.estimate import Floats, difference, group_units
from fairdiff_lib.audit.kid import Kernel, kid
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.settings.errors import InputError

KERNEL = Kernel(2.0)
RULER = dataset_of("fairgenmed_simulated").ruler
assert RULER is not None
CONDITION = ("sick", ("no", "yes"))
TABLE = pd.DataFrame(
    {"subject": [f"s{i:03d}" for i in range(200)], "sick": np.repeat(["no", "yes"], [120, 80])}
)
SHOWN = np.where(TABLE["sick"] == "yes", 1.5, 0.0)[:, None]  # what a sick image looks like


def images(rng: np.random.Generator, listens: bool) -> tuple[Floats, Floats]:
    """Real features, and those of a generator that listens to its prompts or does not."""
    real = SHOWN + rng.normal(size=(200, 4))
    asked = SHOWN if listens else rng.permutation(SHOWN)
    return real, asked + 0.5 + 1.2 * rng.normal(size=(200, 4))


def run(real: Floats, generated: Floats, blurred: Floats) -> pd.Series:
    """Gate to passed."""
    labels = {"dataset": "toy", "method": "none", "seed": 0}
    table = quality.gates(KERNEL, real, generated, blurred, TABLE, CONDITION, labels=labels)
    assert list(table.columns) == [*labels, *quality.GATE_COLUMNS]
    return table.set_index("gate")["passed"]


def test_all_pass_for_a_generator_that_listens() -> None:
    real, generated = images(np.random.default_rng(0), listens=True)
    passed = run(real, generated, blurred=0.3 * real - 2)
    assert passed.all()
    assert len(passed) == 2


def test_shuffled_prompts_unmask_a_generator_that_ignores_them() -> None:
    real, generated = images(np.random.default_rng(1), listens=False)
    assert not run(real, generated, blurred=0.3 * real - 2)["below_shuffled_prompts"]


def test_blur_gate_fails_where_blurred_reals_are_nearer() -> None:
    real, generated = images(np.random.default_rng(2), listens=True)
    assert not run(real, generated + 3, blurred=0.95 * real)["below_blurred_reals"]


def test_a_perfect_generator_passes_every_gate() -> None:
    rng = np.random.default_rng(3)
    real, fresh = (SHOWN + rng.normal(size=(200, 4)) for _ in range(2))
    assert run(real, fresh, blurred=0.3 * real).all()


def test_gates_say_what_they_bear_on_and_when_they_can_not_tell() -> None:
    real, deaf = images(np.random.default_rng(1), listens=False)
    labels = {"dataset": "toy", "method": "none", "seed": 0}
    table = quality.gates(KERNEL, real, deaf, 0.95 * real, TABLE, CONDITION, labels=labels)
    found = table.set_index("gate")
    assert found.loc["below_shuffled_prompts", ["grade", "bears_on"]].tolist() == ["open", "C3"]
    assert found.loc["below_blurred_reals", ["grade", "bears_on"]].tolist() == ["failed", "scope"]


def test_shuffle_gate_rarely_passes_by_luck_and_knows_its_error() -> None:
    """A generator that ignores prompts passes in about 2.5%; the error is the true spread."""
    rng, upper, values, errors = np.random.default_rng(4), [], [], []
    groups = group_units(TABLE, {"sick": CONDITION[1]})
    for seed in range(150):
        real, generated = images(rng, listens=False)
        own = quality.within_condition(kid(KERNEL, real, generated, groups), groups, "sick")
        shuffled = quality.shuffled_kid(KERNEL, real, generated, groups, "sick", seed)
        gap = difference(own, shuffled)
        upper.append(gap.interval()[1])
        values.append(gap.value)
        errors.append(gap.standard_error)
    assert np.mean(np.array(upper) < 0) <= 0.06
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


def test_reconstruction_gate_counts_lost_discs_against_the_vae() -> None:
    truth = np.linspace(0.2, 0.8, 100)
    assert quality.reconstruction_r2(truth, truth) == pytest.approx(1)
    assert quality.reconstruction_r2(np.full(100, np.nan), truth) == pytest.approx(0)
    lost = np.where(np.arange(100) % 2, np.nan, truth)
    assert quality.reconstruction_r2(lost, truth) == pytest.approx(0.5, abs=0.02)
    row = quality.gate_reconstruction(RULER, lost, truth, 0.6)
    assert not row["passed"]
    assert "no disc found in 50" in row["note"]


def test_reconstruction_gate_wants_the_value_not_a_correlate() -> None:
    truth = np.linspace(0.2, 0.8, 100)
    assert quality.reconstruction_r2(0.3 * truth, truth) < 0


def test_prompt_auc_counts_ties_and_lost_discs_as_one_half() -> None:
    asked = np.array([True, True, False, False])
    assert quality.prompt_auc(np.array([0.7, 0.6, 0.3, 0.2]), asked) == 1
    assert quality.prompt_auc(np.array([0.5, 0.5, 0.5, 0.5]), asked) == 0.5
    assert quality.prompt_auc(np.array([np.nan, 0.6, 0.3, 0.2]), asked) == 0.75
    assert quality.prompt_auc(np.full(4, np.nan), asked) == 0.5
    assert not quality.gate_prompt(RULER, np.ones(4), np.ones(4, dtype=bool), 0.8)["passed"]


def test_condition_without_enough_subjects_is_refused() -> None:
    few = TABLE.iloc[:5]
    features = np.random.default_rng(5).normal(size=(5, 4))
    with pytest.raises(InputError, match="no level of 'sick' has enough subjects"):
        quality.gates(KERNEL, features, features, features, few, CONDITION, labels={})
