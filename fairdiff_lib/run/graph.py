"""The graph of notebooks: planned, started, resumed; here or through a queue.

The graph itself is the Snakefile; this module starts Snakemake on it and shows what happens.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.files import check_writable, read_json
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.run.jobs import Job, Jobs, read_failures
from fairdiff_lib.run.notebook import OURS, SHARED
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.notebooks import STUDIES
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies import plans
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.study import Study

SNAKEFILE = PROJECT_ROOT / "Snakefile"
LOG = "snakemake.log"  # in the runs folder: all that Snakemake said in the last run
UNMEASURED = 60.0  # seconds of a job that nobody has timed, where an order is wanted
EXPECTED = Path(__file__).with_name("expected_seconds.json")  # `make bench` writes it
DATASET_MARK = re.compile(r"^\[\w*\] ")  # before a line of progress
STEPS_DONE = re.compile(r"^(\d+) of (\d+) steps \(\d+%\) done")


@dataclass(frozen=True)
class GraphRun:
    """What a graph is for; relative folders are below the project."""

    preset: str = "quick"
    datasets: Sequence[str] = ("fairgenmed_simulated",)
    overrides: str = ""  # as "training.steps=20 seeds=0,1"
    data_root: str = ""  # empty = data/real/<dataset>
    runs_root: str = "data/runs"
    figures_root: str = "figures"
    names: Sequence[str] = ("main",)  # of STUDIES

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> GraphRun:
        """What ``config`` gave to Snakemake (an empty value arrives as None)."""
        given = {key: str(config.get(key) or "") for key in (*SHARED, "study")}
        datasets, studies = given.pop("dataset").split(), given.pop("study").split()
        known = {key: value for key, value in given.items() if value}
        return cls(datasets=datasets or cls.datasets, names=studies or cls.names, **known)

    @property
    def config(self) -> dict[str, str]:
        """For Snakemake: names of data sets and studies after one another."""
        own = {key: str(getattr(self, key)) for key in SHARED if key != "dataset"}
        return {**own, "dataset": " ".join(self.datasets), "study": " ".join(self.names)}

    @property
    def runs(self) -> Path:
        """The runs folder; Snakemake keeps its own notes there too."""
        return PROJECT_ROOT / self.runs_root

    def given(self, dataset: str) -> dict[str, str]:
        """The scalars that the notebooks of a data set share."""
        return {key: dataset if key == "dataset" else str(getattr(self, key)) for key in SHARED}

    def study(self, dataset: str) -> Study:
        """Checked settings and places; InputError for anything unknown."""
        return Study.open(**self.given(dataset))

    def jobs(self, cores: int = 1, apart: bool = False, gpus: int = 0) -> list[Jobs]:
        return [Jobs(self.study(name), self.names, cores, apart, gpus) for name in self.datasets]

    def find(self, rule: str) -> tuple[Jobs, Job]:
        """A job by the name of its rule: data set, underscore, job."""
        known = {f"{own.dataset}_{job.name}": (own, job) for own in self.jobs() for job in own.all}
        refuse_unknown("job", rule, known)
        return known[rule]

    @property
    def command(self) -> str:
        """How a rule calls us; ``{rule}`` and ``{threads}`` are Snakemake's to fill in."""
        words = [sys.executable, "-m", "fairdiff_lib.run.cli", "job"]
        for key in SHARED:
            values = self.datasets if key == "dataset" else [getattr(self, key)]
            words += [f"--{key.replace('_', '-')}", *values]
        whole = shlex.join([*words, "--study", *self.names])
        return whole.replace("{", "{{").replace("}", "}}") + " --threads {threads} --rule {rule}"

    def check(self) -> None:
        """Refuse what cannot run before anything is started."""
        for what, names in (("--dataset", self.datasets), ("--study", self.names)):
            twice = [name for name in names if list(names).count(name) > 1]
            if twice:
                raise InputError(f"{what}: {twice[0]!r} stands there twice")
        if self.data_root and len(self.datasets) > 1:
            raise InputError(
                f"--data-root: expected one data set with it, not {len(self.datasets)}; without "
                "it, real data are looked for in data/real/<dataset>"
            )
        for dataset in self.datasets:
            for name in self.names:
                refuse_unknown("study", name, STUDIES)
                check_study(name, self.study(dataset).settings)
            places = self.study(dataset).places
            if not dataset_of(dataset).simulated and not places.data.is_dir():
                raise InputError(
                    f"{places.data}: missing; expected the folder of {dataset} "
                    "(data/real/README.md says how to get it; --data-root names another place)"
                )
            check_writable(places.figures)
        check_writable(self.runs)


