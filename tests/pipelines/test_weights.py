"""Weights of a pipeline's parts: asked for by functions of others, made in inference mode, put back."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from published import Again
from zoo import FAMILIES, bright, build, built, draw

import symguide as sg

DTYPE = torch.float32


def trainable(pipe):
    return [p.requires_grad for part in (pipe.unet, pipe.vae) for p in part.parameters()]


@pytest.mark.parametrize("memory", ["minimal", "fast"])
def test_parts_that_ask_for_their_weights(folder, memory):
    """Computed again by a `checkpoint` such as guided-diffusion's, in U-Net and decoder: the same picture."""
    pipe, call = build("sd", folder)

    def guided():
        with sg.guide(pipe, loss=sg.SAG(bright, n=2, memory=memory)):
            return draw(pipe, call)

    plain, before = guided(), trainable(pipe)
    parts = pipe.unet.conv_out, pipe.unet.mid_block.resnets[0].conv1, pipe.vae.decoder.conv_out
    for part in parts:
        part.forward = lambda x, part=part: Again.apply(type(part).forward.__get__(part), 1, x, *part.parameters())
    assert torch.allclose(guided(), plain, atol=1e-5)
    assert trainable(pipe) == before and any(before)
    assert all(p.grad is None for part in parts for p in part.parameters())


def test_pipelines_made_in_inference_mode(folder):
    pipe, call = build("sd", folder)
    plain = draw(pipe, call)
    with torch.inference_mode():
        made = built(FAMILIES["sd"][0], folder)
    before = trainable(made)
    with sg.guide(made, loss=sg.SAG(bright, scale=0.0)):
        assert torch.equal(draw(made, call), plain)
    with (
        pytest.raises(sg.GuidanceError, match=r"was made in torch.inference_mode\(\), and no gradient passes"),
        sg.guide(made, loss=sg.SAG(bright)),
    ):
        draw(made, call)
    assert trainable(made) == before
