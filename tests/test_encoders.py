"""Encoders of transformers: exact gradients, their own processors' pixels, and known answers, on tiny random models.

Nothing is downloaded: models are built from configs, and the folders that are loaded are saved here first.
"""

import os
import pickle
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from torch import nn

transformers = pytest.importorskip("transformers")
pytest.importorskip("diffusers")  # of the tiny pipelines

from pipelines.zoo import build, clip_tokenizer  # noqa: E402

import symguide as sg  # noqa: E402
from symguide import encoders  # noqa: E402
from symguide.encoders import (  # noqa: E402
    CLIP,
    FFHQ,
    AestheticPredictor,
    DepthEstimator,
    FaceEmbedder,
    Features,
    Processing,
    Segmenter,
)
from symguide.errors import ConfigError, WeightsError  # noqa: E402
from symguide.objectives import (  # noqa: E402
    Aesthetic,
    Depth,
    Identity,
    ImageSimilarity,
    Preprocess,
    Segmentation,
    Style,
    TextSimilarity,
)
from symguide.specs import steering  # noqa: E402

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 8,
}
TEXT = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = ["a cat", "a dog in the rain", "w1"]


def filled(network, seed=0):
    """Weights large enough that everything matters, in float64."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.data = 0.3 * noise + ("norm" in name and "weight" in name) + 0.5 * ("head.head" in name)
    return network.double().eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return clip_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def clip(tokenizer):
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = TEXT | {"vocab_size": len(tokenizer)} | ids
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
    return CLIP(filled(transformers.CLIPModel(config)), pixels_of("CLIP", 16), tokenizer, layers=[0, 1, 3])


def pixels_of(kind, size, **more):
    """An image processor, in the classes that need no torchvision."""
    module = getattr(transformers.models, {"CLIP": "clip", "Segformer": "segformer", "DPT": "dpt"}[kind])
    maker = getattr(module, f"{kind}ImageProcessorPil", None) or getattr(transformers, f"{kind}ImageProcessor")
    sides = {"shortest_edge": size} if kind == "CLIP" else {"height": size, "width": size}
    return maker(size=sides, **({"crop_size": size} if kind == "CLIP" else {}), **more)


@pytest.fixture(scope="module")
def segmenter():
    config = transformers.SegformerConfig(
        hidden_sizes=[4, 6, 8, 8],
        depths=[1] * 4,
        num_attention_heads=[1, 2, 2, 2],
        sr_ratios=[4, 2, 1, 1],
        mlp_ratios=[2] * 4,
        decoder_hidden_size=8,
        id2label={0: "wall", 1: "sky", 2: "tree"},
    )
    return Segmenter(filled(transformers.SegformerForSemanticSegmentation(config)), pixels_of("Segformer", 32))


@pytest.fixture(scope="module")
def estimator():
    config = transformers.DPTConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=4,
        hidden_act="tanh",
    )
    return DepthEstimator(filled(transformers.DPTForDepthEstimation(config)), pixels_of("DPT", 8))


@pytest.fixture(scope="module")
def anything():
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=1,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=4,
        head_hidden_size=4,
        patch_size=14,
    )
    processor = pixels_of("DPT", 28, ensure_multiple_of=14, keep_aspect_ratio=True)
    return DepthEstimator(filled(transformers.DepthAnythingForDepthEstimation(config)), processor)


class Backbone(nn.Module):
    """Changes its own activations in place, as torchvision's do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True))
        self.head, self.idle = nn.Linear(3, 3), nn.Linear(2, 2)
        self.ran = 0

    def forward(self, x):
        made = self.body(x)
        self.ran += 1
        return self.head(made.mean((2, 3))[:, :3])


BACKBONE = filled(Backbone(), 3)
FACES = filled(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, 5)), 4)


def head(width=8):
    return filled(nn.Sequential(nn.Linear(width, 4), nn.Linear(4, 1)), 5)


def samples(count=3, height=12, width=15, dtype=torch.float64, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 3, height, width, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)


SHOWN = samples(seed=1)
MASKS = torch.randint(-1, 3, (3, 12, 15), generator=torch.Generator().manual_seed(2))

