"""diffusers pipelines of every family, with tiny random weights, built from configs alone: nothing is downloaded.

    pipe, call = build("sdxl")      # the pipeline, and the arguments of a short run of it

Random weights show that the plumbing is right and gradients exact, not how pictures look.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import diffusers
import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

PROMPT, NEGATIVE = "w1 a cat", "w2"
BLOCKS = {
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SIZE = {"height": 32, "width": 32, "num_inference_steps": 3, "output_type": "pt"}
NEWEST = Version("0.42")
"""The diffusers that has all classes here: only an older one may lack some."""
UNPACKED = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.06, "scaling_factor": 1.5}


def clip_tokenizer(folder):
    """Bytes as words: all that a CLIP tokenizer needs."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
    return transformers.CLIPTokenizer.from_pretrained(folder)


def word_tokenizer():
    """A T5 tokenizer's stand-in."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{i}": i + 3 for i in range(200)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    given = {"model_input_names": ["input_ids", "attention_mask"]}  # T5 takes no token types
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, **names, **given)


def clip_text(tokenizer, kind=transformers.CLIPTextModel):
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def t5(kind="T5"):
    sizes = {"vocab_size": 203, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return getattr(transformers, f"{kind}EncoderModel")(getattr(transformers, f"{kind}Config")(**sizes)).eval()


def autoencoder(channels=4, blocks=(16, 32), **more):
    return diffusers.AutoencoderKL(
        block_out_channels=blocks,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=32,
        **more,
    ).eval()


def unet(**more):
    settings = {"cross_attention_dim": 32, "attention_head_dim": 4} | more
    return diffusers.UNet2DConditionModel(sample_size=16, **BLOCKS | settings).eval()


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def hole(whole=False):
    mask = np.full((32, 32), 255 if whole else 0, np.uint8)
    mask[:, 16:] = 255
    return Image.fromarray(mask)


def sd(folder, name="StableDiffusionPipeline", predicts="epsilon", network=None, **more):
    tokenizer = clip_tokenizer(folder)
    return getattr(diffusers, name)(
        vae=autoencoder(),
        text_encoder=clip_text(tokenizer),
        tokenizer=tokenizer,
        unet=unet(**network or {}),
        scheduler=diffusers.DDIMScheduler(**BETAS, prediction_type=predicts, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **more,
    )


XL = {
    "cross_attention_dim": 64,
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 1),
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
}


def sdxl(folder, name="StableDiffusionXLPipeline", network=None, **more):
    tokenizer = clip_tokenizer(folder)
    return getattr(diffusers, name)(
        vae=autoencoder(),
        text_encoder=clip_text(tokenizer),
        text_encoder_2=clip_text(tokenizer, transformers.CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet(**XL | (network or {})),
        scheduler=diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
        **more,
    )


SD3 = {
    "sample_size": 16,
    "patch_size": 1,
    "in_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "caption_projection_dim": 32,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 64,
    "out_channels": 4,
    "pos_embed_max_size": 32,
}


def sd3(folder, name="StableDiffusion3Pipeline", channels=4, **more):
    tokenizer = clip_tokenizer(folder)
    transformer = diffusers.SD3Transformer2DModel(**SD3 | {"in_channels": channels, "out_channels": channels})
    text, other = (clip_text(tokenizer, transformers.CLIPTextModelWithProjection) for _ in range(2))
    return getattr(diffusers, name)(
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(channels, **UNPACKED),
        text_encoder=text,
        text_encoder_2=other,
        text_encoder_3=t5(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=word_tokenizer(),
        **more,
    )


FLUX = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": [4, 4, 8],
}


def flux(folder, name="FluxPipeline", network=None, **more):
    tokenizer = clip_tokenizer(folder)
    transformer = diffusers.FluxTransformer2DModel(**FLUX | (network or {}))
    return getattr(diffusers, name)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(**UNPACKED),
        text_encoder=clip_text(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=t5(),
        tokenizer_2=word_tokenizer(),
        transformer=transformer.eval(),
        **more,
    )


def dit(folder):
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=4,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return diffusers.DiTPipeline(transformer=transformer.eval(), vae=autoencoder(), scheduler=scheduler)


def pixels(folder, name="DDIM"):
    network = diffusers.UNet2DModel(
        sample_size=16,
        **BLOCKS
        | {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
    )
    scheduler = getattr(diffusers, f"{name}Scheduler")(clip_sample=False)
    return getattr(diffusers, f"{name}Pipeline")(network.eval(), scheduler)


def pixart(folder, name="PixArtAlphaPipeline", **more):
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    return getattr(diffusers, name)(
        tokenizer=word_tokenizer(),
        text_encoder=t5(),
        vae=autoencoder(),
        transformer=transformer.eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
        **more,
    )


def sana(folder, name="SanaPipeline", **more):
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=32,
        sample_size=16,
        patch_size=1,
    )
    vae = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.4,
    )
    return getattr(diffusers, name)(
        tokenizer=word_tokenizer(),
        text_encoder=t5(),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        **more,
    )


def wan(folder, two=False):
    def transformer():
        return diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=256,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        ).eval()

    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    more = {"transformer_2": transformer(), "boundary_ratio": 0.9} if two else {}
    return diffusers.WanPipeline(
        tokenizer=word_tokenizer(),
        text_encoder=t5("UMT5"),
        vae=vae.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=transformer(),
        **more,
    )


def animatediff(folder):
    tokenizer = clip_tokenizer(folder)
    adapter = diffusers.MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=4
    )
    return diffusers.AnimateDiffPipeline(
        vae=autoencoder(),
        text_encoder=clip_text(tokenizer),
        tokenizer=tokenizer,
        unet=unet(),
        motion_adapter=adapter,
        scheduler=diffusers.DDIMScheduler(**BETAS | {"beta_schedule": "linear"}, clip_sample=False),
    )


def ltx(folder):
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=32,
    )
    scales = (True, True, False, False)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=scales,
        decoder_spatio_temporal_scaling=scales,
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    ).eval()
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return diffusers.LTXPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=t5(),
        tokenizer=word_tokenizer(),
        transformer=transformer.eval(),
    )


def cogvideox(folder):
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=16,
    )
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return diffusers.CogVideoXPipeline(
        tokenizer=word_tokenizer(),
        text_encoder=t5(),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )


def control(network=None, kind="ControlNetModel", **more):
    """A ControlNet of a U-Net, or of what else its class is made from."""
    made = getattr(diffusers, kind).from_unet(network or unet(), conditioning_embedding_out_channels=(8, 8), **more)
    return awake(made)


def awake(network):
    """The network with all weights random: layers that begin at zero would control nothing."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def with_lora(pipe):
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    return pipe


