"""Flow transformers of 2024 and later, called with embeddings of their prompts wherever they take them."""

import inspect

import diffusers
import torch
from images_flux import EMBEDDED, small
from zoo import SIZE, UNPACKED, autoencoder, awake, t5, word_tokenizer
from zoo_more import embeddings, flux2, parts, qwen, without_text, z_image

MASKS = {f"{which}prompt_embeds_mask": torch.ones(1, 8, dtype=torch.int64) for which in ("", "negative_")}
QWEN = {**EMBEDDED, **MASKS, "true_cfg_scale": 4.0}
EDIT = {key: value for key, value in QWEN.items() if key not in ("height", "width")}
LISTED = {"prompt_embeds": [embeddings(1, 8, 32)], "negative_prompt_embeds": [embeddings(2, 8, 32)]}
Z = {**SIZE, **LISTED, "guidance_scale": 4.0}


def qwen_vae(channels=4, deep=2):
    """The autoencoder of Qwen's pictures."""
    more = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.8, 1.1, 1.2, 0.9]}
    sizes = {
        "base_dim": 8,
        "z_dim": channels,
        "dim_mult": [1, 2, 2][:deep],
        "temperal_downsample": [False, True][: deep - 1],
    }
    return diffusers.AutoencoderKLQwenImage(**sizes, num_res_blocks=1, **more).eval()


def wan_vae():
    """The autoencoder of Wan's videos, for pictures."""
    return diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).eval()


def of_qwen(name, control=None, **more):
    def make(folder):
        pipe = qwen(folder)
        made = {}
        if control is not None:
            known = inspect.signature(diffusers.QwenImageControlNetModel.__init__).parameters
            sizes = {key: value for key, value in pipe.transformer.config.items() if key in known}
            made["controlnet"] = awake(diffusers.QwenImageControlNetModel(**sizes | control))
        return small(parts(pipe, name, **made, **more))

    return make


def of_z(name, controlled=False, able=False):
    def make(folder):
        pipe, more = z_image(folder), {}
        if controlled:
            net = diffusers.ZImageControlNetModel(
                control_layers_places=[0],
                control_refiner_layers_places=[0],
                control_in_dim=controlled,
                add_control_noise_refiner="control_noise_refiner" if controlled > 4 else None,
                all_patch_size=(2,),
                all_f_patch_size=(1,),
                dim=32,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
            )
            more["controlnet"] = awake(diffusers.ZImageControlNetModel.from_transformer(net, pipe.transformer))
            if able:
                more["controlnet"].gradient_checkpointing = False  # diffusers' own lacks it, and makes no graph
        return parts(pipe, name, **more)

    return make


def krea2(folder):
    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=8,
        text_hidden_dim=16,
        num_text_layers=3,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
        rope_theta=1000.0,
    )
    return without_text(transformer, "Krea2Pipeline", qwen_vae(), text_encoder_select_layers=(0, 1, 2))


def nucleus(folder):
    transformer = diffusers.NucleusMoEImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        axes_dims_rope=(8, 4, 4),
        moe_enabled=False,
        capacity_factors=[8.0, 8.0],
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    more = {"vae": qwen_vae(), "text_encoder": None, "processor": None}
    return diffusers.NucleusMoEImagePipeline(transformer=awake(transformer), scheduler=scheduler, **more)


def ernie(folder):
    transformer = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=64,
        in_channels=16,
        out_channels=16,
        text_in_dim=32,
        rope_axes_dim=(4, 6, 6),
    )
    return without_text(awake(transformer), "ErnieImagePipeline", flux2(folder).vae)


