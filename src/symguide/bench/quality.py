"""What a gradient's accuracy buys: guided samples of the scenes world, with the gradient taken by every way.

Recipe, model, noise and strengths are the same for all; nothing is chosen for any. Ways whose look-ahead is DDIM's
(`exact, ddim`, the first call's Jacobian, none, the vanilla adjoint, FlowGrad) have one clean estimate too, so that
between them the gradient is all that differs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from symguide.bench.flowgrad import FlowGrad
from symguide.bench.gradients import Tick, missing
from symguide.bench.invertible import BdiaWay, EdictWay
from symguide.bench.kept import Keep, Row, unkept
from symguide.bench.ode import OdeintAdjoint, OdeintAdjointRatio
from symguide.bench.programs import Approximation, Ours
from symguide.bench.sde import ReversibleHeun
from symguide.bench.way import Metered, Task, Way, by_autograd
from symguide.bench.world import World, loaded
from symguide.call import GuidedPredictor
from symguide.denoiser import Denoiser, Level, Prediction
from symguide.lookahead import lookahead_gradient
from symguide.loop import sample
from symguide.loss_guidance import SAG
from symguide.step import Step

EXACT = Ours("exact", memory="fast")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        tasks: of the scenes world.
        n: network calls of the look-ahead.
        strengths, steps: of the guided run.
        seeds, num: the runs of every row, and samples of each.
        looked, times: samples whose gradients are compared with the flow's, and where.
        fine: calls of the grid that stands for the flow.
        real: held-out pictures that the Frechet distance is taken to.
    """

    tasks: tuple[str, ...] = ("identity",)
    n: int = 4
    strengths: tuple[float, ...] = (0.3, 0.9)
    steps: int = 25
    seeds: tuple[int, ...] = (0, 1, 2)
    num: int = 16
    looked: int = 8
    times: tuple[float, ...] = (0.9, 0.6, 0.3)
    fine: int = 64
    real: int = 2048


QUICK = Plan(strengths=(0.3,), steps=3, seeds=(0,), num=4, looked=2, times=(0.6,), fine=16, real=128)


@dataclass(frozen=True)
class Guide:
    """SAG's step with the gradient of one way, behind a look-ahead of n calls; `steps` are those of the way's sampler.

    EDICT makes two calls a step, and reversible Heun one more than it has steps.
    """

    way: Way
    n: int
    solver: str
    steps: int

    def recipe(self, objective: Any, strength: float) -> SAG:
        """The recipe; ours shares the sampler's own call with the look-ahead, which others' ways make once more."""
        if isinstance(self.way, Ours):
            return SAG(objective, n=self.n, scale=strength, solver=self.solver, grid="flow", **self.way.settings)
        return ByWay(objective, self, strength)

    @property
    def names(self) -> Row:
        """What tells it apart in a table."""
        return {"way": self.way.name, "solver": self.solver, "n": self.n}


