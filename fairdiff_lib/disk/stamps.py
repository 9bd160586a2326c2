"""Stamps: what a number depends on, written beside it, and whether all of that still holds.

A stamp names its files and the stamps that it rests on by their hashes, and those name theirs: a
chain from a table to the data in which nothing can change unseen.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from fairdiff_lib.disk.files import (
    as_json,
    atomic_file,
    hash_file,
    read_json,
    write_json,
    write_table,
)
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.tables import has_latex, has_pdf, write_latex
from fairdiff_lib.settings.options import Settings, as_dict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OK, BROKEN, UNVERIFIABLE = "ok", "BROKEN", "unverifiable"  # states of a link
CODE_PATHS = ("fairdiff_lib", "notebooks", "Snakefile", "pyproject.toml", "constraints.txt")
STAMPED_PACKAGES = (
    *("torch", "diffusers", "transformers", "accelerate", "botorch", "torchmetrics", "fairlearn"),
    *("numpy", "pandas", "papermill"),
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
    if not has_latex(written.stem):
        written.with_suffix(".tex").unlink(missing_ok=True)  # an earlier version's
    more = [write_latex(written, stamp, title, datasets)] if has_latex(written.stem) else []
    write_stamp(stamp, written, *more)
    return written


def publish_figure(figure: Figure, path: Path | str, stamp: Mapping[str, Any]) -> Path:
    """Write ``path`` (without suffix) as .png, F1 to F7 and main figures as .pdf too, and a stamp.

    Returns the PNG's path; its colours are 256 at most.
    """
    path, stream = Path(path), io.BytesIO()
    figure.savefig(stream, format="png", dpi=150, bbox_inches="tight")
    with atomic_file(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(small_png(stream.getvalue()))
    if has_pdf(path.name):
        with atomic_file(path.with_suffix(".pdf")) as temporary, _small_pictures(figure):
            undated: Any = {"CreationDate": None}
            figure.savefig(temporary, format="pdf", bbox_inches="tight", metadata=undated)
    else:
        path.with_suffix(".pdf").unlink(missing_ok=True)  # an earlier version's
    suffixes = (".png", ".pdf")[: 1 + has_pdf(path.name)]
    write_stamp(stamp, *(path.with_suffix(suffix) for suffix in suffixes))
    return path.with_suffix(".png")


def small_png(png: bytes) -> bytes:
    """A PNG with at most 256 colours, chosen so that none is far off: a third of the size."""
    with Image.open(io.BytesIO(png)) as page:
        if page.mode == "P":
            return png
        few = _few_colours(page.convert("RGB"))
    stream = io.BytesIO()
    few.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _few_colours(page: Image.Image) -> Image.Image:
    return page.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


@contextmanager
def _small_pictures(figure: Figure) -> Iterator[None]:
    """For a PDF, pictures keep their own pixels, of 256 colours: half the size."""
    from matplotlib.image import AxesImage

    before: list[tuple[Any, Any, Any]] = []
    for picture in figure.findobj(AxesImage):
        assert isinstance(picture, AxesImage)  # findobj promises only artists
        pixels = np.asarray(picture.get_array())
        if pixels.dtype == np.uint8 and pixels.ndim == 3:
            before.append((picture, pixels, picture.get_interpolation()))
            picture.set_data(np.asarray(_few_colours(Image.fromarray(pixels)).convert("RGB")))
            picture.set_interpolation("none")  # else a PDF holds them enlarged
    try:
        yield
    finally:
        for picture, pixels, interpolation in before:
            picture.set_data(pixels)
            picture.set_interpolation(interpolation)


def hashes_of(places: Places, paths: Iterable[Path]) -> dict[str, str]:
    """Names and SHA-256 of those of the files that are there, for a stamp's ``rests_on``."""
    return {places.name_of(path): hash_file(path) for path in paths if path.is_file()}


@dataclass(frozen=True)
class Link:
    """A file that a chain names: ``ok``, ``BROKEN``, or ``unverifiable`` since it isn't here."""

    name: str
    state: str
    detail: str


def check(path: Path, roots: Mapping[str, Path]) -> list[Link]:
    """Every file that a table or figure rests on, once, from the data to the file itself."""
    found: dict[Path, Link] = {}
    _follow(path.with_suffix(".json"), roots, found)
    return list(found.values())


