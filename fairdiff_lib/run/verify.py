"""Are tables what they say, down to the data's hash? Does the study say the same run again?

A stamp names, by their hashes, the files that it rests on, and theirs in turn name theirs
(``disk.stamps.check``). Beside that chain stand git, the protocol, the pictures that a manifest
lists, and the data. What cannot be checked is called unverifiable; it is not called right.

To compare two runs, the smoke preset runs twice, each time from nothing, in folders of its own.
nbval then compares every text output of the two runs' notebooks: it is given the first run's
copies, in which each cell says again what the second run's cell said, so nothing has to run a third
time. Tables are compared as text. What is measured by the clock is left out, and counted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import (
    atomic_file,
    hash_file,
    read_json,
    read_table,
    refuse_other,
    write_json,
)
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.stamps import (
    BROKEN,
    OK,
    UNVERIFIABLE,
    Link,
    check,
    git,
    make_provenance,
    parts_of,
    publish_table,
)
from fairdiff_lib.run.graph import GraphRun, run_graph
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.names import head_of
from fairdiff_lib.studies.verdict.protocol import content_hash
from fairdiff_lib.study import folder_mark

STAMPED = (".csv", ".png", ".html")  # kinds that a stamp stands beside
NAMES_NOTHING = (
    "the stamp is of a version that noted no file that a result rests on: the file itself and its "
    "commit can be checked, the runs behind it can't; run the study again for a whole chain"
)


def trace(path: Path | str, runs_root: str = "data/runs", data_root: str = "") -> list[Link]:
    """The chain from the data to a table, figure or card, each link checked.

    What is not below the run's roots makes links unverifiable, not broken.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"{path}: missing; expected a table or figure")
    if not path.with_suffix(".json").is_file():
        return [Link(path.name, BROKEN, f"no stamp beside it; expected {path.stem}.json")]
    stamp = read_json(path.with_suffix(".json"))
    links: list[Link] = []
    roots = {"runs": PROJECT_ROOT / runs_root}
    for part in parts_of(stamp):
        given = part.get("parameters", {})
        figures = _figures_of(path, given)
        real = data_root or f"data/real/{given.get('dataset', '')}"
        roots |= {"figures": figures, "data": PROJECT_ROOT / real}
        links += _data(part, roots)
        study = figures / str(given.get("preset")) / str(given.get("dataset"))
        own = [up for up in path.parents if study in up.parents]  # a part may have its own
        links += _protocol(next((x for x in own if (x / "protocol.json").is_file()), study), part)
    chain = check(path, roots)
    for link in chain:
        links += [link, *_beside(link, roots)]
    if not any(part.get("rests_on") for part in (stamp, *parts_of(stamp))):
        links.append(Link("chain", UNVERIFIABLE, NAMES_NOTHING))
    if path.name not in stamp.get("files", {}):
        links.append(Link(path.name, BROKEN, "its stamp does not name it"))
    return [*links, *(commit_link("stamp", part) for part in parts_of(stamp))]


def _figures_of(path: Path, given: Mapping[str, Any]) -> Path:
    """The figures folder that a file of a study lies in, however deep."""
    homes = (str(given.get("preset")), "calibration", "main")
    return next((up.parent for up in path.parents if up.name in homes), path.parent)


def _data(stamp: Mapping[str, Any], roots: Mapping[str, Path]) -> Iterator[Link]:
    """Whether the cohorts that are here are of the stamp's data, and these untouched since."""
    if "data_hash" not in stamp:
        yield Link("made by", OK, f"a command, not a notebook, with {stamp.get('parameters')}")
        return
    wanted, kind = str(stamp["data_hash"]), "simulated" if stamp["simulated"] else "real"
    yield Link("data", OK, f"{wanted[:16]} ({kind})")
    for name in stamp.get("rests_on", {}):
        root, _, rest = name.partition("/")
        notes = (roots[root] / rest).with_name("cohort.json") if root in roots else Path()
        if not name.endswith("/cohort.csv") or not notes.is_file():
            continue
        found = read_json(notes)
        made = sorted(notes.parents[1].glob("data-*")) if stamp["simulated"] else [roots["data"]]
        if found["data_hash"] != wanted:
            yield Link(name, BROKEN, f"the cohort is of data {str(found['data_hash'])[:16]}")
        elif any(folder_mark(folder) == found.get("mark") for folder in made if folder.is_dir()):
            yield Link(name, OK, "no file of the data was touched since they were hashed")
        else:
            yield Link(name, UNVERIFIABLE, "the data's files are gone or were touched since")


