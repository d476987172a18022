import pytest
import torch
from pydantic import ValidationError

from resonate_audio.core.errors import ShapeError
from resonate_audio.model.linear_vae import LinearVAE, LinearVAEConfig, build_vae
from resonate_audio.model.vae import MelVAE, VAEConfig

HIGH = torch.full((3,), 99.0)
CONFIG = LinearVAEConfig(num_bands=3, latent_channels=2, hops_per_frame=2)


def factor_model(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean, loadings and noise variance of patches of six values with two factors."""
    loadings = torch.randn(6, 2, generator=generator)
    return torch.randn(6, generator=generator), loadings, 0.05


def fitted() -> tuple[LinearVAE, torch.Tensor, torch.Tensor, float]:
    mean, loadings, noise = factor_model(torch.Generator().manual_seed(3))
    vae = LinearVAE(CONFIG)
    vae.fit(mean, loadings @ loadings.T + noise * torch.eye(6), floor=-9.0, ceiling=HIGH)
    return vae, mean, loadings, noise


def test_the_fit_finds_the_noise_and_the_factors_of_a_known_model() -> None:
    vae, _, loadings, noise = fitted()
    torch.testing.assert_close(vae.noise_variance, torch.tensor(noise), rtol=1e-4, atol=0)
    weight = vae.directions.T * vae.gains()
    torch.testing.assert_close(weight @ weight.T, loadings @ loadings.T, rtol=1e-4, atol=1e-4)


def test_the_posterior_is_the_one_of_a_linear_gaussian_model() -> None:
    vae, mean, _, noise = fitted()
    weight = (vae.directions.T * vae.gains()).double()
    x = torch.randn(6, generator=torch.Generator().manual_seed(5))
    precision = torch.eye(2, dtype=torch.float64) + weight.T @ weight / noise
    exact = torch.linalg.solve(precision, weight.T @ (x - mean).double() / noise)
    posterior = vae.encode(x.view(1, 2, 3).transpose(1, 2))
    torch.testing.assert_close(posterior.mean[0, 0], exact.float(), rtol=1e-3, atol=1e-4)
    variance = torch.linalg.inv(precision).diagonal().float()
    torch.testing.assert_close(posterior.std[0, 0] ** 2, variance, rtol=1e-3, atol=1e-5)


def test_latents_of_the_model_have_unit_variance() -> None:
    vae, mean, loadings, noise = fitted()
    generator = torch.Generator().manual_seed(7)
    factors = torch.randn(200_000, 2, generator=generator)
    patches = mean + factors @ loadings.T
    patches = patches + noise**0.5 * torch.randn(patches.shape, generator=generator)
    mel = patches.view(1, -1, 3).transpose(1, 2)
    sampled = vae.encode(mel).sample(generator)
    torch.testing.assert_close(sampled.var(dim=1), torch.ones(1, 2), rtol=0.02, atol=0)


def test_decoding_never_goes_below_the_floor_of_the_mels() -> None:
    vae, *_ = fitted()
    vae.floor.fill_(0.0)
    assert vae.decode(torch.full((1, 4, 2), -50.0)).min() == 0


def test_decoding_never_goes_above_the_loudest_value_of_a_band() -> None:
    vae, *_ = fitted()
    vae.ceiling.copy_(torch.tensor([0.5, 1.0, 2.0]))
    loudest = vae.decode(50 * torch.randn(1, 200, 2)).amax(dim=(0, 2))
    torch.testing.assert_close(loudest, vae.ceiling)


def test_a_patch_keeps_its_hops_in_order() -> None:
    vae = LinearVAE(LinearVAEConfig(num_bands=3, latent_channels=5, hops_per_frame=2))
    vae.fit(
        torch.zeros(6), torch.diag(torch.tensor([6.0, 5, 4, 3, 2, 1e-6])), floor=-99.0, ceiling=HIGH
    )
    mel = torch.arange(1.0, 13.0).view(1, 4, 3).transpose(1, 2)
    decoded = vae.decode(vae.encode(mel).mean)
    torch.testing.assert_close(decoded[0, :, :].T.flatten()[:5], mel[0].T.flatten()[:5])


def test_hops_beyond_whole_frames_are_dropped() -> None:
    assert LinearVAE(CONFIG).encode(torch.zeros(1, 3, 7)).mean.shape == (1, 3, 2)


def test_less_than_a_frame_is_refused() -> None:
    with pytest.raises(ShapeError, match="needs 2"):
        LinearVAE(CONFIG).encode(torch.zeros(1, 3, 1))


def test_as_many_channels_as_values_are_refused() -> None:
    with pytest.raises(ValidationError, match="fewer than"):
        LinearVAEConfig(num_bands=3, latent_channels=6, hops_per_frame=2)


def test_the_configuration_names_the_network() -> None:
    assert isinstance(build_vae(CONFIG), LinearVAE)
    assert isinstance(build_vae(VAEConfig(num_bands=4, latent_channels=2, hidden=4)), MelVAE)


def test_what_lies_far_below_the_loudest_cell_is_lifted_before_encoding() -> None:
    vae = LinearVAE(CONFIG.model_copy(update={"quiet_range": 3.0}))
    mel = torch.tensor([[[-9.0, 0.0], [-1.0, -2.0], [-3.5, -2.5]]])
    lifted = torch.tensor([[[-3.0, 0.0], [-1.0, -2.0], [-3.0, -2.5]]])
    torch.testing.assert_close(vae.lift(mel), lifted)
    assert torch.equal(vae.encode(mel).mean, vae.encode(lifted).mean)
    assert not torch.equal(LinearVAE(CONFIG).encode(mel).mean, vae.encode(mel).mean)


def test_each_row_has_its_own_loudest_cell() -> None:
    vae = LinearVAE(CONFIG.model_copy(update={"quiet_range": 3.0}))
    mel = torch.randn(2, 3, 8) * 4
    mel[1] -= 20
    torch.testing.assert_close(vae.encode(mel).mean[1:], vae.encode(mel[1:]).mean)
