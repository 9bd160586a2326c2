"""Metadata of a simulated folder say what lies there."""

import json

import pandas as pd

from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.run.cli import main


def test_simulated_folder_describes_its_tables_and_files(tmp_path):
    output = tmp_path / "drawn"
    sizes = ["train=8", "val=4", "test=4", "fundus_height=32", "fundus_width=42"]
    given = [part for size in sizes for part in ("--set", f"simulator.{size}")]
    command = ["simulate", "--preset", "smoke", "--dataset", "fairgenmed_simulated"]
    assert main([*command, *given, "--output", str(output)]) == 0

    found = json.loads((output / "croissant.json").read_text())
    objects = {one["@id"]: one for one in found["distribution"]}
    table = objects["data_summary.csv"]
    assert table["sha256"] == hash_file(output / "data_summary.csv")
    assert len(list(output.glob(objects["files.jpg"]["includes"]))) == 16
    records = {one["name"]: one for one in found["recordSet"]}
    columns = [field["name"] for field in records["data_summary"]["field"]]
    assert columns == list(pd.read_csv(output / "data_summary.csv"))
    identifiers = [field["@id"] for one in records.values() for field in one["field"]]
    assert len(set(identifiers)) == len(identifiers)
