"""Spoilt group labels: what each fault does to labels, and an adversary to an audit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit.estimate import Floats
from fairdiff_lib.audit.kid import fit_kernel
from fairdiff_lib.settings.names import AUDIT_ERRORS, LABEL_FAULTS
from fairdiff_lib.show.figures.evidence import fig_stress
from fairdiff_lib.show.words_studies import about_stress
from fairdiff_lib.studies import stress
from fairdiff_lib.studies.proof.audits import OurAudit
from fairdiff_lib.studies.stress import CURVE, Copies, Pool, Spoilt, spoilt

SMALL = np.arange(200) < 60
HARM = np.random.default_rng(1).normal(size=200)


def of(fault: str, share: float = 0.1, hide: bool = True) -> np.ndarray:
    return spoilt(SMALL, fault, share, np.random.default_rng(0), HARM, hide)


def test_each_fault_spoils_its_share_of_the_labels() -> None:
    np.testing.assert_array_equal(of(""), SMALL)
    wrong = of("wrong")
    assert (wrong != SMALL).sum() == 20 and (wrong >= 0).all()
    missing = of("missing")
    assert (missing < 0).sum() == 20 and (missing[~SMALL] < 0).any()
    in_one = of("missing_in_one")
    assert (in_one < 0).sum() == 20 and not (in_one[~SMALL] < 0).any()
    assert (of("missing_in_one", 0.5)[SMALL] >= 0).sum() == 10  # enough for an estimate


@pytest.mark.parametrize("hide", [True, False])
def test_an_adversary_exchanges_the_images_that_serve_and_no_count_betrays_it(hide: bool) -> None:
    labels = of("swapped", hide=hide)
    assert labels.sum() == SMALL.sum() and (labels != SMALL).sum() == 20
    left, came = HARM[SMALL & (labels == 0)], HARM[~SMALL & (labels == 1)]
    stayed, others = HARM[SMALL & (labels == 1)], HARM[~SMALL & (labels == 0)]
    if hide:
        assert left.min() > stayed.max() and came.max() < others.min()
    else:
        assert left.max() < stayed.min() and came.min() > others.max()


def pool() -> tuple[Pool, float]:
    """Features that a blur draws towards a corner, the finest first."""
    rng = np.random.default_rng(0)
    own, fine = rng.normal(size=(2, 400, 6)), np.linspace(0.2, 1.5, 6)

    def soft(x: Floats, width: float) -> Floats:
        return np.asarray((x + 1) * np.exp(-width * fine) - 1)

    sides = ({s: soft(x, s) for s in (*CURVE, 0.7, 1.0)} for x in own)
    return Pool("sex", ("a", "b"), *sides), 1.0


def test_blurred_copies_are_found_and_an_adversary_hides_them() -> None:
    known, wide = pool()
    kernel = fit_kernel(known.large[0.0])
    judge = OurAudit(kernel, stress.of_blur)
    more, same = (Copies(known, (130, 190), (w, 0.7)) for w in (wide, 0.7))
    means = {}
    for name, fault, share in (("clean", "", 0.0), ("wrong", "wrong", 0.2),
                               ("swapped", "swapped", 0.2)):  # fmt: skip
        scene = Spoilt(more, kernel, fault, share, hide=True)
        found = [judge(scene(np.random.default_rng(i)), np.random.default_rng(i)) for i in range(6)]
        means[name] = np.mean([one.value for one in found])
    assert means["clean"] == pytest.approx(0.3, abs=0.08)
    assert means["swapped"] < means["wrong"] < means["clean"]
    equal = judge(Spoilt(same, kernel)(np.random.default_rng(0)), np.random.default_rng(0))
    feigned = Spoilt(same, kernel, "swapped", 0.2, hide=False)
    assert judge(feigned(np.random.default_rng(0)), np.random.default_rng(0)).value > equal.value


def test_the_figure_and_the_words_hold_every_fault() -> None:
    rows = [
        ("fairgenmed_simulated", layer, truth, fault, share, 132, 500, event, 0.1, 0.05, 0.2, 0.1,
         0.0)
        for layer in ("features", "images")
        for truth, event in AUDIT_ERRORS.items()
        for fault, share in (("", 0.0), *((name, 0.1) for name in LABEL_FAULTS))
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=list(stress.COLUMNS))
    page = fig_stress(table, pixels=0.3, ratio=2.0)
    words = " ".join(x.get_text() for x in page.findobj() if hasattr(x, "get_text"))
    assert "missed" in words and "adversary" in words
    assert "Simulated images, blurred" in words and "Real" not in words
    page = fig_stress(table.assign(dataset="ham10000"), pixels=0.3, ratio=2.0)
    assert any(ax.get_ylabel().startswith("Real images, blurred") for ax in page.axes)
    worse = (table["fault"] == "swapped") & (table["event"] == "missed")
    table.loc[worse, ["value", "low", "high"]] = 0.9, 0.7, 0.98
    said = about_stress(table, "images").splitlines()
    assert len(said) == 2 + len(LABEL_FAULTS) and "missed 10%" in said[0]
    assert "missed: in 90% of audits at 10% of labels" in said[-1]
    assert said[2].count("no more often than with clean labels, up to 10%") == len(AUDIT_ERRORS)
