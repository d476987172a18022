"""Options that mean the same in several commands, declared once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from resonate_audio.core.edit import FINISH_RANGES, Finish
from resonate_audio.core.errors import InputError
from resonate_audio.core.paths import given_path
from resonate_audio.core.sampling import FAST, MAX_ROWS, Sampling, SolverSettings, shown_as

SETTINGS, MACHINE, MANY = "How it sounds", "What it runs on", "Many processes or machines"
FINISHED, FILES = "How it is finished", "Where it goes"
FASTEST = "the fastest"
LARGEST_SEED, MOST_TAKES = 2**62, 1000


class Choice(StrEnum):
    """Base of options with a few known values."""


class DType(Choice):
    """Number formats of the network."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A name (see `resonate models`), folder or hub id.",
        rich_help_panel=MACHINE,
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="FILE[:WEIGHT]",
        help="Add what `resonate train sft --lora` learnt; repeat for more.",
        show_default=False,
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1 or mps.", show_default=FASTEST, rich_help_panel=MACHINE),
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="cpu, cuda, cuda:1, mps; one worker each.", show_default=FASTEST),
]
NumberFormat = Annotated[
    DType | None,
    typer.Option(
        help="Number format of the network.", show_default="by device", rich_help_panel=MACHINE
    ),
]
BATCH_SIZE = 8
BatchSize = Annotated[
    int,
    typer.Option(min=1, max=MAX_ROWS, help="Sounds computed together.", rich_help_panel=MACHINE),
]
OpenBatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_ROWS,
        help="Sounds computed together.",
        show_default=str(BATCH_SIZE),
        rich_help_panel=MACHINE,
    ),
]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        "--prompts-file",
        help="A file of prompts: .txt (one a line), .csv, .jsonl, .json; - reads what is piped in.",
        show_default=False,
    ),
]
Takes = Annotated[
    int, typer.Option("--takes", "-n", min=1, max=MOST_TAKES, help="Sounds per prompt.")
]
Host = Annotated[str, typer.Option(help="Other than loopback needs a key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")]
ChanceSeed = Annotated[
    int, typer.Option("--seed", min=0, max=2**62, help="Of bootstrap and sign flips.")
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Work with Ray: `local` on this machine, HOST:PORT on a cluster that sees the files.",
        show_default="this process alone",
        rich_help_panel=MANY,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, max=100_000, help="Processes that Ray uses.", show_default="1", rich_help_panel=MANY
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=4096,
        help="CPU threads of each process.",
        show_default="all, with --ray as many as this machine would",
        rich_help_panel=MANY,
    ),
]

Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=LARGEST_SEED,
        help="Seed of the first take; the next takes count up.",
        show_default="random",
    ),
]
Negative = Annotated[str, typer.Option(help="What not to hear.", rich_help_panel=SETTINGS)]


def with_given_paths(command: Callable[..., None]) -> Callable[..., None]:
    """Call a command with each of its paths as `given_path` reads it.

    Raises:
        InputError: a path lies in the home of a user who has none; names the option.
        RuntimeError: for an `EOFError`, which Typer takes for a person who leaves a prompt; ours
            are files cut short that no reader expected, and no command asks anything.
    """

    @functools.wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**{name: _given(name, value) for name, value in given.items()})
        except EOFError as error:
            raise RuntimeError(f"a file ends too early: {error}") from error

    return run


def _given(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_given(name, one) for one in value]
    try:
        return given_path(value) if isinstance(value, Path) else value
    except InputError as error:
        raise InputError(f"{name} {error}") from error


OWN = ("num_inference_steps", "guidance_scale", "duration_s")
"""Settings whose default is the model's own."""
Asked = dict[str, Any]
"""Settings of `Sampling` that a command line gives, by name."""


