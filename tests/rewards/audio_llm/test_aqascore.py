from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from tiny_judges import make_llm, write_llm

from resonate_audio.core.errors import CheckpointError, ConfigError, ModelNotFoundError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.audio_llm.aqascore import AQAReward, LowAnswerMassWarning
from resonate_audio.rewards.audio_llm.model import AudioLLM
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.desk import score_now

TEXTS = ["a dog barks", "rain", "wind", "a bell", "a horn"]


def noise(num_rows: int = 5, rate_hz: int = 44_100, seconds: float = 0.5) -> Waveform:
    generator = torch.Generator().manual_seed(0)
    samples = 0.1 * torch.randn(num_rows, int(seconds * rate_hz), generator=generator)
    return Waveform(samples * torch.linspace(0.1, 3, num_rows)[:, None], rate_hz)


@pytest.fixture(scope="module")
def llm() -> AudioLLM:
    return make_llm("qwen2_audio")


@pytest.fixture
def judge(llm: AudioLLM) -> AQAReward:
    return AQAReward(llm, "owner/tiny", batch_size=2, warn_below_mass=0.0)


def test_it_is_a_reward(judge: AQAReward) -> None:
    assert isinstance(judge, Reward)


def test_the_score_is_the_sigmoid_of_the_log_odds(judge: AQAReward) -> None:
    rewards = score_now(judge, noise(), TEXTS)
    torch.testing.assert_close(
        rewards.total, rewards.parts["log_odds"].sigmoid(), atol=1e-6, rtol=0
    )


def test_the_mass_of_yes_and_no_is_reported(judge: AQAReward) -> None:
    mass = score_now(judge, noise(), TEXTS).parts["answer_mass"]
    assert ((mass > 0) & (mass < 1)).all()


@pytest.mark.parametrize("batch_size", [1, 3, 5, 8])
def test_the_size_of_batches_changes_no_score(
    batch_size: int, llm: AudioLLM, judge: AQAReward
) -> None:
    other = AQAReward(llm, "owner/tiny", batch_size=batch_size, warn_below_mass=0.0)
    expected, found = score_now(judge, noise(), TEXTS), score_now(other, noise(), TEXTS)
    torch.testing.assert_close(found.total, expected.total, atol=1e-6, rtol=0)


def test_one_sound_does_not_move_anothers_score(judge: AQAReward) -> None:
    audio, changed = noise(), noise().samples.clone()
    changed[0] *= 5
    before = score_now(judge, audio, TEXTS).total
    after = score_now(judge, Waveform(changed, audio.sample_rate_hz), TEXTS).total
    torch.testing.assert_close(after[1:], before[1:], atol=1e-6, rtol=0)
    assert after[0] != before[0]


def test_the_rate_of_a_sound_hardly_matters(judge: AQAReward) -> None:
    time_s = {rate: torch.arange(rate // 2) / rate for rate in (16_000, 44_100)}
    low, high = (
        score_now(judge, Waveform(0.5 * torch.sin(2 * torch.pi * 440 * t)[None], rate), ["rain"])
        for rate, t in time_s.items()
    )
    assert abs(float(low.total - high.total)) < 0.02


def test_what_is_over_the_models_length_changes_nothing(judge: AQAReward) -> None:
    long = noise(seconds=2.5)
    start = Waveform(long.samples[:, : 2 * 44_100], 44_100)
    assert torch.equal(score_now(judge, long, TEXTS).total, score_now(judge, start, TEXTS).total)


def test_the_id_says_weights_question_precision_and_what_is_heard(judge: AQAReward) -> None:
    fingerprint = judge.llm.question.fingerprint
    rewards = score_now(judge, noise(1), ["rain"])
    assert rewards.judge == f"aqa:tiny[owner/tiny, paper {fingerprint}, float32, first 2 s]"


def test_low_mass_is_warned_about(llm: AudioLLM) -> None:
    with pytest.warns(LowAnswerMassWarning, match=r"aqa:tiny: P\(yes\) \+ P\(no\) is only 0\.0"):
        score_now(AQAReward(llm, "owner/tiny"), noise(1), ["rain"])


def test_concurrent_scoring_mixes_nothing_up(judge: AQAReward) -> None:
    expected = [
        score_now(judge, noise(), TEXTS[shift:] + TEXTS[:shift]).total for shift in range(4)
    ]

    async def all_at_once() -> list[torch.Tensor]:
        work = [judge.score(noise(), TEXTS[shift:] + TEXTS[:shift]) for shift in range(4)]
        return [rewards.total for rewards in await asyncio.gather(*work)]

    for found, one in zip(asyncio.run(all_at_once()), expected, strict=True):
        torch.testing.assert_close(found, one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_sound_is_an_error_that_names_its_row(value: float, judge: AQAReward) -> None:
    audio = noise()
    audio.samples[3, 100] = value
    with pytest.raises(RewardError, match="row 4 holds NaN or infinite"):
        score_now(judge, audio, TEXTS)


def test_texts_and_sounds_must_be_one_each(judge: AQAReward) -> None:
    with pytest.raises(RewardError, match="4 texts for 5 sounds"):
        asyncio.run(judge.score(noise(), TEXTS[:4]))


def test_a_folder_is_loaded_with_its_question_and_dtype(llm: AudioLLM, tmp_path: Path) -> None:
    write_llm(llm, tmp_path / "tiny")
    judge = AQAReward.from_pretrained(
        str(tmp_path / "tiny"), dtype="bfloat16", question="official", name="mine"
    )
    assert judge.name == "mine"
    assert judge.llm.question.yes == ("Yes",)
    assert next(judge.llm.model.parameters()).dtype == torch.bfloat16


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dtype int4"):
        AQAReward.from_pretrained(str(tmp_path), dtype="int4")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        AQAReward.from_pretrained(str(tmp_path))


def test_a_name_that_is_neither_folder_nor_hub_id_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match="no such judge"):
        AQAReward.from_pretrained("not a/hub/id")
