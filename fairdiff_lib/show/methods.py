"""The sentences that a paper needs of an audit, made from what was run; beside every card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fairdiff_lib
from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.estimate import OVERALL
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.settings.names import name_of


@dataclass(frozen=True)
class Measuring:
    """What was measured with, as far as the audit itself does not say it."""

    extractor: str  # network, weights and their hash, layers, resize
    images: str  # how many, and what of
    size: int  # pixels that images were read at
    base: str  # real images that scale and kernel were fixed on, in words
    kernel: Kernel
    hardly_vary: str = ""  # which features do
    models: str = ""  # what the generated images come from, and for what the intervals hold
    copies: str = ""  # near-identical generated images
    more: str = ""  # a second look, as at a common case mix


def methods_text(
    audit: Audit, blur: Audit | None, how: Measuring, stamp: Mapping[str, Any], unit: str
) -> str:
    """A paragraph on extractor, n, reference, resize, kernel, intervals and tests."""
    design, share = audit.design, f"{audit.design.confidence:.0%}"
    said = [
        f"{how.images}, read at {how.size} x {how.size} pixels, were compared by the Kernel "
        f"Inception Distance (KID), an unbiased U-statistic over pairs of different {unit}s; each "
        "group's generated images with its own real ones.",
        how.models,
        f"Features: {how.extractor}.",
        f"They were scaled by their spread over {how.base}. {how.hardly_vary}".strip(),
        f"The kernel is a radial basis function with bandwidth {how.kernel.bandwidth:.4g}, the "
        "median distance between the same images.",
        f"n, in {unit}s: {_counts(audit)}.",
        f"Each level was compared with its attribute's largest ({_references(audit)}).",
        f"Intervals are {share}, from a jackknife over {unit}s: of a KID on the scale of its root, "
        "of a difference from the limits of both groups (MOVER).",
        f"p values are two-sided; over the differences between levels of at least "
        f"{design.secondary_below} {unit}s they are adjusted by the largest |t|, over all others "
        "by the false discovery rate.",
        how.more,
    ]
    if blur is not None:
        said.append(
            "Equivalent blur is the standard deviation, in pixels, of the Gaussian blur of a "
            f"group's own real images whose KID, against real images of other {unit}s, is that of "
            "the generated images."
        )
    said.append(how.copies or "No two generated images were nearly identical.")
    commit = stamp["commit"]
    code = f"commit {commit[:10]}" if commit else "no commit"
    said.append(f"Software: fairdiff {fairdiff_lib.__version__}, {code}.")
    return " ".join(part for part in said if part)


def _counts(audit: Audit) -> str:
    parts = [f"{audit.n[OVERALL]:,} in all"]
    for name, levels in audit.attributes.items():
        known = ", ".join(f"{level} {audit.n[name, level]:,}" for level in levels)
        parts.append(f"{name_of(name).lower()}: {known}")
    return "; ".join(parts)


def _references(audit: Audit) -> str:
    pairs = audit.contrasts.drop_duplicates("attribute")
    return ", ".join(pairs["reference"].astype(str))
