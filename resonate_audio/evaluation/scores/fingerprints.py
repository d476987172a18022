"""What a judge is made of, as hashes: two numbers may be compared if these are equal."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from resonate_audio.core.files import file_sha256
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.rewards import hearing

WEIGHT_SUFFIXES = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json", ".txt", ".jinja", ".model",
)  # fmt: skip
DEPTH = 5
"""Objects within objects that are looked at."""
_BLOB = re.compile(r"[0-9a-f]{64}")
_THIRD_PARTIES = (
    "builtins",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "threading",
    "pydantic",
)


def fingerprint(details: Mapping[str, str]) -> str:
    """Twelve hex digits that change with any of the details."""
    content = json.dumps(dict(details), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def hash_folder(place: Path) -> str:
    """Hash of a model's files, names and contents; a single file is its own folder.

    The hub's cache calls big files by their SHA-256, which is taken as it stands: a judge of 60 GB
    is not read twice.
    """
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for path in files:
        if path.suffix in WEIGHT_SUFFIXES:
            name = path.name if place.is_file() else path.relative_to(place).as_posix()
            digest.update(f"{name} {_hash_file(path)}\n".encode())
    return digest.hexdigest()[:16]


def hash_weights(judge: Any) -> str | None:
    """Hash of every network inside an object, by value and number format; None if it has none."""
    networks = [part for part in _parts(judge) if isinstance(part, nn.Module)]
    if not networks:
        return None
    formats = {str(weight.dtype) for network in networks for weight in network.parameters()}
    weights = fingerprint_weights([network.state_dict() for network in networks])
    return f"{weights} {' '.join(sorted(formats))}".replace("torch.", "")


def number_formats(judge: Any) -> str:
    """Number formats of the networks inside an object."""
    networks = [part for part in _parts(judge) if isinstance(part, nn.Module)]
    formats = {str(weight.dtype) for network in networks for weight in network.parameters()}
    return " ".join(sorted(formats)).replace("torch.", "")


def hash_code(judge: Any) -> str:
    """Hash of the source files of an object, of what it holds, and of how sounds come to it.

    A changed comment counts as a change: what is cheap to measure again need not be argued about.
    """
    modules = {hearing.__name__: hearing}
    for part in _parts(judge):
        modules |= {module.__name__: module for module in _modules_of(part)}
    digest = hashlib.sha256()
    for name in sorted(modules):
        digest.update(f"{name}\n{_source(modules[name])}".encode())
    return digest.hexdigest()[:16]


def _hash_file(path: Path) -> str:
    real = path.resolve()
    if path.is_symlink() and _BLOB.fullmatch(real.name):
        return real.name
    return file_sha256(path)


def _parts(judge: Any) -> Iterator[Any]:
    """An object and what it holds, each once, in a fixed order; networks are not taken apart."""
    seen: set[int] = set()
    level = [judge]
    for _ in range(DEPTH):
        below: list[Any] = []
        for part in level:
            if id(part) in seen:
                continue
            seen.add(id(part))
            yield part
            below += [held for held in _held(part) if _is_looked_into(held)]
        level = below


def _held(part: Any) -> Iterable[Any]:
    if isinstance(part, nn.Module | FunctionType):
        return []
    if isinstance(part, list | tuple):
        return part
    return [value for _, value in sorted(getattr(part, "__dict__", {}).items())]


def _is_looked_into(part: Any) -> bool:
    if isinstance(part, nn.Module | FunctionType | list | tuple):
        return True
    return not isinstance(part, type) and not _is_third_party(type(part).__module__)


def _is_third_party(module: str) -> bool:
    return module.startswith("_") or module.partition(".")[0] in _THIRD_PARTIES


def _modules_of(part: Any) -> list[ModuleType]:
    if isinstance(part, FunctionType):
        names = [part.__module__]
    else:
        names = [cls.__module__ for cls in type(part).__mro__]
    return [
        sys.modules[name] for name in names if name in sys.modules and not _is_third_party(name)
    ]


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return ""
