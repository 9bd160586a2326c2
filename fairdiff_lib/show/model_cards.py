"""Cards of models and simulated datasets in the Hugging Face form, by the run that made them.

What a thing is for and what it cannot tell stand first, then how it came about. No network is
needed: ``huggingface_hub`` only writes the metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.files import atomic_file, read_json
from fairdiff_lib.disk.places import CARD, PROJECT_ROOT, Places
from fairdiff_lib.settings.methods import config_of, fields_of
from fairdiff_lib.settings.options import Settings, as_dict
from fairdiff_lib.show.style import dataset_name, limits, look_of

LICENCE = "apache-2.0"  # the project's
FIRST = ("What it stands in for", "What it cannot tell")  # of a datasheet
TAGS = ("fairness", "medical-imaging", "research-only")
BAYESIAN = (
    "Fair Bayesian Perturbation scales each sample's loss by a random weight whose spread, per "
    "demographic level, a Bayesian optimiser chooses so that the levels' losses come closer."
)
MEAN = (
    "Fair Bayesian Perturbation, corrected: each sample's loss is scaled by a weight whose mean, "
    "per demographic level, a Bayesian optimiser chooses so that the levels' losses come closer."
)
DEPARTURES = (
    "In the table, `as_released` keeps what the released code does and `corrected` departs from "
    "it: unless a method says otherwise, the optimiser's windows are counted over the whole run "
    "(the release starts anew each epoch, and with epochs this short it would never run) and all "
    "processes share one sigma."
)


def publish_model_card(
    settings: Settings, layout: Places, cohort: Cohort, method: str, seed: int
) -> str:
    """Write a finished run's card beside it and to the study's figures; says where it lies."""
    folder = layout.base if method == "base" else layout.run(method, seed)
    card = write_model_card(folder, settings, cohort, method)
    name = "model_base.md" if method == "base" else f"model_{method}_seed{seed}.md"
    return _published(card, layout, name)


def publish_dataset_card(
    settings: Settings, layout: Places, cohort: Cohort, stamp: Mapping[str, Any]
) -> str:
    """Write a simulated dataset's card into its folder and to the figures; says where it lies."""
    if not settings.simulated:
        return "Real data come with their authors' own card: none is written."
    return _published(write_dataset_card(settings, layout, cohort, stamp), layout, "dataset.md")


def _published(card: Path, layout: Places, name: str) -> str:
    with atomic_file(layout.figures / "cards" / name) as temporary:
        temporary.write_bytes(card.read_bytes())
    return f"Intended use, limits and how it was made: [{name}](../cards/{name})."


