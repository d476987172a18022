import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resonate_audio.core.errors import TrainingError
from resonate_audio.data.manifest import Clip, Manifest, read_manifest
from resonate_audio.data.waveforms import WaveformSet, cached_waveforms, pieces, random_crops

RATE_HZ = 16_000


def make_manifest(folder: Path, sounds: dict[str, np.ndarray | bytes]) -> Manifest:
    lines = []
    for name, sound in sounds.items():
        path = folder / f"{name}.wav"
        if isinstance(sound, bytes):
            path.write_bytes(sound)
        else:
            soundfile.write(path, sound, RATE_HZ, subtype="PCM_16")
        lines.append(json.dumps({"audio_id": name, "audio_path": path.name, "caption": name}))
    (folder / "m.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return read_manifest(folder / "m.jsonl")


def counting_set(*lengths: int) -> WaveformSet:
    """Clips whose samples count up from 1 through the whole set."""
    total = sum(lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    clips = tuple(Clip(audio_id=str(i), audio_path="x", caption="x") for i in range(len(lengths)))
    samples = np.arange(1, total + 1, dtype=np.int16)
    return WaveformSet(samples, starts, np.array(lengths), clips, (), RATE_HZ, "test")


def test_a_corrupt_clip_is_counted_named_and_left_out(tmp_path: Path) -> None:
    tone = np.full(1000, 0.5)
    sounds = {"good": tone, "torn": b"RIFF not audio", "mute": np.zeros(1000)}
    said: list[str] = []
    waves = cached_waveforms(make_manifest(tmp_path, sounds), RATE_HZ, tmp_path / "c", said.append)
    assert [clip.audio_id for clip in waves.clips] == ["good"]
    assert {clip.audio_id for clip in waves.broken} == {"torn", "mute"}
    report = "\n".join(said)
    assert "2 of 3 clips cannot be used" in report
    assert "torn: " in report
    assert "mute: " in report


def test_a_run_without_any_usable_clip_stops(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, {"torn": b"no", "mute": np.zeros(100)})
    with pytest.raises(TrainingError, match="none of its 2 clips is usable"):
        cached_waveforms(manifest, RATE_HZ, tmp_path / "c", lambda _: None)


def test_sixteen_bit_recordings_come_back_within_half_a_step(tmp_path: Path) -> None:
    tone = 0.9 * np.sin(np.arange(2000) / 20)
    manifest = make_manifest(tmp_path, {"tone": tone})
    waves = cached_waveforms(manifest, RATE_HZ, tmp_path / "c", lambda _: None)
    got = waves.wave(0, 0, 2000).numpy()
    assert np.abs(got - tone).max() < 1.5 / 32767


def test_the_second_run_decodes_nothing(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, {"tone": np.full(1000, 0.5)})
    said: list[str] = []
    for _ in range(2):
        cached_waveforms(manifest, RATE_HZ, tmp_path / "c", said.append)
    assert len([line for line in said if line.startswith("decoding")]) == 1


def test_an_interrupted_decoding_starts_again(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, {"tone": np.full(1000, 0.5)})
    folder = tmp_path / "c" / f"waves-{RATE_HZ}-{manifest.fingerprint()}"
    folder.mkdir(parents=True)
    (folder / "samples.i16").write_bytes(b"12")
    waves = cached_waveforms(manifest, RATE_HZ, tmp_path / "c", lambda _: None)
    assert waves.lengths.tolist() == [1000]


def test_a_clip_that_ends_is_followed_by_digital_silence() -> None:
    wave = counting_set(3, 5).wave(0, 1, 4)
    torch.testing.assert_close(wave * 32767, torch.tensor([2.0, 3.0, 0.0, 0.0]))


def test_a_clip_has_one_piece_per_crop_or_part_of_one() -> None:
    assert pieces(np.array([1, 10, 11, 25]), 10).tolist() == [0, 1, 2, 2, 3, 3, 3]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_crop_never_reaches_into_another_clip(lengths: list[int], size: int, seed: int) -> None:
    waves = counting_set(*lengths)
    generator = torch.Generator().manual_seed(seed)
    crops = random_crops(waves, np.arange(len(lengths)), size, generator)
    for clip, crop in enumerate(crops * 32767):
        first, last = waves.starts[clip] + 1, waves.starts[clip] + waves.lengths[clip]
        kept = crop[: min(size, lengths[clip])].round()
        assert (kept >= first).all()
        assert (kept <= last).all()
        assert (crop[len(kept) :] == 0).all()
