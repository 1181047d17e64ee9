"""Oracles that owe nothing to guide: the pipeline's own code, run again, and formulas written down here.

The clean estimate of n = 1 is differentiated through the pipeline's own code. That of n = 3 is drawn by the pipeline
itself: from x_k on it is sent to the times of the look-ahead, with a DPM-Solver++(2M) of our own in place of its
scheduler's step.
"""

import functools
import inspect
import math
import random
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from symguide.pipelines.modules import networks


class Found(Exception):
    """What was asked for: the rest of the run is not needed."""


def drawn(pipe, call, inner=False):
    """Everything that a call returns, as a list of tensors; `inner` without the pipeline's no_grad."""
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0)  # some encode their pictures at random, and ask no generator
    run = type(pipe).__call__
    if "generator" in inspect.signature(run).parameters:
        call = {"generator": torch.Generator().manual_seed(0)} | call
    if inner:
        with torch.enable_grad():
            return run.__wrapped__(pipe, **call)
    out = pipe(**call)
    values = tree_leaves(dict(out) if hasattr(out, "keys") else out)
    return [
        torch.as_tensor(np.asarray(v)) for v in values if isinstance(v, Tensor | np.ndarray) or hasattr(v, "getdata")
    ]


def same(a, b):
    """Whether two draws agree to the last bit."""
    pairs = zip(a, b, strict=False)
    return len(a) == len(b) > 0 and all(x.shape == y.shape and bool(((x == y) | (x != x)).all()) for x, y in pairs)


def gap(a, b):
    """Largest difference of two tensors, relative to the largest value; infinite for other shapes."""
    if a.shape != b.shape:
        return math.inf
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12))


