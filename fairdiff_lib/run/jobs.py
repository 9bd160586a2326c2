"""The jobs of a graph, made from the entries of notebooks and arms: what each waits for and makes.

The Snakefile turns each into a rule. A job's outputs are what people read (tables and figures) and
its record, ``<runs>/<dataset>/records-<preset>-<digest>/jobs/<job>.json``, written last. Data,
models, images and classifiers are no outputs: they lie in folders named by a digest of the settings
they depend on, are written atomically, and are found again by the notebook, so a job that was
killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fairdiff_lib.datasets import Dataset, dataset_of
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.tables import has_latex, has_pdf
from fairdiff_lib.run.notebook import find_notebook
from fairdiff_lib.settings.methods import BASELINE, source_runs
from fairdiff_lib.settings.notebooks import BASE, JOBS, Notebook
from fairdiff_lib.settings.options import REAL, Settings
from fairdiff_lib.studies import plans
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.study import Study, folder_mark

CARD = ("html", "json")
ARM_MINUTES = 720


@dataclass(frozen=True)
class Job:
    name: str  # of its record, as 03_train_none_seed0
    title: str  # what people are told of it, as "03_train method=none seed=0"
    kind: str  # what takes equally long
    needs: tuple[str, ...]  # files that it waits for
    record: str  # written last
    makes: tuple[str, ...] = ()  # other files that it writes
    executed: str = ""  # the copy of its notebook, kept also when it fails; empty for an arm
    threads: int = 1
    network: bool = False  # whether it computes networks: in a queue on a GPU, with more memory
    minutes: int = 0  # after which a queue ends it; 0 = the profile's
    entry: Notebook | None = None  # None for an arm and the protocol
    parameters: Mapping[str, str] = field(default_factory=dict)  # besides the shared ones
    arm: tuple[str, str, int] | tuple[()] = ()  # study, arm and seed; empty for a notebook
    fit: tuple[str, int, str] | tuple[()] = ()  # source, seed and classifier of one fit


@dataclass(frozen=True)
class Jobs:
    study: Study
    studies: Sequence[str] = ("main",)  # of STUDIES, those that are asked for
    cores: int = 1
    apart: bool = False  # each job has the cores for itself, as in a queue
    gpus: int = 0  # of each job that computes networks, in a queue

    @property
    def settings(self) -> Settings:
        return self.study.settings

    @property
    def dataset(self) -> str:
        return self.settings.dataset

    @property
    def own(self) -> Dataset:
        return dataset_of(self.dataset)

    @property
    def protocol(self) -> Job:
        """What will be tested, and by which rule: written before there is a test image."""
        path = str(self.study.places.protocol)
        return Job("protocol", "protocol", "protocol", (self.record("01_cohorts"),), path)

    def record(self, name: str) -> str:
        return f"{self.study.places.records}/jobs/{name}.json"

    def targets(self) -> list[str]:
        """Records and runs that the studies which are asked for are done with."""
        wanted = [own for own in self.notebooks if own.entry and own.entry.study in self.studies]
        # each arm's run by name, or a lost one would not be missed once the tables are there
        return [own.record for own in (*wanted, *self.arms)]

    @property
    def all(self) -> list[Job]:
        """Every job, whether it is asked for or not."""
        return [self.protocol, *self.notebooks, *self.fits, *self.arms]

    @property
    def memory_mb(self) -> int:
        """What a job is given in a queue: at 512 px, 7 GB of images and 17 GB of a checkpoint."""
        return round(8000 + 40_000 * (self.settings.model.image_size / 512) ** 2)

    # -- notebooks ---------------------------------------------------------------------------

    @cached_property
    def notebooks(self) -> list[Job]:
        return [
            self._job(name, entry, run)
            for name, entry in JOBS.items()
            if self.own.simulated or name not in entry.simulated_only
            for run in self._runs_of(entry)
        ]

    def _runs_of(self, entry: Notebook) -> Sequence[tuple[str, int] | None]:
        """Each is a job; None is one for all."""
        if entry.per_run:
            return self.settings.runs
        own = [(BASE, seed) for seed in self.settings.bases if seed]
        return [None, *own] if entry.made == "base" else [None]

    def _job(self, name: str, entry: Notebook, run: tuple[str, int] | None) -> Job:
        own = dict(entry.parameters)
        if run:
            name, own = _named(entry.notebook, run), {"method": run[0], "seed": str(run[1])}
        place = getattr(self.study.places, entry.place)
        trains = entry.notebook == "03_train"
        loads = own.get("method") == BASE and self.settings.model.pretrained
        of_ablation = entry.study in ("ablation", "mechanism")
        executed = self.study.places.ablation if of_ablation else place
        told = [f"{key}={value}" for key, value in own.items() if key != "output"]
        return Job(
            name,
            title=" ".join([entry.notebook, *told]),
            kind=f"{entry.notebook} {own['method']}{' loaded' * bool(loads)}"
            if trains
            else entry.notebook,
            needs=(str(find_notebook(entry.notebook)), *self._needs(entry, run)),
            record=self.record(name),
            makes=tuple(self._makes(entry, place)),
            executed=f"{executed}/executed/{name.removesuffix('_ablation')}.ipynb",
            threads=self._threads(entry.threads),
            network=entry.threads == "network",
            minutes=entry.minutes,
            entry=entry,
            parameters=own,
        )

    def _needs(self, entry: Notebook, run: tuple[str, int] | None) -> Iterator[str]:
        if entry.made == "base" and run:
            yield self.record("03_train_base")  # whose autoencoder it shares
        for name in entry.after:
            if name == "03_train_base":
                bases = self.settings.bases
                own_base = run[1] if run and run[1] in bases else 0
                yield from map(self._base, [own_base] if run else bases)
            elif name in JOBS and JOBS[name].per_run:
                runs = [run] if run else self.settings.runs
                yield from (self.record(_named(name, own)) for own in runs)
            elif name != "02_simulators" or self.own.simulated:
                yield self.record(name)
        if entry.made == "run" and run:
            sources = source_runs(*run, self.settings.seeds)  # whose histories its method reads
            yield from (self.record(_named("03_train", own)) for own in sources)
        if entry.notebook == "07_downstream":
            yield from (fit.record for fit in self.fits)
        if entry.notebook == "09_verdict" and "ablation" in self.studies:
            yield self.record("08_ablations")  # C2 may rest on its seeds
        if entry.arms == "ablation":  # by name: to ask which are there takes seconds, in every job
            each = arms.runs_of(self.settings)
            yield from (str(arms.path_of(self.study.places, *one)) for one in each)
        elif entry.arms:
            yield from (arm.record for arm in self._arms_of(entry.arms))

    def _base(self, seed: int) -> str:
        """Record of the job that trains the base of a seed."""
        return self.record(_named("03_train", (BASE, seed)) if seed else "03_train_base")

    def _makes(self, entry: Notebook, place: Path) -> Iterator[str]:
        own = getattr(self.own, entry.of_dataset) if entry.of_dataset else ()
        made = {name: ("csv", "json", *["tex"] * has_latex(name)) for name in (*own, *entry.tables)}
        made |= {x: ("png", "json", *["pdf"] * has_pdf(x)) for x in entry.figures}
        made |= dict.fromkeys(entry.cards, CARD)
        for name, kinds in made.items():
            if self.own.simulated or name not in entry.simulated_only:
                yield from (f"{place / name}.{kind}" for kind in kinds)

    def _threads(self, kind: str) -> int:
        return self.cores if kind == "machine" or (kind == "network" and self.apart) else 1

    def changes(self, job: Job) -> list[str]:
        """What runs a notebook again: settings, and for the cohort the real data's files."""
        entry, places = job.entry, self.study.places
        found = [places.records.name]
        if entry is None:
            return found
        found += [self.settings.digest(section) for section in entry.digest]
        if entry.made == "cohort" and not self.settings.simulated and places.data.is_dir():
            found.append(folder_mark(places.data))
        return found

    def write_record(self, job: Job, parameters: Mapping[str, Any]) -> None:
        """Write the file that says that a job is done, last of all."""
        kind = job.entry.made if job.entry else ""
        made: Any = getattr(self.study.places, kind) if kind else None
        if kind == "base":
            made = self.study.places.base_of(int(parameters.get("seed", 0)))
        elif callable(made):
            made = made(parameters["method"], parameters["seed"])
        files = [file for file in made.rglob("*") if file.is_file()] if made else []
        record = {
            "notebook": job.entry.notebook if job.entry else "",
            "kind": job.kind,
            "parameters": dict(parameters),
            "preset": self.settings.preset,
            "dataset": self.dataset,
            "made_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        }
        write_json(job.record, record)

    # -- fits --------------------------------------------------------------------------------

    @cached_property
    def fits(self) -> list[Job]:
        """Jobs that fit one of 07's classifiers each: as many side by side as there are cores."""
        made = []
        for source, seed, name in self.settings.fits:
            after = "01_cohorts" if source == REAL else _named("04_generate", (source, seed))
            label = f"fit_{name}_{source}_seed{seed}"
            job = Job(
                label,
                title=f"fit classifier={name} source={source} seed={seed}",
                kind=f"fit {name}",
                needs=(self.record(after),),
                record=self.record(label),
                threads=self._threads("network"),
                network=True,
                fit=(source, seed, name),
            )
            made.append(job)
        return made

    # -- arms --------------------------------------------------------------------------------

    @cached_property
    def arms(self) -> list[Job]:
        """Jobs that make an arm's runs of one seed, of the studies that are asked for."""
        asked = set(self.studies) | ({"ablation"} if "mechanism" in self.studies else set())
        return [job for study in ("ablation", "matrix", "loop") if study in asked
                for job in self._arms_of(study)]  # fmt: skip

    def _arms_of(self, study: str) -> list[Job]:
        found: list[Job] = getattr(self, f"_{study}")
        return found

    @cached_property
    def _ablation(self) -> list[Job]:
        """Trained, drawn and measured; three files that are committed, and are kept."""
        places, made = self.study.places, []
        known = {own.name: own for own in arms.arms_of(self.settings)}
        for arm, seed in arms.runs_of(self.settings):
            path = arms.path_of(places, arm, seed)
            needs: list[str] = []
            if not arms.is_recorded(self.study, arm, seed):
                sources = arms.sources_of(self.settings, arm, seed)
                read = [arms.path_of(places, known[name], own) for name, own in sources]
                base = seed if seed in self.settings.bases else 0
                needs = [self._base(base), *map(str, read)]
            made.append(self._arm("ablation", arm.name, seed, path, needs, (".csv", ".npz")))
        return made

    @cached_property
    def _matrix(self) -> list[Job]:
        """A classifier per share of real data, one after the other."""
        own, made = self.settings.matrix, []
        for arm, spec in plans.ARMS.items():
            for seed in own.seeds:
                needs = "01_cohorts"
                if spec.made:
                    needs = _named(
                        "04_generate", (own.method, plans.generator_seed(self.settings, seed))
                    )
                path = self.study.places.matrix / f"{arm}_seed{seed}.json"
                made.append(self._arm("matrix", arm, seed, path, [self.record(needs)]))
        return made

    @cached_property
    def _loop(self) -> list[Job]:
        """The generations of a model, one after the other."""
        made = []
        for arm in plans.LOOP_ARMS:
            for seed in self.settings.seeds if BASELINE in self.settings.methods else ():
                needs = [self.record(_named("04_generate", (BASELINE, seed)))]
                path = self.study.places.retraining / f"{arm}_seed{seed}.json"
                made.append(self._arm("loop", arm, seed, path, needs))
        return made

    def _arm(
        self, study: str, arm: str, seed: int, path: Path, needs: Sequence[str],
        beside: Sequence[str] = (),
    ) -> Job:  # fmt: skip
        return Job(
            f"arm_{study}_{arm.replace(' ', '-')}_seed{seed}",
            title=f"arm {arm} seed={seed}",
            kind=f"arm {study}",
            needs=tuple(needs),
            record=str(path),
            makes=tuple(str(path.with_suffix(kind)) for kind in beside),
            threads=self._threads("network"),
            network=True,
            minutes=ARM_MINUTES,
            arm=(study, arm, seed),
        )


def failure_of(record: Path) -> Path:
    """Where a job that failed leaves its line."""
    return record.with_suffix(".failed.json")


def read_failures(folder: Path, since: float) -> list[dict[str, Any]]:
    """Failures below ``folder`` that are younger than ``since`` (seconds since the epoch)."""
    found = sorted(folder.glob("*.failed.json"))
    return [read_json(path) for path in found if path.stat().st_mtime >= since]


def _named(name: str, run: tuple[str, int]) -> str:
    return f"{name}_{run[0]}_seed{run[1]}"
