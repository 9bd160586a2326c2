"""Source notebooks keep the house rules; the smoke preset runs them all, through a kill."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from benchmarks.jobs import measured_jobs, write_expected
from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.stamps import read_stamp
from fairdiff_lib.run.graph import GraphRun
from fairdiff_lib.run.jobs import Jobs
from fairdiff_lib.run.notebook import find_notebook, known_parameters
from fairdiff_lib.settings.notebooks import NOTEBOOKS

NAMES = list(NOTEBOOKS)
STUDY = [name for name, entry in NOTEBOOKS.items() if entry.study != "own"]  # CSV files instead
GRAPH = [name for name in STUDY if NOTEBOOKS[name].study == "main"]
SHARED_PARAMETERS = {
    "preset": "quick",
    "dataset": "fairgenmed_simulated",
    "data_root": "",
    "runs_root": "data/runs",
    "figures_root": "figures",
    "overrides": "",
}
STAMP_KEYS = {
    "parameters",
    "settings",
    "data_hash",
    "simulated",
    "versions",
    "hardware",
    "commit",
    "dirty",
}


# -- sources ---------------------------------------------------------------------------------


def cells(name: str) -> list[Any]:
    found: list[Any] = nbformat.read(find_notebook(name), as_version=4).cells  # type: ignore[no-untyped-call]
    return found


def is_module(name: str) -> bool:
    path = PROJECT_ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def code(name: str) -> list[Any]:
    return [cell for cell in cells(name) if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_a_source_is_clean(name: str) -> None:
    notebook = json.loads(find_notebook(name).read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in code(name):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_short_and_has_no_machinery(name: str) -> None:
    assert len(cells(name)) <= 30
    assert cells(name)[0].source.splitlines()[0] == f"# {name[:2]} {NOTEBOOKS[name].question}"
    for cell in code(name):
        assert len(cell.source.splitlines()) <= 10
        tree = ast.parse(cell.source)
        banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While)
        assert not [node for node in ast.walk(tree) if isinstance(node, banned)], cell.source
        for loop in (node for node in ast.walk(tree) if isinstance(node, ast.For)):
            words = {node.attr for node in ast.walk(loop) if isinstance(node, ast.Attribute)}
            assert not words & {"train", "generate", "fit"}, "a loop over experiments"


def test_notebooks_need_few_names_of_the_library() -> None:
    """Few are imported; what is taken from imported modules counts too, with room for more."""
    imported, taken = set(), set()
    for name in NAMES:
        trees = [ast.parse(cell.source) for cell in code(name)]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        own = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in nodes
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fairdiff_lib")
            for alias in node.names
        }
        imported |= set(own.values())
        taken |= {
            f"{own[node.value.id]}.{node.attr}"
            for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.value.id in own and is_module(own[node.value.id])
        }
    functions = [name for name in imported if not is_module(name)]
    assert len(imported) <= 40
    assert len(functions) + len(taken) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_one_parameters_cell_of_shared_scalars(name: str) -> None:
    tagged = [c for c in code(name) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert code(name)[0] is tagged[0] or code(name)[0].source == tagged[0].source
    found = known_parameters(find_notebook(name))
    assert len(found) <= 8
    assert all(isinstance(value, str | int | float | bool) for value in found.values())
    if name in STUDY:
        assert {key: found.get(key) for key in SHARED_PARAMETERS} == SHARED_PARAMETERS


@pytest.mark.parametrize("name", STUDY)
def test_the_end_records_scalars(name: str) -> None:
    assert "record(" in "\n".join(cell.source for cell in code(name)[-2:])


# -- smoke: the whole graph, killed once -----------------------------------------------------


@dataclass(frozen=True)
class Smoke:
    """A study of the smoke preset that was killed midway and then finished."""

    run: GraphRun
    second: subprocess.CompletedProcess[str]
    base_made: float  # when the base's record was written, before the kill
    base_kept: float  # the same after the second run

    @property
    def jobs(self) -> Jobs:
        return self.run.jobs()[0]

    @property
    def places(self) -> Places:
        return self.jobs.study.places

    def again(self, *studies: str) -> list[str]:
        """Run once more, or another study on what is there; the jobs that it started."""
        words = [*command(self.run), *(["--study", *studies] if studies else [])]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"\] (.*): started", done.stdout)

    def records(self) -> dict[str, dict[str, Any]]:
        paths = self.places.records.glob("*.json")
        return {path.stem: json.loads(path.read_text()) for path in paths}

    def made_by(self, study: str) -> list[Path]:
        """All that the jobs of a study say that they make."""
        jobs = [job for job in self.jobs.notebooks if job.entry and job.entry.study == study]
        return [Path(name) for job in jobs for name in job.makes]


def command(run: GraphRun, cores: int = 2) -> list[str]:
    options = ["--preset", "smoke", "--cores", str(cores)]
    options += ["--runs-root", run.runs_root, "--figures-root", run.figures_root]
    return [sys.executable, "-m", "fairdiff_lib.run.cli", "run", *options]


def wait_for(paths: list[Path], process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until every path is there and the process still runs."""
    until = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < until, f"not there in {seconds} s: {paths}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smoke]:
    place = tmp_path_factory.mktemp("smoke")
    run = GraphRun("smoke", runs_root=str(place / "runs"), figures_root=str(place / "figures"))
    places = run.jobs()[0].study.places
    base = places.records / "jobs" / "03_train_base.json"
    with (place / "first.txt").open("w") as stream:
        words = command(run)
        first = subprocess.Popen(words, stdout=stream, stderr=stream, process_group=0)
    try:
        wait_for([base, places.run("none", 0)], first, seconds=600)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        killed = first.wait()
    assert killed == -signal.SIGKILL
    made = base.stat().st_mtime
    second = subprocess.run(command(run), capture_output=True, text=True, check=False)
    yield Smoke(run, second, made, base.stat().st_mtime)


