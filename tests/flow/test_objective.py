import pytest
import torch
from drawn import draw

from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.objective import (
    cfm_loss,
    drop_conditions,
    make_frame_mask,
    row_errors,
    valid_frames,
)


def test_the_true_velocity_has_no_loss() -> None:
    data, noise = draw(3, 5, 2), draw(3, 5, 2, seed=1)
    loss = cfm_loss(lambda z, t: noise - data, data, noise, torch.rand(3))
    assert loss.mean.item() == 0


def test_the_model_sees_the_noised_latents_and_their_level() -> None:
    data, noise, t = draw(2, 3, 1), draw(2, 3, 1, seed=1), torch.tensor([0.25, 1.0])
    # On a straight path (z - data) / t is the velocity, so this "model" is exact.
    loss = cfm_loss(lambda z, t: (z - data) / t[:, None, None], data, noise, t)
    torch.testing.assert_close(loss.rows, torch.zeros(2))


def test_a_velocity_off_by_two_costs_four() -> None:
    data, noise = draw(2, 3, 4), draw(2, 3, 4, seed=1)
    loss = cfm_loss(lambda z, t: noise - data + 2, data, noise, torch.rand(2))
    torch.testing.assert_close(loss.rows, torch.full((2,), 4.0))


def test_masked_frames_weigh_nothing() -> None:
    predicted, target = draw(1, 4, 2), draw(1, 4, 2, seed=1)
    mask = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(
        row_errors(predicted, target, mask), row_errors(predicted[:, :2], target[:, :2])
    )


def test_nan_in_padding_does_not_reach_the_loss() -> None:
    predicted, target = draw(1, 2, 2), draw(1, 2, 2, seed=1)
    predicted[:, 1] = torch.nan
    assert row_errors(predicted, target, torch.tensor([[True, False]])).isfinite().all()


def test_a_short_clip_weighs_as_much_as_a_long_one() -> None:
    error = torch.ones(2, 10, 1)
    error[1] = 3.0
    mask = make_frame_mask(torch.tensor([10, 1]), 10)
    loss = cfm_loss(lambda z, t: error, 0 * error, 0 * error, torch.rand(2), mask)
    assert loss.mean.item() == pytest.approx((1 + 9) / 2)


def test_a_row_of_padding_costs_nothing() -> None:
    none = torch.zeros(1, 3, dtype=torch.bool)
    assert row_errors(draw(1, 3, 2), draw(1, 3, 2, seed=1), none).item() == 0


def test_a_frame_with_one_sample_is_valid() -> None:
    samples = torch.tensor([12288, 5000, 1025, 1024, 1])
    assert valid_frames(samples, 1024).tolist() == [12, 5, 2, 1, 1]


def test_the_mask_keeps_the_first_frames() -> None:
    assert make_frame_mask(torch.tensor([2, 0]), 3).tolist() == [[True, True, False], [False] * 3]


def test_tokens_and_pooled_are_dropped_together() -> None:
    features = TextFeatures(torch.ones(2, 3, 4), torch.ones(2, 4))
    empty = TextFeatures(torch.zeros(2, 3, 4), torch.zeros(2, 4))
    dropped = drop_conditions(features, empty, torch.tensor([True, False]))
    assert [dropped.tokens.mean(dim=(1, 2)).tolist(), dropped.pooled.mean(dim=1).tolist()] == [
        [0, 1],
        [0, 1],
    ]
