"""What the graph's jobs took, from Snakemake's own benchmark files beside their records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import read_json, read_table, write_json
from fairdiff_lib.disk.stamps import hardware
from fairdiff_lib.run.graph import EXPECTED, work
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import parse_overrides

COLUMNS = ["preset", "dataset", "kind", "work", "seconds", "peak_mb", "made_mb"]


def measured_jobs(runs: Path) -> pd.DataFrame:
    """A row per kind of job that was done in a runs folder: its longest.

    Of seconds of the wall and of the processor the fewer: a job of one thread that took longer than
    it computed was kept waiting by others.

    Parameters
    ----------
    runs : Path

    Returns
    -------
    DataFrame
        preset, dataset, kind, work, seconds, peak_mb, made_mb.

    Raises
    ------
    InputError
        No job has been done there.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(runs.glob("*/records-*/jobs/*.json.tsv")):
        found = read_json(path.with_suffix(""))
        given = found["parameters"]
        overrides = parse_overrides(given.get("overrides", ""))
        settings = load_settings(found["preset"], found["dataset"], overrides)
        took = read_table(path, ("s", "max_rss", "cpu_time"), sep="\t").iloc[0]
        rows.append(
            {name: found[name] for name in ("preset", "dataset", "kind", "made_mb")}
            | {"work": work(settings, found["kind"])}
            | {
                "seconds": float(min(took["s"], took["cpu_time"])),
                "peak_mb": float(took["max_rss"]),
            }
        )
    if not rows:
        raise InputError(f"{runs}: no job has been done there; expected the folder of a run")
    table = pd.DataFrame(rows)[COLUMNS].sort_values("seconds")
    keys = COLUMNS[:3]
    return table.drop_duplicates(keys, keep="last").sort_values(keys)


def write_expected(table: pd.DataFrame, path: Path = EXPECTED) -> Path:
    """Take measured times over into ``expected_seconds.json``; other entries stay."""
    known = read_json(path)
    for row in table.to_dict("records"):
        place = known["jobs"].setdefault(f"{row.pop('preset')}/{row.pop('dataset')}", {})
        place[row["kind"]] = row
    known["machine"] = hardware()
    write_json(path, known)
    return path
