"""Rivals: other ways to make a generator serve small groups, in the same loop.

Where a method is defined for one attribute and the cohort has several, it is applied to each and
averaged over them, unless its docstring says otherwise.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fairdiff_lib.methods.base import Mitigation, register
from fairdiff_lib.methods.groups import (
    RunningMeans,
    by_attribute,
    inverse_frequency,
    level_counts,
    level_sums,
    positions,
    raked,
)
from fairdiff_lib.model.adapters import (
    Adapter,
    LoraAdapter,
    Prompts,
    TokenAdapter,
    attention_layers,
)
from fairdiff_lib.model.pipeline import embed_prompts

Made = TypeVar("Made", bound=Adapter)

# -- by frequency ----------------------------------------------------------------------------


@register("inverse_frequency")
class InverseFrequency(Mitigation):
    """Loss weights ``w_i = mean_a N / (K_a n_{a, level_a(i)})`` from the training split.

    N rows, K_a levels of attribute a, n rows of a level; the mean over the rows is 1. The oldest
    remedy for small groups, as in King and Zeng 2001 for classes.
    """

    table: Tensor  # float64 [G]

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        levels = torch.as_tensor(cohort.split("train").codes())
        inverse_frequency(levels, self.sizes)  # refuses a level without rows
        sizes = torch.tensor(self.sizes)
        of_attribute = sizes.repeat_interleave(sizes)  # K_a of each level
        self.table = len(levels) / (level_counts(levels, self.sizes) * of_attribute)

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        return self.table[positions(levels, self.sizes)].mean(dim=1)


@register("group_balanced")
class GroupBalanced(Mitigation):
    """Batches in which every level of every attribute is equally frequent on average.

    Rows are drawn with replacement by weights from iterative proportional fitting; see
    ``groups.raked``. Group-balanced sampling as in Idrissi et al. 2022, for several attributes.
    """

    sampling: np.ndarray | None = None

    def sampling_weights(self, cohort: Any) -> np.ndarray | None:
        if self.sampling is None:
            self.sampling = raked(torch.as_tensor(cohort.codes()), self.sizes).numpy()
        return self.sampling


# -- by loss ---------------------------------------------------------------------------------


@register("group_dro")
class GroupDRO(Mitigation):
    """Group distributionally robust optimisation (Sagawa et al. 2020).

    After each batch ``q_g <- q_g exp(eta L_g)``, normalised within an attribute, with L_g the mean
    loss of level g; the next batch's loss is ``mean_a sum_g q_g L_g``, which are the weights
    ``w_i = mean_a q_{a, level} n / n_{a, level}`` within a batch of n. A level that is absent
    keeps its q. (The original updates q before it is used, from the same batch.)
    """

    kept = ("q",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        self.q = (1.0 / sizes).repeat_interleave(torch.tensor(self.sizes))

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        counts = level_counts(levels, self.sizes)
        return (self.q * len(losses) / counts)[positions(levels, self.sizes)].mean(dim=1)

    def observe(
        self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
    ) -> dict[str, float]:
        sums, counts = level_sums(losses, levels, self.sizes)
        means = torch.where(counts > 0, sums / counts.clamp_min(1.0), 0.0)
        raised = by_attribute(self.q * torch.exp(self.config.dro_rate * means), self.sizes)
        self.q = torch.cat([part / part.sum() for part in raised])
        return super().observe(losses, levels, step, timesteps)


def transport_cost(a: Tensor, b: Tensor) -> float:
    """Half the squared 2-Wasserstein distance of two samples of numbers, float64 [n] and [m].

    On the line the optimal plan pairs equal quantiles, so the value is exact; a Sinkhorn distance
    with the same cost tends to it as its regularisation vanishes.
    """
    x, y = a.double().sort().values, b.double().sort().values
    ends = torch.cat([torch.arange(1, len(s) + 1).double() / len(s) for s in (x, y)]).sort().values
    mass = ends.diff(prepend=torch.zeros(1, dtype=torch.float64))
    middle = ends - mass / 2
    quantile = [s[(middle * len(s)).long().clamp_max(len(s) - 1)] for s in (x, y)]
    return 0.5 * float((mass * (quantile[0] - quantile[1]).square()).sum())


@register("fis")
class FairIdentityScaling(Mitigation):
    """Fair identity scaling, FIS (Luo et al. 2024, FairVision).

    ``L = mean_i [(1 - c) softmax(l / T)_i n + c softmax(D / T)_i n] l_i`` over a batch of n, with
    D_i the transport cost between the losses of sample i's level and those of the whole batch. The
    release uses a Sinkhorn distance; for numbers on a line we take the exact one.
    """

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        """Mean 1 over the batch."""
        share, temperature = self.config.fis_weight, self.config.fis_temperature
        own = losses.double()
        individual = torch.softmax(own / temperature, dim=0) * len(own)
        group = torch.zeros_like(own)
        for column, size in enumerate(self.sizes):
            cost = torch.zeros(size, dtype=torch.float64)
            for level in sorted(set(levels[:, column].tolist())):
                cost[level] = transport_cost(own[levels[:, column] == level], own)
            spread = torch.softmax(cost[levels[:, column]] / temperature, dim=0)
            group += spread * len(own) / len(self.sizes)
        return (1.0 - share) * individual + share * group


@register("febs")
class FairErrorBoundScaling(Mitigation):
    """Fair error-bound scaling, FEBS (Tian et al. 2024, FairSeg), carried over.

    FairSeg shrinks the prediction in a Dice loss by ``w_g = tanh((min_g L_g / L_g)^gamma)``, so
    that the loss of worse groups is raised. A denoising loss has no prediction in [0, 1] to
    shrink; what carries over is the raise, so a sample's loss is divided by its group's w_g. With
    several attributes the factors multiply. They are normalised to mean 1 over the batch: how much
    is learnt in all stays the same. L_g is a running mean, since at random timesteps a batch's own
    is mostly noise.
    """

    kept = ("running",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        decay = 1.0 - 1.0 / self.config.time_window
        self.running = RunningMeans(self.attributes, bins=1, decay=decay)

    def bounds(self) -> Tensor:
        """W_g per level, float64 [G]; 1 for an attribute whose levels were not all seen yet."""
        parts = []
        for means in self.running.means():
            bound = torch.tanh((means.min() / means) ** self.config.febs_gamma)
            parts.append(torch.where(bound.isfinite(), bound, 1.0))
        return torch.cat(parts)

    def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
        """Mean 1 over the batch."""
        raised = 1.0 / self.bounds()[positions(levels, self.sizes)].prod(dim=1)
        return raised / raised.mean()

    def observe(
        self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
    ) -> dict[str, float]:
        self.running.add(losses, levels, None)
        return super().observe(losses, levels, step, timesteps)


@register("adaptive_sampling")
class AdaptiveSampling(Mitigation):
    """Sampling where an estimated learning curve promises most (after Tae and Whang 2021).

    Slice Tuner acquires data for the groups whose learning curve ``L_g(n) = b_g n^(-a_g)`` is
    still steep. Here nothing can be acquired, so n counts the samples seen of a level, and what is
    chosen is which rows are drawn. After each window a level's mean loss (over timestep bins, so
    that t does not tell) is one point of its curve; from the third on the curves are fitted by
    least squares in the logarithms, and a level's share of its attribute is proportional to its
    marginal gain ``a_g b_g n^(-a_g - 1)``, a rising curve counting as flat. Rows of a level share
    its part equally; a floor stays as in the data; attributes are averaged.
    """

    kept = ("seen", "points", "running")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seen = torch.zeros(sum(self.sizes), dtype=torch.float64)
        self.points: list[list[list[float]]] = []  # per window: samples seen [G], losses [G]
        self.running = RunningMeans(self.attributes, self.config.timestep_bins)
        self.codes: Tensor | None = None

    def sampling_weights(self, cohort: Any) -> np.ndarray | None:
        if self.codes is None:
            self.codes = torch.as_tensor(cohort.codes())
        gains = self.gains()
        if gains is None:
            return None
        counts = level_counts(self.codes, self.sizes)
        parts = zip(*(by_attribute(x, self.sizes) for x in (gains, counts)), strict=True)
        shares = [g / g.sum() if g.sum() > 0 else own / own.sum() for g, own in parts]
        ratio = torch.cat(shares) * len(self.codes) / counts
        weights = ratio[positions(self.codes, self.sizes)].mean(dim=1)
        floor = self.config.sampling_floor
        return (floor + (1.0 - floor) * weights).numpy()

    def gains(self) -> Tensor | None:
        """Marginal gain of each level per sample, float64 [G]; None before three windows."""
        if len(self.points) < 3:
            return None
        seen, losses = torch.tensor(self.points, dtype=torch.float64).log().unbind(dim=1)
        x = seen - seen.mean(dim=0)
        slope = (x * losses).sum(dim=0) / x.square().sum(dim=0)  # -a
        level = losses.mean(dim=0) - slope * seen.mean(dim=0)  # log b
        now = self.seen.log()
        gain = -slope * torch.exp(level + (slope - 1.0) * now)
        return torch.where(gain.isfinite(), gain, 0.0).clamp_min(0.0)

    def observe(
        self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
    ) -> dict[str, float]:
        """Adds a point to the curves when a window ends."""
        self.seen += level_counts(levels, self.sizes)
        self.running.add(losses, levels, timesteps)
        if (step + 1) % self.config.time_window == 0:
            means = torch.cat(self.running.means())
            if bool(means.isfinite().all()):
                self.points.append([self.seen.tolist(), means.tolist()])
            self.running = RunningMeans(self.attributes, self.config.timestep_bins)
        return super().observe(losses, levels, step, timesteps)


# -- by conditioning -------------------------------------------------------------------------


def all_prompts(spec: Any, neutral: bool) -> Prompts:
    """Every prompt that a data set can have, with what is encoded in its stead and its levels.

    Neutral: the prompt without the attributes' words is encoded instead.
    """
    fields = (*spec.attributes, *spec.prompted)
    found: dict[str, tuple[str, list[int]]] = {}
    for levels in itertools.product(*(field.levels for field in fields)):
        row = {field.name: level for field, level in zip(fields, levels, strict=True)}
        codes = [a.levels.index(row[a.name]) for a in spec.attributes]
        prompt = spec.prompt(row)
        words = {c.name: spec.phrases.get(c.name, {}).get(row[c.name], row[c.name])
                 for c in spec.prompted}  # fmt: skip
        bare = spec.template.format(**words, **{a.name: "" for a in spec.attributes})
        found[prompt] = (" ".join(bare.split()) if neutral else prompt, codes)
    return found


def seeded(kind: type[Made], method: Mitigation, prompts: Prompts, options: Any) -> Made:
    """An adapter whose first weights are drawn by the method's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(method.seed)
        return kind(prompts, method.sizes, options)


