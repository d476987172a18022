"""What a reinforcement run's folder says: recipe, numbers by step, kept takes.

Reading forgives: a run that was killed in the middle of a line is still worth a look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from resonate_audio.audio.io import FORMATS
from resonate_audio.core.charts import Points
from resonate_audio.core.documents.json_text import parse_json
from resonate_audio.core.documents.text import read_bytes
from resonate_audio.core.documents.yaml_text import parse_yaml
from resonate_audio.core.errors import InputError, ResonateError
from resonate_audio.core.files import file_inside

MAX_STEP = 2**53
"""Whole numbers beyond this are not exact in JSON."""


@dataclass(frozen=True)
class KeptTake:
    """A take that a run kept to be heard."""

    step: int
    prompt: str
    take: int
    kind: str
    """``best`` or ``worst`` of its step."""
    reward: float
    parts: Mapping[str, float]
    file: str
    """Relative to the run's folder, with forward slashes; empty if there is no such file."""


@dataclass(frozen=True)
class RunLog:
    """The files of a run, read."""

    recipe_text: str
    recipe: Mapping[str, Any]
    series: Mapping[str, Points]
    """By name, in the order they first appear; finite values only."""
    not_finite: Mapping[str, int] = field(default_factory=dict)
    """How often each name was NaN or infinite."""
    takes: tuple[KeptTake, ...] = ()
    """The newest first; of one step, the best first."""
    num_unreadable: int = 0
    """Lines that could not be read."""

    @property
    def last_step(self) -> int | None:
        """The last step with a number."""
        return max((points[-1][0] for points in self.series.values()), default=None)

    def setting(self, path: str) -> Any:
        """A field of the recipe by its dotted name; None if it has none."""
        value: Any = self.recipe
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


def read_run(folder: Path) -> RunLog:
    """Read what there is of a run; files that are not there yet are empty.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the output folder of a run")
    text = _read(folder / "recipe.yaml")
    metrics = list(_lines(folder / "metrics.jsonl"))
    takes = list(_lines(folder / "takes.jsonl"))
    kept = [_take(line, folder) for line in takes if line]
    series, not_finite = _series([line for line in metrics if line])
    newest_last = {take.file or str(number): take for number, take in enumerate(kept) if take}
    unreadable = metrics.count(None) + takes.count(None) + kept.count(None)
    return RunLog(
        recipe_text=text,
        recipe=_mapping(text),
        series=series,
        not_finite=not_finite,
        takes=tuple(sorted(newest_last.values(), key=_newest_best_first)),
        num_unreadable=unreadable,
    )


def _read(path: Path) -> str:
    if not path.is_file():
        return ""
    return read_bytes(path, InputError).decode("utf-8", errors="replace")


def _mapping(text: str) -> dict[str, Any]:
    try:
        values = parse_yaml(text, "recipe.yaml")
    except ResonateError:  # it is shown as it is
        return {}
    return values if isinstance(values, dict) else {}


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each line's object, None where there is no object with a step in it."""
    for text in _read(path).split("\n"):
        if not text.strip():
            continue
        try:
            line = parse_json(text, "line", finite=False)
        except ResonateError:
            line = None
        yield line if isinstance(line, dict) and _is_step(line.get("step")) else None


def _is_step(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_STEP


def _is_number(value: Any) -> TypeGuard[int | float]:
    """A number that fits into a float, were it NaN or infinite: whole ones may not."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, float) or abs(value) < MAX_STEP**16)


def _series(lines: list[dict[str, Any]]) -> tuple[dict[str, Points], dict[str, int]]:
    """Values by name and step; of a step that was logged twice, the later."""
    values: dict[str, dict[int, float]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and _is_number(value):
                values.setdefault(name, {})[line["step"]] = float(value)
    finite: dict[str, Points] = {}
    not_finite: dict[str, int] = {}
    for name, by_step in values.items():
        points = tuple((step, by_step[step]) for step in sorted(by_step))
        kept = tuple(point for point in points if math.isfinite(point[1]))
        if kept:
            finite[name] = kept
        if len(kept) < len(points):
            not_finite[name] = len(points) - len(kept)
    return finite, not_finite


def _take(line: dict[str, Any], folder: Path) -> KeptTake | None:
    reward, parts = line.get("reward"), line.get("parts")
    if not _is_number(reward) or not math.isfinite(reward):
        return None
    numbers = parts.items() if isinstance(parts, dict) else ()
    return KeptTake(
        step=line["step"],
        prompt=_text(line.get("prompt")),
        take=line["take"] if _is_step(line.get("take")) else 0,
        kind=_text(line.get("kind")),
        reward=float(reward),
        parts={
            name: float(value)
            for name, value in numbers
            if _is_number(value) and math.isfinite(value)
        },
        file=_sound_inside(_text(line.get("file")), folder),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _sound_inside(name: str, folder: Path) -> str:
    """``name`` if that is a sound in the run's folder, else nothing."""
    is_sound = PurePosixPath(name).suffix.lower() in FORMATS
    return name if is_sound and file_inside(folder, name) else ""


def _newest_best_first(take: KeptTake) -> tuple[int, bool, float]:
    return -take.step, take.kind != "best", -take.reward
