import pytest
import torch
from drawn import draw
from pydantic import ValidationError

from resonate_audio.core.errors import InputError
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.flow_transformer import (
    Conditions,
    FlowTransformer,
    FlowTransformerConfig,
)

CONFIG = FlowTransformerConfig(
    latent_channels=3,
    hidden=16,
    num_heads=2,
    num_joint_blocks=2,
    num_single_blocks=2,
    text_dim=5,
    pooled_dim=4,
    num_text_tokens=6,
    max_frames=12,
)


def random_model(seed: int = 0) -> FlowTransformer:
    """A model in which nothing is zero, so every path carries signal."""
    model = FlowTransformer(CONFIG)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def features(num_rows: int, seed: int = 5) -> TextFeatures:
    return TextFeatures(draw(num_rows, 6, 5, seed=seed), draw(num_rows, 4, seed=seed + 1))


def test_a_fresh_model_has_zero_velocity() -> None:
    model = FlowTransformer(CONFIG)
    v = model(draw(2, 7, 3), torch.rand(2), model.condition(features(2)))
    assert torch.equal(v, torch.zeros(2, 7, 3))


def test_rows_do_not_see_each_other() -> None:
    model, z, t = random_model(), draw(2, 7, 3), torch.tensor([0.2, 0.9])
    prompt = model.condition(features(2))
    together = model(z, t, prompt)
    alone = model(z[1:], t[1:], Conditions(prompt.tokens[1:], prompt.pooled[1:]))
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["tokens", "pooled"])
def test_both_parts_of_a_prompt_move_the_velocity(part: str) -> None:
    model, z, t = random_model(), draw(1, 7, 3), torch.ones(1)
    one, other = features(1, seed=5), features(1, seed=9)
    mixed = TextFeatures(**(vars(one) | {part: getattr(other, part)}))
    v, moved = (model(z, t, model.condition(prompt)) for prompt in (one, mixed))
    assert (v - moved).abs().max() > 1e-3


def test_the_order_of_frames_matters() -> None:
    model, z, t = random_model(), draw(1, 7, 3), torch.ones(1)
    prompt = model.condition(features(1))
    assert not torch.allclose(model(z.flip(1), t, prompt), model(z, t, prompt).flip(1))


def test_all_but_the_queries_of_the_dropped_text_stream_get_a_gradient() -> None:
    model = random_model()
    v = model(draw(2, 7, 3), torch.rand(2), model.condition(features(2)))
    v.square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ["joint_blocks.1.text.heads.query_norm.weight"]


def test_a_bfloat16_model_takes_and_gives_float32_latents() -> None:
    model, z, t = random_model(), draw(1, 7, 3), torch.ones(1)
    exact = model(z, t, model.condition(features(1)))
    model.to(torch.bfloat16)
    rounded = model(z, t, model.condition(features(1)))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.1 * exact.abs().max().item(), rtol=0)


def test_too_long_a_clip_is_refused_by_both_lengths() -> None:
    model = FlowTransformer(CONFIG)
    with pytest.raises(InputError, match="13 latent frames: this model takes up to 12"):
        model(draw(1, 13, 3), torch.ones(1), model.condition(features(1)))


def test_normalising_is_undone_and_leaves_its_input() -> None:
    model, z = FlowTransformer(CONFIG), draw(2, 7, 3)
    model.latent_mean.copy_(torch.tensor([[[1.0, -2.0, 0.5]]]))
    model.latent_std.copy_(torch.tensor([[[2.0, 3.0, 0.1]]]))
    before = z.clone()
    torch.testing.assert_close(model.unnormalize(model.normalize(z)), z)
    assert torch.equal(z, before)


def test_normalised_channels_have_the_stored_mean_taken_off() -> None:
    model = FlowTransformer(CONFIG)
    model.latent_mean.fill_(4.0)
    model.latent_std.fill_(2.0)
    assert model.normalize(torch.full((1, 1, 3), 10.0)).tolist() == [[[3.0, 3.0, 3.0]]]


def test_the_empty_prompt_is_the_stored_one_in_every_row() -> None:
    model = FlowTransformer(CONFIG)
    model.empty_tokens.copy_(draw(6, 5))
    model.empty_pooled.copy_(draw(4))
    empty = model.empty_features(3)
    assert torch.equal(empty.tokens[2], model.empty_tokens)
    assert torch.equal(empty.pooled[1], model.empty_pooled)


def test_joined_conditions_keep_the_order_of_rows() -> None:
    model = random_model()
    one, two = model.condition(features(1)), model.condition(features(2, seed=8))
    joined = one.followed_by(two)
    assert torch.equal(joined.tokens[1:], two.tokens)
    assert torch.equal(joined.pooled[:1], one.pooled)


def test_statistics_and_the_empty_prompt_are_saved_but_not_trained() -> None:
    model = FlowTransformer(CONFIG)
    stored = {"latent_mean", "latent_std", "empty_tokens", "empty_pooled"}
    assert stored <= set(model.state_dict())
    assert stored.isdisjoint(name for name, _ in model.named_parameters())


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValidationError, match="hidden 16 does not split into 3 heads"):
        FlowTransformerConfig(**(CONFIG.model_dump() | {"num_heads": 3}))


def test_recomputed_blocks_give_the_same_gradients_and_keep_less() -> None:
    gradients, kept, model = [], [], random_model()
    for recompute in (False, True):
        model.zero_grad()
        model.recompute_blocks = recompute
        sizes: dict[int, int] = {}

        def count(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            v = model(draw(2, 7, 3), torch.tensor([0.2, 0.9]), model.condition(features(2)))
        kept.append(sum(sizes.values()))
        v.square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-8)
    assert kept[1] < 0.7 * kept[0]


LEVELS = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])


def with_data_std(std: float) -> FlowTransformer:
    return FlowTransformer(CONFIG.model_copy(update={"data_std": std}))


@pytest.mark.parametrize("std", [0.25, 1.0, 2.0])
def test_a_silent_network_says_the_best_that_its_input_alone_can_say(std: float) -> None:
    data, noise = std * draw(5, 400, 300, seed=1).double(), draw(5, 400, 300, seed=2).double()
    t = LEVELS.double()[:, None, None]
    z, target = (1 - t) * data + t * noise, noise - data
    said = with_data_std(std).from_output(torch.zeros_like(z), z, LEVELS)
    left = (target - said).square().mean(dim=(1, 2))
    slope = (target * z).sum(dim=(1, 2)) / z.square().sum(dim=(1, 2))  # least squares of v on z
    torch.testing.assert_close(said, slope[:, None, None] * z, atol=0.05, rtol=0.02)
    # What is left is c²: the network's output has unit variance, and its loss counts as that.
    weights = with_data_std(std).loss_weights(LEVELS.double())
    torch.testing.assert_close(left * weights, torch.ones_like(left), atol=0.02, rtol=0)


def test_the_weights_of_the_loss_undo_what_the_output_is_multiplied_by() -> None:
    model, z = with_data_std(0.5), draw(5, 2, 3)
    parts = [model.from_output(torch.full_like(z, one), z, LEVELS) for one in (0.0, 1.0)]
    squares = (parts[1] - parts[0]).square().mean(dim=(1, 2))
    torch.testing.assert_close(squares * model.loss_weights(LEVELS), torch.ones(5))


def test_without_a_deviation_the_output_is_the_velocity() -> None:
    model, output = random_model(), draw(5, 2, 3)
    assert model.from_output(output, draw(5, 2, 3, seed=1), LEVELS) is output
    assert torch.equal(model.loss_weights(LEVELS), torch.ones(5))
