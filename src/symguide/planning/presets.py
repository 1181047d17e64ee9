"""Architectures of published pipelines by name, as their config.json files have them: sizes, no weights.

Checked by parameter counts (tests/pipelines/test_estimate.py): U-Nets of SD 1.5 and SDXL 859,520,964 and 2,567,463,684,
transformers of SD3-medium, FLUX.1-dev and DiT-XL/2 2,028,328,000, 11,901,408,320 and 749,826,464 (diffusers embeds time
and label in each of its blocks), the autoencoder of SD 83,653,863.
"""

from typing import Any

_AUTOENCODER: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "act_fn": "silu",
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
_UNET: dict[str, Any] = {
    "act_fn": "silu",
    "center_input_sample": False,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
}
_AUTOENCODER_16: dict[str, Any] = {
    **_AUTOENCODER,
    "latent_channels": 16,
    "sample_size": 1024,
    "force_upcast": True,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_CLIP_L: dict[str, Any] = {
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 77,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
    "vocab_size": 49408,
}
_CLIP_BIG_G: dict[str, Any] = {
    **_CLIP_L,
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
_T5_XXL: dict[str, Any] = {
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "feed_forward_proj": "gated-gelu",
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 32128,
}

PRESETS: dict[str, tuple[str, dict[str, tuple[str, str, dict[str, Any]]]]] = {
    "sd-1.5": (
        "StableDiffusionPipeline",
        {
            "unet": (
                "diffusers",
                "UNet2DConditionModel",
                {
                    **_UNET,
                    "attention_head_dim": 8,
                    "block_out_channels": [320, 640, 1280, 1280],
                    "cross_attention_dim": 768,
                    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
                    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
                    "sample_size": 64,
                },
            ),
            "vae": ("diffusers", "AutoencoderKL", _AUTOENCODER),
            "text_encoder": ("transformers", "CLIPTextModel", _CLIP_L),
        },
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {
            "unet": (
                "diffusers",
                "UNet2DConditionModel",
                {
                    **_UNET,
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 256,
                    "attention_head_dim": [5, 10, 20],
                    "block_out_channels": [320, 640, 1280],
                    "cross_attention_dim": 2048,
                    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
                    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
                    "projection_class_embeddings_input_dim": 2816,
                    "sample_size": 128,
                    "transformer_layers_per_block": [1, 2, 10],
                    "use_linear_projection": True,
                },
            ),
            "vae": (
                "diffusers",
                "AutoencoderKL",
                {**_AUTOENCODER, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
            ),
            "text_encoder": ("transformers", "CLIPTextModel", _CLIP_L),
            "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", _CLIP_BIG_G),
        },
    ),
    "dit-xl-2": (
        "DiTPipeline",
        {
            "transformer": (
                "diffusers",
                "DiTTransformer2DModel",
                {
                    "activation_fn": "gelu-approximate",
                    "attention_bias": True,
                    "attention_head_dim": 72,
                    "in_channels": 4,
                    "norm_type": "ada_norm_zero",
                    "num_attention_heads": 16,
                    "num_embeds_ada_norm": 1000,
                    "num_layers": 28,
                    "out_channels": 8,
                    "patch_size": 2,
                    "sample_size": 32,
                },
            ),
            "vae": ("diffusers", "AutoencoderKL", {**_AUTOENCODER, "sample_size": 256}),
        },
    ),
    "sd3-medium": (
        "StableDiffusion3Pipeline",
        {
            "transformer": (
                "diffusers",
                "SD3Transformer2DModel",
                {
                    "attention_head_dim": 64,
                    "caption_projection_dim": 1536,
                    "in_channels": 16,
                    "joint_attention_dim": 4096,
                    "num_attention_heads": 24,
                    "num_layers": 24,
                    "out_channels": 16,
                    "patch_size": 2,
                    "pooled_projection_dim": 2048,
                    "pos_embed_max_size": 192,
                    "sample_size": 128,
                },
            ),
            "vae": (
                "diffusers",
                "AutoencoderKL",
                {**_AUTOENCODER_16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
            ),
            "text_encoder": ("transformers", "CLIPTextModelWithProjection", _CLIP_L),
            "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", _CLIP_BIG_G),
            "text_encoder_3": ("transformers", "T5EncoderModel", _T5_XXL),
        },
    ),
    "flux.1-dev": (
        "FluxPipeline",
        {
            "transformer": (
                "diffusers",
                "FluxTransformer2DModel",
                {
                    "attention_head_dim": 128,
                    "axes_dims_rope": [16, 56, 56],
                    "guidance_embeds": True,
                    "in_channels": 64,
                    "joint_attention_dim": 4096,
                    "num_attention_heads": 24,
                    "num_layers": 19,
                    "num_single_layers": 38,
                    "patch_size": 1,
                    "pooled_projection_dim": 768,
                },
            ),
            "vae": (
                "diffusers",
                "AutoencoderKL",
                {**_AUTOENCODER_16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
            ),
            "text_encoder": ("transformers", "CLIPTextModel", _CLIP_L),
            "text_encoder_2": ("transformers", "T5EncoderModel", _T5_XXL),
        },
    ),
}
"""Name: the pipeline's class, and its networks: (library, class, config)."""
