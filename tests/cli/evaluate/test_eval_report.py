"""`resonate eval report`: the files it writes, and one line for what it cannot use."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from resonate_audio.cli.evaluate.report import report
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.scores.scored import (
    ClipScore,
    MetricCard,
    SystemScores,
    write_scores,
)

app = typer.Typer()
app.command()(report)


def scored(folder: Path, name: str, shift: float, num_failed: int = 0) -> str:
    clips = tuple(
        ClipScore(
            id=f"{number:04d}",
            prompt="a dog barks",
            file=f"{number:04d}.flac",
            values={"clap": 0.1 * (number % 7) + shift} if number >= num_failed else {},
            failure="silent" if number < num_failed else None,
        )
        for number in range(20)
    )
    card = MetricCard(name="clap", fingerprint="c1", worst=-1.0)
    write_scores(folder / name, SystemScores(system=name, cards=(card,), clips=clips))
    return str(folder / name)


def test_it_writes_the_page_and_the_numbers_beside_it(tmp_path: Path) -> None:
    folders = [scored(tmp_path, "one", 0.0), scored(tmp_path, "two", 0.25)]
    output = tmp_path / "out" / "page.html"
    result = CliRunner().invoke(app, [*folders, "-o", str(output), "--title", "Who is better?"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}\n"
    written = {path.name for path in output.parent.iterdir()}
    assert written == {"page.html", "page.json", "page.csv", "page.tex"}
    assert "Who is better?" in output.read_text(encoding="utf-8")


def test_failures_are_told_on_stderr(tmp_path: Path) -> None:
    folder = scored(tmp_path, "one", 0.0, num_failed=2)
    result = CliRunner().invoke(app, [folder, "-o", str(tmp_path / "page.html")])
    assert "note: one: 2 of 20 clips failed, such as 0000, seed 0 (silent)" in result.stderr


def test_a_page_must_be_called_html(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a name that ends in \.html"):
        report([Path(scored(tmp_path, "one", 0.0))], tmp_path / "page.pdf")


def test_a_folder_without_scores_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="run resonate eval score first"):
        report([tmp_path / "nothing"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_an_unknown_baseline_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no system is called three"):
        report([Path(scored(tmp_path, "one", 0.0))], tmp_path / "page.html", "three")
