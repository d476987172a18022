"""The queue of rows and the workers that make sounds of them: one thread a device.

A task is one accepted request; its rows wait in one line with everybody's. A worker takes the
first row and those behind it that are made alike, so batches grow exactly when there is a queue
and nobody waits for company. Every task ends once: in sounds, in an error, or cancelled.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from resonate_audio.audio.finish import finish_sound
from resonate_audio.core.errors import Cancelled, ResonateError
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.text import one_line
from resonate_audio.core.types import Audio
from resonate_audio.pipeline.path import Resonate
from resonate_audio.pipeline.request import Batch, RequestWarning
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.errors import ApiError, as_api_error
from resonate_audio.serving.metrics import Metrics
from resonate_audio.serving.sounds.edits import remade
from resonate_audio.serving.sounds.requests import Wanted
from resonate_audio.serving.sounds.rowwise import StillWanted, generate_alone, generate_together
from resonate_audio.serving.sounds.shelf import Catalogue, Loaded, Shelf

log = logging.getLogger("resonate.serve")
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FIRST_GUESS_S = 1.0
"""Time of a row before any was made, for Retry-After."""
MAX_SOURCE_BYTES = 512_000_000
"""Of the sounds that waiting requests want something done with, in memory."""
REMEMBERED = 0.9
"""Weight of the past in the running mean of that time."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    status: Status
    sounds: tuple[Audio, ...] = ()
    is_cut: bool = False
    """The prompt was longer than the model reads."""
    error: ApiError | None = None


@dataclass
class Task:
    """An accepted request."""

    wanted: Wanted
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    on_begin: Callable[[Task], None] | None = None
    """Called once, in the thread of the worker that begins with its first row."""
    on_end: Callable[[Task, Outcome], None] | None = None
    """Called once, in whichever thread ends the task, before ``done`` is set."""
    done: Future[Outcome] = field(default_factory=Future)
    steps: list[int] = field(default_factory=list)
    sounds: dict[int, Audio] = field(default_factory=dict)
    is_cut: bool = False
    is_over: bool = False
    asked_s: float = field(default_factory=time.monotonic)
    begun_s: float | None = None
    """When a worker began with its first row; None while it waits."""

    def __post_init__(self) -> None:
        """Every row starts at step 0; who waits for the end cannot call it off."""
        self.done.set_running_or_notify_cancel()
        self.steps = [0] * self.wanted.num_rows

    @property
    def is_running(self) -> bool:
        """Whether a worker has begun with it."""
        return self.begun_s is not None

    @property
    def step(self) -> int:
        """Steps done, as a mean over the rows."""
        return sum(self.steps) // len(self.steps)

    @property
    def status(self) -> Status:
        """Where it is now."""
        if self.done.done():
            return self.done.result().status
        return "running" if self.is_running else "queued"


@dataclass(frozen=True)
class Row:
    """One sound of a task."""

    task: Task
    index: int

    @property
    def kind(self) -> tuple[str, Sampling, str]:
        """Rows of one kind can be computed together."""
        wanted = self.task.wanted
        alone = f"{self.task.id} {self.index}" if wanted.is_alone else ""
        return wanted.model, wanted.sampling, alone


