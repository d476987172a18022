"""Frozen configuration models: YAML in, ``a.b=c`` overrides, one clear line on a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from resonate_audio.core.errors import ConfigError


class FrozenConfig(BaseModel):
    """Base of every configuration: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def parse_config(cls: type[ConfigT], values: Any, source: str) -> ConfigT:
    """Build ``cls`` from plain values, or say in one line which field is wrong.

    Raises:
        ConfigError: a field is missing, unknown or out of range; names ``source`` and the field.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or '(top)'}: {item['msg']}"
            for item in error.errors()
        )
        raise ConfigError(f"{source}: {problems}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read it ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of fields, got {type(values).__name__}")
    return values


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
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {override}: {parent} is a value, not a group of fields")
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: the value is not valid YAML") from error
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
