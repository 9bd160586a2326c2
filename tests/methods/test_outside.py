"""A method from outside the library: one class and one entry, from the cohort to a finished run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairdiff_lib.methods import base
from fairdiff_lib.methods.base import Mitigation, register
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.methods import METHODS, NEUTRAL, Method
from fairdiff_lib.show.cards import write_model_card
from fairdiff_lib.show.style import look_of
from fairdiff_lib.study import Study
from fairdiff_lib.train import train


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry, for as long as a test runs."""
    monkeypatch.setattr(base, "CLASSES", dict(base.CLASSES))
    monkeypatch.setitem(METHODS, "toy", Method())


@pytest.fixture
def toy(known: None) -> type[Mitigation]:
    """The first attribute's first level counts twice, from the second step on."""

    @register("toy")
    class Toy(Mitigation):
        kept = ("factors",)

        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            self.factors = torch.ones(self.sizes[0], dtype=torch.float64)

        def weights(self, losses: Tensor, levels: Tensor, step: int) -> Tensor:
            return self.factors[levels[:, 0]]

        def observe(
            self, losses: Tensor, levels: Tensor, step: int, timesteps: Tensor | None = None
        ) -> dict[str, float]:
            self.factors[0] = 2.0
            return super().observe(losses, levels, step, timesteps)

    return Toy


def test_it_is_trained_and_found_again(toy: type[Mitigation], tmp_path: Path) -> None:
    study = Study.open("smoke", runs_root=str(tmp_path / "runs"))
    run = train(study, "toy", 0)
    assert run.facts["method"] == "toy" and (study.places.run("toy", 0) / "pipeline").is_dir()
    own = run.history[(run.history["quantity"] == "weight") & run.history["value"].notna()]
    first, others = study.cohort.spec.attributes[0].levels[0], own["attribute"] == "race"
    late = own[others & (own["step"] > 1)].groupby("level")["value"].mean()
    assert late[first] == 2.0 and set(late.drop(first)) == {1.0}
    assert set(own[own["step"] == 1]["value"]) == {1.0}
    card = write_model_card(study, study.places.run("toy", 0), "toy")
    assert "toy" in card.read_text(encoding="utf-8")
    assert (look_of("toy").label, look_of("toy").colour) == ("toy", NEUTRAL)
    again = train(study, "toy", 0)
    assert again.facts == run.facts
    plain = train(study, "none", 0)
    assert plain.facts["first_losses"][:2] == run.facts["first_losses"][:2]  # weights act after it
    assert plain.facts["first_losses"][2] != run.facts["first_losses"][2]


def test_what_it_keeps_outlives_a_kill(toy: type[Mitigation]) -> None:
    settings = Study.open("smoke").settings.mitigation
    attributes = {"race": ("Asian", "Black"), "sex": ("Female", "Male")}
    one, other = (base.make_method("toy", settings, attributes, 0, 1) for _ in range(2))
    one.observe(torch.ones(2), torch.zeros(2, 2, dtype=torch.int64), 0)
    other.load_state_dict(one.state_dict())
    assert other.factors.tolist() == [2.0, 1.0]  # type: ignore[attr-defined]


def test_an_entry_without_a_class_is_named(known: None) -> None:
    with pytest.raises(InputError, match=r"'toy' has an entry .* no class; expected @register"):
        base.make_method("toy", Study.open("smoke").settings.mitigation, {}, 0, 1)
