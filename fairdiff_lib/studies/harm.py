"""12: may a classifier's probabilities be believed, who is missed, and what do images show?

From the predictions and images that the runs left on disk to tables. A classifier of real images
reads generated ones, and what it reads is compared with the prompt. It errs on real images too, so
those stand beside, and the difference between the two is what the generator did. In simulated data
a quantity is also measured from the picture. A linear probe asks whether the group can be read: a
generator that exaggerates what it takes for a group's looks is easier to read than reality; one
that draws everybody alike can't be read. The probe also sees what goes through the conditions that
are more frequent in a group: it says that a group can be told, not by what.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairdiff_lib.audit.audit import (
    Audit,
    Labelled,
    contrast_table,
    differences,
    exploratory_audits,
    labelled,
    mean_metric,
    means_over_seeds,
    rows_metric,
)
from fairdiff_lib.audit.classifiers import CONTRASTED, Scored, classification_audits, scored
from fairdiff_lib.audit.contrasts import GROUP_COLUMNS
from fairdiff_lib.audit.estimate import (
    Bools,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    difference,
    group_units,
)
from fairdiff_lib.audit.estimators import auc, macro_auc
from fairdiff_lib.audit.harm import (
    confusion_rows,
    group_thresholds,
    harm_audits,
    harm_table,
    reliability_rows,
    roc_rows,
)
from fairdiff_lib.audit.kid import as_features
from fairdiff_lib.audit.quality import prompt_auc, reconstruction_r2
from fairdiff_lib.audit.seeds import over_seeds
from fairdiff_lib.classify.features import Extractor, Images, extract
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.runs import (
    Run,
    load_reader,
    notes_of,
    read_back,
    read_runs,
    study_extractors,
)
from fairdiff_lib.data.cohort import Cohort, Ruler
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk.tables import gate_notes, with_notes
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import name_of
from fairdiff_lib.study import Study


@dataclass(frozen=True)
class Harm:
    """What 12 writes and shows.

    Every table begins with dataset, method ("real" or a method) and seeds, then what names the
    number, then attribute, level, metric, n, value, low, high, note. Contrasts end with
    ``contrasts.CONTRAST_COLUMNS`` and are of the mean of the seeds' models, so that a subject
    counts once; all are exploratory.
    """

    runs: list[Run]  # the classifiers' predictions
    table: pd.DataFrame  # calibration and harm of every classifier and condition
    contrasts: pd.DataFrame  # of what 07's don't have
    # "roc", "reliability", "confusion" of the first classifier and seed of every source, for the
    # primary condition: the columns of ``audit.harm``'s rows
    curves: dict[str, pd.DataFrame]
    shown: pd.DataFrame  # what generated images show against what was asked, beside real ones
    shown_contrasts: pd.DataFrame
    ruler: pd.DataFrame  # rows of ``shown`` measured from a simulated picture; none of real data
    probe: pd.DataFrame  # can the group be read from an image?
    notes: list[str]  # gates of 05 that failed, classifiers that tell nobody apart
    notes_ill: list[str]  # the same after who is ill, where a condition has more than two levels

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {
            "tab_harm": self.table,
            "tab_harm_contrasts": self.contrasts,
            "tab_shown": self.shown,
            "tab_shown_contrasts": self.shown_contrasts,
            "tab_probe": self.probe,
        }

    def scalars(self, condition: str) -> dict[str, Any]:
        """What 12 records: a condition's overall false-negative rate, and macro probe AUC."""
        missed = self.table[self.table["condition"] == condition]
        missed = missed[(missed["metric"] == "fnr") & (missed["attribute"] == "overall")]
        found = {f"fnr_{row.method}_seeds{row.seeds}": row.value for row in missed.itertuples()}
        macro = self.probe[(self.probe["metric"] == "probe_auc") & (self.probe["level"] == "all")]
        for row in macro.itertuples():
            name = f"probe_{row.attribute}_{row.features}_{row.method}_by_{row.trained_on}"
            found[f"{name}_seeds{row.seeds}"] = row.value
        return found


