"""The graph of notebooks: planned, started, resumed.

The graph itself is the Snakefile, with dataset.smk; this module starts Snakemake on it and
shows what happens.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.run.notebook import OURS, Job, check_methods, plan_job, read_failures
from fairdiff_lib.run.profiles import LOCAL, Profile
from fairdiff_lib.run.timings import expected, start_timings
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.notebooks import STUDIES
from fairdiff_lib.settings.options import Settings, parse_overrides
from fairdiff_lib.studies import plans
from fairdiff_lib.studies.ablation import arms

SNAKEFILE = PROJECT_ROOT / "Snakefile"
LOG = "snakemake.log"  # in the runs folder: all that Snakemake said in the last run
JOB_COMMAND = "-m fairdiff_lib.run.cli notebook "  # how the graph's rules call us
ARM_COMMAND = "-m fairdiff_lib.run.cli arm "
DATASET_MARK = re.compile(r"^\[\w*\] ")  # before a line of progress
STEPS_DONE = re.compile(r"^(\d+) of (\d+) steps \(\d+%\) done")


@dataclass(frozen=True)
class Study:
    """What a graph, or a part of it, is for: the scalars that its notebooks share.

    Relative folders are below the project.
    """

    preset: str = "quick"
    dataset: str = "fairgenmed_simulated"
    overrides: str = ""  # as "training.steps=20 seeds=0,1"
    data_root: str = ""  # empty = data/real/<dataset>
    runs_root: str = "data/runs"
    figures_root: str = "figures"
    study: str = "main"  # a key of STUDIES

    @property
    def settings(self) -> Settings:
        """Checked settings; InputError for anything unknown."""
        return load_settings(self.preset, self.dataset, parse_overrides(self.overrides))

    @property
    def layout(self) -> Places:
        """Where everything lies."""
        return Places(self.settings, self.data_root, self.runs_root, self.figures_root)

    @property
    def runs(self) -> Path:
        """The runs folder; Snakemake keeps its own notes there too."""
        return PROJECT_ROOT / self.runs_root

    @property
    def shown(self) -> tuple[Path, Path]:
        """Folders of what people read: tables and figures, executed notebooks."""
        if self.study == "proof":
            return self.layout.calibration, self.layout.calibration / "executed"
        if self.study in ("ablation", "mechanism"):
            return self.layout.figures, self.layout.ablation / "executed"
        return self.layout.figures, self.layout.executed

    def check(self) -> None:
        """Refuse what cannot run before anything is started."""
        refuse_unknown("study", self.study, STUDIES)
        settings = self.settings
        if self.study == "proof" and self.dataset != "fairgenmed_simulated":
            raise InputError(
                f"study proof: dataset {self.dataset!r}; expected fairgenmed_simulated, "
                "whose images can be redrawn"
            )
        if self.study in ("ablation", "mechanism"):
            arms.check_arms(settings)
        if self.study == "matrix":
            plans.check_arms(settings)
        if self.study == "sweep":
            plans.check_cells(settings)
        if self.study == "privacy" and not settings.audit.loss_timesteps:
            raise InputError(
                "audit.loss_timesteps is empty: study privacy compares denoising losses; "
                "expected at least one"
            )
        check_methods(settings.methods)
        if min(settings.seeds) < 0:
            raise InputError(f"seeds={settings.seeds}: expected 0 or more each")
        if not dataset_of(self.dataset).simulated and not self.layout.data.is_dir():
            raise InputError(
                f"{self.layout.data}: missing; expected the folder of {self.dataset} "
                "(data/real/README.md says how to get it; --data-root names another place)"
            )


def studies_of(datasets: Sequence[str], studies: Sequence[str], **shared: str) -> tuple[Study, ...]:
    """A Study for each data set and each of the studies; one graph runs them.

    Parameters
    ----------
    datasets, studies : sequence of str
    **shared : str
        The other fields of `Study`.

    Raises
    ------
    InputError
        A name twice, or one folder of real data for several data sets.
    """
    for what, names in (("--dataset", datasets), ("--study", studies)):
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{what}: {twice[0]!r} stands there twice")
    if shared.get("data_root") and len(datasets) > 1:
        raise InputError(
            f"--data-root: expected one data set with it, not {len(datasets)}; without it, real "
            "data are looked for in data/real/<dataset>"
        )
    return tuple(
        Study(dataset=dataset, study=study, **shared) for dataset in datasets for study in studies
    )


# -- Snakemake -------------------------------------------------------------------------------


def _command(studies: Sequence[Study], cores: int, profile: Profile, *extra: str) -> list[str]:
    values = {**_shared(studies), "cores": cores, "apart": profile.queued}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)]
    command += ["--directory", str(studies[0].runs), "--cores", str(cores)]
    command += [*profile.options(studies[0].runs), *extra]
    # quoted: Snakemake reads each value as YAML
    return [*command, "--config", *(f"{key}={_quoted(value)}" for key, value in values.items())]


def _quoted(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


@dataclass(frozen=True)
class Plan:
    """What still has to run.

    Attributes
    ----------
    jobs : sequence of (Job, str)
        Notebooks, each with its executed copy's name; by data set and title.
    arms : sequence of str
        Runs of arms (ablation, matrix), as ``fairdiff arm`` is given them.
    """

    jobs: Sequence[tuple[Job, str]]
    arms: Sequence[str]


def plan(studies: Sequence[Study], cores: int, profile: Profile = LOCAL) -> Plan:
    """What a graph would run.

    Raises
    ------
    InputError
        Bad parameters, or a graph that can't be planned.
    """
    _prepare(studies, profile)
    command = _command(studies, cores, profile, "--dry-run", "--nolock")
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"the graph can't be planned: {_last_lines(done.stderr + done.stdout)}")
    lines = (done.stdout + done.stderr).splitlines()
    jobs = [_parse_call(shlex.split(call)) for call in _calls(lines, JOB_COMMAND)]
    order = [study.dataset for study in studies]
    jobs.sort(key=lambda pair: (order.index(_dataset(pair[0])), pair[0].title))
    return Plan(jobs, sorted(_arm_title(call) for call in _calls(lines, ARM_COMMAND)))


def _calls(lines: Iterable[str], command: str) -> list[str]:
    """What stands behind a command of ours in what Snakemake says that it would run."""
    return [line.split(command, 1)[1] for line in lines if command in line]


def _arm_title(call: str) -> str:
    words = shlex.split(call)
    return f"{words[0]} seed={words[words.index('--seed') + 1]}"


def _dataset(job: Job) -> str:
    return str(job.parameters["dataset"])


def _prepare(studies: Sequence[Study], profile: Profile) -> None:
    """Refuse what cannot run, all of it, before the first folder is made."""
    for study in studies:
        study.check()
    profile.check()
    studies[0].runs.mkdir(parents=True, exist_ok=True)


def _parse_call(words: Sequence[str]) -> tuple[Job, str]:
    """The job in a rule's command line: ``NAME -p key value ... --output FILE``."""
    given = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "-p"}
    return plan_job(words[0], given), words[words.index("--output") + 1]


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-3:])


