"""Arms of the ablation study: methods under named settings, and what each is compared with.

Plain data, written down before any of these runs is measured. An arm is a method with options of
its own, so that one study can hold the same method at several windows; its runs lie where any
study's would (``places.Places.run``), and a run that two arms share is made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.files import read_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import (
    BASELINE,
    CORRECTED,
    FAIR,
    METHODS,
    check_methods,
    source_runs,
)
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.study import Study

CORE, CONTROL, RIVAL = "core", "control", "rival"
WINDOW, OPTION = "window", "option"  # T12's cells; one correction at a time
ROLES = (CORE, CONTROL, RIVAL, WINDOW, OPTION)


@dataclass(frozen=True)
class Arm:
    name: str  # what tables call it, in their column ``method``
    method: str  # key of ``methods.METHODS``
    # one of :data:`ROLES`. Core arms are trained with all of ``ablation.seeds`` and are tested; the
    # others with ``ablation.other_seeds``, and are described
    role: str
    against: tuple[str, ...] = (BASELINE,)  # arms that it is compared with, paired by seed
    options: Mapping[str, Any] = field(default_factory=dict)  # dotted setting to value


def all_arms(settings: Settings) -> tuple[Arm, ...]:
    """Every arm that there is, under these settings."""
    own = settings.ablation
    # one score per window: the corrected optimiser needs more windows than the released one
    scored = {
        "mitigation.time_window": own.scored_window,
        "mitigation.held_out_rows": own.held_out_rows,
        "mitigation.held_out_timesteps": own.held_out_timesteps,
    }
    methods = [
        Arm(name, name, entry.role, entry.against, scored if entry.scored_windows else {})
        for role in (CORE, CONTROL, RIVAL, OPTION)
        for name, entry in METHODS.items()
        if entry.role == role
    ]
    single = [arm for arm in methods if arm.role == OPTION]
    tested = [arm for arm in methods if arm.role != OPTION]
    return (*tested, *_cells(settings), *single, *_options(settings))


def _cells(settings: Settings) -> list[Arm]:
    """T12: the window and the drift's rate, each changed by itself; the middle is the method."""
    own = settings.mitigation
    cells = [(window, own.exploitation_rate) for window in settings.ablation.windows]
    cells += [(own.time_window, rate) for rate in settings.ablation.rates]
    return [
        Arm(f"{FAIR} window={window} rate={rate:g}", FAIR, WINDOW, (BASELINE, FAIR),
            {"mitigation.time_window": window, "mitigation.exploitation_rate": rate})
        for window, rate in cells
    ]  # fmt: skip


def _options(settings: Settings) -> list[Arm]:
    """One departure from the release at a time."""
    names = ("missing_group", "clamp", "drift")
    single: dict[str, dict[str, Any]] = {x: {f"mitigation.{x}": CORRECTED} for x in names}
    single["objective"] = {
        "mitigation.objective": "running_bins",
        "mitigation.history": "all",
        "mitigation.time_window": settings.ablation.scored_window,
    }
    single["weights"] = {"generation.weights": "raw"}
    both = (BASELINE, FAIR)
    return [Arm(f"{FAIR} {name}", FAIR, OPTION, both, own) for name, own in single.items()]


def arms_of(settings: Settings) -> tuple[Arm, ...]:
    """The arms that the study's roles ask for, or that it names; the baseline first."""
    for role in settings.ablation.roles:
        refuse_unknown("ablation role", role, ROLES)
    if CORE not in settings.ablation.roles:
        raise InputError("ablation.roles lacks core, whose baseline every arm is compared with")
    known, also = {arm.name: arm for arm in all_arms(settings)}, settings.ablation.also
    for name in also:
        refuse_unknown("arm in ablation.also", name, known)
    chosen = settings.ablation.roles
    return tuple(arm for arm in known.values() if arm.role in chosen or arm.name in also)


def find_arm(settings: Settings, name: str) -> Arm:
    """An arm by name; InputError with the known ones."""
    known = {arm.name: arm for arm in arms_of(settings)}
    refuse_unknown("arm", name, known)
    return known[name]


def seeds_of(settings: Settings, arm: Arm) -> tuple[int, ...]:
    own = settings.ablation
    return own.seeds if arm.role == CORE else own.other_seeds


def settings_of(settings: Settings, arm: Arm) -> Settings:
    return settings.changed({"seeds": seeds_of(settings, arm)}, arm.options)


def runs_of(settings: Settings) -> list[tuple[Arm, int]]:
    """Every (arm, seed) of the study; a run comes after those whose histories it reads."""
    return [(arm, seed) for arm in arms_of(settings) for seed in seeds_of(settings, arm)]


def sources_of(settings: Settings, arm: Arm, seed: int) -> list[tuple[str, int]]:
    """(arm, seed) whose histories a run reads."""
    return source_runs(arm.method, seed, seeds_of(settings, arm))


def check_arms(settings: Settings) -> None:
    """Refuse arms that cannot run under these settings, naming arm and field."""
    own = settings.ablation
    if not set(own.other_seeds) <= set(own.seeds):
        raise InputError(
            f"ablation.other_seeds={own.other_seeds}: expected some of ablation.seeds={own.seeds}"
        )
    for arm in arms_of(settings):
        # with the method stand those whose finished runs it reads
        methods = (arm.method, *(name for name, _ in source_runs(arm.method, 0, (0, 1))))
        try:
            check_methods(settings_of(settings, arm).changed({"methods": methods}))
        except InputError as error:
            raise InputError(f"arm {arm.name!r}: {error}") from error


def declared_comparisons(settings: Settings) -> list[tuple[str, str]]:
    """The (arm, baseline) pairs that are tested: those between core arms."""
    core = {arm.name: arm for arm in arms_of(settings) if arm.role == CORE}
    fair = [arm for name, arm in core.items() if name.startswith("fairdiffusion")]
    return [(arm.name, other) for arm in fair for other in arm.against if other in core]


# -- where a run is recorded -----------------------------------------------------------------


def path_of(places: Places, arm: Arm, seed: int) -> Path:
    """JSON of a run, written last; its CSV and npz lie beside it."""
    return places.ablation / "runs" / f"{arm.name.replace(' ', '-')}-seed{seed}.json"


def is_recorded(study: Study, arm: Arm, seed: int) -> bool:
    """Whether the run is there, made under these very settings."""
    path = path_of(study.places, arm, seed)
    if not path.is_file():
        return False
    found, wanted = read_json(path)["identity"], names_of(study, arm, seed)
    return all(found.get(key) == value for key, value in wanted.items())


def study_of(study: Study, arm: Arm) -> Study:
    """The same study under the arm's options."""
    return study.with_settings(settings_of(study.settings, arm))


def names_of(study: Study, arm: Arm, seed: int) -> dict[str, str]:
    """What a run's numbers depend on, as far as settings say it."""
    own = study_of(study, arm)
    usual = own.settings.changed({"generation.weights": "ema"})  # an arm's own choice
    return {
        "run": own.places.run(arm.method, seed).name,
        "generated": own.places.generated(arm.method, seed).name,
        "audit": usual.digest("model", "generation", "audit"),
    }
