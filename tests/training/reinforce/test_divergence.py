import pytest
import torch
from drawn import draw_double
from torch.distributions import Normal, kl_divergence

from resonate_audio.training.reinforce.divergence import (
    gaussian_kl,
    norm_ratio,
    row_mean_square,
    velocity_distance,
)
from resonate_audio.training.reinforce.replay import pull_from


def test_the_divergence_is_that_of_two_normals_per_dimension() -> None:
    mean, other, std = (
        draw_double(3, 5, 2),
        draw_double(3, 5, 2, seed=1),
        torch.tensor([0.1, 0.5, 2.0]).double(),
    )
    scale = std[:, None, None].expand_as(mean)
    expected = kl_divergence(Normal(mean, scale), Normal(other, scale)).mean(dim=(1, 2))
    torch.testing.assert_close(gaussian_kl(mean, other, std), expected)


def test_a_step_without_noise_diverges_by_nothing_and_has_no_gradient() -> None:
    mean = draw_double(1, 3, 2).requires_grad_()
    divergence = gaussian_kl(mean, draw_double(1, 3, 2, seed=1), torch.zeros(1).double())
    divergence.sum().backward()
    assert divergence.item() == 0
    assert mean.grad is not None
    assert mean.grad.abs().max() == 0


def test_gradients_agree_with_finite_differences() -> None:
    other, std = draw_double(2, 3, 2, seed=1), torch.tensor([0.3, 1.5]).double()
    start = draw_double(2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda mean: gaussian_kl(mean, other, std), start)
    assert torch.autograd.gradcheck(lambda v: velocity_distance(v, other), start)


def test_a_velocity_off_by_two_is_four_away() -> None:
    v = draw_double(2, 3, 4)
    torch.testing.assert_close(velocity_distance(v, v + 2), torch.full((2,), 4.0).double())


def test_a_velocity_of_twice_the_size_is_two_times_another() -> None:
    v = draw_double(2, 3, 4)
    torch.testing.assert_close(norm_ratio(2 * v, v), torch.full((2,), 2.0).double())
    assert torch.autograd.gradcheck(
        lambda x: norm_ratio(x, v), draw_double(2, 3, 4).requires_grad_()
    )


def test_a_network_that_begins_with_zeros_is_as_large_as_itself() -> None:
    zeros = torch.zeros(2, 3, 4, requires_grad=True)
    norm_ratio(zeros, zeros.detach()).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.abs().max() == 0


def test_the_hinge_pulls_on_what_is_larger_than_the_reference_alone() -> None:
    """Its gradient is λ·v / (‖v‖·‖v_ref‖) a row, as that of the norm is v / ‖v‖."""
    reference = draw_double(2, 3, 4, seed=1)
    factors = torch.tensor([0.9, 1.5]).double()
    v = (factors[:, None, None] * reference.roll(1, dims=1)).requires_grad_()
    pull = pull_from(v, reference, 0.0, norm_guard=0.2)
    torch.testing.assert_close(pull.loss.detach(), torch.tensor(0.2 * 0.5 / 2).double())
    torch.testing.assert_close(pull.measured["velocity_norm"].detach(), factors.mean())
    pull.loss.backward()  # type: ignore[no-untyped-call]
    assert v.grad is not None
    assert v.grad[0].abs().max() == 0
    expected = 0.2 * v[1].detach() / v[1].detach().norm() / reference[1].norm() / 2
    torch.testing.assert_close(v.grad[1], expected)


def test_half_precision_is_squared_in_float32() -> None:
    tiny = torch.full((1, 2, 2), 1e-3, dtype=torch.float16)
    assert row_mean_square(tiny).item() == pytest.approx(1e-6, rel=1e-3)
