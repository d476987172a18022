"""K14: what is optional in a file never keeps anyone from the file."""

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
import soundfile
from reader_tables import SOUND_READERS, Member, sound_at, try_reading
from test_k01_c_libraries import TONE, recipe_of

from resonate_audio.audio.embedded import RECIPE_KEY, format_recipe
from resonate_audio.audio.io import FORMATS, encode_audio, read_audio, read_recipe
from resonate_audio.core.errors import AudioError
from resonate_audio.core.types import Audio

WHOLE = format_recipe(recipe_of(2, 20))
COMMENTS = {
    "cut off": WHOLE[: len(WHOLE) // 2],
    "a list": f'{{"{RECIPE_KEY}": []}}',
    "a number": f'{{"{RECIPE_KEY}": 5}}',
    "null": f'{{"{RECIPE_KEY}": null}}',
    "no text of base64": f'{{"{RECIPE_KEY}": "###"}}',
    "nothing packed": f'{{"{RECIPE_KEY}": ""}}',
    "a field of another type": WHOLE.replace('"seed": 1', '"seed": "x"'),
    "a field missing": WHOLE.replace('"seed"', '"sead"'),
    "not JSON": f'{{"{RECIPE_KEY}": {{broken',
    "deep": f'{{"{RECIPE_KEY}": ' + "[" * 10_000,
    "another program's": '{"encoder": "x"}',
    "half a character": f'{{"{RECIPE_KEY}": "\\ud800"}}',
}


def with_comment(comment: str) -> bytes:
    """A good FLAC whose comment says something."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 16_000, 1, "PCM_16", format="FLAC") as file:
        file.comment = comment
        file.write(TONE)
    return buffer.getvalue()


@pytest.mark.parametrize("name", COMMENTS)
@pytest.mark.parametrize(
    "member", [m for m in SOUND_READERS if m.name != "a sound's recipe"], ids=str
)
def test_a_damaged_recipe_keeps_nobody_from_the_sound(
    member: Member, name: str, tmp_path: Path
) -> None:
    (tmp_path / member.file).write_bytes(with_comment(COMMENTS[name]))
    assert try_reading(member, tmp_path / member.file) is None


@pytest.mark.parametrize("name", sorted(set(COMMENTS) - {"another program's"}))
def test_who_asks_for_the_recipe_is_told_that_it_is_damaged(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(with_comment(COMMENTS[name]))
    assert len(read_audio(tmp_path / "a.flac").samples) == len(TONE)
    with pytest.raises(AudioError, match="the recipe in its metadata is damaged"):
        read_recipe(tmp_path / "a.flac")


def test_replay_and_reward_say_that_a_recipe_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from resonate_audio.cli.main import run

    path = tmp_path / "a.flac"
    path.write_bytes(with_comment(COMMENTS["cut off"]))
    for command in (["replay", str(path)], ["reward", str(path), "--judge", "nano-clap"]):
        assert run(command) == 2
        assert "recipe in its metadata is damaged" in capsys.readouterr().err


def test_one_clip_that_cannot_be_scored_costs_the_others_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from resonate_audio.cli.main import run

    clips = [sound_at(tmp_path / name) for name in ("a.wav", "b.wav")]
    short = sound_at(tmp_path / "short.wav", seconds=0.01)
    options = ["--judge", "nano-clap", "--prompt", "a dog barks", "--device", "cpu"]
    assert run(["reward", str(clips[0]), str(short), str(clips[1]), *options, "--json"]) == 1
    said = capsys.readouterr()
    listed = {Path(one["clip"]).name: one for one in json.loads(said.out)}
    assert all(isinstance(listed[name]["score"], float) for name in ("a.wav", "b.wav"))
    assert listed["short.wav"]["score"] is None
    assert "too short" in listed["short.wav"]["error"]
    assert "short.wav: not scored: " in said.err
    assert run(["reward", str(short), *options]) == 2
    assert "short.wav" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_no_address_of_memory_is_in_a_file(suffix: str) -> None:
    recipe = dataclasses.replace(recipe_of(1, 5), prompt="a dog barks")
    for given in (None, recipe):
        data = encode_audio(Audio(TONE, 16_000, given), FORMATS[suffix])
        assert re.search(rb"(object|function)[^\n]{0,40} at 0x", data) is None
        assert b"BytesIO" not in data


def test_the_errors_of_the_decoder_name_the_file_and_no_object(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(AudioError, match=r"a\.wav: not an audio file that can be read") as caught:
        read_audio(tmp_path / "a.wav")
    assert "0x" not in str(caught.value)
    assert "object" not in str(caught.value)
