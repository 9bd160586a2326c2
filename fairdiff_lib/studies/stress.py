"""17: how does the audit bear group labels that are wrong, missing or swapped on purpose?

Audits of known truth are simulated as in the proof (10), and the labels are spoilt before the
audit sees them. First features of known law, where the groups' KIDs are equal or planted; then real
images of two groups against blurred ones of others of the group, equally so or one group's more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from fairdiff_lib.audit.audit import Audit, audit
from fairdiff_lib.audit.blur import blur_curves, blur_images, blur_metric
from fairdiff_lib.audit.estimate import MIN_UNITS, Bools, Floats, Ints, group_units
from fairdiff_lib.audit.kid import Kernel, kid
from fairdiff_lib.classify.features import Space
from fairdiff_lib.classify.runs import study_extractors
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import AUDIT_ERRORS as EVENTS
from fairdiff_lib.settings.names import LABEL_FAULTS as FAULTS
from fairdiff_lib.settings.options import StressConfig
from fairdiff_lib.studies.proof.audits import (
    LEVEL,
    OURS,
    PAIRWISE,
    Cell,
    OurAudit,
    Pictures,
    Scene,
    Situation,
    TwoGroups,
    simulate,
    two_groups,
)
from fairdiff_lib.studies.proof.known import Planted
from fairdiff_lib.study import Study

ALIKE, EQUAL, PLANTED = "alike", "equal", "planted"  # truths
CURVE = (0.0, 0.4, 0.8, 1.2, 1.6)  # pixels that the curves of blurred reals are made at
SUBJECTS = 400  # of each group's real images, from which audits are drawn
COLUMNS = ("dataset", "layer", "truth", "fault", "share", "n", "simulations", "event", "value",
           "low", "high", "worse", "mean")  # fmt: skip


def spoilt(
    small: Bools, fault: str, share: float, rng: np.random.Generator, harm: Floats, hide: bool
) -> Ints:
    """Labels [N] after a fault: 1 for the small group, 0 for the large one, -1 where missing.

    Parameters
    ----------
    small : bool [N]
        The true labels.
    share : float
        Of all labels.
    harm : float64 [N]
        How much worse than the others each image is, as the adversary knows it.
    hide : bool
        The adversary makes the small group look better; otherwise worse.
    """
    labels, count = small.astype(np.int64), round(share * len(small))
    if fault in ("wrong", "missing"):
        rows = rng.permutation(len(small))[:count]
        labels[rows] = 1 - labels[rows] if fault == "wrong" else -1
    elif fault == "missing_in_one":
        own = rng.permutation(np.flatnonzero(small))
        labels[own[: min(count, len(own) - MIN_UNITS)]] = -1
    elif fault == "swapped":  # both groups keep their size: no count betrays it
        order = np.argsort(-harm if hide else harm, kind="stable")
        pairs = min(count // 2, int(small.sum()))
        labels[order[small[order]][:pairs]] = 0
        labels[order[~small[order]][::-1][:pairs]] = 1
    return labels


@dataclass(frozen=True)
class Spoilt:
    """A scene whose labels are spoilt before the audit sees it."""

    scene: Scene
    kernel: Kernel
    fault: str = ""  # of FAULTS; empty: none
    share: float = 0.0
    hide: bool = False

    def __call__(self, rng: np.random.Generator) -> Pictures:
        seen = self.scene(rng)
        assert isinstance(seen, Pictures)
        harm = np.zeros(len(seen.real))
        if self.fault == "swapped":
            everyone = kid(self.kernel, seen.real, seen.generated, seen.groups)[0]
            harm = everyone.influence[seen.groups.unit]
        labels = spoilt(seen.small, self.fault, self.share, rng, harm, self.hide)
        kept = np.flatnonzero(labels >= 0)
        names = np.where(labels[kept] == 1, *PAIRWISE["group"])
        groups = group_units(pd.DataFrame({"subject": kept, "group": names}), PAIRWISE)
        found = replace(seen, real=seen.real[kept], generated=seen.generated[kept], groups=groups)
        blurred = seen.blurred
        return found if blurred is None else replace(found, blurred=lambda s: blurred(s)[kept])


@dataclass(frozen=True)
class Pool:
    """Real images of two groups in features, sharp and after blurs of rising width.

    ``small`` and ``large``: width in pixels to float64 [n, D].
    """

    attribute: str
    levels: tuple[str, str]
    small: Mapping[float, Floats]
    large: Mapping[float, Floats]


@dataclass(frozen=True)
class Copies:
    """Subjects of a pool; blurred images of others of their group stand for generated ones.

    Drawn without replacement, so that audits share some subjects: false alarms are a little rarer
    than of fresh ones.
    """

    pool: Pool
    sizes: tuple[int, int]
    widths: tuple[float, float]  # pixels: blur of the small group's copies, of the large one's

    def __call__(self, rng: np.random.Generator) -> Pictures:
        sides = (self.pool.small, self.pool.large)
        rows = [rng.choice(len(side[0.0]), 2 * n, replace=False)
                for side, n in zip(sides, self.sizes, strict=True)]  # fmt: skip

        def at(widths: tuple[float, float], others: bool) -> Floats:
            parts = zip(sides, widths, rows, strict=True)
            return np.concatenate([side[s][own[int(others) :: 2]] for side, s, own in parts])

        real, made = at((0.0, 0.0), False), at(self.widths, True)
        return Pictures(real, made, two_groups(self.sizes), blurred=lambda s: at((s, s), False))


def of_blur(seen: Pictures, kernel: Kernel, own: dict[str, Any]) -> Audit:
    """Audit by equivalent blur, from curves of a few widths: thousands are made."""
    assert seen.blurred is not None
    curves = blur_curves(kernel, seen.real, seen.blurred, seen.groups, CURVE)
    metric = blur_metric(kernel, seen.real, seen.generated, curves)
    return audit(metric, seen.groups, seen.attributes, metric="equivalent_blur", **own)


def read_pool(study: Study) -> tuple[Pool, Kernel]:
    """Real training images of the two largest levels of the attribute that is best balanced.

    One image a subject; at most ``SUBJECTS`` of each level.
    """
    own, size = study.settings.stress, study.settings.model.image_size
    train = study.cohort.included().split("train")
    train = train.take((~train.table["subject"].duplicated()).to_numpy(dtype=bool))
    counts = {a: train.table[a].value_counts().iloc[:2] for a in study.cohort.attribute_levels}
    attribute = max(counts, key=lambda a: int(counts[a].min()))
    large, small = (str(level) for level in counts[attribute].index)
    widths = sorted({*CURVE, own.blur, own.blur + own.planted})
    images = train.load_images(size)
    space = Space.fit(study_extractors(study)[0], study.places.features, images, images[:1])
    found = []
    for level in (small, large):
        rows = np.flatnonzero((train.table[attribute] == level).to_numpy())[:SUBJECTS]
        if len(rows) < 3 * MIN_UNITS:
            raise InputError(
                f"{attribute} {level}: {len(rows)} subjects in the training split; "
                f"expected at least {3 * MIN_UNITS}"
            )
        found.append({s: space.of(blur_images(images[rows], s) if s else images[rows])
                      for s in widths})  # fmt: skip
    return Pool(attribute, (small, large), *found), space.kernel


def faults_of(config: StressConfig) -> list[tuple[str, float]]:
    """Clean labels, then every fault at every share."""
    return [("", 0.0), *((fault, share) for fault in FAULTS for share in config.shares)]


def cells_of(study: Study, pool: Pool, kernel: Kernel) -> list[tuple[Cell, str, str, float]]:
    """Every cell with its truth, fault and share."""
    config, proof = study.settings.stress, study.settings.proof
    planted = Planted.of(proof)
    unlike = (planted.law("small", config.ratio), planted.law("large"))
    sizes = (config.sizes[0], config.sizes[1])
    few = (min(sizes[0], len(pool.small[0.0]) // 3), min(sizes[1], len(pool.large[0.0]) // 3))
    ours, soft = OurAudit(planted.kernel), OurAudit(kernel, of_blur)
    same, more = (config.blur, config.blur), (config.blur + config.planted, config.blur)
    layers: list[tuple[str, str, OurAudit, Kernel, int, dict[str, Scene]]] = [
        ("features", "kid", ours, planted.kernel, config.simulations,
         {ALIKE: TwoGroups(planted.laws("exchangeable"), sizes),
          EQUAL: TwoGroups(planted.laws("unequal"), sizes), PLANTED: TwoGroups(unlike, sizes)}),
        ("images", "equivalent_blur", soft, kernel, config.draws,
         {EQUAL: Copies(pool, few, same), PLANTED: Copies(pool, few, more)}),
    ]  # fmt: skip
    found = []
    for layer, metric, judge, own, count, scenes in layers:
        for truth, scene in scenes.items():
            for fault, share in faults_of(config):
                spoiling = Spoilt(scene, own, fault, share, truth == PLANTED)
                n = sizes[0] if layer == "features" else few[0]
                what = f"{truth} {fault or 'clean'} {share:g}"
                situation = Situation(layer, what, "none", n, spoiling)  # truth 0: signs of alarms
                found.append((Cell(situation, OURS, metric, judge, count), truth, fault, share))
    return found


@dataclass(frozen=True)
class Stress:
    """What 17 writes and shows; ``COLUMNS``, low and high being exact 95% limits of a rate."""

    pool: Pool
    cells: list[Cell]
    table: pd.DataFrame

    def scalars(self) -> dict[str, Any]:
        """What 17 records: the rate of every cell."""
        return {f"{row['layer']}_{row['truth']}_{row['fault'] or 'clean'}_{row['share']:g}":
                row["value"] for row in self.table.to_dict("records")}  # fmt: skip


def measure_stress(study: Study) -> Stress:
    """All audits, simulated where missing: a killed run goes on."""
    own = cells_of(study, *(known := read_pool(study)))
    found = simulate([cell for cell, *_ in own], study.places.stress, study.settings.stress.seed)
    rows = []
    for (cell, truth, fault, share), row in zip(own, found.to_dict("records"), strict=True):
        n, worse = cell.simulations, float(row["above"])
        rate = 1 - worse if truth == PLANTED else row["alarm"]
        low, high = proportion_confint(round(rate * n), n, LEVEL, "beta")
        rows.append((study.settings.dataset, cell.situation.layer, truth, fault, share,
                     cell.situation.n_min, n, EVENTS[truth], rate, low, high, worse,
                     row["mean"]))  # fmt: skip
    return Stress(known[0], [cell for cell, *_ in own], pd.DataFrame(rows, columns=list(COLUMNS)))
