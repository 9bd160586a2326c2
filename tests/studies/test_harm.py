"""12 of a classifier that learnt nothing: a note says so, beside what is still defined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from fairdiff_lib.classify.runs import Run, notes_of
from fairdiff_lib.show.figures.harm import fig_confusion, fig_reliability, fig_roc
from fairdiff_lib.studies.downstream import paired_changes
from fairdiff_lib.studies.harm import _curves, _harm, finish
from fairdiff_lib.study import Study

SAID = 0.3  # of everybody


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    roots = {name: str(tmp_path_factory.mktemp(name)) for name in ("runs_root", "figures_root")}
    return Study.open("smoke", **roots)


def collapsed(study: Study, source: str) -> Run:
    """A classifier that gives every image the same probabilities, of every condition."""
    said = {}
    for split in ("test", "val"):
        table, parts = study.cohort.included().split(split).table, []
        for condition, levels in study.cohort.condition_levels.items():
            values = [SAID, *np.full(len(levels) - 1, (1 - SAID) / (len(levels) - 1))][::-1]
            own = table[["image", "subject"]].assign(condition=condition, truth=table[condition])
            own = own[own["truth"].isin(levels)]
            each = zip(levels, values, strict=True)
            parts += [own.assign(level=level, probability=p) for level, p in each]
        said[split] = pd.concat(parts, ignore_index=True)
    cuts = {study.cohort.spec.primary_condition: SAID}
    none = pd.DataFrame()
    return Run(
        study.settings.dataset, source, 0, "vit", said["test"], said["val"], cuts, none, None
    )


def test_who_tells_nobody_apart_is_named_and_the_rest_goes_on(study: Study, tmp_path: Path) -> None:
    runs = [collapsed(study, source) for source in ("real", "none")]
    primary = study.cohort.spec.primary_condition
    notes = notes_of(study, runs)
    alike = [line for line in notes if "same probability of glaucoma" in line]
    assert len(alike) == 2 and "real images" in alike[0] and "Stable Diffusion" in alike[1]

    table, _ = finish(study, *_harm(study, runs))
    own = table[(table["condition"] == primary) & (table["attribute"] == "overall")]
    row = own[own["method"] == "none"].set_index("metric")
    data = runs[0].scored(study.cohort, primary)
    sick = data.truth.mean()  # one image each
    assert np.isnan(row.loc["calibration_slope", "value"])
    assert "all scores equal" in row.loc["calibration_slope", "note"]
    assert row.loc["auc", "value"] == 0.5 and "all scores equal" in row.loc["auc", "note"]
    assert row.loc["brier", "value"] == pytest.approx(sick * (1 - SAID) ** 2 + (1 - sick) * SAID**2)
    shift = row.loc["calibration_intercept", "value"]
    assert shift == pytest.approx(logit(sick) - logit(SAID))  # exact: a constant is shifted
    assert row.loc["fnr", "value"] == 0.0  # everybody is called at the threshold
    assert np.isnan(row.loc["threshold_at_equal_sensitivity", "value"])

    curves = _curves(study, runs)
    for draw, name in (
        (fig_roc, "roc"),
        (fig_reliability, "reliability"),
        (fig_confusion, "confusion"),
    ):
        draw(curves[name], condition=primary, notes=notes).savefig(tmp_path / f"{name}.png")
    changes = paired_changes(study, runs)
    auc = changes.loc[changes["metric"] == "auc", "value"].dropna()
    assert len(auc) and (auc == 0).all()
