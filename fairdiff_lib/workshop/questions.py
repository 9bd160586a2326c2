"""The questions of the workshop, by name: what is right, why, and what each usual mistake means.

Nothing is compared with a number that was typed here: a check computes the law (a closed form, or a
simulation with its error) or reads it from a table that a command made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from fairdiff_lib.studies.proof.known import Planted, population_fid
from fairdiff_lib.workshop import data, lab
from fairdiff_lib.workshop.answers import Question, Verdict, choose

LEVEL, BAND = 0.05, 0.99  # of a test; of the band that a right answer lies in
STEP = 0.1  # of the slider over thresholds: so near is right
ROUNDED = 5.1e-3  # a mean that was rounded to two digits is right
OTHER_SEED, DRAWS = 7, 40  # of the law of FID: other images than the learner's
Named = Sequence[tuple[float, float, str]]  # value, tolerance, what is wrong with it


def _no(why: str) -> Verdict:
    return Verdict(False, why)


def _number(
    answer: float, right: float, within: float, because: str, mistakes: Named, otherwise: str
) -> Verdict:
    """Right, or the mistake whose value an answer has, or what is said of any other."""
    if abs(answer - right) <= within:
        return Verdict(True, because)
    return _no(next((why for x, near, why in mistakes if abs(answer - x) <= near), otherwise))


def _keeps(answer: Any, because: str, most: str, otherwise: str) -> Verdict:
    """Whether audits alarm as often as promised: in a 99% band around 5% of them."""
    found = np.asarray(answer)
    if found.dtype != bool or found.ndim != 1:
        return _no("Give the audits themselves, as audits(scene, judge, 40) returns them.")
    count, alarms = len(found), int(found.sum())
    if count < 20:
        return _no(f"{count} audits can't tell 5% from 20%: take at least 20.")
    low, high = (int(end) for end in stats.binom.interval(BAND, count, LEVEL))
    seen = f"{alarms} of {count} audits alarm; at a true rate of 5%, {low} to {high} "
    if low <= alarms <= high:
        return Verdict(True, f"{seen}would be no surprise. {because}")
    return _no(f"{seen}are expected. {most if alarms > count / 2 else otherwise}")


# -- 0 look first --------------------------------------------------------------------------------


def _generated(answer: Any) -> Verdict:
    if isinstance(answer, int):
        answer = [answer]
    try:
        named = {int(number) for number in answer}
    except (TypeError, ValueError):
        return _no("Give the numbers of the pictures, as [1, 2, 3].")
    table = data.looks()[1]
    true = {int(n) for n in table.loc[table["generated"], "number"]}
    if named == true:
        return Verdict(True, "These are generated: a disc and a cup, and hardly a fine vessel.")
    if named == set(table["number"]) - true:
        return _no("These are exactly the others. Which ones lack something that an eye has?")
    wrong, left = len(named - true), len(true - named)
    return _no(f"{wrong} of yours are not generated, and {left} generated ones are missing. "
               "Look away from the bright disc.")  # fmt: skip


_ZERO = {
    "generated": Question(
        _generated,
        "The pictures whose vessels are few, short or soft are generated.",
        ("Half of the pictures are generated.", "Follow the dark lines that leave the disc."),
        listed=data.LOOKS // 2,
    ),
    "ignored": choose(
        "a",
        "the fine vessels. A network that was taught to see glaucoma looks at disc and cup. To it "
        "these pictures are nearly real, and a test that only measures the cup lets them pass. A "
        "number is about the features that it is computed from, and about nothing else.",
        {
            "b": "The cup is what the network was taught to see: glaucoma is read from it.",
            "c": "Colour is seen by both: the generated pictures have the right one.",
        },
        after="generated",
        hints=("One KID is small, the other is large. What do colour and fine detail hold that "
               "tells nothing about glaucoma?",),
    ),
}  # fmt: skip


# -- 1 the naive audit lies ----------------------------------------------------------------------


def _alarms(answer: float) -> Verdict:
    if 0 < answer < 1:
        return _no("That is a share or a p-value. How many audits of the ten alarmed?")
    if answer > 10 or answer < 0:
        return _no("There are ten audits: expected a number from 0 to 10.")
    if answer >= 9:
        return Verdict(True, "The generator serves both groups equally well, and the audit says "
                       "otherwise nearly every time. It is no bad luck: a test that kept its 5% "
                       "would do so less than once in ten billion workshops.")  # fmt: skip
    if answer == 1:
        return _no("If that is the share of the ten, give their number: alarms.sum(). A single "
                   "alarm is what groups that are alike in everything may give.")  # fmt: skip
    if answer <= 2:
        return _no("So few alarms is what groups that are alike in everything give. Here A's "
                   "images are more varied: use the scene equally_good(of_fid=True) and the "
                   "judge NaiveTest.")  # fmt: skip
    return _no("More of them alarm. Count the True values of all ten audits: alarms.sum().")


@cache
def _fid_law(group: str, n: int) -> tuple[float, float]:
    """Excess of FID over its limit at n images: mean of the draws, and a draw's deviation."""
    from fairdiff_lib.audit.fid import frechet_distance

    world = Planted.of(replace(lab.world().config, pairing=0.0))  # as ``fid_bias`` draws
    law = world.laws("unequal", of_fid=True)["AB".index(group)]
    rng = np.random.default_rng(OTHER_SEED)
    drawn = [frechet_distance(*law.draw(rng, n)) - _fid_limit() for _ in range(DRAWS)]
    return float(np.mean(drawn)), float(np.std(drawn, ddof=1))


