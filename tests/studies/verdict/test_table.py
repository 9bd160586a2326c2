"""T14 is put together from each data set's rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairdiff_lib.disk.files import locked, read_json, write_json
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.verdict.table import (
    COLUMNS,
    as_table,
    data_version,
    read_verdicts,
    write_verdict,
)
from fairdiff_lib.study import Study

SIMULATED = "fairgenmed_simulated"
NUMBERS = ("value", "low", "high", "smallest_effect", "power_nothing", "power_twice", "n",
           "n_needed", "runs", "runs_needed")  # fmt: skip


def own_rows(dataset: str, **changed: Any) -> pd.DataFrame:
    """One row of T14, empty but for what a test reads."""
    row = dict.fromkeys(COLUMNS, "") | dict.fromkeys(NUMBERS, float("nan"))
    own = {"dataset": dataset, "claim": "C2", "attribute": "overall", "level": "all"}
    return as_table([{**row, **own, **changed}])


def write(dataset: str, root: str, commit: str = "a", dirty: bool | None = False) -> None:
    """The verdict of a dataset, as notebook 09 writes it."""
    study = Study.open("smoke", dataset, figures_root=root)
    stamp = {"commit": commit, "dirty": dirty, "simulated": dataset == SIMULATED}
    study.__dict__["stamp"] = stamp  # what the cached property would have made
    rows = own_rows(dataset, verdict=commit)
    write_verdict(study, rows, rows)


def test_t14_keeps_each_datasets_rows_and_stamp(tmp_path: Path) -> None:
    def found() -> tuple[dict[str, str], dict[str, Any]]:
        path = tmp_path / "smoke" / "all" / "tab14.csv"
        table = read_verdicts(path)
        return dict(zip(table["dataset"], table["verdict"], strict=True)), read_json(
            path.with_suffix(".json")
        )

    write(SIMULATED, str(tmp_path), "a", True)
    assert found()[1]["simulated"] is True and list(found()[1]["datasets"]) == [SIMULATED]
    write("ham10000", str(tmp_path), "b")
    rows, both = found()
    assert rows == {SIMULATED: "a", "ham10000": "b"}
    assert {name: own["commit"] for name, own in both["datasets"].items()} == rows
    assert (both["commit"], both["dirty"], both["simulated"]) == ("b", True, True)
    write(SIMULATED, str(tmp_path), "c")  # judged again: its rows are replaced
    rows, again = found()
    assert rows == {SIMULATED: "c", "ham10000": "b"} and again["dirty"] is False
    names = again["datasets"][SIMULATED]
    assert "files" not in names  # hashes are of the file beside the stamp


def test_datasets_judged_at_once_wait_for_each_other(tmp_path: Path) -> None:
    names = ("fairgenmed_simulated", "ham10000_simulated", "chexpert_simulated", "ham10000")
    folder = tmp_path / "smoke" / "all"
    with ThreadPoolExecutor(len(names)) as pool:
        with locked(folder / ".tab14.lock"):
            jobs = [pool.submit(write, name, str(tmp_path)) for name in names]
            assert not wait(jobs, timeout=0.5).done  # none reads or writes while another does
            assert not (folder / "tab14.csv").exists()
        for job in jobs:
            job.result()
    assert set(read_verdicts(folder / "tab14.csv")["dataset"]) == set(names)
    assert set(read_json(folder / "tab14.json")["datasets"]) == set(names)


def test_tables_of_different_data_are_not_mixed(tmp_path: Path) -> None:
    study = Study.open("smoke", SIMULATED, figures_root=str(tmp_path))
    for name, version in (("tab02", "a" * 64), ("tab04", "a" * 64), ("tab05", "b" * 64)):
        write_json(study.places.figures / f"{name}.json", {"data_hash": version})
    assert data_version(study, ("tab02", "tab04")) == "a" * 64
    with pytest.raises(InputError, match=r"tables of different data .tab02 aaaaaaaaaa, tab05 bbb"):
        data_version(study, ("tab02", "tab05"))
