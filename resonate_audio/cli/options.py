"""Options that mean the same in several commands, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from resonate_audio.core.sampling import Sampling, shown_as

SETTINGS, MACHINE, MANY = "How it sounds", "What it runs on", "Many processes or machines"
FASTEST = "the fastest"


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
BatchSize = Annotated[
    int, typer.Option(min=1, help="Sounds computed together.", rich_help_panel=MACHINE)
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
Takes = Annotated[int, typer.Option("--takes", "-n", min=1, max=1000, help="Sounds per prompt.")]
Host = Annotated[str, typer.Option(help="Other than loopback needs a key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")]
ChanceSeed = Annotated[int, typer.Option("--seed", min=0, help="Of bootstrap and sign flips.")]
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
    typer.Option(min=1, help="Processes that Ray uses.", show_default="1", rich_help_panel=MANY),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads of each process.",
        show_default="all, with --ray as many as this machine would",
        rich_help_panel=MANY,
    ),
]

Asked = dict[str, Any]
"""Settings of `Sampling` that a command line gives, by name."""
SAMPLING: Asked = {}
"""Where a command's signature has this default, `with_sampling` puts the options."""


def with_sampling(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter ``asked`` of a command by one option for every setting of `Sampling`.

    The command receives those that were given; what is not given is the model's own choice.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += sampling_parameters() if parameter.name == "asked" else [parameter]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        values = {name: given.pop(name) for name in Sampling.model_fields}
        asked = {
            name: value.value if isinstance(value, Choice) else value
            for name, value in values.items()
            if value is not None
        }
        command(asked=asked, **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def sampling_parameters() -> list[inspect.Parameter]:
    """One parameter a setting, with what its option says, None where it is not given."""
    made = []
    for name, field in Sampling.model_fields.items():
        kind: Any = field.annotation
        if get_origin(kind) is Literal:
            choices: Any = {choice: choice for choice in get_args(kind)}
            kind = Choice(name, choices)  # type: ignore[call-arg]
        option = typer.Option(
            shown_as(field).option,
            help=field.description,
            show_default=str(field.default) if name == "solver" else "the model's own",
            rich_help_panel=SETTINGS,
        )
        made.append(
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=None,
                annotation=Annotated[kind | None, option],
            )
        )
    return made
