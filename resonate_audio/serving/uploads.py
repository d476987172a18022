"""Sounds that clients send, decoded in bounded memory and time."""

from __future__ import annotations

import io

from resonate_audio.audio.io import decode_audio
from resonate_audio.core.errors import AudioError
from resonate_audio.core.types import Audio

MAX_SAMPLES = 20_000_000
"""Of all channels together: an hour of silence is a few kilobytes of FLAC."""


def decode_upload(data: bytes, source: str, max_s: float) -> Audio:
    """Decode a sound whose header says that it is short enough; else nothing is decoded.

    Args:
        data: the file.
        source: names it in errors.
        max_s: longest sound.

    Raises:
        AudioError: not audio, too long, or no sample in it.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            size, length_s = file.frames * file.channels, file.frames / file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, ZeroDivisionError) as error:
        raise AudioError(f"{source}: not an audio file that can be read") from error
    if length_s > max_s or size > MAX_SAMPLES:
        raise AudioError(f"{source}: {length_s:.0f} s of sound; {max_s:g} s at most")
    return decode_audio(data, source)
