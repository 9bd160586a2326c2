"""Cards: of an audit (one page of HTML), of a model and of a simulated data set (Markdown).

An audit's card says what was compared, what was found, and what limits it; it needs no other file
and names files, never the folders of a machine. The other two say first what a thing is for and
what it cannot tell; ``huggingface_hub`` reads them, and no network is needed.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData
from IPython.display import HTML, Markdown
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.font_manager import findfont, get_font

import fairdiff_lib
from fairdiff_lib.audit.audit import Audit
from fairdiff_lib.audit.estimate import OVERALL
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.audit.seeds import LEAST_RUNS
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import atomic_file, read_json
from fairdiff_lib.disk.places import CARD, PROJECT_ROOT
from fairdiff_lib.disk.stamps import write_stamp
from fairdiff_lib.disk.tables import failed_gates
from fairdiff_lib.settings.methods import config_of, fields_of
from fairdiff_lib.settings.names import (
    NOT_ESTIMABLE,
    method_name,
    name_of,
    number,
    p_text,
    space_title,
)
from fairdiff_lib.settings.options import Settings, as_dict
from fairdiff_lib.show.panels import dots_foot, narrow_dots
from fairdiff_lib.show.style import STYLE, dataset_name, is_simulated, limits
from fairdiff_lib.show.words import (
    about_files,
    about_leavers,
    about_same_pictures,
    about_small_levels,
    contrast_name,
    decision,
    declared_finding,
    finding,
    one_at_a_time,
)

if TYPE_CHECKING:
    from fairdiff_lib.study import Study

METHODS = "methods.txt"  # beside an audit's card
SHOWN = 8  # contrasts on the card; all of them are in its table on disk
KEYS = ["attribute", "level", "reference"]  # of a contrast
PHONE = 4.3  # inches: width of the figure, so that its words can be read on a phone
ENDPOINT = (
    "the differences in KID between each level and the attribute's largest level, p adjusted over "
    "all levels of at least {below} {unit}s by the largest |t|"
)
DECIDES = (
    "The difference in equivalent blur between each level and its attribute's largest level "
    "decides, by where its interval lies against 0 and {size:g} px."
)
BLUR = "equivalent_blur"
HERE = Path(__file__).parent
TEMPLATES = Environment(
    loader=PackageLoader("fairdiff_lib.show", "."), autoescape=True, undefined=StrictUndefined
)


def card(study: Study, kind: str, *content: Any) -> HTML | Markdown:
    """Write a card of the study, and show it or say where it lies.

    Parameters
    ----------
    study : Study
    kind : str
        ``audit`` (then a quality result and the registered protocol), ``model`` (then a method and
        a seed) or ``data``.
    """
    if kind == "audit":
        return framed(publish_study_card(study, *content))
    said = publish_model_card(study, *content) if kind == "model" else publish_data_card(study)
    return Markdown(said)  # type: ignore[no-untyped-call]


def framed(page: str) -> HTML:
    """A page of HTML within a notebook, whose own style it leaves alone."""
    grow = "this.style.height=this.contentDocument.body.scrollHeight+32+'px'"
    frame = (
        f'<div><iframe title="Audit card" srcdoc="{html.escape(page)}" onload="{grow}" '
        'style="width: 100%; height: 1150px; border: 0"></iframe></div>'
    )
    return HTML(frame)  # type: ignore[no-untyped-call]


# -- the card of an audit --------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What a card says besides the audit's own numbers."""

    title: str  # the question, with the word "simulated" where the images are
    # name and content of each line on what was compared: counts, sources, features
    compared: Sequence[tuple[str, str]]
    endpoint: str  # the primary endpoint, in words
    caveats: Sequence[str]
    unit: str = "subject"  # what n counts
    # attribute, level, low, high: the noise between two halves of the reals
    floor: pd.DataFrame | None = None
    # contrasts at a common case mix, in the audit's contrast columns
    standardised: pd.DataFrame | None = None
    mix: str = ""  # the condition that they are standardised for
    blur: Audit | None = None  # equivalent blur of the same groups
    # KID differences that one blur of everybody's real images gives, by contrast
    alike: pd.DataFrame | None = None
    methods: str = ""  # the sentences that a paper needs
    table: str = "contrasts.csv"  # the file that holds all contrasts
    standing: str = ""  # stands before the finding: what limits it most
    # declared tests of the endpoint that decides, as in tab_tests; they lead where there are some
    decided: pd.DataFrame | None = None
    drawn: Sequence[pd.DataFrame] = ()  # KID and blur by group, for whom ``decided`` holds


