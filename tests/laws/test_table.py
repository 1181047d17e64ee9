"""Law 11: nothing registered is untested, and all of it says what it does, takes, costs and comes from."""

import inspect
import re

import pytest
from cases import CASES, every, of
from conftest import squares

from symguide.registry import REGISTRIES, parameters

METHODS = ("loss guidance", "prediction guidance", "particle guidance", "trajectory optimisation")


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_name_has_a_row_of_the_case_table(kind):
    assert {case.name for case in of(kind)} == set(REGISTRIES[kind])


def test_rows_are_told_apart():
    assert len({(case.kind, case.id) for case in CASES}) == len(CASES)


@every(*METHODS, "constraint")
def test_rows_make_what_is_registered(case):
    given = () if case.kind not in ("loss guidance", "particle guidance") else (squares,)
    assert type(case.make(*given)) is REGISTRIES[case.kind][case.name]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in METHODS for name in REGISTRIES[kind]])
def test_methods_say_what_they_take_and_what_that_costs(kind, name):
    """Every argument by its own name, so that nobody must look it up elsewhere."""
    thing = REGISTRIES[kind][name]
    text = inspect.getdoc(thing)
    told = re.search(r"^Args:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE)
    named = {
        word.strip() for line in re.findall(r"^    (\w[\w, ]*):", told[1], re.MULTILINE) for word in line.split(",")
    }
    assert named == set(parameters(thing))
    assert re.search(r"^Cost", text, re.MULTILINE)


@pytest.mark.parametrize("name", REGISTRIES["objective"])
def test_objectives_say_what_they_take(name):
    thing = REGISTRIES["objective"][name]
    assert inspect.getdoc(thing).splitlines()[0].endswith((".", ":"))
