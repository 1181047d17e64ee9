"""What makes steps fast changes nothing else: no waiting for a GPU, few hooks, compiled networks, layouts, autocast."""

import pytest
import torch
from cases import RECIPES
from conftest import relative, squares, tiny
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

import symguide as sg
from symguide import loop, per_sample
from symguide.errors import GuidanceError
from symguide.meter import SavedBytes
from symguide.networks import CaptionUNet, UNet, VectorUNet
from symguide.particle_guidance import resample
from symguide.step import Requirement, Run
from symguide.worlds import digits


class Copies(TorchDispatchMode):
    """Counts copies from the CPU to a device that have to be waited for."""

    def __init__(self):
        super().__init__()
        self.waited = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = [a for a in args if isinstance(a, torch.Tensor) and a.device.type == "cpu" and a.ndim > 0]
        if isinstance(made, torch.Tensor) and made.is_meta and given and not (kwargs or {}).get("non_blocking"):
            self.waited += 1
        return made


@pytest.fixture
def on_meta(monkeypatch):
    """Runs on the device "meta", whose tensors have no values: whoever asks for one gets an error.

    What waits is counted from the second step on; in the first, networks and references are brought to the device.
    """
    looks, make = [], torch.as_tensor

    def as_tensor(data, dtype=None, device=None):
        if device is not None and torch.device(device).type == "meta" and not isinstance(data, torch.Tensor):
            copies.waited += 1  # made on the CPU and copied
        return make(data, dtype=dtype, device=device)

    monkeypatch.setattr(torch, "as_tensor", as_tensor)
    monkeypatch.setattr(per_sample, "PINNED", ("meta",))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Run, "unmet", lambda run: looks.append("requirements"))
    monkeypatch.setattr(loop, "_check_finite", lambda largest, times: looks.append("samples"))
    copies = Copies()

    def steps(record, x):
        assert x.is_meta
        copies.waited = 0 if record.index == 0 else copies.waited

    def run(denoiser, **settings):
        denoiser.network.to("meta")
        with copies:
            sg.sample(denoiser, batch=2, steps=4, device="meta", callback=steps, **settings)
        assert looks == ["requirements", "samples"]
        return copies.waited

    return run


def test_hooks_and_resampled_particles_wait_for_nothing(on_meta):
    """What is known comes to the device once; who goes on is decided there."""

    class Resampled(sg.BestOfN):
        def move(self, step, x_s):
            potential = -self.objective(step.prediction.x0)
            parents = resample(potential, self.particles, step.uniform("resample"))
            return sg.Moved(x_s[parents], parents, log_weights=torch.zeros_like(potential))

    keep = sg.Keep(torch.tensor([True, False] * 3), torch.arange(6.0))
    assert on_meta(tiny(), hooks=[keep], particles=Resampled(squares, 3)) == 0


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_waits_for_a_gpu(on_meta, name):
    assert on_meta(tiny(), loss=RECIPES[name](squares)) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"condition": {"label": [0, 1]}, "prediction": sg.CFG(2.0)},
        {"condition": {"label": 1}, "prediction": sg.APG(2.0)},
        {"solver": "dpmpp_2m", "eta": 0.0},
        {"on_nan": "skip"},
        {"particles": sg.BestOfN(squares, 2)},
        {"restart": sg.Restart(0.1, 10.0)},
    ],
    ids=["cfg", "apg", "2m", "skip", "particles", "restart"],
)
def test_no_setting_makes_it_wait(on_meta, settings):
    assert on_meta(tiny(), loss=sg.SAG(squares, n=2), **settings) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: sg.objectives.Region(torch.zeros(1, 8, 8), torch.ones(8, 8)),
        lambda: sg.objectives.Classifier(digits.scorer(dtype=torch.float64), [3, 4]),
        lambda: 0.5 * sg.objectives.Measurement(lambda x: 2 * x, torch.zeros(1, 8, 8)),
    ],
    ids=["region", "classifier", "measurement"],
)
def test_objectives_are_copied_once(on_meta, make):
    assert on_meta(tiny(shape=(1, 8, 8)), loss=sg.SAG(make(), n=2)) == 0


def test_what_is_looked_for_after_the_run_names_its_step():
    class Late(sg.SAG):
        def guide(self, step):
            error = GuidanceError(f"seen in step {step.index}")
            step.run.requirements.append(Requirement(step.index, torch.tensor(step.index < 2), lambda: error))
            return super().guide(step)

    made = []
    with pytest.raises(GuidanceError, match=r"step 2 of 5 \(t = 0.6000\): seen in step 2"):
        sg.sample(tiny(), steps=5, loss=Late(squares), callback=lambda record, x: made.append(record.index))
    assert made == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("memory", [0, "minimal", 2, "fast", "auto"])
def test_graphs_weigh_as_much_as_the_first(memory, monkeypatch):
    """The peak is that of a meter which asks autograd about every graph."""
    settings = {"batch": 3, "steps": 4, "condition": {"label": 1}, "prediction": sg.CFG(2.0)}
    peaks = [sg.sample(tiny(), loss=sg.SAG(squares, n=3, memory=memory), **settings).cost.peak_bytes]
    monkeypatch.setattr(SavedBytes, "innermost", False)
    peaks.append(sg.sample(tiny(), loss=sg.SAG(squares, n=3, memory=memory), **settings).cost.peak_bytes)
    assert peaks[0] == peaks[1] > 0


