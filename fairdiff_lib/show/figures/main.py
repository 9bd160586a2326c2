"""The four main figures of the study, and the one of its front page, from finished tables.

``docs/figures.py`` reads the tables and draws them all; panels are those of the notebooks' figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import PercentFormatter

from fairdiff_lib.audit.blur import SMALLEST_BLUR
from fairdiff_lib.audit.decide import DIFFERENT, LARGER, NO_LARGER, UNDECIDED
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.methods import BASELINE
from fairdiff_lib.settings.names import classifier_name, method_name, name_of, rounded
from fairdiff_lib.show.figures.mechanism import density_panel, explained_panel
from fairdiff_lib.show.figures.quality import size_panel
from fairdiff_lib.show.figures.studies import (
    GREY,
    NULLS,
    alarm_panel,
    arm_look,
    count_seeds,
    equally_good,
)
from fairdiff_lib.show.front import Nothing, figure, shortened
from fairdiff_lib.show.panels import (
    ROW,
    Rows,
    beside,
    forest,
    in_order,
    level_rows,
    name_rows,
    of_level,
    panel_legend,
    whisker,
)
from fairdiff_lib.show.style import MUTED, Look, dataset_name, level_looks, look_of, page
from fairdiff_lib.show.words import listed

HEAD, STRIP = 0.22, 5.9  # inches: height of a data set's name, width of its images
WIDTHS = (1.0, 0.85, 1.2, 1.2, 1.1)  # of a data set's panels
CONTRASTS = {  # claim: what is taken from what
    "C1": "C1: group minus\nreference group",
    "C2": "C2: FairDiffusion minus\nStable Diffusion",
}
METHOD, AUDIT = "#d55e00", "#0072b2"
OUTCOMES = {  # of a contrast: words, colour, whether it speaks of a difference
    LARGER: ("larger than X", "#d55e00"),
    DIFFERENT: ("different, size open", "#e69f00"),
    NO_LARGER: ("no difference larger than X", "#009e73"),
    UNDECIDED: ("undecided", "#8c8c8c"),
}
DECIDED = (  # of simulated audits: look, true difference in X, column of the share
    (Look("2 X: seen", "#0072b2", "o"), 2, "seen"),
    (Look("2 X: larger", OUTCOMES[LARGER][1], "D"), 2, "larger"),
    (Look("0: no larger", OUTCOMES[NO_LARGER][1], "s"), 0, "no_larger"),
)
ARMS = {  # heading: arms of the ablation
    "The method": ("fairdiffusion_as_released", "fairdiffusion", "fairdiffusion_corrected"),
    "Without what its optimiser knows": (
        *("shuffled_y", "shuffled_y_corrected", "random_sigma", "constant_sigma"),
    ),
    "Other ways, for comparison": ("group_balanced", "demographic_tokens"),
}


@dataclass(frozen=True)
class Found:
    """What was found on one data set, as its tables say it."""

    dataset: str
    quality: Rows  # KID and equivalent blur by level
    tests: Rows  # tab_tests
    changes: Rows  # tab_changes; may be empty
    images: Mapping[str, np.ndarray]  # level -> generated images uint8 [k, 3, H, W]; may be empty
    condition: str  # that classifiers are trained for


def letter(ax: Axes, name: str, title: str, looks: Sequence[Look] = ()) -> None:
    """A panel's letter before its title, and its legend below."""
    if looks:
        panel_legend(ax, looks)
    pad = 15 if looks else None
    ax.set_title(f"{name}  {title}", loc="left", fontweight="bold", fontsize=8, pad=pad)


def _halves(fig: Figure, heights: Sequence[float]) -> list[Any]:
    """Parts of a page below each other."""
    return list(np.asarray(fig.subfigures(len(heights), 1, height_ratios=list(heights))))


# -- 1: method and audit ---------------------------------------------------------------------


