"""Pipelines of videos with transformers of other kinds than Wan's: CogVideoX, LTX, Hunyuan, Kandinsky 5 and more."""

import diffusers
import torch
import transformers
from diffusers.pipelines.ltx import LTXLatentUpsamplerModel
from pieces import (
    LARGER,
    NO_TEXT,
    VIDEO,
    changed,
    embedded,
    euler,
    frames,
    model,
    pipeline,
    sees,
    t5s,
    told,
    uniform,
    without,
)
from zoo import (
    autoencoder,
    awake,
    cogvideox,
    ltx,
    picture,
)
from zoo_more import embeddings, parts


def cog(folder, name, **network):
    pipe = cogvideox(folder)
    return pipeline(name, **pipe.components | {"transformer": changed(pipe.transformer, **network)})


PICTURED_COG = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 8,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}


def upsampler(folder):
    network = LTXLatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)
    return parts(ltx(folder), "LTXLatentUpsamplePipeline", latent_upsampler=network.eval())


def told_decoder(folder):
    pipe = ltx(folder)
    pipe.vae = changed(pipe.vae, timestep_conditioning=True)
    pipe.vae.use_framewise_encoding = pipe.vae.use_framewise_decoding = False
    return pipe


def hunyuan_vae(channels=4, blocks=4, width=8):
    return model(
        "AutoencoderKLHunyuanVideo",
        latent_channels=channels,
        down_block_types=("HunyuanVideoDownBlock3D",) * blocks,
        up_block_types=("HunyuanVideoUpBlock3D",) * blocks,
        block_out_channels=(width,) * blocks,
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.476986,
    )


HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 10,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "patch_size": 1,
    "patch_size_t": 1,
    "guidance_embeds": True,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (2, 4, 4),
}


def hunyuan(name, network=None, kind="HunyuanVideo", **more):
    transformer = model(f"{kind}Transformer3DModel", **HUNYUAN | (network or {}))
    scheduler = euler(shift=7.0)
    return pipeline(name, transformer=transformer, vae=hunyuan_vae(), scheduler=scheduler, **NO_TEXT, **sees() | more)


def siglip(width=12):
    config = transformers.SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return {
        "image_encoder": transformers.SiglipVisionModel(config).eval(),
        "feature_extractor": transformers.SiglipImageProcessor(size={"height": 16, "width": 16}),
    }


