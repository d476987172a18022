"""Asking judges from code that does not wait for events, and deciding which thread computes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from resonate_audio.core.errors import RewardError
from resonate_audio.core.types import Audio, Rewards, Waveform
from resonate_audio.rewards.base import Reward

ResultT = TypeVar("ResultT")


class JudgeDesk:
    """An event loop in a thread of its own where judges work on batches as they come in.

    What a judge waits for, a server's answer, it waits for there, beside the caller's work. What
    it computes in this process is computed by the thread that waits for the scores, or, with
    ``compute_beside``, by threads beside it: right where a GPU does the work. On a CPU each thread
    that computes brings as many OpenMP threads as there are cores, and as soon as these are more
    than the cores, all of them sleep where they would wait awake, in every operator: docs/speed.md
    has what that costs.
    """

    def __init__(self, compute_beside: bool = False) -> None:
        self._loop = asyncio.new_event_loop()
        self._waiter = None if compute_beside else _Waiter()
        if self._waiter is not None:
            self._loop.set_default_executor(self._waiter)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def submit(self, reward: Reward, audio: Waveform, prompts: Sequence[str]) -> Future[Rewards]:
        """Begin to score; the future, given to `wait`, raises what the judge raises."""
        work: Any = reward.score(audio, prompts)
        scores = asyncio.run_coroutine_threadsafe(work, self._loop)
        if self._waiter is not None:
            scores.add_done_callback(self._waiter.wake)
        return scores

    def wait(self, scores: Future[Rewards]) -> Rewards:
        """The scores; until they are there, compute what judges want computed.

        Raises:
            ResonateError: as the judge's.
        """
        if self._waiter is not None:
            self._waiter.work_until(scores)
        return scores.result()

    def close(self) -> None:
        """Stop the loop; scores that nobody waits for are dropped."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_drop_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> JudgeDesk:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def _drop_tasks() -> None:
    """End all other tasks of the loop that runs this."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Waiter(ThreadPoolExecutor):
    """Work for whoever waits. Has no threads; asyncio takes no other class than its parent."""

    def __init__(self) -> None:
        super().__init__(1)
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        """Put work in line."""
        future = Future[ResultT]()
        self._queue.put(partial(_fulfil, future, partial(fn, *args, **kwargs)))
        return future

    def wake(self, _: Future[Any]) -> None:
        """Let the thread that waits look whether it still has to."""
        self._queue.put(lambda: None)

    def work_until(self, scores: Future[Any]) -> None:
        """Do what is in line, and what comes, until ``scores`` are there."""
        while not scores.done():
            self._queue.get()()


def _fulfil(future: Future[ResultT], work: Callable[[], ResultT]) -> None:
    """Do the work, unless nobody wants it any more."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - raised where it is awaited
        future.set_exception(error)
    else:
        future.set_result(result)


def score_sounds(reward: Reward, sounds: Sequence[Audio], prompts: Sequence[str]) -> Rewards:
    """Score sounds of one rate and length, each for its own text.

    Raises:
        RewardError: as the judge's.
    """
    samples = torch.stack([torch.from_numpy(sound.samples) for sound in sounds])
    return score_now(reward, Waveform(samples, sounds[0].sample_rate_hz), prompts)


def score_now(reward: Reward, audio: Waveform, prompts: Sequence[str]) -> Rewards:
    """Score and wait, for callers that have nothing else to do meanwhile.

    Raises:
        RewardError: as the judge's.
    """
    if len(prompts) != len(audio.samples):
        raise RewardError(
            f"{reward.name}: {len(prompts)} texts for {len(audio.samples)} sounds; give one each"
        )
    with JudgeDesk() as desk:
        return desk.wait(desk.submit(reward, audio, prompts))
