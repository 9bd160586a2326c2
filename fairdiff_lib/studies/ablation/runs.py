"""The ablation study: each run trained, drawn, measured and recorded, once.

Of a run the audit keeps three small files, which are committed: a CSV with its metric rows, an
``.npz`` with the influence values behind them, and, written last, a JSON with what the run was, its
cost and gates. Tables are made from these alone, so a batch that was interrupted loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, labelled
from fairdiff_lib.audit.contrasts import Design
from fairdiff_lib.audit.estimate import OVERALL, Estimate
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import (
    atomic_file,
    hash_file,
    hash_folder,
    locked,
    read_json,
    read_table,
    write_json,
    write_table,
)
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import make_stamp, restore_settings, share_settings
from fairdiff_lib.model.sample import generate, load_generated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.studies.ablation.arms import Arm, is_recorded, names_of, path_of
from fairdiff_lib.studies.quality import Fixed, denoising_losses, fix, run_audits, run_gates
from fairdiff_lib.studies.verdict.protocol import (
    check_declared,
    declare,
    protocol_of,
    write_protocol,
)
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import train

COST = ("seconds", "loop_seconds", "seconds_per_step", "optimiser_share", "measure_share",
        "images_seen", "peak_memory_gib", "peak_gpu_memory_gib", "processes")  # fmt: skip
COLUMNS = ("attribute", "level", "metric", "features", "n", "value", "low", "high", "df", "note")
DESIGN = ("better", "confidence", "secondary_below", "role")  # what is kept of an audit's design
RULES = {
    "unit": "the training seed; runs of one seed share the base, the order, the noise, the prompts",
    "endpoints": "overall KID, and the mean over attributes of the mean squared KID difference "
    "between levels, less its sampling variance",
    "comparisons": "paired by seed, arm minus baseline; Holm over endpoints x comparisons",
    "equivalence": "two one-sided tests against the smallest effect: a share of the baseline's "
    "overall KID, for the squared difference that share squared",
    "Bayesian part": "it matters if the method beats the same method with shuffled scores",
    "other arms": "described, without p; every other row: false discovery rate, exploratory",
}


@dataclass(frozen=True)
class RecordedRun:
    """A run as the audit left it."""

    arm: str  # which run
    seed: int
    # what its numbers depend on: folder names with their digests, hashes of data and base.
    # runs are compared only where these agree, but for the training's own
    identity: dict[str, str]
    audits: list[Audit]  # the primary metric first; overall and by level of every attribute
    # as the training's run.json: seconds, peak memory, the optimiser's share, images seen
    cost: dict[str, Any]
    gates: list[dict[str, Any]]  # as ``gates.gates`` gave them, a dict per gate
    stamp: dict[str, Any]  # of the run that measured

    @property
    def key(self) -> tuple[str, int]:
        return self.arm, self.seed


# -- what is fixed beforehand ----------------------------------------------------------------


def declaration(study: Study) -> dict[str, Any]:
    """What will be compared, by which rule: JSON-ready, the same for equal settings."""
    settings, rule = study.settings, protocol_of(study)
    content = {
        "dataset": settings.dataset,
        "ablation": asdict(settings.ablation),
        "arms": [
            {"name": arm.name, "method": arm.method, "role": arm.role, "against": arm.against,
             "options": dict(arm.options)}
            for arm in arms.arms_of(settings)
        ],
        "declared": arms.declared_comparisons(settings),
        "metric": rule.metric,
        "features_digest": rule.features_digest,
        "smallest_blur": rule.smallest_blur,
        "confidence": rule.confidence,
        "rules": RULES,
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def declaration_path(places: Places) -> Path:
    return places.ablation / "protocol.json"


def write_declaration(study: Study) -> Path:
    """Declare what the ablation compares; runs that were measured under another forbid it."""
    path = declaration_path(study.places)
    before = not any((study.places.ablation / "runs").glob("*.json"))
    return declare(path, declaration(study), study, before=before, frozen=True)


def check_declaration(study: Study) -> bool:
    """Whether it was written before any run was measured; see ``protocol.check_declared``."""
    wanted = "it is written before the first run is measured (`fairdiff run --study ablation`)"
    found = check_declared(declaration_path(study.places), declaration(study), wanted)
    return bool(found["before"])


# -- one run ---------------------------------------------------------------------------------


def make_run(study: Study, arm: Arm, seed: int) -> Path:
    """Train, draw, measure and record a run of the study's arm, or find it again; its JSON."""
    if is_recorded(study, arm, seed):
        return path_of(study.places, arm, seed)
    with locked(study.places.base.parent / "ablation.lock"):  # the base is made once
        write_protocol(study)  # it has X
        write_declaration(study)
        train(study, "base", 0)
        fixed = fix(study)
    return measure_run(study, fixed, arm, seed)