@figure("main1")
def main1() -> Figure:
    """What the method does to a batch, and what the audit does to its images."""
    foot = (
        "a: one step of training. The noise of every image is new, so the mean weight is 1 "
        "whatever the noise scale is. b: weights under three attributes. c: the audit; what is "
        "tested is written down before there is an image. d: the place of the 95% interval (drawn) "
        "against 0 and X, the smallest difference that matters, decides; "
        '"no difference larger than X" asks that the 90% interval lies between \u2212X and X, as '
        "tests of equivalence do."
    )  # fmt: skip
    fig = page(4.58, "The method and the audit", foot)
    top, bottom = _halves(fig, (1.0, 1.0))
    left, right = top.subplots(1, 2, width_ratios=[1.75, 1.0])
    letter(left, "a", "The method: noise on each patient's loss")
    _boxes(left, METHOD, (
        (0.00, 0.58, 0.20, "a batch\nof patients"),
        (0.27, 0.58, 0.20, "each image's\nloss \u2113\u1d62"),
        (0.54, 0.58, 0.20, "weighted\nw\u1d62 \u2113\u1d62"),
        (0.81, 0.58, 0.19, "update of\nthe model"),
        (0.00, 0.05, 0.30, "gap between the\ngroups' mean losses"),
        (0.38, 0.05, 0.28, "Gaussian process:\nwhich \u03c3 narrows it?"),
        (0.74, 0.05, 0.26, "a noise scale \u03c3\nper group"),
    ))  # fmt: skip
    for one, other in (((0.20, 0.72), (0.27, 0.72)), ((0.47, 0.72), (0.54, 0.72)),
                       ((0.74, 0.72), (0.81, 0.72)), ((0.37, 0.58), (0.20, 0.33)),
                       ((0.30, 0.19), (0.38, 0.19)), ((0.66, 0.19), (0.74, 0.19)),
                       ((0.85, 0.33), (0.66, 0.58))):  # fmt: skip
        _arrow(left, one, other)
    left.text(0.79, 0.44, "w\u1d62 = 1 + \u03a3 \u03c3 \u03b5\u1d62", fontsize=8, ha="left")
    letter(right, "b", "Its weights")
    density_panel(right, (0.25, 0.5, 1.0))
    right.set_yticks([])
    left, right = bottom.subplots(1, 2, width_ratios=[1.75, 1.0])
    letter(left, "c", "The audit: the same question of every group")
    _boxes(left, AUDIT, (
        (0.00, 0.58, 0.26, "real images of\ntest patients"),
        (0.00, 0.05, 0.26, "images generated\nfor their prompts"),
        (0.335, 0.58, 0.25, "features of one\nfixed network"),
        (0.335, 0.05, 0.25, "protocol, fixed first\n(what, X, power)"),
        (0.66, 0.58, 0.34, "each group's distance,\nas a blur in pixels"),
        (0.66, 0.05, 0.34, "difference of groups,\nits interval against X"),
    ))  # fmt: skip
    for one, other in (((0.26, 0.72), (0.335, 0.72)), ((0.24, 0.33), (0.345, 0.58)),
                       ((0.585, 0.72), (0.66, 0.72)), ((0.83, 0.58), (0.83, 0.33)),
                       ((0.585, 0.19), (0.66, 0.19))):  # fmt: skip
        _arrow(left, one, other)
    letter(right, "d", "Four outcomes")
    right.axvspan(-1, 1, color=GREY, lw=0, zorder=0)
    places = {LARGER: (1.9, 0.6), DIFFERENT: (1.1, 0.8), NO_LARGER: (0.1, 0.6), UNDECIDED: (0.6, 1)}
    for at, (name, (value, half)) in enumerate(places.items()):
        words, colour = OUTCOMES[name]
        row = {"value": value, "low": value - half, "high": value + half}
        whisker(right, row, at, Look("", colour, "o"), across=True)
        right.text(-1.1, at, words, ha="right", va="center", fontsize=7)
    right.axvline(0, color="#999999", lw=0.6, zorder=1)
    right.set(xlim=(-4.6, 2.8), ylim=(3.6, -0.6), xticks=[-1, 0, 1], yticks=[])
    right.set_xticklabels(["\u2212X", "0", "X"])
    right.spines["left"].set_visible(False)
    right.set_xlabel("difference between two groups", loc="right")
    return fig


