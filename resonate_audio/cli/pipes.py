"""Sounds that come from the standard input or go to the standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from resonate_audio.core.documents.text import STDIN, read_bytes
from resonate_audio.core.errors import AudioError

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio


def read_sound(path: Path) -> Audio:
    """The sound of a file, or the one that is piped in for ``-``.

    Raises:
        AudioError: there is none, or it is no sound.
    """
    from resonate_audio.audio.io import decode_audio, read_audio

    if path != STDIN:
        return read_audio(path)
    data = read_bytes(path, AudioError)
    if not data:
        raise AudioError("-: nothing was piped in; expected a sound")
    return decode_audio(data, "what was piped in")


def write_wav_out(audio: Audio) -> None:
    """Write a sound to the standard output, as a WAV file."""
    from resonate_audio.audio.io import FORMATS, encode_audio

    sys.stdout.buffer.write(encode_audio(audio, FORMATS[".wav"]))
    sys.stdout.buffer.flush()
