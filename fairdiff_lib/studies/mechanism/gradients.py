"""What the loss and its gradient say about groups, at one checkpoint and on training rows.

Three questions. Is a batch's gap about groups, or about which timesteps were drawn (P6)? Do the
levels' gradients differ? What does the perturbation's noise leave of a batch's gradient (P2)?
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from tqdm.auto import tqdm

from fairdiff_lib.methods.base import Mitigation
from fairdiff_lib.methods.groups import (
    Attributes,
    group_means,
    level_counts,
    loss_gap,
    positions,
    summed_gap,
)
from fairdiff_lib.model.loss import generator_for, loss_at, row_noise
from fairdiff_lib.studies.mechanism.history import COLUMNS, Row, averaged, number
from fairdiff_lib.train.loop import batch_rows
from fairdiff_lib.train.runs import DenoisingObjective

Place = tuple[str, str]  # attribute, level
OVERALL: Place = ("overall", "all")
CHUNK = 1 << 16  # coordinates at once


@dataclass(frozen=True)
class ProbeSizes:
    """How much is measured; the defaults take about a minute of one core on the quick preset."""

    batches: int = 100  # whose gap is explained
    folds: int = 4  # each fold's gaps are explained by what the others' samples say
    bins: int = 20  # of the timestep
    rows_per_level: int = 24  # behind a level's gradient, half of them in each half
    timesteps: tuple[int, ...] = (100, 300, 500, 700, 900)  # of the levels' gradients
    gradient_batches: int = 8  # of the perturbed gradient
    memory_gib: float = 4.0  # no gradients by level where they would need more
    seed: int = 0


@dataclass(frozen=True)
class Probes:
    """What a checkpoint says."""

    rows: pd.DataFrame  # ``mechanism.COLUMNS``
    # attribute, level, other_attribute, other_level, value: cosine of the gradients of two levels
    # (or "overall"), each over other rows; of a level with itself, what noise leaves
    cosines: pd.DataFrame


@dataclass(frozen=True)
class Probe:
    """A checkpoint and the training rows that it is measured on."""

    objective: DenoisingObjective  # of the checkpoint's pipeline; see ``training.method_objective``
    names: list[str]  # of the rows' images: a row's noise is drawn from its name
    levels: Tensor  # int64 [N, A]
    attributes: Attributes
    batch: int  # rows per batch, as in training
    sizes: ProbeSizes

    def measure(
        self,
        dataset: str,  # of the rows; label names the checkpoint
        label: str = "base",
        perturbations: Mapping[str, Mitigation] | None = None,
        confidence: float = 0.95,
    ) -> Probes:
        module = self.objective.module
        training = module.training
        module.eval()
        try:
            found = {label: gap_rows(self, confidence)}
            gradients = level_gradients(self)
            cosines = cosine_table(gradients)
            found[label] += _gradient_rows(gradients, cosines, self.sizes)
            found |= perturbed_rows(self, perturbations or {}, gradients, confidence)
        finally:
            module.zero_grad(set_to_none=True)
            module.train(training)
        head = {"dataset": dataset, "seed": self.sizes.seed}
        rows = [{**head, "method": name, **row} for name, own in found.items() for row in own]
        return Probes(pd.DataFrame(rows, columns=list(COLUMNS)), cosines)


# -- the batch gap ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """Batches as training draws them: losses float64 [B, n], timesteps and rows int64 [B, n]."""

    losses: Tensor
    timesteps: Tensor
    rows: Tensor


def draw_batches(probe: Probe) -> Drawn:
    """Losses of batches with random rows, timesteps and noise; no weights, no gradient."""
    objective, sizes = probe.objective, probe.sizes
    losses, steps, rows = [], [], []
    with torch.no_grad():
        for step in tqdm(range(sizes.batches), desc="gaps of batches", disable=None, leave=False):
            chosen = batch_rows(len(probe.levels), probe.batch, sizes.seed, step)
            draws = generator_for(sizes.seed, "probe", step)
            loss = objective.loss(objective.module, chosen, slice(None), draws)
            assert objective.timesteps is not None
            losses.append(loss.double().cpu())
            steps.append(objective.timesteps)
            rows.append(chosen)
    return Drawn(torch.stack(losses), torch.stack(steps), torch.stack(rows))


def gap_rows(probe: Probe, confidence: float = 0.95) -> list[Row]:
    """What the batch gap is made of.

    A sample's loss is taken as ``f(timestep bin) + sum_a g_a(level) + rest``, fitted by least
    squares on other batches. A part explains as much of the gap's variance over batches as the
    squared correlation of the gap with the gap of that part's fitted values alone; the parts need
    not add up, as a gap is no sum. Group effects make a batch's gap vary only through who is in it:
    with every level present and one attribute, their gap is the same in every batch.

    gap_mean, gap_pooled (the gap of all samples' group means), gap_from_timesteps (the mean gap of
    f alone, which knows no group), explained_timesteps, explained_groups, explained_both,
    explained_absent (number of attributes with an absent level).
    """
    drawn, attributes = draw_batches(probe), probe.attributes
    levels = probe.levels[drawn.rows]
    parts = fitted_parts(drawn, levels, attributes, probe.sizes)
    gaps = _gaps(drawn.losses, levels, attributes)
    of_part = {name: _gaps(values, levels, attributes) for name, values in parts.items()}
    counts = [len(names) for names in attributes.values()]
    absent = [
        sum(bool((own == 0).any()) for own in torch.split(level_counts(rows, counts), counts))
        for rows in levels
    ]
    everyone = group_means(drawn.losses.flatten(), levels.flatten(0, 1), attributes)
    note = f"{len(gaps)} batches of {probe.batch}"
    pooled = f"of {drawn.losses.numel()} samples together"
    only = "the gap of the timesteps' part alone, equal for all groups; " + note
    rows = [
        averaged("gap_mean", gaps, confidence, note),
        number("gap_pooled", -summed_gap(everyone), note=pooled),
        averaged("gap_from_timesteps", of_part["timesteps"], confidence, only),
    ]
    of_part["absent"] = np.array(absent, dtype=np.float64)
    return rows + [
        number(f"explained_{name}", *squared_correlation(gaps, values, confidence), note=note)
        for name, values in of_part.items()
    ]


def fitted_parts(
    drawn: Drawn, levels: Tensor, attributes: Attributes, sizes: ProbeSizes
) -> dict[str, Tensor]:
    """Fitted losses of the parts "timesteps", "groups" and "both", float64 [B, n] each.

    Each fold of batches is fitted by the others' samples.
    """
    counts = [len(names) for names in attributes.values()]
    bins = nn.functional.one_hot(drawn.timesteps * sizes.bins // 1000, sizes.bins)
    where = positions(levels.flatten(0, 1), counts)
    group = nn.functional.one_hot(where, sum(counts)).sum(dim=1).reshape(*levels.shape[:2], -1)
    design = torch.cat([bins, group], dim=2).double()  # rank-deficient: lstsq takes the shortest
    fold = torch.arange(len(drawn.losses)) % sizes.folds
    timesteps, groups = torch.zeros(2, *drawn.losses.shape, dtype=torch.float64)
    for number_ in range(sizes.folds):
        own = fold == number_
        others, values = design[~own].flatten(0, 1), drawn.losses[~own].flatten()
        # gelsd: the driver that knows ranks
        beta = torch.linalg.lstsq(others, values[:, None], driver="gelsd").solution[:, 0]
        timesteps[own] = design[own][..., : sizes.bins] @ beta[: sizes.bins]
        groups[own] = design[own][..., sizes.bins :] @ beta[sizes.bins :]
    return {"timesteps": timesteps, "groups": groups, "both": timesteps + groups}


def _gaps(values: Tensor, levels: Tensor, attributes: Attributes) -> np.ndarray:
    """Gap of each batch, largest minus smallest level summed over attributes, float64 [B]."""
    found = [-loss_gap(own, rows, attributes) for own, rows in zip(values, levels, strict=True)]
    return np.array(found)


def squared_correlation(
    a: np.ndarray, b: np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Squared Pearson correlation with its interval (Fisher's z); NaN where one doesn't vary."""
    if len(a) < 4 or min(np.ptp(a), np.ptp(b)) < 1e-12:
        return float("nan"), float("nan"), float("nan")
    found = stats.pearsonr(a, b)
    low, high = found.confidence_interval(confidence)
    ends = sorted((low**2, high**2))
    return float(found.statistic**2), 0.0 if low <= 0.0 <= high else float(ends[0]), float(ends[1])


