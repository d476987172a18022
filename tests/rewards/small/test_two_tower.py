from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from resonate_audio.audio.mel import MelConfig
from resonate_audio.core.errors import CheckpointError, RewardError
from resonate_audio.core.types import TextFeatures, Waveform
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.small.judge import load_minilm, write_judge
from resonate_audio.rewards.small.two_tower import (
    TwoTower,
    TwoTowerConfig,
    TwoTowerReward,
    contrastive_loss,
)

TINY = TwoTowerConfig(
    mel=MelConfig(
        sample_rate_hz=16_000, n_fft=512, hop_samples=320, num_bands=16, max_hz=8_000, log="log10"
    ),
    channels=(4, 8),
    hidden=16,
    dim=8,
)


def network() -> TwoTower:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TwoTower(TINY).eval()


def waves(rows: int = 2, num_samples: int = 16_000) -> torch.Tensor:
    return 0.1 * torch.randn(rows, num_samples, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> TwoTowerReward:
    folder = tmp_path_factory.mktemp("judge")
    write_judge(folder, TINY, network().state_dict())
    return TwoTowerReward.from_folder(folder)


def test_both_towers_give_unit_vectors() -> None:
    features = TextFeatures(torch.randn(2, 3, 384), torch.randn(2, 384))
    sounds = network().embed_pictures(network().pictures(waves()))
    for vectors in (sounds, network().embed_texts(features)):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_loudness_is_not_heard() -> None:
    tower = network()
    quiet = tower.pictures(waves() * 0.1)
    torch.testing.assert_close(tower.pictures(waves()), quiet, atol=2e-3, rtol=0)


def test_pictures_go_from_zero_to_one() -> None:
    pictures = network().pictures(torch.cat([waves(1), torch.zeros(1, 16_000)]))
    assert pictures.min() >= 0
    torch.testing.assert_close(pictures.amax(dim=(1, 2)), torch.ones(2))


def test_the_loss_of_orthogonal_pairs_is_known() -> None:
    vectors = torch.eye(2)
    loss = contrastive_loss(vectors, vectors, torch.tensor(math.log(3.0)), torch.tensor(-1.0))
    expected = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))
    assert loss.item() == pytest.approx(expected)


def test_the_loss_falls_when_pairs_move_together() -> None:
    sounds, texts = torch.eye(3), torch.eye(3).roll(1, dims=0)
    scale, bias = torch.tensor(2.0), torch.tensor(-3.0)
    assert contrastive_loss(sounds, sounds, scale, bias) < contrastive_loss(
        sounds, texts, scale, bias
    )


def test_it_is_a_reward(reward: TwoTowerReward) -> None:
    assert isinstance(reward, Reward)


def test_scores_are_cosines(reward: TwoTowerReward) -> None:
    total = score_now(reward, Waveform(waves(), 16_000), ["a dog barks", "rain"]).total
    assert total.shape == (2,)
    assert (total.abs() <= 1).all()


def test_a_row_does_not_depend_on_the_others(reward: TwoTowerReward) -> None:
    both = score_now(reward, Waveform(waves(), 16_000), ["a dog barks", "rain"]).total
    one = score_now(reward, Waveform(waves()[1:], 16_000), ["rain"]).total
    torch.testing.assert_close(both[1:], one, atol=1e-5, rtol=0)


def test_half_precision_on_disk_moves_scores_little(reward: TwoTowerReward) -> None:
    exact = TwoTowerReward(network(), load_minilm())
    args = (Waveform(waves(), 16_000), ["a dog barks", "rain"])
    torch.testing.assert_close(
        score_now(reward, *args).total, score_now(exact, *args).total, atol=5e-3, rtol=0
    )


def test_broken_samples_are_an_error(reward: TwoTowerReward) -> None:
    broken = waves()
    broken[1, 5] = math.nan
    with pytest.raises(RewardError, match="row 2"):
        score_now(reward, Waveform(broken, 16_000), ["a", "b"])


def test_a_sound_too_short_is_an_error(reward: TwoTowerReward) -> None:
    with pytest.raises(RewardError, match=r"0\.050 s"):
        score_now(reward, Waveform(waves(1, 800), 16_000), ["a"])


def test_a_folder_without_a_judge_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        TwoTowerReward.from_folder(tmp_path)
