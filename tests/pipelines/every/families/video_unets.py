"""Pipelines of videos whose networks are U-Nets: AnimateDiff, those of before transformers, Stable Video Diffusion."""

import diffusers
from pieces import (
    TEXT,
    clips,
    frames,
    model,
    pipeline,
    sees,
    without,
)
from zoo import (
    BETAS,
    BLOCKS,
    animatediff,
    autoencoder,
    awake,
    control,
    picture,
    sd,
    sdxl,
    unet,
)
from zoo_more import parts

DDIM = {**BETAS, "beta_schedule": "linear", "clip_sample": False}
MOTION = {"block_out_channels": (16, 32), "motion_layers_per_block": 1, "motion_norm_num_groups": 2}


def animated(name, folder, **more):
    return parts(animatediff(folder), f"{name}Pipeline", **more)


def motion(**more):
    return model("MotionAdapter", **MOTION, motion_num_attention_heads=4, **more)


def animated_xl(folder):
    pipe = sdxl(folder)
    more = {"motion_adapter": motion(use_motion_mid_block=False), "scheduler": diffusers.DDIMScheduler(**DDIM)}
    return pipeline("AnimateDiffSDXL", **pipe.components | more)


def sparse(folder):
    controlnet = model(
        "SparseControlNetModel",
        block_out_channels=(16, 32),
        layers_per_block=1,
        conditioning_channels=3,
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        cross_attention_dim=32,
        attention_head_dim=4,
        conditioning_embedding_out_channels=(8, 8),
        norm_num_groups=8,
        motion_num_attention_heads=4,
        use_simplified_condition_embedding=False,
    )
    return animated("AnimateDiffSparseControlNet", folder, controlnet=awake(controlnet))


def pia(folder):
    adapter = motion(conv_in_channels=9)
    return pipeline("PIA", **animatediff(folder).components | {"unet": unet(), "motion_adapter": adapter})


def deep(folder, name, kind="UNet3DConditionModel", **more):
    """A U-Net of three dimensions, of before transformers."""
    blocks = {"down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D")}
    blocks |= {"up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"), "sample_size": 16}
    network = awake(model(kind, **BLOCKS | blocks, cross_attention_dim=32, attention_head_dim=4, **more))
    scheduler = diffusers.DDIMScheduler(**DDIM)
    return pipeline(name, **clips(folder), unet=network, vae=autoencoder(), scheduler=scheduler, **sees(width=32))


def svd(folder):
    network = model(
        "UNetSpatioTemporalConditionModel",
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32,
        num_attention_heads=8,
        projection_class_embeddings_input_dim=96,
        addition_time_embed_dim=32,
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        **BETAS,
        prediction_type="v_prediction",
        interpolation_type="linear",
        sigma_max=700.0,
        sigma_min=0.002,
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
        use_karras_sigmas=True,
    )
    vae = model(
        "AutoencoderKLTemporalDecoder",
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        latent_channels=4,
    )
    return pipeline("StableVideoDiffusion", unet=network, vae=vae, scheduler=scheduler, **sees(224, 32))


FOR_UNETS = {**TEXT, "height": 16, "width": 16, "num_frames": 2}


CASES = {
    "AnimateDiffPipeline": (animatediff, FOR_UNETS),
    "AnimateDiffPAGPipeline": (
        lambda f: animated("AnimateDiffPAG", f, pag_applied_layers=["mid_block.*attn1"]),
        FOR_UNETS,
    ),
    "AnimateDiffSDXLPipeline": (animated_xl, FOR_UNETS),
    "AnimateDiffControlNetPipeline": (
        lambda f: animated("AnimateDiffControlNet", f, controlnet=control()),
        {**FOR_UNETS, "conditioning_frames": frames(2)},
    ),
    "AnimateDiffSparseControlNetPipeline": (
        sparse,
        {**FOR_UNETS, "conditioning_frames": frames(2), "controlnet_frame_indices": [0, 1]},
    ),
    "AnimateDiffVideoToVideoPipeline": (
        lambda f: animated("AnimateDiffVideoToVideo", f),
        {**without(FOR_UNETS, "num_frames"), "video": frames(2), "num_inference_steps": 4},
    ),
    "AnimateDiffVideoToVideoControlNetPipeline": (
        lambda f: animated("AnimateDiffVideoToVideoControlNet", f, controlnet=control()),
        {
            **without(FOR_UNETS, "num_frames"),
            "video": frames(2),
            "conditioning_frames": frames(2),
            "num_inference_steps": 4,
        },
    ),
    "PIAPipeline": (pia, {**FOR_UNETS, "image": picture()}),
    "TextToVideoSDPipeline": (lambda f: deep(f, "TextToVideoSD"), FOR_UNETS),
    "VideoToVideoSDPipeline": (
        lambda f: deep(f, "VideoToVideoSD"),
        {**without(FOR_UNETS, "num_frames", "height", "width"), "video": frames(2), "num_inference_steps": 5},
    ),
    "I2VGenXLPipeline": (
        lambda f: deep(f, "I2VGenXL", "I2VGenXLUNet"),
        {**FOR_UNETS, "image": picture(), "clip_skip": None},
    ),
    "TextToVideoZeroPipeline": (
        lambda f: parts(sd(f), "TextToVideoZeroPipeline"),
        {**without(FOR_UNETS, "num_frames", "output_type"), "video_length": 2, "t0": 1, "t1": 2},
    ),
    "TextToVideoZeroSDXLPipeline": (
        lambda f: pipeline(
            "TextToVideoZeroSDXL", **sdxl(f).components | {"scheduler": diffusers.DDIMScheduler(**DDIM)}
        ),
        {**without(FOR_UNETS, "num_frames", "output_type"), "video_length": 2, "t0": 1, "t1": 2},
    ),
    "StableVideoDiffusionPipeline": (
        svd,
        {**without(FOR_UNETS, "prompt", "negative_prompt", "guidance_scale"), "image": picture(), "num_frames": 2},
    ),
}
"""How each class is built, in a folder for its tokenizer, and called."""
