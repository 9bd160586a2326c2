"""A book of one tiny study: it builds without a warning, and what is wrong with a site is seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from docs import build, facts
from fairdiff_lib.audit.memory import AUC
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.datasets import contents, load_settings
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.stamps import make_stamp, publish_table, write_stamp
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import BASELINE

REASON = "gap < 0 for max-|t| [none_seed*]"


def notebook(given: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    text = "# 05 Is it the same?\n\n[F3](../fig03.png), [T2](../tab02.csv), [gone](../tab99.csv)"
    text += "\n\n$w_i = 1$"
    source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    code = {"cell_type": "code", "execution_count": 1}
    said = {"output_type": "display_data", "data": {"text/markdown": "see [T2](../tab02.csv)"},
            "metadata": {}}  # fmt: skip
    return {
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": text},
            code | {"id": "b", "metadata": {"tags": ["parameters"]}, "source": source,
                    "outputs": []},
            code | {"id": "c", "metadata": {}, "source": "show()", "outputs": [said, output]},
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }  # fmt: skip


TABLE = {
    "output_type": "display_data",
    "metadata": {},
    "data": {"text/html": "<table><tr><td>wide</td></tr></table>", "text/plain": "x"},
}


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """Tables, a figure, a verdict and a notebook of one simulated study."""
    settings = load_settings("smoke")
    layout = Places(settings, figures_root=str(tmp_path / "figures"))
    given = {"preset": "smoke", "dataset": settings.dataset}
    stamp = make_stamp(settings, "d" * 64, given)
    rows = pd.DataFrame({"level": ["<60", None], "value": [1.5, float("nan")]})
    publish_table(rows, layout.figures / "tab02.csv", stamp)
    Image.new("RGB", (4, 4)).save(layout.figures / "fig03.png")
    write_stamp(stamp, layout.figures / "fig03.png")
    claims = pd.DataFrame({"dataset": settings.dataset, "claim": ["C1", "planted"],
                           "statement": "Groups differ", "verdict": ["undecided", "seen"],
                           "quote": REASON, "p": [0.25, None]})  # fmt: skip
    calibration = [
        {"procedure": procedure, "layer": "F", "metric": metric, "situation": "two groups",
         "null": null, "n_min": 36, "planted_ratio": 1.0, "simulations": 100, "alarm": alarm}
        for procedure, metric, null, alarm in (
            ("fid_permutation", "fid", "unequal", 0.98), ("fid_permutation", "fid", "unequal", 1.0),
            ("audit", "kid", "unequal", 0.02), ("audit", "kid", "unequal", 0.06))
    ]  # fmt: skip
    publish_table(pd.DataFrame(calibration),
                  tmp_path / "figures" / "calibration" / "tab_calibration.csv",
                  stamp | {"rests_on": {}})  # fmt: skip
    whole = {"datasets": {settings.dataset: stamp}, "simulated": True, "commit": stamp["commit"]}
    publish_table(claims, layout.figures_all / "tab14.csv", whole)
    write_json(layout.executed / "05_quality.ipynb", notebook(given, TABLE))
    card = layout.figures / "cards" / "none_seed0.md"
    card.parent.mkdir()
    card.write_text(
        "---\nlicense: mit\ntags:\n- x\n---\n# Model card: none\n\n[T2](../tab02.csv)\n"
    )
    return tmp_path / "figures"


def test_a_book_is_built_without_a_problem(figures: Path, tmp_path: Path) -> None:
    front, problems = build.make_book(figures, tmp_path / "book")
    assert problems == []
    site = front.parent
    claims = (site / "claims.html").read_text()
    assert "executed/05_quality.html" in claims and "tab02.csv" in claims
    assert "Groups differ" in claims and "undecided" in claims
    told = front.read_text()
    assert "alarms in 198 of 200" in told and "ours in 2.0% to 6.0%" in told
    chapters = [site / "docs" / "book" / path.with_suffix(".html").name
                for path in build.chapters_of(PROJECT_ROOT)]  # fmt: skip
    assert len(chapters) == 10 and all(path.name in told for path in chapters)
    assert "{%" not in told and all("{%" not in path.read_text() for path in chapters)
    usual = next(path for path in chapters if path.stem == "3_usual").read_text()
    assert "98% to 100%" in usual and "tab_mechanism is not there yet" in chapters[5].read_text()
    assert re.search(r"<details><summary.*cards/none_seed0\.html", told, re.S)  # a closed archive
    study = (site / "studies" / "smoke-fairgenmed_simulated.html").read_text()
    assert "Simulated data" in study and "fig03.png" in study and "tab02.csv" in study
    told = site / "figures" / "smoke" / "fairgenmed_simulated"
    page = (told / "executed" / "05_quality.html").read_text()
    assert "tab02.csv" in page and "tab99" not in page and ">wide<" in page
    assert "<math" in page and "http" not in page.split("<math")[1].split("</math>")[0][40:]
    verdict = (site / "verdict.html").read_text()
    assert "gap &lt; 0 for max-|t| [none_seed*]" in verdict and "seen" in verdict
    assert "Model card: none" in (told / "cards" / "none_seed0.html").read_text()
    assert "cards/none_seed0.html" in (site / "archive.html").read_text()
    fetched = re.compile(r"<(?:script|img|link)[^>]* (?:src|href)=\"(?:https?:)?//")
    assert not [path for path in site.rglob("*.html") if fetched.search(path.read_text())]


def test_what_is_wrong_with_a_notebook_is_a_problem(figures: Path, tmp_path: Path) -> None:
    path = next(figures.rglob("05_quality.ipynb"))
    error = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["no"]}
    whole = read_json(path)
    whole["cells"][2]["outputs"] = [error]
    whole["cells"][0]["source"] += "\n\nas in /home/somebody/file"
    write_json(path, whole)
    problems = list(build.faults(build.read_parts(figures)))
    assert problems == [
        "05_quality.ipynb: 1 cells raised an error",
        "05_quality.ipynb: holds a path of this machine: /home/somebody",
    ]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table, figure or executed notebook"):
        build.make_book(tmp_path, tmp_path / "book")


def test_markdown_is_taken_literally() -> None:
    assert build.escape("a|b <i> [x]\n_y_") == r"a\|b \<i\> \[x\] \_y\_"


def test_committed_tables_and_figures_have_a_title() -> None:
    """A table names what it holds and its notebook; only commands' tables and figures have none."""
    made = [path for part in build.read_parts(PROJECT_ROOT / "figures") for path in part.files]
    unknown = [path for path in made if path.stem not in contents()
               and "preset" in path.with_suffix(".json").read_text()]  # fmt: skip
    assert made and not unknown


