import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resonate_audio.data.batches import BatchPlan

SIZES, ROWS = [7, 12, 1], [3, 4, 5]


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(0, 3),
    st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_every_clip_occurs_exactly_once_per_epoch(
    sizes: list[int], rows: int, epoch: int, seed: int
) -> None:
    plan = BatchPlan(sizes, [rows] * len(sizes), seed)
    first = epoch * plan.batches_per_epoch
    batches = [plan.batch(first + i) for i in range(plan.batches_per_epoch)]
    seen = [(batch.bucket, row) for batch in batches for row in batch.rows.tolist()]
    assert sorted(seen) == [(b, row) for b, size in enumerate(sizes) for row in range(size)]


def test_no_batch_is_larger_than_its_bucket_allows() -> None:
    plan = BatchPlan(SIZES, ROWS, 0)
    batches = [plan.batch(i) for i in range(plan.batches_per_epoch)]
    assert all(len(batch.rows) <= ROWS[batch.bucket] for batch in batches)


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    walked = BatchPlan(SIZES, ROWS, 5)
    for index in range(40):
        last = walked.batch(index)
    jumped = BatchPlan(SIZES, ROWS, 5).batch(39)
    assert last.bucket == jumped.bucket
    assert torch.equal(last.rows, jumped.rows)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return BatchPlan([50], [50], seed).batch(epoch).rows.tolist()

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
