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

from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import make_stamp
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings

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
    features: str = "encoder"  # the primary feature space
    features_digest: str = ""  # of all settings that make it
    sensitivity: str = "texture"  # a second one, that no label has shaped
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
    def sha256(self) -> str:
        """Of the content: 64 hex digits."""
        return content_hash(self.content)

    @property
    def digest(self) -> str:
        """First 10 digits of the hash."""
        return self.sha256[:10]


def content_hash(content: Mapping[str, Any], compact: bool = True) -> str:
    """SHA-256 of a protocol's content, whatever the order of its keys.

    ``compact``: without spaces in the JSON; the ablation study's declaration has them.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":") if compact else None)
    return hashlib.sha256(text.encode()).hexdigest()


def protocol_of(settings: Settings, cohort: Cohort) -> Protocol:
    """The protocol that the settings and the test subjects' attributes lay down.

    Who is in the test split decides which levels are primary; no image is looked at.
    """
    own = settings.audit
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
    own = settings.audit
    parts = [settings.digest("model", "encoder")]
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


def protocol_path(layout: Places) -> Path:
    """Where the protocol of a study lies."""
    return layout.figures / "protocol.json"


def write_protocol(settings: Settings, layout: Places, cohort: Cohort) -> Path:
    """Write the protocol; a file that says the same stays as it is, with its first commit.

    The file holds the content, its SHA-256, the code's commit, the data's hash, and whether it
    was written before any test image of the study existed. A protocol that is written or changed
    after the images were made says so as long as they are there.
    """
    path, rule = protocol_path(layout), protocol_of(settings, cohort)
    before = not any(_has_test_images(layout, *run) for run in settings.runs)
    if path.is_file():
        found = read_json(path)
        if found.get("sha256") == rule.sha256 and (found["before_test_images"] or not before):
            path.touch()  # newer than the cohort that it was checked against
            return path
    stamp = make_stamp(settings, cohort.data_hash)
    write_json(
        path,
        {
            "protocol": rule.content,
            "sha256": rule.sha256,
            "before_test_images": before,
            **{key: stamp[key] for key in ("data_hash", "simulated", "commit", "dirty")},
        },
    )
    return path


def _has_test_images(layout: Places, method: str, seed: int) -> bool:
    folder = layout.generated(method, seed) / "test"
    return folder.is_dir() and any(folder.iterdir())


@dataclass(frozen=True)
class Registered:
    """A protocol that agrees with its file.

    Attributes
    ----------
    rule : Protocol
    before : bool
        It was written before any test image existed.
    commit : str
        Of the code that wrote it; empty outside git.
    """

    rule: Protocol
    before: bool
    commit: str


def check_protocol(settings: Settings, layout: Places, cohort: Cohort) -> Registered:
    """The protocol on disk, if it is the one that the settings lay down.

    Raises
    ------
    InputError
        The file is missing, was changed by hand, or says something else.
    """
    path, rule = protocol_path(layout), protocol_of(settings, cohort)
    if not path.is_file():
        raise InputError(
            f"{path}: missing; the protocol has to be written before test images are made "
            "(`fairdiff run` does so, and notebook 04_generate)"
        )
    found = read_json(path)
    content = found.get("protocol")
    if not isinstance(content, dict) or content_hash(content) != found.get("sha256"):
        raise InputError(f"{path}: its content doesn't have the hash that it states")
    if found["sha256"] != rule.sha256:
        other = [key for key, value in rule.content.items() if content.get(key) != value]
        raise InputError(
            f"{path}: protocol {found['sha256'][:10]} differs from these settings' "
            f"({rule.digest}) in {', '.join(other) or 'a field of its own'}; "
            "expected the protocol that was written before the test images"
        )
    return Registered(rule, bool(found["before_test_images"]), found["commit"] or "")
