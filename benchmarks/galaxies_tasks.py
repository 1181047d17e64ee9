"""What a survey does with a prior of galaxies: deconvolve, fill missing pixels, deblend; tables and pictures.

    python benchmarks/galaxies_tasks.py [psf] [missing] [blend] [model] [ask] [--quick] [--threads 1]

Needs pip install --no-deps galaxygrad==0.1.9. Truths are the model's own samples (of another seed), so that the answer
is known; noise has the standard deviation 0.01 in units of light. psf: blurred by a Gaussian of sigma = 2 pixels.
missing: three columns and a trail of pixels through the source are lost. blend: two galaxies in one scene, at known
places.

For every truth DRAWS samples are drawn with FreeDoM at strength 0.1; in psf also with SAG along the run's own noise.
chi² / d is that of the data's own noise at 1. Errors are of one draw, relative, medians over truths; error / spread is
of the logarithm of the light: the root mean square of (mean over draws - truth), to what it is for draws from the true
posterior, of variance s²: s sqrt(1 + 1 / DRAWS). 1 is calibrated.

model: what nothing guides. ask: an ellipticity of 0.5 asked in the first 40 % of steps, with the shares that
benchmarks/results/galaxies-ellipticity.json has. Pictures are in log light, three decades, under docs/images.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from benchmarks.common import RESULTS, arguments, save, table
from benchmarks.galaxies import SCALES, STEPS, WAYS
from symguide.files import write
from symguide.objectives import Decoded, Ellipticity, GaussianBlur, Measurement, Moments
from symguide.report.pictures import grid, png
from symguide.worlds import galaxies

IMAGES = RESULTS.parents[1] / "docs" / "images"
NOISE, TRUTHS, DRAWS, SHOWN = 0.01, 16, 4, 3
PLACES = [(-3, -3), (4, 3)]
METHODS: dict[str, Callable[[Any], Any]] = {
    "FreeDoM": lambda objective: sg.FreeDoM(objective, scale=0.1),
    "SAG, own noise, 4": lambda objective: sg.SAG(objective, n=4, path="own", scale=0.1, memory="fast"),
}


def lost() -> Tensor:
    """(32, 32), 1 where the detector saw light: three bad columns, and a cosmic ray's trail across the middle."""
    seen = torch.ones(32, 32)
    seen[:, 17:20] = 0
    for i in range(32):
        seen[i, max(0, 26 - i) : max(0, 28 - i)] = 0
    return seen


@dataclass(frozen=True)
class Task:
    """A measurement of galaxies, and what it shows of them."""

    operator: Callable[[Tensor], Tensor]
    sources: int = 1
    seen: Tensor | float = 1.0
    """Which pixels count for chi²."""

    def model(self, denoiser: sg.Denoiser) -> sg.Denoiser:
        return denoiser if self.sources == 1 else galaxies.several(denoiser, self.sources)


def tasks() -> dict[str, Task]:
    blur, seen = GaussianBlur(2.0), lost()
    return {
        "psf": Task(lambda x: blur(galaxies.light(x))),
        "missing": Task(lambda x: seen * galaxies.light(x), seen=seen),
        "blend": Task(galaxies.Blend(PLACES), sources=2),
    }


def observed(task: Task, denoiser: sg.Denoiser, count: int) -> tuple[Tensor, Tensor]:
    """Truths and what is measured of them."""
    truth = sg.sample(task.model(denoiser), batch=count, steps=50, grid="flow", seed=7).samples
    y = task.operator(truth)
    return truth, y + NOISE * task.seen * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))


def drawn(task: Task, denoiser: sg.Denoiser, y: Tensor, draws: int, method: Callable[[Any], Any]) -> sg.Result:
    """`draws` samples for every measurement, one after the other."""
    objective = Measurement(task.operator, y.repeat_interleave(draws, dim=0), NOISE)
    given: dict[str, Any] = {"steps": 50, "grid": "flow", "seed": 1, "loss": method(objective)}
    return sg.sample(task.model(denoiser), batch=len(y) * draws, **given)


def error(found: Tensor, truth: Tensor) -> float:
    """The median of |found / truth - 1|."""
    return (found / truth - 1).abs().median().item()