def _boxes(ax: Axes, colour: str, boxes: Sequence[tuple[float, float, float, str]]) -> None:
    """Rounded boxes (left, bottom, width, words) in an axes from 0 to 1."""
    ax.set(xlim=(-0.01, 1.01), ylim=(0, 1))
    ax.axis("off")
    for x, y, width, words in boxes:
        ax.add_patch(FancyBboxPatch(
            (x, y), width, 0.28, boxstyle="round,pad=0,rounding_size=0.02", fc="white", ec=colour,
            lw=1.1, mutation_aspect=1.0,
        ))  # fmt: skip
        ax.text(x + width / 2, y + 0.14, words, ha="center", va="center", fontsize=7.2)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": "#444444", "lw": 0.9, "shrinkA": 1, "shrinkB": 1}
    ax.annotate("", end, start, arrowprops=style)


# -- 2: the usual audit against ours ---------------------------------------------------------


@figure("main2")
def main2(calibration: Rows, decisions: Rows, draws: Rows, limit: float, reference: int) -> Figure:
    """False alarms of the usual tests and of ours, the bias of FID, and the audit's power."""
    null = equally_good(calibration)
    small, large = min(decisions["n_min"]), max(decisions["n_min"])
    groups = {look.label: look for look in level_looks(in_order(draws, "level"))}
    foot = (
        f"a: a dot is a situation of {null['simulations'].min():,} to "
        f"{null['simulations'].max():,} simulated audits of two groups that are equally good, by "
        "the measure that is tested unless another is named; an alarm is an error. Line: the 5% "
        "that is promised. b: two groups of the same true FID (dashed), "
        "one more varied; dots are draws. c: where equivalent blur truly differs by 2 X (X: "
        f"{SMALLEST_BLUR:g} px), how often a difference is seen, and called larger than X; where "
        "it does not differ, how often that is called no larger than X; the generator blurs, or "
        "errs otherwise as far off as that blur. Filled: "
        f"{large} subjects in the smaller group, hollow: {small}; {reference} in the other."
    )  # fmt: skip
    fig = page(5.08, "The usual audit and this one on known truth (simulated)", foot)
    top, bottom = _halves(fig, (1.1, 1.0))
    ax = top.subplots()
    alarm_panel(ax, null)
    letter(ax, "a", "Who calls equally good groups unequal?", list(NULLS.values()))
    left, right = bottom.subplots(1, 2)
    size_panel(left, draws, groups, {"": limit})
    letter(left, "b", "FID of equally good groups", list(groups.values()))
    _decided(right, decisions)
    letter(right, "c", "What this audit decides", [look for look, _, _ in DECIDED])
    for ax in (left, right):  # a legend wider than its panel takes none of the other's width
        if (legend := ax.get_legend()) is not None:
            legend.set_in_layout(False)
    return fig


def _decided(ax: Axes, table: Rows) -> None:
    """How often verdicts are right, by situation; a hollow mark is of the smaller sample."""
    times = (table["truth"].abs() / SMALLEST_BLUR).round()
    names = in_order(table, "situation")
    for i, (look, size, column) in enumerate(DECIDED):
        for row in table[times == size].to_dict("records"):
            filled = row["n_min"] == table["n_min"].max()
            at = names.index(row["situation"]) + beside(len(DECIDED), i)
            ax.plot(row[column], at, look.marker, ms=4.2, mec=look.colour, mew=0.9,
                    mfc=look.colour if filled else "white", clip_on=False)  # fmt: skip
    for at in range(1, len(names)):
        ax.axhline(at - 0.5, color="#eeeeee", lw=0.6, zorder=0)
    ax.set_yticks(range(len(names)), [_broken(name) for name in names], fontsize=6.5)
    ax.set(ylim=(len(names) - 0.5, -0.5), xlim=(-0.03, 1.03), xlabel="share of audits")
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _broken(name: str) -> str:
    """A situation's name, a long one in two lines."""
    return name.replace(", ", ",\n") if len(name) > 23 else name


