"""11: audit your own generator. Two CSV files of images in, the audit and its tables out.

``data.own.read_own`` reads and checks them. ``audit_own`` measures features that neither the images
compared nor their labels have shaped, and calls the study's own ``audit_images``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from fairdiff_lib.audit.audit import Audit, crossed, intersection_rows
from fairdiff_lib.audit.blur import Curves, blur_curves, blur_images, same_corruption
from fairdiff_lib.audit.contrasts import SENSITIVITY
from fairdiff_lib.audit.estimate import (
    MIN_UNITS,
    Estimate,
    Floats,
    Groups,
    Ints,
    Levels,
    group_units,
)
from fairdiff_lib.audit.fid import fid_against_n
from fairdiff_lib.audit.kid import Kernel, as_features, fit_kernel, real_floor
from fairdiff_lib.audit.quality import FLOOR_SPLITS
from fairdiff_lib.audit.realism import Copies, near_copies
from fairdiff_lib.classify.features import (
    BATCH,
    LITE,
    LITE_SIDE,
    Extractor,
    Features,
    Scale,
    by_each,
    describe,
    make_extractor,
)
from fairdiff_lib.classify.fit import Classifier, fit_classifier
from fairdiff_lib.data.cohort import load_image
from fairdiff_lib.data.own import LEAST_SIDE, NAMES, OwnImages, OwnSet, read_own, write_example
from fairdiff_lib.data.pictures import twins
from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import (
    atomic_folder,
    check_replaceable,
    refuse_other,
    write_json,
    write_table,
)
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.stamps import make_provenance
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.quality import (
    CONTROL_COLUMNS,
    CORRUPTIONS,
    alike_by_blur,
    audit_images,
    described,
    further_rows,
    groups_of,
)
from fairdiff_lib.studies.verdict.protocol import BLUR

DEFAULT_FEATURES = "lite0"
SEEN = {  # in words
    "lite0": "what a network for everyday photographs sees, of anatomy and of fine detail",
    "texture": "colour, blur and noise at four scales, not anatomy",
    "random-conv": "colour and coarse texture, hardly blur, and no anatomy",
}
BUILT_IN = {"random-conv": "random"}  # what a user calls it: what ``features`` calls it
# size where none is given
MOST_PIXELS = {**dict.fromkeys(LITE, LITE_SIDE), "texture": 128, "random-conv": 128, "encoder": 64}
MOST_PIXELS_ELSE = 256  # of pretrained features, which enlarge to their own size
VALIDATION = 5  # one in so many training subjects chooses the encoder's step
CARD, METHODS, STAMP = "card.html", "methods.txt", "stamp.json"
TABLES = {  # each a CSV of the audit's folder, where it has rows: what of an OwnAudit
    "by_group": "by_group",
    "equivalent_blur": "blur.by_group",
    "contrasts": "contrasts",
    "contrasts_standardised": "standardised.contrasts",
    "controls": "controls",
    "further": "further",
    "intersections": "intersections",
    "summary": "audit.summary",
    "flow": "images.flow",
}
Change = Callable[[Any], Any]  # of images, uint8 [N, 3, H, W]


# -- two CSV files in --------------------------------------------------------------------------


def csv_files(real: str, generated: str, example: Path) -> tuple[Path, Path]:
    """The two files that are named, relative ones below the project; of none, a drawn example's."""
    if bool(real) != bool(generated):
        named, other = ("real", "generated") if real else ("generated", "real")
        raise InputError(f"{named}_csv is given without {other}_csv; expected both, or neither")
    if not real:
        refuse_other(example, *NAMES, *(f"{name}.csv" for name in NAMES))
        return write_example(example)
    return PROJECT_ROOT / real, PROJECT_ROOT / generated


# -- features ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Features in units of their spread, and the kernel on them."""

    real: Floats  # [N, D]
    generated: Floats  # [P, D]
    kernel: Kernel
    name: str
    size: int  # pixels
    about: str  # the extractor, for a methods section
    changed: Callable[[Change], Floats]  # features of the real images after a change
    sees: str = ""  # in words, where it is known
    hardly_vary: str = ""  # which features do, in words
    second: Measured | None = None  # another space, for a second look


