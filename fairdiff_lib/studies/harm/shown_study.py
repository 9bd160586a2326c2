"""12: what generated images show, and whose they look like: from images on disk to tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit, labelled
from fairdiff_lib.audit.classifiers import scored
from fairdiff_lib.audit.estimate import Estimate, Floats, Ints, group_units
from fairdiff_lib.audit.seeds import over_seeds
from fairdiff_lib.classify.features import Extractor, extract, make_extractor
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.runs import load_encoder
from fairdiff_lib.data.cohort import Cohort, Ruler
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.harm.probe import probe_estimates, probe_rows, probe_scores
from fairdiff_lib.studies.harm.shown import (
    by_group,
    change,
    measured_audits,
    reading_audits,
    ruler_audits,
)
from fairdiff_lib.studies.harm.tables import Labels, Tables, finish, read_back

SPACES = ("encoder", "texture")  # what the conditions need; what no label has shaped
Found = dict[str, dict[str, Audit]]  # condition to metric to audit


@dataclass(frozen=True)
class Pictures:
    """The study's images, real ones read once.

    Attributes
    ----------
    train, test : uint8 [N, 3, S, S]
        Real.
    """

    settings: Settings
    layout: Places
    train: Any
    test: Any

    def generated(self, split: str) -> Iterator[tuple[Labels, Any]]:
        """Images of every method and seed for the prompts of a split, with their labels."""
        for method, seed in self.settings.runs:
            labels = {"dataset": self.settings.dataset, "method": method, "seed": seed}
            yield labels, load_generated(self.layout.generated(method, seed), split)

    def real_labels(self) -> list[Labels]:
        """Labels of the real images: of every seed, as a mean over seeds stands beside means."""
        names = {"dataset": self.settings.dataset, "method": "real"}
        return [{**names, "seed": seed} for seed in self.settings.seeds]


def read_pictures(settings: Settings, layout: Places, cohort: Cohort) -> Pictures:
    """Real training and test images; generated ones are read when they are asked for."""
    kept, size = cohort.included(), settings.model.image_size
    train, test = (kept.split(name).load_images(size) for name in ("train", "test"))
    return Pictures(settings, layout, train, test)


# -- asked against shown ---------------------------------------------------------------------


def collect_shown(settings: Settings, layout: Places, cohort: Cohort, pictures: Pictures) -> Tables:
    """What is read from generated test images against what was asked, beside real images.

    The reader is the feature encoder: one classifier of all conditions, trained on real images.
    In simulated data the ruler's quantity is also measured from the image.
    """
    reader = Reader(settings, cohort, load_encoder(settings, layout, cohort))
    real = reader(pictures.test, real=True)
    parts = [table for labels in pictures.real_labels() for table in reader.rows(real, labels)]
    audits: list[tuple[Mapping[str, Any], Audit]] = []
    for labels, images in pictures.generated("test"):
        found = reader(images)
        changed = {
            condition: {
                f"{name}_change": change(one, real[condition][name]) for name, one in own.items()
            }
            for condition, own in found.items()
        }
        parts += [*reader.rows(found, labels), *reader.rows(changed, labels)]
        for condition, own in changed.items():
            audits += [({**labels, "condition": condition}, one) for one in own.values()]
    return finish(settings, layout, parts, audits)


@dataclass(frozen=True)
class Reader:
    """Reads images of the test prompts: by a classifier of real images, and by measuring."""

    settings: Settings
    cohort: Cohort
    classifier: Classifier

    def __call__(self, images: Any, real: bool = False) -> Found:
        """Audits of what the images show; of real ones also of the measurement itself."""
        test, attributes = (
            self.cohort.included().split("test"),
            self.cohort.attribute_levels,
        )
        own, predictions = self.settings.audit, read_back(self.classifier, test, images)
        found: Found = {}
        for condition in self.cohort.condition_levels:
            cut = self.classifier.thresholds.get(condition, 0.5)
            cut = cut if np.isfinite(cut) else 0.5
            data = scored(predictions, test.table, condition, attributes, cut)
            found[condition] = reading_audits(
                data, attributes, own.confidence, own.secondary_below, own.bootstrap
            )
        ruler = dataset_of(self.settings.dataset).ruler
        if ruler is not None:
            found[ruler.condition] |= self._measured(ruler, test, images, real)
        return found

    def _measured(self, ruler: Ruler, test: Cohort, images: Any, real: bool) -> dict[str, Audit]:
        """The ruler's quantity on images against the prompted level, or against the truth."""
        own, attributes = self.settings.audit, self.cohort.attribute_levels
        conditions = self.cohort.condition_levels
        groups = group_units(
            test.table, {**attributes, ruler.condition: conditions[ruler.condition]}
        )
        measured = ruler.measure(images)
        asked = test.prompted_codes()[:, list(conditions).index(ruler.condition)]
        sizes = (own.confidence, own.secondary_below)
        found = measured_audits(ruler, measured, asked, groups, attributes, *sizes)
        if real:
            truth = ruler.truth(self.cohort.root, test.table["image"].tolist())
            found |= ruler_audits(measured, truth, groups, attributes, *sizes)
        return found

    def rows(self, found: Found, labels: Labels) -> list[pd.DataFrame]:
        """Tidy rows of what was read, a table per condition."""
        tidy = {condition: by_group(own) for condition, own in found.items()}
        ruler = dataset_of(self.settings.dataset).ruler
        # said also within a prompted level; an AUC or R^2 has nothing to tell apart there
        within = [ruler.mean, f"{ruler.key}_agreement", "ruler_bias"] if ruler else []
        return [
            labelled(
                rows[(rows["attribute"] != condition) | rows["metric"].isin(within)],
                {**labels, "condition": condition},
            )
            for condition, rows in tidy.items()
        ]


