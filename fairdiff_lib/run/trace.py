"""From the data's hash to a table: every link of the chain is checked, not only named.

A table or figure says in its stamp what it rests on. Here that is held against what
lies beside it (executed notebooks, protocol, the ablation's recorded runs), against
git, and against the runs folder where there is one. What cannot be checked is called
unverifiable; it is not called right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdiff_lib.datasets import contents, load_settings
from fairdiff_lib.disk.files import read_json, read_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import git
from fairdiff_lib.run.executed import Executed, cells_of, read_executed, text_of
from fairdiff_lib.run.links import (
    BROKEN,
    OK,
    UNVERIFIABLE,
    Link,
    bytes_link,
    commit_link,
    hash_link,
    judge,
    parts_of,
    stamp_path,
)
from fairdiff_lib.run.runs_folder import folder_links
from fairdiff_lib.run.stages import is_same, stages_of
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.notebooks import NOTEBOOKS
from fairdiff_lib.settings.options import Settings, as_dict, parse_overrides
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.studies.ablation.recorded import COMPARABLE
from fairdiff_lib.studies.verdict.protocol import content_hash

BEFORE_PROTOCOL = ("01_cohorts", "02_simulators", "03_train")


def trace(path: Path | str, runs_root: str = "data/runs", data_root: str = "") -> list[Link]:
    """The chain from the data to a table or figure, each link checked.

    Parameters
    ----------
    path : path
        A table (.csv), figure (.png, .pdf) or card (.html) with its stamp beside it.
    runs_root, data_root : str
        As of the run; folders that aren't here make links unverifiable, not broken.

    Returns
    -------
    list of Link
        From the data to the file.

    Raises
    ------
    InputError
        The file is missing.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"{path}: missing; expected a table or figure")
    own = bytes_link(path)
    if not stamp_path(path).is_file():
        return [own]
    links: list[Link] = []
    for stamp in parts_of(read_json(stamp_path(path))):
        links += _Chain(path, stamp, runs_root, data_root).links()
        links.append(commit_link("stamp", stamp))
    return [*links, own]


def executed_copies(path: Path) -> list[Path]:
    """The executed notebooks that made a file: one, or one for each dataset that it spans."""
    parts = parts_of(read_json(stamp_path(path)))
    known = [part for part in parts if {"preset", "dataset"} <= set(part.get("parameters", {}))]
    copies = [_Chain(path.resolve(), part, "", "").copy for part in known]
    return [copy for copy in copies if copy is not None]