@pytest.mark.skipif(torch.__version__ < (2, 5), reason="torch 2.4 does not say which hooks are in force")
def test_hooks_are_asked_in_the_first_step_alone(monkeypatch):
    packed, seen, pack = [], [], SavedBytes._pack
    monkeypatch.setattr(SavedBytes, "_pack", lambda meter, tensor: packed.append(1) or pack(meter, tensor))
    loss = sg.SAG(squares, n=3, memory="fast")
    sg.sample(tiny(), steps=4, loss=loss, callback=lambda record, x: seen.append(len(packed)))
    assert seen[0] == seen[-1] > 0


class Dense(nn.Module):
    """A network that torch.compile takes in one piece."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.label, self.outer = nn.Linear(7, 16), nn.Embedding(5, 16), nn.Linear(16, 6)

    def forward(self, x, timestep, label):
        hidden = self.inner(torch.cat([x, timestep[:, None] / 1000], dim=1)) + self.label(label)
        return self.outer(torch.tanh(hidden))


def test_compiled_networks():
    """The same samples, gradients and calls, by two graphs (with and without gradients) that every step uses again."""
    torch._dynamo.reset()
    backend, network, graphs = CompileCounterWithBackend("aot_eager"), Dense(), []
    plain = sg.Denoiser(network, shape=(6,), null={"label": 4})
    fast = sg.Denoiser(torch.compile(network, backend=backend), shape=(6,), null={"label": 4})
    told = {"condition": {"label": [0, 1, 2]}, "prediction": sg.CFG(2.0)}
    settings = {"batch": 3, "steps": 5, "callback": lambda *_: graphs.append(backend.frame_count), **told}
    for memory in ("fast", "minimal"):
        a, b = (sg.sample(model, loss=sg.SAG(squares, n=3, memory=memory), **settings) for model in (plain, fast))
        assert relative(b.samples, a.samples) < 1e-12
        assert [r.forward_calls for r in b.trace] == [r.forward_calls for r in a.trace]
        assert [r.backward_calls for r in b.trace] == [r.backward_calls for r in a.trace]
        x = torch.randn(3, 6)
        g, h = (sg.lookahead_gradient(model, x, 0.5, squares, memory=memory, **told) for model in (plain, fast))
        assert relative(h.value, g.value) < 1e-12
        assert (h.forward_calls, h.backward_calls) == (g.forward_calls, g.backward_calls)
    assert graphs[5:] == [1, 1, 1, 1, 2] + 10 * [2]  # the first run's last step is the first without gradients


LABELS = torch.empty(2, dtype=torch.int64, device="meta")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: UNet(1, (8,), classes=4, groups=4, attention=(True,)), {"label": LABELS}),
        (CaptionUNet, {"caption": LABELS[:, None].expand(2, 16)}),
        (VectorUNet, {"text": torch.empty(2, 384, device="meta"), "style": LABELS}),
    ],
    ids=["UNet", "CaptionUNet", "VectorUNet"],
)
def test_our_networks_ask_for_no_value(make, told):
    """None of a GPU, which would wait, and so none that torch.compile would split them at."""
    network = make().to("meta")
    x, timestep = torch.empty(2, network.in_channels, 8, 8, device="meta"), torch.empty(2, device="meta")
    assert network(x, timestep, **told).shape == x.shape


def test_channels_last_is_another_layout_alone():
    denoiser = sg.load("digits", dtype=torch.float64)
    last = denoiser.to(memory_format=torch.channels_last)
    convolution = next(m for m in last.network.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(p.is_contiguous() for p in denoiser.network.parameters())
    settings = {"batch": 2, "steps": 3, "loss": sg.SAG(squares, n=2)}
    assert relative(sg.sample(last, **settings).samples, sg.sample(denoiser, **settings).samples) < 1e-10


def test_autocast_around_a_run():
    """Matrix products in bfloat16; states, steps and losses as they are."""
    seen = []
    denoiser = sg.load("digits", dtype=torch.float32)
    denoiser.network.register_forward_hook(lambda module, given, made: seen.append((given[0].dtype, made.dtype)))
    torch.set_default_dtype(torch.float32)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = sg.lookahead_gradient(denoiser, x, 0.6, squares, n=2)
    with torch.autocast("cpu", torch.bfloat16):
        low = sg.lookahead_gradient(denoiser, x, 0.6, squares, n=2)
        samples = sg.sample(denoiser, batch=2, steps=2, loss=sg.SAG(squares, n=2)).samples
    assert set(seen) == {(torch.float32, torch.float32), (torch.float32, torch.bfloat16)}
    assert low.value.dtype == low.loss.dtype == samples.dtype == torch.float32
    assert 0 < relative(low.x0, plain.x0) < 0.02
    assert 0 < relative(low.value, plain.value) < 0.05
