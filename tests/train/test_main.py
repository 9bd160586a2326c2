"""Two processes give the weights of one; started by torchrun, as a person would.

The workers are this very file, run as a script: each trains the same runs and the first writes
what they ended with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fairdiff_lib.methods.base import make_method
from fairdiff_lib.model.device import leave
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.settings.options import LoopConfig, MitigationConfig
from fairdiff_lib.studies.verdict.protocol import write_protocol
from fairdiff_lib.study import Study
from fairdiff_lib.train.__main__ import main
from fairdiff_lib.train.loop import batch_rows, fit

ATTRIBUTES = {"race": ("Asian", "Black", "White"), "sex": ("Female", "Male")}
LOOP = LoopConfig(steps=12, batch=8, warmup=2, checkpoint_every=6, log_every=1, ema_decay=0.9)
COUNT, SEED = 30, 1
UNET = "pipeline_raw/unet/diffusion_pytorch_model.safetensors"
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "corrected": ("fairdiffusion", {"ranks": "corrected"}),
    "as_released": ("fairdiffusion", {"ranks": "as_released"}),
    "resumed": ("fairdiffusion", {"ranks": "as_released"}),
}


@dataclass
class Regression:
    """``(w . x + noise - y)^2`` per row."""

    module: nn.Module
    inputs: Tensor
    targets: Tensor

    def loss(
        self, module: nn.Module, rows: Tensor, part: slice, generator: torch.Generator
    ) -> Tensor:
        noise = 0.1 * torch.randn(len(rows), generator=generator)[part]
        prediction: Tensor = module(self.inputs[rows[part]]).squeeze(1) + noise
        return (prediction - self.targets[rows[part]]).square()


def levels() -> np.ndarray:
    """Asian is rare enough to be missing from halves of batches, and from some batches."""
    race = np.where(np.arange(COUNT) % 9 == 0, 0, 1 + np.arange(COUNT) % 2)
    return np.stack([race, np.arange(COUNT) % 2], axis=1)


class Killed(Exception):
    """Stands for a kill."""


def train(run: str, folder: Path | None = None, die_at: int = 0) -> dict[str, Any]:
    """One run on however many processes there are; what it ended with."""
    name, options = RUNS[run]
    rank = int(os.environ.get("RANK", "0"))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(COUNT, 5, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    config = replace(MitigationConfig(time_window=4), **options)
    mitigation = make_method(name, config, ATTRIBUTES, SEED, COUNT // 8, rank)
    sigmas: list[Any] = []

    def after(step: int, _: nn.Module) -> None:
        sigma = mitigation.scales()
        sigmas.append(None if sigma is None else sigma.tolist())
        if step == die_at:
            raise Killed

    result = fit(
        Regression(module, inputs, inputs.sum(dim=1)),
        replace(LOOP, learning_rate=1e-2),
        count=COUNT,
        seed=SEED,
        levels=levels(),
        method=mitigation,
        folder=folder,
        after_step=after,
    )
    spread = result.history[result.history["quantity"] == "sigma_spread"]["value"]
    return {
        "processes": result.processes,
        "weights": torch.cat([p.detach().flatten() for p in module.parameters()]).tolist(),
        "sigmas": sigmas,
        "spread": spread.tolist(),
    }


def work(target: Path) -> None:
    """What each worker does."""
    found = {run: train(run) for run in RUNS if run != "resumed"}
    kept = target.parent / "checkpoints"
    try:
        train("resumed", kept, die_at=7)
    except Killed:
        found["resumed"] = train("resumed", kept)
    target.with_name(f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
    leave()


def two_processes(*what: str) -> subprocess.CompletedProcess[str]:
    """Start a script or ``-m module`` with its arguments under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    # a free port of its own choosing: test processes run side by side
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    return subprocess.run(
        [*command, *what],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes ended with, by run."""
    target = tmp_path_factory.mktemp("pair") / "out"
    done = two_processes(__file__, str(target))
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(target.with_name(f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_ran(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert {run["processes"] for run in found.values()} == {2}
    assert train("none")["processes"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("run", ["none", "corrected"])
def test_two_processes_give_the_weights_of_one(run: str, pair: list[dict[str, Any]]) -> None:
    alone = torch.tensor(train(run)["weights"])
    for found in pair:
        together = torch.tensor(found[run]["weights"])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    other = torch.tensor(train("corrected" if run == "none" else "none")["weights"])
    assert float((other - alone).abs().max()) > 1e-3  # the effect that the tolerance guards


def test_a_group_was_missing_on_one_process_and_present_on_the_other() -> None:
    """Else the test above would not have met a gap that only the gathered batch shows."""
    race, found = levels()[:, 0], []
    for step in range(LOOP.steps):
        rows = batch_rows(COUNT, LOOP.batch, SEED, step).numpy()
        found.append([bool((race[half] == 0).any()) for half in np.split(rows, 2)])
    assert any(left != right for left, right in found)


@pytest.mark.slow
def test_corrected_sigma_is_the_same_on_every_process_at_every_step(
    pair: list[dict[str, Any]],
) -> None:
    first, second = (found["corrected"]["sigmas"] for found in pair)
    assert len(first) == LOOP.steps and first == second
    assert first[0] != first[5]  # it moved
    assert pair[0]["corrected"]["spread"] == [0.0] * LOOP.steps


@pytest.mark.slow
def test_as_released_each_process_has_a_sigma_of_its_own(pair: list[dict[str, Any]]) -> None:
    first, second = (found["as_released"]["sigmas"] for found in pair)
    assert first[0] != second[0] and first[-1] != second[-1]
    assert min(pair[0]["as_released"]["spread"]) > 0.0
    assert pair[0]["as_released"]["weights"] == pair[1]["as_released"]["weights"]


@pytest.mark.slow
def test_each_process_resumes_with_its_own_sigma(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert found["resumed"]["weights"] == found["as_released"]["weights"]
        assert found["resumed"]["sigmas"][-1] == found["as_released"]["sigmas"][-1]


@pytest.mark.slow
def test_the_documented_command_trains_what_one_process_trains(tmp_path: Path) -> None:
    """The whole way, from simulated data to a saved pipeline, by the module's own command."""
    given = [
        *("preset=smoke", "dataset=fairgenmed_simulated", f"runs_root={tmp_path / 'runs'}"),
        *("vae.steps=2", "base.steps=2", "training.steps=4", "mitigation.time_window=2"),
    ]
    study = Study.open("smoke", runs_root=str(tmp_path / "runs"), overrides=" ".join(given[3:]))
    write_protocol(study)
    command = ["-m", "fairdiff_lib.train.__main__", "fairdiffusion", "0", *given, "draw=true"]
    done = two_processes(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trained on 2 processes" in done.stdout
    (folder,) = (tmp_path / "runs").rglob("fairdiffusion-seed0-*")
    assert not list(folder.rglob("*.tmp")) and not (folder / "work").exists()
    together = load_file(folder / UNET)
    drawn = study.places.generated("fairdiffusion", 0)
    first = {split: load_generated(drawn, split) for split in ("train", "test")}
    folder.rename(tmp_path / "two")
    assert main(["fairdiffusion", "0", *given, "draw=true"]) == 0
    for split, images in first.items():  # weights and batches differ by rounding alone
        assert np.abs(images.astype(int) - load_generated(drawn, split)).max() <= 1
    alone = load_file(folder / UNET)
    assert together.keys() == alone.keys()
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5)
    (base,) = (tmp_path / "runs").rglob("base-*")
    before = load_file(base / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    assert max(float((alone[k] - v).abs().max()) for k, v in before.items()) > 1e-4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected METHOD SEED"),
        (["none", "first"], "expected METHOD SEED"),
        (["nothing", "0"], "unknown method 'nothing'; known: .*fairdiffusion"),
        (["none", "0", "preset=fast"], "unknown preset"),
        (["none", "0", "preset=smoke", "draw=yes"], "unknown draw 'yes'; known: false, true"),
        (
            ["none", "0", "preset=smoke", "training.mixed_precision=fp16"],
            r"training\.mixed_precision=fp16: needs a GPU",
        ),
    ],
)
def test_a_bad_command_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert re.search(words, shown) and shown.count("\n") == 1


if __name__ == "__main__":
    work(Path(sys.argv[1]))
