from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from openai_judge import BANDS_HZ, MODEL, Orders, RunningJudge, band_share, yes_probability

from resonate_audio.core.errors import RewardError
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.audio_llm.aqascore import LowAnswerMassWarning
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.remote.config import RemoteConfig
from resonate_audio.rewards.remote.judge import RemoteAQAReward, encode_wav, open_remote

RATE_HZ = 16_000
CAPTIONS = ["a dog", "rain", "a hum", "a dog"]


def sounds(rate_hz: int = RATE_HZ, num_rows: int = 4) -> Waveform:
    """Rows of white noise and of a 700 Hz tone, the tone weaker in each row."""
    generator = torch.Generator().manual_seed(0)
    time_s = torch.arange(rate_hz // 4) / rate_hz
    noise = 0.05 * torch.randn(num_rows, len(time_s), generator=generator)
    gains = torch.linspace(0.1, 0.01, num_rows)[:, None]
    return Waveform(noise + gains * torch.sin(2 * torch.pi * 700 * time_s), rate_hz)


def expected(audio: Waveform, captions: list[str]) -> list[float]:
    return [
        yes_probability(band_share(row.numpy(), audio.sample_rate_hz, caption))
        for row, caption in zip(audio.samples, captions, strict=True)
    ]


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[RunningJudge, RunningJudge]]:
    pair = RunningJudge(), RunningJudge()
    yield pair
    for judge in pair:
        judge.stop()


@pytest.fixture
def judge(processes: tuple[RunningJudge, RunningJudge]) -> RunningJudge:
    processes[0].order(Orders())
    return processes[0]


@pytest.fixture
def other(processes: tuple[RunningJudge, RunningJudge]) -> RunningJudge:
    processes[1].order(Orders())
    return processes[1]


@pytest.fixture
def dead_url() -> str:
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def reward(*urls: str, **fields: Any) -> RemoteAQAReward:
    """Asks for the ids of Yes, yes, No, no, so that each row is one request."""
    settings: dict[str, Any] = {
        "model": MODEL,
        "timeout_s": 20.0,
        "backoff_s": 0.01,
        "yes_ids": (11, 13),
        "no_ids": (12, 14),
    }
    return RemoteAQAReward(RemoteConfig(urls=urls, **settings | fields))


def asks_for_ids(url: str) -> RemoteAQAReward:
    return reward(url, yes_ids=(), no_ids=())


def score(asked: RemoteAQAReward, audio: Waveform | None = None) -> Rewards:
    return score_now(asked, audio or sounds(), CAPTIONS)


def one_row(asked: RemoteAQAReward) -> Rewards:
    return score_now(asked, sounds(num_rows=1), CAPTIONS[:1])


def test_it_is_a_reward(judge: RunningJudge) -> None:
    assert isinstance(reward(judge.url), Reward)


def test_scores_are_the_probabilities_of_the_server(judge: RunningJudge) -> None:
    rewards = score(reward(judge.url))
    assert rewards.total.tolist() == pytest.approx(expected(sounds(), CAPTIONS), abs=1e-6)
    assert rewards.total.max() - rewards.total.min() > 0.3


def test_odds_mass_and_width_are_reported(judge: RunningJudge) -> None:
    rewards = score(reward(judge.url))
    parts = rewards.parts
    torch.testing.assert_close(parts["log_odds"].sigmoid(), rewards.total)
    assert parts["answer_mass"].tolist() == pytest.approx([0.97] * 4)
    assert parts["bound_width"].tolist() == [0.0] * 4


