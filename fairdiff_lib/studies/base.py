"""Is a base worth fine-tuning? Its gates, on patients whom it has not seen.

They are training patients of a study, drawn by another seed than the base's own: nothing is chosen
on test images. Sharpness is told in pixels of blur, prompts by the simulator's ruler.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdiff_lib.audit.blur import blur_curves, blur_images, equivalent_blur
from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.audit.kid import kid
from fairdiff_lib.audit.quality import gates
from fairdiff_lib.classify.features import Space, make_extractor
from fairdiff_lib.model.loss import seed_for
from fairdiff_lib.model.pipeline import load_pipeline, reconstruct
from fairdiff_lib.model.sample import sample_as_set
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.study import Study

Images = NDArray[np.uint8]

FEATURES = "lite0"
COLUMNS = ("gate", "n", "value", "threshold", "comparison", "passed", "note")
SUBJECTS = 480  # at most; the other half of the training patients sets the scale
BATCH = 64  # images drawn at once
SIGMAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # pixels
BLUR_CONTROL = 1.0  # pixels
MOST_BLUR = {"reconstruction_blur": 0.6, "generated_blur": 0.8}  # pixels
LEAST_R2 = LEAST_AUC = 0.9


@dataclass(frozen=True)
class BaseCheck:
    """Gates of a base (``COLUMNS``, then dataset), and the pictures to be looked at beside them.

    The pictures, uint8 [N, 3, H, W] each, are of the same patients.
    """

    gates: pd.DataFrame
    real: Images
    reconstructed: Images
    generated: Images


def check_base(study: Study, folder: Path) -> BaseCheck:
    """Measure a base (its pipeline's folder) by the training patients of a study, none of its own.

    The study is simulated, since real data have no ruler; its generation settings are used.
    """
    ruler, train = study.entry.ruler, study.cohort.included().split("train")
    if ruler is None:
        raise InputError(f"dataset {study.settings.dataset!r}: expected a simulated one")
    pipeline, size = load_pipeline(folder), study.settings.model.image_size
    subjects = train.table["subject"].drop_duplicates()
    chosen = train.table["subject"].isin(subjects[: min(SUBJECTS, len(subjects) // 2)])
    own, rest = train.take(chosen.to_numpy()), train.take(~chosen.to_numpy())
    table, real = own.table, own.load_images(size)
    again, made = reconstruct(pipeline.vae, real), _generate(study, pipeline, table)

    extractor = make_extractor(FEATURES)
    space = Space.fit(extractor, study.places.features, rest.load_images(size), real)
    groups = group_units(table, {})

    def at(sigma: float) -> Any:
        return space.of(blur_images(real, sigma))

    curves = blur_curves(space.kernel, space.test, at, groups, SIGMAS)
    features = {"reconstruction_blur": space.of(again), "generated_blur": space.of(made)}
    rows = []
    for name, own_features in features.items():
        blur = equivalent_blur(kid(space.kernel, space.test, own_features, groups), curves)[0]
        low, high = blur.interval(study.settings.audit.confidence)
        note = f"equivalent blur in pixels of {size}, {low:.2f} to {high:.2f}; {FEATURES} features"
        most, value = MOST_BLUR[name], float(blur.value)
        rows.append((name, blur.n, value, most, "<=", value <= most, note))

    names, asked = table["image"].tolist(), table[ruler.condition]
    ends = asked.isin([ruler.low, ruler.high]).to_numpy()
    condition = own.spec.primary_condition
    others = gates(
        space.kernel,
        space.test,
        features["generated_blur"],
        at(BLUR_CONTROL),
        table,
        (condition, own.spec.levels(condition)),
        labels={},
        reconstruction=(ruler, ruler.measure(again), ruler.truth(own.root, names)),
        prompt=(ruler, ruler.measure(made[ends]), (asked == ruler.high).to_numpy()[ends]),
        least_r2=LEAST_R2,
        least_auc=LEAST_AUC,
        confidence=study.settings.audit.confidence,
    )
    blurs = pd.DataFrame(rows, columns=list(COLUMNS))
    found = pd.concat([blurs, others[list(COLUMNS)]], ignore_index=True)
    return BaseCheck(found.assign(dataset=study.settings.dataset), real, again, made)


def _generate(study: Study, pipeline: Any, table: pd.DataFrame) -> Images:
    """An image for every patient's prompt, from noise of its own."""
    names, prompts = table["image"].tolist(), table["prompt"].tolist()
    seeds = [seed_for(study.settings.generation.seed, "base", name) for name in names]
    parts = [
        sample_as_set(study, pipeline, prompts[k : k + BATCH], seeds[k : k + BATCH])
        for k in range(0, len(names), BATCH)
    ]
    return np.concatenate(parts)
