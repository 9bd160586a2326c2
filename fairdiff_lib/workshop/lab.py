"""What the exercises run: simulated audits, scores of two groups, a model of one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy import stats

from fairdiff_lib.audit.audit import Audit, kid_audit
from fairdiff_lib.audit.estimate import Bools, Floats, Ints
from fairdiff_lib.audit.kid import fit_kernel
from fairdiff_lib.data.own import LEVELS, NAMES, write_example
from fairdiff_lib.disk.files import read_table
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.studies.proof import rows
from fairdiff_lib.studies.proof.audits import Cell, Judge, OurAudit, Scene, TwoGroups
from fairdiff_lib.studies.proof.known import Planted

REFERENCE = 800  # patients of the large group, as in FairGenMed
AUC = 0.90  # of the classifier of exercise 4, in both groups
SHIFT = -0.8  # of every score of its small group
CASES = 0.3  # of the patients, in both groups
GROUPS = (("palette", "cool"), ("palette", "warm"), ("camera", "A"), ("camera", "B"))
BATCH, RARE = 32, 0.04  # images of a training step; share of the rarest group


# -- 1 to 3: audits of known truth ---------------------------------------------------------------


@cache
def world() -> Planted:
    """Groups of images whose true FID and KID are known in closed form."""
    return Planted.of(replace(ProofConfig(), reference=REFERENCE))


def audits(scene: Scene, judge: Judge, count: int, seed: int = 0) -> Bools:
    """Which of ``count`` audits alarm; each looks at new patients.  # [count]"""
    draws = [np.random.default_rng([seed, number]) for number in range(count)]
    return np.array([judge(scene(rng), rng).alarm for rng in draws], dtype=bool)


def equally_good(n: int = 132, *, of_fid: bool) -> TwoGroups:
    """Two groups of ``n`` patients with one true FID (or KID); A's images are more varied."""
    return TwoGroups(world().laws("unequal", of_fid=of_fid), (n, n))


def worse_group(n: int, ratio: float, reference: int = REFERENCE) -> TwoGroups:
    """``n`` patients whose images have ``ratio`` times the KID of the others' images."""
    return TwoGroups((world().law("small", ratio), world().law("large")), (n, reference))


def power_table(
    sizes: Sequence[int], ratios: Sequence[float], count: int = 30, seed: int = 0
) -> pd.DataFrame:
    """How many of ``count`` valid audits notice a group that is worse: n, ratio, audits, alarms."""
    judge = OurAudit(world().kernel)
    rows = [
        (n, ratio, count, int(audits(worse_group(n, ratio), judge, count, seed).sum()))
        for n in sizes
        for ratio in ratios
    ]
    return pd.DataFrame(rows, columns=["n", "ratio", "audits", "alarms"])


def case_mix() -> tuple[Cell, Cell]:
    """Audits at a common share of ill patients, and crude, of groups of equal KID in it."""
    (row,) = (row for row in rows(world().config, world()) if row.what == "case mix")
    standardised, crude = (cell for cell in row.cells() if cell.situation.null == "unequal")
    return standardised, crude


# -- 4: one threshold ----------------------------------------------------------------------------


def shift_of_cases() -> float:
    """Distance between the scores of ill and well: AUC = Phi(distance / sqrt 2)."""
    return float(np.sqrt(2) * stats.norm.ppf(AUC))


def patients(sizes: tuple[int, int] = (8000, 800), seed: int = 0) -> pd.DataFrame:
    """Patients of groups A and B: group, ill, score; AUC :data:`AUC` in both, B's scores lower."""
    rng = np.random.default_rng(seed)
    group = np.repeat(["A", "B"], sizes)
    ill = rng.random(len(group)) < CASES
    score = rng.standard_normal(len(group)) + shift_of_cases() * ill + SHIFT * (group == "B")
    return pd.DataFrame({"group": group, "ill": ill, "score": score})


def missed_law(threshold: float, group: str) -> float:
    """Share of the ill of a group whose score is below the threshold, in closed form."""
    middle = shift_of_cases() + (SHIFT if group == "B" else 0.0)
    return float(stats.norm.cdf(threshold - middle))


def alarmed_law(threshold: float, group: str) -> float:
    """Share of the well of a group whose score is at or above the threshold."""
    return float(stats.norm.sf(threshold - (SHIFT if group == "B" else 0.0)))


