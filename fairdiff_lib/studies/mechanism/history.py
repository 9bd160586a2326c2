"""What a perturbation did to a run, from the run's history alone.

A run is named by a label and a folder, so a study's methods and an ablation's arms are measured by
the same functions. What a method doesn't have, as a sigma, gives no rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import special, stats
from torch import Tensor
from tqdm.auto import tqdm

from fairdiff_lib.audit.seeds import t_interval
from fairdiff_lib.disk.files import read_json
from fairdiff_lib.methods.controls import drift_ratio, sigma_path
from fairdiff_lib.methods.groups import Attributes
from fairdiff_lib.methods.optimiser import fit_process, quiet
from fairdiff_lib.methods.perturbation import sample_scales
from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import CORRECTED, config_of
from fairdiff_lib.settings.options import MitigationConfig
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import read_history

COLUMNS = (
    "dataset", "method", "seed", "quantity", "attribute", "level", "value", "low", "high",
    "note",
)  # fmt: skip
SHUFFLES = 20  # p is at least 1 / 21: enough to say no, not to say how little
LEAST_SCORES = 4  # fewer say nothing about windows left out
SLICE_COLUMNS = ("attribute", "level", "sigma", "mean", "low", "high", "path_mean")
Row = dict[str, Any]
OVER_ROWS = "mean of {n} logged rows; interval as if rows were independent"


@dataclass(frozen=True)
class Told:
    """What the optimiser was told over a run, in the order of the steps."""

    sigma: Tensor  # float64 [n, G]
    scores: Tensor  # float64 [n]: larger is better; finite
    window: Tensor  # int64 [n]: number of the window, from 0

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def windows(self) -> list[int]:
        """Numbers of the windows that have a score."""
        return sorted(set(self.window.tolist()))

    def only(self, window: int) -> Told:
        """The pairs of one window."""
        if window not in self.windows:
            raise InputError(f"window {window}: no score; known: {self.windows}")
        own = self.window == window
        return Told(self.sigma[own], self.scores[own], self.window[own])


def told(history: pd.DataFrame, attributes: Attributes) -> Told | None:
    """The optimiser's pairs from a run's history; None for a run whose optimiser was told nothing.

    Where scores came once per window, they belong to the window's mean sigma, as in the run.
    """
    scores = history[history["quantity"] == "score"].sort_values("step")
    if scores.empty:
        return None
    path = sigma_path(history, attributes)
    ends = np.sort(history.loc[history["quantity"] == "acquisition", "step"].to_numpy())
    steps = np.arange(1, len(path) + 1)
    of_step = np.searchsorted(ends, steps)  # a window's last step is one of its own
    rows = scores["step"].to_numpy(dtype=np.int64) - 1
    sigma = path[torch.as_tensor(rows)]
    if len(rows) <= len(ends):
        sigma = torch.stack([path[of_step == of_step[row]].mean(dim=0) for row in rows])
    values = torch.tensor(scores["value"].to_numpy(dtype=np.float64))
    keep = values.isfinite()
    return Told(sigma[keep], values[keep], torch.as_tensor(of_step[rows])[keep])


@dataclass(frozen=True)
class MeasuredRun:
    """A finished run as tables call it, and what its folder says of it."""

    label: str  # what tables call it: the method's name, or an ablation's arm
    method: str  # key of ``methods.METHODS``
    seed: int
    folder: Path
    config: MitigationConfig  # as the method saw it
    training: Mapping[str, Any]  # the loop's settings, as its stamp holds them
    history: pd.DataFrame  # as ``train.runs.read_history`` gives it
    facts: Mapping[str, Any]  # the run's run.json: seconds, memory, the optimiser's share

    def whole(self, quantity: str) -> pd.Series[float]:
        """A quantity of the whole batch, by step."""
        own = self.history[
            (self.history["quantity"] == quantity) & (self.history["attribute"] == "")
        ]
        values: pd.Series[float] = own.set_index("step")["value"].sort_index()
        return values

    def path(self, attributes: Attributes) -> Tensor | None:
        """Sigma of every step, float64 [steps, G]; None for a method without sigma."""
        if not (self.history["quantity"] == "sigma").any():
            return None
        return sigma_path(self.history, attributes)


def read_run(label: str, folder: Path) -> MeasuredRun:
    """A finished run of this label, from its folder."""
    run = read_json(folder / "run.json")
    method, settings = run["method"], run["stamp"]["settings"]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings["mitigation"].items()
    }
    config = config_of(method, MitigationConfig(**given))
    return MeasuredRun(
        label, method, int(run["seed"]), folder, config, settings["training"],
        read_history([folder]), run,
    )  # fmt: skip


@dataclass(frozen=True)
class Window:
    """One call of the optimiser, as it happened in a run."""

    # float64 [n, G]: sigmas; the attributes' levels one after another, as ``names`` says
    tried: Tensor
    scores: Tensor  # float64 [n]: what the optimiser was told of them; larger is better
    names: list[tuple[str, str]]  # [G]
    config: MitigationConfig
    seed: int  # of the acquisition optimiser's start points
    acquisition: float  # of the sigma that it chose


def optimiser_window(study: Study, method: str, seed: int, number: int = 0) -> Window:
    """The pairs that the optimiser was given at the end of a window of a finished run."""
    run = read_run(method, study.places.run(method, seed))
    attributes = study.cohort.attribute_levels
    pairs, calls = told(run.history, attributes), run.whole("acquisition").dropna()
    if pairs is None or number >= len(calls):
        raise InputError(
            f"{run.folder}: its optimiser was called {len(calls)} times; expected window {number}"
        )
    own, step = pairs.only(number), int(calls.index[number])
    generator = generator_for(run.seed, "botorch", step - 1)
    start = int(torch.randint(2**31, (1,), generator=generator))
    names = [(name, level) for name, levels in attributes.items() for level in levels]
    chosen = float(calls.iloc[number])
    return Window(own.sigma, own.scores, names, run.config, start, chosen)


# -- rows ------------------------------------------------------------------------------------


def history_table(
    runs: Sequence[MeasuredRun],  # those of ``none`` among them are the others' baselines
    attributes: Attributes,  # attribute name to level names
    train_levels: np.ndarray,  # int64 [N, A]: of the training rows
    dataset: str,
    shuffles: int = SHUFFLES,  # see :func:`fit_quality`; about a third of a second each
    confidence: float = 0.95,
) -> pd.DataFrame:
    """All that histories say about the mechanism, a row per number.

    :data:`COLUMNS`; attribute and level are empty for the whole batch. Quantities: surrogate_r2,
    surrogate_r2_shuffled, surrogate_p; negative_weights, negative_weights_theory; clipped_spans,
    clipped_steps, clip_factor; drift_ratio; weight.
    """
    rows: list[Row] = []
    for run in runs:
        same = [x for x in runs if (x.seed, x.training) == (run.seed, run.training)]
        baseline = next((x for x in same if x.method == "none"), run)
        own = [
            *_surrogate_rows(told(run.history, attributes), run.config.noise_model, shuffles),
            *_negative_rows(run, attributes, train_levels, confidence),
            *_clipping_rows(run, confidence),
            *_drift_rows(run, baseline, confidence),
            *_weight_rows(run, attributes, confidence),
        ]
        rows += [{"dataset": dataset, "method": run.label, "seed": run.seed, **row} for row in own]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def number(
    quantity: str, value: float, low: float = math.nan, high: float = math.nan, note: str = "",
    place: tuple[str, str] = ("", ""),
) -> Row:  # fmt: skip
    """One row's own columns; ``place`` is (attribute, level)."""
    return dict(zip(COLUMNS[3:], (quantity, *place, value, low, high, note), strict=True))


