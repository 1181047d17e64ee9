"""Further families with tiny random weights, as in `zoo`: those that only `test_more_families.py` tests."""

import diffusers
import torch
from zoo import (
    PROMPT,
    TEXT,
    XL,
    control,
    hole,
    picture,
    sd,
    sdxl,
    unet,
)

PICTURE = {"image": picture(), "num_inference_steps": 3, "output_type": "pt"}


def t2i(kind="full_adapter"):
    """The network of a T2I-Adapter, and blocks of a U-Net of the sizes of what it gives."""
    network = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    network |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    adapter = diffusers.T2IAdapter(
        in_channels=3, channels=[16, 32], num_res_blocks=1, downscale_factor=2, adapter_type=kind
    )
    return {"network": network, "adapter": adapter.eval()}


def upscaler(folder):
    return sd(
        folder,
        "StableDiffusionUpscalePipeline",
        network={"in_channels": 7, "num_class_embeds": 100, "attention_head_dim": 8},
        low_res_scheduler=diffusers.DDPMScheduler(),
        max_noise_level=100,
    )


MORE = {
    "sd-controlnets": (
        lambda f: sd(f, "StableDiffusionControlNetPipeline", controlnet=[control(), control()]),
        {**TEXT, "image": [picture(), picture(1)]},
    ),
    "sd-controlnet-guess": (
        lambda f: sd(f, "StableDiffusionControlNetPipeline", controlnet=control()),
        {**TEXT, "image": picture(), "guess_mode": True},
    ),
    "sd-controlnet-inpaint": (
        lambda f: sd(f, "StableDiffusionControlNetInpaintPipeline", controlnet=control()),
        {**TEXT, "image": picture(), "mask_image": hole(), "control_image": picture(1)},
    ),
    "sd-pix2pix": (
        lambda f: sd(f, "StableDiffusionInstructPix2PixPipeline", network={"in_channels": 8}),
        {"prompt": PROMPT, "guidance_scale": 5.0, "image_guidance_scale": 1.5, **PICTURE},
    ),
    "sd-t2i-adapter": (
        lambda f: sd(f, "StableDiffusionAdapterPipeline", **t2i()),
        {**TEXT, "image": picture()},
    ),
    "sd-t2i-adapter-light": (
        lambda f: sd(f, "StableDiffusionAdapterPipeline", **t2i("light_adapter")),
        {**TEXT, "image": picture()},
    ),
    "sd-depth2img": (
        lambda f: diffusers.StableDiffusionDepth2ImgPipeline(
            depth_estimator=None,
            **{
                name: part
                for name, part in sd(f, network={"in_channels": 5}).components.items()
                if name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "feature_extractor")
            },
        ),
        {"prompt": PROMPT, "depth_map": torch.linspace(0, 1, 1024).reshape(1, 32, 32), **PICTURE, "strength": 1.0},
    ),
    "sd-upscale": (upscaler, {"prompt": PROMPT, "guidance_scale": 5.0, "noise_level": 20, **PICTURE}),
    "sd-pag": (
        lambda f: sd(f, "StableDiffusionPAGPipeline", pag_applied_layers=["up"]),
        {**TEXT, "pag_scale": 2.0},
    ),
    "sd-pag-alone": (
        lambda f: sd(f, "StableDiffusionPAGPipeline", pag_applied_layers=["up"]),
        {**TEXT, "pag_scale": 2.0, "guidance_scale": 0.0},
    ),
    "sdxl-inpaint-4": (
        lambda f: sdxl(f, "StableDiffusionXLInpaintPipeline"),
        {**TEXT, "image": picture(), "mask_image": hole(), "strength": 1.0},
    ),
    "sdxl-controlnet-img2img": (
        lambda f: sdxl(f, "StableDiffusionXLControlNetImg2ImgPipeline", controlnet=control(unet(**XL))),
        {**TEXT, "image": picture(), "control_image": picture(1), "strength": 0.9, "num_inference_steps": 4},
    ),
    "sdxl-controlnet-inpaint": (
        lambda f: sdxl(f, "StableDiffusionXLControlNetInpaintPipeline", controlnet=control(unet(**XL))),
        {**TEXT, "image": picture(), "mask_image": hole(), "control_image": picture(1), "strength": 1.0},
    ),
    "sdxl-pix2pix": (
        lambda f: sdxl(f, "StableDiffusionXLInstructPix2PixPipeline", network={"in_channels": 8}),
        {**TEXT, "image": picture(), "image_guidance_scale": 1.5},
    ),
    "sdxl-t2i-adapter": (
        lambda f: sdxl(f, "StableDiffusionXLAdapterPipeline", **t2i()),
        {**TEXT, "image": picture()},
    ),
    "sdxl-pag": (
        lambda f: sdxl(f, "StableDiffusionXLPAGPipeline", pag_applied_layers=["mid"]),
        {**TEXT, "pag_scale": 2.0},
    ),
}
