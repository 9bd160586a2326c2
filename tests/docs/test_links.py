"""Every link in the project's own texts leads to a file that is there."""

from __future__ import annotations

import re

import pytest

from docs.build import LINK
from fairdiff_lib.disk.places import PROJECT_ROOT

TEXTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/real/README.md"),
    *(
        f"docs/workshop/{path.name}"
        for path in sorted((PROJECT_ROOT / "docs" / "workshop").glob("*.md"))
    ),
    *(f"docs/book/{path.name}" for path in sorted((PROJECT_ROOT / "docs" / "book").glob("*.md"))),
    *(f"data/cards/{path.name}" for path in sorted((PROJECT_ROOT / "data" / "cards").glob("*.md"))),
)


def dead(text: str, base: str) -> list[str]:
    """Targets of links that aren't files below the project, where one with a slash begins."""
    targets = [target.partition("#")[0] for _, target in LINK.findall(text)
               if not re.match("[a-z]+:|#", target)]  # fmt: skip
    folders = {x: PROJECT_ROOT / ("" if x.startswith("/") else base) for x in targets}
    return [x for x, folder in folders.items() if not (folder / x.lstrip("/")).exists()]


@pytest.mark.parametrize("name", TEXTS)
def test_no_link_is_dead(name: str) -> None:
    path = PROJECT_ROOT / name
    assert dead(path.read_text(encoding="utf-8"), str(path.parent.relative_to(PROJECT_ROOT))) == []


def test_a_dead_link_is_seen() -> None:
    assert dead("[a](README.md), [b](no/such.md#x), [c](https://example.org), [d](#e)", "") == [
        "no/such.md"
    ]
    assert dead("[a](/docs/guide.md), [b](/no.md), [c](../guide.md)", "docs/book") == ["/no.md"]
