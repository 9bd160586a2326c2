"""Sentences written from tables, whichever way the numbers fell; ``say(name, ...)`` shows one.

The plain statement comes first, then its number with the interval; the subject is a group or an
image, and nothing has a raw name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.memory import AUC, FOUND, NEARER, NO_SIGNAL
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.data.pictures import FileGap
from fairdiff_lib.settings.names import (
    classifier_name,
    images_of,
    level_name,
    method_name,
    name_of,
    number,
    p_text,
    rounded,
    space_title,
)
from fairdiff_lib.show.front import sentence
from fairdiff_lib.show.style import dataset_name, ordered_methods

Rows = pd.DataFrame
Row = pd.Series
NO_NUMBER = ("no interval: ", "not estimable: ")  # begin the note of an estimate that lacks one
LEAST = 0.05  # adjusted p below which a difference is named


def bullets(lines: Iterable[str], none: str = "") -> str:
    """A Markdown list; ``none`` where it would be empty."""
    return "\n".join(f"- {line}" for line in lines) or none


def listed(names: Sequence[str]) -> str:
    """As "A, B and C"."""
    return " and ".join(x for x in (", ".join(names[:-1]), *names[-1:]) if x)


def counted(count: int, one: str, many: str = "") -> str:
    """As "1 run" or "3 runs"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def extremes(table: Rows) -> tuple[Row, Row]:
    """Rows with the smallest and the largest value."""
    values = table["value"].to_numpy()
    return table.iloc[int(values.argmin())], table.iloc[int(values.argmax())]


def told_from(row: Any, chance: float, words: Sequence[str], ends: str = "") -> str:
    """Where an interval lies beside a value: words for above, below and neither."""
    low, high = float(row[f"low{ends}"]), float(row[f"high{ends}"])
    if not (np.isfinite(low) and np.isfinite(high)):
        return "without an interval"
    return words[0] if low > chance else words[1] if high < chance else words[2]


# -- 01, 05, 07, 12 --------------------------------------------------------------------------


@sentence("cohort")
def about_cohort(table: Rows) -> str:
    """Largest and smallest level of each attribute in the training split."""
    counts = table[(table["metric"] == "count") & (table["split"] == "train")]
    total = counts.loc[counts["attribute"] == "overall", "value"].iloc[0]
    lines = []
    for attribute, own in counts[counts["attribute"] != "overall"].groupby("attribute", sort=False):
        small, large = extremes(own)
        lines.append(
            f"{name_of(str(attribute))}: the smallest group is {small['level']} "
            f"({small['value']:,.0f}), the largest {large['level']} ({large['value']:,.0f})."
        )
    return f"The generator learns from {total:,.0f} subjects.\n\n{bullets(lines)}"


@sentence("gates")
def about_gates(gates: Rows) -> str:
    """How many checks passed, and which did not."""
    failed = gates[~gates["passed"].astype(bool)]
    if failed.empty:
        return f"All {len(gates)} checks passed."
    lines = [
        f"{name_of(str(gate))}: failed for "
        f"{listed([method_name(m) for m in dict.fromkeys(own['method'])])}."
        for gate, own in failed.groupby("gate", sort=False)
    ]
    return (
        f"**{len(failed)} of {len(gates)} checks failed.** Every table and figure below says so."
        f"\n\n{bullets(lines)}"
    )


@sentence("quality")
def about_quality(table: Rows, attributes: Sequence[str], metric: str = "kid") -> str:
    """Per method, the levels with the lowest and the highest value (one feature space's rows)."""
    rows, _ = means_and_seeds(table[table["metric"] == metric], ["method"])
    rows = rows[np.isfinite(rows["value"])]
    lines = []
    for method in ordered_methods(rows["method"]):
        own = rows[(rows["method"] == method) & rows["attribute"].isin(list(attributes))]
        if len(own):
            low, high = extremes(own)
            lines.append(
                f"{method_name(method)}: lowest for {low['level']}, {number(low)}; "
                f"highest for {high['level']}, {number(high)}."
            )
    return f"{name_of(metric)} by group:\n\n{bullets(lines)}\n\n{_one_seed(table)}".strip()


def _one_seed(table: Rows) -> str:
    """What a single training run can't say; empty where there are several."""
    if table["seeds"].astype(str).str.contains(",").any():
        return ""
    return (
        "With one training seed, a difference between methods can't be told from chance in "
        "training: the intervals cover other subjects, not other training runs."
    )


