"""K20: a recipe inside a file is anybody's input: it is held to the limits of a request."""

import base64
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from test_k01_c_libraries import recipe_of
from test_k14_optional_data import with_comment

from resonate_audio.audio.embedded import MAX_ROWS, RECIPE_KEY, format_recipe, parse_recipe
from resonate_audio.audio.io import read_audio, read_recipe
from resonate_audio.core.errors import AudioError, InputError, ResonateError

FIELDS = json.loads(format_recipe(recipe_of(1, 5)))[RECIPE_KEY]
HUGE = "x" * 200_000
BEYOND: dict[str, dict[str, Any]] = {
    "a batch of 200,000": {
        "batch_prompts": ["a"] * 200_000,
        "batch_negative_prompts": [""] * 200_000,
        "batch_seeds": [1] * 200_000,
    },
    "a million threads": {"num_threads": 10**6},
    "threads below none": {"num_threads": -1},
    "a model of 200,000 letters": {"model": HUGE},
    "a device of 200,000 letters": {"device": HUGE},
    "a version of 200,000 letters": {"version": HUGE},
    "a prompt of a million letters": {"prompt": "x" * 1_000_000, "batch_prompts": []},
    "a row outside of its batch": {"row": 1},
    "a row below none": {"row": -1},
    "more prompts than seeds": {"batch_prompts": ["a", "b"]},
    "a seed below none": {"seed": -1},
    "a seed beyond 63 bits": {"seed": 2**63},
    "a gain that boosts": {"gain": 1e30},
    "a gain below none": {"gain": -1.0},
    "no number": {"duration_s": "long"},
    "a list as a prompt": {"prompt": ["a"]},
    "an object as a seed": {"seed": {}},
    "a billion digits": {"seed": 10**400},
}
NOT_ASKED_FOR: dict[str, dict[str, Any]] = {
    "a billion steps": {"num_inference_steps": 10**9},
    "no step": {"num_inference_steps": 0},
    "half a step": {"num_inference_steps": 2.5},
    "a guidance of a billion": {"guidance_scale": 1e9},
    "a guidance below none": {"guidance_scale": -1.0},
    "a setting of another version": {"churn": 0.5},
}
"""Read with the sound, and refused where they would be used."""


def comment(changes: dict[str, Any], pack: bool = False) -> str:
    plain = json.dumps({RECIPE_KEY: FIELDS | changes})
    packed = base64.b64encode(zlib.compress(plain.encode(), 9)).decode()
    return json.dumps({RECIPE_KEY: packed}) if pack else plain


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", BEYOND)
def test_what_nobody_can_have_asked_for_is_no_recipe(name: str, pack: bool) -> None:
    with pytest.raises(AudioError, match=r"a\.wav: the recipe in its metadata is damaged") as said:
        parse_recipe(comment(BEYOND[name], pack), "a.wav")
    assert len(str(said.value)) < 500


@pytest.mark.parametrize("name", NOT_ASKED_FOR)
def test_settings_are_held_to_the_ranges_of_a_request(name: str) -> None:
    def use() -> None:
        found = parse_recipe(comment(NOT_ASKED_FOR[name]), "a.wav")
        assert found is not None
        found.sampling()

    with pytest.raises((AudioError, InputError)):
        use()


@pytest.mark.parametrize("name", BEYOND | NOT_ASKED_FOR)
def test_replay_refuses_it_in_one_line_before_it_loads_a_model(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from resonate_audio.cli.main import run

    changes = (BEYOND | NOT_ASKED_FOR)[name]
    path = tmp_path / "a.flac"
    path.write_bytes(with_comment(comment({"model": "nano"} | changes, pack=True)))
    assert run(["replay", str(path), "--device", "cpu"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert len(said[0]) < 1_000


def test_packed_metadata_is_inflated_to_a_limit() -> None:
    bomb = base64.b64encode(zlib.compress(b"[" * 300_000_000, 9)).decode()
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    with pytest.raises(AudioError, match="over 16,777,216 letters"):
        parse_recipe(json.dumps({RECIPE_KEY: bomb}), "a.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20


def test_a_file_with_such_a_bomb_is_still_a_sound(tmp_path: Path) -> None:
    bomb = base64.b64encode(zlib.compress(b'{"a":' * 10_000_000, 9)).decode()
    path = tmp_path / "a.flac"
    path.write_bytes(with_comment(json.dumps({RECIPE_KEY: bomb})))
    assert len(read_audio(path).samples) > 0
    with pytest.raises(ResonateError):
        read_recipe(path)


def test_the_largest_batch_of_a_request_is_written_and_read() -> None:
    given = recipe_of(MAX_ROWS, 20)
    assert parse_recipe(format_recipe(given), "a.wav") == given
