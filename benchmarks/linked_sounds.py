"""Sounds for the pages: a picture that leads to an MP3, which the site plays on a click."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from matplotlib import colormaps
from PIL import Image

from resonate_audio import Audio
from resonate_audio.audio.io import resample
from resonate_audio.audio.spectrogram import levels_db

SOUNDS = Path(__file__).resolve().parents[1] / "docs" / "sounds"
RATE_HZ = 44_100
SIZE, RANGE_DB = (240, 100), 70.0
MP3_LEVEL, WEBP_QUALITY = 0.75, 50


def write_linked(name: str, sound: Audio, shown_s: float) -> None:
    """A sound that every browser plays, and its picture, in ``docs/sounds``.

    Args:
        name: of both files, without suffix.
        sound: of any rate.
        shown_s: seconds that the picture is wide, so that those of a row share both axes.
    """
    level = {"compression_level": MP3_LEVEL, "bitrate_mode": "VARIABLE"}
    soundfile.write(SOUNDS / f"{name}.mp3", sound.samples, sound.sample_rate_hz, **level)
    whole = np.zeros(round(shown_s * RATE_HZ), np.float32)
    wave = resample(sound.samples, sound.sample_rate_hz, RATE_HZ)[: len(whole)]
    whole[: len(wave)] = wave
    shades = 1 + np.clip(levels_db(whole, RATE_HZ, SIZE[1]), -RANGE_DB, 0) / RANGE_DB
    colours = (colormaps["inferno"](shades[::-1])[..., :3] * 255).astype(np.uint8)
    Image.fromarray(colours).resize(SIZE).save(
        SOUNDS / f"{name}.webp", quality=WEBP_QUALITY, method=6
    )


def linked(name: str, what: str) -> str:
    """Markdown of the picture ``sounds/NAME.webp`` that leads to ``sounds/NAME.mp3``."""
    return f"[![{what}](sounds/{name}.webp)](sounds/{name}.mp3)"
