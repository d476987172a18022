"""Who takes part and what they answered: one SQLite file beside the test.

A rater is known by a token that only the rater has; here lies its hash. Nothing is written of a
rater but a random id, times and answers.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resonate_audio.core.documents.json_text import parse_json
from resonate_audio.core.errors import InputError, ManifestError, OutputError
from resonate_audio.serving.database import DamagedError, private_file, told_errors
from resonate_audio.serving.listening.plan import Trial, plan_trials
from resonate_audio.serving.listening.test import PREFERENCE, BlindClip, ListeningTest

ANSWERS = "answers.sqlite"
CHOICES = {"A": (1.0, 0.0), "B": (0.0, 1.0), "same": (0.5, 0.5)}
"""Scores of both clips of a pair by what was chosen."""
SLACK_S = 0.3
"""Browsers report the end of a sound a little early."""
_TABLES = """
CREATE TABLE IF NOT EXISTS raters (
    id TEXT PRIMARY KEY, token_hash TEXT UNIQUE NOT NULL, trials TEXT NOT NULL, joined REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS heard (
    rater TEXT NOT NULL, trial INTEGER NOT NULL, clip TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (rater, trial, clip)
);
CREATE TABLE IF NOT EXISTS answers (
    rater TEXT NOT NULL, trial INTEGER NOT NULL, clip TEXT NOT NULL, axis TEXT NOT NULL,
    score REAL NOT NULL, ms REAL NOT NULL, is_repeat INTEGER NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (rater, trial, clip, axis)
);
"""


class AnswerError(InputError):
    """An answer, or a request for a page, that is refused; says which field, and how."""

    def __init__(self, status: int, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.status, self.field = status, field


@dataclass(frozen=True)
class Rater:
    """One who takes part."""

    id: str
    trials: tuple[Trial, ...]
    num_done: int


@dataclass(frozen=True)
class Answer:
    """One score as it lies in the file."""

    rater: str
    trial: int
    clip: str
    axis: str
    score: float
    ms: float
    is_repeat: bool


class Answers:
    """The raters and answers of one test."""

    def __init__(self, folder: Path, test: ListeningTest) -> None:
        """Open the file of a test's folder, made if need be.

        Raises:
            OutputError: it cannot be written.
        """
        self.test, self.path = test, folder / ANSWERS
        if self.path.is_symlink():
            raise OutputError(f"{self.path}: is a link; copy the folder with its files")
        with told_errors(self.path):
            private_file(self.path)
        with self._open() as database:
            # No WAL: with one, even reading writes, which a full disk does not take.
            database.execute("PRAGMA journal_mode=DELETE")
            database.executescript(_TABLES)

    def join(self) -> str:
        """Take in a new rater and return the token, which is not kept.

        Raises:
            AnswerError: there are as many raters as the test takes.
        """
        try:
            [token] = self.invite(1)
        except AnswerError as error:
            full = f"this test is full ({self.test.max_raters} raters)"
            raise AnswerError(403, "rater", full) from error
        return token

    def invite(self, count: int) -> list[str]:
        """Take in so many raters, all or none, and return their tokens, which are not kept.

        Raises:
            AnswerError: the test has not so many places left.
        """
        tokens = [secrets.token_urlsafe(24) for _ in range(count)]
        rows = []
        for token in tokens:
            trials = plan_trials(self.test, token)
            written = json.dumps([trial.model_dump() for trial in trials])
            rows.append((f"r-{secrets.token_hex(4)}", _hash(token), written, time.time()))
        most = self.test.max_raters
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")  # nobody joins between counting and writing
            (taken,) = database.execute("SELECT COUNT(*) FROM raters").fetchone()
            if taken + count > most:
                left = f"{max(0, most - taken)} of {most} places are left"
                raise AnswerError(403, "count", f"{count} raters; {left}")
            database.executemany("INSERT INTO raters VALUES (?, ?, ?, ?)", rows)
        return tokens

    def rater(self, token: str) -> Rater:
        """Who a token belongs to.

        Raises:
            AnswerError: nobody's.
        """
        with self._open() as database:
            found = database.execute(
                "SELECT id, trials FROM raters WHERE token_hash = ?", (_hash(token),)
            ).fetchone()
            if found is None:
                raise AnswerError(401, "token", "not one of this test; open the link you were sent")
            id, trials = found
            (done,) = database.execute(
                "SELECT COUNT(DISTINCT trial) FROM answers WHERE rater = ?", (id,)
            ).fetchone()
        return Rater(id, self._trials(trials), done)

    def _trials(self, written: str) -> tuple[Trial, ...]:
        """The pages of a rater, as they were planned for the clips of this test."""
        try:
            trials = tuple(Trial(**trial) for trial in parse_json(written, "trials"))
            known = {clip.id for clip in self.test.clips}
            if {clip for trial in trials for clip in trial.clips} <= known:
                return trials
        except (ManifestError, ValueError, TypeError):
            pass
        raise DamagedError(f"{self.path}: the pages of a rater are none of this test")

    def hear(self, token: str, trial: int, side: int) -> BlindClip:
        """The clip of a page, noting that it was asked for; only of pages reached so far.

        Raises:
            AnswerError: no such page or side, or it comes later.
        """
        rater = self.rater(token)
        if not 0 <= trial < len(rater.trials):
            raise AnswerError(404, "trial", f"{trial}; there are 0 to {len(rater.trials) - 1}")
        if trial > rater.num_done:
            raise AnswerError(403, "trial", f"{trial} comes after {rater.num_done}")
        ids = rater.trials[trial].clips
        if not 0 <= side < len(ids):
            raise AnswerError(404, "side", f"{side}; there are 0 to {len(ids) - 1}")
        with self._open() as database:
            database.execute(
                "INSERT OR IGNORE INTO heard VALUES (?, ?, ?, ?)",
                (rater.id, trial, ids[side], time.time()),
            )
        return self.test.clip(ids[side])

    def submit(
        self, token: str, number: int, scores: Mapping[str, Any], choice: str | None, ms: float
    ) -> None:
        """Take the answers of a page: once, all of them, within the scale, after listening.

        Args:
            token: the rater's.
            number: of the page, from 0; pages are answered in their order.
            scores: by axis, where a clip is rated.
            choice: ``A``, ``B`` or ``same``, where a pair is compared.
            ms: time from the start of playing to the answer.

        Raises:
            AnswerError: names the field.
        """
        rater = self.rater(token)
        trial = _next_trial(rater, number)
        if choice is not None and not self.test.compares:
            raise AnswerError(422, "choice", "this test rates sounds; expected scores alone")
        if scores and self.test.compares:
            raise AnswerError(422, "scores", "this test compares pairs; expected a choice alone")
        self._check_heard(rater, number, trial, ms)
        rows = self._chosen(trial, choice) if self.test.compares else self._scored(trial, scores)
        now = time.time()
        try:
            with self._open() as database:
                database.executemany(
                    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [(rater.id, number, *row, ms, trial.is_repeat, now) for row in rows],
                )
        except sqlite3.IntegrityError as error:
            raise AnswerError(409, "trial", f"{number} is answered already") from error

    def all(self) -> list[Answer]:
        """Every answer, in the order in which they came."""
        with self._open() as database:
            rows = database.execute(
                "SELECT rater, trial, clip, axis, score, ms, is_repeat FROM answers"
                " ORDER BY at, rater, trial, axis, clip"
            ).fetchall()
        return [
            Answer(rater, trial, clip, axis, score, ms, bool(is_repeat))
            for rater, trial, clip, axis, score, ms, is_repeat in rows
        ]

    def progress(self) -> dict[str, tuple[int, int]]:
        """Pages done and in all, by rater."""
        with self._open() as database:
            rows = database.execute(
                "SELECT id, trials, (SELECT COUNT(DISTINCT trial) FROM answers WHERE rater = id)"
                " FROM raters ORDER BY joined"
            ).fetchall()
        return {id: (done, len(parse_json(trials, "trials"))) for id, trials, done in rows}

    def _check_heard(self, rater: Rater, number: int, trial: Trial, ms: float) -> None:
        if not math.isfinite(ms) or ms < 0:
            raise AnswerError(422, "ms", f"{ms}; expected milliseconds from 0 up")
        with self._open() as database:
            rows = database.execute(
                "SELECT clip, at FROM heard WHERE rater = ? AND trial = ?", (rater.id, number)
            ).fetchall()
        begun = dict(rows)
        lengths = [self.test.clip(id).seconds for id in trial.clips]
        since = time.time() - min((begun.get(id, math.inf) for id in trial.clips), default=math.inf)
        if set(begun) < set(trial.clips) or min(since, ms / 1000) < sum(lengths) - SLACK_S:
            raise AnswerError(
                422, "ms", f"{ms:.0f}; listen to the end ({sum(lengths):.1f} s) before you answer"
            )

    def _scored(self, trial: Trial, scores: Mapping[str, Any]) -> list[tuple[str, str, float]]:
        unknown = sorted(set(scores) - set(trial.axes))
        if unknown:
            raise AnswerError(422, f"scores.{unknown[0]}", f"expected {', '.join(trial.axes)}")
        rows = []
        for axis in self.test.axes:
            if axis.name not in trial.axes:
                continue
            score = scores.get(axis.name)
            whole = isinstance(score, int) and not isinstance(score, bool)
            if not whole or not axis.low <= score <= axis.high:  # type: ignore[operator]
                expected = f"expected a whole number from {axis.low} to {axis.high}"
                raise AnswerError(422, f"scores.{axis.name}", f"{score!r}; {expected}"[:200])
            rows.append((trial.clips[0], axis.name, float(score)))  # type: ignore[arg-type]
        return rows

    def _chosen(self, trial: Trial, choice: str | None) -> list[tuple[str, str, float]]:
        if choice not in CHOICES:
            raise AnswerError(422, "choice", f"{choice!r}; expected A, B or same"[:200])
        return [
            (clip, PREFERENCE, score)
            for clip, score in zip(trial.clips, CHOICES[choice], strict=True)
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use: requests come in many threads.

        Raises:
            DiskFullError: there is no room left.
            OutputError: it cannot be used.
        """
        with told_errors(self.path):
            database = sqlite3.connect(self.path, timeout=30)
            try:
                with database:
                    yield database
            finally:
                database.close()


def _next_trial(rater: Rater, number: int) -> Trial:
    if not 0 <= number < len(rater.trials):
        raise AnswerError(422, "trial", f"{number}; there are 0 to {len(rater.trials) - 1}")
    if number < rater.num_done:
        raise AnswerError(409, "trial", f"{number} is answered already")
    if number > rater.num_done:
        raise AnswerError(409, "trial", f"{number} comes after {rater.num_done}")
    return rater.trials[number]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
