"""What is each look-ahead the gradient of? Its cosine and length beside three gradients that are known.

    python benchmarks/theory.py [cosines] [samples] [--quick] [--threads 1]

Mixtures of Gaussians, whose posterior p(x_0 | x_t) is a mixture in closed form: 12 modes on two rings and the textures
of benchmarks/textures.py, of 16 numbers, and a broad one of three components in the plane. x_t are noised samples of
the data. The gradients, all at x_t:

    exact = -grad log E[exp(-J(x_0)) | x_t], which conditions a sampler on exp(-J)
    value =  grad E[J(x_0) | x_t], of the mean loss at the end of an ancestral run
    end   =  grad J(x_0(x_t)), x_0 the end of the probability-flow ODE (128 calls of dpmpp_2m)

exact and value are sums over the posterior's components of means over draws in each, differentiated in x_t; *error* is
the relative distance of two such estimates from different draws, over sqrt(2).

cosines: mean cosine, and median ratio of lengths, of each way to look ahead with these.

samples: K ancestral look-aheads with noise of their own, by K and their steps: median over x_t of the relative distance
to exact. *path*: path="fresh", the gradient through all of them. *weights*: no gradient at all,
(alpha / sigma²) (mean x_0 - sum_k w_k x_0), w = softmax(-J).
"""

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import symguide as sg
from benchmarks.common import arguments, save, table
from benchmarks.textures import D, gram, textures
from symguide.solver import starting_at

Loss = Callable[[Tensor, Tensor], Tensor]
"""(x_0 (B, d), what was measured of each (B, ...)) -> (B,)."""

MEASURED = [0, 3, 5, 9]
STEPS, NUM, SEEDS, END = 16, 32, 2, 128
"""Steps of an ancestral run from t, samples, runs that noisy gradients are taken from, calls to the end of the ODE."""


def rings() -> sg.MixtureDenoiser:
    """12 modes on two rings of radius 1 and 2 in the first two numbers; the others are of the mode, at random."""
    g = torch.Generator().manual_seed(3)
    angle = 2 * math.pi * torch.arange(12, dtype=torch.float64) / 6
    radius = torch.where(torch.arange(12) < 6, 1.0, 2.0).double()
    others = 0.5 * torch.randn(12, D - 2, generator=g, dtype=torch.float64)
    means = torch.cat([torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), others], dim=1)
    return sg.MixtureDenoiser(means, 0.02 * torch.eye(D), schedule=sg.VP.cosine())


def broad() -> sg.MixtureDenoiser:
    """Three components in the plane that overlap."""
    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    return sg.MixtureDenoiser(means, 0.4 * torch.eye(2), schedule=sg.VP.cosine())


def linear(x0: Tensor, y: Tensor) -> Tensor:
    return x0[:, 0] + x0[:, 1]


def measured(x0: Tensor, y: Tensor) -> Tensor:
    """Four numbers of x_0, measured with a noise of 0.3."""
    return (x0[:, MEASURED] - y).square().sum(dim=1) / (2 * 0.3**2)


def mode(x0: Tensor, y: Tensor) -> Tensor:
    """At (2, 0), one of the outer ring's."""
    return (x0[:, :2] - x0.new_tensor([2.0, 0.0])).square().sum(dim=1)


def radius(x0: Tensor, y: Tensor) -> Tensor:
    """2, whatever the angle."""
    return (x0[:, :2].square().sum(dim=1) - 4.0).square()


PRIORS: dict[str, tuple[Callable[[], sg.MixtureDenoiser], dict[str, Loss], int]] = {
    "rings": (rings, {"linear": linear, "measured": measured, "mode": mode, "radius": radius}, 1000),
    "broad": (broad, {"radius": radius}, 1000),
    "textures": (textures, {"measured": measured, "gram": lambda x0, y: gram(x0)}, 200),
}
"""The prior, its losses, and pairs of draws in each component of the posterior."""
TIMES = (0.9, 0.75, 0.6, 0.45, 0.3)

