"""K22: what is no regular file is refused, by its name and at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from reader_tables import FILES, IN_MEMORY, Member, try_reading

ON_DISK = [member for member in FILES if member.name not in IN_MEMORY | {"an option --set"}]
WALKED = {
    "a caption beside a sound",
    "metadata of a folder",
    "metadata of a folder of CSV",
    "Clotho",
    "VGGSound",
}
"""Members that walk a tree, where a folder is no table, whatever it is called."""
RAW = {"metrics of a training", "a recipe in a sound"}
"""Members whose row reads the bytes itself before the reader is called."""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("member", [m for m in ON_DISK if m.name not in RAW], ids=str)
@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
def test_no_reader_waits_for_a_pipe_or_reads_a_device(
    member: Member, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / member.file
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    message = try_reading(member, path)
    listed = kind != "folder" or member.name not in WALKED
    assert member.forgives or not listed or message is not None, f"{kind} was read"


def test_metrics_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    from resonate_audio.core.errors import TrainingError
    from resonate_audio.training.loop.progress import read_metrics

    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(TrainingError, match="named pipe"):
        read_metrics(tmp_path / "metrics.jsonl")


LISTED = {"a clip of a manifest", "a clip that is checked"}
"""Members whose names come out of a manifest, which has refused the others."""
ODD_NAMES = ["a\0b", "x" * 5_000, "\udc80\ud800", "nowhere/at/all"]


@pytest.mark.parametrize("member", [m for m in ON_DISK if m.name not in RAW], ids=str)
def test_names_that_no_file_can_have_are_refused(member: Member, tmp_path: Path) -> None:
    if "of_folder" in member.read.__qualname__ or "index" in member.file:
        pytest.skip("reads a folder, whose file has a name of its own")
    for name in ODD_NAMES if member.name not in LISTED else ODD_NAMES[1:2]:
        message = try_reading(member, tmp_path / f"{name}{Path(member.file).suffix}")
        assert member.forgives or message is not None, f"{name[:20]!r} was read"


COMMANDS = [
    ["generate", "--prompts", "PATH"],
    ["reward", "PATH", "--judge", "nano-clap"],
    ["reward", "PATH", "--judge", "nano-clap", "--prompts", "PATH"],
    ["replay", "PATH"],
    ["data", "check", "PATH"],
    ["data", "mix", "PATH", "-o", "out.jsonl"],
    ["data", "shard", "PATH", "-o", "out"],
    ["data", "encode", "PATH", "-o", "out"],
    ["eval", "generate", "PATH", "-o", "out"],
    ["eval", "bench", ".", "--prompts", "PATH"],
    ["eval", "listening", "PATH"],
    ["eval", "correlate", "PATH", "--ratings", "PATH"],
    ["listen", "create", "t", "--manifest", "PATH"],
    ["listen", "create", "t", "-s", "a=.", "--prompts", "PATH"],
    ["listen", "create", "t", "-s", "a=.", "--probe", "PATH=1,2"],
    ["train", "pretrain", "PATH"],
    ["train", "grpo", "PATH"],
    ["train", "plan", "PATH"],
    ["convert", "PATH", "-o", "out"],
]
"""A new command that takes a file gets a row."""


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes, no /dev")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_hangs_at_a_pipe_or_a_device(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from resonate_audio.cli.main import run

    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for place in ("pipe", "/dev/zero", "/dev/full"):
        assert run([word.replace("PATH", place) for word in command]) == 2, place
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].startswith("resonate: "), said


def test_what_is_piped_in_is_read_as_prompts(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path;"
        "from resonate_audio.data.prompts import read_prompts; print(read_prompts(Path('-')))"
    )
    for given, found in (
        (b"dog\n# no\ncat\n", "('dog', 'cat')"),
        (b'{"prompt": "dog"}\n{"prompt": "cat"}\n', "('dog', 'cat')"),
        (b'[{"prompt_text": "dog"}]', "('dog',)"),
        (b"name,caption\na,dog\n", "('dog',)"),
    ):
        done = subprocess.run([sys.executable, "-c", program], input=given, capture_output=True)
        assert done.stdout.decode().strip() == found, done.stderr.decode()