# -- gradients by level ----------------------------------------------------------------------


def level_gradients(probe: Probe) -> dict[Place, Tensor]:
    """Gradient of each level's mean loss, and of all rows', in two halves of other rows.

    At the timesteps of ``sizes``, with a latent and noise that belong to the row; "overall" takes
    rows as they come, twice as many. A few timesteps don't weigh as all of them do in training, so
    the gradients needn't vanish where training has converged.

    (attribute, level) to float32 [2, parameters], on the CPU; empty where that needs more memory
    than ``sizes.memory_gib``.
    """
    sizes = probe.sizes
    places = [OVERALL, *((a, level) for a, own in probe.attributes.items() for level in own)]
    count = sum(p.numel() for p in _trained(probe.objective.module))
    if 8 * count * len(places) > sizes.memory_gib * 2**30:
        return {}
    order = torch.randperm(len(probe.levels), generator=generator_for(sizes.seed, "probe rows"))
    halves = order[::2], order[1::2]
    found: dict[Place, list[Tensor]] = {place: [] for place in places}
    bar = tqdm(total=2 * len(places), desc="gradients by level", disable=None, leave=False)
    for half in halves:
        for place in places:
            rows = half
            if place != OVERALL:
                column = list(probe.attributes).index(place[0])
                level = probe.attributes[place[0]].index(place[1])
                rows = half[probe.levels[half, column] == level]
            limit = sizes.rows_per_level // 2 * (2 if place == OVERALL else 1)
            found[place].append(_gradient_at(probe, rows[: max(1, limit)]))
            bar.update()
    bar.close()
    return {place: torch.stack(own) for place, own in found.items()}


