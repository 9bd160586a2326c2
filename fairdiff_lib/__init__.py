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
    "cohorts",
    "simulate",
    "diffusion",
    "perturbation",
    "training",
    "classify",
    "features",
    "quality",
    "fairness",
    "figures",
    "pipeline",
    "study",
)
