import math

import pytest
import torch
from pydantic import ValidationError

from resonate_audio.audio.mel import MEL_16K, MEL_44K, MelConfig, MelFrontEnd, mel_basis
from resonate_audio.core.errors import ShapeError

BOTH = pytest.mark.parametrize("config", [MEL_16K, MEL_44K], ids=["16k", "44k"])


def sine(frequency_hz: float, amplitude: float, config: MelConfig) -> torch.Tensor:
    times = torch.arange(config.sample_rate_hz // 2) / config.sample_rate_hz
    return amplitude * torch.sin(2 * math.pi * frequency_hz * times)[None]


@BOTH
def test_silence_is_the_floor(config: MelConfig) -> None:
    mel = MelFrontEnd(config)(torch.zeros(1, 8192))
    torch.testing.assert_close(mel, torch.full_like(mel, config.floor))


@BOTH
@pytest.mark.parametrize("extra", [0, 1, 255])
def test_there_is_one_hop_for_each_whole_hop_of_samples(config: MelConfig, extra: int) -> None:
    mel = MelFrontEnd(config)(torch.zeros(2, 9 * config.hop_samples + extra))
    assert mel.shape == (2, config.num_bands, 9)


def test_ten_times_the_amplitude_is_one_more_decade() -> None:
    front_end, hops = MelFrontEnd(MEL_16K), slice(10, 20)
    quiet, loud = (front_end(sine(1000, level, MEL_16K))[0, :, hops] for level in (0.05, 0.5))
    band = int(loud.mean(dim=1).argmax())
    torch.testing.assert_close(loud[band] - quiet[band], torch.ones(10), atol=1e-4, rtol=0)


@BOTH
@pytest.mark.parametrize("frequency_hz", [300.0, 1000.0, 5000.0])
def test_a_sine_is_loudest_in_a_band_that_holds_it(config: MelConfig, frequency_hz: float) -> None:
    mel = MelFrontEnd(config)(sine(frequency_hz, 0.5, config))[0].mean(dim=1)
    bins_hz = torch.linspace(0, config.sample_rate_hz / 2, config.num_bins)
    inside = bins_hz[mel_basis(config)[int(mel.argmax())] > 0]
    width_hz = config.sample_rate_hz / config.n_fft
    assert inside.min() - width_hz <= frequency_hz <= inside.max() + width_hz


def test_hop_i_is_centred_on_the_middle_of_hop_i() -> None:
    wave = torch.zeros(1, 20 * 256)
    wave[0, 7 * 256 + 128] = 1.0
    assert int(MelFrontEnd(MEL_16K)(wave)[0].mean(dim=0).argmax()) == 7


def test_samples_outside_one_are_clamped() -> None:
    wave, front_end = 3 * sine(440, 1.0, MEL_16K), MelFrontEnd(MEL_16K)
    torch.testing.assert_close(front_end(wave), front_end(wave.clamp(-1, 1)))


def test_every_filter_has_unit_area() -> None:
    fine = MelConfig(
        sample_rate_hz=16_000, n_fft=1 << 15, hop_samples=256, num_bands=40, max_hz=8000, log="ln"
    )
    area = mel_basis(fine).sum(dim=1) * fine.sample_rate_hz / fine.n_fft
    torch.testing.assert_close(area, torch.ones_like(area), atol=1e-3, rtol=0)


def test_bands_are_equally_wide_below_one_kilohertz() -> None:
    basis = mel_basis(MEL_44K)
    bins_hz = torch.linspace(0, 22_050, MEL_44K.num_bins, dtype=torch.float64)
    centres = (basis * bins_hz).sum(dim=1) / basis.sum(dim=1)
    gaps = centres[1:].diff()[:18]
    assert gaps.std() < 0.1 * gaps.mean()


def test_the_gradient_is_finite_at_silence() -> None:
    wave = torch.zeros(1, 4096, requires_grad=True)
    MelFrontEnd(MEL_16K)(wave).sum().backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()


def test_half_precision_is_analysed_in_float32() -> None:
    wave = sine(440, 0.5, MEL_16K).bfloat16()
    torch.testing.assert_close(MelFrontEnd(MEL_16K)(wave), MelFrontEnd(MEL_16K)(wave.float()))


def test_a_wave_too_short_to_reflect_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least 385"):
        MelFrontEnd(MEL_16K)(torch.zeros(1, 384))


def test_the_shortest_wave_gives_a_hop() -> None:
    assert MelFrontEnd(MEL_16K)(torch.zeros(1, 385)).shape == (1, 80, 1)


@pytest.mark.parametrize(
    "change", [{"max_hz": 9000.0}, {"min_hz": 8000.0}, {"hop_samples": 255}, {"hop_samples": 2048}]
)
def test_numbers_that_do_not_fit_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        MelConfig(**{**MEL_16K.model_dump(), **change})
