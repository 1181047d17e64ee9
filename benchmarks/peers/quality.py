"""What a gradient's accuracy buys: guided samples of the scenes world, with the gradient taken by every way.

Recipe, model, noise and strengths are the same for all; nothing is chosen for any. Ways whose look-ahead is DDIM's
(`exact, ddim`, the first call's Jacobian, none, the vanilla adjoint, FlowGrad) have one clean estimate too, so that
between them the gradient is all that differs.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from benchmarks.lines import Panel, draw_lines
from benchmarks.peers.benchmark import Results, Setup, Tick, planned, text
from benchmarks.peers.flowgrad import FlowGrad
from benchmarks.peers.invertible import BdiaWay, EdictWay
from benchmarks.peers.ode import OdeintAdjoint, OdeintAdjointRatio
from benchmarks.peers.programs import Approximation, Ours
from benchmarks.peers.sde import ReversibleHeun
from benchmarks.peers.way import Metered, Problem, Way, by_autograd
from benchmarks.world import FIGURES, World, loaded, over_seeds
from symguide.call import GuidedPredictor
from symguide.denoiser import Denoiser, Level, Prediction
from symguide.lookahead import lookahead_gradient
from symguide.loop import sample
from symguide.loss_guidance import SAG
from symguide.report import Column, Section, Table, render_page
from symguide.rows import Row, Rows
from symguide.step import Step

EXACT = Ours("exact", memory="fast")
Key = tuple[float, str, str, int]

TITLE = "What a gradient's accuracy buys"
LEAD = (
    "Guided samples of the scenes model with the gradient of the look-ahead taken by every way: same steps, noise and "
    "strengths for all, nothing chosen. Rows stand in the order of their network calls."
)
FIGURE_NOTE = (
    "Mean and standard deviation over seeds; scorer: the loss that guidance follows; judge: the same by a network that "
    "guidance never saw, lower is better; shape: how often the judge reads the shape that was asked for; Frechet: "
    "distance to held-out pictures in the judge's features. Calls of one sample, counted at the network."
)
COSINE_NOTE = (
    "cosine: between the way's gradient and that of autograd through its own discretisation (own map), and that along "
    "a fine grid (flow); mean over samples and times on the way of unguided samples."
)


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
        return ByWay(objective, n=self.n, scale=strength, guide_by=self)

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


@dataclass(frozen=True, kw_only=True)
class ByWay(SAG):
    """SAG with the gradient of `guide_by`.

    Cost of a guided step per sample: the sampler's own forward call and the way's calls.
    """

    guide_by: Guide

    def gradient(self, step: Step) -> tuple[Tensor, Tensor]:
        objective, losses = self.objective_at(step), []

        def heard(x0: Tensor) -> Tensor:
            loss = objective(x0)
            losses.append(loss.detach())
            return loss

        guide = self.guide_by
        gradient = guide.way.gradient(
            Problem(GuidedDenoiser(step.run.predict), heard, step.t, guide.steps, guide.solver), step.x
        )
        return gradient, losses[-1]


class GuidedDenoiser(Denoiser):
    """A denoiser that predicts what the sampler does, conditions and guidance included."""

    def __init__(self, predict: GuidedPredictor) -> None:
        self.__dict__.update(predict.denoiser.__dict__)
        self.predict = predict

    def __call__(self, x: Tensor, t: Level, **condition: Any) -> Prediction:
        assert not isinstance(t, Tensor)
        return self.predict(x, t)


def by_name(plan: Plan, ways: Sequence[str] = ()) -> list[Guide]:
    """The plan's rows of these ways, all where there are none."""
    return [guide for guide in guides(plan.n) if not ways or guide.way.name in ways]


def work(plan: Plan, rows: Sequence[Guide]) -> int:
    """How many times `accuracy` and `samples` tick."""
    there = [guide for guide in rows if not guide.way.missing]
    runs = len(plan.seeds) * (1 + len(plan.strengths) * len(there))
    return len(plan.tasks) * (runs + len(plan.times) * len(there))


