"""Tuning: a strict budget, a true front, fair pruning, runs that repeat and go on, held-out samples."""

import json
import math
import subprocess
import sys
from collections import Counter
from itertools import product
from typing import Annotated

import pytest
import torch
from cases import RECIPES as MADE
from conftest import Tiny, squares, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import symguide as sg
from symguide.loss_guidance import RECIPES
from symguide.ranges import Around, Choice, Maybe, Range, Window
from symguide.tuning import ByIndex, Trial, front, measure, search
from symguide.tuning.measure import hopeless, signed_rank
from symguide.tuning.space import build
from symguide.tuning.tune import calls

SMALL = {"num": 3, "seeds": (1, 2), "batch": 2, "steps": 5}


def oracle():
    return sg.GaussianDenoiser(torch.zeros(4), torch.eye(4))


def same(trials):
    """All of trials that does not depend on the clock."""
    return [{key: value for key, value in vars(trial).items() if key != "seconds"} for trial in trials]


def spent(denoiser):
    return denoiser.network.forward_rows + denoiser.network.backward_rows


class Toward(sg.Recipe):
    """A step toward a place at `aim`, which takes `extra` calls that it has no use for."""

    def __init__(self, objective, aim=0.0, extra=0):
        super().__init__(objective)
        self.aim, self.extra = aim, extra

    def push(self, step):
        for _ in range(self.extra):
            step.run.predict(step.x, step.t)
        x0 = step.prediction.x0
        return sg.loss_guidance.recipe.Push(x0, self.objective(x0), x0=self.aim - x0)


class Half(Tiny):
    """A network whose clean estimates are half of what it is given."""

    def forward(self, x, timestep, label=None):
        return 0.5 * x + 0 * super().forward(x, timestep, label)


def distance(x0):
    return (x0 - 1).square().mean(dim=1)


# The budget


@pytest.mark.parametrize("budget", [900, 1600])
@pytest.mark.parametrize("methods", [sg.SAG, ["dps", "mpgd"]])
def test_the_budget_is_never_exceeded_and_what_is_spent_is_what_the_network_saw(methods, budget):
    denoiser = tiny()
    tuned = sg.tune(denoiser, methods, objective=squares, budget=budget, **SMALL)
    assert spent(denoiser) == tuned.spent <= budget
    assert len(tuned.trials) > 1


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("rule", [None, sg.CFG(2.0)])
def test_what_a_trial_costs_is_known_before_it_is_drawn(name, rule):
    settings = {"steps": 5, "prediction": rule, "solver": "heun"}
    denoiser = tiny()
    foreseen = calls(denoiser, settings, {"label": 1}, MADE[name])
    assert spent(denoiser) == 0
    cost = sg.sample(denoiser, batch=2, condition={"label": 1}, loss=MADE[name](squares), **settings).cost
    assert foreseen == (cost.forward_calls, cost.backward_calls)


def test_an_automatic_memory_plan_is_foreseen_at_its_most():
    settings = {"steps": 4, "prediction": None}
    assert calls(tiny(), settings, {}, lambda o: sg.SAG(o, n=3, memory="auto")) == (4 + 3 * 4, 3 * 3)


def test_a_budget_that_does_not_hold_the_defaults():
    with pytest.raises(sg.ConfigError, match=r"100 network calls.* take, [\d,]+: give more, or use fewer"):
        sg.tune(tiny(), sg.SAG, objective=squares, budget=100, **SMALL)


def test_trials_that_diverge_are_failed_charged_and_never_best():
    def torn(x0):
        return torch.where((x0.abs() > 30).any(dim=1), math.nan, distance(x0))

    denoiser = sg.Denoiser(Half(), predicts="x0", shape=(6,))
    tuned = sg.tune(
        denoiser, "mpgd", objective=distance, metric=torn, budget=2500, space={"scale": [0.2, 0.4, 1e3, 1e4]}, **SMALL
    )
    states = {trial.settings["scale"]: trial.state for trial in tuned.trials}
    assert states[1e4] == "failed" and tuned.settings["scale"] in (0.2, 0.4)
    assert spent(denoiser) <= tuned.spent <= 2500

    def broken(x0):
        return distance(x0) * torch.where((x0.abs() > 30).any(dim=1), math.nan, 1.0)

    denoiser = sg.Denoiser(Half(), predicts="x0", shape=(6,))
    space = {"scale": [0.2, 1e4]}
    told = {"space": space, "budget": 2500, "num": 4, "seeds": (1,), "steps": 5}
    tuned = sg.tune(denoiser, "mpgd", objective=broken, metric=distance, **told)
    failed = next(trial for trial in tuned.trials if trial.settings["scale"] == 1e4)
    assert failed.state == "failed" and "loss" in failed.why and tuned.settings["scale"] == 0.2
    assert spent(denoiser) < tuned.spent <= 2500  # a part that stops on the way counts as whole


