"""Sounds made of sounds on the command line, and how they are finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from resonate_audio.audio.io import read_audio, read_recipe, write_audio
from resonate_audio.audio.loudness import loudness_lufs
from resonate_audio.cli.main import run
from resonate_audio.core.types import Audio

RATE_HZ = 8000


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a second of sound in it, half a second of silence on either side."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    samples = np.zeros(2 * RATE_HZ, np.float32)
    samples[RATE_HZ // 2 : -RATE_HZ // 2] = 0.2 * rng.standard_normal(RATE_HZ)
    write_audio(tmp_path / "take.wav", Audio(samples.clip(-0.9, 0.9), RATE_HZ))
    return tmp_path


def resonate(model: Path, *arguments: str) -> int:
    return run([*arguments, "--model", str(model), "--device", "cpu", "--steps", "2"])


EDITS = {
    "vary": ["vary", "take.wav", "--strength", "0.6", "--prompt", "dog"],
    "reword": ["reword", "take.wav", "dog", "--was", "rain"],
    "replace": ["replace", "take.wav", "dog", "--span", "0.3-0.6", "--span", "1.0 to 1.25"],
    "extend": ["extend", "take.wav", "--before", "0.2", "--after", "0.3"],
    "loop a file": ["loop", "take.wav", "--seam", "0.4"],
    "loop a sentence": ["loop", "dog", "--duration", "0.7"],
    "sequence": ["sequence", "0-0.4: dog", "0.4 - 1 s: rain in a door"],
}


@pytest.mark.parametrize("name", sorted(EDITS))
def test_every_edit_writes_a_file_that_replays_given_its_source(
    name: str, tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish = ["--loudness", "-20", *([] if "loop" in name else ["--trim", "-60"])]
    assert resonate(tiny_model, *EDITS[name], "--seed", "7", "-o", "a.flac", *finish) == 0
    recipe = read_recipe(here / "a.flac")
    assert recipe is not None
    assert recipe.edit is not None
    assert (recipe.edit.kind, recipe.seed) == (name.split()[0], 7)
    assert recipe.finish is not None
    assert recipe.finish.loudness_lufs == -20
    source = ["--source", "take.wav"] if recipe.edit.source_sha256 else []
    capsys.readouterr()
    assert run(["replay", "a.flac", *source]) == 0
    assert "yes" in capsys.readouterr().out.split()


def test_takes_are_named_after_the_source_and_their_seeds(tiny_model: Path, here: Path) -> None:
    assert (
        resonate(tiny_model, "vary", "take.wav", "-n", "3", "--seed", "7", "--batch-size", "2") == 0
    )
    assert sorted(path.name for path in here.glob("take-*")) == [
        "take-vary_7.wav", "take-vary_8.wav", "take-vary_9.wav",
    ]  # fmt: skip


def test_two_commands_on_one_source_with_one_seed_make_two_files(
    tiny_model: Path, here: Path
) -> None:
    arguments = ["take.wav", "dog", "--seed", "7"]
    assert resonate(tiny_model, "extend", *arguments, "--after", "0.25") == 0
    assert resonate(tiny_model, "replace", *arguments, "--span", "0.75-1") == 0
    assert {path.name for path in here.glob("take-*_7.wav")} == {
        "take-extend_7.wav", "take-replace_7.wav",
    }  # fmt: skip


def test_outside_of_a_span_the_file_holds_the_samples_of_its_source(
    tiny_model: Path, here: Path
) -> None:
    arguments = ["replace", "take.wav", "dog", "--span", "0.75-1", "-o", "a.wav"]
    assert resonate(tiny_model, *arguments) == 0
    before, after = read_audio(here / "take.wav").samples, read_audio(here / "a.wav").samples
    changed = np.flatnonzero(before != after) / RATE_HZ
    assert 0.75 <= changed.min() <= changed.max() < 1


def test_a_sound_is_finished_to_the_sample_and_at_one_loudness(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish = ["--trim", "-50", "--length", "0.7", "--fade", "0.01", "--loudness", "-23"]
    assert resonate(tiny_model, "generate", "dog", "rain", "-o", "{prompt}.wav", *finish) == 0
    for name in ("dog", "rain"):
        audio = read_audio(here / f"{name}.wav")
        assert len(audio.samples) == round(0.7 * RATE_HZ)
        loudness = float(loudness_lufs(torch.from_numpy(audio.samples)[None], RATE_HZ)[0])
        assert loudness == pytest.approx(-23, abs=0.1)
    assert capsys.readouterr().out.count("-23.0 LUFS") == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["vary", "none.wav"], "none.wav"),
        (["vary", "text.wav"], "text.wav"),
        (["vary", "empty.wav"], "empty.wav"),
        (["vary", "short.wav"], "the source lasts 0.01 s: expected 0.1 to 600 s"),
        (["vary", "take.wav", "--strength", "1.5"], "--strength"),
        (["vary", "take.wav", "--strength", "nan"], "--strength"),
        (["replace", "take.wav", "dog"], "no span"),
        (["replace", "take.wav", "dog", "--span", "abc"], "--span abc: expected FROM-TO"),
        (["replace", "take.wav", "dog", "--span", "1-0.5"], "ends before it begins"),
        (["replace", "take.wav", "dog", "--span", "1-9"], "within the source's 0 to 2 s"),
        (["replace", "take.wav", "dog", "--span", "0-1", "--span", "0.5-2"], "overlap"),
        (["extend", "take.wav"], "seconds to add at either end"),
        (["extend", "take.wav", "--after", "700"], "'--after': Input should be less than"),
        (["loop", "dog", "--duration", "0.01"], "tiny makes 0.1 to 600 s"),
        (["loop", "dog", "--seam", "1"], "--seam 1"),
        (["loop", "take.wav", "--duration", "3"], "--duration 3"),
        (["loop", "dog", "--fade", "0.1"], "--fade 0.1: a loop has no ends"),
        (["loop", "none.ogg"], "none.ogg: no such file"),
        (["loop", "none.aiff"], "none.aiff: no such file"),
        (["loop", "."], ".: a folder; expected a prompt, or the file of a sound"),
        (["loop", "rain " * 60, "--duration", "0.01"], "tiny makes 0.1 to 600 s"),
        (["sequence", "0-2: dog", "1-3: rain"], "two prompts for one moment"),
        (["sequence", "dog"], "expected FROM-TO:PROMPT"),
        (["vary", "take.wav", "--trim", "5"], "--trim"),
        (
            ["vary", "take.wav", "--loudness", "-16", "--normalize", "-1"],
            "two levels for one",
        ),
        (["vary", "take.wav", "-o", "{x}.wav"], "{x} stands for nothing"),
        (["vary", "take.wav", "-n", "2", "-o", "{name}.wav"], "two sounds would go there"),
    ],
)
def test_a_bad_edit_is_one_line_and_no_file(
    arguments: list[str],
    complaint: str,
    tiny_model: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "text.wav").write_text("no sound at all")
    (here / "empty.wav").touch()
    write_audio(here / "short.wav", Audio(np.zeros(80, np.float32), RATE_HZ))
    before = sorted(here.iterdir())
    assert resonate(tiny_model, *arguments) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert complaint in line
    assert said.out == ""
    assert sorted(here.iterdir()) == before


def test_a_replay_without_the_source_says_how_to_give_it(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resonate(tiny_model, "vary", "take.wav", "-o", "a.wav") == 0
    assert run(["replay", "a.wav"]) == 2
    assert "--source" in capsys.readouterr().err
    assert run(["replay", "a.wav", "--source", "a.wav"]) == 2
    assert "give the source it came from" in capsys.readouterr().err


def test_a_source_that_passes_full_scale_is_told(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = 1.5 * np.sin(np.arange(RATE_HZ, dtype=np.float32))
    soundfile.write(here / "loud.wav", loud, RATE_HZ, subtype="FLOAT")
    assert resonate(tiny_model, "replace", "loud.wav", "dog", "--span", "0.2-0.5") == 0
    assert "note: loud.wav passes full scale (peak 1.50)" in capsys.readouterr().err
