"""Look-ahead to the clean sample, and the exact gradient of an objective there.

The look-ahead runs a solver's program of n network calls from (x_t, t) to the clean sample. Its gradient is the same
program read backwards: a `Linear` node passes c_j * cotangent on, a `Predict` node makes one vector-Jacobian product
with the network at its stored input. That is the gradient of the discretised map to round-off, for every solver; for
one-stage steps it is the symplectic Euler pair of Pan et al., "Towards Accurate Guided Diffusion Sampling through
Symplectic Adjoint Method" (2312.12030), for Runge-Kutta steps the symplectic partner of Sanz-Serna (2016) and
Matsubara et al. (2021). What remains is the discretisation error of the n-step estimate itself.

Only the inputs of the network calls are stored. The objective's graph is freed before the sweep, and the sweep holds
one network graph at a time, or as many as `memory` says.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from symguide.call import Call, GuidedPredictor
from symguide.condition import expand_condition
from symguide.denoiser import Denoiser, Prediction, times
from symguide.errors import ConfigError, GuidanceError, unknown, whole
from symguide.frames import by_frames
from symguide.kept_graphs import KeptGraphs
from symguide.loss import Cotangent, GradientOf, Objective, require_finite
from symguide.memory_plan import MemoryPlan, check_memory
from symguide.modules import refuse_training
from symguide.per_sample import expand, norm
from symguide.schedule import Time
from symguide.solver import Grid, Linear, Predict, Program, choose, trajectory

JACOBIANS = ("exact", "first", "identity")


@dataclass(frozen=True)
class Estimate:
    """Clean estimate x0 (B, ...) of a look-ahead, and `first`, the prediction at (x, t) that it began with."""

    x0: Tensor
    first: Prediction


@dataclass(frozen=True)
class Gradient:
    """Gradient of an objective's sum at x: value (B, ...), loss (B,), the clean estimate, and calls per sample."""

    value: Tensor
    loss: Tensor
    x0: Tensor
    first: Prediction
    forward_calls: int
    backward_calls: int


def lookahead(
    denoiser: Denoiser,
    x: Tensor,
    t: Time,
    n: int = 4,
    solver: str = "best",
    grid: str | Grid | None = None,
    *,
    condition: Mapping[str, Any] | None = None,
    prediction: Any = None,
) -> Estimate:
    """The clean estimate n network calls ahead of (x, t).

    Args:
        denoiser: the model.
        x: noisy samples x_t, (B, ...).
        t: their time in (0, 1], or a tuple of a time for each frame (axis 1 of x) in [0, 1]. Then the network is given
            (B, F) timesteps, all frames arrive after n calls, and frames at t = 0 stay as they are.
        n: network calls; 1 is the one-step (Tweedie) estimate.
        solver: "ddim", "midpoint", "heun", "dpmpp_2m", or a preset: "best" (dpmpp_2m on the flow grid) or "paper"
            (DDIM, uniform in t).
        grid: "flow" (default), "uniform", "arctan", "karras" or a callable (schedule, t, steps) -> times.
        condition: the network's conditions, as in `sample`.
        prediction: a prediction guidance such as `CFG(3.0)`.

    Returns:
        Estimate. Under torch.enable_grad() and with x.requires_grad it is differentiable by plain autograd, at the
        memory of n calls; `lookahead_gradient` gives the same gradient at the memory of one.

    Raises:
        ConfigError: n < 1, t outside (0, 1], unknown names.

    Cost: n forward calls.

    >>> from symguide import GaussianDenoiser
    >>> denoiser = GaussianDenoiser(torch.zeros(2, dtype=torch.float64), torch.diag(torch.tensor([0.5, 2.0])))
    >>> x = torch.ones(1, 2, dtype=torch.float64)
    >>> (lookahead(denoiser, x, 0.5, n=64).x0 - denoiser.transport(x, 0.5)).abs().max().item() < 1e-2
    True
    """
    predict = GuidedPredictor(denoiser, expand_condition(condition, len(x), x.device, graph=True), prediction)
    program = checked_program(denoiser, x, t, n, solver, grid)
    first: list[Prediction] = []

    def call(state: Tensor, time: Time) -> Tensor:
        made = predict(state, time)
        if not first:
            first.append(made)
        return made.x0

    return Estimate(run(program, [x], call), first[0])


