"""Sentences on the mechanism (06), the ablation (08), the proof (10), matrix (13), plant (19)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from fairdiff_lib.audit.blur import SMALLEST_BLUR
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.settings.names import (
    CHECKED,
    LABEL_FAULTS,
    classifier_name,
    images_of,
    level_name,
    method_name,
    name_of,
    number,
    rounded,
    with_interval,
)
from fairdiff_lib.settings.options import PlantedConfig
from fairdiff_lib.show.figures.evidence import TRAINED_ON
from fairdiff_lib.show.figures.studies import METRICS, NULLS, PROCEDURES, cell_name
from fairdiff_lib.show.front import sentence
from fairdiff_lib.show.style import ordered_methods
from fairdiff_lib.show.words import LEAST, Row, Rows, bullets, counted, listed, told_from

# -- 06: the mechanism -----------------------------------------------------------------------


@sentence("optimiser")
def about_optimiser(runs: Rows) -> str:
    """How often the optimiser was asked, and its share of the training time, per method."""
    asked = runs[runs["proposals"] > 0]  # others have no optimiser, or windows longer than the run
    lines = (
        f"{method_name(str(method))}: the optimiser chose the noise scales "
        f"{own['proposals'].sum():.0f} times in {counted(len(own), 'run')}. That took "
        f"{own['optimiser_share'].mean():.1%} of the training time."
        for method, own in asked.groupby("method", sort=False)
    )
    return bullets(lines, none="No run's optimiser was asked.")


def _values(table: Rows, quantity: str, method: str) -> Rows:
    return table[(table["quantity"] == quantity) & (table["method"] == method)]


def _mean(table: Rows, quantity: str, method: str) -> float:
    """Over seeds."""
    return float(_values(table, quantity, method)["value"].mean())


def _methods_of(table: Rows, quantity: str) -> list[str]:
    return list(dict.fromkeys(table.loc[table["quantity"] == quantity, "method"]))


@sentence("surrogate")
def about_surrogate(table: Rows) -> str:
    """Whether sigma predicts the scores of windows that the surrogate hasn't seen."""
    lines, tested = [], 0
    for method in _methods_of(table, "surrogate_p"):
        p = _values(table, "surrogate_p", method)["value"]
        # a share that rounds to nothing has no sign
        runs = [round(x, 3) + 0.0 for x in _values(table, "surrogate_r2", method)["value"]]
        r2 = listed([f"{x:.3f}" for x in runs])
        chance = round(_mean(table, "surrogate_r2_shuffled", method), 3) + 0.0
        beats = int((p <= LEAST).sum())
        head = "knowing sigma does not help to predict the score"
        if beats:
            head = (
                f"knowing sigma helps to predict the score in {beats} of {counted(len(p), 'run')}"
            )
        lines.append(
            f"{method_name(method)}: {head}. Run by run the fit explains {r2} of the variance of "
            f"left-out windows (R\u00b2); with shuffled scores {chance:.3f} on average. The "
            f"smallest p is {p.min():.2f}."
        )
        tested += len(p)
    if tested > 1:
        lines.append(f"By chance alone {LEAST * tested:.1f} of these {tested} runs would help.")
    return bullets(lines, "No run has a surrogate to judge: it takes scores in two windows.")


@sentence("foreseen")
def about_foresight(table: Rows) -> str:
    """In how many runs sigma predicts the score, in one line."""
    p = table.loc[table["quantity"] == "surrogate_p", "value"]
    if p.empty:
        return "No run has a surrogate to judge."
    help_ = int((p <= LEAST).sum())
    said = "Knowing sigma helps to predict the score" if help_ > LEAST * len(p) + 1 else (
        "Knowing sigma hardly helps to predict the score"
    )  # fmt: skip
    return (
        f"**{said}**: it does so in {help_} of {counted(len(p), 'run')}. Chance alone would make "
        f"that {LEAST * len(p):.1f}."
    )


@sentence("weights")
def about_weights(table: Rows) -> str:
    """Negative weights, and the levels whose mean weight is not 1."""
    lines = []
    for method in _methods_of(table, "weight"):
        own = _values(table, "weight", method)
        off = int(((own["low"] > 1.0) | (own["high"] < 1.0)).sum())
        far = own.iloc[int((own["value"] - 1.0).abs().argmax())]
        text = (
            f"{method_name(method)}: the mean weight is told from 1 in {off or 'none'} of "
            f"{len(own)} cases (a group in a run). The furthest is {far['level']}'s, {number(far)}."
        )
        if len(_values(table, "negative_weights", method)):
            text += f" {_mean(table, 'negative_weights', method):.1%} of weights are negative"
            if len(_values(table, "negative_weights_theory", method)):
                theory = _mean(table, "negative_weights_theory", method)
                text += f"; the Gaussian formula gives {theory:.1%}"
            text += "."
        lines.append(text)
    return bullets(lines, "Every weight of every run is 1.")


