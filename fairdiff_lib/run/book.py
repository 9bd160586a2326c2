"""The book: executed notebooks, tables, figures and verdicts as a site that needs no network.

Nothing is executed. A source tree for Sphinx is written (it mirrors ``figures``, so that
links keep their ways), built with every warning an error, and the site looked through.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.files import atomic_file, atomic_folder, read_json, refuse_other, write_json
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.run import pages
from fairdiff_lib.run.executed import joined
from fairdiff_lib.run.shelf import Part, read_shelf, verdicts
from fairdiff_lib.run.site import check_site
from fairdiff_lib.settings.errors import InputError

TEXTS = {  # the project's own pages -> where they stand in the book
    "README.md": "readme",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
    "data/real/README.md": "real_data",
}
CONFIG: dict[str, Any] = {
    "project": "FairDiffusion as an executable study",
    "author": "the study's contributors",
    "html_title": "FairDiffusion",
    "extensions": ["myst_nb"],
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "myst",
    "nb_ipywidgets_js": {},  # the default is fetched from the network
    "myst_heading_anchors": 3,
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "use_download_button": False,
        "show_navbar_depth": 1,
        "home_page_in_toc": True,
        "navbar_persistent": [],  # the sidebar has the search
        "footer_content_items": [],
    },
    "html_static_path": ["_static"],
    "html_css_files": ["book.css"],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_sphinx": False,
    "html_show_copyright": False,
}
STYLE = """\
/* wide tables scroll in their own box, and pictures fit the page */
.book-scroll, .cell_output .text_html, div.output.text_html { overflow-x: auto; max-width: 100%; }
.book-scroll table, .cell_output table { font-size: 0.8rem; border-collapse: collapse; }
.book-scroll table td, .book-scroll table th,
.cell_output table td, .cell_output table th { padding: 0.2rem 0.6rem; vertical-align: top; }
.cell_output table td, .cell_output table th,
.book-scroll .data, .book-scroll .col_heading { white-space: nowrap; }
.book-scroll table caption, .cell_output table caption { caption-side: top; text-align: left; }
.bd-article img { max-width: 100%; height: auto; }
body { overflow-wrap: anywhere; }  /* of a long name, titles and links to other pages too */
.bd-article table { overflow-wrap: normal; }
.bd-article code.literal .pre { white-space: normal; }  /* the theme keeps code on one line */
"""
CARDS = "cards"  # folder of data sheets, and of the cards that runs wrote
PAGES = (".md", ".ipynb")  # what Sphinx makes pages of
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")


def make_book(figures: Path, output: Path) -> tuple[Path, list[str]]:
    """Build the site from what lies below a figures folder.

    Parameters
    ----------
    figures : Path
        Tables, figures and executed notebooks, as ``fairdiff run`` leaves them.
    output : Path
        Gets ``source``, ``doctrees`` and ``html``.

    Returns
    -------
    tuple
        The front page; problems, a line each (Sphinx's warnings, and ``check_site``'s).

    Raises
    ------
    InputError
        Nothing to read below ``figures``, or the book's packages aren't installed.
    """
    parts = read_shelf(figures)
    if not parts:
        raise InputError(f"{figures}: no table, figure or executed notebook with a stamp below it")
    refuse_other(output, "source", "doctrees", "html")
    write_sources(parts, figures, output / "source")
    shutil.rmtree(output / "html", ignore_errors=True)  # or pages that are gone would stay
    warnings = build_site(output)
    return output / "html" / "index.html", [*warnings, *check_site(output / "html")]


def build_site(output: Path) -> list[str]:
    """Run Sphinx on ``output/source``; its warnings, which are errors here."""
    try:
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace
    except ImportError as error:
        raise InputError(f"{error.name} isn't installed: pip install -e '.[dev]'") from error
    warnings = io.StringIO()
    source, html, trees = output / "source", output / "html", output / "doctrees"
    with docutils_namespace():
        app = Sphinx(
            source, None, html, trees, "html", confoverrides=dict(CONFIG), status=None,
            warning=warnings, warningiserror=False, freshenv=True,
        )  # fmt: skip
        app.config.nitpicky = True
        app.build()
    plain = re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue()).replace(f"{source}/", "")
    return [line for line in plain.splitlines() if line.strip()]


# -- the source tree -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Writer:
    """Writes pages into the source tree and turns links to files into links to pages."""

    figures: Path
    root: Path
    known: Mapping[Path, str]  # a file of the project -> its page or file in the tree

    def text(self, doc: str, text: str) -> None:
        """Write a Markdown page."""
        with atomic_file(self.root / f"{doc}.md") as temporary:
            temporary.write_text(text, encoding="utf-8")

    def relinked(self, text: str, base: Path, doc: str) -> str:
        """Links of a text that lay in ``base``, for the page ``doc``.

        A file without a page is taken along; a link to what isn't there becomes plain text.
        """

        def new(match: re.Match[str]) -> str:
            mark, words, target = match.groups()
            if re.match(r"[a-z]+:|#", target):
                return match[0]
            place, _, anchor = target.partition("#")
            found = self._place((base / place).resolve(), picture=bool(mark))
            if not found:
                return words
            way = os.path.relpath(found, Path(doc).parent)
            return f"{mark}[{words}]({way}{'#' + anchor if anchor else ''})"

        return LINK.sub(new, text)

    def _place(self, file: Path, picture: bool) -> str:
        if file in self.known and not picture:
            return self.known[file]
        if not file.is_file() or file.suffix in PAGES:
            return ""  # a page that isn't in this book
        inside = next((file.relative_to(folder) for folder in (self.figures, PROJECT_ROOT)
                       if file.is_relative_to(folder)), None)  # fmt: skip
        if inside is None:
            return ""
        kept = self.root / "files" / inside
        if not kept.suffix:
            kept = kept.with_suffix(".txt")  # a browser shows it
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, kept)
        return kept.relative_to(self.root).as_posix()

    def notebook(self, copy: Path, doc: str) -> None:
        """Copy an executed notebook, with the links in its texts turned."""
        whole = read_json(copy)
        for cell in whole["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = self.relinked(joined(cell["source"]), copy.parent, doc)
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "text/markdown" in data:
                    said = joined(data["text/markdown"])
                    data["text/markdown"] = self.relinked(said, copy.parent, doc)
        write_json(self.root / f"{doc}.ipynb", whole)


def write_sources(parts: Sequence[Part], figures: Path, target: Path) -> Path:
    """Write the tree that Sphinx builds from: whole, in place of an earlier one.

    Parameters
    ----------
    parts : sequence of Part
        From ``shelf.read_shelf(figures)``.
    figures : Path
    target : Path

    Returns
    -------
    Path
        ``target``.
    """
    with atomic_folder(target) as root:
        texts = _texts(figures.resolve())
        writer = _Writer(figures.resolve(), root, _known(parts, texts))
        for part in parts:
            writer.text(f"{part.place}/index", pages.part_page(part))
            for item in part.items:
                writer.text(item.doc, pages.item_page(item, part))
                stamp = item.files[0].with_suffix(".json")
                for file in (*item.files, stamp):
                    shutil.copyfile(file, root / Path(item.doc).parent / file.name)
            for doc, copy in part.notebooks.items():
                writer.notebook(copy.path, doc)
        for path, doc in texts.items():
            said = _metadata_last(path.read_text(encoding="utf-8"))
            writer.text(doc, writer.relinked(said, path.parent, doc))
        writer.text("claims", pages.claims_page(parts))
        writer.text("verdict", pages.verdict_page(parts))
        writer.text("index", _front_page(writer, parts, list(texts.values())))
        with atomic_file(root / "_static" / "book.css") as temporary:
            temporary.write_text(STYLE, encoding="utf-8")
    return target


def _known(parts: Iterable[Part], texts: Mapping[Path, str]) -> dict[Path, str]:
    """What has a page: every file of an item, its stamp, every notebook, the texts."""
    known = {}
    for part in parts:
        for item in part.items:
            for file in (*item.files, item.files[0].with_suffix(".json")):
                known[file.resolve()] = f"{item.doc}.md"
        known |= {copy.path.resolve(): f"{doc}.ipynb" for doc, copy in part.notebooks.items()}
    return known | {path: f"{doc}.md" for path, doc in texts.items()}


def _texts(figures: Path) -> dict[Path, str]:
    """The project's own pages, then the cards: of data sets, and those that runs wrote."""
    cards = sorted((PROJECT_ROOT / "data" / "cards").glob("*.md"))
    found = {PROJECT_ROOT / name: doc for name, doc in TEXTS.items()}
    found |= {card: f"{CARDS}/{card.stem}" for card in cards}
    written = sorted(figures.glob(f"*/*/{CARDS}/*.md"))
    return found | {card: card.relative_to(figures).with_suffix("").as_posix() for card in written}


