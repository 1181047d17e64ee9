"""Further families with tiny random weights, as in `zoo`: for `test_more_families.py` and the tier in `every/`."""

import inspect

import diffusers
import torch
import transformers
from zoo import (
    FLUX,
    NEGATIVE,
    PROMPT,
    SD3,
    SHORT,
    SIZE,
    TEXT,
    UNPACKED,
    XL,
    autoencoder,
    awake,
    control,
    flux,
    hole,
    picture,
    pixart,
    sd,
    sd3,
    sdxl,
    t5,
    unet,
    word_tokenizer,
)

SIZE = SIZE | {"num_inference_steps": 2}
TEXT = TEXT | {"num_inference_steps": 2}
PICTURE = {"image": picture(), "num_inference_steps": 2, "output_type": "pt"}


def t2i(kind="full_adapter"):
    """The network of a T2I-Adapter, and blocks of a U-Net of the sizes of what it gives."""
    network = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    network |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    adapter = diffusers.T2IAdapter(
        in_channels=3, channels=[16, 32], num_res_blocks=1, downscale_factor=2, adapter_type=kind
    )
    return {"network": network, "adapter": adapter.eval()}


def parts(pipe, name, **more):
    """Another pipeline of the same components, as far as it takes them and has no others."""
    kind = getattr(diffusers, name)
    named = inspect.signature(kind.__init__).parameters
    return kind(**{key: part for key, part in pipe.components.items() if key in named} | more)


def xl_adapter(folder):
    made = t2i()
    return parts(sdxl(folder, network=made["network"]), "StableDiffusionXLAdapterPipeline", adapter=made["adapter"])


def upscaler(folder):
    network = {"in_channels": 7, "num_class_embeds": 100}
    more = {"low_res_scheduler": diffusers.DDPMScheduler(), "max_noise_level": 100}
    return parts(sd(folder, network=network), "StableDiffusionUpscalePipeline", **more)


def embeddings(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def t5_flow(transformer, name, vae=None, kind="T5", **more):
    """A flow model whose prompts a T5 encodes."""
    return getattr(diffusers, name)(
        tokenizer=word_tokenizer(),
        text_encoder=t5(kind),
        vae=vae or autoencoder(**UNPACKED),
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        **more,
    )


def without_text(transformer, name, vae=None, scheduler=None, **more):
    """A flow model that is called with embeddings of its prompts."""
    return getattr(diffusers, name)(
        tokenizer=None,
        text_encoder=None,
        vae=vae or autoencoder(**UNPACKED),
        transformer=transformer.eval(),
        scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(),
        **more,
    )


def chroma(folder, name="ChromaPipeline"):
    sizes = {name: value for name, value in FLUX.items() if name != "pooled_projection_dim"}
    approximator = {"approximator_num_channels": 16, "approximator_hidden_dim": 32, "approximator_layers": 1}
    return t5_flow(diffusers.ChromaTransformer2DModel(**sizes, **approximator), name)


def auraflow(folder):
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        out_channels=4,
        pos_embed_max_size=64,
    )
    return t5_flow(transformer, "AuraFlowPipeline", autoencoder(), kind="UMT5")


def lumina2(folder):
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2],
        axes_lens=[64, 32, 32],
        cap_feat_dim=32,
    )
    return t5_flow(transformer, "Lumina2Pipeline")


def bria(folder):
    transformer = diffusers.BriaTransformer2DModel(
        **FLUX | {"pooled_projection_dim": None, "attention_head_dim": 8, "axes_dims_rope": [0, 4, 4]}
    )
    return t5_flow(transformer, "BriaPipeline")


def hunyuan_dit(folder):
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        cross_attention_dim=32,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        hidden_size=16,
        text_len=77,
        text_len_t5=256,
        activation_fn="gelu-approximate",
    )
    sizes = {"vocab_size": 203, "hidden_size": 32, "intermediate_size": 37}
    bert = transformers.BertConfig(**sizes, num_hidden_layers=2, num_attention_heads=4)
    return diffusers.HunyuanDiTPipeline(
        text_encoder=transformers.BertModel(bert).eval(),
        tokenizer=word_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=word_tokenizer(),
        vae=autoencoder(blocks=(8, 8, 8, 16)),  # 8 pixels a latent, as the pipeline takes for granted
        transformer=transformer.eval(),
        scheduler=diffusers.DDPMScheduler(prediction_type="v_prediction", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def qwen(folder):
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.8, 1.1, 1.2, 0.9],
    )
    return without_text(transformer, "QwenImagePipeline", vae.eval())


