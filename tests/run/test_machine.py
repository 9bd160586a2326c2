"""The audit says the same on any number of threads and with any instruction set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fairdiff_lib.run import verify
from fairdiff_lib.run.verify import check_machine, moved
from fairdiff_lib.settings.errors import InputError


def numbers(*values: float) -> pd.DataFrame:
    rows = [("lite0", "kid", "sex", f"level {k}", v, 0.5) for k, v in enumerate(values)]
    return pd.DataFrame(rows, columns=[*verify.NAMES, "value", "error"])


def test_the_largest_move_is_counted_in_standard_errors_and_named() -> None:
    found = {(1, "native"): numbers(1.0, 2.0), (2, "avx2"): numbers(1.001, 2.02)}
    table = moved(found)
    assert table["moved"].tolist() == pytest.approx([0.0, 0.04])
    assert "level 1" in table["number"].iloc[1] and table["numbers"].tolist() == [2, 2]


def test_a_number_that_is_missing_is_no_agreement() -> None:
    found = {(1, "native"): numbers(1.0, 2.0), (2, "native"): numbers(1.0)}
    assert moved(found)["moved"].iloc[1] == float("inf")
    nothing = {(1, "native"): numbers(1.0), (2, "native"): numbers(float("nan"))}
    assert moved(nothing)["moved"].iloc[1] == float("inf")


def test_what_moves_too_far_is_a_problem_and_other_files_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"default": numbers(1.02), "avx2": numbers(1.0), "native": numbers(1.0)}
    monkeypatch.setattr(verify, "_audited", lambda *a: given[a[-1]])
    problems = check_machine(tmp_path / "out")
    assert len(problems) == 2 and all("default instructions" in line for line in problems)
    assert "4.0% of its standard error; expected at most 2%" in problems[0]
    assert "avx2" in capsys.readouterr().out
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="mine"):
        check_machine(tmp_path / "out")


@pytest.mark.slow
def test_the_audit_is_the_same_on_any_threads_and_instructions(tmp_path: Path) -> None:
    assert check_machine(tmp_path / "out") == []
    assert len(list((tmp_path / "out" / "found").iterdir())) == 6
