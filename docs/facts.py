"""What was found, in words, from the tables below ``figures``: for the README, the front, the book.

Every number is read when the book is built. A table that is not there yet, or is in a form of an
earlier version, gives a line that says so and names the command that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from fairdiff_lib.audit.memory import AUC, FOUND, NEARER, NO_SIGNAL
from fairdiff_lib.audit.seeds import means_and_seeds
from fairdiff_lib.datasets import DATASETS, contents, load_settings
from fairdiff_lib.disk.files import read_table
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.tables import told_apart
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import BASELINE, METHODS
from fairdiff_lib.settings.names import (
    AUDIT_ERRORS,
    EQUALLY_GOOD,
    LABEL_FAULTS,
    classifier_name,
    head_of,
    images_of,
    level_name,
    method_name,
    name_of,
    number,
    rounded,
    short_name,
    space_title,
    with_interval,
)
from fairdiff_lib.settings.notebooks import NOTEBOOKS
from fairdiff_lib.show.figures.studies import METRICS, PROCEDURES
from fairdiff_lib.show.front import say
from fairdiff_lib.show.style import dataset_name
from fairdiff_lib.show.words import listed
from fairdiff_lib.show.words_studies import ENDPOINTS, PRIMARY, leaves_out
from fairdiff_lib.studies import planted
from fairdiff_lib.studies.ablation.compare import DISPARITY
from fairdiff_lib.studies.verdict.effects import ALARM, NOTHING, tally
from fairdiff_lib.studies.verdict.protocol import BLUR, EQUITY, KID
from fairdiff_lib.studies.verdict.table import gaps
from fairdiff_lib.study import Study

FAIRGENMED = "quick/fairgenmed_simulated"
MARKS = ("<!-- findings -->", "<!-- end of findings -->")
ROWS = 30
ALPHA = 0.05


def is_simulated(dataset: str) -> bool:
    return DATASETS[dataset].simulated


@dataclass(frozen=True)
class Finding:
    """A row of the front page: a plain sentence, its number, and where it stands."""

    said: str
    number: str
    where: Sequence[str]  # files below the project, or notebooks


class Facts:
    """Tables, figures and sentences from what lies below a figures folder."""

    def __init__(self, figures: Path) -> None:
        self.figures = figures

    def table(self, name: str, *columns: str) -> pd.DataFrame:
        """A table as ``reference/ham10000/tab13``; empty if it is not there with these columns."""
        path = self.figures / f"{name}.csv"
        if not path.is_file():
            return pd.DataFrame()
        words = dict.fromkeys(("attribute", "level", "seeds", "features"), str)
        table = read_table(path, dtype=words)
        text = {str(x): "" for x in table if not pd.api.types.is_numeric_dtype(table[x])}
        table = table.fillna(text)
        return table if {*columns} <= {*table.columns} else pd.DataFrame()

    # -- for chapters -----------------------------------------------------------------------

    def say(self, sentence: str, *names: str, **options: Any) -> str:
        """A sentence of the notebooks, from these tables."""
        tables = [self.table(name) for name in names]
        lacking = [name for name, own in zip(names, tables, strict=True) if own.empty]
        if lacking:
            return _missing(lacking[0])
        try:
            said = str(say(sentence, *tables, **options).data)
        except (KeyError, InputError):
            return _missing(names[0], "is of an earlier version")
        return said

    def rows(self, name: str, *columns: str, where: str = "", caption: str = "") -> str:
        """Rows of a table as Markdown: those that a query chooses, these columns, at most 30."""
        own = self.table(name, *columns)
        if own.empty:
            return _missing(name)
        own = (own.query(where) if where else own)[list(columns)].head(ROWS)
        if {"value", "low", "high"} <= {*columns}:
            said = [number(row) for row in own.to_dict("records")]
            own = own.assign(value=said).drop(columns=["low", "high"])
        told, _ = told_apart(own, {"value", *columns}, dataset_name)
        head = [head_of(str(key)) for key in told]
        cells = [[_cell(x) for x in row] for row in told.itertuples(index=False)]
        where_from = f"[{Path(name).name}.csv](/figures/{name}.csv)"
        above = f"{caption} " if caption else ""
        return f"{above}({where_from})\n\n{grid(head, cells)}"

    def figure(self, name: str, alt: str = "") -> str:
        """A picture with its title as alternative text; of one that isn't there a line."""
        if not (self.figures / f"{name}.png").is_file():
            return _missing(name)
        words = alt or contents().get(Path(name).name, (name, ""))[0]
        return f"![{escape(words)}](/figures/{name}.png)"

    def notebook(self, name: str, place: str = FAIRGENMED) -> str:
        """A link to an executed notebook; plain words where there is no copy."""
        path = f"{place}/executed/{name}.ipynb"
        text = f"{name[:2]} {NOTEBOOKS[name].question}"
        return f"[{text}](/figures/{path})" if (self.figures / path).is_file() else text

    def real_sets(self) -> list[str]:
        """Real data sets with verdicts."""
        known = {path.parent.name for path in self.figures.glob("reference/*/tab_verdict.csv")}
        return [name for name, entry in DATASETS.items() if name in known and not entry.simulated]

    def ablated(self) -> list[str]:
        """Studies in which arms were compared, as ``reference/ham10000``, real ones first."""
        found = [path.parent for path in self.figures.glob("*/*/tab13.csv")]
        places = sorted(path.relative_to(self.figures).as_posix() for path in found)
        return sorted(places, key=lambda place: is_simulated(place.split("/")[1]))

    def real_names(self) -> str:
        """Real data sets that have a protocol, by name."""
        known = {path.parent.name for path in self.figures.glob("reference/*/protocol.json")}
        return listed([entry.title for name, entry in DATASETS.items()
                       if name in known and not entry.simulated])  # fmt: skip

    dataset_name = staticmethod(dataset_name)

    def condition(self, dataset: str) -> str:
        """The finding that classifiers of a data set are trained for."""
        own, entry = load_settings("reference", dataset), DATASETS[dataset]
        return entry.spec(own.reading.coding, own.simulator).primary_condition

    def levels(self, dataset: str) -> Sequence[str]:
        """What that finding may be."""
        own, entry = load_settings("reference", dataset), DATASETS[dataset]
        return entry.spec(own.reading.coding, own.simulator).levels(self.condition(dataset))

    def cohort(self, dataset: str) -> str:
        """Who was read, who is in training and test, and how many have which finding: cells."""
        flow, counts = (self.table(f"reference/{dataset}/{x}") for x in ("tab_flow", "tab01"))
        if flow.empty or counts.empty:
            return _missing(f"reference/{dataset}/tab01")
        every = flow[flow["attribute"] == "overall"].set_index("step")
        read, kept = every.loc["in the data"], every.loc["in the study"]
        own = counts[counts["attribute"] == "overall"]
        n = own[own["metric"] == "count"].set_index("split")["n"]
        mix = own[(own["condition"] == self.condition(dataset)) & (own["split"] == "train")]
        shares = [f"{x['condition_level']} {x['value']:.0%}" for x in mix.to_dict("records")]
        return (
            f"{read['subjects']:,} {DATASETS[dataset].unit} | {kept['subjects']:,} with "
            f"{kept['images']:,} images | {n['train']:,} | {n['test']:,} | {', '.join(shares)}"
        )

    def lost_by_group(self, place: str) -> str:
        """AUC of classifiers of generated images minus that of real ones' classifiers, by level."""
        columns = ("classifier", "condition", "method", "attribute", "level", "metric", "n",
                   "value", "low", "high", "low_new", "high_new", "baseline")  # fmt: skip
        own = self.table(f"{place}/tab_changes", *columns)
        if own.empty:
            return _missing(f"{place}/tab_changes")
        own = own[(own["baseline"] == "real") & (own["metric"] == "auc")]
        own = own[own["condition"] == self.condition(place.split("/")[1])]
        for side in ("low", "high"):  # of new patients and new runs, where there are several
            own = own.assign(**{side: own[f"{side}_new"].fillna(own[side])})
        rows = []
        for (attribute, level), part in own.groupby(["attribute", "level"], sort=False):
            cells = [level_name(str(attribute), str(level)), f"{part['n'].min():,.0f}"]
            for _, named in own.groupby(["method", "classifier"], sort=False):
                row = named[(named["attribute"] == attribute) & (named["level"] == level)]
                one = row.iloc[0] if len(row) else None
                alone = one is None or not np.isfinite(one["low"])
                said = "" if one is None else f"{round(one['value'], 3) + 0.0:.3f}"
                cells.append(said if alone else number(one))
            rows.append(cells)
        pairs = own[["method", "classifier"]].drop_duplicates().itertuples(index=False)
        head = ["group", "n", *(f"{method_name(m)}, {classifier_name(c).split(' ')[0]}"
                                for m, c in pairs)]  # fmt: skip
        known = bool(np.isfinite(own["low"].astype(float)).any())
        many = "of the mean over the diagnoses, " * (len(self.levels(place.split("/")[1])) > 2)
        basis = "95% intervals" if known else "one training each, so without intervals"
        return (
            f"AUC for {name_of(own['condition'].iloc[0]).lower()}, {many}minus that of classifiers "
            f"of real images; {basis} "
            f"([table](/figures/{place}/tab_changes.csv)).\n\n{grid(head, rows[:ROWS])}"
        )

    def from_weights(self, place: str) -> str:
        """AUC of classifiers from scratch and from ImageNet's weights, by what they were taught."""
        name = f"{place}/pretrained/tab_harm"
        own = self.table(name, "method", "classifier", "condition", "attribute", "metric", "value")
        if own.empty:
            return _missing(name)
        own = own[(own["attribute"] == "overall") & (own["metric"] == "auc")]
        own = own[own["condition"] == self.condition(place.split("/")[1])]
        lines = []
        for classifier, part in own.groupby("classifier", sort=False):
            rows = part.to_dict("records")
            told = [f"{number(row)} from {images_of(row['method'])}" for row in rows]
            kind = " from scratch" * str(classifier).endswith("from scratch")
            lines.append(f"- {classifier_name(str(classifier))}{kind}: {'; '.join(told)}.")
        listing = "\n".join(lines)
        return f"AUC for {name_of(own['condition'].iloc[0]).lower()}, one training each " + (
            f"([table](/figures/{name}.csv)):\n\n{listing}"
        )

    def shown(self, place: str) -> str:
        """AUC with which what was asked for is read from real and from generated images."""
        columns = ("method", "condition", "attribute", "metric", "value", "low", "high", "n")
        own = self.table(f"{place}/tab_shown", *columns)
        if own.empty:
            return _missing(f"{place}/tab_shown")
        own = own[(own["attribute"] == "overall") & (own["metric"] == "auc")]
        own = own[own["condition"] == self.condition(place.split("/")[1])]
        own = own[own["n_seeds"] == own["n_seeds"].max()] if "n_seeds" in own else own
        said = [f"{images_of(row['method'])} {number(row)}" for row in own.to_dict("records")]
        return f"{name_of(own['condition'].iloc[0])} is read with an AUC of: {'; '.join(said)}."

    def arms_grid(self, place: str) -> str:
        """What each declared comparison and comparator changes, in percent."""
        name = f"{place}/tab13"
        own = self.table(name, "role", "smallest_effect", "low_new", "features")
        if own.empty:
            return _missing(name)
        own = own[own["features"].eq(own["features"].iloc[0])]
        apart = own[(own["metric"] == DISPARITY) & (own["method"] == BASELINE)]
        apart = apart[apart["attribute"] != "overall"]
        able = np.isfinite(apart["value"].astype(float))
        counted, small = (
            [name_of(name).lower() for name in dict.fromkeys(apart.loc[x, "attribute"])]
            for x in (able, ~able)
        )
        own = own[(own["attribute"] == "overall") & own["metric"].isin(ENDPOINTS)]
        base = own[(own["method"] == BASELINE) & (own["metric"] == "kid")]["value"].iloc[0]
        own = own[own["baseline"] != ""]
        kinds = own["method"].map(lambda arm: METHODS[arm].role if arm in METHODS else "")
        beside = kinds.isin(["control", "rival"]) & (own["baseline"] == BASELINE)
        own = own[(own["role"] == PRIMARY) | beside]
        rows, reach, told, most = list[list[str]](), list[str](), list[str](), 0.0
        for (arm, other), pair in own.groupby(["method", "baseline"], sort=False):
            kid, gap = (pair[pair["metric"] == metric].iloc[0] for metric in ENDPOINTS)
            new = [kid["value"], kid["low_new"], kid["high_new"]]
            known = [gap["value"], gap["low"], gap["high"]]
            said = f"{method_name(str(arm))} minus {method_name(str(other))}"
            rows.append([said, _percent(new, base), _percent(known, gap["smallest_effect"])])
            most = float(kid["smallest_effect"])
            reach += [] if leaves_out(kid.to_dict()) else [said]
            if new[1] > 0 or new[2] < 0:
                told.append(f"{said} ({'worse' if new[0] > 0 else 'better'})")
        said = f"the intervals of {listed(reach)} hold a change that would" if reach else (
            f"in none of {len(rows)} comparisons does image quality change by as much as would"
        )  # fmt: skip
        preset, dataset = place.split("/")
        head = ["compared", "image quality, % of Stable Diffusion's KID",
                f"squared gap by {listed(counted)}, % of X², for these patients alone"]  # fmt: skip
        left_out = (
            f" The gap by {listed(small)} can't be estimated: too few groups are large enough."
            if small else ""
        )  # fmt: skip
        return (
            f"**{dataset_name(dataset)}**, preset {preset}: {said} matter. That would be "
            f"{100 * most / base:.0f}% of Stable Diffusion's KID ({rounded(base)}). "
            f"{f'Small, but told from nothing: {listed(told)}. ' if told else ''}"
            f"With 95% intervals; above 0 is worse ([T13](/figures/{name}.csv)).{left_out}\n\n"
            f"{grid(head, rows)}"
        )

    def controls(self) -> str:
        """What the audit measures where a random group's images were made worse, and where not."""
        rows = []
        for dataset in self.real_sets():
            name = f"reference/{dataset}/tab_effects"
            own = self.table(name, "claim", "part", "endpoint", "value", "low", "high")
            if own.empty:
                rows.append([dataset_name(dataset), _missing(name), "", "", ""])
                continue
            own = own[own["claim"] == "control"]
            found = {(x["endpoint"], x["part"]): x for x in own.to_dict("records")}
            cells = [_against(found[endpoint, part], 0)
                     for endpoint in (BLUR, KID) for part in ("planted", "untouched")]  # fmt: skip
            rows.append([f"[{dataset_name(dataset)}](/figures/{name}.csv)", *cells])
        head = [f"{name_of(endpoint)}, {part}"
                for endpoint in (BLUR, KID) for part in ("made worse", "untouched")]  # fmt: skip
        return grid(["", *head], rows)

    def another_word(self, place: str) -> str:
        """How far another word for a patient's group moves an image, beside another noise."""
        name = f"{place}/tab_counterfactual"
        own = self.table(name, "method", "changed", "condition", "metric", "low", "high")
        if own.empty:
            return _missing(name)
        asked = self.condition(place.split("/")[1])
        own = means_and_seeds(own[own["attribute"] == "overall"], ["method"])[0]
        rows = []
        for (method, changed), part in own.groupby(["method", "changed"], sort=False):
            said = {(x["condition"], x["metric"]): x for x in part.to_dict("records")}
            flips = said[asked, "finding_flips"]
            rows.append([
                method_name(str(method)), f"another {name_of(str(changed)).lower()}",
                number(said["all", "moved"]), f"{said['all', 'moved_blur']['value']:.1f}",
                f"{flips['value']:.0%} ({flips['low']:.0%} to {flips['high']:.0%})",
            ])  # fmt: skip
        head = ["images of", "what is changed", "way to another patient's image",
                "as a blur of, pixels", f"{name_of(asked)} is read otherwise"]  # fmt: skip
        return f"{grid(head, rows)}\n\n([tab_counterfactual](/figures/{name}.csv))"

    def spoilt(self, place: str, layer: str) -> str:
        """How often the audit errs with spoilt group labels; bold: more often than with clean."""
        name = f"{place}/tab_stress"
        own = self.table(name, "layer", "fault", "share", "event", "value", "low", "high")
        own = own[own["layer"] == layer] if len(own) else own
        if own.empty:
            return _missing(name)
        events = [event for event in AUDIT_ERRORS.values() if event in {*own["event"]}]
        clean = {x["event"]: x for x in own[own["fault"] == ""].to_dict("records")}
        rows = [["none, all are clean", *(f"{clean[x]['value']:.0%}" for x in events)]]
        for fault, part in own[own["fault"] != ""].groupby("fault", sort=False):
            cells = [LABEL_FAULTS[str(fault)]]
            for event in events:
                most = max(ALPHA, clean[event]["high"])
                each = part[part["event"] == event].sort_values("share").to_dict("records")
                told = (f"**{x['value']:.0%}**" if x["low"] > most else f"{x['value']:.0%}"
                        for x in each)  # fmt: skip
                cells.append(", ".join(told))
            rows.append(cells)
        shares = listed([f"{x:.0%}" for x in sorted({*own["share"]} - {0.0})])
        return (
            f"{grid(['labels spoilt', *events], rows)}\n\n(share of audits with {shares} of the "
            "labels spoilt; bold: more often than with clean ones; "
            f"[tab_stress](/figures/{name}.csv))"
        )

    def remembered(self, place: str, false_positives: float) -> str:
        """Two tests of whether training images are remembered; bold: told from real images."""
        name = f"{place}/tab_privacy"
        own = self.table(name, "method", "metric", "features", "level", "value", "low", "high")
        if own.empty:
            return _missing(name)
        own = means_and_seeds(own, ["method"])[0]
        whole = own[own["attribute"] == "overall"]
        near = whole[(whole["metric"] == NEARER) & (whole["method"] == "real")]
        tests = [(NEARER, x["features"], x["value"]) for x in near.to_dict("records")]
        tests += [(AUC, "", NO_SIGNAL), (FOUND, "", false_positives)]
        rows = []
        for method, part in whole.groupby("method", sort=False):
            cells = [images_of(str(method))]
            for metric, space, chance in tests:
                found = part[(part["metric"] == metric) & (part["features"] == space)]
                cells.append(_against(found.iloc[0], chance) if len(found) else "")
            levels = own[(own["method"] == method) & (own["metric"] == AUC)]
            levels = levels[(levels["attribute"] != "overall") & np.isfinite(levels["value"])]
            best = levels.loc[levels["value"].idxmax()] if len(levels) else None
            group = "" if best is None else f"{best['level']}, {rounded(best['value'])}"
            rows.append([*cells, group])
        heads = [f"nearer to a training image, {space_title(x)}" for _, x, _ in tests[:-2]]
        head = ["", *heads, "AUC of the loss", f"found at {100 * false_positives:g}% false alarms",
                "group of the highest AUC"]  # fmt: skip
        basis = "bold: other than of real images or by chance"
        return f"{grid(head, rows)}\n\n([tab_privacy](/figures/{name}.csv); {basis})"

    @staticmethod
    def folded(summary: str, text: str) -> str:
        """Text that a reader opens."""
        return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"

    def usual_tests(self) -> str:
        """False alarms of procedures in common use about groups that are equally good."""
        name = "calibration/tab_calibration"
        own = self.table(name, "procedure", "metric", "null", "alarm", "simulations")
        if own.empty:
            return _missing(name)
        own = own[own["null"].isin(list(EQUALLY_GOOD)) & (own["metric"] != "es_auc")]
        own = own[own["procedure"] != "audit"]
        rows = []
        for (metric, procedure), part in own.groupby(["metric", "procedure"], sort=False):
            rates = [part.loc[part["null"] == null, "alarm"] for null in EQUALLY_GOOD]
            ends = [" to ".join(dict.fromkeys(f"{x:.0%}" for x in (one.min(), one.max())))
                    if len(one) else "" for one in rates]  # fmt: skip
            said = f"{METRICS[str(metric)]}, {PROCEDURES[str(procedure)]}"
            rows.append([said, *ends, f"{part['simulations'].min():,}"])
        head = ["test", *EQUALLY_GOOD.values(), "audits a situation"]
        return f"{grid(head, rows)}\n\n([tab_calibration](/figures/{name}.csv))"

    def added(self, place: str) -> str:
        """What generated images change in a classifier's AUC, by the share of real patients."""
        name = f"{place}/tab_matrix_changes"
        own = self.table(name, "method", "condition", "share", "metric", "low_new", "n_seeds")
        if own.empty:
            return _missing(name)
        asked = self.condition(place.split("/")[1])
        own = own[(own["metric"] == "auc") & (own["attribute"] == "overall")]
        own = own[own["condition"] == asked]
        shares = sorted({*own["share"]})
        rows = []
        for method, part in own.groupby("method", sort=False):
            cells = [method_name(str(method))]
            for share in shares:
                here = part[part["share"] == share].to_dict("records")
                told = [{**x, "low": x["low_new"], "high": x["high_new"]} for x in here]
                cells.append(_against(told[0], 0) if told else "")
            rows.append(cells)
        head = ["trained on", *(f"{x:.0%} of the real patients" if x else
                                "no real patients, against all" for x in shares)]  # fmt: skip
        return (
            f"AUC minus that of as many real patients alone; {own['n_seeds'].min():.0f} trainings "
            "each, intervals for new patients and new trainings, bold where they leave out 0 "
            f"([tab_matrix_changes](/figures/{name}.csv)).\n\n{grid(head, rows)}"
        )

    def planted(self) -> str:
        """How often the planted gap is found, and how often there is a false alarm."""
        found, runs = (self.table(f"{FAIRGENMED}/{x}") for x in ("tab_planted", "tab_planted_runs"))
        if found.empty or runs.empty:
            return _missing(f"{FAIRGENMED}/tab_planted")
        where = planted.group_of(Study.open("quick", "fairgenmed_simulated"))
        findable = planted.findable(runs, where)
        return str(say("planted_rates", found, runs, where, findable).data)

    def plants(self) -> str:
        """What became of each simulated set's plants, and of the same set with nothing planted."""
        rows, every = [], []
        for name in (own for own, entry in DATASETS.items() if entry.simulated):
            for place in (f"quick/{name}", f"quick/{name}/nothing_planted"):
                table = self.table(f"{place}/tab_tests", "claim", "endpoint", "as_planted")
                own = table[table["claim"] == "C1"] if len(table) else table
                if own.empty:
                    continue
                there = own[own["planted"] != NOTHING].drop_duplicates(["attribute", "level"])
                told = [f"{level_name(x['attribute'], x['level'])}, {x['planted']}"
                        for x in there.to_dict("records")]  # fmt: skip
                became = [tally(own[own["endpoint"] == key]) for key in (BLUR, KID)]
                link = f"[{'; '.join(told) or NOTHING}](/figures/{place}/tab_tests.csv)"
                rows.append([dataset_name(name), link, *map(_cell, became)])
                every.append(own)
        if not rows:
            return _missing(f"{FAIRGENMED}/tab_tests")
        known = pd.concat(every)
        rows.append(["together", "", *(tally(known[known["endpoint"] == x]) for x in (BLUR, KID))])
        head = ["", "planted", "equivalent blur, which decides", "KID, which does not"]
        alarms = [
            f"- {dataset_name(x['dataset'])}, {name_of(x['endpoint'])}: {_contrast(x)} is "
            f"{number(x)}, {x['verdict']}."
            for x in known[known["as_planted"] == ALARM].to_dict("records")
        ]
        listed_alarms = (
            "An alarm is an interval that leaves out 0, however near it is:\n\n" + "\n".join(alarms)
        )
        return f"{grid(head, rows)}\n\n{listed_alarms if alarms else ''}".strip()

    def again(self) -> str:
        """What came of quick studies that were run again, beside the committed ones."""
        places = [f"benchmarks/results/{name}.csv" for name in ("again", "again_others")]
        columns = ("name", "values", "outside", "decided", "missing", "changed")
        own = pd.concat([read_table(PROJECT_ROOT / place, columns) for place in places])
        values, outside, decided, changed = (
            int(own[x].sum()) for x in ("values", "outside", "decided", "changed")
        )
        out = dict.fromkeys(Path(name).stem for name in own.loc[own["outside"] > 0, "name"])
        tables = " and ".join(f"[{Path(x).stem}](/{x})" for x in places)
        return (
            f"Of {decided} outcomes {decided - changed} were the same. Of {values:,} values "
            f"{values - outside:,} lay in their committed intervals ({tables}). Those "
            f"that did not are in {listed([short_name(x) for x in out])}."
        )

    def verdicts(self, preset: str = "reference", simulated: bool = False) -> pd.DataFrame:
        """T14's rows of real or of simulated sets; empty where it is of an earlier form."""
        own = self.table(f"{preset}/all/tab14", "outcome", "bearing", "quote", "not_to_say")
        return own[own["dataset"].map(is_simulated) == simulated] if len(own) else own

    def verdict_grid(self, preset: str = "reference", simulated: bool = False) -> str:
        """Claims by data sets, the verdict in each field."""
        from fairdiff_lib.show.words import verdict_matrix

        own = self.verdicts(preset, simulated)
        if own.empty and simulated:
            return _missing(f"{preset}/fairgenmed_simulated/tab_verdict")
        if own.empty:
            return _missing(f"{preset}/all/tab14", "is of an earlier version or not there")
        wide = verdict_matrix(own)
        cells = [[_cell(x) for x in row] for row in wide.itertuples(index=False)]
        return grid([str(key) for key in wide], cells)

    def quotes(self) -> str:
        """Of every claim on real images what may be quoted, and what may not."""
        own = self.verdicts()
        if own.empty:
            return _missing("reference/all/tab14", "is of an earlier version or not there")
        lines = []
        for dataset, part in own.groupby("dataset", sort=False):
            lines.append(f"<details><summary>{dataset_name(str(dataset))}</summary>")
            for row in part.to_dict("records"):
                claim = f"{row['claim']} {row['part']}".strip()
                lines.append(
                    f"**{claim}: {escape(row['verdict'])}** ({row['bearing']})\n\n"
                    f"> {escape(row['quote'])}\n\nMay not be said: *{escape(row['not_to_say'])}*"
                )
            lines.append("</details>")
        return "\n\n".join(lines)

    def in_short(self) -> str:
        """What was found on real images, a line each, without its numbers."""
        found = [one for one in self.findings() if any("/reference/" in file for file in one.where)]
        return "\n".join(f"- {one.said}" for one in found)

    # -- for the front ----------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """What the front page and the README say was found; a row for what has results."""
        makers = (self._audits, self._remedy, self._optimiser, self._groups, self._trained)
        return [found for maker in makers if (found := maker()) is not None]

    def _audits(self) -> Finding | None:
        """What audits miss and what they imagine: the usual one and ours in one row."""
        parts = [one for one in (self._usual(), self._planted()) if one is not None]
        if not parts:
            return None
        said, numbers = (
            " ".join(x) for x in zip(*((p.said, p.number) for p in parts), strict=True)
        )
        return Finding(said, numbers, [file for part in parts for file in part.where])

    def _usual(self) -> Finding | None:
        name = "calibration/tab_calibration"
        table = self.table(name, "null", "alarm", "procedure", "metric", "situation", "n_min")
        if table.empty:
            return None
        own = table[table["situation"].str.startswith("two groups")]
        usual = own[own["procedure"] == "fid_permutation"]
        usual = usual[usual["layer"] == "F"]  # where the true FID is known, and equal
        alarms = (usual["alarm"] * usual["simulations"]).groupby(usual["null"]).sum().round()
        audits = usual.groupby("null")["simulations"].sum()
        of = {null: f"{alarms[null]:.0f} of {audits[null]:.0f}" for null in audits.index}
        alike = f", in {of['exchangeable']} where they are alike" if "exchangeable" in of else ""
        ours = own[(own["procedure"] == "audit") & (own["metric"] == "kid")]
        ours = ours[ours["null"] == "unequal"]
        low, high = (f"{x:.1%}" for x in (ours["alarm"].min(), ours["alarm"].max()))
        rival = own[(own["procedure"] == "kid_raw_permutation") & (own["null"] == "unequal")]
        plain = f"{rival['alarm'].min():.0%} to {rival['alarm'].max():.0%}"
        plain = f", a permutation test on KID in {plain}" if len(rival) else ""
        blur = table[table["situation"].str.endswith("one blur") & (table["procedure"] == "audit")]
        ends = f"{blur['alarm'].min():.1%} to {blur['alarm'].max():.1%}" if len(blur) else ""
        return Finding(
            "The usual audit calls equally good groups unequal.",
            "Simulated groups of one true FID: a permutation test on FID alarms in "
            f"{of['unequal']} audits where their images differ{alike}. "
            f"Of one KID and images that differ: ours in {low} to {high}{plain}. "
            f"{f'Of one blur, which decides here: ours in {ends}. ' if ends else ''}"
            "5% are promised.",
            (f"figures/{name}.csv", "10_proof"),
        )

    def _planted(self) -> Finding | None:
        name = f"{FAIRGENMED}/tab_planted"
        table = self.table(name, "arm", "promised", "found", "runs")
        if table.empty:
            return None
        own = table[table["promised"].notna()].set_index("arm")
        with_plant = own.loc["planted"]
        without = own.drop(index="planted").iloc[0]
        kept = bool(own["kept"].astype(str).eq("True").all())
        endpoint = with_plant["endpoint"]
        others = table[table["promised"].isna() & (table["endpoint"] == endpoint)]
        most = others.sort_values("found").iloc[-1]
        runs = self.table(f"{name}_runs", "arm", "metric", "attribute", "level", "reference")
        gaps = runs[(runs["arm"] == "planted") & (runs["metric"] == endpoint)]
        gaps = gaps[(gaps["attribute"] == with_plant["attribute"]) & (gaps["reference"] != "")]
        size = float(gaps["value"].abs().mean())
        smallest = load_settings("quick", "fairgenmed_simulated").audit.smallest_blur
        return Finding(
            "Ours finds a generator that serves a group worse."
            if kept else "Ours does not find a generator that serves a group worse as promised.",
            f"Simulated, a gap planted on a {name_of(str(with_plant['attribute'])).lower()} "
            f"({rounded(size)} px on average, {size / smallest:.1f} X): found in "
            f"{with_plant['found']:.0f} of {with_plant['runs']:.0f}; without it, "
            f"{without['found']:.0f} of {without['runs']:.0f} alarm about it. About what was not "
            f"planted, {others['found'].sum():.0f} of {others['runs'].sum():.0f} alarm, most often "
            f"about {name_of(most['attribute']).lower()} ({most['found']:.0f} of "
            f"{most['runs']:.0f}).",
            (f"figures/{name}.csv", "19_planted"),
        )  # fmt: skip

    def _arms(self, dataset: str) -> tuple[str, pd.DataFrame]:
        name = f"reference/{dataset}/tab13"
        table = self.table(name, "baseline", "p_equivalence", "smallest_effect", "p_adjusted")
        if table.empty:
            return name, table
        own = table[(table["metric"] == "kid") & (table["attribute"] == "overall")]
        return name, own[own["features"] == own["features"].iloc[0]]

    def _compared(self, method: str, baseline: str, words: Sequence[str]) -> Finding | None:
        """A declared comparison of two arms, on real data if it can be: equal, different, open."""
        for dataset in sorted(DATASETS, key=is_simulated):
            name, own = self._arms(dataset)
            rows = (
                own[(own["method"] == method) & (own["baseline"] == baseline)] if len(own) else own
            )
            if len(rows):
                row = rows.iloc[0].to_dict()
                alike = row["p_equivalence"] < 0.05 or leaves_out(row)
                told = row["low_new"] > 0 or row["high_new"] < 0
                said = words[0] if alike else words[1] if told else words[2]
                change = with_interval(row["value"], row["low_new"], row["high_new"])
                whole = own.loc[own["method"] == method, "value"].iloc[0]
                number = (
                    f"On {dataset_name(dataset)}, KID of {method_name(method)} minus that of "
                    f"{method_name(baseline)}: {change}, of {rounded(whole)}. "
                    f"X is {rounded(row['smallest_effect'])}, {row['smallest_effect'] / whole:.0%} "
                    "of that."
                )
                return Finding(said, number, (f"figures/{name}.csv", "08_ablations"))
        return None

    def _remedy(self) -> Finding | None:
        words = (
            "The remedy changes images by less than would matter.",
            "The remedy changes image quality.",
            "Whether the remedy changes image quality is undecided.",
        )
        own = self.verdicts()
        own = own[own["claim"] == "C2"] if len(own) else own
        if own.empty:
            return self._compared("fairdiffusion", "none", words)
        told, untested = _by_verdict(own, lambda row: str(row["part"]))
        own = own[own["testable"]]
        alike, differ = (own["outcome"].isin(x) for x in (["no_larger"], ["larger", "different"]))
        said = words[0 if len(own) and alike.all() else 1 if differ.any() else 2]
        trained = self.verdicts()
        trained = trained[trained["claim"] == "C3"]
        if len(trained) and not trained["testable"].any():
            untested.append("all classifiers trained on them")
        parts = [f"{told}{_too_small(untested)}", self._x_in_kid(), self.narrowed()]
        number = " ".join(part for part in parts if part)
        return Finding(said, number, ("figures/reference/all/tab14.csv", "09_verdict"))

    def _x_in_kid(self) -> str:
        """How large X is beside the KID of the generators themselves."""
        shares = list[str]()
        for dataset in self.real_sets():
            place, names = f"reference/{dataset}", DATASETS[dataset].quality
            tests = self.table(f"{place}/tab_tests", "endpoint", "smallest_effect")
            tables = [
                self.table(f"{place}/{name}", "metric", "method", "features") for name in names
            ]
            if tests.empty or any(table.empty for table in tables):
                continue
            own = pd.concat(tables)
            own = own[(own["metric"] == KID) & (own["attribute"] == "overall")]
            own = own[(own["method"] == BASELINE) & own["features"].eq(own["features"].iloc[0])]
            whole = means_and_seeds(own, ["method"])[0]["value"].iloc[0]
            size = tests.loc[tests["endpoint"] == KID, "smallest_effect"].max()
            shares.append(f"{size / whole:.0%} on {dataset_name(dataset)}")
        return f"X in KID, as a share of Stable Diffusion's: {listed(shares)}." if shares else ""

    def narrowed(self) -> str:
        """What the remedy did where there was a gap to narrow: on simulated patients, so far."""
        tests = self.table("reference/fairgenmed_simulated/tab_tests", "claim", "part", "outcome")
        if tests.empty:
            return ""
        equity = tests[(tests["claim"] == "C2") & (tests["part"] == EQUITY)]
        equity = equity[equity["endpoint"] == BLUR]
        keys = ["attribute", "level", "reference"]
        own = gaps(tests, BLUR).merge(equity, on=keys, suffixes=("", "_change"))
        if own.empty:
            return ""
        row = max(own.to_dict("records"), key=lambda one: abs(float(one["value"])))
        change = with_interval(*(row[f"{x}_change"] for x in ("value", "low", "high")))
        return (
            "Next to no gap was there to narrow; where one was planted (simulated, "
            f"{_contrast(row)}: {rounded(row['value'])} px), it changed by {change} px."
        )

    def _optimiser(self) -> Finding | None:
        return self._compared("fairdiffusion", "shuffled_y", (
            "Told its scores in random order, the remedy's optimiser makes images as good.",
            "What the optimiser is told makes a difference.",
            "Whether what the optimiser is told matters is undecided.",
        ))  # fmt: skip

    def _groups(self) -> Finding | None:
        own = self.verdicts()
        own = own[own["claim"] == "C1"] if len(own) else own
        tests = [self.table(f"reference/{name}/tab_tests", "claim") for name in self.real_sets()]
        if own.empty or not all(map(len, tests)):
            return None
        every = pd.concat(tests)
        every = every[(every["claim"] == "C1") & (every["endpoint"] == BLUR)]
        told, untested = _by_verdict(every, _contrast)
        differ = own["testable"] & own["outcome"].isin(["larger", "different"])
        alike = own["testable"] & (own["outcome"] == "no_larger")
        asked = " or ".join(self._asked_about())
        said = f"Some groups by {asked} are served worse on real images." if differ.any() else (
            f"On {alike.sum()} of {len(own)} real data sets no group by {asked} is served worse by "
            "as much as would matter."
        )  # fmt: skip
        if "race" not in asked:
            said += " None records race."
        number = f"{told}{_too_small(untested)}{_by_kid(pd.concat(tests))}"
        return Finding(said, number, ("figures/reference/all/tab14.csv", "09_verdict"))

    def _asked_about(self) -> list[str]:
        """Attributes whose groups were compared on real images, by name."""
        tests = [self.table(f"reference/{name}/tab_tests", "claim") for name in self.real_sets()]
        found = [x for one in tests if len(one) for x in one.loc[one["claim"] == "C1", "attribute"]]
        return [name_of(name).lower() for name in dict.fromkeys(found)]

    def _trained(self) -> Finding | None:
        files, tested, said_of = [], 0, dict[str, list[str]]()
        seen = list[Mapping[Any, Any]]()
        for dataset in self.real_sets():
            name = f"reference/{dataset}/tab_changes"
            own = self.table(name, "baseline", "metric", "condition", "classifier", "low_new")
            if own.empty:
                continue
            own = own[(own["baseline"] == "real") & (own["metric"] == "auc")]
            own = own[(own["attribute"] == "overall") & (own["method"] != "real")]
            if own.empty:
                continue
            own = own[own["condition"] == self.condition(dataset)]
            for row in own.to_dict("records"):  # of every classifier: they need not agree
                by = classifier_name(row["classifier"]).split(" ")[0]
                low, high = (row[f"{side}_new"] for side in ("low", "high"))  # new patients, runs
                tested += 1
                told = said_of.setdefault(method_name(row["method"]), [])
                if low <= 0 <= high:
                    continue
                change = with_interval(row["value"], low, high)
                told.append(f"{dataset_name(dataset)} by {by}, AUC {change}")
                if high < 0:
                    seen.append(row)
            files.append(f"figures/{name}.csv")
        if not files:
            return None
        stands = [row for row in seen if _stands(row, tested)]
        said = "Generated images are not seen to train worse classifiers than real ones."
        if seen:
            said = "Whether generated images train worse classifiers than real ones is open."
        if stands:
            said = "Generated images train worse classifiers than real ones."
        number = " ".join(
            f"{name}'s: {len(found)} of {tested // len(said_of)} comparisons are told from 0"
            f"{f' ({listed(found)})' if found else ''}."
            for name, found in said_of.items()
        )
        if seen:
            number += f" Corrected for {tested}, {len(stands) or 'none'} of them."
        return Finding(said, number, (*files, "07_downstream"))

    def finding_grid(self, base: str) -> str:
        """The findings as a Markdown table; ``base``: what a link to a file begins with."""
        rows = list[list[str]]()
        for one in self.findings():
            links = [_where(file, base) for file in one.where]
            number = re.sub(r"(?<=[\w%)]\.) (?=[A-Z])", "<br>", one.number)  # a line each
            rows.append([one.said, number, ", ".join(links)])
        return grid(["finding", "number", "where"], rows)