# The front


numbers = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=12)


@given(numbers)
def test_the_front_is_that_of_brute_force(points):
    trials = [Trial(i, "sag", {}, "complete", [float(v)], [], c, 0, 0.0) for i, (c, v) in enumerate(points)]
    beaten = [any((d <= c and w < v) or (d < c and w <= v) for d, w in points) for c, v in points]
    expected = {point for point, lost in zip(points, beaten, strict=True) if not lost}
    found = [(trial.calls, int(trial.value)) for trial in front(trials)]
    assert set(found) == expected and len(found) == len(expected) and found == sorted(found)


def test_a_small_space_is_searched_whole_and_its_front_is_that_of_single_runs(monkeypatch):
    monkeypatch.setattr(measure, "hopeless", lambda *told: "")
    space = {"scale": [0.1, 0.5, 2.0], "n": [1, 2, 4]}
    tuned = sg.tune(oracle(), sg.SAG, objective=distance, budget=100_000, space=space, **SMALL)
    assert len(tuned.trials) == 9 and tuned.spent < 100_000
    points = {}
    for scale, n in product(*space.values()):
        runs = [sg.sample(oracle(), batch=3, steps=5, seed=s, loss=sg.SAG(distance, n=n, scale=scale)) for s in (1, 2)]
        value = torch.cat([distance(run.samples) for run in runs]).mean().item()
        points[scale, n] = (runs[0].cost.forward_calls + runs[0].cost.backward_calls, value)

    def beaten(c, v):
        return any(d <= c and w <= v and (d, w) != (c, v) for d, w in points.values())

    best = {key for key, point in points.items() if not beaten(*point)}
    assert {(trial.settings["scale"], trial.settings["n"]) for trial in tuned.front} == best
    for trial in tuned.trials:
        point = points[trial.settings["scale"], trial.settings["n"]]
        assert (trial.calls, pytest.approx(trial.value, rel=1e-9)) == point


def test_the_best_is_never_worse_than_the_defaults_which_come_first():
    for seed in range(2):
        tuned = sg.tune(oracle(), [sg.SAG, sg.MPGD], objective=distance, budget=1500, seed=seed, **SMALL)
        first, second = tuned.defaults
        assert (first.method, second.method) == ("sag", "mpgd") and first.settings["n"] == 2
        assert second.settings == {"scale": 0.2, "window": [0.0, 1.0], "repeats": 1}
        assert tuned.best.value <= min(first.value, second.value)


# Pruning


def test_pruning_saves_calls_where_half_of_the_space_is_hopeless(monkeypatch):
    told = {"objective": distance, "budget": 3000, "num": 24, "seeds": (5,), "batch": 6, "steps": 4}
    told |= {"space": {"aim": Range(-3.0, 3.0)}}
    tuned = sg.tune(oracle(), Toward, **told)
    whole = 24 * tuned.trials[0].calls
    stopped = [trial for trial in tuned.trials if trial.state == "pruned"]
    assert len(stopped) >= 5 and all(len(trial.values) < 24 and "worse than trial" in trial.why for trial in stopped)
    assert tuned.spent < whole * len(tuned.trials)
    for trial in stopped:  # what was stopped would have lost
        samples = sg.sample(oracle(), batch=24, seed=5, steps=4, loss=tuned.recipe(distance, trial)).samples
        rivals = [t for t in tuned.eligible if t.calls <= trial.calls]
        assert distance(samples).mean() > min(rival.value for rival in rivals)
    assert abs(tuned.settings["aim"] - 1) < 0.25
    monkeypatch.setattr(measure, "hopeless", lambda *told: "")
    patient = sg.tune(oracle(), Toward, **told)
    assert len(patient.trials) < len(tuned.trials)