def check_study(name: str, settings: Settings) -> None:
    """Refuse settings with which a study cannot be made, naming the field."""
    if name == "proof" and settings.dataset != "fairgenmed_simulated":
        raise InputError(
            f"study proof: dataset {settings.dataset!r}; expected fairgenmed_simulated, "
            "whose images can be redrawn"
        )
    if name == "planted" and not settings.simulated:
        raise InputError(
            f"study planted: dataset {settings.dataset!r}; expected a simulated one, in whose "
            "training images something can be planted"
        )
    if name in ("ablation", "mechanism"):
        arms.check_arms(settings)
    if name == "matrix":
        plans.check_arms(settings)
    if name == "loop":
        plans.check_loop(settings)
    if name == "sweep":
        plans.check_cells(settings)
    if name == "privacy" and not settings.audit.loss_timesteps:
        raise InputError(
            "audit.loss_timesteps is empty: study privacy compares denoising losses; "
            "expected at least one"
        )


# -- where jobs run --------------------------------------------------------------------------
# A profile is a folder with Snakemake's config.yaml: this machine, or a Slurm queue. What a Slurm
# one lacks is said before anything starts. Its jobs carry a name made of the runs folder, so that
# the next run finds what a killed one left in the queue.

PROFILES = PROJECT_ROOT / "profiles"
PARTITION = "slurm_partition"  # as the executor calls it among a job's resources
QUEUE_SECONDS = 5.0  # between two looks at the queue