@cache
def _fid_limit() -> float:
    return population_fid(lab.world().law_of_fid("large").pair)


def _bias(answer: float) -> Verdict:
    limit, (mean, spread) = _fid_limit(), _fid_law("A", 200)
    within = 4 * spread * np.sqrt(1 / 3 + 1 / DRAWS)
    because = (f"The bias is {mean:.1f} at 200 images, and it is not chance: it comes back in "
               "every audit. It falls as 1/n, and it is larger for the group whose images vary "
               "more.")  # fmt: skip
    if abs(answer - mean) <= within:  # before the other laws are drawn, which takes a while
        return Verdict(True, because)
    mistakes = [
        (mean + limit, within, f"That is the FID itself. Its true value is {limit:.1f}; the bias "
         "is what stands above it."),
        (-mean, within, "The sign is turned: FID of few images is too high."),
    ]  # fmt: skip
    for group, n, what in (("B", 200, "group B's bias, whose images vary less"),
                           ("A", 100, "the bias at 100 images"),
                           ("A", 400, "the bias at 400 images")):  # fmt: skip
        value, deviation = _fid_law(group, n)
        mistakes.append((value, 4 * deviation, f"That is {what}."))
    otherwise = "Take the mean FID of group A at n = 200, and subtract the true FID."
    return _number(answer, mean, within, because, mistakes, otherwise)


def _repair(answer: Any) -> Verdict:
    return _keeps(
        answer,
        "This test asks what was meant: is the distance between generated and real images the "
        "same?",
        "Both have to change: the judge, to OurAudit(world().kernel), and the scene, to "
        "of_fid=False.",
        "The groups have to be equal in KID now: equally_good(of_fid=False).",
    )


_ONE = {
    "alarms": Question(
        _alarms,
        "(c) All ten, or nearly: groups of equal true FID are called unequal in every audit.",
        ("Alarms are True.", "alarms.sum() counts them."),
        ("a", "b", "c"), "c", numeric=True,
    ),
    "why": choose(
        "c",
        "shuffling makes the groups alike in everything, and so it asks whether A and B are the "
        "same kind of image. They are not, A's are more varied, and FID of few images grows with "
        "variety. Nobody asked that: the question was whether both are drawn equally well.",
        {
            "a": "Chance would strike once in twenty audits, not each time.",
            "b": "Both groups have 132 images. Equal n does not cure it: the bias depends on the "
                 "group's variety, too.",
            "d": "It does not: the true FID of both is the same, in closed form. That a test is "
                 "significant does not make its question yours.",
        },
        after="alarms",
        hints=("What would have to be true so that shuffled labels change nothing?",),
    ),
    "bias": Question(
        _bias,
        lambda: "mean FID of A at n = 200, minus the true FID: about "
                f"{_fid_law('A', 200)[0]:.1f}, where the true FID is {_fid_limit():.1f}.",
        ("The dashed line is the true FID of both groups.",
         "rows of A with n == 200: the mean of value, minus limit."),
        after="alarms", numeric=True,
    ),
    "repair": Question(
        _repair,
        "audits(equally_good(132, of_fid=False), OurAudit(world().kernel), 40): about "
        f"{LEVEL * 40:.0f} of 40 alarm.",
        ("Change the judge and the scene.", "of_fid=False makes the groups equal in KID."),
        after="alarms",
    ),
}  # fmt: skip


