"""A system's folder says what is in it; what others made is found by its names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from resonate_audio.core.errors import ManifestError
from resonate_audio.evaluation.clips.folder import (
    ClipLine,
    System,
    file_sha256,
    find_clips,
    open_manifest,
    read_manifest,
    read_system_prompts,
)
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet

PROMPTS = PromptSet(
    "made", tuple(PromptItem(id=f"prompt_{n:04d}", prompt=f"sound {n}") for n in (1, 2, 3))
)
SYSTEM = System(name="s", source="made here", protocol={"takes": "1"}, facts={"nfe": "25"})


def sound(path: Path, level: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(1600, level, np.float32), 16_000)
    return path


def line(folder: Path, number: int) -> ClipLine:
    path = sound(folder / f"prompt_{number:04d}.wav", 0.1 * number)
    return ClipLine(
        id=f"prompt_{number:04d}",
        prompt=f"sound {number}",
        file=path.name,
        sha256=str(file_sha256(path)),
    )


def test_a_folder_comes_back_as_it_was_left(tmp_path: Path) -> None:
    manifest = open_manifest(tmp_path, SYSTEM, PROMPTS)
    manifest.append([line(tmp_path, 1), line(tmp_path, 2)])
    again = read_manifest(tmp_path)
    assert again.system == SYSTEM
    assert again.clips == manifest.clips
    assert read_system_prompts(tmp_path).items == PROMPTS.items


def test_a_clip_is_done_if_line_and_file_agree(tmp_path: Path) -> None:
    manifest = open_manifest(tmp_path, SYSTEM, PROMPTS)
    manifest.append([line(tmp_path, 1), line(tmp_path, 2)])
    assert manifest.is_done(("prompt_0001", 0))
    sound(tmp_path / "prompt_0001.wav", 0.9)
    (tmp_path / "prompt_0002.wav").unlink()
    assert not manifest.is_done(("prompt_0001", 0))
    assert not manifest.is_done(("prompt_0002", 0))
    assert not manifest.is_done(("prompt_0003", 0))


def test_half_a_line_of_a_killed_process_is_no_line(tmp_path: Path) -> None:
    manifest = open_manifest(tmp_path, SYSTEM, PROMPTS)
    manifest.append([line(tmp_path, 1)])
    path = tmp_path / "manifest.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"id": "prompt_00')
    assert list(read_manifest(tmp_path).clips) == [("prompt_0001", 0)]
    again = open_manifest(tmp_path, SYSTEM, PROMPTS)
    assert path.read_text() == whole
    again.append([line(tmp_path, 2)])
    assert len(read_manifest(tmp_path).clips) == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "t"}, "name is 's' there and 't' now"),
        ({"protocol": {"takes": "2"}}, "takes is '1' there and '2' now"),
        ({"facts": {"nfe": "50"}}, "nfe is '25' there and '50' now"),
    ],
)
def test_another_protocol_in_a_folder_is_refused(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    open_manifest(tmp_path, SYSTEM, PROMPTS)
    with pytest.raises(ManifestError, match=complaint):
        open_manifest(tmp_path, SYSTEM.model_copy(update=change), PROMPTS)


def test_a_folder_without_a_system_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="resonate eval generate"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(ManifestError, match=r"has manifest\.jsonl but no system\.json"):
        open_manifest(tmp_path, SYSTEM, PROMPTS)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    open_manifest(tmp_path, SYSTEM, PROMPTS)
    (tmp_path / "manifest.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(ManifestError, match=r"manifest\.jsonl, line 1"):
        read_manifest(tmp_path)


def test_clips_are_found_by_prompt_id_with_takes_missing_and_left_over(tmp_path: Path) -> None:
    for name in ("prompt_0001.wav", "0001_2.wav", "0002.flac", "noise.wav", "notes.txt"):
        sound(tmp_path / name) if name[-3:] != "txt" else (tmp_path / name).write_text("x")
    found = find_clips(tmp_path, PROMPTS)
    assert {key: path.name for key, path in found.files.items()} == {
        ("prompt_0001", 0): "prompt_0001.wav",
        ("prompt_0001", 1): "0001_2.wav",
        ("prompt_0002", 0): "0002.flac",
    }
    assert found.num_takes == 2
    assert ("prompt_0003", 0) in found.missing
    assert ("prompt_0002", 1) in found.missing
    assert [path.name for path in found.surplus] == ["noise.wav"]


def test_two_files_of_one_take_are_refused(tmp_path: Path) -> None:
    sound(tmp_path / "0001.wav")
    sound(tmp_path / "prompt_0001.wav")
    with pytest.raises(ManifestError, match="the same take of prompt prompt_0001"):
        find_clips(tmp_path, PROMPTS)


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    sound(tmp_path / "noise.wav")
    with pytest.raises(ManifestError, match=r"none of its 1 sounds .*prompt_0001\.wav"):
        find_clips(tmp_path, PROMPTS)
    with pytest.raises(ManifestError, match="no such folder"):
        find_clips(tmp_path / "nowhere", PROMPTS)
