"""`resonate eval distance`: values added to the scores, and one line for what is missing."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from resonate_audio.cli.evaluate.distance import check_request, distance
from resonate_audio.core.errors import InputError
from resonate_audio.evaluation.scores.scored import (
    ClipScore,
    SystemScores,
    read_scores,
    write_scores,
)

app = typer.Typer()
app.command()(distance)


def rms_and_peak(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    return np.stack([samples.std(axis=1), np.abs(samples).max(axis=1)], axis=1)


def made(folder: Path, num_clips: int = 20, level: float = 0.2) -> str:
    folder.mkdir()
    draw = np.random.default_rng(0)
    clips = []
    for number in range(num_clips):
        samples = level * (1 + draw.random()) * draw.normal(size=2000)
        soundfile.write(folder / f"{number:04d}.wav", samples, 16_000, subtype="FLOAT")
        failure = "silent" if number == 0 else None
        clips.append(
            ClipScore(id=f"{number:04d}", prompt="a", file=f"{number:04d}.wav", failure=failure)
        )
    write_scores(folder, SystemScores(system=folder.name, clips=tuple(clips)))
    return str(folder)


def test_values_are_printed_kept_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two", level=0.4)
    place = "test_eval_distance:rms_and_peak"
    options = ["-r", one, "--embedder", place, "--classifier", place, "--paired"]
    result = CliRunner().invoke(app, [one, two, *options])
    assert result.exit_code == 0, result.output
    values = read_scores(tmp_path / "two").set_values
    assert set(values) == {f"{name}/{place}" for name in ("fad", "fad-inf", "kad", "is")}
    assert f"{values[f'fad/{place}']:.4f}" in result.stdout
    assert f"kl-softmax/{place}" in result.stdout
    assert "left out of test_eval_distance:rms_and_peak: 0000, seed 0 (silent)" in result.stderr


def test_what_cannot_be_measured_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="give an --embedder"):
        check_request(None, [], [], paired=False)
    with pytest.raises(InputError, match="FAD and KAD need real sounds"):
        check_request(None, ["nano-clap"], [], paired=False)
    with pytest.raises(InputError, match="KL needs real sounds"):
        check_request(None, [], ["ast"], paired=True)
    with pytest.raises(InputError, match="--paired is for KL"):
        check_request(Path(), ["nano-clap"], [], paired=True)
