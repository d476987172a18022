"""Distillation from a recipe: what it writes is a model, what it refuses is one line."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from tiny_corpus import write_recipe

from resonate_audio.cli.main import run
from resonate_audio.core.config import load_config, parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.model.checkpoint import read_weights, write_weights
from resonate_audio.model.flow_transformer import FlowTransformer, with_second_time
from resonate_audio.model.folder import build_networks, read_networks
from resonate_audio.training.recipes.distil import (
    DistilRecipe,
    load_plain,
    make_student,
    train_distil,
)

RECIPES = Path(__file__).parents[3] / "recipes"


def quiet(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def values(tmp_path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose parts lie beside it, the flow with nothing left at zero."""
    config = parse_config(
        DistilRecipe, settings | {"weights": {"transformer": "flow"}}, "test"
    ).model
    torch.manual_seed(0)
    networks = build_networks(config)
    for name, state in networks.states().items():
        moved = {
            key: value + 0.02 * torch.randn_like(value) if value.is_floating_point() else value
            for key, value in state.items()
        }
        write_weights(tmp_path / name / "model.safetensors", moved, {})
    parts = ("transformer", "vae", "vocoder")
    return settings | {
        "weights": {part: str(tmp_path / part) for part in parts},
        "window_s": [1.0],
        "flow": {"frames_per_batch": 120},
        "objective": {"kind": "guided", "teacher_steps": 2},
        "run": settings["run"] | {"num_steps": 2, "save_every": 1, "precision": "bf16"},
    }


def test_what_it_writes_is_a_model_of_few_steps_that_a_resumed_run_writes_too(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    recipe = parse_config(DistilRecipe, values, "test")
    assert train_distil(recipe, quiet).finished
    half = values | {"run": values["run"] | {"output": str(tmp_path / "half")}}
    once = parse_config(DistilRecipe, half | {"run": half["run"] | {"num_steps": 1}}, "test")
    train_distil(once, quiet)
    train_distil(parse_config(DistilRecipe, half, "test"), quiet)
    model = read_networks(tmp_path / "run" / "export" / "model")
    assert model.config.transformer.mean_velocity
    assert (model.config.default_steps, model.config.default_guidance) == (4, 1.0)
    whole, resumed = (
        read_weights(tmp_path / name / "export" / "model.safetensors") for name in ("run", "half")
    )
    assert whole["end_timestep.outer.weight"].any()  # it began at zero
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_mean_flow_goes_on_from_what_was_distilled(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = parse_config(DistilRecipe, values, "test")
    student = with_second_time(FlowTransformer(recipe.model.transformer))
    write_weights(tmp_path / "student.safetensors", student.state_dict(), {})
    weights = values["weights"] | {"transformer": str(tmp_path / "student.safetensors")}
    changed = values | {"weights": weights, "objective": "meanflow"}
    assert train_distil(parse_config(DistilRecipe, changed, "test"), quiet).finished
    with pytest.raises(ConfigError, match="is distilled itself"):
        train_distil(parse_config(DistilRecipe, values | {"weights": weights}, "test"), quiet)


def test_a_student_begins_as_an_earlier_one(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = parse_config(DistilRecipe, values, "test")
    teacher = read_weights(tmp_path / "transformer" / "model.safetensors")
    earlier = with_second_time(load_plain(recipe, teacher)).state_dict()
    earlier = {
        name: value if name.startswith("latent_") else value + 0.01
        for name, value in earlier.items()
    }
    file = tmp_path / "earlier.safetensors"
    write_weights(file, earlier, {})
    again = parse_config(DistilRecipe, values | {"student": str(file)}, "test")
    begun = make_student(again, teacher).state_dict()
    assert all(torch.equal(begun[name], value) for name, value in earlier.items())
    assert train_distil(again, quiet).finished

    write_weights(file, earlier | {"latent_std": earlier["latent_std"] * 1.01}, {})
    assert torch.equal(make_student(again, teacher).latent_std, teacher["latent_std"])
    write_weights(file, earlier | {"latent_std": earlier["latent_std"] * 2}, {})
    with pytest.raises(ConfigError, match="its latent_std is not that of its teacher's latents"):
        make_student(again, teacher)
    write_weights(file, teacher, {})
    with pytest.raises(ConfigError, match=r"earlier\.safetensors: predicts no mean velocities"):
        make_student(again, teacher)


def test_a_teacher_with_other_latents_and_a_changed_teacher_are_one_line_and_exit_2(
    tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path / "distil.yaml", values)
    other = ["--set", "model.transformer.latent_channels=6", "--set", "model.vae.latent_channels=6"]
    assert run(["train", "distil", "--recipe", str(path), *other]) == 2
    assert "its latents have 4 channels, those of nano-flow 6" in capsys.readouterr().err
    assert run(["train", "distil", "--recipe", str(path), "--set", "run.num_steps=1"]) == 0
    file = tmp_path / "transformer" / "model.safetensors"
    write_weights(file, {k: v * 1.01 for k, v in read_weights(file).items()}, {})
    capsys.readouterr()
    assert run(["train", "distil", "--recipe", str(path)]) == 2
    message = capsys.readouterr().err
    assert "the content of weights.transformer changed" in message
    assert "Traceback" not in message


def test_a_run_goes_on_only_with_the_clips_it_began_with(
    tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path / "distil.yaml", values)
    assert run(["train", "distil", "--recipe", str(path), "--set", "run.num_steps=1"]) == 0
    samples, rate_hz = soundfile.read(tmp_path / "0.wav")
    soundfile.write(tmp_path / "0.wav", 0.5 * samples, rate_hz)
    capsys.readouterr()
    assert run(["train", "distil", "--recipe", str(path)]) == 2
    assert "the content of data.manifest changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {}}, r"weights\.transformer is not set"),
        ({"channel_exponent": 0.5}, "channel_exponent: the latents keep the statistics"),
        ({"mean_flow": {}}, "mean_flow: .* has no mean velocities"),
        ({"latent_scale": 0.5}, "latent_scale: the latents keep the statistics"),
        ({"default_steps": 26}, "default_steps"),
        ({"default_steps": 0}, "default_steps"),
        ({"objective": "consistency"}, "objective"),
        ({"objective": "meanflow", "student": "a"}, "student: without a teacher it begins as"),
    ],
)
def test_what_makes_no_sense_is_refused_by_field(
    values: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(DistilRecipe, values | change, "test")


def test_the_recipe_of_nano_is_valid() -> None:
    recipe = load_config(DistilRecipe, RECIPES / "nano" / "distil.yaml")
    assert recipe.model.name == "nano-flow"
    assert load_config(DistilRecipe, RECIPES / "nano" / "distil.yaml", ["objective=meanflow"])
