"""What the exercises show, with alternative texts; two sliders."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.estimate import Floats
from fairdiff_lib.disk.files import read_table
from fairdiff_lib.workshop import data, lab

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#777777"
DRAWN = 20_000  # weights of a histogram


def _page(height: float, title: str, foot: str = "", width: float = 0.0) -> Figure:
    """A page of the house style; ``width`` in inches where it is to be read on a phone."""
    from fairdiff_lib.show.style import page

    fig = page(height, title, foot)
    if width:
        fig.set_size_inches(width, height)
    return fig


def _drawn(
    height: float, title: str, foot: str = "", *shape: int, width: float = 0.0, **options: Any
) -> tuple[Figure, Any]:
    """A page and its axes."""
    import matplotlib

    from fairdiff_lib.show.style import STYLE

    fig = _page(height, title, foot, width)
    with matplotlib.rc_context({**STYLE, "font.size": 9}):
        return fig, fig.subplots(*shape, **options)


def _tile(fig: Figure, rows: int, columns: int, at: int, image: Any, title: str) -> None:
    ax = fig.add_subplot(rows, columns, at)
    ax.imshow(np.asarray(image))
    ax.set_axis_off()
    ax.set_title(title, fontsize=9)


def png(fig: Figure) -> bytes:
    import matplotlib

    from fairdiff_lib.show.style import STYLE

    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        fig.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def shown(fig: Figure, alt: str) -> Any:
    """The picture as a notebook shows it; ``alt`` says in words what is to be seen."""
    from IPython.display import Image

    return Image(png(fig), width=760, alt=alt)  # type: ignore[no-untyped-call]


# -- 0 -------------------------------------------------------------------------------------------


def contact_sheet(tell: bool = False) -> Any:
    """The twelve pictures of exercise 0 with their numbers; ``tell``: and which are generated."""
    tiles, table = data.looks()
    fig = _page(3.1, "Simulated eyes and generated ones")
    for number, tile, made in zip(table["number"], tiles, table["generated"], strict=True):
        _tile(fig, 2, 6, number, tile, f"{number}{' generated' if tell and made else ''}")
    which = ", ".join(str(number) for number in table.loc[table["generated"], "number"])
    alt = "Twelve eye backgrounds in two rows, numbered 1 to 12."
    return shown(fig, f"{alt} Generated: {which}." if tell else alt)


def looks_bars() -> Any:
    """KID of the same pictures by two kinds of features, with intervals."""
    table = data.looks_measured()
    fig, ax = _drawn(1.7, "The same pictures, two kinds of features", "Lines: 95% intervals.")
    said = {"lite0": "a network taught on photographs", "texture": "colour and fine detail"}
    said["encoder"] = "a network taught to see glaucoma"
    for at, row in enumerate(table.to_dict("records")):
        _line(ax, row, at)
        ax.annotate(f"{row['value']:.3f}", (row["value"], at), (5, 5),
                    textcoords="offset points")  # fmt: skip
    ax.set_yticks(range(len(table)), [said[name] for name in table["features"]])
    ax.set_ylim(len(table) - 0.4, -0.7)  # in the order of the table
    ax.set_xlim(*(side * float(table["high"].max()) for side in (-0.05, 1.12)))
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel("KID (Kernel Inception Distance): 0 where both look alike")
    pairs = zip(table["features"], table["value"], strict=True)
    words = ", ".join(f"{said[name]} {value:.3f}" for name, value in pairs)
    return shown(fig, f"KID by features: {words}.")


def _line(ax: Any, row: Mapping[Any, Any], at: float) -> None:
    ax.plot([row["low"], row["high"]], [at, at], color=BLUE, lw=2)
    ax.plot(row["value"], at, "o", color=BLUE)


# -- 1 and 2 -------------------------------------------------------------------------------------


def shuffled(observed: float, gaps: Sequence[float]) -> Any:
    """Differences in FID under shuffled labels, and the one that was observed."""
    fig, ax = _drawn(2.2, "One audit: the observed difference, and 99 with shuffled labels")
    ax.hist(gaps, bins=20, color=GREY)
    ax.axvline(observed, color=ORANGE, lw=2.5)
    ax.annotate("observed", (observed, ax.get_ylim()[1]), (-4, -10), textcoords="offset points",
                ha="right", color="#8a5a00")  # fmt: skip
    ax.set_xlabel("|FID of A - FID of B|")
    ax.set_ylabel("shuffles")
    most = max(gaps)
    return shown(fig, f"Shuffled differences reach {most:.1f}; the observed one is {observed:.1f}.")


def bias_lines(rows: pd.DataFrame, limit: float) -> Any:
    """FID against the number of images, and the truth that both groups share."""
    fig, ax = _drawn(2.6, "Two groups of equal quality", "Dashed: the true FID of both groups.")
    for group, colour, marker in (("A", ORANGE, "o"), ("B", BLUE, "s")):
        own = rows[rows["group"] == group]
        mean = own.groupby("n")["value"].mean()
        ax.plot(own["n"], own["value"], marker, color=colour, alpha=0.4, ms=4)
        ax.plot(mean.index, mean, marker=marker, color=colour)
        ax.annotate(group, (float(mean.index[0]), float(mean.iloc[0])), (-12, -3),
                    textcoords="offset points", color=colour, fontweight="bold")  # fmt: skip
    ax.axhline(limit, color="black", ls="--", lw=1)
    ax.set_xscale("log")
    ticks = sorted(rows["n"].unique())
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.minorticks_off()
    ax.set_xlabel("images of each group")
    ax.set_ylabel("FID")
    return shown(fig, f"FID falls with the number of images towards {limit:.1f}, from two heights.")


def power_lines(table: Any) -> Any:
    """Share of audits that notice a worse group, against its number of patients.

    Nothing while the table is a learner's blank.
    """
    if table is ...:
        return None
    title, foot = "How often does a valid audit notice?", "Lines: 95% intervals of the share."
    fig, ax = _drawn(2.6, title, foot)
    looks = {1.1: ("o", GREY), 1.25: ("s", ORANGE), 1.5: ("^", BLUE)}
    for ratio, own in table.groupby("ratio"):
        marker, colour = looks.get(round(float(str(ratio)), 3), ("D", "black"))
        share = own["alarms"] / own["audits"]
        ax.plot(own["n"], share, marker=marker, color=colour)
        end = (float(own["n"].iloc[-1]), float(share.iloc[-1]))
        ax.annotate(f"{ratio} times as bad", end, (8, -3), textcoords="offset points", color=colour,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        for n, hits, count in zip(own["n"], own["alarms"], own["audits"], strict=True):
            ax.plot([n, n], lab.wilson(int(hits), int(count)), color=colour, alpha=0.5)
    ax.axhline(0.8, color="black", ls=":", lw=1)
    ax.set_ylim(0, 1.05)
    least, most = float(table["n"].min()), float(table["n"].max())
    ax.set_xlim(least - 0.05 * (most - least) - 1, most + 0.3 * (most - least) + 1)
    ax.set_xlabel("patients of the small group")
    ax.set_ylabel("share that notices")
    return shown(fig, "The share that notices rises with patients and with the ratio.")


# -- 3 -------------------------------------------------------------------------------------------


def strata_dots(table: pd.DataFrame) -> Any:
    """Mean error by condition and camera, and over all; a dot's size is its number of images."""
    fig, ax = _drawn(2.6, "Mean error of generated images, simulated", "Size of a dot: images.")
    parts = [("well", table[table["condition"] == "well"]), ("all", table),
             ("ill", table[table["condition"] == "ill"])]  # fmt: skip
    for at, (_, own) in enumerate(parts):
        for camera, colour, aside in (("A", ORANGE, -0.08), ("B", BLUE, 0.08)):
            error = own.loc[own["camera"] == camera, "error"]
            ax.scatter(at + aside, error.mean(), s=3 * len(error), color=colour, alpha=0.8)
            ax.annotate(f"{camera}, n={len(error)}", (at + aside, error.mean()),
                        (18 if aside > 0 else -18, -3), textcoords="offset points",
                        ha="left" if aside > 0 else "right")  # fmt: skip
    ax.set_xticks(range(3), [name for name, _ in parts])
    ax.set_xlim(-0.6, 2.6)
    ax.margins(y=0.15)
    ax.set_ylabel("error (less is better)")
    return shown(fig, "B is lower than A among the well and among the ill, and higher over all.")


