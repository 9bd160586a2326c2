"""The book: what people read of the study as a site that needs no network.

Ten chapters (``docs/book``, filled in from the tables by ``docs/facts.py``), and behind them the
archive: the project's own files under their own paths, so that links keep their ways, and a page
per study. Every warning of Sphinx is a problem; ``--external`` looks up links to other sites.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
from jinja2 import Environment, StrictUndefined, TemplateError

from docs.facts import MARKS, Facts, escape, grid, options
from fairdiff_lib.datasets import contents, dataset_of
from fairdiff_lib.disk.files import atomic_folder, read_json, read_table, refuse_other
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.notebooks import NOTEBOOKS
from fairdiff_lib.show.figures.main import MAIN
from fairdiff_lib.show.style import dataset_name
from fairdiff_lib.workshop.build import HANDOUT
from fairdiff_lib.workshop.build import build as build_workshop

ALONE = {"calibration": "The proof", "main": "Main figures", "own": "Audit your own"}
SIMULATED = "Simulated data: nothing here is about patients."
COPIED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE", "CITATION.cff",
          "data/cards", "data/real/README.md", "data/workshop", "notebooks", "fairdiff_lib", "docs",
          "benchmarks", "pyproject.toml", "Makefile", "Snakefile", "environment.yml")  # fmt: skip
HREF = re.compile(r'href="(?![a-z]+:|#)([^"#?]+)')  # to a file of the site
SHOWN = re.compile(r'<a href=\\"(\.\./[^\\"]+)\\">([^<]*)</a>')  # as JSON has it
LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s]+)\)")
LOCAL_PATH = re.compile(r"file://|(?<![\w./~-])/(?:home|root|Users|tmp|opt|mnt|var|private)/\w+")
ERROR = '"output_type": "error"'
EXERCISES = {"(../../notebooks/workshop)": "(../../workshop/exercises.md)"}  # sources -> their page
AROUND = ("README", "lay", "slides", "glossary", "exit_questions", "INSTRUCTOR")  # the workshop


@dataclass(frozen=True)
class Part:
    """A folder below ``figures``: what one study left in one place."""

    folder: Path
    place: str  # as quick/fairgenmed_simulated/ablation

    @property
    def files(self) -> list[Path]:
        """Tables, figures and cards that have a stamp beside them."""
        found = sorted([*self.folder.glob("*.csv"), *self.folder.glob("*.png"),
                        *self.folder.glob("*.html")])  # fmt: skip
        return [path for path in found if path.with_suffix(".json").is_file()]

    @property
    def notebooks(self) -> list[Path]:
        """Executed copies."""
        return sorted(self.folder.glob("executed/*.ipynb"))

    @property
    def doc(self) -> str:
        """Name of its page."""
        return f"studies/{self.place.replace('/', '-')}"

    @property
    def preset(self) -> str:
        return self.place.split("/")[0]

    @property
    def dataset(self) -> str:
        """The data set's name; empty where several are spanned, or none."""
        name = [*self.place.split("/"), ""][1]
        return "" if name == "all" else name

    @property
    def title(self) -> str:
        """As "HAM10000, preset reference: ablation"."""
        more = self.place.split("/")[2:]
        whose = dataset_name(self.dataset) if self.dataset else "All data sets"
        if "/" not in self.place:
            return ALONE.get(self.place, self.place)
        return f"{whose}, preset {self.preset}" + "".join(f": {x.replace('_', ' ')}" for x in more)

    @property
    def simulated(self) -> bool:
        """Whether anything here rests on simulated data."""
        return any(read_json(path.with_suffix(".json")).get("simulated") for path in self.files)


def read_parts(figures: Path) -> list[Part]:
    """Every folder below ``figures`` with something to read, the studies of a data set first."""
    folders = {path.parent for path in figures.rglob("*.json") if path.with_suffix(".csv").is_file()
               or path.with_suffix(".png").is_file()}  # fmt: skip
    folders |= {path.parent.parent for path in figures.rglob("executed/*.ipynb")}
    parts = [Part(folder, folder.relative_to(figures).as_posix()) for folder in folders
             if folder.name != "runs"]  # fmt: skip
    return sorted(
        parts, key=lambda part: (part.place.count("/") != 1, not part.dataset, part.place)
    )


