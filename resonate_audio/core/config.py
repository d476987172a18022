"""Frozen configuration models: YAML in, ``a.b=c`` overrides, one clear line on a mistake."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from resonate_audio.core.documents.json_text import MAX_DEPTH
from resonate_audio.core.documents.yaml_text import parse_yaml, read_yaml
from resonate_audio.core.errors import ConfigError, ResonateError
from resonate_audio.core.files import name_inside
from resonate_audio.core.paths import beside, given_path
from resonate_audio.core.text import one_line, shortened, suggest


class FrozenConfig(BaseModel):
    """Base of every configuration: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_bool_is_a_number(cls, values: Any) -> Any:
        for name in number_fields(cls) if isinstance(values, dict) else ():
            given = values.get(name)
            if isinstance(given, bool) or (
                isinstance(given, list | tuple) and any(isinstance(one, bool) for one in given)
            ):
                raise ValueError(f"{name}: expected a number, got {str(given).lower()}")
        return values


LARGEST_SIZE, DEEPEST, LONGEST_LIST = 1_000_000, 1_000, 64
"""Of a network: any size, layers on each other, and sizes in a list."""
_DEPTHS = ("layers", "blocks", "mixers", "refine")


class NetworkConfig(FrozenConfig):
    """Base of the sizes of a network; whether it fits into the machine is seen when it is built."""

    @model_validator(mode="after")
    def _within_reason(self) -> NetworkConfig:
        for name in number_fields(type(self)):
            value = getattr(self, name)
            sizes = value if isinstance(value, tuple) else (value,)
            most = DEEPEST if name.endswith(_DEPTHS) else LARGEST_SIZE
            if len(sizes) > LONGEST_LIST:
                raise ValueError(f"{name}: {len(sizes)} sizes; expected {LONGEST_LIST} at most")
            if any(isinstance(size, int) and size > most for size in sizes):
                raise ValueError(f"{name}: {max(sizes)} is too large; expected {most:,} at most")
        return self


@cache
def number_fields(cls: type[BaseModel]) -> tuple[str, ...]:
    """Fields that hold numbers, or lists of them, and no truth value."""
    kinds = {name: _kinds(field.annotation) for name, field in cls.model_fields.items()}
    return tuple(name for name, kind in kinds.items() if kind & {int, float} and bool not in kind)


def _kinds(annotation: Any) -> set[Any]:
    inside = [_kinds(part) for part in get_args(annotation)]
    own = {annotation} if isinstance(annotation, type) else set[Any]()
    return own.union(*inside)


PROBLEMS_SHOWN = 8
LARGEST = 1_000_000_000
"""The largest number of a recipe: what is more means another unit, or nothing that ends."""
LARGEST_SEED = 2**63 - 1

NameInside = Annotated[str, AfterValidator(name_inside)]
"""The name of a file in the folder that a list lies in: one that was copied from elsewhere leads to
nothing beside it."""
RECIPE_FOLDER = "recipe_folder"


def _beside_recipe(path: Path, info: Any) -> Path:
    folder = (info.context or {}).get(RECIPE_FOLDER)
    return path if folder is None else beside(path, folder)


GivenPath = Annotated[Path, AfterValidator(given_path), AfterValidator(_beside_recipe)]
"""A path of a recipe: relative to the folder that one is in, else to that of the recipe, ``~`` the
home folder."""
WRITTEN = "written"
WrittenPath = Annotated[Path, AfterValidator(given_path), WRITTEN]
"""The same of what is written and not read: nothing depends on where it lies."""
ConfigT = TypeVar("ConfigT", bound=BaseModel)


def parse_config(
    cls: type[ConfigT],
    values: Any,
    source: str,
    error: type[ResonateError] = ConfigError,
    folder: Path | None = None,
) -> ConfigT:
    """Build ``cls`` from plain values, or say in one line which field is wrong.

    Args:
        cls: what to build.
        values: by the names of its fields.
        source: what they come from, for errors.
        error: what is raised.
        folder: that of the file they come from, where what is read may lie, too.

    Raises:
        ResonateError: of the type ``error``; a field is missing, unknown or out of range; names
            ``source`` and the field.
    """
    try:
        return cls.model_validate(values, context={RECIPE_FOLDER: folder})
    except ValidationError as failure:
        raise error(f"{source}: {describe_problems(failure, cls)}") from failure
    except RecursionError as failure:
        raise error(f"{source}: nested too deep") from failure


