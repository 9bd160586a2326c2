"""Arms of the ablation study: what they are, what they are compared with, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.study import Study

SIMULATED = "fairgenmed_simulated"


@pytest.fixture
def quick() -> Settings:
    return load_settings("quick", SIMULATED)


def test_every_method_has_an_arm_and_every_name_one_meaning(quick: Settings) -> None:
    found = arms.arms_of(quick)
    names = [arm.name for arm in found]
    assert len(set(names)) == len(names) and names[0] == arms.BASELINE
    assert {arm.method for arm in found} == set(METHODS)
    assert all(other in names for arm in found for other in arm.against)


def test_what_is_tested_is_between_core_arms_of_all_seeds(quick: Settings) -> None:
    known = {arm.name: arm for arm in arms.arms_of(quick)}
    for pair in arms.declared_comparisons(quick):
        assert all(known[name].role == arms.CORE for name in pair)
        assert all(arms.seeds_of(quick, known[name]) == tuple(range(8)) for name in pair)
    assert ("fairdiffusion", "shuffled_y") in arms.declared_comparisons(quick)
    assert ("fairdiffusion_corrected", "shuffled_y_corrected") in arms.declared_comparisons(quick)


def test_arms_of_other_roles_stand_beside_the_core_by_name() -> None:
    reference = load_settings("reference", SIMULATED)
    named = {arm.name for arm in arms.arms_of(reference)}
    core = {name for name, own in METHODS.items() if own.role == "core"}
    assert named == core | {"constant_sigma", "group_balanced", "demographic_tokens"}
    arms.check_arms(reference)
    for pair in arms.declared_comparisons(reference):
        assert set(pair) <= core  # what stands beside is described
    with pytest.raises(InputError, match=r"unknown arm in ablation\.also 'magic'"):
        arms.arms_of(load_settings("smoke", SIMULATED, {"ablation.also": "magic"}))


def test_a_method_and_its_shuffled_control_differ_in_the_scores_alone(quick: Settings) -> None:
    known = {arm.name: arm for arm in arms.arms_of(quick)}
    for name, control in (
        ("fairdiffusion", "shuffled_y"),
        ("fairdiffusion_corrected", "shuffled_y_corrected"),
    ):
        one, other = known[name], known[control]
        assert one.options == other.options
        assert METHODS[one.method].options == METHODS[other.method].options


def test_cells_change_one_thing_at_a_time(quick: Settings) -> None:
    middle = (quick.mitigation.time_window, quick.mitigation.exploitation_rate)
    cells = [arm for arm in arms.arms_of(quick) if arm.role == arms.WINDOW]
    found = []
    for arm in cells:
        own = arms.settings_of(quick, arm).mitigation
        found.append((own.time_window, own.exploitation_rate))
        assert sum(a != b for a, b in zip(found[-1], middle, strict=True)) == 1
    assert len({*found, middle}) == 5


def test_an_arm_runs_where_any_study_of_its_settings_would(quick: Settings) -> None:
    study = Study(quick, Places(quick))
    assert arms.names_of(study, arms.find_arm(quick, "none"), 3)["run"] == (
        study.places.run("none", 3).name
    )
    raw = arms.names_of(study, arms.find_arm(quick, "fairdiffusion weights"), 0)
    usual = arms.names_of(study, arms.find_arm(quick, "fairdiffusion"), 0)
    assert raw["run"] == usual["run"] and raw["generated"] != usual["generated"]
    assert raw["audit"] == usual["audit"]


def test_a_run_is_recorded_only_under_its_own_settings(quick: Settings, tmp_path: Path) -> None:
    study = Study(quick, Places(quick, figures_root=str(tmp_path)))
    arm = arms.find_arm(quick, "fairdiffusion")
    assert not arms.is_recorded(study, arm, 0)
    identity = {**arms.names_of(study, arm, 0), "features": "any"}
    write_json(arms.path_of(study.places, arm, 0), {"identity": identity})
    assert arms.is_recorded(study, arm, 0)
    other = study.with_settings(quick.changed({"mitigation.ucb_beta": "0.5"}))
    assert not arms.is_recorded(other, arm, 0)
    assert not arms.is_recorded(study, arm, 1)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"ablation.roles": "core,rivals"}, "unknown ablation role 'rivals'; known: control, core"),
        ({"ablation.roles": "rival"}, "lacks core"),
        ({"ablation.other_seeds": "0,9"}, "expected some of ablation.seeds"),
        ({"ablation.windows": "999"}, "arm 'fairdiffusion window=999 rate=0.95': .*longer than"),
    ],
)
def test_arms_that_cannot_run_are_refused(overrides: dict[str, str], words: str) -> None:
    settings = load_settings("quick", SIMULATED, overrides)
    with pytest.raises(InputError, match=words):
        arms.check_arms(settings)


def test_an_unknown_arm_is_refused_with_the_known_ones(quick: Settings) -> None:
    with pytest.raises(InputError, match=r"unknown arm 'fairdifusion'; known: .*fairdiffusion"):
        arms.find_arm(quick, "fairdifusion")