def about_contrast(row: Row, confidence: float = 0.95) -> str:
    """What a contrast says: a difference, an equivalence, or how much could have been missed."""
    level, other, where = row["level"], row["reference"], name_of(str(row["attribute"]))
    metric = name_of(str(row.get("metric", "kid")))
    if not np.isfinite(row["p_adjusted"]):
        why = row["note"] or "no test"
        return f"**{where}: {level} and {other} could not be compared**: {why}."
    limit, size = 1 - confidence, f"The difference in {metric} is {number(row)}"
    same = row["p_equivalence"] < limit
    if row["p_adjusted"] < limit:
        small = f", which is less than {rounded(row['smallest_effect'])}" * bool(same)
        p = p_text(float(row["p_adjusted"]))
        return f"**{where}: {level} differs from {other}.** {size}{small} (adjusted p {p})."
    if same:
        return (
            f"**{where}: {level} and {other} are equivalent**, to within "
            f"{rounded(row['smallest_effect'])}. {size}."
        )
    ratio = ""
    if np.isfinite(row["mde_ratio"]):
        ratio = f", {row['mde_ratio']:.3g} times the value of {other}"
    return (
        f"**{where}: no difference between {level} and {other} was seen.** {size}. One of up to "
        f"{row['mde']:.3g} could have been missed{ratio}; from {row['smallest_effect']:.3g} on it "
        "would be of interest."
    )


@sentence("contrasts")
def about_contrasts(table: Rows, confidence: float = 0.95) -> str:
    """A sentence for every declared contrast, those of small groups apart."""
    large, small = (
        bullets(
            about_contrast(row, confidence) for _, row in table[table["role"] == role].iterrows()
        )
        for role in ("primary", "secondary")
    )
    large = large or "No group that was declared has enough subjects to be tested first."
    apart = "Declared too, but of few subjects; their p is adjusted with that of all other looks:"
    return f"{large}\n\n{apart}\n\n{small}" if small else large


def about_small_levels(by_group: Rows, attributes: Sequence[str], below: int) -> str:
    """Names the levels with fewer than ``below`` units; empty where there is none."""
    own = by_group[by_group["attribute"].isin(list(attributes)) & (by_group["n"] < below)]
    names = ", ".join(f"{row.level} (n={row.n})" for row in own.itertuples())
    return f"Small groups, shown but not tested first: {names}." if names else ""


def about_files(gaps: Mapping[str, Sequence[FileGap]]) -> Iterator[str]:
    """What of the files goes with a group (of ``real`` or ``generated``), or with these two."""
    for name, found in gaps.items():
        said = "; ".join(
            f"{gap.what} are {gap.share:.0%} of {gap.most} and {gap.other:.0%} of {gap.least}"
            for gap in found
        )
        if said and name == "both":
            yield f"File format and size differ: {said}. Some of the distance may be the files'."
        elif said:
            yield (
                f"File format and size go with groups of the {name} images: {said}. A difference "
                "between these groups may be the files'."
            )


@sentence("files")
def files(cohort: Cohort) -> str:
    """Whether a property of the files goes with a group, and pictures that two subjects have."""
    said = [*about_files({"real": cohort.file_gaps}), *about_same_pictures(cohort)]
    return bullets(said) or (
        "Neither format nor size nor compression of the files goes with a patient group, and no "
        "two subjects have the same file."
    )


def about_same_pictures(cohort: Cohort) -> Iterator[str]:
    """Pictures under two subjects' names, and how many of them join two splits."""
    images, across = cohort.same_pictures
    if images:
        yield (
            f"{images:,} images are byte for byte those of another subject; {across:,} of them "
            "have their like in another split, so a model may have been trained on what it is "
            "tested on."
        )


def about_leavers(flow: Rows, unit: str) -> Iterator[str]:
    """Who was left out of which sets, and why."""
    sets: dict[str, list[str]] = {}
    for row in flow[flow["step"].str.startswith("left: ")].to_dict("records"):
        said = f"{row['units']:,} ({str(row['step']).removeprefix('left: ')})"
        sets.setdefault(str(row["set"]), []).append(said)
    same: dict[str, list[str]] = {}
    for name, reasons in sets.items():
        same.setdefault(", ".join(reasons), []).append(name)
    for said, names in same.items():
        yield f"{unit.capitalize()}s left out of the {' and the '.join(names)} images: {said}."


def one_at_a_time(file: str) -> str:
    """What comparing one attribute at a time leaves open."""
    return (
        "Attributes are compared one at a time: a difference in one may come from another that "
        f"goes with it (see {file})."
    )


