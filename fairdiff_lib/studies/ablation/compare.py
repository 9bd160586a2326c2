"""08: from the recorded runs to T12, T13 and the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from fairdiff_lib.audit.audit import Audit, differences
from fairdiff_lib.audit.contrasts import DESCRIPTION, EXPLORATORY, PRIMARY
from fairdiff_lib.audit.estimate import OVERALL, Estimate
from fairdiff_lib.audit.seeds import (
    FEW_SEEDS,
    LEAST_SEEDS,
    NEW_NOTE,
    PairedChange,
    for_new_patients,
    summarise_seeds,
    t_interval,
)
from fairdiff_lib.disk import tables
from fairdiff_lib.settings.methods import BASELINE, config_of
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.ablation.arms import (
    CORE,
    WINDOW,
    Arm,
    arms_of,
    declared_comparisons,
    find_arm,
    settings_of,
)
from fairdiff_lib.studies.verdict.protocol import check_protocol
from fairdiff_lib.study import Study

if TYPE_CHECKING:  # runs need torch, which whoever plans a graph can do without
    from fairdiff_lib.studies.ablation.runs import RecordedRun

    Recorded = Mapping[tuple[str, int], RecordedRun]


@dataclass(frozen=True)
class AblationResult:
    cells: pd.DataFrame  # T12 (no row where its cells were not run)
    methods: pd.DataFrame
    doses: pd.DataFrame
    cost: pd.DataFrame
    notes: list[str]  # gates that failed in any run, a line each
    before: bool  # the comparisons were declared before any run was measured

    def scalars(self) -> dict[str, Any]:
        """What 08 records: how many rows and runs."""
        rows = {"cell_rows": len(self.cells), "method_rows": len(self.methods)}
        return {**rows, "runs": len(self.cost)}


def collect_ablation(study: Study) -> AblationResult:
    """All tables of the ablation study, from its runs as recorded; a missing one is refused."""
    from fairdiff_lib.studies.ablation.runs import check_declaration, read_runs

    settings, before, found = study.settings, check_declaration(study), read_runs(study)
    runs = {run.key: run for run in found}
    gates = pd.DataFrame([row for run in found for row in run.gates])
    notes = tables.failed_gates(gates)
    smallest = check_protocol(study).rule.smallest_kid
    methods = method_table(settings, runs, smallest)
    has_cells = WINDOW in settings.ablation.roles
    cells = cell_table(settings, runs, smallest) if has_cells else methods.head(0)
    return AblationResult(
        with_gates(cells, gates),
        with_gates(methods, gates),
        dose_table(settings, runs),
        cost_table(settings, runs),
        notes,
        before,
    )


def with_gates(table: pd.DataFrame, gates: pd.DataFrame) -> pd.DataFrame:
    """An arm's failed gates in the notes of its own rows and of those that it is compared in."""
    noted = table.copy()
    for arm, own in gates.groupby("method", sort=False):
        rows = table[(table["method"] == arm) | (table["baseline"] == arm)]
        noted.loc[rows.index] = tables.with_notes(noted.loc[rows.index], tables.failed_gates(own))
    return noted


def _values(runs: Recorded) -> pd.DataFrame:
    """Values and disparities of every run, by level; seeds as ``verdict.Evidence`` wants them."""
    parts = [
        pd.concat([own.by_group, disparity_rows(own)], ignore_index=True).assign(
            method=arm, seed=seed, seeds=str(seed), features=own.features
        )
        for (arm, seed), run in runs.items()
        for own in run.audits
    ]
    return pd.concat(parts, ignore_index=True)


def publish_ablation(study: Study, result: AblationResult) -> None:
    """Write T12 where there are cells, T13 and the cost of every run."""
    cells = {"tab12": result.cells} if len(result.cells) else {}
    todo = {**cells, "tab13": result.methods, "tab_cost": result.cost}
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
    return {arm.name: arm.role for arm in arms_of(study.settings)}


