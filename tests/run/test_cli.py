"""The command line: what it refuses, what it plans, how one notebook is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.run import cli, graph, jobs
from fairdiff_lib.run.cli import main
from fairdiff_lib.run.graph import GraphRun
from fairdiff_lib.run.notebook import Job, NotebookFailed, clean, plan_job, run_job, without_paths
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.notebooks import JOBS

PARAMETERS = 'preset = "smoke"\nseed = 0'


def write_notebook(path: Path, *cells: str) -> Job:
    """A notebook with a parameters cell and these cells."""
    head = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    body = [nbformat.v4.new_code_cell(cell) for cell in cells]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(cells=[head, *body], metadata={"kernelspec": kernel})
    nbformat.write(made, path)
    return Job(path, {"seed": 3}, load_settings("smoke"))


def test_a_graph_is_planned_without_networks() -> None:
    """Each job of a study starts by this import: seconds of torch and diffusers are left out."""
    code = (
        "import sys, fairdiff_lib.run.cli\nfrom fairdiff_lib.run.graph import GraphRun\n"
        "assert len(GraphRun('smoke').jobs()[0].all) > 10\n"
        "print([name for name in ('torch', 'diffusers', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threads_that_wait_give_their_core_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every process that the command starts; whoever chose otherwise is left alone."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["list"]) == 0 and os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert main(["list"]) == 0 and os.environ["OMP_WAIT_POLICY"] == "active"


# -- bad input: one line, exit code 2, nothing started ---------------------------------------

BAD_INPUT = {
    "no action": ([], "required"),
    "action": (["walk"], "walk"),
    "option": (["run", "--sede", "1"], "--sede"),
    "preset": (["run", "--preset", "fast"], "unknown preset 'fast'; known: base, paper, quick"),
    "dataset": (["run", "--dataset", "mnist"], "unknown dataset 'mnist'; known: chexpert, "),
    "method": (
        ["run", "--methods", "none", "magic"],
        "unknown method 'magic'; known: adaptive_sampling",
    ),
    "seed": (["run", "--seeds", "one"], "seeds=one: expected a whole number"),
    "negative seed": (["run", "--seeds", "0", "-1"], "expected at least 0"),
    "setting": (
        ["run", "--set", "training.stepz=3"],
        "unknown setting 'training.stepz'; known: batch",
    ),
    "type": (["run", "--set", "training.steps=many"], "steps=many: expected a whole number"),
    "no value": (["run", "--set", "training.steps"], "expected name=value"),
    "space": (["run", "--set", "training.steps=1 seeds=2"], "without spaces"),
    "window": (["run", "--set", "mitigation.time_window=9999"], "time_window=9999 is longer"),
    "cores": (["run", "--cores", "-2"], "--cores -2: expected 1 or more"),
    "profile": (["run", "--dry-run", "--profile", "cloud"], "profile 'cloud'; known: local, slurm"),
    "data set twice": (
        ["run", "--dataset", "ham10000", "ham10000"],
        "'ham10000' stands there twice",
    ),
    "one folder for two": (
        ["run", "--dataset", "ham10000", "chexpert", "--data-root", "."],
        "--data-root: expected one data set with it, not 2",
    ),
    "no data": (["run", "--dataset", "ham10000", "--data-root", "nowhere"], "nowhere: missing"),
    "notebook": (["notebook", "42_answers"], "unknown notebook '42_answers'; known: 00_index"),
    "parameter": (["notebook", "05", "-p", "sede", "1"], "'sede'; known: data_root, dataset"),
    "its seed": (["notebook", "03", "-p", "seed", "1.5"], "parameter seed='1.5': expected int"),
    "below 0": (["notebook", "03", "-p", "seed", "-1"], "seed=-1: expected 0 or more"),
    "its method": (["notebook", "03", "-p", "method", "magic"], "unknown method 'magic'"),
    "its preset": (["notebook", "03", "--preset", "fast"], "unknown preset 'fast'"),
    "override": (["notebook", "03", "-p", "overrides", "a.b=1"], "unknown setting 'a'"),
    "switch": (["notebook", "05", "-p", "show_real", "maybe"], "show_real='maybe': expected bool"),
    "job": (["job", "--rule", "ham10000_1"], "unknown job 'ham10000_1'; known: fairgenmed"),
    "a folder": (["notebook", "05", "--output", "tests"], "tests: a folder; expected the exec"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_code_2(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = BAD_INPUT[case]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("fairdiff: ")
    assert expected in said.err
    assert said.err.count("\n") == 1
    assert not (PROJECT_ROOT / "nowhere").exists()


def test_settings_and_list_print_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--preset", "smoke", "--set", "training.steps=7"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["preset"] == "smoke"
    assert printed["training"]["steps"] == 7
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    studies = ("matrix", "privacy", "sweep")
    for name in ("fairgenmed_simulated", "reference", "random", "03_train", *studies):
        assert name in listed


# -- parameters ------------------------------------------------------------------------------


def test_parameters_take_the_type_of_their_default() -> None:
    job = plan_job("03", {"seed": "4", "method": "base", "preset": "smoke"})
    assert job.parameters == {"seed": 4, "method": "base", "preset": "smoke"}
    assert job.settings.preset == "smoke"
    assert job.path == plan_job("03_train.ipynb", {}).path
    shown = plan_job("05", {"show_real": "false"}).parameters
    assert shown == {"show_real": False}


def test_a_job_is_called_by_what_distinguishes_it() -> None:
    base = plan_job("03", {"method": "base"})
    assert base.title == "03_train method=base"
    run = plan_job("04", {"method": "none", "seed": "2"})
    assert run.title == "04_generate method=none seed=2"
    own = GraphRun("smoke").jobs()[0]
    kinds = {job.name: job.kind for job in own.notebooks}
    assert kinds["03_train_base"] == "03_train base"
    assert kinds["04_generate_none_seed0"] == "04_generate"


def test_each_seed_may_wait_for_a_base_of_its_own() -> None:
    """A run is complete: its base is a job like any other, after the one whose autoencoder it has.

    A shared base stays one job.
    """
    (own,) = GraphRun("smoke", overrides="base_per_seed=true seeds=0,3").jobs()
    jobs = {job.name: job for job in own.all}
    shared, made = own.record("03_train_base"), jobs["03_train_base_seed3"]
    assert (made.title, made.kind) == ("03_train method=base seed=3", "03_train base")
    given = {**made.parameters, "preset": "smoke", "overrides": "base_per_seed=true"}
    assert plan_job("03", given).title == made.title
    assert shared in made.needs and made.record == own.record(made.name)
    assert not any("train_base" in need for need in jobs["03_train_base"].needs)
    for seed, record in ((0, shared), (3, made.record)):
        needs = jobs[f"03_train_none_seed{seed}"].needs
        assert [need for need in needs if "train_base" in need] == [record]
    (alike,) = GraphRun("smoke", overrides="seeds=0,3").jobs()
    assert sum("train_base" in job.name for job in alike.all) == 1


# -- one notebook ----------------------------------------------------------------------------


def test_executed_copies_are_the_same_from_run_to_run(tmp_path: Path) -> None:
    job = write_notebook(tmp_path / "n.ipynb", "print(seed)", "seed + 1")
    copies = [tmp_path / "a.ipynb", tmp_path / "b.ipynb"]
    for copy in copies:
        run_job(job, copy, threads=1)
    texts = [copy.read_text() for copy in copies]
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
    outputs = [cell.get("outputs") for cell in nbformat.reads(texts[0], as_version=4).cells]
    assert outputs[2][0]["text"] == "3\n"
    assert outputs[3][0]["data"]["text/plain"] == "4"


def test_a_kernel_gets_its_threads_and_a_fixed_hash(tmp_path: Path) -> None:
    code = 'import os\nprint(os.environ["OMP_NUM_THREADS"], os.environ["PYTHONHASHSEED"])'
    output = tmp_path / "out.ipynb"
    run_job(write_notebook(tmp_path / "n.ipynb", code), output, threads=3)
    assert '"3 0\\n"' in output.read_text()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ('raise InputError("a.csv row 3:\\nexpected yes or no")', InputError, "a.csv row 3: exp"),
        ("1 / 0", NotebookFailed, "cell 4: ZeroDivisionError: division by zero"),
    ],
)
def test_a_failed_notebook_says_why_and_keeps_its_copy(
    tmp_path: Path, code: str, error: type[Exception], message: str
) -> None:
    job = write_notebook(
        tmp_path / "n.ipynb", "from fairdiff_lib.settings.errors import InputError", code
    )
    output = tmp_path / "deep" / "out.ipynb"
    with pytest.raises(error) as caught:
        run_job(job, output)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" in output.read_text()
    assert not list(output.parent.glob(".*"))


def test_kernels_side_by_side_do_not_meet(tmp_path: Path) -> None:
    """Two at once, from one folder: each prints its own seed."""
    write_notebook(tmp_path / "n.ipynb", "import time\ntime.sleep(1)", "print(seed * 11)")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from fairdiff_lib.datasets import load_settings\n"
        "from fairdiff_lib.run.notebook import Job, run_job\n"
        "job = Job(Path('n.ipynb'), {'seed': int(sys.argv[1])}, load_settings('smoke'))\n"
        "run_job(job, Path(f'out{sys.argv[1]}.ipynb').resolve())\n"
    )
    pair = [subprocess.Popen([sys.executable, "-c", code, seed], cwd=tmp_path) for seed in "12"]
    assert [process.wait(timeout=120) for process in pair] == [0, 0]
    for seed in (1, 2):
        assert f'"{seed * 11}\\n"' in (tmp_path / f"out{seed}.ipynb").read_text()


def test_cleaning_keeps_what_people_read() -> None:
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["keep"], "papermill": {"duration": 1}})
    path = f"{PROJECT_ROOT}/fairdiff_lib/store.py:3: note"
    cell.outputs = [nbformat.v4.new_output("stream", text=path)]
    made = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {}, "title": "x"})
    clean(made)
    assert made.metadata == {"title": "x"}
    assert cell.metadata == {"tags": ["keep"]}
    assert cell.outputs[0].text == "fairdiff_lib/store.py:3: note"


def test_dead_progress_bars_and_places_of_this_machine_are_cut() -> None:
    cell = nbformat.v4.new_code_cell('data_root = "/mnt/scans"\nseed = 1')
    cell.metadata["tags"] = ["injected-parameters"]
    bar = "load images:   0%|          | 0/49 [00:00<?, ?it/s]"
    widget = {"text/plain": bar, "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text=f"{bar}\r"),
        nbformat.v4.new_output("stream", name="stderr", text=f"{bar}\nkept: 5% of subjects\n"),
        nbformat.v4.new_output("display_data", data=widget),
        nbformat.v4.new_output("display_data", data={"text/plain": "a table"}),
    ]
    clean(nbformat.v4.new_notebook(cells=[cell]))
    assert [output.get("text", "table") for output in cell.outputs] == [
        "kept: 5% of subjects\n",
        "table",
    ]
    assert "scans" not in cell.source and "seed = 1" in cell.source


def test_paths_of_this_machine_are_cut() -> None:
    assert without_paths("/opt/x/lib/python3.11/site-packages/a/b.py") == "site-packages/a/b.py"
    assert without_paths(f"in {Path.home()}/cache") == "in ~/cache"
    assert without_paths("data/runs/x and a / b") == "data/runs/x and a / b"


# -- plan and times --------------------------------------------------------------------------


def test_dry_run_prints_every_job_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs-root", str(tmp_path / "runs"), "--figures-root", str(tmp_path / "figures")]
    assert main(["run", "--preset", "smoke", "--seeds", "0", "1", "--dry-run", *places]) == 0
    said = capsys.readouterr().out
    runs = [f"{method}_seed{seed}" for method in ("none", "fairdiffusion") for seed in (0, 1)]
    wanted = {
        "03_train_base",
        *(f"{name}_{run}" for run in runs for name in ("03_train", "04_generate")),
    }
    wanted |= {name for name, entry in JOBS.items() if entry.study == "main" and not entry.per_run}
    assert {line.split()[0] for line in said.splitlines() if "executed/" in line} == wanted
    sources = [f"{source}_seed{k}" for source in ("real", "none", "fairdiffusion") for k in (0, 1)]
    fits = {f"fit_{name}_{one}" for name in ("efficientnet", "vit") for one in sources}
    assert {line.split()[0] for line in said.splitlines() if line.startswith("fit_")} == fits
    assert f"{len(wanted) + len(fits)} jobs" in said
    assert "minutes" in said and "MB" in said
    assert "seeds=0,1" in said
    assert not (tmp_path / "figures").exists()
    assert not list((tmp_path / "runs").glob("[!.]*"))


def test_one_graph_runs_several_data_sets_and_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs-root", str(tmp_path / "runs"), "--figures-root", str(tmp_path / "figures")]
    asked = ["--dataset", "chexpert_simulated", "fairgenmed_simulated", "--study", "main", "matrix"]
    assert main(["run", "--preset", "smoke", *asked, "--dry-run", *places]) == 0
    chest, fundus = capsys.readouterr().out.split("-- fairgenmed_simulated\n")
    for part in (chest, fundus):
        for name in ("03_train_fairdiffusion_seed0", "13_matrix", "arm_matrix_real_seed0"):
            assert f"\n{name} " in part


def test_expected_time_is_the_measured_one_scaled_by_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "EXPECTED", tmp_path / "expected.json")
    settings = load_settings("smoke")
    own = {"work": graph.work(settings, "03_train none"), "seconds": 30.0, "made_mb": 8.0}
    table = {"jobs": {"smoke/fairgenmed_simulated": {"03_train none": own}}}
    (tmp_path / "expected.json").write_text(json.dumps(table))
    assert graph.expected(settings, "03_train none") == (30.0, 8.0)
    twice = load_settings("smoke", overrides={"training.steps": 2 * settings.training.steps})
    assert graph.expected(twice, "03_train none") == (60.0, 16.0)
    assert graph.expected(load_settings("quick"), "03_train none") is None
    assert graph.expected(settings, "04_generate") is None


def test_the_longest_way_to_the_end_is_started_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "EXPECTED", tmp_path / "expected.json")
    (own,) = GraphRun("smoke").jobs()
    known = {"05_quality": 200.0, "07_downstream": 20.0, "09_verdict": 10.0, "12_harm": 40.0,
             "06_perturbation": 90.0, "00_index": 5.0}  # fmt: skip
    table = {kind: {"work": graph.work(own.settings, kind), "seconds": seconds, "made_mb": 0.0}
             for kind, seconds in known.items()}  # fmt: skip
    (tmp_path / "expected.json").write_text(
        json.dumps({"jobs": {"smoke/fairgenmed_simulated": table}})
    )
    found = graph.urgency(own)
    assert [found[name] for name in ("00_index", "12_harm", "09_verdict")] == [5, 45, 15]
    assert found["05_quality"] == 200 + 20 + 40 + 5 and found["06_perturbation"] == 95
    fit = graph.UNMEASURED + 20 + 40 + 5
    assert {found[job.name] for job in own.fits} == {fit}
    assert found["04_generate_none_seed0"] == graph.UNMEASURED + found["05_quality"]


def test_a_base_that_is_loaded_is_another_kind_of_work_than_one_that_is_trained() -> None:
    (loads,) = GraphRun("quick").jobs()
    (trains,) = GraphRun("quick", overrides="model.pretrained=").jobs()
    kinds = [{job.name: job.kind for job in own.all}["03_train_base"] for own in (loads, trains)]
    assert kinds == ["03_train base loaded", "03_train base"]
    settings = trains.settings
    steps = settings.vae.steps * settings.vae.batch + settings.base.steps * settings.base.batch
    assert graph.work(settings, kinds[1]) == steps
    assert graph.work(settings, kinds[0]) == graph.work(settings, "01_cohorts")


def test_an_interrupt_is_silent_from_the_first_import_on() -> None:
    code = (
        "import sys\nfrom fairdiff_lib import __main__\n"
        "class Impatient:\n    def find_spec(self, name, *_):\n"
        "        if name == 'pandas': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\nraise SystemExit(__main__.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_two_runs_never_share_a_runs_folder(tmp_path: Path) -> None:
    with (
        graph._only_run_in(tmp_path),
        pytest.raises(InputError, match="another run works here"),
        graph._only_run_in(tmp_path),
    ):
        pass
    with graph._only_run_in(tmp_path) as hold:
        assert hold > 0  # free again


def test_failures_of_this_run_are_told_from_older_ones(tmp_path: Path) -> None:
    record = tmp_path / "jobs" / "05_quality.json"
    failed = jobs.failure_of(record)
    failed.parent.mkdir()
    failed.write_text('{"title": "05_quality"}')
    assert jobs.read_failures(tmp_path / "jobs", since=time.time() - 60) == [
        {"title": "05_quality"}
    ]
    assert jobs.read_failures(tmp_path / "jobs", since=time.time() + 60) == []


def test_a_run_reads_its_folders_relative_to_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    run = GraphRun("smoke")
    assert run.runs == PROJECT_ROOT / "data/runs"
    figures = run.jobs()[0].study.places.figures
    assert figures == PROJECT_ROOT / "figures/smoke/fairgenmed_simulated"


@pytest.mark.parametrize("home", ["/", "", ".", "work", "/e", "/example.org"])
def test_whatever_the_home_only_paths_are_cut(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's user has it, who lives in / or nowhere."""
    monkeypatch.setenv("HOME", home)
    text = "half = most // 2  # https://example.org/e/x ../work/a ./b work/e/ and /mnt/e/c"
    assert without_paths(text) == text


