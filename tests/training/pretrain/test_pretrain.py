import pytest
import torch
from learning import draw, learn

from resonate_audio.core.types import TextFeatures
from resonate_audio.data.latents import LatentBucket, LatentSet, pack_captions
from resonate_audio.model.flow_transformer import FlowTransformerConfig
from resonate_audio.training.loop.task import generator_for
from resonate_audio.training.pretrain.task import (
    FlowConfig,
    PretrainTask,
    build_transformer,
    choose_captions,
    sample_latents,
    scales_by_gain,
)

CONFIG = FlowTransformerConfig(
    latent_channels=2,
    hidden=32,
    num_heads=2,
    num_joint_blocks=1,
    num_single_blocks=1,
    text_dim=4,
    pooled_dim=4,
    num_text_tokens=3,
)


def make_set(std: float = 0.0, copies: int = 1) -> LatentSet:
    """Two sounds, caption 1 a rising and caption 2 a falling line of 6 frames; 4 are real."""
    line = torch.linspace(-1, 1, 6)[:, None].repeat(1, 2)
    mean = torch.stack([3 + 2 * line, 3 - 2 * line]).repeat(copies, 1, 1)
    bucket = LatentBucket(
        mean.half(),
        torch.full_like(mean, std).half(),
        torch.full((len(mean),), 4),
        torch.tensor([[1], [2]]).repeat(copies, 1),
        torch.ones(len(mean), dtype=torch.long),
    )
    tokens = torch.eye(4)[torch.tensor([[0, 0, 0], [1, 1, 1], [2, 2, 2]])]
    return LatentSet((bucket,), pack_captions(TextFeatures(tokens, tokens[:, 0])))


def make_task(config: FlowConfig | None = None, std: float = 0.0) -> PretrainTask:
    data = make_set(std)
    torch.manual_seed(0)
    model = build_transformer(CONFIG, data)
    return PretrainTask(model, data, config or FlowConfig(frames_per_batch=12), seed=0)


def test_two_sounds_are_learnt_by_heart() -> None:
    data = make_set(copies=32)
    torch.manual_seed(0)
    config = FlowConfig(frames_per_batch=384, condition_dropout=0.0)
    task = PretrainTask(build_transformer(CONFIG, data), data, config, seed=0)
    losses = [loss for loss, _ in learn(task, 80, 5e-3)]
    assert losses[0] > 1.5
    assert sum(losses[-10:]) / 10 < 0.5


def test_a_fresh_model_scores_what_a_zero_velocity_scores() -> None:
    task = make_task()  # the output layer starts at zero
    batch = task.draw_batch(draw(0))
    loss, _ = task.loss("model", draw(0))
    torch.testing.assert_close(loss, (batch.noise - batch.data).square().mean())


def test_the_model_knows_the_latents_and_the_empty_prompt() -> None:
    task = make_task()
    batch = task.draw_batch(draw(0))
    torch.testing.assert_close(batch.data.mean(), torch.tensor(0.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(batch.data.std(unbiased=False), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert torch.equal(task.model.empty_tokens, torch.eye(4)[torch.zeros(3, dtype=torch.long)])


def test_a_batch_is_a_function_of_its_number() -> None:
    task = make_task()
    first, other, again = (task.draw_batch(draw(index)) for index in (3, 4, 3))
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.times, again.times)
    assert not torch.equal(first.noise, other.noise)


def test_latents_without_spread_are_their_means() -> None:
    bucket = make_set(std=0.0).buckets[0]
    got = sample_latents(bucket, torch.tensor([1, 0]), generator_for(0, 0, "cpu"))
    assert torch.equal(got, bucket.mean[[1, 0]].float())


def test_latents_are_sampled_anew_with_the_spread_of_the_posterior() -> None:
    bucket = make_set(std=0.5).buckets[0]
    rows = torch.zeros(4000, dtype=torch.long)
    got = sample_latents(bucket, rows, generator_for(0, 0, "cpu")) - bucket.mean[0].float()
    assert got.std().item() == pytest.approx(0.5, rel=0.02)
    assert got.mean().item() == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("dropout", "expected"), [(0.0, {1, 2}), (1.0, {0})])
def test_prompts_are_dropped_whole_at_the_rate_asked_for(
    dropout: float, expected: set[int]
) -> None:
    bucket = make_set().buckets[0]
    rows = torch.arange(200) % 2
    chosen = choose_captions(bucket, rows, dropout, generator_for(0, 0, "cpu"))
    assert set(chosen.tolist()) == expected


def test_each_caption_of_a_clip_is_chosen_equally_often_and_no_other() -> None:
    one = torch.zeros(1, 1, 1)
    bucket = LatentBucket(
        one, one, torch.tensor([1]), torch.tensor([[5, 6, 7, 0]]), torch.tensor([3])
    )
    rows = torch.zeros(6000, dtype=torch.long)
    chosen = choose_captions(bucket, rows, 0.0, generator_for(0, 0, "cpu"))
    counts = torch.bincount(chosen, minlength=8).tolist()
    assert counts[:5] == [0] * 5
    assert all(abs(count - 2000) < 150 for count in counts[5:])


def test_masked_padding_has_no_say_in_the_loss() -> None:
    task = make_task(FlowConfig(frames_per_batch=12, mask_padding=True))
    batch = task.draw_batch(draw(0))
    loss, _ = task.loss("model", draw(0))
    expected = (batch.noise - batch.data)[:, :4].square().mean()
    torch.testing.assert_close(loss, expected)


def test_short_windows_get_more_rows_of_the_same_number_of_frames() -> None:
    short, long = make_set().buckets[0], make_set().buckets[0]
    wide = LatentBucket(
        long.mean.repeat(9, 2, 1),
        long.std.repeat(9, 2, 1),
        long.num_real_frames.repeat(9),
        long.captions.repeat(9, 1),
        long.num_captions.repeat(9),
    )
    data = LatentSet((short, wide), make_set().captions)
    task = PretrainTask(build_transformer(CONFIG, data), data, FlowConfig(frames_per_batch=24), 0)
    assert list(task.plan.rows_per_batch) == [4, 2]


def test_normalised_latents_have_the_channel_scales_asked_for() -> None:
    scales = torch.tensor([2.0, 0.5])
    model = build_transformer(CONFIG, make_set(std=0.3), scales)
    bucket = make_set(std=0.3).buckets[0]
    rows = torch.arange(2).repeat(4000)
    latents = model.normalize(sample_latents(bucket, rows, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(latents.std((0, 1)), scales, rtol=0.01, atol=0)
    torch.testing.assert_close(latents.mean((0, 1)), torch.zeros(2), rtol=0, atol=0.02)


def test_scales_follow_a_power_of_the_gains_with_mean_square_one() -> None:
    gains = torch.tensor([4.0, 1.0, 0.25])
    scales = scales_by_gain(gains, 0.5)
    torch.testing.assert_close(scales / scales[1], gains.sqrt())
    torch.testing.assert_close(scales.square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(scales_by_gain(gains, 0.0), torch.ones(3))


def test_at_exponent_one_equal_errors_are_equal_in_the_mel() -> None:
    gains = torch.tensor([4.0, 1.0])
    per_unit = gains / scales_by_gain(gains, 1.0)  # mel moved by one unit of a normalised channel
    torch.testing.assert_close(per_unit[0], per_unit[1])