@dataclass(frozen=True)
class Profile:
    """A folder below ``profiles``, and the partition if the command line names one."""

    name: str = "local"
    partition: str = ""  # empty = the one that config.yaml names

    @property
    def file(self) -> Path:
        return PROFILES / self.name / "config.yaml"

    @cached_property
    def config(self) -> dict[str, Any]:
        """Options of the file; InputError for an unknown profile or a file of another form."""
        known = tuple(path.parent.name for path in PROFILES.glob("*/config.yaml"))
        refuse_unknown("profile", self.name, known)
        try:
            found = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise InputError(f"{self.file}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(found, dict):
            raise InputError(f"{self.file}: expected option: value in each line")
        return found

    @property
    def queued(self) -> bool:
        return self.config.get("executor") == "slurm"

    @property
    def cores(self) -> int:
        """Cores of a job as the file says; 0 where it doesn't."""
        return int(self.config.get("cores", 0))

    @property
    def gpus(self) -> int:
        """GPUs of a job that computes networks, as the file's ``config`` says; 0 without."""
        given = self.config.get("config") or []
        pairs = [str(pair).partition("=") for pair in given if isinstance(given, list)]
        found = {name: value for name, _, value in pairs}.get("gpus", "0")
        if not found.isdecimal():
            raise InputError(f"{self.file}: gpus={found}; expected a whole number under config")
        return int(found)

    @property
    def resources(self) -> dict[str, str]:
        """What each job asks for, by resource: the file's, and the partition of the command."""
        given = self.config.get("default-resources") or []
        pairs = given.items() if isinstance(given, dict) else (x.partition("=")[::2] for x in given)
        found = {str(name): str(value) for name, value in pairs}
        return found | ({PARTITION: self.partition} if self.partition else {})

    def check(self) -> None:
        """Refuse what could not submit a job, before anything starts."""
        assert self.gpus >= 0  # refused where it is no number
        if not self.queued:
            if self.partition:
                raise InputError(
                    f"--partition {self.partition}: profile {self.name} runs here and has no "
                    "partitions; expected --profile slurm"
                )
            return
        if not self.resources.get(PARTITION):
            raise InputError(
                f"{self.file}: no partition; expected {PARTITION}=NAME under default-resources, "
                "or --partition NAME (sinfo lists them)"
            )
        if find_spec("snakemake_executor_plugin_slurm") is None:
            raise InputError(
                f"profile {self.name}: first pip install -c constraints.txt -e '.[slurm]'"
            )

    def options(self, runs: Path) -> list[str]:
        """Snakemake's options for jobs that work in the folder ``runs``."""
        options = ["--workflow-profile", str(self.file.parent)]
        if self.queued:
            resources = [f"{name}={value}" for name, value in self.resources.items()]
            options += ["--default-resources", *resources]
            options += ["--slurm-jobname-prefix", job_prefix(runs)]
        return options

    def settle(self, runs: Path) -> None:
        """Deal with what a killed run left in the queue, so that nothing is done twice.

        Its jobs that wait are cancelled: this run submits them again. Those that run are waited
        for: what they make is found when the graph is planned. The caller holds the runs folder.
        """
        if not self.queued:
            return
        jobs = _queue(runs)
        waiting = [number for number, state in jobs.items() if state == "PENDING"]
        running = [number for number in jobs if number not in waiting]
        if waiting:  # by state too: one that has started meanwhile goes on
            _slurm("scancel", "--state=PENDING", *waiting)
        if jobs:
            hint = f" (scancel {' '.join(running)} gives them up)" if running else ""
            print(
                f"fairdiff run: a killed run left jobs in the queue: {len(waiting)} waiting, "
                f"cancelled; {len(running)} running, awaited{hint}",
                flush=True,
            )
        while _queue(runs):
            time.sleep(QUEUE_SECONDS)


LOCAL = Profile()


def job_prefix(runs: Path) -> str:
    """How the names of all queued jobs of a runs folder begin."""
    return f"fairdiff_{hashlib.sha256(str(runs.resolve()).encode()).hexdigest()[:12]}"


def _queue(runs: Path) -> dict[str, str]:
    """State of each of our jobs of this runs folder in the queue, by its number."""
    lines = _slurm("squeue", "--me", "--noheader", "--format=%i|%T|%j").splitlines()
    rows = [line.strip().split("|", 2) for line in lines if line.strip()]
    prefix = f"{job_prefix(runs)}_"
    return {number: state for number, state, name in rows if name.startswith(prefix)}


def _slurm(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise InputError(
            f"profile slurm: no {command[0]} on this machine; expected one that submits to Slurm"
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout


# -- a plan, with what it is expected to take ------------------------------------------------


def plan(run: GraphRun, cores: int, profile: Profile = LOCAL) -> list[tuple[Jobs, Job]]:
    """The jobs that are left to do, by data set."""
    _prepare(run, profile)
    ways: list[tuple[str, ...]] = [("--summary", "--nolock")]
    if stale_protocols(run, cores):  # which hide what follows them
        ways.append(("--summary", "--nolock", "--rerun-triggers", "params"))
    left = set[str]()
    for way in ways:
        done = _ask(_command(run, cores, profile, *way))
        if done.returncode:
            said = _last_lines(done.stderr + done.stdout)
            raise InputError(f"the graph can't be planned: {said}")
        rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
        left |= {row[0] for row in rows if row[-1] == "update pending"}
    return [(own, job) for own in run.jobs(cores) for job in own.all
            if job.record in left and job.kind != "protocol"]  # fmt: skip


def stale_protocols(run: GraphRun, cores: int) -> list[str]:
    """Protocols that are older than the cohort they are about, as after a kill between the two.

    Snakemake leaves out what waits for such a one by ``ancient``, even where it is missing.
    """

    def is_stale(job: Job) -> bool:
        times = [Path(name).stat().st_mtime for name in job.needs if Path(name).exists()]
        record = Path(job.record)
        return record.exists() and record.stat().st_mtime < max(times, default=0.0)

    return [own.protocol.record for own in run.jobs(cores) if is_stale(own.protocol)]


def work(settings: Settings, kind: str) -> int:
    """Amount of work in a kind of job; its time is taken as proportional to this."""
    if kind == "03_train base":  # images through a network
        return settings.vae.steps * settings.vae.batch + settings.base.steps * settings.base.batch
    if kind.startswith("03") and not kind.endswith("loaded"):
        return settings.training.steps * settings.training.batch
    # subjects; a real set has one size
    size = sum(settings.simulator.counts.values()) if settings.simulator else 1
    if kind.startswith("04"):  # images x denoising steps
        return size * settings.generation.steps
    if kind.startswith("fit"):
        return 1
    return size if kind.startswith(("01", "02", "03")) else len(settings.runs)


def expected(settings: Settings, kind: str) -> tuple[float, float] | None:
    """Seconds and megabytes, as measured for this preset and data set; None = never."""
    table = read_json(EXPECTED)["jobs"]
    found = table.get(f"{settings.preset}/{settings.dataset}", {}).get(kind)
    if found is None:
        return None
    scale = work(settings, kind) / found["work"]
    return found["seconds"] * scale, found["made_mb"] * scale


def urgency(own: Jobs) -> dict[str, int]:
    """Seconds that are expected from each job's start to the end of the graph, by its name.

    Snakemake starts what is most urgent first: a core that has only short jobs left waits for the
    other one's long one.
    """
    waiting: dict[str, list[Job]] = {}
    asked = [job for job in own.all if not job.entry or job.entry.study in own.studies]
    for job in asked:
        for need in job.needs:
            waiting.setdefault(need, []).append(job)

    @cache
    def rest(record: str, kind: str) -> float:
        seconds, _ = expected(own.settings, kind) or (UNMEASURED, 0.0)
        return seconds + max((rest(job.record, job.kind) for job in waiting.get(record, ())),
                             default=0.0)  # fmt: skip

    return {job.name: round(rest(job.record, job.kind)) for job in own.all}


def print_plan(run: GraphRun, cores: int, profile: Profile = LOCAL) -> None:
    """Print what would run, with the time and disk it took when measured."""
    left = plan(run, cores, profile)
    print(f"{'job':44} {'minutes':>8} {'MB':>7}  executed copy")
    seconds, megabytes, unknown, dataset = 0.0, 0.0, 0, ""
    for own, job in left:
        if len(run.datasets) > 1 and own.dataset != dataset:
            dataset = own.dataset
            print(f"-- {dataset}")
        known = expected(own.settings, job.kind)
        own_seconds, own_megabytes = known or (0.0, 0.0)
        seconds, megabytes = seconds + own_seconds, megabytes + own_megabytes
        unknown += known is None
        minutes, size = (f"{known[0] / 60:.1f}", f"{known[1]:.0f}") if known else ("?", "?")
        print(f"{job.name:44} {minutes:>8} {size:>7}  {_shown(job.executed)}")
    free = shutil.disk_usage(run.runs).free / 1e6
    print(f"\n{len(left)} jobs of {_title(run)}, {cores} cores")
    print(
        f"one after the other {seconds / 60:.1f} minutes, {megabytes:.0f} MB ({free:.0f} MB free)"
    )
    if unknown:
        print(f"{unknown} of them have not been measured for this preset and dataset (?)")
    print("parameters: " + ", ".join(f"{key}={value!r}" for key, value in run.config.items()))


def _title(run: GraphRun) -> str:
    return f"study {' '.join(run.names)}, preset {run.preset}, on {' '.join(run.datasets)}"


def _shown(path: Path | str) -> str:
    """Relative to the project where it lies below it."""
    return str(path).removeprefix(f"{PROJECT_ROOT}/")


# -- a run -----------------------------------------------------------------------------------


def run_graph(run: GraphRun, cores: int, profile: Profile = LOCAL) -> int:
    """Run what is missing; after a kill, go on from there.

    ``cores`` are jobs side by side, of one thread each; in a queue, the threads of each job. Exit
    code: 0 done, 1 failed, 2 bad input, 130 interrupted.
    """
    _prepare(run, profile)
    with _only_run_in(run.runs) as lock:
        profile.settle(run.runs)
        _remove_stale_lock(run, cores, profile)
        started = time.time()
        print(f"fairdiff run: {_title(run)}, {cores} cores", flush=True)
        code, stale = 0, stale_protocols(run, cores)
        for first in ([stale] if stale else []) + [[]]:
            command = _command(run, cores, profile, *first)
            code = code or _follow(run, command, started, lock, brief=not profile.queued)
    return _report(run, code, started)


def _prepare(run: GraphRun, profile: Profile) -> None:
    """Refuse what cannot run, all of it, before the first folder is made."""
    run.check()
    profile.check()
    run.runs.mkdir(parents=True, exist_ok=True)


def _command(run: GraphRun, cores: int, profile: Profile, *extra: str) -> list[str]:
    values = {**run.config, "cores": cores, "apart": profile.queued, "gpus": profile.gpus}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)]
    command += ["--directory", str(run.runs), "--cores", str(cores)]
    command += [*profile.options(run.runs), *extra, "--config"]
    # quoted: Snakemake reads each value as YAML
    return [*command, *(f"{key}='{x}'" if isinstance(x, str) else f"{key}={x}"
                        for key, x in values.items())]  # fmt: skip


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-3:])