# -- 3: data sets ----------------------------------------------------------------------------


@figure("main3")
def main3(found: Sequence[Found]) -> Figure:
    """By data set: images, KID and blur by group, both claims about blur, change of AUC."""
    if not found:
        raise Nothing("main3: no data set has results yet")
    looks = {name: look_of(name) for name in _methods(found)}
    size = max(float(_claimed(one.tests, "C1")["smallest_effect"].max()) for one in found)
    seen = (
        "Images: what Stable Diffusion drew for the first test prompts of each group; prompts name "
        "a finding, too, so pictures of two groups may show different ones. "
    )
    foot = seen * any(one.images for one in found) + (
        "KID: Kernel Inception Distance, 0 where generated and real images look alike. Blur: how "
        "far the group's own real images must be blurred to be as far off. C1: how much more for "
        "a group than for its reference, from Stable Diffusion. C2: what FairDiffusion changes: in "
        "row All the blur, left is better; in a group's row the difference of C1. Between dashed "
        f"lines: smaller than X = {rounded(size)} px; no bar: the interval is narrower than its "
        "mark; grey: declared beforehand to have too few patients. AUC: of the first classifier, "
        "trained on generated images, minus trained on real ones; left is worse. 95% intervals, "
        "for new patients and, over several runs, new runs. In brackets: test subjects."
    )  # fmt: skip
    rows = [level_rows(_of(one, "kid")) for one in found]
    sides = [STRIP / _units(one.images) if one.images else 0.0 for one in found]
    heights = [x for side, own in zip(sides, rows, strict=True)
               for x in (HEAD + 1.3 * side, 0.85 + ROW * len(own))]  # fmt: skip
    title = "What was found, data set by data set"
    fig = page(1.0 + sum(heights), title, foot, looks=[*looks.values(), *_verdict_looks(found)])
    grid = fig.add_gridspec(len(heights), len(WIDTHS), height_ratios=heights, width_ratios=WIDTHS)
    for at, one in enumerate(found):
        head = fig.add_subplot(grid[2 * at, :])
        head.axis("off")
        name = f"{'abcdefgh'[at]}  {dataset_name(one.dataset)}"
        head.annotate(name, (0.008, 1), xycoords=("figure fraction", "axes fraction"), va="top",
                      fontsize=8.5, fontweight="bold").set_in_layout(False)  # fmt: skip
        if one.images:
            _strip(head, one.images)
        axes = [fig.add_subplot(grid[2 * at + 1, k]) for k in range(len(WIDTHS))]
        _panels(axes, one, rows[at], looks)
    return fig


def _claimed(tests: Rows, claim: str) -> Rows:
    """A claim's rows in equivalent blur, which decides."""
    return tests[(tests["claim"] == claim) & (tests["endpoint"] == "equivalent_blur")]


def _verdict_looks(found: Sequence[Found]) -> list[Look]:
    """What the colours of both claims' marks say, for those that there are."""
    own = pd.concat([_claimed(one.tests, claim) for one in found for claim in ("C1", "C2")])
    told = own["testable"].astype(bool)
    tested, untested = own[told], own[~told]
    seen = [Look(words, colour, "o") for name, (words, colour) in OUTCOMES.items()
            if name in set(tested["outcome"])]  # fmt: skip
    return [*seen, *[Look("too few patients to tell", MUTED, "o")] * bool(len(untested))]


def _methods(found: Sequence[Found]) -> list[str]:
    names = dict.fromkeys(name for one in found for name in in_order(one.quality, "method"))
    return [name for name in names if name in (BASELINE, "fairdiffusion")]


