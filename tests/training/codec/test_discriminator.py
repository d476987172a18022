import torch

from resonate_audio.training.codec.discriminator import (
    Judgement,
    SpectrogramJudges,
    feature_loss,
    fooling_loss,
    judge_loss,
)


def judgement(score: float, layer: float = 0.0) -> list[Judgement]:
    return [Judgement(torch.full((2, 3), score), (torch.full((2, 4), layer),))]


def test_a_perfect_judge_has_no_loss() -> None:
    assert judge_loss(judgement(1.0), judgement(0.0)).item() == 0.0


def test_a_judge_that_cannot_tell_pays_half() -> None:
    assert judge_loss(judgement(0.5), judgement(0.5)).item() == 0.5


def test_a_judge_that_is_fooled_costs_nothing() -> None:
    assert fooling_loss(judgement(1.0)).item() == 0.0
    assert fooling_loss(judgement(0.0)).item() == 1.0


def test_features_are_compared_in_units_of_the_recordings() -> None:
    assert feature_loss(judgement(0.0, 4.0), judgement(0.0, 3.0)).item() == 0.25


def test_there_is_one_opinion_per_resolution() -> None:
    torch.manual_seed(0)
    opinions = SpectrogramJudges((64, 128), width=2)(torch.randn(3, 512))
    assert [opinion.score.shape[0] for opinion in opinions] == [3, 3]
    assert len(opinions) == 2
