"""Law 4: neutral settings are off: bit-equal to the unguided sampler, and no call is spent."""

import pytest
import torch
from conftest import Noisy, quartic, squares, tiny

import symguide as sg

NEUTRAL = {
    "sag scale 0": {"loss": sg.SAG(squares, scale=0)},
    "freedom scale 0": {"loss": sg.FreeDoM(squares, scale=0)},
    "dps scale 0": {"loss": sg.DPS(squares, scale=0)},
    "mpgd scale 0": {"loss": sg.MPGD(squares, scale=0)},
    "universal scale 0": {"loss": sg.UniversalGuidance(squares, scale=0, repeats=3)},
    "lgd scale 0": {"loss": sg.LGD(squares, scale=0)},
    "tfg scale 0": {"loss": sg.TFG(squares, scale=0, repeats=2)},
    "abms scale 0": {"loss": sg.ABMS(squares, scale=0)},
    "adam-dps scale 0": {"loss": sg.AdamDPS(squares, scale=0)},
    "ecm scale 0": {"loss": sg.ECM(squares, scale=0)},
    "elucd scale 0": {"loss": sg.EluCD(squares, scale=0)},
    "dreamguider scale 0": {"loss": sg.Dreamguider(squares, scale=0)},
    "classifier scale 0": {"loss": sg.ClassifierGuidance(Noisy(squares), scale=0)},
    "no restarts": {"restart": sg.Restart(0.1, 2.0, times=0)},
    "a window of noise that is never met": {"loss": sg.SAG(squares, window=sg.noise_window(1e8, 1e9))},
    "cfg scale 1": {"prediction": sg.CFG(1.0)},
    "best of 1": {"particles": sg.BestOfN(squares, 1)},
}


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", NEUTRAL)
def test_off_is_off(name, eta):
    settings = {"batch": 3, "steps": 6, "eta": eta, "condition": {"label": 1}}
    plain, neutral = sg.sample(tiny(), **settings), sg.sample(tiny(), **settings, **NEUTRAL[name])
    assert torch.equal(plain.samples, neutral.samples)
    assert (neutral.cost.forward_calls, neutral.cost.backward_calls) == (6, 0)


def test_guidance_outside_its_window_leaves_the_path_alone():
    plain = sg.sample(tiny(), batch=2, steps=10, return_trajectory=True).trajectory
    late = sg.sample(tiny(), batch=2, steps=10, loss=sg.SAG(squares, window=(0.5, 1.0)), return_trajectory=True)
    assert torch.equal(plain[:6], late.trajectory[:6])
    assert not torch.equal(plain[6], late.trajectory[6])
    assert [r.loss is None for r in late.trace] == [True] * 5 + [False] * 4 + [True]


def test_cfg_of_equal_branches_is_one_of_them():
    condition = {"label": 4}  # the null label itself
    plain = sg.sample(tiny(), batch=2, steps=5, condition=condition).samples
    assert torch.allclose(
        plain, sg.sample(tiny(), batch=2, steps=5, condition=condition, prediction=sg.CFG(5.0)).samples
    )


def test_sag_of_one_call_is_freedom_and_dsg_is_freedom_on_the_sphere():
    def draw(loss):
        return sg.sample(tiny(), batch=2, steps=6, loss=loss).samples

    assert torch.equal(draw(sg.SAG(quartic, n=1, scale=0.7)), draw(sg.FreeDoM(quartic, scale=0.7)))
    assert torch.equal(draw(sg.DSG(quartic, rate=0.2)), draw(sg.FreeDoM(quartic, constraint=sg.Sphere(0.2))))
