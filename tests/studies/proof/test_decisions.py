"""Verdicts in equivalent blur: what is planted, and that a broken rule is caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.decide import Effect
from fairdiff_lib.audit.seeds import LEAST_RUNS
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.show.words_studies import about_decisions
from fairdiff_lib.studies.proof import Decisions, feature_cells, known
from fairdiff_lib.studies.proof.audits import (
    COLUMNS,
    Cell,
    Finding,
    by_situation,
    count,
    judged,
    simulate,
)
from fairdiff_lib.studies.proof.decisions import RUN_SPREAD, Decision, decision_cells

SEED = 11  # not the proof's own
SMALL = ProofConfig(width=48, reference=120, sizes=(40,), naive_sizes=(80,), family_sizes=(40, 60))


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return decision_cells(SMALL)


def just_x(cells: list[Cell], what: str) -> Cell:
    """The cell of this situation at a true difference of X."""
    (cell,) = (c for c in cells if c.situation.what == what
               and abs(c.situation.truth) == pytest.approx(0.1))  # fmt: skip
    return cell


def test_every_cell_runs_and_is_told(cells: list[Cell], tmp_path: Path) -> None:
    few = [dataclasses.replace(cell, simulations=1) for cell in cells]
    table = simulate(few, tmp_path, SEED, processes=1)
    assert list(table.columns) == list(COLUMNS)
    assert (table["given"] == 1).all()
    np.testing.assert_allclose(
        table[["larger", "different", "no_larger", "undecided"]].sum(axis=1), 1
    )
    assert set(table["truth"].abs().round(9)) == {0.0, 0.1, 0.2}
    found = Decisions(table, judged(few, table))
    assert found.judged["passed"].all(), "of one audit, nothing is told from its promise"
    assert len(found.shown) == len(cells)
    assert f"{len(found.judged)} of {len(found.judged)} checks" in about_decisions(
        found.table, found.judged
    )


def test_its_situations_are_none_of_the_others(cells: list[Cell]) -> None:
    own = {one[0].situation.name for one in by_situation(cells)}
    assert len(own) == len(cells)
    assert not own & {cell.situation.name for cell in feature_cells(SMALL)}


@pytest.mark.parametrize(
    ("what", "methods", "runs"),
    [
        ("a blur, one run", 1, 1),
        ("a blur, 3 runs", 1, LEAST_RUNS),
        ("change of a difference, 3 runs", 2, LEAST_RUNS),
        ("change of everybody, 3 runs", 2, LEAST_RUNS),
    ],
)
def test_a_scene_has_its_runs_and_its_planted_difference(
    cells: list[Cell], what: str, methods: int, runs: int
) -> None:
    cell = just_x(cells, what)
    scene = cell.scene
    assert isinstance(scene, known.Blurring) and isinstance(scene.scene, known.SamePatients)
    seen = scene(np.random.default_rng(0))
    assert len(seen.runs) == runs and len(seen.rivals) == runs * (methods - 1)
    design = known.Planted.of(SMALL)
    kids = [[[known.population_kid(design.kernel, law.pair) for law in group] for group in method]
            for method in scene.scene.laws]  # fmt: skip
    truth, score = cell.situation.truth, known.run_scores() if runs > 1 else [0.0]
    name = "large" if len(scene.scene.laws[-1]) == 1 else "small"
    for away, own in zip(score, kids[-1][0], strict=True):
        soft = design.law_of_blur(name, True, SMALL.pixels + truth + RUN_SPREAD * away)
        assert own == pytest.approx(known.population_kid(design.kernel, soft.pair), rel=1e-6)


def test_the_rule_keeps_its_promise_and_a_broken_one_does_not(cells: list[Cell]) -> None:
    """At a difference of just X: X doubled in the rule, or intervals halved, fails."""
    cell = just_x(cells, "a blur, one run")
    judge = cell.judge
    assert isinstance(judge, Decision)
    rngs = [np.random.default_rng([SEED, number]) for number in range(60)]
    effects = [judge.effect(cell.scene(rng)) for rng in rngs]
    assert all(kept(cell, map(judge.told, effects)).values())
    lax = Decision(judge.kernel, dataclasses.replace(judge.test, smallest=0.2))
    found = kept(cell, map(lax.told, effects))
    assert not found["no_larger"] and found["missed"]
    found = kept(cell, map(judge.told, map(halved, effects)))
    assert not found["no_larger"] and not found["missed"]


def kept(cell: Cell, findings: Iterable[Finding]) -> dict[str, bool]:
    """By check: is the promise kept?"""
    row = count(cell, pd.DataFrame([vars(one) for one in findings]))
    checks = judged([cell], pd.DataFrame([row]))
    return dict(zip(checks["check"], checks["passed"], strict=True))


def halved(own: Effect) -> Effect:
    """The same with intervals of half the width."""
    sides = ("low", "high", "inner_low", "inner_high")
    ends = {side: (getattr(own, side) + own.value) / 2 for side in sides}
    return dataclasses.replace(own, **ends)


def test_changes_that_are_missed_more_often_than_promised_are_told() -> None:
    row = {"situation": "change of everybody, 3 runs", "truth": 0.0, "simulations": 1000,
           "larger": 0.0, "no_larger": 0.9}  # fmt: skip
    checks = pd.DataFrame({"passed": [True]})
    for missed, told in ((0.08, True), (0.055, False)):
        said = about_decisions(pd.DataFrame([{**row, "missed": missed}]), checks)
        assert ("miss in 8.0% of 1,000 audits, more than the 5%" in said) is told
