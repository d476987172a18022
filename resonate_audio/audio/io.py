"""Audio files in and out: always with a sample rate, never clipped, never half-written."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from resonate_audio.audio.decoding import (
    LIMITS,
    MAX_RATE_HZ,
    MAX_SAMPLES,
    Decoded,
    SoundLimits,
    check_rate,
    decode_sound,
    read_header,
    read_sound,
)
from resonate_audio.audio.embedded import MAX_COMMENT_BYTES, fitting_recipe, parse_recipe
from resonate_audio.audio.tags import append_wav_tags, prepend_id3_tags
from resonate_audio.core.errors import AudioError
from resonate_audio.core.files import (
    atomic_path,
    check_target,
    open_regular,
    output_error,
    temporary_path,
)
from resonate_audio.core.paths import given_path
from resonate_audio.core.types import Audio, Recipe

BLOCK_SAMPLES = 1 << 14
"""What libvorbis gets at once: it copies its first block onto the stack."""
STACK_BYTES = 1 << 24
MAX_TITLE = 1_000
"""Letters of the prompt that players show."""


@dataclass(frozen=True)
class AudioFormat:
    """One container and codec that sounds can be written in."""

    name: str
    container: str
    codec: str
    lossless: bool
    rates_hz: tuple[int, ...] = ()
    """Sample rates the codec takes, rising; empty when it takes any."""
    max_rate_hz: int = MAX_RATE_HZ
    """Beyond it libvorbis ends the process."""
    max_comment_bytes: int = MAX_COMMENT_BYTES
    """What libsndfile reads back of a comment."""
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
    ".ogg": AudioFormat(
        "Ogg Vorbis", "OGG", "VORBIS", lossless=False, max_rate_hz=200_000, compression_level=0.1
    ),
    ".opus": AudioFormat(
        "Opus",
        "OGG",
        "OPUS",
        lossless=False,
        rates_hz=(8000, 12000, 16000, 24000, 48000),
        max_comment_bytes=48_000,
        compression_level=0.5,
    ),
}


FLAC_16 = AudioFormat("FLAC", "FLAC", "PCM_16", lossless=True)
"""What shards of audio hold."""


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


def written_format(path: Path) -> AudioFormat:
    """The format that a file is in, whatever its name.

    Raises:
        AudioError: it is not audio, or in a format that is not written here; lists those that are.
    """
    try:
        with open_regular(path) as file:
            header = read_header(file, str(path))
    except OSError as error:
        raise AudioError(f"{path}: cannot read it ({error.strerror or error})") from error
    for known in FORMATS.values():
        if (known.container, known.codec) == (header.container, header.codec):
            return known
    names = ", ".join(f"{one.container} {one.codec}" for one in FORMATS.values())
    raise AudioError(
        f"{path}: is {header.container} {header.codec}; expected one of the formats that are "
        f"written here: {names}"
    )


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


def at_rate(audio: Audio, sample_rate_hz: int | None) -> Audio:
    """The sound at another rate, peak-safe."""
    if sample_rate_hz is None or sample_rate_hz == audio.sample_rate_hz:
        return audio
    samples = resample(audio.samples, audio.sample_rate_hz, sample_rate_hz)
    safe, gain = peak_safe(samples)
    recipe = audio.recipe and dataclasses.replace(audio.recipe, gain=audio.recipe.gain * gain)
    return Audio(safe, sample_rate_hz, recipe)


def resample(
    samples: Float32[np.ndarray, " sample"], from_hz: int, to_hz: int
) -> Float32[np.ndarray, " sample2"]:
    """Change the sample rate with soxr's highest quality; the same rate changes nothing.

    Raises:
        AudioError: a rate is out of range, or the result would be longer than what is read.
    """
    if from_hz == to_hz:
        return samples
    from_hz, to_hz = check_rate(from_hz, "resampling"), check_rate(to_hz, "resampling")
    if len(samples) * to_hz > MAX_SAMPLES * from_hz:
        raise AudioError(f"resampling to {to_hz} Hz: over {MAX_SAMPLES:,} samples")
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
    return _to_audio(read_sound(given_path(path)), str(path), sample_rate_hz)


def decode_audio(
    data: bytes, source: str, sample_rate_hz: int | None = None, limits: SoundLimits = LIMITS
) -> Audio:
    """Decode an audio file held in memory; ``source`` names it in errors.

    Raises:
        AudioError: as for `read_audio`.
    """
    return _to_audio(decode_sound(data, source, limits), source, sample_rate_hz)


def _to_audio(found: Decoded, source: str, sample_rate_hz: int | None) -> Audio:
    """A damaged recipe keeps nobody from the sound: `read_recipe` says what is wrong with it."""
    try:
        recipe = parse_recipe(found.comment, source)
    except AudioError:
        recipe = None
    rate_hz = found.sample_rate_hz if sample_rate_hz is None else sample_rate_hz
    samples = resample(found.samples, found.sample_rate_hz, rate_hz)
    return Audio(np.ascontiguousarray(samples), rate_hz, recipe)


def encode_audio(audio: Audio, format: AudioFormat, in_blocks: bool = True) -> bytes:
    """The file's bytes: resampled if the codec must, peak-safe, with the recipe as metadata.

    A recipe that does not fit into the format's metadata is written without its batch.

    Args:
        audio: the sound.
        format: how it is written.
        in_blocks: false to make a Vorbis file again that an older version wrote in one call; the
            first block decides how the encoder begins.

    Raises:
        AudioError: the sound is empty, too long, of a rate that the format cannot hold, or holds
            NaN or infinite samples.
    """
    samples, asked_hz = _check_sound(audio, format)
    rate_hz = format.file_rate_hz(asked_hz)
    samples, gain = peak_safe(resample(samples, asked_hz, rate_hz))
    title, comment = _describe(audio.recipe, gain, format, in_blocks)
    buffer = io.BytesIO()
    if in_blocks or format.codec != "VORBIS":
        _write(buffer, samples, rate_hz, format, title, comment)
    else:
        _on_deep_stack(
            len(samples),
            lambda: _write(
                buffer, samples, rate_hz, format, title, comment, block_samples=len(samples)
            ),
        )
    return _tag(buffer.getvalue(), format, title, comment)


def _check_sound(audio: Audio, format: AudioFormat) -> tuple[Float32[np.ndarray, " sample"], int]:
    """Samples and rate as the libraries below take them; they crash on others.

    Raises:
        AudioError: names what is wrong.
    """
    if not isinstance(audio, Audio):
        raise AudioError(f"the sound is {type(audio).__name__}; expected Audio(samples, rate)")
    rate_hz = check_rate(audio.sample_rate_hz, "the sound")
    samples = np.asarray(audio.samples)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise AudioError(
            f"the sound is {samples.dtype} with {samples.ndim} axes; expected floats with one, "
            "full scale at 1"
        )
    if not len(samples):
        raise AudioError("the sound holds no sample")
    if len(samples) > MAX_SAMPLES:
        raise AudioError(f"the sound is over {MAX_SAMPLES:,} samples; cut it into pieces")
    if not format.rates_hz and rate_hz > format.max_rate_hz:
        raise AudioError(f"{format.name} holds at most {format.max_rate_hz} Hz, not {rate_hz}")
    if format.container == "FLAC" and rate_hz > 65_535 and rate_hz % 10:
        raise AudioError(f"{format.name} over 65,535 Hz: a multiple of 10, not {rate_hz}")
    return np.ascontiguousarray(samples, dtype=np.float32), rate_hz


def _write(
    buffer: io.BytesIO,
    samples: Float32[np.ndarray, " sample"],
    rate_hz: int,
    format: AudioFormat,
    title: str,
    comment: str,
    block_samples: int = BLOCK_SAMPLES,
) -> None:
    import soundfile

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
            if title:  # the library refuses an empty one
                file.title = title
            file.comment, file.software = comment, "Resonate Audio"
        for start in range(0, len(samples), block_samples):
            file.write(samples[start : start + block_samples])


def _on_deep_stack(num_samples: int, work: Callable[[], None]) -> None:
    """Run in a thread whose stack holds the whole sound: libvorbis puts its first block there."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    before = threading.stack_size(STACK_BYTES + 8 * num_samples // 4096 * 4096)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if failures:
        raise failures[0]


