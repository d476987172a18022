"""The picture of a sound."""

import struct
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.audio.spectrogram import (
    LOWEST_HZ,
    RANGE_DB,
    draw_sound,
    hz_of_mel,
    levels_db,
    mel_of_hz,
    write_spectrogram,
)
from resonate_audio.core.errors import AudioError, OutputError
from resonate_audio.core.types import Audio

RATE_HZ = 16_000


def sine(frequency_hz: float, duration_s: float = 1.0) -> np.ndarray:
    times_s = np.arange(int(RATE_HZ * duration_s)) / RATE_HZ
    return (0.5 * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)


def row_hz(num_rows: int) -> np.ndarray:
    return hz_of_mel(np.linspace(mel_of_hz(LOWEST_HZ), mel_of_hz(RATE_HZ / 2), num_rows))


def test_1000_hz_is_1000_mel() -> None:
    assert mel_of_hz(1000.0) == pytest.approx(1000.0, rel=1e-3)


@pytest.mark.parametrize("frequency_hz", [100.0, 440.0, 3000.0, 7000.0])
def test_a_sine_is_loudest_in_the_row_of_its_frequency(frequency_hz: float) -> None:
    levels = levels_db(sine(frequency_hz), RATE_HZ)
    middle = levels[:, levels.shape[1] // 2]
    rows = row_hz(len(levels))
    assert abs(int(middle.argmax()) - int(np.abs(rows - frequency_hz).argmin())) <= 1


def test_the_loudest_point_is_0_db_and_nothing_is_under_the_range() -> None:
    levels = levels_db(sine(440.0), RATE_HZ)
    assert levels.max() == 0.0
    assert levels.min() >= -RANGE_DB - 1e-4


def test_loudness_does_not_change_the_picture() -> None:
    np.testing.assert_allclose(
        levels_db(sine(440.0), RATE_HZ), levels_db(sine(440.0) / 64, RATE_HZ), atol=1e-4
    )


def test_silence_is_the_bottom_of_the_range() -> None:
    assert (levels_db(np.zeros(8000, np.float32), RATE_HZ) == -RANGE_DB).all()


def test_a_click_stands_at_its_own_time() -> None:
    samples = np.zeros(RATE_HZ, np.float32)
    samples[RATE_HZ // 4] = 1.0
    energy = (10 ** (levels_db(samples, RATE_HZ) / 10)).sum(axis=0)
    centre = (energy * np.arange(len(energy))).sum() / energy.sum() / (len(energy) - 1)
    assert centre == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("duration_s", [1 / RATE_HZ, 0.01, 1.0])
def test_the_picture_is_a_png_at_any_duration(duration_s: float) -> None:
    png = draw_sound(Audio(sine(440.0, duration_s), RATE_HZ), "a $beep_1^ 雨 \n twice")
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert width > 1.5 * height > 800


def test_silence_can_be_drawn() -> None:
    assert draw_sound(Audio(np.zeros(800, np.float32), RATE_HZ))[:4] == b"\x89PNG"


@pytest.mark.parametrize("samples", [[], [float("nan")], [float("inf"), 0.0]])
def test_what_cannot_be_drawn_is_refused(samples: list[float]) -> None:
    with pytest.raises(AudioError, match="cannot draw"):
        draw_sound(Audio(np.array(samples, np.float32), RATE_HZ))


def test_an_existing_picture_stays(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_spectrogram(tmp_path / "a.png", Audio(sine(440.0), RATE_HZ))
    assert (tmp_path / "a.png").read_bytes() == b"mine"
