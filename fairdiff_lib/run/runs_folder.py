"""What a runs folder still holds of a table's chain: cohort, pipelines, images, classifiers.

Each function looks at one thing and returns a link. What isn't there is unverifiable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.files import read_json, read_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.run.links import BROKEN, OK, UNVERIFIABLE, Link, commit_link, judge
from fairdiff_lib.run.stages import result_of
from fairdiff_lib.studies import plans
from fairdiff_lib.study import folder_mark

GONE = "isn't in the runs folder"


def folder_links(layout: Places, notebook: str, jobs: list[str], data_hash: str) -> Iterator[Link]:
    """Links of what a notebook's jobs left, as far as it is here.

    Parameters
    ----------
    layout : Places
    notebook : str
        The one that made the table; those of some studies have runs of their own.
    jobs : list of str
        From ``stages.stages_of``.
    data_hash : str
        Of the table's stamp.
    """
    yield cohort_link(layout, data_hash)
    for job in jobs:
        if job.startswith("03_train"):
            yield run_link(result_of(layout, job), data_hash)
        elif job.startswith("04_generate"):
            yield images_link(result_of(layout, job))
    if notebook == "13_matrix":
        yield matrix_link(layout, data_hash)
    if notebook == "15_sweep":
        yield from map(images_link, _sweep_folders(layout))


def cohort_link(layout: Places, data_hash: str) -> Link:
    """Whether the cohort is of the stamp's data, and these have not been touched since."""
    name, notes = f"{layout.cohort.name}/", layout.cohort / "cohort.json"
    if not notes.is_file():
        return Link(name, UNVERIFIABLE, GONE)
    found = read_json(notes)
    if found["data_hash"] != data_hash:
        return Link(name, BROKEN, f"is of data {found['data_hash'][:16]}")
    if not layout.data.is_dir() or folder_mark(layout.data) != found.get("mark"):
        return Link(name, UNVERIFIABLE, "the data's files are gone or were touched since")
    return Link(name, OK, "same data; no file of them was touched since they were hashed")


def run_link(folder: Path, data_hash: str) -> Link:
    """Whether a trained pipeline is of the stamp's data and of committed code."""
    if not (folder / "run.json").is_file():
        return Link(f"{folder.name}/", UNVERIFIABLE, GONE)
    found = read_json(folder / "run.json")
    own = commit_link(folder.name, found["stamp"])
    problems = [own.detail] if own.state == BROKEN else []
    if found["stamp"]["data_hash"] != data_hash:
        problems.append(f"was trained on data {found['stamp']['data_hash'][:16]}")
    return judge(f"{folder.name}/", problems, f"same data, {own.detail}")


def images_link(folder: Path) -> Link:
    """Whether every image that the manifests of a folder list is there."""
    name = f"{folder.parent.name}/{folder.name}/"
    manifests = sorted(folder.glob("*/manifest.csv"))
    if not manifests:
        return Link(name, UNVERIFIABLE, GONE)
    listed = {path.parent: read_table(path, ("image",), dtype=str) for path in manifests}
    names = [place / f"{image}.png" for place, table in listed.items()
             for image in table["image"]]  # fmt: skip
    missing = [path.name for path in names if not path.is_file()]
    problem = f"{len(missing)} listed images are missing, as {missing[0]}" if missing else ""
    return judge(name, [problem] if problem else [], f"{len(names)} images, as listed")


def matrix_link(layout: Places, data_hash: str) -> Link:
    """Whether the downstream matrix's classifiers are there, and of the stamp's data."""
    name, runs = f"{layout.matrix.name}/", plans.matrix_runs(layout.settings.matrix)
    found = [notes for run in runs for notes in [_matrix_notes(layout, run)] if notes]
    other = [run for run in found if run["data_hash"] != data_hash]
    if other:
        first = f"{other[0]['arm']} seed {other[0]['seed']}"
        return Link(name, BROKEN, f"{len(other)} classifiers are of other data, as {first}")
    if len(found) < len(runs):
        there = f"{len(found)} of {len(runs)} classifiers are in the runs folder"
        return Link(name, UNVERIFIABLE, there)
    return Link(name, OK, f"{len(runs)} classifiers, same data")


def _matrix_notes(layout: Places, run: plans.MatrixRun) -> dict[str, str]:
    """What a classifier's folder says of itself, whatever attribute it was balanced over."""
    for attribute in dataset_of(layout.settings.dataset).spec().attributes:
        path = plans.folder_of(layout, run, attribute.name) / "run.json"
        if path.is_file():
            found: dict[str, str] = read_json(path)
            return found
    return {}


def _sweep_folders(layout: Places) -> Iterator[Path]:
    own = layout.settings
    for cell in plans.cells_of(own):
        drawn = replace(layout, settings=replace(own, generation=cell.of(own.generation)))
        yield drawn.sweep(own.sweep.method, own.seeds[0])
