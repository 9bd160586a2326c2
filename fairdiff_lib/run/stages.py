"""Jobs that a table rests on, and the folder that each of them fills.

A folder's name holds a digest of the settings that the job depends on (``store.Places``), so two
settings are the same to a job where they name the same folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.places import Places, is_simulated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import load_settings, parse_overrides

BASE = "03_train_base"
PER_RUN = ("03_train", "04_generate")  # a job for each method and seed
ORDER = ("02_simulators", "01_cohorts", BASE, *PER_RUN, "05_quality", "07_downstream")
RESTS_ON = {  # a notebook -> the last of ORDER that it waits for, as in the graph
    "01_cohorts": "02_simulators",
    "05_quality": "04_generate",
    "06_perturbation": "03_train",
    "07_downstream": "05_quality",
    "08_ablations": BASE,  # it keeps runs of its own
    "09_verdict": "07_downstream",
    "10_proof": "03_train",
    "12_harm": "07_downstream",
    "13_matrix": "07_downstream",
    "14_privacy": "05_quality",
    "15_sweep": "05_quality",
}


def stages_of(notebook: str, settings: Mapping[str, Any], ablation: bool = False) -> list[str]:
    """Jobs whose results a notebook's tables rest on, in the graph's order.

    Parameters
    ----------
    notebook : str
        A key of ``RESTS_ON``; any other rests on everything.
    settings : mapping
        Of a stamp: dataset, methods, seeds.
    ablation : bool
        Whether it ran for the ablation study, which trains its own runs.

    Returns
    -------
    list of str
        As ``03_train_none_seed0``.
    """
    last = RESTS_ON.get(notebook, ORDER[-1])
    if ablation:
        last = BASE
    kinds = ORDER[: ORDER.index(last) + 1]
    jobs = [job for kind in kinds for job in _jobs(kind, notebook, settings)]
    return jobs if is_simulated(settings["dataset"]) else [job for job in jobs if job != ORDER[0]]


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
