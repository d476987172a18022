"""`resonate play`: a real player program gets a real WAV file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.audio.io import FORMATS, encode_audio, read_audio, write_audio
from resonate_audio.cli.console import colour_of, print_levels
from resonate_audio.cli.main import run
from resonate_audio.core.types import Audio

TONE = Audio(0.5 * np.sin(np.arange(4000) * 0.3).astype(np.float32), 8000)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sound, and no program but what is put into ``bin``."""
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    write_audio(tmp_path / "tone.ogg", TONE)
    return tmp_path


def add_player(here: Path, name: str, script: str) -> None:
    path = here / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_first_player_that_takes_it_gets_the_sound_as_wav(here: Path) -> None:
    add_player(here, "pw-play", "echo 'no server' >&2; exit 1")
    add_player(here, "aplay", f'/bin/cp "$2" {here}/heard.wav')
    assert run(["play", "tone.ogg"]) == 0
    heard = read_audio(here / "heard.wav")
    assert (len(heard.samples), heard.sample_rate_hz) == (4000, 8000)


def test_without_a_player_that_works_one_line_says_what_to_install(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["play", "tone.ogg"]) == 2
    assert "install one of pw-play, paplay, aplay" in capsys.readouterr().err
    add_player(here, "aplay", "echo 'no sound card' >&2; exit 1")
    assert run(["play", "tone.ogg"]) == 2
    assert "aplay: no sound card" in capsys.readouterr().err
    add_player(here, "aplay", "printf '\\377' >&2; exit 0")
    assert run(["play", "tone.ogg"]) == 0


def test_a_sound_that_is_piped_in_is_played(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_player(here, "aplay", f'/bin/cp "$2" {here}/heard.wav')
    data = encode_audio(TONE, FORMATS[".flac"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run(["play", "-"]) == 0
    assert len(read_audio(here / "heard.wav").samples) == 4000


def test_nothing_piped_in_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(["play", "-"]) == 2
    assert "nothing was piped in" in capsys.readouterr().err


@pytest.mark.parametrize(("term", "bright"), [("xterm-256color", "▀"), ("dumb", "█")])
def test_a_terminal_shows_what_is_loud_where_it_is(
    term: str, bright: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real terminal's other end: rich decides by what it is connected to."""
    levels = np.zeros((4, 6), np.float32)
    levels[2:, 3] = 1.0
    leader, follower = os.openpty()
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("NO_COLOR", raising=False)
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        print_levels(levels, 6)
        terminal.flush()
        said = b""
        while said.count(b"\n") < 2:
            said += os.read(leader, 10_000)
    lines = said.decode().splitlines()
    assert len(lines) == 2
    assert bright in lines[0]
    assert (bright in lines[1]) == (term != "dumb")
    assert (lines[0].count("█"), lines[1].count("█")) == ((1, 0) if term == "dumb" else (0, 0))


def test_colours_go_from_dark_to_bright() -> None:
    brightness = [sum(bytes.fromhex(colour_of(level)[1:])) for level in np.linspace(0, 1, 11)]
    assert brightness == sorted(brightness)
    assert colour_of(0.0) == "#0c0c14"
    assert colour_of(1.0) == "#fcffa4"
