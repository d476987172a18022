import torch

from resonate_audio.training.codec.discriminator import (
    Judgement,
    SpectrogramJudge,
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


def test_the_chosen_judges_alone_are_asked() -> None:
    torch.manual_seed(0)
    judges, wave = SpectrogramJudges((64, 128), width=2), torch.randn(1, 512)
    (chosen,) = judges(wave, [1])
    assert torch.equal(chosen.score, judges(wave)[1].score)


def test_a_patch_holds_neighbouring_cells() -> None:
    judge, wave = SpectrogramJudge(64, width=2), torch.randn(1, 1024)
    patches = judge.patches(wave).unflatten(3, (16, 4, 3))
    power = judge.spectrum(wave).abs().square()[0]
    logarithm = (power + 1e-8).log() / 16 + 0.5
    torch.testing.assert_close(patches[0, 1, 2, ..., 2], logarithm[16:32, 8:12])


def test_a_judge_hears_noise_at_one_level_in_all_resolutions() -> None:
    torch.manual_seed(0)
    wave = torch.randn(1, 65_536)
    levels = [
        SpectrogramJudge(size, 2).spectrum(wave).abs().square().mean() for size in (128, 2048)
    ]
    torch.testing.assert_close(levels[0], levels[1], rtol=0.05, atol=0)


def test_features_of_two_draws_are_compared_by_their_energy_distance() -> None:
    recorded, one, other = judgement(0.0, 4.0), judgement(0.0, 3.0), judgement(0.0, 6.0)
    # half of |3 - 4| + |6 - 4| - |3 - 6|, over 4
    assert feature_loss(recorded, one, other).item() == 0.0
    assert feature_loss(recorded, one, one).item() == 0.25
