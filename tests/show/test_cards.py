"""The audit card says what the audit found, and stays on its page."""

from __future__ import annotations

import base64
import re
from html import unescape
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.contrasts import Design
from fairdiff_lib.audit.estimate import OVERALL, Estimate, not_estimable, without_error
from fairdiff_lib.settings.names import p_text
from fairdiff_lib.show.cards import Facts, framed, render_html
from fairdiff_lib.show.panels import narrow_dots
from fairdiff_lib.show.words import finding

STAMP: dict[str, Any] = {
    "commit": "0123456789abcdef",
    "dirty": True,
    "versions": dict.fromkeys(("python", "torch", "numpy", "pandas"), "1.2"),
    "data_hash": "fedcba9876543210" * 4,
}
COMPARED = (("Real images", "real.csv: 200 images"), ("Generated images", "made.csv: 200 images"))
FACTS = Facts("Is it fair?", COMPARED, "KID by level", ("One caveat.", "Another."))


def make_audit(values: dict[str, float], error: float, n: int = 100, **design: Any) -> Audit:
    """An audit of one attribute: a KID per level, all with one standard error."""
    units = n * len(values)
    found = {OVERALL: Estimate(float(np.mean(list(values.values()))), np.zeros(units), units, 99.0)}
    for k, (level, value) in enumerate(values.items()):
        influence = np.zeros(units)
        influence[k * n : (k + 1) * n] = error / np.sqrt(n)
        found["sex", level] = Estimate(value, influence, n, n - 1.0)
    return Audit("kid", found, Design({"sex": tuple(values)}, **design))


# -- the sentence ----------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{"F": 0.05, "M": 0.02}, {"M": 0.02, "F": 0.05}])
def test_a_clear_difference_names_the_worse_level_whichever_is_the_reference(
    values: dict[str, float],
) -> None:
    said = finding(make_audit(values, error=0.003))
    assert said.startswith("Sex: worse for F than for M, higher KID by 0.0300 (0.0216 to 0.0384)")
    assert "missed" not in said


def test_for_a_metric_where_more_is_better_the_lower_level_is_worse() -> None:
    said = finding(make_audit({"F": 0.7, "M": 0.9}, error=0.02, better="high"))
    assert "worse for F than for M, lower" in said


def test_no_difference_says_what_could_have_been_missed() -> None:
    audit = make_audit({"F": 0.021, "M": 0.020}, error=0.003)
    said = finding(audit)
    ratio = audit.contrasts["mde_ratio"].iloc[0]
    assert 1.5 < ratio < 1.8
    assert said == (
        "In 1 comparison no difference was seen, but a KID of up to "
        f"{ratio:.2g} times the reference's could have been missed."
    )


def test_a_ratio_to_a_reference_that_may_be_zero_is_not_given() -> None:
    said = finding(make_audit({"F": 0.001, "M": 0.0005}, error=0.003))
    assert "times" not in said and re.search(r"one of up to 0\.01\d? KID could have been", said)


def test_equality_is_claimed_only_where_a_test_says_so() -> None:
    values = {"F": 0.0201, "M": 0.02}
    assert "equal to within" in finding(make_audit(values, 0.0005, smallest_effect=0.004))
    assert "equal" not in finding(make_audit(values, 0.003, smallest_effect=0.004))


def test_groups_too_small_to_compare_say_so() -> None:
    audit = make_audit({"F": 0.02, "M": 0.03}, error=0.003)
    audit.estimates["sex", "M"] = not_estimable(200, 4, "fewer than 10 subjects")
    said = finding(audit)
    assert said.startswith("No comparison could be made: too few groups are large enough.")
    assert "sex M (fewer than 10 subjects)" in said


def test_a_group_without_an_interval_is_named_beside_what_was_compared() -> None:
    audit = make_audit({"F": 0.02, "M": 0.03, "X": 0.02}, error=0.003)
    member = audit.estimates["sex", "M"].influence != 0
    audit.estimates["sex", "M"] = without_error(0.03, member, 100, "its images are all one")
    said = finding(audit)
    assert "In 1 comparison no difference was seen" in said
    assert "Not compared: sex M (its images are all one)." in said


def test_a_difference_of_a_small_group_says_that_it_is_small() -> None:
    assert "(a small group, n=30)" in finding(make_audit({"F": 0.05, "M": 0.02}, 0.002, n=30))


def test_p_in_few_digits() -> None:
    assert [p_text(p) for p in (0.0002, 0.0123, 0.5, np.nan)] == ["< 0.001", "0.012", "0.5", "none"]


# -- the page --------------------------------------------------------------------------------


def test_html_stands_alone_and_says_everything() -> None:
    audit = make_audit({"F": 0.05, "M": 0.02}, error=0.003)
    page = render_html(audit, FACTS, STAMP)
    assert finding(audit) in unescape(page)
    for words in ("real.csv: 200 images", "KID by level", "One caveat.", "Sex: M minus F"):
        assert words in page
    assert "commit 0123456789, changed since" in page and "data fedcba9876543210" in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "http" not in page and "<script" not in page
    assert 'name="viewport"' in page


def test_names_from_a_csv_cannot_become_markup() -> None:
    page = render_html(make_audit({"<b>F": 0.05, "M": 0.02}, error=0.003), FACTS, STAMP)
    assert "<b>F" not in page and "&lt;b&gt;F" in page


@pytest.mark.parametrize("name", ["\u5bd2\u8272", "$0-$24,999", "$"])
def test_a_level_stands_on_the_picture_as_it_is_called(name: str) -> None:
    """Letters that our font lacks are left to the reader's; dollars begin no formula."""
    audit = make_audit({name: 0.05, "M": 0.02}, error=0.003)
    page = render_html(audit, FACTS, STAMP)
    kind, data = re.findall(r'src="data:image/([a-z+]+);base64,([^"]+)"', page)[0]
    assert kind == ("png" if name.isascii() else "svg+xml")
    drawn = [text.get_text() for text in narrow_dots([audit.by_group], 4).findobj(Text)]
    assert name in drawn or name in base64.b64decode(data).decode()
    assert page == render_html(audit, FACTS, STAMP)


def test_standardised_contrasts_get_a_column() -> None:
    audit = make_audit({"F": 0.05, "M": 0.02}, error=0.003)
    other = make_audit({"F": 0.041, "M": 0.02}, error=0.003).contrasts
    facts = Facts("Q", COMPARED, "E", (), standardised=other, mix="dx")
    page = render_html(audit, facts, STAMP)
    assert "at equal dx mix" in page and "-0.0210 (" in page
    assert "at equal" not in render_html(audit, FACTS, STAMP)


def test_many_contrasts_are_counted_not_dropped_silently() -> None:
    audit = make_audit({f"level {k}": 0.02 + 0.001 * k for k in range(12)}, error=0.003)
    page = render_html(audit, FACTS, STAMP)
    assert page.count("minus level 0") == 8 and "3 more in contrasts.csv." in page


def test_in_a_notebook_the_page_keeps_its_style_to_itself() -> None:
    page = render_html(make_audit({"F": 0.05, "M": 0.02}, error=0.003), FACTS, STAMP)
    shown = str(framed(page).data)
    assert shown.count("<") == 4 and unescape(shown).count("<!doctype html>") == 1