# -- 4 and 5: what a slider moves ------------------------------------------------------------------


@dataclass(frozen=True)
class Moved:
    """A picture of one value: moved by a slider, or at five values as it stands on paper."""

    name: str
    start: float
    ends: tuple[float, float, float]  # least, most, step
    values: tuple[float, ...]  # on paper
    heights: tuple[float, float]  # inches: of the slider's page, and of the paper's
    title: str
    foot: str
    draw: Callable[[Any, float], None]  # on axes, at a value
    words: Callable[[float], str]

    def figure(self, *values: float) -> Figure:
        """The picture at these values, one below the other."""
        many = len(values) > 1
        which = f"five {self.name}s" if many else f"{self.name} {values[0]:.2f}"
        title, height = f"{self.title}: {which}", self.heights[many]
        fig, axes = _drawn(height, title, self.foot, len(values), 1, squeeze=False, sharex=True)
        for ax, value in zip(axes[:, 0], values, strict=True):
            self.draw(ax, value)
            if many:
                ax.set_ylabel(f"{value:g}", rotation=0, ha="right", va="center", labelpad=12)
        return fig

    def panels(self) -> Any:
        """What the slider shows, at five values."""
        return shown(self.figure(*self.values), " ".join(self.words(x) for x in self.values))

    def slider(self) -> Any:
        """The slider, the picture and the same in words; arrow keys move it."""
        import ipywidgets

        least, most, step = self.ends
        slider = ipywidgets.FloatSlider(self.start, min=least, max=most, step=step,
                                        description=self.name, continuous_update=False)  # fmt: skip
        slider.layout.width = "min(100%, 480px)"
        picture = ipywidgets.Image(value=png(self.figure(self.start)), format="png", width=760)
        picture.layout.max_width = "100%"
        said = ipywidgets.HTML(self.words(self.start))

        def move(change: Any) -> None:
            value = round(float(change["new"]), 3)
            picture.value, said.value = png(self.figure(value)), self.words(value)

        slider.observe(move, names="value")
        return ipywidgets.VBox([slider, picture, said])


