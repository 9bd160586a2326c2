"""Audits of known truth, which the audit itself is judged by: notebook 10."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.studies.proof.audits import Cell, findings, simulate
from fairdiff_lib.studies.proof.audits import OurAudit as OurAudit
from fairdiff_lib.studies.proof.audits import TwoGroups as TwoGroups
from fairdiff_lib.studies.proof.known import Planted as Planted
from fairdiff_lib.studies.proof.known import feature_cells
from fairdiff_lib.studies.proof.known import fid_bias as fid_bias

if TYPE_CHECKING:
    from fairdiff_lib.study import Study


@dataclass(frozen=True)
class Proof:
    """What thousands of simulated audits showed."""

    table: pd.DataFrame  # tab_calibration: a row per cell, in ``audits.COLUMNS``
    truths: pd.DataFrame  # tab_truth: KID of the pools of images, with its error
    judged: pd.DataFrame  # the audit's own cells, with the criteria and whether they are met
    # layer to the half-width of the audit's intervals in its most precise cell
    reach: pd.Series[Any]
    scalars: dict[str, Any]  # what the notebook records


def prove(study: Study) -> Proof:
    """Simulate all audits of the proof, or what an interrupted run left of them."""
    from fairdiff_lib.studies.proof.images import pool_cells  # torch, which known laws don't need

    own = study.settings.proof
    with_images, truths = pool_cells(study)
    cells = feature_cells(own) + with_images
    table = simulate(cells, study.places.proof, own.seed)
    reach = half_widths(cells, study.places.proof)
    return Proof(table, truths, meets_criteria(table), reach, scalars(table))


MOST_ALARMS = 0.06  # of audits of equal groups
LEAST_COVERAGE = 0.94  # of 95% intervals
LEAST_COVERAGE_SMALL = 0.925  # where the smallest group has fewer than SMALL subjects
SMALL = 100


def asked(config: ProofConfig) -> dict[str, Any]:
    """The criteria, for the sentence that states them."""
    sizes = ("seed", "simulations", "pool_simulations")
    return {
        **{name: getattr(config, name) for name in sizes},
        **{"most_alarms": MOST_ALARMS, "least_coverage": LEAST_COVERAGE},
        **{"least_coverage_small": LEAST_COVERAGE_SMALL, "small": SMALL},
    }


def meets_criteria(table: pd.DataFrame) -> pd.DataFrame:
    """Whether each cell of the audit under a null meets the criteria that were fixed beforehand.

    With alarms_allowed, coverage_needed, passed. A family of contrasts has no joint interval: its
    coverage is NaN and is not asked for.
    """
    own = table[(table["procedure"] == "audit") & (table["null"] != "none")]
    needed = np.where(own["n_min"] < SMALL, LEAST_COVERAGE_SMALL, LEAST_COVERAGE)
    needed = np.where(own["coverage"].isna(), np.nan, needed)
    covered = own["coverage"].isna() | (own["coverage"] >= needed)
    passed = (own["alarm_rate"] <= MOST_ALARMS) & covered
    return own.assign(alarms_allowed=MOST_ALARMS, coverage_needed=needed, passed=passed)


def half_widths(cells: Sequence[Cell], folder: Path) -> pd.Series[Any]:
    """Layer to the median half-width of the audit's intervals in its most precise cell."""
    rows = []
    for cell in cells:
        if cell.procedure == "audit" and cell.metric == "kid":
            found = findings(cell, folder)
            rows.append((cell.layer, float((found["high"] - found["low"]).median() / 2)))
    return pd.DataFrame(rows, columns=["layer", "reach"]).groupby("layer")["reach"].min()


def scalars(table: pd.DataFrame) -> dict[str, Any]:
    """What the notebook records."""
    found = meets_criteria(table)
    naive = table[(table["procedure"] != "audit") & (table["null"] == "unequal")]
    return {
        **{"cells": len(table), "audits": int(table["simulations"].sum())},
        **{"own_cells": len(found), "own_cells_passed": int(found["passed"].sum())},
        "most_alarms": float(found["alarm_rate"].max()),
        "least_coverage": float(found["coverage"].min()),
        "naive_fid_alarms": float(naive.loc[naive["metric"] == "fid", "alarm_rate"].min()),
    }
