"""Guided steps inside Stable Diffusion 1.5 and XL: seconds and peak memory by plan, beside what was predicted.

    python benchmarks/pipelines_gpu.py [--quick] [--cpu] [--fresh]

The published architectures with random weights, which cost what trained ones do: nothing is downloaded. Pictures of 512
and 1024 pixels, batch 1, float16, classifier-free guidance in a doubled batch, the loss a mean over decoded pixels. Our
plans against plain autograd through all n calls and the decoder, which keeps every graph.

A cell is a short run of the pipeline: seconds of its last guided step (the pipeline's own call included, which plain
autograd would make with its graph), and the most that torch had allocated during the run. What does not fit is noted as
such. --cpu: SD 1.5 at 256 pixels in float32, one and two calls ahead; bytes of all tensors and, of them, those saved
for backward, in place of the allocator's. --quick: a tiny U-Net on the CPU, nothing written.

Cells that are done are kept under out/benchmarks and not measured again; --fresh starts over.
"""

import argparse
import functools
import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from torch import Tensor

import symguide as sg
from benchmarks.common import Cells, save, table
from benchmarks.peers.networks import SMALL_UNET
from symguide.loss_guidance.recipe import Push
from symguide.meter import SavedBytes, show_bytes
from symguide.planning import Estimate, Plan, estimate_memory
from symguide.planning.architecture import PRESETS, Architecture, architecture
from symguide.planning.estimate import MEMORIES, plan_name
from symguide.planning.simulate import LiveBytes

FOLDER = Path("out/benchmarks")
STEPS = 3  # the last one is not guided, and the first one warms up


class Setting(NamedTuple):
    """What is measured, and where."""

    models: dict[str, Architecture]
    sizes: tuple[int, ...]
    ns: tuple[int, ...]
    dtype: str
    device: str
    memories: Sequence[Any] = MEMORIES


def bright(x0: Tensor) -> Tensor:
    """Squared distance to a light grey, (B,)."""
    return (x0 - 0.7).square().flatten(1).mean(dim=1)


class Timed(sg.SAG):
    """SAG that notes the seconds of its guided steps; `plain` takes the gradient by autograd through everything."""

    def __init__(self, plan: Plan, n: int, device: str) -> None:
        super().__init__(bright, n=n, memory="minimal" if plan.memory is None else plan.memory)
        self.plain, self.device, self.seconds = plan.memory is None, device, list[float]()

    def guide(self, step: Any) -> Any:
        begun = now(self.device)
        guided = super().guide(step)
        if guided is not None:
            self.seconds.append(now(self.device) - begun)
        return guided

    def push(self, step: Any) -> Push:
        if not self.plain:
            return super().push(step)
        with torch.enable_grad():
            leaf = step.x.detach().requires_grad_()
            loss = self.objective(sg.lookahead(step.run.predict.denoiser, leaf, step.t, self.n).x0)
            gradient = torch.autograd.grad(loss.sum(), leaf)[0]
        loss = loss.detach()
        return Push(gradient, loss, x_s=-self.scale * self.rule(gradient, step, loss))


def now(device: str) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def pipeline(made: Architecture, dtype: torch.dtype, device: str) -> Any:
    """The pipeline with random weights, without text encoders."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {name: made.components[name].build(dtype, device) for name in ("unet", "vae")}
    parts |= {"text_encoder": None, "tokenizer": None, "scheduler": diffusers.DDIMScheduler(clip_sample=False)}
    if made.pipeline == "StableDiffusionXLPipeline":
        parts |= {"text_encoder_2": None, "tokenizer_2": None, "add_watermarker": False}
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = getattr(diffusers, made.pipeline)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arguments(pipe: Any, size: int) -> dict[str, Any]:
    """A call of the pipeline, its prompt encoded at random."""
    config = pipe.unet.config
    given = {"dtype": pipe.unet.dtype, "device": pipe.unet.device}
    call: dict[str, Any] = {"height": size, "width": size, "num_inference_steps": STEPS, "output_type": "pt"}
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        call[name] = torch.randn(1, 77, config.cross_attention_dim, **given)
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        for name in ("pooled_prompt_embeds", "negative_pooled_prompt_embeds"):
            call[name] = torch.randn(1, pooled, **given)
    return call


class Bench:
    """Measures cells of one setting; the pipeline of a model is built once, and dropped for the next one's."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self._held = setting, ("", None)
        self.guess: Callable[[str, int, int], Estimate] = functools.cache(self._estimate)
        self._own = functools.cache(self._seconds_of_a_step)

    def cell(self, model: str, size: int, n: int, plan: str) -> dict[str, Any]:
        """One measurement: seconds and peak bytes, or that memory ran out, beside the prediction."""
        dtype, device = self.setting.dtype, self.setting.device
        predicted = next(each for each in self.guess(model, size, n).plans if each.name == plan)
        cell = {"model": model, "size": size, "n": n, "plan": plan, "dtype": dtype, "predicted": predicted.peak}
        cell |= {"forward": predicted.forward_calls, "backward": predicted.backward_calls, "time": predicted.time}
        release(device)
        try:
            pipe = self._pipeline(model)
            done = run(pipe, size, Timed(predicted, n, device), predicted, device, self._own(model, size))
        except torch.cuda.OutOfMemoryError:
            return cell | {"fits": False, "seconds": None, "peak": None, "saved": None}
        return cell | {"fits": True} | done

    def _estimate(self, model: str, size: int, n: int) -> Estimate:
        made, dtype = self.setting.models[model], self.setting.dtype
        return estimate_memory(made, size, size, n=n, dtype=dtype, text_encoders=False)

    def _seconds_of_a_step(self, model: str, size: int) -> float:
        pipe, device = self._pipeline(model), self.setting.device
        call = arguments(pipe, size)
        return _seconds(lambda: pipe(**call | {"output_type": "latent"}), device) / STEPS

    def _pipeline(self, model: str) -> Any:
        if self._held[0] != model:
            self._held = ("", None)
            release(self.setting.device)
            made, dtype = self.setting.models[model], getattr(torch, self.setting.dtype)
            self._held = (model, pipeline(made, dtype, self.setting.device))
        return self._held[1]