def threshold(table: pd.DataFrame) -> Moved:
    """Patients missed and alarmed, of 1,000 of each group of a table of group, ill, score."""

    def draw(ax: Any, value: float) -> None:
        harm = lab.harm_per_thousand(table, value)
        for at, (_, row) in enumerate(harm.iterrows()):
            colour = (ORANGE, BLUE, GREY)[at % 3]
            ax.barh(at, -row["missed"], color=colour)
            ax.barh(at, row["alarmed"], color=colour, alpha=0.45)
            for x, side, ha in ((-row["missed"], -3, "right"), (row["alarmed"], 3, "left")):
                ax.annotate(f"{abs(x):.0f}", (x, at), (side, -3), textcoords="offset points", ha=ha)
        ax.axvline(0, color="black", lw=0.8)
        ax.set_xlim(-330, 800)
        ax.set_yticks(range(len(harm)), [str(name) for name in harm.index])
        ax.set_ylim(len(harm) - 0.4, -0.6)  # the first group above
        ax.set_xticks([])

    def words(value: float) -> str:
        said = [f"Of 1,000 patients of {group} {row['missed']:.0f} are missed and "
                f"{row['alarmed']:.0f} alarmed."
                for group, row in lab.harm_per_thousand(table, value).iterrows()]  # fmt: skip
        return f"Threshold {value:+.1f}. " + " ".join(said)

    return Moved("threshold", 0.9, (-2.0, 3.0, 0.1), (-0.6, 0.0, 0.6, 1.2, 1.8), (1.7, 3.4),
                 "Of 1,000 patients of each group",
                 "Left: ill and missed. Right, pale: well and alarmed.", draw, words)  # fmt: skip


def sigma() -> Moved:
    """Weights of a group at a sigma; their mean is the line."""

    def draw(ax: Any, value: float) -> None:
        w, bins = _weights(value), np.linspace(-7, 9, 81)
        heights, _, bars = ax.hist(w, bins=bins, color=BLUE)
        for bar, left in zip(bars, bins, strict=False):
            bar.set_color(ORANGE if left < -1e-9 else BLUE)
        ax.axvline(w.mean(), color="black", lw=1.5)
        ax.set_ylim(0, 1.15 * heights.max())
        ax.set_yticks([])
        ax.set_xlim(-7, 9)

    def words(value: float) -> str:
        w = _weights(value)
        return (f"Sigma {value:.2f}: mean weight {w.mean():.2f}, variance {w.var():.2f}, "
                f"{(w < 0).mean():.0%} below 0.")  # fmt: skip

    return Moved("sigma", 0.5, (0.0, 2.0, 0.05), (0.0, 0.25, 0.5, 1.0, 2.0), (2.1, 4.4),
                 "Weights of 20,000 images",
                 "Line: their mean. Orange: below 0, trained away from.", draw, words)  # fmt: skip


def _weights(sigma: float) -> Floats:
    noise = np.random.default_rng(0).standard_normal((DRAWN, 1))
    return lab.weights(np.array([sigma]), np.zeros((DRAWN, 1), dtype=np.int64), noise)