def test_cheap_trials_that_are_worse_are_not_pruned():
    """The more calls, the better: every trial is on the front, whatever came before it."""

    def make(objective, level=0):
        return Toward(objective, aim=0.25 * level, extra=level)

    for seed in range(3):
        told = {"num": 24, "seeds": (5,), "batch": 6, "steps": 4, "space": {"level": [4, 3, 2, 1, 0]}}
        tuned = sg.tune(oracle(), make, objective=distance, budget=20_000, seed=seed, **told)
        assert len(tuned.trials) == 5 and {trial.state for trial in tuned.trials} == {"complete"}
        assert [trial.settings["level"] for trial in tuned.front] == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(-5, 5).filter(bool), min_size=1, max_size=9))
def test_the_signed_rank_test_is_that_of_all_signs(values):
    def ranks(numbers):
        sizes = [abs(number) for number in numbers]
        return [sum(s < size for s in sizes) + (sum(s == size for s in sizes) + 1) / 2 for size in sizes]

    own = ranks(values)
    reached = sum(rank for rank, value in zip(own, values, strict=True) if value > 0)
    every = product((0, 1), repeat=len(own))
    sums = [sum(rank for rank, plus in zip(own, signs, strict=True) if plus) for signs in every]
    assert signed_rank(values) == pytest.approx(sum(total >= reached for total in sums) / len(sums))


def test_hopeless_is_a_paired_test_against_no_dearer_trials_and_the_floor():
    rival = Trial(3, "sag", {}, "complete", [float(i % 7) for i in range(12)], [], 9, 0, 0.0)
    worse = [value + 0.01 for value in rival.values]  # little beside the spread of samples, but in every pair
    assert "worse than trial 3 after 6" in hopeless(worse[:6], [], [rival], None)
    assert not hopeless(worse[:3], [], [rival], None)  # three pairs cannot be sure
    assert not hopeless([v - 0.01 for v in rival.values[:6]], [], [rival], None)
    assert not hopeless(list(rival.values[:6]), [], [rival], None)
    assert "keeps 0 after 4" in hopeless([0.0] * 4, [0.0] * 4, [], 0.5)
    assert not hopeless([0.0] * 4, [0.0, 1.0, 0.0, 1.0], [], 0.7)


# What must not be lost


def test_what_keeps_less_than_the_floor_is_not_chosen():
    told = {"objective": distance, "keep": lambda x0: (x0.mean(dim=1) < 0.5).double(), "budget": 4000, **SMALL}
    told |= {"space": {"aim": [0.0, 0.2, 0.4, 0.7, 1.0]}}
    tuned = sg.tune(oracle(), Toward, floor=0.5, **told)
    assert tuned.settings == {"aim": 0.4} and tuned.best.keep == 1.0
    kept = {trial.settings["aim"]: trial.keep for trial in tuned.trials}
    assert len(kept) == 5 and kept[0.7] < 0.5 and kept[1.0] < 0.5
    assert sg.tune(oracle(), Toward, **told).floor == pytest.approx(tuned.unguided.keep - 0.1)
    lost = sg.tune(oracle(), Toward, **told, floor=2.0)
    assert lost.front == [] and lost.defaults[0].state == "complete"
    with pytest.raises(sg.ConfigError, match=r"no trial can be chosen.*keeps 2.*lower the floor"):
        lost.best  # noqa: B018


# Runs that repeat, and go on


def test_the_same_seed_gives_the_same_trials_and_another_other_ones():
    told = {"objective": squares, "budget": 1100, **SMALL}
    first, again, other = (sg.tune(tiny(), [sg.FreeDoM, sg.DPS], seed=s, **told) for s in (0, 0, 1))
    assert len(first.trials) > search.RANDOM + 4  # the estimator has had its say
    assert same(first.trials) == same(again.trials) and first.spent == again.spent
    assert [t.settings for t in first.trials] != [t.settings for t in other.trials]