def with_picture_prompt(pipe, cross, seen=32):
    """The pipeline with an IP-Adapter that takes picture embeddings of `seen` numbers."""
    sizes = dict(zip(("down_blocks.0", "down_blocks.1"), pipe.unet.config.block_out_channels, strict=True))
    sizes |= dict(zip(("up_blocks.1", "up_blocks.0"), pipe.unet.config.block_out_channels, strict=True))
    layers = [name for name in pipe.unet.attn_processors if "attn2" in name]
    adapter = {}
    for place, name in enumerate(layers):
        size = sizes.get(name[: name.index(".", name.index(".") + 1)], pipe.unet.config.block_out_channels[-1])
        for which in ("k", "v"):
            adapter[f"{2 * place + 1}.to_{which}_ip.weight"] = 0.3 * torch.randn(size, cross)
    projection = {
        "proj.weight": 0.3 * torch.randn(4 * cross, seen),
        "proj.bias": torch.zeros(4 * cross),
        "norm.weight": torch.ones(cross),
        "norm.bias": torch.zeros(cross),
    }
    weights = [{"image_proj": projection, "ip_adapter": adapter}]
    pipe.unet._load_ip_adapter_weights(weights, low_cpu_mem_usage=False)
    return pipe


SEEN = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(0))  # of no picture, and of a picture
TEXT = {"prompt": PROMPT, "guidance_scale": 5.0, **SIZE}
SHORT = {"max_sequence_length": 16}
VIDEO = {"negative_prompt": NEGATIVE, "height": 16, "width": 16, "num_frames": 9}

