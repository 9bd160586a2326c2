"""Audits of known truth, which the audit itself is judged by: notebook 10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.studies.proof.audits import (
    CHECKS,
    COLUMNS,
    SURE,
    judged,
    simulate,
)
from fairdiff_lib.studies.proof.audits import OurAudit as OurAudit
from fairdiff_lib.studies.proof.audits import TwoGroups as TwoGroups
from fairdiff_lib.studies.proof.cells import feature_cells
from fairdiff_lib.studies.proof.known import Planted as Planted
from fairdiff_lib.studies.proof.known import fid_bias as fid_bias

if TYPE_CHECKING:
    from fairdiff_lib.study import Study

OUTCOMES = (*COLUMNS[4:8], *COLUMNS[13:17])  # of the verdicts' table


@dataclass(frozen=True)
class Proof:
    """What thousands of simulated audits showed."""

    table: pd.DataFrame  # tab_calibration: a row per cell, in ``audits.COLUMNS``
    truths: pd.DataFrame  # tab_truth: KID of the pools of images
    judged: pd.DataFrame  # tab_checks: every promise of the audit, and whether it is kept

    @property
    def verdicts(self) -> pd.DataFrame:
        """How often each outcome is given, by what is true."""
        return self.table.loc[self.table["metric"] == "verdict", list(OUTCOMES)]

    @property
    def scalars(self) -> dict[str, Any]:
        """What the notebook records."""
        naive = self.table[self.table["metric"].eq("fid") & self.table["null"].eq("unequal")]
        return {
            **{"cells": len(self.table), "audits": int(self.table["simulations"].sum())},
            **{"checks": len(self.judged), "passed": int(self.judged["passed"].sum())},
            "naive_fid_alarms": float(naive["alarm"].min()),
        }


def prove(study: Study) -> Proof:
    """Simulate all audits of the proof, or what an interrupted run left of them."""
    from fairdiff_lib.studies.proof.images import pool_cells  # torch, which known laws don't need

    own = study.settings.proof
    with_images, truths = pool_cells(study)
    cells = with_images + (feature_cells(own) if "F" in own.layers else [])
    table = simulate(cells, study.places.proof, own.seed)
    return Proof(table, truths, judged(cells, table))


def asked(config: ProofConfig) -> dict[str, Any]:
    """What is promised, for the sentence that states it."""
    return {"seed": config.seed, "simulations": config.simulations, "sure": SURE}


def shown(checks: pd.DataFrame) -> pd.DataFrame:
    """The checks without what is the same in all of them, the failed ones first."""
    columns = ["layer", "situation", "metric", "null", "n_min", "planted_ratio", *CHECKS]
    return checks[columns].sort_values("passed", kind="stable")