@dataclass(frozen=True)
class _Chain:
    """A file and one dataset's stamp of it."""

    path: Path
    stamp: Mapping[str, Any]
    runs_root: str
    data_root: str

    def links(self) -> list[Link]:
        given = self.stamp.get("parameters", {})
        if not {"preset", "dataset"} <= set(given):
            return [Link("made by", OK, f"a command, not a notebook, with {given}")]
        if self.study is None:
            place = f"{given['preset']}/{given['dataset']}"
            return [Link("study", BROKEN, f"no folder {place} beside {self.path.parent.name}")]
        return [
            self._data(),
            *(self._upstream(self.study / "executed" / f"{name}.ipynb") for name in self.stages()),
            *self._cited_ablation(),
            *self._recorded_runs(),
            *self._protocol(),
            *self._folders(),
            self._own_notebook(),
        ]

    # -- where things lie --------------------------------------------------------------------

    @property
    def study(self) -> Path | None:
        """figures/<preset>/<dataset>, from wherever the file lies below the same figures."""
        given = self.stamp["parameters"]
        below = Path(given["preset"]) / given["dataset"]
        return next((up / below for up in self.path.parents if (up / below).is_dir()), None)

    @property
    def notebook(self) -> str:
        """The notebook that makes files of this name; empty for an unknown one."""
        return contents().get(self.path.stem, ("", ""))[1]

    @property
    def copy(self) -> Path | None:
        """Its executed copy beside the file, or the study's for a file that spans datasets."""
        folders = [self.path.parent / "executed", self.path.parent / "ablation" / "executed"]
        if self.study and self.path.parent == self.study.parent / "all":
            folders.append(self.study / "executed")
        copies = [folder / f"{self.notebook}.ipynb" for folder in folders]
        return next((copy for copy in copies if copy.is_file()), None)

    @property
    def alone(self) -> bool:
        """Whether it lies where no study writes: a single run's files, kept for comparison."""
        place = self.path.parent
        homes = [home for own in [self.study] if own for home in (own, own.parent / "all")]
        return not (place / "executed").is_dir() and not any(map(place.is_relative_to, homes))

    @property
    def of_ablation(self) -> bool:
        return self.copy is not None and self.copy.parent.parent.name == "ablation"

    @property
    def cites_ablation(self) -> bool:
        """Whether a row of it is the ablation study's verdict."""
        own = self.study / "tab_verdict.csv" if self.study else None
        if self.path.stem not in ("tab14", "tab_verdict") or own is None or not own.is_file():
            return False
        return bool((read_table(own, ("study",))["study"] == "ablation").any())

    def stages(self) -> list[str]:
        """Jobs whose results the file rests on, in the graph's order, but for its own."""
        return stages_of(self.notebook, self.stamp["settings"], self.of_ablation)

    # -- data and notebooks ------------------------------------------------------------------

    def _data(self) -> Link:
        given, settings = self.stamp["parameters"], self.stamp["settings"]
        problems = [
            f"the stamp's parameters say {given[name]!r}, its settings {settings[name]!r}"
            for name in ("preset", "dataset")
            if given[name] != settings[name]
        ]
        kind = "simulated" if self.stamp["simulated"] else "real"
        about = ", ".join(f"{key}={value!r}" for key, value in given.items())
        return judge("data", problems, f"{self.stamp['data_hash'][:16]} ({kind}); {about}")

    def _upstream(self, copy: Path) -> Link:
        """A notebook that ran before: same study and data; its own commit."""
        if not copy.is_file():
            return Link(copy.stem, BROKEN, f"no executed copy {copy.parent.name}/{copy.name}")
        found = read_executed(copy)
        problems = [*self._other_data(found), *_code_problems(found), *found.errors]
        problems += self._other_settings(found)
        own = commit_link(copy.stem, found.stamp)
        if own.state != OK and found.stamp:
            return own if own.state == BROKEN or not problems else judge(copy.stem, problems, "")
        return judge(copy.stem, problems, f"{own.detail}; same study and data, code as committed")

    def _other_settings(self, found: Executed) -> Iterator[str]:
        """Parameters that made the job's result another one; some don't concern it."""
        given = self.stamp["parameters"]
        preset, dataset = given["preset"], given["dataset"]
        yield from _differing(found, {"preset": preset, "dataset": dataset})
        texts = (given.get("overrides", ""), found.parameters.get("overrides", ""))
        if not is_same(found.path.stem, preset, dataset, texts):
            yield from _differing(found, {"overrides": texts[0]})

    def _own_notebook(self) -> Link:
        """The notebook that made the file: same parameters, data and commit as in the stamp."""
        name = self.notebook
        if not name:
            return Link("notebook", BROKEN, f"none is known to make {self.path.stem}")
        if self.copy is None and self.alone:
            return Link(
                name, UNVERIFIABLE, "kept apart from its study, without its notebook's copy"
            )
        if self.copy is None:
            return Link(name, BROKEN, f"no executed copy of {name}.ipynb belongs to this file")
        found = read_executed(self.copy)
        problems = [*self._other_data(found), *_code_problems(found), *found.errors]
        problems += _differing(found, self.stamp["parameters"])
        mine, its = str(self.stamp["commit"]), str(found.stamp.get("commit"))
        if found.stamp and mine != its:
            problems.append(f"the stamp names commit {mine[:10]}, the notebook printed {its[:10]}")
        return judge(name, problems, "parameters, data and commit as in the stamp")

    def _other_data(self, found: Executed) -> Iterator[str]:
        if not found.stamp:
            yield "prints no stamp; expected one from its last cell"
        elif found.stamp["data_hash"] != self.stamp["data_hash"]:
            mine, its = self.stamp["data_hash"], str(found.stamp["data_hash"])
            yield f"ran on data {its[:16]}, the stamp names {mine[:16]}"

    # -- recorded runs and protocol ----------------------------------------------------------

    def _cited_ablation(self) -> Iterator[Link]:
        """The ablation study's notebook and table, where a verdict cites them."""
        if self.study and self.cites_ablation:
            yield self._upstream(self.study / "ablation" / "executed" / "08_ablations.ipynb")
            table = self.study / "tab_c2.csv"
            missing = Link(table.name, BROKEN, "missing; the verdict cites it")
            yield bytes_link(table) if table.is_file() else missing

    def _recorded_runs(self) -> Iterator[Link]:
        """What the ablation study keeps of its runs, in git."""
        if not ((self.of_ablation or self.cites_ablation) and self.study):
            return
        folder = self.study / "ablation" / "runs"
        paths = sorted(folder.glob("*.json"))
        runs = {path: read_json(path) for path in paths}
        hashed = [hash_link(path.with_suffix(kind), run, path.name)
                  for path, run in runs.items() for kind in (".csv", ".npz")]  # fmt: skip
        problems = [*self._missing_runs(paths), *self._run_problems(runs)]
        problems += [f"{link.name}: {link.detail}" for link in hashed if link.state == BROKEN]
        unknown = sum(link.state == UNVERIFIABLE for link in hashed)
        said = f"{len(paths)} runs; data, base and encoder the same, commits exist"
        yield judge("ablation/runs", problems, said)
        if unknown and not problems:
            detail = f"{unknown} files recorded before their hashes were: an edit would not be seen"
            yield Link("ablation/runs", UNVERIFIABLE, detail)

    def _missing_runs(self, paths: list[Path]) -> Iterator[str]:
        settings = self._today()
        if settings is None:
            return
        there = {path.name for path in paths}
        wanted = [arms.path_of(Places(settings), *run).name for run in arms.runs_of(settings)]
        missing = [name for name in wanted if name not in there]
        if missing:
            yield f"{len(missing)} of {len(wanted)} runs are missing, as {missing[0]}"

    def _run_problems(self, runs: Mapping[Path, Any]) -> Iterator[str]:
        for name in COMPARABLE:
            values = {run["identity"].get(name, "") for run in runs.values()}
            if len(values) > 1:
                yield f"runs rest on {len(values)} different values of {name}"
        for path, run in runs.items():
            own = commit_link(path.stem, run["stamp"])
            if own.state == BROKEN:
                yield f"{path.stem}: {own.detail}"
            if run["stamp"]["data_hash"] != self.stamp["data_hash"]:
                yield f"{path.stem}: measured on other data"

    def _protocol(self) -> Iterator[Link]:
        """What was declared before; the verdict names its hash."""
        assert self.study is not None
        place = self.study / "ablation" if self.of_ablation else self.study
        path = place / "protocol.json"
        if not path.is_file() or self.notebook in BEFORE_PROTOCOL:
            return
        found = read_json(path)
        problems = []
        if content_hash(found["protocol"], compact=not self.of_ablation) != found["sha256"]:
            problems.append("its content doesn't have the hash that it states")
        if found["data_hash"] != self.stamp["data_hash"]:
            problems.append(f"written for data {found['data_hash'][:16]}")
        problems += self._other_protocol(found["sha256"])
        own = commit_link("protocol", found)
        problems += [own.detail] if own.state == BROKEN else []
        yield judge("protocol", problems, f"{found['sha256'][:16]}, {own.detail}")

    def _other_protocol(self, digest: str) -> Iterator[str]:
        if self.path.suffix != ".csv" or self.of_ablation:
            return
        table = read_table(self.path, dtype=str)
        if {"dataset", "protocol"} <= set(table.columns):
            own = table[table["dataset"] == self.stamp["parameters"]["dataset"]]
            other = set(own["protocol"]) - {digest}
            if other:
                yield f"is {digest[:16]}, but rows of the table name {min(other)[:16]}"

    # -- the runs folder ---------------------------------------------------------------------

    def _today(self) -> Settings | None:
        """Settings that the parameters amount to now; None where they are other than then."""
        given = self.stamp["parameters"]
        try:
            settings = load_settings(
                given["preset"], given["dataset"], parse_overrides(given.get("overrides", ""))
            )
        except InputError:
            return None
        same = as_dict(settings) == self.stamp["settings"]
        return settings if same else None

    def _folders(self) -> Iterator[Link]:
        """Cohort, pipelines and images in the runs folder, as far as they are here."""
        settings = self._today()
        if settings is None:
            detail = "the preset's settings have changed since: folders of runs can't be named"
            yield Link("runs folder", UNVERIFIABLE, detail)
            return
        layout = Places(settings, self.data_root, self.runs_root)
        if not layout.cohort.parent.is_dir():
            yield Link("runs folder", UNVERIFIABLE, f"{self.runs_root} isn't here: not checked")
            return
        yield from folder_links(layout, self.notebook, self.stages(), self.stamp["data_hash"])


def _differing(found: Executed, wanted: Mapping[str, Any]) -> Iterator[str]:
    """Parameters that the stamp has otherwise than the executed copy."""
    for key, value in wanted.items():
        its = found.parameters.get(key, "no such parameter")
        if its != value:
            yield f"parameter {key} is {its!r} in the notebook and {value!r} in the stamp"


def _code_problems(found: Executed) -> Iterator[str]:
    """An executed copy whose cells aren't those of its source at the commit that it printed."""
    commit = str(found.stamp.get("commit") or "")
    stems = [name for name in NOTEBOOKS if found.path.stem.startswith(name)]
    text = git("show", f"{commit}:notebooks/{max(stems, key=len)}.ipynb") if stems else None
    if commit and text and text_of(cells_of(found.path, json.loads(text))) != found.text:
        yield f"its cells are not those of the source at commit {commit[:10]}"
