"""Jobs and made sounds in one SQLite file, which a killed process leaves whole.

When the disk is full nothing new is taken in, but what is there can be deleted: some room is set
aside for that (`serving/database.py`), and the room of what was deleted goes back to the disk.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, model_validator

from resonate_audio.core.errors import DiskFullError, OutputError
from resonate_audio.core.sampling import SolverName, SolverSettings
from resonate_audio.serving.database import Ballast, private_file, private_folder, told_errors
from resonate_audio.serving.sounds.requests import FinishSettings, JobRequest

log = logging.getLogger("resonate.serve")

FILE_NAME = "resonate.sqlite"
FORMAT_VERSION = 1
BALLAST_NAME = "resonate.sqlite-room"
SHORT_BYTES = 100_000_000
"""With less room than this on the disk, the room of what is deleted goes back to it at once."""
WAL_PAGES = 64
"""Pages in the journal before they move into the file: until then they take room twice."""
WAL_BYTES = 2 * WAL_PAGES * 4096
"""Room for all that and the file."""
STEP_PAGES = 8
"""Pages that are moved together then, so that little room is needed to make room."""
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

INSERT_SOUND = "INSERT INTO sounds (id, job, created, facts, words, wav) VALUES (?, ?, ?, ?, ?, ?)"
FAVOURITE = '"favourite":true'
"""In the facts of a sound; within a text the quotes would be escaped."""
JOBS_WHERE = "SELECT id, request, status, error, created, ended, num_starts FROM jobs WHERE"


class Sound(BaseModel):
    """One sound, the settings that made it, and what people noted about it.

    The settings are those of `SolverSettings`, by its names; None where no model made the sound.
    """

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    solver: SolverName | None = None
    guidance_low: float | None = None
    guidance_high: float | None = None
    time_shift: float | None = None
    audio_length: float | None = None
    """Seconds that were made, of which a finish may leave less; None if that was not kept."""
    finish: FinishSettings | None = None
    """What was done to it in the end."""
    id: str
    job: str
    """Empty where no job made it."""
    created: float
    prompt: str
    negative_prompt: str
    model: str
    """Empty where none made it."""
    duration_s: float
    seed: int | None
    sample_rate: int
    peak: float
    prompt_cut: bool = False
    made: str = "generate"
    """``generate``, an edit's kind, ``finish`` or ``upload``."""
    source: str | None = None
    """Id of the sound that it was made from."""
    loudness_lufs: float | None = None
    silent_tail_s: float | None = None
    """What trimming would take off its end."""
    name: str = ""
    tags: tuple[str, ...] = ()
    favourite: bool = False

    @model_validator(mode="before")
    @classmethod
    def _complete_settings(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read what earlier versions kept: some settings of what was made, and some of uploads."""
        made = bool(values.get("model"))
        settings = {
            name: values.get(name, field.default) if made else None
            for name, field in SolverSettings.model_fields.items()
        }
        return values | settings

    @property
    def words(self) -> str:
        """What a search looks through."""
        tags = " ".join(f"#{tag}" for tag in self.tags)
        seed = "" if self.seed is None else f"seed {self.seed}"
        said = (self.prompt, self.negative_prompt, self.model, seed, self.name, tags)
        return "\n".join(said).casefold()


@dataclass(frozen=True)
class StoredJob:
    """What is known of a job."""

    id: str
    request: JobRequest | None
    """None if it cannot be read."""
    status: str
    error: str | None
    created: float
    ended: float | None
    num_starts: int
    """How often a worker began with it and neither ended it nor was stopped in order."""


ModelT = TypeVar("ModelT", bound=BaseModel)


class Store:
    """The file; every change is one transaction that is on the disk when the call returns."""

    def __init__(self, home: Path) -> None:
        """Open or make the file.

        Raises:
            OutputError: it cannot be opened, is damaged, or a later version wrote it.
        """
        self._path, self._lock = home / FILE_NAME, threading.RLock()
        self._ballast = Ballast(home / BALLAST_NAME)
        with told_errors(home):
            private_folder(home)
        try:
            self._base = self._open()
        except DiskFullError:
            if not self._ballast.drop():
                raise
            self._base = self._open()
        self._ballast.fill()

    def _open(self) -> sqlite3.Connection:
        with told_errors(self._path):
            private_file(self._path)
            base = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            try:
                (version,) = base.execute("PRAGMA user_version").fetchone()
                if version not in (0, FORMAT_VERSION):
                    raise OutputError(
                        f"{self._path}: format {version}; this version reads {FORMAT_VERSION}; "
                        "try another --home"
                    )
                if version == 0:
                    base.execute("PRAGMA auto_vacuum = INCREMENTAL")
                base.execute("PRAGMA journal_mode = WAL")
                base.execute("PRAGMA synchronous = FULL")
                # Debian's SQLite overwrites what is deleted, which takes as much room as it frees.
                base.execute("PRAGMA secure_delete = FAST").fetchall()
                base.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}").fetchall()
                base.execute("PRAGMA journal_size_limit = 0").fetchall()
                base.executescript(TABLES)
                if version == 0:
                    base.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
                base.execute(JOBS_WHERE + " 0").fetchall()
                base.execute("SELECT facts, words, wav FROM sounds LIMIT 1").fetchall()
            except BaseException:
                base.close()
                raise
        return base

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction.

        Raises:
            DiskFullError: there is no room for it; nothing was changed.
            OutputError: it cannot be written.
        """
        with self._lock, told_errors(self._path):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    def _check_room(self, num_bytes: int) -> None:
        """Refuse what would fill the disk: a journal that cannot move into the file stays there.

        Raises:
            DiskFullError: the file and its journal would not both fit.
        """
        if shutil.disk_usage(self._path.parent).free < 2 * num_bytes + WAL_BYTES:
            raise DiskFullError(f"{self._path}: the disk is full; nothing was written")

    def _execute(self, statement: str, values: Sequence[Any]) -> int:
        """A small change that has to work on a full disk, too; gives the number of rows."""
        for _ in range(2):
            try:
                with self._change() as base:
                    return base.execute(statement, values).rowcount
            except DiskFullError:
                if not self._ballast.drop():
                    raise
        raise DiskFullError(f"{self._path}: the disk is full; nothing was written")

    def _give_back(self) -> None:
        """Give the room of what was deleted back to a disk that is short of it."""
        if shutil.disk_usage(self._path.parent).free > SHORT_BYTES:
            return
        with self._lock, suppress(sqlite3.Error):  # it is no less deleted
            left = self._free_pages()
            while left:
                self._base.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})").fetchall()
                self._checkpoint()
                before, left = left, self._free_pages()
                if left >= before:  # a file of an earlier version keeps its size
                    break
        self._ballast.fill()

    def _checkpoint(self) -> None:
        """Move what was written from the journal into the file, if there is room for it there."""
        with self._lock, suppress(sqlite3.Error):
            self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _free_pages(self) -> int:
        (count,) = self._base.execute("PRAGMA freelist_count").fetchone()
        return int(count)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, told_errors(self._path):
            return self._base.execute(query, values).fetchall()

    def _read(self, cls: type[ModelT], text: Any) -> ModelT | None:
        """What one field holds; None, and a line in the log, if that cannot be read."""
        try:
            return cls.model_validate_json(text)
        except (ValidationError, ValueError, TypeError):
            log.warning("a %s in the database cannot be read; it is left out", cls.__name__)
            return None

    def _sounds(self, rows: Sequence[Any]) -> list[Sound]:
        found = (self._read(Sound, facts) for (facts,) in rows)
        return [sound for sound in found if sound is not None]

    def add_job(self, id: str, request: JobRequest) -> None:
        """Keep an accepted job."""
        values = (id, request.model_dump_json(), time.time())
        with self._change() as base:
            base.execute(
                "INSERT INTO jobs (id, request, status, created) VALUES (?, ?, 'queued', ?)", values
            )

    def remove_job(self, id: str) -> None:
        """Forget a job that was refused after all."""
        self._execute("DELETE FROM jobs WHERE id = ?", (id,))

    def open_jobs(self) -> list[StoredJob]:
        """The jobs that have not ended, oldest first."""
        return self._jobs("ended IS NULL ORDER BY created, rowid", ())

    def count_start(self, id: str) -> None:
        """A worker begins with a job; on the disk before it does, since it may end the process."""
        self._execute("UPDATE jobs SET num_starts = num_starts + 1 WHERE id = ?", (id,))

    def forget_start(self, id: str) -> None:
        """The worker was stopped in order: that says nothing about the job."""
        self._execute(
            "UPDATE jobs SET num_starts = num_starts - 1 WHERE id = ? AND num_starts > 0", (id,)
        )

    def find_job(self, id: str) -> StoredJob | None:
        """A job, unless it is unknown or too old."""
        return next(iter(self._jobs("id = ?", (id,))), None)

    def _jobs(self, where: str, values: Sequence[Any]) -> list[StoredJob]:
        rows = self._rows(f"{JOBS_WHERE} {where}", values)
        return [StoredJob(row[0], self._read(JobRequest, row[1]), *row[2:]) for row in rows]

    def end_job(
        self, id: str, status: str, error: str | None, made: Sequence[tuple[Sound, bytes]]
    ) -> None:
        """Write down how a job ended, with its sounds, all or nothing; the first end counts."""
        statement = (
            "UPDATE jobs SET status = ?, error = ?, ended = ? WHERE id = ? AND ended IS NULL"
        )
        values = (status, error, time.time(), id)
        if not made:
            self._execute(statement, values)
            return
        self._check_room(sum(len(wav) for _, wav in made))
        with self._change() as base:
            changed = base.execute(statement, values).rowcount
            if changed:
                base.executemany(INSERT_SOUND, [_sound_row(one, wav) for one, wav in made])

    def add_sound(self, sound: Sound, data: bytes) -> None:
        """Keep a sound that no job made; its file may be of any format."""
        self._check_room(len(data))
        with self._change() as base:
            base.execute(INSERT_SOUND, _sound_row(sound, data))

    def find_sound(self, id: str) -> Sound | None:
        """A sound, unless there is none or it cannot be read."""
        found = self._rows("SELECT facts FROM sounds WHERE id = ?", (id,))
        return next(iter(self._sounds(found)), None)

    def change_sound(self, id: str, changes: Mapping[str, Any]) -> Sound | None:
        """Write down what people noted about a sound; None when there is none."""
        with self._lock:
            sound = self.find_sound(id)
            if sound is None:
                return None
            changed = Sound.model_validate(sound.model_dump() | dict(changes))
            self._execute(
                "UPDATE sounds SET facts = ?, words = ? WHERE id = ?",
                (changed.model_dump_json(), changed.words, id),
            )
        return changed

    def sounds_of(self, job: str) -> list[Sound]:
        """The sounds of a job that are still kept, in their order."""
        found = self._rows("SELECT facts FROM sounds WHERE job = ? ORDER BY number", (job,))
        return self._sounds(found)

    def search(
        self, text: str, limit: int, offset: int, favourite: bool = False
    ) -> tuple[list[Sound], int]:
        """Sounds that have every word of a text, the newest first; and how many there are."""
        words = text.casefold().split()
        where = " AND ".join(["instr(words, ?)"] * len(words)) or "1"
        if favourite:
            where += f" AND instr(facts, '{FAVOURITE}')"
        ((total,),) = self._rows(f"SELECT count(*) FROM sounds WHERE {where}", words)
        found = self._rows(
            f"SELECT facts FROM sounds WHERE {where} ORDER BY number DESC LIMIT ? OFFSET ?",
            [*words, limit, offset],
        )
        return self._sounds(found), total

    def read_sound(self, id: str) -> bytes | None:
        """The file of a sound: WAV, or what was sent."""
        found = self._rows("SELECT wav FROM sounds WHERE id = ?", (id,))
        return bytes(found[0][0]) if found else None

    def delete_sound(self, id: str) -> bool:
        """Delete a sound, on a full disk, too; False when there is none."""
        is_gone = self._execute("DELETE FROM sounds WHERE id = ?", (id,)) > 0
        self._give_back()
        return is_gone

    def tidy(self, keep_jobs_s: float, max_sounds: int) -> None:
        """Forget old jobs, and the oldest sounds beyond ``max_sounds``."""
        gone = self._execute("DELETE FROM jobs WHERE ended < ?", (time.time() - keep_jobs_s,))
        gone += self._execute(
            "DELETE FROM sounds WHERE number <= "
            "(SELECT number FROM sounds ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (max_sounds,),
        )
        if gone:
            self._give_back()


def _sound_row(sound: Sound, data: bytes) -> tuple[Any, ...]:
    return sound.id, sound.job, sound.created, sound.model_dump_json(), sound.words, data


def new_id() -> str:
    """A name that nobody guesses."""
    return uuid.uuid4().hex