def hunyuan15(name):
    transformer = model(
        "HunyuanVideo15Transformer3DModel",
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=16,
        text_embed_2_dim=32,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="i2v" if "Image" in name else "t2v",
    )
    vae = model(
        "AutoencoderKLHunyuanVideo15",
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    guider = diffusers.ClassifierFreeGuidance(guidance_scale=5.0)
    return pipeline(
        name, transformer=transformer, vae=vae, scheduler=euler(shift=7.0), guider=guider, **NO_TEXT, **siglip()
    )


def mochi(**settings):
    transformer = model(
        "MochiTransformer3DModel",
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=32,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    transformer.pos_frequencies.data.normal_()
    vae = model(
        "AutoencoderKLMochi",
        latent_channels=12,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    )
    return pipeline("Mochi", transformer=transformer, vae=vae, scheduler=euler(**settings), **t5s())


def allegro(folder):
    transformer = model(
        "AllegroTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=32,
    )
    vae = model(
        "AutoencoderKLAllegro",
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    vae.enable_tiling()  # Allegro's autoencoder knows no other way
    vae.kernel, vae.stride = (8, 16, 16), (4, 8, 8)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return pipeline("Allegro", transformer=transformer, vae=vae, scheduler=scheduler, **t5s())


def latte(folder):
    transformer = model(
        "LatteTransformer3DModel",
        sample_size=16,
        video_length=2,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return pipeline("Latte", transformer=transformer, vae=autoencoder(), scheduler=scheduler, **t5s())


def easy(name, **network):
    sizes = {"in_channels": 4, "out_channels": 4, "time_embed_dim": 2, "text_embed_dim": 32, "num_layers": 1}
    heads = {"num_attention_heads": 2, "attention_head_dim": 16, "sample_width": 16, "sample_height": 16}
    vae = model(
        "AutoencoderKLMagvit",
        down_block_types=("SpatialDownBlock3D",) + ("SpatialTemporalDownBlock3D",) * 3,
        up_block_types=("SpatialUpBlock3D",) + ("SpatialTemporalUpBlock3D",) * 3,
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    vae.register_to_config(cache_mag_vae=False)  # as checkpoints have it
    transformer = model("EasyAnimateTransformer3DModel", **sizes | heads | {"patch_size": 2} | network)
    return pipeline(name, transformer=transformer, vae=vae, scheduler=euler(), **t5s())


def kandinsky5(name, **network):
    transformer = model(
        "Kandinsky5Transformer3DModel",
        in_visual_dim=16,
        in_text_dim=32,
        in_text_dim2=16,
        time_dim=16,
        out_visual_dim=16,
        patch_size=(1, 2, 2),
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(1, 1, 2),
        attention_type="regular",
        **network,
    )
    vae = hunyuan_vae(16, blocks=3, width=16)
    return pipeline(name, transformer=awake(transformer), vae=vae, scheduler=euler(shift=7.0), **NO_TEXT)


POOLED = {"pooled_prompt_embeds": embeddings(3, 1, 8)}
FOR_HUNYUAN = {
    **without(told(VIDEO, width=16, masks=None), "negative_prompt_embeds"),
    **POOLED,
    "prompt_attention_mask": torch.ones(1, 8, dtype=torch.int64),
}
FOR_HUNYUAN15 = {
    **without(told(VIDEO, "guidance_scale", width=16, masks="embeds_mask"), "max_sequence_length"),
    **{f"{key}_2": value for key, value in embedded(32, "embeds_mask").items()},
}
CUT = torch.tensor([0, 8], dtype=torch.int32)
FOR_KANDINSKY = {
    **without(LARGER, "prompt", "negative_prompt", "max_sequence_length"),
    **{f"{sign}prompt_embeds_qwen": embeddings(1, 1, 8, 32) for sign in ("", "negative_")},
    **{f"{sign}prompt_embeds_clip": embeddings(2, 1, 16) for sign in ("", "negative_")},
    **{f"{sign}prompt_cu_seqlens": CUT for sign in ("", "negative_")},
}
FOR_EASY = without(told(VIDEO, masks="attention_mask"), "max_sequence_length")
"""What EasyAnimate's pipelines are called with."""

CASES = {
    "CogVideoXPipeline": (cogvideox, VIDEO),
    "CogVideoXFunControlPipeline": (
        lambda f: cog(f, "CogVideoXFunControl", in_channels=8),
        {**without(VIDEO, "num_frames"), "control_video": frames(9)},
    ),
    "CogVideoXImageToVideoPipeline": (
        lambda f: cog(f, "CogVideoXImageToVideo", **PICTURED_COG),
        {**VIDEO, "image": picture()},
    ),
    "CogVideoXVideoToVideoPipeline": (
        lambda f: cog(f, "CogVideoXVideoToVideo"),
        {**without(VIDEO, "num_frames"), "video": frames(9), "num_inference_steps": 4},
    ),
    "LTXPipeline": (ltx, LARGER),
    "LTXPipeline: a decoder of timesteps": (told_decoder, {**LARGER, "decode_timestep": 0.05}),
    "LTXImageToVideoPipeline": (lambda f: parts(ltx(f), "LTXImageToVideoPipeline"), {**LARGER, "image": picture()}),
    "LTXConditionPipeline": (
        lambda f: parts(ltx(f), "LTXConditionPipeline"),
        {**LARGER, "image": picture()},
        {"held": True},
    ),
    "LTXI2VLongMultiPromptPipeline": (
        lambda f: pipeline(
            "LTXI2VLongMultiPrompt", **ltx(f).components | {"scheduler": diffusers.LTXEulerAncestralRFScheduler()}
        ),
        {**LARGER, "cond_image": picture(), "num_frames": 17, "temporal_tile_size": 12, "temporal_overlap": 4},
    ),
    "LTXLatentUpsamplePipeline": (
        upsampler,
        {"video": uniform(5, 3, 32, 32), "height": 16, "width": 16, "output_type": "pt"},
    ),
    "HunyuanVideoPipeline": (lambda f: hunyuan("HunyuanVideo"), FOR_HUNYUAN),
    "HunyuanSkyreelsImageToVideoPipeline": (
        lambda f: hunyuan("HunyuanSkyreelsImageToVideo", {"in_channels": 8}),
        {**FOR_HUNYUAN, "image": picture(), "true_cfg_scale": 1.0},
    ),
    "HunyuanVideoImageToVideoPipeline": (
        lambda f: hunyuan(
            "HunyuanVideoImageToVideo",
            {"in_channels": 9, "guidance_embeds": False, "image_condition_type": "latent_concat"},
        ),
        {**FOR_HUNYUAN, "image": picture()},
    ),
    "HunyuanVideoImageToVideoPipeline: token_replace": (
        lambda f: hunyuan("HunyuanVideoImageToVideo", {"image_condition_type": "token_replace"}),
        {**FOR_HUNYUAN, "image": picture()},
    ),
    "HunyuanVideoFramepackPipeline": (
        lambda f: hunyuan(
            "HunyuanVideoFramepack",
            {"patch_size": 2, "has_image_proj": True, "image_proj_dim": 4, "has_clean_x_embedder": True},
            "HunyuanVideoFramepack",
        ),
        {**FOR_HUNYUAN, "image": picture(), "height": 32, "width": 32, "latent_window_size": 3},
    ),
    "HunyuanVideo15Pipeline": (lambda f: hunyuan15("HunyuanVideo15"), FOR_HUNYUAN15),
    "HunyuanVideo15ImageToVideoPipeline": (
        lambda f: hunyuan15("HunyuanVideo15ImageToVideo"),
        {**without(FOR_HUNYUAN15, "height", "width"), "image": picture()},
    ),
    "MochiPipeline": (lambda f: mochi(invert_sigmas=True), {**VIDEO, "num_frames": 7}),
    "CogVideoXPipeline: DPM": (
        lambda f: pipeline("CogVideoX", **cogvideox(f).components | {"scheduler": diffusers.CogVideoXDPMScheduler()}),
        VIDEO,
        {"elsewhere": True},
    ),
    "AllegroPipeline": (allegro, {**VIDEO, "num_frames": 8}),
    "LattePipeline": (
        latte,
        {**without(LARGER, "num_frames", "max_sequence_length"), "video_length": 2, "clean_caption": False},
    ),
    "EasyAnimatePipeline": (lambda f: easy("EasyAnimate"), FOR_EASY | {"num_frames": 5}),
    "EasyAnimateInpaintPipeline": (
        lambda f: easy("EasyAnimateInpaint", in_channels=9, resize_inpaint_mask_directly=True),
        FOR_EASY | {"num_frames": 5, "video": uniform(1, 3, 5, 16, 16), "mask_video": torch.zeros(1, 1, 5, 16, 16)},
    ),
    "Kandinsky5T2VPipeline": (lambda f: kandinsky5("Kandinsky5T2V", visual_cond=False), FOR_KANDINSKY),
    "Kandinsky5I2VPipeline": (
        lambda f: kandinsky5("Kandinsky5I2V", visual_cond=True),
        {**FOR_KANDINSKY, "image": picture(), "num_frames": 33},
    ),
}
"""How each class is built, in a folder for its tokenizer, and called."""
