"""What `sample` and `tune` take: settings by name, each with its type, and how a command line says them.

    symguide sample --steps 20 --set eta=0 --set sag.scale=0.5

A setting of the run or of a method is typed as --set NAME=VALUE, or as an option of its own, --eta 0; only those that
are typed every day are declared as options. Config files have the same names as keys.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import click

from symguide import values
from symguide.cli.help import DEBUG, Command, Option
from symguide.cli.params import SAMPLES
from symguide.errors import ConfigError, unknown
from symguide.values import MOST, Between, Known, Pairs

Count = Annotated[int, Between(1, MOST)]
Samples = Annotated[int, Between(1, SAMPLES)]
Seed = Annotated[int, Between(-(2**63), 2**63 - 1)]
Share = Annotated[float, Between(0, 1)]
Positive = Annotated[float, Between(0)]


@dataclass(frozen=True)
class Setting:
    """One setting of a command.

    Attributes:
        about: what it does, for --help.
        kind: the type of its value; of one that may be given several times, of each.
        default: where nobody gives it; None where that depends.
        shown: what --help says of a default that depends.
        form: of its value in --help.
        many: whether it may be given several times.
        alien: the sources that have no such setting, with the reason.
        method: whether it is a parameter of methods, whose signatures have its type.
        group: in --help.
    """

    about: str
    kind: Any = str
    default: Any = None
    shown: str = ""
    form: str = ""
    many: bool = False
    alien: Mapping[str, str] | None = None
    method: bool = False
    group: str = "Samples"

    @property
    def help(self) -> str:
        default = self.shown or ("" if self.default in (None, False) else f"{self.default}")
        return f"{self.about}  [default: {default}]" if default else self.about

    @property
    def metavar(self) -> str:
        flag = values.words(self.kind) == 0
        return self.form or ("" if flag else values.metavar(self.kind))


def _solvers() -> Iterable[str]:
    from symguide.solver import SOLVERS

    return SOLVERS


def _grids() -> Iterable[str]:
    from symguide.solver import GRIDS

    return GRIDS


def _schedulers() -> Iterable[str]:
    from symguide.pipelines.levels import KNOWN

    return KNOWN


_PIPELINES = {"model": "it is for runs with --pipeline"}


def in_group(group: str, **settings: Setting) -> dict[str, Setting]:
    """Settings of one group of --help, by name."""
    return {name: replace(setting, group=group) for name, setting in settings.items()}


SAMPLE: Mapping[str, Setting] = {
    **in_group(
        "Samples",
        model=Setting("An embedded model's name, or a model folder.", shown="digits", form="NAME"),
        pipeline=Setting(
            "In place of a model: a diffusers pipeline that draws pictures, of a prompt or of nothing, from a folder "
            "or the Hugging Face hub; safetensors only.",
            form="FOLDER_OR_ID",
        ),
        prompt=Setting(
            "What the samples show, for models that read captions, and pipelines; several go to the samples in turn.",
            many=True,
        ),
        negative_prompt=Setting("What they do not show, for pipelines that heed it.", alien=_PIPELINES),
        condition=Setting(
            "A condition of the model, label=3; values of a list, label=0,1,2, go to the samples in turn.",
            Pairs,
            form="NAME=VALUES",
            many=True,
            alien={"pipeline": "a pipeline is told what to show by --prompt"},
        ),
        cfg=Setting(
            "Weight of guidance toward the condition, which needs no objective; 1 is off, 2 to 6 is usual.",
            float,
            shown="a pipeline's own; 5 with --prompt, else off",
            form="SCALE",
        ),
        num=Setting("How many samples.", Samples, 16),
        batch=Setting(
            "Samples at a time; each batch is saved when it is done.", Samples, shown="64, or 1 with --pipeline"
        ),
        seed=Setting("With a sample's index it decides its noise.", Seed, 0),
        size=Setting(
            "Of a pipeline's pictures, in pixels; its own where not given.",
            tuple[Count, Count],
            form="HEIGHT WIDTH",
            alien=_PIPELINES,
        ),
    ),
    **in_group(
        "Sampler",
        steps=Setting("Steps from noise to clean.", Count, shown="50, or the pipeline's own"),
        solver=Setting(
            "Of the steps.",
            Annotated[str, Known("solver", _solvers)],
            shown="ddim",
            alien={"pipeline": "a pipeline steps with its own scheduler: use --scheduler"},
        ),
        grid=Setting(
            "Where the steps lie.",
            Annotated[str, Known("grid", _grids)],
            shown="uniform",
            alien={"pipeline": "a pipeline's timesteps are its scheduler's: use --scheduler"},
        ),
        eta=Setting(
            "Noise put back in each step: 0 none, 1 as the ancestral sampler.",
            Share,
            shown="1, or the pipeline's own",
        ),
        restart=Setting(
            "Go back from the noise level LOW (sigma / alpha) to HIGH and sample down again, TIMES times.",
            tuple[Positive, Positive, Count],
            form="LOW HIGH TIMES",
            alien={"pipeline": "a pipeline makes each of its steps once"},
        ),
        scheduler=Setting(
            "Of diffusers, in the place of the pipeline's own, e.g. DDIMScheduler.",
            Annotated[str, Known("scheduler", _schedulers)],
            alien=_PIPELINES,
        ),
        device=Setting("Where to compute, e.g. cpu, cuda, cuda:1, mps.", str, "cpu", form="NAME"),
        dtype=Setting(
            "Precision of the network and the samples.",
            Literal["float32", "float64", "float16", "bfloat16"],
            "float32",
        ),
        on_nan=Setting(
            "A loss that is not finite stops the run, or leaves that sample unguided for the step.",
            Literal["raise", "skip"],
            "raise",
        ),
    ),
    **in_group(
        "Guidance",
        objective=Setting(
            "What to steer toward: classifier:3, style:PICTURE, text:WORDS, module:Name of your own, or a weighted "
            "sum, e.g. '0.5*classifier:3 + region:a.png@left'. See symguide objectives.",
            form="SPEC",
        ),
        encoder=Setting(
            "A real encoder for the objective, from a folder or the Hugging Face hub: a CLIP for text, image, style "
            "and aesthetic:HEAD, a segmentation model for segmentation, a depth model for depth.",
            form="FOLDER_OR_ID",
            many=True,
        ),
        method=Setting(
            "How to steer; one of each kind may be given. See symguide methods.",
            shown="sag where only an objective is given",
            form="NAME",
            many=True,
        ),
        scale=Setting("Strength of the method, as in Python.", float, shown="the method's own", method=True),
        n=Setting("Network calls that the method looks ahead.", int, shown="the method's own", method=True),
        window=Setting(
            "Which part of the steps is guided, as fractions.",
            tuple[float, float],
            form="START STOP",
            method=True,
        ),
        sphere=Setting(
            "Keep guided steps on DSG's sphere, whatever the method: its parameter constraint.",
            float,
            form="RATE",
            method=True,
        ),
        lookahead_solver=Setting("The method's parameter solver: best, paper, or a solver.", form="NAME", method=True),
        lookahead_grid=Setting("The method's parameter grid.", form="NAME", method=True),
        rule=Setting("A --method for the prediction, whose scale is --cfg: cfg, cfg++, apg and others.", form="NAME"),
        best_of=Setting(
            "Draw N of each sample and keep the one with the lowest loss; takes rules without gradients.",
            Count,
            form="N",
            alien={"pipeline": "a pipeline draws each sample once: draw more with --num, and choose"},
        ),
        checkpoint=Setting(
            "Keep less of a pipeline for the backward sweep and compute it again there: same gradients, less memory.",
            bool,
            alien=_PIPELINES,
        ),
    ),
    **in_group(
        "Output",
        out=Setting(
            "Folder for the samples, the config that repeats them, and the shards of the run.",
            str,
            "out",
            form="FOLDER",
        ),
        format=Setting(
            "A picture for each sample, or one file with all.", Literal["png", "npz", "safetensors"], "png"
        ),
        grid_png=Setting("Write grid.png of the first samples; --no-grid-png does not.", bool, True),
        json=Setting("Write the figures as JSON to a file, or to stdout with -.", form="FILE"),
        progress=Setting(
            "Progress and results always (--progress), or errors only (--quiet).", bool, shown="on a terminal"
        ),
    ),
    **in_group(
        "Run",
        config=Setting(
            "YAML or TOML with any of these names as keys; what is typed here wins.", form="FILE"
        ),
        shard=Setting(
            "Draw the I-th of N parts of the run, beside other processes; the last one writes the samples.",
            form="I/N",
        ),
        fresh=Setting("Start over, and drop what an earlier run left in --out.", bool),
    ),
}  # fmt: skip
"""Settings of symguide sample by name."""


class Word(NamedTuple):
    """A setting as it was given: its name, its text, and how an error calls it."""

    name: str
    text: str
    where: str


class SettingsCommand(Command):
    """A command of settings: those in `options` are declared as options, --set gives any, and so does --NAME VALUE.

    Its function is called with what was typed, as `words`.
    """

    def __init__(self, *args: Any, table: Mapping[str, Setting], options: Sequence[str], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.table, self.declared = table, options
        group = ""
        for name in sorted(options, key=lambda name: list(table).index(name)):
            setting, group = table[name], table[name].group
            self.params.append(_option(flag(name), setting.help, setting.metavar, group, setting.many))
        about = "Any setting of the run or of a method, e.g. eta=0, sag.scale=0.5; --eta 0 is the same."
        self.params.append(_option("--set", about, "NAME=VALUE", "Settings", True))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        words = list(self._words(ctx, args))
        if words and words[-1].name in ctx.help_option_names:
            return super().parse_args(ctx, ["--help"])
        ctx.params = {"words": words}
        return []

    def _words(self, ctx: click.Context, args: Sequence[str]) -> Iterator[Word]:
        """What is typed, one setting after the other; ends at --help."""
        left = list(args)
        while left:
            typed = left.pop(0)
            head, equals, text = typed.partition("=")
            if head in ctx.help_option_names:
                yield Word(head, "", head)
                return
            if head == "--debug":
                ctx.meta[DEBUG] = True
                continue
            if not head.startswith("--"):
                raise ConfigError(f"{ctx.command_path} takes options alone, such as --num 8, and not {typed!r}")
            if head == "--set":
                name, equals, text = (text if equals else _next(left, head, "NAME=VALUE")).partition("=")
                name = plain_name(name.strip())
                if not equals and values.words(self._kind(name, f"--set {name}")):
                    raise ConfigError(f"--set takes NAME=VALUE, such as eta=0, not {name!r}")
                yield Word(name, text if equals else "true", f"--set {name}")
                continue
            name, off = _off(plain_name(head[2:]), self.table)
            count = values.words(self._kind(name, head))
            if off or not (equals or count):
                yield Word(name, "false" if off else "true", head)
            else:
                texts = [text if equals else _next(left, head, f"{count} values" if count > 1 else "a value")]
                while len(texts) < count and not set(texts[0]) & set(",("):
                    texts.append(_next(left, head, f"{count} values"))
                yield Word(name, ",".join(texts) if count > 1 else texts[0], head)

    def _kind(self, name: str, typed: str) -> Any:
        """The type of a setting, of the run or of a method."""
        if name in self.table:
            return self.table[name].kind
        from symguide.cli import methods

        kind = methods.kind_of_setting(name)
        if kind is None:
            known = dict.fromkeys([*self.table, *methods.settings()])
            dashed = typed.startswith("--set")
            raise unknown(
                "setting" if dashed else "option", name if dashed else typed, known if dashed else map(flag, known)
            )
        return kind

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        rest = {name: setting for name, setting in self.table.items() if name not in self.declared}
        with formatter.section("Further settings, --set NAME=VALUE or --NAME VALUE"):
            formatter.write_dl([(f"{name} {s.metavar}".strip(), s.help) for name, s in rest.items()])
            formatter.write_paragraph()
            formatter.write_text("Those of methods, with types, defaults and ranges: symguide methods NAME")


def _option(name: str, about: str, form: str, group: str, many: bool) -> Option:
    return Option([name], help=about, metavar=form, group=group, multiple=many, expose_value=False)


def _next(left: list[str], head: str, what: str) -> str:
    if not left:
        raise ConfigError(f"{head} takes {what}: give it after {head}")
    return left.pop(0)


def _off(name: str, table: Mapping[str, Setting]) -> tuple[str, bool]:
    """The setting of a flag and whether it switches that off: --no-grid-png, and --quiet, which is no progress."""
    if name == "quiet":
        return "progress", True
    positive = name.removeprefix("no_")
    return (positive, True) if positive != name and positive in table else (name, False)


def plain_name(name: str) -> str:
    """A setting's name with underscores; that of its method is left as it is.

    >>> plain_name("adam-dps.backward-steps"), plain_name("grid-png")
    ('adam-dps.backward_steps', 'grid_png')
    """
    method, dot, own = name.rpartition(".")
    return method + dot + own.replace("-", "_")


def flag(name: str) -> str:
    """A setting as it is typed."""
    return "--" + name.replace("_", "-")


def read(words: Iterable[Word], table: Mapping[str, Setting]) -> tuple[dict[str, Any], list[Word]]:
    """The settings of the run that were given, as plain values by name, and the words of methods.

    Raises:
        ConfigError: for a value that its setting does not take.
    """
    found: dict[str, Any] = {}
    others: list[Word] = []
    for word in words:
        setting = table.get(word.name)
        if setting is None or setting.method:
            others.append(word)
        elif setting.many:
            found.setdefault(word.name, []).append(values.plain(word.text, setting.kind, word.where))
        else:
            found[word.name] = values.plain(word.text, setting.kind, word.where)
    return found, others


def check_json(to: str | None) -> None:
    """ConfigError for a file that cannot be written, before anything is computed."""
    if to not in (None, "-") and (not Path(to).name or Path(to).is_dir() or not Path(to).parent.is_dir()):
        raise ConfigError(f"--json: {to!r} is no file in a folder that exists; - is stdout")
