"""The doctor: what a run needs against what there is; a refusal where it doesn't fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairdiff_lib.run import doctor
from fairdiff_lib.run.cli import main
from fairdiff_lib.run.doctor import measure
from fairdiff_lib.study import Study


@pytest.fixture(autouse=True)
def fixed_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "speed", lambda precision: 1e11)
    monkeypatch.setattr(doctor, "_memory", lambda: 16.0)


def test_a_small_study_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--preset", "smoke", "--runs-root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.endswith("it fits\n") and "DOES NOT FIT" not in said
    assert "cohort: 184 images (that will be drawn)" in said


def test_what_does_not_fit_is_said_with_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["doctor", "--preset", "paper", "--dataset", "fairgenmed_simulated"]
    assert main([*command, "--processes", "2", "--memory", "16"]) == 1
    said = capsys.readouterr().out
    assert "DOES NOT FIT" in said and said.endswith("it does not fit\n")
    assert "it fits with --set machine.gradient_checkpointing=true" in said
    assert main([*command, "--processes", "2", "--memory", "80"]) in (0, 1)  # the disk may lack
    assert "training, each process" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--processes", "0"], "--processes 0: expected 1 or more"),
        (["--memory", "-1"], "--memory -1.0: expected 0 or more"),
        (["--processes", "3"], "batch=16: can't be shared by 3 processes"),
        (["--set", "model.pretrained=a/b"], "model.pretrained=a/b: its size is not known here"),
    ],
)
def test_bad_input_is_one_line(
    more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--preset", "smoke", *more]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_hours_are_operations_over_speed() -> None:
    """Three forward passes' worth a step; four where activations are computed again."""
    study = Study.open("smoke")
    dry, loop = measure(study.settings.model), study.settings.training
    plain = study.settings.machine
    hours = doctor.training_hours(loop, plain, dry, {"no": 1e9})
    assert hours == pytest.approx(loop.steps * loop.batch * 3 * dry.forward / 1e9 / 3600)
    again = doctor.training_hours(loop, doctor.SPARING, dry, {"no": 1e9})
    assert again == pytest.approx(hours * 4 / 3)


def test_the_disk_holds_base_runs_images_and_two_checkpoints() -> None:
    study = Study.open("smoke")
    dry = measure(study.settings.model)
    empty = doctor.disk(study, dry, 0)
    weights = 4 * (dry.unet + dry.vae + dry.text) + 2 * 8 * dry.unet + 2 * 16 * dry.unet
    assert empty == pytest.approx(weights / 1e9)
    each = doctor.disk(study, dry, 1) - empty
    assert each == pytest.approx((8 * dry.latent + 2 * 3 * 32**2 * 0.5) / 1e9)