def print_plan(studies: Sequence[Study], cores: int, profile: Profile = LOCAL) -> None:
    """Print what would run, with the time and disk it took when measured."""
    planned = plan(studies, cores, profile)
    several = len({study.dataset for study in studies}) > 1
    print(f"{'job':44} {'minutes':>8} {'MB':>7}  executed copy")
    seconds, megabytes, unknown, dataset = 0.0, 0.0, 0, ""
    for job, output in planned.jobs:
        if several and _dataset(job) != dataset:
            dataset = _dataset(job)
            print(f"-- {dataset}")
        known = expected(job)
        seconds += known.seconds or 0
        megabytes += known.made_mb or 0
        unknown += known.seconds is None
        minutes = "?" if known.seconds is None else f"{known.seconds / 60:.1f}"
        size = "?" if known.made_mb is None else f"{known.made_mb:.0f}"
        print(f"{job.title:44} {minutes:>8} {size:>7}  {_shown(Path(output))}")
    free = shutil.disk_usage(studies[0].runs).free / 1e6
    if planned.arms:
        print(f"and {len(planned.arms)} runs of arms (not timed): {', '.join(planned.arms)}")
    print(f"\n{len(planned.jobs)} jobs of {_title(studies)}, {cores} cores")
    print(
        f"one after the other {seconds / 60:.1f} minutes, {megabytes:.0f} MB ({free:.0f} MB free)"
    )
    if unknown:
        print(f"{unknown} of them have not been measured for this preset and dataset (?)")
    print("parameters: " + ", ".join(f"{k}={v!r}" for k, v in _shared(studies).items()))


def _shared(studies: Sequence[Study]) -> dict[str, str]:
    """Fields as Snakemake gets them: names of data sets and studies after one another."""
    return {
        name: " ".join(dict.fromkeys(str(getattr(study, name)) for study in studies))
        for name in asdict(studies[0])
    }


def _title(studies: Sequence[Study]) -> str:
    given = _shared(studies)
    return f"study {given['study']}, preset {given['preset']}, on {given['dataset']}"


def _shown(path: Path) -> str:
    """Relative to the project where it lies below it."""
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


