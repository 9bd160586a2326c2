"""What the audit keeps of a finished run: small files that are committed, and enough to compare.

Per run a CSV with its metric rows, an ``.npz`` with the influence values behind them, and a JSON
with what the run was, what it cost and what the gates said, written last. Tables over runs are
made from these alone, so a batch that was interrupted loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, labelled
from fairdiff_lib.audit.contrasts import Design
from fairdiff_lib.audit.estimate import OVERALL, Estimate
from fairdiff_lib.disk.files import (
    atomic_file,
    hash_file,
    read_json,
    read_table,
    write_json,
    write_table,
)
from fairdiff_lib.settings.errors import InputError

COLUMNS = ("attribute", "level", "metric", "features", "n", "value", "low", "high", "df", "note")


@dataclass(frozen=True)
class RecordedRun:
    """A run as the audit left it.

    Attributes
    ----------
    arm, seed
        Which run.
    identity : dict
        What its numbers depend on: folder names with their digests, hashes of data, base and
        encoder. Runs are compared only where these agree, but for the training's own.
    audits : list of Audit
        The primary metric first; overall and by level of every attribute.
    cost : dict
        As the training's run.json: seconds, peak memory, the optimiser's share, images seen.
    gates : list of dict
        As ``gates.gates`` gave them, a dict per gate.
    stamp : dict
        Of the run that measured.
    """

    arm: str
    seed: int
    identity: dict[str, str]
    audits: list[Audit]
    cost: dict[str, Any]
    gates: list[dict[str, Any]]
    stamp: dict[str, Any]

    @property
    def key(self) -> tuple[str, int]:
        """Arm and seed."""
        return self.arm, self.seed


def write_run(path: Path, run: RecordedRun, simulated: bool) -> Path:
    """Write a run's three files, the JSON (``path``) last."""
    kept = [by_attribute(own) for own in run.audits]
    rows = [_rows(own) for own in kept]
    labels = {"arm": run.arm, "seed": run.seed}
    write_table(labelled(pd.concat(rows, ignore_index=True), labels), path.with_suffix(".csv"))
    arrays: dict[str, Any] = {  # Any: the stubs take every keyword for an option
        _name(own): np.stack([e.influence for e in own.estimates.values()]).astype(np.float32)
        for own in kept
    }
    with atomic_file(path.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    write_json(
        path,
        {
            "arm": run.arm,
            "seed": run.seed,
            "simulated": simulated,
            "identity": run.identity,
            "designs": [_design(own) for own in kept],
            "cost": run.cost,
            "gates": run.gates,
            "stamp": run.stamp,
            "files": {
                file.name: hash_file(file)
                for file in (path.with_suffix(kind) for kind in (".csv", ".npz"))
            },
        },
    )
    return path


def by_attribute(own: Audit) -> Audit:
    """The audit without conditions and intersections."""
    wanted = {OVERALL[0], *own.attributes}
    kept = {key: e for key, e in own.estimates.items() if key[0] in wanted}
    return replace(own, estimates=kept)


def _name(own: Audit) -> str:
    return f"{own.metric} {own.features}".strip()


def _rows(own: Audit) -> pd.DataFrame:
    """A row per group, in :data:`COLUMNS`; df lets the interval be made again."""
    df = [estimate.df for estimate in own.estimates.values()]
    return own.by_group.assign(features=own.features, df=df)[list(COLUMNS)]


def _design(own: Audit) -> dict[str, Any]:
    """What turns rows and influence values back into an audit."""
    return {
        "metric": own.metric,
        "features": own.features,
        "attributes": [[name, list(levels)] for name, levels in own.attributes.items()],
        "better": own.design.better,
        "confidence": own.design.confidence,
        "secondary_below": own.design.secondary_below,
        "role": own.design.role,
    }


def read_run(path: Path) -> RecordedRun:
    """A run from its JSON and the two files beside it.

    Raises
    ------
    InputError
        A file is missing or lacks what the JSON names.
    """
    notes = read_json(path)
    missing = [key for key in ("arm", "seed", "identity", "designs", "cost", "gates", "stamp")
               if key not in notes]  # fmt: skip
    if missing:
        raise InputError(f"{path}: no field {missing[0]!r}; remove the run's files to make it anew")
    table = read_table(path.with_suffix(".csv"), COLUMNS, keep_default_na=False)
    for name in ("n", "value", "df"):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    beside = path.with_suffix(".npz")
    if not beside.is_file():
        raise InputError(f"{beside}: missing; expected the influence values of {path.stem}")
    with np.load(beside, allow_pickle=False) as arrays:
        audits = [_audit(one, table, arrays, beside) for one in notes["designs"]]
    return RecordedRun(
        notes["arm"], int(notes["seed"]), notes["identity"], audits, notes["cost"],
        notes["gates"], notes["stamp"],
    )  # fmt: skip


def _audit(notes: Mapping[str, Any], table: pd.DataFrame, arrays: Any, beside: Path) -> Audit:
    own = table[(table["metric"] == notes["metric"]) & (table["features"] == notes["features"])]
    name = f"{notes['metric']} {notes['features']}".strip()
    if name not in arrays or len(arrays[name]) != len(own):
        raise InputError(f"{beside}: expected {len(own)} rows of {name!r}, one per group")
    found = {
        (row.attribute, row.level): Estimate(row.value, influence, int(row.n), row.df, row.note)
        for row, influence in zip(own.itertuples(), arrays[name].astype(np.float64), strict=True)
    }
    design = Design(
        {name: tuple(levels) for name, levels in notes["attributes"]},
        notes["better"],
        notes["confidence"],
        notes["secondary_below"],
        notes["role"],
    )
    return Audit(notes["metric"], found, design, notes["features"])


COMPARABLE = ("data_hash", "base", "encoder", "audit")  # of an identity; equal where runs compare


def refuse_mixed(runs: Sequence[RecordedRun], folder: Path) -> None:
    """InputError unless all runs rest on the same data, base, encoder and audit settings."""
    for name in COMPARABLE:
        values = {run.identity.get(name, ""): run for run in runs}
        if len(values) > 1:
            (first, one), (second, other) = list(values.items())[:2]
            raise InputError(
                f"{folder}: runs of different {name} don't compare: {one.arm} seed {one.seed} "
                f"has {first[:10]}, {other.arm} seed {other.seed} has {second[:10]}; remove the "
                "files of one kind"
            )
