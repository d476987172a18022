"""Scores of all batches and processes, put together."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import torch

from resonate_audio.core.errors import ResonateError, RewardError
from resonate_audio.core.types import Rewards
from resonate_audio.rewards.desk import JudgeDesk
from resonate_audio.training.loop.distributed import Ranks


def wait_for_scores(desk: JudgeDesk, scores: Sequence[Future[Rewards]], ranks: Ranks) -> Rewards:
    """Scores of the rows of all processes, from one gather: all see the same groups.

    Args:
        desk: where they are made.
        scores: of this process's rows, batch by batch.
        ranks: who takes part.

    Raises:
        ResonateError: the judge of any process failed; all processes raise it together.
    """
    try:
        own: Rewards | ResonateError = join_rewards([desk.wait(score) for score in scores])
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
    return replace(joined, total=joined.total[order], parts=parts)


def join_rewards(batches: Sequence[Rewards]) -> Rewards:
    """Scores of neighbouring batches as one table.

    Raises:
        RewardError: the batches have other parts than each other.
    """
    names = [tuple(batch.parts) for batch in batches]
    if len(set(names)) != 1:
        raise RewardError(f"{batches[0].judge}: parts differ from batch to batch: {names}")
    parts = {name: torch.cat([batch.parts[name] for batch in batches]) for name in names[0]}
    return replace(batches[0], total=torch.cat([batch.total for batch in batches]), parts=parts)
