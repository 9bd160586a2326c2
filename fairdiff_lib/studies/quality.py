"""05: the audit of every run of a study, from images on disk to the tables of image quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from fairdiff_lib.audit.audit import (
    Audit,
    Estimator,
    audit,
    kid_metric,
    labelled,
    mean_metric,
)
from fairdiff_lib.audit.contrasts import DIRECTIONS, EXPLORATORY, SENSITIVITY, equity_rows
from fairdiff_lib.audit.estimate import OVERALL, Floats, Groups, group_units
from fairdiff_lib.audit.gates import gates
from fairdiff_lib.audit.kid import Kernel, fit_kernel, shares, standardised_kid
from fairdiff_lib.audit.quality import COLUMNS, quality_table
from fairdiff_lib.audit.seeds import over_seeds
from fairdiff_lib.audit.shrinkage import crossed
from fairdiff_lib.classify.features import Extractor, Scale, extract, make_extractor
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.runs import load_encoder, load_extractor
from fairdiff_lib.data import assets
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model.loss import denoising_losses_at
from fairdiff_lib.model.pipeline import load_pipeline, mean_latents, reconstruct
from fairdiff_lib.model.sample import load_generated, load_run
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.sim.simulators import Ruler, ruler_for
from fairdiff_lib.studies.audit_tables import (
    Named,
    Run,
    encoder_table,
    study_contrasts,
    study_differences,
    study_intersections,
    with_means,
)
from fairdiff_lib.studies.verdict.protocol import Protocol
from fairdiff_lib.study import Study

BLUR = 1 / 32  # standard deviation of the blurred control, fraction of the image's side


@dataclass(frozen=True)
class QualityResult:
    """Quality by group, and whether the numbers may be believed.

    Attributes
    ----------
    table : DataFrame
        dataset, method, seeds, attribute, level, metric, features, n, value, low, high, note.
    contrasts : DataFrame
        dataset, method, seeds ("0", or "0,1,2": the mean of these models), then
        ``contrasts.CONTRAST_COLUMNS``.
    differences : DataFrame
        dataset, then ``seeds.CHANGE_COLUMNS``, role, p_adjusted: methods against the baseline.
    intersections : DataFrame
        As ``table``; metrics kid and kid_shrunk.
    encoder : DataFrame
        How well the encoder reads each group: see ``audit_tables.encoder_table``.
    gates : DataFrame
        dataset, method, seed, gate, n, value, threshold, comparison, passed, note.
    notes : list of str
        A line for each gate that failed.
    audits : dict of (method, seeds) to list of Audit
        Of every run and of each method's mean over seeds, the primary metric first.
    """

    table: pd.DataFrame
    contrasts: pd.DataFrame
    differences: pd.DataFrame
    intersections: pd.DataFrame
    encoder: pd.DataFrame
    gates: pd.DataFrame
    notes: list[str]
    audits: Named

    def main(self, features: str) -> pd.DataFrame:
        """Rows of the table in the primary feature space, or that rest on none."""
        return self.table[self.table["features"].isin([features, ""])]


# -- what is fixed before any generated image is looked at -----------------------------------


@dataclass(frozen=True)
class Space:
    """A feature space with its scale and kernel, all fixed on real training images."""

    extractor: Extractor
    cache: Path
    scale: Scale
    kernel: Kernel
    train: Floats  # [T, D]
    test: Floats  # [N, D]

    def of(self, images: Any) -> Floats:  # uint8 [N, 3, H, W] => [N, D]
        """Features of images."""
        return self.scale(extract(self.extractor, images, cache=self.cache))


def real_space(extractor: Extractor, cache: Path, train_images: Any, test_images: Any) -> Space:
    """Scale and bandwidth from the training images; features of both splits."""
    train = extract(extractor, train_images, cache=cache)
    scale = Scale.fit(train)
    test = scale(extract(extractor, test_images, cache=cache))
    return Space(extractor, cache, scale, fit_kernel(scale(train)), scale(train), test)


def feature_spaces(
    settings: Settings, layout: Places, encoder: Classifier, train_images: Any, test_images: Any
) -> tuple[Space, ...]:
    """The primary feature space, then the sensitivity's where there is one."""
    own = settings.audit
    extractors = [load_extractor(settings, encoder)]
    if own.sensitivity not in ("", own.features):
        extractors.append(make_extractor(own.sensitivity, own.sensitivity_revision, encoder))
    cache = layout.features / "cache"
    return tuple(real_space(one, cache, train_images, test_images) for one in extractors)


