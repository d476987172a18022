from pathlib import Path

import pytest
from typer.testing import CliRunner

from resonate_audio.cli.train import app
from resonate_audio.core.errors import ConfigError

KINDS = ["vae", "vocoder", "pretrain"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_trainer_needs_a_recipe(kind: str) -> None:
    result = CliRunner().invoke(app, [kind])
    assert result.exit_code == 2
    assert "--recipe" in result.output


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_that_is_missing_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [kind, "--recipe", str(tmp_path / "none.yaml")])
    assert isinstance(result.exception, ConfigError)
    assert "none.yaml: cannot read it" in str(result.exception)


def test_an_override_without_a_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("preset: nano\n")
    arguments = ["vae", "--recipe", str(tmp_path / "r.yaml"), "--set", "run.seed"]
    result = CliRunner().invoke(app, arguments)
    assert "expected field.subfield=value" in str(result.exception)
