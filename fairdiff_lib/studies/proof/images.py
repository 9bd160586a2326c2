"""Layers I and T of the proof: pools of images, whose KID is known exactly.

An audit draws subjects from a pool, with replacement: independent draws from the law that gives
each image of the pool the same probability, so that the squared distance of two such laws (a mean
over *all* pairs) is the truth. Layer I: an oracle redraws simulated pictures under corrupted laws.
With real law P and corrupted law C, a generator that fails with probability pi has the law
(1 - pi) P + pi C, so that its KID is pi^2 KID(P, C): pi is solved. Layer T: one trained generator;
groups are strata of its pool, or mixtures of strata.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import delayed
from PIL import Image

from fairdiff_lib.audit.estimate import Bools, Floats
from fairdiff_lib.audit.kid import Kernel, fit_kernel
from fairdiff_lib.classify.features import Extractor, Scale, extract
from fairdiff_lib.classify.runs import study_extractors
from fairdiff_lib.data.cohort import CohortSpec, square
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.files import atomic_file
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.loss import seed_for
from fairdiff_lib.model.sample import load_run, sample
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.sim.fundus import (
    Eye,
    FundusPopulation,
    Subject,
    draw_subject,
    fundus_config,
    render,
)
from fairdiff_lib.studies.proof import BOTH_TAILS, NULLS
from fairdiff_lib.studies.proof.audits import (
    OURS,
    Cell,
    Judge,
    Law,
    NaiveTest,
    OurAudit,
    Situation,
    TwoGroups,
    pair_matrix,
    side_by_side,
)
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import train

CHUNK = 250  # images between two files: what a kill can cost
TRUTH_COLUMNS = ("layer", "law", "images", "kid")


# -- feature space -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """The study's main features and kernel, fixed on its training reals."""

    extractor: Extractor
    scale: Scale
    kernel: Kernel

    @classmethod
    def of(cls, study: Study) -> Space:
        """Scale and kernel of the training reals."""
        extractor = study_extractors(study)[0]
        train = study.cohort.included().split("train")
        images = train.load_images(study.settings.model.image_size)
        features = extract(extractor, images, cache=study.places.features)
        scale = Scale.fit(features)
        return cls(extractor, scale, fit_kernel(scale(features)))


# -- pools on disk -----------------------------------------------------------------------------

Maker = Callable[[range], dict[str, Any]]  # numbers of subjects to named arrays with a row each


def fill_pool(folder: Path, maker: Maker, size: int, title: str) -> dict[str, Any]:
    """Arrays of a pool of ``size`` rows, made chunk by chunk where they are missing.

    A row depends on its number alone, so a larger pool begins with the same rows.
    """
    starts = range(0, size, CHUNK)
    todo = [start for start in starts if not (folder / f"{start:06d}.npz").is_file()]
    jobs = (delayed(_make_chunk)(folder, maker, start) for start in todo)
    side_by_side(jobs, len(todo), f"{title}, chunks of {CHUNK}")
    parts = []
    for start in starts:
        with np.load(folder / f"{start:06d}.npz", allow_pickle=False) as found:
            parts.append(dict(found))
    return {name: np.concatenate([part[name] for part in parts])[:size] for name in parts[0]}


def _make_chunk(folder: Path, maker: Maker, start: int) -> None:
    arrays = maker(range(start, start + CHUNK))
    with atomic_file(folder / f"{start:06d}.npz") as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def mean_pairs(kernel: Kernel, real: Floats, generated: Floats, member: Bools) -> Floats:
    """Mean of h over all pairs of a pool's rows [N], by stratum; ``member`` [N, S].  # [S, S]

    A law that mixes the strata with weights w has KID w' pairs w, exactly.
    """
    share = member / member.sum(axis=0)
    return np.asarray(share.T @ pair_matrix(kernel, real, generated) @ share)


# -- layer I -----------------------------------------------------------------------------------

BLUR = 8.0  # x the camera's defocus: about the study's blurred control
KEPT = 0.2  # of the spread, where it is lost
CLINICAL = ("cup_disc_ratio", "loss", "crescent", "ring")  # what a prompt asks for
VARIED = (*CLINICAL, "disc_radius", "disc_aspect", "melanin", "gain", "tortuosity")
TYPICAL = 200  # subjects whose mean is a group's typical eye


