from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_judges import build_clap, make_llm, write_llm

from resonate_audio.core.errors import CheckpointError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.clap.laion import CLAPReward
from resonate_audio.rewards.desk import score_now

TEXTS = ["a dog barks", "rain", "a long text about a dog that barks while rain falls", "wind"]
RATE_HZ = 48_000


def sounds(seconds: float = 1.0, rate_hz: int = RATE_HZ) -> Waveform:
    generator = torch.Generator().manual_seed(0)
    time_s = torch.arange(int(seconds * rate_hz)) / rate_hz
    tones = torch.sin(2 * torch.pi * torch.tensor([200.0, 900.0, 3000.0, 7000.0])[:, None] * time_s)
    noise = torch.randn(tones.shape, generator=generator)
    return Waveform(torch.tensor([0.1, 0.3, 0.5, 0.9])[:, None] * tones + 0.02 * noise, rate_hz)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "fused"])
def parts(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return build_clap(fused=request.param)


@pytest.fixture
def judge(parts: tuple[Any, Any]) -> CLAPReward:
    return CLAPReward(*parts, "owner/tiny", batch_size=3)


def test_it_is_a_reward(judge: CLAPReward) -> None:
    assert isinstance(judge, Reward)


def test_the_score_is_the_cosine_of_the_models_own_embeddings(judge: CLAPReward) -> None:
    model: Any = judge.model
    audio = sounds(2.0)
    texts = judge.processor.tokenizer(TEXTS, padding=True, return_tensors="pt")
    heard = judge.processor.feature_extractor(
        list(audio.samples.numpy()), sampling_rate=RATE_HZ, return_tensors="pt"
    )
    with torch.no_grad():
        text = model.get_text_features(texts["input_ids"], texts["attention_mask"]).pooler_output
        sound = model.get_audio_features(
            heard["input_features"].float(), is_longer=torch.zeros(4, 1, dtype=torch.bool)
        ).pooler_output
    expected = F.cosine_similarity(sound, text).double()
    torch.testing.assert_close(score_now(judge, audio, TEXTS).total, expected, atol=1e-6, rtol=0)


def test_a_batch_scores_as_its_rows_do_one_by_one(judge: CLAPReward) -> None:
    audio = sounds()
    batch = score_now(judge, audio, TEXTS).total
    alone = [
        score_now(judge, Waveform(audio.samples[row, None], RATE_HZ), [text]).total
        for row, text in enumerate(TEXTS)
    ]
    torch.testing.assert_close(batch, torch.cat(alone), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seconds", [0.7, 2.0, 5.0])
def test_nothing_is_left_to_chance(seconds: float, judge: CLAPReward) -> None:
    given = []
    for seed in range(3):
        np.random.seed(seed)
        given.append(score_now(judge, sounds(seconds), TEXTS).total)
    assert torch.equal(given[0], given[1])
    assert torch.equal(given[0], given[2])


def test_only_the_first_seconds_of_a_long_sound_count(judge: CLAPReward) -> None:
    long = sounds(5.0, 44_100)
    start = Waveform(long.samples[:, : 2 * 44_100], 44_100)
    expected = score_now(judge, start, TEXTS).total
    assert torch.equal(score_now(judge, long, TEXTS).total, expected)


def test_the_id_records_what_is_heard(judge: CLAPReward) -> None:
    assert score_now(judge, sounds(), TEXTS).judge == "clap[owner/tiny, first 2 s]"


def test_sound_and_text_both_move_the_score(judge: CLAPReward) -> None:
    assert score_now(judge, sounds(), ["rain"] * 4).total.std() > 1e-4
    same = Waveform(sounds().samples[:1].repeat(4, 1), RATE_HZ)
    assert score_now(judge, same, TEXTS).total.std() > 1e-4


def test_a_very_long_text_is_cut_instead_of_failing(judge: CLAPReward) -> None:
    text = "dog " * 500
    audio = Waveform(sounds().samples[:2], RATE_HZ)
    total = score_now(judge, audio, [text, text + "rain"]).total
    assert total.isfinite().all()


def test_a_saved_judge_scores_the_same(judge: CLAPReward, tmp_path: Path) -> None:
    model: Any = judge.model
    model.save_pretrained(tmp_path)
    judge.processor.save_pretrained(tmp_path)
    loaded = CLAPReward.from_pretrained(str(tmp_path))
    expected = score_now(judge, sounds(), TEXTS).total
    found = score_now(loaded, sounds(), TEXTS).total
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    write_llm(make_llm("qwen2_audio"), tmp_path)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        CLAPReward.from_pretrained(str(tmp_path))


def test_texts_and_sounds_must_be_one_each(judge: CLAPReward) -> None:
    with pytest.raises(RewardError, match="2 texts for 4 sounds"):
        asyncio.run(judge.score(sounds(), TEXTS[:2]))


def test_a_broken_sound_is_an_error(judge: CLAPReward) -> None:
    audio = sounds()
    audio.samples[1, 3] = float("nan")
    with pytest.raises(RewardError, match="row 2"):
        score_now(judge, audio, TEXTS)
