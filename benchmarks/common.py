"""What the benchmarks share: the machine's description and the results file."""

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

from symguide.report import environment, write

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Where and when a result was made."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {**environment(), "cpu": cpu, "cores": os.cpu_count(), "date": date.today().isoformat()}


def save(name: str, results: Any) -> Path:
    """Write results/<name>.json whole or not at all."""
    return write(RESULTS / f"{name}.json", json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(row[h]) for h in heads) + " |" for row in rows]
    return "\n".join(lines)