def dreamlite(name):
    def make(folder):
        unet = diffusers.DreamLiteUNetModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
            up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
            block_out_channels=(32, 64),
            cross_attention_dim=32,
            attention_head_dim=8,
            layers_per_block=1,
            norm_num_groups=8,
            transformer_layers_per_block=1,
        )
        vae = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(16, 16),
            decoder_block_out_channels=(16, 16),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
        pipe = getattr(diffusers, name)(
            text_encoder=t5(),
            tokenizer=None,
            processor=None,
            vae=vae.eval(),
            unet=unet.eval(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        )

        def encode_prompt(prompts, *args, **kwargs):
            dtype = torch.get_default_dtype()
            embedded = torch.cat([embeddings(len(prompt), 1, 8, 32) for prompt in prompts])
            return embedded.to(dtype), torch.ones(len(prompts), 8, dtype=torch.long)

        pipe.encode_prompt = encode_prompt
        return pipe

    return make


def glm(folder):
    transformer = diffusers.GlmImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=32,
        time_embed_dim=16,
        condition_dim=8,
        prior_vq_quantizer_codebook_size=128,
    )
    more = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.8, 1.1, 1.2, 0.9]}
    return diffusers.GlmImagePipeline(
        tokenizer=None,
        processor=None,
        text_encoder=t5(),
        vision_language_encoder=None,
        vae=autoencoder(blocks=(8, 8, 16, 16), **more),
        transformer=awake(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def joyimage(folder):
    transformer = diffusers.JoyImageEditTransformer3DModel(
        patch_size=[1, 2, 2],
        in_channels=16,
        hidden_size=32,
        num_attention_heads=2,
        text_dim=32,
        num_layers=1,
        rope_dim_list=[4, 6, 6],
        theta=256,
    )
    return small(without_text(awake(transformer), "JoyImageEditPipeline", wan_vae(), processor=None))


def prx(name, pixels=False):
    def make(folder):
        channels = 3 if pixels else 4
        transformer = diffusers.PRXTransformer2DModel(
            patch_size=2,
            in_channels=channels,
            context_in_dim=32,
            hidden_size=32,
            mlp_ratio=2.0,
            num_heads=2,
            depth=1,
            axes_dim=[8, 8],
        )
        more = {} if pixels else {"vae": autoencoder(**UNPACKED)}
        pipe = getattr(diffusers, name)(
            transformer=awake(transformer),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
            text_encoder=t5(),
            tokenizer=word_tokenizer(),
            **more,
        )
        return pipe

    return make


def lumina(folder):
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        ffn_dim_multiplier=None,
        norm_eps=1e-5,
        learn_sigma=True,
        qk_norm=True,
        cross_attention_dim=32,
        scaling_factor=1.0,
    )
    return without_text(awake(transformer), "LuminaPipeline", autoencoder())


def hidream(folder):
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[32, 16],
        text_emb_dim=64,
        num_routed_experts=4,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=(0, 1),
    )
    nothing = {f"{part}{n}": None for part in ("text_encoder", "tokenizer") for n in ("_2", "_3", "_4")}
    pipe = without_text(awake(transformer), "HiDreamImagePipeline", **nothing)
    pipe.default_sample_size = 16
    return pipe


def hunyuan_image(guided="distilled"):
    def make(folder):
        transformer = diffusers.HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=4,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=(1, 1),
            guidance_embeds=guided in ("distilled", "meanflow"),
            use_meanflow=guided == "meanflow",
            text_embed_dim=32,
            text_embed_2_dim=32,
            rope_axes_dim=(4, 4),
        )
        vae = diffusers.AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 64),
            layers_per_block=1,
            scaling_factor=0.476986,
            spatial_compression_ratio=2,
            sample_size=32,
        )
        guiders = {
            "distilled": lambda: None,
            "meanflow": lambda: None,
            "cfg": lambda: diffusers.ClassifierFreeGuidance(3.0),
            "apg": lambda: diffusers.AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1),
        }
        return without_text(
            awake(transformer),
            "HunyuanImagePipeline",
            vae.eval(),
            text_encoder_2=None,
            tokenizer_2=None,
            guider=guiders[guided](),
            ocr_guider=guiders[guided](),
        )

    return make


TWICE = {
    f"{which}prompt_embeds{n}": embeddings(seed, 1, 8, 32)
    for seed, (which, n) in enumerate((w, n) for w in ("", "negative_") for n in ("", "_2"))
}
MASKED_TWICE = {name.replace("embeds", "embeds_mask"): torch.ones(1, 8, dtype=torch.long) for name in TWICE}
HUNYUAN = {**TWICE, **MASKED_TWICE, **SIZE}


def refiner(folder):
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=16,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1, 1),
        guidance_embeds=True,
        text_embed_dim=32,
        rope_axes_dim=(4, 2, 2),
    )
    vae = diffusers.AutoencoderKLHunyuanImageRefiner(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        scaling_factor=0.476986,
        spatial_compression_ratio=2,
        temporal_compression_ratio=2,
    )
    return without_text(awake(transformer), "HunyuanImageRefinerPipeline", vae.eval())
