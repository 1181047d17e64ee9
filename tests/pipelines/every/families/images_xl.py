"""Stable Diffusion XL and 3: variants of the same parts."""

import inspect

import diffusers
from images import EVERYWHERE
from images_sd import MASKED, SHIFTED, control_xs_of
from zoo import BETAS, PROMPT, SD3, SHORT, TEXT, XL, awake, control, hole, picture, pixart, sana, sd3, sdxl, unet
from zoo_more import parts


def union(name, **more):
    """A ControlNet of several kinds of control."""

    def make(folder):
        known = inspect.signature(diffusers.ControlNetUnionModel.__init__).parameters
        kept = {key: value for key, value in unet(**XL).config.items() if key in known}
        kept |= {"conditioning_embedding_out_channels": (8, 8), "num_trans_channel": 16, "num_proj_channel": 16}
        made = diffusers.ControlNetUnionModel(**kept, num_control_type=6, num_trans_head=2)
        return sdxl(folder, name, controlnet=awake(made), **more)

    return make


def control_xs(folder):
    pipe = sdxl(folder, network={"layers_per_block": 2})
    more = {"controlnet": control_xs_of(pipe.unet), "add_watermarker": False}
    return parts(pipe, "StableDiffusionXLControlNetXSPipeline", **more)


def sd3_control(folder, extra=1):
    pipe = sd3(folder)
    made = awake(diffusers.SD3ControlNetModel(**SD3 | {"num_layers": 1, "extra_conditioning_channels": extra}))
    return parts(pipe, "StableDiffusion3ControlNetInpaintingPipeline", controlnet=made)


PAG = {"pag_scale": 2.0}
UNIT = {"control_image": [picture(1)], "control_mode": [0]}

CASES = {
    "StableDiffusionXLControlNetPAGPipeline": (
        lambda f: sdxl(
            f, "StableDiffusionXLControlNetPAGPipeline", controlnet=control(unet(**XL)), pag_applied_layers=["mid"]
        ),
        {**TEXT, **PAG, "image": picture()},
    ),
    "StableDiffusionXLControlNetPAGImg2ImgPipeline": (
        lambda f: sdxl(
            f,
            "StableDiffusionXLControlNetPAGImg2ImgPipeline",
            controlnet=control(unet(**XL)),
            pag_applied_layers=["mid"],
        ),
        {**TEXT, **PAG, **SHIFTED, "image": picture(), "control_image": picture(1)},
    ),
    "StableDiffusionXLControlNetUnionPipeline": (union("StableDiffusionXLControlNetUnionPipeline"), {**TEXT, **UNIT}),
    "StableDiffusionXLControlNetUnionImg2ImgPipeline": (
        union("StableDiffusionXLControlNetUnionImg2ImgPipeline"),
        {**TEXT, **UNIT, **SHIFTED, "image": picture()},
    ),
    "StableDiffusionXLControlNetUnionInpaintPipeline": (
        union("StableDiffusionXLControlNetUnionInpaintPipeline"),
        {**TEXT, **UNIT, **MASKED, "strength": 1.0},
        {"unmixed": EVERYWHERE},
    ),
    "StableDiffusionXLControlNetXSPipeline": (control_xs, {**TEXT, "image": picture()}),
    "StableDiffusionXLPAGImg2ImgPipeline": (
        lambda f: sdxl(f, "StableDiffusionXLPAGImg2ImgPipeline", pag_applied_layers=["mid"]),
        {"prompt": PROMPT, **PAG, **SHIFTED, "image": picture(), "output_type": "pt"},
    ),
    "StableDiffusionXLPAGInpaintPipeline": (
        lambda f: sdxl(f, "StableDiffusionXLPAGInpaintPipeline", pag_applied_layers=["mid"]),
        {**TEXT, **PAG, **MASKED, "strength": 1.0},
        {"unmixed": EVERYWHERE},
    ),
    "StableDiffusionXLPipeline: guidance_rescale": (sdxl, {**TEXT, "guidance_rescale": 0.7}),
    "StableDiffusionXLPipeline: Euler ancestral": (
        lambda f: parts(
            sdxl(f), "StableDiffusionXLPipeline", scheduler=diffusers.EulerAncestralDiscreteScheduler(**BETAS)
        ),
        TEXT,
    ),
    "StableDiffusion3PAGPipeline": (
        lambda f: sd3(f, "StableDiffusion3PAGPipeline", pag_applied_layers=["blocks.0"]),
        {**TEXT, **SHORT, **PAG},
    ),
    "StableDiffusion3PAGImg2ImgPipeline": (
        lambda f: sd3(f, "StableDiffusion3PAGImg2ImgPipeline", pag_applied_layers=["blocks.0"]),
        {**TEXT, **SHORT, **PAG, **SHIFTED, "image": picture()},
    ),
    "StableDiffusion3ControlNetInpaintingPipeline": (
        sd3_control,
        {**TEXT, **SHORT, "control_image": picture(), "control_mask": hole()},
    ),
    "StableDiffusion3Pipeline: skip-layer guidance": (
        sd3,
        {**TEXT, **SHORT, "skip_guidance_layers": [1], "skip_layer_guidance_stop": 1.0, "num_inference_steps": 4},
    ),
    "PixArtSigmaPAGPipeline": (
        lambda f: pixart(f, "PixArtSigmaPAGPipeline", pag_applied_layers=["blocks.1"]),
        {**TEXT, **SHORT, **PAG, "use_resolution_binning": False},
    ),
    "SanaPAGPipeline": (
        lambda f: sana(f, "SanaPAGPipeline", pag_applied_layers=["transformer_blocks.0"]),
        {**TEXT, **SHORT, **PAG, "use_resolution_binning": False, "complex_human_instruction": None},
    ),
}