# -- 2 small groups and power --------------------------------------------------------------------


def _law(n: int, ratio: float) -> pd.Series[Any]:
    """The simulated audits of a size and ratio."""
    table = data.power()
    row: pd.Series[Any] = table[(table["n"] == n) & np.isclose(table["ratio"], ratio)].iloc[0]
    return row


def _power(n: int, ratio: float) -> float:
    return float(_law(n, ratio)["alarms"] / _law(n, ratio)["audits"])


def _within(alarms: int, count: int, n: int, ratio: float) -> bool:
    """Whether a learner's count agrees with the simulated law, whose own error counts too."""
    known, total = (int(_law(n, ratio)[name]) for name in ("alarms", "audits"))
    both = np.array([[alarms, count - alarms], [known, total - known]])
    return bool(stats.fisher_exact(both).pvalue > (1 - BAND) / 6)


def _noticed(answer: float) -> Verdict:
    rate = _power(36, 1.25)
    low, high = stats.binom.interval(BAND, 30, rate)
    if answer > 1:
        return _no("Give a share between 0 and 1: found.mean().")
    if low <= 30 * answer <= high:
        return Verdict(True, f"About {rate:.0%} in the long run: the others see nothing, though "
                       "the images are worse. What they print is p > 0.05.")  # fmt: skip
    if 30 * answer < low:
        return _no("So few would notice if the images were no worse at all.")
    return _no("So many would notice with 132 patients. The small group has 36: audit "
               "worse_group(36, 1.25) 30 times, and take the mean.")  # fmt: skip


def _table(answer: Any) -> Verdict:
    need = ["n", "ratio", "audits", "alarms"]
    if not isinstance(answer, pd.DataFrame) or not set(need) <= set(answer.columns):
        return _no("Give the table that power_table(sizes, ratios) returns.")
    for n in (36, 132):
        for ratio in (1.1, 1.25, 1.5):
            own = answer[(answer["n"] == n) & np.isclose(answer["ratio"], ratio)]
            if own.empty:
                return _no(f"The row of {n} patients at ratio {ratio} is missing.")
            row = own.iloc[0]
            alarms, audits = int(row["alarms"]), int(row["audits"])
            if not _within(alarms, audits, n, ratio):
                return _no(f"{n} patients at ratio {ratio}: {alarms} of {audits} alarms is not "
                           "what they give. Were numbers changed?")  # fmt: skip
    less, more = _power(36, 1.25), _power(36, 1.5)
    return Verdict(True, f"Read it by row: at 36 patients {less:.0%} of audits see images that are "
                   f"a quarter worse, and {more:.0%} see half as bad again. No table of p-values "
                   "tells you this.")  # fmt: skip


def _rates() -> pd.DataFrame:
    """n, rate: share of audits that notice a ratio of 1.25, rising with n."""
    table = data.power()
    own = table[np.isclose(table["ratio"], 1.25)].sort_values("n")
    return own.assign(rate=(own["alarms"] / own["audits"]).cummax())


def _enough(answer: float) -> Verdict:
    own = _rates()
    rate = float(np.interp(answer, own["n"], own["rate"]))
    if answer < own["n"].min() or answer > own["n"].max():
        return _no(f"Look between {own['n'].min()} and {own['n'].max()} patients.")
    if 0.7 <= rate <= 0.9:
        return Verdict(True, f"With {answer:g} patients about {rate:.0%} of audits notice it. It "
                       "is the patients of the small group that count; more of the others would "
                       "hardly help.")  # fmt: skip
    if rate < 0.7:
        return _no(f"With {answer:g} patients only {rate:.0%} of audits would notice it.")
    return _no(f"That is enough ({rate:.0%}), and more than is needed: fewer give 80%.")


