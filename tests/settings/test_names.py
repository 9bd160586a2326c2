"""What readers call things: no name of the code, and no wrong one put together from its parts."""

from __future__ import annotations

from fairdiff_lib.datasets import DATASETS
from fairdiff_lib.settings.names import level_name, name_of


def test_what_a_ruler_measures_is_no_ratio_of_levels() -> None:
    assert name_of("auc_ratio") == "AUC: largest over smallest level"
    assert name_of("cup_disc_ratio") == "Cup-disc ratio"
    rulers = [entry.ruler for entry in DATASETS.values() if entry.ruler is not None]
    assert rulers and not [one.mean for one in rulers if "level" in name_of(one.mean)]


def test_a_level_names_its_attribute_and_all_levels_are_the_attribute_itself() -> None:
    assert level_name("sex", "Male") == "Sex: Male"
    assert level_name("sex", "all") == "Sex"
    assert level_name("overall", "all") == "All"
