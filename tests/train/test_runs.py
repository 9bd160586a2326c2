"""The study's runs on a tiny cohort: base, methods, images; what is reused and what is refused."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fairdiff_lib.classify import runs as downstream_runs
from fairdiff_lib.disk.files import locked, read_json, write_json
from fairdiff_lib.model.pipeline import load_pipeline, set_image_size
from fairdiff_lib.model.sample import generate, load_generated
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.study import Study
from fairdiff_lib.train import runs as training


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A smoke study whose base and baseline are trained."""
    root = tmp_path_factory.mktemp("study")
    made = Study.open("smoke", runs_root=str(root / "runs"), figures_root=str(root / "figures"))
    training.train(made, "none", 0)
    return made


def changed(study: Study, **changes: Any) -> Study:
    return study.with_settings(dataclasses.replace(study.settings, **changes))


def unet_of(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(
        folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    )
    return weights


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_method_moves_the_unet_and_nothing_else(study: Study) -> None:
    base, tuned = study.places.base, study.places.run("none", 0)
    assert not same(unet_of(base), unet_of(tuned))
    for part, name in (("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        paths = [f / "pipeline" / part / f"{name}.safetensors" for f in (base, tuned)]
        assert same(*map(load_file, paths)), part
        assert paths[0].samefile(paths[1]), "stored once"


def test_what_a_method_leaves_as_it_was_is_stored_once(study: Study) -> None:
    base, tuned = study.places.base, study.places.run("none", 0)
    for part, name in (("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        own = f"{part}/{name}.safetensors"
        kept = (base / "pipeline" / own).stat()
        assert kept.st_nlink == 3  # the base's, and the run's two pipelines
        assert (tuned / "pipeline_raw" / own).stat().st_ino == kept.st_ino
    own = "unet/diffusion_pytorch_model.safetensors"
    assert (tuned / "pipeline" / own).stat().st_nlink == 1


def test_a_base_knows_every_prompt_of_its_data_set(study: Study) -> None:
    """Not only those of the patients that it was trained on."""
    tokenizer = load_pipeline(study.places.base / "pipeline").tokenizer
    asked = study.cohort.spec.every_prompt()
    assert set(study.cohort.included().table["prompt"]) < set(asked)
    for word in {w for prompt in asked for w in re.findall(r"[a-z]+", prompt.lower())}:
        assert len(tokenizer(word)["input_ids"]) == 3, word
    longest = max(len(ids) for ids in tokenizer(asked)["input_ids"])
    assert longest <= tokenizer.model_max_length


def test_every_method_starts_from_the_same_base(study: Study) -> None:
    """One step at learning rate zero leaves each method at the base's own weights."""
    still = dataclasses.replace(
        study.settings.training, steps=1, learning_rate=0.0, weight_decay=0.0, ema_decay=0.0
    )
    own = changed(
        study,
        training=still,
        mitigation=dataclasses.replace(study.settings.mitigation, time_window=1),
    )
    for method in ("none", "random", "fairdiffusion"):
        assert same(unet_of(training.train_method(own, method, 0)), unet_of(own.places.base))


def test_latent_scale_is_that_of_the_training_latents(study: Study) -> None:
    pipeline = load_pipeline(study.places.base / "pipeline")
    latents = load_file(study.places.base / "latents.safetensors")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(latents["mean"].shape, generator=generator)
    drawn = (latents["mean"] + latents["std"] * noise) * pipeline.vae.config.scaling_factor
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.02)
    assert len(drawn) == len(study.cohort.included().split("train"))


def test_a_finished_run_says_what_it_was_and_cost(study: Study) -> None:
    run = read_json(study.places.run("none", 0) / "run.json")
    assert (run["method"], run["seed"]) == ("none", 0)
    assert run["images_seen"] == study.settings.training.steps * study.settings.training.batch
    assert run["seconds_per_step"] > 0 and run["peak_memory_gib"] > 0
    assert run["stamp"]["data_hash"] == study.cohort.data_hash
    assert not (study.places.run("none", 0) / "work").exists()


def test_a_base_of_other_data_is_refused(study: Study, tmp_path: Path) -> None:
    other = Study.open("smoke", runs_root=str(tmp_path))
    write_json(other.places.base / "run.json", {"stamp": {"data_hash": "0" * 64}})
    with pytest.raises(InputError, match=r"trained on data 0000.* this cohort is "):
        training.load_base(other, 0)


def test_a_seed_may_have_a_base_of_its_own(study: Study) -> None:
    """A complete run: U-Net and text encoder anew from its seed, the autoencoder shared."""
    own = changed(study, base_per_seed=True, seeds=(0, 1))
    facts = training.train(own, "none", 1).facts
    places, base = own.places, own.places.base_of(1)
    assert base != places.base == places.base_of(0) == study.places.base_of(1)
    assert places.run("none", 0) == study.places.run("none", 0)  # found again
    assert places.run("none", 1) != study.places.run("none", 1)
    for part, name, alike in (("vae", "diffusion_pytorch_model", True),
                              ("text_encoder", "model", False)):  # fmt: skip
        paths = [f / "pipeline" / part / f"{name}.safetensors" for f in (places.base, base)]
        assert same(*map(load_file, paths)) == alike == paths[0].samefile(paths[1])
    assert not same(unet_of(base), unet_of(places.base))
    assert not same(unet_of(base), unet_of(places.run("none", 1)))
    rests = [f"runs/{own.settings.dataset}/{f.name}/run.json" for f in (base, places.base)]
    assert list(facts["rests_on"]) == rests[:1]
    kept = read_json(base / "run.json")
    assert kept["seed"] == 1 and rests[1] in kept["rests_on"]
    assert training.train(own, "base", 1).facts == kept
    still = dataclasses.replace(own.settings.training, steps=1, learning_rate=0.0,
                                weight_decay=0.0, ema_decay=0.0)  # fmt: skip
    unmoved = changed(own, training=still)
    assert same(unet_of(training.train_method(unmoved, "none", 1)), unet_of(base))


def test_a_local_pipeline_can_be_the_base(study: Study) -> None:
    """`model.pretrained`: the way of the paper preset, on a small local folder."""
    folder = str(study.places.base / "pipeline")
    own = changed(study, model=dataclasses.replace(study.settings.model, pretrained=folder))
    assert same(unet_of(training.train_base(own)), unet_of(study.places.base))
    training.train_method(own, "none", 0)
    assert same(unet_of(own.places.run("none", 0)), unet_of(study.places.run("none", 0)))
    with pytest.raises(InputError, match="one base that all seeds share"):
        changed(own, base_per_seed=True)


def test_a_pretrained_model_refuses_a_size_it_cannot_have(study: Study) -> None:
    pipeline = load_pipeline(study.places.base / "pipeline")
    with pytest.raises(InputError, match="multiple of 8 pixels"):
        set_image_size(pipeline, 30)


def test_generation_continues_and_repeats(study: Study) -> None:
    table = study.cohort.included().split("test").table.head(6)
    names, prompts = table["image"].tolist(), table["prompt"].tolist()
    folder = study.places.generated("none", 0)

    def make() -> int:
        return generate(study, names, prompts, "none", 0, "test")

    assert make() == 6
    first = load_generated(folder, "test")
    lost = folder / "test" / f"{names[2]}.png"
    lost.unlink()
    with pytest.raises(InputError, match=f"1 of 6 generated images missing .{names[2]}"):
        load_generated(folder, "test")
    assert make() == 1
    again = load_generated(folder, "test")
    assert np.abs(first.astype(int) - again).max() <= 1
    assert make() == 0


def test_a_broken_generated_image_is_named(study: Study) -> None:
    table = study.cohort.included().split("val").table.head(2)
    names = table["image"].tolist()
    generate(study, names, table["prompt"].tolist(), "none", 0, "val")
    path = study.places.generated("none", 0) / "val" / f"{names[1]}.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=f"{names[1]}.png: not readable"):
        load_generated(path.parents[1], "val")


def test_the_reader_is_made_once_and_on_one_thread_by_any_job(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    fit = downstream_runs.fit_classifier

    def fitted(*arguments: Any, **options: Any) -> Any:
        made.append(torch.get_num_threads())
        return fit(*arguments, **options)

    monkeypatch.setattr(downstream_runs, "fit_classifier", fitted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(2):
            downstream_runs.load_reader(study)
        assert made == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_run_that_another_job_trains_is_waited_for(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An arm of the ablation and a run of the study may be one and the same folder."""
    folder, entered, trained = study.places.run("random", 0), threading.Event(), []
    train = training.train_method

    def slowly(*arguments: Any) -> Path:
        entered.set()
        trained.append(arguments[-2:])
        return train(*arguments)

    monkeypatch.setattr(training, "train_method", slowly)
    jobs = [threading.Thread(target=training.train, args=(study, "random", 0)) for _ in range(2)]
    with locked(folder.with_name(f"{folder.name}.lock")):
        for job in jobs:
            job.start()
        assert not entered.wait(0.5)
    for job in jobs:
        job.join()
    assert trained == [("random", 0)] and (folder / "run.json").is_file()


def test_training_loads_no_figures() -> None:
    """Nothing in show can stop a training; a fresh interpreter says what is imported."""
    script = (
        "import sys, fairdiff_lib.train.runs, fairdiff_lib.train.__main__\n"
        "rooms = ('show', 'studies', 'run', 'classify')\n"
        "ours = tuple(f'fairdiff_lib.{room}' for room in rooms)\n"
        "theirs = ('matplotlib', 'IPython', 'seaborn')\n"
        "print([name for name in sys.modules if name.startswith(ours) or name in theirs])\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("method", ["none", "fairdiffusion", "fair_lora"])
def test_steps_in_the_open_are_the_librarys(study: Study, method: str) -> None:
    """What notebook 03 shows: the same losses to the last bit."""
    begun, loop, losses = training.start(study, method, 0), study.settings.training, []
    options = {"betas": loop.betas, "weight_decay": loop.weight_decay, "fused": True}
    optimiser = torch.optim.AdamW(begun.module.parameters(), **options)  # type: ignore[arg-type]
    for step, batch in enumerate(begun.batches(5)):
        z, noise, t, prompt = batch.inputs
        abar = begun.objective.scheduler.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        noisy, v = (abar**0.5 * a + b * (1 - abar) ** 0.5 for a, b in ((z, noise), (noise, -z)))
        own = (begun.module(noisy, t, prompt).sample - v).square().flatten(1).mean(dim=1)
        weights = begun.method.weights(own.detach(), batch.levels, step)
        (weights.float() * own).mean().backward()
        torch.nn.utils.clip_grad_norm_(begun.module.parameters(), loop.clip_norm)
        begun.update(optimiser, step)
        begun.method.observe(own.detach(), batch.levels, step, t)
        losses.append(own.mean().item())
    assert losses == training.train(study, method, 0).facts["first_losses"]


def history() -> pd.DataFrame:
    rows = [
        ("training", step, "loss", attribute, level, float(step))
        for step in range(1, 21)
        for attribute, level in (("", ""), ("sex", "Female"))
    ]
    rows += [("training", 20, "seconds", "", "", 99.0)]
    columns = ["stage", "step", "quantity", "attribute", "level", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_last_losses_are_of_the_last_tenth() -> None:
    table = training.Run(history(), {}).last_losses()
    assert table["value"].tolist() == [19.5, 19.5]  # steps 19 and 20
    assert table["level"].tolist() == ["all", "Female"]


def test_training_scalars_take_the_first_and_the_last_loss() -> None:
    facts = dict.fromkeys(training.COSTS, 1.0)
    scalars = training.Run(history(), facts).scalars()
    assert (scalars["first_loss"], scalars["last_loss"]) == (1.0, 20.0)
    assert scalars["seconds"] == 1.0