def _missed(answer: float) -> Verdict:
    low, high = (float(_law(36, 1.25)[name]) for name in ("missed_low", "missed_high"))
    if low <= answer <= high:
        return Verdict(True, f"Four of five such audits would notice a ratio of {answer:.2f}. "
                       "Anything smaller could well have been missed. (Of 100 audits of this kind "
                       f"99 say {low:.2f} to {high:.2f}.)")  # fmt: skip
    if 0 <= answer < 1:
        return _no("That is a difference or a p-value. The ratio is in the column mde_ratio.")
    if np.isclose(answer, 1.25):
        return _no("That is what was planted; a real audit does not know it. Read mde_ratio.")
    return _no("Read the column mde_ratio of the audit of 36 patients.")


_TWO = {
    "noticed": Question(
        _noticed,
        lambda: "(b) audits(worse_group(36, 1.25), OurAudit(world().kernel), 30).mean(), about "
                f"{_power(36, 1.25):.0%}.",
        ("Each audit is True where it noticed.",), ("a", "b", "c"), "b", numeric=True,
    ),
    "table": Question(
        _table, "power_table(sizes=(36, 132), ratios=(1.1, 1.25, 1.5)).",
        ("Two sizes, three ratios.",), after="noticed",
    ),
    "enough": Question(
        _enough,
        lambda: f"about {float(np.interp(0.8, _rates()['rate'], _rates()['n'])):.0f} patients: "
                "there the line of ratio 1.25 crosses 80%.",
        ("Where does the line of 1.25 cross the dotted one?",
         "Try power_table((36, 90, 132), (1.25,))."),
        after="noticed", numeric=True,
    ),
    "missed": Question(
        _missed, "report['mde_ratio']: the ratio that 80% of such audits would notice.",
        ("It is a column of the audit's contrasts.",), after="noticed", numeric=True,
    ),
    "sentence": choose(
        "b",
        "it says what was looked at, how many patients, and what stays possible.",
        {
            "a": "No difference was seen; that none is there was not shown. At 36 patients most "
                 "audits miss images that are a quarter worse, as you counted.",
            "c": "A p-value is no probability that the groups are equal. It is how often equal "
                 "groups would give a difference as large as this, or larger.",
            "d": "A test that notices nothing sets no limit by itself. The interval does.",
        },
        after="noticed",
        hints=("Which sentence would you want to read if you were one of the 36?",),
    ),
}  # fmt: skip


# -- 3 case mix ----------------------------------------------------------------------------------


def _by_camera() -> list[tuple[pd.Series[Any], pd.Series[Any]]]:
    """By camera: mean error, and share of its images, by condition."""
    return [
        (own.groupby("condition")["error"].mean(), own.groupby("condition").size() / len(own))
        for _, own in data.strata().groupby("camera")
    ]


def _crude(answer: float) -> Verdict:
    a, b = ((mean * share).sum() for mean, share in _by_camera())
    return _number(answer, b - a, ROUNDED, "Over all images camera B looks worse.", [
        (a - b, ROUNDED, "The sign is turned: B minus A."),
        (b, ROUNDED, "That is B's mean. Subtract A's."),
    ], "Mean error of camera B's images minus that of camera A's.")  # fmt: skip


def _mixed(answer: float) -> Verdict:
    (mean_a, share_a), (mean_b, share_b) = _by_camera()
    gap, common = mean_b - mean_a, data.strata().groupby("condition").size() / len(data.strata())
    right = float((gap * common).sum())
    because = (f"At a common mix B's error is lower by {-right:.2f}. It is lower among the well "
               f"and among the ill. B only looked worse because {share_b['ill']:.0%} of its "
               "patients are ill: they are harder to draw.")  # fmt: skip
    own = ("You weighted by {0}'s own shares. It is a common mix, but of {0}'s patients; take the "
           "shares among all 400.")  # fmt: skip
    return _number(answer, right, ROUNDED, because, [
        (float((mean_b * share_b).sum() - (mean_a * share_a).sum()), ROUNDED,
         "That is the crude difference: each camera has its own mix in it."),
        (-right, ROUNDED, "The sign is turned: B minus A."),
        (float((gap * share_a).sum()), ROUNDED, own.format("A")),
        (float((gap * share_b).sum()), ROUNDED, own.format("B")),
    ], "For each condition: B's mean minus A's, times the condition's share among all 400 images. "
       "Then add the two.")  # fmt: skip


