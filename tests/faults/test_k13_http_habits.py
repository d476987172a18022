"""K13: what HTTP clients are used to. Every route × HEAD, ranges, types of bodies, typos, nulls."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import pytest
from running import error_of
from served import ROUTES, Route, World, make_sound, routes, serving, wav

from resonate_audio.audio.io import decode_audio
from resonate_audio.serving.errors import ApiError
from resonate_audio.serving.ranges import find_span

HEADABLE = [pytest.param(route, id=str(route)) for route in ROUTES if route.method == "GET"]
TAKES_JSON = [pytest.param(route, id=str(route)) for route in ROUTES if route.body is not None]
LIBRARY = "/v1/library/{id}/audio"


@pytest.mark.parametrize("route", HEADABLE)
def test_head_is_answered_as_get_without_a_body(world: World, route: Route) -> None:
    with world.client(route.server) as client:
        head = client.head(route.at(world), follow_redirects=False)
        assert head.content == b""
        assert head.status_code not in (404, 405, 500), route
        if route.sends not in ("stream", "file"):  # a stream has no length; times move a file's
            got = client.get(route.at(world), follow_redirects=False)
            assert (head.status_code, head.headers["content-type"] if got.content else "") == (
                got.status_code,
                got.headers["content-type"] if got.content else "",
            )


def test_head_of_what_is_only_posted_says_what_is_taken(world: World) -> None:
    with world.client("sounds") as client:
        answer = client.head("/v1/jobs")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("route", routes(sends="sound"))
@pytest.mark.parametrize(
    ("range", "first", "last"),
    [("bytes=0-1", 0, 1), ("bytes=100-", 100, None), ("bytes=-64", -64, None),
     ("bytes=0-", 0, None), ("bytes=10-99999999999999999999999", 10, None), ("Bytes = 3-9", 3, 9)],
)  # fmt: skip
def test_every_sound_comes_in_ranges(
    world: World, route: Route, range: str, first: int, last: int | None
) -> None:
    with world.client(route.server) as client:
        whole = client.get(route.at(world))
        assert whole.headers["accept-ranges"] == "bytes"
        size = len(whole.content)
        start = first if first >= 0 else size + first
        stop = size if last is None else last + 1
        part = client.get(route.at(world), headers={"Range": range})
        assert part.status_code == 206
        assert part.content == whole.content[start:stop]
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert part.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("route", routes(sends="sound"))
@pytest.mark.parametrize("range", ["bytes=999999999-", "bytes=-0", f"bytes={'9' * 300}-"])
def test_a_range_outside_of_a_sound_says_how_long_it_is(
    world: World, route: Route, range: str
) -> None:
    with world.client(route.server) as client:
        size = len(client.get(route.at(world)).content)
        answer = client.get(route.at(world), headers={"Range": range})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")
        assert str(size) in error_of(answer)["message"]


@pytest.mark.parametrize("route", routes(sends="sound"))
@pytest.mark.parametrize(
    "range", ["bytes=5-2", "bytes=0-1,5-6", "lines=1-2", "bytes=", "bytes=-", "bytes", "=", "x=1"]
)
def test_a_range_of_another_kind_gives_the_whole(world: World, route: Route, range: str) -> None:
    with world.client(route.server) as client:
        assert client.get(route.at(world), headers={"Range": range}).status_code == 200


@pytest.mark.parametrize("route", routes(sends="sound"))
def test_a_range_of_a_sound_that_has_changed_gives_the_whole(world: World, route: Route) -> None:
    with world.client(route.server) as client:
        tag = client.get(route.at(world)).headers["etag"]
        asked = {"Range": "bytes=0-9"}
        same = client.get(route.at(world), headers=asked | {"If-Range": tag})
        other = client.get(route.at(world), headers=asked | {"If-Range": '"older"'})
        dated = client.get(
            route.at(world), headers=asked | {"If-Range": "Sat, 01 Jan 2000 00:00:00 GMT"}
        )
        kept = client.get(route.at(world), headers={"If-None-Match": f'"x", {tag}'})
        any_kept = client.get(route.at(world), headers={"If-None-Match": "*"})
        beyond = client.get(
            route.at(world), headers={"Range": "bytes=999999999-", "If-Range": '"older"'}
        )
        codes = [one.status_code for one in (same, other, dated, kept, any_kept, beyond)]
        assert codes == [206, 200, 200, 304, 304, 200]


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "ogg", "opus"])
def test_the_parts_of_an_encoded_sound_make_the_whole(world: World, format: str) -> None:
    with world.client("sounds") as client:
        path, asked = LIBRARY.format(id=world.sound), {"response_format": format}
        parts, size = b"", 1
        while len(parts) < size:
            span = f"bytes={len(parts)}-{len(parts) + 999}"
            answer = client.get(path, params=asked, headers={"Range": span})
            assert answer.status_code == 206
            parts += answer.content
            size = int(answer.headers["content-range"].rpartition("/")[2])
        assert parts == client.get(path, params=asked).content
        assert decode_audio(parts, "parts").duration_s == pytest.approx(1.0, abs=0.1)


def test_a_span_is_the_one_that_the_header_means() -> None:
    assert find_span("bytes=0-0", 5) == (0, 1)
    assert find_span("bytes=-9", 5) == (0, 5)
    assert find_span("", 5) is None
    with pytest.raises(ApiError):
        find_span("bytes=0-", 0)


@pytest.mark.parametrize("route", TAKES_JSON)
@pytest.mark.parametrize("given", [None, "text/plain", "application/x-www-form-urlencoded", "json"])
def test_json_that_is_not_called_so_is_told_which_header_is_missing(
    world: World, route: Route, given: str | None
) -> None:
    with world.client(route.server) as client:
        request = client.build_request(route.method, route.at(world), content=b'{"input": "rain"}')
        request.headers.pop("content-type", None)
        if given is not None:
            request.headers["content-type"] = given
        answer = client.send(request)
        assert answer.status_code == 422
        message = error_of(answer)["message"]
        assert "send the header Content-Type: application/json" in message
        assert (given or "there is none") in message


@pytest.mark.parametrize("route", TAKES_JSON)
@pytest.mark.parametrize("body", [b"[]", b'"text"', b"3"])
def test_json_of_another_form_is_told_that_an_object_is_expected(
    world: World, route: Route, body: bytes
) -> None:
    with world.client(route.server) as client:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        answer = client.request(route.method, route.at(world), content=body, headers=headers)
        assert (answer.status_code, error_of(answer)["message"]) == (
            422,
            "body: expected a JSON object",
        )


@pytest.mark.parametrize("route", [r for r in ROUTES if r.form is not None], ids=str)
def test_a_form_that_is_not_called_so_is_told_which_header_is_missing(
    world: World, route: Route
) -> None:
    with world.client(route.server) as client:
        answer = client.post(route.at(world), json={"name": "more"})
        assert answer.status_code == 422
        assert "Content-Type: multipart/form-data" in error_of(answer)["message"]


TYPOS = {
    "/v1/audio/generate": ("inpt", "input"),
    "/v1/sound-generation": ("duration", "duration_seconds"),
    "/v1/jobs": ("guidance_scal", "guidance_scale"),
    "/v1/library/zip": ("id", "ids"),
    "/v1/library/{id}": ("tag", "tags"),
    "/v1/library/{id}/finish": ("trim", "trim_db"),
    "/v1/listening/session/answers": ("score", "scores"),
    "/v1/listening/tests/{name}/invitations": ("cont", "count"),
}
"""A misspelt field of each route that knows its fields; a judge takes what OpenAI's clients add."""


