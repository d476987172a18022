"""Scores that are kept: by what was heard, what was asked and how it was measured.

One SQLite file holds the values of any number of systems. A value's address is the content of the
sound and its prompt, never a path, so a clip that two folders share is scored once, and one that
changes is scored again. Each batch is one transaction: a kill loses the batch at work and no more.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32

from resonate_audio.core.documents.json_text import parse_object
from resonate_audio.core.errors import InputError, OutputError

SCHEMA_VERSION = 1
BUSY_S = 60.0
"""Seconds that a process waits while another writes."""
VARIABLES = 500
"""Addresses asked for at once; SQLite takes a limited number."""
_TABLES = """
CREATE TABLE score (address TEXT, metric TEXT, parts TEXT, PRIMARY KEY (address, metric))
    WITHOUT ROWID;
CREATE TABLE sound (file_sha256 TEXT PRIMARY KEY, facts TEXT) WITHOUT ROWID;
CREATE TABLE file (path TEXT PRIMARY KEY, state TEXT, sha256 TEXT) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Sound:
    """What is known of a sound file without hearing it again."""

    pcm_sha256: str = ""
    """Of its samples as float32, one channel; empty if it cannot be read."""
    sample_rate_hz: int = 0
    num_samples: int = 0
    peak: float = 0.0
    """Largest magnitude of a finite sample."""
    is_finite: bool = True
    problem: str = ""
    """Why it cannot be read."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.num_samples / self.sample_rate_hz if self.sample_rate_hz else 0.0

    def address(self, prompt: str) -> str:
        """Where the scores of this sound for a prompt are kept."""
        content = json.dumps([self.pcm_sha256, self.sample_rate_hz, prompt], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()


def pcm_sha256(samples: Float32[np.ndarray, " sample"]) -> str:
    """Hash of samples; the same sound in another file format that loses nothing has the same."""
    return hashlib.sha256(np.ascontiguousarray(samples, dtype="<f4").tobytes()).hexdigest()


class Store:
    """An open store; use it in a ``with`` block, in one thread."""

    def __init__(self, path: Path) -> None:
        """Open or create a store.

        Raises:
            InputError: the file is no store, or one of a newer version.
            OutputError: it cannot be written.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        except (OSError, sqlite3.OperationalError) as error:
            raise OutputError(f"{path}: cannot open it as a store ({error})") from error
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with self._told():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("BEGIN IMMEDIATE")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self.path}: a store of version {version}, written by a newer release; this one "
                f"reads version {SCHEMA_VERSION}: update, or choose another --store"
            )

    def scores(self, metric: str, addresses: Sequence[str]) -> dict[str, dict[str, float]]:
        """The values there are, by address."""
        select = "SELECT address, parts FROM score WHERE metric = ? AND address IN"
        return {
            address: parse_object(parts, str(self.path), finite=False)
            for address, parts in self._select(select, addresses, (metric,))
        }

    def put_scores(self, metric: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Keep values, all or none."""
        rows = [(address, metric, json.dumps(dict(parts))) for address, parts in values.items()]
        self._insert("INSERT OR REPLACE INTO score VALUES (?, ?, ?)", rows)

    def sounds(self, file_sha256s: Sequence[str]) -> dict[str, Sound]:
        """What is known of files, by the hash of their bytes."""
        select = "SELECT file_sha256, facts FROM sound WHERE file_sha256 IN"
        found = self._select(select, file_sha256s)
        return {
            file_sha256: Sound(**parse_object(facts, str(self.path)))
            for file_sha256, facts in found
        }

    def put_sounds(self, sounds: Mapping[str, Sound]) -> None:
        """Keep what files are, all or none."""
        rows = [(name, json.dumps(asdict(sound))) for name, sound in sounds.items()]
        self._insert("INSERT OR REPLACE INTO sound VALUES (?, ?)", rows)

    def hashes(self, states: Mapping[str, str]) -> dict[str, str]:
        """Hashes of files that have not changed since they were hashed, by path.

        Args:
            states: size and date of each file, as one text, by path.
        """
        select = "SELECT path, state, sha256 FROM file WHERE path IN"
        found = self._select(select, list(states))
        return {path: sha256 for path, state, sha256 in found if states[path] == state}

    def put_hashes(self, states: Mapping[str, str], sha256s: Mapping[str, str]) -> None:
        """Keep hashes of files in a state, all or none."""
        rows = [(path, states[path], sha256) for path, sha256 in sha256s.items()]
        self._insert("INSERT OR REPLACE INTO file VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _select(
        self, select: str, names: Sequence[str], first: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, ...]]:
        for part in _parts(dict.fromkeys(names)):
            marks = ",".join("?" * len(part))
            with self._told():
                yield from self._db.execute(f"{select} ({marks})", (*first, *part)).fetchall()

    def _insert(self, insert: str, rows: Sequence[tuple[str, ...]]) -> None:
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(insert, rows)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as one line of ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(f"{self.path}: cannot write the store ({error})") from error
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path}: no store of scores, or a damaged one ({error})"
            ) from error


def _parts(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while part := list(islice(rest, VARIABLES)):
        yield part
