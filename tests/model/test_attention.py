import torch
from drawn import draw

from resonate_audio.model.attention import HeadProjection, HeadVectors, attend


def test_channels_of_the_projection_lie_head_then_dim_then_qkv() -> None:
    heads = HeadProjection(hidden=4, num_heads=2)
    with torch.no_grad():
        heads.qkv.weight.zero_()
        heads.qkv.bias.copy_(torch.arange(12.0))
    vectors = heads(torch.zeros(1, 1, 4), None)
    assert vectors.value[0, :, 0].tolist() == [[2.0, 5.0], [8.0, 11.0]]


def test_queries_and_keys_have_unit_mean_square() -> None:
    vectors = HeadProjection(hidden=16, num_heads=2)(draw(2, 5, 16), None)
    for part in (vectors.query, vectors.key):
        torch.testing.assert_close(part.square().mean(dim=-1), torch.ones(2, 2, 5))


def test_equal_keys_average_the_values_of_all_streams() -> None:
    first = HeadVectors(draw(1, 1, 3, 2), torch.ones(1, 1, 3, 2), torch.zeros(1, 1, 3, 2))
    second = HeadVectors(draw(1, 1, 1, 2), torch.ones(1, 1, 1, 2), torch.full((1, 1, 1, 2), 8.0))
    torch.testing.assert_close(attend(first, second), torch.full((1, 4, 2), 2.0))


def test_heads_are_joined_in_order() -> None:
    value = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    assert attend(HeadVectors(value, value, value)).tolist() == [[[1.0, 2.0, 3.0, 4.0]]]
