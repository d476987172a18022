"""`resonate data import`: what it prints, and its exit code and line for bad input."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from resonate_audio.cli.data.import_ import import_
from resonate_audio.core.errors import ManifestError
from resonate_audio.data.manifest import read_manifest

app = typer.Typer()
app.command(name="import")(import_)


def test_it_writes_the_manifest_and_tells_what_was_left_out(tmp_path: Path) -> None:
    for name in ("dog.wav", "rain.wav"):
        (tmp_path / name).touch()
    (tmp_path / "dog.txt").write_text("A dog barks", encoding="utf-8")
    output = tmp_path / "m.jsonl"
    arguments = ["folder", str(tmp_path), "-o", str(output), "--licence", "CC0-1.0"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}\n"
    assert result.stderr == "1 clips written\n1 sound files that nothing lists: rain.wav\n"
    assert read_manifest(output).clips[0].licence == "CC0-1.0"


def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="tapes: unknown kind of corpus; known are audiocaps, "):
        import_("tapes", tmp_path, tmp_path / "m.jsonl")
