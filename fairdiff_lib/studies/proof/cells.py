"""All cells of the proof that need images: layers I and T."""

from __future__ import annotations

import pandas as pd

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.studies.proof.audits import Cell, Judge, Law, NaiveTest, OurAudit, TwoGroups
from fairdiff_lib.studies.proof.oracle import oracle_laws
from fairdiff_lib.studies.proof.pools import TRUTH_COLUMNS, Space
from fairdiff_lib.studies.proof.trained import trained_laws


def pool_cells(
    settings: Settings, layout: Places, cohort: Cohort
) -> tuple[list[Cell], pd.DataFrame]:
    """All cells of layers I and T, and the table of truths.

    Returns
    -------
    cells : list of Cell
    truths : DataFrame
        layer, law, images, kid, standard_error (of the pool as a sample from its law).
    """
    space = Space.of(settings, layout, cohort)
    oracle, first = oracle_laws(settings, layout, space)
    trained, second = trained_laws(settings, layout, cohort, space)
    laws: dict[tuple[str, str], tuple[Law, ...]] = {
        ("I", "exchangeable"): (oracle["large"],),
        ("I", "unequal"): (oracle["small"], oracle["large"]),
        ("T", "exchangeable"): (trained["all"],),
        ("T", "unequal"): (trained["small"], trained["large"]),
    }
    own, kernel = settings.proof, space.kernel
    cells = []
    for (layer, null), pair in laws.items():
        for n in own.sizes:
            scene = TwoGroups(pair, (n, own.reference))
            tests: list[tuple[str, int, Judge]] = [
                ("audit", own.pool_simulations, OurAudit(kernel))
            ]
            if n in own.naive_sizes:
                tests += [
                    (name, own.naive_simulations, NaiveTest(name, repeats, kernel))
                    for name, repeats in (
                        ("kid_raw_permutation", own.permutations),
                        ("kid_bootstrap_self_pairs", own.bootstrap),
                    )
                ]
            cells += [
                Cell(name, layer, "kid", null, n, 1.0, count, 0.0, scene, judge)
                for name, count, judge in tests
            ]
    truths = pd.concat([first, second], ignore_index=True)
    return cells, truths[list(TRUTH_COLUMNS)]