def values_by_seed(study: Study, arm: str, baseline: str) -> pd.DataFrame:
    """Overall KID of two arms for the seeds that both have: seed, arm, baseline."""
    from fairdiff_lib.studies.ablation.runs import read_runs

    found = {
        run.key: next(own.overall.value for own in run.audits if own.metric == "kid")
        for run in read_runs(study)
    }
    both = [seed for name, seed in found if name == arm and (baseline, seed) in found]
    rows = [(seed, found[arm, seed], found[baseline, seed]) for seed in both]
    return pd.DataFrame(rows, columns=["seed", "arm", "baseline"])


COLUMNS = (
    "dataset", "method", "seeds", "attribute", "level", "metric", "n", "value", "low", "high",
    "p", "p_adjusted", "baseline", "features", "role", "sd", "smallest_effect", "p_equivalence",
    "mde", "low_new", "high_new", "note",
)  # fmt: skip
DISPARITY = "kid_disparity"


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of one number per seed, with its uncertainty over seeds (t, S - 1 degrees of freedom).

    Without a usable variance below ``LEAST_SEEDS`` seeds, so that neither a p nor an equivalence
    nor a detectable size is read from them.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    count = len(known)
    mean = float(known.mean()) if count else float("nan")
    if count < LEAST_SEEDS:
        return Estimate(mean, np.full(max(count, 1), np.nan), count, float(count - 1), FEW_SEEDS)
    influence = (known - mean) / (count * (count - 1)) ** 0.5
    return Estimate(mean, influence, count, float(count - 1))


# -- T13 -------------------------------------------------------------------------------------


def method_table(settings: Settings, runs: Recorded, smallest: float) -> pd.DataFrame:
    """T13, in ``COLUMNS``: every arm's own values, and its paired differences from its baselines.

    Rows with an empty baseline are an arm's own, those of attribute "overall" and metric
    ``*_disparity`` the mean over attributes. low to high: these patients, new seeds; low_new to
    high_new: new patients as well (metrics with influence values). ``smallest`` is X in KID.
    """
    sizes = smallest_effects(runs, smallest)
    parts = [own_values(settings, runs)]
    pairs = [(arm, other) for arm in arms_of(settings) for other in arm.against]
    parts += [paired_rows(runs, arm, other, sizes) for arm, other in pairs]
    table = pd.concat(parts, ignore_index=True).assign(dataset=settings.dataset)
    return adjusted(table.reindex(columns=list(COLUMNS)), declared_comparisons(settings))


def smallest_effects(runs: Recorded, smallest: float) -> dict[tuple[str, str], float]:
    """(metric, features): X, of KID in the first feature space and of its squared difference."""
    first = next(iter(runs.values())).audits[0].features
    return {("kid", first): smallest, (DISPARITY, first): smallest**2}


def own_values(settings: Settings, runs: Recorded) -> pd.DataFrame:
    """Means over seeds of every arm's values, by level, and of its disparities."""
    names = ["method", "attribute", "level", "metric", "features"]
    table = _values(runs)[[*names, "seed", "n", "value", "low", "high", "note"]]
    confidence = settings.audit.confidence
    parts = [summarise_seeds(own, confidence) for _, own in table.groupby("method", sort=False)]
    return pd.concat(parts, ignore_index=True).assign(baseline="", role=DESCRIPTION)


def disparity_rows(own: Audit) -> pd.DataFrame:
    """Disparity of every attribute, and their mean as that of "overall"."""
    rows = own.disparity
    known = rows[np.isfinite(rows["value"])]
    mean = float(known["value"].mean()) if len(known) else float("nan")
    n = int(known["n"].min()) if len(known) else 0
    last = {**dict.fromkeys(rows.columns, float("nan")), "attribute": OVERALL[0], "level": "all",
            "metric": f"{own.metric}_disparity", "n": n, "value": mean,
            "note": "mean over attributes"}  # fmt: skip
    return pd.concat([rows, pd.DataFrame([last])], ignore_index=True)


