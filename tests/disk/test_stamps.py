"""Stamps: no local paths, every byte named, and a chain in which no change goes unseen."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import hash_file, read_json, read_table, write_json, write_table
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.stamps import (
    BROKEN,
    OK,
    UNVERIFIABLE,
    check,
    hashes_of,
    make_stamp,
    publish_figure,
    publish_table,
    read_stamp,
    small_png,
    write_stamp,
)
from fairdiff_lib.settings.errors import InputError


def test_a_table_and_its_stamp_stand_together(tmp_path: Path) -> None:
    settings = load_settings("smoke")
    given = {"preset": "smoke", "data_root": "somewhere", "seed": 3}
    stamp = make_stamp(settings, "abc", given)
    frame = pd.DataFrame({"level": ["Asian", "Black"], "value": [0.1, np.nan]})
    publish_table(frame, tmp_path / "tab_gates.csv", stamp)
    pd.testing.assert_frame_equal(read_table(tmp_path / "tab_gates.csv", ("value",)), frame)
    kept = json.loads((tmp_path / "tab_gates.json").read_text())
    assert set(kept) == {
        "parameters",
        "settings",
        "data_hash",
        "simulated",
        "versions",
        "hardware",
        "commit",
        "dirty",
        "files",
    }
    names = ["tab_gates.csv", kept["settings"]]
    assert kept["files"] == {name: hash_file(tmp_path / name) for name in names}
    assert read_stamp(tmp_path / "tab_gates.json") == {
        **stamp, "files": {"tab_gates.csv": kept["files"]["tab_gates.csv"]}
    }  # fmt: skip
    assert kept["parameters"] == {"preset": "smoke", "seed": 3}  # no folder of this machine
    assert kept["simulated"] is True and kept["data_hash"] == "abc"
    assert {"threads", "instructions"} <= set(kept["hardware"])  # what rounding follows
    assert str(PROJECT_ROOT) not in json.dumps(kept)


def test_stamps_of_one_study_share_their_settings_and_a_changed_one_shows(tmp_path: Path) -> None:
    one, other = (make_stamp(load_settings("smoke"), "abc", {"n": n}) for n in (1, 2))
    spanning = {"datasets": {"a": one, "b": other}}
    for name, stamp in (("tab02", one), ("tab03", other), ("tab04", spanning)):
        write_stamp(stamp, write_table(pd.DataFrame({"n": [1]}), tmp_path / f"{name}.csv"))
    (shared,) = tmp_path.glob("settings-*.json")
    assert read_stamp(tmp_path / "tab04.json")["datasets"] == {"a": one, "b": other}
    shared.write_text(shared.read_text().replace("smoke", "quick"))
    for name in ("tab02", "tab04"):
        states = {link.name: link.state for link in check(tmp_path / f"{name}.csv", {})}
        assert states == {f"{name}.csv": OK, shared.name: BROKEN}


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Places, Path]:
    """Cohort <- base <- run <- figure, as a study leaves them."""
    roots = {"runs_root": str(tmp_path / "runs"), "figures_root": str(tmp_path / "figures")}
    places = Places(load_settings("smoke"), **roots)
    cohort, base, run = (
        places.cohort / "cohort.csv",
        places.base / "run.json",
        places.run("none", 0) / "run.json",
    )
    cohort.parent.mkdir(parents=True)
    cohort.write_text("image\none\n")
    write_json(base, {"rests_on": hashes_of(places, [cohort])})
    write_json(run, {"rests_on": hashes_of(places, [base, places.data / "never written"])})
    stamp = {"rests_on": hashes_of(places, [run, cohort])}
    return places, publish_figure(Figure(), places.figures / "fig03", stamp)


def test_a_chain_names_every_file_once_from_the_data_to_the_figure(
    chain: tuple[Places, Path],
) -> None:
    places, figure = chain
    found = check(figure, places.roots)
    assert {link.state for link in found} == {OK}
    names = [link.name.rsplit("/", 1)[-1] for link in found]
    assert names == ["cohort.csv", "run.json", "run.json", "fig03.pdf", "fig03.png"]
    assert all(
        not Path(name).is_absolute() for name in read_json(figure.with_suffix(".json"))["rests_on"]
    )


@pytest.mark.parametrize("which", ["cohort", "base", "run", "figure"])
def test_a_change_anywhere_is_found_and_named(which: str, chain: tuple[Places, Path]) -> None:
    places, figure = chain
    place = {
        "cohort": places.cohort / "cohort.csv",
        "base": places.base / "run.json",
        "run": places.run("none", 0) / "run.json",
        "figure": figure,
    }[which]
    place.write_bytes(place.read_bytes() + b" ")
    (link,) = [link for link in check(figure, places.roots) if link.state == BROKEN]
    assert link.name.endswith(place.name) and "says" in link.detail


def test_what_is_not_here_cannot_be_told_but_a_missing_figure_is_broken(
    chain: tuple[Places, Path],
) -> None:
    places, figure = chain
    elsewhere = {**places.roots, "runs": figure.parent / "nowhere"}
    states = [link.state for link in check(figure, elsewhere)]
    assert states == [UNVERIFIABLE, UNVERIFIABLE, OK, OK]
    figure.unlink()
    assert BROKEN in [link.state for link in check(figure, places.roots)]
    figure.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"fig03.json: missing"):
        check(figure, places.roots)


def test_a_file_outside_the_roots_is_refused(chain: tuple[Places, Path], tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="expected a file below"):
        hashes_of(chain[0], [tmp_path / "other.json"])


def test_f1_to_f7_are_pdf_too_and_others_are_not(tmp_path: Path) -> None:
    for name, wanted in (("fig07", True), ("main3", True), ("fig_power", False)):
        (tmp_path / f"{name}.pdf").write_text("an earlier version's")
        publish_figure(Figure(), tmp_path / name, {})
        assert (tmp_path / f"{name}.pdf").is_file() == wanted
        named = read_json(tmp_path / f"{name}.json")["files"]
        assert list(named) == [f"{name}.pdf"] * wanted + [f"{name}.png"]


def test_pictures_in_a_pdf_are_half_as_large_and_on_the_screen_as_before(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    figure = Figure()
    picture = figure.add_subplot().imshow(pixels, interpolation="lanczos")
    figure.savefig(tmp_path / "whole.pdf", bbox_inches="tight")
    publish_figure(figure, tmp_path / "fig06", {})
    whole, small = ((tmp_path / f"{name}.pdf").stat().st_size for name in ("whole", "fig06"))
    assert small < whole / 2
    assert picture.get_interpolation() == "lanczos"
    assert np.array_equal(np.asarray(picture.get_array()), pixels)


def test_a_page_of_few_colours_stays_as_it_is() -> None:
    drawn = np.zeros((64, 64, 3), np.uint8)
    drawn[:, 32:] = 255, 128, 3
    first, many = io.BytesIO(), io.BytesIO()
    Image.fromarray(drawn).save(first, format="PNG")
    with Image.open(io.BytesIO(small_png(first.getvalue()))) as small:
        assert np.array_equal(np.asarray(small.convert("RGB")), drawn)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(many, format="PNG")
    once = small_png(many.getvalue())
    assert len(once) < len(many.getvalue()) / 2 and small_png(once) == once
