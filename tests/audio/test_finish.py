from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from resonate_audio.audio.finish import (
    CEILING_DB,
    fade,
    finish_sound,
    limit,
    normalize,
    set_length,
    set_loudness,
    trim,
)
from resonate_audio.audio.loudness import loudness_lufs, true_peak
from resonate_audio.core.edit import Finish
from resonate_audio.core.errors import InputError
from resonate_audio.core.types import Audio

RATE_HZ = 16_000
CHANCE = np.random.default_rng(0)


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    return (level * CHANCE.standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def lufs(samples: np.ndarray) -> float:
    return float(loudness_lufs(torch.from_numpy(samples.copy())[None], RATE_HZ)[0])


def peak_db(samples: np.ndarray) -> float:
    return 20 * math.log10(float(true_peak(torch.from_numpy(samples.copy())[None])[0]))


# Trim.


def test_silence_at_both_ends_is_cut_but_for_a_breath() -> None:
    trimmed = trim(np.concatenate([silence(0.5), noise(0.3), silence(1.66)]), RATE_HZ, -50.0)
    assert len(trimmed) == round((0.010 + 0.3 + 0.040) * RATE_HZ)


def test_what_is_heard_is_not_changed() -> None:
    sound = noise(0.3)
    trimmed = trim(np.concatenate([silence(0.5), sound, silence(0.5)]), RATE_HZ, -50.0)
    inside = slice(round(0.010 * RATE_HZ), round(0.310 * RATE_HZ))
    assert np.array_equal(trimmed[inside], sound)


def test_a_pause_inside_stays() -> None:
    sound = np.concatenate([noise(0.1), silence(1.0), noise(0.1)])
    assert np.array_equal(trim(sound, RATE_HZ, -50.0), sound)


def test_the_threshold_is_against_the_loudest_moment() -> None:
    tail = noise(0.5, 0.1 * 10 ** (-30 / 20))
    sound = np.concatenate([noise(0.5), tail])
    assert len(trim(sound, RATE_HZ, -40.0)) == len(sound)
    assert len(trim(sound, RATE_HZ, -20.0)) == round(0.54 * RATE_HZ)


def test_a_cut_end_comes_to_nothing() -> None:
    trimmed = trim(np.concatenate([noise(0.5), noise(0.5, 1e-4)]), RATE_HZ, -50.0)
    assert abs(trimmed[-1]) < 1e-7


def test_digital_silence_stays() -> None:
    assert len(trim(silence(0.5), RATE_HZ, -50.0)) == 8000


# Length and fade.


@pytest.mark.parametrize("num_samples", [1, 4000, 8000, 12_345])
def test_a_length_is_exact_to_the_sample(num_samples: int) -> None:
    assert len(set_length(noise(0.5), RATE_HZ, num_samples)) == num_samples


def test_a_longer_sound_is_followed_by_silence_and_a_shorter_one_does_not_click() -> None:
    sound = noise(0.5)
    longer, shorter = set_length(sound, RATE_HZ, 9000), set_length(sound, RATE_HZ, 6000)
    assert np.array_equal(longer[:8000], sound)
    assert not longer[8000:].any()
    assert np.array_equal(shorter[:5900], sound[:5900])
    assert abs(shorter[-1]) < 1e-3


def test_a_fade_goes_along_half_a_cosine() -> None:
    faded = fade(np.ones(1000, np.float32), 100, 200)
    assert faded[0] < 1e-3
    assert faded[-1] < 1e-3
    assert faded[49:51].mean() == pytest.approx(0.5, abs=0.01)
    assert faded[-101:-99].mean() == pytest.approx(0.5, abs=0.01)
    assert (faded[100:800] == 1).all()


def test_fades_longer_than_the_sound_meet_in_its_middle() -> None:
    faded = fade(np.ones(100, np.float32), 1000, 1000)
    assert faded.max() > 0.99
    np.testing.assert_allclose(faded, faded[::-1])


# Level.


@pytest.mark.parametrize("level", [0.001, 0.1, 0.3])
@pytest.mark.parametrize("wanted", [-30.0, -16.0])
def test_a_sound_is_brought_to_its_loudness(level: float, wanted: float) -> None:
    made = set_loudness(noise(2.0, level), RATE_HZ, wanted)
    assert lufs(made) == pytest.approx(wanted, abs=0.1)
    assert peak_db(made) <= CEILING_DB + 0.01


def test_peaks_are_held_down_and_the_loudness_is_still_reached() -> None:
    sound = noise(1.0, 0.05)
    sound[::4000] = 0.9
    made = set_loudness(sound, RATE_HZ, -18.0)
    assert peak_db(made) <= CEILING_DB + 0.01
    assert lufs(made) == pytest.approx(-18.0, abs=0.1)


def test_a_click_stays_under_the_loudness_rather_than_being_crushed() -> None:
    click = silence(1.0)
    click[8000] = 0.5
    made = set_loudness(click, RATE_HZ, -10.0)
    assert peak_db(made) <= CEILING_DB + 0.01
    assert lufs(made) < -10.5


def test_turning_down_is_a_gain_and_nothing_else() -> None:
    sound = noise(1.0, 0.05)
    made = set_loudness(sound, RATE_HZ, lufs(sound) - 6.0)
    np.testing.assert_allclose(made, sound * 10 ** (-6 / 20), rtol=0.01, atol=1e-6)


def test_silence_has_no_loudness_to_be_brought_anywhere() -> None:
    assert not set_loudness(silence(0.5), RATE_HZ, -16.0).any()
    assert not normalize(silence(0.5), -1.0).any()


@pytest.mark.parametrize("wanted", [-1.0, -12.0])
def test_a_peak_is_brought_to_its_level(wanted: float) -> None:
    assert peak_db(normalize(noise(0.5), wanted)) == pytest.approx(wanted, abs=1e-3)


def test_a_limited_sound_is_as_it_was_away_from_its_peaks() -> None:
    sound = noise(1.0, 0.05)
    sound[8000] = 1.5
    made = limit(sound, RATE_HZ, -1.0)
    away = np.r_[0:7800, 8200:16_000]
    np.testing.assert_allclose(made[away], sound[away], rtol=2e-3, atol=1e-6)


def test_what_is_under_the_ceiling_is_not_touched() -> None:
    sound = noise(0.5)
    assert limit(sound, RATE_HZ, -1.0) is sound


# All of it.


def test_everything_is_done_in_order_and_the_length_is_kept_to_the_sample() -> None:
    sound = np.concatenate([silence(0.4), noise(0.6), silence(1.0)])
    wanted = Finish(trim_db=-50.0, length_s=0.7, fade_s=0.01, loudness_lufs=-16.0)
    made = finish_sound(Audio(sound, RATE_HZ), wanted)
    assert (len(made.samples), made.sample_rate_hz) == (11_200, RATE_HZ)
    assert lufs(made.samples) == pytest.approx(-16.0, abs=0.1)
    assert abs(made.samples[0]) < 1e-4


def test_level_and_fade_keep_the_length() -> None:
    for wanted in (Finish(fade_s=0.1), Finish(loudness_lufs=-16.0), Finish(normalize_db=-1.0)):
        assert len(finish_sound(Audio(noise(0.5), RATE_HZ), wanted).samples) == 8000


def test_nothing_wanted_is_nothing_done() -> None:
    sound = noise(0.5)
    assert np.array_equal(finish_sound(Audio(sound, RATE_HZ), Finish()).samples, sound)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trim_db": 3.0}, "trim_db 3: expected a number from -120 to -6"),
        ({"trim_db": math.nan}, "trim_db nan"),
        ({"loudness_lufs": 0.0}, "loudness_lufs 0: expected a number from -60 to -5"),
        ({"normalize_db": 1.0}, "normalize_db 1: expected a number from -60 to 0"),
        ({"fade_s": -1.0}, "fade_s -1"),
        ({"length_s": 0.0}, "length_s 0"),
        ({"loudness_lufs": -16.0, "normalize_db": -1.0}, "two levels for one sound"),
    ],
)
def test_a_finish_that_cannot_be_done_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Finish(**values)