def test_the_readme_says_what_the_tables_say() -> None:
    """Its table of findings is written from them: ``make figures``."""
    text = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    told = text.partition(facts.MARKS[0])[2].partition(facts.MARKS[1])[0].strip()
    own = facts.Facts(PROJECT_ROOT / "figures")
    assert told == own.finding_grid("").strip()
    assert len(text.encode()) <= 9000 and told.count("\n") == 5 + 1  # rows


def test_differences_that_kid_alone_tells_are_named() -> None:
    row = {"claim": "C1", "endpoint": "kid", "dataset": "ham10000", "attribute": "age",
           "level": "60 or older", "reference": "under 60"}  # fmt: skip
    row |= {"value": -0.02, "low": -0.03}
    told, open_ = row | {"high": -0.01}, row | {"dataset": "odir5k", "high": 0.01}
    said = facts._by_kid(pd.DataFrame([told, open_]))
    assert "Age: 60 or older minus under 60 on HAM10000, -0.0200 (-0.0300 to -0.0100)." in said
    assert "ODIR" not in said and facts._by_kid(pd.DataFrame([open_])) == ""


def test_a_number_in_the_readmes_limits_is_its_tables() -> None:
    text = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"\[AUC (0\.\d+)\]\(figures/(\S+)\.csv\)", text)
    assert found
    own = facts.Facts(PROJECT_ROOT / "figures").table(found[2], "metric")
    own = own[(own["metric"] == AUC) & (own["attribute"] == "overall")]
    whole = means_and_seeds(own[own["method"] == BASELINE], ["method"])[0]["value"].iloc[0]
    assert found[1] == f"{whole:.2f}"