def _protocol(study: Path, stamp: Mapping[str, Any]) -> Iterator[Link]:
    """Whether what was declared before is what its hash says, for the same data."""
    path = study / "protocol.json"
    if not path.is_file() or "data_hash" not in stamp:
        return
    found = read_json(path)
    problems = []
    if content_hash(found["protocol"]) != found["sha256"]:
        problems.append("its content doesn't have the hash that it states")
    if found["data_hash"] != stamp["data_hash"]:
        problems.append(f"written for data {found['data_hash'][:16]}")
    said = "; ".join(problems) or str(found["sha256"])[:16]
    yield Link("protocol", BROKEN if problems else OK, said)


def _beside(link: Link, roots: Mapping[str, Path]) -> Iterator[Link]:
    """What else a file of the chain says: its own commit, the pictures that it lists."""
    root, _, rest = link.name.partition("/")
    path = roots.get(root, Path()) / rest
    if link.state != OK or not rest:
        return
    if path.name == "manifest.csv":
        listed = read_table(path, ("image",), dtype=str)["image"]
        gone = [name for name in listed if not (path.parent / f"{name}.png").is_file()]
        said = f"{len(gone)} listed images are missing, as {gone[0]}" if gone else "as listed"
        yield Link(f"{path.parent.name} images", BROKEN if gone else OK, said)
    if path.suffix == ".json":
        said = read_json(path)
        stamp = said.get("stamp", said)
        if "commit" in stamp:
            yield commit_link(path.parent.name, stamp)


# -- stamps alone ----------------------------------------------------------------------------


def stamp_links(root: Path) -> list[Link]:
    """Links for every table, figure and card below a folder: its bytes, its stamp's commit."""
    links: list[Link] = []
    found = [path for path in root.rglob("*") if path.suffix in STAMPED]
    named: set[Path] = set()
    for path in sorted({own.with_suffix(".json") for own in found if _is_shown(own, root)}):
        name = path.relative_to(root).with_suffix("").as_posix()
        if not path.is_file():
            continue
        stamp = read_json(path)
        for file, wanted in stamp.get("files", {}).items():
            target = path.with_name(file)
            named.add(target)
            link = Link(target.relative_to(root).as_posix(), OK, f"sha-256 {wanted[:16]}")
            if not target.is_file() or hash_file(target) != wanted:
                said = f"edited, or not what {path.name} was written for"
                link = Link(link.name, BROKEN, said)
            links.append(link)
        links += [commit_link(name, part) for part in parts_of(stamp)]
    for path in sorted(path for path in found if _is_shown(path, root) and path not in named):
        old = path.with_suffix(".json")
        hashed = "files" in read_json(old) if old.is_file() else True
        said = "no stamp beside it names it" if hashed else "its stamp is older than hashes in them"
        name = path.relative_to(root).as_posix()
        links.append(Link(name, BROKEN if hashed else UNVERIFIABLE, said))
    return links


def _is_shown(path: Path, root: Path) -> bool:
    """Not a file of the ablation's runs, which their own records vouch for."""
    return "runs" not in path.relative_to(root).parts


def commit_link(name: str, stamp: Mapping[str, Any]) -> Link:
    """Whether the commit that a stamp names exists here, and was the code that ran."""
    commit = str(stamp.get("commit") or "")
    if not re.fullmatch("[0-9a-f]{40}", commit):
        return Link(name, BROKEN, f"commit {commit or 'none'}: expected the 40 digits of one")
    if stamp.get("dirty") is not False:
        return Link(name, BROKEN, f"made by code that differed from its commit {commit[:10]}")
    if not _has_git():
        return Link(name, UNVERIFIABLE, f"commit {commit[:10]}: no git checkout here")
    if not _exists(commit):
        if git("rev-parse", "--is-shallow-repository") == "true":
            return Link(name, UNVERIFIABLE, f"commit {commit[:10]}: not in this shallow clone")
        return Link(name, BROKEN, f"commit {commit[:10]} does not exist in this repository")
    return Link(name, OK, f"commit {commit[:10]}")


@cache
def _has_git() -> bool:
    return git("rev-parse", "--git-dir") is not None


