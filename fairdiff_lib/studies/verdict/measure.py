"""What 05 and 07 measure for the verdict: planned tests, and the positive control.

The control plants a disparity of known place in the generated images, and it must be found. A
random group of test subjects, as many as the smallest group that a claim rests on, has its images
passed once more through the autoencoder, whose latents are drawn towards half their resolution: a
worse autoencoder for one group. Without that, the two groups have one law. It is no blur of pixels,
which the endpoint would find by construction.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.blur import Curves, blur_curves, blur_images, equivalent_blur
from fairdiff_lib.audit.estimate import OVERALL, Estimate, Groups, Ints, difference
from fairdiff_lib.audit.kid import kid, kid_unpaired
from fairdiff_lib.classify.features import Images, Space
from fairdiff_lib.disk.files import read_json
from fairdiff_lib.model.device import autocast
from fairdiff_lib.model.pipeline import encode_images, to_images
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.studies.verdict.effects import PLANTED, UNTOUCHED, control_rows, effect_rows
from fairdiff_lib.studies.verdict.pilot import halves
from fairdiff_lib.studies.verdict.protocol import BLUR, KID, Protocol
from fairdiff_lib.study import Study

Key = tuple[str, str]
Run = tuple[str, int]  # method, seed
STEPS = 16  # to latents of half the resolution
BATCH = 16  # images through the decoder at once


def image_effects(
    study: Study,
    space: Space,
    vae: Any,
    unit: Ints,
    audits: Mapping[Run, Sequence[Audit]],
    rule: Protocol,
) -> pd.DataFrame:
    """C1's and C2's tests and their control, in ``effects.COLUMNS``.

    Parameters
    ----------
    unit : int64 [N]
        Subject of each test image.
    audits : mapping
        Run to its audits, those of KID and of equivalent blur in ``space`` among them.
    """
    values: dict[str, dict[Run, Mapping[Key, Estimate]]] = {BLUR: {}, KID: {}}
    for run, found in audits.items():
        for one in found:
            if one.metric in values and one.features == rule.features:
                values[one.metric][run] = one.estimates
    rows = effect_rows(values, rule, bases_of(study))
    first = next((run for run in audits if run[0] == rule.baseline), None)
    if first is None:
        return rows
    images = load_generated(study.places.generated(*first), "test")
    return pd.concat([rows, control(study, space, vae, images, unit, rule)], ignore_index=True)


def bases_of(study: Study) -> dict[Run, str]:
    """What each run started from: a hash, alike for fine-tunings of one base."""
    found = {}
    for run in study.settings.runs:
        rests = read_json(study.places.run(*run) / "run.json").get("rests_on", {})
        found[run] = next((own for name, own in rests.items() if "/base" in name), "")
    return found


def through_worse(vae: Any, images: Images, share: float) -> Images:
    """Images after the autoencoder, latents ``share`` of the way to half their resolution."""
    return _decoded_worse(vae, encode_images(vae, images)[0], share)


@torch.no_grad()
def _decoded_worse(vae: Any, latents: Tensor, share: float) -> Images:
    done = []
    for own in torch.split(latents, BATCH):
        coarse = functional.interpolate(functional.avg_pool2d(own, 2), own.shape[-2:],
                                        mode="bilinear")  # fmt: skip
        mixed = torch.lerp(own, coarse, share).to(vae.device, vae.dtype)
        done.append(to_images(vae.decode(mixed).sample))
    return np.concatenate(done)


def share_for(study: Study, space: Space, vae: Any, rule: Protocol) -> float:
    """The least share that makes 2 X of real training images, beyond the autoencoder's own.

    In steps of ``1 / STEPS``; 1 where none does.
    """
    train = study.cohort.included().split("train")
    first, second = halves(train.table, study.cohort)
    images = [train.load_images(study.settings.model.image_size, rows) for rows in (first, second)]
    one, other = (_everyone(np.arange(len(rows))) for rows in (first, second))
    known = curves_of(space, images[0], one)
    reals = space.of(images[0])
    precision = study.settings.generation.mixed_precision
    with autocast(precision):
        latents = encode_images(vae, images[1])[0]

    def seen(step: int) -> float:
        with autocast(precision):
            made = _decoded_worse(vae, latents, step / STEPS)
        kids = kid_unpaired(space.kernel, reals, space.of(made), one, other)
        value = equivalent_blur(kids, known)[0].value
        return value if np.isfinite(value) else float(known.sigmas[-1])

    wanted = seen(0) + 2 * rule.smallest_blur
    return (1 + bisect_left(range(1, STEPS), wanted, key=seen)) / STEPS


def curves_of(space: Space, images: Images, groups: Groups) -> Curves:
    """KID of blurred reals, whose features are kept; of images uint8 [N, 3, H, W]."""
    at = space.of(images)
    return blur_curves(space.kernel, at, lambda s: space.of(blur_images(images, s)), groups)


def _everyone(unit: Ints) -> Groups:
    return Groups(unit, (OVERALL,), np.ones((int(unit.max()) + 1, 1), dtype=bool))


def random_group(unit: Ints, count: int, seed: int) -> Groups:
    """``count`` units drawn at random, and the others."""
    units = int(unit.max()) + 1
    chosen = np.zeros(units, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(units)[:count]] = True
    keys = (OVERALL, ("group", PLANTED), ("group", UNTOUCHED))
    members = np.stack([np.ones(units, dtype=bool), chosen, ~chosen], axis=1)
    return Groups(unit, keys, members)


def control(
    study: Study, space: Space, vae: Any, generated: Images, unit: Ints, rule: Protocol
) -> pd.DataFrame:
    """The control's rows, planted and untouched, in ``effects.COLUMNS``.

    Parameters
    ----------
    generated : uint8 [N, 3, H, W]
        Of one run of the baseline, row by row for the real test images.
    unit : int64 [N]
        Subject of each row.
    """
    sizes = [one.n for one in rule.tests if one.claim == "C1" and one.endpoint == BLUR
             and one.testable]  # fmt: skip
    units = int(unit.max()) + 1
    groups = random_group(unit, min([*sizes, units // 2]), study.settings.generation.seed)
    share = share_for(study, space, vae, rule)
    planted, rows = generated.copy(), groups.column("group", PLANTED)[unit]
    with autocast(study.settings.generation.mixed_precision):  # as the others were decoded
        planted[rows] = through_worse(vae, generated[rows], share)
    test = study.cohort.included().split("test")
    reals = test.load_images(study.settings.model.image_size)
    known, x = curves_of(space, reals, groups), space.of(reals)
    found: dict[str, dict[str, tuple[Estimate, int]]] = {BLUR: {}, KID: {}}
    for part, images in ((PLANTED, planted), (UNTOUCHED, generated)):
        kids = kid(space.kernel, x, space.of(images), groups)
        for endpoint, own in ((BLUR, equivalent_blur(kids, known)), (KID, kids)):
            found[endpoint][part] = difference(own[1], own[2]), min(own[1].n, own[2].n)
    level = f"drawn at random, latents {share:.0%} of the way to half their resolution"
    parts = [control_rows(endpoint, own, level, rule) for endpoint, own in found.items()]
    return pd.concat(parts, ignore_index=True)
