"""Cohorts: a declared dataset (named attributes, levels, conditions, prompt) and its rows.

A :class:`CohortSpec` is a value; the simulator and the readers are both tested
against it. A :class:`Cohort` is a tidy table with lazily read images.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from fairdiff_lib.data.chexpert import DRAWN, FINDINGS, LEVELS, NAMES, WITH, read_chexpert
from fairdiff_lib.data.fairgenmed import read_fairgenmed
from fairdiff_lib.data.ham10000 import AGE_LEVELS, DX, read_ham10000
from fairdiff_lib.data.reading import SPLITS, UNKNOWN, Source, hash_images
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.options import CODINGS

Rows = Sequence[int] | npt.NDArray[np.int64] | npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Attribute:
    """A demographic attribute and its levels; the order of the levels is their code."""

    name: str
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """A clinical condition and its levels, from least to most affected where that has a sense."""

    name: str
    levels: tuple[str, ...]


@dataclass(frozen=True)
class CohortSpec:
    """A dataset as a declared object.

    Attributes
    ----------
    name : str
        ``fairgenmed``, ``ham10000`` or ``chexpert``.
    attributes, conditions : tuple
        In the order of the columns of :meth:`Cohort.codes` and :meth:`Cohort.condition_codes`.
    template : str
        Prompt with a ``{field}`` per attribute or condition that it mentions.
    phrases : mapping
        Field -> level -> words in the prompt; a field that is not named says its level.
    split_rule : str
        How the splits come about, in words.
    modality : str
        What the images are, in words.
    primary_condition : str
        The condition that quality is compared within.
    reader : callable
        ``(root, coding, split_seed) -> Source``.
    """

    name: str
    attributes: tuple[Attribute, ...]
    conditions: tuple[Condition, ...]
    template: str
    phrases: Mapping[str, Mapping[str, str]]
    split_rule: str
    modality: str
    primary_condition: str
    reader: Callable[[Path, str, int], Source]

    @property
    def fields(self) -> tuple[Attribute | Condition, ...]:
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

    def prompt(self, row: Mapping[str, str]) -> str:
        """Prompt of a row of level names; no level that it names may be unknown."""
        named = [field.name for field in self.attributes] + [c.name for c in self.prompted]
        words = {name: self.phrases.get(name, {}).get(row[name], row[name]) for name in named}
        return self.template.format(**words)


_FAIRGENMED = CohortSpec(
    name="fairgenmed",
    attributes=(
        Attribute("race", ("Asian", "Black", "White")),
        Attribute("sex", ("Female", "Male")),
        Attribute("ethnicity", ("Non-Hispanic", "Hispanic")),
    ),
    conditions=(
        Condition("glaucoma", ("non-glaucoma", "glaucoma")),
        Condition("md_severity", ("normal", "mild", "moderate", "severe")),
        Condition("cdr_status", ("normal", "borderline", "abnormal")),
        Condition("se_status", ("negative", "neutral", "positive")),
    ),
    template=(
        "SLO fundus image of a {race} {sex} {ethnicity} patient with the following conditions: "
        "{glaucoma}, {md_severity}, {cdr_status} cup-disc ratio, {se_status}"
    ),
    phrases={
        "md_severity": {
            "normal": "normal vision",
            "mild": "mild vision loss",
            "moderate": "moderate vision loss",
            "severe": "severe vision loss",
        }
    },
    split_rule="as shipped: column 'use' of data_summary.csv; one image per subject",
    modality="SLO fundus photographs",
    primary_condition="glaucoma",
    reader=read_fairgenmed,
)


def _ham10000(coding: str) -> CohortSpec:
    """HAM10000 under a coding; the prompt's words for age are the released ones in both."""
    younger, older = AGE_LEVELS[coding]
    return CohortSpec(
        name="ham10000",
        attributes=(
            Attribute("sex", ("Female", "Male")),
            Attribute("age", (younger, older)),
        ),
        conditions=(
            Condition("malignant", ("benign", "malignant")),
            Condition("dx", DX),
        ),
        template=(
            "Dermoscopic image of a {sex} {age} patient with the following diagnostic category: "
            "{malignant}"
        ),
        phrases={"age": {younger: "Age under 60", older: "Age equal 60 or older"}},
        split_rule="70/10/20 by lesion_id within dx, in the order of a seeded hash",
        modality="dermatoscopic photographs",
        primary_condition="malignant",
        reader=read_ham10000,
    )


def _chexpert(findings: Sequence[str]) -> CohortSpec:
    """CheXpert with some of its findings as conditions; the prompt names the effusion alone."""
    own = (WITH, *(finding for finding in findings if finding != WITH))
    return CohortSpec(
        name="chexpert",
        attributes=(
            Attribute("race", ("Asian", "Black", "White")),
            Attribute("sex", ("Female", "Male")),
        ),
        conditions=tuple(Condition(NAMES[finding], LEVELS[finding]) for finding in own),
        template="Chest Radiography image of a {sex} {race} patient diagnosed with {effusion}",
        phrases={},
        split_rule=(
            "6,000/1,000/3,000 patients (or 60/10/30%) with one frontal image each, in proportion "
            "to race, sex and effusion, in the order of a seeded hash; or the sampled lists as "
            "supplied"
        ),
        modality="frontal chest radiographs",
        primary_condition=NAMES[WITH],
        reader=read_chexpert,
    )


SPECS: dict[str, CohortSpec] = {
    "fairgenmed": _FAIRGENMED,
    "ham10000": _ham10000("default"),
    "chexpert": _chexpert(FINDINGS),
}


