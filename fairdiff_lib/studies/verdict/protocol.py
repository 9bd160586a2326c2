"""The protocol: what will be tested, and by which rule, written down before any test image is made.

From real *training* images alone it foretells how probable a decision is; what can't be decided
with these patients is declared untestable beforehand, with the number that it would take. Its hash
stands in every verdict. The audit and the verdict refuse a study whose settings say something else
than the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fairdiff_lib.audit.decide import LEAST_POWER, Power, power, size_for, spread_for
from fairdiff_lib.audit.estimate import MIN_UNITS, group_units
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.study import Study

BLUR, KID, AUC = "equivalent_blur", "kid", "auc"  # endpoints
PRIMARY_OF = {"C1": BLUR, "C2": BLUR, "C3": AUC}  # the endpoint that a claim rests on
QUALITY, EQUITY, DISPARITY = "quality", "equity", "disparity"  # parts of claims
STATEMENTS = {
    ("C1", DISPARITY): "Stable Diffusion fine-tuned on medical images differs in quality between "
    "groups",
    ("C2", QUALITY): "FairDiffusion improves image quality",
    ("C2", EQUITY): "FairDiffusion makes image quality more equal between groups",
    ("C3", QUALITY): "FairDiffusion's images train better classifiers",
    ("C3", EQUITY): "FairDiffusion's images train classifiers that serve groups more equally",
    ("C4", ""): "C2 and C3 hold on real data other than FairGenMed, too",
}
RULES: dict[str, str] = {
    "outcome": "by where the interval of a difference lies against 0 and X: larger than X (all of "
    "it beyond X); no difference larger than X (the 90% interval inside X, and the positive "
    "control found); different, size open (without 0); else undecided, with the n or R that would "
    "decide",
    "X": "in equivalent blur: the standard deviation, in pixels, of the Gaussian blur of a group's "
    "own real images whose KID is the generator's. In KID: what a blur wider by X makes of all "
    "training subjects at the expected blur. In AUC: as it stands. Fixed before any image",
    "testable": "contrasts whose power is at least 80% both to exclude X where nothing differs and "
    "to find 2 X to be larger than X. A claim rests on these, in its primary endpoint, alone. The "
    "powers are of a generator as far off as the expected blur makes training images: one that is "
    "further off varies more, and has less power than was declared",
    "run": "base model, fine-tuning and sampling; the variance of a mean over runs is that between "
    "runs plus that of subjects. Complete runs share the autoencoder alone. Over fine-tunings of "
    "one base the base counts as one run",
    "family": '"different" and "larger": Bonferroni over a part\'s testable contrasts; "no '
    'difference larger than X": every one of them has to pass',
    "C1": "level minus the attribute's largest level, of the baseline",
    "C2 quality": "method minus baseline, over all subjects",
    "C2 equity": "method minus baseline of each level's difference from the largest",
    "C3 quality": "method minus baseline in AUC of the primary condition, mean over classifiers",
    "C3 equity": "method minus baseline of each level's difference in AUC from the largest",
    "C4": "all parts of C2 and C3, on real data other than FairGenMed",
    "control": "the images of a random group of test subjects pass through the autoencoder, its "
    "latents drawn towards half their resolution, as far as makes 2 X of real training images; it "
    "is found where their equivalent blur is clearly higher. For AUC: classifiers of generated "
    "images are clearly better than chance, and no check of what prompts show has failed",
    "checks": "of prompts limit C3; of realism are said in the scope; none voids a comparison",
}


@dataclass(frozen=True)
class Declared:
    """A contrast that is fixed beforehand: a level against its attribute's largest.

    ``n`` and ``n_reference`` count test subjects; ``role`` is primary or secondary.
    """

    attribute: str
    level: str
    reference: str
    n: int
    n_reference: int
    role: str


@dataclass(frozen=True)
class Planned:
    """A test, and what it can decide with these patients.

    ``error`` is the standard error to be expected, of subjects alone; ``df`` its degrees of
    freedom.
    """

    claim: str
    part: str
    endpoint: str
    attribute: str  # overall, all and no reference where no levels are compared
    level: str
    reference: str
    n: int  # of the smaller group
    smallest: float  # X
    error: float
    df: float
    family: int = 1
    power_nothing: float = 0.0  # of "no difference larger than X" where there is none
    power_twice: float = 0.0  # of "larger than X" at 2 X
    n_needed: float = float("inf")
    # between runs, up to which the power stays; NaN for one run
    spread_allowed: float = float("nan")

    @property
    def testable(self) -> bool:
        """Whether both powers are enough, and the group large enough for an estimate."""
        return self.n >= MIN_UNITS and Power(self.power_nothing, self.power_twice).testable

    @property
    def key(self) -> tuple[str, ...]:
        """What names it in a table."""
        return self.claim, self.part, self.endpoint, self.attribute, self.level


@dataclass(frozen=True)
class Protocol:
    """What is compared, and how large and how sure a difference must be."""

    dataset: str = ""
    seeds: tuple[int, ...] = ()  # of the training
    base_per_seed: bool = False  # each seed is a complete run; else a fine-tuning of one base
    baseline: str = "none"
    method: str = "fairdiffusion"
    metric: str = KID  # that tables of quality are led by
    features: str = "lite0"  # the primary feature space
    features_digest: str = ""  # of all settings that make it
    sensitivity: str = "lite0-penultimate"  # a second one
    condition: str = ""  # the primary one: of C3, and of the case mix
    classifiers: tuple[str, ...] = ()  # of C3, by the names of their configurations
    contrasts: tuple[Declared, ...] = ()
    secondary_below: int = 80  # subjects
    confidence: float = 0.95  # of each interval
    smallest_blur: float = 0.1  # X, in pixels
    smallest_auc: float = 0.02  # X
    expected_blur: float = 0.7  # of the generator, in pixels: where X in KID is read
    # -- found on real training images, when the protocol was written
    smallest_kid: float = float("nan")  # X
    pilot: int = 0  # training subjects that the powers rest on
    tests: tuple[Planned, ...] = ()

    @property
    def premises(self) -> dict[str, Any]:
        """What the settings and the cohort's table lay down, ready for JSON; with the rules."""
        found = {key: value for key, value in self.content.items() if key not in FOUND}
        return {**found, "rules": RULES}

    @property
    def content(self) -> dict[str, Any]:
        """Values and rules, ready for JSON; what isn't finite is null."""
        values: dict[str, Any] = json.loads(
            json.dumps(asdict(self)),
            parse_constant=lambda _: None,
        )
        return {**values, "rules": RULES}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Protocol:
        """From :attr:`content`."""
        named = {one.name for one in fields(cls)}
        own = {key: tuple(value) if isinstance(value, list) else value
               for key, value in content.items() if key in named}  # fmt: skip
        own["contrasts"] = tuple(Declared(**one) for one in own["contrasts"])
        own["tests"] = tuple(Planned(**_finite(one)) for one in own["tests"])
        return cls(**_finite(own))

    def smallest(self, endpoint: str) -> float:
        """X of an endpoint."""
        return {BLUR: self.smallest_blur, KID: self.smallest_kid, AUC: self.smallest_auc}[endpoint]

    @property
    def declared(self) -> pd.DataFrame:
        """What a reader has to know of the sizes: declared, as."""
        found = {
            "X in equivalent blur, pixels": f"{self.smallest_blur:g}",
            "X in KID": f"{self.smallest_kid:.2g}",
            "X in AUC": f"{self.smallest_auc:g}",
            "power that a test needs": f"{LEAST_POWER:.0%}",
            "blur of the generator that it is foretold at, pixels": f"{self.expected_blur:g}",
            "training seeds": ", ".join(map(str, self.seeds)),
            "each of them": "a complete run: base, fine-tuning, sampling; one autoencoder for all"
            if self.base_per_seed
            else "a fine-tuning of one base that all share, and its images",
            "features": self.features,
            "confidence of each interval": f"{self.confidence:.0%}",
            "training subjects behind the powers": f"{self.pilot}",
        }
        return pd.DataFrame({"declared": list(found), "as": list(found.values())})

    @property
    def rules(self) -> pd.DataFrame:
        """The rules in words: of, rule."""
        return pd.DataFrame({"of": list(RULES), "rule": list(RULES.values())})

    @property
    def plan(self) -> pd.DataFrame:
        """Every test with its power: the fields of :class:`Planned`, and testable."""
        rows = [asdict(one) | {"testable": one.testable} for one in self.tests]
        return pd.DataFrame(rows, columns=[*(f.name for f in fields(Planned)), "testable"])

    @property
    def sha256(self) -> str:
        """Of the content: 64 hex digits."""
        return content_hash(self.content)

    @property
    def digest(self) -> str:
        """First 10 digits of the hash."""
        return self.sha256[:10]


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nulls of a file as the numbers that JSON doesn't have."""
    blank = {"n_needed": float("inf"), "error": float("inf")}
    return {k: blank.get(k, float("nan")) if v is None else v for k, v in values.items()}