def paired_rows(
    runs: Recorded, arm: Arm, other: str, sizes: Mapping[tuple[str, str], float]
) -> pd.DataFrame:
    """Arm minus baseline by level, one row per metric, paired by the seeds that both have."""
    seeds = [s for name, s in runs if name == arm.name and (other, s) in runs]
    if not seeds:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = []
    for at, own in enumerate(runs[arm.name, seeds[0]].audits):
        pairs = [(runs[arm.name, s].audits[at], runs[other, s].audits[at]) for s in seeds]
        rows += _level_rows(own, pairs, sizes) + _disparity_changes(own, pairs, sizes)
    shared = {"method": arm.name, "baseline": other, "seeds": ",".join(map(str, seeds))}
    core = arm.role == CORE
    return pd.DataFrame(rows).assign(**shared, role=EXPLORATORY if core else DESCRIPTION)


def _level_rows(
    own: Audit, pairs: Sequence[tuple[Audit, Audit]], sizes: Mapping[tuple[str, str], float]
) -> list[dict[str, Any]]:
    gaps = [differences(first, second) for first, second in pairs]
    changes = {key: [gap[key] for gap in gaps] for key in own.estimates}
    return [
        _row(own, own.metric, key, own.estimates[key].n, sizes, [x.value for x in change],
             for_new_patients(change, own.design.confidence))
        for key, change in changes.items()
    ]  # fmt: skip


def _disparity_changes(
    own: Audit, pairs: Sequence[tuple[Audit, Audit]], sizes: Mapping[tuple[str, str], float]
) -> list[dict[str, Any]]:
    tables = [(disparity_rows(first), disparity_rows(second)) for first, second in pairs]
    metric, confidence, rows = f"{own.metric}_disparity", own.design.confidence, []
    for at, (name, n) in enumerate(tables[0][0][["attribute", "n"]].itertuples(index=False)):
        values = [float(a["value"].iloc[at] - b["value"].iloc[at]) for a, b in tables]
        known = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
        nan, p = float("nan"), over_seeds(known.tolist()).p_value()
        change = PairedChange(*t_interval(known, confidence), p, nan, nan, nan)  # no influence
        rows.append(_row(own, metric, (name, "all"), int(n), sizes, values, change))
    return rows


def _row(
    own: Audit, metric: str, key: tuple[str, str], n: int, sizes: Mapping[tuple[str, str], float],
    values: Sequence[float], change: PairedChange,
) -> dict[str, Any]:  # fmt: skip
    """A paired difference, of these values by seed; p, equivalence, MDE only with enough seeds."""
    mean, size = over_seeds(values), sizes.get((metric, own.features), float("nan"))
    new = NEW_NOTE if np.isfinite(change.low_new) else ""
    return {
        **{"attribute": key[0], "level": key[1], "metric": metric, "features": own.features},
        **{name: getattr(change, name) for name in ("value", "sd", "low", "high", "p")},
        **{"low_new": change.low_new, "high_new": change.high_new, "n": n},
        "smallest_effect": size,
        "p_equivalence": mean.p_equivalence(size),
        "mde": mean.detectable(own.design.confidence),
        "note": "; ".join(filter(None, (mean.note, new))),
    }


