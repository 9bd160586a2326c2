"""Cohorts: a declared dataset (named attributes, levels, conditions, prompt) and its rows.

A :class:`CohortSpec` is a value; the simulator and the readers are both tested
against it. A :class:`Cohort` is a tidy table with lazily read images.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from fairdiff_lib.data.pictures import (
    FILE,
    FileGap,
    Seen,
    file_gaps,
    file_table,
    hash_images,
    look_at_all,
    open_picture,
    refuse_faults,
    twins,
)
from fairdiff_lib.data.reading import (
    OUTSIDE,
    SPLITS,
    UNKNOWN,
    Source,
    read_truth,
    refuse_missing,
    refuse_respelt,
)
from fairdiff_lib.settings.errors import InputError, refuse_unknown

OTHER_FINDING = "the subject counts for another finding in the test set"  # why an image is left out
Rows = Sequence[int] | npt.NDArray[np.int64] | npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Attribute:
    """A demographic attribute and its levels; the order of the levels is their code."""

    name: str
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Condition(Attribute):
    """A clinical condition: from least to most affected where that has a sense."""


@dataclass(frozen=True)
class CohortSpec:
    """A dataset as a declared object."""

    name: str  # of the data set in its original layout; a simulated one has the same
    attributes: tuple[Attribute, ...]  # in the order of the columns of Cohort.codes
    conditions: tuple[Condition, ...]  # in that of Cohort.condition_codes
    template: str  # prompt with a {field} per attribute or condition that it mentions
    # field -> level -> words in the prompt; a field that is not named says its level
    phrases: Mapping[str, Mapping[str, str]]
    split_rule: str  # how the splits come about, in words
    modality: str  # what the images are, in words
    primary_condition: str  # that quality is compared within

    @property
    def fields(self) -> tuple[Attribute, ...]:
        """Attributes, then conditions."""
        return (*self.attributes, *self.conditions)

    @property
    def prompted(self) -> tuple[Condition, ...]:
        """The conditions that the prompt names; a generated image can show no other."""
        return tuple(c for c in self.conditions if f"{{{c.name}}}" in self.template)

    def levels(self, name: str) -> tuple[str, ...]:
        """Levels of the attribute or condition called ``name``; another name is refused."""
        known = {field.name: field.levels for field in self.fields}
        refuse_unknown(f"attribute or condition of {self.name}", name, known)
        return known[name]

    def every_prompt(self) -> list[str]:
        """The prompt of every combination of levels: all that any cohort of it can ask for."""
        named = (*self.attributes, *self.prompted)
        levels = product(*(field.levels for field in named))
        names = [field.name for field in named]
        return [self.prompt(dict(zip(names, own, strict=True))) for own in levels]

    def prompt(self, row: Mapping[str, str]) -> str:
        """Prompt of a row of level names; no level that it names may be unknown."""
        named = [field.name for field in self.attributes] + [c.name for c in self.prompted]
        words = {name: self.phrases.get(name, {}).get(row[name], row[name]) for name in named}
        return self.template.format(**words)


@dataclass(frozen=True)
class Ruler:
    """A quantity that pictures of a family show, and that a prompt asks for."""

    name: str  # in words, as "cup-disc ratio"
    column: str  # of truth.csv: what was drawn
    key: str  # begins the names of its gate and metrics, as "cup_disc" in "cup_disc_agreement"
    mean: str  # metric that is its mean over images, as "cup_disc_ratio"
    condition: str  # a prompted one; of its levels the gate compares two
    low: str
    high: str  # images asked to be here should measure higher
    cuts: tuple[float, ...]  # between the condition's neighbouring levels, in their order
    nothing: str  # what NaN says, as "no disc found"
    # uint8 [n, 3, H, W] -> float64 [n], NaN where nothing could be measured
    measure: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]]

    @property
    def gate(self) -> str:
        """Name of the gate that compares prompts."""
        return f"prompt_{self.key}"

    def truth(self, root: Path, images: list[str]) -> npt.NDArray[np.float64]:
        """What was drawn in the named images of a simulated data set.  # [n]"""
        return read_truth(root).loc[images, self.column].to_numpy(dtype=np.float64)


