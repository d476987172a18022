"""`resonate studio` as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra: pip install resonate-audio[serve]")

import typer
from typer.testing import CliRunner

from resonate_audio.cli.studio import studio
from resonate_audio.core.errors import InputError, ModelNotFoundError

CODE = "import typer; from resonate_audio.cli.studio import studio; typer.run(studio)"


def test_a_fresh_studio_answers_with_the_bundled_model(tmp_path: Path) -> None:
    options = ["--no-open", "--port", "0", "--home", str(tmp_path / "home")]
    command = [sys.executable, "-c", CODE, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = process.stderr.readline().split()[2]
        with urllib.request.urlopen(address, timeout=30) as response:
            assert b"Resonate Studio" in response.read()
        with urllib.request.urlopen(f"{address}v1/models", timeout=30) as response:
            assert [model["id"] for model in json.load(response)["data"]] == ["nano"]
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "to a key first"),
        (["--runs", "/nowhere"], "no such folder"),
        (["--port", "1", "--host", "192.0.2.1"], "to a key first"),
    ],
)
def test_what_cannot_be_served_is_named(
    tmp_path: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESONATE_API_KEY", raising=False)
    app = typer.Typer()
    app.command()(studio)
    result = CliRunner().invoke(app, ["--no-open", "--home", str(tmp_path), *options])
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)


def test_an_unknown_model_is_named(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(studio)
    result = CliRunner().invoke(app, ["--no-open", "--home", str(tmp_path), "-m", "nono"])
    assert isinstance(result.exception, ModelNotFoundError)