@cache
def _exists(commit: str) -> bool:
    return git("cat-file", "-e", f"{commit}^{{commit}}") is not None


def broken(links: Iterable[Link]) -> list[Link]:
    return [link for link in links if link.state == BROKEN]


def count(links: Iterable[Link]) -> str:
    """How many links are in which state, in words."""
    states = [link.state for link in links]
    said = [f"{states.count(state)} {state}" for state in (OK, UNVERIFIABLE, BROKEN)]
    return f"{len(states)} links: {', '.join(said)}"


def check_stamps(figures: Path) -> list[str]:
    """Problems of the tables and figures below a folder: edited ones, commits that don't exist."""
    links = stamp_links(figures)
    if not links:
        raise InputError(f"{figures}: no table or figure below it")
    print(f"stamps below {figures.name}/: {count(links)}")
    return [f"{link.name}: {link.detail}" for link in broken(links)]


# -- the study twice -------------------------------------------------------------------------

TIMED = re.compile("seconds|optimiser_share|measure_share|memory")  # names of what a clock gave
SHOWN = {head_of(name) for name in ("seconds", "seconds_per_step", "optimiser_share",
                                    "measure_share", "peak_memory_gib")}  # fmt: skip
IGNORED = "nbval-ignore-output"  # nbval's tag for a cell that runs without being compared
SANITISED = (  # pattern, what stands in its place before outputs are compared
    (r"T_[0-9a-f]{8}", "T_table"),  # a table's name holds a hash of all its numbers
    (
        r"(<td[^>]*>[^<]*(?:seconds|_share|share of it|memory)[^<]*</td>\s*<td[^>]*>)[^<]*",
        r"\1measured",
    ),
    (r"('\w*(?:seconds|_share|memory)\w*': )[-+.\de]+", r"\1measured"),
    (r"[\d.]+% of the training time", "a part of the training time"),
    (r"('(?:commit|dirty)': )'?\w+'?", r"\1code"),
)


def check_twice(place: Path, cores: int) -> list[str]:
    """Run the smoke study twice in ``place`` (emptied first, then kept); problems, a line each."""
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
    found = {path.name for folder in (first, second) for path in folder.glob("*.ipynb")}
    for name in sorted(found):
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
    pages = [joined(output.get("data", {}).get("text/html", "")) for output in cell["outputs"]]
    heads = re.findall(r'<th class="col_heading[^>]*>([^<]*)</th>', "\n".join(pages))
    timed = any(TIMED.search(head) or head in SHOWN for head in heads)
    if timed:
        cell["metadata"].setdefault("tags", []).append(IGNORED)
    return timed


def replay(outputs: list[dict[str, Any]]) -> str:
    """Code that gives stored outputs, but pictures, once more; it needs nothing but IPython."""
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


def compare_notebooks(folder: Path) -> list[str]:
    """Have nbval run a folder's notebooks; cells that say something else (nbval.txt has all)."""
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
    other = [name for name in names if _untimed(first / name) != _untimed(second / name)]
    print(f"tables: {len(names) - len(other)} of {len(names)} alike")
    return other


def _untimed(path: Path) -> list[str] | None:
    """A table's columns as text, without those of timings; None where there is no such table."""
    if not path.is_file():
        return None
    table = read_table(path, dtype=str, keep_default_na=False)
    return [table[name].to_csv(index=False) for name in table if not TIMED.search(str(name))]


# -- the same audit on another machine -------------------------------------------------------
# Each audit runs in a process of its own, since threads and instruction sets are fixed when torch
# is loaded: ATen's by ATEN_CPU_CAPABILITY, those of oneDNN's convolutions by its own name for
# them.

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
    from fairdiff_lib.data.own import write_example

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
    command = [sys.executable, "-m", "fairdiff_lib.run.verify", *map(str, (real, made, out))]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"audit with {threads} threads, {instructions} instructions: {said}")
    return pd.DataFrame(read_json(out))


def _numbers(real: Path, made: Path) -> Iterator[dict[str, Any]]:
    """KIDs and their differences between levels, in both feature spaces, with standard errors."""
    from fairdiff_lib.audit.contrasts import pairs_with_largest
    from fairdiff_lib.audit.estimate import difference, group_units
    from fairdiff_lib.data.own import LEVELS, read_own
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