def _of(one: Found, metric: str) -> Rows:
    """Means of a metric by level, in the first feature space, for the two methods."""
    own = one.quality[one.quality["metric"] == metric]
    own = own[own["features"] == own["features"].iloc[0]]
    levels = {("overall", "all"), *level_rows(one.tests[one.tests["claim"] == "C1"]),
              *_references(one.tests)}  # fmt: skip
    kept = [key in levels for key in zip(own["attribute"], own["level"], strict=True)]
    return shortened(means_and_seeds(own[kept], ["method"])[0])


def _references(tests: Rows) -> list[tuple[str, str]]:
    own = tests[tests["claim"] == "C1"]
    return list(zip(own["attribute"], own["reference"], strict=True))


def _units(images: Mapping[str, np.ndarray]) -> float:
    """How many images wide a strip is."""
    return sum(1.05 * len(own) + 0.3 for own in images.values())


def _strip(ax: Axes, images: Mapping[str, np.ndarray]) -> None:
    """Generated images side by side, a block per level, each as wide as one unit."""
    at = 0.0
    for level, own in images.items():
        ax.text(at, -0.08, level, fontsize=7)
        for image in own:
            pixels = np.moveaxis(image, 0, -1)
            ax.imshow(pixels, interpolation="lanczos", extent=(at, at + 1, 1, 0))
            at += 1.05
        at += 0.3
    top = -0.35 - HEAD * _units(images) / STRIP  # above the levels' names is the data set's
    ax.set(xlim=(0, at - 0.35), ylim=(1, top), aspect="equal", anchor="SW")


def _panels(
    axes: Sequence[Axes], one: Found, rows: Sequence[tuple[str, str]], looks: Mapping[str, Look]
) -> None:
    """KID, equivalent blur, both claims about it and change of AUC, all by the same rows."""
    for ax, metric, title in ((axes[0], "kid", "KID"), (axes[1], "equivalent_blur", "Blur, px")):
        forest(ax, _of(one, metric), rows, looks)
        ax.set_title(title, loc="left")
    _contrasts(axes[2], one.tests, "C1", rows)
    _contrasts(axes[3], one.tests, "C2", rows)
    _lost(axes[4], one, rows, looks)
    counts = _of(one, "kid").groupby(["attribute", "level"])["n"].min()
    name_rows(axes[0], [f"{'All' if key[0] == 'overall' else key[1]} ({counts[key]:,.0f})"
                        for key in rows])  # fmt: skip
    for ax in axes:
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0, labelleft=ax is axes[0])
        ax.tick_params(axis="x", labelsize=6.5)
    for ax, bins in ((axes[0], 3), (axes[1], 3), (axes[4], 4)):
        ax.locator_params(axis="x", nbins=bins)


def _contrasts(ax: Axes, tests: Rows, claim: str, rows: Sequence[tuple[str, str]]) -> None:
    """A claim's differences in equivalent blur against X, in the rows of their levels."""
    own = _claimed(tests, claim)
    ax.set_title(CONTRASTS[claim], loc="left", fontsize=7.2)
    ax.set_xlabel("pixels of blur", fontsize=6.5)
    smallest = float(_claimed(tests, "C1")["smallest_effect"].max())  # the same X for both
    ax.axvspan(-smallest, smallest, color=GREY, lw=0, zorder=0)
    for side in (-smallest, smallest):
        ax.axvline(side, color=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=1)
    _zero(ax)
    for at, key in enumerate(rows):
        for _, row in of_level(own, *key).iterrows():
            colour = OUTCOMES[row["outcome"]][1] if row["testable"] else MUTED
            whisker(ax, row, at, Look("", colour, "o"), across=True, size=3.2)
        if key in _references(tests):
            ax.text(0.03 * smallest, at, "reference", fontsize=6, color=MUTED, ha="left",
                    va="center")  # fmt: skip
    ends = own[["low", "high"]].abs().to_numpy(float)
    reach = max([1.25 * smallest, *(1.1 * ends[np.isfinite(ends)])])
    ax.set_xlim(-reach, reach)
    ax.set_xticks([-smallest, 0, smallest])
    ax.set_xticklabels([f"\u2212{rounded(smallest)}", "0", rounded(smallest)])


