"""Does the audit say the same on another machine? The same images, other threads and instructions.

Each audit runs in a process of its own, since threads and instruction sets are fixed when torch is
loaded: ATen's by ``ATEN_CPU_CAPABILITY``, those of oneDNN's convolutions by its own name for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import read_json, refuse_other, write_json
from fairdiff_lib.disk.stamps import make_provenance, publish_table
from fairdiff_lib.settings.errors import InputError

THREADS = (1, 2)
INSTRUCTIONS = {"native": "", "avx2": "AVX2", "default": "SSE41"}  # ATen's name, oneDNN's
MOST = 0.02  # standard errors that a number may move by
NAMES = ["features", "metric", "attribute", "level"]
WORDS = {"instructions": "instruction set", "threads": "threads",
         "moved": "largest move, of its standard error", "number": "of"}  # fmt: skip


def check_machine(place: Path) -> list[str]:
    """Audit simulated images in every way and compare; problems, a line each. Prints a table.

    ``place`` keeps the images, what each audit found, and the table with its stamp as
    ``machine.csv``; it may hold an earlier check alone.
    """
    from fairdiff_lib.sim.shapes import write_example

    refuse_other(place, "images", "found", "machine.csv", "machine.json")
    sides = write_example(place / "images")
    found = {}
    ways = list(product(THREADS, INSTRUCTIONS))
    for way in tqdm(ways, desc="audits of the same images", disable=None):
        out = place / "found" / f"{way[1]}-{way[0]}.json"
        out.unlink(missing_ok=True)
        found[way] = _audited(*sides, out, *way)
    table = moved(found)
    given = {"ways": [f"{kind}, {threads}" for threads, kind in ways], "most": MOST}
    stamp = {"parameters": given, "simulated": True, **make_provenance()}
    publish_table(table, place / "machine.csv", stamp)
    print(f"{table['numbers'].iloc[0]} KIDs and contrasts, against the first row's audit:")
    shown = table.assign(moved=[f"{100 * x:.2g}%" for x in table["moved"]]).rename(columns=WORDS)
    print(shown[list(WORDS.values())].to_string(index=False))
    return [
        f"{row['instructions']} instructions, {row['threads']} threads: {row['number']} moves by "
        f"{row['moved']:.1%} of its standard error; expected at most {MOST:.0%}"
        for row in table.to_dict("records")
        if not row["moved"] <= MOST
    ]


def moved(found: dict[tuple[int, str], pd.DataFrame]) -> pd.DataFrame:
    """Largest change of any number against the first way, in standard errors.

    Returns threads, instructions, numbers (compared), moved, number (which moved most).
    """
    first, base = next(iter(found.items()))
    rows = []
    for (threads, instructions), own in found.items():
        both = base.merge(own, on=NAMES, suffixes=("", "_own"), how="outer")
        one, other, error = (both[c].to_numpy(np.float64) for c in ("value", "value_own", "error"))
        away = np.abs(other - one) / error
        away[np.isnan(away)] = np.inf  # a number that one of them lacks
        most = both.iloc[int(away.argmax())]
        name = "{metric}, {attribute} {level}, in {features}".format(**most)
        known = (threads, instructions) == first
        rows.append((threads, instructions, len(both), float(away.max()), "" if known else name))
    return pd.DataFrame(rows, columns=["threads", "instructions", "numbers", "moved", "number"])


def _audited(real: Path, made: Path, out: Path, threads: int, instructions: str) -> pd.DataFrame:
    """Every KID and contrast by an audit in a process of its own."""
    own = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        own[name] = str(threads)
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        own.pop(name, None)
    if INSTRUCTIONS[instructions]:
        own |= {"ATEN_CPU_CAPABILITY": instructions}
        own |= {"ONEDNN_MAX_CPU_ISA": INSTRUCTIONS[instructions]}
    command = [sys.executable, "-m", "fairdiff_lib.run.machine", *map(str, (real, made, out))]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"audit with {threads} threads, {instructions} instructions: {said}")
    return pd.DataFrame(read_json(out))


def _numbers(real: Path, made: Path) -> Iterator[dict[str, Any]]:
    """KIDs and their differences between levels, in both feature spaces, with standard errors."""
    from fairdiff_lib.audit.contrasts import pairs_with_largest
    from fairdiff_lib.audit.estimate import difference, group_units
    from fairdiff_lib.data.own import read_own
    from fairdiff_lib.sim.shapes import LEVELS
    from fairdiff_lib.studies.own import DEFAULT_FEATURES, measure
    from fairdiff_lib.studies.quality import audit_images

    images = read_own(real, made, [name for name in LEVELS if name != "shape"])
    first = measure(images, DEFAULT_FEATURES, "", 0)
    groups, other = (
        group_units(own.table, images.levels, images.unit)
        for own in (images.real, images.generated)
    )
    for space in (first, first.second):
        assert space is not None
        (one,) = audit_images(space.real, space.generated, groups, space.kernel, images.attributes,
                              made=other, features=space.name)  # fmt: skip
        pairs = pairs_with_largest(one.estimates, one.attributes)
        named = [("kid", key, estimate) for key, estimate in one.estimates.items()]
        named += [("difference in KID", key, difference(one.estimates[key], one.estimates[largest]))
                  for key, largest in pairs]  # fmt: skip
        for metric, (attribute, level), estimate in named:
            yield {"features": space.name, "metric": metric, "attribute": attribute, "level": level,
                   "value": estimate.value, "error": estimate.standard_error}  # fmt: skip


if __name__ == "__main__":
    write_json(Path(sys.argv[3]), list(_numbers(Path(sys.argv[1]), Path(sys.argv[2]))))
