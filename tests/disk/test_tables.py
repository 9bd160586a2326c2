"""Names of columns come back from disk; what a failed gate says reaches every row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.files import write_table
from fairdiff_lib.disk.places import Places

SIMULATED = "fairgenmed_simulated"


def gates() -> pd.DataFrame:
    rows = [
        ("none", 0, "vae_reconstruction", 0.4, False),
        ("fairdiffusion", 0, "vae_reconstruction", 0.3, False),
        ("none", 0, "prompt", 0.9, True),
    ]
    table = pd.DataFrame(rows, columns=["method", "seed", "gate", "value", "passed"])
    return table.assign(dataset=SIMULATED, threshold=0.6, comparison=">=")


def test_a_failed_gate_is_one_line_that_reaches_every_row() -> None:
    lines = tables.failed_gates(gates())
    assert len(lines) == 1
    assert "autoencoder" in lines[0] and "0.4 (Stable Diffusion, seed 0)" in lines[0]
    assert "at least 0.6" in lines[0] and "_" not in lines[0]
    table = pd.DataFrame({"value": [1.0, 2.0], "note": ["own", ""]})
    noted = tables.with_notes(table, lines)["note"].tolist()
    assert noted == [f"own; {lines[0]}", lines[0]]
    assert tables.with_notes(table, []) is table


def test_a_gate_that_many_runs_failed_is_a_range() -> None:
    runs = [gates().assign(seed=seed, value=seed / 10) for seed in range(8)]
    line = tables.failed_gates(pd.concat(runs, ignore_index=True))[0]
    assert "found 0 to 0.7 in 16 of 16 runs" in line


def test_gate_notes_are_read_back_and_missing_gates_are_said(tmp_path: Path) -> None:
    layout = Places(load_settings("smoke", SIMULATED), figures_root=str(tmp_path))
    assert tables.gate_notes(layout) == ["the checks of notebook 05 were not run"]
    own = tables.as_written(gates())
    write_table(own, layout.figures / "tab_gates.csv")
    assert tables.gate_notes(layout) == tables.failed_gates(gates())


def test_files_name_methods_and_seeds_and_memory_gets_its_own_names_back() -> None:
    written = tables.as_written(gates())
    assert "seed" not in written.columns and written["seeds"].tolist() == ["0", "0", "0"]
    assert list(tables.as_read(written).columns) == list(gates().columns)
    row = {name: "x" for name in tables.DOWNSTREAM_COLUMNS if name not in ("method", "features")}
    table = pd.DataFrame([{"source": "real", "sd": 0.0, "n_seeds": 1, **row}])
    written = tables.as_written(table)
    assert tuple(written.columns) == (*tables.DOWNSTREAM_COLUMNS, "sd", "n_seeds")
    assert written.loc[0, "method"] == "real" and written.loc[0, "features"] == ""
    back = tables.as_read(written)
    assert set(back.columns) == set(table.columns) and back.loc[0, "source"] == "real"