@dataclass(frozen=True)
class Oracle:
    """Pictures of one group, real and as a wrong generator would redraw them."""

    extractor: Extractor
    config: FundusPopulation  # of the group's law; its seed is that of the reals
    # ``blur or cup`` (each in half of the pictures: defocus; a cup drawn as abnormal whatever was
    # asked) or ``lost spread`` (conditions and appearance near the group's typical eye)
    error: str

    def __call__(self, numbers: range) -> dict[str, Any]:
        redraw = dataclasses.replace(self.config, seed=self.config.seed + 1)
        eyes = [draw_subject(self.config, "train", k).eye for k in numbers]
        fresh = [draw_subject(redraw, "train", k).eye for k in numbers]
        typical = typical_eye(self.config)
        wrong = [
            self._wrong(_asked(new, eye), k, typical)
            for new, eye, k in zip(fresh, eyes, numbers, strict=True)
        ]
        return {
            name: self.extractor(np.stack([self._picture(eye) for eye in drawn]))
            for name, drawn in (("real", eyes), ("wrong", wrong))
        }

    def _wrong(self, eye: Eye, number: int, typical: dict[str, float]) -> Eye:
        if self.error == "lost spread":
            near = {k: KEPT * getattr(eye, k) + (1 - KEPT) * v for k, v in typical.items()}
            return dataclasses.replace(eye, **near)
        rng = np.random.default_rng([self.config.seed, number, 2])
        if rng.random() < 0.5:
            return dataclasses.replace(eye, defocus=BLUR * eye.defocus)
        return dataclasses.replace(eye, cup_disc_ratio=float(rng.uniform(0.68, 0.88)))

    def _picture(self, eye: Eye) -> Any:  # uint8 [3, S, S]
        height, width = self.config.fundus_height, self.config.fundus_width
        drawn = Image.fromarray(render(eye, height, width))
        return np.asarray(square(drawn, height)).transpose(2, 0, 1)


def _asked(eye: Eye, prompt: Eye) -> Eye:
    """The eye with the conditions of another: what a generator draws for its prompt."""
    return dataclasses.replace(eye, **{name: getattr(prompt, name) for name in CLINICAL})


def typical_eye(config: FundusPopulation) -> dict[str, float]:
    """Means of what varies between the eyes of a law."""
    eyes = [draw_subject(config, "train", k).eye for k in range(TYPICAL)]
    return {name: float(np.mean([getattr(eye, name) for eye in eyes])) for name in VARIED}


@dataclass(frozen=True)
class OracleLaw:
    """A group whose generated pictures are wrong with probability ``share``.

    The right ones are reals of other subjects.
    """

    real: Floats  # [N, D]
    wrong: Floats  # [N, D]
    share: float

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        own, other = rng.integers(len(self.real), size=(2, n))
        failed = rng.random(n) < self.share
        return self.real[own], np.where(failed[:, None], self.wrong[own], self.real[other])


Laws = dict[str, tuple[Law, ...]]  # by null


def oracle_laws(study: Study, space: Space) -> tuple[Laws, pd.DataFrame]:
    """Two groups with unequal reals, different errors and the planted KID; and their truth."""
    settings, pools = study.settings, study.places.pools / space.extractor.identity
    own, size = settings.proof, settings.model.image_size
    plain = dataclasses.replace(
        fundus_config(settings), seed=own.seed, fundus_height=size, fundus_width=size * 4 // 3,
        share_asian=0.0, share_black=0.0,
    )  # fmt: skip
    varied = dataclasses.replace(plain, seed=own.seed + 2, share_black=1.0, heterogeneity_black=1.5)
    laws, rows = dict[str, OracleLaw](), list[tuple[Any, ...]]()
    for name, config, error in (("small", varied, "blur or cup"), ("large", plain, "lost spread")):
        oracle = Oracle(space.extractor, config, error)
        pool = fill_pool(pools / f"oracle-{name}", oracle, own.pool, f"oracle, {name} group")
        real, wrong = space.scale(pool["real"]), space.scale(pool["wrong"])
        everyone = np.ones((len(real), 1), dtype=bool)
        costs = float(mean_pairs(space.kernel, real, wrong, everyone)[0, 0])
        if costs < own.image_kid:
            given = f"proof.image_kid={own.image_kid}"
            raise InputError(f"{given}: above {costs:.3g}, all that {error} costs")
        share = float(np.sqrt(own.image_kid / costs))
        laws[name] = OracleLaw(real, wrong, share)
        rows.append(("I", f"{name}: {error} in {share:.0%}", len(real), share**2 * costs))
    by_null: Laws = {"exchangeable": (laws["large"],), "unequal": (laws["small"], laws["large"])}
    return by_null, pd.DataFrame(rows, columns=list(TRUTH_COLUMNS))


# -- layer T -----------------------------------------------------------------------------------

METHOD, SEED = "none", 0  # the generator
STRATUM = "cdr_status"  # condition that splits the pool