def spec_for(dataset: str, coding: str = "default") -> CohortSpec:
    """Spec of a dataset; ``<name>_simulated`` has that of ``<name>``, with the findings drawn.

    Raises
    ------
    InputError
        An unknown dataset or coding, with the list of known ones.
    """
    name = dataset.removesuffix("_simulated")
    refuse_unknown("dataset", name, SPECS)
    refuse_unknown("coding", coding, CODINGS.get(name, ("default",)))
    if dataset == "chexpert_simulated":
        return _chexpert(DRAWN)
    return _ham10000(coding) if name == "ham10000" else SPECS[name]


@dataclass(frozen=True)
class Cohort:
    """Rows of a dataset and where their images are.

    Attributes
    ----------
    spec : CohortSpec
    table : DataFrame
        subject, image (unique), path (relative to ``root``), split, a column per
        attribute and condition (level names or ``"unknown"``), prompt (empty where a
        level is unknown), excluded (empty or the reason). Index 0 to N - 1.
    root : Path
    data_hash : str
        SHA-256 of labels and image bytes of the whole dataset, not of the selection.
    """

    spec: CohortSpec
    table: pd.DataFrame
    root: Path
    data_hash: str

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
        """Level index per attribute, in the spec's order.  # [N, A]

        Raises
        ------
        InputError
            A row with an unknown level: call :meth:`included` first.
        """
        return self._codes(self.spec.attributes)

    def condition_codes(self) -> npt.NDArray[np.int64]:
        """Level index per condition, in the spec's order; as :meth:`codes`.  # [N, C]"""
        return self._codes(self.spec.conditions)

    def _codes(self, fields: Sequence[Attribute | Condition]) -> npt.NDArray[np.int64]:
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

    def load_images(
        self, size: int, rows: Rows | None = None, squash: bool = False
    ) -> npt.NDArray[np.uint8]:
        """Images of the rows (all by default), decoded now.

        The centre square is cut out and reduced with an antialiasing filter, in the
        same way for every use, so that generator and metrics see the same pictures.

        Parameters
        ----------
        size : int
            Pixels of a side.
        rows : sequence of int or mask, optional
        squash : bool
            The whole picture is pressed into a square instead (fault E6), for comparison only.

        Returns
        -------
        uint8 [n, 3, size, size]
        """
        chosen = self if rows is None else self.take(rows)
        out = np.empty((len(chosen), 3, size, size), dtype=np.uint8)
        paths = chosen.table["path"].tolist()
        for index, path in enumerate(tqdm(paths, desc="load images", disable=None, leave=False)):
            out[index] = load_image(self.root / path, size, squash)
        return out


def load_image(path: Path, size: int, squash: bool = False) -> npt.NDArray[np.uint8]:
    """Centre square (or all) of a picture, reduced to ``size``.  # -> uint8 [3, size, size]"""
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: image not found") from None
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: truncated or not an image ({error})") from None
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


def read_cohort(
    dataset: str,
    root: Path,
    *,
    coding: str = "default",
    split_seed: int = 0,
    check_images: bool = True,
) -> Cohort:
    """Read a dataset in its authors' layout.

    Parameters
    ----------
    dataset : str
        ``fairgenmed``, ``ham10000``, ``chexpert``, or one of these with ``_simulated``.
    root : Path
        The dataset's folder.
    coding : str
        ``"default"``; for HAM10000 also ``"medfair"`` (see ``read_ham10000``), for CheXpert
        ``"zeros"``, ``"ones"`` and ``"drop"`` (see ``read_chexpert``).
    split_seed : int
        Of splits that we draw (HAM10000, CheXpert).
    check_images : bool
        Refuse a missing or truncated image now, not when it is first needed.

    Returns
    -------
    Cohort
        All rows; those that the rule excludes say why.

    Raises
    ------
    InputError
        One line naming the file, row or field and what was expected.
    """
    spec, root = spec_for(dataset, coding), Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: folder not found; expected the {spec.name} dataset there")
    source = spec.reader(root, coding, split_seed)
    table = source.table.copy()
    table["excluded"] = _reasons(spec, table)
    table["prompt"] = ["" if row["excluded"] else spec.prompt(row) for row in _records(table)]
    refuse_crossing(table, root)
    refuse_empty(spec, table, root)
    images_hash = hash_images(root, table["path"].tolist(), check=check_images)
    total = hashlib.sha256(f"{source.labels_hash}\n{images_hash}".encode()).hexdigest()
    columns = [
        "subject",
        "image",
        "path",
        "split",
        *(field.name for field in spec.fields),
    ]
    return Cohort(spec, table[[*columns, "prompt", "excluded"]], root, total)


def _records(table: pd.DataFrame) -> list[dict[str, str]]:
    """Rows of a table of text as mappings."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _reasons(spec: CohortSpec, table: pd.DataFrame) -> list[str]:
    """Why a row is left out: the fields that are unknown, or nothing."""
    names = [field.name for field in spec.fields]
    return [
        "; ".join(f"{name} unknown" for name in names if row[name] == UNKNOWN)
        for row in _records(table)
    ]


def refuse_crossing(table: pd.DataFrame, root: Path) -> None:
    """Raise if a subject has rows in two splits, naming it and them."""
    first: dict[str, str] = {}
    for subject, split in zip(table["subject"], table["split"], strict=True):
        if first.setdefault(subject, split) != split:
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
