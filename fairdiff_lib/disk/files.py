"""Disk: the layout of runs and outputs, atomic writes, content hashes, stamps.

Everything is first written beside its final name and then renamed, so a killed
process or a full disk leaves either the old file, the new one, or none.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairdiff_lib.settings.methods import METHODS, config_of, fields_of
from fairdiff_lib.settings.options import InputError, Settings, as_dict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CODE_PATHS = (
    "fairdiff_lib",
    "notebooks",
    "Snakefile",
    "dataset.smk",
    "pyproject.toml",
    "constraints.txt",
)
CARD = "README.md"  # of a model or a dataset, where the Hugging Face Hub looks for it
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


# -- atomic writes ---------------------------------------------------------------------------


@contextmanager
def _clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one line that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path}: disk full; free some space, nothing was kept") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            reason = os.strerror(error.errno)
            raise InputError(f"{path}: cannot be written ({reason})") from error
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` if the block succeeds, and is removed if not.

    Raises
    ------
    InputError
        The disk is full or the place can't be written.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with _clear_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        if temporary.is_file():
            temporary.unlink()


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``path`` (replacing it) if the block succeeds.

    Raises
    ------
    InputError
        The disk is full or the place can't be written.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with _clear_disk_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            old = _temporary(path)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_other(folder: Path, *known: str, need: str = "") -> None:
    """Refuse to replace a folder that holds something else than what goes there.

    Parameters
    ----------
    folder : Path
        May be missing or empty.
    *known : str
        Names that it may hold; without any, all are allowed.
    need : str
        A name without which it is another folder.

    Raises
    ------
    InputError
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file; expected a new or empty folder")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    other = [name for name in names if known and name not in known]
    if other or (names and need and need not in names):
        raise InputError(
            f"{folder}: holds {(other or names)[0]}, which would be lost; expected a new or empty "
            "folder, or what this command wrote before"
        )


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically: sorted keys, two-space indent."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON.

    Raises
    ------
    InputError
        The file is missing or isn't JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: missing; expected a JSON file")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error


def write_table(frame: pd.DataFrame, path: Path | str, stamp: Mapping[str, Any] | None) -> Path:
    """Write a tidy table as CSV, its stamp as JSON beside it (tab02.csv, tab02.json).

    Parameters
    ----------
    frame : DataFrame
        Written without its index.
    path : path
        Ends in ``.csv``.
    stamp : mapping or None
        From :func:`make_stamp`; None only for intermediate tables of a run folder.
    """
    path = Path(path)
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False)
    if stamp is not None:
        write_stamp(stamp, path)
    return path


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


def read_table(path: Path | str, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """Read a CSV and require columns.

    Raises
    ------
    InputError
        The file is missing, empty or unreadable, or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: missing; expected a CSV table")
    try:
        frame: pd.DataFrame = pd.read_csv(path, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as CSV ({error})".replace("\n", " ")) from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: lacks the column(s) {', '.join(missing)}; has {', '.join(frame.columns)}"
        )
    return frame


def write_figure(figure: Figure, path: Path | str, stamp: Mapping[str, Any]) -> Path:
    """Write ``path`` (without suffix) as .png, .pdf and .json (the stamp); the PNG's path."""
    path = Path(path)
    for suffix, options in ((".png", {"dpi": 150}), (".pdf", {"metadata": {"CreationDate": None}})):
        with atomic_file(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], bbox_inches="tight", **options)
    write_stamp(stamp, *(path.with_suffix(suffix) for suffix in (".png", ".pdf")))
    return path.with_suffix(".png")


# -- hashes and stamps -----------------------------------------------------------------------


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_folder(root: Path | str, files: Sequence[str] | None = None) -> str:
    """SHA-256 over the sorted relative names and contents of a folder's files.

    Parameters
    ----------
    root : path
    files : sequence of str, optional
        Relative names to take; all files below ``root`` without them.

    Returns
    -------
    str
        64 hex digits; the same wherever the folder lies.
    """
    root = Path(root)
    names = files
    if names is None:
        names = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    total = hashlib.sha256()
    for name in sorted(names):
        total.update(f"{name}\0{hash_file(root / name)}\n".encode())
    return total.hexdigest()


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
        "simulated": is_simulated(settings.dataset),
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


def is_simulated(dataset: str) -> bool:
    """Whether a dataset's name says that it is simulated."""
    return dataset.endswith("_simulated")


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold a file's lock: a second process that asks for it waits until the first has done."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