class Declared(Protocol):
    """What a sentence needs of the protocol."""

    @property
    def digest(self) -> str: ...
    @property
    def contrasts(self) -> Sequence[Any]: ...
    @property
    def tests(self) -> Sequence[Any]: ...


@sentence("protocol")
def about_protocol(rule: Declared, before: bool, written: str = "") -> str:
    """When the protocol was written, and how much of what it declares can be decided here."""
    when = "before" if before else "**after**"
    groups = listed([f"{c.level} against {c.reference}" for c in rule.contrasts])
    able = sum(bool(test.testable) for test in rule.tests)
    return (
        f"The protocol was written {f'on {written}, ' * bool(written)}{when} any test image "
        f"existed. It compares {groups}. Of its {len(rule.tests)} tests, {able} can be decided "
        f"with these patients. (Protocol {rule.digest}.)"
    )


@sentence("downstream")
def about_downstream(table: Rows, condition: str, metric: str = "es_auc") -> str:
    """Equity-scaled AUC of the primary condition for every source of images and classifier."""
    chosen = table[(table["metric"] == metric) & (table["condition"] == condition)]
    rows, _ = means_and_seeds(chosen, ["source", "classifier"])
    lines = []
    for classifier, part in rows.groupby("classifier", sort=False):
        for source in ordered_methods(part["source"]):
            values = "; ".join(
                f"{name_of(str(row['attribute'])).lower()} {number(row)}"
                for _, row in part[part["source"] == source].iterrows()
            )
            lines.append(
                f"{classifier_name(str(classifier))} trained on {images_of(source)}: {values}."
            )
    head = f"{name_of(metric)} for {name_of(condition).lower()}; 1 is best."
    return f"{head}\n\n{bullets(lines)}\n\n{_one_seed(table)}".strip()


# -- 09 --------------------------------------------------------------------------------------


def verdict_matrix(table: Rows) -> Rows:
    """T14: a row per claim and part, a column per data set."""
    named = table.assign(
        claim=[f"{row.claim} {row.part}".strip() for row in table.itertuples()],
        dataset=[dataset_name(name) for name in table["dataset"]],
    )
    wide = named.pivot(index="claim", columns="dataset", values="verdict").fillna("")
    # simulated data are asked another first question: a real set's words, where there is one
    simulated = table["dataset"].str.endswith("_simulated")
    words = pd.concat([named[~simulated], named[simulated]]).drop_duplicates("claim")
    wide.insert(0, "what is claimed", words.set_index("claim")["statement"])
    return wide.rename_axis(columns=None).reset_index()


@sentence("quotes")
def about_quotes(table: Rows) -> str:
    """Of each data set its limits, and for each claim what may be quoted and what may not."""
    parts = []
    for dataset, own in table.groupby("dataset", sort=False):
        lines = bullets(
            f"**{f'{row.claim} {row.part}'.strip()}: {row.verdict}** ({row.bearing}). {row.quote} "
            f"Not to be said: *{row.not_to_say}*"
            for row in own.itertuples()
        )
        parts.append(f"**{dataset_name(str(dataset))}.** {own['limits'].iloc[0]}\n\n{lines}")
    return "\n\n".join(parts)


@sentence("control")
def about_control(effects: Rows) -> str:
    """Whether the planted disparity was found, and that nothing was where nothing was planted."""
    lines = []
    for row in effects[effects["claim"] == "control"].to_dict("records"):
        seen = "is found" if row["low"] > 0 else "is not found"
        if row["part"] == "untouched":
            seen = "shows no difference" if row["low"] <= 0 <= row["high"] else "differs by chance"
        what = "The group" if row["part"] == "planted" else "The same group, untouched,"
        if row["endpoint"] == "auc":
            what = "That classifiers of generated images learn anything"
        lines.append(f"{what} {seen} in {_put(row['endpoint'])}: {number(row)}.")
    return bullets(lines, "No control was made.")


def _put(endpoint: str) -> str:
    return {"equivalent_blur": "equivalent blur, in pixels"}.get(endpoint, name_of(endpoint))


@sentence("planted")
def about_planted(table: Rows) -> str:
    """What was measured where something was planted; and the false alarms where nothing was."""
    rows = table[(table["claim"] == "C1") & (table["planted"] != "")]
    if rows.empty:
        return "The data are real: nothing was planted."
    return bullets(
        f"{level_name(row['attribute'], row['level'])}, drawn with {row['planted']}: "
        f"{row['as_planted']} in {_put(row['endpoint'])}."
        for row in rows.to_dict("records")
    )


# -- 14 and 15: privacy, guidance and steps --------------------------------------------------