def with_floor(by_group: pd.DataFrame, floor: pd.DataFrame | None) -> pd.DataFrame:
    """``by_group`` with the floor of each level beside it, as floor_low and floor_high."""
    if floor is None:
        return by_group
    bands = floor.rename(columns={"low": "floor_low", "high": "floor_high"})
    keys = ["attribute", "level"]
    return by_group.merge(bands[[*keys, "floor_low", "floor_high"]], on=keys, how="left")


def stamp_line(stamp: Mapping[str, Any]) -> str:
    """Versions, commit and data hash in one line."""
    commit = stamp["commit"]
    state = f"commit {commit[:10]}" if commit else "no commit"
    changed = ", changed since" if stamp["dirty"] else ""
    used = ("python", "torch", "numpy", "pandas")
    versions = ", ".join(f"{name} {stamp['versions'][name]}" for name in used)
    own = f"fairdiff {fairdiff_lib.__version__}, {state}{changed}"
    return f"{own}; {versions}; data {stamp['data_hash'][:16]}"


def _clearest(contrasts: pd.DataFrame) -> Iterator[tuple[str, Any, Any]]:
    """The contrasts that the card shows, the clearest first: name in words, key, row."""
    order = contrasts.sort_values(["p_adjusted", "p"], kind="stable", na_position="last")
    for _, row in order.head(SHOWN).iterrows():
        yield contrast_name(row.to_dict()), tuple(row[key] for key in KEYS), row


def shown_contrasts(
    contrasts: pd.DataFrame, standardised: pd.DataFrame | None = None
) -> list[list[str]]:
    """The contrasts to show, the clearest first: names, difference, adjusted p, standardised."""
    at_mix = None if standardised is None else standardised.set_index(KEYS)
    rows = []
    for name, key, row in _clearest(contrasts):
        shown = [name, number(row), p_text(float(row["p_adjusted"]))]
        if at_mix is not None:
            shown.append(number(at_mix.loc[key]) if key in at_mix.index else "not estimable")
        rows.append(shown)
    return rows


def blur_rows(audit: Audit, facts: Facts) -> list[list[str]]:
    """The contrasts that the card shows, in equivalent blur; beside what one blur of all makes."""
    if facts.blur is None:
        return []
    blur = facts.blur.contrasts.set_index(KEYS)
    alike = None if facts.alike is None else facts.alike.set_index(KEYS)
    rows = []
    for name, key, _ in _clearest(audit.contrasts):
        own = blur.loc[key]
        control = NOT_ESTIMABLE if alike is None else number(alike.loc[key])
        rows.append([name, number(own), p_text(float(own["p_worse"])), control])
    return rows


def render_html(audit: Audit, facts: Facts, stamp: Mapping[str, Any]) -> str:
    """The card as one page of HTML that needs no other file."""
    dots = with_floor(audit.by_group, facts.floor)
    both = [dots, *([] if facts.blur is None else [facts.blur.by_group])]
    if facts.drawn:
        both = [with_floor(facts.drawn[0], facts.floor), *facts.drawn[1:]]
    blurred = blur_rows(audit, facts)
    rows = shown_contrasts(audit.contrasts, facts.standardised)
    confidence = audit.design.confidence
    header = ["Difference", f"{name_of(audit.metric)} ({confidence:.0%} interval)", "adjusted p"]
    if facts.standardised is not None:
        header.append(f"at equal {facts.mix} mix")
    if facts.decided is not None and blurred:  # blur stands above, for new runs; its control here
        header.append("if all were blurred alike")
        rows = [[*row, own[-1]] for row, own in zip(rows, blurred, strict=True)]
        blurred = []
    hidden = len(audit.contrasts) - SHOWN
    lead = finding(audit) if facts.decided is None else declared_finding(facts.decided)
    return TEMPLATES.get_template("audit_card.html.j2").render(
        title=facts.title,
        finding=f"{facts.standing}{lead}",
        decided=decided_rows(facts.decided),
        decided_for=decided_for(facts.decided),
        share=f"{confidence:.0%}",
        compared=[*facts.compared, ("Primary endpoint", facts.endpoint)],
        picture=_embedded(both),
        foot=dots_foot(dots, facts.unit, confidence, decided_for(facts.decided)),
        header=header,
        rows=rows,
        more=f"{hidden} more in {facts.table}." if hidden > 0 else "",
        blur_header=[
            header[0],
            f"pixels of blur ({confidence:.0%} interval)",
            "p, worse",
            "KID, all blurred alike",
        ],
        blur_rows=blurred,
        methods=facts.methods,
        caveats=facts.caveats,
        stamp=stamp_line(stamp),
    )


