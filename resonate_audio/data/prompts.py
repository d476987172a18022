"""Files of texts: one a line, or JSON lines with the text in a field."""

from __future__ import annotations

import json
from pathlib import Path

from resonate_audio.core.errors import ManifestError

FIELDS = ("prompt", "prompt_text", "caption", "text")
"""Names under which a JSON line may hold its text, the first found is taken."""


def read_prompts(path: Path) -> tuple[str, ...]:
    """Texts of a file in their order; empty lines of a text file are skipped.

    Args:
        path: ``.jsonl`` has one object a line with ``prompt``, ``prompt_text``, ``caption`` or
            ``text``; anything else is one text a line.

    Raises:
        ManifestError: the file cannot be read, holds no text, or a line is broken; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot read it as UTF-8 text ({error})") from error
    if path.suffix == ".jsonl":
        texts = [
            _text_of(line, f"{path}, line {number}")
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
    else:
        texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise ManifestError(f"{path}: no prompt in it; write one text a line")
    return tuple(texts)


def _text_of(line: str, place: str) -> str:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{place}: not JSON ({error.msg})") from error
    if not isinstance(fields, dict):
        raise ManifestError(f"{place}: expected an object, got {type(fields).__name__}")
    name = next((name for name in FIELDS if name in fields), None)
    if name is None:
        raise ManifestError(f"{place}: expected one of the fields {', '.join(FIELDS)}")
    if not isinstance(fields[name], str) or not fields[name].strip():
        raise ManifestError(f"{place}: {name} is empty or no text; describe a sound")
    return str(fields[name]).strip()
