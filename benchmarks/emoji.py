"""Guidance where the answer is known: the tasks of the emoji world, by judges and by the drawing that a person made.

    python benchmarks/emoji.py [WORD ...] [--quick] [--fresh] [--report] [--device cuda] [--threads 2]

WORD: model, which measures the model as `symguide evaluate emoji` does and draws sheets of it, docs/images/emoji-*.png;
cell, the SAG paper's cell on this world; or a task: style, line-art, text, personalisation, palette, edges, inpainting,
super-resolution, translation, composed. Where none is given: model, cell, line-art, style and text.

Tasks are tuned as those of paper.py are: every method by `symguide.tune` within 20,000 network calls on 8 samples of
each of the seeds 1000 and 1001 (style: twice of both), for the judge, among settings where the judge still reads the
name among its first five in three quarters of the samples that it reads unguided; then measured on 64 samples of each
of the seeds 0, 1, 2. Two rows are not searched: FreeDoM's settings at 1.7 times its scale, and
with a look-ahead of two calls. Beside them stand what no guidance can do much better or worse than: the true drawing;
of the drawings of the same thing in other styles, which training saw, the one nearest to the truth; unguided samples;
where guidance asks for a style that the model knows, unguided samples of the model that is told it; and in translation
unguided samples that begin with the noised drawing, at t = 0.6.

The cell is papercell.py's: 25 deterministic steps, text at CFG 3, guided from 0.3 to 0.7 of the steps, one strength for
every n; then in the first third of the steps, where it is open which known drawing a sample becomes; with eta = 1; and
a curve of strengths, for what is left at equal names.

Needs npm, cairosvg and the EfficientNet packages that the world's judges ask for. Trials and cells that are done are
kept under out/benchmarks and not computed again; --fresh starts over, --report measures nothing more of the cell.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

import symguide as sg
from benchmarks import paper, papercell
from benchmarks.common import RESULTS, Cells, arguments, save, table
from benchmarks.paper import COMMON, FAST, FOLDER, RATE, REPEATS, WHEN, Bench, Size
from benchmarks.papercell import CURVE, Plan
from benchmarks.world import World, costs, loaded
from symguide.denoiser import Denoiser
from symguide.errors import WeightsError
from symguide.evaluation import emoji_sheets
from symguide.evaluation.emoji import KINDS, Evaluation, before, evaluate, judges
from symguide.evaluation.emoji_album import TRAINED, Pairs, album
from symguide.evaluation.emoji_tasks import TASKS, Task, Truth, task
from symguide.loop import Cost, sample
from symguide.objectives import Balanced
from symguide.prediction_guidance import CFG
from symguide.report import frechet, png, write
from symguide.solver import get_grid
from symguide.tuning import Choice
from symguide.worlds import WORLDS

IMAGES = RESULTS.parents[1] / "docs" / "images"
TRUTH, COPY, TOLD = "the true drawing", "another style's drawing", "unguided, style told"
NOISED, BEGIN = "unguided, from the drawing", 0.6
"""SDEdit (2108.01073): the reference is noised to a time, and sampled from there."""
FIGURES = {
    "scorer": ("scorer", 3),
    "judge": ("judge", 3),
    "name": ("name", 2),
    "among five": ("among five", 2),
    "style": ("style", 2),
    "pixels to truth": ("pixels", 3),
    "features to truth": ("features", 3),
    "Frechet": ("frechet", 1),
}
"""Titles, keys and digits of what is measured."""


def sphere(
    objective: Any, rate: float = 0.1, window: tuple[float, float] = (0.0, 1.0), repeats: int = 1, n: int = 2
) -> Any:
    """DSG by SAG's gradient."""
    return sg.DSG(objective, rate=rate, window=window, repeats=repeats, n=n, memory="fast")


