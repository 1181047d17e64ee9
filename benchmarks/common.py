"""What the benchmarks share: the machine's description and the results file."""

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

import symguide

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Where a result was made: processor, cores, versions, day."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "symguide": symguide.__version__,
        "date": date.today().isoformat(),
    }


def save(name: str, results: Any) -> Path:
    """Write results/<name>.json whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
    os.replace(temporary, path)
    return path


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(row[h]) for h in heads) + " |" for row in rows]
    return "\n".join(lines)
