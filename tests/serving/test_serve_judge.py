"""A judge that is served, asked by the remote judge that training uses."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from running import Running, error_of

from resonate_audio.core.errors import RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards import open_reward
from resonate_audio.rewards.base import score_now
from resonate_audio.rewards.question import WORDINGS
from resonate_audio.rewards.remote import encode_wav, open_remote

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
    assert there.parts["bound_width"].max() == 0


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
    return server.client.post("/v1/chat/completions", json=body | fields)


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
        (QUESTION, b"", "input_audio.data"),
        (QUESTION, b"RIFF", "input_audio.data"),
        (QUESTION, BEEP[:60], "too short"),
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
