"""``python -m benchmarks WHAT``: measure, print, write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import audit, gpu, jobs, large, optimiser, steps, workshop
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.stamps import make_provenance, publish_table
from fairdiff_lib.settings.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    whats = parser.add_subparsers(required=True, metavar="WHAT")
    own = whats.add_parser("jobs", help="of the graph, as a run left them")
    own.add_argument("--runs-root", default="data/runs", metavar="DIR")
    own.add_argument("--write", action="store_true", help="into expected_seconds.json")
    own.set_defaults(action=_jobs)
    own = whats.add_parser("audit", help="KID and FID, against their definitions; minutes")
    own.add_argument("--images", type=int, default=10_000, metavar="N", help="of KID")
    own.add_argument("--features", type=int, default=2048, metavar="D", help="their width")
    own.add_argument("--resamples", type=int, default=1000, metavar="R", help="of FID")
    own.set_defaults(action=_audit)
    second = whats.add_parser("optimiser", help="its regret where the best sigma is known")
    second.add_argument("--surfaces", type=int, default=20, metavar="N", help="simulated")
    second.add_argument("--windows", type=int, default=30, metavar="N", help="of each")
    second.set_defaults(action=_optimiser)
    third = whats.add_parser("workshop", help="seconds of each exercise, against its budget")
    third.set_defaults(action=_workshop)
    fourth = whats.add_parser("large", help="SD 2.1's size: does it fit, and what does it take?")
    fourth.add_argument("--folder", required=True, metavar="DIR", help="empty; 25 GB at width 1")
    fourth.add_argument(
        "--width", type=float, default=1.0, metavar="W", help="of the U-Net; or 0.1"
    )
    fourth.add_argument("--precision", default="bf16", metavar="P", help="no, fp16 or bf16")
    fourth.add_argument("--optimiser", default="adamw8bit", metavar="O", help="or adamw")
    fourth.set_defaults(action=_large)
    fifth = whats.add_parser("steps", help="training and sampling against the usual way")
    fifth.add_argument("--steps", type=int, default=30, metavar="N", help="of each kind")
    fifth.add_argument("--batch", type=int, default=32, metavar="N", help="images of a step")
    fifth.set_defaults(action=_steps)
    sixth = whats.add_parser("gpu", help="SD 2.1's size on a GPU, in fifteen minutes")
    sixth.add_argument("--width", type=float, default=1.0, metavar="W", help="of the U-Net")
    sixth.add_argument("--batch", type=int, default=8, metavar="N", help="images of a step")
    sixth.add_argument("--steps", type=int, default=8, metavar="N", help="timed of each kind")
    sixth.add_argument("--sampler", type=int, default=25, metavar="N", help="steps of an image")
    sixth.set_defaults(action=_gpu)
    for what in (own, second, third, fourth, fifth, sixth):
        what.add_argument("--output", default="", metavar="CSV", help="the table and its stamp")
    try:
        chosen = parser.parse_args(arguments)
        output = getattr(chosen, "output", "")
        if output and Path(output).suffix != ".csv":
            raise InputError(f"--output {output}: expected a name that ends in .csv")
        chosen.action(chosen)
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def _jobs(chosen: argparse.Namespace) -> None:
    table = jobs.measured_jobs(PROJECT_ROOT / chosen.runs_root)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}"))
    if chosen.write:
        print(f"written to {jobs.write_expected(table).relative_to(PROJECT_ROOT)}")


def _audit(chosen: argparse.Namespace) -> None:
    sizes = audit.Sizes(chosen.images, chosen.features, resamples=chosen.resamples)
    table = audit.run_benchmarks(sizes)
    print("simulated features; seconds of this machine; naive: straight from the definition")
    for row in table.itertuples():
        print(
            f"{row.task}: {row.size}\n"
            f"  {row.seconds:.1f} s ({row.cpu_seconds:.1f} s of processors), "
            f"naive {row.naive_seconds:.0f} s ({row.naive}), "
            f"peak {row.peak_mib:.0f} MiB, largest difference {row.difference:.1e}"
        )
    _write(table, chosen.output, asdict(sizes))


def _optimiser(chosen: argparse.Namespace) -> None:
    for name in ("surfaces", "windows"):
        if getattr(chosen, name) < 2:
            raise InputError(f"--{name} {getattr(chosen, name)}: expected 2 or more")
    table = optimiser.regret_of(chosen.surfaces, chosen.windows)
    print("simulated surfaces; regret, 0 is the best sigma")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    first = optimiser.FRESH
    given = {"seeds": [first, first + chosen.surfaces - 1], "windows": chosen.windows}
    _write(table, chosen.output, given)


def _workshop(chosen: argparse.Namespace) -> None:
    table = workshop.run_benchmarks()
    print("seconds of this machine, right answers, first import included")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}"))
    _write(table, chosen.output, {"budget": workshop.BUDGET})


def _large(chosen: argparse.Namespace) -> None:
    given = {name: getattr(chosen, name) for name in ("width", "precision", "optimiser")}
    table = large.run_benchmark(Path(chosen.folder).resolve(), **given)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.1f}"))
    _write(table, chosen.output, given)


def _steps(chosen: argparse.Namespace) -> None:
    given = {name: getattr(chosen, name) for name in ("steps", "batch")}
    table = steps.run_benchmarks(**given)
    print("turn by turn; processor seconds on a CPU; a ratio above 1 is the library's")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    _write(table, chosen.output, given)


def _gpu(chosen: argparse.Namespace) -> None:
    given = {name: getattr(chosen, name) for name in ("width", "batch", "steps", "sampler")}
    table = gpu.run_benchmark(**given)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    _write(table, chosen.output, given)


def _write(table: pd.DataFrame, output: str, parameters: dict[str, Any]) -> None:
    if output:
        stamp = {"parameters": parameters, "simulated": True, **make_provenance()}
        print(f"written to {publish_table(table, output, stamp)}")


if __name__ == "__main__":
    raise SystemExit(main())
