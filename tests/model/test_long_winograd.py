import pytest
import torch
from drawn import draw
from torch import Tensor

from resonate_audio.model import long_winograd
from resonate_audio.model.long_winograd import long_conv, transform_filter


def directly(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[2] // 2)
    image = torch.nn.functional.conv1d(x.T[None], weight, padding=padding, dilation=dilation)
    return image[0].T


@pytest.mark.parametrize("num_taps", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("num_samples", [1, 4, 21, 60])
def test_it_is_the_convolution_exactly(num_taps: int, dilation: int, num_samples: int) -> None:
    x, weight = draw(num_samples, 3).double(), draw(2, 3, num_taps).double()
    got = long_conv(x, transform_filter(weight), num_taps, dilation)
    torch.testing.assert_close(got, directly(x, weight, dilation), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("num_taps", [7, 11])
def test_in_float32_it_errs_by_two_millionths_at_most(num_taps: int) -> None:
    x, weight = draw(500, 192), draw(192, 192, num_taps)
    exact = directly(x.double(), weight.double(), 3)
    error = (long_conv(x, transform_filter(weight), num_taps, 3) - exact).norm() / exact.norm()
    assert error < 2e-6


@pytest.mark.parametrize("stretch_elements", [1, 30, 100])
def test_stretches_are_convolved_like_the_whole(
    monkeypatch: pytest.MonkeyPatch, stretch_elements: int
) -> None:
    x, weight = draw(200, 5).double(), transform_filter(draw(4, 5, 11).double())
    whole = long_conv(x, weight, 11, 3)
    monkeypatch.setattr(long_winograd, "STRETCH_ELEMENTS", stretch_elements)
    torch.testing.assert_close(long_conv(x, weight, 11, 3), whole, atol=1e-12, rtol=0)
