"""What a notebook shows: names in words, the value on screen, nothing where there is nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.display import Image, Markdown
from matplotlib.figure import Figure

import fairdiff_lib
from fairdiff_lib.datasets import contents
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show import front
from fairdiff_lib.show.style import page
from fairdiff_lib.study import Study


def rows(n: int = 3, **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "dataset": "ham10000",
            "method": "none",
            "attribute": "sex",
            "level": [f"<b>level {k}" for k in range(n)],
            "metric": "kid",
            "note": "few",
            "n": range(n),
            "value": np.arange(n) / 7,
            "low": 0.1,
            "high": [np.nan, *np.ones(n - 1)],
        }
    )
    return frame.assign(**columns)


def heads(html: str) -> list[str]:
    return [part.split("<")[0] for part in html.split('" >')[1:] if "</th>" in part]


def test_the_value_comes_first_and_what_all_rows_share_is_in_the_caption() -> None:
    html = str(front.table(rows(), "Quality", name="tab02").data)
    assert heads(html) == ["level", "value", "low", "high", "n"]
    caption = html.split(f'<p class="{front.PLAIN}">')[1].split("</p>")[0]
    said = caption.replace("<b>", "").replace("</b>", "")
    assert said.startswith("Quality. In all rows: dataset HAM10000; method Stable Diffusion")
    assert "not estimable" not in html  # a value without an upper limit
    assert "not estimable" in front.table(rows(value=[np.nan, 1.0, 2.0])).data
    assert "0.143" in html and "0.1428" not in html
    assert 'href="../tab02.csv"' in html
    assert html == front.table(rows(), "Quality", name="tab02").data


def test_a_level_cannot_become_markup() -> None:
    html = str(front.table(rows(), "a < b").data).replace("<b>a &lt; b.</b>", "a &lt; b")
    assert "<b>" not in html and "Sex: &lt;b&gt;level 0" in html and "a &lt; b" in html


def test_dollars_in_a_level_begin_no_formula() -> None:
    """In a notebook MathJax reads what stands between two dollars, in HTML and Markdown."""
    frame = pd.DataFrame({"level": ["$0-$24,999", "$25,000"], "value": [0.1, 0.2]})
    shown = str(front.table(frame, "Of $ and $").data)
    assert shown.count("tex2jax_ignore mathjax_ignore") == 2 and "$0-$24,999" in shown
    front.SENTENCES["dollars"] = lambda: "from $0 to $9"
    assert front.say("dollars").data == r"from \$0 to \$9"
    del front.SENTENCES["dollars"]


def test_a_long_table_says_where_the_rest_is() -> None:
    html = str(front.table(rows(200), name="tab02").data)
    assert html.count("<tr>") == 31 and "The first 30 of 200 rows" in html


def test_of_several_seeds_the_means_are_shown() -> None:
    frame = rows(4, n_seeds=[1, 1, 2, 2], seeds=["0", "1", "0,1", "0,1"])
    html = str(front.table(frame).data)
    assert html.count("<tr>") == 3 and "training seeds 0,1" in html


@pytest.fixture
def study(tmp_path: Path) -> Any:
    def publish(name: str, drawn: Figure) -> Path:
        drawn.savefig(tmp_path / f"{name}.png")
        return tmp_path / f"{name}.png"

    return SimpleNamespace(publish=publish)


def test_a_figure_is_written_and_its_title_is_its_alternative_text(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "FIGURES", dict(front.FIGURES))
    front.figure("fig_toy")(lambda title: page(1.0, title))
    shown = front.fig(study, "fig_toy", "Who is in the cohort?")
    assert isinstance(shown, Image) and shown.alt == "Who is in the cohort?"
    assert (tmp_path / "fig_toy.png").is_file()


def test_a_levels_long_name_is_cut_where_it_stays_its_own() -> None:
    long = "x" * 300
    table = pd.DataFrame({"level": [long, "F", long], "value": [1.0, 2.0, 3.0]})
    assert front.shortened(table)["level"].tolist() == [
        "x" * 47 + "\u2026",
        "F",
        "x" * 47 + "\u2026",
    ]
    assert table["level"].tolist() == [long, "F", long]  # the caller's own
    alike = pd.DataFrame({"level": [f"{long}1", f"{long}2"]})
    assert front.shortened(alike).equals(alike)


def test_nothing_is_written_where_there_is_nothing_to_draw(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "FIGURES", dict(front.FIGURES))

    @front.figure("fig_none")
    def draw() -> Figure:
        raise front.Nothing("the grid was not run")

    shown = front.fig(study, "fig_none")
    assert isinstance(shown, Markdown) and "the grid was not run" in str(shown.data)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_are_refused_with_those_that_there_are(study: Any) -> None:
    with pytest.raises(InputError, match="unknown figure 'fig99'; known: "):
        front.fig(study, "fig99")
    with pytest.raises(InputError, match="unknown sentence 'nobody'"):
        front.say("nobody")


def test_a_function_shows_its_own_text() -> None:
    html = str(front.show_source(page).data)
    assert "font-family: monospace" in html
    shown = unescape(re.sub("<[^>]+>", "", html))
    assert shown.startswith("def page(") and "return fig" in shown
    assert "An empty page of the house style." in shown and "Parameters" not in shown
    assert isinstance(ast.parse(shown).body[0], ast.FunctionDef)
    assert "return frame" in re.sub("<[^>]+>", "", str(front.show_source(rows).data))


def test_without_runs_the_committed_results_are_shown_or_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, shown = Study.open("quick", runs_root=str(tmp_path), figures_root=str(tmp_path)), []
    monkeypatch.setattr(front, "display", lambda *objects: shown.extend(objects))
    with pytest.raises(InputError, match=r"05_quality.json is missing; `fairdiff run .*` makes it"):
        front.ready(study, "14_privacy")
    assert not shown
    with pytest.raises(SystemExit) as end:  # papermill takes code 0 for a success
        front.ready(study, "14_privacy", "committed")
    assert end.value.code == 0 and "05_quality.json is missing" in shown[0].data
    assert "tab_privacy.csv" in shown[1].data and "Nearer to a training image" in shown[1].data
    assert isinstance(shown[-1], Image) and shown[-1].alt == contents()["fig_privacy"][0]
    smoke = Study.open("smoke", runs_root=str(tmp_path))  # of which nothing is committed
    with pytest.raises(InputError, match=r"05_quality.json is missing"):
        front.ready(smoke, "14_privacy", "committed")
    with pytest.raises(InputError, match="source='commited': expected runs or committed"):
        front.ready(study, "14_privacy", "commited")
    study.record("05_quality", n=1)
    front.ready(study, "14_privacy")


def test_a_stamp_is_a_line() -> None:
    stamp = {"commit": "0123456789abcdef", "dirty": True, "versions": {"numpy": "2.0"}}
    said = str(front.say("stamp", {**stamp, "data_hash": "f" * 64}).data)
    assert "commit 0123456789, which the code differed from, from data ffffffffff." in said
    own = {name: {"file": f"{name}.csv", "sha256": name * 3} for name in ("real", "made")}
    assert "data realrealre and mademadema." in front.say("stamp", {**stamp, "content": own}).data


def test_the_library_is_imported_late() -> None:
    code = (
        "import sys, fairdiff_lib as f; assert callable(f.Study.open); "
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("train.runs", "diffusers transformers matplotlib IPython"),  # loaded when something trains
        ("audit.harm", "torch matplotlib fairdiff_lib.disk fairdiff_lib.sim fairdiff_lib.data"),
        ("show.front", "torch seaborn"),
    ],
)
def test_a_room_loads_no_more_than_it_needs(room: str, never: str) -> None:
    code = f"import sys, fairdiff_lib.{room}; print(*set({never.split()}) & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == ""


def test_every_public_name_is_there() -> None:
    for name in fairdiff_lib.__all__:
        assert getattr(fairdiff_lib, name) is not None
    assert len(fairdiff_lib.__all__) <= 40
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fairdiff_lib.nothing  # type: ignore[attr-defined]
