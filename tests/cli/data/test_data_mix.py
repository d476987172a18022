"""`resonate data mix`: what it prints, and one line for bad input."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from resonate_audio.cli.data.mix import mix, read_weights
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.data.manifest import Clip, write_manifest

app = typer.Typer()
app.command()(mix)


def corpus(folder: Path, name: str, count: int) -> str:
    clips = (Clip(audio_id=f"{name}{i}", audio_path="a", caption="a bell") for i in range(count))
    write_manifest(folder / name, clips)
    return str(folder / name)


def test_it_tells_each_share(tmp_path: Path) -> None:
    paths = [corpus(tmp_path, "a", 2), corpus(tmp_path, "b", 4)]
    output = str(tmp_path / "m.jsonl")
    result = CliRunner().invoke(app, [*paths, "-o", output, "--weights", "5,1"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}\n"
    assert result.stderr.splitlines() == [
        f"{paths[0]}: 2 clips, 10 lines (5.00 times)",
        f"{paths[1]}: 4 clips, 4 lines (1.00 times)",
    ]


def test_a_weight_that_is_no_number_is_told() -> None:
    with pytest.raises(InputError, match=r"--weights 5;1: expected numbers such as 5,1,0\.5"):
        read_weights("5;1")


@pytest.mark.parametrize("text", ["inf", "5,nan", "0", "-1"])
def test_a_weight_that_no_clip_can_have_is_told(text: str) -> None:
    with pytest.raises(InputError, match=rf"--weights {text}: expected finite numbers above 0"):
        read_weights(text)


def test_a_temperature_below_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="temperature: Input should be greater than or equal"):
        mix([Path(corpus(tmp_path, "a", 2))], tmp_path / "m.jsonl", temperature=0.5)
