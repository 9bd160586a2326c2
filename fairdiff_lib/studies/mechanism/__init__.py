"""06: what the optimiser did in finished runs, and what their base's loss and gradients say.

Dose and response: fine-tune the base a little at chosen sigmas, and see what moves. Every level's
sigma is either low or high, by a two-level fractional factorial design, so that a few runs tell the
levels' effects apart. A finished cell (design point, seed, reweighting) is one CSV file in the runs
folder and is found again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import statsmodels.api as sm
import torch
from pydantic import model_validator
from scipy.linalg import hadamard
from torch import Tensor
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import read_table, write_table
from fairdiff_lib.methods.controls import FixedSigma
from fairdiff_lib.methods.groups import Attributes, group_means, level_counts, summed_gap
from fairdiff_lib.methods.optimiser import fit_process as fit_process
from fairdiff_lib.methods.optimiser import quiet as quiet
from fairdiff_lib.methods.perturbation import HeldOut
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import (
    Count,
    Distinct,
    MitigationConfig,
    Share,
    Whole,
    as_dict,
    options,
)
from fairdiff_lib.studies.mechanism.gradients import Probe, ProbeSizes
from fairdiff_lib.studies.mechanism.history import (
    MeasuredRun,
    Told,
    Window,
    history_table,
    read_run,
    slices,
)
from fairdiff_lib.studies.mechanism.history import optimiser_window as optimiser_window
from fairdiff_lib.study import Study
from fairdiff_lib.train.loop import fit
from fairdiff_lib.train.runs import load_base, method_objective

BASE = "base"  # what tables call the checkpoint that every run starts from


@dataclass(frozen=True)
class Mechanism:
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


def measure_mechanism(study: Study, ablation: bool = False) -> Mechanism:
    """What runs did, what their base's loss and gradients say; training rows only.

    Runs that started from ``places.base``: of the study's methods, or the ablation's core arms,
    trained where they are missing.
    """
    from fairdiff_lib.studies.ablation.runs import core_runs  # which one study in two needs

    settings, train = study.settings, study.cohort.included().split("train")
    attributes, dataset = study.cohort.attribute_levels, settings.dataset
    confidence = settings.audit.confidence
    own = [(method, study.places.run(method, seed)) for method, seed in settings.runs]
    runs = [read_run(*one) for one in (core_runs(study) if ablation else own)]
    pipeline = load_base(study, 0)
    probe = Probe(
        method_objective(study, pipeline), train.table["image"].tolist(),
        torch.as_tensor(train.codes()), attributes, settings.training.batch, ProbeSizes(),
    )  # fmt: skip
    doses = _mean_doses(runs, attributes, train, probe.sizes.seed)
    found = probe.measure(dataset, BASE, doses, confidence)
    told = history_table(runs, attributes, train.codes(), dataset, confidence=confidence)
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


# -- dose and response ------------------------------------------------------------------------

CELL_COLUMNS = (
    "reweighting", "point", "seed", "steps", "attribute", "level", "n", "sigma", "loss", "gap",
)  # fmt: skip
EFFECT_COLUMNS = (
    "dataset", "reweighting", "outcome", "attribute", "level", "n", "value", "low", "high",
    "note",
)  # fmt: skip


@options
class Dose:
    """What is tried; the defaults take about five minutes of one core on the quick preset."""

    low: Share = 0.1  # sigma; inside its bounds, where the optimiser may move
    high: Share = 0.9
    steps: Count = 30  # of fine-tuning: one released window
    seeds: Distinct[Whole] = (0, 1)  # of order, timesteps and noise
    reweightings: Distinct[Literal["noise", "mean"]] = ("noise", "mean")
    held_out_rows: Count = 96  # validation rows, rare levels first
    held_out_timesteps: Distinct[Whole] = (100, 300, 500, 700, 900)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low}: expected less than high={self.high}")
        return self


def dose_response(study: Study) -> pd.DataFrame:
    """What raising one level's sigma changes: fine-tunes the base a little at chosen sigmas."""
    cells = run_cells(study, Dose())
    return effects(cells, study.settings.dataset, study.settings.audit.confidence)


