"""Image pipelines that encode their words themselves, with these embeddings in place of their large encoders."""

import diffusers
import torch
import transformers
from images_flux import small
from images_new import EMBEDDED, of_z, wan_vae
from images_sd import STEPS, processor, sighted
from zoo import BETAS, PROMPT, SIZE, autoencoder, awake, clip_text, clip_tokenizer, picture, t5, unet
from zoo_more import embeddings, flux2, parts, qwen, without_text

FOUR = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.8, 1.1, 1.2, 0.9]}


def said(prompt, *shape):
    """Embeddings of a prompt, in the default type."""
    return embeddings(len(prompt or ""), *shape).to(torch.get_default_dtype())


def fibo(name):
    def make(folder):
        transformer = diffusers.BriaFiboTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=64,
            text_encoder_dim=32,
            pooled_projection_dim=None,
            axes_dims_rope=[0, 4, 4],
        )
        vae = diffusers.AutoencoderKLWan(
            base_dim=16,
            decoder_base_dim=16,
            num_res_blocks=1,
            dim_mult=[1, 1],
            out_channels=12,
            in_channels=12,
            patch_size=2,
            scale_factor_spatial=4,
            scale_factor_temporal=1,
            temperal_downsample=[False],
            z_dim=16,
        )
        more = {"text_encoder": t5(), "tokenizer": None, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
        pipe = getattr(diffusers, name)(transformer=awake(transformer), vae=vae.eval(), **more)

        def embedded(prompt, *args, **kwargs):
            prompts = [prompt] if isinstance(prompt, str) else prompt
            layers = [torch.cat([said(p, 1, 8, size) for p in prompts]) for size in (64, 32, 32)]
            return layers[0], layers[1:], torch.ones(len(prompts), 8)

        pipe.get_prompt_embeds = embedded
        return pipe

    return make


def ideogram(folder):
    def network():
        return awake(
            diffusers.Ideogram4Transformer2DModel(
                in_channels=16,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                intermediate_size=32,
                adaln_dim=16,
                llm_features_dim=32,
                mrope_section=(2, 3, 3),
            )
        )

    more = {"transformer": network(), "unconditional_transformer": network(), "text_encoder": t5(), "tokenizer": None}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipe = diffusers.Ideogram4Pipeline(vae=flux2(folder).vae, scheduler=scheduler, **more)

    def encode_prompt(prompt, grid_h, grid_w, max_sequence_length, device):
        ids = pipe._prepare_ids([max_sequence_length], grid_h, grid_w, max_sequence_length, device)
        words = said("w", 1, max_sequence_length, 32)
        return torch.cat([words, words.new_zeros(1, grid_h * grid_w, 32)], dim=1), *ids

    pipe.encode_prompt = encode_prompt
    return pipe


def layered(folder):
    network = {**qwen(folder).transformer.config, "use_layer3d_rope": True, "use_additional_t_cond": True}
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False], input_channels=4, **FOUR
    )
    transformer = diffusers.QwenImageTransformer2DModel(**network)
    pipe = without_text(awake(transformer), "QwenImageLayeredPipeline", vae.eval(), processor=None)
    pipe.register_modules(text_encoder=t5())
    return small(pipe)


def joy_plus(folder):
    transformer = diffusers.JoyImageEditPlusTransformer3DModel(
        patch_size=[1, 2, 2],
        in_channels=16,
        hidden_size=32,
        num_attention_heads=2,
        text_dim=32,
        num_layers=1,
        rope_dim_list=[4, 6, 6],
        theta=256,
    )
    pipe = without_text(awake(transformer), "JoyImageEditPlusPipeline", wan_vae(), processor=None)

    def embedded(prompt, *args, **kwargs):
        return torch.cat([said(p, 1, 8, 32) for p in prompt]), torch.ones(len(prompt), 8, dtype=torch.int64)

    pipe.encode_prompt_multiple_images = embedded
    return small(pipe)


