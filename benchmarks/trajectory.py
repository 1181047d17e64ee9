"""The gradient through a whole sampling run on the digits model: our sweep against EDICT's inversion and autograd.

    python benchmarks/trajectory.py [--quick]

DOODL optimises the starting noise with EDICT's sampler (Wallace et al., 2211.12446), whose two coupled samples make
every step invertible, so that the states need not be stored. The sampler is EDICT's, mixing 0.93, with the
gradient by inversion in its cheapest form: the network call that undoes a half step is the one that is differentiated.

The first table is of one gradient. Calls are per sample; saved are the bytes that autograd holds for backward at most,
beside the states that are stored between the passes. The error is that of the float32 gradient (of the float64 one) to
autograd in float64 through the same map, relative. The second table is of DOODL: the same update, task, start and
number of updates for both. Ours optimises the plain sampler's start, EDICT's its own.
"""

import argparse
import time

import torch
from torch import Tensor

import symguide as sg
from benchmarks.common import save, table
from benchmarks.peers.invertible import Edict
from symguide.denoiser import Counter
from symguide.loss import value_and_gradient
from symguide.meter import SavedBytes, show_bytes
from symguide.per_sample import Noise, norm
from symguide.solver import uniform
from symguide.worlds import digits

CLIP = 0.02


def sampler(denoiser: sg.Denoiser, steps: int) -> Edict:
    return Edict(denoiser, uniform(denoiser.schedule, denoiser.schedule.t_max, steps))


