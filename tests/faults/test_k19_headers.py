"""K19: no header is believed: sounds are decoded block by block, under stated limits."""

import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from reader_tables import SOUND_READERS, Member, try_reading

from resonate_audio.audio.decoding import SoundLimits, decode_sound, read_length
from resonate_audio.core.errors import AudioError

RNG = np.random.default_rng(0)
SOME_MB = 64


def encoded(
    samples: np.ndarray, rate_hz: int, container: str, codec: str, change: Callable | None = None
) -> bytes:
    """A file as another program would write it."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, codec, format=container)
    return change(buffer.getvalue()) if change else buffer.getvalue()


def flac_total(total: int) -> Callable[[bytes], bytes]:
    """Say another number of samples in the first block of a FLAC file."""

    def change(data: bytes) -> bytes:
        (field,) = struct.unpack(">Q", data[18:26])
        return data[:18] + struct.pack(">Q", field >> 36 << 36 | total) + data[26:]

    return change


def wav_field(place: int, format: str, value: int) -> Callable[[bytes], bytes]:
    """Say something else in the header of a WAV file."""

    def change(data: bytes) -> bytes:
        packed = struct.pack(format, value)
        return data[:place] + packed + data[place + len(packed) :]

    return change


def flipped_mp3(data: bytes) -> bytes:
    """One bit of the number of frames in the Xing or Info header."""
    place = max(data.find(b"Xing"), data.find(b"Info"))
    return data[: place + 8] + bytes([data[place + 8] ^ 0x40]) + data[place + 9 :]


NOISE = (0.1 * RNG.standard_normal(8_000)).astype(np.float32)
STEREO = np.stack([NOISE, NOISE], axis=1)
READ = {
    "FLAC of a pipe": encoded(NOISE, 16_000, "FLAC", "PCM_16", flac_total(0)),
    "FLAC that says 2^36": encoded(NOISE, 16_000, "FLAC", "PCM_16", flac_total(2**36 - 1)),
    "MP3 with a flipped bit": encoded(NOISE, 16_000, "MP3", "MPEG_LAYER_III", flipped_mp3),
    "WAV that says 2^32": encoded(NOISE, 16_000, "WAV", "PCM_16", wav_field(40, "<I", 2**32 - 1)),
    "WAV of a pipe": encoded(NOISE, 16_000, "WAV", "PCM_16", wav_field(40, "<I", 0xFFFFFFFF)),
    "GSM": encoded(NOISE, 8_000, "WAV", "GSM610"),
    "XI": encoded(NOISE, 44_100, "XI", "DPCM_16"),
    "A-law": encoded(NOISE, 8_000, "WAV", "ALAW"),
    "G.721": encoded(NOISE, 8_000, "AU", "G721_32"),
    "ADPCM": encoded(NOISE, 16_000, "WAV", "IMA_ADPCM"),
    "stereo": encoded(STEREO, 16_000, "OGG", "VORBIS"),
}
REFUSED = {
    "1 Hz": encoded(NOISE, 1, "WAV", "PCM_16"),
    "2^31 Hz": encoded(NOISE, 2**31 - 1, "WAV", "PCM_16"),
    "655 kHz in 8 channels": encoded(np.zeros((10_000, 8)), 655_350, "FLAC", "PCM_16"),
    "40 channels": encoded(np.zeros((1_000, 40), np.float32), 16_000, "WAV", "PCM_16"),
    "too loud to be added": encoded(np.full((100, 2), 3e38, np.float32), 16_000, "WAV", "FLOAT"),
    "huge": encoded(np.full(100, 1e30, np.float32), 16_000, "WAV", "FLOAT"),
    "nothing": b"",
    "text": b"a dog barks",
    "no sample": encoded(np.zeros(0, np.float32), 16_000, "WAV", "PCM_16"),
    "a head alone": encoded(NOISE, 16_000, "FLAC", "PCM_16")[:42],
}
LETS_PASS = {
    "samples to be scored": {"too loud to be added", "huge"},
    "a sound's length": set(REFUSED),
}


@pytest.mark.parametrize("member", SOUND_READERS, ids=str)
def test_headers_that_lie_do_not_keep_a_sound_from_being_read(
    member: Member, tmp_path: Path
) -> None:
    for name, data in READ.items():
        (tmp_path / member.file).write_bytes(data)
        assert try_reading(member, tmp_path / member.file) is None, name


@pytest.mark.parametrize("member", SOUND_READERS, ids=str)
def test_what_is_out_of_the_limits_is_refused(member: Member, tmp_path: Path) -> None:
    for name, data in REFUSED.items():
        (tmp_path / member.file).write_bytes(data)
        message = try_reading(member, tmp_path / member.file)
        passes = member.forgives or name in LETS_PASS.get(member.name, set())
        assert passes or message is not None, f"{name} was read"


@pytest.mark.parametrize("name", READ)
def test_a_length_is_counted_where_the_header_cannot_be_right(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(READ[name])
    _, num_samples = read_length(tmp_path / "a")
    assert 7_000 < num_samples < 70_000  # codecs fill up their last block


def test_a_small_file_of_long_silence_stops_at_the_limit() -> None:
    hour = encoded(np.zeros(16_000 * 600, np.int16), 16_000, "FLAC", "PCM_16")
    assert len(hour) < 200_000
    tracemalloc.start()
    with pytest.raises(AudioError, match="over 30 s of sound"):
        decode_sound(hour, "silence", SoundLimits(seconds=30.0))
    with pytest.raises(AudioError, match="over 100,000 samples"):
        decode_sound(hour, "silence", SoundLimits(num_samples=100_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SOME_MB * 2**20


def test_an_upload_is_measured_while_it_is_decoded_whatever_its_header_says() -> None:
    from resonate_audio.serving.uploads import decode_upload

    silence = encoded(np.zeros(16_000 * 60, np.int16), 16_000, "FLAC", "PCM_16")
    for total in (0, 2**36 - 1):
        with pytest.raises(AudioError, match="over 10 s of sound"):
            decode_upload(flac_total(total)(silence), "x", 10.0)


def test_blocks_join_to_the_samples_that_one_call_reads() -> None:
    for name in ("stereo", "ADPCM", "GSM"):
        whole, _ = soundfile.read(io.BytesIO(READ[name]), dtype="float32", always_2d=True)
        np.testing.assert_array_equal(decode_sound(READ[name], name).samples, whole.mean(axis=1))


def test_no_address_of_memory_is_in_a_message(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="not an audio file") as caught:
        decode_sound(b"no sound", "upload")
    assert "0x" not in str(caught.value)
