import math

import torch

from resonate_audio.training.codec.vae_loss import vae_loss
from resonate_audio.training.codec.vocoder_loss import vocoder_loss


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
    wave = torch.randn(2, 4096) * 0.1
    assert vocoder_loss(wave, wave).total.item() < 1e-3


def test_halving_the_level_costs_log_two_in_magnitude_and_a_half_in_convergence() -> None:
    wave = torch.randn(1, 8192) * 0.3
    loss = vocoder_loss(wave / 2, wave)
    torch.testing.assert_close(loss.log_magnitude, torch.tensor(math.log(2)), rtol=0.01, atol=0)
    torch.testing.assert_close(loss.convergence, torch.tensor(0.5), rtol=0.01, atol=0)


def test_only_the_complex_term_hears_a_sign_flip() -> None:
    wave = torch.randn(1, 8192) * 0.3
    loss = vocoder_loss(-wave, wave)
    assert loss.log_magnitude.item() < 1e-4
    assert loss.convergence.item() < 1e-4
    torch.testing.assert_close(loss.complex_error, torch.tensor(2.0), rtol=0.1, atol=0)


def test_silence_has_a_finite_gradient() -> None:
    predicted = torch.zeros(1, 4096, requires_grad=True)
    vocoder_loss(predicted, torch.zeros(1, 4096)).total.backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()
