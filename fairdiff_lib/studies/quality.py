"""The audit of images: one for a study's runs (05) and for anybody's own images (11).

``audit_images`` is that audit. The rest takes a study's images from disk to its tables.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fairdiff_lib.audit.audit import (
    Audit,
    Estimator,
    audit,
    contrast_table,
    crossed,
    intersection_rows,
    labelled,
    mean_audit,
    mean_metric,
)
from fairdiff_lib.audit.blur import (
    SMALLEST_BLUR,
    Curves,
    blur_images,
    equivalent_blur,
    estimate_rows,
    kernel_means,
    same_corruption,
)
from fairdiff_lib.audit.contrasts import (
    DESCRIPTION,
    DIRECTIONS,
    EXPLORATORY,
    PRIMARY,
    SENSITIVITY,
    control_discoveries,
    equity_rows,
)
from fairdiff_lib.audit.estimate import (
    OVERALL,
    Estimate,
    Floats,
    Groups,
    Levels,
    group_units,
)
from fairdiff_lib.audit.kid import Kernel, kid, kid_unpaired, shares, standardised_kid
from fairdiff_lib.audit.quality import (
    COLUMNS,
    gates,
    inception_score,
    quality_table,
    reconstruction_r2,
)
from fairdiff_lib.audit.realism import Copies, c2st_metric, equal_n_rows, near_copies
from fairdiff_lib.audit.released import inception_score_as_released
from fairdiff_lib.audit.seeds import compare_audits, over_seeds
from fairdiff_lib.classify.features import Space
from fairdiff_lib.classify.fit import Classifier
from fairdiff_lib.classify.runs import feature_spaces, load_reader
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.disk import tables
from fairdiff_lib.model.device import autocast
from fairdiff_lib.model.loss import denoising_losses_at
from fairdiff_lib.model.pipeline import load_pipeline, mean_latents, reconstruct
from fairdiff_lib.model.sample import gallery_images, load_generated, load_run
from fairdiff_lib.studies.harm import COLUMNS as TRUE
from fairdiff_lib.studies.harm import fidelity_table
from fairdiff_lib.studies.verdict.effects import planted
from fairdiff_lib.studies.verdict.measure import curves_of, image_effects
from fairdiff_lib.studies.verdict.protocol import BLUR, Protocol
from fairdiff_lib.studies.verdict.table import Setting, as_table, test_table
from fairdiff_lib.study import Study

SOFT = 1 / 32  # standard deviation of the blurred control, fraction of the image's side

CONTROL_COLUMNS = (
    "dataset", "method", "seeds", "corruption", "kid", "attribute", "level", "reference", "metric",
    "features", "n", "n_reference", "value", "low", "high", "p",
)  # fmt: skip
Run = tuple[str, int]  # method, seed
Named = dict[tuple[str, str], list[Audit]]  # (method, seeds): its audits, the primary metric first


# -- the audit -------------------------------------------------------------------------------


def audit_images(
    real: Floats,
    generated: Floats,
    groups: Groups,
    kernel: Kernel,
    attributes: Levels,
    *,
    made: Groups | None = None,
    paired: bool = True,
    strata: Groups | None = None,
    curves: Callable[[Sequence[Estimate]], Curves] | None = None,
    features: str = "",
    confidence: float = 0.95,
    secondary_below: int = 80,
    role: str = PRIMARY,
) -> list[Audit]:
    """KID of every group against its own reals, at a common case mix, and as a blur.

    Parameters
    ----------
    real, generated : float64 [N, D], [P, D]
        Features in units of their spread.
    groups : Groups
        Of the real rows: attributes, and whatever else is described, as their crossings.
    kernel : Kernel
        Fixed before any generated image was looked at.
    attributes : mapping
        Whose levels are compared; all others are described only.
    made : Groups, optional
        Of the generated rows; None: row i was generated for real row i.
    paired : bool
        Both have the same units; otherwise they share none, and ``made`` is needed.
    strata : Groups, optional
        Levels of one condition, of the real rows: each group is then also reweighted to the
        pooled shares, so that one with more disease isn't called worse for it. Needs ``paired``.
    curves : callable, optional
        From the KIDs by group to those of blurred reals, of the same groups: each group is then
        also given its equivalent blur.
    features, confidence, secondary_below, role
        As for ``audit.audit``.

    Returns
    -------
    list of Audit
        ``kid``; with strata ``kid_standardised`` of the attributes alone; with curves
        ``equivalent_blur``.
    """
    own: dict[str, Any] = {"confidence": confidence, "secondary_below": secondary_below}
    own |= {"role": role, "features": features}
    unit = None if made is None else made.unit
    estimator: Estimator = partial(kid, kernel, real, generated, generated_unit=unit)
    if made is not None and not paired:
        estimator = partial(kid_unpaired, kernel, real, generated, generated_groups=made)
    found = [audit(estimator, groups, attributes, metric="kid", **own)]
    if strata is not None and paired:
        reweighted = partial(
            standardised_kid, kernel, real, generated, strata=strata, weights=shares(strata),
            generated_unit=unit,
        )  # fmt: skip
        chosen = groups_of(groups, attributes)
        found.append(audit(reweighted, chosen, attributes, metric="kid_standardised", **own))
    if curves is not None:
        kids = list(found[0].estimates.values())
        blurs = equivalent_blur(kids, curves(kids))
        one = audit(lambda _: blurs, groups, attributes, metric=BLUR, **own)
        found.append(one.with_smallest_effect(SMALLEST_BLUR))
    return found


def groups_of(groups: Groups, names: Iterable[str]) -> Groups:
    """All units, and the levels of the named attributes."""
    kept = {OVERALL[0], *names}
    at = [m for m, (name, _) in enumerate(groups.keys) if name in kept]
    members = np.ascontiguousarray(groups.members[:, at])
    return Groups(groups.unit, tuple(groups.keys[m] for m in at), members)


def described(one: Audit, names: Iterable[str]) -> Audit:
    """The audit with the groups of the named attributes and conditions alone."""
    kept = {OVERALL[0], *names}
    found = {key: estimate for key, estimate in one.estimates.items() if key[0] in kept}
    return replace(one, estimates=found)


@dataclass(frozen=True)
class QualityResult:
    """Quality by group, and whether the numbers may be believed.

    Attributes
    ----------
    table : DataFrame
        dataset, method, seeds, attribute, level, metric, features, n, value, low, high, note.
    effects : DataFrame
        What was measured for the verdict: ``verdict.effects.COLUMNS``.
    contrasts : DataFrame
        dataset, method, seeds ("0", or "0,1,2": the mean of these models), then
        ``contrasts.CONTRAST_COLUMNS``.
    differences : DataFrame
        dataset, then ``seeds.CHANGE_COLUMNS``, role, p_adjusted: methods against the baseline.
    intersections : DataFrame
        As ``table``; metrics kid and kid_shrunk.
    further : DataFrame
        As ``table``: see :func:`further_table`.
    controls : DataFrame
        See :func:`study_controls`.
    gates : DataFrame
        dataset, method, seed, gate, n, value, threshold, comparison, passed, note.
    notes : list of str
        A line for each gate that failed.
    audits : dict of (method, seeds) to list of Audit
        Of every run and of each method's mean over seeds, the primary metric first.
    copies : dict of (method, seed) to str
        Which images are nearly identical, in a sentence; runs without any have none.
    fixed : Fixed or None
        The real side: features of the test images, kernel, groups.
    fidelity : DataFrame
        See ``fidelity.fidelity_table``; no row of real data.
    tests : DataFrame
        What follows from ``effects`` by the protocol's rule: ``verdict.table.COLUMNS``.
    """

    table: pd.DataFrame
    effects: pd.DataFrame
    contrasts: pd.DataFrame
    differences: pd.DataFrame
    intersections: pd.DataFrame
    further: pd.DataFrame
    controls: pd.DataFrame
    gates: pd.DataFrame
    notes: list[str]
    audits: Named
    copies: dict[Run, str] = field(default_factory=dict)
    fixed: Fixed | None = None
    fidelity: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["seeds", *TRUE]))
    tests: pd.DataFrame = field(default_factory=lambda: as_table([]))

    def main(self, features: str) -> pd.DataFrame:
        """Rows of the table in the primary feature space, or that rest on none."""
        return self.table[self.table["features"].isin([features, ""])]


# -- what is fixed before any generated image is looked at -----------------------------------


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
    curves : Curves
        KID of the same groups' reals after blurs of rising width, in the primary space.
    crossing : dict
        Name of the intersections to their levels.
    latents : float32 [N, C, h, w] or None
        Of the real test images; None where no denoising loss is wanted.
    vae
        The autoencoder that all runs share.
    reconstruction : (ruler, measured, true) or None
        The ruler's quantity on the test images after the VAE; simulated data only.
    """

    study: Study
    reader: Classifier
    spaces: tuple[Space, ...]
    blurred: Floats
    test: pd.DataFrame
    groups: Groups
    curves: Curves
    crossing: dict[str, list[str]]
    latents: Any
    vae: Any
    reconstruction: Any


