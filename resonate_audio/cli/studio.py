"""`resonate studio`: the server of `resonate serve`, with its page in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resonate_audio.cli.options import Devices, Host, Port
from resonate_audio.cli.serve import PORT, STANDARD_HOME, ServedAdapters, serve


def studio(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="A name, folder or hub id; repeat for more.", show_default="nano"
        ),
    ] = None,
    adapter: ServedAdapters = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of training runs to look into.")] = None,
    home: Annotated[
        Path, typer.Option(help="Where sounds and listening tests are kept.")
    ] = STANDARD_HOME,
    device: Devices = None,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Make, compare and judge sounds on a page in the browser.

    [bold]Examples[/bold]

      resonate studio

      resonate studio --model nano --model my-run/final --runs runs/ --no-open
    """
    serve(
        model=model,
        adapter=adapter,
        reward=None,
        host=host,
        port=port,
        home=home,
        runs=runs,
        device=device,
        limit=None,
        preload=False,
        open_page=open_page,
    )