@dataclass(frozen=True)
class Cell:
    reweighting: Literal["noise", "mean"]
    point: int  # of the design
    seed: int

    @property
    def file(self) -> str:
        return f"{self.reweighting}-point{self.point}-seed{self.seed}.csv"


def design(factors: int) -> np.ndarray:  # int64 [runs, factors]: -1 = low, 1 = high
    """Two-level fractional factorial design of resolution III or better, balanced and orthogonal.

    Columns of the Sylvester-Hadamard matrix of the smallest order above ``factors``: first the
    basic factors, then their products, longest first (8 runs hold 4 factors at resolution IV and 7
    at III, where a main effect can't be told from interactions of two other factors).
    """
    if factors < 1:
        raise InputError(f"a design of {factors} factors: expected at least 1")
    order = 2 ** factors.bit_length()  # more than `factors`, for the column of the mean
    # basic factors (powers of two) first, then the products of most of them
    words = sorted(range(1, order), key=lambda x: (-x.bit_count() if x.bit_count() > 1 else -99, x))
    # + 1 everywhere in the first row: turned, so that the first point is low throughout
    chosen: np.ndarray = -hadamard(order)[:, words[:factors]].astype(np.int64)
    return chosen


def sigmas(dose: Dose, attributes: Attributes) -> Tensor:
    """Sigma of each design point, float64 [points, G]."""
    signs = torch.as_tensor(design(sum(len(levels) for levels in attributes.values())))
    return dose.low + (dose.high - dose.low) * (signs.double() + 1.0) / 2.0


def cells(dose: Dose, attributes: Attributes) -> list[Cell]:
    """Every cell; seeds are outermost, so that an interrupted study is balanced."""
    points = range(len(sigmas(dose, attributes)))
    return [Cell(*own, seed) for seed in dose.seeds for own in product(dose.reweightings, points)]


def run_cells(study: Study, dose: Dose) -> pd.DataFrame:
    """Run every cell that isn't there yet: the first steps of a run; no test row is used.

    In :data:`CELL_COLUMNS`: a row per level with its sigma, its held-out loss and rows, and a row
    of attribute "overall" with the mean loss and the gap (largest minus smallest level, summed over
    attributes).
    """
    folder = study.places.dose(_digest(dose, study.cohort.data_hash))
    found = []
    todo = cells(dose, study.cohort.attribute_levels)
    for cell in tqdm(todo, desc="dose-response cells", disable=None):
        path = folder / cell.file
        if not path.is_file():
            write_table(_run_cell(study, dose, cell), path)
        found.append(read_table(path, CELL_COLUMNS, dtype={"attribute": str, "level": str}))
    return pd.concat(found, ignore_index=True)


