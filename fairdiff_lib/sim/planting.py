"""What the simulators share: who fills which place, checks of the knobs, files, and the truth."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import atomic_folder, write_json
from fairdiff_lib.settings.options import Population, as_dict

T = TypeVar("T")

_WORTH_PROCESSES = 200  # subjects; starting processes takes as long as drawing some of them
# irrational steps, and the position at which the first level begins
_STEPS = ((math.sqrt(5) - 1) / 2, math.sqrt(2) - 1, math.sqrt(3) - 1, math.sqrt(7) - 2)
_FIRST = (5, 12, 3, 8)


def spread(index: int) -> list[float]:
    """Four numbers in [0, 1), each filling the interval evenly as ``index`` grows.

    Rotations by irrational numbers: every prefix has its groups in proportion, to within 3
    subjects up to 6,000, so a small group is never missing by chance and a larger cohort keeps
    the subjects of a smaller one. Who fills a place is random; the places are not.
    """
    return [((index - k) * step) % 1.0 for step, k in zip(_STEPS, _FIRST, strict=True)]


def choose(uniform: float, levels: Sequence[str], shares: Sequence[float]) -> str:
    """Level at a quantile of a discrete distribution."""
    for level, bound in zip(levels, np.cumsum(shares).tolist(), strict=True):
        if uniform < bound:
            return level
    return levels[-1]


def between(uniform: float, bounds: tuple[float, float]) -> float:
    """A uniform number of [0, 1) carried to an interval."""
    return bounds[0] + uniform * (bounds[1] - bounds[0])


def clipped(value: float, low: float, high: float) -> float:
    """``value`` within its bounds."""
    return min(max(value, low), high)


def factors(config: Population, levels: dict[str, str]) -> tuple[float, float]:
    """Difficulty and heterogeneity of a subject: over its levels, the product of each."""
    own = [config.knobs.get(item, (1.0, 1.0)) for item in levels.items()]
    return math.prod(d for d, _ in own), math.prod(h for _, h in own)


def write_each(write: Callable[..., None], subjects: Sequence[T], *rest: Any) -> None:
    """Call ``write(subject, *rest)`` for each, by as many processes as OMP_NUM_THREADS says."""
    workers = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    if len(subjects) < _WORTH_PROCESSES:
        workers = 1
    jobs = (delayed(write)(subject, *rest) for subject in subjects)
    done = Parallel(n_jobs=workers, return_as="generator")(jobs)
    for _ in tqdm(done, total=len(subjects), desc="simulate", disable=None):
        pass


@contextmanager
def simulated_folder(
    root: Path, config: Population, truth: Sequence[dict[str, object]]
) -> Iterator[Path]:
    """A folder to fill; with truth.csv and simulated.json it appears whole or not at all."""
    with atomic_folder(root) as folder:
        yield folder
        pd.DataFrame(truth).to_csv(folder / "truth.csv", index=False)
        write_json(folder / "simulated.json", {"simulated": True, "simulator": as_dict(config)})


def flat(drawn: Any) -> dict[str, object]:
    """Fields of what was drawn, for truth.csv: a pair as _x and _y, a colour as its channels."""
    values = dataclasses.asdict(drawn)
    for name in [name for name, value in values.items() if isinstance(value, tuple)]:
        parts = values.pop(name)
        ends = ("x", "y") if len(parts) == 2 else ("red", "green", "blue")
        values |= {f"{name}_{end}": part for end, part in zip(ends, parts, strict=True)}
    return values


def planted_table(config: Population | None) -> pd.DataFrame:
    """The simulator's settings, one per row; no row without one."""
    values = as_dict(config) if config is not None else {}
    return pd.DataFrame({"setting": list(values), "value": list(values.values())}, dtype=object)
