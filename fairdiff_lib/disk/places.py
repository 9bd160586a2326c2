"""Where everything lies: a run folder's name holds a digest of the settings it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fairdiff_lib.disk.files import write_json
from fairdiff_lib.settings.methods import METHODS, config_of, fields_of
from fairdiff_lib.settings.options import Settings

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CARD = "README.md"  # of a model or a dataset, where the Hugging Face Hub looks for it


@dataclass(frozen=True)
class Places:
    """Where everything lies. A run folder's name holds a digest of the settings it depends on.

    Parameters
    ----------
    settings : Settings
    data_root : str
        Folder of the real data; empty = data/real/<dataset>.
    runs_root, figures_root : str
        Relative ones are below the project.
    """

    settings: Settings
    data_root: str = ""
    runs_root: str = "data/runs"
    figures_root: str = "figures"

    def _runs(self) -> Path:
        return PROJECT_ROOT / self.runs_root / self.settings.dataset

    def _digest(self, *sections: str) -> str:
        data = ("simulator",) if self.settings.simulated else ()
        inner = self.settings.digest("dataset", *data, "reading", *sections)
        usual = self.data == PROJECT_ROOT / f"data/real/{self.settings.dataset}"
        place = "" if self.settings.simulated or usual else str(self.data)
        return hashlib.sha256(f"{inner}{place}".encode()).hexdigest()[:10]

    @property
    def data(self) -> Path:
        """The dataset, in its original layout."""
        if self.settings.simulated:
            return self._runs() / f"data-{self.settings.digest('dataset', 'simulator')}"
        return PROJECT_ROOT / (self.data_root or f"data/real/{self.settings.dataset}")

    @property
    def cohort(self) -> Path:
        """cohort.csv and the data's hash."""
        return self._runs() / f"cohort-{self._digest()}"

    @property
    def base(self) -> Path:
        """The pipeline that every method starts from, and its training."""
        return self._runs() / f"base-{self._digest('model', 'vae', 'base')}"

    def run(self, method: str, seed: int) -> Path:
        """The fine-tuned pipeline of a method and seed, and its training."""
        parts = ["model", "vae", "base", "training"]
        if method not in METHODS or not fields_of(method):
            return self._runs() / f"{method}-seed{seed}-{self._digest(*parts)}"
        own = replace(self.settings, mitigation=config_of(method, self.settings.mitigation))
        digest = replace(self, settings=own)._digest(*parts, "mitigation")
        return self._runs() / f"{method}-seed{seed}-{digest}"

    def generated(self, method: str, seed: int) -> Path:
        """Images of a method and seed: a folder per split, and a manifest."""
        return self.run(method, seed) / f"generated-{self.settings.digest('generation')}"

    def sweep(self, method: str, seed: int) -> Path:
        """Images of some test prompts by these generation settings: a cell of the sweep."""
        return self.run(method, seed) / f"sweep-{self.settings.digest('generation')}"

    @property
    def features(self) -> Path:
        """The feature encoder and cached features."""
        parts = self._digest("model", "encoder")
        return self._runs() / f"features-{parts}"

    def classifier(self, source: str, seed: int, name: str) -> Path:
        """A downstream classifier trained on ``real`` or on a method's images.

        ``name`` is one of ``config.CLASSIFIERS``.
        """
        return self._images(source, seed) / f"{name}-{self.settings.digest(name)}"

    def _images(self, source: str, seed: int) -> Path:
        """What hangs on a source's images: beside generated ones, by the size of real ones."""
        if source == "real":
            return self._runs() / f"real-seed{seed}-{self._digest('model')}"
        return self.generated(source, seed)

    def matrix_run(self, label: str, seed: int, generator: int | None) -> Path:
        """A classifier of the downstream matrix, by the label of what it is trained on.

        ``generator`` is the seed of the run whose images it sees, None where it sees none.
        """
        own = self.settings.matrix
        source = ("real", seed) if generator is None else (own.method, generator)
        folder = f"matrix-{own.classifier}-{self.settings.digest(own.classifier)}"
        return self._images(*source) / folder / f"{label}-seed{seed}"

    @property
    def matrix(self) -> Path:
        """Records of the downstream matrix's jobs."""
        return self._runs() / f"matrix-{self._digest(*_SECTIONS, 'matrix')}"

    @property
    def records(self) -> Path:
        """Scalars that the notebooks recorded, one JSON each."""
        return self._runs() / f"records-{self.settings.preset}-{self._digest(*_SECTIONS)}"

    @property
    def figures(self) -> Path:
        """Tables and figures of this preset and dataset."""
        return PROJECT_ROOT / self.figures_root / self.settings.preset / self.settings.dataset

    @property
    def figures_all(self) -> Path:
        """Tables and figures of this preset that span datasets."""
        return PROJECT_ROOT / self.figures_root / self.settings.preset / "all"

    def dose(self, digest: str) -> Path:
        """Cells of a dose-response from the base, by a digest of what it depends on besides."""
        parts = ("model", "vae", "base", "training")
        return self._runs() / f"dose-{self._digest(*parts)}-{digest}"

    @property
    def ablation(self) -> Path:
        """What the audit keeps of every run of the ablation study, and its executed notebooks."""
        return self.figures / "ablation"

    @property
    def pools(self) -> Path:
        """Pools of images whose KID is the proof's truth; a larger one begins with the same."""
        parts = ("model", "vae", "base", "training", "generation", "encoder")
        return self._runs() / f"pools-seed{self.settings.proof.seed}-{self._digest(*parts)}"

    @property
    def proof(self) -> Path:
        """Simulated audits of the proof."""
        parts = ("model", "vae", "base", "training", "generation", "encoder", "proof")
        return self._runs() / f"proof-{self._digest(*parts)}"

    @property
    def calibration(self) -> Path:
        """The proof's tables and figures: those of the quick preset stand for all."""
        folder = PROJECT_ROOT / self.figures_root
        own = folder if self.settings.preset == "quick" else folder / self.settings.preset
        return own / "calibration"

    @property
    def executed(self) -> Path:
        """Executed notebooks."""
        return self.figures / "executed"


_SECTIONS = (
    "seeds",
    "methods",
    "model",
    "vae",
    "base",
    "training",
    "mitigation",
    "generation",
    "encoder",
    "classifiers",
    "residual",
    "efficientnet",
    "vit",
    "audit",
)


def record(layout: Places, name: str, scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Write a notebook's scalars as JSON (``layout.records/<name>.json``) and return them.

    Numpy scalars become plain ones; NaN becomes None.
    """
    plain: dict[str, Any] = {}
    for key, value in scalars.items():
        item = value.item() if hasattr(value, "item") else value
        plain[key] = None if isinstance(item, float) and item != item else item
    write_json(layout.records / f"{name}.json", plain)
    return plain