FOUND = ("smallest_kid", "pilot", "tests")  # fields that rest on images


def content_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of what is declared, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def protocol_of(study: Study) -> Protocol:
    """What the settings and the test subjects' attributes lay down; no image is looked at."""
    settings, cohort, own = study.settings, study.cohort, study.settings.audit
    return Protocol(
        dataset=settings.dataset,
        seeds=settings.seeds,
        base_per_seed=settings.base_per_seed,
        features=space_name(own.features),
        features_digest=_features_digest(settings),
        sensitivity=space_name(own.sensitivity),
        condition=cohort.spec.primary_condition,
        classifiers=tuple(settings.classifier(name).name for name in settings.classifiers),
        contrasts=declared_contrasts(cohort, own.secondary_below),
        secondary_below=own.secondary_below,
        confidence=own.confidence,
        smallest_blur=own.smallest_blur,
        smallest_auc=own.smallest_auc,
        expected_blur=own.expected_blur,
    )


def space_name(features: str) -> str:
    """What tables call a feature space: a local folder by its name alone."""
    return Path(features).name if Path(features).is_dir() else features


def _features_digest(settings: Settings) -> str:
    # here, as it brings torch: whoever only asks where the protocol lies can do without
    from fairdiff_lib.classify.features import LITE_WEIGHTS

    own = settings.audit
    trained = ("reader",) * ("encoder" in (own.features, own.sensitivity))
    parts = [settings.digest("model", *trained), LITE_WEIGHTS]
    parts += [space_name(own.features), own.features_revision]
    parts += [space_name(own.sensitivity), own.sensitivity_revision]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:10]