def _zero(ax: Axes) -> None:
    """The line that differences are read against."""
    ax.axvline(0, color="#333333", lw=0.9, zorder=1)


def _lost(ax: Axes, one: Found, rows: Sequence[tuple[str, str]], looks: Mapping[str, Look]) -> None:
    """AUC minus that of real images' classifiers, for the first classifier."""
    ax.set_title("AUC minus\nreal images'", loc="left", fontsize=7.2)
    table = one.changes
    if table.empty:
        ax.text(0.5, 0.5, "no classifier yet", transform=ax.transAxes, ha="center", color=MUTED)
        return
    own = table[(table["baseline"] == "real") & (table["metric"] == "auc")]
    own = own[own["condition"] == one.condition]
    own = own[own["classifier"] == own["classifier"].iloc[0]]
    new = "_new" * bool("low_new" in own and own["low_new"].notna().any())  # patients and runs
    changes = own.assign(low=own[f"low{new}"], high=own[f"high{new}"])
    forest(ax, shortened(changes.drop(columns="n")), rows, looks)
    _zero(ax)
    name = classifier_name(str(own["classifier"].iloc[0])).split(" ")[0]
    ax.set_xlabel(f"{name_of(one.condition)}, {name}", fontsize=6.5, loc="right")


# -- 4: mechanism and equivalence ------------------------------------------------------------


@figure("main4")
def main4(mechanism: Rows, arms: Mapping[str, Rows]) -> Figure:
    """What moves the optimiser's score, whether it can be predicted, and what each arm changes."""
    shown = {dataset: _in_percent(table) for dataset, table in arms.items()}
    whose = listed([dataset_name(str(name)) for name in dict.fromkeys(mechanism["dataset"])])
    foot = (
        "a: share of the score's variance, with its interval over batches. b: share of left-out "
        "windows' variance that the Gaussian process predicts from sigma, a dot per run; grey: "
        f"the range of runs when it is fitted to shuffled scores. Both are of {whose}."
    )  # fmt: skip
    foot += _about_arms(shown) if shown else ""
    lines = _arm_lines(arms)
    fig = page(2.78 + 0.19 * len(lines), MAIN["main4"], foot)
    top, bottom = _halves(fig, (1.7, 0.75 + 0.19 * len(lines)))
    left, right = top.subplots(1, 2)
    explained_panel(left, mechanism)
    left.grid(axis="x")
    letter(left, "a", "What moves the score?")
    _predicted(right, mechanism)
    letter(right, "b", "Does sigma predict it?")
    if not arms:
        return fig
    axes = bottom.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for at, (ax, (dataset, own)) in enumerate(zip(axes, shown.items(), strict=True)):
        _changes(ax, own, lines)
        count_seeds(ax, own, lines)
        ax.text(1.02, -0.62, "runs", fontsize=6.5, color=MUTED, va="bottom",
                transform=ax.get_yaxis_transform())  # fmt: skip
        letter(ax, "cdefgh"[at], dataset_name(dataset))
    axes[0].set_yticks(range(len(lines)), [text for text, _ in lines])
    for text, (_, arm) in zip(axes[0].get_yticklabels(), lines, strict=True):
        text.set_fontweight("bold" if arm is None else "normal")
        text.set_fontsize(7)
    return fig


def _in_percent(table: Rows) -> Rows:
    """Every arm minus Stable Diffusion, in percent of Stable Diffusion's KID."""
    own = table[(table["attribute"] == "overall") & (table["metric"] == "kid")]
    own = own[own["features"] == own["features"].iloc[0]]
    alone = own[(own["method"] == BASELINE) & own["baseline"].fillna("").eq("")]
    own = own[own["baseline"] == BASELINE]
    ends = own[["value", "low_new", "high_new", "smallest_effect"]]  # new patients and new runs
    share = 100 * ends / float(alone["value"].iloc[0])
    share.columns = pd.Index(["value", "low", "high", "smallest_effect"])
    found: Rows = own[["method", "seeds"]].join(share)
    return found


