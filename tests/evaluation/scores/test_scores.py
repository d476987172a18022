"""Every clip is measured once, failures count, and a kill loses the batch at work and no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from resonate_audio.core.errors import ConfigError, ManifestError, RewardError
from resonate_audio.evaluation.clips.folder import ClipLine, System, file_sha256, open_manifest
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet
from resonate_audio.evaluation.scores.metrics import ask_per_event, check_columns, open_metric
from resonate_audio.evaluation.scores.score import join_earlier, score_system
from resonate_audio.evaluation.scores.scored import read_scores, write_scores
from resonate_audio.evaluation.scores.store import Store

JUDGE = """
import os, time
CALLS = os.environ.get("JUDGE_CALLS")

def loud(samples, sample_rate_hz, prompts):
    if CALLS:
        with open(CALLS, "a") as file:
            file.write("".join(f"{prompt}\\n" for prompt in prompts))
        time.sleep(float(os.environ.get("JUDGE_S", "0")))
    if "a broken one" in prompts:
        raise ValueError("cannot hear that")
    return [float(abs(row).max()) for row in samples]
"""


def prompts(num: int, last: str | None = None) -> PromptSet:
    items = [PromptItem(id=f"{n:04d}", prompt=f"sound {n}") for n in range(num)]
    if last is not None:
        items[-1] = PromptItem(id=items[-1].id, prompt=last)
    return PromptSet("made", tuple(items))


Change = Callable[[int, np.ndarray], np.ndarray]


def made(folder: Path, num: int, change: Change | None = None, last: str | None = None) -> Path:
    """A system's folder of short constant sounds."""
    asked = prompts(num, last)
    manifest = open_manifest(folder, System(name=folder.name, source="made here"), asked)
    lines = []
    for number, item in enumerate(asked.items):
        samples = np.full(4000, (number + 1) / (num + 1), np.float32)
        samples = samples if change is None else change(number, samples)
        path = folder / f"{item.id}.wav"
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        lines.append(
            ClipLine(
                id=item.id,
                prompt=item.prompt,
                file=path.name,
                sha256=str(file_sha256(path)),
                seconds=0.25,
                wall_s=0.1,
            )
        )
    manifest.append(lines)
    return folder


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "slow_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_judge", raising=False)
    return "loud=slow_judge:loud"


def test_scores_are_what_the_judge_says_and_come_back_from_the_files(
    tmp_path: Path, judge: str
) -> None:
    folder = made(tmp_path / "s", 6)
    with Store(tmp_path / "s.db") as store:
        scores = score_system(folder, [open_metric(judge)], store)
    assert [clip.values["loud"] for clip in scores.clips] == pytest.approx(
        [(n + 1) / 7 for n in range(6)]
    )
    assert {"loudness_lufs", "clipped_share", "silent_share"} <= scores.clips[0].signs.keys()
    write_scores(folder, scores)
    assert read_scores(folder) == scores


