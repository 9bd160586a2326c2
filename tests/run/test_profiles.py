"""Profiles: what a Slurm one lacks is said at once; what a killed run queued is not doubled."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from fairdiff_lib.run import graph
from fairdiff_lib.run.cli import main
from fairdiff_lib.run.graph import GraphRun, Profile, job_prefix
from fairdiff_lib.settings.errors import InputError

SQUEUE = '#!/bin/sh\necho "squeue $*" >> {calls}\ncat {queue}\n'
SCANCEL = '#!/bin/sh\necho "scancel $*" >> {calls}\ngrep -v PENDING {queue} > {queue}.new\n'
SCANCEL += "mv {queue}.new {queue}\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles of its own: local, and slurm as committed."""
    folder = tmp_path / "profiles"
    shutil.copytree(graph.PROFILES, folder)
    monkeypatch.setattr(graph, "PROFILES", folder)
    monkeypatch.setattr(graph, "find_spec", lambda name: name)  # as if installed
    return folder


def set_option(site: Path, name: str, value: object) -> None:
    path = site / "slurm" / "config.yaml"
    options = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(options | {name: value}))


# -- what is refused before anything starts ----------------------------------------------------


@pytest.mark.parametrize("given", [None, [], ["runtime=5"], {"runtime": 5}, ["slurm_partition="]])
def test_a_slurm_profile_without_a_partition_is_one_line_and_starts_nothing(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: object
) -> None:
    set_option(site, "default-resources", given)
    runs, figures = tmp_path / "runs", tmp_path / "figures"
    for more in ([], ["--dry-run"]):
        command = ["run", "--preset", "smoke", "--profile", "slurm", *more]
        assert main([*command, "--runs-root", str(runs), "--figures-root", str(figures)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        for part in ("slurm/config.yaml", "slurm_partition=NAME", "--partition NAME"):
            assert part in said.err
        assert not runs.exists() and not figures.exists()


def test_the_committed_profile_names_no_site(site: Path) -> None:
    with pytest.raises(InputError, match="no partition"):
        Profile("slurm").check()
    Profile("slurm", "debug").check()


def test_other_refusals(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--partition debug: profile local .* --profile slurm"):
        Profile("local", "debug").check()
    with pytest.raises(InputError, match="unknown profile 'cloud'; known: local, slurm"):
        Profile("cloud").check()
    monkeypatch.setattr(graph, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -c constraints.txt -e '.\[slurm\]'"):
        Profile("slurm", "debug").check()
    for text in ("a: [", "nothing"):
        (site / "slurm" / "config.yaml").write_text(text)
        with pytest.raises(InputError, match=r"slurm/config\.yaml: ") as caught:
            Profile("slurm", "debug").check()
        assert "\n" not in str(caught.value)


def test_a_machine_without_slurm_is_said_before_snakemake_starts(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run = GraphRun("smoke", runs_root=str(tmp_path / "runs"))
    with pytest.raises(InputError, match="no squeue on this machine"):
        graph.run_graph(run, 1, Profile("slurm", "debug"))
    assert not (tmp_path / "runs" / graph.LOG).exists()


# -- what Snakemake is told --------------------------------------------------------------------


def test_a_partition_of_the_command_joins_the_profiles_resources(
    site: Path, tmp_path: Path
) -> None:
    set_option(site, "default-resources", ["runtime=7", "slurm_partition=night"])
    assert Profile("slurm").resources == {"runtime": "7", "slurm_partition": "night"}
    options = Profile("slurm", "day").options(tmp_path)
    place = options.index("--default-resources")
    assert options[place + 1 : place + 3] == ["runtime=7", "slurm_partition=day"]
    assert Profile().options(tmp_path) == ["--workflow-profile", str(site / "local")]


def test_jobs_of_a_runs_folder_share_a_name_that_slurm_takes(tmp_path: Path) -> None:
    one, other = job_prefix(tmp_path / "a"), job_prefix(tmp_path / "b")
    assert one != other and one == job_prefix(tmp_path / "b" / ".." / "a")
    assert len(one) <= 50 and one.replace("_", "").isalnum()


@pytest.mark.parametrize(("given", "expected"), [(["gpus=2"], 2), (["other=1"], 0), (None, 0)])
def test_a_profile_says_how_many_gpus_a_network_gets(
    site: Path, given: object, expected: int
) -> None:
    set_option(site, "config", given)
    assert Profile("slurm").gpus == expected and Profile().gpus == 0


def test_gpus_that_are_no_number_are_one_line(site: Path) -> None:
    set_option(site, "config", ["gpus=all"])
    with pytest.raises(InputError, match=r"slurm/config\.yaml: gpus=all; expected a whole number"):
        Profile("slurm", "debug").check()


def test_in_a_queue_networks_get_a_gpu_memory_and_all_cores_and_tables_do_not() -> None:
    run = GraphRun("smoke")
    (here,), (queued,) = run.jobs(4), run.jobs(4, apart=True, gpus=1)
    found = {job.name: job for job in queued.all}
    for name in ("03_train_base", "04_generate_none_seed0", "fit_vit_real_seed0", "05_quality"):
        assert found[name].network and found[name].threads == 4, name
    for name in ("02_simulators", "09_verdict"):
        assert not found[name].network and found[name].threads == 1, name
    assert {job.threads for job in here.all if job.network} == {1}
    cohorts = next(job for job in here.all if job.name == "01_cohorts")
    assert cohorts.threads == 4  # as many processes draw the simulated patients
    assert queued.memory_mb < 9000
    large = run.study("fairgenmed_simulated").settings.changed({"model.image_size": 512})
    assert graph.Jobs(queued.study.with_settings(large)).memory_mb == 48_000


def test_each_classifier_is_a_job_that_07_waits_for() -> None:
    (own,) = GraphRun("smoke").jobs()
    assert [job.fit for job in own.fits] == own.settings.fits
    names = {"fit_efficientnet_real_seed0", "fit_vit_none_seed0", "fit_vit_fairdiffusion_seed0"}
    assert names < {job.name for job in own.fits} and len(own.fits) == 6
    found = {job.name: job for job in own.all}
    assert {job.record for job in own.fits} < set(found["07_downstream"].needs)
    assert found["fit_vit_none_seed0"].needs == (own.record("04_generate_none_seed0"),)
    assert found["fit_vit_real_seed0"].needs == (own.record("01_cohorts"),)


# -- what a killed run left ----------------------------------------------------------------------


@pytest.fixture
def queue(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that stands for Slurm's queue, with commands that read and change it."""
    commands, queue = tmp_path / "bin", tmp_path / "queue"
    commands.mkdir()
    for name, script in (("squeue", SQUEUE), ("scancel", SCANCEL)):
        (commands / name).write_text(script.format(calls=tmp_path / "calls", queue=queue))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return queue


def test_jobs_that_wait_are_cancelled_and_those_that_run_are_awaited(
    queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, other = job_prefix(tmp_path), job_prefix(tmp_path / "another")
    foreign = f"9|PENDING|{other}_x\n"
    running = f"5|RUNNING|{name}_x\n"
    queue.write_text(f"{running}6|PENDING|{name}_x\n7|PENDING|{name}_y\n")
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        assert queue.read_text() == running  # until now it was waited for
        queue.write_text(foreign)  # which is not ours to wait for

    monkeypatch.setattr(graph.time, "sleep", sleep)
    Profile("slurm", "debug").settle(tmp_path)
    assert len(looks) == 1
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call for call in calls if "scancel" in call] == ["scancel --state=PENDING 6 7"]
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "2 waiting, cancelled; 1 running, awaited (scancel 5 gives them up)" in said


def test_an_empty_queue_needs_no_word(
    queue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.write_text(f"9|RUNNING|{job_prefix(tmp_path / 'another')}_x\n")
    Profile("slurm", "debug").settle(tmp_path)
    assert capsys.readouterr().out == ""
    assert "scancel" not in (tmp_path / "calls").read_text()


def test_a_queue_that_does_not_answer_is_one_line(queue: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho 'Unable to\ncontact' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"^squeue failed: Unable to contact$"):
        Profile("slurm", "debug").settle(tmp_path)
