"""What guidance keeps in memory: bounded in n, less with checkpoints; right in half precision and with offloading."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import accelerate
import diffusers
from zoo import FAMILIES, bright, build, double, draw, unet

import symguide as sg
from symguide.errors import ConfigError
from symguide.meter import SavedBytes
from symguide.pipelines.decode import decoder
from symguide.pipelines.modules import checkpointed

DTYPE = torch.float32


class Look(sg.SAG):
    """Guides nothing, but takes the gradient at the second step: its value, its bytes and those of plain autograd."""

    def __init__(self, n, seen, objective=bright):
        super().__init__(objective, n=n)
        self.seen = seen

    def guide(self, step):
        if step.index != 1:
            return
        denoiser, x = step.run.predict.denoiser, step.x
        with SavedBytes() as ours:
            gradient = sg.lookahead_gradient(denoiser, x, step.t, self.objective, self.n, memory=self.memory)
        with SavedBytes() as plain, torch.enable_grad():
            self.objective(sg.lookahead(denoiser, x.clone().requires_grad_(), step.t, 1).x0)
        self.seen.update(value=gradient.value, ours=ours.peak, plain=plain.peak, memory=self.memory)


def look(pipe, call, n=4, **settings):
    seen = {}
    with sg.guide(pipe, loss=Look(n, seen), **settings):
        draw(pipe, call)
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_four_calls_weigh_no_more_than_plain_autograd_through_one(family, folder):
    """Of the network and the decoder, as FreeDoM's and DPS's codes do it."""
    seen = look(*build(family, folder))
    assert 0 < seen["ours"] <= 1.01 * seen["plain"]


@pytest.mark.parametrize(
    "family", ["sd", "sdxl", "sd-controlnet", "flux", "pixart", "ddim", "animatediff", "ltx", "wan"]
)
def test_checkpoints_keep_less_and_change_nothing(family, folder):
    pipe, call = build(family, folder)
    whole, less = look(pipe, call), look(pipe, call, checkpoint=True)
    assert less["ours"] < whole["ours"]
    assert (less["value"] - whole["value"]).norm() < 1e-5 * whole["value"].norm()
    assert not any(m.is_gradient_checkpointing for m in pipe.components.values() if isinstance(m, diffusers.ModelMixin))


def test_pictures_are_decoded_one_by_one_with_checkpoints(folder):
    """Little beside the latents is saved, and one picture is decoded at a time, forward and again backward."""
    pipe, _ = build("sd", folder)
    z, calls = torch.randn(4, 4, 16, 16), [SimpleNamespace(kwargs={})]
    rows, values = [], {}
    pipe.vae.decoder.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    for checkpoint in (False, True):
        rows.clear()
        leaf = z.clone().requires_grad_()
        with SavedBytes() as saved:
            loss = bright(decoder(pipe, calls, checkpoint)(leaf)).sum()
            held = saved.live
            values[checkpoint] = torch.autograd.grad(loss, leaf)[0]
    assert rows == [1] * 8 and held < 100_000
    torch.testing.assert_close(values[True], values[False])


@pytest.mark.parametrize("tile", ["enable_slicing", "enable_tiling"])
def test_a_sliced_or_tiled_decoder_has_the_same_kind_of_gradient(tile, folder):
    """Tiles overlap and are blended: another decoder, but differentiable all the same."""
    pipe, call = build("sd", folder)
    double(pipe)
    getattr(pipe.vae, tile)()
    pipe.vae.tile_latent_min_size, pipe.vae.tile_sample_min_size = 8, 16
    slopes = []

    class Differs(sg.SAG):
        def guide(self, step):
            if step.index == 1:
                denoiser, x = step.run.predict.denoiser, step.x
                along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
                value = sg.lookahead_gradient(denoiser, x, step.t, self.objective, 2).value
                with torch.no_grad():
                    up, down = (
                        self.objective(sg.lookahead(denoiser, x + h * along, step.t, 2).x0) for h in (1e-4, -1e-4)
                    )
                slopes.append(((value * along).sum(), (up - down).sum() / 2e-4))

    call["num_images_per_prompt"] = 2
    with sg.guide(pipe, loss=Differs(bright)):
        draw(pipe, call)
    ((got, expected),) = slopes
    assert abs(got - expected) < 1e-6 * abs(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["sd", "sdxl", "flux"])
def test_half_precision_gives_the_gradient_of_single(family, dtype, folder, monkeypatch):
    """Also where the objective's gradient is far below what float16 can hold. In torch 2.4 noise of one seed is another
    in half precision, so here it is drawn in single."""
    draws = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, dtype=None, **more: draws(*size, **more).to(dtype))
    pipe, call = build(family, folder)
    single = look(pipe, call)["value"]

    pipe.to(dtype)
    pipe.vae.register_to_config(force_upcast=False)
    seen = {}
    with sg.guide(pipe, loss=Look(4, seen, lambda x0: 1e-9 * bright(x0))):
        draw(pipe, call)
    assert (1e9 * seen["value"] - single).norm() < 0.1 * single.norm()


def test_an_autoencoder_that_float16_overflows_decodes_in_single(folder):
    """As the pipeline itself does where it has a way to."""
    pipe, call = build("sdxl", folder)
    single = look(pipe, call)["value"]
    pipe.to(torch.float16)
    pipe.upcast_vae()
    pipe.vae.to(torch.float16)
    with torch.no_grad():  # activations of 1e5 inside, as SDXL's own autoencoder has them
        pipe.vae.decoder.conv_in.weight.mul_(2.0**15)
        pipe.vae.decoder.conv_in.bias.mul_(2.0**15)
    call["output_type"] = "latent"
    pipe.vae.register_to_config(force_upcast=False)
    with pytest.raises(sg.GuidanceError, match="not finite"):
        look(pipe, call)
    pipe.vae.register_to_config(force_upcast=True)
    seen = look(pipe, call)
    assert next(pipe.vae.parameters()).dtype == torch.float16 and pipe.vae.encoder is not None
    assert seen["value"].isfinite().all() and seen["value"].shape == single.shape
    less = look(pipe, call, checkpoint=True)
    assert less["ours"] < seen["ours"]
    assert (less["value"] - seen["value"]).norm() < 1e-3 * seen["value"].norm()


def test_auto_learns_what_a_graph_weighs(folder):
    """The first guided step keeps one graph and weighs it; from then on as many are kept as fit."""
    pipe, call = build("sd", folder)
    with sg.guide(pipe, loss=sg.SAG(bright, n=4, memory="auto")) as run:
        draw(pipe, call)
    calls = [line.forward_calls for line in run.trace]
    assert calls == [2 * 7, 2 * 5, 2] and run.cost.backward_calls == 2 * 4 * 2


def test_no_graph_outlives_a_call_where_weights_are_offloaded(folder):
    pipe, call = build("sd", folder)
    plain = look(pipe, call)
    accelerate.cpu_offload_with_hook(pipe.unet, execution_device=torch.device("cpu"))
    seen = look(pipe, call)
    assert plain["memory"] == "minimal" and seen["memory"] == 0
    assert torch.equal(seen["value"], plain["value"])
    accelerate.cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="enable_model_cpu_offload"), sg.guide(pipe, loss=sg.SAG(bright)):
        pass


def hunyuan_image():
    """Its blocks are given named arguments, which diffusers' own checkpoints do not take."""
    network = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1),
        guidance_embeds=False,
        text_embed_dim=16,
        text_embed_2_dim=16,
        rope_axes_dim=(4, 4),
    ).eval()
    words, mask = torch.randn(1, 3, 16), torch.ones(1, 3)

    def call(x):
        return network(x, torch.tensor([500.0]), words, mask, return_dict=False)[0]

    return {"transformer": network}, call, torch.randn(1, 4, 4, 4)


def magvit():
    """Its convolutions keep the last frames of one call for the next, so that no call can be made again."""
    blocks = ("Spatial{}Block3D", *["SpatialTemporal{}Block3D"] * 3)
    vae = diffusers.AutoencoderKLMagvit(
        down_block_types=[name.format("Down") for name in blocks],
        up_block_types=[name.format("Up") for name in blocks],
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    ).eval()
    return {"unet": unet(), "vae": vae}, lambda z: vae.decode(z, return_dict=False)[0], torch.randn(1, 4, 3, 2, 2)


@pytest.mark.parametrize("make", [hunyuan_image, magvit])
def test_checkpoints_where_diffusers_own_fail(make):
    if make is hunyuan_image and not hasattr(diffusers, "HunyuanImageTransformer2DModel"):
        pytest.skip("this diffusers has no HunyuanImage")
    torch.manual_seed(0)
    components, call, x = make()
    pipe, values = SimpleNamespace(components=components, **components), []
    for wanted in (False, True, False):
        leaf = x.clone().requires_grad_()
        with checkpointed(pipe, wanted):
            values.append(torch.autograd.grad(call(leaf).square().sum(), leaf)[0])
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
