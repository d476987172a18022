from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.training.reinforce.advantage import AdvantageConfig, group_advantages

RATE_HZ = 44_100


def tone(seconds: float, level: float, total_s: float = 2.0) -> np.ndarray:
    t = np.arange(round(total_s * RATE_HZ)) / RATE_HZ
    return np.where(t < seconds, level * np.sin(2 * math.pi * 1000 * t), 0.0)


def judged(*sounds: np.ndarray) -> Rewards:
    samples = torch.from_numpy(np.stack(sounds)).float()
    return score_now(open_reward("guard"), Waveform(samples, RATE_HZ), ["x"] * len(sounds))


def test_what_can_be_heard_loses_nothing() -> None:
    assert judged(tone(2.0, 0.5), tone(0.3, 0.5), tone(2.0, 0.05)).total.tolist() == [0, 0, 0]


def test_silence_loses_time_and_loudness() -> None:
    rewards = judged(tone(0, 0), tone(0.1, 0.5))
    assert rewards.parts["guard/time"].tolist() == pytest.approx([1, 2 / 3], abs=1e-6)
    assert rewards.parts["guard/loudness"].tolist() == [1, 0]
    assert rewards.total[0] == -2


def test_a_quiet_sound_loses_by_its_loudness() -> None:
    level = 10 ** ((-44 - 0.0) / 20) * math.sqrt(2)  # a 1 kHz sine of −44 dB RMS is −44 LUFS
    assert judged(tone(2.0, level)).parts["guard/loudness"].item() == pytest.approx(0.5, abs=0.01)


def test_clipping_loses_headroom() -> None:
    clipped = np.clip(tone(2.0, 3.0), -1, 1)
    assert judged(clipped).parts["guard/headroom"].item() == 1


def test_beside_a_judge_it_counts_only_where_takes_differ_in_it() -> None:
    parts = {
        "judge": torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 3.0], dtype=torch.float64),
        "guard": torch.tensor([0, 0, 0, 0, 0, -2.0], dtype=torch.float64),
    }
    config = AdvantageConfig(combine="gdpo", weights={"judge": 1.0, "guard": 1.0})
    total = parts["judge"] + parts["guard"]
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    values = group_advantages(Rewards(total, parts, "both"), groups, config).values
    assert values[2] > values[1] > values[0]
    assert values[5] < values[4]


def test_it_takes_no_model() -> None:
    with pytest.raises(ConfigError, match="guard takes no model or option"):
        open_reward("guard:big")
