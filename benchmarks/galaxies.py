"""When does a look-ahead pay on real galaxies? Ellipticity and size, by look-aheads with and without the run's noise.

    python benchmarks/galaxies.py [ellipticity] [size] [--quick] [--fresh] [--threads 1]

Needs pip install --no-deps galaxygrad==0.1.9. 25 steps on the flow grid; every way at the same strengths on the same
seeds, so samples are paired. eta = 0: one, two and four calls along the ODE (and four on the run's own grid). eta = 1:
besides these two and four calls along the noise that the run will draw, all of its remaining steps, and four calls
along fresh noise as the control.

Measured for every sample: the loss; whether it is within 0.1 and 0.02 of what was asked; its light; and two things that
say whether the model would have made it. The residual is |x_0' - x_0|² / d of its own estimate at sigma / alpha = 0.5;
the denoising loss is |eps' - eps|² / d at four noise levels. They stand beside those of samples that nothing guided and
that happen to meet what was asked, within 0.1: the model's own answer, which rejection gives. The Frechet distance to
those is of (log light, log size, ellipticity, peak, log denoising loss), in units of their standard deviations; that
of their own row is between two halves of them.

Intervals are 95 % of a bootstrap over samples. Cells that are done are kept under out/benchmarks.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from benchmarks.common import Cells, arguments, save, table
from symguide.objectives import Decoded, Ellipticity, Moments, Size
from symguide.report import frechet

FOLDER = Path("out/benchmarks")
STEPS, NUM = 25, 64
UNGUIDED, UNGUIDED_SEED = 1024, 100
ASKED = {"ellipticity": Ellipticity(0.5), "size": Size(4.0)}
EARLY = (0.0, 0.4)
WINDOWS = {EARLY: (1, 2), (0.0, 1.0): (1,), (0.3, 0.7): (1,)}
"""Windows, and the seeds of each."""
SCALES, FURTHER = (0.02, 0.1, 0.3), (0.005, 0.8)
"""Strengths of all ways, and further ones of one call at eta = 1, so that strength can show what it buys."""
WAYS: dict[str, dict[str, Any]] = {
    "one call": {"n": 1},
    "ODE, 2": {"n": 2},
    "ODE, 4": {"n": 4},
    "own noise, 2": {"n": 2, "path": "own"},
    "own noise, 4": {"n": 4, "path": "own"},
    "own noise, all": {"n": "all", "path": "own"},
    "fresh noise, 4": {"n": 4, "path": "fresh"},
}
"""By what they are called in the tables; at eta = 0 "own noise, 4" is the ODE on the run's own grid."""
WITHOUT_NOISE = ("one call", "ODE, 2", "ODE, 4", "own noise, 4")
RATIOS = (0.25, 0.5, 1.0, 2.0)
"""sigma / alpha of the denoising loss."""
KEPT = ("light", "size", "ellipticity", "peak", "residual", "denoising")


class Galaxies:
    """The model, and what is measured of its samples."""

    def __init__(self) -> None:
        self.denoiser = sg.load("galaxies", dtype=torch.float32)

    def cell(
        self, asked: str, eta: float, window: tuple[float, float], way: str, scale: float, seed: int, num: int
    ) -> dict[str, Any]:
        """One way at one strength on one seed; a list with a number for every sample."""
        loss = None
        if way != "unguided":
            objective = Decoded(ASKED[asked], self.denoiser.decode)
            loss = sg.SAG(objective, scale=scale, window=window, memory="fast", **WAYS[way])
        run = sg.sample(self.denoiser, batch=num, steps=STEPS, grid="flow", eta=eta, seed=seed, loss=loss)
        cost = {"forward": run.cost.forward_calls, "backward": run.cost.backward_calls}
        return {k: [float(f"{x:.5g}") for x in v.tolist()] for k, v in self.measured(run.samples).items()} | cost

    @torch.no_grad()
    def measured(self, x: Tensor) -> dict[str, Tensor]:
        picture = self.denoiser.decode(x)
        moments, denoising = Moments.of(picture), self.denoising(x)
        return {
            "light": moments.flux,
            "size": moments.size,
            "ellipticity": moments.ellipticity,
            "peak": picture.amax(dim=(1, 2, 3)) / 2 + 0.5,
            "residual": denoising[RATIOS.index(0.5)] * 0.5**2,
            "denoising": denoising.mean(dim=0),
        }

    def denoising(self, x: Tensor) -> Tensor:
        """|eps' - eps|² / d at every ratio, (levels, B), with the same noise for all samples."""
        schedule, found = self.denoiser.schedule, []
        for order, ratio in enumerate(RATIOS):
            t = schedule.time(ratio)
            eps = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(order), dtype=x.dtype).expand_as(x)
            noisy = schedule.alpha(t) * x + schedule.sigma(t) * eps
            found.append((self.denoiser(noisy, t).eps - eps).square().flatten(1).mean(dim=1))
        return torch.stack(found)


