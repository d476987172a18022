"""What every system is asked for: prompts with ids, from whatever kind of file they are in."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.documents.json_text import write_json_lines
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.data.prompts import PromptRow, read_prompt_rows

FEWEST_DIGITS = 4
"""Numbers as ids are filled up with zeros to this width, so that names sort as they do."""
_FILE_NAME = re.compile(r"\w[\w.-]*")


class PromptItem(FrozenConfig):
    """One prompt of a set."""

    id: str
    prompt: str
    meta: dict[str, Any] = Field(default_factory=dict)
    """Every other field of its line, such as ``event_list``."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts that systems are compared on, in their order."""

    name: str
    items: tuple[PromptItem, ...]

    @cached_property
    def sha256(self) -> str:
        """Changes with any id or prompt and with their order; two equal ones ask for the same."""
        content = json.dumps([(item.id, item.prompt) for item in self.items], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def sample(self, num_items: int) -> PromptSet:
        """So many prompts, evenly spaced, so that every part of the set is in it.

        Raises:
            InputError: fewer than one, or more than there are.
        """
        if not 1 <= num_items <= len(self.items):
            raise InputError(
                f"a sample of {num_items} prompts: {self.name} has {len(self.items)}; "
                "expected 1 to that"
            )
        chosen = [self.items[k * len(self.items) // num_items] for k in range(num_items)]
        return PromptSet(f"{self.name}[{num_items}]", tuple(chosen))


def read_prompt_set(path: Path) -> PromptSet:
    """Read a set of prompts.

    Args:
        path: any form that `read_prompt_rows` reads. Objects may have an ``id``; without it, the
            number of the prompt is the id.

    Raises:
        ManifestError: as `read_prompt_rows`, or an id comes twice or cannot be part of a file
            name. Names the line.
    """
    rows = read_prompt_rows(path)
    width = max(FEWEST_DIGITS, len(str(len(rows))))
    items = [_item(row, width) for row in rows]
    _check_ids(items, [row.place for row in rows])
    return PromptSet(path.stem, tuple(items))


def write_prompt_set(path: Path, prompts: PromptSet) -> None:
    """Write prompts as JSON lines that `read_prompt_set` reads back, but for the set's name."""
    write_json_lines(
        path, ({"id": item.id, "prompt": item.prompt} | item.meta for item in prompts.items)
    )


def _item(row: PromptRow, width: int) -> PromptItem:
    id = str(row.fields.get("id", f"{row.number:0{width}d}"))
    if not _FILE_NAME.fullmatch(id):
        raise ManifestError(
            f"{row.place}: id {id[:80]!r} cannot name a file; expected letters, digits, '_', '-' "
            "and '.'"
        )
    meta = {key: value for key, value in row.fields.items() if key != "id"}
    return PromptItem(id=id, prompt=row.prompt, meta=meta)


def _check_ids(items: Sequence[PromptItem], places: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for item, place in zip(items, places, strict=True):
        first = seen.setdefault(item.id, place)
        if first != place:
            raise ManifestError(f"{place}: id {item.id} was used before, by {first}")