MAKE = {
    "text": lambda f, rows: TextSimilarity([TEXTS[i] for i in rows], f("clip"), f("clip").tokenize),
    "image": lambda f, rows: ImageSimilarity(SHOWN[rows], f("clip")),
    "style": lambda f, rows: Style(SHOWN[rows], f("clip")),
    "style of a backbone": lambda f, rows: Style(SHOWN[rows], Features(BACKBONE, ["body.2", "body.0"])),
    "aesthetic": lambda f, rows: Aesthetic(AestheticPredictor(f("clip"), head())),
    "identity": lambda f, rows: Identity(SHOWN[rows], FaceEmbedder(FACES, 8, 0.5, 0.5, FFHQ)),
    "segmentation": lambda f, rows: Segmentation(MASKS[rows], f("segmenter")),
    "depth": lambda f, rows: Depth.of(SHOWN[rows], f("estimator")),
    "depth of Depth Anything": lambda f, rows: Depth.of(SHOWN[rows], f("anything")),
    "depth in metres": lambda f, rows: Depth.of(SHOWN[rows], f("estimator"), aligned=False),
}


@pytest.fixture
def make(request):
    return lambda name, rows: MAKE[name](request.getfixturevalue, rows)


ALL = pytest.mark.parametrize("name", MAKE)
WITH_PICTURES = pytest.mark.parametrize("name", sorted(MAKE.keys() - {"text", "aesthetic", "segmentation"}))


def gradient(objective, x0):
    leaf = x0.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf).sum(), leaf)[0]


# As objectives


@ALL
def test_gradients_are_those_of_finite_differences(name, make):
    objective, x0 = make(name, [0, 1, 2]), samples()
    exact, h = gradient(objective, x0), 1e-7  # small, for the kinks of the ReLUs in depth networks
    for seed in range(2):
        along = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
        slope = (objective(x0 + h * along) - objective(x0 - h * along)) / (2 * h)
        torch.testing.assert_close((exact * along).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-7)
    assert all(g.abs().amax() > 1e-5 for g in exact)


@ALL
def test_a_batch_is_a_loop(name, make):
    x0, whole = samples(), make(name, [0, 1, 2])
    together = gradient(whole, x0)
    for i in range(3):
        alone, one = make(name, [i]), x0[i : i + 1]
        torch.testing.assert_close(whole(x0)[i : i + 1], alone(one), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(together[i : i + 1], gradient(alone, one), rtol=1e-10, atol=1e-12)


@ALL
def test_narrow_samples_are_computed_in_float32(name, make):
    objective, x0 = make(name, [0, 1, 2]), samples(dtype=torch.bfloat16)
    loss = objective(x0)
    assert loss.dtype == torch.float32 and loss.shape == (3,)
    torch.testing.assert_close(loss.double(), objective(x0.double()), rtol=1e-3, atol=1e-4)
    assert gradient(objective, x0).dtype == torch.bfloat16


@WITH_PICTURES
def test_a_picture_is_most_like_itself(name, make):
    objective = make(name, [0, 1, 2])
    assert objective(SHOWN).abs().max() < 1e-10 and gradient(objective, SHOWN).abs().max() < 1e-6
    assert bool((objective(samples()) > 1e-6).all())


def test_networks_are_left_as_they_are(make, clip):
    model = clip.model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gradient(make("style", [0]) + make("text", [0]), samples(1, dtype=torch.float32))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None and p.dtype == torch.float64 for p in model.parameters())
    assert model.training and not any(module._forward_hooks for module in model.modules())
    model.eval()


def test_first_called_in_inference_mode_then_with_gradients(make):
    for name in ("style", "depth"):
        with torch.inference_mode():
            objective = make(name, [0])
            first = objective(samples(2))
        assert torch.equal(first, objective(samples(2))) and bool(gradient(objective, samples(2)).isfinite().all())


