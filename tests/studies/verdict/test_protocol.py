"""The protocol: fixed before the images, bound to its hash, and refused where it doesn't fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.audit.blur import blur_curves, blur_images, equivalent_blur
from fairdiff_lib.audit.estimate import OVERALL, Estimate, difference, group_units
from fairdiff_lib.audit.kid import kid
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.verdict import pilot
from fairdiff_lib.studies.verdict.protocol import (
    BLUR,
    KID,
    Planned,
    Protocol,
    check_declared,
    check_protocol,
    declare,
    protocol_of,
    with_power,
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
TEST = Planned("C1", "disparity", BLUR, "sex", "Male", "Female", 100, 0.1, 0.03, 198.0,
               n_needed=90.0, spread_allowed=0.01)  # fmt: skip
FOUND = {"smallest_kid": 0.01, "pilot": 120, "tests": (TEST,)}  # what images would have said


@pytest.fixture
def make(tmp_path: Path, study_of: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> Make:
    """A study of the small cohort, by overrides, in this test's folders; no image is read."""
    monkeypatch.setattr(pilot, "planned", lambda study, rule: replace(rule, **FOUND))

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
    assert path == study.places.protocol == study.places.figures / "protocol.json"
    first = read_json(path)
    assert len(first["sha256"]) == 64 and first["before"] is True and first["replaces"] == []
    make_images(study)
    write_protocol(study)
    assert read_json(path) == first  # the same words: still written before
    found = check_protocol(study)
    assert found.before and found.written == first["written"] and found.rule.tests == (TEST,)
    assert found.rule.sha256 == first["sha256"]


def test_a_missing_protocol_stops_the_study(make: Make) -> None:
    with pytest.raises(InputError, match=r"protocol\.json: missing; .* before test images"):
        check_protocol(make())


def test_other_settings_or_subjects_are_refused_by_field(make: Make) -> None:
    write_protocol(make())
    other = make(**{"audit.smallest_blur": "0.2", "seeds": "0,1"})
    with pytest.raises(InputError, match=r"differs .* in seeds, smallest_blur;") as raised:
        check_protocol(other)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="in contrasts;"):
        check_protocol(make(older=90))
    changed = make(**{"mitigation.exploitation_rate": "0.9"})
    assert check_protocol(changed).before  # no part of the audit


def test_a_change_makes_a_new_protocol_and_keeps_the_old(make: Make) -> None:
    study, change = make(), {"audit.smallest_blur": "0.5"}
    old = read_json(write_protocol(study))
    make_images(study)
    path = write_protocol(make(**change))
    assert not check_protocol(make(**change)).before  # it came after the images
    digest = old["sha256"][:10]
    assert read_json(path)["replaces"] == [digest]
    assert read_json(path.with_name(f"protocol-{digest}.json")) == old
    fresh = make(runs="new", **change)
    write_protocol(fresh)  # the same words, and no image any more
    assert check_protocol(fresh).before


def test_what_was_measured_under_a_declaration_freezes_it(make: Make, tmp_path: Path) -> None:
    path, study = tmp_path / "declared.json", make()
    declare(path, {"arms": 3}, study, before=True, frozen=True)
    declare(path, {"arms": 3}, study, before=False, frozen=True)
    assert check_declared(path, {"arms": 3}, "")["before"]
    with pytest.raises(InputError, match=r"something else than these settings in arms, and was"):
        declare(path, {"arms": 4}, study, before=False, frozen=True)
    declare(path, {"arms": 4}, study, before=True, frozen=True)  # nothing measured: it may change
    assert check_declared(path, {"arms": 4}, "")["before"]


def test_an_edited_file_is_refused(make: Make) -> None:
    path = write_protocol(make())
    found = read_json(path)
    found["protocol"]["smallest_blur"] = 0.2
    write_json(path, found)
    with pytest.raises(InputError, match="doesn't have the hash that it states"):
        check_protocol(make())


def test_the_hash_follows_every_value_and_names_no_place(make: Make, tmp_path: Path) -> None:
    plain = Protocol()
    assert plain.digest == Protocol().digest == plain.sha256[:10]
    for field, value in (("smallest_blur", 0.2), ("smallest_kid", 0.2), ("confidence", 0.9)):
        assert replace(plain, **{field: value}).sha256 != plain.sha256
    text = write_protocol(make(**{"audit.features": str(tmp_path)})).read_text()
    assert str(tmp_path) not in text and tmp_path.name in text


