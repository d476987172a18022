import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from resonate_audio.model.antialiased_snake import (
    CHUNK_ELEMENTS,
    AntialiasedSnake,
    downsample_phases,
    kaiser_sinc_filter,
    snake_,
    upsample_phases,
)

TAPS = kaiser_sinc_filter()


def signal(rows: int, channels: int, length: int) -> Tensor:
    return torch.randn(rows, channels, length, generator=torch.Generator().manual_seed(0))


def random_activation(channels: int) -> AntialiasedSnake:
    activation = AntialiasedSnake(channels)
    with torch.no_grad():
        activation.log_alpha.copy_(torch.linspace(-1, 1, channels))
        activation.log_beta.copy_(torch.linspace(1, -1, channels))
    return activation


def test_the_filter_is_symmetric_with_unit_sum() -> None:
    torch.testing.assert_close(TAPS, TAPS.flip(0))
    assert TAPS.sum() == pytest.approx(1)


def test_snake_adds_a_squared_sine_over_beta() -> None:
    x = torch.tensor([[[math.pi / 4]]])
    out = snake_(x.clone(), torch.tensor([[2.0]]), torch.tensor([[0.25]]))
    torch.testing.assert_close(out, x + 0.25)


def test_a_constant_is_activated_as_if_there_were_no_filters() -> None:
    x = torch.full((1, 1, 20), 0.7)
    torch.testing.assert_close(AntialiasedSnake(1)(x), x + math.sin(0.7) ** 2)


def test_phases_are_zero_insertion_and_the_whole_filter() -> None:
    x = signal(2, 3, 11)
    even, odd = upsample_phases(x, TAPS.tolist())
    kernel = TAPS.expand(3, 1, -1)
    padded = F.pad(x, (5, 5), mode="replicate")
    whole = 2 * F.conv_transpose1d(padded, kernel, stride=2, groups=3)[..., 15:-15]
    torch.testing.assert_close(torch.stack([even, odd], dim=-1).flatten(2), whole)


def test_halving_filters_the_interleaved_signal() -> None:
    even, odd = signal(2, 3, 9), signal(2, 3, 9).flip(-1)
    padded = F.pad(torch.stack([even, odd], dim=-1).flatten(2), (5, 6), mode="replicate")
    whole = F.conv1d(padded, TAPS.expand(3, 1, -1), stride=2, groups=3)
    torch.testing.assert_close(downsample_phases(even, odd, TAPS.tolist()), whole)


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
def test_chunks_of_channels_do_not_change_the_result(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    activation, x = random_activation(7), signal(2, 7, 13)
    expected = activation(x)
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", chunk)
    assert torch.equal(activation(x), expected)


def test_it_leaves_its_input_alone_unless_told_otherwise() -> None:
    activation, x = random_activation(3), signal(1, 3, 13)
    before = x.clone()
    result = activation(x)
    assert torch.equal(x, before)
    assert activation(x, in_place=True) is x
    assert torch.equal(x, result)


def test_half_precision_is_activated_in_float32() -> None:
    activation, x = random_activation(3), signal(1, 3, 13).bfloat16()
    assert torch.equal(activation(x), activation(x.float()).bfloat16())


def test_a_harmonic_above_nyquist_folds_back_less() -> None:
    """The second harmonic of 0.35 of the rate lies at 0.7 and folds to 0.3."""
    x = 0.5 * torch.sin(2 * math.pi * 0.35 * torch.arange(2000.0))[None, None]
    plain = snake_(x.clone(), torch.ones(1, 1), torch.ones(1, 1))
    folded = [
        torch.fft.rfft((y - y.mean()).flatten()).abs()[600].item()
        for y in (plain, AntialiasedSnake(1)(x))
    ]
    assert folded[1] < 0.25 * folded[0]