METHODS: paper.Methods = {
    **{name: paper.METHODS[name] for name in ("FreeDoM", "DSG", "MPGD", "Universal Guidance", "TFG")},
    **{
        f"SAG n={n}{' own' if path == 'own' else ''}": (sg.SAG, COMMON, {"n": n, "path": path, **FAST})
        for n in (2, 4)
        for path in ("ode", "own")
    },
    "SAG + DSG": (sphere, {"rate": RATE, "window": WHEN, "repeats": REPEATS, "n": Choice(2, 4)}, {}),
}
"""Recipes, what is searched of them, and what is given."""
ALIKE = ("FreeDoM, stronger", "SAG n=2, set as FreeDoM")
SIZE = Size(num=64, tries=0, methods=tuple(METHODS), alike=ALIKE)
QUICK = replace(paper.QUICK, tries=0, methods=("FreeDoM", "SAG n=2 own", "SAG + DSG"), alike=ALIKE[1:])


def _plans(name: str, ns: tuple[int, ...], **given: Any) -> list[Plan]:
    return papercell.plans(name, ns, model="emoji", **given)


SEEDS = (0, 1, 2)
STRENGTHS = tuple(scale for scale in CURVE if scale != 0.3)  # that one has plans of its own
PARTS: papercell.Parts = {
    "cell": (_plans("style", (1, 2, 4, 0)), SEEDS, 64),
    "line-art": (_plans("line-art", (1, 2, 4, 0)), SEEDS, 64),
    "early": (
        [p for scale in (0.1, 0.3) for p in _plans("line-art", (1, 2, 4), scale=scale, window=(0.0, 0.35))],
        SEEDS,
        64,
    ),
    "choices": (_plans("personalisation", (1, 2, 0)), SEEDS, 64),
    "noise": (_plans("style", (1, 2, 0), eta=1.0), SEEDS, 64),
    "own": (_plans("style", (2, 4), eta=1.0, path="own"), SEEDS, 64),
    "strength-line-art": (papercell.curve("line-art", 0.0, STRENGTHS, "emoji"), SEEDS, 64),
    "strength": (papercell.curve("style", 0.0, STRENGTHS, "emoji"), SEEDS, 64),
}
"""Plans, seeds and samples on each, the most important first."""
CELL = (
    "task",
    "eta",
    "n",
    "path",
    "scale",
    "window",
    *FIGURES,
    "scorer : one call",
    "judge : one call",
    "calls",
    "runs",
)


