import math

import torch

from resonate_audio.training.codec.vae_loss import vae_loss
from resonate_audio.training.codec.vocoder_loss import vocoder_loss

RATE_HZ = 16_000


def test_a_standard_normal_posterior_costs_nothing() -> None:
    mel = torch.randn(2, 8, 6)
    loss = vae_loss(mel, mel, torch.zeros(2, 3, 4), torch.ones(2, 3, 4), kl_weight=1.0)
    assert loss.total.item() == 0


def test_the_kl_term_is_the_closed_form_of_two_normals() -> None:
    mel = torch.zeros(1, 2, 2)
    mean, std = torch.full((1, 2, 2), 0.7), torch.full((1, 2, 2), 0.5)
    loss = vae_loss(mel, mel, mean, std, kl_weight=1.0)
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(normal(0.7, 0.5), normal(0.0, 1.0)).item()
    assert math.isclose(loss.kl.item(), exact, rel_tol=1e-6)


def test_a_constant_offset_costs_its_size_and_no_detail() -> None:
    mel = torch.randn(1, 5, 7)
    one = torch.ones(1, 2, 2)
    loss = vae_loss(mel + 0.25, mel, 0 * one, one, kl_weight=0.0)
    torch.testing.assert_close(loss.total, torch.tensor(0.25))
    assert loss.detail.item() < 1e-6


def test_equal_waveforms_have_no_distance() -> None:
    wave = torch.randn(2, 8192) * 0.1
    loss = vocoder_loss(wave, wave, RATE_HZ)
    assert loss.log_magnitude == loss.convergence == loss.bands == 0
    assert loss.complex_error < 1e-3


def test_halving_the_level_costs_log_two_in_magnitude_and_a_half_in_convergence() -> None:
    wave = torch.randn(1, 8192) * 0.3
    loss = vocoder_loss(wave / 2, wave, RATE_HZ)
    two = torch.tensor(math.log(2))
    torch.testing.assert_close(loss.log_magnitude, two, rtol=0.02, atol=0)
    torch.testing.assert_close(loss.bands, two, rtol=0.02, atol=0)
    torch.testing.assert_close(loss.convergence, torch.tensor(0.5), rtol=0.01, atol=0)


def test_bands_forgive_the_chance_of_single_cells() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(2, 1, 32_768) * 0.1
    loss = vocoder_loss(one, other, RATE_HZ, sizes=[1024])
    assert loss.bands < 0.75 * loss.log_magnitude


def test_noise_is_cheapest_at_the_level_of_the_recording_and_where_it_varies() -> None:
    torch.manual_seed(0)
    recorded, one, other = torch.randn(3, 1, 32_768) * 0.1

    def cost(level: float, second: torch.Tensor) -> float:
        loss = vocoder_loss(level * one, recorded, RATE_HZ, second=level * second)
        return loss.log_magnitude.item()

    assert cost(1.0, other) < min(cost(0.7, other), cost(1.4, other))
    # d(y, x) = d(y', x) = d(y, y') for three draws of one noise, so half is left
    assert math.isclose(cost(1.0, other), 0.5 * cost(1.0, one), rel_tol=0.02)


def test_only_the_complex_term_hears_a_sign_flip() -> None:
    wave = torch.randn(1, 8192) * 0.3
    loss = vocoder_loss(-wave, wave, RATE_HZ)
    assert loss.log_magnitude.item() < 1e-4
    assert loss.convergence.item() < 1e-4
    torch.testing.assert_close(loss.complex_error, torch.tensor(2.0), rtol=0.1, atol=0)
    assert vocoder_loss(-wave, wave, RATE_HZ, with_phase=False).complex_error == 0


def test_what_lies_far_below_the_loudest_does_not_count() -> None:
    times = torch.arange(8192) / RATE_HZ
    tone = 0.5 * (2 * math.pi * 1000 * times).sin()[None]
    hiss = torch.randn(1, 8192) * 1e-5
    assert vocoder_loss(tone + hiss, tone, RATE_HZ).log_magnitude < 0.05


def test_silence_has_a_finite_gradient() -> None:
    predicted = torch.zeros(1, 8192, requires_grad=True)
    loss = vocoder_loss(predicted, torch.zeros(1, 8192), RATE_HZ)
    (loss.log_magnitude + loss.convergence + loss.bands + loss.complex_error).backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()
