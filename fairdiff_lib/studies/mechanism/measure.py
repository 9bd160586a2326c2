"""The mechanism of named runs in one call: histories, surrogate, and probes of their base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.places import Places
from fairdiff_lib.methods.controls import FixedSigma
from fairdiff_lib.methods.groups import Attributes
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.mechanism.gradients import Probe, ProbeSizes
from fairdiff_lib.studies.mechanism.history import MeasuredRun, history_table, read_runs
from fairdiff_lib.studies.mechanism.surrogate import SHUFFLES, SLICE_COLUMNS, slices
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import load_base, method_objective

BASE = "base"  # what tables call the checkpoint that every run starts from


@dataclass(frozen=True)
class Mechanism:
    """What was measured.

    Attributes
    ----------
    table : DataFrame
        ``mechanism.COLUMNS``; rows of method "base" are of the checkpoint that the runs share.
    slices : DataFrame
        dataset, method, seed and ``surrogate.SLICE_COLUMNS``: the first run of each label whose
        optimiser was told anything, all windows together.
    cosines : DataFrame
        See ``probes.Probes``.
    """

    table: pd.DataFrame
    slices: pd.DataFrame
    cosines: pd.DataFrame


def measure_mechanism(
    named: Sequence[tuple[str, Path]],
    settings: Settings,
    layout: Places,
    cohort: Cohort,
    sizes: ProbeSizes | None = None,
    shuffles: int = SHUFFLES,
) -> Mechanism:
    """What the named runs did, and what their base's loss and gradients say.

    Parameters
    ----------
    named : sequence of (label, folder)
        Finished runs that started from ``layout.base``: a study's methods or an ablation's arms.
        Runs of one label differ by seed.
    settings : Settings
        For the batch size, and the confidence of intervals.
    layout : Places
    cohort : Cohort
        With all splits; only training rows are used.
    sizes : ProbeSizes, optional
    shuffles : int
        Of the scores; see ``surrogate.fit_quality``.

    Raises
    ------
    InputError
        A run that isn't finished, or a base of other data.
    """
    train = cohort.included().split("train")
    attributes = {a.name: a.levels for a in cohort.spec.attributes}
    confidence, dataset = settings.audit.confidence, settings.dataset
    runs = read_runs(named)
    study = Study(settings, layout)
    pipeline = load_base(study)
    probe = Probe(
        method_objective(study, pipeline, settings.training.prompt_dropout),
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
    table = pd.concat(parts, ignore_index=True)
    return Mechanism(table, _first_slices(runs, attributes, dataset, confidence), found.cosines)


def _first(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """The first run of each label."""
    return list({run.label: run for run in reversed(runs)}.values())[::-1]


def _mean_doses(
    runs: Sequence[MeasuredRun], attributes: Attributes, train: Cohort, seed: int
) -> dict[str, FixedSigma]:
    """By label, the run's own weights with sigma held at its mean over the steps."""
    doses = {}
    for run in _first(runs):
        path = run.path(attributes)
        if path is not None:
            doses[run.label] = FixedSigma(run.config, attributes, seed).hold(path.mean(dim=0))
            doses[run.label].prepare(None, train)
    return doses


def _first_slices(
    runs: Sequence[MeasuredRun], attributes: Attributes, dataset: str, confidence: float
) -> pd.DataFrame:
    parts = []
    for run in _first([run for run in runs if run.told(attributes) is not None]):
        pairs = run.told(attributes)
        if pairs is not None and len(pairs) > 1:
            own = slices(
                pairs,
                attributes,
                run.config.noise_model,
                bounds=(run.config.sigma_low, run.config.sigma_high),
                confidence=confidence,
            )
            parts.append(own.assign(dataset=dataset, method=run.label, seed=run.seed))
    columns = ["dataset", "method", "seed", *SLICE_COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


# -- short tables for the notebook -----------------------------------------------------------

RUN_QUANTITIES = (
    "negative_weights",
    "negative_weights_theory",
    "clipped_spans",
    "clip_factor",
    "drift_ratio",
    "perturbed_cosine",
    "perturbed_norm",
)


GAP_QUANTITIES = (
    "gap_mean",
    "gap_pooled",
    "gap_from_timesteps",
    "explained_timesteps",
    "explained_groups",
    "explained_both",
    "explained_absent",
)


def about_score(table: pd.DataFrame) -> pd.DataFrame:
    """The batch gap and what explains it: quantity, value, low, high, note."""
    own = table["quantity"].isin(GAP_QUANTITIES)
    return table.loc[own, ["quantity", "value", "low", "high", "note"]]


def about_weights(table: pd.DataFrame) -> pd.DataFrame:
    """A row per run and a column per quantity of its whole batches; NaN where it has none."""
    own = table[table["quantity"].isin(RUN_QUANTITIES)]
    wide = own.pivot_table(index=["method", "seed"], columns="quantity", values="value", sort=False)
    shown = [name for name in RUN_QUANTITIES if name in wide]
    return wide[shown].reset_index()


def mechanism_scalars(table: pd.DataFrame) -> dict[str, float]:
    """What 06 records of it: surrogates by run, and what explains the batch gap."""
    wanted = ("surrogate_r2", "surrogate_p", "drift_ratio")
    own = table[table["quantity"].isin(wanted)]
    names = own["method"].astype(str) + "_seed" + own["seed"].astype(str) + "_" + own["quantity"]
    gap = table[table["quantity"].isin(GAP_QUANTITIES)]
    keys = [*names.tolist(), *gap["quantity"].tolist()]
    return dict(zip(keys, [*own["value"].tolist(), *gap["value"].tolist()], strict=True))
