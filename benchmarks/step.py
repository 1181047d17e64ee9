"""Where the time of a guided step goes: to the network, the objective, or the loop around them.

    python benchmarks/step.py [--quick] [--network] [--compile]

SAG on the scenes model, 32x32 pixels, with the identity task's scorer; one thread. *calls*: the network calls and
gradients that a step makes and nothing else, made by hand in the same process and in turn with it; forward, backward
and objective are their shares. *loop*: what the same step takes beyond its calls with a network and an objective that
do next to nothing, as a share of the whole: noise, solver, norms, update, trace. Times are the thread's processor time,
medians over repetitions (on a machine that others use too, the clock on the wall says little).

Then the step beside the calls of the published implementation of SAG for three steps ahead (its n = 4, which counts
points): 1 call of the sampler's and 4 ahead without graph, 3 again without and 3 with, and 3 backward; ours is timed
whole, theirs as calls alone. Last, and with --network alone, what layout, autocast and (with --compile, which takes
some minutes) torch.compile of the network are worth to a step.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from benchmarks.common import RESULTS, save, table
from symguide.evaluation.tasks import task

PUBLISHED = {"plain": 8, "graphs": 3}
REPETITIONS = {1: 10, 8: 3, 32: 1}  # by batch
clock = time.process_time


def guided(denoiser: sg.Denoiser, objective: Any, batch: int, n: int, memory: str, steps: int) -> list[float]:
    """Seconds of each guided step but the first, which warms up."""
    ends = []
    told, loss = {"caption": torch.zeros(batch, 16, dtype=torch.long)}, sg.SAG(objective, n=n, memory=memory)
    sg.sample(denoiser, batch=batch, steps=steps, loss=loss, condition=told, callback=lambda *_: ends.append(clock()))
    return [end - begun for begun, end in pairwise(ends[:-1])]  # the last one, to sigma = 0, is not guided


def by_hand(denoiser: sg.Denoiser, objective: Any, batch: int, plain: int, graphs: int) -> list[float]:
    """Seconds of so many calls without graph and with: [forward, backward, objective]."""
    x, timestep = torch.randn(batch, *denoiser.shape or ()), torch.full((batch,), 500.0)
    caption, spent = torch.zeros(batch, 16, dtype=torch.long), [0.0, 0.0, 0.0]

    def timed(part: int, call: Callable[[], Tensor]) -> Tensor:
        begun = clock()
        made = call()
        spent[part] += clock() - begun
        return made

    with denoiser.frozen():
        for _ in range(plain):
            with torch.no_grad():
                timed(0, lambda: denoiser.network(x, timestep, caption=caption))
        leaf = x.clone().requires_grad_()
        cotangent = timed(2, lambda: torch.autograd.grad(objective(leaf).sum(), leaf)[0])
        for _ in range(graphs):
            leaf = x.clone().requires_grad_()
            y = timed(0, lambda leaf=leaf: denoiser.network(leaf, timestep, caption=caption))
            timed(1, lambda leaf=leaf, y=y: torch.autograd.grad(y, leaf, cotangent)[0])
    return spent


def little(x0: Tensor) -> Tensor:
    """An objective that costs next to nothing."""
    return x0.flatten(1).sum(dim=1)


def shares(denoiser: sg.Denoiser, batch: int, n: int, memory: str, repetitions: int, steps: int) -> dict[str, Any]:
    """Where the time of a step goes, and what it is beside the published calls."""
    objective = task("identity", range(batch)).scorer
    idle = sg.Denoiser(lambda x, t, caption: 0.5 * x, denoiser.schedule, denoiser.predicts, shape=denoiser.shape)
    plain = 0 if memory == "fast" else n - 1
    whole, hand, loop, idling, theirs = [], [], [], [], []
    for _ in range(repetitions):
        whole += guided(denoiser, objective, batch, n, memory, steps)
        hand.append(by_hand(denoiser, objective, batch, plain, n))
        theirs.append(sum(by_hand(denoiser, objective, batch, **PUBLISHED)))
        loop += guided(idle, little, batch, n, memory, steps)
        idling.append(sum(by_hand(idle, little, batch, plain, n)))
    step, calls = statistics.median(whole), statistics.median(map(sum, hand))
    forward, backward, scored = (statistics.median(part) / calls for part in zip(*hand, strict=True))
    return {
        "batch": batch,
        "n": n,
        "memory": memory,
        "calls": f"{plain + n} + {n}",
        "ms": f"{1e3 * step:.0f}",
        "forward": f"{forward:.0%}",
        "backward": f"{backward:.0%}",
        "objective": f"{scored:.0%}",
        "loop": f"{(statistics.median(loop) - statistics.median(idling)) / step:.1%}",
        "step : calls": f"{step / calls:.2f}",
        "step : published": f"{step / statistics.median(theirs):.2f}",
    }


def cells() -> list[dict[str, Any]]:
    """All cells."""
    denoiser, plans = sg.load("scenes"), [(1, "minimal"), *((n, m) for n in (2, 3, 4) for m in ("minimal", "fast"))]
    return [shares(denoiser, batch, *plan, count, 5) for batch, count in REPETITIONS.items() for plan in plans]


def switches(batch: int, n: int, repetitions: int, steps: int, compiling: bool) -> list[dict[str, Any]]:
    """A step with the network as it is loaded, and in other ways; ratios of steps made in turn."""
    objective = task("identity", range(batch)).scorer
    plain = sg.load("scenes")
    last = plain.to(memory_format=torch.channels_last)
    compiled = sg.Denoiser(torch.compile(last.network), plain.schedule, plain.predicts, shape=plain.shape)
    ways = {
        "as loaded": (plain, torch.float32),
        "channels_last": (last, torch.float32),
        "and bfloat16 autocast": (last, torch.bfloat16),
    }
    if compiling:
        ways["and torch.compile"] = (compiled, torch.float32)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions + 1):
        for name, (denoiser, dtype) in ways.items():
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                seconds[name] += guided(denoiser, objective, batch, n, "minimal", steps)
    made = {name: statistics.median(times[steps - 2 :]) for name, times in seconds.items()}  # the first run compiles
    one = made["as loaded"]
    return [{"network": name, "ms": f"{1e3 * t:.0f}", "ratio": f"{t / one:.2f}"} for name, t in made.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one cell, one repetition, nothing written")
    parser.add_argument("--network", action="store_true", help="only what the network's own switches are worth")
    parser.add_argument("--compile", action="store_true", help="also with the network compiled by torch.compile")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        print(table([shares(sg.load("scenes"), 1, 3, "minimal", 1, 4)]))
        return
    if given.network:
        results = json.loads((RESULTS / "step.json").read_text())["results"]
    else:
        results = {"steps": cells()}
        print(table(results["steps"]), end="\n\n", flush=True)
    results["network"] = switches(8, 4, 3, 5, given.compile)
    print(table(results["network"]))
    print("written:", save("step", results))


if __name__ == "__main__":
    main()
