"""Jobs that a table rests on, and the folder that each of them fills.

A folder's name holds a digest of the settings that the job depends on (``store.Places``), so two
settings are the same to a job where they name the same folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.notebooks import NOTEBOOKS
from fairdiff_lib.settings.options import parse_overrides

BASE = "03_train_base"
PER_RUN = ("03_train", "04_generate")  # a job for each method and seed
ORDER = ("02_simulators", "01_cohorts", BASE, *PER_RUN, "05_quality", "07_downstream")


def _last_of(notebook: str) -> str:
    """The last of ORDER that a notebook waits for."""
    after = NOTEBOOKS[notebook].after if notebook in NOTEBOOKS else ORDER[-1:]
    if notebook == "08_ablations":
        return BASE  # it keeps runs of its own
    return max((_of_order(name) for name in after), key=ORDER.index)


def _of_order(job: str) -> str:
    if job in ORDER:
        return job
    return job.split("_none_seed")[0] if "_seed" in job else _last_of(job)


def stages_of(notebook: str, settings: Mapping[str, Any], ablation: bool = False) -> list[str]:
    """Jobs whose results a notebook's tables rest on, in the graph's order.

    Parameters
    ----------
    notebook : str
        Any unknown one rests on everything.
    settings : mapping
        Of a stamp: dataset, methods, seeds.
    ablation : bool
        Whether it ran for the ablation study, which trains its own runs.

    Returns
    -------
    list of str
        As ``03_train_none_seed0``.
    """
    last = _last_of(notebook)
    if ablation:
        last = BASE
    kinds = ORDER[: ORDER.index(last) + 1]
    jobs = [job for kind in kinds for job in _jobs(kind, notebook, settings)]
    return (
        jobs
        if dataset_of(settings["dataset"]).simulated
        else [job for job in jobs if job != ORDER[0]]
    )


def _jobs(kind: str, notebook: str, settings: Mapping[str, Any]) -> Iterator[str]:
    if kind not in PER_RUN:
        yield kind
        return
    own = ((method, seed) for method in settings["methods"] for seed in settings["seeds"])
    for method, seed in [("none", 0)] if notebook == "10_proof" else own:
        yield f"{kind}_{method}_seed{seed}"


def method_and_seed(job: str) -> tuple[str, int]:
    """Of ``03_train_<method>_seed<seed>`` and ``04_generate_...``."""
    method, seed = job.split("_", 2)[2].rsplit("_seed", 1)
    return method, int(seed)


def result_of(layout: Places, job: str) -> Path:
    """The folder that a job of ``ORDER`` fills; of an audit, that of the study's records."""
    fixed = {"02_simulators": layout.data, "01_cohorts": layout.cohort, BASE: layout.base}
    if job in fixed:
        return fixed[job]
    if job.startswith("03_train"):
        return layout.run(*method_and_seed(job))
    return layout.generated(*method_and_seed(job)) if job.startswith(PER_RUN) else layout.records


def is_same(job: str, preset: str, dataset: str, overrides: tuple[str, str]) -> bool:
    """Whether a job's result is the same under two texts of overrides.

    Texts that today's settings don't know are the same only where they are equal.
    """
    if overrides[0] == overrides[1]:
        return True
    try:
        found = [load_settings(preset, dataset, parse_overrides(text)) for text in overrides]
    except InputError:
        return False
    return len({result_of(Places(settings), job) for settings in found}) == 1
