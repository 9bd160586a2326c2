"""Pictures of classifiers: every level with its n, what is missing said in words, bands."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fairdiff_lib.audit.audit import labelled
from fairdiff_lib.audit.classifiers import Scored
from fairdiff_lib.audit.estimate import group_units
from fairdiff_lib.audit.harm import confusion_rows, reliability_rows, roc_rows
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show import style as looks
from fairdiff_lib.show.figures import harm as figures_downstream
from fairdiff_lib.show.front import Nothing

SIMULATED = "fairgenmed_simulated"
RACE = {"race": ("Asian", "White")}
METHODS = ("real", "none")


def texts(fig: Figure) -> str:
    found = [t.get_text() for t in fig.findobj(matplotlib.text.Text) if t.get_text().strip()]
    return " ".join(found).replace("\n", " ")


def classifier(dataset: str = SIMULATED) -> dict[str, pd.DataFrame]:
    """Curves of two sources; 14 Asian subjects, too few of a class for a ROC curve."""
    rng = np.random.default_rng(0)
    race = np.array(["Asian"] * 14 + ["White"] * 120)
    groups = group_units(pd.DataFrame({"subject": np.arange(134), "race": race}), RACE)
    truth = np.arange(134) % 2
    score = np.clip(0.3 + 0.3 * truth + 0.2 * rng.normal(size=134), 0, 1)
    data = Scored(truth, (score > 0.5).astype(int), np.column_stack([1 - score, score]), groups)
    found = {
        "roc": roc_rows(data, replicates=20),
        "reliability": reliability_rows(data),
        "confusion": confusion_rows(data, ("well", "ill")),
    }
    return {
        name: pd.concat([labelled(t, {"dataset": dataset, "method": m}) for m in METHODS])
        for name, t in found.items()
    }


def numbers(metric: str = "auc", value: float = 0.8, half: float = 0.1) -> pd.DataFrame:
    rows = [
        {"dataset": SIMULATED, "method": method, "seeds": "0", "condition": "glaucoma",
         "attribute": "race", "level": level, "metric": metric, "n": n, "value": value,
         "low": value - half, "high": value + half, "features": "lite0", "trained_on": "real"}
        for method in METHODS
        for level, n in (("all", 134), ("Asian", 14), ("White", 120))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def slopes(table: pd.DataFrame, notes: tuple[str, ...] = ()) -> Figure:
    own = table[table["level"] != "all"]
    lines = [("glaucoma", str(own["metric"].iloc[0]))]
    return figures_downstream.fig_slopes(own, lines, title="Who is harmed?", notes=notes)


EVERY = {
    "roc": lambda notes: figures_downstream.fig_roc(
        classifier()["roc"], condition="glaucoma", notes=notes
    ),
    "reliability": lambda notes: figures_downstream.fig_reliability(
        classifier()["reliability"], condition="glaucoma", notes=notes
    ),
    "confusion": lambda notes: figures_downstream.fig_confusion(
        classifier()["confusion"], condition="glaucoma", notes=notes
    ),
    "slopes": lambda notes: slopes(numbers(), notes),
    "probe": lambda notes: figures_downstream.fig_probe(numbers("probe_auc"), notes),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_picture_says_simulated_its_n_and_the_notes(name: str) -> None:
    words = texts(EVERY[name](("gate prompt failed",)))
    assert "simulated" in words and "Caution: gate prompt failed" in words
    assert "120" in words or "134" in words or "60" in words
    assert "95%" in words


def test_real_data_are_not_called_simulated() -> None:
    page = figures_downstream.fig_roc(classifier("ham10000")["roc"], condition="malignant")
    assert "simulated" not in texts(page)


def test_a_level_without_a_curve_is_named_in_every_panel() -> None:
    fig = figures_downstream.fig_roc(classifier()["roc"], condition="glaucoma")
    assert texts(fig).count("Asian: not estimable") == len(METHODS)
    assert "Asian (14)" in texts(fig)
    bands = [c for ax in fig.axes for c in ax.collections]
    assert len(bands) == len(METHODS)  # White's


def test_a_small_groups_confusion_is_counts_and_a_large_ones_percent() -> None:
    fig = figures_downstream.fig_confusion(classifier()["confusion"], condition="glaucoma")
    small, large = fig.axes[1], fig.axes[2]
    assert not [t for t in small.texts if "%" in t.get_text()]
    counts = classifier()["confusion"].query("method == 'real' and level == 'Asian'")["count"]
    shown = [text.get_text() for text in small.texts]
    assert shown[:4] == [str(int(count)) for count in counts] and shown[4:] == ["7", "7"]
    assert len([t for t in large.texts if "%" in t.get_text()]) == 4


def test_noise_in_the_fourth_digit_is_no_slope() -> None:
    fig = slopes(numbers(value=0.9995, half=0.0001))
    low, high = fig.axes[0].get_ylim()
    assert high - low >= figures_downstream.LEAST_SPAN - 1e-9
    assert high <= 1.02  # no room for shares above 1


def test_a_missing_level_is_said_and_a_missing_metric_refused() -> None:
    table = numbers()
    table.loc[table["level"] == "Asian", ["value", "low", "high"]] = np.nan
    assert "Asian: not estimable" in texts(slopes(table))
    with pytest.raises(InputError, match="fig_slopes: the table has no 'fnr' of 'glaucoma'"):
        figures_downstream.fig_slopes(table, [("glaucoma", "fnr")], title="Who?")
    with pytest.raises(Nothing, match="fig_probe: the table has no metric 'probe_auc'"):
        figures_downstream.fig_probe(numbers())
    with pytest.raises(InputError, match="fig_roc: the table has no column n"):
        figures_downstream.fig_roc(classifier()["roc"].drop(columns="n"), condition="glaucoma")


def test_levels_of_an_attribute_differ_in_colour_and_marker() -> None:
    found = looks.level_looks(["a", "b", "c"])
    assert len({look.colour for look in found}) == len({look.marker for look in found}) == 3
    assert found[0].colour == looks.LEVEL_COLOURS[0]