@sentence("steps")
def about_steps(table: Rows) -> str:
    """Clipping, and how far an update reaches beside the baseline's."""
    lines = []
    for method in _methods_of(table, "clip_factor"):
        spans, factor = (_mean(table, name, method) for name in ("clipped_spans", "clip_factor"))
        text = (
            f"{method_name(method)}: gradients were clipped in {spans:.0%} of the logged spans. "
            f"Clipping leaves {factor:.3f} of a gradient's length on average."
        )
        ratios = _values(table, "drift_ratio", method)["value"]
        if len(ratios):
            side = "shorter" if ratios.mean() < 1 else "longer"
            text += (
                f" An update, averaged over the noise, is {abs(ratios.mean() - 1):.1%} {side} than "
                "the baseline's."
            )
        lines.append(text)
    return bullets(lines, "No run has logged gradient norms.")


@sentence("noise")
def about_noise(table: Rows, method: str, alike: str, baseline: str = "none") -> str:
    """What the noise does to updates, beside noise of the same size that knows nothing."""
    ours, others = (_mean(table, "clipped_spans", name) for name in (method, baseline))
    shorter, drawn = (1 - _mean(table, "drift_ratio", name) for name in (method, alike))
    if not np.isfinite([ours, others, shorter, drawn]).all():
        return "No run has logged gradient norms."
    verb = "shortens" if shorter > 0 else "lengthens"
    head = f"{method_name(method)}'s noise {verb} the updates"
    head += ", and so does noise that knows no score" if shorter * drawn > 0 else ""
    return (
        f"**{head}**: by {abs(shorter):.0%}, and by {abs(drawn):.0%} ({method_name(alike)}). "
        f"Gradients are clipped in {ours:.0%} of the logged spans; without noise in {others:.0%}."
    )


@sentence("gap")
def about_gap(table: Rows) -> str:
    """What the gap of a batch is made of, at the checkpoint."""
    own = table.drop_duplicates("quantity").set_index("quantity")
    if "explained_timesteps" not in own.index:
        return "The gap of a batch was not measured."
    value, low, high = (own[side].astype(float).to_dict() for side in ("value", "low", "high"))

    def share(name: str) -> str:
        key = f"explained_{name}"
        return f"{value[key]:.0%} ({low[key]:.0%} to {high[key]:.0%})"

    gap, pooled, alone = (value[key] for key in ("gap_mean", "gap_pooled", "gap_from_timesteps"))
    first, second = "explained_timesteps", "explained_groups"
    head = "Neither the draw of timesteps nor the groups alone tells how large a batch's gap is"
    for one, other, name in ((first, second, "draw of timesteps"), (second, first, "groups")):
        head = f"The gap of a batch follows the {name} more" if low[one] > high[other] else head
    absent = np.isfinite(value["explained_absent"])
    return f"**{head}.**\n\n" + bullets(
        [
            f"A batch's gap in loss is {gap:.3f} on average.",
            f"The same samples pooled have a gap of {pooled:.3f}.",
            f"Timesteps alone, which know no group, make one of {alone:.3f}.",
            f"The draw of timesteps explains {share('timesteps')} of the gap's variance.",
            f"Groups explain {share('groups')}; both, and which group drew which timestep, "
            f"{share('both')}.",
            f"Levels absent from a batch explain {share('absent')}."
            if absent
            else "Every batch had patients of every group.",
        ]
    )


@sentence("gradients")
def about_gradients(table: Rows, cosines: Rows) -> str:
    """Whether levels pull apart, and what the perturbation leaves of a batch's gradient."""
    lines = []
    if len(cosines):
        apart, pairs = pulling_apart(cosines)
        same = (cosines["attribute"] == cosines["other_attribute"]) & (
            cosines["level"] == cosines["other_level"]
        )
        own = cosines.loc[same, "value"]
        lines.append(
            f"{apart} of {counted(pairs, 'pair')} of groups pull apart: their gradients agree less "
            "with each other than each does with itself on other images. With itself a group's "
            f"gradient has a cosine of {own.min():.2f} to {own.max():.2f}; near 0, the noise of so "
            "few images hides whatever there is."
        )
    for method in _methods_of(table, "perturbed_cosine"):
        angle, length = (_mean(table, f"perturbed_{n}", method) for n in ("cosine", "norm"))
        lines.append(
            f"{method_name(method)}, at its mean sigma: the weighted gradient of a batch has a "
            f"cosine of {angle:.2f} with the plain one. It is {length:.2f} times as long."
        )
    return bullets(lines, "No gradient was measured: the model is too large for this probe.")