@pytest.mark.parametrize("route", [p for p in TAKES_JSON if p.values[0].server != "judge"])
def test_a_field_that_is_not_known_is_named_before_those_that_are_missing(
    world: World, route: Route
) -> None:
    typo, meant = TYPOS[route.path]
    with world.client(route.server) as client:
        error = error_of(client.request(route.method, route.at(world), json={typo: 1}))
        assert error["param"] == typo
        assert error["message"].startswith(f"{typo}: unknown field; did you mean {meant}?")


def test_a_field_that_is_like_none_is_told_which_there_are(world: World) -> None:
    with world.client("sounds") as client:
        answer = client.post("/v1/jobs", json={"input": "rain", "zzz": 1})
        assert "zzz: unknown field; known are " in error_of(answer)["message"]
        assert "audio_length" in error_of(answer)["message"]


SETTINGS = (
    "model", "negative_prompt", "num_inference_steps", "guidance_scale", "n", "seed", "seeds",
    "solver", "guidance_low", "guidance_high", "time_shift", "trim_db", "length_s", "fade_s",
    "loudness_lufs", "normalize_db",
)  # fmt: skip
WHAT = ("audio_length", "loop", "parts", "edit")
NULLABLE = {
    "/v1/audio/generate": (*SETTINGS, *WHAT, "response_format", "sample_rate", "return"),
    "/v1/jobs": (*SETTINGS, *WHAT),
    "/v1/sound-generation": ("duration_seconds", "prompt_influence", "model_id", "loop", "seed"),
}
"""Every field that may be left out, by route: clients also send it with nothing in it."""


