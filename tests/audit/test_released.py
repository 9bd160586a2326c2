"""What the released procedures do: each fault is shown, and none is a default."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairdiff_lib.audit import quality, released
from fairdiff_lib.audit.estimate import difference
from fairdiff_lib.audit.estimators import mean_of_rows
from fairdiff_lib.settings.errors import InputError


def test_p_of_the_released_t_test_shrinks_with_the_number_of_replicates() -> None:
    """Fault E3: the same subjects, no real difference; only the computer works longer."""
    values = np.random.default_rng(0).normal(size=200)
    first, second = np.arange(60), np.arange(60, 200)

    def p(replicates: int) -> float:
        return released.replicate_t_test_as_released(
            lambda rows: float(values[rows].mean()), first, second, replicates
        )[1]

    unit = np.arange(200)
    honest = difference(*(mean_of_rows(values, unit, np.isin(unit, r)) for r in (first, second)))
    assert honest.p_value() > 0.2
    assert p(2000) < p(200) < 0.05
    assert p(2000) < 1e-6


def test_its_difference_is_that_of_the_sample() -> None:
    values = np.random.default_rng(1).normal(size=100)
    found, _ = released.replicate_t_test_as_released(
        lambda rows: float(values[rows].mean()), np.arange(40), np.arange(40, 100), 500
    )
    assert found == pytest.approx(values[:40].mean() - values[40:].mean(), abs=0.03)  # sd 0.009
    with pytest.raises(InputError, match="needs at least 2"):
        released.replicate_t_test_as_released(len, np.arange(3), np.arange(3), 1)


def looks(values: list[float], selected: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"step": range(len(values)), "condition": "c", "metric": "auc", "n": 50, "value": values}
    ).assign(selected=lambda table: table["step"] == selected)


def test_choosing_the_epoch_by_the_test_images_flatters() -> None:
    """Fault E4: of ten equally good looks the best is above the one that validation chose."""
    rng = np.random.default_rng(2)
    gains = []
    for _ in range(100):
        found = released.best_test_epoch_as_released(looks(list(rng.normal(0.8, 0.02, 10)), 4))
        gains.append(found.set_index("metric").loc[released.GAIN, "value"])
    assert min(gains) >= 0
    assert np.mean(gains) > 0.02
    rows = released.best_test_epoch_as_released(looks([0.6, 0.9, 0.7], 2)).set_index("metric")
    assert rows.loc[released.BEST_TEST_EPOCH, "value"] == 0.9
    assert rows.loc[released.GAIN, "value"] == pytest.approx(0.2)


def test_looks_without_the_selected_step_are_refused() -> None:
    with pytest.raises(InputError, match="looks of c: expected one at the selected step"):
        released.best_test_epoch_as_released(looks([0.6, 0.9], 7))
    assert len(released.best_test_epoch_as_released(looks([], 0))) == 0


def test_ten_splits_cap_the_inception_score() -> None:
    """Fault E7: 36 perfectly sharp images of 36 classes cannot score above 4."""
    sharp = np.full((36, 36), 1e-9) + np.eye(36)
    sharp /= sharp.sum(axis=1, keepdims=True)
    assert quality.inception_score(sharp) == pytest.approx(36, rel=1e-3)
    assert released.inception_score_as_released(sharp) <= 4
    one = released.inception_score_as_released(sharp, splits=1)
    assert one == pytest.approx(quality.inception_score(sharp), rel=1e-6)
    with pytest.raises(InputError, match="9 images: expected at least 10"):
        released.inception_score_as_released(sharp[:9])
