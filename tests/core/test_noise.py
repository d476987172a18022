"""The seed contract, at its root."""

import pytest
import torch

from resonate_audio.core.errors import InputError
from resonate_audio.core.noise import MAX_SEED, noise_stream, seeded_noise

SEEDS = [11, 5, 7, 3, 2, 13, 17, 19]


@pytest.mark.parametrize("num_rows", [1, 3, 8])
def test_a_row_depends_on_its_own_seed_only(num_rows: int) -> None:
    batch = seeded_noise(SEEDS[:num_rows], 9, 4)
    for row in range(num_rows):
        assert torch.equal(batch[row], seeded_noise([SEEDS[row]], 9, 4)[0])


def test_a_row_does_not_depend_on_its_position() -> None:
    assert torch.equal(seeded_noise(SEEDS, 9, 4).flip(0), seeded_noise(SEEDS[::-1], 9, 4))


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = seeded_noise([5], 9, 4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(seeded_noise([5], 9, 4), first)


def test_noise_is_standard_normal() -> None:
    noise = seeded_noise(range(64), 100, 8)
    assert abs(float(noise.mean())) < 4 / noise.numel() ** 0.5
    assert float(noise.std()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=str(seed)):
        seeded_noise([seed], 2, 2)


def test_the_largest_seed_works() -> None:
    assert seeded_noise([MAX_SEED], 2, 2).isfinite().all()


def test_a_stream_begins_with_the_seeds_noise_and_goes_on_with_other() -> None:
    draw = noise_stream([3, 5], 7, 2)
    first, second = draw(), draw()
    assert torch.equal(first, seeded_noise([3, 5], 7, 2))
    assert not torch.equal(first, second)


def test_rows_of_a_stream_do_not_know_each_other() -> None:
    together, alone = noise_stream([3, 5], 7, 2), noise_stream([5], 7, 2)
    for _ in range(3):
        assert torch.equal(together()[1:], alone())
