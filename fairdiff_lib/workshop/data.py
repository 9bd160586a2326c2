"""The small data that the exercises read, all simulated, and the command that makes them.

``fairdiff workshop data`` writes them into ``data/workshop`` with a stamp beside each. What takes a
network (a classifier's predictions, generated pictures) comes from a study, trained where it is
missing; the rest from laws.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from fairdiff_lib.disk.files import atomic_file, read_table, write_table
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.stamps import make_provenance, write_stamp
from fairdiff_lib.settings.errors import refuse_unknown
from fairdiff_lib.studies.proof.audits import OurAudit
from fairdiff_lib.workshop import lab
from fairdiff_lib.workshop.build import (
    PAGES,
    PICTURES,
    copy_of,
    read_notebook,
    shown_cells,
    sources,
    write_notebook,
)

if TYPE_CHECKING:
    from fairdiff_lib.study import Study

FOLDER = PROJECT_ROOT / "data" / "workshop"
# no shipped base, and less training than quick: exercise 0 needs pictures without fine vessels
OVERRIDES = "model.pretrained= vae.steps=1000 base.steps=500 training.steps=120"
SIZES, RATIOS, AUDITS = (20, 36, 60, 90, 132, 200), (1.1, 1.25, 1.5), 300
ERRORS = {"well": {"A": 1.0, "B": 0.75}, "ill": {"A": 2.0, "B": 1.5}}  # true mean of an image
COUNTS = {"well": {"A": 160, "B": 40}, "ill": {"A": 40, "B": 160}}  # 200 images a camera
SHAPE = 8.0  # of the gamma law of an image's error
LOOKS = 12  # pictures of exercise 0, half of them generated
SEED = 20250618
PARTS = ("strata", "power", "predictions", "looks", "pictures", "pages")
NUMBER = re.compile(r"<!-- (\w+) -->.*?<!-- -->", re.S)  # in a page: a number with its name


# -- read ----------------------------------------------------------------------------------------


def power() -> pd.DataFrame:
    """Audits that noticed a worse group, by its size and ratio, and what they could have missed.

    n, ratio, audits, alarms; missed_low, missed_high: 99% of the audits' detectable ratios.
    """
    return read_table(FOLDER / "power.csv", ("n", "ratio", "audits", "alarms"))


def strata() -> pd.DataFrame:
    """A row per simulated image: camera, condition, error."""
    return read_table(FOLDER / "strata.csv", ("camera", "condition", "error"))


def predictions() -> pd.DataFrame:
    """A classifier of simulated FairGenMed: subject, race, sex, split, ill, score."""
    return read_table(FOLDER / "predictions.csv", ("race", "split", "ill", "score"))


def looks() -> tuple[list[Image.Image], pd.DataFrame]:
    """Twelve pictures, and a row for each: number (from 1), generated."""
    table = read_table(FOLDER / "looks.csv", ("number", "generated"))
    with Image.open(FOLDER / "looks.png") as sheet:
        side = sheet.height
        boxes = [(side * k, 0, side * (k + 1), side) for k in range(len(table))]
        return [sheet.crop(box) for box in boxes], table


def looks_measured() -> pd.DataFrame:
    """KID of all generated pictures by two kinds of features: features, n, value, low, high."""
    return read_table(FOLDER / "looks_measured.csv", ("features", "value", "low", "high"))


@cache
def real_case_mix() -> pd.DataFrame:
    """KID of HAM10000's older patients minus the younger ones': value, low, high.

    Two rows, ``crude`` and ``common mix``: those of the committed table with the most runs.
    """
    place = PROJECT_ROOT / "figures" / "reference" / "ham10000" / "tab_contrasts.csv"
    table = read_table(place, ("method", "seeds", "attribute", "metric", "value"))
    own = table[(table["method"] == "none") & (table["level"] == "60 or older")
                & table["features"].isin(["lite0", "encoder"])]  # fmt: skip
    runs = own["seeds"].astype(str).str.count(",")
    most = own[runs == runs.max()].set_index("metric")
    names = {"kid": "crude", "kid_standardised": "common mix"}
    return most.loc[list(names), ["value", "low", "high"]].rename(index=names)


# -- make ----------------------------------------------------------------------------------------


def make(what: str, runs_root: str, folder: Path = FOLDER) -> list[Path]:
    """Make one of :data:`PARTS`; half an hour where ``runs_root`` lacks the runs it needs."""
    refuse_unknown("part", what, PARTS)
    if what == "strata":
        laws = {"errors": ERRORS, "counts": COUNTS, "seed": SEED}
        return [_write(folder, what, make_strata(), _stamp(laws))]
    if what == "power":
        counted = {"audits": AUDITS, "reference": lab.REFERENCE, "seed": SEED}
        return [_write(folder, what, make_power(), _stamp(counted))]
    if what == "pictures":
        return make_pictures()
    if what == "pages":
        return fill_pages()
    from fairdiff_lib.study import Study

    study = Study.open("quick", "fairgenmed_simulated", OVERRIDES, runs_root=runs_root)
    stamp = {**study.stamp, "simulated": True}
    if what == "predictions":
        return [_write(folder, what, make_predictions(study), stamp)]
    sheet, table, measured = make_looks(study)
    with atomic_file(folder / "looks.png") as place:
        sheet.save(place, format="png", optimize=True)
    write_table(table, folder / "looks.csv")
    both = [folder / "looks.csv", folder / "looks.png"]
    write_stamp(stamp, *both)
    return [_write(folder, "looks_measured", measured, stamp), *both]


def make_pictures(folder: Path = PICTURES) -> list[Path]:
    """What the exercises show with right answers, and the lay page's three pictures."""
    from fairdiff_lib.workshop import pictures

    with TemporaryDirectory() as place:
        audit = lab.audit_pictures(lab.draw(Path(place) / "example", blur=0.2))
    drawn = {
        "lay_scale": (pictures.lay_scale(), "Three lines shake and come to rest at one level."),
        "lay_boards": (pictures.lay_boards(), "Two dart boards: both hit the middle, one wider."),
        "lay_card": (pictures.lay_card(audit), "Groups, numbers, what differs, what was missed."),
    }
    found = [(name, pictures.png(figure), alt) for name, (figure, alt) in drawn.items()]
    for path in sources():
        found += _shown_in(read_notebook(path))
    files = []
    for name, picture, alt in found:
        files.append(folder / f"{name}.png")
        with atomic_file(files[-1]) as temporary:
            temporary.write_bytes(picture)
        write_stamp(_stamp({"alt": alt}), files[-1])
    return files


