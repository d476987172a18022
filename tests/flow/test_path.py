import pytest
import torch

from resonate_audio.flow.path import noised, renoised, velocity_target

DATA = torch.tensor([[[2.0, -1.0]]])
NOISE = torch.tensor([[[-4.0, 3.0]]])


def test_noise_level_zero_is_data() -> None:
    torch.testing.assert_close(noised(DATA, NOISE, torch.zeros(1)), DATA)


def test_noise_level_one_is_noise() -> None:
    torch.testing.assert_close(noised(DATA, NOISE, torch.ones(1)), NOISE)


def test_each_row_has_its_own_noise_level() -> None:
    z = noised(DATA.expand(2, 1, 2), NOISE.expand(2, 1, 2), torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(z, torch.tensor([[[0.5, 0.0]], [[-1.0, 1.0]]]))


def test_velocity_is_the_slope_of_the_path() -> None:
    later, earlier = (noised(DATA, NOISE, torch.tensor([t])) for t in (0.75, 0.25))
    torch.testing.assert_close((later - earlier) / 0.5, velocity_target(DATA, NOISE))


@pytest.mark.parametrize(("level", "higher"), [(0.0, 0.4), (0.3, 0.8), (0.6, 1.0), (0.5, 0.5)])
def test_renoising_gives_the_path_at_the_higher_level(level: float, higher: float) -> None:
    data = torch.full((4, 2000, 3), 2.0)
    first, fresh = torch.randn(2, 4, 2000, 3, generator=torch.Generator().manual_seed(0))
    z = renoised(noised(data, first, torch.full((4,), level)), fresh, level, higher)
    assert z.mean().item() == pytest.approx((1 - higher) * 2.0, abs=0.02)
    assert z.std().item() == pytest.approx(higher, abs=0.02)


def test_renoising_to_the_same_level_adds_nothing() -> None:
    torch.testing.assert_close(renoised(DATA, NOISE, 0.3, 0.3), DATA)
