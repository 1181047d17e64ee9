"""What guide does in one pipeline: right, right on latents alone, refused in the first step with a sentence, or WRONG.

a  scale 0 draws the same bits
b  the gradient of n = 1 is the pipeline's own graph's (its own central differences' where that has no graph)
c  the gradient of n = 3 is that of central differences, of the estimate that the pipeline itself comes to
d  what objectives see of the last sample is what the pipeline decodes
e  a change of the last step arrives there too, and guidance lowers the loss of what is drawn
f  hooks, schedulers and the next run are what they were
g  a refusal comes in the first step, in one sentence, and nothing is changed
"""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from gradients import Looks
from oracle import (
    ELSEWHERE,
    Calls,
    Decodes,
    Singles,
    Steps,
    agrees,
    drawn,
    gap,
    own_difference,
    own_gradient,
    own_lookahead,
    same,
    shown,
    spoken,
)
from zoo import bright, double

import symguide as sg
from symguide.lookahead import lookahead_program

REFUSED = sg.ConfigError, sg.GuidanceError
AT = 1
"""The step at which gradients are asked for."""


class Refused(Exception):
    """With the sentence."""


class Eye:
    """The objective, which keeps what it saw last."""

    def __init__(self):
        self.seen = None

    def __call__(self, x0):
        self.seen = x0.detach()
        return bright(x0)


class Watch(Looks):
    """Guides nothing; keeps a look-ahead of one step, its gradient, and what the objective sees of the last sample."""

    distances = (1e-4, 1e-3, 1e-2)

    def __init__(self, n, steps):
        super().__init__(Eye(), n, at=AT)
        self.steps = steps
        self.kept = SimpleNamespace(eye=self.objective, last=None)  # guide works with a copy of the recipe

    def guide(self, step):
        if step.index == self.at:
            denoiser, schedule, kept = step.run.predict.denoiser, step.schedule, self.kept
            nodes = lookahead_program(denoiser, step.t, self.calls[0], "best", None).nodes
            times = [node.t for node in nodes if hasattr(node, "t")]
            told = [denoiser.network.clock(schedule.timestep(t)) for t in times]
            kept.nodes = [(schedule.alpha(t), schedule.sigma(t), s) for t, s in zip(times, told, strict=True)]
            kept.x, kept.loss_of = step.x.double(), self.objective
            kept.at = self.steps.raw - 1  # Heun's and PNDM's steps have two halves
            with torch.no_grad():
                kept.x0 = sg.lookahead(denoiser, kept.x, step.t, self.calls[0]).x0
        super().guide(step)
        if step.index == step.run.steps - 1:
            self.objective(step.x_s())
            self.kept.last = self.kept.eye.seen


class Last(sg.MPGD):
    """Guides the last step alone."""

    def __init__(self, steps, decodes):
        super().__init__(Eye(), window=(max(0.0, (steps - 1) / steps - 1e-9), 1.0))
        self.decodes, self.kept = decodes, SimpleNamespace(eye=self.objective, last=None)

    def guide(self, step):
        guided = super().guide(step)
        if guided is not None:
            self.objective(guided.x_s)
            self.kept.last = self.kept.eye.seen
            self.decodes.made.clear()  # what the pipeline decodes comes after this
        return guided


def doubled(value):
    """Tensors of a call in float64."""
    if isinstance(value, list | tuple):
        return type(value)(doubled(one) for one in value)
    if isinstance(value, dict):
        return {key: doubled(one) for key, one in value.items()}
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