# -- Markdown ----------------------------------------------------------------------------------


def toctree(docs: Mapping[str, str], caption: str = "") -> str:
    """A table of contents; page from the root -> its title there, empty for its own."""
    options = [f":caption: {caption}", ":hidden:"] if caption else []
    entries = [f"{title} </{doc}>" if title else f"/{doc}" for doc, title in docs.items()]
    return "\n".join(["```{toctree}", ":maxdepth: 1", *options, "", *entries, "```"])


def link(path: Path, figures: Path, text: str = "") -> str:
    """A link from a page at the root to a file below ``figures``."""
    return f"[{escape(text or path.stem)}](/figures/{path.relative_to(figures).as_posix()})"


# -- pages ---------------------------------------------------------------------------------------


def part_page(part: Part, figures: Path) -> str:
    """Notebooks, figures and tables of one place."""
    lines = [f"# {escape(part.title)}", ""]
    if part.simulated:
        lines += [f"```{{note}}\n{SIMULATED}\n```", ""]
    if part.notebooks:
        docs = {f"figures/{path.relative_to(figures).with_suffix('').as_posix()}": _title(path)
                for path in part.notebooks}  # fmt: skip
        lines += ["## Notebooks", "", toctree(docs), ""]
    known, tables = contents(), [path for path in part.files if path.suffix == ".csv"]
    if tables:
        rows = [[link(path, figures), escape(known.get(path.stem, ("", ""))[0])] for path in tables]
        lines += ["## Tables", "", grid(["table (CSV)", "what it holds"], rows), ""]
    for path in part.files:
        if path.suffix != ".csv" and path.name != "card.png":
            title = known.get(path.stem, (path.stem, ""))[0]
            picture = "!" if path.suffix == ".png" else ""
            lines += [f"## {escape(path.stem)}: {escape(title)}", ""]
            lines += [f"{picture}{link(path, figures, title)}", ""]
    return "\n".join(lines)


def _title(path: Path) -> str:
    """A notebook's question, with what its copy ran for where there is one per run."""
    name = max((own for own in NOTEBOOKS if path.stem.startswith(own)), key=len, default="")
    if not name:
        return ""
    run = path.stem.removeprefix(name).strip("_").replace("_", " ")
    return f"{name[:2]} {NOTEBOOKS[name].question}" + (f" ({run})" if run else "")


def verdicts(parts: Sequence[Part]) -> pd.DataFrame:
    """Rows of every T14, with the preset; may be empty."""
    tables = [
        read_table(path, ("dataset", "claim", "statement", "verdict"), dtype=str)
        .fillna("")
        .assign(preset=part.preset)
        for part in parts
        for path in part.files
        if path.name == "tab14.csv"
    ]
    columns = ["dataset", "claim", "statement", "verdict", "preset"]
    return pd.concat(tables).fillna("") if tables else pd.DataFrame(columns=columns)


def _claims(found: pd.DataFrame) -> pd.DataFrame:
    """Rows of claims; their part, where they have several, in ``named``."""
    part = found.get("part", "")
    named = (found["claim"] + " " + part).str.strip()
    return found.assign(named=named)[found["claim"].str.fullmatch(r"C\d+")]


def verdict_grid(found: pd.DataFrame) -> str:
    """Claims by studies, the verdict in each cell."""
    claims = _claims(found)
    studies = list(dict.fromkeys(zip(claims["dataset"], claims["preset"], strict=True)))
    rows = []
    for claim, own in claims.groupby("named", sort=True):
        said = {(row.dataset, row.preset): str(row.verdict) for row in own.itertuples()}
        cells = [f"**{escape(said[study])}**" if study in said else "" for study in studies]
        rows.append([f"**{claim}** {escape(own['statement'].iloc[0])}", *cells])
    head = [f"{escape(dataset_name(str(name)))}, {escape(preset)}" for name, preset in studies]
    return grid(["claim", *head], rows)