def harm_per_thousand(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Ill patients missed and well ones alarmed, of 1,000 patients of each group.

    Of group, ill, score; a patient is called ill at or above the threshold. By group: n, ill,
    missed and alarmed, missed_share (of the ill) with its 95% interval (Wilson 1927), low, high.
    """
    rows = []
    for group, own in table.groupby("group", sort=True):
        called = own["score"] >= threshold
        missed, cases = int((own["ill"] & ~called).sum()), int(own["ill"].sum())
        low, high = wilson(missed, cases)
        alarmed = int((~own["ill"] & called).sum())
        per = 1000 / len(own)
        share = missed / cases if cases else float("nan")
        rows.append((group, len(own), cases, missed * per, alarmed * per, share, low, high))
    columns = ["group", "n", "ill", "missed", "alarmed", "missed_share", "low", "high"]
    return pd.DataFrame(rows, columns=columns).set_index("group")


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a share; all of 0 to 1 where there is nobody."""
    if n == 0:
        return 0.0, 1.0
    found = stats.binomtest(hits, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


# -- 5: the mechanism ----------------------------------------------------------------------------


def weights(sigma: Floats, level: Ints, noise: Floats) -> Floats:  # [G], [N, A], [N, A] => [N]
    """``w_i = 1 + sum_a sigma[level_a(i)] eps[i, a]``, as ``methods.perturbation`` has it.

    ``level`` counts over all attributes' levels, one attribute after another. (That module loads
    torch and diffusers; a test holds the two equal.)
    """
    return np.asarray(1.0 + (sigma[level] * noise).sum(axis=1))


def train_toy(
    sigma: tuple[float, float], mean: tuple[float, float] = (1.0, 1.0), steps: int = 4000,
    seed: int = 0,
) -> Floats:  # fmt: skip
    """A model of one number, by gradient descent on weighted squared errors: its path.  # [steps]

    Of 100 patients 90 are of group A, who want 0, and 10 of group B, who want 2. The weights have
    the ``mean`` and the standard deviation ``sigma`` that their group is given.
    """
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1], [90, 10])
    wanted = np.array([0.0, 2.0])[group]
    theta, path = 0.0, np.empty(steps)
    for step in range(steps):
        w = np.array(mean)[group] + np.array(sigma)[group] * rng.standard_normal(100)
        theta -= 0.02 * np.mean(w * 2 * (theta - wanted))
        path[step] = theta
    return path


def empty_batches(count: int = 2000, seed: int = 0) -> float:
    """Share of batches in which nobody is of the rarest group."""
    rng = np.random.default_rng(seed)
    return float((rng.binomial(BATCH, RARE, count) == 0).mean())


# -- 6: pictures ---------------------------------------------------------------------------------


def draw(folder: Path | str, blur: float, planted: tuple[str, str] = ("palette", "cool")) -> Path:
    """Draw real and generated pictures, one group blurred by so many pixels; the folder."""
    write_example(folder, blur=blur, planted=planted)
    return Path(folder)


def draw_secret(folder: Path | str, number: int, blur: float = 0.3) -> Path:
    """Draw pictures for a neighbour: the number chooses which group is blurred."""
    return draw(folder, blur, secret_group(number))


def secret_group(number: int) -> tuple[str, str]:
    """The group that is spoilt in a neighbour's pictures."""
    rng = np.random.default_rng([int(number), 20250618])
    return GROUPS[int(rng.integers(len(GROUPS)))]


def audit_pictures(folder: Path | str) -> Audit:
    """Audit a folder of pictures, in units of each feature's spread over the real ones.

    Features are colour and fine detail (:func:`texture`).
    """
    folder = Path(folder)
    tables = [read_table(folder / f"{name}.csv", ("path", "subject")) for name in NAMES]
    real, made = (texture(read_pictures(folder, list(table["path"]))) for table in tables)
    mean, spread = real.mean(axis=0), real.std(axis=0)
    real, made = (real - mean) / spread, (made - mean) / spread
    attributes = {name: LEVELS[name] for name in ("palette", "camera")}
    return kid_audit(fit_kernel(real), real, made, tables[0], attributes, features="texture")


def read_pictures(folder: Path, names: Sequence[str]) -> Any:  # uint8 [N, H, W, 3]
    """Pictures of one size, in the order of their names."""
    found = []
    for name in names:
        with Image.open(folder / name) as picture:
            found.append(np.asarray(picture.convert("RGB")))
    return np.stack(found)


def texture(images: Ints) -> Floats:  # uint8 [N, H, W, 3] => [N, 18]
    """Colour, and detail at four scales: ``TextureExtractor`` without torch; a test compares."""
    h = images.astype(np.float64).transpose(0, 3, 1, 2) / 127.5 - 1
    found = [h.mean(axis=(2, 3)), h.std(axis=(2, 3))]
    for _ in range(4):
        n, c, height, width = h.shape
        low = h.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
        coarse = _doubled(_doubled(low, 2), 3)
        found.append(np.log((h - coarse).std(axis=(2, 3)) + 1e-3))
        h = low
    return np.concatenate(found, axis=1)


def _doubled(values: Floats, axis: int) -> Floats:
    """Twice as many values along an axis, by linear interpolation between pixels' middles."""
    moved = np.moveaxis(values, axis, -1)
    ends = np.concatenate([moved[..., :1], moved, moved[..., -1:]], axis=-1)
    left = 0.75 * ends[..., 1:-1] + 0.25 * ends[..., :-2]
    right = 0.75 * ends[..., 1:-1] + 0.25 * ends[..., 2:]
    both = np.stack([left, right], axis=-1).reshape(*moved.shape[:-1], -1)
    return np.moveaxis(both, -1, axis)