def test_they_guide_a_pipeline(make, tmp_path):
    """Of Stable Diffusion: through its decoder and the encoder's own preprocessing, to a lower loss."""
    torch.set_default_dtype(torch.float32)
    pipe, call = build("sd", tmp_path)
    objective = make("style", [0]) + make("text", [0])

    def loss(scale):
        generator = torch.Generator().manual_seed(0)
        with sg.guide(pipe, loss=sg.SAG(objective, n=1, scale=scale, window=(0, 1), repeats=1)):
            pictures = pipe(**call, generator=generator).images
        return float(objective(2 * pictures - 1))

    assert loss(1.0) < loss(0.0)


# Pixels


def picture(height, width):
    """Waves of 40 to 215, so that the overshoot of a bicubic resize is not cut off at black and white."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 60 * np.sin(x / 3 + k) * np.cos(y / (4 + k)) + 25 * np.sin((x + 2 * y) / (9 + k)) for k in range(3)]
    return PIL.Image.fromarray(np.stack(waves, axis=2).clip(40, 215).astype(np.uint8))


def as_sample(image):
    return torch.as_tensor(np.asarray(image) / 127.5 - 1).permute(2, 0, 1)[None]


PROCESSORS = {
    "CLIP": lambda: pixels_of("CLIP", 32),
    "CLIP, other crop": lambda: _set(pixels_of("CLIP", 40), crop_size={"height": 27, "width": 33}),
    "Segformer": lambda: pixels_of("Segformer", 32),
    "DPT": lambda: pixels_of("DPT", 48),
    "Depth Anything": lambda: pixels_of("DPT", 70, ensure_multiple_of=14, keep_aspect_ratio=True),
    "half the scale, no normalisation": lambda: pixels_of("DPT", 48, rescale_factor=1 / 127.5, do_normalize=False),
}


def levels_apart(processor, made, image):
    """The largest distance to the processor's own pixel values, in levels of 8 bits."""
    own = np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0], dtype=np.float64)
    assert made.shape[1:] == own.shape
    std = np.asarray(processor.image_std)[:, None, None] if processor.do_normalize else 1.0
    return float(np.abs((made[0].numpy() - own) * std / processor.rescale_factor).max())


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("sides", [(50, 71), (77, 50), (21, 30), (32, 32), (101, 64)])
def test_pixels_are_the_processors_own(kind, sides):
    """Up to 1.6 levels of 255: the processor rounds to whole levels after both passes of its resize, by 0.5 each; the
    second pass weighs the first one's errors, up to 1.3 in sum for a bicubic filter, and float32 does the rest."""
    processor, image = PROCESSORS[kind](), picture(*sides)
    assert levels_apart(processor, Processing(processor)(as_sample(image)), image) < 1.6


def test_the_usual_mistakes_would_be_seen():
    """Pixels in [0, 1] taken for [-1, 1] as in SAG's code, normalised twice as in TFG's, another crop or filter."""
    processor, image = pixels_of("CLIP", 32), picture(120, 170)
    right, x = Processing(processor), as_sample(image)
    wrong = {
        "units": right((x + 1) / 2),
        "twice": right(right(as_sample(image.resize((32, 32))))),
        "other figures": Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 32)(x),
        "stretched": Preprocess.clip((32, 32))(x),
        "bilinear": Preprocess(right.normalise.mean, right.normalise.std, 32, "bilinear")(x),
        "no antialias": right.normalise(nn.functional.interpolate(x, (32, 45), mode="bicubic")[..., 6:38]),
    }
    for mistake, pixels in wrong.items():
        assert levels_apart(processor, pixels, image) > 3, mistake


def test_the_processors_gradient_is_not_cut_off():
    """At black and white too, where a picture of 8 bits is clamped."""
    x = torch.ones(1, 3, 20, 20)
    assert bool((gradient(Processing(pixels_of("CLIP", 16)), x) != 0).all())


@pytest.mark.parametrize(
    "processor, why",
    [
        (lambda: nn.Identity(), "no image processor"),
        (lambda: pixels_of("DPT", 16, do_pad=True), "do_pad set"),
        (lambda: pixels_of("DPT", 16, resample=0), "resizes with 0"),
        (lambda: _set(pixels_of("CLIP", 16), size={"shortest_edge": 3, "longest_edge": 9}), "which this does not know"),
    ],
)
def test_processors_that_are_not_understood_are_refused(processor, why):
    with pytest.raises(ConfigError, match=why):
        Processing(processor())


