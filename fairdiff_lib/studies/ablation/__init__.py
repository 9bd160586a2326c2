"""08: from the recorded runs to T12, T13, the cost, and the verdict on C2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from fairdiff_lib.audit.contrasts import PRIMARY
from fairdiff_lib.disk import tables
from fairdiff_lib.settings.methods import BASELINE
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
        T12, T13: see :mod:`compare`. T12 has no row where its cells were not run.
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

    def scalars(self) -> dict[str, Any]:
        """What 08 records: rows, and the verdicts."""
        rows = {"cell_rows": len(self.cells), "method_rows": len(self.methods)}
        verdicts = {f"c2_{row.method}": row.verdict for row in self.c2.itertuples()}
        return {**rows, **verdicts, "runs": len(self.cost)}


def collect_ablation(study: Study) -> AblationResult:
    """All tables of the ablation study, from what was recorded of its runs.

    Raises
    ------
    InputError
        A run is missing, runs don't compare, or there is no declaration.
    """
    settings, before, found = study.settings, check_declaration(study), read_runs(study)
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
        c2_table(study, runs, methods, notes, before),
        notes,
        before,
    )


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


def publish_ablation(study: Study, result: AblationResult) -> None:
    """Write T12, T13, the cost of every run, and the verdict on C2."""
    todo = {"tab12": result.cells, "tab13": result.methods, "tab_cost": result.cost,
            "tab_c2": result.c2}  # fmt: skip
    for name, table in todo.items():
        study.publish(name, table)


def option_table(methods: pd.DataFrame, roles: Mapping[str, str]) -> pd.DataFrame:
    """Controls and single options against FairDiffusion: overall KID, its disparity, the loss's."""
    own = methods[(methods["baseline"] == "fairdiffusion") & (methods["attribute"] == "overall")]
    own = own[own["method"].map(roles).isin(["control", "option"])]
    first = methods.loc[methods["metric"] == "kid", "features"].iloc[0]
    own = own[own["features"].isin([first, ""])]
    own = own[own["metric"].isin(["kid", "kid_disparity", "denoising_loss_disparity"])]
    return own[["method", "metric", "value", "low", "high", "seeds"]]


def roles_of(study: Study) -> dict[str, str]:
    """Arm to its role, in the order of the page."""
    return {arm.name: arm.role for arm in arms.arms_of(study.settings)}


def values_by_seed(study: Study, arm: str, baseline: str, metric: str = "kid") -> pd.DataFrame:
    """Overall values of two arms for the seeds that both have: seed, arm, baseline."""
    found = {run.key: run for run in read_runs(study)}
    rows = []
    for name, seed in found:
        if name == arm and (baseline, seed) in found:
            pair = [found[x, seed] for x in (arm, baseline)]
            values = [next(a for a in run.audits if a.metric == metric) for run in pair]
            rows.append((seed, *(own.overall.value for own in values)))
    return pd.DataFrame(rows, columns=["seed", "arm", "baseline"])
