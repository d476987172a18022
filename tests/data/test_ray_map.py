"""Ray starts processes of its own, so each test of it is a program."""

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shard_corpus import write_sounds
from test_encode import command, config, digests

from resonate_audio.core.errors import ConfigError
from resonate_audio.data.encode import encode_manifest
from resonate_audio.data.ray_map import Ledger, check_address

SQUARES = """
import os, signal, sys, time
from pathlib import Path
from resonate_audio.core.errors import InputError
from resonate_audio.data.ray_map import RayConfig, map_with_ray

folder = Path(sys.argv[1])

class Square:
    def __init__(self):
        (folder / f"process-{os.getpid()}").touch()

    def __call__(self, number):
        once = folder / "killed"
        if number == 7 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1)
        return number * number

def fail(number):
    if number == 2:
        raise InputError("2 is not a number")
    return number

if __name__ == "__main__":
    found = sorted(map_with_ray(range(20), Square, RayConfig(workers=2)))
    print(found == [(number, number * number) for number in range(20)])
    try:
        list(map_with_ray(range(4), lambda: fail, RayConfig()))
    except InputError as error:
        print(error)
"""

DEADLY = """
import os
from resonate_audio.core.errors import WorkerError
from resonate_audio.data.ray_map import RayConfig, map_with_ray

def end(number):
    if number == 2:
        os._exit(1)
    return number

def never_ready():
    os._exit(1)

if __name__ == "__main__":
    for make, losses in ((lambda: end, 1), (never_ready, 0)):
        try:
            list(map_with_ray(range(4), make, RayConfig(max_losses=losses)))
        except WorkerError as error:
            print(error)
"""

needs_ray = pytest.mark.skipif(
    "ray" not in sys.modules and not any(Path(p, "ray").is_dir() for p in sys.path),
    reason="pip install 'resonate-audio[data]'",
)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_an_address_where_nothing_answers_is_named_at_once() -> None:
    port = free_port()
    started = time.monotonic()
    with pytest.raises(ConfigError, match=rf"Ray's address 127\.0\.0\.1:{port}: no Ray answers"):
        check_address(f"127.0.0.1:{port}", 5.0)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("address", ["here", "ray://somewhere", ":1", "host:port", ""])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match=r"expected HOST:PORT such as 10\.0\.0\.5:6379"):
        check_address(address, 1.0)


@needs_ray
def test_something_else_that_answers_is_told_from_ray() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(
            ConfigError, match=f"Ray's address {address}: no Ray answers within 2 s"
        ):
            check_address(address, 2.0)


@needs_ray
@pytest.mark.slow
def test_a_lost_worker_loses_no_item_and_a_mistake_keeps_its_line(tmp_path: Path) -> None:
    (tmp_path / "squares.py").write_text(SQUARES)
    done = subprocess.run(
        [sys.executable, tmp_path / "squares.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if "(raylet)" not in line]  # Ray's own
    assert said == ["True", "2 is not a number"], done.stderr
    assert (tmp_path / "killed").exists()
    assert len(list(tmp_path.glob("process-*"))) == 3  # two, and the one after the lost one


@needs_ray
@pytest.mark.slow
def test_an_item_that_ends_its_process_every_time_stops_the_job_by_name(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    done = subprocess.run(
        [sys.executable, tmp_path / "deadly.py"], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stdout.splitlines() if "(raylet)" not in line]
    assert len(said) == 2, done.stderr
    assert said[0].startswith("2: its process ended 2 times before it was done")
    assert re.match(r"[0-3]: its process ended 1 times", said[1])


def test_a_ledger_counts_what_was_begun_and_not_ended() -> None:
    ledger = Ledger()
    assert ledger.begin(5, None) == 0
    assert ledger.begin(6, 5) == 0
    assert ledger.begin(6, None) == 1  # another process, after the first was lost
    assert ledger.begin(5, None) == 0  # it ended once, so it was not lost


@needs_ray
@pytest.mark.slow
def test_shards_are_the_same_bytes_with_ray_and_without(tmp_path: Path, tiny_model: Path) -> None:
    manifest = write_sounds(tmp_path, (0.2, 0.4, 1.3, 0.3, 0.5))
    encode_manifest(manifest, tmp_path / "alone", config(tiny_model, clips_per_shard=1))
    arguments = ("encode", manifest, "-o", tmp_path / "ray", "--model", tiny_model)
    arguments += ("--windows", "0.25,0.5", "--clips-per-shard", "1")
    done = subprocess.run(
        command(*arguments, "--ray", "local", "--workers", 2),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ray") == digests(tmp_path / "alone")


@contextmanager
def cluster(environment: dict[str, str]) -> Iterator[str]:
    """A head node of one CPU on this machine, ended with all that it started."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--port", address.partition(":")[2], "--node-ip-address", "127.0.0.1"),
            *("--num-cpus", "1", "--include-dashboard", "false", "--disable-usage-stats"),
            *("--object-store-memory", str(80 * 2**20)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "Ray runtime started" in line:
                break
        yield address
    finally:
        process.terminate()  # it ends its own
        process.communicate(timeout=60)


@needs_ray
@pytest.mark.slow
def test_a_cluster_is_found_by_its_address_and_wants_its_token(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path, (0.2, 0.4, 1.3))
    arguments = command("shard", manifest, "-o", tmp_path / "out", "--clips-per-shard", 1)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with cluster(plain | token) as address:
        refused, done = (
            subprocess.run(
                [*arguments, "--ray", address],
                capture_output=True,
                text=True,
                check=False,
                env=environment,
            )
            for environment in (plain | {"RAY_AUTH_MODE": "disabled"}, plain | token)
        )
    assert refused.returncode == 2
    assert f"Ray's address {address}: the cluster wants its token" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.tar"))) == 3


@needs_ray
@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_one_line_with_ray_too(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path, (0.2, 0.4))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shard-000000.tar").mkdir()  # cannot be replaced by a file
    done = subprocess.run(
        command("shard", manifest, "-o", tmp_path / "out", "--ray", "local"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("resonate: ")
    assert "shard-000000.tar: is a folder, expected a file name" in done.stderr
    assert "Traceback" not in done.stderr