class Engine:
    """Takes tasks, computes them in batches, ends each once."""

    def __init__(self, catalogue: Catalogue, config: ServeConfig, metrics: Metrics) -> None:
        self._config, self._metrics = config, metrics
        self._shelves = [Shelf(catalogue, device, config) for device in config.devices]
        self._threads: list[threading.Thread] = []
        self._ready = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._tasks: dict[str, Task] = {}
        self._num_rows = 0
        self._stopping = False
        self._row_s = FIRST_GUESS_S
        self._to_load: dict[Shelf, list[str]] = {shelf: [] for shelf in self._shelves}
        self.problem: str | None = None
        """Why a model that was asked for in advance is not in memory."""

    def start(self) -> None:
        """Let the workers begin."""
        self._stopping = False
        for number, shelf in enumerate(self._shelves):
            thread = threading.Thread(target=self._work, args=(shelf,), name=f"worker-{number}")
            self._threads.append(thread)
            thread.start()

    def stop(self) -> list[Task]:
        """Stop within a step; gives the tasks that had not ended; ``on_end`` is not called."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        with self._ready:
            left = [task for task in self._tasks.values() if not task.is_over]
            for task in left:
                task.is_over = True
                del self._tasks[task.id]
                self._num_rows -= task.wanted.num_rows
            self._waiting.clear()
        stopped = Outcome("failed", error=ApiError(503, "the server stopped", code="stopping"))
        for task in left:
            task.done.set_result(stopped)
        return left

    @property
    def queued_rows(self) -> int:
        """Rows that wait or are computed."""
        return self._num_rows

    @property
    def is_alive(self) -> bool:
        """Whether every worker is at work."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    @property
    def loaded(self) -> set[str]:
        """Models in memory."""
        return {name for shelf in self._shelves for name in shelf.names}

    def preload(self, names: Sequence[str]) -> None:
        """Let every worker load models as soon as it has nothing else to do, once each."""
        with self._ready:
            for shelf, wanted in self._to_load.items():
                wanted += [name for name in names if name not in (*shelf.proven, *wanted)]
            self._ready.notify_all()

    def is_ready(self, name: str) -> bool:
        """Whether every worker is there and has had this model in memory."""
        return self.is_alive and all(name in shelf.proven for shelf in self._shelves)

    def submit(self, task: Task, accept_always: bool = False) -> Task:
        """Put a task into the queue.

        Args:
            task: what to make.
            accept_always: also when the queue is full, as for jobs accepted before a restart.

        Raises:
            ApiError: 429, the queue is full; or 503, the server stops.
        """
        with self._ready:
            if not accept_always:
                self._check_room(task)
            self._tasks[task.id] = task
            self._num_rows += task.wanted.num_rows
            self._waiting.extend(Row(task, index) for index in range(task.wanted.num_rows))
            self._ready.notify_all()
        return task

    def _check_room(self, task: Task) -> None:
        if self._stopping:
            raise ApiError(503, "the server is about to stop", code="stopping")
        full = self._num_rows + task.wanted.num_rows > self._config.max_queued_rows
        full |= sum(map(_source_bytes, [*self._tasks.values(), task])) > MAX_SOURCE_BYTES
        if full or len(self._tasks) >= self._config.max_open_jobs:
            wait_s = self._num_rows * self._row_s / len(self._config.devices)
            after = str(min(60, max(1, math.ceil(wait_s))))
            raise ApiError(
                429,
                f"the queue is full ({self._num_rows} sounds in {len(self._tasks)} requests); "
                f"try again in {after} s",
                code="queue_full",
                headers={"Retry-After": after},
            )

    def find(self, id: str) -> Task | None:
        """A task that has not ended."""
        with self._ready:
            return self._tasks.get(id)

    def cancel(self, task: Task) -> None:
        """End a task now; what is computed of it stops after the step."""
        self._end(task, Outcome("cancelled"))

    def _end(self, task: Task, outcome: Outcome) -> None:
        with self._ready:
            if task.is_over:
                return
            task.is_over = True
            self._waiting = deque(row for row in self._waiting if row.task is not task)
        try:
            if task.on_end is not None:
                task.on_end(task, outcome)
        except ResonateError as error:
            outcome = Outcome("failed", error=as_api_error(error))
        except Exception:
            log.exception("the end of %s could not be written", task.id)
            outcome = Outcome("failed", error=ApiError(500, "the result could not be kept"))
        with self._ready:
            self._num_rows -= task.wanted.num_rows
            del self._tasks[task.id]
        self._metrics.count_task(outcome.status)
        _note_end(task, outcome)
        task.done.set_result(outcome)

    def _work(self, shelf: Shelf) -> None:
        while (first := self._take_first(shelf)) is not None:
            if isinstance(first, str):
                self._load(shelf, first)
                continue
            rows = [first]
            try:
                self._begin(rows)
                loaded = shelf.get(first.task.wanted.model)
                rows += self._take_alike(first, loaded.max_rows - 1)
                self._compute(loaded, rows)
            except Cancelled:
                continue
            except ResonateError as error:
                self._fail(rows, as_api_error(error))
            except Exception:
                log.exception("a batch failed")
                self._fail(rows, ApiError(500, "the model failed; the server's log says why"))

    def _load(self, shelf: Shelf, name: str) -> None:
        try:
            shelf.get(name)
            self.problem = None
        except ResonateError as error:
            log.error("model %s does not load: %s", name, one_line(str(error)))
            self.problem = f"model {name} does not load; the server's log says why"
        except Exception:  # the worker goes on: other models may be whole
            log.exception("model %s does not load", name)
            self.problem = f"model {name} does not load; the server's log says why"
        finally:
            with self._ready:
                self._to_load[shelf].remove(name)

    def _take_first(self, shelf: Shelf) -> Row | str | None:
        """The next row, or a model to load, or None at the end."""
        to_load = self._to_load[shelf]
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or to_load or self._stopping)
            if self._stopping:
                return None
            return self._waiting.popleft() if self._waiting else to_load[0]

    def _take_alike(self, first: Row, most: int) -> list[Row]:
        """Rows made like the first, from those that wait now, in their order."""
        with self._ready:
            taken = [row for row in self._waiting if row.kind == first.kind][: max(0, most)]
            chosen = {id(row) for row in taken}
            self._waiting = deque(row for row in self._waiting if id(row) not in chosen)
        return taken

    def _compute(self, loaded: Loaded, rows: Sequence[Row]) -> None:
        start_s = time.monotonic()
        self._begin(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RequestWarning)  # the answers say it
            sounds = _generate(loaded.model, rows, self._follow(rows))
        is_cut = set(loaded.model.cut_prompts([text for row in rows for text in _texts(row)]))
        for row, sound in zip(rows, sounds, strict=True):
            if sound is not None:
                row.task.is_cut |= not is_cut.isdisjoint(_texts(row))
                finish = row.task.wanted.finish
                self._add(row, sound if finish is None else finish_sound(sound, finish))
        self._note(len(rows), time.monotonic() - start_s)

    def _begin(self, rows: Sequence[Row]) -> None:
        """Tell each task that its first row is computed from now on."""
        with self._ready:
            new = {row.task.id: row.task for row in rows if not row.task.is_running}
            for task in new.values():
                task.begun_s = time.monotonic()
        for task in new.values():
            if task.on_begin is not None:
                task.on_begin(task)

    def _follow(self, rows: Sequence[Row]) -> StillWanted:
        def still_wanted(step: int) -> list[bool]:
            for row in rows:
                row.task.steps[row.index] = step
            return [not (row.task.is_over or self._stopping) for row in rows]

        return still_wanted

    def _add(self, row: Row, sound: Audio) -> None:
        task = row.task
        with self._ready:
            task.sounds[row.index] = sound
            if len(task.sounds) < task.wanted.num_rows:
                return
        sounds = tuple(task.sounds[index] for index in range(task.wanted.num_rows))
        self._end(task, Outcome("succeeded", sounds, task.is_cut))

    def _fail(self, rows: Sequence[Row], error: ApiError) -> None:
        for row in rows:
            self._end(row.task, Outcome("failed", error=error))

    def _note(self, num_rows: int, spent_s: float) -> None:
        self._metrics.count_batch(num_rows, spent_s)
        self._row_s = REMEMBERED * self._row_s + (1 - REMEMBERED) * spent_s / num_rows


