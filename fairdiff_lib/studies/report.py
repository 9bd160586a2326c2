"""What is written and listed: the study's tables by id, the notebooks' scalars, the index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import contents, dataset_of
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.files import locked, read_json, read_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import publish_table
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.verdict.claims import Evidence
from fairdiff_lib.studies.verdict.findings import ABLATION
from fairdiff_lib.studies.verdict.planted import recovered_table
from fairdiff_lib.studies.verdict.protocol import Protocol, Registered, space_name
from fairdiff_lib.studies.verdict.quotes import model_words
from fairdiff_lib.studies.verdict.verdict import COLUMNS, as_table, cite, verdicts

if TYPE_CHECKING:
    from fairdiff_lib.studies.ablation.report import AblationResult
    from fairdiff_lib.studies.quality import QualityResult

# -- 05 to 07: short tables and scalars for the notebooks ------------------------------------


def quality_scalars(result: QualityResult, protocol: Registered) -> dict[str, Any]:
    """What 05 records: gates passed, each method's overall KID, and the protocol."""
    table = result.main(protocol.rule.features)
    kid = table[(table["attribute"] == "overall") & (table["metric"] == "kid")]
    scalars = {f"kid_{row.method}_seeds{row.seeds}": row.value for row in kid.itertuples()}
    passed = int(result.gates["passed"].sum())
    scalars |= {"gates": len(result.gates), "gates_passed": passed}
    return {**scalars, "protocol": protocol.rule.sha256, "protocol_first": protocol.before}


# -- 08 and 09: what spans datasets ----------------------------------------------------------


def read_tables(layout: Places, names: tuple[str, ...]) -> pd.DataFrame:
    """Tables of this study, one under the other, without rows that occur twice."""
    columns = ("method", "seeds", "metric")
    parts = [
        tables.as_read(read_table(layout.figures / f"{name}.csv", columns, dtype={"seeds": str}))
        for name in names
    ]
    both: pd.DataFrame = pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)
    return tables.with_text(both)


def write_quality(result: QualityResult, cohort: Cohort, layout: Places, stamp: Any) -> list[Path]:
    """Write T2 and T3 (FairGenMed) or the dataset's one table, and the audit's other tables."""
    names = tuple(dataset_of(layout.settings.dataset).quality)
    groups = ["overall", *cohort.attribute_levels]
    parts = [result.table]
    if len(names) == 2:
        conditions = ["overall", *cohort.condition_levels]
        parts = [tables.pick(result.table, groups), tables.pick(result.table, conditions)]
    todo = dict(zip(names, parts, strict=True))
    todo |= {
        "tab_gates": result.gates,
        "tab_contrasts": result.contrasts,
        "tab_differences": result.differences,
        "tab_intersections": result.intersections,
        "tab_encoder": result.encoder,
    }
    return write_tables(todo, layout, stamp)


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


def spanning_stamp(
    stamps: Mapping[str, Mapping[str, Any]], commit: str | None, dirty: bool | None
) -> dict[str, Any]:
    """Stamp of a file whose rows come from runs of several datasets.

    Parameters
    ----------
    stamps : mapping
        Dataset to the stamp of its run, from ``stamps.make_stamp``.
    commit, dirty
        Of the run that puts the rows together.

    Returns
    -------
    dict
        datasets, simulated and dirty (true if any is), commit.
    """
    return {
        "datasets": dict(sorted(stamps.items())),
        "simulated": any(own["simulated"] for own in stamps.values()),
        "commit": commit,
        "dirty": any(own["dirty"] for own in stamps.values()) or dirty,
    }


def write_verdict(own: pd.DataFrame, layout: Places, stamp: Mapping[str, Any]) -> pd.DataFrame:
    """Write this dataset's verdicts, and T14: those of all datasets of the preset, one below other.

    Each dataset keeps its own rows (tab_verdict) and T14 is put together from them, one process at
    a time: of datasets that are judged at once none loses its rows.

    Parameters
    ----------
    own : DataFrame
        From :func:`collect_verdict`.
    layout : Places
    stamp : mapping
        This run's.

    Returns
    -------
    DataFrame
        T14.
    """
    path = layout.figures_all / "tab14.csv"
    with locked(layout.figures_all / ".tab14.lock"):
        publish(own, layout.figures / f"{PART}.csv", stamp)
        places = sorted(layout.figures.parent.glob(f"*/{PART}.csv"))
        whole = pd.concat([read_verdicts(place) for place in places], ignore_index=True)
        found = {place.parent.name: read_json(place.with_suffix(".json")) for place in places}
        stamps = {
            name: {key: value for key, value in one.items() if key != "files"}
            for name, one in found.items()
        }
        publish(whole, path, spanning_stamp(stamps, stamp["commit"], stamp["dirty"]))
    return whole


