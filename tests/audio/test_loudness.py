from __future__ import annotations

import math

import pytest
import torch
from scipy.signal import lfilter

from resonate_audio.audio.loudness import (
    HEAD_SHELF,
    RUMBLE_CUT,
    k_weight,
    loudness_lufs,
    oversampled,
    true_peak,
)
from resonate_audio.core.errors import InputError

RATES_HZ = pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])


def tone(
    frequency_hz: float, rate_hz: int, seconds: float = 3.0, level: float = 1.0
) -> torch.Tensor:
    time_s = torch.arange(int(seconds * rate_hz), dtype=torch.float64) / rate_hz
    return level * torch.sin(2 * math.pi * frequency_hz * time_s)[None]


@RATES_HZ
def test_a_full_scale_sine_of_997_hz_has_minus_3_01_lufs(rate_hz: int) -> None:
    assert float(loudness_lufs(tone(997, rate_hz), rate_hz)) == pytest.approx(-3.01, abs=0.02)


@RATES_HZ
def test_treble_is_weighted_alike_at_every_rate(rate_hz: int) -> None:
    """4.0 dB more than the power, as the standard's shelf has it, less 0.691."""
    assert float(loudness_lufs(tone(7000, rate_hz), rate_hz)) == pytest.approx(0.3, abs=0.05)


@RATES_HZ
def test_half_the_level_is_6_02_lu_less(rate_hz: int) -> None:
    loud = loudness_lufs(tone(400, rate_hz), rate_hz)
    soft = loudness_lufs(tone(400, rate_hz, level=0.5), rate_hz)
    assert float(loud - soft) == pytest.approx(20 * math.log10(2), abs=1e-6)


def test_at_48_khz_the_weighting_is_the_standards_recursive_filter() -> None:
    noise = torch.randn(1, 48_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = noise.numpy()
    for b, a in (HEAD_SHELF, RUMBLE_CUT):
        expected = lfilter(b, (1.0, *a), expected)
    torch.testing.assert_close(k_weight(noise, 48_000), torch.from_numpy(expected))


def test_deep_rumble_counts_little_and_treble_more_than_its_power() -> None:
    middle, deep, high = (float(loudness_lufs(tone(hz, 48_000), 48_000)) for hz in (997, 20, 8000))
    assert deep < middle - 10
    assert middle + 2 < high < middle + 4


def test_silence_around_a_sound_does_not_make_it_quieter() -> None:
    sound = tone(997, 48_000)
    framed = torch.nn.functional.pad(sound, (4 * 48_000, 4 * 48_000))
    alone, among = loudness_lufs(sound, 48_000), loudness_lufs(framed, 48_000)
    assert float(alone - among) == pytest.approx(0.0, abs=0.5)


def test_what_is_10_lu_below_the_rest_is_not_counted() -> None:
    sound = tone(997, 48_000, seconds=10)
    faint = torch.cat([sound, 0.01 * sound], dim=1)
    assert float(loudness_lufs(sound, 48_000) - loudness_lufs(faint, 48_000)) < 0.1


def test_silence_has_the_floor_and_no_infinity() -> None:
    assert loudness_lufs(torch.zeros(2, 8000), 16_000).tolist() == [-70.0, -70.0]


def test_a_sound_shorter_than_a_block_has_a_loudness() -> None:
    assert float(loudness_lufs(tone(997, 48_000, seconds=0.2), 48_000)) == pytest.approx(
        -3.0, abs=0.1
    )


def test_no_sample_has_no_loudness() -> None:
    with pytest.raises(InputError, match="without samples"):
        loudness_lufs(torch.zeros(1, 0), 16_000)


def test_a_peak_between_samples_is_found() -> None:
    """A sine at a quarter of the rate, sampled 45 degrees off its crests, reads 3 dB low."""
    angle = math.pi / 2 * torch.arange(4000, dtype=torch.float64) + math.pi / 4
    wave = (torch.sin(angle) * torch.hann_window(4000, dtype=torch.float64))[None]
    assert wave.abs().max().item() == pytest.approx(math.sqrt(0.5), abs=1e-3)
    assert true_peak(wave).item() == pytest.approx(1.0, abs=1e-3)


def test_points_between_samples_go_through_the_samples() -> None:
    noise = torch.randn(2, 501, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(oversampled(noise)[:, ::4], noise)


def test_a_true_peak_is_never_below_the_largest_sample() -> None:
    noise = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    assert (true_peak(noise) >= noise.abs().amax(dim=1) - 1e-6).all()


def test_no_sample_has_no_peak() -> None:
    assert true_peak(torch.zeros(2, 0)).tolist() == [0.0, 0.0]
