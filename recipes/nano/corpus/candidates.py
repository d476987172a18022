"""Walk the unpacked sources and name every file that a rule wants."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from corpus.licences import Credit, credit
from corpus.rules import Source
from corpus.sources import Folders
from corpus.spoken import caption_of
from corpus.unpack import is_sound

ANY_SUFFIX = {"tamtam", "blobwars"}
"""Sources whose sounds have no suffix."""


@dataclass(frozen=True)
class Candidate:
    """A file that holds a sound of a known class."""

    source: str
    path: str
    """Under the unpacked sources."""
    name: str
    """Under the source's folder; ids are made of it."""
    label: str
    captions: tuple[str, ...]
    credit: Credit


@dataclass(frozen=True)
class Finding:
    """What one source's folder holds."""

    wanted: list[Candidate]
    """In the order of their names."""
    unnamed: set[Path]
    """Sounds that no rule of this source wants."""
    refused: Counter[str]
    """How many may not be used, by licence."""


def find_candidates(
    source: Source, labels: dict[str, tuple[str, ...]], folders: Folders
) -> Finding:
    """Name the files of one source."""
    root = folders.sources / source.folder
    finding = Finding([], set(), Counter())
    for path in sound_files(root, source.name in ANY_SUFFIX):
        name = path.relative_to(root).as_posix()
        stem = name[: -len(path.suffix)] if is_sound(name) else name
        rule = source.match(stem)
        captions = rule and (rule.captions or labels[rule.label])
        if captions and captions[0].startswith("@"):
            spoken = caption_of(captions[0][1:], stem, root)
            captions = (spoken,) if spoken else None
        if rule is None or not captions:
            finding.unnamed.add(path)
            continue
        owner = credit(source, path, folders)
        if not owner.usable:
            finding.refused[f"licence {owner.licence}"] += 1
            continue
        where = path.relative_to(folders.sources).as_posix()
        finding.wanted.append(Candidate(source.name, where, name, rule.label, captions, owner))
    return finding


def sound_files(root: Path, any_suffix: bool) -> list[Path]:
    """Every sound below ``root``, folder by folder, in the order of names."""
    files = []
    for folder, inner, names in os.walk(root):
        inner.sort()
        files += [Path(folder) / name for name in sorted(names) if any_suffix or is_sound(name)]
    return files