def decided_rows(tests: pd.DataFrame | None) -> list[list[str]]:
    """Each declared difference, its size and what was decided."""
    rows = [] if tests is None else tests.to_dict("records")
    return [[contrast_name(row), f"{number(row)} px", decision(row)] for row in rows]


def decided_for(tests: pd.DataFrame | None) -> str:
    """For whom the intervals of the declared tests hold."""
    if tests is None:
        return ""
    row = tests.iloc[0]
    trainings = str(row["seeds"]).count(",") + 1
    if row["runs"] >= LEAST_RUNS:
        return f"new subjects and new runs ({row['runs']} complete ones were made)"
    if trainings >= LEAST_RUNS:
        return f"new subjects and other fine-tunings of this one base ({trainings} were made)"
    return "new subjects and the models at hand"


def _embedded(dots: Sequence[pd.DataFrame]) -> str:
    """The dot plots within a page; as SVG where only the reader's own fonts have its letters."""
    letters = get_font(findfont(STYLE["font.family"])).get_charmap()
    known = all(ord(x) in letters for x in "".join([*dots[0]["attribute"], *dots[0]["level"]]))
    stream = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        page = narrow_dots(dots, PHONE)
        if known:
            page.savefig(stream, format="png", dpi=220)
        else:
            warnings.filterwarnings("ignore", "Glyph")  # the reader's browser has it
            matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "card"})
            page.savefig(stream, format="svg", metadata={"Date": None})
    kind = "png" if known else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


# -- the study's own -------------------------------------------------------------------------


def shown_method(result: Any, rule: Any) -> str:
    """The baseline, or the study's first method where it has no baseline."""
    methods = [method for method, _ in result.audits]
    return str(rule.baseline if rule.baseline in methods else methods[0])


def shown_audit(result: Any, rule: Any, metric: str = "kid") -> Audit:
    """The shown method's mean over seeds, overall and by attribute level.

    Conditions and intersections, which the same audit estimates, are left to their tables.
    """
    own = result.audits[shown_method(result, rule), ",".join(map(str, rule.seeds))]
    found: Audit = next(one for one in own if one.metric == metric)  # the primary space is first
    wanted = {OVERALL[0], *found.attributes}
    return replace(found, estimates={k: e for k, e in found.estimates.items() if k[0] in wanted})


