"""A book of one tiny study: it builds without a warning, and what is wrong with a site is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.datasets import contents, load_settings
from fairdiff_lib.disk.files import read_json, write_json
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.stamps import make_stamp, publish_table, write_stamp
from fairdiff_lib.run import book, links, pages
from fairdiff_lib.run.shelf import read_shelf
from fairdiff_lib.run.site import check_site
from fairdiff_lib.settings.errors import InputError

REASON = "gap < 0 for max-|t| [none_seed*]"


def notebook(given: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    text = "# 05 Is it the same?\n\n[F3](../fig03.png), [T2](../tab02.csv), [gone](../tab99.csv)"
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
                           "statement": "Groups differ", "verdict": ["inconclusive", "seen"],
                           "reason": REASON, "p": [0.25, None]})  # fmt: skip
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
    front, problems = book.make_book(figures, tmp_path / "book")
    assert problems == []
    site = front.parent
    study = site / "smoke" / "fairgenmed_simulated"
    claims = (site / "claims.html").read_text()
    for page in ("tab02", "fig03", "executed/05_quality"):
        assert (study / f"{page}.html").is_file()
        assert f"smoke/fairgenmed_simulated/{page}.html" in claims
    assert "Groups differ" in claims and "inconclusive" in front.read_text()
    table = (study / "tab02.html").read_text()
    assert "&lt;60" in table and "not estimable" in table and "Simulated data" in table
    told = (study / "executed" / "05_quality.html").read_text()
    assert 'href="../tab02.html"' in told and "tab99" not in told and ">wide<" in told
    verdict = (site / "verdict.html").read_text()
    assert "gap &lt; 0 for max-|t| [none_seed*]" in verdict and "seen" in verdict
    card = (study / "cards" / "none_seed0.html").read_text()
    assert "Model card: none" in card and 'href="../tab02.html"' in card and "license" in card
    assert "cards/none_seed0.html" in front.read_text()
    assert (site / "cards" / "ham10000_simulated.html").is_file()
    assert (site / "search.html").is_file() and (site / "searchindex.js").is_file()


def test_what_is_wrong_with_a_notebook_is_a_problem(figures: Path, tmp_path: Path) -> None:
    path = next(figures.rglob("05_quality.ipynb"))
    error = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["no"]}
    whole = read_json(path)
    whole["cells"][2]["outputs"] = [error]
    whole["cells"][0]["source"] += "\n\nas in /home/somebody/file, see [x](nowhere.md)"
    write_json(path, whole)
    problems = "\n".join(book.make_book(figures, tmp_path / "book")[1])
    assert "05_quality.html: 1 cells raised an error" in problems
    assert "05_quality.html: holds a path of this machine: '/home/somebody" in problems


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('<a href="no.html">x</a>', "a link leads nowhere: no.html"),
        ('<a href="#no">x</a>', "a link leads nowhere: #no"),
        ('<a href="other.html#no">x</a>', "a link leads nowhere: other.html#no"),
        ('<img src="no.png">', "a link leads nowhere: no.png"),
        ('<script src="https://cdn.example/x.js"></script>', "fetches https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "fetches //cdn.example/x.css"),
        (f"<p>{PROJECT_ROOT}/data</p>", "a path of this machine"),
        ("<p>/tmp/run</p>", "a path of this machine"),
        ('<div class="output traceback">x</div>', "1 cells raised an error"),
    ],
)
def test_a_fault_of_a_page_is_seen(body: str, words: str, tmp_path: Path) -> None:
    good = '<a id="yes" href="other.html#there">x</a><a href="https://example.org">y</a>'
    (tmp_path / "other.html").write_text('<p id="there">x</p>')
    (tmp_path / "index.html").write_text(good)
    assert check_site(tmp_path) == []
    (tmp_path / "index.html").write_text(good + body)
    (problem,) = check_site(tmp_path)
    assert problem.startswith("index.html: ") and words in problem


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table, figure or executed notebook"):
        book.make_book(tmp_path, tmp_path / "book")
    assert check_site(tmp_path) == ["index.html: missing"]


def test_markdown_is_taken_literally() -> None:
    assert pages.escape("a|b <i> [x]\n_y_") == r"a\|b \<i\> \[x\] \_y\_"
    assert pages.link("T2", "quick/a/tab02", "quick/a/index") == "[T2](tab02.md)"
    assert pages.link("05", "quick/a/executed/05_x", "") == "[05](quick/a/executed/05_x.ipynb)"


def test_committed_tables_and_figures_have_a_place_in_the_index() -> None:
    """A new table names what it holds and its notebook; only commands' tables have none."""
    items = [item for part in read_shelf(PROJECT_ROOT / "figures") for item in part.items]
    unknown = [item.doc for item in items
               if item.name not in contents() and "preset" in json.dumps(item.stamp)]  # fmt: skip
    assert items and not unknown
    assert all(links.stamp_path(item.files[0]).is_file() for item in items)
