"""Files: atomic writes, hashes, locks, JSON and CSV.

Everything is first written beside its final name and then renamed, so a killed process or a full
disk leaves either the old file, the new one, or none. A disk that is full, a place that can't be
written and a file that can't be read are an InputError that names it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from fairdiff_lib.settings.errors import InputError


@contextmanager
def _clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one line that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path}: disk full; free some space, nothing was kept") from error
        if error.errno in CANNOT:
            reason = os.strerror(error.errno)
            raise InputError(f"{path}: cannot be written ({reason})") from error
        raise


CANNOT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY,
          errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR)  # fmt: skip
TEMPORARY = ".{name}.{mark}.tmp"
NAME_BYTES = 255  # of a file's name, on every file system in use
LEAST_FREE = 2**20  # bytes: the least that anything here writes


def _temporary(path: Path) -> Path:
    return path.with_name(TEMPORARY.format(name=path.name, mark=uuid.uuid4().hex[:8]))


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` if the block succeeds, and is removed if not."""
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
def atomic_folder(path: Path | str, *, replace: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``path`` if the block succeeds.

    What was there is replaced as a whole; without ``replace``, only an empty folder is.
    """
    path = Path(os.path.realpath(path))  # what a link points to; the link stays
    temporary, old = _temporary(path), _temporary(path)
    try:
        with _clear_disk_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            if replace and path.exists():
                path.rename(old)
            temporary.rename(path)
    finally:
        if old.exists() and not path.exists():  # interrupted between the two
            old.rename(path)
        for rest in (old, temporary):
            shutil.rmtree(rest, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Refuse a folder that can't be made or written to, before there is anything to write."""
    place = folder.absolute()
    while not os.path.exists(place):  # noqa: PTH110  (Path.exists raises where nothing may be read)
        if os.path.islink(place):  # noqa: PTH114
            raise InputError(f"{place}: a link to nothing; expected a new or empty folder")
        if len(os.fsencode(TEMPORARY.format(name=place.name, mark="12345678"))) > NAME_BYTES:
            raise InputError(f"{place}: too long a name for a folder")
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{place}: a file; expected a new or empty folder")
    effective = os.access in os.supports_effective_ids
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK, effective_ids=effective):
        raise InputError(f"{folder}: cannot be written (no right to write in {place})")
    if shutil.disk_usage(place).free < LEAST_FREE:
        raise InputError(f"{folder}: disk full; free some space")


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that can't be replaced as a whole, before there is anything to write."""
    check_writable(folder)
    inside = Path(os.path.realpath(folder))
    if inside in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{folder}: the folder that you are in; expected another one to write to")
    check_writable(inside.parent)


def refuse_other(folder: Path, *known: str, need: str = "") -> None:
    """Refuse a folder that holds something else than what goes there, or can't be replaced.

    It may hold the names ``known`` (any, where none is given), and if anything, then ``need``.
    """
    check_replaceable(folder)
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    other = [name for name in names if known and name not in known]
    if other or (names and need and need not in names):
        raise InputError(
            f"{folder}: holds {(other or names)[0]}, which would be lost; expected a new or empty "
            "folder, or what this command wrote before"
        )


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically, as :func:`as_json` gives it."""
    with atomic_file(path) as temporary:
        temporary.write_text(as_json(value))


def as_json(value: Any) -> str:
    """JSON with sorted keys and two-space indent: equal values, equal text."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def read_json(path: Path | str) -> Any:
    path = Path(path)
    if not is_file(path):
        raise InputError(f"{path}: missing; expected a JSON file")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error


def write_table(frame: pd.DataFrame, path: Path | str) -> Path:
    """Write a tidy table as CSV, without its index; its path."""
    path = Path(path)
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False)
    return path


def read_table(path: Path | str, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """Read a CSV and require columns; ``options`` are those of ``pandas.read_csv``."""
    path = Path(path)
    if not is_file(path):
        raise InputError(f"{path}: missing; expected a CSV table")
    try:
        frame: pd.DataFrame = pd.read_csv(path, **options)
    except UnicodeError as error:
        raise InputError(f"{path}: not readable as CSV ({error}); expected UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        raise InputError(f"{path}: not readable as CSV ({error})".replace("\n", " ")) from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: lacks the column(s) {', '.join(missing)}; has {', '.join(frame.columns)}"
        )
    return frame


def is_file(path: Path) -> bool:
    """Whether a file is there; no error for a loop of links, a closed folder or too long a name."""
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises for the last two)


def files_below(root: Path) -> Iterator[Path]:
    """All files below a folder in order, also through links to folders, each of these once."""
    known: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in known:  # two links, or a loop
            inner.clear()
            continue
        known.add(real)
        inner.sort()
        yield from (Path(folder) / name for name in sorted(names))


def hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_folder(root: Path | str, files: Sequence[str] | None = None) -> str:
    """SHA-256 of the sorted relative names and contents of a folder's files, or of those named."""
    root = Path(root)
    if files is None:
        files = [p.relative_to(root).as_posix() for p in files_below(root) if p.is_file()]
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{hash_file(root / name)}\n".encode())
    return total.hexdigest()


def locked(path: Path | str) -> FileLock:
    """A file's lock, to hold by ``with``: who else asks for it waits until the first has done."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(place)
