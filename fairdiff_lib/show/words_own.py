"""Words about an audit of anybody's own images, and its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from fairdiff_lib.settings.names import rounded
from fairdiff_lib.show.cards import ENDPOINT, Facts, finding, render_html
from fairdiff_lib.show.front import sentence
from fairdiff_lib.show.words import about_small_levels, one_at_a_time

if TYPE_CHECKING:
    from fairdiff_lib.audit.audit import Audit
    from fairdiff_lib.studies.own import OwnAudit, OwnSet


def own_card(result: OwnAudit) -> str:
    """The card as a page of HTML."""
    return render_html(result.audit, own_facts(result), result.stamp)


def _counts(own: OwnSet, unit: str) -> str:
    return f"{own.csv.name}: {len(own):,} images of {own.table[unit].nunique():,} {unit}s"


def own_facts(result: OwnAudit) -> Facts:
    """What the card says besides the audit's own numbers."""
    images, measured, found = result.images, result.measured, result.audit
    simulated = " (simulated images)" if images.simulated else ""
    compared = [
        ("Real images", _counts(images.real, images.unit)),
        ("Generated images", _counts(images.generated, images.unit)),
        ("Features", f"{measured.name}, from images reduced to {measured.size} pixels"),
    ]
    shared = images.real.table[images.unit].nunique()
    how = f"paired, the same {shared:,} {images.unit}s in both" if images.paired else "unpaired"
    compared.insert(2, ("Comparison", how))
    if images.train is not None:
        compared.insert(2, ("Training images", _counts(images.train, images.unit)))
    below = found.design.secondary_below
    condition = next(iter(images.conditions), "")
    return Facts(
        title=f"Is this generator equally good for every group?{simulated}",
        compared=compared,
        endpoint=ENDPOINT.format(below=below, unit=images.unit),
        caveats=_caveats(result, condition),
        unit=images.unit,
        floor=result.floor,
        standardised=None if result.standardised is None else result.standardised.contrasts,
        mix=condition,
    )


def _caveats(result: OwnAudit, condition: str) -> list[str]:
    """What limits this audit, the most important first."""
    images, measured, found, unit = (
        result.images, result.measured, result.audit, result.images.unit
    )  # fmt: skip
    said = ["Exploratory: no protocol was registered before these images were compared."]
    if not condition:
        said.append("Case mix: not standardised; a group with harder cases looks worse.")
    elif result.standardised is None:
        said.append(
            f"Case mix: not standardised for {condition}; that takes the same {unit}s in both sets."
        )
    if len(images.attributes) > 1:
        said.append(one_at_a_time("intersections.csv"))
    if not images.paired:
        said.append(f"Unpaired: the sets share no {unit}, which makes intervals wider.")
    if measured.sees:
        said.append(
            f"Features: {measured.name} sees {measured.sees}. Repeat with features of your field "
            "(--features)."
        )
    if measured.hardly_vary:
        said.append(measured.hardly_vary)
    if images.train is None:
        said.append(
            "Feature scale and kernel bandwidth were fixed on the real images compared here, as no "
            "training images were given."
        )
    small = about_small_levels(
        found.by_group, list(images.attributes), found.design.secondary_below
    )
    if small:
        said.append(small)
    if images.left_out:
        said.append(f"{images.left_out}.")
    return said


@sentence("finding")
def about_finding(audit: Audit) -> str:
    """What differs, or how large a difference could have been missed."""
    return finding(audit)


@sentence("fid_of_halves")
def about_halves(table: pd.DataFrame) -> str:
    """What plain FID says of two halves of the same images, by how many there are."""
    means = table.groupby("n")["value"].mean()
    lines = [
        f"With {n:,} images in each half FID is {rounded(value)}." for n, value in means.items()
    ]
    falls = bool((means.diff().dropna() < 0).all())
    said = "It falls as n grows" if falls else "It does not fall at every step here"
    return f"{' '.join(lines)} {said}; the true FID is 0, so all of it is bias."
