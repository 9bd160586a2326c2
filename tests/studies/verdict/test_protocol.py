"""The protocol: fixed before the images, bound to its hash, and refused where it doesn't fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.verdict.protocol import (
    Declared,
    Protocol,
    check_protocol,
    protocol_of,
    protocol_path,
    write_protocol,
)

DATASET = "ham10000"


def small_cohort(older: int = 30) -> Cohort:
    """200 test lesions, ``older`` of them of older patients; nobody looks at an image."""
    spec, n = dataset_of(DATASET).spec(), 200
    young, old = spec.levels("age")
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
    return Cohort(spec, table, Path(), "hash")


def place(root: Path, **overrides: str) -> tuple[Settings, Places]:
    settings = load_settings("smoke", DATASET, overrides)
    return settings, Places(settings, runs_root=str(root / "runs"), figures_root=str(root / "f"))


def make_images(settings: Settings, layout: Places) -> None:
    folder = layout.generated(settings.methods[0], settings.seeds[0]) / "test"
    folder.mkdir(parents=True)
    (folder / "i0.png").write_bytes(b"")


def test_contrasts_are_declared_by_size_alone(tmp_path: Path) -> None:
    rule = protocol_of(place(tmp_path)[0], small_cohort(older=30))
    found = {c.attribute: c for c in rule.contrasts}
    young, old = dataset_of(DATASET).spec().levels("age")
    assert (found["age"].level, found["age"].reference) == (old, young)
    assert (found["age"].n, found["age"].role) == (30, "secondary")
    assert (found["sex"].level, found["sex"].reference) == ("Male", "Female")  # the first of equals
    assert (found["sex"].n, found["sex"].role) == (100, "primary")


def test_a_protocol_is_found_as_it_was_written(tmp_path: Path) -> None:
    settings, layout = place(tmp_path)
    path = write_protocol(settings, layout, small_cohort())
    assert path == protocol_path(layout) == layout.figures / "protocol.json"
    first = read_json(path)
    assert len(first["sha256"]) == 64 and first["before_test_images"] is True
    make_images(settings, layout)
    write_protocol(settings, layout, small_cohort())
    assert read_json(path) == first  # the same words: still written before
    found = check_protocol(settings, layout, small_cohort())
    assert found.before and found.rule.sha256 == first["sha256"]


def test_a_missing_protocol_stops_the_study(tmp_path: Path) -> None:
    settings, layout = place(tmp_path)
    with pytest.raises(InputError, match=r"protocol\.json: missing; .* before test images"):
        check_protocol(settings, layout, small_cohort())


def test_other_settings_or_subjects_are_refused_by_field(tmp_path: Path) -> None:
    settings, layout = place(tmp_path)
    write_protocol(settings, layout, small_cohort())
    other, _ = place(tmp_path, **{"audit.secondary_below": "20", "seeds": "0,1"})
    with pytest.raises(
        InputError, match=r"differs .* in seeds, contrasts, secondary_below;"
    ) as raised:
        check_protocol(other, layout, small_cohort())
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="in contrasts;"):
        check_protocol(settings, layout, small_cohort(older=90))
    changed, _ = place(tmp_path, **{"mitigation.exploitation_rate": "0.9"})
    assert check_protocol(changed, layout, small_cohort()).before  # no part of the audit


def test_a_protocol_that_comes_or_changes_after_the_images_says_so(tmp_path: Path) -> None:
    settings, layout = place(tmp_path)
    write_protocol(settings, layout, small_cohort())
    make_images(settings, layout)
    other, _ = place(tmp_path, **{"audit.smallest_effect": "0.5"})
    write_protocol(other, layout, small_cohort())
    assert not check_protocol(other, layout, small_cohort()).before
    fresh = Places(other, runs_root=str(tmp_path / "new"), figures_root=str(tmp_path / "f"))
    write_protocol(other, fresh, small_cohort())  # the same words, and no image any more
    assert check_protocol(other, fresh, small_cohort()).before


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    settings, layout = place(tmp_path)
    path = write_protocol(settings, layout, small_cohort())
    found = read_json(path)
    found["protocol"]["smallest_effect"] = 0.01
    write_json(path, found)
    with pytest.raises(InputError, match="doesn't have the hash that it states"):
        check_protocol(settings, layout, small_cohort())


def test_the_hash_follows_every_value_and_names_no_place(tmp_path: Path) -> None:
    plain = Protocol()
    assert plain.digest == Protocol().digest == plain.sha256[:10]
    for field, value in (("least_seeds", 4), ("levelling_down", 0.2), ("metric", "fid")):
        assert dataclasses.replace(plain, **{field: value}).sha256 != plain.sha256
    settings, layout = place(tmp_path, **{"audit.features": str(tmp_path)})
    text = write_protocol(settings, layout, small_cohort()).read_text()
    assert str(tmp_path) not in text and tmp_path.name in text


def any_cohort(dataset: str) -> Cohort:
    """Some test subjects of every level; who they are decides nothing but the contrasts."""
    spec = dataset_of(dataset).spec()
    columns = {own.name: own.levels for own in (*spec.attributes, *spec.conditions)}
    n = max(len(levels) for levels in columns.values())
    rows = [{name: levels[i % len(levels)] for name, levels in columns.items()} for i in range(n)]
    names = [f"s{i}" for i in range(n)]
    table = pd.DataFrame(rows).assign(
        subject=names, image=names, split="test", prompt="p", excluded=""
    )
    return Cohort(spec, table, Path(), "hash")


@pytest.mark.parametrize(
    "path",
    sorted((PROJECT_ROOT / "figures").glob("*/*/protocol.json")),
    ids=lambda p: f"{p.parent.parent.name}-{p.parent.name}",
)
def test_a_committed_protocol_is_still_what_the_code_lays_down(path: Path) -> None:
    """Its hash stands in published verdicts: a changed rule or preset would orphan them."""
    found = read_json(path)
    preset, dataset = path.parent.parent.name, path.parent.name
    rule = protocol_of(load_settings(preset, dataset), any_cohort(dataset))
    declared = tuple(Declared(**own) for own in found["protocol"]["contrasts"])
    assert dataclasses.replace(rule, contrasts=declared).sha256 == found["sha256"]