@dataclass(frozen=True)
class Fixed:
    """The real side of a study.

    Attributes
    ----------
    spaces : tuple of Space
        The primary one, then the sensitivity's where there is one.
    blurred : float64 [N, D]
        The blurred control in the primary space.
    test : DataFrame [N]
        Test rows with a column for the intersection of all attributes.
    groups : Groups
        Attributes, prompted conditions and intersections.
    crossing : dict
        Name of the intersections to their levels.
    reading : dict of str to float64 [N, K]
        The encoder's probabilities for the real test images.
    latents : float32 [N, C, h, w] or None
        Of the real test images; None where no denoising loss is wanted.
    reconstruction : (ruler, measured, true) or None
        The ruler's quantity on the test images after the VAE; simulated data only.
    """

    settings: Settings
    cohort: Cohort
    rule: Protocol
    encoder: Classifier
    spaces: tuple[Space, ...]
    blurred: Floats
    test: pd.DataFrame
    groups: Groups
    crossing: dict[str, list[str]]
    reading: dict[str, Any]
    latents: Any
    reconstruction: Any


def fix(settings: Settings, layout: Places, cohort: Cohort, rule: Protocol) -> Fixed:
    """Encoder, feature spaces and groups of a study: found again, or made from real images."""
    encoder = load_encoder(settings, layout, cohort)
    kept, size, own = cohort.included(), settings.model.image_size, settings.audit
    images = [kept.split(name).load_images(size) for name in ("train", "test")]
    spaces = feature_spaces(settings, layout, encoder, *images)
    test = kept.split("test").table
    crossing: dict[str, list[str]] = {}
    if len(assets.attribute_levels(cohort)) > 1:
        test, crossing = crossed(test, assets.attribute_levels(cohort))
    base = load_pipeline(layout.base / "pipeline")  # every run keeps its VAE
    return Fixed(
        settings,
        cohort,
        rule,
        encoder,
        spaces,
        spaces[0].of(blurred(images[1])),
        test,
        group_units(test, {**assets.all_levels(cohort), **crossing}),
        crossing,
        encoder.predict(images[1]),
        mean_latents(base, images[1]) if own.loss_timesteps else None,
        _reconstruction(base, cohort, images[1], ruler_for(settings.dataset)),
    )


def blurred(images: Any) -> Any:
    """Images after a Gaussian blur: a control that must score worse.  # uint8 [N, 3, H, W]"""
    reach = BLUR * images.shape[-1]
    done = [
        np.asarray(Image.fromarray(np.moveaxis(x, 0, -1)).filter(ImageFilter.GaussianBlur(reach)))
        for x in images
    ]
    return np.moveaxis(np.stack(done), -1, 1)


def _reconstruction(base: Any, cohort: Cohort, test_images: Any, ruler: Ruler | None) -> Any:
    """(ruler, measured, true) of simulated test images after the VAE; None of real ones."""
    if ruler is None:
        return None
    seen = reconstruct(base.vae, test_images)
    names = cohort.included().split("test").table["image"].tolist()
    return ruler, ruler.measure(seen), ruler.truth(cohort.root, names)


# -- one run ---------------------------------------------------------------------------------


def run_audits(fixed: Fixed, generated: Sequence[Floats], losses: Floats | None) -> list[Audit]:
    """Audits of one run, the primary metric first.

    KID; KID with every group reweighted to the pooled shares of the primary condition, so that a
    group with more disease isn't called worse for it; KID in the second feature space; the
    denoising loss.

    Parameters
    ----------
    generated : sequence of float64 [N, D]
        Features of the run's test images, one array per space.
    losses : float64 [N] or None
        Denoising loss of every real test image.
    """
    main = fixed.spaces[0]
    found = [_audit(fixed, "kid", kid_metric(main.kernel, main.test, generated[0]), main)]
    found.append(_audit(fixed, "kid_standardised", _at_common_mix(fixed, generated[0]), main))
    for space, own in zip(fixed.spaces[1:], generated[1:], strict=True):
        metric = kid_metric(space.kernel, space.test, own)
        found.append(_audit(fixed, "kid", metric, space).with_role(SENSITIVITY))
    if losses is not None:
        found.append(_audit(fixed, "denoising_loss", mean_metric(losses)))
    return found


def _at_common_mix(fixed: Fixed, generated: Floats) -> Estimator:
    main, name = fixed.spaces[0], fixed.cohort.spec.primary_condition
    strata = group_units(fixed.test, {name: fixed.cohort.spec.levels(name)})
    return lambda groups: standardised_kid(
        main.kernel, main.test, generated, groups, strata, shares(strata)
    )


def _audit(fixed: Fixed, metric: str, estimator: Estimator, space: Space | None = None) -> Audit:
    """An audit by the study's settings; exploratory until it is declared otherwise."""
    own, attributes = fixed.settings.audit, assets.attribute_levels(fixed.cohort)
    whole = metric == "kid"  # the others are shown by attribute only
    return audit(
        estimator,
        fixed.groups if whole else group_units(fixed.test, attributes),
        attributes,
        metric=metric,
        confidence=own.confidence,
        secondary_below=own.secondary_below,
        role=EXPLORATORY,
        features=space.extractor.name if space else "",
    )


