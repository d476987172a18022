"""Adapters beside the linear maps."""

import pytest
import torch
from tiny_model import TINY, random_features, random_networks

from resonate_audio.core.errors import ConfigError
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.training.reinforce.lora import (
    LoraSettings,
    adapter_layers,
    add_lora,
    merged_state,
    without_lora,
)


def velocity(model: FlowTransformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    features = random_features(generator)
    z = torch.randn(2, 5, model.config.latent_channels, generator=generator)
    return model(z, torch.tensor([0.3, 0.9]), model.condition(features))


def adapted(scale: float = 0.0) -> FlowTransformer:
    """A model with adapters, moved away from where they start by ``scale``."""
    model = random_networks(TINY, seed=0).transformer
    add_lora(model, LoraSettings(rank=2, alpha=4.0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(scale * torch.randn_like(parameter))
    return model


def test_fresh_adapters_change_nothing() -> None:
    plain = random_networks(TINY, seed=0).transformer
    assert torch.equal(velocity(adapted()), velocity(plain))


@pytest.mark.parametrize("mean_velocity", [False, True])
def test_every_linear_map_takes_an_adapter(mean_velocity: bool) -> None:
    config = TINY.transformer.model_copy(update={"mean_velocity": mean_velocity})
    model = FlowTransformer(config)
    before = velocity(model)
    add_lora(model, LoraSettings(rank=2, targets=".*"))
    assert torch.equal(velocity(model), before)


def test_adapters_off_is_the_model_before() -> None:
    plain, model = random_networks(TINY, seed=0).transformer, adapted(0.3)
    assert not torch.allclose(velocity(model), velocity(plain))
    with without_lora(model):
        assert torch.equal(velocity(model), velocity(plain))
    assert not torch.allclose(velocity(model), velocity(plain))


def test_only_adapters_are_trained() -> None:
    model = adapted()
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)


def test_merged_weights_compute_the_same_under_plain_names() -> None:
    model = adapted(0.3)
    merged = FlowTransformer(TINY.transformer)
    merged.load_state_dict(merged_state(model), strict=True)
    torch.testing.assert_close(velocity(merged), velocity(model), rtol=1e-5, atol=1e-5)


def test_merging_leaves_the_adapted_model_as_it_was() -> None:
    model = adapted(0.3)
    before = velocity(model)
    merged_state(model)
    assert torch.equal(velocity(model), before)


def test_attention_and_modulation_get_adapters() -> None:
    names = adapter_layers(adapted())
    assert any(name.endswith("heads.qkv") for name in names)
    assert any(name.endswith("modulation.linear") for name in names)


@pytest.mark.parametrize(
    ("targets", "message"), [("nothing", "no linear map"), ("(", "not a regular expression")]
)
def test_targets_that_name_nothing_are_refused(targets: str, message: str) -> None:
    model = random_networks(TINY, seed=0).transformer
    with pytest.raises(ConfigError, match=message):
        add_lora(model, LoraSettings(targets=targets))