class Instead:
    """What stands in for a method here. It is none of guide's own, which would take the object for one in use."""

    def __init__(self, owner, name, call):
        functools.update_wrapper(self, getattr(owner, name))
        self.owner, self.name, self.call = owner, name, call

    def __call__(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    def __reduce__(self):
        return getattr, (self.owner, self.name)  # copies of the object have their class's method


@contextmanager
def instead_of(owner, **calls):
    """Methods of an object replaced inside, and as before outside."""
    before = {name: vars(owner)[name] for name in calls if name in vars(owner)}
    vars(owner).update({name: Instead(owner, name, call) for name, call in calls.items()})
    try:
        yield
    finally:
        for name in calls:
            vars(owner).pop(name, None)
        vars(owner).update(before)


class Singles(TorchDispatchMode):
    """Notes whether anything is computed in float32: there, central differences are coarse."""

    supports_higher_order_operators = True

    def __init__(self):
        super().__init__()
        self.seen = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if isinstance(out, Tensor) and out.dtype == torch.float32 and out.numel() > 1:
            self.seen = True
        return out


class Steps:
    """Counts a scheduler's own steps: those of one timestep once, and in `raw` every call."""

    def __init__(self, pipe):
        self.scheduler, self.told, self.raw = getattr(pipe, "scheduler", None), [], 0

    @contextmanager
    def counted(self):
        """Inside, and from 0."""
        self.told, self.raw, stock = [], 0, getattr(self.scheduler, "step", None)
        if not callable(stock):
            yield
            return

        named = inspect.signature(stock)

        def step(*args, **kwargs):
            bound = named.bind(*args, **kwargs).arguments
            timestep = bound.get("timestep", len(self.told))  # KarrasVe's step is told noise levels alone
            place = tuple(torch.as_tensor(timestep).double().flatten().tolist()[:1])
            if not self.told or self.told[-1] != place:
                self.told.append(place)
            self.raw += 1
            return stock(*args, **kwargs)

        with instead_of(self.scheduler, step=step):  # copies of it count for themselves
            yield

    @property
    def count(self):
        return len(self.told)


class Calls:
    """Counts the calls of a pipeline's networks."""

    def __init__(self, pipe):
        self.modules, self.count = networks(pipe), 0

    @contextmanager
    def counted(self):
        """Inside, and from 0."""
        self.count = 0
        handles = [module.register_forward_pre_hook(self._add) for module in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, module, args):
        self.count += 1


class Decodes:
    """What a pipeline's autoencoders make of what they are given."""

    def __init__(self, pipe):
        parts = {name: m for name, m in pipe.components.items() if isinstance(m, torch.nn.Module)}
        decoders = {name: m for name, m in parts.items() if callable(getattr(m, "decode", None))}
        self.modules = [decoders["vae"]] if "vae" in decoders else list(decoders.values())  # not that of sounds, too
        self.made: list[Tensor] = []

    @contextmanager
    def noted(self):
        self.made.clear()
        for module in self.modules:
            vars(module)["decode"] = self._noting(module.decode)
        try:
            yield
        finally:
            for module in self.modules:
                vars(module).pop("decode", None)

    def _noting(self, stock):
        @functools.wraps(stock)
        def decode(*args, **kwargs):
            out = stock(*args, **kwargs)
            first = [
                leaf for leaf in tree_leaves(dict(out) if hasattr(out, "keys") else out) if isinstance(leaf, Tensor)
            ]
            self.made.append(first[0].detach().clone())
            return out

        return decode


def agrees(seen, made):
    """The gap between what an objective saw, (B, C, ...), and what decoders made, in whatever pieces they made it."""
    if not made:
        return math.inf
    whole = [made[-1]]
    if len({m.shape[1:] for m in made}) == 1:
        whole.append(torch.cat(made))
    gaps = []
    for value in whole:
        gaps.append(gap(seen, value))
        if seen.ndim == 5 and value.ndim == 4 and seen.shape[2] and len(value) == len(seen) * seen.shape[2]:
            gaps.append(gap(seen, value.unflatten(0, (len(seen), -1)).transpose(1, 2)))  # frames one by one
        if seen.ndim == value.ndim == 5 and seen.shape[1] == 3 != value.shape[1]:
            gaps.append(gap(seen, value.transpose(1, 2)))  # frames before channels
        if value.ndim == seen.ndim + 1 and value.shape[2] == 1:
            gaps.append(gap(seen, value.squeeze(2)))  # a picture as a video of one frame
    return min(gaps)


def shown(seen, out):
    """The gap between samples of a pixel pipeline and what it returns: pictures in [0, 1], channels first or last."""
    pictures = (seen / 2 + 0.5).clamp(0, 1)
    gaps = [math.inf]
    for value in out:
        if value.ndim == pictures.ndim:
            gaps += [gap(value, pictures), gap(value, pictures.movedim(1, -1))]
            gaps += [gap(value, seen), gap(value, seen.clamp(-1, 1))]
    return min(gaps)


def clean(predicts, x, output, alpha, sigma):
    """The clean sample that an output means, of x = alpha x_0 + sigma eps."""
    if predicts == "eps":
        return (x - sigma * output) / alpha
    if predicts == "v":
        return alpha * x - sigma * output
    return {"x0": output, "flow": x - sigma * output}[predicts]


def predicted(scheduler):
    """What a scheduler takes its outputs for, and whether its states are x_0 + (sigma / alpha) eps."""
    name, kind = type(scheduler).__name__, getattr(scheduler.config, "prediction_type", "epsilon")
    spaces = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
    exploded = any(word in name for word in ("Euler", "LMS", "Heun")) and "Flow" not in name
    return "flow" if "FlowMatch" in name else spaces[kind], exploded


ELSEWHERE = "tests/pipelines/test_wide_families.py"
"""Where gradients are compared with the scheduler's own clean estimate."""


def spoken(scheduler):
    """Whether `predicted` and `clean` know what a scheduler does: not EDM's kinds and angles, see ELSEWHERE."""
    config = scheduler.config
    other = any(word in type(scheduler).__name__ for word in ("EDM", "SCM", "CosineDPM"))
    logarithmic = getattr(config, "timestep_type", None) == "continuous"
    turned = getattr(config, "invert_sigmas", False)
    return not (other or logarithmic or turned or getattr(config, "sigma_data", None))


@contextmanager
def stepping(scheduler, instead):
    """instead(index, stock, output, timestep, sample, ...) in place of a scheduler's step."""
    stock, count = scheduler.step, iter(range(10**6))

    def step(model_output, timestep, sample, *args, **kwargs):
        return instead(next(count), stock, model_output, timestep, sample, *args, **kwargs)

    with instead_of(scheduler, step=step):
        yield


def given(result, x_s):
    """What a scheduler returned, with this sample."""
    if isinstance(result, tuple):
        return (x_s, *result[1:])
    result.prev_sample = x_s
    return result


def sample_of(result):
    return result[0] if isinstance(result, tuple) else result.prev_sample


def own_gradient(pipe, call, at, loss_of, level):
    """d loss / d x_at of the one-call estimate, through the pipeline's own code; in the schedule's terms.

    Args:
        loss_of: clean samples -> loss (B,).
        level: (alpha, sigma) at that step.
    """
    predicts, exploded = predicted(pipe.scheduler)
    alpha, sigma = level
    leaf = None

    def step(index, stock, output, timestep, sample, *args, **kwargs):
        nonlocal leaf
        if index == at:
            assert leaf is not None
            if not sample.is_leaf and leaf.shape == sample.shape and torch.equal(leaf, sample):
                sample = leaf  # where frames are given, the sample is cut out again after the network was called
            x = alpha * sample if exploded else sample
            estimate = clean(predicts, x, output, alpha, sigma)
            rows = len(call["class_labels"]) if "class_labels" in call else len(sample)
            gradient = torch.autograd.grad(loss_of(estimate[:rows]).sum(), sample)[0]
            gradient = gradient.unflatten(0, (-1, rows)).sum(dim=0)  # DiT's halves are one sample, twice
            raise Found(gradient / alpha if exploded else gradient)
        result = stock(output.detach(), timestep, sample.detach(), *args, **kwargs)
        leaf = sample_of(result).detach().requires_grad_(index == at - 1)
        return given(result, leaf)

    with stepping(pipe.scheduler, step):
        try:
            drawn(pipe, call, inner=True)
        except Found as found:
            return found.args[0]
    raise AssertionError(f"the pipeline made no step {at}")


def own_difference(pipe, call, at, loss_of, level, direction):
    """The directional derivative of the same, by central differences through the pipeline's own code."""
    predicts, exploded = predicted(pipe.scheduler)
    alpha, sigma = level

    def loss(h):
        def step(index, stock, output, timestep, sample, *args, **kwargs):
            if index == at:
                x = alpha * sample if exploded else sample
                rows = len(direction)
                raise Found(loss_of(clean(predicts, x, output, alpha, sigma)[:rows]))
            result = stock(output, timestep, sample, *args, **kwargs)
            if index == at - 1:
                x_s = sample_of(result)
                change = h * direction / (alpha if exploded else 1.0)
                result = given(result, x_s + torch.cat([change.to(x_s)] * (len(x_s) // len(change))))
            return result

        with stepping(pipe.scheduler, step):
            try:
                drawn(pipe, call)
            except Found as found:
                return found.args[0]
        raise AssertionError(f"the pipeline made no step {at}")

    return [(loss(h) - loss(-h)) / (2 * h) for h in (1e-4, 1e-3)]


def own_lookahead(pipe, call, at, nodes):
    """The clean estimate that the pipeline itself comes to from x_at, sent to these nodes, and x_at.

    Args:
        nodes: (alpha, sigma, timestep) of every call, the first that of step `at`.

    Source: Lu et al., "DPM-Solver++", 2211.01095, algorithm 2.
    """
    scheduler = pipe.scheduler
    predicts, exploded = predicted(scheduler)
    prepare, noisy, kept, kind = scheduler.set_timesteps, getattr(scheduler, "add_noise", None), [], torch.float64

    def set_timesteps(*args, **kwargs):
        nonlocal kind
        prepare(*args, **kwargs)
        kind = scheduler.timesteps.dtype
        every = scheduler.timesteps.double()
        away = (every - nodes[0][2]).abs()
        place = int((away == away.min()).nonzero().max())  # the last of those that stand twice
        times = torch.cat([every[: place + 1], every.new_tensor([node[2] for node in nodes[1:]])])
        scheduler.timesteps = times.to(kind) if kind.is_floating_point else times
        if getattr(scheduler, "sigmas", None) is not None:
            ratios = [sigma if predicts == "flow" else sigma / alpha for alpha, sigma, _ in nodes[1:]]
            sigmas = torch.as_tensor(scheduler.sigmas)
            scheduler.sigmas = torch.cat([sigmas[: place + 1], sigmas.new_tensor([*ratios, 0.0])])

    def own(timestep):  # tables of noise levels are asked by whole numbers
        return timestep.to(kind) if isinstance(timestep, Tensor) else timestep

    def step(index, stock, output, timestep, sample, *args, **kwargs):
        if index < at:
            return stock(output, own(timestep), sample, *args, **kwargs)
        j = index - at
        alpha, sigma, told = nodes[j]
        if abs(float(timestep) - told) > 1e-3:
            raise LookupError(f"the pipeline went to {float(timestep)} and not to {told}")
        x = alpha * sample if exploded else sample
        kept.append((x.clone(), clean(predicts, x, output, alpha, sigma)))
        if j == len(nodes) - 1:
            raise Found(kept[-1][1], kept[0][0])
        levels = [math.log(a / max(s, 1e-300)) for a, s, _ in nodes]
        h, d = levels[j + 1] - levels[j], kept[-1][1]
        if j > 0:
            r = (levels[j] - levels[j - 1]) / h
            d = (1 + 0.5 / r) * d - 0.5 / r * kept[-2][1]
        a, s, _ = nodes[j + 1]
        x_s = s / sigma * x - a * math.expm1(-h) * d
        if getattr(scheduler, "_step_index", None) is not None:
            scheduler._step_index += 1
        x_s = (x_s / a if exploded else x_s).to(output)  # as schedulers return it
        return (x_s,) if kwargs.get("return_dict") is False else _Out(x_s)

    calls = {"set_timesteps": set_timesteps}
    if noisy is not None:
        calls["add_noise"] = lambda original, noise, timesteps: noisy(original, noise, own(timesteps))
    try:
        with instead_of(scheduler, **calls), stepping(scheduler, step):  # the copies of a scheduler are their own
            drawn(pipe, call)
    except Found as found:
        return found.args
    raise LookupError("the pipeline ended before the look-ahead did")


class _Out(tuple):
    """What schedulers return, by name and by place."""

    def __new__(cls, x_s):
        return super().__new__(cls, (x_s,))

    @property
    def prev_sample(self):
        return self[0]
