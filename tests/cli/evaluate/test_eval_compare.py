"""`resonate eval compare`: the table, the file, and one line for what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from resonate_audio.cli.evaluate.compare import compare
from resonate_audio.core.errors import ManifestError
from resonate_audio.evaluation.scores.scored import write_scores
from tests.evaluation.made_scores import system

app = typer.Typer()
app.command()(compare)
VALUES = {f"p{n:02d}": 0.1 * (n % 7) for n in range(20)}
BETTER = {key: value + 0.5 for key, value in VALUES.items()}


def test_a_system_that_is_better_everywhere_is_called_so(tmp_path: Path) -> None:
    write_scores(tmp_path / "a", system("one", VALUES))
    write_scores(tmp_path / "b", system("two", BETTER))
    output = tmp_path / "found.json"
    result = CliRunner().invoke(
        app, [str(tmp_path / "a"), str(tmp_path / "b"), "--json", str(output)]
    )
    assert result.exit_code == 0, result.output
    assert "+0.5000" in result.stdout
    assert "better" in result.stdout
    (change,) = json.loads(output.read_text())["changes"]
    assert change["difference"]["value"] == pytest.approx(0.5)
    assert change["is_better"] is True


def test_pairs_that_failed_or_have_no_value_are_told(tmp_path: Path) -> None:
    failed = system("one", VALUES, worst=-1.0, failures={"p03": "silent"})
    write_scores(tmp_path / "a", failed)
    write_scores(tmp_path / "b", system("two", BETTER | {"p04": None}, worst=-1.0))
    result = CliRunner().invoke(app, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert "clap: 1 pairs count with the worst value" in result.stderr
    assert "left out, has no value: p04, seed 0" in result.stderr


def test_another_protocol_is_refused_and_named(tmp_path: Path) -> None:
    write_scores(tmp_path / "a", system("one", VALUES))
    write_scores(tmp_path / "b", system("two", BETTER, protocol={"prompts": "others"}))
    with pytest.raises(ManifestError, match="prompts is 'made' in one and 'others' in two"):
        compare(tmp_path / "a", tmp_path / "b")