def publish_study_card(study: Study, result: Any, protocol: Any) -> str:
    """Write ``card.html`` of the study and its stamp; the page."""
    facts = study_facts(result, study.cohort, protocol, study.stamp)
    page = render_html(shown_audit(result, protocol.rule), facts, study.stamp)
    written = {"card.html": page, METHODS: facts.methods + "\n"}
    for name, text in written.items():
        with atomic_file(study.places.figures / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_stamp(study.stamp, *(study.places.figures / name for name in written))
    return page


def study_facts(result: Any, cohort: Cohort, protocol: Any, stamp: Mapping[str, Any]) -> Facts:
    """What the card says besides the numbers of :func:`shown_audit`."""
    rule, found = protocol.rule, shown_audit(result, protocol.rule)
    tests = result.tests[(result.tests["claim"] == "C1") & (result.tests["endpoint"] == BLUR)]
    tests = None if tests.empty else tests
    label = method_name(shown_method(result, rule))
    floors = result.main(rule.features)
    floors = floors[floors["metric"] == "kid_floor"].drop_duplicates(["attribute", "level"])
    return Facts(
        title=f"Is {label} equally good for every group? {dataset_name(rule.dataset)}",
        compared=list(_compared(found, label, cohort, protocol)),
        endpoint=_endpoint(found, rule, tests),
        caveats=[
            *_caveats(result, found, protocol, tests),
            *about_files({"real": cohort.split("test").file_gaps}),
            *about_same_pictures(cohort),
        ],
        floor=floors,
        standardised=shown_audit(result, rule, "kid_standardised").contrasts,
        mix=name_of(rule.condition).lower(),
        blur=shown_audit(result, rule, BLUR),
        alike=_alike(result, rule),
        methods=_methods(result, cohort, rule, stamp, tests),
        table="tab_contrasts.csv",
        standing=_standing(result, protocol),
        decided=tests,
        drawn=[] if tests is None else _drawn(result.main(rule.features), found, rule, result),
    )


def _drawn(table: pd.DataFrame, found: Audit, rule: Any, result: Any) -> list[pd.DataFrame]:
    """KID and blur of the shown method by group, as the study's tables have them."""
    own = table[table["method"] == shown_method(result, rule)]
    own = own[own["seeds"] == ",".join(map(str, rule.seeds))]
    own = own[own["attribute"].isin([OVERALL[0], *found.attributes])]
    return [own[own["metric"] == metric] for metric in ("kid", BLUR)]


def _alike(result: Any, rule: Any) -> pd.DataFrame | None:
    """The contrasts that the blur of equal overall KID of everybody's real images gives."""
    seeds = ",".join(map(str, rule.seeds))
    own = result.controls
    own = own[(own["method"] == shown_method(result, rule)) & (own["seeds"] == seeds)]
    return None if own.empty else own


def _methods(
    result: Any, cohort: Cohort, rule: Any, stamp: Mapping[str, Any], tests: pd.DataFrame | None
) -> str:
    """The methods paragraph of :func:`shown_audit`."""
    from fairdiff_lib.classify.features import describe  # torch: seconds, for one notebook in ten

    space, settings = result.fixed.spaces[0], result.fixed.study.settings
    kept = {name: len(cohort.included().split(name).table) for name in ("train", "test")}
    method, mix = shown_method(result, rule), name_of(rule.condition).lower()
    own = [said for (name, _), said in result.copies.items() if name == method]
    how = Measuring(
        describe(space.extractor),
        f"{kept['test']:,} real test images, and as many images of {method_name(method)} "
        "generated for their prompts",
        settings.model.image_size,
        f"{kept['train']:,} real training images",
        space.kernel,
        space.scale.caveat(),
        f"KID is the mean over {len(rule.seeds)} trained model{'s' * (len(rule.seeds) > 1)} "
        f"(seeds {', '.join(map(str, rule.seeds))}); its intervals hold for these on new subjects."
        + (f" {DECIDES.format(size=rule.smallest_blur)} Its intervals hold for "
           f"{decided_for(tests)}." if tests is not None else ""),
        " ".join(own),
        f"Differences are also given at a common mix of {mix}, and in "
        f"{space_title(rule.sensitivity)} features." if rule.sensitivity else "",
    )  # fmt: skip
    blur = shown_audit(result, rule, BLUR)
    return methods_text(shown_audit(result, rule), blur, how, stamp, "subject")


def _failed(result: Any, rule: Any) -> list[str]:
    return failed_gates(result.gates[result.gates["method"] == shown_method(result, rule)])


def _standing(result: Any, protocol: Any) -> str:
    """What the finding is worth, before it is said; empty where nothing is against it."""
    failed = bool(_failed(result, protocol.rule))
    said = ["exploratory"] * (not protocol.before) + ["a check failed"] * failed
    return f"{' and '.join(said)}: ".capitalize() if said else ""


def _compared(found: Audit, label: str, cohort: Cohort, protocol: Any) -> Iterator[tuple[str, str]]:
    """Name and content of each line on what was compared."""
    rule, n = protocol.rule, found.overall.n
    images = len(cohort.included().split("test").table)
    seeds = ", ".join(map(str, rule.seeds))
    models = f"{len(rule.seeds)} trained models (seeds {seeds}); KID is their mean"
    if len(rule.seeds) == 1:
        models = f"one trained model (seed {seeds})"
    when = "before any test image was" if protocol.before else "AFTER test images were"
    who = "simulated subjects" if is_simulated(rule.dataset) else "subjects"
    yield "Measure", "Kernel Inception Distance (KID): 0 where images can't be told apart"
    yield "Real images", f"{images:,} test images of {n:,} {who}"
    yield "Generated images", f"{label}, one for each test image's prompt; {models}"
    yield "Comparison", "paired by subject; each group's images against its own real ones"
    space = space_title(rule.features)
    yield "Features", f"{space} features; scale and kernel from real training images"
    yield "Protocol", f"{rule.digest}, written {when} generated"


def _endpoint(found: Audit, rule: Any, tests: pd.DataFrame | None) -> str:
    """The primary endpoint, and what difference is of interest."""
    if tests is not None:
        return DECIDES.format(size=rule.smallest_blur)
    said = ENDPOINT.format(below=found.design.secondary_below, unit="subject")
    size = found.design.smallest_effect
    if not np.isfinite(size):
        return said
    return f"{said}; of interest from {size:.2g}, what {rule.smallest_blur:g} px of blur make"


def _caveats(result: Any, found: Audit, protocol: Any, tests: pd.DataFrame | None) -> Iterator[str]:
    """What limits the audit, the most important first."""
    rule, method = protocol.rule, shown_method(result, protocol.rule)
    if is_simulated(rule.dataset):
        yield "The images are simulated: nothing here is about patients."
    elif limits(rule.dataset):
        yield limits(rule.dataset)
    for line in _failed(result, rule):
        yield f"{line[0].upper()}{line[1:]}: the numbers above may not mean what they say."
    if method != rule.baseline:
        yield "The study has no baseline, so nothing was declared: all is exploratory."
    if not protocol.before:
        yield "The protocol was written after test images existed: read as exploratory."
    models = "this one model" if len(rule.seeds) == 1 else f"these {len(rule.seeds)} models"
    of_kid = "Intervals" if tests is None else "Intervals of differences in KID"
    yield f"{of_kid} hold for {models} on new subjects, not for training anew."
    for (name, seed), said in result.copies.items():
        if name == method:
            yield f"Seed {seed}: {said}"
    if result.fixed.spaces[0].scale.below:
        yield result.fixed.spaces[0].scale.caveat()
    small = about_small_levels(found.by_group, list(found.attributes), rule.secondary_below)
    if small:
        yield small
    if len(found.attributes) > 1:
        yield one_at_a_time("tab_intersections.csv")
    mix = name_of(rule.condition).lower()
    second = f", and in {space_title(rule.sensitivity)} features," if rule.sensitivity else ""
    yield f"Differences at equal {mix} mix{second} are exploratory."


# -- of anybody's own images -----------------------------------------------------------------


def own_card(result: Any) -> str:
    """The card of an audit of one's own images (``studies.own.OwnAudit``), as a page of HTML."""
    return render_html(result.audit, own_facts(result), result.stamp)


def own_facts(result: Any) -> Facts:
    """What that card says besides the audit's own numbers."""
    images, measured, unit = result.images, result.measured, result.images.unit
    simulated = " (simulated images)" if images.simulated else ""
    shared = images.real.table[unit].nunique()
    how = f"paired, the same {shared:,} {unit}s in both" if images.paired else "unpaired"
    sets = {"Real": images.real, "Generated": images.generated, "Training": images.train}
    counts = [
        (
            f"{name} images",
            f"{x.csv.name}: {len(x):,} images of {x.table[unit].nunique():,} {unit}s",
        )
        for name, x in sets.items()
        if x is not None
    ]
    seen = f"{measured.name}, from images reduced to {measured.size} pixels"
    condition = next(iter(images.conditions), "")
    return Facts(
        title=f"Is this generator equally good for every group?{simulated}",
        compared=[*counts, ("Comparison", how), ("Features", seen)],
        endpoint=ENDPOINT.format(below=result.audit.design.secondary_below, unit=unit),
        caveats=list(_own_caveats(result, condition)),
        unit=unit,
        floor=result.floor,
        standardised=None if result.standardised is None else result.standardised.contrasts,
        mix=condition,
        blur=result.blur,
        alike=result.alike,
        methods=own_methods(result),
    )


def own_methods(result: Any) -> str:
    """The methods paragraph of an audit of one's own images."""
    images, measured, unit = result.images, result.measured, result.images.unit
    base = images.real if images.train is None else images.train
    which = "of the real images" if images.train is None else "of other real, training, images"
    condition = next(iter(images.conditions), "")
    mix = f"Differences are also given at a common mix of {condition}." if condition else ""
    paired = "the same" if images.paired else "other"
    how = Measuring(
        measured.about,
        f"{len(images.real):,} real and {len(images.generated):,} generated images (of {paired} "
        f"{unit}s)",
        measured.size,
        f"{len(base):,} {which}",
        measured.kernel,
        measured.hardly_vary,
        "Intervals hold for these generated images on new subjects, not for training anew.",
        result.copies,
        mix if result.standardised is not None else "",
    )
    return methods_text(result.audit, result.blur, how, result.stamp, unit)


def _own_caveats(result: Any, condition: str) -> Iterator[str]:
    """What limits this audit, the most important first."""
    images, measured, unit = result.images, result.measured, result.images.unit
    if result.copies:
        yield str(result.copies)
    yield from about_files(images.file_gaps)
    yield "Exploratory: no protocol was registered before these images were compared."
    if not condition:
        yield "Case mix: not standardised; a group with harder cases looks worse."
    elif result.standardised is None:
        yield (
            f"Case mix: not standardised for {condition}; that takes the same {unit}s in both sets."
        )
    if len(images.attributes) > 1:
        yield one_at_a_time("intersections.csv")
    if not images.paired:
        yield f"Unpaired: the sets share no {unit}, which makes intervals wider."
    if measured.sees:
        yield (
            f"Features: {measured.name} sees {measured.sees}. Repeat with features of your field "
            "(--features)."
        )
    if measured.hardly_vary:
        yield str(measured.hardly_vary)
    if images.train is None:
        yield (
            "Feature scale and kernel bandwidth were fixed on the real images compared here, as no "
            "training images were given."
        )
    below = result.audit.design.secondary_below
    small = about_small_levels(result.audit.by_group, list(images.attributes), below)
    if small:
        yield small
    yield from about_leavers(images.flow, unit)


# -- models and simulated data sets ----------------------------------------------------------

LICENCE = "apache-2.0"  # the project's
FIRST = ("What it stands in for", "What it cannot tell")  # of a datasheet
TAGS = ("fairness", "medical-imaging", "research-only")


def publish_model_card(study: Study, method: str, seed: int) -> str:
    """Write a finished run's card beside it and to the study's figures; says where it lies."""
    base = method == "base"
    folder = study.places.base_of(seed) if base else study.places.run(method, seed)
    path = write_model_card(study, folder, method)
    one = folder == study.places.base
    return _published(study, path, "model_base.md" if one else f"model_{method}_seed{seed}.md")


def publish_data_card(study: Study) -> str:
    """Write a simulated data set's card into its folder and to the figures; says where it lies."""
    if not study.settings.simulated:
        return "Real data come with their authors' own card: none is written."
    return _published(study, write_data_card(study), "dataset.md")


def _published(study: Study, path: Path, name: str) -> str:
    with atomic_file(study.places.figures / "cards" / name) as temporary:
        temporary.write_bytes(path.read_bytes())
    return f"Intended use, limits and how it was made: [{name}](../cards/{name})."


def write_shipped_card(study: Study, gates: pd.DataFrame) -> Path:
    """Write the card of a base that the project comes with beside its pipeline; its path."""
    head = "| gate | images | measured | expected | passed |"
    lines = [
        f"| {str(row['gate']).replace('_', ' ')} | {row['n']} | {row['value']:.3g} "
        f"| {row['comparison']} {row['threshold']:.3g} | {'yes' if row['passed'] else 'no'} |"
        for row in gates.to_dict("records")
    ]
    table = "\n".join([head, "|---|---|---|---|---|", *lines])
    stamp = read_json(study.places.pretrained / "stamp.json")
    seconds = sum(stamp["training"].values())  # of all sessions
    shipped = {"gates": table, "seconds": seconds, "stamp": stamp, **stamp["parameters"]}
    card = _model_card(study, study.places.base, "base", shipped)
    return _write(card, study.places.pretrained / CARD)


def write_model_card(study: Study, folder: Path, method: str) -> Path:
    """Write the card of a trained pipeline into its run's folder, from its run.json; its path."""
    return _write(_model_card(study, folder, method), folder / CARD)


def _model_card(
    study: Study, folder: Path, method: str, shipped: Mapping[str, Any] | None = None
) -> ModelCard:
    settings, cohort = study.settings, study.cohort
    run, simulated = {**read_json(folder / "run.json"), **(shipped or {})}, settings.simulated
    started, fair = settings.model.pretrained or None, method.startswith("fairdiffusion")
    data = ModelCardData(
        license=LICENCE if simulated else "other",
        license_name=None if simulated else "terms-of-the-training-data",
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*TAGS, *(["simulated"] if simulated else []), method.replace("_", "-")],
        datasets=[settings.dataset],
        base_model=f"{settings.dataset}-base" if method != "base" else started,
    )
    seed = f", seed {run['seed']}" if method != "base" or settings.base_per_seed else ""
    made: ModelCard = ModelCard.from_template(
        data,
        template_path=str(HERE / "model_card.md.j2"),
        title=f"{dataset_name(settings.dataset)}: {method_name(method)}{seed}",
        simulated=simulated,
        dataset=settings.dataset,
        limits=limits(settings.dataset),
        kind="Fine-tuned" if started else "A small model, trained from scratch",
        size=settings.model.image_size,
        counts=_counts(cohort, ("train",)),
        method=method,
        name=method_name(method),
        reweighting=config_of(method, settings.mitigation).reweighting if fair else "",
        start=started or "nothing: VAE, text encoder and U-Net from scratch",
        settings=_grid(_training_rows(run, settings, cohort, method)),
        prompt=repr(cohort.spec.prompt(cohort.usual_profile())),  # no patient's own
        place=f"figures/{settings.preset}/{settings.dataset}",
        preset=settings.preset,
        shipped=shipped,
    )
    return made