def guides(n: int) -> tuple[Guide, ...]:
    """All that are compared at n calls, at least 2; the exact gradient at fewer calls is what they have to beat."""
    shorter = [k for k in (1, 2) if k < n]
    identity = Approximation("identity", "identity")
    return (
        *(Guide(EXACT, k, "ddim", k) for k in (*shorter, n)),
        Guide(EXACT, n, "dpmpp_2m", n),
        Guide(Approximation("first", "first call alone"), n, "ddim", n),
        *(Guide(identity, k, "ddim", k) for k in (1, n)),
        Guide(OdeintAdjoint(), n, "ddim", n),
        Guide(OdeintAdjointRatio(), n, "ddim", n),
        Guide(ReversibleHeun(), n, "reversible Heun", n - 1),
        Guide(EdictWay(), n, "EDICT", n // 2),
        Guide(BdiaWay(), n, "BDIA", n),
        Guide(FlowGrad(), n, "ddim", n),
    )


class ByWay(SAG):
    """SAG with another way's gradient.

    Cost of a guided step per sample: the sampler's own forward call and the way's calls.
    """

    def __init__(self, objective: Any, guide: Guide, scale: float) -> None:
        super().__init__(objective, n=guide.n, scale=scale)
        self.guide_by = guide

    def gradient(self, step: Step) -> tuple[Tensor, Tensor]:
        objective, losses = self.objective_at(step), []

        def heard(x0: Tensor) -> Tensor:
            loss = objective(x0)
            losses.append(loss.detach())
            return loss

        guide = self.guide_by
        gradient = guide.way.gradient(Task(Told(step.run.predict), heard, step.t, guide.steps, guide.solver), step.x)
        return gradient, losses[-1]


class Told(Denoiser):
    """A denoiser that predicts what the sampler does, conditions and guidance included."""

    def __init__(self, predict: GuidedPredictor) -> None:
        self.__dict__.update(predict.denoiser.__dict__)
        self.predict = predict

    def __call__(self, x: Tensor, t: Level, **condition: Any) -> Prediction:
        assert not isinstance(t, Tensor)
        return self.predict(x, t)


def chosen(plan: Plan, ways: Sequence[str] = ()) -> list[Guide]:
    """The plan's rows of these ways, all where there are none."""
    return [guide for guide in guides(plan.n) if not ways or guide.way.name in ways]


def work(plan: Plan, rows: Sequence[Guide]) -> int:
    """How many times `accuracy` and `samples` tick."""
    there = [guide for guide in rows if not missing(guide.way)]
    runs = len(plan.seeds) * (1 + len(plan.strengths) * len(there))
    return len(plan.tasks) * (runs + len(plan.times) * len(there))


def world(plan: Plan, device: str) -> tuple[World, Metered]:
    """The scenes model with its judge, and what counts its calls."""
    metered = Metered(loaded("scenes", device))
    return World(device, metered, real=plan.real), metered


def samples(
    plan: Plan, rows: Sequence[Guide], on: World, meter: Metered, tick: Tick, keep: Keep = unkept
) -> Iterator[Row]:
    """A row for every task, way, strength and seed: what guided samples are like, and what they cost.

    Calls of a sample are counted at the network, in both directions.
    """
    there = [guide for guide in rows if not missing(guide.way)]

    def measure(name: str, guide: Guide | None, strength: float, seed: int) -> Row:
        before = replace(meter.passes)
        made = on.measure(name, _maker(guide, strength), seed, plan.num, plan.steps)
        forward, backward = meter.passes.forward - before.forward, meter.passes.backward - before.backward
        return {**made, "forward": forward / plan.num, "backward": backward / plan.num}

    for name in plan.tasks:
        yield from ({"task": name, **guide.names, "missing": guide.way.library} for guide in rows if guide not in there)
        runs = [(None, 0.0), *((guide, strength) for strength in plan.strengths for guide in there)]
        for guide, strength in runs:
            names = {"way": "unguided", "solver": "", "n": 0} if guide is None else guide.names
            for seed in plan.seeds:
                what = {"task": name, **names, "strength": strength, "seed": seed}
                yield keep(what, partial(measure, name, guide, strength, seed))
                tick(f"{name}: {names['way']}")


def _maker(guide: Guide | None, strength: float) -> Callable[[Any], SAG] | None:
    return None if guide is None else lambda objective: guide.recipe(objective, strength)


def accuracy(plan: Plan, rows: Sequence[Guide], on: World, tick: Tick, keep: Keep = unkept) -> Iterator[Row]:
    """A row for every task, way and time: mean cosines of its gradients on the way of unguided samples.

    flow: with the gradient along a fine grid of Heun's rule, which stands for the flow's.
    own: with that of autograd through the way's own discretisation. Only a gradient's direction guides.
    """
    for name in plan.tasks:
        goal = on.task(name, range(plan.looked))
        told, objective = on.told(goal), on.aim(goal)
        run = sample(on.denoiser, batch=plan.looked, steps=10, return_trajectory=True, **told)
        denoiser = Told(GuidedPredictor(on.denoiser, told.get("condition"), told.get("prediction")))
        assert run.trajectory is not None
        for t in plan.times:
            step = min(run.trace, key=lambda record: abs(record.t - t))
            compared = _Compared(denoiser, objective, run.trajectory[step.index], step.t, plan.fine)
            for guide in rows:
                if not missing(guide.way):
                    yield keep({"task": name, **guide.names, "t": step.t}, partial(compared.cosines, guide))
                    tick(f"{name}: gradients, {guide.way.name}")


class _Compared:
    """Cosines of gradients at the samples x at time t; the flow's is computed once, where it is first asked for."""

    def __init__(self, denoiser: Denoiser, objective: Any, x: Tensor, t: float, fine: int) -> None:
        self.denoiser, self.objective, self.x, self.t, self.fine = denoiser, objective, x, t, fine

    @cached_property
    def flow(self) -> Tensor:
        return lookahead_gradient(self.denoiser, self.x, self.t, self.objective, self.fine, "heun").value

    def cosines(self, guide: Guide) -> Row:
        task = Task(self.denoiser, self.objective, self.t, guide.steps, guide.solver)
        with self.denoiser.frozen():
            made = guide.way.gradient(task, self.x)
            own = by_autograd(guide.way, task, self.x)
            return {"flow": cosine(made, self.flow), "own": cosine(made, own)}


def cosine(a: Tensor, b: Tensor) -> float:
    """Mean over samples of the cosine of the angle between two gradients."""
    return F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1).mean().item()
