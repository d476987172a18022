"""K10: a name may be as long as the file system allows; a longer one is refused in one line."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.audio.io import read_audio, write_audio
from resonate_audio.cli.main import run
from resonate_audio.core.errors import OutputError
from resonate_audio.core.files import alone_in, append_text, atomic_path, check_target
from resonate_audio.core.types import Audio

LONGEST = 255
"""Bytes of a name, on the file systems of Linux, macOS and Windows."""
SOUND = Audio(np.full(800, 0.5, np.float32), 8000)


@pytest.mark.parametrize("size", [239, 240, 246, 254, 255])
@pytest.mark.parametrize("letter", ["a", "ü", "音", "🔔"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_sound_of_a_long_name_is_written(
    letter: str, size: int, overwrite: bool, tmp_path: Path
) -> None:
    stem = letter * ((size - 4) // len(letter.encode()))
    path = tmp_path / f"{stem}.wav"
    write_audio(path, SOUND, overwrite)
    assert len(read_audio(path).samples) == 800
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_that_is_all_suffix_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x." + "b" * 253)
    with atomic_path(path) as temporary:
        temporary.write_text("all")
    assert path.read_text() == "all"


def test_a_model_of_a_long_name_is_saved(tmp_path: Path, tiny_model: Path) -> None:
    from resonate_audio import Resonate

    Resonate.from_pretrained(tiny_model, device="cpu").save_pretrained(tmp_path / ("m" * LONGEST))
    assert len(os.listdir(tmp_path)) == 1


def a_file(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.touch()


def a_line(path: Path) -> None:
    append_text(path, "line\n")


def a_folder(path: Path) -> None:
    with alone_in(path):
        pass


def a_check(path: Path) -> None:
    check_target(path, overwrite=False)


BAD = {
    "too long": "a" * 300,
    "a long folder": f"{'b' * 300}/x.wav",
    "a long path": "/".join(["c" * 200] * 30),
    "a NUL": "a\0b",
    "half a letter": "a\ud800b",
}


@pytest.mark.parametrize("use", [a_file, a_line, a_folder, a_check])
@pytest.mark.parametrize("kind", BAD)
def test_a_name_that_cannot_be_is_refused_in_one_line(
    kind: str, use: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(OutputError) as caught:
        use(tmp_path / BAD[kind])
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


LONG = "n" * 300
COMMANDS = {
    "generate -o": ["generate", "dog", "-m", "{model}", "-o", f"{LONG}.wav"],
    "generate -o folder": ["generate", "dog", "-m", "{model}", "-o", f"{LONG}/"],
    "generate -m": ["generate", "dog", "-m", LONG],
    "generate --prompts": ["generate", "--prompts", LONG],
    "replay": ["replay", f"{LONG}.wav"],
    "reward": ["reward", f"{LONG}.wav", "--prompt", "dog", "--reward", "nano-clap"],
    "convert -o": ["convert", "{model}/vae/model.safetensors", "-o", LONG],
    "data import": ["data", "import", "folder", LONG, "-o", "x.jsonl"],
    "data import -o": ["data", "import", "folder", "{sounds}", "-o", f"{LONG}.jsonl"],
    "data check": ["data", "check", LONG, "-o", "x.html"],
    "data check -o": ["data", "check", "{manifest}", "-o", f"{LONG}.html", "--workers", "1"],
    "data mix": ["data", "mix", "{manifest}", "-o", LONG],
    "data shard": ["data", "shard", LONG, "-o", "shards"],
    "data shard -o": ["data", "shard", "{manifest}", "-o", LONG],
    "data encode -m": ["data", "encode", "{manifest}", "-o", "shards", "-m", LONG],
    "data shards": ["data", "shards", LONG],
    "train --recipe": ["train", "grpo", "--recipe", LONG],
    "train plan": ["train", "plan", LONG],
    "eval generate": ["eval", "generate", LONG, "-o", "out", "-m", "{model}"],
    "eval generate -o": ["eval", "generate", "{prompts}", "-o", LONG, "-m", "{model}"],
    "eval generate -m": ["eval", "generate", "{prompts}", "-o", "out", "-m", LONG],
    "eval score": ["eval", "score", LONG, "--metric", "nano-clap"],
    "eval score --store": ["eval", "score", "{sounds}", "--metric", "nano-clap", "--store", LONG],
    "eval report": ["eval", "report", LONG, "-o", "x.html"],
    "eval compare": ["eval", "compare", LONG, LONG],
    "eval distance": ["eval", "distance", LONG, "--reference", LONG],
    "eval mos": ["eval", "mos", LONG],
    "eval correlate": ["eval", "correlate", LONG, LONG],
    "listen create": ["listen", "create", LONG, "--system", "a={sounds}"],
    "serve -m": ["serve", "--model", LONG, "--home", LONG],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_a_name_that_cannot_be(
    name: str,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sounds").mkdir()
    write_audio(tmp_path / "sounds" / "a.wav", SOUND)
    (tmp_path / "sounds" / "a.txt").write_text("a tone")
    line = '{"audio_id": "a", "audio_path": "sounds/a.wav", "caption": "a tone"}\n'
    (tmp_path / "m.jsonl").write_text(line)
    (tmp_path / "p.txt").write_text("dog\n")
    monkeypatch.chdir(tmp_path)
    places = {
        "model": tiny_model, "sounds": "sounds", "manifest": "m.jsonl", "prompts": "p.txt",
    }  # fmt: skip
    code = run([part.format(**places) for part in COMMANDS[name]])
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "p.txt", "sounds"]
