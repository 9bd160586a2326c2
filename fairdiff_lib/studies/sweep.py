"""15: what do guidance and sampler steps do to each group? A grid from the same noise, as tables.

Every cell asks one trained model for the same test prompts from the same initial noise, so that a
change between cells is the sampler's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from fairdiff_lib.audit.audit import Audit, audit, contrast_table, kid_metric, labelled
from fairdiff_lib.audit.contrasts import EXPLORATORY
from fairdiff_lib.audit.estimate import Ints, group_units
from fairdiff_lib.classify.features import Space
from fairdiff_lib.classify.runs import feature_spaces
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.tables import gate_notes, with_notes
from fairdiff_lib.methods.groups import balanced_rows
from fairdiff_lib.model.sample import generate, load_generated
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.harm import change
from fairdiff_lib.studies.plans import Cell, cells_of, check_cells, own_cell
from fairdiff_lib.study import Study


@dataclass(frozen=True)
class SweepResult:
    """What 15 writes and shows; tables begin with dataset, method, seeds, guidance, steps."""

    prompts: Cohort  # the rows of the test split whose prompts every cell draws
    spaces: tuple[Space, ...]  # feature spaces with the reals of these rows
    images: dict[Cell, Any]  # uint8 [N, 3, H, W]
    audits: dict[Cell, list[Audit]]  # KID by group, in each feature space
    own: Cell  # the study's own, which the others are compared with
    table: pd.DataFrame  # attribute, level, metric (kid), features, n, value, low, high, note
    changes: pd.DataFrame  # with p; kid_change: a cell minus the own, on the same prompts
    contrasts: pd.DataFrame  # CONTRAST_COLUMNS: does a level change more than another?
    notes: list[str]  # the gates of 05 that failed

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        own = {"tab_sweep": self.table, "tab_sweep_changes": self.changes}
        return {**own, "tab_sweep_contrasts": self.contrasts}

    def scalars(self) -> dict[str, Any]:
        """What 15 records: overall KID of every cell in the first space, how many there are."""
        own = self.table[self.table["attribute"] == "overall"]
        own = own[own["features"] == own["features"].iloc[0]]
        found = {f"kid_guidance{r.guidance:g}_steps{r.steps}": r.value for r in own.itertuples()}
        return {**found, "cells": len(own), "images": int(own["n"].max())}


def sweep_rows(study: Study, count: int) -> Ints:
    """Test rows whose prompts are drawn, levels taking turns: rare ones as far as they go."""
    sizes = [len(levels) for levels in study.cohort.attribute_levels.values()]
    codes = torch.from_numpy(study.cohort.included().split("test").codes())
    chosen = balanced_rows(codes, sizes, count, study.settings.generation.seed)
    return np.asarray(chosen.numpy(), dtype=np.int64)


def make_cell(study: Study, prompts: Cohort, cell: Cell) -> Any:
    """Images of a cell, uint8 [N, 3, H, W]: found again, or made; resumable image by image."""
    settings = study.settings
    method, seed = settings.sweep.method, settings.seeds[0]
    own = study.with_settings(replace(settings, generation=cell.of(settings.generation)))
    names, place = prompts.table["image"].tolist(), own.places.sweep(method, seed)
    # the split is part of what the noise is drawn from: as of 04's test images
    asked = prompts.table["prompt"].tolist()
    generate(own, names, asked, method, seed, "test", place)
    return load_generated(place, "test", names)


def measure_sweep(study: Study) -> SweepResult:
    """Every cell, made where missing: KID by group, and the paired change from the own cell."""
    settings = study.settings
    check_cells(settings)
    kept = study.cohort.included()
    rows = sweep_rows(study, settings.sweep.images)
    prompts = kept.split("test").take(rows)
    size = settings.model.image_size
    real = [kept.split(name).load_images(size) for name in ("train", "test")]
    spaces = tuple(replace(space, test=space.test[rows]) for space in feature_spaces(study, *real))
    cells = tqdm(cells_of(settings), desc="cells of the sweep", disable=None)
    images = {cell: make_cell(study, prompts, cell) for cell in cells}
    audits = {cell: cell_audits(settings, prompts, spaces, own) for cell, own in images.items()}
    notes = gate_notes(study.places)
    tables = as_tables(settings, audits, notes)
    return SweepResult(prompts, spaces, images, audits, own_cell(settings), *tables, notes)


def cell_audits(
    settings: Settings, prompts: Cohort, spaces: tuple[Space, ...], images: Any
) -> list[Audit]:
    """KID by group of a cell's images, in each feature space; exploratory."""
    own, attributes = settings.audit, prompts.attribute_levels
    groups = group_units(prompts.table, attributes)
    return [
        audit(
            kid_metric(space.kernel, space.test, space.of(images)), groups, attributes,
            metric="kid", role=EXPLORATORY, features=space.extractor.name, **own.sizes,
        )
        for space in spaces
    ]  # fmt: skip


def as_tables(
    settings: Settings, audits: Mapping[Cell, list[Audit]], notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Values, changes and contrasts, from the audits of every cell in each feature space."""
    base, values, changes, contrasts = audits[own_cell(settings)], [], [], []
    model = {"method": settings.sweep.method, "seeds": str(settings.seeds[0])}
    for cell, found in audits.items():
        labels = {"dataset": settings.dataset, **model, **asdict(cell)}
        for one, own in zip(found, base, strict=True):
            values.append(labelled(one.by_group.assign(features=one.features), labels))
            if cell == own_cell(settings):
                continue
            moved = change(one, own)
            p = [estimate.p_value() for estimate in moved.estimates.values()]
            changed = moved.by_group.assign(features=one.features, p=p)
            changes.append(labelled(changed, labels))
            contrasts.append((labels, moved))
    none = pd.DataFrame({"note": []})  # where there is but one cell
    moves = pd.concat(changes, ignore_index=True) if changes else none
    gaps = contrast_table(contrasts) if contrasts else none
    whole = pd.concat(values, ignore_index=True)
    return with_notes(whole, notes), with_notes(moves, notes), with_notes(gaps, notes)
