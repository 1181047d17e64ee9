"""Stable Diffusion 1 and 2: variants of the same parts."""

import inspect

import diffusers
import torch
import transformers
from images import EVERYWHERE
from zoo import BETAS, PROMPT, SIZE, TEXT, awake, clip_text, control, hole, picture, sd
from zoo_more import PICTURE, parts

MASKED = {"image": picture(), "mask_image": hole()}
STEPS = {"num_inference_steps": 3}
SHIFTED = {"strength": 0.8, "num_inference_steps": 4}


def sighted(cls=transformers.CLIPVisionModelWithProjection, **more):
    """A vision encoder of 32 x 32 pictures."""
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPVisionConfig(**sizes | {"image_size": 32, "patch_size": 8, "projection_dim": 32} | more)
    return cls(config).eval()


def processor(side=32):
    """What resizes pictures for it."""
    size = {"shortest_edge": side}
    return transformers.CLIPImageProcessor(crop_size={"height": side, "width": side}, size=size)


def of_sd(name, network=None, **more):
    """A builder of the pipeline of this name, with the parts of Stable Diffusion that it takes, and others.

    Others are values, or functions of a pipeline that has the rest.
    """

    def make(folder):
        pipe = sd(folder, network=network)
        made = {key: part(pipe) if inspect.isfunction(part) else part for key, part in more.items()}
        return parts(pipe, name, **made)

    return make


def lcm(name):
    def make(folder):
        pipe = sd(folder, network={"time_cond_proj_dim": 32})
        pipe.scheduler = diffusers.LCMScheduler(**BETAS, clip_sample=False)
        return parts(pipe, name)

    return make


def unclip_parts(folder):
    """Stable unCLIP's U-Net is told the noise of a picture's embedding, beside that."""
    network = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 64}
    pipe = sd(folder, network=network)
    known = diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer
    more = {
        "image_normalizer": known.StableUnCLIPImageNormalizer(embedding_dim=32),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    }
    return pipe, more


def unclip(folder):
    pipe, more = unclip_parts(folder)
    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1, num_embeddings=77
    )
    more |= {
        "prior_tokenizer": pipe.tokenizer,
        "prior_text_encoder": clip_text(pipe.tokenizer, transformers.CLIPTextModelWithProjection),
        "prior": prior.eval(),
        "prior_scheduler": diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000, clip_sample=True
        ),
    }
    return parts(pipe, "StableUnCLIPPipeline", **more)


def unclip_of_pictures(folder):
    pipe, more = unclip_parts(folder)
    more |= {"image_encoder": sighted(), "feature_extractor": processor()}
    return parts(pipe, "StableUnCLIPImg2ImgPipeline", **more)


def control_xs(folder):
    pipe = sd(folder, network={"layers_per_block": 2})
    return parts(pipe, "StableDiffusionControlNetXSPipeline", controlnet=control_xs_of(pipe.unet))


def control_xs_of(network):
    """A ControlNet-XS of a U-Net."""
    kept = {"size_ratio": 0.5, "conditioning_embedding_out_channels": (8, 8)}
    return awake(diffusers.ControlNetXSAdapter.from_unet(network, **kept))


def gligen(name, **more):
    def make(folder):
        return parts(sd(folder, network={"attention_type": "gated"}), name, **more)

    return make


def painted(folder):
    """Paint by Example: a picture shows what goes into the hole."""
    encoder = diffusers.pipelines.deprecated.paint_by_example.PaintByExampleImageEncoder
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        projection_dim=32,
        intermediate_size=37,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=32,
        patch_size=4,
    )
    pipe = sd(folder, network={"in_channels": 9})
    seer = encoder(config, proj_size=32).eval()
    return parts(pipe, "PaintByExamplePipeline", image_encoder=seer, feature_extractor=processor())


def upscaled(folder):
    """The latent upscaler: a U-Net in Karras' time, with the noise level as an embedding."""
    network = diffusers.UNet2DConditionModel(
        act_fn="gelu",
        attention_head_dim=8,
        norm_num_groups=None,
        block_out_channels=(32, 32, 64, 64),
        time_cond_proj_dim=160,
        conv_in_kernel=1,
        conv_out_kernel=1,
        cross_attention_dim=32,
        down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
        in_channels=8,
        mid_block_type=None,
        only_cross_attention=False,
        out_channels=5,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
    )
    pipe = sd(folder)
    pipe.scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample")
    return parts(pipe, "StableDiffusionLatentUpscalePipeline", unet=network.eval())


