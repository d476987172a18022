"""The training set of nano: counted sounds are counted, windows are those asked for."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

PACK = Path(__file__).parents[2] / "recipes" / "nano" / "pack"
RATE_HZ = 8000
CLICK_S = 0.05


@pytest.fixture
def items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Any]]:
    """The pack of twelve clicks and twelve hums of two kinds, each item with its samples."""
    (tmp_path / "shards").mkdir()
    click = np.full(round(CLICK_S * RATE_HZ), 0.5, np.float32)
    hum = np.full(3 * RATE_HZ, 0.25, np.float32)
    soundfile.write(tmp_path / "shards" / "a.wav", np.concatenate([click, hum]), RATE_HZ)
    clips = [
        {"shard": "a.wav", "start": 0, "frames": len(click), "caption": "a click",
         "label": "click"},
        {"shard": "a.wav", "start": len(click), "frames": len(hum), "caption": "a low hum",
         "label": "low hum"},
        {"shard": "a.wav", "start": len(click), "frames": len(hum), "caption": "two hums",
         "captions": ["a hum"], "label": "hum"},
    ]  # fmt: skip
    lines = [json.dumps(clip | {"split": "train"}) + "\n" for clip in clips * 12]
    lines.append(json.dumps(clips[0] | {"split": "test", "caption": "never"}) + "\n")
    (tmp_path / "manifest.jsonl").write_text("".join(lines))
    words = ["--corpus", str(tmp_path), "--output", str(tmp_path / "pack"), "--scenes", "40"]
    words += ["--rate-hz", str(RATE_HZ), "--window-s", "2.5", "5", "10"]
    monkeypatch.setattr(sys, "argv", [str(PACK), *words])
    runpy.run_path(str(PACK), run_name="__main__")
    entries = map(json.loads, (tmp_path / "pack" / "manifest.jsonl").read_text().splitlines())
    found = []
    for entry in entries:
        first, count = entry["start_frame"], entry["num_frames"]
        samples, _ = soundfile.read(
            tmp_path / "pack" / entry["audio_path"], frames=count, start=first, dtype="float32"
        )
        found.append((entry, samples))
    return found


def num_clicks(samples: np.ndarray) -> int:
    """How often sound begins."""
    loud = np.abs(samples) > 0.1
    return int((np.diff(loud.astype(int), prepend=0) > 0).sum())


def test_a_caption_that_counts_is_true(items: list[tuple[dict[str, Any], Any]]) -> None:
    counted = [item for item in items if item[0]["audio_id"].startswith("counted")]
    assert counted
    words = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}
    for entry, samples in counted:
        word = words[num_clicks(samples)]
        plain, *others = entry["captions"]
        assert (plain, others[0]) == (f"a click {word}", f"a click, {word}")
        assert all(f"click {word}" in text.replace(",", "").lower() for text in others)


def test_items_are_windows_or_the_recording(items: list[tuple[dict[str, Any], Any]]) -> None:
    lengths = {len(samples) / RATE_HZ for _, samples in items}
    assert lengths <= {0.16, 2.5, 3.0, 5.0, 10.0}
    scenes = [len(s) / RATE_HZ for e, s in items if e["audio_id"].startswith(("seq", "tog"))]
    assert set(scenes) == {5.0, 10.0}


def test_every_caption_of_a_recording_is_kept_and_no_test_clip(
    items: list[tuple[dict[str, Any], Any]],
) -> None:
    hums = [entry for entry, _ in items if entry["labels"] == ["hum"]]
    assert all(entry["captions"][:2] == ["two hums", "a hum"] for entry in hums)
    assert all("hum" in text.lower() for entry in hums for text in entry["captions"][2:])
    assert not any("never" in text for entry, _ in items for text in entry["captions"])


def test_what_is_said_otherwise_names_the_same_sounds_in_their_order() -> None:
    said_otherwise = runpy.run_path(str(PACK))["said_otherwise"]
    caption = "a dog barks, then the rain falls followed by an owl"
    said = {
        said_otherwise(f"{caption} {n}", second) for n in range(300) for second in (True, False)
    }
    assert len({text.split("dog")[0] for text in said}) > 20
    assert all(
        text.index("og barks") < text.index("rain falls") < text.index("owl") for text in said
    )
    assert said_otherwise(caption, True) == said_otherwise(caption, True)
