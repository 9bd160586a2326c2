"""Audits of known truth, which the audit itself is judged by: notebook 10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from fairdiff_lib.studies.proof.audits import OurAudit as OurAudit
from fairdiff_lib.studies.proof.audits import TwoGroups as TwoGroups
from fairdiff_lib.studies.proof.audits import simulate
from fairdiff_lib.studies.proof.criteria import asked as asked
from fairdiff_lib.studies.proof.criteria import half_widths, meets_criteria, scalars
from fairdiff_lib.studies.proof.images import pool_cells
from fairdiff_lib.studies.proof.known import Planted as Planted
from fairdiff_lib.studies.proof.known import feature_cells
from fairdiff_lib.studies.proof.known import fid_bias as fid_bias
from fairdiff_lib.study import Study


@dataclass(frozen=True)
class Proof:
    """What thousands of simulated audits showed.

    Attributes
    ----------
    table : DataFrame
        tab_calibration: a row per cell, in ``audits.COLUMNS``.
    truths : DataFrame
        tab_truth: KID of the pools of images, with its error.
    judged : DataFrame
        The audit's own cells, with the criteria and whether they are met.
    reach : Series
        Layer to the half-width of the audit's intervals in its most precise cell.
    scalars : dict
        What the notebook records.
    """

    table: pd.DataFrame
    truths: pd.DataFrame
    judged: pd.DataFrame
    reach: pd.Series[Any]
    scalars: dict[str, Any]


def prove(study: Study) -> Proof:
    """Simulate all audits of the proof, or what an interrupted run left of them."""
    own = study.settings.proof
    with_images, truths = pool_cells(study)
    cells = feature_cells(own) + with_images
    table = simulate(cells, study.places.proof, own.seed)
    reach = half_widths(cells, study.places.proof)
    return Proof(table, truths, meets_criteria(table), reach, scalars(table))