def pulling_apart(cosines: Rows) -> tuple[int, int]:
    """Pairs of one attribute's levels whose cosine is below both own ones, and number of pairs."""
    keys = ("attribute", "level", "other_attribute", "other_level")
    columns = [cosines[name].astype(str) for name in keys]
    value = dict(zip(zip(*columns, strict=True), cosines["value"], strict=True))
    places = list(dict.fromkeys((a, b) for a, b, _, _ in value))
    pairs = [(p, q) for i, p in enumerate(places) for q in places[i + 1 :] if p[0] == q[0]]
    apart = [value[(*p, *q)] < min(value[(*p, *p)], value[(*q, *q)]) for p, q in pairs]
    return sum(apart), len(pairs)


@sentence("dose")
def about_dose(effects: Rows) -> str:
    """What more sigma for a level does to its own held-out loss, and to the gap."""
    lines = []
    for reweighting, part in effects.groupby("reweighting", sort=False):
        own, gap = (part[part["outcome"] == name] for name in ("own_loss", "gap"))
        if not bool(np.isfinite(own["low"]).any()):
            lines.append(f"Reweighting by {reweighting}: too few cells for intervals.")
            continue
        helped, hurt = int((own["high"] < 0).sum()), int((own["low"] > 0).sum())
        moved = gap[(gap["low"] > 0) | (gap["high"] < 0)]
        names = listed([f"{row.level} ({row.value:+.4f})" for row in moved.itertuples()])
        lines.append(
            f"Reweighting by {reweighting}: with more sigma, a group's own loss falls for {helped} "
            f"and rises for {hurt} of {counted(len(own), 'group')}, beyond the interval. It "
            f"changes by {own['value'].mean():+.4f} on average. The gap moves with the sigma of "
            f"{len(moved)} of {counted(len(gap), 'group')}{': ' * bool(names)}{names}."
        )
    return bullets(lines)


LEVEL, STRICT = 0.05, 0.001  # what an interval promises to miss; where more is no chance
PRIMARY, DISPARITY = "primary", "kid_disparity"
ALPHA = 0.05  # of an adjusted p, for words alone: tables print the number
ENDPOINTS = {
    "kid": "image quality (KID)",
    DISPARITY: "the disparity between groups (squared KID difference)",
}


def _pair(row: Mapping[Any, Any]) -> str:
    return f"{method_name(row['method'])} against {method_name(row['baseline'])}"


def leaves_out(row: Mapping[Any, Any]) -> bool:
    """Whether the interval, for new patients and new runs, leaves out all that would matter."""
    most = row["smallest_effect"]
    return bool(-most < row["low_new"] and row["high_new"] < most)


def about_comparison(row: Mapping[Any, Any]) -> str:
    """One declared comparison: what was decided, then its size, its test, what it could miss."""
    size = with_interval(row["value"], row["low"], row["high"])
    said = f"**{_pair(row)}**, {ENDPOINTS[row['metric']]}: "
    if not np.isfinite(row["p_adjusted"]):
        return f"**{_pair(row)}**: too few seeds for a test; {_untested(row)}"
    if row["p_adjusted"] < ALPHA:
        worse = "better" if row["value"] < 0 else "worse"
        return f"{said}{worse}. The change is {size}, adjusted p {row['p_adjusted']:.2g}"
    if row["p_equivalence"] < ALPHA:
        share = abs(row["value"]) / row["smallest_effect"]
        return (
            f"{said}no change as large as what matters. The change is {share:.0%} of the smallest "
            f"one of interest: {size}"
        )
    return (
        f"{said}undecided. The change is {size}; one of {row['mde']:.2g} would have been found in "
        "four of five studies"
    )


@sentence("declared")
def about_declared(methods: pd.DataFrame) -> str:
    """The declared comparisons, a line each; of too few seeds, a line for each two arms."""
    rows = methods[methods["role"] == PRIMARY]
    if np.isfinite(rows["p_adjusted"]).any():
        return "\n".join(f"- {about_comparison(row)}." for row in rows.to_dict("records"))
    lines = []
    for _, own in rows.groupby(["method", "baseline"], sort=False):
        parts = [_untested(row) for row in own.to_dict("records")]
        lines.append(f"**{_pair(own.iloc[0].to_dict())}**: {'; '.join(parts)}.")
    return f"Too few seeds for a test; what the intervals say:\n\n{bullets(lines)}"


def _untested(row: Mapping[Any, Any]) -> str:
    """A change without a test: its size, and whether its interval leaves out what would matter."""
    new = np.isfinite(row["low_new"])
    low, high = (row[f"{side}_new" if new else side] for side in ("low", "high"))
    of_whom = "" if new else ", for these patients alone"
    said = f"{ENDPOINTS[row['metric']]} {with_interval(row['value'], low, high)}{of_whom}"
    most = rounded(row["smallest_effect"])
    return f"{said}, no change as large as what matters ({most})" if leaves_out(row) else said


