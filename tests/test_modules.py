"""Networks of others: blocks with checkpoints of their own, weights shared by threads, training and inference mode."""

import threading

import pytest
import torch
from cases import RECIPES
from conftest import Tiny, quartic, relative, squares, tiny
from published import ADM, Encoder, again
from torch import nn
from torch.utils.checkpoint import checkpoint

import symguide as sg
from symguide import modules
from symguide.errors import GuidanceError
from symguide.modules import frozen

SHAPE = 1, 4, 4
CONTEXT = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def adm():
    return sg.Denoiser(ADM(), predicts="eps", shape=SHAPE)


def latent():
    return sg.Denoiser(ADM(context=5), predicts="v", shape=SHAPE)


def untouched(network, trainable=True):
    """Whether weights are as trainable as they were, and no gradient was left with them."""
    return all(p.requires_grad is trainable and p.grad is None for p in network.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_blocks_that_ask_for_their_weights_change_no_recipe(name):
    denoiser, settings = latent(), {"batch": 2, "steps": 3, "condition": {"context": CONTEXT}}
    plain = sg.sample(denoiser, loss=RECIPES[name](squares), **settings).samples
    again(denoiser.network)
    assert relative(sg.sample(denoiser, loss=RECIPES[name](squares), **settings).samples, plain) < 1e-12
    assert untouched(denoiser.network)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("memory", ["minimal", "fast", 0, 2, "auto"])
@pytest.mark.parametrize("make", [adm, latent])
def test_they_change_no_gradient(make, memory, trainable):
    """Autograd through all calls of the same network without such blocks."""
    denoiser, x = make(), torch.randn(2, *SHAPE)
    told = {"condition": {"context": CONTEXT}} if make is latent else {}
    leaf = x.clone().requires_grad_()
    loss = squares(sg.lookahead(denoiser, leaf, 0.6, 3, **told).x0)
    expected = torch.autograd.grad(loss.sum(), leaf)[0]
    again(denoiser.network).requires_grad_(trainable)
    for _ in range(2):
        made = sg.lookahead_gradient(denoiser, x, 0.6, squares, 3, memory=memory, **told)
        assert relative(made.value, expected) < 1e-12
        assert untouched(denoiser.network, trainable)


def test_they_are_found_where_they_are_switched_on_later():
    denoiser = adm()
    loss = sg.SAG(squares, n=2)
    before = sg.sample(denoiser, steps=2, loss=loss).samples
    again(denoiser.network)
    assert torch.equal(sg.sample(denoiser, steps=2, loss=loss).samples, before)


class Decoder(ADM):
    def forward(self, z):
        return super().forward(z, z.new_zeros(len(z)))


@pytest.mark.parametrize("kind", ["clean", "noisy", "decoder"])
def test_scorers_and_decoders_with_such_blocks(kind):
    network, denoiser = Decoder() if kind == "decoder" else Encoder(), tiny(shape=SHAPE)
    denoiser.decoder = network

    def run():
        if kind == "decoder":
            loss = sg.SAG(sg.objectives.Decoded(squares, denoiser.decode), n=2)
        elif kind == "noisy":
            loss = sg.ClassifierGuidance(sg.objectives.NoisyClassifier(network, [0, 2]))
        else:
            loss = sg.SAG(sg.objectives.Classifier(network, [0, 2]), n=2)
        return sg.sample(denoiser, batch=2, steps=3, loss=loss).samples

    plain = run()
    again(network)
    assert torch.equal(run(), plain)
    assert untouched(network)


def test_a_call_without_a_graph_says_nothing_of_the_next():
    """A scorer asked about samples that need no gradient first, in the same run."""
    network, seen = again(Encoder()), []
    classifier = sg.objectives.Classifier(network, 1)

    def looked_at_first(x0):
        seen.append(classifier(x0.detach()))
        return classifier(x0)

    settings = {"batch": 2, "steps": 2}
    looked = sg.sample(tiny(shape=SHAPE), loss=sg.FreeDoM(looked_at_first), **settings).samples
    assert torch.equal(looked, sg.sample(tiny(shape=SHAPE), loss=sg.FreeDoM(classifier), **settings).samples)
    assert seen and untouched(network)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [adm, latent])
def test_blocks_that_ask_for_their_weights_on_a_gpu(make):
    """Backward passes run in a thread of the device's there."""
    told = {"condition": {"context": CONTEXT}} if make is latent else {}
    settings = {"batch": 2, "steps": 3, "loss": sg.SAG(squares, n=3), **told}
    plain, denoiser = sg.sample(make(), **settings).samples, make()
    again(denoiser.network)
    denoiser.network.to("cuda")
    assert relative(sg.sample(denoiser, **settings).samples.cpu(), plain) < 1e-9
    assert untouched(denoiser.network) and not modules._WEIGHTS and not modules._LENT


