"""What the notebooks share: the cohort, its level names, examples and prompt galleries.

The cohort is read when it is missing and found again when it is there, so that a
notebook runs alone as well as in the graph. No neural network is needed here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from fairdiff_lib.audit.gates import reconstruction_r2
from fairdiff_lib.data.cohort import Cohort, read_cohort, spec_for
from fairdiff_lib.disk.files import read_json, read_table, write_json, write_table
from fairdiff_lib.disk.places import CARD, Places, is_simulated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings, as_dict
from fairdiff_lib.sim.simulators import ruler_for, simulate

# -- the cohort ------------------------------------------------------------------------------


def ensure_data(settings: Settings, layout: Places) -> Path:
    """Folder of the dataset; a simulated one is written if it isn't there.

    Raises
    ------
    InputError
        Real data that are missing: where they were expected.
    """
    if layout.data.is_dir():
        return layout.data
    if not is_simulated(settings.dataset):
        raise InputError(
            f"{layout.data}: folder not found; put {settings.dataset} there or give data_root"
        )
    simulate(settings, layout.data)
    return layout.data


def load_cohort(settings: Settings, layout: Places) -> Cohort:
    """The cohort, read and hashed once; later calls trust it while no file has changed.

    Raises
    ------
    InputError
        As ``cohorts.read_cohort`` and :func:`ensure_data`.
    """
    root = ensure_data(settings, layout)
    mark = folder_mark(root)
    notes = layout.cohort / "cohort.json"
    if notes.is_file() and read_json(notes).get("mark") == mark:
        table = read_table(layout.cohort / "cohort.csv", dtype=str, keep_default_na=False)
        spec = spec_for(settings.dataset, settings.reading.coding)
        return Cohort(spec, table, root, read_json(notes)["data_hash"])
    own = settings.reading
    cohort = read_cohort(settings.dataset, root, coding=own.coding, split_seed=own.split_seed)
    write_table(cohort.table, layout.cohort / "cohort.csv")
    write_json(notes, {"data_hash": cohort.data_hash, "mark": mark})
    return cohort


def folder_mark(root: Path) -> str:
    """Digest of names, sizes and times of the files below a folder: cheap, for this machine.

    The folder's card is none of the data.
    """
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.parent == root and CARD in path.name:  # also while it is being written
            continue
        about = path.stat()
        total.update(f"{path.relative_to(root)}|{about.st_size}|{about.st_mtime_ns}\n".encode())
    return total.hexdigest()


def planted_table(settings: Settings) -> pd.DataFrame:
    """The simulator's settings, one per row; no row for a real dataset."""
    values = as_dict(settings.simulator) if is_simulated(settings.dataset) else {}
    return pd.DataFrame({"setting": list(values), "value": list(values.values())})


def sample_images(cohort: Cohort, settings: Settings) -> tuple[np.ndarray, list[str]]:
    """A test image per demographic level, uint8 [G, 3, H, W], and the levels' names."""
    rows, names = group_examples(cohort)
    test = cohort.included().split("test")
    return test.load_images(settings.model.image_size, rows), names


def ruler_table(cohort: Cohort, settings: Settings) -> pd.DataFrame:
    """R^2 of the family's quantity measured on original test images; NaN without a truth."""
    test, ruler = cohort.included().split("test"), ruler_for(settings.dataset)
    if ruler is None:
        return pd.DataFrame([{"measure": "none", "images": 0, "lost": 0, "value": np.nan}])
    truth = ruler.truth(cohort.root, test.table["image"].tolist())
    measured = ruler.measure(test.load_images(settings.model.image_size))
    row = {"images": len(test), "lost": int(np.isnan(measured).sum())}
    value = reconstruction_r2(measured, truth)
    return pd.DataFrame([{"measure": f"R^2 of the {ruler.name}", **row, "value": value}])


def all_levels(cohort: Cohort) -> dict[str, tuple[str, ...]]:
    """Attributes and prompted conditions with their level names, in the spec's order."""
    return attribute_levels(cohort) | condition_levels(cohort)


def attribute_levels(cohort: Cohort) -> dict[str, tuple[str, ...]]:
    """Demographic attributes with their level names."""
    return {a.name: a.levels for a in cohort.spec.attributes}


def condition_levels(cohort: Cohort) -> dict[str, tuple[str, ...]]:
    """Conditions that the prompt names, with their level names.

    HAM10000's dx is none: a generated image was never asked for one.
    """
    return {c.name: c.levels for c in cohort.spec.prompted}


def prompted_codes(cohort: Cohort) -> np.ndarray:
    """Level index of each row per condition of :func:`condition_levels`, int64 [N, C]."""
    named = [c in cohort.spec.prompted for c in cohort.spec.conditions]
    return cohort.condition_codes()[:, named]


# -- examples and prompt galleries -----------------------------------------------------------


def usual_profile(cohort: Cohort) -> dict[str, str]:
    """Commonest level of every attribute in training, first level of every prompted condition."""
    train = cohort.included().split("train").table
    profile = {a.name: str(train[a.name].mode().iloc[0]) for a in cohort.spec.attributes}
    return profile | {c.name: c.levels[0] for c in cohort.spec.prompted}


def gallery_rows(cohort: Cohort) -> list[tuple[str, str]]:
    """(condition, level) of each gallery row: the conditions that the prompt mentions."""
    return [(c.name, level) for c in cohort.spec.prompted for level in c.levels]


def group_examples(cohort: Cohort) -> tuple[np.ndarray, list[str]]:
    """A test row per attribute level, as alike in everything else as the test split allows.

    Returns
    -------
    rows : int64 [G]
        Positions in ``cohort.included().split("test")``.
    names : list of str
        The level that each row stands for.
    """
    table = cohort.included().split("test").table
    profile = usual_profile(cohort)
    alike = (table[list(profile)] == pd.Series(profile)).to_numpy().sum(axis=1)  # [N]
    rows: list[int] = []
    names: list[str] = []
    for attribute in cohort.spec.attributes:
        for level in attribute.levels:
            own = (table[attribute.name] == level).to_numpy()
            row = int(np.where(own, alike, alike.min() - 1).argmax())
            alike[row] -= len(profile)  # another patient for the next level, where there is one
            rows.append(row)
            names.append(level)
    return np.array(rows, dtype=np.int64), names


# -- the study's runs ------------------------------------------------------------------------


def runs_of(settings: Settings) -> list[tuple[str, int]]:
    """Every (method, seed) of a study."""
    return [(method, seed) for method in settings.methods for seed in settings.seeds]