def verdict_page(found: pd.DataFrame) -> str:
    """Every verdict of every study, in full."""
    lines = ["# Verdict", "", "By the rule that was fixed before the runs (the protocol).", ""]
    lines += [verdict_grid(found), ""]
    for (dataset, preset), rows in found.groupby(["dataset", "preset"], sort=False):
        lines += [f"## {escape(dataset_name(str(dataset)))}, preset {escape(preset)}", ""]
        for row in rows.to_dict("records"):
            lines += [f"- **{escape(row['claim'])}: {escape(row['verdict'])}.** "
                      f"{escape(row['statement'])}."]  # fmt: skip
            said = [row.get("quote", ""), row.get("not_to_say", "")]
            said[1] = f"Not to be said: {said[1]}" if said[1] else ""
            lines += [f"\n  {escape(text)}" for text in said if text]
    return "\n".join(lines) + "\n"


def claims_page(parts: Sequence[Part], found: pd.DataFrame, figures: Path) -> str:
    """By claim: its verdicts, then the notebooks, tables and figures that bear on it."""
    lines = ["# Claims and where to look", ""]
    for claim, rows in _claims(found).groupby("claim", sort=True):
        lines += [f"## {claim}: {escape(rows['statement'].iloc[0])}", ""]
        lines += [f"- {escape(dataset_name(str(row.dataset)))}, preset {escape(row.preset)}, "
                  f"{escape(row.named)}: "
                  f"**{escape(row.verdict)}**" for row in rows.itertuples()]  # fmt: skip
        shown = [part for part in parts if part.dataset in set(rows["dataset"])]
        if claim == "C4":  # the first three on other data
            shown = [part for part in shown if dataset_of(part.dataset).elsewhere]
        lines += ["", _where(shown, str(claim), figures), ""]
    lines += ["## What else was asked", "", _where(parts, "", figures), ""]
    return "\n".join(lines)


def _where(parts: Sequence[Part], claim: str, figures: Path) -> str:
    """A row for each part and notebook that bears on a claim; without one: on none."""
    known, rows = contents(), []
    for part in parts:
        for name, entry in NOTEBOOKS.items():
            if claim not in (entry.claims or ("",)) and not (claim == "C4" and entry.claims):
                continue
            copies = [path for path in part.notebooks if path.stem.startswith(name)]
            made = [path for path in part.files if known.get(path.stem, ("", ""))[1] == name]
            if copies or made:
                rows.append([
                    escape(part.title),
                    link(copies[0], figures, entry.question) if copies else escape(entry.question),
                    ", ".join(link(path, figures) for path in made if path.suffix == ".csv"),
                    ", ".join(link(path, figures) for path in made if path.suffix == ".png"),
                ])  # fmt: skip
    return grid(["study", "notebook", "tables", "figures"], rows)


def front_page(facts: Facts, chapters: Sequence[Path]) -> str:
    """The README's first words, what was found, and the ten chapters."""
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    opening, _, found = readme.partition("\n## What was found")
    terms = found.partition(MARKS[0])[0]
    docs = {f"docs/book/{path.stem}": "" for path in chapters}
    listed = [f"- [{title_of(path)}](docs/book/{path.name})" for path in chapters]
    lines = [opening.strip(), "", "## What was found", "", terms.strip(), ""]
    lines += [facts.finding_grid("/"), ""]
    lines += [facts.figure("main/front", MAIN["front"]), ""]
    lines += ["What is simulated is called simulated.", ""]
    lines += ["## Read on", "", *listed, ""]
    lines += ["Everything behind it (executed notebooks, tables, figures, cards) is in "
              "[the archive](archive.md).", ""]  # fmt: skip
    lines += [toctree(docs, "The book"), "", toctree({"archive": "The archive"}, "Behind it"), ""]
    return "\n".join(lines)


