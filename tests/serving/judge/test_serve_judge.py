"""A judge that is served, asked by the remote judge that training uses."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from running import Running, error_of

from resonate_audio.core.errors import RewardError
from resonate_audio.core.types import Audio, Rewards, Waveform
from resonate_audio.rewards.audio_llm.question import WORDINGS
from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.remote.judge import encode_wav, open_remote
from resonate_audio.serving.errors import ApiError
from resonate_audio.serving.judge.app import Bench, read_verdict
from resonate_audio.serving.metrics import Metrics

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')
RATE_HZ = 16_000
PROMPTS = ["a high beep", "rain falls", "a dog barks twice"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("judge") / "home"
    with Running(home, "--reward", "nano-lalm") as running:
        yield running


@pytest.fixture(scope="module")
def sounds() -> Waveform:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 2 * RATE_HZ, generator=generator) * 0.05
    beep = torch.sin(torch.arange(2 * RATE_HZ) * 2 * torch.pi * 2000 / RATE_HZ) * 0.3
    return Waveform(torch.cat([beep[None], noise[1:]]), RATE_HZ)


@pytest.mark.parametrize("options", ["", "&discover_ids=false", "&question=official&yes=Yes&no=No"])
def test_a_remote_judge_gives_the_scores_that_the_judge_gives_here(
    server: Running, sounds: Waveform, options: str
) -> None:
    here = score_now(open_reward("nano-lalm"), sounds, PROMPTS)
    remote = open_remote(f"{server.url}/v1#model=nano-lalm{options}&warn_below_mass=0")
    there = score_now(remote, sounds, PROMPTS)
    torch.testing.assert_close(there.total, here.total, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        there.parts["log_odds"], here.parts["nano-lalm/log_odds"], atol=1e-3, rtol=1e-4
    )


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A served judge whose scores are decibels and whose name is long."""
    home = tmp_path_factory.mktemp("meter") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        with Running(home, "--reward", LEVELS) as running:
            yield running


LEVELS = "level_judge:decibels,-0.5*level_judge:seconds"


