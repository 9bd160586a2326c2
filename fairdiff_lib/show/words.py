"""One sentence per figure, written from its table: right whatever the run showed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.show.style import dataset_name, look_of, name_of, ordered_methods
from fairdiff_lib.studies.verdict.protocol import Protocol


def number(row: pd.Series) -> str:
    """Value with its interval, where it has one."""
    value, low, high = (float(row[key]) for key in ("value", "low", "high"))
    if not np.isfinite(value):
        return "not estimable"
    if np.isfinite(low) and np.isfinite(high):
        return f"{value:.3g} ({low:.3g} to {high:.3g})"
    return f"{value:.3g}"


def extremes(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Rows with the smallest and the largest value."""
    values = table["value"].to_numpy()
    return table.iloc[int(values.argmin())], table.iloc[int(values.argmax())]


def about_cohort(table: pd.DataFrame) -> str:
    """Largest and smallest level of each attribute in the training split."""
    counts = table[(table["metric"] == "count") & (table["split"] == "train")]
    parts = []
    for attribute, own in counts[counts["attribute"] != "overall"].groupby("attribute", sort=False):
        small, large = extremes(own)
        parts.append(
            f"{attribute} from {small['level']} ({small['value']:.0f}) "
            f"to {large['level']} ({large['value']:.0f})"
        )
    total = counts.loc[counts["attribute"] == "overall", "value"].iloc[0]
    return f"Of {total:.0f} training subjects, the levels' sizes range: {'; '.join(parts)}."


def about_gates(gates: pd.DataFrame) -> str:
    """How many gates passed, and which did not."""
    failed = gates[~gates["passed"].astype(bool)]
    if failed.empty:
        return f"All {len(gates)} gates passed."
    parts = [
        f"{gate} ({', '.join(dict.fromkeys(own['method']))})"
        for gate, own in failed.groupby("gate", sort=False)
    ]
    names = "; ".join(parts)
    return (
        f"**{len(failed)} of {len(gates)} gates failed: {names}.** "
        "Every table and figure below says so."
    )


def about_quality(table: pd.DataFrame, attributes: Sequence[str], metric: str = "kid") -> str:
    """Per method, the levels with the lowest and the highest value (one feature space's rows)."""
    rows, _ = means_and_seeds(table[table["metric"] == metric], ["method"])
    rows = rows[np.isfinite(rows["value"])]
    parts = []
    for method in ordered_methods(rows["method"]):
        own = rows[(rows["method"] == method) & rows["attribute"].isin(list(attributes))]
        if own.empty:
            continue
        low, high = extremes(own)
        parts.append(
            f"{look_of(method).label}: lowest for {low['level']}, {number(low)}, "
            f"highest for {high['level']}, {number(high)}"
        )
    warning = "" if table["seeds"].astype(str).str.contains(",").any() else one_seed()
    return f"{name_of(metric)} by level. {'; '.join(parts)}.{warning}"


def about_contrast(row: pd.Series, share: float = 0.2, confidence: float = 0.95) -> str:
    """What a contrast says: a difference, an equivalence, or how much could have been missed.

    Parameters
    ----------
    row : Series
        A row of ``contrasts.CONTRAST_COLUMNS``.
    share : float
        Smallest effect of interest, x the baseline's value.
    confidence : float
    """
    name = f"{row['attribute']} {row['level']} against {row['reference']}"
    if not np.isfinite(row["p_adjusted"]):
        return f"{name}: {row['note'] or 'no test'}."
    level, size = 1 - confidence, number(row)
    same = row["p_equivalence"] < level
    if row["p_adjusted"] < level:
        small = f", though by less than {share:.0%} of the baseline" if same else ""
        return f"{name}: differs by {size}, adjusted p {row['p_adjusted']:.2g}{small}."
    if same:
        return f"{name}: equivalent within {share:.0%} of the baseline, {size}."
    ratio = f" (ratio {row['mde_ratio']:.3g})" if np.isfinite(row["mde_ratio"]) else ""
    return (
        f"{name}: no difference seen, {size}; could have missed up to {row['mde']:.3g}{ratio}, "
        f"where {row['smallest_effect']:.3g} is of interest."
    )


def about_contrasts(table: pd.DataFrame, share: float = 0.2, confidence: float = 0.95) -> str:
    """A Markdown list: a sentence for every declared contrast."""
    own = table[table["role"] == "primary"]
    if own.empty:
        return "No contrast was declared: no level has enough subjects."
    lines = [f"- {about_contrast(row, share, confidence)}" for _, row in own.iterrows()]
    return "\n".join(lines)


