"""A base is shipped with what it was measured by, and a study that loads it says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fairdiff_lib.disk.files import hash_file, read_json, read_table
from fairdiff_lib.disk.places import Places
from fairdiff_lib.run.cli import main
from fairdiff_lib.show.cards import write_shipped_card
from fairdiff_lib.studies.base import COLUMNS, check_base
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import seal_base, ship_base, train


@pytest.mark.slow
def test_a_base_that_learnt_nothing_fails_its_gates_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.open("smoke", runs_root=str(tmp_path / "runs"))
    trained = train(study, "base", 0)
    monkeypatch.setattr(Places, "pretrained", property(lambda _: tmp_path / "kept"))
    folder = ship_base(study)
    found = check_base(study, folder)
    gates = found.gates.set_index("gate")
    assert tuple(found.gates.columns) == (*COLUMNS, "dataset")
    assert not gates.loc[["reconstruction_blur", "generated_blur"], "passed"].any()
    assert not gates.loc["vae_reconstruction", "passed"]
    assert found.real.shape == found.generated.shape == found.reconstructed.shape
    people = study.cohort.included().split("train").table
    assert len(found.real) == len(people) // 2  # the other half fixed the scale

    seal_base(study, found.gates, "fairdiff base --dataset x")
    card = write_shipped_card(study, found.gates).read_text("utf-8")
    assert "`fairdiff base --dataset x`" in card and "| no |" in card
    stamp = read_json(folder / "stamp.json")
    assert all(hash_file(folder / name) == own for name, own in stamp["files"].items())
    assert set(stamp["training"]) == {"seconds_vae", "seconds_base"}

    own = dataclasses.replace(study.settings.model, pretrained=str(folder))
    again = study.with_settings(dataclasses.replace(study.settings, model=own))
    loaded = train(again, "base", 0)
    assert loaded.facts["images_seen"] == 0 < trained.facts["images_seen"]
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert loaded.facts["loaded"][unet] == hash_file(folder / unet)
    shipped = read_table(folder / "history.csv", ("stage", "step", "value"))
    np.testing.assert_array_equal(loaded.history["value"], shipped["value"])
    assert set(loaded.history["quantity"]) == {"loss"}


def test_a_base_of_real_data_is_not_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["base", "--dataset", "ham10000"]) == 2
    said = capsys.readouterr().err
    assert "'ham10000'" in said and "fairgenmed_simulated" in said and said.count("\n") == 1