def _metadata_last(text: str) -> str:
    """A card's metadata (YAML between dashes before its text) as a section at its end."""
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not found:
        return text
    return f"{text[found.end() :].strip()}\n\n## Metadata\n\n```yaml\n{found[1]}\n```\n"


def _front_page(writer: _Writer, parts: Sequence[Part], texts: Sequence[str]) -> str:
    """The README's first words, what was found, and where to go on."""
    opening = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    found = verdicts(parts)
    lines = [writer.relinked(opening, PROJECT_ROOT, "index").strip(), ""]
    if len(found):
        lines += ["## What was found", "", pages.verdict_grid(found), ""]
        more = pages.link("each verdict in full", "verdict", "index")
        where = pages.link("where to look for each claim", "claims", "index")
        about = pages.link("the README", "readme", "index")
        lines += [f"Go on to {more}, to {where}, or to {about}, which sums the results up.", ""]
    for caption, docs in (
        ("Findings", ["claims", "verdict"]),
        ("Studies", [f"{part.place}/index" for part in parts]),
        ("Cards", [doc for doc in texts if CARDS in doc.split("/")]),
        ("About", [doc for doc in texts if CARDS not in doc.split("/")]),
    ):
        titles = {doc: "README" if doc == "readme" else "" for doc in docs}
        lines += [pages.toctree(titles, caption, hidden=True), ""]
    return "\n".join(lines)