def world(plan: Plan, device: str) -> tuple[World, Metered]:
    """The scenes model with its judge, and what counts its calls."""
    metered = Metered(loaded("scenes", device))
    return World(device, metered, real=plan.real), metered


def samples(
    plan: Plan, rows: Sequence[Guide], on: World, meter: Metered, tick: Tick, kept: Rows | None = None
) -> Iterator[Row]:
    """A row for every task, way, strength and seed: what guided samples are like, and what they cost.

    Calls of a sample are counted at the network, in both directions.
    """
    kept, there = kept or Rows(), [guide for guide in rows if not guide.way.missing]

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
                yield kept.get(what, partial(measure, name, guide, strength, seed))
                tick(f"{name}: {names['way']}")


def _maker(guide: Guide | None, strength: float) -> Callable[[Any], SAG] | None:
    return None if guide is None else lambda objective: guide.recipe(objective, strength)


def accuracy(plan: Plan, rows: Sequence[Guide], on: World, tick: Tick, kept: Rows | None = None) -> Iterator[Row]:
    """A row for every task, way and time: mean cosines of its gradients on the way of unguided samples.

    flow: with the gradient along a fine grid of Heun's rule, which stands for the flow's.
    own: with that of autograd through the way's own discretisation. Only a gradient's direction guides.
    """
    kept = kept or Rows()
    for name in plan.tasks:
        goal = on.task(name, range(plan.looked))
        told, objective = on.conditioning(goal), on.objective(goal)
        run = sample(on.denoiser, batch=plan.looked, steps=10, return_trajectory=True, **told)
        denoiser = GuidedDenoiser(GuidedPredictor(on.denoiser, told.get("condition"), told.get("prediction")))
        assert run.trajectory is not None
        for t in plan.times:
            step = min(run.trace, key=lambda record: abs(record.t - t))
            compared = _Compared(denoiser, objective, run.trajectory[step.index], step.t, plan.fine)
            for guide in rows:
                if not guide.way.missing:
                    yield kept.get({"task": name, **guide.names, "t": step.t}, partial(compared.cosines, guide))
                    tick(f"{name}: gradients, {guide.way.name}")


class _Compared:
    """Cosines of gradients at the samples x at time t; the flow's is computed once, where it is first asked for."""

    def __init__(self, denoiser: Denoiser, objective: Any, x: Tensor, t: float, fine: int) -> None:
        self.denoiser, self.objective, self.x, self.t, self.fine = denoiser, objective, x, t, fine

    @cached_property
    def flow(self) -> Tensor:
        return lookahead_gradient(self.denoiser, self.x, self.t, self.objective, self.fine, "heun").value

    def cosines(self, guide: Guide) -> Row:
        problem = Problem(self.denoiser, self.objective, self.t, guide.steps, guide.solver)
        with self.denoiser.frozen():
            made = guide.way.gradient(problem, self.x)
            own = by_autograd(guide.way, problem, self.x)
            return {"flow": cosine(made, self.flow), "own": cosine(made, own)}


def cosine(a: Tensor, b: Tensor) -> float:
    """Mean over samples of the cosine of the angle between two gradients."""
    return F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1).mean().item()


@dataclass(frozen=True)
class Quality(Results):
    """What `symguide bench quality` measured."""

    samples: list[Row]
    accuracy: list[Row]
    settings: dict[str, Any]
    name = "quality"
    shown = ("threads", "n", "steps", "seeds", "num", "looked", "times", "fine", "real")

    @property
    def results(self) -> dict[str, Any]:
        rows = {"samples": Table([], self.samples).records(), "accuracy": Table([], self.accuracy).records()}
        return {"settings": self.settings, **rows}

    @property
    def text(self) -> str:
        parts = [f"{task}\n\n{table(self.samples, self.accuracy, task)}\n" for task in self.tasks]
        return text([*parts, FIGURE_NOTE, COSINE_NOTE])

    def page(self, command: str, facts: Mapping[str, str]) -> str:
        sections = []
        for task in self.tasks:
            notes = [FIGURE_NOTE, COSINE_NOTE]
            sections.append(
                Section(task, table=table(self.samples, self.accuracy, task), svg=_plot(self.samples, task, "judge"))
            )
            sections.append(Section(f"{task}: Frechet distance", svg=_plot(self.samples, task, "frechet"), notes=notes))
        return render_page(TITLE, LEAD, command, sections, facts)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(row["task"] for row in self.samples))


