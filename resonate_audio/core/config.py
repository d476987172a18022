"""Frozen configuration models: YAML in, ``a.b=c`` overrides, one clear line on a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from resonate_audio.core.documents.json_text import MAX_DEPTH
from resonate_audio.core.documents.yaml_text import parse_yaml, read_yaml
from resonate_audio.core.errors import ConfigError, ResonateError
from resonate_audio.core.files import name_inside


class FrozenConfig(BaseModel):
    """Base of every configuration: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


PROBLEMS_SHOWN = 8

NameInside = Annotated[str, AfterValidator(name_inside)]
"""The name of a file in the folder that a list lies in: one that was copied from elsewhere leads to
nothing beside it."""
ConfigT = TypeVar("ConfigT", bound=BaseModel)


def parse_config(
    cls: type[ConfigT], values: Any, source: str, error: type[ResonateError] = ConfigError
) -> ConfigT:
    """Build ``cls`` from plain values, or say in one line which field is wrong.

    Raises:
        ResonateError: of the type ``error``; a field is missing, unknown or out of range; names
            ``source`` and the field.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as failure:
        raise error(f"{source}: {describe_problems(failure)}") from failure
    except RecursionError as failure:
        raise error(f"{source}: nested too deep") from failure


def describe_problems(failure: ValidationError) -> str:
    """One line of which fields are wrong, and what is wrong with each; the first few of many."""
    listed = failure.errors(include_url=False, include_context=False, include_input=False)
    problems = "; ".join(_problem(item) for item in listed[:PROBLEMS_SHOWN])
    more = len(listed) - PROBLEMS_SHOWN
    return problems + f"; and {more} more" * (more > 0)


def _problem(item: Any) -> str:
    place = ".".join(str(part)[:80] for part in item["loc"]) or "(top)"
    return f"{place}: {item['msg'][:300]}"


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
    return parse_config(cls, apply_overrides(read_yaml(path), overrides or []), str(path))


def _copy_tree(values: dict[str, Any]) -> dict[str, Any]:
    """Copy nested mappings; leaves are shared, since overrides replace them whole."""
    return {
        key: _copy_tree(value) if isinstance(value, dict) else value
        for key, value in values.items()
    }