def test_parts_are_the_undivided_run():
    told = {"objective": squares, "budget": 4000, "num": 4, "seeds": (3,), "steps": 5, "space": {"scale": [0.1, 0.3]}}
    settings = {"condition": {"label": torch.tensor([0, 1, 2, 3])}, "prediction": sg.CFG(2.0)}
    whole, parts = (sg.tune(tiny(), sg.FreeDoM, batch=b, **told, **settings) for b in (None, 1))
    assert [t.settings for t in whole.trials] == [t.settings for t in parts.trials]
    for one, other in zip(whole.trials, parts.trials, strict=True):
        drawn = len(other.values)
        assert other.values == pytest.approx(one.values[:drawn], rel=1e-9) and one.calls == other.calls
    direct = sg.sample(tiny(), batch=4, steps=5, seed=3, loss=whole.recipe(squares), **settings)
    assert whole.best.values == pytest.approx(squares(direct.samples).tolist(), rel=1e-9)


@pytest.mark.parametrize("stop", [1, 25])
def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path, stop):
    told = {"objective": squares, "budget": 900, **SMALL}
    whole = sg.tune(tiny(), sg.DPS, **told)
    asked = Counter()

    def interrupted(x0):
        asked["metric"] += 1
        if asked["metric"] == stop:
            raise KeyboardInterrupt
        return squares(x0)

    log, first = tmp_path / "trials.jsonl", tiny()
    with pytest.raises(KeyboardInterrupt):
        sg.tune(first, sg.DPS, metric=interrupted, log=log, **told)
    assert not log.exists() if stop == 1 else all(map(json.loads, log.read_text().splitlines()))
    then = tiny()
    tuned = sg.tune(then, sg.DPS, log=log, **told)
    assert same(tuned.trials) == same(whole.trials) and tuned.spent == whole.spent
    assert spent(first) + spent(then) <= whole.spent + 6 * max(trial.calls for trial in whole.trials)
    rest = tiny()
    assert same(sg.tune(rest, sg.DPS, log=log, **told).trials) == same(whole.trials)
    assert spent(rest) == 0 and [path.name for path in tmp_path.iterdir()] == ["trials.jsonl"]


def test_more_budget_adds_to_a_search(tmp_path):
    log, told = tmp_path / "log", {"objective": squares, **SMALL}
    before = sg.tune(tiny(), sg.DPS, budget=700, log=log, **told)
    denoiser = tiny()
    after = sg.tune(denoiser, sg.DPS, budget=1400, log=log, **told)
    assert same(after.trials[: len(before.trials)]) == same(before.trials) and len(after.trials) > len(before.trials)
    assert before.spent + spent(denoiser) == after.spent <= 1400


def test_a_log_of_another_search_and_what_is_none(tmp_path):
    log, told = tmp_path / "log", {"objective": squares, "budget": 700, **SMALL}
    sg.tune(tiny(), sg.DPS, log=log, **told)
    with pytest.raises(sg.ConfigError, match=r"trials of another search: seed \(0 there, 3 here\)"):
        sg.tune(tiny(), sg.DPS, log=log, seed=3, **told)
    lines = log.read_text().splitlines()
    edited = json.loads(lines[3]) | {"settings": {"scale": 77.0}}
    log.write_text("\n".join([*lines[:3], json.dumps(edited)]))
    with pytest.raises(sg.ConfigError, match=r"line 4 of .* is not what the search proposes"):
        sg.tune(tiny(), sg.DPS, log=log, **told)
    log.write_text("dear diary\n")
    with pytest.raises(sg.ConfigError, match="no record of a search"):
        sg.tune(tiny(), sg.DPS, log=log, **told)


# Is it any good?


def test_held_out_samples_are_better_than_by_the_defaults():
    """Super-resolution of digits by DPS, whose default scale is that of the paper's 1000 steps: here there are 6."""
    torch.set_default_dtype(torch.float32)
    denoiser = sg.load("digits")
    truth = sg.sample(denoiser, batch=8, steps=10, seed=77).samples
    half = sg.objectives.Downsample(2)
    objective = sg.objectives.Measurement(half, half(truth))

    def error(samples):  # of all pixels, which guidance never sees
        return (samples - truth).square().flatten(1).mean(dim=1)

    told = {"num": 8, "seeds": (1000,), "steps": 6, "budget": 1200, "space": {"scale": Range(0.1, 10.0, log=True)}}
    tuned = sg.tune(denoiser, sg.DPS, objective=objective, metric=error, **told)
    for seed in (0, 1, 2):
        default, best = (
            error(sg.sample(denoiser, batch=8, steps=6, seed=seed, loss=recipe).samples).mean()
            for recipe in (sg.DPS(objective), tuned.recipe(objective))
        )
        assert best < 0.7 * default, (seed, best, default, tuned.best)