class Judge:
    """Of one case, in one folder."""

    def __init__(self, case, folder):
        self.case, self.folder, self.wrong, self.gaps = case, folder, [], {}
        self.notes = list(filter(None, [case.notes.get("note")]))

    def verdict(self):
        """A row of the results."""
        try:
            self._begin()
        except Exception as error:
            return self._row("not built", f"{type(error).__name__}: {_line(error)}")
        if self.case.notes.get("entry"):
            return self._entered()
        kept = ""
        for decode in (True, False) if self.case.notes.get("decode", True) else (False,):
            try:
                self._judged(decode)
            except Refused as refused:
                kept = kept or str(refused)
                if self.wrong:
                    break
                continue
            if not self.wrong:
                return self._row("right" if decode else "right on latents alone", kept)
            break
        return self._row("WRONG", "; ".join(self.wrong)) if self.wrong else self._row("refused", kept)

    def _entered(self):
        """Of a pipeline that is refused when guide is entered, whatever is asked of it."""
        said = []
        for decode in (True, False):
            before = untouched(self.pipe)
            try:
                with sg.guide(self.pipe, loss=sg.SAG(bright), decode=decode):
                    return self._row("WRONG", "not refused where guide is entered")
            except REFUSED as error:
                said.append(str(error))
            self.decode = decode
            self._check(untouched(self.pipe) == before, "something is not what it was")
        return self._row("WRONG", "; ".join(self.wrong)) if self.wrong else self._row("refused", said[0])

    def _row(self, verdict, sentence):
        gaps = {key: float(f"{value:.2g}") if math.isfinite(value) else None for key, value in self.gaps.items()}
        more = {
            "sees": getattr(self, "sees", ""),
            "notes": self.notes,
            "gaps": gaps,
            "steps": getattr(self, "count", 0),
        }
        return {"verdict": verdict, "sentence": sentence, **more}

    def _begin(self):
        """The pipeline in float64, or where it does not run in that in float32, and what it draws unguided."""
        for wide in (True, False) if not self.case.notes.get("single") else (False,):
            torch.set_default_dtype(torch.float32)
            torch.manual_seed(0)
            self.pipe = self.case.make(self.folder)
            self.pipe.set_progress_bar_config(disable=True)
            if self.case.notes.get("entry"):
                return
            self.call = dict(self.case.call)
            if wide:
                double(self.pipe)
                self.call = doubled(self.call)
            try:
                self.steps, self.decodes = Steps(self.pipe), Decodes(self.pipe)
                self.calls = Calls(self.pipe)
                singles = Singles()
                watched = singles if wide else nullcontext()  # some operations cannot be watched
                with self.steps.counted(), self.decodes.noted(), self.calls.counted(), watched:
                    self.plain = drawn(self.pipe, self.call)
                break
            except Exception as error:
                if not wide:
                    raise
                self.notes.append(
                    f"float32: in float64 it fails by itself ({type(error).__name__}: {_line(error)[:80]})"
                )
        self.called = self.calls.count
        self.wide, self.count, self.made = wide, self.steps.count, list(self.decodes.made)
        self.coarse = not wide or singles.seen
        if not same(drawn(self.pipe, self.call), self.plain):
            raise ValueError("without guidance it draws something else each time")
        if not all(bool(v.isfinite().all()) for v in self.plain if v.is_floating_point()):
            raise ValueError("without guidance it draws values that are not finite")

    def _judged(self, decode):
        self.decode = decode
        with self._guided(sg.SAG(bright, n=2, scale=0.0)) as run:
            pass
        self._check(same(run.drawn, self.plain), "scale 0 draws other bits")  # a
        self._lowers()  # first: it guides from the first step on, so a refusal has to come there
        self._looks()
        self._arrives()

    def _check(self, right, what):
        if not right and what not in self.wrong:
            self.wrong.append(what + ("" if self.decode else " (decode=False)"))

    def _within(self, key, value, bound, what):
        self.gaps[key] = max(value, self.gaps.get(key, 0.0))
        self._check(value <= bound, f"{what} ({value:.2g})")

    def _guided(self, loss, call=None):
        return _Guided(self, loss, call or self.call)

    def _looks(self):
        """b, c and d."""
        for n in (1, 3):
            watch, call = Watch(n, self.steps), self.call if n == 1 else self._unmixed()
            try:
                with self._guided(watch, call) as run:
                    pass
            except Refused as refused:
                if n == 1:
                    raise
                self.notes.append(f"n > 1 is refused: {refused}")
                return
            self._check(call is not self.call or same(run.drawn, self.plain), "looking changes what is drawn")
            if not watch.seen:
                self._check(False, f"no step {AT} was guided")
                return
            ((got, error),) = watch.seen
            bound = (5e-2 if not self.wide else 1e-2) if self.coarse else 1e-5
            if not (self.decode and self.case.notes.get("quantises")):  # differences of a quantised sample are 0
                self._within(f"difference {n}", float(error.max()), bound, f"gradient of n = {n}, central differences")
            if n == 1 and not self._elsewhere:
                self._own(watch, got)
            elif n == 1:
                self.notes.append(f"the gradient is compared with the pipeline's own in {ELSEWHERE}")
            if n == 1:
                self._decodes(watch)
            elif not self._elsewhere:
                self._ahead(watch, call)

    @property
    def _elsewhere(self):
        """Whether gradients are compared in another place: what pipelines hold after a step is not known here."""
        notes = self.case.notes
        return notes.get("elsewhere", False) or notes.get("held", False) or not spoken(self.pipe.scheduler)

    def _own(self, watch, got):
        alpha, sigma, _ = watch.kept.nodes[0]
        bound = (1e-3 if not self.wide else 1e-5) if self.coarse else 1e-6
        try:
            expected = own_gradient(self.pipe, self.call, watch.kept.at, watch.kept.loss_of, (alpha, sigma))
            value = float((got - expected).norm() / expected.norm().clamp_min(1e-30))
        except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
            self.notes.append(f"n = 1 by central differences: no graph ({_line(error)[:60]})")
            call, bound = self._unmixed(), 1e-2 if self.coarse else 1e-5
            if call is not self.call:  # a change of the sample would not arrive where the picture is mixed in
                watch = Watch(1, self.steps)
                with self._guided(watch, call):
                    pass
                ((got, _),) = watch.seen
            direction = torch.randn(
                watch.kept.x.shape, generator=torch.Generator().manual_seed(1), dtype=watch.kept.x.dtype
            )
            slopes = own_difference(self.pipe, call, watch.kept.at, watch.kept.loss_of, (alpha, sigma), direction)
            slope = (got * direction).flatten(1).sum(dim=1)
            value = min(float(((s - slope) / slope).abs().max()) for s in slopes)
        self._within("own graph", value, bound, "gradient of n = 1, the pipeline's own")

    def _unmixed(self):
        """The call in which nothing else is mixed into the latents after a step."""
        call = self.case.notes.get("unmixed")
        return self.call if call is None else self.call | (doubled(call) if self.wide else call)

    def _ahead(self, watch, call):
        try:
            x0, x = own_lookahead(self.pipe, call, watch.kept.at, watch.kept.nodes)
        except (LookupError, IndexError, RuntimeError, ValueError, TypeError) as error:
            self.notes.append(
                f"n = 3 by differences of the look-ahead alone ({type(error).__name__}: {_line(error)[:60]})"
            )
            return
        rows = len(watch.kept.x)
        self._within("x", gap(x[:rows], watch.kept.x), 1e-5, "the sample that the look-ahead begins at")
        bound = (1e-3 if not self.wide else 1e-4) if self.coarse else 1e-6
        self._within("ahead", gap(watch.kept.x0, x0[:rows]), bound, "the estimate of n = 3 is not the pipeline's own")

    def _decodes(self, watch):
        seen = tuple(watch.kept.last.shape)
        self.sees = (
            f"{_what(seen)} {' x '.join(map(str, seen))}" if self.decode else f"latents {' x '.join(map(str, seen))}"
        )
        if self.decode and len(seen) == 5:
            self._check(seen[1] in (1, 3, 4), f"objectives see {seen}: not (B, C, F, H, W)")
        if not self.decode or self.case.notes.get("held"):
            return
        made, plain = self.made, self.plain
        if "unmixed" in self.case.notes:
            other = Watch(1, self.steps)
            with self._guided(other, self._unmixed()) as run:
                pass
            watch, made, plain = other, run.made, run.drawn
        bound = 1e-4 if self.coarse else 1e-6
        value = agrees(watch.kept.last, made) if self.decodes.modules else shown(watch.kept.last, plain)
        shapes = (
            f"objectives see {tuple(watch.kept.last.shape)}, the pipeline decodes {[tuple(m.shape) for m in made[-1:]]}"
        )
        self._within("decodes", value, bound, f"something else is decoded than objectives see: {shapes}")

    def _arrives(self):
        """e: the last step's change."""
        last = Last(self.count, self.decodes)
        with self._guided(last, self._unmixed()) as run:
            pass
        if last.kept.last is None:
            self._check(False, "the last step was not guided")
            return
        self._check(not same(run.drawn, self.plain), "a guided last step changes nothing of what is drawn")
        if self.decode and not self.case.notes.get("held"):
            bound = 1e-4 if self.coarse else 1e-6
            value = agrees(last.kept.last, run.made) if self.decodes.modules else shown(last.kept.last, run.drawn)
            self._within("arrives", value, bound, "a change of the last step does not arrive in what is decoded")

    def _lowers(self):
        """e: the loss of what is drawn, and f."""
        eye = bright

        def loss(made, values):
            parts = made[-1:] if made and self.decode else values[:1]
            return float(eye(parts[0].double()[None]).max()) if parts and parts[0].is_floating_point() else math.nan

        rendered = self.case.notes.get("rendered", False)  # what is drawn shows little of the latents' loss
        before, moved = loss(self.made, self.plain), False
        for scale in (0.3, 0.05, 3.0):
            with self.calls.counted(), self._guided(sg.SAG(bright, n=1, scale=scale)) as run:
                pass
            self.gaps["steps made again"] = (self.calls.count - self.called) / max(self.called / max(self.count, 1), 1)
            if self.case.notes.get("once"):
                self._check(self.gaps["steps made again"] <= 1, "calls of more than the first step are made twice")
            lines = [line for line in run.record.trace if line.loss is not None]
            self._check(len(lines) > 0 and all(bool(line.loss.isfinite().all()) for line in lines), "no step is guided")
            moved = moved or not same(run.drawn, self.plain)
            after = loss(run.made, run.drawn)
            if after < before or not self.decode or rendered:
                break
        else:
            if abs(after - before) > 1e-3 * abs(before):
                self._check(False, f"guidance does not lower the loss of what is drawn ({before:.6g} to {after:.6g})")
        self._check(moved, "a guided run draws what the plain one draws")


