"""FairDiffusion as an executable study: is a medical image generator fair?

Rooms by subject, imports downwards only; the contract in pyproject.toml holds them to it.
What notebooks use is here by name, and imported when it is first asked for.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# transformers says at import that it falls back to PIL for want of torchvision: known, and harmless
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

__version__ = "0.2.0"

if TYPE_CHECKING:
    from fairdiff_lib.audit.audit import Audit as Audit
    from fairdiff_lib.audit.audit import auc_metric as auc_metric
    from fairdiff_lib.audit.audit import kid_metric as kid_metric
    from fairdiff_lib.audit.audit import mean_metric as mean_metric
    from fairdiff_lib.audit.kid import fit_kernel as fit_kernel
    from fairdiff_lib.audit.kid import kid as kid
    from fairdiff_lib.audit.quality import gates as gates
    from fairdiff_lib.classify.fit import fit_classifier as fit_classifier
    from fairdiff_lib.datasets import DATASETS as DATASETS
    from fairdiff_lib.methods.groups import group_means as group_means
    from fairdiff_lib.methods.groups import loss_gap as loss_gap
    from fairdiff_lib.methods.optimiser import next_sigma as next_sigma
    from fairdiff_lib.methods.perturbation import perturbation_weights as perturbation_weights
    from fairdiff_lib.model.sample import generate as generate
    from fairdiff_lib.settings.methods import METHODS as METHODS
    from fairdiff_lib.show.cards import card as card
    from fairdiff_lib.show.front import fig as fig
    from fairdiff_lib.show.front import ready as ready
    from fairdiff_lib.show.front import say as say
    from fairdiff_lib.show.front import show_source as show_source
    from fairdiff_lib.show.front import table as table
    from fairdiff_lib.studies.counterfactual import (
        measure_counterfactual as measure_counterfactual,
    )
    from fairdiff_lib.studies.downstream import measure_downstream as measure_downstream
    from fairdiff_lib.studies.harm import measure_harm as measure_harm
    from fairdiff_lib.studies.matrix import measure_matrix as measure_matrix
    from fairdiff_lib.studies.privacy import measure_privacy as measure_privacy
    from fairdiff_lib.studies.stress import measure_stress as measure_stress
    from fairdiff_lib.studies.sweep import measure_sweep as measure_sweep
    from fairdiff_lib.study import Study as Study

# a line above and a word here: the second is what runs (PEP 562), the first what mypy reads
_PUBLIC = {
    "audit.audit": ("Audit", "auc_metric", "kid_metric", "mean_metric"),
    "audit.kid": ("fit_kernel", "kid"),
    "audit.quality": ("gates",),
    "classify.fit": ("fit_classifier",),
    "datasets": ("DATASETS",),
    "methods.groups": ("group_means", "loss_gap"),
    "methods.optimiser": ("next_sigma",),
    "methods.perturbation": ("perturbation_weights",),
    "model.sample": ("generate",),
    "settings.methods": ("METHODS",),
    "show.cards": ("card",),
    "show.front": ("fig", "ready", "say", "show_source", "table"),
    "studies.counterfactual": ("measure_counterfactual",),
    "studies.downstream": ("measure_downstream",),
    "studies.harm": ("measure_harm",),
    "studies.matrix": ("measure_matrix",),
    "studies.privacy": ("measure_privacy",),
    "studies.stress": ("measure_stress",),
    "studies.sweep": ("measure_sweep",),
    "study": ("Study",),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
