"""From prompts and seeds to images: a batch of them, a resumable folder of them, a gallery."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from fairdiff_lib.disk.files import atomic_file, read_table, write_table
from fairdiff_lib.model.device import arrange, autocast, check_precision, first_only, processes
from fairdiff_lib.model.loss import seed_for
from fairdiff_lib.model.pipeline import (
    adapter_of,
    at_once,
    embed_prompts,
    load_pipeline,
    to_images,
)
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.study import Study

SCHEDULERS = {  # a sampler's name -> its class in diffusers
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
}
PIPELINES = {"ema": "pipeline", "raw": "pipeline_raw"}  # of a run, by generation.weights
ALONE_ABOVE = 128  # pixels: a larger image is decoded alone, SD 2.1's at 512 in about a gibibyte
SAMPLES = 5  # per row of the prompt gallery


def set_scheduler(pipeline: Any, name: str) -> None:
    """Give the pipeline a sampler by name, with its own noise schedule kept."""
    import diffusers

    refuse_unknown("generation.scheduler", name, SCHEDULERS)
    config = dict(pipeline.scheduler.config)
    options = {"algorithm_type": "dpmsolver++"} if name == "dpmsolver++" else {}
    pipeline.scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(config, **options)


@torch.no_grad()
def sample(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float,
    scheduler: str = "dpmsolver++",
    precision: str = "no",
) -> np.ndarray:
    """One image per prompt, uint8 [N, 3, H, W], each from a generator of its own seed.

    In ``steps`` denoising steps, with classifier-free guidance (1 = none), a sampler of
    :data:`SCHEDULERS`, and the networks' passes in a precision: no, fp16 or bf16.
    """
    check_precision(precision, "generation.")
    set_scheduler(pipeline, scheduler)
    generators = [torch.Generator("cpu").manual_seed(s) for s in seeds]
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    # between steps latents stay float32; the samplers would take the prediction's precision over
    whole = pipeline.unet.register_forward_hook(lambda _, __, made: (made[0].float(),))
    try:
        with autocast(precision):
            output = pipeline(
                **_asked(pipeline, prompts, guidance),
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                height=size,
                width=size,
                output_type="latent",
            )
            latents = output.images / pipeline.vae.config.scaling_factor
            parts = [pipeline.vae.decode(own).sample for own in latents.split(at_once(size**2))]
    finally:
        whole.remove()
    pixels = pipeline.image_processor.postprocess(torch.cat(parts), "pt")
    return to_images(pixels * 2.0 - 1.0)


def text_of(pipeline: Any, prompts: Sequence[str], guidance: float) -> Tensor:
    """What the U-Net's cross-attention sees: with guidance the empty prompt's N rows come first.

    Float32 [2 N, L, D] with guidance, [N, L, D] without; an adapter is told of the groups.
    """
    told = _asked(pipeline, prompts, guidance)
    device, guided = pipeline.unet.device, guidance > 1.0
    asked, nothing = pipeline.encode_prompt(told.pop("prompt", None), device, 1, guided, **told)
    return torch.cat([nothing, asked]) if guided else asked


def _asked(pipeline: Any, prompts: Sequence[str], guidance: float) -> dict[str, Any]:
    """The pipeline's arguments for prompts: themselves, or what an adapter makes of them."""
    adapter = adapter_of(pipeline)
    if adapter is None:
        return {"prompt": list(prompts)}
    device = pipeline.unet.device
    adapter.to(device)
    shown, codes = adapter.look_up(prompts)
    features, row = (part.to(device) for part in embed_prompts(pipeline, shown))
    codes, nobody = codes.to(device), torch.full_like(codes, -1, device=device)
    # with guidance, diffusers puts the unconditional half of the batch first
    adapter.select(torch.cat([nobody, codes]) if guidance > 1.0 else codes)
    return {
        "prompt_embeds": adapter.text(features[row], codes),
        "negative_prompt_embeds": adapter.text(features[torch.zeros_like(row)], nobody),
    }


def sample_as_set(
    study: Study, pipeline: Any, prompts: Sequence[str], seeds: Sequence[int]
) -> np.ndarray:
    """:func:`sample` with the study's own steps, guidance and scheduler."""
    own = study.settings.generation
    shared: dict[str, Any] = {"guidance": own.guidance, "scheduler": own.scheduler}
    shared["precision"] = own.mixed_precision
    return sample(pipeline, prompts, seeds, steps=own.steps, **shared)


# -- the images of a run ---------------------------------------------------------------------


def load_run(study: Study, method: str, seed: int) -> Any:
    """The pipeline of a finished run, on the accelerator where there is one.

    Its U-Net holds the weights that ``generation.weights`` names (P7).
    """
    folder, weights = study.places.run(method, seed), study.settings.generation.weights
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: no finished run of {method}, seed {seed}; run 03_train first")
    place = folder / PIPELINES[weights]
    if not place.is_dir():
        raise InputError(f"{place}: this run kept no {weights} weights; remove it and train again")
    pipeline, machine = load_pipeline(place), study.settings.machine
    if study.settings.model.image_size > ALONE_ABOVE:
        pipeline.vae.enable_slicing()  # one image through the decoder at a time
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        arrange(part, replace(machine, compile=machine.compile and part is pipeline.unet))
    return pipeline