def measure(images: OwnImages, features: str, revision: str, image_size: int) -> Measured:
    """Features of all images; scale and bandwidth from the training reals, else from the reals."""
    size, smallest = image_size, images.smallest_side
    if size == 0:
        size = min(smallest, MOST_PIXELS.get(features, MOST_PIXELS_ELSE))
    if not LEAST_SIDE <= size <= smallest:
        raise InputError(
            f"image size {size}: expected {LEAST_SIDE} to {smallest} pixels, the shortest side "
            "of any image"
        )
    fit = partial(_fit_encoder, images, size)
    extractors = [make_extractor(BUILT_IN.get(features, features), revision, fit)]
    extractors += [make_extractor(LITE[1])] * (features == LITE[0])
    sets = [images.real, images.generated, *([images.train] if images.train else [])]
    found = [extract_files(extractors, own, size) for own in sets]
    spaces: list[Measured] = []
    for k, extractor in reversed(list(enumerate(extractors))):
        real, generated, *train = (own[k] for own in found)
        base = train[0] if train else real
        scale = Scale.fit(base)
        name = features if features in BUILT_IN else extractor.name
        changed = partial(_changed, images.real, extractor, scale, size)
        spaces.append(Measured(
            scale(real), scale(generated), fit_kernel(scale(base)), name, size,
            describe(extractor), changed, SEEN.get(name, ""), scale.caveat(),
            spaces[-1] if spaces else None,
        ))  # fmt: skip
    return spaces[-1]


def _changed(
    own: OwnSet, extractor: Extractor, scale: Scale, size: int, change: Change
) -> Floats:  # [N, D]
    return scale(extract_files([extractor], own, size, change=change)[0])


def extract_files(
    extractors: Sequence[Extractor],
    own: OwnSet,
    size: int,
    batch: int = BATCH,
    change: Change | None = None,
) -> list[Features]:
    """Features of image files by each extractor, [N, D]; decoded in batches to bound the memory.

    ``change`` is made to the images first, as a blur.
    """
    found: list[list[Features]] = [[] for _ in extractors]
    with tqdm(total=len(own), desc=f"features of {own.csv.name}", disable=None) as bar:
        for start in range(0, len(own), batch):
            files = own.files[start : start + batch]
            images = np.stack([load_image(file, size) for file in files])
            images = images if change is None else change(images)
            for parts, features in zip(found, by_each(extractors, images), strict=True):
                parts.append(features)
            bar.update(len(files))
    whole = [np.concatenate(parts) for parts in found]
    for extractor, features in zip(extractors, whole, strict=True):
        bad = ~np.isfinite(features).all(axis=1)
        if bad.any():
            raise InputError(
                f"{own.csv}: features {extractor.name!r} are not finite for {bad.sum()} of "
                f"{len(own)} images, first {own.files[int(bad.argmax())].name}"
            )
    return whole


def _fit_encoder(images: OwnImages, size: int) -> Classifier:
    """A small classifier of the condition, from the training reals alone."""
    if images.train is None or not images.conditions:
        raise InputError(
            "features 'encoder': expected --train with real images and --condition, which it "
            "learns to tell apart"
        )
    heads = images.conditions
    ((name, levels),) = heads.items()
    codes = (
        pd.Index(levels).get_indexer(pd.Index(images.train.table[name]))[:, None].astype(np.int64)
    )
    if (codes < 0).any():
        bad = images.train.table[name].iloc[int((codes < 0).argmax())]
        raise InputError(
            f"{images.train.csv}: {name} {bad!r} is not in {images.real.csv}, which has "
            f"{', '.join(levels)}"
        )
    loaded = tqdm(images.train.files, desc="training images", disable=None)
    pixels = np.stack([load_image(file, size) for file in loaded])
    digests = [hashlib.sha256(u.encode()).digest()[0] for u in images.train.table[images.unit]]
    val = np.array(digests) % VALIDATION == 0
    if not val.any() or val.all():
        raise InputError(f"{images.train.csv}: too few {images.unit}s to train an encoder on")
    return fit_classifier(
        pixels[~val], codes[~val], heads, pixels[val], codes[val],
        load_settings("quick").reader, seed=0,
    )  # fmt: skip


# -- the audit ---------------------------------------------------------------------------------


def _refuse_small(images: OwnImages) -> None:
    """Raise if no attribute has two levels with enough units for a comparison."""
    sets, unit = (images.real, images.generated), images.unit
    best: tuple[int, str, str] = (-1, "", "")
    for name in images.attributes:
        counts = [own.table.groupby(name)[unit].nunique() for own in sets]
        smaller = pd.concat(counts, axis=1).fillna(0).min(axis=1).sort_values(ascending=False)
        best = max(best, (int(smaller.iloc[1]), name, str(smaller.index[1])))
    if best[0] < MIN_UNITS:
        raise InputError(
            f"{sets[0].csv}: no attribute has two levels of at least {MIN_UNITS} {unit}s in both "
            f"sets; nearest is {best[1]}, whose second largest level {best[2]!r} has {best[0]}"
        )


