"""Views of samples: each against pillow, torch or a loop, their noise against the batch, and what they do in a run."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from conftest import relative, tiny

import symguide as sg
from symguide.errors import ConfigError
from symguide.objectives import Augmented, BlackBox, Cutouts, Decoded
from symguide.objectives.views import _moved, crops
from symguide.per_sample import Noise

FILTERING = {"bicubic": PIL.Image.Resampling.BICUBIC, "bilinear": PIL.Image.Resampling.BILINEAR}
WEIGHTS = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def uneven(x):
    """An objective that knows left from right and one place from another."""
    return (x * WEIGHTS[..., : x.shape[-2], : x.shape[-1]]).flatten(1).sum(dim=1).square() + x.flatten(1).pow(4).sum(1)


class At:
    """A step's draws without a run."""

    def __init__(self, indices=(0, 1), step=0):
        self.noise, self.step = Noise(7, indices, (1, 6, 6)), step

    def draw(self, stream, times=None, shape=None):
        return self.noise.draw(stream, self.step, 0, times, shape)


BOXES = [(0, 0, 11), (3, 5, 7), (9, 2, 2), (0, 7, 5), (10, 12, 1)]  # first row, first column, side


@pytest.mark.parametrize("size", [1, 3, 5, 8, 16])
@pytest.mark.parametrize("mode", FILTERING)
def test_crops_are_pillows_and_torchs(mode, size):
    x = torch.randn(len(BOXES), 2, 11, 13)
    boxes = torch.tensor(BOXES, dtype=torch.float64)
    made = crops(x, boxes[:, :2], boxes[:, 2], size, mode)
    for k, (top, left, side) in enumerate(BOXES):
        alone = x[k : k + 1, :, top : top + side, left : left + side]
        assert torch.allclose(made[k], F.interpolate(alone, (size, size), mode=mode, antialias=True)[0], atol=1e-9)
        for plane, channel in zip(made[k], alone[0], strict=True):
            picture = PIL.Image.fromarray(channel.numpy().astype(np.float32)).resize((size, size), FILTERING[mode])
            assert np.allclose(plane, np.asarray(picture), atol=1e-5)


def test_crops_do_not_alias():
    """Stripes of single pixels become grey, where every fourth pixel alone would be black or white."""
    stripes = (torch.arange(16) % 2 * 2.0 - 1).expand(1, 1, 16, 16)
    made = crops(stripes, torch.zeros(1, 2), torch.tensor([16.0]), 4, "bicubic")
    assert made[..., 1:-1].abs().max() < 0.05
    assert F.interpolate(stripes, (4, 4), mode="nearest").abs().min() == 1


def test_boxes_lie_inside_and_their_area_is_log_uniform():
    cutouts = Cutouts(uneven, area=(0.04, 0.64))
    numbers = torch.rand(20000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    corners, side = cutouts.boxes(numbers, 500, 700)
    assert (corners >= 0).all() and (corners + side[:, None] <= torch.tensor([500, 700])).all()
    assert (side == side.round()).all() and side.min() >= 100 and side.max() <= 400
    place = ((side / 500) ** 2 / 0.04).log() / math.log(16)
    assert (place.sort().values - torch.linspace(0, 1, 20000)).abs().max() < 0.02
    share = corners[:, 1] / (700 - side)
    assert (share.sort().values - torch.linspace(0, 1, 20000)).abs().max() < 0.02
    assert Cutouts(uneven, area=(1.0, 1.0)).boxes(numbers, 500, 500)[0].abs().max() == 0


def test_moves_are_rolls_and_turns_are_rot90():
    x = torch.randn(3, 2, 8, 8)
    zero, one = torch.zeros(3), torch.full((3,), 1 / 8)
    assert torch.allclose(_moved(x, one, zero, zero)[..., 1:], x[..., :-1])
    assert torch.allclose(_moved(x, zero, one, zero)[:, :, 1:], x[:, :, :-1])
    assert torch.allclose(_moved(x, zero, zero, zero + 90), x.rot90(1, (2, 3)))
    wide = F.pad(x[..., 3:5, 3:5], (5, 5, 2, 2))  # what is square in the middle of 6 x 12 pixels stays square
    assert torch.allclose(_moved(wide, zero, zero, zero + 90)[..., 2:4, 5:7], wide[..., 2:4, 5:7].rot90(1, (2, 3)))


def test_flips_noise_and_cuts():
    x = torch.randn(2, 1, 6, 6)
    numbers = torch.tensor([[0.2, 0.5, 0.5, 0.5, 0.0, 0.99], [0.8, 0.5, 0.5, 0.5, 0.5, 0.5]])
    plain = Augmented(uneven, shift=0.0)
    assert torch.equal(plain.view(x, numbers)[0], x[0].flip(-1)) and torch.equal(plain.view(x, numbers)[1], x[1])
    noise = torch.randn(2, 1, 6, 6)
    noised = Augmented(uneven, flip=False, shift=0.0, noise=0.3).view(x, numbers, noise)
    assert torch.allclose(noised, x + 0.3 * noise)
    hole = Augmented(uneven, flip=False, shift=0.0, cut=0.5).view(torch.ones_like(x), numbers)
    assert (hole == 0).flatten(1).sum(dim=1).tolist() == [9, 9]
    assert hole[0, 0, 3:, :3].abs().max() == 0 and hole[1, 0, 2:5, 2:5].abs().max() == 0


ALL = {"flip": True, "shift": 0.2, "turn": 20.0, "noise": 0.1, "cut": 0.3}
MADE = {
    "augmented": lambda o: Augmented(o, 3, **ALL),
    "trimmed": lambda o: Augmented(o, 5, **ALL, trim=0.2),
    "cutouts": lambda o: Cutouts(o, 3, area=(0.2, 1.0)),
    "cutouts-small": lambda o: Cutouts(o, 3, size=3, mode="bilinear"),
    "in a sum, of decoded": lambda o: Decoded(0.5 * Augmented(o, 2) + Cutouts(o, 2), lambda z: 2 * z),
}


@pytest.mark.parametrize("name", MADE)
def test_gradients_match_finite_differences_and_a_batch_is_a_loop(name):
    objective = MADE[name](uneven)
    torch.manual_seed(0)
    x = torch.randn(2, 1, 6, 6)
    loss = objective.at_step(At())
    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(leaf).sum(), leaf)[0]
    move = torch.randn_like(x)
    slope = (loss(x + 1e-6 * move) - loss(x - 1e-6 * move)) / 2e-6
    assert torch.allclose((gradient * move).flatten(1).sum(dim=1), slope, rtol=1e-5)
    assert torch.equal(loss(x), loss(x))  # the same within the step
    assert torch.allclose(objective.at_step(At([1]))(x[1:]), loss(x)[1:])
    assert not torch.allclose(objective.at_step(At(step=1))(x), loss(x))


