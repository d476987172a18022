"""The jobs of making and scoring clips: one after another here, or many at once with Ray.

A job is a few names and numbers, and what comes of it depends on the job and the number of threads
alone, so results are the same with and without Ray, whatever the number of processes. Manifests and
stores are written by the process that was started; the others read and make sounds only.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.threads import cpu_threads
from resonate_audio.data.ray_map import RayConfig, map_with_ray

ToolT = TypeVar("ToolT")
JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Bulk(Generic[ToolT]):
    """Where many processes work, and how each gets what it works with."""

    ray: RayConfig
    open_tool: Callable[[], ToolT]
    """Called once in each process; loads there what the process that was started has loaded."""
    num_threads: int = 1
    """CPU threads of each process."""


@dataclass(frozen=True)
class Work(Generic[ToolT, JobT, ResultT]):
    """What is done, and how two tools are told apart."""

    do: Callable[[ToolT, JobT], ResultT]
    identify: Callable[[ToolT], Sequence[str]]
    """What results depend on, such as hashes of weights and code."""


def run_jobs(
    jobs: Sequence[JobT],
    work: Work[ToolT, JobT, ResultT],
    tool: ToolT,
    bulk: Bulk[ToolT] | None = None,
) -> Iterator[tuple[JobT, ResultT]]:
    """Do every job with a tool of this process, or with equal ones in processes of Ray.

    Args:
        jobs: small, and free to be done in any order.
        work: what is done.
        tool: of this process.
        bulk: many processes; None: this one.

    Yields:
        Job and result, in the order in which they end.

    Raises:
        ConfigError: as of `map_with_ray`, or a process has another model, metric or code.
        ResonateError: the first that a job raises.
    """
    if bulk is None:
        yield from ((job, work.do(tool, job)) for job in jobs)
    elif jobs:
        worker = _Worker(work, bulk.open_tool, tuple(work.identify(tool)), bulk.num_threads)
        for place, (result, notes) in map_with_ray(jobs, lambda: worker, bulk.ray):
            for note in notes:
                warnings.warn(note, stacklevel=2)
            yield jobs[place], result


class _Worker(Generic[ToolT, JobT, ResultT]):
    """What lives in a process of Ray; its tool is loaded with the first job, so errors travel."""

    def __init__(
        self,
        work: Work[ToolT, JobT, ResultT],
        open_tool: Callable[[], ToolT],
        expected: tuple[str, ...],
        num_threads: int,
    ) -> None:
        self.work, self.open_tool, self.expected = work, open_tool, expected
        self.num_threads, self.folder = num_threads, Path.cwd()
        self.tool: ToolT | None = None

    def __call__(self, job: JobT) -> tuple[ResultT, list[str]]:
        with cpu_threads(self.num_threads), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            if self.tool is None:
                self.tool = self._open()
            result = self.work.do(self.tool, job)
        return result, list(dict.fromkeys(str(warning.message) for warning in caught))

    def _open(self) -> ToolT:
        if self.folder.is_dir():
            os.chdir(self.folder)  # relative names mean the same as where the command was given
        tool = self.open_tool()
        for own, expected in zip(self.work.identify(tool), self.expected, strict=True):
            if own != expected:
                raise ConfigError(
                    f"a process of Ray has {own}, and {expected} was expected: its machine has "
                    "other weights, another device or another release"
                )
        return tool
