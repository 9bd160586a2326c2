"""The downstream matrix: nested shares, real balance, equal steps, what pretraining hands over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fairdiff_lib import (
    assets,
    diffusion,
    downstream_runs,
    figures_matrix,
    matrix_arms,
    matrix_runs,
    matrix_study,
    sentences_matrix,
)
from fairdiff_lib.classify import Classifier
from fairdiff_lib.cohorts import Cohort
from fairdiff_lib.config import InputError, Settings, load_settings
from fairdiff_lib.matrix_arms import ARMS, MatrixRun, folder_of, share_rows
from fairdiff_lib.matrix_runs import Matrix
from fairdiff_lib.store import Layout, read_json, write_table
from fairdiff_lib.study import main

OVERRIDES = {"methods": "none", "classifiers": "efficientnet", "matrix.balance": "sex"}


@dataclass
class Study:
    settings: Settings
    layout: Layout
    cohort: Cohort

    @property
    def train(self) -> Cohort:
        return self.cohort.included().split("train")


def write_images(folder: Path, names: Sequence[str], images: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{name}.png")
    write_table(pd.DataFrame({"image": names}), folder / "manifest.csv", None)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A smoke study whose method "generated" real images, each a little darker."""
    settings = load_settings("smoke", overrides=OVERRIDES)
    layout = Layout(settings, runs_root=str(tmp_path_factory.mktemp("runs")))
    cohort = assets.load_cohort(settings, layout)
    for split in ("train", "test"):
        part = cohort.included().split(split)
        dark = (part.load_images(32) * 0.9).astype(np.uint8)
        folder = layout.generated("none", 0) / split
        write_images(folder, part.table["image"].tolist(), dark)
    return Study(settings, layout, cohort)


@pytest.fixture(autouse=True)
def draws(study: Study, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was asked of the generator, which draws the row that a name ends in."""
    asked: list[list[str]] = []

    def generate(
        settings: Settings, layout: Layout, names: Sequence[str], prompts: Sequence[str],
        method: str, seed: int, split: str,
    ) -> int:  # fmt: skip
        asked.append(list(prompts))
        folder = layout.generated(method, seed) / split
        if not (folder / "manifest.csv").is_file():
            index = {name: row for row, name in enumerate(study.train.table["image"])}
            rows = [index[name.split("-", 1)[1]] for name in names]
            write_images(folder, names, study.train.load_images(32, rows))
        return len(names)

    monkeypatch.setattr(diffusion, "generate", generate)
    return asked


@pytest.fixture(scope="module")
def result(study: Study, request: pytest.FixtureRequest) -> matrix_study.MatrixResult:
    """Every run of the matrix, fitted once for the module."""
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    train = study.train

    def generate(*given: Any) -> int:
        _, layout, names, _, method, seed, split = given
        index = {name: row for row, name in enumerate(train.table["image"])}
        rows = [index[name.split("-", 1)[1]] for name in names]
        write_images(layout.generated(method, seed) / split, names, train.load_images(32, rows))
        return len(names)

    patch.setattr(diffusion, "generate", generate)
    return matrix_study.collect_matrix(study.settings, study.layout, study.cohort)
