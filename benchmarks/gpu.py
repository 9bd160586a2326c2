"""Fifteen minutes of a GPU: ``python -m benchmarks gpu --output FILE.csv``.

SD 2.1's architecture with random weights at 512 px: the library's training step against the
released loop's order of work, images a second, the peak of memory, the share of what this GPU's
large matrix products reach; whether bf16, a compiled network and two processes agree with float32,
the plain network and one process. Nothing is downloaded. The whole of it needs some 60 GB;
``--width 0.5`` is for smaller cards, ``--width 0.1`` tries the script on a CPU.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.steps import (
    Problem,
    compare_images,
    compare_steps,
    make_problem,
    objective_of,
)
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.model import device
from fairdiff_lib.model.loss import generator_for
from fairdiff_lib.run.doctor import GIB, measure
from fairdiff_lib.settings.options import LoopConfig, MachineConfig, ModelConfig
from fairdiff_lib.train.loop import batch_rows, fit

TESTS = "tests/train/test_main.py"  # two processes against one
PRECISIONS = {True: ("no", "bf16", "fp16"), False: ("no", "bf16")}  # by whether there is a GPU


def run_benchmark(width: float, batch: int, steps: int, sampler: int) -> pd.DataFrame:
    """Every measurement and check, a row each: what, value, unit, note.

    Parameters
    ----------
    width : float
        Of the U-Net, see ``run.doctor.build_parts``.
    batch : int
        Images of a training step, and of a batch of samples.
    steps : int
        That are timed of each kind.
    sampler : int
        Denoising steps of an image.
    """
    rows: list[tuple[str, float, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        problem = make_problem(Path(folder), width)
        rows += _steps(problem, Path(folder), batch, steps)
        for precision in PRECISIONS[device.has_gpu()]:
            found = compare_images(problem, precision, batch, sampler, 1)
            note = f"{found['ratio']:.2f} times one at a time in float32"
            rate = 1 / found["seconds"]
            rows.append((f"images a second, {found['what']}, {precision}", rate, "1/s", note))
        rows += _checks(problem, batch)
    rows += _two_processes()
    return pd.DataFrame(rows, columns=["what", "value", "unit", "note"])


def _steps(
    problem: Problem, folder: Path, batch: int, steps: int
) -> list[tuple[str, float, str, str]]:
    """Training against the released order of work; memory; share of the products' speed."""
    rows: list[tuple[str, float, str, str]] = []
    problem.pipeline.save_pretrained(folder / "model")
    size = problem.images.shape[-1]
    dry = measure(ModelConfig(pretrained=str(folder / "model"), image_size=size))
    for precision in PRECISIONS[device.has_gpu()]:
        pair = ("fairdiffusion", precision, "the released order of work")
        found = compare_steps(problem, pair, steps, batch)
        label = f"{precision}, batch {batch}, {size} px"
        rows += [
            (f"training step, {label}", found["seconds"], "s", ""),
            (f"the released order of work, {label}", found["other_seconds"], "s", "in float32"),
            (f"ratio, {label}", found["ratio"], "x", "larger is faster"),
        ]
        reached = 3 * batch * dry.forward / found["seconds"]
        roof = products(precision)
        rows.append((f"share of large products' speed, {label}", reached / roof, "", ""))
    for machine in (MachineConfig(), MachineConfig(gradient_checkpointing=True)):
        for optimiser in ("adamw", "adamw8bit"):
            loop = LoopConfig(
                steps=2, batch=batch, micro_batch=min(4, batch), mixed_precision="bf16",
                optimiser=optimiser,
            )  # fmt: skip
            rows += _memory(problem, loop, machine, dry)
    return rows


def _memory(
    problem: Problem, loop: LoopConfig, machine: MachineConfig, dry: Any
) -> list[tuple[str, float, str, str]]:
    """Peak of two steps, against the dry calculation; on a GPU alone."""
    if not device.has_gpu():
        return []
    try:
        device.check_loop(loop)
    except ValueError:  # InputError: no bitsandbytes
        return []
    problem.pipeline.to("cpu")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    fit(objective_of(problem), loop, count=len(problem.images), seed=0, machine=machine)
    peak = torch.cuda.max_memory_allocated() / GIB
    parts = dry.training(loop, machine, loop.micro_batch, True)
    said = sum(parts.values()) - parts["runtime"]
    problem.pipeline.to(device.device())
    name = f"peak of memory, {loop.optimiser}, checkpointing {machine.gradient_checkpointing}"
    return [(name, peak, "GiB", f"predicted {said:.1f}, micro-batch {loop.micro_batch}, bf16")]


def products(precision: str) -> float:
    """Operations a second of large matrix products, the roof of everything else."""
    place, side = device.device(), 8192 if device.has_gpu() else 1024
    kind = device.DTYPES.get(precision, torch.float32)
    a = torch.randn(side, side, device=place).to(kind)
    a @ a
    rates = []
    for _ in range(5):
        if device.has_gpu():
            torch.cuda.synchronize()
        started = time.perf_counter()
        a @ a
        if device.has_gpu():
            torch.cuda.synchronize()
        rates.append(2 * side**3 / (time.perf_counter() - started))
    return max(rates)


def _checks(problem: Problem, batch: int) -> list[tuple[str, float, str, str]]:
    """Relative difference of a step's gradient from float32's, on the same draws."""
    objective, rows = objective_of(problem), batch_rows(len(problem.images), batch, 0, 0)
    part = slice(0, min(4, batch))

    def gradient(precision: str, machine: MachineConfig) -> torch.Tensor:
        module = device.arrange(copy.deepcopy(objective.module).train(), machine, precision)
        with device.autocast(precision):
            loss: Any = objective.loss(module, rows, part, generator_for(0, "draws", 0))
        loss.mean().backward()
        return torch.cat(
            [p.grad.flatten().cpu() for p in module.parameters() if p.grad is not None]
        )

    plain = gradient("no", MachineConfig(tf32=False))
    found = []
    for name, precision, machine in (
        ("bf16", "bf16", MachineConfig()),
        ("gradient checkpointing", "no", MachineConfig(gradient_checkpointing=True, tf32=False)),
        ("channels last", "no", MachineConfig(channels_last=True, tf32=False)),
        ("compiled", "no", MachineConfig(compile=True, tf32=False)),
    ):
        other = gradient(precision, machine)
        apart = float((other - plain).norm() / plain.norm())
        found.append((f"gradient, {name} against plain float32", apart, "relative", ""))
    return found


def _two_processes() -> list[tuple[str, float, str, str]]:
    """The tests of two processes, on the GPUs where there are two, else on the CPU."""
    hidden = {} if torch.cuda.device_count() > 1 else {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", TESTS, "-k", "two_processes_give"]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=os.environ | hidden, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or [""])[-1]
    return [("two processes give the weights of one", float(done.returncode == 0), "1 = yes", last)]