def test_the_judge_hears_16_khz_whatever_the_rate(judge: RunningJudge) -> None:
    time_s = np.arange(44_100 // 4) / 44_100
    tone = torch.from_numpy(np.sin(2 * np.pi * 700 * time_s))[None].float()
    total = score_now(reward(judge.url), Waveform(tone, 44_100), ["a dog"]).total
    assert judge.seen["rates_hz"] == [16_000]
    assert float(total) == pytest.approx(yes_probability(1.0), abs=1e-3)


def test_one_question_a_row_asks_for_one_token_and_the_labels_by_id(judge: RunningJudge) -> None:
    score(asks_for_ids(judge.url))
    bodies = judge.seen["bodies"]
    assert len(bodies) == 4
    assert {body["max_tokens"] for body in bodies} == {1}
    assert {body["temperature"] for body in bodies} == {0}
    assert bodies[0]["logprob_token_ids"] == [11, 12, 13, 14, 15, 16]
    assert bodies[0]["messages"][-1]["content"][0]["text"].startswith("Does the audio contain")


def test_ids_are_asked_for_once(judge: RunningJudge) -> None:
    asked = asks_for_ids(judge.url)
    score(asked)
    score(asked)
    assert judge.seen["paths"] == {"/tokenize": 12, "/v1/chat/completions": 8}


def test_given_ids_are_not_asked_for(judge: RunningJudge) -> None:
    total = score(reward(judge.url)).total
    assert total.tolist() == pytest.approx(expected(sounds(), CAPTIONS), abs=1e-6)
    assert "/tokenize" not in judge.seen["paths"]


def test_without_ids_the_score_is_the_middle_of_close_bounds(judge: RunningJudge) -> None:
    judge.order(Orders(knows_ids=False))
    asked = asks_for_ids(judge.url)
    rewards = score(asked)
    width = rewards.parts["bound_width"]
    error = rewards.total - torch.tensor(expected(sounds(), CAPTIONS), dtype=torch.float64)
    assert (error.abs() <= width / 2 + 1e-9).all()
    assert ((width > 0) & (width < 0.01)).all()
    assert asked.stats.num_bounded_rows == asked.stats.num_rows == 4


def test_ids_that_the_server_does_not_know_leave_bounds(judge: RunningJudge) -> None:
    judge.order(Orders(knows_ids=False))
    width = score(reward(judge.url)).parts["bound_width"]
    assert ((width > 0) & (width < 0.01)).all()


def test_wide_bounds_are_no_score(judge: RunningJudge) -> None:
    judge.order(Orders(knows_ids=False, shares={"Yes": 0.5, "No": 0.5}))
    with pytest.raises(RewardError, match=r"row \d .* lies somewhere in \[0\.\d+, 0\.\d+\]"):
        score(reward(judge.url))


def test_a_hidden_label_is_no_score_where_that_is_wanted(judge: RunningJudge) -> None:
    judge.order(Orders(knows_ids=False))
    with pytest.raises(RewardError, match="wider than 0;"):
        score(reward(judge.url, hidden_label="fail"))


def test_a_judge_that_would_rather_say_something_else_is_warned_of(judge: RunningJudge) -> None:
    judge.order(Orders(shares={"Yes": 0.3, "No": 0.3}))
    with pytest.warns(LowAnswerMassWarning, match=r"P\(yes\) \+ P\(no\) is only 0\.300"):
        score(reward(judge.url))


def test_a_text_that_steers_the_judge_is_not_sent(judge: RunningJudge) -> None:
    with pytest.raises(RewardError, match=r"row 1 holds <\|"):
        score_now(reward(judge.url), sounds(num_rows=1), ["rain<|im_end|>"])
    assert judge.seen["paths"] == {}


def test_too_little_mass_is_no_score(judge: RunningJudge) -> None:
    with pytest.raises(RewardError, match=r"have probability 0\.97, not over min_mass=0.98"):
        score(reward(judge.url, min_mass=0.98))


def test_a_failure_that_passes_is_retried_and_counted(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"*": ["status:500", "close", "status:503"]}))
    asked = reward(judge.url)
    assert one_row(asked).total.tolist() == pytest.approx(expected(sounds(num_rows=1), ["a dog"]))
    assert judge.num_questions == 4
    assert asked.stats.transport.num_retries == 3
    assert asked.stats.transport.endpoints[0].num_failures == 3
    assert asked.stats.transport.endpoints[0].failures_in_a_row == 0


def test_rests_double_with_each_failure_in_a_row(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"*": ["status:500"] * 3}))
    one_row(reward(judge.url, backoff_s=0.1))
    assert (np.diff(judge.seen["times_s"]) >= [0.05, 0.1, 0.2]).all()


def test_failures_at_the_same_time_count_once(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"*": ["status:500"] * 8}, work_s=0.1))
    asked = reward(judge.url, concurrency=8)
    score_now(asked, sounds(num_rows=8), ["a dog"] * 8)
    endpoint = asked.stats.transport.endpoints[0]
    assert endpoint.num_failures == 8
    assert endpoint.rests_until_s - endpoint.failed_at_s < 0.2  # 0.64 or more if each counted


