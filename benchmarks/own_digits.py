"""Does a look-ahead along the run's own noise pay on trained digits, and do the samples stay digits?

    python benchmarks/own_digits.py [--quick] [--fresh] [--threads 1]

SAG on `digits`, 25 ancestral steps (eta = 1), the normalised step at the same strengths for all ways, no class asked.
The loss is a set-point of second order: the power of a digit's second horizontal and vertical wave. What counts is the
loss at the end, which is followed, and how far the samples are from held-out digits, in the features of a judge that
guidance never saw. Ways: one call; 4 without noise; 2, 4 and all remaining calls along the noise that the run will
draw; 4 along noise that is not the run's, as a control.

Cells that are done are kept under out/benchmarks and not computed again; --fresh starts over.
"""

import statistics
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, arguments, save, table
from benchmarks.rule import LOSSES, judge
from symguide.report import frechet
from symguide.worlds import digits

FOLDER = Path("out/benchmarks")
SEEDS, NUM, STEPS = (0, 1, 2, 3, 4), 64, 25
SCALES, WINDOWS = (0.05, 0.15, 0.4), ((0.0, 0.4), (0.0, 1.0))
WAYS: dict[str, dict[str, Any]] = {
    "one": {"n": 1},
    "ode 4": {"n": 4},
    "own 2": {"n": 2, "path": "own"},
    "own 4": {"n": 4, "path": "own"},
    "own all": {"n": "all", "path": "own"},
    "fresh 4": {"n": 4, "path": "fresh"},
}
EARLY = ("own 2", "own all")
"""Ways that are measured in the first window alone."""


def cell(way: str, window: tuple[float, float], scale: float, seed: int, num: int) -> dict[str, Any]:
    """One way at one strength on one seed; scale 0 is unguided."""
    denoiser, objective = sg.load("digits"), LOSSES["waves"]
    recipe = sg.SAG(objective, scale=scale, window=tuple(window), memory="fast", **WAYS[way])
    result = sg.sample(denoiser, batch=num, steps=STEPS, seed=seed, eta=1.0, loss=recipe if scale else None)
    with torch.no_grad():
        loss = objective(result.samples).mean().item()
        away = frechet(judge().features(result.samples), judge().features(digits.images("held_out")))
    cost = {"forward": result.cost.forward_calls, "backward": result.cost.backward_calls}
    return {"way": way, "window": list(window), "scale": scale, "seed": seed, "loss": loss, "frechet": away} | cost


def rows(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each window, strength and way: means over seeds, and the ratio to one call's loss seed by seed."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for each in cells:
        found.setdefault((tuple(each["window"]), each["scale"], each["way"]), []).append(each)
    made = []
    for (window, scale, way), mine in found.items():
        one = {each["seed"]: each["loss"] for each in found[window, scale, "one"]}
        row = {"window": "{:g} to {:g}".format(*window), "scale": scale, "way": way if scale else "unguided"}
        row["loss"] = spread([each["loss"] for each in mine])
        other = scale and way != "one"
        row["to one call's"] = spread([each["loss"] / one[each["seed"]] for each in mine]) if other else ""
        row["Frechet"] = spread([each["frechet"] for each in mine], 1)
        made.append(row | {"calls": f"{mine[0]['forward']} + {mine[0]['backward']}"})
    return made


def spread(values: list[float], digits: int = 3) -> str:
    """Mean ± standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    given = arguments(__doc__, [], "two samples, one seed, one strength", device=False)
    stem, seeds, num = ("own-digits-quick", SEEDS[:1], 4) if given.quick else ("own-digits", SEEDS, NUM)
    kept = Cells(FOLDER / f"{stem}.jsonl", ("way", "window", "scale", "seed", "num"), cell, given.fresh)
    asked = [("one", list(WINDOWS[0]), 0.0)]
    for window in WINDOWS[: 1 if given.quick else None]:
        for scale in SCALES[: 1 if given.quick else None]:
            early = window == WINDOWS[0] and not given.quick
            asked += [(way, list(window), scale) for way in WAYS if early or way not in EARLY]
    cells = [kept.get(*each, seed, num) for each in tqdm(asked, desc="digits") for seed in seeds]
    print(f"\n{num} samples, seeds {seeds}, {STEPS} steps, eta 1\n\n{table(rows(cells))}")
    if not given.quick:
        print("written:", save("own-digits", {"cells": cells}))


if __name__ == "__main__":
    main()
