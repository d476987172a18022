from __future__ import annotations

import json
import os
import pty
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.audio.io import write_audio
from resonate_audio.cli.main import run
from resonate_audio.core.types import Audio, Recipe

JUDGES = """
import numpy as np

def level(samples, sample_rate_hz, prompts):
    return np.abs(samples).max(axis=1)

def num_letters(samples, sample_rate_hz, prompts):
    return [len(prompt) for prompt in prompts]

def seconds(samples, sample_rate_hz, prompts):
    return [samples.shape[1] / sample_rate_hz] * len(samples)

def fail(samples, sample_rate_hz, prompts):
    raise ValueError("no idea")

def few(samples, sample_rate_hz, prompts):
    return [1.0]

def talk(samples, sample_rate_hz, prompts):
    print("I listen")
    return [1.0] * len(samples)

class Parts:
    name = "parts"

    async def score(self, audio, prompts):
        from resonate_audio.rewards.base import make_rewards
        rows, length = audio.samples.shape
        return make_rewards([1.0] * rows, self.name, rows, {f"of {length}": [2.0] * rows})

def warn(samples, sample_rate_hz, prompts):
    import warnings
    warnings.warn("I am not sure")
    return [0.0] * len(samples)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three clips of unlike rates and lengths, and a file of judges."""
    monkeypatch.chdir(tmp_path)
    module = f"judges_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(JUDGES)
    for name, level, rate_hz, num_samples in (
        ("a", 0.5, 16_000, 8000),
        ("b", 0.25, 44_100, 44_100),
        ("c", 0.75, 16_000, 8000),
    ):
        samples = np.full(num_samples, level, np.float32)
        write_audio(tmp_path / f"{name}.wav", Audio(samples, rate_hz))
    return tmp_path


def judge(place: Path, *names: str) -> str:
    return ",".join(
        f"{name[: name.index('*') + 1]}judges_{place.name}:{name.rpartition('*')[2]}"
        if "*" in name
        else f"judges_{place.name}:{name}"
        for name in names
    )


CLIPS = ["a.wav", "b.wav", "c.wav"]


