"""Does the audit find a generator that serves a group worse, and only then?

The experiment fine-tunes the shipped base again and again, on other patients each time, with a
plant on one group's training images and without one (``sim.plant``), and audits the test images
that each of these generators draws.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint
from tqdm.auto import tqdm

from fairdiff_lib.audit.audit import Audit, labelled
from fairdiff_lib.audit.blur import blur_curves, blur_images
from fairdiff_lib.audit.estimate import Estimate, group_units
from fairdiff_lib.classify.features import Images, Space
from fairdiff_lib.classify.runs import study_extractors
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import read_table, write_table
from fairdiff_lib.model.sample import generate, load_generated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import PlantConfig, Settings, as_dict
from fairdiff_lib.studies.harm import COLUMNS, as_rows, truth_audits
from fairdiff_lib.studies.quality import audit_images
from fairdiff_lib.studies.verdict.protocol import BLUR, check_declared, declare
from fairdiff_lib.study import Study
from fairdiff_lib.train.runs import train

PLANTED, WITHOUT = "planted", "nothing planted"
PROMISED = {PLANTED: 0.80, WITHOUT: 0.05}  # share of runs with a finding: at least, at most
RULE = (
    "A run: other patients, a fine-tuning of the shipped base, an image for every test prompt. "
    "Planted: found where the 95% interval of the planted group minus the other, in equivalent "
    "blur, lies above 0. Nothing planted: a false alarm where it lies beside 0. Rates with exact "
    "95% intervals. Nothing is changed after the first run"
)


def settings_of(settings: Settings, arm: str, seed: int) -> Settings:
    """Settings of one run: other patients, a share of the study's, on whom nothing else is planted.

    Raises
    ------
    InputError
        Real data, whose training images nobody plants anything in.
    """
    own, population = settings.planted, settings.simulator
    if population is None:
        raise InputError(f"dataset {settings.dataset!r}: expected a simulated one")
    plain = {name: 1.0 for name in as_dict(population) if name.startswith(("difficulty_", "heter"))}
    fewer = {name: max(1, round(own.patients * count)) for name, count in population.counts.items()}
    plant = own.plant if arm == PLANTED else PlantConfig(on=own.plant.on)
    changed = {**plain, **fewer, "seed": seed, "plant": as_dict(plant)}
    return settings.changed(
        {"simulator": changed, "training": as_dict(own.training), "seeds": (seed,)}
    )


def one_run(study: Study, arm: str, seed: int, work: Path) -> pd.DataFrame:
    """Draw patients, fine-tune, draw their test images, audit: arm, seed, then ``COLUMNS``.

    Everything but the rows is made below ``work``. Metrics: KID, equivalent blur, those of
    :func:`fidelity.truth_audits`, and seconds.
    """
    started = time.process_time()
    settings = settings_of(study.settings, arm, seed)
    one = Study(settings, replace(study.places, settings=settings, runs_root=str(work)))
    kept = one.cohort.included()
    test, size = kept.split("test"), settings.model.image_size
    train(one, "none", seed)
    names, prompts = test.table["image"].tolist(), test.table["prompt"].tolist()
    generate(one, names, prompts, "none", seed, "test")
    made = load_generated(one.places.generated("none", seed), "test")
    real = test.load_images(size)
    space = Space.fit(
        study_extractors(one)[0], one.places.features, kept.split("train").load_images(size), real
    )
    audits = [*_audits(one, test, space, real, made), *truth_audits(one, real, made)]
    rows = as_rows(audits)
    spent: dict[str, Any] = {"metric": "seconds", "attribute": "overall", "reference": ""}
    spent |= {"level": "all", "value": round(time.process_time() - started, 1)}
    return labelled(pd.concat([rows, pd.DataFrame([spent])]), {"arm": arm, "seed": seed})


def _audits(one: Study, test: Cohort, space: Space, real: Images, made: Images) -> list[Audit]:
    """KID and equivalent blur by group, as 05 has them."""
    levels = test.attribute_levels
    own = _planted_on(one.settings)[0]
    attributes = {own: levels[own], **levels}
    groups = group_units(test.table, attributes)

    def curves(kids: Sequence[Estimate]) -> Any:
        told = kids[: 1 + len(levels[own])]  # no further than these groups need
        return blur_curves(space.kernel, space.test, lambda s: space.of(blur_images(real, s)),
                           groups, beyond=told)  # fmt: skip

    return audit_images(
        space.test, space.of(made), groups, space.kernel, attributes, curves=curves,
        features=space.extractor.name, **one.settings.audit.sizes,
    )  # fmt: skip


def runs_of(study: Study) -> list[tuple[str, int]]:
    """Arm and seed of every run, the arms in turn: a killed experiment has as many of each."""
    own = study.settings.planted
    return [(arm, own.first + k) for k in range(own.runs) for arm in (PLANTED, WITHOUT)]


def premises_of(study: Study) -> dict[str, Any]:
    """What is fixed before the first run, ready for JSON."""
    first = settings_of(study.settings, *runs_of(study)[0])
    made = {name: as_dict(first)[name] for name in ("simulator", "model", "generation")}
    return {"planted": as_dict(study.settings.planted), "rule": RULE, "promised": PROMISED, **made}


def protocol_path(study: Study) -> Path:
    """Where the experiment's protocol lies."""
    return study.places.figures / "planted_protocol.json"


