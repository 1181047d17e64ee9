"""Guided pipelines in half precision: finite, off is off, and guidance lowers the loss."""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from benchmarks.stages import Cell, Row, Setting

ZOO = Path(__file__).parents[2] / "tests" / "pipelines" / "zoo.py"
FAMILIES = (
    *("sd", "sdxl", "sd3", "flux", "dit", "pixart", "sana", "wan"),
    *("ltx", "cogvideox", "animatediff", "sd-controlnet"),
)


@cache
def zoo() -> Any:
    """The tests' tiny pipelines of every family, with random weights."""
    spec = importlib.util.spec_from_file_location("zoo", ZOO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    return module


def cells(setting: Setting) -> Iterator[Cell]:
    """Both kinds of half precision, family by family."""
    for family in ("sd",) if setting.quick else FAMILIES:
        for dtype in ("bfloat16",) if setting.quick else ("float16", "bfloat16"):
            yield Cell({"family": family, "dtype": dtype}, partial(guided, setting, family, dtype))


def latents(x0: Tensor) -> Tensor:
    """Squared distance of clean latents to a constant, (B,)."""
    return (x0.float() - 0.7).square().flatten(1).mean(dim=1)


def guided(setting: Setting, family: str, dtype: str) -> Row:
    """Losses of a run without and with guidance, on latents, as random decoders say little of them."""
    with tempfile.TemporaryDirectory() as folder:
        pipe, call = zoo().build(family, folder)
    pipe.to(setting.device, getattr(torch, dtype))
    call |= {"output_type": "latent"}

    def draw() -> Tensor:
        out = next(iter(pipe(**call, generator=torch.Generator().manual_seed(0)).values()))
        return torch.stack(list(out)) if isinstance(out, list) else torch.as_tensor(out)

    plain = draw()
    with sg.guide(pipe, loss=sg.SAG(latents, n=2, scale=0.0), decode=False):
        off = torch.equal(draw(), plain)
    setting.forget()
    begun = time.perf_counter()
    with sg.guide(pipe, loss=sg.SAG(latents, n=2, scale=0.3), decode=False):
        drawn = draw()
    setting.wait()
    finite, lower = bool(drawn.isfinite().all()), bool((latents(drawn) < latents(plain)).all())
    return {
        "good": off and finite and lower and drawn.dtype == plain.dtype,
        "off is off": off,
        "finite": finite,
        "loss": [latents(plain).mean().item(), latents(drawn).mean().item()],
        "seconds": time.perf_counter() - begun,
        "peak": setting.peak(),
    }
