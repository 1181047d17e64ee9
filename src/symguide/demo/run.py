"""One run of the demo: all panels under one progress bar, and the files they become."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from symguide.demo.shows import SHOWS, Show
from symguide.errors import ConfigError
from symguide.report import environment, png, render_page, write


@dataclass(frozen=True)
class Done:
    """A finished run."""

    show: Show
    title: str
    command: str
    settings: dict[str, Any]

    @property
    def results(self) -> dict[str, Any]:
        """Everything measured, as JSON values."""
        facts = {
            "command": self.command,
            "settings": self.settings,
            "environment": environment(self.settings["device"]),
        }
        why = {"estimates": self.show.why.rows} if self.show.why else {}
        return facts | why | {name: panel.table.records() for name, panel in self.show.panels.items()}

    def write(self, out: Path) -> tuple[list[Path], str | None]:
        """Write the files of the run; returns their paths, and why there is no page where there is none."""
        pictures = {name: panel.picture() for name, panel in self.show.panels.items()}
        if self.show.why is not None:
            pictures["estimates"] = self.show.why.picture()
        paths = [write(out / f"{name}.png", png(picture)) for name, picture in pictures.items()]
        paths.append(write(out / "results.json", json.dumps(self.results, indent=2) + "\n"))
        try:
            page = self._page()
        except ConfigError as missing:
            return paths, str(missing)
        return [*paths, write(out / "index.html", page)], None

    def _page(self) -> str:
        facts = self.results["environment"] | {name: str(value) for name, value in self.settings.items()}
        sections = [panel.section() for panel in self.show.panels.values()]
        if self.show.why is not None:
            sections.insert(1, self.show.why.section())
        if self.show.closing is not None:
            sections.append(self.show.closing())
        return render_page(self.title, self.show.lead or self.show.summary(), self.command, sections, facts)


def run(world: str, num: int, steps: int, seed: int, device: str, command: str) -> Done:
    """Draw and measure all panels of a world."""
    show = SHOWS[world].make(num, device)
    total = steps * sum(panel.work for panel in show.panels.values()) + (show.why.work if show.why else 0)
    with one_thread(), tqdm(total=total, unit=" calls", leave=False) as bar:

        def tick(name: str, work: int) -> None:
            bar.set_description(name, refresh=False)
            bar.update(work)

        if show.why is not None:
            show.why.run(steps, seed)
            tick("estimates", show.why.work)
        for name, panel in show.panels.items():
            panel.run(lambda method, work, name=name: tick(f"{name}: {method}", work), steps, seed)  # type: ignore[misc]
    settings = {"world": world, "num": num, "steps": steps, "seed": seed, "device": device}
    return Done(show, SHOWS[world].title, command, settings)


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
