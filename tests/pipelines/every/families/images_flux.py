"""Flux 1 and 2, and what is made of the same parts: VisualCloze, Chroma, LongCat, Ovis."""

import sys

import diffusers
import torch
from images import EVERYWHERE
from images_sd import MASKED, SHIFTED, STEPS
from zoo import FLUX, PROMPT, SHORT, SIZE, TEXT, UNPACKED, autoencoder, awake, flux, picture
from zoo_more import chroma, embeddings, flux2, parts, without_text

CALL = {"prompt": PROMPT, **SIZE, **SHORT}
HALF = {"strength": 0.8, "num_inference_steps": 4}
EMBEDDED = {"prompt_embeds": embeddings(1, 1, 8, 32), "negative_prompt_embeds": embeddings(2, 1, 8, 32), **SIZE}
ONE = {"prompt_embeds": EMBEDDED["prompt_embeds"], **SIZE}


def controlled(name):
    return lambda f: flux(f, name, controlnet=awake(diffusers.FluxControlNetModel(**FLUX)))


def channels(name, given=32, more=None):
    return lambda f: flux(f, name, network={"in_channels": given, "out_channels": 16}, **more or {})


def of_flux2(name, guided=False):
    def make(folder):
        pipe = flux2(folder)
        if guided:
            network = diffusers.Flux2Transformer2DModel(**{**pipe.transformer.config, "guidance_embeds": True})
            pipe.register_modules(transformer=network.eval())
        return parts(pipe, name)

    return make


class Seer:
    """What shows pictures to a text encoder that is not there."""

    image_processor = None


def longcat(name):
    def make(folder):
        transformer = diffusers.LongCatImageTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 4, 8],
        )
        vae = autoencoder(16, **UNPACKED)
        return small(told(without_text(transformer, name, vae, text_processor=Seer())))

    return make


def small(pipe):
    """A pipeline that edits pictures of 32 x 32 where it would have them at 1024 x 1024."""
    module = sys.modules[type(pipe).__module__]
    stock = getattr(module, "calculate_dimensions", None)
    if stock is not None:
        module.calculate_dimensions = lambda area, ratio: stock(32 * 32, ratio)
    for known in filter(None, [sys.modules.get("diffusers.pipelines.joyimage.image_processor")]):
        known.BUCKETS[1024] = [(32, 32)]
    return pipe


def told(pipe):
    """A pipeline that wants words, and makes these embeddings of them."""

    def embedded(prompt, *args, **kwargs):
        return embeddings(len(prompt[0]), len(prompt), 8, 32).to(torch.get_default_dtype())

    pipe._encode_prompt = embedded
    return pipe


def ovis(folder):
    transformer = diffusers.OvisImageTransformer2DModel(
        patch_size=1,
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    return without_text(transformer, "OvisImagePipeline")


def chroma_inpaint(folder):
    pipe = chroma(folder, "ChromaInpaintPipeline")
    pipe.transformer.register_to_config(guidance_embeds=False)  # the pipeline asks Chroma's config for it
    return pipe


def cloze(name):
    def make(folder):
        network = {"in_channels": 2 * 16 + 4 * 4, "out_channels": 16}
        return parts(flux(folder, network=network), name, resolution=32)

    return make


CLOZE = {
    "task_prompt": "w1 w2",
    "content_prompt": "w3 w4",
    "image": [[picture(1), picture(2)], [picture(3), None]],
    "guidance_scale": 30.0,
    **STEPS,
    **SHORT,
    "output_type": "pt",
}
KONTEXT = {"max_area": 1024, "_auto_resize": False}

LONGCAT = {"prompt": PROMPT, "negative_prompt": "w2", **SIZE, "guidance_scale": 4.0, "enable_prompt_rewrite": False}

CASES = {
    "FluxControlImg2ImgPipeline": (
        channels("FluxControlImg2ImgPipeline"),
        {**CALL, **HALF, "image": picture(), "control_image": picture(1)},
    ),
    "FluxControlInpaintPipeline": (
        channels("FluxControlInpaintPipeline"),
        {**CALL, **HALF, **MASKED, "control_image": picture(1)},
        {"unmixed": EVERYWHERE},
    ),
    "FluxControlNetImg2ImgPipeline": (
        controlled("FluxControlNetImg2ImgPipeline"),
        {**CALL, **HALF, "image": picture(), "control_image": picture(1)},
    ),
    "FluxControlNetInpaintPipeline": (
        controlled("FluxControlNetInpaintPipeline"),
        {**CALL, **HALF, **MASKED, "control_image": picture(1)},
        {"unmixed": EVERYWHERE},
    ),
    "FluxControlNetPipeline: true CFG": (
        controlled("FluxControlNetPipeline"),
        {**CALL, "control_image": picture(), "negative_prompt": "w2", "true_cfg_scale": 3.0},
    ),
    "FluxKontextPipeline: another size": (
        lambda f: flux(f, "FluxKontextPipeline"),
        {**CALL, **KONTEXT, "image": picture(), "height": 32, "width": 64},
    ),
    "FluxKontextInpaintPipeline": (
        lambda f: flux(f, "FluxKontextInpaintPipeline"),
        {**CALL, **HALF, **MASKED, **KONTEXT},
        {"unmixed": EVERYWHERE},
    ),
    "VisualClozeGenerationPipeline": (cloze("VisualClozeGenerationPipeline"), CLOZE),
    "VisualClozePipeline": (
        cloze("VisualClozePipeline"),
        {**CLOZE, "upsampling_height": 32, "upsampling_width": 32, "upsampling_strength": 0.0},
    ),
    "Flux2Pipeline": (of_flux2("Flux2Pipeline", guided=True), {**ONE, "guidance_scale": 4.0}),
    "Flux2Pipeline: a reference": (
        of_flux2("Flux2Pipeline", guided=True),
        {**ONE, "guidance_scale": 4.0, "image": picture().resize((64, 64))},
    ),
    "Flux2KleinPipeline: a reference": (
        of_flux2("Flux2KleinPipeline"),
        {**EMBEDDED, "guidance_scale": 4.0, "image": picture().resize((64, 64))},
    ),
    "Flux2KleinKVPipeline": (of_flux2("Flux2KleinKVPipeline"), ONE),
    "Flux2KleinKVPipeline: a reference": (
        of_flux2("Flux2KleinKVPipeline"),
        {**ONE, "image": picture().resize((64, 64))},
    ),
    "Flux2KleinInpaintPipeline": (
        of_flux2("Flux2KleinInpaintPipeline"),
        {**EMBEDDED, **HALF, **MASKED, "guidance_scale": 4.0},
        {"unmixed": EVERYWHERE},
    ),
    "ChromaInpaintPipeline": (
        chroma_inpaint,
        {**TEXT, **SHORT, **SHIFTED, **MASKED, "negative_prompt": "w2"},
        {"unmixed": EVERYWHERE},
    ),
    "LongCatImagePipeline": (
        longcat("LongCatImagePipeline"),
        LONGCAT,
    ),
    "LongCatImagePipeline: no cfg_renorm": (
        longcat("LongCatImagePipeline"),
        {**LONGCAT, "enable_cfg_renorm": False},
    ),
    "LongCatImageEditPipeline": (
        longcat("LongCatImageEditPipeline"),
        {
            "prompt": PROMPT,
            "negative_prompt": "w2",
            "image": picture(),
            **STEPS,
            "guidance_scale": 4.0,
            "output_type": "pt",
        },
    ),
    "OvisImagePipeline": (ovis, {**EMBEDDED, "negative_prompt": None, "guidance_scale": 4.0}),
}