def measure_harm(study: Study) -> Harm:
    """Everything of 12. Nothing is trained where 05 and 07 have run."""
    runs, pictures = read_runs(study), read_pictures(study)
    table, contrasts = finish(study, *_harm(study, runs))
    shown, lost = finish(study, *measure_shown(study, pictures))
    values = over_seeds(measure_probe(study, pictures), study.settings.audit.confidence)
    probe, notes = with_notes(values, gate_notes(study.places)), notes_of(study, runs)
    drawn, ruler = _curves(study, runs), ruler_rows(shown, study.settings.dataset)
    ill = [*_ill(study.cohort), *notes]
    return Harm(runs, table, contrasts, drawn, shown, lost, ruler, probe, notes, ill)


def finish(
    study: Study, parts: Sequence[pd.DataFrame], audits: Labelled
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values with their means over seeds, contrasts of these means; with the gates' notes."""
    notes = gate_notes(study.places)
    values = over_seeds(pd.concat(parts, ignore_index=True), study.settings.audit.confidence)
    contrasts = contrast_table(means_over_seeds(audits))
    return with_notes(values, notes), with_notes(contrasts, notes)


def _harm(
    study: Study, runs: Sequence[Run]
) -> tuple[list[pd.DataFrame], list[tuple[Mapping[str, Any], Audit]]]:
    own, cohort = study.settings.audit, study.cohort
    parts: list[pd.DataFrame] = []
    audits: list[tuple[Mapping[str, Any], Audit]] = []
    for run in runs:
        for condition, levels in cohort.condition_levels.items():
            test, validation = (run.scored(cohort, condition, name) for name in ("test", "val"))
            primary = condition == cohort.spec.primary_condition
            if primary:
                test, validation = test.ill, validation.ill
            two = primary or len(levels) == 2
            cuts = group_thresholds(validation, replicates=own.bootstrap) if two else None
            levels_of = cohort.attribute_levels
            found = harm_audits(test, cuts, levels_of, bootstrap=own.bootstrap, **own.sizes)
            labels = {**run.labels(), "condition": condition}
            rows = with_notes(harm_table(found, cuts), _ill(cohort) if primary else [])
            parts.append(labelled(rows, labels))
            audits += [(labels, one) for name, one in found.items() if name not in CONTRASTED]
    return parts, audits


def _ill(cohort: Cohort) -> list[str]:
    """Who is ill, where the primary condition has more levels than two; nothing where it has two"""
    name = cohort.spec.primary_condition
    first, *others = cohort.spec.levels(name)
    return [f"any other {name_of(name).lower()} than {first} counts as ill"] * (len(others) > 1)


def _curves(study: Study, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Rows of the pictures, of the primary condition."""
    own, condition = study.settings.audit, study.cohort.spec.primary_condition
    names = study.cohort.condition_levels[condition]
    parts: dict[str, list[pd.DataFrame]] = {"roc": [], "reliability": [], "confusion": []}
    for run in runs:
        if (run.seed, run.classifier) != (runs[0].seed, runs[0].classifier):
            continue
        data = run.scored(study.cohort, condition)
        found = {
            "roc": roc_rows(data.ill, own.bootstrap, confidence=own.confidence),
            "reliability": reliability_rows(data.ill, confidence=own.confidence),
            "confusion": confusion_rows(data, names, confidence=own.confidence),
        }
        for name, rows in found.items():
            parts[name].append(labelled(rows, run.labels()))
    return {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}


# -- what an image shows -------------------------------------------------------------------------
AGREEMENT = "agreement"  # the reader's accuracy, with the prompt as the truth
CHANGE = "_change"
PROBE = "probe_auc"
STRENGTH = 1.0  # inverse of the ridge penalty on standardised features, scikit-learn's own

Labels = dict[str, Any]
Found = dict[str, dict[str, Audit]]  # condition to metric to audit
Key = tuple[str, str]


@dataclass(frozen=True)
class Pictures:
    """The study's images: real ones, uint8 [N, 3, S, S], read once; generated ones when asked."""

    study: Study
    train: Any
    test: Any

    def generated(self, split: str) -> Iterator[tuple[Labels, Any]]:
        """Images of every method and seed for the prompts of a split, with their labels."""
        settings = self.study.settings
        for method, seed in settings.runs:
            place = self.study.places.generated(method, seed)
            labels = {"dataset": settings.dataset, "method": method, "seed": seed}
            yield labels, load_generated(place, split)

    def real_labels(self) -> list[Labels]:
        """Labels of the real images: of every seed, as a mean over seeds stands beside means."""
        names = {"dataset": self.study.settings.dataset, "method": "real"}
        return [{**names, "seed": seed} for seed in self.study.settings.seeds]


def read_pictures(study: Study) -> Pictures:
    """Real training and test images; generated ones are read when they are asked for."""
    kept, size = study.cohort.included(), study.settings.model.image_size
    return Pictures(study, *(kept.split(name).load_images(size) for name in ("train", "test")))


# -- asked against shown ---------------------------------------------------------------------


def measure_shown(
    study: Study, pictures: Pictures
) -> tuple[list[pd.DataFrame], list[tuple[Mapping[str, Any], Audit]]]:
    """What is read from generated test images against what was asked, beside real images.

    The reader is one classifier of all conditions, trained on real images.

    Returns rows (dataset, method, seed, condition, then ``GROUP_COLUMNS``), and labelled audits of
    generated minus real.
    """
    reader = Reader(study, load_reader(study))
    real = reader(pictures.test, real=True)
    parts = [table for labels in pictures.real_labels() for table in reader.rows(real, labels)]
    audits: list[tuple[Mapping[str, Any], Audit]] = []
    for labels, images in pictures.generated("test"):
        found = reader(images)
        changed = {
            key: {f"{name}{CHANGE}": change(one, real[key][name]) for name, one in own.items()}
            for key, own in found.items()
        }
        parts += [*reader.rows(found, labels), *reader.rows(changed, labels)]
        for condition, own in changed.items():
            audits += [({**labels, "condition": condition}, one) for one in own.values()]
    return parts, audits


@dataclass(frozen=True)
class Reader:
    """Reads images of the test prompts: by a classifier of real images, and by measuring."""

    study: Study
    classifier: Classifier

    def __call__(self, images: Any, real: bool = False) -> Found:
        """Audits of what the images show; of real ones also of the measurement itself."""
        cohort, own = self.study.cohort, self.study.settings.audit
        test, attributes = cohort.included().split("test"), cohort.attribute_levels
        predictions = read_back(self.classifier, test, images)
        found: Found = {}
        for condition in cohort.condition_levels:
            cut = self.classifier.thresholds.get(condition, 0.5)
            cut = cut if np.isfinite(cut) else 0.5
            data = scored(predictions, test.table, condition, attributes, cut)
            found[condition] = reading_audits(
                data, attributes, bootstrap=own.bootstrap, **own.sizes
            )
        ruler = dataset_of(self.study.settings.dataset).ruler
        if ruler is not None:
            found[ruler.condition] |= self._measured(ruler, images, real)
        return found

    def _measured(self, ruler: Ruler, images: Any, real: bool) -> dict[str, Audit]:
        """The ruler's quantity on images against the prompted level, or against the truth."""
        own, cohort = self.study.settings.audit, self.study.cohort
        test, attributes = cohort.included().split("test"), cohort.attribute_levels
        conditions = cohort.condition_levels
        within = {ruler.condition: conditions[ruler.condition]}
        groups = group_units(test.table, {**attributes, **within})
        measured = ruler.measure(images)
        asked = test.prompted_codes()[:, list(conditions).index(ruler.condition)]
        found = measured_audits(ruler, measured, asked, groups, attributes, **own.sizes)
        if real:
            truth = ruler.truth(cohort.root, test.table["image"].tolist())
            found |= ruler_audits(measured, truth, groups, attributes, **own.sizes)
        return found

    def rows(self, found: Found, labels: Labels) -> list[pd.DataFrame]:
        """Tidy rows of what was read, a table per condition."""
        ruler = dataset_of(self.study.settings.dataset).ruler
        # said also within a prompted level; an AUC or R^2 has nothing to tell apart there
        within = [ruler.mean, f"{ruler.key}_{AGREEMENT}", "ruler_bias"] if ruler else []
        parts = []
        for condition, own in found.items():
            rows = pd.concat([one.by_group for one in own.values()], ignore_index=True)
            rows = rows[(rows["attribute"] != condition) | rows["metric"].isin(within)]
            parts.append(labelled(rows, {**labels, "condition": condition}))
        return parts


def ruler_rows(shown: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Rows of tab_shown about the ruler itself and the mean that it measures; none without one."""
    ruler = dataset_of(dataset).ruler
    names = ["ruler_r2", "ruler_bias", "ruler_lost", ruler.mean] if ruler else []
    return shown[shown["metric"].isin(names)].reset_index(drop=True)


def reading_audits(data: Scored, attributes: Levels, **sizes: Any) -> dict[str, Audit]:
    """Agreement and AUC of what a classifier reads with what was asked, the truth of ``data``."""
    found = classification_audits(data, attributes, names=("accuracy", "auc"), **sizes)
    return {AGREEMENT: replace(found["accuracy"], metric=AGREEMENT), "auc": found["auc"]}


def change(generated: Audit, real: Audit) -> Audit:
    """Generated minus real, by group, on the same subjects: what the generator lost or added.

    Its contrasts are differences of differences: does one group's prompt get lost more than
    another's? Above 0, generated images show the condition more plainly than real ones do.
    """
    metric, gaps = f"{generated.metric}{CHANGE}", differences(generated, real)
    return Audit(metric, gaps, generated.design, generated.features)


# -- a quantity measured from the image ------------------------------------------------------


def ruler_audits(
    measured: Floats, truth: Floats, groups: Groups, attributes: Levels, **sizes: Any
) -> dict[str, Audit]:
    """Is the measurement itself to be believed, and equally for all? Against the simulator's truth.

    Of a ruler's quantity [N] on real (simulated) images, NaN where nothing could be measured:
    ruler_r2 (about the line of identity; an image without a measurement counts as the mean),
    ruler_bias (mean of measured minus true), ruler_lost (share without one).
    """
    lost = np.isnan(measured).astype(np.float64)
    agrees = rows_metric(lambda rows: reconstruction_r2(measured[rows], truth[rows]))
    bias, share = mean_metric(measured - truth), mean_metric(lost, bounded=True)
    metrics = {"ruler_r2": agrees, "ruler_bias": bias, "ruler_lost": share}
    return exploratory_audits(metrics, groups, attributes, ("ruler_bias", "ruler_lost"), **sizes)


def measured_audits(
    ruler: Ruler, measured: Floats, asked: Ints, groups: Groups, attributes: Levels, **sizes: Any
) -> dict[str, Audit]:
    """A ruler's quantity [N] against the prompted level [N], which rises with it.

    With the ruler's key, as in cup_disc_auc: ``_auc`` (the largest level against the smallest, as
    the gate has it), ``_agreement`` (share that measures as the level that was asked for; without
    a measurement: doesn't), ``_lost``; and the mean under the ruler's name, as cup_disc_ratio.
    """
    cuts = ruler.cuts
    if list(cuts) != sorted(set(cuts)):
        raise InputError(f"{ruler.name}: cuts {list(cuts)}; expected them to rise")
    if len(asked) and not 0 <= asked.min() <= asked.max() <= len(cuts):
        raise InputError(
            f"{ruler.name}: prompted levels {asked.min()} to {asked.max()}; "
            f"expected 0 to {len(cuts)} for {len(cuts)} cut(s)"
        )
    lost, level = np.isnan(measured), np.digitize(measured, ruler.cuts)
    shows = ((level == asked) & ~lost).astype(np.float64)
    ends = np.isin(asked, (0, len(ruler.cuts)))

    def largest_against_smallest(rows: Ints) -> float:
        chosen = rows[ends[rows]]
        return prompt_auc(measured[chosen], asked[chosen] > 0)

    metrics = {
        f"{ruler.key}_auc": rows_metric(largest_against_smallest),
        f"{ruler.key}_{AGREEMENT}": mean_metric(shows, bounded=True),
        f"{ruler.key}_lost": mean_metric(lost.astype(np.float64), bounded=True),
        ruler.mean: mean_metric(measured),
    }
    low = (f"{ruler.key}_lost", ruler.mean)
    return exploratory_audits(metrics, groups, attributes, low, **sizes)


# -- can the group be read from an image? ----------------------------------------------------


def measure_probe(study: Study, pictures: Pictures) -> pd.DataFrame:
    """Can demographic levels be read from real images, and from generated ones?

    Linear probes in both of the audit's feature spaces; trained on training images of the same
    source ("own") or on real ones, tested on test images.

    Returns dataset, method, seed, features, trained_on, then ``GROUP_COLUMNS``. Metrics: probe_auc;
    of generated images also probe_auc_change, against real ones probed by real ones.
    """
    parts = []
    for extractor in study_extractors(study):
        parts += _probe_rows(study, extractor, pictures)
    return pd.concat(parts, ignore_index=True)


def _probe_rows(study: Study, extractor: Extractor, pictures: Pictures) -> list[pd.DataFrame]:
    """Rows of real images, then of every method and seed, by what the probe was trained on."""

    def features(images: Any) -> Floats:
        found = extract(extractor, images, cache=study.places.features)
        return found.astype(np.float64)

    def tidy(found: Probed, beside: Probed | None, labels: Labels, by: str) -> pd.DataFrame:
        own = {**labels, "features": extractor.name, "trained_on": by}
        return labelled(probe_rows(found, beside, study.settings.audit.confidence), own)

    train, test = features(pictures.train), features(pictures.test)
    real = _probed(study, train, test)
    parts = [tidy(real, None, labels, "real") for labels in pictures.real_labels()]
    both = zip(pictures.generated("train"), pictures.generated("test"), strict=True)
    for (labels, learned), (_, images) in both:
        own, made = features(learned), features(images)
        parts.append(tidy(_probed(study, own, made), real, labels, "own"))
        parts.append(tidy(_probed(study, train, made), real, labels, "real"))
    return parts


Probed = dict[Key, Estimate]


def _probed(study: Study, train: Floats, test: Floats) -> Probed:
    """Probes of all attributes, trained and tested on features of images of the prompts."""
    kept = study.cohort.included()
    found: Probed = {}
    learned, asked = (kept.split(split).codes() for split in ("train", "test"))
    unit = group_units(kept.split("test").table, {}).unit
    for k, (name, levels) in enumerate(study.cohort.attribute_levels.items()):
        scores = probe_scores(train, learned[:, k], test, name, levels)
        found |= probe_estimates(scores, asked[:, k], unit, name, levels)
    return found


def probe_scores(
    train: Floats, codes: Ints, test: Floats, attribute: str, levels: Sequence[str]
) -> Floats:
    """Probability of every level for test images, by a logistic regression of features.

    Features [T, D] and [N, D] are standardised on the training images; levels (``codes`` [T]) weigh
    alike whatever their size. Returns [N, K]; refused are a level without a training image, and
    features of other shape or not finite.
    """
    x = as_features(train, "features of training images", len(codes))
    y = as_features(test, "features of test images")
    missing = [name for k, name in enumerate(levels) if not (codes == k).any()]
    if missing:
        raise InputError(
            f"probe of {attribute}: no training image of {', '.join(missing)}; "
            "expected at least one of every level"
        )
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"probe of {attribute}: {y.shape[1]} features of test images; expected {x.shape[1]}"
        )
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(x, codes)
        except ConvergenceWarning as error:
            raise InputError(f"probe of {attribute}: the regression did not converge") from error
    return np.asarray(model.predict_proba(y), dtype=np.float64)


def probe_estimates(
    scores: Floats, codes: Ints, unit: Ints, attribute: str, levels: Sequence[str]
) -> Probed:
    """AUC of a probe's scores [N, K]: macro ("all"), and of each of several levels."""
    everyone: Bools = np.ones(int(unit.max()) + 1 if len(unit) else 0, dtype=bool)
    found = {(attribute, "all"): macro_auc(codes, scores, unit, everyone)}
    for k, level in enumerate(levels if len(levels) > 2 else ()):  # of two, both are the same
        found[attribute, level] = auc(codes == k, scores[:, k], unit, everyone)
    return found


def probe_rows(
    found: Probed, beside: Probed | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Rows of a probe (0.5: nothing is read), and its change from ``beside``: ``GROUP_COLUMNS``."""
    named = [(PROBE, found)]
    if beside is not None:
        gaps = {key: difference(own, beside[key]) for key, own in found.items()}
        named.append((f"{PROBE}{CHANGE}", gaps))
    rows = [
        (*key, metric, one.n, one.value, *one.interval(confidence), one.note)
        for metric, estimates in named
        for key, one in estimates.items()
    ]
    return pd.DataFrame(rows, columns=list(GROUP_COLUMNS))


# -- what pictures truly show, whatever a distance says --------------------------------------
# How sharp a picture is, how many narrow dark lines it has (vessels, hairs), and whether what its
# prompt asks for measures as asked. Of simulated patients this says who is served worse before any
# audit does.

SHARPNESS, LINES = "sharpness_change", "dark_lines_change"
COLUMNS = ("metric", "attribute", "level", "reference", "n", "value", "low", "high")
LINE = 5  # pixels: wider than a vessel at 64 px


def sharpness(images: Images) -> Floats:
    """Standard deviation, in grey levels, of what a blur of 1 pixel takes off.  # [N]"""
    grey = images.mean(axis=1)
    return np.asarray((grey - ndimage.gaussian_filter(grey, (0, 1, 1))).std(axis=(1, 2)))


def dark_lines(images: Images) -> Floats:
    """Mean depth, in grey levels, of what is darker than its surroundings and narrow.  # [N]"""
    grey = images.mean(axis=1)
    return np.asarray((ndimage.grey_closing(grey, (1, LINE, LINE)) - grey).mean(axis=(1, 2)))


def truth_audits(study: Study, real: Images, made: Images) -> list[Audit]:
    """Sharpness and dark lines against the same patient's real image; is what was asked shown?

    Images uint8 [N, 3, H, W] of the included test rows, in their order. Contrasts are between the
    levels of every attribute, and exploratory.
    """
    test, ruler = study.cohort.included().split("test"), study.entry.ruler
    attributes, sizes = test.attribute_levels, study.settings.audit.sizes
    groups = group_units(test.table, attributes)
    metrics = {
        name: mean_metric(look(made) - look(real))
        for name, look in ((SHARPNESS, sharpness), (LINES, dark_lines))
    }
    found = exploratory_audits(metrics, groups, attributes, **sizes)
    if ruler is not None:
        asked = test.prompted_codes()[:, list(test.condition_levels).index(ruler.condition)]
        shows = measured_audits(ruler, ruler.measure(made), asked, groups, attributes, **sizes)
        found[AGREEMENT] = shows[f"{ruler.key}_{AGREEMENT}"]
    return list(found.values())


def as_rows(audits: Sequence[Audit]) -> pd.DataFrame:
    """Every group's value, and every contrast with its ``reference``, in ``COLUMNS``."""
    parts = []
    for one in audits:
        groups = one.by_group.assign(reference="")
        parts += [groups[list(COLUMNS)], one.contrasts[list(COLUMNS)]]
    return pd.concat(parts, ignore_index=True)


def fidelity_table(study: Study) -> pd.DataFrame:
    """tab_fidelity: the truth behind every method's test images, the mean over its seeds.

    dataset, method, seeds, then ``COLUMNS``.
    """
    real = study.cohort.included().split("test").load_images(study.settings.model.image_size)
    found: list[tuple[Mapping[str, Any], Audit]] = []
    for method, seed in study.settings.runs:
        made = load_generated(study.places.generated(method, seed), "test")
        own = {"dataset": study.settings.dataset, "method": method, "seed": seed}
        found += [(own, one) for one in truth_audits(study, real, made)]
    parts = [labelled(as_rows([one]), own) for own, one in means_over_seeds(found)]
    return pd.concat(parts, ignore_index=True)