# -- a run -----------------------------------------------------------------------------------


def run_graph(studies: Sequence[Study], cores: int, profile: Profile = LOCAL) -> int:
    """Run what is missing; after a kill, go on from there.

    Parameters
    ----------
    studies : sequence of Study
        They differ in nothing but data set and study (`studies_of`).
    cores : int
        Jobs side by side, and threads of a job that has the machine to itself; in a queue, of
        each job.
    profile : Profile

    Returns
    -------
    int
        Exit code: 0 done, 1 failed, 2 bad input, 130 interrupted.
    """
    _prepare(studies, profile)
    runs = studies[0].runs
    with _only_run_in(runs) as lock:
        start_timings(runs)
        profile.settle(runs)
        _remove_stale_lock(studies, cores, profile)
        started = time.time()
        print(f"fairdiff run: {_title(studies)}, {cores} cores", flush=True)
        command = _command(studies, cores, profile)
        several = len({study.dataset for study in studies}) > 1
        brief = not profile.queued
        code = _follow(command, runs / LOG, started, lock, brief=brief, several=several)
    return _report(studies, code, started)


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


def _remove_stale_lock(studies: Sequence[Study], cores: int, profile: Profile) -> None:
    """Snakemake's own lock survives a kill; as we hold the folder, nobody else can own it."""
    locks = studies[0].runs / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        print("fairdiff run: an earlier run was killed; its lock is removed, its work goes on")
        command = _command(studies, cores, profile, "--unlock")
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise InputError(f"{locks}: an earlier run's lock can't be removed ({said})")


def _follow(
    command: list[str], log: Path, started: float, lock: int, *, brief: bool, several: bool
) -> int:
    """Run Snakemake, log all it says, and show people what they need."""
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(lock,),
        )
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            assert process.stdout is not None
            _show(process.stdout, stream, started, brief, several)
            return process.wait()
        except KeyboardInterrupt:
            _wait_or_interrupt(process, stream)
            return 130
        finally:
            signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Being asked to end is like Ctrl-C."""
    raise KeyboardInterrupt


def _wait_or_interrupt(process: subprocess.Popen[str], log: IO[str]) -> None:
    """A terminal interrupts Snakemake too; a lone signal to us has to be passed on.

    What it still says goes into the log: if nobody read it, a full pipe would stop it for ever.
    """
    assert process.stdout is not None
    rest = threading.Thread(target=_drain, args=(process.stdout, log), daemon=True)
    rest.start()
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
    rest.join(timeout=3)  # a job that outlives Snakemake holds the pipe open


def _drain(lines: Iterable[str], log: IO[str]) -> None:
    for line in lines:
        if log.closed:
            return
        log.write(line)


def _show(lines: Iterable[str], log: IO[str], started: float, brief: bool, several: bool) -> None:
    """Log each line, print what people want to see; with the data set where there are several."""
    for line in lines:
        log.write(line)
        log.flush()
        steps = STEPS_DONE.match(line)
        clock = f"[{(time.time() - started) / 60:5.1f} min]"
        if line.startswith(OURS):
            said = line.removeprefix(OURS).rstrip()
            print(clock, said if several else DATASET_MARK.sub("", said), flush=True)
        elif steps:
            print(clock, f"{steps[1]} of {steps[2]} jobs done", flush=True)
        elif not brief:
            print(line.rstrip(), flush=True)


def _report(studies: Sequence[Study], code: int, started: float) -> int:
    runs = studies[0].runs
    minutes = (time.time() - started) / 60
    if code == 130:
        print(f"interrupted after {minutes:.1f} minutes; the same command goes on from here")
        return code
    log = (runs / LOG).read_text(encoding="utf-8")
    if code == 0:
        nothing = "Nothing to be done" in log
        print("nothing to do: all is there" if nothing else f"done in {minutes:.1f} minutes")
        titles = ("tables and figures", "executed notebooks")
        shown = dict.fromkeys(
            (what, _shown(place))
            for study in studies
            for what, place in zip(titles, study.shown, strict=True)
        )
        for what, folder in shown:
            print(f"  {what}: {folder}")
        return 0
    failures = read_failures(runs, since=started)
    for failure in failures:
        print(f"{failure['title']}: {failure['message']}", file=sys.stderr)
        print(f"  executed copy: {_shown(Path(failure['output']))}", file=sys.stderr)
    if not failures:
        place = runs / LOG
        print(f"Snakemake failed: {_last_lines(log)} (all of it: {place})", file=sys.stderr)
    bad_input = bool(failures) and all(failure["bad_input"] for failure in failures)
    return 2 if bad_input else 1


def default_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