def write_model_card(folder: Path, settings: Settings, cohort: Cohort, method: str) -> Path:
    """Write the card of a trained pipeline into its run's folder, from its run.json.

    Parameters
    ----------
    folder : Path
        As ``layout.base`` or ``layout.run(method, seed)``, finished.
    settings : Settings
    cohort : Cohort
        That it was trained on.
    method : str
        ``base`` or a method.

    Returns
    -------
    Path
        Of the card, beside run.json. The same bytes for the same run.json.
    """
    run = read_json(folder / "run.json")
    simulated = settings.simulated
    data = ModelCardData(
        license=LICENCE if simulated else "other",
        license_name=None if simulated else "terms-of-the-training-data",
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*TAGS, *(["simulated"] if simulated else []), method.replace("_", "-")],
        datasets=[settings.dataset],
        base_model=_base_model(settings, method),
    )
    body = "\n".join(_model_lines(run, settings, cohort, method))
    return _write(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"), folder / CARD)


def write_dataset_card(
    settings: Settings, layout: Places, cohort: Cohort, stamp: Mapping[str, Any]
) -> Path:
    """Write the card of a simulated dataset: its datasheet, its settings and its counts.

    It lies in the dataset's folder but is no part of the data: neither the hash of the labels and
    images nor ``folder_mark`` sees it.

    Parameters
    ----------
    stamp : mapping
        From ``store.make_stamp``.
    """
    sheet = (PROJECT_ROOT / "data" / "cards" / f"{settings.dataset}.md").read_text("utf-8")
    data = DatasetCardData(
        license=LICENCE,
        task_categories=["text-to-image"],
        tags=[*TAGS, "simulated"],
        pretty_name=dataset_name(settings.dataset),
        annotations_creators=["machine-generated"],
        source_datasets=["original"],
    )
    body = "\n".join(_dataset_lines(sheet, settings, cohort, stamp))
    return _write(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"), layout.data / CARD)


def _write(card: Any, path: Path) -> Path:
    with atomic_file(path) as temporary:
        temporary.write_text(card.content, encoding="utf-8")
    return path


def _base_model(settings: Settings, method: str) -> str | None:
    """What the pipeline was fine-tuned from; None where it was trained from scratch."""
    if method != "base":
        return f"{settings.dataset}-base"
    return settings.model.pretrained or None


# -- models ----------------------------------------------------------------------------------


def _model_lines(
    run: Mapping[str, Any], settings: Settings, cohort: Cohort, method: str
) -> Iterator[str]:
    name = f"{look_of(method).label}" + (f", seed {run['seed']}" if method != "base" else "")
    yield f"# {dataset_name(settings.dataset)}: {name}\n"
    yield from _purpose(settings, cohort)
    yield from _training(run, settings, cohort, method)
    yield "\n## How to load it\n"
    yield "```python\nfrom diffusers import StableDiffusionPipeline\n"
    yield 'pipeline = StableDiffusionPipeline.from_pretrained("pipeline")  # beside this card'
    prompt = str(cohort.included().split("train").table["prompt"].iloc[0])
    yield f"image = pipeline({prompt!r}).images[0]\n```\n"
    yield "## Where its evaluation stands\n"
    place = f"figures/{settings.preset}/{settings.dataset}"
    yield f"This run measures no image. The study's tables and figures are in `{place}/`: quality"
    yield "by group (notebook 05), classifiers trained on its images (07), the verdict per claim"
    yield f"(`figures/{settings.preset}/all/tab14.csv`)."


def _purpose(settings: Settings, cohort: Cohort) -> Iterator[str]:
    yield "## Intended use\n"
    yield "Research on whether a medical image generator is fair: comparing training methods under"
    yield "one protocol. **Not for clinical use**, not for diagnosis, and not for training anything"
    yield "that meets patients.\n"
    yield "## Limits\n"
    if settings.simulated:
        yield "- **Simulated data**: no pixel and no label comes from a person; nothing that this"
        yield "  model shows is about patients."
    else:
        yield f"- Trained on {settings.dataset}, whose own terms bind whoever uses this model."
        yield "  Whether it reproduces training images is asked by the privacy audit (notebook 14)."
        yield f"- {limits(settings.dataset)}"
    size = settings.model.image_size
    kind = "Fine-tuned" if settings.model.pretrained else "A small model, trained from scratch"
    yield f"- {kind}, at {size} x {size} pixels: for a study's comparison, not for image quality."
    yield "- Not known: how it does for groups, prompts, devices or sites that are not in the data;"
    yield "  groups with few training subjects are learned from those few:\n"
    yield from _counts(cohort, ("train",))


def _counts(cohort: Cohort, splits: tuple[str, ...]) -> Iterator[str]:
    """Subjects by attribute, level and split, as a Markdown table."""
    subjects: pd.DataFrame = cohort.included().table.drop_duplicates("subject")
    yield f"| attribute | level | {' | '.join(f'subjects, {split}' for split in splits)} |"
    yield f"|---|---|{'---|' * len(splits)}"
    levels = {a.name: a.levels for a in cohort.spec.attributes}
    for attribute, names in {"overall": ("all",), **levels}.items():
        for level in names:
            own = subjects if attribute == "overall" else subjects[subjects[attribute] == level]
            counts = [str(int((own["split"] == split).sum())) for split in splits]
            yield f"| {attribute} | {level} | {' | '.join(counts)} |"


def _training(
    run: Mapping[str, Any], settings: Settings, cohort: Cohort, method: str
) -> Iterator[str]:
    stamp = run["stamp"]
    yield "\n## How it was trained\n"
    yield _method_line(settings, method)
    yield ""
    rows: dict[str, Any] = {"method": method, "seed": run["seed"], "preset": settings.preset}
    loops = ("vae", "base") if method == "base" else ("training",)
    for loop in loops:
        rows |= {f"{loop}.{key}": value for key, value in as_dict(getattr(settings, loop)).items()}
    if method != "base" and fields_of(method):
        own = as_dict(config_of(method, settings.mitigation))
        rows |= {f"mitigation.{key}": own[key] for key in fields_of(method)}
    rows |= {"seconds": run["seconds"], "images seen": run["images_seen"]}
    rows |= {key: value for key, value in stamp["hardware"].items() if value is not None}
    rows |= stamp["versions"]
    rows |= {"data hash": cohort.data_hash, "commit": _commit(stamp)}
    yield from _grid(rows)


def _method_line(settings: Settings, method: str) -> str:
    if method == "base":
        start = settings.model.pretrained or "nothing: VAE, text encoder and U-Net from scratch"
        return f"The pipeline that every method of the study starts from; it started from {start}."
    fine = "The base's U-Net, fine-tuned on the training split; VAE and text encoder are frozen."
    if method.startswith("fairdiffusion"):
        kind = config_of(method, settings.mitigation).reweighting
        return f"{fine} {MEAN if kind == 'mean' else BAYESIAN} {DEPARTURES}"
    if method == "none":
        return f"{fine} Every sample has weight 1: the baseline."
    return f"{fine} Method `{method}` of `fairdiff_lib.settings.methods`."


def _commit(stamp: Mapping[str, Any]) -> str:
    return f"{stamp['commit'] or 'none'}{' (the code differed from it)' if stamp['dirty'] else ''}"


def _grid(rows: Mapping[str, Any]) -> Iterator[str]:
    yield "| what | value |"
    yield "|---|---|"
    yield from (f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows.items())


# -- simulated datasets ----------------------------------------------------------------------


def _dataset_lines(
    sheet: str, settings: Settings, cohort: Cohort, stamp: Mapping[str, Any]
) -> Iterator[str]:
    """Purpose and limits, then the rest of the datasheet in its order, then this run's numbers."""
    head, *sections = sheet.split("\n## ")
    titled = {section.partition("\n")[0]: section for section in sections}
    yield head.replace("Datasheet: ", "").strip()
    yield "\n## Intended use\n"
    yield "Testing an audit and the mechanics of training methods against a known truth. **Not for"
    yield "clinical use**, and no evidence about patients."
    for title in (*FIRST, *(title for title in titled if title not in FIRST)):
        yield f"\n## {titled[title].strip()}"
    yield "\n## This copy\n"
    yield from _grid(as_dict(settings.simulator))
    yield ""
    yield from _counts(cohort, ("train", "val", "test"))
    yield ""
    yield from _grid({"data hash": cohort.data_hash, "commit": _commit(stamp), **stamp["versions"]})
