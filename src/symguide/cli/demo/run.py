"""One run of the demo: both panels under one progress bar, and the files they become."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from symguide.cli.demo.inpaint import Inpaint
from symguide.cli.demo.steer import Steer
from symguide.cli.device import usable
from symguide.errors import ConfigError
from symguide.models import load
from symguide.report import environment, png, render_page, write


@dataclass(frozen=True)
class Done:
    """A finished run."""

    steer: Steer
    inpaint: Inpaint
    command: str
    settings: dict[str, Any]

    @property
    def results(self) -> dict[str, Any]:
        """Everything measured, as JSON values."""
        facts = {"command": self.command, "settings": self.settings, "environment": environment(self.steer.device)}
        return facts | {"steer": self.steer.table.records(), "inpaint": self.inpaint.table.records()}

    def write(self, out: Path) -> tuple[list[Path], str | None]:
        """Write the files of the run; returns their paths, and why there is no page where there is none."""
        paths = [
            write(out / "steer.png", png(self.steer.picture())),
            write(out / "inpaint.png", png(self.inpaint.picture())),
            write(out / "results.json", json.dumps(self.results, indent=2) + "\n"),
        ]
        try:
            page = self._page()
        except ConfigError as missing:
            return paths, str(missing)
        return [*paths, write(out / "index.html", page)], None

    def _page(self) -> str:
        facts = self.results["environment"] | {name: str(value) for name, value in self.settings.items()}
        return render_page(
            "symguide: guidance at sampling time",
            self.steer.summary(),
            self.command,
            [self.steer.section(), self.inpaint.section()],
            facts,
        )


def run(num: int, steps: int, seed: int, device: str, command: str) -> Done:
    """Draw and measure both panels."""
    usable(device)
    denoiser = load("digits", device=device)
    steer, inpaint = Steer(denoiser, num, device), Inpaint(denoiser, min(num, 30), device)
    with one_thread(), tqdm(total=steps * (steer.work + inpaint.work), unit=" calls", leave=False) as bar:

        def tick(name: str, work: int) -> None:
            bar.set_description(name, refresh=False)
            bar.update(work)

        steer.run(tick, steps, seed)
        inpaint.run(tick, steps, seed)
    return Done(steer, inpaint, command, {"num": num, "steps": steps, "seed": seed, "device": device})


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch inside, as many as before outside.

    Networks this small gain little from a second thread, and wait for it up to 20 times as long as they compute where
    another program wants the cores too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
