"""Sounds decoded block by block, under stated limits: no header is believed.

A header may say any number of samples, and a kilobyte of FLAC may hold an hour of silence; so
blocks are read until there are no more of them, or more than the limits allow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from resonate_audio.audio.tags import read_wav_comment
from resonate_audio.audio.whole import ends_within_page, share_there
from resonate_audio.core.documents.text import one_line
from resonate_audio.core.errors import AudioError
from resonate_audio.core.files import open_regular

MAX_SAMPLES = 1 << 27
"""Of one channel: 46 minutes at 48 kHz, 512 MiB as float32."""
MAX_CHANNELS = 32
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000
MAX_FILE_BYTES = 1 << 31
LARGEST_SAMPLE = 1e10
"""Of full scale; squares and sums of larger ones overflow."""
COUNTED = ("FLAC", "MP3")
"""Formats whose number of samples stands in the file; of others it is told from its size."""
BLOCK_SAMPLES = 1 << 16
CUT_S, CUT_MP3_S = 0.01, 0.1
"""Less than this may be missing: some writers count their last bytes or frames wrongly."""


@dataclass(frozen=True)
class SoundLimits:
    """What is decoded of one sound at most."""

    num_samples: int = MAX_SAMPLES
    """Of one channel."""
    num_values: int = 2 * MAX_SAMPLES
    """Of all channels together."""
    seconds: float = 36_000.0

    def check(self, num_samples: int, num_channels: int, rate_hz: int, source: str) -> None:
        """Refuse a sound that is longer.

        Raises:
            AudioError: names the limit.
        """
        if num_samples > self.seconds * rate_hz:
            raise AudioError(f"{source}: over {self.seconds:g} s of sound, the most that is read")
        if num_samples > self.num_samples or num_samples * num_channels > self.num_values:
            raise AudioError(
                f"{source}: over {min(self.num_samples, self.num_values // num_channels):,} "
                f"samples in {num_channels} channel(s), the most that is read; cut it into pieces"
            )


LIMITS = SoundLimits()


@dataclass(frozen=True)
class Decoded:
    """What a sound file holds."""

    samples: Float32[np.ndarray, " sample"]
    """Mean of the channels."""
    sample_rate_hz: int
    num_channels: int
    comment: str


def read_sound(path: Path, limits: SoundLimits = LIMITS, finite: bool = True) -> Decoded:
    """Decode a sound file.

    Raises:
        AudioError: it cannot be read, is no regular file, or as for `decode_sound`.
    """
    try:
        with open_regular(path) as file:
            return decode_sound(file, str(path), limits, finite)
    except OSError as error:
        raise AudioError(f"{path}: cannot read it ({error.strerror or error})") from error


def decode_sound(
    data: bytes | io.BufferedIOBase, source: str, limits: SoundLimits = LIMITS, finite: bool = True
) -> Decoded:
    """Decode any sound that libsndfile knows as one channel: the mean of its channels.

    Args:
        data: the file, in memory or open for reading.
        source: names it in errors.
        limits: how much of it is decoded at most.
        finite: refuse NaN, infinite and huge samples.

    Raises:
        AudioError: it is not audio, holds no sample, is cut off, or is over the limits.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    _check_size(file, source)
    with _opened(file, source) as sound:
        rate_hz, num_channels = check_rate(int(sound.samplerate), source), int(sound.channels)
        if num_channels > MAX_CHANNELS:
            raise AudioError(f"{source}: {num_channels} channels; {MAX_CHANNELS} at most")
        blocks, num_samples = [], 0
        for block in _blocks(sound, source):
            num_samples += len(block)
            limits.check(num_samples, num_channels, rate_hz, source)
            blocks.append(_mix(block))
        comment, format, announced = str(sound.comment), str(sound.format), int(sound.frames)
    samples = _joined(blocks, num_samples)
    if not num_samples:
        raise AudioError(f"{source}: holds no sample")
    share = share_there(file)
    if format in COUNTED and 0 < announced <= MAX_SAMPLES:  # of an MP3 both have to tell
        share = max(share if format != "FLAC" else 0.0, num_samples / announced)
    _check_whole(file, num_samples / rate_hz, share, format, source)
    if finite:
        check_finite(samples, source)
    return Decoded(samples, rate_hz, num_channels, read_wav_comment(file) or comment)


@dataclass(frozen=True)
class Header:
    """What a sound file says of itself."""

    sample_rate_hz: int
    num_channels: int
    num_samples: int | None
    """Of one channel; None where it says nothing that can be right."""
    container: str
    codec: str
    """Both in libsndfile's words."""


