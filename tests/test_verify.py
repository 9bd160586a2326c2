"""Two runs that say the same are alike but for their clocks; a changed number is seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from nbval.plugin import get_sanitize_patterns

from fairdiff_lib import looks, verify
from fairdiff_lib.config import InputError
from fairdiff_lib.graph import Study
from fairdiff_lib.store import read_json, write_json, write_table


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
    frame = pd.DataFrame({"what": ["seconds_per_step", "loss"], "value": [seconds, loss]})
    return str(looks.style_table(frame, caption="Costs").data)


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


def test_a_notebook_is_pointed_to_the_other_run(tmp_path: Path) -> None:
    given = 'preset = "smoke"\nruns_root = ""  # elsewhere\nfigures_root = ""  # elsewhere\n'
    timed = looks.style_table(pd.DataFrame({"seed": [0], "seconds": [1.5]})).data
    whole = notebook(
        cell(given, {}, ("injected-parameters",)),
        cell("a", {"text/html": timed}),
        cell("b", {"text/html": costs(1.0, 2.0)}),
    )
    write_json(tmp_path / "executed" / "01.ipynb", whole)
    study = Study("smoke", runs_root="/x/runs", figures_root="/x/figures")
    assert verify.prepare(tmp_path / "executed", tmp_path / "compared", study) == 1
    cells = read_json(tmp_path / "compared" / "01.ipynb")["cells"]
    expected = "preset = \"smoke\"\nruns_root = '/x/runs'\nfigures_root = '/x/figures'"
    assert cells[0]["source"] == expected
    assert [verify.IGNORED in own["metadata"]["tags"] for own in cells] == [False, True, False]


def test_nbval_compares_what_cells_print(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alike = notebook(
        cell("{'loss': 1.5, 'seconds': 4}", {"text/plain": "{'loss': 1.5, 'seconds': 9}"})
    )
    write_json(tmp_path / "same.ipynb", alike)
    assert verify.compare_notebooks(tmp_path) == []
    assert "nbval: 1 passed" in capsys.readouterr().out
    write_json(tmp_path / "same.ipynb", notebook(cell("{'loss': 1.5}", {"text/plain": "{}"})))
    (problem,) = verify.compare_notebooks(tmp_path)
    assert problem.startswith("FAILED same.ipynb") and "nbval.txt" in problem
    assert "1.5" in (tmp_path / "nbval.txt").read_text()


def test_tables_are_alike_but_for_timings(tmp_path: Path) -> None:
    for name, seconds, value in (("first", 1.0, 2.0), ("second", 3.0, 2.0)):
        frame = pd.DataFrame({"seconds_per_step": [seconds], "value": [value]})
        write_table(frame, tmp_path / name / "a" / "tab02.csv", None)
    assert verify.differing_tables(tmp_path / "first", tmp_path / "second") == []
    write_table(pd.DataFrame({"value": [1]}), tmp_path / "second" / "tab03.csv", None)
    frame = pd.DataFrame({"seconds_per_step": [3.0], "value": [2.0001]})
    write_table(frame, tmp_path / "second" / "a" / "tab02.csv", None)
    found = verify.differing_tables(tmp_path / "first", tmp_path / "second")
    assert found == ["a/tab02.csv", "tab03.csv"]


def test_an_edited_table_fails_the_stamps_check(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table or figure"):
        verify.check_stamps(tmp_path)
    stamp = {"commit": "0" * 40, "dirty": True}
    write_table(pd.DataFrame({"value": [1]}), tmp_path / "tab02.csv", stamp)
    assert verify.check_stamps(tmp_path) == [
        "tab02.csv: made by code that differed from its commit 0000000000"
    ]
    (tmp_path / "tab02.csv").write_text("value\n2\n")
    assert "edited" in verify.check_stamps(tmp_path)[0]
