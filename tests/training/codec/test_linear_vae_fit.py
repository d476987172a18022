import torch

from resonate_audio.model.linear_vae import LinearVAE, LinearVAEConfig
from resonate_audio.training.codec.linear_vae import fit_linear_vae


def test_a_fit_in_pieces_is_the_fit_of_all_patches() -> None:
    mels = torch.randn(10, 3, 8, generator=torch.Generator().manual_seed(0)) * 2 + 5
    config = LinearVAEConfig(num_bands=3, latent_channels=2, hops_per_frame=2)
    pieces, whole = LinearVAE(config), LinearVAE(config)
    assert fit_linear_vae(pieces, mels.split(3)) == 40
    patches = mels.transpose(1, 2).reshape(40, 6)
    whole.fit(
        patches.mean(0), torch.cov(patches.T, correction=0), float(mels.min()), mels.amax((0, 2))
    )
    torch.testing.assert_close(pieces.variances, whole.variances, rtol=1e-4, atol=1e-4)
    same = (pieces.directions * whole.directions).sum(1).abs()
    torch.testing.assert_close(same, torch.ones(2), rtol=1e-3, atol=0)


def test_floor_and_ceiling_are_the_quietest_and_loudest_values_seen() -> None:
    model = LinearVAE(LinearVAEConfig(num_bands=3, latent_channels=2, hops_per_frame=2))
    loud = torch.zeros(1, 3, 4)
    loud[0, 1, 2] = 7.0
    fit_linear_vae(model, [loud, torch.randn(2, 3, 4).clamp(-1, 1), torch.full((1, 3, 4), -5.0)])
    assert model.floor == -5
    assert model.ceiling[1] == 7
