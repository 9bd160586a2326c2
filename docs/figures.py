"""The study's main figures, from its tables: ``python docs/figures.py`` writes ``figures/main``.

Numbers come from committed tables. Generated images come from the runs where these are here, and
are kept as small sheets (``images_<data set>.png``), from which the figure can be drawn again. A
figure whose tables are not there yet is not drawn; what was drawn of it before is removed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from fairdiff_lib.datasets import DATASETS, load_settings
from fairdiff_lib.disk.files import hash_file, read_json, read_table
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.stamps import make_provenance, publish_figure, write_stamp
from fairdiff_lib.model.sample import load_generated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import BASELINE
from fairdiff_lib.settings.options import parse_overrides
from fairdiff_lib.show.figures import main as pages
from fairdiff_lib.show.style import STYLE
from fairdiff_lib.studies.proof.known import fid_bias

EACH = 4  # images of a level
MOST = 3  # data sets of a page
TESTS = ("claim", "endpoint", "attribute", "level", "reference", "value", "low", "high", "outcome",
         "testable", "smallest_effect")  # fmt: skip


class Tables:
    """Reads tables below a figures folder and remembers which, for the stamp."""

    def __init__(self, figures: Path) -> None:
        self.figures, self.read = figures, dict[str, str]()
        self.simulated = False

    def __call__(self, name: str, columns: tuple[str, ...] = ()) -> pd.DataFrame:
        """A table as ``reference/ham10000/tab_tests``; empty if there is none in this form."""
        path = self.figures / f"{name}.csv"
        if not path.is_file():
            return pd.DataFrame()
        words = dict.fromkeys(("attribute", "level", "reference", "seeds", "part", "features"), str)
        table = read_table(path, dtype=words).fillna(dict.fromkeys(words, ""))
        if not {*columns} <= {*table.columns}:
            return pd.DataFrame()  # of an earlier version
        self.read[f"figures/{name}.csv"] = hash_file(path)
        stamp = read_json(path.with_suffix(".json"))
        self.simulated |= bool(stamp.get("simulated"))
        return table


def studied(figures: Path) -> list[tuple[str, str]]:
    """(preset, data set) with verdicts: real ones, or where there is none simulated ones."""
    found = []
    for path in sorted(figures.glob("*/*/tab_tests.csv")):
        preset, dataset = path.parts[-3:-1]
        if dataset in DATASETS and {*TESTS} <= {*read_table(path).columns}:
            found.append((preset, dataset))
    real = [one for one in found if not DATASETS[one[1]].simulated]
    order = list(DATASETS)
    return sorted(real or found, key=lambda one: order.index(one[1]))[:MOST]


def found_on(tables: Tables, preset: str, dataset: str, runs: str, data: str = "") -> pages.Found:
    """All that the third figure shows of a data set."""
    place, entry = f"{preset}/{dataset}", DATASETS[dataset]
    tests = tables(f"{place}/tab_tests", TESTS)
    parts = [tables(f"{place}/{name}", ("metric", "level")) for name in entry.quality]
    changes = tables(f"{place}/tab_changes", ("baseline", "metric", "condition"))
    stamp = read_json(tables.figures / place / "tab_tests.json")
    overrides = str(stamp["parameters"].get("overrides", ""))
    settings = load_settings(preset, dataset, parse_overrides(overrides))
    own = tests[(tests["claim"] == "C1") & (tests["endpoint"] == "equivalent_blur")]
    lead = own.iloc[int(own["value"].abs().fillna(0.0).to_numpy().argmax())]
    levels = [lead["reference"], *own.loc[own["attribute"] == lead["attribute"], "level"]]
    places = Places(settings, str(Path(data) / dataset) if data else "", runs_root=runs)
    images = sheet(tables.figures, places, lead["attribute"], levels)
    spec = entry.spec(settings.reading.coding, settings.simulator)
    return pages.Found(dataset, pd.concat(parts), tests, changes, images, spec.primary_condition)


def sheet(
    figures: Path, places: Places, attribute: str, levels: list[str]
) -> Mapping[str, np.ndarray]:
    """The first generated images of each level: from the runs, else from the kept sheet."""
    dataset = places.settings.dataset
    path = figures / "main" / f"images_{dataset}.png"
    seed = places.settings.seeds[0]
    folder = places.generated(BASELINE, seed)
    if (folder / "test" / "manifest.csv").is_file():
        rows = read_table(places.cohort / "cohort.csv", dtype=str, keep_default_na=False)
        asked = read_table(folder / "test" / "manifest.csv", dtype=str)[["image"]]
        both = asked.merge(rows[["image", attribute]], on="image")
        names = [name for level in levels
                 for name in both.loc[both[attribute] == level, "image"].head(EACH)]  # fmt: skip
        images = load_generated(folder, "test", names)
        counts = [min(EACH, int((both[attribute] == level).sum())) for level in levels]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(images.transpose(0, 2, 3, 1)), axis=1)).save(
            path, optimize=True
        )
        said = {"levels": levels, "counts": counts, "attribute": attribute, "seed": seed}
        write_stamp({**said, **provenance(places.settings.simulated)}, path)
    if not path.is_file():
        return {}
    said = read_json(path.with_suffix(".json"))
    with Image.open(path) as opened:
        whole = np.asarray(opened.convert("RGB"))
    side = whole.shape[1] // sum(said["counts"])
    cells = np.stack([whole[:, at : at + side].transpose(2, 0, 1)
                      for at in range(0, whole.shape[1], side)])  # fmt: skip
    ends = np.cumsum(said["counts"])[:-1]
    return dict(zip(said["levels"], np.split(cells, ends), strict=True))


def provenance(simulated: bool) -> dict[str, Any]:
    """Of a stamp: the code, and whether patients were simulated."""
    known = make_provenance()
    return {"simulated": simulated, "commit": known["commit"], "dirty": known["dirty"]}


def drawings(figures: Path, runs: str, data: str) -> Iterator[tuple[str, Any, Tables]]:
    """Name, page (None without its tables) and what was read, of every main figure."""
    chosen = studied(figures)
    tables = Tables(figures)
    found = [found_on(tables, *one, runs, data) for one in chosen]
    yield "main1", pages.main1(), Tables(figures)
    yield "main3", pages.main3(found) if found else None, tables
    tables, own = Tables(figures), load_settings("quick", "fairgenmed_simulated").proof
    calibration = tables("calibration/tab_calibration", ("null", "alarm", "planted_ratio"))
    decisions = tables("calibration/tab_decisions", ("truth", "seen", "larger", "no_larger"))
    tables.simulated = True
    page = None
    if len(calibration) and len(decisions):
        page = pages.main2(calibration, decisions, *fid_bias(own), own.reference)
    yield "main2", page, tables
    tables = Tables(figures)
    mechanism = tables("reference/ham10000/ablation/tab_mechanism", ("dataset", "quantity"))
    arms = {}
    for path in sorted(figures.glob("*/*/tab13.csv")):
        preset, dataset = path.parts[-3:-1]
        arms[dataset] = tables(f"{preset}/{dataset}/tab13", ("baseline", "low_new"))
    page = pages.main4(mechanism, arms) if len(mechanism) else None
    yield "main4", page, tables
    tables = Tables(figures)
    calibration = tables("calibration/tab_calibration", ("null", "alarm", "planted_ratio"))
    verdicts = tables("reference/all/tab14", ("outcome", "claim"))
    if len(verdicts):
        verdicts = verdicts[[not DATASETS[name].simulated for name in verdicts["dataset"]]]
    yield "front", pages.front(calibration, verdicts) if len(calibration) else None, tables


def draw_all(figures: Path, runs: str = Places.runs_root, data: str = "") -> list[Path]:
    """Draw what can be drawn; the PNG files."""
    made = []
    for name, page, tables in drawings(figures, runs, data):
        path = figures / "main" / name
        if page is None:
            for suffix in (".png", ".pdf", ".json"):
                path.with_suffix(suffix).unlink(missing_ok=True)
            continue
        stamp = {**provenance(tables.simulated), "rests_on": tables.read}
        with matplotlib.rc_context(STYLE):
            made.append(publish_figure(page, path, stamp))
    return made


def main() -> int:
    """Exit code: 0 drawn, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures-root", default="figures", metavar="DIR")
    parser.add_argument("--runs-root", default=Places.runs_root, metavar="DIR")
    parser.add_argument("--data-root", default="", metavar="DIR",
                        help="a folder per real data set; data/real without")  # fmt: skip
    chosen = parser.parse_args()
    try:
        for path in draw_all(
            PROJECT_ROOT / chosen.figures_root, chosen.runs_root, chosen.data_root
        ):
            print(path)
    except InputError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