WAYS: dict[str, dict[str, Any]] = {
    "one": {"n": 1},
    "identity": {"n": 1, "jacobian": "identity"},
    "ode 2": {"n": 2},
    "ode 4": {"n": 4},
    "ode 32": {"n": 32},
    "own all": {"n": "all", "path": "own"},
    "fresh 4, K = 16": {"n": 4, "path": "fresh", "samples": 16},
    "fresh all, K = 16": {"n": "all", "path": "fresh", "samples": 16},
    "weights, K = 16": {"weighed": 16},
    "weights, K = 256": {"weighed": 256},
}
SAMPLED = (("broad", "radius"), ("rings", "radius"), ("textures", "gram"))
COUNTS, LENGTHS = {"path": (1, 4, 16, 64), "weights": (4, 16, 64, 256, 1024)}, (4, 16)


def noised(prior: sg.MixtureDenoiser, t: float, num: int) -> tuple[Tensor, Tensor]:
    """(x_t, what is measured of the x_0 that it was made of)."""
    g, d = torch.Generator().manual_seed(1), prior.centres.shape[1]
    x0 = (prior.centres @ prior.bases[0].T)[torch.randint(len(prior.centres), (num,), generator=g)]
    x0 = x0 + prior.variances[0].sqrt() * torch.randn(num, d, generator=g, dtype=torch.float64)
    y = x0[:, MEASURED] + 0.3 * torch.randn(num, 4, generator=g, dtype=torch.float64) if d == D else x0
    z = torch.randn(num, d, generator=g, dtype=torch.float64)
    return prior.schedule.alpha(t) * x0 + prior.schedule.sigma(t) * z, y


