import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from resonate_audio.core.errors import AudioError, ManifestError
from resonate_audio.data.manifest import (
    Clip,
    cut_clip,
    decode_clips,
    parse_line,
    read_manifest,
    stream_manifest,
    write_manifest,
)

GOOD = {"audio_id": "a", "audio_path": "a.wav", "caption": "a bell rings", "duration": 1.0}


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_the_official_schema_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "m.jsonl", GOOD))
    assert manifest.clips[0].caption == "a bell rings"
    assert manifest.audio_file(manifest.clips[0]) == tmp_path / "a.wav"


def test_fields_of_other_tools_are_ignored(tmp_path: Path) -> None:
    assert len(read_manifest(write(tmp_path / "m.jsonl", GOOD | {"mood": "calm"})).clips) == 1


def test_a_null_duration_is_allowed(tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path / "m", GOOD | {"duration": None})).clips[0].duration is None


def test_a_line_that_is_not_json_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", GOOD, "", '{"audio_id": "b", ')
    with pytest.raises(ManifestError, match=r"m\.jsonl:3: not JSON"):
        read_manifest(path)


@pytest.mark.parametrize("field", ["audio_id", "audio_path", "caption"])
def test_a_missing_field_is_named(field: str) -> None:
    line = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(ManifestError, match=f"m:7: {field}: Field required"):
        parse_line(json.dumps(line), "m:7")


def test_an_audio_id_used_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: audio_id a was used before"):
        read_manifest(write(tmp_path / "m.jsonl", GOOD, GOOD))


def test_a_missing_manifest_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.jsonl: cannot read it"):
        read_manifest(tmp_path / "none.jsonl")


def test_only_the_wanted_split_is_kept(tmp_path: Path) -> None:
    lines = [GOOD | {"audio_id": name, "split": name} for name in ("train", "test")]
    manifest = read_manifest(write(tmp_path / "m.jsonl", *lines), ["test"])
    assert [clip.audio_id for clip in manifest.clips] == ["test"]


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no clip of split val in 1 lines"):
        read_manifest(write(tmp_path / "m.jsonl", GOOD), ["val"])


def test_captions_are_listed_once_each_the_main_one_first() -> None:
    clip = Clip(audio_id="a", audio_path="a", caption="b", captions=("a", "b", "", "c"))
    assert clip.all_captions() == ("b", "a", "c")


def test_the_fingerprint_follows_the_audio_file(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "m.jsonl", GOOD))
    missing = manifest.fingerprint()
    (tmp_path / "a.wav").write_bytes(b"1")
    first = manifest.fingerprint()
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    assert len({missing, first, manifest.fingerprint()}) == 3


def test_clips_of_one_file_are_cut_to_the_sample(tmp_path: Path) -> None:
    samples = (np.arange(1, 4001) / 8000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    lines = [
        GOOD | {"audio_id": str(start), "start_frame": start, "num_frames": 1000}
        for start in (0, 1000, 2500)
    ]
    manifest = read_manifest(write(tmp_path / "m.jsonl", *lines))
    for clip, wave in decode_clips(manifest, 16_000):
        assert not isinstance(wave, AudioError)
        np.testing.assert_array_equal(wave, samples[clip.start_frame : clip.start_frame + 1000])


def test_a_clip_past_the_end_of_its_file_is_an_error() -> None:
    clip = Clip(audio_id="a", audio_path="a.wav", caption="x", start_frame=90, num_frames=20)
    with pytest.raises(AudioError, match="samples 90 to 110 asked for, the file has 100"):
        cut_clip(clip, np.ones(100, dtype=np.float32))


def test_digital_silence_is_not_a_sound() -> None:
    with pytest.raises(AudioError, match="nothing but digital silence"):
        cut_clip(Clip.model_validate(GOOD), np.zeros(100, dtype=np.float32))


def test_a_manifest_in_another_encoding_is_named_by_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"caption": "caf\xe9"}\n')
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: byte 17 of the line \(0xe9\) is not UTF"):
        read_manifest(path)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert read_manifest(path).clips[0].audio_id == "a"


def test_a_line_separator_within_a_caption_does_not_end_the_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        json.dumps(GOOD | {"caption": "a bell\u2028rings"}, ensure_ascii=False), encoding="utf-8"
    )
    assert read_manifest(path).clips[0].caption == "a bell\u2028rings"


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    clips = [
        Clip(audio_id="a", audio_path="x/a.wav", caption="ein Glöckchen", group="youtube:1"),
        Clip(audio_id="b", audio_path="b.wav", caption="wind", phrases=("wind",), split="test"),
    ]
    assert write_manifest(tmp_path / "m.jsonl", iter(clips)) == 2
    assert [clip for _, clip in stream_manifest(tmp_path / "m.jsonl")] == clips


def test_a_manifest_whose_clips_fail_midway_is_not_written(tmp_path: Path) -> None:
    def clips() -> Iterator[Clip]:
        yield Clip.model_validate(GOOD)
        raise ManifestError("the list is broken")

    with pytest.raises(ManifestError, match="the list is broken"):
        write_manifest(tmp_path / "m.jsonl", clips())
    assert list(tmp_path.iterdir()) == []


def test_groups_and_phrases_do_not_move_the_fingerprint(tmp_path: Path) -> None:
    plain = read_manifest(write(tmp_path / "m.jsonl", GOOD)).fingerprint()
    told = GOOD | {"group": "youtube:1", "phrases": ["a bell"]}
    assert read_manifest(write(tmp_path / "m.jsonl", told)).fingerprint() == plain
