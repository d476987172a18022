"""The model in training, the one it was, and the one that made the rollout."""

import pytest
import torch
from tiny_model import TINY, random_features, random_networks

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.times import uniform_grid
from resonate_audio.model.presets import with_few_steps
from resonate_audio.training.reinforce.lora import LoraSettings
from resonate_audio.training.reinforce.policy import Policy, load_weights, trained_weights

LORA = LoraSettings(rank=2, alpha=4.0)


def policy(lora: LoraSettings | None = None, guidance_scale: float = 1.0) -> Policy:
    return Policy(random_networks(TINY, seed=0).transformer, guidance_scale, lora)


def inputs() -> tuple[torch.Tensor, torch.Tensor, TextFeatures]:
    generator = torch.Generator().manual_seed(3)
    features = random_features(generator)
    z = torch.randn(2, 5, TINY.transformer.latent_channels, generator=generator)
    return z, torch.tensor([0.3, 0.9]), features


def mean_policy(num_steps: int) -> Policy:
    few = random_networks(with_few_steps(TINY, num_steps), seed=0).transformer
    return Policy(few, lora=LORA, times=uniform_grid(num_steps))


def disturb(model: torch.nn.Module) -> None:
    """Train a little."""
    generator = torch.Generator().manual_seed(9)
    moved = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in trained_weights(model).items()
    }
    load_weights(model, moved)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_the_reference_stays_what_the_model_was(lora: LoraSettings | None) -> None:
    taught = policy(lora)
    z, t, features = inputs()
    before = taught.bind(features)(z, t).detach()
    disturb(taught.model)
    assert not torch.allclose(taught.bind(features)(z, t), before)
    assert torch.equal(taught.bind_reference(features)(z, t), before)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_remembered_weights_are_those_at_the_time(lora: LoraSettings | None) -> None:
    taught = policy(lora)
    z, t, features = inputs()
    disturb(taught.model)
    taught.remember()
    then = taught.bind(features)(z, t).detach()
    disturb(taught.model)
    now = taught.bind(features)(z, t).detach()
    assert torch.equal(taught.bind_remembered(features)(z, t), then)
    assert torch.equal(taught.bind(features)(z, t), now)


def test_remembering_with_decay_moves_part_of_the_way() -> None:
    taught = policy()
    taught.remember()
    old = dict(taught.remembered)
    disturb(taught.model)
    new = trained_weights(taught.model)
    taught.remember(decay=0.75)
    for name, value in taught.remembered.items():
        torch.testing.assert_close(value, 0.75 * old[name] + 0.25 * new[name])


def test_guidance_is_that_of_the_sampler() -> None:
    taught = policy(guidance_scale=4.5)
    z, t, features = inputs()
    model = taught.model
    expected = guided(
        model, model.condition(features), model.condition(model.empty_features(2)), 4.5
    )(z, t)
    assert torch.equal(taught.bind(features)(z, t), expected)


def test_without_guidance_the_empty_prompt_is_never_asked() -> None:
    z, t, features = inputs()
    taught = policy(guidance_scale=1.0)
    with torch.no_grad():
        taught.model.empty_tokens.fill_(torch.nan)
    assert taught.bind(features)(z, t).isfinite().all()


def test_half_precision_gives_float32_velocities_near_the_exact_ones() -> None:
    z, t, features = inputs()
    model = random_networks(TINY, seed=0).transformer
    half = Policy(model, precision=torch.bfloat16).bind(features)(z, t)
    exact = policy().bind(features)(z, t)
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, rtol=0.1, atol=0.1)


def test_only_the_weights_that_were_named_are_trained() -> None:
    model = random_networks(TINY, seed=0).transformer
    taught = Policy(model, train_only=r"text_in\..*")
    names = set(trained_weights(taught.model))
    assert names == {name for name, _ in model.named_parameters() if name.startswith("text_in.")}
    assert names
    z, t, features = inputs()
    before = taught.bind(features)(z, t).detach()
    disturb(taught.model)
    assert torch.equal(taught.bind_reference(features)(z, t), before)


@pytest.mark.parametrize(
    ("train_only", "lora", "complaint"),
    [
        ("nowhere", None, "no weight has such a name"),
        ("(", None, "no regular expression"),
        (".*", LORA, "no meaning beside lora"),
    ],
)
def test_a_choice_of_weights_that_makes_no_sense_is_refused(
    train_only: str, lora: LoraSettings | None, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Policy(random_networks(TINY, seed=0).transformer, 1.0, lora, train_only=train_only)


def test_regression_teaches_mean_velocities_at_the_levels_that_are_used() -> None:
    few, generator = mean_policy(4), torch.Generator().manual_seed(0)
    levels = few.regressed_levels(generator, 200)
    assert set(levels.tolist()) == {0.25, 0.5, 0.75, 1.0}
    z, _, features = inputs()
    t, r = torch.tensor([0.25, 1.0]), torch.tensor([0.0, 0.75])
    expected = few.model(z, t, few.model.condition(features), r)
    assert torch.equal(few.bind(features, few.regressed_guidance)(z, t), expected)
    assert not torch.equal(few.bind(features, 1.0)(z, t), expected)


def test_regression_teaches_plain_velocities_at_any_level() -> None:
    plain, generator = policy(), torch.Generator().manual_seed(0)
    assert plain.regressed_guidance == 1.0
    assert len(set(plain.regressed_levels(generator, 50).tolist())) == 50


def test_a_regression_on_data_aims_at_the_mean_velocity_that_goes_with_them() -> None:
    """v − (t − r)·du/dt by central differences, where the weights are no longer the first ones."""
    few = mean_policy(4)
    disturb(few.model)
    few.model.double()
    z, _, features = inputs()
    z, features = z.double(), TextFeatures(features.tokens.double(), features.pooled.double())
    t, r, step = torch.tensor([0.25, 1.0]).double(), torch.tensor([0.0, 0.75]).double(), 1e-3
    data_velocity = torch.randn_like(z)
    conditions = few.model.condition(features)
    with torch.no_grad():
        ahead = few.model(z + step * data_velocity, t + step, conditions, r)
        behind = few.model(z - step * data_velocity, t - step, conditions, r)
    change = (ahead - behind) / (2 * step)
    expected = data_velocity - (t - r)[:, None, None] * change
    target = few.regressed_target(features, z, t, data_velocity)
    torch.testing.assert_close(target, expected, rtol=1e-3, atol=1e-4)
    assert (target - data_velocity).abs().max() > 0.01
    assert policy().regressed_target(features, z, t, data_velocity) is data_velocity