def declared_contrasts(cohort: Cohort, secondary_below: int) -> tuple[Declared, ...]:
    """Every level of every attribute against the attribute's largest, by test subjects."""
    levels = cohort.attribute_levels
    groups = group_units(cohort.included().split("test").table, levels)
    sizes = dict(zip(groups.keys, groups.sizes().tolist(), strict=True))
    found = []
    for name, known in levels.items():
        reference = max(known, key=lambda level: sizes[name, level])
        for level in known:
            n, most = sizes[name, level], sizes[name, reference]
            role = "primary" if min(n, most) >= secondary_below else "secondary"
            if level != reference:
                found.append(Declared(name, level, reference, n, most, role))
    return tuple(found)


def with_power(tests: list[Planned], runs: int) -> tuple[Planned, ...]:
    """Tests with their powers; the family of a part are those that are testable by themselves."""
    kept = []
    for one in tests:
        near = [x for x in tests if (x.claim, x.part, x.endpoint) == one.key[:3]]
        family = sum(power(x.error, x.df, x.smallest).testable for x in near) or 1
        own = power(one.error, one.df, one.smallest, family=family)
        kept.append(
            replace(
                one,
                family=family,
                power_nothing=round(own.nothing, 4),
                power_twice=round(own.twice, 4),
                n_needed=max(size_for(one.error, one.n, one.df, one.smallest, family), MIN_UNITS),
                spread_allowed=spread_for(one.error, one.df, one.smallest, runs, family),
            )
        )
    return tuple(kept)


# -- the file --------------------------------------------------------------------------------