# -- what can be decided ---------------------------------------------------------------------


def test_powers_are_those_of_the_family_and_what_is_needed_suffices() -> None:
    open_ = replace(TEST, level="Other", error=0.06)
    (sure, unsure), alone = with_power([TEST, open_], 3), with_power([TEST], 3)[0]
    assert sure.family == unsure.family == 1  # only one of the two is testable by itself
    assert sure == alone and sure.testable and not unsure.testable
    times = unsure.n_needed / 100
    again = with_power([replace(open_, error=0.06 / times**0.5, df=198 * times)], 3)[0]
    assert again.testable and 280 < unsure.n_needed < 340
    assert 0 < sure.spread_allowed < 0.1 and np.isnan(unsure.spread_allowed)
    assert not with_power([replace(TEST, n=9)], 3)[0].testable  # of which nothing is estimated
    both = with_power([TEST, replace(TEST, level="Other")], 1)
    assert both[0].family == 2 and both[0].power_twice < sure.power_twice


def test_the_pilot_foretells_what_an_audit_of_test_images_then_finds(
    tmp_path: Path, study_of: Callable[..., Study]
) -> None:
    """The error that training images foretell is the error of test images, within a third."""
    study = made_study(tmp_path, study_of)
    rule = pilot.planned(study, protocol_of(study))
    assert 0 < rule.smallest_kid < 1 and 160 <= rule.pilot <= 200
    by_key = {(t.claim, t.endpoint, t.attribute): t for t in rule.tests}
    c1, kid_too = by_key["C1", BLUR, "sex"], by_key["C1", KID, "sex"]
    assert c1.smallest == 0.1 and kid_too.smallest == rule.smallest_kid
    found = audited(study)
    assert c1.error == pytest.approx(found.standard_error, rel=0.35)
    assert by_key["C2", BLUR, "overall"].error < c1.error  # all subjects, and the reals cancel
    assert pilot.planned(study, protocol_of(study)).content == rule.content


def picture(rng: np.random.Generator) -> np.ndarray:
    """Grain of some strength, uint8 [32, 32, 3]."""
    grain = 128 + rng.uniform(25, 60) * rng.normal(size=(32, 32, 3))
    return np.clip(grain, 0, 255).astype(np.uint8)


def audited(study: Study) -> Estimate:
    """Male minus Female in equivalent blur, of images that are fresh ones blurred by 0.7 pixels."""
    kept = study.cohort.included()
    space = pilot.space_of(study, kept.split("train").load_images(32))
    test, rng = kept.split("test"), np.random.default_rng(1)
    reals, groups = test.load_images(32), group_units(test.table, kept.attribute_levels)
    x = space.of(reals)
    curves = blur_curves(space.kernel, x, lambda s: space.of(blur_images(reals, s)), groups)
    fresh = np.stack([picture(rng).transpose(2, 0, 1) for _ in reals])
    kids = kid(space.kernel, x, space.of(blur_images(fresh, 0.7)), groups)
    found = dict(zip(groups.keys, equivalent_blur(kids, curves), strict=True))
    assert found[OVERALL].value == pytest.approx(0.7, abs=0.15)
    return difference(found["sex", "Male"], found["sex", "Female"])


def made_study(tmp_path: Path, study_of: Callable[..., Study]) -> Study:
    """400 pictures of soft noise: half of them to train with."""
    n, rng = 400, np.random.default_rng(0)
    table = small_cohort().table.iloc[np.arange(n) % 200].reset_index(drop=True)
    names = [f"i{i:03d}" for i in range(n)]
    table = table.assign(subject=names, image=names, path=[f"{x}.png" for x in names],
                         split=np.where(np.arange(n) < 200, "train", "test"))  # fmt: skip
    for name in names:
        Image.fromarray(picture(rng)).save(tmp_path / f"{name}.png")
    cohort = Cohort(SPEC, table, tmp_path, "hash")
    settings = load_settings("smoke", DATASET, {"audit.features": "texture"})
    roots = {"runs_root": str(tmp_path / "runs"), "figures_root": str(tmp_path / "f")}
    return study_of(settings, cohort, **roots)
