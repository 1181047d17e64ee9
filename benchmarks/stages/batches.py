"""Batch scaling of the embedded models: samples a second, guided and not, against the bare network's calls."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from benchmarks.stages import Cell, Row, Setting

STEPS, N = 10, 2
BATCHES = 1, 16, 64, 256, 1024, 4096


def cells(setting: Setting) -> Iterator[Cell]:
    """Larger batches first where they say most: the throughput that a card has."""
    sizes = (1, 16) if setting.quick else (1024, 1, 64, 4096, 256, 16)
    for model in ("digits",) if setting.quick else ("scenes", "digits"):
        for batch in sizes:
            for guided in (True, False):
                key = {"model": model, "batch": batch, "guided": guided, "steps": STEPS, "n": N if guided else 0}
                yield Cell(key, partial(throughput, setting, model, batch, guided))


def squares(x0: Tensor) -> Tensor:
    """An objective that costs next to nothing, (B,)."""
    return (x0 - 0.5).square().flatten(1).sum(dim=1)


def throughput(setting: Setting, model: str, batch: int, guided: bool) -> Row:
    """A run, and the same calls of the network and nothing else, in turn."""
    denoiser = sg.load(model, device=setting.device, dtype=torch.float32)
    told: Row = {"label": 3} if model == "digits" else {}
    loss = sg.SAG(squares, n=N, scale=0.1) if guided else None
    run = partial(
        sg.sample, denoiser, batch=batch, steps=STEPS, loss=loss, condition=told, device=setting.device, progress=False
    )
    cost = run().cost  # warms up
    bare = partial(calls, denoiser, batch, told, cost.forward_calls, cost.backward_calls)
    bare()
    setting.forget()
    whole, peak = _seconds(setting, run), setting.peak()
    network = _seconds(setting, bare)
    return {
        "samples / s": batch / whole,
        "bare network": batch / network,
        "share of it": network / whole,
        "calls": [cost.forward_calls, cost.backward_calls],
        "seconds": whole,
        "peak": peak,
    }


def calls(denoiser: sg.Denoiser, batch: int, told: Row, forward: int, backward: int) -> None:
    """So many calls of the network, as many of them with a gradient as there are backward ones."""
    assert denoiser.shape is not None
    device = denoiser.device or torch.device("cpu")
    x, timestep = torch.randn(batch, *denoiser.shape, device=device), torch.full((batch,), 500.0, device=device)
    given: dict[str, Any] = {name: torch.full((batch,), value, device=device) for name, value in told.items()}
    with denoiser.frozen():
        for call in range(forward):
            if call < backward:
                leaf = x.clone().requires_grad_()
                torch.autograd.grad(denoiser.network(leaf, timestep, **given), leaf, x)
            else:
                with torch.no_grad():
                    denoiser.network(x, timestep, **given)


def _seconds(setting: Setting, task: Callable[[], Any]) -> float:
    setting.wait()
    begun = time.perf_counter()
    task()
    setting.wait()
    return time.perf_counter() - begun
