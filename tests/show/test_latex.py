"""A table's LaTeX says what its CSV says: whole, escaped, each row as wide as its head."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.disk.files import hash_file, read_json
from fairdiff_lib.disk.stamps import publish_table
from fairdiff_lib.run import links
from fairdiff_lib.show import latex
from fairdiff_lib.studies import report

STAMP: dict[str, Any] = {
    "parameters": {"preset": "quick", "dataset": "fairgenmed_simulated"},
    "settings": {"audit": {"confidence": 0.95}},
    "data_hash": "d" * 64,
    "commit": "c" * 40,
    "simulated": True,
}


def rows(methods: tuple[str, ...] = ("none", "fairdiffusion"), many: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"dataset": "fairgenmed_simulated", "method": method, "attribute": "race_x & y",
             "level": f"100% of {level}_{i}", "metric": metric, "seeds": "0,1", "n_seeds": 2,
             "n": 38, "value": 0.0312, "sd": 0.1, "low": -0.0241, "high": 0.0374, "note": "x"}
            for method in methods for metric in ("kid", "fid") for level in ("Asian", "Black")
            for i in range(many)
        ]
    )  # fmt: skip


def written(frame: pd.DataFrame, tmp_path: Path, name: str = "tab02") -> str:
    path = report.publish(frame, tmp_path / f"{name}.csv", STAMP)
    return path.with_suffix(".tex").read_text()


def check(text: str) -> None:
    """Balanced braces and environments; as many cells in each row as the head declares."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}$&#%_]", "", code)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r"[%#^~]|(?<!\\)_", re.sub(r"\^\{-?\d+\}", "", bare))
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", code):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    columns = re.search(r"\\begin\{(?:tabular|longtable)\}\{((?:[lr]|p\{[^}]*\})+)\}", code)
    assert columns
    count = len(re.findall(r"[lr]|p\{[^}]*\}", columns[1]))
    body = code[columns.end() :]
    lines = [line for line in body.splitlines() if line.endswith(r"\\") and "caption" not in line]
    for line in lines:
        wide = re.match(r"\\multicolumn\{(\d+)\}", line)
        found = int(wide[1]) if wide else len(re.findall(r"(?<!\\)&", line)) + 1
        assert found == count, line


def test_methods_stand_side_by_side_with_their_intervals(tmp_path: Path) -> None:
    text = written(rows(), tmp_path)
    check(text)
    assert r"\shortstack{Stable\\Diffusion}" in text
    cell = r"0.0312 ($-$0.0241 to 0.0374)"
    assert text.count(f"& {cell} & {cell} " + r"\\") == 4  # 2 metrics x 2 levels, a row each
    assert r"100\% of Asian\_0" in text and r"Race x \& y" in text
    assert text.index("KID (lower is better)") < text.index("FID (lower is better)")


def test_the_caption_says_what_the_numbers_rest_on(tmp_path: Path) -> None:
    text = written(rows(), tmp_path)
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
    for words in ("T2: quality by demographic level", "FairGenMed, simulated", "preset quick",
                  "n 38", "95\\% interval", "Simulated data: nothing here is about patients",
                  r"\label{tab:quick-fairgenmed-simulated-"):  # fmt: skip
        assert words in caption
    real = {**STAMP, "simulated": False, "parameters": {"preset": "quick", "dataset": "ham10000"}}
    path = report.publish(rows().assign(dataset="ham10000"), tmp_path / "real.csv", real)
    assert "simulated" not in path.with_suffix(".tex").read_text().lower()


def test_a_table_longer_than_a_page_breaks_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    text = written(rows(many=30), tmp_path)
    check(text)
    assert r"\begin{longtable}" in text and "Only the first" not in text
    text = written(rows(many=80), tmp_path)
    check(text)
    assert "Only the first 200 lines are shown" in text and "tab02.csv has all 640 rows" in text
    assert text.count("0.0312") == 400  # lines x methods


def test_a_hole_is_never_filled(tmp_path: Path) -> None:
    text = written(rows().iloc[:-1], tmp_path)  # one cell of eight is missing
    check(text)
    assert text.count("0.0312") == 7 and text.count("Diffusion &") == 7  # a row per method


def test_missing_numbers_text_and_empty_tables(tmp_path: Path) -> None:
    frame = rows().assign(value=[np.nan, *[2.5e-7] * 7], low=np.nan, high=np.nan)
    text = written(frame, tmp_path)
    check(text)
    assert "& -- &" in text and r"$2.5\times10^{-7}$" in text and "--: not estimable" in text
    check(written(rows().iloc[:0], tmp_path, "tab03"))
    claims = pd.DataFrame({"claim": ["C1", "C2"], "reason": ["a|b > c " * 20, "no"]})
    text = written(claims, tmp_path, "tab14")
    check(text)
    assert r"a$|$b $>$ c" in text and r"p{" in text


def test_verdicts_have_their_numbers_and_leave_the_sentences_out(tmp_path: Path) -> None:
    row = {"dataset": "ham10000", "claim": "C1", "study": "main", "cited": True, "unit": "KID",
           "verdict": "inconclusive", "value": 0.0312, "low": 0.01, "high": 0.05, "n": 1336,
           "smallest_effect": 0.006, "mde": 0.018, "p_holm": 0.2, "seeds": 5,
           "quote": "On HAM10000, the sentence."}  # fmt: skip
    second = {**row, "claim": "C2", "unit": "AUC", "smallest_effect": np.nan}
    text = written(pd.DataFrame([row, second]), tmp_path, "tab14")
    check(text)
    assert text.count("inconclusive") == 2 and "the sentence" not in text
    assert "0.0312 (0.0100 to 0.0500)" in text and "0.006" in text and "training seeds 5" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ((0.03546, 0.0319, 0.039), "0.0355 (0.0319 to 0.0390)"),
        ((16.0, 14.7, 17.41), "16.0 (14.7 to 17.4)"),
        ((0.5, np.nan, np.nan), "0.5"),
        ((np.nan, 0.1, 0.2), "--"),
    ],
)
def test_an_interval_has_the_decimals_of_its_value(
    number: tuple[float, float, float], text: str
) -> None:
    assert latex.interval(*number) == text


def test_the_stamp_vouches_for_both_files_and_an_edit_is_seen(tmp_path: Path) -> None:
    written(rows(), tmp_path)
    csv, tex = tmp_path / "tab02.csv", tmp_path / "tab02.tex"
    assert read_json(tmp_path / "tab02.json")["files"] == {
        "tab02.csv": hash_file(csv), "tab02.tex": hash_file(tex)}  # fmt: skip
    assert latex.origin_of(tex) == hash_file(csv)
    assert {links.bytes_link(path).state for path in (csv, tex)} == {links.OK}
    tex.write_text(tex.read_text().replace("0.0312", "0.0112"))
    assert links.bytes_link(tex).state == links.BROKEN


def test_latex_of_an_older_table_leaves_its_stamp_alone(tmp_path: Path) -> None:
    csv = publish_table(rows(), tmp_path / "tab02.csv", STAMP)
    before = (tmp_path / "tab02.json").read_bytes()
    tex = report.typeset(csv)
    assert (tmp_path / "tab02.json").read_bytes() == before
    assert links.bytes_link(tex).state == links.UNVERIFIABLE  # made from this CSV, not vouched for
    csv.write_text(csv.read_text().replace("0.0312", "0.0112"))
    assert links.bytes_link(tex).state == links.BROKEN
