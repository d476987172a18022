"""Code blocks of the documentation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+?) -->\n)?```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
BEFORE = re.compile(r"\w+=.*|sudo|do|time")
"""What may stand before a command."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    why_not_run: str | None

    @property
    def is_shell(self) -> bool:
        return self.language in ("bash", "sh")

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, with what the page says of why one is not run."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["code"],
            found["why"],
        )
        for found in FENCE.finditer(text)
    ]


def commands_in(code: str) -> Iterator[list[str]]:
    """The words of every call of `resonate` in shell code, without what comes after a pipe."""
    for line in code.replace("\\\n", " ").splitlines():
        if "resonate " not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&"):
                while words and BEFORE.fullmatch(words[0]):
                    words = words[1:]
                if words[:1] == ["resonate"]:
                    yield words[1:]
                words = []
            else:
                words.append(word)
