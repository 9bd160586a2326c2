"""T14: one verdict per claim and data set, with the sentence that a reader may quote of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.datasets import contents, dataset_of
from fairdiff_lib.disk import tables
from fairdiff_lib.disk.files import locked, read_json, read_table
from fairdiff_lib.disk.stamps import publish_table
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.verdict.claims import (
    ABLATION,
    CLAIMS,
    INCONCLUSIVE,
    NOT_TESTABLE,
    POWER,
    Evidence,
    Finding,
    findings,
    holm,
    image_quality,
    outcome,
)
from fairdiff_lib.studies.verdict.protocol import Protocol, Registered, space_name
from fairdiff_lib.study import Study

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
PART = "tab_verdict"  # T14's rows of one dataset


def verdicts(evidence: Evidence, rule: Protocol) -> pd.DataFrame:
    """T14's rows of one dataset and study, in ``COLUMNS``.

    The claims that can be tested here are one family: their p are corrected after Holm. ``cited``
    is true but for what :func:`cite` replaces.
    """
    found = findings(evidence, rule)
    adjusted = holm([finding.p for finding in found.values()])
    rows = [
        _row(claim, finding, p, evidence, rule)
        for (claim, finding), p in zip(found.items(), adjusted, strict=True)
    ]
    return as_table(rows)


def quality_verdict(evidence: Evidence, rule: Protocol, p_adjusted: float) -> dict[str, Any]:
    """C2 by itself, of ``rule.method``: a row in ``COLUMNS``, its p adjusted by the caller."""
    return _row("C2", image_quality(evidence, rule), p_adjusted, evidence, rule)


def as_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Rows as a table in ``COLUMNS``; counts are whole numbers also where some are missing."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n": "Int64", "seeds": "Int64"})


def _row(
    claim: str, finding: Finding, p_adjusted: float, evidence: Evidence, rule: Protocol
) -> dict[str, Any]:
    """A claim's row, with the sentence to quote."""
    verdict = outcome(finding, p_adjusted, rule.confidence, failed=bool(evidence.failed))
    without = outcome(finding, p_adjusted, rule.confidence)
    reason = finding.reason
    if verdict != without:
        reason = f"{evidence.failed[0]}; without the gates: {without} ({reason})"
    if not evidence.before and verdict != NOT_TESTABLE:
        reason += "; the protocol was written after test images existed"
    row = {
        "dataset": evidence.dataset,
        "claim": claim,
        "study": evidence.study,
        "cited": True,
        "verdict": verdict,
        **asdict(finding.effect),
        "p": finding.p,
        "p_holm": p_adjusted,
        "limits": dataset_of(evidence.dataset).limits,
        "statement": CLAIMS[claim],
        "reason": reason,
        "protocol": rule.sha256,
        "declaration": "",
    }
    return {**row, "quote": quote(row, evidence, rule)}


# -- the sentence to quote -------------------------------------------------------------------


def model_words(settings: Settings) -> str:
    """The generator's kind and size, in words."""
    own = settings.model
    if own.pretrained:
        return f"{Path(own.pretrained).name} at {own.image_size} px"
    return f"a small model trained from scratch at {own.image_size} px"


def quote(row: Mapping[str, Any], evidence: Evidence, rule: Protocol) -> str:
    """One sentence that stands by itself, of a row of T14 and what it rests on."""
    own = dataset_of(row["dataset"])
    claim = f"{row['claim']} ({row['statement']})"
    if row["verdict"] == NOT_TESTABLE:
        return f"{claim} is not testable on {own.phrase}: {row['reason']}."
    caveats = list(_caveats(row, evidence, rule))
    if not np.isfinite(row["value"]):
        because = "; ".join([row["reason"], *caveats])
        return f"On {own.phrase}, {claim} is {row['verdict']}: {because}."
    verdict = "; ".join([f"{claim} is {row['verdict']}", *_decides(row, rule), *caveats])
    units = f"{'simulated ' * own.simulated}test {own.unit}"
    return (
        f"On {own.phrase}, with {evidence.model}, the {row['endpoint']} was "
        f"{_numbers(row, rule)} ({row['n']:,} {units}, {_seeds(row)}{_p(row['p_holm'])})"
        f"{_sizes(row)}: {verdict}."
    )


def _numbers(row: Mapping[str, Any], rule: Protocol) -> str:
    text = f"{row['value']:+.2g}"
    if not np.isfinite(row["low"]):
        return f"{text} without an interval"
    return f"{text} ({rule.confidence:.0%} interval {row['low']:+.2g} to {row['high']:+.2g})"


