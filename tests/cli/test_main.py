"""The command line itself: exit codes, one line per mistake, fast help."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resonate_audio.cli import train
from resonate_audio.cli.main import app, run


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must exit 2 with one line on stderr and nothing on stdout."""
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("resonate: ")
    return line


def command_names() -> list[str]:
    own = [item.callback.__name__ for item in app.registered_commands if item.callback]
    trainers = [item.callback.__name__ for item in train.app.registered_commands if item.callback]
    return own + [f"train {name}" for name in trainers]


@pytest.mark.parametrize("command", command_names())
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"resonate {command}" in text


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys; from resonate_audio.cli.main import run; run(['--help']);"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("resonate ")


def test_an_unknown_command_suggests_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "generate" in failure(["genrate"], capsys)


def test_an_unknown_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--colour" in failure(["generate", "a dog", "--colour", "red"], capsys)


def test_a_word_where_a_number_belongs_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--steps" in failure(["generate", "a dog", "--steps", "many"], capsys)


@pytest.mark.parametrize("seed", ["-1", str(2**64)])
def test_a_seed_out_of_range_is_refused(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--seed" in failure(["generate", "a dog", "--seed", seed], capsys)


def test_no_prompt_at_all_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'resonate generate "' in failure(["generate"], capsys)


def test_a_prompt_in_another_encoding_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "UTF-8" in failure(["generate", "caf\udce9"], capsys)


def test_an_unknown_format_lists_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failure(["generate", "a dog", "-o", str(tmp_path / "a.xyz")], capsys)
    assert ".wav .flac .mp3 .ogg .opus" in line
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_asks_for_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"mine")
    assert "--overwrite" in failure(["generate", "a dog", "-o", str(path)], capsys)
    assert path.read_bytes() == b"mine"


def test_an_existing_picture_asks_for_overwrite_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    arguments = ["generate", "a dog", "-o", str(tmp_path / "a.wav"), "--spectrogram"]
    assert "a.png" in failure(arguments, capsys)


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "cannot write" in failure(["generate", "x", "-o", str(tmp_path / "file/a.wav")], capsys)


def test_a_read_only_place_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "/proc/a.wav" in failure(["generate", "a dog", "-o", "/proc/a.wav"], capsys)


def test_a_missing_prompts_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "lines.txt" in failure(
        ["generate", "--prompts-file", str(tmp_path / "lines.txt")], capsys
    )


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"\n \n", "no prompt"), (b"caf\xe9\n", "is not UTF-8")]
)
def test_a_prompts_file_without_prompts_is_refused(
    content: bytes, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.txt").write_bytes(content)
    assert complaint in failure(["generate", "--prompts-file", str(tmp_path / "lines.txt")], capsys)


def test_replaying_what_is_not_audio_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").write_bytes(b"not audio")
    assert "not an audio file" in failure(["replay", str(tmp_path / "a.wav")], capsys)


def test_replaying_a_missing_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "gone.wav" in failure(["replay", str(tmp_path / "gone.wav")], capsys)


def test_replaying_a_recording_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    from resonate_audio.audio.io import write_audio
    from resonate_audio.core.types import Audio

    write_audio(tmp_path / "a.wav", Audio(np.zeros(800, np.float32), 16_000))
    assert "no recipe" in failure(["replay", str(tmp_path / "a.wav")], capsys)


def test_a_recipe_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gone.yaml" in failure(["train", "vae", "--recipe", "gone.yaml"], capsys)


def test_a_real_process_says_one_line_and_exits_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "resonate_audio.cli.main", "generate", "x", "-o", "a.xyz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_an_interrupt_exits_130_with_one_line(tmp_path: Path) -> None:
    """Interrupted for real, while it waits for prompts that nobody pipes in."""
    command = [
        sys.executable,
        "-m",
        "resonate_audio.cli.main",
        "generate",
        "--prompts-file",
        "-",
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    wait_until_it_reads(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert said.splitlines() == ["resonate: interrupted; files that were finished are kept"]
    assert process.returncode == 130


def heed_interrupts() -> None:
    """Background jobs of a shell start with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until_it_reads(process: subprocess.Popen[str]) -> None:
    """Its main thread waits in the kernel for what is piped in."""
    while process.poll() is None:
        try:
            if "pipe_read" in Path(f"/proc/{process.pid}/wchan").read_text():
                return
        except OSError:
            time.sleep(5.0)  # a system that does not tell: by then it reads
            return
        time.sleep(0.05)
    raise AssertionError(f"ended early: {process.communicate()[1]}")


def test_a_sound_for_a_closed_standard_output_is_refused() -> None:
    command = [sys.executable, "-m", "resonate_audio", "generate", "rain", "-o", "-"]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(closed, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line == "resonate: -o -: the standard output is closed; give a file, or a pipe"
