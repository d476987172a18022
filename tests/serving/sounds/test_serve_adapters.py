"""Adapters over HTTP: a model's name adds them to it, and another model's are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')

from starlette.testclient import TestClient
from tiny_model import TINY, random_networks, write_text_encoder, write_tiny_adapter

from resonate_audio.audio.io import decode_audio
from resonate_audio.cli.serve import read_adapters
from resonate_audio.core.errors import CheckpointError, InputError
from resonate_audio.core.types import Audio
from resonate_audio.model.folder import write_networks
from resonate_audio.pipeline.path import Resonate
from resonate_audio.serving.app import create_app
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.sounds.shelf import Catalogue

ASKED = {"input": "rain", "num_inference_steps": 3, "seed": 3, "response_format": "flac"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one adapter of each, and a second one of the first."""
    place = tmp_path_factory.mktemp("adapters")
    write_text_encoder(place / "words")
    for seed, name in enumerate(("tiny", "other")):
        write_networks(place / name, random_networks(TINY, seed), place / "words")
    write_tiny_adapter(place / "rain.safetensors")
    write_tiny_adapter(place / "wind.safetensors", seed=2)
    write_tiny_adapter(place / "bell.safetensors", base_seed=1, base="other")
    return place


def settings(place: Path, models: tuple[str, ...] = ("tiny", "other"), **adapters: str) -> Any:
    return ServeConfig(
        home=place / "home", models={n: str(place / n) for n in models}, adapters=adapters
    )


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[TestClient]:
    files = {name: str(place / f"{name}.safetensors") for name in ("rain", "wind", "bell")}
    config = settings(place, **files | {"wind": f"{files['wind']}:0.5"})
    with TestClient(create_app(config), base_url="http://127.0.0.1") as found:
        yield found


def made(client: TestClient, model: str) -> tuple[Audio, str]:
    answer = client.post("/v1/audio/generate", json=ASKED | {"model": model})
    assert answer.status_code == 200, answer.text
    return decode_audio(answer.content, "answer"), answer.headers["x-resonate-model"]


@pytest.mark.parametrize(
    ("asked", "full", "files"),
    [
        ("tiny+rain", "tiny+rain:1", ["rain.safetensors"]),
        ("tiny+rain:0.250", "tiny+rain:0.25", ["rain.safetensors:0.25"]),
        ("tiny+wind+rain:-1", "tiny+wind:0.5+rain:-1",
         ["wind.safetensors:0.5", "rain.safetensors:-1"]),
    ],
)  # fmt: skip
def test_the_name_of_a_model_adds_adapters_to_it_as_in_python(
    client: TestClient, place: Path, asked: str, full: str, files: list[str]
) -> None:
    there, name = made(client, asked)
    beside = [f"{place}/{file}" for file in files]
    model = Resonate.from_pretrained(place / "tiny", "cpu", adapters=beside)
    [here] = model.generate("rain", seeds=3, num_inference_steps=3)
    plain, _ = made(client, "tiny")
    assert name == full
    assert np.abs(there.samples - here.samples).max() < 2.0**-22
    assert np.abs(there.samples - plain.samples).max() > 1e-3
    assert there.recipe is not None
    assert there.recipe.adapters == tuple(map(str, model.adapters))


def test_models_say_which_adapters_they_take(client: TestClient) -> None:
    listed = {one["id"]: one["adapters"] for one in client.get("/v1/models").json()["data"]}
    assert listed == {
        "tiny": [{"id": "rain", "weight": 1.0}, {"id": "wind", "weight": 0.5}],
        "other": [{"id": "bell", "weight": 1.0}],
    }
    assert client.get("/v1/models/tiny+rain:0.5").json()["id"] == "tiny+rain:0.5"


@pytest.mark.parametrize(
    ("model", "status", "message"),
    [
        ("tiny+bell", 422, "model: bell is an adapter of other, not of tiny"),
        ("tiny+hail", 404, "model: 'hail' is no adapter of tiny here; there is rain, wind"),
        ("tiny+", 404, "model: '' is no adapter of tiny here; there is rain, wind"),
        ("tiny+rain:loud", 422, "model: 'rain:loud': expected an adapter's weight from -10 to 10"),
        ("tiny+rain:nan", 422, "model: 'rain:nan': expected an adapter's weight from -10 to 10"),
        ("tiny+rain+rain", 422, "model: adapter rain is given twice; give it once"),
        ("huge+rain", 404, "model: 'huge+rain' is not served here; there is tiny, other"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    client: TestClient, model: str, status: int, message: str
) -> None:
    for address in ("/v1/audio/generate", "/v1/jobs"):
        body = {key: value for key, value in ASKED.items() if key != "response_format"}
        answer = client.post(address, json=body | {"model": model})
        error = answer.json()["error"]
        assert (answer.status_code, error["message"], error["param"]) == (status, message, "model")


def test_elevenlabs_clients_name_adapters_too(client: TestClient) -> None:
    body = {"text": "rain", "duration_seconds": 0.5, "model_id": "tiny+rain", "seed": 1}
    answer = client.post("/v1/sound-generation?output_format=wav_16000", json=body)
    assert answer.headers["x-resonate-model"] == "tiny+rain:1"
    refused = client.post("/v1/sound-generation", json=body | {"model_id": "tiny+bell"})
    assert refused.json()["error"]["message"].startswith("model_id: bell is an adapter of other")


def test_an_adapter_of_no_model_here_is_refused_at_the_start(place: Path) -> None:
    with pytest.raises(CheckpointError, match=r"bell\.safetensors: an adapter of other .*tiny"):
        Catalogue(settings(place, ("tiny",), bell=str(place / "bell.safetensors")))
    with pytest.raises(CheckpointError, match="no such weights file"):
        Catalogue(settings(place, ("tiny",), rain=str(place / "none.safetensors")))
    with pytest.raises(ValueError, match=r"adapter name 'a\+b'"):
        settings(place, **{"a+b": "rain.safetensors"})


def test_a_file_names_itself_unless_it_is_given_a_name() -> None:
    assert read_adapters(["a/rain.safetensors:0.5", "w=b/rain.safetensors"]) == {
        "rain": "a/rain.safetensors:0.5",
        "w": "b/rain.safetensors",
    }
    with pytest.raises(InputError, match="--adapter rain is given twice"):
        read_adapters(["a/rain.safetensors", "b/rain.safetensors"])
