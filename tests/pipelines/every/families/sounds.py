"""Pipelines of sounds, and of videos with sound: LTX 2 and Kandinsky 6."""

import diffusers
import torch
import transformers
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from diffusers.pipelines.audioldm2 import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel, LTX2TextConnectors, LTX2Vocoder
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_hdr_lora import LTX2HDRReferenceCondition
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder
from films import hunyuan_vae
from pieces import GUIDED, LARGE, NO_TEXT, embedded, euler, model, picture, pipeline, t5s, unipc, without
from zoo import BETAS, BLOCKS, PROMPT, autoencoder, awake, word_tokenizer
from zoo_more import embeddings

DDIM = {**BETAS, "clip_sample": False}


def clap():
    """Hears nothing, but reads."""
    text = {"hidden_size": 8, "intermediate_size": 37, "num_attention_heads": 1, "num_hidden_layers": 1}
    text |= {"vocab_size": 203, "projection_dim": 32, "pad_token_id": 1}
    heard = {"spec_size": 8, "window_size": 4, "num_mel_bins": 8, "depths": [1, 1], "num_attention_heads": [1, 1]}
    heard |= {"hidden_size": 192, "projection_dim": 32, "patch_size": 2, "patch_stride": 2}
    config = transformers.ClapConfig(text_config=text, audio_config=heard, projection_dim=32)
    return transformers.ClapModel(config).eval()


def vocoder():
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=8,
        sampling_rate=16000,
        upsample_initial_channel=16,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3, 5]],
        normalize_before=False,
    )
    return transformers.SpeechT5HifiGan(config).eval()


def mel(name, unet, **more):
    """Stable Diffusion on spectrograms."""
    vae = autoencoder(in_channels=1, out_channels=1)
    scheduler = diffusers.DDIMScheduler(**DDIM)
    return pipeline(
        name, unet=unet.eval(), vae=vae, vocoder=vocoder(), scheduler=scheduler, tokenizer=word_tokenizer(), **more
    )


def spoken(name, encoder):
    labels = {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 32}
    widths = {"cross_attention_dim": (16, 32), "class_embeddings_concat": True}
    unet = model("UNet2DConditionModel", sample_size=16, **BLOCKS, **labels, **widths)
    return mel(name, unet, text_encoder=encoder, feature_extractor=None)


def audioldm2(folder):
    unet = AudioLDM2UNet2DConditionModel(sample_size=16, **BLOCKS, cross_attention_dim=((None, 16, 32),) * 2)
    sizes = {"n_embd": 16, "n_head": 1, "n_layer": 1, "vocab_size": 203}
    language = transformers.GPT2Model(transformers.GPT2Config(**sizes, n_positions=99)).eval()
    projection = AudioLDM2ProjectionModel(text_encoder_dim=32, text_encoder_1_dim=32, langauge_model_dim=16)
    more = {"language_model": language, "projection_model": projection.eval(), "text_encoder": clap()}
    return mel(
        "AudioLDM2", unet, **more, text_encoder_2=t5s()["text_encoder"], tokenizer_2=word_tokenizer(),
        feature_extractor=None,
    )


def oobleck(channels):
    return model(
        "AutoencoderOobleck",
        encoder_hidden_size=6,
        downsampling_ratios=[1, 2],
        decoder_channels=3,
        decoder_input_channels=channels,
        audio_channels=2,
        channel_multiples=[2, 4],
        sampling_rate=4,
    )


def stable_audio(folder):
    transformer = model(
        "StableAudioDiTModel",
        sample_size=4,
        in_channels=3,
        num_layers=2,
        attention_head_dim=4,
        num_key_value_attention_heads=2,
        out_channels=3,
        cross_attention_dim=4,
        time_proj_dim=8,
        global_states_input_dim=8,
        cross_attention_input_dim=4,
    )
    scheduler = diffusers.CosineDPMSolverMultistepScheduler(
        solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
    )
    projection = StableAudioProjectionModel(text_encoder_dim=32, conditioning_dim=4, min_value=0, max_value=32)
    return pipeline(
        "StableAudio",
        transformer=transformer,
        scheduler=scheduler,
        vae=oobleck(3),
        projection_model=projection.eval(),
        **t5s(),
    )


def stable_audio3(name):
    transformer = model(
        "StableAudio3DiTModel",
        io_channels=8,
        patch_size=1,
        embed_dim=32,
        depth=2,
        num_heads=4,
        cond_token_dim=32,
        global_cond_dim=32,
        local_add_cond_dim=9,
        timestep_features_dim=16,
        ff_mult=2,
        num_memory_tokens=3,
        use_differential_attention=False,
    )
    vae = model(
        "AutoencoderSAME",
        audio_channels=2,
        patch_size=2,
        encoder_channels=8,
        encoder_c_mults=(2,),
        encoder_strides=(2,),
        encoder_transformer_depths=(1,),
        latent_dim=8,
        use_differential_attention=False,
        dim_heads=4,
        ff_mult=2,
        sampling_rate=16,
    )
    duration = StableAudio3DurationEmbedder(output_dim=32, fourier_dim=16).eval()
    scheduler = euler(num_train_timesteps=1, stochastic_sampling=False)
    return pipeline(name, transformer=transformer, vae=vae, scheduler=scheduler, duration_embedder=duration, **t5s())