def ldm3d(folder):
    pipe = sd(folder)
    vae = diffusers.AutoencoderKL(**{**pipe.vae.config, "in_channels": 6, "out_channels": 6})
    return parts(pipe, "StableDiffusionLDM3DPipeline", vae=vae.eval())


def marigold(name, channels=8, out=4):
    def make(folder):
        pipe = sd(folder, network={"in_channels": channels, "out_channels": out})
        return parts(pipe, name, prediction_type=KINDS[name])

    return make


KINDS = {
    "MarigoldDepthPipeline": "depth",
    "MarigoldNormalsPipeline": "normals",
    "MarigoldIntrinsicsPipeline": "intrinsics",
}
SHOWN = {"image": picture(), "num_inference_steps": 3, "processing_resolution": 32, "output_type": "pt"}
EDITED = {
    "editing_prompt": ["w3 smiling"],
    "reverse_editing_direction": [False],
    "edit_warmup_steps": [0],
    "edit_guidance_scale": [4],
    "edit_threshold": [0.5],
}

CASES = {
    "StableDiffusionControlNetImg2ImgPipeline": (
        of_sd("StableDiffusionControlNetImg2ImgPipeline", controlnet=lambda p: control(p.unet)),
        {**TEXT, **SHIFTED, "image": picture(), "control_image": picture(1)},
    ),
    "StableDiffusionControlNetPAGPipeline": (
        of_sd(
            "StableDiffusionControlNetPAGPipeline",
            controlnet=lambda p: control(p.unet),
            pag_applied_layers=["up"],
        ),
        {**TEXT, "image": picture(), "pag_scale": 2.0},
    ),
    "StableDiffusionControlNetPAGInpaintPipeline": (
        of_sd(
            "StableDiffusionControlNetPAGInpaintPipeline",
            controlnet=lambda p: control(p.unet),
            pag_applied_layers=["up"],
        ),
        {**TEXT, **MASKED, "control_image": picture(1), "pag_scale": 2.0},
        {"unmixed": EVERYWHERE},
    ),
    "StableDiffusionControlNetXSPipeline": (control_xs, {**TEXT, "image": picture()}),
    "StableDiffusionPAGImg2ImgPipeline": (
        of_sd("StableDiffusionPAGImg2ImgPipeline", pag_applied_layers=["up"]),
        {"prompt": PROMPT, **SHIFTED, "image": picture(), "pag_scale": 2.0, "output_type": "pt"},
    ),
    "StableDiffusionPAGInpaintPipeline": (
        of_sd("StableDiffusionPAGInpaintPipeline", pag_applied_layers=["up"]),
        {**TEXT, **MASKED, "pag_scale": 2.0},
        {"unmixed": EVERYWHERE},
    ),
    "StableDiffusionImageVariationPipeline": (
        of_sd(
            "StableDiffusionImageVariationPipeline", image_encoder=lambda p: sighted(), feature_extractor=processor()
        ),
        {"image": picture(), **SIZE, "guidance_scale": 5.0},
    ),
    "StableDiffusionSAGPipeline": (of_sd("StableDiffusionSAGPipeline"), {**TEXT, "sag_scale": 0.75}),
    "StableDiffusionSAGPipeline: sag_scale=0": (of_sd("StableDiffusionSAGPipeline"), {**TEXT, "sag_scale": 0.0}),
    "StableDiffusionAttendAndExcitePipeline": (
        of_sd("StableDiffusionAttendAndExcitePipeline"),
        {**TEXT, "token_indices": [1], "attn_res": (8, 8), "max_iter_to_alter": 2, "thresholds": {0: 0.5}},
    ),
    "SemanticStableDiffusionPipeline": (of_sd("SemanticStableDiffusionPipeline"), TEXT),
    "SemanticStableDiffusionPipeline: an edit": (of_sd("SemanticStableDiffusionPipeline"), {**TEXT, **EDITED}),
    "StableDiffusionPanoramaPipeline": (
        of_sd("StableDiffusionPanoramaPipeline"),
        {**TEXT, "height": 64, "width": 64 * 2},
    ),
    "StableDiffusionModelEditingPipeline": (
        of_sd("StableDiffusionModelEditingPipeline", with_augs=["", "w5"]),
        TEXT,
    ),
    "StableDiffusionParadigmsPipeline": (
        lambda f: parts(
            sd(f),
            "StableDiffusionParadigmsPipeline",
            scheduler=diffusers.DDIMParallelScheduler(**BETAS, clip_sample=False),
        ),
        {**TEXT, "parallel": 3},
    ),
    "StableDiffusionPix2PixZeroPipeline": (
        of_sd(
            "StableDiffusionPix2PixZeroPipeline",
            inverse_scheduler=diffusers.DDIMInverseScheduler(**BETAS),
            caption_generator=None,
            caption_processor=None,
        ),
        {
            "prompt": PROMPT,
            **STEPS,
            "guidance_scale": 5.0,
            "cross_attention_guidance_amount": 0.1,
            "source_embeds": torch.randn(4, 77, 32, generator=torch.Generator().manual_seed(3)),
            "target_embeds": torch.randn(4, 77, 32, generator=torch.Generator().manual_seed(4)),
            "output_type": "np",
        },
    ),
    "StableDiffusionDiffEditPipeline": (
        of_sd("StableDiffusionDiffEditPipeline", inverse_scheduler=diffusers.DDIMInverseScheduler(**BETAS)),
        {
            "prompt": PROMPT,
            "mask_image": hole(),
            "image_latents": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)),
            "guidance_scale": 5.0,
            "num_inference_steps": 4,
            "inpaint_strength": 0.8,
            "output_type": "np",
        },
    ),
    "StableDiffusionGLIGENPipeline": (
        gligen("StableDiffusionGLIGENPipeline"),
        {**TEXT, "gligen_phrases": ["w3"], "gligen_boxes": [[0.1, 0.1, 0.5, 0.5]]},
    ),
    "StableDiffusionGLIGENTextImagePipeline": (
        lambda f: gligen(
            "StableDiffusionGLIGENTextImagePipeline",
            processor=transformers.CLIPProcessor(processor(), sd(f).tokenizer),
            image_encoder=sighted(),
            image_project=diffusers.pipelines.stable_diffusion.clip_image_project_model.CLIPImageProjection(
                hidden_size=32
            ),
        )(f),
        {**TEXT, "gligen_phrases": ["w3"], "gligen_boxes": [[0.1, 0.1, 0.5, 0.5]]},
    ),
    "StableDiffusionLDM3DPipeline": (
        ldm3d,
        {**TEXT, "output_type": "np"},
        {"note": "objectives see 6 channels, the picture and its depth"},
    ),
    "StableDiffusionLatentUpscalePipeline": (
        upscaled,
        {"prompt": PROMPT, "image": picture(), **STEPS, "guidance_scale": 5.0, "output_type": "pt"},
    ),
    "StableUnCLIPPipeline": (unclip, {**TEXT, "prior_num_inference_steps": 2}),
    "StableUnCLIPImg2ImgPipeline": (unclip_of_pictures, {**TEXT, "image": picture()}),
    "CycleDiffusionPipeline": (
        of_sd("CycleDiffusionPipeline", scheduler=diffusers.DDIMScheduler(**BETAS, set_alpha_to_one=False)),
        {
            "prompt": PROMPT,
            "source_prompt": "w4 a dog",
            "image": picture(),
            **SHIFTED,
            "eta": 0.1,
            "guidance_scale": 3.0,
            "source_guidance_scale": 1.0,
            "output_type": "pt",
        },
    ),
    "LatentConsistencyModelPipeline": (
        lcm("LatentConsistencyModelPipeline"),
        {**TEXT, "original_inference_steps": 50},
    ),
    "LatentConsistencyModelImg2ImgPipeline": (
        lcm("LatentConsistencyModelImg2ImgPipeline"),
        {**PICTURE, "prompt": PROMPT, "strength": 0.8, "num_inference_steps": 4, "original_inference_steps": 50},
    ),
    "PaintByExamplePipeline": (painted, {**SIZE, **MASKED, "example_image": picture(2), "guidance_scale": 5.0}),
    **{name: (marigold(name), SHOWN) for name in ("MarigoldDepthPipeline", "MarigoldNormalsPipeline")},
    "MarigoldIntrinsicsPipeline": (marigold("MarigoldIntrinsicsPipeline", channels=12, out=8), SHOWN),
    "StableDiffusionInpaintPipeline: strength 0.8": (
        lambda f: sd(f, "StableDiffusionInpaintPipeline"),
        {**TEXT, **MASKED, **SHIFTED},
        {"unmixed": {"mask_image": EVERYWHERE["mask_image"]}},
    ),
}
