"""Pipelines of videos whose networks are of Wan's kind, or that decode with Wan's autoencoder."""

from types import SimpleNamespace

import diffusers
import torch
from diffusers.models.controlnets import controlnet_cosmos
from diffusers.models.transformers import transformer_cosmos
from diffusers.utils import is_torchvision_available
from pieces import (
    LARGER,
    NO_TEXT,
    TEXT,
    VIDEO,
    euler,
    frames,
    model,
    pipeline,
    sees,
    t5s,
    told,
    uniform,
    unipc,
    without,
)
from zoo import SHORT, picture

WAN = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 256,
    "ffn_dim": 32,
    "num_layers": 2,
    "cross_attn_norm": True,
}
NORMED = {"qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 32}
PICTURED = {"in_channels": 36, "image_dim": 4}
FACES = {
    **PICTURED,
    "latent_channels": 16,
    "motion_encoder_channel_sizes": {"4": 16, "8": 16, "16": 16},
    "motion_encoder_size": 16,
    "motion_style_dim": 8,
    "motion_dim": 4,
    "motion_encoder_dim": 16,
    "face_encoder_hidden_dim": 16,
    "face_encoder_num_heads": 2,
    "inject_face_latents_blocks": 2,
}


def wan_vae(**more):
    sizes = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    return model("AutoencoderKLWan", **sizes | {"temperal_downsample": [False, True, True]} | more)


def wan5b(name):
    """Wan 2.2's small model, whose autoencoder takes patches as channels; each frame is told a timestep of its own."""
    vae = wan_vae(
        z_dim=48,
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
        scale_factor_spatial=16,
    )
    channels = {"in_channels": 48, "out_channels": 48}
    return wan(name, channels, vae=vae, scheduler=unipc(), expand_timesteps=True, image_encoder=None)


def wan(name, network=None, kind="Wan", norms=NORMED, vae=None, two=False, **parts):
    """A pipeline around a network of Wan's sizes, but for what `network` names, or around two."""

    def transformer():
        return model(f"{kind}Transformer3DModel", **WAN | norms | (network or {}))

    parts = {"transformer": transformer(), "vae": vae or wan_vae(), "scheduler": euler(shift=7.0)} | parts
    if two:
        parts |= {"transformer_2": transformer(), "boundary_ratio": 0.9}
    return pipeline(name, **NO_TEXT, **sees() | parts)


def vace(folder):
    return wan("WanVACE", {"num_layers": 3, "vace_layers": [0, 2], "vace_in_channels": 96}, "WanVACE")


def skyreels(name, network=None, **parts):
    return wan(f"SkyReelsV2{name}", network, "SkyReelsV2", scheduler=unipc(flow_shift=8.0), **parts)


def anyflow(name, kind, **network):
    scheduler = diffusers.FlowMapEulerDiscreteScheduler(num_train_timesteps=1000, shift=5.0)
    norms = {"rope_max_seq_len": 32, "gate_value": 0.25, "deltatime_type": "r"}
    return wan(name, network, kind, norms, scheduler=scheduler)


def helios(name, **settings):
    network = {
        "rope_dim": (4, 4, 4),
        "has_multi_term_memory_patch": True,
        "guidance_cross_attn": True,
        "zero_history_timestep": True,
        "is_amplify_history": False,
        "qk_norm": "rms_norm_across_heads",
    }
    return wan(name, network, "Helios", {}, scheduler=diffusers.HeliosScheduler(**settings))


if not is_torchvision_available():  # the nearest pixel for a mask is all that they take of it
    resized = SimpleNamespace(resize=lambda x, size, interpolation: torch.nn.functional.interpolate(x, size))
    transforms = SimpleNamespace(functional=resized, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    transformer_cosmos.transforms = controlnet_cosmos.transforms = transforms


class Safe(diffusers.ModelMixin, diffusers.ConfigMixin):
    """Lets all pass, in place of Cosmos' guardrail, which has to be downloaded."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def check_text_safety(self, prompt):
        return True

    def check_video_safety(self, video):
        return video


COSMOS = {
    "in_channels": 16,
    "out_channels": 16,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "mlp_ratio": 2,
    "text_embed_dim": 32,
    "adaln_lora_dim": 4,
    "max_size": (4, 32, 32),
    "patch_size": (1, 2, 2),
    "rope_scale": (2.0, 1.0, 1.0),
    "extra_pos_embed_type": "learnable",
}


def cosmos(name, network=None, vae=None, **parts):
    transformer = model("CosmosTransformer3DModel", **COSMOS | {"concat_padding_mask": True} | (network or {}))
    parts = {"scheduler": euler(use_karras_sigmas=True)} | t5s() | parts
    return pipeline(name, transformer=transformer, vae=vae or wan_vae(), safety_checker=Safe(), **parts)


def cosmos1(name, channels=4):
    vae = model(
        "AutoencoderKLCosmos",
        latent_channels=4,
        encoder_block_out_channels=(8,) * 4,
        decode_block_out_channels=(8,) * 4,
        attention_resolutions=(8,),
        resolution=64,
        num_layers=2,
        patch_size=4,
        scaling_factor=1.0,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    scheduler = diffusers.EDMEulerScheduler(
        sigma_min=0.002, sigma_max=80, sigma_data=0.5, final_sigmas_type="sigma_min"
    )
    return cosmos(name, {"in_channels": channels, "out_channels": 4}, vae, scheduler=scheduler)


SEEN = {"img_context_dim_in": 32, "img_context_dim_out": 32}


def transfer(folder):
    controlnet = model(
        "CosmosControlNetModel",
        n_controlnet_blocks=2,
        in_channels=18,
        latent_channels=18,
        model_channels=32,
        use_crossattn_projection=False,
        **{key: value for key, value in COSMOS.items() if key not in ("in_channels", "out_channels", "num_layers")},
        **SEEN,
    )
    network = {"in_channels": 17, "controlnet_block_every_n": 1, "img_context_num_tokens": 4, **SEEN}
    return cosmos("Cosmos2_5_Transfer", network, scheduler=unipc(), controlnet=controlnet, **NO_TEXT)


def sana_video(name, scheduler=None):
    transformer = model(
        "SanaVideoTransformer3DModel",
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=32,
        sample_size=8,
        patch_size=(1, 2, 2),
        **NORMED,
    )
    parts = {"transformer": transformer, "vae": wan_vae(), "scheduler": scheduler or euler()}
    return pipeline(name, **parts, **t5s())


def dpm(predicts="flow_prediction"):
    return diffusers.DPMSolverMultistepScheduler(prediction_type=predicts, use_flow_sigmas=True, flow_shift=3.0)


def motif(name, guider=None, **network):
    transformer = model(
        "MotifVideoTransformer3DModel",
        in_channels=33,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=1,
        patch_size=1,
        patch_size_t=1,
        qk_norm="rms_norm",
        text_embed_dim=32,
        rope_axes_dim=(4, 4, 4),
        **network,
    )
    parts = {"transformer": transformer, "vae": wan_vae(), "scheduler": euler(shift=7.0)}
    parts["guider"] = guider or diffusers.ClassifierFreeGuidance(guidance_scale=5.0)
    return pipeline(name, **parts, **NO_TEXT, **sees())


SANA = {
    **without(LARGER, "num_frames"),
    "frames": 9,
    "use_resolution_binning": False,
    "complex_human_instruction": None,
}
FOR_WAN = told(VIDEO)
PICTURE = {**FOR_WAN, "image": picture()}
HISTORY = {"overlap_history": 3, "num_frames": 17, "base_num_frames": 5}
GUIDED = told(VIDEO, "guidance_scale", masks="attention_mask")

CASES = {
    "WanPipeline": (lambda f: wan("Wan"), FOR_WAN),
    "WanPipeline: two experts": (lambda f: wan("Wan", two=True), FOR_WAN),
    "WanPipeline: 5B": (lambda f: wan5b("Wan"), {**FOR_WAN, "height": 32, "width": 32}),
    "WanImageToVideoPipeline: 5B": (
        lambda f: wan5b("WanImageToVideo"),
        {**PICTURE, "height": 32, "width": 32},
        {"held": True},
    ),
    "WanImageToVideoPipeline": (lambda f: wan("WanImageToVideo", PICTURED), PICTURE),
    "WanVideoToVideoPipeline": (
        lambda f: wan("WanVideoToVideo"),
        {**without(FOR_WAN, "num_frames"), "video": frames(9)},
    ),
    "WanVACEPipeline": (vace, {**FOR_WAN, "video": frames(9)}),
    "WanVACEPipeline: a reference": (vace, {**FOR_WAN, "video": frames(9), "reference_images": [picture(9)]}),
    "WanAnimatePipeline": (
        lambda f: wan("WanAnimate", FACES, "WanAnimate"),
        {
            **without(PICTURE, "num_frames"),
            "pose_video": frames(9),
            "face_video": frames(9),
            "segment_frame_length": 9,
        },
    ),
    "ChronoEditPipeline": (lambda f: wan("ChronoEdit", PICTURED, "ChronoEdit"), {**PICTURE, "num_frames": 5}),
    "LucyEditPipeline": (lambda f: wan("LucyEdit", {"in_channels": 32}), {**FOR_WAN, "video": frames(9)}),
    "SkyReelsV2Pipeline": (lambda f: skyreels(""), FOR_WAN),
    "SkyReelsV2ImageToVideoPipeline": (lambda f: skyreels("ImageToVideo", PICTURED), PICTURE),
    "SkyReelsV2DiffusionForcingPipeline": (lambda f: skyreels("DiffusionForcing"), FOR_WAN | {"prompt": None}),
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": (
        lambda f: skyreels("DiffusionForcingImageToVideo", {"image_dim": 4}),
        PICTURE,
    ),
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": (
        lambda f: skyreels("DiffusionForcingVideoToVideo"),
        {**FOR_WAN, **HISTORY, "video": frames(7)},
    ),
    "AnyFlowPipeline": (lambda f: anyflow("AnyFlow", "AnyFlow"), FOR_WAN),
    "AnyFlowFARPipeline": (
        lambda f: anyflow(
            "AnyFlowFAR", "AnyFlowFAR", compressed_patch_size=(1, 4, 4), full_chunk_limit=3, chunk_partition=(1, 1, 1)
        ),
        FOR_WAN,
        {"entry": True},
    ),
    "HeliosPipeline": (lambda f: helios("Helios", stage_range=[0, 1], stages=1, use_dynamic_shifting=True), FOR_WAN),
    "HeliosPyramidPipeline": (
        lambda f: helios("HeliosPyramid"),
        {
            **without(FOR_WAN, "num_inference_steps"),
            "height": 64,
            "width": 64,
            "pyramid_num_inference_steps_list": [1, 1, 1],
        },
    ),
    "Cosmos2TextToImagePipeline": (
        lambda f: cosmos("Cosmos2TextToImage"),
        {**TEXT, **SHORT, "height": 32, "width": 32},
    ),
    "Cosmos2VideoToWorldPipeline": (
        lambda f: cosmos("Cosmos2VideoToWorld", {"in_channels": 17}),
        {**LARGER, "image": picture()},
    ),
    "Cosmos2_5_PredictBasePipeline": (
        lambda f: cosmos("Cosmos2_5_PredictBase", {"in_channels": 17}, scheduler=unipc(), **NO_TEXT),
        told(LARGER),
    ),
    "Cosmos2_5_TransferPipeline": (
        transfer,
        {**told(LARGER), "num_frames": 3, "num_frames_per_chunk": 16, "controls": list(uniform(5, 3, 32, 32))},
    ),
    "CosmosTextToWorldPipeline": (lambda f: cosmos1("CosmosTextToWorld"), LARGER),
    "CosmosVideoToWorldPipeline": (lambda f: cosmos1("CosmosVideoToWorld", 5), {**LARGER, "image": picture()}),
    "SanaVideoPipeline": (
        lambda f: sana_video("SanaVideo", dpm()),
        SANA,
    ),
    "SanaVideoPipeline: epsilon on flow sigmas": (lambda f: sana_video("SanaVideo", dpm("epsilon")), SANA),
    "SanaImageToVideoPipeline": (lambda f: sana_video("SanaImageToVideo"), {**SANA, "image": picture()}),
    "MotifVideoPipeline": (lambda f: motif("MotifVideo"), GUIDED),
    "MotifVideoPipeline: APG": (lambda f: motif("MotifVideo", diffusers.AdaptiveProjectedGuidance()), GUIDED),
    "MotifVideoImage2VideoPipeline": (
        lambda f: motif("MotifVideoImage2Video", image_embed_dim=4),
        {**GUIDED, "prompt": None, "image": picture()},
    ),
}
"""How each class is built, in a folder for its tokenizer, and called."""
