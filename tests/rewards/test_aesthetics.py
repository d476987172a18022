from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_aes import OLD_CODE as OLD_CODE_WARNINGS
from tiny_aes import build_aes
from torch import Tensor

from resonate_audio.core.errors import CheckpointError, ConfigError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.aesthetics import (
    AXES,
    AestheticsReward,
    AudioboxAxes,
    Axis,
    cut_windows,
)
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.rewards.desk import score_now

RATE_HZ = 16_000


OLD_CODE = pytest.mark.filterwarnings(*OLD_CODE_WARNINGS)


class MeanLevel:
    """Grades a window by the mean of its heard samples, another multiple on each axis."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, windows: Tensor, heard: Tensor) -> Mapping[str, Tensor]:
        self.batches.append(len(windows))
        assert not windows[~heard].any()
        mean = windows.sum(dim=1) / heard.sum(dim=1)
        return {axis: number * mean for number, axis in enumerate(AXES, 1)}


def steps(*parts: tuple[float, float]) -> Waveform:
    """One sound of (seconds, level) after another."""
    pieces = [torch.full((round(seconds * RATE_HZ),), level) for seconds, level in parts]
    return Waveform(torch.cat(pieces)[None], RATE_HZ)


def grade(audio: Waveform, axis: Axis = "CE", batch_size: int = 8) -> float:
    judge = AestheticsReward(MeanLevel(), "tiny", axis, batch_size=batch_size)
    return float(score_now(judge, audio, ["x"] * len(audio.samples)).total[0])


def test_it_is_a_reward() -> None:
    assert isinstance(AestheticsReward(MeanLevel(), "tiny"), Reward)


@pytest.mark.parametrize("seconds", [3.0, 10.0, 25.0])
def test_a_steady_sound_of_any_length_keeps_its_grade(seconds: float) -> None:
    assert grade(steps((seconds, 0.25))) == pytest.approx(0.25)


def test_windows_count_by_the_length_of_their_sound() -> None:
    audio = steps((10, 0.1), (10, 0.2), (5, 0.8))
    assert grade(audio) == pytest.approx((10 * 0.1 + 10 * 0.2 + 5 * 0.8) / 25)


def test_the_score_is_the_mean_of_the_axes_or_one_of_them() -> None:
    audio = steps((2, 0.5))
    assert grade(audio, "mean") == pytest.approx(0.5 * 2.5)
    assert grade(audio, "PQ") == pytest.approx(0.5 * 4)


def test_all_axes_are_reported() -> None:
    judge = AestheticsReward(MeanLevel(), "tiny", "PQ")
    rewards = score_now(judge, steps((2, 0.5)), ["x"])
    assert {name: float(part) for name, part in rewards.parts.items()} == pytest.approx(
        {"CE": 0.5, "CU": 1.0, "PC": 1.5, "PQ": 2.0}
    )
    assert rewards.judge == "aesthetics[tiny, PQ]"


def test_rows_keep_their_own_grades_in_every_batch_size() -> None:
    levels = torch.tensor([0.1, 0.2, 0.3])
    audio = Waveform(levels[:, None].repeat(1, 11 * RATE_HZ), RATE_HZ)
    for batch_size in (1, 4, 9):
        judge = AestheticsReward(MeanLevel(), "tiny", "CE", batch_size=batch_size)
        total = score_now(judge, audio, ["x"] * 3).total
        torch.testing.assert_close(total, levels.double(), atol=1e-6, rtol=0)


def test_a_rest_of_a_few_milliseconds_costs_no_window() -> None:
    windows, heard = cut_windows(steps((10.0078, 0.1)).samples)
    assert windows.shape == (1, 1, 10 * RATE_HZ)
    assert heard.all()


def test_in_paper_mode_it_is_a_window_that_counts_by_its_length() -> None:
    audio = steps((10, 0.1), (0.01, 0.9))
    assert cut_windows(audio.samples, "paper")[0].shape == (1, 2, 10 * RATE_HZ)
    judge = AestheticsReward(MeanLevel(), "tiny", "CE", mode="paper")
    found = float(score_now(judge, audio, ["x"]).total[0])
    assert found == pytest.approx((10 * 0.1 + 0.01 * 0.9) / 10.01)


def test_a_rest_that_can_be_heard_is_a_window_of_its_own() -> None:
    windows, heard = cut_windows(steps((10.2, 0.1)).samples)
    assert windows.shape == (1, 2, 10 * RATE_HZ)
    assert heard.sum(dim=1).tolist() == [10 * RATE_HZ, round(0.2 * RATE_HZ)]


def test_a_sound_of_a_few_milliseconds_is_still_one_window() -> None:
    assert cut_windows(steps((0.01, 0.1)).samples)[1].sum() == 160


def test_texts_and_sounds_must_be_one_each() -> None:
    judge = AestheticsReward(MeanLevel(), "tiny")
    with pytest.raises(RewardError, match="2 texts for 1 sounds"):
        asyncio.run(judge.score(steps((1, 0.1)), ["x", "y"]))


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "audiobox_aesthetics", None)
    for part in ("model", "model.aes"):
        monkeypatch.delitem(sys.modules, f"audiobox_aesthetics.{part}", raising=False)
    with pytest.raises(ConfigError, match=r"pip install .resonate-audio\[aesthetics\]"):
        open_reward("aesthetics")


@pytest.fixture
def real_model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The published network class, made small, with random weights."""
    return build_aes(monkeypatch)


@OLD_CODE
def test_the_real_network_is_loaded_and_graded_as_its_own_code_does(
    real_model: Any, tmp_path: Path
) -> None:
    real_model.save_pretrained(tmp_path)
    judge = AestheticsReward.from_pretrained(str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    audio = Waveform(0.1 * torch.randn(2, 3 * RATE_HZ, generator=generator), RATE_HZ)
    rewards = score_now(judge, audio, ["x", "y"])
    padded = torch.nn.functional.pad(audio.samples, (0, 7 * RATE_HZ))[:, None]
    mask = (torch.arange(10 * RATE_HZ) < 3 * RATE_HZ).expand(2, 1, -1)
    with torch.inference_mode():
        official = real_model({"wav": padded, "mask": mask})
    for axis in AXES:
        scale = real_model.target_transform[axis]
        expected = (official[axis] * scale["std"] + scale["mean"]).double()
        torch.testing.assert_close(rewards.parts[axis], expected, atol=1e-5, rtol=0)


@OLD_CODE
def test_padding_does_not_move_the_real_networks_grade_of_other_rows(real_model: Any) -> None:
    judge = AestheticsReward(AudioboxAxes(real_model), "tiny")
    audio = Waveform(0.1 * torch.randn(2, RATE_HZ), RATE_HZ)
    both = score_now(judge, audio, ["x", "y"]).total
    one = score_now(judge, Waveform(audio.samples[:1], RATE_HZ), ["x"]).total
    torch.testing.assert_close(both[:1], one, atol=1e-5, rtol=0)


@OLD_CODE
def test_weights_that_do_not_fit_are_an_error(real_model: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    real_model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["layer_weights.CE"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layer_weights\.CE"):
        AestheticsReward.from_pretrained(str(tmp_path))