def test_the_fields_that_may_be_left_out_are_these(world: World) -> None:
    schemas = httpx2.get(f"http://{world.servers['sounds'].url}/openapi.json").json()
    for path, names in NULLABLE.items():
        body = schemas["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        schema = schemas["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
        # ``input`` is needed where neither parts nor edit say what to hear.
        needed = {*schema.get("required", ()), "input"}
        assert set(schema["properties"]) - needed == set(names)


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in NULLABLE.items() for name in names]
)
def test_null_is_as_good_as_leaving_a_field_out(world: World, path: str, name: str) -> None:
    [route] = [r for r in ROUTES if r.path == path]
    with world.client("sounds") as client:
        answer = client.post(path, json={**(route.body or {}), "seed": 3, name: None})
        assert answer.status_code in (200, 202), answer.text


@pytest.mark.parametrize(
    ("extra", "status"),
    [({"loop": False}, 200), ({"model_id": "eleven_text_to_sound_v2"}, 200), ({"loop": True}, 200),
     ({"model_id": "nano", "loop": None}, 200), ({"model_id": "none"}, 404)],
)  # fmt: skip
def test_what_elevenlabs_clients_send_by_themselves_is_taken(
    world: World, extra: dict[str, Any], status: int
) -> None:
    with world.client("sounds") as client:
        body = {"text": "rain", "duration_seconds": 0.5, **extra}
        answer = client.post("/v1/sound-generation", json=body)
        assert answer.status_code == status, answer.text


def test_elevenlabs_own_client_may_say_its_defaults(world: World) -> None:
    elevenlabs = pytest.importorskip("elevenlabs", reason="needs pip install elevenlabs")
    httpx = pytest.importorskip("httpx", reason="needs pip install elevenlabs")
    base = f"http://{world.servers['sounds'].url}"
    with httpx.Client(timeout=60) as connection:
        client = elevenlabs.ElevenLabs(base_url=base, api_key="none", httpx_client=connection)
        parts = client.text_to_sound_effects.convert(
            text="rain", duration_seconds=0.5, loop=False, model_id="eleven_text_to_sound_v2"
        )
        sound = decode_audio(b"".join(parts), "answer")
    assert sound.duration_s == pytest.approx(0.5, abs=0.1)


def test_what_openais_clients_send_by_themselves_is_taken_by_a_judge(world: World) -> None:
    text = "Is the sound of rain here?"
    sound = {"data": base64.b64encode(wav()).decode(), "format": "wav"}
    parts = [{"type": "text", "text": text}, {"type": "input_audio", "input_audio": sound}]
    body = {"model": "level_judge:decibels", "messages": [{"role": "user", "content": parts}]}
    nothing = dict.fromkeys(("logprobs", "top_logprobs", "stream", "user", "temperature"))
    with world.client("judge") as client:
        plain = client.post("/v1/chat/completions", json=body)
        answer = client.post("/v1/chat/completions", json=body | nothing)
        assert (answer.status_code, answer.text) == (plain.status_code, plain.text)
        assert "expected the question" in error_of(answer)["message"]  # its words are not ours


def test_ready_is_told_apart_from_alive(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("ready")
    command = ("serve", "--home", str(place / "home"), "--device", "cpu")
    with serving(place / "log", *command) as server, server.client() as client:
        assert client.get("/health").status_code == 200
        first = client.get("/ready")
        assert (first.status_code, first.json()["status"]) == (503, "loading")
        assert first.headers["retry-after"] == "1"
        make_sound(client)
        assert client.get("/ready").json() == {"status": "ready", "model": "nano", "message": None}


def test_preloaded_models_are_ready_without_a_request(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import time

    place = tmp_path_factory.mktemp("preload")
    command = ("serve", "--home", str(place / "home"), "--device", "cpu", "--preload")
    with serving(place / "log", *command) as server, server.client() as client:
        until_s = time.monotonic() + 60
        while not client.get("/v1/models").json()["data"][0]["is_loaded"]:
            assert time.monotonic() < until_s
            time.sleep(0.1)
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < until_s
            time.sleep(0.1)
