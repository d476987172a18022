"""`resonate data check`: what it prints and writes, and when it fails."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from resonate_audio.cli.data.check import check
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.data.check import CheckReport

app = typer.Typer()
app.command()(check)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    noise = 0.1 * np.random.default_rng(0).standard_normal(44_100)
    soundfile.write(tmp_path / "a.wav", noise, 44_100)
    lines = [
        {"audio_id": "a", "audio_path": "a.wav", "caption": "noise"},
        {"audio_id": "b", "audio_path": "b.wav", "caption": "a bell " * 60},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


def test_problems_are_told_and_the_exit_code_is_zero(manifest: str, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    result = CliRunner().invoke(app, [manifest, "-o", str(page), "--workers", "1"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["problem", "clips", "the", "first"]
    assert lines[1].split()[:3] == ["missing", "1", "b:"]
    assert lines[2].split()[:5] == ["caption-long", "1", "b:", "122", "tokens,"]
    assert lines[3] == str(page)
    assert "2 clips, 0.00 hours; 1 clips have a problem, of 2 kinds" in result.stderr
    assert {path.name for path in tmp_path.glob("out.*")} == {"out.html", "out.json"}


def test_strict_fails_after_the_page_is_written(manifest: str, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    with pytest.raises(ManifestError, match=r"1 clips have a problem, of 2 kinds; see .*out\.html"):
        check(Path(manifest), page, workers=1, strict=True)
    assert page.is_file()


def test_a_page_must_be_called_html(manifest: str) -> None:
    with pytest.raises(InputError, match=r"expected a name that ends in \.html"):
        check(Path(manifest), Path("check.pdf"))


def test_nothing_found_is_said_so() -> None:
    report = CheckReport(manifest="m.jsonl", config={}, num_clips=2, seconds=3600.0)
    assert report.headline() == "2 clips, 1.00 hours; no problem was found"