def generate(
    study: Study,
    names: Sequence[str],
    prompts: Sequence[str],
    method: str,
    seed: int,
    split: str,
    root: Path | None = None,
) -> int:
    """Write one PNG per name under ``places.generated(method, seed)/<split>``; how many were new.

    Processes that work together share the names (unique within the split; "test" images are for
    quality, "train" images for classifiers); an image depends on its own name alone. Another
    ``root`` is for some of a split's rows, whose manifest must not replace the whole one; the noise
    is the same there.
    """
    folder = (root or study.places.generated(method, seed)) / split
    # methods share an image's first noise; other images and batches don't matter to it
    seeds = [seed_for(study.settings.generation.seed, seed, split, name) for name in names]
    with first_only() as first:
        if first:
            table = pd.DataFrame({"image": names, "prompt": prompts, "seed": seeds})
            write_table(table, folder / "manifest.csv")
    missing = [row for row, name in enumerate(names) if not (folder / f"{name}.png").is_file()]
    together = processes()
    together.wait_for_everyone()  # all have looked before the first image is written
    todo = missing[together.process_index :: together.num_processes]
    pipeline = load_run(study, method, seed) if todo else None
    label, batch = f"{method}, seed {seed}, {split} prompts", study.settings.generation.batch
    with tqdm(total=len(todo), desc=label, disable=None if todo else True, mininterval=2.0) as bar:
        for start in range(0, len(todo), batch):
            rows = todo[start : start + batch]
            own = [prompts[row] for row in rows], [seeds[row] for row in rows]
            for row, image in zip(rows, sample_as_set(study, pipeline, *own), strict=True):
                with atomic_file(folder / f"{names[row]}.png") as temporary:
                    Image.fromarray(image.transpose(1, 2, 0)).save(temporary, format="PNG")
            bar.update(len(rows))
    together.wait_for_everyone()
    return len(missing)


def generate_run(study: Study, method: str, seed: int) -> pd.DataFrame:
    """Images for the test and the training prompts, and the gallery: split, images, new, seconds.

    Images that are there are kept; ``new`` are those made in this call.
    """
    rows = []
    for split in ("test", "train"):
        table, started = study.cohort.included().split(split).table, time.perf_counter()
        asked = table["image"].tolist(), table["prompt"].tolist()
        new = generate(study, *asked, method, seed, split)
        seconds = time.perf_counter() - started
        rows.append({"split": split, "images": len(table), "new": new, "seconds": seconds})
    gallery_images(study, method, seed)
    return pd.DataFrame(rows)


def load_generated(folder: Path, split: str, wanted: Sequence[str] = ()) -> np.ndarray:
    """Images of :func:`generate`, uint8 [N, 3, H, W], in the order in which they were asked for.

    ``wanted`` are names that must be there, in this order; without them those of the manifest.
    """
    here = folder / split
    listed = read_table(here / "manifest.csv", ("image",), dtype=str)["image"].tolist()
    known, names = set(listed), list(wanted) or listed
    missing = [n for n in names if n not in known or not (here / f"{n}.png").is_file()]
    if missing:
        shown = ", ".join(missing[:3])
        raise InputError(
            f"{here}: {len(missing)} of {len(names)} generated images missing "
            f"({shown}{', ...' if len(missing) > 3 else ''}); run 04_generate again"
        )
    images = []
    for name in names:
        path = here / f"{name}.png"
        try:
            with Image.open(path) as opened:
                images.append(np.asarray(opened.convert("RGB")).transpose(2, 0, 1))
        except OSError as error:
            raise InputError(f"{path}: not readable as a PNG image") from error
    return np.stack(images)


def gallery_images(study: Study, method: str, seed: int) -> np.ndarray:
    """Prompt gallery of a run: one condition changes at a time, a column keeps its noise.

    uint8 [R, SAMPLES, 3, H, W], in the order of ``Cohort.gallery_rows``.
    """
    path = study.places.generated(method, seed) / "gallery.npy"
    if path.is_file():
        found: np.ndarray = np.load(path, allow_pickle=False)
        return found
    profile, spec = study.cohort.usual_profile(), study.cohort.spec
    prompts = [spec.prompt(profile | {name: level}) for name, level in study.cohort.gallery_rows()]
    seeds = [seed_for(study.settings.generation.seed, f"gallery-{j}") for j in range(SAMPLES)]
    with first_only() as first:
        if first:
            pipeline = load_run(study, method, seed)
            rows = [sample_as_set(study, pipeline, [prompt] * SAMPLES, seeds) for prompt in prompts]
            with atomic_file(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, np.stack(rows), allow_pickle=False)
    images: np.ndarray = np.load(path, allow_pickle=False)
    return images
