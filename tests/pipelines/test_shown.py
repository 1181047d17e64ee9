"""What objectives see is what the pipeline decodes, in families that cut, put before or scale in their own way."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from zoo import (
    SHORT,
    SIZE,
    TEXT,
    UNPACKED,
    VIDEO,
    autoencoder,
    bright,
    build,
    built,
    cogvideox,
    draw,
    ltx,
    picture,
    wan,
)
from zoo_more import embeddings, flux2, parts, without_text

import symguide as sg
from symguide.pipelines.layout import layout

DTYPE = torch.float32


class Sees:
    """An objective that remembers what it saw last, in a recipe that changes nothing."""

    def __init__(self):
        self.objective, self.seen = self.see, None

    def see(self, x0):
        self.seen = x0
        return bright(x0)

    def prepare(self, run):
        pass

    def repeats_at(self, step):
        return 1

    def guide(self, step):
        self.objective(step.prediction.x0)


def kandinsky5(folder):
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=32,
        in_text_dim2=16,
        time_dim=16,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(1, 1, 2),
        visual_cond=False,
        attention_type="regular",
    )
    vae = autoencoder(**UNPACKED | {"shift_factor": 0.5})
    pipe = without_text(transformer, "Kandinsky5T2IPipeline", vae, text_encoder_2=None, tokenizer_2=None)
    pipe.resolutions = [(32, 32)]
    return pipe


def glm_image(folder):
    transformer = diffusers.GlmImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=32,
        time_embed_dim=16,
        condition_dim=8,
        prior_vq_quantizer_codebook_size=128,
    )
    vae = autoencoder(blocks=(8,) * 4, latents_mean=[0.1] * 4, latents_std=[1.5] * 4, scaling_factor=0.5)
    return without_text(transformer, "GlmImagePipeline", vae, vision_language_encoder=None, processor=None)


def wan_vace(folder):
    pipe = wan(folder)
    sizes = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    network = diffusers.WanVACETransformer3DModel(**sizes | {"vace_layers": [0], "vace_in_channels": 96})
    return parts(pipe, "WanVACEPipeline", transformer=network.eval())


def hunyuan_i2v(folder):
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=False,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        image_condition_type="token_replace",
    )
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
    )
    more = {"text_encoder_2": None, "tokenizer_2": None, "image_processor": None}
    return without_text(transformer, "HunyuanVideoImageToVideoPipeline", vae.eval(), **more)


def cogvideox_15(folder):
    """Its patches hold two frames of latents, so the pipeline makes one more than it decodes."""
    pipe = cogvideox(folder)
    sizes = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    more = {"patch_size_t": 2, "use_rotary_positional_embeddings": True, "patch_bias": False}
    network = diffusers.CogVideoXTransformer3DModel(**sizes | more | {"attention_head_dim": 16}).eval()
    return parts(pipe, "CogVideoXPipeline", transformer=network)


def noisy_ltx(folder):
    """Its decoder is told how much noise there is in what it is given."""
    pipe = ltx(folder)
    sizes = {name: value for name, value in pipe.vae.config.items() if not name.startswith("_")}
    vae = diffusers.AutoencoderKLLTXVideo(**sizes | {"timestep_conditioning": True}).eval()
    return parts(pipe, "LTXPipeline", vae=vae)


def super_resolution(folder):
    network = diffusers.UNet2DModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        in_channels=6,
        out_channels=3,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    vqvae = diffusers.VQModel(block_out_channels=[32], latent_channels=3)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return diffusers.LDMSuperResolutionPipeline(unet=network.eval(), vqvae=vqvae.eval(), scheduler=scheduler)


EMBEDS = {"prompt_embeds": embeddings(1, 1, 8, 32)}
LTX = {**TEXT, **SHORT, "num_frames": 9}
DECODED = {
    "flux2-klein-kv": (
        lambda f: parts(flux2(f), "Flux2KleinKVPipeline"),
        EMBEDS | SIZE | {"image": picture().resize((64, 128)), "num_inference_steps": 2},
    ),
    "kandinsky5": (
        kandinsky5,
        SIZE
        | {
            "guidance_scale": 1.0,
            "prompt_embeds_qwen": embeddings(1, 1, 8, 32),
            "prompt_embeds_clip": embeddings(2, 1, 16),
            "prompt_cu_seqlens": torch.tensor([0, 8], dtype=torch.int32),
        },
    ),
    "glm-image": (
        glm_image,
        EMBEDS | SIZE | {"guidance_scale": 1.0, "prior_token_ids": torch.arange(4)[None], "num_inference_steps": 4},
    ),
    "wan-vace": (
        wan_vace,
        SIZE
        | {"height": 16, "width": 16, "num_frames": 9, "guidance_scale": 1.0, "reference_images": [picture()]}
        | EMBEDS,
    ),
    "hunyuan-i2v": (
        hunyuan_i2v,
        {
            "image": picture(),
            "prompt_embeds": embeddings(1, 1, 8, 16),
            "prompt_attention_mask": torch.ones(1, 8),
            "pooled_prompt_embeds": embeddings(2, 1, 8),
            **SIZE,
            "height": 16,
            "width": 16,
            "num_frames": 9,
        },
    ),
    "cogvideox-1.5": (cogvideox_15, {**TEXT, **VIDEO, **SHORT, "num_frames": 9}),
    "ltx-told": (noisy_ltx, LTX | {"decode_timestep": 0.05, "decode_noise_scale": 0.0}),
    "ltx-not-told": (noisy_ltx, LTX),
    "super-resolution": (super_resolution, {"image": picture(), "num_inference_steps": 2, "output_type": "pt"}),
}
"""Pipelines that do not decode just what their scheduler gives, scaled as their autoencoder's config says."""


