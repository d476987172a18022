import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from resonate_audio.model import bigvgan
from resonate_audio.model.bigvgan import BigVGAN, BigVGANConfig
from resonate_audio.model.presets import BIGVGAN_V1_16K, BIGVGAN_V2_44K

SMALL = BigVGANConfig(
    version=2,
    sample_rate_hz=1000,
    num_bands=6,
    initial_channels=16,
    upsample_rates=(4, 2),
    upsample_kernels=(8, 4),
    block_kernels=(3, 5),
    dilations=(1, 3),
)


def small(version: int = 2) -> BigVGAN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BigVGAN(SMALL.model_copy(update={"version": version}))


def mels(num_hops: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, 6, num_hops, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("version", [1, 2])
def test_every_hop_gives_its_samples_inside_one(version: int) -> None:
    wave = small(version)(30 * mels(7, rows=2))
    assert wave.shape == (2, 7 * 8)
    assert wave.abs().max() <= 1


@pytest.mark.parametrize("version", [1, 2])
def test_only_version_one_has_a_final_bias(version: int) -> None:
    assert (small(version).conv_post.bias is not None) == (version == 1)


def test_version_one_bends_what_version_two_cuts() -> None:
    one, two = small(1), small(2)
    one.load_state_dict({**two.state_dict(), "conv_post.bias": torch.zeros(1)})
    quiet = mels(5)
    torch.testing.assert_close(one(quiet), two(quiet).tanh())


def test_one_row_does_not_move_another() -> None:
    mel = mels(9, rows=2)
    torch.testing.assert_close(small()(mel)[:1], small()(mel[:1]))


def test_the_mel_is_left_alone() -> None:
    mel = mels(9)
    before = mel.clone()
    small()(mel)
    assert torch.equal(mel, before)


@pytest.mark.parametrize("tile_hops", [7, 31])
def test_tiles_give_the_same_samples(tile_hops: int) -> None:
    mel, vocoder = mels(110, rows=2), small()
    torch.testing.assert_close(
        vocoder.vocode_tiled(mel, tile_hops), vocoder(mel), atol=1e-6, rtol=0
    )


def test_a_long_mel_is_tiled_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    mel, vocoder = mels(150), small()
    whole, lengths = vocoder(mel), []
    vocoder.conv_pre.register_forward_hook(lambda _conv, given, _out: lengths.append(given[0]))
    monkeypatch.setattr(bigvgan, "BUFFER_BYTES", 60 * 4 * 4 * 8)
    torch.testing.assert_close(vocoder(mel), whole, atol=1e-6, rtol=0)
    assert len(lengths) > 1
    assert max(x.shape[-1] for x in lengths) <= 60


def test_no_sample_depends_on_hops_beyond_the_halo() -> None:
    mel, vocoder = mels(80), small()
    changed = mel.clone()
    changed[..., 40] += 5
    hops = (vocoder(changed) != vocoder(mel))[0].nonzero().flatten() // 8
    assert 40 - vocoder.halo_hops <= hops.min() < 40 < hops.max() <= 40 + vocoder.halo_hops
    assert hops.max() - hops.min() > vocoder.halo_hops


@pytest.mark.parametrize(("config", "halo"), [(BIGVGAN_V2_44K, 21), (BIGVGAN_V1_16K, 38)])
def test_the_halo_of_the_published_networks_is_bounded(config: BigVGANConfig, halo: int) -> None:
    assert config.halo_hops == halo


def test_half_precision_convolutions_stay_near_the_exact_wave() -> None:
    mel = mels(40)
    exact, rough = small()(mel), small().cast_convs(torch.bfloat16)(mel)
    assert rough.dtype == torch.float32
    assert (exact - rough).norm() < 0.05 * exact.norm()


def test_activations_stay_float32_when_convolutions_do_not() -> None:
    vocoder = small().cast_convs(torch.bfloat16)
    assert vocoder.act_post.log_alpha.dtype == torch.float32


@pytest.mark.parametrize(
    "change",
    [
        {"upsample_kernels": (8,)},
        {"upsample_kernels": (7, 4)},
        {"upsample_kernels": (2, 4)},
        {"initial_channels": 18},
        {"version": 3},
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BigVGANConfig(**{**SMALL.model_dump(), **change})
