"""One verdict per claim and dataset (T14), by a rule that is fixed before the run.

The rule is a value, :data:`PROTOCOL`; its digest stands in every row. It reads the
study's own tables and nothing else, and it never turns "no difference seen" into
"no difference".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.seeds import t_interval
from fairdiff_lib.tables import single_seeds

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"

CLAIMS: dict[str, str] = {
    "C1": "Stable Diffusion fine-tuned on medical images differs in quality between groups",
    "C2": "FairDiffusion improves image quality and its equity",
    "C3": "FairDiffusion's images train better and fairer classifiers",
    "C4": "The same holds on other modalities",
}


@dataclass(frozen=True)
class Protocol:
    """What is compared, and how large and how sure a difference must be."""

    baseline: str = "none"
    method: str = "fairdiffusion"
    metric: str = "kid"  # the primary quality metric: unbiased at any n
    confidence: float = 0.95  # of each interval
    smallest_effect: float = 0.2  # x the baseline's overall KID: smaller gaps don't matter
    least_seeds: int = 5  # training seeds for a comparison of methods
    levelling_down: float = 0.1  # x the level's baseline KID: no level may get worse by more

    @property
    def digest(self) -> str:
        """First 10 hex digits of the SHA-256 of the rule's values."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


PROTOCOL = Protocol()


@dataclass(frozen=True)
class Evidence:
    """What a dataset's run left for the verdict.

    Attributes
    ----------
    dataset : str
    attributes : sequence of str
        Demographic attributes.
    condition : str
        The primary condition.
    quality : DataFrame
        T2 or T8: dataset, method, seeds, attribute, level, metric, n, value, low, high.
    contrasts : DataFrame
        tab_contrasts, by ``tables.as_read``: method, seed, attribute, level, metric, value,
        low, high, p_adjusted, role ("primary" or "secondary").
    downstream : DataFrame
        T4 or T9, by ``tables.as_read``: source, seeds, condition, attribute, level, metric, value.
    failed : sequence of str
        Gates that failed, a line each.
    """

    dataset: str
    attributes: Sequence[str]
    condition: str
    quality: pd.DataFrame
    contrasts: pd.DataFrame
    downstream: pd.DataFrame
    failed: Sequence[str] = ()


Answer = tuple[str, str]  # verdict, reason


def verdicts(evidence: Evidence, rule: Protocol = PROTOCOL) -> pd.DataFrame:
    """T14's rows of one dataset.

    Parameters
    ----------
    evidence : Evidence
    rule : Protocol

    Returns
    -------
    DataFrame
        dataset, claim, statement, verdict, seeds (per method), reason, protocol.
    """
    answers = {
        "C1": _gated(judge_disparity(evidence, rule), evidence),
        "C2": _gated(judge_quality(evidence, rule), evidence),
        "C3": _gated(judge_downstream(evidence, rule), evidence),
    }
    answers["C4"] = judge_elsewhere(evidence, [answers["C2"][0], answers["C3"][0]])
    seeds = len(common_seeds(evidence.quality, "method", rule))
    rows = [
        {
            "dataset": evidence.dataset,
            "claim": claim,
            "statement": CLAIMS[claim],
            "verdict": verdict,
            "seeds": seeds,
            "reason": reason,
            "protocol": rule.digest,
        }
        for claim, (verdict, reason) in answers.items()
    ]
    return pd.DataFrame(rows)


def _gated(answer: Answer, evidence: Evidence) -> Answer:
    """A failed gate makes a finding inconclusive: the images may not show what was asked."""
    if evidence.failed and answer[0] in (SUPPORTED, CONTRADICTED):
        return INCONCLUSIVE, f"{evidence.failed[0]}; without the gates: {answer[0]} ({answer[1]})"
    return answer


def common_seeds(table: pd.DataFrame, column: str, rule: Protocol) -> list[str]:
    """Seeds that both the baseline and the method were run with."""
    single = single_seeds(table)
    seeds = [
        set(single.loc[single[column] == name, "seeds"].astype(str))
        for name in (rule.baseline, rule.method)
    ]
    return sorted(seeds[0] & seeds[1])


def judge_disparity(evidence: Evidence, rule: Protocol) -> Answer:
    """C1: KID of the baseline differs between levels, in every seed.

    Supported where, in each seed, a primary contrast has an adjusted p below 1 - confidence
    and is at least the smallest effect; contradicted where the intervals of all primary
    contrasts lie within it.
    """
    if evidence.dataset.endswith("_simulated"):
        return NOT_TESTABLE, "the disparity of simulated data is planted, not found"
    own = evidence.contrasts
    chosen = (own["method"] == rule.baseline) & (own["metric"] == rule.metric)
    own = own[chosen & (own["role"] == "primary") & np.isfinite(own["value"])]
    if own.empty:
        return INCONCLUSIVE, "no contrast has enough subjects"
    table = single_seeds(evidence.quality)
    table = table[(table["method"] == rule.baseline) & (table["metric"] == rule.metric)]
    overall = table[table["attribute"] == "overall"].set_index("seeds")["value"]
    found = []
    for seed, run in own.groupby(own["seed"].astype(str)):
        margin = rule.smallest_effect * float(overall[seed])
        clear = (run["p_adjusted"] < 1 - rule.confidence) & (run["value"].abs() >= margin)
        small = (run["low"] > -margin) & (run["high"] < margin)
        found.append(SUPPORTED if clear.any() else CONTRADICTED if small.all() else INCONCLUSIVE)
    if all(f == SUPPORTED for f in found):
        return SUPPORTED, f"in each of {len(found)} seed(s) a level differs from the largest one"
    if all(f == CONTRADICTED for f in found):
        return CONTRADICTED, f"in each of {len(found)} seed(s) all differences are small"
    return INCONCLUSIVE, f"{found.count(SUPPORTED)} of {len(found)} seed(s) show a difference"


