"""The optimiser's surrogate, fitted again from a run's history: did it have anything to see?

A history holds each sigma and each score that the optimiser was told, so the Gaussian process can
be fitted after the run, judged by windows that it hasn't seen, and drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from fairdiff_lib.methods.controls import sigma_path
from fairdiff_lib.methods.groups import Attributes
from fairdiff_lib.methods.optimiser import fit_process, quiet
from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.settings.errors import InputError

SHUFFLES = 20  # p is at least 1 / 21: enough to say no, not to say how little
LEAST_SCORES = 4  # fewer say nothing about windows left out
SLICE_COLUMNS = ("window", "attribute", "level", "sigma", "mean", "low", "high", "path_mean")


@dataclass(frozen=True)
class Told:
    """What the optimiser was told over a run, in the order of the steps.

    Attributes
    ----------
    sigma : float64 [n, G]
    scores : float64 [n]
        Larger is better; finite.
    window : int64 [n]
        Number of the window, from 0.
    """

    sigma: Tensor
    scores: Tensor
    window: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def windows(self) -> list[int]:
        """Numbers of the windows that have a score."""
        return sorted(set(self.window.tolist()))

    def only(self, window: int | None) -> Told:
        """The pairs of one window, or all of them with None.

        Raises
        ------
        InputError
            No score is of that window.
        """
        if window is None:
            return self
        if window not in self.windows:
            raise InputError(f"window {window}: no score; known: {self.windows}")
        own = self.window == window
        return Told(self.sigma[own], self.scores[own], self.window[own])


def told(history: pd.DataFrame, attributes: Attributes) -> Told | None:
    """The optimiser's pairs from a run's history; None for a run whose optimiser was told nothing.

    Where scores came once per window, they belong to the window's mean sigma, as in the run.

    Parameters
    ----------
    history : DataFrame
        ``loop.HISTORY_COLUMNS``, of one run.
    attributes : mapping
        Attribute name to level names.

    Raises
    ------
    InputError
        Scores without the sigma of every step.
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
    pairs: Told, noise_model: str = "inferred", shuffles: int = SHUFFLES, seed: int = 0
) -> FitQuality | None:
    """How well sigma predicts the scores of windows that the surrogate hasn't seen.

    Parameters
    ----------
    pairs : Told
    noise_model : str
        As ``MitigationConfig.noise_model``.
    shuffles : int
        How often the scores are put in random order, which breaks their link with sigma.
    seed : int
        Of the shuffles.

    Returns
    -------
    FitQuality or None
        None with one window, fewer than :data:`LEAST_SCORES` scores, or scores that are all equal.

    Notes
    -----
    Shuffling takes scores as exchangeable. If sigma and the scores both move with time, as when
    sigma leaves its start while the loss still falls, that alone makes R^2 beat its shuffles: a
    large p says that there was nothing to learn, a small one doesn't say that sigma was the cause.
    """
    if len(pairs.windows) < 2 or len(pairs) < LEAST_SCORES or float(pairs.scores.std()) == 0.0:
        return None
    found = [
        window_r2(pairs.sigma, scores, pairs.window, noise_model)
        for scores in tqdm(
            list(_orders(pairs.scores, shuffles, seed)),
            desc="surrogate and its shuffles",
            disable=None,
            leave=False,
        )
    ]
    return FitQuality(found[0], tuple(found[1:]), len(pairs), len(pairs.windows))


def _orders(scores: Tensor, shuffles: int, seed: int) -> Iterator[Tensor]:
    """The scores as they are, then in random orders."""
    yield scores
    for number in range(shuffles):
        order = torch.randperm(len(scores), generator=generator_for(seed, "surrogate", number))
        yield scores[order]


def window_r2(
    sigma: Tensor, scores: Tensor, window: Tensor, noise_model: str = "inferred"
) -> float:
    """``1 - sum (y - yhat)^2 / sum (y - ybar)^2``, each window predicted from the others.

    ybar is the mean of the other windows' scores, so predicting that gives 0. The process'
    hyperparameters are fitted once, on all scores: a shuffle is favoured in the same way.

    Parameters
    ----------
    sigma : float64 [n, G]
    scores : float64 [n]
    window : int64 [n]

    Returns
    -------
    float
        At most 1; below 0 where the surrogate does worse than the mean.

    Notes
    -----
    With K the covariance with noise, block B left out: ``y_B - yhat_B = [K^-1]_BB^-1
    [K^-1 (y - m)]_B`` (Rasmussen and Williams 2006, section 5.4.2, for blocks).
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
    pairs: Told,
    attributes: Attributes,
    noise_model: str = "inferred",
    window: int | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    points: int = 21,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The surrogate's mean along each level's sigma, the others at the path's mean.

    Parameters
    ----------
    pairs : Told
    attributes : mapping
    noise_model : str
    window : int, optional
        The one whose pairs it is fitted to; None = all windows together.
    bounds : (float, float)
        Of sigma.
    points : int
    confidence : float
        Of the band, for the mean score at a sigma, not for single scores.

    Returns
    -------
    DataFrame
        :data:`SLICE_COLUMNS`; window is a number or "all", mean, low and high are in the units of
        the scores, path_mean is the level's own mean sigma.
    """
    own = pairs.only(window)
    centre = own.sigma.mean(dim=0)
    grid = torch.linspace(*bounds, points, dtype=torch.float64)
    names = [(name, level) for name, levels in attributes.items() for level in levels]
    along = centre.repeat(len(names), points, 1)
    for place in range(len(names)):
        along[place, :, place] = grid
    with quiet(0), torch.no_grad():
        with torch.enable_grad():
            process = fit_process(own.sigma, own.scores, noise_model)
        posterior = process.posterior(along.reshape(-1, len(names)))
        mean = posterior.mean.reshape(len(names), points)
        reach = posterior.variance.sqrt().reshape(len(names), points)
    reach = reach * float(stats.norm.ppf((1 + confidence) / 2))
    parts = [
        pd.DataFrame(
            {
                "window": "all" if window is None else str(window),
                "attribute": attribute,
                "level": level,
                "sigma": grid.numpy(),
                "mean": mean[place].numpy(),
                "low": (mean - reach)[place].numpy(),
                "high": (mean + reach)[place].numpy(),
                "path_mean": float(centre[place]),
            }
        )
        for place, (attribute, level) in enumerate(names)
    ]
    return pd.concat(parts, ignore_index=True)