# -- layout ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where everything lies. A run folder's name holds a digest of the settings it depends on.

    Parameters
    ----------
    settings : Settings
    data_root : str
        Folder of the real data; empty = data/real/<dataset>.
    runs_root, figures_root : str
        Relative ones are below the project.
    """

    settings: Settings
    data_root: str = ""
    runs_root: str = "data/runs"
    figures_root: str = "figures"

    def _runs(self) -> Path:
        return PROJECT_ROOT / self.runs_root / self.settings.dataset

    def _digest(self, *sections: str) -> str:
        data = ("simulator",) if is_simulated(self.settings.dataset) else ()
        inner = self.settings.digest("dataset", *data, "reading", *sections)
        usual = self.data == PROJECT_ROOT / f"data/real/{self.settings.dataset}"
        place = "" if is_simulated(self.settings.dataset) or usual else str(self.data)
        return hashlib.sha256(f"{inner}{place}".encode()).hexdigest()[:10]

    @property
    def data(self) -> Path:
        """The dataset, in its original layout."""
        if is_simulated(self.settings.dataset):
            return self._runs() / f"data-{self.settings.digest('dataset', 'simulator')}"
        return PROJECT_ROOT / (self.data_root or f"data/real/{self.settings.dataset}")

    @property
    def cohort(self) -> Path:
        """cohort.csv and the data's hash."""
        return self._runs() / f"cohort-{self._digest()}"

    @property
    def base(self) -> Path:
        """The pipeline that every method starts from, and its training."""
        return self._runs() / f"base-{self._digest('model', 'vae', 'base')}"

    def run(self, method: str, seed: int) -> Path:
        """The fine-tuned pipeline of a method and seed, and its training."""
        parts = ["model", "vae", "base", "training"]
        if method not in METHODS or not fields_of(method):
            return self._runs() / f"{method}-seed{seed}-{self._digest(*parts)}"
        own = replace(self.settings, mitigation=config_of(method, self.settings.mitigation))
        digest = replace(self, settings=own)._digest(*parts, "mitigation")
        return self._runs() / f"{method}-seed{seed}-{digest}"

    def generated(self, method: str, seed: int) -> Path:
        """Images of a method and seed: a folder per split, and a manifest."""
        return self.run(method, seed) / f"generated-{self.settings.digest('generation')}"

    def sweep(self, method: str, seed: int) -> Path:
        """Images of some test prompts by these generation settings: a cell of the sweep."""
        return self.run(method, seed) / f"sweep-{self.settings.digest('generation')}"

    @property
    def features(self) -> Path:
        """The feature encoder and cached features."""
        parts = self._digest("model", "encoder")
        return self._runs() / f"features-{parts}"

    def classifier(self, source: str, seed: int, name: str) -> Path:
        """A downstream classifier trained on ``real`` or on a method's images.

        ``name`` is one of ``config.CLASSIFIERS``.
        """
        return self._images(source, seed) / f"{name}-{self.settings.digest(name)}"

    def _images(self, source: str, seed: int) -> Path:
        """What hangs on a source's images: beside generated ones, by the size of real ones."""
        if source == "real":
            return self._runs() / f"real-seed{seed}-{self._digest('model')}"
        return self.generated(source, seed)

    def matrix_run(self, label: str, seed: int, generator: int | None) -> Path:
        """A classifier of the downstream matrix, by the label of what it is trained on.

        ``generator`` is the seed of the run whose images it sees, None where it sees none.
        """
        own = self.settings.matrix
        source = ("real", seed) if generator is None else (own.method, generator)
        folder = f"matrix-{own.classifier}-{self.settings.digest(own.classifier)}"
        return self._images(*source) / folder / f"{label}-seed{seed}"

    @property
    def matrix(self) -> Path:
        """Records of the downstream matrix's jobs."""
        return self._runs() / f"matrix-{self._digest(*_SECTIONS, 'matrix')}"

    @property
    def records(self) -> Path:
        """Scalars that the notebooks recorded, one JSON each."""
        return self._runs() / f"records-{self.settings.preset}-{self._digest(*_SECTIONS)}"

    @property
    def figures(self) -> Path:
        """Tables and figures of this preset and dataset."""
        return PROJECT_ROOT / self.figures_root / self.settings.preset / self.settings.dataset

    @property
    def figures_all(self) -> Path:
        """Tables and figures of this preset that span datasets."""
        return PROJECT_ROOT / self.figures_root / self.settings.preset / "all"

    def dose(self, digest: str) -> Path:
        """Cells of a dose-response from the base, by a digest of what it depends on besides."""
        parts = ("model", "vae", "base", "training")
        return self._runs() / f"dose-{self._digest(*parts)}-{digest}"

    @property
    def ablation(self) -> Path:
        """What the audit keeps of every run of the ablation study, and its executed notebooks."""
        return self.figures / "ablation"

    @property
    def pools(self) -> Path:
        """Pools of images whose KID is the proof's truth; a larger one begins with the same."""
        parts = ("model", "vae", "base", "training", "generation", "encoder")
        return self._runs() / f"pools-seed{self.settings.proof.seed}-{self._digest(*parts)}"

    @property
    def proof(self) -> Path:
        """Simulated audits of the proof."""
        parts = ("model", "vae", "base", "training", "generation", "encoder", "proof")
        return self._runs() / f"proof-{self._digest(*parts)}"

    @property
    def calibration(self) -> Path:
        """The proof's tables and figures: those of the quick preset stand for all."""
        folder = PROJECT_ROOT / self.figures_root
        own = folder if self.settings.preset == "quick" else folder / self.settings.preset
        return own / "calibration"

    @property
    def executed(self) -> Path:
        """Executed notebooks."""
        return self.figures / "executed"


_SECTIONS = (
    "seeds",
    "methods",
    "model",
    "vae",
    "base",
    "training",
    "mitigation",
    "generation",
    "encoder",
    "classifiers",
    "residual",
    "efficientnet",
    "vit",
    "audit",
)


def record(layout: Layout, name: str, scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Write a notebook's scalars as JSON (``layout.records/<name>.json``) and return them.

    Numpy scalars become plain ones; NaN becomes None.
    """
    plain: dict[str, Any] = {}
    for key, value in scalars.items():
        item = value.item() if hasattr(value, "item") else value
        plain[key] = None if isinstance(item, float) and item != item else item
    write_json(layout.records / f"{name}.json", plain)
    return plain
