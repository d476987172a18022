"""The API, asked over HTTP from a process of its own."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import QUICK, Running, error_of

from resonate_audio.audio.io import FORMATS, decode_audio, encode_audio
from resonate_audio.pipeline.path import Resonate

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Running]:
    """Of nano, and of a model that guidance is added to."""
    models = ("--model", "nano", "--model", f"plain={tiny_model}")
    with Running(tmp_path_factory.mktemp("serve") / "home", *models) as running:
        yield running


def test_a_sound_comes_with_its_facts_in_the_headers(server: Running) -> None:
    answer = server.generate(seed=7)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-resonate-seed"] == "7"
    assert answer.headers["x-resonate-model"] == "nano"
    assert answer.headers["x-resonate-duration"] == "1"
    assert answer.headers["x-resonate-sample-rate"] == "44100"
    audio = decode_audio(answer.content, "answer")
    assert (audio.sample_rate_hz, len(audio.samples)) == (44_100, 44_100)
    assert float(answer.headers["x-resonate-peak"]) == pytest.approx(
        abs(audio.samples).max(), abs=1e-4
    )


@pytest.mark.parametrize(("model", "negative"), [("nano", ""), ("plain", "wind")])
def test_it_is_the_file_that_the_pipeline_makes_of_the_seed(
    server: Running, tiny_model: Path, model: str, negative: str
) -> None:
    answer = server.generate(input="a dog barks", negative_prompt=negative, seed=3, model=model)
    source = "nano" if model == "nano" else tiny_model
    [here] = Resonate.from_pretrained(source, "cpu").generate(
        "a dog barks", negative, 1.0, num_inference_steps=2, seeds=3
    )
    there = decode_audio(answer.content, "answer")
    expected = decode_audio(encode_audio(here, FORMATS[".wav"]), "here")
    assert (there.samples == expected.samples).all()


def test_a_seed_gives_the_same_bytes_alone_and_among_fifteen_others(server: Running) -> None:
    wanted = {"input": "rain on a roof", "seed": 11}
    alone = server.generate(**wanted).content
    found: dict[int, bytes] = {}

    def ask(number: int) -> None:
        own = wanted if number == 7 else {"input": f"sound {number}", "seed": number}
        found[number] = server.generate(**own).content

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[7] == alone
    sizes = batch_sizes(server)
    assert sum(count for size, count in sizes.items() if size > 1) > 0, sizes


def batch_sizes(server: Running) -> dict[float, int]:
    """Batches by their size, from the metrics: each bucket less the one before."""
    sizes, before = {}, 0
    for line in server.client.get("/metrics").text.splitlines():
        if line.startswith('resonate_batch_rows_bucket{le="') and "Inf" not in line:
            bound, count = float(line.split('"')[1]), int(line.split()[-1])
            sizes[bound], before = count - before, count
    return sizes


@pytest.mark.parametrize(
    ("format", "media_type", "rate_hz"),
    [
        ("wav", "audio/wav", 44_100),
        ("flac", "audio/flac", 44_100),
        ("mp3", "audio/mpeg", 44_100),
        ("ogg", "audio/ogg", 44_100),
        ("opus", "audio/ogg; codecs=opus", 48_000),
    ],
)
def test_every_format_can_be_read_back(
    server: Running, format: str, media_type: str, rate_hz: int
) -> None:
    answer = server.generate(response_format=format)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-resonate-sample-rate"] == str(rate_hz)
    audio = decode_audio(answer.content, format)
    assert audio.duration_s == pytest.approx(1.0, abs=0.1)
    assert audio.recipe is not None


def test_a_sample_rate_is_resampled_to(server: Running) -> None:
    answer = server.generate(sample_rate=16_000)
    audio = decode_audio(answer.content, "answer")
    assert (audio.sample_rate_hz, len(audio.samples)) == (16_000, 16_000)


def test_several_sounds_come_as_a_zip(server: Running) -> None:
    answer = server.generate(n=3, seed=5, response_format="flac")
    assert answer.headers["x-resonate-seed"] == "5,6,7"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = archive.namelist()
        facts = json.loads(archive.read("sounds.json"))
        assert decode_audio(archive.read(names[2]), "third").duration_s == 1.0
    assert names == ["01-seed-5.flac", "02-seed-6.flac", "03-seed-7.flac", "sounds.json"]
    assert [one["seed"] for one in facts] == [5, 6, 7]


def test_sounds_come_as_json_in_the_order_of_their_seeds(server: Running) -> None:
    body = server.generate(seeds=[9, 2], **{"return": "json"}).json()
    assert [one["seed"] for one in body["data"]] == [9, 2]
    alone = server.generate(seed=2).content
    assert base64.b64decode(body["data"][1]["b64_json"]) == alone


def test_elevenlabs_form_gives_mp3(server: Running) -> None:
    body = {"text": "rain", "duration_seconds": 0.5, "prompt_influence": 0.3, "model_id": "plain"}
    answer = server.client.post("/v1/sound-generation", json=body)
    assert answer.headers["content-type"] == "audio/mpeg"
    audio = decode_audio(answer.content, "answer")
    assert audio.sample_rate_hz == 44_100
    assert audio.recipe is not None
    assert audio.recipe.guidance_scale == 4.5


def test_elevenlabs_form_gives_plain_samples(server: Running) -> None:
    body = {"text": "rain", "duration_seconds": 0.5}
    path = "/v1/sound-generation?output_format=pcm_8000"
    assert len(server.client.post(path, json=body).content) == 2 * 4000


def test_curl_gets_a_sound(server: Running) -> None:
    command = [
        "curl", "-s", f"{server.url}/v1/audio/generate", "-H", "Content-Type: application/json",
        "-d", json.dumps({"input": "rain", **QUICK}), "-w", "%{http_code} %{content_type}",
        "-o", "/dev/null",
    ]  # fmt: skip
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"200 audio/wav"


def test_a_cut_prompt_is_told(server: Running) -> None:
    assert server.generate(input="rain " * 200).headers["x-resonate-prompt-cut"] == "true"
    assert "x-resonate-prompt-cut" not in server.generate().headers


def test_models_are_listed_with_what_they_make(server: Running) -> None:
    nano, plain = server.client.get("/v1/models").json()["data"]
    assert (nano["id"], plain["id"]) == ("nano", "plain")
    assert (nano["min_duration_s"], nano["window_s"], nano["max_duration_s"]) == (0.1, 10.0, 60.0)
    assert server.client.get("/v1/models/nano").json()["id"] == "nano"
    assert error_of(server.client.get("/v1/models/none"))["code"] == "model_not_found"


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"input": ""}, 422, "input"),
    ({"input": "   "}, 422, "input"),
    ({"input": "x" * 2001}, 422, "input"),
    ({"input": 5}, 422, "input"),
    ({"input": "\ud800"}, 422, "input"),
    ({"audio_length": 0.0}, 422, "audio_length"),
    ({"audio_length": -1.0}, 422, "audio_length"),
    ({"audio_length": 99.0}, 422, "audio_length"),
    ({"audio_length": "1"}, 422, "audio_length"),
    ({"num_inference_steps": 0}, 422, "num_inference_steps"),
    ({"num_inference_steps": 10**9}, 422, "num_inference_steps"),
    ({"num_inference_steps": 2.5}, 422, "num_inference_steps"),
    ({"guidance_scale": -1.0}, 422, "guidance_scale"),
    ({"guidance_scale": 1e300}, 422, "guidance_scale"),
    ({"seed": -1}, 422, "seed"),
    ({"seed": 2**63}, 422, "seed"),
    ({"seed": 10**400}, 422, "seed"),
    ({"seeds": []}, 422, "seeds"),
    ({"seeds": [1, "2"]}, 422, "seeds.1"),
    ({"n": 0}, 422, "n"),
    ({"n": 65}, 422, "n"),
    ({"n": True}, 422, "n"),
    ({"n": 2, "seeds": [1]}, 422, "n is 2"),
    ({"seed": 1, "seeds": [1]}, 422, "seed and seeds"),
    ({"seed": 2**63 - 1, "n": 2}, 422, "seed"),
    ({"model": "gpt"}, 404, "model"),
    ({"model": "../../etc"}, 404, "model"),
    ({"response_format": "aac"}, 422, "response_format"),
    ({"sample_rate": 1}, 422, "sample_rate"),
    ({"return": "url"}, 422, "return"),
    ({"return": "audio", "n": 2}, 422, "return"),
    ({"voice": "alloy"}, 422, "voice"),
    ({"negative_prompt": 3}, 422, "negative_prompt"),
]


@pytest.mark.parametrize(("fields", "status", "named"), BAD)
def test_a_bad_value_is_refused_by_name(
    server: Running, fields: dict[str, Any], status: int, named: str
) -> None:
    answer = server.client.post(
        "/v1/audio/generate",
        content=json.dumps({"input": "rain", **QUICK, **fields}).encode(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == status, answer.text
    assert named in error_of(answer)["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"input": NaN}', b'"rain"', b"[" * 100_000]
)
def test_a_body_that_is_no_object_is_refused(server: Running, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = server.client.post("/v1/audio/generate", content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    error_of(answer)


def test_a_huge_prompt_is_refused_before_it_is_read(server: Running) -> None:
    answer = server.generate(input="x" * 1_100_000)
    assert answer.status_code == 413
    assert error_of(answer)["param"] == "body"


def test_a_huge_body_without_a_length_is_refused(server: Running) -> None:
    parts = (b"x" * 100_000 for _ in range(20))
    headers = {"Content-Type": "application/json"}
    answer = server.client.post("/v1/audio/generate", content=parts, headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize("text", ["mp3", "aac_44100", "mp3_1", "pcm_999999", "../x", ""])
def test_a_bad_output_format_is_refused(server: Running, text: str) -> None:
    answer = server.client.post(
        "/v1/sound-generation", params={"output_format": text}, json={"text": "rain"}
    )
    assert answer.status_code == 422
    assert "output_format" in error_of(answer)["message"]


def test_elevenlabs_fields_are_called_by_their_own_names(server: Running) -> None:
    answer = server.client.post(
        "/v1/sound-generation", json={"text": "rain", "duration_seconds": 61.0}
    )
    assert answer.status_code == 422
    assert error_of(answer)["param"] == "duration_seconds"
    answer = server.client.post("/v1/sound-generation", json={"text": "rain", "model_id": "no"})
    assert (answer.status_code, error_of(answer)["param"]) == (404, "model_id")
    assert error_of(answer)["message"].startswith("model_id: 'no' is not served here")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guidance_scale", 3),
        ("negative_prompt", "wind"),
        ("num_inference_steps", 200),
        ("solver", "heun"),
    ],
)
def test_what_a_model_does_not_take_is_named_by_its_field(
    server: Running, name: str, value: Any
) -> None:
    answer = server.generate(**{name: value})
    assert (answer.status_code, error_of(answer)["param"]) == (422, name)


def test_a_body_that_is_no_json_is_told_what_json_is(server: Running) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b'{"input": "\xff"}', b'{"seed": ' + b"9" * 5000 + b"}", b"[" * 100_000):
        answer = server.client.post("/v1/audio/generate", content=body, headers=headers)
        assert answer.status_code == 400
        assert error_of(answer)["param"] == "body"
        assert "expected JSON in UTF-8" in error_of(answer)["message"]


def test_unknown_paths_and_methods_have_the_envelope(server: Running) -> None:
    assert error_of(server.client.post("/v1/nothing"))["type"] == "not_found_error"
    assert server.client.get("/v1/audio/generate").status_code == 405
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/js/..%2f..%2fapp.py"):
        assert server.client.get(path).status_code == 404


def test_pages_and_answers_carry_a_content_policy(server: Running) -> None:
    for path in ("/", "/v1/models", "/v1/jobs/none"):
        headers = server.client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_an_idle_connection_takes_the_next_request(server: Running) -> None:
    address = server.client.base_url
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        for wait_s in (6.0, 0.0):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            connection.recv(65_536)
            time.sleep(wait_s)


def test_logs_hold_no_prompt(server: Running) -> None:
    server.generate(input="a very secret sound " * 30)
    server.generate(input="a very secret sound", n=99)
    assert "POST /v1/audio/generate 200" in server.log.read_text()
    assert "secret" not in server.log.read_text()


def test_metrics_count_requests_and_batches(server: Running) -> None:
    server.generate()
    text = server.client.get("/metrics").text
    assert 'resonate_http_requests_total{method="POST",status="200"}' in text
    assert "resonate_queued_sounds 0" in text
    assert 'resonate_tasks_total{status="succeeded"}' in text


def test_a_client_that_goes_away_frees_the_queue(server: Running) -> None:
    import httpx2

    with pytest.raises(httpx2.TimeoutException):
        server.client.post(
            "/v1/audio/generate",
            json={"input": "rain", "num_inference_steps": 25, "n": 64},
            timeout=0.5,
        )
    until_s = time.monotonic() + 10
    while server.client.get("/health").json()["queued_sounds"]:
        assert time.monotonic() < until_s
        time.sleep(0.05)
