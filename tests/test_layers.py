"""The import order that the design stands on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fairdiff_lib
from fairdiff_lib import LAYERS

PACKAGE = Path(fairdiff_lib.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imports(source: str) -> tuple[set[str], set[str]]:
    """Modules of ours, and top-level names of others', that a source imports anywhere in it."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "fairdiff_lib":
            names = [f"fairdiff_lib.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "fairdiff_lib.relative"]
        else:
            continue
        for name in names:
            head, _, rest = name.partition(".")
            if head == "fairdiff_lib" and rest:
                ours.add(rest.split(".")[0])
            else:
                others.add(head)
    return ours, others


def source(module: str) -> str:
    return (PACKAGE / f"{module}.py").read_text(encoding="utf-8")


def test_the_parser_sees_every_form_of_import() -> None:
    text = """
import fairdiff_lib.store
from fairdiff_lib import config as c, cohorts
def late():
    from fairdiff_lib.training import fit
    import papermill
"""
    ours, others = imports(text)
    assert ours == {"store", "config", "cohorts", "training"}
    assert others == {"papermill"}


def test_every_module_has_its_layer() -> None:
    assert sorted(LAYERS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_above_it(module: str) -> None:
    above = set(LAYERS[: LAYERS.index(module)]) if module in LAYERS else set()
    below = imports(source(module))[0] - above
    assert not below, f"{module} imports {', '.join(sorted(below))} from below or beside it"


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("papermill", {"notebook"}),
        ("accelerate", {"loop"}),
        ("argparse", {"study"}),
    ],
)
def test_a_package_with_one_room_stays_in_it(package: str, allowed: set[str]) -> None:
    users = {module for module in MODULES if package in imports(source(module))[1]}
    assert users == allowed