def measure_run(study: Study, fixed: Fixed, arm: Arm, seed: int) -> Path:
    """Train and draw what is missing of a run, measure it against the real side, record it."""
    cohort, own = study.cohort, arms.study_of(study, arm)
    for source, other in arms.sources_of(study.settings, arm, seed):
        train(own, source, other)
    history, cost = train(own, arm.method, seed)
    test = cohort.included().split("test").table
    generate(own, test["image"].tolist(), test["prompt"].tolist(), arm.method, seed, "test")
    images = load_generated(own.places.generated(arm.method, seed), "test")
    made = [space.of(images) for space in fixed.spaces]
    labels = {"dataset": study.settings.dataset, "method": arm.name, "seed": seed}
    gates = run_gates(fixed, images, made[0], labels)
    stamp = make_stamp(own.settings, cohort.data_hash, {"arm": arm.name, "seed": seed})
    proposed = history[history["quantity"] == "acquisition"]["value"].astype(np.float64)
    run = RecordedRun(
        arm.name,
        seed,
        names_of(study, arm, seed)
        | {
            "data_hash": cohort.data_hash,
            "base": _hash_weights(study.places.base / "pipeline"),
            "features": ", ".join(space.extractor.identity for space in fixed.spaces),
        },
        run_audits(fixed, made, denoising_losses(fixed, own, arm.method, seed)),
        {name: cost.get(name) for name in COST}
        | {"noise_variance": _dose(history, cohort), "proposals": int(np.isfinite(proposed).sum())},
        json.loads(gates.to_json(orient="records")),
        stamp | {"trained": _trained(cost)},
    )
    return write_run(path_of(study.places, arm, seed), run, study.settings.simulated)


def _trained(facts: dict[str, Any]) -> dict[str, Any]:
    """Where and from what a run was trained: its measuring may be another day's, at other code."""
    kept = {key: facts["stamp"][key] for key in ("commit", "dirty", "hardware")}
    return kept | {"rests_on": facts["rests_on"]}


def _hash_weights(folder: Path) -> str:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))
    return hash_folder(folder, files)


def _dose(history: pd.DataFrame, cohort: Cohort) -> float | None:
    """Mean over the steps of the weights' variance before any clamp: sum_a of the mean sigma_a^2.

    Levels count by their share of the training rows. None for a method without sigma.
    """
    own = history[history["quantity"] == "sigma"]
    if own.empty:
        return None
    squares = own.assign(value=own["value"] ** 2).groupby(["attribute", "level"])["value"].mean()
    train = cohort.included().split("train").table
    parts = [
        float((train[name].map(squares.xs(name, level="attribute"))).mean())
        for name in squares.index.get_level_values("attribute").unique()
    ]
    return round(float(np.sum(parts)), 6)


def core_runs(study: Study) -> list[tuple[str, Path]]:
    """(arm, folder) of the core arms' runs of ``other_seeds``; a missing one is trained."""
    named = []
    for arm in (arm for arm in arms.arms_of(study.settings) if arm.role == arms.CORE):
        own = arms.study_of(study, arm)
        for seed in study.settings.ablation.other_seeds:
            train(own, arm.method, seed)
            named.append((arm.name, own.places.run(arm.method, seed)))
    return named