def test_arms_are_told_in_shares_of_what_would_matter(tmp_path: Path) -> None:
    row = {
        "attribute": "overall",
        "features": "lite0",
        "role": "primary",
        "smallest_effect": 0.02,
        "low_new": 0.001,
        "high_new": 0.003,
        "value": 0.002,
        "low": 0.0,
        "high": 0.004,
    }
    pair = [{**row, "metric": "kid"}, {**row, "metric": "kid_disparity", "low_new": float("nan")}]
    rows = [{**x, "method": "none", "baseline": "", "value": 0.04} for x in pair]
    rows += [{**rows[-1], "attribute": "sex"}, {**rows[-1], "attribute": "race", "value": None}]
    rows += [{**x, "method": "fairdiffusion", "baseline": "none"} for x in pair]
    rows += [
        {
            **x,
            "method": "group_balanced",
            "baseline": "none",
            "role": "description",
            "high_new": 0.05,
        }
        for x in pair
    ]
    rows += [{**x, "method": "shuffled_y", "baseline": "none", "role": "exploratory"} for x in pair]
    place = tmp_path / "reference" / "ham10000"
    place.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(place / "tab13.csv", index=False)
    told = facts.Facts(tmp_path).arms_grid("reference/ham10000")
    assert "intervals of group-balanced sampling minus Stable Diffusion hold a change" in told
    assert "would be 50% of Stable Diffusion's KID (" in told
    assert "| squared gap by sex, % of X², for" in told and "gap by race can't be est" in told
    row = "| FairDiffusion minus Stable Diffusion | 5.0% (2.5% to 7.5%) | 10.0% (0.0% to 20.0%) |"
    assert row in told and "told from nothing: FairDiffusion minus Stable Diffusion (worse)" in told
    assert "shuffled" not in told  # neither declared nor another way than the method's


@pytest.mark.parametrize(("seeds", "tested", "stands"), [(3, 1, True), (3, 6, False), (9, 6, True),
                                                         (1, 1, False)])  # fmt: skip
def test_a_change_stands_where_its_corrected_interval_leaves_out_0(
    seeds: int, tested: int, stands: bool
) -> None:
    row = {"dataset": "ham10000", "value": -0.045, "low_new": -0.072, "high_new": -0.018}
    assert facts._stands({**row, "n_seeds": seeds}, tested) is stands


def test_a_change_without_an_interval_is_refused() -> None:
    row = {"dataset": "odir5k", "value": -0.045, "low_new": float("nan"), "high_new": -0.018}
    with pytest.raises(InputError, match="odir5k: a change of 6 has no interval"):
        facts._stands({**row, "n_seeds": 3}, 6)


def test_plants_are_told_beside_the_same_set_without_them(tmp_path: Path) -> None:
    assert "tab_tests is not there yet" in facts.Facts(tmp_path).plants()
    row = {"dataset": "chexpert_simulated", "claim": "C1", "attribute": "race", "level": "Black",
           "reference": "White", "value": 0.02, "low": 0.01, "high": 0.03, "verdict": "small",
           "planted": "noise x 3"}  # fmt: skip
    rows = [{**row, "endpoint": "equivalent_blur", "as_planted": "found"},
            {**row, "endpoint": "kid", "as_planted": "not found"}]  # fmt: skip
    rows.append({**row, "claim": "C2", "endpoint": "kid", "as_planted": ""})
    without = [{**x, "planted": "nothing", "as_planted": y}
               for x, y in zip(rows, ("rightly quiet", "false alarm"), strict=False)]  # fmt: skip
    place = tmp_path / "quick" / "chexpert_simulated"
    for folder, own in ((place, rows), (place / "nothing_planted", without)):
        folder.mkdir(parents=True)
        pd.DataFrame(own).to_csv(folder / "tab_tests.csv", index=False)
    told = facts.Facts(tmp_path).plants().splitlines()
    found, missed = (f"{n} of 1 planted differences found" for n in (1, 0))
    assert told[2].endswith(f"| {found} | {missed} |") and "[Race: Black, noise x 3](" in told[2]
    assert told[3].endswith("| no false alarm in 1 | 1 false alarm in 1 |")
    ends = (f"{found}, no false alarm in 1", f"{missed}, 1 false alarm in 1")
    assert told[4] == f"| together |  | {' | '.join(ends)} |"
    assert told[-1].endswith("KID: Race: Black minus White is 0.0200 (0.0100 to 0.0300), small.")


