"""T14: one verdict per claim and data set, with the sentence that a reader may quote of each.

The protocol says what is tested, the tables of 05 and 07 what was measured, :func:`decide.outcome`
what follows. Here they come together; nothing is decided here but which contrast leads a claim.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.decide import DIFFERENT, LARGER, NO_LARGER, UNDECIDED, Effect, outcome
from fairdiff_lib.audit.quality import PASSED, SCOPE
from fairdiff_lib.audit.seeds import LEAST_RUNS
from fairdiff_lib.datasets import Dataset, contents, dataset_name, dataset_of
from fairdiff_lib.disk.files import locked, read_json, read_table
from fairdiff_lib.disk.stamps import publish_table, read_stamp
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import level_name, method_name, name_of, rounded, with_interval
from fairdiff_lib.settings.options import Population
from fairdiff_lib.studies.verdict.effects import COLUMNS as MEASURED
from fairdiff_lib.studies.verdict.effects import (
    CONTROL,
    EFFECT,
    controls_found,
    tally,
    with_planted,
)
from fairdiff_lib.studies.verdict.protocol import (
    AUC,
    BLUR,
    DISPARITY,
    EQUITY,
    KID,
    PRIMARY_OF,
    QUALITY,
    STATEMENTS,
    Protocol,
    Registered,
)
from fairdiff_lib.study import Study

NO_GAP = " No difference between these groups was seen that it could have narrowed."
UNITS = {BLUR: " px"}
MEASURES = {BLUR: "in equivalent blur", KID: "in KID", AUC: "in AUC"}
SIMULATED_C1 = "What was planted is found, and nothing else"
FOR, AGAINST, OPEN = "for the claim", "against the claim", "open"
COLUMNS = (
    "dataset", "claim", "part", "statement", "verdict", "bearing", "endpoint", "attribute",
    "level", "reference", "value", "low", "high", "smallest_effect", "n", "runs", "seeds",
    "outcome", "testable", "power_nothing", "power_twice", "n_needed", "runs_needed", "planted",
    "as_planted", "quote", "not_to_say", "limits", "protocol",
)  # fmt: skip
LOG = logging.getLogger(__name__)
PART, TESTS = "tab_verdict", "tab_tests"  # of one dataset: T14's rows; every test behind them
EFFECTS = ("tab_effects", "tab_effects_downstream")  # what 05 and 07 measured
KEY = ("claim", "part", "endpoint", "attribute", "level")
STRONGEST = (LARGER, DIFFERENT, UNDECIDED, NO_LARGER)  # as in decide.all_of
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a verdict's words need besides numbers."""

    dataset: str
    rule: Protocol
    before: bool = True  # the protocol was written before any test image existed
    model: str = ""  # the generator's kind and size, in words
    gates: pd.DataFrame | None = None  # tab_gates: method, gate, grade, bears_on; None: no check
    population: Population | None = None  # what was simulated
    levels: Sequence[str] = ()  # of the condition that classifiers tell

    @property
    def told_apart(self) -> str:
        """What a classifier's AUC is for, in words: as "telling malignant from benign"."""
        if len(self.levels) == 2:
            return f"telling {self.levels[1]} from {self.levels[0]}"
        if self.levels:
            return f"telling {', '.join(self.levels[:-1])} and {self.levels[-1]} apart"
        return name_of(self.rule.condition).lower()

    def failed(self, bears_on: str) -> list[str]:
        """Checks of the compared methods that did not pass in some run, by name."""
        if self.gates is None or self.gates.empty:
            return []
        own = self.gates[self.gates["method"].isin([self.rule.baseline, self.rule.method])]
        own = own[(own["bears_on"] == bears_on) & (own["grade"] != PASSED)]
        return [name_of(str(gate)) for gate in dict.fromkeys(own["gate"])]


def as_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Rows as a table in ``COLUMNS``; counts are whole numbers also where some are missing."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"n": "Int64", "runs": "Int64"})


# -- every test ------------------------------------------------------------------------------


