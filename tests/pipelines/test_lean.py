"""A lean decoder: the same pictures and gradients, less held, and nothing left behind."""

import contextlib

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from torch import nn
from zoo import build

from symguide.pipelines.decode import sparing
from symguide.pipelines.lean import lean
from symguide.planning.simulate import LiveBytes


def autoencoder(**more):
    """Of three sizes, so that blocks with and without a convolution in their shortcut occur at more than one."""
    torch.manual_seed(0)
    made = diffusers.AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        layers_per_block=2,
        norm_num_groups=16,
        **more,
    )
    made.register_to_config(force_upcast=False)
    return nn.Module.to(made, torch.get_default_dtype()).eval().requires_grad_(False)


def pulled(vae, within=lean, batch=1):
    """What a batch of latents is decoded to, and the gradient of one number of it."""
    z = torch.randn(batch, 4, 12, 8, generator=torch.Generator().manual_seed(1)).to(vae.dtype).requires_grad_()
    with within(vae):
        pictures = vae.decode(z, return_dict=False)[0]
    loss = (pictures * torch.linspace(-1, 1, pictures.numel()).view_as(pictures)).sum()
    return pictures.detach(), torch.autograd.grad(loss, z)[0]


def exchanged(vae):
    """Modules that have another forward pass than their class."""
    return [name for name, module in vae.named_modules() if "forward" in vars(module)]


def stock(vae):
    return contextlib.nullcontext()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("attends", [True, False])
def test_it_is_the_decoder(attends, batch):
    vae = autoencoder(mid_block_add_attention=attends)
    (plain, wanted), (pictures, gradient) = (pulled(vae, within, batch) for within in (stock, lean))
    assert torch.equal(pictures, plain)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10 * wanted.abs().max().item())


def test_it_holds_and_computes_less_than_diffusers_checkpoints():
    vae, costs = autoencoder(), {}
    for own, within in ((False, stock), (True, stock), (True, lean)):
        vae.enable_gradient_checkpointing() if own else vae.disable_gradient_checkpointing()
        with LiveBytes() as memory:
            pulled(vae, within)
        costs[own, within] = memory.peak, memory.flops
    (_, least), (blocks, again), (peak, flops) = costs.values()
    assert peak < 0.6 * blocks
    assert least < flops < 0.95 * again


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "dit", "pixart", "animatediff"])
def test_it_knows_the_decoders_of_stable_diffusion(family, folder):
    vae = build(family, folder)[0].vae
    blocks = [name for name, module in vae.decoder.named_modules() if type(module).__name__ == "ResnetBlock2D"]
    with lean(vae):
        assert {f"decoder.{name}" for name in blocks} < set(exchanged(vae))
    assert blocks and not exchanged(vae)


@pytest.mark.parametrize("family", ["cogvideox", "ltx", "wan"])
def test_others_are_left_to_diffusers(family, folder):
    vae = build(family, folder)[0].vae
    with lean(vae):
        assert not exchanged(vae)


def test_everything_is_put_back_also_after_an_error():
    vae = autoencoder()
    vae.enable_gradient_checkpointing()
    with pytest.raises(ZeroDivisionError), lean(vae):
        assert not any(getattr(module, "gradient_checkpointing", False) for module in vae.decoder.modules())
        raise ZeroDivisionError
    assert not exchanged(vae) and vae.decoder.gradient_checkpointing and vae.decoder.mid_block.gradient_checkpointing


def hooked(vae):
    vae.decoder.up_blocks[1].resnets[0].conv2.register_forward_hook(lambda module, args, y: 2 * y)


def adapted(vae):
    from peft import LoraConfig

    vae.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["conv2"]))
    vae.requires_grad_(False)


def replaced(vae):
    block = vae.decoder.up_blocks[1].resnets[0]
    block.forward = lambda x, temb=None: 2 * type(block).forward(block, x, temb)


def other_activation(vae):
    vae.decoder.up_blocks[1].resnets[0].nonlinearity = nn.Mish()


@pytest.mark.parametrize("change", [hooked, adapted, replaced, other_activation])
def test_a_decoder_that_somebody_changed_is_left_as_it_is(change):
    vae = autoencoder()
    before = pulled(vae)[1]
    change(vae)
    got, wanted = pulled(vae)[1], pulled(vae, stock)[1]
    assert torch.equal(got, wanted) and (got - before).norm() > 0.01 * before.norm()


def test_under_autocast():
    vae = autoencoder().float()
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = pulled(vae), pulled(vae, stock)
    assert torch.equal(got[1], wanted[1])


def test_several_samples_are_decoded_with_the_memory_of_one():
    vae, peaks, gradients = autoencoder(), {}, {}
    for batch in (1, 4):
        z = torch.ones(batch, 4, 12, 8, requires_grad=True)
        with LiveBytes() as memory:
            y = sparing(lambda z: vae.decode(z, return_dict=False)[0], vae)(z)
            gradients[batch] = torch.autograd.grad(y.square().sum(), z)[0]
        peaks[batch] = memory.peak
    assert peaks[4] < 1.5 * peaks[1]
    torch.testing.assert_close(gradients[4], gradients[1].expand(4, -1, -1, -1))