def _set(thing, **values):
    for name, value in values.items():
        setattr(thing, name, value)
    return thing


# CLIP


def test_clips_embeddings_are_the_models_own(clip):
    x0, tokens = samples(), clip.tokenize(TEXTS)
    pixels = clip.preprocess(x0)
    with torch.no_grad():
        own = clip.model(input_ids=tokens, pixel_values=pixels)
        made, said = clip.image(x0), clip.text(tokens)
    torch.testing.assert_close(nn.functional.normalize(made), own.image_embeds)
    torch.testing.assert_close(nn.functional.normalize(said), own.text_embeds)
    loss = TextSimilarity(TEXTS, clip, clip.tokenize)(x0)
    torch.testing.assert_close(loss, 1 - (own.image_embeds * own.text_embeds).sum(1))


def test_clips_maps_are_its_hidden_states_without_the_class_token(clip):
    pixels = clip.preprocess(samples())
    hidden = clip.model.vision_model(pixels, output_hidden_states=True).hidden_states
    maps = clip.maps(samples())
    assert [m.shape for m in maps] == [(3, 16, 4, 4)] * 3
    for made, layer in zip(maps, [0, 1, 3], strict=True):
        for row, column in ((0, 0), (1, 3), (3, 2)):
            torch.testing.assert_close(made[:, :, row, column], hidden[layer][:, 1 + 4 * row + column])


def test_clips_style_is_the_published_one_up_to_scale(clip):
    """Gram matrices of the patches after block 3, as FreeDoM has them, ours over the reference's norm and squared."""
    x0, only = samples(), CLIP(clip.model, pixels_of("CLIP", 16), layers=[3])
    made, wanted = (
        clip.model.vision_model(clip.preprocess(x), output_hidden_states=True).hidden_states[3][:, 1:]
        for x in (x0, SHOWN)
    )
    published = torch.linalg.norm(made.mT @ made - wanted.mT @ wanted, dim=(1, 2))
    scale = torch.linalg.norm(wanted.mT @ wanted, dim=(1, 2))
    torch.testing.assert_close(Style(SHOWN, only)(x0), (published / scale) ** 2)


def test_maps_run_no_deeper_than_they_must(clip):
    ran = []
    hooks = [
        block.register_forward_hook(lambda *a, i=i: ran.append(i))
        for i, block in enumerate(clip.model.vision_model.encoder.layers)
    ]
    CLIP(clip.model, pixels_of("CLIP", 16), layers=[1]).maps(samples(1))
    [hook.remove() for hook in hooks]
    assert ran == [0]


def test_texts_are_the_same_alone_as_in_a_list(clip):
    together = clip.tokenize(TEXTS)
    assert together.shape == (3, 77) and torch.equal(clip.tokenize(TEXTS[1:2])[0], together[1])
    with pytest.raises(ConfigError, match="tokens and CLIP reads 77"):
        clip.tokenize(["a " * 100])


def test_a_vision_tower_alone(clip):
    whole = transformers.CLIPVisionConfig(**VISION)
    projected = CLIP(filled(transformers.CLIPVisionModelWithProjection(whole)), pixels_of("CLIP", 16))
    pixels = projected.preprocess(samples())
    torch.testing.assert_close(projected.image(samples()), projected.model(pixels).image_embeds)
    plain = CLIP(filled(transformers.CLIPVisionModel(whole)), pixels_of("CLIP", 16))
    torch.testing.assert_close(plain.image(samples()), plain.model(pixels).pooler_output)
    assert (projected.width, plain.width, clip.width) == (8, 16, 8) and plain.maps(samples())[0].shape == (3, 16, 4, 4)
    with pytest.raises(ConfigError, match="embeds no texts"):
        TextSimilarity("a cat", projected, projected.tokenize)
    with pytest.raises(ConfigError, match="embeds pictures alone"):
        projected.text(torch.ones(1, 77, dtype=torch.long))


