"""What was measured of every test that the protocol lays down: rows that the rule reads.

Each is a signed difference with its error, its intervals, and what the runs add to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.decide import Effect
from fairdiff_lib.audit.estimate import OVERALL, Estimate, difference, mean_estimate
from fairdiff_lib.audit.seeds import LEAST_RUNS, over_runs, variance_parts
from fairdiff_lib.settings.options import PlantConfig, Population
from fairdiff_lib.studies.verdict.protocol import AUC, Planned, Protocol

CONTROL, PLANTED, UNTOUCHED = "control", "planted", "untouched"
NAMES = ("claim", "part", "endpoint", "attribute", "level", "reference")
EFFECT = tuple(Effect.__dataclass_fields__)
COLUMNS = (*NAMES, *EFFECT, "seeds")
Key = tuple[str, str]
Run = tuple[str, int]  # method, seed
Values = Mapping[Run, Mapping[Key, Estimate]]  # of one endpoint


def effect_rows(
    values: Mapping[str, Values], rule: Protocol, bases: Mapping[Run, str] | None = None
) -> pd.DataFrame:
    """Every planned test of these endpoints, in ``COLUMNS``.

    Parameters
    ----------
    values : mapping
        Endpoint to run to estimates by group, all runs on the same subjects.
    bases : mapping, optional
        Run to what it started from: only runs of different bases are complete runs.
    """
    rows = []
    for test in rule.tests:
        own = values.get(test.endpoint)
        if own is None:
            continue
        methods = (rule.baseline,) if test.claim == "C1" else (rule.baseline, rule.method)
        seeds = [s for name, s in own if name == rule.baseline
                 and all((method, s) in own for method in methods)]  # fmt: skip
        gaps = [_gap(test, [own[method, seed] for method in methods]) for seed in seeds]
        runs = len({(bases or {}).get((rule.baseline, seed), "") for seed in seeds})
        rows.append(_row(test, gaps, seeds, runs, rule.confidence))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _gap(test: Planned, found: Sequence[Mapping[Key, Estimate]]) -> tuple[Estimate, int]:
    """The test's difference in one run, and the subjects of its smaller group."""
    if test.attribute == OVERALL[0]:
        base, method = (own[OVERALL] for own in found)
        return difference(method, base), base.n
    pair = (test.attribute, test.level), (test.attribute, test.reference)
    gaps = [difference(own[pair[0]], own[pair[1]]) for own in found]
    n = min(found[0][key].n for key in pair)
    return gaps[0] if len(gaps) == 1 else difference(gaps[1], gaps[0]), n


def _row(
    test: Planned, found: Sequence[tuple[Estimate, int]], seeds: Sequence[int], runs: int,
    confidence: float,
) -> dict[str, Any]:  # fmt: skip
    names = {name: getattr(test, name) for name in NAMES}
    if not found:
        blank = dict.fromkeys(EFFECT, float("nan"))
        note = "no seed of all that is compared"
        return names | blank | {"n": test.n, "runs": 0, "of_runs": 0.0, "note": note, "seeds": ""}
    gap, of_runs = pooled([one for one, _ in found])
    effect = Effect.of(gap, found[0][1], (runs, of_runs), confidence, test.family)
    return names | asdict(effect) | {"seeds": ",".join(map(str, seeds))}


def pooled(gaps: Sequence[Estimate]) -> tuple[Estimate, float]:
    """Mean over runs or fine-tunings, and the part of its variance that is theirs.

    With fewer than ``LEAST_RUNS`` it holds for these models, on new subjects alone.
    """
    if len(gaps) < LEAST_RUNS or not all(np.isfinite(gap.value) for gap in gaps):
        return (gaps[0] if len(gaps) == 1 else mean_estimate(gaps)), 0.0
    return over_runs(gaps), variance_parts(gaps).of_runs


def control_rows(
    endpoint: str, parts: Mapping[str, tuple[Estimate, int]], level: str, rule: Protocol
) -> pd.DataFrame:
    """The positive control, in ``COLUMNS``: part (``PLANTED``, ``UNTOUCHED``) to estimate and n."""
    rows = []
    for part, (gap, n) in parts.items():
        names = dict(zip(NAMES, (CONTROL, part, endpoint, "group", level, ""), strict=True))
        effect = Effect.of(gap, n, confidence=rule.confidence)
        rows.append({**names, **asdict(effect), "seeds": ""})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def classifier_rows(
    audits: Mapping[Run, Sequence[Audit]], rule: Protocol, bases: Mapping[Run, str] | None = None
) -> pd.DataFrame:
    """C3's rows and its control, from the audits of AUC of each run's classifiers."""
    values = {
        run: {key: mean_estimate([one.estimates[key] for one in own]) for key in own[0].estimates}
        for run, own in audits.items()
    }
    rows = effect_rows({AUC: values}, rule, bases)
    base = [own[OVERALL] for (method, _), own in values.items() if method == rule.baseline]
    if not base:
        return rows
    mean = mean_estimate(base)
    above = replace(mean, value=mean.value - 0.5, bounded=False, limits=None)
    control = control_rows(AUC, {PLANTED: (above, mean.n)}, "against chance", rule)
    return pd.concat([rows, control], ignore_index=True)


