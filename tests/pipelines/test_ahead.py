"""Look-aheads along the scheduler's own remaining steps, with the noise that they are going to draw."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from test_draws import Drawing
from test_families import Counter
from test_more_schedulers import EDM
from test_schedulers import SCHEDULERS, Nudge, constant
from zoo import BETAS, FAMILIES, bright, build, built, double, draw
from zoo_wide import WIDE

import symguide as sg
from symguide.own_path import legs
from symguide.pipelines.levels import levels
from symguide.pipelines.modules import networks

DTYPE = torch.float32  # of what schedulers make anew: UniPC cannot do without. Networks and latents are in float64
STEPS, AT = 5, 2
ALL = SCHEDULERS | {
    "ddim eta": SCHEDULERS["ddim"],
    "clipped": ("DDIMScheduler", BETAS),
    "thresholded": ("DPMSolverMultistepScheduler", BETAS | {"thresholding": True}),
    "kdpm2": ("KDPM2DiscreteScheduler", BETAS),
    "brownian": ("DPMSolverSDEScheduler", BETAS),
    "sa-solver": ("SASolverScheduler", BETAS),
    "flow lcm": ("FlowMatchLCMScheduler", {}),
    "edm sde": ("EDMDPMSolverMultistepScheduler", EDM | {"algorithm_type": "sde-dpmsolver++"}),
}
EACH = ["ddim eta", "ddpm", "euler-ancestral", "dpm++ 2m sde", "lcm", "pndm", "dpm++ 2m", "flow euler", "unipc"]
FURTHER = ["tcd", "heun", "deis", "lms", "dpm++ single", "sa-solver", "flow heun", "flow lcm", "edm sde", "euler"]
COARSE = dict.fromkeys(
    ("euler", "euler-ancestral", "dpm++ 2m", "dpm++ 2m sde", "flow euler", "flow heun", "flow lcm", "edm sde"), 1e-3
)
"""Relative error of central differences where the scheduler itself computes in float32."""
STORED = ("unipc", "dpm++ single", "sa-solver")
"""Schedulers that go on from a sample that they have stored: a change of theirs is one that guidance makes."""


@pytest.fixture(scope="module")
def pipes(folder):
    """Pipelines of both kinds, built once, with a scheduler by its name and the arguments of a short run."""
    built = {}

    def scheduled(name, **more):
        kind, settings = ALL[name]
        if kind == "DPMSolverSDEScheduler":
            pytest.importorskip("torchsde")
        family = "sd3" if kind.startswith("FlowMatch") else "sd-unguided"
        if family not in built:
            built[family] = build(family, folder)
            double(built[family][0])
            torch.set_default_dtype(DTYPE)
        pipe, call = built[family]
        pipe.scheduler = getattr(diffusers, kind)(**settings)
        eta = {"eta": 1.0} if name == "ddim eta" else {}
        return pipe, call | {"num_inference_steps": STEPS, "output_type": "latent", "guidance_scale": 1.0} | eta | more

    return scheduled


class Looks(sg.SAG):
    """Guides nothing, and takes gradients along the run's own path at one step."""

    def __init__(self, n="all", at=AT, times=1):
        super().__init__(bright, n=n, path="own", repeats=times)
        vars(self).update(at=at, seen=[], times=[])

    def guide(self, step):
        if step.index == self.at and step.repeat == 0:
            self.seen.append(step.lookahead_gradient(self.objective, None if self.n == "all" else self.n, path="own"))
            self.times.append(step.t)


def final(pipe, call, loss=None, generator=None):
    """The final latents, and all random states after the run."""
    generator = generator or torch.Generator().manual_seed(0)
    torch.manual_seed(1)  # what a scheduler draws that is not handed a generator

    def latents():
        return pipe(**call, generator=generator).images.double()

    if loss is None:
        drawn = latents()
    else:
        with sg.guide(pipe, loss=loss, decode=False):
            drawn = latents()
    return drawn, generator.get_state(), torch.get_rng_state()


def moved(pipe, call, change, name):
    """The objective of the final latents, with those that the step before AT gave moved."""
    if name in STORED:
        return bright(final(pipe, call, Nudge(AT - 1, change))[0])

    def move(pipe, index, timestep, given):
        calls = 2 if "heun" in name else 1
        at = AT * calls - 1 + (name == "pndm")
        return {"latents": given["latents"] + change} if index == at else given

    return bright(final(pipe, call | {"callback_on_step_end": move})[0])


def right(name, pipes):
    pipe, call = pipes(name)
    plain, look = final(pipe, call), Looks()
    assert all(map(torch.equal, final(pipe, call, look), plain))  # the last bit, and where the generators are
    ((gradient, loss),) = look.seen
    assert torch.allclose(loss, bright(plain[0]), rtol=COARSE.get(name, 1e-6))
    known = levels(pipe.scheduler)
    unit = known.unit(look.times[0]) if name not in STORED else 1.0
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slopes = torch.stack(
        [
            (moved(pipe, call, h * direction, name) - moved(pipe, call, -h * direction, name)) / (2 * h)
            for h in (1e-3, 1e-2)
        ]
    )
    got = (gradient / unit * direction).flatten(1).sum(dim=1)
    assert ((slopes - got) / got).abs().amin(dim=0).max() < COARSE.get(name, 1e-6)


