"""Training runs as the studio shows them: numbers by step, warnings, and takes to hear.

A run is a folder under the one that was given; it is known to the outside by an id, never a path.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resonate_audio.core.charts import Points
from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError, InputError, ResonateError
from resonate_audio.core.files import file_inside
from resonate_audio.core.text import one_line, visible
from resonate_audio.rewards.detectors import rewards_diverge
from resonate_audio.training.reinforce.run_log import KeptTake, RunLog, read_run
from resonate_audio.training.reinforce.run_page import summarize

log = logging.getLogger("resonate.serve")
RUN_FILES = ("metrics.jsonl", "recipe.yaml")
DEPTH = 3
"""How far under the given folder runs are looked for."""
MAX_POINTS = 400
"""More than a screen has room for is left out evenly; the last point always stays."""
FACTS = ("model", "algorithm.kind", "reward", "evaluation.held_out", "prompts_per_step", "takes")


class RunHead(FrozenConfig):
    """One run in the list."""

    id: str
    name: str
    summary: str
    num_steps: int
    changed: float
    """When it last wrote, seconds since 1970."""
    problem: str | None = None
    """Why nothing can be told of it."""


class Take(FrozenConfig):
    """A kept take."""

    id: str
    """What its sound is asked for by, also while the run goes on; empty if there is no sound."""
    step: int
    prompt: str
    take: int
    kind: str
    reward: float
    parts: dict[str, float]
    has_sound: bool


class Run(RunHead):
    """Everything the page of a run shows."""

    facts: dict[str, str]
    warnings: tuple[str, ...]
    series: dict[str, tuple[tuple[int, float], ...]]
    takes: tuple[Take, ...]
    recipe: str


def list_runs(root: Path) -> list[RunHead]:
    """Runs under a folder, the one that wrote last first; one that is broken hides no other."""
    heads = [_head_or_problem(root, folder) for folder in _folders(root)]
    return sorted(heads, key=lambda head: -head.changed)


def open_run(root: Path, id: str) -> Run:
    """One run in full.

    Raises:
        InputError: there is no run of that id.
        ConfigError: its files cannot be read.
    """
    folder = _find(root, id)
    with told_damage(folder):
        return _open(root, folder)


def _open(root: Path, folder: Path) -> Run:
    read = read_run(folder)
    return Run(
        **_head(root, folder, read).model_dump(),
        facts={name: str(read.setting(name)) for name in FACTS if _is_plain(read.setting(name))},
        warnings=tuple(_warnings(read)),
        series={name: _thinned(points) for name, points in read.series.items()},
        takes=tuple(_take(take) for take in read.takes),
        recipe=read.recipe_text,
    )


def take_file(root: Path, id: str, take: str) -> Path:
    """The sound of a kept take, by the run's id and its own.

    Raises:
        InputError: no such run or take, or its sound is not there.
    """
    folder = _find(root, id)
    with told_damage(folder):
        files = {_take_id(kept): kept.file for kept in read_run(folder).takes if kept.file}
    path = file_inside(folder, files[take]) if take in files else None
    if path is None:
        raise InputError(f"take {take[:20]!r}: this run has no sound of it, or it lies outside")
    return path


@contextmanager
def told_damage(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged run leads to into one error.

    Raises:
        ConfigError: the folder's files cannot be read.
    """
    try:
        yield
    except InputError:
        raise
    except (ResonateError, OSError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ConfigError(f"{folder}: cannot be read ({error})") from error


def _head_or_problem(root: Path, folder: Path) -> RunHead:
    try:
        with told_damage(folder):
            return _head(root, folder, read_run(folder))
    except ConfigError as error:
        log.warning("%s", one_line(str(error)))
        name = one_line(_name(root, folder))
        return RunHead(
            id=_id(root, folder),
            name=name,
            summary="cannot be read",
            num_steps=0,
            changed=0.0,
            problem="its files cannot be read; the server's log says why",
        )


def _folders(root: Path) -> Iterator[Path]:
    """Folders that hold a run, without those inside of a run."""
    level = [root] if root.is_dir() else []
    for _ in range(DEPTH + 1):
        runs = [folder for folder in level if any((folder / name).is_file() for name in RUN_FILES)]
        yield from runs
        level = [
            child
            for folder in level
            if folder not in runs
            for child in _children(folder)
            if child.is_dir() and not child.name.startswith(".")
        ]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:  # one that may not be looked into hides no other
        log.warning("%s: left out (%s)", folder, error.strerror)
        return []


def _find(root: Path, id: str) -> Path:
    found = next((folder for folder in _folders(root) if _id(root, folder) == id), None)
    if found is None:
        raise InputError("run: there is no such run; load the list again")
    return found


def _name(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix() if folder != root else folder.resolve().name


def _id(root: Path, folder: Path) -> str:
    return _hashed(_name(root, folder))


def _take_id(take: KeptTake) -> str:
    """Its place in the list would change with every step of the run; its file stays."""
    return _hashed(take.file) if take.file else ""


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:12]


def _head(root: Path, folder: Path, read: RunLog) -> RunHead:
    times = [path.stat().st_mtime for name in RUN_FILES if (path := folder / name).is_file()]
    return RunHead(
        id=_id(root, folder),
        name=visible(_name(root, folder)),
        summary=summarize(read),
        num_steps=(read.last_step or 0),
        changed=max(times, default=0.0),
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _warnings(read: RunLog) -> Iterator[str]:
    reward = read.series.get("reward/mean", ())
    for name, points in read.series.items():
        if name.startswith("held_out/") and rewards_diverge(reward, points):
            judge = name.removeprefix("held_out/")
            yield (
                f"The training reward rose while the held-out judge {judge} went down: the model "
                "may be learning the judge's weaknesses. Listen to the newest best takes."
            )
    for name, count in read.not_finite.items():
        yield f"{name} was NaN or infinite {count} times and is left out there."
    if read.num_unreadable:
        yield f"Lines of the run's files that could not be read: {read.num_unreadable}."


def _thinned(points: Points) -> tuple[tuple[int, float], ...]:
    every = -(-len(points) // MAX_POINTS)
    kept = [*points[:-1:every], points[-1]]
    return tuple((int(step), float(value)) for step, value in kept)


def _take(take: KeptTake) -> Take:
    return Take(
        id=_take_id(take),
        step=take.step,
        prompt=take.prompt,
        take=take.take,
        kind=take.kind,
        reward=take.reward,
        parts=dict(take.parts),
        has_sound=bool(take.file),
    )
