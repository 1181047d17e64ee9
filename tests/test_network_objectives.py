"""Objectives with a network inside, on tiny random networks; the laws that they share are in tests/laws."""

import ast
from pathlib import Path

import pytest
import torch
from cases import CLASSIFIER, MASKS, PIXELS, SCORE, SHOWN, TEXTS, TWIN, WHO, of
from torch import nn

import symguide as sg
from symguide.errors import ConfigError
from symguide.networks import TokenClassifier
from symguide.objectives import Aesthetic, Classifier, Identity, ImageSimilarity, Segmentation, Style, TextSimilarity
from symguide.objectives.base import Follower
from symguide.worlds import WORLDS, World, scenes, scorers
from symguide.worlds.scenes import tokens


class Wrong(nn.Module):
    """Gives what no objective can use."""

    def forward(self, x):
        return x

    image = maps = forward


NETWORKS = {"classifier": CLASSIFIER, "clip": TWIN, "identity": WHO, "aesthetic": SCORE, "segmenter": PIXELS}

NAMES = ("classifier", "style", "text", "image", "identity", "aesthetic", "segmentation")
MAKE = {case.id: case.make for case in of("objective", where=lambda case: case.name in NAMES)}
ALL = pytest.mark.parametrize("name", MAKE)
WITH_PICTURES = pytest.mark.parametrize("name", ["style", "style-layer", "image", "identity"])


def samples(count=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(9)
    return (torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)


def gradient(objective, x0):
    leaf = x0.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf).sum(), leaf)[0]


@ALL
def test_first_called_in_inference_mode_then_with_gradients(name):
    objective, x0 = MAKE[name]([0]), samples(2)
    with torch.inference_mode():
        first = objective(samples(2))
    assert torch.equal(first, objective(x0)) and bool(gradient(objective, x0).isfinite().all())


@ALL
def test_made_in_inference_mode(name):
    """As in an application that wraps all it does, where gradients are wanted later."""
    with torch.inference_mode():
        objective = MAKE[name]([0])
    assert torch.equal(gradient(objective, samples(2)), gradient(MAKE[name]([0]), samples(2)))


@WITH_PICTURES
def test_a_picture_is_most_like_itself(name):
    """No loss and no gradient there, and not NaN as a norm's would be."""
    objective = MAKE[name]([0])
    assert objective(SHOWN[:1]).abs() < 1e-12
    assert gradient(objective, SHOWN[:1]).abs().amax() < 1e-7
    assert bool((objective(samples()) > 1e-4).all())


# Each by hand


def test_style_by_hand():
    x0 = samples()
    expected = torch.zeros(3)
    for made, wanted in zip(CLASSIFIER.maps(x0), CLASSIFIER.maps(SHOWN), strict=True):
        for i in range(3):
            a, b = (torch.einsum("chw,dhw->cd", m[i], m[i]) / m[i].numel() for m in (made, wanted))
            expected[i] += torch.dist(a, b) ** 2 / b.norm() ** 2
    torch.testing.assert_close(MAKE["style"]([0, 1, 2])(x0), expected)


def test_style_does_not_know_where_things_are():
    class Pixels(nn.Module):
        def maps(self, x):
            return [x]

    shuffled = SHOWN[:1].flatten(2)[..., torch.randperm(64)].reshape(1, 3, 8, 8)
    assert Style(SHOWN[0], Pixels())(shuffled) < 1e-20
    wide = Style(SHOWN[0].repeat(1, 2, 3), Pixels())  # a reference of another size
    assert wide(SHOWN[:1]) < 1e-20


def test_similarity_by_hand():
    x0 = samples()
    text = 1 - torch.cosine_similarity(TWIN.image(x0), TWIN.text(tokens(TEXTS)))
    torch.testing.assert_close(MAKE["text"]([0, 1, 2])(x0), text)
    torch.testing.assert_close(TextSimilarity(tokens(TEXTS), TWIN)(x0), text)
    torch.testing.assert_close(TextSimilarity(tokens(TEXTS[0])[0], TWIN)(x0[:1]), text[:1])
    image = 1 - torch.cosine_similarity(TWIN.image(x0), TWIN.image(SHOWN))
    torch.testing.assert_close(MAKE["image"]([0, 1, 2])(x0), image)
    identity = 1 - torch.cosine_similarity(WHO(x0.flip(-1) / 2), WHO(SHOWN.flip(-1) / 2))
    torch.testing.assert_close(MAKE["identity"]([0, 1, 2])(x0), identity)


