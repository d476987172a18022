"""Other people's clients, pointed at the server by its base URL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser_pages import served
from running import QUICK, Running

from resonate_audio.audio.io import decode_audio
from resonate_audio.serving.app import create_app, openapi_text
from resonate_audio.serving.config import ServeConfig

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')
KEY = "correct-horse-battery"
DESCRIPTION = Path(__file__).parents[3] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("clients") / "home"
    options = ["--set", "deadline_s=3", "--set", "max_duration_s=1", "--model", "nano"]
    with Running(home, *options, "--model", f"plain={tiny_model}", key=KEY) as running:
        until_s = time.monotonic() + 120
        while running.client.get("/ready").status_code != 200:  # loading is no part of a deadline
            assert time.monotonic() < until_s
            time.sleep(0.1)
        yield running


def test_openai_lists_models_and_makes_a_sound(server: Running) -> None:
    openai = pytest.importorskip("openai", reason="needs pip install openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        assert [model.id for model in client.models.list()] == ["nano", "plain"]
        assert client.models.retrieve("nano").owned_by == "resonate"
        body = {"input": "rain", "seed": 3, **QUICK}
        answer = client.post(
            "/audio/generate", body=body, cast_to=openai.HttpxBinaryResponseContent
        )
        assert decode_audio(answer.content, "answer").duration_s == 1.0


def test_openai_reads_our_errors(server: Running) -> None:
    openai = pytest.importorskip("openai", reason="needs pip install openai")
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong-wrong") as client,
        pytest.raises(openai.AuthenticationError, match="no valid key"),
    ):
        client.models.list()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.post("/audio/generate", body={"input": ""}, cast_to=object)
        assert caught.value.param == "input"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("none")


def test_elevenlabs_makes_a_sound(server: Running) -> None:
    elevenlabs = pytest.importorskip("elevenlabs", reason="needs pip install elevenlabs")
    httpx = pytest.importorskip("httpx", reason="needs pip install elevenlabs")
    with httpx.Client() as transport:
        client = elevenlabs.ElevenLabs(base_url=server.url, api_key=KEY, httpx_client=transport)
        parts = client.text_to_sound_effects.convert(
            text="rain",
            duration_seconds=0.5,
            prompt_influence=0.3,
            model_id="plain",
            output_format="mp3_22050_32",
        )
        audio = decode_audio(b"".join(parts), "answer")
    assert audio.sample_rate_hz == 22_050
    assert audio.duration_s == pytest.approx(0.5, abs=0.1)


def test_the_influence_of_a_prompt_is_left_out_where_guidance_is_inside(server: Running) -> None:
    address = "/v1/sound-generation?output_format=pcm_8000"
    body = {"text": "rain", "duration_seconds": 0.5, "prompt_influence": 0.3}
    answer = server.client.post(address, json=body)
    plain = server.client.post(address, json=body | {"prompt_influence": None})
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == 2 * 4000
    assert answer.headers["X-Resonate-Influence-Idle"] == "true"
    assert "X-Resonate-Influence-Idle" not in plain.headers


def test_elevenlabs_makes_a_loop_of_thirty_seconds(tmp_path: Path, tiny_model: Path) -> None:
    elevenlabs = pytest.importorskip("elevenlabs", reason="needs pip install elevenlabs")
    httpx = pytest.importorskip("httpx", reason="needs pip install elevenlabs")
    config = ServeConfig(home=tmp_path, models={"tiny": str(tiny_model)}, deadline_s=600)
    with served(create_app(config)) as address, httpx.Client(timeout=600) as transport:
        client = elevenlabs.ElevenLabs(base_url=address, api_key="none", httpx_client=transport)
        parts = client.text_to_sound_effects.convert(
            text="rain", duration_seconds=30.0, loop=True, output_format="pcm_8000"
        )
        samples = np.frombuffer(b"".join(parts), "<i2") / 32767
    assert len(samples) == 30 * 8000
    jumps = np.abs(np.diff(samples))
    assert abs(samples[0] - samples[-1]) <= np.percentile(jumps, 99)


def test_the_description_of_the_api_is_the_one_checked_in() -> None:
    assert DESCRIPTION.read_text(encoding="utf-8") == openapi_text(), (
        "write it again: python -m resonate_audio.serving.describe docs/openapi.json"
    )


def test_any_request_that_the_description_allows_or_nearly_is_answered(server: Running) -> None:
    probe(server, examples=4)


@pytest.mark.slow
def test_hundreds_of_such_requests_are_answered(server: Running) -> None:
    probe(server, examples=60)


def probe(server: Running, examples: int) -> None:
    """Run schemathesis as its users do: every route, good and bad values, no server error."""
    import subprocess
    import sys

    pytest.importorskip("schemathesis", reason="needs pip install schemathesis")
    options = [
        "run", f"{server.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}",
        "--checks", "not_a_server_error,content_type_conformance,response_schema_conformance",
        "--phases", "fuzzing", "--max-examples", str(examples), "--seed", "1",
        "--request-timeout", "60", "--generation-database", "none", "--workers", "1",
        "--suppress-health-check", "all",
    ]  # fmt: skip
    main = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    done = subprocess.run([*main, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