Named = Callable[[Mapping[Any, Any]], str]


def _stands(row: Mapping[Any, Any], tested: int) -> bool:
    """Whether a change over runs leaves out 0 when corrected for as many (Bonferroni).

    Below five runs there is no p-value, by declaration. The interval is widened as one of Student's
    t by the degrees of freedom of the runs alone, the fewest it may have.
    """
    df = int(row["n_seeds"]) - 1
    if df < 1:
        return False
    wider = stats.t.ppf(1 - ALPHA / (2 * tested), df) / stats.t.ppf(1 - ALPHA / 2, df)
    half = (row["high_new"] - row["low_new"]) / 2
    if not np.isfinite(half):
        raise InputError(f"{row['dataset']}: a change of {tested} has no interval")
    return bool(abs(row["value"]) > wider * half)


def _against(row: Mapping[Any, Any], chance: float) -> str:
    """A number with its interval, bold where that leaves out what chance gives."""
    said = number(row)
    return f"**{said}**" if row["low"] > chance or row["high"] < chance else said


def _contrast(row: Mapping[Any, Any]) -> str:
    return f"{level_name(row['attribute'], row['level'])} minus {row['reference']}"


def _by_verdict(verdicts: pd.DataFrame, name: Named) -> tuple[str, list[str]]:
    """What was decided, once, with all it holds for and the first's number; what is untestable."""
    rows = verdicts.assign(named=[name(row) for row in verdicts.to_dict("records")])
    rows = rows.assign(data=[dataset_name(str(x)) for x in rows["dataset"]])
    parts = list[str]()
    for verdict, alike in rows[rows["testable"]].groupby("verdict", sort=False):
        unit = " px of blur" if "px" in str(verdict) else ""
        value, _, ends = with_interval(*alike.iloc[0][["value", "low", "high"]]).partition(" (")
        held = list[str]()
        for named, part in alike.groupby("named", sort=False):
            data = list(part["data"])
            if not held:  # the first is told with its number, the others are in the table
                data[0] += f" ({value}{unit}; {ends}"
            held.append(f"{named} on {listed(data)}")
        parts.append(f"{str(verdict)[:1].upper()}{str(verdict)[1:]}: {', '.join(held)}.")
    untested = rows[~rows["testable"].astype(bool)]
    names = [f"{x} on {y}" for x, y in zip(untested["named"], untested["data"], strict=True)]
    return " ".join(parts), names