def test_finished_work_is_not_measured_again(
    tmp_path: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    monkeypatch.setenv("JUDGE_CALLS", str(calls))
    folder = made(tmp_path / "s", 5)
    with Store(tmp_path / "s.db") as store:
        first = score_system(folder, [open_metric(judge)], store)
        steps: list[tuple[int, int]] = []
        again = score_system(
            folder, [open_metric(judge)], store, on_step=lambda *step: steps.append(step)
        )
    assert again == first
    assert steps == []
    assert len(calls.read_text().splitlines()) == 5


def test_clips_that_cannot_be_scored_are_counted_and_never_scored(
    tmp_path: Path, judge: str
) -> None:
    def spoil(number: int, samples: np.ndarray) -> np.ndarray:
        if number == 1:
            return 0 * samples
        if number == 2:
            return samples[:80]
        if number == 3:
            samples[7] = np.nan
        return samples

    folder = made(tmp_path / "s", 6, spoil)
    (folder / "0005.wav").unlink()
    broken = folder / "0004.wav"
    broken.write_bytes(b"RIFF of nothing")
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    lines[4]["sha256"] = file_sha256(broken)
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with Store(tmp_path / "s.db") as store:
        scores = score_system(folder, [open_metric(judge)], store)
    assert [clip.failure for clip in scores.clips] == [
        None, "silent", "too short", "not finite", "unreadable", "missing",
    ]  # fmt: skip
    assert all(clip.values == {} for clip in scores.clips[1:])


def test_a_clip_of_no_prompt_and_a_changed_file_are_refused(tmp_path: Path, judge: str) -> None:
    folder = made(tmp_path / "s", 3)
    with Store(tmp_path / "s.db") as store:
        soundfile.write(folder / "0001.wav", np.full(4000, 0.9), 16_000, subtype="FLOAT")
        with pytest.raises(ManifestError, match=r"1 of 3 files are not those .*0001\.wav"):
            score_system(folder, [open_metric(judge)], store)
        listed = made(tmp_path / "t", 3) / "manifest.jsonl"
        listed.write_text(listed.read_text().replace('"0002"', '"0009"'))
        with pytest.raises(ManifestError, match="1 clips are of no prompt"):
            score_system(tmp_path / "t", [open_metric(judge)], store)
        with pytest.raises(ManifestError, match=r"prompt_set is prompts .* and made"):
            score_system(made(tmp_path / "u", 3), [open_metric(judge)], store, prompts(4))


def test_a_judge_that_fails_stops_the_work_and_what_was_measured_stays(
    tmp_path: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    monkeypatch.setenv("JUDGE_CALLS", str(calls))
    folder = made(tmp_path / "s", 4, last="a broken one")
    metric = open_metric(judge, batch_size=1)
    with Store(tmp_path / "s.db") as store:
        with pytest.raises(RewardError, match="cannot hear that"):
            score_system(folder, [metric], store)
        with pytest.raises(RewardError, match="cannot hear that"):
            score_system(folder, [metric], store)
    assert calls.read_text().splitlines().count("sound 0") == 1


def test_batches_change_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", 5)
    found = []
    for batch in (1, 4):
        with Store(tmp_path / f"{batch}.db") as store:
            found.append(score_system(folder, [open_metric("nano-clap", batch_size=batch)], store))
    one, four = ([clip.values["nano-clap"] for clip in scores.clips] for scores in found)
    assert one == pytest.approx(four, abs=1e-5)


def test_a_fingerprint_changes_with_what_is_measured(tmp_path: Path, judge: str) -> None:
    plain = open_metric("nano-lalm")
    assert plain.fingerprint == open_metric("nano-lalm").fingerprint
    assert plain.fingerprint != open_metric("nano-eval").fingerprint
    before = open_metric(judge).fingerprint
    (tmp_path / "slow_judge.py").write_text(JUDGE + "\n# heard differently\n")
    for name in ("slow_judge",):
        sys.modules.pop(name, None)
    assert open_metric(judge).fingerprint != before


def test_each_event_is_asked_for_on_its_own(tmp_path: Path, judge: str) -> None:
    folder = made(tmp_path / "s", 2)
    items = [
        {"id": "0000", "prompt": "sound 0", "event_list": ["a bell", "a dog"]},
        {"id": "0001", "prompt": "sound 1", "event_list": ["rain"]},
    ]
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    metric = open_metric("nano-eval")
    with Store(tmp_path / "s.db") as store:
        scores = score_system(folder, [metric, ask_per_event(metric)], store)
    names = {card.name for card in scores.cards}
    assert {"nano-eval-event-mean", "nano-eval-event-share"} <= names
    assert all(0 <= clip.values["nano-eval-event-mean"] <= 1 for clip in scores.clips)


def test_a_rubric_is_asked_item_by_item_and_keeps_each_answer(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", 2)
    items = [
        {"id": "0000", "prompt": "sound 0", "event_list": ["x"], "rubric": ["a bell", "a dog"]},
        {"id": "0001", "prompt": "sound 1", "event_list": ["rain"]},
    ]
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    metrics = [open_metric("rubric:nano-lalm"), open_metric("nano-lalm")]
    with Store(tmp_path / "s.db") as store:
        write_scores(folder, score_system(folder, metrics, store))
    first, second = read_scores(folder).clips
    answers = first.items["rubric"]
    assert list(answers) == ["a bell", "a dog"]
    assert list(second.items["rubric"]) == ["rain"]
    assert first.values["rubric"] == pytest.approx(sum(answers.values()) / 2)
    assert first.values["rubric-worst"] == min(answers.values())
    assert first.values["rubric-share"] == sum(value > 0.5 for value in answers.values()) / 2


def test_columns_of_an_earlier_run_stay_if_the_clips_are_the_same(
    tmp_path: Path, judge: str
) -> None:
    folder = made(tmp_path / "s", 3)
    with Store(tmp_path / "s.db") as store:
        write_scores(folder, score_system(folder, [open_metric(judge)], store))
        fresh = score_system(folder, [open_metric("nano-clap")], store)
    joined, dropped = join_earlier(folder, fresh)
    assert [card.name for card in joined.cards] == ["loud", "nano-clap"]
    assert dropped == ()
    assert set(joined.clips[0].values) == {"loud", "nano-clap"}
    other = fresh.model_copy(update={"clips_sha256": "other"})
    assert join_earlier(folder, other)[1] == ("loud",)


def test_unknown_metrics_and_doubled_columns_are_refused(judge: str) -> None:
    with pytest.raises(ConfigError, match="nano-clap"):
        open_metric("clapp")
    with pytest.raises(ConfigError, match="loud"):
        check_columns([open_metric(judge), open_metric("loud=nano-clap")])


def test_a_killed_run_goes_on_with_equal_numbers_and_nothing_is_measured_twice(
    tmp_path: Path, judge: str
) -> None:
    num, calls = 12, tmp_path / "calls"
    folder = made(tmp_path / "s", num)
    command = [
        sys.executable, "-c", "from resonate_audio.cli.main import main; main()",
        "eval", "score", str(folder), "--metric", judge, "--store", str(tmp_path / "s.db"),
        "--batch-size", "1",
    ]  # fmt: skip
    settings = os.environ | {"PYTHONPATH": str(tmp_path), "JUDGE_CALLS": str(calls)}
    process = subprocess.Popen(command, env=settings | {"JUDGE_S": "0.5"}, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not calls.exists() or len(calls.read_text().splitlines()) < 4:
        assert process.poll() is None, "the command ended by itself"
        assert time.monotonic() < deadline, "the judge was not asked"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    heard_before = calls.read_text().splitlines()
    assert 4 <= len(heard_before) < num
    subprocess.run(command, env=settings, cwd=tmp_path, check=True, capture_output=True)
    heard = calls.read_text().splitlines()
    # the clip at work when the process died may be heard again; none that was kept is
    assert len(heard) - len(set(heard)) <= 1
    assert len(set(heard)) == num
    with Store(tmp_path / "fresh.db") as store:
        undisturbed = score_system(folder, [open_metric(judge)], store)
    assert [clip.values for clip in read_scores(folder).clips] == [
        clip.values for clip in undisturbed.clips
    ]