@torch.inference_mode(mode=False)  # gradients are needed inside, whatever the caller's mode
def lookahead_gradient(
    denoiser: Denoiser,
    x: Tensor,
    t: Time,
    objective: Objective,
    n: int = 4,
    solver: str = "best",
    grid: str | Grid | None = None,
    *,
    memory: MemoryPlan = "minimal",
    jacobian: str = "exact",
    condition: Mapping[str, Any] | None = None,
    prediction: Any = None,
) -> Gradient:
    """Gradient with respect to x of objective(lookahead(x)), exact for the discretised map.

    Args:
        denoiser, x, t, n, solver, grid, condition, prediction: as for `lookahead`.
        objective: clean samples (B, ...) -> loss (B,).
        memory: network graphs kept from the look-ahead for the sweep: "minimal" (the last one, which the sweep needs
            first), "fast" (all n), an int k (the last k; 0 frees even that one while the objective's graph lives), or
            "auto" (as many as fit in half the free memory beside states and objective; "auto:2GB" names the budget).
            The gradient is the same.
        jacobian: "exact" (the sweep), or a named approximation: "first" (only through the first call) or "identity"
            (the gradient at the clean estimate, as MPGD and ECM take it).

    Returns:
        Gradient.

    Raises:
        ConfigError: n < 1, t outside (0, 1], unknown names.
        GuidanceError: a loss that is not (B,), has no gradient path to the sample, or is not finite, or a gradient
            that is not finite.

    Cost per sample: forward n ("fast"), 2n - 1 ("minimal"), 2n - k (an int), n ("first", "identity");
    backward n, 1 for "first", 0 for "identity".

    >>> from symguide import GaussianDenoiser
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> g = lookahead_gradient(denoiser, torch.ones(3, 2), 0.5, lambda x0: (x0**2).sum(dim=1), n=4)
    >>> g.value.shape, g.loss.shape, g.forward_calls, g.backward_calls
    (torch.Size([3, 2]), torch.Size([3]), 7, 4)
    """
    x = x.clone() if x.is_inference() else x
    refuse_training(denoiser.network)
    denoiser = denoiser if jacobian == "identity" else denoiser.differentiable()
    predict = GuidedPredictor(denoiser, expand_condition(condition, len(x), x.device), prediction)
    counter = denoiser.counter
    before = counter.forward, counter.backward
    with predict.denoiser.frozen():
        value, loss, x0, first = sweep(
            predict,
            x,
            checked_program(denoiser, x, t, n, solver, grid),
            GradientOf(objective),
            memory=memory,
            jacobian=jacobian,
        )
    require_finite(loss, norm(value).flatten())
    forward, backward = counter.forward - before[0], counter.backward - before[1]
    return Gradient(value, loss, x0, first.prediction, forward // len(x), backward // len(x))


def sweep(
    predict: GuidedPredictor,
    x: Tensor,
    program: Program,
    cotangent: Cotangent,
    *,
    further: Sequence[Tensor] = (),
    memory: MemoryPlan = "minimal",
    jacobian: str = "exact",
    first: Call | None = None,
) -> tuple[Tensor, Tensor, Tensor, Call]:
    """(gradient at x, loss, x_0, first call): the program read forwards, the cotangent of its x_0 read backwards.

    An objective's cotangent is `GradientOf(objective)`. `first` is the program's first call where the sampler has
    already made it; it is not made twice. `further` are the program's inputs beside x, such as noise, which nothing is
    carried back to.
    """
    if jacobian not in JACOBIANS:
        raise unknown("jacobian", jacobian, JACOBIANS)
    memory = check_memory(memory)
    kept = KeptGraphs(memory if jacobian == "exact" else 0, predict, program, x, first=jacobian == "first")
    x0, calls = record(kept, [x, *further], program, first)
    loss, bar = _asked(kept, calls, cotangent, x0)
    if jacobian == "exact":
        bar = read_backwards(program, calls, bar, wanted=(0,))[0]
    elif jacobian == "first":
        bar = calls[0].vjp(bar)
    return bar, loss, x0, calls[0]


def averaged_sweep(
    predict: GuidedPredictor,
    x: Tensor,
    program: Program,
    cotangent: Cotangent,
    draws: Iterable[Sequence[Tensor]],
    *,
    memory: MemoryPlan = "minimal",
    jacobian: str = "exact",
    first: Call | None = None,
) -> tuple[Tensor, Tensor, Call]:
    """(gradient at x, loss, first call) of look-aheads that part after their first call, k = 1 ... K.

        L = -log (1/K) sum_k exp(-J(x_0^k)),    dL/dx = sum_k w_k dJ(x_0^k)/dx,    w = softmax(-J)

    `draws` are the further inputs of each. They are swept one after the other, and their weighted cotangents of the
    first call are added up before that is differentiated, once: K (n - 1) + 1 VJPs, the memory of one look-ahead.
    Where there is no call but the first, all are one.
    """
    if program.calls == 1:
        further = next(iter(draws))
        settings: dict[str, Any] = {"memory": memory, "jacobian": jacobian, "first": first}
        gradient, loss, _, first = sweep(predict, x, program, cotangent, further=further, **settings)
        return gradient, loss, first
    if jacobian not in JACOBIANS:
        raise unknown("jacobian", jacobian, JACOBIANS)
    memory = check_memory(memory) if jacobian == "exact" else 0
    begin, *rest = program.nodes
    assert isinstance(begin, Predict) and begin.node == 0
    keep = jacobian == "first" or memory == "fast"
    if first is None:
        first = Call(predict, x, begin.t, keep)
    first.wanted = keep
    # values keep their numbers: the first call's is now the last of the inputs
    tail, known = Program(program.inputs + 1, tuple(rest)), first.prediction.x0
    total = torch.full((len(x),), -math.inf, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    bars, count = [torch.zeros_like(x), torch.zeros_like(x)], 0
    for further in draws:
        kept = KeptGraphs(memory, predict, tail, x)
        x0, calls = record(kept, [x, *further, known], tail)
        loss, bar = _asked(kept, calls, cotangent, x0)
        own = [torch.zeros_like(x), bar]
        if jacobian == "exact":
            own = read_backwards(tail, calls, bar, wanted=(0, program.inputs))
        new = torch.logaddexp(total, -loss.to(total))
        before, now = (expand(torch.exp(each - new).to(x), x) for each in (total, -loss.to(total)))
        bars, total, count = [before * a + now * b for a, b in zip(bars, own, strict=True)], new, count + 1
    gradient = bars[1] if jacobian == "identity" else bars[0] + first.vjp(bars[1])
    return gradient, (math.log(count) - total).to(x), first


def _asked(kept: KeptGraphs, calls: Sequence[Call], cotangent: Cotangent, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and cotangent of a clean estimate, beside the graphs that are kept."""
    ask, meter = partial(cotangent, x0), kept.predict.meter
    with kept.beside(calls):
        loss, bar = ask() if meter is None else meter.once((cotangent, x0.shape), ask)
    if loss.shape != (len(x0),) or bar.shape != x0.shape:
        raise GuidanceError(f"a cotangent of x_0 {tuple(x0.shape)} is a loss (B,) and one of its shape")
    return loss, bar


def record(
    kept: KeptGraphs, inputs: list[Tensor], program: Program, first: Call | None = None
) -> tuple[Tensor, list[Call]]:
    """(output, calls): the program read forwards, with what the sweep needs of it."""
    calls: list[Call] = []

    def call(state: Tensor, t: Time) -> Tensor:
        if first is not None and not calls:
            made = first
            made.wanted = kept.wants(0)
        else:
            made = kept.call(len(calls), state, t)
        x0 = made.prediction.x0
        if calls:
            del made.prediction  # the sweep needs the input alone; the first one is the sampler's too
        calls.append(made)
        return x0

    with torch.no_grad():
        return run(program, inputs, call), calls


def run(program: Program, inputs: list[Tensor], call: Callable[[Tensor, Time], Tensor]) -> Tensor:
    """The output of a program; values are freed after their last use."""
    last_use = {j: k for k, node in enumerate(program.nodes) for j in _parents(node)}
    values: dict[int, Tensor] = dict(enumerate(inputs))
    for k, node in enumerate(program.nodes):
        if isinstance(node, Predict):
            value = call(values[node.node], node.t)
        else:
            (c, j), *rest = node.terms
            value = times(c, values[j])
            for c, j in rest:
                other = values[j]
                value = value + times(c, other) if isinstance(c, tuple) else torch.add(value, other, alpha=c)
        values[program.inputs + k] = value
        for j in _parents(node):
            if last_use[j] == k:
                values.pop(j, None)
    return values[program.inputs + len(program.nodes) - 1]


def read_backwards(
    program: Program, calls: list[Call], cotangent: Tensor, again: bool = False, wanted: Sequence[int] | None = None
) -> list[Tensor]:
    """The sweep: cotangents of a program's inputs, one VJP for each of its calls whatever their number.

    With `again` the graphs of the calls stay. `wanted` are the inputs that are asked for, all where not given.
    """
    wanted = range(program.inputs) if wanted is None else wanted
    bars: dict[int, Tensor] = {program.inputs + len(program.nodes) - 1: cotangent}
    remaining = list(calls)
    for k in reversed(range(len(program.nodes))):
        node = program.nodes[k]
        bar = bars.pop(program.inputs + k, None)
        if bar is None:  # the way there was forgotten: time travel to where all is noise
            remaining = remaining[:-1] if isinstance(node, Predict) else remaining
            continue
        if isinstance(node, Predict):
            passed = [(node.node, remaining.pop().vjp(bar, again))]
        else:
            passed = [(j, times(c, bar)) for c, j in node.terms if j >= program.inputs or j in wanted]
        for j, part in passed:
            bars[j] = bars[j] + part if j in bars else part
    return [bars[j] if j in bars else torch.zeros_like(cotangent) for j in wanted]


def _parents(node: Linear | Predict) -> tuple[int, ...]:
    return (node.node,) if isinstance(node, Predict) else tuple(j for _, j in node.terms)


def checked_program(denoiser: Denoiser, x: Tensor, t: Time, n: int, solver: str, grid: str | Grid | None) -> Program:
    """The program of a look-ahead from (x, t); ConfigError where they are none, and for n < 1."""
    if x.ndim < 2:
        raise ConfigError(f"x must be a batch of samples (B, ...), not of shape {tuple(x.shape)}")
    if isinstance(t, tuple):
        if len(t) != x.shape[1] or not all(0 <= r <= 1 for r in t) or not any(t):
            raise ConfigError(f"t is a time in [0, 1] for each of {x.shape[1]} frames, one of them noisy, and not {t}")
    elif not 0 < t <= 1:
        raise ConfigError(f"t must be in (0, 1], not {t}")
    return lookahead_program(denoiser, t, n, solver, grid)


def lookahead_program(denoiser: Denoiser, t: Time, n: int, solver: str, grid: str | Grid | None) -> Program:
    """The program of an n-call look-ahead from t; ConfigError for n < 1."""
    try:
        n = whole(n, "n", 1)
    except ConfigError:
        raise ConfigError(f"a look-ahead needs n >= 1 network calls, a whole number, and got n = {n!r}") from None
    name, grid = choose(solver, grid)
    start = partial(trajectory, name, denoiser.schedule, grid, n=n)
    if not isinstance(t, tuple):
        return start(float(t))
    return by_frames([start(float(r)) if r > 0 else Program(1, ()) for r in t], [0.0] * len(t))