def _told(own: Rows) -> Rows:
    """Arms whose interval leaves out no change."""
    return own[(own["low"] > 0) | (own["high"] < 0)]


def _about_arms(shown: Mapping[str, Rows]) -> str:
    """What the panels of arms show, how large X is beside them, and what is told from nothing."""
    letters = dict(zip(shown, "cdefgh", strict=False))
    sizes = [f"{own['smallest_effect'].max():.0f}% in {letters[name]}"
             for name, own in shown.items()]  # fmt: skip
    told = list[str]()
    for name, own in shown.items():
        arms = [arm for arm in _told(own)["method"] if any(arm in x for x in ARMS.values())]
        told += [f"{listed([arm_look(arm).label for arm in arms])} ({letters[name]})"] * bool(arms)
    said = f" Told from no change: {listed(told)}." if told else ""
    inside = any(own["smallest_effect"].max() < _reach(own) for own in shown.values())
    where = " (grey where it lies within an axis)" if inside else ", beyond every axis"
    return (
        f" {listed(list(letters.values()))}: change from Stable Diffusion in percent of its Kernel "
        "Inception Distance (KID), paired by run, left is better; 95% intervals for new patients "
        f"and new runs. X, the smallest change that matters, is {listed(sizes)}{where}.{said}"
    )


def _changes(ax: Axes, own: Rows, lines: Sequence[tuple[str, str | None]]) -> None:
    """A mark and interval per arm on a scale that these set; a number at those told from none."""
    here = own[own["method"].isin([arm for _, arm in lines])]
    size, reach = float(own["smallest_effect"].max()), _reach(own)
    if size < reach:
        ax.axvspan(-size, size, color=GREY, lw=0, zorder=0)
    ax.axvline(0, color="#333333", lw=0.9, zorder=1)
    ax.grid(axis="x")
    for at, (_, arm) in enumerate(lines):
        for _, row in here[here["method"] == arm].iterrows():
            look = arm_look(str(arm))
            whisker(ax, row, at, look, across=True, size=9.0 if look.marker == "*" else 6.0)
    for _, row in _told(here).iterrows():
        at = [arm for _, arm in lines].index(row["method"])
        ax.text(max(row["high"], 0) + 0.02 * reach, at, f"{row['value']:+.1f}%", fontsize=6.5,
                va="center")  # fmt: skip
    ax.set(xlim=(-reach, reach), ylim=(len(lines) - 0.5, -0.5))
    ax.set_xlabel("change in KID, % of Stable Diffusion's")
    ax.locator_params(axis="x", nbins=7)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=6.5)


def _reach(own: Rows) -> float:
    """How far a panel of arms goes to either side."""
    here = own[own["method"].isin([arm for names in ARMS.values() for arm in names])]
    return 1.55 * float(here[["low", "high"]].abs().max().max())  # room for numbers


def _predicted(ax: Axes, table: Rows) -> None:
    """R^2 of every run, a row per method, beside what shuffled scores give."""
    own = table[table["quantity"] == "surrogate_r2"]
    chance = table[table["quantity"] == "surrogate_r2_shuffled"]
    names = in_order(own, "method")
    for at, name in enumerate(names):
        values, none = (x.loc[x["method"] == name, "value"] for x in (own, chance))
        ax.plot([none.min(), none.max()], [at, at], color="#c8c8c8", lw=7, solid_capstyle="butt")
        look = look_of(name)
        ax.plot(values, [at] * len(values), look.marker, color=look.colour, ms=4, alpha=0.8)
    ax.axvline(0, color="#bbbbbb", lw=0.6, zorder=0)
    ax.set_yticks(range(len(names)), [method_name(name) for name in names], fontsize=7)
    ax.set(
        ylim=(max(len(names), 1) - 0.5, -0.5),
        xlabel="share predicted (R\u00b2) in left-out windows",
    )