def _seeds(row: Mapping[str, Any]) -> str:
    if row["seeds"] == 1:
        return "one training seed"
    if row["unit"] == "KID":  # C1: over subjects, of the mean of the models
        return f"mean of {row['seeds']} training seeds"
    of = " of the ablation study" if row["study"] == ABLATION else ""
    return f"{row['seeds']} paired training seeds{of}"


def _p(adjusted: float) -> str:
    if not np.isfinite(adjusted):
        return ", no test"
    return ", adjusted p < 0.001" if adjusted < 0.001 else f", adjusted p {adjusted:.2g}"


def _sizes(row: Mapping[str, Any]) -> str:
    """Smallest effect of interest, and the detectable one."""
    smallest, mde = row["smallest_effect"], row["mde"]
    parts = ["no smallest effect of interest was declared"]
    if np.isfinite(smallest):
        squared = row["unit"].startswith("squared ")
        plain = f", {smallest**0.5:.2g} unsquared," if squared else ""
        parts = [f"{smallest:.2g}{plain} is of interest"]
    if np.isfinite(mde):
        parts.append(f"{mde:.2g} would have been found with {POWER:.0%} power")
    return f", where {' and '.join(parts)}"


def _decides(row: Mapping[str, Any], rule: Protocol) -> Iterator[str]:
    """What the interval says beside a verdict of inconclusive."""
    if row["claim"] == "C4":
        yield "C4 needs both C2 and C3, and this is the one that decides"
    smallest, mde = row["smallest_effect"], row["mde"]
    found = np.isfinite(row["p_holm"]) and row["p_holm"] < 1 - rule.confidence
    if row["verdict"] != INCONCLUSIVE or found or not np.isfinite(smallest):
        return
    if np.isfinite(row["low"]) and max(-row["low"], row["high"]) < smallest:
        yield "a change as large as is of interest is excluded" + (
            ", for which the claim has no verdict" if row["claim"] != "C1" else ""
        )
    elif np.isfinite(mde) and mde > smallest:
        yield f"it would have had to be {mde / smallest:.2g} times what is of interest to be found"


def _caveats(row: Mapping[str, Any], evidence: Evidence, rule: Protocol) -> Iterator[str]:
    yield from (line.split(", wanted")[0] for line in evidence.failed)  # its numbers are beside it
    seeds = row["seeds"]
    if row["claim"] != "C1" and seeds is not None and seeds < rule.least_seeds:
        yield f"comparing methods needs at least {rule.least_seeds} seeds"
    if not evidence.before:
        yield "exploratory, as the protocol was written after test images existed"
    if dataset_of(row["dataset"]).simulated:
        yield "simulated, so it tells of the audit and the mechanism, not of patients"


# -- two studies of one claim ----------------------------------------------------------------


def cite(main: pd.DataFrame, ablation: pd.DataFrame) -> pd.DataFrame:
    """Both studies' rows (the ablation's: C2 or none); ``cited``: which of two to quote."""
    if ablation.empty:
        return main
    own = main["claim"] == "C2"
    if _same_runs(main[own].iloc[0], ablation.iloc[0]):
        known = main.loc[own, "reason"] + "; the ablation study has the same runs of both methods"
        return main.assign(reason=main["reason"].where(~own, known))
    seeds = [int(part["seeds"].fillna(0).iloc[0]) for part in (ablation, main[own])]
    larger = seeds[0] > seeds[1]
    main = main.assign(cited=~own | (not larger))
    both = pd.concat([main, ablation.assign(cited=larger)], ignore_index=True)
    return both.sort_values(["claim", "cited"], kind="stable", ignore_index=True)


def _same_runs(a: pd.Series, b: pd.Series) -> bool:
    """Whether two rows rest on the same runs: as many seeds, and equal numbers."""
    numbers = ["value", "low", "high"]
    close = np.allclose(a[numbers].astype(float), b[numbers].astype(float), rtol=1e-9, atol=1e-12)
    return bool(close and a["seeds"] == b["seeds"])


# -- from a study's tables to T14 ------------------------------------------------------------


