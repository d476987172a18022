"""K7: the last batch may be smaller: whatever the numbers, each take is made once, by one process.

Every process is played one after the other in this one, from which no other is heard.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import TINY, random_networks
from torch import Tensor

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import Prompts, TextFeatures
from resonate_audio.data.batches import BatchPlan
from resonate_audio.training.loop.distributed import Ranks, check_split
from resonate_audio.training.pretrain.task import FlowBatch
from resonate_audio.training.reinforce.fresh import noised_takes
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.rollout import Rollout, SamplerConfig, sample_rollout
from resonate_audio.training.reinforce.trainer import ReinforceTask, Update

SHAPE = (2, 1)
POLICY = Policy(random_networks(TINY, seed=0).transformer)
SMALL = st.integers(1, 5)


@dataclass(frozen=True)
class OneOf(Ranks):
    """A process that hears nothing of the others; what they would give is zeros."""

    num_rows: int = 0
    summed: list[Any] = field(default_factory=list)

    def join_rows(self, own: Tensor) -> Tensor:
        rows = own.new_zeros(self.num_rows, *own.shape[1:])
        rows[self.rank :: self.world] = own
        return rows


@dataclass
class Plan:
    texts: tuple[str, ...]
    prompts_per_step: int
    takes: int


class Made:
    """As much of a task as its check looks at."""

    def __init__(self, num_texts: int, per_step: int, takes: int, rows: int) -> None:
        self.plan = Plan(tuple(f"text {number}" for number in range(num_texts)), per_step, takes)
        self.maker = type("Maker", (), {"sampler": SamplerConfig(num_steps=3, rows_per_batch=rows)})

    def check(self, world: int) -> None:
        ReinforceTask.check_ranks(self, Ranks(0, world))  # type: ignore[arg-type]


def bind(features: TextFeatures) -> Any:
    return lambda z, t: z * features.pooled.view(-1, 1, 1)


def roll_out(prompts: Prompts, sampler: SamplerConfig, rank: int, world: int) -> Rollout:
    size = len(prompts.texts)
    features = TextFeatures(torch.zeros(size, 1, 1), torch.arange(float(size)).view(-1, 1))
    ranks = OneOf(rank, world, num_rows=prompts.num_rows)
    return sample_rollout(bind, prompts, features, sampler, SHAPE, 0, 0, ranks=ranks)


@settings(max_examples=40, deadline=None)
@given(num_texts=SMALL, per_step=SMALL, takes=st.integers(2, 4), rows=SMALL, world=SMALL)
def test_every_take_is_made_and_learnt_from_once(
    num_texts: int, per_step: int, takes: int, rows: int, world: int
) -> None:
    """For each batch of an epoch; or the start is refused, and says what does not fit."""
    made = Made(num_texts, per_step, takes, rows * world)
    most = min(per_step, num_texts)
    fewest = num_texts % most or most
    if fewest * takes < world:
        with pytest.raises(ConfigError, match="fewer takes than the"):
            made.check(world)
        return
    made.check(world)
    batches = BatchPlan([num_texts], [per_step], 0)
    for number in range(batches.batches_per_epoch):
        texts = [made.plan.texts[row] for row in batches.batch(number).rows.tolist()]
        prompts = Prompts(tuple(texts), takes)
        sampler = made.maker.sampler  # type: ignore[attr-defined]
        check_processes([roll_out(prompts, sampler, rank, world) for rank in range(world)], rows)


def check_processes(rollouts: list[Rollout], rows_per_process: int) -> None:
    world, size = len(rollouts), rollouts[0].prompts.num_rows
    made = sum(rollout.latents for rollout in rollouts)
    alone = roll_out(rollouts[0].prompts, SamplerConfig(num_steps=3, rows_per_batch=size), 0, 1)
    torch.testing.assert_close(made, alone.latents)
    for rows in (torch.arange(size), torch.arange(size // 2, size), torch.tensor([size - 1])):
        passes, shares, weighed = [], [], torch.zeros(size)
        for rollout in rollouts:
            items = list(rollout.transitions(rows, rows_per_process * world))
            passes.append(len(items))
            shares += [one.share for one in items]
            for one in items:
                assert one.state.shape[0] == len(one.row) > 0
                weighed[one.row] += one.share / len(one.row)
            check_noised(rollout, rows, rows_per_process * world)
        assert len(set(passes)) == 1, passes  # or one would wait for the others for ever
        assert sum(shares) == pytest.approx(1.0)
        expected = torch.zeros(size)
        expected[rows] = 1 / len(rows)
        torch.testing.assert_close(weighed, expected)


def check_noised(rollout: Rollout, rows: Tensor, size: int) -> None:
    update = Update(rows, True, torch.Generator().manual_seed(0), rollout.ranks)
    parts = list(noised_takes(POLICY, rollout, update, 2, size))
    assert len(parts) == 2 * -(-len(rows) // size)
    assert all(len(part.row) == len(part.state) > 0 for part in parts)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 20), world=SMALL)
def test_own_parts_of_any_batch_add_up(size: int, world: int) -> None:
    """Of pairs and regression losses; and of a batch of pre-training."""
    shares, seen = 0.0, []
    whole = FlowBatch(
        torch.arange(float(size)).view(-1, 1, 1), torch.zeros(size, 1, 1), torch.zeros(size),
        TextFeatures(torch.zeros(size, 1, 1), torch.zeros(size, 1)), None,
    )  # fmt: skip
    for rank in range(world):
        ranks = Ranks(rank, world)
        own, share = Update(torch.arange(size), True, torch.Generator(), ranks).own_part(size)
        part = whole.part_of(ranks)
        assert part.share == pytest.approx(share)
        assert torch.equal(part.data.flatten().long(), own)
        assert len(own) > 0
        shares += share
        seen += own.tolist() if share else []
    assert shares == pytest.approx(1.0)
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize(("num_texts", "told"), [(4, "prompts_per_step"), (9, "the last batch of")])
def test_a_smaller_last_batch_is_named(num_texts: int, told: str) -> None:
    with pytest.raises(ConfigError, match=f"{told}.* fewer takes than the [39] processes"):
        Made(num_texts, 4, 2, 9).check(9 if num_texts == 4 else 3)


def test_an_uneven_batch_is_refused_with_one_that_fits() -> None:
    with pytest.raises(ConfigError, match="make it 6 rows"):
        check_split(4, Ranks(0, 3), "rows")
