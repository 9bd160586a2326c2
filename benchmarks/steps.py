"""Training steps and images: the library against the usual way, turn by turn.

The usual way is written out here from diffusers' own ``train_text_to_image`` script and from the
order in which the released loop works. Both read, decode and flip each image, tokenise its prompt
and run VAE and text encoder in every step, in float32, with AdamW as torch makes it. The library's
loop is the real one; the other takes its step after each of the library's, so that whatever else
the machine does meets both. Times are those of the processor, or the wall clock on a GPU.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fairdiff_lib.methods.base import Mitigation, make_method
from fairdiff_lib.model import device
from fairdiff_lib.model import pipeline as model
from fairdiff_lib.model.loss import denoising_target, training_scheduler
from fairdiff_lib.model.sample import sample
from fairdiff_lib.run.doctor import build_random
from fairdiff_lib.settings.options import LoopConfig, MachineConfig, MitigationConfig
from fairdiff_lib.study import Study
from fairdiff_lib.train.loop import fit
from fairdiff_lib.train.runs import DenoisingObjective

PATIENTS = "simulator.train=96 simulator.val=24 simulator.test=24"
WARM = 3  # first steps, whose times are left out
PAIRS = (  # what is measured: method, the library's precision, and its opponent
    ("none", "no", "diffusers' script"),
    ("none", "bf16", "diffusers' script"),
    ("fairdiffusion", "no", "the released order of work"),
    ("fairdiffusion", "bf16", "the released order of work"),
)


@dataclass
class Problem:
    """A pipeline and what it is trained on; the images lie in a folder too."""

    pipeline: Any
    images: np.ndarray  # uint8 [N, 3, S, S]
    prompts: list[str]
    levels: np.ndarray  # int64 [N, A]
    attributes: dict[str, tuple[str, ...]]
    folder: Path


def make_problem(folder: Path, width: float = 0.0) -> Problem:
    """The quick preset's networks (width 0), or SD 2.1's at a width, on drawn fundus images."""
    study = Study.open("quick", "fairgenmed_simulated", PATIENTS, runs_root=str(folder))
    size = study.settings.model.image_size if width < 0.5 else 512
    train = study.cohort.included().split("train")
    prompts, images = train.table["prompt"].tolist(), train.load_images(size)
    for row, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{row}.png")
    if width:
        pipeline = build_random(prompts, width)
    else:
        pipeline = model.build_pipeline(study.settings.model, prompts, seed=0)
    levels = {a.name: a.levels for a in train.spec.attributes}
    return Problem(pipeline.to(device.device()), images, prompts, train.codes(), levels, folder)


def make(problem: Problem, name: str) -> Mitigation:
    """A method as a run of the study has it."""
    epoch = len(problem.images) // 32
    return make_method(name, MitigationConfig(), problem.attributes, 0, epoch)


# -- the library's loop ----------------------------------------------------------------------


def objective_of(problem: Problem) -> DenoisingObjective:
    """What a method's run minimises: latents and prompts are encoded once."""
    pipeline = problem.pipeline
    mean, std = model.encode_images(pipeline.vae, problem.images)
    module, text, rows = model.conditioning(pipeline, problem.prompts)
    scaling = pipeline.vae.config.scaling_factor
    return DenoisingObjective(
        copy.deepcopy(module), training_scheduler(pipeline), mean, std, scaling, text, rows
    )


# -- the usual way ---------------------------------------------------------------------------