def declare(
    path: Path,
    premises: Mapping[str, Any],
    study: Study,
    *,
    before: bool,
    frozen: bool = False,
    complete: Callable[[], Mapping[str, Any]] | None = None,
) -> Path:
    """Write down what is fixed beforehand; a file that says the same stays, with date and commit.

    The file holds the content, its SHA-256, the date, the code's commit, the data's hash, and
    whether it was written before there was anything to look at. What says something else takes its
    place, dated anew, and names it; the old one stays as ``<name>-<digest>.json``.

    Parameters
    ----------
    premises : mapping
        Ready for JSON; what a file has to agree with.
    before : bool
        There is nothing to look at now. A file that came or changed too late says so as long as
        there is.
    frozen : bool
        Refuse to change what was looked at.
    complete : callable, optional
        Gives the whole content, premises included, where a file has to be written.

    Raises
    ------
    InputError
        ``frozen``, and the file says something else.
    """
    replaced: list[str] = []
    if path.is_file():
        found = read_json(path)
        alike = not _differing(found["protocol"], premises)
        same = alike and found.get("data_hash") == study.cohort.data_hash
        if same and (found["before"] or not before):
            path.touch()  # newer than the cohort that it was checked against
            return path
        if frozen and not before and not alike:
            raise InputError(
                f"{path}: says something else than these settings in "
                f"{', '.join(_differing(found['protocol'], premises))}, and was measured under; "
                "give another --figures-root"
            )
        if not same:
            digest = str(found["sha256"])[:10]
            write_json(path.with_name(f"{path.stem}-{digest}.json"), found)
            replaced = [*found.get("replaces", []), digest]
    content = premises if complete is None else complete()
    kept = {key: study.stamp[key] for key in ("data_hash", "simulated", "commit", "dirty")}
    said = {"protocol": content, "sha256": content_hash(content), "before": before}
    dated = {"written": datetime.now(UTC).strftime("%Y-%m-%d"), "replaces": replaced}
    write_json(path, {**said, **dated, **kept})
    return path


def check_declared(path: Path, premises: Mapping[str, Any], wanted: str) -> dict[str, Any]:
    """The file of what these settings declare.

    Parameters
    ----------
    wanted : str
        When it has to be written, and by what: said where it is missing.

    Raises
    ------
    InputError
        The file is missing, was changed by hand, or says something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: missing; {wanted}")
    found = read_json(path)
    own = found.get("protocol")
    if not isinstance(own, dict) or content_hash(own) != found.get("sha256"):
        raise InputError(f"{path}: its content doesn't have the hash that it states")
    other = _differing(own, premises)
    if other:
        raise InputError(
            f"{path}: protocol {found['sha256'][:10]} differs from these settings in "
            f"{', '.join(other)}; expected what was written beforehand"
        )
    return dict(found)


def _differing(found: Mapping[str, Any], premises: Mapping[str, Any]) -> list[str]:
    return [key for key, value in premises.items() if found.get(key) != value]


def write_protocol(study: Study) -> Path:
    """Declare what the study tests; the file."""
    folders = [study.places.generated(*run) / "test" for run in study.settings.runs]
    before = not any(folder.is_dir() and any(folder.iterdir()) for folder in folders)
    rule = protocol_of(study)

    def complete() -> dict[str, Any]:
        from fairdiff_lib.studies.verdict.pilot import planned

        return planned(study, rule).content

    path = study.places.protocol
    return declare(path, rule.premises, study, before=before, complete=complete)


@dataclass(frozen=True)
class Registered:
    """A protocol that agrees with its file, when it was written, and whether before any image."""

    rule: Protocol
    before: bool
    written: str = ""


def check_protocol(study: Study) -> Registered:
    """The protocol on disk, if it is the one that the settings lay down.

    Raises
    ------
    InputError
        As :func:`check_declared`.
    """
    wanted = (
        "the protocol has to be written before test images are made (`fairdiff run` does so, and "
        "notebook 04_generate)"
    )
    premises = protocol_of(study).premises
    found = check_declared(study.places.protocol, premises, wanted)
    rule = Protocol.read(found["protocol"])
    return Registered(rule, bool(found["before"]), str(found.get("written", "")))
