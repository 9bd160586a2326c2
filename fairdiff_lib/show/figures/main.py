"""The four main figures of the study, and the one of its front page, from finished tables.

``docs/figures.py`` reads the tables and draws them all; panels are those of the notebooks' figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fairdiff_lib.audit.decide import DIFFERENT, LARGER, NO_LARGER, UNDECIDED
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.methods import BASELINE
from fairdiff_lib.settings.names import classifier_name, method_name, name_of, rounded
from fairdiff_lib.show.figures.cohort import draw
from fairdiff_lib.show.figures.mechanism import density_panel, explained_panel
from fairdiff_lib.show.figures.quality import size_panel
from fairdiff_lib.show.figures.studies import (
    GREY,
    NULLS,
    alarm_panel,
    arm_look,
    arms_forest,
    count_seeds,
    equally_good,
    rate_panel,
    with_gap,
)
from fairdiff_lib.show.front import Nothing, figure, shortened
from fairdiff_lib.show.panels import (
    ROW,
    Rows,
    at_zero,
    forest,
    in_order,
    level_rows,
    name_rows,
    of_level,
    panel_legend,
    whisker,
)
from fairdiff_lib.show.style import MUTED, Look, dataset_name, level_looks, look_of, page

HEAD, STRIP = 0.3, 5.9  # inches: height of a data set's name, width of its images
METHOD, AUDIT = "#d55e00", "#0072b2"
OUTCOMES = {  # of a contrast: words, colour, whether it speaks of a difference
    LARGER: ("larger than X", "#d55e00"),
    DIFFERENT: ("different, size open", "#e69f00"),
    NO_LARGER: ("no difference larger than X", "#009e73"),
    UNDECIDED: ("undecided", "#8c8c8c"),
}
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
def main1(pictures: Sequence[np.ndarray] = ()) -> Figure:
    """What the method does to a batch, and what the audit does to its images."""
    foot = (
        "a: one step of training. The noise of every image is new, so the mean weight is 1 "
        "whatever the noise scale is. b: weights under three attributes. c: the audit; what is "
        "tested is written down before there is an image. d: an interval's place against 0 and X, "
        "the smallest difference that matters, decides."
    )  # fmt: skip
    fig = page(4.7, "The method and the audit", foot)
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
        (0.33, 0.70, 0.26, "first: the protocol\n(what, X, power)"),
        (0.00, 0.58, 0.28, "real images of\ntest patients"),
        (0.00, 0.05, 0.28, "images generated\nfor their prompts"),
        (0.35, 0.28, 0.22, "features of one\nfixed network"),
        (0.66, 0.58, 0.34, "each group's distance,\nas a blur in pixels"),
        (0.66, 0.05, 0.34, "difference of groups,\nits interval"),
    ))  # fmt: skip
    for one, other in (((0.28, 0.68), (0.35, 0.50)), ((0.28, 0.20), (0.35, 0.36)),
                       ((0.57, 0.48), (0.66, 0.66)), ((0.83, 0.58), (0.83, 0.33))):  # fmt: skip
        _arrow(left, one, other)
    for at, picture in enumerate(pictures[:2]):
        inset = left.inset_axes((0.36 + 0.1 * at, 0.0, 0.1, 0.24))
        draw(inset, picture)
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
def main2(calibration: Rows, draws: Rows, limit: float, reference: int) -> Figure:
    """False alarms of the usual tests and of ours, the bias of FID, and the audit's power."""
    null, gaps = equally_good(calibration), with_gap(calibration)
    looks = level_looks([f"n = {n}" for n in sorted(set(gaps["n_min"]))])
    groups = {look.label: look for look in level_looks(in_order(draws, "level"))}
    foot = (
        f"a: a dot is a situation of {null['simulations'].min():,} to "
        f"{null['simulations'].max():,} simulated audits of two equally good groups; an alarm is "
        "an error. Line: the 5% that is promised. b: two groups of the same true FID (dashed), "
        "one more varied; dots are draws. c: how often the audit finds a smaller group whose KID "
        f"is larger; n: subjects of the smaller group, {reference} in the other; whiskers: 95% "
        "Monte Carlo intervals."
    )  # fmt: skip
    fig = page(5.2, "The usual audit and this one on known truth (simulated)", foot)
    top, bottom = _halves(fig, (1.1, 1.0))
    ax = top.subplots()
    alarm_panel(ax, null)
    letter(ax, "a", "Who calls equally good groups unequal?", list(NULLS.values()))
    left, right = bottom.subplots(1, 2)
    size_panel(left, draws, groups, {"": limit})
    letter(left, "b", "FID of equally good groups", list(groups.values()))
    rate_panel(right, gaps, "alarm", looks)
    right.set(ylim=(0, 1.04), ylabel="share of audits that find it")
    letter(right, "c", "What this audit finds", looks)
    return fig


