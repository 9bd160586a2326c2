"""What jobs took, and what they are expected to take.

Every job appends a line to ``timings.csv`` in its runs folder. ``fairdiff bench
--write`` takes the longest of each kind over into ``expected_seconds.json``,
from which ``fairdiff run --dry-run`` reads: no expected time is a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.files import read_json, read_table, write_json
from fairdiff_lib.disk.stamps import hardware
from fairdiff_lib.run.notebook import Job
from fairdiff_lib.settings.options import Settings

EXPECTED = Path(__file__).with_name("expected_seconds.json")
TIMINGS = "timings.csv"  # in the runs folder: a line for every job that was ever done there
TIMING_COLUMNS = ("preset", "dataset", "kind", "work", "threads", "seconds", "peak_mb", "made_mb")


def work(settings: Settings, kind: str) -> int:
    """Amount of work in a kind of job; its time is taken as proportional to this.

    Parameters
    ----------
    settings : Settings
    kind : str
        As :attr:`Job.kind`.

    Returns
    -------
    int
        Images through a network (training), images x denoising steps (generation),
        subjects (simulation), or runs that a table compares (the rest).
    """
    if kind == "03_train base":
        return settings.vae.steps * settings.vae.batch + settings.base.steps * settings.base.batch
    if kind.startswith("03"):
        return settings.training.steps * settings.training.batch
    # a real set has one size
    size = sum(settings.simulator.counts.values()) if settings.simulator else 1
    if kind.startswith("04"):
        return size * settings.generation.steps
    if kind.startswith(("01", "02")):
        return size
    return len(settings.methods) * len(settings.seeds)


@dataclass(frozen=True)
class Expected:
    """What a job of this kind took when measured, scaled to its present work; None = unknown."""

    seconds: float | None
    made_mb: float | None


def expected(job: Job) -> Expected:
    """Look a job up in ``expected_seconds.json`` (same preset and dataset only)."""
    table = read_json(EXPECTED)["jobs"]
    found = table.get(f"{job.settings.preset}/{job.settings.dataset}", {}).get(job.kind)
    if found is None:
        return Expected(None, None)
    scale = work(job.settings, job.kind) / found["work"]
    return Expected(found["seconds"] * scale, found["made_mb"] * scale)


def start_timings(runs: Path) -> None:
    """Write the head line of ``timings.csv`` unless the file exists."""
    path = runs / TIMINGS
    if not path.is_file():
        path.write_text(",".join(TIMING_COLUMNS) + "\n", encoding="utf-8")


def note_timing(runs: Path, job: Job, threads: int, measured: dict[str, Any]) -> None:
    """Append a line to ``timings.csv``; a single write, so jobs side by side don't mix."""
    row = [job.settings.preset, job.settings.dataset, job.kind, work(job.settings, job.kind)]
    row += [threads, measured["seconds"], measured["peak_mb"], measured["made_mb"]]
    with (runs / TIMINGS).open("a", encoding="utf-8") as stream:
        stream.write(",".join(map(str, row)) + "\n")


def read_timings(runs: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """``preset/dataset`` -> kind of job -> what its longest run took.

    The longest, since a job that finds its work done already takes next to nothing.
    """
    frame = read_table(runs / TIMINGS, columns=TIMING_COLUMNS)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in frame.sort_values("seconds").to_dict("records"):
        place = found.setdefault(f"{row.pop('preset')}/{row.pop('dataset')}", {})
        place[str(row.pop("kind"))] = {str(key): value for key, value in row.items()}
    return found


def write_expected(runs: Path) -> Path:
    """Take the measured times over into ``expected_seconds.json``; other entries stay."""
    table = read_json(EXPECTED)
    for place, kinds in read_timings(runs).items():
        table["jobs"].setdefault(place, {}).update(kinds)
    table["machine"] = hardware()
    write_json(EXPECTED, table)
    return EXPECTED
