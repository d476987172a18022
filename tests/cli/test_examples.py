"""The examples that every --help prints: they are command lines that work."""

import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from resonate_audio.cli.main import app, run
from resonate_audio.core.sampling import Sampling
from resonate_audio.model.folder import read_config
from resonate_audio.model.hub import bundled_models

ROOT: Any = typer.main.get_command(app)


def commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


def examples(command: Any) -> list[str]:
    lines = [line.strip() for line in inspect.cleandoc(command.help or "").splitlines()]
    found = [re.sub(r"^[A-Z_]+=\S+ ", "", line).partition(" | ")[0] for line in lines]
    return [line for line in found if line.startswith("resonate ")]


EXAMPLES = [line for command in commands(ROOT) for line in examples(command)]


def parsed(line: str) -> dict[str, Any]:
    command, (_, *words) = ROOT, shlex.split(line)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0) if words else "list"]
    context: Any = command.make_context(command.name, words)
    assert context.args == []
    params: dict[str, Any] = context.params
    return params


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_has_the_options_of_its_command(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_of_a_bundled_model_asks_for_what_it_takes(line: str) -> None:
    params = parsed(line)
    folder = bundled_models().get(str(params.get("model")))
    if folder is not None:
        given = {field: params.get(field) for field in Sampling.model_fields}
        read_config(folder).sampling(**{k: v for k, v in given.items() if v is not None})


def test_the_first_judge_in_an_example_needs_no_network() -> None:
    first = next(line for line in EXAMPLES if line.startswith("resonate reward "))
    assert parsed(first)["judge"] in ("nano-lalm", "nano-clap", "nano-eval")


def test_the_words_of_a_help_are_wrapped_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["eval", "score", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "known is not heard again. Writes scores.jsonl and scores.json into each" in lines
