"""``fairdiff doctor``: does a run fit here, and how long will it take? Nothing is trained.

Sizes come from a dry calculation (``model.dry``), the machine's speed from a second of matrix
products. ``benchmarks/results`` has what was predicted and measured for SD 2.1.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fairdiff_lib.disk.files import read_table
from fairdiff_lib.model import device
from fairdiff_lib.model.dry import GIB, Dry, measure
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import LoopConfig, MachineConfig
from fairdiff_lib.study import Study
from fairdiff_lib.train.loop import share_of

UNREAD = 10_000  # images that real data are taken for before they are read: FairGenMed's
# share of the speed of large products that a whole step reaches: measured for the quick preset's
# step on a CPU (0.88) and usual on GPUs, where much time goes into reading and writing memory
EFFICIENCY = {"cpu": 0.85, "cuda": 0.4}
SPARING = MachineConfig(gradient_checkpointing=True, average_on_cpu=True)
PNG = 0.5  # bytes of a PNG file for each byte of pixels, of photographs


@dataclass(frozen=True)
class Finding:
    """One thing that a run needs, and what there is of it."""

    what: str
    needed: float
    there: float | None  # None: nothing to compare it with
    unit: str
    note: str = ""

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.there is None or self.needed <= self.there

    def __str__(self) -> str:
        there = "" if self.there is None else f" of {self.there:.3g} {self.unit}"
        mark = "" if self.fits else "  DOES NOT FIT"
        note = f" ({self.note})" if self.note else ""
        needed = f"{self.needed:.1f}" if self.unit in ("GiB", "GB") else f"{self.needed:,.3g}"
        needed = f"{self.needed:,.0f}" if self.needed >= 100 else needed
        return f"{self.what}: {needed} {self.unit}{there}{note}{mark}"


def examine(
    study: Study, processes: int = 1, memory: float = 0.0, tflops: float = 0.0
) -> list[Finding]:
    """What the study's runs need: memory of each process, disk, hours.

    ``processes`` train one run together, a GPU each. ``memory`` are GiB of a GPU elsewhere, and
    ``tflops`` 10^12 operations a second of its large products; 0 means this machine's. Refused are
    a batch that so many processes can't share, and a model of unknown size.
    """
    own = study.settings
    dry, gpu = measure(own.model), device.has_gpu() or memory > 0
    images, note = _images(study)
    precisions = {own.training.mixed_precision, own.generation.mixed_precision, "no"}
    given = tflops * 1e12 * EFFICIENCY["cuda"]
    speeds: dict[str, float] = {name: given or speed(name) for name in precisions}
    there = memory or _memory()
    share = share_of(own.training, processes)
    parts = dry.training(own.training, own.machine, share, gpu)
    guided, half = own.generation.guidance > 1, own.generation.mixed_precision != "no"
    said = ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if size >= 0.05)
    drawn = dry.sampling(own.generation.batch, guided, half)
    runs = study.places.runs
    place = next(one for one in (runs, *runs.parents) if one.exists())  # or where it will be
    several = f"{len(own.runs)} runs one after the other"
    several += "" if tflops else ", at this machine's speed now"
    trained = training_hours(own.training, own.machine, dry, speeds) * len(own.runs) / processes
    drawing = _drawing_hours(study, dry, images, speeds) / processes
    return [
        Finding("training, each process", sum(parts.values()), there, "GiB", said),
        Finding("images, each process", drawn, there, "GiB"),
        Finding("cohort", images, None, "images", note),
        Finding("disk", disk(study, dry, images), shutil.disk_usage(place).free / 1e9, "GB"),
        Finding("training", trained, None, "hours", several),
        Finding("drawing", drawing, None, "hours", several),
    ]


def advice(study: Study, processes: int, memory: float) -> str:
    """What would make the training fit, or that nothing here does."""
    own = study.settings
    dry, gpu = measure(own.model), device.has_gpu() or memory > 0
    small = replace(own.training, micro_batch=1, optimiser="adamw8bit")
    needed = sum(dry.training(small, SPARING, share_of(small, processes), gpu).values())
    options = (
        "machine.gradient_checkpointing=true machine.average_on_cpu=true training.micro_batch=1 "
        "training.optimiser=adamw8bit"
    )
    if needed <= (memory or _memory()):
        return f"it fits with --set {' --set '.join(options.split())}: {needed:.1f} GiB"
    return f"even with {options} it needs {needed:.1f} GiB; expected a larger machine"


def training_hours(
    loop: LoopConfig, machine: MachineConfig, dry: Dry, speeds: dict[str, float]
) -> float:
    """Hours of one run on one process; a step's backward pass costs two forward ones."""
    passes = 4 if machine.gradient_checkpointing else 3
    work = loop.steps * loop.batch * passes * dry.forward
    return work / speeds[loop.mixed_precision] / 3600


def _drawing_hours(study: Study, dry: Dry, images: int, speeds: dict[str, float]) -> float:
    own = study.settings.generation
    each = own.steps * dry.forward * (2 if own.guidance > 1 else 1) + dry.decode
    encoding = images * dry.encode  # once, for the base's latents
    drawing = len(study.settings.runs) * images * each / speeds[own.mixed_precision]
    return (drawing + encoding / speeds["no"]) / 3600


def disk(study: Study, dry: Dry, images: int) -> float:
    """GB that the study's folder grows to, the two checkpoints of a run in progress included."""
    own = study.settings
    whole = 4 * (dry.unet + dry.vae + dry.text)
    latent = 2 * 4 * dry.latent  # mean and deviation
    moments = 2 if own.training.optimiser == "adamw8bit" else 8
    checkpoint = (4 + moments + (4 if own.training.ema_decay else 0)) * dry.unet
    drawn = images * 3 * own.model.image_size**2 * PNG
    runs = len(own.runs) * (2 * 4 * dry.unet + drawn)  # VAE and text encoder are the base's files
    return (whole + images * latent + runs + 2 * checkpoint) / 1e9


def _images(study: Study) -> tuple[int, str]:
    """How many images the cohort has, and how one knows."""
    kept = study.places.cohort / "cohort.csv"
    if kept.is_file():
        return len(read_table(kept)), "read"
    if study.settings.simulator is not None:
        return sum(study.settings.simulator.counts.values()), "that will be drawn"
    return UNREAD, "not read yet; a guess"


def _memory() -> float:
    """GiB of the GPU, or those that the machine has left."""
    if device.has_gpu():
        return float(torch.cuda.mem_get_info()[0]) / GIB
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError("this machine doesn't say its memory; expected --memory GIB") from error
    left = next(line for line in lines if line.startswith("MemAvailable"))
    return int(left.split()[1]) / 2**20


def speed(precision: str) -> float:
    """Operations a second of this process that a training step reaches, from large products."""
    place = torch.device("cuda" if device.has_gpu() else "cpu")
    side = 8192 if device.has_gpu() else 1024
    kind: Any = device.DTYPES.get(precision, torch.float32)
    if precision == "fp16" and not device.has_gpu():
        kind = torch.bfloat16
    a = torch.ones(side, side, device=place, dtype=kind)
    b = a @ a  # the first one is slower
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < 0.5:
        b = a @ a
        done += 1
        if place.type == "cuda":
            torch.cuda.synchronize()
    assert b.shape == a.shape
    rate = done * 2 * side**3 / (time.perf_counter() - started)
    return rate * EFFICIENCY[place.type]
