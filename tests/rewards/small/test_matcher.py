from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from resonate_audio.audio.mel import MelConfig
from resonate_audio.core.errors import CheckpointError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.small.judge import write_judge
from resonate_audio.rewards.small.matcher import (
    Matcher,
    MatcherConfig,
    MatcherReward,
    sinusoids,
    word_mask,
)

TINY = MatcherConfig(
    mel=MelConfig(
        sample_rate_hz=16_000, n_fft=512, hop_samples=256, num_bands=16, max_hz=8_000, log="log10"
    ),
    channels=(4, 4, 8),
    dim=16,
    num_mixers=2,
    num_layers=2,
    num_heads=2,
)


def network() -> Matcher:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Matcher(TINY).eval()


def waves(rows: int = 2, num_samples: int = 16_000) -> torch.Tensor:
    return 0.1 * torch.randn(rows, num_samples, generator=torch.Generator().manual_seed(1))


def words(rows: int = 2, length: int = 4) -> torch.Tensor:
    return torch.randn(rows, length, 384, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> MatcherReward:
    folder = tmp_path_factory.mktemp("judge")
    write_judge(folder, TINY, network().state_dict())
    return MatcherReward.from_folder(folder)


def test_a_frame_is_four_hops() -> None:
    matcher = network()
    frames = matcher.hear(matcher.pictures(waves()))
    assert frames.shape == (2, math.ceil(16_000 / 256 / 4), 16)


def test_padding_of_the_text_is_not_read() -> None:
    matcher = network()
    frames, tokens = matcher.hear(matcher.pictures(waves())), words()
    padded = torch.cat([tokens, torch.zeros(2, 5, 384)], dim=1)
    torch.testing.assert_close(
        matcher.match(frames, tokens, word_mask(tokens)),
        matcher.match(frames, padded, word_mask(padded)),
        atol=1e-5,
        rtol=0,
    )


def test_the_order_of_sounds_is_heard() -> None:
    matcher, tokens = network(), words()
    frames = matcher.hear(matcher.pictures(waves()))
    there = matcher.match(frames, tokens, word_mask(tokens))
    back = matcher.match(frames.flip(1), tokens, word_mask(tokens))
    assert (there - back).abs().min() > 1e-6


def test_words_are_told_from_padding() -> None:
    tokens = torch.cat([words(1, 2), torch.zeros(1, 1, 384)], dim=1)
    assert word_mask(tokens).tolist() == [[True, True, False]]


def test_the_first_position_is_all_cosines_at_one() -> None:
    assert sinusoids(1, 4).tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_it_is_a_reward(reward: MatcherReward) -> None:
    assert isinstance(reward, Reward)


def test_scores_are_probabilities_with_their_log_odds(reward: MatcherReward) -> None:
    rewards = score_now(reward, Waveform(waves(), 16_000), ["a dog barks", "rain"])
    torch.testing.assert_close(rewards.total, rewards.parts["log_odds"].sigmoid())


def test_another_sample_rate_is_resampled(reward: MatcherReward) -> None:
    rewards = score_now(reward, Waveform(waves(1, 44_100), 44_100), ["a dog barks"])
    assert 0 < float(rewards.total[0]) < 1


def test_a_row_does_not_depend_on_the_others(reward: MatcherReward) -> None:
    both = score_now(reward, Waveform(waves(), 16_000), ["a dog barks", "rain"]).total
    one = score_now(reward, Waveform(waves()[1:], 16_000), ["rain"]).total
    torch.testing.assert_close(both[1:], one, atol=1e-5, rtol=0)


def test_broken_samples_are_an_error(reward: MatcherReward) -> None:
    broken = waves()
    broken[0, 5] = math.inf
    with pytest.raises(RewardError, match="row 1"):
        score_now(reward, Waveform(broken, 16_000), ["a", "b"])


def test_weights_of_another_size_are_an_error(tmp_path: Path) -> None:
    write_judge(tmp_path, TINY.model_copy(update={"dim": 32}), network().state_dict())
    with pytest.raises(CheckpointError, match="shape"):
        MatcherReward.from_folder(tmp_path)
