"""Several commands on one machine: their teams of threads share the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running import Running

from resonate_audio.__main__ import SPINS, share_cores

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def plain_environment() -> dict[str, str]:
    """As a user's shell has it: every command takes all cores."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, str(SPINS)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=str,
)
def test_a_thread_that_waits_sleeps_soon_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str | None
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    share_cores()
    assert os.environ.pop("GOMP_SPINCOUNT", None) == expected


def test_it_is_said_before_torch_is_loaded() -> None:
    """Read once, when the library of threads is: later it would say nothing."""
    code = (
        "import sys, resonate_audio.__main__ as command\n"
        "assert 'torch' not in sys.modules\n"
        "sys.argv = ['resonate', '--version']\n"
        "try: command.main()\n"
        "finally: import os; print(os.environ['GOMP_SPINCOUNT'])\n"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(
        line, env=plain_environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout.split()[-1] == str(SPINS), done.stderr


# Minutes: serving, judging, loading and training at once.


def command(folder: Path, *words: str) -> None:
    """Run a command line to its end."""
    line = [sys.executable, "-m", "resonate_audio", *words]
    done = subprocess.run(
        line, cwd=folder, env=plain_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_serving_judging_loading_and_training_at_once_take_no_longer_than_in_turn(
    tmp_path: Path,
) -> None:
    sounds = tmp_path / "sounds"
    command(tmp_path, "generate", "a dog barks", "rain falling", "-n", "12", "-o", f"{sounds}/")
    clips = [str(path) for path in sorted(sounds.iterdir()) if path.suffix == ".wav"]
    assert len(clips) == 24

    def serve() -> None:
        for seed in range(12):
            body = {"input": "rain", "seed": seed, "audio_length": 10.0}
            answer = server.client.post("/v1/audio/generate", json=body)
            assert answer.status_code == 200, answer.text

    def judge() -> None:
        command(tmp_path, "reward", *clips, "--judge", "nano-lalm")

    def load() -> None:
        for _ in range(3):
            command(tmp_path, "generate", "rain", "--duration", "1", "--overwrite", "-o", "l.wav")

    def train() -> None:
        run = tmp_path / f"run-{time.monotonic_ns()}"
        options = ("--lora", "--steps", "20", "--output", str(run))
        command(tmp_path, "train", "sft", "--folder", str(sounds), *options)

    works = (serve, judge, load, train)
    start = ("-m", "resonate_audio", "serve")
    with Running(tmp_path / "home", start=start, environment=plain_environment()) as server:
        serve()
        alone = 0.0
        for work in works:
            began = time.monotonic()
            work()
            alone += time.monotonic() - began
        began = time.monotonic()
        with ThreadPoolExecutor(len(works)) as pool:
            for future in [pool.submit(work) for work in works]:
                future.result()
        together = time.monotonic() - began
    assert together <= 1.2 * alone, f"{together:.1f} s together, {alone:.1f} s in turn"
