"""Everything that wants a GPU, in one command of eight minutes: laws, memory, compiled steps, half precision, batches.

    python benchmarks/gpu.py [STAGE ...] [--device cuda] [--out benchmarks/results] [--fresh]
    python benchmarks/gpu.py --quick       # every stage on the CPU, some cells of each, under out/gpu-quick
    python benchmarks/gpu.py --plan        # stages, their cells and the seconds that they are given
    python benchmarks/gpu.py --forecast    # write the predictions of memory down; needs no GPU

Runs from a checkout, with no installation but torch (2.11 or newer), diffusers and what both bring:

    PYTHONPATH=src python benchmarks/gpu.py

Stages are made in order of worth, each in a process of its own: one that breaks or hangs takes nothing with it, and is
ended 30 seconds after its cap. Every cell is written as soon as it is measured (gpu-STAGE.json), and measured no more
when the command is run again on the same card with the same torch. Cells that fail say why, and the rest goes on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from tqdm import tqdm

from benchmarks.common import RESULTS, table, with_machine
from benchmarks.stages import Cell, Row, Setting, Stage, batches, graphs, half, laws, memory
from symguide.report import write

STAGES: dict[str, Stage] = {
    "laws": Stage("exact gradients, alone as in a batch, calls counted, no step that waits", 60, 90, laws.cells),
    "memory": Stage("bytes and seconds of SDXL at 1024 and SD 1.5 at 512 pixels, by plan", 150, 180, memory.cells),
    "half": Stage("guided pipelines in float16 and bfloat16", 40, 50, half.cells),
    "graphs": Stage("a guided step with CUDA graphs and torch.compile", 70, 80, graphs.cells),
    "batches": Stage("samples a second of the embedded models, batches of 1 to 4096", 40, 60, batches.cells),
}
GRACE = 30
"""Seconds between a stage's cap and the end of its process."""


class StageRows:
    """A stage's rows in its JSON file, which is whole whenever it is read.

    Args:
        path: the file; rows that another card, torch or form of the benchmark has measured are forgotten.
        setting: where rows are measured.
        fresh: forget all.
    """

    def __init__(self, path: Path, setting: Setting, fresh: bool) -> None:
        self.path, self.device = path, setting.device
        name = torch.cuda.get_device_name(setting.device) if setting.gpu else "cpu"
        self.by: Row = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "quick": setting.quick}
        self.rows: list[Row] = []
        if path.exists() and not fresh:
            results = json.loads(path.read_text())["results"]
            self.rows = results["rows"] if results["by"] == self.by else []

    def __contains__(self, key: Row) -> bool:
        return any(row.items() >= key.items() for row in self.rows)

    def add(self, row: Row) -> None:
        """One more, written at once."""
        self.rows.append(row)
        write(self.path, with_machine({"by": self.by, "rows": self.rows}, self.device))


def measure(cells: Iterator[Cell], kept: StageRows, cap: float, clock: Callable[[], float] = time.monotonic) -> int:
    """Measures what is not kept, until the cap; gives the number of cells that were not begun."""
    end, left = clock() + cap, 0
    for cell in tqdm(cells, desc=kept.path.stem, unit="cell", leave=False):
        if cell.key in kept:
            continue
        if clock() >= end:
            left += 1
            continue
        begun = clock()
        try:
            found = cell.measure()
        except Exception as error:  # what a cell fails of is its result: the next one may go well
            found = {"good": False, "error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        kept.add({**cell.key, **found, "cell, s": round(clock() - begun, 2)})
    return left


def stage(name: str, setting: Setting, out: Path, fresh: bool) -> int:
    """One stage, in this process."""
    kept = StageRows(out / f"gpu-{name}.json", setting, fresh)
    return measure(STAGES[name].cells(setting), kept, STAGES[name].cap)


def apart(name: str, given: argparse.Namespace, out: Path) -> str:
    """One stage in a process of its own, and what is to be said of it."""
    command = [sys.executable, __file__, name, "--here", "--device", given.device, "--out", str(out)]
    command += ["--quick"] * given.quick + ["--fresh"] * given.fresh
    begun = time.monotonic()
    try:
        done = subprocess.run(command, timeout=STAGES[name].cap + GRACE, check=False)
        how = "" if done.returncode == 0 else f"; it ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        how = "; it was ended"
    return f"{name}: {time.monotonic() - begun:.0f} s of {STAGES[name].cap}{how}"


def shown(rows: list[Row]) -> str:
    """Rows as tables, one for each set of columns; long numbers short."""
    tables: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        tables.setdefault(tuple(row), []).append({name: _short(value) for name, value in row.items()})
    return "\n\n".join(table(each) for each in tables.values())


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def plan(setting: Setting) -> str:
    """Stages with the number of their cells."""
    rows = [
        {
            "stage": name,
            "cells": sum(1 for _ in each.cells(setting)),
            "expected, s": each.seconds,
            "cap, s": each.cap,
            "what": each.about,
        }
        for name, each in STAGES.items()
    ]
    total = {"stage": "all", "cells": sum(row["cells"] for row in rows), "what": ""}
    total |= {key: sum(row[key] for row in rows) for key in ("expected, s", "cap, s")}
    return table([*rows, {key: total[key] for key in rows[0]}])


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)  # of schedulers as pipelines have them by default
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)}; all in this order if none")
    parser.add_argument("--device", default="cuda", help="cuda, or cuda:1")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="some cells of every stage, on the CPU")
    parser.add_argument("--fresh", action="store_true", help="forget what is measured")
    parser.add_argument("--plan", action="store_true", help="say what would be measured, and stop")
    parser.add_argument("--forecast", action="store_true", help="predict the memory stage, write that, and stop")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := sorted(set(given.stages) - set(STAGES)):
        parser.error(f"unknown stage {unknown[0]!r}: choose from {', '.join(STAGES)}")
    if given.forecast:
        print("written:", write(memory.FORECAST, with_machine(memory.forecasts())))
        return
    given.device = "cpu" if given.quick else given.device
    torch.set_num_threads(1 if given.quick else torch.get_num_threads())
    setting = Setting(torch.device(given.device), given.quick)
    if given.plan:
        print(plan(setting))
        return
    if setting.gpu and not torch.cuda.is_available():
        parser.error("no GPU is here: --quick runs some of every stage on the CPU")
    out = given.out or (Path("out/gpu-quick") if given.quick else RESULTS)
    names = given.stages or list(STAGES)
    if given.here:
        if left := sum(stage(name, setting, out, given.fresh) for name in names):
            print(f"{left} cells were not begun: run it again for them")
        return
    said = [apart(name, given, out) for name in names]
    failed = []
    for name in names:
        path = out / f"gpu-{name}.json"
        rows = json.loads(path.read_text())["results"]["rows"] if path.exists() else []
        failed += [f"{name}: {row}" for row in rows if row.get("good") is False]
        print(f"\n## {name}\n\n{shown(rows) if rows else 'nothing was measured'}")
    print("", *said, *(f"FAILED {line}" for line in failed), sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