def unidiffuser(folder):
    from diffusers.pipelines.deprecated.unidiffuser import UniDiffuserModel, UniDiffuserTextDecoder

    tokenizer = clip_tokenizer(folder)
    network = UniDiffuserModel(
        text_dim=32,
        clip_img_dim=32,
        num_text_tokens=77,
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        norm_num_groups=8,
        attention_bias=False,
        sample_size=16,
        patch_size=2,
        activation_fn="gelu",
        num_embeds_ada_norm=1000,
        norm_type="layer_norm",
        block_type="unidiffuser",
        pre_layer_norm=False,
        use_timestep_embedding=False,
        norm_elementwise_affine=True,
        use_patch_pos_embed=False,
        ff_final_dropout=True,
        use_data_type_embedding=False,
    )
    decoder = UniDiffuserTextDecoder(
        prefix_length=77,
        prefix_inner_dim=32,
        prefix_hidden_dim=32,
        vocab_size=514,
        n_positions=128,
        n_embd=32,
        n_head=2,
    )
    return diffusers.UniDiffuserPipeline(
        vae=autoencoder(),
        text_encoder=clip_text(tokenizer),
        image_encoder=sighted(),
        clip_image_processor=processor(),
        clip_tokenizer=tokenizer,
        text_decoder=decoder.eval(),
        text_tokenizer=tokenizer,
        unet=awake(network),
        scheduler=diffusers.DDIMScheduler(**BETAS, clip_sample=False),
    )


def versatile(name, **more):
    def make(folder):
        tokenizer = clip_tokenizer(folder)
        text = clip_text(tokenizer, transformers.CLIPTextModelWithProjection)
        seen = {"image_encoder": sighted(), "image_feature_extractor": processor()}
        told = {"tokenizer": tokenizer, "text_encoder": text}
        given = {"ImageVariation": seen, "TextToImage": told}
        kind = next(value for key, value in given.items() if key in name)
        if "ImageVariation" not in name:
            kind["text_unet"] = flat(name)
        scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False)
        return getattr(diffusers, name)(image_unet=unet(), vae=autoencoder(), scheduler=scheduler, **kind)

    return make


def flat(name):
    from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import UNetFlatConditionModel

    return UNetFlatConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(16, 32),
        in_channels=(4, 1, 1),
        out_channels=(4, 1, 1),
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("DownBlockFlat", "CrossAttnDownBlockFlat"),
        up_block_types=("CrossAttnUpBlockFlat", "UpBlockFlat"),
    ).eval()


LAYERS = {
    "prompt_embeds": EMBEDDED["prompt_embeds"],
    "negative_prompt_embeds": EMBEDDED["negative_prompt_embeds"],
    "prompt_embeds_mask": torch.ones(1, 8, dtype=torch.int64),
    "negative_prompt_embeds_mask": torch.ones(1, 8, dtype=torch.int64),
}
WORDS = {"prompt": PROMPT, **SIZE, "guidance_scale": 4.0, "output_type": "np"}

IDEOGRAM = {"guidance_scale": 4.0, "guidance_schedule": None, "max_sequence_length": 8}

CASES = {
    "BriaFiboPipeline": (fibo("BriaFiboPipeline"), {**WORDS, "prompt": '{"a": 1}', "negative_prompt": "w2"}),
    "BriaFiboEditPipeline": (
        fibo("BriaFiboEditPipeline"),
        {
            **WORDS,
            "prompt": '{"edit_instruction": "w1"}',
            "negative_prompt": "w2",
            "image": picture(),
            "_auto_resize": False,
        },
    ),
    "Ideogram4Pipeline": (ideogram, {"prompt": PROMPT, **SIZE, **IDEOGRAM}),
    "QwenImageLayeredPipeline": (
        layered,
        {
            **LAYERS,
            **STEPS,
            "image": picture().convert("RGBA"),
            "layers": 2,
            "true_cfg_scale": 4.0,
            "output_type": "pt",
        },
    ),
    "JoyImageEditPlusPipeline": (
        joy_plus,
        {"prompt": PROMPT, "negative_prompt": "w2", **SIZE, "images": [[picture(), picture(1)]], "guidance_scale": 4.0},
    ),
    "UniDiffuserPipeline": (unidiffuser, {"prompt": PROMPT, **SIZE, "guidance_scale": 4.0}),
    "VersatileDiffusionTextToImagePipeline": (versatile("VersatileDiffusionTextToImagePipeline"), WORDS),
    "VersatileDiffusionImageVariationPipeline": (
        versatile("VersatileDiffusionImageVariationPipeline"),
        {**SIZE, "image": picture(), "guidance_scale": 4.0, "output_type": "np"},
    ),
    "ZImageOmniPipeline": (
        lambda f: parts(of_z("ZImagePipeline")(f), "ZImageOmniPipeline", siglip=None, siglip_processor=None),
        {
            **SIZE,
            "prompt_embeds": [[embeddings(1, 8, 32)]],
            "negative_prompt_embeds": [[embeddings(2, 8, 32)]],
            "guidance_scale": 4.0,
        },
    ),
}