def test_what_the_user_holds(clip, tokenizer):
    processor = transformers.CLIPProcessor(pixels_of("CLIP", 16), tokenizer)
    held = CLIP(clip.model, processor, layers=[3])
    assert torch.equal(held.image(samples()), clip.image(samples()))
    assert torch.equal(held.tokenize(TEXTS), clip.tokenize(TEXTS))
    squeezed = CLIP(clip.model, Preprocess.clip((16, 16)), layers=[3])
    margins = gradient(lambda x: squeezed.image(x).sum(1), samples(1, 8, 24))[..., 0].abs().sum()
    assert margins > 0 and gradient(lambda x: clip.image(x).sum(1), samples(1, 8, 24))[..., 0].abs().sum() == 0


@pytest.mark.parametrize(
    "make_one, why",
    [
        (lambda c: CLIP(BACKBONE, pixels_of("CLIP", 16)), "no CLIP of transformers"),
        (lambda c: CLIP(c.model, pixels_of("CLIP", 16), layers=[4]), "among 0 to 3"),
        (lambda c: CLIP(c.model, pixels_of("CLIP", 16), layers=[]), "among 0 to 3"),
        (lambda c: CLIP(c.model, pixels_of("CLIP", 8)).image(samples()), r"gives \(8, 8\) and this CLIP takes"),
        (lambda c: CLIP(c.model, pixels_of("CLIP", 16)).tokenize(["a"]), "no tokenizer"),
        (lambda c: c.image(torch.zeros(1, 1, 16, 16)), "must be"),
        (lambda c: AestheticPredictor(BACKBONE, head()), "image"),
        (lambda c: AestheticPredictor(c, head(768)), "takes embeddings of 768 numbers and the encoder makes 8"),
        (lambda c: Segmenter(BACKBONE, pixels_of("CLIP", 16)), "crops pictures"),
        (lambda c: Segmenter(BACKBONE, Preprocess.clip()), "crops pictures"),
        (lambda c: Segmenter(BACKBONE, Preprocess.imagenet())(samples()), "gives no logits"),
        (lambda c: DepthEstimator(BACKBONE, Preprocess.imagenet())(samples()), "no predicted_depth"),
        (lambda c: Features(BACKBONE, ["body.4"]), "no submodule 'body.4': the nearest are body.3"),
        (lambda c: Features(BACKBONE, []), "a list of names"),
        (lambda c: Features(BACKBONE, "body.0"), "a list of names"),
        (lambda c: Features(lambda x: x, ["a"]), "torch.nn.Module"),
        (lambda c: Features(BACKBONE, ["head"]).maps(samples()), r"output of head is \(3, 3\)"),
        (lambda c: Features(BACKBONE, ["body.0", "idle"]).maps(samples()), "has not called its submodule 'idle'"),
        (lambda c: FaceEmbedder(lambda x: x, 8, 0.5, 0.5), "torch.nn.Module"),
        (lambda c: FaceEmbedder(FACES, 8, 0.5, 0.5, (0.5, 0, 0.4, 1)), "shares from 0 to 1"),
        (lambda c: FaceEmbedder(FACES, 8, 0.5, 0.0), "positive"),
    ],
)
def test_errors_say_what_is_wrong(make_one, why, clip):
    with pytest.raises(ConfigError, match=why):
        make_one(clip)


# Other networks


def test_features_of_a_backbone():
    """As they are, though the backbone goes on to change them in place; and no further than the last of them."""
    x0, before = samples(), BACKBONE.ran
    first, second = Features(BACKBONE, ["body.2", "body.0"]).maps(x0)
    torch.testing.assert_close(second, BACKBONE.body[0](x0))
    torch.testing.assert_close(first, BACKBONE.body[2](BACKBONE.body[1](BACKBONE.body[0](x0))))
    assert bool((first < 0).any()) and BACKBONE.ran == before
    assert not any(module._forward_hooks for module in BACKBONE.modules())


def test_hooks_are_removed_where_the_backbone_fails():
    with pytest.raises(RuntimeError):
        Features(BACKBONE, ["body.2"]).maps(torch.zeros(1, 4, 12, 15))
    assert not any(module._forward_hooks for module in BACKBONE.modules())


