"""Train one run on several processes: the entry point for torchrun.

On one machine with four GPUs

    torchrun --nproc_per_node 4 -m fairdiff_lib.train fairdiffusion 0 preset=paper \\
        dataset=fairgenmed model.revision=COMMIT

and on two machines that share the project's folder, the same on each but for ``--node_rank``

    torchrun --nnodes 2 --node_rank 0 --nproc_per_node 4 --master_addr HOST --master_port 29500 \\
        -m fairdiff_lib.train fairdiffusion 0 preset=paper dataset=fairgenmed

A step's batch is cut into equal parts, so ``training.batch`` must be a multiple of the number of
processes; ``training.micro_batch`` is what one of them takes at once. The weights are those of one
process but for rounding. The notebooks and ``fairdiff run`` find the finished run, and a killed one
goes on from its checkpoint. With ``draw=true`` the processes then share the run's images; each
image has noise of its own, so it is the same whatever their number.
(``accelerate launch --cpu --num_processes 2`` silently runs one process; torchrun does not.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fairdiff_lib.model import device, sample
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import METHODS
from fairdiff_lib.settings.options import parse_overrides
from fairdiff_lib.study import Study
from fairdiff_lib.train import runs

OPENED = ("preset", "dataset", "data_root", "runs_root")  # all else is a setting, but for DRAW
DRAW = "draw"


def train(arguments: Sequence[str]) -> str:
    """Train a method and seed, and the base where it is missing; what was done, in one line.

    Arguments are the method (or ``base``), the seed, then ``name=value``: preset, dataset,
    data_root, runs_root, draw, or a setting as ``training.steps=20``.
    """
    if len(arguments) < 2 or not arguments[1].isdecimal():
        raise InputError("expected METHOD SEED [NAME=VALUE ...], as fairdiffusion 0 preset=paper")
    method, seed = arguments[0], int(arguments[1])
    refuse_unknown("method", method, (*METHODS, runs.BASE))
    given = parse_overrides(" ".join(arguments[2:]))
    draw = given.pop(DRAW, "false")
    refuse_unknown(DRAW, draw, ("true", "false"))
    named = {name: given.pop(name) for name in OPENED if name in given}
    overrides = " ".join(f"{name}={value}" for name, value in given.items())
    study = Study.open(**named, overrides=overrides)
    if draw == "true":
        study.require("protocol")  # what will be tested is written before the first image
    with device.first_only() as first:
        if first:
            assert study.cohort is not None  # read, or drawn, once and kept on disk
    run = runs.train(study, method, seed).facts
    done = f"{method}, seed {seed}: trained on {run['processes']} processes, {run['seconds']:.0f} s"
    if draw == "true":
        made = sample.generate_run(study, method, seed)
        done += f"; {made['new'].sum()} images drawn, {made['seconds'].sum():.0f} s"
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 done, 2 bad input."""
    try:
        done = train(sys.argv[1:] if arguments is None else arguments)
    except InputError as error:
        print(f"fairdiff: {error}", file=sys.stderr)
        return 2
    else:
        if device.processes().is_main_process:
            print(done)
    finally:
        device.leave()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
