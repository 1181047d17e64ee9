"""Stable Diffusion 1.5 at 512 pixels and SDXL at 1024: seconds and allocated bytes by plan, beside the forecast.

The forecasts were written down before: `python benchmarks/gpu.py --forecast` simulates them on any machine, so that no
second of a GPU goes to them.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.pipelines_gpu import Bench, settings
from benchmarks.stages import Cell, Row, Setting
from symguide.planning import Estimate, Plan
from symguide.planning.estimate import MEMORIES, plan_name

FORECAST = Path(__file__).parents[1] / "results" / "gpu-forecast.json"
CASES = ("sdxl", 1024), ("sd-1.5", 512)
NS = 4, 1, 2, 8
"""The usual n first."""
QUICK = ("tiny", 64)


def cells(setting: Setting) -> Iterator[Cell]:
    """Plans that fit any card first, and plain autograd, which may not fit at all, last."""
    bench = Bench(settings(setting.quick, False))
    if not setting.quick:
        bench.guess = partial(written, json.loads(FORECAST.read_text())["results"])
    memories = ("minimal",) if setting.quick else sorted(MEMORIES, key=("minimal", 0, "fast", None).index)
    for model, size in (QUICK,) if setting.quick else CASES:
        for n in (2,) if setting.quick else NS:
            for memory in memories:
                for checkpoint in (False, True):
                    plan = plan_name(memory, checkpoint)
                    key = {"model": model, "size": size, "n": n, "plan": plan}
                    yield Cell(key, partial(bench.cell, model, size, n, plan))


def forecasts() -> Row:
    """Predictions of all cells, by model, size and n."""
    bench = Bench(settings(False, False))
    return {f"{model} {size} {n}": bench.guess(model, size, n).record() for model, size in CASES for n in NS}


def written(kept: Row, model: str, size: int, n: int) -> Estimate:
    """A prediction that was written down."""
    record = dict(kept[f"{model} {size} {n}"])
    plans = [{name: value for name, value in plan.items() if name != "name"} for plan in record.pop("plans")]
    return Estimate(**record, plans=tuple(Plan(**plan) for plan in plans))
