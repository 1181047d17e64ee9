"""Parts that pipelines of videos and sounds share: networks by their configs, pictures, prompts, embeddings."""

import inspect

import diffusers
import torch
import transformers
from zoo import NEGATIVE, PROMPT, SHORT, clip_text, clip_tokenizer, picture, t5, word_tokenizer
from zoo_more import embeddings

FLOW = {"num_inference_steps": 3, "output_type": "pt"}
GUIDED = {"guidance_scale": 5.0, **FLOW}
TEXT = {"prompt": PROMPT, "negative_prompt": NEGATIVE, **GUIDED}
SMALL = {"height": 16, "width": 16, "num_frames": 9}
LARGE = {"height": 32, "width": 32, "num_frames": 9}
VIDEO = {**TEXT, **SMALL, **SHORT}
LARGER = {**TEXT, **LARGE, **SHORT}


def model(name, *, of=diffusers, **config):
    """A network of diffusers' class `name`."""
    return getattr(of, name)(**config).eval()


def lively(network, gain=2.0):
    """The network with larger weights, and with some where it begins with none: what it gives depends on its input."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1 and "gamma" not in name:
                weight.copy_(weight * gain if weight.abs().max() > 1e-3 else 0.3 * torch.randn_like(weight))
    return network


def pipeline(name, **parts):
    """The pipeline of those of the parts that it takes."""
    kind = getattr(diffusers, f"{name}Pipeline")
    named = inspect.signature(kind.__init__).parameters
    return kind(**{key: part for key, part in parts.items() if key in named})


def euler(**settings):
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


def unipc(**settings):
    """As Wan's descendants ship it."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return diffusers.UniPCMultistepScheduler(**flow | settings)


def t5s(kind="T5"):
    return {"tokenizer": word_tokenizer(), "text_encoder": t5(kind)}


def clips(folder):
    tokenizer = clip_tokenizer(folder)
    return {"tokenizer": tokenizer, "text_encoder": clip_text(tokenizer)}


NO_TEXT = {"tokenizer": None, "text_encoder": None, "tokenizer_2": None, "text_encoder_2": None}
"""Of pipelines that are called with embeddings of their prompts."""


def embedded(width, masks="attention_mask", length=8):
    """Embeddings of a prompt and of a negative one, with their masks of the name that a pipeline has for them."""
    made = {"prompt_embeds": embeddings(1, 1, length, width), "negative_prompt_embeds": embeddings(2, 1, length, width)}
    if masks:
        mask = torch.ones(1, length, dtype=torch.int64)
        made |= {f"prompt_{masks}": mask, f"negative_prompt_{masks}": mask}
    return made


def without(call, *names):
    """The arguments of a call but for those."""
    return {name: value for name, value in call.items() if name not in names}


def told(call, *more, **how):
    """A call with embeddings in place of its prompts."""
    return {**without(call, "prompt", "negative_prompt", *more), **embedded(**{"width": 32, "masks": None} | how)}


def frames(count, size=16):
    return [picture(seed).resize((size, size)) for seed in range(count)]


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def sees(size=32, width=4):
    """An encoder of pictures, and what crops them for it."""
    config = transformers.CLIPVisionConfig(
        hidden_size=width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=size,
        intermediate_size=16,
        patch_size=size // 4,
    )
    crops = transformers.CLIPImageProcessor(crop_size=size, size=size)
    return {
        "image_encoder": transformers.CLIPVisionModelWithProjection(config).eval(),
        "image_processor": crops,
        "feature_extractor": crops,
    }


def changed(network, **settings):
    """Another network of the same class, of other settings."""
    return type(network)(**{**network.config, **settings}).eval()
