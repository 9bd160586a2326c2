"""SD 2.1 at its full size through the library's own path: trained, killed, resumed, sampled.

Random weights, so nothing is downloaded and nothing is learnt: what is found is whether it fits and
what it takes. Each stage is a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.run.doctor import build_random
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.study import Study

METHOD, SEED, IMAGES = "fairdiffusion", 0, 4
# small groups that are large, so that few patients have every level: each image takes SD 2.1's
# encoder some ten seconds of a core
PATIENTS = (
    "simulator.share_asian=0.3 simulator.share_black=0.3 simulator.share_hispanic=0.5 "
    f"simulator.val=4 simulator.test={IMAGES}"
)
COLUMNS = ["stage", "seconds", "peak_gib", "free_gib"]


def fewest(folder: Path) -> str:
    """Overrides of a simulated cohort with as few training patients as have every level."""
    for train in range(4, 60):
        overrides = f"{PATIENTS} simulator.train={train}"
        study = Study.open("paper", "fairgenmed_simulated", overrides, runs_root=str(folder))
        try:
            found = len(study.cohort.table)
        except InputError:  # a level that nobody has
            continue
        print(f"{found} patients, {train} of them for training", flush=True)
        return overrides
    raise InputError("no cohort of fewer than 60 training patients has every level")


def overrides_of(folder: Path, width: float, precision: str, optimiser: str) -> str:
    """The paper preset's settings for two optimiser steps of one image on one small machine."""
    size = 512 if width >= 0.5 else 64
    return (
        f"{fewest(folder / 'runs')} model.pretrained={folder / 'random'} model.image_size={size} "
        f"training.steps=2 training.batch=1 training.micro_batch=1 training.log_every=1 "
        f"training.checkpoint_every=1 training.mixed_precision={precision} "
        f"training.optimiser={optimiser} machine.gradient_checkpointing=true "
        f"mitigation.time_window=1 generation.steps=3 generation.batch=1 "
        f"generation.mixed_precision={precision}"
    )


def run_benchmark(folder: Path, width: float, precision: str, optimiser: str) -> pd.DataFrame:
    """All stages, in an empty folder, which grows to 25 GB at full width.

    Returns
    -------
    DataFrame
        stage, seconds (of the wall clock; of a step, by the training's own history), peak_gib (of
        the stage's process, the mapped files that it reads included), free_gib (least memory that
        the machine had left meanwhile).
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: not empty; expected a folder for some 25 GB of its own")
    folder.mkdir(parents=True, exist_ok=True)
    given = overrides_of(folder, width, precision, optimiser)
    study = Study.open("paper", "fairgenmed_simulated", given, runs_root=str(folder / "runs"))
    options = json.dumps({"folder": str(folder), "overrides": given, "width": width})
    rows = [_stage(stage, options) for stage in ("build", "base")]
    place = study.places.run(METHOD, SEED)
    checkpoint = place / "work" / "checkpoint-000001"
    rows.append(_stage("train", options, lambda: checkpoint.is_dir(), "step 1, killed after it"))
    sizes = sum(file.stat().st_size for file in checkpoint.iterdir()) / 2**30
    rows.append(_stage("train", options, label="resumed, step 2, saved"))
    history = pd.read_csv(place / "history.csv")
    steps = history[history["quantity"] == "seconds"]["value"]
    rows += [
        {"stage": "one step, mean of two", "seconds": float(steps.iloc[-1]) / 2},
        {"stage": "checkpoint", "peak_gib": sizes},  # GiB on disk
    ]
    rows.append(_stage("draw", options, label=f"{IMAGES} images of 3 sampler steps"))
    return pd.DataFrame(rows)[COLUMNS]


def _stage(
    stage: str, options: str, until: Callable[[], bool] | None = None, label: str = ""
) -> dict[str, Any]:
    """Run a stage in a process of its own, and kill it where ``until`` says that it is time."""
    started, peak, free = time.monotonic(), 0.0, float("inf")
    command = [sys.executable, "-m", "benchmarks.large", stage, options]
    print(f"{label or stage}: started", flush=True)
    process = subprocess.Popen(command, cwd=PROJECT_ROOT)
    killed = False
    while process.poll() is None:
        peak, free = max(peak, _memory(process.pid)), min(free, _available())
        if free < 1.5:  # rather no result than a machine that swaps
            process.kill()
            raise InputError(f"{label or stage}: the machine has {free:.1f} GiB left; ended")
        if until is not None and until() and not killed:
            process.send_signal(signal.SIGKILL)
            killed = True
        time.sleep(0.2)
    if process.returncode and not killed:
        raise InputError(f"stage {stage} ended with code {process.returncode}")
    seconds = time.monotonic() - started
    print(f"{label or stage}: {seconds:.0f} s, peak {peak:.1f} GiB", flush=True)
    return {"stage": label or stage, "seconds": seconds, "peak_gib": peak, "free_gib": free}


def _memory(number: int) -> float:
    """Peak of a process so far, GiB."""
    try:
        text = Path(f"/proc/{number}/status").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) / 2**20 if found else 0.0


def _available() -> float:
    """Memory that the machine has left, GiB."""
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) / 2**20 if found else float("inf")


def main(stage: str, options: str) -> None:
    """One stage, in this process."""
    given = json.loads(options)
    folder = Path(given["folder"])
    study = Study.open(
        "paper", "fairgenmed_simulated", given["overrides"], runs_root=str(folder / "runs")
    )
    if stage == "build":
        prompts = study.cohort.table["prompt"].tolist()
        build_random(prompts, given["width"]).save_pretrained(folder / "random")
        return
    from fairdiff_lib.model.sample import generate
    from fairdiff_lib.train import runs

    if stage == "draw":
        test = study.cohort.included().split("test").table.head(IMAGES)
        asked = test["image"].tolist(), test["prompt"].tolist()
        generate(study, *asked, METHOD, SEED, "test")
    else:
        runs.train(study, runs.BASE if stage == "base" else METHOD, SEED)


if __name__ == "__main__":
    main(*sys.argv[1:])