def _arm_lines(arms: Mapping[str, Rows]) -> list[tuple[str, str | None]]:
    """(label, arm) of every line; a heading has no arm."""
    present = {str(name) for own in arms.values() for name in own["method"]}
    lines = list[tuple[str, str | None]]()
    for heading, names in ARMS.items():
        own = [name for name in names if name in present]
        lines += [(heading, None)] * bool(own)
        lines += [(arm_look(name).label, name) for name in own]
    return lines


# -- the front page's ------------------------------------------------------------------------


@figure("front")
def front(calibration: Rows, verdicts: Rows) -> Figure:
    """The usual audit and ours on known truth; the verdict on every claim, if there is one yet."""
    own = equally_good(calibration)
    kept = {
        "FID: permutation test, each group's own n": "FID, permutation test",
        "FID: t-test over replicates, as released": "FID, t-test over replicates\n(as released)",
        "KID: permutation test, each group's own n": "KID, permutation test",
        "This study's audit (KID)": "this study's audit, KID",
        "This study's audit (equivalent blur)": "this study's audit,\nequivalent blur (decides)",
    }
    if len(verdicts):
        verdicts = verdicts[verdicts["claim"] != "C4"]  # it follows from C2 and C3
    fig = page(2.6 if verdicts.empty else 3.4, "Would you have noticed?", "", (), [*NULLS.values()])
    axes = fig.subplots(1, 1 if verdicts.empty else 2, squeeze=False, width_ratios=None)[0]
    own = own[own["name"].isin(kept)].assign(name=lambda x: x["name"].map(kept))
    alarm_panel(axes[0], own, list(kept.values()))
    axes[0].set_xticks([0.0, 0.5, 1.0])
    axes[0].text(0.065, -0.41, "5% promised", fontsize=6.5, color=MUTED, va="center")
    title = "Equally good groups called unequal (simulated)"
    axes[0].set_title(title, loc="left", fontweight="bold")
    if not verdicts.empty:
        _verdicts(axes[1], verdicts)
    return fig


def _verdicts(ax: Axes, table: Rows) -> None:
    """A field per claim and data set: the outcome in words."""
    claims = [CLAIMS[str(row.claim), str(row.part)] for row in table.itertuples()]
    table = table.assign(named=claims)
    rows, sets = list(dict.fromkeys(claims)), in_order(table, "dataset")
    for _, row in table.iterrows():
        x, y = sets.index(row["dataset"]), rows.index(row["named"])
        words, colour = OUTCOMES[row["outcome"]]
        ax.add_patch(FancyBboxPatch((x - 0.46, y - 0.4), 0.92, 0.8, boxstyle="square,pad=0",
                                    fc=colour, alpha=0.25, lw=0))  # fmt: skip
        ax.text(x, y, words.replace(", ", ",\n").replace("no difference", "no difference\n"),
                ha="center", va="center", fontsize=6)  # fmt: skip
    ax.set(xlim=(-0.5, len(sets) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    names = [dataset_name(name).replace(" ", "\n", 1) for name in sets]
    ax.set_xticks(range(len(sets)), names)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labelsize=6.5)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title("The verdict on each claim", loc="left", fontweight="bold")


CLAIMS = {  # claim and part: what is claimed, in short
    ("C1", "disparity"): "C1: groups differ",
    ("C2", "quality"): "C2: better images",
    ("C2", "equity"): "C2: more equal images",
    ("C3", "quality"): "C3: better classifiers",
    ("C3", "equity"): "C3: more equal classifiers",
    ("C4", ""): "C4: elsewhere, too",
}
MAIN = {  # what each shows
    "main1": "The method and the audit",
    "main2": "The usual audit against this one, the bias of FID, and power",
    "main3": "What was found, data set by data set",
    "main4": "What the optimiser can know, and what each arm changes",
    "front": "The usual audit and this one on known truth, and the verdict",
}
