"""YAML as its version 1.2 reads numbers, with limits of size, depth and repetition.

PyYAML follows YAML 1.1, where ``010`` is eight, ``1:30`` is ninety, ``no`` is false, ``1e-4`` is a
text and ``2001-13-45`` a broken date; and it leaves loops and ninefold anchors to whoever walks the
result.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from resonate_audio.core.documents.json_text import LARGEST_WHOLE, MAX_DEPTH, too_deep
from resonate_audio.core.documents.text import ErrorType, one_line, read_text
from resonate_audio.core.errors import ConfigError

MAX_YAML_BYTES = 1 << 18
"""256 KiB: PyYAML reads about 100 KB a second."""
MAX_NODES = 50_000
"""Values of a document after every alias is followed."""
_NOT_PLAIN = re.compile("[\r\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_TAG = "tag:yaml.org,2002:"


class _Refused(yaml.YAMLError):
    """A document that is YAML and too much of it."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: text, whole and real numbers, true and false, null, lists, maps."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML has it
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth, self._num_nodes = 0, 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node, unless it lies too deep."""
        self._depth += 1
        self._num_nodes += 1
        if self._depth > MAX_DEPTH:
            raise RecursionError
        if self._num_nodes > MAX_NODES:
            raise _Refused(f"over {MAX_NODES:,} values")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _add(name: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(_TAG + name, re.compile(f"(?:{pattern})$"), list(first))


_add("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_add("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789")
_add("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789")
_add("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.")
_Loader.add_implicit_resolver(
    _TAG + "null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"(?:<<)$"), ["<"])


def _whole(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    if len(text) > 24 or abs(value := int(text, base)) > LARGEST_WHOLE:
        raise _Refused(f"the number {text[:20]}… is out of range")
    return value


def _real(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node)
    value = float(text.replace(".", "", 1) if text.lower().endswith(("inf", "nan")) else text)
    if not math.isfinite(value):
        raise _Refused(f"the number {text[:20]} is not finite")
    return value


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None and twice != "<<":
        raise _Refused(f"line {node.start_mark.line + 1}: the field {twice} stands there twice")
    loader.flatten_mapping(node)
    values: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    odd = [name for name in values if not isinstance(name, str)]
    if odd:
        raise _Refused(f"line {node.start_mark.line + 1}: the name {odd[0]!r:.40} is no text")
    return values


def _foreign(loader: Any, node: Any) -> Any:
    raise _Refused(f"line {node.start_mark.line + 1}: the tag {node.tag} is not read here")


for _name, _construct in {
    "str": lambda loader, node: loader.construct_scalar(node),
    "bool": lambda loader, node: loader.construct_scalar(node).lower() == "true",
    "null": lambda loader, node: None,
    "int": _whole,
    "float": _real,
    "seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    "map": _mapping,
}.items():
    _Loader.add_constructor(_TAG + _name, _construct)
_Loader.add_constructor(None, _foreign)


def parse_yaml(text: str, place: str, error: ErrorType = ConfigError) -> Any:
    """Read one YAML document.

    Raises:
        ResonateError: of the type ``error``; it is not YAML, over `MAX_YAML_BYTES`, nested deeper
            than `MAX_DEPTH`, has over `MAX_NODES` values once aliases are followed, holds a
            field twice, a number out of range or a tag other than those of JSON; names ``place``.
    """
    if len(text) > MAX_YAML_BYTES:
        raise error(f"{place}: over {MAX_YAML_BYTES:,} characters of YAML")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, 0)
        return loader.construct_document(node)
    except RecursionError as failure:
        raise too_deep(place, error) from failure
    except (yaml.YAMLError, ValueError, TypeError, IndexError) as failure:
        raise error(f"{place}: not valid YAML ({one_line(failure)})") from failure
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml(path: Path, error: ErrorType = ConfigError) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ResonateError: of the type ``error``; as for `read_text` and `parse_yaml`, or it is no
            mapping.
    """
    values = parse_yaml(read_text(path, error, MAX_YAML_BYTES), str(path), error)
    if not isinstance(values, dict):
        raise error(f"{path}: expected a mapping of fields, got {type(values).__name__}")
    return values


class _Dumper(yaml.SafeDumper):
    """Puts marks around every text that one reader or the other would take for something else."""


for _sign, _resolvers in _Loader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _pattern, [_sign])


def _text(dumper: Any, text: str) -> Any:
    style = '"' if _NOT_PLAIN.search(text) else None  # between single marks they become spaces
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _text)


def format_yaml(values: Any) -> str:
    """Plain values as YAML that `parse_yaml` and readers of YAML 1.1 read back as they are."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _measure(node: Any, known: dict[int, tuple[int, int]], level: int) -> tuple[int, int]:
    """Nodes and levels under a node with every alias followed; a loop goes on for ever."""
    if level > MAX_DEPTH:
        raise RecursionError
    if id(node) not in known:
        children = (
            [part for pair in node.value for part in pair]
            if isinstance(node, yaml.MappingNode)
            else node.value
            if isinstance(node, yaml.SequenceNode)
            else ()
        )
        inside = [_measure(child, known, level + 1) for child in children]
        size = 1 + sum(count for count, _ in inside)
        known[id(node)] = size, 1 + max((depth for _, depth in inside), default=0)
    size, depth = known[id(node)]
    if size > MAX_NODES:
        raise _Refused(f"over {MAX_NODES:,} values when every alias is followed")
    if level + depth > MAX_DEPTH + 1:
        raise RecursionError
    return size, depth