def test_scores_by_hand():
    x0 = samples()
    assert torch.equal(Aesthetic(SCORE)(x0), -SCORE(x0)[:, 0])
    logp, loss = PIXELS(x0).log_softmax(1), MAKE["segmentation"]([0, 1, 2])(x0)
    for i in range(3):
        known = [-logp[i, MASKS[i, h, w], h, w] for h in range(8) for w in range(8) if MASKS[i, h, w] >= 0]
        torch.testing.assert_close(loss[i], torch.stack(known).mean())
    shapes = CLASSIFIER.split(CLASSIFIER(x0))["shape"].log_softmax(1)
    assert torch.allclose(MAKE["classifier"]([0, 1, 2])(x0), -shapes[[0, 1, 2], [0, 3, 5]])


def test_they_guide():
    denoiser = sg.GaussianDenoiser(torch.zeros(3, 8, 8), torch.eye(192))
    objective = Style(SHOWN[0], CLASSIFIER) + 0.1 * TextSimilarity("a red star", TWIN, tokens)
    free = sg.sample(denoiser, batch=8, steps=8).samples
    steered = sg.sample(denoiser, batch=8, steps=8, loss=sg.SAG(objective, n=2, scale=0.2)).samples
    assert objective(steered).mean() < 0.8 * objective(free).mean()


WORLDLY = {
    "classifier": (lambda f, *a: Classifier(f("classifier"), *a, head="shape"), [1], {"head": "shape"}),
    "text": (lambda f, *a: TextSimilarity(*a, f("clip"), tokens), ["a red star"], {}),
    "image": (lambda f, *a: ImageSimilarity(*a, f("clip")), [SHOWN[0]], {}),
    "identity": (lambda f, *a: Identity(*a, f("identity")), [SHOWN[0]], {}),
    "style": (lambda f, *a: Style(*a, f("classifier"), layers=[1]), [SHOWN[0]], {"layers": [1]}),
    "aesthetic": (lambda f: Aesthetic(f("aesthetic")), [], {}),
    "segmentation": (lambda f, *a: Segmentation(*a, f("segmenter")), [MASKS[0]], {}),
}
NAMED = {"text": TextSimilarity, "image": ImageSimilarity, "identity": Identity, "style": Style}
NAMED |= {"aesthetic": Aesthetic, "segmentation": Segmentation}


@pytest.fixture
def small_world(monkeypatch, tmp_path):
    """The networks of this file as those of scenes."""
    world = World("small", tmp_path, {kind: tmp_path / kind for kind in NETWORKS}, shapes=((3, 8, 8), (3, 16, 16)))
    monkeypatch.setitem(WORLDS.things, "scenes", world)
    monkeypatch.setattr(sg.networks, "load", lambda folder, *rest: (NETWORKS[folder.name], {}))


@pytest.mark.parametrize("name", WORLDLY)
def test_a_world_hands_out_its_own(name, small_world):
    """The same as the objective with the world's network, for the world's pictures and for no others."""
    make, given, settings = WORLDLY[name]
    objective, x0 = scenes.objective(name, *given, **settings), samples()
    torch.testing.assert_close(objective(x0), make(NETWORKS.__getitem__, *given)(x0))
    if name != "segmentation":
        large = x0.repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(objective(large), objective(x0))
    for shape in ((3, 512, 512), (3, 32, 32), (1, 8, 8), (3, 8, 16)):
        with pytest.raises(ConfigError, match="this network knows samples of shape"):
            objective(torch.zeros(2, *shape))


def test_a_worlds_objective_takes_what_is_resized_to_its_shape(small_world):
    half = scenes.objective("image", SHOWN[0], preprocess=lambda x: x[..., :8, :8])
    large = torch.nn.functional.pad(samples(), (0, 24, 0, 24))
    torch.testing.assert_close(half(large), ImageSimilarity(SHOWN[0], TWIN)(samples()))


@pytest.mark.parametrize("name", NAMED)
def test_without_a_network_both_ways_to_one_are_named(name):
    """No network knows all samples, so there is no default."""
    given = WORLDLY[name][1]
    with pytest.raises(ConfigError) as error:
        NAMED[name](*given)
    assert f"give one, {NAMED[name].__name__}(" in str(error.value)
    assert f"symguide.worlds.scenes.objective('{name}'" in str(error.value)


