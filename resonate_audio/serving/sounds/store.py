"""Jobs and made sounds in one SQLite file, which a killed process leaves whole."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resonate_audio.core.errors import OutputError
from resonate_audio.core.sampling import SolverSettings
from resonate_audio.serving.sounds.requests import JobRequest

FILE_NAME = "resonate.sqlite"
FORMAT_VERSION = 1
MAX_WORDS = 10
"""Words of a search that count."""
TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, request TEXT NOT NULL, status TEXT NOT NULL, error TEXT,
    created REAL NOT NULL, ended REAL, num_starts INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS sounds (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL,
    created REAL NOT NULL, facts TEXT NOT NULL, words TEXT NOT NULL, wav BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS sounds_of_job ON sounds (job);
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (ended);
"""


class Sound(SolverSettings):
    """One sound and the settings that made it."""

    id: str
    job: str
    created: float
    prompt: str
    negative_prompt: str
    model: str
    duration_s: float
    seed: int
    sample_rate: int
    peak: float
    prompt_cut: bool = False

    @property
    def words(self) -> str:
        """What a search looks through."""
        said = (self.prompt, self.negative_prompt, self.model, f"seed {self.seed}")
        return "\n".join(said).casefold()


@dataclass(frozen=True)
class StoredJob:
    """What is known of a job."""

    id: str
    request: JobRequest
    status: str
    error: str | None
    created: float
    ended: float | None
    num_starts: int


class Store:
    """The file; every change is one transaction that is on the disk when the call returns."""

    def __init__(self, home: Path) -> None:
        """Open or make the file.

        Raises:
            OutputError: it cannot be opened, or a later version wrote it.
        """
        path = home / FILE_NAME
        self._lock = threading.RLock()
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            (version,) = self._base.execute("PRAGMA user_version").fetchone()
            if version in (0, FORMAT_VERSION):
                self._base.executescript(TABLES)
                self._base.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{path}: cannot be opened ({error}); try another --home") from error
        if version not in (0, FORMAT_VERSION):
            raise OutputError(f"{path}: format {version}; this version reads {FORMAT_VERSION}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._base.execute(query, values).fetchall()

    def add_job(self, id: str, request: JobRequest) -> None:
        """Keep an accepted job."""
        values = (id, request.model_dump_json(), time.time())
        with self._change() as base:
            base.execute(
                "INSERT INTO jobs (id, request, status, created) VALUES (?, ?, 'queued', ?)", values
            )

    def remove_job(self, id: str) -> None:
        """Forget a job that was refused after all."""
        with self._change() as base:
            base.execute("DELETE FROM jobs WHERE id = ?", (id,))

    def start_jobs(self) -> list[StoredJob]:
        """The jobs that have not ended, oldest first; counts that they were begun (again)."""
        with self._change() as base:
            base.execute("UPDATE jobs SET num_starts = num_starts + 1 WHERE ended IS NULL")
        return self._jobs("ended IS NULL ORDER BY created, rowid", ())

    def find_job(self, id: str) -> StoredJob | None:
        """A job, unless it is unknown or too old."""
        return next(iter(self._jobs("id = ?", (id,))), None)

    def _jobs(self, where: str, values: Sequence[Any]) -> list[StoredJob]:
        found = self._rows(
            "SELECT id, request, status, error, created, ended, num_starts FROM jobs "
            f"WHERE {where}",
            values,
        )
        return [
            StoredJob(row[0], JobRequest.model_validate_json(row[1]), *row[2:]) for row in found
        ]

    def end_job(
        self, id: str, status: str, error: str | None, made: Sequence[tuple[Sound, bytes]]
    ) -> None:
        """Write down how a job ended, with its sounds, all or nothing; the first end counts."""
        with self._change() as base:
            changed = base.execute(
                "UPDATE jobs SET status = ?, error = ?, ended = ? WHERE id = ? AND ended IS NULL",
                (status, error, time.time(), id),
            ).rowcount
            if changed:
                base.executemany(
                    "INSERT INTO sounds (id, job, created, facts, words, wav) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (one.id, id, one.created, one.model_dump_json(), one.words, wav)
                        for one, wav in made
                    ],
                )

    def sounds_of(self, job: str) -> list[Sound]:
        """The sounds of a job that are still kept, in their order."""
        found = self._rows("SELECT facts FROM sounds WHERE job = ? ORDER BY number", (job,))
        return [Sound.model_validate_json(facts) for (facts,) in found]

    def search(self, text: str, limit: int, offset: int) -> tuple[list[Sound], int]:
        """Sounds that have every word of a text, the newest first; and how many there are."""
        words = text.casefold().split()[:MAX_WORDS]
        where = " AND ".join(["instr(words, ?)"] * len(words)) or "1"
        ((total,),) = self._rows(f"SELECT count(*) FROM sounds WHERE {where}", words)
        found = self._rows(
            f"SELECT facts FROM sounds WHERE {where} ORDER BY number DESC LIMIT ? OFFSET ?",
            [*words, limit, offset],
        )
        return [Sound.model_validate_json(facts) for (facts,) in found], total

    def read_wav(self, id: str) -> bytes | None:
        """The WAV file of a sound."""
        found = self._rows("SELECT wav FROM sounds WHERE id = ?", (id,))
        return bytes(found[0][0]) if found else None

    def delete_sound(self, id: str) -> bool:
        """Delete a sound; False when there is none."""
        with self._change() as base:
            return base.execute("DELETE FROM sounds WHERE id = ?", (id,)).rowcount > 0

    def tidy(self, keep_jobs_s: float, max_sounds: int) -> None:
        """Forget old jobs, and the oldest sounds beyond ``max_sounds``."""
        with self._change() as base:
            base.execute("DELETE FROM jobs WHERE ended < ?", (time.time() - keep_jobs_s,))
            base.execute(
                "DELETE FROM sounds WHERE number <= "
                "(SELECT number FROM sounds ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (max_sounds,),
            )


def new_id() -> str:
    """A name that nobody guesses."""
    return uuid.uuid4().hex