def test_an_aesthetic_head_by_hand(clip, tmp_path):
    """LAION's files: one linear layer, or five with dropouts between that do nothing; no activations."""
    torch.manual_seed(0)
    direction = nn.functional.normalize(clip.image(samples()))
    linear = {"weight": torch.randn(1, 8), "bias": torch.randn(1)}
    safetensors.torch.save_file(linear, tmp_path / "linear.safetensors")
    predictor = AestheticPredictor.from_safetensors(clip, tmp_path / "linear.safetensors")
    expected = direction @ linear["weight"].mT + linear["bias"]
    torch.testing.assert_close(predictor(samples()), expected)
    torch.testing.assert_close(Aesthetic(predictor)(samples()), -expected[:, 0])
    widths, deep, expected = [8, 10, 6, 5, 4, 1], {}, direction
    for at, i in enumerate((0, 2, 4, 6, 7)):
        weight, bias = torch.randn(widths[at + 1], widths[at]), torch.randn(widths[at + 1])
        deep |= {f"layers.{i}.weight": weight, f"layers.{i}.bias": bias}
        expected = expected @ weight.mT + bias
    safetensors.torch.save_file(deep, tmp_path / "deep.safetensors")
    torch.testing.assert_close(
        AestheticPredictor.from_safetensors(clip, tmp_path / "deep.safetensors")(samples()), expected
    )
    safetensors.torch.save_file(deep | linear, tmp_path / "both.safetensors")
    with pytest.raises(WeightsError, match="as a module of yours"):
        AestheticPredictor.from_safetensors(clip, tmp_path / "both.safetensors")
    safetensors.torch.save_file(linear | {"weight": torch.zeros(2, 8)}, tmp_path / "two.safetensors")
    with pytest.raises(WeightsError, match="more than one number"):
        AestheticPredictor.from_safetensors(clip, tmp_path / "two.safetensors")


