"""One study: settings, places, cohort and stamp in one object.

Every notebook begins with ``Study.open(...)``; every function that trains, draws, measures or
writes for a study takes it as its first argument.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import Dataset, contents, dataset_name, dataset_of, load_settings
from fairdiff_lib.disk.files import files_below, read_json, read_table, write_json, write_table
from fairdiff_lib.disk.places import CARD, Places
from fairdiff_lib.disk.stamps import hashes_of, make_stamp, publish_figure, publish_table
from fairdiff_lib.disk.tables import as_written
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.notebooks import JOBS, NOTEBOOKS, Notebook, maker_of
from fairdiff_lib.settings.options import Settings, parse_overrides

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Runs = Sequence[tuple[str, int]]  # method, seed
NEEDS = {  # what a notebook may require -> in words, and the job that makes it
    "base": ("the model that every method starts from", "03_train_base"),
    "runs": ("a trained model", "03_train"),
    "images": ("generated images", "04_generate"),
    "protocol": ("the declared protocol", ""),
}


@dataclass(frozen=True)
class Study:
    """A data set, a preset and what was changed of it, and where its files lie."""

    settings: Settings
    places: Places
    parameters: Mapping[str, Any] = field(default_factory=dict)  # the notebook's, for the stamp

    @classmethod
    def open(
        cls,
        preset: str = "quick",
        dataset: str = "fairgenmed_simulated",
        overrides: str | Sequence[str] = "",
        data_root: str = "",
        runs_root: str = "data/runs",
        figures_root: str = "figures",
        **parameters: Any,
    ) -> Study:
        """The study that a notebook's parameters name.

        Parameters
        ----------
        preset, dataset : str
        overrides : str or sequence of str
            ``"training.steps=20 seeds=0,1"``, or these in a list, as YAML has them.
        data_root : str
            Folder of real data; empty = data/real/<dataset>.
        runs_root, figures_root : str
            Relative ones are below the project.
        **parameters
            The notebook's own, as ``method`` and ``seed``.

        Raises
        ------
        InputError
            A preset, data set or setting that does not exist, or a value that it can't have.
        """
        if not isinstance(overrides, str):
            overrides = " ".join(overrides or ())
        settings = load_settings(preset, dataset, parse_overrides(overrides))
        places = Places(settings, data_root, runs_root, figures_root)
        named = {"preset": preset, "dataset": dataset, "overrides": overrides, **parameters}
        return cls(settings, places, named)

    @property
    def entry(self) -> Dataset:
        """What the registry says of its data set."""
        return dataset_of(self.settings.dataset)

    @cached_property
    def cohort(self) -> Cohort:
        """The cohort, read and hashed once; later studies trust it while no file has changed.

        Simulated patients are drawn if they are not there.

        Raises
        ------
        InputError
            Real data that are missing (where they were expected) or can't be read.
        """
        entry, root = self.entry, self.places.data
        own, population = self.settings.reading, self.settings.simulator
        spec = entry.spec(own.coding, population)
        if not root.is_dir() and not entry.simulated:
            raise InputError(f"{root}: folder not found; put {entry.name} there or give data_root")
        if not root.is_dir():
            entry.draw(population, root)
        kept, notes = self.places.cohort / "cohort.csv", self.places.cohort / "cohort.json"
        mark = folder_mark(root)
        if notes.is_file() and read_json(notes).get("mark") == mark:
            table = read_table(kept, dtype=str, keep_default_na=False)
            return Cohort(spec, table, root, read_json(notes)["data_hash"])
        cohort = entry.read(
            root, coding=own.coding, split_seed=own.split_seed, population=population
        )
        write_table(cohort.table, kept)
        write_json(notes, {"data_hash": cohort.data_hash, "mark": mark})
        return cohort

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """What every number of this study depends on, to stand beside it."""
        return make_stamp(self.settings, self.cohort.data_hash, self.parameters)

    def with_settings(self, settings: Settings) -> Study:
        """The same study by other settings, in the same roots."""
        return Study(settings, replace(self.places, settings=settings), self.parameters)

    def require(self, *what: str) -> None:
        """Fail at once where something is missing that a notebook starts from.

        Parameters
        ----------
        *what : str
            ``base``, ``runs``, ``images``, ``protocol``, or a notebook whose results are read, as
            ``05_quality``.

        Raises
        ------
        InputError
            What is missing, and the command that makes it.
        """
        for need in what:
            missing = [path for path in self._needed(need) if not path.is_file()]
            if missing:
                words, first = NEEDS.get(need, (need, ""))[0], self.places.name_of(missing[0])
                raise InputError(f"{words}: {first} is missing; `{self._command(need)}` makes it")

    def waits_for(self, job: str) -> list[str]:
        """What a job (of ``JOBS``) starts from, as :meth:`require` takes it."""
        made = {maker: need for need, (_, maker) in NEEDS.items()}
        after = [x if x in NOTEBOOKS else "03_train_base" for x in JOBS[job].after]  # as one run's
        return ["protocol"] * JOBS[job].declared + [made.get(x, x) for x in after]

    def publish(
        self,
        name: str,
        made: pd.DataFrame | Figure,
        folder: Path | None = None,
        rests_on: Sequence[Path] = (),
    ) -> Path:
        """Write a table (CSV; T1 to T14 as LaTeX too) or a figure (PNG, PDF) with its stamp.

        The stamp names, by their hashes, the files of the jobs that the notebook waits for.

        Parameters
        ----------
        name : str
            As ``tab02`` or ``fig03``.
        made : DataFrame or Figure
        folder : Path, optional
            Instead of the place that the notebook's entry names.
        rests_on : sequence of Path
            Files that it rests on besides.
        """
        maker = self._maker(name)
        path = (folder or getattr(self.places, maker.place if maker else "figures")) / name
        below = [*rests_on, *(self._below(maker) if maker else ())]
        stamp = {**self.stamp, "rests_on": hashes_of(self.places, below)}
        if isinstance(made, pd.DataFrame):
            title = contents().get(name, (name, ""))[0]
            written = as_written(made)
            return publish_table(written, path.with_suffix(".csv"), stamp, title, dataset_name)
        return publish_figure(made, path, stamp)

    def _maker(self, name: str) -> Notebook | None:
        own = self.entry
        kinds = [kind for kind in ("quality", "downstream") if name in getattr(own, kind)]
        return maker_of(name, self.parameters, *kinds)

    def _below(self, entry: Notebook) -> Iterator[Path]:
        """What the results of a job rest on: what it made itself, and what it waited for."""
        given = self.parameters
        one = entry.per_run or entry.made == "base"
        runs = [(given["method"], int(given.get("seed", 0)))] if one else None
        if entry.made in ("cohort", "base", "run", "generated"):
            yield from self._made(entry, runs)
        for job in entry.after:
            yield from self._made(JOBS[job.split("_none_seed")[0]], runs)

    def _made(self, entry: Notebook, runs: Runs | None = None) -> Iterator[Path]:
        """Files by which one knows what a job made."""
        places, kept = self.places, self.settings.runs if runs is None else runs
        one = {"data": places.data / "simulated.json", "cohort": places.cohort / "cohort.csv"}
        if entry.made in one:
            yield one[entry.made]
        elif entry.made == "base":
            seeds = self.settings.bases if runs is None else [seed for _, seed in runs]
            yield from (place / "run.json" for place in dict.fromkeys(map(places.base_of, seeds)))
        elif entry.made in ("run", "generated"):
            yield from (places.run(*run) / "run.json" for run in kept)
            if entry.made == "generated":
                yield from (places.generated(*run) / "test" / "manifest.csv" for run in kept)
        elif runs is None:
            own = getattr(self.entry, entry.of_dataset or "none", ())
            names = [*entry.titles, *own]
            yield from (getattr(places, entry.place) / f"{name}.json" for name in names)
        if entry.arms == "ablation":
            yield from sorted((places.ablation / "runs").glob("*.json"))

    def _needed(self, need: str) -> list[Path]:
        if need == "protocol":
            return [self.places.figures / "protocol.json"]
        if need in NEEDS:
            given = self.parameters  # a notebook of one run asks for that run alone
            runs = [(given["method"], int(given.get("seed", 0)))] if "method" in given else None
            return list(self._made(JOBS[NEEDS[need][1]], runs))
        return [self.places.records / f"{need}.json"]

    def _command(self, need: str) -> str:
        """What a user types to make what is missing."""
        own, places = self.settings, self.places
        given = {"preset": own.preset, "dataset": own.dataset}
        given["study"] = JOBS[need].study if need in JOBS else "main"
        given |= {f"{x}-root": getattr(places, f"{x}_root") for x in ("data", "runs", "figures")}
        usual = {"study": "main", "data-root": "", "runs-root": Places.runs_root}
        usual["figures-root"] = Places.figures_root
        parts = [f"--{k} {shlex.quote(v)}" for k, v in given.items() if v != usual.get(k)]
        changes = str(self.parameters.get("overrides", "")).split()
        return " ".join(["fairdiff run", *parts, *(f"--set {shlex.quote(x)}" for x in changes)])

    def record(self, name: str, **scalars: Any) -> None:
        """Write a notebook's scalars as JSON, for tests and other notebooks; numpy's as plain ones.

        NaN becomes None.
        """
        plain: dict[str, Any] = {}
        for key, value in scalars.items():
            item = value.item() if hasattr(value, "item") else value
            plain[key] = None if isinstance(item, float) and item != item else item
        write_json(self.places.records / f"{name}.json", plain)


def folder_mark(root: Path) -> str:
    """Digest of names, sizes and times of the files below a folder: cheap, for this machine.

    The folder's card is none of the data.
    """
    total = hashlib.sha256()
    for path in files_below(root):
        if path.parent == root and CARD in path.name:  # also while it is being written
            continue
        about = path.stat() if path.exists() else path.lstat()  # a link to nothing
        total.update(f"{path.relative_to(root)}|{about.st_size}|{about.st_mtime_ns}\n".encode())
    return total.hexdigest()