@torch.no_grad()
def figures(task: Task, denoiser: sg.Denoiser, truth: Tensor, y: Tensor, samples: Tensor, draws: int) -> dict[str, Any]:
    """What is known of a task's samples."""
    counted = torch.as_tensor(task.seen).expand_as(y[0]).sum()
    residual = (y.repeat_interleave(draws, dim=0) - task.operator(samples)) / NOISE
    chi = residual.square().flatten(1).sum(dim=1) / counted
    f, f_true = (galaxies.light(x.reshape(-1, *x.shape[2:])) for x in (samples, truth))
    f = f.reshape(len(truth), draws, task.sources, *f.shape[1:]).transpose(1, 2).flatten(0, 1)
    light, light_true = f.sum(dim=(2, 3)), f_true.sum(dim=(1, 2))
    moments, moments_true = (Moments.of(2 * each[:, None] - 1) for each in (f[:, 0], f_true))
    row = {
        "chi² / d": f"{chi.median().item():.2f}",
        "pixels": f"{((f[:, 0] - f_true).norm(dim=(1, 2)) / f_true.norm(dim=(1, 2))).median().item():.3f}",
        "light": f"{error(light[:, 0], light_true):.3f}",
        "size": f"{error(moments.size, moments_true.size):.3f}",
    }
    if draws > 1:
        logs = light.clamp_min(1e-3).log()
        wrong, spread = (logs.mean(dim=1) - light_true.log()).square().mean(), logs.var(dim=1).mean() * (1 + 1 / draws)
        row["error / spread"] = f"{(wrong / spread).sqrt().item():.2f}"
    return row


def simple(name: str, task: Task, y: Tensor, truth: Tensor) -> dict[str, Any]:
    """The errors without a prior: the picture as it is seen; of a blend, every pixel to the nearer source."""
    f = y[:, 0].clamp_min(0)
    f_true = galaxies.light(truth)
    if task.sources > 1:
        rows, columns = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
        far = torch.stack([(rows - down).square() + (columns - right).square() for down, right in PLACES])
        mine = (far.argmin(dim=0) == torch.arange(len(PLACES))[:, None, None]).to(f)
        return {"light": f"{error((f[:, None] * mine).sum(dim=(2, 3)), f_true.sum(dim=(2, 3))):.3f}"}
    wanted = f_true[:, 0]
    found = {
        "pixels": f"{((f - wanted).norm(dim=(1, 2)) / wanted.norm(dim=(1, 2))).median().item():.3f}",
        "light": f"{error(y[:, 0].sum(dim=(1, 2)), wanted.sum(dim=(1, 2))):.3f}",
    }
    if name == "psf":
        sizes = [Moments.of(2 * each[:, None] - 1).size for each in (f, wanted)]
        found["size"] = f"{error(*sizes):.3f}"
    return found


def measure(name: str, denoiser: sg.Denoiser, quick: bool) -> list[dict[str, Any]]:
    """All methods on a task; its picture too, unless quick."""
    task, (count, draws) = tasks()[name], (2, 2) if quick else (TRUTHS, DRAWS)
    truth, y = observed(task, denoiser, count)
    empty = dict.fromkeys(("chi² / d", "pixels", "light", "size", "error / spread", "calls"), "")
    rows = [{"task": name, "method": "as it is seen", **empty, **simple(name, task, y, truth)}]
    for title, method in METHODS.items():
        if title != "FreeDoM" and name != "psf":
            continue
        run = drawn(task, denoiser, y, draws, method)
        calls = f"{run.cost.forward_calls} + {run.cost.backward_calls}"
        known = figures(task, denoiser, truth, y, run.samples, draws)
        rows.append({"task": name, "method": title, **empty, **known, "calls": calls})
        if title == "FreeDoM" and not quick:
            draw(name, task, truth, y, run.samples.reshape(count, draws, *truth.shape[1:]))
    print(table(rows), flush=True)
    return rows


def logarithmic(f: Tensor) -> Tensor:
    """Light as grey, in [-1, 1]: from a thousandth of the unit to one, in its logarithm."""
    return f.clamp_min(1e-3).log10() / 1.5 + 1