def toy_paths(paths: dict[str, Floats]) -> Any:
    """Where the model of one number goes, by what its weights are."""
    fig, ax = _drawn(2.6, "A model of one number: A wants 0, B wants 2")
    ends = {name: float(path[len(path) // 2 :].mean()) for name, path in paths.items()}
    for name, path in paths.items():
        ax.plot(path, lw=0.8, label=f"{name}: ends at {ends[name]:.2f}")
    ax.axhline(0.2, color="black", ls="--", lw=1)
    ax.set_xlabel("step of training")
    ax.legend(loc="lower right")
    said = ", ".join(f"{name} at {end:.2f}" for name, end in ends.items())
    return shown(fig, f"Paths of training; they end: {said}.")


# -- 6 -------------------------------------------------------------------------------------------


def example_pairs(folder: Path | str) -> Any:
    """Real pictures above, generated ones below: the first four of a folder."""
    from fairdiff_lib.data.own import NAMES

    fig = _page(3.0, "Real pictures above, generated ones below")
    for k, name in enumerate(NAMES):
        table = read_table(Path(folder) / f"{name}.csv").iloc[::61].head(4)
        tiles = lab.read_pictures(Path(folder), list(table["path"]))
        for at, (tile, palette) in enumerate(zip(tiles, table["palette"], strict=True)):
            _tile(fig, 2, 4, 4 * k + at + 1, tile, str(palette))
    return shown(fig, "Four real coloured shapes, and the generated ones below them.")


def contrast_lines(audit: Audit) -> Any:
    """Differences between groups with their intervals."""
    table = audit.contrasts
    fig, ax = _drawn(1.6, "Difference in KID, with 95% interval", "0: no difference.")
    for at, row in enumerate(table.to_dict("records")):
        _line(ax, row, at)
    ax.axvline(0, color="black", lw=0.8)
    rows = table.to_dict("records")
    names = [f"{row['attribute']}: {row['level']} minus {row['reference']}" for row in rows]
    ax.set_yticks(range(len(table)), names)
    ax.set_ylim(-0.6, len(table) - 0.4)
    words = [f"{name} {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
             for name, row in zip(names, rows, strict=True)]  # fmt: skip
    return shown(fig, "; ".join(words))


# -- pictures for those who are no statisticians -------------------------------------------------


def lay_scale() -> Figure:
    """The mean weight of three groups that are shaken differently: all come to rest at 1."""
    fig, ax = _drawn(2.2, "1. Shaking a scale does not change what it weighs", width=4.6)
    for sigma, colour in ((0.5, BLUE), (1.0, ORANGE), (2.0, GREY)):
        w = _weights(sigma)[:4000]
        ax.plot(np.cumsum(w) / np.arange(1, len(w) + 1), color=colour)
    ax.axhline(1, color="black", lw=1, ls="--")
    ax.set_ylim(0.4, 1.6)
    ax.set_yticks([1], ["where it rests"])
    ax.set_xticks([])
    ax.set_xlabel("time: three groups, shaken little, more, most")
    return fig


def lay_boards() -> Figure:
    """Two dart boards: equally well aimed, differently spread."""
    from matplotlib.patches import Circle

    title = "2. Both players aim equally well; one throws wider"
    fig, axes = _drawn(2.7, title, "", 1, 2, width=4.6)
    rng = np.random.default_rng(5)
    for ax, spread, name in zip(axes, (0.25, 0.7), ("narrowly", "widely"), strict=True):
        for radius in (1.5, 1.0, 0.5):
            ax.add_patch(Circle((0, 0), radius, fill=False, color=GREY, lw=0.8))
        throws = rng.standard_normal((30, 2)) * spread
        throws -= throws.mean(axis=0)
        ax.plot(*throws.T, "o", color=BLUE, ms=4)
        ax.plot(0, 0, "+", color="black", ms=12, mew=2)
        ax.set_aspect("equal")
        ax.set_xlim(-1.7, 1.7)
        ax.set_ylim(-1.7, 1.7)
        ax.set_axis_off()
        ax.set_title(f"throws {name}", fontsize=9)
    return fig


def lay_card(audit: Audit) -> Figure:
    """A card: which groups, how many, what differs, what could have been missed."""
    fig, ax = _drawn(2.3, "3. A card to ask for", width=4.6)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    lines = []
    for row in audit.contrasts.to_dict("records"):
        seen = row["low"] > 0 or row["high"] < 0
        pair = [row["level"], row["reference"]]
        worse, best = pair if row["value"] > 0 else reversed(pair)
        lines.append(f"{row['attribute']}: {row['n']} and {row['n_reference']} pictures")
        if seen:
            lines.append(f"    those of '{worse}' are worse than those of '{best}'")
        else:
            lines.append(f"    no difference seen; a KID larger by {row['mde']:.3f} may be missed")
    lines.append("Looked at: colour and fine detail. Not looked at: anatomy.")
    lines.append("An example: simulated pictures of coloured shapes.")
    for k, line in enumerate(lines):
        ax.text(0.03, 0.88 - 0.16 * k, line, fontsize=8.5, transform=ax.transAxes)
    return fig