def _standard(answer: Any) -> Verdict:
    return _keeps(
        answer,
        "The groups are equal at a common mix. The crude audit alarmed in most: it was right that "
        "the images differ, and wrong about why.",
        "That is the crude audit: take scene and judge of the standardised one.",
        "Take scene and judge of the standardised one.",
    )


def _left(answer: float) -> Verdict:
    crude, common = data.real_case_mix()["value"]
    explained = 1 - common / crude
    because = (f"Case mix explains {explained:.0%}. The rest is not explained: it may be the "
               "images, or something else that differs with age.")  # fmt: skip
    return _number(answer, explained, 0.03, because, [
        (1 - explained, 0.03, "That is the share that is left. What share went away?"),
        (100 * explained, 3, "Give a share between 0 and 1."),
        (crude - common, 1e-3, "That is the part in units of KID. Divide by the crude difference."),
    ], "Of the crude KID difference, what share is no longer there at a common mix?")  # fmt: skip


_THREE = {
    "mix": choose(
        "d",
        "reversed: in each condition B's images are better. This is Simpson's paradox.",
        {
            "a": "Compare the two cameras among the ill alone, then among the well alone.",
            "b": "Not less: look at each condition by itself.",
            "c": "Not equal: look at each condition by itself.",
        },
        hints=("Which camera has the smaller error among the ill alone?",
               "And among the well alone? A common mix is a mean of these two differences."),
    ),
    "crude": Question(
        _crude, 'mean = images.groupby("camera")["error"].mean(); mean["B"] - mean["A"].',
        ("The first table has both means: B minus A.",),
        after="mix", numeric=True,
    ),
    "common": Question(
        _mixed,
        "((means['B'] - means['A']) * share).sum(), share = the conditions' shares of all images.",
        ("A weighted mean of two differences.", "The weights are the same for both cameras."),
        after="mix", numeric=True,
    ),
    "standardised": Question(
        _standard, "audits(standardised.scene, standardised.judge, 40).",
        ("The cell has a scene and a judge.",), after="mix",
    ),
    "explained": Question(
        _left, "(crude_kid - common_kid) / crude_kid, about a third.",
        ("What share of the crude difference is gone at a common mix?",),
        ("a", "b", "c", "d"), "b", numeric=True,
    ),
    "rest": choose(
        "c",
        "standardising takes away what the two diagnoses explain, and nothing else. Within "
        "'malignant' there are several diseases, and a network may measure some ages better.",
        {
            "a": "Only the diagnosis that was recorded is equal now; all else that comes with age "
                 "is not.",
            "b": "The interval of the rest does not hold 0: it is no noise.",
        },
        after="explained",
        hints=("What was made equal, and what was not?",),
    ),
}  # fmt: skip


# -- 4 one threshold -----------------------------------------------------------------------------


@cache
def _times_law() -> float:
    """B's missed share over A's at Youden's threshold for 8,000 of A and 800 of B."""

    def mistakes(threshold: float) -> float:
        return sum(w * (lab.missed_law(threshold, group) + lab.alarmed_law(threshold, group))
                   for w, group in ((10 / 11, "A"), (1 / 11, "B")))  # fmt: skip

    best = min(np.linspace(-2, 3, 501), key=mistakes)
    return lab.missed_law(best, "B") / lab.missed_law(best, "A")