@sentence("nearest")
def about_nearest(table: Rows) -> str:
    """The overall share of images nearer to training images, read against a half."""
    own = means_and_seeds(table[table["metric"] == NEARER], ["method"])[0]
    own = own[own["attribute"] == "overall"]
    words = ("more than a half", "less than a half", "not told from a half")
    return bullets(
        f"{method_name(method)}, {space_title(row['features'])} features: a share of {number(row)} "
        f"lies nearer to a training image, {told_from(row, NO_SIGNAL, words)}."
        for method in ordered_methods(own["method"])
        for _, row in own[own["method"] == method].iterrows()
    )


@sentence("members")
def about_members(table: Rows, false_positives: float) -> str:
    """AUC and members found per method, and the level that is found best."""
    shown = means_and_seeds(table[table["metric"].isin([AUC, FOUND])], ["method"])[0]
    lines = []
    for method in ordered_methods(shown["method"]):
        own = shown[shown["method"] == method]
        whole = own[own["attribute"] == "overall"]
        auc, found = (whole[whole["metric"] == name].iloc[0] for name in (AUC, FOUND))
        levels = own[(own["attribute"] != "overall") & (own["metric"] == AUC)]
        levels = levels[np.isfinite(levels["value"])]
        known = told_from(auc, 0.5, ("better than", "worse than", "no better than"))
        more = told_from(found, false_positives, ("more than", "fewer than", "no more than"))
        text = (
            f"{method_name(method)}: training subjects are told from others {known} by guessing, "
            f"AUC {number(auc)}. At {100 * false_positives:g}% false alarms, a share of "
            f"{number(found)} is found, {more} by chance."
        )
        if len(levels):
            most = extremes(levels)[1]
            text += f" The highest AUC is that of {most['level']}, {number(most)}."
        lines.append(text)
    return bullets(lines)


@sentence("level_gaps")
def about_level_gaps(contrasts: Rows) -> str:
    """The differences between levels that stand up, or that none does."""
    rows = contrasts[contrasts["role"] == "exploratory"]
    tested = rows[np.isfinite(rows["p_adjusted"])]
    found = tested[tested["p_adjusted"] < LEAST]
    none = len(rows) - len(tested)
    if tested.empty:
        return f"None of the {none} differences between groups could be tested."
    many = f"{len(found)} of {len(tested)}" if len(found) else f"None of {len(tested)}"
    head = f"{many} tested differences between groups stand up after correction; all are "
    head += "exploratory." + f" {none} could not be tested." * bool(none)
    lines = [
        f"{method_name(row['method'])}, {name_of(str(row['metric']))}{_where(row)}: {row['level']} "
        f"against {row['reference']} {number(row)}, adjusted p {p_text(float(row['p_adjusted']))}."
        for _, row in found.iterrows()
    ]
    return f"{head}\n\n{bullets(lines)}".strip()


@sentence("cells")
def about_cells(changes: Rows, features: str) -> str:
    """Overall change in KID of every cell against the study's own."""
    own = changes[(changes["attribute"] == "overall") & (changes["features"] == features)]
    words = ("worse", "better", "no change seen")
    return bullets(
        (
            f"Guidance {row['guidance']:g}, {row['steps']} steps: {told_from(row, 0, words)}. KID "
            f"changes by {number(row)}."
            for _, row in own.iterrows()
        ),
        "The study's own cell is the only one.",
    )


def _where(row: Row) -> str:
    """The feature space, the condition and the cell of the sweep, where the row rests on one."""
    space = f" ({space_title(row['features'])} features)" if row["features"] else ""
    if row.get("condition", "all") != "all":
        space += f", {name_of(str(row['condition']))}"
    if "guidance" not in row:
        return space
    return f"{space}, guidance {rounded(float(row['guidance']))}, {row['steps']} steps"


# -- 11: an audit -----------------------------------------------------------------------------


@sentence("fid_of_halves")
def about_halves(table: Rows) -> str:
    """What plain FID says of two halves of the same images, by how many there are."""
    means = table.groupby("n")["value"].mean()
    lines = [
        f"With {n:,} images in each half FID is {rounded(value)}." for n, value in means.items()
    ]
    falls = bool((means.diff().dropna() < 0).all())
    said = "It falls as n grows" if falls else "It does not fall at every step here"
    return f"{' '.join(lines)} {said}; the true FID is 0, so all of it is bias."


def contrast_name(row: Mapping[Any, Any]) -> str:
    """As "Sex: Female minus Male"."""
    return f"{name_of(str(row['attribute']))}: {row['level']} minus {row['reference']}"


