"""16: does the finding survive a change of group? One word of the prompt is changed, nothing else.

Every run draws the same test prompts from the same noise once more, with another level of one
attribute. What moves then is the word's doing. What another noise moves, with the prompt as it was,
stands beside: a finding that another noise would have changed as often does not hang on the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from fairdiff_lib.audit.audit import Audit, Estimator, exploratory_audits, labelled, mean_metric
from fairdiff_lib.audit.blur import blur_images
from fairdiff_lib.audit.estimate import Floats, group_units
from fairdiff_lib.classify.features import Images, Space
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.predictions import Probabilities
from fairdiff_lib.classify.runs import feature_spaces, load_reader
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.tables import gate_notes
from fairdiff_lib.model.sample import generate, load_generated
from fairdiff_lib.studies.harm import finish
from fairdiff_lib.studies.sweep import sweep_rows
from fairdiff_lib.study import Study

NOISE = "noise"  # "changed" is the noise, and no word: the control
MOVED, BLUR, FLIPS, READS = "moved", "moved_blur", "finding_flips", "readout_change"
SIGMAS = (0.0, 0.5, 1.0, 2.0, 4.0)  # pixels that an image's own blur is tried at
CONDITIONS = "all"  # the condition of what rests on no finding


@dataclass(frozen=True)
class Drawn:
    """Images of a run for the prompts as they are, and what is needed to compare others.

    ``blurred`` [S, N]: how far a blur of ``SIGMAS`` moves each image's features; ``typical``: how
    far images of two patients are from each other, on average.
    """

    images: Images  # [N, 3, H, W]
    features: Floats  # [N, D]
    read: Probabilities  # condition to [N, K]
    blurred: Floats
    typical: float


@dataclass(frozen=True)
class Moves:
    """What a change does to each image [R]; a row of ``asked`` is a prompt that was changed."""

    asked: Cohort  # attributes are the patient's own, the prompt is the changed one
    images: Images  # [R, 3, H, W]
    moved: Floats  # [R] distance in features, in units of that between two patients' images
    blur: Floats  # [R] pixels of blur of the image itself that would move it as far
    flips: Mapping[str, Floats]  # condition to [R]: 1 where another level is read
    reads: Mapping[str, Floats]  # condition to [R]: change in the last level's probability


@dataclass(frozen=True)
class Counterfactual:
    """What 16 writes and shows.

    ``table``: dataset, method, changed (an attribute, or "noise"), condition, then attribute,
    level (the patient's own), metric, n, value, low, high, note.
    """

    prompts: Cohort
    space: Space
    drawn: Drawn  # of the first run
    first: Moves  # its first change
    table: pd.DataFrame
    contrasts: pd.DataFrame
    notes: list[str]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        own = {"tab_counterfactual": self.table}
        return {**own, "tab_counterfactual_contrasts": self.contrasts}

    def scalars(self) -> dict[str, Any]:
        """What 16 records: of every change, the first method's overall values."""
        own = self.table[(self.table["attribute"] == "overall")]
        own = own[own["method"] == own["method"].iloc[0]].drop_duplicates(
            ["changed", "condition", "metric"]
        )
        return {f"{r.metric}_{r.condition}_{r.changed}": r.value for r in own.itertuples()}


def swapped(prompts: Cohort, attribute: str, level: str) -> Cohort:
    """The rows of other levels, each with the prompt of a patient of this one, else alike."""
    other = prompts.take((prompts.table[attribute] != level).to_numpy(dtype=bool))
    rows = other.table.assign(**{attribute: level}).astype(str).to_dict("records")
    asked = [prompts.spec.prompt({str(k): v for k, v in row.items()}) for row in rows]
    return replace(other, table=other.table.assign(prompt=asked))


def draw(study: Study, asked: Cohort, method: str, seed: int, name: str) -> Images:
    """Images of prompts from their rows' own noise: found again, or made; resumable."""
    place = study.places.counterfactual(method, seed, name)
    names = asked.table["image"].tolist()
    # the split is part of what the noise is drawn from: as of 04's test images
    generate(study, names, asked.table["prompt"].tolist(), method, seed, "test", place)
    return load_generated(place, "test", names)


def as_they_are(space: Space, reader: Classifier, images: Images) -> Drawn:
    """Features and read-outs of images, and what a blur does to them."""
    own = space.of(images)
    away = [np.linalg.norm(space.of(blur_images(images, s)) - own, axis=1) for s in SIGMAS[1:]]
    risen = np.maximum.accumulate(np.stack([np.zeros(len(own)), *away]))
    apart = np.linalg.norm(own[:, None] - own[None], axis=2)
    typical = float(apart.sum() / (len(own) * (len(own) - 1)))
    return Drawn(images, own, reader.predict(images), risen, typical)


def moves(
    drawn: Drawn, prompts: Cohort, asked: Cohort, images: Images, space: Space, reader: Classifier
) -> Moves:
    """How far a change moves each image, and whether another finding is read."""
    place = {name: row for row, name in enumerate(prompts.table["image"])}
    rows = np.array([place[name] for name in asked.table["image"]])
    away = np.linalg.norm(space.of(images) - drawn.features[rows], axis=1)
    blur = [
        float(np.interp(d, own, SIGMAS)) for d, own in zip(away, drawn.blurred.T[rows], strict=True)
    ]
    read = reader.predict(images)
    flips, reads = {}, {}
    for name in prompts.condition_levels:
        before, after = drawn.read[name][rows], read[name]
        flips[name] = (before.argmax(axis=1) != after.argmax(axis=1)).astype(np.float64)
        reads[name] = after[:, -1] - before[:, -1]
    return Moves(asked, images, away / drawn.typical, np.array(blur), flips, reads)


def move_audits(study: Study, found: list[Moves], changed: str) -> dict[str, dict[str, Audit]]:
    """Condition to metric to audit of one change, by the patients' own levels."""
    levels, own = study.cohort.attribute_levels, study.settings.audit
    if changed != NOISE:
        levels = {changed: levels[changed]}
    table = pd.concat([one.asked.table for one in found], ignore_index=True)
    groups = group_units(table, levels)

    def of(values: list[Floats], bounded: bool = False) -> Estimator:
        return mean_metric(np.concatenate(values), bounded)

    metrics: dict[str, dict[str, Estimator]] = {
        CONDITIONS: {MOVED: of([m.moved for m in found]), BLUR: of([m.blur for m in found])}
    }
    for name in study.cohort.condition_levels:
        flips, reads = of([m.flips[name] for m in found], True), of([m.reads[name] for m in found])
        metrics[name] = {FLIPS: flips, READS: reads}
    low = (MOVED, BLUR, FLIPS)
    return {name: exploratory_audits(some, groups, levels, low, **own.sizes)
            for name, some in metrics.items()}  # fmt: skip


def rows_of(one: Audit) -> pd.DataFrame:
    """An audit by group; a rate of none or all of n subjects gets its exact interval."""
    rows, share = one.by_group.copy(), one.design.confidence
    if one.metric == FLIPS:
        for end, (side, other) in {0.0: ("low", "high"), 1.0: ("high", "low")}.items():
            at = (rows["value"] == end) & (rows["n"] > 0)
            reach = stats.beta.ppf((1 + share) / 2, 1, rows.loc[at, "n"])
            rows.loc[at, side] = end
            rows.loc[at, other] = np.abs(end - reach)
    return rows


def measure_counterfactual(study: Study) -> Counterfactual:
    """Every run's images with every word changed, made where missing, and what moved."""
    settings, kept = study.settings, study.cohort.included()
    prompts = kept.split("test").take(sweep_rows(study, settings.counterfactual.images))
    size = settings.model.image_size
    real = [kept.split(name).load_images(size) for name in ("train", "test")]
    space, reader = feature_spaces(study, *real)[0], load_reader(study)
    parts: list[pd.DataFrame] = []
    audits: list[tuple[Mapping[str, Any], Audit]] = []
    shown: tuple[Drawn, Moves] | None = None
    other = replace(settings.generation, seed=settings.generation.seed + 1)
    for method, seed in tqdm(settings.runs, desc="runs, a word changed", disable=None):
        names = prompts.table["image"].tolist()
        images = load_generated(study.places.generated(method, seed), "test", names)
        drawn = as_they_are(space, reader, images)
        renewed = study.with_settings(replace(settings, generation=other))
        again = draw(renewed, prompts, method, seed, NOISE)
        found = {NOISE: [moves(drawn, prompts, prompts, again, space, reader)]}
        for attribute, levels in study.cohort.attribute_levels.items():
            found[attribute] = []
            for code, level in enumerate(levels):
                asked = swapped(prompts, attribute, level)
                if not len(asked):
                    continue
                made = draw(study, asked, method, seed, f"{attribute}-{code}")
                found[attribute].append(moves(drawn, prompts, asked, made, space, reader))
        shown = shown or (drawn, found[next(iter(study.cohort.attribute_levels))][0])
        for changed, own in found.items():
            for condition, some in move_audits(study, own, changed).items():
                labels = {"dataset": settings.dataset, "method": method, "seed": seed,
                          "changed": changed, "condition": condition}  # fmt: skip
                parts += [labelled(rows_of(one), labels) for one in some.values()]
                if changed != NOISE:
                    audits += [(labels, one) for one in some.values()]
    table, contrasts = finish(study, parts, audits)
    assert shown is not None  # there is a run
    return Counterfactual(prompts, space, *shown, table, contrasts, gate_notes(study.places))