def test_pickles_are_never_opened(clip, tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    (tmp_path / "head.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError, match="save_file"):
        AestheticPredictor.from_safetensors(clip, tmp_path / "head.pth")
    with pytest.raises(WeightsError, match="cannot read"):
        AestheticPredictor.from_safetensors(clip, tmp_path / "none.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_faces_are_cropped_resized_and_normalised():
    x = samples(1, 256, 256)
    seen = FaceEmbedder(nn.Identity(), 112, 0.5, 0.5, FFHQ)(x)
    face = as_8bit(x)[35:223, 32:220]
    pillow = np.asarray(PIL.Image.fromarray(face).resize((112, 112), PIL.Image.Resampling.BILINEAR)) / 127.5 - 1
    assert np.abs(seen[0].permute(1, 2, 0).numpy() - pillow).max() * 127.5 < 1.6  # rounded to levels three times
    half = FaceEmbedder(nn.Identity(), (6, 6), (0.1, 0.2, 0.3), 2.0)(x[..., :6, :6])
    torch.testing.assert_close(half[:, 1], ((x[:, 1, :6, :6] + 1) / 2 - 0.2) / 2)


def as_8bit(x):
    return ((x[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)


def test_logits_and_depth_are_those_that_the_processors_make_of_them(segmenter, estimator):
    x0 = samples()
    out = segmenter.model(segmenter.preprocess(x0))
    labels = pixels_of("Segformer", 32).post_process_semantic_segmentation(out, target_sizes=[(12, 15)] * 3)
    assert torch.equal(segmenter(x0).argmax(1), torch.stack(list(labels)))
    assert segmenter.classes == {"wall": 0, "sky": 1, "tree": 2}
    out = estimator.model(estimator.preprocess(x0))
    depth = pixels_of("DPT", 8).post_process_depth_estimation(out, target_sizes=[(12, 15)] * 3)
    torch.testing.assert_close(estimator(x0), torch.stack([each["predicted_depth"] for each in depth]))


# Depth


def test_depth_by_hand():
    depth, reference = torch.rand(3, 4, 5), torch.rand(3, 4, 5)
    expected = [1 - np.corrcoef(d.flatten(), r.flatten())[0, 1] for d, r in zip(depth, reference, strict=True)]
    assert np.allclose(Depth(reference, nn.Identity())(depth), expected)
    assert np.allclose(Depth(7 * reference + 3, nn.Identity())(0.1 * depth - 5), expected)
    torch.testing.assert_close(Depth(reference, nn.Identity())(-reference), torch.full((3,), 2.0))
    standard = [(d - d.mean((1, 2), True)) / d.std((1, 2), keepdim=True, unbiased=False) for d in (depth, reference)]
    assert np.allclose(expected, ((standard[0] - standard[1]) ** 2).mean((1, 2)) / 2)
    plain = Depth(reference, nn.Identity(), aligned=False)
    torch.testing.assert_close(plain(depth[:, None]), ((depth - reference) ** 2).mean((1, 2)))


def test_flat_depth():
    flat = torch.zeros(1, 4, 5)
    assert Depth(torch.rand(4, 5), nn.Identity())(flat) == 1
    assert bool(gradient(Depth(torch.rand(4, 5), nn.Identity()), flat).isfinite().all())
    for reference, why in ((flat, "flat"), (flat.long(), "floats"), (flat[None], "floats"), ("a.npy", "floats")):
        with pytest.raises(ConfigError, match=why):
            Depth(reference, nn.Identity())
    with pytest.raises(ConfigError, match="both must be"):
        Depth(torch.rand(4, 4), nn.Identity())(flat)
    assert Depth(flat, nn.Identity(), aligned=False)(flat) == 0


# Loading


@pytest.fixture(scope="module")
def saved(tmp_path_factory, clip, segmenter, estimator, tokenizer):
    root = tmp_path_factory.mktemp("saved")
    clip.model.save_pretrained(root / "clip")
    tokenizer.save_pretrained(root / "clip")
    pixels_of("CLIP", 16).save_pretrained(root / "clip")
    segmenter.model.save_pretrained(root / "segmenter")
    pixels_of("Segformer", 32).save_pretrained(root / "segmenter")
    estimator.model.save_pretrained(root / "depth")
    pixels_of("DPT", 8).save_pretrained(root / "depth")
    return root


def test_from_a_folder(saved, clip, segmenter, estimator):
    x0 = samples()
    loaded = CLIP.from_pretrained(saved / "clip", layers=[0, 1, 3], local_files_only=True).double()
    assert torch.equal(loaded.tokenize(TEXTS), clip.tokenize(TEXTS))
    torch.testing.assert_close(loaded.image(x0), clip.image(x0))
    torch.testing.assert_close(loaded.text(loaded.tokenize(TEXTS)), clip.text(clip.tokenize(TEXTS)))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    tower = CLIP.from_pretrained(saved / "clip", text=False).double()
    torch.testing.assert_close(tower.image(x0), clip.image(x0))
    torch.testing.assert_close(Segmenter.from_pretrained(saved / "segmenter").double()(x0), segmenter(x0))
    torch.testing.assert_close(DepthEstimator.from_pretrained(saved / "depth").double()(x0), estimator(x0))
    for name, kind in (("clip", CLIP), ("segmenter", Segmenter), ("depth", DepthEstimator)):
        assert type(encoders.load(saved / name)) is kind


def test_folders_that_cannot_be_used(saved, tmp_path):
    with pytest.raises(WeightsError, match=r"no folder here, from the hub .*hf download openai/clip"):
        CLIP.from_pretrained("openai/clip-vit-base-patch32-that-is-not-here")
    with pytest.raises(WeightsError, match="give what save_pretrained wrote"):
        encoders.load(tmp_path)
    with pytest.raises(WeightsError, match="AutoModelForSemanticSegmentation"):
        Segmenter.from_pretrained(saved / "clip")
    with pytest.raises(WeightsError, match="has no weights for"):
        CLIP.from_pretrained(_without(saved / "clip", tmp_path / "part", "visual_projection"))
    transformers.BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "words")
    with pytest.raises(ConfigError, match="holds BertModel"):
        encoders.load(tmp_path / "words")


def _without(folder, target, part):
    """A copy of a model's folder whose file lacks some weights."""
    target.mkdir()
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    kept = {k: v for k, v in safetensors.torch.load_file(folder / "model.safetensors").items() if part not in k}
    safetensors.torch.save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_weights_that_dpt_never_uses_may_be_missing(saved, estimator, tmp_path):
    """As they are in Intel's folders."""
    folder = _without(saved / "depth", tmp_path / "depth", "fusion_stage.layers.0.residual_layer1")
    torch.testing.assert_close(DepthEstimator.from_pretrained(folder).double()(samples()), estimator(samples()))


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_transformers_and_diffusers_are_imported_when_they_are_needed_and_not_before():
    code = (
        "import sys, symguide, symguide.encoders, symguide.pipelines, symguide.specs.kinds, symguide.cli.pipeline\n"
        "assert not {'transformers', 'diffusers', 'accelerate', 'torchvision'} & set(sys.modules)"
    )
    assert _run(code).returncode == 0


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r'pip install "symguide\[encoders\]"'):
        CLIP.from_pretrained("anywhere")


# The command line


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(as_8bit(SHOWN)).save("ref.png")
    PIL.Image.fromarray(np.eye(12, 15, dtype=np.uint8)).save("mask.png")
    weights = {"weight": torch.ones(1, 8), "bias": torch.zeros(1)}
    safetensors.torch.save_file(weights, "head.safetensors")
    return tmp_path


def test_specs_ask_the_encoders(files, clip, segmenter, estimator):
    x0, reference = samples(), as_sample(PIL.Image.open("ref.png"))
    mask = torch.eye(12, 15).long()
    expected = {
        "text:a cat,w1": TextSimilarity(["a cat", "w1", "a cat"], clip, clip.tokenize),
        "image:ref.png": ImageSimilarity(reference, clip),
        "style:ref.png": Style(reference, clip),
        "aesthetic:head.safetensors": Aesthetic(AestheticPredictor.from_safetensors(clip, "head.safetensors")),
        "segmentation:mask.png": Segmentation(mask, segmenter),
        "depth:ref.png": Depth.of(reference, estimator),
    }
    for spec, objective in expected.items():
        asked = getattr(objective.network.network, "encoder", objective.network.network)
        steer = steering.Steering(spec, "mine", (3, 12, 15), encoders=[asked])
        torch.testing.assert_close(steer.at(range(3))(x0), objective(x0))
    both = steering.Steering("text:w1 + 2*depth:ref.png", "mine", (3, 12, 15), encoders=[estimator, clip])
    text = TextSimilarity("w1", clip, clip.tokenize)
    torch.testing.assert_close(both.at(range(3))(x0), text(x0) + 2 * expected["depth:ref.png"](x0))


@pytest.mark.parametrize(
    "spec, shape, why",
    [
        ("palette:#ff0000", (3, 12, 15), "no objective here asks the CLIP"),
        ("aesthetic", (3, 12, 15), "must be aesthetic, by the embedded predictor, or"),
        ("segmentation:mask.png", (3, 12, 15), "give a Segmenter with --encoder FOLDER_OR_ID, or write a function"),
        ("depth:ref.png", (3, 12, 15), "give a DepthEstimator with --encoder"),
        ("text:a cat", (1, 8, 8), "encoders see RGB pictures"),
    ],
)
def test_specs_that_do_not_fit_their_encoder(files, clip, spec, shape, why):
    with pytest.raises(ConfigError, match=why):
        steering.Steering(spec, "mine", shape, encoders=[clip])


def test_a_run_with_an_encoder(files, saved):
    """Twice the same, and its config has the encoder."""
    from click.testing import CliRunner

    from symguide.cli import main

    line = ["sample", "--num", "2", "--steps", "2", "--n", "1", "--model", "scenes", "--out", "one"]
    line += ["--objective", "text:a cat", "--encoder", str(saved / "clip")]
    torch.set_default_dtype(torch.float32)
    first = CliRunner().invoke(main, line)
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(main, ["sample", "--config", "one/config.yaml", "--out", "two"])
    assert again.exit_code == 0, again.output
    for name in ("000000.png", "000001.png"):
        assert (files / "one/samples" / name).read_bytes() == (files / "two/samples" / name).read_bytes()
    config = (files / "one/config.yaml").read_text()
    assert f"- {saved / 'clip'}" in config and f"{saved / 'clip' / 'model.safetensors'}:" in config
