"""The families that the fast tests build, at three steps."""

from zoo import FAMILIES, hole
from zoo_more import MORE

EVERYWHERE = {"mask_image": hole(whole=True), "strength": 1.0}
"""A mask that leaves nothing of the picture: inpainting with 4 channels mixes the rest in after every step."""
NAMES = {
    "sd": "StableDiffusionPipeline",
    "sd-v-rescale": "StableDiffusionPipeline: v, guidance_rescale",
    "sd-unguided": "StableDiffusionPipeline: guidance_scale=1",
    "sd-img2img": "StableDiffusionImg2ImgPipeline",
    "sd-inpaint": "StableDiffusionInpaintPipeline",
    "sd-inpaint-9": "StableDiffusionInpaintPipeline: 9 channels",
    "sd-controlnet": "StableDiffusionControlNetPipeline",
    "sd-lora": "StableDiffusionPipeline: LoRA",
    "sd-ip-adapter": "StableDiffusionPipeline: IP-Adapter",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl-ip-adapter": "StableDiffusionXLPipeline: IP-Adapter",
    "sdxl-img2img": "StableDiffusionXLImg2ImgPipeline",
    "sdxl-inpaint": "StableDiffusionXLInpaintPipeline: 9 channels",
    "sdxl-controlnet": "StableDiffusionXLControlNetPipeline",
    "sdxl-lora": "StableDiffusionXLPipeline: LoRA",
    "sana": "SanaPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline: plain",
    "flux-distilled": "FluxPipeline",
    "flux-cfg": "FluxPipeline: true CFG",
    "dit": "DiTPipeline",
    "dit-unguided": "DiTPipeline: guidance_scale=1",
    "ddim": "DDIMPipeline",
    "ddpm": "DDPMPipeline",
    "pixart": "PixArtAlphaPipeline",
    "sd-controlnets": "StableDiffusionControlNetPipeline: two",
    "sd-controlnet-guess": "StableDiffusionControlNetPipeline: guess_mode",
    "sd-controlnet-inpaint": "StableDiffusionControlNetInpaintPipeline",
    "sd-pix2pix": "StableDiffusionInstructPix2PixPipeline",
    "sd-t2i-adapter": "StableDiffusionAdapterPipeline",
    "sd-t2i-adapter-light": "StableDiffusionAdapterPipeline: light",
    "sd-depth2img": "StableDiffusionDepth2ImgPipeline",
    "sd-upscale": "StableDiffusionUpscalePipeline",
    "sd-pag": "StableDiffusionPAGPipeline",
    "sd-pag-alone": "StableDiffusionPAGPipeline: alone",
    "sdxl-inpaint-4": "StableDiffusionXLInpaintPipeline",
    "sdxl-controlnet-img2img": "StableDiffusionXLControlNetImg2ImgPipeline",
    "sdxl-controlnet-inpaint": "StableDiffusionXLControlNetInpaintPipeline",
    "sdxl-pix2pix": "StableDiffusionXLInstructPix2PixPipeline",
    "sdxl-t2i-adapter": "StableDiffusionXLAdapterPipeline",
    "sdxl-pag": "StableDiffusionXLPAGPipeline",
    "sd3-img2img": "StableDiffusion3Img2ImgPipeline",
    "sd3-inpaint": "StableDiffusion3InpaintPipeline",
    "sd3-controlnet": "StableDiffusion3ControlNetPipeline",
    "pixart-sigma": "PixArtSigmaPipeline",
    "hunyuan-dit": "HunyuanDiTPipeline",
    "auraflow": "AuraFlowPipeline",
    "lumina2": "Lumina2Pipeline",
    "lumina2-plain": "Lumina2Pipeline: cfg_normalization off",
    "chroma": "ChromaPipeline",
    "chroma-img2img": "ChromaImg2ImgPipeline",
    "bria": "BriaPipeline",
    "cogview4": "CogView4Pipeline",
    "qwenimage": "QwenImagePipeline",
    "flux2-klein": "Flux2KleinPipeline",
    "z-image": "ZImagePipeline",
    "flux-img2img": "FluxImg2ImgPipeline",
    "flux-inpaint": "FluxInpaintPipeline",
    "flux-fill": "FluxFillPipeline",
    "flux-control": "FluxControlPipeline",
    "flux-controlnet": "FluxControlNetPipeline",
    "flux-kontext": "FluxKontextPipeline",
}
MIXED = (
    "sd-inpaint",
    "sd-controlnet-inpaint",
    "sdxl-inpaint-4",
    "sdxl-controlnet-inpaint",
    "sd3-inpaint",
    "flux-inpaint",
)


def _case(family):
    """A case of it, long enough for look-aheads of three calls: adapters act in the first so many steps."""
    make, call = (FAMILIES | MORE)[family]
    more = {"num_inference_steps": 4 if "strength" in call or "adapter" in family else 3}
    notes = {"unmixed": EVERYWHERE} if family in MIXED else {}
    notes |= {"once": True} if family in FAMILIES and "controlnet" not in family else {}
    return make, call | more, notes


CASES = {name: _case(family) for family, name in NAMES.items()}