@sentence("comparators")
def about_comparators(methods: pd.DataFrame, arms: Sequence[str]) -> str:
    """What other ways than the method's do to the images, against Stable Diffusion, a line each."""
    own = methods[(methods["baseline"] == "none") & methods["metric"].isin(ENDPOINTS)]
    own = own[own["attribute"] == "overall"]
    own = own[own["features"].eq(methods["features"].iloc[0])]  # the study's own space
    lines = []
    for arm in arms:
        parts = [_untested(row) for row in own[own["method"] == arm].to_dict("records")]
        if parts:
            lines.append(f"**{method_name(arm)}**: {'; '.join(parts)}.")
    return bullets(lines, none="No comparator was run.")


@sentence("bayesian_part")
def about_bayes(methods: pd.DataFrame, arm: str, shuffled: str) -> str:
    """Does what the optimiser is told matter?"""
    rows = methods[(methods["role"] == PRIMARY) & (methods["method"] == arm)]
    rows = rows[rows["baseline"] == shuffled]
    name = f"- **{method_name(arm)} against itself with shuffled scores.**"
    if rows.empty or not np.isfinite(rows["p_adjusted"]).any():
        alike = [ENDPOINTS[row["metric"]] for row in rows.to_dict("records") if leaves_out(row)]
        if not alike:
            return f"{name} Too few seeds for a test."
        return (
            f"{name} With its scores in random order nothing changes by as much as what matters in "
            f"{listed(alike)}: the interval leaves it out. There are too few seeds for a test."
        )
    found = rows[rows["p_adjusted"] < ALPHA]
    if len(found):
        better = "better" if (found["value"] < 0).all() else "different, not better in all,"
        ends = ", ".join(ENDPOINTS[name] for name in found["metric"])
        return f"{name} It is {better} in {ends}: the Bayesian part does something."
    equal = rows[rows["p_equivalence"] < ALPHA]
    if len(equal) == len(rows):
        return (
            f"{name} Whatever the optimiser is told, the images are as good and as equal: the "
            "Bayesian part does nothing as large as what matters, in both endpoints."
        )
    ends = ", ".join(ENDPOINTS[name] for name in equal["metric"])
    part = f"equivalent in {ends}, undecided in the rest" if len(equal) else "undecided"
    return f"{name} It is {part}. No test says that the Bayesian part matters."


@sentence("noise_dose")
def about_noise_dose(doses: pd.DataFrame, cells: pd.DataFrame) -> str:
    """How far the noise's variance alone tells what a setting does; a description."""
    if cells.empty:
        return "Other windows and drift rates were not run on this data set."
    own = doses[doses["metric"] == "kid"]
    inside = own[own["method"].isin(set(cells["method"]))]
    lines = ["Described, not tested."]
    for label, part in (("the settings of T12", inside), ("all arms of pure noise", own)):
        r = np.corrcoef(part["noise_variance"], part["value"])[0, 1]
        lines.append(
            f"Over the {len(part)} runs of {label}, the variance of the weights explains "
            f"{100 * r * r:.0f}% of the variation of the change in KID (correlation {r:+.2f})."
        )
    return " ".join(lines)


@sentence("cost")
def about_cost(cost: pd.DataFrame, large_step_seconds: float) -> str:
    """The optimiser's share, here and where steps are slow."""
    names = ["optimiser_share", "measure_share", "seconds_per_proposal", "share_at_large_step"]
    fair = cost[cost["proposals"] > 0].groupby("method")[names].mean()
    if "fairdiffusion" not in fair.index:
        return "No arm has an optimiser."
    own, most = fair.loc["fairdiffusion"], fair.max()
    top = method_name(str(fair["optimiser_share"].idxmax()))
    return (
        f"The optimiser takes {own['optimiser_share']:.1%} of FairDiffusion's training time. The "
        f"most that it takes in any arm is {most['optimiser_share']:.1%} ({top}). Measuring gaps "
        f"on held-out patients takes up to {most['measure_share']:.1%} more. A proposal takes "
        f"{own['seconds_per_proposal']:.2f} s whatever the network's size. At an assumed "
        f"{large_step_seconds:g} s a step of Stable Diffusion 2.1, the optimiser's share would be "
        f"{own['share_at_large_step']:.2%}."
    )