def test_a_killed_run_is_resumed(smoke: Smoke) -> None:
    said = smoke.second
    assert said.returncode == 0, said.stdout + said.stderr
    assert "an earlier run was killed" in said.stdout
    assert smoke.base_kept == smoke.base_made, "the base was trained again"
    assert "03_train method=base" not in said.stdout
    assert "05_quality: done" in said.stdout
    assert str(smoke.places.executed) in said.stdout
    assert smoke.again() == [], "a finished run has something to do"


def test_every_table_and_figure_is_there_with_its_stamp(smoke: Smoke) -> None:
    shared = smoke.places.figures_all / "tab14.csv"
    for path in [*smoke.made_by("main"), shared]:
        assert path.is_file(), path
        if path.suffix == ".json":
            continue
        stamp = read_stamp(path.with_suffix(".json"))
        assert stamp["files"][path.name] == hash_file(path)
        if path == shared:  # rows of several datasets, a stamp for each
            assert stamp["simulated"] is True
            stamp = stamp["datasets"][smoke.jobs.dataset]
        assert set(stamp) >= STAMP_KEYS, path
        assert len(stamp["data_hash"]) == 64 and stamp["simulated"] is True
        assert stamp["settings"]["preset"] == "smoke"
        assert str(smoke.run.runs) not in path.with_suffix(".json").read_text()


def test_recorded_scalars(smoke: Smoke) -> None:
    found, settings = smoke.records(), smoke.jobs.settings
    simulator = settings.simulator
    assert simulator is not None
    assert found["01_cohorts"]["subjects"] == sum(simulator.counts.values())
    assert found["01_cohorts"]["subjects_in_two_splits"] == 0
    assert found["02_simulators"]["simulated"] is True
    assert found["03_train_base"]["images_seen"] > 0
    for method in ("none", "fairdiffusion"):
        run = found[f"03_train_{method}_seed0"]
        assert math.isfinite(run["last_loss"])
        assert run["steps_compared"] == 5 and run["largest_difference"] == 0.0, "as in the open"
        made = found[f"04_generate_{method}_seed0"]
        assert made == {"images_test": simulator.test, "images_train": simulator.train}
    none, fair = (found[f"03_train_{method}_seed0"] for method in ("none", "fairdiffusion"))
    assert none["first_loss"] == fair["first_loss"], "methods differ before their first update"
    assert none["last_loss"] != fair["last_loss"]
    assert none["optimiser_share"] == 0 and fair["optimiser_share"] > 0
    windows = settings.training.steps // settings.mitigation.time_window
    assert found["06_perturbation"]["fairdiffusion_seed0_proposals"] == windows
    assert found["05_quality"]["gates"] > 0
    assert all(0 <= value <= 1 for value in found["07_downstream"].values())
    known = [value for value in found["12_harm"].values() if value is not None]
    assert known and all(0 <= value <= 1 for value in known)


def test_executed_copies_are_whole_and_name_no_place(smoke: Smoke) -> None:
    jobs = [job for job in smoke.jobs.notebooks if job.entry and job.entry.study == "main"]
    for path in (Path(job.executed) for job in jobs):
        text = path.read_text()
        assert str(PROJECT_ROOT) + "/" not in text, path.name
        for cell in json.loads(text)["cells"]:
            for output in cell.get("outputs", []):
                assert output["output_type"] != "error", path.name
                assert output.get("name") != "stderr", f"{path.name}: {output}"


def test_a_notebook_runs_alone_with_plain_papermill(smoke: Smoke, tmp_path: Path) -> None:
    """From another folder, on what the study left."""
    given = {"preset": "smoke", "runs_root": smoke.run.runs_root, "figures_root": f"{tmp_path}/f"}
    options = [word for name, value in given.items() for word in ("-p", name, value)]
    source, output = find_notebook("01_cohorts"), tmp_path / "out.ipynb"
    words = [sys.executable, "-m", "papermill", str(source), str(output), *options]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "f" / "smoke" / smoke.jobs.dataset / "tab01.csv").is_file()


