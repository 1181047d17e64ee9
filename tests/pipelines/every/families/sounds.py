"""Pipelines of sounds."""

import diffusers
import torch
import transformers
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from diffusers.pipelines.audioldm2 import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel
from diffusers.pipelines.stable_audio import StableAudioProjectionModel
from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder
from pieces import GUIDED, embedded, euler, lively, model, pipeline, t5s, uniform, without
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
        "AudioLDM2",
        unet,
        **more,
        text_encoder_2=t5s()["text_encoder"],
        tokenizer_2=word_tokenizer(),
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
    return pipeline(
        name, transformer=lively(transformer), vae=lively(vae), scheduler=scheduler, duration_embedder=duration, **t5s()
    )


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
        {**without(GUIDED, "guidance_scale"), "prompt": PROMPT, "duration": 1.0, "audio": uniform(1, 2, 16)},
    ),
    "StableAudio3InpaintPipeline": (
        lambda f: stable_audio3("StableAudio3Inpaint"),
        {
            **without(GUIDED, "guidance_scale"),
            "prompt": PROMPT,
            "duration": 1.0,
            "audio": uniform(1, 2, 16),
            "mask_start_seconds": 0.0,
            "mask_end_seconds": 0.5,
        },
    ),
    "AceStepPipeline": (
        ace,
        {**GUIDED, "prompt": PROMPT, "lyrics": "w3", "audio_duration": 5.0, "guidance_scale": 1.0},
    ),
    "AceStepPipeline: APG": (ace, {**GUIDED, "prompt": PROMPT, "lyrics": "w3", "audio_duration": 5.0}),
    "LongCatAudioDiTPipeline": (longcat, {**GUIDED, "prompt": PROMPT, "audio_duration_s": 0.001}),
    "DanceDiffusionPipeline": (dance, {"num_inference_steps": 4, "audio_length_in_s": 128 / 16000}),
}
"""How each class is built, in a folder for its tokenizer, and called."""