def measure_runs(study: Study) -> pd.DataFrame:
    """Every run's rows, as :func:`one_run` makes them; those that are there are read again.

    The protocol is written before the first of them; one that says something else is refused.
    """
    folder = study.places.planted
    before = not any(folder.glob("*.csv"))
    if before:
        declare(protocol_path(study), premises_of(study), study, before=True)
    check_declared(protocol_path(study), premises_of(study), "it is written before the first run")
    parts = []
    for arm, seed in tqdm(runs_of(study), desc="planted fidelity", disable=None):
        path = folder / f"{arm.replace(' ', '_')}-{seed}.csv"
        if not path.is_file():
            work = folder / "work" / path.stem
            write_table(one_run(study, arm, seed, work), path)
            shutil.rmtree(work)  # a generator of its own, and what it drew
        parts.append(read_table(path, ("arm", "seed", *COLUMNS), keep_default_na=False))
    table = pd.concat(parts, ignore_index=True)
    table[["n", "value", "low", "high"]] = table[["n", "value", "low", "high"]].apply(pd.to_numeric)
    return table


def group_of(study: Study) -> tuple[str, str]:
    """Attribute and level of the planted group."""
    return _planted_on(settings_of(study.settings, *runs_of(study)[0]))


def _planted_on(settings: Settings) -> tuple[str, str]:
    found = settings.simulator.served_worse if settings.simulator else None
    if found is None:
        raise InputError("planted.plant.on=: expected a group, as camera")
    return found


def rates(runs: pd.DataFrame, where: tuple[str, str]) -> pd.DataFrame:
    """tab_planted: how often is the planted group found to be served worse, and others unlike?

    arm, attribute, endpoint, runs, found, rate, low, high (exact 95% interval), promised (at least
    where planted, at most where not; NaN but for the primary endpoint), kept. ``where`` is the
    attribute and the level of the plant: there "found" counts intervals on the side of a worse
    group; where nothing was planted, intervals beside 0.
    """
    rows = []
    gaps = runs[(runs["reference"] != "") & runs["metric"].isin([BLUR, "kid"])]
    gaps = gaps[gaps["low"].notna() | (gaps["attribute"] == where[0])]  # groups large enough
    for (arm, attribute, metric), own in gaps.groupby(["arm", "attribute", "metric"], sort=False):
        there = arm == PLANTED and attribute == where[0]
        above, below = own["low"] > 0, own["high"] < 0  # level minus the largest level
        seen = above | below
        if there:
            seen = above & own["level"].eq(where[1]) | below & own["reference"].eq(where[1])
        by_run = seen.groupby(own["seed"]).any()
        hits, n = int(by_run.sum()), len(by_run)
        low, high = proportion_confint(hits, n, method="beta")
        lead = attribute == where[0] and metric == BLUR
        limit = PROMISED[str(arm)] if lead else float("nan")
        met = (hits >= limit * n if there else hits <= limit * n) if lead else None
        rows.append((arm, attribute, metric, n, hits, hits / n, low, high, limit, met))
    columns = ["arm", "attribute", "endpoint", "runs", "found", "rate", "low", "high", "promised",
               "kept"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def findable(runs: pd.DataFrame, where: tuple[str, str]) -> float:
    """Gap in pixels of equivalent blur that such an audit finds in 80% of runs, where runs agree.

    From the mean interval of the runs without a plant: normal, two-sided at 5%.
    """
    own = runs[(runs["arm"] == WITHOUT) & (runs["attribute"] == where[0])]
    own = own[(own["reference"] != "") & (own["metric"] == BLUR)]
    reach = float((own["high"] - own["low"]).mean()) / 2
    return reach * float(1 + norm.ppf(PROMISED[PLANTED]) / norm.ppf(0.975))


def scalars(found: pd.DataFrame, runs: pd.DataFrame) -> dict[str, Any]:
    """What the notebook records: runs, both rates and whether they are as promised, seconds."""
    lead = found[found["promised"].notna()].set_index("arm")
    spent = float(runs.loc[runs["metric"] == "seconds", "value"].sum())
    shares = lead["rate"].astype(float).to_dict()
    rates = {"found": shares[PLANTED], "alarms": shares[WITHOUT]}
    return {"runs": int(lead["runs"].sum()), **rates, "seconds": round(spent),
            "kept": int(lead["kept"].sum())}  # fmt: skip
