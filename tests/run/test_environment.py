"""pyproject.toml, constraints.txt and environment.yml describe one environment."""

from __future__ import annotations

import platform
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"pytorch": "torch"}  # conda's name -> PyPI's
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def requirements() -> dict[str, Requirement]:
    lines = [*project()["dependencies"], *project()["optional-dependencies"]["dev"]]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def lock_lines() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def lock_for(python: str) -> dict[str, str]:
    """Name to version of the lock, on Linux with this Python."""
    place = {**default_environment(), **LINUX, "python_version": python}
    place["python_full_version"] = f"{python}.9"
    found: dict[str, str] = {}
    for line in lock_lines():
        if line.marker is None or line.marker.evaluate(place):  # type: ignore[arg-type]
            name = canonicalize_name(line.name)
            assert name not in found, f"{name} is pinned twice for Python {python}"
            (pin,) = line.specifier
            assert pin.operator == "=="
            found[name] = pin.version
    return found


def conda_environment() -> tuple[dict[str, str], dict[str, str]]:
    """Name to version of environment.yml: from conda, and from pip."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    plain = [entry.split("=") for entry in listed if isinstance(entry, str) and entry != "pip"]
    conda = {CONDA_NAMES.get(name, canonicalize_name(name)): version for name, version in plain}
    pinned = [Requirement(entry) for entry in pip if not entry.startswith("-e")]
    return conda, {canonicalize_name(r.name): str(r.specifier).lstrip("=") for r in pinned}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_pins_every_dependency(python: str) -> None:
    lock = lock_for(python)
    for name, wanted in requirements().items():
        assert name in lock, f"{name} is missing from constraints.txt; run make lock"
        assert wanted.specifier.contains(lock[name])


def test_the_lock_leaves_the_accelerator_to_torch() -> None:
    names = {canonicalize_name(line.name) for line in lock_lines()}
    assert not [name for name in names if re.match(r"nvidia-|triton|cuda-", name)]
    assert "torchvision" not in names
    assert lock_for("3.11")["torch"] == "2.13.0"


def test_the_lock_names_no_host() -> None:
    for name in ("constraints.txt", "pyproject.toml", "environment.yml", "Makefile"):
        text = (ROOT / name).read_text()
        assert "://" not in text and "--index" not in text, name


def test_conda_environment_is_in_step_with_the_lock() -> None:
    conda, pip = conda_environment()
    assert conda.pop("python") == "3.11"
    assert not set(conda) & set(pip)
    lock = lock_for("3.11")
    assert conda | pip == {name: lock[name] for name in requirements()}


def test_this_environment_is_the_locked_one() -> None:
    lock = lock_for(".".join(platform.python_version_tuple()[:2]))
    for name in requirements():
        assert Version(metadata.version(name)).public == lock[name], name


def test_python_floor_is_the_same_everywhere() -> None:
    assert project()["requires-python"] == ">=3.11"
    assert "(3, 11)" in (ROOT / "Makefile").read_text()


def test_an_old_python_is_refused_with_one_line(tmp_path: Path) -> None:
    """A fake interpreter that is too old never gets as far as an environment."""
    old = tmp_path / "python3"
    line = "Python 3.11 or newer is needed"
    old.write_text(f"#!/bin/sh\necho '{line}' >&2\nexit 1\n")
    old.chmod(0o755)
    place = tmp_path / "venv"
    command = ["make", "study", f"PYTHON={old}", f"VENV={place}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert line in done.stderr
    assert not place.exists()
