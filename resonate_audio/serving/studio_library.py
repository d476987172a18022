"""Every sound that a server made, with its settings: WAV files and one SQLite file."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError, OutputError
from resonate_audio.core.types import Audio

COLUMNS = (
    "id",
    "prompt",
    "negative_prompt",
    "model",
    "seed",
    "duration_s",
    "num_inference_steps",
    "guidance_scale",
    "sample_rate_hz",
    "gain",
    "created",
)
_TABLE = """
CREATE TABLE IF NOT EXISTS sounds (
    id TEXT PRIMARY KEY, prompt TEXT NOT NULL, negative_prompt TEXT NOT NULL, model TEXT NOT NULL,
    seed INTEGER NOT NULL, duration_s REAL NOT NULL, num_inference_steps INTEGER NOT NULL,
    guidance_scale REAL NOT NULL, sample_rate_hz INTEGER NOT NULL, gain REAL NOT NULL,
    created REAL NOT NULL
)
"""
_MATCH = (
    "prompt LIKE ? ESCAPE '!' OR negative_prompt LIKE ? ESCAPE '!' OR model LIKE ? ESCAPE '!'"
    " OR CAST(seed AS TEXT) = ?"
)


class Sound(FrozenConfig):
    """One sound in the library."""

    id: str
    prompt: str
    negative_prompt: str
    model: str
    seed: int
    duration_s: float
    num_inference_steps: int
    guidance_scale: float
    sample_rate_hz: int
    gain: float
    created: float
    """Seconds since 1970."""


class Library:
    """The sounds in a folder; a sound is listed once its file is whole."""

    def __init__(self, folder: Path) -> None:
        """Open the library of a folder, made if need be.

        Raises:
            OutputError: it cannot be written.
        """
        self.sounds, self.path = folder / "sounds", folder / "library.sqlite"
        try:
            self.sounds.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot write there ({error.strerror})") from error
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(_TABLE)

    def add(self, audio: Audio) -> Sound:
        """Keep a sound that has a recipe.

        Raises:
            OutputError: the disk is full.
        """
        from resonate_audio.audio.io import write_audio

        recipe = audio.recipe
        assert recipe is not None, "only sounds that were made come here"
        sound = Sound(
            id=secrets.token_hex(8),
            prompt=recipe.prompt,
            negative_prompt=recipe.negative_prompt,
            model=recipe.model,
            seed=recipe.seed,
            duration_s=audio.duration_s,
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
            sample_rate_hz=audio.sample_rate_hz,
            gain=recipe.gain,
            created=time.time(),
        )
        write_audio(self._file(sound.id), audio)
        values = [getattr(sound, name) for name in COLUMNS]
        places = ", ".join("?" * len(COLUMNS))
        with self._open() as database:
            database.execute(f"INSERT INTO sounds VALUES ({places})", values)
        return sound

    def search(self, words: str, limit: int, offset: int) -> tuple[int, list[Sound]]:
        """How many sounds have the words in prompt or model, or that seed; some, newest first."""
        escaped = "".join(f"!{char}" if char in "!%_" else char for char in words.strip())
        match = [f"%{escaped}%"] * 3 + [words.strip()]
        with self._open() as database:
            (total,) = database.execute(
                f"SELECT COUNT(*) FROM sounds WHERE {_MATCH}", match
            ).fetchone()
            rows = database.execute(
                f"SELECT {', '.join(COLUMNS)} FROM sounds WHERE {_MATCH}"
                " ORDER BY created DESC, id LIMIT ? OFFSET ?",
                [*match, limit, offset],
            ).fetchall()
        return total, [Sound(**dict(zip(COLUMNS, row, strict=True))) for row in rows]

    def file(self, id: str) -> Path:
        """The WAV file of a sound.

        Raises:
            InputError: there is no such sound.
        """
        with self._open() as database:
            known = database.execute("SELECT 1 FROM sounds WHERE id = ?", (id,)).fetchone()
        if known is None or not self._file(id).is_file():
            raise InputError("there is no such sound in the library")
        return self._file(id)

    def remove(self, id: str) -> None:
        """Delete a sound and its file.

        Raises:
            InputError: there is no such sound.
        """
        path = self.file(id)
        with self._open() as database:
            database.execute("DELETE FROM sounds WHERE id = ?", (id,))
        path.unlink()

    def _file(self, id: str) -> Path:
        return self.sounds / f"{id}.wav"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self.path, timeout=30)
        except sqlite3.OperationalError as error:
            raise OutputError(f"{self.path}: cannot open it ({error})") from error
        try:
            with database:
                yield database
        finally:
            database.close()
