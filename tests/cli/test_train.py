import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from resonate_audio.cli.main import run
from resonate_audio.cli.train import _tell_made, app
from resonate_audio.core.config import load_config
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.core.paths import bundled_recipes, recipe_path
from resonate_audio.training.loop.run_config import RunConfig
from resonate_audio.training.loop.trainer import RunResult
from resonate_audio.training.recipes.codec import VAERecipe

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


def test_a_recipe_of_ours_trains_by_its_name_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {
        **{"model": tiny_model, "reward": "nano-clap", "prompts_per_step": 1, "takes": 2},
        **{"duration_s": 0.3, "sampler.window": 1, "evaluation.prompts": "null"},
        **{"run.num_steps": 1, "run.output": "taught", "run.num_threads": 1, "run.sample_every": 0},
    }
    settings = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    assert run(["train", "grpo", "--recipe", "nano/grpo", *settings]) == 0
    assert (tmp_path / "taught" / "export").is_dir()


def test_a_recipe_is_found_by_its_name_unless_a_file_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = bundled_recipes()["nano/grpo"]
    for name in ("nano/grpo", "nano/grpo.yaml", "recipes/nano/grpo.yaml"):
        assert recipe_path(name) == ours
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "grpo").write_text("model: mine\n")
    assert recipe_path("nano/grpo") == Path("nano/grpo")
    with pytest.raises(InputError, match=r"nano/gropo: no such recipe; .* nano/grpo"):
        recipe_path("nano/gropo")


def test_what_a_recipe_reads_may_lie_beside_it_and_what_it_writes_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    values = {"preset": "nano", "data": {"manifest": "list.jsonl", "cache": "cache"}}
    values |= {"run": {"output": "out", "num_steps": 1}}
    recipe = tmp_path / "mine" / "vae.yaml"
    recipe.write_text(json.dumps(values))
    (tmp_path / "mine" / "list.jsonl").touch()
    (tmp_path / "mine" / "cache").mkdir()
    found = load_config(VAERecipe, Path(os.path.relpath(recipe)))
    assert found.data.manifest == tmp_path / "mine" / "list.jsonl"
    assert (found.data.cache, found.run.output) == (Path("cache"), Path("out"))
    Path("list.jsonl").touch()
    assert load_config(VAERecipe, recipe).data.manifest == Path("list.jsonl")


@pytest.mark.parametrize(
    ("made", "last"),
    [("model/model_index.json", "hear it:  resonate generate 'a bell' --model RUN/export"),
     ("model.safetensors", "made:  RUN/export")],
)  # fmt: skip
def test_a_training_ends_with_what_it_made(
    made: str, last: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "export" / made
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    (tmp_path / "loss.png").touch()
    config: Any = SimpleNamespace(
        run=RunConfig(output=tmp_path), listen=SimpleNamespace(prompts=("a bell",))
    )
    _tell_made(config, RunResult(2, finished=True))
    said = capsys.readouterr().err.replace(str(tmp_path), "RUN").splitlines()
    assert said == ["look:  RUN/loss.png", last]
    _tell_made(config, RunResult(1, finished=False))
    assert capsys.readouterr().err.splitlines()[-1] == "the same command goes on"


def test_an_option_that_is_no_number_is_told_in_plain_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["train", "sft", "--folder", ".", "--steps", "four"]) == 2
    said = capsys.readouterr().err
    assert "--steps" in said
    assert "Input should be" not in said