def fix(study: Study) -> Fixed:
    """Feature spaces, groups and reader of a study: found again, or made from real images."""
    kept = study.cohort.included()
    images = [kept.split(name).load_images(study.settings.model.image_size)
              for name in ("train", "test")]  # fmt: skip
    spaces = feature_spaces(study, *images)
    test = kept.split("test").table
    crossing: dict[str, list[str]] = {}
    if len(kept.attribute_levels) > 1:
        test, crossing = crossed(test, kept.attribute_levels)
    groups = group_units(test, {**kept.all_levels, **crossing})
    base = load_pipeline(study.places.base / "pipeline")  # every run keeps its VAE
    return Fixed(
        study,
        load_reader(study),
        spaces,
        spaces[0].of(blur_images(images[1], SOFT * images[1].shape[-1])),
        test,
        groups,
        curves_of(spaces[0], images[1], groups),
        crossing,
        mean_latents(base, images[1]) if study.settings.audit.loss_timesteps else None,
        base.vae,
        _reconstruction(base, study, images[1]),
    )


def noisy(images: Any, spread: float = 5.0) -> Any:
    """Images with Gaussian noise, in grey levels; an image's own content seeds its noise."""
    drawn = [
        np.random.default_rng(zlib.crc32(x.tobytes())).normal(0, spread, x.shape) for x in images
    ]
    return np.clip(np.rint(images + np.stack(drawn)), 0, 255).astype(np.uint8)