def judge_quality(evidence: Evidence, rule: Protocol) -> Answer:
    """C2: over paired seeds, overall KID and the spread between levels both fall.

    Supported needs both upper limits below zero and no level worse by more than the
    levelling-down margin; contradicted where a lower limit lies above zero.
    """
    seeds = common_seeds(evidence.quality, "method", rule)
    if len(seeds) < rule.least_seeds:
        return INCONCLUSIVE, few(seeds, rule)
    table = single_seeds(evidence.quality)
    table = table[(table["metric"] == rule.metric) & table["seeds"].astype(str).isin(seeds)]
    keys = ["attribute", "level"]
    wide = table.pivot(index=[*keys, "seeds"], columns="method", values="value")
    wide = wide[[rule.baseline, rule.method]].reset_index()
    overall = wide[wide["attribute"] == "overall"]
    groups = wide[wide["attribute"].isin(list(evidence.attributes))].dropna()
    if groups.empty:
        return INCONCLUSIVE, "no level has a KID"
    spread = groups.groupby(["attribute", "seeds"])[[rule.baseline, rule.method]].var(ddof=0)
    total = spread.groupby("seeds").sum()
    changes = {
        "quality": (overall[rule.method] - overall[rule.baseline]).to_numpy(),
        "equity": (total[rule.method] - total[rule.baseline]).to_numpy(),
    }
    mean = groups.groupby(keys)[[rule.baseline, rule.method]].mean()
    worse = mean[rule.method] > mean[rule.baseline] * (1 + rule.levelling_down)
    return _both_fall(changes, [str(name[1]) for name in mean.index[worse]], rule)


def judge_downstream(evidence: Evidence, rule: Protocol) -> Answer:
    """C3: over paired seeds, AUC and mean equity-scaled AUC of the primary condition rise."""
    seeds = common_seeds(evidence.downstream, "source", rule)
    if len(seeds) < rule.least_seeds:
        return INCONCLUSIVE, few(seeds, rule)
    table = single_seeds(evidence.downstream)
    table = table[table["seeds"].astype(str).isin(seeds) & (table["level"] == "all")]
    table = table[table["condition"] == evidence.condition]
    changes = {}
    for name, metric in (("AUC", "auc"), ("equity-scaled AUC", "es_auc")):
        mean = table[table["metric"] == metric].groupby(["seeds", "source"])["value"].mean()
        wide = mean.unstack("source")
        changes[name] = (wide[rule.baseline] - wide[rule.method]).to_numpy()  # falls = better
    return _both_fall(changes, [], rule)


def _both_fall(changes: dict[str, Any], worse: Sequence[str], rule: Protocol) -> Answer:
    """Verdict on paired changes that should both be negative."""
    limits = {}
    for name, change in changes.items():
        _, _, low, high = t_interval(np.asarray(change, dtype=np.float64), rule.confidence)
        limits[name] = (low, high)
    text = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in limits.items())
    reason = f"paired change over seeds (below 0 is better): {text}"
    if any(low > 0 for low, _ in limits.values()):
        return CONTRADICTED, reason
    if worse:
        return (
            INCONCLUSIVE,
            f"{reason}; worse by over {rule.levelling_down:.0%}: {', '.join(worse)}",
        )
    better = all(high < 0 for _, high in limits.values())
    return (SUPPORTED if better else INCONCLUSIVE), reason


def few(seeds: Sequence[str], rule: Protocol) -> str:
    """Why too few seeds decide nothing."""
    return (
        f"{len(seeds)} training seed(s) of both methods; "
        f"a comparison of methods needs at least {rule.least_seeds}"
    )


def judge_elsewhere(evidence: Evidence, parts: Sequence[str]) -> Answer:
    """C4: C2 and C3 on a dataset other than FairGenMed."""
    if evidence.dataset.startswith("fairgenmed"):
        return NOT_TESTABLE, "needs HAM10000 or CheXpert"
    if evidence.dataset.endswith("_simulated"):
        return NOT_TESTABLE, "needs the real dataset"
    for verdict in (CONTRADICTED, INCONCLUSIVE):
        if verdict in parts:
            return verdict, f"C2 is {parts[0]}, C3 is {parts[1]}"
    return SUPPORTED, "C2 and C3 are supported"
