"""Figures show what the table says: every level, its n, the word "simulated", the notes."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fairdiff_lib.disk.stamps import publish_figure
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS
from fairdiff_lib.show.figures import cohort as galleries
from fairdiff_lib.show.figures.cohort import fig01
from fairdiff_lib.show.figures.mechanism import fig04
from fairdiff_lib.show.figures.quality import fig03, fig05
from fairdiff_lib.show.front import Nothing
from fairdiff_lib.show.style import STYLE, look_of

SIMULATED = "fairgenmed_simulated"
LEVELS = {"overall": ["all"], "race": ["Asian", "Black", "White"]}


def texts(fig: Figure) -> list[str]:
    """Every piece of text that the figure draws."""
    return [t.get_text() for t in fig.findobj(matplotlib.text.Text) if t.get_text().strip()]


def quality(dataset: str = SIMULATED, seeds: tuple[str, ...] = ("0",)) -> pd.DataFrame:
    rows = [
        {"dataset": dataset, "method": method, "seeds": seed, "attribute": attribute,
         "level": level, "metric": "kid", "features": "lite0", "n": 40 + 7 * j,
         "value": 0.01 * (i + 1) + 0.001 * j, "low": 0.0, "high": 0.08}
        for seed in seeds
        for i, method in enumerate(["real", "none", "fairdiffusion"])
        for attribute, levels in LEVELS.items()
        for j, level in enumerate(levels)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def cohort_table() -> pd.DataFrame:
    rows = []
    for split in ("train", "val", "test", "all"):
        for attribute, levels in LEVELS.items():
            for level in levels:
                key = {"dataset": SIMULATED, "split": split, "attribute": attribute, "level": level}
                rows.append(
                    {**key, "condition": "", "condition_level": "", "metric": "count", "n": 37,
                     "value": 37.0, "low": np.nan, "high": np.nan}
                )  # fmt: skip
                for condition, names in {"glaucoma": ["no", "yes"], "dx": ["a", "b", "c"]}.items():
                    rows += [
                        {**key, "condition": condition, "condition_level": name,
                         "metric": "prevalence", "n": 37, "value": 0.3, "low": 0.2, "high": 0.5}
                        for name in names
                    ]  # fmt: skip
    return pd.DataFrame(rows)


def history(sigma: bool = True) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for step in (10, 20, 30):
        rows += [(step, "loss", "", "", 0.5), (step, "objective", "", "", -0.1)]
        if sigma:
            rows += [(step, "sigma", "race", level, 0.7) for level in LEVELS["race"]]
    rows.append((30, "acquisition", "", "", -0.2))
    table = pd.DataFrame(rows, columns=["step", "quantity", "attribute", "level", "value"])
    return table.assign(dataset=SIMULATED, method="fairdiffusion", seed=0)


def downstream() -> pd.DataFrame:
    rows = [
        {"dataset": SIMULATED, "source": source, "seeds": "0", "classifier": classifier,
         "condition": condition, "attribute": attribute, "level": level, "metric": "auc", "n": 64,
         "value": 0.8, "low": 0.7, "high": 0.9}
        for source in ("real", "none")
        for classifier in ("vit-2x16", "efficientnet-w1")
        for condition in ("glaucoma", "md_severity")
        for attribute, levels in LEVELS.items()
        for level in levels
    ]  # fmt: skip
    return pd.DataFrame(rows)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (*shape, 3, 8, 8), dtype=np.uint8)


def test_a_cohort_with_one_condition_has_no_empty_panel() -> None:
    table = cohort_table()
    one = table[table["condition"].isin(["", table["condition"].max()])]
    assert one["condition"].nunique() < table["condition"].nunique()
    assert all(ax.lines or ax.patches or ax.collections for ax in fig01(one).axes)
    assert len(fig01(one).axes) == 2


def test_f1_breaks_many_conditions_into_rows() -> None:
    table = cohort_table()
    one = table[table["condition"] == table["condition"].max()]
    many = pd.concat([table[table["condition"] == ""],
                      *(one.assign(condition=f"finding_{k:02d}") for k in range(14))])  # fmt: skip
    fig = fig01(many)
    assert len(fig.subfigs) == 5  # sizes and the primary condition, then 4, 4, 4 and 1
    assert [len(sub.axes) for sub in fig.subfigs] == [2, 4, 4, 4, 1]


def test_f5_shows_one_condition_by_level_for_each_classifier() -> None:
    fig = fig05(downstream(), condition="glaucoma")
    assert [ax.get_title("left") for ax in fig.axes] == ["ViT 2x16", "EfficientNet w1"]
    labels = [text.get_text() for text in fig.axes[0].get_yticklabels()]
    assert labels == ["All (64)", "Asian (64)", "Black (64)", "White (64)"]
    with pytest.raises(Nothing, match="fig05: the table has no auc of dx"):
        fig05(downstream(), condition="dx")


def test_only_real_patients_are_called_real() -> None:
    told = {
        name: " ".join(
            fig05(downstream().assign(dataset=name), condition="glaucoma").get_supxlabel().split()
        )
        for name in (SIMULATED, "ham10000")
    }
    assert "groups of simulated test patients" in told[SIMULATED]
    assert "groups of real test patients" in told["ham10000"]


EVERY = {
    "fig01": lambda notes: fig01(cohort_table(), notes),
    "fig02": lambda notes: galleries.fig02(
        {"none": images(2)}, ["Asian", "Black"], dataset=SIMULATED, notes=notes
    ),
    "fig03": lambda notes: fig03(quality(), notes=notes),
    "fig04": lambda notes: fig04(history(), notes),
    "fig05": lambda notes: fig05(downstream(), condition="glaucoma", notes=notes),
    "fig06": lambda notes: galleries.fig06(
        {"none": images(1, 5)}, [("glaucoma", "yes")], dataset=SIMULATED, notes=notes
    ),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_says_simulated_and_carries_the_notes(name: str) -> None:
    words = " ".join(texts(EVERY[name](["gate vae_r2 failed"])))
    assert "simulated" in words
    assert "Caution: gate vae_r2 failed" in words


def test_real_data_are_not_called_simulated() -> None:
    words = " ".join(texts(fig03(quality("ham10000"))))
    assert "HAM10000" in words and "simulated" not in words


def test_every_level_stands_on_the_page_with_its_n() -> None:
    words = texts(fig03(quality()))
    for level, n in {"Asian": 40, "Black": 47, "White": 54}.items():
        assert f"{level}\nn={n}" in words


def test_a_level_without_a_value_is_visible() -> None:
    table = quality()
    table.loc[table["level"] == "Asian", ["value", "low", "high"]] = np.nan
    words = texts(fig03(table))
    assert words.count("not estimable") == 1 and "Asian\nn=40" in words


def test_whiskers_end_at_the_interval() -> None:
    table = quality().query("method == 'none'").assign(low=0.003, high=0.021)
    fig = fig03(table)
    ends = [tuple(line.get_ydata()) for ax in fig.axes for line in ax.lines]
    assert ends.count((0.003, 0.021)) == len(table)


def test_the_floor_is_shaded_once_per_level() -> None:
    floor = quality().assign(metric="kid_floor", low=-0.01, high=0.02)
    mean = floor.assign(seeds="0,1", low=0.0, high=0.0)  # of equal bands: no width
    fig = fig03(pd.concat([mean, quality(), floor]))
    bands = [c for ax in fig.axes for c in ax.collections]
    assert len(bands) == sum(map(len, LEVELS.values()))
    assert bands[0].get_paths()[0].get_extents().ymax == pytest.approx(0.02)


def test_a_mean_over_seeds_is_named_and_single_seeds_are_small_dots() -> None:
    single = quality(seeds=("0", "1"))
    mean = quality(seeds=("0,1",))
    fig = fig03(pd.concat([single, mean]))
    assert "mean over training seeds" in " ".join(texts(fig))
    small = [line for ax in fig.axes for line in ax.lines if line.get_marker() == "."]
    assert sum(len(line.get_xdata()) for line in small) == len(single)
    assert "one training seed" in " ".join(texts(fig03(quality())))


def test_a_method_has_one_colour_everywhere() -> None:
    colour = look_of("fairdiffusion").colour
    colours = [look_of(name).colour for name in METHODS]
    assert len(set(colours)) == len(colours)
    for fig in (fig03(quality()), fig04(history(sigma=False))):
        used = {line.get_color() for ax in fig.axes for line in ax.lines}
        assert colour in used


def test_real_patients_are_left_out_unless_asked_for() -> None:
    both = {"real": images(2), "none": images(2)}
    columns = ["Female", "Male"]
    hidden = galleries.fig02(both, columns, dataset="ham10000")
    shown = galleries.fig02(both, columns, dataset="ham10000", show_real=True)
    simulated = galleries.fig02(both, columns, dataset=SIMULATED)
    assert [len(fig.axes) for fig in (hidden, shown, simulated)] == [2, 4, 4]
    assert "Real patients' images are left out" in " ".join(texts(hidden)).replace("\n", " ")


def test_only_a_real_row_of_real_patients_is_refused() -> None:
    with pytest.raises(InputError, match="no image to show"):
        galleries.fig02({"real": images(1)}, ["Female"], dataset="ham10000")


def test_notes_lengthen_the_page_instead_of_shrinking_it() -> None:
    plain, noted = fig03(quality()), fig03(quality(), notes=["a", "b", "c"])
    assert noted.get_figheight() > plain.get_figheight() + 0.3


def test_saved_twice_the_files_are_identical(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        with matplotlib.rc_context(STYLE):
            publish_figure(fig03(quality()), tmp_path / copy / "fig03", {})
    for suffix in (".png", ".pdf"):
        first, second = ((tmp_path / copy / f"fig03{suffix}").read_bytes() for copy in "ab")
        assert first == second
    pdf = (tmp_path / "a" / "fig03.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"CreationDate" not in pdf


def test_a_method_without_a_look_is_drawn_by_its_own_name() -> None:
    assert "of mine" in " ".join(texts(fig03(quality().replace("none", "of_mine"))))


def test_the_floor_of_a_small_level_does_not_set_the_scale() -> None:
    floor = quality().assign(metric="kid_floor", low=-2.0, high=3.0)
    fig = fig03(pd.concat([quality(), floor]))
    assert all(low > -0.1 and high < 0.2 for low, high in (ax.get_ylim() for ax in fig.axes))
    assert "cut at the page" in " ".join(texts(fig)).replace("\n", " ")


def test_dollars_are_dollars() -> None:
    fig = fig03(quality().replace("Asian", "$0-$24,999"))
    said = [t for t in fig.findobj(matplotlib.text.Text) if "$0-" in t.get_text()]
    assert said and not any(t.get_parse_math() for t in said)


def test_bad_tables_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="fig03: the table has no column value"):
        fig03(quality().drop(columns="value"))
    with pytest.raises(InputError, match="fig03: the table has no row"):
        fig03(quality().head(0))
    with pytest.raises(InputError, match="no metric 'fid'"):
        fig03(quality(), rows=[("fid", ["sex"])])
    with pytest.raises(InputError, match="expected one dataset, found"):
        fig03(pd.concat([quality(), quality("ham10000")]))
    with pytest.raises(InputError, match=r"fig06: images of 'none' are uint8 \(2, 5"):
        galleries.fig06({"none": images(2, 5)}, [("glaucoma", "yes")], dataset=SIMULATED)


def test_prompts_and_sizes_stand_beside_the_images() -> None:
    fig = galleries.fig02(
        {"none": images(1)}, ["Black"], dataset=SIMULATED, prompts=["a photograph of an eye"],
        model="a small model",
    )  # fmt: skip
    words = " ".join(texts(fig)).replace("\n", " ")
    assert "Black: a photograph of an eye" in words and "8 x 8 pixels by a small model" in words


def test_two_generators_pictures_stand_above_how_far_they_are_apart() -> None:
    one, other = images(2) // 4, images(2) // 4
    other[0] += 10
    apart, times = galleries.difference(one, other)
    assert times == 16 and (apart[0] == 160).all() and not apart[1].any()
    assert galleries.difference(one * 0, one * 0 + 100)[1] == 2  # twice as much would be cut
    both = {"real": images(2), "none": one, "fairdiffusion": other}
    page = galleries.fig02(both, ["Female", "Male"], dataset="ham10000")
    assert len(page.axes) == 6 and page.axes[4].get_ylabel() == "difference,\n16 times"
    shown = np.asarray(page.axes[4].images[0].get_array())
    assert (shown == 160).all()
    assert "16 times, in each colour" in " ".join(page.get_supxlabel().split())


def test_prompts_stand_beside_pictures_that_leave_room() -> None:
    two, seven = ([f"g{i}" for i in range(n)] for n in (2, 7))
    tall = np.zeros((7, 3, 64, 64), dtype=np.uint8)
    pages = [galleries.fig02({"none": tall[: len(names)]}, names, dataset=SIMULATED,
                             prompts=["a photograph of an eye"] * len(names))
             for names in (two, seven)]  # fmt: skip
    assert pages[0].get_figheight() < pages[1].get_figheight() - 0.5
    for page in pages:
        page.draw_without_rendering()
        words = next(t for t in page.findobj(matplotlib.text.Text) if "g0: a photo" in t.get_text())
        box = words.get_window_extent()
        assert not any(box.overlaps(ax.get_window_extent()) for ax in page.axes)
        assert box.x1 <= page.bbox.x1 and box.y0 >= page.bbox.y0


def test_real_patients_are_no_page() -> None:
    with pytest.raises(Nothing):
        galleries.sample_page(images(1), ["Female"], dataset="ham10000")
