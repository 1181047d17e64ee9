"""Classifier guidance with classifiers in closed form, whose guided model is known exactly, and with a trained one."""

import pytest
import torch
from conftest import SCHEDULES, relative
from moments import moments

import symguide as sg
from symguide.errors import ConfigError
from symguide.objectives import NoisyClassifier
from symguide.worlds import digits

MEANS = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.5, -1.5]], dtype=torch.float64)
COVARIANCES = torch.diag_embed(torch.tensor([[0.2, 0.5], [0.1, 0.3], [1.0, 0.3]], dtype=torch.float64))


def mixture(schedule="vp-linear", shape=(2,)):
    """Overlapping Gaussians of unlike weights, so that no label is certain from x_t."""
    means, weights = MEANS.reshape(3, *shape), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    kind = sg.RectifiedFlow(t_max=0.99) if schedule == "flow" else SCHEDULES[schedule]
    return sg.MixtureDenoiser(means, COVARIANCES, weights, kind)


class Posterior(torch.nn.Module):
    """p(component | x_t) in closed form as a network."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x, timestep):
        times = [self.denoiser.schedule.at_timestep(value) for value in timestep.tolist()]
        return self.denoiser.log_posterior(x, torch.tensor(times, dtype=x.dtype))


def guided(denoiser, label, scale=1.0, **settings):
    return sg.ClassifierGuidance(NoisyClassifier(Posterior(denoiser), label), scale=scale, **settings)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_shifted_eps_is_that_of_the_conditional_mixture(schedule):
    denoiser, t = mixture(schedule), 0.4
    x, label = torch.randn(5, 2), torch.tensor([0, 1, 2, 2, 0])
    leaf = x.clone().requires_grad_()
    loss = NoisyClassifier(Posterior(denoiser), label).noisy(leaf, t, denoiser.schedule)
    gradient = torch.autograd.grad(loss.sum(), leaf)[0]
    shifted = denoiser(x, t).eps + denoiser.schedule.sigma(t) * gradient
    assert torch.allclose(shifted, denoiser(x, t, label=label).eps)
    assert not torch.allclose(denoiser(x, t).eps, denoiser(x, t, label=label).eps)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_scale_1_every_step_is_the_conditional_models_own(schedule, eta):
    """Vectors and pictures, a label for each sample."""
    for shape in ((2,), (1, 1, 2)):
        denoiser, label = mixture(schedule, shape), [0, 1, 2, 1]
        settings = {"batch": 4, "steps": 12, "eta": eta, "return_trajectory": True}
        got = sg.sample(denoiser, loss=guided(denoiser, label), **settings)
        expected = sg.sample(denoiser, condition={"label": label}, **settings)
        assert relative(got.trajectory, expected.trajectory) < 1e-9
        assert (got.cost.forward_calls, got.cost.backward_calls) == (12, 0)


def test_samples_have_the_moments_of_the_component():
    """Exactly those of the component's own model, and at first order the component's."""
    denoiser, label = mixture("vp-cosine"), {"label": 1}
    settings = {"eta": 1.0, "grid": "flow"}

    def guided_moments(steps):
        return moments(
            lambda n: sg.sample(denoiser, batch=n, steps=steps, loss=guided(denoiser, 1), **settings).samples
        )

    found = guided_moments(50)
    own = moments(lambda n: sg.sample(denoiser, batch=n, steps=50, condition=label, **settings).samples)
    assert all(relative(a, b) < 1e-9 for a, b in zip(found, own, strict=True))
    errors = [(c - COVARIANCES[1]).abs().max() for _, c in (found, guided_moments(100))]
    assert relative(found[0], MEANS[1]) < 1e-3 and errors[1] < 0.6 * errors[0] and errors[1] < 0.06


def test_the_form_of_the_mean_has_the_moments_of_the_component():
    denoiser = mixture("vp-cosine")
    settings = {"batch": 1000, "steps": 60, "eta": 1.0, "grid": "flow"}
    x = sg.sample(denoiser, loss=guided(denoiser, 1, form="mean"), **settings).samples
    assert torch.allclose(x.mean(dim=0), MEANS[1], atol=0.07)
    assert torch.allclose(x.T.cov(), COVARIANCES[1], atol=0.07)


@pytest.mark.parametrize("solver", ["midpoint", "heun", "dpmpp_2m"])
def test_other_solvers_converge_to_the_conditional_model(solver):
    """At first order: half the step, half the error, against a fine run of the conditional model itself."""
    denoiser, label = mixture(), [0, 1, 2, 1]
    start = {"batch": 4, "eta": 0.0, "grid": "flow"}
    truth = sg.sample(denoiser, condition={"label": label}, solver="heun", steps=200, **start).samples
    errors = [
        relative(sg.sample(denoiser, loss=guided(denoiser, label), solver=solver, steps=n, **start).samples, truth)
        for n in (25, 50, 100)
    ]
    assert errors[1] < 0.65 * errors[0] and errors[2] < 0.65 * errors[1]


def test_more_scale_is_surer_and_adds_to_cfg():
    denoiser = mixture()
    surety = [
        denoiser.log_posterior(sg.sample(denoiser, batch=100, steps=20, loss=guided(denoiser, 0, w)).samples, 0.0)[:, 0]
        for w in (0.0, 1.0, 3.0)
    ]
    assert surety[0].mean() < surety[1].mean() < surety[2].mean()
    # p(x) p(0 | x)^1 sharpened by half once more is the conditional model guided by CFG at 1.5
    half = sg.sample(denoiser, batch=4, steps=10, condition={"label": 0}, loss=guided(denoiser, 0, 0.5)).samples
    cfg = sg.sample(denoiser, batch=4, steps=10, condition={"label": 0}, prediction=sg.CFG(1.5)).samples
    assert relative(half, cfg) < 1e-9


def test_sums_of_classifiers():
    denoiser = mixture()
    one = NoisyClassifier(Posterior(denoiser), 1)
    both = sg.ClassifierGuidance(0.5 * one + 0.5 * one)
    settings = {"batch": 2, "steps": 6}
    expected = sg.sample(denoiser, loss=guided(denoiser, 1), **settings).samples
    assert relative(sg.sample(denoiser, loss=both, **settings).samples, expected) < 1e-12


def test_the_start_of_a_flow_is_left_unguided():
    denoiser = mixture()
    denoiser.schedule = sg.RectifiedFlow()
    trace = sg.sample(denoiser, batch=2, steps=5, loss=guided(denoiser, 1)).trace
    assert [record.loss is None for record in trace] == [True, False, False, False, False]


def test_errors_say_what_is_wrong():
    denoiser = mixture()
    with pytest.raises(ConfigError, match="labels must be classes 0 to 2"):
        sg.sample(denoiser, steps=3, loss=guided(denoiser, 3))
    flat = NoisyClassifier(type("Flat", (torch.nn.Module,), {"forward": lambda self, x, t: x.sum(dim=1)})(), 0)
    with pytest.raises(ConfigError, match=r"gives logits \(B, K\)"):
        sg.sample(denoiser, steps=3, loss=sg.ClassifierGuidance(flat))


def test_the_trained_classifier_makes_the_digits_it_is_asked_for():
    torch.set_default_dtype(torch.float32)
    denoiser, label, judge = sg.load("digits"), torch.arange(20) % 10, digits.judge()
    loss = sg.ClassifierGuidance(NoisyClassifier(digits.noisy(), label), scale=2.0)
    made = sg.sample(denoiser, batch=20, steps=25, loss=loss).samples
    plain = sg.sample(denoiser, batch=20, steps=25).samples
    assert (judge(made).argmax(1) == label).double().mean() >= 0.85
    assert (judge(plain).argmax(1) == label).double().mean() <= 0.4
