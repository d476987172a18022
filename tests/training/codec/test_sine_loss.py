import math

import pytest
import torch
from torch import Tensor

from resonate_audio.audio.mel import MEL_44K, mel_edges
from resonate_audio.training.codec.sine_loss import band_frequencies, sine_loss


def tone(hz: float, num_hops: int = 40) -> Tensor:
    times = torch.arange(num_hops * 512, dtype=torch.float64) / 44_100
    return (0.5 * (2 * math.pi * hz * times).sin()).float()[None]


def band_of(hz: float) -> int:
    return int((mel_edges(MEL_44K)[1:-1] - hz).abs().argmin())


@pytest.mark.parametrize("hz", [261.6, 440.0, 1500.0, 5000.0])
def test_the_frequency_of_a_tone_is_found_to_a_hertz(hz: float) -> None:
    found, _ = band_frequencies(tone(hz), MEL_44K)
    assert found.shape == (1, 40, 128)
    torch.testing.assert_close(found[0, 3:-3, band_of(hz)], torch.full((34,), hz), atol=1, rtol=0)


def test_a_sine_at_the_right_place_costs_less_than_one_beside_it() -> None:
    wave = tone(440.0)
    hz, _ = band_frequencies(wave, MEL_44K)
    right = hz[..., :96]
    assert sine_loss(right, wave, MEL_44K) == 0
    wrong = right.clone()
    wrong[..., band_of(440.0)] += 10
    assert sine_loss(wrong, wave, MEL_44K) > 0


def test_a_frequency_that_nobody_hears_costs_nothing() -> None:
    wave = tone(440.0)
    hz, _ = band_frequencies(wave, MEL_44K)
    wrong = hz.clone()
    wrong[..., band_of(8000.0)] += 200
    # the ends are left out: where the tone is reflected, it is heard everywhere
    assert sine_loss(wrong, wave, MEL_44K) < 0.01 * sine_loss(hz + 200, wave, MEL_44K)


def test_silence_costs_nothing_and_has_a_finite_gradient() -> None:
    wave = torch.zeros(1, 20 * 512)
    hz = torch.full((1, 20, 96), 500.0, requires_grad=True)
    loss = sine_loss(hz, wave, MEL_44K)
    loss.backward()
    assert loss == 0
    assert hz.grad is not None
    assert hz.grad.isfinite().all()
