"""FairDiffusion as an executable study: is a medical image generator fair?

Rooms by subject, imports downwards only; the contract in pyproject.toml holds them to it.
"""

import os

# transformers says at import that it falls back to PIL for want of torchvision: known, and harmless
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

__version__ = "0.1.0"