@pytest.mark.parametrize("family", DECODED)
def test_the_objective_sees_what_the_pipeline_draws(family, folder):
    """In the last step, where the clean estimate is what the scheduler gives."""
    make, call = DECODED[family]
    pipe, recipe = built(make, folder), Sees()
    with sg.guide(pipe, loss=recipe):
        drawn = draw(pipe, call)
    seen = (recipe.seen / 2 + 0.5).clamp(0, 1)
    if drawn.shape[-1] == 3:  # diffusers 0.35 upscales to channels last, whatever output_type says
        drawn = drawn.movedim(-1, 1)
    torch.testing.assert_close(seen if seen.ndim == 4 else seen.transpose(1, 2), drawn, atol=1e-4, rtol=0)


class Changed(diffusers.StableDiffusionPipeline):
    """Does something to its latents before it decodes them."""

    def run_safety_checker(self, image, device, dtype):
        return image, None

    def __call__(self, *args, **kwargs):
        result = super().__call__(*args, **kwargs | {"output_type": "latent"})
        return self.vae.decode(0.9 * result.images / self.vae.config.scaling_factor)


def changed(folder, **more):
    pipe, call = build("sd", folder)
    pipe = Changed(**pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe, call


def test_a_pipeline_that_decodes_something_else_is_told_so(folder):
    pipe, call = changed(folder)
    plain = draw(pipe, call)
    with (
        pytest.raises(sg.GuidanceError, match="Changed decodes something else than the objective saw: use decode"),
        sg.guide(pipe, loss=sg.SAG(bright, n=2)),
    ):
        draw(pipe, call)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2), decode=False):
        assert not torch.equal(draw(pipe, call), plain)
    with sg.guide(pipe, loss=sg.SAG(bright, scale=0.0)):  # nothing was shown
        assert torch.equal(draw(pipe, call), plain)
    assert "decode" not in vars(pipe.vae)


def test_previews_and_others_with_the_same_autoencoder_may_decode_what_they_like(folder):
    pipe, call = build("sd", folder)
    other, seen = parts(pipe, "StableDiffusionPipeline", requires_safety_checker=False), []

    def preview(pipe, index, timestep, given):
        seen.append(pipe.vae.decode(given["latents"] / 7).sample)
        return given

    with sg.guide(pipe, loss=sg.SAG(bright, n=2)):
        expected = draw(pipe, call)
        assert torch.equal(draw(pipe, call | {"callback_on_step_end": preview}), expected)
        latents = draw(pipe, call | {"output_type": "latent"})
        pipe.vae.decode(latents / 3)
        draw(other, call)
    assert len(seen) == 3


def test_noise_of_the_decoding_itself_is_refused_before_any_work(folder):
    pipe, call = built(noisy_ltx, folder), DECODED["ltx-told"][1] | {"decode_noise_scale": None}
    steps = []
    with (
        pytest.raises(sg.ConfigError, match="adds noise to its latents before it decodes them"),
        sg.guide(pipe, loss=sg.SAG(bright, n=2)),
    ):
        draw(pipe, call | {"callback_on_step_end": lambda *given: steps.append(given) or {}})
    assert not steps


@pytest.mark.parametrize("family", ["animatediff", "sd-inpaint", "sdxl"])
def test_half_precision_and_decoding_in_parts_are_no_difference(family, folder):
    """AnimateDiff decodes a few frames at a time, inpainting puts the picture's latents back, SDXL decodes wider."""
    pipe, call = build(family, folder)
    if family == "animatediff":
        call["decode_chunk_size"] = 3
    if family == "sdxl":
        pipe.to(torch.bfloat16)
    with sg.guide(pipe, loss=sg.SAG(bright, n=1, scale=0.3)) as run:
        draw(pipe, call)
    assert run.trace[0].loss is not None


def test_layouts_of_families_that_cut_or_are_refused():
    """Wan Animate's first frame is the character's; Framepack decodes more than it draws."""
    vae, call = autoencoder(), SimpleNamespace(kwargs={})
    animate, framepack = (type(name, (), {})() for name in ("WanAnimatePipeline", "HunyuanVideoFramepackPipeline"))
    z = torch.randn(1, 4, 3, 2, 2)
    assert torch.equal(layout(animate, vae, call)(z), z[:, :, 1:])
    with pytest.raises(sg.ConfigError, match=r"together with what it drew before, .*use decode=False"):
        layout(framepack, vae, call)


def test_latents_of_an_unknown_layout_are_refused_in_the_first_step(folder, monkeypatch):
    """Though the window begins later."""
    pipe, call = build("sd", folder)
    steps = []
    monkeypatch.setattr("symguide.pipelines.layout.channels", lambda vae: 7)
    with (
        pytest.raises(sg.ConfigError, match="does not know how StableDiffusionPipeline lays out its latents"),
        sg.guide(pipe, loss=sg.SAG(bright, n=2, window=(0.5, 1.0))),
    ):
        draw(pipe, call | {"callback_on_step_end": lambda *given: steps.append(given) or {}})
    assert not steps