# -- all runs --------------------------------------------------------------------------------


def read_runs(study: Study) -> list[RecordedRun]:
    """Every run of the study, from what was recorded."""
    folder, wanted = study.places.ablation / "runs", arms.runs_of(study.settings)
    missing = [
        f"{arm.name} seed {seed}" for arm, seed in wanted if not is_recorded(study, arm, seed)
    ]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(wanted)} runs are not recorded under these "
            f"settings, as {', '.join(missing[:3])}; `fairdiff run --study ablation` makes them"
        )
    runs = [read_run(path_of(study.places, arm, seed)) for arm, seed in wanted]
    refuse_mixed(runs, folder)
    if runs[0].identity["data_hash"] != study.cohort.data_hash:
        raise InputError(f"{folder}: runs of other data than {study.cohort.root}; remove them")
    return runs


# -- what is kept of a run ------------------------------------------------------------------


def write_run(path: Path, run: RecordedRun, simulated: bool) -> Path:
    """Write a run's three files, the JSON (``path``) last."""
    kept = [by_attribute(own) for own in run.audits]
    labels = {"arm": run.arm, "seed": run.seed}
    parts = [  # df lets the interval be made again
        own.by_group.assign(features=own.features, df=[one.df for one in own.estimates.values()])
        for own in kept
    ]
    rows = pd.concat(parts, ignore_index=True)[list(COLUMNS)]
    csv, npz = path.with_suffix(".csv"), path.with_suffix(".npz")
    write_table(labelled(rows, labels), csv)
    arrays: dict[str, Any] = {  # Any: the stubs take every keyword for an option
        f"{own.metric} {own.features}".strip(): np.stack(
            [e.influence for e in own.estimates.values()]
        ).astype(np.float32)
        for own in kept
    }
    with atomic_file(npz) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    stamp, settings = share_settings(run.stamp, path.parent.parent)  # here lie records alone
    notes = {
        **labels,
        "simulated": simulated,
        "identity": run.identity,
        "designs": [_design(own) for own in kept],
        **{"cost": run.cost, "gates": run.gates, "stamp": stamp},
        "files": {file.name: hash_file(file) for file in (csv, npz)}
        | {f"../{file.name}": hash_file(file) for file in settings},
    }
    write_json(path, notes)
    return path


def by_attribute(own: Audit) -> Audit:
    """The audit without conditions and intersections."""
    wanted = {OVERALL[0], *own.attributes}
    kept = {key: e for key, e in own.estimates.items() if key[0] in wanted}
    return replace(own, estimates=kept)


def _design(own: Audit) -> dict[str, Any]:
    """What turns rows and influence values back into an audit."""
    levels = [[name, list(levels)] for name, levels in own.attributes.items()]
    head = {"metric": own.metric, "features": own.features, "attributes": levels}
    return {**head, **{name: getattr(own.design, name) for name in DESIGN}}


def read_run(path: Path) -> RecordedRun:
    """A run from its JSON and the two files beside it."""
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
        notes["gates"], restore_settings(notes["stamp"], path.parent.parent),
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
    levels = {name: tuple(levels) for name, levels in notes["attributes"]}
    design = Design(levels, *(notes[name] for name in DESIGN))
    return Audit(notes["metric"], found, design, notes["features"])


COMPARABLE = ("data_hash", "base", "features", "audit")  # of an identity; equal where runs compare


def refuse_mixed(runs: Sequence[RecordedRun], folder: Path) -> None:
    """InputError unless all runs rest on the same data, base, features and audit settings."""
    for name in COMPARABLE:
        values = {run.identity.get(name, ""): run for run in runs}
        if len(values) > 1:
            (first, one), (second, other) = list(values.items())[:2]
            raise InputError(
                f"{folder}: runs of different {name} don't compare: {one.arm} seed {one.seed} "
                f"has {first[:10]}, {other.arm} seed {other.seed} has {second[:10]}; remove the "
                "files of one kind"
            )
