"""The tasks of the scenes world, and how its models are measured."""

import json

import pytest
import torch
from click.testing import CliRunner

from symguide import Denoiser, networks, sample
from symguide.cli import main
from symguide.errors import ConfigError
from symguide.evaluation.quality import Evaluation, colours_in, plain
from symguide.evaluation.tasks import TASKS, task
from symguide.report import precision_recall
from symguide.schedule import VP
from symguide.worlds import WORLDS, scenes
from symguide.worlds.load import judge, scorer
from symguide.worlds.scenes.scene import COLOURS, SHAPES


@pytest.fixture(autouse=True)
def single():
    """These tests start from float32, as users do."""
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_has_the_same_task_in_any_batch(name):
    whole, part = task(name, range(6)), task(name, [4])
    assert part.prompts == [whole.prompts[4]]
    x = scenes.render(scenes.draw("train", range(6)), dtype=torch.float32)
    for role in ("scorer", "judge"):
        losses, alone = getattr(whole, role)(x), getattr(part, role)(x[4:5])
        assert losses.shape == (6,) and torch.allclose(losses[4:5], alone, rtol=1e-4, atol=1e-5)
    if whole.reference is not None:
        assert torch.equal(part.reference, whole.reference[4:5]) and whole.reference.dtype == torch.float32
        assert (whole.judge(whole.reference) < whole.judge(x)).all()
    else:
        assert (scenes.beauty(scenes.draw("train", range(6))) >= 0).all()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_of_larger_pictures_is_the_same_task(name):
    small, large = task(name, range(3)), task(name, range(3), side=64)
    x = scenes.render(scenes.draw("train", range(3)), 64, torch.float32)
    assert small.prompts == large.prompts and (large.mask is None or large.mask.shape == (64, 64))
    seen = torch.nn.functional.avg_pool2d(x, 2)
    assert torch.allclose(large.judge(x), small.judge(seen), rtol=0.2)  # references are drawn at either size


@pytest.mark.parametrize("name", TASKS)
def test_the_judge_is_not_the_scorer(name):
    x = scenes.render(scenes.draw("train", range(6)), dtype=torch.float32)
    goal = task(name, range(6))
    assert not torch.allclose(goal.scorer(x), goal.judge(x), rtol=1e-2)


@pytest.mark.parametrize("kind", WORLDS["scenes"].scorers)
def test_scorers_and_judges_are_built_differently(kind):
    mine, other = scorer("scenes", kind), judge("scenes", kind)
    inner, outer = (getattr(each.network, "picture", each.network) for each in (mine, other))
    assert type(inner) is not type(outer)
    shapes = {tuple(p.shape) for p in inner.parameters() if p.ndim == 4}
    assert shapes != {tuple(p.shape) for p in outer.parameters() if p.ndim == 4}


def test_personalisation_asks_for_another_background():
    goal = task("personalisation", range(12))
    assert all(" on " in prompt for prompt in goal.prompts)
    ground = goal.reference[:, :, 0, 0]
    shown = [COLOURS.index(prompt.rpartition(" on ")[2]) for prompt in goal.prompts]
    from symguide.worlds.scenes.picture import PALETTE

    assert ((2 * PALETTE[shown] - 1 - ground).abs().amax(1) > 0.1).all()


def drawn(x, timestep, caption):
    """A network that knows its captions by heart: x_0 of "a COLOUR SHAPE on PAINT", whatever the noise."""
    texts = [" ".join(scenes.VOCABULARY[t] for t in row if t) for row in caption.tolist()]
    out = []
    for text in texts:
        words = text.split()
        if len(words) != 4:
            out.append(torch.zeros_like(x[0]))
            continue
        colour, shape, _, paint = words
        s = scenes.draw("held_out", [1])
        for name, value in (("shape", SHAPES.index(shape)), ("colour", COLOURS.index(colour))):
            getattr(s, name)[:] = value
        s.count[:], s.background[:], s.paint[:, 0], s.centre[:], s.texture[:] = 1, 0, COLOURS.index(paint), 0.5, 0
        s.radius[:] = 0.28
        out.append(scenes.render(s, dtype=x.dtype)[0])
    return torch.stack(out)


