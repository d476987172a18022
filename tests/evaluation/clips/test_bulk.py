"""Clips and scores are the same with Ray and without, and a lost process loses none.

Ray starts processes of its own, so each test of it is a program.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resonate_audio.cli.main import run
from resonate_audio.core.errors import InputError
from resonate_audio.evaluation.clips.bulk import Work, run_jobs
from resonate_audio.evaluation.scores.scored import read_scores

PROMPTS = ("a dog barks", "rain falling", "a bell rings", "a car horn", "wind")
QUICK = ("--steps", "2", "--duration", "1", "--batch-size", "2")
RAY = ("--ray", "local", "--workers", "2")
JUDGE = """
import os, signal, time
from pathlib import Path
PLACE = Path(__file__).parents[1]

def loud(samples, sample_rate_hz, prompts):
    once = PLACE / "killed"
    if "a bell rings" in prompts and not once.exists():
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "a broken one" in prompts:
        raise ValueError("cannot hear that")
    return [float(abs(row).max()) for row in samples]
"""
JOBS = """
import sys
from functools import partial
from resonate_audio.core.errors import ConfigError
from resonate_audio.data.ray_map import RayConfig
from resonate_audio.evaluation.clips.bulk import Bulk, Work, run_jobs

def add(tool, job):
    return tool + job

def name(tool):
    return [f"tool {tool}"]

if __name__ == "__main__":
    work, ray = Work(add, name), RayConfig(workers=2, store_mb=80)
    alone = list(run_jobs(range(6), work, 10))
    print(sorted(run_jobs(range(6), work, 10, Bulk(ray, partial(int, 10)))) == alone)
    try:
        list(run_jobs(range(2), work, 10, Bulk(ray, partial(int, 11))))
    except ConfigError as error:
        print(error)
"""
needs_ray = pytest.mark.skipif(
    not any(Path(place, "ray").is_dir() for place in sys.path),
    reason="pip install 'resonate-audio[data]'",
)


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program itself, with one thread as Ray's processes have."""
    program = "from resonate_audio.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "eval", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(cwd)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def prompt_file(folder: Path, texts: tuple[str, ...] = PROMPTS) -> Path:
    path = folder / "p.txt"
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def sounds_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.flac"))}


def test_without_ray_jobs_are_done_in_their_order_as_they_are_asked_for() -> None:
    done: list[int] = []

    def do(tool: int, job: int) -> int:
        done.append(job)
        return tool * job

    work = Work(do=do, identify=lambda tool: [str(tool)])
    results = run_jobs([3, 1, 2], work, 10)
    assert next(results) == (3, 30)
    assert done == [3]
    assert list(results) == [(1, 10), (2, 20)]


def test_options_that_ray_cannot_serve_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, output = str(prompt_file(tmp_path)), ["-o", str(tmp_path / "s")]
    for arguments, complaint in (
        ([*output, "--workers", "2"], "--workers: needs --ray local, or --ray HOST:PORT"),
        ([*output, "--clips", str(tmp_path), "--ray", "local"], "--ray: clips that are there"),
        ([*output, *QUICK, "--ray", "nowhere"], "Ray's address nowhere: expected HOST:PORT"),
    ):
        assert run(["eval", "generate", prompts, *arguments]) == 2
        assert complaint in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list((tmp_path / "s").glob("*.flac"))


@needs_ray
@pytest.mark.slow
def test_processes_do_what_one_does_and_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    done = subprocess.run(
        [sys.executable, tmp_path / "jobs.py"], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stdout.splitlines() if "(raylet)" not in line]
    assert said[0] == "True", done.stderr
    assert said[1].startswith("a process of Ray has tool 11, and tool 10 was expected")


@needs_ray
@pytest.mark.slow
def test_clips_and_scores_are_the_same_with_ray_and_without(tmp_path: Path) -> None:
    prompts = prompt_file(tmp_path)
    for name, more in (("alone", ()), ("many", RAY)):
        made = command("generate", prompts, "-o", name, *QUICK, *more, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
    assert len(sounds_of(tmp_path / "alone")) == len(PROMPTS)
    assert sounds_of(tmp_path / "many") == sounds_of(tmp_path / "alone")
    metrics = ("-M", "nano-eval", "-M", "nano-clap", "--batch-size", "2")
    for name, more in (("alone", ()), ("many", RAY)):
        place = ("--store", f"{name}.db")
        scored = command("score", name, *metrics, *place, *more, cwd=tmp_path)
        assert scored.returncode == 0, scored.stderr
    alone, many = (read_scores(tmp_path / name) for name in ("alone", "many"))
    assert [clip.values for clip in many.clips] == [clip.values for clip in alone.clips]
    assert [clip.signs for clip in many.clips] == [clip.signs for clip in alone.clips]
    assert many.cards == alone.cards


@needs_ray
@pytest.mark.slow
def test_a_killed_process_loses_no_score_and_its_folder_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "my_judge.py").write_text(JUDGE)
    made = command("generate", prompt_file(tmp_path), "-o", "s", *QUICK, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    score = ("score", "s", "-M", "loud=my_judge:loud", "--batch-size", "1")
    done = command(*score, "--store", "s.db", *RAY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    values = [clip.values for clip in read_scores(tmp_path / "s").clips]
    again = command(*score, "--store", "fresh.db", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [clip.values for clip in read_scores(tmp_path / "s").clips] == values


@needs_ray
@pytest.mark.slow
def test_a_broken_judge_is_one_line_with_ray_too_and_missing_clips_are_made(
    tmp_path: Path,
) -> None:
    (tmp_path / "my_judge.py").write_text(JUDGE)
    prompts = prompt_file(tmp_path, ("rain", "a broken one", "wind"))
    make = ("generate", prompts, "-o", "s", *QUICK)
    assert command(*make, cwd=tmp_path).returncode == 0
    before = sounds_of(tmp_path / "s")
    (tmp_path / "s" / next(iter(before))).unlink()
    gone_on = command(*make, *RAY, cwd=tmp_path)
    assert gone_on.returncode == 0, gone_on.stderr
    assert sounds_of(tmp_path / "s") == before
    score = ("score", "s", "-M", "loud=my_judge:loud", "--batch-size", "1")
    failed = command(*score, *RAY, cwd=tmp_path)
    assert failed.returncode == 2
    assert "cannot hear that" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr


def test_errors_of_a_job_pass_through() -> None:
    def do(tool: int, job: int) -> int:
        raise InputError(f"{job} is no sound")

    with pytest.raises(InputError, match="3 is no sound"):
        list(run_jobs([3], Work(do=do, identify=lambda tool: []), 0))
