"""The ablation study: each run trained, drawn, measured and recorded, once.

What an arm is stands in :mod:`arms`, what is kept of a run in :mod:`recorded`, how runs are
compared in :mod:`comparisons`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import hash_folder, locked
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import make_stamp
from fairdiff_lib.model.sample import generate, load_generated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.studies.ablation.arms import Arm, is_recorded, names_of, path_of
from fairdiff_lib.studies.ablation.recorded import RecordedRun, read_run, refuse_mixed, write_run
from fairdiff_lib.studies.quality import Fixed, denoising_losses, fix, run_audits, run_gates
from fairdiff_lib.studies.verdict.protocol import check_declared, declare, protocol_of
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import train

COST = ("seconds", "loop_seconds", "seconds_per_step", "optimiser_share", "measure_share",
        "images_seen", "peak_memory_gib", "peak_gpu_memory_gib", "processes")  # fmt: skip
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
        "smallest_effect": rule.smallest_effect,
        "confidence": rule.confidence,
        "rules": RULES,
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def declaration_path(places: Places) -> Path:
    """Where the ablation study's declaration lies."""
    return places.ablation / "protocol.json"


def write_declaration(study: Study) -> Path:
    """Declare what the ablation compares; runs that were measured under another forbid it."""
    path = declaration_path(study.places)
    before = not any((study.places.ablation / "runs").glob("*.json"))
    return declare(path, declaration(study), study, before=before, frozen=True)


def check_declaration(study: Study) -> bool:
    """Whether it was written before any run was measured; see ``protocol.check_declared``."""
    wanted = "it is written before the first run is measured (`fairdiff run --study ablation`)"
    return check_declared(declaration_path(study.places), declaration(study), wanted)


# -- one run ---------------------------------------------------------------------------------


def make_run(settings: Settings, layout: Places, cohort: Cohort, arm: Arm, seed: int) -> Path:
    """Train, draw, measure and record a run, or find it again.

    Parameters
    ----------
    settings, layout
        Of the study, not of the arm.
    cohort : Cohort
    arm : Arm
    seed : int

    Returns
    -------
    Path
        The run's JSON.
    """
    path = path_of(layout, arm, seed)
    if is_recorded(settings, layout, arm, seed):
        return path
    with locked(layout.base.parent / "ablation.lock"):  # the base and the encoder are made once
        study = Study(settings, layout)
        write_declaration(study)
        train(study, "base", 0)
        fixed = fix(study)
    return measure_run(settings, layout, fixed, arm, seed)


def measure_run(settings: Settings, layout: Places, fixed: Fixed, arm: Arm, seed: int) -> Path:
    """Train and draw what is missing of a run, measure it, and record it.

    Parameters
    ----------
    fixed : Fixed
        The real side, the same for all runs: from ``quality.fix``.
    settings, layout, arm, seed
        As for :func:`make_run`.
    """
    cohort, own = fixed.study.cohort, arms.settings_of(settings, arm)
    place = replace(layout, settings=own)
    study = Study(own, place)
    for source, other in arms.sources_of(settings, arm, seed):
        train(study, source, other)
    history, cost = train(study, arm.method, seed)
    test = cohort.included().split("test").table
    names, prompts = test["image"].tolist(), test["prompt"].tolist()
    generate(study, names, prompts, arm.method, seed, "test")
    images = load_generated(place.generated(arm.method, seed), "test")
    made = [space.of(images) for space in fixed.spaces]
    labels = {"dataset": settings.dataset, "method": arm.name, "seed": seed}
    gates = run_gates(fixed, images, made[0], labels)
    stamp = make_stamp(own, cohort.data_hash, {"arm": arm.name, "seed": seed})
    run = RecordedRun(
        arm.name,
        seed,
        _identity(settings, layout, cohort, arm, seed),
        run_audits(fixed, made, denoising_losses(fixed, study, arm.method, seed)),
        {name: cost.get(name) for name in COST} | _dose(history, cohort) | _timing(history),
        json.loads(gates.to_json(orient="records")),
        stamp | {"trained_at": cost["stamp"]["commit"]},
    )
    return write_run(path_of(layout, arm, seed), run, settings.simulated)


def _identity(
    settings: Settings, layout: Places, cohort: Cohort, arm: Arm, seed: int
) -> dict[str, str]:
    """The names, and hashes of what has no settings: data, base, encoder."""
    return names_of(settings, layout, arm, seed) | {
        "data_hash": cohort.data_hash,
        "base": _hash_weights(layout.base / "pipeline"),
        "encoder": _hash_weights(layout.features / "encoder"),
    }


def _hash_weights(folder: Path) -> str:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))
    return hash_folder(folder, files)


def _dose(history: pd.DataFrame, cohort: Cohort) -> dict[str, float | None]:
    """Mean over the steps of the weights' variance before any clamp: sum_a of the mean sigma_a^2.

    Levels count by their share of the training rows. None for a method without sigma.
    """
    own = history[history["quantity"] == "sigma"]
    if own.empty:
        return {"noise_variance": None}
    squares = own.assign(value=own["value"] ** 2).groupby(["attribute", "level"])["value"].mean()
    train = cohort.included().split("train").table
    parts = [
        float((train[name].map(squares.xs(name, level="attribute"))).mean())
        for name in squares.index.get_level_values("attribute").unique()
    ]
    return {"noise_variance": round(float(np.sum(parts)), 6)}


def _timing(history: pd.DataFrame) -> dict[str, int]:
    """How often the optimiser proposed a sigma."""
    proposed = history[history["quantity"] == "acquisition"]["value"]
    return {"proposals": int(np.isfinite(proposed.astype(np.float64)).sum())}


def core_runs(settings: Settings, layout: Places, cohort: Cohort) -> list[tuple[str, Path]]:
    """(arm, folder) of the core arms' runs of ``ablation.other_seeds``; a missing one is trained.

    Enough seeds for what is described of their histories, not compared.
    """
    core = [arm for arm in arms.arms_of(settings) if arm.role == arms.CORE]
    named = []
    for arm in core:
        own = arms.settings_of(settings, arm)
        place = replace(layout, settings=own)
        for seed in settings.ablation.other_seeds:
            train(Study(own, place), arm.method, seed)
            named.append((arm.name, place.run(arm.method, seed)))
    return named


# -- all runs --------------------------------------------------------------------------------


def read_runs(settings: Settings, layout: Places, cohort: Cohort) -> list[RecordedRun]:
    """Every run of the study, from what was recorded.

    Raises
    ------
    InputError
        A run is missing or was made under other settings; runs rest on different data, base or
        encoder.
    """
    folder = layout.ablation / "runs"
    wanted = arms.runs_of(settings)
    missing = [
        f"{arm.name} seed {seed}"
        for arm, seed in wanted
        if not is_recorded(settings, layout, arm, seed)
    ]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(wanted)} runs are not recorded under these "
            f"settings, as {', '.join(missing[:3])}; `fairdiff run --study ablation` makes them"
        )
    runs = [read_run(path_of(layout, arm, seed)) for arm, seed in wanted]
    refuse_mixed(runs, folder)
    if runs[0].identity["data_hash"] != cohort.data_hash:
        raise InputError(f"{folder}: runs of other data than {cohort.root}; remove them")
    return runs
