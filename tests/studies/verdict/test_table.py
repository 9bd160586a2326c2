"""T14 is put together from each data set's rows; the ablation's C2 counts only where it may."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.files import locked, read_json, write_json
from fairdiff_lib.disk.stamps import publish_table
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.verdict.protocol import Protocol
from fairdiff_lib.studies.verdict.table import (
    COLUMNS,
    ablation_verdict,
    as_table,
    data_version,
    read_verdicts,
    write_verdict,
)
from fairdiff_lib.study import Study

SIMULATED = "fairgenmed_simulated"
NUMBERS = ("value", "low", "high", "smallest_effect", "mde", "n", "seeds", "p", "p_holm")


def own_rows(dataset: str, **changed: Any) -> pd.DataFrame:
    """One row of T14, empty but for what a test reads."""
    row = dict.fromkeys(COLUMNS, "") | dict.fromkeys(NUMBERS, float("nan"))
    return as_table([{**row, "dataset": dataset, "claim": "C2", "cited": True, **changed}])


def write(dataset: str, root: str, commit: str = "a", dirty: bool | None = False) -> None:
    """The verdict of a dataset, as notebook 09 writes it."""
    study = Study.open("smoke", dataset, figures_root=root)
    stamp = {"commit": commit, "dirty": dirty, "simulated": dataset == SIMULATED}
    study.__dict__["stamp"] = stamp  # what the cached property would have made
    write_verdict(study, own_rows(dataset, verdict=commit))


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


def ablation(
    tmp_path: Path, *, data_hash: str = "d" * 64, before: bool = True, features: str = ""
) -> pd.DataFrame:
    """The ablation's C2 as T14 takes it, where its files say this."""
    rule = Protocol(dataset=SIMULATED, features_digest="f")
    study = Study.open("smoke", SIMULATED, figures_root=str(tmp_path))
    layout = study.places
    rows = own_rows(SIMULATED, seeds=8, study="ablation", protocol="derived")
    both = pd.concat([rows, rows.assign(seeds=9)], ignore_index=True)
    both.insert(0, "method", ["fairdiffusion", "fairdiffusion_corrected"])
    publish_table(both, layout.figures / "tab_c2.csv", {"data_hash": data_hash})
    said = {"dataset": SIMULATED, "metric": "kid", "features_digest": features or "f"}
    whole = {"protocol": said, "data_hash": "d" * 64, "before": before}
    write_json(layout.ablation / "protocol.json", {**whole, "sha256": "s" * 64})
    cohort = Cohort(dataset_of(SIMULATED).spec(), pd.DataFrame(), Path(), "d" * 64)
    study.__dict__["cohort"] = cohort
    return ablation_verdict(study, rule)


def test_the_ablations_c2_counts_only_of_the_same_data_and_declared_before(tmp_path: Path) -> None:
    (row,) = ablation(tmp_path).to_dict("records")
    assert (row["seeds"], row["study"], row["declaration"]) == (8, "ablation", "s" * 64)
    assert row["protocol"] == Protocol(dataset=SIMULATED, features_digest="f").sha256
    assert ablation(tmp_path, data_hash="e" * 64).empty
    assert ablation(tmp_path, before=False).empty
    assert ablation(tmp_path, features="other").empty


def test_tables_of_different_data_are_not_mixed(tmp_path: Path) -> None:
    study = Study.open("smoke", SIMULATED, figures_root=str(tmp_path))
    for name, version in (("tab02", "a" * 64), ("tab04", "a" * 64), ("tab05", "b" * 64)):
        write_json(study.places.figures / f"{name}.json", {"data_hash": version})
    assert data_version(study, ("tab02", "tab04")) == "a" * 64
    with pytest.raises(InputError, match=r"tables of different data .tab02 aaaaaaaaaa, tab05 bbb"):
        data_version(study, ("tab02", "tab05"))