def _gradient_at(probe: Probe, rows: Tensor) -> Tensor:
    """Gradient of the rows' mean loss over the fixed timesteps, float32 [parameters]."""
    objective, sizes = probe.objective, probe.sizes
    names = [probe.names[row] for row in rows.tolist()]
    # drawn as in training, each row's own draw: at the posterior's mean the gradient is another
    posterior = torch.stack(
        [row_noise(objective.mean, sizes.seed, f"{name}/posterior") for name in names]
    )
    latents = (objective.mean[rows] + objective.std[rows] * posterior) * objective.scaling
    text = objective.text[objective.prompt[rows]]
    objective.module.zero_grad(set_to_none=True)
    for t in sizes.timesteps:
        loss = loss_at(objective.module, objective.scheduler, latents, text, names, t, sizes.seed)
        (loss.mean() / len(sizes.timesteps)).backward()  # type: ignore[no-untyped-call]
    return _flat_gradient(objective.module)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _flat_gradient(module: nn.Module) -> Tensor:
    """The gradients in one vector, float32 [parameters], on the CPU; 0 where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in _trained(module)]
    return torch.cat([part.detach().float().flatten() for part in parts]).cpu()


def cosines(vectors: Sequence[Tensor]) -> np.ndarray:
    """Of each vector with each, float64 [V, V], NaN for a vector of zeros.

    Summed in float64 (a million float32 products add up to 1.00001), some coordinates at a time:
    float64 copies of all are twice the memory, and of each pair most of the time.
    """
    products = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for part in zip(*(torch.split(own, CHUNK) for own in vectors), strict=True):
        own = torch.stack(part).double()
        products += own @ own.T
    size = products.diagonal().sqrt()
    return np.asarray((products / torch.outer(size, size)).numpy())


def cosine_table(gradients: Mapping[Place, Tensor]) -> pd.DataFrame:
    """Cosines between levels across the halves, so that no row is on both sides.

    A level with itself shows what the rows' noise leaves of a cosine of 1: two levels pull apart
    only where they agree less than each does with itself.
    """
    count = len(gradients)
    found = cosines([own[half] for half in (0, 1) for own in gradients.values()])
    across = (found[:count, count:] + found[count:, :count]) / 2
    rows = [
        (*one, *other, value)
        for (one, other), value in zip(product(gradients, repeat=2), across.flat, strict=True)
    ]
    columns = ["attribute", "level", "other_attribute", "other_level", "value"]
    return pd.DataFrame(rows, columns=columns)


def _gradient_rows(
    gradients: Mapping[Place, Tensor], cosines: pd.DataFrame, sizes: ProbeSizes
) -> list[Row]:
    """Norm of each level's gradient, and its cosines with the overall one, itself, and others."""
    steps = f"timesteps {', '.join(str(t) for t in sizes.timesteps)}"
    rows = [
        number("level_gradient_norm", float(own.mean(dim=0).norm()), note=steps, place=place)
        for place, own in gradients.items()
    ]
    for attribute, level, other, other_level, value in cosines.itertuples(index=False, name=None):
        own, theirs = (attribute, level), (other, other_level)
        quantity, note = "gradient_cosine", f"with {other}: {other_level}"
        if own == theirs:
            quantity, note = "gradient_cosine_itself", "between two halves of its rows"
        elif theirs == OVERALL:
            quantity, note = "gradient_cosine_overall", "with all rows' gradient"
        rows.append(number(quantity, value, note=note, place=own))
    return rows


