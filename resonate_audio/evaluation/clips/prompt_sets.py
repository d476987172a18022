"""What every system is asked for: prompts with ids, from whatever kind of file they are in."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.core.files import atomic_path
from resonate_audio.data.prompts import FIELDS

FEWEST_DIGITS = 4
"""Line numbers as ids are filled up with zeros to this width, so that names sort as lines do."""
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
        path: ``.json``: a list of objects, such as TTA-Bench's files. ``.jsonl``: one object a
            line. Anything else: one prompt a line. Objects have ``prompt``, ``prompt_text``,
            ``caption`` or ``text``, and may have an ``id``; without it, the number of the line is
            the id.

    Raises:
        ManifestError: the file cannot be read or holds no prompt; a prompt is empty; an id comes
            twice or cannot be part of a file name. Names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot read it as UTF-8 text ({error})") from error
    readers = {".json": _json_entries, ".jsonl": _jsonl_entries}
    entries = list(readers.get(path.suffix.lower(), _text_entries)(text, path))
    if not entries:
        raise ManifestError(f"{path}: no prompt in it; write one a line")
    width = max(FEWEST_DIGITS, len(str(entries[-1][0])))
    items = [_item(number, fields, place, width) for number, fields, place in entries]
    _check_ids(items, [place for _, _, place in entries])
    return PromptSet(path.stem, tuple(items))


def write_prompt_set(path: Path, prompts: PromptSet) -> None:
    """Write prompts as JSON lines that `read_prompt_set` reads back, but for the set's name."""
    lines = [
        json.dumps({"id": item.id, "prompt": item.prompt} | item.meta, ensure_ascii=False)
        for item in prompts.items
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


Entry = tuple[int, Mapping[str, Any], str]
"""Number, fields and place of a prompt in its file."""


def _json_entries(text: str, path: Path) -> Iterator[Entry]:
    listed = _parse(text, str(path))
    if not isinstance(listed, list):
        raise ManifestError(f"{path}: expected a list of objects, got {type(listed).__name__}")
    for number, fields in enumerate(listed, 1):
        place = f"{path}, item {number}"
        yield number, _as_object(fields, place), place


def _jsonl_entries(text: str, path: Path) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{path}, line {number}"
        if line.strip():
            yield number, _as_object(_parse(line, place), place), place


def _text_entries(text: str, path: Path) -> Iterator[Entry]:
    """An empty line would move the ids of those after it, if someone deleted it: it is refused."""
    for number, line in enumerate(text.rstrip().splitlines(), 1):
        yield number, {"prompt": line}, f"{path}, line {number}"


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f" in its line {error.lineno}" if error.lineno > 1 else ""
        raise ManifestError(f"{place}: not JSON{where} ({error.msg})") from error


def _as_object(fields: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(fields, dict):
        raise ManifestError(f"{place}: expected an object, got {type(fields).__name__}")
    return fields


def _item(number: int, fields: Mapping[str, Any], place: str, width: int) -> PromptItem:
    name = next((name for name in FIELDS if name in fields), None)
    if name is None:
        raise ManifestError(f"{place}: expected one of the fields {', '.join(FIELDS)}")
    prompt = fields[name]
    if not isinstance(prompt, str) or not prompt.strip():
        raise ManifestError(f"{place}: {name} is empty or no text; describe a sound")
    id = str(fields.get("id", f"{number:0{width}d}"))
    if not _FILE_NAME.fullmatch(id):
        raise ManifestError(
            f"{place}: id {id!r} cannot name a file; expected letters, digits, '_', '-' and '.'"
        )
    meta = {key: value for key, value in fields.items() if key not in ("id", name)}
    return PromptItem(id=id, prompt=prompt.strip(), meta=meta)


def _check_ids(items: Sequence[PromptItem], places: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for item, place in zip(items, places, strict=True):
        first = seen.setdefault(item.id, place)
        if first != place:
            raise ManifestError(f"{place}: id {item.id} was used before, by {first}")
