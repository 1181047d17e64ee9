"""Law 4: neutral settings are off: bit-equal to the unguided sampler, and no call is spent."""

import pytest
import torch
from cases import every
from conftest import quartic, squares, tiny

import symguide as sg

OTHERS = {
    "no restarts": {"restart": sg.Restart(0.1, 2.0, times=0)},
    "a window of noise that is never met": {"loss": sg.SAG(squares, window=sg.noise_window(1e8, 1e9))},
}


def same(denoiser, plain, neutral, **settings):
    """Bit-equal, and no call more."""
    plain, neutral = sg.sample(denoiser(), **settings, **plain), sg.sample(denoiser(), **settings, **neutral)
    assert torch.equal(plain.samples, neutral.samples)
    assert (neutral.cost.forward_calls, neutral.cost.backward_calls) == (6, 0)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@every("loss guidance", "prediction guidance", "particle guidance", where=lambda case: case.off is not None)
def test_off_is_off(case, eta):
    hook = {"loss guidance": "loss", "prediction guidance": "prediction", "particle guidance": "particles"}[case.kind]
    given = () if case.kind == "prediction guidance" else (squares,)
    if case.noisy and eta == 0:
        pytest.skip("it needs noise even where it is off")
    settings = {"batch": 3, "steps": 6, "eta": eta, "condition": {"label": 1}} | case.settings
    same(case.model, {}, {hook: case.make(*given, **case.off)}, **settings)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", OTHERS)
def test_what_does_nothing_is_off(name, eta):
    same(tiny, {}, OTHERS[name], batch=3, steps=6, eta=eta, condition={"label": 1})


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
