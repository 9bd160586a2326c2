"""Does the study say the same when it is run again? And are the committed tables what they say?

The smoke preset runs twice, each time from nothing, in folders of its own. nbval then compares
every text output of the two runs' notebooks: it is given the first run's copies, in which each cell
says again what the second run's cell said, so nothing has to run a third time. Tables are compared
as text. What is measured by the clock is left out, and counted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from fairdiff_lib.disk.files import atomic_file, read_json, read_table, refuse_other, write_json
from fairdiff_lib.run.graph import GraphRun, run_graph
from fairdiff_lib.run.trace import broken, count, stamp_links
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import head_of

TIMED = re.compile("seconds|optimiser_share|measure_share|memory")  # names of what a clock gave
SHOWN = {head_of(name) for name in ("seconds", "seconds_per_step", "optimiser_share",
                                    "measure_share", "peak_memory_gib")}  # fmt: skip
IGNORED = "nbval-ignore-output"  # nbval's tag for a cell that runs without being compared
SANITISED = (  # pattern, what stands in its place before outputs are compared
    (r"T_[0-9a-f]{8}", "T_table"),  # a table's name holds a hash of all its numbers
    (r"(<td[^>]*>\w*(?:seconds|_share|memory)\w*</td>\s*<td[^>]*>)[^<]*", r"\1measured"),
    (r"('\w*(?:seconds|_share|memory)\w*': )[-+.\de]+", r"\1measured"),
    (r"[\d.]+% of the training time", "a part of the training time"),
    (r"('(?:commit|dirty)': )'?\w+'?", r"\1code"),
)


def check_stamps(figures: Path) -> list[str]:
    """Problems of the tables and figures below a folder: edited ones, commits that don't exist."""
    links = stamp_links(figures)
    if not links:
        raise InputError(f"{figures}: no table or figure below it")
    print(f"stamps below {figures.name}/: {count(links)}")
    return [f"{link.name}: {link.detail}" for link in broken(links)]


def check_twice(place: Path, cores: int) -> list[str]:
    """Run the smoke study twice and compare; problems, a line each.

    ``place`` is emptied first; it keeps both runs and the notebooks that were compared.
    """
    if find_spec("nbval") is None:
        raise InputError("nbval isn't installed: pip install -e '.[dev]'")
    refuse_other(place, "first", "second", "compared")
    shutil.rmtree(place, ignore_errors=True)
    runs = []
    for name in ("first", "second"):
        roots = {"runs_root": f"{place / name}/runs", "figures_root": f"{place / name}/figures"}
        runs.append(GraphRun("smoke", **roots))
        print(f"\n{name} of two runs")
        if run_graph(runs[-1], cores):
            return [f"the {name} run failed"]
    first, second = (place / name / "figures" for name in ("first", "second"))
    one, other = (run.study(run.datasets[0]).places.executed for run in runs)
    left_out, said = prepare(one, other, place / "compared")
    said += compare_notebooks(place / "compared")
    differing = differing_tables(first, second)
    print(f"{left_out} cells of timings were not compared")
    return [*said, *(f"{name}: differs between the two runs" for name in differing)]


# -- notebooks -------------------------------------------------------------------------------


def prepare(first: Path, second: Path, target: Path) -> tuple[int, list[str]]:
    """Write the first run's notebooks so that running a cell gives the second run's outputs.

    Gives how many cells have a table with a column of timings, and are not compared; and problems,
    a line for each notebook that only one run has or whose cells differ.
    """
    left_out, problems = 0, []
    for name in sorted(
        {path.name for folder in (first, second) for path in folder.glob("*.ipynb")}
    ):
        copies = [folder / name for folder in (first, second)]
        if not all(copy.is_file() for copy in copies):
            problems.append(f"{name}: only one of the two runs has it")
            continue
        notebook, other = (read_json(copy) for copy in copies)
        cells = [cells_of(copy, own) for copy, own in zip(copies, (notebook, other), strict=True)]
        if text_of(cells[0]) != text_of(cells[1]):
            problems.append(f"{name}: the two runs have different cells")
            continue
        left_out += sum(_reuse(*pair) for pair in zip(*cells, strict=True))
        write_json(target / name, notebook)
    return left_out, problems


