"""What the codec of nano is trained on: the recordings as they lie, and noise of every colour."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from resonate_audio.data.manifest import read_manifest

MANIFEST = Path(__file__).parents[2] / "recipes" / "nano" / "codec" / "manifest"
RATE_HZ = 44_100


def test_noise_of_every_colour_and_level_stands_beside_the_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shards").mkdir()
    soundfile.write(tmp_path / "shards" / "a.wav", np.full(RATE_HZ, 0.5, np.float32), RATE_HZ)
    clip = {"id": "a", "shard": "a.wav", "start": 10, "frames": 999, "caption": "a hum",
            "label": "hum"}  # fmt: skip
    lines = [json.dumps(clip | {"split": split}) + "\n" for split in ("train", "test")]
    (tmp_path / "manifest.jsonl").write_text("".join(lines))
    output = tmp_path / "codec" / "manifest.jsonl"
    words = ["--corpus", str(tmp_path), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [str(MANIFEST), *words])
    runpy.run_path(str(MANIFEST), run_name="__main__")
    read_manifest(output)  # which is strict about every line
    first, *noises = map(json.loads, output.read_text().splitlines())
    assert (first["audio_id"], first["start_frame"], first["num_frames"]) == ("a", 10, 999)
    samples, rate_hz = soundfile.read(output.parent / "noise.wav")
    assert (rate_hz, len(samples)) == (RATE_HZ, sum(one["num_frames"] for one in noises))
    rows = samples.reshape(len(noises), -1)
    levels_db = 20 * np.log10(rows.std(1))
    assert levels_db.min() < -50
    assert levels_db.max() > -15
    power = np.abs(np.fft.rfft(rows)) ** 2
    above_5_khz = power[:, round(power.shape[1] * 5 / 22) :].sum(1) / power.sum(1)
    assert above_5_khz.min() < 0.01
    assert above_5_khz.max() > 0.7
