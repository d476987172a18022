"""`resonate studio`: the page in a browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from resonate_audio.cli.listen import NEEDS_SERVE, serve_app
from resonate_audio.core.errors import InputError

PORT = 8123
KEY = "RESONATE_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def studio(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="A name, folder or hub id; repeat for more.", show_default="nano"
        ),
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of training runs to look into.")] = None,
    home: Annotated[
        Path,
        typer.Option(help="Where sounds and listening tests are kept."),
    ] = Path("~/.local/share/resonate/studio"),
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.", show_default="the fastest")
    ] = None,
    host: Annotated[
        str, typer.Option(help=f"Other addresses than loopback need a key in {KEY}.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = PORT,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Make, compare and judge sounds on a page in the browser.

    [bold]Examples[/bold]

      resonate studio

      resonate studio --model nano --model my-run/final --runs runs/ --no-open
    """
    key = os.environ.get(KEY) or None
    if key is None and host not in LOOPBACK:
        raise InputError(f"--host {host}: set a key first, {KEY}=…, or stay on 127.0.0.1")
    if runs is not None and not runs.is_dir():
        raise InputError(f"--runs {runs}: no such folder")
    try:
        from resonate_audio.serving.studio_app import create_studio_app
    except ModuleNotFoundError as error:
        raise InputError(f"{NEEDS_SERVE} ({error.name} is missing)") from error
    from resonate_audio.pipeline import choose_device
    from resonate_audio.serving.studio_jobs import Studio
    from resonate_audio.serving.studio_library import Library

    choose_device(device)
    place = home.expanduser()
    made = Studio(model or ["nano"], Library(place), device)
    serve_app(create_studio_app(made, place / "tests", runs, key), host, port, open_page)