def decision(row: Mapping[Any, Any]) -> str:
    """What was decided of one declared test; of one that can't decide, that this was known."""
    if row["testable"]:
        return str(row["verdict"])
    needed = row["n_needed"]
    wanted = f"; it would need about n = {needed:,.0f}" if np.isfinite(needed) else ""
    return f"undecided, as declared beforehand{wanted}"


@sentence("declared_finding")
def declared_finding(tests: pd.DataFrame) -> str:
    """The declared differences between groups, each with its verdict, in pixels of blur."""
    return " ".join(
        f"{contrast_name(row)}: {decision(row)}. It is {number(row)} px of equivalent blur."
        for row in tests.to_dict("records")
    )


@sentence("finding")
def finding(audit: Audit) -> str:
    """The result in words: what differs, or how large a difference could have been missed."""
    table = audit.contrasts
    tested = table[np.isfinite(table["p_adjusted"])]
    alone = _not_compared(audit, "value" if tested.empty else "low")
    if tested.empty:
        return f"No comparison could be made: {_why_untested(audit)}.{alone}"
    clear = tested[tested["p_adjusted"] < 1 - audit.design.confidence].sort_values("p")
    said = [_difference(audit, row) for _, row in clear.head(3).iterrows()]
    if len(clear) > 3:
        said.append(f"{len(clear) - 3} more differences are in the table.")
    if len(clear) < len(tested):
        said.append(_missed(audit, tested.drop(clear.index), "other " if len(clear) else ""))
    return " ".join(said) + alone


def _why_untested(audit: Audit) -> str:
    """What keeps all images from an interval, else what keeps the groups that have a value."""
    table, whole = audit.contrasts, audit.overall
    valued = table.loc[np.isfinite(table["value"]), "note"].tolist()
    parts = "; ".join(valued if whole.standard_error > 0 else [whole.note]).split("; ")
    reasons = [part.partition(": ")[2] for part in parts if part.startswith(NO_NUMBER)]
    return listed(list(dict.fromkeys(reasons))) or "too few groups are large enough"


def _not_compared(audit: Audit, lacking: str) -> str:
    """Levels without a value, or a limit of one, and why: no image in one of the sets, too few."""
    own = audit.by_group[audit.by_group["attribute"].isin(list(audit.attributes))]
    own = own[own[lacking].isna()]
    reasons = own["note"].str.removeprefix("not estimable: ").str.removeprefix("no interval: ")
    said = [
        f"{name_of(attribute).lower()} {level} ({reason or 'not estimable'})"
        for attribute, level, reason in zip(own["attribute"], own["level"], reasons, strict=True)
    ]
    return f" Not compared: {', '.join(said)}." if said else ""


def _difference(audit: Audit, row: pd.Series[Any]) -> str:
    """One difference that was found, from the side of the worse level."""
    worse = (row["value"] > 0) == (audit.design.better == "low")
    names = [str(row["level"]), str(row["reference"])]
    first, second = names if worse else reversed(names)
    size = row.copy()
    if row["value"] < 0:
        size["value"], size["low"], size["high"] = -row["value"], -row["high"], -row["low"]
    small = min(row["n"], row["n_reference"])
    thin = "" if row["role"] == "primary" else f" (a small group, n={int(small)})"
    side = "higher" if audit.design.better == "low" else "lower"
    return (
        f"{name_of(str(row['attribute']))}: worse for {first} than for {second}{thin}, {side} "
        f"{name_of(audit.metric)} by {number(size)}, adjusted p {p_text(float(row['p_adjusted']))}."
    )


def _missed(audit: Audit, rest: pd.DataFrame, other: str) -> str:
    """What "no difference seen" leaves possible; equivalence only where a test says so."""
    metric = name_of(audit.metric)
    count = f"{len(rest)} {other}comparison{'s' if len(rest) > 1 else ''}"
    if (rest["p_equivalence"] < 1 - audit.design.confidence).all():
        margin = rest["smallest_effect"].max()
        return f"In {count}, levels are equal to within {margin:.2g} {metric} (equivalence test)."
    references = zip(rest["attribute"], rest["reference"], strict=True)
    known = [audit.estimates[key].interval(audit.design.confidence)[0] > 0 for key in references]
    reach = f"one of up to {rest['mde'].max():.2g} {metric}"
    if audit.design.better == "low" and all(known):  # a ratio to what may be 0 says nothing
        reach = f"a {metric} of up to {rest['mde_ratio'].max():.2g} times the reference's"
    return f"In {count} no difference was seen, but {reach} could have been missed."