def run(setup: Setup, **chosen: Sequence[Any]) -> Quality:
    """Measure guided samples with the gradient by every way.

    Args:
        setup: where and how; its seed is that of the first run, and the next ones have the next seeds.
        chosen: of the plan's tasks, and names of ways; the plan's, and all ways, where there are none.
    """
    names, plan = chosen.pop("ways", ()), planned(QUICK if setup.quick else Plan(), chosen)
    plan = replace(plan, seeds=tuple(setup.seed + k for k in plan.seeds))
    rows = by_name(plan, names)
    settings = setup.settings(plan, names)
    with setup.measuring(settings, work(plan, rows)) as (tick, kept):
        on, meter = world(plan, setup.device)
        cosines = list(accuracy(plan, rows, on, tick, kept))
        made = list(samples(plan, rows, on, meter, tick, kept))
    return Quality(made, cosines, settings)


def table(samples: Sequence[Row], accuracy: Sequence[Row], task: str) -> Table:
    """One line for every strength, way and n of a task, by strength and calls."""
    columns = [Column("strength", "strength"), Column("way", "way"), Column("solver", "solver"), Column("n", "n")]
    columns += [Column("forward", "forward\ncalls", "{:.0f}"), Column("backward", "backward\ncalls", "{:.0f}")]
    columns += [Column(title, title) for title in (*FIGURES, "seconds")]
    columns += [Column("own", "cosine\nown map", "{:.3f}"), Column("flow", "cosine\nflow", "{:.3f}")]
    lines = []
    for (strength, *names), cells in _by_way(samples, task).items():
        what = {"strength": strength or None, **dict(zip(("way", "solver", "n"), names, strict=True))}
        looked = [row for row in accuracy if row["task"] == task and [row["way"], row["solver"], row["n"]] == names]
        cosines = {key: statistics.mean(row[key] for row in looked) for key in ("own", "flow") if looked}
        calls = {key: statistics.mean(cell[key] for cell in cells) for key in ("forward", "backward")}
        lines.append({**what, **over_seeds(cells, FIGURES), **calls, **cosines})
    lines.sort(key=lambda line: (line["strength"] or 0, line["forward"] + line["backward"]))
    absent = [row for row in samples if row["task"] == task and "missing" in row]
    return Table(columns, [*lines, *({"way": row["way"], "solver": f"needs {row['missing']}"} for row in absent)])


def _by_way(samples: Sequence[Row], task: str) -> dict[Key, list[Row]]:
    """The rows of all seeds together, by strength, way, solver and n."""
    cells: dict[Key, list[Row]] = {}
    for row in samples:
        if row["task"] == task and "missing" not in row:
            cells.setdefault((row["strength"], row["way"], row["solver"], row["n"]), []).append(row)
    return cells


def _plot(samples: Sequence[Row], task: str, figure: str) -> str:
    """A figure against network calls, a panel for each strength, a line through the n of a way."""
    panels: dict[float, dict[str, list[tuple[float, float]]]] = {}
    for (strength, way, solver, _), cells in _by_way(samples, task).items():
        if strength:
            name = f"{way}, {solver}" if way == "exact" else way
            mean = {key: statistics.mean(cell[key] for cell in cells) for key in ("forward", "backward", figure)}
            lines = panels.setdefault(strength, {})
            lines.setdefault(name, []).append((mean["forward"] + mean["backward"], mean[figure]))
    return draw_lines(
        [Panel(f"{figure}, strength {strength}", "network calls", lines) for strength, lines in panels.items()]
    )