@dataclass(frozen=True)
class Cohort:
    """Rows of a dataset and where their images are."""

    spec: CohortSpec
    # subject, image (unique), path (relative to root), split, a column per attribute and condition
    # (level names or "unknown"), prompt (empty where a level is unknown), excluded (empty or the
    # reason), same_as (of a file whose bytes are another subject's too: the first such image), and
    # what the picture's file says (pictures.FILE); index 0 to N - 1
    table: pd.DataFrame
    root: Path
    data_hash: str  # SHA-256 of labels and image bytes of the whole dataset, not of the selection

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: Rows) -> Cohort:
        """Rows by position or by a boolean mask, in that order."""
        chosen = np.asarray(rows)
        if chosen.dtype != np.bool_:
            chosen = chosen.astype(np.int64)  # an empty list has no integer type
        return dataclasses.replace(self, table=self.table.iloc[chosen].reset_index(drop=True))

    def included(self) -> Cohort:
        """Without the rows that the exclusion rule names (an unknown attribute or condition)."""
        return self.take((self.table["excluded"] == "").to_numpy(dtype=bool))

    def split(self, name: str) -> Cohort:
        """Rows of the split ``train``, ``val`` or ``test``."""
        refuse_unknown("split", name, SPLITS)
        return self.take((self.table["split"] == name).to_numpy(dtype=bool))

    def codes(self) -> npt.NDArray[np.int64]:
        """Level index per attribute, in the spec's order; of :meth:`included` rows.  # [N, A]"""
        return self._codes(self.spec.attributes)

    def condition_codes(self) -> npt.NDArray[np.int64]:
        """Level index per condition, in the spec's order; as :meth:`codes`.  # [N, C]"""
        return self._codes(self.spec.conditions)

    def _codes(self, fields: Sequence[Attribute]) -> npt.NDArray[np.int64]:
        columns = []
        for field in fields:
            index = {level: code for code, level in enumerate(field.levels)}
            cells = self.table[field.name].tolist()
            for image, cell in zip(self.table["image"], cells, strict=True):
                if cell not in index:
                    raise InputError(
                        f"image {image!r}: {field.name} is {cell!r}; expected one of "
                        f"{', '.join(field.levels)} (take included() rows only)"
                    )
            columns.append([index[cell] for cell in cells])
        return np.array(columns, dtype=np.int64).reshape(len(fields), len(self)).T

    @property
    def attribute_levels(self) -> dict[str, tuple[str, ...]]:
        """Attributes with their level names."""
        return {a.name: a.levels for a in self.spec.attributes}

    @property
    def condition_levels(self) -> dict[str, tuple[str, ...]]:
        """Conditions that the prompt names, with their level names: no other was asked for."""
        return {c.name: c.levels for c in self.spec.prompted}

    @property
    def all_levels(self) -> dict[str, tuple[str, ...]]:
        """Attributes, then prompted conditions, with their level names."""
        return self.attribute_levels | self.condition_levels

    @property
    def one_image_each(self) -> bool:
        """Whether no subject has two images."""
        return bool(self.included().table["subject"].is_unique)

    @property
    def file_gaps(self) -> list[FileGap]:
        """What of the included pictures' files goes with a patient group."""
        table = self.included().table
        if not {*FILE} <= {*table}:  # made by hand, not read
            return []
        return file_gaps(table, self.attribute_levels)

    @property
    def same_pictures(self) -> tuple[int, int]:
        """Included images whose bytes are another subject's too; those with one in another split"""
        own = self.included().table
        if "same_as" not in own:
            return 0, 0
        sets = own[own["same_as"] != ""].groupby("same_as")
        several = sets["subject"].transform("nunique") > 1
        across = sets["split"].transform("nunique") > 1
        return int(several.sum()), int((several & across).sum())

    def prompted_codes(self) -> npt.NDArray[np.int64]:
        """Level index per condition of :attr:`condition_levels`.  # [N, C]"""
        return self._codes(self.spec.prompted)

    def usual_profile(self) -> dict[str, str]:
        """Commonest level of every attribute in training, first level of every condition asked."""
        train = self.included().split("train").table
        profile = {a.name: str(train[a.name].mode().iloc[0]) for a in self.spec.attributes}
        return profile | {c.name: c.levels[0] for c in self.spec.prompted}

    def gallery_rows(self) -> list[tuple[str, str]]:
        """(condition, level) of each row of a prompt gallery."""
        return [(c.name, level) for c in self.spec.prompted for level in c.levels]

    def group_examples(self) -> tuple[npt.NDArray[np.int64], list[str]]:
        """A test row per attribute level, as alike in everything else as the test split allows.

        Positions in ``included().split("test")``, and the level that each stands for.
        """
        table, profile = self.included().split("test").table, self.usual_profile()
        alike = (table[list(profile)] == pd.Series(profile)).to_numpy().sum(axis=1)  # [N]
        rows: list[int] = []
        names: list[str] = []
        for attribute in self.spec.attributes:
            for level in attribute.levels:
                own = (table[attribute.name] == level).to_numpy()
                row = int(np.where(own, alike, alike.min() - 1).argmax())
                alike[row] -= len(profile)  # another patient for the next level, if there is one
                rows.append(row)
                names.append(level)
        return np.array(rows, dtype=np.int64), names

    def load_images(
        self, size: int, rows: Rows | None = None, squash: bool = False
    ) -> npt.NDArray[np.uint8]:
        """Images of the rows (all by default), decoded now.  # -> uint8 [n, 3, size, size]

        The centre square is cut out and reduced with an antialiasing filter, in the same way for
        every use, so that generator and metrics see the same pictures. ``squash`` presses the
        whole picture into a square instead (fault E6), for comparison only.
        """
        chosen = self if rows is None else self.take(rows)
        out = np.empty((len(chosen), 3, size, size), dtype=np.uint8)
        paths = chosen.table["path"].tolist()
        for index, path in enumerate(tqdm(paths, desc="load images", disable=None, leave=False)):
            out[index] = load_image(self.root / path, size, squash)
        return out


