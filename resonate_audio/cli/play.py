"""`resonate play`: hear a sound with a player of this machine, and see it in the terminal."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_levels, print_text
from resonate_audio.cli.pipes import read_sound
from resonate_audio.core.errors import InputError

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio

PLAYERS = (
    ("pw-play",),
    ("paplay",),
    ("aplay", "-q"),
    ("afplay",),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("mpv", "--no-video", "--really-quiet"),
    ("play", "-q"),
)
"""Commands that play the WAV file named behind them, the plainest first."""
POWERSHELL = ("powershell", "-NoProfile", "-Command")
"""What every Windows has; the file stands inside of a sentence there."""


def play(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Sounds; - is what is piped in.")
    ],
) -> None:
    """Play sounds, and show each in a terminal that can.

    [bold]Examples[/bold]

      resonate play rain.ogg

      resonate generate "a dog barks" -o - | resonate play -
    """
    sounds = [(file, read_sound(file)) for file in files]
    for file, audio in sounds:
        show(file, audio)
        play_sound(file, audio)


def show(file: Path, audio: Audio) -> None:
    """What a sound is, in a line; on a terminal its spectrogram too."""
    from resonate_audio.audio.spectrogram import RANGE_DB, levels_db

    prompt = audio.recipe.prompt if audio.recipe else ""
    facts = f"{audio.duration_s:.2f} s, {audio.sample_rate_hz / 1000:g} kHz"
    print_text("  ".join(part for part in (str(file), facts, prompt) if part))
    if sys.stdout.isatty() and len(audio.samples):
        width, height = shutil.get_terminal_size((80, 24))
        rows = 2 * max(4, min(12, height - 4))
        levels = levels_db(audio.samples, audio.sample_rate_hz, rows)
        print_levels(1 + levels / RANGE_DB, max(16, min(100, width - 1)))


def play_sound(file: Path, audio: Audio) -> None:
    """Hand a sound to the first player that takes it.

    Raises:
        InputError: there is none, or none of them could play it.
    """
    from resonate_audio.audio.io import write_audio

    failures = []
    with tempfile.TemporaryDirectory() as place:
        wav = Path(place) / "sound.wav"
        write_audio(wav, audio)
        for command in players(wav):
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, errors="replace"
            )
            if done.returncode == 0:
                return
            said = " ".join(done.stderr.split()[-12:]) or f"exit code {done.returncode}"
            failures.append(f"{Path(command[0]).name}: {said}")
    if failures:
        raise InputError(f"{file}: no player could play it ({'; '.join(failures)})")
    names = ", ".join(command[0] for command in PLAYERS)
    raise InputError(f"{file}: no player on this machine; install one of {names}")


def players(wav: Path) -> Iterator[Sequence[str]]:
    """Commands of this machine that play a file."""
    for name, *options in PLAYERS:
        found = shutil.which(name)
        if found is not None:
            yield [found, *options, str(wav)]
    found = shutil.which(POWERSHELL[0])
    if found is not None:
        quoted = str(wav).replace("'", "''")
        yield [found, *POWERSHELL[1:], f"(New-Object Media.SoundPlayer '{quoted}').PlaySync()"]
