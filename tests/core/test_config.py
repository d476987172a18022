"""Recipes: read once, checked once, overridden by name."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from resonate_audio.core.config import FrozenConfig, apply_overrides, load_config
from resonate_audio.core.documents.yaml_text import read_yaml
from resonate_audio.core.errors import ConfigError


class Optimizer(FrozenConfig):
    """A group of fields."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)


class Few(FrozenConfig):
    """One of two forms."""

    kind: Literal["few"] = "few"
    steps: int = 1


class Many(FrozenConfig):
    """The other."""

    kind: Literal["many"] = "many"
    stops: int = 1


class Recipe(FrozenConfig):
    """What the tests read."""

    num_steps: int
    optim: Optimizer = Optimizer()
    one: Annotated[Few | Many, Field(discriminator="kind")] = Few()


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "num_steps: 5\noptim: {learning_rate: 0.5}\n")
    assert load_config(Recipe, path) == Recipe(
        num_steps=5, optim=Optimizer(learning_rate=0.5, betas=(0.9, 0.95))
    )


def test_an_override_reaches_a_nested_field(tmp_path: Path) -> None:
    path = write(tmp_path, "num_steps: 5\n")
    found = load_config(Recipe, path, ["optim.betas=[0.8, 0.9]", "num_steps=7"])
    assert (found.num_steps, found.optim.betas) == (7, (0.8, 0.9))


def test_overrides_leave_their_input_alone() -> None:
    values = {"optim": {"learning_rate": 1.0}}
    apply_overrides(values, ["optim.learning_rate=2"])
    assert values == {"optim": {"learning_rate": 1.0}}


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("num_steps", "expected field"),
        ("=3", "expected field"),
        ("num_steps.deep=3", "num_steps is a value"),
        ("num_steps=[1", "not valid YAML"),
        ("num_stpes=3", "num_stpes"),
        ("optim.learning_rate=fast", r"optim\.learning_rate"),
        ("optim.learning_rate=.nan", r"optim\.learning_rate"),
    ],
)
def test_a_bad_override_is_named(override: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(Recipe, write(tmp_path, "num_steps: 5\n"), [override])


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("numsteps=2", "numsteps: unknown field; did you mean num_steps?"),
        ("optim.learningrate=2", "optim.learningrate: unknown field; did you mean learning_rate?"),
        ("learning_rate=2", "learning_rate: unknown field; did you mean optim.learning_rate?"),
        ("optim.zzz=2", "optim.zzz: unknown field; known are learning_rate, betas"),
        ("one.stps=2", "one.few.stps: unknown field; did you mean steps?"),
        ("num_steps=four", "num_steps: expected a whole number, not 'four'"),
        ("num_steps=2.5", "num_steps: expected a whole number, not 2.5"),
        ("num_steps=null", "num_steps: expected a whole number, not null"),
        ("optim.learning_rate=fast", "optim.learning_rate: expected a number, not 'fast'"),
    ],
)
def test_a_slip_is_told_in_plain_words(override: str, complaint: str, tmp_path: Path) -> None:
    values = "num_steps: 5\none: {kind: few}\n"
    with pytest.raises(ConfigError) as caught:
        load_config(Recipe, write(tmp_path, values), [override])
    assert str(caught.value).endswith(f"recipe.yaml: {complaint}")


def test_a_missing_field_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml: num_steps"):
        load_config(Recipe, write(tmp_path, "optim: {}\n"))


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"{", b"\xff\xfe\x00", b""])
def test_what_is_no_mapping_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert "a.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        read_yaml(tmp_path / "gone.yaml")


def test_a_configuration_cannot_be_changed() -> None:
    recipe = Recipe(num_steps=3)
    with pytest.raises(ValidationError):
        recipe.num_steps = 4  # type: ignore[misc]
