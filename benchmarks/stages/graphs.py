"""What torch.compile and CUDA graphs are worth to a guided step of the scenes model."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from benchmarks.stages import Cell, Row, Setting

N, STEPS = 4, 6
WAYS = ("as loaded", "channels_last", "captured", "reduce-overhead", "default")


def cells(setting: Setting) -> Iterator[Cell]:
    """Small batches first: there the launches of kernels are what a step waits for."""
    model = "digits" if setting.quick else "scenes"
    ways = ("as loaded", "channels_last") if setting.quick else WAYS
    for batch in (2,) if setting.quick else (1, 64):
        for way in ways:
            for dtype in ("float32",) if setting.quick else ("float32", "bfloat16"):
                key = {"model": model, "way": way, "dtype": dtype, "batch": batch, "n": N}
                yield Cell(key, partial(step, setting, model, way, dtype, batch))


def squares(x0: Tensor) -> Tensor:
    """An objective that costs next to nothing, (B,)."""
    return (x0 - 0.5).square().flatten(1).sum(dim=1)


def step(setting: Setting, model: str, way: str, dtype: str, batch: int) -> Row:
    """Seconds of a guided step, of getting ready for it, and how far its samples are from those as loaded."""
    plain = sg.load(model, device=setting.device, dtype=getattr(torch, dtype))
    assert plain.shape is not None
    begun = time.perf_counter()
    network = NETWORKS[way](plain, batch)
    fast = sg.Denoiser(network, plain.schedule, plain.predicts, shape=plain.shape, null=plain.null)
    took, samples = _run(setting, model, fast, batch)
    ready = time.perf_counter() - begun - sum(took)
    took, samples = _run(setting, model, fast, batch)
    _, expected = _run(setting, model, plain, batch)
    gap = ((samples - expected).norm() / expected.norm()).item()
    return {"ms": 1e3 * statistics.median(took), "ready, s": ready, "relative difference": gap}


def _run(setting: Setting, model: str, denoiser: sg.Denoiser, batch: int) -> tuple[list[float], Tensor]:
    """Seconds of the guided steps but the first, and the samples."""
    ends: list[float] = []

    def after(*_: Any) -> None:
        setting.wait()
        ends.append(time.perf_counter())

    told: Row = {"label": 3} if model == "digits" else {}
    with torch.inference_mode(False):
        made = sg.sample(
            denoiser,
            batch=batch,
            steps=STEPS,
            loss=sg.SAG(squares, n=N, scale=0.1),
            condition=told,
            device=setting.device,
            callback=after,
        )
    return [end - begin for begin, end in pairwise(ends[:-1])], made.samples  # the last step is not guided


def captured(denoiser: sg.Denoiser, batch: int) -> Callable[..., Tensor]:
    """The network's forward and backward pass as CUDA graphs, whose outputs are copied before the next replay.

    One call's graph is alive at a time under memory="minimal", as one capture has room for one.
    """
    assert denoiser.shape is not None
    given = {"device": denoiser.device, "dtype": denoiser.dtype}
    x = torch.randn(batch, *denoiser.shape, **given, requires_grad=True)  # type: ignore[call-overload]
    timestep = torch.full((batch,), 500.0, device=denoiser.device)
    with denoiser.frozen():
        graphed: Any = torch.cuda.make_graphed_callables(denoiser.network, (x, timestep))  # type: ignore[arg-type]

    def network(x: Tensor, timestep: Tensor) -> Tensor:
        return graphed(x, timestep.contiguous()).clone()

    return network


def _compiled(mode: str | None, denoiser: sg.Denoiser, batch: int) -> Callable[..., Tensor]:
    network: Callable[..., Tensor] = torch.compile(denoiser.network, mode=mode)
    if mode is None:
        return network
    return lambda *given, **told: network(*given, **told).clone()  # its outputs live in a graph's own memory


NETWORKS: dict[str, Callable[[sg.Denoiser, int], Callable[..., Tensor]]] = {
    "as loaded": lambda denoiser, batch: denoiser.network,
    "channels_last": lambda denoiser, batch: denoiser.to(memory_format=torch.channels_last).network,
    "captured": captured,
    "reduce-overhead": partial(_compiled, "reduce-overhead"),
    "default": partial(_compiled, None),
}
"""How the network is called."""
