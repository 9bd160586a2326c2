"""08: from the recorded runs to T12, T13, the cost, and the verdict on C2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.contrasts import PRIMARY
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.methods import BASELINE
from fairdiff_lib.settings.names import name_of
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.studies.ablation.compare import (
    DISPARITY,
    Recorded,
    cell_table,
    cost_table,
    disparity_rows,
    dose_table,
    method_table,
)
from fairdiff_lib.studies.ablation.runs import check_declaration, read_runs
from fairdiff_lib.studies.verdict.claims import ABLATION, Evidence
from fairdiff_lib.studies.verdict.protocol import protocol_of
from fairdiff_lib.studies.verdict.table import as_table, model_words, quality_verdict
from fairdiff_lib.study import Study

JUDGED = ("fairdiffusion", "fairdiffusion_corrected")  # arms that C2 is asked of


@dataclass(frozen=True)
class AblationResult:
    """The ablation study's tables.

    Attributes
    ----------
    cells, methods : DataFrame
        T12, T13: see :mod:`comparisons`. T12 has no row where its cells were not run.
    doses, cost : DataFrame
    c2 : DataFrame
        A row per judged arm, in ``verdict.COLUMNS`` and method.
    notes : list of str
        Gates that failed in any run, a line each.
    before : bool
        The comparisons were declared before any run was measured.
    """

    cells: pd.DataFrame
    methods: pd.DataFrame
    doses: pd.DataFrame
    cost: pd.DataFrame
    c2: pd.DataFrame
    notes: list[str]
    before: bool


def collect_ablation(settings: Settings, layout: Places, cohort: Cohort) -> AblationResult:
    """All tables of the ablation study, from what was recorded of its runs.

    Raises
    ------
    InputError
        A run is missing, runs don't compare, or there is no declaration.
    """
    before = check_declaration(Study(settings, layout))
    found = read_runs(settings, layout, cohort)
    runs = {run.key: run for run in found}
    gates = pd.DataFrame([row for run in found for row in run.gates])
    notes = tables.failed_gates(gates)
    share = settings.audit.smallest_effect
    methods = method_table(settings, runs, share)
    has_cells = arms.WINDOW in settings.ablation.roles
    cells = cell_table(settings, runs, share) if has_cells else methods.head(0)
    return AblationResult(
        cells if cells.empty else tables.with_notes(cells, notes),
        tables.with_notes(methods, notes),
        dose_table(settings, runs),
        cost_table(settings, runs),
        c2_table(Study(settings, layout), runs, methods, notes, before),
        notes,
        before,
    )


def publish_ablation(study: Study, result: AblationResult) -> list[Path]:
    """Write T12, T13, the cost of every run, and the verdict on C2."""
    todo = {"tab12": result.cells, "tab13": result.methods, "tab_cost": result.cost}
    return [study.publish(name, table) for name, table in {**todo, "tab_c2": result.c2}.items()]


def option_table(methods: pd.DataFrame, roles: Mapping[str, str]) -> pd.DataFrame:
    """Controls and single options against FairDiffusion: overall KID, its disparity, the loss's."""
    own = methods[(methods["baseline"] == "fairdiffusion") & (methods["attribute"] == "overall")]
    own = own[own["method"].map(roles).isin(["control", "option"])]
    first = methods.loc[methods["metric"] == "kid", "features"].iloc[0]
    own = own[own["features"].isin([first, ""])]
    own = own[own["metric"].isin(["kid", "kid_disparity", "denoising_loss_disparity"])]
    return own[["method", "baseline", "seeds", "metric", "value", "low", "high"]]


def ablation_scalars(result: AblationResult) -> dict[str, Any]:
    """What 08 records: rows, and the verdicts."""
    verdicts = {f"c2_{row.method}": row.verdict for row in result.c2.itertuples()}
    rows = {"cell_rows": len(result.cells), "method_rows": len(result.methods)}
    return {**rows, **verdicts, "runs": len(result.cost)}


def c2_table(
    study: Study,
    runs: Recorded,
    methods: pd.DataFrame,
    notes: list[str],
    before: bool,
) -> pd.DataFrame:
    """The verdict on C2 of each judged arm, by the study's own rule and T13's adjusted p."""
    settings, cohort = study.settings, study.cohort
    names = {arm.name for arm in arms.arms_of(settings)}
    rows = []
    for arm in (name for name in JUDGED if name in names):
        rule = replace(protocol_of(study), method=arm, seeds=settings.ablation.seeds)
        evidence = Evidence(
            dataset=settings.dataset,
            attributes=list(cohort.attribute_levels),
            quality=_by_seed({k: v for k, v in runs.items() if k[0] in (BASELINE, arm)}),
            contrasts=pd.DataFrame(),
            downstream=pd.DataFrame(),
            failed=notes,
            before=before,
            model=model_words(settings),
            study=ABLATION,
        )
        own = methods[(methods["method"] == arm) & (methods["baseline"] == BASELINE)]
        own = own[(own["metric"] == DISPARITY) & (own["role"] == PRIMARY)]
        p = float(own["p_adjusted"].iloc[0]) if len(own) else float("nan")
        rows.append({"method": arm, **quality_verdict(evidence, rule, p)})
    table = as_table(rows)
    table.insert(0, "method", [row["method"] for row in rows])
    return table