class Emoji(World):
    """The model of the emoji world, its judges and the true drawings, loaded once; see `World`."""

    titles: ClassVar[Mapping[str, tuple[str, int]]] = FIGURES
    kept: ClassVar[str] = "among five"
    kinds: ClassVar[Mapping[str, Any]] = TASKS

    def __init__(
        self, device: str = "cpu", model: str | Denoiser = "emoji", weight: float = 3.0, real: int = 2048
    ) -> None:
        super().__init__(device, model, weight, real)

    def prepare(self, real: int) -> None:
        """Load the judges, all of them, and look at drawings that training saw."""
        self.book, self.judges, self._truths = album(), judges(device=self.device), dict[int, Truth]()
        if missing := self.judges.missing:
            raise WeightsError("; ".join(missing.values()))
        assert all(kind in self.judges for kind in KINDS)
        self.real = self.judges.see(self.book.pictures(self.book.pairs(TRAINED)[:real], self.side))["classifier"]

    def made(self, name: str, indices: range) -> Task:
        return task(name, indices, self.side)

    def read(self, goal: Task, samples: Tensor) -> Tensor:
        """1 where the judge has the name among its first five, else 0."""
        return (before(self.judges.see(self.denoiser.decode(samples))["name"], goal.character) < 5).double()

    def conditioning(self, goal: Task) -> dict[str, Any]:
        return {"condition": goal.condition, "prediction": CFG(self.weight) if goal.told else None}

    def plain(self, name: str) -> tuple[str, ...]:
        goal = self.task(name, range(1))
        told = (TOLD,) if goal.upper is not None else ()
        noised = (NOISED,) if name == "translation" and self.denoiser.decoder is None else ()
        return (TRUTH, *((COPY,) if goal.seen.any() else ()), "unguided", *told, *noised)

    def without(self, name: str, method: str, seed: int, num: int, steps: int) -> dict[str, Any]:
        goal = self.task(name, range(num))
        if method in (TRUTH, COPY):
            return self.measured(goal, goal.truth if method == TRUTH else nearest_known(goal), Cost(0, 0, 0.0, 0))
        told = self.conditioning(goal)
        if method == TOLD:
            told = {"condition": goal.upper, "prediction": CFG(self.weight)}
        elif method == NOISED:
            told |= {"start": self.noised(goal), "grid": lambda schedule, t, n: get_grid("flow")(schedule, BEGIN, n)}
        drawn = sample(self.denoiser, batch=num, steps=steps, seed=seed, **told)
        return self.figures(goal, drawn.samples, drawn.cost)

    def noised(self, goal: Task) -> Any:
        """What a run from the reference begins with: alpha x + sigma noise, at its first time."""
        schedule, x = self.denoiser.schedule, goal.reference
        assert x is not None
        return lambda noise, t: schedule.alpha(t) * x.to(self.device) + schedule.sigma(t) * noise.draw("start")

    def truth(self, goal: Task) -> Truth:
        """The true drawings of a task, looked at once."""
        if id(goal) not in self._truths:
            self._truths[id(goal)] = Truth(goal, self.judges)
        return self._truths[id(goal)]

    @torch.no_grad()
    def figures(self, goal: Task, samples: Tensor, cost: Any) -> dict[str, Any]:
        return self.measured(goal, self.denoiser.decode(samples), cost)

    @torch.no_grad()
    def measured(self, goal: Task, pictures: Tensor, cost: Any) -> dict[str, Any]:
        """Figures of pictures; nearer: the share that is nearer to the truth than any of the thing's other drawings."""
        seen, known = self.judges.see(pictures), goal.seen.any(dim=1)
        truth = self.truth(goal).against(pictures, seen)
        for key in ("pixels", "features"):
            copied = truth.pop(f"copied, {key}")
            if known.any():
                truth[f"nearer, {key}"] = (truth[key] < copied)[known].double()
        return {
            "scorer": total(goal.scorer, pictures).mean().item(),
            "judge": goal.judge(pictures).mean().item(),
            **{key: value.mean().item() for key, value in truth.items()},
            "frechet": frechet(seen["classifier"], self.real),
            **costs(cost),
        }


def total(objective: Any, pictures: Tensor) -> Tensor:
    """The objective of pictures; of balanced ones, whose weights are the sample's own, the plain sum."""
    parts = objective.objectives if isinstance(objective, Balanced) else [objective]
    return torch.stack([part(pictures) for part in parts]).sum(dim=0)


def nearest_known(goal: Task) -> Tensor:
    """Of the character's drawings that training saw, in other styles, the one nearest to the truth in pixels."""
    away = (goal.known - goal.truth[:, None]).square().flatten(2).mean(dim=2)
    best = torch.where(goal.seen, away, torch.inf).argmin(dim=1)
    return goal.known[torch.arange(len(best)), best]


def tuned(name: str, world: Emoji, quick: bool, fresh: bool) -> dict[str, Any]:
    """One task: every method tuned, then measured on other seeds."""
    stem = f"emoji{'-quick' if quick else ''}"
    bench = Bench(world, QUICK if quick else SIZE, FOLDER / stem, METHODS)
    if fresh:
        for log in bench.logs.glob(f"{name}-*.jsonl"):
            log.unlink()
    cells = Cells(
        FOLDER / stem / f"{name}-cells.jsonl", ("task", "method", "settings", "seed", "num"), bench.cell, fresh
    )
    return paper.compare(name, bench, cells)