def cogview4(folder):
    transformer = diffusers.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
    )
    shifted = {"base_shift": 0.25, "max_shift": 0.75, "base_image_seq_len": 256}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        **shifted, use_dynamic_shifting=True, time_shift_type="linear"
    )
    return without_text(transformer, "CogView4Pipeline", autoencoder(), scheduler)


def flux2(folder):
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=False,
    )
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )
    vae.bn.running_mean.normal_(std=0.2)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return without_text(transformer, "Flux2KleinPipeline", vae.eval())


def z_image(folder):
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[8, 4, 4],
        axes_lens=[64, 32, 32],
    )
    return without_text(awake(transformer), "ZImagePipeline")


def prx_pixel(folder):
    """Its network predicts clean pictures, for a flow."""
    transformer = diffusers.PRXTransformer2DModel(
        patch_size=2,
        in_channels=3,
        context_in_dim=32,
        hidden_size=16,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        axes_dim=[4, 4],
        bottleneck_size=8,
        resolution_embeds=True,
    )
    return diffusers.PRXPixelPipeline(
        transformer=awake(transformer).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=None,
        tokenizer=None,
    )


def ltx2(folder):
    """Sight and sound, each drawn by its own scheduler."""
    from diffusers.pipelines.ltx2 import LTX2TextConnectors
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=16,
        rope_double_precision=False,
        rope_type="split",
    )
    each = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "num_learnable_registers": None}
    connectors = LTX2TextConnectors(
        caption_channels=16,
        text_proj_in_factor=2,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
        rope_type="split",
        **{f"{kind}_connector_{name}": value for kind in ("video", "audio") for name, value in each.items()},
    )
    vae = diffusers.AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatial",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        patch_size=1,
        patch_size_t=1,
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    sound = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4,
        ch_mult=(1,),
        num_res_blocks=1,
        resolution=32,
        latent_channels=2,
        mid_block_add_attention=False,
        mel_bins=8,
    )
    vocoder = LTX2Vocoder(
        in_channels=16,
        hidden_channels=8,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
    )
    parts = {"connectors": connectors.eval(), "audio_vae": sound.eval(), "vocoder": vocoder.eval()}
    return without_text(transformer, "LTX2Pipeline", vae.eval(), **parts)


