from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.presets import (
    MEAN_EDIT_STEPS,
    NANO,
    NANO_FLOW,
    PRESETS,
    RESONATE,
    RESONATE_16K,
    ModelConfig,
)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_survives_json(preset: ModelConfig) -> None:
    values = json.loads(preset.model_dump_json())
    assert parse_config(ModelConfig, values, "here") == preset


def test_ten_seconds_of_the_published_model_are_431_frames() -> None:
    assert RESONATE.num_frames(10.0) == 431
    assert 431 * RESONATE.frame_samples == 441_344


def test_the_published_model_has_468_million_weights() -> None:
    with torch.device("meta"):
        network = FlowTransformer(RESONATE.transformer)
    assert sum(value.numel() for value in network.state_dict().values()) == 468_285_432


@pytest.mark.parametrize(
    ("name", "millions"), [("meanaudio-s", 120.5), ("meanaudio-l", 479.5), ("fluxaudio-s", 120.2)]
)
def test_the_meanaudio_family_has_its_published_sizes(name: str, millions: float) -> None:
    config = PRESETS[name]
    with torch.device("meta"):
        network = FlowTransformer(config.transformer)
    num_weights = sum(value.numel() for value in network.state_dict().values())
    assert num_weights / 1e6 == pytest.approx(millions, abs=0.06)
    assert config.num_frames(config.default_duration_s) == 312
    assert config.text_encoder.pooled_dim == 512


def test_nano_has_ten_to_sixteen_million_weights() -> None:
    with torch.device("meta"):
        network = FlowTransformer(NANO.transformer)
    assert 10e6 <= sum(value.numel() for value in network.parameters()) <= 16e6


def test_nano_is_its_flow_in_four_steps_with_guidance_inside() -> None:
    distilled = {"mean_velocity": True}
    assert NANO.transformer == NANO_FLOW.transformer.model_copy(update=distilled)
    assert (NANO.vae, NANO.vocoder, NANO.mel) == (NANO_FLOW.vae, NANO_FLOW.vocoder, NANO_FLOW.mel)
    assert (NANO.default_steps, NANO.default_guidance, NANO.guidance_inside) == (4, 1.0, True)
    assert NANO.num_frames(NANO.max_duration_s) == 216


def test_where_a_source_is_changed_mean_velocities_take_more_steps() -> None:
    assert (NANO.edit_steps, NANO_FLOW.edit_steps) == (MEAN_EDIT_STEPS, NANO_FLOW.default_steps)
    assert NANO.model_copy(update={"default_steps": 20}).edit_steps == 20


def test_16_khz_frames_are_32_ms() -> None:
    assert 1 / RESONATE_16K.frame_rate_hz == pytest.approx(0.032)


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("vae", "num_bands", 64, "num_bands is 64"),
        ("vocoder", "hop_samples", 128, "hop_samples is 128"),
        ("transformer", "latent_channels", 8, "latent_channels is 8"),
        ("transformer", "text_dim", 9, "text_dim is 9"),
        ("text_encoder", "num_tokens", 20, "num_text_tokens is 77"),
        ("transformer", "max_frames", 10, "latent frames"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(part: str, field: str, value: int, message: str) -> None:
    values = NANO.model_dump()
    values[part][field] = value
    with pytest.raises(ConfigError, match=message):
        parse_config(ModelConfig, values, "here")


def test_a_default_beyond_the_longest_is_refused() -> None:
    values = {**NANO.model_dump(), "default_duration_s": 11.0}
    with pytest.raises(ConfigError, match="default_duration_s"):
        parse_config(ModelConfig, values, "here")


def test_the_key_lists_of_the_published_flow_match() -> None:
    keys = Path(__file__).parents[3] / "shared" / "reference" / "keys" / "flux_keys.json"
    if not keys.is_file():
        pytest.skip(f"needs the key lists at {keys.parent}")
    from resonate_audio.model.official.flow import ours_to_official

    with torch.device("meta"):
        network = FlowTransformer(RESONATE.transformer)
    shapes = {ours_to_official(k): list(v.shape) for k, v in network.state_dict().items()}
    expected = json.loads(keys.read_text())["state_dict"]
    assert shapes == {name: entry["shape"] for name, entry in expected.items()}
