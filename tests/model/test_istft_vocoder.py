import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from resonate_audio.audio.mel import MelFrontEnd, mel_basis
from resonate_audio.model.istft_vocoder import ISTFTVocoder, ISTFTVocoderConfig, envelope_guess

SMALL = ISTFTVocoderConfig(
    num_bands=10,
    dim=8,
    num_layers=2,
    mlp_dim=16,
    n_fft=64,
    hop_samples=16,
    sample_rate_hz=1000,
    num_refine=0,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(num_refine: int = 0) -> ISTFTVocoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ISTFTVocoder(SMALL.model_copy(update={"num_refine": num_refine})).eval()


def mels(num_hops: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, 10, num_hops, generator=seeded()) * 0.3 - 1


def true_spectrum(wave: Tensor) -> Tensor:
    """STFT on the frames that the mel front end measures."""
    padded = F.pad(wave, (SMALL.pad_samples,) * 2, mode="reflect")
    window = torch.hann_window(64)
    return torch.stft(padded, 64, 16, window=window, center=False, return_complex=True)


def inconsistency(vocoder: ISTFTVocoder, spectrum: Tensor) -> float:
    """Relative distance to the nearest spectrogram of any waveform."""
    nearest = vocoder._analyze(vocoder._overlap_add(spectrum))
    return ((nearest - spectrum).norm() / spectrum.norm()).item()


def test_the_frames_of_the_mel_front_end_sum_to_the_wave() -> None:
    wave = torch.rand(2, 20 * 16, generator=seeded()) - 0.5
    torch.testing.assert_close(small().synthesize(true_spectrum(wave)), wave, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_refine", [0, 3])
@pytest.mark.parametrize("num_hops", [1, 2, 17])
def test_every_hop_gives_its_samples(num_hops: int, num_refine: int) -> None:
    wave = small(num_refine)(mels(num_hops, rows=2))
    assert wave.shape == (2, num_hops * 16)
    assert wave.isfinite().all()


def test_a_flat_spectrum_is_guessed_from_its_mel() -> None:
    config = SMALL.mel_config()
    weight, bias = envelope_guess(config)
    mel = (5.0 * mel_basis(config).sum(dim=1)).log10().float()
    torch.testing.assert_close(weight @ mel + bias, torch.full((33,), math.log(5.0)))


def test_the_untrained_magnitude_is_near_the_mel_it_came_from() -> None:
    config = SMALL.mel_config()
    wave = torch.rand(1, 100 * 16, generator=seeded()) - 0.5
    mel = MelFrontEnd(config)(wave)
    magnitude, _ = small().spectrum(mel)
    again = (mel_basis(config).float() @ magnitude).log10()
    assert (again - mel).abs().mean() < 0.15


def test_the_spectrum_has_the_magnitude_beside_it() -> None:
    magnitude, spectrum = small().spectrum(mels(5))
    torch.testing.assert_close(spectrum.abs(), magnitude)


def test_refinement_keeps_the_magnitude() -> None:
    magnitude, spectrum = small().spectrum(mels(12))
    torch.testing.assert_close(small(4).refine(magnitude, spectrum).abs(), magnitude)


def test_refinement_leaves_a_consistent_spectrum_alone() -> None:
    spectrum = true_spectrum(torch.rand(1, 320, generator=seeded()) - 0.5)
    refined = small(3).refine(spectrum.abs(), spectrum)
    torch.testing.assert_close(refined, spectrum, atol=1e-3, rtol=0)


def test_refinement_makes_random_phases_agree() -> None:
    magnitude = true_spectrum(torch.rand(1, 640, generator=seeded()) - 0.5).abs()
    phase = torch.rand(magnitude.shape, generator=seeded(1)) * 2 * math.pi
    start = torch.polar(magnitude, phase)
    refined = small(30).refine(magnitude, start)
    assert inconsistency(small(), refined) < 0.5 * inconsistency(small(), start)


def test_momentum_agrees_better_than_plain_griffin_lim() -> None:
    magnitude = true_spectrum(torch.rand(1, 640, generator=seeded()) - 0.5).abs()
    start = torch.polar(magnitude, torch.zeros_like(magnitude))
    plain = small(30)
    plain.config = plain.config.model_copy(update={"momentum": 0.0})
    slow, fast = plain.refine(magnitude, start), small(30).refine(magnitude, start)
    assert inconsistency(plain, fast) < inconsistency(plain, slow)


def test_training_does_not_refine() -> None:
    vocoder, mel = small(3).train(), mels(6)
    torch.testing.assert_close(vocoder(mel), vocoder.synthesize(vocoder.spectrum(mel)[1]))


def test_every_parameter_learns() -> None:
    vocoder = small().train()
    vocoder(mels(9)).square().mean().backward()
    still = [n for n, p in vocoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize("num_refine", [0, 2])
def test_tiles_give_the_same_samples(num_refine: int) -> None:
    vocoder, mel = small(num_refine), mels(90, rows=2)
    torch.testing.assert_close(
        vocoder.vocode_tiled(mel, 11), vocoder(mel), atol=1e-5 * vocoder(mel).abs().max(), rtol=0
    )


@pytest.mark.parametrize("num_refine", [0, 2])
def test_no_sample_depends_on_hops_beyond_the_halo(num_refine: int) -> None:
    vocoder, mel = small(num_refine), mels(100)
    changed = mel.clone()
    changed[..., 50] += 1
    moved = (vocoder(changed) - vocoder(mel)).abs()[0] > 1e-7
    hops = moved.nonzero().flatten() // 16
    assert hops.min() >= 50 - vocoder.halo_hops
    assert hops.max() <= 50 + vocoder.halo_hops
    assert hops.max() - hops.min() > 8


def test_an_extreme_mel_stays_finite() -> None:
    assert small()(torch.full((1, 10, 4), 100.0)).isfinite().all()


def test_half_precision_weights_give_float32_samples() -> None:
    assert small().bfloat16()(mels(4)).dtype == torch.float32


@pytest.mark.parametrize("hop_samples", [33, 40, 15])
def test_frames_that_do_not_overlap_evenly_are_refused(hop_samples: int) -> None:
    with pytest.raises(ValidationError, match="hop_samples"):
        ISTFTVocoderConfig(n_fft=64, hop_samples=hop_samples)