def exact(
    prior: sg.MixtureDenoiser, x: Tensor, t: float, loss: Loss, y: Tensor, pairs: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """(grad of -log E[exp(-J) | x_t], grad of E[J | x_t]), each (B, d), by pairs of draws z and -z in each component.

    x_0 = means_k(x_t) + roots_k z is differentiable in x_t, and so are the components' weights: no score function is
    needed, and the sum over components is exact.
    """
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(pairs, x.shape[1], generator=g, dtype=x.dtype)
    z = torch.cat([z, -z])
    found = []
    for one, its in zip(x, y, strict=True):
        leaf = one[None].clone().requires_grad_()
        log_r, means, roots = prior.posterior(leaf, t)
        likely = (log_r[0] > -20).nonzero().flatten()  # what is left out has less than 1e-6 of the weight
        drawn = means[0, likely, None] + z @ roots[likely].transpose(1, 2)
        j = loss(drawn.flatten(0, 1), its[None]).reshape(len(likely), -1)
        soft = -torch.logsumexp(log_r[0, likely, None] - j - math.log(len(z)), dim=(0, 1))
        mean = (log_r[0, likely].exp() * j.mean(dim=1)).sum()
        found.append([torch.autograd.grad(each, leaf, retain_graph=True)[0][0] for each in (soft, mean)])
    soft, mean = (torch.stack(each) for each in zip(*found, strict=True))
    return soft, mean


def looked_ahead(
    prior: sg.MixtureDenoiser, x: Tensor, t: float, loss: Loss, y: Tensor, seed: int = 0, steps: int = STEPS, **way: Any
) -> Tensor:
    """The gradient that SAG takes at x_t in an ancestral run of so many steps from there, (B, d)."""
    seen: list[Tensor] = []

    def keep(gradient: Tensor, step: Any, loss: Tensor) -> Tensor:
        seen.append(gradient)
        return torch.zeros_like(gradient)

    recipe = sg.SAG(lambda x0: loss(x0, y), window=(0.0, 0.5 / steps), update=keep, memory="fast", **way)
    grid = starting_at(t, "flow")
    sg.sample(prior, start=x, seed=seed, steps=steps, grid=grid, eta=1.0, loss=recipe, dtype=x.dtype)
    return seen[0]


def by_weights(
    prior: sg.MixtureDenoiser, x: Tensor, t: float, loss: Loss, y: Tensor, k: int, seed: int = 0, steps: int = STEPS
) -> Tensor:
    """(alpha / sigma²) (mean of x_0 - mean of x_0 with weights exp(-J)) over k ancestral runs from x_t, (B, d)."""
    rows, grid = x.repeat_interleave(k, dim=0), starting_at(t, "flow")
    x0 = sg.sample(prior, start=rows, seed=seed, steps=steps, grid=grid, eta=1.0, dtype=x.dtype).samples
    w = (-loss(x0, y.repeat_interleave(k, dim=0))).reshape(len(x), k, 1).softmax(dim=1)
    x0 = x0.reshape(len(x), k, -1)
    return prior.schedule.alpha(t) / prior.schedule.sigma(t) ** 2 * (x0.mean(dim=1) - (w * x0).sum(dim=1))


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.cosine_similarity(a, b, dim=1).mean().item()


def length(a: Tensor, b: Tensor) -> float:
    return (a.norm(dim=1) / b.norm(dim=1)).median().item()


def off(a: Tensor, b: Tensor) -> float:
    """Relative distance of all rows together."""
    return ((a - b).norm() / b.norm()).item()


def gradient(*where: Any, weighed: int = 0, **way: Any) -> Tensor:
    """By one of WAYS."""
    *at, seed = where
    return by_weights(*at, weighed, seed, **way) if weighed else looked_ahead(*at, seed, **way)


def cosines(num: int, times: tuple[float, ...], ways: dict[str, dict[str, Any]], thin: int = 1) -> list[dict[str, Any]]:
    """A row for each prior, loss, time and way."""
    rows = []
    for name in ("rings", "textures"):
        make, losses, pairs = PRIORS[name]
        prior = make()
        for t in tqdm(times, desc=name):
            x, y = noised(prior, t, num)
            for called, loss in losses.items():
                known = [exact(prior, x, t, loss, y, pairs // thin, seed) for seed in (0, 1)]
                soft, mean = ((a + b) / 2 for a, b in zip(*known, strict=True))
                end = looked_ahead(prior, x, t, loss, y, n=END)
                error = off(known[0][0], known[1][0]) / math.sqrt(2)
                for way, settings in ways.items():
                    seeds = range(SEEDS if settings.keys() & {"path", "weighed"} else 1)
                    each = [gradient(prior, x, t, loss, y, seed, **settings) for seed in seeds]
                    row = {"prior": name, "loss": called, "t": t, "way": way, "error": error}
                    for truth, known_gradient in (("exact", soft), ("value", mean), ("end", end)):
                        row[f"cosine, {truth}"] = fmean(cosine(g, known_gradient) for g in each)
                        row[f"length, {truth}"] = fmean(length(g, known_gradient) for g in each)
                    rows.append(row)
    return rows


def samples(num: int, counts: dict[str, tuple[int, ...]], lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row for each prior, way, number of look-aheads K and steps of each: distance to exact."""
    rows, t = [], 0.6
    for name, called in SAMPLED:
        make, losses, pairs = PRIORS[name]
        prior, loss = make(), losses[called]
        x, y = noised(prior, t, num)
        soft, _ = exact(prior, x, t, loss, y, pairs)
        for way, many in counts.items():
            for steps in tqdm(lengths, desc=f"{name}, {way}"):
                for k in many:
                    settings = {"n": "all", "path": "fresh", "samples": k} if way == "path" else {"weighed": k}
                    each = [gradient(prior, x, t, loss, y, seed, steps=steps, **settings) for seed in range(SEEDS)]
                    far = torch.cat([(g - soft).norm(dim=1) / soft.norm(dim=1) for g in each])
                    row = {"prior": name, "loss": called, "t": t, "way": way, "steps": steps, "K": k}
                    rows.append(row | {"off exact": far.median().item(), "worst": far.max().item()})
    return rows


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def main() -> None:
    given = arguments(__doc__, ["cosines", "samples"], "two samples, one time", device=False)
    torch.set_default_dtype(torch.float64)
    if "samples" not in given.words or "cosines" in given.words:
        few = {"one": WAYS["one"], "ode 4": WAYS["ode 4"]}
        rows = cosines(2, TIMES[:1], few, 50) if given.quick else cosines(NUM, TIMES, WAYS)
        print(table(rounded(rows)))
        if not given.quick:
            print("written:", save("theory-cosines", rows))
    if "cosines" not in given.words or "samples" in given.words:
        rows = samples(2, {"path": (4,), "weights": (4,)}, (4,)) if given.quick else samples(NUM, COUNTS, LENGTHS)
        print(table(rounded(rows)))
        if not given.quick:
            print("written:", save("theory-samples", rows))


if __name__ == "__main__":
    main()
