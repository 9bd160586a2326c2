"""A built site, looked through: dead links, errors, local paths, things from the network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fairdiff_lib.disk.places import PROJECT_ROOT

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
ASIDE = ("_static", "_downloads")  # the theme's own templates; files as they were
LOCAL_PATH = re.compile(r"file://|(?<![\w./~-])/(?:home|root|Users|tmp|opt|mnt|var|private)/\w+")


@dataclass
class Page(HTMLParser):
    """What matters of one page.

    Attributes
    ----------
    links : list of str
        Targets of anchors and of what the browser loads.
    loaded : list of str
        Of what it loads by itself: scripts, styles, pictures.
    ids : set of str
        Places within the page that can be linked.
    errors : int
        Cells that show a traceback.
    """

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    errors: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's targets, name and class."""
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        target = given.get(LOADED.get(tag, ""), "")
        if target and given.get("rel") not in ("canonical", "next", "prev", "author"):
            self.loaded.append(target)
        if "traceback" in given.get("class", "").split():
            self.errors += 1


def check_site(root: Path) -> list[str]:
    """Problems of a built site, a line each; empty for a sound one.

    Parameters
    ----------
    root : Path
        Folder with index.html.

    Returns
    -------
    list of str
        Links that lead nowhere, cells that raised, paths of this machine, and what the browser
        would fetch from the network.
    """
    paths = [path for path in sorted(root.rglob("*.html"))
             if path.relative_to(root).parts[0] not in ASIDE]  # fmt: skip
    pages = {path: _read(path) for path in paths}
    if root / "index.html" not in pages:
        return ["index.html: missing"]
    found = []
    for path, page in pages.items():
        name = path.relative_to(root).as_posix()
        found += [f"{name}: {problem}" for problem in _problems(path, page, pages)]
    return found


def _read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _problems(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for target in page.loaded:
        if urlsplit(target).netloc:
            yield f"fetches {target}"
    for target in dict.fromkeys([*page.links, *page.loaded]):
        if _leads_nowhere(path, target, page, pages):
            yield f"a link leads nowhere: {target}"
    if page.errors:
        yield f"{page.errors} cells raised an error"
    text = path.read_text(encoding="utf-8")
    local = LOCAL_PATH.search(text.replace(str(PROJECT_ROOT), "/home/project"))
    if local:
        yield f"holds a path of this machine: {text[local.start() : local.end() + 20]!r}"


def _leads_nowhere(path: Path, target: str, page: Page, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or target == "#":
        return False
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if file.is_dir():
        file /= "index.html"
    if not file.is_file():
        return True
    there = pages.get(file, page if file == path else None)
    return bool(parts.fragment and there and unquote(parts.fragment) not in there.ids)
