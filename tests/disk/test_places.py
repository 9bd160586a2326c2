"""Places: a folder's name follows what is in it, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import read_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.study import Study


def test_a_run_folder_depends_on_what_the_run_depends_on() -> None:
    plain = load_settings("smoke")
    here = Places(plain)
    audit = Places(replace(plain, audit=replace(plain.audit, bootstrap=7)))
    assert audit.run("none", 0) == here.run("none", 0)
    window = Places(replace(plain, mitigation=replace(plain.mitigation, time_window=2)))
    assert window.run("fairdiffusion", 0) != here.run("fairdiffusion", 0)
    assert window.run("none", 0) == here.run("none", 0)  # the baseline has no window
    sampler = Places(replace(plain, generation=replace(plain.generation, steps=2)))
    assert sampler.run("none", 0) == here.run("none", 0)
    assert sampler.generated("none", 0) != here.generated("none", 0)
    other = Places(load_settings("smoke", "ham10000"), data_root="elsewhere")
    assert other.base != Places(load_settings("smoke", "ham10000")).base


def test_recorded_scalars_are_plain(tmp_path: Path) -> None:
    study = Study.open("smoke", runs_root=str(tmp_path))
    study.record("05", n=np.int64(3), kid=np.float64("nan"), gate=True)
    kept = read_json(study.places.records / "05.json")
    assert kept == {"n": 3, "kid": None, "gate": True}
