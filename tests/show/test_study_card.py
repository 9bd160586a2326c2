"""The study's card shows the declared audit, and names everything that limits it."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.contrasts import EXPLORATORY, Design
from fairdiff_lib.audit.estimate import OVERALL, Estimate
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.classify.features import LITE_WEIGHTS, Scale, make_extractor
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.disk.stamps import read_stamp
from fairdiff_lib.show import cards
from fairdiff_lib.show.words import finding
from fairdiff_lib.studies.quality import QualityResult
from fairdiff_lib.studies.verdict.protocol import Protocol, Registered
from fairdiff_lib.studies.verdict.table import as_table

SPEC = dataset_of("ham10000").spec()
YOUNG, OLD = SPEC.levels("age")
SIZES = {("age", YOUNG): 150, ("age", OLD): 60, ("sex", "Female"): 100, ("sex", "Male"): 110}
N = 210
RULE = Protocol("ham10000", seeds=(0, 1), features="lite0", condition="malignant")
STAMP: dict[str, Any] = {
    "commit": None,
    "dirty": False,
    "versions": dict.fromkeys(("python", "torch", "numpy", "pandas"), "1.2"),
    "data_hash": "0" * 64,
}


def make_audit(metric: str, old: float, role: str = "primary") -> Audit:
    """KID 0.02 for all but the older; a standard error of 0.002 for every group."""
    found = {OVERALL: Estimate(0.02, np.zeros(N), N, 99.0)}
    rng = np.random.default_rng(0)
    for (name, level), n in SIZES.items():
        influence = rng.normal(size=N)
        influence *= 0.002 / np.linalg.norm(influence)
        value = old if level == OLD else 0.02
        found[name, level] = Estimate(value, influence, n, n - 1.0)
    found["malignant", "benign"] = found[OVERALL]
    found["sex x age", f"Female, {OLD}"] = found[OVERALL]
    levels = {name: tuple(level for own, level in SIZES if own == name) for name in ("age", "sex")}
    return Audit(metric, found, Design(levels, role=role, smallest_effect=0.004), "lite0")


def floors() -> pd.DataFrame:
    """The noise between halves of the reals, by level, in two spaces; KID and blur beside it."""
    rows = [
        {"method": "none", "seeds": seeds, "attribute": name, "level": level, "metric": "kid_floor",
         "features": "lite0", "n": 50, "value": 0.001, "low": -0.1, "high": 0.1, "note": ""}
        for name, level in SIZES
        for seeds in ("0,1", "0")
    ]  # fmt: skip
    mean = [{**row, "metric": metric, "value": 0.5} for row in rows if row["seeds"] == "0,1"
            for metric in ("kid", "equivalent_blur")]  # fmt: skip
    rows += [{**row, "features": "texture", "value": 9.0} for row in rows]
    return pd.DataFrame(rows + mean)


def make_result(method: str = "none", old: float = 0.05) -> QualityResult:
    """One method whose seeds, one by one, would say something else than their mean."""
    mean = [make_audit("kid", old), make_audit("kid_standardised", 0.021, EXPLORATORY),
            make_audit("equivalent_blur", 0.7, EXPLORATORY)]  # fmt: skip
    audits = {(method, "0"): [make_audit("kid", 0.02)], (method, "1"): [make_audit("kid", 0.08)]}
    gates = pd.DataFrame(
        [(name, 0, "blur", 0.5, 0.8, ">=", name == "none") for name in ("none", "random")],
        columns=["method", "seed", "gate", "value", "threshold", "comparison", "passed"],
    )
    none = pd.DataFrame()
    named = {**audits, (method, "0,1"): mean}
    alike = mean[0].contrasts.assign(method=method, seeds="0,1", value=0.001, low=0.0, high=0.002)
    copies = {(method, 1): "9 of 210 generated images are nearly identical to another one."}
    result = QualityResult(floors(), none, none, none, none, none, alike, gates, [], named, copies)
    space = SimpleNamespace(
        extractor=make_extractor("lite0"), kernel=Kernel(3.5),
        scale=Scale(np.zeros(3), np.ones(3), (1,)),
    )  # fmt: skip
    study = SimpleNamespace(settings=load_settings("smoke", "ham10000"))
    return replace(result, fixed=SimpleNamespace(spaces=[space], study=study))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    table = pd.DataFrame({"subject": [f"s{i}" for i in range(N)], "split": "test", "excluded": ""})
    first = {attribute.name: attribute.levels[0] for attribute in SPEC.attributes}
    return Cohort(SPEC, table.assign(**first), Path(), "hash")


def facts(cohort: Cohort, result: QualityResult, before: bool = True, **rule: Any) -> Any:
    return cards.study_facts(result, cohort, Registered(replace(RULE, **rule), before), STAMP)


def test_the_mean_over_seeds_is_shown_by_attribute_only() -> None:
    shown = cards.shown_audit(make_result(), RULE)
    assert list(shown.estimates) == [OVERALL, *SIZES]
    assert shown.estimates["age", OLD].value == 0.05
    assert finding(shown).startswith(f"Age: worse for {OLD} than for {YOUNG}")


def test_simulated_images_say_so_and_real_ones_do_not(cohort: Cohort) -> None:
    for dataset, simulated in (("ham10000", False), ("fairgenmed_simulated", True)):
        own = facts(cohort, make_result(), dataset=dataset)
        assert ("simulated" in own.title) is simulated
        assert any("simulated" in text for text in own.caveats) is simulated


def test_a_protocol_that_came_late_is_named(cohort: Cohort) -> None:
    for before in (True, False):
        own = facts(cohort, make_result(), before)
        assert ("before any test image" in dict(own.compared)["Protocol"]) is before
        assert any("read as exploratory" in text for text in own.caveats) is not before


def test_failed_gates_are_those_of_the_method_shown(cohort: Cohort) -> None:
    """The gate of the random perturbation failed; the baseline's did not."""
    for method, fails in (("none", False), ("random", True)):
        said = facts(cohort, make_result(method)).caveats
        assert any('Check failed: "Blur", wanted at least 0.8' in text for text in said) is fails
        assert any("no baseline" in text for text in said) is fails


