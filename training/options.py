"""What the programs that remake worlds share of their command lines."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from fit import Paused

from symguide.errors import SymguideError


def parser(about: str | None, words: Iterable[str], out: Path) -> argparse.ArgumentParser:
    """Options of all trainings.

    Args:
        about: the program's docstring.
        words: what can be made.
        out: where it goes.
    """
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", nargs="+", choices=["all", *words], metavar="WHAT", help=f"all, {', '.join(words)}")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--steps", type=int, help="training steps, instead of each model's own number")
    made.add_argument("--samples", type=int, help="how many pictures to measure by")
    made.add_argument("--device", default="cpu")
    made.add_argument("--out", type=Path, default=out, help="where the model folders go")
    made.add_argument("--resume", action="store_true", help="continue from the checkpoints")
    made.add_argument("--minutes", type=float, help="end a training after so many minutes, to go on with --resume")
    made.add_argument("--threads", type=int, default=0, help="CPU threads, torch's choice where not given")
    made.add_argument("--checkpoints", type=Path, default=Path(__file__).parent / "checkpoints")
    return made


def run(main: Callable[[], None]) -> None:
    """Run a program: exit code 75 at the end of a leg, and errors in a sentence."""
    try:
        main()
    except Paused as pause:
        print(pause)
        sys.exit(75)
    except SymguideError as error:
        sys.exit(f"error: {error}")
