"""Work that the studio asks for: one job after the other, with steps to watch and a way to stop."""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import Cancelled, InputError, ResonateError
from resonate_audio.core.noise import MAX_SEED
from resonate_audio.serving.studio_library import Library, Sound

if TYPE_CHECKING:
    from resonate_audio.model.presets import ModelConfig
    from resonate_audio.pipeline import Resonate

MAX_WAITING, MAX_FINISHED = 32, 200
"""Jobs in the queue, and finished ones that can still be asked for."""
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Wanted(FrozenConfig):
    """What is to be made: one sound a seed."""

    input: str = Field(min_length=1, max_length=2000)
    """The prompt."""
    negative_prompt: str = Field("", max_length=2000)
    model: str = "nano"
    audio_length: float | None = Field(None, gt=0)
    """Seconds; the model's default if None."""
    num_inference_steps: int = Field(25, ge=1, le=200)
    guidance_scale: float = Field(4.5, ge=0, le=50)
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=16)


class QueueFull(ResonateError):
    """There is more work waiting than is taken in."""


@dataclass
class Job:
    """One piece of work and how far it is."""

    id: str
    wanted: Wanted
    state: State = "queued"
    step: int = 0
    total_steps: int = 0
    error: str = ""
    sounds: list[Sound] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("succeeded", "failed", "cancelled")


class Studio:
    """Models by name, a queue, and one thread that works it off."""

    def __init__(self, models: Sequence[str], library: Library, device: str | None = None) -> None:
        """Find the models; each is loaded when it is first used.

        Raises:
            ModelNotFoundError: there is no such model.
            InputError: no model, or one twice.
        """
        if not models or len(set(models)) < len(models):
            raise InputError(
                f"models {', '.join(models) or 'none'}: expected one or more, each once"
            )
        self.library, self.device = library, device
        self.configs = {name: _read_config(name) for name in models}
        self._loaded: dict[str, Resonate] = {}
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.Queue[Job | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._work, name="studio", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Cancel everything and stop working."""
        for job in self._jobs.values():
            job.stop.set()
        self._waiting.put(None)
        self._thread.join()

    def submit(self, wanted: Wanted) -> Job:
        """Take in work.

        Raises:
            InputError: the model is unknown, or does not make such sounds.
            QueueFull: too much is waiting already.
        """
        from resonate_audio.pipeline import Sampling

        config = self.configs.get(wanted.model)
        if config is None:
            raise InputError(f"model {wanted.model!r}: expected {', '.join(self.configs)}"[:300])
        length = config.default_duration_s if wanted.audio_length is None else wanted.audio_length
        Sampling(length, wanted.num_inference_steps, wanted.guidance_scale).check(config)
        job = Job(secrets.token_hex(8), wanted)
        try:
            self._waiting.put_nowait(job)
        except queue.Full as error:
            raise QueueFull(f"{MAX_WAITING} jobs are waiting; try again later") from error
        self._remember(job)
        return job

    def job(self, id: str) -> Job:
        """A job by its id.

        Raises:
            InputError: there is none, or it was forgotten.
        """
        if id not in self._jobs:
            raise InputError("there is no such job, or it finished long ago")
        return self._jobs[id]

    def _remember(self, job: Job) -> None:
        over = [id for id, old in self._jobs.items() if old.is_over]
        for id in over[: max(0, len(over) - MAX_FINISHED)]:
            del self._jobs[id]
        self._jobs[job.id] = job

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                self._make(job)
            except Cancelled:
                job.state = "cancelled"
            except ResonateError as error:
                job.error, job.state = str(error), "failed"
            except Exception:  # the edge of the thread: other jobs go on
                logging.getLogger(__name__).exception("job %s failed", job.id)
                job.error, job.state = "the server could not make it; its log says why", "failed"

    def _make(self, job: Job) -> None:
        from resonate_audio.pipeline import PromptCutWarning

        if job.stop.is_set():
            raise Cancelled("stopped before it began")
        job.state, wanted = "running", job.wanted
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PromptCutWarning)
            audios = self._model(wanted.model).generate(
                [wanted.input] * len(wanted.seeds),
                negative_prompt=wanted.negative_prompt,
                duration_s=wanted.audio_length,
                num_inference_steps=wanted.num_inference_steps,
                guidance_scale=wanted.guidance_scale,
                seeds=wanted.seeds,
                on_step=lambda done, total: _tell(job, done, total),
            )
        job.sounds = [self.library.add(audio) for audio in audios]
        job.state = "succeeded"

    def _model(self, name: str) -> Resonate:
        from resonate_audio.pipeline import Resonate

        if name not in self._loaded:
            self._loaded[name] = Resonate.from_pretrained(name, device=self.device)
        return self._loaded[name]


def _tell(job: Job, done: int, total: int) -> bool:
    job.step, job.total_steps = done, total
    return not job.stop.is_set()


def _read_config(name: str) -> ModelConfig:
    from resonate_audio.model.folder import read_config
    from resonate_audio.model.hub import find_model

    return read_config(find_model(name))
