"""Audio files in and out: always with a sample rate, never clipped, never half-written."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from pydantic import TypeAdapter, ValidationError

from resonate_audio.audio.tags import append_wav_tags, prepend_id3_tags, read_wav_comment
from resonate_audio.core.errors import AudioError, OutputError
from resonate_audio.core.files import atomic_path, output_error
from resonate_audio.core.types import Audio, Recipe

RECIPE_KEY = "resonate_recipe"
PLAIN_RECIPE_BYTES = 16_000
"""Longer recipes (a big batch) are deflated; an Ogg comment must stay under one 64 kB page."""


@dataclass(frozen=True)
class AudioFormat:
    """One container and codec that sounds can be written in."""

    name: str
    container: str
    codec: str
    lossless: bool
    rates_hz: tuple[int, ...] = ()
    """Sample rates the codec takes, rising; empty when it takes any."""
    compression_level: float | None = None
    """libsndfile's scale: 0 is the best quality, 1 the smallest file."""

    def file_rate_hz(self, sample_rate_hz: int) -> int:
        """The lowest rate of the codec that loses nothing, else its highest."""
        if not self.rates_hz:
            return sample_rate_hz
        return min(
            (rate for rate in self.rates_hz if rate >= sample_rate_hz), default=self.rates_hz[-1]
        )


# Quality by ear and by rate: noise at 44.1 kHz comes to 180 kb/s (Vorbis), 130 kb/s (MP3).
FORMATS = {
    ".wav": AudioFormat("WAV", "WAV", "PCM_16", lossless=True),
    ".flac": AudioFormat("FLAC", "FLAC", "PCM_24", lossless=True),
    ".mp3": AudioFormat(
        "MP3",
        "MP3",
        "MPEG_LAYER_III",
        lossless=False,
        rates_hz=(8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
        compression_level=0.0,
    ),
    ".ogg": AudioFormat("Ogg Vorbis", "OGG", "VORBIS", lossless=False, compression_level=0.1),
    ".opus": AudioFormat(
        "Opus",
        "OGG",
        "OPUS",
        lossless=False,
        rates_hz=(8000, 12000, 16000, 24000, 48000),
        compression_level=0.5,
    ),
}


def audio_format(path: Path) -> AudioFormat:
    """The format that a file's suffix stands for.

    Raises:
        AudioError: no format goes by that suffix; lists those that do.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        known = " ".join(FORMATS)
        raise AudioError(f"{path}: unknown audio format '{path.suffix}'; write one of {known}")
    return found


def peak_safe(
    samples: Float32[np.ndarray, " sample"],
) -> tuple[Float32[np.ndarray, " sample"], float]:
    """Bring the peak down to 1 when it is over; never boost.

    Args:
        samples: one channel, full scale at 1.

    Returns:
        The samples and the gain applied, at most 1.

    Raises:
        AudioError: a sample is NaN or infinite.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError("the sound holds NaN or infinite samples")
    if peak <= 1.0:
        return samples, 1.0
    gain = 1.0 / peak
    return np.clip(samples * np.float32(gain), -1.0, 1.0), gain


def resample(
    samples: Float32[np.ndarray, " sample"], from_hz: int, to_hz: int
) -> Float32[np.ndarray, " sample2"]:
    """Change the sample rate with soxr's highest quality; the same rate changes nothing."""
    if from_hz == to_hz:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, from_hz, to_hz, quality="VHQ"), dtype=np.float32)


def read_audio(path: str | Path, sample_rate_hz: int | None = None) -> Audio:
    """Read any file libsndfile knows as one channel: the mean of its channels.

    Args:
        path: WAV, FLAC, MP3, Ogg Vorbis, Opus, AIFF, …
        sample_rate_hz: resample to this rate; None keeps the file's own.

    Returns:
        The sound, with its recipe when this package made the file.

    Raises:
        AudioError: the file is missing, is not audio, is cut short, or holds no sample.
    """
    return decode_audio(_read_bytes(Path(path)), str(path), sample_rate_hz)


