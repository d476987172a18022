"""K11: of two that write one thing one wins, the other is told, and a kill locks nothing."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_k04_paths import line, sound
from tiny_grpo import write_grpo_recipe

from resonate_audio.audio.io import write_audio
from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import OutputError, ResonateError
from resonate_audio.core.files import alone_in, atomic_path
from resonate_audio.core.types import Audio

AT_WORK = r"process \d+ on .*, since \d{4}-\d\d-\d\d .* is at work in it"


def test_the_first_of_two_that_make_a_file_wins(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"

    def be_late() -> None:
        with atomic_path(path, overwrite=False) as late:
            late.write_text("late")
            with atomic_path(path, overwrite=False) as first:
                first.write_text("first")

    with pytest.raises(OutputError, match=r"x\.wav: exists already"):
        be_late()
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["x.wav"]


def test_of_many_threads_that_make_a_sound_one_is_done(tmp_path: Path) -> None:
    done, refused = list[int](), list[ResonateError]()

    def make(number: int) -> None:
        try:
            write_audio(tmp_path / "x.wav", Audio(np.full(8, number / 16, np.float32), 8000))
            done.append(number)
        except OutputError as error:
            refused.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), len(refused)) == (1, 7)
    assert os.listdir(tmp_path) == ["x.wav"]


def test_without_hard_links_the_first_wins_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on FAT and on some network disks, where a link is refused."""

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_the_first_of_two_that_make_a_file_wins(tmp_path)


def trains(folder: Path, model: Path) -> None:
    from resonate_audio.training.recipes.reinforce import ReinforceRecipe, train_reinforce

    (folder / "in").mkdir(exist_ok=True)
    recipe = write_grpo_recipe(folder / "in", model)
    recipe["run"]["output"] = str(folder / "out")
    recipe["reward"] = "nano-clap"
    train_reinforce(parse_config(ReinforceRecipe, recipe, "a recipe"), lambda text: None)


def manifest(folder: Path) -> Path:
    sound(folder / "in" / "a.wav")
    (folder / "in" / "x.jsonl").write_text(line("a", "a.wav"))
    return folder / "in" / "x.jsonl"


def packs(folder: Path, model: Path) -> None:
    from resonate_audio.data.encode import encode_manifest
    from resonate_audio.data.shards.workers import AudioConfig

    encode_manifest(manifest(folder), folder / "out", AudioConfig())


def encodes(folder: Path, model: Path) -> None:
    from resonate_audio.data.encode import encode_manifest
    from resonate_audio.data.shards.workers import EncodeConfig

    encode_manifest(manifest(folder), folder / "out", EncodeConfig(model=str(model)))


def generates(folder: Path, model: Path) -> None:
    from resonate_audio.cli.main import app

    (folder / "p.txt").write_text("dog\n")
    command = ["eval", "generate", str(folder / "p.txt"), "-o", str(folder / "out")]
    app([*command, "-m", str(model)], standalone_mode=False)


WORKERS: dict[str, Callable[[Path, Path], None]] = {
    "train": trains,
    "data shard": packs,
    "data encode": encodes,
    "eval generate": generates,
}


@pytest.mark.parametrize("worker", WORKERS)
def test_who_comes_second_is_told_who_is_at_work(
    worker: str, tmp_path: Path, tiny_model: Path
) -> None:
    with alone_in(tmp_path / "out"), pytest.raises(OutputError, match=AT_WORK):
        WORKERS[worker](tmp_path, tiny_model)
    assert os.listdir(tmp_path / "out") == []


def test_a_lock_ends_with_its_block_and_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with alone_in(tmp_path / "out"):
            assert os.listdir(tmp_path / "out") == [".lock"]
        assert os.listdir(tmp_path / "out") == []


def test_a_lock_survives_no_kill(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from resonate_audio.core.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(OutputError, match=f"process {holder.pid} on"), alone_in(tmp_path):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert os.listdir(tmp_path) == [".lock"]  # what is left of it holds nobody
    with alone_in(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_who_waits_goes_on_when_the_other_has_ended(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with alone_in(tmp_path, wait=True):
            order.append("second")

    with alone_in(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_model_that_another_saved_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    from resonate_audio.model.folder import writing_model

    def be_late() -> None:
        with writing_model(tmp_path / "m", overwrite=False) as late:
            (late / "file").write_text("late")
            with writing_model(tmp_path / "m", overwrite=False) as first:
                (first / "file").write_text("first")

    with pytest.raises(OutputError, match="m: "):
        be_late()
    assert (tmp_path / "m" / "file").read_text() == "first"
    assert os.listdir(tmp_path) == ["m"]