def _times(answer: float) -> Verdict:
    if answer < 0:
        return _no("B's missed share divided by A's.")
    if answer <= 1:
        return _no("Divide B's missed share by A's, not the other way round.")
    within = 0.25 * _times_law()  # the sample's best threshold moves the ratio
    because = (f"B's ill patients are missed {answer:.1f} times as often, by a classifier that "
               "ranks both groups equally well. AUC compares patients of one group with each "
               "other; a threshold compares all with one number.")  # fmt: skip
    return _number(answer, _times_law(), within, because, [],
                   "Take the threshold of everybody's best (Youden), then B's missed share over "
                   "A's.")  # fmt: skip


def _best() -> float:
    """The threshold at which 10% of B's ill patients are missed."""
    return lab.shift_of_cases() + lab.SHIFT + float(stats.norm.ppf(0.10))


def _threshold(answer: float) -> Verdict:
    missed = {group: f"{lab.missed_law(answer, group):.0%}" for group in "AB"}
    price = f"{lab.alarmed_law(answer, 'A'):.0%} of A's well patients are alarmed"
    if abs(answer - _best()) <= STEP:
        return Verdict(True, f"In the long run {missed['B']} of B's and {missed['A']} of A's ill "
                       f"patients are missed. The price: {price}. Who pays is no question of "
                       "statistics.")  # fmt: skip
    if answer > _best():
        return _no(f"At this threshold {missed['B']} of B's ill patients are still missed.")
    return _no(f"Nobody is missed more than in 10%, but it is lower than it has to be: {price}.")


def _alarmed_well(group: str) -> float:
    """Well patients alarmed at the best threshold, of 1,000."""
    return 1000 * (1 - lab.CASES) * lab.alarmed_law(_best(), group)


def _slack(group: str, well: int) -> float:
    """Of alarmed patients: of a threshold that is taken for right, and of so many well patients."""
    share = _alarmed_well(group) / (1000 * (1 - lab.CASES))
    threshold = STEP * stats.norm.pdf(_best() - (lab.SHIFT if group == "B" else 0.0))
    chance = 3 * np.sqrt(share * (1 - share) / well)
    return float(1000 * (1 - lab.CASES) * (threshold + chance))


def _price(answer: float) -> Verdict:
    if answer <= 1:
        return _no("That is a share. Of 1,000 patients of A, how many well ones are alarmed?")
    right = _alarmed_well("A")
    because = f"About {right:.0f} of 1,000 patients of A are alarmed for nothing."
    return _number(answer, right, _slack("A", 5600), because, [
        (_alarmed_well("B"), _slack("B", 560),
         "Those are B's. A's patients pay more: their scores are higher."),
    ], "Read alarmed of A at your threshold: well patients called ill, per 1,000.")  # fmt: skip


_FOUR = {
    "equal_auc": Question(
        _times,
        "(a) Yes. missed_share of B over that of A at the threshold of everybody's best.",
        ("AUC says how patients of one group are ranked among themselves.",
         'harm.loc["B", "missed_share"] / harm.loc["A", "missed_share"].'),
        ("a", "b", "c"), "a", numeric=True,
    ),
    "threshold": Question(
        _threshold,
        lambda: f"near {_best():.1f}: the 10% quantile of the scores of B's ill patients.",
        ("Lower it until B's missed share is 10%.", "A quantile of B's ill patients' scores."),
        after="equal_auc", numeric=True,
    ),
    "price": Question(
        _price,
        lambda: f"alarmed of group A, about {_alarmed_well('A'):.0f} of 1,000.",
        ("It is a column of harm_per_thousand.",), after="equal_auc", numeric=True,
    ),
    "per_group": choose(
        "b",
        "from ten ill patients a threshold jumps: missed shares from nearly none to a third are "
        "usual. And it needs the group of each patient, which may be unknown or unlawful to use.",
        {
            "a": "Run it again with other patients: the threshold of ten cases jumps.",
            "c": "It can help, where there are many cases, the group is known and its use is "
                 "lawful. That is worth a discussion, not a ban.",
        },
        after="equal_auc",
        hints=("Are the eight shares near 10%? And what must be known of a patient?",),
    ),
    "who": choose(
        "c",
        "the intervals are wide and lie over each other: with so few ill patients of a group the "
        "data can't name one. Say that, with the numbers.",
        {
            "a": "The largest share is partly bad luck: of three groups one is always the worst. "
                 "Look at the intervals.",
            "b": "That no difference was seen is no proof of equality: the intervals leave room "
                 "for twice as many missed.",
        },
        after="equal_auc",
        hints=("Do the intervals lie over each other?",),
    ),
}  # fmt: skip