def write_data_card(study: Study) -> Path:
    """Write the card of a simulated data set: its datasheet, its settings, its counts; its path.

    It lies in the data set's folder but is no part of the data: neither the hash of the labels and
    images nor ``folder_mark`` sees it.
    """
    settings, cohort, stamp = study.settings, study.cohort, study.stamp
    origin = {"data hash": cohort.data_hash, "commit": _commit(stamp), **stamp["versions"]}
    sheet = (PROJECT_ROOT / "data" / "cards" / f"{settings.dataset}.md").read_text("utf-8")
    head, *sections = sheet.split("\n## ")
    titled = {section.partition("\n")[0]: section.strip() for section in sections}
    data = DatasetCardData(
        license=LICENCE,
        task_categories=["text-to-image"],
        tags=[*TAGS, "simulated"],
        pretty_name=dataset_name(settings.dataset),
        annotations_creators=["machine-generated"],
        source_datasets=["original"],
    )
    made = DatasetCard.from_template(
        data,
        template_path=str(HERE / "data_card.md.j2"),
        head=head.replace("Datasheet: ", "").strip(),
        sections=[titled[title] for title in (*FIRST, *(t for t in titled if t not in FIRST))],
        settings=_grid(_flat(as_dict(settings.simulator))),
        counts=_counts(cohort, ("train", "val", "test")),
        origin=_grid(origin),
    )
    return _write(made, study.places.data / CARD)


