import math

import pytest
import torch
from torch import Tensor

from resonate_audio.audio.mel import MEL_44K, mel_edges
from resonate_audio.training.codec.sine_loss import analyze_bands, share_loss, sine_loss


def tone(hz: float, num_hops: int = 40) -> Tensor:
    times = torch.arange(num_hops * 512, dtype=torch.float64) / 44_100
    return (0.5 * (2 * math.pi * hz * times).sin()).float()[None]


def band_of(hz: float) -> int:
    return int((mel_edges(MEL_44K)[1:-1] - hz).abs().argmin())


@pytest.mark.parametrize("hz", [261.6, 440.0, 1500.0, 5000.0])
def test_the_frequency_of_a_tone_is_found_to_a_hertz(hz: float) -> None:
    found = analyze_bands(tone(hz), MEL_44K).hz
    assert found.shape == (1, 40, 128)
    torch.testing.assert_close(found[0, 3:-3, band_of(hz)], torch.full((34,), hz), atol=1, rtol=0)


@pytest.mark.parametrize("hz", [440.0, 1500.0, 5000.0])
def test_a_tone_is_tonal_and_noise_is_not(hz: float) -> None:
    torch.manual_seed(0)
    assert analyze_bands(tone(hz), MEL_44K).tonality[0, 5:-5, band_of(hz)].min() > 0.95
    noise = analyze_bands(torch.randn(1, 100 * 512) * 0.1, MEL_44K)
    assert noise.tonality.mean() < 0.1
    assert noise.tonality[..., 60:].mean() < 0.01


def test_a_sine_at_the_right_place_costs_less_than_one_beside_it() -> None:
    bands = analyze_bands(tone(440.0), MEL_44K)
    right = bands.hz[..., :96]
    assert sine_loss(right, bands) == 0
    wrong = right.clone()
    wrong[..., band_of(440.0)] += 10
    assert sine_loss(wrong, bands) > 0


def test_a_frequency_that_nobody_hears_costs_nothing() -> None:
    bands = analyze_bands(tone(440.0), MEL_44K)
    wrong = bands.hz.clone()
    wrong[..., band_of(8000.0)] += 200
    # not nothing at all: where the tone is reflected at its ends, it is heard everywhere
    assert sine_loss(wrong, bands) < 0.01 * sine_loss(bands.hz + 200, bands)


def test_a_tone_wants_a_sine_and_noise_wants_noise() -> None:
    torch.manual_seed(0)
    full, none = torch.ones(1, 40, 96), torch.zeros(1, 40, 96)
    bell = analyze_bands(tone(440.0), MEL_44K)
    rain = analyze_bands(torch.randn(1, 40 * 512) * 0.1, MEL_44K)
    at_tone = torch.zeros(1, 40, 96)
    at_tone[..., band_of(440.0)] = 1
    assert share_loss(at_tone, none, bell) < share_loss(none, at_tone, bell)
    assert share_loss(none, full, rain) < 0.3 * share_loss(full, none, rain)


def test_silence_costs_nothing_and_has_a_finite_gradient() -> None:
    bands = analyze_bands(torch.zeros(1, 20 * 512), MEL_44K)
    hz = torch.full((1, 20, 96), 500.0, requires_grad=True)
    loss = sine_loss(hz, bands) + share_loss(hz / 1000, hz / 1000, bands)
    loss.backward()
    assert loss == 0
    assert hz.grad is not None
    assert hz.grad.isfinite().all()