def load_image(path: Path, size: int, squash: bool = False) -> npt.NDArray[np.uint8]:
    """Centre square (or all) of a picture, reduced to ``size``.  # -> uint8 [3, size, size]"""
    picture = open_picture(path)
    if squash:
        whole = picture.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(whole).transpose(2, 0, 1)
    return np.asarray(square(picture, size)).transpose(2, 0, 1)


def square(picture: Image.Image, size: int) -> Image.Image:
    """Centre square of an RGB picture, resized to ``size`` x ``size`` pixels (antialiased)."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=box)


Reader = Callable[[Path, str, int], Source]  # (root, coding, split_seed)


def read_cohort(
    spec: CohortSpec, reader: Reader, root: Path, coding: str, split_seed: int, check_images: bool
) -> Cohort:
    """Read a data set in its authors' layout: all rows; those that are left out say why.

    ``check_images`` refuses a missing or truncated image now, not when it is first needed.
    """
    if not root.is_dir():
        raise InputError(f"{root}: folder not found; expected the {spec.name} data set there")
    source = reader(root, coding, split_seed)
    table = source.table.reset_index(drop=True)
    refuse_respelt(table["subject"].tolist(), f"{root}: subject")
    for image in table.loc[table["image"].duplicated(), "image"]:
        raise InputError(f"{root}: image {image!r} is listed twice; expected each once")
    table["excluded"] = _reasons(spec, table)
    table.loc[_other_findings(spec, table), ["split", "excluded"]] = [OUTSIDE, OTHER_FINDING]
    refuse_crossing(table, root)
    refuse_empty(spec, table, root)
    seen = _look_at(root, table, check_images)
    sets = twins(seen, table["subject"].tolist())
    first = {row: str(table["image"].iloc[rows[0]]) for rows in sets for row in rows}
    table["same_as"] = [first.get(row, "") for row in range(len(table))]
    table["prompt"] = ["" if row["excluded"] else spec.prompt(row) for row in _records(table)]
    table = table.join(file_table(seen).astype(str))  # as it is read back
    asked = table["path"].tolist()
    there = [(path, one) for path, one in zip(asked, seen, strict=True) if one.sha256]
    images_hash = hash_images(root, [path for path, _ in there], [one for _, one in there])
    total = hashlib.sha256(f"{source.labels_hash}\n{images_hash}".encode()).hexdigest()
    own = [field.name for field in spec.fields]
    columns = ["subject", "image", "path", "split", *own, "prompt", "excluded", "same_as", *FILE]
    return Cohort(spec, table[columns], root, total)


def _look_at(root: Path, table: pd.DataFrame, check: bool) -> list[Seen]:
    """What the files of rows in a split say; nothing of a row that is in none, or not there."""
    asked = (table["split"] != OUTSIDE).tolist()
    paths = [path for path, own in zip(table["path"], asked, strict=True) if own]
    if check:
        refuse_missing(root, paths)
    seen = look_at_all([root / path for path in paths], "look at images")
    if check:
        refuse_faults(root, paths, seen)
    found = iter(seen)
    return [next(found) if own else Seen() for own in asked]


def _records(table: pd.DataFrame) -> list[dict[str, str]]:
    """Rows of a table of text as mappings."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _reasons(spec: CohortSpec, table: pd.DataFrame) -> list[str]:
    """Why a row is left out: the reader's reason, or the fields that are unknown, or nothing.

    A subject whose images name two levels of an attribute has none that is known.
    """
    given = table["excluded"].tolist() if "excluded" in table else [""] * len(table)
    known = {a.name: table[a.name].where(table[a.name] != UNKNOWN) for a in spec.attributes}
    apart = {name: cells.groupby(table["subject"]).transform("nunique") > 1
             for name, cells in known.items()}  # fmt: skip
    names = [field.name for field in spec.fields]
    found = []
    for row, (reason, cells) in enumerate(zip(given, _records(table), strict=True)):
        own = [f"{name} unknown" for name in names if cells[name] == UNKNOWN]
        own += [f"{name} differs within the subject" for name in apart if apart[name].iloc[row]]
        found.append(reason or "; ".join(own))
    return found