def write_audio(path: str | Path, audio: Audio, overwrite: bool = False) -> None:
    """Write a sound in the format its suffix names: .wav .flac .mp3 .ogg .opus.

    WAV is 16-bit and FLAC 24-bit. A peak over 1 is attenuated, and the recipe records the gain.

    Raises:
        AudioError: unknown suffix, or a sound that is empty, NaN or infinite.
        OutputError: the file exists, cannot be written, or the disk is full.
    """
    path = given_path(path)
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
    target = check_target(path, overwrite)
    try:
        existing = next(parent for parent in target.parents if parent.exists())
        probe = temporary_path(existing / "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise output_error(path, error) from error


def read_recipe(path: str | Path) -> Recipe | None:
    """How the sound in a file was made, or None when this package did not make it.

    Raises:
        AudioError: the file is not audio, or its recipe is damaged.
    """
    return parse_recipe(read_sound(given_path(path)).comment, str(path))


def _describe(
    recipe: Recipe | None, gain: float, format: AudioFormat, in_blocks: bool
) -> tuple[str, str]:
    if recipe is None:
        return "", ""
    written = dataclasses.replace(recipe, gain=recipe.gain * gain, in_blocks=in_blocks)
    comment = fitting_recipe(written, format.max_comment_bytes)
    return recipe.prompt[:MAX_TITLE], comment or ""


def _tag(data: bytes, format: AudioFormat, title: str, comment: str) -> bytes:
    if not comment:
        return data
    if format.container == "WAV":
        return append_wav_tags(data, title, comment)
    if format.container == "MP3":
        return prepend_id3_tags(data, title, comment)
    return data