@dataclass(frozen=True)
class Generator:
    """Fresh simulated subjects, and what the trained checkpoint draws for their prompts."""

    settings: Settings
    places: Places
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
                checkpoint(self.places), prompts[i : i + own.batch], seeds[i : i + own.batch],
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
def checkpoint(places: Places) -> Any:
    """The trained pipeline, loaded once per process and without progress bars."""
    loaded = load_run(Study(places.settings, places), METHOD, SEED)
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
    """A group as a mixture of strata of a pool."""

    real: Floats  # float64 [N, D]
    generated: Floats
    rows: tuple[Any, ...]  # of each stratum
    weights: tuple[float, ...]  # share of each stratum in the group

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        counts = rng.multinomial(n, self.weights)
        drawn = [rng.choice(rows, k) for rows, k in zip(self.rows, counts, strict=True)]
        chosen = rng.permutation(np.concatenate(drawn))
        return self.real[chosen], self.generated[chosen]


def trained_laws(study: Study, space: Space) -> tuple[Laws, pd.DataFrame]:
    """The whole pool, and two groups of equal KID made of its strata; and their truth.

    The stratum whose KID lies between the others' is one group; the other two, mixed so that
    their KID is the same, are the other. Such a mixture always exists.
    """
    settings, places, cohort = study.settings, study.places, study.cohort
    train(study, METHOD, SEED)
    maker = Generator(settings, places, space.extractor)
    pools = places.trained_pool / space.extractor.identity
    pool = fill_pool(pools / "images", maker, settings.proof.pool, "trained generator")
    real, generated = space.scale(pool["real"]), space.scale(pool["generated"])
    stratum = pool["stratum"]
    names = cohort.spec.levels(STRATUM)
    member = stratum[:, None] == np.arange(len(names))
    pairs = mean_pairs(space.kernel, real, generated, member)
    order = [int(k) for k in np.argsort(np.diag(pairs))]
    share = mixing_share(pairs, order[0], order[2], float(pairs[order[1], order[1]]))
    low, middle, high = (np.flatnonzero(stratum == k) for k in order)
    mixed = PoolLaw(real, generated, (low, high), (1 - share, share))
    laws: Laws = {
        "exchangeable": (PoolLaw(real, generated, (np.arange(len(real)),), (1.0,)),),
        "unequal": (PoolLaw(real, generated, (middle,), (1.0,)), mixed),
    }
    whole = member.mean(axis=0)
    mix = np.zeros(len(names))
    mix[[order[0], order[2]]] = 1 - share, share
    title = f"{1 - share:.0%} {names[order[0]]}, {share:.0%} {names[order[2]]}"
    rows = [
        ("T", law, int((member @ (weights > 0)).sum()), float(weights @ pairs @ weights))
        for law, weights in (
            ("whole pool", whole), (names[order[1]], np.eye(len(names))[order[1]]), (title, mix)
        )
    ]  # fmt: skip
    return laws, pd.DataFrame(rows, columns=list(TRUTH_COLUMNS))


def mixing_share(pairs: Floats, low: int, high: int, target: float) -> float:
    """Share of stratum ``high`` at which its mixture with ``low`` has KID ``target``."""
    a, b, c = pairs[low, low], pairs[low, high], pairs[high, high]
    roots = np.roots([a - 2 * b + c, 2 * (b - a), a - target])
    inside = [r.real for r in roots if abs(r.imag) < 1e-12 and -1e-9 <= r.real <= 1 + 1e-9]
    return float(np.clip(max(inside), 0.0, 1.0))


LAYERS = {"I": oracle_laws, "T": trained_laws}


def pool_cells(study: Study) -> tuple[list[Cell], pd.DataFrame]:
    """All cells of layers I and T, and the table of truths, in :data:`TRUTH_COLUMNS`."""
    own = study.settings.proof
    wanted = [name for name in LAYERS if name in own.layers]
    if not wanted:
        return [], pd.DataFrame(columns=list(TRUTH_COLUMNS))
    space = Space.of(study)
    tests: list[tuple[str, Judge, dict[str, float], int]] = [
        (OURS, OurAudit(space.kernel), BOTH_TAILS, own.simulations),
        *(
            (name, NaiveTest(name, repeats, space.kernel), {}, own.naive_simulations)
            for name, repeats in (
                ("kid_equal_n_permutation", own.permutations),
                ("kid_bootstrap_self_pairs", own.bootstrap),
            )
        ),
    ]
    cells, truths = [], []
    for layer in wanted:
        laws, found = LAYERS[layer](study, space)
        truths.append(found)
        for null, n in product(NULLS, own.sizes):
            at = Situation(layer, "two groups", null, n, TwoGroups(laws[null], (n, own.reference)))
            cells += [Cell(at, name, "kid", judge, count, may) for name, judge, may, count in tests]
    return cells, pd.concat(truths, ignore_index=True)[list(TRUTH_COLUMNS)]