def adjusted(table: pd.DataFrame, declared: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The table with its declared rows marked primary, and p adjusted in each family.

    Primary: overall KID and its mean disparity of the declared comparisons, in the first feature
    space; Holm. The other rows with a p: false discovery rate.
    """
    pairs = pd.Series(list(zip(table["method"], table["baseline"], strict=True)), index=table.index)
    first = table.loc[table["metric"] == "kid", "features"].iloc[0]
    endpoint = table["metric"].isin(["kid", DISPARITY]) & (table["attribute"] == OVERALL[0])
    primary = endpoint & (table["features"] == first) & pairs.isin(list(declared))
    role = table["role"].where(~primary, PRIMARY)
    p = table["p"].astype(np.float64)
    p_adjusted = pd.Series(np.nan, index=table.index)
    for chosen, method in ((primary, "holm"), (~primary, "fdr_bh")):
        known = chosen & np.isfinite(p)
        if known.any():
            p_adjusted[known] = multipletests(p[known], method=method)[1]
    return table.assign(role=role, p_adjusted=p_adjusted, p=p)


# -- T12 -------------------------------------------------------------------------------------


def cell_table(settings: Settings, runs: Recorded, smallest: float) -> pd.DataFrame:
    """T12: window x drift rate, on the seeds that every cell has.

    As :func:`method_table` (p and p_adjusted NaN: described), then time_window (steps),
    exploitation_rate, noise_variance: what the cell amounts to, the weights' variance.
    """
    known = {arm.name: arm for arm in arms_of(settings)}
    cells = [a for a in known.values() if a.role == WINDOW or a.name == "fairdiffusion"]
    seeds = settings.ablation.other_seeds
    few = {
        (name, seed): run
        for (name, seed), run in runs.items()
        if seed in seeds and name in {BASELINE, *(cell.name for cell in cells)}
    }
    sizes = smallest_effects(few, smallest)
    parts = [own_values(settings, {k: v for k, v in few.items() if k[0] != BASELINE})]
    parts += [paired_rows(few, cell, BASELINE, sizes) for cell in cells]
    table = pd.concat(parts, ignore_index=True).reindex(columns=list(COLUMNS))
    table = table.assign(dataset=settings.dataset, role=DESCRIPTION)
    own = {name: settings_of(settings, arm).mitigation for name, arm in known.items()}
    doses = noise_variances(few)
    return table.assign(
        time_window=[own[name].time_window for name in table["method"]],
        exploitation_rate=[own[name].exploitation_rate for name in table["method"]],
        noise_variance=[doses[name] for name in table["method"]],
    )


def noise_variances(runs: Recorded) -> dict[str, float]:
    """Mean over seeds of the weights' variance; 0 for the baseline, NaN without noise."""
    found: dict[str, list[float]] = {}
    for (name, _), run in runs.items():
        value = run.cost.get("noise_variance")
        blank = 0.0 if name == BASELINE else float("nan")
        found.setdefault(name, []).append(blank if value is None else float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def dose_table(settings: Settings, runs: Recorded) -> pd.DataFrame:
    """Each run of an arm of pure noise: its weights' variance, what changed from the baseline."""
    rows = []
    for arm in arms_of(settings):
        own = config_of(arm.method, settings_of(settings, arm).mitigation)
        for (name, seed), run in runs.items():
            dose = run.cost.get("noise_variance")
            if name != arm.name or dose is None or own.reweighting != "noise":
                continue
            base = runs[BASELINE, seed]
            kid = run.audits[0].overall.value - base.audits[0].overall.value
            disparity = _mean_disparity(run) - _mean_disparity(base)
            head = (settings.dataset, name, arm.role, seed, dose)
            rows += [(*head, "kid", kid), (*head, DISPARITY, disparity)]
    columns = ["dataset", "method", "role", "seed", "noise_variance", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def _mean_disparity(run: RecordedRun) -> float:
    return float(disparity_rows(run.audits[0])["value"].iloc[-1])


# -- what it cost ----------------------------------------------------------------------------


def cost_table(settings: Settings, runs: Recorded) -> pd.DataFrame:
    """tab_cost: every run's time, memory and the optimiser's share, and what it would be at scale.

    share_at_large_step is the optimiser's share where a step takes ``ablation.large_step_seconds``
    (assumed, not measured), with the seconds per proposal that were measured here.
    """
    rows = []
    for (name, seed), run in runs.items():
        own, cost = settings_of(settings, find_arm(settings, name)), run.cost
        proposals = int(cost["proposals"])
        each = cost["optimiser_share"] * cost["loop_seconds"] / proposals if proposals else np.nan
        large = own.ablation.large_step_seconds * own.mitigation.time_window
        measured = ("seconds", "seconds_per_step", "optimiser_share", "measure_share")
        rows.append(
            {
                **{"dataset": settings.dataset, "method": name, "seed": seed},
                **{key: cost[key] for key in measured},
                **{"proposals": proposals, "seconds_per_proposal": each},
                **{key: cost[key] for key in ("images_seen", "peak_memory_gib")},
                "share_at_large_step": each / (each + large) if proposals else 0.0,
            }
        )
    return pd.DataFrame(rows)
