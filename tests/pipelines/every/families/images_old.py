"""Kandinsky, DeepFloyd IF, and pipelines of before 2024 that are made of other parts than Stable Diffusion."""

import diffusers
import torch
import transformers
from images_sd import STEPS, processor, sighted
from tokenizers import processors
from zoo import (
    NEGATIVE,
    PROMPT,
    autoencoder,
    awake,
    clip_text,
    clip_tokenizer,
    hole,
    picture,
    pixels,
    t5,
    word_tokenizer,
)
from zoo_more import embeddings

SIZE = {"height": 32, "width": 32, **STEPS, "output_type": "pt"}
SIMPLE = {
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "resnet_time_scale_shift": "scale_shift",
}
TEXT = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": 4.0}
SEEN = {"image_embeds": embeddings(1, 1, 32), "negative_image_embeds": embeddings(2, 1, 32)}


def movq():
    """Kandinsky's decoder: its norms see the latents."""
    return diffusers.VQModel(
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=4,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    ).eval()


def vq(**more):
    """A quantising autoencoder with the norms that others have."""
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    sizes = {"block_out_channels": [16, 32], "norm_num_groups": 8, "latent_channels": 3, "num_vq_embeddings": 32}
    return diffusers.VQModel(**blocks | sizes | more).eval()


def ddim(**more):
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "steps_offset": 1}
    return diffusers.DDIMScheduler(**settings, clip_sample=False, set_alpha_to_one=False, **more)


def kandinsky(name, network=None, learned=False):
    """Of Kandinsky 2.2, told what to draw by embeddings of pictures; its networks predict variances too."""

    def make(folder):
        sizes = {"in_channels": 4, "out_channels": 8, "encoder_hid_dim": 32} | (network or {})
        sizes = {"addition_embed_type": "image", "encoder_hid_dim_type": "image_proj"} | sizes
        unet = diffusers.UNet2DConditionModel(**SIMPLE | sizes).eval()
        scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False) if learned else ddim()
        return getattr(diffusers, name)(unet=unet, scheduler=scheduler, movq=movq())

    return make


def kandinsky1(name, network=None):
    """Of Kandinsky 2.1, told by words too."""

    def make(folder):
        from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

        sizes = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
        text = MultilingualCLIP(MCLIPConfig(numDims=32, transformerDimensions=32, vocab_size=203, **sizes))
        kinds = {"addition_embed_type": "text_image", "encoder_hid_dim_type": "text_image_proj"}
        sizes = {"in_channels": 4, "out_channels": 8, "encoder_hid_dim": 32} | kinds | (network or {})
        unet = diffusers.UNet2DConditionModel(**SIMPLE | sizes).eval()
        tokenizer = word_tokenizer()
        ended = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        tokenizer.backend_tokenizer.post_processor = ended  # no prompt is without a word
        named = {"text_encoder": text.eval(), "tokenizer": tokenizer, "movq": movq()}
        return getattr(diffusers, name)(**named, unet=unet, scheduler=ddim())

    return make


def prior(name):
    def make(folder):
        tokenizer = clip_tokenizer(folder)
        made = diffusers.PriorTransformer(num_attention_heads=2, attention_head_dim=12, embedding_dim=32, num_layers=1)
        made.clip_std = torch.nn.Parameter(torch.ones(made.clip_std.shape))
        return getattr(diffusers, name)(
            prior=made.eval(),
            image_encoder=sighted(),
            text_encoder=clip_text(tokenizer, transformers.CLIPTextModelWithProjection),
            tokenizer=tokenizer,
            scheduler=unclip_scheduler("sample"),
            image_processor=processor(),
        )

    return make


def unclip_scheduler(predicts="epsilon", variance="fixed_small_log"):
    return diffusers.UnCLIPScheduler(variance_type=variance, prediction_type=predicts, num_train_timesteps=1000)


def combined(name, second, version):
    """Prior and decoder in one; the scheduler that guide sees is the decoder's."""

    def make(folder):
        first = prior("KandinskyV22PriorPipeline")(folder)
        pipe = second(folder)
        more = {f"prior_{key}": part for key, part in first.components.items()}
        return getattr(diffusers, name)(**pipe.components, **more)

    return make


