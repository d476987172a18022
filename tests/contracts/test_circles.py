"""No circle, neither of files nor of the rooms of one folder; late and typing imports count."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "resonate_audio").rglob("*.py"))
Graph = dict[str, set[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PATHS}
FOLDERS = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")


@cache
def imports() -> Graph:
    return {name: imported(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imported(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "an import names its module in full"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in inner}
    return found & MODULES.keys()


def rooms(folder: str) -> Graph:
    """Imports between what lies in a folder: its files, its folders, its own ``__init__``."""

    def room(module: str) -> str | None:
        if module == folder:
            return "__init__"
        inside = module.startswith(f"{folder}.")
        return module.removeprefix(f"{folder}.").split(".")[0] if inside else None

    graph: Graph = {}
    for module, others in imports().items():
        here = room(module)
        if here:
            graph.setdefault(here, set()).update({room(other) for other in others} - {here, None})
    return graph


def circle(graph: Graph) -> list[str]:
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_a_late_import_that_closes_a_circle_is_seen() -> None:
    late = "def f():\n    from resonate_audio.core import errors\n"
    assert imported(late) == {"resonate_audio.core.errors"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_no_files_import_one_another_in_a_circle() -> None:
    assert not circle(imports())


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_rooms_of_a_folder_import_one_another_in_a_circle(folder: str) -> None:
    assert not circle(rooms(folder))