def compressed(images: Any, quality: int = 15) -> Any:
    """Images after JPEG."""
    done = []
    for x in images:
        stream = io.BytesIO()
        Image.fromarray(np.moveaxis(x, 0, -1)).save(stream, "JPEG", quality=quality)
        with Image.open(stream) as opened:
            done.append(np.moveaxis(np.asarray(opened), -1, 0))
    return np.stack(done)


CORRUPTIONS: dict[str, Callable[[Any], Any]] = {  # of everybody's reals; fixed beforehand
    "blur of 1 pixel": partial(blur_images, sigma=1.0),
    "noise of 5 grey levels": noisy,
    "JPEG of quality 15": compressed,
}


def _reconstruction(base: Any, study: Study, test_images: Any) -> Any:
    """(ruler, measured, true) of simulated test images after the VAE; None of real ones."""
    ruler, cohort = study.entry.ruler, study.cohort
    if ruler is None:
        return None
    with autocast(study.settings.generation.mixed_precision):  # as generated images are decoded
        seen = reconstruct(base.vae, test_images)
    names = cohort.included().split("test").table["image"].tolist()
    return ruler, ruler.measure(seen), ruler.truth(cohort.root, names)


# -- one run ---------------------------------------------------------------------------------


def run_audits(fixed: Fixed, generated: Sequence[Floats], losses: Floats | None) -> list[Audit]:
    """Audits of one run, the primary metric first; exploratory until declared otherwise.

    KID, also at a common case mix and as a blur; KID in the second feature space; the denoising
    loss. What rests on near-identical images has no interval.

    Parameters
    ----------
    generated : sequence of float64 [N, D]
        Features of the run's test images, one array per space.
    losses : float64 [N] or None
        Denoising loss of every real test image.
    """
    cohort, own = fixed.study.cohort, fixed.study.settings.audit
    name, attributes = cohort.spec.primary_condition, cohort.attribute_levels
    strata = group_units(fixed.test, {name: cohort.spec.levels(name)})
    common: dict[str, Any] = {
        "confidence": own.confidence,
        "secondary_below": own.secondary_below,
        "role": EXPLORATORY,
    }
    found: list[Audit] = []
    for at, (space, made) in enumerate(zip(fixed.spaces, generated, strict=True)):
        more: dict[str, Any] = {} if at else {"strata": strata, "curves": lambda _: fixed.curves}
        audits = audit_images(
            space.test, made, fixed.groups, space.kernel, attributes,
            features=space.extractor.name, **more, **common,
        )  # fmt: skip
        found += [one.with_role(SENSITIVITY) for one in audits] if at else audits
    found = [copies_of(fixed, generated[0]).guard(one, fixed.groups) for one in found]
    if losses is not None:
        groups = groups_of(fixed.groups, attributes)
        metric = mean_metric(losses)
        found.append(audit(metric, groups, attributes, metric="denoising_loss", **common))
    return found


