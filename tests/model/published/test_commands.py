"""Published models on the command line: one command from an empty cache to a sound."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from loopback_hub import Fault, Hub

from resonate_audio.cli.main import run
from resonate_audio.model.hub_client import NotHereError


def test_one_command_makes_a_sound_from_an_empty_cache(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = tmp_path / "dog.wav"
    command = ["generate", "a dog barks", "--model", "resonate", "--steps", "1", "--duration", "1"]
    assert run([*command, "-o", str(sound)]) == 0
    assert soundfile.info(sound).samplerate == 44_100
    assert soundfile.info(sound).frames == 44_100
    assert "resonate: fetching Resonate_GRPO.pth" in caplog.text  # a logger's last resort is stderr
    hub.asked.clear()
    assert run(["replay", str(sound)]) == 0
    assert hub.asked == []


def test_meanaudio_makes_a_sound_in_one_step_from_an_empty_cache(hub: Hub, tmp_path: Path) -> None:
    sound = tmp_path / "dog.wav"
    command = ["generate", "a dog barks", "--model", "meanaudio-s", "--steps", "1"]
    assert run([*command, "--duration", "1", "-o", str(sound)]) == 0
    assert soundfile.info(sound).samplerate == 16_000


def test_the_list_shows_what_is_there(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(name: str) -> str:
        assert run(["models"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return next(line for line in lines if line.startswith(f"{name} "))

    assert "published" in row("resonate")
    assert run(["models", "fetch", "resonate", "--to", str(tmp_path / "carried")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "carried")]
    assert "6 of 6 files here" in row("resonate")
    assert "5 of 6 files here" in row("resonate-pt")
    assert run(["models", "fetch", "resonate"]) == 0
    assert "ready" in row("resonate")
    assert run(["models", "remove", "resonate", "--downloads"]) == 0
    assert "published" in row("resonate")


def test_a_missing_file_is_one_line_and_exit_2(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults["Resonate_GRPO.pth"] = Fault("gone")
    assert run(["generate", "a dog", "-m", "resonate", "-o", str(tmp_path / "x.wav")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("resonate: model resonate: AndreasXi/Resonate: there is no file")


def test_without_a_network_what_would_be_fetched_comes_first_and_one_line_last(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def nobody_answers(repo_id: str, name: str, *_: object) -> None:
        raise NotHereError(f"{repo_id}: {name} is not here")

    monkeypatch.setattr("resonate_audio.model.published.ready.look_up", nobody_answers)
    assert run(["generate", "a dog", "-m", "resonate", "-o", str(tmp_path / "x.wav")]) == 2
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("resonate: to fetch once: about 2.2 GB from AndreasXi/Resonate (MIT), ")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resonate: model resonate: AndreasXi/Resonate: Resonate_GRPO.pth is not")
