"""`resonate listen` from folders to numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening_tests import rate_everything, tone
from typer.testing import CliRunner, Result

from resonate_audio.audio.io import write_audio
from resonate_audio.cli.listen import app
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.evaluation.people.ratings import read_ratings
from resonate_audio.serving.listening.answers import Answers
from resonate_audio.serving.listening.test import open_test


@pytest.fixture
def systems(tmp_path: Path) -> list[str]:
    for row, name in enumerate(("alpha", "beta")):
        for n in range(3):
            write_audio(tmp_path / name / f"p{n}.wav", tone(200 + 100 * n + 17 * row))
    (tmp_path / "texts.csv").write_text("name,prompt\np0,a dog\np1,rain\np2,a bell\n")
    options = [f"--system={name}={tmp_path / name}" for name in ("alpha", "beta")]
    return [*options, f"--prompts={tmp_path / 'texts.csv'}"]


def listen(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_folders_become_a_test_answers_become_files(systems: list[str], tmp_path: Path) -> None:
    made = listen("create", str(tmp_path / "trees"), *systems, "--preset", "ab", "--raters", "2")
    assert made.exit_code == 0
    links = [line for line in made.output.splitlines() if line.startswith("http")]
    assert len(links) == 2
    test = open_test(tmp_path / "trees")
    answers = Answers(tmp_path / "trees", test)
    for link in links:
        token = link.partition("#")[2].removeprefix("trees.")
        rate_everything(answers, token, {"alpha": 2, "beta": 1})
    found = listen("results", str(tmp_path / "trees"), "-o", str(tmp_path / "out"))
    assert "alpha   1.00" in found.output
    assert "2 of 2 raters have finished" in found.output
    assert len(read_ratings(tmp_path / "out" / "ratings.csv")) == 12
    assert json.loads((tmp_path / "out" / "results.json").read_text())["num_finished"] == 2
    assert listen("export", str(tmp_path / "trees"), str(tmp_path / "pairs")).exit_code == 0
    assert len((tmp_path / "pairs" / "pairs.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected --system NAME=FOLDER, or else --manifest"),
        (["--system", "alpha"], "expected NAME=FOLDER"),
        (["--system", "alpha=/nowhere"], "no such folder"),
        (["--system", "a=b", "--manifest", "c.csv"], "or else --manifest"),
    ],
)
def test_what_makes_no_test_is_named(tmp_path: Path, arguments: list[str], words: str) -> None:
    error = listen("create", str(tmp_path / "trees"), *arguments).exception
    assert isinstance(error, InputError)
    assert words in str(error)


def test_an_unknown_preset_is_named(systems: list[str], tmp_path: Path) -> None:
    error = listen("create", str(tmp_path / "trees"), *systems, "--preset", "mushra").exception
    assert isinstance(error, ConfigError)
    assert "preset" in str(error)


def test_a_folder_without_a_test_has_no_results(tmp_path: Path) -> None:
    error = listen("results", str(tmp_path)).exception
    assert isinstance(error, ConfigError)
    assert "test.yaml" in str(error)


@pytest.fixture
def served(systems: list[str], tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("uvicorn", reason="needs the extra: pip install resonate-audio[serve]")
    listen("create", str(tmp_path / "trees"), *systems)
    code = "from resonate_audio.cli.listen import app; app()"
    command = [sys.executable, "-c", code, "serve", str(tmp_path / "trees"), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield process.stderr.readline().split()[2].partition("listen.html")[0]
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_served_test_answers(served: str) -> None:
    with urllib.request.urlopen(f"{served}v1/listening/tests/trees", timeout=20) as response:
        assert json.load(response)["title"] == "Listening test"
    with urllib.request.urlopen(f"{served}listen.html", timeout=20) as response:
        assert b"js/listen.js" in response.read()