def kandinsky3(name):
    def make(folder):
        unet = diffusers.Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(32, 64),
            cross_attention_dim=4,
            encoder_hid_dim=32,
        )
        scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
        named = {"tokenizer": word_tokenizer(), "text_encoder": t5()}
        return getattr(diffusers, name)(**named, unet=unet.eval(), scheduler=scheduler, movq=movq())

    return make


def kandinsky5(name, visual=False):
    def make(folder):
        transformer = diffusers.Kandinsky5Transformer3DModel(
            in_visual_dim=16,
            out_visual_dim=16,
            in_text_dim=32,
            in_text_dim2=16,
            time_dim=16,
            patch_size=(1, 2, 2),
            model_dim=32,
            ff_dim=64,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 4, 8),
            visual_cond=visual,
            attention_type="regular",
        )
        vae = autoencoder(16, (8, 8, 16, 16), scaling_factor=0.3611, shift_factor=0.1159)
        tokenizer = clip_tokenizer(folder)
        pipe = getattr(diffusers, name)(
            transformer=awake(transformer),
            vae=vae,
            text_encoder=t5(),
            tokenizer=None,
            text_encoder_2=clip_text(tokenizer),
            tokenizer_2=tokenizer,
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        )
        pipe.resolutions = [(32, 32)]
        return pipe

    return make


K5 = {
    "prompt_embeds_qwen": embeddings(1, 1, 8, 32),
    "prompt_embeds_clip": embeddings(2, 1, 16),
    "negative_prompt_embeds_qwen": embeddings(3, 1, 8, 32),
    "negative_prompt_embeds_clip": embeddings(4, 1, 16),
    "prompt_cu_seqlens": torch.tensor([0, 8], dtype=torch.int32),
    "negative_prompt_cu_seqlens": torch.tensor([0, 8], dtype=torch.int32),
    **SIZE,
    "guidance_scale": 4.0,
}


def deepfloyd(name, above=False, learned=True):
    """DeepFloyd IF: pixels; `above` the second stage, which sees a small picture beside its own."""

    def make(folder):
        more = {"in_channels": 6, "class_embed_type": "timestep"} if above else {"in_channels": 3}
        unet = diffusers.UNet2DConditionModel(
            **SIMPLE | {"attention_head_dim": 8},
            **more,
            sample_size=32,
            out_channels=6,
            encoder_hid_dim=32,
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            cross_attention_norm="group_norm",
            act_fn="gelu",
        ).eval()
        kind = "learned_range" if learned else "fixed_small"
        scheduler = diffusers.DDPMScheduler(variance_type=kind, clip_sample=False)
        named = {"tokenizer": word_tokenizer(), "text_encoder": t5(), "safety_checker": None}
        noisier = {"image_noising_scheduler": diffusers.DDPMScheduler()} if above else {}
        pipe = getattr(diffusers, name)(
            **named,
            **noisier,
            unet=unet,
            scheduler=scheduler,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )
        return pipe

    return make


IF = {**TEXT, **STEPS, "output_type": "pt"}
SMALL = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def pixel(name, scheduler, **network):
    def make(folder):
        unet = pixels(folder).unet
        if network:
            unet = diffusers.UNet2DModel(**{**unet.config, **network}).eval()
        return getattr(diffusers, name)(unet=unet, scheduler=scheduler())

    return make


def latent(folder):
    unet = diffusers.UNet2DModel(**{**pixels(folder).unet.config, "in_channels": 3, "out_channels": 3})
    return diffusers.LDMPipeline(vqvae=vq(), unet=unet.eval(), scheduler=ddim())


def sharper(folder):
    unet = diffusers.UNet2DModel(**{**pixels(folder).unet.config, "in_channels": 6, "out_channels": 3})
    return diffusers.LDMSuperResolutionPipeline(vqvae=vq(), unet=unet.eval(), scheduler=ddim())


