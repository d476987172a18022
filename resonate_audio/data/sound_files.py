"""The sound files and tables under a folder, found in one walk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from resonate_audio.core.errors import ManifestError
from resonate_audio.core.paths import same_name, slashed, walk

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
        self._by_stem: dict[str, list[str]] = {}
        """Sounds by their path without suffix, as both spellings of it share it."""
        self._listed: set[str] = set()
        for folder, names in walk(root):
            self._add_folder(folder, names)
        paths = chain.from_iterable(self._by_stem.values())
        self._ids = Counter(_plain_id(path) for path in paths)

    def _add_folder(self, folder: Path, names: Sequence[str]) -> None:
        stems = set()
        inside = "" if folder == self.root else folder.relative_to(self.root).as_posix() + "/"
        parts = [(name, *os.path.splitext(name)) for name in names]
        for name, stem, suffix in parts:
            if suffix.lower() in SUFFIXES:
                stems.add(same_name(stem))
                self._by_key.setdefault(self._key(same_name(stem)), []).append(inside + name)
                self._by_stem.setdefault(same_name(inside + stem), []).append(inside + name)
            self.num_unreadable += suffix.lower() in UNREADABLE
        for name, stem, suffix in parts:
            kind = suffix.lower()
            if kind == ".txt" or (kind == ".json" and same_name(stem) in stems):
                self.sidecars.append(folder / name)
            elif kind in TABLES:
                self.tables.append(folder / name)

    def __len__(self) -> int:
        return sum(map(len, self._by_stem.values()))

    def paths(self) -> Iterator[str]:
        """Every sound, folder by folder."""
        yield from chain.from_iterable(self._by_stem.values())

    def beside(self, stem: str) -> list[str]:
        """The sounds whose path is ``stem`` and a suffix; those spelt as it is, if there are."""
        alike = self._by_stem.get(same_name(stem), [])
        return [path for path in alike if os.path.splitext(path)[0] == stem] or alike

    def id_of(self, path: str) -> str:
        """What no other sound of the tree is called: ``dog-1`` for ``dog/1.wav``.

        Where two would share it, as ``dog-1.wav`` does, each is called by its whole path, which
        holds a slash.
        """
        plain = _plain_id(path)
        whole = path if "/" in path else f"./{path}"
        return plain if self._ids[plain] < 2 else whole

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
            found = self._at(path) or self._at(slashed(path))
        else:
            names = [same_name(name) for name in names]
            keys = dict.fromkeys(self._key(name) for name in names)
            found = [x for key in keys for x in self._by_key.get(key, ())]
        self._listed.update(found)
        found = _prefer(found, lambda x: _stem(x) in names)
        found = _prefer(found, lambda x: folder in PurePosixPath(x).parts)
        first = [x for name in names for x in found if _stem(x) == name]
        found = [x for x in found if not first or _same_name(x, first[0])]
        if len(found) > 1:
            raise ManifestError(f"{place}: {found[0]} and {found[1]} both fit; keep one of them")
        return found[0] if found else None

    def _at(self, path: str) -> list[str]:
        """The sound of a path, however its letters are put together; exactly so, if it is there."""
        wanted = os.path.normpath(path)
        alike = [x for x in self.beside(os.path.splitext(wanted)[0]) if _is_same(x, wanted)]
        return [x for x in alike if x == wanted] or alike


def _prefer(paths: list[str], wanted: Callable[[str], bool]) -> list[str]:
    return [path for path in paths if wanted(path)] or paths


def _same_name(one: str, other: str) -> bool:
    return _stem(one) == _stem(other)


def _stem(path: str) -> str:
    return same_name(PurePosixPath(path).stem)


def _is_same(one: str, other: str) -> bool:
    return same_name(one) == same_name(other)


def _plain_id(path: str) -> str:
    place = PurePosixPath(path)
    plain = place.with_suffix("") if place.name else place  # "." is no file, and has no suffix
    return same_name(plain.as_posix().replace("/", "-"))
