"""Pipelines of videos with sound: LTX 2 and Kandinsky 6."""

import diffusers
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel, LTX2TextConnectors, LTX2Vocoder
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_hdr_lora import LTX2HDRReferenceCondition
from pieces import GUIDED, LARGE, NO_TEXT, embedded, euler, model, picture, pipeline, uniform, without
from video_transformers import hunyuan_vae
from zoo import awake
from zoo_more import embeddings


def ltx2_upsampler(**more):
    return LTX2LatentUpsamplerModel(in_channels=4, mid_channels=32, num_blocks_per_stage=1, **more).eval()


def ltx2_vae():
    vae = model(
        "AutoencoderKLLTX2Video",
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
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return vae


def ltx2(name, scheduler=None, **network):
    transformer = model(
        "LTX2VideoTransformer3DModel",
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=32,
        rope_double_precision=False,
        rope_type="split",
        **network,
    )
    heads = {f"{kind}_connector_{what}": size for kind in ("video", "audio") for what, size in CONNECTED.items()}
    connectors = LTX2TextConnectors(
        caption_channels=32,
        text_proj_in_factor=2,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
        rope_type="split",
        **heads,
    )
    sounds = model(
        "AutoencoderKLLTX2Audio",
        base_channels=4,
        ch_mult=(1,),
        num_res_blocks=1,
        attn_resolutions=None,
        resolution=32,
        latent_channels=2,
        norm_type="pixel",
        causality_axis="height",
        mid_block_add_attention=False,
        mel_bins=8,
    )
    spoken = LTX2Vocoder(
        in_channels=16,
        hidden_channels=32,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
    return pipeline(
        name,
        transformer=transformer,
        connectors=connectors.eval(),
        vae=ltx2_vae(),
        audio_vae=sounds,
        vocoder=spoken.eval(),
        scheduler=scheduler or euler(),
        latent_upsampler=ltx2_upsampler(),
        temporal_latent_upsampler=ltx2_upsampler(spatial_upsample=False, temporal_upsample=True),
        **NO_TEXT,
    )


CONNECTED = {
    "num_attention_heads": 4,
    "attention_head_dim": 8,
    "num_layers": 1,
    "num_learnable_registers": None,
}


def kandinsky6(folder):
    transformer = model(
        "Kandinsky6Transformer3DModel",
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=32,
        in_text_dim2=16,
        time_dim=16,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
        in_audio_dim=4,
        out_audio_dim=4,
        ca_rope=True,
        cross_gates=True,
        fix_modulation=True,
        visual_token_type_num_embeddings=2,
    )
    sounds = model("MMAudioVAE", mel_bins=8, latent_channels=4, hidden_channels=16, layers_per_block=1, hop_length=8)
    spoken = model(
        "MMAudioVocoder",
        num_mels=8,
        upsample_initial_channel=16,
        upsample_rates=(4, 2),
        upsample_kernel_sizes=(8, 4),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3, 5),),
    )
    return pipeline(
        "Kandinsky6TI2VA",
        transformer=awake(transformer),
        vae=hunyuan_vae(),
        audio_vae=sounds,
        vocoder=spoken,
        scheduler=euler(shift=7.0),
        **NO_TEXT,
    )


PLAIN = {
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_stg_scale": 0.0,
    "audio_modality_scale": 1.0,
    "audio_guidance_rescale": 0.0,
    "use_cross_timestep": False,
}
FOR_LTX2 = {**LARGE, "num_frames": 5, "frame_rate": 25.0, **GUIDED, **embedded(64), **PLAIN}
HDR = without(FOR_LTX2, *(name for name in PLAIN if name.startswith("audio")))
DFR = without(HDR, "negative_prompt_embeds", "negative_prompt_attention_mask", "stg_scale", "modality_scale")
DFR = {**without(DFR, "num_inference_steps", "guidance_scale", "guidance_rescale"), "sigmas": [1.0, 0.7, 0.4]}
FRAME = uniform(1, 3, 32, 32)
FOR_KANDINSKY6 = {
    **LARGE,
    **GUIDED,
    **embedded(32, masks=None),
    "pooled_prompt_embeds": embeddings(3, 1, 16),
    "negative_pooled_prompt_embeds": embeddings(4, 1, 16),
}


CASES = {
    "LTX2Pipeline": (lambda f: ltx2("LTX2"), FOR_LTX2),
    "LTX2Pipeline: as shipped": (
        lambda f: ltx2("LTX2"),
        {**without(FOR_LTX2, *PLAIN), "spatio_temporal_guidance_blocks": [1]},
    ),
    "LTX2ImageToVideoPipeline": (
        lambda f: ltx2("LTX2ImageToVideo"),
        {**FOR_LTX2, "image": FRAME, "image_crf": 0},
    ),
    "LTX2ConditionPipeline": (
        lambda f: ltx2("LTX2Condition"),
        {**FOR_LTX2, "conditions": LTX2VideoCondition(frames=FRAME, index=0, strength=1.0, crf=0)},
    ),
    "LTX2InContextPipeline": (
        lambda f: ltx2("LTX2InContext"),
        {**FOR_LTX2, "conditions": LTX2VideoCondition(frames=FRAME, index=0, strength=1.0, crf=0)},
    ),
    "LTX2HDRPipeline": (
        lambda f: ltx2("LTX2HDR"),
        {**HDR, "reference_conditions": LTX2HDRReferenceCondition(frames=FRAME, strength=1.0)},
    ),
    "LTX2DFRPipeline": (
        lambda f: ltx2("LTX2DFR", use_keyframes_abs_pos_embedding=True),
        {**DFR, "num_frames": 7},
    ),
    "LTX2DFRTemporalRefinePipeline": (
        lambda f: ltx2(
            "LTX2DFRTemporalRefine",
            diffusers.LTXEulerAncestralRFScheduler(eta=0.5),
            use_keyframes_abs_pos_embedding=True,
        ),
        {
            **DFR,
            "num_frames": 4,
            "latents": embeddings(5, 1, 4, 4, 16, 16),
            "keyframes_latents": embeddings(6, 1, 4, 1, 16, 16),
            "keyframe_positions": [3],
            "audio_latents": embeddings(7, 1, 2, 4, 2),
        },
    ),
    "LTX2LatentUpsamplePipeline": (
        lambda f: ltx2("LTX2LatentUpsample"),
        {"video": [picture()] * 5, **LARGE, "num_frames": 5, "output_type": "pt"},
    ),
    "Kandinsky6TI2VAPipeline": (kandinsky6, FOR_KANDINSKY6),
}
"""How each class is built, in a folder for its tokenizer, and called."""

LEFT_OUT = {"Kandinsky6SRPipeline": "its attention (flex) has no backward on a CPU"}
"""Why these have no case."""