@contextmanager
def _only_run_in(runs: Path) -> Iterator[int]:
    """Hold the runs folder; Snakemake inherits the hold, so it outlives a killed parent."""
    with (runs / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{runs}: another run works here; wait for it or end it, or give --runs-root"
            ) from error
        yield stream.fileno()


def _remove_stale_lock(run: GraphRun, cores: int, profile: Profile) -> None:
    """Snakemake's own lock survives a kill; as we hold the folder, nobody else can own it."""
    locks = run.runs / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        print("fairdiff run: an earlier run was killed; its lock is removed, its work goes on")
        done = _ask(_command(run, cores, profile, "--unlock"))
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise InputError(f"{locks}: an earlier run's lock can't be removed ({said})")


def _follow(
    run: GraphRun, command: Sequence[str], started: float, lock: int, *, brief: bool
) -> int:
    """Run Snakemake, which writes all it says into the log, and show people what they need."""
    log = run.runs / LOG
    with log.open("w", encoding="utf-8") as stream, log.open(encoding="utf-8") as lines:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL, stdout=stream,
            stderr=subprocess.STDOUT, pass_fds=(lock,),
        )  # fmt: skip
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            while process.poll() is None:
                time.sleep(0.2)
                _show(lines, started, brief, several=len(run.datasets) > 1)
            _show(lines, started, brief, several=len(run.datasets) > 1)
        except KeyboardInterrupt:
            try:  # a terminal interrupts Snakemake too; a lone signal to us has to be passed on
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                process.wait()
            return 130
        finally:
            signal.signal(signal.SIGTERM, before)
    return process.returncode