def test_scores_of_any_size_travel_as_they_are(
    meter: Running, sounds: Waveform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    here = score_now(open_reward(LEVELS), sounds, PROMPTS)
    name = LEVELS.replace(",", "%2C")
    there = score_now(open_remote(f"{meter.url}/v1#model={name}"), sounds, PROMPTS)
    assert (here.total < -1).all()
    torch.testing.assert_close(there.total, here.total, atol=1e-5, rtol=0)
    assert (
        there.parts.keys() == here.parts.keys() == {"level_judge:decibels", "level_judge:seconds"}
    )


def test_a_score_that_is_no_probability_is_told_in_words_to_other_clients(meter: Running) -> None:
    answer = chat(meter, QUESTION, BEEP, model=LEVELS, logprobs=True, top_logprobs=20).json()
    choice = answer["choices"][0]
    assert choice["logprobs"] is None
    assert float(choice["message"]["content"]) == pytest.approx(-23.5, abs=0.1)
    assert answer["resonate_score"]["total"] == pytest.approx(-23.5, abs=0.1)


def test_the_odds_of_a_weighted_judge_are_those_of_its_score() -> None:
    parts = {"nano-lalm": torch.tensor([0.9]), "nano-lalm/log_odds": torch.tensor([2.1972246])}
    whole = read_verdict(Rewards(torch.tensor([0.9]), parts, "judge"), 0)
    half = read_verdict(Rewards(torch.tensor([0.45]), parts, "judge"), 0)
    assert whole.log_odds == pytest.approx(2.1972246)
    assert half.log_odds == pytest.approx(-0.2006707)
    assert whole.parts == {"log_odds": pytest.approx(2.1972246)}


def test_the_judge_counts_what_it_does(meter: Running) -> None:
    before = meter.client.get("/metrics").text
    assert chat(meter, QUESTION, BEEP, model=LEVELS).status_code == 200
    assert chat(meter, "What is this?", BEEP, model=LEVELS).status_code == 422
    after = meter.client.get("/metrics")
    assert after.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name, more in {
        'resonate_tasks_total{status="completed"}': 1,
        'resonate_http_requests_total{method="POST",status="422"}': 1,
        "resonate_batch_rows_count": 1,
    }.items():
        assert counted(after.text, name) - counted(before, name) == more
    assert counted(after.text, "resonate_queued_sounds") == 0


def counted(metrics: str, name: str) -> float:
    found = [line for line in metrics.splitlines() if line.startswith(f"{name} ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def test_an_unknown_model_is_refused(server: Running, sounds: Waveform) -> None:
    with pytest.raises(RewardError, match="not served here"):
        score_now(open_remote(f"{server.url}/v1#model=other&retries=0"), sounds, PROMPTS)


def chat(server: Running, text: str, sound: bytes, **fields: Any) -> Any:
    data = base64.b64encode(sound).decode()
    parts = [
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "text", "text": text},
    ]
    body = {"model": "nano-lalm", "messages": [{"role": "user", "content": parts}]}
    text = json.dumps(body | fields)
    headers = {"Content-Type": "application/json"}
    return server.client.post("/v1/chat/completions", content=text, headers=headers)


BEEP = encode_wav(np.sin(np.arange(16_000, dtype=np.float32)) * np.float32(0.1), RATE_HZ)
QUESTION = WORDINGS["paper"].replace("{c}", "a beep")


def long_silence() -> bytes:
    """An hour in a few kilobytes."""
    buffer = io.BytesIO()
    zeros = np.zeros(3600 * 8000, dtype=np.int16)
    soundfile.write(buffer, zeros, 8000, format="FLAC", subtype="PCM_16")
    assert len(buffer.getvalue()) < 1_000_000
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "sound", "named"),
    [
        ("What is this?", BEEP, "messages"),
        (WORDINGS["paper"].replace("{c}", ""), BEEP, "messages"),
        (WORDINGS["paper"].replace("{c}", "half \ud800"), BEEP, "half of a surrogate pair"),
        (QUESTION, b"", "input_audio.data"),
        (QUESTION, b"RIFF", "input_audio.data"),
        (QUESTION, BEEP[:60], "cut off"),
        (QUESTION, b"not a sound at all", "input_audio.data"),
        (QUESTION, long_silence(), "3600 s of sound; 60 s at most"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(
    server: Running, text: str, sound: bytes, named: str
) -> None:
    answer = chat(server, text, sound)
    assert answer.status_code == 422, answer.text
    assert named in error_of(answer)["message"]


def test_a_turn_without_sound_is_refused(server: Running) -> None:
    body = {"model": "nano-lalm", "messages": [{"role": "user", "content": QUESTION}]}
    answer = server.client.post("/v1/chat/completions", json=body)
    assert error_of(answer)["param"] == "messages"


def test_an_answer_is_a_chat_completion_with_its_likeliest_word(server: Running) -> None:
    answer = chat(server, QUESTION, BEEP, logprobs=True, top_logprobs=20).json()
    assert answer["choices"][0]["message"]["content"].strip().lower() in ("yes", "no")
    assert server.client.get("/v1/models").json()["data"][0]["id"] == "nano-lalm"


class Fussy:
    """A judge that has no score for one caption."""

    name = "fussy"

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        if "a ghost" in prompts:
            raise RewardError("there are no ghosts")
        return Rewards(torch.full((len(prompts),), 0.5), {}, self.name)


def test_what_one_sound_lacks_is_not_told_of_those_that_were_judged_with_it() -> None:
    async def ask_all() -> list[Any]:
        bench = Bench(Fussy(), 8, Metrics())
        audio = Audio(np.zeros(RATE_HZ, np.float32), RATE_HZ)
        asked = [bench.ask(audio, caption) for caption in ("rain", "a ghost", "wind")]
        answers = asyncio.gather(*asked, return_exceptions=True)
        work = asyncio.create_task(bench.work())
        try:
            return await answers
        finally:
            work.cancel()

    rain, ghost, wind = asyncio.run(ask_all())
    assert (rain.total, wind.total) == (0.5, 0.5)
    assert isinstance(ghost, ApiError)
    assert (ghost.status, str(ghost)) == (422, "fussy: there are no ghosts")
