"""Layer T of the proof: one trained generator, and the KID of a large pool of its images.

Groups are strata of the pool, or mixtures of strata whose weight is solved.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fairdiff_lib.audit.estimate import Bools, Estimate, Floats, Ints, group_units
from fairdiff_lib.audit.kid import Kernel, kid, standardised_kid
from fairdiff_lib.classify.features import Extractor
from fairdiff_lib.data.cohort import Cohort, CohortSpec, square
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.loss import seed_for
from fairdiff_lib.model.sample import load_run, sample
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.sim.fundus import render
from fairdiff_lib.sim.simulate import FundusPopulation, Subject, draw_subject, fundus_config
from fairdiff_lib.studies.proof.pools import Space, fill_pool, pool_groups, remembered, truth_row
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import train

METHOD, SEED = "none", 0  # the generator
STRATUM = "cdr_status"  # condition that splits the pool


@dataclass(frozen=True)
class Generator:
    """Fresh simulated subjects, and what the trained checkpoint draws for their prompts."""

    settings: Settings
    layout: Places
    extractor: Extractor

    def __call__(self, numbers: range) -> dict[str, Any]:
        own, spec = self.settings.generation, dataset_of(self.settings.dataset).spec()
        config = fresh(self.settings)
        subjects = [draw_subject(config, "train", k) for k in numbers]
        reals = np.stack([photograph(s, config, self.settings.model.image_size) for s in subjects])
        rows = [prompt_row(spec, subject) for subject in subjects]
        prompts = [spec.prompt(row) for row in rows]
        seeds = [seed_for(own.seed, f"{SEED}/proof/{k}") for k in numbers]
        made = [
            sample(
                checkpoint(self.layout), prompts[i : i + own.batch], seeds[i : i + own.batch],
                steps=own.steps, guidance=own.guidance, scheduler=own.scheduler,
            )
            for i in range(0, len(prompts), own.batch)
        ]  # fmt: skip
        levels = spec.levels(STRATUM)
        return {
            "real": self.extractor(reals),
            "generated": self.extractor(np.concatenate(made)),
            "stratum": np.array([levels.index(row[STRATUM]) for row in rows]),
        }


def fresh(settings: Settings) -> FundusPopulation:
    """The study's law of subjects, but none that any model was trained on."""
    return dataclasses.replace(fundus_config(settings), seed=settings.proof.seed + 4)


@lru_cache(maxsize=1)
def checkpoint(layout: Places) -> Any:
    """The trained pipeline, loaded once per process and without progress bars."""
    loaded = load_run(Study(layout.settings, layout), METHOD, SEED)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def photograph(subject: Subject, config: FundusPopulation, size: int) -> Any:  # uint8 [3, S, S]
    """The picture as a study reads it: through the dataset's JPEG, then cut and reduced."""
    stream = io.BytesIO()
    drawn = Image.fromarray(render(subject.eye, config.fundus_height, config.fundus_width))
    drawn.save(stream, "JPEG", quality=92)
    with Image.open(stream) as opened:
        return np.asarray(square(opened.convert("RGB"), size)).transpose(2, 0, 1)


def prompt_row(spec: CohortSpec, subject: Subject) -> dict[str, str]:
    """Level names as the cohort's reader gives them."""
    row = dataclasses.asdict(subject)
    row["glaucoma"] = spec.levels("glaucoma")[subject.glaucoma == "yes"]
    row["se_status"] = subject.refraction
    return {field.name: str(row[field.name]) for field in spec.fields}


@dataclass(frozen=True)
class PoolLaw:
    """A group as a mixture of strata of a pool.

    Attributes
    ----------
    real, generated : float64 [N, D]
    rows : tuple of int64 arrays
        Of each stratum.
    weights : tuple of float
        Share of each stratum in the group.
    """

    real: Floats
    generated: Floats
    rows: tuple[Any, ...]
    weights: tuple[float, ...]

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        counts = rng.multinomial(n, self.weights)
        drawn = [
            rng.choice(rows, k, replace=False) for rows, k in zip(self.rows, counts, strict=True)
        ]
        chosen = rng.permutation(np.concatenate(drawn))
        return self.real[chosen], self.generated[chosen]


