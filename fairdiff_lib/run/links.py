"""A link between a file and what it rests on: right, broken or not to be told; those of stamps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.files import hash_file, read_json
from fairdiff_lib.disk.latex import origin_of
from fairdiff_lib.disk.stamps import BROKEN as BROKEN
from fairdiff_lib.disk.stamps import OK as OK
from fairdiff_lib.disk.stamps import UNVERIFIABLE as UNVERIFIABLE
from fairdiff_lib.disk.stamps import Link as Link
from fairdiff_lib.disk.stamps import git

STAMPED = (".csv", ".tex", ".png", ".html")  # kinds that a stamp stands beside


def judge(name: str, problems: Iterable[str], detail: str) -> Link:
    """A link that is broken by any problem, and ``ok`` with ``detail`` without one."""
    found = "; ".join(problems)
    return Link(name, BROKEN if found else OK, found or detail)


def broken(links: Iterable[Link]) -> list[Link]:
    """Those that are broken."""
    return [link for link in links if link.state == BROKEN]


def count(links: Iterable[Link]) -> str:
    """How many links are in which state, in words."""
    states = [link.state for link in links]
    said = [f"{states.count(state)} {state}" for state in (OK, UNVERIFIABLE, BROKEN)]
    return f"{len(states)} links: {', '.join(said)}"


def stamp_path(path: Path) -> Path:
    """Where a file's stamp lies."""
    return path.with_suffix(".json")


def bytes_link(path: Path) -> Link:
    """Whether a file is the one that its stamp was written for."""
    beside = stamp_path(path)
    if not beside.is_file():
        return Link(path.name, BROKEN, f"no stamp beside it; expected {beside.name}")
    stamp = read_json(beside)
    if path.suffix == ".tex" and path.name not in stamp.get("files", {}):
        return derived_link(path)
    return hash_link(path, stamp, beside.name)


def derived_link(path: Path) -> Link:
    """Whether LaTeX that its stamp doesn't know was made from the CSV that is beside it."""
    csv = path.with_suffix(".csv")
    if not csv.is_file():
        return Link(path.name, BROKEN, f"no {csv.name} beside it")
    found, wanted = hash_file(csv), origin_of(path) or "none"
    if found != wanted:
        return Link(path.name, BROKEN, f"{csv.name} is {found[:16]}, it was made of {wanted[:16]}")
    return Link(path.name, UNVERIFIABLE, f"made after the run from this {csv.name}")


def hash_link(path: Path, stamp: Mapping[str, Any], where: str) -> Link:
    """Whether a file's bytes have the hash that ``stamp["files"]`` names; ``where`` it stands."""
    files = stamp.get("files")
    if files is None:
        detail = f"{where} is of before stamps held hashes: an edit would not be seen"
        return Link(path.name, UNVERIFIABLE, detail)
    found, wanted = hash_file(path), files.get(path.name, "none")
    problem = f"sha-256 {found[:16]}, but {where} says {wanted[:16]}: edited, or of another run"
    return judge(path.name, [problem] if found != wanted else [], f"sha-256 {found[:16]}")


def commit_link(name: str, stamp: Mapping[str, Any]) -> Link:
    """Whether a stamp names a commit of this repository, and the code was that commit's."""
    commit = str(stamp.get("commit") or "")
    if not re.fullmatch("[0-9a-f]{40}", commit):
        return Link(name, BROKEN, f"commit {commit or 'none'}: expected the 40 digits of one")
    if stamp.get("dirty") is not False:
        return Link(name, BROKEN, f"made by code that differed from its commit {commit[:10]}")
    if not _has_git():
        return Link(name, UNVERIFIABLE, f"commit {commit[:10]}: no git checkout here")
    if not _exists(commit):
        if git("rev-parse", "--is-shallow-repository") == "true":
            return Link(name, UNVERIFIABLE, f"commit {commit[:10]}: not in this shallow clone")
        return Link(name, BROKEN, f"commit {commit[:10]} does not exist in this repository")
    return Link(name, OK, f"commit {commit[:10]}")


@cache
def _has_git() -> bool:
    return git("rev-parse", "--git-dir") is not None


@cache
def _exists(commit: str) -> bool:
    return git("cat-file", "-e", f"{commit}^{{commit}}") is not None


def stamped_files(root: Path) -> list[Path]:
    """Tables, figures and cards below a folder, with or without a stamp; no ablation's runs."""
    found = [path for path in root.rglob("*") if path.suffix in STAMPED]
    return sorted(path for path in found if "runs" not in path.relative_to(root).parts)


def stamp_links(root: Path) -> list[Link]:
    """Two links for every table and figure below a folder: its bytes, and its stamp's commit.

    One more for each other file that a stamp names, as a figure's PDF. A stamp of several datasets
    is broken where any of theirs is.
    """
    links, named = [], set()
    shown = stamped_files(root)
    for path in shown:
        name = path.relative_to(root).as_posix()
        own = bytes_link(path)
        links.append(Link(name, own.state, own.detail))
        if stamp_path(path).is_file():
            stamp = read_json(stamp_path(path))
            links += [commit_link(name, part) for part in parts_of(stamp)]
            named |= {path.with_name(other) for other in stamp.get("files") or ()}
    for path in sorted(named - set(shown)):
        name = path.relative_to(root).as_posix()
        if path.is_file():
            links.append(hash_link(path, read_json(stamp_path(path)), stamp_path(path).name))
        else:
            links.append(Link(name, BROKEN, "missing; a stamp names it"))
    return links


def parts_of(stamp: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The stamps of the datasets that a file's rows come from; of one dataset: the stamp."""
    return list(stamp["datasets"].values()) if "datasets" in stamp else [stamp]