@register("demographic_tokens")
class DemographicTokens(Mitigation):
    """Demographic tokens in the manner of CompDiff.

    The attributes leave the prompt and enter as extra tokens of the cross-attention: one per
    attribute and one per pair, composed from the pair, each with an auxiliary head that must tell
    the levels it stands for; see ``adapters.TokenAdapter``. Rare combinations so share what their
    parts have learnt. The whole U-Net is trained, as in the baseline. The attributes' tokens start
    at the text encoder's mean feature of the level's name.
    """

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        width = pipeline.unet.config.cross_attention_dim
        options = {"width": width, "auxiliary_weight": self.config.auxiliary_weight}
        adapter = seeded(TokenAdapter, self, all_prompts(cohort.spec, neutral=True), options)
        words = [word for levels in self.attributes.values() for word in (*levels, "")]
        features, index = embed_prompts(pipeline, words)
        with torch.no_grad():
            adapter.levels.weight.copy_(features.mean(dim=1)[index])
        pipeline.adapter = adapter


@register("fair_lora")
class FairLora(Mitigation):
    """FairLoRA (FairFedMed, Li et al. 2025): low-rank updates scaled by group.

    ``y = W x + (alpha / r) B diag(s_g) A x`` on the projections of the U-Net's attention, A and B
    shared, s per level, ``0.7 s_own + 0.3 / (K - 1) sum of the others'``; with several attributes
    the mean over them; see ``adapters.LoraAdapter``. W rests. At generation the sample's levels
    choose s. The learning rate is that of adapters, ``adapter_rate`` times the U-Net's own.
    """

    def prepare(self, pipeline: Any, cohort: Any) -> None:
        own = self.config
        options = {"rank": own.lora_rank, "alpha": own.lora_alpha, "own": own.lora_own,
                   "layers": attention_layers(pipeline.unet)}  # fmt: skip
        adapter = seeded(LoraAdapter, self, all_prompts(cohort.spec, neutral=False), options)
        adapter.attach(pipeline.unet)
        pipeline.adapter = adapter

    def learning_rate_factor(self, step: int) -> float:
        return self.config.adapter_rate