def test_what_a_world_has_no_scorer_for(small_world):
    for model, name, why in [
        ("digits", "text", "unknown objective of digits 'text'"),
        ("scenes", "styel", "did you mean 'style'"),
        ("scene", "style", "did you mean 'scenes'"),
    ]:
        with pytest.raises(ConfigError, match=why):
            scorers.objective(model, name, "a red star")
    with pytest.raises(TypeError, match="Aesthetic takes preprocess beside its network, and 2 were given"):
        scenes.objective("aesthetic", None, None)


def test_objectives_import_neither_worlds_nor_models():
    folder = Path(sg.objectives.__file__).parent
    imports = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imports |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                imports |= {alias.name for alias in node.names}
    assert "symguide.errors.ConfigError" in imports
    assert not [name for name in imports if name.startswith(("symguide.worlds", "symguide.worlds.load"))]


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda: Style(SHOWN[0], PIXELS), "method maps, and Conv2d has none"),
        (lambda: Style(SHOWN[0], CLASSIFIER, layers=[]), "at least one layer"),
        (lambda: Style(SHOWN[0], CLASSIFIER, layers=[2])(samples()), "among 0 to 1"),
        (lambda: Style(SHOWN[0, 0], CLASSIFIER), "a reference is pictures"),
        (lambda: Style((SHOWN * 127).int(), CLASSIFIER), "a reference is pictures"),
        (lambda: Style(SHOWN[:2], CLASSIFIER)(samples()), "2 rows, and there are 3"),
        (lambda: Style(0 * SHOWN[0], nn.Sequential()), "method maps"),
        (lambda: TextSimilarity("a red star", TWIN), "needs the tokenizer of the network"),
        (lambda: TextSimilarity("a mauve star", TWIN, tokens), "'mauve'"),
        (lambda: TextSimilarity(torch.rand(3), TWIN), "tokens are integers"),
        (lambda: TextSimilarity([], TWIN, tokens), "tokens are integers"),
        (lambda: TextSimilarity("a red star", WHO, tokens), "method image"),
        (lambda: ImageSimilarity(SHOWN[0], Wrong())(samples()), "both must be"),
        (lambda: ImageSimilarity("a.png", TWIN), "a reference is pictures"),
        (lambda: Identity(SHOWN[0], lambda x: x), "must be a torch.nn.Module"),
        (lambda: Identity(SHOWN[0], WHO, preprocess=3), "preprocess takes a callable"),
        (lambda: Aesthetic(WHO)(samples()), "one score for each sample"),
        (lambda: Segmentation(MASKS.double(), PIXELS), "a mask is integers"),
        (lambda: Segmentation(torch.full((8, 8), -1), PIXELS), "says nothing"),
        (lambda: Segmentation(MASKS[0] + 1, PIXELS)(samples()), "classes 0 to 4, and the network 0 to 3"),
        (lambda: Segmentation(MASKS[0] - 1, PIXELS)(samples()), "-1 is any"),
        (lambda: Segmentation(MASKS[:, :4], PIXELS)(samples()), "must be"),
        (lambda: Classifier(CLASSIFIER, 0, "shpae"), "did you mean 'shape'"),
        (lambda: Classifier(CLASSIFIER, 2, "count")(samples()), "classes 0 to 1"),
        (lambda: Classifier(TokenClassifier(3, 8, 4), 0, "shape"), "method attribute"),
        (lambda: Classifier(WHO, 0, "shape"), "has one head"),
    ],
)
def test_errors_say_what_is_wrong(make, why):
    with pytest.raises(ConfigError, match=why):
        make()


def test_a_reference_without_features_is_refused():
    class Pixels(nn.Module):
        def maps(self, x):
            return [x]

    with pytest.raises(ConfigError, match="without features"):
        Style(0 * SHOWN[0], Pixels())(samples())


def test_a_follower_is_converted_once():
    follower = Follower(TWIN, "image")
    assert follower.at(samples(dtype=torch.float32)) is follower.at(samples(dtype=torch.bfloat16))
    assert follower(samples(dtype=torch.bfloat16), "image").dtype == torch.float32