def _follow(stamp: Path, roots: Mapping[str, Path], found: dict[Path, Link]) -> None:
    """Check what a stamp rests on, deepest first, then its own files."""
    said = read_json(stamp)
    for name, wanted in _named(said).items():
        root, _, rest = name.partition("/")
        target = roots.get(root, stamp.parent / root) / rest
        new = target not in found
        link = _compare(target, name, wanted, stamp.name, UNVERIFIABLE)
        if new and target.suffix == ".json" and target.is_file():
            _follow(target, roots, found)
        if new or link.state == BROKEN:
            found[target] = link
    for name, wanted in said.get("files", {}).items():
        target = stamp.parent / name
        found.setdefault(target, _compare(target, name, wanted, stamp.name, BROKEN))


def _named(said: Mapping[str, Any]) -> dict[str, str]:
    """What a stamp rests on; one that spans data sets, all of theirs."""
    own = [said, *said.get("datasets", {}).values()]
    return {name: wanted for part in own for name, wanted in part.get("rests_on", {}).items()}


def _compare(path: Path, name: str, wanted: str, stamp: str, missing: str) -> Link:
    if not path.is_file():
        return Link(name, missing, f"not here; {stamp} names it")
    found = hash_file(path)
    if found != wanted:
        return Link(name, BROKEN, f"sha-256 {found[:16]}, but {stamp} says {wanted[:16]}: changed")
    return Link(name, OK, f"sha-256 {found[:16]}")


def write_stamp(stamp: Mapping[str, Any], *files: Path) -> Path:
    """Write a stamp beside the files of one name, as fig03.png and fig03.pdf; the stamp's path.

    Its ``files`` has their hashes: one that was edited, or is another run's, no longer fits.
    Settings, ten times as long as all else and the same for a whole study, lie in a file that the
    folder's stamps share and name (:func:`read_stamp` puts them back).
    """
    path = files[0].with_suffix(".json")
    said, shared = share_settings(stamp, path.parent)
    write_json(path, {**said, "files": {file.name: hash_file(file) for file in [*files, *shared]}})
    return path


def read_stamp(path: Path) -> dict[str, Any]:
    """A stamp as :func:`write_stamp` was given it."""
    said = read_json(path)
    shared = {part["settings"] for part in parts_of(said) if "settings" in part}
    files = {name: own for name, own in said["files"].items() if name not in shared}
    return {**restore_settings(said, path.parent), "files": files}


def parts_of(stamp: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stamps of the data sets that a file's rows come from; of one data set: the stamp."""
    return list(stamp["datasets"].values()) if "datasets" in stamp else [dict(stamp)]


def restore_settings(stamp: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The opposite of :func:`share_settings`."""
    said = dict(stamp)
    if "datasets" in stamp:
        parts = stamp["datasets"].items()
        said["datasets"] = {name: restore_settings(part, folder) for name, part in parts}
    if "settings" in stamp:
        said["settings"] = read_json(folder / stamp["settings"])
    return said


def share_settings(stamp: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """A stamp that names its settings' file in place of them, and these files, written."""
    said, shared = dict(stamp), list[Path]()
    if "datasets" in stamp:
        parts = {name: share_settings(part, folder) for name, part in stamp["datasets"].items()}
        said["datasets"] = {name: part for name, (part, _) in parts.items()}
        shared += [path for _, paths in parts.values() for path in paths]
    if "settings" in stamp:
        text = as_json(stamp["settings"])
        path = folder / f"settings-{hashlib.sha256(text.encode()).hexdigest()[:10]}.json"
        if not path.is_file():
            with atomic_file(path) as temporary:
                temporary.write_text(text)
        said["settings"] = path.name
        shared.append(path)
    return said, shared


def make_stamp(
    settings: Settings, data_hash: str, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a number depends on, to stand beside it; of the parameters all but names of folders."""
    plain = {k: v for k, v in (parameters or {}).items() if not k.endswith("_root")}
    return {
        "parameters": plain,
        "settings": as_dict(settings),
        "data_hash": data_hash,
        "simulated": settings.simulated,
        **make_provenance(),
    }


def make_provenance() -> dict[str, Any]:
    """The rest of a stamp; ``dirty``: the code differs from ``commit``, None outside git."""
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
    """Processor, cores and accelerator of this machine; no name and no path.

    Threads and instruction set too: sums are rounded in their order, and a training of a thousand
    steps follows that.
    """
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    used = {
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    return {"cpu": _processor(), "cores": os.cpu_count(), **used, "gpu": gpu,
            "system": platform.system()}  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    packages = {name: metadata.version(name) for name in STAMPED_PACKAGES}
    return {"python": platform.python_version(), **packages}