def trained_laws(
    settings: Settings, layout: Places, cohort: Cohort, space: Space
) -> tuple[dict[str, PoolLaw], pd.DataFrame]:
    """The whole pool, and two groups of equal KID made of its strata; and their truth.

    The stratum whose KID lies between the others' is one group; the other two, mixed so that
    their KID is the same, are the other. Such a mixture always exists.
    """
    train(Study(settings, layout), METHOD, SEED)
    maker = Generator(settings, layout, space.extractor)
    pool = fill_pool(layout.pools / "trained", maker, settings.proof.pool, "trained generator")
    real, generated = space.scale(pool["real"]), space.scale(pool["generated"])
    stratum = pool["stratum"]
    found = remembered(
        layout.pools / f"trained-{len(real)}.json",
        partial(_measure, space.kernel, real, generated, stratum, cohort.spec.levels(STRATUM)),
    )
    low, middle, high = (np.flatnonzero(stratum == k) for k in found["order"])
    share = found["share"]
    laws = {
        "all": PoolLaw(real, generated, (np.arange(len(real)),), (1.0,)),
        "small": PoolLaw(real, generated, (middle,), (1.0,)),
        "large": PoolLaw(real, generated, (low, high), (1 - share, share)),
    }
    return laws, pd.DataFrame(found["truths"])


def _measure(
    kernel: Kernel, real: Floats, generated: Floats, stratum: Ints, names: Sequence[str]
) -> dict[str, Any]:
    """Strata by KID, share of the highest in the mixture, and the table of truths."""
    member = stratum[:, None] == np.arange(len(names))
    whole, each, pairs = stratum_kids(kernel, real, generated, member)
    low, middle, high = (int(k) for k in np.argsort(np.diag(pairs)))
    share = mixing_share(pairs, low, high, float(pairs[middle, middle]))
    table = pd.DataFrame({"subject": np.arange(len(real)), STRATUM: np.array(names)[stratum]})
    everyone, strata = group_units(table, {}), group_units(table, {STRATUM: names})
    weights = {names[low]: 1 - share, names[high]: share}
    (mixed,) = standardised_kid(kernel, real, generated, everyone, strata, weights)
    title = f"{1 - share:.0%} {names[low]}, {share:.0%} {names[high]}"
    truths = [
        truth_row("T", "whole pool", whole),
        *(truth_row("T", f"{STRATUM} {n}", e) for n, e in zip(names, each, strict=True)),
        truth_row("T", f"{STRATUM} {title}", mixed),
    ]
    return {"order": [low, middle, high], "share": share, "truths": truths}


def stratum_kids(
    kernel: Kernel, real: Floats, generated: Floats, member: Bools
) -> tuple[Estimate, list[Estimate], Floats]:
    """KID of a pool, of each stratum, and the mean of h between strata.

    Parameters
    ----------
    member : bool [N, S]
        Each row in one stratum.

    Returns
    -------
    whole, each : Estimate, list of Estimate
    pairs : float64 [S, S]
        A mixture with weights w has KID w' pairs w.
    """
    strata = member.shape[1]
    unions = [(s, t) for s in range(strata) for t in range(s)]
    columns = [member[:, s] | member[:, t] for s, t in unions]
    found = kid(kernel, real, generated, pool_groups(np.column_stack([member, *columns])))
    whole, each, both = found[0], found[1 : strata + 1], found[strata + 1 :]
    pairs = np.diag([e.value for e in each])
    for (s, t), union in zip(unions, both, strict=True):
        inner = sum(each[k].n * (each[k].n - 1) * each[k].value for k in (s, t))
        total = union.n * (union.n - 1) * union.value
        pairs[s, t] = pairs[t, s] = (total - inner) / (2 * each[s].n * each[t].n)
    return whole, each, pairs


def mixing_share(pairs: Floats, low: int, high: int, target: float) -> float:
    """Share of stratum ``high`` at which its mixture with ``low`` has KID ``target``."""
    a, b, c = pairs[low, low], pairs[low, high], pairs[high, high]
    roots = np.roots([a - 2 * b + c, 2 * (b - a), a - target])
    inside = [r.real for r in roots if abs(r.imag) < 1e-12 and -1e-9 <= r.real <= 1 + 1e-9]
    return float(np.clip(max(inside), 0.0, 1.0))
