"""Several commands on one machine: their teams of threads share the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from resonate_audio.__main__ import SPINS, share_cores

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


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
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split()[-1] == str(SPINS), done.stderr


# Minutes: serving, judging, loading and training at once.


def plain_environment() -> dict[str, str]:
    """As a user's shell has it: every command takes all cores."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


def command(folder: Path, *words: str) -> None:
    """Run a command line to its end."""
    line = [sys.executable, "-m", "resonate_audio", *words]
    done = subprocess.run(
        line, cwd=folder, env=plain_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def serving(folder: Path) -> Iterator[httpx2.Client]:
    """A server of nano as `resonate serve` starts it."""
    line = [sys.executable, "-m", "resonate_audio", "serve", "--port", "0", "--home", "home"]
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            line, cwd=folder, env=plain_environment(), stdout=out, stderr=out
        )
    try:
        until_s = time.monotonic() + 180
        while "listening on " not in log.read_text():
            assert time.monotonic() < until_s, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        url = log.read_text().partition("listening on ")[2].split("/ ")[0]
        with httpx2.Client(base_url=url, timeout=600) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=60)


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
            answer = client.post("/v1/audio/generate", json=body)
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
    with serving(tmp_path) as client:
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
