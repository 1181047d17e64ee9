"""How the flow transformers of `images_new` are called."""

import inspect

import diffusers
import torch
from images import EVERYWHERE
from images_flux import EMBEDDED, HALF
from images_new import (
    EDIT,
    HUNYUAN,
    LISTED,
    QWEN,
    Z,
    dreamlite,
    ernie,
    glm,
    hidream,
    hunyuan_image,
    joyimage,
    krea2,
    lumina,
    nucleus,
    of_qwen,
    of_z,
    prx,
    refiner,
)
from images_sd import MASKED, STEPS
from zoo import PROMPT, SHORT, SIZE, TEXT, autoencoder, awake, picture, sana
from zoo_more import cogview4, embeddings, hunyuan_dit, parts, without_text


def cogview3(folder):
    transformer = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=16,
    )
    scheduler = diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction")
    return without_text(awake(transformer), "CogView3PlusPipeline", autoencoder(), scheduler)


def cogview4_control(folder):
    pipe = cogview4(folder)
    transformer = diffusers.CogView4Transformer2DModel(**{**pipe.transformer.config, "in_channels": 8})
    return parts(pipe, "CogView4ControlPipeline", transformer=awake(transformer))


def hunyuan_control(folder):
    pipe = hunyuan_dit(folder)
    known = inspect.signature(diffusers.HunyuanDiT2DControlNetModel.__init__).parameters
    sizes = {key: value for key, value in pipe.transformer.config.items() if key in known}
    net = diffusers.HunyuanDiT2DControlNetModel(**sizes, transformer_num_layers=2)
    return parts(pipe, "HunyuanDiTControlNetPipeline", controlnet=awake(net), requires_safety_checker=False)


def sana_control(folder):
    pipe = sana(folder)
    known = inspect.signature(diffusers.SanaControlNetModel.__init__).parameters
    net = diffusers.SanaControlNetModel(**{k: value for k, value in pipe.transformer.config.items() if k in known})
    return parts(pipe, "SanaControlNetPipeline", controlnet=awake(net))


