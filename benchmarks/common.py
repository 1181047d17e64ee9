"""What the studies share: the results file, their command line, and measurements that are kept."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from symguide.report import environment, write
from symguide.rows import Rows

RESULTS = Path(__file__).parent / "results"


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Where and when a result was made: the environment, the processor and the day."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {**environment(device), "cpu": cpu, "cores": os.cpu_count(), "date": date.today().isoformat()}


def with_machine(results: Any, device: torch.device | str = "cpu") -> str:
    """Results as the text of a JSON file that says where they were made."""
    return json.dumps({"machine": machine(device), "results": results}, indent=1) + "\n"


def save(name: str, results: Any) -> Path:
    """Write results/<name>.json whole or not at all."""
    return write(RESULTS / f"{name}.json", with_machine(results))


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(row[h]) for h in heads) + " |" for row in rows]
    return "\n".join(lines)


def arguments(
    about: str | None, words: Sequence[str], quick: str, *, device: bool = True, **flags: str
) -> argparse.Namespace:
    """The command line of a benchmark that keeps its cells; threads are set.

    Args:
        about: its docstring.
        words: what may be asked for; none is all.
        quick: what --quick does.
        device: whether it can be told where to run.
        flags: further flags, with their help.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help=", ".join(words))
    parser.add_argument("--quick", action="store_true", help=f"{quick}; nothing written")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are done")
    if device:
        parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, torch's choice where not given")
    for flag, help_ in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=help_)
    given = parser.parse_args()
    if unknown := sorted(set(given.words) - set(words)):
        parser.error(f"unknown word {unknown[0]!r}: choose from {', '.join(words)}")
    if given.threads:
        torch.set_num_threads(given.threads)
    return given


class Cells:
    """Measurements that are kept as soon as they are made, and not made again.

    Args:
        path: the file of rows; those of other keys are from another form of the benchmark, and forgotten.
        keys: what tells cells apart; `measure` takes these arguments.
        measure: makes a cell.
        fresh: forget what the file has.
    """

    def __init__(self, path: Path, keys: Sequence[str], measure: Callable[..., dict[str, Any]], fresh: bool) -> None:
        if fresh:
            path.unlink(missing_ok=True)
        self.rows, self.keys, self.measure = Rows(path, {"keys": keys}), keys, measure

    def get(self, *key: Any) -> dict[str, Any]:
        """The cell of this key, measured now where it was not yet."""
        return self.rows.get(dict(zip(self.keys, key, strict=True)), lambda: self.measure(*key))
