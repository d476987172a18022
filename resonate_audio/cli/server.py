"""What the commands that serve have in common: a socket, a line that says where, and the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from resonate_audio.cli.console import say
from resonate_audio.core.errors import InputError

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from resonate_audio.serving.config import EdgeConfig

NEEDS_SERVE = 'the pages need more packages: pip install "resonate-audio[serve]"'


def check_packages() -> None:
    """Fail early where the packages of the extra are missing.

    Raises:
        InputError: names the first of them and how to install all.
    """
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"{NEEDS_SERVE} ({error.name} is missing)") from error


def run_server(
    app: FastAPI, host: str, port: int, config: EdgeConfig, open_page: bool, page: str = ""
) -> None:
    """Serve until a signal, having said where; open requests are finished in time.

    Files that are made from here on are their owner's alone.

    Raises:
        InputError: the address cannot be used.
    """
    import webbrowser

    from resonate_audio.serving.edge import run_app

    os.umask(0o077)
    with listening_socket(host, port) as socket:
        place = f"[{host}]" if ":" in host else host
        address = f"http://{place}:{socket.getsockname()[1]}/{page}"
        say(f"listening on {address} (stop with Ctrl-C)")
        if open_page:
            webbrowser.open(address)  # the socket is open: the browser waits until we answer
        run_app(app, socket, config)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket on an address.

    Raises:
        InputError: the address is not ours, or in use.
    """
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host}:{port}: cannot listen there ({error}); try another --port") from (
            error
        )
