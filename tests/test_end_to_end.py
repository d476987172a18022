"""scripts/end-to-end: real commands, real processes, a folder of a few sounds."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from resonate_audio.audio.io import read_audio

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "end-to-end"
NEEDED = (ROOT / ".venv", *(Path(p, "ray") for p in sys.path))

needs_setup = pytest.mark.skipif(
    not (NEEDED[0].is_dir() and any(path.is_dir() for path in NEEDED[1:])),
    reason="needs .venv (scripts/setup data) and ray in it",
)


def end_to_end(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )


def write_folder(folder: Path) -> Path:
    """Eight tones of up to 2.4 s, each with a text beside it."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(8):
        times = np.arange(round((0.6 + 0.25 * number) * 16_000)) / 16_000
        wave = 0.4 * np.sin(2 * np.pi * 220 * (number + 1) * times)
        noise = 0.02 * generator.standard_normal(len(times))
        soundfile.write(folder / f"{number}.wav", wave + noise, 16_000)
        (folder / f"{number}.txt").write_text(f"a tone of {220 * (number + 1)} hertz\n")
    return folder


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of last change of every file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state = os.stat(path)
            found[str(path.relative_to(folder))] = (state.st_size, state.st_mtime_ns)
    return found


@needs_setup
@pytest.mark.slow
def test_a_folder_becomes_a_model_that_sounds_and_nothing_is_done_twice(tmp_path: Path) -> None:
    folder, output = write_folder(tmp_path / "tones"), tmp_path / "out"
    arguments = (folder, "--output", output, "--steps", 4)
    done = end_to_end(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    sounds = sorted((output / "sounds").glob("*.wav"))
    assert len(sounds) == 4
    for path in sounds:
        audio = read_audio(path)
        assert audio.sample_rate_hz == 16_000
        assert 1e-3 < np.abs(audio.samples).max() <= 1.0
        assert audio.samples.std() > 1e-4
        assert audio.recipe is not None
        assert audio.recipe.prompt.startswith("a tone of")
    before = contents(output)
    again = end_to_end(*arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert contents(output) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["--steps", "many"], "--steps many: expected a number of updates"),
        (["--output"], "usage: scripts/end-to-end"),
        (["--fast"], "usage: scripts/end-to-end"),
        (["docs", "tests"], "usage: scripts/end-to-end"),
    ],
)
def test_a_wrong_call_is_one_line_and_makes_nothing(arguments: list[str], message: str) -> None:
    before = set(ROOT.iterdir())
    done = end_to_end(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert set(ROOT.iterdir()) == before
