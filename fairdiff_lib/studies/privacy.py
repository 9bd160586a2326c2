"""14: are small groups' training images memorised more? From the runs on disk to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fairdiff_lib.audit import memory
from fairdiff_lib.audit.audit import Audit, audit, labelled
from fairdiff_lib.audit.contrasts import EXPLORATORY
from fairdiff_lib.audit.estimate import Floats, Groups, group_units
from fairdiff_lib.audit.memory import NEARER, Pool, nearer_metric
from fairdiff_lib.classify.features import Space
from fairdiff_lib.classify.runs import REAL, feature_spaces
from fairdiff_lib.data.cohort import Cohort
from fairdiff_lib.disk.tables import gate_notes
from fairdiff_lib.model.loss import denoising_losses_at
from fairdiff_lib.model.pipeline import load_pipeline, mean_latents
from fairdiff_lib.model.sample import load_generated, load_run
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.studies.harm import finish
from fairdiff_lib.study import Study

CONTRASTED = (NEARER, *memory.CONTRASTED)
SPLITS = ("train", "val", "test")  # the first is what the generator was trained on


@dataclass(frozen=True)
class Known:
    """The real side of the privacy audits, the same for every run."""

    study: Study
    cohort: Cohort  # included rows, split by split in the order of SPLITS
    spaces: tuple[tuple[Space, Pool, Pool], ...]  # with its training and its held-out images
    latents: Any  # float32 [N, C, h, w] of the cohort's rows
    asked: Groups  # of the test prompts
    everyone: Groups  # of the cohort's rows


@dataclass(frozen=True)
class Privacy:
    """What 14 writes and shows."""

    known: Known  # the real side
    made: Floats  # [N, D] of the first run's images of test prompts, in the first feature space
    scores: memory.Scores  # what an attacker of the first run knows
    sizes: pd.DataFrame  # subjects behind the audits; see `reference_sizes`
    # dataset, method, attribute, level, metric (nearer_to_training, or membership_auc, _tpr, _fpr,
    # _advantage), features, seeds, n, value, low, high, note. Method "real" is a control: the test
    # images themselves in place of generated ones are at a half, unless the features alone tell
    # training from held-out
    table: pd.DataFrame
    contrasts: pd.DataFrame  # of CONTRASTED, mean over seeds; exploratory
    notes: list[str]  # the gates of 05 that failed

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {"tab_privacy": self.table, "tab_privacy_contrasts": self.contrasts}

    def scalars(self) -> dict[str, Any]:
        """What 14 records: every overall number."""
        found = {}
        for _, row in self.table[self.table["attribute"] == "overall"].iterrows():
            parts = [row["metric"], row["features"], row["method"], f"seeds{row['seeds']}"]
            found["_".join(str(part) for part in parts if part)] = row["value"]
        return found


def measure_privacy(study: Study) -> Privacy:
    """Both audits of every run, by group."""
    known, settings = read_known(study), study.settings
    first: tuple[Floats, memory.Scores] | None = None
    parts: list[pd.DataFrame] = []
    contrasted: list[tuple[Mapping[str, Any], Audit]] = []
    control = nearest_audits(known, [space.test for space, _, _ in known.spaces])
    for seed in settings.seeds:
        labels = {"dataset": settings.dataset, "method": REAL, "seed": seed}
        parts += [labelled(share_rows(one), labels) for one in control]
    for method, seed in settings.runs:
        labels = {"dataset": settings.dataset, "method": method, "seed": seed}
        images = load_generated(study.places.generated(method, seed), "test")
        made = [space.of(images) for space, _, _ in known.spaces]
        scores = attacker(known, method, seed)
        first = first or (made[0], scores)
        found = [*nearest_audits(known, made), *attack(known, scores).values()]
        for one in found:
            parts.append(labelled(share_rows(one), labels))
            contrasted += [(labels, one)] if one.metric in CONTRASTED else []
    table, contrasts = finish(study, parts, contrasted)
    assert first is not None  # there is a run
    sizes = reference_sizes(study.cohort)
    return Privacy(known, *first, sizes, table, contrasts, gate_notes(study.places))


def share_rows(one: Audit) -> pd.DataFrame:
    """An audit by group; the t-interval of a share ends where shares end."""
    rows = one.by_group.assign(features=one.features)
    if one.metric == NEARER:
        rows[["low", "high"]] = rows[["low", "high"]].clip(0, 1)
    return rows


def read_known(study: Study) -> Known:
    """Features and latents of all real images: found again in the cache, or made."""
    settings, cohort = study.settings, study.cohort
    if not settings.audit.loss_timesteps:
        raise InputError(
            "audit.loss_timesteps is empty: membership inference needs at least one timestep"
        )
    kept, size = cohort.included(), settings.model.image_size
    attributes = cohort.attribute_levels
    parts = {name: kept.split(name) for name in SPLITS}
    images = {name: part.load_images(size) for name, part in parts.items()}
    spaces: list[tuple[Space, Pool, Pool]] = []
    for space in feature_spaces(study, images["train"], images["test"]):
        held = np.concatenate([space.of(images["val"]), space.test])
        train = _pool(parts, ("train",), space.train, list(attributes))
        spaces.append((space, train, _pool(parts, ("val", "test"), held, list(attributes))))
    base = load_pipeline(study.places.base / "pipeline")  # every run keeps its VAE
    whole = pd.concat([part.table for part in parts.values()], ignore_index=True)
    return Known(
        study,
        Cohort(cohort.spec, whole, cohort.root, cohort.data_hash),
        tuple(spaces),
        mean_latents(base, np.concatenate(list(images.values()))),
        group_units(parts["test"].table, attributes),
        group_units(whole, attributes),
    )


def _pool(
    parts: Mapping[str, Cohort], names: tuple[str, ...], features: Floats, attributes: list[str]
) -> Pool:
    """Real images of one side; its strata are the combinations of the attributes' levels."""
    table = pd.concat([parts[name].table for name in names], ignore_index=True)
    return Pool(features, table["subject"].tolist(), strata_of(table, attributes))


