"""Everything behind the routes: catalogue, engine, store, and how jobs outlive the process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal

from fastapi import Request
from pydantic import BaseModel

from resonate_audio.audio.finish import finish_sound
from resonate_audio.core.edit import Finish
from resonate_audio.core.errors import AudioError, InputError, OutputError, ResonateError
from resonate_audio.core.files import alone_in
from resonate_audio.core.types import Audio
from resonate_audio.pipeline.edit import check_source
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.errors import UNREADABLE, ApiError
from resonate_audio.serving.metrics import Metrics
from resonate_audio.serving.sounds.engine import Engine, Outcome, Status, Task
from resonate_audio.serving.sounds.requests import (
    MAX_PROMPT,
    FinishSettings,
    JobRequest,
    Wanted,
)
from resonate_audio.serving.sounds.sending import encode, heard_facts, to_library, told_finish
from resonate_audio.serving.sounds.shelf import Catalogue
from resonate_audio.serving.sounds.store import FILE_NAME, Sound, Store, StoredJob, new_id
from resonate_audio.serving.uploads import decode_upload

log = logging.getLogger("resonate.serve")
MAX_STARTS = 3
"""A job that was begun so often and never ended may be what ends the process."""
SHORTEST_S = 0.01
"""Of a sound that is sent; what a model makes of it has limits of its own."""
TIDY_EVERY_S = 600.0
LOOK_S = 0.2
"""How often a waiting request looks whether its client is still there."""


class JobError(BaseModel):
    """Why a job failed."""

    message: str


class JobView(BaseModel):
    """A job as clients see it."""

    id: str
    object: Literal["job"] = "job"
    status: Status
    step: int
    total_steps: int
    model: str | None
    n: int
    created: float
    ended: float | None
    sounds: list[Sound]
    error: JobError | None


class Service:
    """What one server is made of."""

    def __init__(self, config: ServeConfig) -> None:
        """Find the models; nothing is loaded or written yet.

        Raises:
            ResonateError: a model is not there, broken or too large.
        """
        self.config = config
        self.metrics = Metrics()
        self.catalogue = Catalogue(config)
        self.engine = Engine(self.catalogue, config, self.metrics)
        self._store: Store | None = None
        self._home = ExitStack()
        self._stopped = threading.Event()

    @property
    def store(self) -> Store:
        """The file of jobs and sounds; it is open while the server runs."""
        assert self._store is not None, "the service has not started"
        return self._store

    def open(self) -> None:
        """Open the file, unless it is open; before a server says that it listens.

        Raises:
            OutputError: the file cannot be opened, or is damaged; or another server has this home.
        """
        if self._store is None:
            with ExitStack() as home:
                home.enter_context(alone_in(self.config.home, f"{FILE_NAME}-lock"))
                store = Store(self.config.home)
                store.open_jobs()
                self._store, self._home = store, home.pop_all()

    def start(self) -> None:
        """Open the file, take up the jobs that were left, and let the workers begin.

        Raises:
            OutputError: the file cannot be opened.
        """
        self.open()
        self._stopped.clear()
        for job in self.store.open_jobs():
            self._take_up(job)
        if self.config.preload:
            self.engine.preload(self.catalogue.fitting())
        self.engine.start()
        threading.Thread(target=self._tidy, args=(self.store,), name="tidy", daemon=True).start()

    def stop(self) -> None:
        """Stop within a step; jobs that have not ended wait in the file for the next start."""
        self._stopped.set()
        waiting = [task for task in self.engine.stop() if task.on_end is not None]
        if waiting:
            log.warning("%d jobs have not ended; the next start takes them up", len(waiting))
        for task in waiting:
            if task.is_running:
                self._note(self.store.forget_start, task)
        self.store.close()
        self._store = None
        self._home.close()

    def _note(self, write: Callable[[str], None], task: Task) -> None:
        """Write down that a job was begun, or was not; a full disk does not stop it."""
        try:
            write(task.id)
        except ResonateError as error:
            log.warning("job %s: %s", task.id, error)

    def _begun(self, task: Task) -> None:
        self._note(self.store.count_start, task)

    def _take_up(self, job: StoredJob) -> None:
        try:
            if job.request is None:
                raise ApiError(409, "what was asked for cannot be read any more")
            if job.num_starts >= MAX_STARTS:
                raise ApiError(500, f"it was begun {MAX_STARTS} times and never ended")
            wanted = self.wanted(job.request)
            task = Task(wanted, job.id, on_begin=self._begun, on_end=self._keep)
            self.engine.submit(task, accept_always=True)
        except ResonateError as error:
            log.warning("job %s failed: %s", job.id, error)
            self._end(job.id, str(error))

    def _end(self, id: str, message: str) -> None:
        try:
            self.store.end_job(id, "failed", message, [])
        except OutputError as error:  # the next start tries again
            log.warning("job %s: %s", id, error)

    def _tidy(self, store: Store) -> None:
        while True:
            try:
                store.tidy(self.config.keep_jobs_s, self.config.max_sounds)
            except OutputError as error:
                log.warning("old sounds stay: %s", error)
            if self._stopped.wait(TIDY_EVERY_S):
                return

    def wanted(self, request: JobRequest) -> Wanted:
        """Check a request, together with the sound of the library that it is about.

        Raises:
            ApiError: a value is wrong, or the sound is not there.
        """
        if request.edit is None:
            return self.catalogue.check(request)
        source = self.open_sound(request.edit.source, "edit.source")
        return self.catalogue.check(request, source=source)

    def open_sound(self, id: str, field: str) -> Audio:
        """A sound of the library, decoded.

        Raises:
            ApiError: 404, there is none; names ``field``.
        """
        data = self.store.read_sound(id)
        if data is None:
            raise ApiError(404, f"{field}: there is no such sound in the library", field)
        return self.decode(data, field)

    def take_in(self, name: str, data: bytes) -> Sound:
        """Keep a sound that was sent, as it came.

        Raises:
            ApiError: it is no sound, or one that nothing can be done with.
        """
        audio = self.decode(data, "audio")
        sound = Sound(
            id=new_id(),
            job="",
            created=time.time(),
            prompt="" if audio.recipe is None else audio.recipe.prompt[:MAX_PROMPT],
            negative_prompt="",
            model="",
            seed=None,
            made="upload",
            name=name,
            **heard_facts(audio),
        )
        self.store.add_sound(sound, data)
        return sound

    def decode(self, data: bytes, field: str) -> Audio:
        """A sound that was sent.

        Raises:
            ApiError: it is no sound, or one that nothing can be done with; names ``field``.
        """
        longest_s = self.catalogue.longest_s
        try:
            audio = decode_upload(data, field, longest_s)
        except AudioError as error:
            raise ApiError(422, str(error), field) from error
        try:
            check_source(audio, "it", SHORTEST_S, longest_s)
        except InputError as error:
            raise ApiError(422, f"{field}: {error}", field) from error
        return audio

    def finish(self, id: str, wanted: Finish) -> Sound:
        """Finish a sound of the library; what comes of it lies beside it.

        Raises:
            ApiError: there is no such sound.
        """
        before = self.store.find_sound(id)
        if before is None:
            raise ApiError(404, "id: there is no such sound", "id")
        audio = finish_sound(self.open_sound(id, "id"), wanted)
        after = before.model_copy(
            update={
                "id": new_id(),
                "job": "",
                "created": time.time(),
                "made": "finish",
                "source": id,
                "favourite": False,
                "finish": told_finish(wanted if audio.recipe is None else audio.recipe.finish),
                **heard_facts(audio),
            }
        )
        self.store.add_sound(after, encode(audio, "wav")[0])
        return after

    def add_job(self, request: JobRequest) -> JobView:
        """Accept a job: it is on the disk before this returns, with the seeds it will have.

        Raises:
            ApiError: its values are wrong, or the queue is full.
        """
        wanted = self.wanted(request)
        kept = request.model_copy(
            update={"seeds": list(wanted.batch.seeds), "seed": None, "n": wanted.num_rows}
        )
        kept.model = wanted.model
        if kept.edit is None and kept.parts is None:
            kept.audio_length = wanted.sampling.duration_s
        for name, value in wanted.sampling.solver_settings().items():
            setattr(kept, name, value)
        task = Task(wanted, on_begin=self._begun, on_end=self._keep)
        self.store.add_job(task.id, kept)
        try:
            self.engine.submit(task)
        except ApiError:
            self.store.remove_job(task.id)
            raise
        return self.view(task.id)

    def _keep(self, task: Task, outcome: Outcome) -> None:
        message = None if outcome.error is None else str(outcome.error)
        made = to_library(task, outcome, self._name_of(task.wanted))
        self.store.end_job(task.id, outcome.status, message, made)

    def _name_of(self, wanted: Wanted) -> str:
        """What is made without words is called as the sound that it was made from."""
        if wanted.source_id is None or wanted.batch.prompts[0]:
            return ""
        source = self.store.find_sound(wanted.source_id)
        return "" if source is None else source.name

    def view(self, id: str) -> JobView:
        """A job as it is now.

        Raises:
            ApiError: 404, unknown or too old.
        """
        task = self.engine.find(id)
        job = self.store.find_job(id)
        if job is None:
            hours = self.config.keep_jobs_s / 3600
            raise ApiError(
                404, f"id: there is no such job; ended ones are kept for {hours:g} hours", "id"
            )
        if job.request is None:
            raise ApiError(409, f"id: {UNREADABLE}", "id", "unreadable")
        total = job.request.num_inference_steps or 0
        status, step, error = job.status, total if job.status == "succeeded" else 0, job.error
        if job.ended is None and task is not None:
            status, step = task.status, task.step
        elif job.ended is None:
            status, error = "failed", "its end could not be written; the next start makes it again"
        return JobView.model_validate(
            {
                "id": id,
                "status": status,
                "step": step,
                "total_steps": total,
                "model": job.request.model,
                "n": job.request.num_sounds,
                "created": job.created,
                "ended": job.ended,
                "sounds": self.store.sounds_of(id) if status == "succeeded" else [],
                "error": None if error is None else {"message": error},
            }
        )

    def cancel_job(self, id: str) -> JobView:
        """End a job now; one that has ended stays as it is.

        Raises:
            ApiError: 404, unknown or too old.
        """
        task = self.engine.find(id)
        if task is not None:
            self.engine.cancel(task)
            task.done.result(timeout=60)
        return self.view(id)

    async def make(self, request: Request, task: Task) -> Outcome:
        """Wait for the sounds of a request, as long as its client does and the deadline allows.

        Raises:
            ApiError: the queue is full, the time is over, or a sound could not be made.
        """
        self.engine.submit(task)
        done = asyncio.wrap_future(task.done)
        until_s = asyncio.get_running_loop().time() + self.config.deadline_s
        try:
            while not done.done():
                left_s = until_s - asyncio.get_running_loop().time()
                if left_s <= 0:
                    raise ApiError(
                        408,
                        f"not made within {self.config.deadline_s:g} s; POST /v1/jobs has no such "
                        "limit",
                        code="deadline_exceeded",
                    )
                await asyncio.wait([done], timeout=min(LOOK_S, left_s))
                if not done.done() and await request.is_disconnected():
                    raise ApiError(408, "the client went away")
        finally:
            self.engine.cancel(task)
        outcome = done.result()
        if outcome.error is not None:
            raise outcome.error
        return outcome


def wanted_finish(settings: FinishSettings, longest_s: float) -> Finish:
    """What is to be done to a sound.

    Raises:
        ApiError: nothing, or it would be longer than the server makes.
    """
    if (settings.length_s or 0) > longest_s:
        message = f"length_s: {settings.length_s:g} s; {longest_s:g} s at most"
        raise ApiError(422, message, "length_s")
    if settings.finish is None:
        names = ", ".join(FinishSettings.model_fields)
        raise ApiError(422, f"body: nothing to do; give one of {names}", "body")
    return settings.finish