def averaged(
    quantity: str, values: Sequence[float] | np.ndarray, confidence: float, note: str = OVER_ROWS,
    place: tuple[str, str] = ("", ""),
) -> Row:  # fmt: skip
    """The mean of the finite values with its t-interval; ``note`` may name their number ``{n}``."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    mean, _, low, high = t_interval(known, confidence)
    return number(quantity, mean, low, high, note.format(n=len(known)), place)


def _surrogate_rows(pairs: Told | None, noise_model: str, shuffles: int) -> list[Row]:
    quality = None if pairs is None else fit_quality(pairs, noise_model, shuffles)
    if quality is None:
        return []
    seen = (
        f"{quality.scores} scores, each of {quality.windows} windows left out in turn, "
        "hyperparameters from all: to be read beside the shuffles"
    )
    rows, shuffled = [number("surrogate_r2", quality.r2, note=seen)], np.array(quality.shuffled)
    if len(shuffled):
        spread = f"mean, least and largest of {len(shuffled)} shuffles of the scores"
        ends = (float(shuffled.mean()), float(shuffled.min()), float(shuffled.max()))
        share = f"share of {len(shuffled) + 1}, itself included"
        rows.append(number("surrogate_r2_shuffled", *ends, spread))
        rows.append(number("surrogate_p", quality.p, note=share))
    return rows


def _negative_rows(
    run: MeasuredRun, attributes: Attributes, train_levels: np.ndarray, confidence: float
) -> list[Row]:
    path, measured = run.path(attributes), run.whole("negative_weights")
    if path is None or measured.empty:
        return []
    rows = [averaged("negative_weights", measured.to_numpy(), confidence)]
    if run.config.reweighting == "noise":
        share = float(negative_share(path, train_levels, attributes).mean())
        clamped = ", before they are clamped" if run.config.clamp == CORRECTED else ""
        note = f"of the Gaussian noise of each step's sigma, over the training rows{clamped}"
        rows.append(number("negative_weights_theory", share, note=note))
    return rows


def negative_share(
    path: Tensor, levels: np.ndarray, attributes: Attributes
) -> Tensor:  # [steps, G], training rows [N, A] -> [steps]
    """P(w < 0) of each step, ``mean_i Phi(-1 / s_i)`` with ``s_i^2 = sum_a sigma_a^2`` (P3)."""
    sizes = [len(names) for names in attributes.values()]
    profiles, counts = np.unique(levels, axis=0, return_counts=True)
    shares = torch.as_tensor(counts / counts.sum())
    rows = torch.as_tensor(profiles)
    found = []
    for sigma in path:
        spread = sample_scales(sigma, rows, sizes).square().sum(dim=1).sqrt().clamp_min(1e-12)
        found.append(float((shares * torch.as_tensor(special.ndtr(-1.0 / spread.numpy()))).sum()))
    return torch.tensor(found, dtype=torch.float64)


def _clipping_rows(run: MeasuredRun, confidence: float) -> list[Row]:
    factors = run.whole("clip_factor")
    if factors.empty:
        return []
    spans = np.diff(factors.index.to_numpy(dtype=np.int64), prepend=0)  # steps behind each row
    clipped = factors.to_numpy() < 1.0
    # a span's mean factor is 1 - (what its clipped steps lost) / steps: at least so many of them
    least = np.where(clipped, np.maximum(1, np.ceil(spans * (1.0 - factors.to_numpy()))), 0)
    low, high = float(least.sum() / spans.sum()), float(spans[clipped].sum() / spans.sum())
    value = low if low == high else math.nan
    span = f"share of {len(spans)} spans of up to {spans.max()} steps with at least one clipped"
    bounds = "share of steps; rows hold means over spans, so low and high are bounds, no interval"
    return [
        number("clipped_spans", float(clipped.mean()), note=span),
        number("clipped_steps", value, low, high, bounds),
        averaged("clip_factor", factors.to_numpy(), confidence),
    ]


def _drift_rows(run: MeasuredRun, baseline: MeasuredRun, confidence: float) -> list[Row]:
    if baseline is run or run.whole("second_moment").empty:
        return []
    ratios = drift_ratio(run.history, baseline.history, (run.label, baseline.label))
    return [averaged("drift_ratio", ratios.to_numpy(), confidence)]


def _weight_rows(run: MeasuredRun, attributes: Attributes, confidence: float) -> list[Row]:
    own = run.history[run.history["quantity"] == "weight"]
    if (own["value"].dropna() == 1.0).all():  # the method leaves the loss alone
        return []
    rows = []
    for place in ((name, level) for name, levels in attributes.items() for level in levels):
        here = own[(own["attribute"] == place[0]) & (own["level"] == place[1])]["value"]
        if len(here):
            values = here.to_numpy(dtype=np.float64)
            rows.append(averaged("weight", values, confidence, place=place))
    return rows


# -- is there a surface? ---------------------------------------------------------------------


@dataclass(frozen=True)
class FitQuality:
    """Leave-one-window-out R^2 of the surrogate, and the same for shuffled scores."""

    r2: float
    shuffled: tuple[float, ...]
    scores: int
    windows: int

    @property
    def p(self) -> float:
        """Share of shuffles, the run itself among them, that do at least as well."""
        beaten = sum(value >= self.r2 for value in self.shuffled)
        return (1 + beaten) / (1 + len(self.shuffled))


def fit_quality(
    pairs: Told, noise_model: str = "inferred", shuffles: int = SHUFFLES
) -> FitQuality | None:
    """How well sigma predicts the scores of windows that the surrogate hasn't seen.

    None with one window, fewer than :data:`LEAST_SCORES` scores, or scores that are all equal.

    Shuffling takes scores as exchangeable. If sigma and the scores both move with time, as when
    sigma leaves its start while the loss still falls, that alone makes R^2 beat its shuffles: a
    large p says that there was nothing to learn, a small one doesn't say that sigma was the cause.
    """
    if len(pairs.windows) < 2 or len(pairs) < LEAST_SCORES or float(pairs.scores.std()) == 0.0:
        return None
    draws = (generator_for(0, "surrogate", k) for k in range(shuffles))
    orders = [torch.randperm(len(pairs), generator=draw) for draw in draws]
    todo = tqdm([pairs.scores, *(pairs.scores[order] for order in orders)],
                desc="surrogate and its shuffles", disable=None, leave=False)  # fmt: skip
    found = [window_r2(pairs.sigma, scores, pairs.window, noise_model) for scores in todo]
    return FitQuality(found[0], tuple(found[1:]), len(pairs), len(pairs.windows))


def window_r2(
    sigma: Tensor, scores: Tensor, window: Tensor, noise_model: str = "inferred"
) -> float:
    """``1 - sum (y - yhat)^2 / sum (y - ybar)^2``, each window predicted from the others.

    ybar is the mean of the other windows' scores, so predicting that gives 0. The process'
    hyperparameters are fitted once, on all scores: a shuffle is favoured in the same way. At most
    1; below 0 where the surrogate does worse than the mean.

    With K the covariance with noise, block B left out: ``y_B - yhat_B = [K^-1]_BB^-1 [K^-1 (y -
    m)]_B`` (Rasmussen and Williams 2006, section 5.4.2, for blocks).
    """
    with quiet(0):
        process = fit_process(sigma, scores, noise_model)
        covariance, centred = _prior(process)
    inverse = torch.linalg.inv(covariance)
    whitened, values = inverse @ centred, process.train_targets.detach()
    error = total = 0.0
    for number in sorted(set(window.tolist())):
        own = window == number
        block = inverse[own][:, own]
        error += float(torch.linalg.solve(block, whitened[own]).square().sum())
        total += float((values[own] - values[~own].mean()).square().sum())
    return 1.0 - error / total


def _prior(process: Any) -> tuple[Tensor, Tensor]:
    """Covariance of the scores with noise [n, n], and scores minus the prior mean [n]."""
    process.train()
    with torch.no_grad():
        noisy = process.likelihood(process(*process.train_inputs))
        covariance: Tensor = noisy.covariance_matrix
        centred: Tensor = process.train_targets - noisy.mean
    process.eval()
    return covariance.detach(), centred.detach()


# -- what it looks like ----------------------------------------------------------------------


def slices(
    pairs: Told, attributes: Attributes, noise_model: str = "inferred", points: int = 21
) -> pd.DataFrame:
    """The surrogate's mean along each level's sigma, the others at the path's mean.

    In :data:`SLICE_COLUMNS`; mean, low and high are in the units of the scores, path_mean is the
    level's own mean sigma. The 95% band is for the mean score at a sigma, not for single scores.
    """
    centre = pairs.sigma.mean(dim=0)
    grid = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
    names = [(name, level) for name, levels in attributes.items() for level in levels]
    along = centre.repeat(len(names), points, 1)
    for place in range(len(names)):
        along[place, :, place] = grid
    with quiet(0), torch.no_grad():
        with torch.enable_grad():
            process = fit_process(pairs.sigma, pairs.scores, noise_model)
        posterior = process.posterior(along.reshape(-1, len(names)))
        mean = posterior.mean.reshape(len(names), points)
        reach = posterior.variance.sqrt().reshape(len(names), points)
    reach = reach * float(stats.norm.ppf(0.975))
    columns = (grid.repeat(len(names), 1), mean, mean - reach, mean + reach)
    table = pd.DataFrame(
        np.repeat(np.array(names, dtype=object), points, axis=0), columns=list(SLICE_COLUMNS[:2])
    )
    for column, values in zip(SLICE_COLUMNS[2:], columns, strict=False):
        table[column] = values.flatten().numpy()
    return table.assign(path_mean=np.repeat(centre.numpy(), points))
