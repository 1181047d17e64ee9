"""Networks, threads and schedulers may be shared: every run is what it is alone, or says that it cannot be."""

import copy
import threading
from functools import partial

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import threads
from zoo import BETAS, bright, built, sd

import symguide as sg
from symguide.errors import ConfigError
from symguide.pipelines.modules import checkpointed
from symguide.pipelines.patch import patched

DTYPE = torch.float32
TEXT = {"prompt": "w1 a cat", "height": 32, "width": 32, "num_inference_steps": 3, "output_type": "latent"}


@pytest.fixture(scope="module")
def pipe(folder):
    return built(sd, folder)


def sharing(pipe, kind="DDIMScheduler", **settings):
    """Another pipeline of the same networks, with a scheduler of its own."""
    scheduler = getattr(diffusers, kind)(**BETAS | settings)
    other = diffusers.StableDiffusionPipeline(
        **{**pipe.components, "scheduler": scheduler}, requires_safety_checker=False
    )
    other.set_progress_bar_config(disable=True)
    return other


def draw(pipe, **more):
    return pipe(**{**TEXT, "generator": torch.Generator().manual_seed(0), **more}).images


def guided(pipe, recipe, **more):
    with sg.guide(pipe, loss=recipe, decode=False):
        return draw(pipe, **more)


@pytest.mark.parametrize("shared", [False, True], ids=["own networks", "shared networks"])
def test_three_threads_draw_what_each_draws_alone(shared, folder):
    """`python tests/pipelines/threads.py 200` does so more often."""
    assert threads.race(folder, ("dsg", "freedom" if shared else "mpgd", "plain"), shared, 3) == []


@pytest.mark.parametrize("inside", ["guided", "plain"])
def test_a_callback_may_draw_with_another_pipeline_of_the_same_networks(inside, pipe):
    """In the middle of a guided run, whose calls are to be made with graphs."""
    outer, inner = sharing(pipe), sharing(pipe, "EulerDiscreteScheduler")
    recipe = partial(sg.FreeDoM, bright)
    draws = {"guided": lambda: guided(inner, recipe()), "plain": lambda: draw(inner)}[inside]
    expected, other = guided(outer, recipe()), draws()
    seen = []

    def callback(pipe, index, timestep, given):
        if index < 2:
            seen.append(draws())
        return given

    assert torch.equal(guided(outer, recipe(), callback_on_step_end=callback), expected)
    assert len(seen) == 2 and all(torch.equal(one, other) for one in seen)


def test_two_guides_at_a_time_whichever_leaves_first(pipe):
    one, two = sharing(pipe), sharing(pipe, "EulerDiscreteScheduler")
    recipes = sg.FreeDoM(bright), sg.SAG(bright, n=2)
    expected = guided(one, recipes[0]), guided(two, recipes[1])
    first, second = (sg.guide(p, loss=r, decode=False) for p, r in zip((one, two), recipes, strict=True))
    first.__enter__()
    second.__enter__()
    for _ in range(2):
        assert torch.equal(draw(one), expected[0]) and torch.equal(draw(two), expected[1])
    first.__exit__(None, None, None)
    assert torch.equal(draw(two), expected[1])
    second.__exit__(None, None, None)
    assert not pipe.unet._forward_hooks and "step" not in {**vars(one.scheduler), **vars(two.scheduler)}


def hand_made(pipe):
    """A run in no pipeline: a loop, which stops after every step."""
    text = pipe.encode_prompt("w1 a cat", "cpu", 1, False)[0]
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    pipe.scheduler.set_timesteps(3)
    for t in pipe.scheduler.timesteps:
        with torch.no_grad():
            said = pipe.unet(pipe.scheduler.scale_model_input(x, t), t, encoder_hidden_states=text).sample
            x = pipe.scheduler.step(said, t, x).prev_sample
        yield x


def test_loops_of_ones_own_take_turns_in_one_thread(pipe):
    pipes = sharing(pipe), sharing(pipe, "EulerDiscreteScheduler", timestep_spacing="trailing")
    alone = []
    for each in pipes:
        with sg.guide(each, loss=sg.FreeDoM(bright), decode=False):
            alone.append(list(hand_made(each)))
    with (
        sg.guide(pipes[0], loss=sg.FreeDoM(bright), decode=False),
        sg.guide(pipes[1], loss=sg.FreeDoM(bright), decode=False),
    ):
        turns = list(zip(*(hand_made(each) for each in pipes), strict=True))
    for here, there in zip(turns, zip(*alone, strict=True), strict=True):
        for x, y in zip(here, there, strict=True):  # calls are made with graphs at other times: bits may differ
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(alone[0][-1], list(hand_made(pipes[0]))[-1], atol=1e-2)