def told_latent(folder):
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
    from zoo import unet

    sizes = {"vocab_size": 514, "d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 37, "encoder_attention_heads": 4}
    bert = LDMBertModel(LDMBertConfig(**sizes, max_position_embeddings=77, head_dim=8))
    named = {"bert": bert.eval(), "tokenizer": clip_tokenizer(folder), "vqvae": autoencoder()}
    return diffusers.LDMTextToImagePipeline(**named, unet=unet(), scheduler=ddim())


ROUNDS = {"quantises": True, "note": "the decoder quantises, and gradients pass straight through"}

HINT = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(6))  # of 8 numbers a latent
CASES = {
    "KandinskyV22Pipeline": (kandinsky("KandinskyV22Pipeline"), {**SEEN, **SIZE}),
    "KandinskyV22Pipeline: learned_range": (kandinsky("KandinskyV22Pipeline", learned=True), {**SEEN, **SIZE}),
    "KandinskyV22Img2ImgPipeline": (
        kandinsky("KandinskyV22Img2ImgPipeline"),
        {**SEEN, **SIZE, "image": picture(), "strength": 0.8, "num_inference_steps": 4},
    ),
    "KandinskyV22InpaintPipeline": (
        kandinsky("KandinskyV22InpaintPipeline", {"in_channels": 9}),
        {**SEEN, **SIZE, "image": picture(), "mask_image": hole()},
        {"unmixed": {"mask_image": hole(whole=True)}},
    ),
    "KandinskyV22ControlnetPipeline": (
        kandinsky(
            "KandinskyV22ControlnetPipeline", {"in_channels": 8, "addition_embed_type": "image_hint", "out_channels": 8}
        ),
        {**SEEN, **SIZE, "hint": HINT},
    ),
    "KandinskyV22ControlnetImg2ImgPipeline": (
        kandinsky("KandinskyV22ControlnetImg2ImgPipeline", {"in_channels": 8, "addition_embed_type": "image_hint"}),
        {**SEEN, **SIZE, "hint": HINT, "image": picture(), "strength": 0.8, "num_inference_steps": 4},
    ),
    "KandinskyPipeline": (kandinsky1("KandinskyPipeline"), {**TEXT, **SEEN, **SIZE}),
    "KandinskyImg2ImgPipeline": (
        kandinsky1("KandinskyImg2ImgPipeline"),
        {**TEXT, **SEEN, **SIZE, "image": picture(), "strength": 0.8, "num_inference_steps": 4},
    ),
    "KandinskyInpaintPipeline": (
        kandinsky1("KandinskyInpaintPipeline", {"in_channels": 9}),
        {**TEXT, **SEEN, **SIZE, "image": picture(), "mask_image": hole()},
        {"unmixed": {"mask_image": hole(whole=True)}},
    ),
    "KandinskyPriorPipeline": (prior("KandinskyPriorPipeline"), {**TEXT, **STEPS, "output_type": "pt"}),
    "KandinskyV22PriorPipeline": (prior("KandinskyV22PriorPipeline"), {**TEXT, **STEPS, "output_type": "pt"}),
    "KandinskyV22PriorEmb2EmbPipeline": (
        prior("KandinskyV22PriorEmb2EmbPipeline"),
        {**TEXT, "image": picture(), "strength": 0.9, "num_inference_steps": 4, "output_type": "pt"},
    ),
    "KandinskyV22CombinedPipeline": (
        combined("KandinskyV22CombinedPipeline", kandinsky("KandinskyV22Pipeline"), 22),
        {**TEXT, **SIZE, "prior_num_inference_steps": 2},
    ),
    "KandinskyV22Img2ImgCombinedPipeline": (
        combined("KandinskyV22Img2ImgCombinedPipeline", kandinsky("KandinskyV22Img2ImgPipeline"), 22),
        {**TEXT, **SIZE, "image": picture(), "strength": 0.8, "num_inference_steps": 4, "prior_num_inference_steps": 2},
    ),
    "KandinskyV22InpaintCombinedPipeline": (
        combined(
            "KandinskyV22InpaintCombinedPipeline", kandinsky("KandinskyV22InpaintPipeline", {"in_channels": 9}), 22
        ),
        {**TEXT, **SIZE, "image": picture(), "mask_image": hole(), "prior_num_inference_steps": 2},
        {"unmixed": {"mask_image": hole(whole=True)}},
    ),
    "KandinskyCombinedPipeline": (
        combined("KandinskyCombinedPipeline", kandinsky1("KandinskyPipeline"), 1),
        {**TEXT, **SIZE, "prior_num_inference_steps": 2},
    ),
    "KandinskyImg2ImgCombinedPipeline": (
        combined("KandinskyImg2ImgCombinedPipeline", kandinsky1("KandinskyImg2ImgPipeline"), 1),
        {**TEXT, **SIZE, "image": picture(), "strength": 0.8, "num_inference_steps": 4, "prior_num_inference_steps": 2},
    ),
    "KandinskyInpaintCombinedPipeline": (
        combined("KandinskyInpaintCombinedPipeline", kandinsky1("KandinskyInpaintPipeline", {"in_channels": 9}), 1),
        {**TEXT, **SIZE, "image": picture(), "mask_image": hole(), "prior_num_inference_steps": 2},
        {"unmixed": {"mask_image": hole(whole=True)}},
    ),
    "Kandinsky3Pipeline": (kandinsky3("Kandinsky3Pipeline"), {**TEXT, **SIZE}),
    "Kandinsky3Img2ImgPipeline": (
        kandinsky3("Kandinsky3Img2ImgPipeline"),
        {**TEXT, "image": picture(), "strength": 0.8, "num_inference_steps": 4, "output_type": "pt"},
    ),
    "Kandinsky5T2IPipeline": (kandinsky5("Kandinsky5T2IPipeline"), K5),
    "Kandinsky5I2IPipeline": (kandinsky5("Kandinsky5I2IPipeline", visual=True), {**K5, "image": picture()}),
    "IFPipeline": (deepfloyd("IFPipeline"), IF),
    "IFPipeline: fixed variance": (deepfloyd("IFPipeline", learned=False), IF),
    "IFImg2ImgPipeline": (
        deepfloyd("IFImg2ImgPipeline"),
        {**IF, "image": SMALL, "strength": 0.8, "num_inference_steps": 4},
    ),
    "IFInpaintingPipeline": (
        deepfloyd("IFInpaintingPipeline"),
        {**IF, "image": SMALL, "mask_image": torch.ones(1, 1, 32, 32)},
    ),
    "IFSuperResolutionPipeline": (deepfloyd("IFSuperResolutionPipeline", above=True), {**IF, "image": SMALL}),
    "IFImg2ImgSuperResolutionPipeline": (
        deepfloyd("IFImg2ImgSuperResolutionPipeline", above=True),
        {**IF, "image": SMALL, "original_image": SMALL, "strength": 0.8, "num_inference_steps": 4},
    ),
    "IFInpaintingSuperResolutionPipeline": (
        deepfloyd("IFInpaintingSuperResolutionPipeline", above=True),
        {**IF, "image": SMALL, "original_image": SMALL, "mask_image": torch.ones(1, 1, 32, 32), "strength": 0.9},
    ),
    "LDMPipeline": (latent, {**STEPS, "output_type": "np"}, ROUNDS),
    "LDMSuperResolutionPipeline": (sharper, {"image": picture(), **STEPS, "output_type": "np"}, ROUNDS),
    "LDMTextToImagePipeline": (told_latent, {"prompt": PROMPT, **SIZE, "output_type": "np", "guidance_scale": 4.0}),
    "PNDMPipeline": (
        pixel("PNDMPipeline", lambda: diffusers.PNDMScheduler(skip_prk_steps=True)),
        {**STEPS, "output_type": "np"},
    ),
    "ConsistencyModelPipeline": (
        pixel("ConsistencyModelPipeline", diffusers.CMStochasticIterativeScheduler),
        {**STEPS, "output_type": "np"},
    ),
    "ScoreSdeVePipeline": (
        pixel("ScoreSdeVePipeline", lambda: diffusers.ScoreSdeVeScheduler()),
        {**STEPS, "output_type": "np"},
    ),
    "KarrasVePipeline": (
        pixel("KarrasVePipeline", lambda: diffusers.schedulers.KarrasVeScheduler()),
        {**STEPS, "output_type": "np"},
    ),
}
