"""A study that was run again against the committed one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fairdiff_lib.disk.files import write_table
from fairdiff_lib.run.agree import check_agreement, compare_studies
from fairdiff_lib.settings.errors import InputError


def study(root: Path, shift: float = 0.0, outcome: str = "no_larger", level: str = "Male") -> Path:
    rows = {"attribute": ["sex"] * 20, "level": [level, *["Female"] * 19], "metric": ["kid"] * 20}
    kid = pd.DataFrame(rows).assign(value=0.1, low=0.05, high=0.15)
    kid.loc[0, "value"] += shift
    write_table(kid, root / "quick" / "tab02.csv")
    tests = kid.head(1).assign(claim="C1", outcome=outcome)
    write_table(tests, root / "quick" / "tab_tests.csv")
    return root


def test_values_within_their_intervals_and_the_same_outcomes_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed, again = study(tmp_path / "a"), study(tmp_path / "b", shift=0.04)
    write_table(pd.DataFrame({"n": [1]}), committed / "quick" / "tab_only_here.csv")
    assert check_agreement(again, committed, tmp_path / "said") == []
    assert list(pd.read_csv(tmp_path / "said" / "again.csv")["values"]) == [20, 1]
    said = capsys.readouterr().out
    assert "2 tables in common: 21 of 21 values" in said and "1 of 1 outcomes" in said


def test_another_outcome_and_values_outside_are_said(tmp_path: Path) -> None:
    committed = study(tmp_path / "a")
    again = study(tmp_path / "b", shift=0.06, outcome="undecided")
    assert [one.outside for one in compare_studies(again, committed)] == [1, 1]
    (changed,) = check_agreement(again, committed, tmp_path / "said")
    assert "C1, sex, Male, kid: committed no_larger, now undecided" in changed


def test_many_values_outside_are_a_problem_by_themselves(tmp_path: Path) -> None:
    committed, again = study(tmp_path / "a"), study(tmp_path / "b")
    table = again / "quick" / "tab02.csv"
    write_table(pd.read_csv(table).assign(value=[0.16] * 4 + [0.1] * 16), table)
    assert check_agreement(again, committed, tmp_path / "said") == [
        "4 of 21 values lie outside: expected at most 17%"
    ]


def test_rows_that_the_new_study_lacks_are_said(tmp_path: Path) -> None:
    committed, again = study(tmp_path / "a"), study(tmp_path / "b")
    table = again / "quick" / "tab02.csv"
    write_table(pd.read_csv(table).iloc[:5], table)
    assert [one.values for one in compare_studies(again, committed)] == [5, 1]
    assert check_agreement(again, committed, tmp_path / "said") == [
        "quick/tab02.csv: 15 committed rows are not there"
    ]


def test_other_rows_and_other_folders_are_refused(tmp_path: Path) -> None:
    committed = study(tmp_path / "a")
    with pytest.raises(InputError, match="about something else"):
        other = study(tmp_path / "b", level="Other")
        compare_studies(other, committed)
    with pytest.raises(InputError, match="no table in common"):
        compare_studies(tmp_path / "nowhere", committed)
