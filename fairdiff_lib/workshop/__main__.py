"""``python -m fairdiff_lib.workshop``, and ``fairdiff workshop``: build, check, data."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from fairdiff_lib.settings.errors import InputError

NEEDED = ("numpy", "pandas", "scipy", "matplotlib", "PIL", "statsmodels", "ipywidgets",
          "jupyterlab", "ipykernel")  # fmt: skip


def add_actions(parser: argparse.ArgumentParser) -> None:
    """The workshop's own actions, each with its function as ``action``."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="student and instructor notebooks, and the handout")
    build.add_argument("folder", metavar="DIR", help="new, or an earlier build's")
    build.add_argument("--force", action="store_true", help="also where answers would be lost")
    build.set_defaults(action=_build)
    check = actions.add_parser("check", help="is this machine ready? some seconds")
    check.set_defaults(action=_check)
    data = actions.add_parser("data", help="make the committed data and pictures again")
    data.add_argument("parts", nargs="*", metavar="PART", help="as power; all without")
    data.add_argument("--runs-root", default="data/runs", metavar="DIR", help="models and images")
    data.set_defaults(action=_data)


def _build(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.workshop.build import build

    folder = build(chosen.folder, chosen.force)
    print(f"workshop: {folder}; begin with {folder / 'student' / '0_look.ipynb'}")
    return 0


def _check(chosen: argparse.Namespace) -> int:
    from importlib import metadata, util

    started = time.monotonic()
    print(f"Python {sys.version.split()[0]}")
    missing = [name for name in NEEDED if util.find_spec(name) is None]
    if missing:
        raise InputError(f"not installed: {', '.join(missing)}; `make workshop` installs them")
    print(", ".join(f"{x} {metadata.version(x)}" for x in ("numpy", "pandas", "jupyterlab")))
    from fairdiff_lib.studies.proof.audits import OurAudit
    from fairdiff_lib.workshop import lab
    from fairdiff_lib.workshop.data import looks, power, predictions, strata

    rows = sum(len(read()) for read in (power, predictions, strata)) + len(looks()[1])
    print(f"data: {rows} rows")
    scene, judge = lab.worse_group(132, 1.5), OurAudit(lab.world().kernel)
    if not lab.audits(scene, judge, 1).all():
        raise InputError("the first audit does not find what is planted; expected an alarm")
    print(f"one audit: as expected. Ready, in {time.monotonic() - started:.0f} s.")
    return 0


def _data(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.workshop.data import PARTS, make

    for part in chosen.parts or PARTS:
        for path in make(part, chosen.runs_root):
            print(path.name, f"{path.stat().st_size / 1000:.0f} kB")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m fairdiff_lib.workshop", description=__doc__)
    add_actions(parser)
    try:
        chosen = parser.parse_args(arguments)
        action: Callable[[argparse.Namespace], int] = chosen.action
        return action(chosen)
    except InputError as error:
        print(f"workshop: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