def test_a_run_may_be_in_another_thread_than_guide(pipe):
    one, drawn = sharing(pipe), []
    expected = guided(one, sg.FreeDoM(bright))
    with sg.guide(one, loss=sg.FreeDoM(bright), decode=False):
        thread = threading.Thread(target=lambda: drawn.append(draw(one)))
        thread.start()
        thread.join()
    assert torch.equal(drawn[0], expected)


class Apart(diffusers.StableDiffusionPipeline):
    """Calls its network in a thread of its own."""

    def __call__(self):
        self.scheduler.set_timesteps(3)
        text, said = self.encode_prompt("w1 a cat", "cpu", 1, False)[0].detach(), []
        x, t = torch.randn(1, 4, 16, 16), self.scheduler.timesteps[0]
        thread = threading.Thread(target=lambda: said.append(self.unet(x, t, encoder_hidden_states=text).sample))
        thread.start()
        thread.join()
        return self.scheduler.step(said[0].detach(), t, x).prev_sample


def test_networks_that_are_called_in_threads_of_their_own_are_refused(pipe):
    one = Apart(**sharing(pipe).components, requires_safety_checker=False)
    with (
        pytest.raises(sg.GuidanceError, match="called none of the networks that guide knows"),
        sg.guide(one, loss=sg.FreeDoM(bright), decode=False),
    ):
        one()


def test_an_objective_may_call_the_pipelines_networks(pipe):
    """What it asks them is no call of the pipeline's."""
    one = sharing(pipe)
    text = one.encode_prompt("w1", "cpu", 1, False)[0].detach()
    asked = []

    def objective(x0):
        if not asked or len(asked) < 2:
            with torch.no_grad():
                asked.append(one.unet(x0.detach(), 10, encoder_hidden_states=text))
        return bright(x0)

    assert torch.equal(guided(one, sg.FreeDoM(objective)), guided(one, sg.FreeDoM(bright))) and asked


def test_methods_are_put_back_in_any_order():
    class Thing:
        def name(self):
            return "own"

    thing = Thing()
    first, second, third = (patched(thing, name=lambda which=which: which) for which in ("first", "second", "third"))
    for each in (first, second, third):
        each.__enter__()
    second.__exit__(None, None, None)
    assert thing.name() == "third"
    third.__exit__(None, None, None)
    assert thing.name() == "first"
    first.__exit__(None, None, None)
    assert thing.name() == "own" and not vars(thing)


def test_checkpoints_stay_until_the_last_leaves(pipe):
    for order in ((0, 1), (1, 0)):
        both = [checkpointed(pipe, True), checkpointed(sharing(pipe), True)]
        for each in both:
            each.__enter__()
        both[order[0]].__exit__(None, None, None)
        assert pipe.unet.is_gradient_checkpointing and pipe.vae.is_gradient_checkpointing
        both[order[1]].__exit__(None, None, None)
        assert not pipe.unet.is_gradient_checkpointing
    pipe.unet.enable_gradient_checkpointing()
    with checkpointed(pipe, True):
        pass
    assert pipe.unet.is_gradient_checkpointing
    pipe.unet.disable_gradient_checkpointing()


def test_one_guide_at_a_time_for_a_scheduler(pipe):
    one = sharing(pipe)
    other = diffusers.StableDiffusionPipeline(**one.components, requires_safety_checker=False)
    recipe = sg.SAG(bright)
    for second in (one, other):
        with (
            sg.guide(one, loss=recipe),
            pytest.raises(ConfigError, match="in a `guide` already"),
            sg.guide(second, loss=recipe),
        ):
            pass
    assert "step" not in vars(one.scheduler)


