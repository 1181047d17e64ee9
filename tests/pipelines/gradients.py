"""Gradients inside pipelines to compare with: central differences, and the pipeline's own code with a graph."""

import functools

import torch
from zoo import bright

import symguide as sg
from symguide.denoiser import Prediction
from symguide.pipelines.decode import decoder
from symguide.pipelines.levels import levels
from symguide.pipelines.modules import networks
from symguide.pipelines.record import Recorder


class Looks(sg.SAG):
    """Guides nothing, and at one step takes gradients of look-aheads of n calls, beside central differences."""

    distances = (1e-4, 1e-3)

    def __init__(self, objective, *calls, at=1):
        super().__init__(objective, n=max(calls), scale=1.0)
        self.calls, self.at, self.seen = calls, at, []

    def guide(self, step):
        if step.index == self.at:
            self.seen.extend(self.look(step, n) for n in self.calls)

    def look(self, step, n):
        denoiser, x = step.run.predict.denoiser, step.x.double()  # some pipelines draw float32 whatever they are
        gradient = sg.lookahead_gradient(denoiser, x, step.t, self.objective, n).value
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)

        @torch.no_grad()
        def loss(h):
            return self.objective(sg.lookahead(denoiser, x + h * direction, step.t, n).x0)

        slopes = torch.stack([(loss(h) - loss(-h)) / (2 * h) for h in self.distances])
        got = (gradient * direction).flatten(1).sum(dim=1)
        error = ((slopes - got) / got).abs().amin(dim=0)  # at the best of these distances: rounding wants the larger
        return gradient, error


def own_gradient(pipe, call, at=1):
    """The gradient at x_t through the pipeline's own code, run with a graph from the sample of that step on."""
    scheduler, known = pipe.scheduler, levels(pipe.scheduler)
    stock, schedule, count = scheduler.step, known.schedule, iter(range(100))
    recorder = Recorder(networks(pipe))

    @functools.wraps(stock)
    def step(model_output, timestep, sample, *args, **kwargs):
        index, calls = next(count), recorder.take()
        if index == at:
            every = [float(value) for value in scheduler.timesteps]
            t = known.times(scheduler)[every.index(float(timestep))]
            weights = schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t)
            estimate = Prediction(known.ours(sample, t), model_output, known.predicts, *weights).x0
            rows = len(call["class_labels"]) if "class_labels" in call else len(sample)
            loss = bright(decoder(pipe, calls, False)(estimate[:rows])).sum()
            gradient = torch.autograd.grad(loss, sample)[0]
            gradient = gradient.unflatten(0, (-1, rows)).sum(dim=0)  # DiT's halves are one sample, twice
            raise Found(gradient / schedule.alpha(t) if known.exploded else gradient)
        result = stock(model_output.detach(), timestep, sample.detach(), *args, **kwargs)
        x_s = (result[0] if isinstance(result, tuple) else result.prev_sample).detach().requires_grad_(index == at - 1)
        if isinstance(result, tuple):
            return (x_s, *result[1:])
        result.prev_sample = x_s
        return result

    scheduler.step = step
    recorder.attach()
    try:
        with torch.enable_grad():
            type(pipe).__call__.__wrapped__(pipe, **call, generator=torch.Generator().manual_seed(0))
    except Found as found:
        return found.args[0]
    finally:
        recorder.detach()
        del scheduler.step
    raise AssertionError(f"the pipeline made no step {at}")


class Found(Exception):
    """The gradient: the rest of the run is not needed."""
