import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from resonate_audio.audio.mel import MEL_44K, MelConfig, MelFrontEnd, mel_basis
from resonate_audio.model.parts_vocoder import (
    NOISE_BLOCK,
    FrameNoise,
    PartsVocoder,
    PartsVocoderConfig,
    envelope_guess,
)

SMALL = PartsVocoderConfig(
    sample_rate_hz=8000,
    num_bands=20,
    mel_n_fft=256,
    hop_samples=64,
    n_fft=128,
    dim=8,
    mlp_dim=16,
    dilations=(1, 2),
    num_sines=15,
)
FRAME_HOP = 32


def small() -> PartsVocoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PartsVocoder(SMALL).eval()


def mels(num_hops: int, rows: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 20, num_hops, generator=generator) - 4


def tone(hz: float, level: float, num_frames: int) -> Tensor:
    """What one sine of the vocoder sounds like, at a constant frequency and level."""
    vocoder = small()
    levels = torch.zeros(1, num_frames, 15)
    levels[..., 4] = level
    return vocoder.synthesize(vocoder.sine_spectra(torch.full_like(levels, hz), levels))[0]


def fitted_tone(wave: Tensor, hz: float) -> tuple[float, float]:
    """Amplitude of the sine of that frequency within a wave, and the largest rest."""
    turns = 2 * math.pi * hz * torch.arange(len(wave), dtype=torch.float64) / 8000
    basis = torch.stack([turns.cos(), turns.sin()], dim=1)
    solution = torch.linalg.lstsq(basis, wave.double()[:, None]).solution
    rest = wave - (basis @ solution)[:, 0]
    return float(solution.norm()), float(rest.abs().max())


@pytest.mark.parametrize("hz", [437.0, 1000.0, 1234.5])
def test_a_sine_that_no_multiple_of_the_hop_rate_hits_is_a_pure_tone(hz: float) -> None:
    wave = tone(hz, level=0.5, num_frames=400)[256:-256]
    amplitude, rest = fitted_tone(wave, hz)
    assert amplitude == pytest.approx(0.5, rel=0.01)
    assert rest < 0.02 * 0.5


def test_a_glide_keeps_its_level() -> None:
    vocoder = small()
    hz = torch.linspace(400, 700, 400)[None, :, None].expand(1, 400, 15)
    levels = torch.zeros(1, 400, 15)
    levels[..., 0] = 0.5
    wave = vocoder.synthesize(vocoder.sine_spectra(hz, levels))[0, 256:-256]
    peaks = wave.unfold(0, 64, 64).abs().amax(1)
    assert peaks.max() < 0.51
    assert peaks.min() > 0.48


def test_the_frames_of_a_wave_sum_to_the_wave() -> None:
    wave = torch.rand(2, 20 * FRAME_HOP) - 0.5
    pad = (128 - FRAME_HOP) // 2
    padded = F.pad(wave, (pad, pad), mode="reflect")
    spectra = torch.stft(
        padded, 128, FRAME_HOP, window=torch.hann_window(128), center=False, return_complex=True
    )
    torch.testing.assert_close(small().synthesize(spectra.transpose(1, 2)), wave, atol=1e-5, rtol=0)


def test_noise_of_a_flat_gain_is_as_loud_as_the_noise_it_was_measured_on() -> None:
    vocoder = small()
    deviation = 0.1
    gain = deviation * vocoder.window.norm()  # root mean square of a bin of white noise
    drawn = FrameNoise(65).frames(0, 2000)[None]
    wave = vocoder.synthesize(vocoder._scaled(drawn) * gain)
    assert float(wave[:, 256:-256].std()) == pytest.approx(deviation, rel=0.05)


def test_an_untrained_vocoder_of_full_size_makes_noise_of_the_right_colour() -> None:
    torch.manual_seed(0)
    vocoder = PartsVocoder(PartsVocoderConfig(dim=16, mlp_dim=16, dilations=(1,))).eval()
    coloured = torch.randn(1, 128 * 512).cumsum(1)
    wave = 0.1 * (coloured - coloured.mean()) / coloured.std() + 0.01 * torch.randn(1, 128 * 512)
    front_end = MelFrontEnd(MEL_44K)
    mel = front_end(wave)
    with torch.no_grad():
        again = front_end(vocoder(mel))
    level = (again - mel)[..., 4:-4].mean(dim=2)
    assert level.abs().mean() < 0.35  # 3 dB, of bands that lie 40 dB apart
    assert float(mel.mean(2).max() - mel.mean(2).min()) > 4


def test_steady_noise_does_not_repeat_with_the_hop() -> None:
    vocoder = small()
    with torch.no_grad():
        wave = vocoder(torch.full((1, 20, 400), -2.0))[0]
    hops = wave.unfold(0, 64, 64)[8:-8]
    hops = hops - hops.mean(0)
    alike = F.cosine_similarity(hops[1:], hops[:-1]).mean()
    assert alike.abs() < 0.15


def test_a_peak_is_read_alike_in_every_band() -> None:
    vocoder = small()
    torch.nn.init.normal_(vocoder.peaks.say.weight)
    mel = torch.zeros(1, 30, 20)
    mel[:, :, 8] = 2.0
    low = vocoder.peaks(mel)[0, 15, 8]
    torch.testing.assert_close(vocoder.peaks(mel.roll(5, 2) - 3)[0, 15, 13], low)
    assert not torch.allclose(vocoder.peaks(mel)[0, 15, 9], low)