def _write(made: ModelCard | DatasetCard, path: Path) -> Path:
    with atomic_file(path) as temporary:
        temporary.write_text(made.content.rstrip() + "\n", encoding="utf-8")
    return path


def _counts(cohort: Cohort, splits: Sequence[str]) -> str:
    """Subjects by attribute, level and split, as a Markdown table."""
    subjects = cohort.included().table.drop_duplicates("subject").assign(overall="all")
    levels = {"overall": ("all",), **{a.name: a.levels for a in cohort.spec.attributes}}
    lines = [f"| attribute | level | {' | '.join(f'subjects, {split}' for split in splits)} |"]
    lines.append(f"|---|---|{'---|' * len(splits)}")
    for attribute, level in ((name, level) for name, own in levels.items() for level in own):
        own = subjects[subjects[attribute] == level]
        counts = [str(int((own["split"] == split).sum())) for split in splits]
        lines.append(f"| {attribute} | {level} | {' | '.join(counts)} |")
    return "\n".join(lines)


def _training_rows(
    run: Mapping[str, Any], settings: Settings, cohort: Cohort, method: str
) -> dict[str, Any]:
    """What the run was made with."""
    base, stamp = method == "base", run["stamp"]
    rows: dict[str, Any] = {"method": method, "seed": run["seed"], "preset": settings.preset}
    for loop in ("vae", "base") if base else ("training",):
        rows |= {f"{loop}.{key}": value for key, value in as_dict(getattr(settings, loop)).items()}
    options = () if base else fields_of(method)
    own = as_dict(config_of(method, settings.mitigation)) if options else {}
    rows |= {f"mitigation.{key}": own[key] for key in options}
    rows |= {"seconds": run["seconds"], "images seen": run["images_seen"]}
    rows |= {key: value for key, value in stamp["hardware"].items() if value is not None}
    return {**rows, **stamp["versions"], "data hash": cohort.data_hash, "commit": _commit(stamp)}