def copies_of(fixed: Fixed, generated: Floats) -> Copies:
    """Which of a run's test images are nearly identical, from features in the primary space."""
    return near_copies(generated, fixed.spaces[0].test, fixed.groups.unit)


def further_table(fixed: Fixed, generated: Floats) -> pd.DataFrame:
    """More looks at one run by group, in the columns of T2.

    The kernel's three means; how well a classifier tells generated from real; clipped density and
    coverage at equal n; the share of near-identical images.
    """
    cohort, main = fixed.study.cohort, fixed.spaces[0]
    groups = groups_of(fixed.groups, cohort.all_levels)
    rows = further_rows(
        main.kernel, main.test, generated, groups, cohort.attribute_levels,
        copies_of(fixed, generated), fixed.study.settings.audit.confidence,
    )  # fmt: skip
    return rows.assign(features=main.extractor.name)[list(COLUMNS)]


def further_rows(
    kernel: Kernel,
    real: Floats,
    generated: Floats,
    groups: Groups,
    attributes: Levels,
    copies: Copies,
    confidence: float,
) -> pd.DataFrame:
    """:func:`further_table` of features that go row by row, in ``contrasts.GROUP_COLUMNS``."""
    looks = kernel_means(kernel, real, generated, groups)
    looks["c2st_accuracy"] = c2st_metric(real, generated)(groups)
    parts = [
        estimate_rows(looks, groups, confidence),
        equal_n_rows(real, generated, groups, attributes),
        copies.rows(groups),
    ]
    return pd.concat(parts, ignore_index=True)


