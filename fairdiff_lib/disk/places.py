"""Where everything lies: a run folder's name holds a digest of the settings it depends on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS, config_of, fields_of
from fairdiff_lib.settings.options import Settings

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CARD = "README.md"  # of a model or a dataset, where the Hugging Face Hub looks for it

# sections of the settings that a folder depends on, besides the data and how they are read
_BASE = ("model", "vae", "base")
_TRAINED = (*_BASE, "training")
_IMAGES = (*_TRAINED, "generation")
_STUDY = (*_IMAGES, "reader", "seeds", "base_per_seed", "methods", "mitigation", "classifiers",
          "residual", "efficientnet", "vit", "lite0", "audit")  # fmt: skip


class _Run:
    """A folder below the runs of the data set, named with a digest of some sections."""

    def __init__(self, name: str, *sections: str) -> None:
        self.name, self.sections = name, sections

    def __get__(self, places: Places, kind: type[Places]) -> Path:
        name = self.name.format(settings=places.settings)
        return places.runs / f"{name}-{places.digest(*self.sections)}"


class _Figure:
    """A folder below the figures, named after what it is about."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, places: Places, kind: type[Places]) -> Path:
        return places.roots["figures"] / self.name.format(settings=places.settings)


@dataclass(frozen=True)
class Places:
    """Where everything lies; relative roots are below the project."""

    settings: Settings
    data_root: str = ""  # folder of the real data; empty = data/real/<dataset>
    runs_root: str = "data/runs"
    figures_root: str = "figures"

    cohort = _Run("cohort")  # cohort.csv and the data's hash
    # the pipeline that every method starts from, and its training; see base_of
    base = _Run("base", *_BASE)
    features = _Run("features", "model")  # of images, whatever the extractor; named by content
    reader = _Run("reader", "model", "reader")  # the classifier of all conditions
    records = _Run("records-{settings.preset}", *_STUDY)  # what notebooks recorded, a JSON each
    matrix = _Run("matrix", *_STUDY, "matrix")  # records of the downstream matrix's jobs
    # images whose KID is the proof's truth; a larger pool begins with the same
    pools = _Run("pools-seed{settings.proof.seed}", "model")
    trained_pool = _Run("trained_pool-seed{settings.proof.seed}", *_IMAGES)
    proof = _Run("proof", *_IMAGES, "audit", "proof")  # simulated audits
    planted = _Run("planted", *_BASE, "generation", "audit", "planted")  # rows of its runs
    retraining = _Run("retraining", *_IMAGES, "retraining")  # generations of a model
    stress = _Run("stress", "model", "audit", "proof", "stress")  # simulated audits, spoilt labels

    figures = _Figure("{settings.preset}/{settings.dataset}")  # tables, figures and cards
    figures_all = _Figure("{settings.preset}/all")  # those that span data sets
    executed = _Figure("{settings.preset}/{settings.dataset}/executed")  # notebooks
    # what the audit keeps of every run of the ablation, its tables and executed notebooks
    ablation = _Figure("{settings.preset}/{settings.dataset}/ablation")

    @property
    def roots(self) -> dict[str, Path]:
        """What a stamp's names of other files begin with, and the folder that it stands for."""
        named = {"runs": self.runs_root, "figures": self.figures_root}
        named |= {} if self.settings.simulated else {"data": str(self.data)}
        return {name: PROJECT_ROOT / root for name, root in named.items()}

    @property
    def runs(self) -> Path:
        """All that was made of the data set and isn't for reading."""
        return self.roots["runs"] / self.settings.dataset

    @property
    def data(self) -> Path:
        """The dataset, in its original layout."""
        if self.settings.simulated:
            runs = PROJECT_ROOT / self.runs_root / self.settings.dataset
            return runs / f"data-{self.settings.digest('dataset', 'simulator')}"
        return PROJECT_ROOT / (self.data_root or f"data/real/{self.settings.dataset}")

    @property
    def protocol(self) -> Path:
        """What the study tests, declared before its first image."""
        return self.figures / "protocol.json"

    @property
    def pretrained(self) -> Path:
        """The base of simulated patients that the project comes with."""
        return PROJECT_ROOT / "data" / "pretrained" / self.settings.dataset

    @property
    def calibration(self) -> Path:
        """The proof's tables and figures: those of the quick preset stand for all."""
        return self._of_all / "calibration"

    @property
    def own(self) -> Path:
        """The audit of anybody's own images: no data set's."""
        return self._of_all / "own"

    @property
    def _of_all(self) -> Path:
        preset, root = self.settings.preset, self.roots["figures"]
        return root if preset == "quick" else root / preset

    def digest(self, *sections: str) -> str:
        """Of the data, how they are read, and these sections of the settings."""
        data = ("simulator",) if self.settings.simulated else ()
        inner = self.settings.digest("dataset", *data, "reading", *sections)
        usual = self.data == PROJECT_ROOT / f"data/real/{self.settings.dataset}"
        place = "" if self.settings.simulated or usual else str(self.data)
        return hashlib.sha256(f"{inner}{place}".encode()).hexdigest()[:10]

    def base_of(self, seed: int) -> Path:
        """The base that runs of a seed start from: ``base``, but for a seed with one of its own."""
        own = seed if self.settings.base_per_seed else 0
        return self.runs / f"base-seed{own}-{self.digest(*_BASE)}" if own else self.base

    def run(self, method: str, seed: int) -> Path:
        """The fine-tuned pipeline of a method and seed, and its training."""
        trained = (*_TRAINED, *["base_per_seed"] * (self.base_of(seed) != self.base))
        digest = self.digest(*trained)
        if method in METHODS and fields_of(method):  # of the mitigation only what it uses
            config = config_of(method, self.settings.mitigation)
            own = replace(self, settings=replace(self.settings, mitigation=config))
            digest = own.digest(*trained, "mitigation")
        return self.runs / f"{method}-seed{seed}-{digest}"

    def generated(self, method: str, seed: int) -> Path:
        """Images of a method and seed: a folder per split, and a manifest."""
        return self.run(method, seed) / f"generated-{self.settings.digest('generation')}"

    def sweep(self, method: str, seed: int) -> Path:
        """Images of some test prompts by these generation settings: a cell of the sweep."""
        return self.run(method, seed) / f"sweep-{self.settings.digest('generation')}"

    def counterfactual(self, method: str, seed: int, asked: str) -> Path:
        """Images of some test prompts of which one word is changed, by a name of the change."""
        folder = f"counterfactual-{self.settings.digest('generation')}"
        return self.run(method, seed) / folder / asked

    def dose(self, digest: str) -> Path:
        """Cells of a dose-response from the base, by a digest of what it depends on besides."""
        return self.runs / f"dose-{self.digest(*_TRAINED)}-{digest}"

    def classifier(self, source: str, seed: int, name: str) -> Path:
        """A downstream classifier, one of ``CLASSIFIERS``, of ``real`` or a method's images."""
        return self._images(source, seed) / f"{name}-{self.settings.digest(name)}"

    def matrix_run(self, label: str, seed: int, generator: int | None) -> Path:
        """A classifier of the matrix, by a label and the seed of its generator, if any."""
        own = self.settings.matrix
        source = ("real", seed) if generator is None else (own.method, generator)
        folder = f"matrix-{own.classifier}-{self.settings.digest(own.classifier)}"
        return self._images(*source) / folder / f"{label}-seed{seed}"

    def _images(self, source: str, seed: int) -> Path:
        """What hangs on a source's images: beside generated ones, by the size of real ones."""
        if source == "real":
            return self.runs / f"real-seed{seed}-{self.digest('model')}"
        return self.generated(source, seed)

    def name_of(self, path: Path) -> str:
        """A file's name below a root, as ``runs/<dataset>/base-.../run.json``; else refused."""
        for name, root in self.roots.items():
            if path.is_relative_to(root):
                return f"{name}/{path.relative_to(root).as_posix()}"
        raise InputError(
            f"{path}: expected a file below {', '.join(map(str, self.roots.values()))}"
        )
