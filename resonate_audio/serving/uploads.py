"""Sounds that clients send, decoded in bounded memory and time."""

from __future__ import annotations

from resonate_audio.audio.decoding import SoundLimits, read_header
from resonate_audio.audio.io import decode_audio
from resonate_audio.core.errors import AudioError
from resonate_audio.core.types import Audio

MAX_SAMPLES = 20_000_000
"""Of all channels together: an hour of silence is a few kilobytes of FLAC."""


def decode_upload(data: bytes, source: str, max_s: float) -> Audio:
    """Decode a sound; nothing is decoded of one whose header says that it is too long.

    Args:
        data: the file.
        source: names it in errors.
        max_s: longest sound.

    Raises:
        AudioError: not audio, too long, or no sample in it.
    """
    head = read_header(data, source)
    num_samples = head.num_samples or 0
    length_s = num_samples / head.sample_rate_hz
    if length_s > max_s or num_samples * head.num_channels > MAX_SAMPLES:
        raise AudioError(f"{source}: {length_s:.0f} s of sound; {max_s:g} s at most")
    return decode_audio(data, source, limits=SoundLimits(num_values=MAX_SAMPLES, seconds=max_s))