def test_caveats_name_who_is_few(cohort: Cohort) -> None:
    said = " ".join(facts(cohort, make_result()).caveats)
    assert "Seed 1: 9 of 210 generated images are nearly identical" in said
    assert "1 of 3 features hardly vary" in said
    assert f"not tested first: {OLD} (n=60)." in said
    assert "these 2 models" in said


def test_standardised_contrasts_and_the_primary_space_s_floor_stand_beside(cohort: Cohort) -> None:
    own = facts(cohort, make_result())
    assert set(own.floor["value"]) == {0.001} and len(own.floor) == len(SIZES)
    old = own.standardised[own.standardised["level"] == OLD]
    assert old["value"].item() == pytest.approx(0.001)
    assert "of interest from 0.004, what 0.1 px of blur make" in own.endpoint


def make_tests(**changes: Any) -> pd.DataFrame:
    """A declared test of age in blur that says another thing than KID, and its like in KID."""
    row = {"dataset": "ham10000", "claim": "C1", "endpoint": "equivalent_blur", "attribute": "age",
           "level": OLD, "reference": YOUNG, "value": -0.02, "low": -0.05, "high": 0.01,
           "verdict": "no difference larger than 0.1 px", "testable": True, "n_needed": 64.0,
           "runs": 3, "seeds": "0,1,2"} | changes  # fmt: skip
    return as_table([row, row | {"endpoint": "kid", "verdict": "larger than 0.02"}])


def test_what_was_declared_leads_and_kid_decides_nothing(cohort: Cohort) -> None:
    def page(**changes: Any) -> str:
        result = replace(make_result(), tests=make_tests(**changes))
        own = facts(cohort, result)
        return unescape(cards.render_html(cards.shown_audit(result, RULE), own, STAMP))

    said = page()
    lead = said.partition('class="finding">')[2].partition("</p>")[0]
    assert lead == (
        f"Age: {OLD} minus {YOUNG}: no difference larger than 0.1 px. It is -0.0200 (-0.0500 to "
        "0.0100) px of equivalent blur."
    )
    assert "worse for" not in said and "larger than 0.02" not in said
    assert (
        "In KID, which decides nothing" in said and "new runs (3 complete ones were made)" in said
    )
    assert "Intervals of differences in KID hold for these 2 models" in said
    assert "interval for new subjects and new runs (3 complete" in said  # of the dots
    assert "<th>if all were blurred alike</th>" in said and "The same in pixels" not in said
    assert "<td>0.00100 (0.00000 to 0.00200)</td></tr>" in said
    late = page(testable=False)
    assert "undecided, as declared beforehand; it would need about n = 64." in late
    assert "no difference larger" not in late
    assert "other fine-tunings of this one base (3 were made)" in page(runs=1)
    assert "new subjects and the models at hand" in page(runs=1, seeds="0")


def test_card_and_stamp_are_written(cohort: Cohort, tmp_path: Path) -> None:
    study: Any = SimpleNamespace(
        cohort=cohort, stamp=STAMP, places=SimpleNamespace(figures=tmp_path)
    )
    page = cards.publish_study_card(study, make_result(), Registered(RULE, True))
    assert {path.name for path in tmp_path.iterdir()} == {"card.html", "card.json", "methods.txt"}
    assert (tmp_path / "card.html").read_text() == page
    kept = read_stamp(tmp_path / "card.json")
    files = ("card.html", "methods.txt")
    assert kept.pop("files") == {name: hash_file(tmp_path / name) for name in files}
    assert kept == STAMP
    assert finding(cards.shown_audit(make_result(), RULE)) in unescape(page)
    said = (tmp_path / "methods.txt").read_text().strip()
    assert said in unescape(page) and "bandwidth 3.5," in said and "60 or older 60" in said
    assert "nearly identical" in said and LITE_WEIGHTS in said
    assert f"<td>Age: {OLD} minus {YOUNG}</td><td>0.680 (" in page  # in pixels of blur
    assert "<td>0.00100 (0.00000 to 0.00200)</td>" in page  # what one blur of all makes
    assert "at equal malignant mix" in page and str(tmp_path) not in page
