"""`resonate mcp`: an assistant makes, changes and judges sounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resonate_audio.cli.options import Choice, Device, Model
from resonate_audio.core.errors import InputError, OutputError


class FileFormat(Choice):
    """Formats of sounds whose kind the protocol's clients know."""

    wav = "wav"
    flac = "flac"
    mp3 = "mp3"
    ogg = "ogg"


def mcp(
    folder: Annotated[
        Path, typer.Option("--folder", "-o", help="Where sounds go, and where sources are found.")
    ],
    read: Annotated[
        list[Path] | None, typer.Option(help="Another folder of sources; repeat for more.")
    ] = None,
    model: Model = "nano",
    judge: Annotated[
        str, typer.Option("--judge", "-j", help="Who scores: a line as in `resonate reward`.")
    ] = "nano-lalm",
    file_format: Annotated[FileFormat, typer.Option("--format", help="Of the sounds.")] = (
        FileFormat.wav
    ),
    device: Device = None,
) -> None:
    """Let an assistant make, vary, mend and judge sounds: an MCP server on stdin and stdout.

    [bold]Examples[/bold]

      resonate mcp --folder ~/sounds

      resonate mcp --folder ~/sounds --read ~/recordings --model resonate --format mp3
    """
    check_package()
    from resonate_audio.cli.mcp.server import make_server
    from resonate_audio.cli.mcp.tools import Workshop

    folders = (open_folder(folder), *(given.expanduser().resolve() for given in read or []))
    for given in folders:
        if not given.is_dir():
            raise InputError(f"--read {given}: no such folder")
    make_server(Workshop(folders, model, judge, f".{file_format.value}", device)).run("stdio")


def check_package() -> None:
    """Fail early where the protocol's library is missing.

    Raises:
        InputError: it is; says how to install it.
    """
    try:
        import mcp.server.mcpserver  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            'the tools need one more package: pip install "resonate-audio[mcp]" '
            f"({error.name} is missing)"
        ) from error


def open_folder(folder: Path) -> Path:
    """The folder of the sounds, made where it is missing.

    Raises:
        OutputError: it cannot be made.
    """
    place = folder.expanduser().resolve()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--folder {folder}: cannot be made ({error.strerror})") from error
    return place