def shown_lines(settings: Settings, cohort: Cohort) -> list[tuple[str, str]]:
    """(condition, metric) that the picture has a row of panels for."""
    lines = [(condition, "auc") for condition in cohort.condition_levels]
    ruler = dataset_of(settings.dataset).ruler
    return [*lines, (ruler.condition, f"{ruler.key}_agreement")] if ruler else lines


def ruler_rows(shown: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Rows of tab_shown about the ruler itself and the mean that it measures; none without one."""
    ruler = dataset_of(settings.dataset).ruler
    names = ["ruler_r2", "ruler_bias", "ruler_lost", ruler.mean] if ruler else []
    return tables.pick(shown, names, "metric")


# -- demographic probe -----------------------------------------------------------------------


def collect_probe(
    settings: Settings, layout: Places, cohort: Cohort, pictures: Pictures
) -> pd.DataFrame:
    """Can demographic levels be read from real images, and from generated ones?

    Linear probes in the encoder's features and in texture, which no label has shaped; trained on
    training images of the same source ("own") or on real ones, tested on test images.

    Returns
    -------
    DataFrame
        dataset, method, features, trained_on, attribute, level, metric ("probe_auc"; of
        generated images also "probe_auc_change", against real ones probed by real ones), seeds,
        n, value, low, high, note.
    """
    encoder, parts = load_encoder(settings, layout, cohort), []
    for name in SPACES:
        extractor = make_extractor(name, classifier=encoder)
        parts += Probe(settings, layout, cohort, extractor).rows(pictures)
    table = over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    return tables.with_notes(table, tables.gate_notes(layout))


@dataclass(frozen=True)
class Probe:
    """Linear probes of all attributes in one feature space."""

    settings: Settings
    layout: Places
    cohort: Cohort
    extractor: Extractor

    def rows(self, pictures: Pictures) -> list[pd.DataFrame]:
        """Rows of real images, then of every method and seed, by what the probe was trained on."""
        train, test = self._features(pictures.train), self._features(pictures.test)
        real = self._estimates(train, test)
        parts = [self._tidy(real, None, labels, "real") for labels in pictures.real_labels()]
        both = zip(pictures.generated("train"), pictures.generated("test"), strict=True)
        for (labels, learned), (_, images) in both:
            own, made = self._features(learned), self._features(images)
            parts.append(self._tidy(self._estimates(own, made), real, labels, "own"))
            parts.append(self._tidy(self._estimates(train, made), real, labels, "real"))
        return parts

    def _features(self, images: Any) -> Floats:
        found = extract(self.extractor, images, cache=self.layout.features / "cache")
        return found.astype(np.float64)

    def _estimates(self, train: Floats, test: Floats) -> dict[tuple[str, str], Estimate]:
        """Probes of all attributes, trained and tested on features of images of the prompts."""
        learned, asked = (self._codes(split) for split in ("train", "test"))
        unit = group_units(self.cohort.included().split("test").table, {}).unit
        found: dict[tuple[str, str], Estimate] = {}
        for k, (name, levels) in enumerate(self.cohort.attribute_levels.items()):
            scores = probe_scores(train, learned[:, k], test, name, levels)
            found |= probe_estimates(scores, asked[:, k], unit, name, levels)
        return found

    def _codes(self, split: str) -> Ints:
        return self.cohort.included().split(split).codes()

    def _tidy(
        self,
        found: dict[tuple[str, str], Estimate],
        beside: dict[tuple[str, str], Estimate] | None,
        labels: Labels,
        trained_on: str,
    ) -> pd.DataFrame:
        own = {**labels, "features": self.extractor.name, "trained_on": trained_on}
        return labelled(probe_rows(found, beside, self.settings.audit.confidence), own)


def harm_scalars(harm: pd.DataFrame, probe: pd.DataFrame, condition: str) -> dict[str, Any]:
    """What 12 records: overall false-negative rate of the primary condition, and macro probe AUC.

    Parameters
    ----------
    harm, probe : DataFrame
        tab_harm and tab_probe.
    condition : str
    """
    missed = harm[(harm["condition"] == condition) & (harm["metric"] == "fnr")]
    missed = missed[missed["attribute"] == "overall"]
    macro = probe[(probe["metric"] == "probe_auc") & (probe["level"] == "all")]
    found = {f"fnr_{row.method}_seeds{row.seeds}": row.value for row in missed.itertuples()}
    return found | {
        f"probe_{row.attribute}_{row.features}_{row.method}_by_{row.trained_on}_seeds{row.seeds}": (
            row.value
        )
        for row in macro.itertuples()
    }