WHOLE, NUMBER = "expected a whole number", "expected a number"
NO_NUMBER = {"int_parsing": WHOLE, "int_type": WHOLE, "int_from_float": WHOLE,
             "float_parsing": NUMBER, "float_type": NUMBER}  # fmt: skip
"""What is told instead of pydantic's words, by their kind."""


def describe_problems(failure: ValidationError, cls: type[BaseModel] | None = None) -> str:
    """One line of which fields are wrong, and what is wrong with each; the first few of many.

    Args:
        failure: what pydantic found.
        cls: what was to be built: where a field is not known, it tells those that are.
    """
    listed = failure.errors(include_url=False, include_context=False)
    problems = "; ".join(_problem(item, cls) for item in listed[:PROBLEMS_SHOWN])
    more = len(listed) - PROBLEMS_SHOWN
    return problems + f"; and {more} more" * (more > 0)


def _problem(item: Any, cls: type[BaseModel] | None) -> str:
    place = ".".join(str(part)[:80] for part in item["loc"]) or "(top)"
    return f"{place}: {shortened(_words(item, cls), 300)}"


def _words(item: Any, cls: type[BaseModel] | None) -> str:
    if item["type"] in NO_NUMBER:
        given = "null" if item["input"] is None else one_line(repr(item["input"]), 60)
        return f"{NO_NUMBER[item['type']]}, not {given}"
    if item["type"] != "extra_forbidden":
        return str(item["msg"])
    return "unknown field" if cls is None else f"unknown field; {_meant(cls, item['loc'])}"


def _meant(cls: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """The field that was meant: of the same name in a group, or of a like one beside it."""
    name, beside = str(place[-1]), _models_at(cls, place[:-1])
    for model in beside:
        for group, field in model.model_fields.items():
            if any(name in inner.model_fields for inner in _models_in(field.annotation)):
                return f"did you mean {group}.{name}?"
    return suggest(name, [field for model in beside for field in model.model_fields])


def _models_at(cls: type[BaseModel], place: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """What pydantic tried at a place; one of several goes by the value that tells them apart."""
    models = [cls]
    for part in place:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:
            models = [model for field in fields for model in _models_in(field.annotation)]
        else:
            models = [model for model in models if _goes_by(model, part)] or models
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    return sorted(
        (kind for kind in _kinds(annotation) if issubclass(kind, BaseModel)),
        key=lambda kind: kind.__name__,
    )


def _goes_by(model: type[BaseModel], value: int | str) -> bool:
    return any(value in get_args(field.annotation) for field in model.model_fields.values())


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return ``values`` with each ``a.b=c`` applied; c is read as YAML.

    Raises:
        ConfigError: an override has no ``=`` or walks through something that is not a mapping.
    """
    result = _copy_tree(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {override}: expected field.subfield=value")
        node = result
        *parents, last = path.split(".")
        if len(parents) >= MAX_DEPTH:
            raise ConfigError(f"--set {override[:80]}…: {MAX_DEPTH} fields deep at most")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {override}: {parent} is a value, not a group of fields")
        node[last] = parse_yaml(text, f"--set {override[:80]}")
    return result


def load_config(cls: type[ConfigT], path: Path, overrides: list[str] | None = None) -> ConfigT:
    """Read a recipe file, apply overrides, check every field once."""
    values = apply_overrides(read_yaml(path), overrides or [])
    check_numbers(values, str(path))
    return parse_config(cls, values, str(path), folder=path.parent)


def check_numbers(values: Any, source: str, name: str = "") -> None:
    """Refuse numbers beyond `LARGEST`, whatever the field; seeds may be as large as they come.

    Raises:
        ConfigError: names the field and the number.
    """
    if isinstance(values, dict):
        for key, value in values.items():
            check_numbers(value, source, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            check_numbers(value, source, name)
    elif isinstance(values, int | float) and not isinstance(values, bool):
        largest = LARGEST_SEED if name.rpartition(".")[2].startswith("seed") else LARGEST
        if abs(values) > largest:
            raise ConfigError(f"{source}: {name}: {values:g} is more than {largest:,}")


def _copy_tree(values: dict[str, Any]) -> dict[str, Any]:
    """Copy nested mappings; leaves are shared, since overrides replace them whole."""
    return {
        key: _copy_tree(value) if isinstance(value, dict) else value
        for key, value in values.items()
    }
