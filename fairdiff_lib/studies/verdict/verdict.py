"""One verdict per claim and dataset (T14), by the rule of :mod:`protocol`.

It reads the study's own tables and nothing else; :mod:`judges` has the claims one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.datasets import DATASETS
from fairdiff_lib.studies.verdict.claims import (
    Evidence,
    judge_disparity,
    judge_downstream,
    judge_elsewhere,
    judge_quality,
)
from fairdiff_lib.studies.verdict.findings import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    SUPPORTED,
    Finding,
    holm,
)
from fairdiff_lib.studies.verdict.protocol import Protocol
from fairdiff_lib.studies.verdict.quotes import Facts, quote

CLAIMS: dict[str, str] = {
    "C1": "Stable Diffusion fine-tuned on medical images differs in quality between groups",
    "C2": "FairDiffusion improves image quality and its equity",
    "C3": "FairDiffusion's images train better and fairer classifiers",
    "C4": "C2 and C3 hold on a modality other than fundus photography, too",
}
CITATION = (
    "C2 is cited from the study with more training seeds of both methods, from the main one where "
    "they are equal. The ablation study counts only where it measured the same data with the same "
    "features and was declared before any of its runs was measured. Seeds of the two are never "
    "pooled, and both rows are shown; but where both measured the very same runs, there is one "
    "row, the main study's."
)
COLUMNS = (
    "dataset", "claim", "study", "cited", "verdict", "endpoint", "unit", "value", "low", "high",
    "smallest_effect", "mde", "n", "seeds", "p", "p_holm", "quote", "limits", "statement",
    "reason", "protocol", "declaration",
)  # fmt: skip


def verdicts(evidence: Evidence, rule: Protocol) -> pd.DataFrame:
    """T14's rows of one dataset and study.

    The claims that can be tested here are one family: their p are corrected after Holm.

    Returns
    -------
    DataFrame
        In ``COLUMNS``: what is claimed and found, the fields of ``findings.Effect`` (empty where
        nothing is testable), p, p_holm, the sentence to quote, and the protocol's hash.
        ``cited``: true but for what :func:`cite` replaces.
    """
    found = {
        "C1": judge_disparity(evidence, rule),
        "C2": judge_quality(evidence, rule),
        "C3": judge_downstream(evidence, rule),
    }
    found["C4"] = judge_elsewhere(evidence, found["C2"], found["C3"])
    adjusted = holm([finding.p for finding in found.values()])
    rows = [
        _row(claim, finding, p, evidence, rule)
        for (claim, finding), p in zip(found.items(), adjusted, strict=True)
    ]
    return as_table(rows)


def as_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Rows as a table in ``COLUMNS``; counts are whole numbers also where some are missing."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n": "Int64", "seeds": "Int64"})


def _row(
    claim: str, finding: Finding, p_adjusted: float, evidence: Evidence, rule: Protocol
) -> dict[str, Any]:
    """A claim's row, with the sentence to quote."""
    clear = p_adjusted < 1 - rule.confidence
    verdict = finding.if_clear if clear else finding.otherwise
    verdict, reason = _limited(verdict, finding.reason, evidence)
    row = {
        "dataset": evidence.dataset,
        "claim": claim,
        "study": evidence.study,
        "cited": True,
        "verdict": verdict,
        **finding.effect.row,
        "p": finding.p,
        "p_holm": p_adjusted,
        "limits": DATASETS[evidence.dataset].limits if evidence.dataset in DATASETS else "",
        "statement": CLAIMS[claim],
        "reason": reason,
        "protocol": rule.sha256,
        "declaration": "",
    }
    facts = Facts(
        evidence.model, evidence.failed, evidence.before, rule.confidence, rule.least_seeds
    )
    return {**row, "quote": quote(row, facts)}


def quality_verdict(evidence: Evidence, rule: Protocol, p_adjusted: float) -> dict[str, Any]:
    """C2 by itself, of ``rule.method``: a row in ``COLUMNS``, its p adjusted by the caller."""
    return _row("C2", judge_quality(evidence, rule), p_adjusted, evidence, rule)


def cite(main: pd.DataFrame, ablation: pd.DataFrame) -> pd.DataFrame:
    """Both studies' rows, by claim; ``cited`` says which of two to quote, by ``CITATION``.

    Parameters
    ----------
    main, ablation : DataFrame
        In ``COLUMNS``; the latter has C2 or no row.
    """
    if ablation.empty:
        return main
    own = main["claim"] == "C2"
    if same_runs(main[own].iloc[0], ablation.iloc[0]):
        known = main.loc[own, "reason"] + "; the ablation study has the same runs of both methods"
        return main.assign(reason=main["reason"].where(~own, known))
    seeds = [int(part["seeds"].fillna(0).iloc[0]) for part in (ablation, main[own])]
    larger = seeds[0] > seeds[1]
    main = main.assign(cited=~own | (not larger))
    both = pd.concat([main, ablation.assign(cited=larger)], ignore_index=True)
    return both.sort_values(["claim", "cited"], kind="stable", ignore_index=True)


def same_runs(a: pd.Series, b: pd.Series) -> bool:
    """Whether two rows rest on the same runs: as many seeds, and equal numbers."""
    numbers = ["value", "low", "high"]
    close = np.allclose(a[numbers].astype(float), b[numbers].astype(float), rtol=1e-9, atol=1e-12)
    return bool(close and a["seeds"] == b["seeds"])


def _limited(verdict: str, reason: str, evidence: Evidence) -> tuple[str, str]:
    """A failed gate makes a finding inconclusive; a late protocol is said."""
    if evidence.failed and verdict in (SUPPORTED, CONTRADICTED):
        reason = f"{evidence.failed[0]}; without the gates: {verdict} ({reason})"
        verdict = INCONCLUSIVE
    if not evidence.before and verdict != NOT_TESTABLE:
        reason += "; the protocol was written after test images existed"
    return verdict, reason