def test_a_scheduler_that_is_exchanged_inside_is_found_out(pipe):
    one = sharing(pipe)
    with (
        pytest.raises(sg.GuidanceError, match="StableDiffusionPipeline was exchanged inside"),
        sg.guide(one, loss=sg.FreeDoM(bright), decode=False),
    ):
        assert not torch.equal(draw(one), draw(sharing(pipe)))
        one.scheduler = diffusers.EulerDiscreteScheduler(**BETAS)
        draw(one)


class Copying(diffusers.StableDiffusionPipeline):
    """Makes its last steps with a copy of its scheduler."""

    def __call__(self, own, steps):
        scheduler = copy.deepcopy(self.scheduler)
        self.scheduler.set_timesteps(steps)
        scheduler.set_timesteps(steps)
        text = self.encode_prompt("w1 a cat", "cpu", 1, False)[0]
        x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
        for index, t in enumerate(self.scheduler.timesteps):
            with torch.no_grad():
                said = self.unet(x, t, encoder_hidden_states=text).sample
            x = (self.scheduler if index < own else scheduler).step(said, t, x).prev_sample
        return x


def test_steps_of_copies_are_found_out(pipe):
    one = Copying(**sharing(pipe).components, requires_safety_checker=False)
    with sg.guide(one, loss=sg.FreeDoM(bright), decode=False):
        one(3, 3)
    for own in (0, 1):
        with (
            pytest.raises(sg.GuidanceError, match="made no step with its own scheduler, but with copies"),
            sg.guide(one, loss=sg.FreeDoM(bright), decode=False),
        ):
            one(own, 4)
    assert not pipe.unet._forward_hooks


@pytest.mark.parametrize("recipe", [partial(sg.DSG, rate=0.1), partial(sg.SAG, n=2, constraint=sg.Sphere(0.3))])
@pytest.mark.parametrize("kind", ["DDPMScheduler", "EulerAncestralDiscreteScheduler"])
def test_a_scheduler_class_of_ones_own_is_asked_as_its_parent_is(recipe, kind, pipe):
    parent = sharing(pipe, kind)
    mine = sharing(pipe, kind)
    mine.scheduler = type("Mine", (type(parent.scheduler),), {"__module__": __name__})(**parent.scheduler.config)
    assert torch.equal(guided(mine, recipe(bright)), guided(parent, recipe(bright)))


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_a_sphere_is_refused_before_the_first_step_where_no_noise_is_drawn(kind, pipe):
    one, steps = sharing(pipe, kind), []

    class Late(sg.DSG):
        def guide(self, step):
            steps.append(step.index)
            return super().guide(step)

    with pytest.raises(sg.GuidanceError, match="stochastic step"):
        guided(one, Late(bright, window=(0.4, 1.0)), num_inference_steps=4)
    assert not steps
    if kind == "DDIMScheduler":
        guided(one, Late(bright, window=(0.4, 1.0)), num_inference_steps=4, eta=1.0)
        assert steps == [0, 1, 2, 3]


def test_latents_that_are_not_finite_are_named(pipe):
    one = sharing(pipe, rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)
    with pytest.raises(sg.GuidanceError, match="latents of StableDiffusionPipeline are not finite at the timestep"):
        guided(one, sg.SAG(bright, window=(0.4, 1.0)), num_inference_steps=4)


BAD = {
    "on_nan": ("Skip", "on_nan is 'raise' or 'skip', not 'Skip'"),
    "seed": (1.5, "seed and indices are whole numbers, not 1.5"),
    "indices": ([0.7], r"seed and indices are whole numbers, not 0 and \[0.7\]"),
    "decode": ("no", "decode is True or False, not 'no'"),
    "checkpoint": (None, "checkpoint is True or False, not None"),
}


@pytest.mark.parametrize("name", BAD)
def test_arguments_are_checked(name, pipe):
    value, why = BAD[name]
    with pytest.raises(ConfigError, match=why), sg.guide(pipe, loss=sg.SAG(bright), **{name: value}):
        pass
    with pytest.raises(ConfigError, match="must not be negative"), sg.guide(pipe, loss=sg.SAG(bright), indices=[-1]):
        pass


def test_schedulers_without_a_step_are_named(pipe):
    one = sharing(pipe)
    one.scheduler = diffusers.ScoreSdeVeScheduler()
    with (
        pytest.raises(ConfigError, match="ScoreSdeVeScheduler has none: StableDiffusionPipeline cannot be guided"),
        sg.guide(one, loss=sg.SAG(bright)),
    ):
        pass
