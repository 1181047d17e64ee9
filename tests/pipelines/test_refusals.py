"""Guidance of a pipeline's own that cannot be made again at other points is refused, in a sentence."""

from types import SimpleNamespace

import pytest
import torch

import symguide as sg
from symguide.denoiser import Prediction
from symguide.pipelines.calls import RecordedCall
from symguide.pipelines.combine import combination, conditional
from symguide.pipelines.earlier import Earlier, clocks
from symguide.pipelines.levels import levels
from symguide.pipelines.reading import read
from symguide.pipelines.replay import Replay

PIPELINE = SimpleNamespace(guidance_scale=5.0, guidance_rescale=0.0)


def outputs(passes, rows=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 4, 8, 8, generator=generator) for _ in range(passes)]


def dot(a, b):
    return (a * b).flatten(1).sum(1).reshape(-1, 1, 1, 1)


OTHER = {
    "apg": lambda u, c: c + 4 * (c - u - dot(c - u, c) / dot(c, c) * c),
    "cfg-norm": lambda u, c: (u + 5 * (c - u)) * (dot(c, c) / dot(u + 5 * (c - u), u + 5 * (c - u))).sqrt(),
    "cfg-zero*": lambda u, c: dot(c, u) / dot(u, u) * u + 5 * (c - dot(c, u) / dot(u, u) * u),
    "clipped": lambda u, c: (u + 5 * (c - u)).clamp(-1, 1),
    "with noise": lambda u, c: u + 5 * (c - u) + 0.01 * torch.randn_like(u),
}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", OTHER)
def test_rules_that_depend_on_the_predictions(name, rows):
    """The first three are weighted sums at every point, but of other weights at each: frozen, they are other rules."""
    u, c = outputs(2, rows)
    with pytest.raises(sg.GuidanceError, match="no fixed weighted sum"):
        combination([u, c], OTHER[name](u, c), PIPELINE)


@pytest.mark.parametrize("scale", [5.0, 3.2])
@pytest.mark.parametrize("first", ["u", "c"])
def test_fixed_rules_are_found_whatever_the_order_and_the_scale(first, scale):
    """A scale that the pipeline says, and one that it does not."""
    u, c = outputs(2)
    passes = [u, c] if first == "u" else [c, u]
    rule = combination(passes, u + scale * (c - u), PIPELINE)
    assert conditional(rule, PIPELINE) == (1 if first == "u" else 0)
    x, y = outputs(2)
    expected = x + scale * (y - x) if first == "u" else y + scale * (x - y)
    assert torch.allclose(rule([x, y]), expected, atol=1e-9)


def test_three_passes():
    """Perturbed attention: u + w (c - u) + s (c - p)."""
    u, c, p = outputs(3)
    rule = combination([u, c, p], u + 5 * (c - u) + 2 * (c - p), PIPELINE)
    assert torch.allclose(rule.weights, torch.tensor([-4.0, 7.0, -2.0]), atol=1e-9)
    with pytest.raises(sg.GuidanceError, match="made 3 passes"):
        conditional(rule, PIPELINE)


def normed(u, c, w=4.0, sign=1.0):
    y = u + w * (c - u)
    return sign * y * c.norm(dim=-1, keepdim=True) / y.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_along_the_last_axis_are_a_known_rule(dtype, sign):
    """QwenImage's and Lumina 2's; the pipeline does not say its scale, and bfloat16 rounds."""
    u, c = (y.to(dtype) for y in outputs(2))
    rule = combination([u, c], normed(u, c, sign=sign), PIPELINE)
    assert conditional(rule, PIPELINE) == 1
    x, y = (z.double() for z in outputs(2))
    expected = normed(x.flip(0), y.flip(0), sign=sign)  # elsewhere, where its weights are others
    assert (rule([x.flip(0), y.flip(0)]) - expected).norm() < (
        1e-6 if dtype == torch.float32 else 3e-2
    ) * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OTHER)
def test_rounding_hides_no_rule(name, dtype):
    """In half precision too a rule that depends on the predictions is refused, and a fixed one is found."""
    u, c = (y.to(dtype) for y in outputs(2))
    if name != "with noise":  # which is below bfloat16's own
        with pytest.raises(sg.GuidanceError, match="no fixed weighted sum"):
            combination([u, c], OTHER[name](u, c), PIPELINE)
    rule = combination([u, c], u + 3.2 * (c - u), PIPELINE)
    assert torch.allclose(rule.weights, torch.tensor([-2.2, 3.2]).double(), atol=0.02)


def test_values_that_are_not_finite():
    u, c = outputs(2)
    c[0, 0, 0, 0] = float("nan")
    with pytest.raises(sg.GuidanceError, match="not finite"):
        combination([u, c], u + 5 * (c - u), PIPELINE)


