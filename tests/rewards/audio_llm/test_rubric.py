from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_judges import make_llm, write_llm

from resonate_audio.core.errors import ConfigError, ManifestError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.audio_llm.aqascore import AQAReward, LowAnswerMassWarning
from resonate_audio.rewards.audio_llm.rubric import RubricReward, read_items
from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.fingerprints import hash_judge

ITEMS = {"a dog and rain": ("a dog", "rain", "a bell"), "wind": ("wind",)}
PROMPTS = ["a dog and rain", "wind", "a dog and rain"]


def noise(num_rows: int = 3) -> Waveform:
    generator = torch.Generator().manual_seed(0)
    return Waveform(0.1 * torch.randn(num_rows, 8_000, generator=generator), 16_000)


@pytest.fixture(scope="module")
def judge() -> AQAReward:
    return AQAReward(make_llm("qwen2_audio"), "owner/tiny", batch_size=2, warn_below_mass=0.0)


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_the_score_is_the_mean_of_what_is_answered_to_each_item(judge: AQAReward) -> None:
    rewards = score_now(RubricReward(judge, ITEMS), noise(), PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        sound = Waveform(noise().samples[row : row + 1], 16_000)
        alone = torch.cat([score_now(judge, sound, [item]).total for item in ITEMS[prompt]])
        assert float(rewards.total[row]) == pytest.approx(float(alone.mean()), abs=1e-6)
        assert float(rewards.parts["worst"][row]) == pytest.approx(float(alone.min()), abs=1e-6)
        heard = (alone > 0.5).double().mean()
        assert float(rewards.parts["heard_share"][row]) == pytest.approx(float(heard))
    assert set(rewards.parts) == {"worst", "heard_share", "log_odds", "answer_mass"}


def test_a_rubric_of_the_prompt_alone_is_aqascore(judge: AQAReward) -> None:
    rubric = RubricReward(judge, {"wind": ("wind",)})
    asked = score_now(rubric, noise(), ["wind"] * 3)
    torch.testing.assert_close(asked.total, score_now(judge, noise(), ["wind"] * 3).total)


def test_a_prompt_without_items_has_no_score(judge: AQAReward) -> None:
    with pytest.raises(RewardError, match=r"none for the prompt 'a cat'"):
        score_now(RubricReward(judge, ITEMS), noise(1), ["a cat"])


def test_other_items_are_another_judge(judge: AQAReward) -> None:
    one, same, other = (
        RubricReward(judge, items) for items in (ITEMS, dict(ITEMS), {"wind": ("a storm",)})
    )
    assert hash_judge(one) == hash_judge(same) != hash_judge(other)
    given = [score_now(x, noise(1), ["wind"]).judge for x in (one, other)]
    assert given[0] != given[1]


def test_items_are_a_rubric_by_hand_or_else_the_events(tmp_path: Path) -> None:
    path = write(
        tmp_path / "items.jsonl",
        {"prompt": "a dog", "event_list": ["dog"], "rubric": ["a dog barks", " once "]},
        {"prompt": "rain", "event_list": ["rain falls"], "labels": ["rain"]},
    )
    assert read_items(path) == {"a dog": ("a dog barks", "once"), "rain": ("rain falls",)}
    with pytest.raises(ManifestError, match=r"line 1: expected a list of items in labels"):
        read_items(path, "labels")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"prompt": "a dog"}, "line 2: expected a list of items in rubric or event_list"),
        ({"rubric": ["a dog"]}, "line 2: expected the field prompt with a text in it"),
        ({"prompt": "a dog", "rubric": []}, "line 2: rubric is no list of one or more texts"),
        ({"prompt": "a dog", "rubric": "a dog"}, "rubric is no list"),
        ({"prompt": "a dog", "rubric": ["a", 3]}, "rubric holds something that is empty or no"),
        ({"prompt": "wind", "rubric": ["a storm"]}, "stands above with other items"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "items.jsonl", {"prompt": "wind", "rubric": ["wind"]}, line)
    with pytest.raises(ManifestError, match=says):
        read_items(path)


def test_it_is_opened_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "llm"
    write_llm(make_llm("qwen2_audio"), folder)
    path = write(tmp_path / "items.jsonl", {"prompt": "wind", "rubric": ["wind", "a storm"]})
    reward = open_reward(f"rubric:{folder}#items={path}")
    with pytest.warns(LowAnswerMassWarning):  # its weights are random
        rewards = score_now(reward, noise(), ["wind"] * 3)
    assert {"rubric", "rubric/worst", "rubric/heard_share"} <= rewards.parts.keys()
    with pytest.raises(ConfigError, match="which items"):
        open_reward(f"rubric:{folder}")
    with pytest.raises(ConfigError, match="which model"):
        open_reward(f"rubric#items={path}")