def strata_of(table: pd.DataFrame, attributes: list[str]) -> list[str]:
    return [", ".join(row) for row in table[attributes].astype(str).to_numpy().tolist()]


def nearest_audits(known: Known, made: Sequence[Floats]) -> list[Audit]:
    """Share of test prompts' images nearer to training than to held-out, by feature space."""
    own, cohort = known.study.settings, known.cohort
    prompted = cohort.split("test").table["subject"].tolist()
    return [
        audit(
            nearer_metric(features, prompted, train, held, own.privacy.draws, own.privacy.seed),
            known.asked, cohort.attribute_levels, metric=NEARER, role=EXPLORATORY,
            features=space.extractor.name, **own.audit.sizes,
        )
        for (space, train, held), features in zip(known.spaces, made, strict=True)
    ]  # fmt: skip


def attacker(known: Known, method: str, seed: int) -> memory.Scores:
    """What a run's loss, at fixed timesteps and each image's own noise, says of every image.

    The noise of an image is the same for every run, so that runs are compared on equal terms.
    """
    own, table = known.study.settings, known.cohort.table
    losses = denoising_losses_at(
        load_run(known.study, method, seed), known.latents, table["prompt"].tolist(),
        table["image"].tolist(), own.audit.loss_timesteps, seed=0,
    )  # fmt: skip
    score = -np.asarray(losses.mean(dim=1).numpy(), dtype=np.float64)
    member = (table["split"] == SPLITS[0]).to_numpy(dtype=bool)
    return memory.Scores(score, member, known.everyone)


def attack(known: Known, scores: memory.Scores) -> dict[str, Audit]:
    """Membership inference on one run, by group."""
    own = known.study.settings
    return memory.membership_audits(
        scores, known.cohort.attribute_levels, false_positives=own.privacy.false_positives,
        bootstrap=own.audit.bootstrap, seed=own.privacy.seed, **own.audit.sizes,
    )  # fmt: skip


def reference_sizes(cohort: Cohort) -> pd.DataFrame:
    """What the audits rest on: subjects by level, pairs of a draw, prompts (test subjects)."""
    kept, attributes = cohort.included(), cohort.attribute_levels
    subjects = kept.table.drop_duplicates("subject").reset_index(drop=True)
    subjects = subjects.assign(stratum=strata_of(subjects, list(attributes)))
    trained = subjects["split"] == SPLITS[0]
    sides = [subjects[own]["stratum"].value_counts() for own in (trained, ~trained)]
    pairs = pd.concat(sides, axis=1).fillna(0).min(axis=1)  # by stratum
    rows = []
    for name, levels in {"overall": ("all",), **attributes}.items():
        for level in levels:
            own = subjects[name] == level if name != "overall" else subjects["split"] != ""
            strata = subjects[own]["stratum"].unique()
            sizes = ((own & trained).sum(), (own & ~trained).sum(), pairs.reindex(strata).sum(),
                     (own & (subjects["split"] == "test")).sum())  # fmt: skip
            rows.append((name, level, *map(int, sizes)))
    columns = ["attribute", "level", "training", "held_out", "pairs", "prompts"]
    return pd.DataFrame(rows, columns=columns)
