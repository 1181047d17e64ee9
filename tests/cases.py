"""The case table: a row for every registered name of every kind, over which tests/laws run.

A new method, rule, solver, objective or world needs one row here, with `make` as its kind has it below, and is then
under the laws of its kind; a registered name without a row fails tests/laws/test_table.py. Further rows of a name, with
another `variant`, are for settings that take another path through its code.

    kind                      make                                  cost
    loss guidance             (objective, **settings) -> recipe     (forward, backward) calls of a guided step
    prediction guidance       (**settings) -> rule                  calls of one prediction
    particle guidance         (objective, **settings) -> rule       calls of one step
    trajectory optimisation   (**settings) -> method                (calls of a run, iterations, graphs kept) -> forward
    solver                    () -> its name                        steps -> calls of a run
    objective                 (rows) -> objective of SAMPLES[rows]
    world                     () -> denoiser
    update rule, constraint, window    () -> the value

The calls are those of memory="minimal", for each sample, the sampler's own included; None where they depend on more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Tiny, tiny
from torch import nn

import symguide as sg
from symguide import objectives, rules
from symguide.networks import ConvClassifier
from symguide.worlds.scenes import tokens


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        kind, name: what it is registered as.
        make: what makes one, see the module.
        variant: which of several rows of that name it is.
        cost: network calls, see the module.
        off: settings of `make` that switch it off: samples are bit-equal to the sampler's own, and no call is spent.
        settings: what a run with it needs, such as a condition.
        model: makes the tiny model that it is tried on.
        asks: how often a guided step asks the objective.
        noisy: whether it needs steps with noise, eta > 0.
        order: of a solver.
    """

    kind: str
    name: str
    make: Callable[..., Any]
    variant: str = ""
    cost: Any = None
    off: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Callable[[], sg.Denoiser] = tiny
    asks: int = 1
    noisy: bool = False
    order: int = 1

    @property
    def id(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name


def of(*kinds: str, where: Callable[[Case], bool] = lambda case: True) -> list[Case]:
    """The rows of some kinds."""
    return [case for case in CASES if case.kind in kinds and where(case)]


def every(*kinds: str, where: Callable[[Case], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Runs a test over the rows of some kinds, each as `case`."""
    return pytest.mark.parametrize("case", of(*kinds, where=where), ids=lambda case: case.id)


class Noisy:
    """An objective that is asked about noisy samples: the same whatever the noise level, but for a factor."""

    def __init__(self, objective):
        self.objective = objective

    def __call__(self, x0):
        return self.objective(x0)

    def noisy(self, x, t, schedule):
        loss = self.objective(x)
        return loss * schedule.alpha(t) if isinstance(loss, torch.Tensor) else loss


class Posed(objectives.Measurement):
    """A measurement of everything, whose loss is another objective's."""

    class Everything(objectives.LinearOperator):
        def __call__(self, x):
            return x

        adjoint = __call__

        def solve(self, v, ridge=0.0):
            return v / (1 + ridge)

    def __init__(self, objective):
        super().__init__(self.Everything(), torch.zeros(1), 0.5)
        self.objective = objective

    def residual(self, x0):
        return -x0

    def __call__(self, x0):
        return self.objective(x0)


def classifier(objective, **settings):
    """Classifier guidance, of an objective that is asked about noisy samples too."""
    return sg.ClassifierGuidance(Noisy(objective), **settings)


LOSS, NONE, SPHERE = "loss guidance", {"scale": 0}, sg.Sphere(0.2)

LOSSES = [
    Case(LOSS, "sag", partial(sg.SAG, n=3), cost=(5, 3), off=NONE),
    Case(LOSS, "sag", partial(sg.SAG, n=3, jacobian="first"), "first", cost=(3, 1), off=NONE),
    Case(LOSS, "sag", partial(sg.SAG, n=lambda t: 3 if t > 0.5 else 1, memory="fast"), "n-of-t", off=NONE),
    Case(LOSS, "sag", partial(sg.SAG, n=3, path="own"), "own", cost=(5, 3), off=NONE),
    Case(LOSS, "sag", partial(sg.SAG, n=2, path="fresh", samples=2), "fresh", cost=(4, 3), off=NONE),
    Case(LOSS, "sag", partial(sg.SAG, n=2, constraint=SPHERE), "sphere", cost=(3, 2), off=NONE, noisy=True),
    Case(LOSS, "sag", partial(sg.SAG, n=2, repeats=2, window=(0.2, 0.8)), "repeats", cost=(6, 4), off=NONE, asks=2),
    Case(LOSS, "freedom", sg.FreeDoM, cost=(1, 1), off=NONE),
    Case(LOSS, "dps", sg.DPS, cost=(1, 1), off=NONE),
    Case(LOSS, "mpgd", sg.MPGD, cost=(1, 0), off=NONE),
    Case(LOSS, "mpgd", partial(sg.MPGD, eps="anew"), "anew", cost=(1, 0), off=NONE),
    Case(LOSS, "mpgd", partial(sg.MPGD, constraint=SPHERE), "sphere", cost=(1, 0), off=NONE, noisy=True),
    Case(
        LOSS,
        "universal",
        partial(sg.UniversalGuidance, backward_steps=3, repeats=2),
        cost=(2, 2),
        off=NONE,
        asks=8,
    ),
    Case(LOSS, "lgd", partial(sg.LGD, samples=3), cost=(1, 1), off=NONE, asks=3),
    Case(LOSS, "pigdm", lambda o, **k: sg.PiGDM(Posed(o), **k), cost=(1, 1), off=NONE),
    Case(LOSS, "dsg", sg.DSG, cost=(1, 1), noisy=True),
    Case(LOSS, "tfg", partial(sg.TFG, samples=2), cost=(1, 1), off=NONE, asks=10),
    Case(LOSS, "tfg", partial(sg.TFG, rho=0, mu=0.2, sigma=0.0), "mean", cost=(1, 0), off=NONE, asks=4),
    Case(LOSS, "tfg", partial(sg.TFG, constraint=SPHERE), "sphere", cost=(1, 1), off=NONE, asks=5, noisy=True),
    Case(LOSS, "abms", sg.ABMS, cost=(2, 1), off=NONE),
    Case(LOSS, "abms", partial(sg.ABMS, samples=3, n=2), "draws", cost=(1 + 3 * 3, 3 * 2), off=NONE, asks=3),
    Case(LOSS, "abms", partial(sg.ABMS, constraint=SPHERE), "sphere", cost=(2, 1), off=NONE, noisy=True),
    Case(LOSS, "adam-dps", sg.AdamDPS, cost=(1, 1), off=NONE),
    Case(LOSS, "adam-dps", partial(sg.AdamDPS, repeats=2, window=(0.2, 0.8)), "repeats", cost=(2, 2), off=NONE, asks=2),
    Case(LOSS, "ecm", lambda o, **k: sg.ECM(o, **{"scale": 0.1, **k}), cost=(1, 0), off=NONE),
    Case(LOSS, "elucd", sg.EluCD, cost=(1, 0), off=NONE),
    Case(LOSS, "dreamguider", sg.Dreamguider, cost=(1, 0), off=NONE, asks=4),
    Case(LOSS, "classifier", classifier, cost=(1, 0), off=NONE),
    Case(LOSS, "classifier", partial(classifier, form="mean"), "mean", cost=(1, 0), off=NONE, noisy=True),
    Case(LOSS, "classifier", partial(classifier, constraint=SPHERE), "sphere", cost=(1, 0), off=NONE, noisy=True),
]


class Looking(Tiny):
    """Samples (6,) as three tokens that look at each other, beside what `Tiny` makes of them."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        generator = torch.Generator().manual_seed(seed)
        weights = 0.7 * torch.randn(5, 8, 8, generator=generator, dtype=torch.float64)
        self.q, self.k, self.v, self.last, self.first = map(nn.Parameter, weights)
        self.label = nn.Parameter(torch.randn(5, 6, generator=generator, dtype=torch.float64))
        self.map = nn.Softmax(dim=-1)

    def forward(self, x, timestep, label=None):
        given = super().forward(x, timestep, label)  # which counts
        told = (x if label is None else x + self.label[label]).reshape(len(x), 3, 2)
        time = (timestep / 1000).to(x)[:, None, None].expand(-1, 3, 6)
        tokens = torch.tanh(torch.cat([told, time], dim=2) @ self.first)
        tokens = tokens + self.map(tokens @ self.q @ (tokens @ self.k).mT) @ tokens @ self.v
        return given + (torch.tanh(tokens) @ self.last)[..., :2].reshape(x.shape)


def looking():
    return sg.Denoiser(Looking(), sg.VP.linear(), shape=(6,), null={"label": 4})


PREDICTION, LABELS = "prediction guidance", {"condition": {"label": [0, 1, 2]}}


def predicted(name, make, variant="", **row):
    """A row of a prediction rule of two branches, in runs of three samples with a label each."""
    return Case(PREDICTION, name, make, variant, **{"cost": 2, "settings": LABELS, **row})


PREDICTION_RULES = [
    predicted("cfg", lambda **k: sg.CFG(**{"scale": 2.5, **k}), off={"scale": 1.0}),
    predicted("cfg++", lambda **k: sg.CFGPlusPlus(**{"scale": 0.6, **k})),
    predicted("apg", lambda **k: sg.APG(**{"scale": 5.0, **k}), off={"scale": 1.0}),
    predicted("apg", lambda **k: sg.APG(**{"scale": 5.0, "threshold": 0.4, "parallel": 0.3, **k}), "limited"),
    predicted("pag", lambda **k: sg.PAG("map", **{"scale": 2.0, **k}), off={"scale": 0.0}, model=looking),
    predicted("autoguidance", lambda **k: sg.Autoguidance(tiny(seed=1), **{"scale": 2.0, **k}), off={"scale": 1.0}),
    predicted("interval", lambda **k: sg.Interval(sg.CFG(2.5), **{"low": 0.0, "high": 1e9, **k}), off={"low": 1e8}),
]

PARTICLES = [
    Case("particle guidance", "best_of_n", lambda o, **k: sg.BestOfN(o, **{"n": 3, **k}), cost=3, off={"n": 1}),
]

TRAJECTORY, STILL = "trajectory optimisation", {"iterations": 0}


def descent(n, iterations, kept):
    """Forward calls of methods that make one run in each iteration, and all calls again but those that are kept."""
    return n + iterations * (2 * n - kept)


TRAJECTORIES = [
    Case(TRAJECTORY, "doodl", lambda **k: sg.DOODL(**{"iterations": 4, "clip": 0.02, **k}), cost=descent, off=STILL),
    Case(TRAJECTORY, "dflow", lambda **k: sg.DFlow(**{"iterations": 4, "regularisation": 0.01, **k}), off=STILL),
    Case(TRAJECTORY, "ocflow", lambda **k: sg.OCFlow(**{"iterations": 4, "rate": 0.02, **k}), cost=descent, off=STILL),
]

SOLVERS = [
    Case("solver", "ddim", lambda: "ddim", cost=lambda steps: steps, order=1),
    Case("solver", "midpoint", lambda: "midpoint", cost=lambda steps: 2 * steps, order=2),
    Case("solver", "heun", lambda: "heun", cost=lambda steps: 2 * steps - 1, order=2),
    Case("solver", "dpmpp_2m", lambda: "dpmpp_2m", cost=lambda steps: steps, order=2),
]


def filled(network, seed=0):
    """No weight at zero, in float64."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


class Twin(nn.Module):
    """Embeds pictures and tokens; neither is normalised."""

    def __init__(self):
        super().__init__()
        self.picture = ConvClassifier(3, 8, (4, 8), classes=6, width=8, groups=2)
        self.word = nn.Embedding(40, 6)

    def image(self, x):
        return self.picture(x)

    def text(self, numbers):
        return self.word(numbers).mean(1)


class AtNoise(nn.Module):
    """A classifier that is told the timestep."""

    def __init__(self):
        super().__init__()
        self.inner = ConvClassifier(3, 8, (4, 8), classes=5, width=8, groups=2)

    def forward(self, x, timestep):
        return self.inner(x) * (1 + timestep / 1000)[:, None]


def uniform(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


CLASSIFIER = filled(ConvClassifier(3, 8, (4, 8), width=8, groups=2, heads={"shape": 6, "count": 2}))
TWIN = filled(Twin(), 1)
WHO = filled(ConvClassifier(3, 8, (4, 8), classes=5, width=8, groups=2), 2)
SCORE = filled(ConvClassifier(3, 8, (4, 8), classes=1, width=8, groups=2), 3)
PIXELS = filled(nn.Conv2d(3, 4, 3, padding=1), 4)
NOISE_AWARE = filled(AtNoise(), 5)
DEPTHS = filled(nn.Conv2d(3, 1, 3, padding=1), 6)

SAMPLES, SHOWN = 2 * uniform(3, 3, 8, 8) - 1, 2 * uniform(3, 3, 8, 8, 1)[..., 0] - 1
SMALL = SHOWN[..., ::2, ::2]
MASKS = torch.randint(-1, 4, (3, 8, 8), generator=torch.Generator().manual_seed(0))
MASK = (uniform(8, 8) > 0.3).double()
TEXTS = ["a red star", "a blue disk on yellow", "a green ring"]
LINES, FLOWS, COLOURS, SHARES = uniform(3, 1, 8, 8), 3 * uniform(3, 2, 8, 8) - 1.5, uniform(3, 4, 3), uniform(3, 4)

OBJECTIVES = [
    Case("objective", name, make, variant)
    for name, variant, make in (
        ("classifier", "", lambda r: objectives.Classifier(CLASSIFIER, torch.tensor([0, 3, 5])[r], "shape")),
        ("noisy", "", lambda r: objectives.NoisyClassifier(NOISE_AWARE, torch.tensor([0, 3, 4])[r])),
        ("text", "", lambda r: objectives.TextSimilarity([TEXTS[i] for i in r], TWIN, tokens)),
        ("image", "", lambda r: objectives.ImageSimilarity(SHOWN[r], TWIN)),
        ("identity", "", lambda r: objectives.Identity(SHOWN[r], WHO, preprocess=lambda x: x.flip(-1) / 2)),
        ("style", "", lambda r: objectives.Style(SHOWN[r], CLASSIFIER)),
        ("style", "layer", lambda r: objectives.Style(SHOWN[r], CLASSIFIER, layers=[1])),
        ("aesthetic", "", lambda r: objectives.Aesthetic(SCORE)),
        ("segmentation", "", lambda r: objectives.Segmentation(MASKS[r], PIXELS)),
        ("depth", "", lambda r: objectives.Depth(LINES[r][:, 0], DEPTHS)),
        ("palette", "", lambda r: objectives.Palette(2 * COLOURS[r] - 1, SHARES[r] + 0.1)),
        ("edges", "", lambda r: objectives.Edges(LINES[r])),
        ("flux", "", lambda r: objectives.Flux(torch.tensor([30.0, 5.0, 90.0])[r])),
        ("size", "", lambda r: objectives.Size(torch.tensor([2.0, 5.0, 1.0])[r])),
        ("ellipticity", "", lambda r: objectives.Ellipticity(torch.tensor([0.3, 0.5, 0.9])[r])),
        ("motion", "", lambda r: objectives.MotionField(SHOWN[r], FLOWS[r], LINES[r])),
        ("region", "", lambda r: objectives.Region(SHOWN[r], MASK)),
        ("measurement", "", lambda r: objectives.Measurement(partial(F.avg_pool2d, kernel_size=2), SMALL[r], 0.3)),
        ("blackbox", "", lambda r: objectives.BlackBox(lambda x0: [float(x.sum() > 0) for x in x0])),
    )
]


def world(name, **row):
    """A row of an embedded model, in float64."""
    return Case("world", name, lambda: sg.load(name, dtype=torch.float64), **row)


CAPTIONS = {"condition": {"caption": tokens(["a red star on blue stripes", "a green disk"])}}
SENTENCES = {
    "condition": {
        "text": F.normalize(torch.randn(2, 384, generator=torch.Generator().manual_seed(0)), dim=1),
        "style": [0, 2],
        "view": torch.tensor([[0.1, 0.0, 0.2, 0.5, 0.0, 0.3, 0.1], [0.0] * 7]),
        "look": torch.tensor([[0.5, 0.2, 0.3, 1.0, 0.0], [0.0] * 5]),
    }
}

WORLDS = [
    world("digits", settings={"condition": {"label": [3, 5]}}),
    world("scenes", settings=CAPTIONS),
    world("scenes-flow", settings=CAPTIONS),
    world("scenes-latent", settings=CAPTIONS),
    world("scenes-consistency", settings=CAPTIONS),
    world("scenes-weak", settings=CAPTIONS),
    world("scenes-generator"),
    world("scenes-gan"),
    world("emoji", settings=SENTENCES),
    world("galaxies"),
    world("galaxies-64"),
]

VALUES = [
    *(
        Case("update rule", name, make)
        for name, make in (
            ("chain", lambda: rules.chain(rules.scale(0.5), rules.clip(1.0))),
            ("scale", lambda: rules.scale(0.5)),
            ("clip", lambda: rules.clip(1.0)),
            ("clamp", lambda: rules.clamp(0.3)),
            ("normalise", rules.normalise),
            ("estimate_length", rules.estimate_length),
            ("rho", lambda: rules.rho(0.3)),
            ("root_loss", rules.root_loss),
            ("residual_norm", lambda: rules.residual_norm(0.5)),
            ("polyak", lambda: rules.polyak(0.1)),
            ("feedback", lambda: rules.feedback(0.5)),
            ("forward_weight", rules.forward_weight),
            ("of_x0", rules.of_x0),
            ("of_moved_x0", rules.of_moved_x0),
            ("of_x_t", lambda: rules.of_x_t(3.0)),
            ("increase", lambda: rules.increase(0.5)),
            ("decrease", lambda: rules.decrease(0.5)),
            ("variance", lambda: rules.variance(0.3)),
            ("adam", lambda: rules.adam(0.8, 0.9)),
        )
    ),
    Case("constraint", "Sphere", lambda: sg.Sphere(0.3), noisy=True),
    Case("window", "noise_window", lambda: sg.noise_window(0.2, 5.0)),
]

CASES: list[Case] = [
    *LOSSES,
    *PREDICTION_RULES,
    *PARTICLES,
    *TRAJECTORIES,
    *SOLVERS,
    *OBJECTIVES,
    *WORLDS,
    *VALUES,
]

RECIPES = {case.id: case.make for case in LOSSES}
"""How each row of loss guidance makes its recipe, (objective, **settings) -> recipe."""