def test_a_model_that_draws_what_captions_say_is_measured_as_such():
    perfect = Denoiser(drawn, VP.cosine(), "x0", shape=(3, 32, 32), null={"caption": [[0] * scenes.LENGTH]})
    evaluation = Evaluation(perfect, judge("scenes", "classifier"), weight=1.0, steps=2, batch=32)
    figures = evaluation.plain(84)
    assert figures["shape"] > 0.9 and figures["colour"] > 0.95 and figures["one object"] > 0.9
    worse = Denoiser(
        lambda x, t, caption: drawn(x, t, caption.roll(1, 0)), VP.cosine(), "x0", shape=(3, 32, 32), null=perfect.null
    )
    assert Evaluation(worse, judge("scenes", "classifier"), weight=1.0, steps=2).plain(84)["colour"] < 0.3


def test_colours_are_read_within_the_true_masks():
    truth = scenes.draw("held_out", range(2000))
    truth = truth[truth.count == 2]
    x, mask = scenes.render(truth, dtype=torch.float32), scenes.masks(truth)
    read = torch.stack([colours_in(x, mask == 1 + truth.shape[:, k, None, None]) for k in (0, 1)], 1)
    assert (read == truth.colour).double().mean() > 0.97
    assert (colours_in(x, torch.zeros(len(x), 32, 32, dtype=torch.bool)) == -1).all()


def test_samples_of_an_evaluation_do_not_depend_on_the_batch():
    network = networks.CaptionUNet(channels=(16, 16), attention=(False, True), words=len(scenes.VOCABULARY), width=16)
    small = Denoiser(network.eval(), VP.cosine(), "v", shape=(3, 32, 32), null={"caption": [[0] * scenes.LENGTH]})
    texts = plain(5).texts
    whole = Evaluation(small, None, steps=3, batch=5).samples(texts, "")
    assert torch.allclose(whole, Evaluation(small, None, steps=3, batch=2).samples(texts, ""), atol=1e-4)


def test_precision_and_recall_against_a_loop():
    torch.manual_seed(0)
    a, b = torch.randn(40, 3) * 0.7, torch.randn(50, 3)

    def covered(points, by, k=3):
        reach = [sorted((p - q).norm().item() for q in by)[k] for p in by]
        return sum(any((x - p).norm().item() <= r for p, r in zip(by, reach, strict=True)) for x in points) / len(
            points
        )

    precision, recall = precision_recall(a, b)
    assert precision == pytest.approx(covered(a, b)) and recall == pytest.approx(covered(b, a))
    assert precision_recall(b, b) == (1.0, 1.0) and precision_recall(b + 100, b) == (0.0, 0.0)
    with pytest.raises(ConfigError, match="more than 3 rows"):
        precision_recall(a[:3], b)


