from __future__ import annotations

import numpy as np
import pytest

from resonate_audio.nano.judges.sounds import batches_of, countable_captions, num_bursts, to_int16

RATE_HZ = 16_000


def bursts(*starts_s: float) -> np.ndarray:
    """Decaying tones that begin at the times given."""
    time = np.arange(RATE_HZ) / RATE_HZ
    wave = np.zeros(RATE_HZ)
    for start in starts_s:
        since = np.clip(time - start, 0, None)
        wave += (time >= start) * np.sin(2 * np.pi * 500 * since) * np.exp(-since / 0.02)
    return (0.5 * wave).astype(np.float32)


@pytest.mark.parametrize("starts_s", [(0.1,), (0.1, 0.4), (0.1, 0.4, 0.7)])
def test_separate_bursts_are_counted(starts_s: tuple[float, ...]) -> None:
    assert num_bursts(bursts(*starts_s)) == len(starts_s)


def test_loudness_does_not_change_the_count() -> None:
    assert num_bursts(bursts(0.1, 0.5) * np.float32(0.01)) == 2


def test_two_bursts_are_no_single_event() -> None:
    assert countable_captions(["a dog barks"], bursts(0.1, 0.5)) == []


def test_captions_that_speak_of_number_cannot_be_counted() -> None:
    captions = ["a dog barks", "a dog barks twice", "a single bark", "several barks"]
    assert countable_captions(captions, bursts(0.1)) == ["a dog barks"]


def test_batches_keep_the_order_and_everything() -> None:
    sounds = [np.full(length, length, np.float32) for length in (5, 9, 2, 4)]
    batches = batches_of(sounds, 10)
    assert [[len(sound) for sound in batch] for batch in batches] == [[5], [9], [2, 4]]


def test_full_scale_fits_sixteen_bits() -> None:
    assert to_int16(np.array([-1.5, -1, 0, 1], np.float32)).tolist() == [-32767, -32767, 0, 32767]
