"""18: do models that are trained on each other's images drift apart by group?

Each generation goes on from the one before (Bertrand et al. 2024), trained on real images of some
subjects and on the last generation's images of the others. Beside it the same number of steps on
real images alone: what only the longer training does. The last generation's images take the place
of the subjects' real ones in the cohort; the training loop and the sampling are the study's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, labelled
from fairdiff_lib.audit.contrasts import EXPLORATORY
from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.classify.features import Images, Space
from fairdiff_lib.classify.runs import feature_spaces
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import hash_file, write_table
from fairdiff_lib.disk.tables import gate_notes
from fairdiff_lib.model.sample import PIPELINES, generate, load_generated
from fairdiff_lib.settings.methods import BASELINE
from fairdiff_lib.studies.harm import change, finish
from fairdiff_lib.studies.plans import LOOP_ARMS, MIXED
from fairdiff_lib.studies.quality import audit_images
from fairdiff_lib.studies.verdict.measure import curves_of
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import train

LAST = "last"  # folder of the last generation's images of training subjects


def of_generation(study: Study, arm: str, seed: int, number: int) -> Study:
    """The study that one generation is: it starts from the one before, in roots of its own.

    Generation 0 is the study's own run. Images of the last generation are drawn where missing; the
    generations before must be trained.
    """
    if number == 0:
        return study
    before = of_generation(study, arm, seed, number - 1)
    start = before.places.run(BASELINE, seed) / PIPELINES["ema"]
    begun = {"model.pretrained": str(start), "model.revision": "", "base_per_seed": False}
    settings = study.settings.changed(begun)
    root = study.places.retraining / f"{arm}-seed{seed}-{number}"
    own = Study(settings, replace(study.places, settings=settings, runs_root=str(root)))
    cohort = study.cohort
    if arm == MIXED:
        cohort = mixed(study, before, own, seed, number)
    own.__dict__["cohort"] = cohort  # where the cached property keeps it
    write_table(cohort.table, own.places.cohort / "cohort.csv")
    return own


def mixed(study: Study, before: Study, own: Study, seed: int, number: int) -> Cohort:
    """The cohort with the last generation's images in place of some training subjects' own."""
    whole = study.cohort
    train_rows = (whole.table["excluded"] == "") & (whole.table["split"] == "train")
    subjects = np.sort(whole.table.loc[train_rows, "subject"].unique())
    draws = np.random.default_rng([seed, number])
    count = round(study.settings.retraining.share * len(subjects))
    chosen = train_rows & whole.table["subject"].isin(draws.permutation(subjects)[:count])
    asked, place = whole.table[chosen], own.places.runs / LAST
    names = asked["image"].tolist()
    fresh = replace(before.settings.generation, seed=before.settings.generation.seed + number)
    drawing = before.with_settings(replace(before.settings, generation=fresh))
    generate(drawing, names, asked["prompt"].tolist(), BASELINE, seed, "train", place)
    files = [place / "train" / f"{name}.png" for name in names]
    table = whole.table.copy()
    table.loc[chosen, "path"] = [str(file) for file in files]
    said = "".join([whole.data_hash, *map(hash_file, files)])
    return Cohort(whole.spec, table, whole.root, hashlib.sha256(said.encode()).hexdigest())


def make_generations(study: Study, arm: str, seed: int) -> list[str]:
    """Train every generation of an arm and draw its test images; what is there is kept."""
    test = study.cohort.included().split("test").table
    asked = test["image"].tolist(), test["prompt"].tolist()
    made = []
    for number in range(1, study.settings.retraining.generations + 1):
        own = of_generation(study, arm, seed, number)
        train(own, BASELINE, seed)
        # test images of all generations begin with the same noise
        generate(own, *asked, BASELINE, seed, "test")
        made.append(own.places.run(BASELINE, seed).name)
    return made


def images_of(study: Study, arm: str, seed: int, number: int) -> Images:
    """A generation's test images."""
    own = of_generation(study, arm, seed, number)
    names = study.cohort.included().split("test").table["image"].tolist()
    return load_generated(own.places.generated(BASELINE, seed), "test", names)


@dataclass(frozen=True)
class Retraining:
    """What 18 writes and shows.

    ``table`` and ``changes``: dataset, method, arm, generation, seeds, attribute, level, metric
    (kid, equivalent_blur; their change from generation 0), features, n, value, low, high, note.
    ``contrasts``: does a level change more than another?
    """

    space: Space
    images: Mapping[tuple[str, int], Images]  # arm, generation: of the first seed
    audits: Mapping[tuple[str, int], list[Audit]]  # the same
    table: pd.DataFrame
    changes: pd.DataFrame
    contrasts: pd.DataFrame
    notes: list[str]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        own = {"tab_loop": self.table, "tab_loop_changes": self.changes}
        return {**own, "tab_loop_contrasts": self.contrasts}

    def scalars(self) -> dict[str, Any]:
        """What 18 records: every generation's overall values."""
        own = self.table[self.table["attribute"] == "overall"]
        own = own.drop_duplicates(["arm", "generation", "metric"])
        return {f"{r.metric}_{r.arm}_{r.generation}": r.value for r in own.itertuples()}


def measure_retraining(study: Study) -> Retraining:
    """Audit every generation by group, and its change from the study's own model."""
    settings, kept = study.settings, study.cohort.included()
    size, attributes = settings.model.image_size, study.cohort.attribute_levels
    real = [kept.split(name).load_images(size) for name in ("train", "test")]
    space = feature_spaces(study, *real)[0]
    groups = group_units(kept.split("test").table, attributes)
    curves = curves_of(space, real[1], groups)
    images: dict[tuple[str, int], Images] = {}
    audits: dict[tuple[str, int], list[Audit]] = {}
    parts: list[pd.DataFrame] = []
    moves: list[pd.DataFrame] = []
    moved: list[tuple[Mapping[str, Any], Audit]] = []
    for seed in settings.seeds:
        for arm in LOOP_ARMS:
            make_generations(study, arm, seed)
            first: list[Audit] = []
            for number in range(settings.retraining.generations + 1):
                made = images_of(study, arm, seed, number)
                found = audit_images(
                    space.test, space.of(made), groups, space.kernel, attributes,
                    curves=lambda _: curves, features=space.extractor.name, role=EXPLORATORY,
                    **settings.audit.sizes,
                )  # fmt: skip
                first = first or found
                if seed == settings.seeds[0]:
                    images[arm, number], audits[arm, number] = made, found
                labels = {"dataset": settings.dataset, "method": BASELINE, "arm": arm,
                          "generation": number, "seed": seed}  # fmt: skip
                for one, base in zip(found, first, strict=True):
                    parts.append(labelled(one.by_group.assign(features=one.features), labels))
                    if number:
                        own = change(one, base)
                        moves.append(labelled(own.by_group.assign(features=one.features), labels))
                        moved.append((labels, own))
    table, contrasts = finish(study, parts, moved)
    changes, _ = finish(study, moves, moved)
    return Retraining(space, images, audits, table, changes, contrasts, gate_notes(study.places))