# -- 5 the mechanism -----------------------------------------------------------------------------


def _favour(answer: float) -> Verdict:
    because = ("The mean weight is 1, as without noise: in expectation nothing is reweighted, "
               "whatever sigma is.")  # fmt: skip
    return _number(answer, 1, 0.02, because, [
        (0.25, 0.02, "That is the variance of the weights. Their mean?"),
        (0.5, 0.02, "That is their standard deviation, sigma. Their mean?"),
        (1.5, 0.02, "Not 1 + sigma: the noise is as often negative as positive."),
        (0.0, 0.02, "That is the mean of the noise. The weight is 1 plus it."),
    ], "The mean of the weights of the group that has sigma = 0.5.")  # fmt: skip


def _negative(answer: float) -> Verdict:
    right = float(stats.norm.cdf(-1))
    because = f"{right:.0%} of normal noise is below -1: one image in six is trained away from."
    return _number(answer, right, 4 * np.sqrt(right * (1 - right) / 10_000), because, [
        (100 * right, 2, "Give a share between 0 and 1."),
        (1 - right, 0.02, "That is the share of positive weights."),
        (0.5, 0.02, "Half of the noise is negative. The weight is 1 plus it."),
    ], "(w < 0).mean() at sigma = 1.")  # fmt: skip


def _ends(answer: Any) -> Verdict:
    try:
        found = [float(x) for x in (answer.values() if isinstance(answer, dict) else answer)]
    except (TypeError, ValueError):
        return _no("Give the four ends, as a list of numbers.")
    if len(found) != 4:
        return _no(f"Expected four ends, got {len(found)}.")
    bad = [x for x in found if not abs(x - 0.2) <= 0.02]
    if not bad:
        return Verdict(True, "All four end at 0.2, the mean of what patients want: 90% want 0, "
                       "10% want 2. Sigma shakes the path and leaves its end.")  # fmt: skip
    return _no(f"{bad[0]:.2f} is no end of a path with noisy weights of mean 1. Take the mean of "
               "the path's second half, and leave mean=(1, 1).")  # fmt: skip


def _heavier(answer: float) -> Verdict:
    because = ("2m / (9 + m) with m = 3: a mean weight moves the target, and this is what "
               "reweighting does.")  # fmt: skip
    return _number(answer, 2 * 3 / (9 + 3), 0.02, because, [
        (0.2, 0.02, "That is without a mean weight: mean=(1, 3)."),
        (1.0, 0.02, "That is with a mean weight of 9."),
        (0.6, 0.02, "Three times 0.2 forgets that the weights are shared out: 2m / (9 + m)."),
    ], "train_toy((0, 0), mean=(1, 3)): where does it end?")  # fmt: skip


def _empty(answer: float) -> Verdict:
    right = (1 - lab.RARE) ** lab.BATCH
    because = (f"0.96^32 = {right:.0%}. In such a batch the rarest group has no loss. Its gap "
               "counts as 0, which is a perfect score.")  # fmt: skip
    return _number(answer, right, 4 * np.sqrt(right * (1 - right) / 2000), because, [
        (100 * right, 3, "Give a share between 0 and 1."),
        (1 - right, 0.03, "That is the share of batches with somebody of the group."),
        (lab.RARE, 0.005, "That is the group's share of the patients."),
        (lab.RARE * lab.BATCH, 0.05, "That is how many a batch has on average."),
    ], "Each of 32 images is of another group with probability 0.96.")  # fmt: skip