def test_snakemake_timed_every_job_for_the_next_plan(smoke: Smoke, tmp_path: Path) -> None:
    table = measured_jobs(smoke.run.runs)
    kinds = {job.kind for job in smoke.jobs.notebooks if job.entry and job.entry.study == "main"}
    assert set(table["kind"]) == kinds | {job.kind for job in smoke.jobs.fits}
    assert (table["seconds"] > 0).all() and (table["peak_mb"] > 50).all()
    prices = tmp_path / "expected.json"
    prices.write_text('{"jobs": {}, "machine": null}')
    write_expected(table, prices)
    kept = json.loads(prices.read_text())["jobs"]["smoke/fairgenmed_simulated"]
    assert kept["03_train base"]["made_mb"] > 0


# -- the other studies, on what the main one left ----------------------------------------------


@pytest.mark.study
@pytest.mark.parametrize(
    ("study", "job"),
    [
        ("proof", "10_proof"),
        ("privacy", "14_privacy"),
        ("sweep", "15_sweep"),
        ("counterfactual", "16_counterfactual"),
        ("stress", "17_label_stress"),
        ("planted", "19_planted"),
    ],
)
def test_another_study_runs_its_notebook_alone(smoke: Smoke, study: str, job: str) -> None:
    assert smoke.again(study) == [job]
    made = smoke.made_by(study)
    assert made and all(path.is_file() for path in made)
    for path in made:
        if path.suffix == ".json":
            assert set(json.loads(path.read_text())) >= STAMP_KEYS
    found, settings = smoke.records()[job], smoke.jobs.settings
    if study == "sweep":
        assert found["cells"] == len(settings.sweep.guidances) * len(settings.sweep.steps)
    if study == "counterfactual":
        assert {"moved_all_noise", "moved_all_sex"} <= set(found)
    if study == "stress":  # three truths of features, two of images; clean, then every fault
        assert len(found) == 5 * (1 + 4 * len(settings.stress.shares))
    if study == "planted":
        runs = (smoke.places.figures / "tab_planted_runs.csv").read_text().splitlines()
        assert found["runs"] == 2 * settings.planted.runs
        assert sum(",seconds," in line for line in runs) == found["runs"]
    if study == "privacy":
        shares = [value for name, value in found.items() if "nearer" in name]
        assert len(shares) == 2 * 3 and all(0 <= share <= 1 for share in shares)
    if study == "proof":  # of the smoke preset's sizes, which prove nothing
        lines = (smoke.places.calibration / "tab_calibration.csv").read_text().splitlines()
        assert found["cells"] == len(lines) - 1
        assert found["audits"] == sum(int(line.split(",")[6]) for line in lines[1:])
        assert {line.split(",")[1] for line in lines[1:]} == {"F", "I", "T"}


@pytest.mark.study
def test_the_audit_of_ones_own_images_leaves_an_executed_copy(smoke: Smoke) -> None:
    assert smoke.again("own") == ["11_audit_your_own"]
    copy = smoke.places.own / "executed" / "11_audit_your_own.ipynb"
    assert "worse for cool than for warm" in copy.read_text()


@pytest.mark.study
def test_the_matrix_misses_a_lost_run_and_makes_it_alone(smoke: Smoke) -> None:
    started = smoke.again("matrix")
    assert started[-1] == "13_matrix" and all(name.startswith("arm ") for name in started[:-1])
    assert all(path.is_file() for path in smoke.made_by("matrix"))
    found = smoke.records()["13_matrix"]
    steps = smoke.jobs.settings.efficientnet.loop.steps
    assert found["runs"] == 4 * 2 + 2 and found["steps"] == steps
    assert {"auc_real_share0.5_seeds0", "auc_synthetic_share0_seeds0"} <= set(found)
    (smoke.places.matrix / "synthetic_seed0.json").unlink()
    os.utime(smoke.places.protocol, (0, 0))  # as after a kill just before it was written again
    assert smoke.again("matrix") == ["arm synthetic seed=0", "13_matrix"]


@pytest.mark.study
def test_the_ablation_keeps_what_is_recorded_and_makes_a_lost_run_alone(smoke: Smoke) -> None:
    started = smoke.again("ablation", "mechanism")
    assert not [name for name in started if name.startswith("03_train")], "the base was there"
    folder = smoke.places.ablation
    assert json.loads((folder / "protocol.json").read_text())["before"] is True
    runs = {path.stem for path in (folder / "runs").glob("*.json")}
    assert {"none-seed0", "fairdiffusion-seed0", "shuffled_y-seed0"} <= runs
    made = [*smoke.made_by("ablation"), *smoke.made_by("mechanism")]
    assert all(path.is_file() for path in made)
    found = smoke.records()["08_ablations"]
    assert found["runs"] == len(runs)
    (folder / "runs" / "shuffled_y-seed0.json").unlink()
    again = ["arm shuffled_y seed=0", "08_ablations", "06_perturbation ablation=True"]
    assert smoke.again("ablation", "mechanism") == again