def _other_findings(spec: CohortSpec, table: pd.DataFrame) -> pd.Index[int]:
    """Test images that show something else than the one which their subject counts for.

    The unit of an audit is the subject, who is in one group of each prompted condition. Which of
    its images says so is drawn by a hash of their names: no finding is preferred.
    """
    test = table[(table["split"] == "test") & (table["excluded"] == "")]
    drawn = [hashlib.sha256(name.encode()).hexdigest() for name in test["image"]]
    first = test.assign(drawn=drawn).sort_values("drawn").drop_duplicates("subject")
    names = [condition.name for condition in spec.prompted]
    counted = first.set_index("subject").loc[test["subject"], names]
    others: pd.Index[int] = test.index[(test[names].to_numpy() != counted.to_numpy()).any(axis=1)]
    return others


def refuse_crossing(table: pd.DataFrame, root: Path) -> None:
    """Raise if a subject has rows in two splits, naming it and them."""
    first: dict[str, str] = {}
    for subject, split in zip(table["subject"], table["split"], strict=True):
        if split != OUTSIDE and first.setdefault(subject, split) != split:
            raise InputError(
                f"{root}: subject {subject!r} is in {first[subject]} and in {split}; "
                "a subject belongs to one split"
            )


def refuse_empty(spec: CohortSpec, table: pd.DataFrame, root: Path) -> None:
    """Raise if a split, or a level of the training split, has no included row."""
    kept = table[table["excluded"] == ""]
    for split in SPLITS:
        if not (kept["split"] == split).any():
            raise InputError(f"{root}: the {split} split has no usable row; expected at least one")
    train = kept[kept["split"] == "train"]
    for field in spec.fields:
        for level in field.levels:
            if not (train[field.name] == level).any():
                raise InputError(
                    f"{root}: no usable training row with {field.name} {level!r}; "
                    "expected at least one of each level"
                )


# -- who is in it (T1) -----------------------------------------------------------------------