def test_other_checkpoints_beside_them_see_the_same_weights():
    """torch's own compare what was saved when a block is computed again: frozen both times."""

    class Mixed(ADM):
        def forward(self, x, timesteps):
            return super().forward(checkpoint(self.inner, x, use_reentrant=False), timesteps)

        def inner(self, x):
            return x + self.leave(torch.cat([self.enter(x).tanh()] * 2, dim=1))

    denoiser, x = sg.Denoiser(Mixed(), shape=SHAPE), torch.randn(2, *SHAPE)
    plain = sg.lookahead_gradient(denoiser, x, 0.6, squares).value
    again(denoiser.network)
    assert torch.equal(sg.lookahead_gradient(denoiser, x, 0.6, squares).value, plain)


def test_a_backward_pass_that_fails_leaves_no_weight_lent():
    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.weight = weight
            return x * 1.0

        @staticmethod
        def backward(ctx, cotangent):
            assert ctx.weight.requires_grad
            raise ZeroDivisionError

    class Network(nn.Linear):
        def forward(self, x, timestep):
            return Failing.apply(super().forward(x), self.weight)

    network = Network(3, 3)
    with frozen(network):
        with pytest.raises(ZeroDivisionError):
            sg.lookahead_gradient(sg.Denoiser(network), torch.ones(1, 3), 0.5, squares)
        assert untouched(network, trainable=False)
    assert untouched(network)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("memory", ["minimal", "fast", 0])
def test_torchs_reentrant_checkpoints(memory):
    class Reentrant(Tiny):
        def forward(self, x, timestep, label=None):
            return checkpoint(super().forward, x, timestep, label, use_reentrant=True)

    plain, network, x = tiny(), Reentrant(), torch.randn(2, 6)
    denoiser = sg.Denoiser(network, plain.schedule, shape=(6,))
    given = {"n": 3, "memory": memory}
    expected = sg.lookahead_gradient(plain, x, 0.6, quartic, **given).value
    assert relative(sg.lookahead_gradient(denoiser, x, 0.6, quartic, **given).value, expected) < 1e-12
    assert untouched(network)
    with pytest.raises(GuidanceError, match="use_reentrant=False"):  # its weights are not ours to freeze
        sg.lookahead_gradient(sg.Denoiser(lambda x, t: network(x, t)), x, 0.6, quartic)


def test_usual_graphs_are_looked_through_once_a_run(monkeypatch):
    seen, look = [], modules._functions
    monkeypatch.setattr(modules, "_functions", lambda made: seen.append(1) or look(made))
    sg.sample(tiny(), steps=4, loss=sg.SAG(squares, n=3, memory="fast"))
    assert len(seen) == 1


@pytest.mark.parametrize("order", ["first in, first out", "last in, first out"])
def test_weights_stay_frozen_until_the_last_thread_leaves(order):
    network, seen = nn.Linear(2, 2), []
    network.bias.requires_grad_(False)
    go, gone = ([threading.Event(), threading.Event()] for _ in range(2))

    def hold(k):
        with frozen(network):
            gone[k].set()
            go[k].wait(10)

    threads = [threading.Thread(target=hold, args=(k,)) for k in range(2)]
    for k, thread in enumerate(threads):
        thread.start()
        gone[k].wait(10)
    seen.append(network.weight.requires_grad)
    for k in (0, 1) if order.startswith("first") else (1, 0):
        go[k].set()
        threads[k].join()
        seen.append(network.weight.requires_grad)
    assert seen == [False, False, True]
    assert not network.bias.requires_grad and not modules._WEIGHTS


def test_two_threads_share_a_network_with_such_blocks():
    denoiser, made = adm(), {}
    again(denoiser.network)
    loss = sg.SAG(squares, n=2, update=sg.rules.chain(sg.rules.adam(), sg.rules.scale(0.1)))

    def run(seed):
        return sg.sample(denoiser, batch=2, steps=4, seed=seed, loss=loss).samples

    alone = [run(seed) for seed in (0, 1)]
    threads = [threading.Thread(target=lambda seed=seed: made.update({seed: run(seed)})) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(made[seed], alone[seed]) for seed in (0, 1))
    assert untouched(denoiser.network) and not modules._WEIGHTS and not modules._LENT


class Layer(nn.Module):
    """`before`, then a linear map."""

    def __init__(self, *before):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*before, nn.Linear(6, 6))

    def forward(self, x, timestep, label=None):
        return self.layers(x)


@pytest.mark.parametrize(
    "part", [nn.Dropout(0.1), nn.BatchNorm1d(6), nn.Sequential(nn.AlphaDropout(0.1)), nn.RReLU()], ids=repr
)
def test_networks_whose_training_mode_matters_are_refused_in_it(part):
    denoiser = sg.Denoiser(Layer(part).double(), shape=(6,))
    for run in (
        lambda: sg.sample(denoiser, steps=2),
        lambda: sg.lookahead_gradient(denoiser, torch.ones(2, 6), 0.5, squares),
        lambda: sg.optimise(denoiser, squares, sg.DFlow(1), steps=2),
    ):
        with pytest.raises(GuidanceError, match=r"call network.eval\(\) first"):
            run()
    denoiser.network.eval()
    sg.sample(denoiser, steps=2)