# -- 3: data sets ----------------------------------------------------------------------------


@figure("main3")
def main3(found: Sequence[Found]) -> Figure:
    """By data set: generated images, KID and equivalent blur by group, contrasts, AUC lost."""
    if not found:
        raise Nothing("main3: no data set has results yet")
    looks = {name: look_of(name) for name in _methods(found)}
    seen = "Images: what Stable Diffusion drew for the first test prompts of each group. "
    foot = seen * any(one.images for one in found) + (
        "KID: Kernel Inception Distance, 0 where generated and real images look alike. Blur: how "
        "far the group's own real images must be blurred to be as far off. Difference: from the "
        "reference group; in the band it is smaller than X; a grey dot: too few patients to tell, "
        "as declared before. AUC lost: of classifiers of generated images against those of real "
        "ones. 95% intervals, for new patients and, over several runs, new runs. In brackets: test "
        "subjects."
    )  # fmt: skip
    rows = [level_rows(_of(one, "kid")) for one in found]
    sides = [STRIP / _units(one.images) if one.images else 0.0 for one in found]
    heights = [x for side, own in zip(sides, rows, strict=True)
               for x in (HEAD + 1.35 * side, 0.75 + ROW * len(own))]  # fmt: skip
    title = "What was found, data set by data set"
    fig = page(1.2 + sum(heights), title, foot, looks=[*looks.values()])
    grid = fig.add_gridspec(len(heights), 4, height_ratios=heights)  # one: columns are in line
    for at, one in enumerate(found):
        head = fig.add_subplot(grid[2 * at, :])
        head.axis("off")
        name = f"{'abcdefgh'[at]}  {dataset_name(one.dataset)}"
        head.annotate(name, (0.008, 1), xycoords=("figure fraction", "axes fraction"), va="top",
                      fontsize=8.5, fontweight="bold").set_in_layout(False)  # fmt: skip
        if one.images:
            _strip(head, one.images)
        _panels([fig.add_subplot(grid[2 * at + 1, k]) for k in range(4)], one, rows[at], looks)
    return fig


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
    """KID, equivalent blur, difference and AUC lost, all by the same rows."""
    for ax, metric, title in (
        (axes[0], "kid", "KID"),
        (axes[1], "equivalent_blur", "Blur, pixels"),
    ):
        forest(ax, _of(one, metric), rows, looks)
        ax.set_title(title, loc="left")
    _contrasts(axes[2], one.tests, rows)
    _lost(axes[3], one, rows, looks)
    counts = _of(one, "kid").groupby(["attribute", "level"])["n"].min()
    name_rows(axes[0], [f"{'All' if key[0] == 'overall' else key[1]} ({counts[key]:,.0f})"
                        for key in rows])  # fmt: skip
    for ax in axes:
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0, labelleft=ax is axes[0])
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(axis="x", labelsize=6.5)