def cohort_table(cohort: Cohort, dataset: str, confidence: float = 0.95) -> pd.DataFrame:
    """Subjects by attribute level and split, and prevalence of every condition level.

    Of included rows: dataset, split (train, val, test, all), attribute, level, condition,
    condition_level, metric ("count": subjects, "images", "prevalence"), n (subjects), value, low,
    high (Wilson intervals at ``confidence``).
    """
    included = cohort.included().table
    rows: list[dict[str, Any]] = []
    for split in (*SPLITS, "all"):
        whole = included if split == "all" else included[included["split"] == split]
        for attribute, level in _levels(cohort):
            images = _of(whole, attribute, level)
            own = images.drop_duplicates("subject")
            key = {"dataset": dataset, "split": split, "attribute": attribute, "level": level}
            blank = {**key, "condition": "", "condition_level": "", "n": len(own)}
            for metric, count in (("count", len(own)), ("images", len(images))):
                nan = {"low": np.nan, "high": np.nan}
                rows.append({**blank, **nan, "metric": metric, "value": float(count)})
            rows += [{**key, **row} for row in _prevalences(own, cohort, confidence)]
    return pd.DataFrame(rows)


def _levels(cohort: Cohort, *more: str) -> list[tuple[str, str]]:
    """Everyone, then every (attribute, level), with more levels of each."""
    own = [(a.name, level) for a in cohort.spec.attributes for level in (*a.levels, *more)]
    return [("overall", "all"), *own]


def _of(table: pd.DataFrame, attribute: str, level: str) -> pd.DataFrame:
    return table if attribute == "overall" else table[table[attribute] == level]


def _prevalences(own: pd.DataFrame, cohort: Cohort, confidence: float) -> Iterator[dict[str, Any]]:
    """Share of subjects at every condition level, with Wilson's interval; NaN without subjects."""
    # here, not above: slow to load, and every job loads this module
    from statsmodels.stats.proportion import proportion_confint

    for condition in cohort.spec.conditions:
        for level in condition.levels:
            hits, n = int((own[condition.name] == level).sum()), len(own)
            low, high = (np.nan, np.nan)
            if n:
                low, high = proportion_confint(hits, n, alpha=1 - confidence, method="wilson")
            name = {"condition": condition.name, "condition_level": level, "metric": "prevalence"}
            yield {**name, "n": n, "value": hits / n if n else np.nan, "low": low, "high": high}


def split_table(cohort: Cohort) -> pd.DataFrame:
    """Per split: subjects, images, excluded images, and subjects shared with another split."""
    table = cohort.table
    homes = table[table["split"] != OUTSIDE].groupby("subject")["split"].nunique()
    rows = []
    for split in SPLITS:
        own = table[table["split"] == split]
        kept = own[own["excluded"] == ""]
        row = {"split": split, "subjects": kept["subject"].nunique(), "images": len(kept)}
        row |= {"excluded_images": len(own) - len(kept)}
        crossing = int((homes[own["subject"].unique()] > 1).sum())
        rows.append({**row, "subjects_in_another_split": crossing})
    return pd.DataFrame(rows)


def flow_table(cohort: Cohort) -> pd.DataFrame:
    """Who is in the data, who left and why, and who is in the study (a flow diagram's numbers).

    A subject is counted as in the study if any of its images is, else as having left for the
    reason of its first image: step ("in the data", "left: " with the reason, "image left out: "
    with the reason for images of subjects who stay, "in the study"), attribute, level (those not
    known too), subjects, images.
    """
    table = cohort.table
    kept = table[table["excluded"] == ""]
    stays = table["subject"].isin(kept["subject"])
    gone, spare = table[~stays], table[stays & (table["excluded"] != "")]
    first = gone.drop_duplicates("subject").set_index("subject")["excluded"]
    steps = [("in the data", table)]
    for reason in first.unique():
        own = gone[gone["subject"].isin(first.index[first == reason])]
        steps.append((f"left: {reason}", own))
    steps += [(f"image left out: {why}", own) for why, own in spare.groupby("excluded", sort=False)]
    steps.append(("in the study", kept))
    rows = []
    for (step, part), (attribute, level) in product(steps, _levels(cohort, UNKNOWN)):
        own = _of(part, attribute, level)
        if len(own) or level != UNKNOWN:
            row = {"step": step, "attribute": attribute, "level": level}
            rows.append({**row, "subjects": own["subject"].nunique(), "images": len(own)})
    return pd.DataFrame(rows)