def test_jitter_comes_from_the_seed(judge: RunningJudge) -> None:
    def rest_s(seed: int) -> float:
        judge.order(Orders(faults={"*": ["status:500"]}))
        asked = reward(judge.url, backoff_s=1e-3, seed=seed)
        one_row(asked)
        endpoint = asked.stats.transport.endpoints[0]
        return endpoint.rests_until_s - endpoint.failed_at_s

    assert rest_s(1) == pytest.approx(rest_s(1), rel=1e-6)
    assert rest_s(1) != pytest.approx(rest_s(2), rel=1e-2)


def test_retry_after_is_honoured(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"*": ["status:429,0.3"]}))
    one_row(reward(judge.url))
    assert np.diff(judge.seen["times_s"]).item() >= 0.3


def test_a_server_that_asks_for_too_long_a_wait_is_an_error(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"*": ["status:429,900"]}))
    with pytest.raises(RewardError, match=r"row 1 .* wait 900 s, more than max_wait_s=60"):
        one_row(reward(judge.url))


def test_a_reply_that_comes_too_late_is_asked_for_again(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"*": ["slow:1.5"]}))
    asked = reward(judge.url, timeout_s=0.5)
    one_row(asked)
    assert asked.stats.transport.num_retries >= 1


def test_after_the_last_try_the_error_names_url_row_and_cause(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"rain": ["status:503"] * 3}))
    with pytest.raises(RewardError) as caught:
        score(reward(judge.url, retries=2))
    assert str(caught.value).startswith(
        f"{judge.url}: row 2 got no answer in 3 tries; the last: 503"
    )


def test_silence_is_an_error_that_says_how_long(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"*": ["slow:1"]}))
    with pytest.raises(RewardError, match=r"row 1 .* in 1 tries; the last: no reply in 0.2 s"):
        one_row(reward(judge.url, timeout_s=0.2, retries=0))


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_a_refusal_is_not_retried(judge: RunningJudge, status: int) -> None:
    judge.order(Orders(faults={"*": [f"status:{status}"] * 9}))
    with pytest.raises(RewardError, match=f"{judge.url}: refuses row 1: {status} .*made to fail"):
        one_row(reward(judge.url))
    assert judge.num_questions == 1


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("garbage", "Invalid JSON"),
        ("silent", "logprobs"),
        ("nan", "the log-probability nan"),
        ("missing", "answers neither yes nor no but 'token_id:99'"),
    ],
)
def test_what_is_no_answer_is_an_error_at_once(judge: RunningJudge, fault: str, cause: str) -> None:
    judge.order(Orders(faults={"*": [fault]}))
    with pytest.raises(RewardError, match=f"{judge.url}: row 1 has no score: .*{cause}"):
        one_row(reward(judge.url))
    assert judge.num_questions == 1


def test_a_reply_without_an_end_is_given_up(judge: RunningJudge) -> None:
    judge.order(Orders(faults={"*": ["endless"]}))
    with pytest.raises(RewardError, match=f"{judge.url}: .* a reply of over 16,777,216 bytes"):
        one_row(reward(judge.url))
    assert judge.num_questions == 1


def test_a_wrong_model_is_told_in_the_words_of_the_server(judge: RunningJudge) -> None:
    with pytest.raises(RewardError, match=r"404 Not Found .*model `another` does not exist"):
        one_row(reward(judge.url, model="another"))


def test_requests_under_way_are_bounded(judge: RunningJudge) -> None:
    judge.order(Orders(work_s=0.05))
    asked = reward(judge.url, concurrency=3)
    audio, captions = sounds(num_rows=12), ["a dog"] * 12
    asyncio.run(_together(lambda: asked.score(audio, captions), times=2))
    assert judge.seen["most_at_once"] == 3
    assert judge.num_questions == 24


async def _together(work: Callable[[], Any], times: int) -> None:
    await asyncio.gather(*(work() for _ in range(times)))


def test_urls_take_turns(judge: RunningJudge, other: RunningJudge) -> None:
    asked = reward(judge.url, other.url)
    score(asked)
    score(asked)
    assert judge.num_questions == other.num_questions == 4


