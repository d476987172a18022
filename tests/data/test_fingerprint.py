import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr
from bells import RATE_HZ as RATE
from bells import bells

from resonate_audio.data.fingerprint import (
    MOST_DIFFERENT_BITS,
    NUM_BITS,
    RATE_HZ,
    band_energy,
    fingerprint,
    same_sounds,
)


def through(samples: np.ndarray, container: str, codec: str, rate_hz: int = RATE) -> np.ndarray:
    """Encode and decode."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=container, subtype=codec)
    buffer.seek(0)
    return np.asarray(soundfile.read(buffer, dtype="float32")[0])


def distance(one: bytes | None, two: bytes | None) -> int:
    assert one is not None
    assert two is not None
    return (int.from_bytes(one, "big") ^ int.from_bytes(two, "big")).bit_count()


@pytest.mark.parametrize(
    ("container", "codec"), [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "PCM_16")]
)
def test_a_codec_changes_few_bits(container: str, codec: str) -> None:
    for seed in range(3):
        sound = bells(seed)
        other = through(sound, container, codec)
        assert distance(fingerprint(sound, RATE), fingerprint(other, RATE)) <= MOST_DIFFERENT_BITS


def test_gain_changes_no_bit() -> None:
    sound = bells(0)
    assert distance(fingerprint(sound, RATE), fingerprint(sound * 0.125, RATE)) == 0


def test_another_rate_changes_few_bits() -> None:
    sound = bells(1)
    lower = soxr.resample(sound, RATE, 22_050)
    assert distance(fingerprint(sound, RATE), fingerprint(lower, 22_050)) <= 10


def test_silence_around_a_sound_changes_few_bits() -> None:
    sound = bells(2)
    padded = np.pad(sound, (RATE // 2, RATE))
    assert distance(fingerprint(sound, RATE), fingerprint(padded, RATE)) <= MOST_DIFFERENT_BITS


def test_other_recordings_differ_in_about_half_of_the_bits() -> None:
    codes = [fingerprint(bells(seed), RATE) for seed in range(12)]
    distances = [distance(one, two) for one, two in pairwise(codes)]
    assert min(distances) > 1.5 * MOST_DIFFERENT_BITS
    assert abs(np.mean(distances) / NUM_BITS - 0.5) < 0.05


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.zeros(0), np.ones(1000)])
def test_silence_and_clicks_have_no_code(samples: np.ndarray) -> None:
    assert fingerprint(samples.astype(np.float32), RATE) is None


def test_a_tone_lies_in_the_band_that_holds_it() -> None:
    edges = np.geomspace(150, 7000, 18)
    for band in (2, 8, 16):
        tone = np.sin(
            2 * np.pi * np.sqrt(edges[band] * edges[band + 1]) * np.arange(8000) / RATE_HZ
        )
        assert band_energy(tone.astype(np.float32))[10:20].sum(axis=0).argmax() == band


def test_a_block_is_no_border(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = bells(3)
    whole = band_energy(sound)
    monkeypatch.setattr("resonate_audio.data.fingerprint.BLOCK_FRAMES", 7)
    np.testing.assert_allclose(band_energy(sound), whole, rtol=1e-6)


def flip(code: bytes, count: int, rng: np.random.Generator) -> bytes:
    bits = np.unpackbits(np.frombuffer(code, dtype=np.uint8))
    bits[rng.choice(NUM_BITS, count, replace=False)] ^= 1
    return np.packbits(bits).tobytes()


def test_all_pairs_among_ten_thousand_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    codes = [rng.bytes(NUM_BITS // 8) for _ in range(10_000)]
    codes += [flip(code, 26, rng) for code in codes[:500]]
    found = same_sounds(codes, [10.0] * len(codes))
    assert found == [[number, 10_000 + number] for number in range(500)]


def test_a_crowd_of_equal_sounds_is_one_group() -> None:
    code = np.random.default_rng(0).bytes(NUM_BITS // 8)
    assert same_sounds([code] * 200, [1.0] * 200) == [list(range(200))]


def test_sounds_of_other_lengths_are_not_the_same() -> None:
    code = np.random.default_rng(0).bytes(NUM_BITS // 8)
    assert same_sounds([code, code, code], [2.0, 2.2, 4.0]) == [[0, 1]]


def test_few_clips_have_no_twins() -> None:
    assert same_sounds([], []) == []
    assert same_sounds([bytes(32)], [1.0]) == []