def title_of(page: Path) -> str:
    """A page's first heading."""
    return page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def archive_page(parts: Sequence[Part], texts: Sequence[str]) -> str:
    """All that the book rests on, in sections that the side bar keeps closed."""
    cards = [doc for doc in texts if "/cards/" in doc]
    around = [f"docs/workshop/{name}" for name in AROUND]
    lines = ["# The archive", "", "What the book rests on, study by study.", ""]
    for heading, docs in (
        ("Claims", ["claims", "verdict"]),
        ("Studies", [part.doc for part in parts]),
        ("Workshop", [around[0], "workshop/exercises", *around[1:]]),
        ("About the project", [doc for doc in texts if doc not in cards]),
        ("Cards of models and data", cards),
    ):
        titles = {doc: "README" if doc == "README" else "" for doc in docs}
        lines += [f"## {heading}", "", toctree(titles), ""]
    return "\n".join(lines)


def fill(path: Path, facts: Facts) -> str:
    """A chapter with its numbers, from the tables.

    Raises
    ------
    InputError
        A chapter that asks for something that there is not.
    """
    jinja = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        text = jinja.from_string(path.read_text(encoding="utf-8")).render(**options(facts))
    except (TemplateError, TypeError) as error:
        raise InputError(f"{path.name}: {error}") from error
    for source, page in EXERCISES.items():
        text = text.replace(source, page)
    return text


def exercises_page(folder: Path) -> str:
    """The workshop's notebooks: as learners get them, and with solutions."""
    lines = ["# Exercises", "", "Without outputs: predict, then run them yourself.", ""]
    for kind, title in (("student", "As you get them"), ("instructor", "With solutions")):
        names = sorted(path.stem for path in (folder / kind).glob("*.ipynb"))
        lines += [f"## {title}", "", toctree({f"workshop/{kind}/{name}": "" for name in names}), ""]
    handed = f"workshop/{HANDOUT.removesuffix('.md')}"
    return "\n".join([*lines, "## On paper", "", toctree({handed: "The learner's handout"}), ""])


# -- the site ------------------------------------------------------------------------------------


def write_sources(figures: Path, target: Path) -> list[Part]:
    """Write the tree that Sphinx reads: copies of the project's files, and the written pages.

    Raises
    ------
    InputError
        Nothing to read below ``figures``.
    """
    parts = read_parts(figures)
    if not parts:
        raise InputError(f"{figures}: no table, figure or executed notebook with a stamp below it")
    found = verdicts(parts)
    cards = sorted(PROJECT_ROOT.glob("data/cards/*.md"))
    texts = [
        "README",
        "docs/guide",
        "CONTRIBUTING",
        "CHANGELOG",
        "data/real/README",
    ]
    texts += [f"data/cards/{card.stem}" for card in cards]
    texts += [f"figures/{card.relative_to(figures).with_suffix('').as_posix()}"
              for card in sorted(figures.glob("*/*/cards/*.md"))]  # fmt: skip
    with atomic_folder(target) as root:
        for name, origin in {"figures": figures, **{x: PROJECT_ROOT / x for x in COPIED}}.items():
            if origin.is_dir():
                shutil.copytree(origin, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(origin, root / name)
        copies = [*root.glob("figures/**/executed/*.ipynb"), *root.glob("figures/*/*/cards/*.md")]
        copies += [root / f"{doc}.md" for doc in texts if "/cards/" not in doc]
        for path in copies:
            path.write_text(without_dead_links(path), encoding="utf-8")
        workshop = build_workshop(root / "workshop")
        facts, chapters = Facts(figures), chapters_of(root)
        pages = {
            "workshop/exercises": exercises_page(workshop),
            "index": front_page(facts, chapters),
            "archive": archive_page(parts, texts),
            **{f"docs/book/{path.stem}": fill(path, facts) for path in chapters},
            "claims": claims_page(parts, found, figures),
            "verdict": verdict_page(found),
            **{part.doc: part_page(part, figures) for part in parts},
        }
        for doc, text in pages.items():
            path = root / f"{doc}.md"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for page in (root / "index.md", *chapters):  # the first begins as the README does
            page.write_text(without_dead_links(page, root), encoding="utf-8")
    return parts


def chapters_of(root: Path) -> list[Path]:
    """The book's chapters below a project's folder, in their order."""
    return sorted(root.glob("docs/book/*.md"), key=lambda path: int(path.stem.split("_")[0]))


def without_dead_links(page: Path, root: Path = Path("/")) -> str:
    """A page's text in which a link to what has no page is plain words; ``/`` begins at the "
    "root."""

    def new(match: re.Match[str]) -> str:
        target = match[2].partition("#")[0]
        place = root / target.lstrip("/") if target.startswith("/") else page.parent / target
        source = place.parent.name == "notebooks"  # has no page: its executed copies have
        gone = not re.match(r"[a-z]+:|$", target) and (source or not place.exists())
        return match[1] if gone else match[0]

    def shown(match: re.Match[str]) -> str:  # of a table that an executed notebook shows
        return match[0] if (page.parent / match[1]).exists() else match[2]

    return SHOWN.sub(shown, LINK.sub(new, page.read_text(encoding="utf-8")))


def run_sphinx(output: Path, builder: str = "html") -> list[str]:
    """Run Sphinx on ``output/source``; its warnings, which are problems here."""
    try:
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace
    except ImportError as error:
        raise InputError(f"{error.name} isn't installed: pip install -e '.[dev]'") from error
    said, source = io.StringIO(), output / "source"
    with docutils_namespace():
        app = Sphinx(source, PROJECT_ROOT / "docs", output / builder, output / "doctrees", builder,
                     status=None, warning=said, freshenv=True)  # fmt: skip
        app.build()
    plain = re.sub(r"\x1b\[[\d;]*m", "", said.getvalue()).replace(f"{source}/", "")
    return [line for line in plain.splitlines() if line.strip()]


def faults(parts: Sequence[Part]) -> Iterator[str]:
    """Cells that raised an error, and places of this machine, in what the book shows."""
    for path in (path for part in parts for path in part.notebooks):
        text = path.read_text(encoding="utf-8")
        if ERROR in text:
            yield f"{path.name}: {text.count(ERROR)} cells raised an error"
        local = LOCAL_PATH.search(text)
        if local or str(PROJECT_ROOT) in text:
            yield f"{path.name}: holds a path of this machine: {local[0] if local else ''}"


def dead_links(site: Path) -> list[str]:
    """Links of built pages to files that the site lacks, a line each; Sphinx sees no raw HTML."""
    found = []
    pages = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.parts]
    for page in pages:
        targets = dict.fromkeys(HREF.findall(page.read_text(encoding="utf-8")))
        gone = [name for name in targets if not (page.parent / unquote(unescape(name))).exists()]
        found += [f"{page.relative_to(site)}: {name} is not there" for name in gone]
    return found