def release(device: str) -> None:
    """Give freed memory back, so that a cell does not depend on those before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def run(pipe: Any, size: int, recipe: Timed, plan: Plan, device: str, own: float) -> dict[str, Any]:
    """Seconds of a guided step, the peak with weights, and on a CPU the bytes that were saved for backward.

    `own` is the seconds of a step that the pipeline itself makes.
    """
    call = arguments(pipe, size)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with ExitStack() as meters:
        saved = meters.enter_context(SavedBytes()) if device != "cuda" else None
        memory = meters.enter_context(LiveBytes()) if device != "cuda" else None
        with sg.guide(pipe, loss=recipe, checkpoint=plan.checkpoint, on_nan="skip"):  # random weights may overflow
            pipe(**call)
    seconds = recipe.seconds[-1] + (0.0 if recipe.plain else own)
    if memory is None or saved is None:
        return {"seconds": seconds, "peak": torch.cuda.max_memory_allocated(), "saved": None}
    return {"seconds": seconds, "peak": plan.weights + memory.peak, "saved": saved.peak}


def _seconds(task: Callable[[], Any], device: str) -> float:
    if device == "cuda":  # which chooses its kernels in the first run
        task()
    begun = now(device)
    task()
    return now(device) - begun


def shown(cell: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    row = {key: cell[key] for key in ("model", "size", "n", "plan", "forward", "backward")}
    row["seconds"] = f"{cell['seconds']:.2f}" if cell["fits"] else "-"
    row["peak"] = show_bytes(cell["peak"]) if cell["fits"] else "does not fit"
    row["predicted"] = show_bytes(cell["predicted"])
    row["predicted / peak"] = f"{cell['predicted'] / cell['peak']:.2f}" if cell["fits"] else "-"
    return row


def settings(quick: bool, cpu: bool) -> Setting:
    """What the command line asks for."""
    if quick:
        return Setting({"tiny": SMALL_UNET}, (64,), (2,), "float32", "cpu", ("minimal",))
    if cpu:
        return Setting({"sd-1.5": architecture("sd-1.5")}, (256,), (1, 2), "float32", "cpu")
    models = {name: architecture(name) for name in PRESETS if name in ("sd-1.5", "sdxl")}
    return Setting(models, (512, 1024), (1, 2, 4, 8), "float16", "cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny U-Net on the CPU, nothing written")
    parser.add_argument("--cpu", action="store_true", help="SD 1.5 at 256 pixels on the CPU")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are done")
    given = parser.parse_args()
    setting = settings(given.quick, given.cpu)
    if setting.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is here: --cpu measures a smaller case without one")
    name = "pipelines_quick" if given.quick else "pipelines_cpu" if given.cpu else "pipelines_gpu"
    cells = Cells(FOLDER / f"{name}.jsonl", ("model", "size", "n", "plan"), Bench(setting).cell, given.fresh)
    done = [
        cells.get(model, size, n, plan)
        for model in setting.models
        for size in setting.sizes
        for n in setting.ns
        for plan in (plan_name(memory, checkpoint) for memory in setting.memories for checkpoint in (False, True))
    ]
    print(table([shown(cell) for cell in done]))
    if not given.quick:
        device = torch.cuda.get_device_name() if setting.device == "cuda" else "cpu"
        versions = {"device": device, "diffusers": diffusers.__version__, "cuda": torch.version.cuda}
        print("written:", save(name, {"versions": versions, "cells": done}))


if __name__ == "__main__":
    main()
