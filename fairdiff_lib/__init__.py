"""FairDiffusion as an executable study: is a medical image generator fair?

Modules are layered: each imports only from those above it in ``LAYERS``;
``tests/test_layers.py`` holds them to it.
"""

import os

# transformers says at import that it falls back to PIL for want of torchvision: known, and harmless
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

__version__ = "0.1.0"

LAYERS: tuple[str, ...] = (
    "config",
    "store",
    "readers",
    "ham10000",
    "fairgenmed",
    "cohorts",
    "fundus",
    "measure",
    "simulate",
    "diffusion",
    "perturbation",
    "training",
    "networks",
    "predictions",
    "classify",
    "features",
    "inference",
    "estimators",
    "kernels",
    "quality",
    "gates",
    "parity",
    "fairness",
    "downstream",
    "seeds",
    "assets",
    "imaging",
    "tables",
    "verdict",
    "looks",
    "figures",
    "galleries",
    "sentences",
    "pipeline",
    "report",
    "notebook",
    "timings",
    "graph",
    "study",
)