def show(name: str, rows: list[Tensor], labels: list[str], marks: Any = None) -> None:
    path = write(IMAGES / f"{name}.png", png(grid(rows, labels, marks=marks, cell=64, smooth=False)))
    print("written:", path)


def draw(name: str, task: Task, truth: Tensor, y: Tensor, samples: Tensor, count: int = 8) -> None:
    """Truth, data and draws of the first galaxies, a column each."""
    truth, samples = (logarithmic(galaxies.light(x[:count])) for x in (truth, samples))
    data = torch.where(torch.as_tensor(task.seen).expand_as(y[:count]) > 0, logarithmic(y[:count]), torch.ones(()))
    if task.sources == 1:
        shown = [truth, data, *[samples[:, k] for k in range(SHOWN)]]
        show(f"galaxies-{name}", shown, ["truth", "data", *[f"draw {k + 1}" for k in range(SHOWN)]])
        return
    parts = [each[:, k : k + 1] for k in range(task.sources) for each in (truth, samples[:, 0])]
    names = [f"{what} {k + 1}" for k in range(task.sources) for what in ("source", "draw of")]
    show(f"galaxies-{name}", [data, *parts], ["data", *names])


def model() -> None:
    """What the two models draw when nothing guides them."""
    for name, title in (("galaxies", "galaxies-model"), ("galaxies-64", "galaxies-model-64")):
        denoiser = sg.load(name, dtype=torch.float32)
        x = sg.sample(denoiser, batch=24, steps=50, grid="flow", seed=0).samples
        show(title, list(logarithmic(galaxies.light(x)).split(12)), [])


def ask(count: int = 10) -> None:
    """The same galaxies asked to be elongated, by every look-ahead; a bar marks those within 0.1 of what was asked."""
    denoiser = sg.load("galaxies", dtype=torch.float32)
    rows = json.loads((RESULTS / "galaxies-ellipticity.json").read_text())["results"]["rows"]
    mine = [row for row in rows if row["eta"] == 1 and row["window"] in ([], [0.0, 0.4])]
    unguided = next(row for row in mine if row["way"] == "unguided")
    ones = [row for row in mine if row["way"] == "one call"]
    best = max(ones, key=lambda row: row["within 0.1"])
    equal = {row["way"]: row for row in mine if row["scale"] == SCALES[0]}
    chosen = [unguided, equal["one call"], equal["ODE, 4"], equal["own noise, 4"], best]
    names = {"unguided": "unguided", "one call": "one call"}
    names |= {"ODE, 4": "4 calls, without noise", "own noise, 4": "4 calls, the run's own noise"}
    pictures, labels, marks = [], [], []
    for row in chosen:
        loss = None
        if row["way"] in WAYS:
            objective = Decoded(Ellipticity(0.5), denoiser.decode)
            given = {"scale": row["scale"], "window": (0.0, 0.4), "memory": "fast", **WAYS[row["way"]]}
            loss = sg.SAG(objective, **given)
        x = sg.sample(denoiser, batch=count, steps=STEPS, grid="flow", seed=1, loss=loss).samples
        e = Moments.of(denoiser.decode(x)).ellipticity
        pictures.append(logarithmic(galaxies.light(x)))
        marks.append(((e - 0.5).abs() < 0.1).tolist())
        strength = f"strength {row['scale']}, " if loss else ""
        labels.append(f"{names[row['way']]}\n{strength}{100 * row['within 0.1']:.0f} % met\nlight {row['light']:.0f}")
    show("galaxies-ask", pictures, labels, marks)


def main() -> None:
    words = [*tasks(), "model", "ask"]
    given = arguments(__doc__, words, "two galaxies, two draws, the first task", device=False)
    asked = given.words or (words[:1] if given.quick else words)
    denoiser = sg.load("galaxies", dtype=torch.float32)
    for name in asked:
        if name in tasks():
            rows = measure(name, denoiser, given.quick)
            if not given.quick:
                print("written:", save(f"galaxies-{name}", rows))
        else:
            {"model": model, "ask": ask}[name]()


if __name__ == "__main__":
    main()