def cells_of(path: Path, notebook: Any) -> list[dict[str, Any]]:
    """Cells of a notebook that was read as JSON; InputError where it has none."""
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise InputError(f"{path}: no notebook of version 4 (no cells)")
    return cells


def text_of(cells: list[dict[str, Any]]) -> list[str]:
    """Kind and source of each cell that a source notebook has too."""
    own = [cell for cell in cells
           if "injected-parameters" not in cell.get("metadata", {}).get("tags", [])]  # fmt: skip
    return [f"{cell['cell_type']}\n{joined(cell['source'])}" for cell in own]


def joined(text: str | list[str]) -> str:
    """A cell's or an output's text; the format allows a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def _reuse(cell: dict[str, Any], other: dict[str, Any]) -> bool:
    """Let a cell say what another said; whether it is left out for its timings."""
    if cell["cell_type"] != "code":
        return False
    cell["source"] = replay(other["outputs"])
    timed = any(map(_is_timed, cell["outputs"]))
    if timed:
        cell["metadata"].setdefault("tags", []).append(IGNORED)
    return timed


def replay(outputs: list[dict[str, Any]]) -> str:
    """Code that gives stored outputs once more; nbval compares no pictures, so these are left out.

    The kernel that runs it needs nothing but IPython.
    """
    lines = []
    for output in outputs:
        if output["output_type"] == "stream":
            text = joined(output["text"])
            lines.append(f"import sys; print({text!r}, end='', file=sys.{output['name']})")
        elif output["output_type"] == "error":
            lines.append(f"raise RuntimeError({output['evalue']!r})")
        else:
            data = {kind: joined(value) for kind, value in output["data"].items()
                    if kind.startswith("text/")}  # fmt: skip
            lines.append(f"display({data!r}, raw=True)")
    return "\n".join(lines)


def _is_timed(output: dict[str, Any]) -> bool:
    page = joined(output.get("data", {}).get("text/html", ""))
    heads = re.findall(r'<th class="col_heading[^>]*>([^<]*)</th>', page)
    return any(TIMED.search(head) or head in SHOWN for head in heads)


def compare_notebooks(folder: Path) -> list[str]:
    """Have nbval run every notebook of a folder; cells that say something else than is stored.

    Prints nbval's last line. ``folder/nbval.txt`` gets all that it says.
    """
    rules = folder / "sanitise.cfg"
    with atomic_file(rules) as temporary:
        lines = [f"regex: {pattern}\nreplace: {new}" for pattern, new in SANITISED]
        temporary.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    with atomic_file(folder / "pytest.ini") as temporary:  # ours makes every warning an error
        temporary.write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-sanitize-with", str(rules)]
    command += ["-c", str(folder / "pytest.ini"), "-p", "no:cacheprovider", "-q", "--color=no"]
    command += ["-rfE", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    with atomic_file(folder / "nbval.txt") as temporary:
        temporary.write_text(done.stdout + done.stderr, encoding="utf-8")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    print(f"nbval: {lines[-1] if lines else 'said nothing'}")
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    if done.returncode and not failed:
        return [f"nbval failed: {(done.stdout + done.stderr).strip()[-300:]}"]
    return [f"{line.split(' - ')[0]}: {folder / 'nbval.txt'} says what" for line in failed]


# -- tables ----------------------------------------------------------------------------------


def differing_tables(first: Path, second: Path) -> list[str]:
    """Tables that two runs don't have alike, but for columns of timings; prints how many are."""
    names = sorted({path.relative_to(root).as_posix() for root in (first, second)
                    for path in root.rglob("*.csv")})  # fmt: skip
    other = [name for name in names if not _alike(first / name, second / name)]
    print(f"tables: {len(names) - len(other)} of {len(names)} alike")
    return other


def _alike(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()):
        return False
    return list(_untimed(one)) == list(_untimed(other))


def _untimed(path: Path) -> Iterator[str]:
    """A table's columns as text, without those of timings."""
    table: pd.DataFrame = read_table(path, dtype=str, keep_default_na=False)
    for name in table.columns:
        if not TIMED.search(name):
            yield table[name].to_csv(index=False)
