"""What a run learns from, as hashes: a run goes on only with what it began with, wherever it lies.

A recipe names files. Their content decides the result, so that content is what a checkpoint
remembers: a changed file ends a resumed run, the same file in another folder does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resonate_audio.core.config import WRITTEN, FrozenConfig
from resonate_audio.core.errors import TrainingError
from resonate_audio.core.files import file_sha256
from resonate_audio.core.paths import files_below, input_path
from resonate_audio.core.text import one_line

FREE = "run."
FIXED = ("run.seed", "run.micro_batches")
"""Of the fields of ``run``, which may change, those that may not."""
SHOWN = 4
"""Of the fields that changed, those whose old and new values are told."""


def contents_of(config: FrozenConfig) -> dict[str, str]:
    """Hash of every file and folder that a recipe reads, by the dotted name of its field.

    Raises:
        TrainingError: one cannot be read.
    """
    places = {name: input_path(path) for name, path, written in paths_of(config) if not written}
    return {name: hash_place(path) for name, path in places.items() if path.exists()}


def paths_of(config: FrozenConfig, prefix: str = "") -> Iterator[tuple[str, Path, bool]]:
    """Fields of a recipe, at any depth, that are paths, and whether they are only written to."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, FrozenConfig):
            yield from paths_of(value, f"{prefix}{name}.")
        elif isinstance(value, Path):
            yield f"{prefix}{name}", value, WRITTEN in field.metadata


def hash_place(path: Path) -> str:
    """Hash of a file, or of the names and contents of all files of a folder.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        if not path.is_dir():
            return file_sha256(path)[:16]
        lines = [f"{x.relative_to(path).as_posix()} {file_sha256(x)}" for x in files_below(path)]
    except OSError as error:
        raise TrainingError(f"{path}: cannot read it ({error.strerror or error})") from error
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def check_same_run(
    saved: Mapping[str, Any],
    config: FrozenConfig,
    contents_then: Mapping[str, str],
    contents_now: Mapping[str, str],
) -> None:
    """Refuse to resume under another recipe, or with other contents of what it names.

    Only ``run`` may change, and not its seed or micro-batches; and where something lies, if it is
    the same. A checkpoint of an older program holds no contents: places count then.

    Raises:
        TrainingError: names the fields that differ.
    """
    known = contents_then.keys() & contents_now.keys()
    other = sorted(name for name in known if contents_then[name] != contents_now[name])
    before, after = flatten(saved), flatten(config.model_dump(mode="json"))
    free = known | {name for name, _, written in paths_of(config) if written}
    names = [name for name in sorted(before.keys() | after.keys()) if not _may_change(name)]
    differ = {name: _then_and_now(before, after, name) for name in names}
    differ = {name: words for name, words in differ.items() if words}
    changed = [name for name in differ if name not in free]
    if changed:
        raise TrainingError(
            f"{', '.join(changed)} changed since the last checkpoint{_list(differ, changed)}; "
            "choose another run.output, or set the old values again"
        )
    if other:
        raise TrainingError(
            f"the content of {', '.join(other)} changed since the last checkpoint"
            f"{_list(differ, other)}; put it back, or choose another run.output"
        )


def _then_and_now(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> str:
    """Both values of a field that has another one now."""
    old, new = before.get(name), after.get(name)
    if old == new:
        return ""
    return f"{name} was {one_line(str(old), 60)}, is now {one_line(str(new), 60)}"


def _list(differ: Mapping[str, str], names: Sequence[str]) -> str:
    """The first few of what is known to differ, in brackets."""
    words = [differ[name] for name in names if name in differ]
    more = f"; and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return f" ({'; '.join(words[:SHOWN])}{more})" if words else ""


def _may_change(name: str) -> bool:
    return name.startswith(FREE) and name not in FIXED


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