@dataclass(frozen=True)
class OwnAudit:
    """What the audit of a user's images found.

    Attributes
    ----------
    images : OwnImages
    audit : Audit
        KID by attribute level and, as description, by level of the condition.
    blur : Audit
        The same as equivalent blur.
    curves : Curves
        KID of the real images after blurs of rising width, by group.
    second : Audit or None
        KID in the second feature space, where there is one.
    standardised : Audit or None
        The same at a common case mix, where there is a condition and the subjects match.
    intersections : DataFrame
        KID of every crossing of the attributes, raw and shrunken: see
        ``shrinkage.intersection_rows``; empty with one attribute.
    controls : DataFrame
        Differences in KID that one corruption of everybody's real images gives: see
        ``quality.study_controls``.
    further : DataFrame
        Further looks by level: see ``quality.further_table``; without the parts that take a
        generated image for every real one where there is none.
    floor : DataFrame
        attribute, level, low, high: KID between two halves of the reals; 95% of splits.
    stamp : dict
        What the numbers depend on.
    groups, generated_groups : Groups
        Of the rows of both tables: for ``audit.audit`` with metrics of one's own.
    measured : Measured
        Features of both, and the kernel.
    copies : str
        Which generated images are nearly identical, and which real ones are the same picture under
        two units, in a sentence each; empty where none are.
    """

    images: OwnImages
    audit: Audit
    blur: Audit
    curves: Curves
    second: Audit | None
    standardised: Audit | None
    intersections: pd.DataFrame
    controls: pd.DataFrame
    further: pd.DataFrame
    floor: pd.DataFrame
    stamp: dict[str, Any]
    groups: Groups
    generated_groups: Groups
    measured: Measured
    copies: str

    @property
    def by_group(self) -> pd.DataFrame:
        """``Audit.by_group`` with the floor beside it, as floor_low and floor_high."""
        bands = self.floor.rename(columns={"low": "floor_low", "high": "floor_high"})
        return self.audit.by_group.merge(bands, on=["attribute", "level"], how="left")

    @property
    def contrasts(self) -> pd.DataFrame:
        """Differences between levels: in KID, in equivalent blur, in the second space's KID."""
        audits = [self.audit, self.blur, *([self.second] if self.second else [])]
        return pd.concat([one.contrasts for one in audits], ignore_index=True)

    @property
    def alike(self) -> pd.DataFrame | None:
        """Differences in KID that the blur of equal overall KID gives; None where none is."""
        sigma, design = self.blur.overall.value, self.audit.design
        if not np.isfinite(sigma):
            return None
        own = {"confidence": design.confidence, "secondary_below": design.secondary_below}
        return alike_by_blur(self.curves, sigma, self.audit.attributes, own)

    @property
    def one_to_one(self) -> bool:
        """Whether every unit has one real and one generated image."""
        sizes = {len(self.images.real), len(self.images.generated), len(self.groups.members)}
        return self.images.paired and len(sizes) == 1

    def one_row_each(self, attribute: str, level: str) -> tuple[Floats, Floats]:
        """Features of a group, real and generated: the first image of each unit, [M, D] both.

        Of separate samples, as many rows as the smaller one has units.
        """
        found = []
        for features, groups in zip(
            (self.measured.real, self.measured.generated),
            (self.groups, self.generated_groups),
            strict=True,
        ):
            first = np.unique(groups.unit, return_index=True)[1]
            found.append(features[first[groups.column(attribute, level)]])
        rows = min(map(len, found))
        return found[0][:rows], found[1][:rows]


def audit_own(
    real: Path | str,
    generated: Path | str,
    attributes: str | Sequence[str],
    condition: str = "",
    train: Path | str = "",
    unit: str = "subject",
    **measuring: Any,
) -> OwnAudit:
    """Audit a generator from two CSV files: :func:`read_own`, then :func:`audit_read`."""
    return audit_read(read_own(real, generated, attributes, condition, train, unit), **measuring)