def scored(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert run(["reward", *arguments, "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    listed: list[dict[str, object]] = json.loads(said.out)
    return listed


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["reward", *arguments, "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_clips_of_unlike_rates_and_lengths_keep_their_order(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scored([*CLIPS, "-j", judge(place, "level"), "-p", "rain"], capsys)
    assert [item["clip"] for item in found] == CLIPS
    assert [item["score"] for item in found] == pytest.approx([0.5, 0.25, 0.75], abs=1e-4)


def test_no_clip_is_padded_to_anothers_length(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scored([*CLIPS, "-j", judge(place, "seconds"), "-p", "rain"], capsys)
    assert [item["score"] for item in found] == [0.5, 1.0, 0.5]


def test_a_file_of_prompts_has_a_line_for_each_clip(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "lines.txt").write_text("a\ndog\nbarks\n")
    arguments = [*CLIPS, "-j", judge(place, "num_letters"), "--prompts", "lines.txt"]
    found = scored(arguments, capsys)
    assert [(item["prompt"], item["score"]) for item in found] == [
        ("a", 1),
        ("dog", 3),
        ("barks", 5),
    ]


def test_several_judges_are_summed_and_listed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = judge(place, "0.5*level", "num_letters")
    (found,) = scored(["a.wav", "-j", both, "-p", "rain"], capsys)
    assert found["score"] == pytest.approx(4.25, abs=1e-4)
    level, letters = (part.rpartition("*")[2] for part in both.split(","))
    assert found["parts"] == {level: pytest.approx(0.5, abs=1e-4), letters: 4}
    assert str(found["judge"]).startswith("0.5*judges_")


def test_a_sound_of_ours_is_judged_by_the_prompt_it_was_made_from(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe("thunder", "", 1, 1.0, 5, 4.5, "nano", "f", "cpu", "float32", "0")
    write_audio(place / "ours.wav", Audio(np.zeros(800, np.float32), 16_000, recipe))
    (found,) = scored(["ours.wav", "-j", judge(place, "num_letters")], capsys)
    assert (found["prompt"], found["score"]) == ("thunder", 7)


def test_the_table_is_plain_in_a_pipe(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "reward",
        *CLIPS,
        "-j",
        judge(place, "num_letters"),
        "-p",
        "rain",
        "--device",
        "cpu",
    ]
    assert run(arguments) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "clip   prompt  score",
        "a.wav  rain    4.0000",
        "b.wav  rain    4.0000",
        "c.wav  rain    4.0000",
    ]
    assert said.err == ""


def test_the_table_is_drawn_on_a_terminal(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", closefd=True) as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert (
            run(["reward", "a.wav", "-j", judge(place, "level"), "-p", "rain", "--device", "cpu"])
            == 0
        )
        terminal.flush()
        drawn = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "─" in drawn
    assert "a.wav" in drawn


def test_what_a_judge_warns_of_is_one_note(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["reward", "a.wav", "-j", judge(place, "warn"), "-p", "rain", "--device", "cpu"]
    assert run(arguments) == 0
    assert capsys.readouterr().err == "note: I am not sure\n"


def test_an_unknown_judge_is_one_line_that_lists_the_known(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failure(["a.wav", "-j", "clop", "-p", "rain"], capsys)
    assert "clop" in line
    assert "aqa" in line


def test_a_judge_that_fails_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(["a.wav", "-j", judge(place, "fail"), "-p", "rain"], capsys)
    assert line.endswith(":fail: ValueError: no idea")


def test_what_is_not_audio_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "a.wav").write_bytes(b"not audio")
    assert "a.wav: not an audio file" in failure(["a.wav", "-j", "clap", "-p", "rain"], capsys)


def test_a_recording_needs_a_prompt(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --prompt or --prompts" in failure(["a.wav", "-j", "clap"], capsys)


def test_prompts_and_clips_must_be_as_many(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "lines.txt").write_text("a\nb\n")
    line = failure([*CLIPS, "-j", "clap", "--prompts", "lines.txt"], capsys)
    assert "2 prompts for 3 clips" in line


def test_one_prompt_or_many_but_not_both(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "lines.txt").write_text("a\n")
    line = failure(["a.wav", "-j", "clap", "-p", "x", "--prompts", "lines.txt"], capsys)
    assert "expected one of them" in line


def test_a_judge_must_be_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--judge" in failure(["a.wav", "-p", "rain"], capsys)


def test_a_judge_that_scores_one_sound_of_two_has_scored_none(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failure(["a.wav", "c.wav", "--prompt", "x", "--judge", judge(place, "few")], capsys)
    assert "total has shape (1,); expected one score for each of 2 rows" in said


def test_what_a_judge_prints_is_no_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["a.wav", "--prompt", "x", "--judge", judge(place, "talk"), "--json"]
    assert run(["reward", *options]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["score"] == 1.0
    assert "I listen" in said.err


def test_parts_that_only_some_clips_have_are_left_open_for_the_others(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["a.wav", "b.wav", "--prompt", "x", "--judge", judge(place, "Parts")]
    assert run(["reward", *options]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert ("of 8000" in head, "of 44100" in head, len(rows)) == (True, True, 2)


def test_an_empty_prompt_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failure(["a.wav", "--prompt", " ", "--judge", judge(place, "level")], capsys)
    assert "--prompt is empty" in said


def test_a_judge_that_cannot_be_reached_is_asked_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    where = f"remote:{url}#model=q&retries=1&backoff_s=0.01&discover_ids=false"
    said = failure(["a.wav", "c.wav", "--prompt", "x", "--judge", where], capsys)
    assert url in said
    assert "got no answer in 2 tries" in said
