import pytest
import torch
from drawn import draw

from resonate_audio.model.winograd import transform_weight, winograd_conv


def direct(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.conv1d(x.mT, weight, padding=1).mT


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5, 8, 431])
def test_any_length_gives_what_the_direct_convolution_gives(num_frames: int) -> None:
    x, weight = draw(2, num_frames, 6), draw(5, 6, 3, seed=1)
    torch.testing.assert_close(
        winograd_conv(x, transform_weight(weight)), direct(x, weight), atol=5e-5, rtol=0
    )


def test_at_full_width_the_error_is_float32_rounding() -> None:
    x, weight = draw(1, 100, 448), draw(64, 448, 3, seed=1)
    exact = direct(x.double(), weight.double())
    error = (winograd_conv(x, transform_weight(weight)) - exact).abs().max() / exact.abs().max()
    assert error < 3e-6


def test_a_filter_that_only_looks_back_shifts_the_frames() -> None:
    back = transform_weight(torch.tensor([[[1.0, 0.0, 0.0]]]))
    frames = torch.arange(1.0, 8.0)[None, :, None]
    out = winograd_conv(frames, back).flatten()
    torch.testing.assert_close(out, torch.arange(7.0), atol=1e-5, rtol=0)


def test_rows_do_not_leak_into_each_other() -> None:
    x = draw(2, 6, 3)
    weight = transform_weight(draw(3, 3, 3, seed=1))
    torch.testing.assert_close(winograd_conv(x, weight)[1:], winograd_conv(x[1:], weight))


def test_in_bfloat16_a_single_layer_loses_a_few_times_what_the_direct_form_loses() -> None:
    x, weight = draw(1, 64, 256), draw(32, 256, 3, seed=1)
    exact = direct(x, weight)
    ours = winograd_conv(x.bfloat16(), transform_weight(weight).bfloat16()) - exact
    plain = direct(x.bfloat16(), weight.bfloat16()).float() - exact
    assert ours.std() < 4 * plain.std()
