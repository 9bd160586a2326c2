"""The protocol: fixed before the images, bound to its hash, and refused where it doesn't fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.verdict.protocol import (
    Protocol,
    check_declared,
    check_protocol,
    declare,
    protocol_of,
    protocol_path,
    write_protocol,
)
from fairdiff_lib.study import Study

DATASET = "ham10000"
SPEC = dataset_of(DATASET).spec()


def small_cohort(older: int = 30) -> Cohort:
    """200 test lesions, ``older`` of them of older patients; nobody looks at an image."""
    n, (young, old) = 200, SPEC.levels("age")
    table = pd.DataFrame(
        {
            "subject": [f"s{i}" for i in range(n)],
            "image": [f"i{i}" for i in range(n)],
            "split": ["test"] * n,
            "sex": ["Female", "Male"] * (n // 2),
            "age": np.where(np.arange(n) < older, old, young),
            "malignant": ["benign"] * n,
            "dx": ["nv"] * n,
            "prompt": ["p"] * n,
            "excluded": [""] * n,
        }
    )
    return Cohort(SPEC, table, Path(), "hash")


Make = Callable[..., Study]


@pytest.fixture
def make(tmp_path: Path, study_of: Callable[..., Study]) -> Make:
    """A study of the small cohort, by overrides, in this test's folders."""

    def study(older: int = 30, runs: str = "runs", **overrides: str) -> Study:
        settings = load_settings("smoke", DATASET, overrides)
        roots = {"runs_root": str(tmp_path / runs), "figures_root": str(tmp_path / "f")}
        return study_of(settings, small_cohort(older), **roots)

    return study


def make_images(study: Study) -> None:
    folder = study.places.generated(*study.settings.runs[0]) / "test"
    folder.mkdir(parents=True)
    (folder / "i0.png").write_bytes(b"")


def test_contrasts_are_declared_by_size_alone(make: Make) -> None:
    rule = protocol_of(make(older=30))
    found = {c.attribute: c for c in rule.contrasts}
    young, old = SPEC.levels("age")
    assert (found["age"].level, found["age"].reference) == (old, young)
    assert (found["age"].n, found["age"].role) == (30, "secondary")
    assert (found["sex"].level, found["sex"].reference) == ("Male", "Female")  # the first of equals
    assert (found["sex"].n, found["sex"].role) == (100, "primary")


def test_a_protocol_is_found_as_it_was_written(make: Make) -> None:
    study = make()
    path = write_protocol(study)
    assert path == protocol_path(study.places) == study.places.figures / "protocol.json"
    first = read_json(path)
    assert len(first["sha256"]) == 64 and first["before"] is True
    make_images(study)
    write_protocol(study)
    assert read_json(path) == first  # the same words: still written before
    found = check_protocol(study)
    assert found.before and found.rule.sha256 == first["sha256"]


def test_a_missing_protocol_stops_the_study(make: Make) -> None:
    with pytest.raises(InputError, match=r"protocol\.json: missing; .* before test images"):
        check_protocol(make())


def test_other_settings_or_subjects_are_refused_by_field(make: Make) -> None:
    write_protocol(make())
    other = make(**{"audit.secondary_below": "20", "seeds": "0,1"})
    with pytest.raises(
        InputError, match=r"differs .* in seeds, contrasts, secondary_below;"
    ) as raised:
        check_protocol(other)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="in contrasts;"):
        check_protocol(make(older=90))
    changed = make(**{"mitigation.exploitation_rate": "0.9"})
    assert check_protocol(changed).before  # no part of the audit


def test_a_protocol_that_comes_or_changes_after_the_images_says_so(make: Make) -> None:
    study, change = make(), {"audit.smallest_effect": "0.5"}
    write_protocol(study)
    make_images(study)
    write_protocol(make(**change))
    assert not check_protocol(make(**change)).before
    fresh = make(runs="new", **change)
    write_protocol(fresh)  # the same words, and no image any more
    assert check_protocol(fresh).before


def test_what_was_measured_under_a_declaration_freezes_it(make: Make, tmp_path: Path) -> None:
    path, study = tmp_path / "declared.json", make()
    declare(path, {"arms": 3}, study, before=True, frozen=True)
    declare(path, {"arms": 3}, study, before=False, frozen=True)
    assert check_declared(path, {"arms": 3}, "")
    with pytest.raises(InputError, match=r"something else than these settings in arms, and was"):
        declare(path, {"arms": 4}, study, before=False, frozen=True)
    declare(path, {"arms": 4}, study, before=True, frozen=True)  # nothing measured: it may change
    assert check_declared(path, {"arms": 4}, "")


def test_an_edited_file_is_refused(make: Make) -> None:
    path = write_protocol(make())
    found = read_json(path)
    found["protocol"]["smallest_effect"] = 0.01
    write_json(path, found)
    with pytest.raises(InputError, match="doesn't have the hash that it states"):
        check_protocol(make())


def test_the_hash_follows_every_value_and_names_no_place(make: Make, tmp_path: Path) -> None:
    plain = Protocol()
    assert plain.digest == Protocol().digest == plain.sha256[:10]
    for field, value in (("least_seeds", 4), ("levelling_down", 0.2), ("metric", "fid")):
        assert dataclasses.replace(plain, **{field: value}).sha256 != plain.sha256
    text = write_protocol(make(**{"audit.features": str(tmp_path)})).read_text()
    assert str(tmp_path) not in text and tmp_path.name in text
