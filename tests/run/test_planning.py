"""``fairdiff plan-size``: its numbers are those of simulated audits, and bad input says which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdiff_lib.run.cli import main
from fairdiff_lib.run.planning import plan
from fairdiff_lib.settings.errors import InputError


def write_pilot(path: Path, **changes: object) -> Path:
    """Two groups of unlike spread: 1 and 2 per subject."""
    rows = {"attribute": ["overall", "race", "race"], "level": ["all", "Black", "White"],
            "metric": "kid", "n": [500, 100, 400], "standard_error": [0.09, 0.1, 0.1]}  # fmt: skip
    pd.DataFrame({**rows, **changes}).to_csv(path, index=False)
    return path


def power_of(n: int, n_reference: int, effect: float, audits: int = 4000) -> float:
    """Share of simulated audits of such groups that find the difference (Welch's test)."""
    rng = np.random.default_rng(0)
    small = rng.normal(size=(audits, n)) + effect
    large = 2 * rng.normal(size=(audits, n_reference))
    return float((stats.ttest_ind(small, large, axis=1, equal_var=False).pvalue < 0.05).mean())


def test_the_plan_is_what_simulated_audits_do(tmp_path: Path) -> None:
    table, said = plan(write_pilot(tmp_path / "p.csv"), 0.3)
    row = table.set_index("level").loc["Black"]
    assert row["power"] == pytest.approx(power_of(100, 400, 0.3), abs=0.03)
    assert power_of(100, 400, row["detectable"]) == pytest.approx(0.8, abs=0.03)
    n = int(row["n_needed"])
    assert power_of(n, 4 * n, 0.3) == pytest.approx(0.8, abs=0.03)
    assert f"needs n = {n}" in said and "the next 100 subjects help most in Black" in said


def test_planned_sizes_and_intervals_of_a_table_are_read(tmp_path: Path) -> None:
    reach = 1.96 * 0.1
    path = write_pilot(tmp_path / "p.csv", low=-reach, high=reach)
    frame = pd.read_csv(path).drop(columns="standard_error")
    pd.concat([frame, frame.assign(metric="fid")]).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"several rows of race Black; choose with --where"):
        plan(path, 0.3)
    sizes = "race:Black=400,race:White=1600"
    table, _ = plan(path, 0.3, sizes, ["metric=kid"], str(tmp_path / "plan.csv"))
    row = pd.read_csv(tmp_path / "plan.csv").set_index("level").loc["Black"]
    assert row["n"] == 400 and row["power"] == pytest.approx(power_of(400, 1600, 0.3), abs=0.03)
    assert row["power"] == pytest.approx(float(table.set_index("level").loc["Black", "power"]))


def test_a_level_with_commas_can_be_planned_and_one_without_an_error_is_named(
    tmp_path: Path,
) -> None:
    levels = ["all", "Black, of Africa", "White, non-Hispanic", "Asian"]
    rows = {"attribute": ["overall", "race", "race", "race"], "level": levels,
            "n": [500, 100, 400, 8], "standard_error": [0.09, 0.1, 0.1, np.nan]}  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "p.csv", index=False)
    sizes = "race:Black, of Africa=300, race:White, non-Hispanic = 1200,"
    table, said = plan(tmp_path / "p.csv", 0.3, sizes)
    row = table.set_index("level").loc["Black, of Africa"]
    assert (row["n"], row["n_reference"]) == (300, 1200)
    assert "race: Asian (n = 8) is left out: the pilot has no error of it" in said


def test_features_give_a_pilot(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2, 120, 4))
    sex = np.where(np.arange(120) < 40, "Male", "Female")
    np.savez(tmp_path / "f.npz", real=real, generated=made + 1, sex=sex)
    table, _ = plan(tmp_path / "f.npz", 0.05)
    row = table.set_index("level").loc["Male"]
    assert (row["n"], row["n_reference"]) == (40, 80) and 0 < row["power"] < 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--effect", "0"], "expected a finite one, more than 0"),
        (["--effect", "inf"], "expected a finite one, more than 0"),
        (["--effect", "x"], "invalid float"),
        (["--effect", "1", "--sizes", "race:Red=3"], "race:Red: no group with an error"),
        (["--effect", "1", "--sizes", "race:Black=300,200"], "--sizes 200: expected a group"),
        (["--effect", "1", "--sizes", "race:Black=\u00b2"], "expected a whole number"),
        (["--effect", "1", "--sizes", "race:Black=many"], "expected a whole number"),
        (["--effect", "1", "--sizes", "race:Black=1"], "expected 2 or more"),
        (["--effect", "1", "--where", "metric=fid"], "no row of"),
        (["--effect", "1", "--where", "arm=none"], "has no column 'arm'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pilot = str(write_pilot(tmp_path / "p.csv"))
    assert main(["plan-size", "--pilot", pilot, *arguments]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


def test_a_pilot_that_says_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    pd.DataFrame({"attribute": ["sex"], "level": ["F"], "n": [5]}).to_csv(path, index=False)
    with pytest.raises(InputError, match="lacks standard_error; expected it, or low and high"):
        plan(path, 1.0)
    one = write_pilot(path, n=[500, 100, 1])
    with pytest.raises(InputError, match="n of race White is 1; expected 2 or more"):
        plan(one, 1.0)
    alone = write_pilot(path, level=["all", "Black", "White"], standard_error=[0.1, 0.1, np.nan])
    with pytest.raises(InputError, match="no attribute has two levels"):
        plan(alone, 1.0)
    with pytest.raises(InputError, match="line 3, n: '1oo'; expected a number"):
        plan(write_pilot(path, n=["500", "1oo", "400"]), 1.0)
    with pytest.raises(InputError, match="line 4 lacks its attribute or level"):
        plan(write_pilot(path, attribute=["overall", "race", None]), 1.0)
    with (tmp_path / "f.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    with pytest.raises(InputError, match=r"not readable as \.npz"):
        plan(tmp_path / "f.npz", 1.0)
    np.savez(tmp_path / "f.npz", real=np.ones((3, 2)))
    with pytest.raises(InputError, match="no array 'generated'"):
        plan(tmp_path / "f.npz", 1.0)
    for real in (np.float64(3.0), np.ones(30), np.full((30, 2), "x")):
        np.savez(tmp_path / "f.npz", real=real, generated=real, sex=np.array(["F", "M"] * 15))
        with pytest.raises(InputError, match=r"f\.npz: .*expected"):
            plan(tmp_path / "f.npz", 1.0)