FAMILIES = {
    "sd": (sd, {**TEXT, "negative_prompt": NEGATIVE}),
    "sd-v-rescale": (lambda f: sd(f, predicts="v_prediction"), {**TEXT, "guidance_rescale": 0.7}),
    "sd-unguided": (sd, {**TEXT, "guidance_scale": 1.0}),
    "sd-img2img": (
        lambda f: sd(f, "StableDiffusionImg2ImgPipeline"),
        {"prompt": PROMPT, "image": picture(), "strength": 0.8, "num_inference_steps": 4, "output_type": "pt"},
    ),
    "sd-inpaint": (
        lambda f: sd(f, "StableDiffusionInpaintPipeline"),
        {**TEXT, "image": picture(), "mask_image": hole()},
    ),
    "sd-inpaint-9": (
        lambda f: sd(f, "StableDiffusionInpaintPipeline", network={"in_channels": 9}),
        {**TEXT, "image": picture(), "mask_image": hole()},
    ),
    "sd-controlnet": (
        lambda f: sd(f, "StableDiffusionControlNetPipeline", controlnet=control()),
        {**TEXT, "image": picture()},
    ),
    "sd-lora": (lambda f: with_lora(sd(f)), TEXT),
    "sd-ip-adapter": (lambda f: with_picture_prompt(sd(f), 32), {**TEXT, "ip_adapter_image_embeds": [SEEN]}),
    "sdxl": (sdxl, TEXT),
    "sdxl-ip-adapter": (lambda f: with_picture_prompt(sdxl(f), 64), {**TEXT, "ip_adapter_image_embeds": [SEEN]}),
    "sdxl-img2img": (
        lambda f: sdxl(f, "StableDiffusionXLImg2ImgPipeline"),
        {"prompt": PROMPT, "image": picture(), "strength": 0.8, "num_inference_steps": 4, "output_type": "pt"},
    ),
    "sdxl-inpaint": (
        lambda f: sdxl(f, "StableDiffusionXLInpaintPipeline", network={"in_channels": 9}),
        {**TEXT, "image": picture(), "mask_image": hole(), "strength": 1.0},
    ),
    "sdxl-controlnet": (
        lambda f: sdxl(f, "StableDiffusionXLControlNetPipeline", controlnet=control(unet(**XL))),
        {**TEXT, "image": picture()},
    ),
    "sdxl-lora": (lambda f: with_lora(sdxl(f)), TEXT),
    "sana": (
        sana,
        {
            **TEXT,
            "negative_prompt": NEGATIVE,
            "use_resolution_binning": False,
            "complex_human_instruction": None,
            **SHORT,
        },
    ),
    "sd3": (sd3, {**TEXT, **SHORT}),
    "flux": (flux, {"prompt": PROMPT, **SIZE, **SHORT}),
    "flux-distilled": (
        lambda f: flux(f, network={"guidance_embeds": True}),
        {"prompt": PROMPT, "guidance_scale": 3.5, **SIZE, **SHORT},
    ),
    "flux-cfg": (
        flux,
        {"prompt": PROMPT, "negative_prompt": NEGATIVE, "true_cfg_scale": 3.0, **SIZE, **SHORT},
    ),
    "dit": (dit, {"class_labels": [1, 2], "guidance_scale": 4.0, "num_inference_steps": 3, "output_type": "pt"}),
    "dit-unguided": (
        dit,
        {"class_labels": [1, 1], "guidance_scale": 1.0, "num_inference_steps": 3, "output_type": "pt"},
    ),
    "ddim": (pixels, {"batch_size": 2, "num_inference_steps": 3, "output_type": "np"}),
    "ddpm": (lambda f: pixels(f, "DDPM"), {"batch_size": 2, "num_inference_steps": 3, "output_type": "np"}),
    "pixart": (pixart, {**TEXT, "use_resolution_binning": False, **SHORT}),
    "animatediff": (animatediff, {**TEXT, "num_frames": 4}),
    "cogvideox": (cogvideox, {**TEXT, **VIDEO, **SHORT}),
    "ltx": (ltx, {**TEXT, "negative_prompt": NEGATIVE, "num_frames": 9, **SHORT}),
    "wan": (wan, {**TEXT, **VIDEO, **SHORT}),
    "wan-two": (lambda f: wan(f, two=True), {**TEXT, **VIDEO, **SHORT}),
}
"""How each family is built, in a folder for its tokenizer, and called."""


def build(name, folder):
    """A family's pipeline, always with the same weights, and the arguments of its call."""
    make, call = FAMILIES[name]
    return built(make, folder), dict(call)


def built(make, folder):
    """A pipeline by its builder; the test is skipped where the installed diffusers has none, or cannot run it."""
    torch.manual_seed(0)
    try:
        pipe = make(Path(folder) / "tokenizer")
    except AttributeError as error:
        if Version(diffusers.__version__) < NEWEST and str(error).startswith("module diffusers has no attribute"):
            pytest.skip(f"diffusers {diffusers.__version__}: {error}")
        raise
    if torch.__version__ < (2, 5) and (why := of_torch_2_5(pipe)):
        pytest.skip(f"diffusers {diffusers.__version__} cannot run this with torch {torch.__version__}: {why}")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def of_torch_2_5(pipe):
    """What a pipeline takes of torch 2.5 without asking which torch there is; None where it takes nothing."""
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    files = [sys.modules[type(module).__module__] for network in networks for module in network.modules()]
    if any(hasattr(file, "dispatch_attention_fn") for file in files):
        return "it hands enable_gqa to attention"
    return "it asks torch.cpu for an OutOfMemoryError" if type(pipe).__name__.startswith("Sana") else None


def draw(pipe, call, seed=0):
    """What the pipeline draws, as one tensor."""
    out = next(iter(pipe(**call, generator=torch.Generator().manual_seed(seed)).values()))
    return torch.stack(list(out)) if isinstance(out, list) else torch.as_tensor(out)


def double(pipe):
    """All weights in float64, and what is made anew too, until the test ends."""
    torch.set_default_dtype(torch.float64)
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.double()


def bright(x0):
    """Squared distance to a light grey, (B,)."""
    return (x0 - 0.7).square().flatten(1).mean(dim=1)