def _by_kid(tests: pd.DataFrame) -> str:
    """Contrasts of groups that KID, which does not decide, tells from 0."""
    own = tests[(tests["claim"] == "C1") & (tests["endpoint"] == KID)]
    own = own[(own["low"] > 0) | (own["high"] < 0)]
    told = [f"{_contrast(x)} on {dataset_name(x['dataset'])}, {number(x)}"
            for x in own.to_dict("records")]  # fmt: skip
    return f" KID, which does not decide, tells from 0: {'; '.join(told)}." if told else ""


def _percent(ends: Sequence[float], whole: float) -> str:
    """Value and interval in percent of something."""
    value, low, high = (f"{round(100 * x / whole, 1) + 0.0:.1f}%" for x in ends)
    return f"{value} ({low} to {high})"


def _too_small(names: Sequence[str]) -> str:
    return f" Declared untestable beforehand: {', '.join(names)}." if names else ""


def _where(file: str, base: str) -> str:
    if file in NOTEBOOKS:
        return f"[{file[:2]}]({base}notebooks/{file}.ipynb)"
    name = Path(file).stem
    numbered = re.fullmatch(r"tab(\d+)", name)
    return f"[{f'T{int(numbered[1])}' if numbered else 'table'}]({base}{file})"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else rounded(value)
    return escape(value)


