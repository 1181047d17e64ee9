"""Generators of one call as latent models: against the generator itself, and against what is known of N(0, I)."""

import math
from itertools import pairwise

import pytest
import torch
from moments import moments
from torch import nn

import symguide as sg
from symguide import networks
from symguide.errors import ConfigError
from symguide.objectives import Decoded


def generator():
    torch.manual_seed(0)
    made = networks.Generator(latent=6, choices=(2, 3), size=8, width=8)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval().requires_grad_(False)


def layered():
    torch.manual_seed(1)
    made = networks.LayeredGenerator(latent=6, size=8, width=8, depth=2, hidden=8)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval().requires_grad_(False)


def loss(pictures):
    return (pictures - 0.3).square().flatten(1).mean(1)


def parts():
    """A generator, the model of it, and the objective of its samples."""
    made = generator()
    model = sg.from_generator(made, (6,))
    return made, model, Decoded(loss, model.decode)


def descent(iterations, **settings):
    return sg.DOODL(iterations, scale=1e3, clip=0.02, perturbation=0.0, **settings)


ONE = {"steps": 1, "solver": "midpoint"}


def test_one_midpoint_step_leaves_z_where_it_is_and_draws_of_the_generator():
    made, model, aim = parts()
    drawn = sg.optimise(model, aim, descent(0), batch=3, seed=4, **ONE)
    assert torch.allclose(drawn.samples, drawn.start, rtol=1e-4)
    assert torch.allclose(model.decode(drawn.samples), made(drawn.start), atol=1e-3)
    assert torch.allclose(drawn.loss, loss(made(drawn.samples)))


def test_the_gradient_is_that_of_the_generator_alone():
    made, model, aim = parts()
    z = torch.randn(3, 6).requires_grad_()
    expected = torch.autograd.grad(loss(made(z)).sum(), z)[0]
    z = z.detach()
    got = sg.lookahead_gradient(model, z, model.schedule.t_max, aim, 2, "midpoint", "uniform").value
    assert (got - expected).norm() < 2e-4 * expected.norm()
    direction = torch.randn(3, 6)
    slope = (loss(made(z + 1e-5 * direction)) - loss(made(z - 1e-5 * direction))) / 2e-5
    assert torch.allclose((got * direction).sum(1), slope, rtol=1e-3)


def test_look_aheads_are_those_of_a_normal_prior():
    """One call estimates alpha z_t, the mean of N(0, I) seen at z_t; the ODE's end is z_t itself."""
    _, model, _ = parts()
    z, t = torch.randn(2, 6), 0.7
    assert torch.allclose(sg.lookahead(model, z, t, 1).x0, math.cos(0.7 * math.pi / 2) * z, atol=0.02 * z.abs().max())
    errors = [(sg.lookahead(model, z, t, n, "ddim").x0 - z).norm() for n in (1, 4, 16, 64)]
    assert all(later < 0.5 * earlier for earlier, later in pairwise(errors))
    exact = sg.GaussianDenoiser(torch.zeros(6), torch.eye(6), model.schedule)
    assert torch.allclose(model(z, t).x0, exact(z, t).x0)


def test_samples_of_one_midpoint_step_are_standard_normal():
    _, model, _ = parts()
    mean, covariance = moments(lambda n: sg.sample(model, batch=n, eta=0.0, **ONE).samples)
    assert mean.abs().max() < 1e-12 and (covariance - torch.eye(6)).abs().max() < 1e-2


def test_descent_lowers_the_loss_and_on_the_sphere_keeps_the_length():
    _, model, aim = parts()
    drawn = {each: sg.optimise(model, aim, descent(10, renormalise=each), batch=3, **ONE) for each in (True, False)}
    before = sg.optimise(model, aim, descent(0), batch=3, **ONE)
    length = before.samples.norm(dim=1)
    assert all((each.loss < before.loss).all() for each in drawn.values())
    assert torch.allclose(drawn[True].samples.norm(dim=1), length)
    assert ((drawn[False].samples.norm(dim=1) - length).abs() > 1e-3).all()


def test_samples_do_not_depend_on_their_batch():
    _, model, aim = parts()
    together = sg.optimise(model, aim, descent(4), batch=3, **ONE).samples
    alone = torch.cat([sg.optimise(model, aim, descent(4), indices=[i], **ONE).samples for i in range(3)])
    assert torch.allclose(together, alone)
    guided = sg.sample(model, batch=3, steps=4, loss=sg.SAG(aim, n=2)).samples
    assert torch.allclose(guided[2:], sg.sample(model, indices=[2], steps=4, loss=sg.SAG(aim, n=2)).samples)


def test_any_callable_is_a_generator_and_a_module_is_cast_with_the_model():
    model = sg.from_generator(lambda z: z.tanh(), (2, 3))
    drawn = sg.optimise(model, Decoded(lambda x: x.sum(dim=(1, 2)), model.decode), descent(2), batch=2, **ONE)
    assert drawn.samples.shape == (2, 2, 3)
    single = parts()[1].to(dtype=torch.float32)
    assert single.decoder.output.weight.dtype == torch.float32 == single.dtype
    with pytest.raises(ConfigError, match=r"takes a callable z -> pictures, not Tensor"):
        sg.from_generator(torch.zeros(3), (3,))


def test_layers_are_plain_and_the_mask_shows_one_or_the_other():
    made, z = layered(), torch.randn(3, 6)
    mask = torch.sigmoid(4 * made.mask(z) - 1)
    assert mask.min() < 0.3 and mask.max() > 0.5  # both are seen
    front, back = made.colours(z).chunk(2, dim=1)
    assert torch.allclose(made(z), back[:, :, None, None] + mask * (front - back)[:, :, None, None])
    middle = made.at(z, torch.zeros(1, 2))
    assert torch.allclose(made.at(z, torch.tensor([[0.5, -0.2], [0.0, 0.0]]))[:, :, 1:], middle)


@pytest.mark.parametrize("make", [generator, layered])
def test_model_folders(make, tmp_path):
    made = make()
    networks.save(made, tmp_path, denoiser={"prior": "normal", "shape": [6]})
    model = sg.load(tmp_path)
    z = torch.randn(2, 6)
    assert model.shape == (6,) and torch.equal(model.decode(z), made(z))
    with pytest.raises(ConfigError, match=r"z of shape \(B, 6\), not \(2, 7\)"):
        made(torch.zeros(2, 7))
    with pytest.raises(ConfigError, match="choices are 5 numbers, more than the latent's 4"):
        networks.Generator(latent=4, choices=(2, 3))
    assert made(z[:1]).shape == (1, 3, 8, 8) and torch.allclose(made(z)[:1], made(z[:1]))