@dataclass(frozen=True)
class OptionGroup:
    """Options that several commands take together, as one parameter of each."""

    parameters: tuple[inspect.Parameter, ...]
    gather: Callable[[dict[str, Any]], Any]
    """What the command receives for what was given, by name."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter of a command whose default is a group by the options of the group."""
    signature = inspect.signature(command, eval_str=True)
    groups = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.default, OptionGroup)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += groups[name].parameters if name in groups else [parameter]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {name: gather_from(group, given) for name, group in groups.items()}
        command(**made, **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def gather_from(group: OptionGroup, given: dict[str, Any]) -> Any:
    """Take a group's options out of what was given."""
    return group.gather({p.name: given.pop(p.name) for p in group.parameters})


def group_of(kind: type[Any], **groups: OptionGroup) -> OptionGroup:
    """One option for every field of a dataclass, which is what the command receives.

    Args:
        kind: fields annotated as parameters are.
        groups: fields that are a group of options themselves.
    """
    hints = get_type_hints(kind, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for field in dataclasses.fields(kind):
        if field.name in groups:
            parameters += groups[field.name].parameters
        else:
            parameters.append(option(field.name, hints[field.name], field.default))

    def gather(given: dict[str, Any]) -> Any:
        made = {name: gather_from(group, given) for name, group in groups.items()}
        return kind(**made, **given)

    return OptionGroup(tuple(parameters), gather)


def option(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """A parameter of a command."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def sampling_options(model: type[SolverSettings]) -> OptionGroup:
    """One option for every setting; the command receives those that were given.

    What is not given is the model's own choice.
    """
    parameters = []
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if get_origin(kind) is Literal:
            choices: Any = {choice: choice for choice in get_args(kind)}
            kind = Choice(name, choices)  # type: ignore[call-arg]
        shown = typer.Option(
            shown_as(field).option,
            help=field.description,
            show_default="the model's own" if name in OWN else str(field.default),
            rich_help_panel=SETTINGS,
        )
        parameters.append(option(name, Annotated[kind | None, shown]))
    fast = typer.Option("--fast", help=f"The same as {as_options(FAST)}.", rich_help_panel=SETTINGS)
    parameters.append(option("fast", Annotated[bool, fast], default=False))

    def gather(given: dict[str, Any]) -> Asked:
        return (FAST if given.pop("fast") else {}) | {
            name: value.value if isinstance(value, Choice) else value
            for name, value in given.items()
            if value is not None
        }

    return OptionGroup(tuple(parameters), gather)


def as_options(settings: Asked) -> str:
    """Settings as they are given on a command line."""
    fields = SolverSettings.model_fields
    return " ".join(f"{shown_as(fields[name]).option} {v}" for name, v in settings.items())


FINISHES = {
    "trim_db": ("--trim", "DB", "Cut silence off both ends: what is so far under the loudest: -50"),
    "length_s": ("--length", "S", "Exactly this long: the end is cut off, or silence follows."),
    "fade_s": ("--fade", "S", "Fade in and out over so many seconds."),
    "loudness_lufs": ("--loudness", "LUFS", "Integrated loudness: -16. True peaks stay under -1."),
    "normalize_db": ("--normalize", "DB", "True peak against full scale: -1."),
}
"""Fields of `Finish`: the option, its unit, what it does."""


def finish_options() -> OptionGroup:
    """One option for every field of `Finish`; None where none was given."""
    parameters = []
    for field in dataclasses.fields(Finish):
        name, unit, text = FINISHES[field.name]
        low, high = FINISH_RANGES[field.name]
        shown = typer.Option(
            name, min=low, max=high, metavar=unit, help=text, rich_help_panel=FINISHED,
            show_default="left as it is",
        )  # fmt: skip
        parameters.append(option(field.name, Annotated[float | None, shown]))

    def gather(given: dict[str, Any]) -> Finish | None:
        return Finish(**given) if any(value is not None for value in given.values()) else None

    return OptionGroup(tuple(parameters), gather)


@dataclass(frozen=True)
class Target:
    """Where sounds go."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File (.wav .flac .mp3 .ogg .opus), folder, or - for standard output. Several "
            "sounds are numbered, unless {name} {prompt} {seed} {take} {n} in it tell them apart.",
            show_default="{name}_{seed}.wav, here",
            rich_help_panel=FILES,
        ),
    ] = None
    spectrogram: Annotated[
        bool,
        typer.Option(
            "--spectrogram", help="Draw a picture (.png) beside each sound.", rich_help_panel=FILES
        ),
    ] = False
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=FILES),
    ] = False


@dataclass(frozen=True)
class Loading:
    """Which model, on what."""

    model: Model = "nano"
    adapter: Adapters = None
    device: Device = None
    dtype: NumberFormat = None
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory",
            help="bfloat16, and the text encoder read again for each use.",
            rich_help_panel=MACHINE,
        ),
    ] = False
    batch_size: BatchSize = BATCH_SIZE


@dataclass(frozen=True)
class Making:
    """What every command that makes sounds takes besides its words and sources."""

    asked: Asked
    finish: Finish | None
    target: Target
    loading: Loading
    takes: Takes = 1
    seed: Seed = None
    negative: Negative = ""


def making(settings: OptionGroup) -> Any:
    """Options of a command that makes sounds, with these settings of the solver."""
    return group_of(
        Making, asked=settings, finish=FINISH, target=group_of(Target), loading=group_of(Loading)
    )


# Where a signature has one of these as its default, `with_options` puts the options.
SAMPLING: Any = sampling_options(Sampling)
FINISH: Any = finish_options()
MAKING: Any = making(SAMPLING)
REMAKING: Any = making(sampling_options(SolverSettings))
"""The same of a sound whose length is given by what it is made of."""