def test_a_home_and_the_project_are_cut_where_a_path_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert without_paths("'/home/me/x' file:///home/me/y /home/me /home/meg/z") == (
        "'~/x' file://~/y ~ /home/meg/z"
    )
    assert without_paths(f"{PROJECT_ROOT}/data/x in {PROJECT_ROOT}") == "data/x in ."


def test_jobs_that_ended_without_a_word_are_named() -> None:
    log = "fairdiff: [a] 03: started\nfairdiff: [a] 04: started\nfairdiff: [a] 03: done in 2 s\n"
    assert graph.unfinished(log) == ["[a] 04"]


def test_a_notebook_alone_names_no_data_set_in_empty_brackets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with cli._told("", "05_quality"):
        pass
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "fairdiff: 05_quality: started" and said[1].startswith("fairdiff: 05_qual")


def test_the_reason_of_any_job_is_left_for_the_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the protocol too, which is no notebook: a real data set that isn't there."""
    places = ["--runs-root", str(tmp_path / "runs"), "--figures-root", str(tmp_path / "figures")]
    asked = ["--preset", "smoke", "--dataset", "ham10000", "--data-root", str(tmp_path), *places]
    assert main(["job", "--rule", "ham10000_protocol", *asked]) == 2
    run = GraphRun("smoke", ("ham10000",), "", str(tmp_path), *places[1::2])
    folder = run.jobs()[0].study.places.records / "jobs"
    (left,) = jobs.read_failures(folder, since=0)
    assert left["title"] == "protocol" and left["bad_input"] is True
    assert left["message"] in capsys.readouterr().err


def test_a_runs_folder_that_cannot_be_made_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    asked = ["run", "--preset", "smoke", "--dry-run", "--figures-root", str(tmp_path / "figures")]
    assert main([*asked, "--runs-root", str(tmp_path / "file" / "runs")]) == 2
    assert "file: a file; expected a new or empty folder" in capsys.readouterr().err
