"""The downstream matrix on disk: each classifier fitted once, with equally many steps, and kept.

What an arm is stands in :mod:`matrix_arms`; how a run's folder is written, in
:mod:`downstream_runs`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.classify.fit import Classifier, with_steps
from fairdiff_lib.classify.predictions import Images, Labels, Levels
from fairdiff_lib.classify.runs import (
    REAL,
    Judges,
    check_splits,
    fit_judged,
    is_fitted,
    kept_thresholds,
    label_codes,
    read_judges,
    read_kept,
    training_images,
    write_fit,
)
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import locked, read_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.sample import generate
from fairdiff_lib.settings.options import ClassifierConfig, Settings
from fairdiff_lib.studies.matrix.arms import (
    MatrixRun,
    balanced_over,
    balanced_part,
    check_arms,
    check_shares,
    folder_of,
    generator_seed,
    half_steps,
    matrix_runs,
    share_rows,
    shares_of,
)
from fairdiff_lib.study import Study


@dataclass(frozen=True)
class Matrix:
    """A study's downstream matrix: settings, places, and the real images that all runs share."""

    settings: Settings
    layout: Places
    cohort: Cohort

    def __post_init__(self) -> None:
        check_arms(self.settings)
        check_splits(self.cohort, self.levels)
        check_shares(self.settings, self.train)

    @cached_property
    def train(self) -> Cohort:
        """The real training split."""
        return self.cohort.included().split("train")

    @cached_property
    def levels(self) -> Levels:
        """What every run learns: the conditions that a generated image can show."""
        return self.cohort.condition_levels

    @cached_property
    def attribute(self) -> str:
        """The attribute that balanced images are balanced over."""
        return balanced_over(self.settings, self.train)

    @cached_property
    def config(self) -> ClassifierConfig:
        """The classifier, its steps those of the whole training split, whatever a run sees."""
        chosen = self.settings.classifier(self.settings.matrix.classifier)
        return with_steps(chosen, len(self.train))

    @cached_property
    def judges(self) -> Judges:
        """Real validation and test images."""
        return read_judges(self.settings, self.cohort, self.config.preparation)

    @cached_property
    def real(self) -> Images:
        """All real training images."""
        own = (self.settings, self.layout, self.train, REAL, 0, self.config.preparation)
        return training_images(*own)

    # -- what a run is shown -----------------------------------------------------------------

    def real_part(self, run: MatrixRun) -> tuple[Images, Labels]:
        """Images and labels of the run's share of real subjects."""
        rows = share_rows(self.train, run.share, run.seed)
        return self.real[rows], label_codes(self.train.take(rows), self.levels)

    def generated_part(self, run: MatrixRun) -> tuple[Images, Labels]:
        """Images that the run's generator made, and the labels of their prompts."""
        method, seed = self.settings.matrix.method, generator_seed(self.settings, run.seed)
        part, folder = self.train, "train"
        if run.spec.made == "balanced":
            part, folder = self.make_balanced(method, seed)
        own = (self.settings, self.layout, part, method, seed, self.config.preparation)
        return training_images(*own, folder), label_codes(part, self.levels)

    def make_balanced(self, method: str, seed: int) -> tuple[Cohort, str]:
        """Prompts with every level equally often, and the folder of their images; made once."""
        part, folder = balanced_part(self.train, self.attribute, seed), f"balanced-{self.attribute}"
        names, prompts = part.table["image"].tolist(), part.table["prompt"].tolist()
        place = self.layout.generated(method, seed) / folder
        with locked(place.with_name(f"{folder}.lock")):  # two runs may want them at once
            generate(Study(self.settings, self.layout), names, prompts, method, seed, folder)
        return part, folder

    # -- runs --------------------------------------------------------------------------------

    def runs(self) -> list[MatrixRun]:
        """Every run of the study."""
        return matrix_runs(self.settings.matrix)

    def predictions(self, run: MatrixRun, split: str = "test") -> pd.DataFrame:
        """Probabilities of real images: fitted where missing, found again where not."""
        folder = folder_of(self.layout, run, self.attribute)
        if not is_fitted(folder, self.cohort):
            self._fit(run)
        return read_kept(folder, self.levels, split)

    def thresholds(self, run: MatrixRun) -> dict[str, float]:
        """Thresholds that validation gave a run, by condition of two levels."""
        return kept_thresholds(folder_of(self.layout, run, self.attribute))

    def notes(self, run: MatrixRun) -> dict[str, Any]:
        """What the run's folder says of itself: steps, seconds, images."""
        found: dict[str, Any] = read_json(folder_of(self.layout, run, self.attribute) / "run.json")
        return found

    def _fit(self, run: MatrixRun) -> None:
        folder = folder_of(self.layout, run, self.attribute)
        parts = [self.generated_part(run)] if run.spec.made else []
        parts += [self.real_part(run)] if run.spec.real else []
        counts = {"generated_images": len(parts[0][1]) if run.spec.made else 0}
        counts["real_images"] = len(parts[-1][1]) if run.spec.real else 0
        before: Classifier | None = None
        if run.spec.first:
            before = self._fit_steps(run, *parts[0], half_steps(self.config.loop.steps)[0])
            parts = parts[1:]
        images, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        done = before.config.loop.steps if before else 0
        fitted = self._fit_steps(run, images, labels, self.config.loop.steps - done, before)
        notes = {
            "arm": run.arm,
            "share": run.share,
            "seed": run.seed,
            "balanced_over": self.attribute if run.spec.made == "balanced" else None,
            "generator_seed": generator_seed(self.settings, run.seed) if run.spec.made else None,
            "steps": done + fitted.config.loop.steps,
            "steps_before": done,
            "batch": fitted.config.loop.batch,
            "seconds": fitted.seconds + (before.seconds if before else 0.0),
            **counts,
        }
        write_fit(folder, self.cohort, fitted, self.judges, **notes)

    def _fit_steps(
        self,
        run: MatrixRun,
        images: Images,
        labels: Labels,
        steps: int,
        before: Classifier | None = None,
    ) -> Classifier:
        """Fit for a number of steps, from fresh weights or from an earlier classifier's."""
        folder = folder_of(self.layout, run, self.attribute) / "work"
        name = "first" if run.spec.first and before is None else "last"
        config = replace(self.config, loop=replace(self.config.loop, steps=steps))
        return fit_judged(
            images, labels, self.levels, self.judges, config, run.seed, folder / name, before
        )


def make_runs(
    settings: Settings, layout: Places, cohort: Cohort, arm: str, seed: int
) -> list[dict[str, Any]]:
    """Fit what is missing of an arm's runs of a seed; what each folder says of itself."""
    matrix = Matrix(settings, layout, cohort)
    runs = [MatrixRun(arm, share, seed) for share in shares_of(settings.matrix, arm)]
    for run in runs:
        matrix.predictions(run)
    return [matrix.notes(run) for run in runs]