# -- the perturbed gradient ------------------------------------------------------------------


def perturbed_rows(
    probe: Probe,
    perturbations: Mapping[str, Mitigation],
    gradients: Mapping[Place, Tensor],  # as of :func:`level_gradients`; empty leaves the levels out
    confidence: float = 0.95,
) -> dict[str, list[Row]]:
    """What weights do to the gradient of a training batch, for each of some methods, by label.

    perturbed_cosine (of the weighted batch gradient with the plain one), perturbed_norm (their
    ratio), and by level perturbed_level_cosine and plain_level_cosine (of either with the level's
    own gradient).
    """
    targets = {place: own.mean(dim=0) for place, own in gradients.items()}
    seen: defaultdict[tuple[str, str, Place], list[float]] = defaultdict(list)
    for step in range(probe.sizes.gradient_batches if perturbations else 0):
        plain, weighted = _batch_gradients(probe, perturbations, step)
        found = cosines([plain, *weighted.values(), *targets.values()]).tolist()
        for row, (label, vector) in zip(found[1:], weighted.items(), strict=False):
            ratio = float(vector.norm() / plain.norm().clamp_min(1e-30))
            seen[label, "perturbed_cosine", ("", "")].append(row[0])
            seen[label, "perturbed_norm", ("", "")].append(ratio)
            for k, place in enumerate(targets, 1 + len(weighted)):
                seen[label, "perturbed_level_cosine", place].append(row[k])
                seen[label, "plain_level_cosine", place].append(found[0][k])
    note = f"{probe.sizes.gradient_batches} batches of {probe.batch}"
    rows: dict[str, list[Row]] = {label: [] for label in perturbations}
    for (label, quantity, place), values in seen.items():
        rows[label].append(averaged(quantity, values, confidence, note, place))
    return rows


def _batch_gradients(
    probe: Probe, perturbations: Mapping[str, Mitigation], step: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient of a batch's mean loss, and of its weighted mean by label."""
    objective, module = probe.objective, probe.objective.module
    rows = batch_rows(len(probe.levels), probe.batch, probe.sizes.seed, step)
    draws = generator_for(probe.sizes.seed, "probe", step)
    losses = objective.loss(module, rows, slice(None), draws)
    seen = losses.detach().float().cpu()
    weights = {"": torch.ones(len(rows), dtype=torch.float64)} | {
        label: own.weights(seen, probe.levels[rows], step) for label, own in perturbations.items()
    }
    found = {}
    for label, own in weights.items():
        module.zero_grad(set_to_none=True)
        weighted = (losses * own.to(losses.device, losses.dtype)).mean()
        weighted.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        found[label] = _flat_gradient(module)
    return found.pop(""), found