def ace(folder):
    heads = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    heads |= {"head_dim": 8, "sliding_window": 16}
    transformer = model(
        "AceStepTransformer1DModel",
        num_hidden_layers=2,
        in_channels=24,
        audio_acoustic_hidden_dim=8,
        patch_size=2,
        **heads,
    )
    encoder = AceStepConditionEncoder(
        text_hidden_dim=32,
        timbre_hidden_dim=8,
        num_lyric_encoder_hidden_layers=2,
        num_timbre_encoder_hidden_layers=2,
        **heads,
    )
    return pipeline(
        "AceStep",
        transformer=transformer,
        condition_encoder=encoder.eval(),
        vae=oobleck(8),
        scheduler=euler(num_train_timesteps=1),
        **t5s(),
    )


def longcat(folder):
    transformer = model(
        "LongCatAudioDiTTransformer",
        dit_dim=64,
        dit_depth=2,
        dit_heads=4,
        dit_text_dim=32,
        latent_dim=8,
        text_conv=False,
    )
    vae = model(
        "LongCatAudioDiTVae",
        in_channels=1,
        channels=16,
        c_mults=[1, 2],
        strides=[2],
        latent_dim=8,
        encoder_latent_dim=16,
        downsampling_ratio=2,
        sample_rate=24000,
    )
    return pipeline("LongCatAudioDiT", transformer=awake(transformer), vae=vae, **t5s("UMT5"))


def dance(folder):
    unet = model(
        "UNet1DModel",
        sample_size=128,
        sample_rate=16000,
        in_channels=2,
        out_channels=2,
        extra_in_channels=64,
        flip_sin_to_cos=True,
        block_out_channels=(32, 32, 64),
    )
    return pipeline("DanceDiffusion", unet=unet, scheduler=diffusers.IPNDMScheduler())


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


def kandinsky6_sr(folder):
    transformer = model(
        "Kandinsky6SRTransformer3DModel",
        in_visual_dim=4,
        out_visual_dim=4,
        time_dim=16,
        model_dim=16,
        ff_dim=32,
        num_visual_blocks=1,
        axes_dims=(4, 6, 6),
        tile_sizes=((32, 32),),
    )
    vae = model(
        "Kandinsky6SRVAE",
        latent_channels=4,
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(32, 32, 32),
        layers_per_block=1,
    )
    return pipeline("Kandinsky6SR", transformer=awake(transformer), vae=vae, scheduler=euler())


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
FRAME = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
FOR_KANDINSKY6 = {
    **LARGE,
    **GUIDED,
    **embedded(32, masks=None),
    "pooled_prompt_embeds": embeddings(3, 1, 16),
    "negative_pooled_prompt_embeds": embeddings(4, 1, 16),
}
SPOKEN = {**GUIDED, "prompt_embeds": embeddings(1, 1, 32), "negative_prompt_embeds": embeddings(2, 1, 32)}

CASES = {
    "AudioLDMPipeline": (lambda f: spoken("AudioLDM", clap().text_model), {**SPOKEN, "audio_length_in_s": 0.01}),
    "MusicLDMPipeline": (lambda f: spoken("MusicLDM", clap()), {**SPOKEN, "audio_length_in_s": 0.01}),
    "AudioLDM2Pipeline": (
        audioldm2,
        {
            **GUIDED,
            **embedded(32, None),
            "attention_mask": torch.ones(1, 8, dtype=torch.int64),
            "negative_attention_mask": torch.ones(1, 8, dtype=torch.int64),
            "generated_prompt_embeds": embeddings(3, 1, 8, 16),
            "negative_generated_prompt_embeds": embeddings(4, 1, 8, 16),
            "audio_length_in_s": 0.01,
        },
    ),
    "StableAudioPipeline": (stable_audio, {**GUIDED, "prompt": PROMPT}),
    "StableAudio3Pipeline": (
        lambda f: stable_audio3("StableAudio3"),
        {**GUIDED, "prompt": PROMPT, "duration": 1.0},
    ),
    "StableAudio3AudioToAudioPipeline": (
        lambda f: stable_audio3("StableAudio3AudioToAudio"),
        {**without(GUIDED, "guidance_scale"), "prompt": PROMPT, "duration": 1.0, "audio": torch.rand(1, 2, 16)},
    ),
    "StableAudio3InpaintPipeline": (
        lambda f: stable_audio3("StableAudio3Inpaint"),
        {
            **without(GUIDED, "guidance_scale"),
            "prompt": PROMPT,
            "duration": 1.0,
            "audio": torch.rand(1, 2, 16),
            "mask_start_seconds": 0.0,
            "mask_end_seconds": 0.5,
        },
    ),
    "AceStepPipeline": (
        ace,
        {**GUIDED, "prompt": PROMPT, "lyrics": "w3", "audio_duration": 5.0, "guidance_scale": 1.0},
    ),
    "LongCatAudioDiTPipeline": (longcat, {**GUIDED, "prompt": PROMPT, "audio_duration_s": 0.001}),
    "DanceDiffusionPipeline": (dance, {"num_inference_steps": 4, "audio_length_in_s": 128 / 16000}),
    "LTX2Pipeline": (lambda f: ltx2("LTX2"), FOR_LTX2),
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
    "Kandinsky6SRPipeline": (
        kandinsky6_sr,
        {"video": torch.rand(1, 5, 3, 16, 16), "resolution_scale": 2, "num_inference_steps": 3, "output_type": "pt"},
    ),
}
"""How each class is built, in a folder for its tokenizer, and called."""
