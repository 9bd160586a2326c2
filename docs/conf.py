"""Sphinx's settings of the book: nothing is executed, nothing is fetched from the network."""

from __future__ import annotations

import re
from typing import Any

from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

project = "FairDiffusion as an executable study"
author = "the study's contributors"
html_title = "FairDiffusion"
extensions = ["myst_nb"]
nitpicky = True
include_patterns = [
    *("index.md", "archive.md", "claims.md", "verdict.md", "studies/*.md", "docs/book/*.md"),
    *("README.md", "docs/guide.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("data/real/README.md", "data/cards/*.md"),
    *("docs/workshop/*.md", "workshop/exercises.md", "workshop/handout.md", "workshop/*/*.ipynb"),
    *("figures/**/executed/*.ipynb", "figures/*/*/cards/*.md"),
]
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_ipywidgets_js: dict[str, Any] = {}  # the default is fetched from the network
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a card's headings begin where the Hub wants them
html_theme = "sphinx_book_theme"
html_theme_options = {
    "use_download_button": False,
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the sidebar has the search
    "footer_content_items": [],
}
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"


def mathml(text: str, block: bool) -> str:
    """An equation as browsers draw it by themselves, so that no script is fetched."""
    return str(tex2mathml(re.sub(r"\\tag\{.*?\}", "", text), as_block=block))


def setup(app: Sphinx) -> None:
    """Register the equations' renderer."""

    def inline(writer: Any, node: Any) -> None:
        writer.body.append(mathml(node.astext(), block=False))
        raise SkipNode

    def block(writer: Any, node: Any) -> None:
        writer.body.append(f'<div class="math">{mathml(node.astext(), block=True)}</div>')
        raise SkipNode

    from docutils.nodes import SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
