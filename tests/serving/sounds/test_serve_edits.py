"""Work with sounds over HTTP, sent along or of the library; each refusal names its field."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')

from starlette.testclient import TestClient

from resonate_audio.audio.io import FORMATS, decode_audio, encode_audio
from resonate_audio.core.sampling import SolverSettings
from resonate_audio.core.types import Audio
from resonate_audio.pipeline.path import Resonate
from resonate_audio.serving.app import create_app
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.sounds.store import Sound

RATE_HZ, STEPS, LONGEST_S = 12_000, 4, 6.0
FORM = {"num_inference_steps": str(STEPS), "seed": "3"}


def noise(length_s: float, seed: int = 0, rate_hz: int = RATE_HZ) -> Audio:
    drawn = np.random.default_rng(seed).normal(0, 0.1, round(length_s * rate_hz))
    return Audio(np.clip(drawn, -1, 1).astype(np.float32), rate_hz)


def flac(audio: Audio) -> bytes:
    return encode_audio(audio, FORMATS[".flac"])


SOUND = flac(noise(1.5))
HEARD = decode_audio(SOUND, "sound")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[TestClient]:
    home = tmp_path_factory.mktemp("edits")
    config = ServeConfig(home=home, models={"tiny": str(tiny_model)}, max_duration_s=LONGEST_S)
    with TestClient(create_app(config), base_url="http://127.0.0.1") as found:
        yield found


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Resonate:
    return Resonate.from_pretrained(tiny_model, "cpu")


def send(client: TestClient, kind: str, data: bytes = SOUND, **fields: str) -> Any:
    return client.post(f"/v1/audio/{kind}", data=FORM | fields, files={"source": ("a.flac", data)})


def made(answer: Any) -> Audio:
    assert answer.status_code == 200, answer.text
    return decode_audio(answer.content, "answer")


def take_in(client: TestClient, data: bytes = SOUND, name: str = "door.flac") -> dict[str, Any]:
    answer = client.post("/v1/library", files={"audio": (name, data)})
    assert answer.status_code == 201, answer.text
    kept: dict[str, Any] = answer.json()
    return kept


def make(client: TestClient, **job: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/jobs", json={"num_inference_steps": STEPS, "seed": 3} | job)
    assert answer.status_code == 202, answer.text
    until_s = time.monotonic() + 60
    while (now := client.get(f"/v1/jobs/{answer.json()['id']}").json())["ended"] is None:
        assert time.monotonic() < until_s, now
        time.sleep(0.02)
    assert now["status"] == "succeeded", now
    assert now["step"] == now["total_steps"] == STEPS
    sounds: list[dict[str, Any]] = now["sounds"]
    return sounds


def audio_of(client: TestClient, sound: dict[str, Any]) -> Audio:
    return made(client.get(f"/v1/library/{sound['id']}/audio", params={"response_format": "flac"}))


def error_of(answer: Any, status: int = 422) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    return found


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("vary", {"strength": "0.6"}),
        ("reword", {"input": "dog"}),
        ("replace", {"spans": "[[0.5, 0.9]]", "input": "rain"}),
        ("extend", {"after_s": "0.4", "before_s": "0.2"}),
        ("loop", {"seam_s": "0.3"}),
    ],
)
def test_what_is_sent_is_remade_as_in_python(
    client: TestClient, model: Resonate, kind: str, fields: dict[str, str]
) -> None:
    there = made(send(client, kind, response_format="flac", **fields))
    given = {
        name: value if name == "input" else json.loads(value) for name, value in fields.items()
    }
    if "spans" in given:
        given["spans"] = [tuple(span) for span in given["spans"]]
    prompt = {"prompt": given.pop("input")} if "input" in given else {}
    [here] = getattr(model, kind)(HEARD, **given, **prompt, seeds=3, num_inference_steps=STEPS)
    assert there.sample_rate_hz == here.sample_rate_hz
    assert np.abs(there.samples - here.samples).max() < 2.0**-22  # FLAC holds 24 bits
    assert there.recipe is not None
    assert there.recipe.edit == here.recipe.edit
    assert np.abs(model.replay(there.recipe, source=HEARD).samples - there.samples).max() < 1e-6


def test_a_sound_of_the_library_is_replaced_in_part_and_stays_elsewhere(client: TestClient) -> None:
    kept = take_in(client)
    edit = {"kind": "replace", "source": kept["id"], "spans": [[0.5, 0.9]]}
    assert [one["name"] for one in make(client, edit=edit)] == ["door"]
    [sound] = make(client, input="bell", edit=edit)
    assert (sound["made"], sound["source"], sound["prompt"]) == ("replace", kept["id"], "bell")
    audio, start, stop = audio_of(client, sound), round(0.5 * RATE_HZ), round(0.9 * RATE_HZ)
    before = np.concatenate([HEARD.samples[:start], HEARD.samples[stop:]])
    after = np.concatenate([audio.samples[:start], audio.samples[stop:]])
    assert np.abs(after - before).max() <= 2.0**-15  # a WAV of the library holds 16 bits
    assert not np.allclose(audio.samples[start:stop], HEARD.samples[start:stop], atol=1e-3)


def test_a_made_sound_is_varied_four_times_and_follows_its_own_prompt(client: TestClient) -> None:
    [first] = make(client, input="rain", audio_length=1.0)
    four = make(client, n=4, edit={"kind": "vary", "source": first["id"], "strength": 0.5})
    assert [one["seed"] for one in four] == [3, 4, 5, 6]
    assert {one["prompt"] for one in four} == {"rain"}
    assert len({audio_of(client, one).samples.tobytes() for one in four}) == 4


def test_a_seed_of_an_edit_does_not_depend_on_its_company(client: TestClient) -> None:
    archive = zipfile.ZipFile(io.BytesIO(send(client, "vary", strength="0.5", n="2").content))
    alone = made(send(client, "vary", strength="0.5", seed="4"))
    both = [name for name in archive.namelist() if name.endswith(".wav")]
    among = decode_audio(archive.read(both[1]), "second")
    assert (alone.samples == among.samples).all()


def test_a_text_can_become_a_loop_a_sequence_and_longer_than_the_model_takes(
    client: TestClient, model: Resonate
) -> None:
    settings = {"num_inference_steps": STEPS, "seed": 3, "response_format": "flac"}

    def ask(**fields: Any) -> Audio:
        return made(client.post("/v1/audio/generate", json=settings | fields))

    ways = {"seeds": 3, "num_inference_steps": STEPS}
    there = [
        ask(input="rain", loop=True, audio_length=1.0),
        ask(input="rain", audio_length=5.0),
        ask(parts=[{"start_s": 0, "stop_s": 1, "prompt": "rain"},
                   {"start_s": 1, "stop_s": 2, "prompt": "dog"}]),
    ]  # fmt: skip
    here = [
        *model.loop("rain", 1.0, **ways),
        *model.generate("rain", duration_s=5.0, **ways),
        *model.sequence([(0.0, 1.0, "rain"), (1.0, 2.0, "dog")], **ways),
    ]
    for found, expected in zip(there, here, strict=True):
        assert np.abs(found.samples - expected.samples).max() < 2.0**-22
        assert found.recipe is not None
        assert found.recipe.edit == expected.recipe.edit


def test_a_finished_sound_has_the_length_and_the_level_that_were_asked_for(
    client: TestClient,
) -> None:
    fields = {"trim_db": "-50", "length_s": "0.7", "loudness_lufs": "-16"}
    quiet = Audio(np.pad(noise(1.0).samples, (0, RATE_HZ)) * 0.1, RATE_HZ)
    answer = client.post("/v1/audio/finish", data=fields, files={"source": ("a", flac(quiet))})
    assert answer.headers["x-resonate-duration"] == "0.7"
    kept = take_in(client, answer.content)
    assert kept["loudness_lufs"] == pytest.approx(-16, abs=0.1)
    # The same while it is made, and of a sound of the library.
    settings = {name: float(value) for name, value in fields.items()}
    [sound] = make(client, input="rain", **settings)
    assert (sound["duration_s"], sound["loudness_lufs"]) == (0.7, pytest.approx(-16, abs=0.3))
    assert (sound["made"], sound["audio_length"]) == ("generate", 0.5)  # then silence follows
    assert given(sound["finish"]) == settings
    loud = take_in(client, flac(quiet))
    assert loud["silent_tail_s"] == pytest.approx(0.96, abs=0.02)
    done = client.post(f"/v1/library/{loud['id']}/finish", json=settings).json()
    assert (done["made"], done["source"], done["name"]) == ("finish", loud["id"], "door")
    assert done["silent_tail_s"] == 0.0
    assert given(done["finish"]) == settings
    assert audio_of(client, done).duration_s == 0.7


def given(finish: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in finish.items() if value is not None}


def test_every_setting_is_told_of_what_was_made_and_none_of_an_upload(client: TestClient) -> None:
    assert set(SolverSettings.model_fields) <= set(Sound.model_fields)
    wanted = {"solver": "heun", "guidance_low": 0.2, "guidance_high": 0.8, "time_shift": 2.0}
    [made] = make(client, input="rain", audio_length=1.0, guidance_scale=3.0, **wanted)
    assert {name: made[name] for name in wanted} == wanted
    kept = take_in(client, flac(noise(0.5)))
    assert {name: kept[name] for name in SolverSettings.model_fields} == dict.fromkeys(
        SolverSettings.model_fields
    )


def test_sounds_that_earlier_versions_kept_are_read() -> None:
    facts = {"id": "a", "job": "", "created": 0.0, "prompt": "", "negative_prompt": "", "model": "",
             "duration_s": 1.0, "seed": None, "sample_rate": 16_000, "peak": 0.5, "made": "upload",
             "num_inference_steps": 25, "guidance_scale": 4.5}  # fmt: skip
    upload = Sound.model_validate_json(json.dumps(facts))
    made = Sound.model_validate_json(json.dumps(facts | {"model": "nano", "made": "generate"}))
    assert (upload.num_inference_steps, upload.guidance_scale, upload.solver) == (None,) * 3
    assert (made.num_inference_steps, made.guidance_scale, made.solver) == (25, 4.5, "euler")
    assert (made.audio_length, made.finish) == (None, None)


def test_an_upload_lies_in_the_library_as_it_came(client: TestClient) -> None:
    wav = encode_audio(noise(0.2), FORMATS[".wav"])
    kept = take_in(client, wav, "C:\\sounds\\a <b>.wav")
    assert (kept["name"], kept["made"], kept["model"], kept["seed"]) == (
        "a <b>",
        "upload",
        "",
        None,
    )
    assert client.get(f"/v1/library/{kept['id']}/audio").content == wav


def test_what_people_note_is_kept_and_found(client: TestClient) -> None:
    kept = take_in(client)
    address = f"/v1/library/{kept['id']}"
    noted = client.patch(address, json={"name": "front gate", "tags": ["metal"], "favourite": True})
    assert noted.json()["tags"] == ["metal"]
    assert client.patch(address, json={"tags": ["iron"]}).json()["name"] == "front gate"
    for words in ({"q": "front"}, {"q": "#iron"}, {"favourite": True}):
        found = client.get("/v1/library", params=words).json()["data"]
        assert [one["id"] for one in found] == [kept["id"]]
    assert client.get("/v1/library", params={"q": "#metal"}).json()["total"] == 0
    many = "front " * 12
    assert client.get("/v1/library", params={"q": many}).json()["total"] == 1
    assert client.get("/v1/library", params={"q": f"{many} ghost"}).json()["total"] == 0
    assert client.patch("/v1/library/none", json={}).status_code == 404


def test_chosen_sounds_come_in_one_file_under_their_names(client: TestClient) -> None:
    ids = [take_in(client, name=name)["id"] for name in ("../up.wav", "../up.wav", "Tür.wav")]
    answer = client.post("/v1/library/zip", json={"ids": ids, "response_format": "ogg"})
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.namelist() == ["up.ogg", "up-2.ogg", "Tür.ogg", "sounds.json"]
    assert decode_audio(archive.read("up.ogg"), "up").duration_s == pytest.approx(1.5, abs=0.01)
    missing = client.post("/v1/library/zip", json={"ids": [*ids, "none"]})
    assert error_of(missing, 404)["message"].startswith("ids.3:")


def test_a_job_whose_sound_is_gone_is_refused(client: TestClient) -> None:
    body = {"edit": {"kind": "vary", "source": "none", "strength": 0.5}}
    assert error_of(client.post("/v1/jobs", json=body), 404)["param"] == "edit.source"


BAD_SOUNDS = {
    "empty": (b"", "source"),
    "no sound": (b"rain" * 100, "source"),
    "too long": (flac(noise(LONGEST_S + 1)), "source"),
    "too short": (flac(noise(0.05)), "source"),
    "no sample": (flac(noise(0.1))[:60], "source"),
    "cut off": (encode_audio(noise(1.0), FORMATS[".wav"])[:20_000], "source"),
}


@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_a_sound_that_nothing_can_be_made_of_is_refused(client: TestClient, name: str) -> None:
    data, field = BAD_SOUNDS[name]
    error = error_of(send(client, "vary", data, strength="0.5"))
    assert (error["param"], error["message"][:7]) == (field, f"{field}:")


def test_samples_that_are_no_numbers_are_refused(client: TestClient) -> None:
    import soundfile

    buffer = io.BytesIO()
    samples = np.full(8000, np.nan, np.float32)
    soundfile.write(buffer, samples, 8000, format="WAV", subtype="FLOAT")
    error = error_of(send(client, "vary", buffer.getvalue(), strength="0.5"))
    assert error["param"] == "source"
    assert "NaN" in error["message"]


BAD_FIELDS: list[tuple[str, dict[str, str], str]] = [
    ("vary", {}, "strength"),
    ("vary", {"strength": "1.5"}, "strength"),
    ("vary", {"strength": "-0.1"}, "strength"),
    ("vary", {"strength": "NaN"}, "strength"),
    ("vary", {"strength": "much"}, "strength"),
    ("vary", {"strength": "0.5", "spans": "[[0, 1]]"}, "spans"),
    ("vary", {"strength": "0.5", "audio_length": "2"}, "audio_length"),
    ("vary", {"strength": "0.5", "model": "none"}, "model"),
    ("vary", {"strength": "0.5", "strenght": "0.5"}, "strenght"),
    ("vary", {"strength": "0.5", "n": "65"}, "n"),
    ("reword", {}, "input"),
    ("replace", {}, "spans"),
    ("replace", {"spans": "[]"}, "spans"),
    ("replace", {"spans": "[[1, 0.5]]"}, "spans"),
    ("replace", {"spans": "[[-1, 0.5]]"}, "spans"),
    ("replace", {"spans": "[[1, 1.6]]"}, "spans"),
    ("replace", {"spans": "[[0, 1], [0.5, 1.2]]"}, "spans"),
    ("replace", {"spans": "[[0]]"}, "spans.0"),
    ("replace", {"spans": "1-2"}, "spans"),
    ("replace", {"spans": "[[0, 0.000001]]"}, "spans"),
    ("extend", {}, "before_s"),
    ("extend", {"after_s": "5"}, "after_s"),
    ("extend", {"before_s": "5"}, "before_s"),
    ("extend", {"after_s": "-1"}, "after_s"),
    ("loop", {"seam_s": "1.5"}, "seam_s"),
    ("loop", {"seam_s": "0"}, "seam_s"),
    ("loop", {"length_s": "7"}, "length_s"),
    ("loop", {"trim_db": "0"}, "trim_db"),
    ("loop", {"trim_db": "-50"}, "trim_db"),
    ("loop", {"fade_s": "0.1"}, "fade_s"),
    ("loop", {"loudness_lufs": "-16", "normalize_db": "-1"}, "body"),
    ("finish", {}, "body"),
    ("finish", {"fade_s": "61"}, "fade_s"),
    ("finish", {"length_s": f"{LONGEST_S + 1}"}, "length_s"),
]


@pytest.mark.parametrize(("kind", "fields", "named"), BAD_FIELDS)
def test_a_field_of_a_form_that_is_wrong_is_named(
    client: TestClient, kind: str, fields: dict[str, str], named: str
) -> None:
    given = fields if kind == "finish" else FORM | fields
    answer = client.post(f"/v1/audio/{kind}", data=given, files={"source": ("a.flac", SOUND)})
    error = error_of(answer, 404 if named == "model" else 422)
    assert error["param"] == named, error
    assert named in error["message"]


BAD_TEXTS: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"loop": True}, "input"),
    ({"input": "rain", "loop": True, "audio_length": 0.05}, "audio_length"),
    ({"input": "rain", "loop": "yes"}, "loop"),
    ({"input": "rain", "loop": True, "fade_s": 0.2}, "fade_s"),
    ({"input": "rain", "loop": True, "audio_length": 1, "length_s": 3}, "length_s"),
    ({"input": "rain", "audio_length": LONGEST_S + 1}, "audio_length"),
    ({"input": "rain", "parts": [{"start_s": 0, "stop_s": 1, "prompt": "dog"}]}, "input"),
    ({"parts": []}, "parts"),
    ({"parts": [{"start_s": 0, "stop_s": 1, "prompt": ""}]}, "parts.0.prompt"),
    ({"parts": [{"start_s": 1, "stop_s": 2, "prompt": "dog"}]}, "parts"),
    ({"parts": [{"start_s": 0, "stop_s": 2, "prompt": "dog"},
                {"start_s": 1, "stop_s": 3, "prompt": "rain"}]}, "parts"),
    ({"input": "rain", "edit": {"kind": "vary", "source": "HERE", "strength": 2}},
     "edit.strength"),
    ({"edit": {"kind": "replace", "source": "HERE", "strength": 1}}, "edit.strength"),
    ({"edit": {"kind": "hum", "source": "HERE"}}, "edit.kind"),
    ({"edit": {"kind": "loop"}}, "edit.source"),
    ({"audio_length": 2, "edit": {"kind": "loop", "source": "HERE"}}, "audio_length"),
]  # fmt: skip


@pytest.mark.parametrize("body, named", BAD_TEXTS)  # noqa: PT006
def test_a_field_of_json_that_is_wrong_is_named(
    client: TestClient, body: dict[str, Any], named: str
) -> None:
    here = json.dumps(body).replace("HERE", take_in(client)["id"])
    headers = {"Content-Type": "application/json"}
    for path in ("/v1/audio/generate", "/v1/jobs"):
        error = error_of(client.post(path, content=here, headers=headers))
        assert error["param"] == named, error


def test_a_form_that_is_none_is_told_what_it_should_be(client: TestClient) -> None:
    error = error_of(client.post("/v1/audio/vary", json={"strength": 0.5}))
    assert "multipart/form-data" in error["message"]
    no_file = client.post("/v1/audio/vary", data={"strength": "1"}, files={"b": ("b", b"")})
    assert error_of(no_file)["param"] == "b"
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    missing = client.post("/v1/audio/vary", content=b"--x--\r\n", headers=boundary)
    assert error_of(missing)["param"] == "source"
    twice = client.post(
        "/v1/audio/vary", data={"strength": ["0", "1"]}, files={"source": ("a", SOUND)}
    )
    assert error_of(twice)["param"] == "strength"


def test_an_edit_outlives_the_server(tmp_path: Path, tiny_model: Path) -> None:
    config = ServeConfig(home=tmp_path, models={"tiny": str(tiny_model)})
    from resonate_audio.serving.sounds.requests import EditRequest, JobRequest
    from resonate_audio.serving.sounds.service import Service

    service = Service(config)
    service.open()
    kept = service.take_in("door", SOUND)
    edit = EditRequest(kind="extend", source=kept.id, after_s=0.5)
    asked = JobRequest(edit=edit, seed=3, num_inference_steps=STEPS)
    job = service.add_job(asked)  # the workers have not begun
    service.stop()
    with TestClient(create_app(config), base_url="http://127.0.0.1") as client:
        until_s = time.monotonic() + 60
        while (now := client.get(f"/v1/jobs/{job.id}").json())["ended"] is None:
            assert time.monotonic() < until_s, now
            time.sleep(0.02)
        [sound] = now["sounds"]
        assert sound["duration_s"] == 2.0


def test_what_people_note_is_kept_in_one_line_and_once(client: TestClient) -> None:
    address = f"/v1/library/{take_in(client)['id']}"
    noted = client.patch(
        address, json={"name": " front\ngate\0 ", "tags": ["#iron", "iron", "a\tb"]}
    )
    assert (noted.json()["name"], noted.json()["tags"]) == ("front gate\\x00", ["iron", "a b"])
    assert error_of(client.patch(address, json={"tags": ["#"]}))["param"] == "tags.0"


def test_a_sound_of_the_library_is_not_made_longer_than_the_server_makes(
    client: TestClient,
) -> None:
    address = f"/v1/library/{take_in(client)['id']}/finish"
    error = error_of(client.post(address, json={"length_s": LONGEST_S + 1}))
    assert error["message"] == f"length_s: {LONGEST_S + 1:g} s; {LONGEST_S:g} s at most"


def test_silence_is_a_tail_from_its_beginning(client: TestClient) -> None:
    silence = Audio(np.zeros(16_000, np.float32), 16_000)
    assert take_in(client, flac(silence))["silent_tail_s"] == 1.0


def test_a_parameter_that_an_address_does_not_take_is_refused(client: TestClient) -> None:
    error = error_of(client.get("/v1/library", params={"limt": 5}))
    assert error == {
        "message": "limt: unknown in the address; did you mean limit?",
        "type": "invalid_request_error",
        "param": "limt",
        "code": None,
    }
    body = {"input": "rain", "num_inference_steps": 2}
    error = error_of(client.post("/v1/audio/generate?seed=7", json=body))
    assert error["param"] == "seed"