def test_table(effects: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """The outcome of every planned test that was measured, in ``COLUMNS``.

    Parameters
    ----------
    effects : DataFrame
        In ``effects.COLUMNS``, with the rows of the control.
    """
    rule, found = setting.rule, set(controls_found(effects))
    planned = {test.key: test for test in rule.tests}
    rows: list[Row] = []
    for row in effects[effects["claim"] != CONTROL].to_dict("records"):
        test = planned[tuple(row[name] for name in KEY)]
        sure = test.endpoint in found and not (test.claim == "C3" and setting.failed("C3"))
        told = outcome(
            Effect(**{key: row[key] for key in EFFECT}),
            test.smallest,
            confidence=rule.confidence,
            unit=UNITS.get(test.endpoint, ""),
            control_found=sure,
        )
        # what can't decide is told with the number that was declared, not with one that the
        # interval which came of it suggests
        wanted, runs = (told.n, told.runs) if test.testable else (test.n_needed, np.nan)
        rows.append({str(key): row[key] for key in COLUMNS if key in row} | {
            "dataset": setting.dataset, "statement": STATEMENTS[test.claim, test.part],
            "smallest_effect": test.smallest, "outcome": told.name, "bearing": OPEN,
            "testable": test.testable, "power_nothing": test.power_nothing,
            "power_twice": test.power_twice, "n_needed": wanted, "runs_needed": runs,
            "limits": dataset_of(setting.dataset).limits, "protocol": rule.sha256,
            "planted": "", "as_planted": "",
            "not_to_say": _not_to_say(told.name if test.testable else UNDECIDED, setting),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    if setting.population is not None and len(table):
        own = (table["claim"] == "C1") & np.isfinite(table["low"].astype(float))
        both = with_planted(table[own], setting.population)
        table = pd.concat([both, table[~own]]).sort_index()
    kept = table.to_dict("records")
    return as_table([
        row | {
            "verdict": _verdict(row) if row["testable"] else _untestable(row),
            "quote": _quote(row, setting) + NO_GAP * _nothing_to_narrow(row, table),
        }
        for row in kept
    ])  # fmt: skip


def _verdict(row: Mapping[Any, Any]) -> str:
    """The outcome in words, with X or with what would decide."""
    return {
        LARGER: f"larger than {_smallest(row)}",
        DIFFERENT: "different, size open",
        NO_LARGER: f"no difference larger than {_smallest(row)}",
        UNDECIDED: "undecided" + _needs(row),
    }[row["outcome"]]


def _untestable(row: Mapping[Any, Any]) -> str:
    """What came of a test that was declared untestable: where its interval lies, no verdict."""
    came = {
        LARGER: f", the interval lies beyond {_smallest(row)}",
        DIFFERENT: ", the interval leaves out 0",
        NO_LARGER: f", the interval lies within {_smallest(row)}",
        UNDECIDED: _needs(row),
    }[row["outcome"]]
    return f"declared untestable{came}"


def _smallest(row: Mapping[Any, Any]) -> str:
    return f"{rounded(row['smallest_effect'])}{UNITS.get(row['endpoint'], '')}"


def _as_declared(row: Mapping[Any, Any]) -> str:
    """The verdict of a test that can't decide with these patients, whatever it found."""
    return f"undecided, as declared beforehand{_needs(row).replace(', would', '; it would')}"


def _needs(row: Mapping[Any, Any]) -> str:
    parts = [f"n = {row['n_needed']:,.0f}"] * bool(np.isfinite(row["n_needed"]))
    runs = row["runs_needed"]
    parts += [f"R = {runs:,.0f}"] * bool(np.isfinite(runs) and runs > row["runs"])
    return f", would need about {' or '.join(parts)}" if parts else ""


# -- every claim -----------------------------------------------------------------------------


def claim_table(tests: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """T14's rows of one dataset, in ``COLUMNS``: each with the contrast that leads it.

    A claim rests on the tests of its primary endpoint that were declared testable. "No difference
    larger than X" needs all of them; else the strongest sign of one is told.
    """
    rows: list[Row] = []
    for claim, part in STATEMENTS:
        own = tests[(tests["claim"] == claim) & (tests["part"] == part)]
        own = own[own["endpoint"] == PRIMARY_OF.get(claim, "")]
        if len(own):
            row = _lead(own.to_dict("records"))
            rows.append(row | {"bearing": _bearing(row, tests)})
            if claim == "C1" and setting.population is not None:
                rows[-1] |= {"statement": SIMULATED_C1, "verdict": tally(own), "bearing": OPEN}
    own_set = dataset_of(setting.dataset)
    methods = [row for row in rows if row["claim"] in ("C2", "C3")]
    if len(methods) == 4 and own_set.elsewhere and not own_set.simulated:
        rows.append(_elsewhere(methods, own_set))
    return as_table(rows)


def _lead(rows: Sequence[Mapping[Any, Any]]) -> Row:
    """The row that a claim is told by."""
    able = [row for row in rows if row["testable"]]
    if not able:
        nearest = min(rows, key=lambda row: float(np.nan_to_num(row["n_needed"], nan=np.inf)))
        told = {**nearest, "outcome": UNDECIDED, "verdict": _as_declared(nearest)}
        return {str(k): v for k, v in told.items()}
    for name in STRONGEST:
        own = [row for row in able if row["outcome"] == name]
        if own:  # of equals, the one whose interval reaches furthest
            found = max(own, key=lambda row: np.nan_to_num(max(-row["low"], row["high"])))
            return {str(k): v for k, v in found.items()}
    raise InputError("outcome of several contrasts: there is none")


def _bearing(row: Mapping[str, Any], tests: pd.DataFrame) -> str:
    """What an outcome says of the claim: a claim about a method needs several runs."""
    if row["outcome"] == UNDECIDED:
        return OPEN
    if row["claim"] != "C1" and row["runs"] < LEAST_RUNS:
        return OPEN
    base = gaps(tests, row["endpoint"])
    if row["outcome"] == NO_LARGER:
        return OPEN if row["part"] == EQUITY and base.empty else AGAINST
    if row["part"] == DISPARITY:
        return FOR
    up = row["value"] > 0
    if row["part"] == QUALITY:
        return FOR if up == (row["endpoint"] == AUC) else AGAINST
    base = base[(base["attribute"] == row["attribute"]) & (base["level"] == row["level"])]
    if base.empty:  # no gap was seen that could shrink or grow
        return OPEN
    return FOR if up != (float(base["value"].iloc[0]) > 0) else AGAINST


def gaps(tests: pd.DataFrame, endpoint: str) -> pd.DataFrame:
    """Differences between groups that were seen: what a method could narrow."""
    seen = (tests["part"] == DISPARITY) & tests["outcome"].isin([LARGER, DIFFERENT])
    return tests[seen & (tests["endpoint"] == endpoint)]


def _nothing_to_narrow(row: Mapping[Any, Any], tests: pd.DataFrame) -> bool:
    """An unchanged difference of images that was none before: a method could not have helped."""
    if row["claim"] != "C2" or row["part"] != EQUITY or row["outcome"] != NO_LARGER:
        return False
    base = gaps(tests, row["endpoint"])
    here = (base["attribute"] == row["attribute"]) & (base["level"] == row["level"])
    return not bool(here.any())


def _elsewhere(rows: Sequence[Row], own_set: Dataset) -> Row:
    """C4: all parts of C2 and C3 must hold; the first that does not leads it."""
    for bearing in (AGAINST, OPEN, FOR):
        own = [row for row in rows if row["bearing"] == bearing]
        if own:
            lead = own[0]
            said = f"{lead['claim']} {lead['part']}: {lead['verdict']}"
            told = Counter(str(row["verdict"]).partition(";")[0] for row in rows)
            each = " and ".join(f'{count} read "{verdict}"' for verdict, count in told.items())
            quote = (
                f"On {own_set.phrase}, of the {len(rows)} claims for FairDiffusion (better images, "
                f"more equal images, better classifiers, more equal classifiers) {each}."
            )
            words = {"statement": STATEMENTS["C4", ""], "bearing": bearing, "verdict": said,
                     "quote": quote}  # fmt: skip
            return {**lead, **words, "claim": "C4", "part": ""}
    raise InputError("C4: there is no verdict on C2 and C3")


# -- the sentence to quote -------------------------------------------------------------------


def _quote(row: Mapping[Any, Any], setting: Setting) -> str:
    """One sentence that stands by itself, and one that says of whom it speaks."""
    own = dataset_of(setting.dataset)
    who = f"{'simulated ' * own.simulated}test {own.unit}"
    place = "in the smaller group" if row["reference"] else "in all"
    said = _verdict(row) if row["testable"] else _as_declared(row)
    return (
        f"On {own.phrase}, with {setting.model or 'this model'}, {_finding(row, setting)} "
        f"({row['n']:,.0f} {who} {place}): {said}. {' '.join(_scope(row, setting))}"
    )


def _finding(row: Mapping[Any, Any], setting: Setting) -> str:
    """What was measured, with its interval."""
    base, method = (method_name(x) for x in (setting.rule.baseline, setting.rule.method))
    level, other = (level_name(row["attribute"], row[x]) for x in ("level", "reference"))
    measure, unit = MEASURES[row["endpoint"]], UNITS.get(row["endpoint"], "")
    turned, open_side = row["value"] < 0, bool(row["low"] <= 0 <= row["high"])
    ends = [row[x] for x in ("value", "low", "high")]
    size = [-ends[0], -ends[2], -ends[1]] if turned else ends
    amount, signed = (f"{with_interval(*x)}{unit}" for x in (size, ends))
    if not np.isfinite(row["value"]):
        amount = signed = "an amount that could not be estimated"
    if row["part"] == DISPARITY and open_side:
        return (
            f"{base}'s images for {level} and those for {other} are not told apart in how close "
            f"they are to real ones; the former minus the latter is {signed} {measure}"
        )
    if row["part"] == DISPARITY:
        side = "closer to" if turned else "further from"
        return (
            f"{base}'s images for {level} are {side} real ones than those for {other}, by {amount} "
            f"{measure}"
        )
    if row["part"] == EQUITY:
        subject = f"the difference between {level} and {other}"
        trained = " of classifiers of the generated images" * (row["endpoint"] == AUC)
        return f"{subject}{trained} changes by {signed} {measure} from {base} to {method}"
    if row["endpoint"] == AUC:
        side = "lower" if turned else "higher"
        if open_side:
            return (
                f"classifiers trained on {method}'s images and on {base}'s are not told apart by "
                f"their AUC for {setting.told_apart}; the former minus the latter is {signed}"
            )
        return (
            f"classifiers trained on {method}'s images have an AUC for {setting.told_apart} that "
            f"is {side} by {amount} than those of {base}'s"
        )
    if open_side:
        return (
            f"{method}'s images and {base}'s are not told apart in how close they are to real "
            f"ones; the former minus the latter is {signed} {measure}"
        )
    side = "closer to" if turned else "further from"
    return f"{method}'s images are {side} real ones than {base}'s, by {amount} {measure}"


def _scope(row: Mapping[Any, Any], setting: Setting) -> Iterator[str]:
    """Of whom it speaks, and what is left out, in sentences."""
    seeds, unit = str(row["seeds"]).count(",") + 1, dataset_of(setting.dataset).unit
    if row["runs"] >= LEAST_RUNS:
        yield (
            f"It speaks of new {unit} and new runs ({row['runs']:.0f} complete ones were made, "
            "with one autoencoder)."
        )
    elif seeds >= LEAST_RUNS:
        yield (
            f"It speaks of new {unit} and of other fine-tunings of this one base ({seeds} were "
            "made); another base is left out."
        )
    else:
        many = f"these {seeds} trainings" if seeds > 1 else "this one training"
        yield f"It speaks of new {unit} and {many}; another training is left out."
    realism, prompts = setting.failed(SCOPE), setting.failed("C3")
    if realism:
        yield f"It speaks of images that fail a check of realism ({'; '.join(realism)})."
    if prompts and row["claim"] == "C3":
        yield f"The images don't all show what was asked ({'; '.join(prompts)})."
    if not setting.before:
        yield "It is exploratory: the protocol was written after test images existed."
    if dataset_of(setting.dataset).simulated:
        yield "The patients are simulated: it tells of the audit and the mechanism."


def _not_to_say(name: str, setting: Setting) -> str:
    """What may not be said: it doesn't follow from the outcome."""
    said = {
        LARGER: "The group is the cause, and other models differ as well.",
        DIFFERENT: "The difference matters.",
        NO_LARGER: "There is no difference at all.",
        UNDECIDED: "There is no difference.",
    }[name]
    return said + " So it is with real patients." * dataset_of(setting.dataset).simulated


# -- from a study's tables to T14 ------------------------------------------------------------


def collect_verdict(study: Study, registered: Registered) -> tuple[pd.DataFrame, pd.DataFrame]:
    """T14's rows of this dataset, and every test behind them.

    Raises
    ------
    InputError
        A table is missing, or rests on other data than the cohort.
    """
    made = data_version(study, (*EFFECTS, "tab_gates"))
    if made != study.cohort.data_hash:
        raise InputError(
            f"{study.places.figures}: its tables are of data {made[:10]}, {study.places.data} "
            f"holds {study.cohort.data_hash[:10]} now; run the study again"
        )
    gates = read_table(study.places.figures / "tab_gates.csv", ("method", "grade", "bears_on"))
    setting = Setting(
        study.settings.dataset,
        registered.rule,
        registered.before,
        study.settings.model_words,
        gates,
        study.settings.simulator,
        {c.name: c.levels for c in study.cohort.spec.conditions}.get(registered.rule.condition, ()),
    )
    tests = test_table(read_effects(study), setting)
    return claim_table(tests, setting), tests


def data_version(study: Study, names: Sequence[str]) -> str:
    """Hash of the data that tables of this study were made from; they must agree."""
    folder = study.places.figures
    stamps = {name: read_json(folder / f"{name}.json") for name in names}
    found = {name: str(stamp.get("data_hash", "")) for name, stamp in stamps.items()}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {value[:10]}" for name, value in found.items())
        raise InputError(f"{folder}: tables of different data ({said}); run them again")
    return found[names[0]]


def read_effects(study: Study) -> pd.DataFrame:
    """What 05 and 07 measured, one under the other."""
    words = dict.fromkeys(("attribute", "level", "reference", "seeds", "note"), str)
    paths = [study.places.figures / f"{name}.csv" for name in EFFECTS]
    parts = [read_table(path, MEASURED, dtype=words).fillna(dict.fromkeys(words, ""))
             for path in paths]  # fmt: skip
    both: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return both


def write_verdict(study: Study, claims: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """Write this dataset's verdicts, and T14: those of all datasets of the preset; T14.

    Each dataset keeps its own rows and T14 is put together from them, one process at a time: of
    datasets that are judged at once none loses its rows.
    """
    path = study.places.figures_all / "tab14.csv"
    study.publish(TESTS, tests)
    with locked(path.with_name(".tab14.lock")):
        study.publish(PART, claims)
        judged = sorted(study.places.figures.parent.glob(f"*/{PART}.csv"))
        places = [place for place in judged if {*COLUMNS} <= {*read_table(place).columns}]
        if len(places) < len(judged):  # 0.1 asked other questions: its rows can't stand here
            names = ", ".join(place.parent.name for place in judged if place not in places)
            LOG.warning("T14 leaves out %s: judged by an earlier version; run it again", names)
        whole = pd.concat([read_verdicts(place) for place in places], ignore_index=True)
        found = {place.parent.name: read_stamp(place.with_suffix(".json")) for place in places}
        stamps = {
            name: {key: value for key, value in one.items() if key != "files"}
            for name, one in found.items()
        }
        publish_table(
            whole, path, _spanning_stamp(stamps, study.stamp), contents()["tab14"][0], dataset_name
        )
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
    words = ("part", "attribute", "level", "reference", "seeds", "planted", "as_planted", "quote",
             "not_to_say", "limits")  # fmt: skip  # empty text is not a missing number
    table = read_table(path, COLUMNS, dtype=dict.fromkeys(words, str))
    full = table.assign(**{name: table[name].fillna("") for name in words})
    return as_table(full.to_dict("records"))
