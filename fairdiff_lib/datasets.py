"""Every data set of the study: one entry each, which holds all that belongs to it.

A data set is added here and nowhere else: a :class:`~fairdiff_lib.data.cohort.CohortSpec`, a
reader of the layout in which its authors hand it out, and, where its patients are simulated, the
simulator with its sizes and its ruler. Everything else in the project reads :data:`DATASETS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairdiff_lib.data import chexpert, fairgenmed, ham10000, nih, odir
from fairdiff_lib.data.cohort import Cohort, CohortSpec, Reader, Ruler, read_cohort
from fairdiff_lib.disk.files import atomic_folder
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import check_methods
from fairdiff_lib.settings.notebooks import JOBS
from fairdiff_lib.settings.options import Population, ReadingConfig, Settings
from fairdiff_lib.settings.presets import PRESETS
from fairdiff_lib.sim import chest, fundus, skin
from fairdiff_lib.sim.plant import plant, planted_reader, with_cameras

DEFAULT = "fairgenmed_simulated"
USUAL = "usual"  # of Dataset.populations: where a preset has none of its own
SMALL = ("quick", "reference")  # presets whose images have the size of the shipped bases
ELSEWHERE = 7_000_000_000  # seed of the patients whom shipped bases are trained on: no study's
SIMULATED_LIMIT = (
    "Simulated images support statements about the audit and the mechanism, never about patients"
)


@dataclass(frozen=True)
class Dataset:
    """All that belongs to a data set."""

    name: str  # as notebooks and folders say it
    title: str  # as readers see it
    specs: Mapping[str, CohortSpec]  # coding (how labels are read) -> spec; first "default"
    reader: Reader  # (root, coding, split_seed) -> Source
    # table id -> title: of its images' quality (notebook 05; two: by attribute, by condition),
    # and of classifiers (07; one, or one per prompted condition)
    quality: Mapping[str, str]
    downstream: Mapping[str, str]
    unit: str = "subjects"  # whom its tests count, in the plural
    limits: str = ""  # what nothing measured on it says: a sentence
    draws_splits: bool = True  # by the reader, so that reading.split_seed has a meaning
    elsewhere: bool = True  # it can say whether a finding holds elsewhere: not the paper's first
    # preset -> dotted setting -> value, where it needs another than all the others
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # (population, root): writes simulated patients in its layout; None of real data
    simulate: Callable[[Any, Path], None] | None = None
    populations: Mapping[str, Population] = field(default_factory=dict)  # preset -> what is drawn
    ruler: Ruler | None = None  # what can be measured on simulated pictures

    @property
    def simulated(self) -> bool:
        """Whether its patients are drawn by a simulator."""
        return self.simulate is not None

    @property
    def phrase(self) -> str:
        """The data set within a sentence, as "simulated FairGenMed"."""
        plain = self.title.removesuffix(_SIMULATED)
        return plain if plain == self.title else f"simulated {plain}"

    def spec(self, coding: str = "default", population: Population | None = None) -> CohortSpec:
        """Its attributes, conditions and prompt under a coding; an unknown one is refused.

        With the cameras that a population may have.
        """
        refuse_unknown("coding", coding, self.specs)
        spec = self.specs[coding]
        return with_cameras(spec) if population and population.has_cameras else spec

    def population(self, preset: str) -> Population | None:
        """What a preset simulates; None of real data."""
        return self.populations.get(preset, self.populations.get(USUAL))

    def draw(self, population: Population | None, root: Path) -> None:
        """Write its simulated patients into a folder; a real data set is refused."""
        if self.simulate is None:
            known = ", ".join(name for name, entry in DATASETS.items() if entry.simulated)
            raise InputError(f"dataset {self.name!r} is not simulated; expected one of {known}")
        with atomic_folder(root) as folder:
            self.simulate(population, folder)
            if population and population.served_worse:
                plant(population, self.reader, folder)

    def read(
        self,
        root: Path,
        *,
        coding: str = "default",
        split_seed: int = 0,
        check_images: bool = True,
        population: Population | None = None,
    ) -> Cohort:
        """Its cohort from a folder in the original layout; see ``data.cohort.read_cohort``.

        With the cameras, and without the images, that a population's plant asks for.
        """
        spec, reader = self.spec(coding, population), self.reader
        if population and population.served_worse:
            reader = planted_reader(reader)
        return read_cohort(spec, reader, root, coding, split_seed, check_images)


_SIMULATED = ", simulated"
_BY_LEVEL = "quality by demographic and condition level"
_DOWNSTREAM = "downstream: all conditions"


def _from_shipped(name: str) -> dict[str, dict[str, str]]:
    """Presets that fine-tune the base which the project comes with, as the paper does SD 2.1."""
    return {preset: {"model.pretrained": f"data/pretrained/{name}"} for preset in SMALL}


# real images have no base that comes with the project: what is claimed of them rests on complete
# runs, a base, a fine-tuning and sampling per seed; three of them: an hour and more of a core each
_COMPLETE: dict[str, Any] = {
    "base_per_seed": True, "seeds": (0, 1, 2), "ablation.seeds": (0, 1, 2)
}  # fmt: skip


def _simulated(real: Dataset, layout_limit: str = "", **own: Any) -> Dataset:
    """The entry of simulated patients in the layout of a real data set."""
    return dataclasses.replace(
        real,
        name=f"{real.name}_simulated",
        title=f"{real.title}{_SIMULATED}",
        limits=f"{SIMULATED_LIMIT}{layout_limit}.",
        **{"settings": {}, **own},
    )


_FAIRGENMED = Dataset(
    name="fairgenmed",
    title="FairGenMed",
    specs={"default": fairgenmed.SPEC},
    reader=fairgenmed.read_fairgenmed,
    quality={"tab02": "quality by demographic level", "tab03": "quality by condition level"},
    downstream={
        "tab04": "downstream: glaucoma",
        "tab05": "downstream: vision loss",
        "tab06": "downstream: cup-disc ratio",
        "tab07": "downstream: refraction",
    },
    limits="One kind of image, fundus photographs; race, sex and ethnicity as recorded.",
    draws_splits=False,
    elsewhere=False,
)

_HAM10000 = Dataset(
    name="ham10000",
    title="HAM10000",
    specs={coding: ham10000.spec_ham10000(coding) for coding in ham10000.AGE_LEVELS},
    reader=ham10000.read_ham10000,
    settings={"reference": _COMPLETE},
    quality={"tab08": _BY_LEVEL},
    downstream={"tab09": _DOWNSTREAM},
    unit="lesions",
    limits=(
        "HAM10000 has neither race nor skin tone: nothing follows for either; its groups are sex "
        "and age. It names lesions, not patients: one patient's may lie in training and in test."
    ),
)

_CHEXPERT = Dataset(
    name="chexpert",
    title="CheXpert",
    specs=dict.fromkeys(chexpert.UNCERTAIN, chexpert.spec_chexpert()),
    reader=chexpert.read_chexpert,
    quality={"tab10": _BY_LEVEL},
    downstream={"tab11": _DOWNSTREAM},
    unit="patients",
    limits=(
        "Labels of CheXpert's training images are read from reports by a program; its groups are "
        "race and sex as recorded."
    ),
)

_NIH = Dataset(
    name="nih_chestxray14",
    title="NIH ChestX-ray14",
    specs={coding: nih.spec_nih(coding) for coding in ("default", "findings")},
    reader=nih.read_nih,
    # half of the base's steps: of some 600 training films a generator soon knows each by heart
    settings={"reference": {**_COMPLETE, "base.steps": 2500}},
    quality={"tab_quality": _BY_LEVEL},
    downstream={"tab_downstream": _DOWNSTREAM},
    unit="patients",
    limits=(
        "ChestX-ray14's labels are read from reports by a program; it has no race: its groups are "
        "sex and age."
    ),
)

_ODIR = Dataset(
    name="odir5k",
    title="ODIR-5K",
    specs={"default": odir.SPEC},
    reader=odir.read_odir,
    settings={"reference": _COMPLETE},
    quality={"tab_quality": _BY_LEVEL},
    downstream={"tab_downstream": _DOWNSTREAM},
    unit="patients",
    limits=(
        "ODIR-5K's photographs come from many cameras, and its case mix differs by group; it has "
        "no race: its groups are sex and age."
    ),
)

_FAIRGENMED_SIMULATED = _simulated(
    _FAIRGENMED,
    settings=_from_shipped("fairgenmed_simulated"),
    simulate=fundus.simulate_fairgenmed,
    populations={
        "smoke": fundus.FundusPopulation(
            train=96, val=24, test=64, fundus_height=64, fundus_width=83
        ),
        "paper": fundus.FundusPopulation(
            train=6000, val=1000, test=3000, fundus_height=512, fundus_width=664
        ),
        "base": fundus.FundusPopulation(train=6000, val=30, test=30, seed=ELSEWHERE),
        USUAL: fundus.FundusPopulation(),
    },
    ruler=fundus.RULER,
)

_HAM10000_SIMULATED = _simulated(
    _HAM10000,
    "; HAM10000's layout has neither race nor skin tone",
    # lesions hold more than fundi or chests: with their steps the autoencoder lost 0.62 px where
    # 0.6 is the limit (0.598 with 4,000)
    settings=_from_shipped("ham10000_simulated")
    | {"base": {"vae.steps": 4600, "vae.warmup": 230, "base.steps": 6000}},
    simulate=skin.simulate_ham10000,
    populations={
        # fewer would leave the rarest diagnoses out of the validation tenth
        "smoke": skin.SkinPopulation(lesions=300, image_height=64, image_width=85),
        "paper": skin.SkinPopulation(lesions=7470, image_height=450, image_width=600),
        # no lesion against its label: of those that had some, prompts told AUC 0.865 to 0.887
        # where 0.9 is the limit and 0.919 what real images of the study give
        "base": skin.SkinPopulation(lesions=6000, share_contradicted=0.0, seed=ELSEWHERE),
        USUAL: skin.SkinPopulation(),
    },
    ruler=skin.RULER,
)

_CHEXPERT_SIMULATED = _simulated(
    _CHEXPERT,
    settings=_from_shipped("chexpert_simulated"),
    specs=dict.fromkeys(chexpert.UNCERTAIN, chexpert.spec_chexpert(chexpert.DRAWN)),
    simulate=chest.simulate_chexpert,
    populations={
        "smoke": chest.ChestPopulation(patients=184, image_height=64, image_width=64),
        "paper": chest.ChestPopulation(patients=10_000, image_height=512, image_width=512),
        "base": chest.ChestPopulation(patients=10_000, seed=ELSEWHERE),
        USUAL: chest.ChestPopulation(),
    },
    ruler=chest.RULER,
)

DATASETS: dict[str, Dataset] = {
    entry.name: entry
    for entry in (
        _FAIRGENMED_SIMULATED,
        _FAIRGENMED,
        _HAM10000,
        _HAM10000_SIMULATED,
        _CHEXPERT,
        _CHEXPERT_SIMULATED,
        _NIH,
        _ODIR,
    )
}


def dataset_of(name: str) -> Dataset:
    """The entry of a data set; an unknown name is refused with the list of known ones."""
    refuse_unknown("dataset", name, DATASETS)
    return DATASETS[name]


def dataset_name(dataset: str) -> str:
    """How readers see a data set; a simulated one says so."""
    return DATASETS[dataset].title if dataset in DATASETS else dataset


def contents() -> dict[str, tuple[str, str]]:
    """Id of every table, figure and card: its title, and the notebook that makes it."""
    found: dict[str, tuple[str, str]] = {}
    for job in JOBS.values():
        parts = [getattr(entry, job.of_dataset) for entry in DATASETS.values() if job.of_dataset]
        for own in (*parts, job.titles):
            found |= {name: (title, job.notebook) for name, title in own.items()}
    return found


def load_settings(
    preset: str = "quick", dataset: str = DEFAULT, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Settings of a preset for a data set, with overrides as ``{"training.steps": "20"}``.

    A preset, data set or field that does not exist is refused, and a value that it can't have.
    """
    refuse_unknown("preset", preset, PRESETS)
    entry = dataset_of(dataset)
    for name in overrides or {}:
        if name.startswith("simulator.") and not entry.simulated:
            raise InputError(f"setting {name}: {dataset} is not simulated; expected none")
    plain = Settings(preset, dataset, simulator=entry.population(preset))
    settings = plain.changed(PRESETS[preset], entry.settings.get(preset, {}), overrides or {})
    check_methods(settings)
    _check_reading(entry, settings)
    return settings


def _check_reading(entry: Dataset, settings: Settings) -> None:
    """Refuse a coding or a split that the data set does not have."""
    own = settings.reading
    if own.coding not in entry.specs:
        raise InputError(
            f"reading.coding={own.coding}: {entry.name} has no such coding; "
            f"expected {', '.join(entry.specs)}"
        )
    if own.split_seed and not entry.draws_splits:
        raise InputError(
            f"reading.split_seed={own.split_seed}: {entry.name} comes with its splits; expected 0"
        )
    # who is in training, whose images are planted, depends on how the data set is read
    default = ReadingConfig()
    if own != default and settings.simulator and settings.simulator.served_worse:
        raise InputError(
            f"reading.split_seed={own.split_seed}, reading.coding={own.coding}: expected "
            f"{default.split_seed} and {default.coding} with simulator.plant.on"
        )
