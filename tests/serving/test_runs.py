"""Training runs as the studio reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from listening_tests import tone

from resonate_audio.audio.io import write_audio
from resonate_audio.core.errors import InputError
from resonate_audio.serving.runs import MAX_POINTS, list_runs, open_run, take_file


def write_run(folder: Path, steps: int = 20) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(
        "model: nano\nreward: nano-clap\nalgorithm:\n  kind: grpo\n"
    )
    lines = [
        {"step": n, "reward/mean": n / steps, "held_out/other": 1 - n / steps} for n in range(steps)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    take = {"step": 3, "prompt": "a dog", "take": 1, "reward": 0.5, "parts": {"clap": 0.5}}
    kinds = [take | {"kind": kind, "file": f"takes/{kind}.wav"} for kind in ("best", "worst")]
    (folder / "takes.jsonl").write_text("".join(json.dumps(kind) + "\n" for kind in kinds))
    write_audio(folder / "takes" / "best.wav", tone(300))
    return folder


def test_runs_are_found_below_the_folder_and_not_inside_of_each_other(tmp_path: Path) -> None:
    write_run(tmp_path / "grpo" / "first")
    write_run(tmp_path / "grpo" / "first" / "inside")
    write_run(tmp_path / "dpo")
    assert {head.name for head in list_runs(tmp_path)} == {"grpo/first", "dpo"}


def test_a_run_itself_may_be_the_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "dpo")
    assert [head.name for head in list_runs(tmp_path / "dpo")] == ["dpo"]


def test_a_run_tells_its_numbers_facts_and_warnings(tmp_path: Path) -> None:
    write_run(tmp_path / "dpo")
    run = open_run(tmp_path, list_runs(tmp_path)[0].id)
    assert run.facts == {"model": "nano", "algorithm.kind": "grpo", "reward": "nano-clap"}
    assert run.series["reward/mean"][:2] == ((0, 0.0), (1, 0.05))
    assert "held-out judge other went down" in run.warnings[0]
    assert [(take.kind, take.has_sound) for take in run.takes] == [("best", True), ("worst", False)]


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    write_run(tmp_path / "dpo", steps=3 * MAX_POINTS)
    points = open_run(tmp_path, list_runs(tmp_path)[0].id).series["reward/mean"]
    assert len(points) <= MAX_POINTS + 1
    assert (points[0][0], points[-1][0]) == (0, 3 * MAX_POINTS - 1)


def test_a_take_is_heard_by_its_id_also_when_the_run_has_gone_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "dpo")
    id = list_runs(tmp_path)[0].id
    [best, worst] = open_run(tmp_path, id).takes
    with (folder / "takes.jsonl").open("a") as file:
        newer = {"step": 9, "kind": "best", "reward": 0.9, "file": "takes/newer.wav"}
        file.write(json.dumps(newer) + "\n")
    write_audio(folder / "takes" / "newer.wav", tone(500))
    assert take_file(tmp_path, id, best.id) == (folder / "takes" / "best.wav").resolve()
    assert len({take.id for take in open_run(tmp_path, id).takes}) == 3
    for take in (worst.id, "0", "takes/best.wav", "../dpo/takes/best.wav"):
        with pytest.raises(InputError, match="no sound of it"):
            take_file(tmp_path, id, take)


@pytest.mark.parametrize("id", ["", "..", "dpo", "../dpo", "0" * 12])
def test_what_is_no_run_is_refused(tmp_path: Path, id: str) -> None:
    write_run(tmp_path / "dpo")
    with pytest.raises(InputError, match="no such run"):
        open_run(tmp_path, id)


def test_a_take_that_points_out_of_the_runs_is_not_served(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "dpo")
    (tmp_path / "secret.wav").write_bytes(b"secret")
    id = list_runs(tmp_path / "runs")[0].id
    take = open_run(tmp_path / "runs", id).takes[0].id
    sound = tmp_path / "runs" / "dpo" / "takes" / "best.wav"
    sound.unlink()
    sound.symlink_to(tmp_path / "secret.wav")
    with pytest.raises(InputError, match="outside"):
        take_file(tmp_path / "runs", id, take)