def _digest(dose: Dose, data_hash: str) -> str:
    """Of what a cell depends on besides the study's own settings and what names it."""
    own = {k: v for k, v in as_dict(dose).items() if k not in ("seeds", "reweightings")}
    text = json.dumps([own, data_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _run_cell(study: Study, dose: Dose, cell: Cell) -> pd.DataFrame:
    """Fine-tune the base at one sigma and measure the raw weights on validation rows."""
    kept, settings = study.cohort.included(), study.settings
    train, attributes = kept.split("train"), kept.attribute_levels
    pipeline = load_base(study, 0)
    config = MitigationConfig(
        reweighting=cell.reweighting, mean_range=settings.mitigation.mean_range, drift="corrected",
        held_out_rows=dose.held_out_rows, held_out_timesteps=dose.held_out_timesteps,
    )  # fmt: skip
    sigma = sigmas(dose, attributes)[cell.point]
    mitigation = FixedSigma(config, attributes, cell.seed).hold(sigma)
    mitigation.prepare(pipeline, kept.take((kept.table["split"] != "test").to_numpy(dtype=bool)))
    held_out = HeldOut(pipeline, kept, attributes, config, seed=0)  # the same rows for every cell
    loop = dataclasses.replace(settings.training, steps=dose.steps, ema_decay=0.0)
    fit(
        method_objective(study, pipeline), loop, count=len(train), seed=cell.seed,
        levels=train.codes(), method=mitigation,
        label=f"{cell.reweighting}, point {cell.point}, seed {cell.seed}",
    )  # fmt: skip
    return _measured(held_out, sigma, attributes, cell, dose.steps)


def _measured(
    held_out: HeldOut, sigma: Tensor, attributes: Attributes, cell: Cell, steps: int
) -> pd.DataFrame:
    losses, levels = held_out.losses(), held_out.levels
    means = group_means(losses, levels, attributes)
    whole = (len(losses), float(sigma.mean()), float(losses.mean()), -summed_gap(means))
    names = [(name, level) for name, own in attributes.items() for level in own]
    counts = level_counts(levels, [len(own) for own in means]).int().tolist()
    columns = (names, counts, sigma.tolist(), torch.cat(means).tolist())
    rows = [("overall", "all", *whole)]
    rows += [(*name, n, dose, loss, np.nan) for name, n, dose, loss in zip(*columns, strict=True)]
    table = pd.DataFrame(rows, columns=list(CELL_COLUMNS[4:]))
    return table.assign(**dataclasses.asdict(cell), steps=steps)[list(CELL_COLUMNS)]


def effects(table: pd.DataFrame, dataset: str, confidence: float = 0.95) -> pd.DataFrame:
    """What raising one level's sigma from low to high changes, in :data:`EFFECT_COLUMNS`.

    Ordinary least squares on all levels' sigmas with the seed as a block, for each reweighting and
    outcome: the level's own held-out loss, the mean loss, and the gap. The t-intervals are many and
    not adjusted; n is the number of cells.
    """
    rows = []
    for reweighting, part in table.groupby("reweighting", sort=False):
        for outcome, level, model, place in _fits(part):
            low, high, note = np.nan, np.nan, "as many coefficients as cells: no interval"
            if model.df_resid > 0:
                (low, high), note = model.conf_int(1.0 - confidence)[place], ""
            value, n = float(model.params[place]), int(model.nobs)
            ends = (value, float(low), float(high), note)
            rows.append((dataset, reweighting, outcome, *level, n, *ends))
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


def _fits(part: pd.DataFrame) -> Iterator[tuple[str, tuple[str, str], Any, int]]:
    """Outcome, level, the model that holds its effect (one per outcome), and where in it."""
    keys = ["point", "seed"]
    overall = part[part["attribute"] == "overall"].set_index(keys)
    own = part[part["attribute"] != "overall"]
    signs = own.pivot(index=keys, columns=["attribute", "level"], values="sigma")
    middle = (signs.max() + signs.min()) / 2.0
    coded = (signs > middle).astype(np.float64)  # 0 = low, 1 = high: a coefficient is the effect
    losses = own.pivot(index=keys, columns=["attribute", "level"], values="loss")
    names = list(dict.fromkeys(zip(own["attribute"], own["level"], strict=True)))
    block = pd.get_dummies(coded.index.get_level_values("seed")).to_numpy(dtype=np.float64)
    exog = np.hstack([coded[names].to_numpy(), block])  # the blocks' means are the constant
    mean, gap = (
        sm.OLS(overall.loc[coded.index, x].to_numpy(), exog).fit() for x in ("loss", "gap")
    )
    for place, level in enumerate(names):
        alone = sm.OLS(losses[level].to_numpy(), exog).fit()
        for outcome, fitted in (("own_loss", alone), ("overall_loss", mean), ("gap", gap)):
            yield outcome, level, fitted, place
