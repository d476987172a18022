"""The resampler of paper mode: its formula's closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from resonate_audio.evaluation.scores.sinc_resample import sinc_resample


def sine(hz: float, rate_hz: int, num_samples: int) -> Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(num_samples) / rate_hz)[None]


@pytest.mark.parametrize(("old", "new"), [(44_100, 16_000), (16_000, 44_100), (48_000, 16_000)])
def test_a_tone_that_both_rates_hold_keeps_its_samples(old: int, new: int) -> None:
    given = sinc_resample(sine(500, old, old // 4), old, new)
    assert given.shape == (1, math.ceil(old // 4 * new / old))
    expected = sine(500, new, given.shape[1])
    torch.testing.assert_close(given[:, 200:-200], expected[:, 200:-200], atol=5e-3, rtol=0)


def test_a_tone_above_the_new_rate_is_gone() -> None:
    assert (
        sinc_resample(sine(15_000, 44_100, 11_025), 44_100, 16_000)[:, 200:-200].abs().max() < 0.02
    )


def test_one_sample_becomes_the_kernel_of_the_formula() -> None:
    click = torch.zeros(1, 400)
    click[0, 200] = 1
    given = sinc_resample(click, 2, 1)[0]
    cutoff = 0.99
    for place in range(200):
        turns = cutoff * (place - 100)  # at half the rate, in samples of the new rate
        window = math.cos(math.pi * turns / 12) ** 2 if abs(turns) < 6 else 0.0
        sinc = math.sin(math.pi * turns) / (math.pi * turns) if turns else 1.0
        assert float(given[place]) == pytest.approx(cutoff / 2 * sinc * window, abs=1e-6)


def test_equal_rates_change_nothing() -> None:
    samples = sine(500, 16_000, 100)
    assert sinc_resample(samples, 16_000, 16_000) is samples
