"""The cases: how every pipeline class is built and called, and the classes that are left out, with the reason.

Each file of `families/` may have

    CASES = {"FluxPipeline": (make, call), "FluxPipeline: true CFG": (make, call, {"note": ...})}
    LEFT_OUT = {"SomePipeline": "why it has no case"}

with make(folder) -> pipeline (tokenizers may be written into the folder) and the arguments of a short call. What a case
may say of itself, beside that:

    note        a sentence for the table: what objectives see of a sound, say
    unmixed     arguments of a call in which the pipeline hands its last latents to the decoder as they are: a mask that
                is everywhere, for inpainting that mixes the picture's own latents in
    quantises   True: the decoder rounds, and gradients pass straight through
    entry       True: refused before anything is run, so its parts are bare and it is not called
    once        True: only the first guided step's calls are made again where n = 1, not those of all of them
    seconds     a time limit of its own
    decode      False: begin with decode=False (for those whose refusal of decode=True is tested elsewhere)
    single      True: the pipeline cannot run in float64
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAMILIES = Path(__file__).parent / "families"
NOTES = {
    *("note", "unmixed", "seconds", "decode", "single", "entry", "once", "quantises"),
    *("elsewhere", "held", "rendered"),
}


@dataclass(frozen=True)
class Case:
    """One setting of one class."""

    name: str
    make: Callable[[Path], Any]
    call: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The class."""
        return self.name.split(":")[0]


def cases() -> dict[str, Case]:
    """All cases by name: a class, or a class and a setting of it."""
    found: dict[str, Case] = {}
    for module in _files():
        for name, (make, call, *more) in getattr(module, "CASES", {}).items():
            notes = more[0] if more else {}
            if name in found or set(notes) - NOTES:
                raise ValueError(f"{name}: a second case of this name, or unknown notes in {sorted(notes)}")
            found[name] = Case(name, make, call, notes)
    return found


def left_out() -> dict[str, str]:
    """Why these classes have no case."""
    found: dict[str, str] = {}
    for module in _files():
        found |= getattr(module, "LEFT_OUT", {})
    return found


def _files() -> list[Any]:
    return [importlib.import_module(file.stem) for file in sorted(FAMILIES.glob("*.py"))]


def classes() -> dict[str, str]:
    """Every pipeline class of the installed diffusers, and why it is no pipeline to guide ("" where it is one)."""
    import diffusers

    reasons = {}
    for name in sorted(name for name in dir(diffusers) if name.endswith("Pipeline")):
        where = diffusers._class_to_module[name]  # asked for themselves, all classes would be imported
        if where.startswith("utils.dummy_"):
            needs = where.removeprefix("utils.dummy_").removesuffix("_objects").split("_and_")
            needs = [each for each in needs if each not in ("torch", "transformers")]
            reasons[name] = f"not installed: {', '.join(needs)}"
        elif name in ("DiffusionPipeline", "ModularPipeline"):
            reasons[name] = "a base class"
        elif name.endswith("ModularPipeline"):
            reasons[name] = "made of blocks, which test_modular.py guides; the class alone is an empty shell"
        else:
            reasons[name] = ""
    return reasons
