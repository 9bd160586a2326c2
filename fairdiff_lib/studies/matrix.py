"""13: what real, generated and mixed training images make of a classifier.

An arm says which images a classifier is trained on and in which order; every run has equally many
optimiser steps. Also train on A, test on B: 07's classifiers read the test images of every source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdiff_lib.audit.audit import Audit, labelled, mean_audit
from fairdiff_lib.audit.classifiers import (
    classification_audits,
    classification_table,
    es_audit,
    scored,
)
from fairdiff_lib.audit.seeds import compare_audits, over_seeds
from fairdiff_lib.classify.fit import Classifier, with_steps
from fairdiff_lib.classify.predictions import Images, Labels, Levels
from fairdiff_lib.classify.runs import (
    REAL,
    HeldOut,
    check_splits,
    fit_on,
    is_fitted,
    kept_thresholds,
    label_codes,
    read_back,
    read_held_out,
    read_kept,
    read_run,
    training_images,
    write_fit,
)
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import locked, read_json
from fairdiff_lib.disk.tables import gate_notes, with_notes
from fairdiff_lib.model.sample import generate
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.names import method_name
from fairdiff_lib.settings.options import ClassifierConfig, Settings
from fairdiff_lib.studies.plans import (
    ARMS,
    MatrixRun,
    check_arms,
    folder_of,
    generator_seed,
    matrix_runs,
    shares_of,
)
from fairdiff_lib.study import Study

AUDITED = ("auc", "accuracy")  # by group
METRICS = ("auc", "accuracy", "es_auc", "es_accuracy", "psd_mean", "psd_max", "dpd", "eod")
COSTS = (
    *("arm", "share", "seed", "real_images", "generated_images", "generator_seed", "steps"),
    *("steps_before", "batch", "selected_step", "seconds"),
)
BOTH_WAYS = "auc_both_ways"
Ints = NDArray[np.int64]
LEAST_SUBJECTS = 50  # training subjects of a level that images may be balanced over


# -- which rows a run sees -------------------------------------------------------------------


def balanced_over(settings: Settings, train: Cohort) -> str:
    """The attribute that images are balanced over; decided by the training split alone.

    As set, or the one whose largest level has the most times as many subjects as its smallest;
    of those, where there are any, whose every level has ``LEAST_SUBJECTS``: a few prompts drawn
    again and again are no group.
    """
    if settings.matrix.balance:
        return settings.matrix.balance
    subjects = train.table.drop_duplicates("subject")
    counts = {
        one.name: subjects[one.name].value_counts().reindex(list(one.levels)).fillna(0)
        for one in train.spec.attributes
    }
    large = {name: own for name, own in counts.items() if own.min() >= LEAST_SUBJECTS}
    counts = large or counts
    return max(counts, key=lambda name: float(counts[name].max() / max(counts[name].min(), 1)))


def share_rows(train: Cohort, share: float, seed: int) -> Ints:
    """Rows of a share of the subjects, drawn within each level of the primary condition.

    The subjects of a level are put in one random order; a share, in (0, 1], takes its first, so
    that the smaller of two shares of one seed lies within the larger. Every image of a chosen
    subject. A level of a prompted condition that no chosen subject has is refused.
    """
    table, primary = train.table, train.spec.primary_condition
    subjects = table.drop_duplicates("subject").sort_values("subject")
    chosen: set[str] = set()
    for code, level in enumerate(train.spec.levels(primary)):
        own = subjects.loc[subjects[primary] == level, "subject"].to_numpy()
        order = np.random.default_rng((seed, code)).permutation(len(own))
        chosen |= set(own[order[: math.floor(share * len(own) + 0.5)]])
    rows = np.flatnonzero(table["subject"].isin(chosen).to_numpy()).astype(np.int64)
    part = table.iloc[rows]
    for condition in train.spec.prompted:
        missing = [x for x in condition.levels if not (part[condition.name] == x).any()]
        if missing:
            raise InputError(
                f"matrix: a share of {share:g} of the real subjects (seed {seed}) has no "
                f"{condition.name} {', '.join(missing)}; expected at least one subject of every "
                "level, give larger matrix.shares"
            )
    return rows


def balanced_part(train: Cohort, attribute: str, seed: int) -> Cohort:
    """Training rows drawn with replacement so that every level of an attribute is equally often.

    Within a level every row is equally likely: the prevalence of conditions stays what it is.
    As many rows as there are in training; levels differ by one at most. A row per image to be made
    by the generator of a seed; ``image`` is its own name, unique, which holds the drawn row's.
    """
    refuse_unknown("attribute", attribute, tuple(a.name for a in train.spec.attributes))
    levels = train.spec.levels(attribute)
    generator = np.random.default_rng((seed, len(train)))
    parts: list[Ints] = []
    for code, level in enumerate(levels):
        own = np.flatnonzero((train.table[attribute] == level).to_numpy())
        if not len(own):
            raise InputError(
                f"{train.root}: no training row with {attribute} {level!r}; expected at least one "
                "to balance over"
            )
        wanted = len(train) // len(levels) + (code < len(train) % len(levels))
        parts.append(generator.choice(own, wanted).astype(np.int64))
    drawn = train.take(np.concatenate(parts))
    names = [f"{k:06d}-{name}" for k, name in enumerate(drawn.table["image"])]
    return Cohort(drawn.spec, drawn.table.assign(image=names), drawn.root, drawn.data_hash)


# -- runs, each fitted once and kept ---------------------------------------------------------


@dataclass(frozen=True)
class Matrix:
    """A study's downstream matrix: its runs, and the real images that all of them share."""

    study: Study

    def __post_init__(self) -> None:
        check_arms(self.study.settings)
        check_splits(self.study.cohort, self.levels)
        own = self.study.settings.matrix
        for seed, share in product(own.seeds, sorted(own.shares)):
            share_rows(self.train, share, seed)  # refuses a share that leaves a level without one

    @cached_property
    def train(self) -> Cohort:
        return self.study.cohort.included().split("train")

    @cached_property
    def levels(self) -> Levels:
        """What every run learns: the conditions that a generated image can show."""
        return self.study.cohort.condition_levels

    @cached_property
    def attribute(self) -> str:
        """The attribute that balanced images are balanced over."""
        return balanced_over(self.study.settings, self.train)

    @cached_property
    def config(self) -> ClassifierConfig:
        """The classifier, its steps those of the whole training split, whatever a run sees."""
        chosen = self.study.settings.classifier(self.study.settings.matrix.classifier)
        return with_steps(chosen, len(self.train))

    @cached_property
    def held(self) -> HeldOut:
        return read_held_out(self.study, self.config.preparation)

    @cached_property
    def real(self) -> Images:
        return training_images(self.study, self.train, REAL, 0, self.config.preparation)

    # -- what a run is shown -----------------------------------------------------------------

    def real_part(self, run: MatrixRun) -> tuple[Images, Labels]:
        """Images and labels of the run's share of real subjects."""
        rows = share_rows(self.train, run.share, run.seed)
        return self.real[rows], label_codes(self.train.take(rows), self.levels)

    def generated_part(self, run: MatrixRun) -> tuple[Images, Labels]:
        """Images that the run's generator made, and the labels of their prompts."""
        own = self.study.settings
        method, seed = own.matrix.method, generator_seed(own, run.seed)
        part, folder = self.train, "train"
        if run.spec.made == "balanced":
            part, folder = self.make_balanced(method, seed)
        prepared = self.config.preparation
        images = training_images(self.study, part, method, seed, prepared, folder)
        return images, label_codes(part, self.levels)

    def make_balanced(self, method: str, seed: int) -> tuple[Cohort, str]:
        """Prompts with every level equally often, and the folder of their images; made once."""
        part, folder = balanced_part(self.train, self.attribute, seed), f"balanced-{self.attribute}"
        names, prompts = part.table["image"].tolist(), part.table["prompt"].tolist()
        place = self.study.places.generated(method, seed) / folder
        with locked(place.with_name(f"{folder}.lock")):  # two runs may want them at once
            generate(self.study, names, prompts, method, seed, folder)
        return part, folder

    # -- runs --------------------------------------------------------------------------------

    def folder(self, run: MatrixRun) -> Path:
        return folder_of(self.study.places, run, self.attribute)

    def predictions(self, run: MatrixRun) -> pd.DataFrame:
        """Probabilities of real test images: fitted where missing, found again where not."""
        folder = self.folder(run)
        if not is_fitted(folder, self.study.cohort):
            self._fit(run)
        return read_kept(folder, self.levels, "test")

    def notes(self, run: MatrixRun) -> dict[str, Any]:
        """What the run's folder says of itself: steps, seconds, images."""
        found: dict[str, Any] = read_json(self.folder(run) / "run.json")
        return found

    def _fit(self, run: MatrixRun) -> None:
        own = self.study.settings
        parts = [self.generated_part(run)] if run.spec.made else []
        parts += [self.real_part(run)] if run.spec.real else []
        counts = {"generated_images": len(parts[0][1]) if run.spec.made else 0}
        counts["real_images"] = len(parts[-1][1]) if run.spec.real else 0
        before: Classifier | None = None
        if run.spec.first:
            before = self._fit_steps(run, *parts.pop(0), self.config.loop.steps // 2)
        images, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        done = before.config.loop.steps if before else 0
        fitted = self._fit_steps(run, images, labels, self.config.loop.steps - done, before)
        notes = {
            **asdict(run),
            "balanced_over": self.attribute if run.spec.made == "balanced" else None,
            "generator_seed": generator_seed(own, run.seed) if run.spec.made else None,
            "steps": done + fitted.config.loop.steps,
            "steps_before": done,
            "batch": fitted.config.loop.batch,
            "seconds": fitted.seconds + (before.seconds if before else 0.0),
            **counts,
        }
        write_fit(self.folder(run), self.study.cohort, fitted, self.held, **notes)

    def _fit_steps(
        self, run: MatrixRun, images: Images, labels: Labels, steps: int,
        before: Classifier | None = None,
    ) -> Classifier:  # fmt: skip
        """Fit for a number of steps, from fresh weights or from an earlier classifier's."""
        folder = self.folder(run) / "work"
        name = "first" if run.spec.first and before is None else "last"
        config = replace(self.config, loop=replace(self.config.loop, steps=steps))
        return fit_on(
            images, labels, self.levels, self.held, config, run.seed, folder / name, before
        )


# -- tables ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatrixResult:
    """What 13 writes and shows."""

    predictions: dict[MatrixRun, pd.DataFrame]  # of real test images: PREDICTION_COLUMNS
    # dataset, method (the arm), share, classifier, condition, attribute, level, metric, seeds, n,
    # value, low, high, note
    table: pd.DataFrame
    # dataset, classifier, condition, share, baseline_share, CHANGE_COLUMNS: an arm minus real
    # images, at the same share, or at all of them where the arm has no real ones
    changes: pd.DataFrame
    cost: pd.DataFrame  # a row per run: what it was shown, its steps and seconds
    transfer: pd.DataFrame  # train on A, test on B; see `measure_transfer`
    attribute: str  # that balanced images are balanced over
    note: str  # how many trained generators are behind it
    notes: list[str]  # the gates of 05 that failed

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {
            "tab_matrix": self.table,
            "tab_matrix_changes": self.changes,
            "tab_matrix_cost": self.cost,
            "tab_transfer": self.transfer,
        }

    @property
    def summary(self) -> pd.DataFrame:
        """A row per arm and share: images, steps, share of real images in a step, seconds."""
        return cost_summary(self.cost)

    def scalars(self, condition: str) -> dict[str, Any]:
        """What 13 records: a condition's overall AUC by run and by pair, and the steps."""
        own, pairs = (
            table[(table["condition"] == condition) & (table["metric"] == "auc")]
            for table in (self.table, self.transfer)
        )
        found = {
            f"auc_{row.method}_share{row.share:g}_seeds{row.seeds}": row.value
            for row in own[own["attribute"] == "overall"].itertuples()
        }
        found |= {
            f"auc_{row.method}_on_{row.tested_on}_{row.classifier}_seeds{row.seeds}": row.value
            for row in pairs[pairs["attribute"] == "overall"].itertuples()
        }
        steps = {"runs": len(self.cost), "steps": int(self.cost["steps"].iloc[0])}
        return {**found, **steps, "balanced_over": self.attribute}


def measure_matrix(study: Study) -> MatrixResult:
    """Every run of the matrix as tables; a missing one is fitted."""
    matrix, own, dataset = Matrix(study), study.settings.audit, study.settings.dataset
    test, attributes = matrix.held.parts["test"].table, study.cohort.attribute_levels
    runs, name = matrix_runs(study.settings.matrix), matrix.config.name
    predictions = {run: matrix.predictions(run) for run in runs}
    parts: list[pd.DataFrame] = []
    audits: dict[tuple[MatrixRun, str], dict[str, Audit]] = {}
    for run, said in predictions.items():
        cuts = kept_thresholds(matrix.folder(run))
        labels = {"dataset": dataset, "method": run.arm, "share": run.share, "seed": run.seed}
        parts.append(classification_table(
            said, test, attributes, labels={**labels, "classifier": name}, thresholds=cuts,
            metrics=AUDITED, confidence=own.confidence, bootstrap=own.bootstrap,
        ))  # fmt: skip
        for condition in matrix.levels:
            data = scored(said, test, condition, attributes, cuts.get(condition, 0.5))
            found = classification_audits(
                data, attributes, own.confidence, names=AUDITED, bootstrap=0
            ).values()
            audits[run, condition] = {one.metric: one for one in (*found, *map(es_audit, found))}
    whole = pd.concat(parts, ignore_index=True)
    table = over_seeds(whole[whole["metric"].isin(METRICS)], own.confidence)
    note = generator_note(study.settings)
    failed = gate_notes(study.places)
    notes = [*failed, note]
    changes = labelled(_changes(matrix, audits), {"dataset": dataset, "classifier": name})
    cost = pd.DataFrame([matrix.notes(run) for run in runs])[list(COSTS)]
    refuse_unequal(cost)
    transfer = measure_transfer(study)
    told = with_notes(table, notes), with_notes(changes, notes)
    return MatrixResult(predictions, *told, cost, transfer, matrix.attribute, note, failed)


def make_runs(study: Study, arm: str, seed: int) -> list[dict[str, Any]]:
    """Fit what is missing of an arm's runs of a seed; what each folder says of itself."""
    matrix = Matrix(study)
    runs = [MatrixRun(arm, share, seed) for share in shares_of(study.settings.matrix, arm)]
    for run in runs:
        matrix.predictions(run)
    return [matrix.notes(run) for run in runs]


def generator_note(settings: Settings) -> str:
    """How many trained generators are behind the matrix's seeds, and what they were trained on."""
    used = sorted({generator_seed(settings, seed) for seed in settings.matrix.seeds})
    many = f"{len(used)} generators" if len(used) > 1 else "one generator"
    seeds = len(settings.matrix.seeds)
    text = f"{many} ({method_name(settings.matrix.method)}) behind {seeds} training seed"
    text += "s" * (seeds > 1)
    text = text if len(used) > 1 else f"{text}: no interval covers its training"
    return f"{text}; trained on all real training subjects, whatever the share"


def refuse_unequal(cost: pd.DataFrame) -> None:
    """Refuse runs that were not given equally many optimiser steps of equal size."""
    first = cost.iloc[0]
    for _, row in cost.iterrows():
        if (row["steps"], row["batch"]) != (first["steps"], first["batch"]):
            raise InputError(
                f"matrix: {row['arm']}, share {row['share']:g}, seed {row['seed']}, took "
                f"{row['steps']} steps of {row['batch']} images; expected {first['steps']} of "
                f"{first['batch']}, as every run"
            )


# -- an arm against real images --------------------------------------------------------------

Audits = Mapping[tuple[MatrixRun, str], Mapping[str, Audit]]  # (run, condition): metric: audit


def _changes(matrix: Matrix, audits: Audits) -> pd.DataFrame:
    """Every arm minus real images, paired by seed."""
    parts = []
    own, confidence = matrix.study.settings.matrix, matrix.study.settings.audit.confidence
    for arm in (name for name in ARMS if name != REAL):
        for share in shares_of(own, arm):
            base = share or 1.0  # an arm without real images against all of them
            for condition in matrix.levels:
                for metric in audits[MatrixRun(REAL, 1.0, own.seeds[0]), condition]:
                    pair = {
                        (name, seed): audits[MatrixRun(name, at, seed), condition][metric]
                        for seed in own.seeds
                        for name, at in ((arm, share), (REAL, base))
                    }
                    found = compare_audits(pair, REAL, confidence)
                    labels = {"condition": condition, "share": share, "baseline_share": base}
                    parts.append(labelled(found, labels))
    return pd.concat(parts, ignore_index=True)


# -- train on A, test on B -------------------------------------------------------------------


def measure_transfer(study: Study) -> pd.DataFrame:
    """Every source's classifiers on the test images of every source, of the same seed.

    The sources are real images and the study's methods; of a generated image the truth is what
    its prompt asked for. Returns dataset, method (trained on), tested_on, classifier, condition,
    attribute, level, metric, seeds, n, value, low, high, note. Metrics: auc; and auc_both_ways,
    once for two sources, the mean of trained on A, tested on B and the other way round
    (generalised cross-validation).
    """
    parts, own = [], study.settings
    for name in own.classifiers:
        for seed in own.seeds:
            for (source, target, condition), one in _with_both_ways(_crossed(study, seed, name)):
                pair = {"dataset": own.dataset, "method": source, "tested_on": target}
                run = {"seed": seed, "classifier": own.classifier(name).name}
                parts.append(labelled(one.by_group, {**pair, **run, "condition": condition}))
    table = over_seeds(pd.concat(parts, ignore_index=True), own.audit.confidence)
    return with_notes(table, gate_notes(study.places))


Crossed = dict[tuple[str, str, str], Audit]  # trained on, tested on, condition


def _crossed(study: Study, seed: int, name: str) -> Crossed:
    """AUC of a seed's classifiers on every source's test images."""
    own, cohort = study.settings, study.cohort
    test, attributes = cohort.included().split("test"), cohort.attribute_levels
    sources = [source for source, *run in own.fits if run == [seed, name]]
    prepared = own.classifier(name).preparation
    shown = {
        source: training_images(study, test, source, seed, prepared, "test") for source in sources
    }
    found: Crossed = {}
    for source in sources:
        read_run(study, source, seed, name)  # fits it where missing
        classifier = Classifier.load(study.places.classifier(source, seed, name) / "classifier")
        for target in sources:
            predictions = read_back(classifier, test, shown[target])
            for condition in cohort.condition_levels:
                data = scored(predictions, test.table, condition, attributes)
                found[source, target, condition] = classification_audits(
                    data, attributes, own.audit.confidence, names=("auc",), bootstrap=0
                )["auc"]
    return found


def _with_both_ways(found: Crossed) -> Iterator[tuple[tuple[str, str, str], Audit]]:
    """The audits, and for two sources the mean of both directions under the first's name."""
    yield from found.items()
    sources = list(dict.fromkeys(source for source, _, _ in found))
    for first, second, condition in found:
        if sources.index(first) < sources.index(second):
            pair = [found[first, second, condition], found[second, first, condition]]
            both = replace(mean_audit(pair), metric=BOTH_WAYS)
            yield (first, second, condition), both


# -- what the notebook shows and records -----------------------------------------------------


def cost_summary(cost: pd.DataFrame) -> pd.DataFrame:
    """A row per arm and share: images, steps, share of real images in a step, mean seconds."""
    found = cost.groupby(["arm", "share"], sort=False, as_index=False).agg(
        runs=("seed", "size"),
        real_images=("real_images", "mean"),
        generated_images=("generated_images", "mean"),
        steps=("steps", "first"),
        steps_before=("steps_before", "first"),
        batch=("batch", "first"),
        seconds=("seconds", "mean"),
    )
    together = found["real_images"] / (found["real_images"] + found["generated_images"])
    after = 1 - found["steps_before"] / found["steps"]  # of the images that a run is shown
    found["real_shown"] = np.where(found["steps_before"] > 0, after, together)
    return found