def plans(window: tuple[float, float], quick: bool) -> list[tuple[float, tuple[float, float], str, float]]:
    """(eta, window, way, strength) in a window, those of many calls last; all of it early, less of it later."""
    scales = {1.0: SCALES, 0.0: SCALES}
    if window != EARLY:
        scales = {1.0: SCALES, 0.0: SCALES[:2]} if window == (0.0, 1.0) else {1.0: SCALES[:1]}
    found = [
        (eta, window, way, scale)
        for eta in scales
        for scale in scales[eta]
        for way in (WAYS if eta else WITHOUT_NOISE)
        if way != "own noise, all" or (window == EARLY and scale == SCALES[0])
    ]
    found += [(1.0, window, "one call", scale) for scale in FURTHER if window == EARLY]
    found.sort(key=lambda plan: plan[2] == "own noise, all")
    return [plan for plan in found if plan[2] in ("one call", "own noise, 4")][:2] if quick else found


def together(asked: str, cells: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The samples of all seeds, with the loss of what is asked."""
    found = {key: torch.tensor([x for cell in cells for x in cell[key]], dtype=torch.float64) for key in KEPT}
    objective = ASKED[asked]
    return found | {"loss": objective.of(found[asked])}


def features(samples: dict[str, Tensor]) -> Tensor:
    """(B, 5), of which the Frechet distance is taken."""
    logs = [samples[key].clamp_min(1e-6).log() for key in ("light", "size", "denoising")]
    return torch.stack([*logs, samples["ellipticity"], samples["peak"]], dim=1)


def resampled(count: int, times: int = 2000) -> Tensor:
    """Indices of a bootstrap, (times, count), the same whatever is measured."""
    return torch.randint(count, (times, count), generator=torch.Generator().manual_seed(0))


def interval(values: Tensor, digits: int) -> list[float]:
    """95 % of what a bootstrap gives."""
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return [round(low, digits), round(high, digits)]


def summary(
    samples: dict[str, Tensor], one: dict[str, Tensor] | None, answer: dict[str, Tensor] | None
) -> dict[str, Any]:
    """The figures of one way: its loss and that to one call's, how many it met, and how typical they are."""
    loss, index = samples["loss"], resampled(len(samples["loss"]))
    found: dict[str, Any] = {"loss": round(loss.mean().item(), 5)}
    if one is not None:
        found["ratio"] = round((loss.mean() / one["loss"].mean()).item(), 3)
        found["ratio, 95 %"] = interval(loss[index].mean(1) / one["loss"][index].mean(1), 3)
    for within in (0.1, 0.02):
        met = (loss.sqrt() < within).double()
        found[f"within {within}"] = round(met.mean().item(), 3)
        found[f"within {within}, 95 %"] = interval(met[index].mean(1), 3)
    for key, digits in (("light", 1), ("residual", 5), ("denoising", 5)):
        found[key] = round(samples[key].median().item(), digits)
    if answer is not None:
        found["Frechet"] = round(distance(samples, answer), 2)
    return found


def distance(samples: dict[str, Tensor], answer: dict[str, Tensor]) -> float:
    """The Frechet distance of their features, in units of the answer's spread."""
    scale = features(answer).std(dim=0)
    return frechet(features(samples) / scale, features(answer) / scale)


def study(asked: str, cells: Cells, unguided: Cells, quick: bool) -> dict[str, Any]:
    """All ways at all strengths; the table of one objective."""
    windows = {EARLY: (1,)} if quick else WINDOWS
    num, count = (8, 64) if quick else (NUM, UNGUIDED)
    drawn = {eta: together(asked, free(unguided, eta, count)) for eta in ((1.0,) if quick else (1.0, 0.0))}
    answers = {
        eta: {key: value[found["loss"].sqrt() < 0.1] for key, value in found.items()} for eta, found in drawn.items()
    }
    for window, seeds in windows.items():
        for seed in seeds:
            for plan in plans(window, quick):
                cells.get(asked, *plan, seed, num)
    rows = []
    for eta, found in drawn.items():
        for what, samples in (("unguided", found), ("unguided, those that meet it", answers[eta])):
            rows.append({"eta": eta, "window": [], "scale": 0.0, "way": what, "samples": len(samples["loss"])})
            halves = [{key: value[part::2] for key, value in samples.items()} for part in (0, 1)]
            rows[-1] |= summary(samples, None, None if quick else answers[eta]) | {"forward": STEPS, "backward": 0}
            if samples is answers[eta] and not quick:
                rows[-1]["Frechet"] = round(distance(*halves), 2)
    for eta, window, way, scale in [plan for each in windows for plan in plans(each, quick)]:
        seeds = windows[window]
        mine = [cells.get(asked, eta, window, way, scale, seed, num) for seed in seeds]
        one = together(asked, [cells.get(asked, eta, window, "one call", scale, seed, num) for seed in seeds])
        row = {"eta": eta, "window": list(window), "scale": scale, "way": way, "samples": num * len(seeds)}
        row |= summary(together(asked, mine), one, None if quick else answers[eta])
        rows.append(row | {key: mine[0][key] for key in ("forward", "backward")})
    shown = [{key: row.get(key, "") for key in ("eta", "window", "scale", "way", *SHOWN)} for row in rows]
    print(f"\n{asked}: {num} samples a seed, {STEPS} steps on the flow grid\n\n{table(shown)}", flush=True)
    return {"rows": rows} | ({} if quick else {"matched": matched(rows), "typical": typical(rows)})


def free(cells: Cells, eta: float, count: int) -> list[dict[str, Any]]:
    """Cells of samples that nothing guides, which are the same whatever is asked."""
    return [cells.get("", eta, (0.0, 1.0), "unguided", 0.0, UNGUIDED_SEED + part, NUM) for part in range(count // NUM)]


SHOWN = (
    "loss",
    "ratio",
    "within 0.1",
    "within 0.02",
    "light",
    "residual",
    "denoising",
    "Frechet",
    "forward",
    "backward",
)


def matched(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Early: one call at the strength where most samples meet it, and every other way's best at no larger residual."""
    found = []
    for eta in (1.0, 0.0):
        mine = [row for row in rows if row["eta"] == eta and row["window"] == list(EARLY)]
        best = max([row for row in mine if row["way"] == "one call"], key=lambda row: row["within 0.1"])
        found.append(best)
        for way in [way for way in WAYS if way != "one call"]:
            others = [row for row in mine if row["way"] == way and row["residual"] <= best["residual"]]
            found += [max(others, key=lambda row: row["within 0.1"])] if others else []
    return found


def typical(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Early: every way at the strength at which its samples are nearest to the model's own answer."""
    mine = [row for row in rows if row["window"] == list(EARLY)]
    found = [[row for row in mine if (row["eta"], row["way"]) == (eta, way)] for eta in (1.0, 0.0) for way in WAYS]
    return [min(group, key=lambda row: row["Frechet"]) for group in found if group]


def main() -> None:
    given = arguments(__doc__, list(ASKED), "eight samples, two ways", device=False)
    keys, measure = ("asked", "eta", "window", "way", "scale", "seed", "num"), Galaxies().cell
    quick = "-quick" if given.quick else ""
    unguided = Cells(FOLDER / f"galaxies-unguided{quick}.jsonl", keys, measure, given.fresh)
    for asked in given.words or list(ASKED)[: 1 if quick else None]:
        cells = Cells(FOLDER / f"galaxies-{asked}{quick}.jsonl", keys, measure, given.fresh)
        found = study(asked, cells, unguided, given.quick)
        if not quick:
            print("written:", save(f"galaxies-{asked}", found))


if __name__ == "__main__":
    main()
