"""What readers call things, and how they see a number: no raw name meets a reader."""

from __future__ import annotations

import math
import re
from typing import Any

from fairdiff_lib.settings.methods import METHODS

NAMES: dict[str, str] = {
    "overall": "All",
    "train": "Training subjects",
    "val": "Validation subjects",
    "test": "Test subjects",
    "md_severity": "Vision loss",
    "cdr_status": "Cup-disc ratio",
    "se_status": "Refraction",
    "dx": "Diagnosis",
    "effusion": "Pleural effusion",
    "is": "Inception score",
    "equivalent_blur": "Equivalent blur, in pixels",
    "sharpness_change": "Sharpness against real, grey levels",
    "dark_lines_change": "Fine dark lines against real, grey levels",
    "kernel_real_real": "Real images: mean kernel among themselves",
    "kernel_made_made": "Generated images: mean kernel among themselves",
    "kernel_real_made": "Mean kernel of real with generated images",
    "c2st_accuracy": "Generated told from real (accuracy of a classifier)",
    "clipped_density": "Clipped density at equal n",
    "clipped_coverage": "Clipped coverage at equal n",
    "near_identical": "Generated images that are nearly identical to another one",
    "kid_floor": "KID between two halves of the real images",
    "kid_standardised": "KID at a common case mix",
    "kid_guarded": "KID",
    "kid_family": "KID, all levels at once",
    "kid_over_runs": "KID, mean over runs",
    "kid_shrunk": "KID, shrunken towards the mean",
    "ece": "Calibration error",
    "cup_disc_ratio": "Cup-disc ratio",  # a mean, and no ratio of levels
    "ruler_r2": "Ruler against the truth (R\u00b2)",
    "ruler_bias": "Ruler minus the truth",
    "ruler_lost": "Ruler: share without a measurement",
    "cup_disc_agreement": "Measures as asked",
    "second_colour_agreement": "Measures as asked",
    "effusion_agreement": "Measures as asked",
    "agreement": "Agreement with the prompt",
    "nearer_to_training": "Nearer to a training image than real images are",
    "moved": "Images move (share of the way to another patient's)",
    "moved_blur": "Images move, as a blur of so many pixels",
    "readout_change": "change in probability of the finding",
    "membership_auc": "Membership told from the loss (AUC)",
    # gates
    "vae_reconstruction": "The autoencoder keeps what is measured",
    "prompt_effusion": "Images show the effusion that was asked for",
    "prompt_cup_disc": "Images show the cup-disc ratio that was asked for",
    "prompt_second_colour": "Images show the second colour that was asked for",
    "below_shuffled_prompts": "Closer to real images of their own condition than of another",
    "below_blurred_reals": "Closer to real images than blurred real images are",
}
WORDS = {  # of names that are put together
    "kid": "KID",
    "fid": "FID",
    "mifid": "MiFID",
    "auc": "AUC",
    "es": "equity-scaled",
    "fnr": "false-negative rate",
    "tpr": "true-positive rate",
    "fpr": "false-positive rate",
    "psd": "performance-scaled disparity",
    "dpd": "demographic parity difference",
    "eod": "equalised odds difference",
    "ece": "calibration error",
    "r2": "R\u00b2",
    "brier": "Brier score",
}
ENDINGS = {  # of what is put together from a metric
    "_as_released": "{}, as released",
    "_by_chance": "{} that chance alone gives",
    "_change": "change in {}",
    "_gap": "{}: largest minus smallest level",
    "_ratio": "{}: largest over smallest level",
    "_worst": "{} of the worst level",
    "_disparity": "{}: squared difference between levels",
    "_psd_mean": "{}: performance-scaled disparity, mean",
    "_psd_max": "{}: performance-scaled disparity, largest",
}
SPACES = {  # features, as one says "... features"
    "lite0": "EfficientNet-lite0",
    "lite0-penultimate": "EfficientNet-lite0 last-layer",
    "random-conv": "random",
}
NOT_ESTIMABLE = "not estimable"
LOW_IS_BEST = ("kid", "equivalent_blur", "fid", "mifid", "dpd", "eod", "brier", "ece", "fnr")
SOURCES = {  # of images, besides the methods
    "real": "real images",
    "base": "base model, before fine-tuning",
    # arms of the downstream matrix, beside "real": what a classifier is trained on
    "mixed": "half the last generation's images",
    "synthetic": "generated images",
    "balanced_synthetic": "generated, balanced",
    "real_and_synthetic": "real and generated",
    "real_and_balanced": "real and balanced",
    "pretrain_then_real": "generated first, then real",
}
EQUALLY_GOOD = {  # the proof's two kinds of groups without a disparity
    "exchangeable": "groups alike in everything",
    "unequal": "groups unlike, but equally good",
}
CHECKED = {  # what the proof counts, by check
    "alarm": "alarms",
    "above": "intervals above the truth",
    "below": "intervals below the truth",
    "missed": "intervals that miss the truth",
    "given": "intervals where none may be given",
    "no_larger": '"no difference larger than X", where it is as large',
    "larger": '"larger than X", where it is not',
    "seen": "a difference, where there is none",
    "off": "mean off the truth",
}
FAMILIES = {"efficientnet": "EfficientNet", "vit": "ViT", "residual": "ResNet",
            "lite0": "EfficientNet-lite0"}  # fmt: skip
