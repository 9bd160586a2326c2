"""The protocol: what will be tested, and by which rule, written down before any test image is made.

Its hash stands in every verdict. The audit and the verdict refuse a study whose settings say
something else than the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.study import Study

RULES: dict[str, str] = {
    "kernel": "RBF; its bandwidth is the median distance between real training images",
    "scale": "features in units of their spread over real training images",
    "estimator": "KID as a U-statistic over subjects, each group against its own reals",
    "C1": "KID of the baseline's mean over seeds: max-|t| over the declared contrasts, and one of "
    "them at least the smallest effect",
    "C2": "paired change over seeds in mean squared KID difference between declared levels (minus "
    "its sampling variance) below zero, and no level's KID worse by more than levelling_down",
    "C3": "paired change over seeds in AUC and in mean equity-scaled AUC of the primary condition, "
    "each a mean over the classifiers, both above zero",
    "C4": "C2 and C3 on a dataset other than FairGenMed",
    "families": "C1 to C4 within a dataset: Holm; everything else: false discovery rate, "
    "labelled exploratory",
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
class Protocol:
    """What is compared, and how large and how sure a difference must be."""

    dataset: str = ""
    seeds: tuple[int, ...] = ()  # of the training
    baseline: str = "none"
    method: str = "fairdiffusion"
    metric: str = "kid"  # the primary quality metric: unbiased at any n
    features: str = "lite0"  # the primary feature space
    features_digest: str = ""  # of all settings that make it
    sensitivity: str = "lite0-penultimate"  # a second one
    condition: str = ""  # the primary one: of C3, and of the case mix
    classifiers: tuple[str, ...] = ()  # of C3, by the names of their configurations
    contrasts: tuple[Declared, ...] = ()
    secondary_below: int = 80  # subjects
    confidence: float = 0.95  # of each interval; 1 - confidence is each family's error rate
    smallest_effect: float = 0.2  # x the baseline's overall KID: smaller gaps don't matter
    least_seeds: int = 5  # training seeds for a comparison of methods
    levelling_down: float = 0.1  # x the level's baseline KID: no level may get worse by more

    @property
    def content(self) -> dict[str, Any]:
        """Values and rules, ready for JSON."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {**values, "rules": RULES}

    @property
    def declared(self) -> pd.DataFrame:
        """What a reader has to know of the sizes: declared, value."""
        found = {
            "training seeds": ", ".join(map(str, self.seeds)),
            "primary measure": self.metric.upper(),
            "features of": self.features,
            "differences between levels": len(self.contrasts),
            "subjects that a level needs, to count": self.secondary_below,
            "confidence of each interval": self.confidence,
            "smallest effect of interest, x the baseline's overall KID": self.smallest_effect,
            "training seeds that a comparison of methods needs": self.least_seeds,
            "no level may get worse by more than, x its KID": self.levelling_down,
        }
        return pd.DataFrame({"declared": list(found), "as": [f"{v}" for v in found.values()]})

    @property
    def rules(self) -> pd.DataFrame:
        """The rules in words: claim, rule."""
        return pd.DataFrame({"of": list(RULES), "rule": list(RULES.values())})

    @property
    def sha256(self) -> str:
        """Of the content: 64 hex digits."""
        return content_hash(self.content)

    @property
    def digest(self) -> str:
        """First 10 digits of the hash."""
        return self.sha256[:10]


def content_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of what is declared, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def protocol_of(study: Study) -> Protocol:
    """The protocol that the settings and the test subjects' attributes lay down.

    Who is in the test split decides which levels are primary; no image is looked at.
    """
    settings, cohort, own = study.settings, study.cohort, study.settings.audit
    return Protocol(
        dataset=settings.dataset,
        seeds=settings.seeds,
        features=space_name(own.features),
        features_digest=_features_digest(settings),
        sensitivity=space_name(own.sensitivity),
        condition=cohort.spec.primary_condition,
        classifiers=tuple(settings.classifier(name).name for name in settings.classifiers),
        contrasts=declared_contrasts(cohort, own.secondary_below),
        secondary_below=own.secondary_below,
        confidence=own.confidence,
        smallest_effect=own.smallest_effect,
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


# -- the file --------------------------------------------------------------------------------


def declare(
    path: Path, content: Mapping[str, Any], study: Study, *, before: bool, frozen: bool = False
) -> Path:
    """Write down what is fixed beforehand; a file that says the same stays, with its first commit.

    The file holds the content, its SHA-256, the code's commit, the data's hash, and whether it
    was written before there was anything to look at.

    Parameters
    ----------
    content : mapping
        Ready for JSON.
    before : bool
        There is nothing to look at now. A file that came or changed too late says so as long as
        there is.
    frozen : bool
        Refuse to change what was looked at.

    Raises
    ------
    InputError
        ``frozen``, and the file says something else.
    """
    if path.is_file():
        found = read_json(path)
        if found.get("sha256") == content_hash(content) and (found["before"] or not before):
            path.touch()  # newer than the cohort that it was checked against
            return path
        if frozen and not before:
            raise InputError(
                f"{path}: says something else than these settings in "
                f"{_differing(found['protocol'], content)}, and was measured under; give another "
                "--figures-root"
            )
    kept = {key: study.stamp[key] for key in ("data_hash", "simulated", "commit", "dirty")}
    digest = content_hash(content)
    write_json(path, {"protocol": content, "sha256": digest, "before": before, **kept})
    return path


def check_declared(path: Path, content: Mapping[str, Any], wanted: str) -> bool:
    """Whether what these settings declare was written before there was anything to look at.

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
    digest = content_hash(content)
    if found["sha256"] != digest:
        raise InputError(
            f"{path}: protocol {found['sha256'][:10]} differs from these settings' "
            f"({digest[:10]}) in {_differing(own, content)}; expected what was written beforehand"
        )
    return bool(found["before"])


def _differing(found: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    other = [key for key, value in content.items() if found.get(key) != value]
    return ", ".join(other) or "a field of its own"


def protocol_path(places: Places) -> Path:
    """Where the protocol of a study lies."""
    return places.figures / "protocol.json"


def write_protocol(study: Study) -> Path:
    """Declare what the study tests; the file."""
    folders = [study.places.generated(*run) / "test" for run in study.settings.runs]
    before = not any(folder.is_dir() and any(folder.iterdir()) for folder in folders)
    content = protocol_of(study).content
    return declare(protocol_path(study.places), content, study, before=before)


@dataclass(frozen=True)
class Registered:
    """A protocol that agrees with its file, and whether that came before any test image."""

    rule: Protocol
    before: bool


def check_protocol(study: Study) -> Registered:
    """The protocol on disk, if it is the one that the settings lay down.

    Raises
    ------
    InputError
        As :func:`check_declared`.
    """
    rule = protocol_of(study)
    wanted = (
        "the protocol has to be written before test images are made (`fairdiff run` does so, and "
        "notebook 04_generate)"
    )
    return Registered(rule, check_declared(protocol_path(study.places), rule.content, wanted))