_FIVE = {
    "favours": Question(
        _favour,
        "(c) None: the noise has mean 0, so the mean weight is 1.",
        ("The mean of 1 + sigma * noise?",), ("a", "b", "c"), "c", numeric=True,
    ),
    "negative": Question(
        _negative, "(w < 0).mean() at sigma = 1: 16%, the share of normal noise that is below -1.",
        ("Where is 1 + sigma * noise below 0?",), after="favours", numeric=True,
    ),
    "ends": Question(
        _ends, "0.2 for all four.", ("What is the mean of what patients want?",),
        ("a", "b", "c"), "c",
    ),
    "heavier": Question(
        _heavier, "0.5: 2m / (9 + m) with m = 3.",
        ("Set the derivative of the weighted loss to 0.",), after="ends", numeric=True,
    ),
    "empty": Question(
        _empty, "0.96^32 = 27%.", ("The chance that 32 draws in a row miss it.",),
        ("a", "b", "c"), "b", numeric=True,
    ),
    "changes": choose(
        "b",
        "it changes the variance of the steps, not the target. Noise is not harmless for that: "
        "steps point apart, and an optimiser that divides by their size takes shorter ones.",
        {
            "a": "The target of training is the mean of the weighted loss, and the mean weight is "
                 "1 for everybody.",
            "c": "The mean is unchanged, but the steps are not: they vary more, and some images "
                 "are trained away from.",
        },
        after="favours",
        hints=("On the slider: does the line move, or the width?",),
    ),
}  # fmt: skip


# -- 6 audit your own ----------------------------------------------------------------------------

BLURS = (0.1, 0.2, 0.4, 0.8)


@cache
def _finds(blur: float) -> bool:
    """Whether the exercise's own audit finds a group that is blurred by so much."""
    with TemporaryDirectory() as folder:
        found = lab.audit_pictures(lab.draw(Path(folder) / "example", blur)).contrasts
    own = found[found["attribute"] == "palette"].iloc[0]
    return bool(own["p_adjusted"] < LEVEL)


def _least_blur(answer: float) -> Verdict:
    if answer not in BLURS:
        return _no(f"One of the blurs that were tried: {', '.join(map(str, BLURS))}.")
    if not _finds(answer):
        return _no(f"At {answer} the interval holds 0: nothing is seen.")
    smaller = [blur for blur in BLURS if blur < answer]
    if smaller and _finds(smaller[-1]):
        return _no(f"{answer} is seen, and {smaller[-1]} already is.")
    return Verdict(True, f"A blur of {answer} pixels is found; your eye hardly sees it. Half of it "
                   "is not, and the audit says what it could have missed.")  # fmt: skip


def _secret(answer: Any) -> Verdict:
    try:
        number, group = answer
        true = lab.secret_group(number)
    except (TypeError, ValueError):
        return _no('Give the number and the group, as (7, "camera A").')
    said = " ".join(str(group).replace(":", " ").split()).lower()
    named = next((g for g in lab.GROUPS if " ".join(g).lower() == said), None)
    if named == true:
        return Verdict(True, f"{' '.join(true)} was blurred. The other attribute's groups both "
                       "hold half of these pictures, so they look alike.")  # fmt: skip
    if named is None:
        return _no(f"{group!r} is no group: {', '.join(' '.join(g) for g in lab.GROUPS)}.")
    if named[0] == true[0]:
        return _no(
            "The right attribute. KID is a distance: the group with the larger one is worse."
        )
    return _no("Not this attribute: is its difference told from 0?")


_SIX = {
    "blur": Question(
        _least_blur, "(b) 0.2 pixels.",
        ("Where does the interval leave 0?",), ("a", "b", "c", "d"), "b", numeric=True,
    ),
    "secret": Question(
        _secret, "The level with the larger KID, of the attribute whose difference is told from 0.",
        ("Look at both contrasts: one of them holds 0.",), after="blur",
    ),
    "care": choose(
        "a",
        "the features see colour, blur and noise, not anatomy: a tumour in the wrong place passes. "
        "No number of patients mends that.",
        {
            "b": "That makes small differences invisible, and the card says how large. More "
                 "pictures mend it.",
            "c": "Four contrasts or two: the adjusted p takes care of it.",
        },
        after="blur",
        hints=("Which of them do more pictures mend?",),
    ),
}  # fmt: skip


QUESTIONS: dict[str, Question] = {
    **_ZERO, **_ONE, **_TWO, **_THREE, **_FOUR, **_FIVE, **_SIX,
}  # fmt: skip