@pytest.mark.parametrize("name", EACH)
def test_the_gradient_is_that_of_the_rest_of_the_run(name, pipes):
    """Of central differences through the pipeline's own remaining steps, whose noise is what was foreseen."""
    right(name, pipes)


@pytest.mark.parametrize("name", FURTHER)
def test_and_under_further_schedulers(name, pipes):
    right(name, pipes)


@pytest.mark.parametrize("family", ["dit", "sdxl", "cogvideox", "sana-sprint"])
def test_unguided_the_run_comes_to_what_was_seen_ahead(family, folder):
    """The same at all steps: where samples are there twice, in runs that end with noise, under further schedulers."""
    make, call = (FAMILIES | WIDE)[family]
    pipe = built(make, folder)
    if family in ("dit", "sdxl"):
        pipe.scheduler = diffusers.DDPMScheduler(**BETAS, clip_sample=False)
    end = {"denoising_end": 0.8} if family == "sdxl" else {}
    looks = [Looks(at=at) for at in range(4)]

    class All(sg.SAG):
        def guide(self, step):
            for look in looks:
                look.guide(step)

    torch.manual_seed(0)
    with sg.guide(pipe, loss=All(bright), decode=False):
        draw(pipe, call | {"num_inference_steps": 4} | end)
    losses = torch.stack([loss for look in looks for _, loss in look.seen])
    assert len(losses) == (3 if end else 4) and torch.allclose(losses, losses[:1], rtol=1e-4)


def test_repeats_are_gone_through(pipes):
    pipe, call = pipes("ddpm")
    look = Looks(times=2)
    drawn = final(pipe, call, look)
    ((gradient, loss),) = look.seen
    assert torch.allclose(loss, bright(drawn[0]))
    assert not torch.equal(drawn[0], final(pipe, call)[0])
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    class Repeats(Nudge):
        def repeats_at(self, step):
            return Looks(times=2).repeats_at(step)

        def guide(self, step):
            return super().guide(step) if step.repeat == 1 else None

    up, down = (bright(final(pipe, call, Repeats(AT - 1, h * direction))[0]) for h in (1e-3, -1e-3))
    slope, got = (up - down) / 2e-3, (gradient * direction).flatten(1).sum(dim=1)
    assert ((slope - got) / got).abs().max() < 1e-6


class Watches(Nudge):
    """Notes what is to come at one step, and what the scheduler then makes."""

    def __init__(self):
        super().__init__(None, None)
        self.moves, self.made = [], []

    def guide(self, step):
        if step.index == AT:
            self.moves = list(step.moves())
            assert [move.s for move in step.moves(after=True)] == [move.s for move in self.moves[1:]]
        if step.index >= AT:
            self.made.append((step, step.std, step.noise))


@pytest.mark.parametrize("name", ["ddpm", "dpm++ 2m sde", "lcm"])
def test_moves_are_what_the_scheduler_then_makes(name, pipes, monkeypatch):
    """By the mean and deviation of steps when they are made; coarse legs go where it goes, if x_0 stays the same."""
    pipe, call = pipes(name)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type="sample")
    monkeypatch.setattr(pipe.unet, "forward", None)
    constant(pipe, 0.3)
    watch = Watches()
    final(pipe, call, watch)
    assert len(watch.moves) == STEPS - AT
    for move, (step, std, noise) in zip(watch.moves, watch.made, strict=True):
        assert (move.t, move.s) == (step.t, step.s) and move.std == pytest.approx(std, rel=1e-5, abs=1e-7)
        assert std == 0 or torch.allclose(move.noise(), noise, atol=1e-4)
    first, last = watch.made[0][0], watch.made[-1][0]
    made = legs("ddim", first.schedule, watch.moves[:-1], 1)
    (leg,), (carried,), schedule = made.legs, made.noise(first.x), first.schedule
    reached = leg.kept * first.x + (schedule.alpha(leg.s) - leg.kept * schedule.alpha(leg.t)) * 0.3 + carried
    assert torch.allclose(reached, last.x, atol=1e-4)


def test_outside_the_window_nothing_changes_and_generators_end_where_they_did(pipes):
    pipe, call = pipes("euler-ancestral", num_inference_steps=4)

    def latents(**settings):
        seen, more = [], {"callback_on_step_end": lambda pipe, i, t, given: (seen.append(given["latents"]), given)[1]}
        return seen, final(pipe, call | more, sg.SAG(bright, n=2, path="own", **settings))[1:]

    (plain, ends), (guided, same) = latents(scale=0.0), latents(scale=0.3, window=(0.5, 0.9))
    own = final(pipe, call)
    assert torch.equal(plain[-1].double(), own[0]) and all(map(torch.equal, ends, own[1:]))
    assert [torch.equal(a, b) for a, b in zip(plain, guided, strict=True)] == [True, True, False, False]
    assert all(map(torch.equal, same, ends))


