"""The package `benchmarks` for `python benchmarks/NAME.py`, where Python looks into this folder, not the one above."""

from pathlib import Path

__path__ = [str(Path(__file__).parent)]
