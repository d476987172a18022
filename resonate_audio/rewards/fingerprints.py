"""What a judge is made of, as hashes: two numbers may be compared if these are equal."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from resonate_audio.core.files import file_sha256, open_regular
from resonate_audio.core.paths import PACKAGE, files_below
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
    files = [place] if place.is_file() else sorted(files_below(place))
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

    Where the code is neither ours nor a library's, the files that it imports count, too: what a
    metric of one's own does may be written in a module beside it.

    A changed comment counts as a change: what is cheap to measure again need not be argued about.
    """
    modules = {hearing.__name__: hearing}
    for part in _parts(judge):
        modules |= {module.__name__: module for module in _modules_of(part)}
    digest = hashlib.sha256()
    for name in sorted(modules):
        digest.update(f"{name}\n{_source(modules[name])}".encode())
    for name, path in sorted(_helpers(modules.values()).items()):
        digest.update(f"{name}\n{file_sha256(path)}".encode())
    return digest.hexdigest()[:16]


def hash_judge(judge: Any) -> str:
    """Hash of what decides a judge's scores and is no part of this package.

    Weights, code, and what a judge itself says that it was ``given``: a rubric's items.
    """
    modules = {module for part in _parts(judge) for module in _modules_of(part)}
    files = {module.__name__: Path(str(module.__file__)) for module in modules if _is_own(module)}
    hashes = [f"{name} {file_sha256(path)}" for name, path in sorted(files.items())]
    hashes += [f"{name} {file_sha256(path)}" for name, path in sorted(_helpers(modules).items())]
    hashes += [f"given {part.given}" for part in _parts(judge) if hasattr(part, "given")]
    hashes.append(hash_weights(judge) or "no weights")
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


def _helpers(modules: Iterable[ModuleType]) -> dict[str, Path]:
    """Files that modules of somebody's own import, directly or not, by the names of their modules.

    Found in the text, so that an import inside of a function counts. What is imported by a name
    that the program makes up is not seen.
    """
    found: dict[str, Path] = {}
    for module in filter(_is_own, modules):
        path = Path(str(module.__file__))
        names = module.__name__.split(".")
        package = names if path.name == "__init__.py" else names[:-1]
        root = path.parents[len(package)]
        waiting = [(path, package), (root, [])]
        places = [str(root), *sys.path, os.getcwd()]
        while waiting:
            file, package = waiting.pop()
            for name in _imported(file, package) if file.is_file() else _outer(names):
                place = _file_of(name, places) if name not in found else None
                if place is not None and place != path and not _is_library(place):
                    found[name] = place
                    parts = name.split(".")
                    waiting.append((place, parts if place.stem == "__init__" else parts[:-1]))
    return found


def _outer(names: Sequence[str]) -> list[str]:
    """The packages around a module."""
    return [".".join(names[:size]) for size in range(1, len(names))]


def _imported(file: Path, package: Sequence[str]) -> Iterator[str]:
    """Modules that a source file may import, with the packages around them."""
    try:
        with open_regular(file) as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield from (*_outer(one.name.split(".")), one.name)
        elif isinstance(node, ast.ImportFrom):
            above = list(package[: len(package) + 1 - node.level]) if node.level else []
            base = [*above, *(node.module or "").split(".")] if node.module else above
            yield from (*_outer(base), *([".".join(base)] if base else []))
            yield from (".".join([*base, one.name]) for one in node.names)


def _file_of(name: str, places: list[str]) -> Path | None:
    """The source file of a module, without importing what is around it."""
    spec = None
    for size in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:size])
        try:
            spec = PathFinder.find_spec(part, places)
        except (ImportError, ValueError, OSError):
            return None
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _is_own(module: ModuleType) -> bool:
    """Whether somebody wrote it for themselves: it is no part of a library, of Python or of us."""
    file = getattr(module, "__file__", None)
    return file is not None and file.endswith(".py") and not _is_library(Path(file))


def _is_library(file: Path) -> bool:
    paths = sysconfig.get_paths()
    places = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if file.is_relative_to(PACKAGE) or {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(place) for place in places)


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
