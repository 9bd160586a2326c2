"""The study's runs on a tiny cohort: base, methods, images; what is reused and what is refused."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fairdiff_lib.data.cohort import Cohort, read_cohort
from fairdiff_lib.disk.files import locked, read_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.model import pipeline as diffusion
from fairdiff_lib.model import sample as imaging
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import Settings, load_settings
from fairdiff_lib.sim.simulate import simulate_fairgenmed
from fairdiff_lib.studies import pipeline
from fairdiff_lib.train import runs as training

DATASET = "fairgenmed_simulated"


@dataclasses.dataclass(frozen=True)
class Place:
    settings: Settings
    layout: Places
    cohort: Cohort


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("study")
    settings = load_settings("smoke", DATASET)
    layout = Places(settings, runs_root=str(root / "runs"), figures_root=str(root / "figures"))
    simulate_fairgenmed(settings.simulator, layout.data)
    cohort = read_cohort(DATASET, layout.data)
    training.train_base(settings, layout, cohort)
    training.train_method(settings, layout, cohort, "none", 0)
    return Place(settings, layout, cohort)


def unet_of(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(
        folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    )
    return weights


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_method_moves_the_unet_and_nothing_else(place: Place) -> None:
    base, tuned = place.layout.base, place.layout.run("none", 0)
    assert not same(unet_of(base), unet_of(tuned))
    for part, name in (("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        files = [load_file(f / "pipeline" / part / f"{name}.safetensors") for f in (base, tuned)]
        assert same(*files), part


def test_every_method_starts_from_the_same_base(place: Place) -> None:
    """One step at learning rate zero leaves each method at the base's own weights."""
    still = dataclasses.replace(
        place.settings.training, steps=1, learning_rate=0.0, weight_decay=0.0, ema_decay=0.0
    )
    own = dataclasses.replace(
        place.settings,
        training=still,
        mitigation=dataclasses.replace(place.settings.mitigation, time_window=1),
    )
    layout = dataclasses.replace(place.layout, settings=own)
    for method in ("none", "random", "fairdiffusion"):
        training.train_method(own, layout, place.cohort, method, 0)
        assert same(unet_of(layout.run(method, 0)), unet_of(place.layout.base)), method


def test_latent_scale_is_that_of_the_training_latents(place: Place) -> None:
    pipeline = diffusion.load_pipeline(place.layout.base / "pipeline")
    latents = load_file(place.layout.base / "latents.safetensors")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(latents["mean"].shape, generator=generator)
    drawn = (latents["mean"] + latents["std"] * noise) * pipeline.vae.config.scaling_factor
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.02)
    assert len(drawn) == len(place.cohort.included().split("train"))


def test_a_finished_run_says_what_it_was_and_cost(place: Place) -> None:
    run = read_json(place.layout.run("none", 0) / "run.json")
    assert (run["method"], run["seed"]) == ("none", 0)
    assert run["images_seen"] == place.settings.training.steps * place.settings.training.batch
    assert run["seconds_per_step"] > 0 and run["peak_memory_gib"] > 0
    assert run["stamp"]["data_hash"] == place.cohort.data_hash
    assert not (place.layout.run("none", 0) / "work").exists()


def test_a_base_of_other_data_is_refused(place: Place) -> None:
    with pytest.raises(InputError, match=r"trained on data .* this cohort is 0000"):
        training.load_base(place.layout, "0" * 64)


def test_a_local_pipeline_can_be_the_base(place: Place) -> None:
    """`model.pretrained`: the way of the paper preset, on a small local folder."""
    folder = str(place.layout.base / "pipeline")
    model = dataclasses.replace(place.settings.model, pretrained=folder)
    own = dataclasses.replace(place.settings, model=model)
    layout = dataclasses.replace(place.layout, settings=own)
    training.train_base(own, layout, place.cohort)
    assert same(unet_of(layout.base), unet_of(place.layout.base))
    training.train_method(own, layout, place.cohort, "none", 0)
    assert same(unet_of(layout.run("none", 0)), unet_of(place.layout.run("none", 0)))


def test_a_pretrained_model_refuses_a_size_it_cannot_have(place: Place) -> None:
    pipeline = diffusion.load_pipeline(place.layout.base / "pipeline")
    with pytest.raises(InputError, match="multiple of 8 pixels"):
        diffusion.set_image_size(pipeline, 30)


def test_generation_continues_and_repeats(place: Place) -> None:
    table = place.cohort.included().split("test").table.head(6)
    names, prompts = table["image"].tolist(), table["prompt"].tolist()
    folder = place.layout.generated("none", 0)

    def make() -> int:
        return diffusion.generate(place.settings, place.layout, names, prompts, "none", 0, "test")

    assert make() == 6
    first = diffusion.load_generated(folder, "test")
    lost = folder / "test" / f"{names[2]}.png"
    lost.unlink()
    with pytest.raises(InputError, match=f"1 of 6 generated images missing .{names[2]}"):
        diffusion.load_generated(folder, "test")
    assert make() == 1
    again = diffusion.load_generated(folder, "test")
    assert np.abs(first.astype(int) - again).max() <= 1
    assert make() == 0


def test_a_broken_generated_image_is_named(place: Place) -> None:
    table = place.cohort.included().split("val").table.head(2)
    names = table["image"].tolist()
    diffusion.generate(
        place.settings, place.layout, names, table["prompt"].tolist(), "none", 0, "val"
    )
    path = place.layout.generated("none", 0) / "val" / f"{names[1]}.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=f"{names[1]}.png: not readable"):
        diffusion.load_generated(path.parents[1], "val")


def test_the_encoder_is_made_once_and_on_the_same_threads_by_any_job(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    fit = imaging.fit_classifier

    def fitted(*arguments: Any, **options: Any) -> Any:
        made.append(torch.get_num_threads())
        return fit(*arguments, **options)

    monkeypatch.setattr(imaging, "fit_classifier", fitted)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(2):
            imaging.load_encoder(place.settings, place.layout, place.cohort)
        assert made == [imaging.THREADS] and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_run_that_another_job_trains_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An arm of the ablation and a run of the study may be one and the same folder."""
    settings, layout, cohort = place.settings, place.layout, place.cohort
    folder, entered, trained = layout.run("random", 0), threading.Event(), []
    train = training.train_method

    def slowly(*arguments: Any) -> Path:
        entered.set()
        trained.append(arguments[-2:])
        return train(*arguments)

    monkeypatch.setattr(training, "train_method", slowly)
    jobs = [
        threading.Thread(target=pipeline.train, args=(settings, layout, cohort, "random", 0))
        for _ in range(2)
    ]
    with locked(folder.with_name(f"{folder.name}.lock")):
        for job in jobs:
            job.start()
        assert not entered.wait(0.5)
    for job in jobs:
        job.join()
    assert trained == [("random", 0)] and (folder / "run.json").is_file()