def _commit(stamp: Mapping[str, Any]) -> str:
    return f"{stamp['commit'] or 'none'}{' (the code differed from it)' if stamp['dirty'] else ''}"


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of settings by dotted names."""
    return {
        f"{name}.{inner}" if inner else name: own
        for name, value in values.items()
        for inner, own in (value if isinstance(value, dict) else {"": value}).items()
    }


def _grid(rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows.items()]
    return "\n".join(["| what | value |", "|---|---|", *lines])


# -- the sentences that a paper needs --------------------------------------------------------


@dataclass(frozen=True)
class Measuring:
    """What was measured with, as far as the audit itself does not say it."""

    extractor: str  # network, weights and their hash, layers, resize
    images: str  # how many, and what of
    size: int  # pixels that images were read at
    base: str  # real images that scale and kernel were fixed on, in words
    kernel: Kernel
    hardly_vary: str = ""  # which features do
    models: str = ""  # what the generated images come from, and for what the intervals hold
    copies: str = ""  # near-identical generated images
    more: str = ""  # a second look, as at a common case mix


def methods_text(
    audit: Audit, blur: Audit | None, how: Measuring, stamp: Mapping[str, Any], unit: str
) -> str:
    """A paragraph on extractor, n, reference, resize, kernel, intervals and tests."""
    design, share = audit.design, f"{audit.design.confidence:.0%}"
    references = audit.contrasts.drop_duplicates("attribute")["reference"].astype(str)
    said = [
        f"{how.images}, read at {how.size} x {how.size} pixels, were compared by the Kernel "
        f"Inception Distance (KID), an unbiased U-statistic over pairs of different {unit}s; each "
        "group's generated images with its own real ones.",
        how.models,
        f"Features: {how.extractor}.",
        f"They were scaled by their spread over {how.base}. {how.hardly_vary}".strip(),
        f"The kernel is a radial basis function with bandwidth {how.kernel.bandwidth:.4g}, the "
        "median distance between the same images.",
        f"n, in {unit}s: {_sizes(audit)}.",
        f"Each level was compared with its attribute's largest ({', '.join(references)}).",
        f"Intervals are {share}, from a jackknife over {unit}s: of a KID on the scale of its root, "
        "corrected for skewness (Hall 1992), of a difference from the limits of both (MOVER).",
        f"p values are two-sided; over the differences between levels of at least "
        f"{design.secondary_below} {unit}s they are adjusted by the largest |t|, over all others "
        "by the false discovery rate.",
        how.more,
    ]
    if blur is not None:
        said.append(
            "Equivalent blur is the standard deviation, in pixels, of the Gaussian blur of a "
            f"group's own real images whose KID, against real images of other {unit}s, is that of "
            "the generated images."
        )
    said.append(how.copies or "No two generated images were nearly identical.")
    commit = stamp["commit"]
    code = f"commit {commit[:10]}" if commit else "no commit"
    said.append(f"Software: fairdiff {fairdiff_lib.__version__}, {code}.")
    return " ".join(part for part in said if part)


def _sizes(audit: Audit) -> str:
    parts = [f"{audit.n[OVERALL]:,} in all"]
    for name, levels in audit.attributes.items():
        known = ", ".join(f"{level} {audit.n[name, level]:,}" for level in levels)
        parts.append(f"{name_of(name).lower()}: {known}")
    return "; ".join(parts)