@sentence("proof_criteria")
def about_criteria(asked: Mapping[str, Any]) -> str:
    """What was fixed beforehand."""
    return (
        f"What is asked of the audit was fixed before the proof was run. A test may alarm in 5% of "
        f"audits of equally good groups. A 95% interval may lie above the truth in 2.5% of audits, "
        f"and below it in 2.5%. A count scatters by chance, so each of them has a limit. The "
        f"limits are computed from the number of audits and of checks: an audit whose true rates "
        f"are just those passes *all* checks with probability {asked['sure']:.0%}. Most cells have "
        f"{asked['simulations']:,} audits; the seed is {asked['seed']}."
    )


@sentence("proof_audit")
def about_audit(checks: pd.DataFrame) -> str:
    """How many checks pass, the extremes, and every check that fails."""
    alarms = checks[(checks["metric"] == "kid") & (checks["check"] == "alarm")]
    cells = alarms[alarms["null"] != ""]
    layers = {"F": "drawn features", "I": "simulated images", "T": "a trained model's images"}
    pooled = "; ".join(
        f"{row['rate']:.2%} of {row['simulations']:,} audits of {layers[row['layer']]} (limit "
        f"{row['limit']:.2%})"
        for row in alarms[alarms["null"] == ""].to_dict("records")
    )
    lines = [
        f"**{int(checks['passed'].sum())} of {len(checks)} checks pass**: the rate is not told "
        "from what is promised. Where groups are equally good, an audit by Kernel Inception "
        f"Distance (KID) raises a false alarm in {_rates(cells['rate'])} of audits, situation by "
        "situation. Over all situations, among them generators that are perfect or nearly so, "
        f"about which hardly an audit alarms: {pooled}.\n"
    ]
    return "\n".join([*lines, *_failed(checks)])


def _failed(checks: pd.DataFrame) -> Iterator[str]:
    """A line for each promise that is not kept."""
    for row in checks[~checks["passed"]].to_dict("records"):
        null = NULLS[row["null"]].label + ", " if row["null"] in NULLS else ""
        form = ".3f" if row["check"] == "off" else ".2%"
        yield (
            f"- **Fails**: {cell_name(row)}, {null}{CHECKED[row['check']]}: {row['rate']:{form}} "
            f"where {row['promised']:{form}} is promised (limit {row['limit']:{form}})."
        )


@sentence("proof_decisions")
def about_decisions(table: pd.DataFrame, checks: pd.DataFrame) -> str:
    """What verdicts in equivalent blur say of differences of nothing, X and 2 X; what fails."""
    size = (table["truth"].abs() / SMALLEST_BLUR).round()
    none, just, twice = (table[size == times] for times in (0, 1, 2))
    x, audits = f"{SMALLEST_BLUR:g} px", int(table["simulations"].min())
    lines = [
        f"**{int(checks['passed'].sum())} of {len(checks)} checks of the verdicts in equivalent "
        "blur pass.**\n",
        f'- A true difference of just X = {x}: it is called "no larger than X" in '
        f'{_rates(just["no_larger"])} of audits, situation by situation, and "larger than X" in '
        f"{_rates(just['larger'])}. Each is promised in 5% at most; chance moves a rate of "
        f"{audits:,} audits by {1.96 * np.sqrt(LEVEL * (1 - LEVEL) / audits):.1%} either way.",
        f"- 95% intervals miss the true difference in {_rates(table['missed'])} of audits.",
        f'- A true difference of 2 X: "larger than X" in {_rates(twice["larger"])} of audits. '
        f'None: "no difference larger than X" in {_rates(none["no_larger"])}. The least of '
        "both is where intervals are wider than X: little can be decided there.",
    ]
    changes = table[table["situation"].str.startswith("change of")]
    count = int(changes["simulations"].sum())
    missed = round(float((changes["missed"] * changes["simulations"]).sum()))
    if count and stats.binomtest(missed, count, LEVEL, "greater").pvalue < STRICT:
        lines.append(
            f"- Changes from one method to another, all situations together: intervals miss in "
            f"{missed / count:.1%} of {count:,} audits, more than the {LEVEL:.0%} that is "
            "promised. Three runs tell little of what runs do."
        )
    return "\n".join([*lines, *_failed(checks)])


def _rates(rates: pd.Series[float]) -> str:
    return f"{rates.min():.1%} to {rates.max():.1%}"


@sentence("proof_tails")
def about_tails(table: pd.DataFrame) -> str:
    """Both tails of the KID contrast, beside those of t-intervals."""
    own = table[(table["situation"] == "two groups") & table["null"].isin(list(NULLS))]
    images = own[(own["procedure"] == "audit") & (own["layer"] == "I") & (own["metric"] == "kid")]
    lines = []
    for procedure, words in (("audit", "This audit"), ("kid_t_interval", "Usual t-intervals")):
        part = own[(own["procedure"] == procedure) & (own["layer"] == "F")]
        lines.append(
            f"{words}: the small group is wrongly called worse in {part['above'].min():.1%} to "
            f"{part['above'].max():.1%} of audits, wrongly called better in "
            f"{part['below'].min():.1%} to {part['below'].max():.1%}."
        )
    if len(images):
        worst = images.sort_values("below").iloc[-1]
        lines.append(
            f"These are features of a known law. On simulated images the small group is wrongly "
            f"called better in up to {worst['below']:.1%} (of {worst['n_min']:.0f} patients); "
            "promised are 2.5%."
        )
    return bullets(lines)