def _shown_in(notebook: dict[str, Any]) -> list[tuple[str, bytes, str]]:
    """Run an exercise with right answers: the names, PNG and words of pictures that it shows."""
    import papermill

    found = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "exercise.ipynb"
        write_notebook(path, copy_of(notebook, "right"))
        done = papermill.execute_notebook(path, path, cwd=folder, kernel_name="python3")
    for place, name in shown_cells(notebook, "right"):
        (shown,) = (x for x in done.cells[place].outputs if "image/png" in x.get("data", {}))
        picture = base64.b64decode(shown.data["image/png"])
        found.append((name, picture, shown.metadata["image/png"]["alt"]))
    return found


def page_numbers() -> dict[str, str]:
    """What the pages quote, by the name that stands before it in a comment."""
    from fairdiff_lib.studies.proof.audits import NaiveTest

    (row,) = power().query("n == 36 and ratio == 1.25").to_dict("records")
    naive = lab.audits(lab.equally_good(of_fid=True), NaiveTest("fid_permutation", 99), 10)
    return {
        "naive": f"{naive.sum()} of {len(naive)}",
        "noticed": f"{100 * row['alarms'] / row['audits']:.0f} of 100",
        "counted": f"{row['alarms']} of {row['audits']}",
        "empty": f"{(1 - lab.RARE) ** lab.BATCH:.0%}",
    }