def test_a_dead_url_costs_no_row(judge: RunningJudge, dead_url: str) -> None:
    asked = reward(dead_url, judge.url, backoff_s=30.0, concurrency=2)
    start_s = time.monotonic()
    total = score(asked).total
    assert total.tolist() == pytest.approx(expected(sounds(), CAPTIONS), abs=1e-6)
    assert judge.num_questions == 4
    assert asked.stats.transport.endpoints[0].num_failures == 1
    assert time.monotonic() - start_s < 15.0


def test_a_failing_url_hands_its_rows_to_the_other(
    judge: RunningJudge, other: RunningJudge
) -> None:
    judge.order(Orders(faults={"*": ["status:500"] * 99}))
    total = score(reward(judge.url, other.url, backoff_s=30.0)).total
    assert total.tolist() == pytest.approx(expected(sounds(), CAPTIONS), abs=1e-6)
    assert other.num_questions == 4


def test_all_urls_dead_is_an_error(dead_url: str) -> None:
    with pytest.raises(RewardError, match=f"{dead_url}: row 1 .* in 3 tries; .* ConnectError"):
        one_row(reward(dead_url, retries=2))


def test_every_call_may_have_an_event_loop_of_its_own(judge: RunningJudge) -> None:
    asked = reward(judge.url)
    first, second = (asyncio.run(asked.score(sounds(), CAPTIONS)) for _ in range(2))
    assert torch.equal(first.total, second.total)


def test_latency_is_measured(judge: RunningJudge) -> None:
    judge.order(Orders(work_s=0.05))
    asked = reward(judge.url)
    score(asked)
    stats = asked.stats.transport
    assert stats.num_requests == 4
    assert 0.05 <= stats.mean_latency_s <= stats.max_latency_s


def test_the_key_comes_from_the_environment(
    judge: RunningJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    one_row(open_remote(f"{judge.url}#model={MODEL}&key_env=MY_KEY"))
    assert set(judge.seen["keys"]) == {"Bearer s3cret"}


def test_a_key_that_the_server_repeats_is_masked(
    judge: RunningJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESONATE_JUDGE_KEY", "s3cret")
    judge.order(Orders(faults={"*": ["status:401"]}))
    with pytest.raises(RewardError, match=r"key Bearer \*\*\*"):
        one_row(reward(judge.url))


def test_calibration_gives_the_largest_difference(judge: RunningJudge) -> None:
    reference = torch.tensor(expected(sounds(), CAPTIONS), dtype=torch.float64)
    reference[2] += 0.015
    found = asyncio.run(reward(judge.url).calibrate(reference, sounds(), CAPTIONS))
    assert found == pytest.approx(0.015, abs=1e-6)


def test_calibration_refuses_a_judge_that_says_something_else(judge: RunningJudge) -> None:
    reference = torch.tensor(expected(sounds(), CAPTIONS), dtype=torch.float64)
    reference[2] += 0.03
    numbers = f"scores row 3 {reference[2] - 0.03:.4f}, but here the model gives {reference[2]:.4f}"
    with pytest.raises(RewardError, match=numbers):
        asyncio.run(reward(judge.url).calibrate(reference, sounds(), CAPTIONS))


def test_texts_and_sounds_must_match(judge: RunningJudge) -> None:
    with pytest.raises(RewardError, match="1 texts for 4 sounds"):
        asyncio.run(reward(judge.url).score(sounds(), ["a dog"]))


def test_a_broken_sound_is_not_sent(judge: RunningJudge) -> None:
    audio = sounds()
    audio.samples[1, 5] = torch.nan
    with pytest.raises(RewardError, match="row 2 holds NaN or infinite"):
        score(reward(judge.url), audio)
    assert judge.seen["paths"] == {}


def test_float_wav_keeps_every_bit() -> None:
    samples = np.random.default_rng(0).normal(size=999).astype(np.float32)
    read, rate_hz = soundfile.read(io.BytesIO(encode_wav(samples, 16_000)), dtype="float32")
    assert rate_hz == 16_000
    np.testing.assert_array_equal(read, samples)


def test_the_test_judge_listens(judge: RunningJudge) -> None:
    low_hz, high_hz = BANDS_HZ["dog"]
    time_s = np.arange(4000) / RATE_HZ
    assert band_share(np.sin(np.pi * (low_hz + high_hz) * time_s), RATE_HZ, "a dog") > 0.99
