"""Scoring beside the work: takes are judged while the next ones are made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import torch

from resonate_audio.core.errors import ResonateError, RewardError
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import Reward
from resonate_audio.training.distributed import Ranks


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


def wait_for_scores(scores: Sequence[Future[Rewards]], ranks: Ranks) -> Rewards:
    """Scores of the rows of all processes, from one gather: all see the same groups.

    Args:
        scores: of this process's rows, batch by batch.
        ranks: who takes part.

    Raises:
        ResonateError: the judge of any process failed; all processes raise it together.
    """
    try:
        own: Rewards | ResonateError = join_rewards([score.result() for score in scores])
    except ResonateError as error:
        if ranks.world == 1:
            raise
        own = type(error)(f"judge of process {ranks.rank}: {error}")
    tables: list[Rewards] = []
    for table in ranks.gather(own):
        if isinstance(table, ResonateError):
            raise table
        tables.append(table)
    return interleave_rewards(tables)


def interleave_rewards(tables: Sequence[Rewards]) -> Rewards:
    """Scores where row r is in table r mod the number of tables."""
    if len(tables) == 1:
        return tables[0]
    joined = join_rewards(tables)
    place = torch.cat(
        [torch.arange(len(t.total)) * len(tables) + rank for rank, t in enumerate(tables)]
    )
    order = place.argsort()
    parts = {name: values[order] for name, values in joined.parts.items()}
    return Rewards(joined.total[order], parts, joined.judge)


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