def test_the_mean_is_that_of_the_views_and_a_trimmed_one_leaves_out_both_ends():
    x, noise = torch.randn(2, 1, 6, 6), At()
    seen = []

    def spy(view):
        seen.append(uneven(view))
        return seen[-1]

    loss = Augmented(spy, 5).at_step(noise)(x)
    assert torch.allclose(loss, torch.stack(seen).mean(dim=0)) and len(seen) == 5
    trimmed = Augmented(uneven, 5, trim=0.3).at_step(noise)(x)
    assert torch.allclose(trimmed, torch.stack(seen).sort(dim=0).values[1:-1].mean(dim=0))
    assert torch.equal(Augmented(uneven, 5)(x), uneven(x))  # outside of a step


def test_a_bad_view_is_not_trimmed_away():
    def sometimes(view):
        return torch.where(view.sum(dim=(1, 2, 3)) > 0, uneven(view), torch.nan)

    loss = Augmented(sometimes, 10, noise=3.0, trim=0.4).at_step(At())(torch.zeros(2, 1, 6, 6))
    assert loss.isnan().all()


@pytest.mark.parametrize("recipe", [sg.SAG, sg.MPGD, sg.UniversalGuidance, sg.LGD])
def test_runs_do_not_depend_on_the_batch_and_views_count(recipe):
    def draw(indices, objective):
        return sg.sample(tiny(shape=(1, 6, 6)), indices=indices, steps=5, loss=recipe(objective)).samples

    for make in (MADE["augmented"], MADE["cutouts"]):
        batch = draw([0, 1, 2], make(uneven))
        assert relative(draw([2, 0], make(uneven))[0], batch[2]) < 1e-9
        assert relative(batch, draw([0, 1, 2], uneven)) > 1e-3


def test_averaging_takes_what_views_disagree_on_out_of_the_gradient():
    """A loss of the mean brightness, plus one that a shift of a pixel turns around: mostly the first is left."""
    checks = (torch.arange(6)[:, None] + torch.arange(6)) % 2 * 2.0 - 1

    def fooled(x):
        return x.flatten(1).mean(dim=1) + (x * checks).flatten(1).mean(dim=1)

    def slope(objective):
        leaf = torch.zeros(1, 1, 6, 6, requires_grad=True)
        gradient = torch.autograd.grad(objective(leaf).sum(), leaf)[0]
        return ((gradient * checks).sum() / gradient.sum()).item()

    assert slope(fooled) == pytest.approx(1.0)
    assert abs(slope(Augmented(fooled, 64, shift=0.5).at_step(At([0])))) < 0.3


def test_black_boxes_and_settings():
    assert not Augmented(BlackBox(lambda x: x.sum(dim=(1, 2, 3)))).differentiable
    for make, sentence in (
        (lambda: Augmented(3), "a callable"),
        (lambda: Augmented(uneven, 0), "whole number of views"),
        (lambda: Augmented(uneven, trim=0.5), "below 0.5"),
        (lambda: Augmented(uneven, shift=2.0), "shift from 0 to 1"),
        (lambda: Cutouts(uneven, area=(0.0, 1.0)), "two shares"),
        (lambda: Cutouts(uneven, size=0), "positive whole number"),
        (lambda: Cutouts(uneven, mode="nearest"), "'bicubic' or 'bilinear'"),
        (lambda: Augmented(uneven).at_step(At())(torch.zeros(2, 6)), "looks at pictures"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            make()
