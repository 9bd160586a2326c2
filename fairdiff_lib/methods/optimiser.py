"""The Bayesian part: a Gaussian process over sigma, and the loop around it.

Float64 throughout. Nothing here knows losses or images: it is given scores (larger is better) and
says which sigma to use next, so it can be proven on surfaces whose optimum is known.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.settings.methods import AS_RELEASED, CORRECTED
from fairdiff_lib.settings.options import MitigationConfig

FIT_ITERATIONS = 75  # of L-BFGS on the hyperparameters; most windows need fewer than 50


# -- one step --------------------------------------------------------------------------------


def next_sigma(
    tried: Tensor, scores: Tensor, config: MitigationConfig, seed: int
) -> tuple[Tensor | None, float]:
    """One step of Bayesian optimisation with botorch: SingleTaskGP, upper confidence bound.

    Parameters
    ----------
    tried : float64 [n, G]
        Sigmas.
    scores : float64 [n]
        Their objective; larger is better. Pairs that aren't finite are left out.
    config : MitigationConfig
        Bounds, beta, restarts, raw samples, noise model.
    seed : int
        Of the acquisition optimiser's start points.

    Returns
    -------
    sigma : float64 [G] or None
        None where there are fewer than two pairs, or the process could not be fitted.
    value : float
        Acquisition at sigma, in the units of the objective; NaN with None.
    """
    usable = scores.isfinite() & tried.isfinite().all(dim=1)
    tried, scores = tried[usable].double(), scores[usable].double()
    if len(scores) < 2:
        return None, float("nan")
    # loaded here: two seconds that a study without this method need not spend
    from botorch.acquisition import UpperConfidenceBound
    from botorch.exceptions import BotorchError
    from botorch.optim import optimize_acqf
    from linear_operator.utils.errors import NotPSDError

    bounds = torch.tensor([[config.sigma_low], [config.sigma_high]], dtype=torch.float64)
    with quiet(seed):
        try:
            process = fit_process(tried, scores, config.noise_model)
            candidate, value = optimize_acqf(
                UpperConfidenceBound(process, beta=config.ucb_beta),
                bounds=bounds.repeat(1, tried.shape[1]),
                q=1,
                num_restarts=config.restarts,
                raw_samples=config.raw_samples,
            )
        except (BotorchError, NotPSDError, ValueError):
            return None, float("nan")
    return candidate[0].detach(), float(value)


def fit_process(tried: Tensor, scores: Tensor, noise_model: str = "inferred") -> Any:
    """A fitted botorch ``SingleTaskGP`` of scores [n] over sigmas [n, G].

    ``known`` fixes the noise variance to :func:`successive_noise` instead of fitting it.
    """
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    known = None
    if noise_model == "known":
        known = torch.full_like(scores, successive_noise(scores))[:, None]
    process = SingleTaskGP(tried, scores[:, None], known)
    fit_gpytorch_mll(
        ExactMarginalLogLikelihood(process.likelihood, process),
        optimizer_kwargs={"options": {"maxiter": FIT_ITERATIONS}},
    )
    return process


def successive_noise(scores: Tensor) -> float:
    """Noise variance of a series, half the mean square of successive differences.

    von Neumann 1941; free of a slow trend. Where sigma jumps between two scores, what it changed
    counts as noise too, so the value errs towards caution. At least a millionth of the variance.
    """
    if len(scores) < 2:
        return 1e-12
    return max(float(scores.diff().square().mean()) / 2.0, 1e-6 * float(scores.var()), 1e-12)


@contextmanager
def quiet(seed: int) -> Iterator[None]:
    """Own random state, one thread, and no warning that is expected of odd windows.

    The matrices are 30 x 30: more threads cost more than they do, most of all on busy cores.
    """
    import gpytorch
    from botorch.exceptions import BotorchWarning
    from linear_operator.utils.warnings import NumericalWarning

    threads = torch.get_num_threads()
    checks_off = gpytorch.settings.debug(False)  # a tenth of the time; inputs are checked above
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), checks_off:
        # constant or duplicated windows make botorch, gpytorch and scipy warn
        for kind in (BotorchWarning, NumericalWarning, RuntimeWarning):
            warnings.simplefilter("ignore", kind)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


# -- the loop around it ----------------------------------------------------------------------


class SigmaPath:
    """Sigma over a run: its scores, its windows, the optimiser's choice, the drift.

    As released, each step stores (sigma, score); each ``time_window`` steps the optimiser chooses
    from the window's pairs; after every step sigma drifts. A ``measure`` given to :meth:`advance`
    replaces the steps' scores by one score per window, taken when it ends (P8 corrected).

    ``sigma``, float64 [G], is to be used in the next step; G is the ``size``. ``steps_per_epoch``
    matters for P9 alone, ``rank`` only where each process runs its own optimiser (P5 as released).
    """

    def __init__(
        self,
        size: int,
        config: MitigationConfig,
        seed: int,
        steps_per_epoch: int = 1,
        rank: int = 0,
    ) -> None:
        self.config, self.seed, self.steps_per_epoch = config, seed, max(1, steps_per_epoch)
        self.own_name = ("rank", rank) if rank and config.ranks == AS_RELEASED else ()
        self.agree: Callable[[list[float]], list[float]] = list  # the first process' values
        self.sigma = torch.full((size,), config.sigma_initial, dtype=torch.float64)
        self.tried: list[list[float]] = []
        self.scores: list[float] = []
        self.window: list[list[float]] = []  # sigmas of this window
        self.drift(-1)  # once before the first use, as released

    def advance(
        self, score: float, step: int, measure: Callable[[], float] | None = None
    ) -> dict[str, float]:
        """End of a step, from 0 over the whole run; fits the optimiser when a window is full.

        A score is better when larger; NaN is left out. Returned are the objective; the score, where
        the optimiser was given one; when a window ended also acquisition and seconds.
        """
        seen = {"objective": score}
        self.window.append(self.sigma.tolist())
        if measure is None:
            self._tell(self.sigma, score)
            seen["score"] = score
        count = step if self.config.window_count == CORRECTED else step % self.steps_per_epoch
        if (count + 1) % self.config.time_window == 0:
            if measure is not None:
                seen |= self._score_window(measure)
            seen |= self._choose(step, one_each=measure is not None)
            if self.config.history == "window":
                self.tried, self.scores = [], []
            self.window = []
        self.drift(step)
        return seen

    def _score_window(self, measure: Callable[[], float]) -> dict[str, float]:
        started = time.perf_counter()
        score = self._agreed([measure()])[0]
        self._tell(torch.tensor(self.window, dtype=torch.float64).mean(dim=0), score)
        seconds = time.perf_counter() - started
        return {"objective": score, "score": score, "measure_seconds": seconds}

    def _tell(self, sigma: Tensor, score: float) -> None:
        if score == score:
            self.tried.append(sigma.tolist())
            self.scores.append(score)

    def _choose(self, step: int, one_each: bool) -> dict[str, float]:
        """Set sigma to the optimiser's candidate; an unusable window leaves it as it is."""
        import botorch  # noqa: F401 - outside the clock: an import is no cost of the method

        started = time.perf_counter()
        candidate: Tensor | None
        if one_each and len(self.scores) < self.config.initial_points:
            candidate, value = self._first_guess(len(self.scores)), float("nan")
        else:
            candidate, value = self.propose(step)
        if candidate is not None:
            self.sigma = torch.tensor(self._agreed(candidate.tolist()), dtype=torch.float64)
        return {"optimiser_seconds": time.perf_counter() - started, "acquisition": value}

    def propose(self, step: int) -> tuple[Tensor | None, float]:
        """The optimiser's candidate, float64 [G] or None, and its acquisition."""
        generator = generator_for(self.seed, "botorch", step, *self.own_name)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return self._next(self.told(step), self.config, seed)

    def recommend(self) -> Tensor:
        """The posterior mean's maximiser, float64 [G]; ``sigma`` where nothing can be fitted."""
        best, _ = self._next(self.scores, replace(self.config, ucb_beta=0.0), self.seed)
        return self.sigma if best is None else best

    def _next(
        self, scores: list[float], config: MitigationConfig, seed: int
    ) -> tuple[Tensor | None, float]:
        tried = torch.tensor(self.tried, dtype=torch.float64).reshape(-1, len(self.sigma))
        return next_sigma(tried, torch.tensor(scores, dtype=torch.float64), config, seed)

    def told(self, step: int) -> list[float]:
        """The scores as the optimiser is told them."""
        return self.scores

    def _first_guess(self, number: int) -> Tensor:
        """Point of a scrambled Sobol sequence within the bounds, float64 [G]."""
        sobol: Any = torch.quasirandom.SobolEngine  # untyped in torch
        engine = sobol(len(self.sigma), scramble=True, seed=self.seed)
        point: Tensor = engine.draw(number + 1, dtype=torch.float64)[number]
        return self.config.sigma_low + (self.config.sigma_high - self.config.sigma_low) * point

    def drift(self, step: int) -> None:
        """``sigma <- rate sigma + (1 - rate) U(low, high)`` (P4)."""
        if self.config.drift == CORRECTED:
            return
        uniform = self.uniform("drift", step)
        rate = self.config.exploitation_rate
        self.sigma = rate * self.sigma + (1.0 - rate) * uniform

    def uniform(self, *names: object) -> Tensor:
        """Uniform draw within the bounds, float64 [G]."""
        low, high = self.config.sigma_low, self.config.sigma_high
        generator = generator_for(self.seed, *names, *self.own_name)
        return low + (high - low) * torch.rand(
            len(self.sigma), generator=generator, dtype=torch.float64
        )

    def _agreed(self, values: list[float]) -> list[float]:
        """The first process' values on every process, unless each runs its own (P5)."""
        return self.agree(values) if self.config.ranks == CORRECTED else values

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready, floats kept exactly."""
        kept = {"tried": self.tried, "scores": self.scores, "window": self.window}
        return {"sigma": self.sigma.tolist(), **kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sigma = torch.tensor(state["sigma"], dtype=torch.float64)
        self.tried, self.scores = list(state["tried"]), list(state["scores"])
        self.window = list(state["window"])