def controls_found(effects: pd.DataFrame) -> Iterator[str]:
    """Endpoints whose planted difference was found: its interval lies above 0."""
    own = effects[(effects["claim"] == CONTROL) & (effects["part"] == PLANTED)]
    yield from own.loc[own["low"] > 0, "endpoint"].astype(str)


# -- what a simulation planted ---------------------------------------------------------------
# Noise and variety are planted in images, real ones among them: a generator may serve such a group
# as well as any. Fewer and worse training images are planted in the generator. Where that was
# done, the claim is about that alone.

NOTHING = "nothing"
FOUND, MISSED, ALARM, QUIET = "found", "not found", "false alarm", "rightly quiet"
WRONG = "found in the wrong direction"
NOT_JUDGED = "not judged"  # planted in images, beside a plant in the generator


def planted(config: Population) -> dict[Key, str]:
    """What the simulator was told to do to which level, in words."""
    words, own = (config.noise, "spread of appearance"), config.plant
    found = {
        key: [
            f"{word} x {value:g}" for word, value in zip(words, values, strict=True) if value != 1
        ]
        for key, values in config.knobs.items()
    }
    told = [f"{own.kept:.0%} of its training images"] * (own.kept < 1)
    told += [f"{own.mislabelled:.0%} of them with another's labels"] * (own.mislabelled > 0)
    told += [f"in {own.height} pixels of height"] * (own.height > 0)
    if config.served_worse and told:
        words_of_plant = f"a generator that saw {', '.join(told)}"
        found.setdefault(config.served_worse, []).append(words_of_plant)
    return {key: " and ".join(parts) for key, parts in found.items() if parts}


def with_planted(contrasts: pd.DataFrame, config: Population) -> pd.DataFrame:
    """Differences between levels with two more columns: what was planted, and what became of it.

    Noise, variety or worse training images were planted, not a distance: nobody knows how large a
    difference they should make, only that one is there, and its direction but for variety.
    ``low`` and ``high`` hold over the family, so that a false alarm anywhere is rare. Where the
    generator itself was given worse images of a group, what was planted in all images of another
    is told and not judged.
    """
    words = planted(config)
    rows = contrasts.to_dict("records")
    told = [words.get((row["attribute"], row["level"]), NOTHING) for row in rows]
    what = [_became(row, config) for row in rows]
    return contrasts.assign(planted=told, as_planted=what)


def _became(row: Mapping[Any, Any], config: Population) -> str:
    plain, ends = (1.0, 1.0), [(row["attribute"], row[side]) for side in ("level", "reference")]
    own, other = (config.knobs.get(end, plain) for end in ends)
    neutral = config.plant == PlantConfig(on=config.plant.on)
    trained = None if neutral else config.served_worse
    worse = [end == trained for end in ends]
    above, below = row["low"] > 0, row["high"] < 0
    if any(worse) or (own != other and not trained):
        if not above and not below:
            return MISSED
        harder = worse[0] if any(worse) else own[0] > other[0]
        either = not any(worse) and own[0] == other[0]  # more varied: in any direction
        return FOUND if either or above == harder else WRONG
    if own != other:
        return NOT_JUDGED
    return ALARM if above or below else QUIET


def tally(rows: pd.DataFrame) -> str:
    """As "1 of 3 planted differences found, 1 in the wrong direction, no false alarm in 4"."""
    there = rows[~rows["as_planted"].isin([ALARM, QUIET, NOT_JUDGED, ""])]
    rest = rows[rows["as_planted"].isin([ALARM, QUIET])]
    alarms = int((rest["as_planted"] == ALARM).sum())
    found, wrong = (int((there["as_planted"] == name).sum()) for name in (FOUND, WRONG))
    parts = [f"{found} of {len(there)} planted differences found"] * bool(len(there))
    parts += [f"{wrong} seen in the wrong direction"] * bool(wrong)
    parts += [f"{alarms or 'no'} false alarm{'s' * (alarms > 1)} in {len(rest)}"] * bool(len(rest))
    return ", ".join(parts) or "no difference between groups could be looked at"