def _missing(name: str, why: str = "is not there yet") -> str:
    """A line in place of what a table would say, with the command that makes it."""
    path = Path(name)
    maker = contents().get(path.name, ("", ""))[1]
    study = NOTEBOOKS[maker].study if maker else "main"
    parts = path.parts
    preset, dataset = (parts[0], parts[1]) if len(parts) > 2 else ("quick", "")
    if dataset == "all":
        dataset = "ham10000"
    given = f" --preset {preset}" * (preset in ("reference", "smoke", "paper"))
    given += f" --dataset {dataset}" * bool(dataset and dataset != "fairgenmed_simulated")
    given += f" --study {study}" * (study != "main")
    return f"*{path.name} {why}: `fairdiff run{given}` makes it.*"


def escape(text: object) -> str:
    """Text in which Markdown sees nothing to act on."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", " ".join(str(text).split()))


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def options(facts: Facts) -> Mapping[str, Any]:
    """What a chapter's template may use."""
    quick = load_settings("quick", "fairgenmed_simulated")
    return {"facts": facts, "say": facts.say, "rows": facts.rows, "figure": facts.figure,
            "notebook": facts.notebook, "settings": quick, "method_name": method_name,
            "FAIRGENMED": FAIRGENMED}  # fmt: skip


def write_readme(figures: Path, readme: Path) -> bool:
    """Fill the README's table of findings from the tables; whether it changed."""
    text = readme.read_text(encoding="utf-8")
    if not all(mark in text for mark in MARKS):
        raise InputError(f"{readme.name}: lacks the marks {' and '.join(MARKS)}")
    before, _, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    new = f"{before}{MARKS[0]}\n{Facts(figures).finding_grid('')}\n{MARKS[1]}{after}"
    if new != text:
        readme.write_text(new, encoding="utf-8")
    return new != text


if __name__ == "__main__":
    write_readme(PROJECT_ROOT / "figures", PROJECT_ROOT / "README.md")
