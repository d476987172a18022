from __future__ import annotations

import math
import random

import pytest
import torch

from resonate_audio.core.errors import InputError, ShapeError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.detectors import (
    clipped_share,
    energy_share_above,
    find_hack_signs,
    group_diversity_db,
    rewards_diverge,
    silent_share,
)

RATE_HZ = 44_100
TIME_S = torch.arange(2 * RATE_HZ) / RATE_HZ


def tone(frequency_hz: float, level: float = 0.5) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * frequency_hz * TIME_S)


def rows(*sounds: torch.Tensor) -> Waveform:
    return Waveform(torch.stack(sounds), RATE_HZ)


def noise(num_rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(num_rows, RATE_HZ, generator=generator)


def test_a_square_wave_of_full_scale_is_clipped_throughout() -> None:
    square = torch.where(tone(100) >= 0, 1.0, -1.0)
    assert clipped_share(rows(square, 0.9 * square)).tolist() == [1.0, 0.0]


def test_a_sine_driven_to_twice_full_scale_is_clipped_two_thirds_of_the_time() -> None:
    driven = tone(100, level=2.0).clamp(-1, 1)
    assert float(clipped_share(rows(driven))) == pytest.approx(2 / 3, abs=1e-3)


def test_samples_over_full_scale_count_as_clipped() -> None:
    assert float(clipped_share(rows(torch.full((100,), -1.5)))) == 1.0


def test_the_silent_share_is_that_of_the_silent_frames() -> None:
    half = tone(100).clone()
    half[:RATE_HZ] = 0
    silent = silent_share(rows(tone(100), half, torch.zeros_like(half)))
    assert silent.tolist() == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize(("level_db", "expected"), [(-59.0, 0.0), (-61.0, 1.0)])
def test_a_frame_is_silent_under_minus_60_db(level_db: float, expected: float) -> None:
    square = torch.where(tone(100) >= 0, 1.0, -1.0)
    assert float(silent_share(rows(square * 10 ** (level_db / 20)))) == expected


def test_tones_on_both_sides_of_8_khz_share_the_energy_by_their_squares() -> None:
    both = tone(1000, 0.4) + tone(12_000, 0.3)
    share = energy_share_above(
        rows(tone(1000), both, tone(12_000), torch.zeros(2 * RATE_HZ)), 8000.0
    )
    assert share.tolist() == pytest.approx([0.0, 0.09 / 0.25, 1.0, 0.0], abs=1e-3)


def test_white_noise_has_its_energy_spread_evenly() -> None:
    share = energy_share_above(Waveform(noise(1), RATE_HZ), 8000.0)
    assert float(share) == pytest.approx(1 - 8000 / 22_050, abs=0.01)


def test_a_sound_at_16_khz_has_nothing_above_8_khz() -> None:
    assert float(energy_share_above(Waveform(noise(1), 16_000), 8000.0)) == 0.0


def test_equal_takes_have_no_diversity() -> None:
    same = noise(1).repeat(4, 1)
    assert float(group_diversity_db(Waveform(same, RATE_HZ), 4)) == 0.0


def test_a_take_at_half_the_level_is_6_02_db_away() -> None:
    sound = noise(1)
    pair = torch.cat([sound, 0.5 * sound])
    diversity = float(group_diversity_db(Waveform(pair, RATE_HZ), 2))
    assert diversity == pytest.approx(20 * math.log10(2), rel=1e-3)


def test_diversity_is_the_mean_over_pairs() -> None:
    """Levels 1, 1/2, 1/4: two pairs at 6.02 dB and one at 12.04."""
    sound = noise(1)
    takes = torch.cat([sound, 0.5 * sound, 0.25 * sound])
    diversity = float(group_diversity_db(Waveform(takes, RATE_HZ), 3))
    assert diversity == pytest.approx(20 * math.log10(2) * 4 / 3, rel=1e-3)


def test_one_prompt_does_not_move_anothers_diversity() -> None:
    first, second = noise(3, seed=0), noise(3, seed=1)
    together = group_diversity_db(Waveform(torch.cat([first, second]), RATE_HZ), 3)
    alone = group_diversity_db(Waveform(second, RATE_HZ), 3)
    torch.testing.assert_close(together[1:], alone)


@pytest.mark.parametrize("takes", [1, 4])
def test_rows_must_split_into_groups(takes: int) -> None:
    with pytest.raises(ShapeError, match=f"6 rows in groups of {takes}"):
        group_diversity_db(Waveform(noise(6), RATE_HZ), takes)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_signs_are_found_at_any_rate(rate_hz: int) -> None:
    signs = find_hack_signs(Waveform(noise(4), rate_hz), takes=2)
    assert signs.diversity_db is not None
    assert signs.diversity_db.shape == (2,)
    assert all(math.isfinite(value) for value in signs.means().values())
    assert set(signs.means()) == set(vars(signs))


def test_single_takes_have_no_diversity_to_report() -> None:
    signs = find_hack_signs(Waveform(noise(2), RATE_HZ))
    assert signs.diversity_db is None
    assert "diversity_db" not in signs.means()


def test_no_sound_has_no_signs() -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        find_hack_signs(Waveform(torch.zeros(0, 100), RATE_HZ))


def series(
    length: int, slope: float, noise: float = 0.0, every: int = 1, turn: int = 0
) -> tuple[tuple[int, float], ...]:
    """A line that rises with ``slope`` from step ``turn`` on and the other way before it."""
    generator = random.Random(length)
    return tuple(
        (step, slope * abs(step - turn) + generator.gauss(0, noise))
        for step in range(1, length + 1, every)
    )


def test_reward_up_and_held_out_down_is_a_warning() -> None:
    assert rewards_diverge(series(200, 1e-3, 0.02), series(200, -1e-3, 0.02, every=10))


def test_both_up_is_none() -> None:
    assert not rewards_diverge(series(200, 1e-3, 0.02), series(200, 1e-3, 0.02, every=10))


def test_both_down_is_none() -> None:
    assert not rewards_diverge(series(200, -1e-3, 0.02), series(200, -1e-3, 0.02, every=10))


def test_a_judge_that_rose_first_and_fell_later_is_a_warning() -> None:
    held_out = series(200, -1e-3, 0.01, every=5, turn=100)
    assert rewards_diverge(series(200, 1e-3, 0.02), held_out)


def test_noise_alone_is_hardly_ever_a_warning() -> None:
    alarms = 0
    for seed in range(300):
        generator = random.Random(seed)
        held_out = tuple((step, generator.gauss(0, 1)) for step in range(0, 200, 10))
        alarms += rewards_diverge(series(200, 1e-3, 0.02), held_out)
    assert alarms <= 6  # 2 %


def test_a_handful_of_scores_says_nothing() -> None:
    assert not rewards_diverge(series(50, 1.0), series(50, -1.0, every=10))


@pytest.mark.parametrize("value", [0.3, 0.1 + 0.2, 0.0])
def test_a_judge_that_stands_still_is_no_warning(value: float) -> None:
    held_out = tuple((step, value) for step in range(1, 12))
    assert not rewards_diverge(series(20, 1.0), held_out)


def test_no_scores_are_no_warning() -> None:
    assert not rewards_diverge((), ())
    assert not rewards_diverge((), series(50, -1.0))
