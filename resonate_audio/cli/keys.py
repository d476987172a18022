"""`resonate keys`: who may use a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resonate_audio.cli.console import print_text, say

app = typer.Typer(no_args_is_help=True, help="Keys of a server: add, list, remove.")
File = Annotated[Path, typer.Option("--file", "-f", help="The file that `serve --keys` reads.")]
Name = Annotated[str, typer.Argument(help="Whose key it is; shown in logs.")]
STANDARD = Path("keys.json")


@app.command()
def add(
    name: Name,
    file: File = STANDARD,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="More are refused.", show_default="no limit"),
    ] = None,
) -> None:
    """Make a key and print it: the file keeps its hash only, so it is told this once.

    [bold]Example[/bold]

      resonate keys add anna --requests-per-minute 60
    """
    from resonate_audio.serving.keys import add_key

    secret = add_key(file, name, requests_per_minute)
    say(f"{file}: a key for {name}; it is not shown again")
    print_text(secret)


@app.command("list")
def list_keys(file: File = STANDARD) -> None:
    """Names and limits.

    [bold]Example[/bold]

      resonate keys list
    """
    from resonate_audio.serving.keys import read_keys

    for key in read_keys(file):
        limit = key.requests_per_minute
        print_text(f"{key.name}  {f'{limit} requests a minute' if limit else 'no limit'}")


@app.command()
def remove(name: Name, file: File = STANDARD) -> None:
    """Take a key away; a server that runs is started again to know it.

    [bold]Example[/bold]

      resonate keys remove anna
    """
    from resonate_audio.serving.keys import remove_key

    remove_key(file, name)
    say(f"{file}: {name} has no key any more")
