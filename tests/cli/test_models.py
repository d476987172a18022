"""`resonate models`."""

import shutil
from pathlib import Path

import pytest

from resonate_audio.cli.main import run
from resonate_audio.cli.models import cached


def snapshot(cache: Path, repo_id: str) -> Path:
    """The folder of a revision in a hub cache, laid out as the hub's client does."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("a" * 40)
    return repository / "snapshots" / ("a" * 40)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "hub"


def test_published_models_are_listed_with_size_and_licence(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("resonate-pt ")]
    assert "published" in line
    assert "GB" in line
    assert "MIT" in line


@pytest.mark.parametrize("command", ["fetch", "remove"])
def test_a_name_that_is_not_published_is_one_line(
    command: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", command, "nano"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nano: no published model; expected one of resonate, " in line


def test_a_model_in_the_cache_is_listed(cache: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, snapshot(cache, "somebody/tiny"))
    (listing,) = cached()
    assert (listing.name, listing.sound, listing.licence) == ("somebody/tiny", "8 kHz, 2 s", "none")


def test_a_revision_that_is_not_main_is_named(cache: Path, tiny_model: Path) -> None:
    folder = snapshot(cache, "somebody/tiny")
    shutil.copytree(tiny_model, folder)
    shutil.copytree(tiny_model, folder.with_name("b" * 40))
    assert {listing.name for listing in cached()} == {"somebody/tiny", f"somebody/tiny@{'b' * 40}"}


def test_other_repositories_in_the_cache_are_not_listed(cache: Path) -> None:
    folder = snapshot(cache, "somebody/bert")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert list(cached()) == []


def test_a_damaged_model_does_not_hide_the_others(cache: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, snapshot(cache, "somebody/broken"))
    (snapshot_index,) = cache.rglob("model_index.json")
    snapshot_index.write_text('{"format": "resonate-audio", "format_version": 99}')
    shutil.copytree(tiny_model, snapshot(cache, "somebody/whole"))
    broken, whole = cached()
    assert broken.how.startswith("damaged")
    assert whole.sound == "8 kHz, 2 s"
