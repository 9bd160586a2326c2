"""Methods as entries: every name that one gives exists, and a run depends on nothing unused."""

from __future__ import annotations

import dataclasses

import pytest

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS, Method, config_of, fields_of, source_runs
from fairdiff_lib.settings.options import MitigationConfig

FIELDS = {field.name for field in dataclasses.fields(MitigationConfig)}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", METHODS)
def test_an_entry_names_only_what_there_is(name: str) -> None:
    entry = METHODS[name]
    assert {*entry.uses, *entry.options} <= FIELDS
    assert {*entry.sources, *entry.against} <= set(METHODS) - {name}
    assert config_of(name, MitigationConfig()) == dataclasses.replace(
        MitigationConfig(), **entry.options
    )


def test_a_method_sees_the_default_of_what_it_does_not_use() -> None:
    odd = MitigationConfig(febs_gamma=3.0, dro_rate=0.5, time_window=7)
    assert config_of("febs", odd) == MitigationConfig(febs_gamma=3.0, time_window=7)
    assert fields_of("random_sigma")[:2] == ("time_window", "clamp")  # then its source's


def test_a_replayed_path_is_the_next_seeds() -> None:
    assert source_runs("replay", 0, (0, 1, 2)) == [("fairdiffusion", 1)]
    assert source_runs("replay", 2, (0, 1, 2)) == [("fairdiffusion", 0)]
    assert source_runs("replay", 0, (0,)) == []


def test_a_method_from_outside_is_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown method 'toy'"):
        load_settings("smoke", overrides={"methods": "none,toy"})
    monkeypatch.setitem(METHODS, "toy", Method(uses=("dro_rate",)))
    assert load_settings("smoke", overrides={"methods": "none,toy"}).methods == ("none", "toy")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("none,random_sigma", "reads finished runs of fairdiffusion; methods lacks"),
        ("none,fairdiffusion,replay", "reads the run of another seed"),
    ],
)
def test_methods_that_have_nothing_to_read_are_refused(overrides: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_settings("smoke", overrides={"methods": overrides})