def test_evaluate_on_the_command_line(tmp_path):
    run = ["evaluate", "scenes", "scenes-weak", "--samples", "10", "--steps", "1", "--json", str(tmp_path / "out.json")]
    result = CliRunner().invoke(main, run, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    models = json.loads((tmp_path / "out.json").read_text())["models"]
    figures = models["scenes"]
    assert set(figures["plain captions"]) == {"shape", "colour", "background", "one object"}
    assert "frechet of real pictures" in figures["held-out captions, held-out pictures"]
    assert "captions of two objects" in result.output and "1 steps of dpmpp_2m" in result.output
    line = next(line for line in result.output.splitlines() if "background" in line)
    shown = [f"{models[name]['plain captions']['background']:.3f}" for name in ("scenes", "scenes-weak")]
    assert line.split()[-2:] == shown
    refused = CliRunner().invoke(main, ["evaluate", "digits"])
    assert refused.exit_code == 2 and "takes no captions" in refused.output


def test_the_models_draw_by_captions():
    from symguide import CFG, load

    models = {name: load(name) for name in WORLDS if name.startswith("scenes")}
    for denoiser in [each for each in models.values() if each.null]:
        x = sample(denoiser, batch=2, steps=2, condition={"caption": scenes.tokens("a red star")}, prediction=CFG(2.0))
        assert x.samples.shape == (2, *denoiser.shape) and torch.isfinite(x.samples).all()


def test_one_call_models_draw_in_one_call():
    """What is asked for, by the judge; and nearer to where their teacher's ways end than its own one call."""
    from symguide import CFG, load

    asked, told = plain(42), {"batch": 42, "eta": 0.0, "solver": "dpmpp_2m", "grid": "flow"}
    told["condition"] = {"caption": scenes.tokens(asked.texts)}
    student, teacher = load("scenes-consistency", dtype=torch.float32), load("scenes", dtype=torch.float32)
    made = sample(student, steps=1, **told).samples
    logits = judge("scenes", "classifier").split(judge("scenes", "classifier")(made))
    assert (logits["shape"].argmax(1) == asked.shape).double().mean() > 0.5
    assert (logits["colour"].argmax(1) == asked.colour).double().mean() > 0.8
    end = sample(teacher, steps=6, prediction=CFG(3.0), **told).samples
    own = sample(teacher, steps=1, prediction=CFG(3.0), **told).samples
    assert ((made - end).square().mean(dim=(1, 2, 3)) < 0.5 * (own - end).square().mean(dim=(1, 2, 3))).all()


@pytest.mark.parametrize("name", ["scenes-generator", "scenes-gan"])
def test_generators_draw_single_objects(name):
    from symguide import load

    model = load(name, dtype=torch.float32)
    pictures = model.decode(sample(model, batch=64, steps=1, solver="midpoint", eta=0.0).samples)
    assert pictures.shape == (64, 3, 32, 32)
    reader = judge("scenes", "classifier")
    logits = reader.split(reader(pictures))
    assert (logits["count"].argmax(1) == 0).double().mean() > 0.9
    assert len(logits["colour"].argmax(1).unique()) == 8 and len(logits["shape"].argmax(1).unique()) >= 5


def test_latents_are_decoded_for_objectives_and_for_the_command_line(tmp_path):
    from symguide import load, lookahead, lookahead_gradient
    from symguide.objectives import Decoded, Region

    torch.manual_seed(0)
    tiny = networks.CaptionUNet(4, 1, (16, 16), attention=(False, True), words=len(scenes.VOCABULARY), width=16)
    null = {"caption": [[0] * scenes.LENGTH]}
    settings = {"schedule": {"name": "vp-cosine"}, "predicts": "v", "shape": [4, 8, 8], "null": null, "decoder": "ae"}
    networks.save(tiny, tmp_path / "model", denoiser=settings | {"conditions": {"caption": "tokens"}})
    networks.save(networks.Autoencoder(), tmp_path / "ae")
    denoiser = load(tmp_path / "model", dtype=torch.float64)
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64).requires_grad_()
    assert denoiser.decode(x).shape == (2, 3, 32, 32) and denoiser.to(dtype=torch.float32).decoder is not None
    aim = Decoded(Region(torch.zeros(3, 32, 32), torch.ones(32, 32)), denoiser.decode)
    expected = torch.autograd.grad(aim(lookahead(denoiser, x, 0.6, 2).x0).sum(), x)[0]
    assert torch.allclose(lookahead_gradient(denoiser, x.detach(), 0.6, aim, 2).value, expected)

    picture = tmp_path / "ref.npy"
    import numpy as np

    np.save(picture, np.zeros((3, 32, 32), np.float32))
    command = ["sample", "--model", str(tmp_path / "model"), "--num", "2", "--steps", "2", "--out", str(tmp_path / "o")]
    command += ["--prompt", "a red star", "--objective", f"region:{picture}@left", "--format", "npz"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert np.load(next((tmp_path / "o").glob("*.npz")))["samples"].shape == (2, 3, 32, 32)