class Own:
    """A pipeline that combines two passes of a flow network as a rule of its own says, at t = 0.6."""

    def __init__(self, make, rows=2, name="Own", sign=1.0):
        self.kind = type(name, (), {"guidance_scale": 5.0, "guidance_rescale": 0.7})
        u, change, self.x = outputs(3, rows)
        self.passes = [u, u + 0.3 * change]  # they differ by little, as passes do
        self.made = self.at(self.x, make(*self.passes), sign)

    def at(self, x, value, sign=1.0):
        return Prediction(x, sign * value, "flow", 0.4, 0.6, (-1.0, 1.0))


def test_a_rule_of_ours_needs_none_of_the_pipelines_own():
    """Which pass has the condition, and the sign of both, are seen where the pipeline's own rule is not known."""
    for name, make in OTHER.items():
        if name in ("with noise", "clipped"):
            continue
        for sign in (1.0, -1.0):
            own = Own(make, sign=sign)
            for passes, expected in ((own.passes, 1), (own.passes[::-1], 0)):
                with pytest.raises(sg.GuidanceError, match="or give guide a rule for its two passes"):
                    read(passes, own.made, own.kind(), ours=False)
                found = read(passes, own.made, own.kind(), ours=True)
                assert (found.conditional, found.sign, found.convert) == (expected, sign, None)
    unlike = Own(lambda u, c: torch.randn_like(u))
    with pytest.raises(sg.GuidanceError) as error:
        read(unlike.passes, unlike.made, unlike.kind(), ours=True)
    assert "prediction=" not in str(error.value)  # which would end here again
    with pytest.raises(sg.GuidanceError, match="no fixed weighted sum"):
        read(unlike.passes[:1], unlike.made, unlike.kind(), ours=True)
    with pytest.raises(sg.GuidanceError, match="made 3 passes"):
        read([*unlike.passes, unlike.x], unlike.made, unlike.kind(), ours=True)
    alone = read(own.passes[:1], own.at(own.x, -own.passes[0]), own.kind(), ours=True)
    assert (alone.conditional, alone.sign, alone.convert) == (0, -1.0, None)


def std(y):
    return y.std(dim=(1, 2, 3), keepdim=True)