def _show(lines: Iterator[str], started: float, brief: bool, several: bool) -> None:
    """Print what people want to see of new lines; with the data set where there are several."""
    for line in lines:
        steps = STEPS_DONE.match(line)
        clock = f"[{(time.time() - started) / 60:5.1f} min]"
        if line.startswith(OURS):
            said = line.removeprefix(OURS).rstrip()
            print(clock, said if several else DATASET_MARK.sub("", said), flush=True)
        elif steps:
            print(clock, f"{steps[1]} of {steps[2]} jobs done", flush=True)
        elif not brief:
            print(line.rstrip(), flush=True)


def _report(run: GraphRun, code: int, started: float) -> int:
    minutes = (time.time() - started) / 60
    if code == 130:
        print(f"interrupted after {minutes:.1f} minutes; the same command goes on from here")
        return code
    log = (run.runs / LOG).read_text(encoding="utf-8")
    if code == 0:
        nothing = "Nothing to be done" in log
        print("nothing to do: all is there" if nothing else f"done in {minutes:.1f} minutes")
        for own in run.jobs():
            wanted = [job for job in own.notebooks if job.entry and job.entry.study in run.names]
            for said in dict.fromkeys(line for job in wanted for line in _places_of(own, job)):
                print(f"  {said}")
        return 0
    folders = [own.study.places.records / "jobs" for own in run.jobs()]
    failures = [found for folder in folders for found in read_failures(folder, since=started)]
    for failure in failures:
        print(f"{failure['title']}: {failure['message']}", file=sys.stderr)
        if failure["output"]:
            print(f"  executed copy: {_shown(failure['output'])}", file=sys.stderr)
    for title in unfinished(log) if not failures else ():
        print(f"{title}: ended from outside, most often for want of memory", file=sys.stderr)
    if not failures:
        place = run.runs / LOG
        print(f"Snakemake failed: {_last_lines(log)} (all of it: {place})", file=sys.stderr)
    bad_input = bool(failures) and all(failure["bad_input"] for failure in failures)
    return 2 if bad_input else 1


def unfinished(log: str) -> list[str]:
    """Jobs that said that they had started, and then nothing more."""
    said = [line.removeprefix(OURS) for line in log.splitlines() if line.startswith(OURS)]
    titles = [line.removesuffix(": started") for line in said if line.endswith(": started")]
    return [one for one in titles if not any(line.startswith(f"{one}: done") for line in said)]


def _places_of(own: Jobs, job: Job) -> list[str]:
    """Where the results of a notebook's job are, for people."""
    shown = _shown(getattr(own.study.places, job.entry.place if job.entry else "figures"))
    executed = _shown(Path(job.executed).parent)
    return [f"tables and figures: {shown}", f"executed notebooks: {executed}"]


def default_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