class _Guided:
    """A guided run, with what was drawn and decoded; and whether everything is as before, after it or a refusal."""

    def __init__(self, judge, loss, call):
        self.judge, self.loss, self.call = judge, loss, call

    def __enter__(self):
        judge = self.judge
        pipe, before = judge.pipe, untouched(judge.pipe)
        sentence = None
        with judge.steps.counted(), judge.decodes.noted():
            try:
                with sg.guide(pipe, loss=self.loss, decode=judge.decode) as self.record:
                    self.drawn = drawn(pipe, self.call)
            except REFUSED as error:
                sentence = str(error)
            except Exception as error:
                judge._check(False, f"{type(error).__name__}: {_line(error)[:160]}")
            reached = judge.steps.count
        self.made = list(judge.decodes.made)
        after = untouched(pipe)
        for key in before:
            judge._check(before[key] == after[key], f"{key} are not what they were")
        if sentence is not None or judge.wrong:
            judge._check(same(drawn(pipe, judge.call), judge.plain), "the next run draws something else")
        if sentence is not None:
            looks = AT if isinstance(self.loss, Watch) else 0  # it asks nothing before that step
            first = reached <= 1 + looks or (reached >= judge.count > 1 and "made no step" in sentence)
            judge._check(first, f"refused after {reached} steps, not in the first: {sentence}")
            judge._check("is in a `guide` already" not in sentence, "the judge itself is in guide's way")
            judge._check("\n" not in sentence and 20 < len(sentence) < 500, f"no sentence: {sentence[:80]}")
            raise Refused(sentence)
        if judge.wrong and not hasattr(self, "drawn"):
            raise Refused("")
        return self

    def __exit__(self, *error):
        return False


def untouched(pipe):
    """What guide must leave as it was."""
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    modules = [module for part in parts.values() for module in part.modules()]
    scheduler = getattr(pipe, "scheduler", None)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "hooks": [tuple(len(getattr(m, name)) for name in hooks) for m in modules],
        "methods": [tuple(sorted(k for k, v in vars(m).items() if callable(v) and k != "decode")) for m in modules],
        "modes": [m.training for m in modules],
        "checkpoints": [getattr(m, "gradient_checkpointing", None) for m in modules],
        "weights": [(p.requires_grad, p.dtype, p.grad is None) for part in parts.values() for p in part.parameters()],
        "attributes of the scheduler": sorted(vars(scheduler)) if scheduler is not None else [],
        "settings of the scheduler": dict(scheduler.config) if hasattr(scheduler, "config") else {},
        "components": {name: id(part) for name, part in pipe.components.items()},
        "attributes of the pipeline": sorted(vars(pipe)),
    }


def _what(shape):
    return {2: "waves", 3: "waves", 4: "pictures", 5: "videos"}.get(len(shape), "")


def _line(error):
    return " ".join(str(error).split())[:300]