def _from_to(rates: pd.Series[float]) -> str:
    ends = dict.fromkeys(f"{rate:.0%}" for rate in (rates.min(), rates.max()))
    return " to ".join(ends)


@sentence("proof_usual_tests")
def about_usual_tests(table: pd.DataFrame) -> str:
    """One line per test in common use: the range of its false alarms in each null."""
    own = table[(table["procedure"] != "audit") & (table["metric"] != "es_auc")]
    lines = ["How often other procedures call equally good groups unequal:\n"]
    for (metric, procedure), part in own.groupby(["metric", "procedure"], sort=False):
        rates = [
            f"{_from_to(cell['alarm'])} ({NULLS[str(null)].label})"
            for null, cell in part.groupby("null", sort=False)
        ]
        lines.append(f"- {METRICS[str(metric)]}, {PROCEDURES[str(procedure)]}: {'; '.join(rates)}.")
    return "\n".join(lines)


@sentence("proof_fid_bias")
def about_fid_bias(rows: pd.DataFrame, limit: float) -> str:
    """What plain FID makes of groups whose population FID is the same, at the fewest and most."""
    means = rows.groupby(["n", "level"], sort=False)["value"].mean().unstack("level")
    few, many = (
        " and ".join(f"{value:.3g} for the {level}" for level, value in means.loc[n].items())
        for n in (means.index.min(), means.index.max())
    )
    return (
        f"Both groups are equally good: their true Frechet Inception Distance (FID) is "
        f"{limit:.3g}. "
        f"With {means.index.min():,} images, measured FID is {few}. With {means.index.max():,} "
        f"images it is {many}. What differs is bias and chance, not quality."
    )


# -- 13: the matrix --------------------------------------------------------------------------


@sentence("learning")
def about_learning(table: Rows, condition: str) -> str:
    """AUC of real images alone, share by share."""
    rows = _auc_of_all(table, condition)
    own, _ = means_and_seeds(rows[rows["method"] == "real"], ["method", "share"])
    return f"Real images alone, AUC for {name_of(condition).lower()}:\n\n" + bullets(
        f"with {100 * row['share']:g}% of the subjects {number(row)}"
        for _, row in own.sort_values("share").iterrows()
    )


@sentence("arms")
def about_arms(changes: Rows, condition: str) -> str:
    """Every arm against real images, overall."""
    rows = _auc_of_all(changes, condition)
    lines = [
        f"{method_name(arm)}: {'; '.join(_change(row) for _, row in own.iterrows())}."
        for arm in ordered_methods(rows["method"])
        for own in [rows[rows["method"] == arm].sort_values("share")]
    ]
    return f"AUC minus that of real images alone:\n\n{bullets(lines)}\n\n{_basis(rows)}"


@sentence("balance")
def about_balance(changes: Rows, condition: str, attribute: str) -> str:
    """What balanced images change for each level of the attribute."""
    rows = changes[(changes["condition"] == condition) & (changes["metric"] == "auc")]
    rows = rows[(rows["attribute"] == attribute) & rows["method"].str.contains("balanced")]
    return bullets(
        f"{level} (n = {own['n'].min()}): "
        + "; ".join(f"{method_name(row['method'])} {_change(row)}" for _, row in own.iterrows())
        for level, own in rows.groupby("level", sort=False)
    )


@sentence("transfer")
def about_transfer(table: Rows, condition: str) -> str:
    """Per classifier, both directions between real and each method's images."""
    rows, _ = means_and_seeds(_auc_of_all(table, condition), ["method", "tested_on", "classifier"])
    lines = []
    for name, own in rows.groupby("classifier", sort=False):
        said = {(row["method"], row["tested_on"]): number(row) for _, row in own.iterrows()}
        parts = [f"trained and tested on real images {said['real', 'real']}"]
        for method in ordered_methods(own["method"]):
            if method != "real":
                images = images_of(method)
                parts.append(f"trained on {images}, tested on real ones {said[method, 'real']}")
                parts.append(f"trained on real images, tested on {images} {said['real', method]}")
        lines.append(f"{classifier_name(str(name))}: {'; '.join(parts)}.")
    return bullets(lines)


