"""A picture of one sound: its waveform above its spectrogram, with units on every axis."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from resonate_audio.audio.io import write_bytes
from resonate_audio.core.errors import AudioError
from resonate_audio.core.types import Audio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW_S = 0.040
"""Long enough to part the harmonics of a 60 Hz hum, short enough to show a footstep."""
NUM_ROWS = 320
RANGE_DB = 80.0
LOWEST_HZ = 30.0
TICKS_HZ = (100, 500, 1000, 2000, 5000, 10_000, 20_000)

SIZE_INCHES = (7.6, 4.0)
DOTS_PER_INCH = 150
# The picture's data area as fractions of its width: a page can lay a play head over it.
DATA_LEFT, DATA_WIDTH = 0.100, 0.795

BACKGROUND, INK, FAINT = "#0c0c14", "#e8e6f0", "#8c89a0"
WAVE, COLOURS = "#f2a65a", "inferno"


def mel_of_hz(frequency_hz: Any) -> Any:
    """O'Shaughnessy's mel scale, 2595·log10(1 + f/700): nearly linear below 1 kHz, then log."""
    return 2595.0 * np.log10(1.0 + np.asarray(frequency_hz) / 700.0)


def hz_of_mel(mel: Any) -> Any:
    """The inverse of `mel_of_hz`."""
    return 700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0)


def levels_db(
    samples: Float32[np.ndarray, " sample"], sample_rate_hz: int, num_rows: int = NUM_ROWS
) -> Float32[np.ndarray, "frequency time"]:
    """Magnitude by frequency and time, frequencies equally spaced in mel from `LOWEST_HZ` up.

    Args:
        samples: one channel, full scale at 1.
        sample_rate_hz: its sample rate.
        num_rows: frequencies in the result, the highest at half the sample rate.

    Returns:
        Decibels under the loudest point, which is 0; nothing lies below −`RANGE_DB`. Silence is
        −`RANGE_DB` everywhere.
    """
    window = 2 * round(WINDOW_S * sample_rate_hz / 2)
    hop = max(1, window // 8)
    padded = np.pad(samples, (window // 2, window // 2 + window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    frames = frames[: len(samples) // hop + 1] * np.hanning(window).astype(np.float32)
    num_points = 4 * window  # zero-padded, so that low rows are smooth and not staircases
    magnitude = np.abs(np.fft.rfft(frames, num_points, axis=1)).T
    top = mel_of_hz(sample_rate_hz / 2)
    wanted_hz = hz_of_mel(np.linspace(mel_of_hz(LOWEST_HZ), top, num_rows))
    bins = np.clip(wanted_hz * num_points / sample_rate_hz, 0, len(magnitude) - 1)
    below = np.minimum(bins.astype(int), len(magnitude) - 2)
    share = (bins - below)[:, None]
    rows = magnitude[below] * (1 - share) + magnitude[below + 1] * share
    loudest = rows.max(initial=0.0)
    if loudest == 0.0:
        return np.full(rows.shape, -RANGE_DB, np.float32)
    floor = loudest * 10.0 ** (-RANGE_DB / 20)
    return np.asarray(20 * np.log10(np.maximum(rows, floor) / loudest), dtype=np.float32)


def draw_sound(audio: Audio, title: str = "") -> bytes:
    """Draw a sound as a PNG.

    Args:
        audio: the sound.
        title: a line above it, usually the prompt.

    Raises:
        AudioError: the sound is empty or holds NaN or infinite samples.
    """
    if not len(audio.samples) or not np.isfinite(audio.samples).all():
        raise AudioError("cannot draw a sound that is empty or holds NaN or infinite samples")
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, facecolor=BACKGROUND)
    wave = figure.add_axes((DATA_LEFT, 0.69, DATA_WIDTH, 0.18))
    picture = figure.add_axes((DATA_LEFT, 0.125, DATA_WIDTH, 0.54))
    scale = figure.add_axes((DATA_LEFT + DATA_WIDTH + 0.012, 0.125, 0.012, 0.54))
    _draw_title(figure, audio, title)
    _draw_wave(wave, audio)
    _draw_levels(figure, picture, scale, audio)
    for axes in (wave, picture, scale):
        _style(axes)
    return _png(figure)


def write_spectrogram(path: Path, audio: Audio, title: str = "", overwrite: bool = False) -> None:
    """Draw a sound into a PNG file.

    Raises:
        AudioError: the sound cannot be drawn.
        OutputError: the file exists, cannot be written, or the disk is full.
    """
    write_bytes(path, draw_sound(audio, title), overwrite)


def _draw_title(figure: Figure, audio: Audio, title: str) -> None:
    one_line = " ".join(title.split())
    shown = one_line if len(one_line) <= 60 else one_line[:59].rstrip() + "…"
    figure.text(
        DATA_LEFT, 0.925, shown, color=INK, fontsize=12.5, fontweight="bold", parse_math=False
    )
    facts = f"{audio.duration_s:.2f} s · {audio.sample_rate_hz / 1000:g} kHz"
    right = DATA_LEFT + DATA_WIDTH
    figure.text(right, 0.925, facts, color=FAINT, fontsize=9, ha="right", parse_math=False)


def _draw_wave(axes: Axes, audio: Audio) -> None:
    """Lowest and highest sample of each column, which stays true at any zoom out."""
    columns = np.array_split(audio.samples, min(1200, len(audio.samples)))
    times_s = (np.arange(len(columns)) + 0.5) / len(columns) * audio.duration_s
    low = np.array([column.min() for column in columns])
    high = np.array([column.max() for column in columns])
    axes.fill_between(times_s, low, high, color=WAVE, linewidth=0.5, edgecolor=WAVE)
    limit = max(float(np.abs(audio.samples).max()), 1e-3) * 1.08
    axes.set(xlim=(0, audio.duration_s), ylim=(-limit, limit), ylabel="Amplitude")
    axes.tick_params(labelbottom=False, bottom=False)
    axes.locator_params(axis="y", nbins=3)


def _draw_levels(figure: Figure, axes: Axes, scale: Axes, audio: Audio) -> None:
    top_hz = audio.sample_rate_hz / 2
    image = axes.imshow(
        levels_db(audio.samples, audio.sample_rate_hz),
        origin="lower",
        aspect="auto",
        cmap=COLOURS,
        vmin=-RANGE_DB,
        vmax=0,
        interpolation="bilinear",
        extent=(0, audio.duration_s, float(mel_of_hz(LOWEST_HZ)), float(mel_of_hz(top_hz))),
    )
    ticks_hz = [tick for tick in TICKS_HZ if LOWEST_HZ <= tick < 0.9 * top_hz] + [round(top_hz)]
    axes.set_yticks(mel_of_hz(ticks_hz), [_frequency(tick) for tick in ticks_hz])
    axes.set(xlabel="Time (s)", ylabel="Frequency (Hz)")
    figure.colorbar(image, cax=scale, ticks=[0, -20, -40, -60, -80])
    scale.set_ylabel("Level (dB under the peak)")


def _frequency(tick_hz: int) -> str:
    return f"{tick_hz / 1000:.4g}k" if tick_hz >= 1000 else str(tick_hz)


def _style(axes: Axes) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=3, width=0.6)
    axes.xaxis.label.set(color=FAINT, fontsize=9)
    axes.yaxis.label.set(color=FAINT, fontsize=9)
    for spine in axes.spines.values():
        spine.set(color="#2c2b3a", linewidth=0.6)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A prompt in a script that the font lacks is drawn as boxes; that is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", facecolor=BACKGROUND)
    return buffer.getvalue()
