"""Law 9: nothing silent: bad input gets one sentence that says what to do."""

import inspect

import numpy as np
import pytest
import torch
from cases import RECIPES, every
from conftest import squares, tiny

import symguide as sg
from symguide.errors import ConfigError, GuidanceError


def run(**settings):
    return sg.sample(tiny(), **{"batch": 2, "steps": 4, **settings})


def nan_from(step, value=float("nan")):
    """An objective that turns bad at the given call, for sample 1 only."""
    calls = []

    def objective(x0):
        calls.append(1)
        bad = torch.tensor([0.0, value if len(calls) > step else 0.0])[: len(x0)]
        return squares(x0) + bad

    return objective


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"solver": "dimd"}, "unknown solver 'dimd': did you mean 'ddim'"),
        ({"grid": "uniforn"}, "unknown grid 'uniforn': did you mean 'uniform'"),
        ({"steps": 0}, "steps must be a whole number, at least 1"),
        ({"batch": 0}, "batch must be a whole number of samples"),
        ({"eta": 1.5}, "eta must be between 0"),
        ({"on_nan": "ignore"}, "on_nan is 'raise' or 'skip'"),
        ({"indices": [0, 1, 2]}, "speak of the same number of samples"),
        ({"batch": None, "indices": [-1]}, "must not be negative"),
        ({"condition": {"label": [0, 1, 2]}}, "has 3 rows for a batch of 2"),
        ({"start": torch.zeros(2, 7)}, "start has samples of shape"),
        ({"prediction": sg.CFG(2.0)}, "CFG strengthens a condition, and none is given"),
        ({"grid": lambda schedule, t, n: [t, 0.0]}, "the grid must give 5 times"),
        ({"loss": squares}, r"loss= takes a recipe, such as SAG\(objective\)"),
        ({"prediction": 3.0}, r"prediction= takes a rule such as CFG\(3.0\)"),
        ({"particles": 4}, "particles= takes a method"),
        ({"restart": 3}, "restart= takes Restart"),
        ({"restart": sg.Restart(1.0, 1.001)}, "no step of 4 lies between the noise levels"),
    ],
)
def test_settings_of_a_run(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run(**settings)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: sg.SAG(squares, n=0), "n must be a whole number, at least 1, not 0"),
        (lambda: sg.SAG(squares, n=2.5), "n must be a whole number, at least 1, not 2"),
        (lambda: sg.SAG(squares, scale=-1), "scale must not be negative"),
        (lambda: sg.SAG(squares, scale=float("nan")), "scale must be a finite number, not nan"),
        (lambda: sg.SAG(squares, window=(0.5, 0.2)), "window is"),
        (lambda: sg.SAG(squares, window=(0.5, 1.2)), "window is"),
        (lambda: sg.SAG(squares, repeats=0), "repeats must be"),
        (lambda: sg.SAG(squares, memory="fats"), "memory is 'minimal'"),
        (lambda: sg.SAG(squares, memory=-1), "memory is 'minimal'"),
        (lambda: sg.SAG(squares, jacobian="exat"), "did you mean 'exact'"),
        (lambda: sg.SAG(squares, solver="euler"), "unknown solver"),
        (lambda: sg.SAG(3), "an objective is a callable"),
        (lambda: sg.Sphere(1.5), "rate must be between 0"),
        (lambda: sg.LGD(squares, samples=0), "LGD's samples must be a whole number, at least 1"),
        (lambda: sg.UniversalGuidance(squares, backward_steps=-1), "backward_steps"),
        (lambda: sg.TFG(squares, rho=0, mu=0), "guides nothing: use scale=0"),
        (lambda: sg.TFG(squares, rho=-1), "rho must not be negative"),
        (lambda: sg.TFG(squares, sigma=-0.1), "must not be negative"),
        (lambda: sg.TFG(squares, inner=0), "TFG's inner must be a whole number, at least 1"),
        (lambda: sg.TFG(squares, samples=0), "TFG's samples must be"),
        (lambda: sg.ABMS(squares, samples=0), "ABMS's samples must be"),
        (lambda: sg.AdamDPS(squares, beta1=1.0), "betas must be at least 0"),
        (lambda: sg.ECM(squares, limit=0), "must be positive"),
        (lambda: sg.Dreamguider(squares, samples=0), "Dreamguider's samples must be"),
        (lambda: sg.Dreamguider(squares, augment=3), "augment takes a callable"),
        (lambda: sg.BestOfN(squares, 0), "whole number of particles"),
        (lambda: sg.noise_window(2, 1), "noise_window"),
        (lambda: sg.Restart(2.0, 1.0), "noise levels 0 <= low < high"),
        (lambda: sg.Restart(1.0, 2.0, times=-1), "times must be a whole number"),
        (lambda: sg.ClassifierGuidance(squares, form="epz"), "did you mean 'eps'"),
        (lambda: sg.Denoiser(lambda x, t: x, predicts="epsilon"), "did you mean 'eps'"),
        (lambda: sg.Denoiser(3), "network must be a callable"),
        (lambda: sg.load("digts"), "did you mean 'digits'"),
        (lambda: sg.timesteps([1, 2, 3]), "must be given falling"),
    ],
)
def test_settings_of_methods(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()


NOT_NUMBERS = ("0.5", None, torch.tensor([0.5]), True, float("inf"), [0.5])


@pytest.mark.parametrize("name", sg.loss_guidance.RECIPES)
def test_numbers_of_recipes_are_numbers(name):
    """Every parameter that is one by default: what is none is refused in a sentence that names it."""
    recipe = sg.loss_guidance.RECIPES[name]
    parameters = inspect.signature(recipe).parameters.items()
    numbers = [key for key, p in parameters if isinstance(p.default, int | float) and not isinstance(p.default, bool)]
    assert {"repeats"} <= set(numbers) - {"memory"}
    for key in numbers:
        for value in (*NOT_NUMBERS, -1.0):
            with pytest.raises(ConfigError, match=key if key[:4] != "beta" else "beta"):
                recipe(squares, **{key: value})
    for window in (0.5, (0, 0.5, 1), None, "ab", (0.0, "1"), (None, 1.0), torch.tensor(0.5)):
        with pytest.raises(ConfigError, match="window"):
            recipe(squares, window=window)


@pytest.mark.parametrize("name", sg.loss_guidance.RECIPES)
def test_numpys_numbers_are_numbers(name):
    recipe = sg.loss_guidance.RECIPES[name]
    settings = {"window": (np.float32(0.25), np.float64(1.0)), "repeats": np.int64(2)}
    for key in ("scale", "n", "samples", "gamma", "rate", "limit", "inner", "beta1"):
        default = getattr(inspect.signature(recipe).parameters.get(key), "default", None)
        if default is not None:
            settings[key] = (np.int32 if isinstance(default, int) else np.float32)(default)
    mine, plain = recipe(squares, **settings), recipe(squares, window=(0.25, 1.0), repeats=2)
    assert (mine.window, mine.repeats, type(mine.repeats)) == ((0.25, 1.0), 2, int)
    assert mine.scale == pytest.approx(plain.scale) and type(mine.scale) is float


def test_numbers_of_rules_are_numbers():
    rules = sg.rules
    bad = (*NOT_NUMBERS, float("nan"))
    for make in (rules.scale, rules.clip, rules.clamp, rules.rho, rules.residual_norm, rules.polyak, rules.feedback):
        for value in bad:
            with pytest.raises(ConfigError, match="must be a finite number"):
                make(value)
    for make in (rules.of_x_t, rules.increase, rules.decrease, rules.variance, rules.adam, sg.Sphere):
        for value in bad:
            with pytest.raises(ConfigError, match="must be a finite number"):
                make(value)
    for make in (rules.clip, rules.clamp, rules.rho, rules.residual_norm, rules.feedback, rules.of_x_t, rules.variance):
        with pytest.raises(ConfigError, match=r"must (not be negative|be positive)"):
            make(-1.0)
    with pytest.raises(ConfigError, match="must be a finite number, not None"):
        run(loss=sg.FreeDoM(squares, update=rules.scale(lambda t: None)))
    with pytest.raises(ConfigError, match=r"repeats at t = .* must be a whole number"):
        run(loss=sg.SAG(squares, repeats=lambda t: 1.5))


def test_recipes_say_what_they_do_not_take():
    for make, sentence in (
        (lambda: sg.FreeDoM(squares, n=3), r"FreeDoM.__init__\(\) got an unexpected keyword argument 'n'"),
        (lambda: sg.DSG(squares, scale=3), r"DSG.__init__\(\) got an unexpected keyword argument 'scale'"),
        (lambda: sg.LGD(squares, 4), r"LGD.__init__\(\) takes 2 positional arguments but 3 were given"),
        (lambda: sg.SAG.paper(squares, 4), r"paper\(\) takes 2 positional arguments but 3 were given"),
    ):
        with pytest.raises(TypeError, match=sentence):
            make()
    for make, sentence in (
        (lambda: sg.FreeDoM(squares, update=0.5), "update takes a rule"),
        (lambda: sg.rules.chain(sg.rules.normalise(), 0.5), r"chain takes rules, .* not 0\.5"),
        (lambda: sg.on_sphere(torch.zeros(1, 2), 1.0, torch.ones(1, 2), torch.ones(1, 2), 1.5), "rate must be between"),
        (lambda: sg.FreeDoM(squares, constraint=0.1), r"constraint takes one such as Sphere\(0.1\)"),
        (lambda: sg.MPGD(squares, eps="new"), "known: anew, fresh, own"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            make()


@pytest.mark.parametrize("name", sg.loss_guidance.RECIPES)
def test_every_parameter_after_the_objective_is_written_out_by_name(name):
    recipe = sg.loss_guidance.RECIPES[name]
    objective, *others = inspect.signature(recipe).parameters.values()
    assert objective.name == "objective" and {"window", "repeats"} <= {p.name for p in others}
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in others)
    assert {p.name for p in others} <= set(vars(recipe)["__annotations__"])
    assert {name for name in recipe.search_space()} <= {p.name for p in others}


def test_the_weight_of_the_forward_part_at_pure_noise():
    """sigma² / alpha has no bound at the start of a flow; from the second step on it is the paper's."""
    flow = tiny("flow", "v")
    recipe = sg.UniversalGuidance(squares, scale=1e-3, update=sg.rules.forward_weight())
    with pytest.raises(GuidanceError, match=r"no bound at t = 1, where x_t is all noise: begin after it"):
        sg.sample(flow, steps=4, loss=recipe)
    later = sg.UniversalGuidance(squares, scale=1e-3, update=sg.rules.forward_weight(), window=(0.01, 1))
    assert sg.sample(flow, steps=4, loss=later).trace[1].loss is not None


def test_schedules_that_are_zero_everywhere():
    """A run of one step from t = 1 to 0 has no variance for EluCD, and a flow's has no alpha for eps."""
    with pytest.raises(ConfigError, match=r"no step of 1 .*its schedule is 0"):
        run(steps=1, loss=sg.EluCD(squares))
    only = run(steps=2, loss=sg.EluCD(squares, gamma=0.0, scale=0.1)).trace  # std = 0 in the last step
    assert only[0].loss is not None and only[1].loss is None
    with pytest.raises(ConfigError, match=r"no step of 1 .*steps at alpha = 0"):
        sg.sample(tiny("flow", "v"), steps=1, loss=RECIPES["classifier"](squares))


def test_a_recipe_that_pushes_nothing():
    """Without a constraint it samples as the sampler does; on the sphere the noise decides alone."""

    class Watch(sg.Recipe):
        def push(self, step):
            return sg.loss_guidance.recipe.Push(torch.zeros_like(step.x), squares(step.prediction.x0))

    assert torch.equal(run(loss=Watch(squares)).samples, run().samples)
    radii = []

    class Seen(sg.Sphere):
        def __call__(self, step, change):
            x_s = super().__call__(step, change)
            z = step.noise / step.noise.norm(dim=1, keepdim=True)
            radii.append((x_s - step.mean() - step.radius * z).abs().max().item())
            return x_s

    run(loss=Watch(squares, constraint=Seen(0.5)))
    assert len(radii) == 3 and max(radii) < 1e-12


def test_windows_outside_the_run():
    with pytest.raises(ConfigError, match="no step of 4 lies in the window"):
        run(loss=sg.SAG(squares, window=(0.3, 0.45)))


def test_runs_of_the_last_step_alone():
    for loss in (sg.FreeDoM(squares), sg.DSG(squares), sg.MPGD(squares, constraint=sg.Sphere(0.1))):
        with pytest.raises(ConfigError, match=r"no step of 1 lies in the window .*the last step"):
            run(steps=1, loss=loss)
    assert run(steps=1, loss=sg.MPGD(squares)).trace[0].loss is not None


def test_eps_of_pure_noise():
    network = tiny().network
    with pytest.raises(ConfigError, match="start later"):
        sg.sample(sg.Denoiser(network, sg.RectifiedFlow(), "eps", shape=(6,)), steps=3)
    sg.sample(sg.Denoiser(network, sg.RectifiedFlow(t_max=0.99), "eps", shape=(6,)), steps=3)


def test_counts_over_time_are_checked():
    with pytest.raises(ConfigError, match=r"n at t = 0\.\d+ must be a whole number, at least 1, not 0"):
        run(loss=sg.SAG(squares, n=lambda t: int(2 * t)))
    with pytest.raises(ConfigError, match=r"repeats at t = 1\.0+ must be a whole number"):
        run(loss=sg.SAG(squares, repeats=lambda t: 0))


@every("loss guidance", where=lambda case: case.name != "pigdm")  # of measurements alone
def test_losses_of_the_wrong_shape_or_without_a_path(case):
    for objective, sentence in (
        (lambda x0: x0.sum(), "one loss per sample, shape"),
        (lambda x0: x0, "one loss per sample, shape"),
        (lambda x0: [0.0, 0.0], "this one returned list"),
        (lambda x0: squares(x0.detach()), "no gradient path to the sample"),
        (lambda x0: (x0 > 0).double().sum(dim=1), "no gradient path to the sample"),
    ):
        if case.id in ("lgd", "tfg", "tfg-sphere", "dreamguider") and "list" in sentence:
            continue  # they make a tensor of several losses
        with pytest.raises((GuidanceError, TypeError), match=sentence):
            run(loss=case.make(objective))


@every("loss guidance")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_name_step_and_sample(case, value):
    with pytest.raises(GuidanceError, match=r"step \d of 6 .*the loss is not finite for samples \[1\]"):
        run(steps=6, loss=case.make(nan_from(2 * case.asks, value)))


def test_gradients_that_are_not_finite():
    def pole(x0):
        return torch.where(x0 > -1e9, x0, x0).sub(x0.detach()).abs().sqrt().sum(dim=1)  # infinite slope at 0

    with pytest.raises(GuidanceError, match=r"step 0 of 4 .*the gradient is not finite"):
        run(loss=sg.FreeDoM(pole))


@every("loss guidance", where=lambda case: case.make(squares).repeats == 1)
def test_skip_leaves_the_bad_sample_unguided_and_the_good_one_guided(case):
    settings = {"steps": 6, "solver": "heun"}
    # not with repeats: time travel moves a sample that is not guided, too
    plain = run(**settings).samples
    good = run(**settings, loss=case.make(squares)).samples
    skipped = run(**settings, loss=case.make(nan_from(0)), on_nan="skip").samples
    assert torch.equal(skipped[1], plain[1])
    assert torch.allclose(skipped[0], good[0])
    assert not torch.allclose(good[0], plain[0])


def test_networks_that_break_say_where():
    def broken(x, timestep):
        return x / (timestep > 400).to(x)[:, None]

    with pytest.raises(GuidanceError, match=r"step \d of 5 \(t = .* made samples that are not finite"):
        sg.sample(sg.Denoiser(broken, shape=(3,)), steps=5)


def test_networks_of_the_wrong_output():
    for network, sentence in (
        (lambda x, timestep: (x,), "the network returned tuple, not a tensor"),
        (lambda x, timestep: torch.cat([x, x], dim=1), "cut off learned variances"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            sg.sample(sg.Denoiser(network, shape=(3,)), steps=2)


def test_networks_without_a_gradient():
    @torch.no_grad()
    def network(x, timestep):
        return torch.tanh(x)

    denoiser = sg.Denoiser(network, predicts="x0", shape=(3,))
    with pytest.raises(GuidanceError, match="no gradient path to x"):
        sg.sample(denoiser, steps=3, loss=sg.SAG(squares))
    sg.sample(denoiser, steps=3, loss=sg.SAG(squares, jacobian="identity"))


@every("loss guidance", where=lambda case: case.make(squares).constraint is not None)
def test_dsg_explains_deterministic_steps(case):
    with pytest.raises(GuidanceError, match=r"with eta = 0 the sphere .* use eta=1"):
        run(eta=0.0, loss=case.make(squares))
    with pytest.raises(GuidanceError, match="std = 0"):
        sg.on_sphere(torch.zeros(1, 2), 0.0, torch.zeros(1, 2), torch.ones(1, 2), 0.1)


def test_black_boxes_are_refused_where_a_gradient_is_needed():
    rule = sg.objectives.BlackBox(lambda x0: (x0 > 0).double().mean(dim=1))
    for recipe in (sg.SAG, sg.MPGD, sg.DPS):
        with pytest.raises(GuidanceError, match="the objective is a black box"):
            recipe(0.5 * rule + squares)
    run(particles=sg.BestOfN(rule, 3))


def test_the_rho_rule_needs_classifier_free_guidance():
    with pytest.raises(GuidanceError, match="pass prediction=CFG"):
        run(steps=10, loss=sg.SAG.paper(squares))


def test_classifier_guidance_needs_a_noise_aware_objective():
    for objective in (squares, squares + sg.objectives.Classifier(torch.nn.Linear(6, 2), 0)):
        with pytest.raises(GuidanceError, match=r"knows clean samples only.* objectives.NoisyClassifier"):
            run(loss=sg.ClassifierGuidance(objective))
    with pytest.raises(GuidanceError, match='form="mean" needs noisy steps'):
        run(eta=0.0, loss=RECIPES["classifier-mean"](squares))


def test_dps_refuses_negative_losses():
    with pytest.raises(GuidanceError, match="this one is negative"):
        run(loss=sg.DPS(lambda x0: -squares(x0)))


def test_look_ahead_arguments():
    denoiser, x = tiny(), torch.randn(2, 6)
    for settings, sentence in (
        ({"n": 0}, "n >= 1"),
        ({"t": 0.0}, r"t must be in \(0, 1\]"),
        ({"t": 1.5}, r"t must be in \(0, 1\]"),
        ({"solver": "heum"}, "did you mean 'heun'"),
        ({"memory": "most"}, "memory is"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            sg.lookahead_gradient(denoiser, x, settings.pop("t", 0.5), squares, **settings)
    with pytest.raises(GuidanceError, match=r"the loss is not finite for samples \[1\]$|for samples \[1\]:"):
        sg.lookahead_gradient(denoiser, x, 0.5, nan_from(0))


def test_shapes_must_be_known():
    with pytest.raises(ConfigError, match="pass shape="):
        sg.sample(sg.Denoiser(lambda x, timestep: x))


def test_closed_form_denoisers_check_their_numbers():
    for covariance, sentence in (
        (torch.eye(3), r"must be \(2, 2\)"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (-torch.eye(2), "positive semi-definite"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            sg.GaussianDenoiser(torch.zeros(2), covariance)
    with pytest.raises(ConfigError, match="weights"):
        sg.MixtureDenoiser(torch.zeros(2, 1), torch.eye(1), torch.tensor([1.0, 0.0]))
    with pytest.raises(ConfigError, match="fall from below 1"):
        sg.VP.discrete(alphas_cumprod=[0.5, 0.9])


def test_objectives_check_their_targets():
    x0 = torch.zeros(2, 4)
    with pytest.raises(ConfigError, match="noise of a measurement"):
        sg.objectives.Measurement(lambda x: x, x0, noise=0.0)
    with pytest.raises(ConfigError, match="A x_0 has shape"):
        sg.objectives.Measurement(lambda x: x[:, :2], torch.zeros(1, 3))(x0)
    with pytest.raises(ConfigError, match="has 3 rows, and there are 2 samples"):
        sg.objectives.Measurement(lambda x: x, torch.zeros(3, 4))(x0)
    with pytest.raises(ConfigError, match="selects nothing"):
        sg.objectives.Region(x0, torch.zeros(4))
    with pytest.raises(ConfigError, match="does not fit"):
        sg.objectives.Region(x0, torch.ones(3))
    with pytest.raises(ConfigError, match="labels must be classes 0 to 2"):
        sg.objectives.Classifier(torch.nn.Linear(4, 3), 5)(x0)
    with pytest.raises(ConfigError, match="multiplied with a number"):
        sg.objectives.BlackBox(len) * "2"
