"""The tiers of tests: the fast one (make check), the whole suite (make test), and what is beside it (make test-slow).

Tests need no mark of their own. Of a test with several parameters the fast tier has a covering in place of the product:
every value of every parameter, and of three or more parameters every pair of values. Single cases that take long are
listed in full.txt, which is made of a run's times; what has a quicker case of its mechanism in the suite is in SLOW.
"""

import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree


def covered(rows):
    """Indices of some rows that have every value of every column, and of three or more columns every pair of values.

    >>> covered([(a, b) for a in "xy" for b in "123"])
    [0, 4, 2]
    """
    strength = 2 if rows and len(rows[0]) > 2 else 1
    parts = [{(at, tuple(row[i] for i in at)) for at in combinations(range(len(row)), strength)} for row in rows]
    left, chosen = set().union(*parts), []
    while left:
        best = max(range(len(rows)), key=lambda i: (len(parts[i] & left), -i))
        left -= parts[best]
        chosen.append(best)
    return chosen


def beyond_covering(items):
    """The items of products that a covering does without."""
    products = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec") and len(item.callspec.indices) > 1:
            products[item.nodeid.split("[")[0]].append(item)
    rest = []
    for product in products.values():
        kept = set(covered([tuple(item.callspec.indices.values()) for item in product]))
        rest += [item for i, item in enumerate(product) if i not in kept]
    return rest


FULL = frozenset((Path(__file__).parent / "full.txt").read_text().split("\n"))
"""Files, tests, and cases of tests that take long: python tests/tiers.py SECONDS JUNIT.xml... writes the list anew."""
KEPT = ("test_families.py::test_scale_0_is_bit_identical_and_guidance_lowers_the_loss", "test_exact_gradients_counts")
"""Tests of which one case of each mechanism stays in the fast tier however long it takes."""
MECHANISMS = ("[sd]", "[sdxl]", "[flux-cfg]", "[dit]", "[pag]")


def takes_long(item):
    """Whether a case is in the whole suite alone."""
    if any(name in item.nodeid for name in KEPT):
        return not item.nodeid.endswith(MECHANISMS)
    return not FULL.isdisjoint((item.nodeid, item.nodeid.split("[")[0], item.nodeid.split("::")[0]))


def written(seconds, junits):
    """The lines of full.txt: what took more than so many seconds in one of these runs, `pytest --junitxml`."""
    times = defaultdict(lambda: defaultdict(dict))
    for case in (case for junit in junits for case in ElementTree.parse(junit).iter("testcase")):
        file, (test, bracket, _) = f"{case.get('classname').replace('.', '/')}.py", case.get("name").partition("[")
        known = times[file][f"{file}::{test}"]
        name = f"{file}::{case.get('name')}" if bracket else f"{file}::{test}"
        known[name] = max(known.get(name, 0.0), float(case.get("time")))
    lines = []
    for file, tests in sorted(times.items()):
        slow = {test: [name for name, time in cases.items() if time > seconds] for test, cases in tests.items()}
        if 2 * sum(map(len, slow.values())) > sum(map(len, tests.values())) and sum(map(bool, slow.values())) > 3:
            lines.append(file)
        else:
            lines += [
                line for test in tests for line in ([test] if 2 * len(slow[test]) > len(tests[test]) else slow[test])
            ]
    return lines


SLOW = (
    # further settings and families of mechanisms that other cases have
    *(
        "test_further_settings_are_right",
        "test_the_gradient_is_exact_in_further_settings",
        "test_the_gradient_is_exact[svd]",
        "test_and_under_further_schedulers",
        "test_unguided_the_run_comes_to_what_was_seen_ahead[cogvideox]",
        "test_unguided_the_run_comes_to_what_was_seen_ahead[sana-sprint]",
    ),
    *("test_what_a_call_saves[sd3-", "test_what_a_call_saves[sdxl-", "test_what_a_call_saves[sd-unguided-"),
    *("test_what_a_call_saves[sd-inpaint-9-", "test_cards_that_are_enough[sdxl-"),
    *(
        f"test_scale_0_is_bit_identical_and_guidance_lowers_the_loss[{name}]"
        for name in ("ddpm", "euler", "deis", "lms")
    ),
    *(f"test_scale_0_is_bit_identical_and_guidance_lowers_the_loss[{name}]" for name in ("euler-karras", "tcd")),
    *(f"test_scale_0_is_bit_identical_and_guidance_lowers_the_loss[dpm++ 2m{more}]" for more in ("", " karras")),
    # whole processes of which others of a kind stay: examples of pipelines, quick forms of benchmarks
    *("test_examples_pipelines.py::test_example[flux]", "test_examples_pipelines.py::test_example[sdxl]"),
    *("test_examples_pipelines.py::test_example[video]", "test_benchmarks.py::test_pipelines"),
    *(f"test_benchmarks.py::test_quick[{name}-" for name in ("nstudy", "digits", "lookahead", "reuse")),
    *(f"test_papercell.py::test_quick[{name}]" for name in ("quality_of_model", "equal_calls")),
    *("test_examples.py::test_example[inpaint]", "test_examples.py::test_example[gradient]"),
    *("test_benchmarks.py::test_beyond", "test_benchmarks.py::test_trajectory"),
    *("test_the_scenes_networks_can_be_remade[consistency]", "test_the_scenes_networks_can_be_remade[generator]"),
    *("test_the_peak_of_a_guided_step[sd-unguided-True]", "test_the_peak_of_a_guided_step[sd-inpaint-9-False]"),
    *("test_samples_do_not_depend_on_their_batch[scenes-consistency-", "test_what_a_call_saves[flux-False]"),
    *("test_methods_are_tuned_and_compared", "test_the_command_runs_a_stage_in_a_process_of_its_own"),
)
"""What `make test-slow` runs, by part of its name, and `make test` does not."""

if __name__ == "__main__":
    found = written(float(sys.argv[1]), sys.argv[2:])
    (Path(__file__).parent / "full.txt").write_text("\n".join(found) + "\n")