# What cannot be used


@pytest.mark.parametrize(
    "told, why",
    [
        ({"metric": lambda x0: x0}, r"metric gave shape \(2, 6\) for 2 samples"),
        ({"metric": lambda x0: squares(x0).mean()}, r"metric gave shape \(\)"),
        ({"keep": lambda x0: [1.0]}, "keep gave shape"),
        (
            {"metric": lambda x0: squares(x0) * math.nan},
            "unguided samples cannot be measured: the metric",
        ),
        ({"space": {}}, "nothing of sag is left to search"),
        ({"space": {"n": [2]}, "fixed": {"n": 2}}, "nothing of sag is left to search"),
        ({"space": {"rate": Range(0.1, 1.0)}}, "unknown parameter of sag: 'rate'"),
        ({"fixed": {"rate": 0.1}}, "unknown parameter of sag: 'rate'"),
        ({"space": {"memory": None}}, "memory has no range of its own"),
        ({"space": {"scale": 3}}, r"a range is Range\(low, high\)"),
        ({"space": {"scale": [0.1, 0.1]}}, "values that differ"),
        (
            {"space": {"scale": Range(-1.0, 1.0)}},
            "sag cannot be searched with scale = -1.0: .*negative",
        ),
        ({"space": {"n": Range(1.0, 4.5)}}, "sag cannot be searched with n = 1.0"),
        ({"space": {"jacobian": ["exact", "frist"]}}, "unknown jacobian"),
        ({"methods": "sga"}, "unknown method 'sga': did you mean 'sag'"),
        ({"methods": []}, "name a method"),
        ({"methods": [sg.SAG, "sag"]}, "named twice"),
        ({"methods": sg.SAG(squares)}, "takes a recipe's class"),
        ({"methods": lambda objective, x=1: sg.SAG(objective)}, "says no ranges of its own"),
        ({"num": 0}, "num is a number of samples"),
        ({"batch": 1.5}, "batch is a number of samples"),
        ({"seeds": ()}, "seeds that differ"),
        ({"seeds": (1, 1)}, "seeds that differ"),
        ({"steps": 0}, "steps must be"),
        ({"sovler": "ddim"}, "unknown setting of tune 'sovler': did you mean 'solver'"),
        ({"eta": 0.0, "methods": "dsg"}, "eta=1"),
    ],
)
def test_errors_say_what_is_wrong(told, why):
    told = {"methods": sg.SAG, "objective": squares, "budget": 5000, **SMALL, **told}
    denoiser = tiny()
    with pytest.raises(sg.SymguideError, match=why):
        sg.tune(denoiser, told.pop("methods"), **told)
    assert spent(denoiser) < 200


def test_rules_and_constraints_are_fixed_as_values_or_as_text(tmp_path):
    told = {"objective": squares, "budget": 700, "space": {"scale": [0.1, 0.5]}, **SMALL}
    values = {"update": sg.rules.clip(1.0), "window": sg.noise_window(0.1, 50.0), "n": 1}
    made = sg.tune(tiny(), "sag", fixed=values, log=tmp_path / "log.jsonl", **told)
    assert made.settings["update"] == "clip(1.0)" and made.settings["window"] == "noise_window(0.1, 50.0)"
    assert made.recipe(squares).update == sg.rules.clip(1.0)
    text = {"update": "clip(1.0)", "window": "noise_window(0.1, 50.0)", "n": 1}
    again = sg.tune(tiny(), "sag", fixed=text, log=tmp_path / "log.jsonl", **told)
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in made.trials]
    with pytest.raises(sg.ConfigError, match=r"n of sag is .* which no file can hold"):
        sg.tune(tiny(), "sag", fixed={"n": lambda t: 1}, **told)