def test_training_mode_that_changes_nothing_is_none_of_our_business():
    layers = nn.Dropout(0.0), nn.LayerNorm(6), nn.InstanceNorm1d(6), nn.BatchNorm1d(6, track_running_stats=False)
    sg.sample(sg.Denoiser(Layer(*layers[:2]), shape=(6,)), steps=2, loss=sg.SAG(squares, n=2))
    modules.refuse_training(nn.Sequential(*layers))


@pytest.mark.parametrize("memory", ["minimal", 0, 2])
def test_networks_that_draw_noise_of_their_own_are_seen(memory):
    """Where a graph is made again; with all graphs kept, the gradient is that of what was said."""

    class Random(Tiny):
        def forward(self, x, timestep, label=None):
            return super().forward(x, timestep) + 0.05 * torch.rand_like(x)

    denoiser = sg.Denoiser(Random(), shape=(6,))
    for run in (
        lambda: sg.sample(denoiser, steps=2, loss=sg.SAG(squares, n=3, memory=memory)),
        lambda: sg.lookahead_gradient(denoiser, torch.ones(2, 6), 0.5, squares, 3, memory=memory),
        lambda: sg.optimise(denoiser, squares, sg.DFlow(1), steps=3, memory=memory),
    ):
        with pytest.raises(GuidanceError, match="said something else: it is random"):
            run()
    sg.lookahead_gradient(denoiser, torch.ones(2, 6), 0.5, squares, 3, memory="fast")


def of_inference(inside, what):
    """A denoiser and an objective; made in inference mode is one of network, decoder, scorer, condition and start."""

    def mode(part):
        return torch.inference_mode(inside and part == what)

    class Network(Tiny):
        def forward(self, x, timestep, text):
            return super().forward(x, timestep) * text[:, :1, None, None]

    with mode("network"):
        network = Network(16)
    with mode("decoder"):
        decoder = Decoder()
    with mode("scorer"):
        scorer = Encoder()
    with mode("condition"):
        settings = {"condition": {"text": torch.full((2, 3), 0.5)}}
    with mode("start"):
        settings |= {"start": torch.ones(2, *SHAPE)}
    denoiser = sg.Denoiser(network, shape=SHAPE, decoder=decoder)
    objective = sg.objectives.Decoded(sg.objectives.Classifier(scorer, 1), denoiser.decode)
    return denoiser, objective, settings, (network, decoder, scorer)


@pytest.mark.parametrize("what", ["network", "decoder", "scorer", "condition", "start"])
def test_what_was_made_in_inference_mode_is_guided_and_left_as_it_was(what):
    made = []
    for inside in (True, False):
        denoiser, objective, settings, parts = of_inference(inside, what)
        made.append(sg.sample(denoiser, steps=3, **settings).samples)
        made.append(sg.sample(denoiser, steps=3, loss=sg.SAG(objective, n=2), **settings).samples)
        x, told = torch.ones(2, *SHAPE), {"condition": settings["condition"]}
        made.append(sg.lookahead_gradient(denoiser, x, 0.5, objective, n=2, **told).value)
        assert all(map(untouched, parts))
    assert all(torch.equal(a, b) for a, b in zip(made[:3], made[3:], strict=True))


@pytest.mark.parametrize("first", ["graph", "no graph"])
@pytest.mark.parametrize("jacobian", ["exact", "identity", None])
def test_networks_that_change_their_input_in_place(jacobian, first):
    """The same as networks that do not, from the first call on."""
    made = []
    for inplace in (True, False):
        denoiser = sg.Denoiser(Layer(nn.Hardtanh(inplace=inplace)), predicts="x0", shape=(6,))
        given = {} if jacobian is None else {"loss": sg.SAG(squares, n=2, jacobian=jacobian)}
        if first == "graph":
            made.append(sg.lookahead_gradient(denoiser, torch.full((1, 6), 2.0), 0.5, squares, memory="fast").value)
        made.append(sg.sample(denoiser, batch=2, steps=4, **given).samples)
        made.append(sg.lookahead(denoiser, torch.full((1, 6), 2.0), 0.5).x0)
    half = len(made) // 2
    assert all(torch.equal(a, b) for a, b in zip(made[:half], made[half:], strict=True))


def test_usual_networks_are_given_no_copies():
    given = []

    class Network(Tiny):
        def forward(self, x, timestep, label=None):
            given.append(x)
            return super().forward(x, timestep)

    x, denoiser = torch.ones(2, 6), sg.Denoiser(Network(), shape=(6,))
    for _ in range(3):
        denoiser(x, 0.5)
    assert [made is x for made in given] == [False, True, True]


def test_changes_in_place_that_cannot_be_mended_are_refused():
    class Late(Tiny):
        def forward(self, x, timestep, label=None):
            if self.calls == 2:
                x.mul_(0.5)
            return super().forward(x, timestep, label)

    class Told(Tiny):
        def forward(self, x, timestep, label=None):
            return super().forward(x, timestep, label.add_(1))

    with pytest.raises(GuidanceError, match="did not when it was called first: let it work on a clone"):
        sg.sample(sg.Denoiser(Late(), shape=(6,)), steps=4)
    with pytest.raises(GuidanceError, match="changes its condition 'label' in place"):
        sg.sample(sg.Denoiser(Told(), shape=(6,)), steps=4, condition={"label": [1]})