def audit_read(
    images: OwnImages,
    *,
    features: str = DEFAULT_FEATURES,
    revision: str = "",
    image_size: int = 0,
    confidence: float = 0.95,
    secondary_below: int = 80,
) -> OwnAudit:
    """Compare a generator's images with real ones, overall and by group.

    Parameters
    ----------
    images : OwnImages
        From :func:`read_own`.
    features : str
        ``lite0`` or ``lite0-penultimate`` (EfficientNet-lite0 with its ImageNet weights),
        ``texture`` or ``random-conv`` (no weights), ``encoder`` (a classifier of the condition,
        trained on the training images), ``inception``, a hub id or a folder of a transformers
        model.
    revision : str
        Commit of a hub id.
    image_size : int
        Pixels that all images are reduced to; 0 = the shortest side of any, at most 128 (64 for
        ``encoder``, 256 for pretrained features).
    confidence : float
        Of each interval.
    secondary_below : int
        Units; smaller levels are shown, but not in the family of primary contrasts.

    Raises
    ------
    InputError
        Features that don't exist, a size that no image has, an image that can't be measured.
    """
    _refuse_small(images)
    measured = measure(images, features, revision, image_size)
    sets = [own.table for own in (images.real, images.generated)]
    crossing: dict[str, list[str]] = {}
    if len(images.attributes) > 1:
        (real, crossing), (made, _) = (crossed(table, images.attributes) for table in sets)
        sets = [real, made]
    levels = {**images.levels, **crossing}
    groups, generated = (group_units(table, levels, images.unit) for table in sets)
    strata = None
    if images.conditions:
        strata = group_units(images.real.table, images.conditions, images.unit)
    own: dict[str, Any] = {"confidence": confidence, "secondary_below": secondary_below}
    sides: dict[str, Any] = {"made": generated, "paired": images.paired}

    known: list[Curves] = []

    def curves(kids: Sequence[Estimate]) -> Curves:
        def at(sigma: float) -> Floats:
            return measured.changed(partial(blur_images, sigma=sigma))

        known.append(blur_curves(measured.kernel, measured.real, at, groups, beyond=kids))
        return known[0]

    audits = audit_images(
        measured.real, measured.generated, groups, measured.kernel, images.attributes,
        strata=strata, curves=curves, features=measured.name, **sides, **own,
    )  # fmt: skip
    if measured.second is not None:
        more = measured.second
        audits += [
            one.with_role(SENSITIVITY)
            for one in audit_images(more.real, more.generated, groups, more.kernel,
                                    images.attributes, features=more.name, **sides, **own)
        ]  # fmt: skip
    same, apart = _same_pictures(images.real, groups.unit)
    copies = near_copies(measured.generated, measured.real, apart)
    found, *rest = (same.guard(copies.guard(one, generated), groups) for one in audits)
    named = {(one.metric, one.features): one for one in rest}
    found = found.with_smallest_effect(known[0].rise(named[BLUR, measured.name].overall.value))
    parameters = {
        "attributes": list(images.attributes), "condition": "".join(images.conditions),
        "features": measured.name, "revision": revision, "unit": images.unit,
        "image_size": measured.size, **own,
    }  # fmt: skip
    rows = [intersection_rows(found, name) for name in crossing]
    pairs = ((copies, images.generated), (same, images.real))
    said = [own.caveat([file.name for file in files.files]) for own, files in pairs]
    groups, generated = (groups_of(own, images.levels) for own in (groups, generated))
    return OwnAudit(
        images,
        described(found, images.levels),
        described(named[BLUR, measured.name], images.levels),
        known[0],
        next((one for one in rest if one.features != measured.name), None),
        named.get(("kid_standardised", measured.name)),
        pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(),
        _controls(measured, groups, images.attributes, own),
        _further(images, measured, groups, generated, copies, confidence),
        _floors(measured, groups),
        _stamp(images, parameters),
        groups,
        generated,
        measured,
        " ".join(filter(None, said)),
    )


def _same_pictures(real: OwnSet, unit: Ints) -> tuple[Copies, Ints]:
    """Real images whose bytes are those of another unit's; units, such ones made one.  # int [N]"""
    cluster, apart = np.arange(len(real)), unit.copy()
    for rows in twins(real.seen, unit.tolist()):
        cluster[rows] = rows[0]
        apart[np.isin(apart, apart[rows])] = apart[rows[0]]
    twinned = np.bincount(cluster, minlength=len(real))[cluster] > 1
    words = ("real images", "byte for byte the same as another subject's")
    return Copies(cluster, twinned, *words), apart


def _controls(
    measured: Measured, groups: Groups, attributes: Levels, design: Mapping[str, Any]
) -> pd.DataFrame:
    """The contrasts that one corruption of everybody's real images gives."""
    corrupted = {name: measured.changed(change) for name, change in CORRUPTIONS.items()}
    table = same_corruption(measured.kernel, measured.real, corrupted, groups, attributes, **design)
    return table[[name for name in CONTROL_COLUMNS if name in table]]