def about_small_levels(by_group: pd.DataFrame, attributes: Sequence[str], below: int) -> str:
    """Names the levels with fewer than ``below`` units; empty where there is none."""
    own = by_group[by_group["attribute"].isin(list(attributes)) & (by_group["n"] < below)]
    names = ", ".join(f"{row.level} (n={row.n})" for row in own.itertuples())
    return f"Small levels, shown but not primary: {names}." if names else ""


def one_at_a_time(file: str) -> str:
    """What comparing one attribute at a time leaves open."""
    return (
        "Attributes are compared one at a time: a difference in one may come from another that "
        f"goes with it (see {file})."
    )


def about_protocol(rule: Protocol, before: bool) -> str:
    """The protocol's hash, when it was written, and what it declares."""
    when = "before" if before else "**after**"
    small = [c.level for c in rule.contrasts if c.role == "secondary"]
    primary = len(rule.contrasts) - len(small)
    left_out = f"; too small to be primary: {', '.join(small)}" if small else ""
    return (
        f"Protocol {rule.digest}, written {when} any test image existed: {primary} declared "
        f"contrast(s) of {name_of(rule.metric)}{left_out}."
    )


def one_seed() -> str:
    """What a single training run can't say."""
    return (
        " With one training seed, differences between methods can't be told from chance in "
        "training; the intervals cover subjects only."
    )


def about_optimiser(runs: pd.DataFrame) -> str:
    """Optimiser's calls and its share of the training time, per method."""
    parts = [
        f"{look_of(str(method)).label}: {own['proposals'].sum():.0f} proposals "
        f"in {len(own)} run(s), {own['optimiser_share'].mean():.1%} of the training time"
        for method, own in runs.groupby("method", sort=False)
    ]
    return "; ".join(parts) + "."


def about_downstream(table: pd.DataFrame, condition: str, metric: str = "es_auc") -> str:
    """Equity-scaled AUC of the primary condition for every source of images and classifier."""
    chosen = table[(table["metric"] == metric) & (table["condition"] == condition)]
    rows, _ = means_and_seeds(chosen, ["source", "classifier"])
    parts = []
    for classifier, part in rows.groupby("classifier", sort=False):
        for source in ordered_methods(part["source"]):
            own = part[part["source"] == source]
            values = ", ".join(f"{row['attribute']} {number(row)}" for _, row in own.iterrows())
            parts.append(f"{look_of(source).label}, {classifier}: {values}")
    warning = "" if table["seeds"].astype(str).str.contains(",").any() else one_seed()
    return f"{name_of(metric)} for {condition}. {'; '.join(parts)}.{warning}"


def about_methods(table: pd.DataFrame, column: str) -> str:
    """A Markdown list: for every name in a column, each method's value.

    Parameters
    ----------
    table : DataFrame
        method, seeds, value, low, high and the column; one row per method and name.
    column : str
        As "condition" or "attribute".
    """
    rows, _ = means_and_seeds(table, ["method"])
    lines = []
    for name, own in rows.groupby(column, sort=False):
        values = [
            f"{look_of(method).label} {number(own[own['method'] == method].iloc[0])}"
            for method in ordered_methods(own["method"])
        ]
        lines.append(f"- {name_of(str(name))}: {'; '.join(values)}")
    return "\n".join(lines)


def verdict_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """T14's cited verdicts: a row per claim, a column per dataset."""
    cited = table[table["cited"].astype(bool)]
    wide = cited.pivot(index="claim", columns="dataset", values="verdict")
    named = wide.rename(columns={name: dataset_name(name) for name in wide.columns})
    words = cited.drop_duplicates("claim").set_index("claim")["statement"]
    named.insert(0, "what is claimed", words)
    return named.rename_axis(columns=None).reset_index()


def about_quotes(table: pd.DataFrame) -> str:
    """Of each dataset its limits, and a list of the sentences to quote of its cited verdicts."""
    parts = []
    for dataset, own in table[table["cited"].astype(bool)].groupby("dataset", sort=False):
        lines = [f"- **{row.claim}: {row.verdict}.** {row.quote}" for row in own.itertuples()]
        head = f"**{dataset_name(str(dataset))}.** {own['limits'].iloc[0]}"
        parts.append("\n".join([head, "", *lines]))
    return "\n\n".join(parts)


def about_reasons(table: pd.DataFrame) -> str:
    """A Markdown list: why each verdict is as it is, of all studies."""
    lines = [
        f"- {dataset_name(str(row.dataset))}, {row.claim}, {row.study} study: {row.reason}."
        for row in table.itertuples()
    ]
    return "\n".join(lines)
