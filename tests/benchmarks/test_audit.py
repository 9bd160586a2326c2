"""Benchmarks: what is timed gives the same numbers as the definition. Times are never tested."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import audit
from benchmarks.__main__ import main
from benchmarks.audit import Sizes, bench_fid, bench_kid, simulated_groups

SMALL = Sizes(images=400, features=48, levels=2, subjects=60, fid_features=(6,), resamples=4)
COLUMNS = ["task", "size", "seconds", "cpu_seconds", "naive_seconds", "naive", "peak_mib",
           "difference"]  # fmt: skip


def test_the_kid_audit_equals_every_group_by_itself() -> None:
    row = bench_kid(SMALL)
    assert row["difference"] < 1e-9  # few images: float64 products
    assert row["size"] == "400 x 48, 36 groups"


def test_the_kid_audit_of_many_images_equals_it_to_a_millionth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fairdiff_lib.audit.kid.SINGLE_ABOVE", 100)
    assert 1e-12 < bench_kid(SMALL)["difference"] < 5e-6


def test_a_wrong_kid_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "naive_kid", lambda *_: (0.1, np.ones(1)))
    assert bench_kid(SMALL)["difference"] > 0.1


@pytest.mark.parametrize(("features", "corrected"), [(6, True), (6, False), (90, False)])
def test_resampled_fid_equals_its_naive_recomputation(features: int, corrected: bool) -> None:
    row = bench_fid(SMALL, features, corrected)
    assert row["difference"] < 1e-6
    assert row["naive"] == "extrapolated from 3 of 8 resamples"
    assert list(row) == COLUMNS


def test_groups_are_three_attributes_and_their_intersections() -> None:
    groups = simulated_groups(2000, seed=0)
    names = list(dict.fromkeys(name for name, _ in groups.keys))
    assert names[:4] == ["overall", "race", "sex", "age"]
    assert names[-1] == "race x sex x age"
    assert (groups.members.sum(axis=1) == 8).all()  # everyone: overall, 3 + 3 + 1


def test_a_task_can_be_sent_to_a_process_of_its_own() -> None:
    assert audit._alone(partial(bench_fid, SMALL, 6, True))["difference"] < 1e-6


def test_the_command_prints_and_writes_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_alone", lambda task: task())  # here: three times as fast
    output = tmp_path / "bench.csv"
    sizes = ["--images", "300", "--features", "520", "--resamples", "2"]
    assert main(["audit", *sizes, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "KID audit: 300 x 520, 36 groups" in said
    assert "simulated" in said
    table = pd.read_csv(output)
    assert list(table.columns) == COLUMNS
    assert table["task"].tolist() == ["KID audit", "corrected FID", "corrected FID", "plain FID"]
    assert (table["difference"] < 1e-6).all()
    assert (table["peak_mib"] > 50).all()
    stamp = json.loads(output.with_suffix(".json").read_text())
    assert stamp["simulated"] is True
    assert stamp["parameters"]["images"] == 300


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "3"], "images=3; expected 10 or more"),
        (["--features", "1"], "features=1; expected 2 or more"),
        (["--resamples", "0"], "resamples=0; expected 1 or more"),
        (["--output", "table.txt"], "expected a name that ends in .csv"),
    ],
)
def test_bad_sizes_are_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