def by_inversion(edict: Edict, start: Tensor, objective: object) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient at the shared start, loss, sample) of the mean of both losses."""
    with torch.no_grad():
        ends = edict.forward(start, start)
    (loss, x_bar), (other, y_bar) = (value_and_gradient(objective, z) for z in ends)
    _, bars = edict.backward(ends, (0.5 * x_bar, 0.5 * y_bar))
    edict.denoiser.counter.backward += 2 * len(edict.steps) * len(start)
    return bars[0] + bars[1], 0.5 * (loss + other), ends[0]


def world(dtype: torch.dtype, batch: int) -> tuple[sg.Denoiser, object, Tensor]:
    denoiser = sg.load("digits", dtype=dtype).counted(Counter())
    objective = sg.objectives.Classifier(digits.scorer(dtype=dtype), [i % 10 for i in range(batch)])
    return denoiser, objective, Noise(0, range(batch), (1, 8, 8), dtype).draw("start")


def ours(denoiser: sg.Denoiser, objective: object, x: Tensor, steps: int, memory: str | int) -> Tensor:
    return sg.lookahead_gradient(
        denoiser, x, denoiser.schedule.t_max, objective, steps, "ddim", "uniform", memory=memory
    ).value


def by_autograd(denoiser: sg.Denoiser, objective: object, x: Tensor, steps: int) -> Tensor:
    leaf = x.clone().requires_grad_()
    t = denoiser.schedule.t_max
    loss = objective(sg.lookahead(denoiser, leaf, t, steps, "ddim", "uniform").x0)
    denoiser.counter.backward += steps * len(x)
    return torch.autograd.grad(loss.sum(), leaf)[0]


def edict_by_autograd(denoiser: sg.Denoiser, objective: object, x: Tensor, steps: int) -> Tensor:
    leaf = x.clone().requires_grad_()
    loss = sum(0.5 * objective(z) for z in sampler(denoiser, steps).forward(leaf, leaf))
    denoiser.counter.backward += 2 * steps * len(x)
    return torch.autograd.grad(loss.sum(), leaf)[0]


def edict(denoiser: sg.Denoiser, objective: object, x: Tensor, steps: int) -> Tensor:
    return by_inversion(sampler(denoiser, steps), x, objective)[0]


def gradients(ns: list[int], batch: int) -> list[dict]:
    ways = {  # the gradient, the reference for its error, and the states of a sample that are stored for it
        "autograd, all graphs": (by_autograd, by_autograd, lambda n: 0),
        'symguide, "minimal"': (lambda *a: ours(*a, "minimal"), by_autograd, lambda n: n),
        'symguide, "fast"': (lambda *a: ours(*a, "fast"), by_autograd, lambda n: n),
        "EDICT, inverted": (edict, edict_by_autograd, lambda n: 2),
        "EDICT, all graphs": (edict_by_autograd, edict_by_autograd, lambda n: 0),
    }
    rows = []
    for steps in ns:
        truths: dict = {}
        for name, (way, reference, states) in ways.items():
            errors = {}
            for dtype in (torch.float64, torch.float32):
                denoiser, objective, x = world(dtype, batch)
                with denoiser.frozen():
                    if reference not in truths:
                        truths[reference] = reference(denoiser, objective, x, steps)
                        denoiser.counter = Counter()
                    with SavedBytes() as saved:
                        value = way(denoiser, objective, x.to(dtype), steps)
                truth = truths[reference]
                errors[dtype] = ((value.double() - truth).norm() / truth.norm()).item()
            rows.append(
                {
                    "n": steps,
                    "gradient": name,
                    "forward": denoiser.counter.forward // batch,
                    "backward": denoiser.counter.backward // batch,
                    "saved": show_bytes(saved.peak),
                    "states": show_bytes(states(steps) * x.nbytes),
                    "error, float32": f"{errors[torch.float32]:.1e}",
                    "error, float64": f"{errors[torch.float64]:.1e}",
                }
            )
    return rows


def doodl(steps: int, updates: int, batch: int) -> list[dict]:
    """The same update of the start by both gradients; a judge that neither saw says what came of it."""
    judge = digits.judge(dtype=torch.float32)
    labels = torch.arange(batch) % 10
    rows = []

    def row(name: str, samples: Tensor, loss: Tensor, forward: int, backward: int, seconds: float) -> None:
        with torch.no_grad():
            accuracy = (judge(samples).argmax(dim=1) == labels).double().mean().item()
        rows.append(
            {
                "DOODL by": name,
                "scorer's loss": f"{loss.mean().item():.3f}",
                "judge's accuracy": f"{accuracy:.2f}",
                "forward": forward,
                "backward": backward,
                "seconds": f"{seconds:.0f}",
            }
        )

    denoiser, objective, x = world(torch.float32, batch)
    plain = sg.optimise(denoiser, objective, sg.DOODL(0), batch=batch, steps=steps, dtype=torch.float32)
    row("no update", plain.samples, plain.loss, plain.cost.forward_calls, 0, plain.cost.seconds)
    method = sg.DOODL(updates, clip=CLIP)
    made = sg.optimise(denoiser, objective, method, batch=batch, steps=steps, dtype=torch.float32)
    row("symguide", made.samples, made.loss, made.cost.forward_calls, made.cost.backward_calls, made.cost.seconds)

    denoiser.counter, coupled, noise = Counter(), sampler(denoiser, steps), Noise(0, range(batch), (1, 8, 8))
    begun, radius, b = time.perf_counter(), norm(x), torch.zeros_like(x)
    with denoiser.frozen():
        for k in range(updates):
            g = by_inversion(coupled, x, objective)[0]
            b = 0.9 * b + g.clamp(-CLIP, CLIP)
            x = x - b + 1e-4 * noise.draw("step", k)
            x = radius * x / norm(x)
        with torch.no_grad():
            sample, other = coupled.forward(x, x)
            loss = 0.5 * (objective(sample) + objective(other))
    counter, seconds = denoiser.counter, time.perf_counter() - begun
    row("EDICT, inverted", sample, loss, counter.forward // batch, counter.backward // batch, seconds)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps, updates and samples, nothing written")
    quick = parser.parse_args().quick
    made = gradients([2, 4] if quick else [10, 50], batch=2 if quick else 10)
    print(table(made), end="\n\n", flush=True)
    runs = doodl(steps=4 if quick else 20, updates=2 if quick else 10, batch=2 if quick else 20)
    print(table(runs))
    if not quick:
        print("written:", save("trajectory", {"gradients": made, "doodl": runs}))


if __name__ == "__main__":
    main()