def collect_verdict(study: Study, protocol: Registered) -> pd.DataFrame:
    """T14's rows of this dataset: the main study's, and C2 of the ablation study where it ran.

    Raises
    ------
    InputError
        A table is missing, or rests on other data than the cohort.
    """
    own, rule = dataset_of(study.settings.dataset), protocol.rule
    made = data_version(study, (*own.quality, *own.downstream, "tab_contrasts", "tab_gates"))
    if made != study.cohort.data_hash:
        raise InputError(
            f"{study.places.figures}: its tables are of data {made[:10]}, {study.places.data} "
            f"holds {study.cohort.data_hash[:10]} now; run the study again"
        )
    quality = read_tables(study, own.quality)
    main = quality["features"].isin([space_name(study.settings.audit.features), ""])
    evidence = Evidence(
        dataset=study.settings.dataset,
        attributes=list(study.cohort.attribute_levels),
        quality=quality[main],
        contrasts=read_contrasts(study),
        downstream=read_tables(study, own.downstream),
        failed=tables.gate_notes(study.places),
        before=protocol.before,
        model=model_words(study.settings),
    )
    return cite(verdicts(evidence, rule), ablation_verdict(study, rule))


def data_version(study: Study, names: Sequence[str]) -> str:
    """Hash of the data that tables of this study were made from; they must agree."""
    folder = study.places.figures
    stamps = {name: read_json(folder / f"{name}.json") for name in names}
    found = {name: str(stamp.get("data_hash", "")) for name, stamp in stamps.items()}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {value[:10]}" for name, value in found.items())
        raise InputError(f"{folder}: tables of different data ({said}); run them again")
    return found[names[0]]


def read_tables(study: Study, names: Iterable[str]) -> pd.DataFrame:
    """Tables of this study, one under the other, without rows that occur twice."""
    columns = ("method", "seeds", "metric")
    paths = [study.places.figures / f"{name}.csv" for name in names]
    parts = [tables.as_read(read_table(path, columns, dtype={"seeds": str})) for path in paths]
    both: pd.DataFrame = pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)
    return tables.with_text(both)


def read_contrasts(study: Study) -> pd.DataFrame:
    """tab_contrasts as it was written."""
    columns = ("method", "seeds", "p_adjusted", "role")
    path = study.places.figures / "tab_contrasts.csv"
    return tables.with_text(read_table(path, columns, dtype={"seeds": str}))


def ablation_verdict(study: Study, rule: Protocol) -> pd.DataFrame:
    """The ablation study's C2 of the protocol's method, a row; none where ``CITATION`` says so."""
    path = study.places.figures / "tab_c2.csv"
    declared = study.places.ablation / "protocol.json"
    if not (path.is_file() and declared.is_file()):
        return as_table([])
    said = read_json(declared)
    own = {key: rule.content[key] for key in ("dataset", "metric", "features_digest")}
    same = own == {key: said["protocol"].get(key) for key in own}
    hashes = {said["data_hash"], read_json(path.with_suffix(".json"))["data_hash"]}
    if not same or hashes != {study.cohort.data_hash} or not said["before"]:
        return as_table([])
    methods = read_table(path, ("method",))["method"]
    table = read_verdicts(path)[(methods == rule.method).to_numpy()]
    # the rule is the protocol's; what the study compares is in its own declaration
    return table.assign(study=ABLATION, protocol=rule.sha256, declaration=said["sha256"])


def write_verdict(study: Study, own: pd.DataFrame) -> pd.DataFrame:
    """Write this dataset's verdicts, and T14: those of all datasets of the preset; T14.

    Each dataset keeps its own rows (tab_verdict) and T14 is put together from them, one process at
    a time: of datasets that are judged at once none loses its rows.
    """
    path = study.places.figures_all / "tab14.csv"
    with locked(path.with_name(".tab14.lock")):
        study.publish(PART, own)
        places = sorted(study.places.figures.parent.glob(f"*/{PART}.csv"))
        whole = pd.concat([read_verdicts(place) for place in places], ignore_index=True)
        found = {place.parent.name: read_json(place.with_suffix(".json")) for place in places}
        stamps = {
            name: {key: value for key, value in one.items() if key != "files"}
            for name, one in found.items()
        }
        publish_table(whole, path, _spanning_stamp(stamps, study.stamp), contents()["tab14"][0])
    return whole


def _spanning_stamp(
    stamps: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any]
) -> dict[str, Any]:
    """Stamp of a file whose rows come from several datasets' runs, put together by one of them."""
    return {
        "datasets": dict(sorted(stamps.items())),
        "simulated": any(one["simulated"] for one in stamps.values()),
        "commit": own["commit"],
        "dirty": any(one["dirty"] for one in stamps.values()) or own["dirty"],
    }


def read_verdicts(path: Path) -> pd.DataFrame:
    """A table of verdicts as it was written."""
    words = ("endpoint", "unit", "limits", "declaration")  # empty text is not a missing number
    table = read_table(path, COLUMNS, dtype=dict.fromkeys(words, str))
    full = table.assign(**{name: table[name].fillna("") for name in words})
    return as_table(full.to_dict("records"))
