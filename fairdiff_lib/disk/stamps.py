"""Stamps: what a number depends on, written beside it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairdiff_lib.disk.files import atomic_file, hash_file, write_json, write_table
from fairdiff_lib.disk.latex import has_latex, write_latex
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.settings.options import Settings, as_dict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CODE_PATHS = (
    "fairdiff_lib",
    "notebooks",
    "Snakefile",
    "dataset.smk",
    "pyproject.toml",
    "constraints.txt",
)
STAMPED_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "botorch",
    "torchmetrics",
    "fairlearn",
    "numpy",
    "pandas",
    "papermill",
)


def publish_table(
    frame: pd.DataFrame,
    path: Path | str,
    stamp: Mapping[str, Any],
    title: str = "",
    datasets: Callable[[str], str] = str,
) -> Path:
    """Write a table as CSV, T1 to T14 as LaTeX too, and one stamp for both; the CSV's path."""
    written = write_table(frame, path)
    more = [write_latex(written, stamp, title, datasets)] if has_latex(written.stem) else []
    write_stamp(stamp, written, *more)
    return written


def publish_figure(figure: Figure, path: Path | str, stamp: Mapping[str, Any]) -> Path:
    """Write ``path`` (without suffix) as .png, .pdf and .json (the stamp); the PNG's path."""
    path = Path(path)
    for suffix, options in ((".png", {"dpi": 150}), (".pdf", {"metadata": {"CreationDate": None}})):
        with atomic_file(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], bbox_inches="tight", **options)
    write_stamp(stamp, *(path.with_suffix(suffix) for suffix in (".png", ".pdf")))
    return path.with_suffix(".png")


def write_stamp(stamp: Mapping[str, Any], *files: Path) -> Path:
    """Write a stamp beside the files of one name, with their hashes; the stamp's path.

    Parameters
    ----------
    stamp : mapping
        From :func:`make_stamp`.
    files : path
        What is stamped, as fig03.png and fig03.pdf. ``files`` of the written stamp maps each name
        to its SHA-256, so that a file that was edited, or is another run's, no longer fits.
    """
    path = files[0].with_suffix(".json")
    write_json(path, {**stamp, "files": {file.name: hash_file(file) for file in files}})
    return path


def make_stamp(
    settings: Settings, data_hash: str, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a number depends on, to stand beside it.

    Parameters
    ----------
    settings : Settings
    data_hash : str
        Of the cohort that was used.
    parameters : mapping, optional
        Of the notebook, where there was one. Folder names are left out.

    Returns
    -------
    dict
        parameters, settings, data_hash, simulated, versions, hardware, commit, dirty.
        ``dirty``: the code differs from the commit. ``commit`` is None outside git.
    """
    plain = {k: v for k, v in (parameters or {}).items() if not k.endswith("_root")}
    return {
        "parameters": plain,
        "settings": as_dict(settings),
        "data_hash": data_hash,
        "simulated": settings.simulated,
        **make_provenance(),
    }


def make_provenance() -> dict[str, Any]:
    """The part of a stamp that any result has: versions, hardware, commit, dirty."""
    status = git("status", "--porcelain", "--", *CODE_PATHS)
    return {
        "versions": versions(),
        "hardware": hardware(),
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def git(*arguments: str) -> str | None:
    """What git says of the project, stripped; None where it fails or there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def hardware() -> dict[str, Any]:
    """Processor, cores and accelerator of this machine; no name and no path."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"cpu": _processor(), "cores": os.cpu_count(), "gpu": gpu, "system": platform.system()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in STAMPED_PACKAGES:
        found[name] = metadata.version(name)
    return found