def _source_bytes(task: Task) -> int:
    source = task.wanted.source
    return 0 if source is None else source.samples.nbytes


def _join(rows: Sequence[Row]) -> Batch:
    parts = [row.task.wanted.batch.part(row.index, row.index + 1) for row in rows]
    return Batch(
        tuple(part.prompts[0] for part in parts),
        tuple(part.negatives[0] for part in parts),
        tuple(part.seeds[0] for part in parts),
    )


def _texts(row: Row) -> set[str]:
    """What the model reads for one row."""
    wanted = row.task.wanted
    parts = wanted.edit.parts if wanted.edit is not None else ()
    prompts = [part.prompt for part in parts] or wanted.batch.prompts
    return {*prompts, *wanted.batch.negatives}


def _generate(
    model: Resonate, rows: Sequence[Row], still_wanted: StillWanted
) -> Sequence[Audio | None]:
    wanted, batch = rows[0].task.wanted, _join(rows)
    if wanted.edit is not None:
        return [remade(model, wanted, batch, lambda step: still_wanted(step)[0])]
    if len(rows) == 1:
        return [generate_alone(model, batch, wanted.sampling, still_wanted)]
    return generate_together(model, batch, wanted.sampling, still_wanted)


def _note_end(task: Task, outcome: Outcome) -> None:
    """Log what was made for whom to wait how long; the prompt stays out."""
    now_s = time.monotonic()
    begun_s = now_s if task.begun_s is None else task.begun_s
    fields = {
        "task": task.id,
        "model": task.wanted.model,
        "seeds": list(task.wanted.batch.seeds),
        "status": outcome.status,
        "queue_s": round(begun_s - task.asked_s, 3),
        "compute_s": round(now_s - begun_s, 3),
    }
    log.info("task %(task)s of %(model)s %(status)s", fields, extra={"fields": fields})
