"""From the data's hash to a table: every link of the chain is checked, not only named.

A stamp names, by their hashes, the files that it rests on, and theirs in turn name theirs
(``disk.stamps.check``). Beside that chain stand git, the protocol, the pictures that a manifest
lists, and the data. What cannot be checked is called unverifiable; it is not called right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.files import hash_file, read_json, read_table
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.stamps import BROKEN, OK, UNVERIFIABLE, Link, check, git
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.verdict.protocol import content_hash
from fairdiff_lib.study import folder_mark

SHOWN = (".csv", ".png", ".html")  # kinds that a stamp stands beside


def trace(path: Path | str, runs_root: str = "data/runs", data_root: str = "") -> list[Link]:
    """The chain from the data to a table, figure or card with its stamp, each link checked.

    ``runs_root`` and ``data_root`` are those of the run; what isn't there makes links unverifiable,
    not broken.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"{path}: missing; expected a table or figure")
    if not path.with_suffix(".json").is_file():
        return [Link(path.name, BROKEN, f"no stamp beside it; expected {path.stem}.json")]
    stamp = read_json(path.with_suffix(".json"))
    links: list[Link] = []
    roots = {"runs": PROJECT_ROOT / runs_root}
    for part in parts_of(stamp):
        given = part.get("parameters", {})
        figures = _figures_of(path, given)
        real = data_root or f"data/real/{given.get('dataset', '')}"
        roots |= {"figures": figures, "data": PROJECT_ROOT / real}
        links += _data(part, roots)
        links += _protocol(figures / str(given.get("preset")) / str(given.get("dataset")), part)
    chain = check(path, roots)
    for link in chain:
        links += [link, *_beside(link, roots)]
    if not any(part.get("rests_on") for part in (stamp, *parts_of(stamp))):
        links.append(Link("chain", UNVERIFIABLE, "the stamp names nothing that it rests on"))
    if path.name not in stamp.get("files", {}):
        links.append(Link(path.name, BROKEN, "its stamp does not name it"))
    return [*links, *(commit_link("stamp", part) for part in parts_of(stamp))]


def _figures_of(path: Path, given: Mapping[str, Any]) -> Path:
    """The figures folder that a file of a study lies in, however deep."""
    homes = (str(given.get("preset")), "calibration")
    return next((up.parent for up in path.parents if up.name in homes), path.parent)


def _data(stamp: Mapping[str, Any], roots: Mapping[str, Path]) -> Iterator[Link]:
    """Whether the cohorts that are here are of the stamp's data, and these untouched since."""
    if "data_hash" not in stamp:
        yield Link("made by", OK, f"a command, not a notebook, with {stamp.get('parameters')}")
        return
    wanted, kind = str(stamp["data_hash"]), "simulated" if stamp["simulated"] else "real"
    yield Link("data", OK, f"{wanted[:16]} ({kind})")
    for name in stamp.get("rests_on", {}):
        root, _, rest = name.partition("/")
        notes = (roots[root] / rest).with_name("cohort.json") if root in roots else Path()
        if not name.endswith("/cohort.csv") or not notes.is_file():
            continue
        found = read_json(notes)
        made = sorted(notes.parents[1].glob("data-*")) if stamp["simulated"] else [roots["data"]]
        if found["data_hash"] != wanted:
            yield Link(name, BROKEN, f"the cohort is of data {str(found['data_hash'])[:16]}")
        elif any(folder_mark(folder) == found.get("mark") for folder in made if folder.is_dir()):
            yield Link(name, OK, "no file of the data was touched since they were hashed")
        else:
            yield Link(name, UNVERIFIABLE, "the data's files are gone or were touched since")


def _protocol(study: Path, stamp: Mapping[str, Any]) -> Iterator[Link]:
    """Whether what was declared before is what its hash says, for the same data."""
    path = study / "protocol.json"
    if not path.is_file() or "data_hash" not in stamp:
        return
    found = read_json(path)
    problems = []
    if content_hash(found["protocol"]) != found["sha256"]:
        problems.append("its content doesn't have the hash that it states")
    if found["data_hash"] != stamp["data_hash"]:
        problems.append(f"written for data {found['data_hash'][:16]}")
    said = "; ".join(problems) or str(found["sha256"])[:16]
    yield Link("protocol", BROKEN if problems else OK, said)


def _beside(link: Link, roots: Mapping[str, Path]) -> Iterator[Link]:
    """What else a file of the chain says: its own commit, the pictures that it lists."""
    root, _, rest = link.name.partition("/")
    path = roots.get(root, Path()) / rest
    if link.state != OK or not rest:
        return
    if path.name == "manifest.csv":
        listed = read_table(path, ("image",), dtype=str)["image"]
        gone = [name for name in listed if not (path.parent / f"{name}.png").is_file()]
        said = f"{len(gone)} listed images are missing, as {gone[0]}" if gone else "as listed"
        yield Link(f"{path.parent.name} images", BROKEN if gone else OK, said)
    if path.suffix == ".json":
        said = read_json(path)
        stamp = said.get("stamp", said)
        if "commit" in stamp:
            yield commit_link(path.parent.name, stamp)


# -- stamps alone ----------------------------------------------------------------------------


def stamp_links(root: Path) -> list[Link]:
    """Links for every table, figure and card below a folder: its bytes, its stamp's commit."""
    links: list[Link] = []
    found = [path for path in root.rglob("*") if path.suffix in SHOWN]
    named: set[Path] = set()
    for path in sorted({own.with_suffix(".json") for own in found if _is_shown(own, root)}):
        name = path.relative_to(root).with_suffix("").as_posix()
        if not path.is_file():
            continue
        stamp = read_json(path)
        for file, wanted in stamp.get("files", {}).items():
            target = path.with_name(file)
            named.add(target)
            same = target.is_file() and hash_file(target) == wanted
            said = (
                f"sha-256 {wanted[:16]}"
                if same
                else f"edited, or not what {path.name} was written for"
            )
            links.append(Link(f"{name}{target.suffix}", OK if same else BROKEN, said))
        links += [commit_link(name, part) for part in parts_of(stamp)]
    for path in sorted(path for path in found if _is_shown(path, root) and path not in named):
        old = path.with_suffix(".json")
        hashed = "files" in read_json(old) if old.is_file() else True
        said = "no stamp beside it names it" if hashed else "its stamp is older than hashes in them"
        name = path.relative_to(root).as_posix()
        links.append(Link(name, BROKEN if hashed else UNVERIFIABLE, said))
    return links


def _is_shown(path: Path, root: Path) -> bool:
    """Not a file of the ablation's runs, which their own records vouch for."""
    return "runs" not in path.relative_to(root).parts


def commit_link(name: str, stamp: Mapping[str, Any]) -> Link:
    """Whether the commit that a stamp names exists here, and was the code that ran."""
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


def parts_of(stamp: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The stamps of the datasets that a file's rows come from; of one dataset: the stamp."""
    return list(stamp["datasets"].values()) if "datasets" in stamp else [stamp]


def broken(links: Iterable[Link]) -> list[Link]:
    """Those that are broken."""
    return [link for link in links if link.state == BROKEN]


def count(links: Iterable[Link]) -> str:
    """How many links are in which state, in words."""
    states = [link.state for link in links]
    said = [f"{states.count(state)} {state}" for state in (OK, UNVERIFIABLE, BROKEN)]
    return f"{len(states)} links: {', '.join(said)}"