def test_guided_pictures_do_not_depend_on_their_batch(pipes):
    pipe, call = pipes("ddpm", num_inference_steps=3)
    call["prompt"] = ["w1 a cat", "w2"]

    def drawn(rows):
        generators = [torch.Generator().manual_seed(i) for i in rows]
        mine = call | {"prompt": [call["prompt"][i] for i in rows]}
        recipe = sg.SAG(bright, n=2, path="own", scale=0.3, repeats=2)
        with sg.guide(pipe, loss=recipe, decode=False, indices=rows):
            return pipe(**mine, generator=generators).images

    assert torch.allclose(drawn([0, 1]), torch.cat([drawn([0]), drawn([1])]), atol=1e-9)


@pytest.mark.parametrize(("n", "ahead"), [("all", (5, 4, 3, 2)), (2, (2, 2, 2, 2))])
def test_costs_are_those_of_the_calls_and_noise_is_drawn_once(n, ahead, pipes):
    pipe, call = pipes("euler-ancestral")
    made = Counter(networks(pipe))
    with sg.guide(pipe, loss=sg.SAG(bright, n=n, path="own", scale=0.1), decode=False) as run:
        pipe(**call, generator=torch.Generator().manual_seed(0))
    forward = STEPS + sum(calls - 1 + calls - 1 for calls in ahead)  # look ahead, and again for all graphs but the last
    assert run.cost.backward_calls == sum(ahead)
    assert run.cost.forward_calls == made.count == forward


@pytest.mark.parametrize(("name", "settings"), [("ddpm", {"n": "all"}), ("dpm++ 2m", {"n": 2, "samples": 2})])
def test_fresh_noise_lowers_the_loss_and_draws_nothing_of_the_pipelines(name, settings, pipes):
    pipe, call = pipes(name)
    plain, guided = (final(pipe, call, sg.SAG(bright, path="fresh", scale=scale, **settings)) for scale in (0.0, 0.3))
    assert bright(guided[0]) < bright(plain[0]) and all(map(torch.equal, plain[1:], guided[1:]))
    assert torch.equal(plain[0], final(pipe, call)[0])


def test_what_cannot_be_known_ahead_says_so(pipes):
    refused = {
        "clipped": "clip_sample=False",
        "thresholded": "thresholding=False",
        "kdpm2": "calls the network between its own times",
    }
    for name, why in refused.items():
        pipe, call = pipes(name)
        with pytest.raises(sg.GuidanceError, match=why):
            final(pipe, call, Looks())
    pipe, call = pipes("euler")
    pipe.scheduler = Drawing(lambda _, x: torch.rand(x.shape), **BETAS)
    with pytest.raises(sg.GuidanceError, match="other numbers than white noise"):
        final(pipe, call, Looks())


def test_noise_that_is_a_function_of_the_level_is_refused(pipes):
    with pytest.raises(sg.GuidanceError, match="function of the level"):
        final(*pipes("brownian"), Looks())


def test_numbers_that_are_drawn_between_steps_are_found_out(pipes):
    pipe, call = pipes("ddpm")
    generator = torch.Generator().manual_seed(0)

    def draws(pipe, index, timestep, given):
        torch.randn(1, generator=generator)
        return given

    with pytest.raises(sg.GuidanceError, match="between its scheduler's steps"):
        final(pipe, call | {"callback_on_step_end": draws}, Looks(), generator)
    final(pipe, call | {"callback_on_step_end": draws}, sg.SAG(bright, n=2, scale=0.1))


@pytest.mark.parametrize("name", ["ddpm", "dpm++ 2m sde"])
def test_the_end_of_a_step_looks_through_the_repeats_that_are_left_of_it(name, pipes):
    """From x_s back to x_t, where the scheduler has again what it had stored, and down: as ABMS asks."""
    pipe, call = pipes(name)
    seen = []

    class Again(Nudge):
        def repeats_at(self, step):
            return Looks(times=2).repeats_at(step)

        def guide(self, step):
            if (step.index, step.repeat) != (AT, 0):
                return None
            if self.change is None:
                seen.append(step.gradient_after(step.x_s(), bright, None, path="own"))
                assert [move.back for move in step.moves(after=True)][:2] == ["travel", ""]
                return None
            return super().guide(step)

    drawn = bright(final(pipe, call, Again(AT, None))[0])
    ((gradient, loss),) = seen
    assert torch.allclose(loss, drawn, rtol=COARSE.get(name, 1e-6))
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    up, down = (bright(final(pipe, call, Again(AT, h * direction))[0]) for h in (1e-2, -1e-2))
    slope, got = (up - down) / 2e-2, (gradient * direction).flatten(1).sum(dim=1)
    assert ((slope - got) / got).abs().max() < COARSE.get(name, 1e-5)