def run_table(
    fixed: Fixed, images: Any, generated: Floats, audits: Sequence[Audit]
) -> pd.DataFrame:
    """Every metric of one run with its equity summaries, in the columns of T2."""
    cohort, main = fixed.study.cohort, fixed.spaces[0]
    attributes, levels = cohort.attribute_levels, cohort.all_levels
    table = quality_table(
        main.test,
        generated,
        fixed.test,
        levels,
        main.kernel,
        features=main.extractor.name,
        labels={},
        train=(main.train, cohort.included().split("train").table),
        probabilities=fixed.reader.predict(images)[cohort.spec.primary_condition],
        confidence=fixed.study.settings.audit.confidence,
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


def denoising_losses(fixed: Fixed, study: Study, method: str, seed: int) -> Floats | None:
    """Mean denoising loss of each real test image at the settings' timesteps, noise fixed.

    The same latents, timesteps and noise for every run; None where no timestep is named.

    Parameters
    ----------
    study : Study
        Whose run it is: an arm's, or the fixed side's own.
    """
    steps = fixed.study.settings.audit.loss_timesteps
    if fixed.latents is None:
        return None
    table = fixed.study.cohort.included().split("test").table
    names, prompts = table["image"].tolist(), table["prompt"].tolist()
    pipeline = load_run(study, method, seed)
    losses = denoising_losses_at(pipeline, fixed.latents, prompts, names, steps, seed=0)
    return np.asarray(losses.mean(dim=1).numpy(), dtype=np.float64)


def run_gates(fixed: Fixed, images: Any, generated: Floats, labels: Any) -> pd.DataFrame:
    """All gates of one run."""
    own, main, prompt = fixed.study.settings.audit, fixed.spaces[0], None
    spec, ruler = fixed.study.cohort.spec, dataset_of(fixed.study.settings.dataset).ruler
    if ruler is not None:
        levels = fixed.test[ruler.condition]
        asked = levels.isin([ruler.low, ruler.high]).to_numpy()
        prompt = (ruler, ruler.measure(images[asked]), (levels == ruler.high).to_numpy()[asked])
    name = spec.primary_condition
    return gates(
        main.kernel,
        main.test,
        generated,
        fixed.blurred,
        fixed.test,
        (name, spec.levels(name)),
        labels=labels,
        reconstruction=fixed.reconstruction,
        prompt=prompt,
        least_r2=own.gate_vae_r2,
        least_auc=own.gate_prompt_auc,
        confidence=own.confidence,
    )


def features_of(fixed: Fixed, method: str, seed: int) -> Floats:
    """Features of a run's test images in the primary space.  # [N, D]"""
    return fixed.spaces[0].of(_images(fixed, method, seed))


def inception_scores(fixed: Fixed, method: str, seed: int) -> pd.DataFrame:
    """Inception Score of the first n images of a run, in one part and as released: in ten (E7)."""
    name = fixed.study.cohort.spec.primary_condition
    seen = fixed.reader.predict(_images(fixed, method, seed))[name]
    rows = [
        {
            "n": n,
            "in one part": inception_score(seen[:n]),
            "as released, in ten": inception_score_as_released(seen[:n]),
            "at most, as released": n / 10,
        }
        for n in dict.fromkeys((min(10, len(seen)), min(20, len(seen)), len(seen)))
    ]
    return pd.DataFrame(rows)


def _images(fixed: Fixed, method: str, seed: int) -> Any:
    return load_generated(fixed.study.places.generated(method, seed), "test")


# -- the whole study -------------------------------------------------------------------------


def with_means(audits: Mapping[Run, Sequence[Audit]], rule: Protocol) -> Named:
    """Audits of every run and of each method's mean over seeds, with X where there is one.

    That is of KID in the primary feature space. Only the baseline over all of its seeds is
    declared (C1).
    """
    found: Named = {(method, str(seed)): list(own) for (method, seed), own in audits.items()}
    for method in dict.fromkeys(method for method, _ in audits):
        seeds = [seed for name, seed in audits if name == method]
        groups = zip(*(audits[method, seed] for seed in seeds), strict=True)
        found[method, ",".join(map(str, seeds))] = [mean_audit(group) for group in groups]
    whole = rule.baseline, ",".join(str(seed) for name, seed in audits if name == rule.baseline)
    if whole not in found:
        return found  # nothing is declared without the baseline
    found = {
        key: [one.with_smallest_effect(rule.smallest_kid)
              if one.metric.startswith("kid") and one.features == rule.features else one
              for one in own]
        for key, own in found.items()
    }  # fmt: skip
    found[whole][0] = found[whole][0].with_role(PRIMARY)
    return found


def study_contrasts(named: Named, rule: Protocol) -> pd.DataFrame:
    """tab_contrasts: differences between levels, of every run and of each method's mean."""
    labels = [{"dataset": rule.dataset, "method": m, "seeds": seeds} for m, seeds in named]
    return contrast_table(
        [(label, one) for label, own in zip(labels, named.values(), strict=True) for one in own]
    )


def study_controls(fixed: Fixed, named: Named, rule: Protocol) -> pd.DataFrame:
    """tab_controls: the KID differences between levels that say nothing of a generator.

    One and the same corruption of everybody's real images; and for each generator the blur whose
    KID over all subjects is its own. As far as these go, so may a generator that treats all alike.
    Columns: dataset, method ("real" for the former), seeds, corruption, kid (over all), attribute,
    level, reference, metric, features, n, n_reference, value, low, high, p.
    """
    main, study, own = fixed.spaces[0], fixed.study, fixed.study.settings.audit
    images = study.cohort.included().split("test").load_images(study.settings.model.image_size)
    design = {"confidence": own.confidence, "secondary_below": own.secondary_below,
              "features": main.extractor.name}  # fmt: skip
    attributes = study.cohort.attribute_levels
    corrupted = {name: main.of(change(images)) for name, change in CORRUPTIONS.items()}
    groups = groups_of(fixed.groups, attributes)
    alike = same_corruption(main.kernel, main.test, corrupted, groups, attributes, **design)
    parts = [alike.assign(method="real", seeds="")]
    for (method, seeds), audits in named.items():
        blur = next(one for one in audits if one.metric == BLUR).overall.value
        if np.isfinite(blur):
            table = alike_by_blur(fixed.curves, blur, attributes, design)
            parts.append(table.assign(method=method, seeds=seeds))
    table = pd.concat(parts, ignore_index=True).assign(dataset=rule.dataset)
    return table[list(CONTROL_COLUMNS)]


def alike_by_blur(
    curves: Curves, blur: float, attributes: Levels, design: Mapping[str, Any]
) -> pd.DataFrame:
    """The contrasts that one blur of everybody's reals gives, with corruption and overall KID."""
    one = audit(
        lambda _: curves.at(blur), curves.groups, attributes, metric="kid", role=DESCRIPTION,
        **design,
    )  # fmt: skip
    said = f"the blur of equal overall KID, {blur:.2f} pixels"
    return one.contrasts.assign(corruption=said, kid=one.overall.value)


def study_differences(audits: Mapping[Run, Sequence[Audit]], rule: Protocol) -> pd.DataFrame:
    """tab_differences: methods against the baseline by group, paired by seed; exploratory."""
    each = range(len(next(iter(audits.values()))))
    parts = [
        compare_audits({run: own[k] for run, own in audits.items()}, rule.baseline, rule.confidence)
        for k in each
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table.assign(role=EXPLORATORY, p_adjusted=np.nan)
    return labelled(control_discoveries(table), {"dataset": rule.dataset})


def study_intersections(
    named: Named, crossing: Mapping[str, Sequence[str]], rule: Protocol
) -> pd.DataFrame:
    """tab_intersections: KID of every combination of levels, raw and shrunken."""
    parts = []
    for (method, seeds), own in named.items():
        for name in crossing:
            rows = intersection_rows(own[0], name)
            labels = {"dataset": rule.dataset, "method": method, "seeds": seeds}
            parts.append(labelled(rows, labels))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["note"])


def collect_quality(study: Study, rule: Protocol) -> QualityResult:
    """Quality of every method and seed by attribute and condition, after the gates.

    Parameters
    ----------
    study : Study
        Whose test images are generated.
    rule : Protocol
        From :func:`protocol.check_protocol`.
    """
    fixed, settings = fix(study), study.settings
    parts: list[pd.DataFrame] = []
    checks: list[pd.DataFrame] = []
    looks: list[pd.DataFrame] = []
    copies: dict[Run, str] = {}
    audits: dict[Run, list[Audit]] = {}
    for run in settings.runs:
        labels = {"dataset": settings.dataset, "method": run[0], "seed": run[1]}
        images = load_generated(study.places.generated(*run), "test")
        made = [space.of(images) for space in fixed.spaces]
        checks.append(run_gates(fixed, images, made[0], labels))
        audits[run] = run_audits(fixed, made, denoising_losses(fixed, study, *run))
        parts.append(labelled(run_table(fixed, images, made[0], audits[run]), labels))
        looks.append(labelled(further_table(fixed, made[0]), labels))
        said = copies_of(fixed, made[0]).caveat(fixed.test["image"].tolist())
        copies |= {run: said} if said else {}
    found = pd.concat(checks, ignore_index=True)
    notes = tables.failed_gates(found)
    table = over_seeds(pd.concat(parts, ignore_index=True), settings.audit.confidence)
    named = with_means(audits, rule)
    effects = image_effects(study, fixed.spaces[0], fixed.vae, fixed.groups.unit, audits, rule)
    judged = Setting(settings.dataset, rule, gates=found, population=settings.simulator)
    return QualityResult(
        tables.with_notes(table, notes),
        effects,
        tables.with_notes(study_contrasts(named, rule), notes),
        tables.with_notes(study_differences(audits, rule), notes),
        tables.with_notes(study_intersections(named, fixed.crossing, rule), notes),
        over_seeds(pd.concat(looks, ignore_index=True), settings.audit.confidence),
        study_controls(fixed, named, rule),
        found,
        notes,
        named,
        copies,
        fixed,
        fidelity_table(study) if settings.simulated else pd.DataFrame(columns=["seeds", *TRUE]),
        test_table(effects, judged),
    )


def publish_quality(study: Study, result: QualityResult) -> list[Path]:
    """Write the data set's table, or two by attribute and by condition; and the audit's others."""
    names, cohort = list(study.entry.quality), study.cohort
    parts = [result.table]
    if len(names) == 2:
        levels = (cohort.attribute_levels, cohort.condition_levels)
        parts = [tables.pick(result.table, [OVERALL[0], *own]) for own in levels]
    todo = dict(zip(names, parts, strict=True))
    todo |= {
        "tab_gates": result.gates,
        "tab_effects": result.effects,
        "tab_contrasts": result.contrasts,
        "tab_differences": result.differences,
        "tab_intersections": result.intersections,
        "tab_further": result.further,
        "tab_controls": result.controls,
    }
    todo |= {"tab_fidelity": result.fidelity} if study.settings.simulated else {}
    return [study.publish(name, table) for name, table in todo.items()]


def of_mean(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the mean over all seeds."""
    return table[table["seeds"] == ",".join(map(str, study.settings.seeds))]


def scalars(result: QualityResult, rule: Protocol) -> dict[str, Any]:
    """What 05 records: gates passed, and each method's overall KID."""
    table = result.main(rule.features)
    kids = table[(table["attribute"] == OVERALL[0]) & (table["metric"] == "kid")]
    found = {f"kid_{row.method}_seeds{row.seeds}": row.value for row in kids.itertuples()}
    return found | {"gates": len(result.gates), "gates_passed": int(result.gates["passed"].sum())}


# -- what people look at ---------------------------------------------------------------------


def examples(
    study: Study, seed: int, methods: Sequence[str]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """F2's images by source ("real" and the methods), the names of its columns, their prompts."""
    rows, names = study.cohort.group_examples()
    known = planted(study.settings.simulator) if study.settings.simulator else {}
    told = {level: words for (_, level), words in known.items()}
    names = [f"{name}\n({told[name]})" if name in told else name for name in names]
    test = study.cohort.included().split("test")
    images = {"real": test.load_images(study.settings.model.image_size, rows)}
    for method in methods:
        images[method] = load_generated(study.places.generated(method, seed), "test")[rows]
    return images, names, test.table["prompt"].iloc[list(rows)].tolist()


def gallery(study: Study, seed: int, methods: Sequence[str]) -> dict[str, Any]:
    """F6's images by method; the rows are ``cohort.gallery_rows``."""
    return {method: gallery_images(study, method, seed) for method in methods}


def ruler_table(study: Study) -> pd.DataFrame:
    """R^2 of the family's quantity measured on original test images; NaN without a truth."""
    test, ruler = study.cohort.included().split("test"), study.entry.ruler
    if ruler is None:
        return pd.DataFrame([{"measure": "none", "images": 0, "lost": 0, "value": np.nan}])
    truth = ruler.truth(study.cohort.root, test.table["image"].tolist())
    measured = ruler.measure(test.load_images(study.settings.model.image_size))
    row = {"images": len(test), "lost": int(np.isnan(measured).sum())}
    value = reconstruction_r2(measured, truth)
    return pd.DataFrame([{"measure": f"R\u00b2 of the {ruler.name}", **row, "value": value}])
