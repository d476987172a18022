"""Scenes of tones instead of recordings, and judges small enough to train in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from resonate_audio.audio.mel import MelConfig
from resonate_audio.nano.judges.lalm import LalmConfig
from resonate_audio.nano.judges.questions import Classes, Source
from resonate_audio.nano.judges.scenes import JudgeData, SceneSource
from resonate_audio.nano.judges.sounds import RATE_HZ, SoundSet, to_int16
from resonate_audio.rewards.small.matcher import MatcherConfig
from resonate_audio.rewards.small.two_tower import TwoTowerConfig

LABELS = ("beep", "buzz", "hum", "whistle")
LENGTHS = (3000, 6000, 40_000, 9000)
MEL = MelConfig(
    sample_rate_hz=16_000, n_fft=1024, hop_samples=1024, num_bands=16, max_hz=8_000, log="log10"
)
TOWERS = TwoTowerConfig(mel=MEL, channels=(4, 8), hidden=8, dim=8)
MATCHER = MatcherConfig(mel=MEL, channels=(4, 4, 4), dim=8, num_mixers=1, num_layers=1, num_heads=2)
LALM = LalmConfig(
    num_bands=16,
    n_fft=400,
    audio_channels=4,
    audio_dim=16,
    audio_layers=1,
    audio_heads=2,
    audio_mlp=16,
    text_dim=16,
    text_layers=5,
    text_heads=2,
    head_dim=16,
    text_mlp=16,
    num_common_words=0,
)


def tones() -> SoundSet:
    waves = [
        0.3 * np.sin(2 * np.pi * 300 * (row + 1) * np.arange(length) / RATE_HZ)
        for row, length in enumerate(LENGTHS)
    ]
    samples = to_int16(np.concatenate(waves).astype(np.float32))
    sources = tuple(
        Source(label, (f"a {label}",), length, (f"a {label}",) if length < 10_000 else ())
        for label, length in zip(LABELS, LENGTHS, strict=True)
    )
    return SoundSet(sources, np.cumsum([0, *LENGTHS[:-1]]), samples, samples)


def tone_scenes() -> SceneSource:
    classes = Classes(LABELS, np.eye(len(LABELS), dtype=np.float32))
    return SceneSource(tones(), classes, JudgeData(corpus=Path("nowhere")))
