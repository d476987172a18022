import json
from pathlib import Path

import pytest
import torch

from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.official.convert import flow_config, load_flow
from resonate_audio.model.official.flow import (
    from_official,
    official_to_ours,
    ours_to_official,
    to_official,
)
from resonate_audio.model.weight_forms import plain_names

KEYS = Path(__file__).parents[4] / "shared" / "reference" / "keys" / "flux_keys.json"
SMALL = FlowTransformerConfig(
    latent_channels=3,
    hidden=16,
    num_heads=2,
    num_joint_blocks=2,
    num_single_blocks=1,
    text_dim=5,
    pooled_dim=4,
    num_text_tokens=6,
)


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("empty_string_feat", "empty_tokens"),
        ("empty_string_feat_c", "empty_pooled"),
        ("t_embed.mlp.2.bias", "timestep.outer.bias"),
        ("r_embed.mlp.0.weight", "end_timestep.inner.weight"),
        ("audio_input_proj.2.w3.weight", "latent_in.mlp.up.weight"),
        ("text_cond_proj.0.bias", "pooled_in.linear.bias"),
        ("final_layer.adaLN_modulation.1.weight", "head.modulation.linear.weight"),
        ("joint_blocks.1.text_block.attn.qkv.bias", "joint_blocks.1.text.heads.qkv.bias"),
        ("fused_blocks.35.ffn.w2.weight", "single_blocks.35.mlp.down.weight"),
        ("latent_mean", "latent_mean"),
    ],
)
def test_names_translate_both_ways(official: str, ours: str) -> None:
    assert (official_to_ours(official), ours_to_official(ours)) == (ours, official)


def test_a_state_dict_comes_back_from_the_official_names() -> None:
    state = FlowTransformer(SMALL).state_dict()
    official = to_official(state)
    assert set(official).isdisjoint(set(state) - {"latent_mean", "latent_std"})
    assert set(from_official(official)) == set(state)


def test_tables_of_old_files_are_left_out() -> None:
    names = ("t_embed.freqs", "r_embed.freqs", "latent_rot", "text_rot", "_extra_state")
    old = {name: torch.zeros(1) for name in names}
    assert from_official(old) == {}


@pytest.mark.parametrize("mean_velocity", [False, True])
def test_the_second_time_and_the_width_of_pooled_text_are_told_by_the_shapes(
    mean_velocity: bool,
) -> None:
    config = SMALL.model_copy(update={"mean_velocity": mean_velocity, "hidden": 32})
    model = FlowTransformer(config)
    official = {f"module.ema_model.{k}": v for k, v in to_official(model.state_dict()).items()}
    state = plain_names(official, "x")
    assert flow_config(state, "x") == config
    loaded = load_flow(state, "x").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_where_the_pooled_empty_prompt_is_missing_it_is_the_mean_of_the_tokens() -> None:
    model = FlowTransformer(SMALL.model_copy(update={"pooled_dim": 5}))
    model.empty_tokens.normal_()
    official = to_official(model.state_dict())
    del official["empty_string_feat_c"]
    loaded = load_flow(official, "x")
    torch.testing.assert_close(loaded.empty_pooled, model.empty_tokens.mean(dim=0))


def test_unknown_names_pass_through_for_the_strict_load_to_name() -> None:
    assert list(from_official({"surprise.weight": torch.zeros(1)})) == ["surprise.weight"]


def test_the_published_preset_has_every_name_and_shape() -> None:
    if not KEYS.is_file():
        pytest.skip(f"no list of published names at {KEYS}")
    published = json.loads(KEYS.read_text())["state_dict"]
    full = SMALL.model_copy(
        update={
            "latent_channels": 40,
            "hidden": 448,
            "num_heads": 7,
            "num_joint_blocks": 16,
            "num_single_blocks": 36,
            "text_dim": 1024,
            "pooled_dim": 1024,
            "num_text_tokens": 77,
        }
    )
    with torch.device("meta"):
        state = to_official(FlowTransformer(full).state_dict())
    assert {name: list(value.shape) for name, value in state.items()} == {
        name: entry["shape"] for name, entry in published.items()
    }