class Usual:
    """A step as the usual scripts take it."""

    def __init__(self, problem: Problem, batch: int, method: Mitigation | None) -> None:
        self.problem, self.batch, self.method = problem, batch, method
        self.scheduler, self.done = training_scheduler(problem.pipeline), 0
        self.unet = copy.deepcopy(problem.pipeline.unet).train()
        self.optimiser = torch.optim.AdamW(self.unet.parameters(), lr=1e-5, weight_decay=1e-2)
        self.average = EMAModel(self.unet.parameters(), decay=0.9999)
        self.rng = np.random.default_rng(0)

    def read(self, row: int) -> Tensor:
        """An image of the disk, flipped by chance, float32 [3, S, S] in [-1, 1]."""
        with Image.open(self.problem.folder / f"{row}.png") as opened:
            pixels = np.asarray(opened.convert("RGB"))
        pixels = pixels[:, ::-1] if self.rng.random() < 0.5 else pixels
        return torch.as_tensor(pixels.transpose(2, 0, 1).copy()).float() / 127.5 - 1.0

    def step(self) -> float:
        """One optimiser step; its loss. Products in whole float32, as torch has them by itself."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            return self._step()
        finally:
            torch.set_float32_matmul_precision(before)

    def _step(self) -> float:
        pipeline, place = self.problem.pipeline, self.unet.device
        rows = self.rng.integers(len(self.problem.images), size=self.batch)
        pixels = torch.stack([self.read(row) for row in rows]).to(place)
        ids = model.tokenize(pipeline.tokenizer, [self.problem.prompts[row] for row in rows])
        with torch.no_grad():
            latents = pipeline.vae.encode(pixels).latent_dist.sample()
            latents = latents * pipeline.vae.config.scaling_factor
            text = pipeline.text_encoder(ids.to(place))[0]
        noise = torch.randn_like(latents)
        steps = torch.randint(0, 1000, (self.batch,), device=place)
        noisy = self.scheduler.add_noise(latents, noise, steps)
        target = denoising_target(self.scheduler, latents, noise, steps)
        predicted = self.unet(noisy, steps, encoder_hidden_states=text).sample
        if self.method is None:
            loss: Any = functional.mse_loss(predicted.float(), target.float())
        else:
            each = functional.mse_loss(predicted.float(), target.float(), reduction="none")
            each, levels = each.flatten(1).mean(dim=1), torch.as_tensor(self.problem.levels[rows])
            seen = each.detach().cpu()
            weights = self.method.weights(seen, levels, self.done)
            loss = (each * weights.to(place, each.dtype)).mean()
            self.method.observe(seen, levels, self.done, steps.cpu())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.step(self.unet.parameters())
        self.done += 1
        return float(loss.detach())


# -- turn by turn ----------------------------------------------------------------------------


def clock() -> float:
    """Seconds of this process' processor; of the wall where a GPU works."""
    if device.has_gpu():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def compare_steps(
    problem: Problem,
    pair: tuple[str, str, str],
    steps: int,
    batch: int,
    machine: MachineConfig | None = None,
) -> dict[str, Any]:
    """Seconds a step of the library and of its opponent, and their ratio; medians."""
    method, precision, opponent = pair
    other = Usual(problem, batch, None if method == "none" else make(problem, method))
    ours, theirs, mark = list[float](), list[float](), 0.0
    loop = LoopConfig(
        steps=steps + WARM, batch=batch, learning_rate=1e-5, warmup=0, ema_decay=0.9999,
        mixed_precision=precision,  # type: ignore[arg-type]  # a name from the command line
    )  # fmt: skip

    def after(step: int, _: Any) -> None:
        nonlocal mark
        ours.append(clock() - mark)
        mark = clock()
        other.step()
        theirs.append(clock() - mark)
        mark = clock()

    objective = objective_of(problem)
    if device.has_gpu():
        torch.cuda.reset_peak_memory_stats()
    mark = clock()
    fit(
        objective, loop, count=len(problem.images), seed=0, levels=problem.levels,
        method=make(problem, method), after_step=after, machine=machine, label=pair[0],
    )  # fmt: skip
    own, their = float(np.median(ours[WARM:])), float(np.median(theirs[WARM:]))
    ratios = np.array(theirs[WARM:]) / np.array(ours[WARM:])
    return {
        "what": f"training step, {method}",
        "precision": precision,
        "against": f"{opponent}, float32",
        "seconds": own,
        "other_seconds": their,
        "ratio": their / own,
        "ratio_low": float(np.quantile(ratios, 0.25)),
        "ratio_high": float(np.quantile(ratios, 0.75)),
        "repeats": steps,
    }


def compare_images(
    problem: Problem, precision: str, batch: int, sampler: int, repeats: int
) -> dict[str, Any]:
    """Seconds an image, in batches, against the pipeline called for one prompt after another."""
    prompts, seconds = problem.prompts[:batch], {"ours": list[float](), "one": list[float]()}
    seeds = list(range(batch))

    def in_batches() -> None:
        sample(problem.pipeline, prompts, seeds, steps=sampler, guidance=2.0, precision=precision)

    def one_by_one() -> None:
        for prompt, seed in zip(prompts[:2], seeds[:2], strict=True):
            generator = torch.Generator().manual_seed(seed)
            size = problem.images.shape[-1]
            problem.pipeline(
                prompt, num_inference_steps=sampler, guidance_scale=2.0, generator=generator,
                height=size, width=size, output_type="np",
            )  # fmt: skip

    for _ in range(repeats + 1):
        for name, work, count in (("ours", in_batches, batch), ("one", one_by_one, 2)):
            mark = clock()
            work()
            seconds[name].append((clock() - mark) / count)
    ours, one = (float(np.median(seconds[name][1:])) for name in ("ours", "one"))
    ratios = np.array(seconds["one"][1:]) / np.array(seconds["ours"][1:])
    return {
        "what": f"an image, {sampler} sampler steps, batch {batch}",
        "precision": precision,
        "against": "the pipeline, one prompt at a time, float32",
        "seconds": ours,
        "other_seconds": one,
        "ratio": one / ours,
        "ratio_low": float(ratios.min()),
        "ratio_high": float(ratios.max()),
        "repeats": repeats,
    }


def run_benchmarks(steps: int, batch: int, sampler: int = 10) -> pd.DataFrame:
    """All comparisons at the quick preset's size, a row each; ratios above 1 are the library's.

    what, precision, against, seconds, other_seconds, ratio (of the medians), ratio_low and
    ratio_high (quartiles over steps; of images the extremes), repeats.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        problem = make_problem(Path(folder))
        rows = [compare_steps(problem, pair, steps, batch) for pair in PAIRS]
        size = min(64, len(problem.prompts))
        rows += [compare_images(problem, p, size, sampler, 3) for p in ("no", "bf16")]
    return pd.DataFrame(rows)
