from __future__ import annotations

import numpy as np
import pytest

from resonate_audio.audio.join import burg, cross_fade, go_on, paste

RATE_HZ = 16_000
CHANCE = np.random.default_rng(0)


def noise(num_samples: int) -> np.ndarray:
    return CHANCE.standard_normal(num_samples).astype(np.float32) * 0.1


def tone(num_samples: int, hz: float = 440.0, phase: float = 0.0) -> np.ndarray:
    places = np.arange(num_samples) / RATE_HZ
    return (0.5 * np.sin(2 * np.pi * hz * places + phase)).astype(np.float32)


def test_a_sound_crossed_with_itself_is_itself() -> None:
    sound = tone(400)
    np.testing.assert_allclose(cross_fade(sound, sound), sound, atol=1e-6)


def test_unrelated_sounds_keep_their_power_all_the_way() -> None:
    passages = np.stack([cross_fade(noise(200), noise(200)) for _ in range(800)])
    power = (passages**2).mean(axis=0)
    assert power.min() > 0.85 * 0.01
    assert power.max() < 1.15 * 0.01


def test_opposite_sounds_cross_without_a_burst() -> None:
    crossed = cross_fade(tone(400), -tone(400))
    assert np.abs(crossed).max() <= 0.5 + 1e-6


def test_silence_crosses_with_silence() -> None:
    assert not cross_fade(np.zeros(10, np.float32), np.zeros(10, np.float32)).any()


def test_outside_the_place_not_a_bit_changes() -> None:
    source, new = noise(1000), noise(300)
    made = paste(source, new, 200, 40)
    assert np.array_equal(made[:200], source[:200])
    assert np.array_equal(made[500:], source[500:])
    assert np.array_equal(made[240:460], new[40:260])


def test_the_source_is_left_as_it_was() -> None:
    source = noise(100)
    before = source.copy()
    paste(source, noise(50), 20, 10)
    assert np.array_equal(source, before)


def test_a_passage_begins_with_the_old_and_ends_with_the_new() -> None:
    source, new = np.zeros(1000, np.float32), np.ones(300, np.float32)
    made = paste(source, new, 200, 100)
    assert made[200] < 0.02
    assert made[299] > 0.98
    assert made[499] < 0.02


@pytest.mark.parametrize(("start", "length"), [(0, 300), (700, 300), (0, 1000)])
def test_an_end_of_the_source_has_no_passage(start: int, length: int) -> None:
    new = np.ones(length, np.float32)
    made = paste(np.zeros(1000, np.float32), new, start, 50)
    assert made[0] == (1.0 if start == 0 else 0.0)
    assert made[-1] == (1.0 if start + length == 1000 else 0.0)


def test_passages_of_a_short_place_do_not_overlap() -> None:
    made = paste(np.zeros(100, np.float32), np.ones(10, np.float32), 50, 40)
    assert made[50:60].max() <= 1.0
    assert not made[:50].any()
    assert not made[60:].any()


def test_partials_go_on_with_their_phase() -> None:
    sound = tone(2400) + 0.4 * tone(2400, 1234.0, 1.0)
    gone_on = go_on(sound[:2000], RATE_HZ, 200)
    np.testing.assert_allclose(gone_on, sound[2000:2200], atol=2e-3)


def test_noise_goes_on_as_noise_of_its_level_and_colour() -> None:
    past = np.convolve(noise(20_000), [1.0, 0.9], mode="same").astype(np.float32)
    gone_on = go_on(past, RATE_HZ, 20_000)
    for part in (gone_on[:5_000], gone_on[-5_000:]):  # neither dies nor grows
        assert 20 * np.log10(part.std() / past.std()) == pytest.approx(0, abs=1.5)
        high = np.diff(part).std() / part.std()
        assert high == pytest.approx(np.diff(past).std() / past.std(), rel=0.15)


def test_partials_without_noise_do_not_grow() -> None:
    gone_on = go_on(tone(2400), RATE_HZ, 1000)
    assert np.abs(gone_on).max() < 1.1 * np.abs(tone(2400)).max()


@pytest.mark.parametrize("past", [np.zeros(500, np.float32), np.ones(2, np.float32)])
def test_silence_and_what_is_too_short_go_on_as_silence(past: np.ndarray) -> None:
    assert not go_on(past, RATE_HZ, 10).any()
    assert len(go_on(past, RATE_HZ, 10)) == 10


def test_burg_finds_the_coefficients_of_an_autoregression() -> None:
    x = np.zeros(40_000)
    for place in range(2, len(x)):
        x[place] = 1.5 * x[place - 1] - 0.8 * x[place - 2] + CHANCE.standard_normal()
    coefficients, deviation = burg(x, 2)
    np.testing.assert_allclose(coefficients, [1.5, -0.8], atol=0.02)
    assert deviation == pytest.approx(1.0, abs=0.02)
