"""Layer I of the proof: an oracle redraws simulated pictures under corrupted laws.

With real law P and corrupted law C, a generator that fails with probability pi has the law
(1 - pi) P + pi C, so that its KID is pi^2 KID(P, C): pi is solved from a pool's KID.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fairdiff_lib.audit.estimate import Floats
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.classify.features import Extractor
from fairdiff_lib.data.cohort import square
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings
from fairdiff_lib.sim.fundus import Eye, render
from fairdiff_lib.sim.simulate import FundusPopulation, draw_subject, fundus_config
from fairdiff_lib.studies.proof.pools import Space, fill_pool, pool_kid, remembered, truth_row

BLUR = 8.0  # x the camera's defocus: about the study's blurred control
KEPT = 0.2  # of the spread, where it is lost
CLINICAL = ("cup_disc_ratio", "loss", "crescent", "ring")  # what a prompt asks for
VARIED = (*CLINICAL, "disc_radius", "disc_aspect", "melanin", "gain", "tortuosity")
TYPICAL = 200  # subjects whose mean is a group's typical eye


@dataclass(frozen=True)
class Oracle:
    """Pictures of one group, real and as a wrong generator would redraw them.

    Attributes
    ----------
    config : FundusPopulation
        Of the group's law; its seed is that of the reals.
    error : str
        ``blur or cup`` (each in half of the pictures: defocus; a cup drawn as abnormal whatever
        was asked) or ``lost spread`` (conditions and appearance near the group's typical eye).
    """

    extractor: Extractor
    config: FundusPopulation
    error: str

    def __call__(self, numbers: range) -> dict[str, Any]:
        redraw = dataclasses.replace(self.config, seed=self.config.seed + 1)
        eyes = [draw_subject(self.config, "train", k).eye for k in numbers]
        fresh = [draw_subject(redraw, "train", k).eye for k in numbers]
        typical = typical_eye(self.config)
        wrong = [
            self._wrong(_asked(new, eye), k, typical)
            for new, eye, k in zip(fresh, eyes, numbers, strict=True)
        ]
        return {
            name: self.extractor(np.stack([self._picture(eye) for eye in drawn]))
            for name, drawn in (("real", eyes), ("wrong", wrong))
        }

    def _wrong(self, eye: Eye, number: int, typical: dict[str, float]) -> Eye:
        if self.error == "lost spread":
            near = {k: KEPT * getattr(eye, k) + (1 - KEPT) * v for k, v in typical.items()}
            return dataclasses.replace(eye, **near)
        rng = np.random.default_rng([self.config.seed, number, 2])
        if rng.random() < 0.5:
            return dataclasses.replace(eye, defocus=BLUR * eye.defocus)
        return dataclasses.replace(eye, cup_disc_ratio=float(rng.uniform(0.68, 0.88)))

    def _picture(self, eye: Eye) -> Any:  # uint8 [3, S, S]
        height, width = self.config.fundus_height, self.config.fundus_width
        drawn = Image.fromarray(render(eye, height, width))
        return np.asarray(square(drawn, height)).transpose(2, 0, 1)


def _asked(eye: Eye, prompt: Eye) -> Eye:
    """The eye with the conditions of another: what a generator draws for its prompt."""
    return dataclasses.replace(eye, **{name: getattr(prompt, name) for name in CLINICAL})


def typical_eye(config: FundusPopulation) -> dict[str, float]:
    """Means of what varies between the eyes of a law."""
    eyes = [draw_subject(config, "train", k).eye for k in range(TYPICAL)]
    return {name: float(np.mean([getattr(eye, name) for eye in eyes])) for name in VARIED}


@dataclass(frozen=True)
class OracleLaw:
    """A group whose generated pictures are wrong with probability ``share``.

    The right ones are reals that no subject of the audit has.
    """

    real: Floats  # [N, D]
    wrong: Floats  # [N, D]
    share: float

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        rows = rng.choice(len(self.real), 2 * n, replace=False)
        own, other = rows[:n], rows[n:]
        failed = rng.random(n) < self.share
        return self.real[own], np.where(failed[:, None], self.wrong[own], self.real[other])


def oracle_laws(
    settings: Settings, layout: Places, space: Space
) -> tuple[dict[str, OracleLaw], pd.DataFrame]:
    """Two groups with unequal reals, different errors and the planted KID; and their truth."""
    own, size = settings.proof, settings.model.image_size
    plain = dataclasses.replace(
        fundus_config(settings), seed=own.seed, fundus_height=size, fundus_width=size * 4 // 3,
        share_asian=0.0, share_black=0.0,
    )  # fmt: skip
    varied = dataclasses.replace(plain, seed=own.seed + 2, share_black=1.0, heterogeneity_black=1.5)
    laws, rows = {}, []
    for name, config, error in (("small", varied, "blur or cup"), ("large", plain, "lost spread")):
        oracle = Oracle(space.extractor, config, error)
        pool = fill_pool(layout.pools / f"oracle-{name}", oracle, own.pool, f"oracle, {name} group")
        real, wrong = space.scale(pool["real"]), space.scale(pool["wrong"])
        found = remembered(
            layout.pools / f"oracle-{name}-{own.pool}.json",
            partial(_measure, space.kernel, real, wrong, f"{name}: {error}"),
        )
        if found["kid"] < own.kid:
            raise InputError(
                f"proof.kid={own.kid}: above {found['kid']:.3g}, all that {error} costs"
            )
        share = float(np.sqrt(own.kid / found["kid"]))
        laws[name] = OracleLaw(real, wrong, share)
        scaled = {key: share**2 * found[key] for key in ("kid", "standard_error")}
        rows.append(found | scaled | {"law": f"{found['law']} in {share:.0%}"})
    return laws, pd.DataFrame(rows)


def _measure(kernel: Kernel, real: Floats, wrong: Floats, law: str) -> dict[str, Any]:
    """KID where every picture is wrong."""
    return truth_row("I", law, pool_kid(kernel, real, wrong))
