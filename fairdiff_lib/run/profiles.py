"""Profiles: where the graph's jobs run, on this machine or through a Slurm queue.

A profile is a folder with Snakemake's ``config.yaml``. What a Slurm one lacks is said before
anything starts. Its jobs carry a name made of the runs folder, so that the next run finds what a
killed one left in the queue.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.settings.errors import InputError, refuse_unknown

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
            _ask("scancel", "--state=PENDING", *waiting)
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
    lines = _ask("squeue", "--me", "--noheader", "--format=%i|%T|%j").splitlines()
    rows = [line.strip().split("|", 2) for line in lines if line.strip()]
    prefix = f"{job_prefix(runs)}_"
    return {number: state for number, state, name in rows if name.startswith(prefix)}


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise InputError(
            f"profile slurm: no {command[0]} on this machine; expected one that submits to Slurm"
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout
