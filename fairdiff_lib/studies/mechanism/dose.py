"""Dose and response: fine-tune the base a little at chosen sigmas, and see what moves.

Every level's sigma is either low or high, by a two-level fractional factorial design, so that a few
runs tell the levels' effects apart. A finished cell (design point, seed, reweighting) is one CSV
file in the runs folder and is found again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
import torch
from scipy.linalg import hadamard
from torch import Tensor
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import read_table, write_table
from fairdiff_lib.methods.controls import FixedSigma
from fairdiff_lib.methods.groups import Attributes, group_means, summed_gap
from fairdiff_lib.methods.perturbation import HeldOut
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.options import MitigationConfig, as_dict
from fairdiff_lib.study import Study
from fairdiff_lib.train.loop import fit
from fairdiff_lib.train.runs import load_base, method_objective

REWEIGHTINGS = ("noise", "mean")
CELL_COLUMNS = (
    "reweighting", "point", "seed", "steps", "attribute", "level", "n", "sigma", "loss", "gap",
)  # fmt: skip
EFFECT_COLUMNS = (
    "dataset", "reweighting", "outcome", "attribute", "level", "n", "value", "low", "high",
    "note",
)  # fmt: skip


@dataclass(frozen=True)
class Dose:
    """What is tried; the defaults take about five minutes of one core on the quick preset."""

    low: float = 0.1  # sigma; inside its bounds, where the optimiser may move
    high: float = 0.9
    steps: int = 30  # of fine-tuning: one released window
    seeds: tuple[int, ...] = (0, 1)  # of order, timesteps and noise
    reweightings: tuple[str, ...] = REWEIGHTINGS
    held_out_rows: int = 96  # validation rows, rare levels first
    held_out_timesteps: tuple[int, ...] = (100, 300, 500, 700, 900)

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 1.0:
            raise InputError(
                f"dose.low={self.low}, dose.high={self.high}: expected 0 <= low < high <= 1"
            )
        for name in ("steps", "held_out_rows"):
            if getattr(self, name) < 1:
                raise InputError(f"dose.{name}={getattr(self, name)}: expected at least 1")
        for name in ("seeds", "reweightings", "held_out_timesteps"):
            if not getattr(self, name):
                raise InputError(f"dose.{name} is empty; give at least one")
        for reweighting in self.reweightings:
            refuse_unknown("dose.reweightings", reweighting, REWEIGHTINGS)


@dataclass(frozen=True)
class Cell:
    """One fine-tuning."""

    reweighting: str
    point: int  # of the design
    seed: int

    @property
    def file(self) -> str:
        """Name of its CSV."""
        return f"{self.reweighting}-point{self.point}-seed{self.seed}.csv"


# -- the design ------------------------------------------------------------------------------


def design(factors: int) -> np.ndarray:  # int64 [runs, factors]: -1 = low, 1 = high
    """Two-level fractional factorial design of resolution III or better, balanced and orthogonal.

    Columns of the Sylvester-Hadamard matrix of the smallest order above ``factors``: first the
    basic factors, then their products, longest first (8 runs hold 4 factors at resolution IV and 7
    at III, where a main effect can't be told from interactions of two other factors).
    """
    if factors < 1:
        raise InputError(f"a design of {factors} factors: expected at least 1")
    order = 2 ** factors.bit_length()  # more than `factors`, for the column of the mean
    words = sorted(range(1, order), key=lambda column: (_rank(column), column))
    # + 1 everywhere in the first row: turned, so that the first point is low throughout
    chosen: np.ndarray = -hadamard(order)[:, words[:factors]].astype(np.int64)
    return chosen


def _rank(column: int) -> int:
    """Basic factors (powers of two) first, then the products of most factors."""
    letters = column.bit_count()
    return 0 if letters == 1 else 64 - letters


def sigmas(dose: Dose, attributes: Attributes) -> Tensor:
    """Sigma of each design point, float64 [points, G]."""
    signs = torch.as_tensor(design(sum(len(levels) for levels in attributes.values())))
    return dose.low + (dose.high - dose.low) * (signs.double() + 1.0) / 2.0


def cells(dose: Dose, attributes: Attributes) -> list[Cell]:
    """Every cell; seeds are outermost, so that an interrupted study is balanced."""
    points = range(len(sigmas(dose, attributes)))
    return [Cell(*own, seed) for seed in dose.seeds for own in product(dose.reweightings, points)]


# -- cells -----------------------------------------------------------------------------------


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
    pipeline = load_base(study)
    reweighting: Any = cell.reweighting
    config = MitigationConfig(
        reweighting=reweighting,
        mean_range=settings.mitigation.mean_range,
        drift="corrected",
        held_out_rows=dose.held_out_rows,
        held_out_timesteps=dose.held_out_timesteps,
    )
    sigma = sigmas(dose, attributes)[cell.point]
    mitigation = FixedSigma(config, attributes, cell.seed).hold(sigma)
    mitigation.prepare(pipeline, kept.take((kept.table["split"] != "test").to_numpy(dtype=bool)))
    held_out = HeldOut(pipeline, kept, attributes, config, seed=0)  # the same rows for every cell
    loop = dataclasses.replace(settings.training, steps=dose.steps, ema_decay=0.0)
    fit(
        method_objective(study, pipeline),
        loop,
        count=len(train),
        seed=cell.seed,
        levels=train.codes(),
        method=mitigation,
        label=f"{cell.reweighting}, point {cell.point}, seed {cell.seed}",
    )
    return _measured(held_out, sigma, attributes, cell, dose.steps)


def _measured(
    held_out: HeldOut, sigma: Tensor, attributes: Attributes, cell: Cell, steps: int
) -> pd.DataFrame:
    losses, levels = held_out.losses(), held_out.levels
    means = group_means(losses, levels, attributes)
    whole = (len(losses), float(sigma.mean()), float(losses.mean()), -summed_gap(means))
    names = [(name, level) for name, own in attributes.items() for level in own]
    counts = [
        int((levels[:, a] == k).sum()) for a, own in enumerate(means) for k in range(len(own))
    ]
    columns = (names, counts, sigma.tolist(), torch.cat(means).tolist())
    rows = [("overall", "all", *whole)]
    rows += [(*name, n, dose, loss, np.nan) for name, n, dose, loss in zip(*columns, strict=True)]
    table = pd.DataFrame(rows, columns=list(CELL_COLUMNS[4:]))
    return table.assign(**dataclasses.asdict(cell), steps=steps)[list(CELL_COLUMNS)]


# -- effects ---------------------------------------------------------------------------------


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
