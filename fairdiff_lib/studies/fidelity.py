"""What pictures truly show, by group, whatever a distance between images says.

How sharp a picture is, how many narrow dark lines it has (vessels, hairs), and whether the quantity
that its prompt asks for measures as asked. Of simulated patients this says who is served worse
before any audit does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from fairdiff_lib.audit.audit import (
    Audit,
    exploratory_audits,
    labelled,
    mean_metric,
    means_over_seeds,
)
from fairdiff_lib.audit.estimate import Floats, group_units
from fairdiff_lib.classify.features import Images
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.studies.harm import AGREEMENT, measured_audits
from fairdiff_lib.study import Study

SHARPNESS, LINES = "sharpness_change", "dark_lines_change"
COLUMNS = ("metric", "attribute", "level", "reference", "n", "value", "low", "high")
LINE = 5  # pixels: wider than a vessel at 64 px


def sharpness(images: Images) -> Floats:
    """Standard deviation, in grey levels, of what a blur of 1 pixel takes off.  # [N]"""
    grey = images.mean(axis=1)
    return np.asarray((grey - ndimage.gaussian_filter(grey, (0, 1, 1))).std(axis=(1, 2)))


def dark_lines(images: Images) -> Floats:
    """Mean depth, in grey levels, of what is darker than its surroundings and narrow.  # [N]"""
    grey = images.mean(axis=1)
    return np.asarray((ndimage.grey_closing(grey, (1, LINE, LINE)) - grey).mean(axis=(1, 2)))


def truth_audits(study: Study, real: Images, made: Images) -> list[Audit]:
    """Sharpness and dark lines against the same patient's real image; is what was asked shown?

    Images uint8 [N, 3, H, W] of the included test rows, in their order. Contrasts are between the
    levels of every attribute, and exploratory.
    """
    test, ruler = study.cohort.included().split("test"), study.entry.ruler
    attributes, sizes = test.attribute_levels, study.settings.audit.sizes
    groups = group_units(test.table, attributes)
    metrics = {
        name: mean_metric(look(made) - look(real))
        for name, look in ((SHARPNESS, sharpness), (LINES, dark_lines))
    }
    found = exploratory_audits(metrics, groups, attributes, **sizes)
    if ruler is not None:
        asked = test.prompted_codes()[:, list(test.condition_levels).index(ruler.condition)]
        shows = measured_audits(ruler, ruler.measure(made), asked, groups, attributes, **sizes)
        found[AGREEMENT] = shows[f"{ruler.key}_{AGREEMENT}"]
    return list(found.values())


def as_rows(audits: Sequence[Audit]) -> pd.DataFrame:
    """Every group's value, and every contrast with its ``reference``, in ``COLUMNS``."""
    parts = []
    for one in audits:
        groups = one.by_group.assign(reference="")
        parts += [groups[list(COLUMNS)], one.contrasts[list(COLUMNS)]]
    return pd.concat(parts, ignore_index=True)


def fidelity_table(study: Study) -> pd.DataFrame:
    """tab_fidelity: the truth behind every method's test images, the mean over its seeds.

    dataset, method, seeds, then ``COLUMNS``.
    """
    real = study.cohort.included().split("test").load_images(study.settings.model.image_size)
    found: list[tuple[Mapping[str, Any], Audit]] = []
    for method, seed in study.settings.runs:
        made = load_generated(study.places.generated(method, seed), "test")
        own = {"dataset": study.settings.dataset, "method": method, "seed": seed}
        found += [(own, one) for one in truth_audits(study, real, made)]
    parts = [labelled(as_rows([one]), own) for own, one in means_over_seeds(found)]
    return pd.concat(parts, ignore_index=True)
