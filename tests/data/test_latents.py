import torch

from resonate_audio.core.types import TextFeatures
from resonate_audio.data.latents import (
    LatentBucket,
    join_captions,
    latent_statistics,
    pack_captions,
)


def features(lengths: list[int], num_tokens: int = 5, dim: int = 3) -> TextFeatures:
    """Features that half precision holds exactly, zero after each length."""
    tokens = torch.arange(1.0, len(lengths) * num_tokens * dim + 1).view(-1, num_tokens, dim)
    for row, length in enumerate(lengths):
        tokens[row, length:] = 0
    return TextFeatures(tokens, torch.arange(float(len(lengths)))[:, None].repeat(1, dim))


def bucket(mean: torch.Tensor, std: torch.Tensor) -> LatentBucket:
    ones = torch.ones(len(mean), dtype=torch.long)
    return LatentBucket(mean, std, ones, torch.zeros(len(mean), 1, dtype=torch.long), ones)


def test_packed_captions_come_back_as_they_were() -> None:
    given = features([5, 2, 1])
    got = pack_captions(given).features(torch.tensor([0, 1, 2]))
    assert torch.equal(got.tokens, given.tokens)
    assert torch.equal(got.pooled, given.pooled)


def test_padding_takes_no_space() -> None:
    assert len(pack_captions(features([5, 2, 1])).tokens) == 8


def test_a_zero_token_before_the_last_real_one_is_kept() -> None:
    given = features([4])
    given.tokens[0, 1] = 0
    assert torch.equal(pack_captions(given).features(torch.tensor([0])).tokens, given.tokens)


def test_joined_tables_number_their_captions_on() -> None:
    first, second = features([2, 3]), features([5])
    joined = join_captions([pack_captions(first), pack_captions(second)])
    assert torch.equal(joined.features(torch.tensor([2])).tokens, second.tokens)
    assert torch.equal(joined.features(torch.tensor([1])).tokens, first.tokens[1:])


def test_statistics_count_the_spread_of_means_and_of_posteriors() -> None:
    # half of all frames at +3, half at -1: mean 1, spread 2; posterior deviation 1.5
    up = bucket(torch.full((2, 3, 2), 3.0), torch.full((2, 3, 2), 1.5))
    down = bucket(torch.full((1, 6, 2), -1.0), torch.full((1, 6, 2), 1.5))
    mean, std = latent_statistics((up, down))
    torch.testing.assert_close(mean, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(std, torch.tensor([2.5, 2.5]))
