"""What is written and listed: the study's tables by id, the notebooks' scalars, the index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import contents, dataset_of
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import publish_table

if TYPE_CHECKING:
    from fairdiff_lib.studies.ablation.report import AblationResult


def write_downstream(table: pd.DataFrame, cohort: Cohort, layout: Places, stamp: Any) -> list[Path]:
    """Write T4 to T7, a condition each (FairGenMed), or the dataset's one table."""
    names = tuple(dataset_of(layout.settings.dataset).downstream)
    parts = [table]
    if len(names) > 1:
        parts = [tables.pick(table, [c], "condition") for c in cohort.condition_levels]
    return write_tables(dict(zip(names, parts, strict=True)), layout, stamp)


def write_downstream_contrasts(
    contrasts: pd.DataFrame, changes: pd.DataFrame, layout: Places, stamp: Any
) -> list[Path]:
    """Write tab_contrasts_downstream (between levels) and tab_changes (between methods)."""
    todo = {
        "tab_contrasts_downstream": contrasts.rename(columns={"source": "method"}),
        "tab_changes": changes,
    }
    return write_tables(todo, layout, stamp)


def write_ablation(result: AblationResult, layout: Places, stamp: Any) -> list[Path]:
    """Write T12, T13, the cost of every run, and the verdict on C2."""
    todo = {"tab12": result.cells, "tab13": result.methods, "tab_cost": result.cost}
    folder = layout.figures
    paths = [publish(table, folder / f"{name}.csv", stamp) for name, table in todo.items()]
    return [*paths, publish(result.c2, folder / "tab_c2.csv", stamp)]


def option_table(methods: pd.DataFrame, roles: Mapping[str, str]) -> pd.DataFrame:
    """Controls and single options against FairDiffusion: overall KID, its disparity, the loss's."""
    own = methods[(methods["baseline"] == "fairdiffusion") & (methods["attribute"] == "overall")]
    own = own[own["method"].map(roles).isin(["control", "option"])]
    first = methods.loc[methods["metric"] == "kid", "features"].iloc[0]
    own = own[own["features"].isin([first, ""])]
    own = own[own["metric"].isin(["kid", "kid_disparity", "denoising_loss_disparity"])]
    return own[["method", "baseline", "seeds", "metric", "value", "low", "high"]]


def ablation_scalars(result: AblationResult) -> dict[str, Any]:
    """What 08 records: rows, and the verdicts."""
    verdicts = {f"c2_{row.method}": row.verdict for row in result.c2.itertuples()}
    rows = {"cell_rows": len(result.cells), "method_rows": len(result.methods)}
    return {**rows, **verdicts, "runs": len(result.cost)}


def write_tables(todo: Mapping[str, pd.DataFrame], layout: Places, stamp: Any) -> list[Path]:
    """Write tables of this study by their names, each with the stamp."""
    folder = layout.figures
    return [publish(tables.as_written(t), folder / f"{n}.csv", stamp) for n, t in todo.items()]


def publish(table: pd.DataFrame, path: Path, stamp: Mapping[str, Any]) -> Path:
    """Write a table with its stamp, T1 to T14 as LaTeX too; the CSV's path."""
    return publish_table(table, path, stamp, contents().get(path.stem, (path.stem, ""))[0])
