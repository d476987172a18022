import torch

from resonate_audio.flow.path import noised, velocity_target

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
