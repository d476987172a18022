"""`resonate serve`: models, or a judge, over HTTP."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from resonate_audio.cli.options import Devices, Host, Port
from resonate_audio.cli.server import check_packages, run_server
from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import InputError
from resonate_audio.core.paths import given_path

if TYPE_CHECKING:
    from fastapi import FastAPI

    from resonate_audio.serving.config import ServeConfig
    from resonate_audio.serving.keys import Key

PORT = 8123
KEY_VARIABLE = "RESONATE_API_KEY"
LogFormat = Literal["text", "json"]
ServedAdapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="[NAME=]FILE[:WEIGHT]",
        help="What clients may add to its model, as MODEL+NAME; repeat for more.",
        show_default=False,
    ),
]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STANDARD_HOME = Path("~/.local/share/resonate")


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Bundled name, folder, hub id, or NAME=one of these; the first is the default.",
            show_default="nano",
        ),
    ] = None,
    adapter: ServedAdapters = None,
    reward: Annotated[
        str | None,
        typer.Option("--reward", help="Serve this judge instead: nano-lalm, aqa:MODEL, …"),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    home: Annotated[
        Path, typer.Option(help="Folder of jobs, library and listening tests.")
    ] = STANDARD_HOME,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of training runs that the studio shows.")
    ] = None,
    device: Devices = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other setting, such as max_queued_rows=64 or cors_origins=[URL]."
        ),
    ] = None,
    preload: Annotated[
        bool, typer.Option("--preload", help="Load models at the start; /ready tells when.")
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the studio in a browser.")
    ] = False,
    keys: Annotated[
        Path | None, typer.Option(help="File of named keys, as `resonate keys` makes it.")
    ] = None,
    log_format: Annotated[LogFormat, typer.Option("--log", help="How log lines look.")] = "text",
) -> None:
    """Serve models over HTTP, with the studio at /, until interrupted.

    A single key is read from the environment, RESONATE_API_KEY; several, each with a name and a
    limit, from a file that `resonate keys` makes.

    [bold]Examples[/bold]

      resonate serve --model nano --model mine=checkpoints/mine

      resonate serve --adapter rain=my_rain/export/adapter.safetensors:0.8

      RESONATE_API_KEY=… resonate serve --host 0.0.0.0

      resonate serve --reward nano-lalm --port 8000
    """
    quiet(log_format)
    key = os.environ.get(KEY_VARIABLE) or None
    if host not in LOOPBACK and key is None and keys is None:
        raise InputError(
            f"--host {host}: others could reach the server; set {KEY_VARIABLE} to a key first, or "
            "give --keys FILE"
        )
    check_packages()
    values: dict[str, Any] = {"api_key": key, "home": home, "runs": runs}
    values |= {"preload": True} if preload else {}
    values |= {"keys": known_keys(keys)} if keys is not None else {}
    values |= {"devices": tuple(device)} if device else {}
    values |= {"models": read_models(model)} if model else {}
    values |= {"adapters": read_adapters(adapter)} if adapter else {}
    config = read_settings(values, limit or [])
    if config.runs is not None and not config.runs.is_dir():
        raise InputError(f"--runs {config.runs}: no such folder")
    app = judge_app(reward, config) if reward else model_app(config)
    run_server(app, host, port, config, open_page)


def known_keys(file: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        ConfigError: it is not there or not such a file.
        InputError: it holds no key, so nobody could use the server.
    """
    from resonate_audio.serving.keys import read_keys

    keys = read_keys(file)
    if not keys:
        raise InputError(f"--keys {file}: no key in it; resonate keys add NAME --file {file}")
    return keys


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level and message, and the fields that came with it."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        }
        line |= {"level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def quiet(log_format: LogFormat = "text") -> None:
    """Log what happens, but no prompts: a cut one is told to its client."""
    from resonate_audio.pipeline.request import RequestWarning

    handler = logging.StreamHandler()
    as_text = logging.Formatter("%(asctime)s %(message)s")
    handler.setFormatter(JsonLines() if log_format == "json" else as_text)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("resonate.serve").setLevel(logging.INFO)
    warnings.simplefilter("ignore", RequestWarning)


def read_models(texts: Sequence[str]) -> dict[str, str]:
    """Sources of models by their names.

    Raises:
        InputError: two have the same name.
    """
    models: dict[str, str] = {}
    for name, source in map(split_model, texts):
        if name in models:
            raise InputError(
                f"--model {name} is given twice, as {models[name]} and {source}; give one of them "
                "another name: NAME=SOURCE"
            )
        models[name] = source
    return models


def read_adapters(texts: Sequence[str]) -> dict[str, str]:
    """Files of adapters by their names; a file without a name is called as it is.

    Raises:
        InputError: two have the same name, or a weight is out of range.
    """
    from resonate_audio.model.adapter import split_weight

    adapters: dict[str, str] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals:
            name, file = split_weight(text)[0].stem, text
        if name in adapters:
            raise InputError(
                f"--adapter {name} is given twice, as {adapters[name]} and {file}; give one of "
                "them another name: NAME=FILE"
            )
        adapters[name] = file
    return adapters


def split_model(text: str) -> tuple[str, str]:
    """Name and source of ``NAME=SOURCE``, or of a source that names itself."""
    name, equals, source = text.partition("=")
    folder = given_path(text)
    return (name, source) if equals else (folder.name if os.path.isdir(folder) else text, text)


def read_settings(values: dict[str, Any], overrides: list[str]) -> ServeConfig:
    """The settings of a server.

    Raises:
        ConfigError: one is unknown or out of range.
    """
    from resonate_audio.core.config import apply_overrides, check_numbers
    from resonate_audio.pipeline.device import choose_device
    from resonate_audio.serving.config import ServeConfig

    values = {"devices": (str(choose_device(None)),)} | apply_overrides(values, overrides)
    check_numbers(values, "resonate serve")
    config = parse_config(ServeConfig, values, "resonate serve")
    for name in config.devices:
        choose_device(name)
    return config


def model_app(config: ServeConfig) -> FastAPI:
    """The app of models and studio, its database open.

    Raises:
        OutputError: the home cannot be written, or its database is damaged.
    """
    from resonate_audio.serving.app import create_app

    app = create_app(config)
    app.state.service.open()
    return app


def judge_app(spec: str, config: ServeConfig) -> FastAPI:
    """The app of a judge.

    Raises:
        ConfigError: there is no such judge.
    """
    from resonate_audio.rewards.catalogue import open_reward
    from resonate_audio.serving.judge.app import create_judge_app

    return create_judge_app(open_reward(spec, config.devices[0]), spec, config)