def run_table(
    fixed: Fixed, images: Any, generated: Floats, audits: Sequence[Audit]
) -> pd.DataFrame:
    """Every metric of one run with its equity summaries, in the columns of T2."""
    attributes, main = assets.attribute_levels(fixed.cohort), fixed.spaces[0]
    levels = assets.all_levels(fixed.cohort)
    table = quality_table(
        main.test,
        generated,
        fixed.test,
        levels,
        main.kernel,
        features=main.extractor.name,
        labels={},
        train=(main.train, fixed.cohort.included().split("train").table),
        probabilities=fixed.encoder.predict(images)[fixed.cohort.spec.primary_condition],
        confidence=fixed.settings.audit.confidence,
        known=audits[0].estimates,
    )
    rest = {name: better for name, better in DIRECTIONS.items() if name != audits[0].metric}
    found = [table, equity_rows(table, attributes, rest)]
    shown = {OVERALL[0], *levels}
    for at, one in enumerate(audits):
        rows = tables.pick(one.by_group, shown).assign(features=one.features)
        found += [rows] if at else []  # the first one's are in the table
        found.append(equity_rows(rows, attributes, {one.metric: one.design.better}))
        found.append(one.disparity.assign(features=one.features))
    return pd.concat(found, ignore_index=True)[list(COLUMNS)]


def denoising_losses(fixed: Fixed, layout: Places, method: str, seed: int) -> Floats | None:
    """Mean denoising loss of each real test image at the settings' timesteps, noise fixed.

    The same latents, timesteps and noise for every run; None where no timestep is named.
    """
    steps, latents = fixed.settings.audit.loss_timesteps, fixed.latents
    if latents is None:
        return None
    table = fixed.cohort.included().split("test").table
    names, prompts = table["image"].tolist(), table["prompt"].tolist()
    pipeline = load_run(Study(fixed.settings, layout), method, seed)
    losses = denoising_losses_at(pipeline, latents, prompts, names, steps, seed=0)
    return np.asarray(losses.mean(dim=1).numpy(), dtype=np.float64)


def run_gates(fixed: Fixed, images: Any, generated: Floats, labels: Any) -> pd.DataFrame:
    """All gates of one run."""
    own, main, prompt = fixed.settings.audit, fixed.spaces[0], None
    ruler = ruler_for(fixed.settings.dataset)
    if ruler is not None:
        levels = fixed.test[ruler.condition]
        asked = levels.isin([ruler.low, ruler.high]).to_numpy()
        prompt = (ruler, ruler.measure(images[asked]), (levels == ruler.high).to_numpy()[asked])
    name = fixed.cohort.spec.primary_condition
    return gates(
        main.kernel,
        main.test,
        generated,
        fixed.blurred,
        fixed.test,
        (name, fixed.cohort.spec.levels(name)),
        labels=labels,
        reconstruction=fixed.reconstruction,
        prompt=prompt,
        least_r2=own.gate_vae_r2,
        least_auc=own.gate_prompt_auc,
        confidence=own.confidence,
    )


# -- the whole study -------------------------------------------------------------------------


def collect_quality(
    settings: Settings, layout: Places, cohort: Cohort, rule: Protocol
) -> QualityResult:
    """Quality of every method and seed by attribute and condition, after the gates.

    Parameters
    ----------
    settings, layout, cohort
        Of a study whose test images are generated.
    rule : Protocol
        From :func:`protocol.check_protocol`.
    """
    fixed = fix(settings, layout, cohort, rule)
    parts: list[pd.DataFrame] = []
    checks: list[pd.DataFrame] = []
    audits: dict[Run, list[Audit]] = {}
    for run in assets.runs_of(settings):
        labels = {"dataset": settings.dataset, "method": run[0], "seed": run[1]}
        images = load_generated(layout.generated(*run), "test")
        made = [space.of(images) for space in fixed.spaces]
        checks.append(run_gates(fixed, images, made[0], labels))
        audits[run] = run_audits(fixed, made, denoising_losses(fixed, layout, *run))
        parts.append(labelled(run_table(fixed, images, made[0], audits[run]), labels))
    found = pd.concat(checks, ignore_index=True)
    notes = tables.failed_gates(found)
    table = over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    named = with_means(audits, rule)
    return QualityResult(
        tables.with_notes(table, notes),
        tables.with_notes(study_contrasts(named, rule), notes),
        tables.with_notes(study_differences(audits, rule), notes),
        tables.with_notes(study_intersections(named, fixed.crossing, rule), notes),
        encoder_table(fixed.reading, cohort, table, rule),
        found,
        notes,
        named,
    )
