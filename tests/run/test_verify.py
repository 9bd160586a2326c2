"""Two runs that say the same are alike but for their clocks; a changed number is seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from nbval.plugin import get_sanitize_patterns

from fairdiff_lib.disk.files import write_json, write_table
from fairdiff_lib.disk.stamps import publish_table
from fairdiff_lib.run import verify
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.front import table


def cell(source: str, data: dict[str, str], tags: tuple[str, ...] = ()) -> dict[str, Any]:
    output = {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": 1}
    return {
        "cell_type": "code",
        "id": f"c{abs(hash(source)) % 10**6}",
        "execution_count": 1,
        "metadata": {"tags": list(tags)},
        "source": source,
        "outputs": [output] if data else [],
    }


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4,
            "nbformat_minor": 5}  # fmt: skip


def sanitised(text: str) -> str:
    rules = "\n\n".join(f"regex: {p}\nreplace: {new}" for p, new in verify.SANITISED)
    for pattern, new in get_sanitize_patterns(rules):
        text = re.sub(pattern, new, text)
    return text


def costs(seconds: float, loss: float) -> str:
    named = ["seconds_per_step", "share of it in the method's optimiser", "most memory, GiB"]
    frame = pd.DataFrame({"what": [*named, "loss"], "value": [*[seconds] * len(named), loss]})
    return str(table(frame, "Costs").data)


def test_clocks_and_commits_are_left_out_of_the_comparison_and_numbers_are_not() -> None:
    assert sanitised(costs(0.26, 1.0)) == sanitised(costs(0.31, 1.0))
    assert sanitised(costs(0.26, 1.0)) != sanitised(costs(0.26, 1.1))
    one = (
        "{'a_optimiser_share': 0.01, 'seconds': 1e-05, 'loss': 2.5, 'commit': 'ab', 'dirty': True}"
    )
    assert sanitised(one) == sanitised(
        "{'a_optimiser_share': 0.2, 'seconds': 3, 'loss': 2.5, 'commit': None, 'dirty': False}"
    )
    assert sanitised(one) != sanitised(one.replace("2.5", "2.6"))


def run_of(folder: Path, loss: float, seconds: float) -> None:
    """A run's one notebook: plain, streamed, and tabled outputs, and a table of timings."""
    timed = table(pd.DataFrame({"seed": [0], "seconds": [seconds]})).data
    said = {"output_type": "stream", "name": "stdout", "text": ["one\n", f"loss {loss}\n"]}
    whole = notebook(
        cell("preset = 'smoke'", {}, ("parameters",)),
        cell(f"root = {str(folder)!r}", {}, ("injected-parameters",)),
        cell("a", {"text/html": str(timed), "text/plain": "x"}),
        cell("b", {"text/html": costs(seconds, loss), "image/png": str(seconds)}),
        cell("c", {"text/plain": f"{{'loss': {loss}, 'seconds': {seconds}}}"}),
        cell("d", {}) | {"outputs": [said]},
        cell("e", {}),
    )
    write_json(folder / "01.ipynb", whole)


def test_nbval_compares_what_two_runs_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    run_of(first, 1.5, 4.0)
    run_of(second, 1.5, 9.0)
    run_of(third, 1.6, 4.0)
    assert verify.prepare(first, second, tmp_path / "alike") == (1, [])
    assert verify.compare_notebooks(tmp_path / "alike") == []
    assert "nbval: 7 passed" in capsys.readouterr().out
    verify.prepare(first, third, tmp_path / "other")
    problems = verify.compare_notebooks(tmp_path / "other")
    assert [problem.split(":")[0] for problem in problems] == ["FAILED 01.ipynb"] * 3  # b, c, d
    assert all("nbval.txt" in problem for problem in problems)
    assert "1.6" in (tmp_path / "other" / "nbval.txt").read_text()


def test_notebooks_that_cannot_be_compared_are_problems(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run_of(first, 1.5, 4.0)
    write_json(second / "01.ipynb", notebook(cell("other", {})))
    write_json(second / "02.ipynb", notebook(cell("new", {})))
    assert verify.prepare(first, second, tmp_path / "compared") == (
        0,
        [
            "01.ipynb: the two runs have different cells",
            "02.ipynb: only one of the two runs has it",
        ],
    )
    broke = {"output_type": "error", "ename": "E", "evalue": "no", "traceback": []}
    assert verify.replay([broke]) == "raise RuntimeError('no')"


def test_tables_are_alike_but_for_timings(tmp_path: Path) -> None:
    for name, seconds, value in (("first", 1.0, 2.0), ("second", 3.0, 2.0)):
        frame = pd.DataFrame({"seconds_per_step": [seconds], "value": [value]})
        write_table(frame, tmp_path / name / "a" / "tab02.csv")
    assert verify.differing_tables(tmp_path / "first", tmp_path / "second") == []
    write_table(pd.DataFrame({"value": [1]}), tmp_path / "second" / "tab03.csv")
    frame = pd.DataFrame({"seconds_per_step": [3.0], "value": [2.0001]})
    write_table(frame, tmp_path / "second" / "a" / "tab02.csv")
    found = verify.differing_tables(tmp_path / "first", tmp_path / "second")
    assert found == ["a/tab02.csv", "tab03.csv"]


def test_an_edited_table_fails_the_stamps_check(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table or figure"):
        verify.check_stamps(tmp_path)
    stamp = {"commit": "0" * 40, "dirty": True}
    publish_table(pd.DataFrame({"value": [1]}), tmp_path / "tab02.csv", stamp)
    assert verify.check_stamps(tmp_path) == [
        "tab02: made by code that differed from its commit 0000000000"
    ]
    (tmp_path / "tab02.csv").write_text("value\n2\n")
    assert "edited" in verify.check_stamps(tmp_path)[0]
