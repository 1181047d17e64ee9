"""Recipes, rules and constraints are values: equal where they are made alike, shared by threads, written to files."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import pytest
import torch
import yaml
from cases import every
from conftest import squares, tiny

import symguide as sg
from symguide import rules
from symguide.loss_guidance import RECIPES
from symguide.registry import VALUES, from_settings, parameters, read, registry_of, to_settings

OTHER = {
    "scale": 0.7,
    "rate": 0.3,
    "window": (0.2, 0.9),
    "repeats": 2,
    "n": 3,
    "update": rules.chain(rules.rho(0.3), rules.clip(length=1.5), rules.adam(0.8)),
    "constraint": sg.Sphere(0.25),
    "solver": "heun",
    "grid": "karras",
    "memory": 1,
    "jacobian": "first",
    "samples": 5,
    "beta1": 0.5,
    "beta2": 0.6,
    "form": "mean",
    "limit": 0.5,
    "gamma": 0.1,
    "eps": "anew",
    "rho": rules.chain(rules.increase(0.4), rules.of_x_t(most=3.0)),
    "mu": 0.5,
    "inner": 2,
    "sigma": 0.3,
    "backward_steps": 2,
    "backward_rate": 0.1,
    "augment": None,
    "path": "own",
    "eta": 0.5,
}
"""For every parameter of a recipe a value that is no default, but for what no file can hold."""
TOGETHER = {"samples": {"path": "fresh"}}
"""What a parameter is given with, where it is refused alone by recipes that have the other one."""


def aim(x0):
    return squares(x0)


def changed(name):
    recipe = RECIPES[name]
    given = {key: OTHER[key] for key in parameters(recipe) if key != "objective"}
    if drawn(name):
        given = {key: value for key, value in given.items() if key != "grid"} | {"path": "fresh"}
    return recipe(aim, **{key: value for key, value in given.items() if key != "path" or drawn(name)})


def drawn(name):
    """Whether a recipe looks ahead with noise of its own."""
    return {"path", "samples"} <= parameters(RECIPES[name]).keys() and "fresh" in RECIPES[name].paths


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_that_are_made_alike_are_equal_and_others_are_not(name):
    plain, other = RECIPES[name](aim), changed(name)
    assert plain == RECIPES[name](aim) and hash(plain) == hash(RECIPES[name](aim))
    assert other == changed(name) != plain
    assert plain != RECIPES[name](squares)
    for key in parameters(RECIPES[name]):
        if key not in ("objective", "augment", "grid"):
            beside = TOGETHER.get(key, {}) if drawn(name) else {}
            assert RECIPES[name](aim, **{key: OTHER[key]}, **beside) != RECIPES[name](aim, **beside), key


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps])
def test_recipes_come_back_from_files(name, write):
    read_back = yaml.safe_load if write is yaml.safe_dump else json.loads
    for recipe in (RECIPES[name](aim), changed(name), RECIPES[name](aim, window=sg.noise_window(0.5, float("inf")))):
        settings = to_settings(recipe)
        assert settings["method"] == name and settings.keys() - {"method"} == parameters(type(recipe)).keys() - {
            "objective"
        }
        assert from_settings("loss guidance", aim, read_back(write(settings))) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_never_change(name):
    recipe = RECIPES[name](aim)
    with pytest.raises(FrozenInstanceError):
        recipe.window = (0.0, 0.5)


@every("prediction guidance", "trajectory optimisation", where=lambda case: case.name not in ("autoguidance", "dflow"))
def test_other_methods_are_values_and_come_back_from_files(case):
    method = case.make()
    assert method == case.make() and hash(method) == hash(case.make())
    settings = yaml.safe_load(yaml.safe_dump(to_settings(method)))
    assert settings["method"] == case.name and from_settings(case.kind, None, settings) == method


SHARED = {
    "adam": lambda: sg.AdamDPS(aim, repeats=2, constraint=sg.Sphere(0.1)),
    "rules": lambda: sg.SAG(aim, update=rules.chain(rules.normalise(), rules.adam())),
    "draws": lambda: sg.TFG(aim, samples=2),
    "augmented": lambda: sg.Dreamguider(aim),
}


@pytest.mark.parametrize("name", SHARED)
def test_four_threads_share_a_recipe(name):
    recipe = SHARED[name]()
    alone = [sg.sample(tiny(), batch=2, steps=6, seed=seed, loss=SHARED[name]()).samples for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda seed: sg.sample(tiny(), batch=2, steps=6, seed=seed, loss=recipe).samples, range(4))
        )
    assert all(map(torch.equal, alone, together))


def made(thing):
    """A rule, constraint or window with its defaults, and 0.5 where there are none."""
    given = [0.5 * (i + 1) for i, p in enumerate(parameters(thing).values()) if p.required]
    return thing(*given)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in VALUES for name in registry_of(kind)])
def test_rules_constraints_and_windows_are_values(kind, name):
    thing = registry_of(kind)[name]
    value = made(thing)
    assert value == made(thing) and hash(value) == hash(made(thing))
    settings = to_settings(sg.SAG(aim, **{{"update rule": "update"}.get(kind, kind): value}))
    text = settings[{"update rule": "update"}.get(kind, kind)]
    assert text.startswith(f"{name}(") and read(text) == value


def test_rules_are_equal_by_what_they_are_made_with():
    assert rules.rho() == rules.rho(0.2) == rules.rho(factor=0.2) != rules.rho(0.3)
    assert rules.clip(1.0) != rules.clamp(1.0)
    assert rules.chain(rules.normalise(), rules.clip(1.0)) != rules.chain(rules.clip(1.0), rules.normalise())
    assert rules.adam() == rules.adam(0.9) != rules.adam(0.5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rho(0.2", "is no call such as"),
        ("rhoo(0.2)", "unknown rule, constraint or window 'rhoo': did you mean 'rho'"),
        ("rho(factro=0.2)", r"rho in 'rho\(factro=0.2\)': got an unexpected keyword argument"),
        ("clip(-1.0)", "must be positive"),
        ("rho(open)", "has more in it than calls, numbers and text"),
        ("__import__('os').system('true')", "unknown rule"),
        ("chain(rho(0.1), [n for n in (1, 2)])", "has more in it"),
        ("scale(9**9**9)", "has more in it"),
    ],
)
def test_texts_that_are_no_values(text, why):
    with pytest.raises(sg.ConfigError, match=why):
        read(text)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"scale": 1.0}, "settings of a method name it"),
        ({"method": "sga"}, "unknown loss guidance 'sga': did you mean 'sag'"),
        ({"method": "sag", "rate": 0.1}, "unknown parameter of sag: 'rate'"),
        ({"method": "sag", "objective": "style"}, "unknown parameter of sag: 'objective'"),
        ({"method": "sag", "n": 0}, "n must be"),
    ],
)
def test_settings_that_make_no_recipe(settings, why):
    with pytest.raises(sg.ConfigError, match=why):
        from_settings("loss guidance", aim, settings)


def test_what_no_file_can_hold_is_refused():
    with pytest.raises(sg.ConfigError, match=r"n of sag is .* which no file can hold"):
        to_settings(sg.SAG(aim, n=lambda t: 2))
    with pytest.raises(sg.ConfigError, match=r"update of sag is .* which no file can hold"):
        to_settings(sg.SAG(aim, update=rules.chain(rules.scale(lambda t: t))))

    class Mine(sg.SAG): ...

    with pytest.raises(sg.ConfigError, match="Mine is not registered"):
        to_settings(Mine(aim))