def _auc_of_all(table: Rows, condition: str) -> Rows:
    """Overall AUC rows of a condition."""
    chosen = (table["condition"] == condition) & (table["metric"] == "auc")
    return table[chosen & (table["attribute"] == "overall")]


def _change(row: Row) -> str:
    """A difference, and whether its interval for new patients leaves zero out."""
    where = "against all real images"
    if row["share"]:
        where = f"with {100 * row['baseline_share']:g}% of the real images"
    value, low, high = (float(row[name]) for name in ("value", "low_new", "high_new"))
    if not np.isfinite(value):
        return f"{where} not estimable"
    if not np.isfinite(low):
        return f"{where} {value:+.3f}"
    told = told_from(row, 0, ("higher", "lower", "no difference seen"), "_new")
    return f"{where} {value:+.3f} ({low:+.3f} to {high:+.3f}; {told})"


def _basis(rows: Rows) -> str:
    """What the intervals rest on, or why there is none."""
    count = int(rows["n_seeds"].max()) if len(rows) else 0
    if count < 2:
        return "With one seed, a difference between arms can't be told from chance in training."
    without = " Too few for a p-value." * bool(rows["p"].isna().all())
    return f"Paired over {count} seeds; intervals hold for new patients and new seeds.{without}"


# -- 16: a changed word ----------------------------------------------------------------------


@sentence("counterfactual")
def about_counterfactual(table: Rows, condition: str) -> str:
    """What a change of each attribute's word does, and what another noise does, by method."""
    rows = means_and_seeds(table[table["attribute"] == "overall"], ["method"])[0]
    lines = []
    for method in ordered_methods(rows["method"]):
        for changed, own in rows[rows["method"] == method].groupby("changed", sort=False):
            said = {(r["condition"], r["metric"]): r for r in own.to_dict("records")}
            moved, flips = said["all", "moved"], said[condition, "finding_flips"]
            what = f"another {name_of(str(changed)).lower()}"
            lines.append(
                f"{method_name(method)}, {what}: images move by {number(moved)} of the way to "
                f"another patient's, as a blur of {said['all', 'moved_blur']['value']:.1f} pixels "
                f"would. {name_of(condition)} is read otherwise in {flips['value']:.0%} of images "
                f"({flips['low']:.0%} to {flips['high']:.0%})."
            )
    return bullets(lines)


@sentence("flips_by_level")
def about_flips(table: Rows, condition: str) -> str:
    """The level whose finding flips most when its word is changed, by attribute and method."""
    rows = means_and_seeds(table[table["condition"] == condition], ["method"])[0]
    rows = rows[(rows["metric"] == "finding_flips") & (rows["attribute"] != "overall")]
    lines = []
    for (method, changed), own in rows[rows["changed"] != "noise"].groupby(
        ["method", "changed"], sort=False
    ):
        known = own[np.isfinite(own["value"])].sort_values("value")
        if len(known):
            most, least = known.iloc[-1], known.iloc[0]
            said = f"most for {most['level']}, {number(most)}; "
            said += f"least for {least['level']}, {number(least)}"
            said = said if most["value"] > 0 else "it flips in no image"
            lines.append(f"{method_name(str(method))}, {name_of(str(changed)).lower()}: {said}.")
    return bullets(lines, none="No group was large enough.")


# -- 17: spoilt labels -----------------------------------------------------------------------


@sentence("stress")
def about_stress(table: Rows, layer: str) -> str:
    """Per fault: from which share of spoilt labels on the audit misses, or cries wolf."""
    own, lines = table[table["layer"] == layer], []
    clean = own[own["fault"] == ""].set_index("event")
    for fault in dict.fromkeys(own.loc[own["fault"] != "", "fault"]):
        said = []
        for event, rows in own[own["fault"] == fault].groupby("event", sort=False):
            most = rows["share"].max()
            told = rows[rows["low"] > max(LEAST, float(clean.loc[event, "high"]))]
            row = told.sort_values("share").iloc[0] if len(told) else None
            what = f"no more often than with clean labels, up to {most:.0%} of them"
            if row is not None:
                rates = rows[rows["share"] >= row["share"]].sort_values("share")
                often, shares = (
                    listed([f"{x:.0%}" for x in rates[key]]) for key in ("value", "share")
                )
                what = f"in {often} of audits at {shares} of labels"
            said.append(f"{event}: {what}")
        lines.append(f"**Labels {LABEL_FAULTS[str(fault)]}.** {'; '.join(said)}.")
    rates = "; ".join(f"{event} {row['value']:.0%}" for event, row in clean.iterrows())
    return f"With clean labels: {rates}.\n\n{bullets(lines)}"


# -- 18: generations -------------------------------------------------------------------------