def make_book(figures: Path, output: Path, external: bool = False) -> tuple[Path, list[str]]:
    """Build the site from what lies below a figures folder.

    Parameters
    ----------
    figures : Path
        Tables, figures and executed notebooks, as ``fairdiff run`` leaves them.
    output : Path
        Gets ``source``, ``doctrees`` and ``html``.
    external : bool
        Also look up links to other sites, which needs the network.

    Returns
    -------
    tuple
        The front page; problems, a line each.
    """
    figures = figures.resolve()
    refuse_other(output, "source", "doctrees", "html", "linkcheck", "jupyter_execute")
    parts = write_sources(figures, output / "source")
    shutil.rmtree(output / "html", ignore_errors=True)  # or pages that are gone would stay
    problems = run_sphinx(output)
    for table in figures.rglob("*.csv"):  # what an executed notebook shows links to it
        copy = output / "html" / "figures" / table.relative_to(figures)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table, copy)
    problems += dead_links(output / "html")
    if external:
        problems += run_sphinx(output, "linkcheck")
    return output / "html" / "index.html", [*problems, *faults(parts)]


def main() -> int:
    """Exit code: 0 built, 1 with problems, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures-root", default="figures", metavar="DIR")
    parser.add_argument(
        "--output", default="build/book", metavar="DIR", help="its html/ is the site"
    )
    parser.add_argument("--external", action="store_true", help="look up links to other sites")
    chosen = parser.parse_args()
    try:
        figures, output = PROJECT_ROOT / chosen.figures_root, PROJECT_ROOT / chosen.output
        page, problems = make_book(figures, output.resolve(), chosen.external)
    except InputError as error:
        print(f"book: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"book: {problem}", file=sys.stderr)
    print(f"{len(problems)} problems; {page}" if problems else f"book: {page}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