PART = "tab_verdict"  # T14's rows of one dataset


def read_verdicts(path: Path) -> pd.DataFrame:
    """A table of verdicts as it was written.

    Raises
    ------
    InputError
        It lacks a column, as one of an earlier version does.
    """
    words = ("endpoint", "unit", "limits", "declaration")  # empty text is not a missing number
    table = read_table(path, COLUMNS, dtype=dict.fromkeys(words, str))
    full = table.assign(**{name: table[name].fillna("") for name in words})
    return as_table(full.to_dict("records"))


def data_version(layout: Places, names: tuple[str, ...]) -> str:
    """Hash of the data that tables of this study were made from; they must agree."""
    stamps = {name: read_json(layout.figures / f"{name}.json") for name in names}
    found = {name: str(stamp.get("data_hash", "")) for name, stamp in stamps.items()}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {value[:10]}" for name, value in found.items())
        raise InputError(f"{layout.figures}: tables of different data ({said}); run them again")
    return found[names[0]]


def main_rows(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Rows in the primary feature space, or that rest on none."""
    return table[table["features"].isin([space_name(settings.audit.features), ""])]


def collect_verdict(
    settings: Settings, layout: Places, cohort: Cohort, protocol: Registered
) -> pd.DataFrame:
    """T14's rows of this dataset: the main study's, and C2 of the ablation study where it ran."""
    entry, rule = dataset_of(settings.dataset), protocol.rule
    own = (*entry.quality, *entry.downstream, "tab_contrasts", "tab_gates")
    made = data_version(layout, own)
    if made != cohort.data_hash:
        raise InputError(
            f"{layout.figures}: its tables are of data {made[:10]}, {layout.data} holds "
            f"{cohort.data_hash[:10]} now; run the study again"
        )
    evidence = Evidence(
        dataset=settings.dataset,
        attributes=list(cohort.attribute_levels),
        quality=main_rows(read_tables(layout, tuple(entry.quality)), settings),
        contrasts=read_contrasts(layout),
        downstream=read_tables(layout, tuple(entry.downstream)),
        failed=tables.gate_notes(layout),
        before=protocol.before,
        model=model_words(settings),
    )
    return cite(verdicts(evidence, rule), ablation_verdict(layout, cohort, rule))


def read_contrasts(layout: Places) -> pd.DataFrame:
    """tab_contrasts as it was written."""
    columns = ("method", "seeds", "p_adjusted", "role")
    path = layout.figures / "tab_contrasts.csv"
    return tables.with_text(read_table(path, columns, dtype={"seeds": str}))


def ablation_verdict(layout: Places, cohort: Cohort, rule: Protocol) -> pd.DataFrame:
    """The ablation study's C2 of the protocol's method: a row, or none.

    There is none where the study did not run, measured other data or other features, or was
    declared after a run of it had been measured (``verdict.CITATION``); nor where its table is of
    an earlier version without numbers, until notebook 08 has run again.
    """
    path, declared = layout.figures / "tab_c2.csv", layout.ablation / "protocol.json"
    if not (path.is_file() and declared.is_file()):
        return as_table([])
    said = read_json(declared)
    own = {key: rule.content[key] for key in ("dataset", "metric", "features_digest")}
    same = own == {key: said["protocol"].get(key) for key in own}
    hashes = {said["data_hash"], read_json(path.with_suffix(".json"))["data_hash"]}
    if not same or hashes != {cohort.data_hash} or not said["before_any_measurement"]:
        return as_table([])
    methods = read_table(path, ("method",))
    if not set(COLUMNS) <= set(methods.columns):
        return as_table([])
    table = read_verdicts(path)[(methods["method"] == rule.method).to_numpy()]
    # the rule is the protocol's; what the study compares is in its own declaration
    return table.assign(study=ABLATION, protocol=rule.sha256, declaration=said["sha256"])


def collect_recovered(settings: Settings, layout: Places, protocol: Registered) -> pd.DataFrame:
    """What a simulation planted, beside what was measured."""
    if settings.simulator is None:
        raise InputError(f"dataset {settings.dataset!r} is not simulated: nothing was planted")
    return recovered_table(read_contrasts(layout), settings.simulator, protocol.rule)
