"""A table's LaTeX says what its CSV says: whole, escaped, each row as wide as its head."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.disk.files import hash_file
from fairdiff_lib.disk.stamps import publish_table, read_stamp

STAMP: dict[str, Any] = {
    "parameters": {"preset": "quick", "dataset": "fairgenmed_simulated"},
    "settings": {"audit": {"confidence": 0.9}},
    "data_hash": "d" * 64,
    "commit": "c" * 40,
    "simulated": True,
}


def rows(methods: tuple[str, ...] = ("none", "fairdiffusion"), many: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"dataset": "fairgenmed_simulated", "method": method, "attribute": "race_x & y",
             "level": f"${level}_{i} #{{1}}", "metric": metric, "seeds": "0,1", "n_seeds": 2,
             "n": 38, "value": 0.0312, "sd": 0.1, "low": -0.0241, "high": 0.0374, "note": "x"}
            for method in methods for metric in ("kid", "fid") for level in ("Asian", "100%")
            for i in range(many)
        ]
    )  # fmt: skip


def written(frame: pd.DataFrame, tmp_path: Path, name: str = "tab02") -> str:
    path = publish_table(frame, tmp_path / f"{name}.csv", STAMP, "quality by level")
    return path.with_suffix(".tex").read_text()


def check(text: str) -> list[str]:
    """Balanced braces, nothing to act on, as many cells in each row as the head declares."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}$&#%_]", "", code)
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[$%#^~_]", bare)
    columns = re.search(r"\\begin\{longtable\}(?:\[.*\])?\{(l+)\}", code)
    assert columns
    body = code[code.index(r"\endlastfoot") :].splitlines()
    lines = [line for line in body if line.endswith(r"\\")]
    for line in lines:
        assert len(re.findall(r"(?<!\\)&", line)) + 1 == len(columns[1]), line
    return lines


def test_methods_stand_side_by_side_with_their_intervals(tmp_path: Path) -> None:
    text = written(rows(), tmp_path)
    lines = check(text)
    assert len(lines) == 4 and all(line.count("0.0312 (-0.0241 to 0.0374)") == 2 for line in lines)
    assert "Stable Diffusion & FairDiffusion" in text
    assert r"Race x \& y: \$100\%\_0 \#\{1\}" in text


def test_the_caption_says_what_the_numbers_rest_on(tmp_path: Path) -> None:
    caption = next(x for x in written(rows(), tmp_path).splitlines() if x.startswith(r"\caption{"))
    for words in ("T2: quality by level", "preset quick", "n 38", r"90\% interval",
                  "nothing here is about patients", r"\label{tab:quick-fairgenmed-simulated-",
                  "training seeds 0,1"):  # fmt: skip
        assert words in caption


def test_a_long_table_says_what_it_leaves_out(tmp_path: Path) -> None:
    text = written(rows(many=80), tmp_path)
    assert len(check(text)) == 200
    assert "Only the first 200 lines are shown" in text
    assert r"tab02.csv has all 640 rows" in text


def test_a_hole_is_never_filled(tmp_path: Path) -> None:
    lines = check(written(rows().iloc[:-1], tmp_path))  # one cell of eight is missing
    assert len(lines) == 7 and all(line.count("0.0312") == 1 for line in lines)


def test_missing_numbers_and_empty_tables(tmp_path: Path) -> None:
    text = written(rows().assign(value=[np.nan, *[2.5e-7] * 7], low=np.nan), tmp_path)
    check(text)
    assert "not estimable" in text and "2.5e-07" in text
    assert "The table has no row" in written(rows().iloc[:0], tmp_path, "tab03")


def test_verdicts_leave_their_sentences_out(tmp_path: Path) -> None:
    row = {"dataset": "ham10000", "claim": "C1", "unit": "KID", "verdict": "inconclusive",
           "value": 0.0312, "low": 0.01, "high": 0.05, "quote": "The sentence.",
           "limits": "No skin tone."}  # fmt: skip
    text = written(pd.DataFrame([row, {**row, "claim": "C2"}]), tmp_path, "tab14")
    assert len(check(text)) == 2
    assert "The sentence" not in text and "No skin tone" in text


def test_the_stamp_vouches_for_both_files_and_only_numbered_tables_have_two(tmp_path: Path) -> None:
    written(rows(), tmp_path)
    csv, tex = tmp_path / "tab02.csv", tmp_path / "tab02.tex"
    assert read_stamp(tmp_path / "tab02.json")["files"] == {
        "tab02.csv": hash_file(csv), "tab02.tex": hash_file(tex)}  # fmt: skip
    assert tex.read_text().startswith(f"% made from tab02.csv, sha256 {hash_file(csv)}\n")
    publish_table(rows(), tmp_path / "tab_gates.csv", STAMP)
    assert not (tmp_path / "tab_gates.tex").exists()
