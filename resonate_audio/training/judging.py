"""Scoring beside the work: takes are judged while the next ones are made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import torch

from resonate_audio.core.errors import RewardError
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import Reward


class JudgeDesk:
    """An event loop in a thread of its own that judges batches as they come in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def submit(self, reward: Reward, audio: Waveform, prompts: Sequence[str]) -> Future[Rewards]:
        """Begin to score; the future raises what the judge raises."""
        work: Any = reward.score(audio, prompts)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Stop the loop; scores that nobody waits for are dropped."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> JudgeDesk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def join_rewards(batches: Sequence[Rewards]) -> Rewards:
    """Scores of neighbouring batches as one table.

    Raises:
        RewardError: the batches have other parts than each other.
    """
    names = [tuple(batch.parts) for batch in batches]
    if len(set(names)) != 1:
        raise RewardError(f"{batches[0].judge}: parts differ from batch to batch: {names}")
    parts = {name: torch.cat([batch.parts[name] for batch in batches]) for name in names[0]}
    return Rewards(torch.cat([batch.total for batch in batches]), parts, batches[0].judge)
