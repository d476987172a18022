import math

import pytest
import torch
from pydantic import ValidationError

from resonate_audio.core.errors import ShapeError
from resonate_audio.model.vae import (
    MelVAE,
    Posterior,
    VAEConfig,
    mp_silu,
    mp_sum,
    unit_channels,
    unit_filters,
)

HALF = VAEConfig(num_bands=5, latent_channels=3, hidden=4)
QUARTER = HALF.model_copy(update={"down_levels": (0, 1)})
BOTH = pytest.mark.parametrize("config", [HALF, QUARTER], ids=["half", "quarter"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(config: VAEConfig = HALF) -> MelVAE:
    return MelVAE(config, seeded())


def test_filters_get_unit_norm() -> None:
    weight = 7 * torch.randn(6, 5, 3, generator=seeded())
    norms = unit_filters(weight).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(6), atol=2e-4, rtol=0)


def test_channels_get_unit_mean_square() -> None:
    x = unit_channels(3 * torch.randn(2, 16, 4, generator=seeded()))
    torch.testing.assert_close(x.square().mean(dim=1), torch.ones(2, 4), atol=1e-3, rtol=0)


def test_silence_stays_silence() -> None:
    assert unit_channels(torch.zeros(1, 4, 2)).abs().max() == 0


def test_activation_keeps_unit_mean_square() -> None:
    x = torch.randn(1_000_000, generator=seeded())
    assert mp_silu(x).square().mean().sqrt() == pytest.approx(1, abs=5e-3)


def test_residual_sum_of_independent_signals_keeps_unit_variance() -> None:
    old, new = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert mp_sum(old, new).norm() == pytest.approx(1)
    assert mp_sum(old, new)[1] == pytest.approx(0.3 / math.hypot(0.7, 0.3))


@BOTH
@pytest.mark.parametrize("num_hops", [4, 8, 9, 11])
def test_whole_latent_frames_are_encoded_and_an_odd_rest_is_dropped(
    config: VAEConfig, num_hops: int
) -> None:
    mean = tiny(config).encode(torch.randn(2, 5, num_hops, generator=seeded())).mean
    assert mean.shape == (2, num_hops // config.hops_per_frame, 3)


@BOTH
def test_a_frame_decodes_to_its_hops(config: VAEConfig) -> None:
    mel = tiny(config).decode(torch.randn(2, 6, 3, generator=seeded()))
    assert mel.shape == (2, 5, 6 * config.hops_per_frame)


def test_one_row_does_not_move_another() -> None:
    latents = torch.randn(2, 6, 3, generator=seeded())
    louder = latents * torch.tensor([1.0, 5.0])[:, None, None]
    vae = tiny()
    torch.testing.assert_close(vae.decode(latents)[0], vae.decode(louder)[0])


def test_the_scale_of_raw_weights_has_no_effect() -> None:
    small, large = tiny(), tiny()
    with torch.no_grad():
        large.decoder.conv_in.weight *= 10
    latents = torch.randn(1, 4, 3, generator=seeded())
    torch.testing.assert_close(small.decode(latents), large.decode(latents), atol=2e-3, rtol=0)


def test_folding_does_not_change_the_output() -> None:
    vae, latents = tiny(), torch.randn(1, 4, 3, generator=seeded())
    raw = vae.decode(latents)
    vae.fold_weight_norm()
    torch.testing.assert_close(vae.decode(latents), raw)


def test_folding_again_does_nothing() -> None:
    vae = tiny()
    vae.fold_weight_norm()
    once = vae.decoder.conv_in.weight.clone()
    vae.fold_weight_norm()
    assert torch.equal(vae.decoder.conv_in.weight, once)


def test_folded_weights_stay_folded_through_a_state_dict() -> None:
    vae, loaded = tiny(), MelVAE(HALF, seeded(1))
    vae.fold_weight_norm()
    loaded.load_state_dict(vae.state_dict())
    loaded.fold_weight_norm()
    assert torch.equal(loaded.decoder.conv_in.weight, vae.decoder.conv_in.weight)


def test_raw_weights_stay_raw_through_a_state_dict() -> None:
    folded = MelVAE(HALF, seeded(1))
    folded.fold_weight_norm()
    folded.load_state_dict(tiny().state_dict())
    latents = torch.randn(1, 4, 3, generator=seeded())
    torch.testing.assert_close(folded.decode(latents), tiny().decode(latents))


@BOTH
def test_every_parameter_learns(config: VAEConfig) -> None:
    vae, mel = tiny(config), torch.randn(1, 5, 8, generator=seeded())
    posterior = vae.encode(mel)
    loss = (vae.decode(posterior.sample(seeded(1))) - mel).square().mean() + posterior.kl().mean()
    loss.backward()
    still = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_the_gradient_leaves_the_norm_of_a_filter_alone() -> None:
    vae = tiny()
    vae.decode(torch.randn(1, 4, 3, generator=seeded())).square().sum().backward()
    weight = vae.decoder.conv_in.weight
    assert weight.grad is not None
    along = (weight * weight.grad).flatten(1).sum(dim=1)
    across = weight.flatten(1).norm(dim=1) * weight.grad.flatten(1).norm(dim=1)
    assert (along.abs() < 1e-3 * across).all()


def test_band_statistics_normalise_and_come_back() -> None:
    vae, mel = tiny(), torch.randn(1, 5, 8, generator=seeded())
    mean, std = torch.arange(5.0), torch.arange(1.0, 6.0)
    vae.set_data_statistics(mean, std)
    normal = (mel - mean[:, None]) / std[:, None]
    latents = vae.encode(mel).mean
    torch.testing.assert_close(latents, vae.encode_normalized(normal).mean)
    expected = vae.decode_normalized(latents) * std[:, None] + mean[:, None]
    torch.testing.assert_close(vae.decode(latents), expected)


@BOTH
@pytest.mark.parametrize("tile_frames", [7, 30])
def test_tiles_decode_to_the_same_mel(config: VAEConfig, tile_frames: int) -> None:
    vae, latents = tiny(config), torch.randn(2, 90, 3, generator=seeded())
    torch.testing.assert_close(
        vae.decode_tiled(latents, tile_frames), vae.decode(latents), atol=1e-5, rtol=0
    )


def test_attention_reaches_across_tiles() -> None:
    vae, latents = tiny(), torch.randn(1, 90, 3, generator=seeded())
    changed = latents.clone()
    changed[:, -1] += 3
    difference = vae.decode_tiled(changed, 10) - vae.decode_tiled(latents, 10)
    assert difference[..., 0].abs().max() > 1e-4


@BOTH
def test_the_stated_halo_is_the_reach(config: VAEConfig) -> None:
    decoder = tiny(config).decoder
    middle, halo = 40, decoder.halo_frames
    x = torch.randn(1, config.widths[-1], 80, generator=seeded(), requires_grad=True)
    hops = config.hops_per_frame
    frame = decoder.tail(x)[..., middle * hops : (middle + 1) * hops]
    (gradient,) = torch.autograd.grad(frame.square().sum(), x)
    reached = gradient[0].abs().sum(dim=0).nonzero().flatten()
    assert reached.min() == middle - halo
    assert reached.max() == middle + halo


def test_half_precision_weights_decode_half_precision_latents() -> None:
    vae = tiny().bfloat16()
    assert vae.decode(torch.randn(1, 4, 3, generator=seeded()).bfloat16()).dtype == torch.bfloat16


def test_kl_of_the_standard_normal_is_zero() -> None:
    zeros = torch.zeros(2, 4, 3)
    assert Posterior(zeros, zeros).kl().tolist() == [0, 0]


def test_kl_of_a_shifted_normal_is_half_the_squared_shift() -> None:
    zeros = torch.zeros(1, 4, 3)
    assert Posterior(zeros + 2, zeros).kl().item() == pytest.approx(2)


def test_a_sample_is_mean_plus_deviation_times_noise() -> None:
    mean, log_variance = torch.full((1, 4, 3), 5.0), torch.full((1, 4, 3), math.log(4.0))
    noise = torch.randn(1, 4, 3, generator=seeded(3))
    drawn = Posterior(mean, log_variance).sample(seeded(3))
    torch.testing.assert_close(drawn, 5 + 2 * noise)


def test_a_mel_shorter_than_a_frame_is_refused() -> None:
    with pytest.raises(ShapeError, match="needs 4"):
        tiny(QUARTER).encode(torch.zeros(1, 5, 3))


@pytest.mark.parametrize("levels", [(2,), (-1,), (0, 0)])
def test_levels_that_cannot_halve_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="down_levels"):
        VAEConfig(num_bands=5, latent_channels=3, hidden=4, down_levels=levels)