def sprint(name):
    def make(folder):
        pipe = sana(folder)
        network = {**pipe.transformer.config, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
        transformer = diffusers.SanaTransformer2DModel(**network)
        return parts(pipe, name, transformer=awake(transformer), scheduler=diffusers.SCMScheduler())

    return make


SANA = {**TEXT, **SHORT, "use_resolution_binning": False, "complex_human_instruction": None}
SPRINT = SANA | {"intermediate_timesteps": None, "num_inference_steps": 3}
JOY = {**EDIT, "image": picture(), **STEPS, "guidance_scale": 4.0, "height": 32, "width": 32}
JOY = {key: value for key, value in JOY.items() if key != "true_cfg_scale"}
LUMINA = {
    **EMBEDDED,
    "prompt_attention_mask": torch.ones(1, 8, dtype=torch.long),
    "negative_prompt_attention_mask": torch.ones(1, 8, dtype=torch.long),
}
PRX = {
    **EMBEDDED,
    "prompt_attention_mask": torch.ones(1, 8, dtype=torch.bool),
    "negative_prompt_attention_mask": torch.ones(1, 8, dtype=torch.bool),
    "use_resolution_binning": False,
    "guidance_scale": 4.0,
}
HIDREAM = {
    "prompt_embeds_t5": embeddings(1, 1, 8, 32),
    "negative_prompt_embeds_t5": embeddings(2, 1, 8, 32),
    "prompt_embeds_llama3": embeddings(3, 2, 1, 8, 16),
    "negative_prompt_embeds_llama3": embeddings(4, 2, 1, 8, 16),
    "pooled_prompt_embeds": embeddings(5, 1, 64),
    "negative_pooled_prompt_embeds": embeddings(6, 1, 64),
    **SIZE,
}
GLM = {
    **EMBEDDED,
    "prior_token_ids": torch.arange(4).reshape(1, 4),
    "guidance_scale": 3.0,
}
KREA = {
    "prompt_embeds": embeddings(1, 1, 8, 3, 16),
    "negative_prompt_embeds": embeddings(2, 1, 8, 3, 16),
    "prompt_embeds_mask": torch.ones(1, 8, dtype=torch.bool),
    "negative_prompt_embeds_mask": torch.ones(1, 8, dtype=torch.bool),
    **SIZE,
    "guidance_scale": 3.0,
}

CASES = {
    "QwenImagePipeline: unguided": (of_qwen("QwenImagePipeline"), {**QWEN, "true_cfg_scale": 1.0}),
    "QwenImageImg2ImgPipeline": (of_qwen("QwenImageImg2ImgPipeline"), {**QWEN, **HALF, "image": picture()}),
    "QwenImageInpaintPipeline": (
        of_qwen("QwenImageInpaintPipeline"),
        {**QWEN, **HALF, **MASKED},
        {"unmixed": EVERYWHERE},
    ),
    "QwenImageEditPipeline": (
        of_qwen("QwenImageEditPipeline", processor=None),
        {**EDIT, "image": picture(), "height": 32, "width": 32},
    ),
    "QwenImageEditInpaintPipeline": (
        of_qwen("QwenImageEditInpaintPipeline", processor=None),
        {**EDIT, **HALF, **MASKED, "height": 32, "width": 32},
        {"unmixed": EVERYWHERE},
    ),
    "QwenImageEditPlusPipeline": (
        of_qwen("QwenImageEditPlusPipeline", processor=None),
        {**EDIT, "image": [picture(), picture(1)], "height": 32, "width": 32},
    ),
    "QwenImageControlNetPipeline": (
        of_qwen("QwenImageControlNetPipeline", {"extra_condition_channels": 0}),
        {**QWEN, "control_image": picture()},
    ),
    "QwenImageControlNetInpaintPipeline": (
        of_qwen("QwenImageControlNetInpaintPipeline", {"extra_condition_channels": 4}),
        {**QWEN, "control_image": picture(), "control_mask": EVERYWHERE["mask_image"]},
    ),
    "ZImageImg2ImgPipeline": (of_z("ZImageImg2ImgPipeline"), {**Z, **HALF, "image": picture()}),
    "ZImageInpaintPipeline": (of_z("ZImageInpaintPipeline"), {**Z, **HALF, **MASKED}, {"unmixed": EVERYWHERE}),
    "ZImagePipeline: cfg_normalization": (of_z("ZImagePipeline"), {**Z, "cfg_normalization": True}),
    "ZImagePipeline: unguided": (of_z("ZImagePipeline"), {**Z, "guidance_scale": 0.0}),
    "ZImageControlNetPipeline": (of_z("ZImageControlNetPipeline", 4), {**Z, "control_image": picture()}),
    "ZImageControlNetInpaintPipeline": (
        of_z("ZImageControlNetInpaintPipeline", 9),
        {**Z, **MASKED, "control_image": picture(1)},
    ),
    "ZImageControlNetPipeline: with gradient_checkpointing": (
        of_z("ZImageControlNetPipeline", 4, able=True),
        {**Z, "control_image": picture()},
    ),
    "ZImageControlNetInpaintPipeline: with gradient_checkpointing": (
        of_z("ZImageControlNetInpaintPipeline", 9, able=True),
        {**Z, **MASKED, "control_image": picture(1)},
    ),
    "Krea2Pipeline": (krea2, KREA),
    "NucleusMoEImagePipeline": (nucleus, {key: value for key, value in QWEN.items() if key != "true_cfg_scale"}),
    "ErnieImagePipeline": (ernie, {**LISTED, **SIZE, "guidance_scale": 4.0, "output_type": "pt"}),
    "DreamLitePipeline": (dreamlite("DreamLitePipeline"), {"prompt": PROMPT, "negative_prompt": "w2", **SIZE}),
    "DreamLitePipeline: an edit": (
        dreamlite("DreamLitePipeline"),
        {"prompt": PROMPT, "negative_prompt": "w2", **SIZE, "image": picture()},
    ),
    "DreamLiteMobilePipeline": (dreamlite("DreamLiteMobilePipeline"), {"prompt": PROMPT, **SIZE}),
    "GlmImagePipeline": (glm, GLM),
    "JoyImageEditPipeline": (joyimage, JOY),
    "PRXPipeline": (prx("PRXPipeline"), PRX),
    "PRXPixelPipeline": (prx("PRXPixelPipeline", pixels=True), PRX),
    "LuminaPipeline": (lumina, {**LUMINA, "guidance_scale": 4.0}),
    "LuminaPipeline: unguided": (lumina, {**LUMINA, "guidance_scale": 1.0}),
    "HiDreamImagePipeline": (hidream, {**HIDREAM, "guidance_scale": 4.0}),
    "HunyuanImagePipeline": (hunyuan_image("apg"), HUNYUAN),
    "HunyuanImagePipeline: distilled": (hunyuan_image(), HUNYUAN),
    "HunyuanImagePipeline: MeanFlow": (hunyuan_image("meanflow"), HUNYUAN),
    "HunyuanImagePipeline: CFG": (hunyuan_image("cfg"), HUNYUAN),
    "HunyuanImageRefinerPipeline": (
        refiner,
        {key: value for key, value in HUNYUAN.items() if not key.endswith("_2")} | {"image": picture()},
    ),
    "CogView3PlusPipeline": (cogview3, {**EMBEDDED, "guidance_scale": 4.0}),
    "CogView4ControlPipeline": (cogview4_control, {**EMBEDDED, "guidance_scale": 4.0, "control_image": picture()}),
    "HunyuanDiTControlNetPipeline": (
        hunyuan_control,
        {**TEXT, "use_resolution_binning": False, "control_image": picture()},
    ),
    "HunyuanDiTPAGPipeline": (
        lambda f: parts(
            hunyuan_dit(f), "HunyuanDiTPAGPipeline", pag_applied_layers=["blocks.1"], requires_safety_checker=False
        ),
        {**TEXT, "use_resolution_binning": False, "pag_scale": 2.0},
    ),
    "SanaControlNetPipeline": (sana_control, {**SANA, "control_image": picture()}),
    "SanaSprintPipeline": (sprint("SanaSprintPipeline"), SPRINT),
    "SanaSprintImg2ImgPipeline": (
        sprint("SanaSprintImg2ImgPipeline"),
        {**SPRINT, "image": picture(), "strength": 0.9, "num_inference_steps": 3},
    ),
}