def cell_rows(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table of the cell: what was measured of it."""
    every = list(dict.fromkeys(plan for part, _, _ in PARTS.values() for plan in part))
    return [{key: row[key] for key in CELL} for row in papercell.rows(cells, every, FIGURES)]


def at_equal_names(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ratios of the judge, two calls to one, where as many names are kept as unguided samples have, and fewer."""
    made = []
    for name in ("line-art", "style"):
        if not (plain := papercell.of(cells, Plan(name, 0, model="emoji"))):
            continue
        most = sum(cell[Emoji.kept] for cell in plain) / len(plain)
        row = {"task": name}
        for share in (0.9, 0.8, 0.7, 0.6):
            found = papercell.at_equal_shapes(cells, name, 0.0, share * most, "emoji", what=Emoji.kept)
            low, high = (0.0, 0.0) if found is None else found[1]
            row[f"{share:.0%} kept"] = "" if found is None else f"{found[0]:.2f} ({low:.2f} to {high:.2f})"
        made += [row] if len(set(row.values())) > 2 else []  # a curve of strengths is needed
    return made


def cell(given: Any) -> dict[str, Any]:
    """The paper's cell."""
    parts = {"cell": (_plans("style", (1, 2)), (0,), 2)} if given.quick else PARTS
    guided = None if given.report else papercell.Guided(given.device, 64 if given.quick else 2048, Emoji)
    file = FOLDER / f"emoji{'-quick' if given.quick else ''}" / "cell.jsonl"
    done = papercell.measured(parts, guided, file, given.fresh)
    print(f"\nthe paper's cell\n\n{table(cell_rows(done))}")
    if equal := at_equal_names(done):
        print(f"\n{table(equal)}")
    return {"cells": done}


def model(given: Any) -> dict[str, Any]:
    """The model's figures, as `symguide evaluate emoji --json` has them."""
    denoiser = loaded("emoji", given.device)
    settings = {"steps": 2} if given.quick else {}
    count = 10 if given.quick else 1000
    figures, drawings, missing = evaluate({"emoji": denoiser}, count, device=given.device, progress=True, **settings)
    if missing:
        raise WeightsError("; ".join(missing.values()))
    styles = told_apart(count if given.quick else 64)
    print(f"\n{table(model_rows(figures['emoji'], drawings))}\n\n{table(styles)}")
    drawing = Evaluation(denoiser, album(), weight=WORLDS["emoji"].weight, **settings)
    pages = {"trained": emoji_sheets.trained(drawing), "unseen": emoji_sheets.unseen(drawing)}
    for name, page in pages.items():
        folder = FOLDER / "emoji-quick" if given.quick else IMAGES
        print("written:", write(folder / f"emoji-{name}.png", png(page)))
    return {"samples": count, "model": figures["emoji"], "drawings": drawings, "styles": styles}


@torch.no_grad()
def told_apart(count: int) -> list[dict[str, Any]]:
    """Whether the loss of a style tells styles apart: of the same thing in four, how often is the true one's lowest?

    Of OpenMoji and the three sets that training knows; 0.25 by chance.
    """
    made = []
    for name in ("style", "line-art"):
        goal = task(name, range(count))
        drawn = [album().pictures(Pairs(goal.character, torch.full_like(goal.style, s))) for s in range(4)]
        row: dict[str, Any] = {"task": name, "drawings": count}
        for who in ("scorer", "judge"):
            losses = torch.stack([getattr(goal, who)(x) for x in drawn], dim=1)
            row[who] = f"{(losses.argmin(dim=1) == goal.style).double().mean():.2f}"
        made.append(row)
    return made


def model_rows(figures: Mapping[str, Any], drawings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each figure, beside it what the true drawings get."""
    rows = []
    for what, each in figures.items():
        for key, value in each.items():
            best = drawings.get(what, {}).get(key)
            rows.append(
                {"": what, "figure": key, "emoji": f"{value:.3f}", "drawings": "" if best is None else f"{best:.3f}"}
            )
    return rows


def main() -> None:
    words = ("model", "cell", *TASKS)
    given = arguments(__doc__, words, "few samples, few calls", report="measure nothing more of the cell")
    world: Emoji | None = None
    for word in tqdm(given.words or ("model", "cell", "line-art", "style", "text"), desc="emoji"):
        if word == "model":
            found = model(given)
        elif word == "cell":
            found = cell(given)
        else:
            world = world or Emoji(given.device, real=64 if given.quick else 2048)
            found = tuned(word, world, given.quick, given.fresh)
        if not given.quick:
            print("written:", save(f"emoji-{word}", found))


if __name__ == "__main__":
    main()