def test_functions_say_their_ranges_in_their_signature():
    def mine(objective, scale: Annotated[float, Around(2.0)] = 0.5, n: Annotated[int, Range(1, 3)] = 1):
        return sg.SAG(objective, scale=scale, n=n)

    assert build(mine, None, None).methods["mine"].domains == {"scale": Range(0.25, 1.0, log=True), "n": Range(1, 3)}


def test_unknown_ranges():
    for bad in ((1.0, 1.0), (2, 1), (0.0, math.inf)):
        with pytest.raises(sg.ConfigError, match="low < high"):
            Range(*bad)
    with pytest.raises(sg.ConfigError, match="start must stay before its stop"):
        Window(Range(0.0, 0.6), Range(0.5, 1.0))


def test_without_noise_there_is_no_sphere_to_search():
    tuned = sg.tune(tiny(), sg.MPGD, objective=squares, budget=700, eta=0.0, **SMALL)
    assert not any("constraint" in trial.settings or trial.state == "failed" for trial in tuned.trials)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_ranges_that_hold_its_defaults_and_that_it_takes(name):
    space = build(name, None, None)
    assert "window" in space.methods[name].domains and space.asked(name) is not None
    if name not in ("dsg",):
        assert "scale" in space.methods[name].domains


class Asked:
    """An Optuna trial that answers with the low ends, or the high ones."""

    def __init__(self, high):
        self.high = high

    def suggest_int(self, name, low, high, log=False):
        return high if self.high else low

    suggest_float = suggest_int

    def suggest_categorical(self, name, values):
        return values[-1 if self.high else 0]


def test_ranges_ask_for_what_they_say():
    domains = [Range(1, 8), Range(0.12345, 3.0), Choice("a", "b"), Choice(1, 2, 4), Maybe(Range(0.1, 0.5))]
    assert [d.suggest(Asked(False), "x") for d in domains] == [1, 0.12345, "a", 1, None]
    assert [d.suggest(Asked(True), "x") for d in domains] == [8, 3.0, "b", 4, 0.5]
    assert Window(Range(0.0, 0.4), Range(0.6, 1.0)).suggest(Asked(True), "x") == (0.4, 1.0)
    assert [d.asked("x", v) for d, v in zip(domains, (9, 0.2, "c", 4, 0.3), strict=True)] == [
        None, {"x": 0.2}, None, {"x": 2}, {"x": 0.3, "x?": True},
    ]  # fmt: skip


@settings(max_examples=30)
@given(st.floats(0.05, 3.0))
def test_numbers_have_three_digits_and_stay_inside(value):
    class One:
        def suggest_float(self, name, low, high, log):
            return value

    found = Range(0.05, 3.0, log=True).suggest(One(), "x")
    assert float(f"{found:.3g}") == found and 0.05 <= found <= 3.0 and abs(found - value) < 0.006 * value


def test_objectives_and_metrics_by_index():
    aims = torch.arange(6.0)

    def toward(indices):
        return lambda x0: (x0 - aims[list(indices), None]).square().mean(dim=1)

    told = {"num": 6, "batch": 4, "seeds": (1,), "steps": 4, "budget": 3000, "space": {"scale": [0.2, 1.0, 4.0]}}
    by_index = sg.tune(oracle(), sg.MPGD, objective=ByIndex(toward), metric=ByIndex(toward), **told)
    together = sg.tune(oracle(), sg.MPGD, objective=toward(range(6)), **{**told, "batch": None})
    assert by_index.settings == together.settings
    assert by_index.best.values == pytest.approx(together.best.values)


def test_optuna_is_imported_when_it_is_needed():
    code = """
import sys, torch, symguide as sg
assert not {"optuna", "diffusers"} & set(sys.modules)
sys.modules["optuna"] = None
try:
    sg.tune(sg.GaussianDenoiser(torch.zeros(2), torch.eye(2)), sg.SAG, objective=lambda x0: x0.sum(1), budget=10**6)
except sg.ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'tuning needs optuna: pip install "symguide[tune]"\n'


def test_optunas_remarks_and_settings_are_left_alone(recwarn):
    import optuna

    before = optuna.logging.get_verbosity()
    sg.tune(tiny(), [sg.DPS, sg.MPGD], objective=squares, budget=1000, **SMALL)
    assert optuna.logging.get_verbosity() == before
    assert not [warning for warning in recwarn if "optuna" in str(warning.filename)]