def read_header(data: bytes | io.BufferedIOBase, source: str) -> Header:
    """What a sound says of itself: a hint, never a fact.

    Raises:
        AudioError: it is not audio, or of a rate or number of channels that is not read.
    """
    with _opened(io.BytesIO(data) if isinstance(data, bytes) else data, source) as sound:
        rate_hz, num_channels = check_rate(int(sound.samplerate), source), int(sound.channels)
        num_samples = int(sound.frames)
        container, codec = str(sound.format), str(sound.subtype)
    if num_channels > MAX_CHANNELS:
        raise AudioError(f"{source}: {num_channels} channels; {MAX_CHANNELS} at most")
    told_samples = num_samples if 0 < num_samples <= MAX_SAMPLES else None
    return Header(rate_hz, num_channels, told_samples, container, codec)


def read_length(path: Path) -> tuple[int, int]:
    """Sample rate and samples of a channel; decoded and counted where the header cannot be right.

    Raises:
        AudioError: as for `read_sound`.
    """
    try:
        with open_regular(path) as file:
            head = read_header(file, str(path))
    except OSError as error:
        raise AudioError(f"{path}: cannot read it ({error.strerror or error})") from error
    if head.num_samples is None:
        return head.sample_rate_hz, len(read_sound(path, finite=False).samples)
    return head.sample_rate_hz, head.num_samples


def check_rate(rate_hz: Any, source: str) -> int:
    """The sample rate as a whole number, if sounds of it are read and written here.

    Raises:
        AudioError: it is no whole number, or out of range.
    """
    try:
        rate = rate_hz.__index__()
    except AttributeError:
        rate = 0
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise AudioError(
            f"{source}: a sample rate of {rate_hz!r:.40} Hz; expected a whole number from "
            f"{MIN_RATE_HZ:,} to {MAX_RATE_HZ:,}"
        )
    return int(rate)


def check_finite(samples: Float32[np.ndarray, " sample"], source: str) -> None:
    """Refuse NaN, infinite and huge samples.

    Raises:
        AudioError: names ``source``.
    """
    peak = float(max(samples.max(initial=0.0), -samples.min(initial=0.0)))
    if not np.isfinite(peak):
        raise AudioError(f"{source}: holds NaN or infinite samples")
    if peak > LARGEST_SAMPLE:
        raise AudioError(f"{source}: a sample of {peak:.3g}, where full scale is 1")


def _check_size(file: io.BufferedIOBase, source: str) -> None:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > MAX_FILE_BYTES:
        raise AudioError(f"{source}: {size:,} bytes; {MAX_FILE_BYTES:,} at most")


def _check_whole(
    file: io.BufferedIOBase, held_s: float, share: float, format: str, source: str
) -> None:
    """Refuse a sound that ends before the end that it announces."""
    whole_s = held_s / max(share, 1e-9)
    if whole_s - held_s > (CUT_MP3_S if format == "MP3" else CUT_S):
        raise AudioError(
            f"{source}: cut off, {held_s:.2f} of {whole_s:.2f} s are there; expected the whole file"
        )
    if format == "OGG" and ends_within_page(file):
        raise AudioError(
            f"{source}: cut off after {held_s:.2f} s, in the middle of a page; expected the whole "
            "file"
        )


class _Steady:
    """A file for a C library, which may seek where a damaged header points: it stays where it is.

    An exception in a callback of C could only be printed.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self.read, self.readinto, self.tell = file.read, file.readinto, file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self._file.tell()


def _opened(file: io.BufferedIOBase, source: str) -> Any:
    import soundfile

    try:
        sound = soundfile.SoundFile(_Steady(file))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise AudioError(f"{source}: not an audio file that can be read ({reason})") from error
    except (RuntimeError, TypeError, ValueError) as error:
        reason = one_line(error)
        raise AudioError(f"{source}: not an audio file that can be read ({reason})") from error

    # Else each block is followed by a seek to its end, which a FLAC of unknown length fails.
    sound._info.seekable = 0
    return sound


def _blocks(sound: Any, source: str) -> Iterator[Float32[np.ndarray, "sample channel"]]:
    import soundfile

    while True:
        try:
            block = sound.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            raise AudioError(f"{source}: broken in the middle ({reason})") from error
        except (RuntimeError, ValueError) as error:
            raise AudioError(f"{source}: broken in the middle ({one_line(error)})") from error
        if not len(block):
            return
        yield block


def _mix(
    block: Float32[np.ndarray, "sample channel"],
) -> Float32[np.ndarray, " sample"]:
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused later
        mean: Float32[np.ndarray, " sample"] = block.mean(axis=1)
    return mean


def _joined(
    blocks: list[Float32[np.ndarray, " part"]], num_samples: int
) -> Float32[np.ndarray, " sample"]:
    """All blocks in one array; each is given back once copied, so that memory is held once."""
    samples = np.empty(num_samples, np.float32)
    start = 0
    blocks.reverse()
    while blocks:
        block = blocks.pop()
        samples[start : start + len(block)] = block
        start += len(block)
    return samples