@sentence("generations")
def about_generations(table: Rows) -> str:
    """Equivalent blur of all, generation by generation, by what it was trained on."""
    rows, _ = means_and_seeds(table[table["metric"] == "equivalent_blur"], ["arm"])
    rows = rows[rows["attribute"] == "overall"]
    lines = []
    for arm, own in rows.groupby("arm", sort=False):
        told = "; ".join(
            f"generation {r['generation']} {number(r)}" for r in own.to_dict("records")
        )
        lines.append(f"With {TRAINED_ON[str(arm)].replace(chr(10), ' ')}: {told}.")
    return f"Equivalent blur, in pixels:\n\n{bullets(lines)}"


@sentence("generation_gaps")
def about_generation_gaps(contrasts: Rows, attribute: str, level: str) -> str:
    """Whether a difference between groups grows over generations, by what they were trained on."""
    rows = contrasts[(contrasts["metric"] == "equivalent_blur_change")
                     & (contrasts["attribute"] == attribute)
                     & (contrasts["level"] == level)]  # fmt: skip
    lines = []
    for arm, own in rows.groupby("arm", sort=False):
        last = own.sort_values("generation").iloc[-1]
        told = told_from(last, 0, ("rises", "falls", "is not seen to change"))
        changes = "; ".join(
            f"generation {r['generation']} {number(r)}" for r in own.to_dict("records")
        )
        trained = TRAINED_ON[str(arm)].replace(chr(10), " ")
        lines.append(f"With {trained} it {told}: {changes}.")
    reference = rows["reference"].iloc[0]
    return (
        f"The difference between {level_name(attribute, level)} and {reference}, in pixels of "
        f"equivalent blur, against generation 0 (one run, new patients):\n\n{bullets(lines)}"
    )


# -- notebook 19 -----------------------------------------------------------------------------


@sentence("planted_protocol")
def about_planted_protocol(own: PlantedConfig, promised: Mapping[str, float], rule: str) -> str:
    """What is planted on whom, in how many runs, and what the audit promises."""
    plant, loop = own.plant, own.training
    whom = "camera B" if plant.on == "camera" else plant.on
    at_least, at_most = promised.values()
    return bullets([
        f"Planted on the training images of {whom}: {plant.kept:.0%} of them are there, "
        f"{plant.mislabelled:.0%} of these show another patient, and all have the detail of "
        f"{plant.height or 'as many'} pixels of height.",
        f"{own.runs} runs with the plant and {own.runs} without, seeds from {own.first}; each "
        f"{loop.steps} steps of {loop.batch} images, from {own.patients:.0%} of the study's "
        "number of patients, who are others for every seed.",
        f"The gap is to be found in at least {at_least:.0%} of the former, and an alarm raised in "
        f"at most {at_most:.0%} of the latter.",
        f"{rule}.",
    ])  # fmt: skip


@sentence("planted_rates")
def about_planted_rates(
    found: pd.DataFrame, runs: pd.DataFrame, where: tuple[str, str], findable: float
) -> str:
    """Both rates against what was promised, the truth behind, and the errors elsewhere."""
    lines = []
    for row in found[found["promised"].notna()].to_dict("records"):
        kept = "compatible with the promise" if row["kept"] else "**not as promised**"
        what = "the planted gap is found" if row["arm"] == "planted" else "a false alarm is raised"
        lines.append(
            f"Equivalent blur: {what} in {row['found']} of {row['runs']} runs, {row['rate']:.0%} "
            f"({row['low']:.0%} to {row['high']:.0%}), {kept}."
        )
    lines.append(
        f"By the intervals of the runs without a plant, a gap of {findable:.2f} pixels would be "
        "found in 80% of such runs."
    )
    others = found[(found["attribute"] != where[0]) & (found["endpoint"] == "equivalent_blur")]
    for attribute, part in others.groupby("attribute", sort=False):
        told = ", ".join(
            f"{row['found']} of {row['runs']} ({row['low']:.0%} to {row['high']:.0%}; {row['arm']})"
            for row in part.to_dict("records")
        )
        lines.append(
            f"{name_of(str(attribute))}, where nothing was planted: an alarm in {told} runs. The "
            "base may have had a difference there, which was not tested."
        )
    own = runs[(runs["attribute"] == where[0]) & (runs["reference"] == "")]
    for arm, part in own.groupby("arm", sort=False):
        means = part.groupby(["metric", "level"])["value"].mean()
        told = "; ".join(
            f"{word} {means[name, where[1]]:.2f} and {means[name].drop(where[1]).mean():.2f}{unit}"
            for name, word, unit in (
                ("sharpness_change", "sharpness against real images", " grey levels"),
                ("equivalent_blur", "equivalent blur", " pixels"),
            )
        )
        lines.append(f"{str(arm).capitalize()}, {level_name(*where)} and the others: {told}.")
    return bullets(lines)