LABEL_FAULTS = {  # of group labels (17)
    "wrong": "wrong, at random",
    "missing": "missing, at random",
    "missing_in_one": "missing, in the smaller group alone",
    "swapped": "exchanged by an adversary who knows every image's quality",
}
AUDIT_ERRORS = {  # what may go wrong, by what is true (17)
    "alike": "false alarm, groups look alike",
    "equal": "false alarm, groups look unlike",
    "planted": "missed",
}
HEADS = {  # of columns
    "condition_level": "condition's level",
    "comparison": "wanted",
    "smallest_effect": "smallest effect of interest",
    "n_reference": "n of reference",
    "p_adjusted": "adjusted p",
    "p_worse": "p, worse",
    "p_better": "p, better",
    "p_holm": "p (Holm)",
    "p_equivalence": "p of equivalence",
    "mde": "detectable effect",
    "mde_ratio": "detectable ratio",
    "detectable": "smallest effect detectable",
    "excludes_zero": "interval excludes 0",
    "seeds": "training seeds",
    "seed": "training seed",
    "seconds": "time (s)",
    "seconds_per_step": "time per step (s)",
    "seconds_per_proposal": "time per proposal (s)",
    "peak_memory_gib": "peak memory (GiB)",
    "source": "training images",
    "arm": "trained on",
}


def name_of(key: str) -> str:
    """Display name of an attribute, condition, metric or gate."""
    text = _put_together(key)
    return text[:1].upper() + text[1:]


def _put_together(key: str) -> str:
    if key in NAMES:
        return NAMES[key]
    for ending, form in ENDINGS.items():
        if key.endswith(ending) and key != ending[1:]:
            return form.format(_put_together(key.removesuffix(ending)))
    return " ".join(WORDS.get(word, word) for word in key.split("_"))


def space_title(key: str) -> str:
    """What a feature space is, in words; a hub id is its own name."""
    return SPACES.get(key, key)


def method_name(key: str) -> str:
    """Display name of a method, or of another source of images; without a label its own name."""
    label = METHODS[key].label if key in METHODS else SOURCES.get(key, "")
    return label or key.replace("_", " ")


def images_of(source: str) -> str:
    """As "images of FairDiffusion" or "real images"."""
    name = method_name(source)
    return name if "images" in name else f"images of {name}"


def axis_name(metric: str) -> str:
    """Name of a metric for an axis, with the direction that is better."""
    best = "lower" if metric in LOW_IS_BEST else "higher" * (metric == "inception_score")
    return f"{name_of(metric)} ({best} is better)" if best else name_of(metric)


def head_of(column: str) -> str:
    """Display name of a table's column."""
    return HEADS.get(column, column.replace("_", " "))


def classifier_name(name: str) -> str:
    """Display name of a classifier: its family, then its size."""
    plain = name.removesuffix(" from scratch")
    family, _, size = plain.partition("-")
    return f"{FAMILIES.get(family, family)} {size.replace('-', ', ')}".strip()


def level_name(attribute: str, level: str) -> str:
    """As "Race: Black"; "Race" for all its levels, "All" for everyone."""
    if attribute == "overall":
        return "All"
    return name_of(attribute) if level == "all" else f"{name_of(attribute)}: {level}"


def short_name(name: str) -> str:
    """A table's or figure's id as people say it: T2 for tab02; gates for tab_gates."""
    numbered = re.fullmatch(r"(tab|fig)(\d+)", name)
    if numbered:
        return f"{numbered[1][0].upper()}{int(numbered[2])}"
    return re.sub("^(tab|fig)_", "", name).replace("_", " ")


def rounded(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; a whole one from 1000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def with_interval(value: float, low: float, high: float) -> str:
    """As "0.031 (0.024 to 0.037)", all with the same decimals; "not estimable" for NaN.

    With one infinite limit: "1.20 (at least 0.80)", "1.20 (at most 2.00)".
    """
    if not math.isfinite(value):
        return NOT_ESTIMABLE
    if math.isfinite(low) and high == math.inf:
        return f"{rounded(value)} (at least {rounded(low)})"
    if math.isfinite(high) and low == -math.inf:
        return f"{rounded(value)} (at most {rounded(high)})"
    if not (math.isfinite(low) and math.isfinite(high)):
        return rounded(value)
    largest = max(abs(number) for number in (value, low, high))
    if not 1e-4 <= largest < 1000:
        return f"{value:.3g} ({low:.3g} to {high:.3g})"
    decimals = 2 - math.floor(math.log10(largest))
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(value, low, high, d=decimals)


def number(row: Any) -> str:
    """:func:`with_interval` of a table's row: value, low, high."""
    return with_interval(*(float(row[key]) for key in ("value", "low", "high")))


def p_text(p: float) -> str:
    """A p-value in few digits."""
    if not math.isfinite(p):
        return "none"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
