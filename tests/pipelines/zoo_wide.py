"""Families whose schedulers or latents are unlike the others', with tiny random weights, as in `zoo`."""

import diffusers
import torch
import transformers
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from zoo import (
    BETAS,
    NEGATIVE,
    PROMPT,
    SHORT,
    SIZE,
    VIDEO,
    cogvideox,
    ltx,
    picture,
    sana,
    t5,
    wan,
    word_tokenizer,
)
from zoo_more import embeddings, parts

SVD = BETAS | {
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
    "sigma_max": 700.0,
    "sigma_min": 0.002,
}
SIZE = SIZE | {"num_inference_steps": 4}
TEXT = {"prompt": PROMPT, "guidance_scale": 5.0, **SIZE}
FRAMES = {**SIZE, "height": 16, "width": 16, "num_frames": 9}


def svd(folder):
    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32,
        num_attention_heads=4,
        projection_class_embeddings_input_dim=24,
        addition_time_embed_dim=8,
    )
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        projection_dim=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=32,
        intermediate_size=37,
        patch_size=8,
    )
    return diffusers.StableVideoDiffusionPipeline(
        unet=unet.eval(),
        image_encoder=transformers.CLIPVisionModelWithProjection(vision).eval(),
        scheduler=diffusers.EulerDiscreteScheduler(**SVD),
        vae=vae.eval(),
        feature_extractor=transformers.CLIPImageProcessor(crop_size=32, size=32),
    )


def stable_audio(folder):
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

    transformer = diffusers.StableAudioDiTModel(
        sample_size=8,
        in_channels=3,
        num_layers=1,
        attention_head_dim=4,
        num_key_value_attention_heads=2,
        num_attention_heads=4,
        out_channels=3,
        cross_attention_dim=4,
        time_proj_dim=8,
        global_states_input_dim=8,
        cross_attention_input_dim=4,
    )
    vae = diffusers.AutoencoderOobleck(
        encoder_hidden_size=6,
        downsampling_ratios=[1, 2],
        decoder_channels=3,
        decoder_input_channels=3,
        audio_channels=2,
        channel_multiples=[2, 4],
        sampling_rate=4,
    )
    scheduler = diffusers.CosineDPMSolverMultistepScheduler(sigma_schedule="exponential")
    return diffusers.StableAudioPipeline(
        transformer=transformer.eval(),
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=t5(),
        tokenizer=word_tokenizer(),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=32, conditioning_dim=4, min_value=0, max_value=32
        ).eval(),
    )


def sprint(folder, name="SanaSprintPipeline"):
    pipe = sana(folder)
    network = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    network |= {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
    transformer = diffusers.SanaTransformer2DModel(**network)
    pipe.register_modules(transformer=transformer.eval(), scheduler=diffusers.SCMScheduler())
    return parts(pipe, name)


def mochi(folder):
    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        pooled_projection_dim=16,
        in_channels=12,
        qk_norm="rms_norm",
        text_embed_dim=32,
        time_embed_dim=4,
        activation_fn="swiglu",
        max_sequence_length=16,
    )
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12,
        out_channels=3,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    return diffusers.MochiPipeline(
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        text_encoder=t5(),
        tokenizer=word_tokenizer(),
    )


def wan_given_frame(folder):
    """Wan 2.2's TI2V-5B: the first frame is given, and a timestep is told for every token."""
    return parts(wan(folder), "WanImageToVideoPipeline", expand_timesteps=True)


def cosmos_transformer(channels):
    return diffusers.CosmosTransformer3DModel(
        in_channels=channels,
        out_channels=channels,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        mlp_ratio=2,
        text_embed_dim=32,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        patch_size=(1, 2, 2),
        rope_scale=(2.0, 1.0, 1.0),
        concat_padding_mask=False,
        extra_pos_embed_type=None,
    ).eval()


class Checker(torch.nn.Module):
    """Passes all texts and pictures."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, frames):
        return frames


def cosmos2(folder):
    return diffusers.Cosmos2TextToImagePipeline(
        transformer=cosmos_transformer(16),
        vae=wan(folder).vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        text_encoder=t5(),
        tokenizer=word_tokenizer(),
        safety_checker=Checker(),
    )


def cosmos(folder):
    vae = diffusers.AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    levels = {"sigma_data": 0.5, "final_sigmas_type": "sigma_min"}
    return diffusers.CosmosTextToWorldPipeline(
        transformer=cosmos_transformer(4),
        vae=vae.eval(),
        scheduler=diffusers.EDMEulerScheduler(sigma_max=80.0, **levels),
        text_encoder=t5(),
        tokenizer=word_tokenizer(),
        safety_checker=Checker(),
    )


def cogvideox_dpm(folder):
    pipe = cogvideox(folder)
    pipe.scheduler = diffusers.CogVideoXDPMScheduler.from_config(pipe.scheduler.config)
    return pipe


def ltx_condition(folder):
    return parts(ltx(folder), "LTXConditionPipeline")


LTX = {**TEXT, **SHORT, "negative_prompt": NEGATIVE, "num_frames": 9}
WIDE = {
    "svd": (
        svd,
        {**SIZE, "image": torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), "num_frames": 3},
    ),
    "stable-audio": (
        stable_audio,
        {"prompt": PROMPT, "guidance_scale": 5.0, "num_inference_steps": 4, "output_type": "pt"},
    ),
    "sana-sprint": (
        sprint,
        {
            **TEXT,
            **SHORT,
            "use_resolution_binning": False,
            "complex_human_instruction": None,
            "num_inference_steps": 4,
            "intermediate_timesteps": None,
        },
    ),
    "mochi": (mochi, {**TEXT, **SHORT, **FRAMES, "negative_prompt": NEGATIVE, "num_frames": 7}),
    "wan-given-frame": (
        wan_given_frame,
        {
            **FRAMES,
            "image": picture(),
            "guidance_scale": 5.0,
            "prompt_embeds": embeddings(1, 1, 16, 32),
            "negative_prompt_embeds": embeddings(2, 1, 16, 32),
        },
    ),
    "ltx-given-frame": (lambda f: parts(ltx(f), "LTXImageToVideoPipeline"), {**LTX, "image": picture()}),
    "ltx-condition": (ltx_condition, {**LTX, "image": picture(), "image_cond_noise_scale": 0.0}),
    "cogvideox-dpm": (cogvideox_dpm, {**TEXT, **VIDEO, **SHORT}),
    "cosmos": (cosmos, {**TEXT, **SHORT, "negative_prompt": NEGATIVE, "num_frames": 9}),
    "cosmos2": (cosmos2, {**TEXT, **SHORT, "negative_prompt": NEGATIVE}),
}
"""How each is built and called, as in `zoo.FAMILIES`."""
FURTHER = {
    "sana-sprint-img2img": (
        lambda f: sprint(f, "SanaSprintImg2ImgPipeline"),
        {**WIDE["sana-sprint"][1], "image": picture(), "strength": 0.7},
    ),
    "ltx-condition-later": (
        ltx_condition,
        {**LTX, "conditions": [LTXVideoCondition(image=picture(), frame_index=8)], "image_cond_noise_scale": 0.0},
    ),
    "ltx-condition-none": (ltx_condition, LTX),
}
"""Settings of the same mechanisms."""
SLOW = ("stable-audio", "cogvideox-dpm")
"""Families whose mechanisms other tests have, too."""
