"""The sound files and tables under a folder, found in one walk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from resonate_audio.core.errors import ManifestError

SUFFIXES = frozenset(
    [".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64"]
)
UNREADABLE = frozenset([".m4a", ".aac", ".mp4", ".webm", ".mkv", ".wma", ".mka"])
"""Sound that libsndfile cannot read."""
TABLES = frozenset([".csv", ".tsv", ".json", ".jsonl"])


class SoundFiles:
    """Paths of sounds relative to a root, by name; which were asked for is remembered."""

    def __init__(self, root: Path, key: Callable[[str], str] = str) -> None:
        """Walk ``root``.

        Args:
            root: folder of the corpus.
            key: what of a file's name, without suffix, identifies it.

        Raises:
            ManifestError: ``root`` is no folder.
        """
        if not root.is_dir():
            raise ManifestError(f"{root}: no such folder; give the folder of the corpus")
        self.root, self._key = root, key
        self.tables: list[Path] = []
        self.sidecars: list[Path] = []
        """Every ``.txt``, and each ``.json`` that shares the name of a sound."""
        self.num_unreadable = 0
        self._by_key: dict[str, list[str]] = {}
        self._by_stem: dict[str, str] = {}
        self._listed: set[str] = set()
        for folder, inner, names in os.walk(root):
            inner.sort()
            self._add_folder(Path(folder), sorted(names))

    def _add_folder(self, folder: Path, names: Sequence[str]) -> None:
        stems = set()
        inside = "" if folder == self.root else folder.relative_to(self.root).as_posix() + "/"
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                stems.add(stem)
                self._by_key.setdefault(self._key(stem), []).append(inside + name)
                self._by_stem[inside + stem] = inside + name
            self.num_unreadable += suffix.lower() in UNREADABLE
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix == ".txt" or (suffix == ".json" and stem in stems):
                self.sidecars.append(folder / name)
            elif suffix in TABLES:
                self.tables.append(folder / name)

    def __len__(self) -> int:
        return len(self._by_stem)

    def paths(self) -> Iterator[str]:
        """Every sound, folder by folder."""
        yield from self._by_stem.values()

    def beside(self, stem: str) -> str | None:
        """The sound whose path is ``stem`` and a suffix."""
        return self._by_stem.get(stem)

    def unlisted(self) -> Iterator[str]:
        """Sounds that were never found by ``find``."""
        return (path for path in self.paths() if path not in self._listed)

    def find(self, names: Sequence[str], folder: str, path: str | None, place: str) -> str | None:
        """The file of a clip, or None.

        Args:
            names: what it may be called, without suffix, the likeliest first.
            folder: a folder above it, which tells files of one name apart.
            path: the file, where that is known; ``names`` do not matter then.
            place: for errors, who lists the clip.

        Raises:
            ManifestError: two files fit equally well.
        """
        if path is not None:
            stem = os.path.normpath(os.path.splitext(path)[0]).replace(os.sep, "/")
            found = [x for x in [self._by_stem.get(stem)] if x == os.path.normpath(path)]
        else:
            keys = dict.fromkeys(self._key(name) for name in names)
            found = [x for key in keys for x in self._by_key.get(key, ())]
        self._listed.update(found)
        found = _prefer(found, lambda x: PurePosixPath(x).stem in names)
        found = _prefer(found, lambda x: folder in PurePosixPath(x).parts)
        first = [x for name in names for x in found if PurePosixPath(x).stem == name]
        found = [x for x in found if not first or _same_name(x, first[0])]
        if len(found) > 1:
            raise ManifestError(f"{place}: {found[0]} and {found[1]} both fit; keep one of them")
        return found[0] if found else None


def _prefer(paths: list[str], wanted: Callable[[str], bool]) -> list[str]:
    return [path for path in paths if wanted(path)] or paths


def _same_name(one: str, other: str) -> bool:
    return PurePosixPath(one).stem == PurePosixPath(other).stem
