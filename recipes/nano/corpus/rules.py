"""Which class a file belongs to and how its sound may be worded, from its path alone.

``labels.txt``: ``class = caption / caption``. ``rules.txt``: a source opens with
``@ name | folder | licence`` and lists ``class | pattern [| caption / caption]``; the first pattern
that is found in the path without suffix decides, a class or caption of ``-`` rejects the file, and
so does no match. A caption ``@kind`` is worded from the file's name by ``spoken``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from corpus.sources import HERE
from resonate_audio.core.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """One line of a source."""

    label: str
    pattern: re.Pattern[str]
    captions: tuple[str, ...]
    """Empty: those of the class."""

    @property
    def rejects(self) -> bool:
        """Whether a match means that the file is not wanted."""
        return self.label == "-" or self.captions == ("-",)


@dataclass(frozen=True)
class Source:
    """A folder of files that one list of rules names."""

    name: str
    folder: str
    licence: str
    rules: tuple[Rule, ...]

    def match(self, path: str) -> Rule | None:
        """The rule that names ``path`` (without suffix), or None if the file is not wanted."""
        for rule in self.rules:
            if rule.pattern.search(path) or rule.pattern.search(path.replace(" ", "_")):
                return None if rule.rejects else rule
        return None


def read_labels(path: Path = HERE / "labels.txt") -> dict[str, tuple[str, ...]]:
    """Captions of every class, the plainest first."""
    labels = {}
    for line in _lines(path):
        label, _, captions = line.partition("=")
        labels[label.strip()] = _split_captions(captions)
    return labels


def read_rules(labels: dict[str, tuple[str, ...]], path: Path = HERE / "rules.txt") -> list[Source]:
    """Read every source with its rules.

    Raises:
        ConfigError: a rule names a class that ``labels`` does not have, or stands before a source.
    """
    heads: list[tuple[str, str, str]] = []
    rules: list[list[Rule]] = []
    for line in _lines(path):
        if line.startswith("@"):
            name, folder, licence = (part.strip() for part in line[1:].split(" | "))
            heads.append((name, folder, licence))
            rules.append([])
            continue
        rule = parse_rule(line)
        if not rules or (not rule.rejects and rule.label not in labels):
            raise ConfigError(f"{path}: no such class, or no source yet: {line}")
        rules[-1].append(rule)
    return [Source(*head, tuple(lines)) for head, lines in zip(heads, rules, strict=True)]


def parse_rule(line: str) -> Rule:
    """``class | pattern | caption / caption``; a bar with blanks on both sides separates."""
    label, pattern, captions = [*re.split(r" \| |\s\|$", line), "", ""][:3]
    return Rule(
        label.strip(), re.compile(pattern.strip(), re.IGNORECASE), _split_captions(captions)
    )


def _split_captions(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(" / ") if part.strip())


def _lines(path: Path) -> list[str]:
    lines = (line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
