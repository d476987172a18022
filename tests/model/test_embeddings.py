import math

import torch
from drawn import draw

from resonate_audio.model.embeddings import (
    TimestepEmbedding,
    rotary_angles,
    rotate_pairs,
    timestep_features,
)

CPU = torch.device("cpu")


def test_cosines_come_before_sines() -> None:
    features = timestep_features(torch.zeros(1))[0]
    assert features.tolist() == [1.0] * 128 + [0.0] * 128


def test_the_first_frequency_is_one_so_time_is_not_scaled() -> None:
    features = timestep_features(torch.tensor([0.75]))[0]
    torch.testing.assert_close(features[[0, 128]], torch.tensor([math.cos(0.75), math.sin(0.75)]))


def test_the_last_frequency_is_ten_thousand_to_the_minus_127_of_128() -> None:
    slowest = timestep_features(torch.ones(1))[0, -1].item()
    assert math.isclose(slowest, math.sin(10_000 ** (-127 / 128)), rel_tol=1e-5)


def test_a_half_precision_embedding_still_sees_exact_angles() -> None:
    embedding = TimestepEmbedding(8)
    in_full = embedding(torch.tensor([0.37]))
    in_half = embedding.to(torch.bfloat16)(torch.tensor([0.37]))
    torch.testing.assert_close(in_half.float(), in_full, atol=0.02, rtol=0.02)


def test_position_zero_is_not_turned() -> None:
    x = draw(1, 2, 1, 8)
    torch.testing.assert_close(rotate_pairs(x, rotary_angles(1, 8, CPU)), x)


def test_a_quarter_turn_takes_neighbours_to_minus_second_and_first() -> None:
    turned = rotate_pairs(torch.tensor([[[[3.0, 5.0]]]]), torch.tensor([[math.pi / 2]]))
    torch.testing.assert_close(turned, torch.tensor([[[[-5.0, 3.0]]]]))


def test_turning_keeps_lengths() -> None:
    x = draw(2, 3, 40, 16)
    turned = rotate_pairs(x, rotary_angles(40, 16, CPU))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_scores_depend_on_the_distance_of_positions_alone() -> None:
    angles = rotary_angles(30, 16, CPU)
    query, key = (draw(1, 1, 1, 16, seed=seed).expand(1, 1, 30, 16) for seed in (1, 2))
    scores = (rotate_pairs(query, angles) @ rotate_pairs(key, angles).mT)[0, 0]
    torch.testing.assert_close(scores[3, 10], scores[20, 27])


def test_turning_keeps_the_dtype() -> None:
    x = draw(1, 1, 4, 8).bfloat16()
    assert rotate_pairs(x, rotary_angles(4, 8, CPU)).dtype == torch.bfloat16