EMBEDDED = {"prompt_embeds": embeddings(1, 1, 8, 32), "negative_prompt_embeds": embeddings(2, 1, 8, 32), **SIZE}
WORDS = {
    "prompt_attention_mask": torch.ones(1, 8, dtype=torch.bool),
    "negative_prompt_attention_mask": torch.ones(1, 8, dtype=torch.bool),
}
CONTROLLED = {"control_image": picture(), "prompt": PROMPT, **SIZE, **SHORT}
MASKED = {"image": picture(), "mask_image": hole()}

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
        lambda f: parts(sd(f, network={"in_channels": 5}), "StableDiffusionDepth2ImgPipeline", depth_estimator=None),
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
        {**TEXT, "image": picture(), "control_image": picture(1), "strength": 0.9, "num_inference_steps": 3},
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
        xl_adapter,
        {**TEXT, "image": picture()},
    ),
    "sdxl-pag": (
        lambda f: sdxl(f, "StableDiffusionXLPAGPipeline", pag_applied_layers=["mid"]),
        {**TEXT, "pag_scale": 2.0},
    ),
    "sd3-img2img": (
        lambda f: sd3(f, "StableDiffusion3Img2ImgPipeline"),
        {**TEXT, **SHORT, "image": picture(), "strength": 0.8, "num_inference_steps": 3},
    ),
    "sd3-inpaint": (
        lambda f: sd3(f, "StableDiffusion3InpaintPipeline", channels=16),
        {**TEXT, **SHORT, **MASKED, "strength": 0.8, "num_inference_steps": 3},
    ),
    "sd3-controlnet": (
        lambda f: sd3(
            f,
            "StableDiffusion3ControlNetPipeline",
            controlnet=awake(diffusers.SD3ControlNetModel(**SD3 | {"num_layers": 1})),
        ),
        {**TEXT, **SHORT, "control_image": picture()},
    ),
    "pixart-sigma": (
        lambda f: pixart(f, "PixArtSigmaPipeline"),
        {**TEXT, **SHORT, "use_resolution_binning": False},
    ),
    "hunyuan-dit": (hunyuan_dit, {**TEXT, "use_resolution_binning": False, "guidance_rescale": 0.5}),
    "auraflow": (auraflow, {**TEXT, **SHORT}),
    "lumina2": (lumina2, {**TEXT, **SHORT}),
    "lumina2-plain": (lumina2, {**TEXT, **SHORT, "cfg_normalization": False}),
    "chroma": (chroma, {**TEXT, **SHORT, "negative_prompt": NEGATIVE}),
    "chroma-img2img": (
        lambda f: chroma(f, "ChromaImg2ImgPipeline"),
        {**TEXT, **SHORT, "image": picture(), "strength": 0.8, "num_inference_steps": 3},
    ),
    "bria": (bria, {**TEXT, **SHORT, "negative_prompt": NEGATIVE}),
    "cogview4": (cogview4, {**EMBEDDED, "guidance_scale": 5.0}),
    "qwenimage": (
        qwen,
        {
            **EMBEDDED,
            "prompt_embeds_mask": torch.ones(1, 8, dtype=torch.int64),
            "negative_prompt_embeds_mask": torch.ones(1, 8, dtype=torch.int64),
            "true_cfg_scale": 4.0,
        },
    ),
    "flux2-klein": (flux2, {**EMBEDDED, "guidance_scale": 4.0}),
    "z-image": (
        z_image,
        {
            **SIZE,
            "prompt_embeds": [embeddings(1, 8, 32)],
            "negative_prompt_embeds": [embeddings(2, 8, 32)],
            "guidance_scale": 4.0,
        },
    ),
    "prx-pixel": (
        prx_pixel,
        {**EMBEDDED, **WORDS, "height": 16, "width": 16, "use_resolution_binning": False},
    ),
    "flux-img2img": (
        lambda f: flux(f, "FluxImg2ImgPipeline"),
        {"prompt": PROMPT, **SIZE, **SHORT, "image": picture(), "strength": 0.8, "num_inference_steps": 3},
    ),
    "flux-inpaint": (
        lambda f: flux(f, "FluxInpaintPipeline"),
        {"prompt": PROMPT, **SIZE, **SHORT, **MASKED, "strength": 0.8, "num_inference_steps": 3},
    ),
    "flux-fill": (
        lambda f: flux(f, "FluxFillPipeline", network={"in_channels": 2 * 16 + 4 * 4, "out_channels": 16}),
        {"prompt": PROMPT, **SIZE, **SHORT, **MASKED},
    ),
    "flux-control": (
        lambda f: flux(f, "FluxControlPipeline", network={"in_channels": 32, "out_channels": 16}),
        CONTROLLED,
    ),
    "flux-controlnet": (
        lambda f: flux(f, "FluxControlNetPipeline", controlnet=awake(diffusers.FluxControlNetModel(**FLUX))),
        CONTROLLED,
    ),
    "flux-kontext": (
        lambda f: flux(f, "FluxKontextPipeline"),
        {"prompt": PROMPT, **SIZE, **SHORT, "image": picture(), "max_area": 1024, "_auto_resize": False},
    ),
}
"""How each is built and called, as in `zoo.FAMILIES`."""

NEW = {"flux2-klein": "Flux2KleinPipeline", "z-image": "ZImagePipeline", "prx-pixel": "PRXPixelPipeline"}
"""Families that the oldest diffusers which symguide takes does not have, and their pipelines."""
