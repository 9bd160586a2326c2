"""06: what the optimiser did in finished runs, and what their base's loss and gradients say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fairdiff_lib.methods.controls import FixedSigma
from fairdiff_lib.methods.groups import Attributes
from fairdiff_lib.methods.optimiser import fit_process as fit_process
from fairdiff_lib.methods.optimiser import quiet as quiet
from fairdiff_lib.studies.mechanism.dose import Dose, effects, run_cells
from fairdiff_lib.studies.mechanism.gradients import Probe, ProbeSizes
from fairdiff_lib.studies.mechanism.history import (
    SHUFFLES,
    MeasuredRun,
    Told,
    Window,
    history_table,
    read_runs,
    slices,
)
from fairdiff_lib.studies.mechanism.history import optimiser_window as optimiser_window
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import load_base, method_objective

BASE = "base"  # what tables call the checkpoint that every run starts from
Named = Sequence[tuple[str, Path]]  # label and folder of finished runs; one label's differ by seed


@dataclass(frozen=True)
class Mechanism:
    """What was measured."""

    # tab_optimiser: dataset, method, seed, steps, seconds_per_step, optimiser_share, proposals,
    # final_loss, peak_memory_gib
    runs: pd.DataFrame
    path: pd.DataFrame  # history of the first seed, for F4
    # tab_mechanism, in ``history.COLUMNS``; rows of method "base" are of the checkpoint that the
    # runs share
    table: pd.DataFrame
    cosines: pd.DataFrame  # of the levels' gradients; see ``gradients.Probes``

    def scalars(self) -> dict[str, float]:
        """What 06 records: cost and surrogate by run, and what explains the batch gap."""
        found = {
            f"{row['method']}_seed{row['seed']}_{name}": row[name]
            for row in self.runs.to_dict("records")
            for name in ("proposals", "optimiser_share", "final_loss")
        }
        for row in self.table.to_dict("records"):
            if row["quantity"] in ("surrogate_r2", "surrogate_p", "drift_ratio"):
                found[f"{row['method']}_seed{row['seed']}_{row['quantity']}"] = row["value"]
            elif row["quantity"].startswith(("gap_", "explained_")):
                found[row["quantity"]] = row["value"]
        return found


def measure_mechanism(
    study: Study,
    named: Named | None = None,
    sizes: ProbeSizes | None = None,
    shuffles: int = SHUFFLES,
) -> Mechanism:
    """What the named runs did, and what their base's loss and gradients say; training rows only.

    Parameters
    ----------
    study : Study
    named : sequence of (label, folder), optional
        Finished runs that started from ``places.base``; those of the study's methods without it.
    sizes : ProbeSizes, optional
    shuffles : int
        Of the scores; see ``history.fit_quality``.

    Raises
    ------
    InputError
        A run that isn't finished, or a base of other data.
    """
    settings, train = study.settings, study.cohort.included().split("train")
    attributes, dataset = study.cohort.attribute_levels, settings.dataset
    confidence = settings.audit.confidence
    if named is None:
        named = [(method, study.places.run(method, seed)) for method, seed in settings.runs]
    runs = read_runs(named)
    pipeline = load_base(study)
    probe = Probe(
        method_objective(study, pipeline),
        train.table["image"].tolist(),
        torch.as_tensor(train.codes()),
        attributes,
        settings.training.batch,
        sizes or ProbeSizes(),
    )
    doses = _mean_doses(runs, attributes, train, probe.sizes.seed)
    found = probe.measure(dataset, BASE, doses, confidence)
    told = history_table(runs, attributes, train.codes(), dataset, shuffles, confidence)
    parts = [part for part in (told, found.rows) if len(part)]
    return Mechanism(
        pd.DataFrame([_cost(run, dataset) for run in runs]),
        _first_seed(runs, dataset),
        pd.concat(parts, ignore_index=True),
        found.cosines,
    )


def _cost(run: MeasuredRun, dataset: str) -> dict[str, Any]:
    return {
        **{"dataset": dataset, "method": run.label, "seed": run.seed},
        "steps": int(run.history["step"].max()),
        **{name: run.facts[name] for name in ("seconds_per_step", "optimiser_share")},
        "proposals": int(np.isfinite(run.whole("acquisition")).sum()),
        "final_loss": float(run.whole("loss").iloc[-1]),
        "peak_memory_gib": run.facts["peak_memory_gib"],
    }


def _first_seed(runs: Sequence[MeasuredRun], dataset: str) -> pd.DataFrame:
    """Histories of the first seed; of an ablation's arms those of a usual study."""
    usual = [run for run in runs if run.label in ("none", "random", "fairdiffusion")] or runs
    parts = [run.history.assign(method=run.label, dataset=dataset) for run in usual]
    history = pd.concat(parts, ignore_index=True)
    first: pd.DataFrame = history[history["seed"] == history["seed"].iloc[0]]
    return first


def _mean_doses(
    runs: Sequence[MeasuredRun], attributes: Attributes, train: Any, seed: int
) -> dict[str, FixedSigma]:
    """By label, the first run's own weights with sigma held at its mean over the steps."""
    doses = {}
    first = {run.label: run for run in reversed(runs)}
    for label, run in reversed(first.items()):
        path = run.path(attributes)
        if path is not None:
            doses[label] = FixedSigma(run.config, attributes, seed).hold(path.mean(dim=0))
            doses[label].prepare(None, train)
    return doses


def window_slices(study: Study, window: Window) -> pd.DataFrame:
    """The surrogate of one window along each level's sigma; see ``history.slices``."""
    pairs = Told(window.tried, window.scores, torch.zeros(len(window.scores), dtype=torch.int64))
    return slices(pairs, study.cohort.attribute_levels, window.config.noise_model)


def dose_response(study: Study, dose: Dose | None = None) -> pd.DataFrame:
    """What raising one level's sigma changes: fine-tunes the base a little at chosen sigmas."""
    cells = run_cells(study, dose or Dose())
    return effects(cells, study.settings.dataset, study.settings.audit.confidence)
