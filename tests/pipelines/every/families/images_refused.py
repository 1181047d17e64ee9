"""Image pipelines whose sampler guide does not know: refused where it is entered, so their parts are left out."""

import inspect

import diffusers

ENTRY = {"entry": True}


def bare(name, **given):
    """A builder of a pipeline with these parts alone."""

    def make(folder):
        kind = getattr(diffusers, name)
        named = inspect.signature(kind.__init__).parameters
        made = {key: part() for key, part in given.items()}
        empty = {key: None for key, p in named.items() if key != "self" and p.default is p.empty and key not in made}
        return kind(**empty, **made)

    return make


def unclip():
    return diffusers.UnCLIPScheduler()


def paella():
    return diffusers.DDPMWuerstchenScheduler()


def discrete():
    return diffusers.VQDiffusionScheduler(num_vec_classes=4)


def amused():
    return diffusers.AmusedScheduler(mask_token_id=4)


CASES = {
    **{name: (bare(name, scheduler=amused), {}, ENTRY) for name in ("AmusedPipeline", "AmusedImg2ImgPipeline")},
    "AmusedInpaintPipeline": (bare("AmusedInpaintPipeline", scheduler=amused), {}, ENTRY),
    "VQDiffusionPipeline": (bare("VQDiffusionPipeline", scheduler=discrete), {}, ENTRY),
    "RePaintPipeline": (bare("RePaintPipeline", scheduler=diffusers.RePaintScheduler), {}, ENTRY),
    "UnCLIPPipeline": (bare("UnCLIPPipeline", decoder_scheduler=unclip), {}, ENTRY),
    "UnCLIPImageVariationPipeline": (bare("UnCLIPImageVariationPipeline", decoder_scheduler=unclip), {}, ENTRY),
    **{
        name: (bare(name, scheduler=paella), {}, ENTRY)
        for name in (
            "WuerstchenDecoderPipeline",
            "WuerstchenPriorPipeline",
            "StableCascadeDecoderPipeline",
            "StableCascadePriorPipeline",
        )
    },
    "WuerstchenCombinedPipeline": (bare("WuerstchenCombinedPipeline", scheduler=paella), {}, ENTRY),
    "StableCascadeCombinedPipeline": (bare("StableCascadeCombinedPipeline", scheduler=paella), {}, ENTRY),
    "FluxPriorReduxPipeline": (bare("FluxPriorReduxPipeline"), {}, ENTRY),
}
LEFT_OUT = {
    "AltDiffusionImg2ImgPipeline": "Stable Diffusion with another text encoder, deprecated: see its Img2Img",
    "AltDiffusionPipeline": "Stable Diffusion with another text encoder, deprecated",
    "BlipDiffusionControlNetPipeline": "needs the tokenizer and vocabulary of BLIP-2, deprecated",
    "BlipDiffusionPipeline": "needs the tokenizer and vocabulary of BLIP-2, deprecated",
    "BriaFibo2Pipeline": "needs the processor of Qwen3-VL, which is on the hub alone",
    "OmniGenPipeline": "needs torchvision; its noise levels rise, which guide refuses",
    "VersatileDiffusionDualGuidedPipeline": "fails by itself in this diffusers, deprecated",
    "VersatileDiffusionPipeline": "no pipeline of its own: it makes the three others, deprecated",
}