def decode_audio(data: bytes, source: str, sample_rate_hz: int | None = None) -> Audio:
    """Decode an audio file held in memory; ``source`` names it in errors.

    Raises:
        AudioError: as for `read_audio`.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            channels = file.read(dtype="float32", always_2d=True)
            rate_hz, comment = int(file.samplerate), str(file.comment)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"{source}: not an audio file that can be read ({error})") from error
    if not len(channels):
        raise AudioError(f"{source}: holds no sample")
    if not np.isfinite(channels).all():
        raise AudioError(f"{source}: holds NaN or infinite samples")
    samples = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
    if data[:4] == b"RIFF":
        comment = read_wav_comment(data) or comment
    rate_out = sample_rate_hz or rate_hz
    return Audio(
        np.ascontiguousarray(resample(samples, rate_hz, rate_out)),
        rate_out,
        parse_recipe(comment, source),
    )


def encode_audio(audio: Audio, format: AudioFormat) -> bytes:
    """The file's bytes: resampled if the codec must, peak-safe, with the recipe as metadata.

    Raises:
        AudioError: the sound is empty or holds NaN or infinite samples.
    """
    import soundfile

    if not len(audio.samples):
        raise AudioError("the sound holds no sample")
    rate_hz = format.file_rate_hz(audio.sample_rate_hz)
    samples, gain = peak_safe(resample(audio.samples, audio.sample_rate_hz, rate_hz))
    title, comment = _describe(audio.recipe, gain)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        samplerate=rate_hz,
        channels=1,
        format=format.container,
        subtype=format.codec,
        compression_level=format.compression_level,
    ) as file:
        if comment and format.container not in ("WAV", "MP3"):
            file.title, file.comment, file.software = title, comment, "Resonate Audio"
        file.write(samples)
    return _tag(buffer.getvalue(), format, title, comment)


def write_audio(path: str | Path, audio: Audio, overwrite: bool = False) -> None:
    """Write a sound in the format its suffix names: .wav .flac .mp3 .ogg .opus.

    WAV is 16-bit and FLAC 24-bit. A peak over 1 is attenuated, and the recipe records the gain.

    Raises:
        AudioError: unknown suffix, or a sound that is empty, NaN or infinite.
        OutputError: the file exists, cannot be written, or the disk is full.
    """
    path = Path(path)
    check_output(path, overwrite)
    data = encode_audio(audio, audio_format(path))
    write_bytes(path, data, overwrite)


def write_bytes(path: Path, data: bytes, overwrite: bool = False) -> None:
    """Put ``data`` at ``path`` whole or not at all.

    Raises:
        OutputError: the file exists, cannot be written, or the disk is full.
    """
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(data)


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse, before any work is done, an output that could not be written after it.

    Raises:
        AudioError: unknown suffix.
        OutputError: the file exists and may not be replaced, or its folder cannot be written.
    """
    audio_format(path)
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, expected a file name")
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; pass --overwrite to replace it")
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        probe = existing / f".{path.stem}.{os.getpid()}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise output_error(path, error) from error


def read_recipe(path: str | Path) -> Recipe | None:
    """How the sound in a file was made, or None when this package did not make it.

    Raises:
        AudioError: the file is not audio, or its recipe is damaged.
    """
    return read_audio(path).recipe


def format_recipe(recipe: Recipe) -> str:
    """A recipe as the one-line ASCII JSON that is embedded in files."""
    fields = dataclasses.asdict(recipe)
    del fields["unknown_fields"]
    plain = json.dumps({RECIPE_KEY: fields})
    if len(plain) <= PLAIN_RECIPE_BYTES:
        return plain
    packed = base64.b64encode(zlib.compress(plain.encode("ascii"), 9)).decode("ascii")
    return json.dumps({RECIPE_KEY: packed})


def parse_recipe(comment: str, source: str) -> Recipe | None:
    """Read a recipe back from a file's comment; None when the comment is something else.

    Fields that another version wrote do not keep the sound from being read: they are named in
    ``unknown_fields``, and ``Recipe.sampling`` refuses them.

    Raises:
        AudioError: it is a recipe of ours, and damaged.
    """
    if not comment.startswith(f'{{"{RECIPE_KEY}"'):
        return None
    try:
        fields: Any = json.loads(comment)[RECIPE_KEY]
        if isinstance(fields, str):
            fields = json.loads(zlib.decompress(base64.b64decode(fields)))[RECIPE_KEY]
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(Recipe)})
        return TypeAdapter(Recipe).validate_python({**fields, "unknown_fields": unknown})
    except (ValueError, KeyError, zlib.error, ValidationError) as error:
        reason = " ".join(str(error).split())[:160]
        raise AudioError(f"{source}: the recipe in its metadata is damaged ({reason})") from error


def _describe(recipe: Recipe | None, gain: float) -> tuple[str, str]:
    if recipe is None:
        return "", ""
    return recipe.prompt, format_recipe(dataclasses.replace(recipe, gain=recipe.gain * gain))


def _tag(data: bytes, format: AudioFormat, title: str, comment: str) -> bytes:
    if not comment:
        return data
    if format.container == "WAV":
        return append_wav_tags(data, title, comment)
    if format.container == "MP3":
        return prepend_id3_tags(data, title, comment)
    return data


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AudioError(f"{path}: cannot read it ({error.strerror or error})") from error
