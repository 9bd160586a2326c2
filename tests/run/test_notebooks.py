"""Source notebooks keep the house rules; the smoke preset runs them all, through a kill."""

from __future__ import annotations

import ast
import json
import math
import os
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

from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.run.graph import Study
from fairdiff_lib.run.notebook import all_notebooks, known_parameters
from fairdiff_lib.settings.notebooks import NOTEBOOKS

NAMES = list(NOTEBOOKS)
STUDY = [name for name, entry in NOTEBOOKS.items() if entry.study]  # 11 takes CSV files instead
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
    found: list[Any] = nbformat.read(all_notebooks()[name], as_version=4).cells  # type: ignore[no-untyped-call]
    return found


def code(name: str) -> list[Any]:
    return [cell for cell in cells(name) if cell.cell_type == "code"]


def test_all_notebooks_are_there() -> None:
    assert list(all_notebooks()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_source_is_clean(name: str) -> None:
    notebook = json.loads(all_notebooks()[name].read_text())
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


@pytest.mark.parametrize("name", NAMES)
def test_one_parameters_cell_of_shared_scalars(name: str) -> None:
    tagged = [c for c in code(name) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert code(name)[0] is tagged[0] or code(name)[0].source == tagged[0].source
    found = known_parameters(all_notebooks()[name])
    assert len(found) <= 8
    assert all(isinstance(value, str | int | float | bool) for value in found.values())
    if name in STUDY:
        assert {key: found.get(key) for key in SHARED_PARAMETERS} == SHARED_PARAMETERS


@pytest.mark.parametrize("name", STUDY)
def test_the_end_records_scalars_and_a_stamp(name: str) -> None:
    end = "\n".join(cell.source for cell in code(name)[-2:])
    assert "record(layout," in end
    assert "stamp" in end


# -- smoke: the whole graph, killed once -----------------------------------------------------


@dataclass(frozen=True)
class Smoke:
    """A study of the smoke preset that was killed midway and then finished."""

    study: Study
    second: subprocess.CompletedProcess[str]
    base_made: float  # when the base's record was written, before the kill
    base_kept: float  # the same after the second run


def command(study: Study, cores: int = 2) -> list[str]:
    options = ["--preset", "smoke", "--cores", str(cores)]
    options += ["--runs-root", study.runs_root, "--figures-root", study.figures_root]
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
    study = Study("smoke", runs_root=str(place / "runs"), figures_root=str(place / "figures"))
    base = study.layout.records / "jobs" / "03_train_base.json"
    trained = study.layout.run("none", 0)
    with (place / "first.txt").open("w") as stream:
        words = command(study, cores=1)
        first = subprocess.Popen(words, stdout=stream, stderr=stream, process_group=0)
    try:
        wait_for([base, trained], first, seconds=600)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        killed = first.wait()
    assert killed == -signal.SIGKILL
    made = base.stat().st_mtime
    second = subprocess.run(command(study), capture_output=True, text=True, check=False)
    yield Smoke(study, second, made, base.stat().st_mtime)


def records(smoke: Smoke) -> dict[str, dict[str, Any]]:
    folder = smoke.study.layout.records
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_a_killed_run_is_resumed(smoke: Smoke) -> None:
    said = smoke.second
    assert said.returncode == 0, said.stdout + said.stderr
    assert "an earlier run was killed" in said.stdout
    assert smoke.base_kept == smoke.base_made, "the base was trained again"
    assert "03_train method=base" not in said.stdout
    assert "05_quality: done" in said.stdout
    assert str(smoke.study.layout.executed) in said.stdout


def test_a_finished_run_has_nothing_to_do(smoke: Smoke) -> None:
    third = subprocess.run(command(smoke.study), capture_output=True, text=True, check=False)
    assert third.returncode == 0
    assert "nothing to do" in third.stdout
    assert "started" not in third.stdout


def test_every_table_and_figure_is_there_with_its_stamp(smoke: Smoke) -> None:
    layout = smoke.study.layout
    tables = ["tab01", "tab_gates", *(f"tab0{number}" for number in range(2, 8))]
    tables += ["tab_verdict", "tab_recovered"]
    tables += ["tab_harm", "tab_harm_contrasts", "tab_shown", "tab_shown_contrasts", "tab_probe"]
    drawn = [f"fig0{number}" for number in range(1, 7)]
    drawn += [f"fig_{name}" for name in ("roc", "reliability", "confusion", "slopes", "shown")]
    drawn.append("fig_probe")
    expected = {layout.figures / f"{name}.csv" for name in tables}
    expected |= {layout.figures_all / "tab14.csv"}
    expected |= {layout.figures / f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}
    expected |= {layout.figures / f"card.{kind}" for kind in ("html", "png")}
    assert not [path for path in expected if not path.is_file()]
    for path in expected:
        stamp = json.loads(path.with_suffix(".json").read_text())
        assert stamp["files"][path.name] == hash_file(path)
        if path.parent == layout.figures_all:  # rows of several datasets, a stamp for each
            assert set(stamp) == {"datasets", "simulated", "commit", "dirty", "files"}, path
            assert stamp["simulated"] is True
            stamp = stamp["datasets"][smoke.study.dataset]
        assert set(stamp) >= STAMP_KEYS, path
        assert len(stamp["data_hash"]) == 64
        assert stamp["simulated"] is True
        assert stamp["settings"]["preset"] == "smoke"
        assert str(smoke.study.runs) not in path.with_suffix(".json").read_text()


def test_recorded_scalars(smoke: Smoke) -> None:
    found = records(smoke)
    simulator = smoke.study.settings.simulator
    subjects = simulator.train + simulator.val + simulator.test
    assert found["01_cohorts"]["subjects"] == subjects
    assert found["01_cohorts"]["subjects_in_two_splits"] == 0
    assert found["02_simulators"]["simulated"] is True
    assert found["03_train_base"]["images_seen"] > 0
    for method in ("none", "fairdiffusion"):
        run = found[f"03_train_{method}_seed0"]
        assert math.isfinite(run["last_loss"])
        made = found[f"04_generate_{method}_seed0"]
        assert made == {"images_test": simulator.test, "images_train": simulator.train}
    none, fair = (found[f"03_train_{method}_seed0"] for method in ("none", "fairdiffusion"))
    assert none["first_loss"] == fair["first_loss"], "methods differ before their first update"
    assert none["last_loss"] != fair["last_loss"]
    assert none["optimiser_share"] == 0
    assert fair["optimiser_share"] > 0
    steps, window = smoke.study.settings.training.steps, smoke.study.settings.mitigation.time_window
    assert found["06_perturbation"]["fairdiffusion_seed0_proposals"] == steps // window
    assert found["05_quality"]["gates"] > 0
    assert all(0 <= value <= 1 for value in found["07_downstream"].values())
    known = [value for value in found["12_harm"].values() if value is not None]
    assert known and all(0 <= value <= 1 for value in known)


def test_executed_copies_are_whole_and_name_no_place(smoke: Smoke) -> None:
    copies = {path.stem: path for path in smoke.study.layout.executed.glob("*.ipynb")}
    assert set(copies) >= set(GRAPH) - {"03_train", "04_generate"}
    assert {"03_train_base", "03_train_none_seed0", "04_generate_fairdiffusion_seed0"} <= set(
        copies
    )
    for path in copies.values():
        text = path.read_text()
        assert str(PROJECT_ROOT) + "/" not in text, path.name
        for cell in json.loads(text)["cells"]:
            for output in cell.get("outputs", []):
                assert output["output_type"] != "error", path.name
                assert output.get("name") != "stderr", f"{path.name}: {output}"


def test_a_notebook_runs_alone_with_plain_papermill(smoke: Smoke, tmp_path: Path) -> None:
    """From another folder, on what the study left."""
    study = smoke.study
    given = {"preset": "smoke", "runs_root": study.runs_root, "figures_root": str(tmp_path / "f")}
    options = [word for name, value in given.items() for word in ("-p", name, value)]
    source, output = all_notebooks()["01_cohorts"], tmp_path / "out.ipynb"
    words = [sys.executable, "-m", "papermill", str(source), str(output), *options]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "f" / "smoke" / "fairgenmed_simulated" / "tab01.csv").is_file()


def test_measured_times_become_expected_ones(smoke: Smoke) -> None:
    """Every kind of job of the finished study has left its time."""
    lines = (smoke.study.runs / "timings.csv").read_text().splitlines()
    kinds = {line.split(",")[2] for line in lines[1:]}
    assert {"02_simulators", "03_train base", "03_train none", "04_generate", "00_index"} <= kinds


def test_the_proof_runs_on_what_the_study_left(smoke: Smoke) -> None:
    """Sizes of the smoke preset prove nothing; that is test_proof.py's and the full run's."""
    words = [*command(smoke.study), "--study", "proof"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "03_train" not in done.stdout, "the study's own generator was there"
    place = smoke.study.layout.calibration
    stamp = json.loads((place / "tab_calibration.json").read_text())
    assert set(stamp) >= STAMP_KEYS and stamp["settings"]["proof"]["simulations"] == 20
    lines = (place / "tab_calibration.csv").read_text().splitlines()
    assert lines[0].split(",")[:4] == ["procedure", "layer", "metric", "null"]
    found = records(smoke)["10_proof"]
    assert found["cells"] == len(lines) - 1
    assert found["audits"] == sum(int(line.split(",")[6]) for line in lines[1:])
    assert {line.split(",")[1] for line in lines[1:]} == {"F", "I", "T"}
    drawn = ("calibration", "power", "fid_bias")
    assert all((place / f"fig_{name}.png").is_file() for name in drawn)


def test_the_matrix_runs_on_what_the_study_left_and_misses_a_lost_run(smoke: Smoke) -> None:
    words, layout = [*command(smoke.study), "--study", "matrix"], smoke.study.layout
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "04_generate" not in done.stdout and "07_downstream" not in done.stdout
    for name in ("tab_matrix", "tab_matrix_changes", "tab_matrix_cost", "tab_transfer"):
        assert set(json.loads((layout.figures / f"{name}.json").read_text())) >= STAMP_KEYS
        assert (layout.figures / f"{name}.csv").is_file()
    assert all((layout.figures / f"fig_{name}.png").is_file() for name in ("matrix", "transfer"))
    found = records(smoke)["13_matrix"]
    assert (
        found["runs"] == 4 * 2 + 2
        and found["steps"] == smoke.study.settings.efficientnet.loop.steps
    )
    assert {"auc_real_share0.5_seeds0", "auc_synthetic_share0_seeds0"} <= set(found)
    # the record of one job is lost: it alone is made again, from what is there, and 13 after it
    (layout.matrix / "synthetic_seed0.json").unlink()
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    started = [line.split("] ")[1] for line in again.stdout.splitlines() if "started" in line]
    assert started == ["arm synthetic seed=0: started", "13_matrix: started"]


def test_privacy_and_the_sweep_run_on_what_the_study_left(smoke: Smoke) -> None:
    layout = smoke.study.layout
    made = {
        "privacy": ("14_privacy", ["tab_privacy", "tab_privacy_contrasts"]),
        "sweep": ("15_sweep", ["tab_sweep", "tab_sweep_changes", "tab_sweep_contrasts"]),
    }
    for study, (job, tables) in made.items():
        words = [*command(smoke.study), "--study", study]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        started = [line.split("] ")[1] for line in done.stdout.splitlines() if "started" in line]
        assert started == [f"{job}: started"]
        for name in tables:
            assert (layout.figures / f"{name}.csv").is_file()
            assert set(json.loads((layout.figures / f"{name}.json").read_text())) >= STAMP_KEYS
        assert (layout.figures / f"fig_{study}.png").is_file()
    found = records(smoke)
    own = smoke.study.settings.sweep
    assert found["15_sweep"]["cells"] == len(own.guidances) * len(own.steps)
    shares = {name: x for name, x in found["14_privacy"].items() if "nearer" in name}
    assert len(shares) == 2 * 3 and all(0 <= share <= 1 for share in shares.values())


def test_the_ablation_study_runs_on_what_the_study_left_and_keeps_what_is_recorded(
    smoke: Smoke,
) -> None:
    words, layout = [*command(smoke.study), "--study", "ablation", "mechanism"], smoke.study.layout
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "03_train" not in done.stdout, "the base was there"
    declared = json.loads((layout.ablation / "protocol.json").read_text())
    assert declared["before_any_measurement"] is True
    runs = {path.stem for path in (layout.ablation / "runs").glob("*.json")}
    assert {"none-seed0", "fairdiffusion-seed0", "shuffled_y-seed0"} <= runs
    wanted = "dataset,method,seeds,attribute,level,metric,n,value,low,high,p,p_adjusted"
    assert (layout.figures / "tab13.csv").read_text().startswith(wanted)
    for name in ("tab12", "tab13", "tab_cost", "tab_c2", "fig07", "fig_methods"):
        assert set(json.loads((layout.figures / f"{name}.json").read_text())) >= STAMP_KEYS
    found = records(smoke)["08_ablations"]
    assert found["runs"] == len(runs) and found["c2_fairdiffusion"] == "inconclusive"
    # one run is lost: it alone is made again
    (layout.ablation / "runs" / "shuffled_y-seed0.json").unlink()
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    started = [line for line in again.stdout.splitlines() if line.endswith("started")]
    assert [line.split("] ")[1] for line in started] == [
        "arm shuffled_y seed=0: started",
        "08_ablations: started",
        "06_perturbation: started",
    ]
