"""Audits of known truth, which the audit itself is judged by: notebook 10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from fairdiff_lib.audit.decide import DIFFERENT, LARGER, NO_LARGER, UNDECIDED
from fairdiff_lib.settings.names import CHECKED, EQUALLY_GOOD
from fairdiff_lib.settings.options import ProofConfig
from fairdiff_lib.studies.proof.audits import SURE, judged, simulate
from fairdiff_lib.studies.proof.audits import OurAudit as OurAudit
from fairdiff_lib.studies.proof.audits import TwoGroups as TwoGroups
from fairdiff_lib.studies.proof.cells import feature_cells
from fairdiff_lib.studies.proof.known import Planted as Planted
from fairdiff_lib.studies.proof.known import fid_bias as fid_bias

if TYPE_CHECKING:
    from fairdiff_lib.study import Study

OUTCOMES = {  # column of the verdicts' table: what a reader calls it
    "planted_ratio": "planted ratio",
    "n_min": "n",
    LARGER: "larger than X",
    DIFFERENT: "different, size open",
    NO_LARGER: "no difference larger than X",
    UNDECIDED: "undecided",
}


@dataclass(frozen=True)
class Proof:
    """What thousands of simulated audits showed."""

    table: pd.DataFrame  # tab_calibration: a row per cell, in ``audits.COLUMNS``
    truths: pd.DataFrame  # tab_truth: KID of the pools of images
    judged: pd.DataFrame  # tab_checks: every promise of the audit, and whether it is kept

    @property
    def verdicts(self) -> pd.DataFrame:
        """How often each outcome is given, by what is true, in a reader's words."""
        own = self.table[self.table["metric"] == "verdict"]
        return own[list(OUTCOMES)].rename(columns=OUTCOMES)

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
    """The checks in a reader's words, those that come nearest to their limits first."""
    near = (checks["limit"] - checks["rate"]).sort_values(kind="stable").index
    own = checks.loc[near]
    return pd.DataFrame(
        {
            "layer": own["layer"],
            "situation": own["situation"],
            "metric": own["metric"],
            "groups": own["null"].map({**EQUALLY_GOOD, "": "both", "none": "not equally good"}),
            "n": own["n_min"],
            "counted": own["check"].map(CHECKED),
            "rate": own["rate"],
            "promised": own["promised"],
            "limit": own["limit"],
            "kept": own["passed"].map({True: "yes", False: "no"}),
            "why": own["note"],
        }
    )