def test_spoilt_labels_are_bold_where_they_do_harm(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "layer": "images",
        "share": 0.0,
        "event": "missed",
        "low": 0.0,
        "high": 0.02,
    }
    rows = [{**row, "fault": "", "value": 0.01},
            {**row, "fault": "wrong", "share": 0.2, "value": 0.3, "low": 0.2, "high": 0.4},
            {**row, "fault": "wrong", "share": 0.05, "value": 0.06, "low": 0.04, "high": 0.08},
            {**row, "fault": "wrong", "share": 0.2, "value": 0.9, "layer": "features"}]  # fmt: skip
    place = tmp_path / "reference" / "ham10000"
    place.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(place / "tab_stress.csv", index=False)
    told = facts.Facts(tmp_path).spoilt("reference/ham10000", "images").splitlines()
    assert told[0] == "| labels spoilt | missed |"
    assert told[2:4] == ["| none, all are clean | 1% |", "| wrong, at random | 6%, **30%** |"]
    assert "with 5% and 20% of the labels spoilt" in told[-1]


def test_what_is_remembered_is_bold_where_chance_is_left_out(tmp_path: Path) -> None:
    row: dict[str, Any] = {"method": "none", "attribute": "overall", "level": "all", "seeds": "0"}
    row |= {"features": "", "low": 0.4, "high": 0.6, "value": 0.5}
    near = {**row, "metric": "nearer_to_training", "features": "lite0"}
    auc = {**row, "metric": "membership_auc"}
    rows = [
        near,
        {**near, "method": "real"},
        {**auc, "value": 0.7, "low": 0.55, "high": 0.8},
        {**auc, "attribute": "sex", "level": "Male", "value": 0.8},
        {**auc, "attribute": "sex", "level": "Female", "value": 0.6},
        {**row, "metric": "membership_tpr", "value": 0.0, "low": 0.0, "high": 0.0},
    ]
    place = tmp_path / "reference" / "ham10000"
    place.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(place / "tab_privacy.csv", index=False)
    told = facts.Facts(tmp_path).remembered("reference/ham10000", 0.01).splitlines()
    same, more = "0.500 (0.400 to 0.600)", "**0.700 (0.550 to 0.800)**"
    assert told[2].startswith(f"| images of Stable Diffusion | {same} | {more} | **0")
    assert told[2].endswith("| Male, 0.8 |")
    assert told[3] == f"| real images | {same} |  |  |  |"


def test_another_word_stands_beside_another_noise(tmp_path: Path) -> None:
    row: dict[str, Any] = {"method": "none", "changed": "sex", "seeds": "0,1", "level": "all"}
    row |= {"attribute": "overall", "value": 0.25, "low": 0.2, "high": 0.3}
    rows = [{**row, "condition": "all", "metric": "moved"},
            {**row, "condition": "all", "metric": "moved_blur"},
            {**row, "condition": "malignant", "metric": "finding_flips"}]  # fmt: skip
    rows += [{**x, "seeds": "0", "value": 9.0} for x in rows]  # single seeds: not told
    place = tmp_path / "reference" / "ham10000"
    place.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(place / "tab_counterfactual.csv", index=False)
    told = facts.Facts(tmp_path).another_word("reference/ham10000").splitlines()
    assert told[2] == (
        "| Stable Diffusion | another sex | 0.250 (0.200 to 0.300) | 0.2 | 25% (20% to 30%) |"
    )
    assert told[3] == ""


def test_a_finding_tells_the_first_number_and_names_the_rest() -> None:
    row = {"value": 0.01, "low": 0.0, "high": 0.02, "testable": True}
    row |= {"verdict": "no difference larger than 0.1 px", "part": "quality"}
    rows = pd.DataFrame([
        {**row, "dataset": "ham10000"}, {**row, "dataset": "odir5k"},
        {**row, "dataset": "odir5k", "part": "equity"},
        {**row, "dataset": "nih_chestxray14", "testable": False},
    ])  # fmt: skip
    said, untested = facts._by_verdict(rows, lambda one: str(one["part"]))
    assert said == (
        "No difference larger than 0.1 px: quality on HAM10000 (0.0100 px of blur; 0.0000 to "
        "0.0200) and ODIR-5K, equity on ODIR-5K."
    )
    assert untested == ["quality on NIH ChestX-ray14"]