@pytest.mark.parametrize("num_hops", [1, 2, 17])
def test_every_hop_gives_its_samples(num_hops: int) -> None:
    wave = small()(mels(num_hops, rows=2))
    assert wave.shape == (2, num_hops * 64)
    assert wave.isfinite().all()


def test_a_row_does_not_depend_on_the_batch() -> None:
    vocoder, mel = small(), mels(12, rows=3)
    torch.testing.assert_close(vocoder(mel)[2:], vocoder(mel[2:]), atol=1e-6, rtol=0)


def test_a_sound_is_the_same_every_time_and_while_training_never() -> None:
    vocoder, mel = small(), mels(12)
    assert torch.equal(vocoder(mel), vocoder(mel))
    vocoder.train()
    assert not torch.equal(vocoder(mel), vocoder(mel))


def test_a_longer_sound_begins_like_a_shorter_one() -> None:
    vocoder, mel = small(), mels(NOISE_BLOCK + 20)
    halo = 8
    short = vocoder(mel[..., :NOISE_BLOCK])[:, : (NOISE_BLOCK - halo) * 64]
    torch.testing.assert_close(vocoder(mel)[:, : short.shape[1]], short, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tile", [1, 11, 64, 89])
def test_tiles_give_the_same_samples(tile: int) -> None:
    vocoder, mel = small(), mels(90, rows=2)
    torch.nn.init.normal_(vocoder.peaks.say.weight)
    with torch.no_grad():
        vocoder.head.bias[-30:-15].normal_(generator=torch.Generator().manual_seed(1))
        whole = vocoder(mel)
    tiled = vocoder.vocode_tiled(mel, tile)
    torch.testing.assert_close(tiled, whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


def test_noise_goes_on_from_tile_to_tile() -> None:
    whole, parts = FrameNoise(3).frames(0, 700), FrameNoise(3)
    for start, stop in ((0, 10), (5, 300), (290, 291), (291, 700)):
        assert torch.equal(parts.frames(start, stop), whole[start:stop])


def test_a_long_sound_takes_the_memory_of_a_tile() -> None:
    """Counted: what a pass over so many hops would hold is never there at once."""
    vocoder, seen = small(), []
    vocoder.norm_in.register_forward_hook(lambda module, inputs, out: seen.append(out.shape[1]))
    vocoder.vocode_tiled(mels(1000), 50)
    assert max(seen) <= 50 + 2 * vocoder.halo_hops
    assert len(seen) == 20


def test_shares_are_amplitudes_against_what_the_mel_says() -> None:
    vocoder, mel = small(), mels(6)
    with torch.no_grad():
        vocoder.head.weight.zero_()
        vocoder.head.bias.zero_()
    parts = vocoder.parts(mel)
    torch.testing.assert_close(parts.noise_share, torch.ones(1, 6, 15))
    torch.testing.assert_close(parts.sine_share, torch.full((1, 6, 15), math.exp(-1.5)))


def test_everything_but_the_envelope_learns() -> None:
    vocoder = small().train()
    torch.nn.init.normal_(vocoder.peaks.say.weight)  # at zero it hides what is before it
    vocoder(mels(9)).square().mean().backward()
    still = [n for n, p in vocoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == ["envelope.weight", "envelope.bias"]


def test_an_extreme_mel_stays_finite() -> None:
    assert small()(torch.full((1, 20, 4), 100.0)).isfinite().all()


def test_half_precision_weights_give_float32_samples() -> None:
    assert small().bfloat16()(mels(4)).dtype == torch.float32


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("frames_per_hop", 3, "a hop of whole frames"),
        ("n_fft", 32, "at least twice as many"),
        ("mel_n_fft", 200, "mel_n_fft 200: expected a multiple of 128"),
        ("num_sines", 21, "num_sines 21: expected at most 20"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(field: str, value: int, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PartsVocoderConfig(**SMALL.model_dump() | {field: value})


@pytest.mark.parametrize("log", ["ln", "log10"])
def test_a_flat_spectrum_is_guessed_from_its_mel(log: Literal["ln", "log10"]) -> None:
    config = MelConfig(
        sample_rate_hz=1000, n_fft=64, hop_samples=16, num_bands=10, max_hz=500, log=log
    )
    weight, bias = envelope_guess(config)
    area = (5.0 * mel_basis(config).sum(dim=1)).float()
    mel = area.log() if log == "ln" else area.log10()
    torch.testing.assert_close(weight @ mel + bias, torch.full((33,), math.log(5.0)))


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_reading_peaks_by_blocks_changes_no_bit(rows: int) -> None:
    """Where a gradient is wanted, all hops are read at once."""
    vocoder, mel = small(), mels(75, rows).transpose(1, 2)
    torch.nn.init.normal_(vocoder.peaks.say.weight, generator=torch.Generator().manual_seed(1))
    whole = vocoder.peaks(mel)
    assert whole.requires_grad
    with torch.no_grad():
        assert torch.equal(vocoder.peaks(mel), whole.detach())