def fill_pages(pages: Path = PAGES) -> list[Path]:
    """Write the numbers into the pages, each between ``<!-- name -->`` and ``<!-- -->``."""
    numbers, files = page_numbers(), []
    for path in sorted(pages.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        filled = NUMBER.sub(lambda m: f"<!-- {m[1]} -->{numbers[m[1]]}<!-- -->", text)
        if filled != text:
            with atomic_file(path) as temporary:
                temporary.write_text(filled, encoding="utf-8")
            files.append(path)
    return files


def _stamp(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The stamp of what no study is behind."""
    return {"parameters": parameters, "simulated": True, **make_provenance()}


def _write(folder: Path, name: str, table: pd.DataFrame, stamp: Mapping[str, Any]) -> Path:
    """A table with its stamp."""
    path = write_table(table, folder / f"{name}.csv")
    write_stamp(stamp, path)
    return path


def make_strata() -> pd.DataFrame:
    """Images whose error is lower for camera B in both conditions, and higher for it overall."""
    rng = np.random.default_rng(SEED)
    parts = []
    for condition, cameras in COUNTS.items():
        for camera, n in cameras.items():
            error = rng.gamma(SHAPE, ERRORS[condition][camera] / SHAPE, n).round(4)
            parts.append(pd.DataFrame({"camera": camera, "condition": condition, "error": error}))
    table = pd.concat(parts, ignore_index=True)
    return table.sample(frac=1, random_state=SEED).reset_index(drop=True)


def make_power() -> pd.DataFrame:
    """The law that exercise 2 is checked against, with its Monte Carlo error in ``audits``."""
    judge = OurAudit(lab.world().kernel)
    rows = []
    for n in SIZES:
        for ratio in RATIOS:
            scene, found, missed = lab.worse_group(n, ratio), 0, []
            for number in range(AUDITS):
                rng = np.random.default_rng([SEED, n, round(100 * ratio), number])
                audit = judge.audit(scene(rng), int(rng.integers(2**31)))
                (row,) = audit.contrasts.to_dict("records")
                found += row["p"] < 0.05
                missed.append(row["mde_ratio"])
            low, high = np.nanquantile(missed, [0.005, 0.995])
            rows.append((n, ratio, AUDITS, found, round(low, 3), round(high, 3)))
    columns = ["n", "ratio", "audits", "alarms", "missed_low", "missed_high"]
    return pd.DataFrame(rows, columns=columns)


def make_predictions(study: Study) -> pd.DataFrame:
    """Validation and test predictions of the classifier that was trained on simulated patients."""
    from fairdiff_lib.classify.runs import REAL, read_run

    run, parts = read_run(study, REAL, 0, "efficientnet"), []
    people = study.cohort.included().table[["image", "subject", "race", "sex"]]
    for split, own in (("val", run.validation), ("test", run.test)):
        ill = own[own["level"] == "glaucoma"].drop(columns="subject", errors="ignore")
        joined = people.merge(ill, on="image", validate="one_to_one")
        parts.append(joined.assign(split=split))
    table = pd.concat(parts, ignore_index=True)
    table["ill"] = table["truth"] == "glaucoma"
    table["score"] = table["probability"].astype(float).round(4)
    return table[["subject", "race", "sex", "split", "ill", "score"]]


def make_looks(study: Study) -> tuple[Image.Image, pd.DataFrame, pd.DataFrame]:
    """A sheet of pictures side by side, which of them are generated, and what KID says of all."""
    from fairdiff_lib.audit.audit import kid_audit
    from fairdiff_lib.audit.kid import fit_kernel
    from fairdiff_lib.classify.features import Scale, make_extractor
    from fairdiff_lib.classify.runs import load_reader
    from fairdiff_lib.model.sample import generate, load_generated
    from fairdiff_lib.train.runs import train

    train(study, "base", 0)
    train(study, "none", 0)
    cohort, size = study.cohort.included(), study.settings.model.image_size
    test, learnt = cohort.split("test"), cohort.split("train").load_images(size)
    asked = test.table["image"].tolist(), test.table["prompt"].tolist()
    generate(study, *asked, "none", 0, "test")
    real, made = test.load_images(size), load_generated(study.places.generated("none", 0), "test")
    rng = np.random.default_rng(SEED)
    # of one group alone, so that no group is looked at for its skin or for a planted noise
    plain = np.flatnonzero((test.table["race"] == "White").to_numpy())
    rows = rng.choice(plain, LOOKS, replace=False)
    generated = rng.permutation(np.arange(LOOKS) < LOOKS // 2)
    tiles = [(made if yes else real)[row] for row, yes in zip(rows, generated, strict=True)]
    sheet = Image.fromarray(np.concatenate(tiles, axis=2).transpose(1, 2, 0))
    table = pd.DataFrame({"number": np.arange(1, LOOKS + 1), "generated": generated})
    measured = []
    # the study's own classifier: one that learnt a disease does not look at the rest of the eye
    for name in ("encoder", "texture"):
        extractor = make_extractor(name, classifier=partial(load_reader, study))
        scale = Scale.fit(extractor(learnt))
        kernel = fit_kernel(scale(extractor(learnt)))
        own = kid_audit(kernel, scale(extractor(real)), scale(extractor(made)), test.table,
                        {"sex": ("Female", "Male")}).overall  # fmt: skip
        measured.append((extractor.name, own.n, own.value, *own.interval(0.95)))
    columns = ["features", "n", "value", "low", "high"]
    return sheet, table, pd.DataFrame(measured, columns=columns)