def _by_seed(runs: Recorded) -> pd.DataFrame:
    """Values of every run, as ``verdict.Evidence.quality`` wants them."""
    parts = [
        pd.concat([own.by_group, disparity_rows(own)], ignore_index=True).assign(
            method=arm, seeds=str(seed), features=own.features
        )
        for (arm, seed), run in runs.items()
        for own in run.audits
    ]
    return pd.concat(parts, ignore_index=True)


# -- in words --------------------------------------------------------------------------------


def arm_words(name: str) -> str:
    """An arm's name in a sentence."""
    return name_of(name).replace("Fairdiffusion", "FairDiffusion").replace("Fis", "FIS")


def about_comparison(row: Mapping[Any, Any]) -> str:
    """One declared comparison: its size, its test, and what it could have missed."""
    what = "squared KID difference of levels" if row["metric"] == DISPARITY else "KID"
    text = (
        f"{arm_words(row['method'])} minus {row['baseline']}, {what}: {row['value']:+.2g} "
        f"({row['low']:+.2g} to {row['high']:+.2g})"
    )
    if not np.isfinite(row["p_adjusted"]):
        return f"{text}; too few seeds for a test"
    text += f", adjusted p {row['p_adjusted']:.2g}"
    if row["p_adjusted"] < 0.05:
        return f"{text}: {'better' if row['value'] < 0 else 'worse'}"
    if row["p_equivalence"] < 0.05:
        return (
            f"{text}: no effect as large as the smallest of interest ({row['smallest_effect']:.2g})"
        )
    return f"{text}: undecided, {row['mde']:.2g} would have been found with 80% power"


def about_declared(methods: pd.DataFrame) -> str:
    """The declared comparisons, a line each."""
    rows = methods[methods["role"] == PRIMARY]
    return "\n".join(f"- {about_comparison(row)}." for row in rows.to_dict("records"))


def about_bayes(methods: pd.DataFrame, arm: str, shuffled: str) -> str:
    """Does what the optimiser is told matter?"""
    rows = methods[(methods["role"] == PRIMARY) & (methods["method"] == arm)]
    rows = rows[rows["baseline"] == shuffled]
    name = f"{arm_words(arm)} against itself with shuffled scores"
    if rows.empty or not np.isfinite(rows["p_adjusted"]).any():
        return f"{name}: too few seeds for a test."
    found = rows[rows["p_adjusted"] < 0.05]
    if len(found):
        better = "better" if (found["value"] < 0).all() else "different, not better in all,"
        return (
            f"{name}: {better} in {', '.join(found['metric'])}; the Bayesian part does something."
        )
    if (rows["p_equivalence"] < 0.05).all():
        return (
            f"{name}: equivalent in both endpoints. Whatever the optimiser is told, the images are "
            "as good and as equal: the Bayesian part does nothing as large as the smallest effect "
            "of interest."
        )
    equal = rows.loc[rows["p_equivalence"] < 0.05, "metric"].tolist()
    text = f"equivalent in {', '.join(equal)}, undecided in the rest" if equal else "undecided"
    return f"{name}: {text}. No test says that the Bayesian part matters."


def about_dose(doses: pd.DataFrame, cells: pd.DataFrame) -> str:
    """How far the noise's variance alone tells what a setting does; a description."""
    if cells.empty:
        return "T12's cells were not run on this dataset."
    own = doses[doses["metric"] == "kid"]
    inside = own[own["method"].isin(set(cells["method"]))]
    parts = []
    for label, part in (("T12's cells", inside), ("all arms of pure noise", own)):
        r = np.corrcoef(part["noise_variance"], part["value"])[0, 1]
        low, high = part["noise_variance"].min(), part["noise_variance"].max()
        parts.append(
            f"over the {len(part)} runs of {label} (variance {low:.2f} to {high:.2f}) the weights' "
            f"variance explains {100 * r * r:.0f}% of the variation of the change in KID "
            f"(correlation {r:+.2f})"
        )
    return f"Described, not tested: {'; '.join(parts)}."


def about_cost(cost: pd.DataFrame, settings: Settings) -> str:
    """The optimiser's share, here and where steps are slow."""
    names = ["optimiser_share", "measure_share", "seconds_per_proposal", "share_at_large_step"]
    fair = cost[cost["proposals"] > 0].groupby("method")[names].mean()
    if "fairdiffusion" not in fair.index:
        return "No arm has an optimiser."
    own, most = fair.loc["fairdiffusion"], fair.max()
    top, step = fair["optimiser_share"].idxmax(), settings.ablation.large_step_seconds
    return (
        f"The optimiser takes {own['optimiser_share']:.1%} of the training of fairdiffusion, at "
        f"most {most['optimiser_share']:.1%} ({top}); measuring held-out gaps up to "
        f"{most['measure_share']:.1%} more. A proposal takes {own['seconds_per_proposal']:.2f} s "
        f"whatever the network's size, so at an assumed {step:g} s a step of SD 2.1 its share "
        f"would be {own['share_at_large_step']:.2%}."
    )


def about_c2(c2: pd.DataFrame) -> str:
    """The verdicts, a line each."""
    return "\n".join(
        f"- **{arm_words(str(row.method))}: {row.verdict}** ({row.seeds} seeds; {row.reason})."
        for row in c2.itertuples()
    )
