"""Which seed each sound has, and which file it goes to."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resonate_audio.core.edit import Finish
from resonate_audio.core.errors import InputError, OutputError
from resonate_audio.core.paths import given_path

STDOUT = Path("-")
DEFAULT_SUFFIX = ".wav"
SLUG_LENGTH = 48
NAMES = ("name", "prompt", "seed", "take", "n")
"""What may stand in braces in the name of an output."""
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Wanted:
    """What to make takes of: a prompt, a line of a list, or a source with what is done to it."""

    prompt: str
    negative: str = ""
    takes: int = 1
    seed: int | None = None
    """Of the first take; None takes the command's."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `Sampling`, where they are not the model's own."""
    finish: Finish | None = None
    is_loop: bool = False
    name: str = ""
    """What its files are called; after the prompt if empty."""
    place: str = ""
    """File and line that it stands on, for errors."""


@dataclass(frozen=True)
class PlannedSound:
    """One sound to make: what, its seed, its file."""

    wanted: Wanted
    seed: int
    path: Path

    @property
    def prompt(self) -> str:
        """What to hear."""
        return self.wanted.prompt


def plan_sounds(wanted: Sequence[Wanted], seed: int, output: str | None) -> list[PlannedSound]:
    """Give every take of everything wanted a seed and a file of its own, in that order.

    Take k has seed ``seed`` + k for every prompt, so prompts can be compared on the same noise; a
    prompt that comes again goes on counting where it stopped.

    Args:
        wanted: what to make.
        seed: seed of the first take of what has none of its own.
        output: a file name, perhaps with `NAMES` in braces; a folder (existing, or a name without
            suffix); ``-`` for the standard output; None for here.

    Raises:
        InputError: something unknown in braces, two sounds would go to one file, or several to the
            standard output.
        OutputError: the standard output is closed.
    """
    rows, used = [], Counter[str]()
    for item in wanted:
        first = item.seed
        if first is None:
            first = seed + used[item.prompt]
            used[item.prompt] += item.takes
        rows += [(item, first + take, take + 1) for take in range(item.takes)]
    paths = _paths(rows, output)
    return [PlannedSound(item, own, path) for (item, own, _), path in zip(rows, paths, strict=True)]


Row = tuple[Wanted, int, int]
"""What is wanted, the seed, and the number of the take from 1."""


def _paths(rows: Sequence[Row], output: str | None) -> list[Path]:
    if output == str(STDOUT):
        if len(rows) > 1:
            raise InputError(f"-o -: one sound goes to the standard output, not {len(rows)}")
        if sys.__stdout__ is None:
            raise OutputError("-o -: the standard output is closed; give a file, or a pipe")
        return [STDOUT]
    if output is not None and ("{" in output or "}" in output):
        paths = [_filled(output, row, number) for number, row in enumerate(rows, 1)]
        refuse_equal(paths, rows, f"-o {output}: add {{seed}}, {{take}} or {{n}}")
        return paths
    if _is_folder(output):
        folder = given_path(output or ".")
        stems = [f"{item.name or slug(item.prompt)}_{seed}" for item, seed, _ in rows]
        if not any(item.name for item, _, _ in rows):
            stems = _distinct(stems)
        paths = [folder / f"{stem}{DEFAULT_SUFFIX}" for stem in stems]
        refuse_equal(paths, rows, "give each a name or a seed of its own")
        return paths
    path = given_path(output or "")
    if len(rows) == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{number}") for number in range(1, len(rows) + 1)]


def _filled(output: str, row: Row, number: int) -> Path:
    """A file name with what stands for its braces.

    Raises:
        InputError: something else stands in braces, or a brace stands alone.
    """
    item, seed, take = row
    text = slug(item.prompt)
    values = {"name": item.name or text, "prompt": text, "seed": seed, "take": take, "n": number}

    def fill(found: re.Match[str]) -> str:
        if found[1] not in values:
            known = " ".join(f"{{{name}}}" for name in NAMES)
            raise InputError(f"-o {output}: {found[0]} stands for nothing; there are {known}")
        return str(values[found[1]])

    if re.search(r"[{}]", _BRACES.sub("", output)):
        raise InputError(f"-o {output}: a brace stands alone")
    return given_path(_BRACES.sub(fill, output))


def refuse_equal(paths: Sequence[Path], rows: Sequence[Row], advice: str) -> None:
    """Refuse two sounds that would go to one file, on a disk that knows no capitals too.

    Raises:
        InputError: names the file, what would go there, and what to do.
    """
    seen: dict[str, Wanted] = {}
    for path, (item, _, _) in zip(paths, rows, strict=True):
        key = str(path).casefold()
        if key in seen:
            first, second = (one.place or f"“{one.prompt[:50]}”" for one in (seen[key], item))
            both = first if first == second else f"{first} and {second}"
            raise InputError(f"{path}: two sounds would go there ({both}); {advice}")
        seen[key] = item


def slug(text: str) -> str:
    """A file name from a text: ASCII letters, digits and hyphens, at most 48 of them."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(words) > SLUG_LENGTH:
        words = words[: SLUG_LENGTH + 1].rpartition("-")[0] or words[:SLUG_LENGTH]
    return words or "sound"


def _is_folder(output: str | None) -> bool:
    return (
        output is None
        or output.endswith("/")
        or os.path.isdir(given_path(output))
        or not Path(output).suffix
    )


def _distinct(stems: list[str]) -> list[str]:
    """Number the stems that repeat: a, a-2, a-3."""
    seen: Counter[str] = Counter()
    result = []
    for stem in stems:
        seen[stem] += 1
        result.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return result
