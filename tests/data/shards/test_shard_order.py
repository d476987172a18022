from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonate_audio.core.errors import ShardError
from resonate_audio.data.shards.order import (
    ClipOrder,
    ShardPlan,
    epoch_order,
    make_batches,
    padded_frames,
)

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any)


def plan_of(sizes: Sequence[int], frames_per_batch: int = 20, seed: int = 3) -> ShardPlan:
    frames = np.array([4, 8, 4, 16])[np.arange(sum(sizes)) % 4]
    return ShardPlan(sizes, frames, frames_per_batch, seed, window=5)


@given(SIZES, st.integers(0, 99), st.integers(0, 3), st.integers(1, 50))
@settings(max_examples=80, deadline=None)
def test_every_clip_occurs_once_an_epoch(
    sizes: list[int], seed: int, epoch: int, window: int
) -> None:
    assert sorted(epoch_order(sizes, seed, epoch, window)) == list(range(sum(sizes)))


@given(SIZES, st.integers(0, 99), st.integers(1, 50))
@settings(max_examples=80, deadline=None)
def test_a_clip_moves_less_than_the_window(sizes: list[int], seed: int, window: int) -> None:
    unmoved = epoch_order(sizes, seed, 0, 1)
    place = np.empty(len(unmoved), dtype=int)
    place[unmoved] = np.arange(len(unmoved))
    moved = place[epoch_order(sizes, seed, 0, window)] - np.arange(len(unmoved))
    assert np.abs(moved).max() < window


def test_shards_and_clips_are_shuffled_anew_each_epoch() -> None:
    orders = [tuple(epoch_order([5] * 4, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert tuple(epoch_order([5] * 4, 0, 1)) == orders[1]


@given(SIZES, st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_batches_hold_every_clip_once_and_equal_lengths(sizes: list[int], budget: int) -> None:
    plan = plan_of(sizes, budget)
    batches = [plan.batch(index) for index in range(plan.batches_per_epoch)]
    assert sorted(np.concatenate(batches)) == list(range(sum(sizes)))
    for batch in batches:
        lengths = plan.frames[batch]
        assert len(set(lengths)) == 1
        assert lengths.sum() <= max(budget, lengths[0])


def test_a_batch_comes_when_its_last_clip_does() -> None:
    frames = np.array([4, 8, 4, 8])
    batches = make_batches(np.array([0, 1, 3, 2]), frames, 16)
    assert [batches[i].tolist() for i in range(len(batches))] == [[1, 3], [0, 2]]


def test_lengths_of_sounds_are_rounded_up() -> None:
    assert padded_frames(np.array([1, 10, 11]), step=10).tolist() == [10, 10, 20]


def test_batch_n_does_not_depend_on_what_was_asked_before() -> None:
    plan, other = plan_of([5, 7, 3]), plan_of([5, 7, 3])
    last = 2 * plan.batches_per_epoch + 1
    in_turn = [plan.batch(index).tolist() for index in range(last + 1)]
    assert other.batch(last).tolist() == in_turn[-1]
    assert other.batch(0).tolist() == in_turn[0]


def test_shards_without_a_clip_are_refused() -> None:
    with pytest.raises(ShardError, match="hold no clip"):
        plan_of([0])


@given(SIZES, st.integers(1, 5), st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_readers_lose_and_repeat_no_clip(sizes: list[int], readers: int, seed: int) -> None:
    taken: list[int] = []
    for reader in range(readers):
        taken += list(ClipOrder(sizes, seed, reader, readers, window=7))
    assert sorted(taken) == list(range(sum(sizes)))


@given(SIZES, st.data())
@settings(max_examples=80, deadline=None)
def test_a_resumed_reader_goes_on_at_the_very_clip(sizes: list[int], data: st.DataObject) -> None:
    readers = data.draw(st.integers(1, 3))
    reader = data.draw(st.integers(0, readers - 1))
    order = ClipOrder(sizes, 1, reader, readers, window=7)
    expected = [*ClipOrder(sizes, 1, reader, readers, window=7)]
    stop = data.draw(st.integers(0, len(expected)))
    taken = [number for number, _ in zip(order, range(stop), strict=False)][:stop]
    later = ClipOrder(sizes, 1, reader, readers, window=7)
    if stop:  # the state after the last clip that was taken
        fresh = ClipOrder(sizes, 1, reader, readers, window=7)
        numbers = iter(fresh)
        for _ in range(stop):
            next(numbers)
        later.load_state_dict(fresh.state_dict())
    assert taken + list(later) == expected


@given(SIZES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 6))
@settings(max_examples=80, deadline=None)
def test_another_number_of_readers_takes_up_the_rest(
    sizes: list[int], before: int, after: int, steps: int
) -> None:
    taken, state = [], ClipOrder(sizes, 0).state_dict()
    steps = min(steps, sum(sizes) // before)
    for reader in range(before):
        order = ClipOrder(sizes, 0, reader, before)
        numbers = iter(order)
        taken += [next(numbers) for _ in range(steps)]
        state = order.state_dict()
    for reader in range(after):
        order = ClipOrder(sizes, 0, reader, after)
        order.load_state_dict(state | ({"done": 0} if not steps else {}))
        taken += list(order)
    assert sorted(taken) == list(range(sum(sizes)))


def test_epochs_follow_each_other() -> None:
    order = ClipOrder([3, 4], seed=2)
    assert list(order) == epoch_order([3, 4], 2, 0).tolist()
    assert list(order) == epoch_order([3, 4], 2, 1).tolist()


def test_the_state_of_other_shards_is_refused() -> None:
    state = ClipOrder([3, 4], seed=2).state_dict()
    with pytest.raises(ShardError, match="num_samples 7, not 8"):
        ClipOrder([4, 4], seed=2).load_state_dict(state)
    with pytest.raises(ShardError, match="seed 2, not 1"):
        ClipOrder([3, 4], seed=1).load_state_dict(state)
