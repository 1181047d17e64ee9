"""One run of the demo: all parts under one progress bar, and the files they become."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from symguide.demo.emoji import Wish
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
        return facts | {name: part.table.records() for name, part in self.show.parts.items()}

    def write(self, out: Path) -> tuple[list[Path], str | None]:
        """Write the files of the run; returns their paths, and why there is no page where there is none."""
        pictures = {name: part.picture() for name, part in self.show.parts.items()}
        paths = [write(out / f"{name}.png", png(picture)) for name, picture in pictures.items()]
        paths.append(write(out / "results.json", json.dumps(self.results, indent=2) + "\n"))
        try:
            page = self._page()
        except ConfigError as missing:
            return paths, str(missing)
        return [*paths, write(out / "index.html", page)], None

    def _page(self) -> str:
        facts = self.results["environment"] | {name: str(value) for name, value in self.settings.items()}
        lead = self.show.lead or self.show.summary()
        return render_page(self.title, lead, self.command, self.show.sections(), facts)


def run(world: str, num: int, steps: int, seed: int, device: str, command: str, wish: Mapping[str, Any]) -> Done:
    """Draw and measure all parts of a show; `wish` has what is asked for of `Wish`'s attributes."""
    asked = Wish(**wish)
    show = SHOWS[world].make(num, device, asked)
    total = sum(part.work(steps) for part in show.parts.values())
    with one_thread(), tqdm(total=total, unit=" calls", leave=False) as bar:

        def tick(name: str, work: int) -> None:
            bar.set_description(name, refresh=False)
            bar.update(work)

        for name, part in show.parts.items():
            part.run(lambda what, work, name=name: tick(f"{name}: {what}", work), steps, seed)  # type: ignore[misc]
    settings = {"world": world, "num": num, "steps": steps, "seed": seed, "device": device}
    settings |= asdict(asked) if SHOWS[world].wishes else {}
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
