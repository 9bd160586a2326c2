"""From what the runs left on disk to the study's tables: one function per notebook.

The notebooks call these, print what they return, and draw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.gates import reconstruction_r2
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.sample import gallery_images, load_generated
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.study import Study

# -- 04 and 05: what people look at ----------------------------------------------------------


def collect_examples(
    settings: Settings, layout: Places, cohort: Cohort, seed: int, methods: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """F2's images by source ("real" and the methods), and the names of its columns."""
    rows, names = cohort.group_examples()
    test = cohort.included().split("test")
    images = {"real": test.load_images(settings.model.image_size, rows)}
    for method in methods:
        made = load_generated(layout.generated(method, seed), "test")
        images[method] = made[rows]
    return images, names


def collect_gallery(
    settings: Settings, layout: Places, cohort: Cohort, seed: int, methods: Sequence[str]
) -> dict[str, Any]:
    """F6's images by method; the rows are ``Cohort.gallery_rows``."""
    return {method: gallery_images(Study(settings, layout), method, seed) for method in methods}


# -- 06: what the optimiser did --------------------------------------------------------------


# -- 02: can what was drawn be measured -------------------------------------------------------


def ruler_table(cohort: Cohort, settings: Settings) -> pd.DataFrame:
    """R^2 of the family's quantity measured on original test images; NaN without a truth."""
    test, ruler = cohort.included().split("test"), dataset_of(settings.dataset).ruler
    if ruler is None:
        return pd.DataFrame([{"measure": "none", "images": 0, "lost": 0, "value": np.nan}])
    truth = ruler.truth(cohort.root, test.table["image"].tolist())
    measured = ruler.measure(test.load_images(settings.model.image_size))
    row = {"images": len(test), "lost": int(np.isnan(measured).sum())}
    value = reconstruction_r2(measured, truth)
    return pd.DataFrame([{"measure": f"R^2 of the {ruler.name}", **row, "value": value}])