def _further(
    images: OwnImages,
    measured: Measured,
    groups: Groups,
    made: Groups,
    copies: Copies,
    confidence: float,
) -> pd.DataFrame:
    """Further looks by level; of sets that don't go one to one the near-identical images alone."""
    if not images.paired or not len(groups.unit) == len(made.unit) == len(groups.members):
        return copies.rows(made)
    place = np.argsort(made.unit)[groups.unit]  # the generated image of each real one's subject
    return further_rows(
        measured.kernel, measured.real, measured.generated[place], groups, images.attributes,
        replace(copies, cluster=copies.cluster[place], twinned=copies.twinned[place]), confidence,
    )  # fmt: skip


def _floors(measured: Measured, groups: Groups) -> pd.DataFrame:
    """Noise between two halves of each group's reals: 95% of splits lie from low to high."""
    rows = []
    for key, member in zip(groups.keys, groups.members.T, strict=True):
        splits = real_floor(measured.kernel, measured.real, groups.unit, member, FLOOR_SPLITS)
        band = np.quantile(splits, [0.025, 0.975]) if len(splits) else (np.nan, np.nan)
        rows.append((*key, float(band[0]), float(band[1])))
    return pd.DataFrame(rows, columns=["attribute", "level", "low", "high"])


def write_audit(
    result: OwnAudit, folder: Path | str, page: str, methods: str = "", *, force: bool = False
) -> Path:
    """Write card (HTML), methods paragraph, tables and stamp as a whole folder, or nothing.

    ``force`` replaces an earlier audit; any other folder that holds something is refused anyway.
    """
    folder = Path(folder)
    refuse_taken(folder, force)
    with atomic_folder(folder, replace=force) as place:
        (place / CARD).write_text(page, encoding="utf-8")
        (place / METHODS).write_text(methods + "\n", encoding="utf-8")
        for name, where in TABLES.items():
            if where.startswith("standardised") and result.standardised is None:
                continue
            table: pd.DataFrame = attrgetter(where)(result)
            if not table.empty:
                write_table(table, place / f"{name}.csv")
        write_json(place / STAMP, result.stamp)
    return folder


def refuse_taken(folder: Path | str, force: bool) -> None:
    """Raise for a folder that an audit must not replace: call it before the work, too."""
    folder = Path(folder)
    check_replaceable(folder)
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    other = sorted(set(held) - {CARD, METHODS, STAMP, *(f"{name}.csv" for name in TABLES)})
    if other or (held and not {CARD, STAMP} <= set(held)):
        raise InputError(
            f"{folder}: holds something other than an audit ({(other or held)[0]}); expected a "
            "new folder"
        )
    if held and not force:
        raise InputError(f"{folder}: holds an earlier audit; give another folder, or --force")


def _stamp(images: OwnImages, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, content of the inputs, versions, hardware, commit. Names no folder."""
    sets = {"real": images.real, "generated": images.generated}
    if images.train is not None:
        sets["train"] = images.train
    joined = "\n".join(own.content for own in sets.values())
    return {
        "parameters": dict(parameters),
        "content": {k: {"file": own.csv.name, "sha256": own.content} for k, own in sets.items()},
        "data_hash": hashlib.sha256(joined.encode()).hexdigest(),
        "simulated": images.simulated,
        **make_provenance(),
    }


def fid_of_halves(result: OwnAudit, draws: int = 5) -> pd.DataFrame:
    """FID between two random halves of the real images, whose truth is 0: n, draw, value.

    Of a quarter, half and all of each.
    """
    units = len(result.groups.members)
    half = (np.random.default_rng(0).permutation(units) < units // 2)[result.groups.unit]
    first, second = result.measured.real[half], result.measured.real[~half]
    n = min(len(first), len(second))
    return fid_against_n(first, second, [n // 4, n // 2, n], draws=draws)


# -- metrics of one's own --------------------------------------------------------------------


def statistic(values: Floats, summary: Callable[[Floats], Any]) -> Callable[[Ints], float]:
    """A function of row indices for ``rows_metric``: a summary of a value [N] per image.

    A smooth summary, as a standard deviation: the jackknife behind its interval is wrong for a
    median.
    """
    known = as_features(np.asarray(values, dtype=np.float64)[:, None], "values")[:, 0]
    return lambda rows: float(summary(known[rows]))