def _contrasts(ax: Axes, tests: Rows, rows: Sequence[tuple[str, str]]) -> None:
    """Differences in equivalent blur of the baseline's images, in the rows of their levels."""
    own = tests[(tests["claim"] == "C1") & (tests["endpoint"] == "equivalent_blur")]
    smallest = float(own["smallest_effect"].max())
    ax.axvspan(-smallest, smallest, color=GREY, lw=0, zorder=0)
    for at, key in enumerate(rows):
        for _, row in of_level(own, *key).iterrows():
            colour = OUTCOMES[row["outcome"]][1] if row["testable"] else MUTED
            whisker(ax, row, at, Look("", colour, "o"), across=True)
        if key in _references(own):
            ax.text(0, at, "reference", fontsize=6, color=MUTED, ha="center", va="center")
    at_zero(ax, across=True)
    ax.set_title(f"Difference (X: {rounded(smallest)})", loc="left")
    ax.set_xlabel("pixels of blur", fontsize=6.5)


def _lost(ax: Axes, one: Found, rows: Sequence[tuple[str, str]], looks: Mapping[str, Look]) -> None:
    """How much lower the AUC is than of real images' classifiers, for the first classifier."""
    ax.set_title("AUC lost", loc="left")
    table = one.changes
    if table.empty:
        ax.text(0.5, 0.5, "no classifier yet", transform=ax.transAxes, ha="center", color=MUTED)
        return
    own = table[(table["baseline"] == "real") & (table["metric"] == "auc")]
    own = own[own["condition"] == one.condition]
    own = own[own["classifier"] == own["classifier"].iloc[0]]
    new = "_new" * bool("low_new" in own and own["low_new"].notna().any())  # patients and runs
    turned = own.assign(value=-own["value"], low=-own[f"high{new}"], high=-own[f"low{new}"])
    forest(ax, shortened(turned.drop(columns="n")), rows, looks)
    name = classifier_name(str(own["classifier"].iloc[0])).split(" ")[0]
    ax.set_xlabel(f"{name_of(one.condition)}, {name}", fontsize=6.5)


# -- 4: mechanism and equivalence ------------------------------------------------------------


@figure("main4")
def main4(mechanism: Rows, arms: Mapping[str, Rows]) -> Figure:
    """What moves the optimiser's score, whether it can be predicted, and what each arm changes."""
    foot = (
        "a: share of the score's variance, with its interval over batches. b: share of left-out "
        "windows' variance that the Gaussian process predicts from sigma, a dot per run; grey: "
        "with shuffled scores. c: change in Kernel Inception Distance (KID) from Stable "
        "Diffusion, paired by run, left is better; 95% intervals; grey band: smaller than what "
        "matters. On the right: number of runs."
    )  # fmt: skip
    lines = _arm_lines(arms)
    fig = page(2.9 + 0.19 * len(lines), MAIN["main4"], foot)
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
    for at, (ax, (dataset, table)) in enumerate(zip(axes, arms.items(), strict=True)):
        own = table[(table["baseline"] == BASELINE) & (table["attribute"] == "overall")]
        own = own[(own["metric"] == "kid") & (own["features"] == own["features"].iloc[0])]
        arms_forest(ax, own, lines, "")
        count_seeds(ax, own, lines)
        ax.set_xlabel("change in KID")
        letter(ax, "c" if at == 0 else " ", dataset_name(dataset))
    axes[0].set_yticks(range(len(lines)), [text for text, _ in lines])
    for text, (_, arm) in zip(axes[0].get_yticklabels(), lines, strict=True):
        text.set_fontweight("bold" if arm is None else "normal")
        text.set_fontsize(7)
    return fig


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
        "This study's audit (KID)": "this study's audit (KID)",
    }
    if len(verdicts):
        verdicts = verdicts[verdicts["claim"] != "C4"]  # it follows from C2 and C3
    fig = page(2.6 if verdicts.empty else 3.4, "Would you have noticed?", "", (), [*NULLS.values()])
    axes = fig.subplots(1, 1 if verdicts.empty else 2, squeeze=False, width_ratios=None)[0]
    own = own[own["name"].isin(kept)].assign(name=lambda x: x["name"].map(kept))
    alarm_panel(axes[0], own, list(kept.values()))
    axes[0].set_xticks([0.05, 0.5, 1.0])
    axes[0].set_title("Equally good groups that are called unequal", loc="left", fontweight="bold")
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