def test_passes_that_are_combined_as_clean_estimates():
    """LTX-2's: x_0 = x - sigma v of every pass, then the rescaled sum of four of them, and a flow of that again."""
    passes, x = outputs(4), outputs(5)[4]
    weights = (-2.0, 6.0, -1.0, -2.0)

    def combined(passes, x):
        estimates = [x - 0.6 * v for v in passes]
        y, c = sum(w * e for w, e in zip(weights, estimates, strict=True)), estimates[1]
        return y * (0.7 * std(c) / std(y) + 0.3)

    own = Own(lambda u, c: u)
    found = read(passes, own.at(x, (x - combined(passes, x)) / 0.6), own.kind(), ours=False)
    other, there = [y.flip(0) for y in outputs(6)[2:]], outputs(1)[0]
    got = found.combine([found.convert(own.at(there, y)) for y in other])
    torch.testing.assert_close(got, combined(other, there), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ours", [False, True])
def test_networks_that_predict_clean_estimates_for_a_flow(ours):
    """PRXPixel's, which divides by 0.05 at least, below which its flow points to another place than its estimate."""
    for sigma in (0.6, 0.02):
        passes, x = outputs(2), outputs(3)[2]
        u, c = passes
        kind = type("PRXPixelPipeline", (), {"guidance_scale": 5.0})
        made = (x - (u + 5 * (c - u))) / max(sigma, 0.05)
        handed = Prediction(x, made, "flow", 1 - sigma, sigma, (-1.0, 1.0))
        found = read(passes, handed, kind(), ours)
        if ours:
            assert (found.conditional, found.sign) == (1, 1.0)
        else:
            got = found.combine([found.convert(handed.with_value(y)) for y in passes])
            torch.testing.assert_close(got, handed.x0, rtol=1e-4, atol=1e-4)


def test_weights_that_a_pipeline_does_not_say_must_stay():
    """A projection with a threshold alone is a sum of weights 1 at every point, but of others at each (APG)."""

    def thresholded(u, c, threshold=3.0):
        d = c - u
        return c + 4 * d * (threshold / d.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)

    earlier, said = Earlier(clocks(1000.0)), Earlier(clocks(1000.0))
    u, c = outputs(2, 1)
    rules = [combination([u, k * c], thresholded(u, k * c), PIPELINE) for k in (1.0, 2.0)]
    earlier.steady(rules[0], "APGPipeline")
    with pytest.raises(sg.GuidanceError, match="weighs its network's outputs otherwise in every step"):
        earlier.steady(rules[1], "APGPipeline")
    for scale in (5.0, 4.0):  # which the pipeline says
        said.steady(combination([u, c], u + scale * (c - u), SimpleNamespace(guidance_scale=scale)), "CFG")
    for _ in range(2):
        said.steady(combination([u, c], u + 3.3 * (c - u), PIPELINE), "CFG")


def test_what_else_changes_with_time_is_not_looked_past():
    """From the first step on, or twice in a row: a prompt that a callback exchanges once is none of it."""

    def step(timestep, earlier, **more):
        x = torch.randn(1, 4)
        call = RecordedCall(torch.nn.Identity(), (x, torch.tensor([timestep])), more, x)
        return Replay([call], x, timestep, earlier)

    sound, same = [torch.randn(1, 3) for _ in range(4)], torch.randn(1, 3)
    earlier = Earlier(clocks(1000.0))
    assert not step(900.0, earlier, sound=sound[0], prompt=same).moving
    second = step(800.0, earlier, sound=sound[1], prompt=same.clone())
    assert second.moving == {"sound"}
    with pytest.raises(sg.GuidanceError, match=r"Identity is also given sound, which changes with time .*n=1"):
        second(torch.randn(1, 4), 700.0)
    earlier = Earlier(clocks(1000.0))
    prompts = [same, same, sound[0], sound[0], sound[1], sound[2]]
    moving = [bool(step(900.0 - 100 * k, earlier, prompt=prompt).moving) for k, prompt in enumerate(prompts)]
    assert moving == [False] * 5 + [True]
    assert step(900.0, Earlier(clocks(1000.0)), timestep_r=torch.tensor([800.0])).moving == {"timestep_r"}


def test_timesteps_that_are_told_twice_are_changed_twice():
    """AceStep's timestep_r is its timestep."""
    given = []

    class Network(torch.nn.Module):
        def forward(self, sample, timestep, timestep_r):
            given.append((timestep.item(), timestep_r.item()))
            return sample

    x, network = torch.randn(1, 4), Network()
    made = RecordedCall(
        network, (), {"sample": x, "timestep": torch.tensor([0.9]), "timestep_r": torch.tensor([0.9])}, x
    )
    replay = Replay([made], x, 0.9, Earlier(clocks(1.0)))
    replay(x, 0.5)
    assert given == [(0.5, 0.5)] and not replay.moving


def test_two_networks_for_two_branches():
    """Ideogram 4's: each makes one pass, and neither is a helper of the other."""

    class Network(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, hidden_states, timestep):
            return self.factor * hidden_states + timestep

    x, calls = torch.randn(1, 4), []
    for network in (Network(2.0), Network(3.0)):
        given = {"hidden_states": x, "timestep": torch.tensor([0.25])}
        calls.append(RecordedCall(network, (), given, network(**given)))
    replay = Replay(calls, x, 750.0, Earlier(clocks(1000.0)))  # told 1 - t / N
    assert replay.passes == 2 and replay.others == [0]
    kind = type("Ideogram4Pipeline", (), {"guidance_scale": 7.0})
    for weights, fine in (((7.0, -6.0), True), ((0.0, 1.0), False)):  # without the first, it was called for another end
        made = sum(w * y for w, y in zip(weights, replay.recorded(), strict=True))
        handed = Prediction(x, made, "flow", 0.25, 0.75, (-1.0, 1.0))
        if fine:
            assert read(replay.recorded(), handed, kind(), False, replay.others).combine.weights.tolist() == [7.0, -6.0]
        else:
            with pytest.raises(sg.GuidanceError, match="called two networks alike"):
                read(replay.recorded(), handed, kind(), False, replay.others)
    c, u = replay(2 * x, 500.0)
    assert torch.allclose(c, 4 * x + 0.5) and torch.allclose(u, 6 * x + 0.5)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (
            "CMStochasticIterativeScheduler",
            "^pipelines with CMS.* cannot be guided: no scheduler that guide knows runs",
        ),
        ("IPNDMScheduler", "^pipelines with IPNDMScheduler cannot be guided: no scheduler that guide knows runs"),
        ("LTXEulerAncestralRFScheduler", "cannot be guided: use one of FlowMatchEulerDiscrete$"),
        ("DPMSolverMultistepInverseScheduler", "use one of EulerDiscrete, .*DDIM, "),
    ],
)
def test_schedulers_are_not_offered_where_they_cannot_run_the_network(kind, why):
    diffusers = pytest.importorskip("diffusers")
    if not hasattr(diffusers, kind):
        pytest.skip(f"this diffusers has no {kind}")
    with pytest.raises(sg.ConfigError, match=why):
        levels(getattr(diffusers, kind)())
